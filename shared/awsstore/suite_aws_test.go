//go:build aws

package awsstore_test

import (
	"testing"

	"github.com/deltadesk/deltadesk/shared/awsstore/awstest"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
)

// TestSuite runs every rule of the ports against a table, a bucket and a queue of its own.
func TestSuite(t *testing.T) {
	cfg := awstest.AWS(t)
	deltatest.StoreSuite(t, func(t testing.TB) deltatest.Stores { return awstest.Stores(t, cfg, awstest.Stack(t, cfg)) })
}

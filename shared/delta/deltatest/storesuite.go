package deltatest

import (
	"context"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// Stores is what a store offers to the engine, together with what the suite needs to try it.
type Stores struct {
	Rows    delta.Rows
	Objects delta.Objects
	Queue   Queue
	// Reopen returns the same store as a new process finds it: what was acknowledged is there, whatever was in memory is
	// not. The old one is not used any more.
	Reopen func(t testing.TB) Stores
	// Skip names rules that this store need not keep, with the reason.
	Skip map[string]string
}

// Queue is a queue together with its receiving end, which the engine does not need: in the cloud it is an event source.
type Queue interface {
	delta.Queue
	// Receive waits until messages are due and returns up to max of them, or ctx's error. They count as handled.
	Receive(ctx context.Context, max int) ([]delta.Message, error)
}

// StoreSuite runs every rule of the ports against stores that open makes. Open may give the same tables and buckets each
// time, because every rule keeps to names of its own. Rules that a store may break are subtests, named "rows/put race".
func StoreSuite(t *testing.T, open func(t testing.TB) Stores) {
	for _, r := range storeRules {
		t.Run(r.name, func(t *testing.T) {
			s := open(t)
			if why, ok := s.Skip[r.name]; ok {
				t.Skip(why)
			}
			r.check(t, s)
		})
	}
}

// storeRule is one sentence of the contract. Its check reports with Error and Fatal only.
type storeRule struct {
	name  string
	check func(t testing.TB, s Stores)
}

var storeRules = append(append(rowRules, objectRules...), queueRules...)

// newName returns a name that no other rule, run or process uses.
func newName() string { return strings.ToLower(ulid.Make().String()) }

package localstore_test

import (
	"testing"

	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/localstore"
)

func TestSuite(t *testing.T) {
	deltatest.StoreSuite(t, func(t testing.TB) deltatest.Stores { return openSuite(t, t.TempDir()) })
}

func openSuite(t testing.TB, dir string) deltatest.Stores {
	t.Helper()
	s, err := localstore.Open(t.Context(), dir, localstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return deltatest.Stores{
		Rows: s.Rows(), Objects: s.Objects(), Queue: s.Queue(),
		Reopen: func(t testing.TB) deltatest.Stores {
			t.Helper()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return openSuite(t, dir)
		},
	}
}

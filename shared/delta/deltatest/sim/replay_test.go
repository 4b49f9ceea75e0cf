package sim

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A failure is of use only if its seed plays it again: the same seed must play the same world, call by call, and a world from
// which an event was left out must not have it.
func TestReplay(t *testing.T) {
	for n := 1; n <= 6; n++ {
		seed := seedOf(20261124, n)
		a, b := playOne(seed, nil, true), playOne(seed, nil, true)
		if d := cmp.Diff(a.trace, b.trace); d != "" {
			t.Fatalf("seed %d plays two ways (-first +second):\n%.2000s", seed, d)
		}
		if len(a.trace) < 100 {
			t.Errorf("seed %d: %d lines of trace; hardly anything happened", seed, len(a.trace))
		}
		c := playOne(seed, []int{}, true)
		if slices.ContainsFunc(c.trace, func(l string) bool { return eventLine.MatchString(l) }) {
			t.Errorf("seed %d: events happen although all were left out", seed)
		}
	}
}

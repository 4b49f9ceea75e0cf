// Races between runs, restarts, censuses and undos.

package delta_test

import (
	"testing"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// People move a ticket into the scope while a census looks: nobody has missed it, and the next delta brings it.
func TestRaceIntoScopeWhileCounting(t *testing.T) {
	s := newStage(t)
	s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	s.ticket("in", "one")
	id := s.ticket("moves", "one")
	s.Source.Edit(ticket(id), desk.Fields{desk.Group: {"Sales"}})
	s.full()
	moved := false
	s.Source.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref == ticket(id) && !moved {
			moved = true
			s.Source.Edit(ticket(id), desk.Fields{desk.Group: {"Support"}})
		}
		return nil
	}
	if missed, rep := s.census(census); len(missed) > 0 || rep.Status != string(delta.Verified) || !moved {
		t.Errorf("the census ended %s and calls %q missed", rep.Status, missed)
	}
	s.delta()
	s.thread(id, "one")
}

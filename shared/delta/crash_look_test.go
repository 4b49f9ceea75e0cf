package delta_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// looked is a small migration whose feed of changes does not tell everything, and whose mapping changes.
type looked struct {
	w                                      *deltatest.World
	edited, deleted, calm, unheard, theirs string
	began                                  int // the first effect after the full run
}

// play has a census and a remap, each with the delta that follows.
func (s *looked) play() error {
	w := s.w
	run := func(q delta.Request, want delta.Status) error {
		r, err := w.Run(q, nil)
		if err == nil && r.Status != want {
			err = fmt.Errorf("ended %s (%s), want %s", r.Status, r.Why, want)
		}
		if err != nil {
			return fmt.Errorf("%s run %s: %w", q.Kind, r.ID, err)
		}
		return nil
	}
	add := func(subject, group string) string {
		id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {subject}, desk.Status: {"open"}, desk.Group: {group}})
		w.Source.Say(id, true, desk.Author{Name: "Ann"}, "about "+subject, nil)
		return id
	}
	w.Source.Purges = true
	s.edited, s.deleted, s.calm, s.theirs = add("edited", "Support"), add("deleted", "Support"), add("calm", "Sales"), add("theirs", "Sales")
	if err := run(delta.Request{Kind: delta.Full, Scope: "all"}, delta.Verified); err != nil {
		return err
	}
	s.began = w.Effects.Count() + 1
	w.Until(time.Date(2026, 3, 11, 9, 0, 0, 0, time.UTC))
	w.Source.Unseen(func() {
		s.unheard = add("unheard", "Support")
		w.Source.Edit(ticket(s.edited), desk.Fields{desk.Status: {"stalled"}})
		w.Source.Remove(ticket(s.deleted))
	})
	w.Target.Edit(ticket(w.Target.Target(ticket(s.theirs))), desk.Fields{desk.Subject: {"an agent's own"}})
	w.Wait(time.Hour)
	if err := run(delta.Request{Kind: delta.Census, Scope: "all"}, delta.Exceptions); err != nil {
		return err
	}
	if err := run(mainDelta, delta.Verified); err != nil {
		return err
	}
	w.Migration.Hash, w.Migration.Rules.Groups = "h2", map[string]string{"Sales": "Trade"}
	w.Restart()
	w.Wait(time.Hour)
	if err := run(delta.Request{Kind: delta.Remap, Scope: "all"}, delta.Verified); err != nil {
		return err
	}
	return run(mainDelta, delta.Verified)
}

func playLooked(laptop bool, disorder uint64, cuts []deltatest.Cut, blind bool) (*deltatest.World, error) {
	s := &looked{w: crashWorld(laptop, disorder, cuts, blind)}
	return s.w, s.play()
}

// TestCrashLooking cuts a census, a remap and the deltas that follow off before and after every effect, and wants the target of
// the undisturbed migration; which is written out here.
func TestCrashLooking(t *testing.T) {
	s := &looked{w: crashWorld(true, 0, nil, false)}
	if err := s.play(); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for ref, all := range s.w.Target.Look() {
		for _, one := range all {
			got[ref] += fmt.Sprintln(one.Fields[desk.Subject], one.Fields[desk.Status], one.Fields[desk.Group], len(one.Entries))
		}
	}
	if d := cmp.Diff(map[string]string{
		"ticket/" + s.edited:  "[edited] [stalled] [Support] 1\n",
		"ticket/" + s.deleted: "[deleted] [resolved] [Support] 1\n", // policy: close
		"ticket/" + s.unheard: "[unheard] [open] [Support] 1\n",
		"ticket/" + s.calm:    "[calm] [open] [Trade] 1\n",
		"ticket/" + s.theirs:  "[an agent's own] [open] [Trade] 1\n",
	}, got); d != "" {
		t.Errorf("undisturbed (-want +got):\n%s", d)
	}
	for _, laptop := range []bool{true, false} {
		t.Run(fmt.Sprintf("laptop=%v", laptop), func(t *testing.T) {
			t.Parallel()
			explore(t, laptop, false, s.began, playLooked, func(err error) bool { t.Error(err); return true })
		})
	}
}

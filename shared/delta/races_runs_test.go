// Races between runs, restarts, censuses and undos.

package delta_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
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

// Two planners step one delta at the same time. One has found nothing to plan and is about to end it; the other one meanwhile
// plans a ticket that has just become due. Either it is part of the run, or it waits for the next one.
func TestRaceTwoPlanners(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one", "one")
	s.full()
	s.delta()
	s.Wait(time.Hour)
	s.Source.Unseen(func() { s.say(id, "two") })
	e := s.Engine()
	r, _, err := e.Start(ctx, mainDelta)
	if err != nil {
		t.Fatal(err)
	}
	s.Source.Fail = func(op string, ref desk.Ref) error {
		if op != "list" || ref.Kind != desk.Ticket { // what is due has been looked for
			return nil
		}
		s.Source.Fail = nil
		if missed, _ := s.census(census); len(missed) != 1 {
			t.Fatalf("the census misses %q", missed)
		}
		_, err := e.Step(ctx, r.ID)
		return err
	}
	if p, err := e.Step(ctx, r.ID); !errors.Is(err, delta.ErrStale) {
		t.Errorf("the first planner ends the run as %s: %v", p.Run.Status, err)
	}
	rep := reportOf(t, s.World, run(t, s.World, mainDelta).ID)
	if rep.Run != r.ID || rep.Counts.Planned != 1 || rep.Counts.Updated != 1 {
		t.Errorf("run %s of %s: %+v", rep.Run, r.ID, rep.Counts)
	}
	s.thread(id, "one", "two")
}

// A planner is cut off when the plan has ended and there is no verdict yet: the next one goes on there, and it comes to the same.
func TestRacePlanEnded(t *testing.T) {
	for _, q := range []delta.Request{mainDelta, census, {Kind: delta.Remap, Scope: "all"}, {Kind: delta.Verify, Scope: "all"}, {Kind: delta.Sample, Scope: "all", N: 1}} {
		for _, busy := range []bool{true, false} {
			play := func(cuts ...deltatest.Cut) (*stage, report.Counts) {
				s := newStage(t)
				id := s.ticket("one", "one")
				s.full()
				s.delta()
				if s.Wait(time.Hour); busy {
					s.say(id, "two")
				}
				s.Effects.Cuts = cuts
				return s, reportOf(t, s.World, run(t, s.World, q).ID).Counts
			}
			s, want := play()
			last := 0
			for i, name := range s.Effects.Names {
				if strings.HasPrefix(name, "put pages/") {
					last = i + 1
				}
			}
			s, got := play(deltatest.Cut{Effect: last, After: true})
			if s.Restarts != 1 || got != want {
				t.Errorf("%s: cut off %d times, %+v, want %+v", q.Kind, s.Restarts, got, want)
			}
		}
	}
}

// The event tag is taken off a ticket whose tags people have set, and answers get lost again and again, whatever comes in between: the
// tags stay theirs.
func TestRaceTagTakenOff(t *testing.T) {
	restore := func(s *stage, id string) { s.Source.Restore(ticket(id)) }
	for _, c := range []struct {
		name       string
		amid, back func(s *stage, id string)
	}{
		{"a field", func(s *stage, id string) { s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}}) }, restore},
		{"an entry", func(s *stage, id string) { s.say(id, "more") }, restore},
		{"marked as spam", func(s *stage, id string) { s.Source.Junk(ticket(id)) }, restore},
		{
			"merged outside the scope", func(s *stage, id string) {
				out := s.ticket("outside")
				s.Source.Edit(ticket(out), desk.Fields{desk.Group: {"Sales"}})
				s.Source.Join(ticket(id), ticket(out))
			}, func(s *stage, id string) { s.Source.Part(ticket(id)) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t)
			s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
			s.Migration.OnDeleted, s.Migration.OnSpam, s.Migration.OnMerged = delta.Tag, delta.Ignore, delta.Close
			s.Target.TellsTouched = true
			id := s.ticket("one", "hello")
			s.Source.Edit(ticket(id), desk.Fields{desk.Tags: {"c"}})
			s.full()
			s.Wait(time.Hour)
			s.Source.Remove(ticket(id))
			s.delta()
			s.Target.Edit(s.there(id), desk.Fields{desk.Tags: {"b", "deleted-in-source"}})
			restore(s, id)
			s.Target.Lose = func(string, desk.Ref) error {
				s.Target.Lose = loseOnce("apply")
				c.amid(s, id)
				return noAnswer()
			}
			s.delta()
			c.back(s, id)
			s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"9"}})
			s.Target.Lose = loseOnce("apply")
			s.delta()
			s.field(id, desk.Tags, "[b]")
			s.field(id, desk.Priority, "[9]")
			s.nothingHeld()
		})
	}
}

// A ticket is deleted in the source, which shows nothing of it any more, while the answer to a write of its entries is lost: that they
// are of no other ticket is known all the same.
func TestRaceDeletedBehindLostAnswer(t *testing.T) {
	for _, op := range []string{"create", "apply"} {
		s := newStage(t)
		s.Source.Purges, s.Migration.OnDeleted = true, delta.Mirror
		s.ticket("other")
		if op == "create" {
			s.full()
		}
		id := s.ticket("one", "hello")
		if op == "apply" {
			s.full()
			s.say(id, "more")
		}
		s.Target.Lose = func(string, desk.Ref) error {
			s.Target.Lose = nil
			s.Source.Remove(ticket(id))
			return noAnswer()
		}
		s.delta()
		s.delta()
		s.absent(id)
	}
}

// A full run is cancelled while the answer to a create is open, and the ticket is deleted: the next full run does not see it any more,
// and no feed tells. A census finds what may have been left behind.
func TestRaceDeletedBehindOpenCreate(t *testing.T) {
	s := newStage(t)
	s.Source.Purges, s.Migration.OnDeleted = true, delta.Mirror
	s.ticket("other")
	id := s.ticket("one", "hello")
	var full delta.Run
	s.Target.Lose = func(_ string, ref desk.Ref) error {
		if s.Target.Target(ticket(id)) == "" {
			return nil
		}
		s.Target.Lose = nil
		s.Source.Remove(ticket(id))
		return errors.Join(noAnswer(), s.Engine().Cancel(ctx, full.ID, "the operator"))
	}
	full, _, err := s.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all"})
	if err != nil {
		t.Fatal(err)
	}
	if full = run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Continue: true}); full.Status != delta.Cancelled {
		t.Errorf("the full run is %s", full.Status)
	}
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true})
	s.delta()
	if missed, _ := s.census(census); len(missed) != 1 || missed[0] != id {
		t.Errorf("the census misses %q", missed)
	}
	s.delta()
	s.absent(id)
}

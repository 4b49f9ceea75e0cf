package delta_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

// Races between runs, restarts, censuses and undos.

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

// The same, and whoever takes it over dies, too: that we have deleted it is not forgotten, and nobody is asked when it comes back.
func TestRaceDeletedBehindTwoDeaths(t *testing.T) {
	for n := 1; n < 60; n++ {
		s := newStage(t)
		s.Migration.OnDeleted = delta.Mirror
		id := s.ticket("one", "hello")
		s.full()
		s.Source.Remove(ticket(id))
		lose(t, s.Target, "delete", func() { s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}} })
		if s.delta(); s.Restarts == 0 {
			return
		}
		s.Source.Restore(ticket(id))
		s.delta()
		s.nothingHeld()
		if s.thread(id, "hello"); t.Failed() {
			t.Fatalf("cut off at %s", s.Effects.Names[s.Effects.Cuts[0].Effect-1])
		}
	}
}

// A full run is cancelled while the answer to a create is open, or what was made cannot be read back, and the ticket is deleted: the
// next full run does not see it any more, and no feed tells. A census finds what may have been left behind.
func TestRaceDeletedBehindOpenCreate(t *testing.T) {
	for _, lost := range []bool{true, false} {
		s := newStage(t)
		s.Source.Purges, s.Migration.OnDeleted = true, delta.Mirror
		s.ticket("other")
		id := s.ticket("one", "hello")
		var full delta.Run
		fault := func(_ string, ref desk.Ref) error {
			if s.Target.Target(ticket(id)) == "" || !lost && ref != s.there(id) {
				return nil
			}
			s.Target.Lose, s.Target.Fail = nil, nil
			s.Source.Remove(ticket(id))
			return errors.Join(noAnswer(), s.Engine().Cancel(ctx, full.ID, "the operator"))
		}
		if s.Target.Lose = fault; !lost {
			s.Target.Lose, s.Target.Fail = nil, fault
		}
		full, _, err := s.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all"})
		if err != nil {
			t.Fatal(err)
		}
		if full = run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Continue: true}); full.Status != delta.Cancelled {
			t.Errorf("lost=%v: the full run is %s", lost, full.Status)
		}
		s.Wait(time.Hour)
		run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true})
		s.delta()
		if missed, _ := s.census(census); len(missed) != 1 || missed[0] != id {
			t.Errorf("lost=%v: the census misses %q", lost, missed)
		}
		s.delta()
		s.absent(id)
	}
}

// A run that was cut off after it had taken its lane and before it had its row can be seen and cancelled.
func TestRaceLaneWithoutRow(t *testing.T) {
	s := newStage(t)
	s.ticket("one")
	full(t, s.World)
	for n := 1; n < 40; n++ {
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		crashed := func() (yes bool) {
			defer func() { yes = recover() != nil }()
			_, _, err := s.Engine().Start(ctx, mainDelta)
			if err != nil {
				t.Fatal(err)
			}
			return false
		}()
		s.Effects.Cuts = nil
		s.Restart()
		o, err := s.Engine().Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, win := range o.Windows {
			if win.Active == "" {
				continue
			}
			shown := false
			for _, r := range o.Runs {
				shown = shown || r.ID == win.Active
			}
			if !shown {
				t.Errorf("run %s has window %s, and status does not show it", win.Active, win.Name)
			}
			if err := s.Engine().Cancel(ctx, win.Active, "the operator"); err != nil {
				t.Errorf("cancel: %v", err)
			}
			if p, err := s.Engine().Step(ctx, win.Active); err != nil || p.Run.Status != delta.Cancelled || p.Run.Why != "the operator" {
				t.Errorf("after the cancel it is %s (%s), %v", p.Run.Status, p.Run.Why, err)
			}
		}
		if !crashed {
			return
		}
	}
	t.Error("Start does not end")
}

// A waiting run that is cancelled says who cancelled it, not what it had waited for.
func TestRaceCancelWhileWaiting(t *testing.T) {
	for _, during := range []string{"create", "list"} {
		t.Run("during "+during, func(t *testing.T) {
			s := newStage(t)
			for range 40 { // more pages than a step lists
				s.ticket("one")
			}
			revoked, cancelled := 0, false
			cancel := func() {
				o, err := s.Engine().Status(ctx)
				if err == nil {
					err = s.Engine().Cancel(ctx, o.Runs[0].ID, "the operator")
				}
				if err != nil {
					t.Error(err)
				}
			}
			s.Target.Fail = func(op string, ref desk.Ref) error {
				if op != "create" || ref.Kind != desk.Ticket {
					return nil
				}
				if revoked++; revoked == 3 && during == "create" {
					cancel()
				}
				return &desk.Error{Op: op, Class: desk.ErrUnauthorized, Said: "key revoked"}
			}
			s.Source.Fail = func(op string, _ desk.Ref) error {
				if op == "list" && revoked > 0 && during == "list" && !cancelled {
					cancelled = true
					cancel()
				}
				return nil
			}
			r, err := s.Run(fullAll, nil)
			if err != nil || r.Status != delta.Cancelled || r.Why != "the operator" {
				t.Errorf("it ended %s: %q, %v", r.Status, r.Why, err)
			}
		})
	}
}

// The ledger is of an earlier day than a revision, which the source has taken back since. Both entries are named, each as its own desk does.
func TestRaceRestoredWords(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one", "hello")
	full(t, s.World)
	s.Wait(time.Hour)
	day := s.Store.Snapshot()
	say := func(body string) func(*desk.Entry) { return func(en *desk.Entry) { en.Body = body } }
	s.Source.Revise(id, 0, say("well"))
	run(t, s.World, mainDelta)
	s.Store.Restore(day)
	s.Restart()
	s.Source.Revise(id, 0, say("hello"))
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	entry := s.held()
	s.held("the source's entry "+entry+" and the target's 10", " say different things")
}

// The same of a person's name: whoever set it in the target, somebody says what it is to be.
func TestRaceRestoredPerson(t *testing.T) {
	s := newStage(t)
	ann := desk.Ref{Kind: desk.Person, ID: s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})}
	s.full()
	day := s.Store.Snapshot()
	s.Source.Edit(ann, desk.Fields{desk.Name: {"Anna"}})
	s.delta()
	s.Store.Restore(day)
	s.Restart()
	s.Source.Edit(ann, desk.Fields{desk.Name: {"Ann"}})
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.held("name changed on both sides")
	if err := s.Engine().Decide(ctx, ann, desk.Name, "", delta.Decision{Choice: delta.ChooseSource}); err != nil {
		t.Fatal(err)
	}
	s.delta()
	if is := s.Target.Look()[ann.String()][0].Fields[desk.Name]; is != "[Ann]" {
		t.Errorf("the name is %s", is)
	}
	s.nothingHeld()
}

// The ledger is of an earlier day than an entry's turn to private. The source has turned it back since: nobody can tell whether
// people or the migration hid it in the target, so a person is asked.
func TestRaceRestoredPrivacy(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one", "hello")
	full(t, s.World)
	s.Wait(time.Hour)
	day := s.Store.Snapshot()
	s.Source.Flip(id, 0)
	run(t, s.World, mainDelta)
	s.Store.Restore(day)
	s.Restart()
	s.Source.Flip(id, 0)
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.held("differ in who can see them")
	run(t, s.World, mainDelta)
	entry := s.held("differ in who can see them") // until somebody decides
	s.held("the source's entry " + entry + " and the target's 10")
	s.decide(id, entry, delta.ChooseSource)
	run(t, s.World, mainDelta)
	s.nothingHeld()
	if en := s.Target.Look()["ticket/"+id][0].Entries[0]; !strings.Contains(en, "public=true") {
		t.Errorf("after the decision it is %s", en)
	}
}

// A window brings a ticket over while the chain of the other one stands still. A later change of which the feed says nothing is
// missed, although that chain's next run lists the ticket once more.
func TestRaceMissedBehindKnown(t *testing.T) {
	s := newStage(t)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	full(t, s.World)
	s.Wait(time.Hour)
	id := s.ticket("one")
	s.Wait(time.Minute)
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.Wait(time.Hour)
	s.Source.Unseen(func() { s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}}) })
	missed, _ := s.census(census)
	same(t, "missed", []string{id}, missed)
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[two]")
}

// What an undo took back is due in the scope of the run that was undone. A census of another scope does not call it missed.
func TestRaceCensusAfterUndo(t *testing.T) {
	s := newStage(t)
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Migration.OnSpam, s.Migration.ClosedStatus = delta.Close, "closed"
	s.Restart()
	old, junk := s.ticket("old"), s.ticket("junk")
	run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	young := s.ticket("young")
	s.Source.Junk(ticket(junk))
	s.Source.Edit(ticket(old), desk.Fields{desk.Subject: {"two"}})
	r := run(t, s.World, mainDelta)
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	run(t, s.World, delta.Request{Kind: delta.Undo, Undo: r.ID})
	s.field(old, desk.Subject, "[old]")
	s.field(junk, desk.Status, "[open]")
	s.absent(young)
	missed, _ := s.census(delta.Request{Kind: delta.Census, Scope: "support"})
	same(t, "missed", nil, missed)
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.field(old, desk.Subject, "[two]")
	s.field(young, desk.Subject, "[young]")
}

// A rehearsal that was cut off, wherever, is not left behind as one that runs: the next one takes its place.
func TestRaceRehearsalCutOff(t *testing.T) {
	s := newStage(t)
	s.ticket("one")
	dry := delta.Request{Kind: delta.Full, Scope: "all", Dry: true}
	for n := 1; n < 40; n++ {
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		crashed := func() (yes bool) {
			defer func() { yes = recover() != nil }()
			if _, _, err := s.Engine().Start(ctx, dry); err != nil {
				t.Fatal(err)
			}
			return false
		}()
		s.Effects.Cuts = nil
		s.Restart()
		last := run(t, s.World, dry)
		o, err := s.Engine().Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range o.Runs {
			if !r.Status.Ended() || r.ID == last.ID && r.Status != delta.Verified {
				t.Errorf("cut off at %d: rehearsal %s is %s: %s", n, r.ID, r.Status, r.Why)
			}
		}
		if !crashed {
			return
		}
	}
	t.Error("Start does not end")
}

// The ledger is of an earlier day than a deletion that a policy has carried out, and the source brings the ticket back as it was:
// the ledger believes that all is done, and cannot know who closed it in the target.
func TestRaceRestoredDeletion(t *testing.T) {
	s := newStage(t)
	s.Source.Purges, s.Migration.OnDeleted, s.Migration.ClosedStatus = true, delta.Close, "closed"
	id := s.ticket("one")
	s.full()
	s.Wait(time.Hour)
	s.delta()
	day := s.Store.Snapshot()
	s.Source.Remove(ticket(id))
	s.census(census)
	s.delta()
	s.field(id, desk.Status, "[closed]")
	s.Store.Restore(day)
	s.Restart()
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.Wait(time.Hour)
	s.Source.Restore(ticket(id))
	s.delta()
	s.held("status")
}

// The ledger is of the day on which somebody said that what is gone, or may never have arrived, is to be created. It has been since:
// whoever adopts what is there looks, and where that cannot tell, asks once more.
func TestRaceRestoredAnswer(t *testing.T) {
	restore := func(s *stage, amid func()) {
		day := s.Store.Snapshot()
		s.delta()
		amid()
		s.Store.Restore(day)
		s.Restart()
		s.Wait(time.Hour)
		run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	}
	for _, blind := range []bool{false, true} {
		s := newStage(t)
		s.Target.NoFinder, s.Migration.OnTargetGone = blind, delta.HoldGone
		id := s.ticket("one", "first")
		s.full()
		s.Target.Remove(s.there(id))
		s.say(id, "second")
		s.delta()
		s.held("deleted in the target")
		s.decide(id, "", delta.ChooseCreate)
		restore(s, func() {})
		s.thread(id, "first", "second")
		if blind {
			s.held("deleted in the target")
			if err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{s.there(id).ID}}); err != nil {
				t.Fatal(err)
			}
			s.delta()
			s.thread(id, "first", "second")
		}
		s.nothingHeld()
	}
	s := newStage(t)
	s.Target.NoMarkers, s.Target.Timed = true, true
	id := s.ticket("one", "first")
	s.full()
	s.say(id, "second")
	at(s.Target, "apply", 1, noAnswer) // it never arrives
	s.delta()
	s.Target.Fail = nil
	s.delta()
	s.held("may have been added already")
	s.decide(id, "", delta.ChooseCreate)
	restore(s, func() { s.Source.Redact(id, 1) })
	s.thread(id, "first", "second")
	s.held("may have been added already")
}

// The process dies, or the ledger is of the moment, between a run's verdict and the move of its cutoff. The run has ended: whoever
// wants the migration to himself next does the rest for it.
func TestRaceRestartBehindEnded(t *testing.T) {
	s := newStage(t)
	s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	r, _, err := s.Engine().Start(ctx, mainDelta)
	if err != nil {
		t.Fatal(err)
	}
	s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + 3}} // before it come the end of the plan and the verdict
	func() {
		defer func() { _ = recover() }()
		_, err = s.Engine().Step(ctx, r.ID)
		t.Errorf("it was not cut off: %v", err)
	}()
	s.Restart()
	if st, err := s.Engine().Status(ctx); err != nil || st.Windows[0].Active != r.ID {
		t.Errorf("window main is %+v, %v; want it taken by run %s still", st.Windows[0], err, r.ID)
	}
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	if st, err := s.Engine().Status(ctx); err != nil || st.Windows[0].Active != "" {
		t.Errorf("window main is %+v, %v; want it free", st.Windows[0], err)
	}
	run(t, s.World, mainDelta)
}

// A ledger of an earlier day does not know a ticket that is in the target, was spam while the migration adopted what is there, and has
// been redacted. In a desk that shows no markers and keeps times, nobody can tell the entry as it was from one of people's.
func TestRaceForgottenWhileSpam(t *testing.T) {
	s := newStage(t)
	s.Target.NoMarkers, s.Target.Timed = true, true
	full(t, s.World)
	day := s.Store.Snapshot()
	s.Wait(time.Hour)
	id := s.ticket("one", "first", "second")
	run(t, s.World, mainDelta)
	s.Source.Junk(ticket(id))
	s.Store.Restore(day)
	s.Restart()
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.Source.Restore(ticket(id))
	s.Source.Redact(id, 1)
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	s.held("may have been added already")
}

// The same of a ticket whose create is in doubt, in a desk that cannot be searched: to ask where it is was not to look at it. Somebody
// says where it is, and is asked about the entry.
func TestRaceForgottenInDoubt(t *testing.T) {
	s := newStage(t)
	s.Target.NoMarkers, s.Target.Timed, s.Target.NoFinder = true, true, true
	full(t, s.World)
	day := s.Store.Snapshot()
	s.Wait(time.Hour)
	id := s.ticket("one", "first", "second")
	run(t, s.World, mainDelta)
	there := s.there(id)
	s.Source.Redact(id, 1)
	s.Store.Restore(day)
	s.Restart()
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.held("it may have been created before an answer was lost")
	if err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{there.ID}}); err != nil {
		t.Fatal(err)
	}
	s.delta()
	s.held("may have been added already")
	s.thread(id, "first", "second")
}

// The answer to a create is lost, and when it is looked for the ticket is spam, which a policy ignores. What came with the create is known
// from then on: the ticket is deleted as a policy says, or comes back and is as it was.
func TestRaceBroughtBeforeSpam(t *testing.T) {
	for _, back := range []bool{false, true} {
		s := newStage(t)
		s.Migration.OnSpam, s.Migration.OnDeleted, s.Target.NoReviser = delta.Ignore, delta.Mirror, true
		id := s.ticket("one")
		s.Source.Say(id, true, desk.Author{Name: "Ann"}, "first", map[string][]byte{"a.bin": {1, 2, 3}})
		lose := loseOnce("create")
		s.Target.Lose = func(op string, ref desk.Ref) error {
			err := lose(op, ref)
			if err != nil {
				s.Source.Junk(ticket(id))
			}
			return err
		}
		full(t, s.World)
		s.Wait(time.Hour)
		if s.there(id).ID == "" {
			t.Fatal("the create had no effect")
		}
		if !back {
			s.Source.Purges = true
			s.Source.Remove(ticket(id))
			s.delta()
			s.absent(id)
			continue
		}
		s.Source.Restore(ticket(id))
		s.delta()
		s.nothingHeld()
		s.thread(id, "first")
	}
}

// noImages is a table that for once does not take what a ticket was like before.
type noImages struct {
	delta.Rows
	failed bool
}

func (n *noImages) Put(ctx context.Context, row delta.Row) (int64, error) {
	if strings.HasPrefix(row.Part, "undo/") && !n.failed {
		n.failed = true
		return 0, &desk.Error{Op: "put", Class: desk.ErrTransient, Said: "for a moment"}
	}
	return n.Rows.Put(ctx, row)
}

// A ticket is deleted in the source, and before it is closed as a policy says what it is like cannot be kept, so nothing is sent. What
// people set in that moment is theirs when it comes back.
func TestRaceEventNotSent(t *testing.T) {
	s := newStage(t)
	s.Migration.OnDeleted, s.Migration.ClosedStatus = delta.Close, "closed"
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Remove(ticket(id))
	table := &noImages{}
	there := s.there(id)
	s.Between = func(r delta.Rows) delta.Rows { table.Rows = r; return table }
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref == there && table.failed {
			s.Target.Fail = nil
			s.Target.Edit(there, desk.Fields{desk.Status: {"closed"}})
		}
		return nil
	}
	s.Restart()
	s.delta()
	if !table.failed {
		t.Fatal("nothing failed")
	}
	s.Wait(time.Hour)
	s.Source.Restore(ticket(id))
	s.delta()
	s.field(id, desk.Status, "[closed]")
}

// A ticket comes back, and the write that takes its tag away loses its answer; what is to be written next is refused. When it leaves the
// source again it is tagged again.
func TestRaceTagTakenBackHalfway(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnDeleted = delta.Tag
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Remove(ticket(id))
	run(t, s.World, mainDelta)
	s.field(id, desk.Tags, "[deleted-in-source]")
	s.Wait(time.Hour)
	s.Source.Restore(ticket(id))
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	lose(t, s.Target, "apply", func() {
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"three"}})
		s.Target.Fail = func(op string, _ desk.Ref) error {
			if op == "apply" {
				return &desk.Error{Op: op, Class: desk.ErrRejected}
			}
			return nil
		}
	})
	run(t, s.World, mainDelta)
	s.Target.Fail = nil
	s.Wait(time.Hour)
	s.Source.Remove(ticket(id))
	run(t, s.World, mainDelta)
	s.field(id, desk.Tags, "[deleted-in-source]")
}

// A target writes the status with which a policy closes a ticket its own way. It is ours all the same: when the ticket is back, whatever
// took it away, or when the run is undone, it is open again.
func TestRaceClosedInItsOwnWay(t *testing.T) {
	for _, how := range []string{"deleted", "deleted, undone", "merged", "merged outside"} {
		t.Run(how, func(t *testing.T) {
			s := newStage(t)
			s.Migration.OnDeleted, s.Migration.OnMerged = delta.Close, delta.Close
			s.Target.Normalise = func(f desk.Field, v desk.Value) desk.Value {
				if f == desk.Status && v.First() == "resolved" {
					return desk.Value{"Resolved"}
				}
				return v
			}
			a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
			window := mainDelta
			if how == "merged outside" {
				window.Window = "support"
				s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
				run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
			} else {
				s.full()
			}
			step := func() string { s.Wait(time.Hour); return run(t, s.World, window).ID }
			if strings.HasPrefix(how, "deleted") {
				s.Source.Remove(ticket(a))
			} else {
				s.Source.Join(ticket(a), ticket(b))
			}
			id := step()
			s.field(a, desk.Status, "[Resolved]")
			switch how {
			case "deleted":
				s.Source.Restore(ticket(a))
				step()
			case "deleted, undone":
				run(t, s.World, undo(id))
			default:
				s.Source.Part(ticket(a))
				step()
			}
			s.field(a, desk.Status, "[open]")
			s.nothingHeld()
		})
	}
}

// A ledger of an earlier day does not know that a policy has closed a ticket which left the source: when it comes back, what the
// policy wrote is not taken for the work of people.
func TestRaceForgottenClose(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnSpam = delta.Close
	id := s.ticket("one", "first")
	full(t, s.World)
	day := s.Store.Snapshot()
	s.Wait(time.Hour)
	s.Source.Junk(ticket(id))
	run(t, s.World, mainDelta)
	s.field(id, desk.Status, "[resolved]")
	s.Store.Restore(day)
	s.Restart()
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.say(id, "more of it")
	run(t, s.World, mainDelta)
	s.Source.Restore(ticket(id))
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	s.held("status changed on both sides")
}

// A full run drops what is due and has left its scope.
func TestRaceFullDropsDue(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	support := delta.Request{Kind: delta.Delta, Window: "support"}
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.Wait(time.Minute)
	r := run(t, s.World, support)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Group: {"Sales"}})
	s.Wait(time.Minute)
	run(t, s.World, mainDelta)
	run(t, s.World, undo(r.ID))
	s.field(id, desk.Subject, "[one]")
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support", Restart: true})
	run(t, s.World, support)
	s.delta()
	s.field(id, desk.Subject, "[two]")
}

// A full run over a scope that means something else now is continued behind deltas that went by the old meaning.
func TestRaceScopeBackAndForth(t *testing.T) {
	s := newStage(t)
	s.ticket("one")
	b := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Sales"}})
	narrow := desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	wide := desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support", "Sales"}}}
	mean := func(sc desk.Scope, hash string) {
		s.Migration.Scopes["support"], s.Migration.Hash = sc, hash
		s.Restart()
	}
	support := delta.Request{Kind: delta.Delta, Window: "support"}
	mean(narrow, "h1")
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	run(t, s.World, support)
	s.Wait(time.Hour)
	mean(wide, "h2")
	f, _, err := s.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "support"})
	if err != nil {
		t.Fatal(err)
	}
	// it reads everything but one ticket, and is cancelled
	last := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"last"}, desk.Status: {"open"}, desk.Group: {"Sales"}})
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "create" && ref.ID == last {
			return &desk.Error{Op: op, Class: desk.ErrMailed}
		}
		return nil
	}
	if r := run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support", Continue: true}); r.ID != f.ID || r.Status != delta.Stopped {
		t.Fatalf("%s is %s", r.ID, r.Status)
	}
	s.Target.Fail = nil
	s.field(b, desk.Subject, "[b]")
	s.Wait(time.Hour)
	s.Source.Edit(ticket(b), desk.Fields{desk.Subject: {"changed"}})
	s.Wait(time.Minute)
	mean(narrow, "h1")
	run(t, s.World, support)
	s.Wait(time.Hour)
	mean(wide, "h2")
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support", Continue: true})
	s.Wait(time.Hour)
	run(t, s.World, support)
	s.field(b, desk.Subject, "[changed]")
}

// Deletions between a window's cutoff and a restart, in a desk whose full listing leaves deleted tickets out.
func TestRaceDeletedBeforeRestart(t *testing.T) {
	s := newStage(t)
	s.Migration.OnDeleted = delta.Close
	a := s.ticket("a", "of a")
	full(t, s.World)
	s.delta()
	s.Source.Remove(ticket(a))
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true})
	s.delta()
	s.field(a, desk.Status, "[resolved]")
}

// More of them than one step lists, among tickets that changed and stayed.
func TestRaceManyDeletedBeforeRestart(t *testing.T) {
	s := newStage(t)
	s.Migration.OnDeleted = delta.Close
	var ids []string
	for range 80 { // a step lists ten pages of three
		ids = append(ids, s.ticket("one"))
	}
	full(t, s.World)
	s.delta()
	for n, id := range ids {
		if n%2 == 0 {
			s.Source.Remove(ticket(id))
		} else {
			s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		}
	}
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true})
	s.delta()
	for n, id := range ids {
		s.field(id, desk.Status, map[bool]string{true: "[resolved]", false: "[open]"}[n%2 == 0])
	}
}

// The ledger is of an earlier day than a ticket that has become spam since: it is looked for.
func TestRaceRestoredUnknownDeleted(t *testing.T) {
	s := newStage(t)
	s.Migration.OnSpam = delta.Close
	s.ticket("b", "of b")
	full(t, s.World)
	s.Wait(time.Hour)
	day := s.Store.Snapshot()
	a := s.ticket("a", "of a")
	s.delta()
	s.Store.Restore(day)
	s.Restart()
	s.Source.Junk(ticket(a))
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "main", Since: s.Clock().Add(-24 * time.Hour)})
	s.field(a, desk.Status, "[resolved]")
}

// The ledger is of an earlier day than a deletion that a policy has carried out, and a run sees the deletion once more before the
// ticket is back: whoever closed it, nobody has compared it since.
func TestRaceRestoredDeletionSeen(t *testing.T) {
	s := newStage(t)
	s.Migration.OnDeleted, s.Migration.ClosedStatus = delta.Close, "closed"
	id := s.ticket("one")
	s.full()
	s.Wait(time.Hour)
	s.delta()
	day := s.Store.Snapshot()
	s.Source.Remove(ticket(id))
	s.delta()
	s.field(id, desk.Status, "[closed]")
	s.Store.Restore(day)
	s.Restart()
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "main", Since: s.Clock().Add(-24 * time.Hour)})
	s.Wait(time.Hour)
	s.Source.Restore(ticket(id))
	s.delta()
	s.held("status")
}

// The ledger is of a day on which a ticket was deleted. It has come back since, and was deleted once more: that is carried over again.
func TestRaceRestoredDeletedAgain(t *testing.T) {
	for _, before := range []bool{true, false} { // the migration adopts what is there
		s := newStage(t)
		s.Migration.OnDeleted, s.Migration.ClosedStatus = delta.Close, "closed"
		id := s.ticket("one")
		s.full()
		s.Source.Remove(ticket(id))
		s.delta()
		day := s.Store.Snapshot()
		s.Source.Restore(ticket(id))
		s.delta()
		s.field(id, desk.Status, "[open]")
		s.Store.Restore(day)
		s.Restart()
		adopt := func() {
			s.Wait(time.Hour)
			run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
		}
		if before {
			adopt()
		}
		s.Wait(time.Hour)
		if s.Source.Remove(ticket(id)); !before {
			adopt()
		}
		s.delta()
		s.field(id, desk.Status, "[closed]")
	}
}

// What a window's mode leaves out is taken up by another window that covers it, whatever its scope is called.
func TestRaceLeftToAnotherScope(t *testing.T) {
	s := newStage(t)
	s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateOnly}
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	x := s.ticket("x", "of x")
	y := s.ticket("y", "of y")
	s.Source.Edit(ticket(x), desk.Fields{desk.LinkRefersTo: {y}})
	s.Wait(time.Minute)
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.delta()
	s.field(x, desk.LinkRefersTo, "[ticket/"+y+"]")
}

// And then it is due no more where no window would ever take it up: a census there does not rely on that, and finds what is really missed.
func TestRaceCaughtUpInAnotherScope(t *testing.T) {
	s := newStage(t)
	s.Migration.Windows["main"] = delta.Window{Scope: "all", Mode: delta.CreateOnly}
	id := s.ticket("one", "hello")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.delta()
	if s.due() != 1 {
		t.Error("nothing is due that the mode left out")
	}
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.field(id, desk.Subject, "[two]")
	if n := s.due(); n != 0 {
		t.Errorf("%d due, which was carried out", n)
	}
	s.Wait(time.Hour)
	s.Source.Unseen(func() { s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"three"}}) })
	missed, _ := s.census(delta.Request{Kind: delta.Census, Scope: "all"})
	same(t, "missed", []string{id}, missed)
	s.delta()
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.field(id, desk.Subject, "[three]")
}

// What is to be healed is handed on like that as well, also where it is due already because a mode left it out.
func TestRaceHealInAnotherScope(t *testing.T) {
	s := newStage(t)
	s.Migration.Windows["main"] = delta.Window{Scope: "all", Mode: delta.CreateOnly}
	id := s.ticket("one", "hello")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.delta()
	s.Target.Damage(s.there(id).ID, deltatest.Body)
	run(t, s.World, delta.Request{Kind: delta.Verify, Scope: "all", Heal: true})
	s.delta()
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.thread(id, "hello")
	s.verified(0)
	if n := s.due(); n != 0 {
		t.Errorf("%d due, which was healed", n)
	}
}

// A ticket was merged outside the scope, and the window that updates has failed with it. The one that only creates leaves it to that.
func TestRaceMergedOutsideInCreateMode(t *testing.T) {
	s := newStage(t)
	s.Migration.OnMerged = delta.Close
	s.Migration.Windows = map[string]delta.Window{"new": {Scope: "support", Mode: delta.CreateOnly}, "changed": {Scope: "support", Mode: delta.UpdateOnly}}
	do := func(window string) {
		s.Wait(time.Hour)
		run(t, s.World, delta.Request{Kind: delta.Delta, Window: window})
	}
	a, b := s.ticket("a"), s.ticket("b")
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Source.Join(ticket(a), ticket(b))
	s.Target.Fail = failOnce("apply", desk.ErrRejected)
	do("changed")
	do("new")
	do("changed")
	s.field(a, desk.Status, "[resolved]")
}

// A ticket that is about to be made again in a window that only updates, cut off just then.
func TestRaceOpenCreateInUpdateMode(t *testing.T) {
	for n := 1; n < 60; n++ {
		s := newStage(t)
		s.Migration.OnTargetGone = delta.RecreateGone
		s.Migration.Windows = map[string]delta.Window{"support": {Scope: "support", Mode: delta.UpdateOnly}}
		support := delta.Request{Kind: delta.Delta, Window: "support"}
		id := s.ticket("one", "first")
		run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
		s.Wait(time.Hour)
		s.Target.Remove(s.there(id))
		s.say(id, "second")
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		run(t, s.World, support)
		s.Wait(time.Hour)
		run(t, s.World, support)
		s.thread(id, "first", "second")
		if t.Failed() || s.Restarts == 0 {
			return
		}
	}
}

// A source that lists deletions and shows nothing of what was deleted (as an archive): a change before the deletion comes to an end,
// of a ticket that moved and of one that never did.
func TestRaceChangedThenDeleted(t *testing.T) {
	for _, there := range []bool{true, false} {
		s := newStage(t)
		s.Source.Purges = true
		s.Migration.OnDeleted = delta.Close
		id := ""
		if there {
			id = s.ticket("one", "hello")
		}
		full(t, s.World)
		s.Wait(time.Hour)
		if !there {
			id = s.ticket("one", "hello")
		}
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		s.Wait(time.Minute)
		s.Source.Remove(ticket(id))
		s.delta()
		if rep := s.delta(); rep.Counts.Failed > 0 || s.due() > 0 {
			t.Errorf("there=%v: %+v, %d due", there, rep.Counts, s.due())
		}
		if there {
			s.field(id, desk.Status, "[resolved]")
		}
	}
}

// The source goes on changing a ticket that it has deleted and hides: nothing is to be waited for.
func TestRaceChangedAfterDeleted(t *testing.T) {
	s := newStage(t)
	s.Source.Purges = true
	s.Migration.OnDeleted = delta.Close
	id := s.ticket("one", "hello")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Remove(ticket(id))
	s.delta()
	s.field(id, desk.Status, "[resolved]")
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"by some rule"}})
	if rep := s.delta(); rep.Counts.Failed > 0 || s.due() > 0 {
		t.Errorf("%+v, %d due", rep.Counts, s.due())
	}
	s.Source.Restore(ticket(id))
	s.delta()
	s.field(id, desk.Status, "[open]")
	s.field(id, desk.Subject, "[by some rule]")
}

// A ticket is deleted and restored, and one window has carried over that it is back. A replica that the other window asks for the older
// of the two changes does not show the ticket: that is no deletion any more.
func TestRaceOldDeletion(t *testing.T) {
	s := newStage(t)
	s.Source.ListLag = time.Minute
	s.Migration.OnDeleted = delta.Mirror
	id := s.ticket("one", "hello")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Source.Remove(ticket(id))
	s.Wait(2 * time.Second)
	s.Source.Restore(ticket(id))
	run(t, s.World, mainDelta)
	s.Target.Say(s.there(id).ID, true, desk.Author{Name: "Agent"}, "people's work", nil)
	at(s.Source, "read", 1, func() error { return &desk.Error{Op: "read", Class: desk.ErrNotFound} })
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.thread(id, "hello", "people's work")
}

// What the target's people did to a ticket a rehearsal tells as the run finds it.
func TestRaceRehearsalOfTargetSide(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(s *stage, id string)
	}{
		{"merged", func(s *stage, id string) {
			own := s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"of an agent"}, desk.Status: {"open"}})
			s.Target.Join(s.there(id), ticket(own))
		}},
		{"deleted, ignored", func(s *stage, id string) { s.Migration.OnTargetGone = delta.IgnoreGone; s.Target.Remove(s.there(id)) }},
		{"deleted, made again", func(s *stage, id string) { s.Migration.OnTargetGone = delta.RecreateGone; s.Target.Remove(s.there(id)) }},
		{"deleted, held", func(s *stage, id string) { s.Target.Remove(s.there(id)) }},
	} {
		s := newStage(t)
		id := s.ticket("one", "hello")
		full(t, s.World)
		s.Wait(time.Hour)
		tc.set(s, id)
		s.Restart()
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		dry := mainDelta
		dry.Dry = true
		said := reportOf(t, s.World, run(t, s.World, dry).ID).Counts
		came := reportOf(t, s.World, run(t, s.World, mainDelta).ID).Counts
		if said != came {
			t.Errorf("%s: the rehearsal says %+v, and it comes to %+v", tc.name, said, came)
		}
	}
}

// behind is a target that shows some records by itself: a desk of which every reading may be of a while ago.
type behind struct {
	desk.Target
	read func(desk.Ref) *desk.Record
}

func (b *behind) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	if rec := b.read(ref); rec != nil {
		return *rec, nil
	}
	return b.Target.Read(ctx, ref)
}

// shows makes a target that shows a ticket for some time as it is now.
func (s *stage) shows(id string, d time.Duration) desk.Target {
	s.t.Helper()
	t, ref := s.Target.AsTarget(), s.there(id)
	now, err := t.Read(ctx, ref)
	if err != nil {
		s.t.Fatal(err)
	}
	until := s.Clock().Add(d)
	return &behind{Target: t, read: func(r desk.Ref) *desk.Record {
		if r != ref || s.Clock().After(until) {
			return nil
		}
		rec := now
		rec.Lock = "" // which would keep us from the worst
		return &rec
	}}
}

// A run that adopts what is in the target is carried out by a process whose clock is behind: what it has seen is of no earlier day.
func TestRaceAdoptedByAnotherClock(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one", "hello")
	inTime, carryOn := clocked(t, s.World, s.Source.AsSource(), 0)
	_, carryLate := clocked(t, s.World, s.Source.AsSource(), -10*time.Minute)
	must := func(r delta.Run, err error) {
		t.Helper()
		if err != nil || r.Status != delta.Verified {
			t.Fatal(r.Status, r.Why, err)
		}
	}
	must(carryOn(fullAll))
	s.Wait(time.Hour)
	if _, _, err := inTime.Start(ctx, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true}); err != nil {
		t.Fatal(err)
	}
	must(carryLate(delta.Request{Kind: delta.Full, Scope: "all", Continue: true}))
	s.Wait(time.Hour)
	s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"an agent's"}})
	s.say(id, "more")
	must(carryOn(mainDelta)) // nothing is asked
	s.field(id, desk.Subject, "[an agent's]")
}

// A target that shows late what was made there, by a process whose clock is behind: for the other one it is not gone.
func TestRaceShownLateByAnotherClock(t *testing.T) {
	s := newStage(t)
	s.Target.ListLag = 6 * time.Minute
	s.Migration.OnTargetGone = delta.RecreateGone
	_, late := clocked(t, s.World, s.Source.AsSource(), -10*time.Minute)
	_, inTime := clocked(t, s.World, s.Source.AsSource(), 0)
	must := func(r delta.Run, err error) {
		t.Helper()
		if err != nil || r.Status != delta.Verified {
			t.Fatal(r.Status, err)
		}
	}
	must(inTime(delta.Request{Kind: delta.Full, Scope: "all"}))
	must(inTime(delta.Request{Kind: delta.Full, Scope: "support"}))
	s.Wait(time.Hour)
	id := s.ticket("one", "hello")
	must(late(mainDelta))
	shown := s.Clock().Add(5 * time.Minute)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref.Kind == desk.Ticket && s.Clock().Before(shown) {
			return &desk.Error{Op: op, Class: desk.ErrNotFound}
		}
		return nil
	}
	must(inTime(delta.Request{Kind: delta.Delta, Window: "support"}))
	s.field(id, desk.Subject, "[two]")
	s.thread(id, "hello")
}

// A target that shows late what we wrote shows what a ticket said before: that is not what its people made of it.
func TestRaceShownAsBefore(t *testing.T) {
	s := newStage(t)
	s.Target.ListLag = 10 * time.Minute
	id := s.ticket("one", "hello")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	before := s.shows(id, 9*time.Minute)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	run(t, s.World, mainDelta)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"three"}})
	if _, err := own(t, s.World, s.Source.AsSource(), before)(delta.Request{Kind: delta.Delta, Window: "support"}); err != nil {
		t.Fatal(err)
	}
	s.field(id, desk.Subject, "[three]")
	s.nothingHeld()
}

// Nor does it show at once what a write did whose answer was lost: nothing is added twice.
func TestRaceShownLateAfterLostAnswer(t *testing.T) {
	s := newStage(t)
	s.Target.ListLag = 10 * time.Minute
	id := s.ticket("one", "hello")
	full(t, s.World)
	s.Wait(time.Hour)
	before := s.shows(id, 9*time.Minute)
	s.say(id, "more")
	lose(t, s.Target, "apply", nil)
	if _, err := own(t, s.World, s.Source.AsSource(), before)(mainDelta); err != nil {
		t.Fatal(err)
	}
	s.thread(id, "hello", "more")
}

// An undo takes back what such a target does not show yet.
func TestRaceShownLateToUndo(t *testing.T) {
	s := newStage(t)
	s.Target.ListLag = 10 * time.Minute
	id := s.ticket("one", "hello")
	full(t, s.World)
	s.Wait(time.Hour)
	before := s.shows(id, 9*time.Minute)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	r := run(t, s.World, mainDelta)
	if _, err := own(t, s.World, s.Source.AsSource(), before)(undo(r.ID)); err != nil {
		t.Fatal(err)
	}
	s.field(id, desk.Subject, "[one]")
}

// A target shows late what was made there, also to whoever has made it or takes over from him: it has not failed, and is not gone.
func TestRaceShownLateToItsMaker(t *testing.T) {
	for _, how := range []string{"made", "answer lost", "cut off", "not read"} {
		s := newStage(t)
		s.Target.ListLag = 10 * time.Minute
		s.Migration.OnTargetGone = delta.RecreateGone
		s.full()
		s.Wait(time.Hour)
		id := s.ticket("one", "hello")
		var made time.Time
		reads := 0
		s.Target.Fail = func(op string, ref desk.Ref) error {
			if ref.Kind != desk.Ticket {
				return nil
			}
			if op == "create" && made.IsZero() {
				made = s.Clock()
			}
			if op != "read" || !s.Clock().Before(made.Add(2*time.Minute)) {
				return nil
			}
			if reads++; reads == 1 && how == "not read" {
				return noAnswer()
			}
			return &desk.Error{Op: op, Class: desk.ErrNotFound}
		}
		dead := false
		s.Target.Lose = func(op string, _ desk.Ref) error {
			if op != "create" || dead {
				return nil
			}
			switch dead = true; how {
			case "cut off":
				panic(deltatest.Crash{})
			case "answer lost":
				return noAnswer()
			}
			return nil
		}
		if rep := s.delta(); rep.Counts.Failed > 0 || rep.Counts.Held > 0 {
			t.Errorf("%s: %+v", how, rep.Counts)
		}
		s.delta()
		s.thread(id, "hello")
		s.nothingHeld()
	}
}

// The ledger is of an earlier day than a ticket that was deleted and made again since, in a desk that nobody can search: whatever the
// policy, somebody is asked where it is.
func TestRaceRestoredMadeAgain(t *testing.T) {
	s := newStage(t)
	s.Target.NoFinder = true
	s.Migration.OnDeleted, s.Migration.OnTargetGone = delta.Mirror, delta.IgnoreGone
	id := s.ticket("one", "first")
	full(t, s.World)
	day := s.Store.Snapshot()
	s.Wait(time.Hour)
	s.Source.Remove(ticket(id))
	s.delta()
	s.Source.Restore(ticket(id))
	s.delta()
	s.thread(id, "first")
	s.Store.Restore(day)
	s.Restart()
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.held("it was deleted in the target")
}

// A target that shows late what was made there: what one window has just made is not gone for the other one.
func TestRaceShownLateByTarget(t *testing.T) {
	s := newStage(t)
	s.Target.ListLag = 10 * time.Minute
	s.Migration.OnTargetGone = delta.RecreateGone
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	id := s.ticket("one", "hello")
	run(t, s.World, mainDelta)
	made := s.Clock()
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref.Kind == desk.Ticket && s.Clock().Before(made.Add(30*time.Second)) {
			return &desk.Error{Op: op, Class: desk.ErrNotFound}
		}
		return nil
	}
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.field(id, desk.Subject, "[two]")
	s.thread(id, "hello")
}

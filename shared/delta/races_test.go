package delta_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// What the simulator has found, each told as a story of its own. People come in between just where it hurts, answers get lost,
// replicas go back; what the desks say at the end is what people and the source meant. Here are those around one write; beside it
// those around merges, runs and undos.

// at calls do once, before the n-th call of that name to a ticket of the target.
func at(d *deltatest.Desk, op string, n int, do func() error) {
	d.Fail = func(o string, ref desk.Ref) error {
		if o != op || ref.Kind != desk.Ticket {
			return nil
		}
		if n--; n == 0 {
			return do()
		}
		return nil
	}
}

// lose loses the answer to the first call of that name to a ticket of the target, after do; it must come to that.
func lose(t *testing.T, d *deltatest.Desk, op string, do func()) {
	t.Helper()
	once, lost := loseOnce(op), false
	d.Lose = func(o string, ref desk.Ref) error {
		err := once(o, ref)
		if lost = lost || err != nil; err != nil && do != nil {
			do()
		}
		return err
	}
	t.Cleanup(func() {
		if !lost {
			t.Errorf("no answer to %s was lost", op)
		}
	})
}

func noAnswer() error { return &desk.Error{Op: "call", Class: desk.ErrTransient, Said: "reset"} }

// A write that succeeded and could not be read back: when the source takes the change back, the target follows.
func TestRaceUnseenWrite(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	at(s.Target, "read", 2, func() error { // the first one is before the write
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"one"}})
		return noAnswer()
	})
	run(t, s.World, mainDelta)
	s.Target.Fail = nil
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[one]")
	s.nothingHeld()
}

// A create that could not be read back, in a desk that writes values its own way, under a policy that leaves fields to the
// target: nobody may take our own value for the target's for good.
func TestRaceUnseenCreate(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.TargetWins}
	s.Target.Normalise = func(f desk.Field, v desk.Value) desk.Value {
		if f != desk.Priority {
			return v
		}
		return desk.Value{strings.ToUpper(v.First())}
	}
	id := s.ticket("one")
	s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"low"}})
	at(s.Target, "read", 1, noAnswer)
	full(t, s.World)
	s.Target.Fail = nil
	run(t, s.World, mainDelta)
	s.held("priority")
}

// halfMade tells with an error that the first ticket was made.
type halfMade struct {
	desk.Target
	made bool
}

func (h *halfMade) Create(ctx context.Context, r desk.Record) (desk.Written, error) {
	w, err := h.Target.Create(ctx, r)
	if err != nil || r.Ref.Kind != desk.Ticket || h.made {
		return w, err
	}
	h.made = true
	return desk.Written{ID: w.ID, Entries: w.Entries}, noAnswer()
}

// The same of a create that the desk says has come only half of the way.
func TestRaceHalfMade(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.TargetWins}
	s.Target.Normalise = func(f desk.Field, v desk.Value) desk.Value {
		if f != desk.Priority {
			return v
		}
		return desk.Value{strings.ToUpper(v.First())}
	}
	id := s.ticket("one")
	s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"low"}})
	if _, err := own(t, s.World, s.World.Source.AsSource(), &halfMade{Target: s.World.Target.AsTarget()})(delta.Request{Kind: delta.Full, Scope: "all"}); err != nil {
		t.Fatal(err)
	}
	s.held("priority")
}

// People edit a field while an entry is being revised.
func TestRaceEditWhileRevising(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one", "secret")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Redact(id, 0)
	tid := s.Target.Target(ticket(id))
	at(s.Target, "revise", 1, func() error {
		s.Target.Edit(ticket(tid), desk.Fields{desk.Subject: {"by an agent"}})
		return nil
	})
	run(t, s.World, mainDelta)
	s.Target.Fail = nil
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"by the source"}})
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[by an agent]")
	s.held("subject changed on both sides")
}

// People edit entries in the very moment in which they are revised, the first one or one that comes after it: what they wrote stays, and
// somebody is asked.
func TestRaceEditOfRevised(t *testing.T) {
	for n := range 2 {
		s := newStage(t)
		id := s.ticket("one", "first", "second")
		full(t, s.World)
		s.Wait(time.Hour)
		for i := range 2 {
			s.Source.Revise(id, i, func(en *desk.Entry) { en.Body += ", by the source" })
		}
		at(s.Target, "revise", n+1, func() error {
			s.Target.Revise(s.there(id).ID, n, func(en *desk.Entry) { en.Body += ", by an agent" })
			return nil
		})
		s.delta()
		want := []string{"first, by the source", "second, by the source"}
		want[n] = []string{"first, by an agent", "second, by an agent"}[n]
		s.thread(id, want...)
		s.held("changed in the source, and people changed entry")
	}
}

// People edit a field between two calls of one write: the first call has moved the lock.
func TestRaceEditBetweenCalls(t *testing.T) {
	for _, tells := range []bool{false, true} {
		s := newStage(t)
		s.Target.TellsTouched = tells
		id := s.ticket("one")
		full(t, s.World)
		s.Wait(time.Hour)
		s.say(id, "first")
		s.Source.Say(id, true, desk.Author{Name: "Ann"}, "with a file", map[string][]byte{"a.txt": []byte("a")})
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"by the source"}})
		tid := s.Target.Target(ticket(id))
		at(s.Target, "read", 2, func() error {
			s.Target.Edit(ticket(tid), desk.Fields{desk.Subject: {"by an agent"}})
			return nil
		})
		run(t, s.World, mainDelta)
		s.Target.Fail = nil
		s.field(id, desk.Subject, "[by an agent]")
		s.held("subject changed on both sides")
		if n := len(s.Target.Look()["ticket/"+id][0].Entries); n != 2 {
			t.Errorf("tells=%v: %d entries, want 2", tells, n)
		}
	}
}

// A ticket is made again in place of one that is gone, and whoever does it dies just then: nothing of the old thread is taken for there.
func TestRaceMadeAgain(t *testing.T) {
	for _, markers := range []bool{true, false} {
		s := newStage(t)
		s.Target.NoMarkers = !markers
		s.Migration.Policies.OnTargetGone = delta.RecreateGone
		id := s.ticket("one", "first", "second", "third")
		full(t, s.World)
		s.Target.Remove(ticket(s.Target.Target(ticket(id))))
		s.Wait(time.Hour)
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		dead := false
		s.Target.Lose = func(op string, _ desk.Ref) error {
			if op == "create" && !dead {
				dead = true
				panic(deltatest.Crash{})
			}
			return nil
		}
		run(t, s.World, mainDelta)
		run(t, s.World, mainDelta)
		all := s.Target.Look()["ticket/"+id]
		want := 3
		if !markers { // such a desk cannot tell whether the first one came with the create: a person is asked
			s.held("may have been added already")
			want = 2
		}
		if len(all) != 1 || len(all[0].Entries) < want {
			t.Errorf("markers=%v: %+v in the target", markers, all)
		}
	}
}

// What a write put back for people is theirs, also for a verification that finds no trace of them.
func TestRacePutBackIsTheirs(t *testing.T) {
	s := newStage(t)
	s.Target.TellsTouched = true
	s.Target.Meddle = func(f desk.Fields) { f[desk.Status] = desk.Value{"open"} }
	id := s.ticket("one")
	full(t, s.World)
	tid := s.Target.Target(ticket(id))
	s.Target.Edit(ticket(tid), desk.Fields{desk.Status: {"rejected"}})
	s.Wait(time.Hour)
	s.say(id, "a reply")
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op != "apply" {
			return nil
		}
		s.Target.Fail = func(op string, _ desk.Ref) error {
			if op == "read" {
				return noAnswer()
			}
			return nil
		}
		return noAnswer()
	}
	run(t, s.World, mainDelta) // it is given up, and what was put back is in the claim only
	s.Target.Lose, s.Target.Fail = nil, nil
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Verify, Scope: "all", Heal: true})
	run(t, s.World, mainDelta)
	s.field(id, desk.Status, "[rejected]")
}

// The answer to a write gets lost, and people put back what was there before it: the desk tells that they had the last word.
func TestRacePutBackAfterLostAnswer(t *testing.T) {
	s := newStage(t)
	s.Target.TellsTouched = true
	id := s.ticket("one")
	full(t, s.World)
	tid := s.Target.Target(ticket(id))
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	lose(t, s.Target, "apply", func() {
		s.Target.Edit(ticket(tid), desk.Fields{desk.Subject: {"one"}})
	})
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[one]")
	s.held("subject")
}

// Somebody answers again while the first answer is being written, and that write loses its reply: the second answer holds, and where
// what it was about is no longer there somebody is asked again.
func TestRaceSecondAnswer(t *testing.T) {
	for _, first := range []string{"target's", "another one"} {
		s := newStage(t)
		id := s.ticket("one")
		full(t, s.World)
		s.Wait(time.Hour)
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"source's"}})
		s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"target's"}})
		run(t, s.World, mainDelta)
		s.held("subject changed on both sides")
		answer := func(v string) {
			t.Helper()
			if err := s.World.Engine().Decide(t.Context(), ticket(id), desk.Subject, "", delta.Decision{Choice: delta.ChooseValue, Value: desk.Value{v}}); err != nil {
				t.Fatal(err)
			}
		}
		answer(first)
		lose(t, s.Target, "apply", func() {
			answer("a third one")
		})
		run(t, s.World, mainDelta)
		if first != "target's" {
			s.held("again since it was decided")
			answer("a third one")
			run(t, s.World, mainDelta)
		}
		s.field(id, desk.Subject, "[a third one]")
		s.nothingHeld()
	}
}

// A create loses its answer, and before anybody has looked the ticket leaves the source and changes. When it is back, nobody
// takes what the create wrote for what people left there, under a policy that leaves fields to the target.
func TestRaceOpenCreateOfDeleted(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.TargetWins}
	s.Migration.Policies.OnDeleted = delta.Tag
	id := s.ticket("one")
	s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"low"}})
	lose(t, s.Target, "create", func() {
		s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"high"}})
		s.Source.Remove(ticket(id))
	})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Restore(ticket(id))
	run(t, s.World, mainDelta)
	s.held("priority")
}

// An answer to create is good for one create. While what it led to is open, another one is no reason not to look: not where
// the ticket has left the source meanwhile, and not for an entry.
func TestRaceSpentAnswer(t *testing.T) {
	t.Run("ticket", func(t *testing.T) {
		s := newStage(t)
		s.Migration.Policies.OnDeleted, s.Migration.Policies.OnTargetGone = delta.Close, delta.HoldGone
		id := s.ticket("one")
		full(t, s.World)
		s.Target.Remove(s.there(id))
		s.Wait(time.Hour)
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		run(t, s.World, mainDelta)
		s.decide(id, "", delta.ChooseCreate)
		lose(t, s.Target, "create", func() {
			s.Wait(time.Second)
			s.decide(id, "", delta.ChooseCreate) // nothing to be seen yet
			s.Source.Remove(ticket(id))
		})
		run(t, s.World, mainDelta)
		run(t, s.World, mainDelta)
		s.field(id, desk.Status, "[resolved]")
	})
	t.Run("entry", func(t *testing.T) {
		s := newStage(t)
		s.Target.NoMarkers = true
		id := s.ticket("one", "first")
		full(t, s.World)
		s.Wait(time.Hour)
		s.say(id, "second")
		s.Target.Fail = func(op string, _ desk.Ref) error { // it never arrives
			if op == "apply" {
				return noAnswer()
			}
			return nil
		}
		run(t, s.World, mainDelta)
		s.Target.Fail = nil
		run(t, s.World, mainDelta)
		s.decide(id, "", delta.ChooseCreate)
		lose(t, s.Target, "apply", nil)
		run(t, s.World, mainDelta)
		run(t, s.World, mainDelta)
		s.thread(id, "first", "second")
		s.held("may have been added already")
	})
}

// A create loses its answer, a person says which ticket it made, and people delete just that one before the answer is carried out.
// Whatever the policy, nothing is made in its place before somebody has said so: if that lost its answer, too, the link would be
// tried once more, and lead to a third ticket.
func TestRaceAnsweredWithGone(t *testing.T) {
	s := newStage(t)
	s.Target.NoFinder = true
	s.Migration.Policies.OnTargetGone = delta.RecreateGone
	id := s.ticket("one")
	lose(t, s.Target, "create", nil)
	full(t, s.World)
	s.held("may have been created")
	made := s.there(id)
	if err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{made.ID}}); err != nil {
		t.Fatal(err)
	}
	s.Target.Remove(made)
	s.Target.Lose = loseOnce("create")
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	s.held("is not there")
	run(t, s.World, mainDelta)
	if n := len(s.Target.Look()["ticket/"+id]); n != 0 {
		t.Errorf("%d times in the target, and nobody said that it should be made again", n)
	}
	s.held("may have been created")
	s.Target.Lose = nil
	s.decide(id, "", delta.ChooseCreate)
	run(t, s.World, mainDelta)
	if n := len(s.Target.Look()["ticket/"+id]); n != 1 {
		t.Errorf("%d times in the target, want 1", n)
	}
	s.nothingHeld()
}

// A write that never arrived, and people who set just what it was to say, after the source had moved on: both sides changed.
func TestRaceSameAsIntended(t *testing.T) {
	s := newStage(t)
	s.Target.TellsTouched = true
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	sent := false
	s.Target.Fail = func(op string, _ desk.Ref) error {
		if op != "apply" || sent {
			return nil
		}
		sent = true
		s.Wait(time.Second)
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"three"}})
		s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"two"}})
		return noAnswer()
	}
	run(t, s.World, mainDelta)
	run(t, s.World, mainDelta)
	s.held("subject changed on both sides")
	s.field(id, desk.Subject, "[two]")
}

// A policy tags a ticket and takes the tag away again. The desk then names the migration as the one who wrote the tags last; those
// that people had set are theirs all the same, also where an answer gets lost or a verification is to heal.
func TestRaceTagBesidePeoples(t *testing.T) {
	verify := delta.Request{Kind: delta.Verify, Scope: "all", Heal: true}
	for _, tc := range []struct {
		name string
		lost string // the subject of the source at the write whose answer gets lost
		heal bool
	}{{"tagged", "junk", false}, {"taken away", "back", false}, {"healed", "", true}} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			s.Migration.OnSpam = delta.Tag
			s.Target.TellsTouched = true
			id := s.ticket("one")
			s.Source.Edit(ticket(id), desk.Fields{desk.Tags: {"c"}})
			full(t, s.World)
			s.Wait(time.Hour)
			s.Target.Edit(s.there(id), desk.Fields{desk.Tags: {"b"}})
			phase := "junk"
			s.Target.Lose = func(op string, _ desk.Ref) error {
				if op != "apply" || tc.lost != phase {
					return nil
				}
				tc.lost = ""
				return noAnswer()
			}
			s.Source.Junk(ticket(id))
			run(t, s.World, mainDelta)
			s.field(id, desk.Tags, "[b deleted-in-source]")
			s.Wait(time.Hour)
			phase = "back"
			s.Source.Restore(ticket(id))
			if tc.heal {
				run(t, s.World, verify)
			}
			run(t, s.World, mainDelta)
			s.field(id, desk.Tags, "[b]")
			run(t, s.World, verify)
			run(t, s.World, mainDelta)
			s.field(id, desk.Tags, "[b]")
			s.nothingHeld()
		})
	}
}

// The same where the tag tells of an entry that was changed in the source.
func TestRaceTagOfEntryBesidePeoples(t *testing.T) {
	s := newStage(t)
	s.Migration.OnRevised = delta.Tag
	s.Target.TellsTouched = true
	id := s.ticket("one", "hello")
	s.Source.Edit(ticket(id), desk.Fields{desk.Tags: {"c"}})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Target.Edit(s.there(id), desk.Fields{desk.Tags: {"b"}})
	s.Source.Redact(id, 0)
	s.Target.Lose = loseOnce("apply")
	run(t, s.World, mainDelta)
	s.field(id, desk.Tags, "[b deleted-in-source]")
	run(t, s.World, delta.Request{Kind: delta.Verify, Scope: "all", Heal: true})
	run(t, s.World, mainDelta)
	s.field(id, desk.Tags, "[b deleted-in-source]")
	s.nothingHeld()
}

// Somebody says that an entry in doubt is there, and whoever carries the answer out is cut off at any place: it is not added.
func TestRaceAnsweredEntry(t *testing.T) {
	for n := 1; ; n++ {
		s := newStage(t)
		s.Target.NoMarkers = true
		id := s.ticket("one", "first")
		full(t, s.World)
		s.Wait(time.Hour)
		s.say(id, "second")
		lose(t, s.Target, "apply", nil)
		run(t, s.World, mainDelta)
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		if err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{s.there(id).ID}}); err != nil {
			t.Fatal(err)
		}
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		before := s.Effects.Count()
		run(t, s.World, mainDelta)
		s.thread(id, "first", "second")
		if t.Failed() || s.Effects.Count() < before+n {
			return
		}
	}
}

// People have closed a ticket, and policy close finds it closed: when the record is back in the source, it stays as people left it.
func TestRaceClosedByPeople(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnDeleted = delta.Close
	id := s.ticket("one")
	full(t, s.World)
	s.Target.Edit(s.there(id), desk.Fields{desk.Status: {s.Migration.Policies.ClosedStatus}})
	s.Wait(time.Hour)
	s.Source.Remove(ticket(id))
	run(t, s.World, mainDelta)
	s.Source.Restore(ticket(id))
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	s.field(id, desk.Status, "["+s.Migration.Policies.ClosedStatus+"]")
}

// A write loses its answer, in a desk that writes values its own way, and the ticket leaves the source before anybody has looked.
// When it is back and says something else, our own value is not taken for people's.
func TestRaceOpenWriteOfDeleted(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Subject: delta.TargetWins}
	s.Migration.Policies.OnDeleted = delta.Ignore
	s.Target.Normalise = func(f desk.Field, v desk.Value) desk.Value {
		if f != desk.Subject {
			return v
		}
		return desk.Value{strings.ToUpper(v.First())}
	}
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	lose(t, s.Target, "apply", func() {
		s.Source.Remove(ticket(id))
	})
	run(t, s.World, mainDelta)
	s.Source.Restore(ticket(id))
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"three"}})
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	s.held("subject")
}

// Whoever carries an answer out is cut off, wherever that is: it is not asked for again, and what nobody has answered stays asked.
func TestRaceAnswerCutOff(t *testing.T) {
	for n := 1; n < 60; n++ {
		s := newStage(t)
		id := s.ticket("one", "first", "second")
		full(t, s.World)
		s.Wait(time.Hour)
		s.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
		s.Target.Edit(s.there(id), desk.Fields{desk.Status: {"rejected"}})
		for i := range 2 {
			s.Source.Redact(id, i)
			s.Target.Revise(s.there(id).ID, i, func(en *desk.Entry) { en.Body = "people's" })
		}
		run(t, s.World, mainDelta)
		hs, err := s.Engine().HeldRecords(ctx)
		if err != nil || len(hs) != 1 || len(hs[0].Entries) != 2 {
			t.Fatalf("%+v, %v", hs, err)
		}
		if err := s.Engine().Decide(ctx, ticket(id), desk.Status, "", delta.Decision{Choice: delta.ChooseTarget}); err != nil {
			t.Fatal(err)
		}
		s.decide(id, hs[0].Entries[0].Entry, delta.ChooseTarget)
		s.Wait(time.Hour)
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		run(t, s.World, mainDelta)
		if open := s.held("changed"); open != hs[0].Entries[1].Entry {
			t.Errorf("cut at %d: held is entry %q, want %s alone", n, open, hs[0].Entries[1].Entry)
		}
		s.Effects.Cuts = nil
		s.decide(id, hs[0].Entries[1].Entry, delta.ChooseTarget)
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		run(t, s.World, mainDelta)
		s.nothingHeld()
		if t.Failed() || s.Restarts == 0 {
			return
		}
	}
}

// Somebody says that an entry in doubt is in the target's ticket, which people have deleted meanwhile. The ticket is made again, and
// that create loses its answer: the word about the entry says nothing about where the ticket is.
func TestRaceAnsweredEntryOfGone(t *testing.T) {
	s := newStage(t)
	s.Target.NoMarkers = true
	s.Migration.Policies.OnTargetGone = delta.RecreateGone
	id := s.ticket("one", "first")
	full(t, s.World)
	s.Wait(time.Hour)
	s.say(id, "second")
	lost := 0
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op == "apply" && lost == 0 || op == "create" && lost == 1 {
			lost++
			return noAnswer()
		}
		return nil
	}
	run(t, s.World, mainDelta)
	s.held("may have been added already")
	s.decide(id, "", delta.ChooseLink)
	s.Target.Remove(s.there(id))
	run(t, s.World, mainDelta)
	run(t, s.World, mainDelta)
	if n := len(s.Target.Look()["ticket/"+id]); n != 1 || lost != 2 {
		t.Errorf("%d times in the target, %d answers lost", n, lost)
	}
}

// Replies lose their answer in a desk that shows whose entries are, and the source deletes the ticket and shows nothing of it any
// more: what was brought is not taken for the entries of another ticket, and the policy is carried out.
func TestRaceOpenRepliesOfDeleted(t *testing.T) {
	for _, op := range []string{"create", "apply"} {
		s := newStage(t)
		s.Source.Purges = true
		s.Migration.Policies.OnDeleted = delta.Close
		id := ""
		if op == "apply" {
			id = s.ticket("one", "first")
		}
		full(t, s.World)
		s.Wait(time.Hour)
		if op == "create" {
			id = s.ticket("one", "first")
		} else {
			s.say(id, "second")
		}
		lose(t, s.Target, op, func() {
			s.Source.Remove(ticket(id))
		})
		run(t, s.World, mainDelta)
		s.Wait(time.Hour)
		run(t, s.World, mainDelta)
		s.field(id, desk.Status, "[resolved]")
	}
}

// A claim names no more entries than a row of a store can hold. Beyond that nobody can tell them from those of another ticket once
// the source hides this one: it stays as it is, and the report says why.
func TestRaceOpenRepliesOfDeletedMany(t *testing.T) {
	for more, want := range []string{"[resolved]", "[open]"} {
		s := newStage(t)
		s.Source.Purges = true
		s.Migration.Policies.OnDeleted = delta.Close
		full(t, s.World)
		s.Wait(time.Hour)
		id := s.ticket("one")
		s.Source.Unseen(func() {
			for n := range 200 + more {
				s.Source.Say(id, true, customer, fmt.Sprint("entry ", n), nil)
			}
		})
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		lose(t, s.Target, "create", func() { s.Source.Remove(ticket(id)) })
		run(t, s.World, mainDelta)
		rep := s.delta()
		s.field(id, desk.Status, want)
		said := false
		for why := range rep.Excluded {
			said = said || strings.Contains(why, "not known to be of this record")
		}
		if said != (more > 0) {
			t.Errorf("%d entries: excluded %v", 200+more, rep.Excluded)
		}
	}
}

// People change a field away and back; then the source changes it, our write loses its answer, and people put back once more what was
// there. The desk tells that something has happened since, so somebody is asked.
func TestRacePutBackTwice(t *testing.T) {
	s := newStage(t)
	s.Target.TellsTouched = true
	id := s.ticket("one")
	full(t, s.World)
	s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"by an agent"}})
	s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"one"}})
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	lose(t, s.Target, "apply", func() { s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"one"}}) })
	run(t, s.World, mainDelta)
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[one]")
	s.held("subject changed on both sides")
}

// A decision is carried out over what people had set, in the second call of a write, whose answer is lost; then people set what both
// sides had said before. That is not what the decision was about, so somebody is asked again.
func TestRacePutBackAfterDecision(t *testing.T) {
	s := newStage(t)
	s.Target.TellsTouched = true
	id := s.ticket("one")
	full(t, s.World)
	s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"by an agent"}})
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	run(t, s.World, mainDelta)
	if err := s.Engine().Decide(ctx, ticket(id), desk.Subject, "", delta.Decision{Choice: delta.ChooseSource}); err != nil {
		t.Fatal(err)
	}
	s.say(id, "first")
	s.Source.Say(id, true, desk.Author{Name: "Ann"}, "with a file", map[string][]byte{"a.txt": []byte("a")})
	calls := 0
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op == "apply" {
			calls++
		}
		if op != "apply" || calls != 2 {
			return nil
		}
		s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"one"}})
		return noAnswer()
	}
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[one]")
	s.held("subject changed on both sides")
}

// The same in one call, and people set again what the decision was about: its target has moved, there and back.
func TestRacePutBackWhatWasDecided(t *testing.T) {
	for _, d := range []delta.Decision{{Choice: delta.ChooseSource}, {Choice: delta.ChooseValue, Value: desk.Value{"three"}}} {
		s := newStage(t)
		s.Target.TellsTouched = true
		id := s.ticket("one")
		full(t, s.World)
		s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"by an agent"}})
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		s.delta()
		if err := s.Engine().Decide(ctx, ticket(id), desk.Subject, "", d); err != nil {
			t.Fatal(err)
		}
		lose(t, s.Target, "apply", func() { s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"by an agent"}}) })
		s.delta()
		s.delta()
		s.field(id, desk.Subject, "[by an agent]")
		s.held("subject changed on both sides (and again since it was decided)")
	}
}

// An entry is in the ticket already, a person says, and before that is carried out people delete the ticket. What is made in its
// place has none of it, whatever comes in between; what is in doubt there is asked anew.
func TestRaceAnswerForGone(t *testing.T) {
	for _, fault := range []string{"refused", "refused, then lost", "lost"} {
		s := newStage(t)
		s.Target.NoMarkers = true
		s.Migration.Policies.OnTargetGone = delta.RecreateGone
		id := s.ticket("one", "first")
		full(t, s.World)
		s.Wait(time.Hour)
		s.say(id, "second")
		lose(t, s.Target, "apply", nil)
		run(t, s.World, mainDelta)
		s.held("may have been added already")
		if err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{s.there(id).ID}}); err != nil {
			t.Fatal(err)
		}
		s.Target.Remove(s.there(id))
		s.say(id, "third")
		if strings.HasPrefix(fault, "refused") {
			s.Target.Fail = failOnce("apply", desk.ErrThrottled)
		}
		if strings.HasSuffix(fault, "lost") {
			lose(t, s.Target, "apply", nil)
		}
		run(t, s.World, mainDelta)
		run(t, s.World, mainDelta)
		s.thread(id, "first", "second", "third")
		if fault == "refused" {
			s.nothingHeld()
		} else {
			s.held("may have been added already")
		}
	}
}

package delta_test

import (
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// What the simulator has found, each told as a story of its own. People come in between just where it hurts, answers get lost,
// replicas go back; what the desks say at the end is what people and the source meant.

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

// A replica that answers with what it showed earlier: that never takes the place of what was carried over since, not even for a
// moment.
func TestRaceReplicaGoesBack(t *testing.T) {
	s := newStage(t)
	s.Source.ListLag = time.Minute
	id := s.ticket("one")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.Wait(2 * time.Second)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"three"}})
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[three]")
	writes := s.Target.Writes()
	s.Source.Stale = 1 // for the older one of the two changes, which the other window lists as well
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.field(id, desk.Subject, "[three]")
	if s.Source.Stale != 0 {
		t.Error("nobody asked the replica")
	}
	if n := s.Target.Writes() - writes; n > 0 {
		t.Errorf("%d writes, although nothing is new", n)
	}
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

// The create of a ticket lost its answer, and the source has merged it into one that is about to be created.
func TestRaceOpenCreateOfMerged(t *testing.T) {
	s := newStage(t)
	a := s.ticket("a", "of a")
	n := 0
	s.Target.Lose = func(op string, ref desk.Ref) error {
		if op != "create" || ref.ID != a || n > 0 {
			return nil
		}
		n++
		b := s.ticket("b", "of b")
		s.Source.Join(ticket(a), ticket(b))
		return noAnswer()
	}
	full(t, s.World)
	run(t, s.World, mainDelta)
	entries := map[string]int{}
	for _, all := range s.Target.Look() {
		for _, seen := range all {
			for _, en := range seen.Entries {
				entries[en[strings.LastIndex(en, " of ")+1:]]++
			}
		}
	}
	if entries["of a"] != 1 || entries["of b"] != 1 {
		t.Errorf("entries in the target: %v", entries)
	}
}

// The owner of a link that waits leaves the scope in which it waits: the run over the other scope draws the link.
func TestRaceLinkWaitsInBothScopes(t *testing.T) {
	s := newStage(t)
	late := s.ticket("late")
	owner := s.ticket("owner")
	s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {late}})
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "create" && ref.ID == late {
			return &desk.Error{Op: op, Class: desk.ErrRejected}
		}
		return nil
	}
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(owner), desk.Fields{desk.Group: {"Sales"}})
	run(t, s.World, mainDelta)
	s.Target.Fail = nil
	run(t, s.World, mainDelta)
	run(t, s.World, mainDelta)
	s.field(owner, desk.LinkRefersTo, "[ticket/"+late+"]")
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
				if op == "list" && revoked >= 3 && during == "list" && !cancelled {
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

// The source deletes a ticket into which the target's people have merged another one. As many were merged into it in the
// source, and of those none is in the target.
func TestRaceDeleteWithStrangers(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnDeleted = delta.Mirror
	a, other := s.ticket("a"), s.ticket("other")
	full(t, s.World)
	s.Wait(time.Hour)
	young := s.ticket("young")
	s.Source.Join(ticket(young), ticket(a))
	run(t, s.World, mainDelta)
	s.Target.Join(ticket(s.Target.Target(ticket(other))), ticket(s.Target.Target(ticket(a))))
	s.Source.Remove(ticket(a))
	run(t, s.World, mainDelta)
	if n := len(s.Target.Look()["ticket/"+a]); n != 1 {
		t.Errorf("the ticket is %d times there; the other one went with it", n)
	}
}

// A delta that closed the ticket of a spam message is undone: the next one closes it again.
func TestRaceUndoneEvent(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnSpam, s.Migration.Policies.ClosedStatus = delta.Close, "closed"
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Junk(ticket(id))
	r := run(t, s.World, mainDelta)
	s.field(id, desk.Status, "[closed]")
	run(t, s.World, delta.Request{Kind: delta.Undo, Undo: r.ID})
	s.field(id, desk.Status, "[open]")
	run(t, s.World, mainDelta)
	s.field(id, desk.Status, "[closed]")
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
	lost := false
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op != "apply" || lost {
			return nil
		}
		lost = true
		s.Target.Edit(ticket(tid), desk.Fields{desk.Subject: {"one"}})
		return noAnswer()
	}
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[one]")
	s.held("subject")
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
	s.held("differ in who can see them") // until somebody decides
	entry := s.held()
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

// People merge the ticket into one of theirs between two calls of one write: the fields of that one are theirs.
func TestRaceMergedBetweenCalls(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one")
	full(t, s.World)
	own := s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"of an agent"}, desk.Status: {"stalled"}})
	tid := s.Target.Target(ticket(id))
	s.Wait(time.Hour)
	s.say(id, "first")
	s.Source.Say(id, true, desk.Author{Name: "Ann"}, "with a file", map[string][]byte{"a.txt": []byte("a")})
	at(s.Target, "read", 2, func() error {
		s.Target.Join(ticket(tid), ticket(own))
		return nil
	})
	run(t, s.World, mainDelta)
	all := s.Target.Look()["own ticket/"+own]
	if len(all) != 1 || all[0].Fields[desk.Subject] != "[of an agent]" || all[0].Fields[desk.Status] != "[stalled]" || len(all[0].Entries) != 2 {
		t.Errorf("the agents' ticket is %+v", all)
	}
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

// Somebody answers again while the first answer is being written, and that write loses its reply: the second answer holds.
func TestRaceSecondAnswer(t *testing.T) {
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
	answer("target's")
	lost := false
	s.Target.Lose = func(op string, ref desk.Ref) error {
		if op != "apply" || ref.Kind != desk.Ticket || lost {
			return nil
		}
		lost = true
		answer("a third one")
		return noAnswer()
	}
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[a third one]")
	s.nothingHeld()
}

// The first entry of a ticket that is made again is there already, with one that is merged into it; the create loses its answer,
// in a desk that cannot show which entries are ours. It is the entry that was sent of which somebody is asked.
func TestRaceMadeAgainWithAlias(t *testing.T) {
	s := newStage(t)
	s.Target.NoMarkers = true
	s.Migration.Policies.OnTargetGone = delta.RecreateGone
	alias := s.ticket("alias", "of alias")
	s.Wait(time.Minute)
	id := s.ticket("one", "of one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Join(ticket(alias), ticket(id))
	s.Target.Remove(s.there(id))
	lost := false
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op != "create" || lost {
			return nil
		}
		lost = true
		return noAnswer()
	}
	run(t, s.World, mainDelta)
	run(t, s.World, mainDelta)
	if !lost {
		t.Error("nothing was made again")
	}
	entries := map[string]int{}
	for _, all := range s.Target.Look() {
		for _, seen := range all {
			for _, en := range seen.Entries {
				entries[en[strings.LastIndex(en, "of "):]]++
			}
		}
	}
	if entries["of one"] != 1 {
		t.Errorf("entries in the target: %v", entries)
	}
	s.held("may have been added already")
}

// A create loses its answer, and before anybody has looked the ticket leaves the source and changes. When it is back, nobody
// takes what the create wrote for what people left there, under a policy that leaves fields to the target.
func TestRaceOpenCreateOfDeleted(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.TargetWins}
	s.Migration.Policies.OnDeleted = delta.Tag
	id := s.ticket("one")
	s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"low"}})
	lost := false
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op != "create" || lost {
			return nil
		}
		lost = true
		s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"high"}})
		s.Source.Remove(ticket(id))
		return noAnswer()
	}
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Restore(ticket(id))
	run(t, s.World, mainDelta)
	if !lost {
		t.Error("no answer was lost")
	}
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
		lost := false
		s.Target.Lose = func(op string, _ desk.Ref) error {
			if op != "create" || lost {
				return nil
			}
			lost = true
			s.Wait(time.Second)
			s.decide(id, "", delta.ChooseCreate) // nothing to be seen yet
			s.Source.Remove(ticket(id))
			return noAnswer()
		}
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
		lost := false
		s.Target.Lose = func(op string, _ desk.Ref) error {
			if op != "apply" || lost {
				return nil
			}
			lost = true
			return noAnswer()
		}
		run(t, s.World, mainDelta)
		run(t, s.World, mainDelta)
		s.thread(id, "first", "second")
		s.held("may have been added already")
	})
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

// A run over one scope brings to its end what it had begun before the ticket left that scope, and is undone: the run over the
// scope in which the ticket is now makes it again.
func TestRaceUndoneElsewhere(t *testing.T) {
	s := newStage(t)
	s.Target.TellsTouched = true
	s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateUpdate}
	support := delta.Request{Kind: delta.Delta, Window: "support"}
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	id := s.ticket("one", "first")
	lost := false
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op != "create" || lost {
			return nil
		}
		lost = true
		s.Source.Edit(ticket(id), desk.Fields{desk.Group: {"Sales"}})
		return noAnswer()
	}
	r := run(t, s.World, support)
	s.thread(id, "first")
	run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	s.absent(id)
	run(t, s.World, support)
	run(t, s.World, mainDelta)
	s.thread(id, "first")
}

// A replica shows a merged ticket on its own again, for a moment: it is not made a second time.
func TestRaceReplicaBeforeMerge(t *testing.T) {
	s := newStage(t)
	s.Source.ListLag = time.Minute
	a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"a, again"}})
	s.Wait(2 * time.Second)
	s.Source.Join(ticket(a), ticket(b))
	run(t, s.World, mainDelta)
	s.Source.Stale = 1
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	if s.Source.Stale != 0 {
		t.Error("nobody asked the replica")
	}
	if all := s.Target.Look()["ticket/"+a]; len(all) > 0 {
		t.Errorf("made again: %+v", all)
	}
	s.thread(b, "of a", "of b")
}

// A ticket was merged into one that the target's people have deleted, which the migration leaves at that. The one that lives on
// changes again: the feed tells it, so a census calls nothing missed.
func TestRaceCensusOfMergedIntoGone(t *testing.T) {
	s := newStage(t)
	s.Migration.OnTargetGone = delta.IgnoreGone
	a, b := s.ticket("a"), s.ticket("b")
	s.full()
	s.Wait(time.Hour)
	s.Target.Remove(s.there(b))
	s.Source.Join(ticket(a), ticket(b))
	s.delta()
	s.Wait(time.Hour)
	s.Source.Edit(ticket(b), desk.Fields{desk.Priority: {"high"}})
	missed, _ := s.census(census)
	same(t, "missed", nil, missed)
	s.delta()
	missed, _ = s.census(census)
	same(t, "missed after the delta", nil, missed)
}

// A ticket is merged into one that has left the scope and waits with it. When that one is merged into a third that never was in
// the target, both have come to their end.
func TestRaceMergedTwiceOutside(t *testing.T) {
	s := newStage(t)
	s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	s.Migration.OnMerged, s.Migration.ClosedStatus = delta.Close, "closed"
	a, b, c := s.ticket("a"), s.ticket("b"), s.ticket("c")
	s.Source.Edit(ticket(c), desk.Fields{desk.Group: {"Sales"}})
	s.full()
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	s.delta()
	s.field(a, desk.Status, "[open]") // b may come back with it
	s.Wait(time.Hour)
	s.Source.Join(ticket(b), ticket(c))
	s.delta()
	s.field(b, desk.Status, "[closed]")
	s.field(a, desk.Status, "[closed]")
	missed, _ := s.census(census)
	same(t, "missed", nil, missed)
	if n := s.due(); n > 0 {
		t.Errorf("%d records are still due", n)
	}
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

// A create is open, and the source merges the ticket into one that has left the scope: what was begun is brought to its end there.
func TestRaceOpenCreateMergedOutside(t *testing.T) {
	s := newStage(t)
	s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	b := s.ticket("b", "of b")
	s.full()
	s.Wait(time.Hour)
	a := s.ticket("a", "of a")
	s.Target.Lose = func(op string, ref desk.Ref) error {
		if op != "create" || ref.ID != a {
			return nil
		}
		return &desk.Error{Op: op, Class: desk.ErrMailed} // which stops the run
	}
	run(t, s.World, mainDelta)
	s.Target.Lose = nil
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	s.delta()
	s.absent(a)
	s.thread(b, "of b", "of a")
	if x, err := s.Engine().Explain(ctx, ticket(a)); err != nil || !x.Busy.IsZero() || x.Into != b {
		t.Errorf("ticket %s is %+v, %v", a, x, err)
	}
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

// An undo took a link away, and the ledger is of the day before: nobody can tell any more whether people did, so a person is asked.
func TestRaceRestoredLink(t *testing.T) {
	s := newStage(t)
	a, b := s.ticket("one"), s.ticket("other")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(a), desk.Fields{desk.LinkRefersTo: {b}})
	r := run(t, s.World, mainDelta)
	s.field(a, desk.LinkRefersTo, "[ticket/"+b+"]")
	day := s.Store.Snapshot()
	run(t, s.World, delta.Request{Kind: delta.Undo, Undo: r.ID})
	s.field(a, desk.LinkRefersTo, "")
	s.Store.Restore(day)
	s.Restart()
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.held("link.refers_to")
	if err := s.Engine().Decide(ctx, ticket(a), desk.LinkRefersTo, "", delta.Decision{Choice: delta.ChooseSource}); err != nil {
		t.Fatal(err)
	}
	run(t, s.World, mainDelta)
	s.field(a, desk.LinkRefersTo, "[ticket/"+b+"]")
	s.nothingHeld()
}

// A ticket came into the scope and left it again, and the ledger is of the day before. It is in the target, so the link to it is
// drawn there.
func TestRaceRestoredLinkOutOfScope(t *testing.T) {
	s := newStage(t)
	a, b := s.ticket("one"), s.ticket("other")
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	day := s.Store.Snapshot()
	s.Wait(time.Hour)
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Support"}})
	support := delta.Request{Kind: delta.Delta, Window: "support"}
	run(t, s.World, support)
	s.Store.Restore(day)
	s.Restart()
	s.Wait(time.Hour)
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	s.Source.Edit(ticket(a), desk.Fields{desk.LinkRefersTo: {b}})
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support", Restart: true, Adopt: true})
	s.field(a, desk.LinkRefersTo, "[ticket/"+b+"]")
	s.nothingHeld()
	s.Wait(time.Hour)
	s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"two"}})
	run(t, s.World, support)
	s.field(a, desk.LinkRefersTo, "[ticket/"+b+"]")
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Support"}})
	run(t, s.World, support)
	if n := len(s.Target.Look()["ticket/"+b]); n != 1 {
		t.Errorf("the other one is %d times in the target", n)
	}
}

// The other end of a link arrives after the ticket was read, and the ticket is held for something else: its link is drawn by the
// same run, like any.
func TestRaceLinkOfHeld(t *testing.T) {
	s := newStage(t)
	a := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Target.Edit(s.there(a), desk.Fields{desk.Subject: {"theirs"}})
	b := s.ticket("other")
	s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"two"}, desk.LinkRefersTo: {b}})
	run(t, s.World, mainDelta)
	s.held("subject")
	s.field(a, desk.LinkRefersTo, "[ticket/"+b+"]")
	if err := s.Engine().Decide(ctx, ticket(a), desk.Subject, "", delta.Decision{Choice: delta.ChooseSource}); err != nil {
		t.Fatal(err)
	}
	run(t, s.World, mainDelta)
	s.nothingHeld()
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

// Somebody says that an entry in doubt is there, and whoever carries the answer out is cut off at any place: it is not added.
func TestRaceAnsweredEntry(t *testing.T) {
	for n := 1; ; n++ {
		s := newStage(t)
		s.Target.NoMarkers = true
		id := s.ticket("one", "first")
		full(t, s.World)
		s.Wait(time.Hour)
		s.say(id, "second")
		lost := false
		s.Target.Lose = func(op string, _ desk.Ref) error {
			if op != "apply" || lost {
				return nil
			}
			lost = true
			return noAnswer()
		}
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

// A write loses its answer, and people empty the field before anybody has looked; a policy leaves it to them. An undo of the run
// leaves it to them as well.
func TestRaceUndoOfLeftToPeople(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.TargetWins}
	id := s.ticket("one")
	s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"1"}})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}, desk.Priority: {"5"}})
	lost := false
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op != "apply" || lost {
			return nil
		}
		lost = true
		s.Target.Edit(s.there(id), desk.Fields{desk.Priority: nil})
		return noAnswer()
	}
	r := run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	if v := s.Target.Look()["ticket/"+id][0].Fields[desk.Priority]; len(v) > 0 {
		t.Errorf("priority is %v, and people had emptied it", v)
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
	lost := false
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op != "apply" || lost {
			return nil
		}
		lost = true
		s.Source.Remove(ticket(id))
		return noAnswer()
	}
	run(t, s.World, mainDelta)
	s.Source.Restore(ticket(id))
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"three"}})
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	s.held("subject")
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
		lost := false
		s.Target.Lose = func(o string, _ desk.Ref) error {
			if o != op || lost {
				return nil
			}
			lost = true
			s.Source.Remove(ticket(id))
			return noAnswer()
		}
		run(t, s.World, mainDelta)
		s.Wait(time.Hour)
		run(t, s.World, mainDelta)
		s.field(id, desk.Status, "[resolved]")
	}
}

// A ticket is merged into one outside the scope, which is spam, and leaves the source with it. When that one is no spam any more, the
// merge is carried over.
func TestRaceMergedIntoSpamOutside(t *testing.T) {
	s := newStage(t)
	s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	s.Migration.Policies.OnSpam, s.Migration.Policies.OnMerged = delta.Ignore, delta.Close
	a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Elsewhere"}})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	s.Source.Junk(ticket(b))
	run(t, s.World, mainDelta)
	s.field(a, desk.Status, "[open]")
	s.Source.Restore(ticket(b))
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	s.field(a, desk.Status, "[resolved]")
}

// The source changes a field and takes the change back, and a run sees that nothing is new. A replica that shows the other window
// what it said in between is behind.
func TestRaceReplicaBeforeTakenBack(t *testing.T) {
	s := newStage(t)
	s.Source.ListLag = time.Minute
	id := s.ticket("one")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.Wait(2 * time.Second)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"one"}})
	run(t, s.World, mainDelta)
	s.Source.Stale = 1
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	if s.Source.Stale != 0 {
		t.Error("nobody asked the replica")
	}
	s.field(id, desk.Subject, "[one]")
}

package delta_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// Races around merges, links and replicas: what the source says of several records at once, and not everywhere at the same moment.

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

// coarse is a source whose stamps are seconds, and nothing else, and that lists a record once.
type coarse struct{ desk.Source }

func (c coarse) stamp(s desk.Stamp) desk.Stamp { return desk.Stamp{At: s.At.Truncate(time.Second)} }

func (c coarse) Changes(ctx context.Context, k desk.Kind, scope desk.Scope, from, until desk.Cursor) (desk.Page, error) {
	page, err := c.Source.Changes(ctx, k, scope, from, until)
	var last []desk.Listed
	for i, it := range page.Items {
		if it.Stamp = c.stamp(it.Stamp); !slices.ContainsFunc(page.Items[i+1:], func(x desk.Listed) bool { return x.Ref == it.Ref }) {
			last = append(last, it)
		}
	}
	page.Items = last
	return page, err
}

func (c coarse) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	rec, err := c.Source.Read(ctx, ref)
	rec.Stamp = c.stamp(rec.Stamp)
	return rec, err
}

// Two changes within the same second, and a replica that shows the first of them: the second is not lost.
func TestRaceReplicaWithinOneSecond(t *testing.T) {
	s := newStage(t)
	s.Source.ListLag = 15 * time.Second
	id := s.ticket("one")
	do := own(t, s.World, coarse{s.Source.AsSource()}, s.Target.AsTarget())
	must := func(q delta.Request) {
		t.Helper()
		if r, err := do(q); err != nil || r.Status != delta.Verified {
			t.Fatal(r.Status, r.Why, err)
		}
	}
	must(delta.Request{Kind: delta.Full, Scope: "all"})
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"three"}})
	s.Source.Stale = 1
	must(mainDelta)
	if s.Source.Stale != 0 {
		t.Error("nobody asked the replica")
	}
	s.Wait(time.Hour)
	must(mainDelta)
	s.field(id, desk.Subject, "[three]")
}

// A source that writes the ticket that lives on first, as an archive does: the merged one is listed with a higher number than any
// reading will ever show. Full runs, deltas, a census and a remap see the merge all the same.
func TestMergedIsWrittenLast(t *testing.T) {
	s := newStage(t)
	s.Source.JoinsInto = true
	before, a, b := s.ticket("before", "before1"), s.ticket("a", "a1"), s.ticket("b", "b1")
	s.Source.Join(ticket(before), ticket(b))
	s.full()
	s.thread(b, "before1", "b1")
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	if rep := s.delta(); rep.Counts.Failed > 0 {
		t.Errorf("the delta: %+v", rep.Exceptions)
	}
	s.absent(a)
	s.thread(b, "before1", "a1", "b1")
	s.verified(0)
	c := s.ticket("c", "c1")
	s.delta()
	s.Source.Join(ticket(c), ticket(b))
	if missed, rep := s.census(delta.Request{Kind: delta.Census, Scope: "all"}); len(missed) > 0 || rep.Counts.Failed > 0 {
		t.Errorf("the census: %+v", rep.Exceptions)
	}
	if rep := reportOf(t, s.World, run(t, s.World, delta.Request{Kind: delta.Remap, Scope: "all"}).ID); rep.Counts.Failed > 0 {
		t.Errorf("the remap: %+v", rep.Exceptions)
	}
	s.delta()
	s.thread(b, "before1", "a1", "b1", "c1")
}

// A merge that was taken back, and a replica that does not know yet: the ticket was listed for the latter, and what answers in its
// place is older than that.
func TestRaceReplicaStillMerged(t *testing.T) {
	s := newStage(t)
	s.Source.ListLag = time.Minute
	a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
	s.Source.Join(ticket(a), ticket(b))
	s.full()
	s.Wait(time.Hour)
	stale := s.Source.AsSource()
	old, err := stale.Read(ctx, ticket(a))
	if err != nil || old.Ref != ticket(b) {
		t.Fatalf("%+v, %v", old.Ref, err)
	}
	s.Source.Part(ticket(a))
	asked := 0
	behind := &replica{Source: stale, read: func(ref desk.Ref) *desk.Record {
		if ref != ticket(a) || asked > 1 {
			return nil
		}
		asked++
		return &old
	}}
	if r, err := own(t, s.World, behind, s.Target.AsTarget())(mainDelta); err != nil || r.Status != delta.Verified {
		t.Fatal(r.Status, err)
	}
	if asked < 2 {
		t.Error("what the replica answered first was taken")
	}
	s.thread(a, "a1")
}

// replica answers some readings by itself.
type replica struct {
	desk.Source
	read func(desk.Ref) *desk.Record
}

func (r *replica) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	if rec := r.read(ref); rec != nil {
		return *rec, nil
	}
	return r.Source.Read(ctx, ref)
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

// The create of a ticket lost its answer, and people merge what it made into another ticket before anybody looks. Where the search
// shows merged tickets, it goes on there; elsewhere nobody can know, and it is made again.
func TestRaceOpenCreateMergedThere(t *testing.T) {
	for _, finds := range []bool{true, false} {
		s := newStage(t)
		s.Target.FindsMerged = finds
		other := s.ticket("other", "of other")
		s.full()
		id := s.ticket("one", "of one")
		lose(t, s.Target, "create", func() { s.Target.Join(s.there(id), s.there(other)) })
		s.delta()
		n := 0
		for _, all := range s.Target.Look() {
			for _, seen := range all {
				for _, body := range bodies(seen) {
					if body == "of one" {
						n++
					}
				}
			}
		}
		if want := map[bool]int{true: 1, false: 2}[finds]; n != want {
			t.Errorf("the search shows merged tickets: %v; the entry is there %d times, want %d", finds, n, want)
		}
	}
}

// The same where the source wins: the ticket in which it goes on is another record's, or people's own. Its fields stay what they are.
func TestRaceOpenCreateMergedUnderSourceWins(t *testing.T) {
	for _, theirs := range []bool{false, true} {
		s := newStage(t)
		s.Target.FindsMerged, s.Migration.Conflict = true, delta.SourceWins
		other := s.ticket("other", "of other")
		s.full()
		into := s.there(other)
		if theirs {
			into = ticket(s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"other"}, desk.Status: {"open"}}))
		}
		id := s.ticket("one", "of one")
		lose(t, s.Target, "create", func() { s.Target.Join(s.there(id), into) })
		s.delta()
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		s.delta()
		now, err := s.Target.AsTarget().Read(ctx, into)
		if err != nil || now.Fields[desk.Subject].First() != "other" {
			t.Errorf("people's own: %v; its subject is %v, %v; want what it was", theirs, now.Fields[desk.Subject], err)
		}
		if theirs {
			s.held("subject changed on both sides")
		} else {
			s.nothingHeld()
		}
	}
}

// The same, and then the source merges the ticket into a third one, which is in the target already or not. The ticket into which people
// merged it is not for us to merge, be it another record's or an agent's own: it stays as it is, and the third one gets the entries.
func TestRaceOpenCreateMergedThereAndHere(t *testing.T) {
	for _, young := range []bool{true, false} {
		for _, agents := range []bool{true, false} {
			s := newStage(t)
			s.Target.FindsMerged = true
			other, third := s.ticket("other", "of other"), ""
			if !young {
				third = s.ticket("third", "of third")
			}
			s.full()
			into := s.there(other)
			if agents {
				into = ticket(s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"of an agent"}, desk.Status: {"open"}}))
			}
			a := s.ticket("a", "of a")
			s.Target.Lose = func(op string, ref desk.Ref) error {
				if op != "create" || ref.ID != a {
					return nil
				}
				s.Target.Join(s.there(a), into)
				return &desk.Error{Op: op, Class: desk.ErrMailed} // which stops the run
			}
			s.delta()
			s.Target.Lose = nil
			if young {
				third = s.ticket("third", "of third")
			}
			s.Source.Join(ticket(a), ticket(third))
			s.delta()
			s.field(other, desk.Subject, "[other]")
			if young {
				s.thread(third, "of a", "of third")
			} else {
				s.thread(third, "of third", "of a")
			}
			if agents {
				s.thread(other, "of other")
			} else {
				s.thread(other, "of other", "of a")
			}
		}
	}
}

// The source merges two tickets, and in the very moment in which that is carried over the target's people merge the one that goes into a
// third one, of theirs or of another record: that one does not go with it.
func TestRaceMergedThereWhileMerging(t *testing.T) {
	for _, agents := range []bool{true, false} {
		s := newStage(t)
		a, b, other := s.ticket("a", "of a"), s.ticket("b", "of b"), s.ticket("other", "of other")
		s.full()
		into := s.there(other)
		if agents {
			into = ticket(s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"of an agent"}, desk.Status: {"open"}}))
		}
		s.Source.Join(ticket(a), ticket(b))
		at(s.Target, "merge", 1, func() error { s.Target.Join(s.there(a), into); return nil })
		s.delta()
		s.thread(b, "of b", "of a")
		if agents {
			s.thread(other, "of other")
		} else {
			s.thread(other, "of a", "of other")
		}
	}
}

// What was made is there twice: one of them is merged with the record that lives on, and the report tells of the other one.
func TestRaceOpenCreateTwiceMerged(t *testing.T) {
	s := newStage(t)
	b := s.ticket("b", "of b")
	s.full()
	a := s.ticket("a", "of a")
	s.Target.Lose = func(op string, ref desk.Ref) error {
		if op != "create" || ref.ID != a {
			return nil
		}
		return &desk.Error{Op: op, Class: desk.ErrMailed} // which stops the run
	}
	s.delta()
	s.Target.Lose = nil
	s.Target.Damage(s.there(a).ID, deltatest.Double)
	s.Source.Join(ticket(a), ticket(b))
	rep := s.delta()
	s.thread(b, "of b", "of a")
	if n := losses(rep, "in-doubt"); n != 1 || len(s.Target.Look()["ticket/"+a]) != 1 {
		t.Errorf("the report tells of %d tickets in doubt, want 1: %+v", n, rep.Losses)
	}
}

// A ticket that was made a moment ago is merged into one that does not move, and the target does not show it yet: it is closed all the
// same.
func TestRaceShownLateMergedOutside(t *testing.T) {
	s := newStage(t)
	s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	s.Target.ListLag = 10 * time.Minute
	out := s.ticket("out", "of out")
	s.Source.Edit(ticket(out), desk.Fields{desk.Group: {"Sales"}})
	s.full()
	a := s.ticket("a", "of a")
	s.delta()
	shown := s.Clock().Add(9 * time.Minute)
	s.Source.Join(ticket(a), ticket(out))
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref == s.there(a) && s.Clock().Before(shown) {
			return &desk.Error{Op: op, Class: desk.ErrNotFound}
		}
		return nil
	}
	run(t, s.World, mainDelta)
	s.field(a, desk.Status, "[resolved]")
}

// The same, and the source deletes the ticket or merges it into one that does not move: what lives on is neither closed nor tagged,
// and should the source have the ticket again, its fields stay those of the other record.
func TestRaceOpenCreateMergedThereLeaves(t *testing.T) {
	for _, how := range []string{"deleted", "merged"} {
		s := newStage(t)
		s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
		s.Target.FindsMerged = true
		s.Migration.Policies.Conflict = delta.SourceWins
		s.Migration.Policies.OnDeleted, s.Migration.Policies.OnMerged = delta.Tag, delta.Tag
		other, out := s.ticket("other", "of other"), s.ticket("out")
		s.Source.Edit(ticket(out), desk.Fields{desk.Group: {"Sales"}})
		s.full()
		id := s.ticket("one", "of one")
		lose(t, s.Target, "create", func() {
			s.Target.Join(s.there(id), s.there(other))
			if how == "deleted" {
				s.Source.Remove(ticket(id))
			} else {
				s.Source.Join(ticket(id), ticket(out))
			}
		})
		before := s.Target.Look()
		s.delta()
		if d := cmp.Diff(before["ticket/"+other][0].Fields, s.Target.Look()["ticket/"+other][0].Fields); d != "" {
			t.Errorf("%s: the other ticket (-before +after):\n%s", how, d)
		}
		if how == "deleted" {
			s.Source.Restore(ticket(id))
			s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"back"}})
			s.delta()
			s.field(other, desk.Subject, "[other]")
		}
	}
}

// The same, and a person says that it is that one: its fields stay those of the other record, also where the source wins.
func TestRaceLinkDecidedMergedThere(t *testing.T) {
	s := newStage(t)
	s.Target.NoFinder, s.Migration.Conflict = true, delta.SourceWins
	other := s.ticket("other", "of other")
	s.full()
	id := s.ticket("one", "of one")
	lose(t, s.Target, "create", func() { s.Target.Join(s.there(id), s.there(other)) })
	s.delta()
	if err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{s.there(other).ID}}); err != nil {
		t.Fatal(err)
	}
	s.delta()
	s.nothingHeld()
	s.field(other, desk.Subject, "[other]")
	s.thread(other, "of other", "of one")
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

// An undo removes the ticket that a merge lives on in, and with it what was carried over of the merge: a census knows why it is open.
func TestRaceCensusOfMergedIntoUndone(t *testing.T) {
	s := newStage(t)
	s.Migration.OnMerged = delta.Close
	a := s.ticket("a", "of a")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	b := s.ticket("b", "of b")
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	r := run(t, s.World, mainDelta)
	s.Source.Join(ticket(a), ticket(b))
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "apply" && ref == s.there(a) {
			return &desk.Error{Op: op, Class: desk.ErrRejected}
		}
		return nil
	}
	run(t, s.World, mainDelta)
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.Target.Fail = nil
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	s.absent(b)
	if missed, _ := s.census(delta.Request{Kind: delta.Census, Scope: "support"}); len(missed) > 0 {
		t.Errorf("missed: %v", missed)
	}
}

// A ticket is merged into one of another scope, which waits there because the target refuses it: a census of this scope calls nothing
// missed.
func TestRaceCensusOfMergedIntoFailed(t *testing.T) {
	s := newStage(t)
	s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateOnly}
	a := s.ticket("a", "of a")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	b := s.ticket("b", "of b")
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	s.Source.Join(ticket(a), ticket(b))
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "create" && ref == ticket(b) {
			return &desk.Error{Op: op, Class: desk.ErrRejected}
		}
		return nil
	}
	run(t, s.World, mainDelta)
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.absent(b)
	if missed, _ := s.census(delta.Request{Kind: delta.Census, Scope: "support"}); len(missed) > 0 {
		t.Errorf("missed: %v", missed)
	}
}

// The same where that one is in the target, and the run that was about to carry the merge out there was cut off and cancelled.
func TestRaceCensusOfMergedIntoOpen(t *testing.T) {
	s := newStage(t)
	s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateOnly}
	a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	s.Wait(time.Hour)
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	r, _, err := s.Engine().Start(ctx, mainDelta)
	if err != nil {
		t.Fatal(err)
	}
	s.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "merge" {
			s.Target.Fail = nil
			if err := s.Engine().Cancel(ctx, r.ID, "the operator"); err != nil {
				t.Error(err)
			}
			panic(deltatest.Crash{})
		}
		return nil
	}
	run(t, s.World, mainDelta)
	if missed, _ := s.census(delta.Request{Kind: delta.Census, Scope: "support"}); len(missed) > 0 {
		t.Errorf("missed: %v", missed)
	}
	s.delta()
	s.thread(b, "of a", "of b")
}

// A ticket is merged into one of another scope, and a window that only creates comes first. It leaves that to the other one, and a
// census of its scope calls nothing missed.
func TestRaceMergedElsewhereInCreateMode(t *testing.T) {
	s := newStage(t)
	s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateOnly}
	s.Migration.OnMerged, s.Migration.ClosedStatus = delta.Close, "closed"
	a := s.ticket("a", "of a")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	b := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Sales"}})
	s.Source.Join(ticket(a), ticket(b))
	support := delta.Request{Kind: delta.Delta, Window: "support"}
	if rep := reportOf(t, s.World, run(t, s.World, support).ID); rep.Excluded["the mode leaves changes of migrated records out"] == 0 {
		t.Errorf("left out: %v", rep.Excluded)
	}
	if missed, _ := s.census(delta.Request{Kind: delta.Census, Scope: "support"}); len(missed) > 0 {
		t.Errorf("missed: %v", missed)
	}
	s.delta()
	s.field(a, desk.Status, "[closed]")
}

// A ticket is merged into one whose target is made after that, anew or for the first time, and the policy leaves its own ticket closed
// there: what came with the create is in both. What the source redacts then is taken out of both.
func TestRaceMergedIntoMadeAnew(t *testing.T) {
	for _, anew := range []bool{false, true} {
		s := newStage(t)
		s.Migration.OnMerged, s.Migration.OnTargetGone = delta.Close, delta.RecreateGone
		a, b := s.ticket("a", "of a"), ""
		if anew {
			b = s.ticket("b", "of b")
		}
		full(t, s.World)
		s.Wait(time.Hour)
		if anew {
			s.Source.Join(ticket(a), ticket(b))
			s.delta()
			s.Target.Remove(s.there(b))
			s.say(b, "more")
		} else {
			b = s.ticket("b", "of b")
			s.Source.Join(ticket(a), ticket(b))
		}
		s.delta()
		s.Wait(time.Hour)
		s.Source.Redact(b, 0)
		s.delta()
		for id, entries := range s.Target.Look() {
			for _, seen := range entries {
				for _, en := range seen.Entries {
					if strings.Contains(en, "of a") {
						t.Errorf("made anew: %v; %s still says %q", anew, id, en)
					}
				}
			}
		}
	}
}

// The source merges two tickets, and right behind our merge the target's people merge the one that lives on into another record's ticket:
// the fields of that one stay what they are.
func TestRaceMergedThereBehindMerge(t *testing.T) {
	s := newStage(t)
	s.Migration.Conflict = delta.SourceWins
	a, b, other := s.ticket("a", "of a"), s.ticket("b", "of b"), s.ticket("other", "of other")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	s.Source.Edit(ticket(b), desk.Fields{desk.Subject: {"b again"}})
	into, merging := s.there(b), false
	s.Target.Fail = func(op string, ref desk.Ref) error {
		switch {
		case op == "merge":
			merging = true
		case op == "read" && ref == into && merging:
			s.Target.Fail = nil
			s.Target.Join(into, s.there(other))
		}
		return nil
	}
	s.delta()
	s.field(other, desk.Subject, "[other]")
	s.thread(other, "of a", "of b", "of other")
}

// The reading behind a merge is not answered, and the ticket carries our tag: the next attempt goes on.
func TestMergedAndNotReadAgain(t *testing.T) {
	s := newStage(t)
	s.Migration.OnRevised = delta.Tag
	a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Redact(b, 0)
	s.delta()
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	s.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "merge" {
			at(s.Target, "read", 1, noAnswer)
		}
		return nil
	}
	s.delta()
	s.field(b, desk.Tags, "[deleted-in-source]")
	s.thread(b, "of a", "of b")
}

// The target's people merge two tickets that the source has merged, between the reading of the one and the look at the other. What
// came with the other is there, and follows the source.
func TestRaceMergedByPeopleMeanwhile(t *testing.T) {
	s := newStage(t)
	a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	s.Source.Redact(b, 0)
	there := s.there(a)
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref == there {
			s.Target.Fail = nil
			s.Target.Join(there, s.there(b))
		}
		return nil
	}
	s.delta()
	s.thread(b, "(redacted)", "of b")
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
	lose(t, s.Target, "create", nil)
	run(t, s.World, mainDelta)
	run(t, s.World, mainDelta)
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

// A ticket was merged into one that the target's people have deleted. Then what that one links to gets another place in the target, or
// the mapping is another one: no feed tells of either, and the merge was seen, so a census calls nothing missed.
func TestRaceCensusOfMergedIntoAnother(t *testing.T) {
	for _, what := range []string{"links", "mapping"} {
		s := newStage(t)
		s.Migration.OnTargetGone = delta.IgnoreGone
		a, b, c, d := s.ticket("a"), s.ticket("b"), s.ticket("c"), s.ticket("d")
		s.Source.Edit(ticket(b), desk.Fields{desk.LinkRefersTo: {c}})
		s.full()
		s.Wait(time.Hour)
		s.Target.Remove(s.there(b))
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.Wait(time.Hour)
		if what == "links" {
			s.Source.Join(ticket(c), ticket(d))
			s.delta()
		} else {
			s.another(statuses(map[string]string{"open": "stalled"}))
		}
		missed, _ := s.census(census)
		same(t, what+": missed", nil, missed)
		s.delta()
		missed, _ = s.census(census)
		same(t, what+": missed after the delta", nil, missed)
		if n := s.due(); n > 0 {
			t.Errorf("%s: %d records are due", what, n)
		}
	}
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

// A ticket was merged outside the scope and keeps a ticket of its own, which the target's people merge into the other one: what both
// showed is there twice now. What the source does to the entry is done to its copy in that ticket, whether the other was emptied before.
func TestRaceCopiesMergedThere(t *testing.T) {
	for _, before := range []bool{true, false} {
		s := newStage(t)
		s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateUpdate}
		a := s.ticket("a", "of a")
		full(t, s.World)
		run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
		s.Wait(time.Hour)
		b := s.ticket("b", "of b")
		s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
		s.Source.Join(ticket(a), ticket(b))
		run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
		s.delta()
		s.thread(b, "of a", "of b")
		merge := func() { s.Target.Join(s.there(a), s.there(b)) }
		if !before {
			merge()
		}
		s.Source.Redact(b, 0)
		s.Source.Edit(ticket(b), desk.Fields{desk.Subject: {"two"}})
		s.delta()
		if before {
			merge()
		}
		s.thread(b, "(redacted)", takenText, "of b")
		s.Source.Flip(b, 0)
		s.delta()
		s.thread(b, "-(redacted)", takenText, "of b")
		s.nothingHeld()
		s.verified(0)
	}
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

// The same, and the ticket that was found cannot be read at first: nobody waits for a claim that nobody holds.
func TestRaceOpenCreateMergedOutsideUnread(t *testing.T) {
	s := newStage(t)
	s.Migration.OnMerged = delta.Close
	b := s.ticket("b")
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	a := s.ticket("a", "of a")
	var since time.Time
	lose(t, s.Target, "create", func() {
		s.Wait(time.Second)
		s.Source.Join(ticket(a), ticket(b))
		at(s.Target, "read", 1, func() error {
			since = s.Clock()
			return noAnswer()
		})
	})
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	s.field(a, desk.Status, "[resolved]")
	if took := s.Clock().Sub(since); since.IsZero() || took > 2*time.Minute {
		t.Errorf("it took %s more", took)
	}
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

// A ticket that is linked to is merged into one that no longer moves, and the ledger is of the day before: it may not know which of both
// are in the target. The link leads there all the same, and they become one when the other moves again.
func TestRaceRestoredLinkMergedOutOfScope(t *testing.T) {
	for name, x := range map[string]struct{ known, searched, merged bool }{
		"the one that lives on is known":                         {known: true, searched: true},
		"the one that lives on is known, nobody searches":        {known: true},
		"the one that lives on is found":                         {searched: true},
		"the one that lives on is known, and the other is found": {known: true, searched: true, merged: true},
		"both are found": {searched: true, merged: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.Migration.OnMerged, s.Target.NoFinder = delta.Mirror, !x.searched
			group := func(id, g string) { s.Source.Edit(ticket(id), desk.Fields{desk.Group: {g}}) }
			support := delta.Request{Kind: delta.Delta, Window: "support"}
			owner, a, b := s.ticket("owner"), s.ticket("a", "of a"), s.ticket("b", "of b")
			s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {a}})
			if group(a, "Sales"); !x.known {
				group(b, "Sales")
			}
			run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
			day := s.Store.Snapshot()
			s.Wait(time.Hour)
			if group(b, "Support"); x.merged {
				group(a, "Support")
			}
			run(t, s.World, support)
			s.Store.Restore(day)
			s.Restart()
			s.Wait(time.Hour)
			group(a, "Sales")
			group(b, "Sales")
			run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support", Restart: true, Adopt: true})
			s.Wait(time.Hour)
			s.Source.Join(ticket(a), ticket(b))
			s.Wait(time.Minute)
			looked := map[desk.Ref]int{}
			s.Target.Fail = func(op string, ref desk.Ref) error {
				if op != "find" || looked[ref] == 2 { // both that the source lists come to it
					return nil
				}
				looked[ref]++
				return &desk.Error{Op: op, Class: desk.ErrTransient}
			}
			run(t, s.World, support)
			run(t, s.World, support)
			to, thread := b, []string{"of b", "of a"}
			if x.merged {
				to, thread = a, []string{"of a", "of b"} // its own ticket, until they are one
			}
			s.field(owner, desk.LinkRefersTo, "[ticket/"+to+"]")
			s.Wait(time.Hour)
			group(b, "Support")
			run(t, s.World, support)
			s.absent(a)
			s.thread(b, thread...)
			s.nothingHeld()
		})
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

// One reading shows that a ticket which never moved was deleted, a replica still shows it: it is not made.
func TestRaceReplicaBeforeDeletion(t *testing.T) {
	s := newStage(t)
	s.Source.ListLag = time.Minute
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	id := s.ticket("one")
	s.Wait(2 * time.Second)
	s.Source.Remove(ticket(id))
	run(t, s.World, mainDelta)
	s.Source.Stale = 1
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	if all := s.Target.Look()["ticket/"+id]; len(all) > 0 {
		t.Errorf("made: %+v", all)
	}
}

// A ticket outside of the scope is merged into one that is in the target, before anybody waits for it. A link that comes later leads
// to that one.
func TestRaceLinkToArrivedAs(t *testing.T) {
	s := newStage(t)
	s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	outside, there := s.ticket("outside"), s.ticket("there")
	s.Source.Edit(ticket(outside), desk.Fields{desk.Group: {"Elsewhere"}})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(there), desk.Fields{desk.Group: {"Elsewhere"}})
	s.Source.Join(ticket(outside), ticket(there))
	run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	owner := s.ticket("owner")
	s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {outside}})
	run(t, s.World, mainDelta)
	s.field(owner, desk.LinkRefersTo, "[ticket/"+there+"]")
}

// What people did to a ticket is written again as it was when an entry arrives for another ticket that they merged into it. A
// write that is then cut off does not take that for the work of the migration, though as many tickets were merged in the source.
func TestRacePutBackForStrangers(t *testing.T) {
	s := newStage(t)
	s.Target.NoMarkers, s.Target.TellsTouched = true, true
	s.Target.Meddle = func(f desk.Fields) { f[desk.Status] = desk.Value{"open"} }
	a, other := s.ticket("a"), s.ticket("other")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Join(ticket(s.ticket("young")), ticket(a))
	run(t, s.World, mainDelta)
	s.Target.Join(s.there(other), s.there(a))
	s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}})
	s.Wait(time.Hour)
	s.say(other, "more")
	run(t, s.World, mainDelta)
	s.field(a, desk.Status, "[rejected]")
	s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"two"}})
	lose(t, s.Target, "apply", nil)
	run(t, s.World, mainDelta)
	run(t, s.World, mainDelta)
	s.field(a, desk.Status, "[rejected]")
	s.field(a, desk.Subject, "[two]")
}

// A ticket waits for its link in the scope of a window that only creates. When the other end comes back, the window that updates it
// draws the link.
func TestRaceLinkInCreatingScope(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnDeleted = delta.Mirror
	s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateOnly}
	other, owner := s.ticket("other"), s.ticket("owner")
	s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {other}})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Remove(ticket(other))
	run(t, s.World, mainDelta)
	s.Source.Restore(ticket(other)) // it wakes those who wait in this scope
	run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	s.Source.Remove(ticket(other))
	run(t, s.World, mainDelta)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Source.Restore(ticket(other))
	run(t, s.World, mainDelta)
	run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
	run(t, s.World, mainDelta)
	s.field(owner, desk.LinkRefersTo, "[ticket/"+other+"]")
}

// The target's people merge or delete a ticket, then it gets a link in the source, and the other end of that is merged there into one
// that keeps a ticket of its own: the link leads elsewhere now, and a census knows that nobody has missed anything.
func TestRaceLinkOfMergedThere(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		s := newStage(t)
		s.Migration.OnMerged, s.Migration.OnTargetGone = delta.Close, delta.IgnoreGone
		owner, other, a, b := s.ticket("owner"), s.ticket("other"), s.ticket("a"), s.ticket("b")
		full(t, s.World)
		s.Wait(time.Hour)
		if deleted {
			s.Target.Remove(s.there(owner))
		} else {
			s.Target.Join(s.there(owner), s.there(other))
		}
		s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {a}})
		run(t, s.World, mainDelta)
		s.Wait(time.Hour)
		s.Source.Join(ticket(a), ticket(b))
		run(t, s.World, mainDelta)
		if missed, _ := s.census(census); len(missed) > 0 {
			t.Errorf("deleted %t: the census misses %q", deleted, missed)
		}
	}
}

// The same, and the merge is taken back: the link leads again where it led before people deleted the ticket.
func TestRaceLinkOfDeletedThereAgain(t *testing.T) {
	s := newStage(t)
	s.Migration.OnMerged, s.Migration.OnTargetGone = delta.Close, delta.IgnoreGone
	owner, a, b := s.ticket("owner"), s.ticket("a", "of a"), s.ticket("b", "of b")
	s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {a}})
	full(t, s.World)
	s.delta()
	s.field(owner, desk.LinkRefersTo, "[ticket/"+a+"]")
	s.Wait(time.Hour)
	s.Target.Remove(s.there(owner))
	s.Source.Join(ticket(a), ticket(b))
	run(t, s.World, mainDelta)
	s.say(owner, "more")
	run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	s.Source.Part(ticket(a))
	run(t, s.World, mainDelta)
	if missed, _ := s.census(census); len(missed) > 0 {
		t.Errorf("the census misses %q", missed)
	}
}

// The same, and the one into which the other end is merged does not move: no link is left.
func TestRaceLinkOfMergedThereLeft(t *testing.T) {
	s := newStage(t)
	s.Migration.OnMerged = delta.Close
	owner, other, a := s.ticket("owner"), s.ticket("other"), s.ticket("a")
	support := delta.Request{Kind: delta.Delta, Window: "support"}
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Target.Join(s.there(owner), s.there(other))
	s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {a}})
	run(t, s.World, support)
	s.Wait(time.Hour)
	b := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Sales"}})
	s.Source.Join(ticket(a), ticket(b))
	run(t, s.World, support)
	if missed, _ := s.census(delta.Request{Kind: delta.Census, Scope: "support"}); len(missed) > 0 {
		t.Errorf("the census misses %q", missed)
	}
}

// A ticket that is linked to and never moved is merged into one that the source then deletes. That one comes back into another scope: the
// link leads there.
func TestRaceLinkToMergedIntoGone(t *testing.T) {
	s := newStage(t)
	support := delta.Request{Kind: delta.Delta, Window: "support"}
	b, owner := s.ticket("b", "of b"), s.ticket("owner")
	a := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"a"}, desk.Status: {"open"}, desk.Group: {"Sales"}})
	s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {a}})
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	s.Source.Remove(ticket(b))
	run(t, s.World, support)
	s.Wait(time.Hour)
	s.Source.Restore(ticket(b))
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	run(t, s.World, support)
	run(t, s.World, support)
	s.field(owner, desk.LinkRefersTo, "[ticket/"+b+"]")
}

// Whoever carries a merge over dies before he has told those whose links wait for the merged ticket.
func TestRaceMergedAwaitedCut(t *testing.T) {
	var all int
	for n := 1; n == 1 || n <= all; n++ {
		s := newStage(t)
		s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateUpdate}
		b := s.ticket("b", "of b")
		owner := s.ticket("owner")
		full(t, s.World)
		s.Wait(time.Hour)
		a := s.ticket("a", "of a")
		s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {a}})
		s.Target.Fail = func(op string, ref desk.Ref) error {
			if op == "create" && ref.ID == a {
				return &desk.Error{Op: op, Class: desk.ErrRejected}
			}
			return nil
		}
		run(t, s.World, mainDelta)
		s.Target.Fail = nil
		s.Wait(time.Hour)
		s.Source.Join(ticket(a), ticket(b))
		before := s.Effects.Count()
		if n > 0 {
			s.Effects.Cuts = []deltatest.Cut{{Effect: before + n}}
		}
		run(t, s.World, mainDelta)
		s.delta()
		s.delta()
		s.field(owner, desk.LinkRefersTo, "[ticket/"+b+"]")
		if t.Failed() {
			t.Errorf("cut at %d: %s", n, s.Effects.Names[before+n-1])
			return
		}
		if all = 60; s.Restarts == 0 {
			return
		}
	}
}

// A ticket that was merged is carried out with the one that lives on; cut off before its outcome, the next delivery says the same.
func TestRaceMergedOutcome(t *testing.T) {
	play := func(cuts ...deltatest.Cut) (*stage, string, string) {
		s := newStage(t)
		full(t, s.World)
		s.Wait(time.Hour)
		a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
		s.Wait(time.Minute)
		s.Source.Join(ticket(a), ticket(b))
		s.Effects.Cuts = cuts
		return s, a, b
	}
	s, _, b := play()
	want := reportOf(t, s.World, run(t, s.World, mainDelta).ID).Counts
	for i, name := range s.Effects.Names {
		if name != "put led/acme/ticket/"+b+" row" {
			continue
		}
		s, _, _ := play(deltatest.Cut{Effect: i + 1, After: true})
		if got := reportOf(t, s.World, run(t, s.World, mainDelta).ID).Counts; got != want {
			t.Errorf("cut after %d: %+v, want %+v", i+1, got, want)
		}
	}
}

// The target of the survivor is made again while a create of the one that was merged into it is open.
func TestRaceMadeAgainBesideOpenCreate(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnTargetGone = delta.RecreateGone
	full(t, s.World)
	b := s.ticket("b", "of b")
	s.delta()
	s.Wait(time.Hour)
	a := s.ticket("a", "of a")
	s.Wait(time.Minute)
	lost := false
	s.Target.Lose = func(op string, ref desk.Ref) error {
		if op != "create" || ref != ticket(a) || lost {
			return nil
		}
		lost = true
		s.Source.Revise(b, 0, func(en *desk.Entry) { en.At = s.Clock().Add(time.Hour) })
		s.Source.Join(ticket(a), ticket(b))
		s.Target.Remove(s.there(b))
		return noAnswer()
	}
	s.delta()
	s.delta()
	entries := map[string]int{}
	for _, all := range s.Target.Look() {
		for _, seen := range all {
			for _, en := range seen.Entries {
				entries[en[strings.LastIndex(en, " of ")+1:]]++
			}
		}
	}
	if entries["of a"] != 1 || entries["of b"] != 1 || !lost {
		t.Errorf("entries in the target: %v", entries)
	}
}

// The answer to closing the ticket of a merged one is lost, and the source takes the merge back.
func TestRaceUnmergedAfterLostClose(t *testing.T) {
	s := newStage(t)
	s.Migration.OnMerged, s.Migration.ClosedStatus = delta.Close, "closed"
	a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	tid := s.there(a)
	lost := false
	s.Target.Lose = func(op string, ref desk.Ref) error {
		if op == "apply" && ref == tid && !lost {
			lost = true
			return noAnswer()
		}
		return nil
	}
	s.delta()
	s.field(a, desk.Status, "[closed]")
	s.Source.Part(ticket(a))
	s.delta()
	if !lost {
		t.Error("no answer was lost")
	}
	s.field(a, desk.Status, "[open]")
}

// A revision loses its answer, the source takes it back, and merges the ticket before anybody has looked: what the merged thread says is
// no edit of people's.
func TestRaceRevisedThenMerged(t *testing.T) {
	s := newStage(t)
	a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
	s.full()
	s.Source.Revise(a, 0, func(en *desk.Entry) { en.Body = "changed" })
	lose(t, s.Target, "revise", func() {
		s.Wait(time.Second)
		s.Source.Revise(a, 0, func(en *desk.Entry) { en.Body = "a1" })
		s.Source.Join(ticket(a), ticket(b))
	})
	s.delta()
	s.delta()
	s.thread(b, "a1", "b1")
	s.nothingHeld()
}

// A write loses its answer, and the source merges the ticket, in a target that cannot: its own ticket there is closed. When the source
// takes it out again, and the change back, what was written then is not people's.
func TestRaceWrittenThenMergedApart(t *testing.T) {
	s := newStage(t)
	s.Target.NoMerger = true
	a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
	s.full()
	s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"two"}})
	lose(t, s.Target, "apply", func() {
		s.Wait(time.Second)
		s.Source.Join(ticket(a), ticket(b))
	})
	s.delta()
	s.delta()
	s.field(a, desk.Subject, "[two]")
	s.Source.Part(ticket(a))
	s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"a"}})
	s.delta()
	s.field(a, desk.Subject, "[a]")
	s.nothingHeld()
}

// The process dies just after the ledger knows that a ticket arrived, and the run is cancelled: the link that waits for it is drawn
// by the next delta all the same.
func TestRaceLinkBehindCancelled(t *testing.T) {
	play := func(cuts ...deltatest.Cut) (*stage, string, string) {
		s := newStage(t)
		full(t, s.World)
		s.Wait(time.Hour)
		owner := s.ticket("owner")
		late := s.ticket("late")
		s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {late}})
		s.Wait(time.Minute)
		s.Effects.Cuts = cuts
		r, _, err := s.Engine().Start(ctx, mainDelta)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.World.Run(mainDelta, func() {
			if s.Restarts == 1 {
				if err := s.Engine().Cancel(ctx, r.ID, "the operator"); err != nil {
					t.Error(err)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		return s, owner, late
	}
	s, _, late := play()
	last := 0
	for i, name := range s.Effects.Names {
		if name == "put led/acme/ticket/"+late+" row" {
			last = i + 1
		}
	}
	s, owner, late := play(deltatest.Cut{Effect: last, After: true})
	if s.Restarts != 1 {
		t.Error("nobody died")
	}
	s.Wait(time.Hour)
	s.delta()
	s.delta()
	s.field(owner, desk.LinkRefersTo, "[ticket/"+late+"]")
}

// A ticket that was merged again and again.
func TestRaceLinkThroughMerges(t *testing.T) {
	s := newStage(t)
	first := s.ticket("t0", "of 0")
	owner := s.ticket("owner")
	s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {first}})
	full(t, s.World)
	last := first
	for n := range 12 {
		next := s.ticket(fmt.Sprint("t", n+1), fmt.Sprint("of ", n+1))
		s.delta()
		s.Source.Join(ticket(last), ticket(next))
		s.delta()
		last = next
	}
	s.Source.Edit(ticket(owner), desk.Fields{desk.Subject: {"two"}})
	s.delta()
	s.field(owner, desk.LinkRefersTo, "[ticket/"+last+"]")
}

// A replica shows a ticket on its own again, just while its merge is being carried over; for the first time, or after one that the target
// refused and the source took back.
func TestRaceReplicaWhileMerging(t *testing.T) {
	for _, again := range []bool{false, true} {
		s := newStage(t)
		s.Target.NoMarkers = true
		s.Source.ListLag = time.Minute
		a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
		full(t, s.World)
		run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
		ta := s.there(a)
		if again {
			s.Wait(time.Hour)
			s.Source.Join(ticket(a), ticket(b))
			s.Target.Fail = func(op string, ref desk.Ref) error {
				if op == "read" && ref == ta {
					return &desk.Error{Op: op, Class: desk.ErrRejected}
				}
				return nil
			}
			s.delta()
			run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
			s.Target.Fail = nil
			s.Source.Part(ticket(a))
			s.delta()
			run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
		}
		s.Wait(time.Hour)
		s.say(a, "more")
		s.Wait(2 * time.Second)
		s.Source.Join(ticket(a), ticket(b))
		once := false
		s.Target.Fail = func(op string, ref desk.Ref) error {
			if op != "read" || ref != ta || once {
				return nil
			}
			once = true
			s.Source.Stale = 1
			e := s.Engine()
			r, _, err := e.Start(ctx, delta.Request{Kind: delta.Delta, Window: "support"})
			if err == nil {
				_, err = e.Step(ctx, r.ID)
			}
			if err != nil {
				t.Fatal(err)
			}
			e.Work(ctx, ctx, []delta.Message{{Migration: "acme", Run: r.ID, Page: 0, Seq: 0, Sent: s.Clock().UnixMilli()}})
			if s.Source.Stale != 0 {
				t.Error("nobody asked the replica")
			}
			return nil
		}
		run(t, s.World, mainDelta)
		s.Target.Fail = nil
		s.Source.Stale = 0
		s.delta()
		s.thread(b, "of a", "of b", "more")
	}
}

// The ledger is of an earlier day than a ticket that the source has merged since.
func TestRaceRestoredMerge(t *testing.T) {
	for _, young := range []bool{false, true} { // is the one that lives on as new?
		s := newStage(t)
		b := ""
		if !young {
			b = s.ticket("b", "of b")
		}
		full(t, s.World)
		s.Wait(time.Hour)
		day := s.Store.Snapshot()
		a := s.ticket("a", "of a")
		if s.delta(); young {
			b = s.ticket("b", "of b")
		}
		s.Store.Restore(day)
		s.Restart()
		s.Wait(time.Hour)
		s.Source.Join(ticket(a), ticket(b))
		run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
		s.delta()

		if s.absent(a); young {
			s.thread(b, "of a", "of b")
		} else {
			s.thread(b, "of b", "of a")
		}
	}
}

// A ticket was merged into one outside of the scope, which came in later with all of the thread, and the ledger is of the day before. Both
// have a ticket of their own in the target, as before: merged now, the entry would be there twice, and a redaction would reach only one.
func TestRaceRestoredMergeApart(t *testing.T) {
	for _, known := range []bool{true, false} { // does the ledger know the ticket that was merged?
		s := newStage(t)
		s.Migration.OnMerged = delta.Mirror
		restarted := delta.Request{Kind: delta.Full, Scope: "support", Restart: true}
		support := delta.Request{Kind: delta.Delta, Window: "support"}
		b := s.ticket("b", "of b")
		s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
		run(t, s.World, restarted)
		day := s.Store.Snapshot()
		s.Wait(time.Hour)
		a := s.ticket("a", "of a")
		run(t, s.World, support)
		if known {
			day = s.Store.Snapshot()
		}
		s.Wait(time.Hour)
		s.Source.Join(ticket(a), ticket(b))
		run(t, s.World, support)
		s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Support"}})
		run(t, s.World, support)
		s.thread(a, "of a")
		s.thread(b, "of b", "of a")
		s.Store.Restore(day)
		s.Restart()
		s.Wait(time.Hour)
		restarted.Adopt, restarted.Dry = true, true
		for _, x := range reportOf(t, s.World, run(t, s.World, restarted).ID).Would {
			t.Errorf("a rehearsal says of %s: %s", x.Record, x.What)
		}
		restarted.Dry = false
		run(t, s.World, restarted)
		s.thread(b, "of b", "of a")
		s.Source.Redact(b, 1)
		run(t, s.World, support)
		s.thread(a, takenText)
		s.thread(b, "of b", "(redacted)")
		s.nothingHeld()
	}
}

// A create is open, and the source merges the ticket into one that does not move; the policy leaves such tickets alone.
func TestRaceOpenCreateMergedIgnored(t *testing.T) {
	s := newStage(t)
	s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	s.Migration.OnMerged = delta.Ignore
	out := s.ticket("out", "of out")
	s.Source.Edit(ticket(out), desk.Fields{desk.Group: {"Sales"}})
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
	s.Source.Join(ticket(a), ticket(out))
	s.delta()
	if x, err := s.Engine().Explain(ctx, ticket(a)); err != nil || !x.Busy.IsZero() || x.Target == "" {
		t.Errorf("ticket %s is %+v, %v", a, x, err)
	}
}

// A question is written down, and the process dies before the ledger knows; then the source merges the ticket. Nothing of it is asked
// any more.
func TestRaceHeldOfMerged(t *testing.T) {
	play := func(cuts ...deltatest.Cut) (s *stage, b string, held int) {
		s = newStage(t)
		a := s.ticket("a", "of a")
		b = s.ticket("b", "of b")
		full(t, s.World)
		s.Wait(time.Hour)
		s.Target.Edit(s.there(a), desk.Fields{desk.Subject: {"theirs"}})
		s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"ours"}})
		s.Effects.Cuts = cuts
		joined := false
		if _, err := s.Run(mainDelta, func() {
			if s.Restarts == 1 && !joined {
				joined = true
				s.Source.Join(ticket(a), ticket(b))
			}
		}); err != nil {
			t.Fatal(err)
		}
		held = slices.Index(s.Effects.Names, "put held/acme ticket/"+a) + 1
		return s, b, held
	}
	_, _, held := play()
	s, b, _ := play(deltatest.Cut{Effect: held, After: true})
	if s.Restarts != 1 {
		t.Error("nobody died")
	}
	s.delta()
	s.delta()
	s.thread(b, "of a", "of b")
	s.nothingHeld()
}

// In such a source a ticket is merged into one that is deleted, be that in the target or as new as all this.
func TestRaceMergedThenDeleted(t *testing.T) {
	for _, young := range []bool{true, false} {
		s := newStage(t)
		s.Source.Purges = true
		s.Migration.OnDeleted = delta.Close
		a, b := s.ticket("a", "of a"), ""
		if !young {
			b = s.ticket("b", "of b")
		}
		full(t, s.World)
		s.Wait(time.Hour)
		if young {
			b = s.ticket("b", "of b")
		}
		s.Source.Join(ticket(a), ticket(b))
		s.Source.Remove(ticket(b))
		s.delta()
		if rep := s.delta(); rep.Counts.Failed > 0 || s.due() > 0 {
			t.Errorf("young=%v: %+v, %d due", young, rep.Counts, s.due())
		}
		s.field(a, desk.Status, "[resolved]")
		if young {
			s.absent(b)
		} else {
			s.field(b, desk.Status, "[resolved]")
		}
		s.Source.Restore(ticket(b))
		s.delta()
		s.thread(b, "of a", "of b")
	}
}

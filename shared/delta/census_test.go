package delta_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

var census = delta.Request{Kind: delta.Census, Scope: "all"}

// census runs one, wants that nobody wrote to the target and that no cutoff moved, and returns which records it calls missed.
func (s *stage) census(q delta.Request) (missed []string, rep report.Report) {
	s.t.Helper()
	s.Wait(time.Hour)
	cutoffs := func() (out []string) {
		o, err := s.Engine().Status(ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, w := range o.Windows {
			out = append(out, w.Name+" "+w.Cutoff)
		}
		return out
	}
	writes, before := s.Target.Writes(), cutoffs()
	rep = reportOf(s.t, s.World, run(s.t, s.World, q).ID)
	if n := s.Target.Writes() - writes; n != 0 {
		s.t.Errorf("a %s wrote %d times to the target", q.Kind, n)
	}
	same(s.t, "cutoffs after a "+string(q.Kind), before, cutoffs())
	for _, x := range rep.Exceptions {
		if !strings.HasPrefix(x.Reason, "missed update: ") {
			s.t.Errorf("%s of %s, which is no missed update: %s", x.Outcome, x.Record, x.Reason)
		}
		missed = append(missed, strings.TrimPrefix(x.Record, "ticket/"))
		told, err := s.Engine().Explain(ctx, ticket(missed[len(missed)-1]))
		if err != nil {
			s.t.Fatal(err)
		}
		if i := slices.IndexFunc(told.Looks, func(l delta.Look) bool { return l.Run == rep.Run }); q.Kind == delta.Census && !q.Dry &&
			(i < 0 || told.Looks[i].Found != x.Reason || !told.Looks[i].Started.Equal(rep.Started)) {
			s.t.Errorf("explain does not tell what the census said of %s: %+v", x.Record, told.Looks)
		}
	}
	slices.Sort(missed)
	return missed, rep
}

func (s *stage) due() int {
	s.t.Helper()
	o, err := s.Engine().Status(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	return o.Due["all"]
}

// What the source's feed never said is found by a census, in either direction, and carried over by the delta that follows.
func TestCensus(t *testing.T) {
	type scene struct {
		*stage
		a, b string
		made string
	}
	for _, c := range []struct {
		name   string
		set    func(*scene) // before the full run
		happen func(*scene) // behind the feed's back
		missed func(*scene) []string
		check  func(*scene) // after the delta
	}{
		{
			name: "nothing", happen: func(*scene) {}, missed: func(*scene) []string { return nil },
			check: func(s *scene) { s.thread(s.a, "one"); s.thread(s.b, "two") },
		},
		{
			name:   "a field",
			happen: func(s *scene) { s.Source.Edit(ticket(s.a), desk.Fields{desk.Status: {"stalled"}}) },
			missed: func(s *scene) []string { return []string{s.a} },
			check:  func(s *scene) { s.field(s.a, desk.Status, "[stalled]") },
		},
		{
			name:   "an entry",
			happen: func(s *scene) { s.Source.Say(s.a, true, customer, "unheard", nil) },
			missed: func(s *scene) []string { return []string{s.a} },
			check:  func(s *scene) { s.thread(s.a, "one", "unheard") },
		},
		{
			name:   "a new ticket",
			happen: func(s *scene) { s.made = s.ticket("new", "hello") },
			missed: func(s *scene) []string { return []string{s.made} },
			check:  func(s *scene) { s.thread(s.made, "hello") },
		},
		{
			name:   "a deletion that the source still shows",
			set:    func(s *scene) { s.Migration.OnDeleted = delta.Close },
			happen: func(s *scene) { s.Source.Remove(ticket(s.a)) },
			missed: func(s *scene) []string { return []string{s.a} },
			check:  func(s *scene) { s.field(s.a, desk.Status, "[resolved]") },
		},
		{
			name:   "a ticket that is gone from the source",
			set:    func(s *scene) { s.Source.Purges, s.Migration.OnDeleted = true, delta.Close },
			happen: func(s *scene) { s.Source.Remove(ticket(s.a)) },
			missed: func(s *scene) []string { return []string{s.a} },
			check:  func(s *scene) { s.field(s.a, desk.Status, "[resolved]") },
		},
		{
			name:   "a merge",
			happen: func(s *scene) { s.Source.Join(ticket(s.a), ticket(s.b)) },
			missed: func(s *scene) []string { return []string{s.a, s.b} },
			check:  func(s *scene) { s.thread(s.b, "one", "two"); s.absent(s.a) },
		},
		{
			name:   "a ticket that has come back",
			set:    func(s *scene) { s.Migration.OnDeleted = delta.Close },
			happen: func(s *scene) { s.Source.Restore(ticket(s.made)) },
			missed: func(s *scene) []string { return []string{s.made} },
			check:  func(s *scene) { s.field(s.made, desk.Status, "[open]") },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &scene{stage: newStage(t)}
			if c.set != nil {
				c.set(s)
			}
			s.a, s.b = s.ticket("a", "one"), s.ticket("b", "two")
			s.made = s.ticket("c")
			s.full()
			s.Wait(time.Hour)
			s.Source.Remove(ticket(s.made)) // which the feed tells
			s.delta()
			s.Wait(time.Hour)
			s.Source.Unseen(func() { c.happen(s) })
			s.delta() // hears nothing of it
			want := c.missed(s)
			got, rep := s.census(census)
			same(t, "missed", want, got)
			if n := s.due(); n != len(want) {
				t.Errorf("%d records are due, want %d: %+v", n, len(want), rep.Counts)
			}
			if len(want) > 0 {
				if rep.Status != string(delta.Exceptions) || !strings.HasPrefix(rep.Why, fmt.Sprintf("%d missed %s,", len(want), report.Plural(len(want), "update", "updates"))) {
					t.Errorf("the census ended %s: %s", rep.Status, rep.Why)
				}
			} else if rep.Status != string(delta.Verified) {
				t.Errorf("the census ended %s: %s", rep.Status, rep.Why)
			}
			s.delta()
			c.check(s)
			s.verified(0)
			if got, rep = s.census(census); len(got) > 0 || s.due() > 0 {
				t.Errorf("after the delta the next census still misses %q: %+v", got, rep.Counts)
			}
		})
	}
}

// A ticket is deleted behind the feed's back that is due all the time, because something of it is held or has changed before: no delta can
// read it any more, and each one fails at it. A census knows that it is gone.
func TestCensusOfDueDeleted(t *testing.T) {
	for _, held := range []bool{true, false} {
		s := newStage(t)
		s.Source.Purges, s.Migration.OnDeleted = true, delta.Close
		id := s.ticket("one", "hello")
		s.ticket("two", "hello")
		s.full()
		s.Wait(time.Hour)
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"another"}})
		if held {
			s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"an agent's"}})
			s.delta()
			s.held("subject")
		}
		s.Source.Unseen(func() { s.Source.Remove(ticket(id)) })
		if rep := s.delta(); rep.Counts.Failed != 1 || s.due() != 1 {
			t.Errorf("held=%v: %+v, %d due", held, rep.Counts, s.due())
		}
		missed, _ := s.census(census)
		same(t, "missed", []string{id}, missed)
		if rep := s.delta(); rep.Counts.Failed != 0 || s.due() != 0 {
			t.Errorf("held=%v: after the census %+v, %d due", held, rep.Counts, s.due())
		}
		s.field(id, desk.Status, "[resolved]")
		s.nothingHeld()
	}
}

// What the next delta brings in any case is not called missed: changes since the cutoff, also while the census is on; what is
// held; what failed; what is outside of the scope.
func TestCensusCriesNoWolf(t *testing.T) {
	s := newStage(t)
	calm, changed, held, failed, outside := s.ticket("calm", "one"), s.ticket("changed", "one"), s.ticket("held", "one"), s.ticket("failed", "one"), s.ticket("outside", "one")
	s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	s.Source.Edit(ticket(outside), desk.Fields{desk.Group: {"Sales"}})
	s.full()
	s.Wait(time.Hour)
	s.Source.Edit(ticket(held), desk.Fields{desk.Status: {"stalled"}})
	s.Target.Edit(s.there(held), desk.Fields{desk.Status: {"rejected"}})
	s.say(failed, "two")
	s.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "apply" && ref == s.there(failed) {
			return &desk.Error{Op: op, Class: desk.ErrRejected, Said: "no"}
		}
		return nil
	}
	s.delta()
	s.Target.Fail = nil
	due := s.due()
	s.Wait(time.Hour)
	s.say(changed, "two")
	fresh := s.ticket("fresh", "one")
	s.Source.Edit(ticket(outside), desk.Fields{desk.Subject: {"outside still"}})
	var late string
	writes := s.Target.Writes()
	r, err := s.Run(census, func() { // people go on working
		s.say(calm, "more")
		if late == "" {
			late = s.ticket("late", "one")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	rep := reportOf(t, s.World, r.ID)
	if r.Status != delta.Verified || len(rep.Exceptions) > 0 || s.Target.Writes() != writes {
		t.Errorf("ended %s (%s) with %+v and %d writes", r.Status, r.Why, rep.Exceptions, s.Target.Writes()-writes)
	}
	if n := s.due(); n != due {
		t.Errorf("%d records are due after the census, %d before", n, due)
	}
	s.delta()
	s.thread(changed, "one", "two")
	s.thread(failed, "one", "two")
	s.thread(fresh, "one")
	s.thread(late, "one")
	s.absent(outside)
	// What was read and found outside is not read again and again.
	before := s.Source.Calls["read"]
	if missed, _ := s.census(census); len(missed) > 0 {
		t.Errorf("missed: %q", missed)
	}
	first := s.Source.Calls["read"] - before
	before = s.Source.Calls["read"]
	s.census(census)
	if again := s.Source.Calls["read"] - before; again > 0 {
		t.Errorf("a census over what has not moved reads %d records, the one before %d; want none", again, first)
	}
}

// lagging is a source whose feed tells of changes late: its mark is of a while ago.
type lagging struct {
	desk.Source
	mark  func() bool
	older desk.Cursor
}

func (l *lagging) Mark(ctx context.Context) (desk.Cursor, error) {
	if l.mark() {
		return l.older, nil
	}
	return l.Source.Mark(ctx)
}

// The feed of a source is behind its listing, and a census is begun by a process whose clock is behind, and carried on by another one:
// that one waits for the feed all the same.
func TestCensusOfTwoClocks(t *testing.T) {
	s := newStage(t)
	s.Source.ListLag = 5 * time.Minute
	id := s.ticket("one", "hello")
	s.full()
	s.Wait(time.Hour)
	older, err := s.Source.AsSource().Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	until := s.Clock().Add(4 * time.Minute)
	src := &lagging{Source: s.Source.AsSource(), older: older, mark: func() bool { return s.Clock().Before(until) }}
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	late, _ := clocked(t, s.World, src, -10*time.Minute)
	r, _, err := late.Start(ctx, census)
	if err == nil {
		_, err = late.Step(ctx, r.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, inTime := clocked(t, s.World, src, 0)
	if r, err = inTime(census); err != nil || r.Status != delta.Verified {
		t.Errorf("ended %s (%s), %v", r.Status, r.Why, err)
	}
}

// A ticket gets a link to one that has not arrived, just before a census reads it: what is written does not show that. The next delta sees
// to the link all the same.
func TestCensusBeforeALink(t *testing.T) {
	s := newStage(t)
	owner := s.ticket("owner")
	s.full()
	s.Wait(time.Hour)
	other := s.ticket("other")
	s.Source.Unseen(func() { s.Source.Edit(ticket(owner), desk.Fields{desk.Subject: {"owner"}}) })
	linked := false
	s.Source.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref == ticket(owner) && !linked {
			linked = true
			s.Source.Edit(ticket(owner), desk.Fields{desk.LinkRefersTo: {other}})
			s.Wait(5 * time.Second)
		}
		return nil
	}
	if missed, _ := s.census(census); len(missed) > 0 || !linked {
		t.Errorf("missed %v; it got its link: %v", missed, linked)
	}
	s.delta()
	s.field(owner, desk.LinkRefersTo, "[ticket/"+other+"]")
}

// A source account that has lost a right makes everything look deleted. Nothing is taken for deleted then.
func TestCensusOfBlindAccount(t *testing.T) {
	s := newStage(t)
	s.Source.Purges, s.Migration.OnDeleted = true, delta.Close
	s.Migration.ThresholdCount, s.Migration.ThresholdShare = 2, 0.1
	var ids []string
	for i := range 5 {
		ids = append(ids, s.ticket(fmt.Sprint(i), "one"))
	}
	s.full()
	s.Wait(time.Hour)
	s.Source.Unseen(func() {
		for _, id := range ids[:3] {
			s.Source.Remove(ticket(id))
		}
	})
	s.Wait(time.Hour)
	r := run(t, s.World, census)
	if r.Status != delta.Stopped || !strings.Contains(r.Why, "3 migrated tickets are neither listed nor readable") || s.due() != 0 {
		t.Errorf("ended %s with %d due: %s", r.Status, s.due(), r.Why)
	}
	s.delta()
	for _, id := range ids {
		s.field(id, desk.Status, "[open]")
	}
}

// Censuses have windows of their own, which no delta uses.
func TestCensusWindow(t *testing.T) {
	s := newStage(t)
	s.Migration.Windows["count"] = delta.Window{Scope: "all", Kind: delta.Census}
	a := s.ticket("a", "one")
	_, err := s.Run(delta.Request{Kind: delta.Census}, nil)
	refused(t, err, "no full run of scope \"all\" has finished yet")
	s.full()
	s.Wait(time.Hour)
	s.Source.Unseen(func() { s.say(a, "two") })
	missed, rep := s.census(delta.Request{Kind: delta.Census})
	same(t, "missed", []string{a}, missed)
	if rep.Window != "count" || rep.Scope != "all" {
		t.Errorf("window %q, scope %q", rep.Window, rep.Scope)
	}
	for _, c := range []struct {
		q     delta.Request
		words string
	}{
		{delta.Request{Kind: delta.Delta, Window: "count"}, "is a census"},
		{delta.Request{Kind: delta.Census, Window: "main"}, "windows of kind census: count"},
		{delta.Request{Kind: delta.Census, Mode: delta.CreateOnly}, "has no mode"},
	} {
		_, _, err := s.Engine().Start(ctx, c.q)
		refused(t, err, c.words)
	}
	refused(t, s.Engine().Extend(ctx, "count", s.Clock().Add(time.Hour)), "no window \"count\" whose deltas have a deadline")
	o, err := s.Engine().Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(o.Windows, func(w delta.WindowStatus) bool { return w.Name == "count" })
	if w := o.Windows[i]; w.Kind != delta.Census || w.Cutoff != "" || !w.Deadline.IsZero() || w.LastOK.IsZero() {
		t.Errorf("%+v: a census has no cutoff and no deadline, and this one has ended well", w)
	}
}

// A dry census says what it would, and makes nothing due.
func TestCensusDry(t *testing.T) {
	s := newStage(t)
	a := s.ticket("a", "one")
	s.full()
	s.Wait(time.Hour)
	s.Source.Unseen(func() { s.say(a, "two") })
	q := census
	q.Dry = true
	missed, _ := s.census(q)
	same(t, "missed", []string{a}, missed)
	if n := s.due(); n != 0 {
		t.Errorf("%d due after a rehearsal", n)
	}
}

// A source that lists what it cannot read yet is waited for, and a record that cannot be read is not called missed.
func TestCensusUnreadable(t *testing.T) {
	s := newStage(t)
	a := s.ticket("a", "one")
	s.full()
	s.Wait(time.Hour)
	s.Source.Unseen(func() { s.say(a, "two") })
	s.Source.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref == ticket(a) {
			return &desk.Error{Op: op, Class: desk.ErrRejected, Said: "no"}
		}
		return nil
	}
	s.Wait(time.Hour)
	r := run(t, s.World, census)
	if r.Status != delta.Exceptions || r.Why != "0 missed updates, 1 record could not be looked at" || s.due() != 0 {
		t.Errorf("ended %s (%s), %d due", r.Status, r.Why, s.due())
	}
	s.Source.Fail = nil
	if _, err := s.Run(delta.Request{Kind: delta.Census, Scope: "nobody"}, nil); !errors.As(err, new(*delta.Refusal)) {
		t.Errorf("a census of no scope: %v", err)
	}
}

// More records than any page of a census holds, with what was missed on all of them; and more that are gone than one page of
// the ledger has.
func TestCensusOfThousands(t *testing.T) {
	s := newStage(t)
	s.Source.PageSize = 700
	s.Migration.Policies.ThresholdShare, s.Migration.Policies.ThresholdCount = 0.5, 1000
	s.Source.Purges = true
	var ids []string
	for range 4_500 {
		ids = append(ids, addTicket(s.World, "one"))
	}
	full(t, s.World)
	s.Wait(time.Hour)
	var want []string
	s.Source.Unseen(func() {
		for i, id := range ids {
			switch {
			case i%1_000 == 7:
				s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
				want = append(want, id)
			case i >= 2_000 && i < 2_450:
				s.Source.Remove(ticket(id))
				want = append(want, id)
			}
		}
	})
	slices.Sort(want)
	missed, rep := s.census(census)
	same(t, "missed", want, missed)
	if rep.Counts.Listed < 4_500 {
		t.Errorf("counts %+v", rep.Counts)
	}
	run(t, s.World, mainDelta)
	if missed, _ := s.census(census); len(missed) > 0 {
		t.Errorf("still missed after the delta: %v", missed)
	}
}

// Spam that the policies leave as it is, and a source that shows nothing of what it deletes: a census finds that it is gone, and
// the policy for deletions is carried out.
func TestCensusOfDeletedSpam(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnSpam, s.Migration.Policies.OnDeleted = delta.Ignore, delta.Close
	id, other := s.ticket("one"), s.ticket("other")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Junk(ticket(id))
	run(t, s.World, mainDelta)
	s.Source.Purges = true // and it is deleted
	s.Wait(time.Hour)
	s.census(census)
	run(t, s.World, mainDelta)
	s.field(id, desk.Status, "[resolved]")
	s.field(other, desk.Status, "[open]")
}

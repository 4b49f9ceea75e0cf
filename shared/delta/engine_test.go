package delta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

var ctx = context.Background()

func world(t *testing.T) *deltatest.World {
	t.Helper()
	w := deltatest.NewWorld(migration())
	w.Laptop = true
	return w
}

func run(t *testing.T, w *deltatest.World, q delta.Request) delta.Run {
	t.Helper()
	r, err := w.Run(q, nil)
	if err != nil {
		t.Fatalf("%s run: %v", q.Kind, err)
	}
	return r
}

func reportOf(t *testing.T, w *deltatest.World, id string) report.Report {
	t.Helper()
	rep, err := w.Engine().Report(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Check(rep); err != nil {
		t.Errorf("run %s: %v", id, err)
	}
	return rep
}

func refused(t *testing.T, err error, words string) {
	t.Helper()
	var no *delta.Refusal
	if !errors.As(err, &no) || !strings.Contains(no.Why, words) {
		t.Errorf("got %v, want a refusal that says %q", err, words)
	}
}

func addTicket(w *deltatest.World, subject string) string {
	return w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {subject}, desk.Status: {"open"}, desk.Group: {"Support"}})
}

func full(t *testing.T, w *deltatest.World) {
	t.Helper()
	run(t, w, delta.Request{Kind: delta.Full, Scope: "all"})
}

var mainDelta = delta.Request{Kind: delta.Delta, Window: "main"}

// TestReferenceTime is the example of the product's documents: a full run started on 10 March at 14:00 and restarted on
// 11 March at 9:00 has 9:00 as its reference. A run that was continued keeps 14:00, so a change at 20:00 is never lost.
func TestReferenceTime(t *testing.T) {
	at := func(day, hour int) time.Time { return time.Date(2026, 3, day, hour, 0, 0, 0, time.UTC) }
	for _, tc := range []struct {
		name string
		q    delta.Request
		want time.Time // changes from here on are listed by the first delta
		// found is whether the first delta lists the change of 20:00
		found bool
	}{
		{"restart", delta.Request{Kind: delta.Full, Scope: "all", Restart: true}, at(11, 9), false},
		{"continue", delta.Request{Kind: delta.Full, Scope: "all", Continue: true}, at(10, 14), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := world(t)
			read := addTicket(w, "read before the connection broke")
			var ids []string
			for i := range 6 {
				ids = append(ids, addTicket(w, fmt.Sprint("ticket ", i)))
			}
			w.Until(at(10, 14))
			e := w.Engine()
			r, _, err := e.Start(ctx, delta.Request{Kind: delta.Full, Scope: "all"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.Step(ctx, r.ID); err != nil { // listed and dispatched
				t.Fatal(err)
			}
			if got := e.Work(ctx, ctx, []delta.Message{{Migration: "acme", Run: r.ID, Page: 0, Seq: 0}}); len(got) > 0 {
				t.Fatal(got)
			}
			w.Restart() // the connection broke

			w.Until(at(10, 20))
			w.Source.Edit(ticket(read), desk.Fields{desk.Subject: {"changed at 20:00"}})
			w.Until(at(11, 9))
			run(t, w, tc.q)
			before := reportOf(t, w, run(t, w, mainDelta).ID)
			if got := before.Counts.Listed > 0; got != tc.found {
				t.Errorf("the first delta lists the change of 20:00: %v, want %v", got, tc.found)
			}
			if got := w.Target.Look()["ticket/"+read][0].Fields[desk.Subject]; got != "[changed at 20:00]" {
				t.Errorf("the change of 20:00 is lost: the target says %s", got)
			}
			for _, id := range ids {
				if n := len(w.Target.Look()["ticket/"+id]); n != 1 {
					t.Errorf("ticket %s is %d times in the target", id, n)
				}
			}
		})
	}
}

// A delta with nothing between: no write, no file, one listing call per kind, and a report that says so.
func TestIdleDelta(t *testing.T) {
	w := world(t)
	seed(w)
	full(t, w)
	run(t, w, mainDelta)
	w.Wait(time.Hour)
	writes := w.Target.Writes()
	w.Source.Calls, w.Target.Calls = nil, nil
	effects := w.Effects.Count()
	rep := reportOf(t, w, run(t, w, mainDelta).ID)
	if rep.Counts != (report.Counts{}) || rep.Status != string(delta.Verified) {
		t.Errorf("counts %+v, status %s", rep.Counts, rep.Status)
	}
	if got := w.Target.Writes() - writes; got != 0 {
		t.Errorf("%d writes", got)
	}
	want := map[string]int{"check": 1, "mark": 1, "list": 3}
	if d := cmp.Diff(want, w.Source.Calls); d != "" {
		t.Errorf("source calls (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]int{"check": 1}, w.Target.Calls); d != "" {
		t.Errorf("target calls (-want +got):\n%s", d)
	}
	if got := w.Effects.Count() - effects; got > 5 {
		t.Errorf("%d writes of the store, want at most 5: run, lane, end of the plan, verdict, cutoff", got)
	}
}

// An agent's edit survives; where both sides changed a field it is held and everything else of the ticket goes on; the
// decision is carried out by the next run, and asked again if a side has moved since.
func TestHeldAndDecided(t *testing.T) {
	w := world(t)
	s := seed(w)
	full(t, w)
	id := ticket(s.conflict)
	tgt := ticket(w.Target.Target(id))
	w.Target.Edit(tgt, desk.Fields{desk.Status: {"resolved"}, desk.Subject: {"the agent's"}})
	w.Source.Edit(id, desk.Fields{desk.Status: {"stalled"}})
	w.Source.Say(s.conflict, true, desk.Author{Name: "Ann"}, "a new reply", nil)
	w.Wait(time.Hour)

	status := func(want string) {
		t.Helper()
		if got := w.Target.Look()[id.String()][0].Fields[desk.Status]; got != want {
			t.Errorf("status is %s, want %s", got, want)
		}
	}
	rep := reportOf(t, w, run(t, w, mainDelta).ID)
	if rep.Counts.Held != 1 || rep.Status != string(delta.Exceptions) {
		t.Fatalf("counts %+v, status %s", rep.Counts, rep.Status)
	}
	if len(rep.Exceptions) != 1 || !strings.Contains(rep.Exceptions[0].Reason, "status changed on both sides") || !strings.Contains(rep.Exceptions[0].Next, "decide ticket/"+s.conflict) {
		t.Errorf("exceptions %+v", rep.Exceptions)
	}
	if got := w.Target.Look()[id.String()][0]; len(got.Entries) != 1 || got.Fields[desk.Subject] != "[the agent's]" {
		t.Errorf("the reply did not arrive, or the agent's subject is gone: %+v", got)
	}
	status("[resolved]")

	decide := func(c delta.Choice) {
		t.Helper()
		if err := w.Engine().Decide(ctx, id, desk.Status, "", delta.Decision{Choice: c, Value: desk.Value{"rejected"}}); err != nil {
			t.Fatal(err)
		}
	}
	// The decision is about versions; when one of them moves it is asked again.
	decide(delta.ChooseSource)
	w.Target.Edit(tgt, desk.Fields{desk.Status: {"open again"}})
	if got := reportOf(t, w, run(t, w, mainDelta).ID).Counts.Held; got != 1 {
		t.Errorf("held %d, want 1: the target has moved since the decision", got)
	}
	status("[open again]")
	hs, err := w.Engine().HeldRecords(ctx)
	if err != nil || len(hs) != 1 || !hs[0].Fields[0].Again || hs[0].Fields[0].Decision != nil {
		t.Errorf("held %+v, %v: it is to be asked again", hs, err)
	}
	decide(delta.ChooseValue)
	if got := reportOf(t, w, run(t, w, mainDelta).ID).Counts; got.Held != 0 || got.Updated != 1 {
		t.Errorf("counts %+v after the decision", got)
	}
	status("[rejected]")
	if got := reportOf(t, w, run(t, w, mainDelta).ID).Counts.Planned; got != 0 {
		t.Errorf("%d planned, want 0: nothing is due any more", got)
	}
	// And the decided value is the base from now on.
	w.Source.Edit(id, desk.Fields{desk.Status: {"new status"}})
	run(t, w, mainDelta)
	status("[new status]")
}

func TestDecideKeepsTarget(t *testing.T) {
	w := world(t)
	s := seed(w)
	full(t, w)
	id := ticket(s.conflict)
	w.Target.Edit(ticket(w.Target.Target(id)), desk.Fields{desk.Status: {"resolved"}})
	w.Source.Edit(id, desk.Fields{desk.Status: {"stalled"}})
	run(t, w, mainDelta)
	if err := w.Engine().Decide(ctx, id, desk.Status, "", delta.Decision{Choice: delta.ChooseTarget}); err != nil {
		t.Fatal(err)
	}
	rep := reportOf(t, w, run(t, w, mainDelta).ID)
	if got := w.Target.Look()[id.String()][0].Fields[desk.Status]; got != "[resolved]" || rep.Counts.Held != 0 {
		t.Errorf("status %s, counts %+v", got, rep.Counts)
	}
	refused(t, w.Engine().Decide(ctx, id, desk.Status, "", delta.Decision{Choice: delta.ChooseTarget}), "nothing of ticket/"+s.conflict+" is held")
}

func TestThreshold(t *testing.T) {
	w := world(t)
	for i := range 40 {
		addTicket(w, fmt.Sprint("ticket ", i))
	}
	w.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "create" {
			return &desk.Error{Op: "create " + ref.String(), Class: desk.ErrRejected, Said: "queue is closed"}
		}
		return nil
	}
	r := run(t, w, delta.Request{Kind: delta.Full, Scope: "all"})
	if r.Status != delta.Stopped || !strings.Contains(r.Why, "threshold") {
		t.Errorf("ended %s: %s", r.Status, r.Why)
	}
	_, _, err := w.Engine().Start(ctx, mainDelta)
	refused(t, err, "no full run of scope")
	w.Target.Fail = nil
	_, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all"})
	refused(t, err, "--continue")
	r = run(t, w, delta.Request{Kind: delta.Full, Scope: "all", Continue: true})
	if r.Status != delta.Exceptions { // what failed before the stop stays in the report
		t.Errorf("continued, it ended %s: %s", r.Status, r.Why)
	}
	run(t, w, mainDelta) // brings home what had failed and is due
	if got := len(w.Target.Look()); got != 40 {
		t.Errorf("%d tickets in the target, want 40", got)
	}
}

func TestModes(t *testing.T) {
	w := world(t)
	old := addTicket(w, "old")
	full(t, w)
	w.Source.Edit(ticket(old), desk.Fields{desk.Subject: {"changed"}})
	fresh := addTicket(w, "fresh")
	w.Wait(time.Hour)
	for _, step := range []struct {
		mode                       delta.Mode
		created, updated, excluded int
	}{
		{delta.CreateOnly, 1, 0, 1},
		{delta.CreateOnly, 0, 0, 0}, // the change waits for a mode that covers it
		{delta.UpdateOnly, 0, 1, 0},
		{delta.CreateUpdate, 0, 0, 0},
	} {
		q := mainDelta
		q.Mode = step.mode
		c := reportOf(t, w, run(t, w, q).ID).Counts
		if c.Created != step.created || c.Updated != step.updated || c.Excluded != step.excluded {
			t.Errorf("mode %s: %+v, want %+v", step.mode, c, step)
		}
	}
	if w.Target.Target(ticket(fresh)) == "" || w.Target.Look()["ticket/"+old][0].Fields[desk.Subject] != "[changed]" {
		t.Error("not everything arrived")
	}
}

func TestRefusals(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	_, _, err := w.Engine().Start(ctx, mainDelta)
	refused(t, err, "no full run of scope \"all\" has finished")
	_, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Delta, Window: "nightly"})
	refused(t, err, "there is no window \"nightly\"; the migration file has main, support")
	_, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "al"})
	refused(t, err, "there is no scope \"al\"")
	_, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all", Continue: true})
	refused(t, err, "no full run of scope \"all\" to go on with")
	for _, k := range []delta.Kind{delta.Sample, delta.Verify, delta.Census, delta.Remap, delta.Undo} { // they change nothing for good
		_, _, err = w.Engine().Start(ctx, delta.Request{Kind: k, Adopt: true})
		refused(t, err, "--adopt belongs to full runs")
	}
	_, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Delta, Window: "main", Adopt: true})
	refused(t, err, "--adopt belongs to full runs: deltadesk run --kind full --restart --adopt")
	_, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Delta, Window: "main", Scope: "support"})
	refused(t, err, "--window NAME instead of --scope support; the migration file has main, support")
	if _, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all"}); err != nil {
		t.Fatal(err)
	}
	adopting := delta.Request{Kind: delta.Full, Scope: "all", Continue: true, Adopt: true}
	_, _, err = w.Engine().Start(ctx, adopting)
	refused(t, err, "began without --adopt")
	finished := run(t, w, delta.Request{Kind: delta.Full, Scope: "support"})
	_, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "support", Continue: true})
	refused(t, err, "full run "+finished.ID+" of scope \"support\" finished on")
	run(t, w, delta.Request{Kind: delta.Full, Scope: "all", Continue: true})
	_, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all"})
	refused(t, err, "--restart")

	// A deadline that has passed, and its extension.
	w.Wait(10*24*time.Hour + time.Minute)
	_, _, err = w.Engine().Start(ctx, mainDelta)
	refused(t, err, "deadline of window \"main\" passed")
	if err := w.Engine().Extend(ctx, "main", w.Clock().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	run(t, w, mainDelta)
	refused(t, w.Engine().Extend(ctx, "main", w.Clock().Add(time.Hour)), "the deadline of window \"main\" is 2026-03-30 ")

	// A scope that means something else.
	w.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
	w.Restart()
	_, _, err = w.Engine().Start(ctx, mainDelta)
	refused(t, err, "means something else")
	_, _, err = w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all", Continue: true})
	refused(t, err, "nothing to go on with; but the scope means something else since")
	full(t, w)
	run(t, w, mainDelta)

	// Other desks under the same migration.
	e, err := delta.New(delta.Config{Migration: w.Migration, SourceID: "another", TargetID: "new", Source: w.Source.AsSource(), Target: w.Target.AsTarget(),
		Rows: w.Store.Rows(), Objects: w.Store.Objects(), Queue: w.Store.Queue(), NewID: func() string { return "x" }})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = e.Start(ctx, mainDelta)
	refused(t, err, "belongs to migration acme from old to new")
}

// Whatever stops a run from starting is found out before anything is written.
func TestNothingWrittenBeforeStart(t *testing.T) {
	for op, side := range map[string]string{"check": "source", "mark": "source"} {
		t.Run(op, func(t *testing.T) {
			w := world(t)
			addTicket(w, "one")
			w.Source.Fail = func(o string, _ desk.Ref) error {
				if o == op {
					return &desk.Error{Op: o, Class: desk.ErrUnauthorized}
				}
				return nil
			}
			_, _, err := w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all"})
			if !errors.Is(err, desk.ErrUnauthorized) || !strings.Contains(err.Error(), side) {
				t.Errorf("%v", err)
			}
			if n := w.Effects.Count(); n != 0 {
				t.Errorf("%d writes before the run was found impossible: %v", n, w.Effects.Names)
			}
		})
	}
}

// An answer that is lost after the effect: looked up where the target can be searched, held as in doubt where it cannot.
func TestLostAnswers(t *testing.T) {
	lost := &desk.Error{Op: "POST", Class: desk.ErrTransient, Said: "connection reset"}
	lose := func(w *deltatest.World) {
		once := map[string]bool{}
		w.Target.Lose = func(op string, ref desk.Ref) error {
			if k := op + ref.String(); ref.Kind == desk.Ticket && !once[k] {
				once[k] = true
				return lost
			}
			return nil
		}
	}
	t.Run("searched", func(t *testing.T) {
		w := world(t)
		s := seed(w)
		lose(w)
		full(t, w)
		for ref, all := range w.Target.Look() {
			if len(all) != 1 {
				t.Errorf("%s is %d times in the target", ref, len(all))
			}
		}
		if got := len(w.Target.Look()["ticket/"+s.mail][0].Entries); got != 2 {
			t.Errorf("%d entries, want 2", got)
		}
	})
	for _, choice := range []delta.Choice{delta.ChooseLink, delta.ChooseCreate} {
		t.Run("in doubt, "+string(choice), func(t *testing.T) {
			w := world(t)
			w.Target.NoFinder = true
			id := addTicket(w, "one")
			w.Source.Say(id, true, desk.Author{Name: "Ann"}, "hello", nil)
			lose(w)
			r := run(t, w, delta.Request{Kind: delta.Full, Scope: "all"})
			rep := reportOf(t, w, r.ID)
			if rep.Counts.Held != 1 || !strings.Contains(rep.Exceptions[0].Reason, "may have been created") {
				t.Fatalf("%+v", rep)
			}
			d := delta.Decision{Choice: choice}
			if choice == delta.ChooseLink {
				d.Value = desk.Value{w.Target.Target(ticket(id))}
			}
			if err := w.Engine().Decide(ctx, ticket(id), "", "", d); err != nil {
				t.Fatal(err)
			}
			w.Target.Lose = nil
			w.Wait(time.Hour)
			if c := reportOf(t, w, run(t, w, mainDelta).ID).Counts; c.Held != 0 {
				t.Errorf("%+v", c)
			}
			want := map[delta.Choice]int{delta.ChooseLink: 1, delta.ChooseCreate: 2}[choice] // as the person decided
			all := w.Target.Look()["ticket/"+id]
			if len(all) != want {
				t.Errorf("%d times in the target, want %d", len(all), want)
			}
			if got := len(all[len(all)-1].Entries); got != 1 {
				t.Errorf("%d entries, want 1", got)
			}
		})
	}
}

// Entries of a desk that cannot show which are ours are not written again when an answer was lost.
func TestEntriesInDoubt(t *testing.T) {
	w := world(t)
	w.Target.NoMarkers = true
	id := addTicket(w, "one")
	full(t, w)
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "hello", nil)
	w.Wait(time.Hour)
	first := true
	w.Target.Lose = func(op string, ref desk.Ref) error {
		if op == "apply" && first {
			first = false
			return &desk.Error{Op: op, Class: desk.ErrTransient}
		}
		return nil
	}
	rep := reportOf(t, w, run(t, w, mainDelta).ID)
	if rep.Counts.Held != 1 || !strings.Contains(rep.Exceptions[0].Reason, "may have been added") {
		t.Fatalf("%+v", rep.Exceptions)
	}
	if err := w.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{w.Target.Target(ticket(id))}}); err != nil {
		t.Fatal(err)
	}
	if c := reportOf(t, w, run(t, w, mainDelta).ID).Counts; c.Held != 0 {
		t.Errorf("%+v", c)
	}
	if got := len(w.Target.Look()["ticket/"+id][0].Entries); got != 1 {
		t.Errorf("%d entries, want 1", got)
	}
}

func TestDryRun(t *testing.T) {
	w := world(t)
	seed(w)
	dry := reportOf(t, w, run(t, w, delta.Request{Kind: delta.Full, Scope: "all", Dry: true}).ID)
	if w.Target.Writes() != 0 {
		t.Errorf("%d writes", w.Target.Writes())
	}
	real := reportOf(t, w, run(t, w, delta.Request{Kind: delta.Full, Scope: "all"}).ID)
	if dry.Counts.Created != real.Counts.Created || dry.Counts.Planned != real.Counts.Planned-1 { // a link is drawn afterwards
		t.Errorf("dry %+v, real %+v", dry.Counts, real.Counts)
	}
}

// What a rehearsal says of each record is what the run then does, and its report lists it.
func TestRehearsed(t *testing.T) {
	gone := func(p delta.OnGone, d *delta.Decision) func(*stage, string, string) {
		return func(s *stage, a, _ string) {
			s.Migration.OnTargetGone = p
			s.Restart()
			s.Target.Remove(s.there(a))
			s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"two"}})
			if d == nil {
				return
			}
			s.delta()
			if d.Choice == delta.ChooseLink {
				d.Value = desk.Value{s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"two"}, desk.Status: {"open"}})}
			}
			if err := s.Engine().Decide(ctx, ticket(a), "", "", *d); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		happen func(s *stage, a, b string)
		want   []string // with %a and %b for the ids
		why    string
	}{
		{"a field and a reply", func(s *stage, a, _ string) {
			s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"two"}})
			s.say(a, "second", "third")
		}, []string{"ticket/%a: would set 1 field, add 2 entries"}, ""},
		{"a revision", func(s *stage, a, _ string) { s.Source.Redact(a, 0) }, []string{"ticket/%a: would revise 1 entry"}, ""},
		{"a merge", func(s *stage, a, b string) { s.Source.Join(ticket(a), ticket(b)) }, []string{"ticket/%a: would have ticket/%a merged into it"}, ""},
		{"a merge and a reply", func(s *stage, a, b string) {
			s.Source.Join(ticket(a), ticket(b))
			s.say(b, "second")
		}, []string{"ticket/%a: would have ticket/%a merged into it, add 1 entry"}, ""},
		{"a merge into a new ticket", func(s *stage, a, _ string) { s.Source.Join(ticket(a), ticket(s.ticket("new", "c1"))) },
			[]string{"ticket/105: would be created, have ticket/%a merged into it"}, ""},
		{"merged by the target's people already", func(s *stage, a, b string) {
			s.Target.Join(s.there(a), s.there(b))
			s.Source.Join(ticket(a), ticket(b))
		}, nil, ""},
		{"gone, recreate", gone(delta.RecreateGone, nil), []string{"ticket/%a: would be created again: it was deleted in the target"}, ""},
		{"gone, ignore", gone(delta.IgnoreGone, nil), nil, ""},
		{"gone, hold", gone(delta.HoldGone, nil), nil, "1 record would be held for a decision, 0 failed; none is due because of this"},
		{"gone, to be made again", gone(delta.HoldGone, &delta.Decision{Choice: delta.ChooseCreate}), []string{"ticket/%a: would be created again: it was deleted in the target"}, ""},
		{"gone, to be left so", gone(delta.HoldGone, &delta.Decision{Choice: delta.ChooseTarget}), nil, ""},
		{"gone, is another one", gone(delta.HoldGone, &delta.Decision{Choice: delta.ChooseLink}), []string{"ticket/%a: would be linked to target 105, and get there what that one lacks"}, ""},
		{"gone, is one that is not there", func(s *stage, a, b string) {
			gone(delta.HoldGone, &delta.Decision{Choice: delta.ChooseCreate})(s, a, b)
			if err := s.Engine().Decide(ctx, ticket(a), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{"4711"}}); err != nil {
				s.t.Fatal(err)
			}
		}, nil, "1 record would be held for a decision, 0 failed; none is due because of this"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
			s.full()
			s.Wait(time.Hour)
			tc.happen(s, a, b)
			s.Wait(time.Hour)
			writes := s.Target.Writes()
			q := mainDelta
			q.Dry = true
			dry := reportOf(t, s.World, run(t, s.World, q).ID)
			if n := s.Target.Writes() - writes; n > 0 {
				t.Errorf("%d writes", n)
			}
			var got []string
			for _, w := range dry.Would {
				got = append(got, w.Record+": "+w.What)
			}
			for i, w := range tc.want {
				tc.want[i] = strings.NewReplacer("%a", a, "%b", b).Replace(w)
			}
			same(t, "what the rehearsal lists", tc.want, got)
			if dry.Why != tc.why {
				t.Errorf("the rehearsal ends with %q, want %q", dry.Why, tc.why)
			}
			did := s.delta()
			if c := did.Counts; c.Held == 0 && dry.Counts != c || dry.Counts.Held != 0 != (c.Held != 0) && tc.name != "gone, is another one" {
				t.Errorf("the rehearsal %+v, the run %+v", dry.Counts, c)
			}
		})
	}
}

// Of many the first hundred are listed, and how many more there are.
func TestRehearsalOfMany(t *testing.T) {
	w := world(t)
	for range 103 {
		addTicket(w, "one")
	}
	rep := reportOf(t, w, run(t, w, delta.Request{Kind: delta.Full, Scope: "all", Dry: true}).ID)
	if len(rep.Would) != 100 || rep.WouldLeftOut != 3 || rep.Would[0].What != "would be created" {
		t.Errorf("%d listed, %d more", len(rep.Would), rep.WouldLeftOut)
	}
}

// A source that lists a change before it shows it: such a read is "not yet", never "unchanged".
func TestNotYet(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	full(t, w)
	w.Wait(time.Hour)
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	w.Source.Stale = 2
	c := reportOf(t, w, run(t, w, mainDelta).ID).Counts
	if c.Updated != 1 || w.Target.Look()["ticket/"+id][0].Fields[desk.Subject] != "[two]" {
		t.Errorf("%+v", c)
	}
}

func TestWaitsForDesk(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	down := 8
	seen := map[delta.Status]bool{}
	w.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "create" && down > 0 {
			down--
			return &desk.Error{Op: op, Class: desk.ErrUnauthorized, Said: "key revoked"}
		}
		return nil
	}
	r, err := w.Run(delta.Request{Kind: delta.Full, Scope: "all"}, func() {
		o, err := w.Engine().Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		seen[o.Runs[0].Status] = true
	})
	if err != nil || r.Status != delta.Verified {
		t.Fatalf("%s, %v", r.Status, err)
	}
	if !seen[delta.Waiting] {
		t.Error("the run never said that it waits")
	}
}

// A desk that lets us in no more is asked about once a minute, however many records wait for it, and the run goes on when it does again.
func TestAsksClosedDeskSeldom(t *testing.T) {
	const closed = 30 * time.Minute
	full := delta.Request{Kind: delta.Full, Scope: "all"}
	for _, tc := range []struct {
		op     string
		source bool
	}{{"list", true}, {"read", true}, {"create", false}} {
		t.Run(tc.op, func(t *testing.T) {
			w := world(t)
			for range 60 {
				addTicket(w, "one")
			}
			opens, asked := w.Clock().Add(closed), 0
			d := w.Target
			if tc.source {
				d = w.Source
			}
			d.Fail = func(op string, _ desk.Ref) error {
				if op != tc.op || !w.Clock().Before(opens) {
					return nil
				}
				asked++
				return &desk.Error{Op: op, Class: desk.ErrUnauthorized, Said: "key revoked"}
			}
			if tc.op == "list" { // whoever serves the run takes the next step, whatever came of the one before
				r, _, err := w.Engine().Start(ctx, full)
				if err != nil {
					t.Fatal(err)
				}
				for w.Clock().Before(opens.Add(2 * time.Minute)) {
					_, err = w.Engine().Step(ctx, r.ID)
					w.Wait(20 * time.Second)
				}
				if err != nil {
					t.Errorf("the run does not go on: %v", err)
				}
			} else if c := reportOf(t, w, run(t, w, full).ID).Counts; c.Created == 0 || c.Failed > 0 {
				t.Errorf("%+v", c)
			}
			if limit := int(closed/time.Minute) + 2; asked == 0 || asked > limit {
				t.Errorf("it was asked %d times within %s, want at most %d", asked, closed, limit)
			}
		})
	}
}

// Waiting for a limit is no attempt: a ticket that is put off twenty times does not fail.
func TestLimitIsNoAttempt(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	n := 20
	w.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "create" && n > 0 {
			n--
			return &desk.Error{Op: op, Class: desk.ErrThrottled, RetryAfter: time.Minute}
		}
		return nil
	}
	if c := reportOf(t, w, run(t, w, delta.Request{Kind: delta.Full, Scope: "all"}).ID).Counts; c.Created != 1 {
		t.Errorf("%+v", c)
	}
}

// A poisoned ticket fails after its attempts, the others go on, and it stays due.
func TestPoison(t *testing.T) {
	w := world(t)
	bad := addTicket(w, "bad")
	for range 5 {
		addTicket(w, "good")
	}
	w.Source.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref.ID == bad {
			return &desk.Error{Op: op, Status: 500, Class: desk.ErrTransient}
		}
		return nil
	}
	c := reportOf(t, w, run(t, w, delta.Request{Kind: delta.Full, Scope: "all"}).ID).Counts
	if c.Created != 5 || c.Failed != 1 {
		t.Errorf("%+v", c)
	}
	w.Source.Fail = nil
	if c := reportOf(t, w, run(t, w, mainDelta).ID).Counts; c.Created != 1 {
		t.Errorf("the next run: %+v", c)
	}
}

func TestMailStopsTheRun(t *testing.T) {
	w := world(t)
	for range 5 {
		addTicket(w, "one")
	}
	w.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "create" {
			return &desk.Error{Op: op, Class: desk.ErrMailed, Said: "an EmailRecord appeared"}
		}
		return nil
	}
	if r := run(t, w, delta.Request{Kind: delta.Full, Scope: "all"}); r.Status != delta.Stopped || !strings.Contains(r.Why, "sent mail") {
		t.Errorf("%s: %s", r.Status, r.Why)
	}
}

func TestVerify(t *testing.T) {
	w := world(t)
	s := seed(w)
	full(t, w)
	verify := func() report.Report {
		t.Helper()
		return reportOf(t, w, run(t, w, delta.Request{Kind: delta.Verify, Scope: "all"}).ID)
	}
	if rep := verify(); rep.Status != string(delta.Verified) || rep.Counts.Failed != 0 {
		t.Fatalf("%+v", rep)
	}
	tgt := w.Target.Target(ticket(s.mail))
	for _, tc := range []struct {
		name, says string
		damage     func()
	}{
		{"an agent's edit is no difference", "", func() { w.Target.Edit(ticket(tgt), desk.Fields{desk.Priority: {"99"}}) }},
		{"a file's byte", "file ", func() { w.Target.Damage(tgt, deltatest.FileByte) }},
		{"visibility", "visibility", func() { w.Target.Damage(tgt, deltatest.Visibility) }},
		{"a missing entry", "is missing", func() { w.Target.Damage(tgt, deltatest.LoseEntry) }},
		{"a double", "2 times in the target", func() { w.Target.Damage(tgt, deltatest.Double) }},
		{"not brought over yet", "changed in the source since", func() { w.Source.Edit(ticket(s.mail), desk.Fields{desk.Subject: {"new"}}) }},
	} {
		tc.damage()
		rep := verify()
		if tc.says == "" {
			if rep.Counts.Failed != 0 || len(rep.Kept) != 1 {
				t.Errorf("%s: %+v", tc.name, rep)
			}
			continue
		}
		if rep.Counts.Failed != 1 || !strings.Contains(rep.Exceptions[0].Reason, tc.says) {
			t.Errorf("%s: %+v", tc.name, rep.Exceptions)
		}
	}
}

// Two windows at the same time, many workers: nobody is made twice. Run with the race detector.
func TestManyWorkers(t *testing.T) {
	w := world(t)
	ann := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
	full(t, w)
	run(t, w, delta.Request{Kind: delta.Full, Scope: "support"})
	newcomer := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"New"}, desk.Email: {"new@x.example"}})
	var ids []string
	for i := range 24 {
		id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {fmt.Sprint(i)}, desk.Group: {"Support"}, desk.Requester: {newcomer}, desk.CC: {ann}})
		w.Source.Say(id, true, desk.Author{ID: newcomer}, "hi", map[string][]byte{"f": {1}})
		ids = append(ids, id)
	}
	w.Wait(time.Hour)
	clock := &sync.Mutex{}
	now := w.Clock()
	tick := func() time.Time { clock.Lock(); defer clock.Unlock(); now = now.Add(time.Millisecond); return now }
	w.Source.Now, w.Target.Now = tick, tick
	n := 0
	e, err := delta.New(delta.Config{
		Migration: w.Migration, SourceID: "old", TargetID: "new", Source: w.Source.AsSource(), Target: w.Target.AsTarget(),
		SourceSide: w.Source.Traits(), TargetSide: w.Target.Traits(), Rows: w.Store.Rows(), Objects: w.Store.Objects(), Queue: w.Store.Queue(),
		Now: tick, Session: "many", NewID: func() string { clock.Lock(); defer clock.Unlock(); n++; return fmt.Sprintf("9%025d", n) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var runs []string
	for _, win := range []string{"main", "support"} {
		r, _, err := e.Start(ctx, delta.Request{Kind: delta.Delta, Window: win})
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, r.ID)
	}
	stop, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				ms, err := w.Store.Queue().Receive(stop, 3)
				if err != nil {
					return
				}
				for _, r := range e.Work(ctx, ctx, ms) {
					if err := w.Store.Queue().Send(ctx, []delta.Message{r.Message}, time.Millisecond); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for ended := 0; ended < 2; {
		ended = 0
		for _, id := range runs {
			p, err := e.Step(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if p.Run.Status.Ended() {
				ended++
			}
		}
		clock.Lock()
		now = now.Add(time.Second)
		clock.Unlock()
	}
	cancel()
	wg.Wait()
	look := w.Target.Look()
	for _, id := range append([]string{}, ids...) {
		if all := look["ticket/"+id]; len(all) != 1 || len(all[0].Entries) != 1 {
			t.Errorf("ticket %s: %+v", id, all)
		}
	}
	if n := len(look["person/"+newcomer]); n != 1 {
		t.Errorf("the newcomer is %d times in the target", n)
	}
	for _, id := range runs {
		if err := report.Check(reportOf(t, w, id)); err != nil {
			t.Error(err)
		}
	}
}

func TestExplain(t *testing.T) {
	w := world(t)
	s := seed(w)
	full(t, w)
	x, err := w.Engine().Explain(ctx, ticket(s.mail))
	if err != nil || x.Target == "" || x.Entries != 2 || len(x.Trail) != 1 || x.Trail[0].Outcome != delta.OutCreated || x.Trail[0].Check == "" {
		t.Errorf("%+v, %v", x, err)
	}
	_, err = w.Engine().Explain(ctx, ticket("nope"))
	refused(t, err, "nothing is known of ticket/nope")
}

// Deletions in the source, by policy. Nothing is deleted in the target unless the policy says mirror.
func TestEvents(t *testing.T) {
	for policy, want := range map[delta.OnEvent]string{
		delta.Ignore: "open", delta.Close: "resolved", delta.Tag: "open", delta.Mirror: "",
	} {
		t.Run(string(policy), func(t *testing.T) {
			w := world(t)
			w.Migration.OnDeleted = policy
			id := addTicket(w, "one")
			full(t, w)
			w.Source.Remove(ticket(id))
			run(t, w, mainDelta)
			all := w.Target.Look()["ticket/"+id]
			if gone := len(all) == 0; gone != (policy == delta.Mirror) {
				t.Fatalf("in the target %d times", len(all))
			}
			if len(all) == 1 {
				if got := all[0].Fields[desk.Status]; got != "["+want+"]" {
					t.Errorf("status %s, want %s", got, want)
				}
				if got := all[0].Fields[desk.Tags]; (got == "[deleted-in-source]") != (policy == delta.Tag) {
					t.Errorf("tags %s", got)
				}
			}
			deleted := w.Target.Calls["delete"]
			if (deleted > 0) != (policy == delta.Mirror) {
				t.Errorf("%d deletions", deleted)
			}
			if c := reportOf(t, w, run(t, w, mainDelta).ID).Counts; c.Planned != 0 {
				t.Errorf("the next run: %+v", c)
			}
		})
	}
}

// A ticket that the target's people deleted is held, and what is decided is carried out.
func TestGoneInTarget(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "hello", nil)
	full(t, w)
	w.Target.Remove(ticket(w.Target.Target(ticket(id))))
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	rep := reportOf(t, w, run(t, w, mainDelta).ID)
	if rep.Counts.Held != 1 || !strings.Contains(rep.Exceptions[0].Reason, "deleted in the target") {
		t.Fatalf("%+v", rep.Exceptions)
	}
	if err := w.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseCreate}); err != nil {
		t.Fatal(err)
	}
	run(t, w, mainDelta)
	if all := w.Target.Look()["ticket/"+id]; len(all) != 1 || len(all[0].Entries) != 1 {
		t.Errorf("%+v", all)
	}
}

// What was deleted in the target stays deleted, as somebody decided, until the source changes it again.
func TestGoneLeftDeleted(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one", "hello")
	s.full()
	s.Target.Remove(s.there(id))
	edit := func(subject string) {
		s.Wait(time.Hour)
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {subject}})
	}
	edit("two")
	if rep := s.delta(); rep.Counts.Held != 1 || !strings.HasSuffix(rep.Exceptions[0].Next, "--create-again | --link TARGET-ID | --choose target") {
		t.Fatalf("%+v", rep.Exceptions)
	}
	err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseSource})
	refused(t, err, "--create-again, --link TARGET-ID or --choose target (leave it deleted)")
	s.decide(id, "", delta.ChooseTarget)
	writes := s.Target.Writes()
	if rep := s.delta(); rep.Counts.Excluded != 1 || rep.Excluded["deleted in the target"] != 1 {
		t.Errorf("after the decision: %+v", rep.Counts)
	}
	s.nothingHeld()
	s.verified(0)
	if run(t, s.World, delta.Request{Kind: delta.Verify, Scope: "all", Heal: true}); s.due() != 0 {
		t.Error("a verification that heals makes it due")
	}
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true})
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.nothingHeld()
	edit("three")
	s.delta()
	s.held("deleted in the target")
	s.decide(id, "", delta.ChooseTarget)
	edit("four") // the decision was made for another version
	s.delta()
	s.held("the source has changed it since it was decided to leave it deleted; it was deleted in the target")
	if n := s.Target.Writes() - writes; n > 0 {
		t.Errorf("%d writes", n)
	}
	s.decide(id, "", delta.ChooseTarget)
	s.delta()
	s.nothingHeld()
	refused(t, s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseTarget}), "nothing of ticket/"+id+" is held")
}

// A restart has the migration to itself; windows run beside each other.
func TestLanes(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	full(t, w)
	run(t, w, delta.Request{Kind: delta.Full, Scope: "support"})
	e := w.Engine()
	first, _, err := e.Start(ctx, mainDelta)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.Start(ctx, delta.Request{Kind: delta.Delta, Window: "support"}); err != nil {
		t.Errorf("another window at the same time: %v", err)
	}
	again, resumed, err := e.Start(ctx, mainDelta)
	if err != nil || !resumed || again.ID != first.ID {
		t.Errorf("the same window again: run %s resumed=%v %v, want the active one", again.ID, resumed, err)
	}
	_, _, err = e.Start(ctx, delta.Request{Kind: delta.Full, Scope: "all", Restart: true})
	refused(t, err, "has the migration to itself")
}

// A thread of thousands: its ledger row stays small, and nothing of it is written twice when it is cut off.
func TestLongThread(t *testing.T) {
	w := world(t)
	id := addTicket(w, "long")
	for i := range 400 {
		w.Source.Say(id, i%2 == 0, desk.Author{Name: "Ann"}, fmt.Sprint("entry ", i), nil)
	}
	w.Effects.Cuts = []deltatest.Cut{{Effect: 25, After: true}, {Effect: 40}}
	full(t, w)
	for i := range 5 {
		w.Source.Say(id, true, desk.Author{Name: "Ann"}, fmt.Sprint("later ", i), nil)
		run(t, w, mainDelta)
	}
	all := w.Target.Look()["ticket/"+id]
	if len(all) != 1 || len(all[0].Entries) != 405 {
		t.Fatalf("%d tickets, %d entries", len(all), len(all[0].Entries))
	}
	rows, _, err := w.Store.Rows().Range(ctx, "led/acme/ticket/"+id, "", "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if len(r.Body) > 8_000 {
			t.Errorf("row %s has %d bytes", r.Sort, len(r.Body))
		}
	}
	if w.Restarts != 2 {
		t.Errorf("cut off %d times, want 2", w.Restarts)
	}
}

// Somebody stands in for a person whom the target does not know, and is replaced as soon as it does.
func TestFallback(t *testing.T) {
	w := world(t)
	w.Migration.Rules.People.Unmatched, w.Migration.Rules.People.Fallback = "fallback", "team@new.example"
	team := w.Target.Add(desk.Person, desk.Fields{desk.Name: {"Team"}, desk.Email: {"team@new.example"}})
	ann := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
	id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"one"}, desk.Requester: {ann}})
	full(t, w)
	requester := func(want string) {
		t.Helper()
		if got := w.Target.Look()["ticket/"+id][0].Fields[desk.Requester]; got != "[own person/"+want+"]" {
			t.Errorf("requester %s, want %s", got, want)
		}
	}
	requester(team)
	annThere := w.Target.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	run(t, w, mainDelta)
	requester(annThere)
	if got := w.Target.Look()["own person/"+team][0].Fields[desk.Name]; got != "[Team]" {
		t.Errorf("who stood in was renamed to %s", got)
	}
}

// What the migration file names and the desks do not have is found before the run begins.
func TestUnauthorisedTarget(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	w.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "check" {
			return &desk.Error{Op: "check", Class: desk.ErrUnauthorized, Said: "no right to create"}
		}
		return nil
	}
	_, _, err := w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all"})
	if err == nil || !strings.Contains(err.Error(), "target: check: not authorised: no right to create") {
		t.Errorf("%v", err)
	}
}

// A process dies inside an Apply: the entry is there, the desk has moved fields by itself, the fields are not set. What
// follows must not take that for people's work, and must not take people's work for that.
func TestCutOffInsideApply(t *testing.T) {
	w := world(t)
	w.Target.TellsTouched = true
	id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"broken"}, desk.Status: {"resolved"}, desk.Priority: {"1"}, desk.Type: {"a"}})
	full(t, w)
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "and another thing", nil)
	w.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"2"}, desk.Type: {"b"}})
	tgt := ticket(w.Target.Target(ticket(id)))
	w.Target.Meddle = func(f desk.Fields) { f[desk.Status], f[desk.Subject] = desk.Value{"open"}, desk.Value{"broken [tag]"} }
	cut := false
	w.Target.Cut = func() {
		if !cut {
			cut = true
			panic(deltatest.Crash{})
		}
	}
	r, err := w.Run(mainDelta, func() {
		if cut && w.Restarts == 1 {
			w.Target.Cut = nil
			w.Target.Edit(tgt, desk.Fields{desk.Type: {"an agent's"}})
			w.Restarts++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	got := w.Target.Look()[ticket(id).String()][0]
	want := map[desk.Field]string{desk.Subject: "[broken]", desk.Status: "[resolved]", desk.Priority: "[2]", desk.Type: "[an agent's]"}
	for f, v := range want {
		if got.Fields[f] != v {
			t.Errorf("%s is %s, want %s", f, got.Fields[f], v)
		}
	}
	if len(got.Entries) != 1 {
		t.Errorf("%d entries", len(got.Entries))
	}
	if rep := reportOf(t, w, r.ID); rep.Counts.Held != 1 || !strings.Contains(rep.Exceptions[0].Reason, "type changed on both sides") || strings.Contains(rep.Exceptions[0].Reason, ";") {
		t.Errorf("%+v", rep.Exceptions)
	}
	if !cut {
		t.Error("nothing was cut off")
	}
}

package delta_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
	"github.com/deltadesk/deltadesk/shared/report"
)

var fullAll = delta.Request{Kind: delta.Full, Scope: "all"}

func loseOnce(op string) func(string, desk.Ref) error {
	done := false
	return func(o string, ref desk.Ref) error {
		if o == op && !done && ref.Kind == desk.Ticket {
			done = true
			return &desk.Error{Op: o, Class: desk.ErrTransient, Said: "reset"}
		}
		return nil
	}
}

func failOnce(op string, class error) func(string, desk.Ref) error {
	done := false
	return func(o string, ref desk.Ref) error {
		if o == op && !done && ref.Kind == desk.Ticket {
			done = true
			return &desk.Error{Op: o, Class: class}
		}
		return nil
	}
}

// A decision to create again is good for one create: when its answer is lost, the target is looked at like after any other.
func TestEdgeCreateAgainLostFinder(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	full(t, w)
	w.Target.Remove(ticket(w.Target.Target(ticket(id))))
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	run(t, w, mainDelta)
	if err := w.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseCreate}); err != nil {
		t.Fatal(err)
	}
	w.Target.Lose = loseOnce("create")
	run(t, w, mainDelta)
	if n := len(w.Target.Look()["ticket/"+id]); n != 1 {
		t.Errorf("%d times in the target", n)
	}
}

func TestEdgeCreateAgainLostNoFinder(t *testing.T) {
	w := world(t)
	w.Target.NoFinder = true
	id := addTicket(w, "one")
	w.Target.Lose = loseOnce("create")
	full(t, w)
	if err := w.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseCreate}); err != nil {
		t.Fatal(err)
	}
	w.Target.Lose = func(op string, ref desk.Ref) error {
		if op == "create" {
			return &desk.Error{Op: op, Class: desk.ErrTransient}
		}
		return nil
	}
	run(t, w, mainDelta)
	if n := len(w.Target.Look()["ticket/"+id]); n > 2 {
		t.Errorf("%d times in the target; the person said: once more (2)", n)
	}
}

// Crash between the held row and the ledger row of a commit that had no claim.
func TestEdgeHeldCrash(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	full(t, w)
	w.Target.Edit(ticket(w.Target.Target(ticket(id))), desk.Fields{desk.Status: {"resolved"}})
	w.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
	w.Wait(time.Hour)
	// find the effect number of the held row by a dry look: try every effect in turn
	base := w.Effects.Count()
	for i := 1; i < 12; i++ {
		w.Effects.Cuts = append(w.Effects.Cuts, deltatest.Cut{Effect: base + i, After: false})
	}
	w.Effects.Cuts = nil
	cut := func(w *deltatest.World) { // cut right after the held row
		_ = w
	}
	cut(w)
	e := w.Engine()
	r, _, err := e.Start(ctx, mainDelta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Step(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	// raw staging object is effect +1, held row +2
	w.Effects.Cuts = []deltatest.Cut{{Effect: w.Effects.Count() + 2, After: true}}
	_ = w.Do(func(e *delta.Engine) error {
		e.Work(ctx, ctx, []delta.Message{{Migration: "acme", Run: r.ID, Page: 0, Seq: 0}})
		if w.Restarts == 0 {
			t.Log("no cut", w.Effects.Names)
		}
		return nil
	})
	t.Log(w.Restarts, w.Effects.Names[len(w.Effects.Names)-4:])
	rr, err := w.Run(mainDelta, nil)
	if err != nil || !rr.Status.Ended() {
		t.Errorf("%s %v", rr.Status, err)
	}
}

// A process dies at any effect while it carries out an answer that leaves the target its value: nobody is asked again.
func TestEdgeAnswerCarriedOutOnce(t *testing.T) {
	for n := 1; n < 60; n++ {
		s := newStage(t)
		id := s.ticket("one")
		s.full()
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"by an agent"}})
		s.delta()
		if err := s.Engine().Decide(ctx, ticket(id), desk.Subject, "", delta.Decision{Choice: delta.ChooseTarget}); err != nil {
			t.Fatal(err)
		}
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		s.delta()
		s.field(id, desk.Subject, "[by an agent]")
		if s.nothingHeld(); s.Restarts == 0 || t.Failed() {
			t.Logf("cut off at effect %d from the run's first", n)
			return
		}
	}
}

// A window of mode "update": the new requester of a migrated ticket is not in the target yet.
func TestEdgeUpdateModeLosesRequester(t *testing.T) {
	w := world(t)
	ann := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
	id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"one"}, desk.Requester: {ann}})
	full(t, w)
	w.Wait(time.Hour)
	carl := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Carl"}, desk.Email: {"carl@x.example"}})
	w.Source.Edit(ticket(id), desk.Fields{desk.Requester: {carl}})
	w.Wait(time.Hour)
	q := mainDelta
	q.Mode = delta.UpdateOnly
	run(t, w, q)
	if got := w.Target.Look()["ticket/"+id][0].Fields[desk.Requester]; got == "" {
		t.Errorf("after update-only delta: requester %q", got)
	}
	run(t, w, mainDelta)
	run(t, w, mainDelta)
	if got := w.Target.Look()["ticket/"+id][0].Fields[desk.Requester]; got != "[person/"+carl+"]" {
		t.Errorf("after create+update deltas: requester %q", got)
	}
}

// A create in a window of mode "create" that is put off after its first request.
func TestEdgeCreateModeUnfinished(t *testing.T) {
	w := world(t)
	addTicket(w, "old")
	full(t, w)
	w.Wait(time.Hour)
	id := addTicket(w, "fresh")
	for i := range 3 {
		w.Source.Say(id, true, desk.Author{Name: "Ann"}, fmt.Sprint("e", i), nil)
	}
	w.Wait(time.Hour)
	w.Target.Fail = failOnce("apply", desk.ErrThrottled)
	q := mainDelta
	q.Mode = delta.CreateOnly
	c := reportOf(t, w, run(t, w, q).ID).Counts
	if n := len(w.Target.Look()["ticket/"+id][0].Entries); n != 3 || c.Created != 1 {
		t.Errorf("%d of 3 entries, %+v", n, c)
	}
}

// Recreate after deletion in the target, cut off before the chunk rows were forgotten.
func TestEdgeRecreateLongThread(t *testing.T) {
	w := world(t)
	w.Migration.OnTargetGone = delta.RecreateGone
	id := addTicket(w, "long")
	for i := range 200 {
		w.Source.Say(id, true, desk.Author{Name: "Ann"}, fmt.Sprint("entry ", i), nil)
	}
	full(t, w)
	w.Target.Remove(ticket(w.Target.Target(ticket(id))))
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "later", nil)
	w.Wait(time.Hour)
	e := w.Engine()
	r, _, err := e.Start(ctx, mainDelta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Step(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	w.Effects.Cuts = []deltatest.Cut{{Effect: w.Effects.Count() + 2, After: true}} // staging, then the claim to create
	_ = w.Do(func(e *delta.Engine) error {
		e.Work(ctx, ctx, []delta.Message{{Migration: "acme", Run: r.ID, Page: 0, Seq: 0}})
		return nil
	})
	t.Log(w.Restarts)
	run(t, w, mainDelta)
	all := w.Target.Look()["ticket/"+id]
	if len(all) != 1 || len(all[0].Entries) != 201 {
		t.Errorf("%d tickets, %d of 201 entries", len(all), len(all[0].Entries))
	}
}

func testEnds(t *testing.T, q delta.Request) {
	w := world(t)
	bad := addTicket(w, "bad")
	if q.Kind == delta.Verify {
		full(t, w)
	}
	w.Source.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref.ID == bad {
			return &desk.Error{Op: op, Status: 500, Class: desk.ErrTransient}
		}
		return nil
	}
	if r, err := w.Run(q, nil); err != nil {
		t.Errorf("%s %v", r.Status, err)
	}
}

func TestEdgeVerifyEnds(t *testing.T) {
	testEnds(t, delta.Request{Kind: delta.Verify, Scope: "all"})
}

func TestEdgeDryEnds(t *testing.T) {
	testEnds(t, delta.Request{Kind: delta.Full, Scope: "all", Dry: true})
}

// X links to A, which has not arrived; A is merged into B in the source. The link is to be drawn to B.
func TestEdgeMergedAwaited(t *testing.T) {
	w := world(t)
	a := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"a"}, desk.Group: {"Sales"}})
	x := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"x"}, desk.Group: {"Support"}, desk.LinkRefersTo: {a}})
	b := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"b"}, desk.Group: {"Support"}})
	run(t, w, delta.Request{Kind: delta.Full, Scope: "support"})
	w.Wait(time.Hour)
	w.Source.Join(ticket(a), ticket(b))
	w.Wait(time.Hour)
	q := delta.Request{Kind: delta.Delta, Window: "support"}
	run(t, w, q)
	run(t, w, q)
	if got := w.Target.Look()["ticket/"+x][0].Fields[desk.LinkRefersTo]; got != "[ticket/"+b+"]" {
		t.Errorf("link %q; target has b as %v", got, w.Target.Target(ticket(b)))
	}
}

// The answer to the create of A was lost; before it is looked up, A is merged into B (or deleted) in the source.
func TestEdgeLostCreateThenMerged(t *testing.T) {
	w := world(t)
	b := addTicket(w, "b")
	a := addTicket(w, "a")
	w.Source.Say(a, true, desk.Author{Name: "Ann"}, "hello", nil)
	n := 0
	w.Target.Lose = func(op string, ref desk.Ref) error {
		if op == "create" && ref.ID == a && n == 0 {
			n++
			w.Source.Join(ticket(a), ticket(b))
			return &desk.Error{Op: op, Class: desk.ErrTransient}
		}
		return nil
	}
	full(t, w)
	run(t, w, mainDelta)
	look := w.Target.Look()
	entries := 0
	for _, all := range look {
		for _, s := range all {
			entries += len(s.Entries)
		}
	}
	if entries != 1 || len(look["ticket/"+a]) != 0 {
		t.Errorf("the entry is %d times in the target, a is there %d times", entries, len(look["ticket/"+a]))
	}
}

func TestEdgeLostCreateThenDeleted(t *testing.T) {
	w := world(t) // policy close
	a := addTicket(w, "a")
	n := 0
	w.Target.Lose = func(op string, ref desk.Ref) error {
		if op == "create" && ref.ID == a && n == 0 {
			n++
			w.Source.Remove(ticket(a))
			return &desk.Error{Op: op, Class: desk.ErrTransient}
		}
		return nil
	}
	full(t, w)
	run(t, w, mainDelta)
	x, err := w.Engine().Explain(ctx, ticket(a))
	for _, s := range w.Target.Look()["ticket/"+a] {
		if s.Fields[desk.Status] != "[resolved]" {
			t.Errorf("orphan in the target, status %s; ledger %+v %v", s.Fields[desk.Status], x, err)
		}
	}
}

// A person for whom the fallback stands in is deleted (merged) in the source.
func TestEdgeFallbackDeleted(t *testing.T) {
	for _, how := range []string{"deleted", "merged"} {
		t.Run(how, func(t *testing.T) {
			w := world(t)
			w.Migration.OnDeleted = delta.Mirror
			w.Migration.Rules.People.Unmatched, w.Migration.Rules.People.Fallback = "fallback", "team@new.example"
			team := w.Target.Add(desk.Person, desk.Fields{desk.Name: {"Team"}, desk.Email: {"team@new.example"}})
			w.Target.Add(desk.Person, desk.Fields{desk.Name: {"Bob"}, desk.Email: {"bob@x.example"}})
			ann := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
			bob := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Bob"}, desk.Email: {"bob@x.example"}})
			full(t, w)
			if how == "deleted" {
				w.Source.Remove(desk.Ref{Kind: desk.Person, ID: ann})
			} else {
				w.Source.Join(desk.Ref{Kind: desk.Person, ID: ann}, desk.Ref{Kind: desk.Person, ID: bob})
			}
			w.Wait(time.Hour)
			run(t, w, mainDelta)
			if len(w.Target.Look()["own person/"+team]) != 1 {
				t.Error("the fallback person is gone from the target")
			}
		})
	}
}

// A decision about an entry of a long thread holds as long as the entry does not move.
func TestEdgeAcceptedEntryInChunk(t *testing.T) {
	w := world(t)
	w.Target.NoReviser = true
	id := addTicket(w, "long")
	for i := range 200 {
		w.Source.Say(id, true, desk.Author{Name: "Ann"}, fmt.Sprint("entry ", i), nil)
	}
	full(t, w)
	w.Source.Damage(id, deltatest.Visibility)
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "later", nil)
	w.Wait(time.Hour)
	run(t, w, mainDelta)
	hs, _ := w.Engine().HeldRecords(ctx)
	if len(hs) != 1 || len(hs[0].Entries) != 1 {
		t.Fatalf("%+v", hs)
	}
	if err := w.Engine().Decide(ctx, ticket(id), "", hs[0].Entries[0].Entry, delta.Decision{Choice: delta.ChooseTarget}); err != nil {
		t.Fatal(err)
	}
	if c := reportOf(t, w, run(t, w, mainDelta).ID).Counts; c.Held != 0 {
		t.Fatalf("%+v", c)
	}
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "later still", nil)
	w.Wait(time.Hour)
	if c := reportOf(t, w, run(t, w, mainDelta).ID).Counts; c.Held != 0 {
		t.Errorf("asked again: %+v", c)
	}
}

// An unfinished recreation is finished, also when the source has gone back to what it once was.
func TestEdgeStaleDigest(t *testing.T) {
	w := world(t)
	w.Migration.OnTargetGone = delta.RecreateGone
	id := addTicket(w, "one")
	for i := range 3 {
		w.Source.Say(id, true, desk.Author{Name: "Ann"}, fmt.Sprint("e", i), nil)
	}
	full(t, w)
	w.Target.Remove(ticket(w.Target.Target(ticket(id))))
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	w.Wait(time.Hour)
	w.Target.Fail = failOnce("apply", desk.ErrRejected)
	run(t, w, mainDelta)
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"one"}})
	w.Wait(time.Hour)
	c := reportOf(t, w, run(t, w, mainDelta).ID).Counts
	run(t, w, mainDelta)
	if n := len(w.Target.Look()["ticket/"+id][0].Entries); n != 3 {
		t.Errorf("%d of 3 entries, %+v", n, c)
	}
}

func TestEdgeHeldOfDeleted(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	full(t, w)
	w.Target.Edit(ticket(w.Target.Target(ticket(id))), desk.Fields{desk.Status: {"resolved"}})
	w.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
	run(t, w, mainDelta)
	w.Source.Remove(ticket(id))
	run(t, w, mainDelta)
	run(t, w, mainDelta)
	hs, _ := w.Engine().HeldRecords(ctx)
	if len(hs) != 0 {
		_ = w.Engine().Decide(ctx, ticket(id), desk.Status, "", delta.Decision{Choice: delta.ChooseTarget})
		run(t, w, mainDelta)
		hs, _ = w.Engine().HeldRecords(ctx)
		t.Errorf("still held after deletion and decision: %d", len(hs))
	}
}

func TestEdgeCreateModeDeletes(t *testing.T) {
	w := world(t)
	w.Migration.OnDeleted = delta.Mirror
	id := addTicket(w, "one")
	full(t, w)
	w.Source.Remove(ticket(id))
	q := mainDelta
	q.Mode = delta.CreateOnly
	run(t, w, q)
	if len(w.Target.Look()["ticket/"+id]) != 1 {
		t.Error("a run of mode create deleted a migrated ticket")
	}
}

func TestEdgeLostApplyCount(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	full(t, w)
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	w.Wait(time.Hour)
	w.Target.Lose = loseOnce("apply")
	if c := reportOf(t, w, run(t, w, mainDelta).ID).Counts; c.Updated != 1 {
		t.Errorf("%+v", c)
	}
}

func TestEdgeWaitingStays(t *testing.T) {
	w := world(t)
	for range 20 {
		addTicket(w, "one")
	}
	first := true
	w.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "create" && first {
			first = false
			return &desk.Error{Op: op, Class: desk.ErrUnauthorized, Said: "key revoked"}
		}
		return nil
	}
	var seen []string
	_, err := w.Run(fullAll, func() {
		o, _ := w.Engine().Status(ctx)
		seen = append(seen, fmt.Sprintf("%s %d", o.Runs[0].Status, o.Runs[0].Finished))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range seen {
		if s == "waiting 19" || s == "waiting 20" {
			t.Errorf("%v", seen)
		}
	}
}

func TestEdgeMergeWithoutMerger(t *testing.T) {
	w := world(t)
	w.Migration.OnMerged = delta.Tag
	b := addTicket(w, "b")
	w.Source.Say(b, true, desk.Author{Name: "Ann"}, "b1", nil)
	a := addTicket(w, "a")
	w.Source.Say(a, true, desk.Author{Name: "Ann"}, "a1", nil)
	full(t, w)
	w.Source.Join(ticket(a), ticket(b))
	w.Wait(time.Hour)
	run(t, w, mainDelta)
	v := reportOf(t, w, run(t, w, delta.Request{Kind: delta.Verify, Scope: "all"}).ID)
	if v.Counts.Failed != 0 {
		t.Errorf("verify right after the delta: %+v; survivor has %v", v.Exceptions, w.Target.Look()["ticket/"+b][0].Entries)
	}
}

var _ = context.Background

type sliceQueue struct{ ms []delta.Message }

func (q *sliceQueue) Send(_ context.Context, ms []delta.Message, _ time.Duration) error {
	q.ms = append(q.ms, ms...)
	return nil
}

var engines int

func own(t *testing.T, w *deltatest.World, src desk.Source, tgt desk.Target) func(delta.Request) (delta.Run, error) {
	t.Helper()
	engines++
	q, n, pre := &sliceQueue{}, 0, engines
	e, err := delta.New(delta.Config{Migration: w.Migration, SourceID: "old", TargetID: "new", Source: src, Target: tgt,
		SourceSide: w.Source.Traits(), TargetSide: w.Target.Traits(), Rows: w.Store.Rows(), Objects: w.Store.Objects(), Queue: q,
		Now: w.Clock, NewID: func() string { n++; return fmt.Sprintf("9%05d%020d", pre, n) }, Session: fmt.Sprint("own", pre)})
	if err != nil {
		t.Fatal(err)
	}
	return carry(w, e, q)
}

// clocked is a process among others that goes by a clock of its own.
func clocked(t *testing.T, w *deltatest.World, src desk.Source, off time.Duration) (*delta.Engine, func(delta.Request) (delta.Run, error)) {
	t.Helper()
	engines++
	q, n, pre := &sliceQueue{}, 0, engines
	e, err := delta.New(delta.Config{Migration: w.Migration, SourceID: "old", TargetID: "new", Source: src, Target: w.Target.AsTarget(),
		SourceSide: w.Source.Traits(), TargetSide: w.Target.Traits(), Rows: w.Store.Rows(), Objects: w.Store.Objects(), Queue: q,
		Now: func() time.Time { return w.Clock().Add(off) }, NewID: func() string { n++; return fmt.Sprintf("9%05d%020d", pre, n) }})
	if err != nil {
		t.Fatal(err)
	}
	return e, carry(w, e, q)
}

// carry carries runs through in one process.
func carry(w *deltatest.World, e *delta.Engine, q *sliceQueue) func(delta.Request) (delta.Run, error) {
	return func(r delta.Request) (delta.Run, error) {
		run, _, err := e.Start(ctx, r)
		if err != nil {
			return run, err
		}
		for range 500 {
			p, err := e.Step(ctx, run.ID)
			if err != nil || p.Run.Status.Ended() {
				return p.Run, err
			}
			ms := q.ms
			q.ms = nil
			for _, b := range ms {
				for _, r := range e.Work(ctx, ctx, []delta.Message{b}) {
					q.ms = append(q.ms, r.Message)
				}
			}
			w.Wait(20 * time.Second)
		}
		return run, fmt.Errorf("run does not end")
	}
}

type undelete struct {
	desk.Source
	on bool
}

func (u *undelete) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	r, err := u.Source.Read(ctx, ref)
	if u.on {
		r.Event = desk.Changed
	}
	return r, err
}

// Policy close; when the ticket is restored in the source, the target's is open again.
func TestEdgeRestoredStaysClosed(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	u := &undelete{Source: w.Source.AsSource()}
	play := own(t, w, u, w.Target.AsTarget())
	must := func(q delta.Request) {
		t.Helper()
		if r, err := play(q); err != nil {
			t.Fatal(r.Status, err)
		}
	}
	must(fullAll)
	w.Source.Remove(ticket(id))
	w.Wait(time.Hour)
	must(mainDelta)
	u.on = true
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"back again"}})
	w.Wait(time.Hour)
	must(mainDelta)
	if got := w.Target.Look()["ticket/"+id][0].Fields; got[desk.Status] != "[open]" {
		t.Errorf("%v", got)
	}
}

// A revised entry in a chunk row, and another change that goes with a lock.
func TestEdgeReviseAndLock(t *testing.T) {
	for _, n := range []int{3, 200} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := world(t)
			id := addTicket(w, "long")
			for i := range n {
				w.Source.Say(id, true, desk.Author{Name: "Ann"}, fmt.Sprint("entry ", i), nil)
			}
			full(t, w)
			w.Source.Flip(id, 0)
			w.Source.Say(id, true, desk.Author{Name: "Ann"}, "later", nil)
			w.Wait(time.Hour)
			rep := reportOf(t, w, run(t, w, mainDelta).ID)
			if got := w.Target.Calls["revise"]; got != 1 || rep.Counts.Updated != 1 {
				t.Errorf("%+v; revised %d times", rep.Counts, got)
			}
		})
	}
}

// A target record that conflicts again and again (an automation touches it all the time) fails in the end.
func TestEdgeConflictEnds(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	full(t, w)
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	w.Wait(time.Hour)
	w.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "apply" {
			return &desk.Error{Op: op, Class: desk.ErrConflict}
		}
		return nil
	}
	if r, err := w.Run(mainDelta, nil); err != nil {
		t.Errorf("%s %v", r.Status, err)
	}
}

// Deleted in the target, linked by a person to another ticket: that one gets the whole thread.
func TestEdgeGoneLinked(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "first", nil)
	full(t, w)
	w.Target.Remove(ticket(w.Target.Target(ticket(id))))
	other := w.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"by hand"}, desk.Status: {"open"}})
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "second", nil)
	run(t, w, mainDelta)
	if err := w.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{other}}); err != nil {
		t.Fatal(err)
	}
	run(t, w, mainDelta)
	if all := w.Target.Look()["own ticket/"+other]; len(all) != 1 || len(all[0].Entries) != 2 {
		t.Errorf("%+v", all)
	}
}

// Somebody says which ticket of the target a record is, and it is another record's, or none: nothing is written, and it is asked again.
// Where the target says that the record's own ticket lives on there, whosever it is, that is carried out.
func TestLinkDecided(t *testing.T) {
	link := func(s *stage, id, to string) {
		s.t.Helper()
		if err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{to}}); err != nil {
			s.t.Fatal(err)
		}
	}
	gone := func(s *stage, id, other string) {
		s.full()
		s.Target.Remove(s.there(id))
		s.say(id, "second")
		s.delta()
		s.held("deleted in the target")
	}
	doubt := func(s *stage, id, other string) {
		s.Target.NoFinder = true
		s.Target.Lose = func(op string, ref desk.Ref) error {
			if op == "create" && ref == ticket(id) {
				return noAnswer()
			}
			return nil
		}
		s.full()
		s.Target.Lose = nil
		s.held("cannot be searched")
	}
	for _, tc := range []struct {
		name   string
		before func(s *stage, id, other string)
		plain  bool // the target shows no markers
		to     func(s *stage, id, other string) string
		want   string
	}{
		{"gone, another's", gone, false, func(s *stage, _, other string) string { return s.there(other).ID }, "target %s is ticket/%s's already; nothing was written; it was deleted in the target"},
		{"gone, not there", gone, false, func(*stage, string, string) string { return "4711" }, "the decision names target %s, which is not there; nothing was written; it was deleted in the target"},
		{"in doubt, another's", doubt, false, func(s *stage, _, other string) string { return s.there(other).ID }, "target %s is ticket/%s's already; nothing was written; it may have been created"},
		{"in doubt, another's, no markers", doubt, true, func(s *stage, _, other string) string { return s.there(other).ID }, "target %s is ticket/%s's already; nothing was written; it may have been created"},
		{"in doubt, not there", doubt, false, func(*stage, string, string) string { return "4711" }, "the decision names target %s, which is not there; nothing was written; it may have been created"},
		{"in doubt, of nobody in the ledger", doubt, false, func(s *stage, id, _ string) string {
			to := s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"of another store"}})
			s.Target.Post(to, desk.Entry{Body: "theirs", Type: "text/plain", Marker: "acme/999", At: s.Clock()}, nil)
			return to
		}, "target %s has entries of another record already; nothing was written"},
		{"in doubt, its own", doubt, false, func(s *stage, id, _ string) string { return s.there(id).ID }, ""},
		{"in doubt, its own, merged by people", doubt, false, func(s *stage, id, other string) string {
			own := s.there(id)
			s.Target.Join(own, s.there(other))
			return own.ID
		}, ""},
		{"in doubt, its own, merged by people, no markers", doubt, true, func(s *stage, id, other string) string {
			own := s.there(id)
			s.Target.Join(own, s.there(other))
			return own.ID
		}, ""},
		{"in doubt, where people merged it into", doubt, false, func(s *stage, id, other string) string {
			s.Target.Join(s.there(id), s.there(other))
			return s.there(other).ID
		}, ""},
		{"gone, one of an agent's", gone, false, func(s *stage, _, _ string) string {
			return s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"by hand"}})
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			s.Target.NoMarkers = tc.plain
			other := s.ticket("other", "of other")
			id := s.ticket("one", "first")
			tc.before(s, id, other)
			to := tc.to(s, id, other)
			theirs := s.Target.Look()
			for range 2 { // the same mistake twice is told twice
				link(s, id, to)
				writes := s.Target.Writes()
				rep := s.delta()
				x, err := s.Engine().Explain(ctx, ticket(id))
				if err != nil {
					t.Fatal(err)
				}
				if tc.want == "" { // fields may be asked about afterwards
					if x.Target == "" || strings.Contains(x.Held, "nothing was written") || strings.Contains(x.Held, "cannot be searched") {
						t.Errorf("it was not linked: target %q, held because %q", x.Target, x.Held)
					}
					return
				}
				want := strings.NewReplacer("%s is ticket/%s", to+" is ticket/"+other, "%s", to).Replace(tc.want)
				if rep.Counts.Failed > 0 {
					t.Errorf("failed: %+v", rep.Exceptions)
				}
				s.held(want)
				if n := len(rep.Exceptions); n != 1 || !strings.Contains(rep.Exceptions[0].Next, "deltadesk decide ticket/"+id+" --") || !strings.Contains(rep.Exceptions[0].Reason, want) {
					t.Errorf("the report says %+v, want %q", rep.Exceptions, want)
				}
				if n := s.Target.Writes() - writes; n > 0 {
					t.Errorf("%d writes", n)
				}
			}
			if d := cmp.Diff(theirs, s.Target.Look()); d != "" {
				t.Errorf("the target (-before +after):\n%s", d)
			}
			s.decide(id, "", delta.ChooseCreate)
			s.delta()
			s.nothingHeld()
			s.thread(other, "of other")
		})
	}
}

// narrow is a table that shows one row at a time of a scan, as stores may show fewer than they are asked for.
type narrow struct{ delta.Rows }

func (n narrow) Scan(ctx context.Context, prefix, from string, _ int) ([]delta.Row, string, error) {
	return n.Rows.Scan(ctx, prefix, from, 1)
}

// Whoever's ticket a decision names: it is found wherever the record stands in the ledger.
func TestLinkDecidedLongLedger(t *testing.T) {
	s := newStage(t)
	s.Between = func(r delta.Rows) delta.Rows { return narrow{r} }
	s.Target.NoFinder, s.Target.NoMarkers, s.Target.Timed = true, true, true
	var others []string
	for n := range 5 {
		others = append(others, s.ticket(fmt.Sprint("other ", n)))
	}
	id := s.ticket("one", "first")
	s.full()
	gone := s.there(id)
	s.Target.Remove(gone)
	s.say(id, "second")
	s.delta()
	for _, other := range others {
		to := s.there(other).ID
		if err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{to}}); err != nil {
			t.Fatal(err)
		}
		s.delta()
		s.held(fmt.Sprintf("target %s is ticket/%s's already; nothing was written", to, other))
	}
}

// People, answer of the create lost, target without a finder.
func TestEdgePersonTwice(t *testing.T) {
	for _, apart := range []bool{true, false} {
		t.Run(fmt.Sprint("apart ", apart), func(t *testing.T) {
			w := world(t)
			w.Target.NoFinder = true
			w.Migration.Rules.People.Apart = apart
			f := desk.Fields{desk.Name: {"Ann"}}
			if apart {
				f[desk.Email] = desk.Value{"ann@x.example"}
			}
			ann := w.Source.Add(desk.Person, f)
			done := false
			w.Target.Lose = func(op string, _ desk.Ref) error {
				if op == "create" && !done {
					done = true
					return &desk.Error{Op: op, Class: desk.ErrTransient}
				}
				return nil
			}
			full(t, w)
			if n := len(w.Target.Look()["person/"+ann]); n != 1 {
				t.Errorf("%d times in the target", n)
			}
		})
	}
}

// Cut off between the verdict and the report: the next step stores the report.
func TestEdgeReportAfterCut(t *testing.T) {
	at := 0
	for pass := range 2 {
		w := world(t)
		addTicket(w, "one")
		if pass == 1 {
			w.Effects.Cuts = []deltatest.Cut{{Effect: at, After: true}}
		}
		full(t, w)
		reports := 0
		for i, n := range w.Effects.Names {
			if strings.HasPrefix(n, "put runs/") {
				if pass == 0 {
					at = i + 1
				}
			}
			if strings.HasPrefix(n, "object reports/") {
				reports++
			}
		}
		if reports != 1 {
			t.Errorf("pass %d: %d reports stored, restarts %d", pass, reports, w.Restarts)
		}
	}
}

// Messages do not multiply while a desk asks for pauses for hours.
func TestEdgeMessagesMultiply(t *testing.T) {
	w := world(t)
	for range 3 {
		addTicket(w, "one")
	}
	until := w.Clock().Add(5 * time.Hour)
	w.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "create" && w.Clock().Before(until) {
			return &desk.Error{Op: op, Class: desk.ErrThrottled, RetryAfter: time.Minute}
		}
		return nil
	}
	full(t, w)
	if n := w.Target.Calls["create"]; n > 3*5*60*2 {
		t.Errorf("%d creates asked for in 5 h of a limit that says one minute, for 3 tickets (one copy each would be about %d)", n, 3*5*60)
	}
}

// Whom a note names is asked of the source. While it does not answer, no other note is written that names them otherwise.
func TestEdgeNoteNamesOnce(t *testing.T) {
	s := newStage(t)
	s.Migration.Rules.Fields = map[desk.Kind][]mapping.FieldRule{desk.Ticket: {{From: desk.CC, Unmapped: mapping.Note}}}
	ann := s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
	id := s.ticket("one", "first")
	s.Source.Edit(ticket(id), desk.Fields{desk.CC: {ann}})
	s.full()
	s.say(id, "second")
	n := 0
	s.Source.Fail = func(op string, ref desk.Ref) error {
		if op != "read" || ref.Kind != desk.Person || n > 1 {
			return nil
		}
		n++
		return noAnswer()
	}
	s.delta()
	got := bodies(s.Target.Look()["ticket/"+id][0])
	if len(got) != 3 || !strings.Contains(got[1], "Cc: Ann") || n == 0 {
		t.Errorf("the thread is %q; want two entries and one note of who is in copy", got)
	}
	s.verified(0) // the note has the time of when it was written, whatever has become of the ticket since
}

// unkeeping makes the target one that takes a time of creation, and goes by its own clock all the same.
func (s *stage) unkeeping() {
	for _, f := range []desk.Field{desk.Subject, desk.Status, desk.Group, desk.Tags} {
		s.Target.Defines.Fields = map[desk.Kind][]desk.FieldDef{desk.Ticket: append(s.Target.Defines.Fields[desk.Ticket], desk.FieldDef{Field: f, Write: desk.Always, Many: f.IsSet()})}
	}
	s.Target.Defines.Fields[desk.Ticket] = append(s.Target.Defines.Fields[desk.Ticket], desk.FieldDef{Field: desk.Created, Write: desk.OnCreate})
	s.Target.Normalise = func(f desk.Field, v desk.Value) desk.Value {
		if f == desk.Created {
			return desk.Time(s.Clock())
		}
		return v
	}
}

// dated are the lines of the target's notes that tell when a ticket was created.
func (s *stage) dated(id string) (lines []string) {
	for _, en := range bodies(s.Target.Look()["ticket/"+id][0]) {
		for line := range strings.Lines(en) {
			if at, ok := strings.CutPrefix(line, "Created: "); ok {
				lines = append(lines, strings.TrimSpace(at))
			}
		}
	}
	return lines
}

// When a ticket was created the target may be told, and not keep it, which nothing but a reading shows. An entry of the same time
// tells it as well; else a note does, once, and the report counts either. Verify misses such a note.
func TestEdgeUnkept(t *testing.T) {
	s := newStage(t)
	s.unkeeping()
	id := s.ticket("written to later", "first") // a minute after it was made
	at := addTicket(s.World, "written to at once")
	s.Source.Say(at, true, customer, "first", nil)
	made := func(id string) string {
		r, err := s.Source.AsSource().Read(ctx, ticket(id))
		if err != nil {
			t.Fatal(err)
		}
		return r.Fields[desk.Created].First()
	}
	unkept := func(rep report.Report, want int) {
		t.Helper()
		for _, l := range rep.Losses {
			if l.Class == "unkept" && l.Count == want && strings.Contains(l.Meaning, "time of creation") {
				return
			}
		}
		t.Errorf("want %d losses that say that a time of creation was not kept, the report has %+v", want, rep.Losses)
	}
	told := func(when string, want ...string) {
		t.Helper()
		if d := cmp.Diff([][]string{want, nil}, [][]string{s.dated(id), s.dated(at)}); d != "" {
			t.Errorf("%s: %s", when, d)
		}
	}
	s.Wait(time.Hour)
	unkept(reportOf(t, s.World, run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all"}).ID), 2)
	told("full run", made(id))
	unkept(s.verified(0), 2)
	s.say(id, "second")
	unkept(s.delta(), 1)
	told("delta", made(id))
	s.verified(0)

	s.Target.Damage(s.there(id).ID, deltatest.LoseEntry) // the second reply is the last one
	s.Target.Damage(s.there(id).ID, deltatest.LoseEntry)
	if rep := reportOf(t, s.World, run(t, s.World, delta.Request{Kind: delta.Verify, Scope: "all"}).ID); len(rep.Exceptions) != 1 || !strings.Contains(rep.Exceptions[0].Reason, "entry fields/"+id) {
		t.Errorf("nobody misses the note: %+v", rep.Exceptions)
	}
}

// So it is when the process dies on the way, and the ticket is found again.
func TestEdgeUnkeptCutOff(t *testing.T) {
	for n := 1; n < 60; n++ {
		s := newStage(t)
		s.unkeeping()
		id := s.ticket("one", "first")
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n, After: n%2 == 0}}
		s.full()
		s.say(id, "second")
		s.delta()
		if got := s.dated(id); len(got) != 1 {
			t.Errorf("cut off at %s: the time of creation is told %d times", s.Effects.Names[n-1], len(got))
		}
		if s.Restarts == 0 {
			return
		}
	}
}

// Somebody who was in the target before us keeps their name there under every policy, also when the process dies on the way.
func TestEdgePersonMatchedCutOff(t *testing.T) {
	for n := 1; n < 60; n++ {
		s := newStage(t)
		s.Migration.Conflict = delta.SourceWins
		there := desk.Ref{Kind: desk.Person, ID: s.Target.Add(desk.Person, desk.Fields{desk.Name: {"Dr. Ann"}, desk.Email: {"ann@x.example"}})}
		s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		s.full()
		if now, err := s.Target.AsTarget().Read(ctx, there); err != nil || now.Fields[desk.Name].First() != "Dr. Ann" {
			t.Errorf("cut off at %s: the name is %v, %v", s.Effects.Names[n-1], now.Fields[desk.Name], err)
		}
		if s.Restarts == 0 {
			return
		}
	}
}

// A person who was deleted in the target and made again in the same session: tickets point to the new one.
func TestEdgePersonCache(t *testing.T) {
	w := world(t)
	w.Migration.OnTargetGone = delta.RecreateGone
	ann := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
	w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"one"}, desk.Requester: {ann}})
	full(t, w)
	p := desk.Ref{Kind: desk.Person, ID: ann}
	w.Target.Remove(desk.Ref{Kind: desk.Person, ID: w.Target.Target(p)})
	w.Source.Edit(p, desk.Fields{desk.Name: {"Anne"}})
	id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"two"}, desk.Requester: {ann}})
	w.Wait(time.Hour)
	run(t, w, mainDelta)
	now := w.Target.Target(p)
	tgt, err := w.Target.AsTarget().Read(ctx, ticket(w.Target.Target(ticket(id))))
	if err != nil || tgt.Fields[desk.Requester].First() != now {
		t.Errorf("ticket points to person %v, the person is %s (%v)", tgt.Fields[desk.Requester], now, err)
	}
}

// The same where another process has made the person again, and this one has known the first one all the time.
func TestEdgePersonMadeElsewhere(t *testing.T) {
	s := newStage(t)
	s.Migration.OnTargetGone = delta.RecreateGone
	ann := desk.Ref{Kind: desk.Person, ID: s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})}
	s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"one"}, desk.Requester: {ann.ID}})
	other := own(t, s.World, s.World.Source.AsSource(), s.World.Target.AsTarget())
	do := func(q delta.Request) {
		s.Wait(time.Hour)
		if _, err := other(q); err != nil {
			t.Fatal(err)
		}
	}
	do(delta.Request{Kind: delta.Full, Scope: "all"})
	s.Target.Remove(desk.Ref{Kind: desk.Person, ID: s.Target.Target(ann)})
	s.Source.Edit(ann, desk.Fields{desk.Name: {"Anne"}})
	s.delta()
	id := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"two"}, desk.Requester: {ann.ID}})
	do(mainDelta)
	now, err := s.Target.AsTarget().Read(ctx, s.there(id))
	if is := s.Target.Target(ann); err != nil || now.Fields[desk.Requester].First() != is {
		t.Errorf("the ticket points to person %v, %v; the person is %s", now.Fields[desk.Requester], err, is)
	}
}

// A restart is stopped, a delta goes on, the restart is continued: the window's cutoff does not move back.
func TestEdgeCutoffBack(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	full(t, w)
	e := w.Engine()
	r, _, err := e.Start(ctx, delta.Request{Kind: delta.Full, Scope: "all", Restart: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Cancel(ctx, r.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Step(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	addTicket(w, "two")
	w.Wait(time.Hour)
	run(t, w, mainDelta)
	cut := func() string { o, _ := w.Engine().Status(ctx); return o.Windows[0].Cutoff }
	before := cut()
	run(t, w, delta.Request{Kind: delta.Full, Scope: "all", Continue: true})
	if after := cut(); after != before {
		t.Errorf("the cutoff went from %s back to %s", before, after)
	}
}

// Nor does it where the delta was carried out by a process whose clock is behind.
func TestEdgeCutoffBackByAnotherClock(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	late, carryLate := clocked(t, w, w.Source.AsSource(), -10*time.Minute)
	inTime, carryOn := clocked(t, w, w.Source.AsSource(), 0)
	must := func(r delta.Run, err error) {
		t.Helper()
		if err != nil || r.Status != delta.Verified {
			t.Fatal(r.Status, err)
		}
	}
	must(carryOn(fullAll))
	w.Wait(time.Hour)
	r, _, err := inTime.Start(ctx, delta.Request{Kind: delta.Full, Scope: "all", Restart: true})
	if err == nil {
		err = inTime.Cancel(ctx, r.ID, "test")
	}
	if err == nil {
		_, err = inTime.Step(ctx, r.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	addTicket(w, "two")
	must(carryLate(mainDelta))
	cut := func() string { o, _ := late.Status(ctx); return o.Windows[0].Cutoff }
	before := cut()
	must(carryOn(delta.Request{Kind: delta.Full, Scope: "all", Continue: true}))
	if after := cut(); after != before {
		t.Errorf("the cutoff went from %s back to %s", before, after)
	}
}

// A limit met while the target is read back after a create, on a target without markers: nothing is open.
func TestEdgeFalseDoubt(t *testing.T) {
	w := world(t)
	w.Target.NoMarkers = true
	id := addTicket(w, "one")
	for i := range 3 {
		w.Source.Say(id, true, desk.Author{Name: "Ann"}, fmt.Sprint("e", i), nil)
	}
	w.Target.Fail = failOnce("read", desk.ErrThrottled)
	r := run(t, w, fullAll)
	if c := reportOf(t, w, r.ID).Counts; c.Held != 0 {
		t.Errorf("%+v", reportOf(t, w, r.ID).Exceptions)
	}
}

// A full run reads everything: since belongs to deltas.
func TestEdgeFullSince(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	_, err := w.Run(delta.Request{Kind: delta.Full, Scope: "all", Since: w.Clock().Add(-time.Hour)}, nil)
	refused(t, err, "--since belongs to delta runs")
}

// A and B were merged in the target by its people. When A is deleted in the source, B is left alone.
func TestEdgeEventOnTargetMerged(t *testing.T) {
	for _, synced := range []bool{false, true} {
		t.Run(fmt.Sprint("synced ", synced), func(t *testing.T) {
			w := world(t)
			w.Migration.OnDeleted = delta.Mirror
			a, b := addTicket(w, "a"), addTicket(w, "b")
			w.Source.Say(b, true, desk.Author{Name: "Ann"}, "b1", nil)
			full(t, w)
			w.Target.Join(ticket(w.Target.Target(ticket(a))), ticket(w.Target.Target(ticket(b))))
			if synced {
				w.Source.Say(a, true, desk.Author{Name: "Ann"}, "a1", nil)
				w.Wait(time.Hour)
				run(t, w, mainDelta)
			}
			w.Source.Remove(ticket(a))
			w.Wait(time.Hour)
			run(t, w, mainDelta)
			if n := len(w.Target.Look()["ticket/"+b]); n != 1 {
				t.Errorf("b is %d times in the target", n)
			}
		})
	}
}

// The share of the threshold is of the run, not of what is planned so far.
func TestEdgeThresholdWhileListing(t *testing.T) {
	w := world(t)
	w.Migration.ThresholdCount, w.Migration.ThresholdShare = 5, 0.05
	w.Source.PageSize = 3
	for range 400 {
		addTicket(w, "x")
	}
	n := 0
	w.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "create" && n < 6 {
			n++
			return &desk.Error{Op: op, Class: desk.ErrRejected}
		}
		return nil
	}
	if r := run(t, w, fullAll); r.Status == delta.Stopped {
		t.Errorf("6 of 400 is 1.5 %%, the limit is 5 %%: %s", r.Why)
	}
}

// What people merged in the target keeps its fields, and the report names those that differ.
func TestEdgeKeptOfTargetMerged(t *testing.T) {
	w := world(t)
	a, b := addTicket(w, "a"), addTicket(w, "b")
	full(t, w)
	w.Target.Join(ticket(w.Target.Target(ticket(a))), ticket(w.Target.Target(ticket(b))))
	w.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"changed"}})
	w.Wait(time.Hour)
	rep := reportOf(t, w, run(t, w, mainDelta).ID)
	if len(rep.Kept) == 0 && len(rep.Exceptions) == 0 {
		t.Errorf("the changed subject arrived nowhere and the report says nothing: %+v", rep.Counts)
	}
}

// The ticket that lives on is outside the scope: what becomes of the migrated one that was merged into it.
func TestEdgeMergedOutOfScope(t *testing.T) {
	w := world(t)
	b := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"b"}, desk.Group: {"Sales"}, desk.Status: {"open"}})
	a := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"a"}, desk.Group: {"Support"}, desk.Status: {"open"}})
	run(t, w, delta.Request{Kind: delta.Full, Scope: "support"})
	w.Source.Join(ticket(a), ticket(b))
	w.Wait(time.Hour)
	run(t, w, delta.Request{Kind: delta.Delta, Window: "support"})
	x, _ := w.Engine().Explain(ctx, ticket(a))
	if got := w.Target.Look()["ticket/"+a][0].Fields[desk.Status]; got != "[resolved]" || x.Into != b {
		t.Errorf("status %s, merged into %q", got, x.Into)
	}
}

// A process with another mapping does not work on a run that is pinned to the old one.
func TestEdgePinned(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	e := w.Engine()
	r, _, err := e.Start(ctx, fullAll)
	if err != nil {
		t.Fatal(err)
	}
	w.Migration.Hash = "h2"
	w.Restart()
	_, err = w.Engine().Step(ctx, r.ID)
	refused(t, err, "another version of the migration file")
	left := w.Engine().Work(ctx, ctx, []delta.Message{{Migration: "acme", Run: r.ID}})
	if rep, err := w.Engine().Report(ctx, r.ID); err != nil || len(left) != 1 || rep.Counts.Created != 0 || w.Target.Writes() != 0 {
		t.Errorf("%d messages given back, %+v, %v: the run is pinned to another file", len(left), rep.Counts, err)
	}
	// The command that began it takes the new file over.
	again, resumed, err := w.Engine().Start(ctx, delta.Request{Kind: delta.Full, Scope: "all", Continue: true})
	if err != nil || !resumed || again.Config != "h2" {
		t.Errorf("%+v, %v", again, err)
	}
}

// A new ticket takes in a migrated one before it has a target of its own: its create must not bring the entries along that
// come with the merge, and what the merge does to the target's fields is nobody's edit.
func TestEdgeMergedIntoNewTicket(t *testing.T) {
	w := world(t)
	old := addTicket(w, "old")
	w.Source.Say(old, true, desk.Author{Name: "Ann"}, "first", nil)
	full(t, w)
	fresh := addTicket(w, "fresh")
	w.Source.Say(fresh, true, desk.Author{Name: "Ann"}, "second", nil)
	w.Source.Join(ticket(old), ticket(fresh))
	w.Wait(time.Hour)
	rep := reportOf(t, w, run(t, w, mainDelta).ID)
	look := w.Target.Look()
	if all := look["ticket/"+fresh]; len(all) != 1 || len(all[0].Entries) != 2 {
		t.Errorf("%+v", all)
	}
	if _, there := look["ticket/"+old]; there || rep.Counts.Held != 0 {
		t.Errorf("the old ticket is still there: %v; %+v", there, rep.Counts)
	}
}

// Somebody whom only a ticket needs is created, and the process dies before the rest of them is written: the next one writes
// it, although nobody lists the person again.
func TestEdgeErrandUnfinished(t *testing.T) {
	w := world(t)
	firm := w.Source.Add(desk.Company, desk.Fields{desk.Name: {"Acme"}})
	ann := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}, desk.CompanyOf: {firm}})
	id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}, desk.Requester: {ann}})
	died := false
	w.Target.Cut = func() {
		if !died {
			died = true
			panic(deltatest.Crash{})
		}
	}
	run(t, w, delta.Request{Kind: delta.Sample, Scope: "all", N: 1})
	look := w.Target.Look()
	if got := look["person/"+ann][0].Fields[desk.CompanyOf]; !died || got != "[company/"+firm+"]" || look["ticket/"+id][0].Fields[desk.Requester] != "[person/"+ann+"]" {
		t.Errorf("died=%v company %q %v", died, got, look)
	}
}

package delta_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

func undo(id string) delta.Request { return delta.Request{Kind: delta.Undo, Undo: id} }

// tickets is what is on a desk without people and companies, which stay when a run is undone.
func tickets(d *deltatest.Desk) map[string][]deltatest.Seen {
	all := d.Look()
	maps.DeleteFunc(all, func(ref string, _ []deltatest.Seen) bool { return !strings.Contains(ref, "ticket/") })
	return all
}

func stays(rep report.Report, record string) string {
	for _, l := range rep.Left {
		if l.Record == record {
			return strings.Join(l.What, "; ")
		}
	}
	return ""
}

// left is what an undo lists, without ids that depend on the order of creation.
func left(rep report.Report) map[string][]string {
	out := map[string][]string{}
	for _, l := range rep.Left {
		out[l.Record] = l.What
	}
	return out
}

// A sample that is undone leaves the target as it was; people and companies stay, and are listed. What follows brings
// everything over once, as if nothing had been.
func TestSampleAndUndo(t *testing.T) {
	for _, hides := range []bool{false, true} {
		t.Run(fmt.Sprintf("source hides sizes=%v", hides), func(t *testing.T) { sampleAndUndo(t, hides) })
	}
}

func sampleAndUndo(t *testing.T, hidesSizes bool) {
	w := world(t)
	w.Source.HidesSizes = hidesSizes
	s := seed(w)
	w.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"of the target's own"}, desk.Status: {"open"}})
	before := w.Target.Look()
	first := run(t, w, sample(7))
	if n := len(w.Target.Look()["ticket/"+s.mail]); n != 1 {
		t.Fatalf("the sample moved the ticket %d times", n)
	}
	rehearsal := undo(first.ID)
	rehearsal.Dry = true
	moved := w.Target.Look()
	if rep := reportOf(t, w, run(t, w, rehearsal).ID); rep.Counts.Updated != 7 || cmp.Diff(moved, w.Target.Look()) != "" {
		t.Errorf("a rehearsal of the undo: %+v", rep.Counts)
	} else if len(rep.Would) != 7 || rep.Would[0].What != "would be removed" {
		t.Errorf("it lists %+v", rep.Would)
	}
	rep := reportOf(t, w, run(t, w, undo(first.ID)).ID)
	if rep.Status != "verified" || rep.Counts.Updated != 7 || rep.Counts.Excluded != 2 || rep.Undoes != first.ID {
		t.Errorf("%s %+v", rep.Status, rep.Counts)
	}
	after := w.Target.Look()
	for ref := range after {
		if !strings.Contains(ref, "ticket/") && len(before[ref]) == 0 {
			if stays(rep, ref) == "" {
				t.Errorf("%s stays and is not listed: %+v", ref, rep.Left)
			}
			delete(after, ref)
		}
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("the target is not as it was (-before +after):\n%s", d)
	}
	o, err := w.Engine().Status(ctx)
	if err != nil || o.Due["all"] != 7 || o.Runs[0].UndoneBy != rep.Run {
		t.Errorf("due: %v; %+v %v", o.Due, o.Runs[0], err)
	}
	if rep := reportOf(t, w, first.ID); rep.UndoneBy == "" {
		t.Error("the sample's report does not say that it was undone")
	}

	full(t, w)
	plain := world(t)
	seed(plain)
	full(t, plain)
	want := plain.Target.Look()
	got := w.Target.Look()
	maps.DeleteFunc(got, func(ref string, _ []deltatest.Seen) bool { return strings.HasPrefix(ref, "own ticket/") })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("after the full run (-without sample and undo +with):\n%s", d)
	}
	if o, err = w.Engine().Status(ctx); err != nil || o.Due["all"] != 0 {
		t.Errorf("due: %v %v", o.Due, err)
	}
}

// change is a day of work in the source: fields, replies, a ticket each that is new, and people at work in the target.
type change struct {
	*script
	edited, touched, fresh, taken string
}

func changed(w *deltatest.World, s *script) *change {
	c := &change{script: s, edited: s.linked, touched: s.survivor}
	w.Until(time.Date(2026, 3, 11, 9, 0, 0, 0, time.UTC))
	w.Source.Edit(ticket(c.edited), desk.Fields{desk.Status: {"stalled"}, desk.Subject: {"a new subject"}, desk.Type: {"question"}})
	w.Source.Edit(ticket(c.touched), desk.Fields{desk.Status: {"stalled"}, desk.Subject: {"another subject"}})
	w.Source.Say(s.mail, true, desk.Author{ID: s.ann, Name: "Ann"}, "still burning", nil)
	carl := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Carl"}, desk.Email: {"carl@z.example"}})
	add := func(subject string) string {
		id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {subject}, desk.Status: {"open"}, desk.Group: {"Sales"}, desk.Requester: {carl}, desk.LinkParent: {s.mail}})
		w.Source.Say(id, true, desk.Author{ID: carl, Name: "Carl"}, "hello", nil)
		return id
	}
	c.fresh, c.taken = add("fresh"), add("taken")
	w.Wait(time.Hour)
	return c
}

// people of the target work on what the delta brought.
func (c *change) people(w *deltatest.World) {
	w.Target.Edit(ticket(w.Target.Target(ticket(c.touched))), desk.Fields{desk.Status: {"resolved"}})
	w.Target.Say(w.Target.Target(ticket(c.taken)), true, desk.Author{Name: "agent"}, "on it", nil)
}

// want is the target after the undo: as before the delta, but for what people did since, what they did it on, and the entry
// that cannot be taken back.
func (c *change) want(before, delta map[string][]deltatest.Seen) map[string][]deltatest.Seen {
	want := maps.Clone(before)
	want["ticket/"+c.mail] = delta["ticket/"+c.mail] // the reply stays
	touched := before["ticket/"+c.touched][0]
	touched.Fields = maps.Clone(touched.Fields)
	touched.Fields[desk.Status] = "[resolved]"
	want["ticket/"+c.touched] = []deltatest.Seen{touched}
	taken := delta["ticket/"+c.taken][0]
	taken.Entries = append(slices.Clone(taken.Entries), " public=true on it")
	want["ticket/"+c.taken] = []deltatest.Seen{taken}
	return want
}

// A delta that is undone: fields and created tickets back, people's work since untouched and listed, and the next delta
// brings everything again, once.
func TestDeltaAndUndo(t *testing.T) {
	for _, tells := range []bool{false, true} {
		t.Run(fmt.Sprintf("tells touched=%v", tells), func(t *testing.T) {
			w := world(t)
			w.Target.TellsTouched = tells
			s := seed(w)
			full(t, w)
			before := tickets(w.Target)
			c := changed(w, s)
			second := run(t, w, mainDelta)
			brought := tickets(w.Target)
			c.people(w)
			rep := reportOf(t, w, run(t, w, undo(second.ID)).ID)
			if d := cmp.Diff(c.want(before, brought), tickets(w.Target)); d != "" {
				t.Errorf("the target after the undo (-want +got):\n%s", d)
			}
			for record, words := range map[string]string{
				"ticket/" + c.touched: "status was changed since",
				"ticket/" + c.taken:   "somebody has worked on it since (1 entries that the run is not known to have written",
				"ticket/" + c.mail:    "entries that the run added stay",
			} {
				if got := stays(rep, record); !strings.Contains(got, words) {
					t.Errorf("%s: %q, want %q", record, got, words)
				}
			}
			if got := stays(rep, "ticket/"+c.edited) + stays(rep, "ticket/"+c.fresh); got != "" {
				t.Errorf("listed although taken back: %s", got)
			}
			if rep.Status != "exceptions" || rep.Counts.Held != 3 || rep.Counts.Updated != 2 || len(rep.Left) != 4 { // and Carl
				t.Errorf("%s %+v %+v", rep.Status, rep.Counts, rep.Left)
			}
			x, err := w.Engine().Explain(ctx, ticket(c.edited))
			if last := x.Trail[len(x.Trail)-1]; err != nil || !slices.Equal(last.Wrote, []string{"status", "subject", "type"}) || len(x.Due) != 1 || !strings.Contains(x.Due[0], "an undo took back") {
				t.Errorf("%+v %v", x, err)
			}

			run(t, w, mainDelta)
			want := maps.Clone(brought)
			touched := brought["ticket/"+c.touched][0]
			touched.Fields = maps.Clone(touched.Fields)
			touched.Fields[desk.Status] = "[resolved]" // people's, and the source has not moved since
			want["ticket/"+c.touched] = []deltatest.Seen{touched}
			want["ticket/"+c.taken] = c.want(before, brought)["ticket/"+c.taken]
			if d := cmp.Diff(want, tickets(w.Target)); d != "" {
				t.Errorf("the next delta brings it again (-want +got):\n%s", d)
			}
			if idle := reportOf(t, w, run(t, w, mainDelta).ID); idle.Counts.Planned != 0 {
				t.Errorf("something stays due: %+v", idle.Counts)
			}
		})
	}
}

// TestCrashUndo cuts a run and its undo off before and after every effect, with messages in order and in disorder, and wants
// the target of the undisturbed one: after the undo, and after the run that follows it. A second undo is refused.
func TestCrashUndo(t *testing.T) {
	t.Parallel()
	type ends struct {
		undone, again map[string][]deltatest.Seen
		rep           report.Report
		from, to      int
		w             *deltatest.World
	}
	// undone undoes a run after people have been at work, and then the next one brings everything again.
	undone := func(e *ends, q delta.Request, people func(), next delta.Request) error {
		w := e.w
		e.from = w.Effects.Count() + 1
		r, err := w.Run(q, nil)
		if err != nil {
			return err
		}
		people()
		w.Wait(time.Hour)
		u, err := w.Run(undo(r.ID), nil)
		if err != nil {
			return err
		}
		if u.Status != delta.Exceptions {
			return fmt.Errorf("the undo ended %s: %s", u.Status, u.Why)
		}
		e.to, e.undone = w.Effects.Count(), tickets(w.Target)
		if e.rep, err = w.Engine().Report(ctx, u.ID); err != nil {
			return err
		}
		_, _, err = w.Engine().Start(ctx, undo(r.ID))
		if err == nil || !strings.Contains(err.Error(), "was undone by run "+u.ID) {
			return fmt.Errorf("undone a second time: %w", err)
		}
		_, err = w.Run(next, nil)
		e.again = tickets(w.Target)
		return err
	}
	plays := map[string]func(*ends, *script) error{
		"delta": func(e *ends, s *script) error {
			if _, err := e.w.Run(fullAll, nil); err != nil {
				return err
			}
			c := changed(e.w, s)
			return undone(e, mainDelta, func() { c.people(e.w) }, mainDelta)
		},
		"sample": func(e *ends, s *script) error {
			people := func() {
				e.w.Target.Say(e.w.Target.Target(ticket(s.mail)), true, desk.Author{Name: "agent"}, "on it", nil)
			}
			return undone(e, sample(4), people, fullAll)
		},
	}
	for what, scenario := range plays {
		for _, laptop := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s laptop=%v", what, laptop), func(t *testing.T) {
				t.Parallel()
				play := func(disorder uint64, cuts ...deltatest.Cut) (e ends, err error) {
					e.w = deltatest.NewWorld(migration())
					e.w.Laptop, e.w.Disorder, e.w.Effects.Cuts = laptop, disorder, cuts
					e.w.Target.TellsTouched = true
					err = scenario(&e, seed(e.w))
					return e, err
				}
				calm, err := play(0)
				if err != nil {
					t.Fatal(err)
				}
				visited := 0
				for i := calm.from; i <= calm.to; i += stride(11) {
					for _, after := range []bool{true, false} {
						for _, tc := range []struct {
							disorder uint64
							cuts     []deltatest.Cut
						}{
							{0, []deltatest.Cut{{Effect: i, After: after}}},
							{uint64(i), []deltatest.Cut{{Effect: i, After: after}}},
							{uint64(i), []deltatest.Cut{{Effect: i, After: after}, {Effect: i + 2, After: !after}}},
							{0, []deltatest.Cut{{Effect: i, After: after}, {Effect: i + 7, After: !after}}},
						} {
							visited++
							got, err := play(tc.disorder, tc.cuts...)
							if err == nil {
								if d := cmp.Diff(calm.undone, got.undone); d != "" {
									err = fmt.Errorf("another end of the undo:\n%s", d)
								} else if d := cmp.Diff(calm.again, got.again); d != "" {
									err = fmt.Errorf("another end of the run after it:\n%s", d)
								} else if got.rep.Counts != calm.rep.Counts {
									err = fmt.Errorf("the undo reports %+v, not %+v", got.rep.Counts, calm.rep.Counts)
								} else if d := cmp.Diff(left(calm.rep), left(got.rep)); d != "" {
									err = fmt.Errorf("the undo lists something else:\n%s", d)
								}
							}
							if err != nil {
								t.Fatalf("disorder=%d cut %v (%s): %v", tc.disorder, tc.cuts, name(got.w.Effects, tc.cuts), err)
							}
						}
					}
				}
				t.Logf("crash explorer, undo of a %s: laptop=%v effects %d to %d visited=%d violations=0", what, laptop, calm.from, calm.to, visited)
			})
		}
	}
}

// Every write of a sample or delta has its before-image first, and a ticket has one object at the most. A full run keeps none.
func TestImagesComeFirst(t *testing.T) {
	w := world(t)
	s := seed(w)
	full(t, w)
	undone := func(names []string, words string) (n int) {
		for _, name := range names {
			if strings.HasPrefix(name, words+" undo/acme/") {
				n++
			}
		}
		return n
	}
	if n := undone(w.Effects.Names, "object") + undone(w.Effects.Names, "put"); n != 0 {
		t.Errorf("a full run keeps %d before-images", n)
	}
	c := changed(w, s)
	w.Source.Remove(ticket(s.doomed))
	from := w.Effects.Count()
	source := map[string]string{}
	for _, id := range []string{s.mail, s.doomed, c.edited, c.touched} {
		source["ticket/"+w.Target.Target(ticket(id))] = "ticket/" + id
	}
	run(t, w, mainDelta)
	for _, id := range []string{c.fresh, c.taken} {
		source["ticket/"+w.Target.Target(ticket(id))] = "ticket/" + id
	}
	rows, writes := map[string]bool{}, 0
	for _, name := range w.Effects.Names[from:] {
		switch f := strings.Fields(name); {
		case strings.HasPrefix(name, "put undo/acme/"):
			rows[f[2]] = true
		case strings.HasPrefix(name, "target create "):
			writes++
			if !rows[f[2]] {
				t.Errorf("%q without a before-image", name)
			}
		case strings.HasPrefix(name, "target apply "):
			writes++
			if source := source[f[2]]; !rows[source] {
				t.Errorf("%q (%s) without a before-image", name, source)
			}
		}
	}
	// Four tickets that were there before were changed, three records are new.
	if n := undone(w.Effects.Names[from:], "object"); n != 4 || len(rows) != 7 || writes == 0 || !rows["ticket/"+c.edited] {
		t.Errorf("%d objects, rows of %v, %d writes", n, rows, writes)
	}
}

// cancelled plays a sample whose create answers get lost and that is cancelled before it could look what became of them.
func cancelled(t *testing.T, w *deltatest.World) (id, undone string) {
	t.Helper()
	id = addTicket(w, "lost")
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "hello", nil)
	w.Target.Lose = func(op string, _ desk.Ref) error {
		if op == "create" {
			return &desk.Error{Op: "create", Class: desk.ErrTransient, Said: "connection reset"}
		}
		return nil
	}
	e := w.Engine()
	r, err := w.Run(sample(1), func() {
		if w.Target.Writes() > 0 {
			o, err := e.Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Cancel(ctx, o.Runs[0].ID, "changed my mind"); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err != nil || r.Status != delta.Cancelled {
		t.Fatalf("%+v %v", r, err)
	}
	w.Target.Lose = nil
	if n := len(w.Target.Look()["ticket/"+id]); n != 1 {
		t.Fatalf("in the target %d times", n)
	}
	w.Wait(time.Hour)
	return id, r.ID
}

// A run ended before it learned what became of a create. Where the desk can be searched and tells whether people were at
// work, the ticket is found and removed; else it is listed, and nobody guesses.
func TestUndoLostCreate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		tells  bool
		blind  bool
		gone   bool
		words  string
		agents bool
	}{
		{name: "found and removed", tells: true, gone: true},
		{name: "agents were at work", tells: true, agents: true, words: "1 entries that the run is not known to have written"},
		{name: "nobody can tell", words: "nobody can tell"},
		{name: "cannot be searched", tells: true, blind: true, words: "cannot be searched"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := world(t)
			w.Target.TellsTouched, w.Target.NoFinder = tc.tells, tc.blind
			id, sampled := cancelled(t, w)
			if tc.agents {
				w.Target.Say(w.Target.Target(ticket(id)), true, desk.Author{Name: "agent"}, "mine", nil)
			}
			rep := reportOf(t, w, run(t, w, undo(sampled)).ID)
			if gone := len(w.Target.Look()["ticket/"+id]) == 0; gone != tc.gone || !strings.Contains(stays(rep, "ticket/"+id), tc.words) {
				t.Errorf("gone=%v, listed: %q", gone, stays(rep, "ticket/"+id))
			}
			if tc.blind {
				return
			}
			full(t, w) // whatever is there is found, what was removed is created again
			if n := len(w.Target.Look()["ticket/"+id]); n != 1 {
				t.Errorf("after the full run it is %d times in the target", n)
			}
		})
	}
	// The create never took effect: there is nothing to remove, and nothing is in doubt any more.
	w := world(t)
	id := addTicket(w, "lost")
	w.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "create" {
			return &desk.Error{Op: "create", Class: desk.ErrTransient}
		}
		return nil
	}
	sampled := run(t, w, sample(1))
	if rep := reportOf(t, w, sampled.ID); rep.Counts.Failed != 1 {
		t.Fatalf("%+v", rep.Counts)
	}
	w.Target.Fail = nil
	if rep := reportOf(t, w, run(t, w, undo(sampled.ID)).ID); rep.Status != "verified" || rep.Counts.Unchanged != 1 {
		t.Errorf("%s %+v", rep.Status, rep.Counts)
	}
	full(t, w)
	if n := len(w.Target.Look()["ticket/"+id]); n != 1 {
		t.Errorf("it is %d times in the target", n)
	}
}

// What a person had decided, or a policy, is taken back with the rest, and the conflict is there again: people's value is
// never overwritten by the delta that follows.
func TestUndoDecision(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	full(t, w)
	w.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
	w.Target.Edit(ticket(w.Target.Target(ticket(id))), desk.Fields{desk.Status: {"resolved"}})
	run(t, w, mainDelta)
	if err := w.Engine().Decide(ctx, ticket(id), desk.Status, "", delta.Decision{Choice: delta.ChooseSource}); err != nil {
		t.Fatal(err)
	}
	carried := run(t, w, mainDelta)
	status := func(want string) {
		t.Helper()
		if got := w.Target.Look()["ticket/"+id][0].Fields[desk.Status]; got != "["+want+"]" {
			t.Errorf("status %s, want %s", got, want)
		}
	}
	status("stalled")
	run(t, w, undo(carried.ID))
	status("resolved")
	if rep := reportOf(t, w, run(t, w, mainDelta).ID); rep.Counts.Held != 1 {
		t.Errorf("the conflict is not asked again: %+v", rep.Counts)
	}
	status("resolved")
}

// Deletions and merges of the source, carried over and undone: what a policy wrote goes back and is carried over again; what
// no desk takes back is listed.
func TestUndoEvents(t *testing.T) {
	for policy, words := range map[delta.OnEvent]string{delta.Close: "", delta.Tag: "", delta.Mirror: "it was deleted, which cannot be taken back"} {
		t.Run("deleted "+string(policy), func(t *testing.T) {
			w := world(t)
			w.Migration.OnDeleted = policy
			id := addTicket(w, "one")
			full(t, w)
			before := w.Target.Look()
			w.Source.Remove(ticket(id))
			r := run(t, w, mainDelta)
			mirrored := w.Target.Look()
			if cmp.Equal(before, mirrored) {
				t.Fatal("the delta did nothing")
			}
			rep := reportOf(t, w, run(t, w, undo(r.ID)).ID)
			if got := stays(rep, "ticket/"+id); got != words {
				t.Errorf("listed: %q, want %q", got, words)
			}
			if words == "" {
				if d := cmp.Diff(before, w.Target.Look()); d != "" {
					t.Errorf("after the undo:\n%s", d)
				}
			}
			run(t, w, mainDelta)
			if d := cmp.Diff(mirrored, w.Target.Look()); d != "" {
				t.Errorf("after the next delta:\n%s", d)
			}
		})
	}
	for policy, words := range map[delta.OnEvent]string{delta.Close: "", delta.Tag: "", delta.Mirror: "was merged into it, which cannot be taken back"} {
		t.Run("merged "+string(policy), func(t *testing.T) {
			w := world(t)
			w.Migration.OnMerged = policy
			a, b := addTicket(w, "a"), addTicket(w, "b")
			full(t, w)
			before := w.Target.Look()
			w.Source.Join(ticket(a), ticket(b))
			r := run(t, w, mainDelta)
			merged := w.Target.Look()
			if cmp.Equal(before, merged) {
				t.Fatal("the delta did nothing")
			}
			rep := reportOf(t, w, run(t, w, undo(r.ID)).ID)
			if got := stays(rep, "ticket/"+b); !strings.Contains(got, words) || (got == "") != (words == "") {
				t.Errorf("listed: %q, want %q", got, words)
			}
			if words == "" {
				if d := cmp.Diff(before, w.Target.Look()); d != "" {
					t.Errorf("after the undo:\n%s", d)
				}
			}
			run(t, w, mainDelta)
			if d := cmp.Diff(merged, w.Target.Look()); d != "" {
				t.Errorf("after the next delta:\n%s", d)
			}
		})
	}
	t.Run("merged into one that does not move", func(t *testing.T) {
		w := world(t)
		in := addTicket(w, "in")
		run(t, w, delta.Request{Kind: delta.Full, Scope: "support"})
		before := w.Target.Look()
		out := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"out"}, desk.Group: {"Sales"}})
		w.Source.Join(ticket(in), ticket(out))
		r := run(t, w, delta.Request{Kind: delta.Delta, Window: "support"})
		closed := w.Target.Look()
		if cmp.Equal(before, closed) {
			t.Fatal("the delta did nothing")
		}
		run(t, w, undo(r.ID))
		if d := cmp.Diff(before, w.Target.Look()); d != "" {
			t.Errorf("after the undo:\n%s", d)
		}
		run(t, w, delta.Request{Kind: delta.Delta, Window: "support"})
		if d := cmp.Diff(closed, w.Target.Look()); d != "" {
			t.Errorf("after the next delta:\n%s", d)
		}
	})
}

// An entry that was redacted or hidden in the source stays so in the target, and its old words are nowhere: no undo makes
// readable again what the source took back. The fields of its ticket go back, and what stays is listed.
func TestUndoRevised(t *testing.T) {
	const secret = "Zaphod"
	w := world(t)
	w.Migration.OnPrivacy = delta.Mirror
	a, b := addTicket(w, "a"), addTicket(w, "b")
	w.Source.Say(a, true, desk.Author{Name: "Ann"}, secret, nil)
	w.Source.Say(b, true, desk.Author{Name: "Ann"}, "that one, too", nil)
	full(t, w)
	before := w.Target.Look()
	w.Wait(time.Hour)
	w.Source.Redact(a, 0)
	w.Source.Flip(b, 0)
	for _, id := range []string{a, b} {
		w.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"5"}})
	}
	w.Wait(time.Hour)
	r := run(t, w, mainDelta)
	revised := w.Target.Look()
	want := map[string][]deltatest.Seen{}
	for _, id := range []string{"ticket/" + a, "ticket/" + b} {
		if cmp.Equal(before[id][0].Entries, revised[id][0].Entries) {
			t.Fatalf("nothing of %s was revised", id)
		}
		seen := before[id][0]
		seen.Entries = revised[id][0].Entries
		want[id] = []deltatest.Seen{seen}
	}
	rep := reportOf(t, w, run(t, w, undo(r.ID)).ID)
	if d := cmp.Diff(want, w.Target.Look()); d != "" {
		t.Errorf("after the undo:\n%s", d)
	}
	for _, id := range []string{a, b} {
		if got := stays(rep, "ticket/"+id); !strings.Contains(got, "entries that the run revised stay as they are") {
			t.Errorf("%s: listed %q", id, got)
		}
	}
	if keys := w.Store.ObjectsWith("undo/", secret); len(keys) > 0 {
		t.Errorf("before-images hold what was redacted: %v", keys)
	}
	run(t, w, mainDelta)
	if d := cmp.Diff(revised, w.Target.Look()); d != "" {
		t.Errorf("after the next delta:\n%s", d)
	}
}

// A later run wrote to what the sample created: it is not the sample's alone any more.
func TestUndoNewestFirst(t *testing.T) {
	w := world(t)
	id, other := addTicket(w, "one"), addTicket(w, "two")
	first := run(t, w, sample(2))
	full(t, w)
	w.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
	w.Wait(time.Hour)
	second := run(t, w, mainDelta)
	rep := reportOf(t, w, run(t, w, undo(first.ID)).ID)
	if got := stays(rep, "ticket/"+id); !strings.Contains(got, "run "+second.ID+" wrote to it since") || len(w.Target.Look()["ticket/"+id]) != 1 {
		t.Errorf("listed: %q", got)
	}
	if n := len(w.Target.Look()["ticket/"+other]); n != 0 {
		t.Errorf("the other one is %d times in the target", n)
	}
	run(t, w, mainDelta)
	if n := len(w.Target.Look()["ticket/"+other]); n != 1 {
		t.Errorf("after the next delta the other one is %d times in the target", n)
	}
}

// Undone newest first, both go: what an undo put back is no later run's work.
func TestUndoBoth(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	first := run(t, w, sample(1))
	full(t, w)
	w.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "a reply", nil)
	w.Wait(time.Hour)
	second := run(t, w, mainDelta)
	run(t, w, undo(second.ID))
	if rep := reportOf(t, w, run(t, w, undo(first.ID)).ID); rep.Status != "verified" || len(tickets(w.Target)) != 0 {
		t.Errorf("%s %+v", rep.Status, rep.Left)
	}
	run(t, w, mainDelta)
	if got := w.Target.Look()["ticket/"+id]; len(got) != 1 || len(got[0].Entries) != 1 || got[0].Fields[desk.Status] != "[stalled]" {
		t.Errorf("after the next delta: %+v", got)
	}
}

func TestUndoRefusals(t *testing.T) {
	w := world(t)
	seed(w)
	start := func(id, words string) {
		t.Helper()
		n := w.Effects.Count()
		_, _, err := w.Engine().Start(ctx, undo(id))
		refused(t, err, words)
		if w.Effects.Count() != n {
			t.Errorf("a refusal wrote: %v", w.Effects.Names[n:])
		}
	}
	start("nope", "there is no run nope")
	baseline := run(t, w, delta.Request{Kind: delta.Full, Scope: "all"})
	start(baseline.ID, "A full run is undone by its own means")
	start(run(t, w, delta.Request{Kind: delta.Verify, Scope: "all"}).ID, "wrote nothing")
	rehearsal := sample(2)
	rehearsal.Dry = true
	start(run(t, w, rehearsal).ID, "wrote nothing")
	s, _, err := w.Engine().Start(ctx, sample(2))
	if err != nil {
		t.Fatal(err)
	}
	start(s.ID, "let it finish first")
	run(t, w, sample(2)) // goes on with it
	addTicket(w, "new")
	d := run(t, w, mainDelta)
	u, _, err := w.Engine().Start(ctx, undo(d.ID))
	if err != nil {
		t.Fatal(err)
	}
	start(s.ID, "has the migration to itself")
	_, _, err = w.Engine().Start(ctx, mainDelta)
	refused(t, err, "has the migration to itself")
	run(t, w, undo(d.ID))
	start(d.ID, "was undone by run "+u.ID)
	start(u.ID, "is an undo itself")
	fresh := addTicket(w, "another")
	w.Wait(time.Hour)
	late := run(t, w, mainDelta)
	scope := w.Migration.Scopes["all"]
	w.Migration.Scopes = map[string]desk.Scope{"support": w.Migration.Scopes["support"]}
	w.Restart()
	start(late.ID, "no longer in the migration file")
	w.Migration.Scopes["all"] = scope
	w.Restart()
	w.Wait(delta.UndoKept)
	start(late.ID, "its before-images are gone")
	if n := len(w.Target.Look()["ticket/"+fresh]); n != 1 {
		t.Errorf("%d", n)
	}
}

// A before-image that is gone is said, and nothing is guessed.
func TestUndoWithoutImage(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	full(t, w)
	w.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
	w.Wait(time.Hour)
	r := run(t, w, mainDelta)
	after := w.Target.Look()
	w.Store.Expire("undo/")
	rep := reportOf(t, w, run(t, w, undo(r.ID)).ID)
	if got := stays(rep, "ticket/"+id); !strings.Contains(got, "before-images are no longer there") || rep.Status != "exceptions" {
		t.Errorf("%s %q", rep.Status, got)
	}
	if d := cmp.Diff(after, w.Target.Look()); d != "" {
		t.Error(d)
	}
}

// A record that fails while a run is undone: the others are undone, and the same command tries again.
func TestUndoAgain(t *testing.T) {
	w := world(t)
	a, b := addTicket(w, "a"), addTicket(w, "b")
	first := run(t, w, sample(2))
	stuck := w.Target.Target(ticket(a))
	w.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "delete" && ref.ID == stuck {
			return &desk.Error{Op: "delete", Class: desk.ErrRejected, Said: "locked"}
		}
		return nil
	}
	rep := reportOf(t, w, run(t, w, undo(first.ID)).ID)
	if rep.Counts.Failed != 1 || rep.Counts.Updated != 1 || !strings.Contains(rep.Exceptions[0].Next, "deltadesk undo "+first.ID) {
		t.Errorf("%+v %+v", rep.Counts, rep.Exceptions)
	}
	w.Target.Fail = nil
	rep = reportOf(t, w, run(t, w, undo(first.ID)).ID)
	if rep.Status != "verified" || rep.Counts.Updated != 1 || rep.Counts.Unchanged != 1 {
		t.Errorf("%s %+v", rep.Status, rep.Counts)
	}
	if look := tickets(w.Target); len(look) != 0 {
		t.Errorf("%v", look)
	}
	full(t, w)
	for _, id := range []string{a, b} {
		if n := len(w.Target.Look()["ticket/"+id]); n != 1 {
			t.Errorf("ticket %s is %d times in the target", id, n)
		}
	}
}

// A sample that mailed is stopped, and can be taken back.
func TestUndoAfterMail(t *testing.T) {
	w := world(t)
	w.Target.TellsTouched = true
	id := addTicket(w, "one")
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "first", nil)
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "second", nil)
	w.Target.Lose = func(op string, _ desk.Ref) error {
		if op == "apply" {
			return &desk.Error{Op: op, Class: desk.ErrMailed}
		}
		return nil
	}
	r := run(t, w, sample(1))
	if r.Status != delta.Stopped || len(tickets(w.Target)) != 1 {
		t.Fatalf("%s %v", r.Status, tickets(w.Target))
	}
	w.Target.Lose = nil
	w.Wait(time.Hour)
	if rep := reportOf(t, w, run(t, w, undo(r.ID)).ID); rep.Status != "verified" || len(tickets(w.Target)) != 0 {
		t.Errorf("%s %+v, still there: %v", rep.Status, rep.Left, tickets(w.Target))
	}
}

// Values of customers are in the images and nowhere else.
func TestUndoKeepsWords(t *testing.T) {
	const secret = "Zaphod"
	w := world(t)
	id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {secret}, desk.Status: {"open"}, desk.Group: {"Support"}, desk.Custom("Ship"): {secret}})
	w.Source.Say(id, true, desk.Author{Name: secret}, secret, nil)
	r := run(t, w, sample(1))
	full(t, w)
	w.Source.Edit(ticket(id), desk.Fields{desk.Subject: {secret + " Beeblebrox"}})
	w.Wait(time.Hour)
	d := run(t, w, mainDelta)
	run(t, w, undo(d.ID))
	run(t, w, undo(r.ID))
	if rows := w.Store.RowsWith(secret); len(rows) != 0 {
		t.Errorf("rows hold customers' words: %v", rows)
	}
	if len(w.Store.ObjectsWith("undo/", secret)) == 0 {
		t.Error("no image holds the old value: the check proves nothing")
	}
}

// An attempt of the run wrote and never learned it, and the source moved before the next attempt: what goes back is what was
// there before the first one, not what it left behind.
func TestUndoTwoAttempts(t *testing.T) {
	w := world(t)
	id := addTicket(w, "one")
	full(t, w)
	before := w.Target.Look()
	w.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
	w.Wait(time.Hour)
	lost := false
	w.Target.Lose = func(op string, _ desk.Ref) error {
		if op != "apply" || lost {
			return nil
		}
		lost = true
		w.Source.Edit(ticket(id), desk.Fields{desk.Status: {"resolved"}})
		return &desk.Error{Op: op, Class: desk.ErrTransient}
	}
	r := run(t, w, mainDelta)
	if got := w.Target.Look()["ticket/"+id][0].Fields[desk.Status]; !lost || got != "[resolved]" {
		t.Fatalf("lost=%v status %s", lost, got)
	}
	run(t, w, undo(r.ID))
	if d := cmp.Diff(before, w.Target.Look()); d != "" {
		t.Errorf("after the undo:\n%s", d)
	}
}

// A target that writes values its own way: they are known again as what the run wrote.
func TestUndoNormalised(t *testing.T) {
	w := world(t)
	w.Target.Normalise = func(f desk.Field, v desk.Value) desk.Value {
		if f != desk.Type || len(v) == 0 {
			return slices.Clone(v)
		}
		return desk.Value{strings.ToUpper(v[0])}
	}
	id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}, desk.Type: {"question"}})
	full(t, w)
	before := w.Target.Look()
	w.Source.Edit(ticket(id), desk.Fields{desk.Type: {"problem"}})
	w.Wait(time.Hour)
	r := run(t, w, mainDelta)
	run(t, w, undo(r.ID))
	if d := cmp.Diff(before, w.Target.Look()); d != "" {
		t.Errorf("after the undo:\n%s", d)
	}
	run(t, w, mainDelta)
	if got := w.Target.Look()["ticket/"+id][0].Fields[desk.Type]; got != "[PROBLEM]" {
		t.Errorf("after the next delta: %s", got)
	}
}

// People set a field of their own on a ticket that the run created: it is not removed. They restore one that was: it is found
// again instead of being created a second time.
func TestUndoPeopleAtWork(t *testing.T) {
	w := world(t)
	a, b := addTicket(w, "a"), addTicket(w, "b")
	r := run(t, w, sample(2))
	ours, theirs := ticket(w.Target.Target(ticket(a))), ticket(w.Target.Target(ticket(b)))
	w.Target.Edit(theirs, desk.Fields{desk.Custom("Internal"): {"mine"}})
	rep := reportOf(t, w, run(t, w, undo(r.ID)).ID)
	if got := stays(rep, "ticket/"+b); !strings.Contains(got, "fields that the run did not write") || len(w.Target.Look()["ticket/"+b]) != 1 {
		t.Errorf("listed: %q", got)
	}
	w.Target.Restore(ours)
	full(t, w)
	for _, id := range []string{a, b} {
		if n := len(w.Target.Look()["ticket/"+id]); n != 1 {
			t.Errorf("ticket %s is %d times in the target", id, n)
		}
	}
}

// The answer to a write with a reply in it was lost for good, on a target that cannot show which entries are ours. The undo
// puts the field back and settles nothing about the reply: the next delta still asks.
func TestUndoEntriesInDoubt(t *testing.T) {
	w := world(t)
	w.Target.NoMarkers = true
	id := addTicket(w, "one")
	full(t, w)
	w.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
	w.Source.Say(id, true, desk.Author{Name: "Ann"}, "once", nil)
	w.Wait(time.Hour)
	w.Target.Lose = func(op string, _ desk.Ref) error {
		if op == "apply" {
			return &desk.Error{Op: op, Class: desk.ErrTransient}
		}
		return nil
	}
	r := run(t, w, mainDelta)
	w.Target.Lose = nil
	run(t, w, undo(r.ID))
	if got := w.Target.Look()["ticket/"+id][0].Fields[desk.Status]; got != "[open]" {
		t.Errorf("status %s", got)
	}
	rep := reportOf(t, w, run(t, w, mainDelta).ID)
	if got := w.Target.Look()["ticket/"+id][0]; len(got.Entries) != 1 || rep.Counts.Held != 1 {
		t.Errorf("%d entries, %+v", len(got.Entries), rep.Counts)
	}
}

package sim

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

// The phases beside the full run and the rounds of deltas.
const (
	looking  = -4 // any run that only looks
	sampling = -3
	undoing  = -2
)

// amid is what people do in the source while a run looks.
var amid = []string{
	"source: new ticket", "source: reply", "source: note", "source: edit", "source: burst", "source: link", "source: delete", "source: restore", "source: spam",
	"source: no spam", "source: merge", "source: redact", "source: move to another group",
}

// sideScript draws what happens while a sample is moved, while a run is undone, and in the source while a run looks.
func sideScript(p params) []event {
	var out []event
	for phase, calls := range map[int]int{sampling: 600, undoing: 250, looking: 150} {
		if phase == sampling && p.sample == 0 || phase == undoing && !p.undone && p.undo == 0 {
			continue
		}
		r := rand.New(rand.NewPCG(p.seed, uint64(10+phase))) //nolint:gosec // phases are above -10
		for _, s := range sorts {
			if strings.HasPrefix(s.what, "operator") && s.what != "operator: cancel" || s.what == "target: harm" ||
				phase == looking && !slices.Contains(amid, s.what) {
				continue
			}
			for n := s.often/150 + 1; n > 0; n-- {
				if r.IntN(s.often/150*100+100) >= s.often {
					continue
				}
				e := event{phase: phase, at: r.IntN(calls), what: s.what, sub: r.Uint64()}
				if s.before && phase != looking && (!s.during || r.IntN(2) == 0) {
					e.at = -1
				}
				out = append(out, e)
			}
		}
	}
	return out
}

// sample moves a few tickets before anything else, and in some worlds takes them back.
func (w *world) sample(script []event) {
	s := &task{q: delta.Request{Kind: delta.Sample, Scope: "all", N: w.p.sample}}
	w.phase(sampling, script, s)
	w.sampled = s.id
	if s.id == "" || !w.p.undone || len(w.bad) > 0 {
		return
	}
	w.gap(undoing, script)
	w.undo(s.id, script)
}

// undoOne takes one of the deltas of a round back. What the next one brings again, the judge sees in the end.
func (w *world) undoOne(ds []*task, script []event) {
	for _, d := range ds {
		if d.id != "" && d.done && len(w.bad) == 0 {
			w.occur("undo/a delta")
			w.pass(6 * time.Minute)
			w.between(undoing, script)
			w.undo(d.id, script)
			return
		}
	}
}

// undo takes a run back, with the same command until nothing fails, and looks what has become of its tickets.
func (w *world) undo(run string, script []event) {
	w.undoing = true
	defer func() { w.undoing = false }()
	for n := 0; n < 4 && len(w.bad) == 0; n++ {
		u := &task{q: delta.Request{Kind: delta.Undo, Undo: run}}
		w.phase(undoing, script, u)
		if script = nil; u.id == "" {
			if n == 0 {
				w.violate("stuck", "run %s cannot be undone: %s", run, u.refused)
			}
			return
		}
		var rep report.Report
		w.must(w.operator(func(ctx context.Context, e *delta.Engine) (err error) {
			rep, err = e.Report(ctx, u.id)
			return err
		}))
		whole := (u.status == delta.Verified || u.status == delta.Exceptions) && rep.Counts.Failed == 0
		if whole {
			if run == w.sampled {
				w.undone(rep)
			}
			w.occur("undo/done")
			w.twice(run)
			return
		}
		w.occur("undo/not wholly")
	}
}

// twice undoes a run that is undone: nothing may come of it.
func (w *world) twice(run string) {
	before := len(w.dst.feed)
	u := &task{q: delta.Request{Kind: delta.Undo, Undo: run}}
	w.phase(-1, nil, u)
	if !strings.Contains(u.refused, "was undone by") || len(w.dst.feed) != before && !w.dst.t.automates {
		w.violate("overwritten", "run %s was undone twice: %q", run, u.refused)
	}
}

// unsure are reasons for which a ticket stays that nobody has touched: what the run did to it was never learned.
var unsure = []string{"nobody can tell", "cannot be searched", "merged", "not known to have written", "it is open who hid them"}

// undone compares what an undo says with what is there.
func (w *world) undone(rep report.Report) {
	left := map[string]string{}
	for _, l := range rep.Left {
		left[l.Record] = strings.Join(l.What, "; ")
	}
	for _, t := range w.dst.order {
		if t.ref.Kind != desk.Ticket || t.made != migration {
			continue
		}
		if !t.live() {
			continue
		}
		why := left[t.source.String()]
		_, at := w.dst.worked(t)
		switch {
		case why == "":
			w.violate("lost", "target %s of %s stays after the undo, and nobody is told", t.ref.ID, t.source)
		case at.IsZero() && w.dst.t.merger && w.dst.t.touched && !slices.ContainsFunc(unsure, func(s string) bool { return strings.Contains(why, s) }):
			w.violate("lost", "target %s of %s stays after the undo, and nobody has touched it: %s", t.ref.ID, t.source, why)
		default:
			w.occur("undo/a ticket stays")
		}
	}
}

// worked tells who else than the migration did something with a ticket of the migration, and when first.
func (d *simDesk) worked(t *record) (by actor, first time.Time) {
	note := func(who actor, at time.Time) {
		if who != migration && (first.IsZero() || who == people && by != people || who == by && at.Before(first)) {
			by, first = who, at
		}
	}
	for _, hist := range t.hist {
		for _, e := range hist {
			if e.old != e.val {
				note(e.by, e.at)
			}
		}
	}
	for _, s := range d.said {
		if s.in == t {
			note(people, s.en.at)
		}
	}
	if len(t.now().aliases) > 0 {
		note(people, t.madeAt)
	}
	return by, first
}

// removes looks at the removal of a ticket by an undo: nobody may have been at work on it, as far as could be seen.
func (d *simDesk) removes(t *record) {
	w := d.w
	w.occur("undo/a ticket is removed")
	t.removed = true
	if t.made != migration {
		w.violate("overwritten", "the undo removed target %s, which the migration did not make", t.ref.ID)
	}
	read := t.read[w.cur]
	for f := range t.hist {
		e, ok := lastChange(t, f)
		if !ok || e.by != people || e.at.After(read) || e.val == e.old {
			continue
		}
		ours := ""
		for _, x := range t.hist[f] {
			if x.by == migration {
				ours = x.val
			}
		}
		if d.t.touched || e.val != ours && e.val != "" && !t.around(e.at, 10*time.Second) { // what is empty may never have been filled, as far as such a desk tells
			w.violate("overwritten", "the undo removed target %s of %s, in which people had set %s to %q", t.ref.ID, t.source, f, e.val)
		}
	}
	for _, s := range d.said {
		if s.in == t && !s.en.at.Add(time.Second).After(read.Add(d.t.skew)) {
			w.violate("overwritten", "the undo removed target %s of %s, in which people had written entry %s", t.ref.ID, t.source, s.en.id)
		}
	}
	for _, x := range d.order {
		if x.now().into == t.ref.ID && !x.now().at.Add(time.Second).After(read.Add(d.t.skew)) {
			w.violate("overwritten", "the undo removed target %s of %s, into which people had merged %s", t.ref.ID, t.source, x.ref)
		}
	}
}

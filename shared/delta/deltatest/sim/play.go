package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

// task is a run that somebody wants, until it has come to an end.
type task struct {
	q       delta.Request
	id      string
	proc    *proc
	done    bool
	status  delta.Status
	refused string
	again   int
	from    time.Time // not before
}

// play is the whole migration: a full run of both scopes, rounds of deltas, and a last delta when all is calm.
func (w *world) play(script []event) {
	w.settleIn()
	if w.p.sample > 0 {
		w.sample(script)
	}
	full := func(scope string) *task { return &task{q: delta.Request{Kind: delta.Full, Scope: scope}} }
	w.gap(0, script)
	if w.roll.IntN(2) == 0 {
		w.phase(0, script, full("all"), full("support"))
	} else {
		w.phase(0, script, full("all"))
		w.phase(-1, nil, full("support"))
	}
	for round := 1; round <= w.p.rounds && len(w.bad) == 0; round++ {
		w.gap(round, script)
		ds := w.deltas()
		if w.phase(round, script, ds...); round == w.p.undo {
			w.undoOne(ds, script)
		}
	}
	if len(w.bad) == 0 {
		w.rest()
	}
}

// deltas are one of each window, mostly at the same time, each after what it needs.
func (w *world) deltas() []*task {
	a := &task{q: delta.Request{Kind: delta.Delta, Window: "main"}}
	b := &task{q: delta.Request{Kind: delta.Delta, Window: "support"}}
	if w.roll.IntN(2) == 0 {
		a, b = b, a
	}
	b.from = w.now.Add(time.Duration(w.roll.IntN(4)) * 3 * time.Minute)
	if w.roll.IntN(3) > 0 {
		return []*task{a, b}
	}
	w.occur("run/schedule doubled")
	return []*task{a, b, {q: a.q, from: w.now.Add(time.Duration(w.roll.IntN(3)) * time.Minute)}}
}

// rest is the end: people and faults come to rest, and one more delta of each window follows.
func (w *world) rest() {
	w.say("people and faults come to rest")
	w.calm = true
	w.armed, w.due = nil, nil
	clear(w.down)
	clear(w.revoked)
	clear(w.limit)
	clear(w.poison)
	w.pass(2 * time.Hour)
	w.renew(nil)
	if w.unheard || w.src.t.hides {
		if w.census(nil, "all", "support"); w.uncounted { // what the sentence says that tells of it
			w.uncounted = false
			w.change(func(m *delta.Migration) { m.ThresholdShare, m.ThresholdCount = 0.9, 100 })
			w.census(nil, "all", "support")
		}
	}
	if w.harmed {
		w.verify("all")
		w.verify("support")
	}
	w.phase(-1, nil, w.deltas()...)
	// A link whose other end came with the other window is drawn by the next delta, which also sees to what was handed on to it: what
	// the mode of the other window leaves out, too.
	for range 3 {
		later := false
		for part := range w.store.Parts("due/") {
			for row := range w.store.Each(part) {
				why := between(row.Body, `"why":"`, `"`)
				later = later || why == "link" || why == "scope" || why == "moved" || why == "mode" && part == "due/acme/all"
			}
		}
		if !later || len(w.bad) > 0 {
			break
		}
		w.occur("end/something came later")
		w.phase(-1, nil, w.deltas()...)
	}
	if len(w.bad) == 0 {
		w.judge()
	}
	if len(w.bad) == 0 { // all that was missed has been brought over
		w.counted = !w.uncounted
		w.census(nil, "all", "support")
	}
}

// gap is the time between two rounds.
func (w *world) gap(n int, script []event) {
	w.between(n, script)
	w.renew(script)
}

// between is what happens in that time. It passes like any: what is still on its way arrives when it would, not hours later.
func (w *world) between(n int, script []event) {
	w.pass(time.Duration(1+w.roll.IntN(600)) * time.Minute)
	for _, e := range script {
		if e.phase == n && e.at < 0 {
			w.happen(e, nil)
			w.pass(time.Duration(w.roll.IntN(4000)) * time.Millisecond)
		}
	}
	w.pass(time.Duration(w.roll.IntN(100)) * time.Second)
}

// phase carries runs to their ends while things happen.
func (w *world) phase(n int, script []event, tasks ...*task) {
	w.calls, w.due = 0, nil
	for _, e := range script {
		if e.phase == n && e.at >= 0 {
			w.due = append(w.due, e)
		}
	}
	began, calls := w.now, 0
	w.run(func() bool {
		calls++
		done := true
		for _, t := range tasks {
			done = w.see(t) && done
		}
		if w.now.Sub(began) > 9*24*time.Hour || w.calls > 150_000 {
			for _, t := range tasks {
				if !t.done {
					w.violate("stuck", "run %s (%s %s%s) has not ended after %s and %d calls", t.id, t.q.Kind, t.q.Window, t.q.Scope, w.now.Sub(began), w.calls)
				}
			}
			return true
		}
		w.staff()
		return done || len(w.bad) > 0
	})
	if w.loud {
		w.say("phase %d: %d calls, %s", n, w.calls, w.now.Sub(began))
	}
	// The workers' processes end, between two batches or in the middle of one that nobody needs.
	for len(w.procs) > 0 {
		p := w.procs[0]
		w.cur = p
		p.stop()
		w.cur = nil
		w.remove(p)
	}
	for _, e := range w.due { // what people would have done meanwhile they do now
		if e.what[0] != 'f' && e.what[0] != 'o' {
			w.happen(e, nil)
		}
	}
	w.due, w.mailing = nil, false
	for _, t := range tasks {
		w.account(t)
	}
}

// see looks after one run: whether it has ended, and whether somebody is at work on it.
func (w *world) see(t *task) bool {
	if t.done {
		return true
	}
	if t.proc == nil && !t.from.After(w.now) {
		t.proc = w.spawn("planner", func(p *proc) { w.planner(p, t) })
		if t.again++; t.again > 1 {
			t.proc.wake = w.now.Add(time.Duration(1+w.roll.IntN(60)) * time.Second)
		}
	}
	if t.proc == nil && len(w.procs) == 0 {
		w.pass(t.from.Sub(w.now))
	}
	if t.proc != nil && !slices.Contains(w.procs, t.proc) {
		t.proc = nil
	}
	return t.done
}

// planner starts a run and steps it on, as the tick and the command line do.
func (w *world) planner(p *proc, t *task) {
	ctx := context.Background()
	finished, alike := -1, 0 // what the last step found, and how often running
	for {
		if t.id == "" {
			r, resumed, err := p.engine.Start(ctx, t.q)
			var no *delta.Refusal
			switch {
			case errors.As(err, &no):
				if leaks([]byte(no.Why)) {
					w.violate("leaked", "a refusal holds a customer's words: %s", no.Why)
				}
				w.say("refused: %s", no.Why)
				w.occur("run/refused")
				if t.q.Kind == delta.Full && !t.q.Continue && !t.q.Restart && t.again > 1 {
					t.q.Continue = true // cut off after the run had begun: go on, as a person would
					continue
				}
				if (t.q.Restart || strings.Contains(no.Why, "may still be at work")) && t.again < 40 { // others are at work: later
					t.again++
					p.sleep(time.Minute)
					continue
				}
				t.done, t.refused = true, no.Why
				w.outdated = w.outdated || strings.Contains(no.Why, "means something else")
				return
			case err != nil:
				w.say("start: %v", err)
				t.again = max(t.again, 2) // it may have begun all the same
				p.sleep(time.Duration(20+w.roll.IntN(40)) * time.Second)
				continue
			}
			if resumed {
				w.occur("run/resumed")
			}
			t.id = r.ID
		}
		prog, err := p.engine.Step(ctx, t.id)
		var no *delta.Refusal
		switch {
		case errors.As(err, &no):
			t.id = "" // another version of the migration file: the command goes on with it
		case err != nil:
			w.say("step: %v", err)
		case prog.Run.Status.Ended():
			t.status = prog.Run.Status
			w.ended[t.id] = true
			w.mailing = w.mailing && t.status != delta.Stopped // the operator has seen to it
			stopped := t.status == delta.Stopped || t.status == delta.Cancelled && prog.Run.Why == "the operator"
			if t.q.Kind == delta.Full && stopped && t.again < 20 {
				t.id, t.q.Continue, t.q.Restart = "", true, false
				t.again++
				w.occur("run/continued")
				continue
			}
			t.done = true
			return
		}
		// A step in the middle of work may come at any time; one of many in a row that find nothing new, while a desk is down
		// or a claim is waited out, plays nothing. So they become rarer, as long as that goes on.
		if alike++; err == nil && prog.Finished != finished {
			finished, alike = prog.Finished, 0
		}
		p.sleep(time.Duration(10+w.roll.IntN(40)) * time.Second << min(alike, 4))
	}
}

// decided is a decision that a person took.
type decided struct {
	no     int
	ref    desk.Ref
	field  desk.Field
	choice delta.Choice
	value  string // what the field is to say then
	source string // what the source said, in the target's words, when the question was put
	target string // what the target said then
}

// operate is what the operator does.
func (w *world) operate(what string, r *rand.Rand) {
	w.found["operator/"+what]++
	switch what {
	case "decide":
		w.must(w.operator(func(ctx context.Context, e *delta.Engine) error { return w.decide(ctx, e, r) }))
	case "cancel":
		w.must(w.operator(func(ctx context.Context, e *delta.Engine) error {
			if id := w.active(ctx, e, r); id != "" {
				return e.Cancel(ctx, id, "the operator")
			}
			return nil
		}))
	case "snapshot":
		w.snapshot = w.store.Snapshot()
	case "restore the ledger":
		if w.snapshot != nil && (w.dst.t.markers || w.dst.t.times) { // from other desks a ledger cannot be rebuilt
			w.restore()
		}
	case "another scope":
		if w.p.apart && !w.p.apartB {
			w.p.apartB = true
			w.change(func(m *delta.Migration) { m.Scopes["support"] = groups("Support", "Billing") })
			w.occur("operator/scope changed")
		}
	case "long pause":
		w.pass(11 * 24 * time.Hour)
		w.must(w.operator(func(ctx context.Context, e *delta.Engine) error {
			for _, win := range []string{"main", "support"} {
				if err := e.Extend(ctx, win, w.now.Add(9*24*time.Hour)); err != nil {
					return err
				}
			}
			return nil
		}))
	case "dry run", "verify", "one-off since", "restart", "another mapping", "census":
		// carried out by renew, when the runs of the phase are over
		w.wanted = append(w.wanted, what)
	}
}

func (w *world) must(err error) {
	if err != nil {
		w.violate("stuck", "the operator: %v", err)
	}
}

// active is a run that is on.
func (w *world) active(ctx context.Context, e *delta.Engine, r *rand.Rand) string {
	o, err := e.Status(ctx)
	w.must(err)
	var ids []string
	for _, run := range o.Runs {
		if !run.Status.Ended() {
			ids = append(ids, run.ID)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return one(r, ids)
}

// decide answers a few of the questions that are open.
func (w *world) decide(ctx context.Context, e *delta.Engine, r *rand.Rand) error {
	hs, err := e.HeldRecords(ctx)
	if err != nil {
		return err
	}
	for _, h := range hs {
		if r.IntN(2) == 0 {
			continue
		}
		d := delta.Decision{Choice: one(r, []delta.Choice{delta.ChooseSource, delta.ChooseTarget, delta.ChooseValue})}
		var field desk.Field
		var ent string
		taken := decided{ref: h.Ref}
		switch {
		case h.Doubt != "" || h.Gone:
			if d.Choice, d.Value = w.look(h); d.Choice == delta.ChooseCreate {
				w.recreated[h.Ref]++
			}
			taken.value = text(d.Value)
		case len(h.Fields) > 0:
			f := one(r, h.Fields)
			field = f.Field
			switch d.Choice {
			case delta.ChooseSource:
				taken.value = text(f.Source)
			case delta.ChooseTarget:
				taken.value = text(f.Target)
			default:
				d.Value = w.value(field, true, r)
				taken.value = text(d.Value)
			}
			taken.field, taken.source, taken.target = field, text(f.Source), text(f.Target)
		case len(h.Entries) > 0:
			ent, d.Choice = one(r, h.Entries).Entry, delta.ChooseTarget
		default:
			continue
		}
		w.no++
		taken.no, taken.choice = w.no, d.Choice
		w.say("  decided %s %s%s: %s %q", h.Ref, field, ent, d.Choice, taken.value)
		if err := e.Decide(ctx, h.Ref, field, ent, d); err != nil {
			return err
		}
		w.decisions = append(w.decisions, taken)
		w.occur("held/decided " + string(d.Choice))
	}
	return nil
}

// look is how a person finds out what to say about a record in doubt: by looking at the new desk.
func (w *world) look(h delta.Held) (delta.Choice, desk.Value) {
	if len(h.Doubtful) > 0 { // one entry at a time
		id := h.Doubtful[0]
		t := w.dst.survivor(w.dst.records[desk.Ref{Kind: h.Ref.Kind, ID: h.Candidates[0]}])
		if slices.ContainsFunc(t.now().entries, func(en entry) bool { return en.marker == "acme/"+id }) {
			return delta.ChooseLink, desk.Value{t.ref.ID}
		}
		return delta.ChooseCreate, nil
	}
	for _, t := range w.dst.order {
		if t.source == h.Ref && w.dst.survivor(t).live() && !h.Gone { // one that people have merged is there, too
			return delta.ChooseLink, desk.Value{t.ref.ID}
		}
	}
	return delta.ChooseCreate, nil
}

// restore brings the ledger back to an earlier day, as from a backup of the table, and does what the runbook says then:
// nothing that was on goes on, and full runs adopt what is in the target.
func (w *world) restore() {
	w.occur("operator/ledger restored")
	w.store.Restore(w.snapshot)
	w.restored, w.snapshot = true, nil
	clear(w.rows)
	clear(w.cutoffs)
	clear(w.lanes)
	w.q.ms = nil
	w.must(w.operator(func(ctx context.Context, e *delta.Engine) error {
		o, err := e.Status(ctx)
		if err != nil {
			return err
		}
		for _, r := range o.Runs {
			if !r.Status.Ended() {
				if err := e.Cancel(ctx, r.ID, "the ledger was restored"); err != nil {
					return err
				}
			}
			// One that has its verdict may still have its lane.
			if _, err := e.Step(ctx, r.ID); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, scope := range []string{"all", "support"} {
		full := &task{q: delta.Request{Kind: delta.Full, Scope: scope, Restart: true, Adopt: true}}
		if w.phase(-1, nil, full); full.id == "" {
			w.violate("stuck", "no full run over scope %s adopts what is there after the ledger was restored: %s", scope, full.refused)
		}
	}
}

// renew does what has to be done between the rounds: a full run where a delta said that its scope means something else now,
// runs that look, and what the operator wanted.
func (w *world) renew(script []event) {
	wanted := w.wanted
	w.wanted = nil
	if w.outdated {
		w.outdated = false
		w.phase(-1, nil, &task{q: delta.Request{Kind: delta.Full, Scope: "support"}})
	}
	for _, what := range wanted {
		scope := []string{"all", "support"}[w.roll.IntN(2)]
		switch what {
		case "dry run":
			w.idle(delta.Request{Kind: delta.Full, Scope: scope, Dry: true}, script)
		case "verify":
			w.verify(scope)
		case "census":
			w.census(script, scope)
		case "one-off since":
			w.phase(-1, nil, &task{q: delta.Request{Kind: delta.Delta, Window: "main", Since: w.now.Add(-time.Duration(w.roll.IntN(72)) * time.Hour)}})
		case "restart":
			w.phase(-1, nil, &task{q: delta.Request{Kind: delta.Full, Scope: scope, Restart: true}})
		case "another mapping":
			w.remap(script)
		}
	}
}

// verify makes due what differs, so that the next delta heals it.
func (w *world) verify(scope string) {
	w.phase(-1, nil, &task{q: delta.Request{Kind: delta.Verify, Scope: scope, Heal: true}})
}

// remap gives the migration another mapping, and finds out whom it concerns: the next deltas write it. It changes nothing in
// the target by itself.
func (w *world) remap(script []event) {
	w.oldRules = !w.oldRules
	w.change(func(m *delta.Migration) { m.Rules = rules(w.oldRules) })
	for _, scope := range []string{"all", "support"} {
		w.idle(delta.Request{Kind: delta.Remap, Scope: scope}, script)
	}
}

// census counts, and wants that it calls missed only what may have been.
func (w *world) census(script []event, scopes ...string) {
	for _, scope := range scopes {
		began := w.src.clock()
		t := w.idle(delta.Request{Kind: delta.Census, Scope: scope}, script)
		if t.status != delta.Verified && t.status != delta.Exceptions {
			w.uncounted = w.uncounted || w.calm
			continue
		}
		w.must(w.operator(func(ctx context.Context, e *delta.Engine) error {
			rep, err := e.Report(ctx, t.id)
			for _, x := range rep.Exceptions {
				if !strings.HasPrefix(x.Reason, "missed update: ") {
					continue
				}
				w.occur("census/missed update")
				kind, id, _ := strings.Cut(x.Record, "/")
				s := w.src.records[desk.Ref{Kind: desk.Kind(kind), ID: id}]
				if w.counted || !w.src.untold(s) && !w.src.t.hides && !w.restored {
					w.violate(w.missing(s, began), "a census calls %s missed, and the feed told everything: %s", x.Record, x.Reason)
				}
			}
			return err
		}))
	}
}

// untold tells whether something happened to a record, or to one that was merged into it, of which the feed said nothing.
func (d *simDesk) untold(s *record) bool {
	return slices.ContainsFunc(d.order, func(r *record) bool { return r.unheard && d.survivor(r) == d.survivor(s) })
}

// missing says what it means that a census calls a ticket missed which no feed has kept silent about: it is lost, if it was
// another one in the target when the census began; else the census is wrong.
func (w *world) missing(s *record, began time.Time) string {
	switch v := s.now(); {
	case v.at.After(began):
		return "miscounted"
	case v.gone, v.spam, v.into != "":
		return "lost"
	}
	o := &oracle{w: w}
	for _, t := range w.dst.order {
		if t.source == s.ref && t.live() && len(t.now().entries) >= len(s.now().entries) &&
			!slices.ContainsFunc(comparedFields, func(f desk.Field) bool { return o.mapped(f, text(s.now().fields[f])) != text(t.now().fields[f]) }) {
			return "miscounted"
		}
	}
	return "lost"
}

// idle is a run that must not change anything in the target. People of the source are at work while it looks.
func (w *world) idle(q delta.Request, script []event) *task {
	w.pass(10 * time.Second) // what is still on its way arrives
	before := len(w.dst.feed)
	t := &task{q: q}
	w.phase(looking, script, t)
	if n := len(w.dst.feed) - before; n > 0 && !w.dst.t.automates {
		w.violate("overwritten", "a %s run (dry: %v) changed the target: %d changes", q.Kind, q.Dry, n)
	}
	return t
}

// account looks at what a run says of itself.
func (w *world) account(t *task) {
	if t.id == "" || !w.ended[t.id] {
		return
	}
	w.must(w.operator(func(ctx context.Context, e *delta.Engine) error {
		rep, err := e.Report(ctx, t.id)
		if err != nil {
			return err
		}
		body, err := json.Marshal(rep)
		if err != nil {
			return err
		}
		if leaks(body) {
			w.violate("leaked", "the report of run %s holds a customer's words", t.id)
		}
		if err := report.Check(rep); err != nil {
			w.violate("miscounted", "%v", err)
		}
		return nil
	}))
	w.tally(t)
}

// tally counts a run's plan and outcomes anew, from the rows alone, and compares.
func (w *world) tally(t *task) {
	type sums struct {
		Listed, Dropped, Planned int
		Sums                     *struct {
			Planned, Created, Updated, Unchanged, Excluded, Held, Failed int
		}
	}
	planned, listed, dropped, finished := 0, 0, 0, 0
	for row := range w.store.Each("pages/acme/" + t.id) {
		var s sums
		if json.Unmarshal(row.Body, &s) != nil {
			continue
		}
		planned += s.Planned
		listed += s.Listed
		dropped += s.Dropped
		for range w.store.Each(fmt.Sprintf("out/acme/%s/%s", t.id, row.Sort)) {
			finished++
		}
		if c := s.Sums; c != nil && c.Created+c.Updated+c.Unchanged+c.Excluded+c.Held+c.Failed != s.Planned {
			w.violate("miscounted", "run %s page %s is sealed with %+v for %d planned", t.id, row.Sort, *c, s.Planned)
		}
	}
	if listed != dropped+planned {
		w.violate("miscounted", "run %s listed %d, dropped %d, planned %d", t.id, listed, dropped, planned)
	}
	if whole := t.status == delta.Verified || t.status == delta.Exceptions; finished > planned || whole && finished < planned {
		w.violate("miscounted", "run %s planned %d and has %d outcomes", t.id, planned, finished)
	}
}

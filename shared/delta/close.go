package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
	"github.com/deltadesk/deltadesk/shared/report"
)

// Progress tells where a run is.
type Progress struct {
	Run      Run
	Counts   report.Counts
	Finished int
	Listed   bool
}

// Step does what is next for a run: lists a few pages, dispatches, seals, and closes when all is done. It may be cut off
// anywhere, and is called again until the run has ended. Two at the same time do no harm: each write has its condition.
func (e *Engine) Step(ctx context.Context, id string) (Progress, error) {
	run, err := e.run(ctx, id)
	if err != nil {
		return Progress{}, err
	}
	if run.Status.Ended() {
		// Cut off between the verdict and the move of the cutoff: do the rest.
		s, err := e.sums(ctx, id)
		if err == nil && s.total.Planned > 0 {
			err = e.storeReport(ctx, id)
		}
		if err == nil {
			if err = e.markUndone(ctx, run, s.total.Failed); err == nil {
				err = e.storeCertificate(ctx, run)
			}
		}
		if err == nil {
			err = e.vacate(ctx, run)
		}
		return Progress{Run: run, Counts: s.total, Finished: s.total.Finished(), Listed: true}, err
	}
	if run.Config != e.mig.Hash && run.Stop == "" {
		return Progress{Run: run}, refuse("run %s goes by another version of the migration file; the command that began it goes on with the new one", id)
	}
	pages, err := e.pageRows(ctx, id)
	if err != nil {
		return Progress{Run: run}, err
	}
	const budget = 10
	run.Listed = run.Listed || planEnded(pages)
	if !run.Listed && run.Stop == "" && e.paused() == 0 {
		list := e.list
		if run.Kind == Census || run.Kind == Remap {
			list = e.survey
		}
		if pages, err = list(ctx, &run, pages, budget); err != nil {
			return Progress{Run: run}, e.troubled(ctx, run, err)
		}
		if run.Listed && len(pages) > 0 {
			if err := e.save(ctx, &run); err != nil {
				return Progress{Run: run}, err
			}
		}
	}
	s, err := e.seal(ctx, run, pages)
	if err != nil {
		return Progress{Run: run}, err
	}
	p := Progress{Run: run, Counts: s.total, Finished: s.total.Finished(), Listed: run.Listed}
	switch {
	case run.Stop != "":
		err = e.end(ctx, &run, s, run.Stop, run.Why)
	case e.tooMany(run, s.total):
		err = e.end(ctx, &run, s, Stopped, fmt.Sprintf("%d of %d planned records failed, more than the threshold of %.2g %% and %d. The cutoff stays; mend the cause and run again",
			s.total.Failed, s.total.Planned, 100*e.mig.ThresholdShare, e.mig.ThresholdCount))
	case run.Listed && s.total.Finished() == s.total.Planned:
		var stop string
		if stop, err = e.absent(ctx, run, pages); err != nil {
			return p, e.troubled(ctx, run, err)
		}
		if stop != "" {
			err = e.end(ctx, &run, s, Stopped, stop)
			break
		}
		var more []pageRow
		if more, err = e.sweep(ctx, run, pages); err == nil && len(more) == 0 {
			err = e.endPlan(ctx, &run, pages)
		}
		if err == nil && len(more) == 0 {
			err = e.end(ctx, &run, s, "", "")
		}
	default:
		for i := range pages {
			// Messages of a process that is no more are gone with it.
			if q := &pages[i]; e.Session != "" && q.Session != e.Session {
				q.SentOpen, q.SentRest = time.Time{}, time.Time{}
			}
		}
		err = e.dispatch(ctx, &run, pages)
	}
	p.Run = run
	return p, err
}

// Pause is how long a step may be waited for before the next one; the store needs no hurry.
const Pause = 200 * time.Millisecond

// troubled writes down that a run waits for a desk that does not answer or lets nobody in, and returns the error.
func (e *Engine) troubled(ctx context.Context, run Run, err error) error {
	e.heed(err)
	if errors.Is(err, ErrStale) {
		return err // another process does the same step
	}
	switch desk.Class(err) {
	case desk.ErrUnauthorized, desk.ErrTransient, desk.ErrThrottled:
		if ctx.Err() == nil {
			return errors.Join(err, e.note(ctx, run.ID, Waiting, err.Error()))
		}
	}
	return err
}

func (e *Engine) save(ctx context.Context, run *Run) error {
	saved, err := update(ctx, e, e.runKey(run.ID), func(r *Run) error {
		r.Listed, r.Looked = r.Listed || run.Listed, run.Looked
		if r.Status == Waiting && r.Stop == "" {
			r.Status, r.Why = Running, ""
		}
		return nil
	})
	if err == nil {
		run.Status = saved.Status
	}
	return err
}

// sums are derived from plan and outcomes, never counted up: invariant 8.
type sums struct {
	total  report.Counts
	byKind map[desk.Kind]report.Counts
}

// counted is what sums need of an outcome. They are made again at every step, of all pages that have not got their own yet.
type counted struct {
	Outcome Outcome `json:"outcome"`
}

// seal sums pages up and writes the sums of those whose entries all have an outcome.
func (e *Engine) seal(ctx context.Context, run Run, pages []pageRow) (sums, error) {
	s := sums{byKind: map[desk.Kind]report.Counts{}}
	for i := range pages {
		p := &pages[i]
		c := report.Counts{Listed: p.Listed, Dropped: p.Dropped, Planned: p.Planned}
		if p.Sums != nil {
			c = *p.Sums
		} else {
			outs, err := finished[counted](ctx, e, run.ID, p.No)
			if err != nil {
				return s, err
			}
			for _, o := range outs {
				c = c.Add(one(o.Outcome))
			}
			if c.Finished() == p.Planned {
				p.Sums = &c
				if p.version, err = e.put(ctx, e.pageKey(run.ID, p.No), p.version, p); err != nil {
					return s, err
				}
			}
		}
		s.total = s.total.Add(c)
		s.byKind[p.Kind] = s.byKind[p.Kind].Add(c)
	}
	return s, nil
}

func one(o Outcome) report.Counts {
	switch o {
	case OutCreated:
		return report.Counts{Created: 1}
	case OutUpdated:
		return report.Counts{Updated: 1}
	case OutUnchanged:
		return report.Counts{Unchanged: 1}
	case OutExcluded:
		return report.Counts{Excluded: 1}
	case OutHeld:
		return report.Counts{Held: 1}
	}
	return report.Counts{Failed: 1}
}

// sums reads plan and outcomes of a run, without writing.
func (e *Engine) sums(ctx context.Context, run string) (sums, error) {
	return e.tally(ctx, run, func(outcomeRow) {})
}

// tally sums a run up and calls f with each outcome. A page of outcomes is in memory at a time.
func (e *Engine) tally(ctx context.Context, run string, f func(outcomeRow)) (sums, error) {
	s := sums{byKind: map[desk.Kind]report.Counts{}}
	pages, err := e.pageRows(ctx, run)
	if err != nil {
		return s, err
	}
	for _, p := range pages {
		c := report.Counts{Listed: p.Listed, Dropped: p.Dropped, Planned: p.Planned}
		outs, err := finished[outcomeRow](ctx, e, run, p.No)
		if err != nil {
			return s, err
		}
		for seq := range p.Planned {
			if o, ok := outs[seq]; ok {
				c = c.Add(one(o.Outcome))
				f(o)
			}
		}
		s.total = s.total.Add(c)
		s.byKind[p.Kind] = s.byKind[p.Kind].Add(c)
	}
	return s, nil
}

// tooMany is the threshold: a share and a count, both exceeded by failures since the run was last told to go on. As long as
// the plan is not complete, its share says little; then a run stops when most of what it did failed.
func (e *Engine) tooMany(run Run, c report.Counts) bool {
	failed := c.Failed - run.Forgiven
	if run.Kind.Looks() || failed < max(e.mig.ThresholdCount, 1) {
		return false
	}
	if !run.Listed {
		return failed > c.Finished()/2
	}
	return float64(failed) > e.mig.ThresholdShare*float64(c.Planned)
}

// sweep plans the tickets whose links could be drawn only now, because the other end arrived during this run, and those with
// entries that moved: everybody else has been carried out.
func (e *Engine) sweep(ctx context.Context, run Run, pages []pageRow) ([]pageRow, error) {
	if run.Kind.Looks() || run.Kind == Undo || run.Dry || len(pages) == 0 || planEnded(pages) {
		return nil, nil
	}
	kinds := e.kinds()
	return e.listDue(ctx, &run, kinds[len(kinds)-1], len(pages), "link", dueMoved)
}

// endPlan ends the plan of a run, before its verdict: an empty page takes the place of the next one, on the condition that there is
// none. So another planner that still lists, or sweeps, plans nothing that the verdict does not know of; and if it has, there is no
// verdict yet (model: ListPage and Close, which are one step each there).
func (e *Engine) endPlan(ctx context.Context, run *Run, pages []pageRow) error {
	if planEnded(pages) {
		return nil
	}
	row := pageRow{No: len(pages), Kind: desk.Ticket, Done: true, Last: true, Sums: &report.Counts{}}
	if run.Kind == Census || run.Kind == Remap {
		row.Survey = &surveyRow{At: e.Now().UTC()}
	}
	_, err := e.putPage(ctx, run, row, nil)
	return err
}

func planEnded(pages []pageRow) bool { return len(pages) > 0 && pages[len(pages)-1].Last }

// end closes a run: the run's verdict, then the report, then cutoff and lane in one write. Cut off in between, the verdict is
// there and the next step does the rest. The cutoff comes last: it says that nobody has to look at this run's work again. A run
// that was stopped or cancelled ends as well, and leaves the cutoff where it was (model: Stop).
func (e *Engine) end(ctx context.Context, run *Run, s sums, status Status, why string) (err error) {
	defer e.clock("close")()
	if status == "" {
		status = Verified
		if s.total.Held+s.total.Failed > 0 {
			status = Exceptions
			if why, err = e.exceptions(ctx, run, s); err != nil {
				return err
			}
		}
	}
	used := e.usage()
	ended, err := update(ctx, e, e.runKey(run.ID), func(r *Run) error {
		if r.Status.Ended() {
			return errKeep
		}
		all := *used
		if r.Usage != nil { // it was stopped, and went on
			all = usageRow{}
			all.add(*used)
			all.add(*r.Usage)
		}
		r.Usage = &all
		r.Status, r.Why, r.Ended, r.Stop, r.Listed = status, why, e.Now().UTC(), "", run.Listed
		r.Looked = run.Looked
		if r.Ended.Before(r.Started) { // by another process's clock
			r.Ended = r.Started
		}
		return nil
	})
	if err != nil {
		return err
	}
	*run = ended
	e.Log.Info("run ended", "run", run.ID, "status", run.Status, "listed", s.total.Listed, "planned", s.total.Planned, "created", s.total.Created,
		"updated", s.total.Updated, "unchanged", s.total.Unchanged, "excluded", s.total.Excluded, "held", s.total.Held, "failed", s.total.Failed,
		"seconds", run.Ended.Sub(run.Started).Seconds())
	if s.total.Planned > 0 {
		if err := e.storeReport(ctx, run.ID); err != nil {
			return err
		}
	}
	if err := e.markUndone(ctx, *run, s.total.Failed); err != nil {
		return err
	}
	if err := e.storeCertificate(ctx, *run); err != nil {
		return err
	}
	return e.vacate(ctx, *run)
}

// exceptions says in one sentence what somebody has to see to.
func (e *Engine) exceptions(ctx context.Context, run *Run, s sums) (string, error) {
	switch run.Kind {
	case Verify:
		return verifyWords(*run, s.total), nil
	case Undo:
		if run.Dry {
			return fmt.Sprintf("records in which something of the run would stay: %d; failed: %d", s.total.Held, s.total.Failed), nil
		}
		return fmt.Sprintf("records in which something of the run stays: %d; failed: %d", s.total.Held, s.total.Failed), nil
	case Remap:
		return fmt.Sprintf("%s could not be looked at; %s", report.Records(s.total.Failed), report.Plural(s.total.Failed, "it is as it was", "they are as they were")), nil
	case Census:
		missed := 0
		_, err := e.tally(ctx, run.ID, func(o outcomeRow) {
			if o.Outcome == OutFailed && strings.HasPrefix(o.Reason, missedUpdate) {
				missed++
			}
		})
		return fmt.Sprintf("%d missed %s, %s could not be looked at", missed, report.Plural(missed, "update", "updates"), report.Records(s.total.Failed-missed)), err
	}
	if run.Dry {
		return fmt.Sprintf("%s would be held for a decision, %d failed; none is due because of this", report.Records(s.total.Held), s.total.Failed), nil
	}
	return fmt.Sprintf("%s %s held for a decision, %d failed; %s due", report.Records(s.total.Held), report.Plural(s.total.Held, "is", "are"), s.total.Failed,
		report.Plural(s.total.Held+s.total.Failed, "it stays", "they stay")), nil
}

// vacate moves the cutoff and frees the lane, in one conditional write: invariant 3 (model: Close). Only a run whose plan is
// finished moves a cutoff; one that was stopped or cancelled leaves it where it was.
func (e *Engine) vacate(ctx context.Context, run Run) error {
	if run.Dry {
		return nil
	}
	_, err := update(ctx, e, e.stateKey(), func(st *state) error {
		if st.Lanes[run.Lane].Run != run.ID {
			return errKeep // done before
		}
		delete(st.Lanes, run.Lane)
		if run.Status != Verified && run.Status != Exceptions {
			return nil
		}
		switch run.Kind {
		case Full:
			sc := st.Scopes[run.Scope]
			same := sc.Baseline != nil && sc.Baseline.Scope == scopeDigest(run.Filter)
			sc.Full = ""
			sc.Baseline = &baseline{Run: run.ID, Mark: run.Until, Ended: run.Ended, Scope: scopeDigest(run.Filter)}
			st.Scopes[run.Scope] = sc
			// A run that was stopped and continued may end behind deltas that ran meanwhile: their chains go on where they
			// are, because a cutoff never moves back. Not so where those went by another meaning of the scope.
			for name, w := range st.Windows {
				if same && e.mig.Windows[name].Scope == run.Scope && w.Baseline != "" && w.LastOK.Add(e.Skew).After(run.Started) { // by whichever clock
					w.Baseline = run.ID
					st.Windows[name] = w
				}
			}
		case Delta:
			if !run.Since.IsZero() {
				return nil // an operator's second look at the past
			}
			if st.Windows == nil {
				st.Windows = map[string]windowState{}
			}
			w := st.Windows[run.Window]
			w.Cutoff, w.LastOK, w.Extended = run.Until, run.Ended, time.Time{}
			if b := st.Scopes[run.Scope].Baseline; b != nil {
				w.Baseline = b.Run
			}
			st.Windows[run.Window] = w
		case Census:
			if run.Window == "" {
				return nil
			}
			if st.Windows == nil {
				st.Windows = map[string]windowState{}
			}
			st.Windows[run.Window] = windowState{LastOK: run.Ended}
		}
		return nil
	})
	return err
}

func (e *Engine) storeReport(ctx context.Context, id string) error {
	rep, err := e.Report(ctx, id)
	if err != nil {
		return err
	}
	body, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return fmt.Errorf("report of run %s: %w", id, err)
	}
	key := fmt.Sprintf(reportsPrefix+"%s/%s-%d.json", e.mig.ID, id, rep.Ended.Unix()) // a run that was continued ends again
	if _, err := e.Objects.Put(ctx, key, bytes.NewReader(body)); err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("keep the report of run %s: %w", id, err)
	}
	return nil
}

// maxListed is how many records the report of a verification lists: what a person may look through. Nothing bounds how many
// may differ, and the certificate names every one.
const maxListed = 10_000

// maxWould is how many records the report of a rehearsal lists with what would become of them: enough to see whether it is meant so.
const maxWould = 100

// Report derives a run's report from its rows, at any time.
func (e *Engine) Report(ctx context.Context, id string) (report.Report, error) {
	run, err := e.run(ctx, id)
	if err != nil {
		return report.Report{}, err
	}
	r := report.Report{
		Migration: e.mig.ID, Run: run.ID, Kind: string(run.Kind), Window: run.Window, Scope: run.Scope, Mode: string(run.Mode), Dry: run.Dry,
		Undoes: run.Undoes, UndoneBy: run.UndoneBy, Looked: run.Looked,
		Status: string(run.Status), Why: run.Why, ConfigHash: run.Config, Started: run.Started, Ended: run.Ended,
		CutoffBefore: null(run.From), CutoffAfter: null(run.From),
		Requests: map[string]map[string]int{}, StoreCalls: map[string]int{}, Seconds: map[string]float64{}, Excluded: map[string]int{},
		ByKind: []report.KindCounts{}, Losses: []report.LossClass{}, Exceptions: []report.Exception{}, Kept: []report.Kept{},
	}
	if moves := run.Kind == Full || run.Kind == Delta && run.Since.IsZero(); moves && (run.Status == Verified || run.Status == Exceptions) && !run.Dry {
		r.CutoffAfter = null(run.Until)
	}
	losses := map[string]*report.LossClass{}
	s, err := e.tally(ctx, id, func(o outcomeRow) {
		r.Bytes += o.Bytes
		switch does := o.Outcome == OutCreated || o.Outcome == OutUpdated; {
		case run.Dry && does && len(r.Would) < maxWould:
			r.Would = append(r.Would, report.Would{Record: o.Ref.String(), Target: o.Target, What: o.Reason})
		case run.Dry && does:
			r.WouldLeftOut++
		}
		switch {
		case (o.Outcome == OutHeld || o.Outcome == OutFailed) && run.Kind == Verify && len(r.Exceptions) >= maxListed:
			r.ExceptionsLeftOut++
		case o.Outcome == OutHeld || o.Outcome == OutFailed:
			r.Exceptions = append(r.Exceptions, report.Exception{Record: o.Ref.String(), Target: o.Target, Outcome: string(o.Outcome), Reason: o.Reason, Next: o.Next})
		case o.Outcome == OutExcluded:
			r.Excluded[o.Reason]++
		}
		if len(o.Chosen) > 0 {
			r.Chosen = append(r.Chosen, report.Chosen{Record: o.Ref.String(), Features: o.Chosen})
		}
		if len(o.Left) > 0 {
			r.Left = append(r.Left, report.Left{Record: o.Ref.String(), Target: o.Target, What: o.Left})
		}
		switch {
		case len(o.Kept) > 0 && run.Kind == Verify && len(r.Kept) >= maxListed:
			r.KeptLeftOut++
		case len(o.Kept) > 0:
			r.Kept = append(r.Kept, report.Kept{Record: o.Ref.String(), Fields: o.Kept})
		}
		for _, l := range o.Losses {
			c := losses[l.Class]
			if c == nil {
				c = &report.LossClass{Class: l.Class, Meaning: e.meaning(l.Class), Examples: []string{}}
				losses[l.Class] = c
			}
			c.Count++
			if ref := o.Ref.String(); len(c.Examples) < 5 && !slices.Contains(c.Examples, ref) {
				c.Examples = append(c.Examples, ref)
			}
		}
	})
	if err != nil {
		return report.Report{}, err
	}
	r.Counts = s.total
	for _, k := range e.kinds() {
		r.ByKind = append(r.ByKind, report.KindCounts{Kind: string(k), Counts: s.byKind[k]})
	}
	for _, c := range losses {
		r.Losses = append(r.Losses, *c)
	}
	slices.SortFunc(r.Losses, func(a, b report.LossClass) int { return strings.Compare(a.Class, b.Class) })
	var used usageRow
	if run.Usage != nil {
		used.add(*run.Usage)
	}
	err = e.each(ctx, e.usagePart(id), "", func(row Row) error {
		u, err := decode[usageRow](row)
		used.add(u)
		return err
	})
	maps.Copy(r.Requests, used.Requests)
	maps.Copy(r.StoreCalls, used.StoreCalls)
	maps.Copy(r.Seconds, used.Seconds)
	return r, err
}

// meaning says what a class of losses is: the engine's own, or one that the target declares.
func (e *Engine) meaning(class string) string {
	if m, ok := e.TargetSide.Losses[class]; ok {
		return m
	}
	if m, ok := mapping.LossClasses()[class]; ok {
		return m
	}
	return map[string]string{
		"status-history":  "The status history cannot be written there; it is kept as one internal note.",
		"oversize-file":   "The file is larger than the target takes; a note says where it is.",
		lossUnkept:        "The target did not keep a value that it takes only when a record is made: an internal note has it or, of a time of creation, an entry of that time.",
		"kept-copy":       "An entry was changed, hidden, removed or moved in the source after it was copied; as the policies say, a copy stays in the target as it was.",
		"normalised":      "The target writes the value its own way.",
		"in-doubt":        "It may be in the target once more, and no run can tell or mend that: look for it by hand.",
		"person-gone":     "The source names somebody it no longer knows.",
		"person-fallback": "Nobody in the target matched; the fallback person stands in.",
	}[class]
}

func null(c desk.Cursor) json.RawMessage {
	if len(c) == 0 {
		return json.RawMessage("null")
	}
	return c
}

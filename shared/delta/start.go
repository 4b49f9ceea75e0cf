package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Request asks for a run.
type Request struct {
	Kind Kind
	// Window of a delta or census run; empty means the only one there is. A census may have a scope instead.
	Window string
	// Scope of any other run but an undo; empty means the only one there is.
	Scope string
	// N is how many tickets a sample run moves, 1 to MaxSample.
	N int
	// Undo is the run that an undo run takes back.
	Undo string
	// Mode overrides the window's; empty means the window's, or create+update.
	Mode Mode
	// Since lists what changed at or after this time instead of from the cutoff, and moves no cutoff.
	Since time.Time
	Dry   bool
	// Restart reads everything again and makes a new baseline; Continue goes on with the full run that was interrupted or
	// stopped and keeps its mark.
	Restart, Continue bool
	Adopt             bool
	// Heal makes what a verify run finds due, so that the next delta over the scope heals it or holds it.
	Heal bool
}

// Start begins a run, or takes an interrupted one of the same lane up again (then its Request is not looked at any
// further; resumed tells). Everything that can be wrong is found out before the first write: a *Refusal says why the run
// may not begin, other errors are those of the desks and the store.
//
// The source's mark is taken before anything is read. So whatever changes while the run lists and reads comes after the mark,
// and is listed by the next delta: nothing falls between a run and its successor (model: TakeMark). The lane is taken before the run's row is
// written, and holds all that the row begins with: cut off in between, whoever comes next writes the row, and no run is left
// behind that nobody ends. A rehearsal takes no lane: one that was cut off ends when the next one of the same begins.
//
// Two that begin at the same moment (two windows have one schedule) meet at the state row: one of them looks again.
func (e *Engine) Start(ctx context.Context, q Request) (run Run, resumed bool, err error) {
	for {
		run, resumed, err = e.start(ctx, q)
		if !errors.Is(err, ErrStale) || ctx.Err() != nil {
			return run, resumed, err
		}
	}
}

func (e *Engine) start(ctx context.Context, q Request) (run Run, resumed bool, err error) {
	run, err = e.plan(q)
	if err != nil {
		return Run{}, false, err
	}
	var st state
	version, err := e.get(ctx, e.stateKey(), &st)
	if err != nil {
		return Run{}, false, err
	}
	if err := e.sameDesks(st); err != nil {
		return Run{}, false, err
	}
	run.Adopted, run.AdoptedBy = st.Adopted, st.AdoptedBy
	if !q.Dry {
		if active, ok := st.Lanes[run.Lane]; ok && !q.Restart {
			if run.Kind == Full && !q.Continue {
				return Run{}, false, refuse("full run %s of scope %q has not finished. Go on with it: --continue (keeps its cutoff). Or read everything again: --restart", active.Run, run.Scope)
			}
			old, err := e.run(ctx, active.Run)
			if err != nil {
				return Run{}, false, err
			}
			if old.Undoes != q.Undo {
				return Run{}, false, refuse("run %s undoes run %s and has the migration to itself. Finish it first: deltadesk undo %s", old.ID, old.Undoes, old.Undoes)
			}
			if q.Adopt && !old.Adopt {
				return Run{}, false, adoptsNothing(old.ID)
			}
			if old.Config == e.mig.Hash {
				return old, true, nil
			}
			if old.Kind != Verify {
				old, err = e.repin(ctx, old.ID)
				return old, true, err
			}
			// A certificate speaks of one migration file: under another one the comparison begins anew, in the old one's place.
		}
	}
	if !q.Dry {
		if err := e.closeEnded(ctx, st, q, run); err != nil {
			return Run{}, false, err
		}
	}
	if q.Continue && run.Kind == Full && !q.Dry {
		return e.reopen(ctx, st, version, run)
	}
	if err := e.allowed(st, q, &run); err != nil {
		return Run{}, false, err
	}
	if run.Kind == Undo { // it reads nothing of the source, and asks no mapping
		if err := e.mayUndo(ctx, &run); err != nil {
			return Run{}, false, err
		}
	} else {
		if err := e.Preflight(ctx); err != nil {
			return Run{}, false, err
		}
		if run.Until, err = e.Source.Mark(ctx); err != nil {
			return Run{}, false, fmt.Errorf("ask the source where now is: %w", err)
		}
	}
	if !q.Since.IsZero() {
		rw, ok := e.Source.(desk.Rewinder)
		if !ok {
			return Run{}, false, refuse("this source cannot list from a date; leave --since out")
		}
		if run.From, err = rw.At(ctx, q.Since); err != nil {
			return Run{}, false, fmt.Errorf("ask the source for %s: %w", q.Since.UTC().Format(time.RFC3339), err)
		}
	}
	run.ID, run.Started, run.Status = e.NewID(), e.Now().UTC(), Running
	if q.Adopt {
		run.Adopted, run.AdoptedBy = run.Started, run.ID
	}
	if run.Kind == Verify {
		run.Salt = e.NewSalt()
	}
	var replaced string
	if !q.Dry {
		// With this write the run exists for everybody. If the state moved since it was read above, somebody else started
		// something: look again.
		st.Source, st.Target, st.Adopted, st.AdoptedBy = e.SourceID, e.TargetID, run.Adopted, run.AdoptedBy
		replaced = e.occupy(&st, run, q.Restart)
		if _, err = e.put(ctx, e.stateKey(), version, st); err != nil {
			return Run{}, false, err
		}
	}
	if run.version, err = e.put(ctx, e.runKey(run.ID), 0, run); errors.Is(err, ErrStale) {
		run, err = e.run(ctx, run.ID) // somebody found the lane, and wrote it
	}
	if err != nil {
		return Run{}, false, fmt.Errorf("begin run %s: %v", run.ID, err) //nolint:errorlint // it is not for Start to look again
	}
	e.Log.Info("run started", "run", run.ID, "kind", run.Kind, "window", run.Window, "scope", run.Scope, "mode", run.Mode, "dry", run.Dry, "undoes", run.Undoes)
	if replaced != "" {
		if err := e.abandon(ctx, replaced, "restarted as "+run.ID); err != nil {
			return Run{}, false, err
		}
	}
	return run, false, e.endRehearsals(ctx, run)
}

// endRehearsals ends the older rehearsals of what run rehearses: they have no lane, so nobody goes on with one that was cut off.
func (e *Engine) endRehearsals(ctx context.Context, run Run) error {
	if !run.Dry {
		return nil
	}
	var old []string
	if err := e.each(ctx, e.runsPart(), "", func(row Row) error {
		r, err := decode[Run](row)
		if r.Dry && !r.Status.Ended() && r.Lane == run.Lane && r.Undoes == run.Undoes && r.ID < run.ID {
			old = append(old, r.ID)
		}
		return err
	}); err != nil {
		return err
	}
	for _, id := range old {
		if err := e.abandon(ctx, id, "begun anew as "+run.ID); err != nil {
			return err
		}
	}
	return nil
}

// plan turns a request into a run, as far as the migration file alone decides.
func (e *Engine) plan(q Request) (Run, error) {
	run := Run{Kind: q.Kind, Mode: cmpOr(q.Mode, CreateUpdate), Dry: q.Dry, Adopt: q.Adopt, Heal: q.Heal, Since: q.Since, N: q.N, Config: e.mig.Hash}
	run.Images = run.Kind.Undoable() && !run.Dry
	switch run.Mode {
	case CreateOnly, UpdateOnly, CreateUpdate:
	default:
		return Run{}, refuse("mode %q is not known; there are create, update and create+update", q.Mode)
	}
	if q.Adopt && q.Kind != Full {
		return Run{}, refuse("--adopt belongs to full runs: deltadesk run --kind full --restart --adopt")
	}
	if q.Adopt && e.TargetSide.EntryMarker == "" && !e.TargetSide.KeepsTimes {
		return Run{}, refuse("this target can neither show which entries are the migration's nor keeps their times, so what is in it cannot be adopted: every entry would be added again. Begin with an empty target, or bring the ledger back from a backup that is as new as the target")
	}
	if q.Restart && q.Continue {
		return Run{}, refuse("--restart reads everything again, --continue goes on where the full run was cut off: choose one")
	}
	if (q.Restart || q.Continue) && q.Kind != Full {
		return Run{}, refuse("--restart and --continue belong to full runs; a %s run that was cut off goes on by itself", q.Kind)
	}
	if !q.Since.IsZero() && q.Kind != Delta {
		return Run{}, refuse("--since belongs to delta runs: a %s run reads everything", q.Kind)
	}
	if q.Kind.Looks() && q.Mode != "" {
		return Run{}, refuse("a %s run only looks, so it has no mode; leave --mode out", q.Kind)
	}
	if q.Kind.Looks() {
		run.Mode = ""
	}
	if q.N != 0 && q.Kind != Sample {
		return Run{}, refuse("--n belongs to sample runs: a %s run moves what there is", q.Kind)
	}
	if q.Heal && (q.Kind != Verify || q.Dry) {
		return Run{}, refuse("--heal belongs to verify runs that are no rehearsal: what they find becomes due, and a delta heals it")
	}
	switch q.Kind {
	case Undo:
		run.Lane, run.Undoes = "undo", q.Undo
		return run, nil
	case Full, Sample, Verify, Remap, Census:
		if q.Kind == Sample && (q.N < 1 || q.N > MaxSample) {
			return Run{}, refuse("a sample has 1 to %d tickets: --n %d", MaxSample, min(20, MaxSample))
		}
		if names := e.windows(Census); q.Kind == Census && q.Window == "" && q.Scope == "" && len(names) == 1 {
			q.Window = names[0]
		}
		if q.Kind == Census && q.Window != "" {
			w, ok := e.mig.Windows[q.Window]
			if !ok || w.Kind != Census || q.Scope != "" {
				return Run{}, refuse("a census has a scope (--scope NAME) or one of the windows of kind census: %s", listed(e.windows(Census)))
			}
			run.Window, run.Scope, run.Lane = q.Window, w.Scope, "window/"+q.Window
			break
		}
		if q.Window != "" {
			return Run{}, refuse("a %s run has a scope, not a window: --scope NAME", q.Kind)
		}
		run.Scope = q.Scope
		if run.Scope == "" {
			if len(e.mig.Scopes) != 1 {
				return Run{}, refuse("which scope? --scope %s", strings.Join(slices.Sorted(maps.Keys(e.mig.Scopes)), " | "))
			}
			for run.Scope = range e.mig.Scopes {
			}
		}
		run.Lane = string(q.Kind) + "/" + run.Scope
	case Delta:
		run.Window = q.Window
		names := e.windows(Delta)
		if q.Scope != "" {
			return Run{}, refuse("a delta run has a window, which has its scope: --window NAME instead of --scope %s; the migration file has %s", q.Scope, listed(names))
		}
		if run.Window == "" && len(names) == 1 {
			run.Window = names[0]
		}
		w, ok := e.mig.Windows[run.Window]
		switch {
		case !ok:
			return Run{}, refuse("there is no window %q; the migration file has %s", run.Window, listed(names))
		case w.Kind == Census:
			return Run{}, refuse("window %q is a census: deltadesk run --kind census --window %s. Windows of deltas are %s", run.Window, run.Window, listed(names))
		}
		run.Scope, run.Mode = w.Scope, cmpOr(q.Mode, cmpOr(w.Mode, CreateUpdate))
		run.Lane = "window/" + run.Window
	default:
		return Run{}, refuse("there is no kind of run %q; there are full, delta, sample, verify, census, remap and backup", q.Kind)
	}
	filter, ok := e.mig.Scopes[run.Scope]
	if !ok {
		return Run{}, refuse("there is no scope %q; the migration file has %s", run.Scope, strings.Join(slices.Sorted(maps.Keys(e.mig.Scopes)), ", "))
	}
	run.Filter = filter
	if q.Heal && !e.mig.hasDeltas(run.Scope, "") {
		return Run{}, refuse("no window of the migration file is over scope %q, so no delta would heal what is found; leave --heal out, or verify a scope that has a window", run.Scope)
	}
	return run, nil
}

// windows names the windows of a kind, Delta or Census.
func (e *Engine) windows(k Kind) []string {
	var names []string
	for _, n := range slices.Sorted(maps.Keys(e.mig.Windows)) {
		if cmpOr(e.mig.Windows[n].Kind, Delta) == k {
			names = append(names, n)
		}
	}
	return names
}

func listed(names []string) string { return cmpOr(strings.Join(names, ", "), "none") }

// closeEnded does the rest for runs that stand in the way of a new one and were cut off between their verdict and the move of their
// cutoff (or the ledger is of just that moment): they have ended, and keep nobody out. ErrStale says that the state has moved.
func (e *Engine) closeEnded(ctx context.Context, st state, q Request, run Run) error {
	for name, l := range st.Lanes {
		if name == run.Lane || !l.Exclusive && !exclusive(run.Kind, q.Restart) {
			continue
		}
		r, err := e.run(ctx, l.Run)
		if err != nil {
			return err
		}
		if !r.Status.Ended() {
			continue
		}
		if _, err := e.Step(ctx, r.ID); err != nil {
			return err
		}
		return fmt.Errorf("run %s has ended: %w", r.ID, ErrStale)
	}
	return nil
}

// exclusive tells whether a run has the migration to itself: invariant 7.
func exclusive(k Kind, restart bool) bool { return k == Full && restart || k == Remap || k == Undo }

func (e *Engine) sameDesks(st state) error {
	if st.Source != "" && st.Source != e.SourceID || st.Target != "" && st.Target != e.TargetID {
		return refuse("this store belongs to migration %s from %s to %s; the migration file now names %s and %s. "+
			"Use a migration id (or a store) of its own for other desks", e.mig.ID, st.Source, st.Target, e.SourceID, e.TargetID)
	}
	return nil
}

// allowed checks the rules of sections "cutoff" and "one run per window", and sets where a delta begins.
func (e *Engine) allowed(st state, q Request, run *Run) error {
	if !q.Dry {
		for name, l := range st.Lanes {
			if name == run.Lane && q.Restart {
				continue
			}
			if l.Exclusive {
				return refuse("run %s (%s) has the migration to itself until it ends", l.Run, name)
			}
			if exclusive(run.Kind, q.Restart) {
				return refuse("%s has the migration to itself, and run %s (%s) is active: let it finish first", map[Kind]string{Full: "a restart", Remap: "a remap", Undo: "an undo"}[run.Kind], l.Run, name)
			}
		}
	}
	sc := st.Scopes[run.Scope]
	defined := scopeDigest(run.Filter)
	switch run.Kind {
	case Full:
		if b := sc.Baseline; b != nil && b.Scope == defined && !q.Restart && !q.Dry {
			return refuse("full run %s of scope %q finished on %s; what changed since comes with --kind delta. To read everything again and begin a new baseline: --restart", b.Run, run.Scope, b.Ended.UTC().Format(time.DateTime))
		}
		if sc.Full != "" && !q.Restart && !q.Dry {
			return refuse("full run %s of scope %q was stopped. Go on with it: --continue (keeps its cutoff). Or read everything again: --restart", sc.Full, run.Scope)
		}
		if b := sc.Baseline; b != nil {
			run.From = e.behindmost(st, run.Scope, b)
		}
	case Delta, Census, Remap:
		b := sc.Baseline
		if b == nil {
			return refuse("no full run of scope %q has finished yet, so there is nothing to be ahead of. First: deltadesk run --kind full --scope %s", run.Scope, run.Scope)
		}
		if b.Scope != defined {
			return refuse("scope %q means something else than when full run %s read it. A full run renews it (what is already there is recognised): deltadesk run --kind full --scope %s", run.Scope, b.Run, run.Scope)
		}
		if run.Kind != Delta {
			run.From = e.reached(st, run.Scope, b)
			return nil
		}
		run.From = st.Windows[run.Window].Cutoff
		if st.Windows[run.Window].Baseline != b.Run {
			run.From = b.Mark
		}
		if until := e.deadline(st, run.Window); q.Since.IsZero() && e.Now().After(until) {
			return refuse("the deadline of window %q passed on %s. Extend it: deltadesk extend %s --until DATE. Or begin a new baseline: deltadesk run --kind full --scope %s --restart",
				run.Window, until.UTC().Format(time.DateTime), run.Window, run.Scope)
		}
	}
	return nil
}

// deadline is until when a window's next delta may begin; zero where no full run of its scope has finished. A new baseline was read
// completely after its mark, so the chain begins again there.
func (e *Engine) deadline(st state, window string) time.Time {
	b := st.Scopes[e.mig.Windows[window].Scope].Baseline
	if b == nil {
		return time.Time{}
	}
	w := st.Windows[window]
	since := w.LastOK
	if w.Baseline != b.Run {
		since = b.Ended
	}
	until := since.Add(e.mig.Deadline)
	if w.Extended.After(until) {
		until = w.Extended
	}
	return until
}

// occupy writes the run into the state and returns the run whose place it took.
func (e *Engine) occupy(st *state, run Run, restart bool) (replaced string) {
	if st.Lanes == nil {
		st.Lanes = map[string]lane{}
	}
	replaced = st.Lanes[run.Lane].Run
	st.Lanes[run.Lane] = lane{Run: run.ID, Exclusive: exclusive(run.Kind, restart), Begin: &run}
	if run.Kind == Full {
		if st.Scopes == nil {
			st.Scopes = map[string]scopeState{}
		}
		sc := st.Scopes[run.Scope]
		if replaced == "" {
			replaced = sc.Full
		}
		sc.Full = run.ID
		st.Scopes[run.Scope] = sc
	}
	return replaced
}

// reopen goes on with a full run that was stopped. (One that was merely cut off still has its lane and never comes here.)
// It keeps its mark: a change made since then lies after it, and comes with the first delta.
func (e *Engine) reopen(ctx context.Context, st state, version int64, q Run) (Run, bool, error) {
	id := st.Scopes[q.Scope].Full
	switch b := st.Scopes[q.Scope].Baseline; {
	case id == "" && b != nil && b.Scope != scopeDigest(q.Filter):
		return Run{}, false, refuse("full run %s of scope %q has finished, so there is nothing to go on with; but the scope means something else since. Begin one: deltadesk run --kind full --scope %s", b.Run, q.Scope, q.Scope)
	case id == "" && b != nil:
		return Run{}, false, refuse("full run %s of scope %q finished on %s, so there is nothing to go on with; what changed since comes with --kind delta. To read everything again and begin a new baseline: --restart", b.Run, q.Scope, b.Ended.UTC().Format(time.DateTime))
	case id == "":
		return Run{}, false, refuse("there is no full run of scope %q to go on with. Begin one: deltadesk run --kind full --scope %s", q.Scope, q.Scope)
	}
	for name, l := range st.Lanes {
		if l.Exclusive {
			return Run{}, false, refuse("run %s (%s) has the migration to itself until it ends", l.Run, name)
		}
	}
	if err := e.Preflight(ctx); err != nil {
		return Run{}, false, err
	}
	sums, err := e.sums(ctx, id)
	if err != nil {
		return Run{}, false, err
	}
	old, err := update(ctx, e, e.runKey(id), func(r *Run) error {
		if digestJSON(r.Filter) != digestJSON(q.Filter) {
			return refuse("scope %q means something else than when full run %s began; read everything again: --restart", q.Scope, id)
		}
		if q.Adopt && !r.Adopt {
			return adoptsNothing(id)
		}
		if r.Adopted.IsZero() {
			r.Adopted, r.AdoptedBy = st.Adopted, st.AdoptedBy
		}
		r.Status, r.Why, r.Stop, r.Ended, r.Forgiven, r.Config = Running, "", "", time.Time{}, sums.total.Failed, e.mig.Hash
		return nil
	})
	if err != nil {
		return Run{}, false, err
	}
	if st.Lanes == nil {
		st.Lanes = map[string]lane{}
	}
	st.Lanes[q.Lane] = lane{Run: id, Begin: &old}
	if _, err := e.put(ctx, e.stateKey(), version, st); err != nil {
		return Run{}, false, err
	}
	old, err = e.run(ctx, old.ID)
	return old, true, err
}

// adoptsNothing refuses to go on, as one that adopts, with a full run that began without.
func adoptsNothing(id string) error {
	return refuse("full run %s began without --adopt, and has not looked at everything in the target. Read everything again: deltadesk run --kind full --restart --adopt", id)
}

// abandon ends a run that will not go on. Its cutoff stays where it was.
func (e *Engine) abandon(ctx context.Context, id, why string) error {
	_, err := update(ctx, e, e.runKey(id), func(r *Run) error {
		if r.ID == "" || r.Status.Ended() {
			return errKeep
		}
		r.Status, r.Why, r.Ended = Cancelled, why, e.Now().UTC()
		if r.Ended.Before(r.Started) {
			r.Ended = r.Started
		}
		return nil
	})
	return err
}

// repin takes over the migration file as it is now for the rest of a run that was cut off. Records carried out before go
// by the file of then; what a changed mapping makes of them is the business of their next change.
func (e *Engine) repin(ctx context.Context, id string) (Run, error) {
	if err := e.Preflight(ctx); err != nil {
		return Run{}, err
	}
	if _, err := update(ctx, e, e.runKey(id), func(r *Run) error {
		r.Config = e.mig.Hash
		return nil
	}); err != nil {
		return Run{}, err
	}
	return e.run(ctx, id)
}

// Cancel asks a run to end at its next step. The cutoff stays where it was; what has been written stays written.
func (e *Engine) Cancel(ctx context.Context, id, why string) error {
	return e.ask(ctx, id, Cancelled, why)
}

func (e *Engine) ask(ctx context.Context, id string, stop Status, why string) error {
	if _, err := e.run(ctx, id); err != nil { // it may have its lane and not its row yet
		return err
	}
	_, err := update(ctx, e, e.runKey(id), func(r *Run) error {
		if r.ID == "" {
			return refuse("there is no run %s", id)
		}
		if r.Status.Ended() || r.Stop != "" {
			return errKeep
		}
		r.Stop, r.Why = stop, why
		return nil
	})
	return err
}

func (e *Engine) run(ctx context.Context, id string) (Run, error) {
	var r Run
	v, err := e.get(ctx, e.runKey(id), &r)
	if err != nil {
		return r, err
	}
	if v == 0 {
		return e.begun(ctx, id)
	}
	if r.ID != id {
		return r, fmt.Errorf("row %s %s is damaged: it is that of run %q", e.runKey(id).Part, id, r.ID)
	}
	r.version = v
	return r, nil
}

// begun returns a run that has its lane and not its row yet, and writes the row.
func (e *Engine) begun(ctx context.Context, id string) (Run, error) {
	var st state
	if _, err := e.get(ctx, e.stateKey(), &st); err != nil {
		return Run{}, err
	}
	for _, l := range st.Lanes {
		if l.Run == id && l.Begin != nil {
			r := *l.Begin
			v, err := e.put(ctx, e.runKey(id), 0, r)
			if errors.Is(err, ErrStale) {
				return e.run(ctx, id)
			}
			r.version = v
			return r, err
		}
	}
	return Run{}, refuse("there is no run %s", id)
}

func scopeDigest(s desk.Scope) string { return digestJSON(s) }

// Extend sets a later deadline for a window's next delta.
func (e *Engine) Extend(ctx context.Context, window string, until time.Time) error {
	if names := e.windows(Delta); !slices.Contains(names, window) {
		return refuse("there is no window %q whose deltas have a deadline; the migration file has %s", window, listed(names))
	}
	if !until.After(e.Now()) {
		return refuse("%s has already passed", until.UTC().Format(time.DateTime))
	}
	_, err := update(ctx, e, e.stateKey(), func(st *state) error {
		if now := e.deadline(*st, window); until.Before(now) {
			return refuse("the deadline of window %q is %s already, which is later", window, now.UTC().Format(time.DateTime))
		}
		w := st.Windows[window]
		w.Extended = until.UTC()
		if st.Windows == nil {
			st.Windows = map[string]windowState{}
		}
		st.Windows[window] = w
		return nil
	})
	return err
}

// behindmost is the cutoff of the scope's chain that succeeded first: up to there every window has carried out what the feed told.
func (e *Engine) behindmost(st state, scope string, b *baseline) desk.Cursor {
	from, first := b.Mark, time.Time{}
	for name, m := range e.mig.Windows {
		w := st.Windows[name]
		switch {
		case m.Scope != scope || m.Kind == Census:
		case w.Baseline != b.Run:
			return b.Mark // it has yet to begin
		case first.IsZero() || w.LastOK.Before(first):
			from, first = w.Cutoff, w.LastOK
		}
	}
	return from
}

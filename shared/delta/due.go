package delta

import (
	"context"
	"errors"
	"maps"
	"slices"
)

// What the next delta takes up without the source listing it, and which one does.

// makeDue makes the next run over the scope take a record up.
func (e *Engine) makeDue(ctx context.Context, scope string, d dueRow) error {
	_, err := update(ctx, e, e.dueKey(scope, d.Listed.Ref), func(old *dueRow) error {
		if d.Listed.Stamp.Before(old.Listed.Stamp) {
			d.Listed.Stamp = old.Listed.Stamp
		}
		if d.Listed.Event == "" {
			d.Listed.Event, d.Listed.Into = old.Listed.Event, old.Listed.Into
		}
		d.Heal = d.Heal || old.Heal
		*old = d
		return nil
	})
	return err
}

// scopesOf are the scopes whose runs see to a record later on: the run's own or, where the record has left that one and only
// what was begun is brought to its end, those that it is in.
func (e *Engine) scopesOf(w *work) []string {
	if ok, _ := w.run.Filter.Holds(w.rec); ok {
		return []string{w.run.Scope}
	}
	var in []string
	for _, name := range slices.Sorted(maps.Keys(e.mig.Scopes)) {
		if ok, _ := e.mig.Scopes[name].Holds(w.rec); ok {
			in = append(in, name)
		}
	}
	return in
}

// handOn makes a record that is due here, and has left this scope, due where it is now: the source need not have told that
// window anything of it. Its next delta sees to it.
func (e *Engine) handOn(ctx context.Context, w *work) error {
	if w.it.Due == "" || w.run.Dry {
		return nil
	}
	why := "scope"
	if w.it.Due == dueMoved {
		why = dueMoved // the thread is to be looked at, whatever the fields say
	}
	for _, scope := range e.scopesOf(w) {
		if !e.mig.hasDeltas(scope, "") {
			continue
		}
		if err := e.makeDue(ctx, scope, dueRow{Listed: w.it.Listed, Why: why, Run: w.run.ID, Heal: w.it.Heal}); err != nil {
			return err
		}
	}
	return nil
}

// dueWords says why a record is due. A sentence (what a sample was chosen for, say) stays as it is.
func dueWords(why string) string {
	words, ok := map[string]string{
		"held":     "something of it waits for a decision",
		"failed":   "it failed, and is tried again",
		"mode":     "the mode of an earlier run left it out, and one that covers it brings it over",
		"link":     "a record that it links to has arrived",
		dueMoved:   "entries moved between its thread and another one",
		"scope":    "it has left the scope of another window for this one",
		"decision": "somebody decided about what was held",
		"undone":   "an undo took back what was written",
		"missed":   "a census found that no delta was told of it",
		"mapping":  "the mapping makes something else of it than what was written",
		"verify":   "a verification found that it differs",
	}[why]
	if ok {
		return words
	}
	return why
}

// leftByMode is why a record is excluded of which a run that only creates would have to change something.
const leftByMode = "the mode leaves changes of migrated records out"

// putOff makes a record due that the run's mode has left out: here, where a census looks for it, and, where no window over this scope
// has the other mode, in the scopes of windows that have it.
func (e *Engine) putOff(ctx context.Context, w *work) error {
	scopes := []string{w.run.Scope}
	if !e.mig.hasDeltas(w.run.Scope, w.later) {
		for _, name := range slices.Sorted(maps.Keys(e.mig.Scopes)) {
			if in, _ := e.mig.Scopes[name].Holds(w.rec); in && name != w.run.Scope && e.mig.hasDeltas(name, w.later) {
				scopes = append(scopes, name)
			}
		}
	}
	for _, scope := range scopes {
		if err := e.makeDue(ctx, scope, dueRow{Listed: w.it.Listed, Why: "mode", Run: w.run.ID, Mode: w.later, Heal: w.it.Heal}); err != nil {
			return err
		}
	}
	return nil
}

// caughtUp forgets what putOff has made due in other scopes as well, where no window would ever take it up: this run has. A change that
// was put off after this one stays due in both.
func (e *Engine) caughtUp(ctx context.Context, w *work) error {
	if w.it.Due != "mode" {
		return nil
	}
	for _, scope := range slices.Sorted(maps.Keys(e.mig.Scopes)) {
		var d dueRow
		version, err := e.get(ctx, e.dueKey(scope, w.it.Ref), &d)
		if err != nil {
			return err
		}
		if version == 0 || scope == w.run.Scope || d.Why != "mode" || e.mig.hasDeltas(scope, d.Mode) || d.Heal && !w.it.Heal || w.it.Stamp.Before(d.Listed.Stamp) {
			continue
		}
		if err := e.rows.Delete(ctx, e.dueKey(scope, w.it.Ref), version); err != nil && !errors.Is(err, ErrStale) {
			return err
		}
	}
	return nil
}

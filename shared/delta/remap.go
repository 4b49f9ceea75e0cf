package delta

import (
	"context"
	"errors"
	"fmt"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// A remap makes due, after the mapping has changed, exactly the records of which the mapping now makes something else than
// was last carried out. It writes to neither desk: the next delta does, by the same three-way merge as ever, so that what
// people did in the target survives. It has the migration to itself, because a run that goes by another mapping beside it
// would undo what it found out.

// outdated tells whether a remap must look at a listed record: the ledger has it, and from another mapping.
func (e *Engine) outdated(l followed, it desk.Listed) bool {
	return l.Target != "" && l.Rules != e.rules && l.Gone == "" && l.Into == "" && (it.Event == "" || it.Event == desk.Changed)
}

// remapOne finds out whether the mapping makes something else of one record.
func (e *Engine) remapOne(ctx context.Context, w *work) error {
	if err := e.loadRow(ctx, w); err != nil {
		return err
	}
	if !e.outdated(w.row.followed, w.it.Listed) {
		w.finish(OutUnchanged, "") // looked at already: it was listed twice
		return nil
	}
	if comes, err := e.comes(ctx, w); err != nil || comes {
		return err
	}
	if err := e.free(w.row); err != nil {
		return err
	}
	rec, err := e.Source.Read(ctx, w.ref)
	switch {
	case errors.Is(err, desk.ErrNotFound):
		w.finish(OutExcluded, "not in the source any more")
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", w.ref, err)
	case w.older(rec):
		return fmt.Errorf("read %s: %w", w.ref, errNotYet)
	case rec.Ref != w.ref:
		w.finish(OutExcluded, "merged in the source")
		return nil
	case rec.Event == desk.Deleted || rec.Event == desk.Spam:
		w.finish(OutExcluded, string(rec.Event)+" in the source")
		return nil
	case w.it.Stamp.Before(rec.Stamp):
		w.finish(OutExcluded, "it has changed in the source while the remap was on; the next delta brings it over, by this mapping")
		return nil
	}
	w.rec = rec
	if ok, why := w.run.Filter.Holds(rec); !ok {
		w.finish(OutExcluded, why)
		return nil
	}
	res, err := e.mapped(ctx, rec)
	if err != nil {
		return err
	}
	if len(res.Problems) > 0 {
		return problem(w.ref, res)
	}
	if err := e.build(ctx, w, res); err != nil {
		return err
	}
	same := w.asCarriedOut()
	if w.row.How == "fallback" {
		id, err := e.foresee(ctx, w, w.ref, w.row)
		if err != nil {
			return err
		}
		same = id == w.row.Target
	}
	if same {
		w.finish(OutUnchanged, "")
		return e.confirm(ctx, w)
	}
	w.makesDue("mapping", "", "")
	w.finish(OutUpdated, "the mapping makes something else of it now: it is due, and the next delta writes it")
	if w.run.Dry {
		w.out.Reason = "the mapping makes something else of it now: a remap that is no rehearsal makes it due"
	}
	return nil
}

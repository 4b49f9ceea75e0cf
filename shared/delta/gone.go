package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// What becomes of a record whose target is no more.

// forget drops the memory of a thread that is no more, before another target record takes its place. The claim that is about
// to be written, or was, has none of it.
func (e *Engine) forget(ctx context.Context, w *work) error {
	if w.chunks == 0 && len(w.known) == 0 {
		return nil
	}
	if err := e.forgetChunks(ctx, w.ref); err != nil {
		return err
	}
	w.row.Entries, w.fresh = nil, nil
	return e.loadEntries(ctx, w)
}

// leaveTarget claims the row for another target record in place of one that is no more: first the row no longer names that
// one nor its thread, then the rest of that memory goes. Whoever is cut off in between leaves an open create behind.
func (e *Engine) leaveTarget(ctx context.Context, w *work) error {
	w.row.Target, w.row.How, w.row.Fields, w.row.Tag, w.row.Lock, w.row.Worked, w.row.Began = "", "", nil, "", "", false, time.Time{}
	w.row.Entries, w.fresh = nil, nil
	e.adding(w, w.want.Entries[:min(1, len(w.want.Entries))])
	e.bringing(w, w.want.Entries)
	if err := e.ensure(ctx, w, nil); err != nil {
		return err
	}
	if err := e.forget(ctx, w); err != nil {
		return e.release(ctx, w, err)
	}
	return nil
}

func (e *Engine) forgetChunks(ctx context.Context, ref desk.Ref) error {
	return e.each(ctx, e.ledgerPart(ref), "entries/", func(r Row) error { return e.rows.Delete(ctx, r.Key, r.Version) })
}

// instead goes on with another target record, of which nothing is known.
func (e *Engine) instead(ctx context.Context, w *work, target, how string) error {
	if err := e.leaveTarget(ctx, w); err != nil {
		return err
	}
	w.row.Target, w.row.How, w.adds = target, how, nil
	if err := e.ensure(ctx, w, nil); err != nil {
		return err
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	if err != nil {
		return e.release(ctx, w, fmt.Errorf("read target %s, %s for %s: %w", target, how, w.ref, err))
	}
	return e.converge(ctx, ctx, w, now, false, true)
}

// gone is what happens when a migrated record is no longer in the target.
func (e *Engine) gone(ctx context.Context, w *work) error {
	policy := e.mig.OnTargetGone
	if w.before != nil && w.before.Delete || w.row.Look {
		policy = RecreateGone // we deleted it: as the source had, which has it again, or an undo did
	}
	if a := w.heldBefore.Answer; a != nil && w.heldBefore.Gone {
		switch a.Choice {
		case ChooseCreate:
			policy = RecreateGone
		case ChooseLink:
			ok, err := e.mayLink(ctx, w, a.Value.First())
			switch {
			case err != nil:
				return e.release(ctx, w, err)
			case ok:
				return e.instead(ctx, w, a.Value.First(), "decided")
			}
			policy = HoldGone
		}
	} else if f, ok := e.Target.(desk.Finder); ok && w.run.adopted() {
		// A ledger of an earlier day may name a record that was made again since.
		ids, err := f.Find(ctx, w.ref)
		if err != nil {
			return e.release(ctx, w, fmt.Errorf("look for %s in the target: %w", w.ref, err))
		}
		if len(ids) == 1 && ids[0] != w.row.Target {
			return e.instead(ctx, w, ids[0], "found")
		}
	}
	if _, ok := e.Target.(desk.Finder); !ok && w.run.adopted() && policy == RecreateGone && w.heldBefore.Answer == nil {
		policy = HoldGone // it may have been made again since, and nobody can look
	}
	switch policy {
	case RecreateGone:
		if err := e.leaveTarget(ctx, w); err != nil {
			return err
		}
		now, err := e.create(ctx, w)
		if err != nil {
			return err
		}
		return e.converge(ctx, ctx, w, now, true, false)
	case IgnoreGone:
		w.reason = "deleted in the target"
		return e.commit(ctx, w, OutExcluded)
	}
	w.held.Gone = true
	return e.commit(ctx, w, OutHeld)
}

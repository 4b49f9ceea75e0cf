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
	w.row.Target, w.row.How, w.row.Fields, w.row.Tag, w.row.Lock, w.row.Worked, w.row.Began, w.row.Deleted = "", "", nil, "", "", false, time.Time{}, ""
	w.row.Entries, w.fresh = nil, nil
	if err := e.anew(ctx, w); err != nil {
		return e.release(ctx, w, err)
	}
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

// whenGone says what becomes of a record that is no longer in the target: by policy, or another target record takes its place. Where a
// person is asked again, w.held.Refused says why. It writes nothing.
func (e *Engine) whenGone(ctx context.Context, w *work) (policy OnGone, target, how string, err error) {
	policy = e.mig.OnTargetGone
	if w.before != nil && w.before.Delete || w.row.Look {
		policy = RecreateGone // we deleted it: as the source had, which has it again, or an undo did
	}
	if w.leftDeleted() {
		policy = IgnoreGone
	}
	f, searched := e.Target.(desk.Finder)
	if a := w.heldBefore.Answer; a != nil && w.heldBefore.Gone {
		switch a.Choice {
		case ChooseCreate:
			policy = RecreateGone
		case ChooseLink:
			if how, err := e.mayLink(ctx, w, a.Value.First()); err != nil || how != "" {
				return policy, a.Value.First(), how, err
			}
			policy = HoldGone
		case ChooseTarget:
			if policy = IgnoreGone; a.Source != w.digest {
				policy, w.held.Refused = HoldGone, "the source has changed it since it was decided to leave it deleted"
			}
		}
	} else if searched && w.run.adopted() {
		// A ledger of an earlier day may name a record that was made again since.
		ids, err := e.search(ctx, f, w.ref, w.row.Was)
		if err != nil {
			return policy, "", "", err
		}
		if len(ids) == 1 && ids[0] != w.row.Target {
			return policy, ids[0], "found", nil
		}
	}
	if !searched && w.run.adopted() && w.heldBefore.Answer == nil && !w.leftDeleted() {
		policy = HoldGone // it may have been made again since, and nobody can look
	}
	return policy, "", "", nil
}

// leftDeleted tells whether a person has said that the record stays deleted in the target, and the source still says what it said then.
func (w *work) leftDeleted() bool { return w.row.Deleted != "" && w.row.Deleted == w.digest }

// deletedThere is why a record is excluded that stays deleted in the target.
const deletedThere = "deleted in the target"

// gone is what happens when a migrated record is no longer in the target.
func (e *Engine) gone(ctx context.Context, w *work) error {
	if err := e.settled(w.row); err != nil { // what a desk does not show yet is not gone
		return e.release(ctx, w, err)
	}
	if a := w.heldBefore.Answer; a != nil && a.Choice == ChooseLink && w.heldBefore.Doubt != "" && len(w.heldBefore.Doubtful) == 0 {
		// The doubt was to end with it. It has not: what an open create made may be elsewhere, and no policy makes another one.
		w.held.Doubt = "target " + w.row.Target + ", which somebody said it is, is not there"
		if err := e.leaveTarget(ctx, w); err != nil {
			return err
		}
		return e.commit(ctx, w, OutHeld)
	}
	policy, target, how, err := e.whenGone(ctx, w)
	switch {
	case err != nil:
		return e.release(ctx, w, err)
	case target != "":
		return e.instead(ctx, w, target, how)
	}
	switch policy {
	case RecreateGone:
		w.open = nil // what may have been added was added to what is gone
		if err := e.leaveTarget(ctx, w); err != nil {
			return err
		}
		if err := e.fence(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
		now, err := e.make(ctx, w)
		if err != nil {
			return err
		}
		return e.converge(ctx, ctx, w, now, true, false)
	case IgnoreGone:
		if a := w.heldBefore.Answer; a != nil && w.heldBefore.Gone && a.Choice == ChooseTarget {
			w.row.Deleted = w.digest
		}
		w.reason = deletedThere
		return e.commit(ctx, w, OutExcluded)
	}
	w.held.Gone, w.held.Source = true, w.digest
	return e.commit(ctx, w, OutHeld)
}

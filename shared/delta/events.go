package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// aliases are the tickets that were merged into w's record in the source.
func (w *work) aliases() []string {
	if w.ref.Kind != desk.Ticket {
		return nil // people and companies that were merged keep the records they have
	}
	ids := slices.Clone(w.rec.Aliases)
	if w.it.Ref != w.ref && w.it.Ref.Kind == w.ref.Kind && !slices.Contains(ids, w.it.Ref.ID) {
		ids = append(ids, w.it.Ref.ID)
	}
	return ids
}

// fence makes sure, before anything is written, that nobody is still at work on a ticket that was merged into w's record: its
// thread is about to become part of w's, and what is in both would be there twice. A claim is waited for; whoever read the
// ticket before the merge and has not claimed it yet finds the row moved. Then w learns again which entries are there.
func (e *Engine) fence(ctx context.Context, w *work) error {
	open := false
	for _, id := range w.aliases() {
		if _, err := update(ctx, e, e.ledgerKey(desk.Ref{Kind: w.ref.Kind, ID: id}), func(r *ledgerRow) error {
			if r.Into != "" {
				return errKeep
			}
			open = true
			if err := e.free(*r); err != nil {
				return err
			}
			if r.Joining == w.ref.ID {
				return errKeep
			}
			r.Joining = w.ref.ID
			return nil
		}); err != nil {
			return err
		}
	}
	if !open {
		return nil
	}
	fresh := w.fresh
	if err := e.loadEntries(ctx, w); err != nil {
		return err
	}
	w.fresh = fresh
	return nil
}

// mergeAliases carries merges of the source over: tickets that were merged into w's record and have targets of their own. It
// is done before anything is added to the thread, so that what both targets hold is there once. It returns the target as it
// is afterwards.
func (e *Engine) mergeAliases(ctx context.Context, w *work, now desk.Record) (desk.Record, error) {
	moved := false
	for _, id := range w.aliases() {
		ref := desk.Ref{Kind: w.ref.Kind, ID: id}
		var row ledgerRow
		if _, err := e.get(ctx, e.ledgerKey(ref), &row); err != nil {
			return now, err
		}
		if row.Into != "" {
			continue
		}
		if w.claimed == "" {
			if err := e.claim(ctx, w, nil); err != nil {
				return now, err
			}
		}
		if row.Claim != nil {
			// Somebody was carrying it out. It is waited for, and a create that is open is looked up: the merge must not leave
			// a ticket behind that nobody knows of.
			if err := e.free(row); err != nil {
				return now, err
			}
			if f, ok := e.Target.(desk.Finder); ok && row.Target == "" {
				ids, err := f.Find(ctx, ref)
				if err != nil {
					return now, err
				}
				if len(ids) > 0 {
					row.Target = ids[0]
				}
			}
		}
		if row.Target != "" && row.Target != w.row.Target && row.How != "merged in the target" {
			did, err := e.mergeTarget(ctx, w, ref, row)
			if err != nil {
				return now, fmt.Errorf("carry over that %s was merged into %s: %w", ref, w.ref, err)
			}
			if did {
				moved = true
				w.wrote = append(w.wrote, "merged "+ref.String())
			}
		}
		if _, err := update(ctx, e, e.ledgerKey(ref), func(r *ledgerRow) error {
			r.Into, r.Target, r.Claim, r.Joining = w.ref.ID, row.Target, nil, ""
			r.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Seen: w.it.Stamp.At, Outcome: OutUpdated, Why: "merged into " + w.ref.String()})
			return nil
		}); err != nil {
			return now, err
		}
		if row.Awaited {
			if err := e.wake(ctx, w.run.ID, ref); err != nil {
				return now, err
			}
		}
	}
	if !moved {
		return now, nil
	}
	return e.Target.Read(ctx, e.targetRef(w))
}

// mergeTarget does to the target of an alias what the policy says.
func (e *Engine) mergeTarget(ctx context.Context, w *work, alias desk.Ref, row ledgerRow) (bool, error) {
	from := desk.Ref{Kind: alias.Kind, ID: row.Target}
	old, err := e.Target.Read(ctx, from)
	if errors.Is(err, desk.ErrNotFound) || err == nil && old.Ref.ID != from.ID {
		return false, nil // gone, or merged already, there or elsewhere
	}
	if err != nil {
		return false, err
	}
	m, can := e.Target.(desk.Merger)
	if e.mig.OnMerged == Mirror && can {
		if err := e.before(ctx, w, image{Ref: w.ref, Target: w.row.Target, Final: alias.String() + " was merged into it"}); err != nil {
			return false, err
		}
		return true, m.Merge(ctx, from, e.targetRef(w))
	}
	var left desk.Fields
	switch e.mig.OnMerged {
	case Mirror, Close: // closing is as near as a desk that cannot merge comes
		left = desk.Fields{desk.Status: {e.mig.ClosedStatus}}
	case Tag:
		left = e.tagged(old)
	default:
		return false, nil
	}
	if err := e.before(ctx, w, imageOfEvent(alias, row, old, left)); err != nil {
		return false, err
	}
	_, err = e.Target.Apply(ctx, from, desk.Change{Fields: left, Lock: old.Lock})
	return false, err
}

// leave carries over that a ticket was merged into one that does not move: as it cannot be merged in the target, its own
// target is closed or tagged, unless the policy says ignore.
func (e *Engine) leave(ctx context.Context, w *work, why string) error {
	into := w.ref
	w.ref = w.it.Ref
	if err := e.loadRow(ctx, w); err != nil {
		return err
	}
	if err := e.free(w.row); err != nil {
		return err
	}
	reason := fmt.Sprintf("merged into %s in the source, which does not move: %s", into, why)
	if w.row.Target == "" || w.row.Into != "" || e.mig.OnMerged == Ignore || w.run.Mode == CreateOnly {
		w.finish(OutExcluded, reason)
		return nil
	}
	if err := e.claim(ctx, w, nil); err != nil {
		return err
	}
	old, err := e.Target.Read(ctx, e.targetRef(w))
	if err == nil && old.Ref.ID == w.row.Target {
		f := desk.Fields{desk.Status: {e.mig.ClosedStatus}}
		if e.mig.OnMerged == Tag {
			f = e.tagged(old)
		}
		if err := e.before(ctx, w, imageOfEvent(w.ref, w.row, old, f)); err != nil {
			return e.release(ctx, w, err)
		}
		_, err = e.Target.Apply(ctx, e.targetRef(w), desk.Change{Fields: f, Lock: old.Lock})
	}
	if err != nil && !errors.Is(err, desk.ErrNotFound) {
		return e.release(ctx, w, fmt.Errorf("carry over that %s was %s: %w", w.ref, reason, err))
	}
	w.finish(OutUpdated, reason)
	w.done = false
	w.row.Claim, w.row.Into, w.row.Last = nil, into.ID, &last{Run: w.m.Run, Pos: w.pos(), Out: w.out}
	w.row.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Seen: w.it.Stamp.At, Outcome: OutUpdated, Why: reason})
	if err := e.saveRow(ctx, w); err != nil {
		return err
	}
	w.done = true
	return nil
}

func (e *Engine) tagged(r desk.Record) desk.Fields {
	return desk.Fields{desk.Tags: desk.Set(append(slices.Clone(r.Fields[desk.Tags]), e.mig.EventTag)...)}
}

// carryOutEvent does what the policies say about a migrated record that was deleted, or marked as spam, in the source.
// Nothing is deleted in the target unless a policy says mirror (invariant 5).
func (e *Engine) carryOutEvent(ctx context.Context, w *work) error {
	policy := e.mig.OnDeleted
	if w.rec.Event == desk.Spam {
		policy = e.mig.OnSpam
	}
	if err := e.claim(ctx, w, nil); err != nil {
		return err
	}
	if w.row.Target == "" {
		// A create is open. If it took effect, the event is for what it made.
		id, _, err := e.find(ctx, w, true)
		if err != nil {
			return e.release(ctx, w, err)
		}
		if w.held.Doubt != "" {
			return e.commit(ctx, w, OutHeld)
		}
		w.row.Target, w.row.How = id, "found"
	}
	out := OutUpdated
	now, err := desk.Record{}, error(&desk.Error{Op: "look", Class: desk.ErrNotFound})
	if w.row.Target != "" {
		now, err = e.Target.Read(ctx, e.targetRef(w))
	}
	left := desk.Fields{}
	switch {
	case err == nil && (now.Ref.ID != w.row.Target || w.row.How == "merged in the target"):
		out = OutExcluded // the target's people merged it: what lives on there is not this record alone
	case errors.Is(err, desk.ErrNotFound):
		out = OutUnchanged // gone on both sides
	case err != nil:
		return e.release(ctx, w, err)
	case policy == Mirror:
		d, can := e.Target.(desk.Deleter)
		if !can {
			return e.release(ctx, w, &desk.Error{Op: "delete target " + w.row.Target, Class: desk.ErrRejected, Said: "this desk cannot delete; choose policy close or tag"})
		}
		if err := e.before(ctx, w, image{Ref: w.ref, Target: w.row.Target, Event: true, Final: "it was deleted"}); err != nil {
			return e.release(ctx, w, err)
		}
		err = d.Delete(ctx, e.targetRef(w))
		w.wrote = append(w.wrote, "deleted")
	case policy == Close, policy == Tag:
		left = desk.Fields{desk.Status: {e.mig.ClosedStatus}}
		if policy == Tag {
			left = e.tagged(now)
		}
		if err := e.before(ctx, w, imageOfEvent(w.ref, w.row, now, left)); err != nil {
			return e.release(ctx, w, err)
		}
		_, err = e.Target.Apply(ctx, e.targetRef(w), desk.Change{Fields: left, Lock: now.Lock})
		for f := range left {
			w.wrote = append(w.wrote, string(f))
		}
	default:
		out = OutExcluded
	}
	if err != nil {
		return e.doubt(ctx, w, fmt.Errorf("carry over that %s is %s: %w", w.ref, w.rec.Event, err))
	}
	if err := e.keepHeld(ctx, w.held, w.heldBefore, w.heldVersion); err != nil { // nothing of it waits any more
		return e.release(ctx, w, err)
	}
	// Should the record come back, its fields have changed in the source only.
	w.row.Fields = maps.Clone(w.row.Fields)
	for f, v := range left {
		if w.row.Fields == nil {
			w.row.Fields = map[desk.Field]base{}
		}
		w.row.Fields[f] = base{Src: "gone", Tgt: v.Digest()}
	}
	event := w.rec.Event
	w.finish(out, string(event)+" in the source; policy "+string(policy))
	w.done = false
	w.row.Claim, w.row.Held, w.row.Gone, w.row.Digest, w.row.Began = nil, false, event, "", w.rec.Began.UTC()
	w.row.Last = &last{Run: w.m.Run, Pos: w.pos(), Out: w.out}
	w.row.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Seen: w.it.Stamp.At, Outcome: out, Why: w.out.Reason, Wrote: w.wrote})
	if err := e.saveRow(ctx, w); err != nil {
		return err
	}
	w.done = true
	return nil
}

// rehearse says what carryOut would do, and writes nothing, neither to the desks nor to the ledger.
func (e *Engine) rehearse(ctx context.Context, w *work) error {
	if w.rec.Event == desk.Deleted || w.rec.Event == desk.Spam {
		w.finish(OutExcluded, string(w.rec.Event)+" in the source")
		return nil
	}
	if w.row.Target == "" || w.row.How == "fallback" {
		id, how, err := e.find(ctx, w, w.run.Adopt || w.row.Claim != nil || e.looks(w.row))
		switch {
		case err != nil:
			return err
		case w.held.Doubt != "":
			w.finish(OutHeld, w.held.reason())
		case id != "" && w.ref.Kind != desk.Ticket:
			w.finish(OutUnchanged, "would be linked to a record that is there ("+how+")")
		case id == "":
			w.finish(OutCreated, "would be created")
		default:
			w.row.Target = id
		}
		if w.done {
			return nil
		}
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	if errors.Is(err, desk.ErrNotFound) {
		w.finish(OutHeld, "it was deleted in the target")
		return nil
	}
	if err != nil {
		return err
	}
	defs, err := e.definitions(ctx)
	if err != nil {
		return err
	}
	m := merge(w.ref.Kind, w.row.Fields, w.want.Fields, now.Fields, defs, e.mig.Policies, w.heldBefore.decisions())
	e.noteEntries(w, desk.Written{}, now.Entries)
	add := 0
	for _, en := range w.want.Entries {
		if k, ok := w.known[en.ID]; !ok || k.Digest != entryDigest(en) {
			add++
		}
	}
	w.held.Fields = m.Held
	switch {
	case len(m.Held) > 0:
		w.finish(OutHeld, w.held.reason())
	case add > 0 || len(m.Apply) > 0:
		w.finish(OutUpdated, fmt.Sprintf("would set %d fields and add %d entries", len(m.Apply), add))
	default:
		w.finish(OutUnchanged, "")
	}
	return nil
}

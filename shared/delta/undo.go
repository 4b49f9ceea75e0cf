package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// An undo is a run of its own. Its plan is the records that the undone run wrote to, each with its before-images; each is
// put back three-way, as a delta writes: only what the target still says as the undone run left it. What people or later runs
// did since is theirs, and is listed instead; so is what no desk takes back.
//
//	a field                     gets its value back, and the ledger the base that it had
//	a ticket that was created   is removed, if nobody has worked on it and no later run wrote to it
//	an entry that was revised   gets its text and visibility back, where the target can revise
//	an entry that was added     stays: no desk takes an entry back
//	a merge, a deletion         stays
//	people and companies        stay, if the run created them: others may point to them
//
// The order for each record is: due, claim, write, ledger. So whatever has been taken back is due, and the next delta
// brings it again; and a claim that is found later tells our own half-done undo from the work of people.
//
// A ticket that comes again gets another id in the target. Links to it from tickets of the undone run are drawn again; a
// ticket that a later run linked to the one that was removed keeps the old link until it changes, and verify shows it.

// mayUndo finds out whether the run may begin, and takes over from the undone run what the two share.
func (e *Engine) mayUndo(ctx context.Context, run *Run) error {
	old, err := e.run(ctx, run.Undoes)
	if err != nil {
		return err
	}
	_, scoped := e.mig.Scopes[old.Scope]
	late := old.Ended.Add(e.Timeout + e.TargetSide.Settle)
	switch {
	case old.Kind == Undo:
		return refuse("run %s is an undo itself; what it took back comes again with the next delta", old.ID)
	case old.Kind == Full:
		return refuse("run %s is a full run, and those keep no before-images. A full run is undone by its own means: empty the target, and begin again with a new store (--store)", old.ID)
	case !old.Kind.Undoable() || old.Dry:
		return refuse("run %s wrote nothing, so there is nothing to undo", old.ID)
	case !old.Status.Ended():
		return refuse("run %s has not ended (%s): let it finish first", old.ID, old.Status)
	case old.UndoneBy != "":
		return refuse("run %s was undone by run %s", old.ID, old.UndoneBy)
	case !old.Images:
		return refuse("run %s kept no before-images: it was begun by an older version", old.ID)
	case e.Now().Sub(old.Started) > UndoKept:
		return refuse("run %s began more than %d days ago, and its before-images are gone", old.ID, UndoKept/(24*time.Hour))
	case !scoped:
		return refuse("scope %q of run %s is no longer in the migration file, so no delta would bring again what is undone: put it back first", old.Scope, old.ID)
	case e.Session == "" && old.Status != Verified && old.Status != Exceptions && e.Now().Before(late):
		return refuse("workers of run %s may still be at work; try again after %s", old.ID, late.UTC().Format(time.DateTime))
	}
	run.Scope, run.Filter, run.Window, run.Mode = old.Scope, old.Filter, old.Window, ""
	if c, ok := e.Target.(desk.Checker); ok {
		if err := c.Check(ctx); err != nil {
			return fmt.Errorf("target: %w", err)
		}
	}
	return nil
}

// listWritten plans the records that the undone run wrote to.
func (e *Engine) listWritten(ctx context.Context, run *Run, pages []pageRow, budget int) ([]pageRow, error) {
	kinds := e.kinds()
	kind, after := 0, ""
	if n := len(pages); n > 0 {
		last := pages[n-1]
		if kind = slices.Index(kinds, last.Kind); last.Done {
			kind++
		} else if err := json.Unmarshal(last.Next, &after); err != nil {
			return pages, fmt.Errorf("page %d of run %s is damaged: %w", last.No, run.ID, err)
		}
	}
	for ; kind < len(kinds); kind, after = kind+1, "" {
		for done := false; !done; {
			if budget--; budget < 0 {
				return pages, nil
			}
			rows, more, err := e.rows.Range(ctx, e.imagePart(run.Undoes), string(kinds[kind])+"/", after, pageLimit)
			if err != nil {
				return pages, fmt.Errorf("list what run %s wrote: %w", run.Undoes, err)
			}
			if done = !more; len(rows) == 0 {
				continue
			}
			var entries []planEntry
			for _, r := range rows {
				kept, err := decode[imageRow](r)
				if err != nil {
					return pages, err
				}
				entries = append(entries, planEntry{Listed: kept.Listed, Due: "undo of run " + run.Undoes})
				after = r.Sort
			}
			row := pageRow{No: len(pages), Kind: kinds[kind], Listed: len(rows), Done: done}
			if row.Next, err = json.Marshal(after); err != nil {
				return pages, err
			}
			if row, err = e.putPage(ctx, run, row, entries); err != nil {
				return pages, err
			}
			pages = append(pages, row)
		}
	}
	run.Listed = true
	return pages, nil
}

// undoOne takes back what the undone run did to one record.
func (e *Engine) undoOne(ctx context.Context, w *work) error {
	if err := e.loadRow(ctx, w); err != nil {
		return err
	}
	if l := w.row.Last; l != nil && l.Run == w.m.Run && l.Pos == w.pos() {
		w.done, w.out = true, l.Out // only the outcome did not get through
		return nil
	}
	if err := e.free(w.row); err != nil {
		return err
	}
	var kept imageRow
	if _, err := e.get(ctx, e.imageKey(w.run.Undoes, w.ref), &kept); err != nil {
		return err
	}
	images, lost, err := e.images(ctx, w.run.Undoes, kept)
	if err != nil {
		return err
	}
	if err := e.loadEntries(ctx, w); err != nil {
		return err
	}
	w.before, w.takenOver = w.row.Claim, w.row.Claim != nil
	switch {
	case kept.Created && w.row.Target == "" && w.row.Claim == nil:
		w.finish(OutUnchanged, "it is not in the target")
		return nil
	case kept.Created && w.ref.Kind != desk.Ticket:
		w.out.Left = []string{"created by the run, and stays: others may point to it"}
		w.finish(OutExcluded, "people and companies that the run created stay")
		return nil
	case kept.Created:
		return e.unmake(ctx, w, images)
	}
	return e.putBack(ctx, w, images, lost)
}

// concludes says what was taken back, and what was not.
func (w *work) concludes(back, left []string) {
	w.out.Left = left
	var said []string
	if len(back) > 0 {
		did := "put back: "
		if w.run.Dry {
			did = "would be put back: "
		}
		said = append(said, did+strings.Join(back, ", "))
	}
	if len(left) > 0 {
		said = append(said, "not undone: "+strings.Join(left, "; "))
	}
	out := OutUnchanged
	switch {
	case len(left) > 0:
		out = OutHeld
	case len(back) > 0:
		out = OutUpdated
	}
	w.finish(out, cmpOr(strings.Join(said, "; "), "it is as it was before"))
	if out == OutHeld {
		w.out.Next = "look at it in the target; deltadesk explain " + w.ref.String() + " says what was written"
	}
}

// unmake removes a ticket that the run created: the operator's explicit request, and beside policy mirror the one place
// where something is deleted in the target (invariant 5). Afterwards the ledger says what it said before the ticket was moved.
func (e *Engine) unmake(ctx context.Context, w *work, images []image) error {
	stays := func(format string, args ...any) error {
		w.concludes(nil, []string{fmt.Sprintf(format, args...)})
		return nil
	}
	removing := w.before != nil && w.before.Remove // we were cut off
	for _, im := range images {
		if im.Final != "" {
			return stays("%s, which cannot be taken back, so the ticket stays", im.Final)
		}
	}
	switch {
	case w.row.Into != "":
		return stays("it was merged into %s/%s", w.ref.Kind, w.row.Into)
	case w.row.Wrote != "" && w.row.Wrote != w.run.Undoes && !removing:
		return stays("run %s wrote to it since; undo that one first", w.row.Wrote)
	case w.row.How == "decided" || w.row.How == "merged in the target":
		return stays("its ledger row leads to a record that the run did not create (%s)", w.row.How)
	}
	// The run ended without learning what came of its create.
	blind := w.row.How == "" || w.row.Unfinished
	if w.row.Target == "" {
		f, can := e.Target.(desk.Finder)
		if !can {
			return stays("it may have been created before an answer was lost, and this target cannot be searched")
		}
		ids, err := f.Find(ctx, w.ref)
		switch {
		case err != nil:
			return fmt.Errorf("look for %s in the target: %w", w.ref, err)
		case len(ids) > 1:
			return stays("%d records of the target carry its id", len(ids))
		case len(ids) == 0 && w.run.Dry:
			w.finish(OutUnchanged, "it was never created")
			return nil
		case len(ids) == 0:
			if err := e.makeDue(ctx, w.run.Scope, w.undone()); err != nil {
				return err
			}
			if err := e.claim(ctx, w, nil); err != nil {
				return err
			}
			return e.unmade(ctx, w, OutUnchanged, "it was never created")
		}
		w.row.Target, w.row.How, w.row.Unfinished = ids[0], "found", true
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	switch {
	case errors.Is(err, desk.ErrNotFound) && removing:
		return e.unmade(ctx, w, OutUpdated, "removed")
	case errors.Is(err, desk.ErrNotFound):
		w.finish(OutUnchanged, "it is no longer in the target")
		return nil
	case err != nil:
		return fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
	case now.Ref.ID != w.row.Target:
		return stays("it was merged into %s in the target", now.Ref.ID)
	}
	if what := e.worked(w, now, blind); len(what) > 0 {
		return stays("somebody has worked on it since (%s)", strings.Join(what, ", "))
	}
	d, can := e.Target.(desk.Deleter)
	switch {
	case !can:
		return stays("this desk cannot delete")
	case w.run.Dry:
		w.finish(OutUpdated, "would be removed")
		return nil
	}
	if err := e.makeDue(ctx, w.run.Scope, w.undone()); err != nil {
		return err
	}
	w.removing = true
	if err := e.claim(ctx, w, nil); err != nil {
		return err
	}
	if err := d.Delete(ctx, e.targetRef(w)); err != nil && !errors.Is(err, desk.ErrNotFound) {
		return e.unsure(ctx, w, fmt.Errorf("remove target %s of %s: %w", w.row.Target, w.ref, err), !removing)
	}
	return e.unmade(ctx, w, OutUpdated, "removed")
}

// unmade makes the ledger forget a record that is no longer there. What is kept is that others wait for it, and that whoever
// creates it again looks first.
func (e *Engine) unmade(ctx context.Context, w *work, out Outcome, reason string) error {
	if w.claimed == "" {
		w.removing = true
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
	}
	if err := e.forget(ctx, w); err != nil {
		return e.unclaim(ctx, w, err, e.Now())
	}
	v, err := e.get(ctx, e.heldKey(w.ref), &w.heldBefore)
	if err == nil {
		err = e.keepHeld(ctx, Held{Ref: w.ref}, w.heldBefore, v)
	}
	if err != nil {
		return e.unclaim(ctx, w, err, e.Now())
	}
	w.finish(out, reason)
	w.done = false
	w.row = ledgerRow{version: w.row.version, Awaited: w.row.Awaited, Joining: w.row.Joining, Trail: w.row.Trail, Look: true}
	w.wrote = []string{reason}
	return e.closeUndo(ctx, w)
}

// worked says what tells that somebody has worked on a record since we made it: entries that are not ours, and fields that
// moved. The desk's own answer is the best one; else the ledger knows how we left it. Where we never learned what we made
// (blind) and the desk does not tell, nobody can say.
func (e *Engine) worked(w *work, now desk.Record, blind bool) (what []string) {
	ours := map[string]bool{}
	for id, k := range w.known {
		ours[e.marker(id)], ours["id "+k.Target] = true, k.Target != ""
	}
	foreign := 0
	for _, en := range now.Entries {
		if !ours["id "+en.ID] && !ours[en.Marker] && (!blind || en.Marker == "") {
			foreign++
		}
	}
	if foreign > 0 {
		what = append(what, fmt.Sprintf("%d entries that the run did not write", foreign))
	}
	switch {
	case now.Touched != nil:
		for _, f := range slices.Sorted(maps.Keys(now.Touched)) {
			if now.Touched[f] {
				what = append(what, string(f))
			}
		}
	case blind:
		what = append(what, "nobody can tell: the run ended before it knew what it had made")
	default:
		for _, f := range slices.Sorted(maps.Keys(w.row.Fields)) {
			unlinked := f.Points() == desk.Ticket && len(now.Fields[f]) == 0 // its other end was removed
			if now.Fields[f].Digest() != w.row.Fields[f].tgt() && !unlinked {
				what = append(what, string(f))
			}
		}
		if restOf(now, w.row.Fields) != w.row.Rest {
			what = append(what, "fields that the run did not write")
		}
	}
	return what
}

// putBack gives a record that was there before the run the values back that the run changed.
func (e *Engine) putBack(ctx context.Context, w *work, images []image, lost int) error {
	var left []string
	if lost > 0 {
		left = append(left, fmt.Sprintf("%d of its before-images are no longer there", lost))
	}
	there := images[:0:0]
	for _, im := range images {
		if im.Final != "" {
			left = append(left, im.Final+", which cannot be taken back")
		}
		if im.Target == w.row.Target {
			there = append(there, im)
		} else {
			left = append(left, fmt.Sprintf("the run wrote to target %s, which the record no longer is", im.Target))
		}
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	switch {
	case errors.Is(err, desk.ErrNotFound) && len(left) == 0:
		w.finish(OutUnchanged, "it is no longer in the target")
		return nil
	case errors.Is(err, desk.ErrNotFound):
		w.concludes(nil, left)
		return nil
	case err != nil:
		return fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
	case now.Ref.ID != w.row.Target:
		w.concludes(nil, append(left, fmt.Sprintf("it was merged into %s in the target", now.Ref.ID)))
		return nil
	}
	if ids := addedEntries(w, there); len(ids) > 0 {
		left = append(left, fmt.Sprintf("entries that the run added stay, because no desk takes an entry back (%s)", strings.Join(ids, ", ")))
	}
	b := backing{values: desk.Fields{}, write: desk.Fields{}, was: map[desk.Field]base{}, intent: map[desk.Field]base{}}
	left = append(left, b.planFields(w, there, now)...)
	left = append(left, b.planEntries(e, w, there, now)...)
	if w.run.Dry || len(b.names) == 0 {
		w.concludes(b.names, left)
		return nil
	}
	if err := e.makeDue(ctx, w.run.Scope, w.undone()); err != nil {
		return err
	}
	if err := e.claim(ctx, w, b.intent); err != nil {
		return err
	}
	after, err := e.writeBack(ctx, w, b, now)
	if err != nil {
		return err
	}
	w.row.Fields = maps.Clone(w.row.Fields)
	if w.row.Fields == nil {
		w.row.Fields = map[desk.Field]base{}
	}
	for f, v := range b.values {
		switch was, based := b.was[f]; {
		case !based:
			delete(w.row.Fields, f)
		case was.tgt() == v.Digest(): // changed in the source only, and this is how the target writes the old value now
			w.row.Fields[f] = base{Src: was.Src, Tgt: after.Fields[f].Digest(), Kept: was.Kept}
		default: // somebody had changed it before the run did: both sides have, and it is asked again
			was.Kept = true
			w.row.Fields[f] = was
		}
	}
	for _, im := range there {
		if im.Event { // it is carried over again
			w.row.Gone, w.row.Into = im.Gone, ""
			break
		}
	}
	for id, k := range b.known {
		w.remember(id, k)
	}
	w.wrote = b.names
	w.concludes(b.names, left)
	w.done = false
	open := *w.row.Claim
	w.row.Claim, w.row.Began, w.row.Wrote, w.row.Attempts = nil, time.Time{}, w.run.ID, attempts{}
	if w.takenOver && e.TargetSide.EntryMarker == "" {
		// An earlier writer may have added entries that this target cannot show: whoever comes next still has to ask.
		open.Until, open.Intent = e.Now().UTC(), nil
		w.row.Claim = &open
	}
	return e.closeUndo(ctx, w)
}

// backing is what is put back into one record.
type backing struct {
	names  []string    // of fields and entries, for people
	values desk.Fields // as they are to be; write are those that are not yet, because an attempt of ours was cut off
	write  desk.Fields
	was    map[desk.Field]base // the ledger's bases before the run; fields that had none are left out
	intent map[desk.Field]base
	revise []desk.Entry
	known  map[string]entryRow // what the ledger knew of the entries
}

// planFields finds out which fields still say what the run wrote, and what they said before; it returns what stays.
func (b *backing) planFields(w *work, images []image, now desk.Record) (left []string) {
	all := map[desk.Field]bool{}
	for _, im := range images {
		for f := range im.Fields {
			all[f] = true
		}
	}
	for _, f := range slices.Sorted(maps.Keys(all)) {
		im, wrote := fieldBefore(images, f)
		// The ledger knows how the target writes what was meant.
		if have, ok := w.row.Fields[f]; ok && have.Src == wrote.Src {
			wrote = have
		}
		before, t := im.Fields[f].Digest(), now.Fields[f].Digest()
		half := w.before != nil && w.before.Undo == w.run.Undoes && w.before.Intent[f].tgt() == t && before == t
		switch {
		case half: // our own doing, before a cut-off
		case t == before:
			continue // never written, or set back by people: both are as they should be
		case t == wrote.tgt():
			b.write[f] = im.Fields[f]
		default:
			left = append(left, string(f)+" was changed since")
			continue
		}
		b.names = append(b.names, string(f))
		b.values[f] = im.Fields[f]
		if was, ok := im.Base[f]; ok {
			b.was[f] = was
		}
		b.intent[f] = base{Src: b.was[f].Src, Tgt: before}
	}
	return left
}

// fieldBefore returns the image that knows what a field said before the run touched it, and what the run meant it to say in
// the end. An attempt that was cut off left its own value behind; the image of the next one says so.
func fieldBefore(images []image, f desk.Field) (im image, wrote base) {
	for i, x := range slices.Backward(images) {
		if _, ok := x.Fields[f]; !ok {
			continue
		}
		if im.Fields == nil {
			wrote = x.Intent[f]
		}
		im = x
		older := slices.ContainsFunc(images[:i], func(y image) bool { _, ok := y.Fields[f]; return ok })
		if !slices.Contains(x.Ours, f) || !older {
			break
		}
	}
	return im, wrote
}

// planEntries does for revised entries what planFields does for fields.
func (b *backing) planEntries(e *Engine, w *work, images []image, now desk.Record) (left []string) {
	b.known = map[string]entryRow{}
	done := map[string]bool{}
	for i, im := range slices.Backward(images) {
		for _, r := range im.Revised {
			if done[r.ID] {
				continue
			}
			done[r.ID] = true
			intent := r.Intent
			for _, older := range slices.Backward(images[:i]) {
				if j := slices.IndexFunc(older.Revised, func(o revised) bool { return o.ID == r.ID && o.Intent == shownDigest(r.Before) }); j >= 0 {
					r = older.Revised[j]
				}
			}
			at := slices.IndexFunc(now.Entries, func(en desk.Entry) bool { return en.ID == r.Before.ID })
			if at < 0 {
				left = append(left, "entry "+r.ID+" is no longer in the target")
				continue
			}
			is := now.Entries[at]
			_, can := e.Target.(desk.Reviser)
			switch shown := shownDigest(is); {
			case shown == shownDigest(r.Before) && w.known[r.ID] == r.Known:
				continue // never written
			case shown == shownDigest(r.Before): // our own doing, before a cut-off, or that of people
			case shown != intent:
				left = append(left, "entry "+r.ID+" was changed since")
				continue
			case !can || !slices.Equal(fileNames(is), fileNames(r.Before)):
				left = append(left, "entry "+r.ID+" stays: its files changed with it, and the old ones are gone")
				continue
			default:
				old := r.Before
				old.Files = is.Files
				b.revise = append(b.revise, old)
			}
			b.names = append(b.names, "entry "+r.ID)
			b.known[r.ID] = r.Known
		}
	}
	return left
}

// writeBack writes what is to be put back, and returns what the record looks like afterwards. Once something has been
// written the claim stays until the ledger says so, also after an error: it tells our half-done work from that of people.
func (e *Engine) writeBack(ctx context.Context, w *work, b backing, now desk.Record) (desk.Record, error) {
	after := now
	if len(b.write) > 0 {
		written, err := e.Target.Apply(ctx, e.targetRef(w), desk.Change{Fields: b.write, Lock: now.Lock})
		w.losses = append(w.losses, written.Losses...)
		if err != nil {
			return after, e.unsure(ctx, w, fmt.Errorf("put back target %s of %s: %w", w.row.Target, w.ref, err), len(b.write) == len(b.values))
		}
		if after = (desk.Record{}); written.Now != nil {
			after = *written.Now
		}
	}
	for _, en := range b.revise {
		if err := e.Target.(desk.Reviser).Revise(ctx, e.targetRef(w), en); err != nil {
			return after, e.unsure(ctx, w, fmt.Errorf("put back entry %s of target %s: %w", en.ID, w.row.Target, err), false)
		}
	}
	if after.Ref.ID != "" {
		return after, nil
	}
	after, err := e.Target.Read(ctx, e.targetRef(w))
	if err != nil {
		return after, e.unclaim(ctx, w, fmt.Errorf("read back target %s of %s: %w", w.row.Target, w.ref, err), e.Now())
	}
	return after, nil
}

// unsure gives the claim back after an error of a write: wholly where the desk says that nothing was done and nothing was
// done before (first), else so that the next one looks.
func (e *Engine) unsure(ctx context.Context, w *work, err error, first bool) error {
	switch desk.Class(err) {
	case desk.ErrConflict, desk.ErrRejected, desk.ErrUnauthorized, desk.ErrThrottled:
		if first {
			return e.release(ctx, w, err)
		}
		return e.unclaim(ctx, w, err, e.Now())
	}
	return e.doubt(ctx, w, err)
}

// closeUndo writes the ledger row of a record that was undone.
func (e *Engine) closeUndo(ctx context.Context, w *work) error {
	w.row.Last = &last{Run: w.m.Run, Pos: w.pos(), Out: w.out}
	w.row.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Outcome: w.out.Outcome, Why: w.it.Due, Wrote: w.wrote, Check: "as before run " + w.run.Undoes})
	if err := e.saveRow(ctx, w); err != nil {
		return err
	}
	w.done = true
	return nil
}

// undone is the due row by which the next delta brings again what is taken back now.
func (w *work) undone() dueRow {
	return dueRow{Listed: w.it.Listed, Why: "undone", Run: w.run.ID}
}

// addedEntries returns the source's ids of entries that the run added and that are there.
func addedEntries(w *work, images []image) []string {
	var ids []string
	for _, im := range images {
		for _, id := range im.Added {
			if _, there := w.known[id]; there && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	if n := len(ids); n > 10 {
		ids = append(ids[:10], fmt.Sprintf("and %d more", n-10))
	}
	return ids
}

// markUndone notes in the undone run's row that it is undone, before the undo's lane is free. An undo in which something
// failed may be started again.
func (e *Engine) markUndone(ctx context.Context, run Run, failed int) error {
	if run.Kind != Undo || run.Dry || failed > 0 || run.Status != Verified && run.Status != Exceptions {
		return nil
	}
	_, err := update(ctx, e, e.runKey(run.Undoes), func(r *Run) error {
		if r.UndoneBy == run.ID {
			return errKeep
		}
		r.UndoneBy = run.ID
		return nil
	})
	return err
}

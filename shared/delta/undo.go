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
//	an entry that was revised   stays: the source may have redacted or hidden it, and no undo makes that readable again
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
	late := old.Ended.Add(e.Timeout + e.TargetSide.Settle + e.Skew)
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
	if w.concluded() {
		return nil
	}
	if err := errors.Join(e.free(w.row), e.settled(w.row)); err != nil { // what a desk does not show yet is neither gone nor set back
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
	w.takeOver()
	switch {
	case kept.Created && w.row.Target == "" && w.row.Claim == nil && w.row.Into == "":
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
	removing := w.before != nil && w.before.Undo == w.run.Undoes && w.before.Delete // we were cut off
	for _, im := range images {
		if im.Final != "" {
			return stays("%s, which cannot be taken back, so the ticket stays", im.Final)
		}
	}
	later := false
	if w.row.Wrote != "" && w.row.Wrote != w.run.Undoes && !removing {
		r, err := e.run(ctx, w.row.Wrote)
		if err != nil {
			return err
		}
		later = r.UndoneBy == ""
	}
	switch {
	case w.row.Into != "":
		return stays("it was merged into %s/%s", w.ref.Kind, w.row.Into)
	case later:
		return stays("run %s wrote to it since; undo that one first", w.row.Wrote)
	case w.row.How == "decided" || w.row.How == mergedThere:
		return stays("its ledger row leads to a record that the run did not create (%s)", w.row.How)
	}
	// The run ended without learning what came of its create.
	blind := w.row.How == "" || w.row.Unfinished
	if w.row.Target == "" {
		f, can := e.Target.(desk.Finder)
		if !can {
			return stays("it may have been created before an answer was lost, and this target cannot be searched")
		}
		ids, err := e.search(ctx, f, w.ref, w.row.Was)
		switch {
		case err != nil:
			return err
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
	w.deleting = true
	if err := e.claim(ctx, w, nil); err != nil {
		return err
	}
	if err := e.delete(ctx, w, d, now.Lock); err != nil {
		return e.partly(ctx, w, fmt.Errorf("remove target %s of %s: %w", w.row.Target, w.ref, err), !removing)
	}
	return e.unmade(ctx, w, OutUpdated, "removed")
}

// unmade makes the ledger forget a record that is no longer there. What is kept is that others wait for it, and that whoever
// creates it again looks first.
func (e *Engine) unmade(ctx context.Context, w *work, out Outcome, reason string) error {
	if w.claimed == "" {
		w.deleting = true
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
	w.row = ledgerRow{followed: followed{Stamp: w.row.Stamp, Awaited: w.row.Awaited}, version: w.row.version, Joining: w.row.Joining, Was: w.row.Was, Trail: w.row.Trail, Look: true}
	w.wrote = []string{reason}
	return e.closeUndo(ctx, w)
}

// worked says what tells that somebody has worked on a record since we made it: tickets that were merged into it, entries that
// are not ours or no longer as we left them, and fields that moved. The desk's own answer is the best one; else the ledger
// knows how we left it. Where we never learned what we made (blind) and the desk does not tell, nobody can say.
func (e *Engine) worked(w *work, now desk.Record, blind bool) (what []string) {
	ids, markers := map[string]string{}, map[string]string{}
	for id, k := range w.known {
		ids[k.Target], markers[e.marker(id)] = id, id
	}
	delete(ids, "")
	foreign, changed, hidden, shown := 0, 0, 0, map[string]bool{}
	for _, en := range now.Entries {
		id, ours := markers[en.Marker]
		if !ours {
			id, ours = ids[en.ID]
		}
		switch k := w.known[id]; {
		case ours && !k.leaves(en):
			changed++
		case ours && k.Own:
			hidden++
		case !ours && (!blind || en.Marker == ""):
			foreign++
		}
		shown[id] = true
	}
	for id := range w.known {
		if !shown[id] && e.TargetSide.EntryMarker != "" {
			changed++
		}
	}
	if n := len(now.Aliases); n > 0 {
		what = append(what, fmt.Sprintf("%d tickets that were merged into it", n))
	}
	if foreign > 0 {
		what = append(what, fmt.Sprintf("%d entries that the run is not known to have written", foreign))
	}
	if changed > 0 {
		what = append(what, fmt.Sprintf("%d entries that were changed or taken out", changed))
	}
	if hidden > 0 {
		what = append(what, fmt.Sprintf("%d entries that customers see in the source and not in the target, and it is open who hid them", hidden))
	}
	for _, f := range slices.Sorted(maps.Keys(w.row.Fields)) { // the desk names us as the one who wrote it last, and it is theirs
		b := w.row.Fields[f]
		if t := now.Fields[f].Digest(); t != "" && (t == b.Left || w.before != nil && t == w.before.Puts[f] && t != b.tgt()) {
			what = append(what, string(f))
		}
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
		now = e.untagged(w, now)
		for _, f := range slices.Sorted(maps.Keys(w.row.Fields)) {
			unlinked := f.Points() == desk.Ticket && len(now.Fields[f]) == 0 // its other end was removed
			if b := w.row.Fields[f]; b.Kept || b.Moved || now.Fields[f].Digest() != b.tgt() && !unlinked {
				what = append(what, string(f))
			}
		}
		if restOf(now, w.row.Fields) != w.row.Rest {
			what = append(what, "fields that the run did not write")
		}
	}
	return what
}

// leaves tells whether the target shows an entry just as our last write left it.
func (k entryRow) leaves(en desk.Entry) bool {
	return !k.Left && !k.Turned && wordsDigest(en) == cmpOr(k.Shown, k.Digest) && en.Public != k.Private
}

// partly gives the claim back after an error of a write: as after any other write where nothing was written before it
// (first), else so that the next one looks, whatever the desk says.
func (e *Engine) partly(ctx context.Context, w *work, err error, first bool) error {
	if refused(err) && !first {
		return e.unclaim(ctx, w, err, e.Now())
	}
	return e.unanswered(ctx, w, err)
}

// closeUndo writes the ledger row of a record that was undone.
func (e *Engine) closeUndo(ctx context.Context, w *work) error {
	w.row.Last = &last{Run: w.m.Run, Pos: w.pos(), Out: w.out}
	w.row.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Outcome: w.out.Outcome, Why: w.it.Due, Wrote: w.wrote, Check: "as before run " + w.run.Undoes, Blind: true})
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

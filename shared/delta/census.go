package delta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// A census is the second, independent detector of invariant 1: it does not believe the source's feed of changes, and holds
// everything that the source shows now against the ledger, in both directions. What it finds was missed: it is an alarm in
// the report, and becomes due, so that the next delta mends it. A census moves no cutoff.

// Where a missed update shows in a report: its reason begins so.
const missedUpdate = "missed update: "

// agreed tells whether a census need not look at a listed record, because the ledger's last reading certainly saw it like
// that. It is not known's question: which mapping the record went through makes no difference here.
func (e *Engine) agreed(run *Run, l followed, it desk.Listed) bool {
	sure := it.Stamp.At.Add(e.SourceSide.StampResolution + e.SourceSide.ListLag)
	switch it.Event {
	case desk.Merged: // people and companies that were merged keep the records they have
		return l.Into != "" || it.Ref.Kind != desk.Ticket
	case desk.Deleted, desk.Spam:
		return l.Gone == it.Event || l.Target == "" && l.Claim == nil || it.Ref.Kind != desk.Ticket
	}
	return l.Held || l.Outside[scopeDigest(run.Filter)].After(sure) ||
		l.Target != "" && l.Claim == nil && l.Gone == "" && l.Began.After(sure)
}

// missable tells whether a record of the ledger must be in the source's listing: it was carried over and is followed, or a write
// is open, and the source has had time to show it since it was last carried out, wherever it was read then. Spam that the
// policies leave alone may still be deleted; other spam was seen to, and a source empties that folder all the time.
func (e *Engine) missable(run *Run, l ledgerRow) bool {
	if c := l.Claim; c != nil && l.Into == "" {
		return !c.At.Add(e.SourceSide.ListLag).After(run.Started)
	}
	out := l.Outside[scopeDigest(run.Filter)]
	return l.Target != "" && (l.Gone == "" || l.Gone == desk.Spam && e.mig.OnSpam == Ignore) && l.Into == "" && (out.IsZero() || l.Began.After(out)) &&
		len(l.Trail) > 0 && !l.Trail[len(l.Trail)-1].At.Add(e.SourceSide.ListLag).After(run.Started)
}

// censusOne looks at one record that the listing and the ledger disagree about, and says what was missed.
func (e *Engine) censusOne(ctx context.Context, w *work) error {
	if err := e.loadRow(ctx, w); err != nil {
		return err
	}
	if w.it.Unlisted && !e.missable(w.run, w.row) || !w.it.Unlisted && e.agreed(w.run, w.row.followed, w.it.Listed) {
		w.finish(OutUnchanged, "") // carried out since
		return nil
	}
	if comes, err := e.comes(ctx, w); err != nil || comes {
		return err
	}
	if err := e.free(w.row); err != nil {
		return err
	}
	if w.row.Target != "" && w.row.Began.IsZero() && w.row.Claim == nil {
		w.makesDue("missed", "", "") // it is due already, perhaps in another scope
		w.finish(OutExcluded, "an undo put it back; the next delta brings it over")
		return nil
	}
	rec, err := e.Source.Read(ctx, w.ref)
	switch {
	case errors.Is(err, desk.ErrNotFound) && w.it.Unlisted:
		// Here, and nowhere else, that is a deletion: two witnesses say that there is no such record, and the ledger that
		// there was one. It becomes due when the whole census is in, see absent.
		w.finish(OutFailed, missedUpdate+"neither the source's listing nor a reading shows it any more")
		w.out.Absent, w.out.Next = true, "when the census has ended it is due, as deleted: the next delta does what policies.deleted says"
		return nil
	case errors.Is(err, desk.ErrNotFound):
		// The listing is older than the source's lag by now.
		w.finish(OutExcluded, "no longer in the source: it went while the census was on")
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", w.ref, err)
	case w.older(rec):
		return fmt.Errorf("read %s: %w", w.ref, errNotYet)
	}
	w.rec = rec
	if w.it.Unlisted { // it is there: whatever makes it due brings it over
		if comes, err := e.comes(ctx, w); err != nil || comes {
			return err
		}
	}
	if rec.Ref != w.ref {
		return e.censusMerged(ctx, w)
	}
	if rec.Event == desk.Deleted || rec.Event == desk.Spam {
		if w.row.Target == "" && w.row.Claim == nil || w.row.Gone == rec.Event || w.ref.Kind != desk.Ticket {
			w.finish(OutExcluded, string(rec.Event)+" in the source")
			return nil
		}
		w.missed(rec.Event, "", rec.Event != w.it.Event, "the source has it as "+string(rec.Event)+", and its feed did not say so")
		return nil
	}
	if ok, why := w.run.Filter.Holds(rec); !ok {
		w.finish(OutExcluded, why)
		return e.noteOutside(ctx, w)
	}
	switch {
	case w.row.Claim != nil:
		w.makesDue("missed", "", "")
		w.finish(OutExcluded, "an earlier write of it is open; the next delta looks what came of it")
		return nil
	case w.row.Target == "" && w.row.Look:
		w.makesDue("missed", "", "") // it is due already, perhaps in another scope
		w.finish(OutExcluded, "an undo removed it; the next delta brings it over")
		return nil
	case w.row.Target == "":
		w.missed("", "", e.unlisted(w), "it is in the source, and no run has brought it over") // perhaps it was in another scope until now
		return nil
	case w.row.How == "fallback":
		w.finish(OutUnchanged, "a fallback person stands in")
		return nil
	}
	same, why, err := e.comesTo(ctx, w)
	switch {
	case err != nil:
		return err
	case same:
		w.finish(OutUnchanged, "")
		return e.confirm(ctx, w)
	case why != "":
		w.makesDue("missed", "", "")
		w.finish(OutExcluded, why)
		return nil
	}
	w.missed("", "", w.it.Stamp.Before(rec.Stamp), "it has changed in the source, and the feed did not say so")
	return nil
}

// censusMerged is censusOne for a record that was merged into another one.
func (e *Engine) censusMerged(ctx context.Context, w *work) error {
	in, why := w.run.Filter.Holds(w.rec)
	switch {
	case w.ref.Kind != desk.Ticket:
		w.finish(OutUnchanged, "merged in the source; it keeps the record it has")
	case w.row.Into != "":
		w.finish(OutUnchanged, "")
	case w.row.Target == "" && w.row.Claim == nil:
		w.finish(OutExcluded, "merged in the source; looked at with the record that lives on")
	case !in && e.mig.OnMerged == Ignore:
		w.finish(OutExcluded, "merged in the source into a record that does not move: "+why)
	default:
		// What was carried out of the record that lives on names the ones that were merged into it. So if it is as it was, the
		// merge was seen, whatever came of it.
		s := &work{m: w.m, run: w.run, it: planEntry{Listed: desk.Listed{Ref: w.rec.Ref}}, ref: w.rec.Ref, rec: w.rec}
		if err := e.loadRow(ctx, s); err != nil {
			return err
		}
		if comes, err := e.comes(ctx, s); err != nil || comes {
			if comes {
				w.finish(OutExcluded, s.out.Reason)
			}
			return err
		}
		seen := false
		switch {
		case !in && (s.row.Target != "" || s.row.Claim != nil):
			w.finish(OutExcluded, "merged in the source into a record of another scope: "+why)
			return nil
		case s.row.Claim != nil:
		case s.row.Target == "" && s.row.Look:
			w.makesDue("missed", desk.Merged, w.rec.Ref.ID)
			w.finish(OutExcluded, "merged in the source into "+w.rec.Ref.String()+", which an undo removed; the next delta brings it over")
			return nil
		case w.rec.Event == desk.Deleted || w.rec.Event == desk.Spam: // it has left after the merge
			seen = s.row.Gone == w.rec.Event || s.row.Target == ""
		case s.row.Target != "":
			var err error
			var why string
			if seen, why, err = e.comesTo(ctx, s); err != nil {
				return err
			}
			if why != "" {
				w.makesDue("missed", desk.Merged, w.rec.Ref.ID)
				w.finish(OutExcluded, "merged in the source into "+w.rec.Ref.String()+"; "+why)
				return nil
			}
		}
		if seen {
			w.finish(OutUnchanged, "")
			return nil
		}
		told, err := e.told(ctx, w.run, w.rec)
		if err != nil {
			return err
		}
		w.missed(desk.Merged, w.rec.Ref.ID, told || w.it.Event != desk.Merged, "it was merged into "+w.rec.Ref.String()+" in the source, and the feed did not say so")
	}
	return nil
}

// unlisted tells whether the listing may have shown another version of a record than was read: what the feed says of the change
// that lies between came too late for the census.
func (e *Engine) unlisted(w *work) bool {
	return w.it.Stamp.Before(w.rec.Stamp) || e.changedAmid(w.run, w.rec)
}

// changedAmid tells whether a record may have changed since the census began, by the source's own clock.
func (e *Engine) changedAmid(run *Run, rec desk.Record) bool {
	began := rec.Began.Add(-e.Now().Sub(run.Started))
	if e.Session == "" { // the run may have been started by another clock
		began = began.Add(-e.Skew)
	}
	return rec.Stamp.At.Add(e.SourceSide.StampResolution).After(began)
}

// told tells whether a record may look different from what was carried out because of a change that a delta is about to list: the
// feed has it, or it came since the census began.
func (e *Engine) told(ctx context.Context, run *Run, rec desk.Record) (bool, error) {
	if e.changedAmid(run, rec) {
		return true, nil
	}
	feed, err := e.surveyed(ctx, run, nil, stageFeed, rec.Ref.Kind)
	_, told := slices.BinarySearch(feed, rec.Ref.ID)
	return told, err
}

// missed makes a record due, as an alarm. What the listing did not show yet, or a delta is about to list (late), is no
// alarm: the feed may still say so. It is made due all the same.
func (w *work) missed(ev desk.Event, into string, late bool, why string) {
	w.makesDue("missed", ev, into)
	if late && !w.it.Unlisted {
		w.finish(OutExcluded, "it has changed again since the last delta; the next one brings it over")
		return
	}
	w.finish(OutFailed, missedUpdate+why)
	w.out.Next = "it is due: the next delta brings it over"
	if w.run.Dry {
		w.out.Next = "a census that is no rehearsal makes it due"
	}
}

// comesTo maps a record that was read, and tells whether that comes to what was carried out last; or why it cannot be told, though
// nothing need have changed in the source.
func (e *Engine) comesTo(ctx context.Context, w *work) (same bool, why string, err error) {
	res, err := e.mapped(ctx, w.rec)
	if err == nil && len(res.Problems) == 0 {
		if err = e.build(ctx, w, res); err == nil {
			same = w.asCarriedOut()
		}
	}
	switch {
	case err != nil || same:
	case w.row.Gone == "" && w.row.Into == "" && (w.row.Rules != e.rules || w.row.Digest == ""):
		why = "what was carried out last cannot be compared (another mapping, or it was deleted in the target); the next delta looks at it"
	case w.linksMoved():
		why = "what it links to has another place in the target now; the next delta draws the links anew"
	}
	return same, why, err
}

// asCarriedOut tells whether what was read and mapped is what was carried out last.
func (w *work) asCarriedOut() bool {
	return w.digest == w.row.Digest && w.row.Gone == "" && w.row.Into == "" && !w.row.Unfinished
}

// linksMoved tells whether links lead to other tickets of the target than when they were carried out. That is mostly the doing of
// the other ends (made again, merged), of which no feed tells here. Of a ticket that the target's people merged or deleted no links are
// kept in mind: they may always have moved.
func (w *work) linksMoved() bool {
	theirs := w.row.How == mergedThere || w.row.Last != nil && w.row.Last.Out.Reason == deletedThere
	for f, v := range w.rec.Fields {
		if b, ok := w.row.Fields[f]; f.Points() == desk.Ticket && len(v) > 0 && (theirs || ok && b.Src != w.want.Fields[f].Digest()) {
			return true
		}
	}
	return false
}

// noteOutside remembers that a record is outside the run's scope, so that the next census need not read it again.
func (e *Engine) noteOutside(ctx context.Context, w *work) error {
	if w.run.Dry {
		return nil
	}
	_, err := update(ctx, e, e.ledgerKey(w.ref), func(r *ledgerRow) error {
		if r.Claim != nil {
			return errKeep // it is being carried out in another scope, and its row is another one's
		}
		if r.Outside == nil {
			r.Outside = map[string]time.Time{}
		}
		r.Outside[scopeDigest(w.run.Filter)] = w.rec.Began.UTC()
		return nil
	})
	return err
}

// absent makes due, as deleted, what a census found neither listed nor readable: only now that all of it is in, because a
// source account that has lost a right makes the same picture, and a policy may delete in the target. So the source must
// answer, must have listed something, and no more may be missing than the threshold allows; else stop says why the run ends
// without having made any of them due. Cut off in between, it begins again; what is due already stays as it is.
func (e *Engine) absent(ctx context.Context, run Run, pages []pageRow) (stop string, err error) {
	if run.Kind != Census {
		return "", nil
	}
	listed := 0
	var gone []desk.Ref
	for _, p := range pages {
		switch {
		case p.Survey.Stage == stageList && p.Kind == desk.Ticket:
			listed += p.Listed + p.Survey.Left
		case p.Survey.Stage == stageLedger && p.Planned > 0:
			outs, err := finished[outcomeRow](ctx, e, run.ID, p.No)
			if err != nil {
				return "", err
			}
			for _, o := range outs {
				if o.Absent {
					gone = append(gone, o.Ref)
				}
			}
		}
	}
	if len(gone) == 0 {
		return "", nil
	}
	if listed == 0 || len(gone) >= max(e.mig.ThresholdCount, 1) && float64(len(gone)) > e.mig.ThresholdShare*float64(listed+len(gone)) {
		return fmt.Sprintf("%d migrated tickets are neither listed nor readable any more, and %d are listed. That is more than the threshold of %.2g %% and %d, or everything, "+
			"so none of them was taken for deleted. Does the source's account still see all it saw? If they were deleted indeed, raise policies.threshold and run the census again",
			len(gone), listed, 100*e.mig.ThresholdShare, e.mig.ThresholdCount), nil
	}
	if c, ok := e.Source.(desk.Checker); ok {
		if err := c.Check(ctx); err != nil {
			return "", fmt.Errorf("source: %w", err)
		}
	}
	if run.Dry {
		return "", nil
	}
	due, err := getMany[dueRow](ctx, e, gone, func(r desk.Ref) Key { return e.dueKey(run.Scope, r) })
	if err != nil {
		return "", fmt.Errorf("read what is due of %d records: %w", len(gone), err)
	}
	gone = slices.DeleteFunc(gone, func(r desk.Ref) bool { d, ok := due[e.dueKey(run.Scope, r)]; return ok && !d.fails() })
	for _, ref := range gone {
		if err := e.makeDue(ctx, run.Scope, dueRow{Listed: desk.Listed{Ref: ref, Event: desk.Deleted}, Why: "missed", Run: run.ID}); err != nil {
			return "", err
		}
	}
	return "", nil
}

package delta

import (
	"context"
	"fmt"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// What a source shows that answers from replicas: invariant 1. An older reading is "not yet", never "unchanged".

// older tells whether a reading is older than what was listed. One that answers with another record has seen the merge for which
// this one was listed, and their stamps say nothing of each other: desks may write the one that lives on first, and numbers need
// not go on from one record to another. Listed for anything else (it was taken out again, perhaps), such an answer may be older.
func (w *work) older(rec desk.Record) bool {
	if rec.Ref != w.it.Ref && w.it.Event == desk.Merged {
		return false
	}
	return rec.Stamp.Before(w.it.Stamp)
}

// behind tells whether the reading may be older than one that has been carried out, or than what was listed: a source with a lag may
// answer from a replica that is behind the one it answered from before. Versions that the source's stamps do not tell apart are taken
// only when no replica can be behind any more.
func (e *Engine) behind(w *work) bool {
	got := w.rec.Stamp
	same := func(s desk.Stamp) bool { return (got.Seq == 0 || s.Seq == 0) && got.At.Equal(s.At) }
	switch lag := e.SourceSide.ListLag; {
	case lag == 0 || w.rec.Ref != w.ref:
		return false
	case got.Before(w.row.Stamp):
		return true
	case same(w.row.Stamp), same(w.it.Stamp):
		return !w.rec.Began.After(got.At.Add(e.SourceSide.StampResolution + lag))
	}
	return false
}

// notShown is what is known of a listed record that the source does not show. It may just not be visible yet, and is never taken for an
// empty ticket; for a deleted one only where the source has said so, of this record or of the one into which it was merged, and where
// nothing newer was carried out. A deletion that was carried out already explains whatever was listed before it.
func (e *Engine) notShown(ctx context.Context, w *work, cause error) (rec desk.Record, err error) {
	rec = desk.Record{Ref: w.ref, Event: desk.Deleted, Stamp: w.it.Stamp, Began: w.it.Stamp.At}
	settled, dated := w.row.Claim == nil, !w.it.Stamp.At.IsZero()
	var into ledgerRow
	if w.it.Event == desk.Merged && w.it.Into != "" {
		if _, err := e.get(ctx, e.ledgerKey(desk.Ref{Kind: w.ref.Kind, ID: w.it.Into}), &into); err != nil {
			return rec, err
		}
	}
	switch {
	case settled && w.row.Gone == desk.Deleted && !w.row.Stamp.Before(w.it.Stamp):
		w.finish(OutExcluded, string(desk.Deleted)+" in the source")
		return rec, nil
	case settled && dated && w.it.Event == desk.Deleted && w.row.Gone == "" && w.it.Stamp.Before(w.row.Stamp):
		w.finish(OutUnchanged, "") // it has come back since
		return rec, nil
	case w.it.Event == desk.Deleted, into.Gone == desk.Deleted:
		return rec, nil
	case e.silent(w) && e.waitedOut(w): // no replica can be behind any more: it was deleted after it was listed
		rec.Began = w.row.Attempts[w.run.ID].Since
		return rec, nil
	}
	return rec, fmt.Errorf("%w: %w", errNotYet, cause)
}

// silent tells whether a source that does not show a record may never say more of it: such a desk says nothing of deletions, or
// nobody has brought it over, so that the deletion has left no trace, or it has been carried out.
func (e *Engine) silent(w *work) bool {
	return !e.SourceSide.SeesDeletes || (w.row.Target == "" || w.row.Gone == desk.Deleted) && w.row.Claim == nil
}

// everywhere tells whether what was listed can be read by now, whichever replica answers.
func (e *Engine) everywhere(w *work) error {
	lag := e.SourceSide.ListLag
	if lag == 0 {
		return nil
	}
	if until := w.listed.Add(lag + e.Skew); e.Now().Before(until) {
		return busyError{since: w.listed, until: until}
	}
	return nil
}

// saw keeps the stamp of the reading that is carried out.
func (r *ledgerRow) saw(w *work) {
	if w.rec.Ref == w.ref && r.Stamp.Before(w.rec.Stamp) {
		r.Stamp = w.rec.Stamp
	}
}

// noteSeen keeps what a reading showed that leads to no write, where replicas lag: a later one that shows less is behind. What is
// outside of the scope leaves no trace: most of a source may be.
func (e *Engine) noteSeen(ctx context.Context, w *work) error {
	if e.SourceSide.ListLag == 0 || w.run.Dry || w.rec.Ref != w.ref || !w.row.Stamp.Before(w.rec.Stamp) {
		return nil
	}
	w.row.saw(w)
	return e.saveRow(ctx, w)
}

// noteDeleted keeps that the source has said that a ticket is deleted which it does not show any more, also of one that nobody has
// brought over: one that was merged into it before is not shown either, and nothing else tells what became of that.
func (e *Engine) noteDeleted(ctx context.Context, w *work) error {
	if w.run.Dry || w.ref.Kind != desk.Ticket || w.row.Gone == desk.Deleted {
		return e.noteSeen(ctx, w)
	}
	w.row.Gone = desk.Deleted
	w.row.saw(w)
	return e.saveRow(ctx, w)
}

// sawMerged keeps that ref was seen as part of w's record: a reading that is older and shows it on its own is behind.
func (r *ledgerRow) sawMerged(w *work, ref desk.Ref) {
	seen := desk.Stamp{At: w.rec.Stamp.At} // numbers need not go on from one record to another
	if w.it.Ref == ref && seen.Before(w.it.Stamp) {
		seen = w.it.Stamp
	}
	if r.Stamp.Before(seen) {
		r.Stamp = seen
	}
}

// waitedOut tells whether this run has looked for a record as often as it looks for any, for longer than the source may be
// behind what it lists.
func (e *Engine) waitedOut(w *work) bool {
	a := w.row.Attempts[w.run.ID]
	return a.N >= maxAttempts-1 && e.Now().Sub(a.Since) > e.SourceSide.ListLag+e.Skew
}

package delta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// How a record is claimed before the first write and what came of it is written down after the last one: invariant 2.

// claim takes the ledger row on the condition that nobody has touched it since it was read: so a reading that is older than
// somebody's commit never writes. It says what is intended: to create, or which fields will say what, so that whoever finds
// the claim later can tell our half-done write from the work of the target's people (model: Claim, TakeOver). Where the row
// moved, the record is read and decided again (model: ClaimRefused).
func (e *Engine) claim(ctx context.Context, w *work, intent map[desk.Field]base) error {
	row := w.row
	row.Digest = "" // from here on the target may be something else
	if w.rec.Event != desk.Deleted && w.rec.Event != desk.Spam {
		row.Gone = "" // and what a policy did about it may be taken back
	}
	row.saw(w)
	now := e.Now().UTC()
	row.Claim = &claim{
		By: e.NewID(), Session: e.Session, At: now, Create: row.Target == "", Intent: intent, Adds: w.doubtful(), Puts: w.puts, Answered: w.answered(),
		Revised: w.revising, Words: w.words, Turns: w.turns, Delete: w.deleting, Undo: w.run.Undoes, Brings: w.brings, Lock: w.lock,
		Until: now.Add(e.Timeout + e.TargetSide.Settle + e.shows() + e.Skew),
	}
	if err := e.keepEntries(ctx, w, &row); err != nil { // what was told of the claim that this one takes the place of
		return err
	}
	version, err := e.put(ctx, e.ledgerKey(w.ref), w.row.version, row)
	if err != nil {
		return err
	}
	w.row, w.claimed, w.fresh = row, row.Claim.By, nil
	w.row.version = version
	return nil
}

// takeOver goes on where the holder of w's claim was cut off: what he was about to do is open until it was looked at.
func (w *work) takeOver() {
	w.open = w.row.Open
	if w.before = w.row.Claim; w.before != nil {
		w.takenOver, w.open, w.puts, w.brings = true, append(slices.Clip(w.open), w.before.Adds...), w.before.Puts, w.before.Brings
	}
}

// maxBrings is how many entries a claim names: it is one row of a store that has a limit for them.
const maxBrings = 200

// bringing notes which entries are about to be added, where the target shows it afterwards, unless they are more than
// maxBrings: then they count as those of another ticket should the source hide this one, and it stays as it is.
func (e *Engine) bringing(w *work, es []desk.Entry) {
	if e.TargetSide.EntryMarker == "" || len(w.brings)+len(es) > maxBrings {
		return
	}
	w.brings = slices.Clone(w.brings)
	for _, en := range es {
		if !slices.Contains(w.brings, en.ID) {
			w.brings = append(w.brings, en.ID)
		}
	}
}

// adding notes which entries are about to be added, where the target cannot show it afterwards.
func (e *Engine) adding(w *work, es []desk.Entry) {
	w.adds = nil
	if e.TargetSide.EntryMarker == "" {
		for _, en := range es {
			w.adds = append(w.adds, en.ID)
		}
	}
}

// doubtful are the entries that whoever finds the claim must not simply add.
func (w *work) doubtful() []string {
	out := slices.Clone(w.open)
	for _, id := range w.adds {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// doubtful are the entries of which it is open whether they are in the record's target.
func (r *ledgerRow) doubtful() []string {
	out := slices.Clone(r.Open)
	if r.Claim != nil {
		out = append(out, r.Claim.Adds...)
	}
	return out
}

// answered is when a person decided that the record is to be created.
func (w *work) answered() time.Time {
	if a := w.heldBefore.Answer; a != nil && a.Choice == ChooseCreate {
		return a.At
	}
	return time.Time{}
}

// unspent tells whether an answer to create is still good: nobody has begun to carry one out since the question was put. One
// that is given again after that knows nothing of what became of the first.
func (w *work) unspent() bool { return w.before == nil || w.before.Answered.IsZero() }

// ensure makes sure that there is a claim with this intent before something is written.
func (e *Engine) ensure(ctx context.Context, w *work, intent map[desk.Field]base) error {
	if w.claimed == "" {
		return e.claim(ctx, w, intent)
	}
	c := *w.row.Claim
	c.Create, c.Intent, c.Adds, c.Puts, c.Answered, c.Revised = w.row.Target == "", intent, w.doubtful(), w.puts, w.answered(), w.revising
	c.Words, c.Turns, c.Brings, c.Lock = w.words, w.turns, w.brings, w.lock
	w.row.Claim = &c
	return e.saveRow(ctx, w)
}

// release gives the claim back after an error that came before any effect, or after effects that are all known, and returns
// the error. If it was taken over, what its first holder did is still open: then it stays, free for the next one (model:
// Release).
func (e *Engine) release(ctx context.Context, w *work, cause error) error {
	if w.claimed == "" {
		return cause // nothing is ours yet
	}
	if w.adds = nil; !w.takenOver && len(w.open) == 0 {
		w.row.Claim = nil
		return errors.Join(cause, e.saveRow(ctx, w))
	}
	c := *w.row.Claim
	if c.Answered, c.Delete = (time.Time{}), false; w.before != nil { // nothing was done: the answer is as good as it was, and who deletes it now are people
		c.Answered, c.Delete = w.before.Answered, w.before.Delete
	}
	w.row.Claim = &c
	return e.unclaim(ctx, w, cause, e.Now())
}

// doubt leaves the claim standing after an error that leaves open whether a write took effect (model: AnswerLost). It is all
// that tells the next one to look first.
func (e *Engine) doubt(ctx context.Context, w *work, cause error) error {
	return e.unclaim(ctx, w, cause, e.Now().Add(e.TargetSide.Settle+e.shows()+e.Skew))
}

// shows is how long what a write did may stay invisible to whoever looks for it in the target.
func (e *Engine) shows() time.Duration { return max(e.TargetSide.FindLag, e.TargetSide.ListLag) }

// unseen leaves the claim standing, free for the next one, where a write succeeded and could not be read back: what the claim
// intends is all that tells our own values from those of the target's people.
func (e *Engine) unseen(ctx context.Context, w *work, cause error) error {
	w.adds = nil
	return e.unclaim(ctx, w, fmt.Errorf("read back target %s of %s: %w", w.row.Target, w.ref, cause), e.Now())
}

func (e *Engine) unclaim(ctx context.Context, w *work, cause error, until time.Time) error {
	if w.claimed == "" {
		return cause
	}
	c := *w.row.Claim
	c.Until, c.Session, c.Adds = until.UTC(), e.Session, w.doubtful()
	w.row.Claim = &c
	return errors.Join(cause, e.saveRow(ctx, w))
}

// unanswered gives the claim back where the desk says that nothing was done beyond what is known, and leaves it standing where
// that is open.
func (e *Engine) unanswered(ctx context.Context, w *work, cause error) error {
	if refused(cause) {
		return e.release(ctx, w, cause)
	}
	return e.doubt(ctx, w, cause)
}

// errUnseen says that something was done, as the desk says, and did not show when it was looked at.
var errUnseen = errors.New("the desk has done it, and did not show it afterwards")

// errUnsent says that the desk was not asked at all.
var errUnsent = errors.New("nothing was sent")

// refused tells whether nothing was done, as the desk says or because it was never asked.
func refused(err error) bool {
	if errors.Is(err, errUnseen) || errors.Is(err, errUnsent) {
		return errors.Is(err, errUnsent)
	}
	switch desk.Class(err) {
	case desk.ErrConflict, desk.ErrRejected, desk.ErrUnauthorized, desk.ErrThrottled, desk.ErrNotFound:
		return true
	}
	return false
}

// saveRow writes the row of a claim that is ours. Others write into a claimed row only that somebody waits for this record,
// that it was merged into another one, or an attempt that came to nothing: the first two are taken over.
func (e *Engine) saveRow(ctx context.Context, w *work) error {
	ctx = context.WithoutCancel(ctx) // what has happened is written down, also when time is up
	for {
		row := w.row
		if err := e.keepEntries(ctx, w, &row); err != nil {
			return err
		}
		version, err := e.put(ctx, e.ledgerKey(w.ref), w.row.version, row)
		if err == nil {
			w.row, w.fresh = row, nil
			w.row.version = version
			return nil
		}
		if !errors.Is(err, ErrStale) {
			return err
		}
		var other ledgerRow
		v, err := e.get(ctx, e.ledgerKey(w.ref), &other)
		if err != nil {
			return err
		}
		if w.claimed == "" || other.Claim == nil || other.Claim.By != w.claimed {
			return fmt.Errorf("ledger row of %s was taken over: %w", w.ref, ErrStale)
		}
		w.row.version, w.row.Awaited, w.row.Into = v, other.Awaited, cmpOr(other.Into, w.row.Into)
	}
}

// commit writes the row that says what came of it, and ends the claim, in one write (model: Commit): a claim that is gone has
// nothing open behind it. The row keeps when the reading began, not when it was carried out: what changed in between is not
// in it and must not be dropped unread.
func (e *Engine) commit(ctx context.Context, w *work, out Outcome) error {
	asked := w.heldVersion > 0
	if w.claimed == "" && (asked || !w.held.empty()) {
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
	}
	if out == OutHeld && !w.errand { // before it waits for others: if one of them comes, it is due for its link, and in this run still
		if err := e.makeDue(ctx, w.run.Scope, dueRow{Listed: w.it.Listed, Why: "held", Run: w.run.ID}); err != nil {
			return e.release(ctx, w, err)
		}
	}
	if err := e.await(ctx, w); err != nil {
		return e.release(ctx, w, err)
	}
	if w.unsettled {
		if err := e.makeDue(ctx, w.run.Scope, dueRow{Listed: w.it.Listed, Why: dueMoved, Run: w.run.ID}); err != nil {
			return e.release(ctx, w, err)
		}
	}
	w.held.Target = w.row.Target
	if asked { // what was answered is in the ledger before the question goes: cut off in between, it would be put again
		if err := e.saveRow(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
	}
	if err := e.keepHeld(ctx, w.held, w.heldBefore, w.heldVersion); err != nil {
		return e.unclaim(ctx, w, err, e.Now()) // the held row may be there all the same: the claim says that it is to be looked at
	}
	row := w.row // as it is until the commit succeeds
	w.finish(out, cmpOr(w.held.reason(), w.reason))
	if out == OutHeld {
		w.out.Next = w.held.next()
	}
	w.done = false
	w.row.Held, w.row.Gone, w.row.Open, w.row.Unfinished, w.row.Attempts = !w.held.empty(), "", nil, false, nil
	for _, id := range w.open {
		if _, known := w.known[id]; !known {
			w.row.Open = append(w.row.Open, id)
		}
	}
	w.row.Began, w.row.Digest, w.row.Rules = w.rec.Began.UTC(), w.digest, e.rules
	w.row.saw(w)
	w.row.Look = w.row.Look && w.row.Target == ""
	if w.held.Doubt != "" {
		// Still in doubt: the claim stays, free for the next one, so that it is looked at again and never simply written. All that
		// was intended beside is known by now, and what people make of it from here on is theirs.
		c := w.row.Claim
		w.row.Claim = &claim{By: c.By, Session: c.Session, At: c.At, Until: e.Now().UTC(), Create: c.Create, Adds: w.doubtful(), Brings: c.Brings}
		w.row.Digest, w.row.Open = "", nil
	} else {
		w.row.Claim = nil
	}
	if w.held.Gone {
		w.row.Digest = ""
	}
	if !w.errand {
		w.row.Last = &last{Run: w.m.Run, Pos: w.pos(), Out: w.out}
	}
	check := "read back as written"
	if slices.ContainsFunc(w.losses, func(l desk.Loss) bool { return l.Class == "normalised" }) {
		check = "read back, some values in the target's own form"
	}
	wrote := w.wrote
	if len(wrote) > 12 {
		wrote = append(slices.Clone(wrote[:12]), fmt.Sprintf("and %d more", len(w.wrote)-12))
	}
	w.row.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Seen: w.it.Stamp.At, Outcome: out, Why: cmpOr(w.held.reason(), w.it.why()), Wrote: wrote, Check: check, Blind: w.row.Target == ""})
	if err := e.saveRow(ctx, w); err != nil {
		w.row = row
		return err
	}
	if w.ref.Kind != desk.Ticket {
		e.mu.Lock()
		delete(e.people, w.run.ID+" "+w.ref.String()) // it may be another one now
		e.mu.Unlock()
	}
	w.done = true
	return nil
}

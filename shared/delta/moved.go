package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// An entry's id is unique within the source, so one that leaves a ticket and appears in another one was moved: the ticket was
// split. Whoever carries out the one cannot see the other, and either may come first. So both write into the entry's moved
// row: who got an entry that is older than can be explained otherwise, before it is written there, and who lost one, before
// anything follows from it. Of two conditional writes to one row the second sees the first.
//
// Who lost an entry waits, besides, until everything else of the run has been carried out (its due row says moved), so that
// what becomes of the copy does not depend on who came first.

// lostTo tells whether an entry that left w's ticket is in another one, and whether that can be told yet.
func (e *Engine) lostTo(ctx context.Context, w *work, c copied) (moved, wait bool, err error) {
	same := c.can && e.mig.OnRevised == Mirror && e.mig.OnSplit == Mirror && !c.known.Came
	switch {
	case same, c.tgt == nil && c.sure:
		return false, false, nil // what becomes of the copy is the same either way
	case (w.it.Due != dueMoved || !w.it.Late) && !w.heldBefore.asks(c.id):
		return false, true, nil
	}
	row, err := update(ctx, e, e.movedKey(c.id), func(r *movedRow) error {
		if slices.Contains(r.Kept, w.ref.ID) {
			return errKeep
		}
		r.Kept = append(r.Kept, w.ref.ID)
		return nil
	})
	return row.In != "" && row.In != w.ref.ID, false, err
}

// dueMoved is why a ticket is due that has to look again at entries that moved.
const dueMoved = "moved"

// gain notes which of w's entries were in another ticket before, while they are not in its target yet: those that were there
// when this ticket was last read and were not part of it, those that are older than a ticket that is new since the full run,
// and those that come with a ticket whose own target keeps its thread.
func (e *Engine) gain(ctx context.Context, w *work) error {
	if w.ref.Kind != desk.Ticket {
		return nil
	}
	created, _ := time.Parse(time.RFC3339, w.rec.Fields[desk.Created].First()) // nothing is older than a time that is not told
	seen := w.row.Began.Add(-e.SourceSide.StampResolution - e.SourceSide.ListLag)
	parted := w.parted || len(w.row.Was) > 0 && (w.row.Target == "" || w.row.Unfinished)
	var from map[string]string
	for _, en := range w.want.Entries {
		k, known := w.known[en.ID]
		there := known && k.Digest != taken && !w.parted
		if isNote(en.ID) || (there || w.came[en.ID]) && !w.row.Unfinished {
			continue
		}
		if from == nil {
			var err error
			if from, err = e.apart(ctx, w); err != nil {
				return err
			}
		}
		if there && from[en.ID] == "" {
			continue // else it came with the create, before its ticket was left apart
		}
		back := known && !there
		old := !w.row.Began.IsZero() && en.At.Before(seen) || w.row.Began.IsZero() && w.run.Kind == Delta && en.At.Before(created)
		if !old && !back && !parted && from[en.ID] == "" {
			continue
		}
		row, err := update(ctx, e, e.movedKey(en.ID), func(r *movedRow) error {
			r.In = w.ref.ID
			if id := from[en.ID]; id != "" && !slices.Contains(r.Kept, id) {
				r.Kept = append(r.Kept, id)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if w.came == nil {
			w.came = map[string]bool{}
		}
		if w.came[en.ID] = true; there {
			w.remember(en.ID, k)
		}
		others, err := e.copies(ctx, w, row, en.ID)
		if err != nil {
			return err
		}
		for _, o := range others {
			if o.k.Digest == taken || from[en.ID] == o.ref.ID {
				if l := keptCopy(en.ID, w.ref); !slices.Contains(w.losses, l) {
					w.losses = append(w.losses, l)
				}
				continue
			}
			// It has not settled what becomes of its copy, or somebody was asked about it: now it can be told.
			if err := e.makeDue(ctx, w.run.Scope, dueRow{Listed: desk.Listed{Ref: o.ref}, Why: dueMoved, Run: w.run.ID}); err != nil {
				return err
			}
		}
	}
	return nil
}

// apart returns the entries of tickets that were merged into w's in the source only, with the ticket.
func (e *Engine) apart(ctx context.Context, w *work) (map[string]string, error) {
	from := map[string]string{}
	for _, id := range w.aliases() {
		var row ledgerRow
		theirs, err := e.entriesOf(ctx, desk.Ref{Kind: w.ref.Kind, ID: id}, &row)
		if err != nil {
			return nil, err
		}
		if !row.Apart {
			continue
		}
		for entry := range theirs {
			from[entry] = id
		}
	}
	return from, nil
}

// anotherCopy is an entry in the target ticket of another ticket than the one that has it in the source.
type anotherCopy struct {
	ref desk.Ref // the other ticket, in the source
	row ledgerRow
	k   entryRow
}

// copies returns which other tickets of the target show an entry of w's.
func (e *Engine) copies(ctx context.Context, w *work, row movedRow, entry string) ([]anotherCopy, error) {
	var out []anotherCopy
	for _, id := range row.Kept {
		c := anotherCopy{ref: desk.Ref{Kind: w.ref.Kind, ID: id}}
		if c.ref == w.ref || id == row.In {
			continue
		}
		known, err := e.entriesOf(ctx, c.ref, &c.row)
		if err != nil {
			return nil, err
		}
		k, ok := known[entry]
		if c.k = k; ok && c.row.Target != "" && k.readable() {
			out = append(out, c)
		}
	}
	return out, nil
}

// otherCopies reads the entry's moved row first, where there is one.
func (e *Engine) otherCopies(ctx context.Context, w *work, c copied) ([]anotherCopy, error) {
	if !c.known.Came {
		return nil, nil
	}
	var row movedRow
	if _, err := e.get(ctx, e.movedKey(c.id), &row); err != nil {
		return nil, err
	}
	return e.copies(ctx, w, row, c.id)
}

// tellMoved makes the ticket due to which an entry went, so that its outcome tells of the copy that stays in w's target, too.
func (e *Engine) tellMoved(ctx context.Context, w *work, c copied) error {
	if !c.moved {
		return nil
	}
	var row movedRow
	if _, err := e.get(ctx, e.movedKey(c.id), &row); err != nil || row.In == "" {
		return err
	}
	to := desk.Listed{Ref: desk.Ref{Kind: w.ref.Kind, ID: row.In}}
	return e.makeDue(ctx, w.run.Scope, dueRow{Listed: to, Why: dueMoved, Run: w.run.ID})
}

// keptCopies returns which of w's entries other tickets of the target show as well.
func (e *Engine) keptCopies(ctx context.Context, w *work) ([]desk.Loss, error) {
	var out []desk.Loss
	for _, id := range slices.Sorted(maps.Keys(w.known)) {
		if w.known[id].Digest == taken {
			continue
		}
		others, err := e.otherCopies(ctx, w, copied{id: id, known: w.known[id]})
		if err != nil {
			return nil, err
		}
		if len(others) > 0 {
			out = append(out, keptCopy(id, w.ref))
		}
	}
	return out, nil
}

// reviseCopies empties what other tickets of the target show of an entry that has changed or become private: they are not
// compared any more, so what they say must not stay behind; but for what the source says again, when the entry comes back.
func (e *Engine) reviseCopies(ctx context.Context, w *work, c copied) error {
	others, err := e.otherCopies(ctx, w, c)
	if err != nil {
		return err
	}
	for _, o := range others {
		if slices.ContainsFunc(w.want.Entries, func(en desk.Entry) bool {
			return en.ID == c.id && o.k.says(en) && o.k.Private == !en.Public && !o.k.Left && !o.k.Turned
		}) {
			continue
		}
		if err := e.free(o.row); err != nil {
			return err
		}
		done, err := e.empty(ctx, w, c.id, o)
		if err != nil {
			return fmt.Errorf("revise the copy of entry %s of %s in target %s: %w", c.id, w.ref, o.row.Target, err)
		}
		if _, err := update(ctx, e, e.ledgerKey(o.ref), func(r *ledgerRow) error {
			if err := e.free(*r); err != nil {
				return err
			}
			r.Entries = maps.Clone(r.Entries)
			if r.Entries == nil {
				r.Entries = map[string]entryRow{}
			}
			r.Entries[c.id] = done
			return nil
		}); err != nil {
			return err
		}
		w.wrote = append(w.wrote, "copy of entry "+c.id+" in target "+o.row.Target+" emptied")
	}
	return nil
}

// empty takes the words and files out of a copy, wherever its ticket's thread has gone, and returns what the ledger is to know.
func (e *Engine) empty(ctx context.Context, w *work, entry string, o anotherCopy) (entryRow, error) {
	done := entryRow{Target: o.k.Target, Digest: taken, Private: o.k.Private}
	now, err := e.Target.Read(ctx, desk.Ref{Kind: o.ref.Kind, ID: o.row.Target})
	if errors.Is(err, desk.ErrNotFound) {
		return done, nil
	}
	if err != nil {
		return done, err
	}
	i := slices.IndexFunc(now.Entries, func(en desk.Entry) bool {
		return en.ID == o.k.Target && (en.Marker == e.marker(entry) || en.Marker == "")
	})
	if i < 0 { // its thread may have gone into w's ticket, which has its own
		i = slices.IndexFunc(now.Entries, func(en desk.Entry) bool { return en.Marker == e.marker(entry) && en.ID != w.known[entry].Target })
	}
	if i < 0 {
		return done, nil
	}
	words, c := true, copied{id: entry, known: o.k, tgt: &now.Entries[i]}
	en := c.written(now.Entries[i].Public, &words)
	en.Marker = e.marker(entry)
	done.Target, done.Shown = en.ID, wordsDigest(*en)
	im := image{Ref: o.ref, Target: o.row.Target, Tag: o.row.Tag}
	im.revises(c)
	if err := e.before(ctx, w, im); err != nil {
		return done, err
	}
	err = e.Target.(desk.Reviser).Revise(ctx, now.Ref, *en, now.Lock)
	if errors.Is(err, desk.ErrNotFound) {
		err = nil
	}
	return done, err
}

// keptCopy is what the report says of a copy that stays.
func keptCopy(entry string, of desk.Ref) desk.Loss {
	return desk.Loss{Class: "kept-copy", What: fmt.Sprintf("entry %s of %s", entry, of)}
}

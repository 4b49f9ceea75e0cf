package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Entries that are in the target are remembered in the ledger row as long as the thread is short. Beyond inline entries they
// move into rows of chunk entries, written once, so that the row of a thread of thousands stays small.
const (
	inline = 24
	chunk  = 96
)

// loadEntries reads which entries of the ticket are in the target, those of merged tickets included.
func (e *Engine) loadEntries(ctx context.Context, w *work) error {
	w.known, w.chunks, w.fresh = map[string]entryRow{}, 0, nil
	if w.row.version == 0 && len(w.rec.Aliases) == 0 {
		return nil
	}
	n, err := e.loadChunks(ctx, w.ref, w.known)
	if err != nil {
		return err
	}
	w.chunks = n
	maps.Copy(w.known, w.row.Entries) // the row is newer than the chunks
	for _, id := range w.rec.Aliases {
		ref := desk.Ref{Kind: w.ref.Kind, ID: id}
		var row ledgerRow
		if _, err := e.get(ctx, e.ledgerKey(ref), &row); err != nil {
			return err
		}
		if _, can := e.Target.(desk.Merger); !can || e.mig.OnMerged != Mirror {
			continue // its target keeps its thread, and the survivor gets it too, as in the source
		}
		if _, err := e.loadChunks(ctx, ref, w.known); err != nil {
			return err
		}
		maps.Copy(w.known, row.Entries)
	}
	return nil
}

func (e *Engine) loadChunks(ctx context.Context, ref desk.Ref, into map[string]entryRow) (n int, err error) {
	err = e.each(ctx, e.ledgerPart(ref), "entries/", func(r Row) error {
		m, err := decode[map[string]entryRow](r)
		maps.Copy(into, m)
		n++
		return err
	})
	return n, err
}

// remember notes that an entry is in the target.
func (w *work) remember(id string, row entryRow) {
	row.Again = row.Again || w.lost[id]
	if old, ok := w.known[id]; !ok || old != row {
		w.fresh = append(w.fresh, id)
	}
	w.known[id] = row
}

// keepEntries brings the entries written by w into the ledger row, or into chunk rows where it would grow too long. A chunk is
// written only after its entries are in the target, so one that is left behind by a cut-off tells the truth.
func (e *Engine) keepEntries(ctx context.Context, w *work, row *ledgerRow) error {
	all := maps.Clone(row.Entries)
	if all == nil {
		all = map[string]entryRow{}
	}
	for _, id := range w.fresh {
		all[id] = w.known[id]
	}
	for len(all) > inline+chunk {
		ids := slices.Sorted(maps.Keys(all))[:chunk]
		part := map[string]entryRow{}
		for _, id := range ids {
			part[id] = all[id]
		}
		k := Key{e.ledgerPart(w.ref), fmt.Sprintf("entries/%06d", w.chunks)}
		if _, err := e.put(ctx, k, 0, part); errors.Is(err, ErrStale) {
			w.chunks++ // left by a cut-off: those entries are known already, and the row need not repeat them
			continue
		} else if err != nil {
			return err
		}
		w.chunks++
		for _, id := range ids {
			delete(all, id)
		}
	}
	row.Entries = all
	return nil
}

// entryDigest is of what would make an entry another one: visibility, text and files. An author who changes their name does
// not change what they wrote.
func entryDigest(en desk.Entry) string {
	type file struct {
		ID, Name string
		Size     int64
	}
	fs := make([]file, len(en.Files))
	for i, f := range en.Files {
		fs[i] = file{f.ID, f.Name, f.Size}
	}
	return digestJSON([]any{en.Public, en.Subject, desk.CanonicalBody(en.Body), fs})
}

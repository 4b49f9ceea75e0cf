package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Entries that are in the target are remembered in the ledger row as long as the thread is short. Beyond inline entries they
// move into rows of chunk entries, written once, so that the row of a thread of thousands stays small.
const (
	inline = 24
	chunk  = 96
)

// loadEntries reads which entries of the ticket are in the target. Those of tickets that are still to be merged into it are
// lent: they will be there when the target has followed, and are kept in mind for good only then.
func (e *Engine) loadEntries(ctx context.Context, w *work) error {
	w.known, w.lent, w.unsent, w.chunks, w.fresh = map[string]entryRow{}, map[string]string{}, map[string]bool{}, 0, nil
	aliases := w.aliases()
	if w.row.version == 0 && len(aliases) == 0 {
		return nil
	}
	n, err := e.loadChunks(ctx, w.ref, w.known)
	if err != nil {
		return err
	}
	w.chunks = n
	maps.Copy(w.known, w.row.Entries) // the row is newer than the chunks
	if _, can := e.Target.(desk.Merger); !can || e.mig.OnMerged != Mirror {
		return nil // their targets keep their threads, and the survivor gets them too, as in the source
	}
	for _, id := range aliases {
		var row ledgerRow
		theirs, err := e.entriesOf(ctx, desk.Ref{Kind: w.ref.Kind, ID: id}, &row)
		if err != nil {
			return err
		}
		if row.Into != "" {
			continue // part of this one already, or of none
		}
		for _, entry := range row.doubtful() {
			w.unsent[entry] = true
		}
		for entry, k := range theirs {
			if _, own := w.known[entry]; !own {
				w.known[entry], w.lent[entry] = k, id
			}
		}
	}
	return nil
}

// entriesOf reads a ledger row and what it knows of the ticket's entries.
func (e *Engine) entriesOf(ctx context.Context, ref desk.Ref, row *ledgerRow) (map[string]entryRow, error) {
	version, err := e.get(ctx, e.ledgerKey(ref), row)
	row.version = version
	if err != nil || version == 0 {
		return nil, err
	}
	all := map[string]entryRow{}
	if _, err := e.loadChunks(ctx, ref, all); err != nil {
		return nil, err
	}
	maps.Copy(all, row.Entries)
	return all, nil
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
	row.Came, row.Again = row.Came || w.came[id], row.Again || w.again[id]
	if old, ok := w.known[id]; !ok || old != row {
		w.fresh = append(w.fresh, id)
	}
	w.known[id] = row
}

// lacking tells whether an entry has left the ticket in the source and it was not settled yet what becomes of the copy.
func (w *work) lacking() bool {
	still := map[string]bool{}
	for _, en := range w.want.Entries {
		still[en.ID] = true
	}
	for id, k := range w.known {
		if _, lent := w.lent[id]; !still[id] && !lent && !isNote(id) && k.Digest != taken {
			return true
		}
	}
	return false
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

// newEntryRow is what the ledger knows of an entry that was written just now.
func newEntryRow(en desk.Entry, target string) entryRow {
	return entryRow{Target: target, Digest: wordsDigest(en), Files: filesDigest(en), Private: !en.Public, Unseen: true}
}

// foundEntryRow is what the ledger can know of an entry that the target's thread shows as ours without our knowing of it: its
// writer was cut off. Words that are not those of the source now are what was copied, and the source has changed since.
// An entry that only the target hides may be its people's doing: it is not made public without asking.
func foundEntryRow(en, there desk.Entry) entryRow {
	row := newEntryRow(en, there.ID)
	row.Unseen = false
	row.Private, row.Own = !there.Public, !there.Public && en.Public
	switch shown := wordsDigest(there); {
	case !alike(en, there):
		row.Digest, row.Files = shown, ""
	case shown != row.Digest:
		row.Shown = shown
	}
	return row
}

// seen notes how the target shows what was written last.
func (k *entryRow) seen(shown string) {
	k.Unseen, k.Shown = false, shown
	if shown == k.Digest {
		k.Shown = ""
	}
}

// says tells whether the source still says what it said last.
func (k entryRow) says(src desk.Entry) bool {
	return k.Digest == wordsDigest(src) && k.Files == filesDigest(src)
}

// wordsDigest is of what an entry says, in either desk: subject, text, names and sizes of files. An author who changes their
// name does not change what they wrote. Visibility is compared by itself.
func wordsDigest(en desk.Entry) string {
	type file struct {
		Name string
		Size int64
	}
	fs := make([]file, len(en.Files))
	for i, f := range en.Files {
		fs[i] = file{f.Name, f.Size}
	}
	return digestJSON([]any{en.Subject, desk.CanonicalBody(en.Body), fs})
}

// filesDigest tells files of one name and size apart, as far as the source does; "" where there are none.
func filesDigest(en desk.Entry) string {
	if len(en.Files) == 0 {
		return ""
	}
	type file struct{ ID, SHA string }
	fs := make([]file, len(en.Files))
	for i, f := range en.Files {
		fs[i] = file{f.ID, f.SHA256}
	}
	return digestJSON(fs)
}

// alike tells whether an entry of the target says what one of the source says, as far as both tell.
func alike(src, tgt desk.Entry) bool {
	return src.Subject == tgt.Subject && desk.CanonicalBody(src.Body) == desk.CanonicalBody(tgt.Body) &&
		slices.EqualFunc(src.Files, tgt.Files, func(a, b desk.File) bool {
			return a.Name == b.Name && (a.Size == b.Size || a.Size < 0 || b.Size < 0)
		})
}

// isNote tells whether an entry is one that we add ourselves: a note of what has no home in the target. The source knows
// nothing of it, and it stays when there is another one.
func isNote(id string) bool {
	return strings.HasPrefix(id, "fields/") || strings.HasPrefix(id, "status-history/") || strings.HasPrefix(id, "oversize/")
}

package delta

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// verifyOne compares one record as it is now on both sides. Nothing is written to either desk, and the ledger is asked only
// for what cannot be seen: which target belongs to the record, which fields are held, and which were changed by the
// target's people (those are theirs, and no difference).
func (e *Engine) verifyOne(ctx context.Context, w *work) error {
	if err := e.loadRow(ctx, w); err != nil {
		return err
	}
	rec, err := e.Source.Read(ctx, w.ref)
	switch {
	case errors.Is(err, desk.ErrNotFound):
		w.finish(OutExcluded, "not in the source any more")
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", w.ref, err)
	case rec.Ref != w.ref:
		w.finish(OutExcluded, "merged in the source; verified with the record that lives on")
		return nil
	case rec.Event == desk.Deleted || rec.Event == desk.Spam:
		w.finish(OutExcluded, string(rec.Event)+" in the source")
		return nil
	}
	w.rec = rec
	if ok, why := w.run.Filter.Holds(rec); !ok {
		w.finish(OutExcluded, why)
		return nil
	}
	if w.row.Target == "" {
		w.finish(OutFailed, "not in the target")
		w.out.Next = "a delta brings it; if it failed or is held, the report of that run says why"
		return nil
	}
	if w.row.How == "fallback" {
		w.finish(OutUnchanged, "a fallback person stands in")
		return nil
	}
	res, err := e.mapped(ctx, rec)
	if err != nil {
		return err
	}
	if err := e.build(ctx, w, res); err != nil {
		return err
	}
	if w.row.Held {
		if _, err := e.get(ctx, e.heldKey(w.ref), &w.heldBefore); err != nil {
			return err
		}
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	if errors.Is(err, desk.ErrNotFound) {
		w.finish(OutFailed, "no longer in the target")
		if w.heldBefore.Gone {
			w.out.Outcome = OutHeld
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
	}
	now = e.untagged(w, now)
	diff, held := []string{}, []string{}
	if f, ok := e.Target.(desk.Finder); ok && w.ref.Kind == desk.Ticket {
		ids, err := e.search(ctx, w, f)
		if err != nil {
			return err
		}
		if len(ids) > 1 {
			diff = append(diff, fmt.Sprintf("%d times in the target", len(ids)))
		}
	}
	if now.Ref.ID == w.row.Target && w.row.How != mergedThere {
		d, h, err := e.compareFields(ctx, w, now)
		if err != nil {
			return err
		}
		diff, held = append(diff, d...), append(held, h...)
	}
	d, h, err := e.compareThread(ctx, w, now)
	if err != nil {
		return err
	}
	diff, held = append(diff, d...), append(held, h...)
	kept := w.out.Kept
	switch {
	case len(diff) > 0:
		w.finish(OutFailed, "differs: "+strings.Join(diff, ", "))
		w.out.Next = "deltadesk explain " + w.ref.String()
	case len(held) > 0:
		w.finish(OutHeld, "differs only where it is held: "+strings.Join(held, ", "))
		w.out.Next = w.heldBefore.next()
	default:
		w.finish(OutUnchanged, "")
	}
	w.out.Kept = kept
	return nil
}

func (e *Engine) compareFields(ctx context.Context, w *work, now desk.Record) (diff, held []string, err error) {
	defs, err := e.definitions(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range slices.Sorted(maps.Keys(w.want.Fields)) { // a report says the same each time
		v := w.want.Fields[f]
		def, ok := defs.Field(w.ref.Kind, f)
		s, t := v.Digest(), now.Fields[f].Digest()
		if s == t || ok && def.Write == desk.Never {
			continue
		}
		b, based := w.row.Fields[f]
		switch {
		case slices.ContainsFunc(w.heldBefore.Fields, func(h heldField) bool { return h.Field == f }):
			held = append(held, string(f))
		case based && s == b.Src && (b.Kept || t != b.tgt()):
			w.out.Kept = append(w.out.Kept, string(f))
		case based && s == b.Src && w.row.How != "created":
			// was there before the migration and was left as it is
		case based && s == b.Src:
			w.losses = append(w.losses, desk.Loss{Class: "normalised", What: fmt.Sprintf("%s of %s", f, w.ref)})
		case based:
			diff = append(diff, string(f)+" (changed in the source since)")
		default:
			diff = append(diff, string(f))
		}
	}
	slices.Sort(diff)
	return diff, held, nil
}

func (e *Engine) compareThread(ctx context.Context, w *work, now desk.Record) (diff, held []string, err error) {
	there := map[string]desk.Entry{}
	var order []string
	for _, en := range now.Entries {
		if en.Marker == "" {
			continue
		}
		if _, twice := there[en.Marker]; twice && !w.known[e.entryOf(en.Marker)].Came {
			diff = append(diff, "entry "+en.Marker+" twice")
		}
		there[en.Marker] = en
		order = append(order, en.Marker)
	}
	if e.TargetSide.EntryMarker == "" {
		return nil, nil, nil // such a desk cannot show which entries are ours
	}
	var wanted []string
	for _, en := range w.want.Entries {
		k := w.known[en.ID]
		t, ok := there[en.Marker]
		if !ok {
			if k.Left && k.says(en) {
				w.out.Kept = append(w.out.Kept, "entry "+en.ID)
			} else {
				diff = append(diff, "entry "+en.ID+" is missing")
			}
			continue
		}
		if !strings.Contains(en.ID, "/") { // notes of ours stand where they were written
			wanted = append(wanted, en.Marker)
		}
		if d := e.compareEntry(en, t); d != "" {
			switch {
			case w.heldBefore.asks(en.ID):
				held = append(held, "entry "+en.ID)
			case e.leftAlone(k, en, t):
				w.out.Kept = append(w.out.Kept, "entry "+en.ID)
			default:
				diff = append(diff, "entry "+en.ID+" "+d)
			}
			continue
		}
		for i := range en.Files {
			same, err := e.sameFile(ctx, w, en.Files[i], now.Ref, t.Files[i])
			if err != nil {
				return nil, nil, fmt.Errorf("compare file %s of entry %s of %s: %w", en.Files[i].ID, en.ID, w.ref, err)
			}
			if !same {
				diff = append(diff, fmt.Sprintf("file %s of entry %s", en.Files[i].ID, en.ID))
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.known)) {
		k := w.known[id]
		t, shown := there[e.marker(id)]
		if !shown || isNote(id) || slices.ContainsFunc(w.want.Entries, func(en desk.Entry) bool { return en.ID == id }) {
			continue
		}
		switch {
		case k.Digest == taken && k.Left:
			w.losses = append(w.losses, keptCopy(id, w.ref))
		case k.Digest == taken && (t.Body == takenText && len(t.Files) == 0 || wordsDigest(t) == k.Shown):
		case w.heldBefore.asks(id):
			held = append(held, "entry "+id)
		default:
			diff = append(diff, "entry "+id+" is no longer in the source's ticket")
		}
	}
	kept, err := e.keptCopies(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	w.losses = append(w.losses, kept...)
	// Threads that were merged after they were copied stand one after the other; all others keep the source's order.
	if len(w.rec.Aliases) == 0 {
		order = slices.DeleteFunc(order, func(m string) bool { return !slices.Contains(wanted, m) })
		if !slices.Equal(order, wanted) {
			diff = append(diff, "order of entries")
		}
	}
	return diff, held, nil
}

// leftAlone tells whether an entry differs only in what is known to: by a decision, a policy, or as the target's people have it.
func (e *Engine) leftAlone(k entryRow, src, tgt desk.Entry) bool {
	if k.Left && k.says(src) {
		tgt.Subject, tgt.Body, tgt.Files = src.Subject, src.Body, src.Files
	}
	if k.Turned && k.Private == !src.Public {
		tgt.Public = src.Public
	}
	return e.compareEntry(src, tgt) == ""
}

func (e *Engine) compareEntry(want, got desk.Entry) string {
	switch {
	case want.Public != got.Public:
		return "visibility"
	case desk.CanonicalBody(want.Body) != desk.CanonicalBody(got.Body):
		return "text"
	case want.Subject != got.Subject:
		return "subject"
	case len(want.Files) != len(got.Files):
		return fmt.Sprintf("has %d files, not %d", len(got.Files), len(want.Files))
	case (e.TargetSide.KeepsTimes || e.TargetSide.EntryMarker != "") && !got.At.IsZero() && !want.At.Truncate(1e9).Equal(got.At.Truncate(1e9)):
		return "time"
	}
	for i := range want.Files {
		if want.Files[i].Name != got.Files[i].Name {
			return "name of file " + want.Files[i].ID
		}
	}
	return ""
}

func (e *Engine) sameFile(ctx context.Context, w *work, src desk.File, target desk.Ref, tgt desk.File) (bool, error) {
	a, b := src.SHA256, tgt.SHA256
	var err error
	if a == "" {
		r, oerr := e.openFile(ctx, w.rec.Ref, src)
		if a, err = hashOf(r, oerr); err != nil {
			return false, err
		}
	}
	if b == "" {
		o, ok := e.Target.(desk.Opener)
		if !ok {
			return src.Size == tgt.Size, nil
		}
		r, oerr := o.OpenFile(ctx, target, tgt)
		if b, err = hashOf(r, oerr); err != nil {
			return false, err
		}
	}
	return a == b, nil
}

func hashOf(r io.ReadCloser, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

package delta

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/deltadesk/deltadesk/shared/certificate"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// A verification that is asked to heal makes what differs due, with the mark Heal, and keeps nothing of what it found: by the
// time a delta takes the record up, that may be different. Heal means that the record is read on both sides and compared anew,
// although the source's digest is the one of the ledger. Something was changed without a trace where the target proves that
// nobody has worked on it since our last write: see untraced. What comes of each difference:
//
//	in the source, not in the target    created, as any new record
//	gone from the target                policy target_gone
//	field, changed without a trace      set again; asked where what was lost was people's own value
//	field, changed by people            kept: no difference
//	entry lost without a trace          added again, at the end of the thread
//	entry changed without a trace       revised; asked where the target cannot revise
//	entry lost or changed, by whom      asked: the source's, or as it is
//	is open
//	ticket or entry twice, order, time  said by the verification, and left to people: nothing is deleted
//
// Everything else that differs (the source has changed it since) goes the ordinary way. What a person has left as it is, is no
// difference any more, as long as the source says the same.

// harm is what a heal knows of one entry that may have been changed in the target.
type harm struct {
	// untraced: nobody can have changed it.
	untraced bool
	// files is a digest of the bytes that the target has in files of this entry, where they are others than the source's; read are
	// the hashes of the source's: what was staged under the same id and size before may be what was copied then.
	files string
	read  []string
}

// heal prepares what is decided next about a record that a verification found to differ: it changes the base of fields that were
// changed without a trace, so that only the source has another word to say, and says which entries need not be their people's
// work. What a person was asked stays asked until it is decided. Nothing is written.
func (e *Engine) heal(ctx context.Context, w *work, now desk.Record, defs desk.Definitions) error {
	if !w.it.Heal && !w.heldBefore.heals() {
		return nil
	}
	if w.it.Heal && w.row.How != mergedThere {
		others, err := e.holdsOthers(ctx, w, now)
		if err != nil {
			return err
		}
		fields := maps.Clone(w.row.Fields)
		for f := range w.want.Fields {
			def, defined := defs.Field(w.ref.Kind, f)
			if defined && def.Write != desk.Always || !e.untraced(w, now, f, others) {
				continue
			}
			if b := fields[f]; b.Kept || b.Moved {
				fields[f] = base{Src: "unknown", Tgt: "unknown", Ask: true} // what was there is lost
			} else {
				fields[f] = base{Src: "untraced", Tgt: now.Fields[f].Digest()}
			}
		}
		w.row.Fields = fields
	}
	if w.ref.Kind != desk.Ticket || e.TargetSide.EntryMarker == "" {
		return nil // such a desk cannot show which entries are ours
	}
	there, ids := map[string]desk.Entry{}, map[string]bool{}
	for _, en := range now.Entries {
		there[en.Marker], ids[en.ID] = en, true
	}
	still := w.still(now)
	w.heals = map[string]harm{}
	for _, en := range w.want.Entries {
		k, known := w.known[en.ID]
		_, lent := w.lent[en.ID]
		t, shown := there[en.Marker]
		switch {
		case !known, lent, k.Came, !w.it.Heal && !w.heldBefore.asks(en.ID):
			continue // the ordinary way
		case !shown && (ids[k.Target] || k.Left && k.says(en)):
			continue // it is there and does not show as ours, or was left out by people
		}
		h := harm{untraced: still}
		if shown && !k.Left && len(t.Files) == len(en.Files) && len(t.Files) > 0 {
			var err error
			if h.files, h.read, err = e.otherBytes(ctx, w, now.Ref, en, t); err != nil {
				return err
			}
			h.untraced = still && (h.files == "" || !w.row.Worked)
		}
		w.heals[en.ID] = h
	}
	return nil
}

// otherBytes returns "" where the files of an entry have the same bytes on both sides, as far as the target gives them out, else
// a digest of the target's, and the hashes of the source's.
func (e *Engine) otherBytes(ctx context.Context, w *work, target desk.Ref, src, tgt desk.Entry) (other string, read []string, err error) {
	seen, err := certificate.ReadTarget(ctx, e.Target, e.mig.ID, desk.Record{Ref: target, Entries: []desk.Entry{tgt}})
	if err != nil {
		return "", nil, fmt.Errorf("compare files of entry %s of %s: %w", src.ID, w.ref, err)
	}
	var sums []string
	read = make([]string, len(src.Files))
	for i, f := range seen.Entries[0].Files {
		if f.SHA256 == "" {
			continue
		}
		if read[i], err = e.sumOf(ctx, w, src.Files[i]); err != nil {
			return "", nil, fmt.Errorf("compare file %s of entry %s of %s: %w", src.Files[i].ID, src.ID, w.ref, err)
		}
		sums = append(sums, f.SHA256)
		if read[i] != f.SHA256 {
			other = "differs"
		}
	}
	if other != "" {
		other = digestJSON(sums)
	}
	return other, read, nil
}

// lost decides what becomes of an entry that was copied and is not in the target any more.
func (c copied) lost(choice Choice) fate {
	out := fate{row: c.known}
	switch {
	case choice == ChooseTarget:
		out.row.Digest, out.row.Files, out.row.Shown, out.row.Private = wordsDigest(*c.src), filesDigest(*c.src), "", !c.src.Public
		out.row.Left, out.theirs = true, true
	case choice == ChooseSource, c.harm.untraced:
		out.again = true
	default:
		out.ask = []string{fmt.Sprintf("entry %s is no longer in the target, and it is open who took it out: source adds it again", c.id)}
	}
	return out
}

// differs says that a person has to look at an entry.
func (c copied) differs(what string) string {
	if c.can {
		return fmt.Sprintf("entry %s differs in the target (%s of entry %s), and it is open who changed it", c.id, what, c.tgt.ID)
	}
	return fmt.Sprintf("entry %s differs in the target (%s), and this target cannot change entries: mend entry %s there by hand", c.id, what, c.tgt.ID)
}

// still tells whether nobody has worked on the target record since we last read it back and found its thread as we know it.
func (w *work) still(now desk.Record) bool { return now.Lock != "" && now.Lock == w.row.Lock }

// untraced tells whether nobody can have changed a field of the target that is not as it was after our last write: the desk says
// that the last word in it was ours, or that nobody has worked on the record since and it yet says something else. Fields that
// point somewhere are left out: where they point to may have been merged, and that leaves no trace here. So is everything where
// tickets of others were merged into it, or the ledger is of an earlier day: what was put back there is not known.
func (e *Engine) untraced(w *work, now desk.Record, f desk.Field, others bool) bool {
	b, based := w.row.Fields[f]
	t := now.Fields[f].Digest()
	put := w.puts[f] // written again as it was, by somebody who was cut off
	if c := w.row.Claim; c != nil && put == "" {
		put = c.Puts[f]
	}
	switch {
	case !based, t == b.tgt(), f.Points() != "", b.Event, b.Ask, t != "" && (t == b.Left || t == put), w.run.adopted():
		return false
	case now.Touched != nil:
		return !now.Touched[f] && !others
	}
	return w.still(now) && !b.Moved
}

// keepLock keeps the target's lock as read back, where its thread is as we know it: anything else may be people's work of which
// the lock would say later that nobody did it.
func (e *Engine) keepLock(w *work, after desk.Record) {
	w.row.Lock = ""
	if after.Lock == "" {
		return
	}
	there := map[string]desk.Entry{}
	for _, en := range after.Entries {
		there[en.Marker] = en
	}
	for id, k := range w.known {
		if _, lent := w.lent[id]; lent || e.TargetSide.EntryMarker == "" {
			continue
		}
		t, shown := there[e.marker(id)]
		switch {
		case !shown && (k.Digest == taken || k.Left):
		case !shown, !k.Left && wordsDigest(t) != cmpOr(k.Shown, k.Digest), !k.Turned && t.Public == k.Private:
			return
		}
	}
	w.row.Lock = after.Lock
}

// healLater makes a record due that differs. Whatever made it due before still does.
func (e *Engine) healLater(ctx context.Context, w *work) error {
	_, err := update(ctx, e, e.dueKey(w.run.Scope, w.ref), func(d *dueRow) error {
		if d.Why == "" {
			*d = dueRow{Listed: w.it.Listed, Why: "verify", Run: w.run.ID}
		}
		d.Heal, d.Mode = true, "" // whatever the mode: a run that may not carry it out hands it on
		return nil
	})
	return err
}

// differs ends a verification that found differences: those that a delta may see to, and those that only people can. If the
// record was carried out meanwhile, that explains any, so it is compared again. Where the run is to heal, the record becomes due
// before its outcome says so.
func (e *Engine) differs(ctx context.Context, w *work, reason string, hand bool, next string) error {
	var row ledgerRow
	version, err := e.get(ctx, e.ledgerKey(w.ref), &row)
	if err != nil {
		return err
	}
	if version != w.row.version {
		return fmt.Errorf("compare %s: %w", w.ref, ErrStale)
	}
	switch {
	case hand:
		next = "no run can mend this: see to it in the target by hand"
	case w.run.Heal:
		if err := e.healLater(ctx, w); err != nil {
			return err
		}
		next = "it is due: the next delta over scope " + w.run.Scope + " heals it or holds it"
	}
	w.finish(OutFailed, reason)
	w.out.Next = next
	return nil
}

// settled tells whether a reading of the target shows everything that we wrote, or may have: a desk may show it late, and whoever wrote
// it may have another clock.
func (e *Engine) settled(row ledgerRow) error {
	if e.TargetSide.ListLag == 0 {
		return nil
	}
	var last time.Time
	if n := len(row.Trail); n > 0 {
		last = row.Trail[n-1].At
	}
	if c := row.Claim; c != nil && c.At.After(last) {
		last = c.At
	}
	if until := last.Add(e.TargetSide.ListLag + e.Skew); e.Now().Before(until) {
		return busyError{since: last, until: until}
	}
	return nil
}

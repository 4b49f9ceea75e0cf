package delta

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/deltadesk/deltadesk/shared/certificate"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// A verification asked to heal makes what differs due with why "verify" and the mark Heal, and keeps nothing of what it found:
// by the time a delta takes the record up, that may be different. Heal means that the record is read on both sides and
// compared anew, although the source's digest is the one of the ledger. What comes of each difference:
//
//	in the source, not in the target   created, after the target was searched for it
//	gone from the target               policy target_gone
//	there more than once               held, with the candidates: a person says which one it is, and removes the others
//	field, people changed it           kept: no difference
//	field, changed without a trace     set again; held where it cannot be written, or where what was lost is people's own value
//	entry missing                      added again: the thread has just been read and does not show its marker, and the claim
//	                                   that follows fails if anybody has pushed the record since
//	entry there without its marker     held: it is not lost
//	entry changed without a trace      revised; held where the target cannot revise, or shows it otherwise still
//	entry changed, perhaps by people   held: the source's or as it is
//	entry twice, of nobody, moved      held: nothing is deleted
//
// Everything else that differs (the source changed it since) goes the ordinary way. What is held and accepted is no difference
// any more as long as the target shows what was accepted.

// heal looks for what a verification would find, now that the target was read, and prepares what converge does next: it
// changes the base of fields, forgets entries that are lost, holds what a person has to see, and adds to ask the fields that
// are a person's to decide, whatever the policy. Nothing is written.
func (e *Engine) heal(ctx context.Context, w *work, now desk.Record, ask map[desk.Field]bool) error {
	w.lost, w.revise = map[string]bool{}, map[string]bool{}
	ids, err := e.copies(ctx, w)
	if err != nil {
		return err
	}
	if len(ids) > 1 {
		w.held.Doubled, w.held.Candidates = true, ids
		if w.heldBefore.Doubled && slices.Equal(ids, w.heldBefore.Candidates) {
			w.held.Answer = w.heldBefore.Answer // carried out; the others are still there
		}
	}
	defs, err := e.definitions(ctx)
	if err != nil {
		return err
	}
	if w.row.How != "merged in the target" {
		fields := maps.Clone(w.row.Fields)
		for f := range w.want.Fields {
			if e.field(w, now, defs, f) != fieldUntraced {
				continue
			}
			def, defined := defs.Field(w.ref.Kind, f)
			if b := fields[f]; b.Kept || b.Now != "" || defined && def.Write != desk.Always {
				ask[f] = true
				continue
			}
			fields[f] = base{Src: "untraced", Tgt: now.Fields[f].Digest()} // so only the source has another word to say
		}
		w.row.Fields = fields
	}
	return e.healThread(ctx, w, now)
}

// mostHeld is how many entries of one thread are held at a time: a row of the store has no room for thousands.
const mostHeld = 100

func (e *Engine) healThread(ctx context.Context, w *work, now desk.Record) error {
	if w.ref.Kind != desk.Ticket || e.TargetSide.EntryMarker == "" {
		return nil
	}
	read, err := certificate.ReadSource(ctx, e.Source, desk.Record{Ref: w.rec.Ref, Entries: w.want.Entries}, 0)
	if err != nil {
		return err
	}
	w.want.Entries = read.Entries
	seen, err := certificate.ReadTarget(ctx, e.Target, e.mig.ID, now)
	if err != nil {
		return err
	}
	at, ids := map[string]string{}, map[string]bool{} // id in the target, by marker
	for _, en := range seen.Entries {
		at[en.Marker], ids[en.ID] = en.ID, true
	}
	wanted := map[string]desk.Entry{}
	for _, en := range w.want.Entries {
		wanted[en.ID] = en
		// One that was lost and added again before somebody was cut off has another id now.
		if k, id := w.known[en.ID], at[en.Marker]; id != "" && k.Target != "" && !ids[k.Target] {
			k.Target, k.Again = id, true
			w.remember(en.ID, k)
		}
	}
	_, revises := e.Target.(desk.Reviser)
	still := now.Lock != "" && now.Lock == w.row.Lock // so nobody changed an entry either
	for _, d := range e.compareThread(w, seen) {
		en, is := wanted[d.entry]
		k, known := w.known[d.entry]
		h := heldEntry{Entry: d.entry, Differs: d.what, There: d.there, Can: is && d.can && revises}
		if is {
			h.Digest = entryDigest(en)
		}
		before, answer := w.heldBefore.entry(h)
		switch {
		case is && d.lost:
			if known {
				w.lost[d.entry] = true
				delete(w.known, d.entry)
			}
		case k.Kept == d.there && known:
		case is && known && k.Digest != h.Digest && !ourNote(d.entry): // the source changed it as well: see missing
		case answer == ChooseTarget:
			k.Kept = d.there
			w.remember(d.entry, k)
		case h.Can && (answer == ChooseSource || still && !before):
			k.Digest, k.Target = "", at[en.Marker]
			w.known[d.entry], w.revise[d.entry] = k, true
		case len(w.held.Entries) < mostHeld: // the others are found again when these are decided
			w.held.Entries = append(w.held.Entries, h)
		}
	}
	return nil
}

// healed looks whether entries that were revised are now as wanted, and holds those that are not: a target may have its own
// way with them. It is asked once, so that nothing is written again and again.
func (e *Engine) healed(ctx context.Context, w *work, after desk.Record) error {
	if len(w.revise) == 0 {
		return nil
	}
	seen, err := certificate.ReadTarget(ctx, e.Target, e.mig.ID, after)
	if err != nil {
		return err
	}
	for _, d := range e.compareThread(w, seen) {
		if w.revise[d.entry] {
			w.held.Entries = append(w.held.Entries, heldEntry{Entry: d.entry, Digest: entryDigest(e.original(w, d.entry)), Differs: d.what, There: d.there, Can: d.can})
		}
	}
	return nil
}

// shown is the digest of what a target shows of the entry with this marker.
func (e *Engine) shown(ctx context.Context, now desk.Record, marker string) (string, error) {
	now.Entries = slices.DeleteFunc(slices.Clone(now.Entries), func(en desk.Entry) bool { return en.Marker != marker })
	seen, err := certificate.ReadTarget(ctx, e.Target, e.mig.ID, now)
	return thereDigest(seen.Entries), err
}

// relink carries out the decision which one of several records of the target it is. The others are left to people.
func (e *Engine) relink(ctx context.Context, w *work) (adopted bool, err error) {
	a := w.heldBefore.Answer
	if a == nil || !w.heldBefore.Doubled || a.Choice != ChooseLink || a.Value.First() == w.row.Target {
		return false, nil
	}
	if w.claimed == "" {
		if err := e.claim(ctx, w, nil); err != nil {
			return false, err
		}
	}
	w.row.Target, w.row.How, w.row.Fields = a.Value.First(), "decided", nil
	if e.TargetSide.EntryMarker == "" {
		return true, nil // nothing could show which entries are there: whoever linked it says that they are
	}
	return true, e.forget(ctx, w)
}

// untraced returns the fields that are held because their value in the target was changed without a trace, and still is that
// one: they stay a person's to decide.
func (h Held) untraced(now desk.Record) map[desk.Field]bool {
	out := map[desk.Field]bool{}
	for _, f := range h.Fields {
		if f.Untraced && now.Fields[f.Field].Digest() == f.TargetDigest {
			out[f.Field] = true
		}
	}
	return out
}

// entry finds what is held of an entry in just these two versions, and the answer to it.
func (h Held) entry(x heldEntry) (before bool, answer Choice) {
	i := slices.IndexFunc(h.Entries, func(y heldEntry) bool { return y.Entry == x.Entry && y.Digest == x.Digest && y.There == x.There })
	if i < 0 {
		return false, ""
	}
	if d := h.Entries[i].Decision; d != nil {
		return true, d.Choice
	}
	return true, ""
}

// reason says in one sentence what waits.
func (h heldEntry) reason() string {
	name := difference{entry: h.Entry}.name()
	switch {
	case h.Differs == "":
		return fmt.Sprintf("%s changed in the source, and the target cannot change entries", name)
	case h.Can:
		return fmt.Sprintf("%s differs in the target (%s), and it is open who changed it", name, h.Differs)
	}
	return fmt.Sprintf("%s differs in the target (%s), and nothing but a person can set it right", name, h.Differs)
}

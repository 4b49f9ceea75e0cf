package delta

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// What in the target is of our making, and what of its people's: invariant 4, where a writer was cut off or the ledger is of an
// earlier day.

// noteEntries remembers what a write says, and what a thread shows.
//
// An entry that the thread shows and the ledger does not know was written by somebody who was cut off, or before the ledger
// was restored: perhaps from what the source said then. Where it differs from what the source says now it is remembered as
// another one, so that it is revised.
func (e *Engine) noteEntries(w *work, written desk.Written, thread []desk.Entry) {
	there := map[string]desk.Entry{}
	for _, en := range thread {
		if en.Marker != "" {
			there[en.Marker] = en
		}
	}
	for _, en := range w.want.Entries {
		k, known := w.known[en.ID]
		id, wrote := written.Entries[en.Marker]
		t, shown := there[en.Marker]
		switch {
		case known && shown && k.Target != "" && k.Target != t.ID && !slices.ContainsFunc(thread, func(x desk.Entry) bool { return x.ID == k.Target }):
			k.Target, k.Again = t.ID, true // it was lost, and added again by a writer who was cut off
			w.remember(en.ID, k)
		case known && k.Target != "", !wrote && !shown:
		case known:
			k.Target = cmpOr(id, t.ID)
			w.remember(en.ID, k)
		case wrote:
			w.remember(en.ID, newEntryRow(en, id))
			w.touched = append(w.touched, en.ID)
		default:
			w.remember(en.ID, foundEntryRow(en, t))
		}
	}
	if e.TargetSide.EntryMarker == "" && e.TargetSide.KeepsTimes {
		w.noteByTime(thread)
	}
}

// noteBrought remembers entries that a writer of ours, cut off, brought and that the source no longer has in this ticket.
func (e *Engine) noteBrought(w *work, thread []desk.Entry) {
	if w.before == nil {
		return
	}
	for _, t := range thread {
		id := e.entryOf(t.Marker)
		if _, known := w.known[id]; t.Marker != "" && !known && slices.Contains(w.before.Brings, id) {
			w.remember(id, entryRow{Target: t.ID, Digest: wordsDigest(t), Private: !t.Public})
		}
	}
}

// noteByTime recognises entries in a target that shows no markers and keeps times: what people write there has the time at
// which they wrote it, so an entry that says the same and carries the time that the source knows is ours. Each stands for one.
// A ledger of an earlier day may not know either what the source said when it was copied: then one with the same time and
// other words may be ours or people's, and somebody is asked. Whoever answers that it is there means the only one of that time,
// whose words the source may have changed since.
func (w *work) noteByTime(thread []desk.Entry) {
	used := map[string]bool{}
	for _, k := range w.known {
		used[k.Target] = true
	}
	match := func(is func(en, t desk.Entry) bool, found func(en, t desk.Entry)) {
		for _, en := range w.want.Entries {
			if _, known := w.known[en.ID]; known {
				continue
			}
			for _, t := range thread {
				if !used[t.ID] && is(en, t) {
					used[t.ID] = true
					found(en, t)
					break
				}
			}
		}
	}
	same := func(en, t desk.Entry) bool { return t.At.Truncate(time.Second).Equal(en.At.Truncate(time.Second)) }
	match(func(en, t desk.Entry) bool { return alike(en, t) && (same(en, t) || isNote(en.ID)) },
		func(en, t desk.Entry) { w.remember(en.ID, foundEntryRow(en, t)) })
	if w.answeredThere() {
		match(func(en, t desk.Entry) bool {
			return slices.Contains(w.heldBefore.Doubtful, en.ID) && same(en, t) && !slices.ContainsFunc(thread, func(x desk.Entry) bool { return x.ID != t.ID && !used[x.ID] && same(en, x) })
		}, func(en, t desk.Entry) { w.remember(en.ID, foundEntryRow(en, t)) })
	}
	if w.ofEarlierDay() {
		match(same, func(en, _ desk.Entry) {
			if !slices.Contains(w.open, en.ID) {
				w.open = append(slices.Clip(w.open), en.ID)
			}
		})
	}
}

// answeredThere tells whether a person said that the entry in doubt is in this target.
func (w *work) answeredThere() bool {
	a := w.heldBefore.Answer
	return a != nil && a.Choice == ChooseLink && slices.Contains(w.heldBefore.Candidates, w.row.Target)
}

// noteShown remembers how the target shows the entries that were written, where that is not quite what was sent: it is the
// base against which changes by the target's people are told.
func (e *Engine) noteShown(w *work, after desk.Record) {
	touched := map[string]string{}
	for _, id := range w.touched {
		touched[e.marker(id)], touched[w.known[id].Target] = id, id
	}
	for _, t := range after.Entries {
		id, ok := touched[cmpOr(t.Marker, t.ID)]
		if !ok {
			continue
		}
		k := w.known[id]
		k.seen(wordsDigest(t))
		k.Target = t.ID
		w.remember(id, k)
	}
}

// doubted takes out of the missing entries those of which it is open whether a cut-off writer of ours has added them, in a
// target that cannot show which entries are ours. A person says whether they are there, and answers for just these and for just
// this target; all others go through.
func (e *Engine) doubted(w *work, missing []desk.Entry) []desk.Entry {
	a := w.heldBefore.Answer
	var open, ask []string
	rest := slices.DeleteFunc(missing, func(en desk.Entry) bool {
		asked := a != nil && slices.Contains(w.heldBefore.Doubtful, en.ID) && slices.Contains(w.heldBefore.Candidates, w.row.Target)
		switch {
		case !slices.Contains(w.open, en.ID), asked && a.Choice == ChooseCreate && w.unspent():
			return false
		case asked && a.Choice == ChooseLink:
			w.remember(en.ID, newEntryRow(en, "")) // and open until that is committed
		default:
			ask = append(ask, en.ID)
		}
		open = append(open, en.ID)
		return true
	})
	for _, id := range w.open { // one that has left the ticket may come back
		_, known := w.known[id]
		if has := slices.ContainsFunc(w.want.Entries, func(en desk.Entry) bool { return en.ID == id }); !has && !known {
			open = append(open, id)
		}
	}
	w.open = open
	if len(ask) > 0 { // one question at a time: an answer is for one entry
		w.held.Doubt = fmt.Sprintf("entry %s may have been added already (an answer was lost, or the ledger is of an earlier day), and this target cannot show which entries are ours", ask[0])
		w.held.Doubtful, w.held.Candidates = ask[:1], []string{w.row.Target}
	}
	return rest
}

// tellOurs finds out which fields and entries of the target are as a cut-off writer of ours left them, so that its half-done
// work is not taken for the work of people: those that say what it intended (unless the desk says that it was people who set
// it), and fields in which, as the desk says, nobody else had the last word (a desk may move fields by itself when an entry
// arrives). They become a base that only the source has left. A desk that does not tell who had the last word cannot tell
// either that people put back what was there before a write of ours whose answer was lost: there it is written again. Of an
// entry that was about to be revised whatever it says is taken for ours: a desk may write it its own way.
func (e *Engine) tellOurs(w *work, now desk.Record, others bool) {
	fields := maps.Clone(w.row.Fields)
	if fields == nil {
		fields = map[desk.Field]base{}
	}
	ours, moved := map[desk.Field]bool{}, w.before.Lock != "" && now.Lock != w.before.Lock
	for f, b := range w.before.Intent {
		theirs, t := b.Theirs, now.Fields[f].Digest()
		changed := !theirs || moved || t != b.Was
		was := b.Was
		b.Theirs, b.Was = false, ""
		switch {
		case t == b.tgt() && (theirs || !now.Touched[f]):
			fields[f], ours[f], w.recovered = b, true, true
			w.ours = append(w.ours, f)
			if d, ok := w.heldBefore.decisions()[f]; ok && d.Source == b.Src && !d.says(t, b.Src) {
				fields[f] = base{Src: "cut off", Tgt: "cut off", Ask: true} // somebody has answered again since, and had not seen this
			}
		case now.Touched[f] && changed && t == fields[f].tgt() && t != w.want.Fields[f].Digest():
			// It took effect, and people put back what was there; or it did not, and they tried something. Somebody has to say.
			fields[f] = base{Src: "cut off", Tgt: "cut off", Ask: true}
			ours[f] = true
		case now.Touched[f] && theirs && moved && t == was: // the same behind an answer that was about what they put back
			w.heldBefore.spend(f)
		}
	}
	for f, put := range w.before.Puts {
		if b, based := fields[f]; put != "" && put == now.Fields[f].Digest() && put != b.tgt() { // kept in mind for longer than this claim is
			fields[f] = b.leaving(put, based)
		}
	}
	for f := range w.want.Fields {
		t := now.Fields[f].Digest()
		switch {
		case t != "" && t == fields[f].Left: // written again as it was: whoever set it before
		case ours[f]:
		case now.Touched != nil && !now.Touched[f] && !fields[f].Kept && !others && !w.run.adopted(): // a ledger of an earlier day does not know what was put back
			if b, based := fields[f]; !based || t != b.tgt() {
				fields[f] = base{Src: "cut off", Tgt: t}
				w.ours = append(w.ours, f)
			}
		}
	}
	w.row.Fields = fields
	e.tellRevised(w, w.before, now)
}

// tellRevised is tellOurs for the entries that a cut-off writer of ours was about to revise.
func (e *Engine) tellRevised(w *work, c *claim, now desk.Record) {
	for id, public := range c.Revised {
		k, known := w.known[id]
		i := slices.IndexFunc(now.Entries, func(en desk.Entry) bool { return en.Marker == e.marker(id) || en.ID == k.Target })
		unchanged := slices.ContainsFunc(w.want.Entries, func(en desk.Entry) bool { return en.ID == id && k.says(en) })
		if !known || i < 0 || unchanged && w.it.Heal { // what it says may be the harm that was about to be healed
			continue
		}
		if shown := wordsDigest(now.Entries[i]); shown != cmpOr(k.Shown, k.Digest) && slices.Contains(c.Words, id) {
			k.Digest, k.Files, k.Shown, k.Unseen, k.Left = shown, "", "", false, false // what was written then, of which the source may say something else by now
		}
		if now.Entries[i].Public == public && slices.Contains(c.Turns, id) {
			k.Private, k.Turned = !public, false
		}
		w.remember(id, k)
	}
}

// unclear marks fields that a cut-off writer of ours was about to write and that say neither what it intended nor what they
// said before: the desk may have written our value its own way, or people may have come in between. Either way the source has
// moved since, also where it says again what it said before. A policy that leaves such a field to the target would leave it
// there for good, so it is asked.
func (e *Engine) unclear(w *work, now desk.Record) {
	fields := maps.Clone(w.row.Fields)
	if fields == nil {
		fields = map[desk.Field]base{}
	}
	for f := range w.want.Fields {
		t := now.Fields[f].Digest()
		b, based := fields[f]
		i, intended := w.before.Intent[f]
		wins := e.mig.conflict(f) == TargetWins
		switch {
		case !based && t != "" && t == w.want.Fields[f].Digest(): // whoever set it, both say the same now
			fields[f] = newBase(t, t)
		case w.before.Create && !based && t == "" && now.Touched[f] && f.Points() == "": // people have emptied it
			fields[f] = base{Src: "cut off", Tgt: "cut off", Ask: wins}
		case f == desk.Started, f == desk.Resolved, t == "", t == w.want.Fields[f].Digest():
		case intended && based && t != i.tgt() && t != b.tgt():
			b.Src, b.Ask = "cut off", wins
			fields[f] = b
		case wins && !based && (intended || w.before.Create):
			fields[f] = base{Src: "cut off", Tgt: "cut off", Ask: true}
		}
	}
	w.row.Fields = fields
}

// unread is tellOurs, unclear and unsure for a record that has left the source: should it come back, nobody knows any more what an
// open create or write was to say, nor what a ledger of an earlier day did not know. What the target says then never counts as what
// people left there for good.
func (e *Engine) unread(w *work, now desk.Record, others bool) {
	if w.ofEarlierDay() {
		fields := maps.Clone(w.row.Fields)
		for f, b := range fields {
			if t := now.Fields[f].Digest(); t != b.tgt() && f.Points() != desk.Ticket && f != desk.Started && f != desk.Resolved {
				fields[f] = base{Src: "unknown", Tgt: "unknown", Ask: true}
			}
		}
		w.row.Fields = fields
	}
	if !w.takenOver {
		return
	}
	e.tellOurs(w, now, others)
	fields := w.row.Fields
	for f, i := range w.before.Intent {
		b, based := fields[f]
		if t := now.Fields[f].Digest(); based && !i.Event && t != "" && t != i.tgt() && t != b.tgt() {
			b.Src, b.Ask = "cut off", e.mig.conflict(f) == TargetWins
			fields[f] = b
		}
	}
	for f, v := range now.Fields {
		if _, based := fields[f]; !w.before.Create || based || len(v) == 0 || f == desk.Started || f == desk.Resolved {
			continue
		}
		fields[f] = base{Src: "cut off", Tgt: "cut off", Ask: e.mig.conflict(f) == TargetWins}
		if now.Touched != nil && !now.Touched[f] {
			fields[f] = base{Src: "cut off", Tgt: v.Digest()}
		}
	}
}

// adopted tells whether a run has adopted what was in the target.
func (r *Run) adopted() bool { return !r.Adopted.IsZero() }

// ofEarlierDay tells whether the ledger's row may be of an earlier day: the run adopts what is in the target, or one did, and this
// record has not been carried out since (it was deleted that day, or in no scope).
func (w *work) ofEarlierDay() bool {
	return w.run.Adopt || w.forgotten || w.run.adopted() && len(w.row.Trail) > 0 && !slices.ContainsFunc(w.row.Trail, func(t Trace) bool {
		return t.Outcome != OutFailed && !t.Blind && (t.Run == w.run.AdoptedBy || !t.At.Before(w.run.Adopted))
	})
}

// unsure marks the fields of an adopted record that say neither what the source says nor what the ledger knows of our last
// write: a ledger of an earlier day cannot tell whether people set (or emptied) them or we did since. So it is asked. Of links that
// is so only where one is missing that could be drawn and was: they come one after the other, as their other ends arrive.
func (e *Engine) unsure(w *work, now desk.Record) {
	fields := maps.Clone(w.row.Fields)
	if fields == nil {
		fields = map[desk.Field]base{}
	}
	for f, v := range w.want.Fields {
		b, based := fields[f]
		switch t := now.Fields[f].Digest(); {
		case t == v.Digest(), f == desk.Started, f == desk.Resolved, based && t == b.tgt() && !now.Touched[f]:
		case f.Points() == desk.Ticket && (!based || !slices.ContainsFunc(v, func(to string) bool { return !slices.Contains(now.Fields[f], to) })):
		case !based && t == "" && now.Touched != nil && !now.Touched[f]: // never written
		default:
			fields[f] = base{Src: "unknown", Tgt: "unknown", Ask: true}
		}
	}
	w.row.Fields = fields
}

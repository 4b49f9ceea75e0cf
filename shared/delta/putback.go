package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// putBack gives a record that was there before the run the values back that the run changed.
func (e *Engine) putBack(ctx context.Context, w *work, images []image, lost int) error {
	var left []string
	if lost > 0 {
		left = append(left, fmt.Sprintf("%d of its before-images are no longer there", lost))
	}
	there := images[:0:0]
	for _, im := range images {
		switch {
		case im.Final != "":
			left = append(left, im.Final+", which cannot be taken back")
		case im.Target == w.row.Target:
			there = append(there, im)
		default:
			left = append(left, fmt.Sprintf("the run wrote to target %s, which the record no longer is", im.Target))
		}
	}
	if w.row.Target == "" {
		w.concludes(nil, left)
		return nil
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	switch {
	case errors.Is(err, desk.ErrNotFound) && len(left) == 0:
		w.finish(OutUnchanged, "it is no longer in the target")
		return nil
	case errors.Is(err, desk.ErrNotFound):
		w.concludes(nil, left)
		return nil
	case err != nil:
		return fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
	case now.Ref.ID != w.row.Target:
		w.concludes(nil, append(left, fmt.Sprintf("it was merged into %s in the target", now.Ref.ID)))
		return nil
	}
	if w.takenOver && w.before.Undo != w.run.Undoes {
		others, err := e.holdsOthers(ctx, w, now)
		if err != nil {
			return err
		}
		e.unread(w, e.untagged(w, now), others) // of what another run was about to write nobody knows any more when this claim ends
	}
	if ids := addedEntries(w, there); len(ids) > 0 {
		left = append(left, fmt.Sprintf("entries that the run added stay, because no desk takes an entry back (%s)", strings.Join(ids, ", ")))
	}
	b := backing{values: desk.Fields{}, write: desk.Fields{}, was: map[desk.Field]base{}, intent: map[desk.Field]base{}}
	left = append(left, b.planFields(e, w, there, now)...)
	if ids := e.revisedEntries(w, there, now); len(ids) > 0 {
		left = append(left, fmt.Sprintf("entries that the run revised stay as they are, because the source may have redacted or hidden what they said (%s)", strings.Join(ids, ", ")))
	}
	if w.run.Dry || len(b.names) == 0 {
		w.concludes(b.names, left)
		if own := w.before != nil && w.before.Undo == w.run.Undoes; !own || w.run.Dry {
			return nil
		}
		w.done, w.row.Claim = false, nil // of an attempt of ours, after which people have changed all it was to put back
		return e.closeUndo(ctx, w)
	}
	if err := e.makeDue(ctx, w.run.Scope, w.undone()); err != nil {
		return err
	}
	if err := e.claim(ctx, w, b.intent); err != nil {
		return err
	}
	is, err := e.writeBack(ctx, w, b, now)
	if err != nil {
		return err
	}
	w.row.Fields = maps.Clone(w.row.Fields)
	if w.row.Fields == nil {
		w.row.Fields = map[desk.Field]base{}
	}
	if tags, ok := b.values[desk.Tags]; ok {
		if w.row.Tag = b.tag; !slices.Contains(tags, e.mig.EventTag) {
			w.row.Tag = ""
		}
	}
	before, after := e.untagged(w, desk.Record{Fields: b.values}), e.untagged(w, is)
	for f := range b.values {
		t := before.Fields[f].Digest()
		switch was, based := b.was[f]; {
		case !based:
			delete(w.row.Fields, f)
		case was.tgt() == t: // changed in the source only, and this is how the target writes the old value now
			was.Same, was.Tgt = false, after.Fields[f].Digest()
			w.row.Fields[f] = was
		default: // somebody had changed it before the run did: both sides have, and it is asked again
			was.Kept, was.Left = true, t
			w.row.Fields[f] = was
		}
	}
	w.row.Gone = "" // if it has left the source, that is carried over again
	for _, im := range there {
		if im.Event {
			w.row.Into, w.row.Apart = im.Into, im.Apart
			break
		}
	}
	w.wrote = b.names
	w.concludes(b.names, left)
	w.done = false
	w.row.Began, w.row.Attempts = time.Time{}, nil
	if len(w.open) > 0 {
		// An earlier writer may have added entries that this target cannot show: whoever comes next still has to ask.
		c := *w.row.Claim
		c.Until, c.Intent, c.Undo, w.row.Claim = e.Now().UTC(), nil, "", &c
	} else {
		w.row.Claim = nil
	}
	return e.closeUndo(ctx, w)
}

// backing is what is put back into one record.
type backing struct {
	names  []string    // of fields
	values desk.Fields // as they are to be; write are those that are not yet, because an attempt of ours was cut off
	write  desk.Fields
	was    map[desk.Field]base // the ledger's bases before the run; fields that had none are left out
	intent map[desk.Field]base
	tag    tagged // whether the event tag was ours
}

// planFields finds out which fields still say what the run wrote, and what they said before; it returns what stays.
func (b *backing) planFields(e *Engine, w *work, images []image, now desk.Record) (left []string) {
	all := map[desk.Field]bool{}
	for _, im := range images {
		for f := range im.Fields {
			all[f] = true
		}
	}
	bare := e.untagged(w, now)
	for _, f := range slices.Sorted(maps.Keys(all)) {
		im, wrote := fieldBefore(images, f)
		// The ledger knows how the target writes what was meant, unless it is what was left to the target's people, or they have come to
		// say since what the source says, which the run had not written.
		theirs := func(have base) bool { return have.Kept || have.tgt() == have.Src && wrote.tgt() != wrote.Src }
		if have, ok := w.row.Fields[f]; ok && (have.Src == wrote.Src || have.Event && wrote.Src == "gone") && !theirs(have) {
			wrote = have
		}
		before, t := im.Fields[f].Digest(), now.Fields[f].Digest()
		half := false
		if w.before != nil && w.before.Undo == w.run.Undoes {
			meant, written := w.before.Intent[f]
			half = written && meant.tgt() == t && before == t
		}
		switch {
		case half: // our own doing, before a cut-off
		case t == before:
			continue // never written, or set back by people: both are as they should be
		case t == wrote.tgt(), bare.Fields[f].Digest() == wrote.tgt(): // the ledger knows the tags without the event tag
			b.write[f] = im.Fields[f]
		default:
			left = append(left, string(f)+" was changed since")
			continue
		}
		b.names = append(b.names, string(f))
		b.values[f] = im.Fields[f]
		if f == desk.Tags {
			b.tag = im.Tag
		}
		if was, ok := im.Base[f]; ok {
			b.was[f] = was
		}
		b.intent[f] = base{Src: b.was[f].Src, Tgt: before}
	}
	return left
}

// fieldBefore returns the image that knows what a field said before the run touched it, and what the run meant it to say in
// the end. An attempt that was cut off left its own value behind; the image of the next one says so.
func fieldBefore(images []image, f desk.Field) (im image, wrote base) {
	for i, x := range slices.Backward(images) {
		if _, ok := x.Fields[f]; !ok {
			continue
		}
		if im.Fields == nil {
			wrote = x.Intent[f]
		}
		im = x
		older := slices.ContainsFunc(images[:i], func(y image) bool { _, ok := y.Fields[f]; return ok })
		if !slices.Contains(x.Ours, f) || !older {
			break
		}
	}
	return im, wrote
}

// revisedEntries returns the source's ids of entries that the run revised.
func (e *Engine) revisedEntries(w *work, images []image, now desk.Record) []string {
	shown := map[string]string{}
	for _, en := range now.Entries {
		shown[en.ID], shown[en.Marker] = shownDigest(en), shownDigest(en)
	}
	var ids []string
	for _, im := range images {
		for _, r := range im.Revised {
			is := cmpOr(shown[e.marker(r.ID)], shown[w.known[r.ID].Target])
			if is != r.Shown && !slices.Contains(ids, r.ID) { // else it was never written
				ids = append(ids, r.ID)
			}
		}
	}
	return few(ids)
}

// writeBack writes what is to be put back, and returns what the record looks like afterwards. Once something has been
// written the claim stays until the ledger says so, also after an error: it tells our half-done work from that of people.
func (e *Engine) writeBack(ctx context.Context, w *work, b backing, now desk.Record) (desk.Record, error) {
	if len(b.write) == 0 {
		return now, nil
	}
	written, err := e.Target.Apply(ctx, e.targetRef(w), desk.Change{Fields: b.write, Lock: now.Lock})
	w.losses = append(w.losses, written.Losses...)
	if err != nil {
		return now, e.partly(ctx, w, fmt.Errorf("put back target %s of %s: %w", w.row.Target, w.ref, err), len(b.write) == len(b.values))
	}
	if written.Now != nil {
		return *written.Now, nil
	}
	after, err := e.Target.Read(ctx, e.targetRef(w))
	if err != nil {
		return now, e.unclaim(ctx, w, fmt.Errorf("read back target %s of %s: %w", w.row.Target, w.ref, err), e.Now())
	}
	return after, nil
}

// addedEntries returns the source's ids of entries that the run added and that are there.
func addedEntries(w *work, images []image) []string {
	var ids []string
	for _, im := range images {
		for _, id := range im.Added {
			if _, there := w.known[id]; there && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return few(ids)
}

// few names the first things of a list: a row of the store has no room for thousands.
func few(all []string) []string {
	const most = 20
	if n := len(all) - most; n > 0 {
		all = append(slices.Clone(all[:most]), fmt.Sprintf("and %d more", n))
	}
	return all
}

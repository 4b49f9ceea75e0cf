package delta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// UndoKept is how long a run can be undone after it began. Before-images hold customers' words, so the store expires what is
// under undo/ at that age.
const UndoKept = 30 * 24 * time.Hour

// image is what a record of the target was before a run wrote to it: enough to put back what the run changed. It holds
// customers' words, so it is an object under undo/ and never a row.
type image struct {
	Ref    desk.Ref `json:"ref"` // in the source
	Target string   `json:"target"`
	// Fields that are about to be written, as they are; Base, what the ledger knew of them; Intent, what they are to say.
	Fields desk.Fields         `json:"fields,omitempty"`
	Base   map[desk.Field]base `json:"base,omitempty"`
	Intent map[desk.Field]base `json:"intent,omitempty"`
	// Ours are fields that already say what an earlier attempt made of them, and died: an older image knows what they said.
	Ours []desk.Field `json:"ours,omitempty"`
	// Revised are entries that are about to be changed, Added the source's ids of those about to be added.
	Revised []revised `json:"revised,omitempty"`
	Added   []string  `json:"added,omitempty"`
	// Tag is whether the event tag was ours.
	Tag tagged `json:"tag,omitempty"`
	// Event: the write carries a deletion, spam verdict or merge over; the others are what the ledger said of such things
	// before.
	Event bool   `json:"event,omitempty"`
	Into  string `json:"into,omitempty"`
	Apart bool   `json:"apart,omitempty"`
	// Final says what is about to happen that no desk takes back.
	Final string `json:"final,omitempty"`
}

// revised is an entry that is about to be changed. What it says is not kept: the source may have redacted it.
type revised struct {
	ID    string `json:"id"`              // the source's
	Shown string `json:"shown,omitempty"` // shownDigest of what the target shows before
}

// imageRow is one row per record that a run wrote to. Together they are what there is to undo.
type imageRow struct {
	Listed desk.Listed `json:"listed"`
	// Created: the run was about to create the record, so that whatever else it wrote to it went into something new.
	Created bool `json:"created,omitempty"`
	// Images are the digests of the record's images, oldest first. There is one, unless an attempt failed or was cut off and
	// the record moved before the next one.
	Images []string `json:"images,omitempty"`
}

func (e *Engine) imageObject(run, digest string) string {
	return fmt.Sprintf(undoPrefix+"%s/%s/%s.json", e.mig.ID, run, digest)
}

// before keeps what a record of the target is before this run writes to it. Its place is between the claim and the write:
// claim, then the image's object, then the row that names it, then the write. So whatever has been written has its image; an
// image whose write never happened is harmless, because undo looks at what is there.
func (e *Engine) before(ctx context.Context, w *work, im image) error {
	if im.Ref == w.ref {
		w.row.Wrote = w.run.ID
	}
	if !w.run.Images {
		return nil
	}
	digest := digestJSON(im)
	if _, err := update(ctx, e, e.imageKey(w.run.ID, im.Ref), func(row *imageRow) error {
		if row.Listed = (desk.Listed{Ref: im.Ref}); w.it.Ref == im.Ref {
			row.Listed = w.it.Listed
		}
		switch n := len(row.Images); {
		case row.Created && im.Final == "", n > 0 && row.Images[n-1] == digest:
			return errKeep
		case im.Target == "": // of what is not there yet there is nothing to keep
			row.Created = true
			return nil
		}
		row.Images = append(row.Images, digest)
		return e.keepObject(ctx, e.imageObject(w.run.ID, digest), im)
	}); err != nil {
		return fmt.Errorf("keep what %s is before run %s writes to it: %w", im.Ref, w.run.ID, err)
	}
	return nil
}

// images returns what was kept of a record, oldest first, and how many images are no longer there.
func (e *Engine) images(ctx context.Context, run string, row imageRow) (out []image, lost int, err error) {
	for _, digest := range row.Images {
		im, err := readObject[image](ctx, e, e.imageObject(run, digest))
		if errors.Is(err, ErrNoObject) {
			lost++
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read a before-image of %s: %w", row.Listed.Ref, err)
		}
		out = append(out, im)
	}
	return out, lost, nil
}

// imageOf makes the image for changes to w's own record: of the fields that will say something else, and of the entries to be
// added. The tags are those that the target shows, the event tag among them.
func imageOf(w *work, todo []desk.Change, now desk.Record, tags desk.Value) image {
	im := newImage(w.ref, w.row)
	for _, ch := range todo {
		for _, en := range ch.Entries {
			im.Added = append(im.Added, en.ID)
		}
		for f, v := range ch.Fields {
			is := now.Fields[f]
			if f == desk.Tags {
				is = tags
			}
			if v.Equal(is) {
				continue // written again as it is, because desks move it when an entry arrives
			}
			im.sets(f, is, newBase(w.want.Fields[f].Digest(), v.Digest()), w.row)
			if slices.Contains(w.ours, f) {
				im.Ours = append(im.Ours, f)
			}
		}
	}
	slices.Sort(im.Ours)
	return im
}

// imageOfEvent makes the image for a write that carries an event over: fields that are about to say left.
func imageOfEvent(ref desk.Ref, row ledgerRow, now desk.Record, left desk.Fields) image {
	im := newImage(ref, row)
	im.Event, im.Into, im.Apart = true, row.Into, row.Apart
	for f, v := range left {
		im.sets(f, now.Fields[f], base{Src: "gone", Tgt: v.Digest()}, row)
	}
	return im
}

func newImage(ref desk.Ref, row ledgerRow) image {
	return image{Ref: ref, Target: row.Target, Tag: row.Tag, Fields: desk.Fields{}, Base: map[desk.Field]base{}, Intent: map[desk.Field]base{}}
}

func (im *image) sets(f desk.Field, is desk.Value, intent base, row ledgerRow) {
	im.Fields[f], im.Intent[f] = is, intent
	if b, ok := row.Fields[f]; ok {
		im.Base[f] = b
	}
}

// revises notes that an entry is about to be changed.
func (im *image) revises(c copied) {
	r := revised{ID: c.id}
	if c.tgt != nil {
		r.Shown = shownDigest(*c.tgt)
	}
	im.Revised = append(im.Revised, r)
}

// shownDigest is of what a revision can change of an entry, as the target shows it.
func shownDigest(en desk.Entry) string { return digestJSON([]any{en.Public, wordsDigest(en)}) }

// restOf is of the fields of which the ledger keeps no base.
func restOf(now desk.Record, fields map[desk.Field]base) string {
	rest := desk.Fields{}
	for f, v := range now.Fields {
		if _, ours := fields[f]; !ours && len(v) > 0 {
			rest[f] = v
		}
	}
	return digestJSON(rest)
}

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

// takenText is what a copy says whose original is no longer in its ticket.
const takenText = "[This entry is no longer part of this ticket in the previous help desk.]"

// emptied tells whether an entry of the target is such a copy.
func emptied(en desk.Entry) bool {
	return wordsDigest(en) == wordsDigest(desk.Entry{Body: takenText})
}

// copied is one entry that was copied, as all sides see it.
type copied struct {
	id    string
	known entryRow
	src   *desk.Entry // nil: the source no longer has it in this ticket
	tgt   *desk.Entry // nil: the target's thread does not show it …
	sure  bool        // … and would if it were there
	moved bool        // the source has it in another ticket
	can   bool        // the target can change it
	// unsure: the ledger is of an earlier day, and may not know of our last write.
	unsure bool
	// answer is what a person decided about it; the zero Decision if nobody did.
	answer Decision
	// harm is what a verification found, nil where none was asked to heal.
	harm *harm
}

// fate is what becomes of a copied entry.
type fate struct {
	row entryRow // what the ledger is to know of it afterwards
	// write is the entry as the target is to have it, nil where it stays. words tells that it brings the source's words and
	// files, not only another visibility.
	write *desk.Entry
	words bool
	turn  bool     // it brings the source's visibility
	ask   []string // why somebody must decide
	// kept: a policy leaves a copy that says or shows something else than the source. theirs: the target's people do.
	kept, theirs bool
	// stale: what was copied must not stay in other tickets of the target either.
	stale bool
	// marks are what policies do to the ticket instead.
	marks []OnEvent
	// again: it is lost in the target, and is to be added once more.
	again bool
}

// judge decides what becomes of an entry that was copied. Words (with the files) and visibility are compared three ways, each
// by itself, like fields (see merge); the base is what both desks had after our last write.
//
//	changed only in the source   by policy: revised, split where the entry went to another ticket, privacy
//	changed only in the target   the target's people keep it
//	both, to the same            nothing
//	both, differently            a person decides
//
// No desk tells an edit from a redaction, so they are one event. Two rules keep an entry from becoming more public than
// somebody meant: words that are private in the source are never written into an entry that the target shows, and what the
// target's people made private is not made public without asking, also where the source had followed them meanwhile.
// It is pure.
func (p Policies) judge(c copied) fate {
	k, out := c.known, fate{row: c.known}
	c.unsure, out.row.Ask = c.unsure || k.Ask, false
	digest, files, public := taken, "", !k.Private
	if c.src != nil {
		digest, files, public = wordsDigest(*c.src), filesDigest(*c.src), c.src.Public
	}
	base := cmpOr(k.Shown, k.Digest)
	shown, visible := base, !k.Private != k.Turned
	if c.tgt != nil {
		shown, visible = wordsDigest(*c.tgt), c.tgt.Public
	}
	if c.src != nil && c.tgt != nil && k.Shown == "" && k.says(*c.src) && alike(*c.src, *c.tgt) && base != shown {
		// Nobody has noted yet how the target shows it: it came with the create, or its writer was cut off. A size that the
		// source does not tell is no edit by people.
		base, out.row.Shown = shown, shown
	}
	if c.tgt != nil && k.Unseen { // its writer came no further: this is how the target shows it
		base = shown
		out.row.seen(shown)
	}
	changed, flipped := digest != k.Digest || files != k.Files, public == k.Private
	edited, turned := shown != base || c.harm != nil && c.harm.files != "", visible == k.Private
	choice := c.answer.Choice
	if c.answer.Source != sourceVersion(c) || choice == ChooseSource && c.answer.Target != targetVersion(c) {
		choice = "" // asked about something else
	}
	if c.tgt == nil && c.sure && c.harm != nil {
		return c.lost(choice)
	}
	if c.tgt == nil && c.sure { // the target's people took it out
		if changed || flipped {
			out.row.Digest, out.row.Files, out.row.Shown, out.row.Private = digest, files, "", !public
			out.row.Left, out.theirs = c.src != nil, c.src != nil
		}
		return out
	}
	keep := func() { // the words stay as they are in the target
		out.row.Digest, out.row.Files, out.row.Shown, out.row.Left = digest, files, "", true
		if shown != digest {
			out.row.Shown = shown
		}
	}
	byPolicy := func(policy OnEvent) {
		out.kept = true
		if policy == Tag || policy == Close {
			out.marks = append(out.marks, policy)
		}
	}
	there := "that entry"
	if c.tgt != nil {
		there = "entry " + c.tgt.ID
	}

	turn, own := false, !visible && (k.Own || !k.Turned) // if it turned, who turned it?
	switch {
	case choice == ChooseSource && c.can && visible != public:
		turn = true
	case !flipped && turned && c.unsure && !k.Turned && choice != ChooseTarget:
		out.row.Ask = true
		out.ask = append(out.ask, fmt.Sprintf("the source's entry %s and the target's %s differ in who can see them, and a ledger of an earlier day cannot tell whether people or this migration turned it", c.id, c.tgt.ID))
	case !flipped && !turned:
		out.row.Turned = false
	case !flipped && c.harm != nil && !k.Turned && c.harm.untraced && c.can:
		turn = true
	case !flipped && c.harm != nil && !k.Turned && choice != ChooseTarget:
		out.ask = append(out.ask, c.differs("visibility"))
	case !flipped:
		out.row.Own, out.row.Turned, out.theirs = own, true, !k.Turned
	case turned:
		out.row.Private, out.row.Own, out.row.Turned = !public, own, false
		out.stale = !public
	case choice == ChooseTarget:
		out.row.Private, out.row.Turned = !public, true
	case public && k.Own:
		out.ask = append(out.ask, fmt.Sprintf("entry %s became public in the source, and the target's people had made it private", c.id))
	case p.OnPrivacy != Mirror:
		byPolicy(p.OnPrivacy)
		out.row.Private, out.row.Turned = !public, true
	case !c.can && !public:
		out.ask = append(out.ask, fmt.Sprintf("entry %s became private in the source, and this target cannot hide entries: hide or remove %s there by hand", c.id, there))
	case !c.can:
		out.ask = append(out.ask, fmt.Sprintf("entry %s became public in the source, and this target cannot change entries: show %s there by hand", c.id, there))
	default:
		turn = true
	}
	if turn {
		visible = public
		out.row.Private, out.row.Own, out.row.Turned = !public, false, false
		out.stale = !public
	}

	policy := p.OnRevised
	if c.src == nil && c.moved {
		policy = p.OnSplit
	}
	switch {
	case !changed && edited && c.unsure && !k.Left && choice == "" && c.src != nil && c.tgt != nil && !alike(*c.src, *c.tgt):
		out.row.Ask = true
		out.ask = append(out.ask, fmt.Sprintf("the source's entry %s and the target's %s say different things, and a ledger of an earlier day cannot tell whether people or this migration wrote that", c.id, c.tgt.ID))
	case !changed && edited && c.harm != nil && choice == ChooseTarget:
		keep()
	case !changed && edited && c.harm != nil && c.can && (choice == ChooseSource || c.harm.untraced && !k.Left) && (public || !visible):
		out.words = true
	case !changed && edited && c.harm != nil && !k.Left:
		out.ask = append(out.ask, c.differs("text or files"))
	case !changed && edited: // the target's people did
		out.theirs, out.row.Left = out.theirs || !k.Left, true
	case !changed:
		out.row.Left = k.Left && shown != digest
	case c.src != nil && c.tgt != nil && alike(*c.src, *c.tgt) && (edited || files == k.Files || k.Files == "") && (c.harm == nil || c.harm.files == ""), c.src == nil && shown == wordsDigest(desk.Entry{Body: takenText}):
		keep()
		out.row.Left, out.stale = false, true
	case choice == ChooseTarget:
		keep()
	case choice == ChooseSource && c.can:
		out.words = true
	case edited:
		out.ask = append(out.ask, fmt.Sprintf("entry %s changed in the source, and people changed %s in the target", c.id, there))
	case c.src != nil && visible && !public:
		out.ask = append(out.ask, fmt.Sprintf("entry %s changed in the source, where it is private, and the target shows %s to the customer", c.id, there))
	case policy != Mirror || c.src == nil && c.moved && !c.can:
		byPolicy(policy)
		keep()
	case c.can:
		out.words = true
	case c.src == nil:
		out.ask = append(out.ask, fmt.Sprintf("entry %s is no longer in the source's ticket, and this target cannot change entries: remove %s there by hand", c.id, there))
	default:
		out.ask = append(out.ask, fmt.Sprintf("entry %s was changed or redacted in the source, and this target cannot change entries: change %s there by hand", c.id, there))
	}
	if out.words {
		out.row.Digest, out.row.Files, out.row.Shown, out.row.Unseen, out.row.Left = digest, files, "", true, false
		out.stale = true
	}
	if out.turn = turn; out.words || turn {
		out.write = c.written(visible, &out.words)
	}
	return out
}

// brings is k as it is when no more was done than is written.
func (f fate) brings(k entryRow) entryRow {
	if f.turn {
		k.Private, k.Own, k.Turned = f.row.Private, f.row.Own, f.row.Turned
	}
	if f.words {
		k.Digest, k.Files, k.Shown, k.Unseen, k.Left = f.row.Digest, f.row.Files, f.row.Shown, f.row.Unseen, f.row.Left
	}
	return k
}

// written is the entry as the target is to have it. Where only its visibility turns, words and files stay the target's.
func (c copied) written(public bool, words *bool) *desk.Entry {
	en := desk.Entry{ID: c.known.Target, Body: takenText, Type: "text/plain"}
	switch {
	case *words && c.src != nil, c.tgt == nil && c.src != nil:
		en, *words = *c.src, true
	case !*words:
		en = *c.tgt
	case c.tgt != nil:
		en.Author, en.At, en.Marker = c.tgt.Author, c.tgt.At, c.tgt.Marker
	}
	en.ID, en.Public = c.known.Target, public
	if c.tgt != nil {
		en.ID = c.tgt.ID
	}
	return &en
}

// sourceVersion and targetVersion are what a decision about an entry is bound to.
func sourceVersion(c copied) string {
	if c.src == nil {
		return taken
	}
	return digestJSON([]any{wordsDigest(*c.src), filesDigest(*c.src), c.src.Public})
}

func targetVersion(c copied) string {
	if c.tgt == nil {
		return ""
	}
	if c.harm != nil && c.harm.files != "" {
		return digestJSON([]any{wordsDigest(*c.tgt), c.tgt.Public, c.harm.files})
	}
	return digestJSON([]any{wordsDigest(*c.tgt), c.tgt.Public})
}

// compare looks at what the source and the target say now of the entries that were copied, and returns those that were not.
func (e *Engine) compare(w *work, now desk.Record) (add []desk.Entry, copies []copied) {
	byID, byMarker := map[string]*desk.Entry{}, map[string]*desk.Entry{}
	for i := range now.Entries {
		en := &now.Entries[i]
		byID[en.ID] = en
		if en.Marker != "" {
			byMarker[en.Marker] = en
		}
	}
	_, can := e.Target.(desk.Reviser)
	look := func(id string, src *desk.Entry) copied {
		k := w.known[id]
		c := copied{id: id, known: k, src: src, tgt: byMarker[e.marker(id)], answer: w.heldBefore.entry(id), unsure: w.ofEarlierDay()}
		if e.TargetSide.EntryMarker == "" {
			c.tgt = byID[k.Target]
		} else {
			c.sure = c.tgt == nil
		}
		c.can = can && (c.tgt != nil || k.Target != "")
		if h, found := w.heals[id]; found {
			c.harm = &h
		}
		return c
	}
	still := map[string]bool{}
	for i := range w.want.Entries {
		en := &w.want.Entries[i]
		still[en.ID] = true
		if _, ok := w.known[en.ID]; ok {
			copies = append(copies, look(en.ID, en))
		} else {
			add = append(add, *en)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.known)) {
		if !still[id] && !isNote(id) && w.known[id].Digest != taken {
			copies = append(copies, look(id, nil))
		}
	}
	return add, copies
}

// thread sees to the entries that were copied and returns those that are to be added. What has to become private or to go
// comes before anything else is written.
func (e *Engine) thread(ctx, intake context.Context, w *work, now desk.Record) (add []desk.Entry, err error) {
	add, copies := e.compare(w, now)
	var todo []copied
	for _, c := range copies {
		if c.src == nil {
			moved, wait, err := e.lostTo(ctx, w, c)
			if err != nil {
				return nil, err
			}
			if c.moved = moved; wait {
				w.unsettled = true
				continue
			}
		}
		todo = append(todo, c)
	}
	if err := e.revise(ctx, intake, w, now, todo); err != nil || len(w.again) == 0 {
		return add, err
	}
	add = nil // in the order of the thread
	for _, en := range w.want.Entries {
		if _, there := w.known[en.ID]; !there {
			add = append(add, en)
		}
	}
	return add, nil
}

// revise judges copied entries and carries out what is to be written. The claim says first which entries it is about, so that
// whoever takes it over can tell our half-done work from that of the target's people. Copies in other tickets come before the
// entry itself: once that one says what the source says, nothing asks for them any more.
func (e *Engine) revise(ctx, intake context.Context, w *work, now desk.Record, todo []copied) error {
	var fates []fate
	var of []copied
	var ids, words, turns []string
	revised := map[string]bool{}
	im := image{Ref: w.ref, Target: w.row.Target, Tag: w.row.Tag}
	for _, c := range todo {
		f := e.mig.judge(c)
		if len(f.ask) > 0 {
			h := heldEntry{Entry: c.id, Why: strings.Join(f.ask, "; "), Can: c.can || c.tgt == nil && c.sure, Heal: c.harm != nil, Source: sourceVersion(c), Target: targetVersion(c)}
			others, err := e.otherCopies(ctx, w, c)
			if err != nil {
				return err
			}
			for _, o := range others {
				h.Why += fmt.Sprintf("; target ticket %s has a copy of it (%s)", o.row.Target, o.k.Target)
			}
			w.held.Entries = append(w.held.Entries, h)
		}
		if f.theirs {
			w.out.Kept = append(w.out.Kept, "entry "+c.id)
		}
		if f.kept {
			w.losses = append(w.losses, keptCopy(c.id, w.ref))
			if err := e.tellMoved(ctx, w, c); err != nil {
				return err
			}
		}
		if w.marks = append(w.marks, f.marks...); f.kept { // an attempt that comes to nothing leaves it to the next one to say so
			if w.kept == nil {
				w.kept = map[string]entryRow{}
			}
			w.kept[c.id], f.row = f.row, f.brings(c.known)
		}
		switch {
		case f.again:
			delete(w.known, c.id) // until it is there
			if w.again == nil {
				w.again = map[string]bool{}
			}
			w.again[c.id] = true
			continue
		case f.write != nil:
			fates, of, ids = append(fates, f), append(of, c), append(ids, c.id)
			if revised[c.id] = f.write.Public; f.words {
				words = append(words, c.id)
			}
			if f.turn {
				turns = append(turns, c.id)
			}
			im.revises(c)
			continue
		case f.stale && c.can:
			if err := e.reviseCopies(ctx, w, c); err != nil {
				return err
			}
		}
		w.remember(c.id, f.row)
	}
	if len(fates) == 0 {
		return nil
	}
	w.revising, w.words, w.turns = revised, words, turns
	if err := e.ensure(ctx, w, nil); err != nil {
		return err
	}
	if err := e.before(ctx, w, im); err != nil {
		return err
	}
	for i, f := range fates {
		if intake.Err() != nil && i > 0 {
			return errLater
		}
		if i > 0 && now.Lock != "" {
			var err error
			if now, err = e.stillSays(ctx, w, of[i]); err != nil {
				return err
			}
		}
		if err := e.reviseOne(ctx, w, ids[i], f, now.Lock); err != nil {
			return err
		}
		if len(w.fresh) >= inline { // of many what is finished is kept as it grows
			if err := e.saveRow(ctx, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// stillSays reads the ticket again before another one of its entries is revised: our own revision has moved the lock, so the desk cannot
// tell any more whether people have come in between.
func (e *Engine) stillSays(ctx context.Context, w *work, c copied) (desk.Record, error) {
	now, err := e.Target.Read(ctx, e.targetRef(w))
	if err != nil {
		return now, fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
	}
	i := slices.IndexFunc(now.Entries, func(en desk.Entry) bool { return c.tgt != nil && en.ID == c.tgt.ID })
	if now.Ref.ID != w.row.Target || i >= 0 && shownDigest(now.Entries[i]) != shownDigest(*c.tgt) {
		return now, &desk.Error{Op: "revise entry " + c.id + " of " + w.ref.String(), Class: desk.ErrConflict, Said: "people came in between two revisions"}
	}
	return now, nil // one that people took out meanwhile the desk does not find
}

func (e *Engine) reviseOne(ctx context.Context, w *work, id string, f fate, lock string) error {
	en := *f.write
	en.Marker = e.marker(id)
	if f.words {
		one := []desk.Entry{en}
		one[0].ID, one[0].Files = id, slices.Clone(en.Files) // of the source, as its files are
		for i, sum := range w.heals[id].read {
			one[0].Files[i].SHA256 = cmpOr(one[0].Files[i].SHA256, sum) // else what was staged under this name before is taken for it
		}
		if err := e.stageFiles(ctx, w, one); err != nil {
			return err
		}
		en.Files = one[0].Files
	}
	if f.stale {
		if err := e.reviseCopies(ctx, w, copied{id: id, known: f.row}); err != nil {
			return err
		}
	}
	w.unanswered = true // until the desk has answered
	err := e.Target.(desk.Reviser).Revise(ctx, e.targetRef(w), en, lock)
	if errors.Is(err, desk.ErrNotFound) { // people took it out; or the ticket is no more, as the next reading tells
		w.unanswered, w.revised = false, true
		f.row.Left, f.row.Shown, f.row.Unseen = f.row.Digest != taken, "", false
		w.remember(id, f.row)
		w.out.Kept = append(w.out.Kept, "entry "+id)
		return nil
	}
	if err != nil {
		return fmt.Errorf("revise entry %s of %s: %w", id, w.ref, err)
	}
	w.unanswered = false
	w.remember(id, f.row)
	if w.revised = true; f.words { // else they are whoever's they were
		w.touched = append(w.touched, id)
	}
	w.wrote = append(w.wrote, "entry "+id+" revised")
	return nil
}

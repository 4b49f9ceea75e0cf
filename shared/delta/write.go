package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// carryOut writes one prepared record into the target.
//
// The claim comes before the first write and says what is intended; the row that says what came of it comes after the last
// one. A claim that is found later, by whoever comes next, therefore means: something may have happened. Then nothing is
// written before it was looked up (create) or the thread was read (entries). We do not pretend that a fence could stop a
// request that is already on its way: a claim is respected until its holder cannot be alive and its requests cannot be at
// work any more. The steps in their order are model: Claim, TakeOver, LookUp, Create, Apply, Commit.
func (e *Engine) carryOut(ctx, intake context.Context, w *work) error {
	if w.row.Held || w.row.Claim != nil { // a cut-off may have left a held row that the ledger does not know of
		if err := e.loadHeld(ctx, w); err != nil {
			return err
		}
	}
	if w.row.Target != "" {
		if err := e.settled(w.row); err != nil { // what a desk does not show yet is not people's work
			return err
		}
	}
	w.held = Held{Ref: w.ref, Run: w.run.ID, Scope: w.run.Scope}
	w.takeOver()
	if w.run.Dry {
		return e.rehearse(ctx, w)
	}
	if w.rec.Event == desk.Deleted || w.rec.Event == desk.Spam {
		return e.carryOutEvent(ctx, w)
	}
	if w.row.How == "fallback" {
		w.row.Target, w.row.How = "", "" // somebody stood in: look for the right one again
	}
	if w.row.Into != "" {
		if err := e.part(ctx, w); err != nil {
			return err
		}
		if w.row.Target == "" {
			if err := e.anew(ctx, w); err != nil {
				return e.release(ctx, w, err)
			}
		}
	}
	created, adopted := false, false
	var now desk.Record
	if w.row.Target == "" {
		e.adding(w, w.want.Entries[:min(1, len(w.want.Entries))])
		e.bringing(w, w.want.Entries)
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
		if err := e.fence(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
		if err := e.forget(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
		id, how, err := e.find(ctx, w, w.run.adopted() || w.takenOver)
		if err != nil {
			return e.release(ctx, w, err)
		}
		switch {
		case w.held.Doubt != "":
			return e.commit(ctx, w, OutHeld)
		case how == "fallback":
			w.row.Target, w.row.How = id, how
			w.digest = "" // looked at again by the next run
			return e.commit(ctx, w, OutUnchanged)
		case id != "":
			w.row.Target, w.row.How, adopted = id, how, true
			w.row.Unfinished = how == "found" && w.takenOver // our own create, whose answer was lost
			w.forgotten = how == "found" && w.run.adopted() && (w.before == nil || w.before.At.Before(w.run.Adopted))
		default:
			if now, err = e.make(ctx, w); err != nil {
				return err
			}
			created = true
		}
	}
	if !created {
		var err error
		now, err = e.Target.Read(ctx, e.targetRef(w))
		if errors.Is(err, desk.ErrNotFound) {
			return e.gone(ctx, w)
		}
		if err != nil {
			return e.release(ctx, w, fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err))
		}
	}
	return e.converge(ctx, intake, w, now, created, adopted)
}

func (e *Engine) targetRef(w *work) desk.Ref { return desk.Ref{Kind: w.ref.Kind, ID: w.row.Target} }

// between looks, before fields are written in a call that is not the first one, whether people have come in between: the first
// call has moved the lock, so the desk cannot tell any more. after is what the last call said of the record, if it did. What
// the desk itself moves when an entry arrives (the status) is put right by just this call.
func (e *Engine) between(ctx context.Context, w *work, now, after desk.Record, ch *desk.Change) error {
	if len(ch.Fields) == 0 || now.Lock == "" && after.Ref.ID == "" {
		return nil
	}
	if after.Ref.ID == "" {
		var err error
		if after, err = e.Target.Read(ctx, e.targetRef(w)); err != nil {
			return fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
		}
	}
	if after.Ref.ID != w.row.Target {
		return &desk.Error{Op: "write target " + w.row.Target, Class: desk.ErrConflict, Said: "people merged it between two calls"}
	}
	seen := e.untagged(w, after)
	for f := range ch.Fields {
		if seen.Fields[f].Equal(now.Fields[f]) || after.Touched == nil && f == desk.Status || after.Touched != nil && !after.Touched[f] {
			continue
		}
		return &desk.Error{Op: "write target " + w.row.Target, Class: desk.ErrConflict, Said: "people changed " + string(f) + " between two calls"}
	}
	ch.Lock = after.Lock
	if w.noteTheirs(seen) {
		return e.saveRow(ctx, w)
	}
	return nil
}

// noteTheirs notes which fields that are about to be written again as they are people have set: the desk names us afterwards as the
// one who had the last word, and they stay theirs. It tells whether the ledger has to be told.
func (w *work) noteTheirs(now desk.Record) (noted bool) {
	for f, put := range w.puts {
		b, based := w.row.Fields[f]
		if !now.Touched[f] || put == "" || put != now.Fields[f].Digest() || put == b.Left {
			continue
		}
		w.row.Fields = maps.Clone(w.row.Fields)
		if w.row.Fields == nil {
			w.row.Fields = map[desk.Field]base{}
		}
		w.row.Fields[f], noted = b.leaving(put, based), true
	}
	return noted
}

// make creates a record that is not in the target, nor with the tickets that were merged into it.
func (e *Engine) make(ctx context.Context, w *work) (desk.Record, error) {
	if err := e.gain(ctx, w); err != nil {
		return desk.Record{}, e.release(ctx, w, err)
	}
	if err := e.lend(ctx, w); err != nil {
		return desk.Record{}, e.release(ctx, w, err)
	}
	return e.create(ctx, w)
}

// create makes the record (model: Create). The claim with the intent to create is there already.
func (e *Engine) create(ctx context.Context, w *work) (desk.Record, error) {
	entries := slices.DeleteFunc(slices.Clone(w.want.Entries), func(en desk.Entry) bool {
		_, there := w.known[en.ID] // with a ticket that is about to be merged into this one
		return there || w.unsent[en.ID]
	})
	if err := e.stageFiles(ctx, w, entries); err != nil {
		return desk.Record{}, e.release(ctx, w, err)
	}
	if e.TargetSide.EntryMarker == "" {
		entries = entries[:min(1, len(entries))] // one at a time, so that never more than one can be in doubt
		if e.adding(w, entries); !slices.Equal(w.row.Claim.Adds, w.doubtful()) {
			if err := e.ensure(ctx, w, nil); err != nil { // it is not the first of the thread: that one is there already
				return desk.Record{}, err
			}
		}
	}
	if err := e.before(ctx, w, image{Ref: w.ref}); err != nil {
		return desk.Record{}, e.release(ctx, w, err)
	}
	rec := w.want
	rec.Entries = entries
	written, err := e.Target.Create(ctx, rec)
	w.losses = append(w.losses, written.Losses...)
	if err != nil && written.ID == "" {
		err = fmt.Errorf("create %s: %w", w.ref, err)
		switch desk.Class(err) {
		case desk.ErrRejected, desk.ErrUnauthorized, desk.ErrThrottled:
			return desk.Record{}, e.release(ctx, w, err) // nothing was made, the desk says
		}
		return desk.Record{}, e.doubt(ctx, w, err)
	}
	w.row.Target, w.row.How, w.row.Unfinished = written.ID, "created", true
	w.row.Claim.Create, w.open = false, nil // whatever was in doubt, nothing else is in it
	w.wrote = append(w.wrote, "created")
	e.noteEntries(w, written, nil)
	now := written.Now
	var unread error
	if err == nil && now == nil {
		var r desk.Record
		if r, unread = e.Target.Read(ctx, e.targetRef(w)); errors.Is(unread, desk.ErrNotFound) {
			unread = cmpOr(e.settled(w.row), unread) // it is not shown yet
		}
		now = &r
	}
	if err != nil || unread != nil {
		w.row.Claim.Intent = map[desk.Field]base{}
		for f, v := range w.want.Fields {
			w.row.Claim.Intent[f] = newBase(v.Digest(), v.Digest())
		}
	}
	switch {
	case err != nil:
		return desk.Record{}, e.doubt(ctx, w, fmt.Errorf("create %s: %w", w.ref, err))
	case unread != nil:
		return desk.Record{}, e.unseen(ctx, w, unread)
	}
	// Until everything is there the base is what the target looks like just after the create: what it lacks still differs
	// from the source and will be applied, what people change from now on is told apart.
	w.row.Fields = map[desk.Field]base{}
	for f := range w.want.Fields {
		d := now.Fields[f].Digest()
		w.row.Fields[f] = newBase(d, d)
		if now.Touched[f] { // already
			d = w.want.Fields[f].Digest()
			w.row.Fields[f] = newBase(d, d)
		}
	}
	return *now, nil
}

// converge brings an existing target record to what is wanted: entries first, then fields, because desks move
// fields when entries arrive.
func (e *Engine) converge(ctx, intake context.Context, w *work, now desk.Record, created, adopted bool) error {
	if now.Ref.ID != w.row.Target && now.Ref.ID != "" {
		// The target's people merged it: its thread goes on there, its fields are theirs.
		w.row.Target, w.row.How, w.row.Lock = now.Ref.ID, mergedThere, ""
	}
	w.row.Worked = w.row.Worked || !created && !w.still(now)
	defs, err := e.definitions(ctx)
	if err != nil {
		return e.release(ctx, w, err)
	}
	e.addUnkept(w, now, defs)
	tags := now.Fields[desk.Tags]
	now = e.untagged(w, now)
	if found := adopted && w.row.How == "found"; found || w.takenOver {
		others, err := e.holdsOthers(ctx, w, now)
		if err != nil {
			return e.release(ctx, w, err)
		}
		if w.takenOver {
			e.tellOurs(w, now, others)
			e.unclear(w, now)
		}
		if found && others && !w.ofEarlierDay() {
			if err := e.foundTogether(ctx, w, now); err != nil {
				return e.release(ctx, w, err)
			}
		}
	}
	merged := w.row.How == mergedThere
	if !created {
		if err := e.fence(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
	}
	before := now
	moved, err := e.mergeAliases(ctx, w, now)
	if err == nil && moved {
		now, tags, err = e.again(ctx, w)
	}
	if err == nil {
		err = e.gain(ctx, w)
	}
	if err != nil {
		return e.release(ctx, w, err) // a merge that is open is seen by the next one
	}
	// What our own merge has moved (desks unite tags and the people of both tickets) nobody else has changed.
	for f, b := range w.row.Fields {
		if d := now.Fields[f].Digest(); f.IsSet() && !now.Touched[f] && d != b.tgt() && before.Fields[f].Digest() == b.tgt() {
			w.row.Fields = maps.Clone(w.row.Fields)
			w.row.Fields[f] = base{Src: b.Src, Tgt: d, Kept: b.Kept, Event: b.Event}
		}
	}
	e.back(w, now)
	if w.tag == tagEntry && !w.takenOver && !slices.Contains(tags, e.mig.EventTag) {
		w.row.Tag, w.tag = "", "" // people took it off; an entry that changes from here on brings it again
	}
	e.noteEntries(w, desk.Written{}, now.Entries)
	e.noteBrought(w, now.Entries)
	w.recovered = w.recovered || w.takenOver && len(w.fresh) > 0
	if !created && !adopted {
		if err := e.heal(ctx, w, now, defs); err != nil {
			return e.release(ctx, w, err)
		}
	}
	missing, err := e.thread(ctx, intake, w, now)
	if err != nil && w.unanswered {
		return e.unanswered(ctx, w, err)
	}
	if err == nil && w.it.Due == dueMoved {
		var kept []desk.Loss
		kept, err = e.keptCopies(ctx, w)
		w.losses = append(w.losses, kept...)
	}
	if err != nil {
		return e.release(ctx, w, err)
	}
	if w.revised {
		if now, tags, err = e.again(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
	}
	m := e.mergeFields(w, now, defs, created, adopted)
	w.held.Fields = m.Held
	if merged {
		w.row.Tag, w.tag = "", "" // its tags are the target's people's
	} else {
		e.mark(w, &m)
	}
	if e.TargetSide.EntryMarker == "" {
		missing = e.doubted(w, missing)
	}
	w.takenOver = false // from here on nothing is open any more: what was there has been seen
	if err := e.stageFiles(ctx, w, missing); err != nil {
		return e.release(ctx, w, err)
	}
	todo := e.changes(w, m, now, tags, missing)
	if len(todo) > 0 {
		e.adding(w, todo[0].Entries)
		e.bringing(w, missing)
		if w.lock = ""; len(todo) == 1 { // else our own first call moves it
			w.lock = now.Lock
		}
		intent := map[desk.Field]base{}
		for f, v := range m.Apply {
			b := newBase(w.want.Fields[f].Digest(), v.Digest())
			if b.Theirs = now.Touched[f]; b.Theirs {
				b.Was = now.Fields[f].Digest()
			}
			intent[f] = b
		}
		w.noteTheirs(now)
		if err := e.ensure(ctx, w, intent); err != nil { // from here on a cut-off goes on instead of looking
			return err
		}
		if err := e.before(ctx, w, imageOf(w, todo, now, tags)); err != nil {
			return e.release(ctx, w, err)
		}
	}
	after, err := e.apply(ctx, intake, w, m, now, todo)
	if err != nil {
		return err
	}
	w.adds = nil
	for id, row := range w.kept {
		w.remember(id, row)
	}
	seen := e.untagged(w, after)
	e.noteShown(w, seen)
	e.rebase(w, m, now, seen, merged)
	e.keepLock(w, seen)
	if w.row.Unfinished && w.run.Images {
		w.row.Rest = restOf(after, w.row.Fields)
		if slices.ContainsFunc(m.Held, func(h heldField) bool { _, based := w.row.Fields[h.Field]; return !based }) {
			w.row.Rest = "" // what is asked about may be the work of people: nothing is equal to that
		}
	}
	out := OutUnchanged
	switch {
	case !w.held.empty():
		out = OutHeld
	case created:
		out = OutCreated
	case len(w.wrote) > 0 || w.recovered:
		out = OutUpdated
	}
	if w.row.Unfinished && (out == OutUpdated || out == OutUnchanged) {
		out = OutCreated // the rest of a create that was cut off
	}
	w.row.Tag = w.tag
	return e.commit(ctx, w, out)
}

// again reads w's target once more, behind what was just done to it. Where people have merged it in that moment it is another one, whose
// fields are not for w: then all of it is decided anew.
func (e *Engine) again(ctx context.Context, w *work) (now desk.Record, tags desk.Value, err error) {
	now, err = e.Target.Read(ctx, e.targetRef(w))
	switch {
	case err != nil:
		return desk.Record{}, nil, err
	case now.Ref.ID != w.row.Target:
		return desk.Record{}, nil, &desk.Error{
			Op: "read target " + w.row.Target + " again", Class: desk.ErrConflict, Said: "people have merged it into " + now.Ref.ID,
		}
	}
	return e.untagged(w, now), now.Fields[desk.Tags], nil
}

// mergeFields compares the fields of both sides and says what becomes of each: invariant 4.
func (e *Engine) mergeFields(w *work, now desk.Record, defs desk.Definitions, created, adopted bool) merge3 {
	if w.row.How == mergedThere {
		for _, f := range slices.Sorted(maps.Keys(w.want.Fields)) {
			if w.want.Fields[f].Digest() != now.Fields[f].Digest() {
				w.out.Kept = append(w.out.Kept, string(f))
			}
		}
		return merge3{}
	}
	if adopted && w.ref.Kind != desk.Ticket && !w.takenOver {
		// Somebody who was there before us keeps what the target says of them. Later changes of the source are applied
		// where the target has not moved.
		var m merge3
		for f := range w.want.Fields {
			m.Accept = append(m.Accept, f)
		}
		return m
	}
	if w.ofEarlierDay() && !created {
		e.unsure(w, now)
	}
	policies := e.mig.Policies
	if adopted && w.ref.Kind != desk.Ticket {
		policies.Conflict, policies.ConflictField = Hold, nil
	}
	m := merge(w.ref.Kind, w.row.Fields, w.want.Fields, now.Fields, defs, policies, w.heldBefore.decisions())
	if adopted && w.ref.Kind != desk.Ticket {
		// Perhaps our own create, cut off: what it lacks is filled in, and nobody is asked about the rest, which no policy writes over.
		for _, h := range m.Held {
			m.Accept = append(m.Accept, h.Field)
		}
		m.Held = nil
	}
	return m
}

// apply sends the calls one after the other and returns what the target looks like after the last one (model: Apply). now is
// what it looked like when they were made up. After an error the claim is seen to already.
func (e *Engine) apply(ctx, intake context.Context, w *work, m merge3, now desk.Record, todo []desk.Change) (after desk.Record, err error) {
	after = now
	for i, ch := range todo {
		if i > 0 && e.TargetSide.EntryMarker == "" && len(ch.Entries) > 0 {
			e.adding(w, ch.Entries)
			if err := e.ensure(ctx, w, w.row.Claim.Intent); err != nil {
				return after, err
			}
		}
		switch {
		case intake.Err() != nil && len(w.wrote) > 0:
			err = errLater
		case i > 0:
			err = e.between(ctx, w, now, after, &ch)
		}
		if err != nil {
			return after, e.halfway(ctx, w, err, i)
		}
		written, err := e.Target.Apply(ctx, e.targetRef(w), ch)
		w.losses = append(w.losses, written.Losses...)
		e.noteEntries(w, written, nil)
		if err != nil {
			err = fmt.Errorf("write target %s of %s: %w", w.row.Target, w.ref, err)
			if refused(err) {
				return after, e.halfway(ctx, w, err, i)
			}
			return after, e.doubt(ctx, w, err)
		}
		for _, en := range ch.Entries {
			if _, ok := w.known[en.ID]; !ok {
				w.remember(en.ID, newEntryRow(e.original(w, en.ID), ""))
				w.touched = append(w.touched, en.ID)
			}
			w.wrote = append(w.wrote, "entry "+en.ID)
		}
		for f := range ch.Fields {
			if _, ok := m.Apply[f]; ok || f == desk.Tags {
				w.wrote = append(w.wrote, string(f))
			}
		}
		after = desk.Record{}
		if written.Now != nil {
			after = *written.Now
		}
		if len(w.fresh) >= inline { // a long thread: what is finished is kept as it grows
			if err := e.saveRow(ctx, w); err != nil {
				return after, err
			}
		}
	}
	if after.Ref.ID == "" {
		if after, err = e.Target.Read(ctx, e.targetRef(w)); err != nil {
			return after, e.unseen(ctx, w, err)
		}
	}
	return after, nil
}

// halfway gives the claim back where nothing of a call was done. After earlier calls of the same write it stays, free for the
// next one: it tells what the desk has moved meanwhile from the work of people.
func (e *Engine) halfway(ctx context.Context, w *work, cause error, calls int) error {
	if calls == 0 {
		return e.release(ctx, w, cause)
	}
	w.adds = nil
	return e.unclaim(ctx, w, cause, e.Now())
}

func (e *Engine) original(w *work, id string) desk.Entry {
	i := slices.IndexFunc(w.want.Entries, func(en desk.Entry) bool { return en.ID == id })
	return w.want.Entries[i]
}

// changes cuts the work into calls of Apply: entries with files one by one, others a handful at a time, fields last. Desks
// move the status when a reply arrives, so wherever entries are added the status that should be there goes along.
// The event tag comes and goes beside what the merge says of tags; tags are those that the target shows.
func (e *Engine) changes(w *work, m merge3, now desk.Record, tags desk.Value, missing []desk.Entry) []desk.Change {
	var out []desk.Change
	for _, en := range missing {
		if n := len(out); n > 0 && len(en.Files) == 0 && e.TargetSide.EntryMarker != "" && len(out[n-1].Entries) < 8 && len(out[n-1].Entries[0].Files) == 0 {
			out[n-1].Entries = append(out[n-1].Entries, en)
			continue
		}
		out = append(out, desk.Change{Entries: []desk.Entry{en}})
	}
	fields := maps.Clone(m.Apply)
	if len(missing) > 0 && w.ref.Kind == desk.Ticket {
		if _, ok := fields[desk.Status]; !ok && len(now.Fields[desk.Status]) > 0 {
			if fields == nil {
				fields = desk.Fields{}
			}
			fields[desk.Status] = now.Fields[desk.Status]
			w.puts = map[desk.Field]string{desk.Status: now.Fields[desk.Status].Digest()}
		}
	}
	bare, set := fields[desk.Tags]
	if !set {
		bare = now.Fields[desk.Tags]
	}
	if want := e.withTag(w, bare); set || w.row.Tag != "" && !want.Equal(tags) {
		if fields == nil {
			fields = desk.Fields{}
		}
		fields[desk.Tags] = want
		if !set { // for the tag's sake: the others are whoever's they were
			w.puts = maps.Clone(w.puts)
			if w.puts == nil {
				w.puts = map[desk.Field]string{}
			}
			w.puts[desk.Tags] = bare.Digest()
		}
	}
	if len(fields) > 0 {
		if len(out) == 0 {
			out = append(out, desk.Change{})
		}
		out[len(out)-1].Fields = fields
	}
	if len(out) > 0 {
		out[0].Lock = now.Lock
	}
	return out
}

// rebase makes what the target looks like now the base of the next merge: what was read back, not what was sent. Held and
// kept fields keep the base they had, so that the question stays open. before is what it looked like when the merge was made.
func (e *Engine) rebase(w *work, m merge3, before, after desk.Record, merged bool) {
	old := w.row.Fields
	w.row.Fields = map[desk.Field]base{}
	accept := map[desk.Field]bool{}
	for _, f := range m.Accept {
		accept[f] = true
	}
	stays := map[desk.Field]bool{}
	for _, h := range m.Held {
		stays[h.Field] = true
	}
	for _, f := range m.Kept {
		stays[f] = !accept[f]
		w.out.Kept = append(w.out.Kept, string(f))
	}
	for f, v := range w.want.Fields {
		if stays[f] || merged {
			b, ok := old[f]
			if t := after.Fields[f].Digest(); t != "" && t == w.puts[f] {
				b, ok = b.leaving(t, ok), true
			}
			if ok {
				b.Moved = b.leftTo(after, f)
				w.row.Fields[f] = b
			}
			continue
		}
		b := newBase(v.Digest(), after.Fields[f].Digest())
		if was, based := old[f]; after.Touched[f] { // what people did since we looked is not what we left
			switch {
			case m.Apply[f] != nil:
				b = newBase(v.Digest(), m.Apply[f].Digest())
			case accept[f]:
				b = newBase(v.Digest(), before.Fields[f].Digest())
			case based:
				b = was
			}
		}
		if t := after.Fields[f].Digest(); m.Apply[f] == nil && t != "" && t == old[f].Left { // people said the same
			b = b.leaving(t, true)
		}
		b.Kept = accept[f] && slices.Contains(m.Kept, f)
		b.Moved = b.leftTo(after, f)
		w.row.Fields[f] = b
	}
	for f, v := range m.Apply {
		if after.Fields[f].Digest() != v.Digest() {
			w.losses = append(w.losses, desk.Loss{Class: "normalised", What: fmt.Sprintf("%s of %s", f, w.ref)})
		}
	}
}

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

// carryOut writes one prepared record into the target.
//
// The claim comes before the first write and says what is intended; the row that says what came of it comes after the last
// one. A claim that is found later, by whoever comes next, therefore means: something may have happened. Then nothing is
// written before it was looked up (create) or the thread was read (entries). We do not pretend that a fence could stop a
// request that is already on its way: a claim is respected until its holder cannot be alive and its requests cannot be at
// work any more. The steps in their order are model: Claim, TakeOver, LookUp, Create, Apply, Commit.
func (e *Engine) carryOut(ctx, intake context.Context, w *work) error {
	if w.row.Held || w.row.Claim != nil { // a cut-off may have left a held row that the ledger does not know of
		v, err := e.get(ctx, e.heldKey(w.ref), &w.heldBefore)
		if err != nil {
			return err
		}
		w.heldVersion = v
	}
	w.held = Held{Ref: w.ref, Run: w.run.ID, Scope: w.run.Scope}
	w.open = w.row.Open
	if w.before = w.row.Claim; w.before != nil {
		w.takenOver, w.open, w.puts = true, append(slices.Clip(w.open), w.before.Adds...), w.before.Puts
	}
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
	}
	created, adopted := false, false
	var now desk.Record
	if w.row.Target == "" {
		w.row.Entries = nil // of a thread that is no more
		e.adding(w, w.want.Entries[:min(1, len(w.want.Entries))])
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
		if err := e.fence(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
		if err := e.forget(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
		id, how, err := e.find(ctx, w, w.run.Adopted || w.takenOver)
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
		default:
			if err := e.gain(ctx, w); err != nil {
				return e.release(ctx, w, err)
			}
			if err := e.lend(ctx, w); err != nil {
				return e.release(ctx, w, err)
			}
			if now, err = e.create(ctx, w); err != nil {
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

// claim takes the ledger row on the condition that nobody has touched it since it was read: so a reading that is older than
// somebody's commit never writes. It says what is intended: to create, or which fields will say what, so that whoever finds
// the claim later can tell our half-done write from the work of the target's people (model: Claim, TakeOver). Where the row
// moved, the record is read and decided again (model: ClaimRefused).
func (e *Engine) claim(ctx context.Context, w *work, intent map[desk.Field]base) error {
	row := w.row
	row.Digest = "" // from here on the target may be something else
	row.saw(w)
	now := e.Now().UTC()
	row.Claim = &claim{
		By: e.NewID(), Session: e.Session, At: now, Create: row.Target == "", Intent: intent, Adds: w.doubtful(), Puts: w.puts, Answered: w.answered(),
		Revised: w.revising, Delete: w.deleting, Undo: w.run.Undoes,
		Until: now.Add(e.Timeout + e.TargetSide.Settle + e.TargetSide.FindLag + e.Skew),
	}
	version, err := e.put(ctx, e.ledgerKey(w.ref), w.row.version, row)
	if err != nil {
		return err
	}
	w.row, w.claimed = row, row.Claim.By
	w.row.version = version
	return nil
}

// adding notes which entries are about to be added, where the target cannot show it afterwards.
func (e *Engine) adding(w *work, es []desk.Entry) {
	w.adds = nil
	if e.TargetSide.EntryMarker == "" {
		for _, en := range es {
			w.adds = append(w.adds, en.ID)
		}
	}
}

// doubtful are the entries that whoever finds the claim must not simply add.
func (w *work) doubtful() []string {
	out := slices.Clone(w.open)
	for _, id := range w.adds {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// answered is when a person decided that the record is to be created.
func (w *work) answered() time.Time {
	if a := w.heldBefore.Answer; a != nil && a.Choice == ChooseCreate {
		return a.At
	}
	return time.Time{}
}

// ensure makes sure that there is a claim with this intent before something is written.
func (e *Engine) ensure(ctx context.Context, w *work, intent map[desk.Field]base) error {
	if w.claimed == "" {
		return e.claim(ctx, w, intent)
	}
	c := *w.row.Claim
	c.Create, c.Intent, c.Adds, c.Puts, c.Answered, c.Revised = w.row.Target == "", intent, w.doubtful(), w.puts, w.answered(), w.revising
	w.row.Claim = &c
	return e.saveRow(ctx, w)
}

// release gives the claim back after an error that came before any effect, or after effects that are all known, and returns
// the error. If it was taken over, what its first holder did is still open: then it stays, free for the next one (model:
// Release).
func (e *Engine) release(ctx context.Context, w *work, cause error) error {
	if w.claimed == "" {
		return cause // nothing is ours yet
	}
	if w.adds = nil; !w.takenOver && len(w.open) == 0 {
		w.row.Claim = nil
		return errors.Join(cause, e.saveRow(ctx, w))
	}
	return e.unclaim(ctx, w, cause, e.Now())
}

// doubt leaves the claim standing after an error that leaves open whether a write took effect (model: AnswerLost). It is all
// that tells the next one to look first.
func (e *Engine) doubt(ctx context.Context, w *work, cause error) error {
	return e.unclaim(ctx, w, cause, e.Now().Add(e.TargetSide.Settle+e.TargetSide.FindLag+e.Skew))
}

// unseen leaves the claim standing, free for the next one, where a write succeeded and could not be read back: what the claim
// intends is all that tells our own values from those of the target's people.
func (e *Engine) unseen(ctx context.Context, w *work, cause error) error {
	w.adds = nil
	return e.unclaim(ctx, w, fmt.Errorf("read back target %s of %s: %w", w.row.Target, w.ref, cause), e.Now())
}

func (e *Engine) unclaim(ctx context.Context, w *work, cause error, until time.Time) error {
	if w.claimed == "" {
		return cause
	}
	c := *w.row.Claim
	c.Until, c.Session, c.Adds = until.UTC(), e.Session, w.doubtful()
	w.row.Claim = &c
	return errors.Join(cause, e.saveRow(ctx, w))
}

// unanswered gives the claim back where the desk says that nothing was done beyond what is known, and leaves it standing where
// that is open.
func (e *Engine) unanswered(ctx context.Context, w *work, cause error) error {
	if refused(cause) {
		return e.release(ctx, w, cause)
	}
	return e.doubt(ctx, w, cause)
}

// refused tells whether the desk says that nothing was done.
func refused(err error) bool {
	switch desk.Class(err) {
	case desk.ErrConflict, desk.ErrRejected, desk.ErrUnauthorized, desk.ErrThrottled, desk.ErrNotFound:
		return true
	}
	return false
}

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
	seen := e.untagged(w, after)
	for f := range ch.Fields {
		if seen.Fields[f].Equal(now.Fields[f]) || after.Touched == nil && f == desk.Status || after.Touched != nil && !after.Touched[f] {
			continue
		}
		return &desk.Error{Op: "write target " + w.row.Target, Class: desk.ErrConflict, Said: "people changed " + string(f) + " between two calls"}
	}
	ch.Lock = after.Lock
	return nil
}

// saveRow writes the row of a claim that is ours. Others write into a claimed row only that somebody waits for this record,
// that it was merged into another one, or an attempt that came to nothing: the first two are taken over.
func (e *Engine) saveRow(ctx context.Context, w *work) error {
	ctx = context.WithoutCancel(ctx) // what has happened is written down, also when time is up
	for {
		row := w.row
		if err := e.keepEntries(ctx, w, &row); err != nil {
			return err
		}
		version, err := e.put(ctx, e.ledgerKey(w.ref), w.row.version, row)
		if err == nil {
			w.row, w.fresh = row, nil
			w.row.version = version
			return nil
		}
		if !errors.Is(err, ErrStale) {
			return err
		}
		var other ledgerRow
		v, err := e.get(ctx, e.ledgerKey(w.ref), &other)
		if err != nil {
			return err
		}
		if w.claimed == "" || other.Claim == nil || other.Claim.By != w.claimed {
			return fmt.Errorf("ledger row of %s was taken over: %w", w.ref, ErrStale)
		}
		w.row.version, w.row.Awaited, w.row.Into = v, other.Awaited, cmpOr(other.Into, w.row.Into)
	}
}

// find looks for the record in the target: people and companies always, because they may be there from before the migration;
// tickets only when a create may have happened already (model: LookUp). It comes after the claim, so that nobody else creates
// between the look and our own create. It leaves w.held.Doubt set when a person has to say.
func (e *Engine) find(ctx context.Context, w *work, lookFirst bool) (id, how string, err error) {
	if a := w.heldBefore.Answer; a != nil {
		switch a.Choice {
		case ChooseLink:
			return a.Value.First(), "decided", nil
		case ChooseCreate:
			if w.before == nil || !w.before.Answered.Equal(a.At) {
				return "", "", nil
			}
			lookFirst = true // that decision was being carried out when somebody was cut off
		}
	}
	_, searched := e.Target.(desk.Finder)
	if searched && (w.row.Look || w.it.Heal) {
		lookFirst = true // an undo removed it, and people may have brought it back; or the ledger may have lost a row, as a verification says
	}
	if lookFirst {
		f, ok := e.Target.(desk.Finder)
		_, matches := e.Target.(desk.Matcher)
		switch {
		case ok:
			ids, err := e.search(ctx, w, f)
			if err != nil {
				return "", "", err
			}
			if len(ids) == 1 {
				return ids[0], "found", nil
			}
			if len(ids) > 1 {
				w.held.Doubt, w.held.Candidates = fmt.Sprintf("%d records of the target carry its id", len(ids)), ids
				return "", "", nil
			}
		case w.ref.Kind == desk.Ticket || !matches:
			w.held.Doubt = "it may have been created before an answer was lost, and this target cannot be searched"
			return "", "", nil
		}
	}
	blind := lookFirst && !searched // only a match can tell whether the open create took effect
	if w.ref.Kind == desk.Ticket || e.mig.Rules.People.Apart && !blind {
		return "", "", nil
	}
	id, how, err = e.match(ctx, w)
	if f := w.want.Fields; blind && id == "" && err == nil && len(f[desk.Email])+len(f[desk.Login])+len(f[desk.ExternalID]) == 0 && w.ref.Kind == desk.Person {
		w.held.Doubt = "it may have been created before an answer was lost, and nothing of it can be searched for"
	}
	return id, how, err
}

// search returns the ids of the target that carry w's source reference. Of a record that was merged and taken out again, the
// ticket it was merged into may still carry it: that one is another's.
func (e *Engine) search(ctx context.Context, w *work, f desk.Finder) ([]string, error) {
	ids, err := f.Find(ctx, w.ref)
	if err != nil {
		return nil, fmt.Errorf("look for %s in the target: %w", w.ref, err)
	}
	if w.row.Was == "" {
		return ids, nil
	}
	var was ledgerRow
	if _, err := e.get(ctx, e.ledgerKey(desk.Ref{Kind: w.ref.Kind, ID: w.row.Was}), &was); err != nil {
		return nil, err
	}
	var own []string
	for _, id := range ids {
		now, err := e.Target.Read(ctx, desk.Ref{Kind: w.ref.Kind, ID: id})
		if err != nil && !errors.Is(err, desk.ErrNotFound) {
			return nil, fmt.Errorf("look for %s in the target: %w", w.ref, err)
		}
		if err == nil && now.Ref.ID != was.Target {
			own = append(own, id)
		}
	}
	return own, nil
}

// match finds the person or company of the target that w's record means.
func (e *Engine) match(ctx context.Context, w *work) (id, how string, err error) {
	m, ok := e.Target.(desk.Matcher)
	rules := e.mig.Rules.People
	probe := w.want
	if w.ref.Kind == desk.Person {
		named, is := rules.Map[w.ref.ID]
		for _, mail := range w.rec.Fields[desk.Email] {
			if !is {
				named, is = rules.Map[strings.ToLower(mail)]
			}
		}
		if is {
			if !ok || !strings.Contains(named, "@") {
				return named, "decided", nil
			}
			probe = desk.Record{Ref: w.ref, Fields: desk.Fields{desk.Email: {named}}}
		}
	}
	if ok {
		ids, err := m.Match(ctx, probe)
		if err != nil {
			return "", "", fmt.Errorf("match %s in the target: %w", w.ref, err)
		}
		if len(ids) == 1 {
			return ids[0], "matched", nil
		}
		if len(ids) > 1 {
			w.held.Doubt, w.held.Candidates = fmt.Sprintf("%d records of the target match it", len(ids)), ids
			return "", "", nil
		}
	}
	if w.ref.Kind != desk.Person {
		return "", "", nil
	}
	switch rules.Unmatched {
	case "block":
		return "", "", &desk.Error{Op: "match " + w.ref.String(), Class: desk.ErrRejected, Said: "nobody in the target matches, and the migration file says block"}
	case "fallback":
		id := rules.Fallback
		if ok && strings.Contains(id, "@") {
			ids, err := m.Match(ctx, desk.Record{Ref: w.ref, Fields: desk.Fields{desk.Email: {id}}})
			if err != nil {
				return "", "", fmt.Errorf("match the fallback person: %w", err)
			}
			if len(ids) != 1 {
				return "", "", &desk.Error{Op: "match the fallback person", Class: desk.ErrRejected, Said: fmt.Sprintf("%d people of the target have the address that mapping.people.fallback names", len(ids))}
			}
			id = ids[0]
		}
		w.losses = append(w.losses, desk.Loss{Class: "person-fallback", What: w.ref.String(), Kept: "fallback person"})
		return id, "fallback", nil
	}
	return "", "", nil
}

// create makes the record (model: Create). The claim with the intent to create is there already.
func (e *Engine) create(ctx context.Context, w *work) (desk.Record, error) {
	entries := slices.DeleteFunc(slices.Clone(w.want.Entries), func(en desk.Entry) bool {
		_, there := w.known[en.ID] // with a ticket that is about to be merged into this one
		return there
	})
	if err := e.stageFiles(ctx, w, entries); err != nil {
		return desk.Record{}, e.release(ctx, w, err)
	}
	if e.TargetSide.EntryMarker == "" {
		entries = entries[:min(1, len(entries))] // one at a time, so that never more than one can be in doubt
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
	w.row.Claim.Create = false
	w.wrote = append(w.wrote, "created")
	e.noteEntries(w, written, nil)
	if err != nil {
		return desk.Record{}, e.doubt(ctx, w, fmt.Errorf("create %s: %w", w.ref, err))
	}
	now := written.Now
	if now == nil {
		r, err := e.Target.Read(ctx, e.targetRef(w))
		if err != nil {
			w.row.Claim.Intent = map[desk.Field]base{}
			for f, v := range w.want.Fields {
				w.row.Claim.Intent[f] = newBase(v.Digest(), v.Digest())
			}
			return desk.Record{}, e.unseen(ctx, w, err)
		}
		now = &r
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

// noteByTime recognises entries in a target that shows no markers and keeps times: what people write there has the time at
// which they wrote it, so an entry that says the same and carries the time that the source knows is ours. Each stands for one.
// A ledger of an earlier day may not know either what the source said when it was copied: then one with the same time and
// other words may be ours or people's, and somebody is asked.
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
	if w.run.Adopt {
		match(same, func(en, _ desk.Entry) {
			if !slices.Contains(w.open, en.ID) {
				w.open = append(slices.Clip(w.open), en.ID)
			}
		})
	}
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
		if k.Shown = wordsDigest(t); k.Shown == k.Digest {
			k.Shown = ""
		}
		k.Target = t.ID
		w.remember(id, k)
	}
}

// converge brings an existing target record to what is wanted (model: Apply): entries first, then fields, because desks move
// fields when entries arrive.
func (e *Engine) converge(ctx, intake context.Context, w *work, now desk.Record, created, adopted bool) error {
	if now.Ref.ID != w.row.Target && now.Ref.ID != "" {
		// The target's people merged it: its thread goes on there, its fields are theirs.
		w.row.Target, w.row.How, w.row.Lock = now.Ref.ID, mergedThere, ""
	}
	merged := w.row.How == mergedThere
	w.row.Worked = w.row.Worked || !created && !w.still(now)
	tags := now.Fields[desk.Tags]
	now = e.untagged(w, now)
	if w.takenOver {
		e.tellOurs(w, now)
		e.unclear(w, now)
	}
	if !created {
		if err := e.fence(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
	}
	before := now
	moved, err := e.mergeAliases(ctx, w)
	if err == nil && moved {
		if now, err = e.Target.Read(ctx, e.targetRef(w)); err == nil {
			tags = now.Fields[desk.Tags]
			now = e.untagged(w, now)
		}
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
	e.noteEntries(w, desk.Written{}, now.Entries)
	w.recovered = w.recovered || w.takenOver && len(w.fresh) > 0
	defs, err := e.definitions(ctx)
	if err == nil && !created && !adopted {
		err = e.heal(ctx, w, now, defs)
	}
	if err != nil {
		return e.release(ctx, w, err)
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
		if now, err = e.Target.Read(ctx, e.targetRef(w)); err != nil {
			return e.release(ctx, w, err)
		}
		tags = now.Fields[desk.Tags]
		now = e.untagged(w, now)
	}
	var m merge3
	switch {
	case merged:
		for _, f := range slices.Sorted(maps.Keys(w.want.Fields)) {
			if w.want.Fields[f].Digest() != now.Fields[f].Digest() {
				w.out.Kept = append(w.out.Kept, string(f))
			}
		}
	case adopted && w.ref.Kind != desk.Ticket && !w.takenOver:
		// Somebody who was there before us keeps what the target says of them. Later changes of the source are applied
		// where the target has not moved.
		for f := range w.want.Fields {
			m.Accept = append(m.Accept, f)
		}
	default:
		if w.run.Adopt && w.ref.Kind == desk.Ticket && !created {
			e.unsure(w, now)
		}
		m = merge(w.ref.Kind, w.row.Fields, w.want.Fields, now.Fields, defs, e.mig.Policies, w.heldBefore.decisions())
		if adopted && w.ref.Kind != desk.Ticket {
			// Perhaps our own create, cut off: what it lacks is filled in, and nobody is asked about the rest.
			for _, h := range m.Held {
				m.Accept = append(m.Accept, h.Field)
			}
			m.Held = nil
		}
	}
	w.held.Fields = m.Held
	if merged {
		w.row.Tag, w.tag = "", "" // its tags are the target's people's
	} else {
		e.mark(w, &m)
	}
	if !created && e.TargetSide.EntryMarker == "" {
		missing = e.doubted(w, missing)
	}
	w.takenOver = false // from here on nothing is open any more: what was there has been seen
	if err := e.stageFiles(ctx, w, missing); err != nil {
		return e.release(ctx, w, err)
	}
	todo := e.changes(w, m, now, tags, missing)
	if len(todo) > 0 {
		e.adding(w, todo[0].Entries)
		intent := map[desk.Field]base{}
		for f, v := range m.Apply {
			b := newBase(w.want.Fields[f].Digest(), v.Digest())
			b.Theirs = now.Touched[f]
			intent[f] = b
		}
		if err := e.ensure(ctx, w, intent); err != nil { // from here on a cut-off goes on instead of looking
			return err
		}
		if err := e.before(ctx, w, imageOf(w, todo, now, tags)); err != nil {
			return e.release(ctx, w, err)
		}
	}
	after := now
	for i, ch := range todo {
		if i > 0 && e.TargetSide.EntryMarker == "" && len(ch.Entries) > 0 {
			e.adding(w, ch.Entries)
			if err := e.ensure(ctx, w, w.row.Claim.Intent); err != nil {
				return err
			}
		}
		if i > 0 {
			err := e.between(ctx, w, now, after, &ch)
			if intake.Err() != nil && len(w.wrote) > 0 {
				err = errLater
			}
			if err != nil { // the claim stays: it tells what the desk has moved meanwhile from the work of people
				w.adds = nil
				return e.unclaim(ctx, w, err, e.Now())
			}
		} else if intake.Err() != nil && len(w.wrote) > 0 {
			return e.release(ctx, w, errLater)
		}
		written, err := e.Target.Apply(ctx, e.targetRef(w), ch)
		w.losses = append(w.losses, written.Losses...)
		e.noteEntries(w, written, nil)
		if err != nil {
			err = fmt.Errorf("write target %s of %s: %w", w.row.Target, w.ref, err)
			if i > 0 && refused(err) {
				w.adds = nil
				return e.unclaim(ctx, w, err, e.Now())
			}
			return e.unanswered(ctx, w, err)
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
		if written.Now != nil {
			after = *written.Now
		} else {
			after = desk.Record{}
		}
		if len(w.fresh) >= inline { // a long thread: what is finished is kept as it grows
			if err := e.saveRow(ctx, w); err != nil {
				return err
			}
		}
	}
	if after.Ref.ID == "" {
		if after, err = e.Target.Read(ctx, e.targetRef(w)); err != nil {
			return e.unseen(ctx, w, err)
		}
	}
	w.adds = nil
	e.noteShown(w, after)
	e.rebase(w, m, now, e.untagged(w, after), merged)
	e.keepLock(w, after)
	if w.row.Unfinished && w.run.Images {
		w.row.Rest = restOf(after, w.row.Fields)
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

// doubted takes out of the missing entries those of which it is open whether a cut-off writer of ours has added them, in a
// target that cannot show which entries are ours. A person says whether they are there, and answers for just these; all
// others go through.
func (e *Engine) doubted(w *work, missing []desk.Entry) []desk.Entry {
	a := w.heldBefore.Answer
	var open []string
	rest := slices.DeleteFunc(missing, func(en desk.Entry) bool {
		asked := a != nil && slices.Contains(w.heldBefore.Doubtful, en.ID)
		switch {
		case !slices.Contains(w.open, en.ID), asked && a.Choice == ChooseCreate:
			return false
		case asked && a.Choice == ChooseLink:
			w.remember(en.ID, newEntryRow(en, ""))
		default:
			open = append(open, en.ID)
		}
		return true
	})
	w.open = open
	if len(open) > 0 { // one question at a time: an answer is for one entry
		w.held.Doubt = fmt.Sprintf("entry %s may have been added already (an answer was lost, or the ledger is of an earlier day), and this target cannot show which entries are ours", open[0])
		w.held.Doubtful, w.held.Candidates = open[:1], []string{w.row.Target}
	}
	return rest
}

// tellOurs finds out which fields and entries of the target are as a cut-off writer of ours left them, so that its half-done
// work is not taken for the work of people: those that say what it intended, and fields in which, as the desk says, nobody
// else had the last word (a desk may move fields by itself when an entry arrives). They become a base that only the source
// has left. A desk that does not tell who had the last word cannot tell either that people put back what was there before a
// write of ours whose answer was lost: there it is written again. Of an entry that was about to be revised whatever it says is taken for ours: a desk may write it its own way.
func (e *Engine) tellOurs(w *work, now desk.Record) {
	fields := maps.Clone(w.row.Fields)
	if fields == nil {
		fields = map[desk.Field]base{}
	}
	others := w.ref.Kind == desk.Ticket && e.holdsOthers(w, now) // what was put back there for them is not known here
	ours := map[desk.Field]bool{}
	for f, b := range w.before.Intent {
		theirs, t := b.Theirs, now.Fields[f].Digest()
		b.Theirs = false
		switch {
		case t == b.tgt():
			fields[f], ours[f], w.recovered = b, true, true
			w.ours = append(w.ours, f)
		case now.Touched[f] && !theirs && t == fields[f].tgt() && t != w.want.Fields[f].Digest():
			// It took effect, and people put back what was there; or it did not, and they tried something. Somebody has to say.
			fields[f] = base{Src: "cut off", Tgt: "cut off", Ask: true}
			ours[f] = true
		}
	}
	for f := range w.want.Fields {
		t := now.Fields[f].Digest()
		switch {
		case t != "" && (t == w.before.Puts[f] || t == fields[f].Left): // written again as it was: whoever set it before
		case ours[f]:
		case now.Touched != nil && !now.Touched[f] && !fields[f].Kept && !others && !w.run.Adopted: // a ledger of an earlier day does not know what was put back
			if b, based := fields[f]; !based || t != b.tgt() {
				fields[f] = base{Src: "cut off", Tgt: t}
				w.ours = append(w.ours, f)
			}
		}
	}
	w.row.Fields = fields
	for id, public := range w.before.Revised {
		k, known := w.known[id]
		i := slices.IndexFunc(now.Entries, func(en desk.Entry) bool { return en.Marker == e.marker(id) || en.ID == k.Target })
		unchanged := slices.ContainsFunc(w.want.Entries, func(en desk.Entry) bool { return en.ID == id && k.says(en) })
		if !known || i < 0 || unchanged && w.it.Heal { // what it says may be the harm that was about to be healed
			continue
		}
		if k.Shown = wordsDigest(now.Entries[i]); now.Entries[i].Public == public {
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

// unsure marks the fields of an adopted ticket that say neither what the source says nor what the ledger knows of our last
// write: a ledger of an earlier day cannot tell whether people set (or emptied) them or we did since. So it is asked.
func (e *Engine) unsure(w *work, now desk.Record) {
	fields := maps.Clone(w.row.Fields)
	if fields == nil {
		fields = map[desk.Field]base{}
	}
	for f, v := range w.want.Fields {
		b, based := fields[f]
		switch t := now.Fields[f].Digest(); {
		case t == v.Digest(), f.Points() == desk.Ticket, f == desk.Started, f == desk.Resolved, based && t == b.tgt() && !now.Touched[f]:
		case !based && t == "" && now.Touched != nil && !now.Touched[f]: // never written
		default:
			fields[f] = base{Src: "unknown", Tgt: "unknown", Ask: true}
		}
	}
	w.row.Fields = fields
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
				if !ok { // nothing was ever agreed on, and it stays like that
					b, ok = base{Src: "cut off", Tgt: "cut off"}, true
				}
				b.Left = t
			}
			if ok {
				b.Moved = after.Fields[f].Digest() != b.tgt()
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
		b.Kept = accept[f] && slices.Contains(m.Kept, f)
		b.Moved = after.Fields[f].Digest() != b.tgt()
		w.row.Fields[f] = b
	}
	for f, v := range m.Apply {
		if after.Fields[f].Digest() != v.Digest() {
			w.losses = append(w.losses, desk.Loss{Class: "normalised", What: fmt.Sprintf("%s of %s", f, w.ref)})
		}
	}
}

// commit writes the row that says what came of it, and ends the claim, in one write (model: Commit): a claim that is gone has
// nothing open behind it. The row keeps when the reading began, not when it was carried out: what changed in between is not
// in it and must not be dropped unread.
func (e *Engine) commit(ctx context.Context, w *work, out Outcome) error {
	if w.claimed == "" && !w.held.empty() {
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
	}
	if err := e.await(ctx, w); err != nil {
		return e.release(ctx, w, err)
	}
	if w.unsettled {
		if err := e.makeDue(ctx, w.run.Scope, dueRow{Listed: w.it.Listed, Why: dueMoved, Run: w.run.ID}); err != nil {
			return e.release(ctx, w, err)
		}
	}
	if err := e.keepHeld(ctx, w.held, w.heldBefore, w.heldVersion); err != nil {
		return e.unclaim(ctx, w, err, e.Now()) // the held row may be there all the same: the claim says that it is to be looked at
	}
	row := w.row // as it is until the commit succeeds
	w.finish(out, cmpOr(w.held.reason(), w.reason))
	if out == OutHeld {
		w.out.Next = w.held.next()
	}
	w.done = false
	w.row.Held, w.row.Gone, w.row.Open, w.row.Unfinished, w.row.Attempts = !w.held.empty(), "", nil, false, nil
	w.row.Began, w.row.Digest, w.row.Rules = w.rec.Began.UTC(), w.digest, e.rules
	w.row.saw(w)
	w.row.Look = w.row.Look && w.row.Target == ""
	if w.held.Doubt != "" {
		// Still in doubt: the claim stays, free for the next one, so that it is looked at again and never simply written.
		c := *w.row.Claim
		c.Until, c.Adds, w.row.Claim, w.row.Digest = e.Now().UTC(), w.doubtful(), &c, ""
	} else {
		w.row.Claim = nil
	}
	if w.held.Gone {
		w.row.Digest = ""
	}
	if !w.errand {
		w.row.Last = &last{Run: w.m.Run, Pos: w.pos(), Out: w.out}
	}
	check := "read back as written"
	if slices.ContainsFunc(w.losses, func(l desk.Loss) bool { return l.Class == "normalised" }) {
		check = "read back, some values in the target's own form"
	}
	wrote := w.wrote
	if len(wrote) > 12 {
		wrote = append(slices.Clone(wrote[:12]), fmt.Sprintf("and %d more", len(w.wrote)-12))
	}
	w.row.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Seen: w.it.Stamp.At, Outcome: out, Why: cmpOr(w.held.reason(), w.it.why()), Wrote: wrote, Check: check})
	if err := e.saveRow(ctx, w); err != nil {
		w.row = row
		return err
	}
	if w.ref.Kind != desk.Ticket {
		e.mu.Lock()
		delete(e.people, w.ref) // it may be another one now
		e.mu.Unlock()
	}
	w.done = true
	return nil
}

// forget drops the memory of a thread that is no more, before another target record takes its place. The claim that is about
// to be written, or was, has none of it.
func (e *Engine) forget(ctx context.Context, w *work) error {
	if w.chunks == 0 && len(w.known) == 0 {
		return nil
	}
	if err := e.forgetChunks(ctx, w.ref); err != nil {
		return err
	}
	w.row.Entries, w.fresh = nil, nil
	return e.loadEntries(ctx, w)
}

// leaveTarget claims the row for another target record in place of one that is no more: first the row no longer names that
// one nor its thread, then the rest of that memory goes. Whoever is cut off in between leaves an open create behind.
func (e *Engine) leaveTarget(ctx context.Context, w *work) error {
	w.row.Target, w.row.How, w.row.Fields, w.row.Tag, w.row.Lock, w.row.Worked, w.row.Began = "", "", nil, "", "", false, time.Time{}
	w.row.Entries, w.fresh = nil, nil
	e.adding(w, w.want.Entries[:min(1, len(w.want.Entries))])
	if err := e.ensure(ctx, w, nil); err != nil {
		return err
	}
	if err := e.forget(ctx, w); err != nil {
		return e.release(ctx, w, err)
	}
	return nil
}

func (e *Engine) forgetChunks(ctx context.Context, ref desk.Ref) error {
	return e.each(ctx, e.ledgerPart(ref), "entries/", func(r Row) error { return e.rows.Delete(ctx, r.Key, r.Version) })
}

// instead goes on with another target record, of which nothing is known.
func (e *Engine) instead(ctx context.Context, w *work, target, how string) error {
	if err := e.leaveTarget(ctx, w); err != nil {
		return err
	}
	w.row.Target, w.row.How, w.adds = target, how, nil
	if err := e.ensure(ctx, w, nil); err != nil {
		return err
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	if err != nil {
		return e.release(ctx, w, fmt.Errorf("read target %s, %s for %s: %w", target, how, w.ref, err))
	}
	return e.converge(ctx, ctx, w, now, false, true)
}

// gone is what happens when a migrated record is no longer in the target.
func (e *Engine) gone(ctx context.Context, w *work) error {
	policy := e.mig.OnTargetGone
	if w.before != nil && w.before.Delete || w.row.Look {
		policy = RecreateGone // we deleted it: as the source had, which has it again, or an undo did
	}
	if a := w.heldBefore.Answer; a != nil && w.heldBefore.Gone {
		switch a.Choice {
		case ChooseCreate:
			policy = RecreateGone
		case ChooseLink:
			return e.instead(ctx, w, a.Value.First(), "decided")
		}
	} else if f, ok := e.Target.(desk.Finder); ok && w.run.Adopted {
		// A ledger of an earlier day may name a record that was made again since.
		ids, err := f.Find(ctx, w.ref)
		if err != nil {
			return e.release(ctx, w, fmt.Errorf("look for %s in the target: %w", w.ref, err))
		}
		if len(ids) == 1 && ids[0] != w.row.Target {
			return e.instead(ctx, w, ids[0], "found")
		}
	}
	if _, ok := e.Target.(desk.Finder); !ok && w.run.Adopted && policy == RecreateGone && w.heldBefore.Answer == nil {
		policy = HoldGone // it may have been made again since, and nobody can look
	}
	switch policy {
	case RecreateGone:
		if err := e.leaveTarget(ctx, w); err != nil {
			return err
		}
		now, err := e.create(ctx, w)
		if err != nil {
			return err
		}
		return e.converge(ctx, ctx, w, now, true, false)
	case IgnoreGone:
		w.reason = "deleted in the target"
		return e.commit(ctx, w, OutExcluded)
	}
	w.held.Gone = true
	return e.commit(ctx, w, OutHeld)
}

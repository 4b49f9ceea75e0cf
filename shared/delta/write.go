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
// work any more.
func (e *Engine) carryOut(ctx, intake context.Context, w *work) error {
	if w.row.Held || w.row.Claim != nil { // a cut-off may have left a held row that the ledger does not know of
		v, err := e.get(ctx, e.heldKey(w.ref), &w.heldBefore)
		if err != nil {
			return err
		}
		w.heldVersion = v
	}
	w.held = Held{Ref: w.ref, Run: w.run.ID, Scope: w.run.Scope}
	if w.run.Dry {
		return e.rehearse(ctx, w)
	}
	if w.rec.Event == desk.Deleted || w.rec.Event == desk.Spam {
		return e.carryOutEvent(ctx, w)
	}
	if w.row.How == "fallback" {
		w.row.Target, w.row.How = "", "" // somebody stood in: look for the right one again
	}
	w.before, w.takenOver = w.row.Claim, w.row.Claim != nil
	created, adopted := false, false
	var now desk.Record
	if w.row.Target == "" {
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
		if err := e.fence(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
		id, how, err := e.find(ctx, w, w.run.Adopt || w.takenOver || e.looks(w.row))
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
			if err := e.forget(ctx, w); err != nil {
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
// the claim later can tell our half-done write from the work of the target's people.
func (e *Engine) claim(ctx context.Context, w *work, intent map[desk.Field]base) error {
	row := w.row
	row.Digest = "" // from here on the target may be something else
	now := e.Now().UTC()
	row.Claim = &claim{
		By: e.NewID(), Session: e.Session, At: now, Create: row.Target == "" && !w.removing, Intent: intent, Answered: w.answered(),
		Remove: w.removing,
		Until:  now.Add(e.Timeout + e.TargetSide.Settle + e.TargetSide.FindLag),
	}
	if w.run.Kind == Undo {
		row.Claim.Undo = w.run.Undoes
	}
	version, err := e.put(ctx, e.ledgerKey(w.ref), w.row.version, row)
	if err != nil {
		return err
	}
	w.row, w.claimed = row, row.Claim.By
	w.row.version = version
	return nil
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
	c.Create, c.Intent, c.Answered = w.row.Target == "", intent, w.answered()
	w.row.Claim = &c
	return e.saveRow(ctx, w)
}

// release gives the claim back after an error that came before any effect, or after effects that are all known, and returns
// the error. If it was taken over, what its first holder did is still open: then it stays, free for the next one.
func (e *Engine) release(ctx context.Context, w *work, cause error) error {
	if w.claimed == "" {
		return cause // nothing is ours yet
	}
	if !w.takenOver {
		w.row.Claim = nil
		return errors.Join(cause, e.saveRow(ctx, w))
	}
	return e.unclaim(ctx, w, cause, e.Now())
}

// doubt leaves the claim standing after an error that leaves open whether a write took effect.
func (e *Engine) doubt(ctx context.Context, w *work, cause error) error {
	return e.unclaim(ctx, w, cause, e.Now().Add(e.TargetSide.Settle+e.TargetSide.FindLag))
}

func (e *Engine) unclaim(ctx context.Context, w *work, cause error, until time.Time) error {
	if w.claimed == "" {
		return cause
	}
	c := *w.row.Claim
	c.Until, c.Session = until.UTC(), e.Session
	w.row.Claim = &c
	return errors.Join(cause, e.saveRow(ctx, w))
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

// looks tells whether a record that an undo removed is looked for before it is created again: where the target can search.
func (e *Engine) looks(row ledgerRow) bool {
	_, can := e.Target.(desk.Finder)
	return row.Look && can
}

// find looks for the record in the target: people and companies always, because they may be there from before the migration;
// tickets only when a create may have happened already. It leaves w.held.Doubt set when a person has to say.
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
	if lookFirst {
		f, ok := e.Target.(desk.Finder)
		_, matches := e.Target.(desk.Matcher)
		switch {
		case ok:
			ids, err := f.Find(ctx, w.ref)
			if err != nil {
				return "", "", fmt.Errorf("look for %s in the target: %w", w.ref, err)
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
	_, searched := e.Target.(desk.Finder)
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

// create makes the record. The claim with the intent to create is there already.
func (e *Engine) create(ctx context.Context, w *work) (desk.Record, error) {
	entries := slices.DeleteFunc(slices.Clone(w.want.Entries), func(en desk.Entry) bool {
		_, there := w.known[en.ID] // with a ticket that is about to be merged into this one
		return there
	})
	if err := e.stageFiles(ctx, w, entries); err != nil {
		return desk.Record{}, e.release(ctx, w, err)
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
			return desk.Record{}, e.release(ctx, w, fmt.Errorf("read back target %s of %s: %w", w.row.Target, w.ref, err))
		}
		now = &r
	}
	// Until everything is there the base is what the target looks like just after the create: what it lacks still differs
	// from the source and will be applied, what people change from now on is told apart.
	w.row.Fields = map[desk.Field]base{}
	for f := range w.want.Fields {
		d := now.Fields[f].Digest()
		w.row.Fields[f] = newBase(d, d)
	}
	return *now, nil
}

// noteEntries remembers what a write says, and what a thread shows.
func (e *Engine) noteEntries(w *work, written desk.Written, thread []desk.Entry) {
	byMarker := map[string]string{}
	for _, en := range thread {
		if en.Marker != "" {
			byMarker[en.Marker] = en.ID
		}
	}
	maps.Copy(byMarker, written.Entries)
	for _, en := range w.want.Entries {
		if id, ok := byMarker[en.Marker]; ok {
			if k, known := w.known[en.ID]; !known || k.Target == "" {
				w.remember(en.ID, entryRow{Target: id, Digest: entryDigest(en)})
			}
		}
	}
}

// converge brings an existing target record to what is wanted: entries first, then fields, because desks move fields when
// entries arrive.
func (e *Engine) converge(ctx, intake context.Context, w *work, now desk.Record, created, adopted bool) error {
	if now.Ref.ID != w.row.Target && now.Ref.ID != "" {
		// The target's people merged it: its thread goes on there, its fields are theirs.
		w.row.Target, w.row.How = now.Ref.ID, "merged in the target"
	}
	merged := w.row.How == "merged in the target"
	if w.takenOver {
		e.tellOurs(w, now)
	}
	if !created {
		if err := e.fence(ctx, w); err != nil {
			return e.release(ctx, w, err)
		}
	}
	before := now
	now, err := e.mergeAliases(ctx, w, now)
	if err != nil {
		return e.release(ctx, w, err) // a merge that is open is seen by the next one
	}
	// What our own merge has moved (desks unite the people of both tickets) nobody else has changed.
	for f, b := range w.row.Fields {
		if d := now.Fields[f].Digest(); d != b.tgt() && before.Fields[f].Digest() == b.tgt() {
			w.row.Fields = maps.Clone(w.row.Fields)
			w.row.Fields[f] = base{Src: b.Src, Tgt: d, Kept: b.Kept}
		}
	}
	e.noteEntries(w, desk.Written{}, now.Entries)
	w.recovered = w.recovered || w.takenOver && len(w.fresh) > 0
	defs, err := e.definitions(ctx)
	if err != nil {
		return e.release(ctx, w, err)
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
	missing, changed := e.missing(w)
	im := imageOf(w, m, now, missing, changed)
	if len(changed) > 0 {
		if err := e.revise(ctx, w, im, changed); err != nil {
			return e.release(ctx, w, err)
		}
		// Revising has moved the target's lock.
		if now, err = e.Target.Read(ctx, e.targetRef(w)); err != nil {
			return e.release(ctx, w, err)
		}
	}
	if w.takenOver && !created && e.TargetSide.EntryMarker == "" && len(missing) > 0 {
		// Somebody may have added these entries and died before saying so, and the target cannot show which ones are ours.
		switch a := w.heldBefore.Answer; {
		case a != nil && a.Choice == ChooseLink:
			for _, en := range missing {
				w.remember(en.ID, entryRow{Digest: entryDigest(en)})
			}
			missing = nil
		case a == nil:
			w.held.Doubt = fmt.Sprintf("%d entries may have been added before an answer was lost, and this target cannot show which entries are ours", len(missing))
			w.held.Candidates = []string{w.row.Target}
			return e.commit(ctx, w, OutHeld)
		}
	}
	w.takenOver = false // from here on nothing is open any more: what was there has been seen
	if err := e.stageFiles(ctx, w, missing); err != nil {
		return e.release(ctx, w, err)
	}
	todo := e.changes(w, m, now, missing)
	if len(todo) > 0 {
		intent := map[desk.Field]base{}
		for f, v := range m.Apply {
			intent[f] = newBase(w.want.Fields[f].Digest(), v.Digest())
		}
		if err := e.ensure(ctx, w, intent); err != nil { // from here on a cut-off goes on instead of looking
			return err
		}
		if !created {
			if err := e.before(ctx, w, im); err != nil {
				return e.release(ctx, w, err)
			}
		}
	}
	after := now
	for _, ch := range todo {
		if intake.Err() != nil && len(w.wrote) > 0 {
			return e.release(ctx, w, errLater)
		}
		written, err := e.Target.Apply(ctx, e.targetRef(w), ch)
		w.losses = append(w.losses, written.Losses...)
		e.noteEntries(w, written, nil)
		if err != nil {
			err = fmt.Errorf("write target %s of %s: %w", w.row.Target, w.ref, err)
			switch desk.Class(err) {
			case desk.ErrConflict, desk.ErrRejected, desk.ErrUnauthorized, desk.ErrThrottled:
				return e.release(ctx, w, err) // nothing was done beyond what Written says
			}
			return e.doubt(ctx, w, err)
		}
		for _, en := range ch.Entries {
			if _, ok := w.known[en.ID]; !ok {
				w.remember(en.ID, entryRow{Digest: entryDigest(e.original(w, en.ID))})
			}
			w.wrote = append(w.wrote, "entry "+en.ID)
		}
		for f := range ch.Fields {
			if _, ok := m.Apply[f]; ok {
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
			return e.release(ctx, w, fmt.Errorf("read back target %s of %s: %w", w.row.Target, w.ref, err))
		}
	}
	e.rebase(w, m, after, merged)
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
	return e.commit(ctx, w, out)
}

// tellOurs finds out which fields of the target are as a cut-off writer of ours left them, so that its half-done work is not
// taken for the work of people: those that say what it intended, and those in which, as the desk says, nobody else had the
// last word (a desk may move fields by itself when an entry arrives). They become a base that only the source has left.
func (e *Engine) tellOurs(w *work, now desk.Record) {
	fields := maps.Clone(w.row.Fields)
	if fields == nil {
		fields = map[desk.Field]base{}
	}
	for f := range w.want.Fields {
		t := now.Fields[f].Digest()
		b, intended := w.before.Intent[f]
		switch {
		case intended && t == b.tgt():
			fields[f], w.recovered = b, true
			w.ours = append(w.ours, f)
		case now.Touched != nil && !now.Touched[f] && !fields[f].Kept:
			if b, based := fields[f]; !based || t != b.tgt() {
				fields[f] = base{Src: "cut off", Tgt: t}
				w.ours = append(w.ours, f)
			}
		}
	}
	w.row.Fields = fields
}

// missing returns the entries to add, and those that changed since they were copied and are to be revised; what the target
// cannot revise is held.
func (e *Engine) missing(w *work) (add, revise []desk.Entry) {
	_, can := e.Target.(desk.Reviser)
	for _, en := range w.want.Entries {
		k, ok := w.known[en.ID]
		d := entryDigest(en)
		switch {
		case !ok:
			add = append(add, en)
		case k.Digest == d || w.heldBefore.acceptedEntry(en.ID, d):
			k.Digest = d
			w.remember(en.ID, k)
		case !can || k.Target == "":
			w.held.Entries = append(w.held.Entries, heldEntry{Entry: en.ID, Digest: d})
		default:
			revise = append(revise, en)
		}
	}
	return add, revise
}

// revise changes entries of ours in the target.
func (e *Engine) revise(ctx context.Context, w *work, im image, changed []desk.Entry) error {
	if w.claimed == "" {
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
	}
	if err := e.before(ctx, w, im); err != nil {
		return err
	}
	for _, en := range changed {
		d, one := entryDigest(en), []desk.Entry{en}
		if err := e.stageFiles(ctx, w, one); err != nil {
			return err
		}
		one[0].ID = w.known[en.ID].Target
		if err := e.Target.(desk.Reviser).Revise(ctx, e.targetRef(w), one[0]); err != nil {
			return fmt.Errorf("revise entry %s of %s: %w", en.ID, w.ref, err)
		}
		w.remember(en.ID, entryRow{Target: one[0].ID, Digest: d})
		w.wrote = append(w.wrote, "entry "+en.ID+" revised")
	}
	return nil
}

func (e *Engine) original(w *work, id string) desk.Entry {
	i := slices.IndexFunc(w.want.Entries, func(en desk.Entry) bool { return en.ID == id })
	return w.want.Entries[i]
}

// changes cuts the work into calls of Apply: entries with files one by one, others a handful at a time, fields last. Desks
// move the status when a reply arrives, so wherever entries are added the status that should be there goes along.
func (e *Engine) changes(w *work, m merge3, now desk.Record, missing []desk.Entry) []desk.Change {
	var out []desk.Change
	for _, en := range missing {
		if n := len(out); n > 0 && len(en.Files) == 0 && len(out[n-1].Entries) < 8 && len(out[n-1].Entries[0].Files) == 0 {
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
// kept fields keep the base they had, so that the question stays open.
func (e *Engine) rebase(w *work, m merge3, after desk.Record, merged bool) {
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
			if b, ok := old[f]; ok {
				w.row.Fields[f] = b
			}
			continue
		}
		b := newBase(v.Digest(), after.Fields[f].Digest())
		b.Kept = accept[f] && slices.Contains(m.Kept, f)
		w.row.Fields[f] = b
	}
	for f, v := range m.Apply {
		if after.Fields[f].Digest() != v.Digest() {
			w.losses = append(w.losses, desk.Loss{Class: "normalised", What: fmt.Sprintf("%s of %s", f, w.ref)})
		}
	}
}

// commit writes the row that says what came of it, and ends the claim.
func (e *Engine) commit(ctx context.Context, w *work, out Outcome) error {
	if w.claimed == "" && !w.held.empty() {
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
	}
	if err := e.await(ctx, w); err != nil {
		return e.release(ctx, w, err)
	}
	if err := e.keepHeld(ctx, w.held, w.heldBefore, w.heldVersion); err != nil {
		return e.release(ctx, w, err)
	}
	row := w.row // as it is until the commit succeeds
	w.finish(out, cmpOr(w.held.reason(), w.reason))
	if out == OutHeld {
		w.out.Next = w.held.next()
	}
	w.done = false
	w.row.Held, w.row.Gone, w.row.Unfinished, w.row.Attempts = !w.held.empty(), "", false, attempts{}
	w.row.Began, w.row.Digest, w.row.Rules = w.rec.Began.UTC(), w.digest, e.rules
	if w.row.Look = w.row.Look && w.row.Target == ""; len(w.wrote) > 0 || w.recovered {
		w.row.Wrote = w.run.ID
	}
	if w.held.Doubt != "" {
		// Still in doubt: the claim stays, free for the next one, so that it is looked at again and never simply written.
		c := *w.row.Claim
		c.Until, w.row.Claim, w.row.Digest = e.Now().UTC(), &c, ""
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

// forget drops the memory of a thread that is no more, before another target record takes its place.
func (e *Engine) forget(ctx context.Context, w *work) error {
	if w.chunks == 0 && len(w.row.Entries) == 0 {
		return nil
	}
	if err := e.each(ctx, e.ledgerPart(w.ref), "entries/", func(r Row) error { return e.rows.Delete(ctx, r.Key, r.Version) }); err != nil {
		return err
	}
	w.row.Entries = nil
	return e.loadEntries(ctx, w)
}

// gone is what happens when a migrated record is no longer in the target.
func (e *Engine) gone(ctx context.Context, w *work) error {
	policy := e.mig.OnTargetGone
	if w.row.Gone == desk.Deleted {
		policy = RecreateGone // we deleted it, as the source had; the source has it again
	}
	if a := w.heldBefore.Answer; a != nil && w.heldBefore.Gone {
		switch a.Choice {
		case ChooseCreate:
			policy = RecreateGone
		case ChooseLink:
			w.row.Target, w.row.How, w.row.Fields = a.Value.First(), "decided", nil
			if err := e.forget(ctx, w); err != nil {
				return e.release(ctx, w, err)
			}
			now, err := e.Target.Read(ctx, e.targetRef(w))
			if err != nil {
				return e.release(ctx, w, fmt.Errorf("read target %s, decided for %s: %w", w.row.Target, w.ref, err))
			}
			return e.converge(ctx, ctx, w, now, false, true)
		}
	}
	switch policy {
	case RecreateGone:
		// The claim becomes one to create before anything is created, and the memory of the old thread goes with it.
		w.row.Target, w.row.Fields = "", nil
		if err := e.ensure(ctx, w, nil); err != nil {
			return err
		}
		if err := e.forget(ctx, w); err != nil {
			return e.release(ctx, w, err)
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

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

// aliases are the tickets that were merged into w's record in the source.
func (w *work) aliases() []string {
	if w.ref.Kind != desk.Ticket {
		return nil // people and companies that were merged keep the records they have
	}
	ids := slices.Clone(w.rec.Aliases)
	if w.it.Ref != w.ref && w.it.Ref.Kind == w.ref.Kind && !slices.Contains(ids, w.it.Ref.ID) {
		ids = append(ids, w.it.Ref.ID)
	}
	return ids
}

// fence makes sure, before anything is written, that nobody is still at work on a ticket that was merged into w's record: its
// thread is about to become part of w's, and what is in both would be there twice. A claim is waited for; whoever read the
// ticket before the merge and has not claimed it yet finds the row moved. Then w learns again which entries are there.
func (e *Engine) fence(ctx context.Context, w *work) error {
	open := false
	for _, id := range w.aliases() {
		if _, err := update(ctx, e, e.ledgerKey(desk.Ref{Kind: w.ref.Kind, ID: id}), func(r *ledgerRow) error {
			if r.Into != "" {
				return errKeep
			}
			open = true
			if err := e.free(*r); err != nil {
				return err
			}
			r.Joining = w.ref.ID                               // also where it says so already: that may be of a merge that the source took back since
			r.sawMerged(w, desk.Ref{Kind: w.ref.Kind, ID: id}) // a reading that still shows it on its own is behind from here on
			return nil
		}); err != nil {
			return err
		}
	}
	if !open {
		return nil
	}
	ours := map[string]entryRow{}
	for _, id := range w.fresh {
		ours[id] = w.known[id]
	}
	if err := e.loadEntries(ctx, w); err != nil {
		return err
	}
	for id, k := range ours {
		w.remember(id, k)
	}
	return nil
}

// unknown tells whether a ticket that was merged into w's may be in the target, and the ledger does not say where: a create is open, or
// the ledger is of an earlier day.
func (w *work) unknown(row ledgerRow) bool {
	return row.Target == "" && row.Into == "" && (row.Claim != nil || w.run.adopted())
}

// lend looks, before a record is created, for those of its aliases that may be in the target without the ledger's knowing: what such a ticket holds will be
// in the record's own when they have been merged, and is not written there as well.
func (e *Engine) lend(ctx context.Context, w *work) error {
	if _, can := e.Target.(desk.Merger); !can || e.mig.OnMerged != Mirror {
		return nil
	}
	for _, id := range w.aliases() {
		ref := desk.Ref{Kind: w.ref.Kind, ID: id}
		var row ledgerRow
		if _, err := e.get(ctx, e.ledgerKey(ref), &row); err != nil {
			return err
		}
		if !w.unknown(row) {
			continue
		}
		there, _, err := e.seek(ctx, w, ref, &row)
		if err != nil {
			return err
		}
		if there.Ref.ID == "" || row.How == mergedThere {
			continue
		}
		shown := w.shownIn(there)
		for _, en := range w.want.Entries {
			k, ok := shown[en.ID]
			if _, known := w.known[en.ID]; known || !ok && (row.Claim == nil || !slices.Contains(row.Claim.Adds, en.ID)) {
				continue
			}
			w.lent[en.ID] = id
			if w.known[en.ID] = newEntryRow(en, ""); ok {
				w.known[en.ID] = k
			}
		}
	}
	return nil
}

// shownIn returns which of w's entries a ticket of the target shows, where it shows whose they are.
func (w *work) shownIn(there desk.Record) map[string]entryRow {
	shown := map[string]desk.Entry{}
	for _, en := range there.Entries {
		if en.Marker != "" {
			shown[en.Marker] = en
		}
	}
	found := map[string]entryRow{}
	for _, en := range w.want.Entries {
		if t, ok := shown[en.Marker]; ok {
			found[en.ID] = foundEntryRow(en, t)
		}
	}
	return found
}

// seek looks for the ticket in the target of one that was merged into w's, where the ledger does not know it; row gets what it found.
// Where the search shows merged tickets, that may be one into which the target's people have merged what a create made: then it is
// not for us to merge, as if the ledger had known it (see mergeTarget), and neither is one of which that is open. others are more that
// carry its id.
func (e *Engine) seek(ctx context.Context, w *work, ref desk.Ref, row *ledgerRow) (there desk.Record, others []string, err error) {
	f, ok := e.Target.(desk.Finder)
	if !ok {
		return there, nil, nil
	}
	ids, err := e.search(ctx, f, ref, row.Was)
	if err != nil || len(ids) == 0 {
		return there, nil, err
	}
	row.Target, row.How = ids[0], "found"
	there, err = e.Target.Read(ctx, desk.Ref{Kind: ref.Kind, ID: row.Target})
	if errors.Is(err, desk.ErrNotFound) {
		return desk.Record{}, ids[1:], nil
	}
	if err != nil {
		return there, nil, fmt.Errorf("read target %s of %s: %w", row.Target, ref, err)
	}
	merged, _, err := e.mergedInto(ctx, w, there)
	theirs := merged > 0
	if err == nil && !theirs {
		theirs, err = e.anothers(ctx, w, there)
	}
	if theirs && there.Ref.ID != w.row.Target {
		row.How = mergedThere
	}
	return there, ids[1:], err
}

// joint says where the thread of a merged ticket is in the target.
type joint int

const (
	together joint = iota // part of the survivor's
	apart                 // in a ticket of its own, or one that its people chose
	nowhere
)

// mergeAliases carries merges of the source over: tickets that were merged into w's record and have targets of their own. It
// is done before anything is added to the thread, so that what both targets hold is there once. now is w's target as it was read
// before. It tells whether the target is another one now.
//
// Per ticket: the merge, then what the survivor's row knows of the thread, then the merged ticket's row. So as long as that
// one does not say Into, the merge is looked at again.
func (e *Engine) mergeAliases(ctx context.Context, w *work, now desk.Record) (moved bool, err error) {
	all := w.aliases()
	for _, id := range all {
		ref := desk.Ref{Kind: w.ref.Kind, ID: id}
		var row ledgerRow
		if _, err := e.get(ctx, e.ledgerKey(ref), &row); err != nil {
			return moved, err
		}
		if row.Claim != nil { // an undo was about to take the merge back, and was cut off: it is carried over again
			row.Into, row.Apart = "", false
		}
		if row.Into == w.ref.ID || row.Into != "" && slices.Contains(all, row.Into) {
			if row.Awaited { // whoever carried it over was cut off before he told those who wait
				if err := e.wake(ctx, w.run.ID, ref); err != nil {
					return moved, err
				}
			}
			continue
		}
		if w.claimed == "" {
			if err := e.claim(ctx, w, nil); err != nil {
				return moved, err
			}
		}
		if row.Claim != nil {
			// Somebody was carrying it out. It is waited for, and a create that is open is looked up: the merge must not leave
			// a ticket behind that nobody knows of.
			if err := e.free(row); err != nil {
				return moved, err
			}
		}
		var found map[string]entryRow // entries of it that the ledger does not know
		if w.unknown(row) {
			if _, ok := e.Target.(desk.Finder); ok {
				there, others, err := e.seek(ctx, w, ref, &row)
				if err != nil {
					return moved, err
				}
				found = w.shownIn(there)
				if len(others) > 0 {
					w.losses = append(w.losses, desk.Loss{Class: "in-doubt", What: fmt.Sprintf("%s, which was merged in the source since, is in the target more than once; besides %s, which was seen to, there is %s", ref, row.Target, strings.Join(few(others), ", "))})
				}
			} else if row.Claim != nil && row.Claim.Create {
				w.losses = append(w.losses, desk.Loss{Class: "in-doubt", What: ref.String() + " may have been created before an answer was lost, and was merged in the source since; this target cannot be searched for it"})
			}
		}
		did, how, left, err := e.mergeTarget(ctx, w, ref, &row, now)
		if err != nil {
			return moved, fmt.Errorf("carry over that %s was merged into %s: %w", ref, w.ref, err)
		}
		moved = moved || how == together // by us, or since now was read by the target's people
		if did {
			w.wrote = append(w.wrote, "merged "+ref.String())
		}
		if c := row.Claim; c != nil && len(c.Revised) > 0 && how == together {
			now, err := e.Target.Read(ctx, e.targetRef(w))
			if err != nil {
				return moved, fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
			}
			e.tellRevised(w, c, now)
		}
		if doubts := row.doubtful(); how == together && len(doubts) > 0 { // what is in doubt there is in doubt here now, before that row forgets it
			w.open = append(slices.Clip(w.open), doubts...)
			c := *w.row.Claim
			c.Adds, w.row.Claim = w.doubtful(), &c
			if err := e.saveRow(ctx, w); err != nil {
				return moved, err
			}
		}
		if err := e.joinEntries(ctx, w, id, how); err != nil {
			return moved, err
		}
		if err := e.dropHeld(ctx, ref, row); err != nil {
			return moved, err
		}
		if _, err := update(ctx, e, e.ledgerKey(ref), func(r *ledgerRow) error {
			e.leftBy(r, left)
			r.sawMerged(w, ref)
			r.Into, r.Target, r.How, r.Claim, r.Joining = w.ref.ID, row.Target, row.How, nil, ""
			r.Apart, r.Held, r.Gone = how == apart, false, ""
			if r.Open = nil; how == apart {
				r.Open = row.doubtful() // should the source take it out again
			}
			switch {
			case how == nowhere:
				r.Entries = nil
			case how == apart && len(found) > 0: // what the source does to them is done to these copies, too
				if err := e.keepEntries(ctx, &work{ref: ref, known: found, fresh: slices.Sorted(maps.Keys(found))}, r); err != nil {
					return err
				}
			}
			r.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Seen: w.it.Stamp.At, Outcome: OutUpdated, Why: "merged into " + w.ref.String(), Blind: true})
			return nil
		}); err != nil {
			return moved, err
		}
		if row.Awaited {
			if err := e.wake(ctx, w.run.ID, ref); err != nil {
				return moved, err
			}
		}
	}
	return moved, nil
}

// mergeTarget does to the target of a merged ticket what the policy says, and tells where its thread is afterwards. Where the
// target's people have merged both already, either way round, there is nothing to do; where they merged it into a third
// ticket, that one is left alone. Two that show the same entry, because the merge was not followed before, stay apart.
func (e *Engine) mergeTarget(ctx context.Context, w *work, ref desk.Ref, row *ledgerRow, now desk.Record) (did bool, how joint, left desk.Fields, err error) {
	if row.Target == "" || row.Into != "" && !row.Apart {
		return false, nowhere, nil, nil // it never had a ticket, or left it behind in the one it was merged into before
	}
	from := desk.Ref{Kind: ref.Kind, ID: row.Target}
	old, err := e.Target.Read(ctx, from)
	switch {
	case errors.Is(err, desk.ErrNotFound):
		return false, nowhere, nil, e.settled(*row) // what a desk does not show yet is not gone
	case err != nil:
		return false, apart, nil, err
	case old.Ref.ID == w.row.Target:
		return false, together, nil, nil
	case old.Ref.ID != row.Target:
		row.Target, row.How = old.Ref.ID, mergedThere
		return false, apart, nil, nil
	case row.How == mergedThere, row.Into != "":
		return false, apart, nil, nil
	}
	twice, err := e.wouldDouble(ctx, w, ref, now, old)
	if err != nil {
		return false, apart, nil, err
	}
	switch m, can := e.Target.(desk.Merger); {
	case e.mig.OnMerged == Mirror && can && !twice && w.run.Dry:
		return true, together, nil, nil
	case e.mig.OnMerged == Mirror && can && !twice:
		if err := e.before(ctx, w, image{Ref: w.ref, Target: w.row.Target, Final: ref.String() + " was merged into it"}); err != nil {
			return false, apart, nil, err
		}
		return true, together, nil, m.Merge(ctx, from, e.targetRef(w), old.Lock)
	}
	policy := e.mig.OnMerged
	if policy == Mirror {
		policy = Close // as near as such a desk comes
	}
	if left = e.leaving(policy, old); w.run.Dry {
		return false, apart, left, nil
	}
	if row.Claim != nil { // of what it was about to write nobody knows any more when this claim ends
		a := &work{run: w.run, ref: ref, row: *row, before: row.Claim, takenOver: true}
		e.unread(a, e.untagged(a, old), false)
		if _, err := update(ctx, e, e.ledgerKey(ref), func(r *ledgerRow) error { r.Fields = a.row.Fields; return nil }); err != nil {
			return false, apart, nil, err
		}
	}
	if len(left) > 0 {
		err = e.before(ctx, w, imageOfEvent(ref, *row, old, left))
	}
	if err == nil && len(left) > 0 { // noted before it is there: as long as the merge is not carried over it is looked at again
		_, err = update(ctx, e, e.ledgerKey(ref), func(r *ledgerRow) error { e.leftBy(r, left); return nil })
	}
	if err == nil && len(left) > 0 {
		left, err = e.writeLeaving(ctx, from, left, old.Lock)
	}
	return false, apart, left, err
}

// wouldDouble tells whether w's own ticket in the target, now, shows an entry that the ticket of ref, old, shows, too. The ledger may be of
// an earlier day and not know it of either.
func (e *Engine) wouldDouble(ctx context.Context, w *work, ref desk.Ref, now, old desk.Record) (bool, error) {
	shown := map[string]bool{}
	for _, en := range now.Entries {
		shown[en.Marker] = shown[en.Marker] || en.Marker != "" && !emptied(en)
	}
	if slices.ContainsFunc(old.Entries, func(en desk.Entry) bool { return shown[en.Marker] && !emptied(en) }) {
		return true, nil
	}
	theirs, err := e.entriesOf(ctx, ref, &ledgerRow{})
	for id, k := range theirs {
		if own, ok := w.known[id]; ok && w.lent[id] == "" && own.readable() && k.readable() {
			return true, err
		}
	}
	return false, err
}

// joinEntries keeps in mind for good, or no longer, what was lent by a ticket that was merged into w's record.
func (e *Engine) joinEntries(ctx context.Context, w *work, alias string, how joint) error {
	some := false
	for entry, from := range w.lent {
		if from != alias {
			continue
		}
		delete(w.lent, entry)
		if how == together {
			w.fresh, some = append(w.fresh, entry), true
		} else {
			delete(w.known, entry) // this thread does not have it
		}
	}
	if how == nowhere {
		return e.forgetChunks(ctx, desk.Ref{Kind: w.ref.Kind, ID: alias})
	}
	if !some {
		return nil
	}
	return e.saveRow(ctx, w)
}

// dropHeld takes back what was asked about a record that no longer is one of its own.
func (e *Engine) dropHeld(ctx context.Context, ref desk.Ref, row ledgerRow) error {
	if !row.Held && row.Claim == nil { // a cut-off may have left a held row that the ledger does not know of
		return nil
	}
	var h Held
	version, err := e.get(ctx, e.heldKey(ref), &h)
	if err != nil {
		return err
	}
	return e.keepHeld(ctx, Held{Ref: ref}, h, version)
}

// part takes a record back that the source has taken out of the one into which it was merged. Its own ticket in the target
// goes on where there is one. If it went into the survivor's, which no desk takes apart, it gets a new one: for the entries
// that way left the survivor's ticket the policy split says what becomes of the copies. If the source has turned the merge
// round, the survivor's ticket is the one that goes on.
func (e *Engine) part(ctx context.Context, w *work) error {
	into := desk.Ref{Kind: w.ref.Kind, ID: w.row.Into}
	var other ledgerRow
	known, err := e.entriesOf(ctx, into, &other)
	if err != nil {
		return err
	}
	own := w.row.Apart && w.row.Target != ""
	w.row.Into, w.row.Apart = "", false
	switch {
	case own:
		w.parted = true
		if err := e.gain(ctx, w); err != nil {
			return err
		}
	case slices.Contains(w.aliases(), into.ID) && other.Target != "":
		w.row.Was, w.row.Target, w.row.How, w.row.Fields = nil, other.Target, other.How, map[desk.Field]base{}
		for f, b := range other.Fields { // it says what the other one said; this one says something else
			w.row.Fields[f] = newBase("of "+into.ID, b.tgt())
		}
		for id, k := range known {
			w.remember(id, k)
			delete(w.lent, id)
		}
	default:
		if !slices.Contains(w.row.Was, into.ID) {
			w.row.Was = append(slices.Clip(w.row.Was), into.ID)
		}
		w.row.Target, w.row.How, w.row.Fields, w.row.Began = "", "", nil, time.Time{}
	}
	return e.claim(ctx, w, nil)
}

// arrivedAs notes that tickets which never were in the target have been merged into one that is there and does not move: links to
// them, those that wait and those to come, lead to that one. The source may have told of the merge when that one was gone. A ledger of an
// earlier day may not know which of them are in the target.
func (e *Engine) arrivedAs(ctx context.Context, w *work) error {
	if w.run.Dry || w.ref.Kind != desk.Ticket || len(w.aliases()) == 0 {
		return nil
	}
	if there, err := e.mislaid(ctx, w, w.ref, w.row); err != nil || w.row.Target == "" && len(there) == 0 {
		return err
	}
	for _, id := range w.aliases() {
		ref, awaited := desk.Ref{Kind: w.ref.Kind, ID: id}, false
		if _, err := update(ctx, e, e.ledgerKey(ref), func(r *ledgerRow) error {
			if awaited = r.Awaited; r.Target != "" || r.Into != "" || r.Claim != nil {
				return errKeep
			}
			if there, err := e.mislaid(ctx, w, ref, *r); err != nil || len(there) > 0 {
				return cmpOr(err, errKeep)
			}
			r.Into = w.ref.ID
			r.sawMerged(w, ref)
			return nil
		}); err != nil {
			return err
		}
		if !awaited {
			continue
		}
		if err := e.wake(ctx, w.run.ID, ref); err != nil {
			return err
		}
	}
	return nil
}

// leave carries over that a ticket was merged into one that does not move: as it cannot be merged in the target, its own
// target is closed or tagged, unless the policy says ignore.
func (e *Engine) leave(ctx context.Context, w *work, why string) error {
	into := w.ref
	w.ref = w.it.Ref
	if err := e.loadRow(ctx, w); err != nil {
		return err
	}
	if err := errors.Join(e.free(w.row), e.settled(w.row)); err != nil {
		return err
	}
	w.takeOver()
	reason := fmt.Sprintf("merged into %s in the source, which does not move: %s", into, why)
	if w.row.Target == "" && w.row.Claim != nil {
		// A create is open. If it took effect, what it made is what is left behind.
		w.held = Held{Ref: w.ref, Run: w.run.ID, Scope: w.run.Scope}
		if err := e.loadHeld(ctx, w); err != nil {
			return err
		}
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
		id, _, err := e.find(ctx, w, true)
		if err != nil {
			return e.release(ctx, w, err)
		}
		if w.held.Doubt != "" {
			return e.commit(ctx, w, OutHeld)
		}
		if w.row.Target, w.row.How = id, "found"; id == "" {
			w.row.How = ""
			w.finish(OutExcluded, reason)
			return e.left(ctx, w)
		}
	}
	settled := w.row.Target == "" || w.row.Into != "" && w.row.Claim == nil || e.mig.OnMerged == Ignore
	if settled || w.run.Mode == CreateOnly {
		if w.finish(OutExcluded, reason); !settled {
			w.finish(OutExcluded, leftByMode)
			w.later = UpdateOnly
		}
		if w.claimed != "" {
			return e.left(ctx, w) // what was open is known now
		}
		return nil
	}
	if err := e.endWith(ctx, w); err != nil {
		return e.release(ctx, w, err)
	}
	if err := e.dropHeld(ctx, w.ref, w.row); err != nil {
		return e.release(ctx, w, err)
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	if err != nil && !errors.Is(err, desk.ErrNotFound) {
		return e.release(ctx, w, fmt.Errorf("carry over that %s was %s: %w", w.ref, reason, err))
	}
	var wrote desk.Fields
	if err == nil && now.Ref.ID == w.row.Target && w.row.How != mergedThere {
		others, err := e.holdsOthers(ctx, w, now)
		if err != nil {
			return e.release(ctx, w, err)
		}
		e.unread(w, e.untagged(w, now), others)
		if others && w.before != nil && w.before.Create {
			if err := e.livesIn(ctx, w); err != nil {
				return e.release(ctx, w, err)
			}
		}
		policy := e.mig.OnMerged
		if policy == Mirror {
			policy = Close
		}
		if w.row.How != mergedThere {
			wrote = e.leaving(policy, now)
		}
	}
	if err := e.applyLeaving(ctx, w, wrote, now); err != nil {
		return e.unanswered(ctx, w, fmt.Errorf("carry over that %s was %s: %w", w.ref, reason, err))
	}
	w.finish(OutUpdated, reason)
	w.row.Into, w.row.Apart = into.ID, true
	w.row.sawMerged(w, w.ref)
	return e.left(ctx, w)
}

// endWith makes due what was merged into w's record while that was gone or outside of the scope, and has waited with it.
func (e *Engine) endWith(ctx context.Context, w *work) error {
	for _, id := range w.aliases() {
		ref := desk.Ref{Kind: w.ref.Kind, ID: id}
		var other ledgerRow
		if _, err := e.get(ctx, e.ledgerKey(ref), &other); err != nil {
			return err
		}
		if ref == w.ref || other.Into != "" || other.Target == "" && other.Claim == nil {
			continue
		}
		if err := e.makeDue(ctx, w.run.Scope, dueRow{Listed: desk.Listed{Ref: ref}, Why: dueMoved, Run: w.run.ID}); err != nil {
			return err
		}
	}
	return nil
}

// leaving is what policy close or tag writes into the ticket of a record that leaves the source: nothing where it is like that
// already, whoever did it.
func (e *Engine) leaving(policy OnEvent, now desk.Record) desk.Fields {
	tags := now.Fields[desk.Tags]
	switch {
	case policy == Close && now.Fields[desk.Status].First() != e.mig.ClosedStatus:
		return desk.Fields{desk.Status: {e.mig.ClosedStatus}}
	case policy == Tag && !slices.Contains(tags, e.mig.EventTag):
		return desk.Fields{desk.Tags: desk.Set(append(slices.Clone(tags), e.mig.EventTag)...)}
	}
	return nil
}

// applyLeaving claims the row and writes that. What it is goes into the row before the write: the tag, because taking one away
// that never came does no harm; fields as what is intended.
func (e *Engine) applyLeaving(ctx context.Context, w *work, wrote desk.Fields, now desk.Record) error {
	left := w.row
	e.leftBy(&left, wrote)
	intent := map[desk.Field]base{}
	for f := range wrote {
		if b, ok := left.Fields[f]; ok && b.Event {
			intent[f] = b
		}
	}
	im := imageOfEvent(w.ref, w.row, now, wrote)
	if w.row.Tag = left.Tag; len(intent) == 0 {
		w.row.Fields = left.Fields
	}
	if err := e.claim(ctx, w, intent); err != nil || len(wrote) == 0 {
		return err
	}
	if err := e.before(ctx, w, im); err != nil {
		return fmt.Errorf("%w: %w", errUnsent, err)
	}
	shown, err := e.writeLeaving(ctx, e.targetRef(w), wrote, now.Lock)
	if err != nil {
		return err
	}
	e.leftBy(&w.row, shown)
	for _, f := range slices.Sorted(maps.Keys(wrote)) {
		w.wrote = append(w.wrote, string(f))
	}
	return nil
}

// writeLeaving writes that, and returns how the target shows it: it may write a value its own way. What people have set in the same
// moment is not that.
func (e *Engine) writeLeaving(ctx context.Context, ticket desk.Ref, fields desk.Fields, lock string) (desk.Fields, error) {
	written, err := e.Target.Apply(ctx, ticket, desk.Change{Fields: fields, Lock: lock})
	if err != nil {
		return nil, err
	}
	now := written.Now
	if now == nil {
		r, err := e.Target.Read(ctx, ticket)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnseen, err)
		}
		now = &r
	}
	shown := maps.Clone(fields)
	for f := range fields {
		if now.Ref.ID == ticket.ID && !now.Touched[f] {
			shown[f] = now.Fields[f]
		}
	}
	return shown, nil
}

// leftBy notes what a policy wrote when the record left the source: the tag is ours, and of fields what the source said before. What
// people had set beside the tag stays theirs, although the desk names us now as the one who wrote it last.
func (e *Engine) leftBy(r *ledgerRow, wrote desk.Fields) {
	r.Fields = maps.Clone(r.Fields)
	if r.Fields == nil {
		r.Fields = map[desk.Field]base{}
	}
	for f, v := range wrote {
		b, based := r.Fields[f]
		if f != desk.Tags {
			b = newBase(b.Src, v.Digest())
			b.Event = true
			r.Fields[f] = b
			continue
		}
		r.Tag = tagTicket
		if t := e.bare(v).Digest(); t != b.tgt() {
			r.Fields[f] = b.leaving(t, based)
		}
	}
}

// left commits that a record has left the source.
func (e *Engine) left(ctx context.Context, w *work) error {
	w.done = false
	w.row.Claim, w.row.Held, w.row.Digest, w.row.Open = nil, false, "", nil
	if w.row.Target != "" {
		w.row.Open = w.open // should the record come back
	}
	if w.later == "" { // else a doubled message has to put it off as well
		w.row.Last = &last{Run: w.m.Run, Pos: w.pos(), Out: w.out}
	}
	w.row.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Seen: w.it.Stamp.At, Outcome: w.out.Outcome, Why: w.out.Reason, Wrote: w.wrote, Blind: true})
	if err := e.saveRow(ctx, w); err != nil {
		return err
	}
	w.done = true
	return nil
}

// back is for a record that is in the source: what a policy did to its ticket while it was not, is taken back. A field that
// nobody has touched since follows the source again, one that the target's people have changed is theirs; the tag goes.
func (e *Engine) back(w *work, now desk.Record) {
	if w.tag = w.row.Tag; w.tag == tagTicket {
		w.tag = ""
	}
	fields := map[desk.Field]base{}
	for f, b := range w.row.Fields {
		if b.Event {
			if b.Event = false; now.Fields[f].Digest() == b.tgt() {
				b = newBase("left the source", b.tgt())
			}
		}
		fields[f] = b
	}
	w.row.Fields = fields
}

// mark does to the ticket what policies say because of its entries.
func (e *Engine) mark(w *work, m *merge3) {
	for _, policy := range w.marks {
		asked := slices.ContainsFunc(m.Held, func(h heldField) bool { return h.Field == desk.Status })
		switch {
		case policy == Tag:
			w.row.Tag, w.tag = tagEntry, tagEntry
		case policy == Close && !asked:
			m.Apply[desk.Status] = desk.Value{e.mig.ClosedStatus}
		}
	}
}

// untagged returns what the target shows without the event tag, where that is ours: tags are compared as if it were not there. So
// are copies of w's entries in other tickets that the target's people have merged into its own: beside w's they say nothing of it.
func (e *Engine) untagged(w *work, now desk.Record) desk.Record {
	if w.row.Tag != "" && !slices.Contains(w.want.Fields[desk.Tags], e.mig.EventTag) {
		now.Fields = maps.Clone(now.Fields)
		now.Fields[desk.Tags] = e.bare(now.Fields[desk.Tags])
	}
	ids := map[string]bool{}
	for _, en := range now.Entries {
		ids[en.ID] = true
	}
	now.Entries = slices.DeleteFunc(slices.Clone(now.Entries), func(en desk.Entry) bool {
		k := w.known[e.entryOf(en.Marker)]
		return k.Came && en.ID != k.Target && ids[k.Target]
	})
	return now
}

// bare are tags without the event tag.
func (e *Engine) bare(tags desk.Value) desk.Value {
	return slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return t == e.mig.EventTag })
}

// withTag returns the tags as they are to be.
func (e *Engine) withTag(w *work, tags desk.Value) desk.Value {
	if w.tag == "" {
		return tags
	}
	return desk.Set(append(slices.Clone(tags), e.mig.EventTag)...)
}

// eventOf turns the work back to a ticket that was merged into one that has left the source, where no run has seen the merge:
// what is left to carry out is that the ticket itself is gone.
func (e *Engine) eventOf(ctx context.Context, w *work) error {
	if w.ref == w.it.Ref {
		return nil
	}
	var own ledgerRow
	version, err := e.get(ctx, e.ledgerKey(w.it.Ref), &own)
	if err != nil || own.Into != "" {
		return err
	}
	own.version = version
	w.ref, w.row = w.it.Ref, own
	return e.free(own)
}

// carryOutEvent does what the policies say about a migrated record that was deleted, or marked as spam, in the source.
// Nothing is deleted in the target unless a policy says mirror (invariant 5), and no ticket into which the target's people
// have merged others.
func (e *Engine) carryOutEvent(ctx context.Context, w *work) error {
	policy := e.mig.onEvent(w.rec.Event)
	reason := string(w.rec.Event) + " in the source; policy " + string(policy)
	if w.row.Target == "" {
		// A create is open. If it took effect, the event is for what it made.
		if err := e.claim(ctx, w, nil); err != nil {
			return err
		}
		id, how, err := e.find(ctx, w, true)
		if err != nil {
			return e.release(ctx, w, err)
		}
		if w.held.Doubt != "" {
			return e.commit(ctx, w, OutHeld)
		}
		w.row.Target, w.row.How = id, how
	}
	if err := e.loadEntries(ctx, w); err != nil {
		return e.release(ctx, w, err)
	}
	out, wrote, remove := OutUpdated, desk.Fields(nil), false
	now, err := desk.Record{}, error(&desk.Error{Op: "look", Class: desk.ErrNotFound})
	if w.row.Target != "" {
		now, err = e.Target.Read(ctx, e.targetRef(w))
	}
	gone := errors.Is(err, desk.ErrNotFound)
	if gone && w.row.Target != "" {
		if late := e.settled(w.row); late != nil { // what a desk does not show yet is not gone
			return e.release(ctx, w, late)
		}
	}
	others := false
	if err == nil {
		if others, err = e.holdsOthers(ctx, w, now); err == nil {
			e.unread(w, e.untagged(w, now), others)
			e.noteBrought(w, now.Entries)
		}
		if err == nil && others && w.before != nil && w.before.Create {
			err = e.livesIn(ctx, w)
		}
	}
	switch {
	case gone && w.before != nil && w.before.Delete:
		w.wrote, w.deleting = append(w.wrote, "deleted"), true // by one of us who was cut off
	case gone:
		out = OutUnchanged // on both sides
	case err != nil:
		return e.release(ctx, w, err)
	case now.Ref.ID != w.row.Target || w.row.How == mergedThere:
		out, reason = OutExcluded, reason+"; the target's people merged it, and what lives on there is not this record alone"
	case policy != Tag && policy != Ignore && others:
		out, reason = OutExcluded, reason+"; it holds entries or merged tickets that are not known to be of this record, so it stays as it is"
	case policy == Mirror:
		remove = true
	case policy == Ignore:
		out = OutExcluded
	default:
		wrote = e.leaving(policy, now)
	}
	if w.deleting = w.deleting || remove; remove {
		err = e.remove(ctx, w, now.Lock)
	} else {
		err = e.applyLeaving(ctx, w, wrote, now)
	}
	if err != nil {
		return e.unanswered(ctx, w, fmt.Errorf("carry over that %s is %s: %w", w.ref, w.rec.Event, err))
	}
	if err := e.keepHeld(ctx, w.held, w.heldBefore, w.heldVersion); err != nil { // nothing of it waits any more
		return e.unclaim(ctx, w, err, e.Now()) // the held row may be gone all the same: the claim says that it is to be looked at
	}
	w.finish(out, reason)
	w.row.Gone, w.row.Began = w.rec.Event, w.rec.Began.UTC()
	if remove || gone && w.before != nil && w.before.Delete {
		// Our own doing: should the record come back, it is made again with everything.
		w.row.Target, w.row.How, w.row.Fields, w.row.Tag, w.row.Began = "", "", nil, "", time.Time{}
		w.row.Entries, w.fresh = nil, nil
	}
	return e.left(ctx, w)
}

// remove deletes w's ticket in the target as it was read under lock, as a policy says.
func (e *Engine) remove(ctx context.Context, w *work, lock string) error {
	d, can := e.Target.(desk.Deleter)
	if !can {
		return &desk.Error{Op: "delete target " + w.row.Target, Class: desk.ErrRejected, Said: "this desk cannot delete; choose policy close or tag"}
	}
	if err := e.claim(ctx, w, nil); err != nil {
		return err
	}
	if err := e.before(ctx, w, image{Ref: w.ref, Target: w.row.Target, Event: true, Final: "it was deleted"}); err != nil {
		return fmt.Errorf("%w: %w", errUnsent, err)
	}
	if err := e.delete(ctx, w, d, lock); err != nil {
		return err
	}
	w.wrote = append(w.wrote, "deleted")
	return nil
}

// delete deletes w's ticket in the target as it was when that was decided, and looks whether it is gone: one that people have merged
// in the same moment is part of theirs now, and a desk without locks may say nothing of that. One that is shown as before may have been
// deleted all the same.
func (e *Engine) delete(ctx context.Context, w *work, d desk.Deleter, lock string) error {
	if err := d.Delete(ctx, e.targetRef(w), lock); err != nil && !errors.Is(err, desk.ErrNotFound) {
		return err
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	switch {
	case errors.Is(err, desk.ErrNotFound):
		return nil
	case err == nil && now.Ref.ID != w.row.Target:
		return &desk.Error{Op: "delete target " + w.row.Target, Class: desk.ErrConflict, Said: "it is still there, as ticket " + now.Ref.ID}
	case err == nil:
		err = errors.New("it is still there") // for as long as a replica lags, or for good: the next one looks again
	}
	return fmt.Errorf("%w: %w", errUnseen, err)
}

// holdsOthers tells whether the target's people have merged other tickets into w's: it shows entries of ours that are not of
// this record, or tickets merged into it that are not those of w's aliases.
func (e *Engine) holdsOthers(ctx context.Context, w *work, now desk.Record) (bool, error) {
	if w.ref.Kind != desk.Ticket {
		return false, nil // nothing is put back at people and companies
	}
	if _, foreign := e.whose(w, now); foreign {
		return true, nil
	}
	others, open, err := e.mergedInto(ctx, w, now)
	return others > open, err // what an open create made, if anything, may have been merged by us already
}

// mergedInto counts the tickets that were merged into one of the target and are not known to be those of w's aliases, and the aliases of
// which a create is open.
func (e *Engine) mergedInto(ctx context.Context, w *work, now desk.Record) (others, open int, err error) {
	if len(now.Aliases) == 0 {
		return 0, 0, nil
	}
	targets := map[string]bool{}
	for _, id := range w.aliases() {
		var row ledgerRow
		if _, err := e.get(ctx, e.ledgerKey(desk.Ref{Kind: w.ref.Kind, ID: id}), &row); err != nil {
			return 0, 0, err
		}
		if targets[row.Target] = true; row.Target == "" && row.Claim != nil {
			open++
		}
	}
	for _, id := range now.Aliases {
		if !targets[id] {
			others++
		}
	}
	return others, open, nil
}

// rehearse says what carryOut would do, and writes nothing, neither to the desks nor to the ledger.
func (e *Engine) rehearse(ctx context.Context, w *work) error {
	if w.rec.Event == desk.Deleted || w.rec.Event == desk.Spam {
		policy := e.mig.onEvent(w.rec.Event)
		w.finish(OutUpdated, fmt.Sprintf("%s in the source; policy %s would be carried out", w.rec.Event, policy))
		if w.row.Target == "" || policy == Ignore {
			w.finish(OutExcluded, string(w.rec.Event)+" in the source; policy "+string(policy))
		}
		return nil
	}
	if e.rehearsedWith(w) {
		w.finish(OutUnchanged, "looked at with another entry of the plan")
		return nil
	}
	if w.row.Into != "" && !w.row.Apart {
		w.row.Target = "" // it was merged, and is not any more
	}
	adopted := false
	if w.row.Target == "" || w.row.How == "fallback" {
		id, how, err := e.find(ctx, w, w.run.adopted() || w.row.Claim != nil)
		switch {
		case err != nil:
			return err
		case w.held.Doubt != "":
			w.finish(OutHeld, w.held.reason())
		case id != "" && w.ref.Kind != desk.Ticket:
			w.finish(OutUnchanged, "would be linked to a record that is there ("+how+")")
		case id == "":
			merges, err := e.toMerge(ctx, w, desk.Record{})
			if err != nil {
				return err
			}
			w.finish(OutCreated, would(append([]string{"be created"}, merges...)))
		default:
			w.row.Target, w.row.How, adopted = id, how, true
		}
		if w.done {
			return nil
		}
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	if errors.Is(err, desk.ErrNotFound) {
		return e.rehearseGone(ctx, w)
	}
	if err != nil {
		return err
	}
	if now.Ref.ID != w.row.Target && now.Ref.ID != "" {
		w.row.Target, w.row.How = now.Ref.ID, mergedThere
	}
	parts, err := e.toMerge(ctx, w, now)
	if err != nil {
		return err
	}
	defs, err := e.definitions(ctx)
	if err != nil {
		return err
	}
	now = e.untagged(w, now)
	e.back(w, now)
	e.noteEntries(w, desk.Written{}, now.Entries)
	if !adopted {
		if err := e.heal(ctx, w, now, defs); err != nil {
			return err
		}
	}
	m := e.mergeFields(w, now, defs, false, adopted)
	add, copies := e.compare(w, now)
	revise, again := 0, 0
	for _, c := range copies {
		f := e.mig.judge(c)
		if len(f.ask) > 0 {
			w.held.Entries = append(w.held.Entries, heldEntry{Entry: c.id, Why: strings.Join(f.ask, "; ")})
		}
		if f.write != nil {
			revise++
		}
		if f.again {
			again++
		}
	}
	w.held.Fields = m.Held
	for _, p := range []struct {
		verb, one, more string
		n               int
	}{{"set", "field", "fields", len(m.Apply)}, {"add", "entry", "entries", len(add) + again}, {"revise", "entry", "entries", revise}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d %s", p.verb, p.n, map[bool]string{true: p.one, false: p.more}[p.n == 1]))
		}
	}
	switch {
	case !w.held.empty():
		w.finish(OutHeld, w.held.reason())
	case len(parts) > 0:
		w.finish(OutUpdated, would(parts))
	default:
		w.finish(OutUnchanged, "")
	}
	return nil
}

// would says in one sentence what a run that is no rehearsal does.
func would(parts []string) string { return "would " + strings.Join(parts, ", ") }

// rehearseGone is gone for a rehearsal.
func (e *Engine) rehearseGone(ctx context.Context, w *work) error {
	policy, target, _, err := e.whenGone(ctx, w)
	switch {
	case err != nil:
		return err
	case target != "":
		w.finish(OutUpdated, "would be linked to target "+target+", and get there what that one lacks")
	case policy == RecreateGone:
		w.finish(OutCreated, "would be created again: it was deleted in the target")
	case policy == IgnoreGone:
		w.finish(OutExcluded, deletedThere)
	default:
		w.held.Gone = true
		w.finish(OutHeld, w.held.reason())
	}
	return nil
}

// toMerge says which tickets of the target a run would merge into w's, which is now.
func (e *Engine) toMerge(ctx context.Context, w *work, now desk.Record) (parts []string, err error) {
	all := w.aliases()
	for _, id := range all {
		ref := desk.Ref{Kind: w.ref.Kind, ID: id}
		var row ledgerRow
		if _, err := e.get(ctx, e.ledgerKey(ref), &row); err != nil {
			return nil, err
		}
		if row.Into == w.ref.ID || row.Into != "" && slices.Contains(all, row.Into) {
			continue
		}
		did, _, _, err := e.mergeTarget(ctx, w, ref, &row, now)
		if err != nil {
			return nil, err
		}
		if did {
			parts = append(parts, "have "+ref.String()+" merged into it")
		}
	}
	return parts, nil
}

// rehearsedWith tells whether a rehearsal has looked at w's record with another entry of its plan: it was listed twice, or tickets were
// merged into it. A run carries out whichever comes first, and finds nothing to do for the others; a rehearsal leaves nothing behind
// that would tell, so this process keeps it in mind.
func (e *Engine) rehearsedWith(w *work) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.rehearsed) > 500_000 {
		clear(e.rehearsed)
	}
	key := w.run.ID + " " + w.ref.String()
	pos, is := e.rehearsed[key]
	if !is {
		e.rehearsed[key] = w.pos()
	}
	return is && pos != w.pos()
}

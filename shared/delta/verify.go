package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/certificate"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

// compared is what a verification keeps of a record for the certificate.
type compared struct {
	Source *certificate.Side `json:"source"`
	Target *certificate.Side `json:"target"`
	Held   []string          `json:"held,omitempty"`
}

// verifyOne compares one record as it is now on both sides. Nothing is written to either desk, and the ledger is asked only
// for what cannot be seen: which target belongs to the record, which fields are held, and which were changed by the
// target's people (those are theirs, and no difference).
func (e *Engine) verifyOne(ctx context.Context, w *work) error {
	if err := e.loadRow(ctx, w); err != nil {
		return err
	}
	if err := errors.Join(e.free(w.row), e.settled(w.row)); err != nil { // half of a push is no difference
		return err
	}
	rec, err := e.Source.Read(ctx, w.ref)
	switch {
	case errors.Is(err, desk.ErrNotFound):
		w.finish(OutExcluded, "not in the source any more")
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", w.ref, err)
	case rec.Ref != w.ref:
		w.finish(OutExcluded, "merged in the source; verified with the record that lives on")
		return nil
	case rec.Event == desk.Deleted || rec.Event == desk.Spam:
		w.finish(OutExcluded, string(rec.Event)+" in the source")
		return nil
	}
	w.rec = rec
	if ok, why := w.run.Filter.Holds(rec); !ok {
		w.finish(OutExcluded, why)
		return nil
	}
	if w.row.Target == "" {
		return e.differs(ctx, w, "not in the target", "a delta brings it; if it failed or is held, the report of that run says why")
	}
	if w.row.How == "fallback" {
		w.finish(OutUnchanged, "a fallback person stands in")
		return nil
	}
	res, err := e.mapped(ctx, w.rec)
	if err != nil {
		return err
	}
	if len(res.Problems) > 0 {
		w.finish(OutFailed, fmt.Sprintf("not compared: %s: %s", res.Problems[0].Field, res.Problems[0].Why))
		w.out.Next = "cover it in the migration file"
		return nil
	}
	if err := e.build(ctx, w, res); err != nil {
		return err
	}
	// The digest of the ledger is of what the source says without our reading its files, so they are read after build.
	if w.rec, err = certificate.ReadSource(ctx, e.Source, rec, e.TargetSide.MaxFile); err != nil {
		return err
	}
	w.hash()
	if w.row.Held {
		if _, err := e.get(ctx, e.heldKey(w.ref), &w.heldBefore); err != nil {
			return err
		}
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	switch {
	case errors.Is(err, desk.ErrNotFound) && w.heldBefore.Gone:
		w.finish(OutHeld, "no longer in the target")
		w.out.Next = w.heldBefore.next()
		return nil
	case errors.Is(err, desk.ErrNotFound) && e.mig.OnTargetGone == IgnoreGone:
		w.finish(OutExcluded, "deleted in the target")
		return nil
	case errors.Is(err, desk.ErrNotFound):
		return e.differs(ctx, w, "no longer in the target", "deltadesk explain "+w.ref.String())
	case err != nil:
		return fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
	}
	return e.compare(ctx, w, now)
}

// compare ends a verification: the target is there.
func (e *Engine) compare(ctx context.Context, w *work, now desk.Record) error {
	copies, err := e.copies(ctx, w)
	if err != nil {
		return err
	}
	seen, err := certificate.ReadTarget(ctx, e.Target, e.mig.ID, now)
	if err != nil {
		return fmt.Errorf("target %s of %s: %w", w.row.Target, w.ref, err)
	}
	var diff, held []string
	if len(copies) > 1 {
		said := fmt.Sprintf("%d times in the target", len(copies))
		if w.heldBefore.Doubled && slices.Equal(w.heldBefore.Candidates, copies) {
			held = append(held, said)
		} else {
			diff = append(diff, said)
		}
	}
	defs, err := e.definitions(ctx)
	if err != nil {
		return err
	}
	fields := slices.Sorted(maps.Keys(w.want.Fields))
	if now.Ref.ID != w.row.Target || w.row.How == "merged in the target" {
		fields = nil // the target's people merged it: what they say is theirs
	}
	for _, f := range fields {
		switch e.field(w, now, defs, f) {
		case fieldHeld:
			held = append(held, string(f))
		case fieldKept:
			w.out.Kept = append(w.out.Kept, string(f))
		case fieldRewritten:
			w.losses = append(w.losses, desk.Loss{Class: "normalised", What: fmt.Sprintf("%s of %s", f, w.ref)})
		case fieldUntraced:
			diff = append(diff, string(f)+" (changed in the target without a trace)")
		case fieldBehind:
			diff = append(diff, string(f)+" (changed in the source since)")
		case fieldDiffers:
			diff = append(diff, string(f))
		}
	}
	for _, d := range e.compareThread(w, seen) {
		switch {
		case w.known[d.entry].Kept == d.there && d.there != "":
			w.out.Kept = append(w.out.Kept, d.name())
		case slices.ContainsFunc(w.heldBefore.Entries, func(h heldEntry) bool { return h.Entry == d.entry }):
			held = append(held, d.name())
		default:
			diff = append(diff, d.name()+" "+d.what)
		}
	}
	digest := certificate.Header{Salt: w.run.Salt, Migration: e.mig.ID, Mapping: e.rules, Source: e.SourceID, Target: e.TargetID}.Digester()
	w.compared = &compared{Source: digest.Source(w.rec), Target: digest.Target(seen), Held: held}
	if len(copies) > 1 {
		w.compared.Target.Copies = len(copies)
	}
	switch {
	case len(diff) > 0:
		return e.differs(ctx, w, "differs: "+few(diff), "deltadesk explain "+w.ref.String())
	case len(held) > 0:
		w.finish(OutHeld, "differs only where it is held: "+few(held))
		w.out.Next = w.heldBefore.next()
	default:
		w.finish(OutUnchanged, "")
	}
	return nil
}

// few names the first things of a list: a row of the store has no room for thousands.
func few(all []string) string {
	const most = 20
	if n := len(all) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), n)
	}
	return strings.Join(all, ", ")
}

// differs ends a verification that found a difference, unless the record was pushed meanwhile: that explains any, so it is
// compared again. Where the run is to heal, the record becomes due before its outcome says so.
func (e *Engine) differs(ctx context.Context, w *work, reason, next string) error {
	var row ledgerRow
	version, err := e.get(ctx, e.ledgerKey(w.ref), &row)
	if err != nil {
		return err
	}
	if version != w.row.version {
		return fmt.Errorf("compare %s: %w", w.ref, ErrStale)
	}
	if w.run.Heal {
		if err := e.makeDue(ctx, w.run.Scope, dueRow{Listed: w.it.Listed, Why: "verify", Run: w.run.ID, Heal: true}); err != nil {
			return err
		}
		next = "it is due: the next delta over scope " + w.run.Scope + " heals it or holds it"
	}
	w.finish(OutFailed, reason)
	w.out.Next = next
	return nil
}

// hash gives the files that are wanted the hashes with which the source's were read.
func (w *work) hash() {
	sums := map[[2]string]string{}
	for _, en := range w.rec.Entries {
		for _, f := range en.Files {
			sums[[2]string{en.ID, f.ID}] = f.SHA256
		}
	}
	for i, en := range w.want.Entries {
		w.want.Entries[i].Files = slices.Clone(en.Files)
		for j, f := range en.Files {
			w.want.Entries[i].Files[j].SHA256 = sums[[2]string{en.ID, f.ID}]
		}
	}
}

// copies returns the records of the target that carry the ticket's id, nil where the target cannot be searched.
func (e *Engine) copies(ctx context.Context, w *work) ([]string, error) {
	f, ok := e.Target.(desk.Finder)
	if !ok || w.ref.Kind != desk.Ticket {
		return nil, nil
	}
	ids, err := f.Find(ctx, w.ref)
	if err != nil {
		return nil, fmt.Errorf("look for %s in the target: %w", w.ref, err)
	}
	slices.Sort(ids)
	return ids, nil
}

// settled tells whether a reading of the target shows everything that we wrote: a desk may show it late.
func (e *Engine) settled(row ledgerRow) error {
	var last time.Time
	if n := len(row.Trail); n > 0 {
		last = row.Trail[n-1].At
	}
	if c := row.Claim; c != nil && c.Until.After(last) {
		last = c.Until
	}
	if until := last.Add(e.TargetSide.ListLag); e.TargetSide.ListLag > 0 && e.Now().Before(until) {
		return busyError{since: last, until: until}
	}
	return nil
}

// fieldState is how one field of the target stands to what is wanted.
type fieldState int

const (
	fieldAgrees    fieldState = iota
	fieldHeld                 // waits for a person
	fieldKept                 // people changed it in the target, or a decision left it its value
	fieldRewritten            // the target writes this value its own way, or had one of its own before the migration
	fieldUntraced             // somebody changed it in the target without the desk noticing
	fieldBehind               // the source has changed it since
	fieldDiffers
)

func (e *Engine) field(w *work, now desk.Record, defs desk.Definitions, f desk.Field) fieldState {
	s, t := w.want.Fields[f].Digest(), now.Fields[f].Digest()
	def, defined := defs.Field(w.ref.Kind, f)
	b, based := w.row.Fields[f]
	switch {
	case s == t, defined && def.Write == desk.Never:
		return fieldAgrees
	case slices.ContainsFunc(w.heldBefore.Fields, func(h heldField) bool { return h.Field == f }):
		return fieldHeld
	case !based:
		return fieldDiffers
	case t != b.tgt() && untraced(w.row, now, f):
		return fieldUntraced
	case s != b.Src:
		return fieldBehind
	case b.Kept || t != b.tgt():
		return fieldKept
	case w.row.How != "created":
		return fieldAgrees // was there before the migration and was left as it is
	}
	return fieldRewritten
}

// untraced tells whether nobody can have changed a field of the target that is not as it was after our last write: the desk
// says that the last word in it was ours, or that the record has not moved since we last looked and yet says something else.
// Fields that point somewhere are left out: where they point to may have been merged, and that leaves no trace here.
func untraced(row ledgerRow, now desk.Record, f desk.Field) bool {
	switch {
	case f.Points() != "":
		return false
	case now.Touched != nil:
		return !now.Touched[f]
	}
	return now.Lock != "" && now.Lock == row.Lock && now.Fields[f].Digest() != row.Fields[f].seen()
}

// threadOrder stands for an entry where it is the order of all that differs.
const threadOrder = "thread/order"

// difference is one thing in which the target's thread is not as wanted.
type difference struct {
	entry string // its id in the source, or one of our own
	what  string // in words, without content
	there string // digest of what the target shows of it, or unmarked
	lost  bool   // the entry is not there
	can   bool   // a target that revises entries can set it right
}

func (d difference) name() string {
	if d.entry == threadOrder {
		return "order of entries"
	}
	return "entry " + d.entry
}

const (
	missing = "is missing"
	// unmarked is said of an entry that is there and does not carry its marker: it must not be added again. That is so of all
	// entries at once where the target is read by another account than the one that wrote them.
	unmarked = "does not show as the migration's (was the target's account changed?)"
)

// ourNote tells whether an entry is one that the migration adds by itself: it stands where it was written, and tells of the
// day it was written.
func ourNote(id string) bool { return strings.Contains(id, "/") }

// compareThread compares the entries that are wanted with those that the target shows. Bytes of files are compared where both
// sides carry their hashes.
func (e *Engine) compareThread(w *work, now desk.Record) []difference {
	if e.TargetSide.EntryMarker == "" {
		return nil // such a desk cannot show which entries are ours
	}
	there, ids := map[string][]desk.Entry{}, map[string]bool{}
	var order []string
	for _, en := range now.Entries {
		ids[en.ID] = true
		if id, ours := strings.CutPrefix(en.Marker, e.mig.ID+"/"); ours {
			there[id] = append(there[id], en)
			order = append(order, id)
		}
	}
	var out []difference
	differs := func(id, what string, can bool) {
		d := difference{entry: id, what: what, there: thereDigest(there[id]), lost: what == missing, can: can}
		if what == unmarked {
			d.there = unmarked
		}
		out = append(out, d)
	}
	wanted, inOrder := map[string]bool{}, []string{}
	for _, en := range w.want.Entries {
		wanted[en.ID] = true
		k, known := w.known[en.ID]
		if !ourNote(en.ID) && !k.Again && len(there[en.ID]) > 0 {
			inOrder = append(inOrder, en.ID)
		}
		switch n := len(there[en.ID]); {
		case n == 0 && ourNote(en.ID) && !known && w.row.Digest == w.digest:
			// It would be written today, and says nothing new: somebody whom it names has another name.
		case n == 0 && ids[k.Target]:
			differs(en.ID, unmarked, false)
		case n == 0:
			differs(en.ID, missing, false)
		case n > 1:
			differs(en.ID, fmt.Sprintf("is there %d times", n), false)
		case ourNote(en.ID) && known:
			if entryDigest(there[en.ID][0]) != k.Digest {
				differs(en.ID, "is not as it was written", false)
			}
		default:
			if what, can := e.compareEntry(en, there[en.ID][0]); what != "" {
				differs(en.ID, what, can)
			}
		}
	}
	// Where the target's people merged tickets, other threads stand in this one.
	apart := len(now.Aliases) == 0 && w.row.How != "merged in the target"
	for _, id := range slices.Sorted(maps.Keys(w.known)) {
		k := w.known[id]
		if !ourNote(id) || wanted[id] || k.Digest == "" {
			continue
		}
		switch n := len(there[id]); { // notes of earlier days
		case n == 0 && apart && len(w.rec.Aliases) == 0:
			differs(id, missing, false)
		case n > 1:
			differs(id, fmt.Sprintf("is there %d times", n), false)
		case n == 1 && entryDigest(there[id][0]) != k.Digest:
			differs(id, "is not as it was written", false)
		}
	}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(order))) {
		_, known := w.known[id]
		switch {
		case wanted[id] || !apart || known && ourNote(id):
		case known:
			differs(id, "is no longer in the source", false)
		default:
			differs(id, "is none of the source's", false)
		}
	}
	// Threads that were merged after they were copied stand one after the other; all others keep the source's order.
	if len(w.rec.Aliases) == 0 {
		left := map[string]bool{}
		for _, id := range inOrder {
			left[id] = true
		}
		order = slices.DeleteFunc(order, func(id string) bool {
			first := left[id]
			delete(left, id)
			return !first
		})
		if !slices.Equal(order, inOrder) {
			out = append(out, difference{entry: threadOrder, what: "differs", there: digestJSON(order)})
		}
	}
	return out
}

// thereDigest is of what a target shows of an entry.
func thereDigest(ens []desk.Entry) string {
	var all []any
	for _, en := range ens {
		all = append(all, en.Public, en.At.UTC().Unix(), en.Subject, desk.CanonicalBody(en.Body))
		for _, f := range en.Files {
			all = append(all, f.Name, f.SHA256)
		}
	}
	return digestJSON(all)
}

// compareEntry says in which ways an entry differs, and whether revising it can help.
func (e *Engine) compareEntry(want, got desk.Entry) (what string, can bool) {
	var parts []string
	add := func(differs, revisable bool, part string) {
		if differs {
			parts, can = append(parts, part), can || revisable
		}
	}
	add(want.Public != got.Public, true, "visibility")
	add(desk.CanonicalBody(want.Body) != desk.CanonicalBody(got.Body), true, "text")
	add(want.Subject != got.Subject, false, "subject")
	add(!got.At.IsZero() && !want.At.Truncate(1e9).Equal(got.At.Truncate(1e9)), false, "time")
	if len(want.Files) != len(got.Files) {
		add(true, true, fmt.Sprintf("has %d files, not %d", len(got.Files), len(want.Files)))
		return strings.Join(parts, " and "), can
	}
	for i, f := range want.Files {
		g := got.Files[i]
		add(f.Name != g.Name, true, "name of file "+f.ID)
		same := f.SHA256 == g.SHA256
		if f.SHA256 == "" || g.SHA256 == "" {
			same = f.Size == g.Size || f.Size < 0 || g.Size < 0
		}
		add(!same, true, "file "+f.ID)
	}
	return strings.Join(parts, " and "), can
}

// verifyWords says how a verification came out.
func verifyWords(run Run, c report.Counts) string {
	s := fmt.Sprintf("%d records differ, %d more only in what is held", c.Failed, c.Held)
	if run.Heal && c.Failed > 0 {
		s += fmt.Sprintf("; they are due, and the next delta over scope %s heals them or holds them", run.Scope)
	}
	return s
}

package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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

// differences of one record: those that a delta may see to, those that only people can, and those that are held.
type differences struct{ diff, hand, held []string }

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
	switch w.rec = rec; {
	case errors.Is(err, desk.ErrNotFound):
		if err := e.everywhere(w); err != nil {
			return err
		}
		w.finish(OutExcluded, "not in the source any more")
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", w.ref, err)
	case w.older(rec), e.behind(w): // a replica's answer of before is no difference
		return fmt.Errorf("read %s: %w", w.ref, errNotYet)
	case rec.Ref != w.ref:
		w.finish(OutExcluded, "merged in the source; verified with the record that lives on")
		return nil
	case rec.Event == desk.Deleted || rec.Event == desk.Spam:
		w.finish(OutExcluded, string(rec.Event)+" in the source")
		return nil
	}
	if ok, why := w.run.Filter.Holds(rec); !ok {
		w.finish(OutExcluded, why)
		return nil
	}
	if w.row.Held {
		if _, err := e.get(ctx, e.heldKey(w.ref), &w.heldBefore); err != nil {
			return err
		}
	}
	switch {
	case w.row.Target == "" && w.heldBefore.Doubt != "":
		w.finish(OutHeld, "not in the target: "+w.heldBefore.Doubt)
		w.out.Next = w.heldBefore.next()
		return nil
	case w.row.Target == "":
		return e.differs(ctx, w, "not in the target", false, "a delta brings it; if it failed or is held, the report of that run says why")
	}
	if w.row.How == "fallback" {
		w.finish(OutUnchanged, "a fallback person stands in")
		return nil
	}
	res, err := e.mapped(ctx, rec)
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
	if w.rec, err = certificate.ReadSource(ctx, e.Source, rec, e.TargetSide.MaxFile); err != nil {
		return fmt.Errorf("read %s: %w", w.ref, err)
	}
	now, err := e.Target.Read(ctx, e.targetRef(w))
	switch {
	case errors.Is(err, desk.ErrNotFound) && w.heldBefore.Gone:
		w.finish(OutHeld, "no longer in the target")
		w.out.Next = w.heldBefore.next()
		return nil
	case errors.Is(err, desk.ErrNotFound) && (e.mig.OnTargetGone == IgnoreGone || w.leftDeleted()):
		w.finish(OutExcluded, deletedThere)
		return nil
	case errors.Is(err, desk.ErrNotFound):
		return e.differs(ctx, w, "no longer in the target", false, "deltadesk explain "+w.ref.String())
	case err != nil:
		return fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
	}
	return e.contrast(ctx, w, now)
}

// contrast ends a verification: both records are there.
func (e *Engine) contrast(ctx context.Context, w *work, now desk.Record) error {
	now, err := certificate.ReadTarget(ctx, e.Target, e.mig.ID, now)
	if err != nil {
		return fmt.Errorf("read target %s of %s: %w", w.row.Target, w.ref, err)
	}
	digest := certificate.Header{Salt: w.run.Salt, Migration: e.mig.ID, Mapping: e.rules, Source: e.SourceID, Target: e.TargetID}.Digester()
	c := &compared{Source: digest.Source(w.rec), Target: digest.Target(now)}
	now = e.untagged(w, now)
	var d differences
	if f, ok := e.Target.(desk.Finder); ok && w.ref.Kind == desk.Ticket {
		ids, err := e.search(ctx, f, w.ref, w.row.Was)
		if err != nil {
			return err
		}
		if len(ids) > 1 {
			d.hand, c.Target.Copies = append(d.hand, fmt.Sprintf("%d times in the target", len(ids))), len(ids)
		}
	}
	if now.Ref.ID == w.row.Target && w.row.How != mergedThere {
		defs, err := e.definitions(ctx)
		if err == nil {
			err = e.compareFields(ctx, w, now, defs, &d)
		}
		if err != nil {
			return err
		}
		e.addUnkept(w, now, defs)
	}
	if err := e.compareThread(ctx, w, now, &d); err != nil {
		return err
	}
	w.compared, c.Held = c, d.held
	kept := w.out.Kept
	switch {
	case len(d.diff)+len(d.hand) > 0:
		err = e.differs(ctx, w, "differs: "+strings.Join(few(append(d.diff, d.hand...)), ", "), len(d.diff) == 0, "deltadesk explain "+w.ref.String())
	case len(d.held) > 0:
		w.finish(OutHeld, "differs only where it is held: "+strings.Join(few(d.held), ", "))
		w.out.Next = w.heldBefore.next()
	default:
		w.finish(OutUnchanged, "")
	}
	w.out.Kept = kept
	return err
}

func (e *Engine) compareFields(ctx context.Context, w *work, now desk.Record, defs desk.Definitions, d *differences) error {
	others, err := e.holdsOthers(ctx, w, now)
	if err != nil {
		return err
	}
	for _, f := range slices.Sorted(maps.Keys(w.want.Fields)) { // a report says the same each time
		v := w.want.Fields[f]
		def, ok := defs.Field(w.ref.Kind, f)
		s, t := v.Digest(), now.Fields[f].Digest()
		if s == t || ok && def.Write == desk.Never {
			continue
		}
		b, based := w.row.Fields[f]
		switch {
		case slices.ContainsFunc(w.heldBefore.Fields, func(h heldField) bool { return h.Field == f }):
			d.held = append(d.held, string(f))
		case e.untraced(w, now, f, others):
			d.add(string(f)+" (changed in the target without a trace)", ok && def.Write != desk.Always)
		case based && s == b.Src && (b.Kept || t != b.tgt()):
			w.out.Kept = append(w.out.Kept, string(f))
		case based && s == b.Src && w.row.How != "created":
			// was there before the migration and was left as it is
		case based && s == b.Src && ok && def.Write == desk.OnCreate:
			// was not kept, see addUnkept
		case based && s == b.Src:
			w.losses = append(w.losses, desk.Loss{Class: "normalised", What: fmt.Sprintf("%s of %s", f, w.ref)})
		case based:
			d.add(string(f)+" (changed in the source since)", ok && def.Write != desk.Always)
		default:
			d.add(string(f), ok && def.Write != desk.Always)
		}
	}
	return nil
}

func (d *differences) add(what string, hand bool) {
	if hand {
		d.hand = append(d.hand, what)
	} else {
		d.diff = append(d.diff, what)
	}
}

func (e *Engine) compareThread(ctx context.Context, w *work, now desk.Record, d *differences) error {
	if e.TargetSide.EntryMarker == "" {
		return nil // such a desk cannot show which entries are ours
	}
	there, ids := map[string]desk.Entry{}, map[string]bool{}
	var order []string
	for _, en := range now.Entries {
		ids[en.ID] = true
		if en.Marker == "" {
			continue
		}
		if _, twice := there[en.Marker]; twice && !w.known[e.entryOf(en.Marker)].Came {
			d.add("entry "+e.entryOf(en.Marker)+" twice", true)
		}
		there[en.Marker] = en
		order = append(order, en.Marker)
	}
	var wanted []string
	for _, en := range w.want.Entries {
		k := w.known[en.ID]
		t, ok := there[en.Marker]
		if !ok {
			switch {
			case w.heldBefore.asks(en.ID):
				d.held = append(d.held, "entry "+en.ID)
			case k.Left && k.says(en):
				w.out.Kept = append(w.out.Kept, "entry "+en.ID)
			case ids[k.Target]: // so of all entries at once where another account reads the target than the one that wrote them
				d.add("entry "+en.ID+" does not show as the migration's (was the target's account changed?)", true)
			default:
				d.add("entry "+en.ID+" is missing", false)
			}
			continue
		}
		if !strings.Contains(en.ID, "/") && !k.Again { // notes of ours, and what was lost, stand where they were written
			wanted = append(wanted, en.Marker)
		}
		what, err := e.compareEntry(ctx, w, en, now.Ref, t)
		switch {
		case err != nil:
			return err
		case what == "":
		case w.heldBefore.asks(en.ID):
			d.held = append(d.held, "entry "+en.ID)
		case e.leftAlone(k, en, t) && (k.Left || !strings.HasPrefix(what, "file ")):
			w.out.Kept = append(w.out.Kept, "entry "+en.ID)
		default:
			d.add("entry "+en.ID+" "+what, what == "time" || k.asWritten(en, t) && !strings.HasPrefix(what, "file "))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.known)) {
		k := w.known[id]
		t, shown := there[e.marker(id)]
		if !shown || isNote(id) || slices.ContainsFunc(w.want.Entries, func(en desk.Entry) bool { return en.ID == id }) {
			continue
		}
		switch {
		case k.Digest == taken && k.Left:
			w.losses = append(w.losses, keptCopy(id, w.ref))
		case k.Digest == taken && (t.Body == takenText && len(t.Files) == 0 || wordsDigest(t) == k.Shown):
		case w.heldBefore.asks(id):
			d.held = append(d.held, "entry "+id)
		default:
			d.add("entry "+id+" is no longer in the source's ticket", false)
		}
	}
	kept, err := e.keptCopies(ctx, w)
	if err != nil {
		return err
	}
	w.losses = append(w.losses, kept...)
	// Threads that were merged after they were copied stand one after the other; all others keep the source's order.
	if len(w.rec.Aliases) == 0 {
		order = slices.DeleteFunc(order, func(m string) bool { return !slices.Contains(wanted, m) })
		if !slices.Equal(order, wanted) {
			d.add("order of entries", true)
		}
	}
	return nil
}

// asWritten tells whether an entry says what it said after our last write: the target has its own way with it.
func (k entryRow) asWritten(src, tgt desk.Entry) bool {
	return k.says(src) && wordsDigest(tgt) == cmpOr(k.Shown, k.Digest) && tgt.Public == src.Public
}

// leftAlone tells whether an entry differs only in what is known to: by a decision, a policy, or as the target's people have it.
func (e *Engine) leftAlone(k entryRow, src, tgt desk.Entry) bool {
	if k.Left && k.says(src) {
		tgt.Subject, tgt.Body, tgt.Files = src.Subject, src.Body, src.Files
	}
	if k.Turned && k.Private == !src.Public {
		tgt.Public = src.Public
	}
	return e.compareWords(src, tgt) == ""
}

// compareEntry says in which way an entry differs, "" in none.
func (e *Engine) compareEntry(ctx context.Context, w *work, want desk.Entry, target desk.Ref, got desk.Entry) (string, error) {
	if d := e.compareWords(want, got); d != "" {
		return d, nil
	}
	for i, f := range want.Files {
		f.SHA256 = cmpOr(w.readSum(want.ID, f.ID), f.SHA256)
		same, err := e.sameFile(ctx, w, f, target, got.Files[i])
		if err != nil {
			return "", fmt.Errorf("compare file %s of entry %s of %s: %w", f.ID, want.ID, w.ref, err)
		}
		if !same {
			return "file " + f.ID, nil
		}
	}
	return "", nil
}

// readSum is the hash of a file as it was read from the source, "" where it was not read. What is wanted does not carry it: the
// ledger's digests are of what the source says without our reading its files.
func (w *work) readSum(entry, file string) string {
	for _, en := range w.rec.Entries {
		if en.ID != entry {
			continue
		}
		for _, f := range en.Files {
			if f.ID == file {
				return f.SHA256
			}
		}
	}
	return ""
}

func (e *Engine) compareWords(want, got desk.Entry) string {
	switch {
	case want.Public != got.Public:
		return "visibility"
	case desk.CanonicalBody(want.Body) != desk.CanonicalBody(got.Body):
		return "text"
	case want.Subject != got.Subject:
		return "subject"
	case len(want.Files) != len(got.Files):
		return fmt.Sprintf("has %d files, not %d", len(got.Files), len(want.Files))
	case !isNote(want.ID) && (e.TargetSide.KeepsTimes || e.TargetSide.EntryMarker != "") && !got.At.IsZero() && !want.At.Truncate(1e9).Equal(got.At.Truncate(1e9)):
		return "time"
	}
	for i := range want.Files {
		if want.Files[i].Name != got.Files[i].Name {
			return "name of file " + want.Files[i].ID
		}
	}
	return ""
}

// sumOf is the hash of a file of the source.
func (e *Engine) sumOf(ctx context.Context, w *work, src desk.File) (string, error) {
	if src.SHA256 != "" {
		return src.SHA256, nil
	}
	r, err := e.openFile(ctx, w.rec.Ref, src)
	return certificate.HashFile(r, err)
}

func (e *Engine) sameFile(ctx context.Context, w *work, src desk.File, target desk.Ref, tgt desk.File) (bool, error) {
	a, err := e.sumOf(ctx, w, src)
	if err != nil {
		return false, err
	}
	b := tgt.SHA256
	if b == "" {
		o, ok := e.Target.(desk.Opener)
		if !ok {
			return src.Size == tgt.Size, nil
		}
		r, oerr := o.OpenFile(ctx, target, tgt)
		if b, err = certificate.HashFile(r, oerr); errors.Is(err, desk.ErrNotFound) || errors.Is(err, desk.ErrRejected) {
			return false, nil // it is shown, and not given out
		} else if err != nil {
			return false, err
		}
	}
	return a == b, nil
}

// verifyWords says how a verification came out.
func verifyWords(run Run, c report.Counts) string {
	s := fmt.Sprintf("%s %s, %d more only in what is held", report.Records(c.Failed), report.Plural(c.Failed, "differs", "differ"), c.Held)
	if run.Heal && c.Failed > 0 {
		s += fmt.Sprintf("; what a run can mend is due, and the next delta over scope %s heals it or holds it", run.Scope)
	}
	return s
}

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

// resolve puts the target's ids where the wanted record points to people, companies and tickets.
//
// People and companies that are not in the target yet are pushed on the spot, claimed like any record, so that two workers
// never make one person twice. A link whose other end has not arrived is left out, and the record becomes due when it
// arrives: links never block.
func (e *Engine) resolve(ctx context.Context, w *work) error {
	for _, f := range slices.Sorted(maps.Keys(w.want.Fields)) {
		kind := f.Points()
		if kind == "" || len(w.want.Fields[f]) == 0 {
			continue
		}
		var out desk.Value
		for _, id := range w.want.Fields[f] {
			to, err := e.pointed(ctx, w, desk.Ref{Kind: kind, ID: id})
			if err != nil {
				return err
			}
			if to == "" && kind != desk.Ticket {
				w.losses = append(w.losses, desk.Loss{Class: "person-gone", What: fmt.Sprintf("%s of %s", f, w.ref)})
			}
			if to != "" && !slices.Contains(out, to) {
				out = append(out, to)
			}
		}
		if f.IsSet() {
			slices.Sort(out)
		}
		w.want.Fields[f] = out
	}
	for i, en := range w.want.Entries {
		if en.Author.ID == "" {
			continue
		}
		// Whoever wrote an entry is needed in the target only where entries keep their authors; elsewhere name and address
		// stand in the header line.
		id := ""
		if e.TargetSide.KeepsAuthors {
			var err error
			if id, err = e.pointed(ctx, w, desk.Ref{Kind: desk.Person, ID: en.Author.ID}); err != nil {
				return err
			}
		}
		w.want.Entries[i].Author.ID = id
	}
	return nil
}

// pointed returns the target's id of a record that w points to, "" if there is none (yet).
func (e *Engine) pointed(ctx context.Context, w *work, ref desk.Ref) (string, error) {
	if ref.Kind == desk.Ticket {
		if strings.Contains(ref.ID, "://") {
			return ref.ID, nil // points outside the desk
		}
		return e.linked(ctx, w, ref)
	}
	if !slices.Contains(e.kinds(), ref.Kind) {
		return "", nil
	}
	key := w.run.ID + " " + ref.String()
	e.mu.Lock()
	id, ok := e.people[key]
	e.mu.Unlock()
	if ok {
		return id, nil
	}
	var row ledgerRow
	if _, err := e.get(ctx, e.ledgerKey(ref), &row); err != nil {
		return "", err
	}
	if w.run.Kind.Looks() {
		return e.foresee(ctx, w, ref, row)
	}
	// One that was created and has not got everything is brought to its end: it may not be in the plan itself.
	if row.Target == "" || row.Unfinished || row.How == "fallback" && e.lookAgain(w.run.ID, ref) {
		p := &work{m: w.m, run: w.run, it: planEntry{Listed: desk.Listed{Ref: ref}, Due: "needed"}, ref: ref, errand: true}
		err := e.prepare(ctx, p)
		if err == nil && !p.done {
			err = e.carryOut(ctx, ctx, p)
		}
		if row.Unfinished && (errors.Is(err, desk.ErrNotFound) || errors.Is(err, desk.ErrRejected)) {
			return row.Target, nil // it is there; that it lacks something is no reason to keep the ticket back
		}
		if errors.Is(err, errNotYet) && errors.Is(err, desk.ErrNotFound) {
			return "", nil // the source does not know the person any more
		}
		if err != nil {
			return "", fmt.Errorf("needed by %s: %w", w.ref, err)
		}
		if p.out.Outcome == OutFailed || p.out.Outcome == OutHeld && p.row.Target == "" {
			return "", &desk.Error{Op: "push " + ref.String() + ", needed by " + w.ref.String(), Class: desk.ErrRejected, Said: p.out.Reason}
		}
		if row = p.row; w.run.Dry && row.Target == "" {
			row.Target = "(to be created: " + ref.ID + ")"
		}
	}
	e.mu.Lock()
	if len(e.people) > 50_000 {
		clear(e.people)
	}
	if !w.run.Dry && row.Target != "" && row.How != "fallback" {
		e.people[key] = row.Target
	}
	e.mu.Unlock()
	return row.Target, nil
}

// lookAgain tells, once per run and person, that somebody who was replaced by the fallback is to be looked for again:
// agents are added to the target while a migration goes on.
func (e *Engine) lookAgain(run string, ref desk.Ref) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := run + " " + ref.String()
	if e.rematch[k] {
		return false
	}
	if len(e.rematch) > 50_000 {
		clear(e.rematch)
	}
	e.rematch[k] = true
	return true
}

// linked returns the target's id of a ticket, following merges. A ledger of an earlier day may not know of a ticket that is in the
// target and that no run reads into it any more, because it has left the scope: such a one is looked for.
func (e *Engine) linked(ctx context.Context, w *work, ref desk.Ref) (string, error) {
	end := ref
	for seen := map[desk.Ref]bool{}; !seen[end]; {
		seen[end] = true
		var row ledgerRow
		if _, err := e.get(ctx, e.ledgerKey(end), &row); err != nil {
			return "", err
		}
		if row.Into == "" {
			if row.Target != "" || end == w.ref {
				return row.Target, nil
			}
			ids, err := e.mislaid(ctx, w, end, row)
			if err != nil {
				return "", err
			}
			if len(ids) == 1 {
				return ids[0], nil
			}
			w.waits = append(w.waits, end)
			return "", nil
		}
		end.ID = row.Into
	}
	return "", nil // merged in a circle: a link to nowhere
}

// arrived tells whether a link to the record leads somewhere.
func (r *ledgerRow) arrived() bool { return r.Target != "" || r.Into != "" }

// wake makes everybody due whose links waited for a record, and then notes that nobody does any more.
func (e *Engine) wake(ctx context.Context, run string, arrived desk.Ref) error {
	var waiting []Row
	if err := e.each(ctx, e.waitPart(arrived), "", func(r Row) error { waiting = append(waiting, r); return nil }); err != nil {
		return err
	}
	for _, r := range waiting {
		wr, err := decode[waitRow](r)
		if err != nil {
			return err
		}
		if err := e.makeDue(ctx, wr.Scope, dueRow{Listed: desk.Listed{Ref: wr.Ref}, Why: "link", Run: run}); err != nil {
			return err
		}
		if err := e.rows.Delete(ctx, r.Key, r.Version); err != nil && !errors.Is(err, ErrStale) {
			return err
		}
	}
	_, err := update(ctx, e, e.ledgerKey(arrived), func(r *ledgerRow) error {
		if !r.Awaited || !r.arrived() {
			return errKeep
		}
		r.Awaited = false
		return nil
	})
	return err
}

// await makes w due when the records its links wait for arrive. The wait row comes before the flag on the other record's
// ledger row, and the flag is set on the condition that the record has not arrived meanwhile.
func (e *Engine) await(ctx context.Context, w *work) error {
	for _, end := range w.waits {
		for _, scope := range e.scopesOf(w) {
			k := Key{e.waitPart(end), scope + "/" + string(w.ref.Kind) + "/" + keyID(w.ref.ID)}
			if _, err := update(ctx, e, k, func(r *waitRow) error {
				if r.Ref == w.ref {
					return errKeep
				}
				*r = waitRow{Ref: w.ref, Scope: scope}
				return nil
			}); err != nil {
				return err
			}
		}
		arrived := false
		if _, err := update(ctx, e, e.ledgerKey(end), func(r *ledgerRow) error {
			if arrived = r.arrived(); r.Awaited || arrived {
				return errKeep
			}
			r.Awaited = true
			return nil
		}); err != nil {
			return err
		}
		if !arrived {
			continue
		}
		for _, scope := range e.scopesOf(w) {
			if err := e.makeDue(ctx, scope, dueRow{Listed: desk.Listed{Ref: w.ref}, Why: "link", Run: w.run.ID}); err != nil {
				return err
			}
		}
	}
	return nil
}

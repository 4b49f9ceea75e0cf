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

// Where a record is in the target already.

// find looks for the record in the target: people and companies always, because they may be there from before the migration;
// tickets only when a create may have happened already (model: LookUp). It comes after the claim, so that nobody else creates
// between the look and our own create. It leaves w.held.Doubt set when a person has to say.
func (e *Engine) find(ctx context.Context, w *work, lookFirst bool) (id, how string, err error) {
	if a := w.heldBefore.Answer; a != nil && len(w.heldBefore.Doubtful) == 0 { // else it is about an entry
		switch a.Choice {
		case ChooseLink:
			if how, err := e.mayLink(ctx, w, a.Value.First()); err != nil || how != "" {
				return a.Value.First(), how, err
			}
			w.held.Doubt, w.held.Candidates = cmpOr(w.heldBefore.Doubt, "it is open which record of the target it is"), w.heldBefore.Candidates
			return "", "", nil
		case ChooseCreate:
			if w.unspent() {
				return "", "", nil
			}
			lookFirst = true // such an answer was being carried out when somebody was cut off
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
			ids, err := e.search(ctx, f, w.ref, w.row.Was)
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

// mayLink says how a record of the target that a person named for w's is linked: "" where it is not there, or is another record's, since
// two customers' threads would be one. Then w.held.Refused says why, and the question is put again. Nothing is written.
//
// A ticket is w's where the target says so: it carries w's id, or shows entries of w's. That stays so when people have merged it into
// another one: if that is another record's, so are its fields. One that they have merged is theirs to name, if no record has it.
func (e *Engine) mayLink(ctx context.Context, w *work, id string) (how string, err error) {
	now, err := e.Target.Read(ctx, desk.Ref{Kind: w.ref.Kind, ID: id})
	if errors.Is(err, desk.ErrNotFound) {
		w.held.Refused = fmt.Sprintf("the decision names target %s, which is not there; nothing was written", id)
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look at target %s, decided for %s: %w", id, w.ref, err)
	}
	if w.ref.Kind != desk.Ticket {
		return "decided", nil // of people and companies the source may have two where the target has one
	}
	own, foreign := e.whose(w, now)
	if f, ok := e.Target.(desk.Finder); ok {
		ids, err := e.search(ctx, f, w.ref, w.row.Was)
		if err != nil {
			return "", err
		}
		own = own || slices.Contains(ids, id) || slices.Contains(ids, now.Ref.ID)
	}
	switch owner, err := e.ownerOf(ctx, w, id); {
	case err != nil:
		return "", err
	case own && owner != "":
		return mergedThere, nil
	case own:
	case owner != "":
		w.held.Refused = fmt.Sprintf("target %s is %s's already; nothing was written", id, desk.Ref{Kind: w.ref.Kind, ID: owner})
	case foreign && now.Ref.ID == id:
		w.held.Refused = fmt.Sprintf("target %s has entries of another record already; nothing was written", id)
	}
	if w.held.Refused != "" {
		return "", nil
	}
	return "decided", nil
}

// foundTogether is for a ticket that was found by w's id and holds those of others: the target's people have merged what we made into
// another record's, whose fields are that one's; or others into it. Where nobody can tell, no policy writes over what it says.
func (e *Engine) foundTogether(ctx context.Context, w *work, now desk.Record) error {
	if err := e.livesIn(ctx, w); err != nil || w.row.How == mergedThere {
		return err
	}
	fields := map[desk.Field]base{}
	for f, v := range w.want.Fields {
		if t := now.Fields[f].Digest(); t != "" && t != v.Digest() {
			fields[f] = base{Src: "cut off", Tgt: "cut off", Ask: true}
		}
	}
	maps.Copy(fields, w.row.Fields)
	w.row.Fields = fields
	return nil
}

// livesIn notes that what was found is another record's ticket, into which people have merged what we made.
func (e *Engine) livesIn(ctx context.Context, w *work) error {
	owner, err := e.ownerOf(ctx, w, w.row.Target)
	if owner != "" {
		w.row.How = mergedThere
	}
	return err
}

// whose tells whether a ticket of the target shows entries of w's, and such of other records.
func (e *Engine) whose(w *work, now desk.Record) (own, foreign bool) {
	ours := map[string]bool{}
	for id := range w.known {
		ours[e.marker(id)] = true
	}
	for _, en := range w.rec.Entries { // of which a writer who was cut off may have brought some
		ours[e.marker(en.ID)] = true
	}
	for _, id := range w.brings { // as he has noted, where the source no longer shows them
		ours[e.marker(id)] = true
	}
	for _, en := range now.Entries {
		own = own || en.Marker != "" && ours[en.Marker]
		foreign = foreign || en.Marker != "" && !ours[en.Marker] && !isNote(e.entryOf(en.Marker))
	}
	return own, foreign
}

// anothers tells whether a ticket of the target that w's was looked for, and found, is another record's: the target's people have merged
// what a create made into that one.
func (e *Engine) anothers(ctx context.Context, w *work, now desk.Record) (bool, error) {
	if _, foreign := e.whose(w, now); !foreign && len(now.Aliases) == 0 {
		return false, nil // so is almost every one, and is not asked about
	}
	owner, err := e.ownerOf(ctx, w, now.Ref.ID)
	return owner != "", err
}

// ownerOf returns the record whose ticket in the target is id, as the ledger says; "" if that is none but w's. It looks through the whole
// ledger: a person's decision is rare.
func (e *Engine) ownerOf(ctx context.Context, w *work, id string) (string, error) {
	for place := ""; ; {
		rows, next, err := e.rows.Scan(ctx, e.ledgerPart(desk.Ref{Kind: w.ref.Kind}), place, 1000)
		if err != nil {
			return "", fmt.Errorf("look through the ledger for target %s: %w", id, err)
		}
		for _, r := range rows {
			if r.Sort != e.ledgerKey(desk.Ref{}).Sort || r.Part == e.ledgerPart(w.ref) {
				continue // a part of a long thread; or w itself
			}
			l, err := decode[ledgerRow](r)
			if err != nil {
				return "", err
			}
			if l.Target != id || l.How == mergedThere || l.Into != "" && !l.Apart {
				continue
			}
			return e.ledgerID(r.Part, w.ref.Kind)
		}
		if place = next; place == "" {
			return "", nil
		}
	}
}

// forgotten tells whether a ticket that has left the source may be in the target without the ledger's knowing, because that is of an
// earlier day, and can be looked for.
func (e *Engine) forgotten(w *work) bool {
	_, searched := e.Target.(desk.Finder)
	return searched && w.run.adopted() && w.row.Gone == "" && w.row.Into == "" && w.ref.Kind == desk.Ticket
}

// mislaid looks for a ticket that the ledger does not know to be in the target, where that may be because it is of an earlier day: no run
// may bring it to light any more. It returns the ids of all that carry its source reference, none where the target cannot be searched.
func (e *Engine) mislaid(ctx context.Context, w *work, ref desk.Ref, row ledgerRow) ([]string, error) {
	f, ok := e.Target.(desk.Finder)
	if !ok || !w.run.adopted() || row.Target != "" || row.Claim != nil {
		return nil, nil
	}
	return e.search(ctx, f, ref, row.Was)
}

// search returns the ids of the target that carry the source reference ref. Of a record that was merged into others and taken out
// again, the tickets in which those live on may still carry it: they are not its own.
func (e *Engine) search(ctx context.Context, f desk.Finder, ref desk.Ref, was []string) ([]string, error) {
	ids, err := f.Find(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("look for %s in the target: %w", ref, err)
	}
	if len(ids) == 0 || len(was) == 0 {
		return ids, nil
	}
	lives := func(id string) (string, error) { // "" where it is no more
		now, err := e.Target.Read(ctx, desk.Ref{Kind: ref.Kind, ID: id})
		if err != nil && !errors.Is(err, desk.ErrNotFound) {
			return "", fmt.Errorf("look for %s in the target: %w", ref, err)
		}
		return now.Ref.ID, nil
	}
	others := map[string]bool{"": true}
	for _, id := range was {
		var row ledgerRow
		if _, err := e.get(ctx, e.ledgerKey(desk.Ref{Kind: ref.Kind, ID: id}), &row); err != nil {
			return nil, err
		}
		if row.Target == "" {
			continue
		}
		now, err := lives(row.Target) // it may have been merged itself since
		if err != nil {
			return nil, err
		}
		others[now] = true
	}
	var own []string
	for _, id := range ids {
		now, err := lives(id)
		if err != nil {
			return nil, err
		}
		if !others[now] {
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

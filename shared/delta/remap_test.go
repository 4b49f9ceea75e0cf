package delta_test

import (
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

var remap = delta.Request{Kind: delta.Remap, Scope: "all"}

// another gives the migration another file.
func (s *stage) another(change func(*mapping.Rules)) {
	change(&s.Migration.Rules)
	s.Migration.Hash += "+"
	s.Restart()
}

// dueOf returns which of the tickets are due, as explain tells.
func (s *stage) dueOf(ids ...string) (out []string) {
	s.t.Helper()
	for _, id := range ids {
		x, err := s.Engine().Explain(ctx, ticket(id))
		if err != nil {
			s.t.Fatal(err)
		}
		if len(x.Due) > 0 {
			out = append(out, id)
		}
	}
	return out
}

func statuses(values map[string]string) func(*mapping.Rules) {
	return func(r *mapping.Rules) {
		r.Fields = map[desk.Kind][]mapping.FieldRule{desk.Ticket: {{From: desk.Status, To: desk.Status, Values: values}}}
	}
}

// Exactly the tickets are due of which the mapping makes something else; the next delta writes those, and what people did in
// the target survives.
func TestRemap(t *testing.T) {
	s := newStage(t)
	open, stalled, edited, both := s.ticket("open", "one"), s.ticket("stalled", "one"), s.ticket("edited", "one"), s.ticket("both", "one")
	for _, id := range []string{stalled, edited, both} {
		s.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
	}
	s.full()
	s.Wait(time.Hour)
	s.Target.Edit(s.there(edited), desk.Fields{desk.Subject: {"an agent's better subject"}, desk.Priority: {"7"}})
	s.Target.Say(s.there(edited).ID, true, desk.Author{Name: "agent"}, "an agent's reply", nil)
	s.Target.Edit(s.there(both), desk.Fields{desk.Status: {"rejected"}})
	s.Target.Edit(s.there(open), desk.Fields{desk.Status: {"deleted"}})
	all := []string{open, stalled, edited, both}

	s.another(statuses(map[string]string{"open": "open", "stalled": "waiting"}))
	q := remap
	q.Dry = true
	if _, rep := s.census(q); rep.Counts.Updated != 3 || s.due() != 0 {
		t.Errorf("a rehearsal: %+v, %d due", rep.Counts, s.due())
	}
	_, rep := s.census(remap)
	if rep.Counts.Updated != 3 || rep.Counts.Unchanged != 1 || rep.Status != string(delta.Verified) {
		t.Errorf("%s %s %+v", rep.Status, rep.Why, rep.Counts)
	}
	same(t, "due", []string{stalled, edited, both}, s.dueOf(all...))

	s.delta()
	s.field(open, desk.Status, "[deleted]") // the mapping makes the same of it, so nothing was written
	s.field(stalled, desk.Status, "[waiting]")
	s.field(edited, desk.Status, "[waiting]")
	s.field(edited, desk.Subject, "[an agent's better subject]")
	s.field(edited, desk.Priority, "[7]")
	s.thread(edited, "one", "an agent's reply")
	s.field(both, desk.Status, "[rejected]") // changed on both sides now: a person decides
	s.held("status changed on both sides")
	s.verified(1)

	// The same file again: nothing is read, because nothing went through another mapping.
	before := s.Source.Calls["read"]
	if _, rep = s.census(remap); rep.Counts.Updated != 0 || s.Source.Calls["read"] != before {
		t.Errorf("a second remap: %+v, %d records read", rep.Counts, s.Source.Calls["read"]-before)
	}
}

// A record that a delta takes up in any case is left to it, and it carries the new mapping out.
func TestRemapLeavesChangesToDelta(t *testing.T) {
	s := newStage(t)
	a, b := s.ticket("a", "one"), s.ticket("b", "one")
	s.full()
	s.Wait(time.Hour)
	s.say(a, "two")
	s.another(statuses(map[string]string{"open": "new"}))
	_, rep := s.census(remap)
	if rep.Counts.Updated != 1 || rep.Counts.Excluded != 1 {
		t.Errorf("%+v %v", rep.Counts, rep.Excluded)
	}
	same(t, "due", []string{b}, s.dueOf(a, b))
	s.delta()
	s.field(a, desk.Status, "[new]")
	s.thread(a, "one", "two")
	s.field(b, desk.Status, "[new]")
	s.verified(0)
}

// What another window's mode has left out waits for a mode that no window of that scope has. The new mapping does not wait with it.
func TestRemapOfWhatAModeLeftOut(t *testing.T) {
	for _, scope := range []string{"all", "support"} {
		s := newStage(t)
		s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateOnly}
		a := s.ticket("a", "one")
		full(t, s.World)
		run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
		s.Wait(time.Hour)
		s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"another"}})
		run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
		s.delta()
		s.field(a, desk.Subject, "[another]")
		s.Wait(time.Hour)
		s.another(statuses(map[string]string{"open": "new"}))
		s.census(delta.Request{Kind: delta.Remap, Scope: scope})
		run(t, s.World, delta.Request{Kind: delta.Delta, Window: "support"})
		s.delta()
		s.field(a, desk.Status, "[new]")
	}
}

// A mapping file that means the same with other words makes nothing due; nor does one that only notes and maps back.
func TestRemapToTheSame(t *testing.T) {
	s := newStage(t)
	a := s.ticket("a", "one")
	s.full()
	s.Wait(time.Hour)
	s.another(statuses(map[string]string{"open": "open", "stalled": "elsewhere"}))
	if _, rep := s.census(remap); rep.Counts.Updated != 0 || rep.Counts.Unchanged == 0 || s.due() != 0 {
		t.Errorf("%+v, %d due", rep.Counts, s.due())
	}
	writes := s.Target.Writes()
	s.delta()
	if n := s.Target.Writes() - writes; n != 0 {
		t.Errorf("%d writes", n)
	}
	s.field(a, desk.Status, "[open]")
}

// Rules for people: tickets of somebody who stands in no longer become due, and of nobody else.
func TestRemapPeople(t *testing.T) {
	s := newStage(t)
	s.Migration.Rules.People = mapping.PersonRule{Unmatched: "fallback", Fallback: "team@new.example"}
	s.Target.Add(desk.Person, desk.Fields{desk.Name: {"Team"}, desk.Email: {"team@new.example"}})
	s.Target.Add(desk.Person, desk.Fields{desk.Name: {"Bob"}, desk.Email: {"bob@x.example"}})
	var ids, people []string
	for _, name := range []string{"ann", "bob"} {
		p := s.Source.Add(desk.Person, desk.Fields{desk.Name: {name}, desk.Email: {name + "@x.example"}})
		people = append(people, p)
		ids = append(ids, s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {name}, desk.Status: {"open"}, desk.Group: {"Support"}, desk.Requester: {p}}))
	}
	s.full()
	s.Wait(time.Hour)
	s.another(func(r *mapping.Rules) { r.People = mapping.PersonRule{Unmatched: "create"} })
	s.census(remap)
	same(t, "due", ids[:1], s.dueOf(ids...))
	s.delta()
	s.field(ids[0], desk.Requester, "[person/"+people[0]+"]")
	s.verified(0)
}

// A remap has the migration to itself.
func TestRemapAlone(t *testing.T) {
	s := newStage(t)
	s.ticket("a", "one")
	_, err := s.Run(remap, nil)
	refused(t, err, "no full run of scope \"all\" has finished yet")
	s.full()
	s.Wait(time.Hour)
	if _, _, err := s.Engine().Start(ctx, mainDelta); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Engine().Start(ctx, remap)
	refused(t, err, "a remap has the migration to itself")
	s.delta()
	r, _, err := s.Engine().Start(ctx, remap)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Engine().Start(ctx, mainDelta)
	refused(t, err, "run "+r.ID+" (remap/all) has the migration to itself until it ends")
	_, _, err = s.Engine().Start(ctx, delta.Request{Kind: delta.Remap, Scope: "all", Window: "main"})
	refused(t, err, "a remap run has a scope, not a window")
}

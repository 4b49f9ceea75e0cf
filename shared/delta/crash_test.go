package delta_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

var crashStride = flag.Int("crash.stride", 1, "visit every n-th effect only")

// migration is the one of most engine tests: two scopes, a window on each, one field with a policy of its own.
func migration() delta.Migration {
	p := delta.DefaultPolicies()
	p.OnDeleted, p.OnSpam, p.OnSplit = delta.Close, delta.Mirror, delta.Tag
	p.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.SourceWins}
	return delta.Migration{
		ID: "acme", Hash: "h1",
		Scopes:  map[string]desk.Scope{"all": {}, "support": {Any: map[desk.Field][]string{desk.Group: {"Support"}}}},
		Windows: map[string]delta.Window{"main": {Scope: "all", Mode: delta.CreateUpdate}, "support": {Scope: "support", Mode: delta.CreateUpdate}},
		Rules:   mapping.Rules{People: mapping.PersonRule{Unmatched: "create"}}, Policies: p,
	}
}

type script struct {
	w                      *deltatest.World
	ann, bob               string
	mail, conflict, doomed string
	survivor, absorbed     string
	linked, late           string
	told, half, junk, dead string
}

func ticket(id string) desk.Ref { return desk.Ref{Kind: desk.Ticket, ID: id} }

// seed fills the source: people, a company, tickets with entries, files, links; and the target with a person of its own.
func seed(w *deltatest.World) *script {
	s := &script{w: w}
	d := w.Source
	firm := d.Add(desk.Company, desk.Fields{desk.Name: {"Acme"}})
	s.ann = d.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}, desk.CompanyOf: {firm}})
	s.bob = d.Add(desk.Person, desk.Fields{desk.Name: {"Bob"}, desk.Email: {"bob@y.example"}})
	w.Target.Add(desk.Person, desk.Fields{desk.Name: {"Robert"}, desk.Email: {"bob@y.example"}})
	ann := desk.Author{ID: s.ann, Name: "Ann", Email: "ann@x.example"}
	open := func(subject, group string) string {
		return d.Add(desk.Ticket, desk.Fields{desk.Subject: {subject}, desk.Status: {"open"}, desk.Group: {group}, desk.Requester: {s.ann}, desk.Priority: {"10"}})
	}
	s.mail = open("mail", "Support")
	d.Say(s.mail, true, ann, "it burns", map[string][]byte{"a.bin": {1, 2, 3}, "empty": {}})
	d.Say(s.mail, false, desk.Author{ID: s.bob, Name: "Bob"}, "really?", nil)
	s.conflict = open("conflict", "Sales")
	s.doomed = open("doomed", "Sales")
	s.survivor = open("survivor", "Sales")
	d.Say(s.survivor, true, ann, "first", nil)
	s.absorbed = open("absorbed", "Support")
	d.Say(s.absorbed, true, ann, "second", nil)
	s.linked = open("linked", "Sales")
	s.late = open("late", "Sales")
	d.Edit(ticket(s.linked), desk.Fields{desk.LinkRefersTo: {s.late, "https://outside.example/1"}})
	s.told, s.junk = open("told", "Sales"), open("junk", "Sales")
	d.Say(s.told, true, ann, "a secret", map[string][]byte{"s": {7}})
	d.Say(s.told, true, ann, "for agents", nil)
	d.Say(s.told, true, ann, "gone", nil)
	d.Say(s.told, true, ann, "another matter", nil)
	d.Say(s.junk, true, ann, "spam?", nil)
	s.dead = open("dead", "Sales")
	return s
}

// play is a small but complete migration. Every step is carried through to its end, whatever is cut off.
func (s *script) play() error {
	w := s.w
	run := func(q delta.Request) error {
		r, err := w.Run(q, nil)
		if err != nil {
			return fmt.Errorf("%s run: %w", q.Kind, err)
		}
		if r.Status != delta.Verified && r.Status != delta.Exceptions {
			return fmt.Errorf("%s run %s ended %s: %s", q.Kind, r.ID, r.Status, r.Why)
		}
		return nil
	}
	steps := []func() error{
		func() error { return run(delta.Request{Kind: delta.Full, Scope: "all"}) },
		func() error { return run(delta.Request{Kind: delta.Full, Scope: "support"}) },
		func() error {
			w.Until(time.Date(2026, 3, 11, 9, 0, 0, 0, time.UTC))
			ann := desk.Author{ID: s.ann, Name: "Ann"}
			w.Source.Say(s.mail, true, ann, "still burning", map[string][]byte{"b.bin": bytes.Repeat([]byte("x"), 5000)})
			w.Source.Edit(ticket(s.conflict), desk.Fields{desk.Status: {"stalled"}, desk.Priority: {"20"}})
			w.Source.Say(s.conflict, true, ann, "the customer's new reply", nil)
			tgt := ticket(w.Target.Target(ticket(s.conflict)))
			w.Target.Edit(tgt, desk.Fields{desk.Status: {"resolved"}, desk.Priority: {"30"}, desk.Subject: {"an agent's better subject"}})
			w.Target.Say(w.Target.Target(ticket(s.mail)), true, desk.Author{Name: "agent"}, "an agent's reply in the new desk", nil)
			w.Source.Remove(ticket(s.doomed))
			w.Source.Join(ticket(s.absorbed), ticket(s.survivor))
			w.Source.Say(s.survivor, true, ann, "third", nil)
			s.half = w.Source.Move(s.told, 3, "", desk.Fields{desk.Subject: {"half"}, desk.Status: {"open"}, desk.Group: {"Sales"}})
			w.Source.Redact(s.told, 0)
			w.Source.Flip(s.told, 1)
			w.Source.Drop(s.told, 2)
			w.Source.Junk(ticket(s.junk))
			w.Source.Remove(ticket(s.dead))
			w.Source.Edit(ticket(s.late), desk.Fields{desk.Status: {"stalled"}})
			w.Target.Edit(ticket(w.Target.Target(ticket(s.late))), desk.Fields{desk.Status: {"resolved"}})
			w.Wait(time.Hour)
			return nil
		},
		func() error { return run(delta.Request{Kind: delta.Delta, Window: "support"}) },
		func() error { return run(delta.Request{Kind: delta.Delta, Window: "main"}) },
		func() error {
			for _, id := range []string{s.conflict, s.late} {
				if err := w.Do(func(e *delta.Engine) error {
					return e.Decide(context.Background(), ticket(id), desk.Status, "", delta.Decision{Choice: delta.ChooseSource})
				}); err != nil {
					return err
				}
			}
			return nil
		},
		func() error {
			w.Until(time.Date(2026, 3, 12, 9, 0, 0, 0, time.UTC))
			carl := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Carl"}, desk.Email: {"carl@z.example"}})
			id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"new"}, desk.Status: {"open"}, desk.Group: {"Support"}, desk.Requester: {carl}, desk.LinkParent: {s.mail}})
			w.Source.Say(id, true, desk.Author{ID: carl, Name: "Carl"}, "hello", nil)
			w.Target.Edit(ticket(w.Target.Target(ticket(s.late))), desk.Fields{desk.Status: {"rejected"}}) // after the decision
			w.Source.Restore(ticket(s.doomed))
			w.Source.Restore(ticket(s.junk))
			w.Wait(time.Hour)
			return nil
		},
		func() error { return run(delta.Request{Kind: delta.Delta, Window: "main"}) },
		func() error { return run(delta.Request{Kind: delta.Delta, Window: "support"}) },
		func() error {
			w.Target.Damage(w.Target.Target(ticket(s.survivor)), deltatest.LoseEntry)
			w.Target.Damage(w.Target.Target(ticket(s.mail)), deltatest.FieldValue)
			w.Wait(time.Hour)
			return nil
		},
		func() error { return run(delta.Request{Kind: delta.Verify, Scope: "all", Heal: true}) },
		func() error { return run(delta.Request{Kind: delta.Delta, Window: "main"}) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

func play(laptop bool, disorder uint64, cuts []deltatest.Cut, blind bool) (*deltatest.World, error) {
	s := seed(crashWorld(laptop, disorder, cuts, blind))
	return s.w, s.play()
}

func crashWorld(laptop bool, disorder uint64, cuts []deltatest.Cut, blind bool) *deltatest.World {
	w := deltatest.NewWorld(migration())
	w.Laptop, w.Disorder, w.Effects.Cuts, w.Target.Blind = laptop, disorder, cuts, blind
	return w
}

// TestUndisturbed says what the small migration must come to: the expectation is written out here, from the script, and not
// taken from the engine.
func TestUndisturbed(t *testing.T) {
	s := seed(crashWorld(true, 0, nil, false))
	if err := s.play(); err != nil {
		t.Fatal(err)
	}
	look := s.w.Target.Look()
	one := func(id string) deltatest.Seen {
		t.Helper()
		all := look["ticket/"+id]
		if len(all) != 1 {
			t.Fatalf("ticket %s is %d times in the target", id, len(all))
		}
		return all[0]
	}
	field := func(id string, f desk.Field, want string) {
		t.Helper()
		if got := one(id).Fields[f]; got != want {
			t.Errorf("ticket %s %s = %s, want %s", id, f, got, want)
		}
	}
	if got := len(one(s.mail).Entries); got != 4 { // two, one later, one of the agent's
		t.Errorf("mail has %d entries, want 4: %q", got, one(s.mail).Entries)
	}
	if got := len(one(s.mail).Files); got != 3 {
		t.Errorf("mail has %d files, want 3", got)
	}
	field(s.mail, desk.Subject, "[mail]")                                                // changed without a trace, and healed
	field(s.conflict, desk.Status, "[stalled]")                                          // decided: the source's
	field(s.conflict, desk.Priority, "[20]")                                             // policy: source wins
	field(s.conflict, desk.Subject, "[an agent's better subject]")                       // changed in the target only
	field(s.doomed, desk.Status, "[open]")                                               // policy: close; restored
	field(s.dead, desk.Status, "[resolved]")                                             // policy: close
	field(s.late, desk.Status, "[rejected]")                                             // decided for what the target said before: asked again
	field(s.linked, desk.LinkRefersTo, "[?https://outside.example/1 ticket/"+s.late+"]") // the other end came later
	if got := len(one(s.conflict).Entries); got != 1 {
		t.Errorf("the reply on a held ticket: %d entries, want 1", got)
	}
	field(s.told, desk.Tags, "[deleted-in-source]") // policy of the split
	same(t, "told", []string{"(redacted)", "-for agents", takenText, "another matter"}, bodies(one(s.told)))
	same(t, "half", []string{"another matter"}, bodies(one(s.half)))
	same(t, "junk", []string{"spam?"}, bodies(one(s.junk))) // policy: mirror; restored
	if got := len(one(s.told).Files); got != 0 {
		t.Errorf("%d files of what was redacted are still there", got)
	}
	if got := len(one(s.survivor).Entries); got != 3 { // one was lost, and came back
		t.Errorf("survivor has %d entries, want 3: %q", got, one(s.survivor).Entries)
	}
	if _, there := look["ticket/"+s.absorbed]; there {
		t.Error("the absorbed ticket is still a ticket of its own")
	}
	if _, twice := look["person/"+s.bob]; twice {
		t.Error("Bob was created although the target has him")
	}
	for ref, all := range look {
		if len(all) != 1 {
			t.Errorf("%s is %d times in the target", ref, len(all))
		}
	}
}

// TestObjectPrefixes: every object lies under one of the prefixes by which a store expires them, and each is in use.
func TestObjectPrefixes(t *testing.T) {
	w, err := play(true, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]int{}
	for _, key := range w.Store.ObjectsWith("", "") {
		first, _, _ := strings.Cut(key, "/")
		used[first+"/"]++
	}
	for _, p := range delta.ObjectPrefixes() {
		if used[p.Name] == 0 {
			t.Errorf("no object lies under %s", p.Name)
		}
		delete(used, p.Name)
	}
	for first, n := range used {
		t.Errorf("%d objects lie under %s, which is no prefix with a time for which it is kept", n, first)
	}
}

// TestCrashAnywhere cuts the small migration off before and after every effect on a store or a desk, once and twice, with
// messages in order and in disorder, on a laptop and with processes that know nothing of each other; goes on; and wants the
// target of the undisturbed migration.
func TestCrashAnywhere(t *testing.T) {
	for _, laptop := range []bool{true, false} {
		t.Run(fmt.Sprintf("laptop=%v", laptop), func(t *testing.T) {
			t.Parallel()
			explore(t, laptop, false, 1, play, func(err error) bool { t.Error(err); return true })
		})
	}
}

// TestCrashFindsMissingLookup shows that the explorer can fail: when a taken-over create is not looked up, it must notice.
func TestCrashFindsMissingLookup(t *testing.T) {
	t.Parallel()
	found := 0
	explore(t, true, true, 1, play, func(err error) bool {
		found++
		t.Logf("found, as it must be: %.300s", err)
		return false
	})
	if found == 0 {
		t.Error("the lookup was switched off and no cut showed a difference")
	}
}

// explore plays a migration again and again, visits every effect beginning with from, and calls bad with each violation until
// it returns false.
func explore(t *testing.T, laptop, blind bool, from int, play func(bool, uint64, []deltatest.Cut, bool) (*deltatest.World, error), bad func(error) bool) {
	calm, err := play(laptop, 0, nil, blind)
	if err != nil {
		t.Fatal(err)
	}
	want, n := calm.Target.Look(), calm.Effects.Count()
	visited, violations, on := 0, 0, true
	check := func(disorder uint64, cuts ...deltatest.Cut) {
		if !on {
			return
		}
		visited++
		w, err := play(laptop, disorder, cuts, blind)
		if err == nil {
			if d := cmp.Diff(want, w.Target.Look()); d != "" {
				err = fmt.Errorf("another end (-undisturbed +this):\n%s", d)
			}
		}
		if err != nil {
			if violations++; violations <= 3 {
				on = bad(fmt.Errorf("disorder=%d cut %v (%s): %w", disorder, cuts, name(w.Effects, cuts), err))
			}
		}
	}
	stride := *crashStride
	switch {
	case testing.Short() && blind: // it ends at the first one that it finds
		stride = 4
	case testing.Short():
		stride = 29
	}
	for i := from; i <= n; i += stride {
		for _, after := range []bool{false, true} {
			first := deltatest.Cut{Effect: i, After: after}
			check(0, first)
			check(uint64(i), first)
			for _, gap := range []int{1, 2, 5, 11} {
				check(uint64(i), first, deltatest.Cut{Effect: i + gap, After: !after})
			}
		}
	}
	t.Logf("crash explorer: laptop=%v lookup=%v effects=%d visited=%d violations=%d", laptop, !blind, n-from+1, visited, violations)
}

func name(e *deltatest.Effects, cuts []deltatest.Cut) string {
	if i := cuts[0].Effect; i <= len(e.Names) {
		return e.Names[i-1]
	}
	return "never reached"
}

package delta_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
	"github.com/deltadesk/deltadesk/shared/report"
)

// tale is a short story that is cut off everywhere.
type tale struct {
	name string
	// set says what the desks can do and what the policies are.
	set  func(w *telling)
	play func(s *telling)
	// want is the undisturbed end, as far as end tells it.
	want string
	// doubts: cut off, it may come to a question that nobody can answer without a look at the target. Somebody looks and answers
	// truly, and the end must be the same all the same, but for the order of entries: the others do not wait for the one in doubt.
	doubts bool
}

// telling is a tale as it is told once.
type telling struct {
	*deltatest.World
	day  int
	from int // the first effect that is worth a visit
	// names of the tickets by id, for the end.
	names map[string]string
	based map[string]bool // scopes that have a baseline
}

type untold struct{ error }

func (s *telling) must(err error) {
	if err != nil {
		panic(untold{err})
	}
}

// later lets people work on another day.
func (s *telling) later(work func()) {
	s.day++
	s.Until(time.Date(2026, 3, 10+s.day, 9, 0, 0, 0, time.UTC))
	if work != nil {
		work()
	}
	s.Wait(time.Hour)
}

func (s *telling) ticket(subject string, entries ...string) string {
	return s.in("Support", subject, entries...)
}

func (s *telling) in(group, subject string, entries ...string) string {
	id := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {subject}, desk.Status: {"open"}, desk.Group: {group}})
	s.names[id] = subject
	s.say(id, entries...)
	return id
}

func (s *telling) say(id string, entries ...string) {
	for _, body := range entries {
		s.Wait(time.Minute)
		s.Source.Say(id, !strings.HasPrefix(body, "-"), customer, strings.TrimPrefix(body, "-"), nil)
	}
}

// there is the target's ticket.
func (s *telling) there(id string) desk.Ref {
	t := s.Target.Target(ticket(id))
	if t == "" {
		s.must(fmt.Errorf("ticket %s is not in the target", s.names[id]))
	}
	return ticket(t)
}

func (s *telling) run(q delta.Request) delta.Run {
	r, err := s.Run(q, nil)
	if err == nil && r.Status != delta.Verified && r.Status != delta.Exceptions {
		err = fmt.Errorf("run %s ended %s: %s", r.ID, r.Status, r.Why)
	}
	if err != nil {
		s.must(fmt.Errorf("%s run: %w", q.Kind, err))
	}
	if q.Kind == delta.Full {
		s.based[r.Scope] = true
	}
	return r
}

// full is the full run that a story begins with; what it does is seen to by other explorers.
func (s *telling) full(scopes ...string) {
	s.Wait(time.Hour)
	for _, scope := range append([]string{"all"}, scopes...) {
		s.run(delta.Request{Kind: delta.Full, Scope: scope})
	}
	s.from = s.Effects.Count() + 1
}

func (s *telling) delta(windows ...string) (r delta.Run) {
	if len(windows) == 0 {
		windows = []string{"main"}
	}
	for _, w := range windows {
		r = s.run(delta.Request{Kind: delta.Delta, Window: w})
	}
	return r
}

// dispute lets both sides change the status of a ticket, so that a delta asks about it.
func (s *telling) dispute(id string) {
	s.later(func() {
		s.Source.Edit(ticket(id), desk.Fields{desk.Status: {"stalled"}})
		s.Target.Edit(s.there(id), desk.Fields{desk.Status: {"rejected"}})
	})
	s.delta()
}

func (s *telling) decide(id string, f desk.Field, d delta.Decision) {
	s.must(s.Do(func(e *delta.Engine) error { return e.Decide(ctx, ticket(id), f, "", d) }))
}

// decideEntry decides about the first entry of a ticket that is held.
func (s *telling) decideEntry(id string, c delta.Choice) {
	for _, h := range s.held() {
		if h.Ref == ticket(id) && len(h.Entries) > 0 {
			s.must(s.Do(func(e *delta.Engine) error {
				return e.Decide(ctx, h.Ref, "", h.Entries[0].Entry, delta.Decision{Choice: c})
			}))
			return
		}
	}
	s.must(fmt.Errorf("no entry of ticket %s is held", s.names[id]))
}

func (s *telling) held() (hs []delta.Held) {
	s.must(s.Do(func(e *delta.Engine) (err error) { hs, err = e.HeldRecords(ctx); return err }))
	return hs
}

// another gives the migration another file.
func (s *telling) another(change func(*mapping.Rules)) {
	change(&s.Migration.Rules)
	s.Migration.Hash += "+"
	s.Restart()
}

// ending is what a story comes to: what people see in the target, and what the ledger still wants.
type ending struct {
	Desk              map[string][]deltatest.Seen
	Merged            map[string]string
	Due, Held, Claims []string
	Found             []string // by a verification and a census
}

func (s *telling) ending() (e ending) {
	e.Desk, e.Merged = s.Target.Look(), s.Target.Merged()
	for part := range s.Store.Parts("due/") {
		for row := range s.Store.Each(part) {
			var d struct{ Why string }
			s.must(json.Unmarshal(row.Body, &d))
			e.Due = append(e.Due, strings.TrimPrefix(part, "due/acme/")+": "+row.Sort+" "+d.Why)
		}
	}
	for _, h := range s.held() {
		what := h.Ref.String()
		for _, f := range h.Fields {
			what += " " + string(f.Field)
		}
		for _, en := range h.Entries {
			what += " entry " + en.Entry
		}
		if h.Doubt != "" {
			what += " in doubt"
		}
		if h.Gone {
			what += " gone"
		}
		e.Held = append(e.Held, what)
	}
	for part := range s.Store.Parts("led/") {
		for row := range s.Store.Each(part) {
			var l struct{ Claim *struct{ By string } }
			if row.Sort != "row" {
				continue
			}
			if s.must(json.Unmarshal(row.Body, &l)); l.Claim != nil {
				e.Claims = append(e.Claims, strings.TrimPrefix(part, "led/acme/"))
			}
		}
	}
	return e
}

// String tells the end in short: each ticket with what it says, and what is open.
func (s *telling) end(e ending) string {
	var lines []string
	name := func(ref string) string {
		kind, id, _ := strings.Cut(ref, "/")
		if n := s.names[id]; n != "" && kind == "ticket" {
			return n
		}
		return ref
	}
	for _, ref := range slices.Sorted(maps.Keys(e.Desk)) {
		for _, seen := range e.Desk[ref] {
			if !strings.Contains(ref, "ticket/") {
				continue
			}
			line := name(ref)
			for _, f := range []desk.Field{desk.Subject, desk.Status, desk.Group, desk.Priority, desk.Tags, desk.LinkRefersTo, desk.LinkParent} {
				v := seen.Fields[f]
				if f == desk.Subject && v == "["+line+"]" || f == desk.Status && v == "[open]" || f == desk.Group && v == "[Support]" || v == "" {
					continue
				}
				for id, n := range s.names {
					v = strings.ReplaceAll(v, "ticket/"+id, n)
				}
				line += fmt.Sprintf(" %s=%s", f, strings.Trim(v, "[]"))
			}
			said := strings.Join(bodies(seen), ", ")
			lines = append(lines, line+": "+strings.ReplaceAll(strings.ReplaceAll(said, takenText, "(gone)"), "-[mig", "[mig"))
			if len(seen.Files) > 0 {
				lines[len(lines)-1] += fmt.Sprintf("; %d files", len(seen.Files))
			}
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(e.Merged)) {
		lines = append(lines, name(ref)+" is "+name(e.Merged[ref]))
	}
	for _, ls := range [][]string{e.Held, e.Due, e.Claims, e.Found} {
		for _, l := range ls {
			for id, n := range s.names {
				l = strings.ReplaceAll(l, "ticket/"+id, n)
			}
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "\n")
}

// quiet lets the windows run until they have nothing more to do.
func (s *telling) quiet() {
	for range 4 {
		s.later(nil)
		busy := false
		for _, name := range slices.Sorted(maps.Keys(s.Migration.Windows)) {
			if s.Migration.Windows[name].Kind == delta.Census || !s.based[s.Migration.Windows[name].Scope] {
				continue
			}
			c := s.report(s.delta(name).ID).Counts
			busy = busy || c.Created+c.Updated+c.Failed > 0
		}
		if !busy {
			return
		}
	}
	s.must(errors.New("it does not come to rest"))
}

func (s *telling) report(id string) (rep report.Report) {
	s.must(s.Do(func(e *delta.Engine) (err error) { rep, err = e.Report(ctx, id); return err }))
	s.must(report.Check(rep))
	return rep
}

// answered looks into the target for what is in doubt, and says what is there.
func (s *telling) answered() (n int) {
	for _, h := range s.held() {
		if h.Doubt == "" || h.Ref.Kind != desk.Ticket {
			continue
		}
		d := delta.Decision{Choice: delta.ChooseCreate}
		id := s.Target.Target(h.Ref)
		there := id != ""
		if len(h.Doubtful) > 0 {
			there = false
			for _, seen := range s.Target.Look()[h.Ref.String()] {
				there = there || slices.ContainsFunc(seen.Entries, func(en string) bool {
					return slices.ContainsFunc(h.Doubtful, func(id string) bool { return strings.HasPrefix(en, "acme/"+id+" ") })
				})
			}
		}
		if there {
			d = delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{id}}
		}
		s.decide(h.Ref.ID, "", d)
		n++
	}
	return n
}

// told plays a tale to its end: until the desks are at rest; and until they are again after every ticket of the source has gone on,
// which shows what the ledger thinks of them. It returns both ends, and where the effects of the story are.
func (t tale) told(laptop bool, lost int, cuts ...deltatest.Cut) (s *telling, ends []ending, to int, err error) {
	w := deltatest.NewWorld(migration())
	w.Migration.Policies = delta.DefaultPolicies()
	w.Laptop, w.Effects.Lost, w.Effects.Cuts = laptop, lost, cuts
	s = &telling{World: w, from: 1, names: map[string]string{}, based: map[string]bool{}}
	defer func() {
		switch p := recover().(type) {
		case nil:
		case untold:
			err = p.error
		default:
			panic(p)
		}
	}()
	if t.set != nil {
		t.set(s)
	}
	t.play(s)
	to = w.Effects.Count()
	s.quiet()
	for n := 0; t.doubts && s.answered() > 0; n++ {
		if n > 3 {
			return s, ends, to, errors.New("the same is asked again and again")
		}
		s.quiet()
	}
	ends = append(ends, s.ending())
	s.later(func() {
		for _, ref := range slices.Sorted(maps.Keys(s.Source.Look())) {
			if id, ok := strings.CutPrefix(ref, "own ticket/"); ok {
				w.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"77"}})
				s.say(id, "and more")
			}
		}
	})
	s.quiet()
	e := s.ending()
	scope := slices.Min(slices.Collect(maps.Keys(s.based)))
	for _, q := range []delta.Request{{Kind: delta.Verify, Scope: scope}, {Kind: delta.Census, Scope: scope}} {
		for _, x := range s.report(s.run(q).ID).Exceptions {
			e.Found = append(e.Found, fmt.Sprintf("%s %s %s: %s", q.Kind, x.Record, x.Outcome, x.Reason))
		}
	}
	ends = append(ends, e)
	for _, e := range ends {
		for _, all := range e.Desk {
			for _, seen := range all {
				if t.doubts {
					slices.Sort(seen.Entries)
				}
			}
		}
	}
	return s, ends, to, nil
}

// What desks and policies can be like.
type setting func(*telling)

func with(all ...setting) func(*telling) {
	return func(s *telling) {
		for _, f := range all {
			f(s)
		}
	}
}

func merged(p delta.OnEvent) setting    { return func(s *telling) { s.Migration.OnMerged = p } }
func deleted(p delta.OnEvent) setting   { return func(s *telling) { s.Migration.OnDeleted = p } }
func spam(p delta.OnEvent) setting      { return func(s *telling) { s.Migration.OnSpam = p } }
func split(p delta.OnEvent) setting     { return func(s *telling) { s.Migration.OnSplit = p } }
func gone(p delta.OnGone) setting       { return func(s *telling) { s.Migration.OnTargetGone = p } }
func conflict(p delta.Conflict) setting { return func(s *telling) { s.Migration.Conflict = p } }

func noMerger(s *telling)    { s.Target.NoMerger = true }
func noReviser(s *telling)   { s.Target.NoReviser = true }
func noFinder(s *telling)    { s.Target.NoFinder = true }
func noMarkers(s *telling)   { s.Target.NoMarkers = true }
func timed(s *telling)       { s.Target.NoMarkers, s.Target.Timed = true, true }
func noLocks(s *telling)     { s.Target.NoLocks = true }
func findLag(s *telling)     { s.Target.FindLag = 2 * time.Minute }
func touched(s *telling)     { s.Target.TellsTouched = true }
func findsMerged(s *telling) { s.Target.FindsMerged = true }
func purges(s *telling)      { s.Source.Purges = true }
func joinsInto(s *telling)   { s.Source.JoinsInto = true }

// reopens: the target opens a ticket when an entry arrives.
func reopens(s *telling) {
	s.Target.Meddle = func(f desk.Fields) { f[desk.Status] = desk.Value{"open"} }
}

// apart: only one group moves.
func apart(s *telling) {
	s.Migration.Scopes["all"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
}

// mode of the window over scope support.
func mode(m delta.Mode) setting {
	return func(s *telling) { s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: m} }
}

// pair is two tickets that have moved.
func pair(s *telling) (a, b string) {
	a, b = s.ticket("a", "a1", "a2"), s.ticket("b", "b1")
	s.full()
	return a, b
}

func mergedTale(s *telling) {
	a, b := pair(s)
	s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
	s.delta()
}

func takenBack(s *telling) {
	a, b := pair(s)
	s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
	s.delta()
	s.later(func() { s.Source.Part(ticket(a)); s.say(b, "b2") })
	s.delta()
}

func splitTale(s *telling) {
	a := s.ticket("a", "a1", "a2", "a3")
	s.full()
	s.later(func() {
		s.names[s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Support"}})] = "b"
	})
	s.delta()
}

func revised(s *telling) {
	a := s.ticket("a", "edited", "hidden", "-shown", "dropped")
	s.Source.Say(a, true, customer, "file", map[string][]byte{"x": {1}, "y": {2}})
	s.full()
	s.later(func() {
		s.Source.Redact(a, 0)
		s.Source.Flip(a, 1)
		s.Source.Flip(a, 2)
		s.Source.Revise(a, 4, func(en *desk.Entry) { en.Files = en.Files[1:] })
		s.Source.Drop(a, 3)
		s.say(a, "new")
	})
	s.delta()
}

func leavesAndComesBack(leave func(*deltatest.Desk, desk.Ref)) func(*telling) {
	return func(s *telling) {
		a := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"a"}, desk.Status: {"open"}, desk.Group: {"Support"}, desk.Tags: {"vip"}})
		s.names[a] = "a"
		s.say(a, "a1")
		s.full()
		s.later(func() { s.say(a, "a2"); leave(s.Source, ticket(a)) })
		s.delta()
		s.later(func() { s.Source.Restore(ticket(a)); s.say(a, "a3") })
		s.delta()
	}
}

func goneTale(answer delta.Choice) func(*telling) {
	return func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Source.Edit(ticket(b), desk.Fields{desk.LinkRefersTo: {a}})
			s.Target.Remove(s.there(a))
			s.say(a, "a3")
		})
		s.delta()
		if answer != "" {
			s.later(func() {
				d := delta.Decision{Choice: answer}
				if answer == delta.ChooseLink {
					d.Value = desk.Value{s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"theirs"}})}
				}
				s.decide(a, "", d)
			})
			s.delta()
		}
	}
}

// bothSides has a field that both sides changed, and an answer.
func bothSides(answer delta.Decision) func(*telling) {
	return func(s *telling) {
		a, _ := pair(s)
		s.later(func() {
			s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}, desk.Priority: {"3"}})
			s.say(a, "a3")
			s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}, desk.Subject: {"people's"}})
			s.Target.Say(s.there(a).ID, true, desk.Author{Name: "agent"}, "people's reply", nil)
		})
		s.delta()
		s.later(func() { s.decide(a, desk.Status, answer) })
		s.delta()
	}
}

func censusTale(happen func(s *telling, a, b string)) func(*telling) {
	return func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Source.Unseen(func() { happen(s, a, b) }) })
		s.run(census)
		s.delta()
	}
}

func healTale(harm func(s *telling, a desk.Ref)) func(*telling) {
	return func(s *telling) {
		a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
		s.Source.Say(a, true, customer, "file", map[string][]byte{"x": {1}})
		s.say(a, "a2")
		s.Source.Edit(ticket(a), desk.Fields{desk.LinkRefersTo: {b}})
		s.full()
		s.delta()
		s.later(func() { harm(s, s.there(a)) })
		s.run(delta.Request{Kind: delta.Verify, Scope: "all", Heal: true})
		s.delta()
	}
}

func harms(h deltatest.Harm) func(*telling) {
	return healTale(func(s *telling, a desk.Ref) { s.Target.Damage(a.ID, h) })
}

// undone is a delta of everything, taken back after people have been at work, and the delta that brings it again.
func undone(s *telling) {
	a, b := pair(s)
	c := s.ticket("c", "secret")
	d, e := s.ticket("d", "d1"), s.ticket("e", "e1")
	s.delta()
	s.later(func() {
		s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"a again"}, desk.Status: {"stalled"}})
		s.Source.Edit(ticket(b), desk.Fields{desk.Subject: {"b again"}})
		s.say(b, "b2")
		s.Source.Redact(c, 0)
		s.Source.Join(ticket(d), ticket(e))
		f := s.ticket("f", "f1")
		s.Source.Edit(ticket(f), desk.Fields{desk.LinkRefersTo: {a}})
		s.ticket("g", "g1")
	})
	s.from = s.Effects.Count() + 1
	r := s.delta()
	s.later(func() {
		s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}})
		for id, name := range s.names {
			if name == "g" {
				s.Target.Say(s.there(id).ID, true, desk.Author{Name: "agent"}, "on it", nil)
			}
		}
	})
	s.run(undo(r.ID))
}

// restored is a ledger of an earlier day.
func restored(s *telling) {
	a, b := pair(s)
	c := s.ticket("c", "c1")
	s.delta()
	day := s.Store.Snapshot()
	s.later(func() {
		s.say(a, "a3")
		s.Source.Edit(ticket(b), desk.Fields{desk.Status: {"stalled"}})
		s.ticket("d", "d1", "d2")
		s.Source.Remove(ticket(c))
	})
	s.delta()
	s.later(func() {
		s.Store.Restore(day)
		s.Restart()
		s.Target.Say(s.there(a).ID, true, desk.Author{Name: "agent"}, "people's", nil)
		s.say(a, "a4")
		s.Source.Redact(a, 2)
	})
	s.from = s.Effects.Count() + 1
	s.run(delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	s.delta()
}

var tales = []tale{
	{name: "merged, mirror", want: `b: a1, a2, b1
a is b`, play: mergedTale},
	{name: "merged, mirror, no locks, no markers", want: `b: a1, a2, b1
a is b`, doubts: true, set: with(noLocks, timed), play: mergedTale},
	{name: "merged, mirror, cannot", want: `a status=resolved: a1, a2
b: b1, a1, a2`, set: with(noMerger), play: mergedTale},
	{name: "merged, close", want: `a status=resolved: a1, a2
b: b1, a1, a2`, set: with(merged(delta.Close)), play: mergedTale},
	{name: "merged, tag", want: `a tags=deleted-in-source: a1, a2
b: b1, a1, a2`, set: with(merged(delta.Tag)), play: mergedTale},
	{name: "merged, ignore", want: `a: a1, a2
b: b1, a1, a2`, set: with(merged(delta.Ignore), joinsInto), play: mergedTale},
	{name: "merged and taken back", want: `a: a1, a2
b: (gone), (gone), b1, b2
a is b`, play: takenBack},
	{name: "merged and taken back, the search finds merged", want: `a: a1, a2
b: (gone), (gone), b1, b2
a is b`, set: with(findsMerged, touched), play: takenBack},
	{name: "merged and taken back, tag", want: `a: a1, a2
b: b1, (gone), (gone), b2`, set: with(merged(delta.Tag)), play: takenBack},
	{name: "merged and taken back, close, cannot revise", want: `a: a1, a2
b: b1, a1, a2, b2`, set: with(merged(delta.Close), noReviser), play: takenBack},
	{name: "merged before it moved", want: `b: b1, a1`, play: func(s *telling) {
		b := s.ticket("b", "b1")
		s.full()
		a := ""
		s.later(func() { a = s.ticket("a", "a1") })
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
	}},
	{name: "merged twice", want: `x: 
c: a1, a2, b1, c1, c2
a is c
b is c`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.names[s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"x"}})] = "x" })
		c := ""
		s.later(func() { c = s.ticket("c", "c1"); s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
		s.later(func() { s.Source.Join(ticket(b), ticket(c)); s.say(c, "c2") })
		s.delta()
	}},
	{name: "merged, turned round", want: `b subject=a: a1, a2, b1, a3
a is b`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
		s.later(func() { s.Source.Part(ticket(a)); s.Source.Join(ticket(b), ticket(a)); s.say(a, "a3") })
		s.delta()
	}},
	{name: "merged into another scope, which comes in", want: `a status=resolved: a1
b: a1, b1`, set: with(apart, merged(delta.Close)), play: func(s *telling) {
		a, b := s.ticket("a", "a1"), s.in("Sales", "b", "b1")
		s.full()
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
		s.later(func() { s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Support"}}) })
		s.delta()
	}},
	{name: "merged between two scopes", want: `b group=Sales: a1, b1
a is b`, set: with(mode(delta.CreateUpdate)), play: func(s *telling) {
		a, b := s.ticket("a", "a1"), s.in("Sales", "b", "b1")
		s.full("support")
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta("support", "main")
	}},
	{name: "merged, and a link leads there", want: `b: a1, b1
c link.refers_to=b: 
a is b`, play: func(s *telling) {
		a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
		c := s.ticket("c")
		s.Source.Edit(ticket(c), desk.Fields{desk.LinkRefersTo: {a}})
		s.full()
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
	}},
	{name: "split", want: `a: a1, (gone), (gone)
b: a2, a3`, play: splitTale},
	{name: "split, ignore", want: `a: a1, a2, a3
b: a2, a3`, set: with(split(delta.Ignore)), play: splitTale},
	{name: "split, tag, cannot revise", want: `a tags=deleted-in-source: a1, a2, a3
b: a2, a3`, set: with(split(delta.Tag), noReviser), play: splitTale},
	{name: "split, no markers", want: `a: a1, (gone), (gone)
b: a2, a3`, doubts: true, set: with(timed), play: splitTale},
	{name: "split, the gaining one first, and back", want: `a status=resolved: a1, (gone), a3, b1
b: (gone), a2, (gone)`, play: func(s *telling) {
		a := s.ticket("a", "a1", "a2", "a3")
		b := s.ticket("b", "b1")
		s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"resolved"}}) // open ones come first
		s.full()
		s.later(func() { s.Source.Move(a, 1, b, nil) })
		s.delta()
		s.later(func() { s.Source.Move(b, 1, a, nil) })
		s.delta()
	}},
	{name: "revised", want: `a: (redacted), -hidden, shown, (gone), file, new; 1 files`, play: revised},
	{name: "revised, no locks", want: `a: (redacted), -hidden, shown, (gone), file, new; 1 files`, set: with(noLocks), play: revised},
	{name: "revised, cannot", want: `a: edited, hidden, -shown, dropped, file, new; 2 files
a entry 102 entry 103 entry 104 entry 106 entry 105
all: a held`, set: with(noReviser), play: revised},
	{name: "revised on both sides", want: `a: again, a2
b: b1`, play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() {
			s.Target.Revise(s.there(a).ID, 0, func(en *desk.Entry) { en.Body = "people's" })
			s.Source.Revise(a, 0, func(en *desk.Entry) { en.Body = "again" })
		})
		s.delta()
		s.later(func() { s.decideEntry(a, delta.ChooseSource) })
		s.delta()
	}},
	{name: "hidden by people, and shown in the source", want: `a: a1, -again`, play: func(s *telling) {
		a := s.ticket("a", "-a1", "a2")
		s.full()
		s.later(func() {
			s.Target.Flip(s.there(a).ID, 1)
			s.Source.Flip(a, 0)
			s.Source.Revise(a, 1, func(en *desk.Entry) { en.Body = "again" })
		})
		s.delta()
	}},
	{name: "deleted and back, close", want: `a tags=vip: a1, a2, a3`, set: with(deleted(delta.Close)), play: leavesAndComesBack((*deltatest.Desk).Remove)},
	{name: "deleted and back, tag", want: `a tags=vip: a1, a2, a3`, set: with(deleted(delta.Tag)), play: leavesAndComesBack((*deltatest.Desk).Remove)},
	{name: "deleted and back, mirror", want: `a tags=vip: a1, a2, a3`, set: with(deleted(delta.Mirror)), play: leavesAndComesBack((*deltatest.Desk).Remove)},
	{name: "deleted and back, mirror, purged", want: `a tags=vip: a1, a2, a3`, set: with(deleted(delta.Mirror), purges, findLag), play: leavesAndComesBack((*deltatest.Desk).Remove)},
	{name: "deleted and back, ignore", want: `a tags=vip: a1, a2, a3`, play: leavesAndComesBack((*deltatest.Desk).Remove)},
	{name: "spam and back, close, purged", want: `a tags=vip: a1, a2, a3`, set: with(spam(delta.Close), purges), play: leavesAndComesBack((*deltatest.Desk).Junk)},
	{name: "spam and back, tag, no markers", want: `a tags=vip: a1, a2, a3`, doubts: true, set: with(spam(delta.Tag), timed), play: leavesAndComesBack((*deltatest.Desk).Junk)},
	{name: "spam, then deleted, then back", want: `a: a1, a2
b: b1`, set: with(spam(delta.Close), deleted(delta.Mirror)), play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() { s.Source.Junk(ticket(a)) })
		s.delta()
		s.later(func() { s.Source.Remove(ticket(a)) })
		s.delta()
		s.later(func() { s.Source.Restore(ticket(a)) })
		s.delta()
	}},
	{name: "deleted, mirror, with people's work", want: `a: a1, a2, b1
b is a`, set: with(deleted(delta.Mirror)), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Target.Join(s.there(b), s.there(a))
			s.Source.Remove(ticket(a))
		})
		s.delta()
	}},
	{name: "deleted in the target, hold", want: `b link.refers_to=a: b1
a gone
all: a held`, set: with(gone(delta.HoldGone)), play: goneTale("")},
	{name: "deleted in the target, made again", want: `a: a1, a2, a3
b link.refers_to=a: b1`, set: with(gone(delta.RecreateGone)), play: goneTale("")},
	{name: "deleted in the target, made again, lag", want: `a: a1, a2, a3
b link.refers_to=a: b1`, set: with(gone(delta.RecreateGone), findLag, noLocks), play: goneTale("")},
	{name: "deleted in the target, ignored", want: `b link.refers_to=a: b1`, set: with(gone(delta.IgnoreGone)), play: goneTale("")},
	{name: "deleted in the target, create", want: `a: a1, a2, a3
b link.refers_to=a: b1`, play: goneTale(delta.ChooseCreate)},
	{name: "deleted in the target, link", want: `own ticket/106 subject=theirs: a1, a2, a3
b link.refers_to=a: b1
a created subject
all: a held`, play: goneTale(delta.ChooseLink)},
	{name: "deleted in the target, leave", want: `b link.refers_to=a: b1`, play: goneTale(delta.ChooseTarget)},
	{name: "merged in the target into one of ours", want: `b: (redacted), a2, b1, a3
a is b`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Target.Join(s.there(a), s.there(b))
			s.say(a, "a3") // and nothing of b's, so that the order does not depend on who comes first
			s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"changed"}})
			s.Source.Redact(a, 0)
		})
		s.delta()
	}},
	{name: "merged in the target into a stranger", want: `own ticket/106 subject=own: a1, a2, a3
b: b1
a is own ticket/106`, play: func(s *telling) {
		a, _ := pair(s)
		own := s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"own"}, desk.Status: {"open"}})
		s.later(func() {
			s.Target.Join(s.there(a), ticket(own))
			s.say(a, "a3")
			s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"changed"}})
		})
		s.delta()
	}},
	{name: "merged in the target the other way", want: `a: a1, a2, b1, b2
b is a`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Target.Join(s.there(b), s.there(a))
			s.Source.Join(ticket(a), ticket(b))
			s.say(b, "b2")
		})
		s.delta()
	}},
	{name: "decided: the source's", want: `a subject=people's status=stalled priority=3: a1, a2, people's reply, a3
b: b1`, play: bothSides(delta.Decision{Choice: delta.ChooseSource})},
	{name: "decided: the target's", want: `a subject=people's status=rejected priority=3: a1, a2, people's reply, a3
b: b1`, play: bothSides(delta.Decision{Choice: delta.ChooseTarget})},
	{name: "decided: another value", want: `a subject=people's status=waiting priority=3: a1, a2, people's reply, a3
b: b1`, set: with(noLocks), play: bothSides(delta.Decision{Choice: delta.ChooseValue, Value: desk.Value{"waiting"}})},
	{name: "decided: one of two fields, and an entry of two", want: `a status=rejected priority=5: people's, people's
b: b1
a priority entry 103
all: a held`, play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() {
			s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}, desk.Priority: {"3"}})
			s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}, desk.Priority: {"5"}})
			for i := range 2 {
				s.Source.Revise(a, i, func(en *desk.Entry) { en.Body = "again" })
				s.Target.Revise(s.there(a).ID, i, func(en *desk.Entry) { en.Body = "people's" })
			}
		})
		s.delta()
		s.later(func() {
			s.decide(a, desk.Status, delta.Decision{Choice: delta.ChooseTarget})
			s.decideEntry(a, delta.ChooseTarget)
		})
		s.delta()
	}},
	{name: "decided, in a desk that opens tickets", want: `a subject=people's status=stalled priority=3: a1, a2, people's reply, a3
b: b1`, set: with(reopens, touched), play: bothSides(delta.Decision{Choice: delta.ChooseSource})},
	{name: "decided: the target's, in a desk that opens tickets", want: `a subject=people's status=rejected priority=3: a1, a2, people's reply, a3
b: b1`, set: with(reopens), play: bothSides(delta.Decision{Choice: delta.ChooseTarget})},
	{name: "people's status in a desk that opens tickets", want: `a status=rejected: a1, a2, a3
b status=rejected: b1, b2
b status
all: b held`, set: with(reopens, touched), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}})
			s.Target.Edit(s.there(b), desk.Fields{desk.Status: {"rejected"}})
			s.say(a, "a3")
			s.say(b, "b2")
			s.Source.Edit(ticket(b), desk.Fields{desk.Status: {"stalled"}})
		})
		s.delta()
	}},
	{name: "the source wins", want: `a status=stalled: a1, a2, a3
b: b1`, set: with(conflict(delta.SourceWins), reopens), play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() {
			s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}})
			s.say(a, "a3")
			s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}})
		})
		s.delta()
	}},
	{name: "census: a missed update", want: `a status=stalled: a1, a2
b: b1, b2
c: c1`, play: censusTale(func(s *telling, a, b string) {
		s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}})
		s.say(b, "b2")
		s.ticket("c", "c1")
	})},
	{name: "census: a missed deletion", want: `a status=resolved: a1, a2
b: b1`, set: with(deleted(delta.Close)), play: censusTale(func(s *telling, a, b string) { s.Source.Remove(ticket(a)) })},
	{name: "census: a missed deletion, purged", want: `b: b1`, set: with(deleted(delta.Mirror), purges), play: censusTale(func(s *telling, a, b string) { s.Source.Remove(ticket(a)) })},
	{name: "census: a missed merge", want: `b: a1, a2, b1
a is b`, play: censusTale(func(s *telling, a, b string) { s.Source.Join(ticket(a), ticket(b)) })},
	{name: "healed: a field", want: `a link.refers_to=b: a1, file, a2; 1 files
b: b1`, set: with(touched), play: harms(deltatest.FieldValue)},
	{name: "healed: an entry's text", want: `a link.refers_to=b: a1, file, a2; 1 files
b: b1`, play: harms(deltatest.Body)},
	{name: "healed: an entry lost", want: `a link.refers_to=b: a1, file, a2; 1 files
b: b1`, play: harms(deltatest.LoseEntry)},
	{name: "healed: an entry lost, no markers", want: `a link.refers_to=b: a1, file; 1 files
b: b1`, doubts: true, set: with(timed), play: harms(deltatest.LoseEntry)},
	{name: "healed: a file", want: `a link.refers_to=b: a1, file, a2; 1 files
b: b1`, play: healTale(func(s *telling, a desk.Ref) {
		s.Target.Damage(a.ID, deltatest.SwapEntries)
		s.Target.Damage(a.ID, deltatest.FileByte)
		s.Target.Damage(a.ID, deltatest.SwapEntries)
	})},
	{name: "not healed: a link, which may have moved without a trace", want: `a: a1, file, a2; 1 files
b: b1`, set: with(touched), play: harms(deltatest.LoseLinks)},
	{name: "healed: gone", want: `a link.refers_to=b: a1, file, a2; 1 files
b: b1`, set: with(gone(delta.RecreateGone)), play: harms(deltatest.Vanish)},
	{name: "remap, with people at work", want: `a subject=people's status=new priority=5: a1, a2, a3
b status=rejected: b1
c status=stalled: c1
b status
all: b held`, play: func(s *telling) {
		a, b := pair(s)
		c := s.ticket("c", "c1")
		s.Source.Edit(ticket(c), desk.Fields{desk.Status: {"stalled"}})
		s.delta()
		s.from = s.Effects.Count() + 1
		s.later(func() {
			s.Target.Edit(s.there(a), desk.Fields{desk.Subject: {"people's"}})
			s.Target.Edit(s.there(b), desk.Fields{desk.Status: {"rejected"}})
			s.another(statuses(map[string]string{"open": "new", "stalled": "stalled"}))
		})
		s.run(remap)
		s.later(func() { s.Target.Edit(s.there(a), desk.Fields{desk.Priority: {"5"}}); s.say(a, "a3") })
		s.delta()
	}},
	{name: "undone", want: `a subject=a again status=rejected: a1, a2
b subject=b again: b1, b2
c: (redacted)
e: d1, e1
f link.refers_to=a: f1
g: g1, on it
d is e`, set: with(touched), play: func(s *telling) { undone(s); s.later(nil); s.delta() }},
	{name: "undone, no locks, no markers", want: `a subject=a again status=rejected: a1, a2
b subject=b again: b1, b2
c: (redacted)
e: d1, e1
f link.refers_to=a: f1
g: on it, g1
d is e`, doubts: true, set: with(timed, noLocks), play: func(s *telling) { undone(s); s.later(nil); s.delta() }},
	{name: "sample, undone, full", want: `a: a1, a2, a3
b priority=9 link.refers_to=a: b1
c: c1`, set: with(touched), play: func(s *telling) {
		a := s.ticket("a", "a1", "a2")
		b := s.ticket("b", "b1")
		s.Source.Edit(ticket(b), desk.Fields{desk.LinkRefersTo: {a}, desk.Priority: {"9"}})
		s.ticket("c", "c1")
		s.Wait(time.Hour)
		r := s.run(sample(2))
		s.later(nil)
		s.run(undo(r.ID))
		s.later(func() { s.say(a, "a3") })
		s.run(delta.Request{Kind: delta.Full, Scope: "all"})
	}},
	{name: "restarted, with deletions meanwhile", want: `a status=resolved: a1, a2
b: b1, b2
c status=resolved: c1`, set: with(deleted(delta.Close)), play: func(s *telling) {
		a, b := pair(s)
		c := s.ticket("c", "c1")
		s.delta()
		s.from = s.Effects.Count() + 1
		s.later(func() {
			s.Source.Remove(ticket(a))
			s.say(b, "b2")
			s.Target.Edit(s.there(c), desk.Fields{desk.Status: {"rejected"}})
		})
		s.run(delta.Request{Kind: delta.Full, Scope: "all", Restart: true})
		s.later(func() { s.Source.Remove(ticket(c)) })
		s.delta()
	}},
	{name: "a ledger of an earlier day", want: `a: a1, a2, (redacted), people's, a4
b status=stalled: b1
c status=resolved: c1
d: d1, d2`, set: with(deleted(delta.Close)), play: restored},
	{name: "a ledger of an earlier day, no markers", want: `a: people's, a1, a2, (redacted), a4
b status=stalled: b1
c tags=deleted-in-source: c1
d: d1, d2`, doubts: true, set: with(deleted(delta.Tag), timed), play: restored},
	{name: "a long thread", want: `a: e0, e1, e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12, e13, e14, e15, e16, e17, e18, e19, e20, e21, e22, e23, e24, e25`, play: func(s *telling) {
		s.full()
		s.later(func() {
			a := s.ticket("a")
			for i := range 26 {
				s.say(a, fmt.Sprint("e", i))
			}
		})
		s.delta()
	}},
	{name: "a long thread, no markers", want: `a: e0, e1, e2, e3, e4, file; 1 files`, doubts: true, set: with(timed, reopens), play: func(s *telling) {
		s.full()
		s.later(func() {
			a := s.ticket("a")
			for i := range 5 {
				s.say(a, fmt.Sprint("e", i))
			}
			s.Source.Say(a, true, customer, "file", map[string][]byte{"x": {1}})
		})
		s.delta()
	}},
	{name: "created, nobody can search", want: `b: b1, b2
a: a1, a2`, set: with(noFinder), doubts: true, play: func(s *telling) {
		b := s.ticket("b", "b1")
		s.full()
		s.later(func() { s.ticket("a", "a1", "a2"); s.say(b, "b2") })
		s.delta()
	}},
	{name: "created, nobody can search, no markers", want: `b: b1, b2
a: a1, a2`, set: with(noFinder, noMarkers), doubts: true, play: func(s *telling) {
		b := s.ticket("b", "b1")
		s.full()
		s.later(func() { s.ticket("a", "a1", "a2"); s.say(b, "b2") })
		s.delta()
	}},
	{name: "created, found late, no markers", want: `a: a1, a2`, set: with(findLag, noMarkers, noLocks), doubts: true, play: func(s *telling) {
		s.full()
		s.later(func() { s.ticket("a", "a1", "a2") })
		s.delta()
	}},
	{name: "links drawn later", want: `b group=Sales: 
a link.refers_to=b: a1
c link.refers_to=?https://outside.example/1 a link.parent=d: 
d: `, set: with(mode(delta.CreateUpdate)), play: func(s *telling) {
		b := s.in("Sales", "b")
		a := s.ticket("a", "a1")
		s.Source.Edit(ticket(a), desk.Fields{desk.LinkRefersTo: {b}})
		s.Wait(time.Hour)
		s.run(delta.Request{Kind: delta.Full, Scope: "support"})
		s.full()
		s.later(func() {
			c := s.ticket("c")
			d := s.ticket("d")
			s.Source.Edit(ticket(c), desk.Fields{desk.LinkParent: {d}, desk.LinkRefersTo: {a, "https://outside.example/1"}})
		})
		s.delta("main", "support")
	}},
	{name: "a link to what comes into scope", want: `b: 
a link.refers_to=b: a1`, set: with(apart), play: func(s *telling) {
		b := s.in("Sales", "b")
		a := s.ticket("a", "a1")
		s.Source.Edit(ticket(a), desk.Fields{desk.LinkRefersTo: {b}})
		s.full()
		s.later(func() { s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Support"}}) })
		s.delta()
	}},
	{name: "people matched, made and renamed", want: `a: 
b: `, play: func(s *telling) {
		ann := s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
		s.Target.Add(desk.Person, desk.Fields{desk.Name: {"Robert"}, desk.Email: {"bob@x.example"}})
		a := s.ticket("a")
		s.Source.Edit(ticket(a), desk.Fields{desk.Requester: {ann}})
		s.full()
		s.later(func() {
			firm := s.Source.Add(desk.Company, desk.Fields{desk.Name: {"Acme"}})
			// He is there already. Cut off, nobody knows whether it was a create of ours, and what he lacks would be filled in: so he lacks nothing.
			bob := s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Bob"}, desk.Email: {"bob@x.example"}})
			carl := s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Carl"}, desk.Email: {"carl@x.example"}, desk.CompanyOf: {firm}})
			s.Source.Edit(desk.Ref{Kind: desk.Person, ID: ann}, desk.Fields{desk.Name: {"Anna"}})
			s.Source.Edit(ticket(a), desk.Fields{desk.CC: desk.Set(bob, carl)})
			b := s.ticket("b")
			s.Source.Edit(ticket(b), desk.Fields{desk.Requester: {carl}})
		})
		s.delta()
	}},
	{name: "people that nobody can search for", want: `a: `, set: with(noFinder), play: func(s *telling) {
		a := s.ticket("a")
		s.full()
		s.later(func() {
			bob := s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Bob"}, desk.Email: {"bob@x.example"}})
			s.Source.Edit(ticket(a), desk.Fields{desk.Requester: {bob}})
		})
		s.delta()
	}},
	{name: "a mode that leaves updates", want: `a: a1, b1, a2
c: c1
b is a`, set: with(mode(delta.CreateOnly)), play: func(s *telling) {
		a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
		s.full("support")
		s.later(func() {
			s.say(a, "a2")
			s.Source.Join(ticket(b), ticket(a))
			s.ticket("c", "c1")
		})
		s.delta("support", "main")
	}},
	{name: "a mode that leaves what is new", want: `a link.refers_to=c: a1, a2
c: c1`, set: with(mode(delta.UpdateOnly)), play: func(s *telling) {
		a := s.ticket("a", "a1")
		s.full("support")
		s.later(func() {
			s.say(a, "a2")
			c := s.ticket("c", "c1")
			s.Source.Edit(ticket(a), desk.Fields{desk.LinkRefersTo: {c}})
		})
		s.delta("support", "main")
	}},
	{name: "two scopes overlap", want: `a group=Sales priority=5: a1, a2
b: b1`, set: with(mode(delta.CreateUpdate)), play: func(s *telling) {
		a := s.ticket("a", "a1")
		s.full("support")
		s.later(func() { s.say(a, "a2"); s.ticket("b", "b1") })
		s.delta("support")
		s.later(func() {
			s.Source.Edit(ticket(a), desk.Fields{desk.Group: {"Sales"}})
			s.Target.Edit(s.there(a), desk.Fields{desk.Priority: {"5"}})
		})
		s.delta("main", "support")
	}},
	{name: "a run is cancelled", want: `a: a1, a2, b1, a3
c: c1
d: d1
b is a`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.say(a, "a3")
			s.Source.Join(ticket(b), ticket(a))
			s.ticket("c", "c1")
			s.ticket("d", "d1")
		})
		asked := false
		r, err := s.Run(mainDelta, func() {
			if o, err := s.Engine().Status(ctx); err == nil && s.Target.Writes() > 4 && !asked {
				asked = true
				_ = s.Engine().Cancel(ctx, o.Runs[0].ID, "the operator")
			}
		})
		if s.must(err); !r.Status.Ended() {
			s.must(fmt.Errorf("it is %s", r.Status))
		}
		s.later(nil)
		s.delta()
	}},
	{name: "a status history, and files", want: `a: a1, files, -Status changes in the previous help desk (times in UTC):
2026-03-01 09:00:00  open (was new); 3 files`, play: func(s *telling) {
		s.full()
		s.later(func() {
			a := s.ticket("a", "a1")
			s.Source.Say(a, true, customer, "files", map[string][]byte{"x": {1}, "y": {2}, "empty": {}})
			s.Source.Past(ticket(a), desk.StatusChange{At: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), Before: "new", After: "open"})
		})
		s.delta()
	}},
	{name: "merged, taken back and merged again, close", want: `a status=resolved: a1, a2, a3
b: b1, a1, a2, a3`, set: with(merged(delta.Close), reopens), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
		s.later(func() { s.Source.Part(ticket(a)); s.say(a, "a3") })
		s.delta()
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
	}},
	{name: "merged into one that is deleted, then restored", want: `b: a1, a2, b1`, set: with(deleted(delta.Mirror)), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Source.Join(ticket(a), ticket(b)); s.Source.Remove(ticket(b)) })
		s.delta()
		s.later(func() { s.Source.Restore(ticket(b)) })
		s.delta()
	}},
	{name: "merged while it is spam, tag", want: `a status=resolved tags=deleted-in-source: a1, a2
b: b1, a1, a2`, set: with(spam(delta.Tag), merged(delta.Close)), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Source.Junk(ticket(a)) })
		s.delta()
		s.later(func() { s.Source.Restore(ticket(a)); s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
	}},
	{name: "merged and split at once", want: `b: a1, (gone), b1
c: a2
a is b`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.names[s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"c"}, desk.Status: {"open"}, desk.Group: {"Support"}})] = "c"
			s.Source.Join(ticket(a), ticket(b))
		})
		s.delta()
	}},
	{name: "merged, held, and people tag it", want: `a status=rejected tags=deleted-in-source people's: a1, a2
b: b1, a1, a2`, set: with(merged(delta.Tag)), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}, desk.Tags: {"vip"}})
			s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}, desk.Tags: {"people's"}})
		})
		s.delta()
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
	}},
	{name: "split into what does not move, and back", want: `a: a1, (gone), (gone)
b: a2, a3`, set: with(apart), play: func(s *telling) {
		a := s.ticket("a", "a1", "a2", "a3")
		s.full()
		b := ""
		s.later(func() {
			b = s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Sales"}})
			s.names[b] = "b"
		})
		s.delta()
		s.later(func() { s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Support"}}) })
		s.delta()
	}},
	{name: "split, then redacted, ignore", want: `a: a1, (gone)
b: (redacted)`, set: with(split(delta.Ignore)), play: func(s *telling) {
		a := s.ticket("a", "a1", "secret")
		s.full()
		b := ""
		s.later(func() {
			b = s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Support"}})
			s.names[b] = "b"
		})
		s.delta()
		s.later(func() { s.Source.Redact(b, 0) })
		s.delta()
	}},
	{name: "split between two scopes", want: `a: a1, (gone)
b group=Sales: b1, a2`, set: with(mode(delta.CreateUpdate)), play: func(s *telling) {
		a, b := s.ticket("a", "a1", "a2"), s.in("Sales", "b", "b1")
		s.full("support")
		s.later(func() { s.Source.Move(a, 1, b, nil) })
		s.delta("support", "main")
	}},
	{name: "split, and the losing one is deleted", want: `a: a1
b: a2`, set: with(deleted(delta.Mirror)), play: func(s *telling) {
		a := s.ticket("a", "a1", "a2")
		s.full()
		s.later(func() {
			s.names[s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Support"}})] = "b"
			s.Source.Remove(ticket(a))
		})
		s.delta()
		s.later(func() { s.Source.Restore(ticket(a)) })
		s.delta()
	}},
	{name: "revised by hand, and said so", want: `a: (redacted), a2
b: b1`, set: with(noReviser), play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() { s.Source.Redact(a, 0) })
		s.delta()
		s.later(func() { s.Target.Redact(s.there(a).ID, 0); s.decideEntry(a, delta.ChooseTarget) })
		s.delta()
	}},
	{name: "revised, tag, and the tag taken off by people", want: `a tags=deleted-in-source vip: a1, a2
b: b1`, set: with(func(s *telling) { s.Migration.OnRevised = delta.Tag }), play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() { s.Source.Redact(a, 0); s.Source.Edit(ticket(a), desk.Fields{desk.Tags: {"vip"}}) })
		s.delta()
		s.later(func() {
			s.Target.Edit(s.there(a), desk.Fields{desk.Tags: {"vip"}})
			s.Source.Redact(a, 1)
		})
		s.delta()
	}},
	{name: "a file replaced, and a long entry of many files", want: `a: a1, file, -more files; 5 files`, play: func(s *telling) {
		a := s.ticket("a", "a1")
		s.Source.Say(a, true, customer, "file", map[string][]byte{"x": {1}, "y": {2}})
		s.full()
		s.later(func() {
			s.Source.Replace(a, 1, []byte{9}, true)
			s.Source.Say(a, false, customer, "more files", map[string][]byte{"p": {1}, "q": {1}, "r": {3}})
		})
		s.delta()
	}},
	{name: "deleted and back between two runs of two windows", want: `a: a1, a2`, set: with(deleted(delta.Close), mode(delta.CreateUpdate)), play: func(s *telling) {
		a := s.ticket("a", "a1")
		s.full("support")
		s.later(func() { s.Source.Remove(ticket(a)) })
		s.delta("support")
		s.later(func() { s.Source.Restore(ticket(a)); s.say(a, "a2") })
		s.delta("main", "support")
	}},
	{name: "deleted, close, and people open it", want: `a status=stalled: a1, a2
b: b1`, set: with(deleted(delta.Close)), play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() { s.Source.Remove(ticket(a)) })
		s.delta()
		s.later(func() { s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"stalled"}}); s.Source.Restore(ticket(a)) })
		s.delta()
	}},
	{name: "deleted while a field is held", want: `a status=rejected: a1, a2
b: b1
a status
all: a held`, set: with(deleted(delta.Tag)), play: func(s *telling) {
		a, _ := pair(s)
		s.dispute(a)
		s.later(func() { s.Source.Remove(ticket(a)) })
		s.delta()
		s.later(func() { s.Source.Restore(ticket(a)) })
		s.delta()
	}},
	{name: "deleted in both desks, and restored in the source", want: `a: a1, a2
b: b1`, set: with(deleted(delta.Close), gone(delta.RecreateGone)), play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() { s.Target.Remove(s.there(a)); s.Source.Remove(ticket(a)) })
		s.delta()
		s.later(func() { s.Source.Restore(ticket(a)) })
		s.delta()
	}},
	{name: "deleted in the target, made again, nobody can search", want: `a: a1, a2, a3
b link.refers_to=a: b1`, set: with(gone(delta.RecreateGone), noFinder), doubts: true, play: goneTale("")},
	{name: "deleted in the target, and the source merges into it", want: `b: a1, a2, b1
a is b`, set: with(gone(delta.RecreateGone)), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Target.Remove(s.there(b)); s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
	}},
	{name: "deleted in the target, and the source merges it", want: `b: b1, a1, a2`, set: with(findsMerged), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Target.Remove(s.there(a)); s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
	}},
	{name: "merged in the target, and redacted", want: `b status=stalled: a1, a2, b1, (redacted)
a is b`, set: with(touched, noLocks), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Target.Join(s.there(a), s.there(b)); s.say(a, "a3") })
		s.delta()
		s.later(func() { s.Source.Redact(a, 2); s.Source.Edit(ticket(b), desk.Fields{desk.Status: {"stalled"}}) })
		s.delta()
	}},
	{name: "merged in the target, and split in the source", want: `b: a1, (gone), b1
c: a2
a is b`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Target.Join(s.there(a), s.there(b))
			s.names[s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"c"}, desk.Status: {"open"}, desk.Group: {"Support"}})] = "c"
		})
		s.delta()
	}},
	{name: "census: a merge taken back", want: `a: a1, a2
b: (gone), (gone), b1
a is b`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
		s.later(func() { s.Source.Unseen(func() { s.Source.Part(ticket(a)) }) })
		s.run(census)
		s.delta()
	}},
	{name: "census: a split missed, with a held ticket", want: `a: a1, (gone)
b status=rejected: b1, a2
b status
all: b held`, play: censusTale(func(s *telling, a, b string) {
		s.Source.Edit(ticket(b), desk.Fields{desk.Status: {"stalled"}})
		s.Target.Edit(s.there(b), desk.Fields{desk.Status: {"rejected"}})
		s.Source.Move(a, 1, b, nil)
	})},
	{name: "census of two scopes, and a mode", want: `a: a1, a2
b: b1
c: c1`, set: with(mode(delta.CreateOnly)), play: func(s *telling) {
		a, b := s.ticket("a", "a1"), s.in("Sales", "b", "b1")
		s.full("support")
		s.later(func() {
			s.Source.Unseen(func() {
				s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Support"}})
				s.say(a, "a2")
				s.ticket("c", "c1")
			})
		})
		s.run(delta.Request{Kind: delta.Census, Scope: "support"})
		s.delta("support", "main")
	}},
	{name: "healed: who sees it", want: `a link.refers_to=b: a1, file, a2; 1 files
b: b1`, play: harms(deltatest.Visibility)},
	{name: "healed: an entry's text, cannot", want: `a link.refers_to=b: a1!, file, a2; 1 files
b: b1
a entry 102
all: a held`, set: with(noReviser), play: harms(deltatest.Body)},
	{name: "healed beside people's work", want: `a priority=5 link.refers_to=b: a1!, file, people's; 1 files
b: b1
a entry 102 entry 107
all: a held`, set: with(noLocks), play: healTale(func(s *telling, a desk.Ref) {
		s.Target.Damage(a.ID, deltatest.LoseEntry)
		s.Target.Damage(a.ID, deltatest.Body)
		s.Target.Edit(a, desk.Fields{desk.Priority: {"5"}})
		s.Target.Say(a.ID, true, desk.Author{Name: "agent"}, "people's", nil)
	})},
	{name: "remap, and the ticket leaves", want: `a status=resolved: a1, a2
b status=stalled: b1`, set: with(deleted(delta.Close)), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.another(statuses(map[string]string{"open": "new"})) })
		s.run(remap)
		s.later(func() { s.Source.Remove(ticket(a)); s.Source.Edit(ticket(b), desk.Fields{desk.Status: {"stalled"}}) })
		s.delta()
	}},
	{name: "undone: events", want: `a: a1, a2
b tags=deleted-in-source: b1
c status=resolved: c1
d: d1, c1`, set: with(deleted(delta.Close), spam(delta.Tag), merged(delta.Close)), play: func(s *telling) {
		a, b := pair(s)
		c, d := s.ticket("c", "c1"), s.ticket("d", "d1")
		s.delta()
		s.from = s.Effects.Count() + 1
		s.later(func() {
			s.Source.Remove(ticket(a))
			s.Source.Junk(ticket(b))
			s.Source.Join(ticket(c), ticket(d))
		})
		r := s.delta()
		s.later(nil)
		s.run(undo(r.ID))
		s.later(func() { s.Source.Restore(ticket(a)) })
		s.delta()
	}},
	{name: "undone: decided", want: `a status=rejected: a1, a2
b: (redacted)
a status
all: a held`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}})
			s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}})
			s.Source.Redact(b, 0)
		})
		s.delta()
		s.later(func() { s.decide(a, desk.Status, delta.Decision{Choice: delta.ChooseSource}) })
		r := s.delta()
		s.later(nil)
		s.run(undo(r.ID))
	}},
	{name: "undone, and the source goes on", want: `a: a1, a2, c1
b link.refers_to=a: b1`, play: func(s *telling) {
		a, b := pair(s)
		c := ""
		s.later(func() {
			s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"again"}})
			c = s.ticket("c", "c1")
			s.Source.Edit(ticket(b), desk.Fields{desk.LinkRefersTo: {c}})
		})
		r := s.delta()
		s.later(func() {
			s.Source.Join(ticket(c), ticket(a))
			s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"a"}})
		})
		s.run(undo(r.ID))
		s.delta()
	}},
	{name: "undone, nobody can search", want: `a: a1, a2, a3
b: b1
c: c1`, set: with(noFinder), doubts: true, play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() { s.ticket("c", "c1"); s.say(a, "a3") })
		r := s.delta()
		s.later(nil)
		s.run(undo(r.ID))
		s.delta()
	}},
	{name: "a ledger of an earlier day, nobody can search", want: `a: people's, a1, a2, (redacted), a4
b status=stalled: b1
c status=resolved: c1
d: d1, d2`, set: with(deleted(delta.Close), noFinder), doubts: true, play: restored},
	{name: "a ledger of an earlier day than a merge and a split", want: `b: (redacted), a2, b1, b2
c: c1, (gone)
d: c2
a is b`, play: func(s *telling) {
		a, b := pair(s)
		c := s.ticket("c", "c1", "c2")
		s.delta()
		day := s.Store.Snapshot()
		s.later(func() {
			s.Source.Join(ticket(a), ticket(b))
			s.names[s.Source.Move(c, 1, "", desk.Fields{desk.Subject: {"d"}, desk.Status: {"open"}, desk.Group: {"Support"}})] = "d"
		})
		s.delta()
		s.later(func() { s.Store.Restore(day); s.Restart(); s.say(b, "b2") })
		s.from = s.Effects.Count() + 1
		s.run(delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
		s.later(func() { s.Source.Redact(b, 0) })
		s.delta()
	}},
	{name: "a new ledger", want: `a: a1, a2, a3
b subject=people's: b1
c: c1
b subject
all: b held`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Store.Restore(deltatest.NewMemory().Snapshot())
			s.Restart()
			s.say(a, "a3")
			s.Target.Edit(s.there(b), desk.Fields{desk.Subject: {"people's"}})
			s.ticket("c", "c1")
		})
		s.from = s.Effects.Count() + 1
		s.run(delta.Request{Kind: delta.Full, Scope: "all", Adopt: true})
	}},
	{name: "a thread that does not fit into a row", want: `a: e0, e1, e2, (redacted), e4, e5, e6, e7, e8, e9, e10, e11, e12, e13, e14, e15, e16, e17, e18, e19, e20, e21, e22, e23, e24, e25, e26, e27, e28, e29, e30, e31, e32, e33, e34, e35, e36, e37, e38, e39, e40, e41, e42, e43, e44, e45, e46, e47, e48, e49, e50, e51, e52, e53, e54, e55, e56, e57, e58, e59, e60, e61, e62, e63, e64, e65, e66, e67, e68, e69, e70, e71, e72, e73, e74, e75, e76, e77, e78, e79, e80, e81, e82, e83, e84, e85, e86, e87, e88, e89, e90, e91, e92, e93, e94, e95, e96, e97, e98, e99, e100, e101, e102, e103, e104, e105, e106, e107, e108, e109, e110, e111, e112, e113, e114, e115, e116, e117, e118, e119, e120, e121, e122, e123, e124, last`, play: func(s *telling) {
		a := s.ticket("a")
		for i := range 125 {
			s.Source.Say(a, true, customer, fmt.Sprint("e", i), nil)
		}
		s.full()
		s.later(func() { s.Source.Redact(a, 3); s.say(a, "last") })
		s.delta()
	}},
	{name: "people that are held, and made", want: `a: of bob`, set: with(noFinder), doubts: true, play: func(s *telling) {
		a := s.ticket("a")
		s.full()
		s.later(func() {
			firm := s.Source.Add(desk.Company, desk.Fields{desk.Name: {"Acme"}})
			bob := s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Bob"}, desk.Email: {"bob@x.example"}, desk.CompanyOf: {firm}})
			s.Source.Edit(ticket(a), desk.Fields{desk.Requester: {bob}})
			s.Source.Say(a, true, desk.Author{ID: bob, Name: "Bob"}, "of bob", nil)
		})
		s.delta()
		s.later(func() {
			for _, ref := range slices.Sorted(maps.Keys(s.Source.Look())) {
				if id, ok := strings.CutPrefix(ref, "own person/"); ok {
					s.Source.Edit(desk.Ref{Kind: desk.Person, ID: id}, desk.Fields{desk.Name: {"Robert"}})
				}
			}
		})
		s.delta()
	}},
	{name: "a create refused, then made, with a link to it", want: `a link.refers_to=c: a1, a2
b: b1
c: c1`, play: func(s *telling) {
		a, _ := pair(s)
		c := ""
		s.later(func() {
			c = s.ticket("c", "c1")
			s.Source.Edit(ticket(a), desk.Fields{desk.LinkRefersTo: {c}})
			s.Target.Fail = func(op string, ref desk.Ref) error {
				if op == "create" && ref.ID == c {
					return &desk.Error{Op: op, Class: desk.ErrRejected}
				}
				return nil
			}
		})
		s.delta()
		s.Target.Fail = nil
		s.later(nil)
		s.delta()
	}},
	{name: "links that move", want: `a link.refers_to=c link.parent=c: a1, a2
c: b1, c1
b is c`, set: with(touched), play: func(s *telling) {
		a, b := pair(s)
		c := s.ticket("c", "c1")
		s.Source.Edit(ticket(a), desk.Fields{desk.LinkRefersTo: {b}})
		s.delta()
		s.from = s.Effects.Count() + 1
		s.later(func() {
			s.Source.Join(ticket(b), ticket(c))
			s.Source.Edit(ticket(a), desk.Fields{desk.LinkParent: {c}})
		})
		s.delta()
	}},
	{name: "mail stops a run", want: `a: a1, a2, a3
b: b1
c: c1`, play: func(s *telling) {
		a, _ := pair(s)
		s.later(func() {
			s.say(a, "a3")
			s.ticket("c", "c1")
			s.Target.Lose = func(op string, ref desk.Ref) error {
				if op == "create" {
					return &desk.Error{Op: op, Class: desk.ErrMailed}
				}
				return nil
			}
		})
		r, err := s.Run(mainDelta, nil)
		if s.must(err); !r.Status.Ended() {
			s.must(fmt.Errorf("it is %s", r.Status))
		}
		s.Target.Lose = nil
		s.later(nil)
		s.delta()
	}},
	{name: "a full run is continued", want: `a: a1, a2
b: b1`, play: func(s *telling) {
		a := s.ticket("a", "a1")
		s.ticket("b", "b1")
		s.Wait(time.Hour)
		s.Target.Lose = func(op string, ref desk.Ref) error {
			if op == "create" && ref.ID != a {
				return &desk.Error{Op: op, Class: desk.ErrMailed}
			}
			return nil
		}
		r, err := s.Run(fullAll, nil)
		if s.must(err); !r.Status.Ended() {
			s.must(fmt.Errorf("it is %s", r.Status))
		}
		s.Target.Lose = nil
		s.from = s.Effects.Count() + 1
		s.later(func() { s.say(a, "a2") })
		s.run(delta.Request{Kind: delta.Full, Scope: "all", Continue: true})
		s.later(nil)
		s.delta()
	}},
	{name: "merged and taken back, cannot merge", want: `a: a1, a2
b: b1, (gone), (gone), b2`, set: with(noMerger, findsMerged), play: takenBack},
	{name: "merged and taken back, ignore, no locks", want: `a: a1, a2
b: b1, (gone), (gone), b2`, set: with(merged(delta.Ignore), noLocks), play: takenBack},
	{name: "merged in both desks, and taken back in the source", want: `a: a1, a2, a3
b: (gone), (gone), b1
a is b`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Target.Join(s.there(a), s.there(b)); s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
		s.later(func() { s.Source.Part(ticket(a)); s.say(a, "a3") })
		s.delta()
	}},
	{name: "merged out of one into another", want: `b: (gone), (gone), b1
c: c1, a1, a2
a is b`, play: func(s *telling) {
		a, b := pair(s)
		c := s.ticket("c", "c1")
		s.delta()
		s.from = s.Effects.Count() + 1
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
		s.later(func() { s.Source.Part(ticket(a)); s.Source.Join(ticket(a), ticket(c)) })
		s.delta()
	}},
	{name: "merged, and the one that lives on was never made", want: `a status=resolved: a1
b: a1, b1, b2`, set: with(merged(delta.Close)), play: func(s *telling) {
		a := s.ticket("a", "a1")
		s.full()
		s.later(func() { b := s.ticket("b", "b1"); s.Source.Join(ticket(a), ticket(b)); s.say(b, "b2") })
		s.delta()
	}},
	{name: "a failed write, and then it goes", want: `a subject=people's status=stalled: a1, a2, a3
b: b1, b2`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.say(a, "a3")
			s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}})
			s.say(b, "b2")
			ta := s.there(a)
			s.Target.Fail = func(op string, ref desk.Ref) error {
				if op == "apply" && ref == ta {
					return &desk.Error{Op: op, Class: desk.ErrRejected}
				}
				return nil
			}
		})
		s.delta()
		s.Target.Fail = nil
		s.later(func() { s.Target.Edit(s.there(a), desk.Fields{desk.Subject: {"people's"}}) })
		s.delta()
	}},
	{name: "a scope that means something else", want: `a: a1, a2
b status=stalled group=Sales: b1`, play: func(s *telling) {
		s.Migration.Scopes["support"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support"}}}
		a, b := s.ticket("a", "a1"), s.in("Sales", "b", "b1")
		s.Wait(time.Hour)
		s.run(delta.Request{Kind: delta.Full, Scope: "support"})
		s.from = s.Effects.Count() + 1
		s.later(func() {
			s.say(a, "a2")
			s.Source.Edit(ticket(b), desk.Fields{desk.Status: {"stalled"}})
			s.Migration.Scopes["support"] = desk.Scope{Any: map[desk.Field][]string{desk.Group: {"Support", "Sales"}}}
			s.Migration.Hash += "+"
			s.Restart()
		})
		s.run(delta.Request{Kind: delta.Full, Scope: "support"})
		s.later(nil)
		s.delta("support")
	}},
	{name: "sample, people at work, undone", want: `a status=rejected: a1
c: b1, c1, b2
b is c`, set: with(touched, findsMerged), play: func(s *telling) {
		a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
		c := s.ticket("c", "c1")
		s.Wait(time.Hour)
		r := s.run(sample(3))
		s.from = s.Effects.Count() + 1
		s.later(func() {
			s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}})
			s.Target.Join(s.there(b), s.there(c))
			s.say(b, "b2")
		})
		s.run(undo(r.ID))
		s.later(nil)
		s.run(fullAll)
	}},
	{name: "two deltas undone", want: `a subject=three: a1, a2
b status=stalled: b1
c: c1`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"two"}}); s.ticket("c", "c1") })
		first := s.delta()
		s.later(func() {
			s.Source.Edit(ticket(a), desk.Fields{desk.Subject: {"three"}})
			s.Source.Edit(ticket(b), desk.Fields{desk.Status: {"stalled"}})
		})
		second := s.delta()
		s.from = s.Effects.Count() + 1
		s.later(nil)
		s.run(undo(second.ID))
		s.run(undo(first.ID))
	}},
	{name: "undone: a redaction, a split and a merge taken back", want: `a: a1, a2
b: b1, (gone), (gone)
c: (redacted), (gone), -(gone)
d: c2, -c3`, set: with(merged(delta.Tag)), play: func(s *telling) {
		a, b := pair(s)
		c := s.ticket("c", "c1", "c2", "-c3")
		s.delta()
		s.later(func() { s.Source.Join(ticket(a), ticket(b)) })
		s.delta()
		s.from = s.Effects.Count() + 1
		s.later(func() {
			s.Source.Part(ticket(a))
			s.names[s.Source.Move(c, 1, "", desk.Fields{desk.Subject: {"d"}, desk.Status: {"open"}, desk.Group: {"Support"}})] = "d"
			s.Source.Redact(c, 0)
		})
		r := s.delta()
		s.later(nil)
		s.run(undo(r.ID))
	}},
	{name: "a ledger of an earlier day, and tickets that are gone", want: `a: a1, a2, a3
b: b1, b2`, set: with(gone(delta.RecreateGone), touched), play: func(s *telling) {
		a, b := pair(s)
		day := s.Store.Snapshot()
		s.later(func() { s.Target.Remove(s.there(a)); s.say(a, "a3") })
		s.delta()
		s.later(func() {
			s.Store.Restore(day)
			s.Restart()
			s.Target.Remove(s.there(b))
			s.say(b, "b2")
		})
		s.from = s.Effects.Count() + 1
		s.run(delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	}},
	{name: "a ledger of an earlier day than an answer", want: `a status=stalled: a1, a2
b: b1`, play: func(s *telling) {
		a, _ := pair(s)
		s.dispute(a)
		day := s.Store.Snapshot()
		s.later(func() { s.decide(a, desk.Status, delta.Decision{Choice: delta.ChooseSource}) })
		s.delta()
		s.later(func() { s.Store.Restore(day); s.Restart() })
		s.from = s.Effects.Count() + 1
		s.run(delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
	}},
	{name: "answered, and people move it before it is carried out", want: `a status=waiting: a1, a2
b: b1`, play: func(s *telling) {
		a, _ := pair(s)
		s.dispute(a)
		s.later(func() {
			s.decide(a, desk.Status, delta.Decision{Choice: delta.ChooseSource})
			s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"waiting"}})
		})
		s.delta()
		s.later(func() { s.decide(a, desk.Status, delta.Decision{Choice: delta.ChooseTarget}) })
		s.delta()
	}},
	{name: "fields without a home, and a mapping that gives them one", want: `a status=new group=Trade: a1, -From the previous help desk, without a field of its own here:
Group: Trade
b status=new group=Sales: b1, -From the previous help desk, without a field of its own here:
Group: Sales, b2`, set: with(func(s *telling) {
		s.Migration.Rules.Fields = map[desk.Kind][]mapping.FieldRule{desk.Ticket: {{From: desk.Status, To: desk.Status, Values: map[string]string{"open": "new"}}}}
		s.Migration.Rules.Groups, s.Migration.Rules.GroupDefault = map[string]string{"Support": "Helpdesk"}, "Inbox"
	}), play: func(s *telling) {
		a, b := s.ticket("a", "a1"), s.in("Sales", "b", "b1")
		s.full()
		s.later(func() {
			s.Source.Edit(ticket(a), desk.Fields{desk.Group: {"Trade"}})
			s.say(b, "b2")
		})
		s.delta()
		s.later(func() {
			s.another(func(r *mapping.Rules) {
				r.Groups = map[string]string{"Support": "Helpdesk", "Trade": "Trade", "Sales": "Sales"}
			})
		})
		s.run(remap)
		s.delta()
	}},
	{name: "people of whom nobody knows", want: `a: a1`, set: with(func(s *telling) {
		s.Migration.Rules.People = mapping.PersonRule{Unmatched: "fallback", Fallback: "team@x.example"}
	}), play: func(s *telling) {
		s.Target.Add(desk.Person, desk.Fields{desk.Name: {"Team"}, desk.Email: {"team@x.example"}})
		a := s.ticket("a")
		s.full()
		bob := ""
		s.later(func() {
			bob = s.Source.Add(desk.Person, desk.Fields{desk.Name: {"Bob"}, desk.Email: {"bob@x.example"}})
			s.Source.Edit(ticket(a), desk.Fields{desk.Requester: {bob}})
		})
		s.delta()
		s.later(func() {
			s.Target.Add(desk.Person, desk.Fields{desk.Name: {"Robert"}, desk.Email: {"bob@x.example"}})
			s.say(a, "a1")
		})
		s.delta()
	}},
	{name: "a rehearsal before the run", want: `a: a1, a2, b1, a3
c: c1
b is a`, play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.say(a, "a3"); s.Source.Join(ticket(b), ticket(a)); s.ticket("c", "c1") })
		s.run(delta.Request{Kind: delta.Delta, Window: "main", Dry: true})
		s.delta()
	}},
	{name: "read again from a day on", want: `a subject=people's: a1, a2, a3
b: b1`, set: with(deleted(delta.Tag)), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() { s.say(a, "a3"); s.Source.Remove(ticket(b)) })
		s.delta()
		s.later(func() {
			s.Target.Edit(s.there(a), desk.Fields{desk.Subject: {"people's"}})
			s.Source.Restore(ticket(b))
		})
		s.run(delta.Request{Kind: delta.Delta, Window: "main", Since: time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)})
		s.delta()
	}},
	{name: "a copy of a split stays, and people delete it", want: `b: (redacted)`, set: with(split(delta.Tag), gone(delta.IgnoreGone)), play: func(s *telling) {
		a := s.ticket("a", "a1", "a2")
		s.full()
		b := ""
		s.later(func() {
			b = s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Support"}})
			s.names[b] = "b"
			s.Target.Remove(s.there(a))
		})
		s.delta()
		s.later(func() { s.Source.Redact(b, 0) })
		s.delta()
	}},
	{name: "hidden, with a file, no markers, reopened", want: `a status=rejected: -a1, file, a2; 1 files`, set: with(timed, reopens, noLocks), doubts: true, play: func(s *telling) {
		a := s.ticket("a", "a1")
		s.Source.Say(a, true, customer, "file", map[string][]byte{"x": {1}})
		s.full()
		s.later(func() {
			s.Source.Flip(a, 0)
			s.Source.Replace(a, 1, []byte{2, 3}, false)
			s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"rejected"}})
			s.say(a, "a2")
		})
		s.delta()
	}},
	{name: "tags of both sides, and an event", want: `a tags=people's: a1, a2, a3
b tags=more vip: b1`, set: with(deleted(delta.Tag), merged(delta.Tag), touched), play: func(s *telling) {
		a, b := pair(s)
		s.later(func() {
			s.Target.Edit(s.there(a), desk.Fields{desk.Tags: {"people's"}})
			s.Source.Edit(ticket(b), desk.Fields{desk.Tags: {"vip"}})
			s.Source.Remove(ticket(a))
			s.Source.Remove(ticket(b))
		})
		s.delta()
		s.later(func() {
			s.Source.Restore(ticket(a))
			s.Source.Restore(ticket(b))
			s.Source.Edit(ticket(b), desk.Fields{desk.Tags: {"vip", "more"}})
			s.say(a, "a3")
		})
		s.delta()
	}},
	{name: "verified, and mended twice", want: `a status=stalled: a1, a2
b: (redacted)`, set: with(touched), play: func(s *telling) {
		a, b := pair(s)
		heal := delta.Request{Kind: delta.Verify, Scope: "all", Heal: true}
		s.later(func() {
			s.Target.Damage(s.there(a).ID, deltatest.FieldValue)
			s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}})
		})
		s.run(heal)
		s.later(func() { s.Target.Damage(s.there(b).ID, deltatest.LoseEntry); s.Source.Redact(b, 0) })
		s.run(heal)
		s.delta()
	}},
}

// TestCrashStories cuts each of many short stories off at every effect: the process dies before it, which is after the one before, on a
// laptop; and by turns once more while somebody takes over, there or where processes know nothing of each other, or the effect takes place
// and only its answer is lost. The story goes on, and must come to the undisturbed end, which is written out with it.
func TestCrashStories(t *testing.T) {
	var effects, visits, wrong atomic.Int64
	t.Cleanup(func() {
		t.Logf("crash explorer, %d stories: effects=%d visited=%d violations=%d", len(tales), effects.Load(), visits.Load(), wrong.Load())
	})
	for _, tl := range tales {
		t.Run(tl.name, func(t *testing.T) {
			t.Parallel()
			calm, want, to, err := tl.told(true, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := calm.end(want[0]); got != tl.want {
				t.Errorf("%s: undisturbed it ends with\n%s\nwant\n%s", tl.name, got, tl.want)
			}
			visited, violations := 0, 0
			check := func(laptop bool, lost int, cuts ...deltatest.Cut) {
				visited++
				s, got, _, err := tl.told(laptop, lost, cuts...)
				for i, when := range []string{"the story", "its sequel"} {
					if len(got) > i {
						if d := cmp.Diff(want[i], got[i]); d != "" && err == nil {
							err = fmt.Errorf("another end of %s (-undisturbed +this):\n%s\n%s", when, d, s.end(got[i]))
						}
					}
				}
				if err == nil {
					return
				}
				at := max(lost, 0)
				if len(cuts) > 0 {
					at = cuts[0].Effect
				}
				if violations++; violations <= 3 {
					t.Errorf("%s: laptop=%v cut %v lost %d (%s): %v", tl.name, laptop, cuts, lost, s.Effects.Names[min(at, len(s.Effects.Names))-1], err)
				}
			}
			step := stride(29)
			for i := calm.from; i <= to+1; i += step {
				check(true, 0, deltatest.Cut{Effect: i})
				switch i / step % 8 {
				case 0:
					check(false, 0, deltatest.Cut{Effect: i}, deltatest.Cut{Effect: i + 1 + i%7})
				case 2: // whoever takes over is cut off, too
					check(true, 0, deltatest.Cut{Effect: i}, deltatest.Cut{Effect: i + 2 + i%9})
				case 4:
					check(true, i)
				case 6:
					check(false, i)
				}
			}
			effects.Add(int64(to - calm.from + 1))
			visits.Add(int64(visited))
			wrong.Add(int64(violations))
		})
	}
}

package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

var groupNames = []string{"Support", "Sales", "Billing", "Other"}

func one[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// word is something that somebody writes: never twice the same, and never to be seen in a log.
func (w *world) word(what string) string {
	w.no++
	return fmt.Sprintf("%s-%s-%d", planted, what, w.no)
}

// value is what somebody sets a field to.
func (w *world) value(f desk.Field, target bool, r *rand.Rand) desk.Value {
	switch f {
	case desk.Status:
		if target {
			return desk.Value{one(r, []string{"open", "resolved", "rejected"})}
		}
		return desk.Value{one(r, []string{"open", "waiting", "done"})}
	case desk.Priority:
		w.no++
		return desk.Text(fmt.Sprintf("p%d", w.no))
	case desk.Tags:
		return desk.Set(one(r, []string{"a", "b", "c"}), one(r, []string{"d", "e", "f"}))
	case desk.Group:
		return desk.Value{one(r, groupNames[:3])}
	}
	if r.IntN(8) == 0 && f == colour {
		return nil // unset
	}
	return desk.Value{w.word(string(f))}
}

func (d *simDesk) person(r *rand.Rand) desk.Author {
	var all []*record
	for _, x := range d.order {
		if x.ref.Kind == desk.Person && x.live() {
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return desk.Author{Name: planted + " somebody"}
	}
	x := one(r, all)
	return desk.Author{ID: x.ref.ID, Name: x.now().fields[desk.Name].First(), Email: x.now().fields[desk.Email].First()}
}

// say adds an entry as people do.
func (d *simDesk) say(t *record, public bool, r *rand.Rand) {
	en := entry{id: d.newID(), public: public, body: d.w.word("body"), at: d.clock().Truncate(time.Second), author: d.person(r), by: people}
	for n := r.IntN(8); n > 5; n-- {
		en.files = append(en.files, file{id: d.newID(), name: fmt.Sprintf("f%d.bin", n), content: d.w.word("file")})
	}
	d.said = append(d.said, saying{t, en})
	d.change(t, desk.Changed, "", func(v *version) { v.entries = append(v.entries, en) })
}

func (d *simDesk) ticket(r *rand.Rand) *record {
	w := d.w
	group := one(r, groupNames[:3])
	if w.p.apart {
		group = one(r, groupNames)
	}
	f := desk.Fields{
		desk.Subject: {w.word("subject")}, desk.Status: {one(r, []string{"open", "open", "waiting", "done"})}, desk.Group: {group}, desk.Priority: w.value(desk.Priority, false, r),
		desk.Tags: w.value(desk.Tags, false, r), colour: w.value(colour, false, r), desk.Requester: desk.Text(d.person(r).ID),
	}
	if r.IntN(5) == 0 {
		f[odd] = desk.Value{w.word("odd")}
	}
	t := d.add(desk.Ticket, f, people)
	for range r.IntN(4) {
		d.say(t, r.IntN(3) > 0, r)
	}
	return t
}

// settle fills both desks before the migration begins.
func (w *world) settleIn() {
	r := rand.New(rand.NewPCG(w.p.seed, 4))
	for _, d := range []*simDesk{w.src, w.dst} {
		firm := d.add(desk.Company, desk.Fields{desk.Name: {planted + " firm"}}, people)
		for i := range 5 {
			if d == w.dst && i > 1 {
				break
			}
			d.add(desk.Person, desk.Fields{desk.Name: {fmt.Sprintf("%s person %d", planted, i)}, desk.Email: {fmt.Sprintf("%s%d@x.example", planted, i)}, desk.CompanyOf: {firm.ref.ID}}, people)
		}
	}
	for range w.p.tickets {
		w.src.ticket(r)
		w.now = w.now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
	}
	for range 2 {
		w.dst.ticket(r)
	}
	for range 3 {
		w.people("source", "link", r)
	}
	w.now = w.now.Add(time.Hour)
}

// people do something on one of the desks.
func (w *world) people(side, what string, r *rand.Rand) {
	d := w.src
	if side == "target" {
		d = w.dst
	}
	all := d.tickets(nil)
	if d == w.dst { // what our own people made there is not the migration's business
		all = d.tickets(func(r *record) bool { return r.source.ID != "" })
	}
	if len(all) == 0 {
		return
	}
	t := one(r, all)
	if n := len(all); r.IntN(3) == 0 {
		t = all[n-1-r.IntN(min(n, 3))] // the newest ones get most of the attention
	}
	edit := func(f desk.Field, v desk.Value) {
		w.say("  %s %s %s: %q → %q", d.name, t.ref, f, text(t.now().fields[f]), text(v))
		d.change(t, desk.Changed, "", func(x *version) { d.set(t, x, desk.Fields{f: v}, people, time.Time{}, false) })
	}
	fields := []desk.Field{desk.Subject, desk.Subject, desk.Status, desk.Status, desk.Priority, desk.Tags, colour}
	w.found["people/"+side+": "+what]++
	switch what {
	case "new ticket", "ticket of its own":
		d.ticket(r)
	case "reply":
		w.say("  %s %s", d.name, t.ref)
		d.say(t, true, r)
	case "note":
		d.say(t, false, r)
	case "edit":
		f := one(r, fields)
		edit(f, w.value(f, side == "target", r))
	case "unheard edit":
		if d.t.feed {
			f := one(r, fields)
			v := w.value(f, false, r)
			w.say("  %s %s %s: %q → %q", d.name, t.ref, f, text(t.now().fields[f]), text(v))
			d.unheard(t, func(x *version) { d.set(t, x, desk.Fields{f: v}, people, time.Time{}, false) })
		}
	case "burst": // several within one second, around a reading and a page border as it comes
		for range 3 {
			t = one(r, all)
			f := one(r, fields)
			edit(f, w.value(f, false, r))
			w.later(time.Duration(r.IntN(900))*time.Millisecond, func() {
				if t.live() {
					f := one(r, fields)
					edit(f, w.value(f, false, r))
				}
			})
		}
	case "move to another group":
		g := groupNames
		if !w.p.apart {
			g = groupNames[:3]
		}
		edit(desk.Group, desk.Value{one(r, g)})
	case "link":
		other := one(r, all)
		if other != t {
			edit(desk.LinkRefersTo, desk.Set(append(slices.Clone(t.now().fields[desk.LinkRefersTo]), other.ref.ID)...))
		}
	case "rename a person":
		p := d.records[desk.Ref{Kind: desk.Person, ID: d.person(r).ID}]
		d.change(p, desk.Changed, "", func(v *version) {
			d.set(p, v, desk.Fields{desk.Name: {w.word("name")}}, people, time.Time{}, false)
		})
	case "delete":
		w.say("  %s %s", d.name, t.ref)
		d.change(t, desk.Deleted, "", func(v *version) { v.gone = true })
	case "spam":
		w.say("  %s %s", d.name, t.ref)
		d.change(t, desk.Spam, "", func(v *version) { v.spam = true })
	case "restore", "no spam":
		var back []*record
		for _, x := range d.order {
			if v := x.now(); x.ref.Kind == desk.Ticket && (what == "restore" && v.gone || what == "no spam" && v.spam && !v.gone) {
				back = append(back, x)
			}
		}
		if len(back) > 0 {
			t = one(r, back)
			w.say("  %s %s", d.name, t.ref)
			if t.now().spam {
				t.cleared = d.w.now
			}
			d.change(t, desk.Changed, "", func(v *version) { v.gone, v.spam = false, false })
			t.back = d.w.now
		}
	case "merge":
		if other := one(r, all); other != t && !t.now().spam && !other.now().spam {
			w.say("  %s %s into %s", d.name, t.ref, other.ref)
			d.join(t, other)
		}
	case "redact", "flip privacy":
		if i := len(t.now().entries); i > 0 {
			i = r.IntN(i)
			if d == w.src {
				w.say("  %s %s entry %s", d.name, t.ref, t.now().entries[i].id)
				d.change(t, desk.Changed, "", func(v *version) {
					if what == "redact" {
						v.entries[i].body, v.entries[i].files = "redacted "+w.word("body"), nil
					} else {
						v.entries[i].public = !v.entries[i].public
					}
				})
			}
		}
	case "harm":
		f := one(r, []desk.Field{desk.Subject, desk.Priority}) // the status is written again with every entry, as it is
		v := w.value(f, true, r)
		w.say("  %s %s %s: %q → %q", d.name, t.ref, f, text(t.now().fields[f]), text(v))
		d.harm(t, f, v)
	case "same as the source":
		s := w.src.records[t.source]
		f := one(r, []desk.Field{desk.Subject, desk.Priority, desk.Tags})
		if s != nil {
			edit(f, slices.Clone(s.now().fields[f]))
		}
	default:
		panic("sim: people do not know how to: " + what)
	}
}

// strike is a fault that begins: most wait for a call that they fit.
func (w *world) strike(e event, what string, victim *proc, r *rand.Rand) {
	until := w.now.Add(time.Duration(2+r.IntN(40)) * time.Minute)
	switch what {
	case "crash":
		w.kill(victim)
		w.found["fault/crash"]++
	case "source down":
		w.down[w.src] = until
		w.found["fault/"+what]++
	case "target down":
		w.down[w.dst] = until
		w.found["fault/"+what]++
	case "source key revoked":
		w.revoked[w.src] = until
		w.found["fault/"+what]++
	case "target key revoked":
		w.revoked[w.dst] = until
		w.found["fault/"+what]++
	case "mailed":
		w.mailing, w.mails = true, 0
	case "source limit":
		w.limited(w.src, until)
		w.found["fault/"+what]++
	case "target limit":
		w.limited(w.dst, until)
		w.found["fault/"+what]++
	case "poison":
		if all := w.src.tickets(nil); len(all) > 0 {
			w.poison[one(r, all).ref] = true
		}
	default:
		e.what = what
		w.armed = append(w.armed, e)
	}
}

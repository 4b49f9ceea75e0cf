package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// judge says what must have come of it, from the histories that both desks keep and from what people were asked. It knows
// nothing of how the engine decides.
func (w *world) judge() {
	o := &oracle{w: w, held: map[desk.Ref]delta.Held{}}
	w.must(w.operator(func(ctx context.Context, e *delta.Engine) error {
		hs, err := e.HeldRecords(ctx)
		for _, h := range hs {
			o.held[h.Ref] = h
		}
		if err != nil {
			return err
		}
		o.ended(ctx, e)
		return nil
	}))
	for _, s := range w.src.order {
		if s.ref.Kind == desk.Ticket {
			o.ticket(s)
		}
	}
	o.people()
	for _, t := range w.dst.order {
		if t.ref.Kind == desk.Ticket {
			o.overwritten(t)
		}
	}
	if w.p.logs && leaks(w.log.Bytes()) {
		w.violate("leaked", "the log holds a customer's words")
	}
}

type oracle struct {
	w    *world
	held map[desk.Ref]delta.Held
}

func (o *oracle) inScope(group string) bool {
	p := o.w.p
	switch {
	case !p.apart:
		return true
	case p.apartB && group == "Billing":
		return true
	}
	return group == "Support" || group == "Sales"
}

// mapped is what a value of the source is in the target.
func (o *oracle) mapped(f desk.Field, v string) string {
	w := o.w
	switch {
	case f == desk.Status:
		return statuses(w.oldRules)[v]
	case f == colour && w.dst.t.upper:
		return strings.ToUpper(v)
	}
	return v
}

// meant tells whether a value of the source was this one in the target, by the mapping of any day.
func (o *oracle) meant(f desk.Field, v, there string) bool {
	return o.mapped(f, v) == there || f == desk.Status && (statuses(true)[v] == there || statuses(false)[v] == there)
}

var comparedFields = []desk.Field{desk.Subject, desk.Status, desk.Priority, colour, desk.Group, desk.Tags}

// ticket compares one ticket of the source with what is in the target.
func (o *oracle) ticket(s *record) {
	w := o.w
	v := s.now()
	var all, live []*record
	for _, t := range w.dst.order {
		if t.source == s.ref && !t.removed { // after an undo it begins from nothing
			all = append(all, t)
			if t.live() {
				live = append(live, t)
			}
		}
	}
	if len(live) > 1+w.recreated[s.ref] {
		w.violate("doubled", "%s is %d times in the target: %s", s.ref, len(live), refs(live))
	}
	h, isHeld := o.held[s.ref]
	if isHeld && (h.Doubt != "" || h.Gone) {
		w.occur("end/in doubt")
		return
	}
	if v.into != "" {
		return // it lives on in another one
	}
	if v.gone || v.spam {
		o.event(s, all)
		return
	}
	if !o.inScope(text(v.fields[desk.Group])) {
		w.occur("end/out of scope")
		return
	}
	if len(all) == 0 && w.restored && w.mig.OnTargetGone == delta.IgnoreGone && slices.ContainsFunc(w.dst.order, func(t *record) bool { return t.source == s.ref && t.removed }) {
		return // a ledger of an earlier day cannot tell that it was an undo that removed the ticket
	}
	if len(all) == 0 {
		w.violate("lost", "%s never arrived", s.ref)
		return
	}
	if w.recreated[s.ref] > 1 {
		w.occur("end/made again and again") // a person wanted several, and which one counts is theirs to know
		return
	}
	made := all
	t := made[len(made)-1] // where a person said: create it again, the later one counts
	for _, d := range o.decisionsOn(s.ref, "") {
		if last := made[len(made)-1]; d.choice == delta.ChooseCreate && last.madeNo > d.no {
			t, all = last, made // a person has answered again since (a ledger of an earlier day knows nothing of the first answer), and it was carried out
		}
		if x := w.dst.records[desk.Ref{Kind: desk.Ticket, ID: d.value}]; d.choice == delta.ChooseLink && x != nil && x.source == s.ref {
			t = x // a person said so
			if w.dst.survivor(x).live() {
				all = []*record{x}
			}
		}
	}
	if !t.live() && len(all) > 1 && w.recreated[s.ref] == 0 && len(live) > 0 {
		t = live[0]
	}
	if !t.live() {
		o.elsewhere(s, all)
		return
	}
	for _, f := range comparedFields {
		if why := o.field(s, t, f, h); why != "" {
			w.violate("lost", "%s %s of %s: the source says %q, the target %s says %q: %s\n%s", s.ref, f, s.ref, o.mapped(f, text(v.fields[f])), t.ref, text(t.now().fields[f]), why, o.history(s, t, f))
		}
	}
	o.links(s, t)
	o.thread(s, t, h)
	if made := text(v.fields[desk.Created]); text(t.now().fields[desk.Created]) != made {
		o.dated(s, t, made)
	}
}

// dated: where the target goes by its own clock when a ticket was made, an entry of that time tells it, or a note.
func (o *oracle) dated(s, t *record, made string) {
	w := o.w
	timed := w.dst.t.times || w.dst.t.markers
	for _, en := range t.now().entries {
		note := strings.HasPrefix(en.marker, "acme/fields/")
		switch {
		case en.by != migration:
		case note && !en.public && strings.Contains(en.body, "Created: "+made):
			w.occur("end/created in a note")
			return
		case !note && timed && text(desk.Time(en.at)) == made:
			w.occur("end/created with an entry")
			return
		}
	}
	w.violate("lost", "%s was made at %s, and nothing in target %s tells it", s.ref, made, t.ref)
}

func refs(rs []*record) string {
	var out []string
	for _, r := range rs {
		out = append(out, r.ref.ID)
	}
	return strings.Join(out, ", ")
}

func (o *oracle) history(s, t *record, f desk.Field) string {
	var b strings.Builder
	type line struct {
		no   int
		text string
	}
	var ls []line
	for side, r := range map[string]*record{"source": s, "target": t} {
		for _, e := range r.hist[f] {
			ls = append(ls, line{e.no, fmt.Sprintf("    %s %s by %s: %q → %q", e.at.Format("02 15:04:05.000"), side, e.by, e.old, e.val)})
		}
	}
	for _, d := range o.w.decisions {
		if d.ref == s.ref && d.field == f {
			ls = append(ls, line{d.no, fmt.Sprintf("    decided: %s, %q", d.choice, d.value)})
		}
	}
	slices.SortFunc(ls, func(a, b line) int { return a.no - b.no })
	for _, l := range ls {
		b.WriteString(l.text + "\n")
	}
	return b.String()
}

// changesOf is the history of a field without what changed nothing: writes of what was there, and what the desk's own
// automation moved and the same write put back. Where it had moved the field to what the same write says, that is the write's change.
func changesOf(r *record, f desk.Field) []edit {
	var out []edit
	for _, e := range r.hist[f] {
		n := len(out)
		switch {
		case n > 0 && e.by == migration && out[n-1].by == automation && out[n-1].at.Equal(e.at) && out[n-1].val == e.val:
			e.old = out[n-1].old
			out[n-1] = e
		case e.val == e.old && e.old != "":
		case n > 0 && e.by == migration && out[n-1].by == migration && out[n-1].event && out[n-1].old == e.val: // a policy's tag, and gone again
			out = out[:n-1]
		case n > 0 && e.by == migration && (!e.event || e.at.Sub(out[n-1].at) < time.Minute) && out[n-1].by == automation && out[n-1].old == e.val:
			out = out[:n-1]
		default:
			out = append(out, e)
		}
	}
	return out
}

func firstChange(r *record, f desk.Field) (first edit, ok bool) {
	hist := changesOf(r, f)
	if len(hist) == 0 {
		return edit{}, false
	}
	return hist[0], true
}

func lastChange(r *record, f desk.Field) (last edit, ok bool) {
	hist := changesOf(r, f)
	if len(hist) == 0 {
		return edit{}, false
	}
	return hist[len(hist)-1], true
}

// valueAt is what a field said at a moment.
func valueAt(r *record, f desk.Field, no int) string {
	val := ""
	for _, e := range r.hist[f] {
		if e.no <= no {
			val = e.val
		}
	}
	return val
}

// holds tells whether an answer still stands: the source has not moved since, or says again what it said when it was asked.
func (o *oracle) holds(s *record, f desk.Field, d decided, want string) bool {
	return !o.sourceMoved(s, f, d.no) || o.norm(f, d.source) == want
}

func (o *oracle) decisionsOn(ref desk.Ref, f desk.Field) []decided {
	var out []decided
	for _, d := range o.w.decisions {
		if d.ref == ref && d.field == f {
			out = append(out, d)
		}
	}
	return out
}

// field says what is wrong with a field of the target, if anything is.
func (o *oracle) field(s, t *record, f desk.Field, h delta.Held) string {
	w := o.w
	want, got := o.mapped(f, text(s.now().fields[f])), text(t.now().fields[f])
	if got == want {
		w.occur("end/equal")
		return ""
	}
	for _, x := range h.Fields {
		if x.Field == f {
			w.occur("end/held")
			return ""
		}
	}
	last, _ := lastChange(t, f)
	for _, e := range slices.Backward(changesOf(t, f)) { // the tag of an event, on and off, is no change of the others
		if last = e; f != desk.Tags || e.by != migration || o.untagged(e.old) != o.untagged(e.val) {
			break
		}
	}
	again := last.by == migration && (!last.event || f == desk.Tags) && !o.meant(f, o.sourceAt(s, f, last.no), last.val) && !w.dst.t.lock
	until := last.no        // what came later an undo has taken back
	if last.undo || again { // what an undo put back, or a reply or the event tag found and wrote again, is whoever's it was
		for _, e := range slices.Backward(changesOf(t, f)) {
			if e.no < last.no && e.val == last.val && e.by != migration {
				if last.undo {
					until = e.no
				}
				last = e
				break
			}
		}
	}
	var written edit // what the migration wrote last
	raced := false   // what the source says had arrived, and another ticket's reply put back what it had found before that
	for _, e := range changesOf(t, f) {
		if e.by == migration && !e.event && e.no <= until {
			written = e
		}
		raced = raced || again && len(t.now().aliases) > 0 && e.by == migration && e.no > last.no && e.val == want
	}
	policy := w.mig.ConflictField[f]
	ds := o.decisionsOn(s.ref, f)
	switch last.by {
	case people, automation:
		said := slices.ContainsFunc(t.hist[f], func(e edit) bool { return e.val == want && e.no < last.no && !o.sourceMoved(s, f, e.no) })
		said = said || slices.ContainsFunc(s.hist[f], func(e edit) bool {
			return e.no < last.no && o.mapped(f, e.val) == want && valueAt(t, f, e.no) == want
		})
		switch {
		case said: // both sides said the same, and then the target moved
			w.occur("end/kept")
			return ""
		case want == written.val || last.old == want && !o.sourceMoved(s, f, last.no):
			w.occur("end/kept")
			return ""
		case slices.ContainsFunc(ds, func(d decided) bool {
			v := o.norm(f, d.value)
			return (v == written.val || v == last.old || v == valueAt(t, f, d.no)) && o.holds(s, f, d, want)
		}):
			w.occur("end/kept") // after what was decided, only the target moved
			return ""
		case policy == delta.TargetWins:
			w.occur("end/target wins")
			return ""
		case slices.ContainsFunc(ds, func(d decided) bool { return d.choice == delta.ChooseTarget && o.holds(s, f, d, want) }):
			w.occur("end/kept") // it was left to the target, and the source has not moved since
			return ""
		case len(ds) > 0 && o.norm(f, ds[len(ds)-1].value) == got && o.holds(s, f, ds[len(ds)-1], want):
			w.occur("end/decided")
			return ""
		case raced: // two tickets of ours that the target's people made one, on a desk without locks
			w.occur("end/race")
			return ""
		}
		return "both sides changed it, and nobody was asked"
	case migration:
		if len(t.now().aliases) > 0 && !w.dst.t.lock {
			w.occur("end/race") // two tickets of ours that the target's people made one, on a desk without locks
			return ""
		}
		if w.restored && f == desk.Tags && strings.Contains(got, w.mig.EventTag) {
			w.occur("end/kept") // a ledger of an earlier day cannot tell that the tag is our own
			return ""
		}
		if policy == delta.TargetWins && slices.ContainsFunc(ds, func(d decided) bool { return d.choice == delta.ChooseTarget }) {
			w.occur("end/target wins") // a person left it to the target, and there it stays
			return ""
		}
		if policy == delta.TargetWins && w.restored {
			w.occur("end/target wins") // a ledger of an earlier day cannot tell that it is our own
			return ""
		}
		for _, d := range ds {
			if o.norm(f, d.value) == got && o.holds(s, f, d, want) {
				w.occur("end/decided")
				return ""
			}
		}
		return "what the source says now never arrived"
	}
	if last.by == nobody && (!w.dst.t.touched || t.touched[f] || w.restored || len(t.now().aliases) > 0 || len(ds) > 0) {
		w.occur("end/harm") // this desk, or this ledger, does not tell it from the work of people
		return ""
	}
	return "nobody ever set it"
}

// sourceMoved tells whether the source says something else in the field now than at a moment.
func (o *oracle) sourceMoved(s *record, f desk.Field, no int) bool {
	return o.sourceAt(s, f, no) != text(s.now().fields[f])
}

// links looks whether what a ticket refers to is drawn in the target as far as it is there.
func (o *oracle) links(s, t *record) {
	w := o.w
	have := t.now().fields[desk.LinkRefersTo]
	if len(o.decisionsOn(s.ref, desk.LinkRefersTo)) > 0 {
		return // a person said what they are to be
	}
	if len(t.now().aliases) > 0 && !w.dst.t.lock {
		return // two tickets of ours that the target's people made one, on a desk without locks: a write on its way to the one reaches the other
	}
	for _, x := range o.held[s.ref].Fields {
		if x.Field == desk.LinkRefersTo {
			return
		}
	}
	for _, id := range s.now().fields[desk.LinkRefersTo] {
		other := w.src.records[desk.Ref{Kind: desk.Ticket, ID: id}]
		if other == nil {
			continue
		}
		other = w.src.survivor(other)
		if h := o.held[other.ref]; other == s || !other.live() || other.now().spam || h.Doubt != "" || h.Gone {
			continue
		}
		var there []string
		for _, x := range w.dst.order {
			if x.source == other.ref && x.live() {
				there = append(there, x.ref.ID)
			}
		}
		if len(there) == 0 {
			continue
		}
		if w.restored && !w.dst.t.finder && !o.inScope(text(other.now().fields[desk.Group])) {
			continue // a ledger of an earlier day does not know where it is, no run reads it any more, and nobody can search this desk for it
		}
		if !slices.ContainsFunc(have, func(v string) bool {
			r := w.dst.records[desk.Ref{Kind: desk.Ticket, ID: v}]
			// One that was deleted and made again has the links of before until their owners change; verify finds them.
			return r != nil && (slices.Contains(there, w.dst.survivor(r).ref.ID) || w.src.records[r.source] != nil && w.src.survivor(w.src.records[r.source]) == other ||
				slices.ContainsFunc(w.dst.order, func(x *record) bool {
					s := w.src.records[x.source]
					return s != nil && w.src.survivor(s) == other && w.dst.survivor(x) == w.dst.survivor(r)
				}))
		}) {
			w.violate("lost", "%s refers to %s, and in the target %s refers to %v, not to %v", s.ref, id, t.ref.ID, have, there)
		}
	}
}

// thread compares entries, their order and their files.
func (o *oracle) thread(s, t *record, h delta.Held) {
	w := o.w
	at := map[string][]int{}
	for i, en := range t.now().entries {
		if en.by == migration {
			at[en.marker] = append(at[en.marker], i)
		}
	}
	for m, is := range at {
		if len(t.now().aliases) > 0 && (w.mig.OnMerged != delta.Mirror || !w.dst.t.merger || w.wandered[strings.TrimPrefix(m, "acme/")]) {
			continue // both tickets had it, as in the source, and the target's people merged them
		}
		if len(is) > 1+o.unfound(m, t) && w.recreated[s.ref] == 0 && (w.dst.t.markers || len(w.recreated) == 0) {
			w.violate("doubled", "entry %s is %d times in target %s of %s", m, len(is), t.ref.ID, s.ref)
		}
	}
	prev, order := -1, len(s.now().aliases) == 0
	for _, en := range s.now().entries {
		is := at["acme/"+en.id]
		if len(is) == 0 && o.withAlias(s, t, en) {
			w.occur("end/entry with a merged ticket")
			continue
		}
		if len(is) == 0 {
			w.violate("lost", "entry %s of %s is not in target %s", en.id, s.ref, t.ref.ID)
			continue
		}
		got := t.now().entries[is[0]]
		if order && is[0] < prev && w.dst.t.markers {
			w.violate("lost", "entry %s of %s is out of order in target %s", en.id, s.ref, t.ref.ID)
		}
		prev = is[0]
		if asked := false; len(h.Entries) > 0 {
			for _, x := range h.Entries {
				asked = asked || x.Entry == en.id
			}
			if asked {
				w.occur("end/entry held")
				continue
			}
		}
		same := got.body == en.body && got.public == en.public && len(got.files) == len(en.files)
		for i := range en.files {
			same = same && got.files[i].content == en.files[i].content && got.files[i].name == en.files[i].name
		}
		if !same && !slices.ContainsFunc(w.decisions, func(d decided) bool {
			return d.field == "" && (d.ref == s.ref || slices.Contains(s.now().aliases, d.ref.ID))
		}) {
			w.violate("lost", "entry %s of %s differs in target %s: %q public=%v %d files, want %q public=%v %d files", en.id, s.ref, t.ref.ID, got.body, got.public, len(got.files), en.body, en.public, len(en.files))
		}
	}
}

// unfound counts the tickets with which an entry came into t although nobody could know of them: the answer to the create was lost, and
// before anybody looked for it people had merged what it made, on a desk whose search does not show what was merged. So the record was
// made again, and people have merged that one into t as well.
func (o *oracle) unfound(marker string, t *record) (n int) {
	dst := o.w.dst
	for _, a := range dst.order {
		if dst.t.finder && !a.noted && a.intoNo > 0 && slices.Contains(a.brought, marker) && dst.survivor(a) == t && slices.ContainsFunc(dst.order, func(b *record) bool {
			return b.source == a.source && b.madeNo >= a.intoNo && dst.survivor(b) == t
		}) {
			n++
		}
	}
	return n
}

// withAlias tells whether an entry came into s by a merge, and the target's people had given the ticket it came with another
// end: merged it into one of theirs, or deleted it. There it stays.
func (o *oracle) withAlias(s, t *record, en entry) bool {
	for _, a := range s.now().aliases {
		for _, x := range o.w.dst.order {
			if x.source.ID != a || x.source.Kind != desk.Ticket || x.removed {
				continue
			}
			end := o.w.dst.survivor(x)
			if end != t && (end.now().gone || slices.ContainsFunc(end.now().entries, func(e entry) bool { return e.marker == "acme/"+en.id })) {
				return true
			}
		}
	}
	return false
}

// elsewhere is a ticket whose target was merged or deleted by the target's people, or by us.
func (o *oracle) elsewhere(s *record, all []*record) {
	w := o.w
	for _, t := range slices.Backward(all) {
		end := w.dst.survivor(t)
		if end.now().gone && w.recreated[s.ref] > 0 {
			return
		}
		if end.now().gone {
			break // what was there before it (a create whose answer was lost) is not where the ticket went on
		}
		w.occur("end/merged by the target's people")
		at := map[string]int{}
		for _, en := range end.now().entries {
			at[en.marker]++
		}
		for _, en := range s.now().entries {
			if at["acme/"+en.id] == 0 {
				w.violate("lost", "entry %s of %s is not in %s, into which its target %s was merged", en.id, s.ref, end.ref.ID, t.ref.ID)
			}
		}
		return
	}
	w.occur("end/deleted in the target")
	t := w.dst.survivor(all[len(all)-1])
	if w.mig.OnTargetGone == delta.IgnoreGone || !o.changedSince(s, t.goneAt()) || !o.changedSince(s, t.writtenAt()) || o.same(s, t) {
		return
	}
	w.violate("lost", "%s changed after its target %s was deleted, is neither held nor there again (policy %s)", s.ref, t.ref.ID, w.mig.OnTargetGone)
}

// event looks at what became of a ticket that was deleted or is spam in the source.
func (o *oracle) event(s *record, all []*record) {
	w := o.w
	v := s.now()
	policy := w.mig.OnDeleted
	if !v.gone {
		policy = w.mig.OnSpam
	}
	if v.gone && w.src.t.hides && (w.uncounted || !o.inScope(text(v.fields[desk.Group])) || w.recreated[s.ref] > 1) {
		return // such a source does not tell, and a census that finds too many gone believes none
	}
	if v.gone && v.spam && w.src.t.hides && w.mig.OnSpam != delta.Ignore {
		return // it was seen to when it was spam; a source empties that folder all the time
	}
	if len(all) == 0 || w.restored {
		return
	}
	t := all[len(all)-1]
	if v.gone && w.src.t.hides && w.mig.OnSpam != delta.Ignore && !s.cleared.IsZero() && !slices.ContainsFunc(t.wrote, func(x written) bool { return x.at.After(s.cleared) }) {
		return // the same: nobody read it between people's saying that it is no spam and its end
	}
	if !t.live() || len(t.now().aliases) > 0 { // with what people merged into it, it stays as it is
		return
	}
	switch policy {
	case delta.Mirror:
		w.violate("lost", "%s is gone in the source, and target %s is still there (policy mirror)", s.ref, t.ref.ID)
	case delta.Close:
		if last, ok := lastChange(t, desk.Status); ok && last.by == migration && last.val != w.mig.ClosedStatus {
			w.violate("lost", "%s is gone in the source, and target %s is %q (policy close)\n%s", s.ref, t.ref.ID, last.val, o.history(s, t, desk.Status))
		}
	case delta.Tag:
		if last, ok := lastChange(t, desk.Tags); ok && last.by == migration && !strings.Contains(last.val, w.mig.EventTag) {
			w.violate("lost", "%s is gone in the source, and target %s has no tag that says so: %q", s.ref, t.ref.ID, last.val)
		}
	case delta.Ignore:
	}
	w.occur("end/event " + string(policy))
}

// people's entries in the target are as they were written.
func (o *oracle) people() {
	for _, x := range o.w.dst.said {
		t := o.w.dst.survivor(x.in)
		if t.now().gone {
			continue
		}
		if !slices.ContainsFunc(t.now().entries, func(en entry) bool { return en.id == x.en.id && en.body == x.en.body && en.public == x.en.public }) {
			o.w.violate("overwritten", "entry %s, which people wrote in the target, is not in %s as they wrote it", x.en.id, t.ref)
		}
	}
}

// overwritten goes through what the migration wrote over the work of people.
func (o *oracle) overwritten(t *record) {
	w := o.w
	s := w.src.records[t.source]
	if s == nil || t.removed {
		return
	}
	for f := range t.hist {
		hist := changesOf(t, f)
		for i, e := range hist {
			if i == 0 || e.by != migration || e.event || hist[i-1].by != people {
				continue
			}
			prev := hist[i-1]
			if why := o.excuse(s, t, f, prev, e); why != "" {
				w.occur("write/over people's work: " + why)
				continue
			}
			w.violate("overwritten", "%s of target %s: people had set %q, the migration wrote %q\n%s", f, t.ref.ID, prev.val, e.val, o.history(s, t, f))
		}
	}
}

// excuse says why the migration was right to write e over what people wrote before.
func (o *oracle) excuse(s, t *record, f desk.Field, prev, e edit) string {
	w := o.w
	if w.mig.ConflictField[f] == delta.SourceWins {
		return "policy"
	}
	for _, d := range o.decisionsOn(s.ref, f) {
		if d.no > prev.no && d.no < e.no && d.choice != delta.ChooseTarget && d.target == prev.val && (d.value == e.val || o.norm(f, d.value) == e.val) {
			return "decision"
		}
	}
	for _, d := range o.decisionsOn(s.ref, f) {
		again := func(x edit) bool { return x.by == migration && x.no > prev.no && x.no < e.no && x.val == prev.val }
		if d.no < e.no && (d.no > prev.no || slices.ContainsFunc(t.hist[f], again)) && d.choice != delta.ChooseTarget && o.norm(f, d.value) == prev.val {
			return "decision" // it had become the decided value, or was it already and was written all the same
		}
	}
	for _, d := range w.decisions {
		if d.ref == s.ref && d.choice == delta.ChooseLink && d.no > prev.no && d.no < e.no && prev.val == "" {
			return "decision" // it is this ticket, a person said, and what is empty there is filled in
		}
	}
	carried, was, ours := "", "", edit{} // what it brought over last, which may have been there already; and its last change
	for _, x := range t.hist[f] {
		if x.by == migration && x.no < prev.no && o.meant(f, o.sourceAt(s, f, x.no), x.val) {
			carried = o.untagged(x.val)
		}
	}
	for _, x := range changesOf(t, f) {
		if x.by == migration && x.no < prev.no {
			was, ours = o.untagged(x.val), x
		}
	}
	if f == desk.Tags && o.untagged(e.val) == o.untagged(prev.val) {
		return "only the tag of an event" // the source had taken it back by the time it was written
	}
	for _, x := range t.hist[f] {
		switch {
		case x.by == migration && x.event && x.no > prev.no && x.no < e.no && x.val == prev.val:
			return "a policy had said the same"
		}
	}
	agreed := slices.ContainsFunc(s.hist[f], func(x edit) bool {
		return x.no < prev.no && o.meant(f, x.val, prev.val) && valueAt(t, f, x.no) == prev.val
	})
	if f == desk.Status && !w.dst.t.touched && prev.val == w.mig.ClosedStatus && s.back.After(prev.at) && (w.mig.OnDeleted == delta.Close || w.mig.OnSpam == delta.Close) {
		return "race" // people closed it while the source had it no more, and a policy may have been about to: this desk does not tell whose it was
	}
	if was == prev.val || carried == prev.val || agreed { // as it was brought over, or as both said
		return "they had put it back"
	}
	var wrote edit // what the migration wrote last before that, by whatever reason
	for _, x := range t.hist[f] {
		if x.by == migration && x.no < prev.no {
			wrote = x
		}
	}
	if !w.dst.t.touched && (wrote.no > 0 && wrote.old == prev.val || slices.ContainsFunc(changesOf(t, f), func(x edit) bool { return x.by == migration && x.no < ours.no && x.val == prev.val })) {
		return "race" // they put back what was there before a write that nobody lived to note: this desk does not tell it from one that never arrived
	}
	if slices.ContainsFunc(t.hist[f], func(x edit) bool {
		return x.by == migration && x.no > prev.no && x.no < e.no && x.val == prev.val && (w.restored || !w.dst.t.lock && prev.at.After(x.seen))
	}) {
		return "race" // a write of ours said the same again: this desk says that we set it, and a ledger of an earlier day, or who had not seen it, knows no better
	}
	if slices.ContainsFunc(o.decisionsOn(s.ref, f), func(d decided) bool { return d.no < prev.no && d.target == prev.val && o.norm(f, d.value) == e.val }) {
		return "race" // the same for the write that carried out an answer: what was there before it was people's, too
	}
	if first, _ := firstChange(t, f); !w.dst.t.touched && prev.val == "" && first.no == ours.no {
		return "race" // the same after a create
	}
	// Both sides had come to say the same.
	if o.meant(f, o.sourceAt(s, f, prev.no), prev.val) {
		return "both said the same"
	}
	for _, x := range s.hist[f] {
		if x.no > prev.no && x.no < e.no && o.meant(f, x.val, prev.val) {
			return "both said the same"
		}
	}
	for i, next := range s.hist[f] {
		if i > 0 && next.no < prev.no && prev.at.Sub(next.at) <= w.src.t.readLag && o.meant(f, s.hist[f][i-1].val, prev.val) {
			return "both said the same" // as far as a replica of the source told
		}
	}
	if !w.dst.t.lock && prev.at.After(e.seen) {
		return "race" // this desk cannot be asked to write only what nobody has touched
	}
	if !w.dst.t.touched && slices.ContainsFunc(t.hist[f], func(x edit) bool {
		return x.by == people && x.no <= prev.no && x.val == prev.val && t.around(x.at, 5*time.Second)
	}) {
		return "race" // around a write of ours, like an automation, on a desk that does not tell who it was; or what was there since then, put back
	}
	if d := w.dst.t; !d.tells && !d.touched && !prev.at.After(e.seen) && prev.at.Sub(t.madeAt) < 10*time.Second {
		return "race" // between a create and the reading after it, on a desk that tells neither what it made nor who changed it
	}
	return ""
}

// untagged is a set of tags without the one that policies set.
func (o *oracle) untagged(v string) string {
	return text(slices.DeleteFunc(strings.Split(v, "|"), func(t string) bool { return t == o.w.mig.EventTag }))
}

func (o *oracle) norm(f desk.Field, v string) string {
	if f == colour && o.w.dst.t.upper {
		return strings.ToUpper(v)
	}
	return v
}

func (o *oracle) sourceAt(s *record, f desk.Field, no int) string {
	v := ""
	for _, x := range s.hist[f] {
		if x.no < no {
			v = x.val
		}
	}
	return v
}

// arrived tells whether a ticket of the source is in the target.
func (o *oracle) arrived(s *record) bool {
	return slices.ContainsFunc(o.w.dst.order, func(t *record) bool { return t.source == s.ref && t.live() })
}

// changedSince tells whether a ticket of the source says something else now than at a moment. A link that leads
// nowhere else in the target says nothing there.
func (o *oracle) changedSince(s *record, no int) bool {
	for f := range s.hist {
		was, is := o.sourceAt(s, f, no), text(s.now().fields[f])
		if f != desk.LinkRefersTo && was != is || f == desk.LinkRefersTo && o.leadsTo(was) != o.leadsTo(is) {
			return true
		}
	}
	return false
}

// leadsTo is where a link leads in the target, as far as the tickets that it names are there.
func (o *oracle) leadsTo(ids string) string {
	var to []string
	for _, id := range strings.Split(ids, "|") {
		r := o.w.src.records[desk.Ref{Kind: desk.Ticket, ID: id}]
		for _, x := range o.w.dst.order {
			if end := o.w.dst.survivor(x); r != nil && x.source == o.w.src.survivor(r).ref && end.live() {
				to = append(to, end.ref.ID)
			}
		}
	}
	return text(desk.Set(to...))
}

// same tells whether the fields of both say the same: the source has come back to what was brought over last.
func (o *oracle) same(s, t *record) bool {
	return !slices.ContainsFunc(comparedFields, func(f desk.Field) bool { return o.mapped(f, text(s.now().fields[f])) != text(t.now().fields[f]) })
}

// ended looks whether everything that began has come to an end.
func (o *oracle) ended(ctx context.Context, e *delta.Engine) {
	w := o.w
	st, err := e.Status(ctx)
	w.must(err)
	for _, r := range st.Runs {
		if !r.Status.Ended() {
			w.violate("stuck", "run %s (%s) is %s at the end: %s", r.ID, r.Kind, r.Status, r.Why)
		}
	}
	for _, win := range st.Windows {
		if win.Active != "" {
			w.violate("stuck", "window %s is still taken by run %s", win.Name, win.Active)
		}
	}
	asked := map[string]bool{}
	for part := range w.store.Parts("held/") {
		for row := range w.store.Each(part) {
			asked[row.Sort] = true
		}
	}
	for part := range w.store.Parts("led/") {
		for row := range w.store.Each(part) {
			if row.Sort != "row" {
				continue
			}
			var l struct {
				Claim *struct{ By string } `json:"claim"`
				Held  bool
			}
			if err := json.Unmarshal(row.Body, &l); err != nil {
				w.violate("miscounted", "ledger row %s is damaged: %v", part, err)
			}
			if s := w.src.records[desk.Ref{Kind: desk.Ticket, ID: part[strings.LastIndex(part, "/")+1:]}]; (w.restored || !w.dst.t.markers) && s != nil && !s.live() {
				continue // it was gone before the ledger came back, and nothing lists it any more
			} else if s != nil && s.now().into != "" && !o.arrived(w.src.survivor(s)) {
				continue // it lives on in one that people of the target deleted
			} else if s != nil && s.now().into != "" && asked[w.src.survivor(s).ref.String()] {
				continue // it waits with the one it lives on in
			}
			if l.Claim != nil && !l.Held {
				w.violate("stuck", "ledger row %s is still claimed at the end: %s", part, row.Body)
			}
		}
	}
	for part := range w.store.Parts("due/") {
		for row := range w.store.Each(part) {
			why := between(row.Body, `"why":"`, `"`)
			w.occur("end/due " + why)
			if why != "held" && why != "mode" {
				w.violate("stuck", "%s %s is still due at the end: %s", part, row.Sort, why)
			}
		}
	}
}

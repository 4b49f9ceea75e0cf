package sim

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// target is how the engine sees the new desk, without the capabilities that a desk may lack.
type target struct{ d *simDesk }

// asTarget returns the desk with just the capabilities that its traits name.
func (d *simDesk) asTarget() desk.Target {
	t := &target{d}
	f, r, m := finder{t}, reviser{t}, merger{t}
	switch {
	case d.t.finder && d.t.reviser && d.t.merger:
		return struct {
			*target
			finder
			reviser
			merger
		}{t, f, r, m}
	case d.t.finder && d.t.reviser:
		return struct {
			*target
			finder
			reviser
		}{t, f, r}
	case d.t.finder && d.t.merger:
		return struct {
			*target
			finder
			merger
		}{t, f, m}
	case d.t.reviser && d.t.merger:
		return struct {
			*target
			reviser
			merger
		}{t, r, m}
	case d.t.finder:
		return struct {
			*target
			finder
		}{t, f}
	case d.t.reviser:
		return struct {
			*target
			reviser
		}{t, r}
	case d.t.merger:
		return struct {
			*target
			merger
		}{t, m}
	}
	return t
}

func gone(op string, ref desk.Ref) error {
	return &desk.Error{Op: op + " " + ref.String(), Class: desk.ErrNotFound}
}

func (t *target) Check(ctx context.Context) error {
	return t.d.w.call(ctx, t.d, "check", desk.Ref{}).err
}

func (t *target) Define(context.Context) (desk.Definitions, error) {
	var fs []desk.FieldDef
	for _, f := range []desk.Field{desk.Subject, desk.Status, desk.Priority, desk.Group, desk.Requester, desk.Tags, desk.LinkRefersTo, colour} {
		fs = append(fs, desk.FieldDef{Field: f, Write: desk.Always, Many: f.IsSet() && f != colour && f != desk.Requester})
	}
	fs = append(fs, desk.FieldDef{Field: desk.Created, Write: desk.OnCreate})
	return desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{desk.Ticket: fs}}, nil
}

// content reads the files of entries that are to be written, as their bytes are sent with the request.
func (t *target) content(ctx context.Context, es []desk.Entry) ([]entry, error) {
	var out []entry
	for _, en := range es {
		e := entry{marker: en.Marker, public: en.Public, body: en.Body, at: en.At, author: en.Author, by: migration}
		for _, f := range en.Files {
			r, err := f.Open(ctx)
			if err != nil {
				return nil, err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return nil, err
			}
			if err := r.Close(); err != nil {
				return nil, err
			}
			e.files = append(e.files, file{name: f.Name, content: string(b)})
		}
		out = append(out, e)
	}
	return out, nil
}

func (t *target) add(v *version, es []entry, w *desk.Written) {
	for _, e := range es {
		e.id = t.d.newID()
		if !t.d.t.times && !t.d.t.markers { // else the header line, which has the marker, tells the time
			e.at = t.d.clock().Truncate(time.Second)
		}
		e.files = slices.Clone(e.files)
		for i := range e.files {
			e.files[i].id = t.d.newID()
		}
		v.entries = append(v.entries, e)
		if w.Entries != nil {
			w.Entries[e.marker] = e.id
		}
	}
}

// markers are for the trace.
func markers(es []entry) string {
	var out []string
	for _, e := range es {
		out = append(out, e.marker)
	}
	return strings.Join(out, " ")
}

func (t *target) Create(ctx context.Context, r desk.Record) (desk.Written, error) {
	d := t.d
	es, err := t.content(ctx, r.Entries)
	if err != nil {
		return desk.Written{}, err
	}
	o := d.w.call(ctx, d, "create", r.Ref)
	if o.err != nil {
		return desk.Written{}, o.err
	}
	fields := desk.Fields{}
	for f, v := range r.Fields {
		if f.Points() == "" || d.t.takesAll {
			fields[f] = slices.Clone(v)
		}
	}
	if d.t.dates {
		delete(fields, desk.Created)
	}
	if !d.t.takesAll {
		es = es[:min(1, len(es))]
	}
	w := desk.Written{Entries: map[string]string{}}
	effect := func() {
		made := d.add(r.Ref.Kind, nil, migration)
		d.w.say("  made %s: entries %s", made.ref, markers(es))
		made.source = r.Ref
		for _, e := range es {
			made.brought = append(made.brought, e.marker)
		}
		d.quietly(made, func(v *version) {
			d.set(made, v, fields, migration, d.w.now, false)
			t.add(v, es, &w)
		})
		w.ID = made.ref.ID
		if d.t.tells {
			now := d.show(made, *made.now(), true)
			w.Now = &now
			d.w.observed(made)
		}
		t.trigger(made)
	}
	if err := d.w.effect(o, effect); err != nil {
		return desk.Written{}, err
	}
	return w, nil
}

// trigger is the desk's own automation: it fires seconds after a write of ours.
func (t *target) trigger(r *record) {
	d := t.d
	if !d.t.automates || r.ref.Kind != desk.Ticket || d.w.roll.IntN(4) != 0 || d.w.calm {
		return
	}
	d.w.later(time.Duration(2+d.w.roll.IntN(6))*time.Second, func() {
		if r.live() {
			d.w.occur("desk/automation")
			d.change(r, desk.Changed, "", func(v *version) {
				d.set(r, v, desk.Fields{desk.Priority: {"auto-" + strconv.Itoa(d.w.no)}}, automation, time.Time{}, false)
			})
		}
	})
}

func (t *target) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	d := t.d
	o := d.w.call(ctx, d, "read", ref)
	if o.err != nil {
		return desk.Record{}, o.err
	}
	r := d.records[ref]
	if r == nil {
		return desk.Record{}, gone("read", ref)
	}
	if r = d.survivor(r); r.now().gone {
		return desk.Record{}, gone("read", ref)
	}
	d.w.observed(r)
	rec := d.show(r, *r.now(), true)
	rec.Began = d.clock()
	return rec, ctx.Err()
}

func (t *target) Apply(ctx context.Context, ref desk.Ref, c desk.Change) (desk.Written, error) {
	d := t.d
	w := desk.Written{ID: ref.ID, Entries: map[string]string{}}
	es, err := t.content(ctx, c.Entries)
	if err != nil {
		return w, err
	}
	o := d.w.call(ctx, d, "apply", ref)
	if o.err != nil {
		return w, o.err
	}
	var failed error
	effect := func() {
		r := d.records[ref]
		switch {
		case r == nil || d.survivor(r).now().gone:
			failed = gone("apply", ref)
			return
		case r.now().into != "":
			r = d.survivor(r)
		}
		if c.Lock != "" && c.Lock != strconv.FormatInt(r.now().seq, 10) {
			d.w.occur("desk/lock conflict")
			failed = &desk.Error{Op: "apply " + ref.String(), Class: desk.ErrConflict}
			return
		}
		read := r.read[d.w.cur]
		if to := d.records[ref]; to != r && read.Before(to.intoAt) {
			read = time.Time{} // it was meant for a ticket that people merged into this one meanwhile
		}
		d.w.say("  entries %s, fields %v", markers(es), c.Fields)
		d.change(r, desk.Changed, "", func(v *version) {
			t.add(v, es, &w)
			if d.t.reopens && len(es) > 0 && v.fields[desk.Status].First() != "open" {
				d.set(r, v, desk.Fields{desk.Status: {"open"}}, automation, time.Time{}, false)
			}
			d.set(r, v, c.Fields, migration, read, d.w.eventWrite(r))
		})
		r.wrote = append(r.wrote, written{r.read[d.w.cur], d.w.now})
		if d.t.tells {
			now := d.show(r, *r.now(), true)
			w.Now = &now
			d.w.observed(r)
		}
		t.trigger(r)
	}
	if err := d.w.effect(o, effect); err != nil {
		return desk.Written{ID: ref.ID}, err
	}
	return w, failed
}

func (t *target) Match(ctx context.Context, r desk.Record) ([]string, error) {
	d := t.d
	if o := d.w.call(ctx, d, "match", r.Ref); o.err != nil {
		return nil, o.err
	}
	var ids []string
	for _, x := range d.order {
		if x.ref.Kind != r.Ref.Kind || !x.live() {
			continue
		}
		f := x.now().fields
		same := slices.ContainsFunc(f[desk.Email], func(m string) bool { return slices.Contains(r.Fields[desk.Email], m) })
		if x.ref.Kind == desk.Company {
			same = f[desk.Name].Equal(r.Fields[desk.Name])
		}
		if same {
			ids = append(ids, x.ref.ID)
		}
	}
	return ids, nil
}

func (t *target) OpenFile(ctx context.Context, ticket desk.Ref, f desk.File) (io.ReadCloser, error) {
	if o := t.d.w.call(ctx, t.d, "open", ticket); o.err != nil {
		return nil, o.err
	}
	if r := t.d.records[ticket]; r != nil {
		for _, en := range t.d.survivor(r).now().entries {
			for _, x := range en.files {
				if x.id == f.ID {
					return io.NopCloser(strings.NewReader(x.content)), nil
				}
			}
		}
	}
	return nil, gone("open file of", ticket)
}

type finder struct{ t *target }

func (f finder) Find(ctx context.Context, source desk.Ref) ([]string, error) {
	d := f.t.d
	if o := d.w.call(ctx, d, "find", source); o.err != nil {
		return nil, o.err
	}
	var ids []string
	for _, r := range d.order {
		if r.source != source || !r.live() {
			continue
		}
		if d.t.findLag > 0 && d.w.now.Sub(r.madeAt) < d.t.findLag {
			d.w.occur("desk/search lag")
			continue
		}
		ids = append(ids, r.ref.ID)
	}
	return ids, nil
}

type reviser struct{ t *target }

func (x reviser) Revise(ctx context.Context, ticket desk.Ref, e desk.Entry, lock string) error {
	d := x.t.d
	sent := e
	sent.Files = slices.DeleteFunc(slices.Clone(e.Files), func(f desk.File) bool { return f.Open == nil })
	es, err := x.t.content(ctx, []desk.Entry{sent})
	if err != nil {
		return err
	}
	o := d.w.call(ctx, d, "revise", ticket)
	if o.err != nil {
		return o.err
	}
	var failed error
	var seen int64 // what whoever revises has read of it
	if r := d.records[ticket]; r != nil {
		seen = r.seen[d.w.cur]
	}
	effect := func() {
		r := d.records[ticket]
		if r == nil || d.survivor(r).now().gone {
			failed = gone("revise", ticket)
			return
		}
		r = d.survivor(r)
		i := slices.IndexFunc(r.now().entries, func(y entry) bool { return y.id == e.ID })
		if i < 0 {
			failed = gone("revise entry "+e.ID+" of", ticket)
			return
		}
		if lock != "" && lock != strconv.FormatInt(r.now().seq, 10) {
			d.w.occur("desk/lock conflict of a revision")
			failed = &desk.Error{Op: "revise entry " + e.ID, Class: desk.ErrConflict}
			return
		}
		if d.t.lock && (r.ref != ticket || r.now().seq != seen) {
			d.w.violate("overwritten", "entry %s of target %s was revised, and the ticket had moved since it was read", e.ID, r.ref.ID)
		}
		d.change(r, desk.Changed, "", func(v *version) {
			y := &v.entries[i]
			var files []file
			fresh := es[0].files
			for _, f := range e.Files { // one that is not sent again is one that it has
				if f.Open != nil {
					files, fresh = append(files, file{d.newID(), fresh[0].name, fresh[0].content}), fresh[1:]
				} else if j := slices.IndexFunc(y.files, func(z file) bool { return z.id == f.ID }); j >= 0 {
					files = append(files, y.files[j])
				}
			}
			y.public, y.body, y.files = es[0].public, es[0].body, files
		})
		d.w.occur("desk/entry revised")
	}
	if err := d.w.effect(o, effect); err != nil {
		return err
	}
	return failed
}

type merger struct{ t *target }

func (m merger) Merge(ctx context.Context, from, into desk.Ref, lock string) error {
	d := m.t.d
	o := d.w.call(ctx, d, "merge", from)
	if o.err != nil {
		return o.err
	}
	var failed error
	var seen int64 // what whoever merges has read of the one that goes
	if r := d.records[from]; r != nil {
		seen = r.seen[d.w.cur]
	}
	effect := func() {
		a, b := d.records[from], d.records[into]
		if a == nil || b == nil || d.survivor(a).now().gone || d.survivor(b).now().gone {
			failed = gone("merge", from)
			return
		}
		if lock != "" && lock != strconv.FormatInt(d.survivor(a).now().seq, 10) {
			d.w.occur("desk/lock conflict of a merge")
			failed = &desk.Error{Op: "merge " + from.String(), Class: desk.ErrConflict}
			return
		}
		if d.t.lock && (!a.live() || a.now().seq != seen) {
			d.w.violate("overwritten", "target %s was merged into %s, and it had moved since it was read", a.ref.ID, b.ref.ID)
		}
		d.join(a, d.survivor(b))
	}
	if err := d.w.effect(o, effect); err != nil {
		return err
	}
	return failed
}

// Delete follows a merge where the desk has locks, as such desks do: the one that lives on goes, unless a lock says otherwise.
func (m merger) Delete(ctx context.Context, ref desk.Ref, lock string) error {
	d := m.t.d
	o := d.w.call(ctx, d, "delete", ref)
	if o.err != nil {
		return o.err
	}
	var failed error
	var seen int64 // what whoever deletes has read of it
	if r := d.records[ref]; r != nil {
		seen = r.seen[d.w.cur]
	}
	effect := func() {
		r := d.records[ref]
		if r != nil && d.t.lock {
			r = d.survivor(r)
		}
		if r != nil && lock != "" && lock != strconv.FormatInt(r.now().seq, 10) {
			d.w.occur("desk/lock conflict of a deletion")
			failed = &desk.Error{Op: "delete " + ref.String(), Class: desk.ErrConflict}
			return
		}
		if r != nil && r.live() {
			if d.t.lock && (r.ref != ref || r.now().seq != seen) {
				d.w.violate("overwritten", "target %s was deleted, and it had moved since it was read", r.ref.ID)
			}
			if d.w.undoing {
				d.removes(r)
			} else if d.w.mig.OnDeleted != delta.Mirror && d.w.mig.OnSpam != delta.Mirror {
				d.w.violate("lost", "target %s of %s was deleted, and no policy says so", ref.ID, r.source)
			}
			d.change(r, desk.Deleted, "", func(v *version) { v.gone = true })
		}
	}
	if err := d.w.effect(o, effect); err != nil {
		return err
	}
	return failed
}

// join merges a into b.
func (d *simDesk) join(a, b *record) {
	if a == b || !a.live() || !b.live() {
		return
	}
	moved := a.now().entries
	for _, en := range moved {
		d.w.wandered[en.id] = d == d.w.src || d.w.wandered[en.id]
	}
	aliases := append([]string{a.ref.ID}, a.now().aliases...)
	d.change(a, desk.Merged, b.ref.ID, func(v *version) { v.into = b.ref.ID; v.entries = nil })
	d.change(b, desk.Changed, "", func(v *version) {
		v.entries = append(v.entries, moved...)
		slices.SortStableFunc(v.entries, func(x, y entry) int { return x.at.Compare(y.at) })
		v.aliases = append(v.aliases, aliases...)
	})
}

var (
	_ desk.Target  = (*target)(nil)
	_ desk.Checker = (*target)(nil)
	_ desk.Definer = (*target)(nil)
	_ desk.Matcher = (*target)(nil)
	_ desk.Opener  = (*target)(nil)
	_ desk.Finder  = finder{}
	_ desk.Reviser = reviser{}
	_ desk.Merger  = merger{}
	_ desk.Deleter = merger{}
)

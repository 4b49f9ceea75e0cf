package desktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

func targetRules() []rule {
	return []rule{
		{"target/check", needTarget, targetCheck},
		{"target/define", needTarget, targetDefine},
		{"target/create-read", needTarget, targetCreateRead},
		{"target/people", needTarget, targetPeople},
		{"target/find", needTarget, targetFind},
		{"target/match", needTarget, targetMatch},
		{"target/apply-again", needTarget, targetApplyAgain},
		{"target/apply-only-named", needTarget, targetApplyOnlyNamed},
		{"target/update", needTarget, targetUpdate},
		{"target/unset", needTarget, targetUnset},
		{"target/links", needTarget, targetLinks},
		{"target/entries", needTarget, targetEntries},
		{"target/markers-of-others", needTargetSeed, targetMarkersOfOthers},
		{"target/times-authors", needTarget, targetTimesAuthors},
		{"target/texts", needTarget, targetTexts},
		{"target/files", needTarget, targetFiles},
		{"target/parallel", needTarget, targetParallel},
		{"target/lost-answer", needTargetHTTP, targetLostAnswer},
		{"target/gone", needTarget, targetGone},
		{"target/lock", needTarget, targetLock},
		{"target/revise", needTarget, targetRevise},
		{"target/merge", needTarget, targetMerge},
		{"target/delete", needTarget, targetDelete},
		{"target/cancel", needTarget, targetCancel},
		{"target/silent", needMails, targetSilent},
	}
}

func needTarget(e *env) (missing, lacks string) {
	if !e.hasTarget() {
		return "", "no target side"
	}
	return "", ""
}

func needTargetSeed(e *env) (missing, lacks string) {
	if missing, lacks = needTarget(e); lacks != "" {
		return missing, lacks
	}
	if e.tgt.EntryMarker == "" {
		return "", "no EntryMarker"
	}
	if e.o.TargetSeed == nil {
		return "TargetSeed", ""
	}
	return "", ""
}

func needTargetHTTP(e *env) (missing, lacks string) {
	if missing, lacks = needTarget(e); lacks == "" && e.o.NoHTTP {
		lacks = "no HTTP, so no answer can be lost"
	}
	return missing, lacks
}

func needMails(e *env) (missing, lacks string) {
	if missing, lacks = needTarget(e); lacks == "" && e.o.Mails == nil {
		missing = "Mails"
	}
	return missing, lacks
}

// entry returns an entry as the engine would send it: claimed by somebody else, minutes years ago.
func (e *env) entry(by desk.Record, minute int, x desk.Entry) desk.Entry {
	x.ID = e.name("entry")
	x.Marker = "desktest:" + x.ID
	if x.At.IsZero() {
		x.At = time.Date(2019, 3, 4, 5, 6+minute, 7, 0, time.UTC)
	}
	if x.Type == "" {
		x.Type = "text/plain"
	}
	if by.Ref.ID != "" {
		x.Author = desk.Author{ID: by.Ref.ID, Name: by.Fields[desk.Name].First(), Email: by.Fields[desk.Email].First()}
	}
	for i := range x.Files {
		x.Files[i].ID = fmt.Sprintf("%s-f%d", x.ID, i)
	}
	return x
}

// record returns a ticket as the engine would create it.
func (e *env) record(t T, tg desk.Target, entries ...desk.Entry) desk.Record {
	t.Helper()
	by := e.customer(t, tg)
	r := desk.Record{
		Ref:    desk.Ref{Kind: desk.Ticket, ID: e.name("source")},
		URL:    "https://source.desktest.example/ticket",
		Fields: desk.Fields{desk.Subject: {e.name("subject")}},
	}
	if by.Ref.ID != "" {
		r.Fields[desk.Requester] = desk.Value{by.Ref.ID}
	}
	maps.Copy(r.Fields, e.o.Ticket)
	for i, x := range entries {
		r.Entries = append(r.Entries, e.entry(by, i, x))
	}
	return r
}

// customer returns a person of the target, made through it; an empty record where the target has no people.
func (e *env) customer(t T, tg desk.Target) desk.Record {
	t.Helper()
	if e.targetPerson == nil {
		e.targetPerson = &desk.Record{}
		if slices.Contains(e.tgt.Kinds, desk.Person) {
			p := e.newPerson(t, tg)
			e.targetPerson = &p
		}
	}
	return *e.targetPerson
}

func (e *env) newPerson(t T, tg desk.Target) desk.Record {
	t.Helper()
	n := e.name("person")
	p := desk.Record{
		Ref:    desk.Ref{Kind: desk.Person, ID: n},
		Fields: desk.Fields{desk.Name: {"Zoë " + n}, desk.Email: {n + "@desktest.example"}},
	}
	maps.Copy(p.Fields, e.o.Person)
	return e.put(t, tg, p).now
}

// put is what became of a record that was written as the engine writes one: created, then completed by one Apply.
type put struct {
	now     desk.Record
	entries map[string]string
	losses  []desk.Loss
}

func (e *env) put(t T, tg desk.Target, r desk.Record) put {
	t.Helper()
	w, err := tg.Create(t.Context(), r)
	e.must(t, "creating "+r.Ref.String(), err)
	if w.ID == "" {
		t.Fatalf("creating %s: no error and no id", r.Ref)
	}
	p := put{entries: map[string]string{}}
	e.note(t, &p, w)
	ref := desk.Ref{Kind: r.Ref.Kind, ID: w.ID}
	p.now = e.readBack(t, tg, ref, w, func(desk.Record) bool { return true })
	rest := desk.Change{Fields: desk.Fields{}}
	for f, v := range r.Fields {
		if !p.now.Fields[f].Equal(v) {
			rest.Fields[f] = v
		}
	}
	for _, x := range r.Entries {
		if p.entries[x.Marker] == "" {
			rest.Entries = append(rest.Entries, x)
		}
	}
	if !rest.Empty() {
		e.apply(t, tg, &p, rest)
	}
	return p
}

// apply applies a change and reads the record back.
func (e *env) apply(t T, tg desk.Target, p *put, c desk.Change) {
	t.Helper()
	w, err := tg.Apply(t.Context(), p.now.Ref, c)
	e.must(t, "applying to "+p.now.Ref.String(), err)
	e.note(t, p, w)
	p.now = e.readBack(t, tg, p.now.Ref, w, func(r desk.Record) bool {
		for f, v := range c.Fields {
			if !r.Fields[f].Equal(v) {
				return false
			}
		}
		return len(r.Entries) >= len(p.entries)
	})
}

// note takes in what a write says about itself.
func (e *env) note(t T, p *put, w desk.Written) {
	t.Helper()
	maps.Copy(p.entries, w.Entries)
	p.losses = append(p.losses, w.Losses...)
	for _, l := range w.Losses {
		if e.tgt.Losses[l.Class] == "" {
			t.Errorf("a loss of class %q is reported, which Traits.Losses does not declare", l.Class)
		}
		if l.What == "" {
			t.Errorf("a loss of class %q does not say what it is about", l.Class)
		}
	}
}

// readBack reads a record until it looks as expected or the lag is over. What the write itself told must agree with it.
func (e *env) readBack(t T, tg desk.Target, ref desk.Ref, w desk.Written, settled func(desk.Record) bool) desk.Record {
	t.Helper()
	if w.ID != ref.ID {
		t.Errorf("a write to %s answers with the id %q", ref, w.ID)
	}
	var r desk.Record
	var err error
	eventually(t.Context(), e.tgt.ListLag, func() bool {
		r, err = tg.Read(t.Context(), ref)
		return err == nil && settled(r)
	})
	e.must(t, "reading "+ref.String(), err)
	if r.Ref != ref {
		t.Fatalf("%s reads as %s", ref, r.Ref)
	}
	if w.Now != nil && w.Now.Digest() != r.Digest() {
		t.Errorf("what the write to %s says the record looks like is not what Read says", ref)
	}
	return r
}

// excused tells whether a declared loss is about one of ids.
func excused(losses []desk.Loss, ids ...string) bool {
	return slices.ContainsFunc(losses, func(l desk.Loss) bool {
		return slices.ContainsFunc(ids, func(id string) bool { return id != "" && strings.Contains(l.What, id) })
	})
}

// sameFields reports fields that do not look as they were asked for, unless a loss says so.
func (e *env) sameFields(t T, p put, want desk.Fields) {
	t.Helper()
	for f, v := range want {
		if got := p.now.Fields[f]; !got.Equal(v) && !excused(p.losses, string(f)) {
			t.Errorf("%s: field %s holds %d values that are not the %d asked for, and no loss says so", p.now.Ref, f, len(got), len(v))
		}
	}
}

// sameEntries reports entries that do not look as they were asked for, unless a loss says so.
func (e *env) sameEntries(t T, tg desk.Target, p put, want []desk.Entry) {
	t.Helper()
	last := -1
	for _, w := range want {
		id := p.entries[w.Marker]
		i := slices.IndexFunc(p.now.Entries, func(x desk.Entry) bool { return x.ID == id })
		if id == "" || i < 0 {
			t.Errorf("%s: entry %s is missing from the thread, or its id from Written.Entries", p.now.Ref, w.Marker)
			continue
		}
		if i < last {
			t.Errorf("%s: entry %s is shown before one that was sent before it", p.now.Ref, w.Marker)
		}
		last = i
		got := p.now.Entries[i]
		lost := func(what string, args ...any) {
			if !excused(p.losses, w.ID, w.Marker) {
				t.Errorf("%s: entry %s: %s, and no loss says so", p.now.Ref, w.Marker, fmt.Sprintf(what, args...))
			}
		}
		if e.tgt.EntryMarker != "" && got.Marker != w.Marker {
			t.Errorf("%s: entry %s is shown with the marker %q", p.now.Ref, w.Marker, got.Marker)
		}
		if got.Public != w.Public {
			t.Errorf("%s: entry %s is public: %t, want %t", p.now.Ref, w.Marker, got.Public, w.Public)
		}
		if got.Body != desk.CanonicalBody(w.Body) {
			lost("its body of %d bytes has become one of %d", len(w.Body), len(got.Body))
		}
		if got.Type != w.Type && w.Body != "" {
			lost("its type is %s, want %s", got.Type, w.Type)
		}
		if !got.At.Equal(w.At) {
			lost("its time is %s, want %s", got.At.Format(time.RFC3339), w.At.Format(time.RFC3339))
		}
		if got.Author.Email != w.Author.Email || got.Author.Name != w.Author.Name || e.tgt.KeepsAuthors && got.Author.ID != w.Author.ID {
			lost("its author is not the one claimed")
		}
		e.sameFiles(t, tg, p, w, got)
	}
}

func (e *env) sameFiles(t T, tg desk.Target, p put, want, got desk.Entry) {
	t.Helper()
	if len(got.Files) != len(want.Files) {
		t.Errorf("%s: entry %s has %d files, want %d", p.now.Ref, want.Marker, len(got.Files), len(want.Files))
		return
	}
	o, _ := tg.(desk.Opener)
	for i, w := range want.Files {
		g := got.Files[i]
		lost := func(what string, args ...any) {
			if !excused(p.losses, w.ID, want.ID, want.Marker) {
				t.Errorf("%s: file %s: %s, and no loss says so", p.now.Ref, w.ID, fmt.Sprintf(what, args...))
			}
		}
		if g.Name != w.Name {
			lost("its name has changed")
		}
		if g.Type != w.Type {
			lost("its type is %s, want %s", g.Type, w.Type)
		}
		if g.Size != w.Size && g.Size != -1 {
			lost("its size is %d, want %d", g.Size, w.Size)
		}
		if o == nil {
			continue
		}
		sha, size, err := hashFile(t.Context(), o, p.now.Ref, g)
		e.must(t, fmt.Sprintf("opening file %s of %s", g.ID, p.now.Ref), err)
		if size != w.Size || sha != w.SHA256 {
			lost("its %d bytes have become %d others", w.Size, size)
		}
	}
}

// definitions returns a function that tells whether a target's field can be written on an existing ticket, and whether the
// desk tells at all.
func (e *env) definitions(t T, tg desk.Target) (writable func(desk.Field) bool, told bool) {
	t.Helper()
	d, ok := tg.(desk.Definer)
	if !ok {
		return func(desk.Field) bool { return false }, false
	}
	defs, err := d.Define(t.Context())
	e.must(t, "define", err)
	return func(f desk.Field) bool {
		def, ok := defs.Field(desk.Ticket, f)
		return ok && def.Write == desk.Always
	}, true
}

// targetCheck: the desk's account is good enough, and checking says so.
func targetCheck(t T, e *env) {
	c, ok := e.target(t).(desk.Checker)
	if !ok {
		t.Skipf("no Checker")
	}
	e.must(t, "check", c.Check(t.Context()))
}

// targetDefine: fields that are written by this suite are defined, once each.
func targetDefine(t T, e *env) {
	tg := e.target(t)
	d, ok := tg.(desk.Definer)
	if !ok {
		t.Skipf("no Definer")
	}
	defs, err := d.Define(t.Context())
	e.must(t, "define", err)
	for _, f := range slices.Concat(slices.Collect(maps.Keys(e.o.Ticket)), slices.Collect(maps.Keys(e.o.Update)), []desk.Field{desk.Subject}) {
		def, ok := defs.Field(desk.Ticket, f)
		switch _, custom := f.CustomName(); {
		case !ok && custom && e.o.NewFields: // is made by the first write
		case !ok:
			t.Errorf("field %s of a ticket is not defined", f)
		case def.Write != desk.Always && def.Write != desk.OnCreate:
			t.Errorf("field %s of a ticket is defined as writable %q", f, string(def.Write))
		}
	}
	for k, fs := range defs.Fields {
		seen := map[desk.Field]bool{}
		for _, f := range fs {
			if seen[f.Field] {
				t.Errorf("field %s of kind %s is defined twice", f.Field, k)
			}
			seen[f.Field] = true
		}
	}
}

// targetCreateRead: a created ticket reads as it was sent, but for declared losses, and in canonical form.
func targetCreateRead(t T, e *env) {
	tg := e.target(t)
	r := e.record(t, tg,
		desk.Entry{Public: true, Body: "first, by the customer"},
		desk.Entry{Public: false, Type: "text/html", Body: "<p>a <i>note</i></p>"},
		desk.Entry{Public: true, Body: "a reply\nof two lines", Files: []desk.File{file(content{seed: 9, size: 1000}, "a.bin")}},
	)
	p := e.put(t, tg, r)
	e.sameFields(t, p, r.Fields)
	e.sameEntries(t, tg, p, r.Entries)
	for _, bad := range problems(p.now, e.tgt.Kinds) {
		t.Errorf("%s: %s", p.now.Ref, bad)
	}
	again, err := e.target(t).Read(t.Context(), p.now.Ref)
	e.must(t, "reading "+p.now.Ref.String(), err)
	if again.Digest() != p.now.Digest() || again.Lock != p.now.Lock {
		t.Errorf("two reads of %s, which did not change, differ", p.now.Ref)
	}
}

func file(c content, name string) desk.File {
	return desk.File{Name: name, Type: "application/octet-stream", Size: c.size, SHA256: c.sha(), Open: c.open}
}

// targetPeople: a created person reads as sent, and can be changed.
func targetPeople(t T, e *env) {
	if !slices.Contains(e.tgt.Kinds, desk.Person) {
		t.Skipf("no people")
	}
	tg := e.target(t)
	n := e.name("person")
	r := desk.Record{
		Ref:    desk.Ref{Kind: desk.Person, ID: n},
		Fields: desk.Fields{desk.Name: {"Ünal 李 " + n}, desk.Email: {n + "@desktest.example"}},
	}
	maps.Copy(r.Fields, e.o.Person)
	p := e.put(t, tg, r)
	e.sameFields(t, p, r.Fields)
	for _, bad := range problems(p.now, e.tgt.Kinds) {
		t.Errorf("%s: %s", p.now.Ref, bad)
	}
	name := desk.Fields{desk.Name: {"renamed " + n}}
	e.apply(t, tg, &p, desk.Change{Fields: name})
	e.sameFields(t, p, name)
}

// targetFind: what Create stored is found, once, and nothing else is.
func targetFind(t T, e *env) {
	tg := e.target(t)
	f, ok := tg.(desk.Finder)
	if !ok {
		t.Skipf("no Finder")
	}
	r := e.record(t, tg, desk.Entry{Public: true, Body: "find me"})
	p := e.put(t, tg, r)
	e.found(t, f, r.Ref, p.now.Ref.ID)
	for _, ref := range []desk.Ref{
		{Kind: desk.Ticket, ID: r.Ref.ID + "0"},
		{Kind: desk.Ticket, ID: r.Ref.ID[:len(r.Ref.ID)-1]},
		{Kind: desk.Ticket, ID: `' OR 1 = 1 --`},
		{Kind: desk.Ticket, ID: e.name("never was")},
		{Kind: desk.Person, ID: r.Ref.ID},
	} {
		ids, err := f.Find(t.Context(), ref)
		e.must(t, "finding "+ref.String(), err)
		if slices.Contains(ids, p.now.Ref.ID) || len(ids) > 0 && ref.Kind == desk.Ticket {
			t.Errorf("finding %s, which was never created, answers %v", ref, ids)
		}
	}
}

// found reports when Find does not answer with exactly the one id within FindLag.
func (e *env) found(t T, f desk.Finder, ref desk.Ref, id string) {
	t.Helper()
	var ids []string
	var err error
	eventually(t.Context(), e.tgt.FindLag, func() bool {
		ids, err = f.Find(t.Context(), ref)
		return err == nil && len(ids) > 0
	})
	e.must(t, "finding "+ref.String(), err)
	if !slices.Equal(ids, []string{id}) {
		t.Errorf("finding %s answers %v, want exactly [%s]", ref, ids, id)
	}
}

// targetMatch: a person is matched by e-mail address, also when its source reference is another one.
func targetMatch(t T, e *env) {
	tg := e.target(t)
	m, ok := tg.(desk.Matcher)
	if !ok || !slices.Contains(e.tgt.Kinds, desk.Person) {
		t.Skipf("no Matcher, or no people")
	}
	p := e.newPerson(t, tg)
	asked := desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: e.name("elsewhere")}, Fields: desk.Fields{desk.Email: p.Fields[desk.Email]}}
	var ids []string
	var err error
	eventually(t.Context(), e.tgt.FindLag, func() bool {
		ids, err = m.Match(t.Context(), asked)
		return err == nil && len(ids) > 0
	})
	e.must(t, "matching", err)
	if !slices.Equal(ids, []string{p.Ref.ID}) {
		t.Errorf("matching by the address of person %s answers %v", p.Ref.ID, ids)
	}
	asked.Fields = desk.Fields{desk.Email: {e.name("nobody") + "@desktest.example"}, desk.Name: {e.name("Nobody")}}
	ids, err = m.Match(t.Context(), asked)
	e.must(t, "matching", err)
	if len(ids) > 0 {
		t.Errorf("matching by an address that nobody has answers %v", ids)
	}
	ids, err = m.Match(t.Context(), desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: e.name("bare")}})
	e.must(t, "matching", err)
	if len(ids) > 0 {
		t.Errorf("matching a person of whom nothing is known answers %v", ids)
	}
}

// targetApplyAgain: the same fields once more change nothing.
func targetApplyAgain(t T, e *env) {
	tg := e.target(t)
	r := e.record(t, tg, desk.Entry{Public: true, Body: "twice"})
	p := e.put(t, tg, r)
	c := desk.Change{Fields: desk.Fields{desk.Subject: {e.name("again")}}}
	e.apply(t, tg, &p, c)
	once := p.now
	e.apply(t, tg, &p, c)
	if p.now.Digest() != once.Digest() {
		t.Errorf("applying the same fields to %s twice has another result than once", p.now.Ref)
	}
}

// targetApplyOnlyNamed: fields and entries that a change does not name stay as they are.
func targetApplyOnlyNamed(t T, e *env) {
	tg := e.target(t)
	r := e.record(t, tg, desk.Entry{Public: true, Body: "stays"}, desk.Entry{Body: "stays, too"})
	p := e.put(t, tg, r)
	before := p.now
	subject := desk.Fields{desk.Subject: {e.name("only this")}}
	e.apply(t, tg, &p, desk.Change{Fields: subject})
	e.sameFields(t, p, subject)
	for f, v := range before.Fields {
		if f != desk.Subject && !p.now.Fields[f].Equal(v) {
			t.Errorf("%s: field %s has changed with the subject", p.now.Ref, f)
		}
	}
	e.sameEntries(t, tg, p, r.Entries)
	if len(p.now.Entries) != len(before.Entries) {
		t.Errorf("%s: %d entries have become %d with the subject", p.now.Ref, len(before.Entries), len(p.now.Entries))
	}
}

// targetUpdate: fields take other values.
func targetUpdate(t T, e *env) {
	tg := e.target(t)
	p := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "update"}))
	want := desk.Fields{desk.Subject: {e.name("new")}}
	maps.Copy(want, e.o.Update)
	e.apply(t, tg, &p, desk.Change{Fields: want})
	e.sameFields(t, p, want)
}

// targetUnset: an empty value unsets a field.
func targetUnset(t T, e *env) {
	tg := e.target(t)
	writable, told := e.definitions(t, tg)
	set := desk.Fields{}
	if told && writable(desk.Due) {
		set[desk.Due] = desk.Value{"2031-05-06T07:08:09Z"}
	}
	if told && writable(desk.Tags) {
		set[desk.Tags] = desk.Value{"one", "two"}
	}
	if by := e.customer(t, tg); told && writable(desk.CC) && by.Ref.ID != "" {
		set[desk.CC] = desk.Value{by.Ref.ID}
	}
	for f, v := range e.o.Ticket {
		if _, custom := f.CustomName(); custom {
			set[f] = v
		}
	}
	if len(set) == 0 {
		t.Skipf("no field that can be unset")
	}
	r := e.record(t, tg, desk.Entry{Public: true, Body: "unset"})
	maps.Copy(r.Fields, set)
	p := e.put(t, tg, r)
	e.sameFields(t, p, set)
	none := desk.Fields{}
	for f := range set {
		none[f] = nil
	}
	e.apply(t, tg, &p, desk.Change{Fields: none})
	e.sameFields(t, p, none)
}

// targetLinks: a link from one ticket to another is kept and can be taken away.
func targetLinks(t T, e *env) {
	tg := e.target(t)
	writable, _ := e.definitions(t, tg)
	some := false
	a := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "linked"}))
	for _, f := range []desk.Field{desk.LinkRefersTo, desk.LinkDependsOn, desk.LinkParent} {
		if !writable(f) {
			continue
		}
		some = true
		b := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "links"}))
		link := desk.Fields{f: {a.now.Ref.ID}}
		e.apply(t, tg, &b, desk.Change{Fields: link})
		e.sameFields(t, b, link)
		e.apply(t, tg, &b, desk.Change{Fields: desk.Fields{f: nil}})
		e.sameFields(t, b, desk.Fields{f: nil})
	}
	if !some {
		t.Skipf("no links among the definitions")
	}
}

// targetEntries: entries are added in order, each once, with their markers shown again.
func targetEntries(t T, e *env) {
	tg := e.target(t)
	r := e.record(t, tg, desk.Entry{Public: true, Body: "one"})
	p := e.put(t, tg, r)
	by := e.customer(t, tg)
	all := r.Entries
	for _, add := range [][]desk.Entry{
		{
			e.entry(by, 1, desk.Entry{Public: true, Body: "two"}), e.entry(by, 2, desk.Entry{Body: "three"}),
			e.entry(by, 2, desk.Entry{Public: true, Body: "three"}), // same words, same minute: another entry all the same
		},
		{e.entry(by, 3, desk.Entry{Public: true, Body: "four"})},
	} {
		e.apply(t, tg, &p, desk.Change{Entries: add})
		all = append(all, add...)
	}
	e.sameEntries(t, tg, p, all)
	count := map[string]int{}
	for _, x := range p.now.Entries {
		count[x.Marker]++
	}
	for _, x := range all {
		if n := count[x.Marker]; e.tgt.EntryMarker != "" && n != 1 {
			t.Errorf("%s: marker %s is shown on %d entries, want 1", p.now.Ref, x.Marker, n)
		}
	}
	ids := map[string]bool{}
	for _, id := range p.entries {
		ids[id] = true
	}
	if len(ids) != len(all) {
		t.Errorf("%s: %d entries were given %d different ids", p.now.Ref, len(all), len(ids))
	}
}

// targetMarkersOfOthers: a marker is not shown on an entry that somebody else wrote, even when it quotes one.
func targetMarkersOfOthers(t T, e *env) {
	tg := e.target(t)
	r := e.record(t, tg, desk.Entry{Public: true, Body: "ours"})
	p := e.put(t, tg, r)
	quote := "I quote: " + r.Entries[0].Marker + "\n> ours " + r.Entries[0].Marker
	e.must(t, "another person's reply to "+p.now.Ref.String(), e.o.TargetSeed.Change(t.Context(), p.now.Ref, desk.Change{
		Entries: []desk.Entry{{Public: true, Type: "text/plain", Body: quote, Subject: r.Entries[0].Marker}},
	}))
	var got desk.Record
	eventually(t.Context(), e.tgt.ListLag, func() bool {
		var err error
		got, err = tg.Read(t.Context(), p.now.Ref)
		e.must(t, "reading "+p.now.Ref.String(), err)
		return len(got.Entries) > len(p.now.Entries)
	})
	others := 0
	for _, x := range got.Entries {
		if x.ID == p.entries[r.Entries[0].Marker] {
			continue
		}
		others++
		if x.Marker != "" {
			t.Errorf("%s: entry %s, which another person wrote, is shown with a marker", got.Ref, x.ID)
		}
	}
	if others == 0 {
		t.Errorf("%s: another person's entry is not shown", got.Ref)
	}
}

// targetTimesAuthors: entries keep the time and the author that they are claimed to have.
func targetTimesAuthors(t T, e *env) {
	tg := e.target(t)
	r := e.record(t, tg,
		desk.Entry{Public: true, Body: "at the epoch's end", At: time.Date(1999, 12, 31, 23, 59, 59, 0, time.UTC)},
		desk.Entry{Public: true, Body: "on a leap day", At: time.Date(2020, 2, 29, 0, 0, 0, 0, time.UTC)},
		desk.Entry{Body: "by somebody whom the desk does not know", At: time.Date(2020, 2, 29, 0, 0, 1, 0, time.UTC)},
	)
	r.Entries[2].Author = desk.Author{Name: "Søren ﷺ O'Brien, \"Jr\" [x] (y)", Email: e.name("stranger") + "@desktest.example"}
	p := e.put(t, tg, r)
	e.sameEntries(t, tg, p, r.Entries)
}

// targetTexts: bodies survive, whatever they are.
func targetTexts(t T, e *env) {
	tg := e.target(t)
	r := e.record(t, tg, desk.Entry{Public: true, Body: "a plain beginning"})
	by := e.customer(t, tg)
	var add []desk.Entry
	for i, x := range []desk.Entry{
		{Body: "emoji 🦊 👩‍👩‍👧 🏴󠁧󠁢󠁥󠁮󠁧󠁿 and e\u0301 next to é"},
		{Body: "שלום \u202eright to left\u202c مرحبا"},
		{Body: "<p>HTML &amp; <b>bold</b> &lt;script&gt; \u00a0 <img src=\"cid:a@b\"></p>", Type: "text/html"},
		{Body: "<not html> & \"neither\" 'this' \\ % {{x}} $1 ` ~"},
		{Body: ""},
		{Body: "  leading blanks,\n\n\nempty lines,\ttabs,\ntrailing blank "},
		{Body: "-- \nsignature?\n\nOn Monday somebody wrote:\n> quote\n> quote"},
		{Body: strings.Repeat("a long line of words, then a line end\n", 1500) + "end"},
	} {
		add = append(add, e.entry(by, i+1, x))
	}
	r.Entries = append(r.Entries, add...)
	subject := desk.Fields{desk.Subject: {e.name("Größe 日本 🦊 שלום \"q\" <b>")}}
	maps.Copy(r.Fields, subject)
	p := e.put(t, tg, r)
	e.sameFields(t, p, subject)
	e.sameEntries(t, tg, p, r.Entries)
}

// targetFiles: files of all sizes and names survive.
func targetFiles(t T, e *env) {
	tg := e.target(t)
	var fs []desk.File
	for i, x := range []struct {
		size int64
		name string
	}{
		{0, "empty.bin"}, {1, "one.bin"}, {5 << 20, "five megabytes.bin"}, {10, "ä 日本 🦊.bin"}, {11, `quo"ted 'name'; x=y.bin`},
		{12, "../../etc/passwd"}, {13, "two\r\nlines: x.bin"}, {14, "one.bin"}, {15, ""}, {16, "."},
	} {
		if e.tgt.MaxFile > 0 && x.size > e.tgt.MaxFile {
			continue
		}
		fs = append(fs, file(content{seed: byte(10 + i), size: x.size}, x.name))
	}
	per := len(fs)
	if e.tgt.MaxFiles > 0 {
		per = min(per, e.tgt.MaxFiles)
	}
	var entries []desk.Entry
	for chunk := range slices.Chunk(fs, per) {
		entries = append(entries, desk.Entry{Public: true, Body: "files", Files: chunk})
	}
	r := e.record(t, tg, entries...)
	p := e.put(t, tg, r)
	e.sameEntries(t, tg, p, r.Entries)
}

// targetParallel: eight tickets created at the same time are eight tickets.
func targetParallel(t T, e *env) {
	tg := e.target(t)
	var rs [8]desk.Record
	for i := range rs {
		rs[i] = e.record(t, tg, desk.Entry{Public: true, Body: "at the same time"})
	}
	var ws [8]desk.Written
	var errs [8]error
	var wg sync.WaitGroup
	for i := range rs {
		wg.Go(func() {
			ws[i], errs[i] = tg.Create(t.Context(), rs[i])
		})
	}
	wg.Wait()
	e.must(t, "creating eight tickets at the same time", errors.Join(errs[:]...))
	ids := map[string]bool{}
	f, canFind := tg.(desk.Finder)
	for i, w := range ws {
		ids[w.ID] = true
		got, err := tg.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: w.ID})
		e.must(t, "reading ticket "+w.ID, err)
		if !got.Fields[desk.Subject].Equal(rs[i].Fields[desk.Subject]) {
			t.Errorf("ticket %s has the subject of another one", w.ID)
		}
		if canFind {
			e.found(t, f, rs[i].Ref, w.ID)
		}
	}
	if len(ids) != len(rs) {
		t.Errorf("eight tickets got %d ids", len(ids))
	}
}

// targetLostAnswer: when the answer to a writing request of Create is lost, the record was made at most once, Find finds it
// within FindLag, and Create does not send the request again.
func targetLostAnswer(t T, e *env) {
	f, ok := e.target(t).(desk.Finder)
	if !ok {
		t.Skipf("no Finder")
	}
	lost := false
	for n := int64(1); n <= 6; n++ {
		var writes atomic.Int64
		var on atomic.Bool
		tg := e.targetOver(t, func(base http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				if !on.Load() || r.Method == http.MethodGet || r.Method == http.MethodHead || writes.Add(1) != n {
					return base.RoundTrip(r)
				}
				resp, err := base.RoundTrip(r)
				if err != nil {
					return nil, err
				}
				defer resp.Body.Close()
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					return nil, err
				}
				return nil, io.ErrUnexpectedEOF
			})
		})
		r := e.record(t, tg, desk.Entry{Public: true, Body: "was it made?"})
		on.Store(true)
		w, err := tg.Create(t.Context(), r)
		on.Store(false)
		_ = e.clean(t, err)
		if writes.Load() < n {
			break // Create needs fewer writing requests
		}
		var ids []string
		var ferr error
		eventually(t.Context(), e.tgt.FindLag, func() bool {
			ids, ferr = f.Find(t.Context(), r.Ref)
			return ferr == nil && len(ids) > 0
		})
		e.must(t, "finding "+r.Ref.String(), ferr)
		what := fmt.Sprintf("%s, after the answer to writing request %d of Create was lost", r.Ref, n)
		switch class := desk.Class(err); {
		case len(ids) > 1:
			t.Errorf("%s, is there %d times: the request was sent again", what, len(ids))
		case err == nil && !slices.Equal(ids, []string{w.ID}):
			t.Errorf("%s: Create says that it made %q, Find says %v", what, w.ID, ids)
		case w.ID != "" && !slices.Contains(ids, w.ID):
			t.Errorf("%s: Written names %q, Find says %v", what, w.ID, ids)
		case len(ids) > 0 && slices.Contains([]error{desk.ErrRejected, desk.ErrUnauthorized, desk.ErrThrottled}, class):
			t.Errorf("%s: it was made, and the error (%v) promises that it was not", what, err)
		case err != nil && len(ids) == 1:
			lost = true
		}
	}
	if !lost {
		t.Errorf("no lost answer left a ticket that Find finds; either Create does not go through Deps.HTTP, or Find does not see what an unanswered Create made")
	}
}

// targetGone: an id that is not there is not found.
func targetGone(t T, e *env) {
	tg := e.target(t)
	gone := desk.Ref{Kind: desk.Ticket, ID: "999999999"}
	_, err := tg.Read(t.Context(), gone)
	e.wants(t, "reading a ticket that is not there", err, desk.ErrNotFound)
	_, err = tg.Apply(t.Context(), gone, desk.Change{Fields: desk.Fields{desk.Subject: {"x"}}})
	e.wants(t, "applying fields to a ticket that is not there", err, desk.ErrNotFound)
	_, err = tg.Apply(t.Context(), gone, desk.Change{Entries: []desk.Entry{e.entry(e.customer(t, tg), 0, desk.Entry{Body: "x"})}})
	e.wants(t, "adding an entry to a ticket that is not there", err, desk.ErrNotFound)
	for _, id := range []string{"../../etc/passwd", "a b", "ü", "1/history", "%2e%2e", "1?x=y", "*"} {
		_, err := tg.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: id})
		e.wants(t, fmt.Sprintf("reading ticket %q", id), err, desk.ErrNotFound, desk.ErrRejected)
	}
}

// targetLock: a stale lock is refused and nothing is written; the current one is accepted.
func targetLock(t T, e *env) {
	tg := e.target(t)
	p := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "locked"}))
	stale := p.now.Lock
	if stale == "" {
		t.Skipf("records have no Lock")
	}
	first := desk.Fields{desk.Subject: {e.name("first")}}
	e.apply(t, tg, &p, desk.Change{Fields: first, Lock: stale})
	e.sameFields(t, p, first)
	if p.now.Lock == stale {
		t.Errorf("%s has changed and its lock has not", p.now.Ref)
	}
	w, err := tg.Apply(t.Context(), p.now.Ref, desk.Change{
		Fields: desk.Fields{desk.Subject: {e.name("second")}}, Lock: stale,
		Entries: []desk.Entry{e.entry(e.customer(t, tg), 1, desk.Entry{Public: true, Body: "must not be written"})},
	})
	e.wants(t, "applying with a stale lock", err, desk.ErrConflict)
	if len(w.Entries) > 0 {
		t.Errorf("a conflict names entries that were written")
	}
	after, err := tg.Read(t.Context(), p.now.Ref)
	e.must(t, "reading "+p.now.Ref.String(), err)
	if after.Digest() != p.now.Digest() {
		t.Errorf("a change that failed with a conflict was written to %s", p.now.Ref)
	}
}

// targetRevise: an entry that the migration wrote gets other words, files and visibility, and stays the same entry. Files that
// are named without content are kept, those that are not named are gone. Where tickets have locks, nothing is changed in one that has
// moved since it was read.
func targetRevise(t T, e *env) {
	tg := e.target(t)
	v, ok := tg.(desk.Reviser)
	if !ok {
		t.Skipf("no Reviser")
	}
	stays, goes, comes := file(content{seed: 1, size: 40}, "stays.bin"), file(content{seed: 2, size: 50}, "goes.bin"), file(content{seed: 3, size: 60}, "comes.bin")
	r := e.record(t, tg, desk.Entry{Public: true, Body: "stays"},
		desk.Entry{Public: true, Subject: "of number 12345", Body: "secret number 12345", Files: []desk.File{goes, stays}})
	p := e.put(t, tg, r)
	want := slices.Clone(r.Entries)
	shown := func() desk.Entry {
		i := slices.IndexFunc(p.now.Entries, func(x desk.Entry) bool { return x.ID == p.entries[want[1].Marker] })
		if i < 0 {
			t.Fatalf("%s: entry %s is missing from the thread", p.now.Ref, want[1].Marker)
		}
		return p.now.Entries[i]
	}
	revise := func(what string, sent desk.Entry) {
		sent.ID, sent.Marker = p.entries[want[1].Marker], want[1].Marker
		e.must(t, "revising: "+what, v.Revise(t.Context(), p.now.Ref, sent, p.now.Lock))
		e.must(t, "revising again: "+what, v.Revise(t.Context(), p.now.Ref, sent, "")) // twice is the same as once
		eventually(t.Context(), e.tgt.ListLag, func() bool {
			now, err := tg.Read(t.Context(), p.now.Ref)
			e.must(t, "reading "+p.now.Ref.String(), err)
			changed := now.Digest() != p.now.Digest()
			p.now = now
			return changed
		})
		e.sameEntries(t, tg, p, want)
		if got := shown(); got.Subject != want[1].Subject {
			t.Errorf("%s: entry %s, revised (%s), has a subject of %d characters, want %d", p.now.Ref, got.ID, what, len(got.Subject), len(want[1].Subject))
		}
	}
	if len(shown().Files) != 2 {
		t.Fatalf("%s: entry %s has %d files, want 2", p.now.Ref, shown().ID, len(shown().Files))
	}
	gone, kept := shown().Files[0], shown().Files[1]
	kept.Open = nil
	want[1].Subject, want[1].Body, want[1].Public, want[1].Files = "", "secret number *****", false, []desk.File{stays, comes}
	sent := want[1]
	sent.Files = []desk.File{kept, comes}
	revise("words, files and visibility", sent)
	if o, can := tg.(desk.Opener); can {
		_, _, err := hashFile(t.Context(), o, p.now.Ref, gone)
		e.wants(t, "opening a file that was revised away", err, desk.ErrNotFound)
	}

	sent = shown()
	sent.Public, want[1].Public = true, true
	revise("visibility only", sent)

	want[1].Body, want[1].Files = "nothing", nil
	revise("no files", want[1])

	if stale := p.now.Lock; stale != "" {
		e.apply(t, tg, &p, desk.Change{Entries: []desk.Entry{e.entry(e.customer(t, tg), 2, desk.Entry{Public: true, Body: "the answer"})}})
		sent = shown()
		sent.Body = "never"
		e.wants(t, "revising an entry of a ticket that was answered since it was read", v.Revise(t.Context(), p.now.Ref, sent, stale), desk.ErrConflict)
		after, err := tg.Read(t.Context(), p.now.Ref)
		e.must(t, "reading "+p.now.Ref.String()+" after a revision that failed with a conflict", err)
		if after.Digest() != p.now.Digest() {
			t.Errorf("a revision that failed with a conflict has changed %s", p.now.Ref)
		}
	}

	sent.ID = "999999999"
	e.wants(t, "revising an entry that is not there", v.Revise(t.Context(), p.now.Ref, sent, ""), desk.ErrNotFound, desk.ErrRejected)
}

// targetMerge: the merged id answers with the ticket that lives on. Where tickets have locks, one that has moved since it was read is not
// merged.
func targetMerge(t T, e *env) {
	tg := e.target(t)
	m, ok := tg.(desk.Merger)
	if !ok {
		t.Skipf("no Merger")
	}
	goes := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "goes"}))
	b := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "stays"})).now.Ref
	if stale := goes.now.Lock; stale != "" {
		e.apply(t, tg, &goes, desk.Change{Entries: []desk.Entry{e.entry(e.customer(t, tg), 1, desk.Entry{Public: true, Body: "the answer"})}})
		e.wants(t, "merging a ticket that was answered since it was read", m.Merge(t.Context(), goes.now.Ref, b, stale), desk.ErrConflict)
		after, err := tg.Read(t.Context(), goes.now.Ref)
		e.must(t, "reading "+goes.now.Ref.String()+" after a merge that failed with a conflict", err)
		if after.Ref != goes.now.Ref || after.Digest() != goes.now.Digest() {
			t.Errorf("a merge that failed with a conflict has changed %s", goes.now.Ref)
		}
	}
	a := goes.now.Ref
	e.must(t, fmt.Sprintf("merging %s into %s", a, b), m.Merge(t.Context(), a, b, goes.now.Lock))
	for _, ref := range []desk.Ref{a, b} {
		var r desk.Record
		var err error
		eventually(t.Context(), e.tgt.ListLag, func() bool {
			r, err = tg.Read(t.Context(), ref)
			return err == nil && r.Ref == b
		})
		e.must(t, "reading "+ref.String()+" after the merge", err)
		if r.Ref != b {
			t.Errorf("%s answers with %s after it was merged into %s", ref, r.Ref, b)
		}
	}
	e.wants(t, "merging into a ticket that is not there", m.Merge(t.Context(), b, desk.Ref{Kind: desk.Ticket, ID: "999999999"}, ""), desk.ErrNotFound, desk.ErrRejected)
}

// targetDelete: what is deleted is gone, and nothing else is. Where records have locks, what has moved since it was read is not
// deleted, nor is what it was merged into.
func targetDelete(t T, e *env) {
	tg := e.target(t)
	d, ok := tg.(desk.Deleter)
	if !ok {
		t.Skipf("no Deleter")
	}
	a := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "goes"})).now
	b := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "stays"})).now
	e.must(t, "deleting "+a.Ref.String(), d.Delete(t.Context(), a.Ref, a.Lock))
	var err error
	eventually(t.Context(), e.tgt.ListLag, func() bool {
		_, err = tg.Read(t.Context(), a.Ref)
		return err != nil
	})
	e.wants(t, "reading a deleted ticket", err, desk.ErrNotFound)
	_, err = tg.Apply(t.Context(), a.Ref, desk.Change{Fields: desk.Fields{desk.Subject: {"x"}}})
	e.wants(t, "applying to a deleted ticket", err, desk.ErrNotFound)
	after, err := tg.Read(t.Context(), b.Ref)
	e.must(t, "reading "+b.Ref.String(), err)
	if after.Digest() != b.Digest() {
		t.Errorf("deleting %s has changed %s", a.Ref, b.Ref)
	}
	if b.Lock == "" {
		return
	}
	stays := func(what string, p put, ref desk.Ref, stale string) {
		e.wants(t, "deleting "+what, d.Delete(t.Context(), ref, stale), desk.ErrConflict)
		after, err := tg.Read(t.Context(), p.now.Ref)
		e.must(t, "reading "+p.now.Ref.String()+" after a deletion that failed with a conflict", err)
		if after.Digest() != p.now.Digest() {
			t.Errorf("a deletion that failed with a conflict has changed %s", p.now.Ref)
		}
	}
	moved := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "is answered"}))
	stale := moved.now.Lock
	e.apply(t, tg, &moved, desk.Change{Entries: []desk.Entry{e.entry(e.customer(t, tg), 1, desk.Entry{Public: true, Body: "the answer"})}})
	stays("a ticket that was answered since it was read", moved, moved.now.Ref, stale)
	if m, can := tg.(desk.Merger); can {
		from := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "is merged"})).now
		e.must(t, fmt.Sprintf("merging %s into %s", from.Ref, moved.now.Ref), m.Merge(t.Context(), from.Ref, moved.now.Ref, from.Lock))
		eventually(t.Context(), e.tgt.ListLag, func() bool {
			r, err := tg.Read(t.Context(), from.Ref)
			if err == nil && r.Ref == moved.now.Ref {
				moved.now = r
			}
			return err == nil && r.Ref == moved.now.Ref
		})
		stays("a ticket that was merged since it was read", moved, from.Ref, from.Lock)
	}
}

// targetCancel: a context that is over ends a call with an error, without a request and without effect.
func targetCancel(t T, e *env) {
	var requests atomic.Int64
	tg := e.targetOver(t, counting(&requests))
	p := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "unmoved"}))
	r := e.record(t, tg, desk.Entry{Public: true, Body: "never"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	requests.Store(0)
	w, err := tg.Create(ctx, r)
	e.wants(t, "create", err, desk.ErrTransient)
	if w.ID != "" {
		t.Errorf("a cancelled create says that it made %s", w.ID)
	}
	_, err = tg.Apply(ctx, p.now.Ref, desk.Change{Fields: desk.Fields{desk.Subject: {"never"}}})
	e.wants(t, "apply", err, desk.ErrTransient)
	_, err = tg.Read(ctx, p.now.Ref)
	e.wants(t, "read", err, desk.ErrTransient)
	if d, ok := tg.(desk.Deleter); ok {
		e.wants(t, "delete", d.Delete(ctx, p.now.Ref, p.now.Lock), desk.ErrTransient)
	}
	if n := requests.Load(); n > 0 {
		t.Errorf("calls with a context that is over sent %d requests", n)
	}
	after, err := tg.Read(t.Context(), p.now.Ref)
	e.must(t, "reading "+p.now.Ref.String(), err)
	if after.Digest() != p.now.Digest() {
		t.Errorf("a cancelled call has changed %s", p.now.Ref)
	}
	if f, ok := tg.(desk.Finder); ok {
		ids, err := f.Find(t.Context(), r.Ref)
		e.must(t, "finding "+r.Ref.String(), err)
		if len(ids) > 0 {
			t.Errorf("a cancelled create made %v", ids)
		}
	}
}

// targetSilent: nothing that the target does mails anybody.
func targetSilent(t T, e *env) {
	tg := e.target(t)
	before, err := e.o.Mails(t.Context())
	e.must(t, "counting mails", err)
	by := e.newPerson(t, tg)
	r := e.record(t, tg, desk.Entry{Public: true, Body: "quiet"}, desk.Entry{Body: "quiet note"})
	r.Fields[desk.Requester] = desk.Value{by.Ref.ID}
	p := e.put(t, tg, r)
	c := desk.Change{Fields: desk.Fields{desk.Subject: {e.name("quiet")}}, Entries: []desk.Entry{e.entry(by, 5, desk.Entry{Public: true, Body: "quiet reply"})}}
	maps.Copy(c.Fields, e.o.Update)
	e.apply(t, tg, &p, c)
	after, err := e.o.Mails(t.Context())
	e.must(t, "counting mails", err)
	if after != before {
		t.Errorf("the desk sent %d mails while a ticket was created and changed", after-before)
	}
}

// body returns a copy of a request's body and leaves the request intact.
func body(r *http.Request) []byte {
	if r.Body == nil {
		return nil
	}
	b, _ := io.ReadAll(r.Body) // what cannot be read cannot be sent either
	_ = r.Body.Close()
	r.Body = io.NopCloser(bytes.NewReader(b))
	return b
}

package desktest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

func sourceRules() []rule {
	return []rule{
		{"source/empty", needReset, sourceEmpty},
		{"source/check", needSource, sourceCheck},
		{"source/pages", needSource, sourcePages},
		{"source/people", needSource, sourcePeople},
		{"source/resume", needSource, sourceResume},
		{"source/same-second", needSource, sourceSameSecond},
		{"source/update", needSource, sourceUpdate},
		{"source/mutation", needSource, sourceMutation},
		{"source/delete", needSource, sourceDelete},
		{"source/merge", needSource, sourceMerge},
		{"source/other-kind", needSource, sourceOtherKind},
		{"source/damaged-cursor", needSource, sourceDamagedCursor},
		{"source/foreign-cursor", needOther, sourceForeignCursor},
		{"source/rewind", needSource, sourceRewind},
		{"source/cancel", needSource, sourceCancel},
		{"source/records", needSource, sourceRecords},
		{"source/entries", needSource, sourceEntries},
		{"source/began", needSource, sourceBegan},
		{"source/digest", needSource, sourceDigest},
		{"source/unknown", needSource, sourceUnknown},
		{"source/files", needSource, sourceFiles},
		{"source/define", needSource, sourceDefine},
		{"source/read-only", needFingerprint, sourceReadOnly},
	}
}

func needSource(e *env) (missing, lacks string) {
	switch {
	case !e.hasSource():
		return "", "no source side"
	case e.o.Seed == nil:
		return "Seed", ""
	}
	return "", ""
}

func needReset(e *env) (missing, lacks string) {
	if missing, lacks = needSource(e); missing+lacks == "" && e.o.Reset == nil {
		missing = "Reset"
	}
	return missing, lacks
}

func needOther(e *env) (missing, lacks string) {
	if missing, lacks = needSource(e); missing+lacks == "" && e.o.Other == nil {
		missing = "Other"
	}
	return missing, lacks
}

func needFingerprint(e *env) (missing, lacks string) {
	if missing, lacks = needSource(e); missing+lacks == "" && e.o.Fingerprint == nil {
		missing = "Fingerprint"
	}
	return missing, lacks
}

// sourceEmpty: an empty desk lists nothing, and its mark can be listed from.
func sourceEmpty(t T, e *env) {
	s := e.source(t)
	until := e.mark(t, s)
	for _, from := range []desk.Cursor{nil, until} {
		if got := items(e.list(t, s, desk.Ticket, from, until)); len(got) > 0 {
			t.Errorf("an empty desk lists %d tickets", len(got))
		}
	}
	ref := e.ticket(t)
	if got, _ := e.follow(t, s, desk.Ticket, until, holding(ref)); !holding(ref)(got) {
		t.Errorf("the first ticket of a desk is not listed after a mark taken while it was empty")
	}
}

// sourceCheck: the desk's account is good enough, and checking says so.
func sourceCheck(t T, e *env) {
	c, ok := e.source(t).(desk.Checker)
	if !ok {
		t.Skipf("no Checker")
	}
	e.must(t, "check", c.Check(t.Context()))
}

// sourcePages: every ticket is listed, from the beginning of time as well as from a mark, on more than one page.
func sourcePages(t T, e *env) {
	b := e.tickets(t)
	s := e.source(t)
	for name, from := range map[string]desk.Cursor{"a mark": b.before, "the beginning": nil} {
		pages := e.list(t, s, desk.Ticket, from, b.then)
		if miss := lacking(items(pages), b.refs); len(miss) > 0 {
			t.Errorf("listing from %s leaves out %v", name, miss)
		}
		if len(pages) < 3 {
			t.Errorf("listing from %s has %d pages; set Options.PageSize to what Options.Source puts on one", name, len(pages))
		}
	}
	if got := items(e.list(t, s, desk.Ticket, b.then, b.then)); len(got) > 0 && e.src.ListLag == 0 {
		t.Logf("an interval without length lists %d tickets again, which is allowed", len(got))
	}
}

// sourcePeople: people are listed and read like tickets, and a ticket's people can be read by the ids in its fields.
func sourcePeople(t T, e *env) {
	if !slices.Contains(e.src.Kinds, desk.Person) {
		t.Skipf("no people")
	}
	s := e.source(t)
	from := e.mark(t, s)
	n := e.name("person")
	mail := n + "@desktest.example"
	ref, err := e.o.Seed.Create(t.Context(), desk.Record{
		Ref:    desk.Ref{Kind: desk.Person},
		Fields: desk.Fields{desk.Name: {"Ann " + n}, desk.Email: {mail}},
	})
	e.must(t, "seeding a person", err)
	if got, _ := e.follow(t, s, desk.Person, from, holding(ref)); !holding(ref)(got) {
		t.Errorf("%s is not listed", ref)
	}
	r, err := s.Read(t.Context(), ref)
	e.must(t, "reading "+ref.String(), err)
	if r.Fields[desk.Email].First() != mail || r.Fields[desk.Name].First() != "Ann "+n {
		t.Errorf("%s is read without its name or address", ref)
	}
	ticket, err := s.Read(t.Context(), e.tickets(t).refs[0])
	e.must(t, "reading a ticket", err)
	if !ticket.Fields[desk.Requester].Equal(desk.Value{e.person(t).ID}) {
		t.Errorf("the requester of %s is %v, want %s", ticket.Ref, ticket.Fields[desk.Requester], e.person(t).ID)
	}
	for _, id := range ticket.Fields[desk.Requester] {
		p, err := s.Read(t.Context(), desk.Ref{Kind: desk.Person, ID: id})
		e.must(t, "reading the requester of "+ticket.Ref.String(), err)
		if p.Ref.ID != id {
			t.Errorf("person %s is read under the id %s", id, p.Ref.ID)
		}
	}
}

// sourceResume: from every page's Next, a fresh source lists the rest.
func sourceResume(t T, e *env) {
	b := e.tickets(t)
	pages := e.list(t, e.source(t), desk.Ticket, b.before, b.then)
	for i, p := range pages[:len(pages)-1] {
		var want []desk.Ref
		for _, l := range items(pages[i+1:]) {
			want = append(want, l.Ref)
		}
		got := items(e.list(t, e.source(t), desk.Ticket, p.Next, b.then))
		if miss := lacking(got, want); len(miss) > 0 {
			t.Errorf("going on after page %d in a fresh source leaves out %v", i+1, miss)
		}
	}
}

// sourceSameSecond: tickets that share a second, with a page ending between them, are all listed.
func sourceSameSecond(t T, e *env) {
	b := e.tickets(t)
	for attempt := 1; ; attempt++ {
		pages := e.list(t, e.source(t), desk.Ticket, b.before, b.then)
		if miss := lacking(items(pages), b.refs); len(miss) > 0 {
			t.Errorf("of tickets made in quick succession %v are left out", miss)
		}
		for i := 1; i < len(pages); i++ {
			a, z := pages[i-1].Items, pages[i].Items
			if len(a) > 0 && len(z) > 0 && a[len(a)-1].Stamp.At.Truncate(time.Second).Equal(z[0].Stamp.At.Truncate(time.Second)) {
				return
			}
		}
		if attempt == 3 {
			t.Errorf("no two neighbours on different pages share a second after %d attempts; the seed is too slow, or stamps are not those of the change", attempt)
			return
		}
		b = e.newBatch(t)
	}
}

// sourceUpdate: what changes after a listing is done comes back in the next one.
func sourceUpdate(t T, e *env) {
	b := e.tickets(t)
	s := e.source(t)
	ref := b.refs[0]
	from := e.mark(t, s)
	before, err := s.Read(t.Context(), ref)
	e.must(t, "reading "+ref.String(), err)
	e.touch(t, ref)
	got, from := e.follow(t, s, desk.Ticket, from, holding(ref))
	if !holding(ref)(got) {
		t.Fatalf("%s was changed and is not listed again", ref)
	}
	after, err := s.Read(t.Context(), ref)
	e.must(t, "reading "+ref.String(), err)
	if after.Digest() == before.Digest() {
		t.Errorf("%s was changed, is listed, and reads as before", ref)
	}
	if after.Stamp.Before(before.Stamp) {
		t.Errorf("the stamp of %s went back", ref)
	}
	for _, l := range got {
		if l.Ref == ref && after.Stamp.Before(l.Stamp) {
			t.Errorf("%s is listed with a later stamp than it has when it is read afterwards", ref)
		}
	}
	e.must(t, "adding an entry to "+ref.String(), e.o.Seed.Change(t.Context(), ref, desk.Change{
		Entries: []desk.Entry{{Public: true, Type: "text/plain", Body: e.name("late reply")}},
	}))
	if got, _ = e.follow(t, s, desk.Ticket, from, holding(ref)); !holding(ref)(got) {
		t.Errorf("%s got an entry and is not listed again", ref)
	}
}

// sourceMutation: tickets that change between the fetching of two pages are not lost, nor are their neighbours.
func sourceMutation(t T, e *env) {
	b := e.newBatch(t)
	s := e.source(t)
	until := b.then
	var got []desk.Listed
	type change struct {
		ref   desk.Ref
		after int // how many items had been listed by then
	}
	var changes []change
	from := b.before
	for n := 0; n < 10_000; n++ {
		p, err := s.Changes(t.Context(), desk.Ticket, desk.Scope{}, from, until)
		e.must(t, fmt.Sprintf("page %d", n+1), err)
		got = append(got, p.Items...)
		if n < 2 { // one that was listed just now, one that will be, and a new one
			for _, ref := range []desk.Ref{b.refs[n*e.o.PageSize+1], b.refs[len(b.refs)-1-n]} {
				e.touch(t, ref)
				changes = append(changes, change{ref, len(got)})
			}
			changes = append(changes, change{e.ticket(t), len(got)})
		}
		if p.Done {
			break
		}
		from = p.Next
	}
	seen := func(rest []desk.Listed) []desk.Ref {
		all := slices.Concat(got, rest)
		miss := lacking(all, b.refs)
		for _, c := range changes {
			miss = append(miss, lacking(all[c.after:], []desk.Ref{c.ref})...)
		}
		return miss
	}
	rest, _ := e.follow(t, s, desk.Ticket, until, func(rest []desk.Listed) bool { return len(seen(rest)) == 0 })
	if miss := seen(rest); len(miss) > 0 {
		t.Errorf("with changes between the pages, neither the listing nor the next one holds %v", miss)
	}
}

// sourceDelete: a deletion is listed where the traits say so; the ticket is gone, or is read as deleted.
func sourceDelete(t T, e *env) {
	s := e.source(t)
	ref := e.ticket(t)
	from := e.mark(t, s)
	e.must(t, "deleting "+ref.String(), e.o.Seed.Delete(t.Context(), ref))
	var r desk.Record
	var err error
	eventually(t.Context(), e.src.ListLag, func() bool {
		r, err = s.Read(t.Context(), ref)
		return err != nil || r.Event == desk.Deleted
	})
	if err != nil {
		e.wants(t, "reading a deleted ticket", err, desk.ErrNotFound)
	} else if r.Event != desk.Deleted {
		t.Errorf("a deleted ticket reads as event %q", string(r.Event))
	}
	if !e.src.SeesDeletes {
		t.Skipf("SeesDeletes is false")
	}
	deleted := func(items []desk.Listed) bool {
		return slices.ContainsFunc(items, func(l desk.Listed) bool { return l.Ref == ref && l.Event == desk.Deleted })
	}
	if got, _ := e.follow(t, s, desk.Ticket, from, deleted); !deleted(got) {
		t.Errorf("the deletion of %s is not listed", ref)
	}
}

// sourceMerge: a merge is listed; the merged id answers with the ticket that lives on, which names it among its aliases.
func sourceMerge(t T, e *env) {
	s := e.source(t)
	a := e.ticket(t, desk.Entry{Public: true, Type: "text/plain", Body: "from the first"})
	b := e.ticket(t, desk.Entry{Public: true, Type: "text/plain", Body: "from the second"})
	from := e.mark(t, s)
	e.must(t, fmt.Sprintf("merging %s into %s", a, b), e.o.Seed.Merge(t.Context(), a, b))
	told := func(items []desk.Listed) bool {
		return slices.ContainsFunc(items, func(l desk.Listed) bool { return l.Ref == b || l.Ref == a && l.Event == desk.Merged })
	}
	got, _ := e.follow(t, s, desk.Ticket, from, told)
	if !told(got) {
		t.Errorf("the merge of %s into %s lists neither the one as merged nor the other as changed", a, b)
	}
	for _, l := range got {
		if l.Ref == a && l.Event == desk.Merged && l.Into != b.ID {
			t.Errorf("%s is listed as merged into %q, want %q", a, l.Into, b.ID)
		}
	}
	for _, ref := range []desk.Ref{a, b} {
		r, err := s.Read(t.Context(), ref)
		e.must(t, "reading "+ref.String()+" after the merge", err)
		if r.Ref != b {
			t.Errorf("%s answers with %s after it was merged into %s", ref, r.Ref, b)
		}
		if !slices.Contains(r.Aliases, a.ID) {
			t.Errorf("%s does not name %s among its aliases", b, a.ID)
		}
	}
}

// sourceOtherKind: a kind that the desk does not have is listed as an empty page with Done.
func sourceOtherKind(t T, e *env) {
	s := e.source(t)
	until := e.mark(t, s)
	kinds := []desk.Kind{"no such kind"}
	for _, k := range desk.LoadOrder() {
		if !slices.Contains(e.src.Kinds, k) {
			kinds = append(kinds, k)
		}
	}
	for _, k := range kinds {
		p, err := s.Changes(t.Context(), k, desk.Scope{}, nil, until)
		e.must(t, "listing a kind that the desk does not have", err)
		if len(p.Items) > 0 || !p.Done {
			t.Errorf("kind %q: %d items, done %t; want an empty page with Done", string(k), len(p.Items), p.Done)
		}
	}
}

// sourceDamagedCursor: a cursor that is cut off, of other types or of random bytes is refused as such, without a panic.
func sourceDamagedCursor(t T, e *env) {
	b := e.tickets(t)
	s := e.source(t)
	good := e.list(t, s, desk.Ticket, b.before, b.then)[0].Next
	try := func(what string, c desk.Cursor, strict bool) {
		t.Helper()
		defer func() {
			if p := recover(); p != nil {
				t.Errorf("%s cursor: panic", what)
			}
		}()
		for side, bounds := range map[string][2]desk.Cursor{"from": {c, b.then}, "until": {b.before, c}} {
			_, err := s.Changes(t.Context(), desk.Ticket, desk.Scope{}, bounds[0], bounds[1])
			if strict || err != nil {
				e.wants(t, what+" cursor as "+side, err, desk.ErrCursor)
			}
		}
	}
	for _, n := range []int{1, len(good) / 2, len(good) - 1} {
		try("a cut", good[:n], true)
	}
	for _, c := range []string{`{}`, `[]`, `""`, `0`, `-1`, `true`, `"x"`, `{"x":1}`, "\x00\xff", "{", string(good) + string(good)} {
		try("a wrong", desk.Cursor(c), true)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		c := make([]byte, 40)
		for i := range c {
			c[i] = byte(rng.Uint32())
		}
		try("a random", c, true)
	}
	for i := range good { // may still be a place, so only the class is told
		c := bytes.Clone(good)
		c[i] ^= 1
		try("a flipped", c, !json.Valid(c))
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(good, &members) != nil {
		return
	}
	for k, was := range members {
		for _, is := range []string{`{"a":1}`, `[1]`, `"?"`, `-7`, `1e400`} {
			members[k] = json.RawMessage(is)
			c, err := json.Marshal(members)
			if err != nil {
				continue
			}
			try("a cursor with another "+k+", as a", c, true)
		}
		members[k] = was
	}
}

// sourceForeignCursor: a cursor of another desk is refused.
func sourceForeignCursor(t T, e *env) {
	s := e.source(t)
	mine := e.mark(t, s)
	theirs := e.mark(t, e.sourceOf(t, e.o.Other, nil))
	_, err := s.Changes(t.Context(), desk.Ticket, desk.Scope{}, theirs, mine)
	e.wants(t, "another desk's cursor as from", err, desk.ErrCursor)
	_, err = s.Changes(t.Context(), desk.Ticket, desk.Scope{}, mine, theirs)
	e.wants(t, "another desk's cursor as until", err, desk.ErrCursor)
}

// sourceRewind: whatever changed at or after a moment is listed after its cursor.
func sourceRewind(t T, e *env) {
	s := e.source(t)
	w, ok := s.(desk.Rewinder)
	if !ok {
		t.Skipf("no Rewinder")
	}
	b := e.tickets(t)
	r, err := s.Read(t.Context(), b.refs[0])
	e.must(t, "reading "+b.refs[0].String(), err)
	at, err := w.At(t.Context(), r.Stamp.At)
	e.must(t, "rewinding", err)
	if got := items(e.list(t, s, desk.Ticket, at, e.mark(t, s))); !holding(b.refs[0])(got) {
		t.Errorf("%s is not listed from the time of its own stamp", b.refs[0])
	}
	for name, tm := range map[string]time.Time{"long ago": time.Unix(0, 0).UTC(), "the future": r.Stamp.At.AddDate(1, 0, 0)} {
		c, err := w.At(t.Context(), tm)
		e.must(t, "rewinding to "+name, err)
		if name == "long ago" && !holding(b.refs...)(items(e.list(t, s, desk.Ticket, c, b.then))) {
			t.Errorf("listing from long ago leaves tickets out")
		}
	}
}

// sourceCancel: a cancelled context ends a call with an error and without a request; the listing goes on afterwards from
// where it was.
func sourceCancel(t T, e *env) {
	b := e.tickets(t)
	var requests atomic.Int64
	s := e.sourceOf(t, e.o.Source, counting(&requests))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for _, ctx := range []context.Context{gone, late} {
		_, err := s.Mark(ctx)
		e.wants(t, "mark", err, desk.ErrTransient)
		_, err = s.Changes(ctx, desk.Ticket, desk.Scope{}, b.before, b.then)
		e.wants(t, "changes", err, desk.ErrTransient)
		_, err = s.Read(ctx, b.refs[0])
		e.wants(t, "read", err, desk.ErrTransient)
	}
	if n := requests.Load(); n > 0 {
		t.Errorf("calls with a context that is over sent %d requests", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first, err := s.Changes(ctx, desk.Ticket, desk.Scope{}, b.before, b.then)
	e.must(t, "the first page", err)
	cancel()
	_, err = s.Changes(ctx, desk.Ticket, desk.Scope{}, first.Next, b.then)
	e.wants(t, "the second page, cancelled", err, desk.ErrTransient)
	rest := items(e.list(t, s, desk.Ticket, first.Next, b.then))
	if miss := lacking(slices.Concat(first.Items, rest), b.refs); len(miss) > 0 {
		t.Errorf("after a cancelled page, going on leaves out %v", miss)
	}
}

// counting counts the requests that leave the connector with a context that is not over, which a transport would send.
func counting(n *atomic.Int64) transport {
	return func(base http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Context().Err() == nil {
				n.Add(1)
			}
			return base.RoundTrip(r)
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// richEntries are what a thread may hold.
func richEntries() []desk.Entry {
	return []desk.Entry{
		{Public: true, Type: "text/plain", Body: "plain, with \"quotes\", emoji 🦊👩‍👩‍👧 and\n\nempty lines"},
		{Public: false, Type: "text/html", Body: "<p>A note in <b>HTML</b> &amp; with עברית and العربية</p>"},
		{Public: true, Type: "text/plain", Body: "with files", Files: []desk.File{
			{Name: "bytes.bin", Type: "application/octet-stream", Size: seedFiles[0].size, Open: seedFiles[0].open},
			{Name: "leer ä 日本.bin", Type: "application/octet-stream", Size: seedFiles[1].size, Open: seedFiles[1].open},
			{Name: "big.bin", Type: "application/octet-stream", Size: seedFiles[2].size, Open: seedFiles[2].open},
		}},
	}
}

var seedFiles = []content{{seed: 1, size: 256}, {seed: 2, size: 1}, {seed: 3, size: 300_000}}

// rich returns a source ticket with richEntries, as it is read.
func (e *env) rich(t T, s desk.Source) desk.Record {
	t.Helper()
	if e.seed.rich == nil {
		es := richEntries()
		ref := e.ticket(t, es[:1]...)
		for i := range es[1:] {
			e.must(t, fmt.Sprintf("seeding entry %d of %s", i+1, ref), e.o.Seed.Change(t.Context(), ref, desk.Change{Entries: es[i+1 : i+2]}))
		}
		e.seed.rich = &ref
	}
	var r desk.Record
	eventually(t.Context(), e.src.ListLag, func() bool {
		var err error
		r, err = s.Read(t.Context(), *e.seed.rich)
		e.must(t, "reading "+e.seed.rich.String(), err)
		return len(r.Entries) >= len(richEntries())
	})
	return r
}

// sourceRecords: records are in canonical form.
func sourceRecords(t T, e *env) {
	s := e.source(t)
	rs := []desk.Record{e.rich(t, s)}
	refs := e.tickets(t).refs[:2]
	if slices.Contains(e.src.Kinds, desk.Person) {
		refs = append(slices.Clone(refs), e.person(t))
	}
	for _, ref := range refs {
		r, err := s.Read(t.Context(), ref)
		e.must(t, "reading "+ref.String(), err)
		if r.Ref != ref {
			t.Errorf("%s reads as %s", ref, r.Ref)
		}
		rs = append(rs, r)
	}
	for _, r := range rs {
		for _, p := range problems(r, e.src.Kinds) {
			t.Errorf("%s: %s", r.Ref, p)
		}
		for i, en := range r.Entries {
			if en.Marker != "" {
				t.Errorf("%s: entry %d has a marker on the source side", r.Ref, i)
			}
		}
	}
}

// sourceEntries: bodies, visibility and the order of the thread are those of the people who wrote it.
func sourceEntries(t T, e *env) {
	r := e.rich(t, e.source(t))
	next := 0
	for _, want := range richEntries() {
		i := slices.IndexFunc(r.Entries[next:], func(x desk.Entry) bool { return x.Body == want.Body })
		if i < 0 {
			t.Errorf("%s: an entry of type %s is missing, changed or out of order", r.Ref, want.Type)
			continue
		}
		got := r.Entries[next+i]
		next += i + 1
		if got.Public != want.Public || got.Type != want.Type {
			t.Errorf("%s: entry %s is public %t, type %s; want %t, %s", r.Ref, got.ID, got.Public, got.Type, want.Public, want.Type)
		}
		if got.Author.Name == "" && got.Author.Email == "" && got.Author.ID == "" {
			t.Errorf("%s: entry %s has no author", r.Ref, got.ID)
		}
	}
}

// sourceBegan: Began lies on the desk's own clock, does not go back, and a change that is made after a read does not carry a
// stamp from before it.
func sourceBegan(t T, e *env) {
	s := e.source(t)
	ref := e.ticket(t)
	var first desk.Record
	eventually(t.Context(), e.src.ListLag, func() bool {
		var err error
		first, err = s.Read(t.Context(), ref)
		return e.clean(t, err) == nil
	})
	from := e.mark(t, s)
	e.touch(t, ref)
	got, _ := e.follow(t, s, desk.Ticket, from, holding(ref))
	second, err := s.Read(t.Context(), ref)
	e.must(t, "reading "+ref.String(), err)
	if first.Began.IsZero() || second.Began.Before(first.Began) {
		t.Errorf("a later read of %s began earlier", ref)
	}
	for _, l := range got {
		if l.Ref == ref && l.Stamp.At.Add(e.src.StampResolution+e.src.ListLag).Before(first.Began) {
			t.Errorf("%s changed after it was read, but its stamp plus resolution and lag lies before that read began: a later run would drop the change", ref)
		}
	}
}

// sourceDigest: two reads of an unchanged record agree.
func sourceDigest(t T, e *env) {
	s := e.source(t)
	a := e.rich(t, s)
	b, err := e.source(t).Read(t.Context(), a.Ref)
	e.must(t, "reading "+a.Ref.String(), err)
	if a.Digest() != b.Digest() {
		t.Errorf("two reads of %s, which did not change, have different digests", a.Ref)
	}
	if a.Stamp != b.Stamp {
		t.Errorf("two reads of %s, which did not change, have different stamps", a.Ref)
	}
}

// sourceUnknown: an id that never was is not found, whatever it looks like.
func sourceUnknown(t T, e *env) {
	s := e.source(t)
	for _, id := range []string{"999999999", "../../etc/passwd", "a b", "ü", "1/history", "%2e%2e", "1?x=y", "*"} {
		_, err := s.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: id})
		e.wants(t, fmt.Sprintf("reading ticket %q", id), err, desk.ErrNotFound, desk.ErrRejected)
	}
	_, err := s.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: "999999999"})
	e.wants(t, "reading a ticket that never was", err, desk.ErrNotFound)
}

// sourceFiles: files arrive byte by byte, with the size that was declared.
func sourceFiles(t T, e *env) {
	s := e.source(t)
	o, ok := s.(desk.Opener)
	if !ok {
		t.Skipf("no Opener")
	}
	r := e.rich(t, s)
	var files []desk.File
	for _, en := range r.Entries {
		files = append(files, en.Files...)
	}
	i := 0
	for _, want := range richEntries()[2].Files {
		j := slices.IndexFunc(files[i:], func(f desk.File) bool { return f.Name == want.Name })
		if j < 0 {
			t.Errorf("%s: a file of %d bytes is missing, renamed or out of order", r.Ref, want.Size)
			continue
		}
		f := files[i+j]
		i += j + 1
		sha, size, err := hashFile(t.Context(), o, r.Ref, f)
		e.must(t, fmt.Sprintf("opening file %s of %s", f.ID, r.Ref), err)
		if f.Size != -1 && f.Size != size {
			t.Errorf("file %s of %s declares %d bytes and has %d", f.ID, r.Ref, f.Size, size)
		}
		wantSHA := seedFiles[slices.IndexFunc(seedFiles, func(c content) bool { return c.size == want.Size })].sha()
		if size != want.Size || sha != wantSHA || f.SHA256 != "" && f.SHA256 != sha {
			t.Errorf("file %s of %s has other bytes than the desk was given: %d, want %d", f.ID, r.Ref, size, want.Size)
		}
	}
	_, _, err := hashFile(t.Context(), o, r.Ref, desk.File{ID: "999999999"})
	e.wants(t, "opening a file that never was", err, desk.ErrNotFound, desk.ErrRejected)
}

// sourceDefine: every field that a record shows is defined.
func sourceDefine(t T, e *env) {
	s := e.source(t)
	d, ok := s.(desk.Definer)
	if !ok {
		t.Skipf("no Definer")
	}
	defs, err := d.Define(t.Context())
	e.must(t, "define", err)
	r := e.rich(t, s)
	for f := range r.Fields {
		if _, ok := defs.Field(r.Ref.Kind, f); !ok {
			t.Errorf("field %s of %s is not among the definitions", f, r.Ref)
		}
	}
}

// sourceReadOnly: nothing that a source does changes the desk.
func sourceReadOnly(t T, e *env) {
	b := e.tickets(t)
	s := e.source(t)
	rich := e.rich(t, s)
	before, err := e.o.Fingerprint(t.Context())
	e.must(t, "fingerprint", err)
	e.list(t, s, desk.Ticket, b.before, e.mark(t, s))
	_, err = s.Read(t.Context(), rich.Ref)
	e.must(t, "reading "+rich.Ref.String(), err)
	if o, ok := s.(desk.Opener); ok {
		for _, en := range rich.Entries {
			for _, f := range en.Files {
				_, _, err := hashFile(t.Context(), o, rich.Ref, f)
				e.must(t, "opening a file", err)
			}
		}
	}
	if c, ok := s.(desk.Checker); ok {
		e.must(t, "check", c.Check(t.Context()))
	}
	if d, ok := s.(desk.Definer); ok {
		_, err := d.Define(t.Context())
		e.must(t, "define", err)
	}
	_, err = s.Changes(t.Context(), desk.Ticket, desk.Scope{}, desk.Cursor(`{}`), b.then)
	e.wants(t, "a wrong cursor", err, desk.ErrCursor)
	after, err := e.o.Fingerprint(t.Context())
	e.must(t, "fingerprint", err)
	if before != after {
		t.Errorf("reading changed the desk")
	}
}

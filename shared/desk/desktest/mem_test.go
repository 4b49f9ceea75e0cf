package desktest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// mem is a desk in memory that is spoken to over HTTP without a network. flaw names the one promise that it breaks.
type mem struct {
	flaw  string
	id    string
	mu    sync.Mutex
	log   []memLine
	recs  map[desk.Ref]*memRec
	next  int
	mails int
	wire  *memWire
	// lag is how long changes stay invisible to listings and new records to Find; declared is what the traits say.
	lag, declared time.Duration
	pages         map[string]bool // cursors that pages ended with
}

// memWire is the network: it knows what the requests that are under way will do on the server.
type memWire struct {
	mu  sync.Mutex
	ops map[string]func() error
}

type memLine struct {
	ref   desk.Ref
	stamp desk.Stamp
	event desk.Event
	into  string
	made  time.Time
}

type memRec struct {
	desk.Record
	source desk.Ref
	into   string
	made   time.Time
	files  map[string][]byte
}

const memSecret = "topsecret-token"

func newMem(flaw string) *mem {
	return &mem{flaw: flaw, id: rand.Text(), recs: map[desk.Ref]*memRec{}, wire: &memWire{ops: map[string]func() error{}}, pages: map[string]bool{}}
}

func (m *mem) has(flaw string) bool { return m.flaw == flaw }

// options are what a connector's test would write.
func (m *mem) options() Options {
	other := newMem("")
	other.wire = m.wire
	desks := map[string]*mem{m.id: m, other.id: other}
	conn := desk.Connector{
		Name: "mem",
		NewSource: func(c desk.Config, d desk.Deps) (desk.Source, error) {
			return &memSource{memSide{desks[c["desk"]], d.HTTP, c["desk"]}, map[string]bool{}}, nil
		},
		NewTarget: func(c desk.Config, d desk.Deps) (desk.Target, error) {
			return &memTarget{memSide{desks[c["desk"]], d.HTTP, c["desk"]}}, nil
		},
		SourceSide: func(desk.Config) desk.Traits {
			return desk.Traits{Kinds: []desk.Kind{desk.Person, desk.Ticket}, SeesDeletes: true, StampResolution: time.Second, ListLag: m.declared}
		},
		TargetSide: func(desk.Config) desk.Traits {
			return desk.Traits{Kinds: []desk.Kind{desk.Person, desk.Ticket}, KeepsTimes: true, KeepsAuthors: true, EntryMarker: "a field", FindLag: m.declared}
		},
	}
	return Options{
		Connector: conn, Source: desk.Config{"desk": m.id}, Target: desk.Config{"desk": m.id}, Other: desk.Config{"desk": other.id},
		Deps: desk.Deps{HTTP: &http.Client{Transport: m.wire}}, Seed: memSeed{m}, TargetSeed: memSeed{m},
		Reset:       func(context.Context) error { return nil },
		Fingerprint: func(context.Context) (string, error) { return strconv.Itoa(len(m.log)), nil },
		Mails:       func(context.Context) (int, error) { return m.mails, nil },
		Ticket:      desk.Fields{desk.Tags: {"a", "b"}}, Update: desk.Fields{desk.Priority: {"high"}},
		Secrets: []string{memSecret},
	}
}

// RoundTrip is the server.
func (w *memWire) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	op := w.ops[r.Header.Get("X-Op")]
	w.mu.Unlock()
	err := op()
	code := http.StatusOK
	switch {
	case errors.Is(err, desk.ErrNotFound):
		code = 404
	case errors.Is(err, desk.ErrConflict):
		code = 409
	case err != nil:
		code = 422
	}
	return response(r, code, "application/json", `{"ok":true}`), nil
}

// memSide is one client.
type memSide struct {
	m    *mem
	http *http.Client
	desk string
}

// do sends one request, on which the server calls fn.
func (s memSide) do(ctx context.Context, method, path string, fn func() error) error {
	m := s.m
	if m.has("ignores contexts") {
		ctx = context.WithoutCancel(ctx)
	}
	client := s.http
	if m.has("own client") {
		client = &http.Client{Transport: m.wire}
	}
	id := rand.Text()
	m.wire.mu.Lock()
	m.wire.ops[id] = func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		return fn()
	}
	m.wire.mu.Unlock()
	fail := func(status int, class, err error) error {
		return &desk.Error{Op: method + " " + path, Status: status, Class: class, Err: err}
	}
	send := func() (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, "http://mem.example/"+path, strings.NewReader(path))
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-Op", id)
		req.Header.Set("Authorization", "Bearer "+memSecret)
		return client.Do(req)
	}
	resp, err := send()
	if m.has("retries creates") && (err != nil || resp.StatusCode >= 500) {
		resp, err = send()
	}
	if err != nil {
		if m.has("timeout is rejected") && errors.Is(err, context.DeadlineExceeded) {
			return fail(0, desk.ErrRejected, nil)
		}
		return fail(0, desk.ErrTransient, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil && !m.has("cut is fine") {
		return fail(resp.StatusCode, desk.ErrTransient, err)
	}
	if m.has("tells secrets") && resp.StatusCode >= 400 {
		return fail(resp.StatusCode, desk.ErrUnauthorized, errors.New(string(b)))
	}
	switch code := resp.StatusCode; code {
	case 200:
		if !json.Valid(b) && !m.has("html is fine") && !m.has("cut is fine") {
			return fail(code, desk.ErrTransient, errors.New("the answer is not JSON"))
		}
		return nil
	case 429:
		e := &desk.Error{Op: path, Status: code, Class: desk.ErrThrottled}
		after := resp.Header.Get("Retry-After")
		if n, err := strconv.Atoi(after); err == nil && !m.has("429 seconds") {
			e.RetryAfter = time.Duration(n) * time.Second
		} else if at, err := http.ParseTime(after); err == nil && !m.has("429 date") {
			e.RetryAfter = time.Until(at)
		}
		return e
	default:
		class, known := map[int]error{401: desk.ErrUnauthorized, 403: desk.ErrUnauthorized, 404: desk.ErrNotFound, 409: desk.ErrConflict, 422: desk.ErrRejected}[code]
		if !known {
			class = desk.ErrTransient
		}
		if m.has("misreads " + strconv.Itoa(code)) {
			class = map[bool]error{true: desk.ErrNotFound, false: desk.ErrTransient}[code == 500 || code == 502 || code == 409]
		}
		return fail(code, class, nil)
	}
}

// wrote notes a change. The caller holds mu, as do all that follow up to memSource.
func (m *mem) wrote(r *memRec, event desk.Event, into string) {
	r.Stamp = desk.Stamp{At: time.Now().UTC().Truncate(time.Second), Seq: int64(len(m.log) + 1)}
	m.log = append(m.log, memLine{r.Ref, r.Stamp, event, into, time.Now()})
}

func (m *mem) create(r desk.Record) *memRec {
	m.next++
	id := m.next
	if m.has("same ids") {
		id = id / 4 * 4
	}
	rec := &memRec{Record: desk.Record{Ref: desk.Ref{Kind: r.Ref.Kind, ID: strconv.Itoa(id)}, Fields: desk.Fields{}}, source: r.Ref, made: time.Now(), files: map[string][]byte{}}
	m.recs[rec.Ref] = rec
	m.set(rec, r.Fields)
	return rec
}

func (m *mem) set(rec *memRec, fs desk.Fields) {
	for f, v := range fs {
		switch {
		case m.has("ignores links") && f.Points() == desk.Ticket, m.has("ignores updates") && f == desk.Priority,
			m.has("ignores unset") && len(v) == 0, m.has("ignores names") && f == desk.Name:
			continue
		case f.IsSet():
			v = desk.Set(v...)
		}
		rec.Fields[f] = v
	}
}

func (m *mem) add(rec *memRec, es []desk.Entry) (map[string]string, error) {
	ids := map[string]string{}
	for _, e := range es {
		m.next++
		e.ID = "e" + strconv.Itoa(m.next)
		e.At = e.At.UTC()
		e.Body = desk.CanonicalBody(e.Body)
		switch {
		case m.has("entry times are now") && e.Marker != "":
			e.At = time.Now().UTC().Truncate(time.Second)
		case m.has("trims bodies"):
			e.Body = strings.TrimSpace(e.Body)
		case m.has("all public"):
			e.Public = true
		}
		var err error
		if e.Files, err = m.files(rec, e); err != nil {
			return ids, err
		}
		rec.Entries = append(rec.Entries, e)
		if m.has("markers on others") && strings.Contains(e.Body, "desktest:") {
			rec.Entries[len(rec.Entries)-1].Marker = "desktest:" + e.ID
		}
		if e.Marker != "" {
			ids[e.Marker] = e.ID
		}
	}
	return ids, nil
}

// files stores those of an entry that bring their content.
func (m *mem) files(rec *memRec, e desk.Entry) ([]desk.File, error) {
	var out []desk.File
	for _, f := range e.Files {
		if f.Open != nil {
			r, err := f.Open(context.Background())
			if err != nil {
				return nil, err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return nil, err
			}
			if m.has("cuts files") {
				b = b[:min(len(b), 1000)]
			}
			m.next++
			f.ID, f.Size, f.Open, f.SHA256 = e.ID+"-"+strconv.Itoa(m.next), int64(len(b)), nil, ""
			rec.files[f.ID] = b
		}
		out = append(out, f)
	}
	return out, nil
}

func (m *mem) get(ref desk.Ref) (*memRec, error) {
	rec := m.recs[ref]
	for rec != nil && rec.into != "" {
		rec = m.recs[desk.Ref{Kind: desk.Ticket, ID: rec.into}]
	}
	if rec == nil {
		return nil, desk.ErrNotFound
	}
	return rec, nil
}

func (m *mem) read(ref desk.Ref) (desk.Record, error) {
	rec, err := m.get(ref)
	if err != nil {
		if m.has("unknown is empty") {
			return desk.Record{Ref: ref}, nil
		}
		return desk.Record{}, err
	}
	r := rec.Record
	r.Fields, r.Entries, r.Aliases = maps.Clone(r.Fields), slices.Clone(r.Entries), slices.Clone(r.Aliases)
	r.Began, r.Event = time.Now().UTC(), desk.Changed
	r.Lock = strconv.FormatInt(r.Stamp.Seq, 10)
	switch m.flaw {
	case "forgets aliases":
		r.Aliases = nil
	case "empty strings":
		r.Fields[desk.Description] = desk.Value{""}
	case "began in the future":
		r.Began = r.Began.Add(time.Hour)
	case "random ids":
		for i := range r.Entries {
			r.Entries[i].ID = rand.Text()
		}
	case "reverses threads":
		slices.Reverse(r.Entries)
	}
	return r, nil
}

func (m *mem) merge(from, into desk.Ref) error {
	a, b := m.recs[from], m.recs[into]
	if a == nil || b == nil {
		return desk.ErrNotFound
	}
	b.Entries = slices.Concat(b.Entries, a.Entries)
	b.Aliases = desk.Set(append(b.Aliases, from.ID)...)
	a.into = into.ID
	if m.has("merge deletes") {
		delete(m.recs, from)
	}
	m.wrote(a, desk.Merged, into.ID)
	m.wrote(b, desk.Changed, "")
	return nil
}

func (m *mem) remove(ref desk.Ref, lock string) error {
	rec, err := m.get(ref)
	if err != nil {
		return err
	}
	follows := rec.Ref != ref && m.has("deletes what lives on")
	switch {
	case lock != "" && lock != strconv.FormatInt(rec.Stamp.Seq, 10) && !follows && !m.has("deletes what has moved"):
		return desk.ErrConflict
	case !m.has("deletes nothing"):
		delete(m.recs, rec.Ref)
	}
	if m.has("hides deletes") {
		return nil
	}
	m.wrote(rec, desk.Deleted, "")
	return nil
}

// memSeed works on the desk as people do.
type memSeed struct{ m *mem }

func (s memSeed) Create(_ context.Context, r desk.Record) (desk.Ref, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	r.Ref.ID = ""
	rec := s.m.create(r)
	_, err := s.m.add(rec, byPeople(r.Entries))
	s.m.wrote(rec, desk.Changed, "")
	return rec.Ref, err
}

func (s memSeed) Change(_ context.Context, ref desk.Ref, c desk.Change) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	rec, err := s.m.get(ref)
	if err != nil {
		return err
	}
	s.m.set(rec, c.Fields)
	if _, err := s.m.add(rec, byPeople(c.Entries)); err != nil {
		return err
	}
	if s.m.has("updates unseen") {
		return nil
	}
	s.m.wrote(rec, desk.Changed, "")
	return nil
}

func byPeople(es []desk.Entry) []desk.Entry {
	es = slices.Clone(es)
	for i := range es {
		es[i].At, es[i].Author = time.Now().UTC().Truncate(time.Second), desk.Author{Name: "Somebody"}
	}
	return es
}

func (s memSeed) Delete(_ context.Context, ref desk.Ref) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.m.remove(ref, "")
}

func (s memSeed) Merge(_ context.Context, from, into desk.Ref) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.m.merge(from, into)
}

// memSource is the desk as a source.
type memSource struct {
	memSide
	mine map[string]bool // cursors of pages that this value listed
}

type memCursor struct {
	Desk   string `json:"desk"`
	Seq    *int64 `json:"seq"`
	Offset int    `json:"offset,omitempty"`
	After  int64  `json:"after,omitempty"`
}

func (s *memSource) cursor(n int64) desk.Cursor {
	b, _ := json.Marshal(memCursor{Desk: s.desk, Seq: &n})
	return b
}

func (s *memSource) seq(c desk.Cursor) (memCursor, error) {
	if c == nil {
		return memCursor{Seq: new(int64)}, nil
	}
	var p memCursor
	d := json.NewDecoder(bytes.NewReader(c))
	d.DisallowUnknownFields()
	err := d.Decode(&p)
	if _, more := d.Token(); err == nil && !errors.Is(more, io.EOF) {
		err = errors.New("more follows")
	}
	if err == nil && (p.Seq == nil || *p.Seq < 0 || p.Offset < 0 || p.After < 0 || p.Desk != s.desk && !s.m.has("accepts foreign cursors")) {
		err = errors.New("not mine")
	}
	if err != nil && s.m.has("accepts damaged cursors") {
		return memCursor{Seq: new(int64)}, nil
	}
	if err != nil {
		return p, &desk.Error{Op: "changes", Class: desk.ErrCursor}
	}
	return p, nil
}

func (s *memSource) Mark(ctx context.Context) (c desk.Cursor, err error) {
	err = s.do(ctx, "GET", "mark", func() error {
		n := slices.IndexFunc(s.m.log, func(l memLine) bool { return time.Since(l.made) < s.m.lag })
		if n < 0 {
			n = len(s.m.log)
		}
		c = s.cursor(int64(n))
		return nil
	})
	return c, err
}

func (s *memSource) At(ctx context.Context, t time.Time) (c desk.Cursor, err error) {
	err = s.do(ctx, "GET", "at", func() error {
		n := slices.IndexFunc(s.m.log, func(l memLine) bool { return !l.stamp.At.Before(t) })
		if s.m.has("rewinds too little") {
			n = slices.IndexFunc(s.m.log, func(l memLine) bool { return l.stamp.At.After(t) })
		}
		if n < 0 {
			n = len(s.m.log)
		}
		c = s.cursor(int64(n))
		return nil
	})
	return c, err
}

func (s *memSource) Changes(ctx context.Context, k desk.Kind, _ desk.Scope, from, until desk.Cursor) (p desk.Page, err error) {
	a, err := s.seq(from)
	if err != nil {
		return p, err
	}
	z, err := s.seq(until)
	if err != nil {
		return p, err
	}
	if s.m.has("other kinds fail") && k != desk.Ticket && k != desk.Person {
		return p, &desk.Error{Op: "changes", Class: desk.ErrRejected}
	}
	if s.m.has("resume is lost") && s.m.pages[string(from)] && !s.mine[string(from)] {
		return desk.Page{Next: until, Done: true}, nil
	}
	err = s.do(ctx, "GET", "changes", func() error {
		p = s.page(k, a, z)
		if !p.Done {
			s.m.pages[string(p.Next)], s.mine[string(p.Next)] = true, true
		}
		return nil
	})
	return p, err
}

func (s *memSource) page(k desk.Kind, a, z memCursor) desk.Page {
	const size = 5
	m := s.m
	var ls []memLine
	for i := *a.Seq; i < *z.Seq && i < int64(len(m.log)); i++ {
		l := m.log[i]
		if l.ref.Kind != k || m.has("people unseen") && k == desk.Person || a.After > 0 && l.stamp.At.Unix() <= a.After {
			continue
		}
		if m.has("offset paging") && slices.ContainsFunc(m.log[i+1:], func(x memLine) bool { return x.ref == l.ref }) {
			continue // moved to the end of the list
		}
		l.stamp.Seq = i + 1
		ls = append(ls, l)
	}
	if m.has("offset paging") {
		ls = ls[min(a.Offset, len(ls)):]
	}
	p := desk.Page{Done: len(ls) <= size}
	if k == desk.Ticket && m.has("lists a ghost") {
		p.Items = append(p.Items, desk.Listed{Ref: desk.Ref{Kind: k, ID: "ghost"}, Stamp: desk.Stamp{At: time.Now().UTC()}})
	}
	if p.Done {
		p.Next = s.cursor(*z.Seq)
	} else {
		ls = ls[:size]
		p.Next = s.cursor(ls[size-1].stamp.Seq)
		if m.has("drops ties") {
			p.Next, _ = json.Marshal(memCursor{Desk: s.desk, Seq: a.Seq, After: ls[size-1].stamp.At.Unix()})
		}
		if m.has("offset paging") {
			p.Next, _ = json.Marshal(memCursor{Desk: s.desk, Seq: a.Seq, Offset: a.Offset + size})
		}
		p.Done = m.has("one page only")
	}
	for _, l := range ls {
		p.Items = append(p.Items, desk.Listed{Ref: l.ref, Stamp: l.stamp, Event: l.event, Into: l.into})
	}
	return p
}

func (s *memSource) Read(ctx context.Context, ref desk.Ref) (r desk.Record, err error) {
	err = s.do(ctx, "GET", "record", func() (err error) { r, err = s.m.read(ref); return err })
	for i := range r.Entries {
		r.Entries[i].Marker = ""
	}
	return r, err
}

func (s memSide) Check(ctx context.Context) error {
	if s.m.has("check fails") {
		return &desk.Error{Op: "check", Class: desk.ErrUnauthorized}
	}
	return s.do(ctx, "GET", "check", func() error {
		if s.m.has("check writes") {
			s.m.wrote(&memRec{}, desk.Changed, "")
		}
		return nil
	})
}

func (s memSide) Define(ctx context.Context) (desk.Definitions, error) {
	d := desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{}}
	err := s.do(ctx, "GET", "define", func() error { return nil })
	if !s.m.has("defines nothing") {
		for _, f := range []desk.Field{desk.Subject, desk.Requester, desk.Tags, desk.Priority, desk.LinkRefersTo} {
			d.Fields[desk.Ticket] = append(d.Fields[desk.Ticket], desk.FieldDef{Field: f, Write: desk.Always})
		}
	}
	return d, err
}

func (s memSide) OpenFile(ctx context.Context, ticket desk.Ref, f desk.File) (rc io.ReadCloser, err error) {
	err = s.do(ctx, "GET", "file", func() error {
		rec, err := s.m.get(ticket)
		if err != nil {
			return err
		}
		b, ok := rec.files[f.ID]
		if !ok {
			return desk.ErrNotFound
		}
		rc = io.NopCloser(bytes.NewReader(b))
		return nil
	})
	return rc, err
}

// memTarget is the desk as a target.
type memTarget struct{ memSide }

func (s *memTarget) Create(ctx context.Context, r desk.Record) (w desk.Written, err error) {
	err = s.do(ctx, "POST", "record", func() error {
		rec := s.m.create(r)
		w.Entries, err = s.m.add(rec, r.Entries)
		s.m.wrote(rec, desk.Changed, "")
		if s.m.has("mails") {
			s.m.mails++
		}
		w.ID = rec.Ref.ID
		return err
	})
	if err != nil {
		return desk.Written{}, err
	}
	return w, nil
}

func (s *memTarget) Read(ctx context.Context, ref desk.Ref) (r desk.Record, err error) {
	err = s.do(ctx, "GET", "record", func() (err error) { r, err = s.m.read(ref); return err })
	if s.m.has("forgets markers") {
		for i := range r.Entries {
			r.Entries[i].Marker = ""
		}
	}
	return r, err
}

func (s *memTarget) Apply(ctx context.Context, ref desk.Ref, c desk.Change) (w desk.Written, err error) {
	err = s.do(ctx, "PUT", "record", func() error {
		rec, err := s.m.get(ref)
		if err != nil {
			if s.m.has("gone is fine") {
				return nil
			}
			return err
		}
		if c.Lock != "" && c.Lock != strconv.FormatInt(rec.Stamp.Seq, 10) && !s.m.has("ignores locks") {
			return desk.ErrConflict
		}
		if s.m.has("makes equal") {
			rec.Fields = desk.Fields{}
		}
		s.m.set(rec, c.Fields)
		if s.m.has("applies more each time") {
			rec.Fields[desk.Tags] = append(rec.Fields[desk.Tags], strconv.Itoa(len(s.m.log)))
		}
		w.ID = rec.Ref.ID
		w.Entries, err = s.m.add(rec, c.Entries)
		s.m.wrote(rec, desk.Changed, "")
		return err
	})
	if err != nil {
		return desk.Written{}, err
	}
	return w, nil
}

func (s *memTarget) Find(ctx context.Context, src desk.Ref) (ids []string, err error) {
	err = s.do(ctx, "GET", "find", func() error {
		for ref, rec := range s.m.recs {
			if time.Since(rec.made) < s.m.lag {
				continue
			}
			if rec.source == src || s.m.has("finds too much") && strings.HasPrefix(rec.source.ID, src.ID) && src.ID != "" {
				ids = append(ids, ref.ID)
			}
		}
		return nil
	})
	return ids, err
}

func (s *memTarget) Match(ctx context.Context, r desk.Record) (ids []string, err error) {
	err = s.do(ctx, "GET", "match", func() error {
		for ref, rec := range s.m.recs {
			same := len(r.Fields[desk.Email]) > 0 && rec.Fields[desk.Email].Equal(r.Fields[desk.Email])
			if ref.Kind == r.Ref.Kind && (same || s.m.has("matches everybody")) {
				ids = append(ids, ref.ID)
			}
		}
		return nil
	})
	return ids, err
}

func (s *memTarget) Delete(ctx context.Context, ref desk.Ref, lock string) error {
	return s.do(ctx, "DELETE", "record", func() error { return s.m.remove(ref, lock) })
}

func (s *memTarget) Merge(ctx context.Context, from, into desk.Ref, lock string) error {
	return s.do(ctx, "PUT", "merge", func() error {
		rec, err := s.m.get(from)
		if err == nil && lock != "" && lock != strconv.FormatInt(rec.Stamp.Seq, 10) && !s.m.has("merges what has moved") {
			err = desk.ErrConflict
		}
		if err != nil {
			return err
		}
		return s.m.merge(from, into)
	})
}

func (s *memTarget) Revise(ctx context.Context, ticket desk.Ref, e desk.Entry, lock string) error {
	return s.do(ctx, "PUT", "entry", func() error {
		rec, err := s.m.get(ticket)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(rec.Entries, func(x desk.Entry) bool { return x.ID == e.ID })
		if i < 0 {
			return desk.ErrNotFound
		}
		if lock != "" && lock != strconv.FormatInt(rec.Stamp.Seq, 10) && !s.m.has("revises what has moved") {
			return desk.ErrConflict
		}
		have := rec.Entries[i]
		have.Body, have.Public, have.Headers = e.Body, e.Public || s.m.has("stays public"), e.Headers
		if !s.m.has("keeps subjects") {
			have.Subject = e.Subject
		}
		if !s.m.has("keeps files") {
			before := have.Files
			if have.Files, err = s.m.files(rec, e); err != nil {
				return err
			}
			for _, f := range before {
				if !s.m.has("hides files") && !slices.ContainsFunc(have.Files, func(x desk.File) bool { return x.ID == f.ID }) {
					delete(rec.files, f.ID)
				}
			}
		}
		rec.Entries[i] = have
		s.m.wrote(rec, desk.Changed, "")
		return nil
	})
}

// recorder is a T that remembers.
type recorder struct {
	ctx      context.Context
	failures []string
	skipped  string
}

func (r *recorder) Helper()                  {}
func (r *recorder) Context() context.Context { return r.ctx }
func (r *recorder) Logf(string, ...any)      {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// try runs one rule and returns what it reported.
func try(ctx context.Context, o Options, name string) *recorder {
	rec := &recorder{ctx: ctx}
	rs := rules()
	i := slices.IndexFunc(rs, func(r rule) bool { return r.name == name })
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				rec.Errorf("panic: %v", p)
			}
		}()
		e := newEnv(o)
		if missing, lacks := rs[i].needs(e); missing+lacks != "" {
			rec.Skipf("%s%s", missing, lacks)
		}
		rs[i].run(rec, e)
	}()
	<-done
	return rec
}

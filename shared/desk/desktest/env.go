package desktest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// env is what the rules of one Run share.
type env struct {
	o    Options
	run  string // makes this run's records differ from those of earlier runs on the same desk
	n    atomic.Int64
	src  desk.Traits
	tgt  desk.Traits
	seed struct { // made when first asked for
		person *desk.Ref
		batch  *batch
		rich   *desk.Ref
	}
	targetPerson *desk.Record
}

func newEnv(o Options) *env {
	if o.PageSize == 0 {
		o.PageSize = 5
	}
	e := &env{o: o, run: strings.ToLower(rand.Text()[:8])}
	if e.hasSource() && o.Connector.SourceSide != nil {
		e.src = o.Connector.SourceSide(o.Source)
	}
	if e.hasTarget() && o.Connector.TargetSide != nil {
		e.tgt = o.Connector.TargetSide(o.Target)
	}
	return e
}

func (e *env) hasSource() bool { return e.o.Connector.NewSource != nil && e.o.Source != nil }
func (e *env) hasTarget() bool { return e.o.Connector.NewTarget != nil && e.o.Target != nil }

// name returns a word that no other record has.
func (e *env) name(what string) string { return fmt.Sprintf("%s-%s-%d", what, e.run, e.n.Add(1)) }

// source opens the source as a new process would.
func (e *env) source(t T) desk.Source { t.Helper(); return e.sourceOf(t, e.o.Source, nil) }

func (e *env) sourceOf(t T, c desk.Config, wrap transport) desk.Source {
	t.Helper()
	s, err := e.o.Connector.NewSource(c, e.deps(wrap))
	if err != nil {
		t.Fatalf("opening the source: %v", e.clean(t, err))
	}
	return s
}

// target opens the target as a new process would.
func (e *env) target(t T) desk.Target { t.Helper(); return e.targetOver(t, nil) }

func (e *env) targetOver(t T, wrap transport) desk.Target {
	t.Helper()
	s, err := e.o.Connector.NewTarget(e.o.Target, e.deps(wrap))
	if err != nil {
		t.Fatalf("opening the target: %v", e.clean(t, err))
	}
	return s
}

// clean returns err after making sure that it betrays no secret.
func (e *env) clean(t T, err error) error {
	t.Helper()
	if err == nil {
		return nil
	}
	for i, s := range e.o.Secrets {
		if s != "" && strings.Contains(err.Error(), s) {
			t.Fatalf("Options.Secrets[%d] occurs in the text of an error", i)
		}
	}
	return err
}

// must ends the rule on an error.
func (e *env) must(t T, what string, err error) {
	t.Helper()
	if e.clean(t, err) != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// wants reports an error that is not of one of the classes.
func (e *env) wants(t T, what string, err error, classes ...error) {
	t.Helper()
	_ = e.clean(t, err)
	if !slices.Contains(classes, desk.Class(err)) {
		t.Errorf("%s: got %v (class %v), want class %v", what, err, desk.Class(err), classes)
	}
}

// eventually calls done until it says yes, at least once, and no longer than the lag that the desk's traits admit.
func eventually(ctx context.Context, lag time.Duration, done func() bool) bool {
	if ok := done(); ok || lag <= 0 {
		return ok
	}
	end := time.NewTimer(lag)
	defer end.Stop()
	tick := time.NewTicker(max(lag/50, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return done()
		case <-end.C:
			return done()
		case <-tick.C:
			if done() {
				return true
			}
		}
	}
}

// list lists an interval to its end and returns the pages.
func (e *env) list(t T, s desk.Source, k desk.Kind, from, until desk.Cursor) []desk.Page {
	t.Helper()
	var pages []desk.Page
	for len(pages) < 10_000 {
		p, err := s.Changes(t.Context(), k, desk.Scope{}, stored(t, from), stored(t, until))
		e.must(t, fmt.Sprintf("page %d of the %s changes", len(pages)+1, k), err)
		pages = append(pages, p)
		for _, it := range p.Items {
			if it.Ref.Kind != k || it.Ref.ID == "" {
				t.Fatalf("a listing of kind %s holds %s", k, it.Ref)
			}
			if it.Stamp.At.IsZero() || it.Stamp.At.Location() != time.UTC {
				t.Errorf("%s is listed without a stamp in UTC", it.Ref)
			}
		}
		if p.Done {
			return pages
		}
		if len(p.Next) == 0 || bytes.Equal(p.Next, from) {
			t.Fatalf("the cursor does not move on after page %d, and it is not the last one", len(pages))
		}
		from = p.Next
	}
	t.Fatalf("a listing does not end: %d pages", len(pages))
	return nil
}

// stored returns the cursor as it comes back from a store.
func stored(t T, c desk.Cursor) desk.Cursor {
	t.Helper()
	if c == nil {
		return nil
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatalf("a cursor is not JSON: %v", err)
	}
	return b
}

func (e *env) mark(t T, s desk.Source) desk.Cursor {
	t.Helper()
	c, err := s.Mark(t.Context())
	e.must(t, "mark", err)
	if len(c) == 0 {
		t.Fatalf("the mark is empty, which would mean the beginning of time")
	}
	return c
}

// follow lists from a mark to the next one, again and again as delta runs do, until enough tells that the items suffice or
// the desk's lag is over. It returns what was listed and the last mark.
func (e *env) follow(t T, s desk.Source, k desk.Kind, from desk.Cursor, enough func([]desk.Listed) bool) ([]desk.Listed, desk.Cursor) {
	t.Helper()
	var got []desk.Listed
	eventually(t.Context(), e.src.ListLag, func() bool {
		until := e.mark(t, s)
		for _, p := range e.list(t, s, k, from, until) {
			got = append(got, p.Items...)
		}
		from = until
		return enough(got)
	})
	return got, from
}

// holding tells whether all of refs are listed.
func holding(refs ...desk.Ref) func([]desk.Listed) bool {
	return func(items []desk.Listed) bool { return len(lacking(items, refs)) == 0 }
}

func lacking(items []desk.Listed, refs []desk.Ref) []desk.Ref {
	var out []desk.Ref
	for _, r := range refs {
		if !slices.ContainsFunc(items, func(l desk.Listed) bool { return l.Ref == r }) {
			out = append(out, r)
		}
	}
	return out
}

// person returns a person of the source desk.
func (e *env) person(t T) desk.Ref {
	t.Helper()
	if e.seed.person == nil {
		n := e.name("person")
		ref, err := e.o.Seed.Create(t.Context(), desk.Record{
			Ref:    desk.Ref{Kind: desk.Person},
			Fields: desk.Fields{desk.Name: {"Zoë " + n}, desk.Email: {n + "@desktest.example"}},
		})
		e.must(t, "seeding a person", err)
		e.seed.person = &ref
	}
	return *e.seed.person
}

// ticket makes a ticket on the source desk.
func (e *env) ticket(t T, entries ...desk.Entry) desk.Ref {
	t.Helper()
	ref, err := e.o.Seed.Create(t.Context(), desk.Record{
		Ref:     desk.Ref{Kind: desk.Ticket},
		Fields:  desk.Fields{desk.Subject: {e.name("subject")}, desk.Requester: {e.person(t).ID}},
		Entries: entries,
	})
	e.must(t, "seeding a ticket", err)
	if ref.Kind != desk.Ticket || ref.ID == "" {
		t.Fatalf("the seed answered with %s for a ticket", ref)
	}
	return ref
}

// touch changes a ticket on the source desk.
func (e *env) touch(t T, ref desk.Ref) {
	t.Helper()
	e.must(t, "changing "+ref.String(), e.o.Seed.Change(t.Context(), ref, desk.Change{Fields: desk.Fields{desk.Subject: {e.name("changed")}}}))
}

// batch is a number of tickets, more than two pages, made quickly one after the other between two marks.
type batch struct {
	refs         []desk.Ref
	before, then desk.Cursor // before the first one, after all can be listed
}

func (e *env) tickets(t T) *batch {
	t.Helper()
	if e.seed.batch == nil {
		e.seed.batch = e.newBatch(t)
	}
	return e.seed.batch
}

func (e *env) newBatch(t T) *batch {
	t.Helper()
	e.person(t)
	s := e.source(t)
	b := &batch{before: e.mark(t, s)}
	for range 2*e.o.PageSize + 1 {
		b.refs = append(b.refs, e.ticket(t))
	}
	// The mark must lie behind all of them also where the desk lags.
	eventually(t.Context(), e.src.ListLag, func() bool {
		b.then = e.mark(t, s)
		return holding(b.refs...)(items(e.list(t, s, desk.Ticket, b.before, b.then)))
	})
	return b
}

func items(pages []desk.Page) []desk.Listed {
	var out []desk.Listed
	for _, p := range pages {
		out = append(out, p.Items...)
	}
	return out
}

// content is a file's bytes, made from a seed so that they need not be kept.
type content struct {
	seed byte
	size int64
}

func (c content) open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(io.LimitReader(&noise{x: uint32(c.seed) + 1}, c.size)), nil
}

func (c content) sha() string {
	h := sha256.New()
	r, _ := c.open(context.Background())
	_, _ = io.Copy(h, r) // neither can fail
	return hex.EncodeToString(h.Sum(nil))
}

// noise is an endless stream of all byte values.
type noise struct{ x uint32 }

func (n *noise) Read(p []byte) (int, error) {
	for i := range p {
		n.x = n.x*1664525 + 1013904223
		p[i] = byte(n.x >> 24)
	}
	return len(p), nil
}

// hashFile reads a file through the desk.
func hashFile(ctx context.Context, o desk.Opener, ticket desk.Ref, f desk.File) (sha string, size int64, err error) {
	r, err := o.OpenFile(ctx, ticket, f)
	if err != nil {
		return "", 0, err
	}
	defer r.Close()
	h := sha256.New()
	size, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

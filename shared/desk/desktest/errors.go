package desktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// fault is one way in which a desk, or the way to it, answers every request.
type fault struct {
	name   string
	answer func(r *http.Request) (*http.Response, error)
	// classes that the calls may fail with. A nil list means any class but success.
	read, list, write, create []error
	wait                      time.Duration // that ErrThrottled must carry, at least nine tenths of it
}

// errorRules: with the desk answering like this, every call fails with the right class, tells no secret, and Create does not
// send a request twice.
func errorRules() []rule {
	transient := []error{desk.ErrTransient}
	throttled := []error{desk.ErrThrottled}
	refused := []error{desk.ErrUnauthorized, desk.ErrRejected}
	same := func(name string, classes []error, answer func(*http.Request) (*http.Response, error)) fault {
		return fault{name: name, answer: answer, read: classes, list: classes, write: classes, create: classes}
	}
	notFound := same("errors/404", nil, reply{404, nil}.answer)
	notFound.read, notFound.write = []error{desk.ErrNotFound}, []error{desk.ErrNotFound}
	conflict := same("errors/409", nil, reply{409, nil}.answer)
	conflict.write = []error{desk.ErrConflict, desk.ErrRejected}
	conflict.create = conflict.write
	seconds := same("errors/429-seconds", throttled, reply{429, func() string { return "3600" }}.answer)
	date := same("errors/429-date", throttled, reply{429, func() string { return time.Now().Add(time.Hour).UTC().Format(http.TimeFormat) }}.answer)
	seconds.wait, date.wait = time.Hour, time.Hour
	faults := []fault{
		same("errors/401", []error{desk.ErrUnauthorized}, reply{401, nil}.answer),
		same("errors/403", refused, reply{403, nil}.answer),
		notFound, conflict, seconds, date,
		same("errors/500", transient, reply{500, nil}.answer),
		same("errors/502", transient, reply{502, nil}.answer),
		same("errors/html", transient, func(r *http.Request) (*http.Response, error) {
			return response(r, 200, "text/html", "<html><body>Please log in "+echo(r)+"</body></html>"), nil
		}),
		same("errors/cut", transient, func(r *http.Request) (*http.Response, error) {
			resp := response(r, 200, "application/json", "")
			resp.ContentLength = 100
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"id":1,"items":[{"i`), failing{io.ErrUnexpectedEOF}))
			return resp, nil
		}),
		same("errors/timeout", transient, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}),
	}
	rs := []rule{{"errors/client", needHTTP, errorsClient}}
	for _, f := range faults {
		rs = append(rs, rule{f.name, needHTTP, func(t T, e *env) { e.suffer(t, f) }})
	}
	return rs
}

func needHTTP(e *env) (missing, lacks string) {
	if e.o.NoHTTP {
		return "", "no HTTP"
	}
	if e.hasSource() && e.o.Seed == nil {
		return "Seed", ""
	}
	return "", ""
}

// errorsClient: requests go through the client that the connector is given.
func errorsClient(t T, e *env) {
	for side, call := range map[string]func(wrap transport) error{
		"source": func(wrap transport) error {
			if !e.hasSource() {
				return errNoSide
			}
			_, err := e.sourceOf(t, e.o.Source, wrap).Read(t.Context(), e.ticket(t))
			return err
		},
		"target": func(wrap transport) error {
			if !e.hasTarget() {
				return errNoSide
			}
			tg := e.targetOver(t, wrap)
			_, err := tg.Create(t.Context(), e.record(t, tg))
			return err
		},
	} {
		sent := make(chan struct{}, 1)
		err := call(func(base http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				select {
				case sent <- struct{}{}:
				default:
				}
				return base.RoundTrip(r)
			})
		})
		if errors.Is(err, errNoSide) {
			continue
		}
		e.must(t, "a call on the "+side+" side", err)
		select {
		case <-sent:
		default:
			t.Errorf("the %s sends its requests past Deps.HTTP; a connector that sends none sets Options.NoHTTP", side)
		}
	}
}

var errNoSide = errors.New("no such side")

// suffer lets each call meet the fault, after the connector has had a healthy desk to warm up with.
func (e *env) suffer(t T, f fault) {
	var mu sync.Mutex
	on, posts := false, map[string]int{}
	wrap := func(base http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			faulty := on
			if faulty && r.Method == http.MethodPost {
				posts[r.URL.String()+"\x00"+string(body(r))]++
			}
			mu.Unlock()
			if !faulty {
				return base.RoundTrip(r)
			}
			if r.Body != nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
			}
			return f.answer(e.withSecrets(r))
		})
	}
	fail := func(what string, classes []error, call func(ctx context.Context) error) {
		t.Helper()
		limit := time.Minute
		if strings.HasSuffix(f.name, "timeout") {
			limit = 200 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		mu.Lock()
		on = true
		mu.Unlock()
		err := call(ctx)
		mu.Lock()
		on = false
		mu.Unlock()
		switch {
		case err == nil:
			t.Errorf("%s: no error", what)
		case classes == nil:
			_ = e.clean(t, err)
		default:
			e.wants(t, what, err, classes...)
		}
		if f.wait > 0 {
			var de *desk.Error
			if !errors.As(err, &de) || de.RetryAfter < f.wait*9/10 || de.RetryAfter > f.wait*11/10 {
				t.Errorf("%s: the error does not say to wait for %v, as the desk asked", what, f.wait)
			}
		}
	}
	if e.hasSource() {
		b := e.tickets(t)
		s := e.sourceOf(t, e.o.Source, wrap)
		_, err := s.Read(t.Context(), b.refs[0])
		e.must(t, "reading while the desk is well", err)
		fail("source read", f.read, func(ctx context.Context) error { _, err := s.Read(ctx, b.refs[0]); return err })
		// A fresh source for each call: one that was told to wait may remember it.
		s = e.sourceOf(t, e.o.Source, wrap)
		_, err = s.Changes(t.Context(), desk.Ticket, desk.Scope{}, b.before, b.then)
		e.must(t, "listing while the desk is well", err)
		fail("source changes", f.list, func(ctx context.Context) error {
			_, err := s.Changes(ctx, desk.Ticket, desk.Scope{}, b.before, b.then)
			return err
		})
	}
	if !e.hasTarget() {
		return
	}
	tg := e.target(t)
	p := e.put(t, tg, e.record(t, tg, desk.Entry{Public: true, Body: "meets a fault"}))
	fresh := func() desk.Target {
		tg := e.targetOver(t, wrap)
		_, err := tg.Read(t.Context(), p.now.Ref)
		e.must(t, "reading while the desk is well", err)
		return tg
	}
	tg = fresh()
	fail("target read", f.read, func(ctx context.Context) error { _, err := tg.Read(ctx, p.now.Ref); return err })
	tg = fresh()
	fail("target apply", f.write, func(ctx context.Context) error {
		_, err := tg.Apply(ctx, p.now.Ref, desk.Change{Fields: desk.Fields{desk.Subject: {e.name("faulty")}}})
		return err
	})
	tg = fresh()
	r := e.record(t, tg, desk.Entry{Public: true, Body: "meets a fault"})
	mu.Lock()
	clear(posts)
	mu.Unlock()
	fail("target create", f.create, func(ctx context.Context) error {
		w, err := tg.Create(ctx, r)
		if w.ID != "" {
			t.Errorf("target create: says that it made %q on a desk that answered nothing", w.ID)
		}
		return err
	})
	for _, n := range posts {
		if n > 1 {
			t.Errorf("target create: the same POST was sent %d times", n)
		}
	}
}

// withSecrets marks a request with what answers are to echo.
func (e *env) withSecrets(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), echoKey{}, strings.Join(e.o.Secrets, " ")))
}

type echoKey struct{}

// echo is what a careless server writes into its error page: the credentials it was sent.
func echo(r *http.Request) string {
	s, _ := r.Context().Value(echoKey{}).(string)
	return s + " " + r.Header.Get("Authorization") + " " + r.URL.RawQuery
}

// reply is an answer with an error's status and, where retryAfter is set, the desk's wish to be left alone for a while.
type reply struct {
	code       int
	retryAfter func() string
}

func (a reply) answer(r *http.Request) (*http.Response, error) {
	resp := response(r, a.code, "application/json", fmt.Sprintf(`{"message":%q}`, "no: "+echo(r)))
	if a.retryAfter != nil {
		resp.Header.Set("Retry-After", a.retryAfter())
	}
	return resp, nil
}

func response(r *http.Request, code int, kind, body string) *http.Response {
	return &http.Response{
		StatusCode: code, Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {kind}}, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

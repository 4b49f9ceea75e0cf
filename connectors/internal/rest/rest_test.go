package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// trip is a transport made of a function, so that tests with a clock of their own need no network.
type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func reply(r *http.Request, status int, kind, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Request: r,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
}

func client(t *testing.T, f trip, edit ...func(*Options)) *Client {
	t.Helper()
	o := Options{Base: parse(t, "https://desk.example/base"), HTTP: &http.Client{Transport: f}}
	for _, e := range edit {
		e(&o)
	}
	return New(o)
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestClasses(t *testing.T) {
	cut := func(r *http.Request) (*http.Response, error) {
		res := reply(r, 200, "application/json", `{"a":`)
		res.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"a":`), &failing{}))
		return res, nil
	}
	status := func(n int, kind, body string) trip {
		return func(r *http.Request) (*http.Response, error) { return reply(r, n, kind, body), nil }
	}
	for name, c := range map[string]struct {
		f    trip
		want error
	}{
		"401":          {status(401, "text/plain", ""), desk.ErrUnauthorized},
		"403":          {status(403, "text/plain", ""), desk.ErrUnauthorized},
		"404":          {status(404, "text/plain", ""), desk.ErrNotFound},
		"409":          {status(409, "text/plain", ""), desk.ErrConflict},
		"412":          {status(412, "text/plain", ""), desk.ErrConflict},
		"400":          {status(400, "text/plain", ""), desk.ErrRejected},
		"422":          {status(422, "text/plain", ""), desk.ErrRejected},
		"429":          {status(429, "text/plain", ""), desk.ErrThrottled},
		"500":          {status(500, "text/html", "<p>secret words</p>"), desk.ErrTransient},
		"302":          {status(302, "text/plain", ""), desk.ErrTransient},
		"HTML":         {status(200, "text/html", "<p>secret words</p>"), desk.ErrTransient},
		"no JSON":      {status(200, "application/json", `{"secret words`), desk.ErrTransient},
		"wrong JSON":   {status(200, "application/json", `{"a":"secret words"}`), desk.ErrTransient},
		"cut":          {cut, desk.ErrTransient},
		"too large":    {status(200, "application/json", `"`+strings.Repeat("x", 2000)+`"`), desk.ErrRejected},
		"no way":       {func(*http.Request) (*http.Response, error) { return nil, errors.New("broken") }, desk.ErrTransient},
		"other server": {func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("x: %w", ErrForbiddenAddress) }, desk.ErrRejected},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := client(t, c.f, func(o *Options) { o.MaxAnswer = 1000 })
				var out struct{ A int }
				_, err := cl.JSON(t.Context(), Request{Method: "GET", Path: "/x", Query: url.Values{"q": {"hidden"}}}, &out)
				if !errors.Is(desk.Class(err), c.want) {
					t.Errorf("got %v", err)
				}
				if s := err.Error(); strings.Contains(s, "hidden") || strings.Contains(s, "secret words") || strings.Contains(s, "desk.example") {
					t.Errorf("betrays too much: %s", s)
				}
			})
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// What is said of an answer of the wrong form is its place and what should have been there, whichever version of encoding/json reads it:
// names of members are the desk's words as well as values are.
func TestAnswerOfAnotherForm(t *testing.T) {
	for body, says := range map[string]string{
		`{"B":{"planted words":"x"}}`: "no []int at byte ", `{"A":"planted words"}`: "no int at byte ", `{"B":{"planted words":{"planted words":1}}}`: "no []int at byte ",
		`{"A":99999999999999999999}`: "no int at byte ", `{"planted words`: "syntax error at byte ",
	} {
		var out struct {
			A int
			B map[string][]int
		}
		c := client(t, func(r *http.Request) (*http.Response, error) { return reply(r, 200, "application/json", body), nil })
		_, err := c.JSON(t.Context(), Request{Method: http.MethodPost, Path: "/x"}, &out)
		if err == nil || !strings.Contains(err.Error(), "JSON that cannot be read: "+says) || strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), "999") {
			t.Errorf("%s: %v, want the words %q", body, err, says)
		}
	}
}

func TestRetries(t *testing.T) {
	for method, want := range map[string]int{"GET": 3, "HEAD": 3, "PUT": 3, "DELETE": 3, "POST": 1, "PATCH": 1} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				cl := client(t, func(r *http.Request) (*http.Response, error) {
					n++
					if r.Body != nil {
						if b, _ := io.ReadAll(r.Body); string(b) != `"x"` {
							t.Errorf("attempt %d sent %q", n, b)
						}
					}
					return reply(r, 503, "text/plain", ""), nil
				})
				start := time.Now()
				_, _, _, err := cl.Text(t.Context(), Request{Method: method, Path: "/x", Body: JSON("x")})
				if !errors.Is(desk.Class(err), desk.ErrTransient) || n != want {
					t.Errorf("%d requests, %v", n, err)
				}
				if d := time.Since(start); d > 3*time.Second || (want > 1) != (d > time.Second) {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

func TestWaitsObeyTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		cl := client(t, func(r *http.Request) (*http.Response, error) { return reply(r, 500, "", ""), nil })
		start := time.Now()
		if _, err := cl.Get(ctx, "/x", nil, nil); err == nil || time.Since(start) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		cl := client(t, func(r *http.Request) (*http.Response, error) {
			n++
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, func(o *Options) { o.Timeout = time.Second })
		_, err := cl.JSON(t.Context(), Request{Method: "POST", Path: "/x"}, nil)
		if !errors.Is(desk.Class(err), desk.ErrTransient) || n != 1 {
			t.Errorf("%d requests, %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := cl.Get(ctx, "/x", nil, nil); !errors.Is(err, context.Canceled) || n != 1 {
			t.Errorf("a call with a context that is over: %d requests, %v", n, err)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "30": 30 * time.Second, "1.5": 1500 * time.Millisecond, "-1": 0, "x": 0, "99999999999": maxRetryAfter,
		"Thu, 01 Jan 2026 00:01:00 GMT": time.Minute, "Wed, 31 Dec 2025 00:00:00 GMT": 0, "NaN": 0,
	} {
		if got := RetryAfter(in, now); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
	cl := client(t, func(r *http.Request) (*http.Response, error) {
		res := reply(r, 429, "", "")
		res.Header.Set("Retry-After", "7")
		return res, nil
	})
	_, err := cl.Get(t.Context(), "/x", nil, nil)
	var e *desk.Error
	if !errors.As(err, &e) || e.RetryAfter != 7*time.Second {
		t.Errorf("%v", err)
	}
}

func TestSessionIsRenewedOnce(t *testing.T) {
	for name, c := range map[string]struct{ good, want int }{"new session": {1, 2}, "revoked": {9, 2}} {
		t.Run(name, func(t *testing.T) {
			session, sent := 0, 0
			cl := client(t, func(r *http.Request) (*http.Response, error) {
				sent++
				if b, _ := io.ReadAll(r.Body); string(b) != `"x"` {
					t.Errorf("sent %q", b)
				}
				if r.Header.Get("Cookie") == fmt.Sprint("s=", c.good) {
					return reply(r, 200, "application/json", "1"), nil
				}
				return reply(r, 401, "", ""), nil
			}, func(o *Options) {
				o.Auth = func(_ context.Context, r *http.Request) error {
					r.Header.Set("Cookie", fmt.Sprint("s=", session))
					return nil
				}
				o.Renew = func() { session++ }
			})
			_, err := cl.JSON(t.Context(), Request{Method: "POST", Path: "/x", Body: JSON("x")}, nil)
			if sent != c.want || (err == nil) != (c.good == 1) || err != nil && !errors.Is(desk.Class(err), desk.ErrUnauthorized) {
				t.Errorf("%d requests, %v", sent, err)
			}
		})
	}
}

func TestCredentialsStayAtHome(t *testing.T) {
	var got string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization") + r.Header.Get("Cookie") + r.Header.Get("X-Key")
		fmt.Fprint(w, "file")
	}))
	defer other.Close()
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/file", http.StatusFound)
	}))
	defer own.Close()
	cl := New(Options{Base: parse(t, own.URL), HTTP: own.Client(), Auth: func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "secret")
		r.Header.Set("Cookie", "secret")
		return nil
	}})
	b, _, _, err := cl.Text(t.Context(), Request{Method: "GET", Path: "/x", Header: http.Header{"X-Key": {"secret"}}, Follow: true})
	if err != nil || string(b) != "file" || got != "" {
		t.Errorf("%q %v, the other host saw %q", b, err, got)
	}
	if _, _, status, err := cl.Text(t.Context(), Request{Method: "GET", Path: "/x", Accept: []int{302}}); err != nil || status != 302 {
		t.Errorf("a redirect was followed unasked: %d %v", status, err)
	}
}

func TestMultipart(t *testing.T) {
	var broken atomic.Bool // what arrives is not looked at
	names := []string{"ü😀.txt", `quote".txt`, "crlf\r\nX-Evil: 1.txt", "empty"}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 {
			t.Error("no length was announced")
		}
		_, p, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		mr := multipart.NewReader(r.Body, p["boundary"])
		for i := 0; ; i++ {
			part, err := mr.NextPart()
			if err == io.EOF {
				break
			}
			if broken.Load() {
				break
			}
			if err != nil {
				t.Error(err)
				break
			}
			b, _ := io.ReadAll(part)
			want := strings.Repeat("x", i*10)
			if i == len(names)-1 {
				want = ""
			}
			if string(b) != want || part.Header.Get("X-Evil") != "" {
				t.Errorf("part %d: %q %v", i, b, part.Header)
			}
		}
	}))
	defer srv.Close()
	var parts []Part
	for i, n := range names {
		size := i * 10
		if i == len(names)-1 {
			size = 0
		}
		parts = append(parts, Part{Name: "f", FileName: n, Type: "text/plain", Size: int64(size), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(strings.Repeat("x", size))), nil
		}})
	}
	cl := New(Options{Base: parse(t, srv.URL), HTTP: srv.Client()})
	if _, _, _, err := cl.Text(t.Context(), Request{Method: "POST", Path: "/", Body: Multipart(parts...)}); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	for _, size := range []int64{9, 11} {
		parts[1].Size = size
		_, _, _, err := cl.Text(t.Context(), Request{Method: "POST", Path: "/", Body: Multipart(parts...)})
		if !errors.Is(err, errSize) {
			t.Errorf("a file of another length: %v", err)
		}
	}
}

// Memory does not grow with a file's size, in neither direction.
func TestStreams(t *testing.T) {
	const size = 64 << 20
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.Method == "POST" && n < size {
			t.Errorf("got %d bytes", n)
		}
		if r.Method == "GET" {
			_, _ = io.CopyN(w, zeros{}, size)
		}
	}))
	defer srv.Close()
	cl := New(Options{Base: parse(t, srv.URL), HTTP: srv.Client()})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	body := Multipart(Part{Name: "f", FileName: "f", Size: size, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, size)), nil
	}})
	if _, _, _, err := cl.Text(t.Context(), Request{Method: "POST", Path: "/", Body: body, Stream: true}); err != nil {
		t.Fatal(err)
	}
	res, err := cl.Open(t.Context(), Request{Method: "GET", Path: "/"})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
		t.Errorf("%d %v", n, err)
	}
	_ = res.Body.Close()
	runtime.ReadMemStats(&after)
	if d := after.TotalAlloc - before.TotalAlloc; d > 8<<20 {
		t.Errorf("%d MiB were allocated", d>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestCounter(t *testing.T) {
	c := &Counter{Next: trip(func(r *http.Request) (*http.Response, error) { return reply(r, 200, "application/json", "{}"), nil })}
	cl := New(Options{Base: parse(t, "https://d.example"), HTTP: &http.Client{Transport: c}})
	for _, p := range []string{"/ticket/1", "/ticket/23", "/user/anna@x.example", "/ticket/1/correspond"} {
		if _, err := cl.Get(t.Context(), p, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int{"GET /ticket/N": 2, "GET /user/N": 1, "GET /ticket/N/correspond": 1}
	if d := cmp.Diff(want, c.Counts()); d != "" || c.Total() != 4 {
		t.Error(d)
	}
}

func TestGuard(t *testing.T) {
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer srv.Close()
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("an inside address was reached") }))
	defer inside.Close()
	for name, c := range map[string]struct {
		http, private bool
		url           string
		ok            bool
	}{
		"allowed":          {true, true, srv.URL, true},
		"no http":          {false, true, srv.URL, false},
		"no private":       {true, false, srv.URL, false},
		"another port":     {true, true, inside.URL, false},
		"another, https":   {true, true, strings.Replace(inside.URL, "http:", "https:", 1), false},
		"by name, private": {true, true, strings.Replace(strings.Replace(inside.URL, "http:", "https:", 1), "127.0.0.1", "localhost", 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			hc, err := NewHTTPClient(Connection{URL: parse(t, srv.URL), AllowHTTP: c.http, AllowPrivate: c.private}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer hc.CloseIdleConnections()
			req, _ := http.NewRequestWithContext(t.Context(), "GET", c.url, nil)
			res, err := hc.Do(req)
			if err == nil {
				res.Body.Close()
			}
			if (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrForbiddenAddress) {
				t.Errorf("%v", err)
			}
		})
	}
	if hits.Load() != 1 {
		t.Errorf("%d hits", hits.Load())
	}
}

func TestPublic(t *testing.T) {
	for s, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.1.1": false, "0.0.0.0": false, "::": false, "::1": false, "fe80::1": false, "fd00::1": false,
		"::ffff:10.0.0.1": false, "::ffff:8.8.8.8": true, "64:ff9b::a00:1": false, "2002:a00:1::": false, "224.0.0.1": false, "255.255.255.255": false,
	} {
		if got := Public(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: %t", s, got)
		}
	}
}

func TestConnectionOf(t *testing.T) {
	for name, c := range map[string]struct {
		cfg desk.Config
		err string
	}{
		"good":        {desk.Config{"url": "https://d.example/rt/"}, ""},
		"plain":       {desk.Config{"url": "http://d.example"}, "allow_http"},
		"plain, said": {desk.Config{"url": "http://d.example", "allow_http": "true"}, ""},
		"missing":     {desk.Config{}, "missing"},
		"user":        {desk.Config{"url": "https://u:p@d.example"}, "without user"},
		"flag":        {desk.Config{"url": "https://d.example", "allow_private": "yes"}, "true or false"},
		"bundle":      {desk.Config{"url": "https://d.example", "ca_bundle": "/nowhere"}, "ca_bundle"},
	} {
		_, err := ConnectionOf(c.cfg)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s betrays the password", name)
		}
	}
}

func TestConcatClosesWhatItOpened(t *testing.T) {
	closed := 0
	open := func() (io.ReadCloser, error) { return &closer{bytes.NewReader([]byte("ab")), &closed}, nil }
	r := Concat(open, open, open)
	if _, err := io.ReadFull(r, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil || closed != 2 {
		t.Errorf("%d closed, %v", closed, err)
	}
}

type closer struct {
	io.Reader
	n *int
}

func (c *closer) Close() error { *c.n++; return nil }

package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Options make a Client.
type Options struct {
	// Base is put before every path. Its scheme and host are the only ones that ever see a credential.
	Base *url.URL
	// HTTP carries the requests. Its CheckRedirect and Jar are not used.
	HTTP *http.Client
	// Auth adds credentials to a request to Base's host. It may itself use the client with Request.NoAuth.
	Auth func(context.Context, *http.Request) error
	// Renew is asked once per call after an answer that Expired names: it drops what Auth had stored.
	Renew func()
	// Expired tells whether an answer means that the session is over, and that nothing was done. Nil means status 401.
	Expired func(*http.Response) bool
	// Refine may correct class and wording of an error, given the first bytes of the answer. It must not put content in.
	Refine func(e *desk.Error, body []byte)
	// Timeout of one exchange with a small answer; StreamTimeout of an upload or download. Defaults: 1 and 15 minutes.
	Timeout, StreamTimeout time.Duration
	// MaxAnswer is the most bytes of an answer held in memory. Default 64 MiB.
	MaxAnswer int64
	// Retries is how often a request that may be repeated is repeated. Default 2; negative for never.
	Retries int
	// Now is the clock for Retry-After dates. Nil means time.Now.
	Now func() time.Time
}

// Client talks to one desk. It is safe for concurrent use.
type Client struct {
	o    Options
	http http.Client
}

// New returns a client. It panics on options without Base or HTTP: a mistake of the program, not of its input.
func New(o Options) *Client {
	if o.Base == nil || o.HTTP == nil {
		panic("rest: options without Base or HTTP")
	}
	def(&o.Timeout, time.Minute)
	def(&o.StreamTimeout, 15*time.Minute)
	def(&o.MaxAnswer, 64<<20)
	def(&o.Retries, 2)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Expired == nil {
		o.Expired = func(r *http.Response) bool { return r.StatusCode == http.StatusUnauthorized }
	}
	c := &Client{o: o, http: *o.HTTP}
	c.http.Jar = nil
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Request is one request. The zero Body sends none.
type Request struct {
	Method string
	Path   string // below Base; each variable segment escaped by the caller with url.PathEscape
	Query  url.Values
	Header http.Header
	Body   Body
	// Label is the endpoint as counters and errors name it; empty means Label(Method, Path).
	Label string
	// NoAuth leaves credentials out.
	NoAuth bool
	// Accept names statuses other than 2xx that are answers and no errors.
	Accept []int
	// Stream says that body or answer may be large: StreamTimeout instead of Timeout.
	Stream bool
	// Follow follows redirects of GET and HEAD, at most five, without credentials where they leave Base's host. Without it
	// a redirect is an answer like any other.
	Follow bool
}

// Body of a request. Open is called for each attempt; the reader is read once and closed.
type Body struct {
	Type   string
	Length int64 // -1 where it is not known
	Open   func(context.Context) (io.ReadCloser, error)
}

// JSON returns a body holding v. It panics if v cannot be written as JSON.
func JSON(v any) Body {
	b, err := json.Marshal(v)
	if err != nil {
		panic("rest: a request body that is not JSON: " + err.Error()) // connectors marshal their own types only
	}
	return Bytes("application/json", b)
}

// Form returns an application/x-www-form-urlencoded body.
func Form(v url.Values) Body {
	return Bytes("application/x-www-form-urlencoded", []byte(v.Encode()))
}

// Bytes returns a body of the given media type.
func Bytes(mediaType string, b []byte) Body {
	return Body{Type: mediaType, Length: int64(len(b)), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}
}

// Response is an answer with an accepted status. Body must be closed; it fails with ErrTransient where it is cut off.
type Response struct {
	Status int
	Header http.Header
	Body   io.ReadCloser
}

// Get decodes the JSON answer of a GET into out. See JSON.
func (c *Client) Get(ctx context.Context, path string, q url.Values, out any) (http.Header, error) {
	return c.JSON(ctx, Request{Method: http.MethodGet, Path: path, Query: q}, out)
}

// JSON sends r and decodes the answer into out unless out is nil. An answer that is no JSON, or not all of it, is
// ErrTransient: a proxy or an error page has spoken instead of the desk.
func (c *Client) JSON(ctx context.Context, r Request, out any) (http.Header, error) {
	var header http.Header
	err := c.do(ctx, r, func(res *Response, op string) error {
		header = res.Header
		b, err := c.all(res, op)
		if err != nil || out == nil {
			return err
		}
		mt, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
		if mt != "application/json" && !strings.HasSuffix(mt, "+json") {
			return &desk.Error{Op: op, Status: res.Status, Said: "an answer that is not JSON", Class: desk.ErrTransient}
		}
		if err := json.Unmarshal(b, out); err != nil {
			return &desk.Error{Op: op, Status: res.Status, Said: "JSON that cannot be read: " + jsonFault(err), Class: desk.ErrTransient}
		}
		return nil
	})
	return header, err
}

// jsonFault tells what is wrong with JSON without quoting it: neither values nor names of members, which may be the far side's as
// well. What an error of encoding/json says of itself differs between its versions; the place and our own type do not.
func jsonFault(err error) string {
	var se *json.SyntaxError
	var te *json.UnmarshalTypeError
	switch {
	case errors.As(err, &se):
		return fmt.Sprintf("syntax error at byte %d", se.Offset)
	case errors.As(err, &te) && te.Type != nil:
		return fmt.Sprintf("no %s at byte %d", te.Type, te.Offset)
	}
	return "unexpected form"
}

// Text sends r and returns the answer's bytes, at most MaxAnswer.
func (c *Client) Text(ctx context.Context, r Request) (body []byte, header http.Header, status int, err error) {
	err = c.do(ctx, r, func(res *Response, op string) error {
		header, status = res.Header, res.Status
		body, err = c.all(res, op)
		return err
	})
	return body, header, status, err
}

// Open sends r and returns the answer for the caller to stream and close. Closing ends the request.
func (c *Client) Open(ctx context.Context, r Request) (*Response, error) {
	r.Stream = true
	var out *Response
	err := c.do(ctx, r, func(res *Response, _ string) error { out = res; return nil })
	return out, err
}

func (c *Client) all(res *Response, op string) ([]byte, error) {
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, c.o.MaxAnswer+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > c.o.MaxAnswer {
		return nil, &desk.Error{Op: op, Status: res.Status, Said: fmt.Sprintf("an answer of more than %d bytes", c.o.MaxAnswer), Class: desk.ErrRejected}
	}
	return b, nil
}

// do runs r with the repetitions it may have. use gets the answer, and must close its body unless it passes it on.
func (c *Client) do(ctx context.Context, r Request, use func(res *Response, op string) error) error {
	if r.Label == "" {
		r.Label = Label(r.Method, r.Path)
	}
	renewed := false
	for attempt := 0; ; {
		res, err := c.once(ctx, r)
		if err == nil && !r.NoAuth && c.o.Renew != nil && c.o.Expired(res.raw) {
			if !renewed {
				// The desk refused before doing anything, so any method may be sent again, once.
				drain(res.Body)
				renewed = true
				c.o.Renew()
				continue
			}
			err = c.failure(r, res)
		}
		if err == nil && !accepted(r, res.Status) {
			err = c.failure(r, res)
		}
		if err == nil {
			err = use(&res.Response, r.Label)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !repeatable(r.Method) || attempt >= c.o.Retries || !errors.Is(desk.Class(err), desk.ErrTransient) {
			return err
		}
		if werr := Wait(ctx, backoff(attempt)); werr != nil {
			return err
		}
		attempt++
	}
}

func accepted(r Request, status int) bool {
	for _, s := range r.Accept {
		if s == status {
			return true
		}
	}
	return status >= 200 && status < 300
}

// repeatable: the methods whose repetition changes nothing more. A POST is never repeated.
func repeatable(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

func backoff(attempt int) time.Duration {
	d := 500 * time.Millisecond << attempt
	return d + rand.N(d/2) //nolint:gosec // jitter needs no secrecy
}

// Wait returns after d, or earlier with the context's error.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type answer struct {
	Response
	raw *http.Response
}

// once sends r a single time, following redirects where asked. Credentials go to Base's scheme and host only.
func (c *Client) once(ctx context.Context, r Request) (*answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, c.fault(ctx, r, err) // nothing is sent for somebody who has gone
	}
	limit := c.o.Timeout
	if r.Stream {
		limit = c.o.StreamTimeout
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(WithLabel(ctx, counted(ctx, r.Label)), limit)
	u := c.o.Base.JoinPath(r.Path)
	if len(r.Query) > 0 {
		u.RawQuery = r.Query.Encode()
	}
	for hop := 0; ; hop++ {
		req, err := c.build(ctx, r, u)
		if err != nil {
			cancel()
			return nil, c.fault(outer, r, err)
		}
		res, err := c.http.Do(req) //nolint:bodyclose // closed by drain, or with the answer that is returned
		if err != nil {
			cancel()
			return nil, c.fault(outer, r, err)
		}
		next := redirect(r, res)
		if next == nil || hop == 5 {
			body := &guarded{r: res.Body, cancel: cancel, fault: func(err error) error { return c.fault(outer, r, err) }}
			return &answer{Response{Status: res.StatusCode, Header: res.Header, Body: body}, res}, nil
		}
		drain(res.Body)
		u = next
	}
}

func redirect(r Request, res *http.Response) *url.URL {
	if !r.Follow || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil
	}
	switch res.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if u, err := res.Location(); err == nil {
			return u
		}
	}
	return nil
}

func (c *Client) build(ctx context.Context, r Request, u *url.URL) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), nil)
	if err != nil {
		return nil, errors.New("an address that cannot be requested")
	}
	own := u.Scheme == c.o.Base.Scheme && u.Host == c.o.Base.Host
	req.Header.Set("Accept", "application/json")
	if own {
		maps.Copy(req.Header, r.Header)
		if !r.NoAuth && c.o.Auth != nil {
			if err := c.o.Auth(ctx, req); err != nil {
				return nil, err
			}
		}
	}
	if r.Body.Open != nil {
		body, err := r.Body.Open(ctx)
		if err != nil {
			return nil, err
		}
		req.Body, req.ContentLength = body, r.Body.Length
		if r.Body.Length == 0 {
			body.Close()
			req.Body = http.NoBody
		}
		// Lets net/http take another connection where the server had closed this one before a byte was written.
		req.GetBody = func() (io.ReadCloser, error) { return r.Body.Open(ctx) }
		req.Header.Set("Content-Type", r.Body.Type)
	}
	return req, nil
}

// failure turns an answer that is no success into an error, and closes it.
func (c *Client) failure(r Request, res *answer) error {
	body, _ := io.ReadAll(io.LimitReader(res.Body, 16<<10))
	drain(res.Body)
	e := &desk.Error{Op: r.Label, Status: res.Status, Class: ClassOf(res.Status)}
	if errors.Is(e.Class, desk.ErrThrottled) {
		e.RetryAfter = RetryAfter(res.Header.Get("Retry-After"), c.o.Now())
	}
	if c.o.Refine != nil {
		c.o.Refine(e, body)
	}
	return e
}

// fault turns an error of the way into one that names neither address nor query. Errors that have a class keep it.
func (c *Client) fault(outer context.Context, r Request, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its text holds the whole address
	}
	var de *desk.Error
	if errors.As(err, &de) {
		return de
	}
	e := &desk.Error{Op: r.Label, Class: desk.ErrTransient, Err: brief{err}}
	switch {
	case outer.Err() != nil:
		e.Err = outer.Err()
	case errors.Is(err, context.DeadlineExceeded):
		e.Said, e.Err = "no complete answer in time", context.DeadlineExceeded
	case errors.Is(err, ErrForbiddenAddress):
		e.Class = desk.ErrRejected
	}
	return e
}

// brief is an error that leaves out what it quotes: net/http repeats what came over the wire where it should not have.
type brief struct{ error }

func (b brief) Error() string {
	before, _, _ := strings.Cut(b.error.Error(), `"`)
	return strings.TrimRight(before, " :(")
}

func (b brief) Unwrap() error { return b.error }

// guarded is an answer's body: its errors have a class, and closing it ends the request's context.
type guarded struct {
	r      io.ReadCloser
	cancel context.CancelFunc
	fault  func(error) error
	once   sync.Once
}

func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = g.fault(err)
	}
	return n, err
}

func (g *guarded) Close() error {
	err := g.r.Close()
	g.once.Do(g.cancel)
	return err
}

// drain reads a little more, so that the connection can be used again, and closes.
func drain(b io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, b, 64<<10)
	_ = b.Close()
}

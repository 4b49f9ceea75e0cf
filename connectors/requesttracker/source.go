package requesttracker

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// source reads with GET requests only, and one login.
type source struct{ *account }

// cursor is a place in the feed of transactions, which RT numbers across everything it keeps.
type cursor struct {
	Site string `json:"rt"`
	// ID is the newest transaction seen. Gaps are smaller numbers that were not there then: PostgreSQL hands numbers out
	// before it commits, so they may still come.
	ID   int64   `json:"txn"`
	Gaps []int64 `json:"gaps,omitempty"`
	// Seen is the largest id listed so far of a listing of everything.
	Seen int64 `json:"seen,omitempty"`
	All  bool  `json:"all,omitempty"`
}

func (c cursor) json() desk.Cursor {
	b, err := json.Marshal(c)
	if err != nil {
		panic("requesttracker: a cursor that is not JSON: " + err.Error())
	}
	return b
}

func (a *account) cursor(raw desk.Cursor) (cursor, error) {
	var c cursor
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || c.ID < 0 || c.Seen < 0 || !slices.IsSorted(c.Gaps) || c.Site != a.site {
		return c, &desk.Error{Op: "read a cursor", Class: desk.ErrCursor}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || len(c.Gaps) > maxGaps || slices.ContainsFunc(c.Gaps, func(g int64) bool { return g < 1 || g > c.ID }) {
		return c, &desk.Error{Op: "read a cursor", Class: desk.ErrCursor}
	}
	return c, nil
}

// A mark looks back over this many transactions for numbers that are missing, and further while they are younger than
// gapAge: a transaction of the database does not stay open longer.
const (
	gapAge   = 2 * time.Minute
	gapPages = 5
	maxGaps  = gapPages * perPage
	maxNamed = 100
)

// Mark is the newest transaction and the numbers missing shortly before it.
func (s *source) Mark(ctx context.Context) (desk.Cursor, error) {
	ctx = rest.WithPurpose(ctx, "mark")
	c := cursor{Site: s.site}
	var low int64
	for n := 1; n <= gapPages; n++ {
		q := url.Values{"query": {"id > 0"}, "orderby": {"id"}, "order": {"DESC"}, "per_page": {strconv.Itoa(perPage)}, "fields": {"Created"}}
		if low > 0 {
			q.Set("query", "id > 0 AND id < "+strconv.FormatInt(low, 10))
		}
		p, h, err := fetch[wireTxn](ctx, s.account, "/transactions", q)
		if err != nil {
			return nil, err
		}
		for _, x := range p.Items {
			id := int64(x.ID)
			if c.ID == 0 {
				c.ID = id
			} else if id >= low {
				return nil, senseless("GET /transactions", "transactions that are not in order, or there twice")
			}
			for g := low - 1; g > id && len(c.Gaps) < maxGaps; g-- {
				c.Gaps = append(c.Gaps, g)
			}
			low = id
		}
		if len(p.Items) < perPage || s.began(h).Sub(p.Items[len(p.Items)-1].Created.time()) > gapAge {
			break
		}
	}
	slices.Sort(c.Gaps)
	return c.json(), nil
}

// At returns the place before the first transaction at or after a time.
func (s *source) At(ctx context.Context, at time.Time) (desk.Cursor, error) {
	// "<" is exclusive and counts whole seconds, in the zone of the account's user; a day more does for any zone, and
	// listing again does no harm.
	before := at.UTC().Add(-24 * time.Hour).Format("2006-01-02 15:04:05")
	q := url.Values{"query": {"Created < " + quoteSQL(before)}, "orderby": {"id"}, "order": {"DESC"}, "per_page": {"1"}}
	p, _, err := fetch[wireTxn](ctx, s.account, "/transactions", q)
	if err != nil {
		return nil, err
	}
	c := cursor{Site: s.site}
	if len(p.Items) > 0 {
		c.ID = int64(p.Items[0].ID)
	}
	return c.json(), nil
}

// Changes lists everything by id from nil, and the transaction feed from a mark.
func (s *source) Changes(ctx context.Context, kind desk.Kind, _ desk.Scope, from, until desk.Cursor) (desk.Page, error) {
	ctx = rest.WithPurpose(ctx, "list "+string(kind))
	end, err := s.cursor(until)
	if err != nil {
		return desk.Page{}, err
	}
	if end.All {
		return desk.Page{}, &desk.Error{Op: "list", Said: "until is no mark", Class: desk.ErrCursor}
	}
	start := cursor{Site: s.site, All: true}
	if len(from) > 0 && string(from) != "null" {
		if start, err = s.cursor(from); err != nil {
			return desk.Page{}, err
		}
	}
	switch {
	case kind != desk.Ticket && kind != desk.Person:
		return desk.Page{Next: until, Done: true}, nil
	case start.All && kind == desk.Ticket:
		return s.allTickets(ctx, start, until)
	case start.All:
		return s.allPeople(ctx, start, until)
	case start.ID > end.ID:
		// A place later than now: another desk's, or one of before a restore, and what was lost in it cannot be told.
		return desk.Page{}, &desk.Error{Op: "list", Said: "the desk has gone back in time", Class: desk.ErrCursor}
	}
	return s.feed(ctx, kind, start, end, until)
}

func (s *source) allTickets(ctx context.Context, at cursor, until desk.Cursor) (desk.Page, error) {
	q := url.Values{
		"query":   {"id > " + strconv.FormatInt(at.Seen, 10) + " AND EffectiveId > 0"},
		"orderby": {"id"}, "per_page": {s.pageSize()}, "fields": {"Status,EffectiveId,LastUpdated"},
	}
	p, _, err := fetch[wireTicket](ctx, s.account, "/tickets", q)
	if err != nil {
		return desk.Page{}, err
	}
	seen := at.Seen
	out := desk.Page{Done: *p.Total <= s.opt.pageSize, Next: until}
	for _, t := range p.Items {
		l := desk.Listed{
			Ref: desk.Ref{Kind: desk.Ticket, ID: string(t.ID)}, Stamp: desk.Stamp{At: t.LastUpdated.time()}, Open: !closed(t.Status),
		}
		if into := string(t.EffectiveID); into != "" && into != "0" && into != string(t.ID) {
			l.Event, l.Into, l.Open = desk.Merged, into, false
		}
		out.Items = append(out.Items, l)
		n, _ := strconv.ParseInt(string(t.ID), 10, 64) // it is one: see known
		at.Seen = max(at.Seen, n)
	}
	return next("GET /tickets", out, at, at.Seen > seen)
}

func (s *source) pageSize() string { return strconv.Itoa(s.opt.pageSize) }

// next puts into a page where the next one begins. moved tells whether that is another place than this one's.
func next(op string, p desk.Page, at cursor, moved bool) (desk.Page, error) {
	if p.Done {
		return p, nil
	}
	if !moved {
		return desk.Page{}, senseless(op, "a list goes on and shows nothing more")
	}
	p.Next = at.json()
	return p, nil
}

func (s *source) allPeople(ctx context.Context, at cursor, until desk.Cursor) (desk.Page, error) {
	q := url.Values{
		"query":   {jsonQuery(where{Field: "id", Operator: ">", Value: at.Seen})},
		"orderby": {"id"}, "per_page": {s.pageSize()}, "fields": {"id,Name,LastUpdated"}, "find_disabled_rows": {"1"},
	}
	p, _, err := fetch[wireUser](ctx, s.account, "/users", q)
	if err != nil {
		return desk.Page{}, err
	}
	seen := at.Seen
	out := desk.Page{Done: *p.Total <= s.opt.pageSize, Next: until}
	for _, u := range p.Items {
		n, _ := strconv.ParseInt(string(u.ID), 10, 64) // it is one: see known
		at.Seen = max(at.Seen, n)
		if !systemUser(u) {
			out.Items = append(out.Items, desk.Listed{Ref: desk.Ref{Kind: desk.Person, ID: string(u.ID)}, Stamp: desk.Stamp{At: u.LastUpdated.time()}})
		}
	}
	return next("GET /users", out, at, at.Seen > seen)
}

func systemUser(u wireUser) bool { return u.Name == nobody || u.Name == "RT_System" }

// feed lists what transactions tell, one line per record and page. RT writes one for every change of a ticket and, since
// RT 5, of a user: also of users that a mail created.
func (s *source) feed(ctx context.Context, kind desk.Kind, at, end cursor, until desk.Cursor) (desk.Page, error) {
	if at.ID == end.ID && len(at.Gaps) == 0 {
		return desk.Page{Next: until, Done: true}, nil
	}
	object := "ObjectType = 'RT::Ticket' AND TicketType = 'ticket'"
	if kind == desk.Person {
		object = "ObjectType = 'RT::User'"
	}
	if len(at.Gaps) > maxNamed {
		// An address has room for so many; listing again what lies between does no harm.
		at.ID, at.Gaps = at.Gaps[0]-1, nil
	}
	var or strings.Builder
	for _, g := range at.Gaps {
		or.WriteString(" OR id = " + strconv.FormatInt(g, 10))
	}
	q := url.Values{
		"query":   {"(id > " + strconv.FormatInt(at.ID, 10) + or.String() + ") AND id <= " + strconv.FormatInt(end.ID, 10) + " AND " + object},
		"orderby": {"id"}, "per_page": {s.pageSize()}, "fields": {"Type,Field,NewValue,Created,ObjectId"},
	}
	p, _, err := fetch[wireTxn](ctx, s.account, "/transactions", q)
	if err != nil {
		return desk.Page{}, err
	}
	if slices.ContainsFunc(p.Items, func(x wireTxn) bool { return x.ObjectID == "" }) {
		return desk.Page{}, senseless("GET /transactions", "a transaction that does not say of what") // leaving it out could lose it
	}
	before := at
	out := desk.Page{Items: digest(kind, p.Items), Done: *p.Total <= s.opt.pageSize, Next: until}
	if n := len(p.Items); n > 0 {
		last := int64(p.Items[n-1].ID)
		at.Gaps = slices.DeleteFunc(slices.Clone(at.Gaps), func(g int64) bool { return g <= last })
		at.ID = max(at.ID, last)
	}
	return next("GET /transactions", out, at, at.ID > before.ID || len(at.Gaps) < len(before.Gaps))
}

// digest makes one line per record of a page of transactions, in the order of the newest.
func digest(kind desk.Kind, txns []wireTxn) []desk.Listed {
	at := map[string]desk.Listed{}
	for _, x := range txns {
		id := string(x.ObjectID)
		l := at[id]
		l.Ref = desk.Ref{Kind: kind, ID: id}
		l.Stamp = desk.Stamp{At: x.Created.time(), Seq: int64(x.ID)}
		switch {
		case kind == desk.Person:
			// RT tells no more of a user's transactions than that there was a change.
		case x.Type == "Status" || x.Type == "Set" && x.Field == "Status":
			if l.Event == desk.Deleted {
				l.Event = ""
			}
			if x.NewValue == "deleted" {
				l.Event = desk.Deleted
			}
		case x.Type == "AddLink" && x.Field == "MergedInto":
			if m := mergedInto.FindStringSubmatch(string(x.NewValue)); m != nil && m[1] != id && isID(m[1]) {
				l.Event, l.Into = desk.Merged, m[1]
			}
		}
		at[id] = l
	}
	out := make([]desk.Listed, 0, len(at))
	for _, l := range at {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b desk.Listed) int {
		if c := a.Stamp.At.Compare(b.Stamp.At); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(a.Stamp.Seq, b.Stamp.Seq), strings.Compare(a.Ref.ID, b.Ref.ID))
	})
	return out
}

// Read returns a person or a whole ticket.
func (s *source) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	switch ref.Kind {
	case desk.Ticket:
		t, began, err := s.thread(ctx, ref.ID, true)
		if err != nil {
			return desk.Record{}, err
		}
		return s.record(t, began), nil
	case desk.Person:
		return s.person(ctx, ref.ID)
	}
	return desk.Record{}, noKind(ref)
}

func noKind(ref desk.Ref) error {
	return &desk.Error{Op: "read " + ref.String(), Said: "RT has no such kind", Class: desk.ErrNotFound}
}

func (a *account) record(t thread, began time.Time, skip ...string) desk.Record {
	id := string(t.ticket.ID)
	r := desk.Record{
		Ref: desk.Ref{Kind: desk.Ticket, ID: id}, URL: a.ticketURL(id), Fields: t.ticket.fields(skip...), Entries: t.entries(),
		History: t.history(), Aliases: t.aliases(), Stamp: desk.Stamp{At: t.ticket.LastUpdated.time(), Seq: t.seq()},
		Lock: strconv.FormatInt(t.seq(), 10), Event: desk.Changed, Began: began,
	}
	if t.ticket.Status == "deleted" {
		r.Event = desk.Deleted
		for _, f := range []desk.Field{desk.Requester, desk.CC, desk.Followers, desk.Assignee} {
			delete(r.Fields, f) // not told: see single
		}
	}
	return r
}

func (a *account) person(ctx context.Context, id string, skip ...string) (desk.Record, error) {
	if !isID(id) {
		return desk.Record{}, &desk.Error{Op: "GET /user/N", Said: "a user's id is a number", Class: desk.ErrNotFound}
	}
	var u wireUser
	h, err := a.get(ctx, "/user/"+id, nil, &u)
	if err != nil {
		return desk.Record{}, err
	}
	if u.ID == "" {
		// RT shows a summary without id to accounts that may not administer users.
		return desk.Record{}, hidden("GET /user/N")
	}
	if string(u.ID) != id {
		return desk.Record{}, senseless("GET /user/N", "another user than was asked for")
	}
	if systemUser(u) {
		return desk.Record{}, &desk.Error{Op: "GET /user/N", Said: "one of RT's own users", Class: desk.ErrNotFound}
	}
	seq, _ := strconv.ParseInt(etagOf(h), 10, 64) // not a number for a user without transactions
	return desk.Record{
		Ref: desk.Ref{Kind: desk.Person, ID: id}, URL: a.opt.conn.URL.String() + "/User/Summary.html?id=" + id,
		Stamp: desk.Stamp{At: u.LastUpdated.time(), Seq: seq}, Fields: u.fields(skip...), Event: desk.Changed, Began: a.began(h),
	}, nil
}

// Check looks whether the account can see everything.
func (a *account) check(ctx context.Context) error {
	var v struct {
		Version string `json:"Version"`
	}
	if _, err := a.get(ctx, "/rt", nil, &v); err != nil {
		return err
	}
	if major, _, _ := strings.Cut(v.Version, "."); major != "5" {
		return &desk.Error{Op: "GET /rt", Said: "this is not Request Tracker 5", Class: desk.ErrRejected}
	}
	_, _, err := fetch[wireTxn](ctx, a, "/transactions", url.Values{"query": {"id > 0"}, "per_page": {"1"}})
	return err
}

// Check looks whether RT can be reached and the account sees everything.
func (s *source) Check(ctx context.Context) error { return s.check(ctx) }

// OpenFile streams a file: RT answers base64 inside JSON, which is decoded on the way. That the JSON is complete proves
// that the file is.
func (a *account) OpenFile(ctx context.Context, _ desk.Ref, f desk.File) (io.ReadCloser, error) {
	id, onlyHeaders := strings.CutPrefix(f.ID, headersOf)
	if !isID(id) {
		return nil, &desk.Error{Op: "GET /attachment/N", Said: "a file's id is a number", Class: desk.ErrNotFound}
	}
	if onlyHeaders {
		var w struct {
			Headers str `json:"Headers"`
		}
		_, err := a.get(ctx, "/attachment/"+id, nil, &w)
		return io.NopCloser(strings.NewReader(string(w.Headers))), err
	}
	res, err := a.rest.Open(ctx, rest.Request{Method: http.MethodGet, Path: apiRoot + "/attachment/" + f.ID, Label: "GET /attachment/N"})
	if errors.Is(desk.Class(err), desk.ErrTransient) {
		// RT answers 500 for a number that it never gave.
		var p page[wireAttachment]
		q := url.Values{"query": {jsonQuery(where{Field: "id", Value: f.ID})}}
		if _, lerr := a.get(ctx, "/attachments", q, &p); lerr == nil && p.Total != nil && *p.Total == 0 {
			err = &desk.Error{Op: "GET /attachment/N", Status: http.StatusInternalServerError, Class: desk.ErrNotFound}
		}
	}
	if err != nil {
		return nil, err
	}
	if mediaTypeOf(res.Header.Get("Content-Type")) != "application/json" {
		_ = res.Body.Close()
		return nil, broken("an answer that is not JSON")
	}
	return &fileReader{body: res.Body, in: bufio.NewReaderSize(res.Body, 64<<10), want: f.Size}, nil
}

func broken(said string) error {
	return &desk.Error{Op: "GET /attachment/N", Said: said, Class: desk.ErrTransient}
}

// fileReader finds the member Content in a JSON object and decodes its base64, without holding either in memory.
type fileReader struct {
	body io.ReadCloser
	in   *bufio.Reader
	dec  io.Reader
	want int64 // -1 where the size is not known
	got  int64
	err  error
}

func (f *fileReader) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	if f.dec == nil {
		found, err := seekMember(f.in, "Content")
		switch {
		case err != nil:
			f.err = classed(err)
			return 0, f.err
		case !found: // RT leaves an empty Content out
			f.dec = strings.NewReader("")
		default:
			f.dec = base64.NewDecoder(base64.StdEncoding, &jsonString{r: f.in})
		}
	}
	n, err := f.dec.Read(p)
	f.got += int64(n)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		if f.err = f.finish(); f.err == nil {
			f.err = io.EOF
			return n, io.EOF
		}
	default:
		f.err = err
	}
	f.err = classed(f.err)
	return n, f.err
}

// finish reads what follows the content: an answer that breaks off there is no answer.
func (f *fileReader) finish() error {
	var last byte
	for {
		c, err := f.in.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !bytes.ContainsRune([]byte(" \t\r\n"), rune(c)) {
			last = c
		}
	}
	if last != '}' && f.got > 0 {
		return io.ErrUnexpectedEOF
	}
	if f.want >= 0 && f.got < f.want {
		return broken("fewer bytes than RT declares")
	}
	return nil
}

func (f *fileReader) Close() error { return f.body.Close() }

func classed(err error) error {
	var e *desk.Error
	if errors.As(err, &e) {
		return err
	}
	return &desk.Error{Op: "GET /attachment/N", Said: "a cut or damaged answer", Class: desk.ErrTransient, Err: err}
}

// seekMember moves r behind the opening quote of the string value of a top-level member. It reports false at the end of an
// object that has no such member, or none that is a string.
func seekMember(r *bufio.Reader, name string) (bool, error) {
	depth, key := 0, ""
	expectKey := false
	for {
		c, err := r.ReadByte()
		if err == io.EOF {
			return false, io.ErrUnexpectedEOF
		}
		if err != nil {
			return false, err
		}
		switch c {
		case '{', '[':
			depth++
			expectKey = depth == 1
		case '}', ']':
			if depth--; depth == 0 {
				return false, nil
			}
		case ',':
			expectKey = depth == 1
		case '"':
			if depth == 1 && !expectKey && key == name {
				return true, nil
			}
			s := &jsonString{r: r}
			text, err := io.ReadAll(io.LimitReader(s, 1<<10))
			if err == nil {
				_, err = io.Copy(io.Discard, s)
			}
			if err != nil {
				return false, err
			}
			if depth == 1 && expectKey {
				key, expectKey = string(text), false
			}
		}
	}
}

// jsonString reads the characters of a JSON string up to its closing quote. Of escapes it knows those that occur in base64
// and keys; a \u escape comes out as a question mark, which no decoder takes for data.
type jsonString struct {
	r    *bufio.Reader
	done bool
}

func (s *jsonString) Read(p []byte) (int, error) {
	if s.done {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) {
		c, err := s.r.ReadByte()
		if err == io.EOF {
			return n, io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, err
		}
		switch c {
		case '"':
			s.done = true
			return n, io.EOF
		case '\\':
			e, err := s.r.ReadByte()
			if err != nil {
				return n, io.ErrUnexpectedEOF
			}
			switch e {
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case '/', '"', '\\':
				c = e
			case 'u':
				if _, err := s.r.Discard(4); err != nil {
					return n, io.ErrUnexpectedEOF
				}
				c = '?'
			default:
				c = ' '
			}
		}
		p[n] = c
		n++
	}
	return n, nil
}

var (
	_ desk.Source    = (*source)(nil)
	_ desk.Checker   = (*source)(nil)
	_ desk.Opener    = (*source)(nil)
	_ desk.Definer   = (*source)(nil)
	_ desk.Addresser = (*source)(nil)
	_ desk.Rewinder  = (*source)(nil)
)

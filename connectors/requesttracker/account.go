package requesttracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// account is one login at one RT, shared by all that a source or target does.
type account struct {
	opt  options
	rest *rest.Client
	site string // identity of the desk in cursors
	deps desk.Deps

	mu     sync.Mutex
	cookie string
}

func newAccount(c desk.Config, d desk.Deps) (*account, error) {
	o, err := readOptions(c)
	if err != nil {
		return nil, err
	}
	if d.HTTP == nil {
		return nil, errors.New("requesttracker: no HTTP client")
	}
	a := &account{opt: o, deps: d, site: strings.ToLower(o.conn.URL.Host) + o.conn.URL.Path}
	a.rest = rest.New(rest.Options{
		Base: o.conn.URL, HTTP: d.HTTP, Auth: a.authorize, Renew: a.logout, Now: d.Now, Refine: refine,
		// With a cookie of a session that is over RT redirects to its login page instead of saying 401.
		Expired: func(r *http.Response) bool {
			return r.StatusCode == http.StatusUnauthorized ||
				r.StatusCode == http.StatusFound && strings.Contains(r.Request.URL.Path, apiRoot)
		},
	})
	return a, nil
}

const (
	apiRoot = "/REST/2.0"
	agent   = "Deltadesk"
)

// authorize logs in once: RT checks passwords and tokens with bcrypt at every request, a quarter of a second of its time.
func (a *account) authorize(ctx context.Context, r *http.Request) error {
	r.Header.Set("User-Agent", agent)
	if a.opt.token != "" {
		r.Header.Set("Authorization", "token "+a.opt.token)
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cookie == "" {
		cookie, err := a.login(ctx)
		if err != nil {
			return err
		}
		a.cookie = cookie
	}
	r.Header.Set("Cookie", a.cookie)
	if r.Header.Get("Referer") == "" { // else RT refuses whatever writes in a session, since Debian's 5.0.3+dfsg-3~deb12u7
		r.Header.Set("Referer", a.opt.conn.URL.String()+"/")
	}
	return nil
}

// login opens a session. RT gives a cookie to everyone; whether the password was right shows at the first request.
func (a *account) login(ctx context.Context) (string, error) {
	h := http.Header{"Referer": {a.opt.conn.URL.String() + "/"}, "User-Agent": {agent}}
	_, header, _, err := a.rest.Text(ctx, rest.Request{
		Method: http.MethodPost, Path: "/NoAuth/Login.html", Label: "POST /NoAuth/Login.html", Header: h, NoAuth: true,
		Body: rest.Form(url.Values{"user": {a.opt.user}, "pass": {a.opt.password}}), Accept: []int{http.StatusFound, http.StatusSeeOther},
	})
	if err != nil {
		return "", err
	}
	var cookies []string
	for _, c := range (&http.Response{Header: header}).Cookies() {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	if len(cookies) == 0 {
		return "", &desk.Error{Op: "POST /NoAuth/Login.html", Said: "no session cookie", Class: desk.ErrUnauthorized}
	}
	return strings.Join(cookies, "; "), nil
}

func (a *account) logout() {
	a.mu.Lock()
	a.cookie = ""
	a.mu.Unlock()
}

// refine corrects what statuses alone get wrong. RT's messages can hold what was sent, so only known ones are repeated.
func refine(e *desk.Error, body []byte) {
	var m struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(body, &m)
	switch e.Status {
	case http.StatusFound:
		e.Class, e.Said = desk.ErrUnauthorized, "RT asks for a login: user, password or token are wrong"
	case http.StatusForbidden:
		switch e.Said = "the account lacks the right"; {
		case strings.Contains(m.Message, "create tickets in the queue"):
			// The same answer for a queue that does not exist: about this record, not about the account.
			e.Class, e.Said = desk.ErrRejected, "there is no such queue, or the account may not create tickets in it"
		case strings.Contains(m.Message, "Cross-site request forgery"):
			e.Said = "RT takes writes from its own address only: let url be the one that $WebDomain names, or add it to @ReferrerWhitelist, or use a token"
		}
	}
	for _, known := range []string{"Name in use", "Email address in use", "internal error", "isn't a valid status", "New tickets can not have status", "Queue not set"} {
		if strings.Contains(m.Message, known) {
			e.Said = known
		}
	}
}

// get asks the API.
func (a *account) get(ctx context.Context, path string, q url.Values, out any) (http.Header, error) {
	r := api(http.MethodGet, path, rest.Body{})
	r.Query = q
	return a.rest.JSON(ctx, r, out)
}

func api(method, path string, body rest.Body) rest.Request {
	return rest.Request{Method: method, Path: apiRoot + path, Label: label(method, path), Body: body}
}

// label names an endpoint: the second word of every path of RT's is an id or a name.
func label(method, path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) > 1 {
		parts[1] = "N"
	}
	return method + " /" + strings.Join(parts, "/")
}

const perPage = 100

// every fetches all pages of a collection in id order. It fails where RT hides rows from the account: pages would then be
// short, and an end could not be told from a gap.
func every[T row](ctx context.Context, a *account, path string, q url.Values) ([]T, http.Header, error) {
	q.Set("per_page", strconv.Itoa(perPage))
	q.Set("orderby", "id")
	var out, before []T
	var first http.Header
	for n := 1; ; n++ {
		if n > 1 {
			q.Set("page", strconv.Itoa(n))
		}
		p, h, err := fetch[T](ctx, a, path, q)
		if err != nil {
			return nil, nil, err
		}
		if first == nil {
			first = h
		}
		if n > 1 && (len(p.Items) == 0 || reflect.DeepEqual(before, []T(p.Items))) {
			return nil, nil, senseless(label(http.MethodGet, path), "a page of a list is empty, or the one before it again")
		}
		out, before = append(out, p.Items...), p.Items
		if n*perPage >= *p.Total {
			return out, first, nil
		}
	}
}

// fetch asks for one page of a collection.
func fetch[T row](ctx context.Context, a *account, path string, q url.Values) (p page[T], h http.Header, err error) {
	if h, err = a.get(ctx, path, q, &p); err != nil {
		return p, h, err
	}
	op := label(http.MethodGet, path)
	if p.Total == nil {
		return p, h, hidden(op)
	}
	if slices.ContainsFunc(p.Items, func(x T) bool { return !x.known() }) {
		return p, h, senseless(op, "a line of a list without a number")
	}
	return p, h, nil
}

// ascending tells whether each line's number is larger than that of the line before.
func ascending[T row](rows []T, id func(T) number) bool {
	for i := 1; i < len(rows); i++ {
		if id(rows[i]) <= id(rows[i-1]) {
			return false
		}
	}
	return true
}

// senseless is what an answer is called that is JSON and cannot be RT's. Perhaps the next one is.
func senseless(op, said string) error {
	return &desk.Error{Op: op, Said: said, Class: desk.ErrTransient}
}

func hidden(op string) error {
	return &desk.Error{Op: op, Said: "RT hides rows from this account: it needs the SuperUser right", Class: desk.ErrUnauthorized}
}

// where builds RT's JSON query.
type where struct {
	Field    string `json:"field"`
	Operator string `json:"operator,omitempty"`
	Value    any    `json:"value"`
	Or       string `json:"entry_aggregator,omitempty"`
	Case     bool   `json:"case_sensitive,omitempty"`
}

func jsonQuery(ws ...where) string {
	b, err := json.Marshal(ws)
	if err != nil {
		panic("requesttracker: a query that is not JSON: " + err.Error())
	}
	return string(b)
}

// quoteSQL makes s a literal of RT's query languages.
func quoteSQL(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

// began reads RT's clock off an answer.
func (a *account) began(h http.Header) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t.UTC()
	}
	return time.Time{}
}

const (
	ticketFields = "Subject,Status,Priority,Queue,Owner,Requestor,Cc,AdminCc,EffectiveId,Type,Created,Starts,Started,Resolved,Due," +
		"LastUpdated,TimeWorked,TimeEstimated,TimeLeft,SLA,CustomFields,CustomRoles,_hyperlinks"
	txnFields        = "Type,Field,OldValue,NewValue,TimeTaken,Created,Creator,ObjectId,ObjectType"
	memberFields     = "id,Name,EmailAddress,RealName"
	attachmentFields = "TransactionId,ContentType,Filename,Subject,Headers,ContentLength"
)

func ticketQuery(query string) url.Values {
	return url.Values{
		"query": {query}, "fields": {ticketFields}, "fields[Queue]": {"id,Name"}, "fields[Owner]": {memberFields},
		"fields[Requestor]": {memberFields}, "fields[Cc]": {memberFields}, "fields[AdminCc]": {memberFields},
		"fields[CustomRoles]": {memberFields},
	}
}

// thread reads a whole ticket: history first, so that its newest number is no newer than anything read after it. It answers
// for the ticket that lives on when id was merged. withText leaves attachments out when false.
func (a *account) thread(ctx context.Context, id string, withText bool) (t thread, began time.Time, err error) {
	if !isID(id) {
		return t, began, &desk.Error{Op: "read ticket", Said: "a ticket's id is a number", Class: desk.ErrNotFound}
	}
	var h http.Header
	t.txns, h, err = every[wireTxn](ctx, a, "/ticket/"+id+"/history", url.Values{"fields": {txnFields}, "fields[Creator]": {memberFields}})
	if err != nil {
		return t, began, err
	}
	began = a.began(h)
	if !ascending(t.txns, func(x wireTxn) number { return x.ID }) {
		// Something was committed while pages were fetched, and has moved the others: one of them is there twice.
		return t, began, senseless("GET /ticket/N/history", "transactions that are not in order, or there twice")
	}
	if t.ticket, err = a.ticket(ctx, id); err != nil {
		return t, began, err
	}
	if !withText {
		return t, began, nil
	}
	t.texts = map[number]string{}
	var ids []number
	for _, x := range t.txns {
		if x.Type == "Create" || x.Type == "Correspond" || x.Type == "Comment" {
			ids = append(ids, x.ID)
		}
	}
	for chunk := range slices.Chunk(ids, 200) {
		in := where{Field: "TransactionId", Operator: "IN", Value: chunk}
		path := "/ticket/" + string(t.ticket.ID) + "/attachments"
		parts, _, err := every[wireAttachment](ctx, a, path, url.Values{"query": {jsonQuery(in)}, "fields": {attachmentFields}})
		if err != nil {
			return t, began, err
		}
		if !ascending(parts, func(p wireAttachment) number { return p.ID }) {
			return t, began, senseless("GET /ticket/N/attachments", "attachments that are not in order, or there twice")
		}
		t.parts = append(t.parts, parts...)
		if !slices.ContainsFunc(parts, wireAttachment.unnamedText) {
			continue
		}
		texts, _, err := every[wireAttachment](ctx, a, path, url.Values{"fields": {"Content"}, "query": {jsonQuery(in,
			where{Field: "ContentType", Operator: "STARTSWITH", Value: "text/"}, where{Field: "Filename", Operator: "IS", Value: "NULL"})}})
		if err != nil {
			return t, began, err
		}
		for _, p := range texts {
			t.texts[p.ID] = string(p.Content)
		}
	}
	return t, began, a.remainingTexts(ctx, t)
}

// remainingTexts reads what the list of texts left out, one by one: databases differ in what they take for no name.
func (a *account) remainingTexts(ctx context.Context, t thread) error {
	for _, p := range t.parts {
		if _, ok := t.texts[p.ID]; ok || !p.unnamedText() {
			continue
		}
		r, err := a.OpenFile(ctx, desk.Ref{}, desk.File{ID: p.ID.String(), Size: -1})
		if errors.Is(err, desk.ErrNotFound) {
			return senseless("GET /attachment/N", "a text that is listed is not there") // which says nothing about the ticket
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.LimitReader(r, maxText+1))
		_ = r.Close()
		if err != nil {
			return err
		}
		if len(b) > maxText {
			return &desk.Error{Op: "GET /attachment/N", Said: fmt.Sprintf("a text of more than %d bytes", maxText), Class: desk.ErrRejected}
		}
		t.texts[p.ID] = strings.ToValidUTF8(string(b), "\ufffd")
	}
	return nil
}

const maxText = 16 << 20

// ticket reads the ticket that lives on under id. Deleted ones, which no list shows, come without expanded people.
func (a *account) ticket(ctx context.Context, id string) (wireTicket, error) {
	for range 10 { // a chain of merges is flat in RT; ten is a guard
		ts, _, err := every[wireTicket](ctx, a, "/tickets", ticketQuery("id = "+id+" AND EffectiveId > 0"))
		if err != nil {
			return wireTicket{}, err
		}
		if len(ts) == 0 {
			return a.single(ctx, id)
		}
		t := ts[0]
		if into := string(t.EffectiveID); into != "" && into != "0" && into != string(t.ID) {
			id = into
			continue
		}
		return t, nil
	}
	return wireTicket{}, &desk.Error{Op: "GET /tickets", Said: "merged in a circle", Class: desk.ErrRejected}
}

// single reads a ticket by its own address: the only way to see a deleted one.
func (a *account) single(ctx context.Context, id string) (wireTicket, error) {
	t, _, err := a.look(ctx, id)
	if err != nil {
		return t, err
	}
	if t.Type != "" && t.Type != "ticket" {
		return t, &desk.Error{Op: "GET /ticket/N", Said: "a reminder or approval", Class: desk.ErrNotFound}
	}
	// Here people are named by login, while ids are numbers everywhere else.
	t.Requestor, t.Cc, t.AdminCc, t.Owner = nil, nil, nil, wireRef{Name: nobody}
	return t, nil
}

// look reads a ticket with its ETag, which is the number of its newest transaction. People are named by login.
func (a *account) look(ctx context.Context, id string) (t wireTicket, etag string, err error) {
	h, err := a.get(ctx, "/ticket/"+url.PathEscape(id), url.Values{"fields[Queue]": {"id,Name"}}, &t)
	if err == nil && !t.known() {
		err = senseless("GET /ticket/N", "a ticket without a number")
	}
	if err != nil {
		return t, "", err
	}
	return t, etagOf(h), nil
}

// etagOf a ticket or user is the number of its newest transaction.
func etagOf(h http.Header) string { return strings.Trim(strings.TrimPrefix(h.Get("ETag"), "W/"), `"`) }

func (a *account) ticketURL(id string) string {
	return a.opt.conn.URL.String() + "/Ticket/Display.html?id=" + id
}

// Address is where a person would look at the record.
func (a *account) Address(ref desk.Ref) string {
	if ref.Kind == desk.Person {
		return a.opt.conn.URL.String() + "/User/Summary.html?id=" + ref.ID
	}
	return a.ticketURL(ref.ID)
}

// isUs tells whether a user is the account that this process writes with.
func (a *account) isUs(r wireRef) bool {
	return strings.EqualFold(string(r.Name), a.opt.user) || a.opt.user != "" && strings.EqualFold(string(r.EmailAddress), a.opt.user)
}

// status changes that a desk of default settings closes a ticket with. Other lifecycles cannot be asked for; for these the
// engine merely takes tickets up in a less clever order.
func closed(status str) bool {
	return status == "resolved" || status == "rejected" || status == "deleted"
}

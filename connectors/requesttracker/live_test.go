//go:build rt

package requesttracker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/connectors/requesttracker/rttest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// These tests write into throw-away RTs with their default scrips on. They bring up a pair by rttest (root, Debian), or use
// another one, of which these variables tell:
//
//	RT_SOURCE_URL, RT_TARGET_URL           addresses
//	RT_USER, RT_PASSWORD                   default root, password
//	RT_SOURCE_MAIL_LOG, RT_TARGET_MAIL_LOG files with one line per mail; without the latter silence is proven by EmailRecord only
//	RT_SOURCE_RESET                        a command that empties the source

// pair is brought up once.
var pair = sync.OnceValues(func() (map[string]*rttest.Server, error) {
	ctx := context.Background()
	src, err := rttest.Up(ctx, "conn_src", 18581, "/srv/rtconn", rttest.Options{Role: rttest.SourceRole, Scrips: "on"})
	if err != nil {
		return nil, err
	}
	dst, err := rttest.Up(ctx, "conn_dst", 18582, "/srv/rtconn", rttest.Options{Role: rttest.TargetRole})
	return map[string]*rttest.Server{"SOURCE": src, "TARGET": dst}, err
})

type live struct {
	t       *testing.T
	cfg     desk.Config
	counter *rest.Counter
	hc      *http.Client
	acc     *account
	log     string
}

func newLive(t *testing.T, side string) *live {
	t.Helper()
	addr, log := os.Getenv("RT_"+side+"_URL"), os.Getenv("RT_"+side+"_MAIL_LOG")
	if addr == "" {
		if os.Getuid() != 0 {
			t.Skip("RT_" + side + "_URL is not set, and only root can bring up an RT")
		}
		servers, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		addr, log = servers[side].URL, servers[side].MailLog
	}
	l := &live{t: t, counter: &rest.Counter{}, log: log, cfg: desk.Config{
		"url": addr, "user": cmp.Or(os.Getenv("RT_USER"), "root"), "password": cmp.Or(os.Getenv("RT_PASSWORD"), "password"),
		"allow_http": "true", "allow_private": "true",
	}}
	conn, err := rest.ConnectionOf(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if l.hc, err = rest.NewHTTPClient(conn, l.counter); err != nil {
		t.Fatal(err)
	}
	if l.acc, err = newAccount(l.cfg, desk.Deps{HTTP: l.hc}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *live) source() desk.Source {
	s, err := Connector.NewSource(l.cfg, desk.Deps{HTTP: l.hc})
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *live) target(migration string) *target {
	l.t.Helper()
	var cfs page[wireCFDef]
	for _, name := range []string{defaultIDField, defaultURLField} {
		if _, err := l.acc.get(l.t.Context(), "/customfields", url.Values{"query": {jsonQuery(where{Field: "Name", Value: name})}}, &cfs); err != nil {
			l.t.Fatal(err)
		}
		if len(cfs.Items) == 0 {
			l.call("POST", "/customfield", map[string]any{"Name": name, "Type": "FreeformSingle", "Queue": 0})
		}
	}
	s, err := Connector.NewTarget(l.cfg, desk.Deps{HTTP: l.hc, Migration: migration})
	if err != nil {
		l.t.Fatal(err)
	}
	return s.(*target)
}

func (l *live) try(method, path string, body any) (map[string]any, error) {
	var out any
	req := api(method, path, rest.Body{})
	if body != nil {
		req.Body = rest.JSON(body)
	}
	_, err := l.acc.rest.JSON(l.t.Context(), req, &out)
	m, _ := out.(map[string]any)
	return m, err
}

func (l *live) call(method, path string, body any) map[string]any {
	l.t.Helper()
	m, err := l.try(method, path, body)
	if err != nil {
		l.t.Fatal(err)
	}
	return m
}

func (l *live) mails() int {
	b, _ := os.ReadFile(l.log)
	return bytes.Count(b, []byte("\n"))
}

func (l *live) user(name string) string {
	l.t.Helper()
	_, _ = l.try("POST", "/user", map[string]any{"Name": name, "EmailAddress": name + "@x.example", "RealName": strings.ToUpper(name), "Privileged": 1})
	return fmt.Sprint(l.call("GET", "/user/"+name, nil)["id"])
}

func unique(prefix string) string { return fmt.Sprintf("%s%d", prefix, rand.Uint32()) }

// demanding is a ticket with most of what can go wrong.
func demanding(migration, id string) desk.Record {
	at := time.Date(2019, 3, 4, 5, 6, 7, 0, time.UTC)
	anna := desk.Author{Name: "Anna · <Exämple>", Email: "anna@x.example"}
	entry := func(n int, public bool, typ, body string, files ...desk.File) desk.Entry {
		return desk.Entry{
			ID: fmt.Sprint(id, "-", n), Marker: fmt.Sprintf("%s/%s-%d", migration, id, n), Public: public, Author: anna,
			At: at.Add(time.Duration(n) * time.Hour), Body: body, Type: typ, Files: files,
		}
	}
	inline := file("i", "bild.png", "image/png", []byte("\x89PNG\r\n\x1a\n"))
	inline.CID, inline.Inline = "abc@x", true
	r := desk.Record{
		Ref: desk.Ref{Kind: desk.Ticket, ID: id}, URL: "https://src.example/" + id,
		Fields: desk.Fields{
			desk.Subject: {"Schöne Grüße 😀"}, desk.Status: {"resolved"}, desk.Priority: {"7"}, desk.Group: {"General"},
			desk.Created: {"2019-03-04T05:06:07Z"}, desk.Started: {"2019-03-04T06:00:00Z"}, desk.Resolved: {"2019-03-05T01:02:03Z"},
			desk.Due: {"2019-04-01T00:00:00Z"}, desk.TimeWorked: {"12"}, desk.TimeEstimated: {"60"}, desk.TimeLeft: {"5"},
			desk.LinkRefersTo: {"https://elsewhere.example/a?b=c"},
		},
		Entries: []desk.Entry{
			entry(1, true, "text/plain", "  first\n\n-- \nÄ [x]\n\n> quoted",
				file("a", "ü \"q\" a/b\\c.txt", "text/plain", []byte("a\r\nb\xff")), inline, file("z", "", "application/pdf", []byte("%PDF"))),
			entry(2, true, "text/html", "<p>Zweite &amp; <b>Antwort</b></p><img src=\"cid:abc@x\">",
				file("e", "empty.bin", "image/png", nil), file("n", "0", "text/csv", []byte("a;ü\r\n")), file("f", "f.txt", "text/plain", []byte("\xef\xbb\xbfBOM\r\n"))),
			entry(3, false, "text/plain", "internal", file("m", "m.eml", "message/rfc822", []byte("From: a\r\n\r\n\xe4"))),
			entry(4, true, "text/plain", ""),
		},
	}
	r.Entries[1].Subject, r.Entries[1].Minutes = "another Sübject", 7
	r.Entries[2].Minutes = 5
	r.Entries[3].Subject = r.Fields[desk.Subject].First()
	return r
}

// rest of a record that Written does not show yet, as the engine would compute it.
func missing(r desk.Record, w desk.Written) desk.Change {
	c := desk.Change{Fields: desk.Fields{}}
	for f, v := range r.Fields {
		if !v.Equal(w.Now.Fields[f]) && f != desk.Created {
			c.Fields[f] = v
		}
	}
	for _, e := range r.Entries {
		if _, ok := w.Entries[e.Marker]; !ok {
			c.Entries = append(c.Entries, e)
		}
	}
	return c
}

func comparable(es []desk.Entry) []desk.Entry {
	var out []desk.Entry
	for _, e := range es {
		e.ID, e.Headers = "", nil
		e.Author.ID = ""
		fs := e.Files
		e.Files = nil
		for _, f := range fs {
			e.Files = append(e.Files, desk.File{Name: f.Name, Type: f.Type, Size: f.Size, CID: f.CID, Inline: f.Inline})
		}
		out = append(out, e)
	}
	return out
}

func counts(t *testing.T, l *live, what string, before map[string]int) {
	t.Helper()
	diff, n := map[string]int{}, 0
	for k, v := range l.counter.Counts() {
		if v -= before[k]; v > 0 {
			diff[k] = v
			n += v
		}
	}
	b, _ := json.Marshal(diff)
	t.Logf("%s: %d requests %s", what, n, b)
}

func TestRTTarget(t *testing.T) {
	l := newLive(t, "TARGET")
	mig := unique("m")
	tg := l.target(mig)
	ctx := t.Context()
	cust, cc, agent := l.user("cust1"), l.user("cc1"), l.user("agentx")
	if err := tg.Check(ctx); err != nil {
		t.Fatal(err)
	}
	mails := l.mails()
	for name, queue := range map[string]string{"quiet queue": "General", "watched queue": l.watched(t)} {
		t.Run(name, func(t *testing.T) {
			r := demanding(mig, unique("9"))
			r.Fields[desk.Group] = desk.Value{queue}
			r.Fields[desk.Requester], r.Fields[desk.CC], r.Fields[desk.Assignee] = desk.Value{cust}, desk.Value{cc}, desk.Value{agent}
			was := l.counter.Counts()
			w, err := tg.Create(ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			counts(t, l, "create", was)
			was = l.counter.Counts()
			c := missing(r, w)
			c.Lock = w.Now.Lock
			w, err = tg.Apply(ctx, desk.Ref{Kind: desk.Ticket, ID: w.ID}, c)
			if err != nil {
				t.Fatal(err)
			}
			counts(t, l, "apply with 3 entries and people", was)
			if d := gocmp.Diff(comparable(r.Entries), comparable(w.Now.Entries)); d != "" {
				t.Error(d)
			}
			// RT keeps when a ticket was made, or goes by its own clock since a security update; nothing in between.
			made := w.Now.Fields[desk.Created]
			at, _ := time.Parse(time.RFC3339, made.First())
			own := at.Sub(ticketMade(t, l, w.ID)).Abs() <= 2*time.Second
			if !own && !made.Equal(r.Fields[desk.Created]) {
				t.Errorf("created: want %q or when RT made it, got %q", r.Fields[desk.Created], made)
			}
			t.Logf("this RT keeps when a ticket was made: %t", !own)
			want := r.Fields
			for f, v := range want {
				if !v.Equal(w.Now.Fields[f]) && (!own || f != desk.Created) {
					t.Errorf("%s: want %q, got %q", f, v, w.Now.Fields[f])
				}
			}
			for i, e := range w.Now.Entries {
				for j, f := range e.Files {
					got := openAll(t, tg, f)
					if wantb := openAll(t, nil, r.Entries[i].Files[j]); !bytes.Equal(got, wantb) {
						t.Errorf("file %s: got %q, want %q", f.Name, got, wantb)
					}
				}
			}
			if ids, err := tg.Find(ctx, r.Ref); err != nil || len(ids) != 1 || ids[0] != w.ID {
				t.Errorf("Find: %v %v", ids, err)
			}
			// Later, with people on the ticket: a reply, another owner, another status.
			later := desk.Change{Lock: w.Now.Lock, Entries: demanding(mig, r.Ref.ID+"-later").Entries[:2], Fields: desk.Fields{desk.Status: {"open"}, desk.Assignee: nil}}
			was = l.counter.Counts()
			if w, err = tg.Apply(ctx, desk.Ref{Kind: desk.Ticket, ID: w.ID}, later); err != nil {
				t.Fatal(err)
			}
			counts(t, l, "update with 2 entries", was)
			if d := gocmp.Diff(comparable(later.Entries), comparable(w.Now.Entries[4:])); d != "" {
				t.Error(d)
			}
			was = l.counter.Counts()
			w2, err := tg.Apply(ctx, desk.Ref{Kind: desk.Ticket, ID: w.ID}, desk.Change{Lock: w.Now.Lock, Fields: desk.Fields{desk.Status: {"resolved"}, desk.Resolved: {"2020-01-01T00:00:00Z"}, desk.Assignee: {agent}}})
			if err != nil {
				t.Fatal(err)
			}
			counts(t, l, "update of status and owner", was)
			if len(w2.Now.Entries) != 6 {
				t.Errorf("the service note shows: %d entries", len(w2.Now.Entries))
			}
			was = l.counter.Counts()
			if _, err := tg.Apply(ctx, desk.Ref{Kind: desk.Ticket, ID: w.ID}, desk.Change{Lock: w2.Now.Lock, Fields: desk.Fields{desk.Priority: {"9"}}}); err != nil {
				t.Fatal(err)
			}
			counts(t, l, "update of one field", was)
			if _, err := tg.Apply(ctx, desk.Ref{Kind: desk.Ticket, ID: w.ID}, desk.Change{Lock: w2.Now.Lock, Fields: desk.Fields{desk.Priority: {"10"}}}); !errors.Is(desk.Class(err), desk.ErrConflict) {
				t.Errorf("stale lock: %v", err)
			}
			if _, err := tg.Apply(ctx, desk.Ref{Kind: desk.Ticket, ID: w.ID}, desk.Change{Fields: desk.Fields{desk.Status: {"nonsense"}}}); !errors.Is(desk.Class(err), desk.ErrRejected) {
				t.Errorf("bad status: %v", err)
			}
		})
	}
	if l.mails() != mails {
		t.Errorf("%d mails were sent", l.mails()-mails)
	}
}

// ticketMade is when RT made a ticket, as its first transaction says.
func ticketMade(t *testing.T, l *live, id string) time.Time {
	t.Helper()
	txns, _, err := every[wireTxn](t.Context(), l.acc, "/ticket/"+id+"/history", url.Values{"fields": {txnFields}})
	if err != nil || len(txns) == 0 || txns[0].Type != "Create" {
		t.Fatal(len(txns), err)
	}
	return txns[0].Created.time()
}

// watched makes a queue with a user and a group watching.
func (l *live) watched(t *testing.T) string {
	t.Helper()
	name := unique("Watched")
	l.user("watcher1")
	l.call("POST", "/queue", map[string]any{"Name": name})
	_, err := l.try("PUT", "/queue/"+name, map[string]any{"AdminCc": []string{"watcher1@x.example"}, "Cc": []string{"watcher2@x.example"}})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func openAll(t *testing.T, o desk.Opener, f desk.File) []byte {
	t.Helper()
	var r io.ReadCloser
	var err error
	if o == nil {
		r, err = f.Open(t.Context())
	} else {
		r, err = o.OpenFile(t.Context(), desk.Ref{}, f)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The proof that mails are noticed: without what keeps RT quiet, a reply mails, and the writer says so.
func TestRTMailIsNoticed(t *testing.T) {
	l := newLive(t, "TARGET")
	l.target("x")
	l.cfg["mail_guard"] = "off"
	tg := l.target("x")
	cust := l.user("cust1")
	mails := l.mails()
	r := demanding("x", unique("7"))
	r.Entries = r.Entries[:1]
	w, err := tg.Create(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	ref := desk.Ref{Kind: desk.Ticket, ID: w.ID}
	if _, err := tg.Apply(t.Context(), ref, desk.Change{Fields: desk.Fields{desk.Requester: {cust}}}); err != nil {
		t.Fatal(err)
	}
	_, err = tg.Apply(t.Context(), ref, desk.Change{Entries: demanding("x", "8").Entries[1:2]})
	if !errors.Is(desk.Class(err), desk.ErrMailed) {
		t.Errorf("got %v", err)
	}
	if l.log != "" && l.mails() == mails {
		t.Error("RT did not mail, so this test proves nothing")
	}
}

// RT deletes a ticket only as it was read: neither what people have done since goes with it, nor the ticket into which they merged it.
func TestRTDeleteAsRead(t *testing.T) {
	l := newLive(t, "TARGET")
	tg := l.target("x")
	ctx := t.Context()
	people := seed{l.person(t)}
	for what, work := range map[string]func(ref, other desk.Ref) error{
		"nothing": nil,
		"a reply": func(ref, _ desk.Ref) error {
			return people.Change(ctx, ref, desk.Change{Entries: []desk.Entry{{Public: true, Body: "still here?", Type: "text/plain"}}})
		},
		"a field": func(ref, _ desk.Ref) error {
			return people.Change(ctx, ref, desk.Change{Fields: desk.Fields{desk.Priority: {"77"}}})
		},
		"merged into another":    func(ref, other desk.Ref) error { return people.Merge(ctx, ref, other) },
		"another merged into it": func(ref, other desk.Ref) error { return people.Merge(ctx, other, ref) },
	} {
		r := demanding("x", unique("d"))
		r.Entries = r.Entries[:1]
		w, err := tg.Create(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		ref := desk.Ref{Kind: desk.Ticket, ID: w.ID}
		other, err := people.Create(ctx, desk.Record{Ref: desk.Ref{Kind: desk.Ticket}, Fields: desk.Fields{desk.Subject: {"of an agent"}}})
		if err != nil {
			t.Fatal(err)
		}
		if work == nil {
			if err := tg.Delete(ctx, ref, w.Now.Lock); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if _, err := tg.Read(ctx, ref); !errors.Is(desk.Class(err), desk.ErrNotFound) {
				t.Errorf("%s: it is not deleted: %v", what, err)
			}
			continue
		}
		if err := work(ref, other); err != nil {
			t.Fatal(what, err)
		}
		if err := tg.Delete(ctx, ref, w.Now.Lock); !errors.Is(desk.Class(err), desk.ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
		for _, x := range []desk.Ref{ref, other} {
			if _, err := tg.Read(ctx, x); err != nil {
				t.Errorf("%s: %s is gone: %v", what, x, err)
			}
		}
	}
}

func TestRTPeople(t *testing.T) {
	l := newLive(t, "TARGET")
	tg := l.target("x")
	ctx := t.Context()
	login, mail := unique("login"), unique("mail")+"@x.example"
	r := desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: "1"}, Fields: desk.Fields{
		desk.Name: {"Zoë Ö"}, desk.Login: {login}, desk.Email: {mail}, desk.Role: {"agent"}, desk.Active: {"true"}, desk.TimeZone: {"Europe/Berlin"},
		desk.Phone: {"+49 1"}, desk.Custom("Organization"): {"ACME"},
	}}
	w, err := tg.Create(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	for f, v := range r.Fields {
		if !v.Equal(w.Now.Fields[f]) {
			t.Errorf("%s: %q, want %q", f, w.Now.Fields[f], v)
		}
	}
	again, err := tg.Create(ctx, r)
	if err != nil || again.ID != w.ID {
		t.Errorf("the same person again: %+v %v", again, err)
	}
	other := r
	other.Fields = desk.Fields{desk.Login: {login}, desk.Email: {unique("other") + "@x.example"}, desk.Name: {"Other"}}
	second, err := tg.Create(ctx, other)
	if err != nil || second.ID == w.ID || second.Now.Fields[desk.Login].First() != other.Fields[desk.Email].First() {
		t.Errorf("another person of the same login: %+v %v", second, err)
	}
	nomail := desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: "2"}, Fields: desk.Fields{desk.Login: {unique("phone")}, desk.Name: {"No Mail"}}}
	third, err := tg.Create(ctx, nomail)
	if err != nil {
		t.Fatal(err)
	}
	if ids, err := tg.Match(ctx, nomail); err != nil || len(ids) != 1 || ids[0] != third.ID {
		t.Errorf("%v %v", ids, err)
	}
	if ids, err := tg.Match(ctx, r); err != nil || len(ids) != 1 || ids[0] != w.ID {
		t.Errorf("%v %v", ids, err)
	}
	up, err := tg.Apply(ctx, desk.Ref{Kind: desk.Person, ID: w.ID}, desk.Change{Fields: desk.Fields{desk.Active: {"false"}, desk.Role: {"customer"}, desk.Phone: nil}})
	if err != nil || up.Now.Fields[desk.Active].First() != "false" || up.Now.Fields[desk.Role].First() != "customer" {
		t.Errorf("%+v %v", up.Now, err)
	}
	_, err = tg.Create(ctx, desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: "3"}, Fields: desk.Fields{desk.Name: {"Nobody at all"}}})
	if !errors.Is(desk.Class(err), desk.ErrRejected) {
		t.Errorf("neither login nor address: %v", err)
	}
	// As a requestor, without an address.
	tk := demanding("x", unique("5"))
	tk.Entries = tk.Entries[:1]
	tw, err := tg.Create(ctx, tk)
	if err != nil {
		t.Fatal(err)
	}
	tw, err = tg.Apply(ctx, desk.Ref{Kind: desk.Ticket, ID: tw.ID}, desk.Change{Fields: desk.Fields{desk.Requester: desk.Set(third.ID, w.ID)}})
	if err != nil || len(tw.Now.Fields[desk.Requester]) != 2 {
		t.Errorf("%+v %v", tw.Now, err)
	}
}

// Everybody who could be mailed: a group watching the queue, a group on the ticket, an owner, and the account itself.
func TestRTSilenceWithGroups(t *testing.T) {
	l := newLive(t, "TARGET")
	tg := l.target("x")
	ctx := t.Context()
	queue := l.watched(t)
	group := fmt.Sprint(l.call("POST", "/group", map[string]any{"Name": unique("g")})["id"])
	l.user("member1")
	if _, err := l.try("PUT", "/group/"+group+"/members", []string{l.user("member1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.try("PUT", "/queue/"+queue, map[string]any{"AdminCc": []string{group, l.user("watcher1")}}); err != nil {
		t.Fatal(err)
	}
	mails := l.mails()
	r := demanding("x", unique("6"))
	r.Fields[desk.Group] = desk.Value{queue}
	w, err := tg.Create(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	ref := desk.Ref{Kind: desk.Ticket, ID: w.ID}
	if _, err := l.try("PUT", "/ticket/"+w.ID, map[string]any{"Cc": []string{group}, "AdminCc": []string{"root"}}); err != nil {
		t.Fatal(err)
	}
	if w, err = tg.Apply(ctx, ref, missing(r, w)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []desk.Change{
		{Fields: desk.Fields{desk.Assignee: {l.user("owner1")}}},
		{Fields: desk.Fields{desk.Status: {"open"}}},
		{Fields: desk.Fields{desk.Status: {"resolved"}}},
		{Fields: desk.Fields{desk.Assignee: {l.user("owner2")}, desk.Status: {"stalled"}}},
		{Entries: demanding("x", unique("r")).Entries},
		{Fields: desk.Fields{desk.Assignee: nil}},
	} {
		if _, err := tg.Apply(ctx, ref, c); err != nil {
			t.Errorf("%v: %v", c.Fields, err)
		}
	}
	if n := l.mails() - mails; n != 0 {
		t.Errorf("%d mails", n)
	}
	// That somebody would have heard of it: an agent's own reply.
	l.mustDo(t, "POST", "/ticket/"+w.ID+"/correspond", map[string]any{"Content": "x", "ContentType": "text/plain"})
	if l.log != "" && l.mails() == mails {
		t.Error("nobody would have been mailed, so this test proves nothing")
	}
}

// Where RT is not brought up here, it needs a custom role "Engineer" of queue General and a scrip that mails it at each reply;
// REST cannot make these.
func TestRTSilenceWithCustomRole(t *testing.T) {
	l := newLive(t, "TARGET")
	tg := l.target("x")
	ctx := t.Context()
	if os.Getenv("RT_TARGET_URL") == "" {
		servers, err := pair()
		if err == nil {
			err = servers["TARGET"].AddRole(ctx, "Engineer", "General")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r := demanding("x", unique("3"))
	w, err := tg.Create(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	l.user("engineer1")
	if _, err := l.try("PUT", "/ticket/"+w.ID, map[string]any{"CustomRoles": map[string]any{"Engineer": []string{"engineer1"}}}); err != nil {
		t.Fatalf("no custom role Engineer: %v", err)
	}
	mails := l.mails()
	if w, err = tg.Apply(ctx, desk.Ref{Kind: desk.Ticket, ID: w.ID}, missing(r, w)); err != nil {
		t.Fatal(err)
	}
	if n := l.mails() - mails; n != 0 {
		t.Errorf("%d mails", n)
	}
	l.mustDo(t, "POST", "/ticket/"+w.ID+"/correspond", map[string]any{"Content": "x", "ContentType": "text/plain"})
	if l.log != "" && l.mails() == mails {
		t.Error("nobody would have been mailed, so this proves nothing")
	}
}

func (l *live) mustDo(t *testing.T, method, path string, body any) {
	t.Helper()
	if _, err := l.try(method, path, body); err != nil {
		t.Fatal(err)
	}
}

func TestRTCustomFields(t *testing.T) {
	l := newLive(t, "TARGET")
	when, many, text := unique("When"), unique("Many"), unique("Text")
	for name, typ := range map[string]string{when: "DateTimeSingle", many: "FreeformMultiple", text: "TextSingle"} {
		l.call("POST", "/customfield", map[string]any{"Name": name, "Type": typ, "Queue": 0})
	}
	me := l.acc.opt.user
	_, _ = l.try("PUT", "/user/"+me, map[string]any{"Timezone": "America/New_York"})
	ctx := t.Context()
	if err := l.target("x").Check(ctx); !errors.Is(desk.Class(err), desk.ErrUnauthorized) || !strings.Contains(err.Error(), "Timezone") {
		t.Errorf("Check: %v", err)
	}
	_, _ = l.try("PUT", "/user/"+me, map[string]any{"Timezone": "UTC"})
	tg := l.target("x")
	r := demanding("x", unique("2"))
	r.Entries = r.Entries[:1]
	first := desk.Fields{desk.Custom(when): {"2026-01-01T10:00:00Z"}, desk.Custom(many): {"a", "b"}, desk.Custom(text): {" l1\n\nl2 \n"}}
	for f, v := range first {
		r.Fields[f] = v
	}
	w, err := tg.Create(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	for f, v := range first {
		if !v.Equal(w.Now.Fields[f]) {
			t.Errorf("%s: %q, want %q", f, w.Now.Fields[f], v)
		}
	}
	ref := desk.Ref{Kind: desk.Ticket, ID: w.ID}
	for _, c := range []desk.Fields{
		{desk.Custom(when): {"2027-02-03T04:05:06Z"}, desk.Custom(many): {"b", "c"}, desk.Custom(text): {"x"}},
		{desk.Custom(when): nil, desk.Custom(many): nil, desk.Custom(text): nil},
	} {
		if _, err := tg.Apply(ctx, ref, desk.Change{Fields: c}); err != nil {
			t.Error(err)
		}
	}
}

// RT takes tags of other systems out of a message's subject into the ticket's. The ticket keeps the one it has, also none.
func TestRTSubjectTags(t *testing.T) {
	l := newLive(t, "TARGET")
	tg := l.target("x")
	for name, subject := range map[string]desk.Value{"a subject": {"quite another one"}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			r := demanding("x", unique("4"))
			r.Entries = r.Entries[:1]
			w, err := tg.Create(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			ref := desk.Ref{Kind: desk.Ticket, ID: w.ID}
			if w, err = tg.Apply(t.Context(), ref, desk.Change{Fields: desk.Fields{desk.Subject: subject}}); err != nil {
				t.Fatal(err)
			}
			en := desk.Entry{ID: "1", Marker: "x/" + unique("e"), Public: true, At: time.Now().Add(-time.Hour), Subject: "Re: [elsewhere #57] hello", Body: "hello", Type: "text/plain"}
			if w, err = tg.Apply(t.Context(), ref, desk.Change{Entries: []desk.Entry{en}, Lock: w.Now.Lock}); err != nil {
				t.Fatal(err)
			}
			if got := w.Now.Fields[desk.Subject]; !got.Equal(subject) {
				t.Errorf("the ticket's subject is %q after a message, want %q", got, subject)
			}
		})
	}
}

func TestRTRefusals(t *testing.T) {
	l := newLive(t, "TARGET")
	tg := l.target("x")
	ctx := t.Context()
	name := unique("plain")
	_, _ = l.try("POST", "/user", map[string]any{"Name": name, "EmailAddress": name + "@x.example"})
	plain, err := tg.usersBy(ctx, "Name", name)
	if err != nil || len(plain) != 1 {
		t.Fatal(plain, err)
	}
	w, err := tg.Create(ctx, func() desk.Record { r := demanding("x", unique("4")); r.Entries = r.Entries[:1]; return r }())
	if err != nil {
		t.Fatal(err)
	}
	ref := desk.Ref{Kind: desk.Ticket, ID: w.ID}
	for what, c := range map[string]desk.Fields{
		"assignee":        {desk.Assignee: plain},
		"status":          {desk.Status: {"nonsense"}},
		"custom.Nothing":  {desk.Custom("Nothing"): {"x"}},
		"group":           {desk.Group: {"no such queue"}},
		"tags":            {desk.Tags: {"x"}},
		"link.depends_on": {desk.LinkDependsOn: {"99999999"}},
	} {
		_, err := tg.Apply(ctx, ref, desk.Change{Fields: c})
		if !errors.Is(desk.Class(err), desk.ErrRejected) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = tg.Create(ctx, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "q"}, Fields: desk.Fields{desk.Subject: {"x"}, desk.Group: {"no such queue"}}})
	if !errors.Is(desk.Class(err), desk.ErrRejected) {
		t.Errorf("queue: %v", err)
	}
}

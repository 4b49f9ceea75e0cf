//go:build rt

package requesttracker

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

const hardMail = `From: "Zoë Müller" <%[1]s@mail.example>
To: rt@src.example
Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= %[1]s
Message-ID: <%[1]s@mail.example>
In-Reply-To: <earlier@mail.example>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=m

--m
Content-Type: multipart/alternative; boundary=a

--a
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Gr=FC=DFe aus Berlin
%[2]s
--a
Content-Type: multipart/related; boundary=r

--r
Content-Type: text/html; charset=utf-8

<html><head><style>p{}</style></head><body><p>Grüße aus <b>Berlin</b></p><img src="cid:pic@x"></body></html>
--r
Content-Type: image/png
Content-ID: <pic@x>
Content-Disposition: inline
Content-Transfer-Encoding: base64

iVBORw0KGgo=
--r--
--a--
--m
Content-Type: application/pdf
Content-Transfer-Encoding: base64

JVBERg==
--m
Content-Type: message/rfc822

From: x@y.example
Subject: nested

inside
--m
Content-Type: text/plain; name="=?utf-8?Q?=C3=BC.txt?="
Content-Disposition: attachment; filename*=utf-8''%%C3%%BC.txt

text file
--m--
`

func (l *live) mail(t *testing.T, name, extra string) string {
	t.Helper()
	_, _, _, err := l.acc.rest.Text(t.Context(), rest.Request{Method: "POST", Path: "/REST/1.0/NoAuth/mail-gateway", NoAuth: true, Body: rest.Form(url.Values{
		"queue": {"General"}, "action": {"correspond"}, "message": {strings.ReplaceAll(fmt.Sprintf(hardMail, name, extra), "\n", "\r\n")},
	})})
	if err != nil {
		t.Fatal(err)
	}
	ts, _, err := every[wireTicket](t.Context(), l.acc, "/tickets", url.Values{"query": {"Subject LIKE " + quoteSQL(name)}})
	if err != nil || len(ts) != 1 {
		t.Fatalf("%d tickets, %v", len(ts), err)
	}
	return string(ts[0].ID)
}

func TestRTSourceMail(t *testing.T) {
	l := newLive(t, "SOURCE")
	s := l.source()
	for extra, files := range map[string]int{"": 5, "only here": 6} {
		name := unique("mail")
		id := l.mail(t, name, extra)
		was := l.counter.Counts()
		r, err := s.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: id})
		if err != nil {
			t.Fatal(err)
		}
		counts(t, l, "read", was)
		e := r.Entries[0]
		if e.Type != "text/html" || !strings.Contains(e.Body, "<b>Berlin</b>") || len(e.Files) != files || e.Author.Email != name+"@mail.example" || e.Headers["Message-ID"] != "<"+name+"@mail.example>" {
			t.Errorf("%+v", e)
		}
		for _, f := range e.Files {
			t.Logf("%q %s %d %q %t: %q", f.Name, f.Type, f.Size, f.CID, f.Inline, openAll(t, s.(desk.Opener), f))
		}
	}
}

func TestRTSourceFeed(t *testing.T) {
	l := newLive(t, "SOURCE")
	s := l.source()
	ctx := t.Context()
	from, err := s.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a := fmt.Sprint(l.call("POST", "/ticket", map[string]any{"Queue": "General", "Subject": "a", "Requestor": unique("u") + "@x.example"})["id"])
	b := fmt.Sprint(l.call("POST", "/ticket", map[string]any{"Queue": "General", "Subject": "b"})["id"])
	c := fmt.Sprint(l.call("POST", "/ticket", map[string]any{"Queue": "General", "Subject": "c"})["id"])
	_, _ = l.try("PUT", "/ticket/"+b, map[string]any{"MergeInto": a})
	_, _, _, err = l.acc.rest.Text(ctx, api("DELETE", "/ticket/"+c, rest.Body{}))
	if err != nil {
		t.Fatal(err)
	}
	until, err := s.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	was := l.counter.Counts()
	p, err := s.Changes(ctx, desk.Ticket, desk.Scope{}, from, until)
	if err != nil || !p.Done {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, i := range p.Items {
		got[i.Ref.ID] = string(i.Event) + i.Into
	}
	if len(got) != 3 || got[a] != "" || got[b] != "merged"+a || got[c] != "deleted" {
		t.Errorf("%v", got)
	}
	people, err := s.Changes(ctx, desk.Person, desk.Scope{}, from, until)
	if err != nil || len(people.Items) != 1 {
		t.Errorf("%v %v", people, err)
	}
	counts(t, l, "delta of three tickets and one user", was)
	was = l.counter.Counts()
	again, err := s.Mark(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []desk.Kind{desk.Company, desk.Person, desk.Ticket} {
		if p, err := s.Changes(ctx, k, desk.Scope{}, until, again); err != nil || len(p.Items) != 0 || !p.Done {
			t.Errorf("idle: %v %v", p, err)
		}
	}
	counts(t, l, "idle delta with its mark", was)
	r, err := s.Read(ctx, desk.Ref{Kind: desk.Ticket, ID: b})
	if err != nil || r.Ref.ID != a || len(r.Aliases) != 1 || r.Aliases[0] != b {
		t.Errorf("%+v %v", r, err)
	}
	if r, err = s.Read(ctx, desk.Ref{Kind: desk.Ticket, ID: c}); err != nil || r.Event != desk.Deleted {
		t.Errorf("%+v %v", r, err)
	}
	for _, i := range people.Items {
		u, err := s.Read(ctx, i.Ref)
		if err != nil || u.Stamp.Before(i.Stamp) {
			t.Errorf("%+v %v", u, err)
		}
	}
}

// What a user's transactions tell must be the same that reading the user tells, also for changes that RT keeps elsewhere.
func TestRTSourcePeople(t *testing.T) {
	l := newLive(t, "SOURCE")
	s := l.source()
	id := l.user(unique("person"))
	for _, change := range []map[string]any{{"RealName": "Other"}, {"Privileged": 0}, {"Disabled": 1}, {"EmailAddress": unique("n") + "@x.example"}} {
		from, _ := s.Mark(t.Context())
		l.call("PUT", "/user/"+id, change)
		until, _ := s.Mark(t.Context())
		p, err := s.Changes(t.Context(), desk.Person, desk.Scope{}, from, until)
		if err != nil || len(p.Items) != 1 || p.Items[0].Ref.ID != id {
			t.Errorf("%v: %v %v", change, p, err)
			continue
		}
		if u, err := s.Read(t.Context(), p.Items[0].Ref); err != nil || u.Stamp.Before(p.Items[0].Stamp) {
			t.Errorf("%v: %+v %v", change, u, err)
		}
	}
}

func TestRTHiddenRows(t *testing.T) {
	l := newLive(t, "TARGET")
	cfg := l.person(t).opt
	acc, err := newAccount(desk.Config{"url": l.cfg["url"], "allow_http": "true", "allow_private": "true", "user": cfg.user, "password": cfg.password}, desk.Deps{HTTP: l.hc})
	if err != nil {
		t.Fatal(err)
	}
	s := &source{acc}
	if err := s.Check(t.Context()); !errors.Is(desk.Class(err), desk.ErrUnauthorized) {
		t.Errorf("Check: %v", err)
	}
	if _, err := s.Mark(t.Context()); !errors.Is(desk.Class(err), desk.ErrUnauthorized) {
		t.Errorf("Mark: %v", err)
	}
}

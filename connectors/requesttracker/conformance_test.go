//go:build rt

package requesttracker

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/desk/desktest"
)

func TestRTConformance(t *testing.T) {
	src, dst := newLive(t, "SOURCE"), newLive(t, "TARGET")
	dst.target("desktest")
	src.cfg["page_size"], dst.cfg["settle"] = "5", "1s"
	o := desktest.Options{
		Connector: Connector, Source: src.cfg, Target: dst.cfg, Other: dst.cfg, Deps: desk.Deps{HTTP: src.hc},
		Seed: seed{src.acc}, TargetSeed: seed{dst.person(t)},
		Fingerprint: func(ctx context.Context) (string, error) {
			c, err := (&source{src.acc}).Mark(ctx)
			return string(c), err
		},
		Mails:   func(context.Context) (int, error) { return dst.mails(), nil },
		Ticket:  desk.Fields{desk.Group: {"General"}, desk.Status: {"open"}, desk.Priority: {"3"}, desk.Due: {"2030-01-02T03:04:05Z"}},
		Update:  desk.Fields{desk.Status: {"resolved"}, desk.Priority: {"4"}, desk.Due: {"2031-01-02T03:04:05Z"}},
		Person:  desk.Fields{desk.Phone: {"+49 30 1"}, desk.Description: {"vip"}},
		Secrets: []string{"password"},
	}
	if cmd := os.Getenv("RT_SOURCE_RESET"); cmd != "" {
		o.Reset = func(ctx context.Context) error { return exec.CommandContext(ctx, "sh", "-c", cmd).Run() }
	} else if os.Getenv("RT_SOURCE_URL") == "" {
		servers, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		o.Reset = servers["SOURCE"].Reset
	}
	hc := http.Client{Transport: both{src, dst}}
	o.Deps.HTTP = &hc
	desktest.Run(t, o)
}

// both reaches either RT: in production each has a client of its own.
type both struct{ src, dst *live }

func (b both) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == b.src.acc.opt.conn.URL.Host {
		return b.src.hc.Transport.RoundTrip(r)
	}
	return b.dst.hc.Transport.RoundTrip(r)
}

// person logs in as somebody who works in the target.
func (l *live) person(t *testing.T) *account {
	t.Helper()
	name := unique("worker")
	l.call("POST", "/user", map[string]any{"Name": name, "EmailAddress": name + "@x.example", "Privileged": 1, "Password": "secret-word"})
	cfg := maps.Clone(l.cfg)
	cfg["user"], cfg["password"] = name, "secret-word"
	acc, err := newAccount(cfg, desk.Deps{HTTP: l.hc})
	if err != nil {
		t.Fatal(err)
	}
	return acc
}

// seed works on an RT as its people do.
type seed struct{ *account }

func (s seed) send(ctx context.Context, method, path string, body, out any) error {
	req := api(method, path, rest.Body{})
	if body != nil {
		req.Body = rest.JSON(body)
	}
	_, err := s.rest.JSON(ctx, req, out)
	return err
}

func (s seed) Create(ctx context.Context, r desk.Record) (desk.Ref, error) {
	var made wireRef
	if r.Ref.Kind == desk.Person {
		mail := r.Fields[desk.Email].First()
		if err := s.send(ctx, "POST", "/user", map[string]any{"Name": mail, "EmailAddress": mail, "RealName": r.Fields[desk.Name].First()}, &made); err != nil {
			return desk.Ref{}, err
		}
		var u wireUser
		err := s.send(ctx, "GET", "/user/"+url.PathEscape(mail), nil, &u)
		return desk.Ref{Kind: desk.Person, ID: string(u.ID)}, err
	}
	body := map[string]any{"Queue": "General", "Subject": r.Fields[desk.Subject].First()}
	es := r.Entries
	if len(es) > 0 && es[0].Public && len(es[0].Files) == 0 {
		body["Content"], body["ContentType"] = es[0].Body, es[0].Type
		es = es[1:]
	}
	if err := s.send(ctx, "POST", "/ticket", body, &made); err != nil {
		return desk.Ref{}, err
	}
	ref := desk.Ref{Kind: desk.Ticket, ID: string(made.ID)}
	if v := r.Fields[desk.Requester]; len(v) > 0 {
		if err := s.send(ctx, "PUT", "/ticket/"+ref.ID, map[string]any{"Requestor": v}, nil); err != nil {
			return ref, err
		}
	}
	return ref, s.Change(ctx, ref, desk.Change{Entries: es})
}

func (s seed) Change(ctx context.Context, ref desk.Ref, c desk.Change) error {
	for _, e := range c.Entries {
		kind := map[bool]string{true: "correspond", false: "comment"}[e.Public]
		body := map[string]any{"Content": e.Body, "ContentType": e.Type}
		var files []up
		for _, f := range e.Files {
			name, ct := safeName(f.Name), f.Type
			if strings.HasPrefix(ct, "text/") {
				ct += "; charset=utf-8"
			}
			if f.Size < 0 {
				r, err := f.Open(ctx)
				if err != nil {
					return err
				}
				if f.Size, err = io.Copy(io.Discard, r); err != nil {
					return err
				}
			}
			files = append(files, up{f, name, ct})
		}
		req := api("POST", "/ticket/"+ref.ID+"/"+kind, rest.JSON(body))
		if len(files) > 0 {
			req.Body = jsonWithFiles(body, files)
		}
		if _, err := s.rest.JSON(ctx, req, nil); err != nil {
			return err
		}
	}
	if len(c.Fields) == 0 {
		return nil
	}
	if ref.Kind == desk.Person {
		body, _ := userBody(c.Fields)
		return s.send(ctx, "PUT", "/user/"+ref.ID, body, nil)
	}
	body, unknown := ticketBody(c.Fields)
	if len(unknown) > 0 {
		return fmt.Errorf("unknown fields %v", unknown)
	}
	if v := c.Fields[desk.Status]; len(v) > 0 {
		body["Status"] = v.First()
	}
	return s.send(ctx, "PUT", "/ticket/"+ref.ID, body, nil)
}

func (s seed) Delete(ctx context.Context, ref desk.Ref) error {
	_, _, _, err := s.rest.Text(ctx, api("DELETE", "/ticket/"+ref.ID, rest.Body{}))
	return err
}

func (s seed) Merge(ctx context.Context, from, into desk.Ref) error {
	return s.send(ctx, "PUT", "/ticket/"+from.ID, map[string]any{"MergeInto": into.ID}, nil)
}

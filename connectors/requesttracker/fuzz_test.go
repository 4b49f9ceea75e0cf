package requesttracker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/desk/desktest"
)

// planted stands where only content does, and must never be in an error.
const planted = "planted words"

// wire is an RT of which every answer is a fuzzer's, without a network.
type wire struct {
	t *testing.T
	// answers by endpoint, as label names it; "texts" is the list of attachments with their Content. An endpoint that is not
	// among them has an empty answer of status 500, as RT has when something in it broke.
	answers map[string]string
	page    func() string // of a history, where a test has it ready
	// faults holds four bits for each of sixteen endpoints; most values are none.
	faults   uint64
	location string
	// most is how many requests there may be: as many as the answers give reason for.
	most     int
	requests int
	sent     map[string]int // requests that are no GET, by endpoint
}

func newWire(t *testing.T, faults uint64, answers map[string]string) *wire {
	w := &wire{t: t, faults: faults, answers: answers, most: 100, sent: map[string]int{}}
	for _, a := range answers {
		w.most += len(a)
	}
	return w
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.requests++; w.requests > w.most {
		return nil, errEndless
	}
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	path := r.URL.Path
	h := http.Header{"Content-Type": {"application/json"}, "Date": {"Thu, 01 Jan 2026 00:00:00 GMT"}, "Etag": {`"9"`}}
	if path == "/NoAuth/Login.html" {
		h.Set("Set-Cookie", "RT_SID_x.80=1")
		return reply(r, http.StatusOK, h, ""), nil
	}
	name := label(r.Method, strings.TrimPrefix(path, apiRoot))
	if !strings.HasPrefix(path, apiRoot) {
		name = r.Method + " " + path
	}
	if strings.Contains(r.URL.String(), "..") || !strings.HasPrefix(path, apiRoot+"/") && path != "/Ticket/Update.html" && path != "/Helpers/Upload/Add" {
		w.t.Errorf("a request to %s", r.URL)
	}
	if r.Method != http.MethodGet {
		w.sent[name]++
		h.Set("Location", w.location)
	} else if r.URL.Query().Get("fields") == "Content" {
		name = "texts"
	}
	answer, ok := w.answers[name]
	if w.page != nil && name == "GET /ticket/N/history" {
		answer, ok = w.page(), true
	}
	if !ok {
		return reply(r, http.StatusInternalServerError, h, ""), nil
	}
	status := map[uint64]int{
		1: http.StatusNotFound, 2: http.StatusInternalServerError, 3: http.StatusFound, 4: http.StatusForbidden, 5: http.StatusTooManyRequests,
		6: http.StatusUnauthorized, 7: http.StatusBadRequest, 8: http.StatusPreconditionFailed, 9: http.StatusNoContent,
	}[w.faults>>(len(name)%16*4)&15]
	if status == 0 {
		status = http.StatusOK
	}
	return reply(r, status, h, answer), nil
}

var errEndless = errors.New("more requests than the answers give reason for")

func reply(r *http.Request, status int, h http.Header, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r}
}

func (w *wire) account() *account {
	w.t.Helper()
	a, err := newAccount(desk.Config{"url": "http://rt.example", "user": "root", "password": planted, "allow_http": "true", "page_size": "2"}, desk.Deps{HTTP: &http.Client{Transport: w}, Migration: "m"})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// target knows the custom fields already.
func (w *wire) target() *target {
	return &target{account: w.account(), ready: true, queues: map[string]cached[[]string]{}, users: map[string]cached[wireUser]{}}
}

// said checks what came of a call: an error has a class and no content, and there was an end.
func (w *wire) said(what string, err error) {
	w.t.Helper()
	var e *desk.Error
	switch {
	case w.requests > w.most:
		w.t.Fatalf("%s: %d requests", what, w.requests)
	case err == nil:
	case !errors.As(err, &e) || e.Class == nil:
		w.t.Errorf("%s: without a class: %v", what, err)
	case strings.Contains(err.Error(), planted):
		w.t.Errorf("%s: says too much: %v", what, err)
	}
}

// canonical checks a record that was read. Times are whatever RT says, and what files of our own are is whatever was written.
func (w *wire) canonical(what string, r desk.Record, ours bool) {
	w.t.Helper()
	if _, err := json.Marshal(r); err != nil {
		w.t.Errorf("%s: cannot be written as JSON: %v", what, err)
	}
	r.Began, r.Stamp.At = at, at
	for i := range r.Entries {
		r.Entries[i].At = at
		for j := range r.Entries[i].Files {
			if x := &r.Entries[i].Files[j]; ours {
				x.Type, x.CID = "", ""
			}
		}
	}
	for i := range r.History {
		r.History[i].At = at
	}
	for _, p := range desktest.Canonical(r, desk.Ticket, desk.Person) {
		w.t.Errorf("%s: %s", what, p)
	}
}

// bubble runs f where waiting takes no time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// rows makes the answer of a collection.
func rows(items ...string) string {
	return fmt.Sprintf(`{"total":%d,"items":[%s]}`, len(items), strings.Join(items, ","))
}

// odd are things that may stand where RT writes a number or a word.
var odd = []string{
	`""`, `null`, `0`, `-1`, `"-1"`, `7`, `"7"`, `7.5`, `1e3`, `9223372036854775807`, `"9223372036854775808"`, `"99999999999999999999999999"`, `"007"`, `"7 "`, `"+7"`, `"../../user/7"`,
	`"7?x=1"`, `{}`, `[]`, `[7]`, `{"id":7}`, `{"id":"` + planted + `"}`, `true`, `"` + planted + `"`, `"\ud800"`, "\"\xff\"", `"\u0000"`, strings.Repeat("[", 3000), `"0001-01-01T00:00:00Z"`, `"9999-12-31T23:59:59-01:00"`,
}

// FuzzRead reads a ticket, as a source and as a target, from answers that may be anything. What comes out is in canonical form,
// or an error with a class; and it comes to an end.
func FuzzRead(f *testing.F) {
	const ref = `{"type":"user","id":"5","Name":"` + planted + `","EmailAddress":"` + planted + `"}`
	txn := func(id, kind, more string) string {
		return `{"id":` + id + `,"Type":"` + kind + `","ObjectType":"RT::Ticket","ObjectId":"7","Created":"2026-01-01T00:00:00Z","Creator":{"type":"user","id":"14","Name":"root"}` + more + `}`
	}
	part := func(id, more string) string {
		return `{"id":` + id + `,"TransactionId":"1","ContentType":"text/plain","Filename":"","Subject":"` + planted + `","Headers":"From: ` + planted + `\nContent-Type: text/plain; x-dd-name=\"` + planted + `\"\n"` + more + `}`
	}
	ticket := func(id, more string) string {
		return `{"id":` + id + `,"EffectiveId":{"id":` + id + `},"type":"ticket","Type":"ticket","Subject":"` + planted + `","Status":"open","Requestor":[` + ref + `],"CustomFields":[{"id":"3","name":"x","values":["` + planted + `"]}]` + more + `}`
	}
	history := rows(txn(`"1"`, "Create", ""), txn(`"2"`, "Comment", `,"TimeTaken":"5"`), txn(`"3"`, "Status", `,"OldValue":"new","NewValue":"open"`))
	parts, texts := rows(part(`"8"`, "")), rows(`{"id":"8","Content":"[m/1 · 2019-03-04 05:06:07 UTC · `+planted+`]\n\nHello\r\n\r\n"}`)
	file := `{"Content":"SGVsbG8=","Headers":"X"}`
	f.Add(history, rows(ticket(`"7"`, "")), "", parts, texts, file, uint64(0))
	f.Add(history, rows(), ticket("7", `,"Status":"deleted"`), parts, rows(), file, uint64(0))
	f.Add(rows(txn("1", "Create", ""), txn("2", "Correspond", "")), rows(ticket(`"7"`, "")), "", rows(
		part("4", `,"ContentType":"multipart/alternative"`), part("5", ""), part("6", `,"ContentType":"text/html"`), part("7", `,"ContentType":"MESSAGE/rfc822"`), part("9", `,"Filename":"../a\r\n.txt","ContentLength":"-5"`),
		part("10", `,"ContentType":"image/PNG; x=y","Headers":"Content-ID: <a<b>\n","ContentLength":3`)), rows(`{"id":5,"Content":"x"}`, `{"id":6,"Content":"<p>x"}`), `{"Content":"/w=="}`, uint64(0))
	many := `{"total":1000000000000,"items":[` + txn("1", "Create", "") + `]}`
	f.Add(many, rows(ticket(`"7"`, "")), "", parts, texts, file, uint64(0))
	f.Add(`{"total":1000000000000,"items":[]}`, rows(ticket(`"7"`, "")), "", parts, texts, file, uint64(0))
	f.Add(`{"total":null,"items":[]}`, rows(ticket(`"7"`, "")), "", parts, texts, file, uint64(0))
	f.Add(rows(txn("2", "Create", ""), txn("1", "Create", "")), rows(ticket(`"7"`, "")), "", parts, texts, file, uint64(0))
	f.Add(rows(txn("1", "Create", ""), txn("1", "Create", "")), rows(ticket(`"7"`, "")), "", parts, texts, file, uint64(0))
	f.Add(history, rows(`{"id":"7","EffectiveId":"8"}`), "", parts, texts, file, uint64(0)) // merged for ever
	for _, o := range odd {
		f.Add(rows(txn(o, "Create", "")), rows(ticket(`"7"`, "")), "", parts, texts, file, uint64(0))
		f.Add(rows(txn(`"1"`, "Create", `,"ObjectId":`+o+`,"Created":`+o+`,"TimeTaken":`+o+`,"Creator":`+o)), rows(ticket(`"7"`, "")), "", parts, texts, file, uint64(0))
		f.Add(history, rows(ticket(o, "")), ticket(o, ""), parts, texts, file, uint64(0))
		f.Add(history, rows(ticket(`"7"`, `,"EffectiveId":`+o+`,"Requestor":`+o+`,"Owner":`+o+`,"CustomRoles":`+o+`,"Created":`+o+`,"TimeWorked":`+o+`,"TimeLeft":`+o+`,"_hyperlinks":`+o)), "", parts, texts, file, uint64(0))
		f.Add(history, rows(ticket(`"7"`, "")), "", rows(part(o, ""), part(`"9"`, `,"ContentType":`+o+`,"ContentLength":`+o+`,"Headers":`+o)), rows(`{"id":`+o+`,"Content":`+o+`}`), o, uint64(0))
	}
	for n := range 16 {
		f.Add(history, rows(ticket(`"7"`, "")), "", parts, rows(), file, uint64(n)*0x1111111111111111)
	}
	f.Fuzz(func(t *testing.T, history, tickets, single, parts, texts, file string, faults uint64) {
		bubble(t, func(t *testing.T) {
			w := newWire(t, faults, map[string]string{
				"GET /ticket/N/history": history, "GET /tickets": tickets, "GET /ticket/N": single, "GET /ticket/N/attachments": parts, "texts": texts, "GET /attachment/N": file,
			})
			ref := desk.Ref{Kind: desk.Ticket, ID: "7"}
			r, err := (&source{w.account()}).Read(t.Context(), ref)
			if w.said("source", err); err == nil {
				w.canonical("source", r, false)
				for _, e := range r.Entries {
					if n := strings.Count(parts, "{"); len(e.Files) > n {
						t.Errorf("%d files of at most %d parts", len(e.Files), n)
					}
				}
			}
			w.requests = 0
			r, err = w.target().Read(t.Context(), ref)
			if w.said("target", err); err == nil {
				w.canonical("target", r, true)
			}
			if len(w.sent) > 0 {
				t.Errorf("reading sent %v", w.sent)
			}
		})
	})
}

// FuzzList takes a mark and lists up to it, from the beginning and from another place. A mark is one that Changes takes, a list
// comes to an end, and what is listed has an id.
func FuzzList(f *testing.F) {
	txns := rows(`{"id":"9","ObjectId":"7","Type":"Status","NewValue":"deleted","Created":"2026-01-01T00:00:00Z"}`, `{"id":"5","ObjectId":"8","Type":"AddLink","Field":"MergedInto","NewValue":"rt://x/ticket/7"}`)
	tickets := rows(`{"id":"7","EffectiveId":"7","Status":"open","LastUpdated":"2026-01-01T00:00:00Z"}`, `{"id":"8","EffectiveId":"7"}`)
	users := rows(`{"id":"5","Name":"`+planted+`"}`, `{"id":"6","Name":"RT_System"}`)
	f.Add(txns, tickets, users, []byte(`{"rt":"rt.example","txn":3,"gaps":[1,2]}`), uint64(0))
	f.Add(strings.Replace(txns, `"total":2`, `"total":99`, 1), strings.Replace(tickets, `"total":2`, `"total":99`, 1), strings.Replace(users, `"total":2`, `"total":1e9`, 1), []byte(`{"rt":"rt.example","txn":0,"all":true}`), uint64(0))
	f.Add(`{"total":99,"items":[]}`, `{"total":99,"items":""}`, `{"total":99}`, []byte(`{"rt":"rt.example","txn":9223372036854775807}}`), uint64(0))
	f.Add(rows(`{"id":"5"}`, `{"id":"100"}`), rows(), rows(), []byte(`null`), uint64(0))
	for _, o := range odd {
		f.Add(rows(`{"id":`+o+`,"ObjectId":"7"}`), rows(`{"id":`+o+`,"EffectiveId":"7"}`), rows(`{"id":`+o+`}`), []byte(`{"rt":"rt.example","txn":`+o+`}`), uint64(0))
		f.Add(rows(`{"id":"1","ObjectId":`+o+`}`), rows(`{"id":"7","EffectiveId":`+o+`}`), rows(`{"id":"5","Name":`+o+`}`), []byte(o), uint64(0))
		f.Add(`{"total":`+o+`,"items":[{"id":"9"},{"id":1}]}`, `{"total":`+o+`,"items":`+o+`}`, `{"total":3,"items":[`+o+`]}`, []byte(`{"rt":"rt.example","txn":9,"gaps":[`+o+`]}`), uint64(0))
	}
	f.Fuzz(func(t *testing.T, txns, tickets, users string, place []byte, faults uint64) {
		bubble(t, func(t *testing.T) {
			w := newWire(t, faults, map[string]string{"GET /transactions": txns, "GET /tickets": tickets, "GET /users": users})
			s := &source{w.account()}
			until := cursor{Site: s.site, ID: 1 << 62}.json()
			if mark, err := s.Mark(t.Context()); err == nil {
				if c, err := s.cursor(mark); err != nil || string(c.json()) != string(mark) {
					t.Errorf("the mark %s is none: %v", mark, err)
				}
				until = mark
			} else {
				w.said("mark", err)
			}
			past, err := s.At(t.Context(), at)
			if w.said("at", err); err == nil {
				if _, err := s.cursor(past); err != nil {
					t.Errorf("the place %s is none: %v", past, err)
				}
			}
			for _, kind := range append(desk.LoadOrder(), "x") {
				for _, from := range []desk.Cursor{nil, place} {
					w.requests = 0
					for n := 0; ; n++ {
						p, err := s.Changes(t.Context(), kind, desk.Scope{}, from, until)
						if w.said("list", err); err != nil {
							break
						}
						for _, l := range p.Items {
							if !isID(l.Ref.ID) || l.Event == desk.Merged && (!isID(l.Into) || l.Into == l.Ref.ID) {
								t.Errorf("listed is %+v", l)
							}
						}
						if from = p.Next; p.Done {
							break
						}
						if _, err := s.cursor(from); err != nil {
							t.Fatalf("the place %s is none: %v", from, err)
						}
					}
				}
				_, err := s.Changes(t.Context(), kind, desk.Scope{}, cursor{Site: s.site}.json(), place)
				if w.said("until", err); err == nil {
					if c, cerr := s.cursor(place); cerr != nil || c.All {
						t.Errorf("%s was taken for a mark: %v", place, cerr)
					}
				}
			}
		})
	})
}

// FuzzDesk asks for everything else that a desk tells of itself: its fields, its people, whether it can be used.
func FuzzDesk(f *testing.F) {
	cf := `{"id":"3","Name":"` + defaultIDField + `","Type":"Select","LookupType":"RT::Queue-RT::Ticket","MaxValues":"1"}`
	f.Add(rows(`{"id":"1","Name":"General","Lifecycle":"default"}`), rows(cf), `{"id":"3","Values":["a"]}`, `{"id":"5","Name":"`+planted+`","EmailAddress":"a@x.example","Privileged":1,"CustomFields":[`+cf+`]}`,
		rows(`{"id":"5","Name":"`+planted+`","EmailAddress":"a@x.example"}`), `{"id":1,"Name":"General","Cc":{"type":"group","id":"4"},"AdminCc":[{"type":"user","id":"`+planted+`"}]}`, rows(`{"id":"5","type":"user"}`), `{"Version":"5.0.3"}`, uint64(0))
	for _, o := range odd {
		f.Add(rows(`{"id":`+o+`,"Name":`+o+`}`), rows(`{"id":`+o+`,"Name":`+o+`,"Type":"Select","LookupType":"RT::Queue-RT::Ticket"}`), `{"Values":`+o+`}`, `{"id":`+o+`,"Name":`+o+`}`,
			rows(`{"id":`+o+`,"EmailAddress":"a@x.example"}`), `{"id":`+o+`,"Cc":`+o+`,"AdminCc":[`+o+`],"RT::CustomRole-1":`+o+`}`, rows(`{"id":`+o+`}`), `{"Version":`+o+`}`, uint64(0))
		f.Add(o, o, o, o, o, o, o, o, uint64(0))
	}
	f.Fuzz(func(t *testing.T, queues, cfs, field, user, users, queue, members, version string, faults uint64) {
		bubble(t, func(t *testing.T) {
			answers := map[string]string{
				"GET /queues": queues, "GET /customfields": cfs, "GET /customroles": cfs, "GET /queue/N/customfields": cfs, "GET /customfield/N": field, "GET /user/N": user, "GET /users": users,
				"GET /queue/N": queue, "GET /group/N/members": members, "GET /rt": version, "GET /transactions": rows(`{"id":"1"}`),
			}
			w := newWire(t, faults, answers)
			tg, src := w.target(), &source{w.account()}
			tg.ready = false
			ask := func(what string, f func() error) {
				w.requests = 0
				w.said(what, f())
			}
			ask("check source", func() error { return src.Check(t.Context()) })
			ask("check target", func() error { return tg.Check(t.Context()) })
			ask("define", func() error {
				d, err := src.Define(t.Context())
				if _, jerr := json.Marshal(d); jerr != nil {
					t.Error(jerr)
				}
				return err
			})
			ask("define target", func() error { _, err := tg.Define(t.Context()); return err })
			ask("read person", func() error {
				r, err := src.Read(t.Context(), desk.Ref{Kind: desk.Person, ID: "5"})
				if err == nil {
					w.canonical("person", r, false)
				}
				return err
			})
			ask("match", func() error {
				ids, err := tg.Match(t.Context(), desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: "1"}, Fields: desk.Fields{desk.Email: {"a@x.example"}}})
				for _, id := range ids {
					if !isID(id) {
						t.Errorf("matches %q", id)
					}
				}
				return err
			})
			ask("watchers", func() error { _, err := tg.watchers(t.Context(), planted); return err })
			if len(w.sent) > 0 {
				t.Errorf("asking sent %v", w.sent)
			}
		})
	})
}

// FuzzWrite writes a ticket, a person and their changes, and gets any answers: JSON, pages of HTML, places. A creation is sent
// once, or once more after a refusal; what is said to have been written has a number.
func FuzzWrite(f *testing.F) {
	single := func(more string) string {
		return `{"id":7,"Type":"ticket","Status":"open","Subject":"` + planted + `","Queue":{"id":"1","Name":"General"},"Owner":{"id":"Nobody"},"_hyperlinks":[{"ref":"self","_url":"http://rt.example/REST/2.0/ticket/7"}]` + more + `}`
	}
	heard := single(`,"Requestor":[{"type":"user","id":"` + planted + `"}]`)
	history := rows(`{"id":"10","Type":"Correspond","ObjectType":"RT::Ticket","ObjectId":"7","Creator":{"id":"14","Name":"root"}}`)
	const place, display, login = "/REST/2.0/transaction/10", "/Ticket/Display.html?id=7", `<form><input name="pass"><input name="user" value="` + planted + `"></form>`
	f.Add(`{"type":"ticket","id":"7"}`, single(""), history, place, "", `{"status":"success"}`, uint64(0))
	f.Add(`{"id":"7"}`, heard, history, display, "<html>"+planted, `{"status":"success"}`, uint64(0))
	f.Add(`{"id":"7"}`, heard, rows(), "http://%zz"+planted, login, `{"status":"success"}`, uint64(0))
	f.Add(`{"message":"Name in use `+planted+`"}`, heard, history+" ", "", login, `{"status":"`+planted+`"}`, uint64(0x7777777777777777))
	f.Add(`{"id":"7"}`, heard, rows(`{"id":"10","Type":"Comment","ObjectId":"7","Creator":{"Name":"root"}}`, `{"id":"11","Type":"EmailRecord","ObjectId":"7","Creator":{"Name":"RT_System"}}`), display, "", "", uint64(0))
	for _, o := range odd {
		f.Add(`{"id":`+o+`}`, single(`,"Requestor":`+o+`,"Owner":`+o+`,"CustomRoles":`+o+`,"_hyperlinks":[{"ref":`+o+`,"_url":`+o+`}]`), history, "/x/"+o, o, `{"status":`+o+`}`, uint64(0))
		f.Add(o, strings.Replace(single(""), "7", o, 1), rows(`{"id":`+o+`,"Type":`+o+`,"Creator":`+o+`}`), o, o, o, uint64(0))
	}
	for n := range 16 {
		f.Add(`{"id":"7","message":"`+planted+`"}`, heard, history, place, login, `{"status":"success"}`, uint64(n)*0x1111111111111111)
	}
	f.Fuzz(func(t *testing.T, made, single, history, place, page, upload string, faults uint64) {
		bubble(t, func(t *testing.T) {
			w := newWire(t, faults, map[string]string{
				"POST /ticket": made, "GET /ticket/N": single, "GET /ticket/N/history": history, "GET /transactions": history, "POST /ticket/N/correspond": page, "POST /ticket/N/comment": page,
				"PUT /ticket/N": made, "DELETE /ticket/N": page, "POST /Ticket/Update.html": page, "POST /Helpers/Upload/Add": upload, "POST /user": made, "PUT /user/N": made,
				"GET /tickets": rows(`{"id":"7","EffectiveId":"7"}`), "GET /ticket/N/attachments": rows(), "GET /queue/N": `{"id":"1","Name":"General"}`,
				"GET /user/N": `{"id":"5","Name":"o","EmailAddress":"o@x.example"}`, "GET /users": rows(`{"id":"5","Name":"o","EmailAddress":"o@x.example"}`),
			})
			w.location = place
			entry := desk.Entry{
				ID: "1", Marker: "m/1", Public: true, At: at, Author: desk.Author{Name: planted}, Subject: planted, Body: planted, Type: "text/html",
				Files: []desk.File{file("f", planted, "text/plain", []byte(planted))},
			}
			note := desk.Entry{ID: "2", Marker: "m/2", At: at, Body: planted}
			ticket, person := desk.Ref{Kind: desk.Ticket, ID: "7"}, desk.Ref{Kind: desk.Person, ID: "5"}
			do := func(what string, f func(*target) (desk.Written, error)) {
				w.requests = 0
				clear(w.sent)
				got, err := f(w.target())
				w.said(what, err)
				if got.ID != "" && !isID(got.ID) {
					t.Errorf("%s: %q was written", what, got.ID)
				}
				for _, id := range got.Entries {
					if !isID(id) {
						t.Errorf("%s: entry %q was written", what, id)
					}
				}
				if err == nil && got.ID == "" {
					t.Errorf("%s: nothing was written, and all is well", what)
				}
				if n := w.sent["POST /ticket"] + w.sent["POST /user"]; n > 2 {
					t.Errorf("%s: %d creations", what, n)
				}
			}
			do("create", func(tg *target) (desk.Written, error) {
				return tg.Create(t.Context(), desk.Record{Ref: ticket, URL: planted, Fields: desk.Fields{desk.Group: {"General"}, desk.Subject: {planted}, desk.Status: {"open"}}, Entries: []desk.Entry{entry}})
			})
			do("create person", func(tg *target) (desk.Written, error) {
				return tg.Create(t.Context(), desk.Record{Ref: person, Fields: desk.Fields{desk.Name: {planted}, desk.Login: {planted}, desk.Email: {"o@x.example"}, desk.Active: {"false"}}})
			})
			do("apply", func(tg *target) (desk.Written, error) {
				return tg.Apply(t.Context(), ticket, desk.Change{Fields: desk.Fields{desk.Status: {"resolved"}, desk.Assignee: {"5"}, desk.Subject: {planted}}, Entries: []desk.Entry{note, entry}})
			})
			do("apply to person", func(tg *target) (desk.Written, error) {
				return tg.Apply(t.Context(), person, desk.Change{Fields: desk.Fields{desk.Name: {planted}}})
			})
			do("merge", func(tg *target) (desk.Written, error) {
				return desk.Written{ID: "7"}, tg.Merge(t.Context(), desk.Ref{Kind: desk.Ticket, ID: "8"}, ticket, "")
			})
			do("delete", func(tg *target) (desk.Written, error) {
				return desk.Written{ID: "7"}, tg.Delete(t.Context(), ticket, "9")
			})
		})
	})
}

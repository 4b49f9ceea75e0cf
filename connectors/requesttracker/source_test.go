package requesttracker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// fakeRT answers what a test tells it to, behind RT's login and what RT does with a request first.
type fakeRT struct {
	t       *testing.T
	older   bool // than Debian's 5.0.3+dfsg-3~deb12u7: takes writes from anywhere, and every field
	handle  func(w http.ResponseWriter, r *http.Request)
	session int // the cookie that is good
	logins  int
	seen    []string
}

func (f *fakeRT) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.seen = append(f.seen, r.Method+" "+r.URL.Path)
	if r.URL.Path == "/NoAuth/Login.html" {
		f.logins++
		if r.PostFormValue("pass") == "right" {
			http.SetCookie(w, &http.Cookie{Name: "RT_SID_x.80", Value: fmt.Sprint(f.session)})
		} else {
			http.SetCookie(w, &http.Cookie{Name: "RT_SID_x.80", Value: "nobody"})
		}
		return
	}
	if c, err := r.Cookie("RT_SID_x.80"); err != nil || c.Value != fmt.Sprint(f.session) {
		http.Redirect(w, r, "/", http.StatusFound)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if !f.older && r.Method != http.MethodGet && !strings.HasPrefix(r.Referer(), "http://"+r.Host+"/") {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"message":"Cross-site request forgery protection refused this request"}`)
		return
	}
	if !f.older && r.Header.Get("Content-Type") == "application/json" {
		r.Body = f.mutable(r.Body)
	}
	f.handle(w, r)
}

// mutable leaves out of a body what REST drops without a word.
func (f *fakeRT) mutable(body io.ReadCloser) io.ReadCloser {
	raw, err := io.ReadAll(body)
	if err != nil {
		f.t.Error(err)
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return io.NopCloser(bytes.NewReader(raw)) // a list
	}
	for _, name := range []string{"id", "Creator", "Created", "LastUpdated", "LastUpdatedBy", "EffectiveId", "IsMerged"} {
		delete(fields, name)
	}
	if raw, err = json.Marshal(fields); err != nil {
		f.t.Error(err)
	}
	return io.NopCloser(bytes.NewReader(raw))
}

func (f *fakeRT) account(password string) *account {
	f.t.Helper()
	srv := httptest.NewServer(f)
	f.t.Cleanup(srv.Close)
	a, err := newAccount(desk.Config{"url": srv.URL, "user": "root", "password": password, "allow_http": "true"}, desk.Deps{HTTP: srv.Client(), Migration: "m"})
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func TestLogin(t *testing.T) {
	f := &fakeRT{t: t, handle: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"total":1,"items":[{"id":"5"}]}`) }}
	s := &source{f.account("right")}
	for range 3 {
		if _, err := s.Mark(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if f.logins != 1 {
		t.Errorf("%d logins for three requests", f.logins)
	}
	f.session++ // RT forgets the session
	if _, err := s.Mark(t.Context()); err != nil || f.logins != 2 {
		t.Errorf("%d logins, %v", f.logins, err)
	}
	bad := &source{f.account("wrong-secret")}
	_, err := bad.Mark(t.Context())
	if !errors.Is(desk.Class(err), desk.ErrUnauthorized) || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("wrong password: %v", err)
	}
}

func TestMarkNotesGaps(t *testing.T) {
	f := &fakeRT{t: t, handle: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", "Thu, 01 Jan 2026 00:00:00 GMT")
		fmt.Fprint(w, `{"total":4,"items":[{"id":"9"},{"id":"8"},{"id":"5"},{"id":"3"}]}`)
	}}
	s := &source{f.account("right")}
	raw, err := s.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.cursor(raw)
	if d := cmp.Diff(cursor{Site: s.site, ID: 9, Gaps: []int64{4, 6, 7}}, c); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestCursorsThatAreNotOurs(t *testing.T) {
	f := &fakeRT{t: t, handle: func(http.ResponseWriter, *http.Request) { t.Error("a request was made") }}
	s := &source{f.account("right")}
	good := cursor{Site: s.site, ID: 9}.json()
	for _, c := range []string{
		"", "null", "{}", "[]", "1", `"x"`, `{"rt":"other","txn":9}`, `{"rt":"` + s.site + `","txn":-1}`, `{"rt":"` + s.site + `","txn":9,"x":1}`,
		`{"rt":"` + s.site + `","txn":9,"gaps":[10]}`, `{"rt":"` + s.site + `","txn":9,"gaps":[0]}`, `{"rt":"` + s.site + `","txn":9}{}`, `{"rt":"` + s.site + `","all":true}`,
	} {
		if _, err := s.Changes(t.Context(), desk.Ticket, desk.Scope{}, good, desk.Cursor(c)); !errors.Is(desk.Class(err), desk.ErrCursor) {
			t.Errorf("until %q: %v", c, err)
		}
	}
	if _, err := s.Changes(t.Context(), desk.Ticket, desk.Scope{}, cursor{Site: s.site, ID: 10}.json(), good); !errors.Is(desk.Class(err), desk.ErrCursor) {
		t.Errorf("a desk that went back in time: %v", err)
	}
	for _, k := range []desk.Kind{desk.Ticket, desk.Person} {
		if p, err := s.Changes(t.Context(), k, desk.Scope{}, good, good); err != nil || !p.Done || len(p.Items) > 0 {
			t.Errorf("an interval that is empty: %v %v", p, err)
		}
	}
}

// Texts that the list of unnamed ones left out are not lost.
func TestTextsThatTheListLeavesOut(t *testing.T) {
	f := &fakeRT{t: t}
	f.handle = func(w http.ResponseWriter, r *http.Request) {
		switch path := strings.TrimPrefix(r.URL.Path, apiRoot); {
		case path == "/ticket/7/history":
			fmt.Fprint(w, `{"total":1,"items":[{"id":"1","Type":"Create","ObjectId":"7","ObjectType":"RT::Ticket"}]}`)
		case path == "/tickets":
			fmt.Fprint(w, `{"total":1,"items":[{"id":"7","EffectiveId":"7"}]}`)
		case path == "/ticket/7/attachments" && r.URL.Query().Get("fields") == "Content":
			fmt.Fprint(w, `{"total":0,"items":[]}`)
		case path == "/ticket/7/attachments":
			fmt.Fprint(w, `{"total":1,"items":[{"id":"3","TransactionId":"1","ContentType":"text/plain","Filename":""}]}`)
		case path == "/attachment/3":
			fmt.Fprint(w, `{"Content":"SGVsbG8="}`)
		}
	}
	r, err := (&source{f.account("right")}).Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: "7"})
	if err != nil || len(r.Entries) != 1 || r.Entries[0].Body != "Hello" {
		t.Errorf("%+v %v", r.Entries, err)
	}
}

// A number that was missing at the mark and has come since is listed, and not for ever.
func TestFeedLooksIntoGaps(t *testing.T) {
	var query []string
	f := &fakeRT{t: t, handle: func(w http.ResponseWriter, r *http.Request) {
		query = append(query, r.URL.Query().Get("query"))
		fmt.Fprint(w, `{"total":1,"items":[{"id":"4","ObjectId":"70","Type":"Correspond","Created":"2026-01-01T00:00:00Z"}]}`)
	}}
	s := &source{f.account("right")}
	until := cursor{Site: s.site, ID: 9}.json()
	p, err := s.Changes(t.Context(), desk.Ticket, desk.Scope{}, cursor{Site: s.site, ID: 9, Gaps: []int64{4, 6}}.json(), until)
	if err != nil || len(p.Items) != 1 || p.Items[0].Stamp.Seq != 4 || !p.Done || string(p.Next) != string(until) {
		t.Errorf("%+v %v", p, err)
	}
	many := cursor{Site: s.site, ID: 900}
	for g := range int64(200) {
		many.Gaps = append(many.Gaps, 500+g)
	}
	if _, err := s.Changes(t.Context(), desk.Person, desk.Scope{}, many.json(), cursor{Site: s.site, ID: 900}.json()); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff("(id > 499) AND id <= 900 AND ObjectType = 'RT::User'", query[1]); d != "" {
		t.Error(d)
	}
	query = query[:1]
	want := []string{"(id > 9 OR id = 4 OR id = 6) AND id <= 9 AND ObjectType = 'RT::Ticket' AND TicketType = 'ticket'"}
	if d := cmp.Diff(want, query); d != "" {
		t.Error(d)
	}
}

func TestDigestOfTransactions(t *testing.T) {
	raw := `[{"id":"1","ObjectId":"7","Type":"Create"},{"id":"2","ObjectId":"8","Type":"Create"},
	{"id":"3","ObjectId":"7","Type":"Status","Field":"Status","NewValue":"deleted"},{"id":"4","ObjectId":"7","Type":"Status","NewValue":"open"},
	{"id":"5","ObjectId":"8","Type":"AddLink","Field":"MergedInto","NewValue":"fsck.com-rt://x/ticket/7"},
	{"id":"6","ObjectId":"7","Type":"AddLink","Field":"MergedInto","NewValue":"fsck.com-rt://x/ticket/7"},
	{"id":"7","ObjectId":"9","Type":"Set","Field":"Status","NewValue":"deleted"}]`
	var txns list[wireTxn]
	if err := json.Unmarshal([]byte(raw), &txns); err != nil {
		t.Fatal(err)
	}
	ref := func(id string) desk.Ref { return desk.Ref{Kind: desk.Ticket, ID: id} }
	want := []desk.Listed{
		{Ref: ref("8"), Stamp: desk.Stamp{Seq: 5}, Event: desk.Merged, Into: "7"},
		{Ref: ref("7"), Stamp: desk.Stamp{Seq: 6}},
		{Ref: ref("9"), Stamp: desk.Stamp{Seq: 7}, Event: desk.Deleted},
	}
	if d := cmp.Diff(want, digest(desk.Ticket, txns)); d != "" {
		t.Error(d)
	}
}

// Rows that RT hides would look like the end of a listing.
func TestHiddenRows(t *testing.T) {
	f := &fakeRT{t: t, handle: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"total":null,"items":[]}`) }}
	s := &source{f.account("right")}
	all := cursor{Site: s.site, ID: 9}.json()
	ask := map[string]func() error{
		"mark":    func() error { _, err := s.Mark(t.Context()); return err },
		"tickets": func() error { _, err := s.Changes(t.Context(), desk.Ticket, desk.Scope{}, nil, all); return err },
		"people":  func() error { _, err := s.Changes(t.Context(), desk.Person, desk.Scope{}, nil, all); return err },
		"feed": func() error {
			_, err := s.Changes(t.Context(), desk.Ticket, desk.Scope{}, cursor{Site: s.site}.json(), all)
			return err
		},
		"read": func() error { _, err := s.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: "1"}); return err },
	}
	for name, do := range ask {
		if err := do(); !errors.Is(desk.Class(err), desk.ErrUnauthorized) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenFile(t *testing.T) {
	content := bytes.Repeat([]byte("\x00\xff/+abc"), 5000)
	wrapped := func(b []byte) string {
		var out strings.Builder
		s := base64.StdEncoding.EncodeToString(b)
		for len(s) > 76 {
			out.WriteString(s[:76] + "\n")
			s = s[76:]
		}
		j, _ := json.Marshal(out.String() + s + "\n")
		return string(j)
	}
	for name, c := range map[string]struct {
		answer string
		size   int64
		want   []byte
		class  error
	}{
		"last":        {`{"Headers":"a: \"{\\\\\u00e4","Parent":{"Content":"no"},"Content":` + wrapped(content) + "}", int64(len(content)), content, nil},
		"first":       {`{"Content":` + wrapped(content) + `,"id":7,"_hyperlinks":[{"Content":"x"}]}` + "\n", -1, content, nil},
		"escaped /":   {`{"Content":"` + strings.ReplaceAll(base64.StdEncoding.EncodeToString(content), "/", `\/`) + `"}`, -1, content, nil},
		"empty":       {`{"id":7}`, 0, nil, nil},
		"empty, told": {`{"id":7,"Content":""}`, 0, nil, nil},
		"cut inside":  {`{"Content":` + wrapped(content)[:3000], -1, nil, desk.ErrTransient},
		"cut after":   {`{"Content":` + wrapped(content) + `,"id":`, -1, nil, desk.ErrTransient},
		"too short":   {`{"Content":` + wrapped(content) + "}", int64(len(content)) + 1, nil, desk.ErrTransient},
		"no base64":   {`{"Content":"\u00e4\u00e4"}`, -1, nil, desk.ErrTransient},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeRT{t: t, handle: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.answer) }}
			r, err := f.account("right").OpenFile(t.Context(), desk.Ref{}, desk.File{ID: "7", Size: c.size})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if c.class != nil {
				if !errors.Is(desk.Class(err), c.class) || err == nil {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestOpenFileStreams(t *testing.T) {
	const lines = 1 << 18 // of 57 bytes: 15 MB
	line := base64.StdEncoding.EncodeToString(make([]byte, 57)) + `\n`
	f := &fakeRT{t: t, handle: func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"Content":"`)
		for range lines {
			_, _ = io.WriteString(w, line)
		}
		fmt.Fprint(w, `"}`)
	}}
	a := f.account("right")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := a.OpenFile(t.Context(), desk.Ref{}, desk.File{ID: "7", Size: lines * 57})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); n != lines*57 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if d := after.TotalAlloc - before.TotalAlloc; d > 8<<20 {
		t.Errorf("%d MiB were allocated", d>>20)
	}
}

func TestOptions(t *testing.T) {
	good := desk.Config{"url": "https://rt.example", "user": "u", "password": "p-secret"}
	for name, c := range map[string]struct {
		set map[string]string
		err string
	}{
		"good":             {nil, ""},
		"no password":      {map[string]string{"password": ""}, "missing"},
		"token":            {map[string]string{"user": "", "password": "", "token": "t"}, ""},
		"both":             {map[string]string{"token": "t"}, "exclude"},
		"guard off":        {map[string]string{"mail_guard": "off"}, "loopback"},
		"guard off, local": {map[string]string{"mail_guard": "off", "url": "http://127.0.0.1:1", "allow_http": "true"}, ""},
		"guard":            {map[string]string{"mail_guard": "maybe"}, "on or off"},
		"settle":           {map[string]string{"settle": "1"}, "duration"},
		"page":             {map[string]string{"page_size": "101"}, "1 to 100"},
		"field":            {map[string]string{"source_id_field": "a}'"}, "braces"},
		"unknown":          {map[string]string{"pasword": "x-secret"}, "unknown option"},
	} {
		cfg := desk.Config{}
		for k, v := range good {
			cfg[k] = v
		}
		for k, v := range c.set {
			cfg[k] = v
		}
		_, err := readOptions(cfg)
		if (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, o := range Connector.Options {
		if !strings.Contains(strings.Join(optionNames, " "), o.Name) {
			t.Errorf("option %s is not in optionNames", o.Name)
		}
	}
	if got := Connector.TargetSide(desk.Config{"url": "https://x", "user": "u", "password": "p", "settle": "5s"}).Settle; got != 5*time.Second {
		t.Errorf("settle %v", got)
	}
	if _, err := Connector.NewTarget(desk.Config{"url": "https://x", "token": "t"}, desk.Deps{HTTP: http.DefaultClient}); err == nil {
		t.Error("a target with a token")
	}
}

// What a list may be like and what not: ids as numbers are as good as ids as words; a list that promises more and shows nothing
// more, or the same again, is no answer, and neither is one that shows a transaction twice.
func TestListsOfAnyKind(t *testing.T) {
	page := func(total int, from, to int) string {
		var items []string
		for n := from; n <= to; n++ {
			items = append(items, fmt.Sprintf(`{"id":%d,"Type":"Comment","ObjectId":7,"ObjectType":"RT::Ticket"}`, n))
		}
		return fmt.Sprintf(`{"total":%d,"items":[%s]}`, total, strings.Join(items, ","))
	}
	for name, c := range map[string]struct {
		pages []string // the last one again and again
		want  int      // entries; -1 for an error
	}{
		"numbers":       {[]string{page(3, 1, 3)}, 3},
		"two pages":     {[]string{page(150, 1, 100), page(150, 101, 150)}, 150},
		"nothing more":  {[]string{page(1e9, 1, 100), page(1e9, 1, 0)}, -1},
		"the same":      {[]string{page(1e9, 1, 100)}, -1},
		"a late commit": {[]string{page(150, 1, 100), page(151, 100, 150)}, -1},
		"no number":     {[]string{`{"total":1,"items":[{"Type":"Comment"}]}`}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t, 0, map[string]string{"GET /tickets": rows(`{"id":7,"EffectiveId":7}`), "GET /ticket/N/attachments": rows()})
				n := 0
				w.page = func() string {
					n++
					return c.pages[min(n, len(c.pages))-1]
				}
				r, err := (&source{w.account()}).Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: "7"})
				if c.want < 0 {
					if !errors.Is(desk.Class(err), desk.ErrTransient) || n > 10 {
						t.Errorf("after %d pages: %v", n, err)
					}
					return
				}
				if err != nil || len(r.Entries) != c.want {
					t.Errorf("%d entries, %v", len(r.Entries), err)
				}
			})
		})
	}
}

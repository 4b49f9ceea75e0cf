package requesttracker

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/desk"
)

func newTestTarget(f *fakeRT) *target {
	return &target{account: f.account("right"), ready: true, queues: map[string]cached[[]string]{}, users: map[string]cached[wireUser]{}}
}

// A creation is sent once, whatever happens to it, and only a clear no is an answer.
func TestCreateIsNeverRepeated(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		class  error
	}{
		"error page": {500, "", desk.ErrTransient},
		"refusal":    {400, `{"message":"Subject holds secret words"}`, desk.ErrRejected},
		"no queue":   {403, `{"message":"No permission to create tickets in the queue 'x'"}`, desk.ErrRejected},
		"no JSON":    {201, "<html>", desk.ErrTransient},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeRT{t: t}
			f.handle = func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					fmt.Fprint(w, `{"id":1,"Name":"General"}`)
					return
				}
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}
			w, err := newTestTarget(f).Create(t.Context(), desk.Record{
				Ref: desk.Ref{Kind: desk.Ticket, ID: "9"}, Fields: desk.Fields{desk.Group: {"General"}, desk.Subject: {"secret words"}},
			})
			if !errors.Is(desk.Class(err), c.class) || w.ID != "" || strings.Contains(err.Error(), "secret words") {
				t.Errorf("%+v %v", w, err)
			}
			if n := strings.Count(strings.Join(f.seen, "\n"), "POST /REST/2.0/ticket"); n != 1 {
				t.Errorf("%d creations", n)
			}
		})
	}
}

// A status in which RT lets no ticket begin is left to Apply. The refusal has made nothing, so asking again is no repetition.
func TestCreateInAStatusThatIsNoBeginning(t *testing.T) {
	var sent []any
	f := &fakeRT{t: t}
	f.handle = func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, `{"id":1,"Name":"General"}`)
			return
		}
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		sent = append(sent, body["Status"])
		if body["Status"] != nil {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"message":"New tickets can not have status 'rejected' in this queue."}`)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
	}
	tg := newTestTarget(f)
	r := desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "9"}, Fields: desk.Fields{desk.Group: {"General"}, desk.Status: {"rejected"}}}
	if _, err := tg.Create(t.Context(), r); !errors.Is(err, desk.ErrTransient) {
		t.Error(err)
	}
	if d := cmp.Diff([]any{"rejected", nil}, sent); d != "" {
		t.Error(d)
	}
}

func TestCreateBody(t *testing.T) {
	var sent map[string]any
	f := &fakeRT{t: t, older: true}
	f.handle = func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			_ = json.NewDecoder(r.Body).Decode(&sent)
			w.WriteHeader(http.StatusInternalServerError)
		case strings.HasSuffix(r.URL.Path, "/queue/Support"):
			fmt.Fprint(w, `{"id":3,"Name":"Support","AdminCc":[{"type":"user","id":"w"},{"type":"group","id":"8"}]}`)
		case strings.HasSuffix(r.URL.Path, "/user/w"):
			fmt.Fprint(w, `{"id":4,"Name":"w","EmailAddress":"w@x.example"}`)
		case strings.HasSuffix(r.URL.Path, "/user/27"):
			fmt.Fprint(w, `{"id":27,"Name":"o","EmailAddress":"o@x.example"}`)
		case strings.HasSuffix(r.URL.Path, "/group/8/members"):
			fmt.Fprint(w, `{"total":1,"items":[{"id":5,"type":"user"}]}`)
		case strings.HasSuffix(r.URL.Path, "/user/5"):
			fmt.Fprint(w, `{"id":5,"Name":"g","EmailAddress":"g@x.example"}`)
		default:
			t.Error(r.URL.Path)
		}
	}
	e := desk.Entry{ID: "1", Marker: "m/1", Public: true, At: at, Author: desk.Author{Name: "A"}, Body: "b", Type: "text/plain", Minutes: 3}
	_, _ = newTestTarget(f).Create(t.Context(), desk.Record{
		Ref: desk.Ref{Kind: desk.Ticket, ID: "9"}, URL: "https://src/9", Entries: []desk.Entry{e},
		Fields: desk.Fields{
			desk.Group: {"Support"}, desk.Subject: {"s"}, desk.Status: {"resolved"}, desk.Created: {"2019-03-04T05:06:07Z"}, desk.Assignee: {"27"},
			desk.Requester: {"5"}, desk.CC: {"6"}, desk.Followers: {"7"}, desk.TimeWorked: {"40"}, desk.Custom("Tags"): {"a", "b"},
		},
	})
	want := map[string]any{
		"Queue": "Support", "Subject": "s", "Status": "resolved", "Created": "2019-03-04 05:06:07", "Owner": "27", "TimeWorked": 3.0,
		"Content": "[m/1 · 2019-03-04 05:06:07 UTC · A]\n\nb", "ContentType": `text/plain; x-dd-subject=""`,
		"CustomFields":       map[string]any{"Tags": []any{"a", "b"}, defaultIDField: "m/9", defaultURLField: "https://src/9"},
		"TransSquelchMailTo": map[string]any{"type": "user", "_url": "-", "id": []any{"w@x.example", "g@x.example", "o@x.example"}},
	}
	if d := cmp.Diff(want, sent); d != "" {
		t.Error(d)
	}
}

// When a ticket was made is told to every RT. One of them keeps it and another one does not, and what the write says is what RT shows.
func TestCreatedAsRTHasIt(t *testing.T) {
	const told, own = "2019-03-04T05:06:07Z", "2026-11-30T21:49:31Z"
	for older, want := range map[bool]string{true: told, false: own} {
		f := &fakeRT{t: t, older: older}
		made := own
		f.handle = func(w http.ResponseWriter, r *http.Request) {
			switch r.Method + " " + strings.TrimPrefix(r.URL.Path, apiRoot) {
			case "GET /queue/General":
				fmt.Fprint(w, `{"id":1,"Name":"General"}`)
			case "POST /ticket":
				var body struct{ Created string }
				if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
					t.Error(err)
				}
				if body.Created != "" {
					made = strings.Replace(body.Created, " ", "T", 1) + "Z"
				}
				w.WriteHeader(http.StatusCreated)
				fmt.Fprint(w, `{"type":"ticket","id":"7"}`)
			case "GET /ticket/7/history":
				fmt.Fprintf(w, `{"total":1,"items":[{"id":"70","Type":"Create","ObjectType":"RT::Ticket","ObjectId":"7","Created":%q,"Creator":{"type":"user","id":"14","Name":"root"}}]}`, own)
			case "GET /tickets":
				fmt.Fprintf(w, `{"total":1,"items":[{"id":"7","EffectiveId":{"id":"7"},"Type":"ticket","Subject":"s","Status":"new","Created":%q,
					"CustomFields":[{"id":"3","name":%q,"values":["m/9"]}]}]}`, made, defaultIDField)
			case "GET /ticket/7/attachments":
				fmt.Fprint(w, `{"total":0,"items":[]}`)
			default:
				t.Error(r.Method, r.URL.Path)
			}
		}
		w, err := newTestTarget(f).Create(t.Context(), desk.Record{
			Ref: desk.Ref{Kind: desk.Ticket, ID: "9"}, Fields: desk.Fields{desk.Group: {"General"}, desk.Subject: {"s"}, desk.Created: {told}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Now.Fields[desk.Created].First(); got != want {
			t.Errorf("an older RT: %t; made at %s, want %s", older, got, want)
		}
	}
}

// Whom RT would mail, and does not name, cannot be left out: such a queue gets no ticket.
func TestQueueWatchedByAHiddenGroup(t *testing.T) {
	f := &fakeRT{t: t, handle: func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/queue/Support") {
			fmt.Fprint(w, `{"id":3,"Name":"Support","AdminCc":[{"type":"group","id":"4"}]}`)
			return
		}
		if r.Method != http.MethodGet {
			t.Error("a ticket was made")
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"Not Found"}`)
	}}
	w, err := newTestTarget(f).Create(t.Context(), desk.Record{
		Ref: desk.Ref{Kind: desk.Ticket, ID: "9"}, Fields: desk.Fields{desk.Group: {"Support"}, desk.Subject: {"s"}},
	})
	if !errors.Is(desk.Class(err), desk.ErrRejected) || w.ID != "" || !strings.Contains(err.Error(), "group that watches") {
		t.Errorf("%+v %v", w, err)
	}
}

func TestMailedBecauseOfUs(t *testing.T) {
	tg := &target{account: testAccount()}
	by := func(name, typ string, id int64) wireTxn {
		return wireTxn{ID: number(id), Type: str(typ), Creator: wireRef{Name: str(name)}}
	}
	for name, c := range map[string]struct {
		txns []wireTxn
		want bool
	}{
		"ours":          {[]wireTxn{by("root", "Correspond", 11), by("RT_System", "EmailRecord", 12)}, true},
		"comment":       {[]wireTxn{by("ROOT", "Comment", 11), by("RT_System", "Status", 12), by("RT_System", "CommentEmailRecord", 13)}, true},
		"an agent's":    {[]wireTxn{by("root", "Correspond", 11), by("anna", "Correspond", 12), by("RT_System", "EmailRecord", 13)}, false},
		"earlier":       {[]wireTxn{by("root", "Correspond", 9), by("RT_System", "EmailRecord", 10), by("root", "Set", 11)}, false},
		"silent":        {[]wireTxn{by("root", "Correspond", 11)}, false},
		"agent earlier": {[]wireTxn{by("anna", "Correspond", 9), by("RT_System", "EmailRecord", 10), by("root", "Set", 11)}, false},
	} {
		if err := tg.mailed(c.txns, 10); errors.Is(desk.Class(err), desk.ErrMailed) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefused(t *testing.T) {
	got := desk.Fields{desk.Status: {"open"}, desk.CC: {"1", "2"}, desk.Priority: {"0"}, desk.Custom("x"): {"a"}}
	if err := refused("op", desk.Fields{desk.CC: {"2", "1", "1"}, desk.Priority: nil, desk.TimeLeft: {"0"}, desk.Due: nil}, got); err != nil {
		t.Error(err)
	}
	err := refused("op", desk.Fields{desk.Status: {"private words"}, desk.Assignee: {"7"}, desk.Custom("x"): nil}, got)
	if !errors.Is(desk.Class(err), desk.ErrRejected) || err.Error() != "op: refused by the desk: RT did not take assignee, custom.x, status" {
		t.Error(err)
	}
}

func TestFilesInJSON(t *testing.T) {
	ups := []up{
		{file("1", "", "", nil), "ü😀.txt", "text/plain; charset=utf-8"},
		{file("2", "", "", []byte(strings.Repeat("abcde", 9999))), "b", "image/png"},
	}
	body := jsonWithFiles(map[string]any{"Content": "c"}, ups)
	r, err := body.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil || int64(len(raw)) != body.Length {
		t.Fatalf("%d bytes, %d announced, %v", len(raw), body.Length, err)
	}
	var got struct {
		Content     string
		Attachments []struct{ FileName, FileType, FileContent string }
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	name := make([]byte, 0, 20)
	for _, c := range got.Attachments[0].FileName {
		name = append(name, byte(c))
	}
	second, err := base64.StdEncoding.DecodeString(got.Attachments[1].FileContent)
	if string(name) != "ü😀.txt" || got.Attachments[0].FileContent != " " || len(second) != 5*9999 || err != nil || got.Content != "c" {
		t.Errorf("%q %v", name, err)
	}
	ups[1].file.Size = -1
	if n := jsonWithFiles(map[string]any{}, ups).Length; n != -1 {
		t.Errorf("a length was announced for a file of unknown size: %d", n)
	}
}

// RT is asked to delete or merge a ticket only as it was read, and a no to that is a conflict.
func TestGoesAsRead(t *testing.T) {
	ref := desk.Ref{Kind: desk.Ticket, ID: "7"}
	for what, do := range map[string]func(*target, string) error{
		"delete": func(tg *target, lock string) error { return tg.Delete(t.Context(), ref, lock) },
		"merge": func(tg *target, lock string) error {
			return tg.Merge(t.Context(), ref, desk.Ref{Kind: desk.Ticket, ID: "8"}, lock)
		},
	} {
		for lock, want := range map[string]string{"": "", "135": `"135"`} {
			asked := "nothing"
			f := &fakeRT{t: t, handle: func(w http.ResponseWriter, r *http.Request) {
				asked = r.Header.Get("If-Match")
				w.WriteHeader(http.StatusPreconditionFailed)
			}}
			if err := do(newTestTarget(f), lock); !errors.Is(desk.Class(err), desk.ErrConflict) || asked != want {
				t.Errorf("%s with lock %q: If-Match is %q, and a refusal %v", what, lock, asked, err)
			}
		}
	}
}

func TestFindIsExact(t *testing.T) {
	var query string
	f := &fakeRT{t: t, handle: func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Query().Get("query")
		fmt.Fprintf(w, `{"total":2,"items":[{"id":"1","CustomFields":[{"name":%q,"values":["M/A'1"]}]},{"id":"2","CustomFields":[{"name":%q,"values":["m/a'1"]}]}]}`, defaultIDField, defaultIDField)
	}}
	ids, err := newTestTarget(f).Find(t.Context(), desk.Ref{Kind: desk.Ticket, ID: "a'1"})
	if d := cmp.Diff([]string{"2"}, ids); d != "" || err != nil || query != `'CF.{Deltadesk Source ID}' = 'm/a\'1' AND EffectiveId > 0` {
		t.Error(d, err, query)
	}
}

func TestKept(t *testing.T) {
	sent := []desk.Entry{{ID: "1", Marker: "m/1", Files: []desk.File{{ID: "a", Size: 3}, {ID: "b", Size: -1}}}}
	there := func(fs ...desk.File) desk.Record {
		return desk.Record{Entries: []desk.Entry{{Marker: "m/1", Files: fs}}}
	}
	for name, c := range map[string]struct {
		now  desk.Record
		txns []wireTxn
		want error
	}{
		"all":     {there(desk.File{Size: 3}, desk.File{Size: 9}), []wireTxn{{ID: 5, Type: "AttachmentDrop"}}, nil},
		"none":    {desk.Record{}, nil, desk.ErrTransient},
		"one":     {there(desk.File{Size: 3}), nil, desk.ErrRejected},
		"short":   {there(desk.File{Size: 2}, desk.File{Size: 9}), nil, desk.ErrRejected},
		"dropped": {there(desk.File{Size: 3}, desk.File{Size: 9}), []wireTxn{{ID: 11, Type: "AttachmentDrop"}}, desk.ErrRejected},
	} {
		if err := kept("op", c.txns, 10, c.now, sent); !errors.Is(desk.Class(err), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The README describes every option.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range Connector.Options {
		if !strings.Contains(string(b), "| `"+o.Name+"` |") {
			t.Errorf("option %s is missing", o.Name)
		}
	}
	for class := range Connector.TargetSide(nil).Losses {
		if !strings.Contains(string(b), "`"+class+"`") {
			t.Errorf("loss %s is missing", class)
		}
	}
}

package requesttracker

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/desk"
)

var update = flag.Bool("update", false, "write golden files anew")

type vendorFile struct {
	Ticket wireTicket           `json:"ticket"`
	Txns   list[wireTxn]        `json:"txns"`
	Parts  list[wireAttachment] `json:"parts"`
	Texts  list[wireAttachment] `json:"texts"`
}

func (v vendorFile) thread() thread {
	t := thread{ticket: v.Ticket, txns: v.Txns, parts: v.Parts, texts: map[number]string{}}
	for _, p := range v.Texts {
		t.texts[p.ID] = string(p.Content)
	}
	return t
}

func testAccount() *account {
	return &account{opt: options{conn: mustConn("http://rt.example"), user: "root", idField: defaultIDField, urlField: defaultURLField}}
}

// testdata/<case>/vendor.json is what RT 5.0.3 said, desk.json what is made of it; desk.json of "written" is what a target
// makes of a ticket of its own.
func TestGolden(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*/vendor.json")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no test data", err)
	}
	for _, name := range dirs {
		dir := filepath.Dir(name)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var v vendorFile
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Fatal(err)
			}
			a := testAccount()
			r := a.record(v.thread(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
			if filepath.Base(dir) == "written" {
				r = (&target{account: a}).present(v.thread(), r.Began)
			}
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			e.SetIndent("", " ")
			if err := e.Encode(r); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join(dir, "desk.json")
			if *update {
				if err := os.WriteFile(golden, b.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Error(d)
			}
		})
	}
}

// Whatever RT says, reading it does not panic, and what comes out is a valid record.
func FuzzThread(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/vendor.json")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"ticket":{"id":7,"CustomFields":"","EffectiveId":{"id":"7"},"CustomRoles":{"RT::CustomRole-1":{"type":"user","id":1}}},"txns":""}`))
	f.Add([]byte(`{"parts":[{"id":"1","Headers":"Content-Type: x; x-dd-name=\"%"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v vendorFile
		if json.Unmarshal(b, &v) != nil {
			return
		}
		r := (&target{account: testAccount()}).present(v.thread(), time.Time{})
		for f, vs := range r.Fields {
			for _, s := range vs {
				if s == "" {
					t.Errorf("an empty string is a value of %s", f)
				}
			}
		}
	})
}

func TestUpload(t *testing.T) {
	for _, c := range []struct {
		f          desk.File
		exact      bool
		name, kind string
	}{
		{desk.File{Name: "a.txt", Type: "text/plain"}, true, "a.txt", "text/plain; charset=utf-8"},
		{desk.File{Name: "a.txt", Type: "text/plain"}, false, "a.txt", `application/octet-stream; x-dd-type="text%2Fplain"`},
		{desk.File{Name: "", Type: "image/png", CID: "a@b", Inline: true}, true, "(unnamed)", `image/png; x-dd-name=""; x-dd-cid="a%40b"; x-dd-inline=1`},
		{desk.File{Name: "0", Type: ""}, true, "(0)", `application/octet-stream; x-dd-type=""; x-dd-name="0"`},
		{desk.File{Name: "x", Type: "multipart/mixed"}, true, "x", `application/octet-stream; x-dd-type="multipart%2Fmixed"`},
		{desk.File{Name: "../../\"e\r\nx\\", Type: "a/b\r\nX: y"}, true, "..／..／＂e��x＼", `application/octet-stream; x-dd-type="a%2Fb%0D%0AX%3A%20y"; x-dd-name="..%2F..%2F%22e%0D%0Ax%5C"`},
	} {
		name, kind := upload(c.f, c.exact)
		if name != c.name || kind != c.kind {
			t.Errorf("%q: %q %s", c.f.Name, name, kind)
		}
		got := desk.File{Name: name, Type: mediaTypeOf(strings.Split(kind, ";")[0])}
		wireAttachment{Headers: str("Content-Type: " + kind), ContentLength: "0"}.own(&got)
		if d := cmp.Diff(c.f, got); d != "" {
			t.Error(d)
		}
	}
}

func FuzzUpload(f *testing.F) {
	f.Add("a.txt", "text/plain", "c@d")
	f.Add(strings.Repeat("ü/", 200), "x", "%41\"")
	f.Fuzz(func(t *testing.T, name, kind, cid string) {
		want := desk.File{Name: name, Type: kind, CID: cid}
		safe, ct := upload(want, false)
		if safe == "" || safe == "0" || len(safe) > 255 || strings.ContainsAny(safe, "/\\\"\r\n\x00") || strings.ContainsAny(ct, "\r\n") {
			t.Errorf("%q %q", safe, ct)
		}
		got := desk.File{Name: safe, Type: mediaTypeOf(strings.Split(ct, ";")[0])}
		wireAttachment{Headers: str("Content-Type: " + ct)}.own(&got)
		got.Size = 0
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

func TestSameWords(t *testing.T) {
	for _, c := range []struct {
		plain, markup string
		want          bool
	}{
		{"Hi *you*\n> 1", "<p>Hi <b>you</b></p><blockquote>1</blockquote>", true},
		{"Grüße & more", "<style>p{}</style>Gr&uuml;&szlig;e &amp; more", true},
		{"Hi", "<p>Hi you</p>", false},
		{"Hi you", "<p>Hi</p>", false},
	} {
		if got := sameWords(c.plain, c.markup); got != c.want {
			t.Errorf("%q: %t", c.plain, got)
		}
	}
}

func TestExactText(t *testing.T) {
	for s, want := range map[string]bool{"": true, "ä\r\n\x00😀": true, "\xef\xbb\xbfx": true, "\xe4": false, "\ufffe": false, "\ufdd0": false, "\U0001ffff": false, "\ufffd": true} {
		if exactText([]byte(s)) != want {
			t.Errorf("%q", s)
		}
		// However the bytes are cut into reads.
		for pad := range 4 {
			body := strings.Repeat("x", 64<<10-pad) + s + "y"
			f := file("1", "a", "text/plain", []byte(body))
			if got, err := scanText(t.Context(), f); got != want || err != nil {
				t.Errorf("%q at %d: %t %v", s, pad, got, err)
			}
		}
	}
}

func TestHeaders(t *testing.T) {
	got := headers("A: 1\r\n  folded\nB:2\nA: other\n junk\nno colon\nC: x: y")
	if d := cmp.Diff(map[string]string{"a": "1 folded", "b": "2", "c": "x: y"}, got); d != "" {
		t.Error(d)
	}
}

// What our own message moved and the same push set back is still as people had it.
func TestTouchedAfterSettingBack(t *testing.T) {
	txn := func(who, kind, field, value string) wireTxn {
		x := wireTxn{Type: str(kind), Field: str(field), NewValue: str(value)}
		x.Creator.Name = str(who)
		return x
	}
	made := []wireTxn{txn("deltadesk", "Create", "", ""), txn("deltadesk", "Set", "Subject", "ours")}
	people := []wireTxn{txn("agent1", "Set", "Subject", "theirs"), txn("agent1", "Status", "Status", "resolved")}
	moved := []wireTxn{
		txn("deltadesk", "Correspond", "", ""), txn("RT_System", "Status", "Status", "open"), txn("RT_System", "Set", "Subject", "theirs [src #1]"),
	}
	back := []wireTxn{
		txn("deltadesk", "Status", "Status", "resolved"), txn("deltadesk", "Set", "Resolved", "2026-11-28 07:05:29"), txn("deltadesk", "Set", "Subject", "theirs"),
	}
	other := []wireTxn{txn("deltadesk", "Status", "Status", "stalled"), txn("deltadesk", "Set", "Resolved", ""), txn("deltadesk", "Set", "Subject", "of the source")}
	ours := func(r wireRef) bool { return r.Name == "deltadesk" }
	for name, tc := range map[string]struct {
		txns []wireTxn
		want bool
	}{
		"only ours":                    {slices.Concat(made, moved, back), false},
		"people's":                     {slices.Concat(made, people), true},
		"people's, moved and set back": {slices.Concat(made, people, moved, back), true},
		"people's, then the source's":  {slices.Concat(made, people, moved, other), false},
	} {
		got := touched(tc.txns, nil, ours)
		for _, f := range []desk.Field{desk.Subject, desk.Status, desk.Resolved} {
			if got[f] != tc.want {
				t.Errorf("%s: %s touched by people: %v", name, f, got[f])
			}
		}
	}
}

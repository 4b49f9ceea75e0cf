package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/deltadesk/deltadesk/shared/desk"
)

func text(s string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

func ticketRef(id string) desk.Ref { return desk.Ref{Kind: desk.Ticket, ID: id} }

func open(t testing.TB, c desk.Config) (*source, *target) {
	t.Helper()
	if c == nil {
		c = desk.Config{}
	}
	if c["folder"] == "" {
		c["folder"] = t.TempDir()
	}
	c["fsync"] = "false"
	tg, err := Connector.NewTarget(c, desk.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	src, err := Connector.NewSource(c, desk.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return src.(*source), tg.(*target)
}

func create(t testing.TB, tg *target, r desk.Record) desk.Written {
	t.Helper()
	w, err := tg.Create(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func simple(id string) desk.Record {
	return desk.Record{
		Ref: ticketRef(id), Fields: desk.Fields{desk.Subject: {"subject of " + id}},
		Entries: []desk.Entry{{ID: "e" + id, Marker: "m" + id, At: time.Unix(1e9, 0), Body: "body of " + id, Type: "text/plain"}},
	}
}

func listed(t testing.TB, s *source, from desk.Cursor) []string {
	t.Helper()
	until, err := s.Mark(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for {
		p, err := s.Changes(context.Background(), desk.Ticket, desk.Scope{}, from, until)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range p.Items {
			out = append(out, l.Ref.ID)
		}
		if p.Done {
			return out
		}
		from = p.Next
	}
}

// full is a ticket with everything that a ticket can have.
func full() desk.Record {
	at := time.Date(2019, 3, 4, 5, 6, 7, 0, time.UTC)
	by := desk.Author{ID: "p1", Name: "Zoë", Email: "z@x.example"}
	return desk.Record{
		Ref: ticketRef("42"), URL: "https://old.example/tickets/42", Event: desk.Spam,
		Fields: desk.Fields{
			desk.Subject: {"Größe 🦊"}, desk.Status: {"open"}, desk.Requester: {"p1"}, desk.CC: {"p1", "p2"}, desk.LinkParent: {"7"},
			desk.Custom("Ort"): {"a", "b"}, desk.Due: nil, desk.TimeWorked: {"5"},
		},
		Entries: []desk.Entry{
			{
				ID: "c1", Public: true, Author: by, At: at, Subject: "s", Body: "b\n\nb", Type: "text/plain", Minutes: 3,
				Headers: map[string]string{"Message-ID": "<1@x>", "References": "<0@x>"},
				Files: []desk.File{
					{ID: "f1", Name: "../../a\r\n.txt", Type: "text/plain", Size: 3, Inline: true, CID: "c@x", Open: text("abc")},
					{ID: "f2", Size: -1, Open: text("")},
					{ID: "f2", Name: "same id", Size: 3, Open: text("abc")},
				},
			},
			{ID: "c2", Author: by, At: at, Body: "<p>x</p>", Type: "text/html"},
		},
		History: []desk.StatusChange{{At: at, By: by, Before: "new", After: "open"}},
		Aliases: []string{"40", "41"},
	}
}

// TestKeepsEverything: what was written as a target reads as the original desk had it.
func TestKeepsEverything(t *testing.T) {
	src, tg := open(t, nil)
	sent := full()
	for i := range sent.Entries {
		sent.Entries[i].Marker = fmt.Sprintf("m%d", i)
	}
	w := create(t, tg, sent)
	if diff := cmp.Diff(map[string]string{"m0": "c1", "m1": "c2"}, w.Entries); diff != "" {
		t.Error(diff)
	}
	want := full()
	fs := want.Entries[0].Files
	const abc, none = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	fs[0].SHA256, fs[1].SHA256, fs[2].SHA256 = abc, none, abc
	fs[1].Size, fs[2].ID = 0, "f2~2"
	for _, id := range []string{"42", "40", "41"} {
		got, err := src.Read(t.Context(), ticketRef(id))
		if err != nil {
			t.Fatal(err)
		}
		ignore := cmpopts.IgnoreFields(desk.Record{}, "Stamp", "Lock", "Began")
		if diff := cmp.Diff(want, got, ignore, cmpopts.IgnoreFields(desk.File{}, "Open")); diff != "" {
			t.Errorf("ticket %s (-want +got):\n%s", id, diff)
		}
		for i, content := range []string{"abc", "", "abc"} {
			r, err := src.OpenFile(t.Context(), got.Ref, got.Entries[0].Files[i])
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil || string(b) != content {
				t.Errorf("file %d: %q, %v", i, b, err)
			}
			_ = r.Close()
		}
	}
	ids, err := tg.Find(t.Context(), ticketRef("42"))
	if err != nil || !slices.Equal(ids, []string{"42"}) {
		t.Errorf("found %v, %v", ids, err)
	}
}

// TestSameSourceTwice: the desk does not prevent doubles, and keeps their ids apart.
func TestSameSourceTwice(t *testing.T) {
	_, tg := open(t, nil)
	for i, want := range []string{"1", "1~2", "1~3"} {
		w := create(t, tg, simple("1"))
		if w.ID != want {
			t.Errorf("copy %d has the id %q, want %q", i, w.ID, want)
		}
		if id, suffix := w.Entries["m1"], strings.TrimPrefix(want, "1"); id != "e1"+suffix {
			t.Errorf("its entry has the id %q", id)
		}
	}
	if _, err := tg.Apply(t.Context(), ticketRef("1~2"), desk.Change{Entries: []desk.Entry{{ID: "new", Marker: "n"}}}); err != nil {
		t.Fatal(err)
	}
	r, err := tg.Read(t.Context(), ticketRef("1~2"))
	if err != nil || !slices.ContainsFunc(r.Entries, func(e desk.Entry) bool { return e.ID == "new~2" }) {
		t.Errorf("got %v, %v", r.Entries, err)
	}
	ids, err := tg.Find(t.Context(), ticketRef("1"))
	if err != nil || !slices.Equal(ids, []string{"1", "1~2", "1~3"}) {
		t.Errorf("found %v, %v", ids, err)
	}
	if err := tg.Delete(t.Context(), ticketRef("1"), ""); err != nil {
		t.Fatal(err)
	}
	if w := create(t, tg, simple("1")); w.ID != "1~4" {
		t.Errorf("the id of a deleted ticket was given away: %q", w.ID)
	}
}

// TestStrangeIDs: whatever ids are, records stay in the folder and apart.
func TestStrangeIDs(t *testing.T) {
	dir := t.TempDir()
	src, tg := open(t, desk.Config{"folder": filepath.Join(dir, "archive")})
	ids := []string{
		"../x", "../../../../../../tmp/x", "/etc/passwd", "..", ".", "a/b", `a\b`, "ü", "A", "a", "a ", "a%2f", "a%2F", "con", "nul.json", "\x01",
		strings.Repeat("x", 200), strings.Repeat("日", 66), "~2", "x~2", "*", "$(x)", "🦊", "%%", "-rf",
	}
	for _, id := range ids {
		r := simple(id)
		r.Entries[0].Files = []desk.File{{ID: "../" + id, Name: "../../" + id, Size: -1, Open: text("x")}}
		if w := create(t, tg, r); w.ID != id {
			t.Errorf("%q got the id %q", id, w.ID)
		}
	}
	for _, id := range ids {
		r, err := src.Read(t.Context(), ticketRef(id))
		if err != nil || r.Ref.ID != id || r.Fields[desk.Subject].First() != "subject of "+id {
			t.Errorf("%q: got %v, %v", id, r.Ref, err)
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("something was written outside of the folder: %v, %v", names, err)
	}
	for _, r := range []desk.Record{
		{Ref: desk.Ref{Kind: "../x", ID: "1"}},
		{Ref: ticketRef("\xff")},
		{Ref: ticketRef("1"), Fields: desk.Fields{desk.Subject: {"\xff"}}},
		{Ref: ticketRef("1"), Entries: []desk.Entry{{Files: []desk.File{{ID: "no content"}}}}},
		{Ref: ticketRef("1"), Event: desk.Merged},
	} {
		if _, err := tg.Create(t.Context(), r); !errors.Is(err, desk.ErrRejected) {
			t.Errorf("%+v: got %v, want a refusal", r, err)
		}
	}
	if _, err := src.Read(t.Context(), desk.Ref{Kind: "../../x", ID: "1"}); !errors.Is(err, desk.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// TestDeleteAsRead: what has moved since it was read is not deleted, nor what it was merged into.
func TestDeleteAsRead(t *testing.T) {
	_, tg := open(t, nil)
	locks := map[string]string{}
	for _, id := range []string{"1", "2", "3"} {
		locks[id] = create(t, tg, simple(id)).Now.Lock
	}
	if _, err := tg.Apply(t.Context(), ticketRef("1"), desk.Change{Fields: desk.Fields{desk.Subject: {"moved"}}}); err != nil {
		t.Fatal(err)
	}
	if err := tg.Merge(t.Context(), ticketRef("2"), ticketRef("3"), ""); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"1", "2", "3"} { // in this order: what lives on goes last
		if err := tg.Delete(t.Context(), ticketRef(id), locks[id]); !errors.Is(err, desk.ErrConflict) {
			t.Errorf("%s: got %v, want a conflict", id, err)
		}
		now, err := tg.Read(t.Context(), ticketRef(id))
		if err != nil {
			t.Fatal(err)
		}
		if id == "2" {
			continue // what lives on is 3
		}
		if err := tg.Delete(t.Context(), ticketRef(id), now.Lock); err != nil {
			t.Errorf("%s, read again: %v", id, err)
		}
		if err := tg.Delete(t.Context(), ticketRef(id), ""); !errors.Is(err, desk.ErrNotFound) {
			t.Errorf("%s, deleted already: got %v", id, err)
		}
	}
}

// TestDeleteLeavesNothing: content is gone from the disk, and stays where somebody else has the same.
func TestDeleteLeavesNothing(t *testing.T) {
	src, tg := open(t, nil)
	for _, id := range []string{"1", "2"} {
		r := simple(id)
		r.Entries[0].Files = []desk.File{{ID: "shared", Size: -1, Open: text("shared bytes")}, {ID: "own", Size: -1, Open: text("own bytes of " + id)}}
		create(t, tg, r)
	}
	mark, err := src.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := tg.Delete(t.Context(), ticketRef("1"), ""); err != nil {
		t.Fatal(err)
	}
	onDisk := func(what string) bool {
		found := false
		err := filepath.WalkDir(tg.dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			found = found || bytes.Contains(b, []byte(what))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for what, want := range map[string]bool{
		"own bytes of 1": false, "subject of 1": false, "body of 1": false,
		"own bytes of 2": true, "subject of 2": true, "shared bytes": true,
	} {
		if got := onDisk(what); got != want {
			t.Errorf("%q is on the disk: %t", what, got)
		}
	}
	p, err := src.Changes(t.Context(), desk.Ticket, desk.Scope{}, mark, mark)
	if err != nil || len(p.Items) != 0 {
		t.Errorf("got %v, %v", p, err)
	}
	if got := listed(t, src, mark); !slices.Equal(got, []string{"1"}) {
		t.Errorf("listed %v", got)
	}
	// A file that is no longer needed after a revision goes, too.
	e := simple("2").Entries[0]
	if err := tg.Revise(t.Context(), ticketRef("2"), e, ""); err != nil {
		t.Fatal(err)
	}
	if onDisk("own bytes of 2") || onDisk("shared bytes") {
		t.Error("a revised entry's files are still on the disk")
	}
}

func TestMerge(t *testing.T) {
	src, tg := open(t, nil)
	for _, id := range []string{"1", "2", "3"} {
		create(t, tg, simple(id))
	}
	for range 2 { // doing it again changes nothing
		for _, m := range [][2]string{{"1", "2"}, {"2", "3"}} {
			if err := tg.Merge(t.Context(), ticketRef(m[0]), ticketRef(m[1]), ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := src.Read(t.Context(), ticketRef("1"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Ref.ID != "3" || !slices.Equal(r.Aliases, []string{"1", "2"}) || len(r.Entries) != 3 {
		t.Errorf("got %s, aliases %v, %d entries", r.Ref, r.Aliases, len(r.Entries))
	}
	ids, err := tg.Find(t.Context(), ticketRef("1"))
	if err != nil || !slices.Equal(ids, []string{"3"}) {
		t.Errorf("found %v, %v", ids, err)
	}
	if err := tg.Merge(t.Context(), ticketRef("3"), ticketRef("3"), ""); !errors.Is(err, desk.ErrRejected) {
		t.Errorf("got %v", err)
	}
	// Cut off between its two writes, a merge is completed by doing it again.
	create(t, tg, simple("4"))
	create(t, tg, simple("5"))
	before, err := os.ReadFile(filepath.Join(tg.dir, mustPath(t, ticketRef("4"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := tg.Merge(t.Context(), ticketRef("4"), ticketRef("5"), ""); err != nil {
		t.Fatal(err)
	}
	lines := journal(t, tg)
	write(t, tg, journalFile, strings.Join(lines[:len(lines)-1], ""))
	write(t, tg, mustPath(t, ticketRef("4")), string(before))
	_, again := open(t, desk.Config{"folder": tg.dir})
	if err := again.Merge(t.Context(), ticketRef("4"), ticketRef("5"), ""); err != nil {
		t.Fatal(err)
	}
	r, err = again.Read(t.Context(), ticketRef("4"))
	if err != nil || r.Ref.ID != "5" || len(r.Entries) != 2 {
		t.Errorf("got %s with %d entries, %v", r.Ref, len(r.Entries), err)
	}
}

func TestReviseOnlyOurs(t *testing.T) {
	_, tg := open(t, nil)
	r := simple("1")
	r.Entries = append(r.Entries, desk.Entry{ID: "people's", Body: "theirs"})
	r.Entries[0].Files = []desk.File{{ID: "f", Size: -1, Open: text("x")}}
	create(t, tg, r)
	if err := tg.Revise(t.Context(), ticketRef("1"), desk.Entry{ID: "people's", Body: "mine"}, ""); !errors.Is(err, desk.ErrRejected) {
		t.Errorf("got %v", err)
	}
	e := desk.Entry{ID: "e1", Body: "new", Files: []desk.File{{ID: "f", Name: "kept"}}}
	if err := tg.Revise(t.Context(), ticketRef("1"), e, ""); err != nil {
		t.Fatal(err)
	}
	got, err := tg.Read(t.Context(), ticketRef("1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range got.Entries {
		if x.ID == "e1" && (x.Body != "new" || x.Marker != "m1" || len(x.Files) != 1 || x.Files[0].Size != 1) {
			t.Errorf("got %+v", x)
		}
	}
}

func mustPath(t testing.TB, ref desk.Ref) string {
	t.Helper()
	p, err := recordPath(ref)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func journal(t testing.TB, tg *target) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(tg.dir, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
}

func write(t testing.TB, tg *target, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(tg.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCutOff: at whatever point a write is cut off, it either happened and is listed, or did not; the next write goes on.
func TestCutOff(t *testing.T) {
	build := func(t *testing.T) (tg *target, last, raw string) {
		_, tg = open(t, nil)
		create(t, tg, simple("1"))
		create(t, tg, simple("2"))
		lines := journal(t, tg)
		return tg, lines[1] + "\n", lines[1][17:]
	}
	promise := func(raw string) string {
		return fmt.Sprintf(`{"line":%q}`, raw)
	}
	_, last, _ := build(t)
	type point struct {
		name    string
		cut     int // how many bytes of the last journal line are there
		pending bool
		record  bool
		happens bool
	}
	const whole = 1 << 20
	points := []point{
		{"before the promise", 0, false, false, false},
		{"after the promise", 0, true, false, false},
		{"after the record", 0, true, true, true},
		{"after the journal", whole, true, true, true},
		{"after everything", whole, false, true, true},
	}
	for n := 1; n < len(last)-5; n += 7 { // lines differ in length by the zeros at the end of a time
		points = append(points, point{fmt.Sprintf("in the journal at %d", n), n, true, true, true})
	}
	for _, p := range points {
		t.Run(p.name, func(t *testing.T) {
			tg, last, raw := build(t)
			write(t, tg, journalFile, journal(t, tg)[0]+last[:min(p.cut, len(last))])
			if p.pending {
				write(t, tg, pendingFile, promise(raw))
			}
			if !p.record {
				if err := os.Remove(filepath.Join(tg.dir, mustPath(t, ticketRef("2")))); err != nil {
					t.Fatal(err)
				}
			}
			before, err := fingerprint(tg.dir)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"1"}
			if p.happens {
				want = []string{"1", "2"}
			}
			reader, err := Connector.NewSource(desk.Config{"folder": tg.dir}, desk.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			src := reader.(*source)
			if got := listed(t, src, nil); !slices.Equal(got, want) {
				t.Errorf("a reader lists %v, want %v", got, want)
			}
			mark, err := src.Mark(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if after, err := fingerprint(tg.dir); err != nil || before != after {
				t.Errorf("the reader wrote (%v)", err)
			}
			_, writer := open(t, desk.Config{"folder": tg.dir})
			create(t, writer, simple("3"))
			if got := listed(t, src, nil); !slices.Equal(got, append(want, "3")) {
				t.Errorf("then it lists %v, want %v and 3", got, want)
			}
			if got := listed(t, src, mark); !slices.Equal(got, []string{"3"}) {
				t.Errorf("after the mark it lists %v, want 3", got)
			}
			fresh, _ := open(t, desk.Config{"folder": tg.dir})
			if got := listed(t, fresh, nil); !slices.Equal(got, append(want, "3")) {
				t.Errorf("a fresh reader lists %v, want %v and 3", got, want)
			}
		})
	}
}

// TestDamaged: whatever is wrong in the folder is said, and nothing panics.
func TestDamaged(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, tg *target)
		class error // of listing or else reading; nil where the archive does not even open
		want  string
	}{
		{"no desk.json", func(t *testing.T, tg *target) { _ = os.Remove(filepath.Join(tg.dir, deskFile)) }, nil, "no archive"},
		{"empty desk.json", func(t *testing.T, tg *target) { write(t, tg, deskFile, "") }, nil, "desk.json is damaged"},
		{"another format", func(t *testing.T, tg *target) { write(t, tg, deskFile, `{"format":"x"}`) }, nil, "not that of an archive"},
		{"a newer layout", func(t *testing.T, tg *target) { write(t, tg, deskFile, `{"format":"deltadesk-archive","layout":2}`) }, nil, "layout 2"},
		{"no id", func(t *testing.T, tg *target) {
			write(t, tg, deskFile, `{"format":"deltadesk-archive","layout":1,"id":"../x"}`)
		}, nil, "no valid id"},
		{"a journal with a changed line", func(t *testing.T, tg *target) {
			b := strings.Join(journal(t, tg), "") + "\n"
			write(t, tg, journalFile, strings.Replace(b, `"1"`, `"7"`, 1))
		}, desk.ErrTransient, "journal.log is damaged at byte 0"},
		{"a journal without its first line", func(t *testing.T, tg *target) { write(t, tg, journalFile, journal(t, tg)[1]+"\n"+"x\n") }, desk.ErrTransient, "line 2 where 1 belongs"},
		{"a last line that rotted", func(t *testing.T, tg *target) {
			write(t, tg, journalFile, strings.Replace(strings.Join(journal(t, tg), "")+"\n", `"2"`, `"7"`, 1))
		}, desk.ErrTransient, "wrong checksum"},
		{"a damaged promise", func(t *testing.T, tg *target) { write(t, tg, pendingFile, "{") }, desk.ErrTransient, "pending.json is damaged"},
		{"a cut record", func(t *testing.T, tg *target) { write(t, tg, mustPath(t, ticketRef("1")), `{"record":{`) }, desk.ErrRejected, "ends too early"},
		{"an empty record", func(t *testing.T, tg *target) { write(t, tg, mustPath(t, ticketRef("1")), "") }, desk.ErrRejected, "is damaged"},
		{"another record's file", func(t *testing.T, tg *target) {
			b, err := os.ReadFile(filepath.Join(tg.dir, mustPath(t, ticketRef("2"))))
			if err != nil {
				t.Fatal(err)
			}
			write(t, tg, mustPath(t, ticketRef("1")), string(b))
		}, desk.ErrRejected, "another record"},
		{"a record of a newer program", func(t *testing.T, tg *target) {
			write(t, tg, mustPath(t, ticketRef("1")), `{"record":{"ref":{"kind":"ticket","id":"1"}},"newer":1}`)
		}, desk.ErrRejected, "unknown members"},
		{"a circle of merges", func(t *testing.T, tg *target) {
			for a, b := range map[string]string{"1": "2", "2": "1"} {
				write(t, tg, mustPath(t, ticketRef(a)), `{"record":{"ref":{"kind":"ticket","id":"`+a+`"},"stamp":{"at":"2020-01-01T00:00:00Z","seq":9},"fields":null,"event":"merged","began":"0001-01-01T00:00:00Z"},"into":"`+b+`"}`)
			}
		}, desk.ErrRejected, "circle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, tg := open(t, nil)
			create(t, tg, simple("1"))
			create(t, tg, simple("2"))
			tt.spoil(t, tg)
			check := func(err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "body of") {
					t.Errorf("got %v, want %q", err, tt.want)
				}
			}
			src, err := Connector.NewSource(desk.Config{"folder": tg.dir}, desk.Deps{})
			if tt.class == nil {
				check(err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err = src.Mark(t.Context()); err == nil {
				_, err = src.Read(t.Context(), ticketRef("1"))
			}
			check(err)
			if !errors.Is(err, tt.class) {
				t.Errorf("got class %v, want %v", desk.Class(err), tt.class)
			}
			w, err := Connector.NewTarget(desk.Config{"folder": tg.dir}, desk.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = w.Apply(t.Context(), ticketRef("1"), desk.Change{Fields: desk.Fields{desk.Subject: {"x"}}}); err == nil {
				t.Error("a damaged record was written over")
			}
		})
	}
}

// TestShortened: a journal that lost its end without a write being under way is not written on.
func TestShortened(t *testing.T) {
	_, tg := open(t, nil)
	create(t, tg, simple("1"))
	create(t, tg, simple("2"))
	lines := strings.Join(journal(t, tg), "") + "\n"
	write(t, tg, journalFile, lines[:len(lines)-5])
	_, again := open(t, desk.Config{"folder": tg.dir})
	if _, err := again.Create(t.Context(), simple("3")); err == nil || !strings.Contains(err.Error(), "middle of a line") {
		t.Errorf("got %v", err)
	}
	if _, err := tg.Create(t.Context(), simple("3")); err == nil || !strings.Contains(err.Error(), "shorter than it was") {
		t.Errorf("got %v", err)
	}
}

// TestDamagedFile: bytes that rotted on the disk are noticed.
func TestDamagedFile(t *testing.T) {
	src, tg := open(t, nil)
	r := simple("1")
	r.Entries[0].Files = []desk.File{{ID: "f", Size: -1, Open: text("good bytes")}}
	w := create(t, tg, r)
	f := w.Now.Entries[0].Files[0]
	path, err := blobPath(f.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"bad! bytes", "good", ""} {
		write(t, tg, path, bad)
		rc, err := src.OpenFile(t.Context(), w.Now.Ref, f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(rc); !errors.Is(err, desk.ErrRejected) {
			t.Errorf("%d bytes: got %v", len(bad), err)
		}
		_ = rc.Close()
	}
	if err := os.Remove(filepath.Join(tg.dir, path)); err != nil {
		t.Fatal(err)
	}
	if _, err := src.OpenFile(t.Context(), w.Now.Ref, f); !errors.Is(err, desk.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	r.Ref.ID = "2" // and the next one who writes the same bytes brings them back
	r.Entries[0].Files[0].Open = text("good bytes")
	create(t, tg, r)
	if _, err := src.OpenFile(t.Context(), w.Now.Ref, f); err != nil {
		t.Error(err)
	}
	for _, x := range []desk.File{{ID: "f", Size: 3}, {ID: "f", Size: -1, SHA256: strings.Repeat("0", 64)}} {
		x.Open = text("four")
		r := simple("3")
		r.Entries[0].Files = []desk.File{x}
		if _, err := tg.Create(t.Context(), r); err == nil {
			t.Error("a file whose bytes are not the declared ones was taken")
		}
	}
	left, err := os.ReadDir(filepath.Join(tg.dir, tmpDir))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files stay: %v, %v", left, err)
	}
}

// TestCopyThatWentItsOwnWay: a cursor is refused by an older copy of the archive, also after it grew beyond the cursor.
func TestCopyThatWentItsOwnWay(t *testing.T) {
	src, tg := open(t, nil)
	create(t, tg, simple("1"))
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(tg.dir)); err != nil {
		t.Fatal(err)
	}
	create(t, tg, simple("2"))
	c, err := src.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	osrc, otg := open(t, desk.Config{"folder": copied})
	for _, id := range []string{"x", "y", "z"} {
		if _, err := osrc.Changes(t.Context(), desk.Ticket, desk.Scope{}, c, c); !errors.Is(err, desk.ErrCursor) {
			t.Errorf("got %v", err)
		}
		create(t, otg, simple(id))
	}
}

func TestClockGoesBack(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tgt, err := Connector.NewTarget(desk.Config{"folder": t.TempDir()}, desk.Deps{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	tg := tgt.(*target)
	first := create(t, tg, simple("1"))
	now = now.Add(-time.Hour)
	second := create(t, tg, simple("2"))
	if a, b := first.Now.Stamp, second.Now.Stamp; b.At.Before(a.At) || !a.Before(b) {
		t.Errorf("stamps %v, %v", a, b)
	}
}

func TestReadOnly(t *testing.T) {
	_, rw := open(t, nil)
	create(t, rw, simple("1"))
	before, err := fingerprint(rw.dir)
	if err != nil {
		t.Fatal(err)
	}
	tgt, err := Connector.NewTarget(desk.Config{"folder": rw.dir, "read_only": "true"}, desk.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	tg := tgt.(*target)
	_, createErr := tg.Create(t.Context(), simple("2"))
	_, applyErr := tg.Apply(t.Context(), ticketRef("1"), desk.Change{Fields: desk.Fields{desk.Subject: {"x"}}})
	for _, err := range []error{
		createErr, applyErr, tg.Delete(t.Context(), ticketRef("1"), ""), tg.Merge(t.Context(), ticketRef("1"), ticketRef("2"), ""),
		tg.Revise(t.Context(), ticketRef("1"), desk.Entry{ID: "e1"}, ""), tg.Check(t.Context()),
	} {
		if !errors.Is(err, desk.ErrUnauthorized) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := tg.Read(t.Context(), ticketRef("1")); err != nil {
		t.Error(err)
	}
	if after, err := fingerprint(rw.dir); err != nil || before != after {
		t.Errorf("something was written (%v)", err)
	}
}

func TestOptions(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "holiday.jpg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		config desk.Config
		want   string
	}{
		{desk.Config{}, "folder is required"},
		{desk.Config{"folder": "x", "fodler": "x"}, `no option "fodler"`},
		{desk.Config{"folder": "x", "page_size": "0"}, "page_size"},
		{desk.Config{"folder": "x", "page_size": "many"}, "page_size"},
		{desk.Config{"folder": "x", "read_only": "maybe"}, "read_only"},
		{desk.Config{"folder": "x", "fsync": "maybe"}, "fsync"},
		{desk.Config{"folder": full}, "not empty"},
		{desk.Config{"folder": filepath.Join(full, "missing"), "read_only": "true"}, "no archive"},
	} {
		if _, err := Connector.NewTarget(tt.config, desk.Deps{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want %q", tt.config, err, tt.want)
		}
	}
}

// TestManyWriters: several values, as several processes would have, write one folder while another one reads.
func TestManyWriters(t *testing.T) {
	src, _ := open(t, nil)
	var wg sync.WaitGroup
	const writers, each = 4, 15
	for n := range writers {
		_, tg := open(t, desk.Config{"folder": src.dir})
		wg.Go(func() {
			for i := range each {
				create(t, tg, simple(fmt.Sprintf("%d-%d", n, i)))
			}
		})
	}
	seen := map[string]bool{}
	var from desk.Cursor
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for last := false; !last; {
		select {
		case <-done:
			last = true
		default:
		}
		mark, err := src.Mark(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range listed(t, src, from) {
			seen[id] = true
			if _, err := src.Read(t.Context(), ticketRef(id)); err != nil {
				t.Error(err)
			}
		}
		from = mark
	}
	if len(seen) != writers*each {
		t.Errorf("%d tickets listed, want %d", len(seen), writers*each)
	}
}

// TestKilled: whatever a killed writer had been answered is there, and the archive goes on.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("ARCHIVE_TEST_WRITER"); dir != "" {
		tgt, err := Connector.NewTarget(desk.Config{"folder": dir}, desk.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			r := simple(fmt.Sprintf("%d-%d", os.Getpid(), i))
			r.Entries[0].Files = []desk.File{{ID: "f", Size: -1, Open: text(strings.Repeat(r.Ref.ID, 1000))}}
			if _, err := tgt.Create(context.Background(), r); err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintln(os.Stdout, "made", r.Ref.ID)
		}
	}
	src, _ := open(t, nil)
	acked := map[string]bool{}
	for round := range 6 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "ARCHIVE_TEST_WRITER="+src.dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for buf := make([]byte, 256); bytes.Count(got.Bytes(), []byte("\n")) < 3+2*round; {
			n, err := out.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				t.Fatalf("the writer ended by itself: %v", err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		lines := strings.Split(got.String(), "\n")
		for _, l := range lines[:len(lines)-1] {
			acked[strings.TrimPrefix(l, "made ")] = true
		}
		names := listed(t, src, nil)
		for id := range acked {
			if !slices.Contains(names, id) {
				t.Errorf("%s was made and is not listed", id)
			}
		}
		for _, id := range names {
			r, err := src.Read(t.Context(), ticketRef(id))
			if err != nil {
				t.Fatal(err)
			}
			rc, err := src.OpenFile(t.Context(), r.Ref, r.Entries[0].Files[0])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, rc); err != nil {
				t.Error(err)
			}
			_ = rc.Close()
		}
	}
}

// TestMemory: a file does not pass through memory as a whole.
func TestMemory(t *testing.T) {
	src, tg := open(t, nil)
	const size = 64 << 20
	r := simple("1")
	r.Entries[0].Files = []desk.File{{ID: "big", Size: size, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, size)), nil
	}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := create(t, tg, r)
	rc, err := src.OpenFile(t.Context(), w.Now.Ref, w.Now.Entries[0].Files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if n, err := io.Copy(io.Discard, rc); err != nil || n != size {
		t.Errorf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes allocated for a file of %d", n, size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

package archive

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/deltadesk/deltadesk/shared/desk"
)

func FuzzFileName(f *testing.F) {
	for _, s := range []string{"", "1", "../x", "a/b", `a\b`, "..", "A", "a", "ü", "%41", strings.Repeat("x", 300), "\x00", "con"} {
		f.Add(s, "1")
		f.Add(s, strings.ToUpper(s))
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		p := mustPath(t, ticketRef(a))
		if !filepath.IsLocal(p) || strings.Count(filepath.ToSlash(p), "/") != 3 || len(filepath.Base(p)) > 200 {
			t.Errorf("%q becomes %q", a, p)
		}
		if q := mustPath(t, ticketRef(b)); (a == b) != strings.EqualFold(p, q) {
			t.Errorf("%q and %q become %q and %q", a, b, p, q)
		}
	})
}

func FuzzCursor(f *testing.F) {
	src, tg := open(f, nil)
	create(f, tg, simple("1"))
	good, err := src.Mark(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(good), "", "{}", "null", "[]", `{"archive_seq":-1,"sum":"0123456789abcdef"}`, `{"archive_seq":9e99}`, string(good) + "x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return // no cursor: the beginning
		}
		c := desk.Cursor(b)
		for _, bounds := range [][2]desk.Cursor{{c, nil}, {nil, c}, {c, c}, {c, good}, {good, c}} {
			_, err := src.Changes(t.Context(), desk.Ticket, desk.Scope{}, bounds[0], bounds[1])
			if err != nil && !errors.Is(err, desk.ErrCursor) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func FuzzRecordFile(f *testing.F) {
	for _, s := range []string{"", "{}", `{"record":{"ref":{"kind":"ticket","id":"1"},"stamp":{"at":"2020-01-01T00:00:00Z","seq":1},"fields":null,"began":"0001-01-01T00:00:00Z"}}`, "[]", `{"record":{"ref":{"kind":"../x"}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseStored(b)
		if err != nil {
			return
		}
		// Whatever is accepted can be shown, listed and changed.
		_ = st.shown(st.Record.Stamp.At).Digest()
		if _, _, _, err := parseLine(append([]byte("0123456789abcdef "), marshal(t, st.line())...)); err != nil {
			t.Errorf("its journal line cannot be read: %v", err)
		}
		for _, sha := range blobs(st.Record) {
			if p, err := blobPath(sha); err != nil || !filepath.IsLocal(p) {
				t.Errorf("a file at %q, %v", p, err)
			}
		}
		_ = adopt(st.Record.Ref.ID, st.copyNumber(), st.Record.Entries, st.Record.Entries)
	})
}

func FuzzJournal(f *testing.F) {
	_, tg := open(f, nil)
	create(f, tg, simple("1"))
	create(f, tg, simple("2"))
	lines := strings.Join(journal(f, tg), "") + "\n"
	for _, s := range []string{lines, "", "\n", "\n\n", lines[:len(lines)-3], lines + "x", lines + "x\n", lines + lines, "0123456789abcdef {}\nx\n", strings.Repeat("\x00", 50)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x := &folder{settings: tg.settings, start: tg.start, x: newIndex()}
		_ = x.read(bufio.NewReader(bytes.NewReader(b)))
		if x.x.offset > int64(len(b)) || x.x.journaled != len(x.x.lines) || len(x.x.lines) != len(x.x.sums) {
			t.Errorf("%d lines, %d sums, %d bytes of %d", len(x.x.lines), len(x.x.sums), x.x.offset, len(b))
		}
		if n := int64(len(x.x.lines)); x.x.offset > 0 && !strings.HasPrefix(lines, string(b[:x.x.offset])) {
			t.Errorf("%d lines were taken that this archive did not write", n)
		}
		_, _, _ = parsePending(b)
		_, _ = parseIdentity(b)
	})
}

// FuzzKept: whatever the names, ids and texts of a record, it is refused, or it reads as it was given.
func FuzzKept(f *testing.F) {
	src, tg := open(f, nil)
	for _, s := range []string{"", "a", "../../../x", `..\x`, "a/b", "a\r\nX: y", "\"", "\x00", "\u202egnp.exe", "\xff", strings.Repeat("x", 300), "con", "%2e", " ", "\ufeff"} {
		f.Add(s, "subject", "text\r\n\r\n", "a.txt", "text/plain", "c@d", "Message-ID", "abc")
		f.Add("1", s, s, s, s, s, s, s)
	}
	f.Fuzz(func(t *testing.T, id, subject, body, name, kind, cid, header, content string) {
		at := time.Date(2019, 3, 4, 5, 6, 7, 0, time.UTC)
		r := desk.Record{
			Ref: ticketRef(id), URL: subject, Fields: desk.Fields{desk.Subject: desk.Text(subject), desk.Custom(header): desk.Set(subject, name)},
			Entries: []desk.Entry{{
				ID: id, Author: desk.Author{ID: id, Name: name, Email: cid}, At: at, Subject: subject, Body: body, Type: kind, Headers: map[string]string{header: subject},
				Files: []desk.File{{ID: id, Name: name, Type: kind, CID: cid, Size: -1, Open: text(content)}, {ID: id, Name: name, Size: int64(len(content)), Open: text(content)}},
			}},
			History: []desk.StatusChange{{At: at, By: desk.Author{Name: name}, Before: subject, After: body}},
		}
		w, err := tg.Create(t.Context(), r)
		if err != nil {
			if !errors.Is(err, desk.ErrRejected) {
				t.Error(err)
			}
			return
		}
		defer func() {
			if err := tg.Delete(t.Context(), ticketRef(w.ID), ""); err != nil { // so that the next one finds an empty archive
				t.Error(err)
			}
		}()
		got, err := src.Read(t.Context(), ticketRef(w.ID))
		if err != nil || w.ID == "" || len(w.ID) > maxID {
			t.Fatalf("an id of %d bytes, %v", len(w.ID), err)
		}
		if again := desk.CanonicalBody(got.Entries[0].Body); again != got.Entries[0].Body || again != desk.CanonicalBody(body) {
			t.Errorf("the body %q becomes %q", body, got.Entries[0].Body)
		}
		want := r
		want.Entries[0].Body = got.Entries[0].Body
		ignore := []cmp.Option{
			cmpopts.IgnoreFields(desk.Record{}, "Ref", "Stamp", "Lock", "Began", "Event"), cmpopts.IgnoreFields(desk.Entry{}, "ID"),
			cmpopts.IgnoreFields(desk.File{}, "ID", "Open", "Size", "SHA256"), cmpopts.EquateEmpty(),
		}
		if diff := cmp.Diff(want, got, ignore...); diff != "" {
			t.Errorf("-given +read:\n%s", diff)
		}
		for _, x := range got.Entries[0].Files {
			rc, err := src.OpenFile(t.Context(), got.Ref, x)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(rc); string(b) != content || err != nil {
				t.Errorf("%d bytes of %d, %v", len(b), len(content), err)
			}
			_ = rc.Close()
		}
		for dir, want := range map[string]int{".": 7, recordsDir: 1, tmpDir: 0} { // desk.json, fields.json, files, journal.log, lock, records, tmp
			names, err := os.ReadDir(filepath.Join(tg.dir, dir))
			if err != nil || len(names) > want {
				t.Errorf("in %s there are %v, %v", dir, names, err)
			}
		}
	})
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

package archive

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

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

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

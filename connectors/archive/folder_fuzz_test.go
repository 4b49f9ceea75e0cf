package archive

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// FuzzFolder works on a folder that somebody else wrote: lines whose checksums are right and whose content is anything, and
// records, a pending line and fields to match or not. Reading fails with a class or goes on to an end; what is written on
// top of it can be read afterwards; nothing beside the folder is touched, and no error repeats what records say.
func FuzzFolder(f *testing.F) {
	line := func(seq, id, more string) string {
		return `{"seq":` + seq + `,"at":"2020-01-01T00:00:00Z","ref":{"kind":"ticket","id":"` + id + `"}` + more + `}`
	}
	record := func(id, more string) string {
		return `{"record":{"ref":{"kind":"ticket","id":"` + id + `"},"stamp":{"at":"2020-01-01T00:00:00Z","seq":1},"fields":{"subject":["` + planted + `"]},` +
			`"began":"0001-01-01T00:00:00Z","entries":[{"id":"e1","marker":"m","public":true,"author":{"email":"` + planted + `"},"at":"2020-01-01T00:00:00Z","body":"` + planted + `","files":[` +
			`{"id":"f1","name":"../` + planted + `","size":3,"sha256":"` + abcSum + `"}]}]}` + more + `}`
	}
	good := line("1", "1", `,"files":["`+abcSum+`"],"keys":["00"],"sources":[{"kind":"ticket","id":"1"}]`)
	f.Add(good, record("1", ""), "", "", "abc")
	f.Add(good+"\n"+line("2", "1", ""), record("1", ""), `{"line":`+strconv.Quote(line("3", "1", ""))+`}`, `{"ticket":["custom.x"]}`, strings.Repeat("abc", 9))
	f.Add(good+"\n"+line("2", "2", `,"event":"merged","into":"1"`), record("1", `,"into":"1"`), `{"line":`+strconv.Quote(line("2", "2", ""))+`,"drop":["../../outside/old"]}`, "[]", "")
	f.Add(line("1", "../../../outside/old", ""), record("../../../outside/old", ""), "{", "{}", "abc")
	f.Add(line("1", "", ""), record("1", `,"origins":[{"ref":{"kind":"person","id":""}}]`), "", "", "abc")
	f.Add(good+"\n"+line("2", "1", `,"aliases":["1","7"]`)+"\n"+line("3", strings.Repeat("9", 300), ""), record("1", ""), "", "", "abc")
	f.Add(good+"\n"+line("2", "2", `,"at":"`+planted+`"`), record("1", `,"at":"`+planted+`"`), `{"line":"`+planted+`"}`, `{"ticket":"`+planted+`"}`, planted)
	f.Fuzz(func(t *testing.T, lines, record, pending, fields, blob string) {
		top := t.TempDir()
		dir := filepath.Join(top, "archive")
		c := desk.Config{"folder": dir, "page_size": "2", "fsync": "false"}
		_, tg := open(t, c)
		sum := tg.start
		var journal strings.Builder
		for l := range strings.SplitSeq(lines, "\n") {
			sum = sum.next([]byte(l))
			journal.WriteString(sum.String() + " " + l + "\n")
		}
		for name, content := range map[string]string{
			journalFile: journal.String(), mustPath(t, ticketRef("1")): record, pendingFile: pending, fieldsFile: fields,
			filepath.Join(filesDir, "ba", abcSum[2:]): blob,
		} {
			if content != "" {
				putFile(t, filepath.Join(dir, name), content)
			}
		}
		beside := besides(t, top)
		readAll(t, c, 2+strings.Count(lines, "\n"))
		before := soundNow(t, c)
		wrote := writeAll(t, c)
		if before != nil && wrote {
			t.Errorf("an archive that cannot be trusted was written on: %v", before)
		}
		if after := soundNow(t, c); before == nil && after != nil {
			t.Errorf("an archive that was sound no longer is: %v", after)
		}
		if diff := cmp.Diff(beside, besides(t, top)); diff != "" {
			t.Errorf("something beside the archive has changed:\n%s", diff)
		}
	})
}

// planted stands where only content does, and must never be in an error.
const planted = "planted words"

// abcSum is the SHA-256 of "abc".
const abcSum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

// putFile writes a file, and makes the folders above it.
func putFile(t testing.TB, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// wellSaid checks an error of a desk: it has a class, and no content.
func wellSaid(t *testing.T, what string, err error) {
	t.Helper()
	var e *desk.Error
	if err == nil || strings.Contains(what, planted) {
		return
	}
	if !errors.As(err, &e) || e.Class == nil {
		t.Errorf("%s: without a class: %v", what, err)
	}
	if strings.Contains(err.Error(), planted) {
		t.Errorf("%s: says too much: %v", what, err)
	}
}

// readAll reads everything that a source shows.
func readAll(t *testing.T, c desk.Config, lines int) {
	t.Helper()
	s, err := Connector.NewSource(c, desk.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	src := s.(*source)
	_, err = src.Define(t.Context())
	wellSaid(t, "define", err)
	wellSaid(t, "check", src.Check(t.Context()))
	_, err = src.At(t.Context(), time.Unix(1e9, 0))
	wellSaid(t, "at", err)
	refs := []desk.Ref{ticketRef("1"), ticketRef("2")}
	for _, k := range append(desk.LoadOrder(), "x") {
		var from desk.Cursor
		for n := 0; ; n++ {
			p, err := src.Changes(t.Context(), k, desk.Scope{}, from, nil)
			if wellSaid(t, "list", err); err != nil {
				break
			}
			for _, l := range p.Items {
				refs = append(refs, l.Ref)
				if l.Ref.ID == "" || len(l.Ref.ID) > maxID {
					t.Errorf("an id of %d bytes is listed", len(l.Ref.ID))
				}
			}
			if from = p.Next; p.Done {
				break
			}
			if n > lines {
				t.Fatalf("%d pages of %d lines", n, lines)
			}
		}
	}
	for _, ref := range refs {
		r, err := src.Read(t.Context(), ref)
		wellSaid(t, ref.ID, err)
		for _, e := range r.Entries {
			for _, x := range e.Files {
				rc, err := src.OpenFile(t.Context(), r.Ref, x)
				if wellSaid(t, r.Ref.ID+x.ID, err); err != nil {
					continue
				}
				n, err := io.Copy(io.Discard, rc)
				wellSaid(t, r.Ref.ID+x.ID, err)
				if err == nil && n != x.Size || n > x.Size+64<<10 {
					t.Errorf("%d bytes of %d, %v", n, x.Size, err)
				}
				_ = rc.Close()
			}
		}
	}
}

// soundNow tells whether a source that is opened now can be trusted.
func soundNow(t *testing.T, c desk.Config) error {
	t.Helper()
	s, err := Connector.NewSource(c, desk.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*source).Check(t.Context())
}

// writeAll does everything that a target can do once, and tells whether anything was written.
func writeAll(t *testing.T, c desk.Config) (wrote bool) {
	t.Helper()
	w, err := Connector.NewTarget(c, desk.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	tg := w.(*target)
	file := desk.File{ID: "f", Size: -1, Open: text("new bytes")}
	r := simple("9")
	r.Entries[0].Files = []desk.File{file}
	_, created := tg.Create(t.Context(), r)
	_, applied := tg.Apply(t.Context(), ticketRef("1"), desk.Change{Fields: desk.Fields{desk.Custom("y"): {"v"}}, Entries: r.Entries})
	for what, err := range map[string]error{
		"create": created, "apply": applied, "revise": tg.Revise(t.Context(), ticketRef("1"), desk.Entry{ID: "e1", Files: []desk.File{file}}, ""),
		"merge": tg.Merge(t.Context(), ticketRef("1"), ticketRef("9"), ""), "delete": tg.Delete(t.Context(), ticketRef("9"), ""),
	} {
		wellSaid(t, what, err)
		wrote = wrote || err == nil
	}
	return wrote
}

// besides returns what there is in a folder beside the archive in it, a file of long ago among it.
func besides(t *testing.T, top string) map[string]string {
	t.Helper()
	out := filepath.Join(top, "outside")
	if _, err := os.Lstat(out); err != nil {
		old := filepath.Join(out, "old")
		putFile(t, old, planted)
		if err := os.Chtimes(old, time.Time{}, time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	all := map[string]string{}
	err := filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "archive" {
			return filepath.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			all[path] = string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

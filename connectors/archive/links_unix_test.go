//go:build unix

package archive

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// TestLinks: whatever in an archive is a link that leads out of it, or a pipe, is refused: nothing behind it is read, and
// nothing there is written, moved or removed.
func TestLinks(t *testing.T) {
	blob := filepath.Join(filesDir, "ba", abcSum[2:])
	record := mustPath(t, ticketRef("1"))
	for _, place := range []string{
		deskFile, journalFile, recordsDir, filepath.Dir(record), record, filesDir, filepath.Dir(blob), blob, fieldsFile, pendingFile, tmpDir, lockFile,
	} {
		t.Run(place, func(t *testing.T) {
			top := t.TempDir()
			c := desk.Config{"folder": filepath.Join(top, "archive")}
			_, tg := open(t, c)
			r := simple("1")
			r.Fields[desk.Custom("x")] = desk.Value{"v"}
			r.Entries[0].Files = []desk.File{{ID: "f", Size: 3, Open: text("abc")}}
			create(t, tg, r)
			putFile(t, filepath.Join(tg.dir, pendingFile), `{"line":"{\"seq\":1,\"at\":\"2020-01-01T00:00:00Z\",\"ref\":{\"kind\":\"ticket\",\"id\":\"1\"}}","drop":["`+abcSum+`"]}`)
			old := filepath.Join(tg.dir, tmpDir, "old")
			putFile(t, old, planted)
			if err := os.Chtimes(old, time.Time{}, time.Unix(1e9, 0)); err != nil {
				t.Fatal(err)
			}
			from, to := filepath.Join(tg.dir, place), filepath.Join(top, "outside", "it")
			besides(t, top)
			if err := errors.Join(os.Rename(from, to), os.Symlink(to, from)); err != nil {
				t.Fatal(err)
			}
			before := besides(t, top)
			if err := everything(t, c); err == nil {
				t.Error("everything went well")
			}
			if diff := cmp.Diff(before, besides(t, top)); diff != "" {
				t.Errorf("what lies behind the link has changed:\n%s", diff)
			}
			if info, err := os.Lstat(to); err != nil || info.IsDir() {
				return // a pipe stands for a file
			}
			if err := errors.Join(os.RemoveAll(from), syscall.Mkfifo(from, 0o600)); err != nil {
				t.Fatal(err)
			}
			if err := everything(t, c); err == nil { // and it does not wait for ever
				t.Error("everything went well with a pipe")
			}
		})
	}
}

// everything uses an archive in every way and returns what went wrong.
func everything(t *testing.T, c desk.Config) error {
	t.Helper()
	s, err := Connector.NewSource(c, desk.Deps{})
	if err != nil {
		return err
	}
	src := s.(*source)
	_, defined := src.Define(t.Context())
	r, read := src.Read(t.Context(), ticketRef("1"))
	var opened error
	if read == nil {
		var rc io.ReadCloser
		if rc, opened = src.OpenFile(t.Context(), r.Ref, r.Entries[0].Files[0]); opened == nil {
			_, opened = io.Copy(io.Discard, rc)
			_ = rc.Close()
		}
	}
	wrote := writeAll(t, c)
	if !wrote {
		return errors.New("nothing could be written")
	}
	return errors.Join(defined, src.Check(t.Context()), read, opened)
}

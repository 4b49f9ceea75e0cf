package localstore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
)

func putObject(t *testing.T, s *Store, key, content string) string {
	t.Helper()
	if _, err := s.Objects().Put(t.Context(), key, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	file, err := s.Objects().Path(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// age makes an object older.
func age(t *testing.T, s *Store, key string, by time.Duration) {
	t.Helper()
	if _, err := s.writer.Exec(`UPDATE objects SET made = made - ? WHERE key = ?`, by.Milliseconds(), key); err != nil {
		t.Fatal(err)
	}
}

// files lists what lies in the store's folders, without the random part of the names.
func files(t *testing.T, s *Store) (names []string) {
	t.Helper()
	for _, root := range []string{objectsName, tempName} {
		err := filepath.WalkDir(filepath.Join(s.dir, root), func(file string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				base, id, _ := strings.Cut(filepath.Base(file), "~")
				names = append(names, root+": "+base+filepath.Ext(id))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func TestExpire(t *testing.T) {
	s := openIn(t, t.TempDir())
	const day = 24 * time.Hour
	for key, days := range map[string]time.Duration{
		"staging/old": 11, "staging/new": 9, "stagingx/old": 11, "undo/old": 11, "staging": 11, "Staging/old": 11,
	} {
		putObject(t, s, key, key)
		age(t, s, key, days*day)
	}
	n, err := s.Objects().Expire(t.Context(), "staging/", 10*day)
	if err != nil || n != 1 {
		t.Errorf("Expire removed %d, %v; want 1", n, err)
	}
	if n, err := s.Objects().Expire(t.Context(), "staging/", 10*day); err != nil || n != 0 {
		t.Errorf("second Expire removed %d, %v; want 0", n, err)
	}
	if _, _, err := s.Objects().Open(t.Context(), "staging/old"); !errors.Is(err, delta.ErrNoObject) {
		t.Errorf("Open of an expired object: %v; want ErrNoObject", err)
	}
	if got := files(t, s); len(got) != 5 {
		t.Errorf("files %q; want the five others", got)
	}
	putObject(t, s, "staging/old", "again") // its key is free
}

// TestRubbish: what killed processes leave behind goes after a day, and nothing else does.
func TestRubbish(t *testing.T) {
	s := openIn(t, t.TempDir())
	kept := putObject(t, s, "plan/kept.json", "x")
	stray := filepath.Join(filepath.Dir(kept), "stray~1.json")
	half := filepath.Join(s.dir, tempName, "put-old")
	fresh := filepath.Join(s.dir, tempName, "put-fresh")
	for _, f := range []string{stray, half, fresh} {
		put(t, f, "rubbish")
	}
	long := time.Now().Add(-25 * time.Hour)
	for _, f := range []string{kept, stray, half} {
		if err := os.Chtimes(f, long, long); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Objects().Expire(t.Context(), "staging/", 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"objects: kept.json", "tmp: put-fresh"}, files(t, s)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDamagedObject(t *testing.T) {
	s := openIn(t, t.TempDir())
	for _, c := range []struct {
		name   string
		damage func(file string) error
		want   string
	}{
		{"changed", func(f string) error { return os.WriteFile(f, []byte("contenT"), 0o600) }, "is damaged"},
		{"cut", func(f string) error { return os.Truncate(f, 3) }, "is damaged"},
		{"longer", func(f string) error { return os.WriteFile(f, []byte("contents"), 0o600) }, "is damaged"},
		{"gone", os.Remove, "is gone from the store"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.damage(putObject(t, s, c.name, "content")); err != nil {
				t.Fatal(err)
			}
			r, _, err := s.Objects().Open(t.Context(), c.name)
			if err == nil {
				_, err = io.ReadAll(r)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, delta.ErrNoObject) {
				t.Errorf("%v; want %q, and not ErrNoObject", err, c.want)
			}
		})
	}
}

// TestFilesStayInside: whatever the key, the file lies two folders below objects/.
func TestFilesStayInside(t *testing.T) {
	s := openIn(t, t.TempDir())
	root := filepath.Join(s.dir, objectsName)
	keys := []string{"..", ".", "/", "//", "../x", "a/../../x", "/etc/passwd", "x", "reports/01ABC/run.html", "~", "a/b.verylongextension", strings.Repeat("x/", 249) + "y"}
	for c := ' '; c <= '~'; c++ {
		keys = append(keys, string(c), "a/"+string(c), string(c)+"/a", "..."+string(c))
	}
	seen := map[string]bool{}
	for _, key := range keys {
		if seen[key] {
			continue
		}
		seen[key] = true
		file := putObject(t, s, key, key)
		rel, err := filepath.Rel(root, file)
		if err != nil || !filepath.IsLocal(rel) || strings.Count(rel, string(filepath.Separator)) != 2 || len(filepath.Base(rel)) > 200 {
			t.Errorf("key %q lies in %s", key, file)
		}
	}
}

// An index that was tampered with must not make the store read or remove anything else.
func TestDamagedIndex(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other.txt")
	if err := os.WriteFile(other, []byte("not the store's"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openIn(t, filepath.Join(dir, "store"))
	putObject(t, s, "staging/a", "content")
	if _, err := s.writer.Exec(`UPDATE objects SET file = '../../other.txt'`); err != nil {
		t.Fatal(err)
	}
	age(t, s, "staging/a", time.Hour)
	if _, _, err := s.Objects().Open(t.Context(), "staging/a"); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("opened a file outside of the store: %v", err)
	}
	if n, err := s.Objects().Expire(t.Context(), "staging/", time.Minute); err == nil || n != 0 {
		t.Errorf("expired %d objects, error %v", n, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("it removed a file outside of the store: %v", err)
	}
}

func TestDurable(t *testing.T) {
	s := openIn(t, t.TempDir())
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "busy_timeout": "10000", "page_size": "8192", "fullfsync": "1"} {
		var got string
		if err := s.writer.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q: an acknowledged write must survive a power cut", pragma, got, err, want)
		}
	}
}

// endless cancels something on the way and goes on, for long.
type endless struct {
	cancel func()
	reads  int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.reads++; e.reads == 3 {
		e.cancel()
	} else if e.reads > 1000 {
		return 0, errors.New("read on and on")
	}
	return len(p), nil
}

func TestPutEndsWithItsContext(t *testing.T) {
	s := openIn(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := s.Objects().Put(ctx, "x", &endless{cancel: cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v; want context.Canceled", err)
	}
	if got := files(t, s); len(got) > 0 {
		t.Errorf("it left %q behind", got)
	}
}

package localstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// childEnv tells the test binary to be another process: "write DIR" or "decide DIR".
const childEnv = "LOCALSTORE_CHILD"

func TestMain(m *testing.M) {
	if what, dir, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		child := map[string]func(string) error{"write": writeForever, "decide": decideOnce}[what]
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func openIn(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestOneProcessRuns(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	_, err := Open(t.Context(), dir, Options{})
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("process %d;", os.Getpid())) {
		t.Fatalf("second Open: %v; want ErrBusy with process %d", err, os.Getpid())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if again := openIn(t, dir); again.Session() == s.Session() || len(again.Session()) != 26 {
		t.Errorf("sessions %q and %q; want two different ULIDs", s.Session(), again.Session())
	}
}

func TestOthersLookAndDecideMeanwhile(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	rows := s.Rows()
	asked := delta.Key{Part: "acme", Sort: "decision"}
	version, err := rows.Put(t.Context(), delta.Row{Key: asked, Body: []byte(`"asked"`)})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // the run goes on writing
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := rows.Put(t.Context(), delta.Row{Key: delta.Key{Part: "acme", Sort: fmt.Sprint("busy", i)}, Body: []byte("1")}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=decide "+dir)
	out, err := cmd.CombinedOutput()
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatalf("the other process: %v\n%s", err, out)
	}
	got, err := rows.Get(t.Context(), asked)
	if err != nil {
		t.Fatal(err)
	}
	if got.Version <= version || string(got.Body) != `"decided"` {
		t.Errorf("version %d with %s; want a version above %d, decided", got.Version, got.Body, version)
	}
}

func decideOnce(dir string) error {
	ctx := context.Background()
	if _, err := Open(ctx, dir, Options{}); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("process %d;", os.Getppid())) {
		return fmt.Errorf("Open beside a run: %w; want ErrBusy with process %d", err, os.Getppid())
	}
	s, err := OpenReader(ctx, dir, Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	row, err := s.Rows().Get(ctx, delta.Key{Part: "acme", Sort: "decision"})
	if err != nil {
		return err
	}
	row.Body = []byte(`"decided"`)
	if _, err := s.Rows().Put(ctx, row); err != nil {
		return err
	}
	if err := s.Queue().Send(ctx, []delta.Message{{}}, 0); err == nil {
		return errors.New("a reader could send")
	}
	return nil
}

// TestKilled kills a writing process at random moments. Whatever it said was written must be there afterwards.
func TestKilled(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	acked := map[string]string{} // what was said of a row or object, last
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"=write "+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, kill := bufio.NewScanner(out), 1+rnd.IntN(150)
		for n := 1; lines.Scan(); n++ {
			what, state, _ := strings.Cut(lines.Text(), " ")
			acked[what] = state
			if n == kill {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()

		s := openIn(t, dir)
		for what, state := range acked {
			checkAcked(t, s, what, state)
		}
		checkIndex(t, s)
		s.Close()
	}
	if len(acked) < 10 {
		t.Fatalf("only %d writes were acknowledged", len(acked))
	}
}

// writeForever says "row/NAME COUNT VERSION" after the COUNTth write of a row, "object/NAME HASH" after an object.
func writeForever(dir string) error {
	ctx := context.Background()
	s, err := Open(ctx, dir, Options{})
	if err != nil {
		return err
	}
	var n atomic.Int64
	fail := make(chan error)
	for i := range 4 {
		go func() {
			row := delta.Row{Key: delta.Key{Part: "p", Sort: fmt.Sprint("row/", i)}}
			count := 0
			if old, err := s.Rows().Get(ctx, row.Key); err == nil {
				row.Version = old.Version
				count, _ = strconv.Atoi(string(old.Body))
			}
			for {
				count++
				row.Body = []byte(strconv.Itoa(count))
				v, err := s.Rows().Put(ctx, row)
				if err != nil {
					fail <- err
					return
				}
				row.Version = v
				fmt.Printf("%s %d %d\n", row.Sort, count, v)

				size := rand.IntN(200_000)
				content := make([]byte, size)
				rand.NewChaCha8([32]byte{byte(size)}).Read(content)
				key := fmt.Sprintf("object/%s/%d", s.Session(), n.Add(1))
				info, err := s.Objects().Put(ctx, key, bytes.NewReader(content))
				if err != nil {
					fail <- err
					return
				}
				fmt.Printf("%s %s\n", key, info.SHA256)
			}
		}()
	}
	return <-fail
}

func checkAcked(t *testing.T, s *Store, what, state string) {
	t.Helper()
	if strings.HasPrefix(what, "row/") {
		row, err := s.Rows().Get(t.Context(), delta.Key{Part: "p", Sort: what})
		if err != nil {
			t.Fatal(err)
		}
		// The last write before the kill may have gone unsaid.
		var count int
		var version int64
		if _, err := fmt.Sscan(state, &count, &version); err != nil {
			t.Fatalf("%s: %q: %v", what, state, err)
		}
		if n, _ := strconv.Atoi(string(row.Body)); n < count || row.Version < version || (n == count) != (row.Version == version) {
			t.Errorf("%s has write %d with version %d, but write %d with version %d was acknowledged", what, n, row.Version, count, version)
		}
		return
	}
	if got := readHash(t, s, what); got != state {
		t.Errorf("%s has hash %s, want %s", what, got, state)
	}
}

// checkIndex reads every object that the index names to its end.
func checkIndex(t *testing.T, s *Store) {
	t.Helper()
	keys, err := s.Objects().texts(t.Context(), `SELECT key FROM objects`)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		readHash(t, s, key)
	}
}

func readHash(t *testing.T, s *Store, key string) string {
	t.Helper()
	r, info, err := s.Objects().Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sum := sha256.New()
	if n, err := io.Copy(sum, r); err != nil || n != info.Size {
		t.Fatalf("read %s: %d bytes of %d, %v", key, n, info.Size, err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func TestOpenRefuses(t *testing.T) {
	type open = func(context.Context, string, Options) (*Store, error)
	for _, c := range []struct {
		name string
		open open
		make func(t *testing.T, dir string)
		want string
	}{
		{"no store to look at", OpenReader, func(*testing.T, string) {}, "no store"},
		{"no directory", OpenReader, func(_ *testing.T, dir string) { os.Remove(dir) }, "check the directory"},
		{"a file in the way", Open, func(_ *testing.T, dir string) {
			os.Remove(dir)
			os.WriteFile(dir, nil, 0o600)
		}, "choose a directory that you may write to"},
		{"not a database", Open, func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, databaseName), strings.Repeat("not a database. ", 1000))
		}, "is damaged"},
		{"foreign", Open, exec1(`CREATE TABLE theirs (x)`), "belongs to another program"},
		{"newer", Open, exec1(fmt.Sprintf(`PRAGMA application_id = %d; PRAGMA user_version = %d`, application, format+1)), "use the newer deltadesk"},
		{"newer, to look at", OpenReader, exec1(fmt.Sprintf(`PRAGMA application_id = %d; PRAGMA user_version = %d`, application, format+1)), "use the newer deltadesk"},
		{"half made, to look at", OpenReader, func(t *testing.T, dir string) { put(t, filepath.Join(dir, databaseName), "") }, "begin with a run"},
		{"lost", Open, func(t *testing.T, dir string) {
			openIn(t, dir).Close()
			os.Remove(filepath.Join(dir, databaseName))
		}, "restore the file from a backup"},
		{"emptied", Open, func(t *testing.T, dir string) {
			openIn(t, dir).Close()
			os.Truncate(filepath.Join(dir, databaseName), 0)
		}, "restore the file from a backup"},
		{"cut", Open, func(t *testing.T, dir string) {
			openIn(t, dir).Close()
			os.Truncate(filepath.Join(dir, databaseName), 8192+100)
		}, "is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.make(t, dir)
			s, err := c.open(t.Context(), dir, Options{})
			if err == nil {
				s.Close()
				t.Fatal("it opened")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v\nwant the directory and %q", err, c.want)
			}
			t.Log(err)
		})
	}
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func sqlOpen(dir string) (*sql.DB, error) { return sql.Open("sqlite", dsn(dir)) }

// exec1 makes a database by other means.
func exec1(query string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		db, err := sqlOpen(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOddDirectories(t *testing.T) {
	for _, name := range []string{"a b", "what?", "50%25", "#1", "ünï", "a&b=c"} {
		dir := filepath.Join(t.TempDir(), name)
		s := openIn(t, dir)
		if _, err := s.Rows().Put(t.Context(), delta.Row{Key: delta.Key{Part: "p", Sort: "s"}, Body: []byte("1")}); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, databaseName)); err != nil {
			t.Error(err)
		}
	}
}

func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o500)
	if os.Getuid() == 0 {
		dir = "/proc/self" // root may write nearly anywhere
	}
	if _, err := Open(t.Context(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "rights") {
		t.Errorf("%v; want something about rights", err)
	}
}

func TestLockedTooLong(t *testing.T) {
	dir := t.TempDir()
	openIn(t, dir).Close()
	s, err := OpenReader(t.Context(), dir, Options{BusyTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db, err := sqlOpen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	row := delta.Row{Key: delta.Key{Part: "p", Sort: "s"}, Body: []byte("1")}
	if _, err := s.Rows().Put(t.Context(), row); err == nil || !strings.Contains(err.Error(), "another process kept the database locked") {
		t.Errorf("put beside a lock: %v", err)
	}
	if _, err := s.Rows().Get(t.Context(), row.Key); !errors.Is(err, delta.ErrNoRow) {
		t.Errorf("get beside a lock: %v; reads must not wait", err)
	}
	if _, err := db.Exec(`ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rows().Put(t.Context(), row); err != nil {
		t.Error(err)
	}
}

// TestPageEnds: a page of heavy rows ends as early as it does in the cloud, so that the engine meets short pages here, too.
func TestPageEnds(t *testing.T) {
	s := openIn(t, t.TempDir())
	for i := range 8 {
		if _, err := s.Rows().Put(t.Context(), delta.Row{Key: delta.Key{Part: "p", Sort: strconv.Itoa(i)}, Body: make([]byte, 300<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	rows, more, err := s.Rows().Range(t.Context(), "p", "", "", 1000)
	if err != nil || len(rows) != 4 || !more {
		t.Errorf("%d rows, more %v, %v; want 4 and more", len(rows), more, err)
	}
}

// TestVersionsInANewProcess: the next process knows nothing of the versions that were given, and a clock that is set back
// does not bring them back.
func TestVersionsInANewProcess(t *testing.T) {
	dir := t.TempDir()
	row := delta.Row{Key: delta.Key{Part: "p", Sort: "s"}, Body: []byte("1")}
	had := map[int64]bool{}
	for _, last := range []int64{0, 0, time.Now().Add(time.Hour).UnixNano(), 0} {
		lastVersion.Store(last)
		s := openIn(t, dir)
		row.Version = 0
		for range 3 {
			v, err := s.Rows().Put(t.Context(), row)
			if err != nil {
				t.Fatal(err)
			}
			if had[v] || v <= max(row.Version, last) {
				t.Errorf("version %d after %d; want a greater one that the row never had", v, row.Version)
			}
			had[v], row.Version = true, v
		}
		if err := s.Rows().Delete(t.Context(), row.Key, row.Version); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
}

func TestCalls(t *testing.T) {
	s := openIn(t, t.TempDir())
	ctx, key := t.Context(), delta.Key{Part: "p", Sort: "s"}
	s.Rows().Get(ctx, key)
	s.Rows().Get(ctx, key)
	s.Rows().GetMany(ctx, nil)
	s.Objects().Open(ctx, "x")
	s.Queue().Send(ctx, nil, 0)
	want := map[string]int{"rows.Get": 2, "rows.GetMany": 1, "objects.Open": 1, "queue.Send": 1}
	if diff := cmp.Diff(want, s.Calls()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func BenchmarkPut(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 1000)
	for _, workers := range []int{1, 8} {
		b.Run(fmt.Sprint("workers=", workers), func(b *testing.B) {
			s := openIn(b, b.TempDir())
			var n atomic.Int64
			b.SetParallelism(workers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					key := delta.Key{Part: "p", Sort: fmt.Sprintf("%08d", n.Add(1))}
					if _, err := s.Rows().Put(b.Context(), delta.Row{Key: key, Body: body}); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
		})
	}
}

func BenchmarkPutMany(b *testing.B) {
	s := openIn(b, b.TempDir())
	body := bytes.Repeat([]byte("x"), 1000)
	for i := 0; b.Loop(); i++ {
		rows := make([]delta.Row, 25)
		for j := range rows {
			rows[j] = delta.Row{Key: delta.Key{Part: "p", Sort: fmt.Sprintf("%08d", i*25+j)}, Body: body}
		}
		if err := s.Rows().PutMany(b.Context(), rows); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*25)/b.Elapsed().Seconds(), "rows/s")
}

func benchRows(b *testing.B, s *Store, n int) {
	b.Helper()
	body := bytes.Repeat([]byte("x"), 1000)
	for i := 0; i < n; i += 25 {
		rows := make([]delta.Row, 25)
		for j := range rows {
			rows[j] = delta.Row{Key: delta.Key{Part: "p", Sort: fmt.Sprintf("%08d", i+j)}, Body: body}
		}
		if err := s.Rows().PutMany(b.Context(), rows); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := openIn(b, b.TempDir())
	benchRows(b, s, 10_000)
	for b.Loop() {
		if _, err := s.Rows().Get(b.Context(), delta.Key{Part: "p", Sort: fmt.Sprintf("%08d", rand.IntN(10_000))}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRange(b *testing.B) {
	s := openIn(b, b.TempDir())
	benchRows(b, s, 10_000)
	for b.Loop() {
		rows, _, err := s.Rows().Range(b.Context(), "p", "", fmt.Sprintf("%08d", rand.IntN(9_000)), 500)
		if err != nil || len(rows) != 500 {
			b.Fatal(len(rows), err)
		}
	}
	b.ReportMetric(float64(b.N*500)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkObjectPut(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprint("size=", size), func(b *testing.B) {
			s := openIn(b, b.TempDir())
			content := make([]byte, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				binary.LittleEndian.PutUint64(content, uint64(i))
				if _, err := s.Objects().Put(b.Context(), fmt.Sprint("staging/", i), bytes.NewReader(content)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
		})
	}
}

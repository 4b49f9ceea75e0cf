package deltatest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/deltadesk/deltadesk/shared/delta"
)

var objectRules = []storeRule{
	{"objects/absent", objectsAbsent},
	{"objects/put and open", objectsPutOpen},
	{"objects/written once", objectsWrittenOnce},
	{"objects/race", objectsRace},
	{"objects/failing reader", objectsFailingReader},
	{"objects/seen when complete", objectsSeenWhenComplete},
	{"objects/keys apart", objectsKeysApart},
	{"objects/bad keys", objectsBadKeys},
	{"objects/streamed", objectsStreamed},
	{"objects/opened twice", objectsOpenedTwice},
	{"objects/cancelled", objectsCancelled},
	{"objects/kept", objectsKept},
}

func objectsAbsent(t testing.TB, s Stores) {
	wantNoObject(t, s, newName()+"/x")
}

func objectsPutOpen(t testing.TB, s Stores) {
	prefix := newName()
	for i, r := range []func(io.Reader) io.Reader{
		func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader, iotest.HalfReader, pausing,
	} {
		for _, size := range []int{0, 1, 1000, 100_000} {
			key, content := fmt.Sprintf("%s/%d/%d.json", prefix, i, size), largeBody(size)
			if size == 0 {
				content = nil
			}
			info, err := s.Objects.Put(t.Context(), key, r(bytes.NewReader(content)))
			if err != nil {
				t.Fatalf("Put of %d bytes: %v", size, err)
			}
			if info != infoOf(content) {
				t.Errorf("Put said %v; want %v", info, infoOf(content))
			}
			wantObject(t, s, key, content)
		}
	}
}

func objectsWrittenOnce(t testing.TB, s Stores) {
	key := newName() + "/x"
	mustPutObject(t, s, key, "first")
	for _, content := range []string{"second", "first", ""} {
		if info, err := s.Objects.Put(t.Context(), key, strings.NewReader(content)); !errors.Is(err, delta.ErrExists) {
			t.Errorf("second Put: %v, %v; want ErrExists", info, err)
		}
		wantObject(t, s, key, []byte("first"))
	}
}

// objectsRace: of 32 writers of one key exactly one wins, and its bytes are there, not a mixture.
func objectsRace(t testing.TB, s Stores) {
	key := newName() + "/x"
	var mu sync.Mutex
	var winners []int
	content := func(i int) []byte { return bytes.Repeat([]byte(strconv.Itoa(i)+","), 10_000+i) }
	race(32, func(i int) {
		info, err := s.Objects.Put(t.Context(), key, bytes.NewReader(content(i)))
		switch {
		case err == nil && info == infoOf(content(i)):
			mu.Lock()
			winners = append(winners, i)
			mu.Unlock()
		case !errors.Is(err, delta.ErrExists):
			t.Errorf("Put in a race: %v, %v; want its info or ErrExists", info, err)
		}
	})
	if len(winners) != 1 {
		t.Fatalf("%d of 32 writers won; want exactly one", len(winners))
	}
	wantObject(t, s, key, content(winners[0]))
}

func objectsFailingReader(t testing.TB, s Stores) {
	broken := errors.New("the line broke")
	for _, size := range []int{0, 1, 100_000, 6 << 20} {
		key := newName() + "/x"
		r := io.MultiReader(bytes.NewReader(make([]byte, size)), iotest.ErrReader(broken))
		if info, err := s.Objects.Put(t.Context(), key, r); !errors.Is(err, broken) {
			t.Errorf("Put with a reader that fails after %d bytes: %v, %v; want its error", size, info, err)
		}
		wantNoObject(t, s, key)
		if info, err := s.Objects.Put(t.Context(), key, strings.NewReader("whole")); err != nil {
			t.Errorf("Put after a failed one: %v, %v", info, err)
			continue
		}
		wantObject(t, s, key, []byte("whole"))
	}
}

// objectsSeenWhenComplete looks for the object while it is being written.
func objectsSeenWhenComplete(t testing.TB, s Stores) {
	key := newName() + "/x"
	content := largeBody(1 << 20)
	looked := 0
	r := readFunc(func(p []byte) (int, error) {
		if left := len(content) - looked; left == 0 {
			wantNoObject(t, s, key)
			return 0, io.EOF
		}
		n := copy(p, content[looked:])
		looked += n
		wantNoObject(t, s, key)
		return n, nil
	})
	if _, err := s.Objects.Put(t.Context(), key, r); err != nil {
		t.Fatalf("Put: %v", err)
	}
	wantObject(t, s, key, content)
}

// objectsKeysApart: every allowed key has an object of its own, also where a file system would see two names for one file,
// or a file where a folder is.
func objectsKeysApart(t testing.TB, s Stores) {
	prefix := newName() + "/"
	keys := []string{
		"a", "A", "a/b", "a/b/c", "a/B", "a.", "a ", "a.json", "a.JSON", "a_json", "a%2Fb", "a%2fb", "a\\b", "con", "nul.txt", "~", "-rf", "*", "?x=1", "#x", "x.tmp", ".hidden",
		strings.Repeat("x", 500-len(prefix)), strings.Repeat("x", 499-len(prefix)), strings.Repeat("x/", 200) + "x",
	}
	for c := byte(' '); c <= '~'; c++ {
		if c != '/' {
			keys = append(keys, "each"+string(c), "each-"+string(c)+"/x")
		}
	}
	for _, key := range keys {
		mustPutObject(t, s, prefix+key, key)
	}
	for _, key := range keys {
		wantObject(t, s, prefix+key, []byte(key))
	}
	// These a store may refuse, but not confuse.
	for _, key := range []string{"a//b", "./a", "../a", "a/../a", "a/.", "..", ".", "a/", "../../../../etc/deltatest"} {
		if _, err := s.Objects.Put(t.Context(), prefix+key, strings.NewReader(key)); err == nil {
			wantObject(t, s, prefix+key, []byte(key))
		} else if errors.Is(err, delta.ErrExists) {
			t.Errorf("Put of %q: %v; it has met another key", key, err)
		}
	}
	for _, key := range keys {
		wantObject(t, s, prefix+key, []byte(key))
	}
}

func objectsBadKeys(t testing.TB, s Stores) {
	for _, key := range []string{"", newName() + strings.Repeat("x", 500), newName() + "/ü", newName() + "/\x00", newName() + "/\n"} {
		if _, err := s.Objects.Put(t.Context(), key, strings.NewReader("x")); err == nil || errors.Is(err, delta.ErrExists) {
			t.Errorf("Put of key %.40q with %d bytes: %v; want a refusal", key, len(key), err)
		}
	}
}

// objectsStreamed: the heap does not grow with an object, neither writing nor reading it.
func objectsStreamed(t testing.TB, s Stores) {
	const size, allowed = 96 << 20, 32 << 20
	key := newName() + "/x"
	heap := newHeap()
	sum := sha256.New()
	info, err := s.Objects.Put(t.Context(), key, io.TeeReader(heap.watch(&numbers{left: size}), sum))
	if err != nil {
		t.Fatalf("Put: %v", err)
	}
	want := delta.Info{Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}
	if info != want {
		t.Errorf("Put said %v; want %v", info, want)
	}
	if heap.grown > allowed {
		t.Errorf("the heap grew by %d MB while %d MB were put; want at most %d", heap.grown>>20, size>>20, allowed>>20)
	}
	heap = newHeap()
	r, info, err := s.Objects.Open(t.Context(), key)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer r.Close()
	sum.Reset()
	if n, err := io.Copy(sum, heap.watch(r)); err != nil || n != size || info != want || hex.EncodeToString(sum.Sum(nil)) != want.SHA256 {
		t.Errorf("Open gave %d bytes, %v, %v; want %v", n, info, err, want)
	}
	if heap.grown > allowed {
		t.Errorf("the heap grew by %d MB while %d MB were read; want at most %d", heap.grown>>20, size>>20, allowed>>20)
	}
}

// objectsOpenedTwice: readers do not disturb each other, and one that is closed early does no harm.
func objectsOpenedTwice(t testing.TB, s Stores) {
	key, content := newName()+"/x", largeBody(100_000)
	mustPutObject(t, s, key, string(content))
	early, _, err := s.Objects.Open(t.Context(), key)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if _, err := io.ReadFull(early, make([]byte, 10)); err != nil {
		t.Errorf("read: %v", err)
	}
	race(8, func(int) { wantObject(t, s, key, content) })
	if err := early.Close(); err != nil {
		t.Errorf("Close before the end: %v", err)
	}
	wantObject(t, s, key, content)
}

func objectsCancelled(t testing.TB, s Stores) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	key := newName() + "/x"
	if _, err := s.Objects.Put(ctx, key, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Put with a cancelled context: %v; want context.Canceled", err)
	}
	wantNoObject(t, s, key)
	mustPutObject(t, s, key, "x")
	if _, _, err := s.Objects.Open(ctx, key); !errors.Is(err, context.Canceled) {
		t.Errorf("Open with a cancelled context: %v; want context.Canceled", err)
	}

	// Cancelled halfway: the whole object or none.
	key, content := newName()+"/x", largeBody(1<<20)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	half := readFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF })
	_, err := s.Objects.Put(ctx, key, io.MultiReader(bytes.NewReader(content[:1<<19]), half, bytes.NewReader(content[1<<19:])))
	if r, _, oerr := s.Objects.Open(t.Context(), key); oerr == nil {
		r.Close()
		wantObject(t, s, key, content)
	} else if err == nil || !errors.Is(oerr, delta.ErrNoObject) {
		t.Errorf("Put cancelled halfway: %v; then Open: %v", err, oerr)
	}
}

func objectsKept(t testing.TB, s Stores) {
	key, content := newName()+"/x", largeBody(100_000)
	mustPutObject(t, s, key, string(content))
	s = s.Reopen(t)
	wantObject(t, s, key, content)
	if _, err := s.Objects.Put(t.Context(), key, strings.NewReader("x")); !errors.Is(err, delta.ErrExists) {
		t.Errorf("Put over an object after reopening: %v; want ErrExists", err)
	}
}

func mustPutObject(t testing.TB, s Stores, key, content string) {
	t.Helper()
	if info, err := s.Objects.Put(t.Context(), key, strings.NewReader(content)); err != nil || info != infoOf([]byte(content)) {
		t.Fatalf("Put of %.80q: %v, %v; want %v", key, info, err, infoOf([]byte(content)))
	}
}

func wantObject(t testing.TB, s Stores, key string, want []byte) {
	t.Helper()
	r, info, err := s.Objects.Open(t.Context(), key)
	if err != nil {
		t.Errorf("Open of %.80q: %v", key, err)
		return
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) || info != infoOf(want) {
		t.Errorf("Open of %.80q: %d bytes, %v, %v; want %v and other bytes", key, len(got), info, err, infoOf(want))
	}
}

func wantNoObject(t testing.TB, s Stores, key string) {
	t.Helper()
	if r, info, err := s.Objects.Open(t.Context(), key); !errors.Is(err, delta.ErrNoObject) {
		t.Errorf("Open of %.80q: %v, %v; want ErrNoObject", key, info, err)
		if err == nil {
			r.Close()
		}
	}
}

func infoOf(content []byte) delta.Info {
	sum := sha256.Sum256(content)
	return delta.Info{Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// pausing gives nothing, without an error, every second time.
func pausing(r io.Reader) io.Reader {
	pause := false
	return readFunc(func(p []byte) (int, error) {
		if pause = !pause; pause {
			return 0, nil
		}
		return r.Read(p)
	})
}

// numbers gives bytes that differ from block to block.
type numbers struct {
	left, block int
}

func (n *numbers) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(len(p), n.left)]
	n.left -= len(p)
	n.block++
	clear(p)
	copy(p, strconv.Itoa(n.block))
	return len(p), nil
}

// heap watches how much live memory there is while something is read.
type heap struct {
	base, grown int64
	read, next  int
}

func newHeap() *heap { return &heap{base: liveHeap()} }

func (h *heap) watch(r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if h.read += n; h.read >= h.next {
			h.next += 16 << 20
			h.grown = max(h.grown, liveHeap()-h.base)
		}
		return n, err
	})
}

func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

package deltatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

func TestMemory(t *testing.T) {
	StoreSuite(t, func(testing.TB) Stores { return NewMemory().Stores() })
}

// TestMemoryQueueInBubble: delays pass in an instant where time is synthetic.
func TestMemoryQueueInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewMemory().Queue()
		began := time.Now()
		for i, delay := range []time.Duration{15 * time.Minute, 0, time.Minute, 0} {
			if err := q.Send(t.Context(), []delta.Message{{Seq: i}}, delay); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for range 3 {
			ms, err := q.Receive(t.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms {
				got = append(got, fmt.Sprint(m.Seq, " after ", time.Since(began)))
			}
		}
		if want := []string{"1 after 0s", "3 after 0s", "2 after 1m0s", "0 after 15m0s"}; !slices.Equal(got, want) {
			t.Errorf("received %q; want %q", got, want)
		}
	})
}

// TestSuiteCanFail shows each rule to a store that breaks it.
func TestSuiteCanFail(t *testing.T) {
	type breaks []string // rules
	caught := map[string]bool{}
	for _, c := range []struct {
		name   string
		broken func() Stores
		breaks breaks
	}{
		{"Get invents rows", rows(func(r *brokenRows) {
			r.get = func(ctx context.Context, k delta.Key) (delta.Row, error) {
				if row, err := r.Rows.Get(ctx, k); !errors.Is(err, delta.ErrNoRow) {
					return row, err
				}
				return delta.Row{Key: k}, nil
			}
		}), breaks{"rows/absent", "rows/delete", "rows/kept"}},
		{"Put ignores the version", rows(func(r *brokenRows) {
			r.put = func(ctx context.Context, row delta.Row) (int64, error) {
				for ctx.Err() == nil {
					old, _ := r.Rows.Get(ctx, row.Key)
					row.Version = old.Version
					if v, err := r.Rows.Put(ctx, row); !errors.Is(err, delta.ErrStale) {
						return v, err
					}
				}
				return 0, ctx.Err()
			}
		}), breaks{"rows/absent", "rows/put makes once", "rows/put stale", "rows/put race", "rows/kept"}},
		{"Put looks, then writes", rows(func(r *brokenRows) {
			meet := make(chan struct{})
			r.put = func(ctx context.Context, row delta.Row) (int64, error) {
				old, _ := r.Rows.Get(ctx, row.Key)
				if old.Version != row.Version {
					return 0, delta.ErrStale
				}
				select { // wait for another who has looked
				case meet <- struct{}{}:
				case <-meet:
				case <-time.After(100 * time.Millisecond):
				}
				if err := r.Rows.PutMany(ctx, []delta.Row{row}); err != nil {
					return 0, err
				}
				row, err := r.Rows.Get(ctx, row.Key)
				return row.Version, err
			}
		}), breaks{"rows/put race", "rows/put counts"}},
		{"Put cleans the JSON up", rows(func(r *brokenRows) {
			r.put = func(ctx context.Context, row delta.Row) (int64, error) {
				row.Body = bytes.ReplaceAll(row.Body, []byte(" "), nil)
				return r.Rows.Put(ctx, row)
			}
		}), breaks{"rows/put and get"}},
		{"Put takes whatever comes", rows(func(r *brokenRows) {
			r.put = func(ctx context.Context, row delta.Row) (int64, error) {
				if v, err := r.Rows.Put(ctx, row); err == nil || errors.Is(err, delta.ErrStale) || ctx.Err() != nil {
					return v, err
				}
				return row.Version + 1, nil
			}
		}), breaks{"rows/limits"}},
		{"Delete ignores the version", rows(func(r *brokenRows) {
			r.delete = func(ctx context.Context, k delta.Key, _ int64) error {
				row, err := r.Rows.Get(ctx, k)
				if errors.Is(err, delta.ErrNoRow) {
					return delta.ErrStale
				} else if err != nil {
					return err
				}
				return r.Rows.Delete(ctx, k, row.Version)
			}
		}), breaks{"rows/delete stale"}},
		{"versions begin again after Delete", rows(func(r *brokenRows) {
			r.delete = func(ctx context.Context, k delta.Key, v int64) error {
				err := r.Rows.Delete(ctx, k, v)
				if err == nil {
					setLast(r.Rows, func(int64) int64 { return firstVersion })
				}
				return err
			}
		}), breaks{"rows/made again"}},
		{"versions begin again in a new process", func() Stores {
			s := NewMemory().Stores()
			s.Reopen = func(testing.TB) Stores {
				setLast(s.Rows, func(int64) int64 { return firstVersion })
				return s
			}
			return s
		}, breaks{"rows/made again"}},
		{"versions fall", rows(func(r *brokenRows) {
			r.put = func(ctx context.Context, row delta.Row) (int64, error) {
				setLast(r.Rows, func(last int64) int64 { return last - 2 })
				return r.Rows.Put(ctx, row)
			}
		}), breaks{"rows/put and get", "rows/put race", "rows/put counts", "rows/put many"}},
		{"takes an empty Sort", rows(func(r *brokenRows) {
			r.key = func(k delta.Key) delta.Key { return delta.Key{Part: k.Part, Sort: k.Sort + "!"} }
		}), breaks{"rows/limits"}},
		{"Delete of nothing is fine", rows(func(r *brokenRows) {
			r.delete = func(ctx context.Context, k delta.Key, v int64) error {
				if _, err := r.Rows.Get(ctx, k); errors.Is(err, delta.ErrNoRow) {
					return nil
				}
				return r.Rows.Delete(ctx, k, v)
			}
		}), breaks{"rows/absent", "rows/delete"}},
		{"GetMany forgets the last", rows(func(r *brokenRows) {
			r.getMany = func(ctx context.Context, ks []delta.Key) ([]delta.Row, error) {
				if len(ks) > 99 {
					ks = ks[:99]
				}
				return r.Rows.GetMany(ctx, ks)
			}
		}), breaks{"rows/get many"}},
		{"GetMany gives a partial answer", rows(func(r *brokenRows) {
			r.getMany = func(ctx context.Context, ks []delta.Key) ([]delta.Row, error) {
				all, err := r.Rows.GetMany(ctx, ks)
				return all[:min(len(all), 3)], err // as BatchGetItem does, in UnprocessedKeys
			}
		}), breaks{"rows/get many", "rows/range large"}},
		{"PutMany keeps what is there", rows(func(r *brokenRows) {
			r.putMany = func(ctx context.Context, all []delta.Row) error {
				for _, row := range all {
					row.Version = 0
					if _, err := r.Put(ctx, row); err != nil && !errors.Is(err, delta.ErrStale) {
						return err
					}
				}
				return nil
			}
		}), breaks{"rows/put many"}},
		{"names keys with a separator", rows(func(r *brokenRows) {
			r.key = func(k delta.Key) delta.Key {
				part, sort, _ := strings.Cut(k.Part+"#"+k.Sort, "#")
				return delta.Key{Part: part, Sort: sort}
			}
		}), breaks{"rows/keys apart"}},
		{"keys without case", rows(func(r *brokenRows) {
			r.key = func(k delta.Key) delta.Key { return delta.Key{Part: k.Part, Sort: strings.ToLower(k.Sort)} }
		}), breaks{"rows/keys apart", "rows/odd keys"}},
		{"cuts large bodies", rows(func(r *brokenRows) {
			r.put = func(ctx context.Context, row delta.Row) (int64, error) {
				row.Body = row.Body[:min(len(row.Body), 256<<10)]
				return r.Rows.Put(ctx, row)
			}
		}), breaks{"rows/large bodies"}},
		{"shares memory with its callers", rows(func(r *brokenRows) {
			var mu sync.Mutex
			shared := map[delta.Key][]byte{}
			r.put = func(ctx context.Context, row delta.Row) (int64, error) {
				v, err := r.Rows.Put(ctx, row)
				if err == nil {
					mu.Lock()
					shared[row.Key] = row.Body
					mu.Unlock()
				}
				return v, err
			}
			r.get = func(ctx context.Context, k delta.Key) (delta.Row, error) {
				row, err := r.Rows.Get(ctx, k)
				mu.Lock()
				defer mu.Unlock()
				if b, ok := shared[k]; ok && err == nil {
					row.Body = b
				}
				return row, err
			}
		}), breaks{"rows/own copy"}},
		{"Range has no order", page(func(all []delta.Row, more bool) ([]delta.Row, bool) {
			slices.Reverse(all)
			return all, more
		}), breaks{"rows/range order", "rows/range prefix", "rows/range pages"}},
		{"Range knows a locale", page(func(all []delta.Row, more bool) ([]delta.Row, bool) {
			slices.SortStableFunc(all, func(a, b delta.Row) int { return strings.Compare(strings.ToLower(a.Sort), strings.ToLower(b.Sort)) })
			return all, more
		}), breaks{"rows/range order"}},
		{"Range never has more", page(func(all []delta.Row, _ bool) ([]delta.Row, bool) {
			return all, false
		}), breaks{"rows/range pages", "rows/range while written", "rows/range large"}},
		{"Range says more when the page is full", rows(func(r *brokenRows) {
			r.page = func(ctx context.Context, part, prefix, after string, limit int) ([]delta.Row, bool, error) {
				all, more, err := r.Rows.Range(ctx, part, prefix, after, limit)
				return all, more || len(all) == limit, err
			}
		}), breaks{"rows/range pages"}},
		{"Range includes after", rows(func(r *brokenRows) {
			r.page = func(ctx context.Context, part, prefix, after string, limit int) ([]delta.Row, bool, error) {
				all, more, err := r.Rows.Range(ctx, part, prefix, after, limit)
				if row, gerr := r.Rows.Get(ctx, delta.Key{Part: part, Sort: after}); gerr == nil && strings.HasPrefix(after, prefix) {
					all = append([]delta.Row{row}, all...)
				}
				return all[:min(limit, len(all))], more, err
			}
		}), breaks{"rows/range prefix"}},
		{"Range takes a prefix for a pattern", rows(func(r *brokenRows) {
			r.page = func(ctx context.Context, part, prefix, after string, limit int) ([]delta.Row, bool, error) {
				if i := strings.IndexByte(prefix, '%'); i >= 0 {
					prefix = prefix[:i]
				}
				return r.Rows.Range(ctx, part, prefix, after, limit)
			}
		}), breaks{"rows/range prefix", "rows/odd keys"}},
		{"Range pages by number", rows(func(r *brokenRows) {
			r.page = func(ctx context.Context, part, prefix, after string, limit int) ([]delta.Row, bool, error) {
				if after != "" {
					if _, err := r.Rows.Get(ctx, delta.Key{Part: part, Sort: after}); errors.Is(err, delta.ErrNoRow) {
						return nil, false, nil // the place is gone
					}
				}
				return r.Rows.Range(ctx, part, prefix, after, limit)
			}
		}), breaks{"rows/range while written"}},
		{"Scan takes a prefix for a pattern", rows(func(r *brokenRows) {
			r.scan = func(ctx context.Context, prefix, from string, limit int) ([]delta.Row, string, error) {
				if i := strings.IndexAny(prefix, "%_"); i >= 0 {
					prefix = prefix[:i]
				}
				return r.Rows.Scan(ctx, prefix, from, limit)
			}
		}), breaks{"rows/scan"}},
		{"Scan sees one row of each part", scan(func(all []delta.Row, next string) ([]delta.Row, string) {
			return slices.DeleteFunc(all, func(r delta.Row) bool { return r.Sort != "row" }), next
		}), breaks{"rows/scan"}},
		{"Scan takes whatever comes", rows(func(r *brokenRows) {
			r.scan = func(ctx context.Context, prefix, from string, limit int) ([]delta.Row, string, error) {
				all, next, err := r.Rows.Scan(ctx, prefix, from, limit)
				if ctx.Err() == nil {
					err = nil
				}
				return all, next, err
			}
		}), breaks{"rows/scan"}},
		{"Scan ends with the first page", scan(func(all []delta.Row, next string) ([]delta.Row, string) {
			if len(all) > 0 {
				next = ""
			}
			return all, next
		}), breaks{"rows/scan pages", "rows/scan while written", "rows/scan large"}},
		{"Scan takes an empty page for the end", scan(func(all []delta.Row, next string) ([]delta.Row, string) {
			if len(all) == 0 {
				next = ""
			}
			return all, next
		}), breaks{"rows/scan"}},
		{"Scan remembers its place in memory", func() Stores {
			s := NewMemory().Stores()
			places := map[string]string{}
			r := &brokenRows{Rows: s.Rows}
			r.scan = func(ctx context.Context, prefix, from string, limit int) ([]delta.Row, string, error) {
				at, ok := places[from]
				if from != "" && !ok {
					return nil, "", errors.New("no such place")
				}
				all, next, err := r.Rows.Scan(ctx, prefix, at, limit)
				if next == "" {
					return all, "", err
				}
				name := fmt.Sprint(len(places))
				places[name] = next
				return all, name, err
			}
			s.Rows = r
			s.Reopen = func(testing.TB) Stores { clear(places); return s }
			return s
		}, breaks{"rows/scan pages"}},
		{"Scan pages by number", rows(func(r *brokenRows) {
			r.scan = func(ctx context.Context, prefix, from string, limit int) ([]delta.Row, string, error) {
				n := 0
				fmt.Sscan(from, &n)
				all := scanAll(&recorder{TB: t}, Stores{Rows: r.Rows}, prefix, 1000, nil)
				keys := slices.Sorted(maps.Keys(all))
				var page []delta.Row
				for _, k := range keys[min(n, len(keys)):min(n+limit, len(keys))] {
					part, sort, _ := strings.Cut(k, "|")
					row, err := r.Rows.Get(ctx, delta.Key{Part: part, Sort: sort})
					if err != nil {
						return nil, "", err
					}
					page = append(page, row)
				}
				if n += limit; n >= len(keys) {
					return page, "", nil
				}
				return page, fmt.Sprint(n), nil
			}
		}), breaks{"rows/scan while written"}},
		{"writes when cancelled", rows(func(r *brokenRows) {
			r.put = func(ctx context.Context, row delta.Row) (int64, error) {
				return r.Rows.Put(context.WithoutCancel(ctx), row)
			}
		}), breaks{"rows/cancelled"}},
		{"forgets rows", forgetful("rows"), breaks{"rows/kept"}},

		{"Open invents objects", objects(func(o *brokenObjects) {
			o.open = func(ctx context.Context, key string) (io.ReadCloser, delta.Info, error) {
				if r, info, err := o.Objects.Open(ctx, key); !errors.Is(err, delta.ErrNoObject) {
					return r, info, err
				}
				return io.NopCloser(strings.NewReader("")), infoOf(nil), nil
			}
		}), breaks{"objects/absent", "objects/seen when complete"}},
		{"objects are written over", func() Stores {
			s := NewMemory().Stores()
			o := &overwriting{Objects: s.Objects, latest: map[string]string{}}
			s.Objects = o
			s.Reopen = func(testing.TB) Stores { return s }
			return s
		}, breaks{"objects/written once", "objects/race", "objects/kept"}},
		{"keeps what came before the reader failed", objects(func(o *brokenObjects) {
			o.put = func(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
				content, err := io.ReadAll(r)
				info, perr := o.Objects.Put(ctx, key, bytes.NewReader(content))
				return info, errors.Join(err, perr)
			}
		}), breaks{"objects/failing reader"}},
		{"takes a failing reader for the end", objects(func(o *brokenObjects) {
			o.put = func(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
				content, _ := io.ReadAll(r)
				return o.Objects.Put(ctx, key, bytes.NewReader(content))
			}
		}), breaks{"objects/failing reader"}},
		{"shows a half", objects(func(o *brokenObjects) {
			var mu sync.Mutex
			half := map[string][]byte{}
			o.put = func(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
				return o.Objects.Put(ctx, key, readFunc(func(p []byte) (int, error) {
					n, err := r.Read(p)
					mu.Lock()
					defer mu.Unlock()
					half[key] = append(half[key], p[:n]...)
					return n, err
				}))
			}
			o.open = func(ctx context.Context, key string) (io.ReadCloser, delta.Info, error) {
				r, info, err := o.Objects.Open(ctx, key)
				mu.Lock()
				defer mu.Unlock()
				if h, ok := half[key]; ok && errors.Is(err, delta.ErrNoObject) {
					return io.NopCloser(bytes.NewReader(h)), infoOf(h), nil
				}
				return r, info, err
			}
		}), breaks{"objects/seen when complete", "objects/failing reader"}},
		{"wrong hash", objects(func(o *brokenObjects) {
			o.put = func(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
				info, err := o.Objects.Put(ctx, key, r)
				info.SHA256 = strings.ToUpper(info.SHA256)
				return info, err
			}
		}), breaks{"objects/put and open"}},
		{"object keys without case", objects(func(o *brokenObjects) { o.key = strings.ToLower }), breaks{"objects/keys apart"}},
		{"object keys are cleaned", objects(func(o *brokenObjects) {
			o.key = func(key string) string { return strings.ReplaceAll(key, "/../", "/") }
		}), breaks{"objects/keys apart"}},
		{"object keys are cut", objects(func(o *brokenObjects) {
			o.key = func(key string) string { return key[:min(len(key), 255)] }
		}), breaks{"objects/keys apart", "objects/bad keys"}},
		{"objects in memory", func() Stores {
			s := NewMemory().Stores()
			s.Skip = nil
			return s
		}, breaks{"objects/streamed"}},
		{"one reader at a time", objects(func(o *brokenObjects) {
			var once sync.Map
			o.open = func(ctx context.Context, key string) (io.ReadCloser, delta.Info, error) {
				r, info, err := o.Objects.Open(ctx, key)
				if err == nil {
					if _, ok := once.LoadOrStore(key, r); ok {
						return io.NopCloser(strings.NewReader("")), info, err
					}
				}
				return r, info, err
			}
		}), breaks{"objects/opened twice"}},
		{"puts half when cancelled", objects(func(o *brokenObjects) {
			o.put = func(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
				return o.Objects.Put(context.WithoutCancel(ctx), key, readFunc(func(p []byte) (int, error) {
					if ctx.Err() != nil {
						return 0, io.EOF
					}
					return r.Read(p)
				}))
			}
		}), breaks{"objects/cancelled"}},
		{"forgets objects", forgetful("objects"), breaks{"objects/kept"}},

		{"changes messages", queue(func(q *brokenQueue) {
			q.send = func(ctx context.Context, ms []delta.Message, d time.Duration) error {
				ms = slices.Clone(ms)
				for i := range ms {
					ms[i].Seq += 100
				}
				return q.Queue.Send(ctx, ms, d)
			}
		}), breaks{"queue/delivers"}},
		{"does not wait", queue(func(q *brokenQueue) {
			q.send = func(ctx context.Context, ms []delta.Message, d time.Duration) error {
				if d < 0 || d > 15*time.Minute {
					return errors.New("bad delay")
				}
				return q.Queue.Send(ctx, ms, 0)
			}
		}), breaks{"queue/delay"}},
		{"takes any number and delay", queue(func(q *brokenQueue) {
			q.send = func(ctx context.Context, ms []delta.Message, d time.Duration) error {
				if len(ms) > 10 || d < 0 || d > 15*time.Minute {
					return ctx.Err()
				}
				return q.Queue.Send(ctx, ms, d)
			}
		}), breaks{"queue/limits"}},
		{"an empty queue is an error", queue(func(q *brokenQueue) {
			q.receive = func(context.Context, int) ([]delta.Message, error) { return nil, io.EOF }
		}), breaks{"queue/waits", "queue/cancelled"}},
	} {
		for _, rule := range c.breaks {
			caught[rule] = true
		}
		t.Run(c.name, func(t *testing.T) {
			for _, rule := range c.breaks {
				if said := failures(t, rule, c.broken()); len(said) == 0 {
					t.Errorf("the suite did not see it by rule %q", rule)
				} else {
					t.Logf("%s: %.300s", rule, said[0])
				}
			}
		})
	}
	for _, r := range storeRules {
		if !caught[r.name] {
			t.Errorf("no broken store shows that rule %q can fail", r.name)
		}
	}
}

// failures returns what a rule says of a store.
func failures(t *testing.T, rule string, s Stores) []string {
	t.Helper()
	i := slices.IndexFunc(storeRules, func(r storeRule) bool { return r.name == rule })
	if i < 0 {
		t.Fatalf("there is no rule %q", rule)
	}
	rec := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // a Fatal ends it
		defer close(done)
		storeRules[i].check(rec, s)
	}()
	<-done
	return rec.said
}

// recorder hears what a rule reports, without failing the test.
type recorder struct {
	testing.TB
	mu   sync.Mutex
	said []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Error(args ...any) { r.Errorf("%s", fmt.Sprint(args...)) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }

// rows breaks the rows of a store in memory.
func rows(how func(*brokenRows)) func() Stores {
	return func() Stores {
		s := NewMemory().Stores()
		r := &brokenRows{Rows: s.Rows}
		how(r)
		s.Rows = r
		s.Reopen = func(testing.TB) Stores { return s }
		return s
	}
}

// setLast changes the version that a store in memory gave last.
func setLast(r delta.Rows, to func(last int64) int64) {
	m := r.(*memoryRows)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = to(m.last)
}

// page breaks what Range returns.
func page(how func([]delta.Row, bool) ([]delta.Row, bool)) func() Stores {
	return rows(func(r *brokenRows) {
		r.page = func(ctx context.Context, part, prefix, after string, limit int) ([]delta.Row, bool, error) {
			all, more, err := r.Rows.Range(ctx, part, prefix, after, limit)
			all, more = how(all, more)
			return all, more, err
		}
	})
}

// scan breaks what Scan returns.
func scan(how func([]delta.Row, string) ([]delta.Row, string)) func() Stores {
	return rows(func(r *brokenRows) {
		r.scan = func(ctx context.Context, prefix, from string, limit int) ([]delta.Row, string, error) {
			all, next, err := r.Rows.Scan(ctx, prefix, from, limit)
			all, next = how(all, next)
			return all, next, err
		}
	})
}

// brokenRows does what its functions say, and what is right where they are nil.
type brokenRows struct {
	delta.Rows
	key     func(delta.Key) delta.Key
	get     func(context.Context, delta.Key) (delta.Row, error)
	getMany func(context.Context, []delta.Key) ([]delta.Row, error)
	put     func(context.Context, delta.Row) (int64, error)
	putMany func(context.Context, []delta.Row) error
	delete  func(context.Context, delta.Key, int64) error
	page    func(ctx context.Context, part, prefix, after string, limit int) ([]delta.Row, bool, error)
	scan    func(ctx context.Context, prefix, from string, limit int) ([]delta.Row, string, error)
}

func (r *brokenRows) Get(ctx context.Context, k delta.Key) (delta.Row, error) {
	if r.key != nil {
		row, err := r.Rows.Get(ctx, r.key(k))
		row.Key = k
		return row, err
	}
	if r.get != nil {
		return r.get(ctx, k)
	}
	return r.Rows.Get(ctx, k)
}

func (r *brokenRows) GetMany(ctx context.Context, ks []delta.Key) ([]delta.Row, error) {
	if r.getMany != nil {
		return r.getMany(ctx, ks)
	}
	return r.Rows.GetMany(ctx, ks)
}

func (r *brokenRows) Put(ctx context.Context, row delta.Row) (int64, error) {
	if r.key != nil {
		row.Key = r.key(row.Key)
	}
	if r.put != nil {
		return r.put(ctx, row)
	}
	return r.Rows.Put(ctx, row)
}

func (r *brokenRows) PutMany(ctx context.Context, rows []delta.Row) error {
	if r.putMany != nil {
		return r.putMany(ctx, rows)
	}
	return r.Rows.PutMany(ctx, rows)
}

func (r *brokenRows) Delete(ctx context.Context, k delta.Key, v int64) error {
	if r.delete != nil {
		return r.delete(ctx, k, v)
	}
	return r.Rows.Delete(ctx, k, v)
}

func (r *brokenRows) Range(ctx context.Context, part, prefix, after string, limit int) ([]delta.Row, bool, error) {
	if r.page != nil {
		return r.page(ctx, part, prefix, after, limit)
	}
	return r.Rows.Range(ctx, part, prefix, after, limit)
}

func (r *brokenRows) Scan(ctx context.Context, prefix, from string, limit int) ([]delta.Row, string, error) {
	if r.scan != nil {
		return r.scan(ctx, prefix, from, limit)
	}
	return r.Rows.Scan(ctx, prefix, from, limit)
}

// objects breaks the objects of a store in memory.
func objects(how func(*brokenObjects)) func() Stores {
	return func() Stores {
		s := NewMemory().Stores()
		o := &brokenObjects{Objects: s.Objects}
		how(o)
		s.Objects = o
		s.Skip = nil
		s.Reopen = func(testing.TB) Stores { return s }
		return s
	}
}

type brokenObjects struct {
	delta.Objects
	key  func(string) string
	put  func(context.Context, string, io.Reader) (delta.Info, error)
	open func(context.Context, string) (io.ReadCloser, delta.Info, error)
}

func (o *brokenObjects) Put(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
	if o.key != nil {
		key = o.key(key)
	}
	if o.put != nil {
		return o.put(ctx, key, r)
	}
	return o.Objects.Put(ctx, key, r)
}

func (o *brokenObjects) Open(ctx context.Context, key string) (io.ReadCloser, delta.Info, error) {
	if o.key != nil {
		key = o.key(key)
	}
	if o.open != nil {
		return o.open(ctx, key)
	}
	return o.Objects.Open(ctx, key)
}

// overwriting gives every writing of a key a name of its own, and opens the latest.
type overwriting struct {
	delta.Objects
	mu     sync.Mutex
	latest map[string]string
}

func (o *overwriting) Put(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
	name := newName()
	info, err := o.Objects.Put(ctx, name, r)
	if err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.latest[key] = name
	}
	return info, err
}

func (o *overwriting) Open(ctx context.Context, key string) (io.ReadCloser, delta.Info, error) {
	o.mu.Lock()
	name := o.latest[key]
	o.mu.Unlock()
	return o.Objects.Open(ctx, name)
}

// queue breaks the queue of a store in memory.
func queue(how func(*brokenQueue)) func() Stores {
	return func() Stores {
		s := NewMemory().Stores()
		q := &brokenQueue{Queue: s.Queue}
		how(q)
		s.Queue = q
		return s
	}
}

type brokenQueue struct {
	Queue
	send    func(context.Context, []delta.Message, time.Duration) error
	receive func(context.Context, int) ([]delta.Message, error)
}

func (q *brokenQueue) Send(ctx context.Context, ms []delta.Message, d time.Duration) error {
	if q.send != nil {
		return q.send(ctx, ms, d)
	}
	return q.Queue.Send(ctx, ms, d)
}

func (q *brokenQueue) Receive(ctx context.Context, n int) ([]delta.Message, error) {
	if q.receive != nil {
		return q.receive(ctx, n)
	}
	return q.Queue.Receive(ctx, n)
}

// forgetful is a store that has lost its rows or objects when it is opened again.
func forgetful(what string) func() Stores {
	return func() Stores {
		m := NewMemory()
		s := m.Stores()
		s.Reopen = func(testing.TB) Stores {
			again := m.Reopen().Stores()
			if empty := NewMemory().Stores(); what == "rows" {
				again.Rows = empty.Rows
			} else {
				again.Objects = empty.Objects
			}
			return again
		}
		return s
	}
}

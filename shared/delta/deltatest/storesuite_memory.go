package deltatest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// Memory is a store in memory: rows, objects and a queue as strict as the real ones, without their cost. It takes the time
// from package time, so it can live in a synctest bubble.
type Memory struct {
	rows    *memoryRows
	objects *memoryObjects
	queue   *memoryQueue
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{&memoryRows{parts: map[string][]delta.Row{}, last: firstVersion}, &memoryObjects{all: map[string]memoryObject{}}, newMemoryQueue()}
}

// Rows returns the table.
func (m *Memory) Rows() delta.Rows { return m.rows }

// Objects returns the objects.
func (m *Memory) Objects() delta.Objects { return m.objects }

// Queue returns the queue.
func (m *Memory) Queue() Queue { return m.queue }

// Pending returns how many messages have not been received, due or not.
func (m *Memory) Pending() int {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	return len(m.queue.waiting)
}

// Reopen returns the store as the next process finds it: the same rows and objects, and an empty queue.
func (m *Memory) Reopen() *Memory { return &Memory{m.rows, m.objects, newMemoryQueue()} }

// Expire removes the objects whose key begins with prefix, as a bucket's lifecycle rule does when they are old.
func (m *Memory) Expire(prefix string) {
	m.objects.mu.Lock()
	defer m.objects.mu.Unlock()
	maps.DeleteFunc(m.objects.all, func(key string, _ memoryObject) bool { return strings.HasPrefix(key, prefix) })
}

// RowsWith returns the keys of rows that hold a text.
func (m *Memory) RowsWith(text string) (keys []string) {
	m.rows.mu.Lock()
	defer m.rows.mu.Unlock()
	for _, rows := range m.rows.parts {
		for _, r := range rows {
			if bytes.Contains(r.Body, []byte(text)) {
				keys = append(keys, r.Part+" "+r.Sort)
			}
		}
	}
	return keys
}

// ObjectsWith returns the keys of objects under a prefix that hold a text.
func (m *Memory) ObjectsWith(prefix, text string) (keys []string) {
	m.objects.mu.Lock()
	defer m.objects.mu.Unlock()
	for key, o := range m.objects.all {
		if strings.HasPrefix(key, prefix) && bytes.Contains(o.content, []byte(text)) {
			keys = append(keys, key)
		}
	}
	return keys
}

// Stores returns what StoreSuite takes.
func (m *Memory) Stores() Stores {
	return Stores{
		Rows: m.rows, Objects: m.objects, Queue: m.queue,
		Reopen: func(testing.TB) Stores { return m.Reopen().Stores() },
		Skip:   map[string]string{"objects/streamed": "a store in memory keeps objects in memory"},
	}
}

// firstVersion is as large as the time in nanoseconds, so that a version that went through a float shows.
const firstVersion = 1 << 60

// memoryRows keeps each partition in order.
type memoryRows struct {
	mu    sync.Mutex
	parts map[string][]delta.Row
	last  int64 // the version that was given last, to whichever row
}

// find tells where a row is or belongs. The caller holds mu.
func (m *memoryRows) find(key delta.Key) (int, bool) {
	return slices.BinarySearchFunc(m.parts[key.Part], key.Sort, func(r delta.Row, sort string) int { return strings.Compare(r.Sort, sort) })
}

func (m *memoryRows) Get(ctx context.Context, key delta.Key) (delta.Row, error) {
	if err := cmp.Or(ctx.Err(), key.Check()); err != nil {
		return delta.Row{}, fmt.Errorf("get row %q: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.find(key)
	if !ok {
		return delta.Row{}, fmt.Errorf("get row %q: %w", key, delta.ErrNoRow)
	}
	return clone(m.parts[key.Part][i]), nil
}

func (m *memoryRows) GetMany(ctx context.Context, keys []delta.Key) (rows []delta.Row, err error) {
	if err := ctx.Err(); err != nil || len(keys) > 100 {
		return nil, cmp.Or(err, fmt.Errorf("get %d rows: at most 100 at a time", len(keys)))
	}
	seen := map[delta.Key]bool{}
	for _, key := range keys {
		if seen[key] {
			continue
		}
		seen[key] = true
		row, err := m.Get(ctx, key)
		switch {
		case err == nil:
			rows = append(rows, row)
		case !errors.Is(err, delta.ErrNoRow):
			return nil, err
		}
	}
	return rows, nil
}

func (m *memoryRows) Put(ctx context.Context, row delta.Row) (int64, error) {
	err := cmp.Or(ctx.Err(), checkRow(row))
	if err == nil && row.Version < 0 {
		err = errors.New("negative version")
	}
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.version(row.Key) != row.Version {
			err = delta.ErrStale
		}
	}
	if err != nil {
		return 0, fmt.Errorf("put row %q, version %d: %w", row.Key, row.Version, err)
	}
	return m.set(row), nil
}

// version is 0 if there is no such row. The caller holds mu.
func (m *memoryRows) version(key delta.Key) int64 {
	if i, ok := m.find(key); ok {
		return m.parts[key.Part][i].Version
	}
	return 0
}

// set writes the row with the store's next version. The caller holds mu.
func (m *memoryRows) set(row delta.Row) int64 {
	row = clone(row)
	m.last++
	row.Version = m.last
	i, ok := m.find(row.Key)
	if ok {
		m.parts[row.Part][i] = row
	} else {
		m.parts[row.Part] = slices.Insert(m.parts[row.Part], i, row)
	}
	return row.Version
}

func (m *memoryRows) PutMany(ctx context.Context, rows []delta.Row) error {
	err := ctx.Err()
	if err == nil && len(rows) > 25 {
		err = errors.New("at most 25 at a time")
	}
	for _, row := range rows {
		err = cmp.Or(err, checkRow(row))
	}
	if err != nil {
		return fmt.Errorf("put %d rows: %w", len(rows), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, row := range rows {
		m.set(row)
	}
	return nil
}

func (m *memoryRows) Delete(ctx context.Context, key delta.Key, version int64) error {
	err := cmp.Or(ctx.Err(), key.Check())
	if err == nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		if i, ok := m.find(key); ok && m.parts[key.Part][i].Version == version {
			m.parts[key.Part] = slices.Delete(m.parts[key.Part], i, i+1)
			return nil
		}
		err = delta.ErrStale
	}
	return fmt.Errorf("delete row %q, version %d: %w", key, version, err)
}

func (m *memoryRows) Range(ctx context.Context, part, prefix, after string, limit int) (rows []delta.Row, more bool, err error) {
	err = cmp.Or(ctx.Err(), delta.Key{Part: part, Sort: cmp.Or(prefix, "-")}.Check()) // a prefix may be empty
	if err == nil && (limit < 1 || limit > 1000) {
		err = fmt.Errorf("limit %d is not between 1 and 1000", limit)
	}
	if err != nil {
		return nil, false, fmt.Errorf("range over rows %q %q: %w", part, prefix, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i, _ := m.find(delta.Key{Part: part, Sort: max(prefix, after)})
	bytes := 0
	for _, row := range m.parts[part][i:] {
		switch {
		case row.Sort <= after:
			continue
		case !strings.HasPrefix(row.Sort, prefix):
			return rows, false, nil
		case len(rows) == limit || bytes > 1<<20: // as in the cloud, a page ends at a megabyte
			return rows, true, nil
		}
		bytes += len(row.Body)
		rows = append(rows, clone(row))
	}
	return rows, false, nil
}

// Scan goes through the rows by a hash of their keys, so that nobody gets used to an order, and begins with an empty page, as
// a table in the cloud may when nothing of what it looked through is wanted.
func (m *memoryRows) Scan(ctx context.Context, prefix, from string, limit int) (rows []delta.Row, next string, err error) {
	err = cmp.Or(ctx.Err(), delta.Key{Part: prefix, Sort: "-"}.Check())
	if err == nil && (limit < 1 || limit > 1000) {
		err = fmt.Errorf("limit %d is not between 1 and 1000", limit)
	}
	if err == nil && from != "" && len(from) != sha256.Size*2 {
		err = fmt.Errorf("%q is no place in a scan", from)
	}
	if err != nil {
		return nil, "", fmt.Errorf("scan rows of %q: %w", prefix, err)
	}
	if from == "" {
		return nil, strings.Repeat("0", sha256.Size*2), nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var left []hashedRow
	for part, all := range m.parts {
		for _, row := range all {
			sum := sha256.Sum256([]byte(row.Part + "\x00" + row.Sort))
			if at := hex.EncodeToString(sum[:]); strings.HasPrefix(part, prefix) && at > from {
				left = append(left, hashedRow{row, at})
			}
		}
	}
	slices.SortFunc(left, func(a, b hashedRow) int { return strings.Compare(a.at, b.at) })
	for i, bytes := 0, 0; i < len(left); i++ {
		if len(rows) == limit || bytes > 1<<20 {
			return rows, left[i-1].at, nil
		}
		bytes += len(left[i].Body)
		rows = append(rows, clone(left[i].Row))
	}
	return rows, "", nil
}

// hashedRow is a row with its place in a scan.
type hashedRow struct {
	delta.Row
	at string
}

func clone(row delta.Row) delta.Row {
	row.Body = bytes.Clone(row.Body)
	return row
}

func checkRow(row delta.Row) error {
	if row.Body == nil || len(row.Body) > 300<<10 {
		return fmt.Errorf("the body has %d bytes; want something, and at most 300 KB", len(row.Body))
	}
	return row.Key.Check()
}

func checkText(s string) error {
	odd := func(r rune) bool { return r < ' ' || r > '~' }
	if len(s) > 500 || strings.ContainsFunc(s, odd) {
		return fmt.Errorf("%.80q is not at most 500 bytes of printable ASCII", s)
	}
	return nil
}

type memoryObjects struct {
	mu  sync.Mutex
	all map[string]memoryObject
}

type memoryObject struct {
	content []byte
	info    delta.Info
}

func (m *memoryObjects) Put(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
	info, err := m.put(ctx, key, r)
	if err != nil {
		return delta.Info{}, fmt.Errorf("put object %q: %w", key, err)
	}
	return info, nil
}

func (m *memoryObjects) put(ctx context.Context, key string, r io.Reader) (info delta.Info, err error) {
	if key == "" {
		return info, errors.New("the key is empty")
	}
	if err := cmp.Or(ctx.Err(), checkText(key)); err != nil {
		return info, err
	}
	content, err := io.ReadAll(r)
	if err := cmp.Or(err, ctx.Err()); err != nil {
		return info, err
	}
	sum := sha256.Sum256(content)
	info = delta.Info{Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.all[key]; ok {
		return info, delta.ErrExists
	}
	m.all[key] = memoryObject{content, info}
	return info, nil
}

func (m *memoryObjects) Open(ctx context.Context, key string) (io.ReadCloser, delta.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.all[key]
	err := ctx.Err()
	if err == nil && !ok {
		err = delta.ErrNoObject
	}
	if err != nil {
		return nil, delta.Info{}, fmt.Errorf("open object %q: %w", key, err)
	}
	return io.NopCloser(bytes.NewReader(o.content)), o.info, nil
}

// memoryQueue gives every message out once, those first that are due first.
type memoryQueue struct {
	mu      sync.Mutex
	waiting []memoryMessage // by time
	changed chan struct{}   // closed when a message comes in
}

type memoryMessage struct {
	at time.Time
	m  delta.Message
}

func newMemoryQueue() *memoryQueue { return &memoryQueue{changed: make(chan struct{})} }

func (q *memoryQueue) Send(ctx context.Context, ms []delta.Message, delay time.Duration) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("send: %w", ctx.Err())
	case len(ms) > 10 || delay < 0 || delay > 15*time.Minute:
		return fmt.Errorf("send %d messages with delay %s: at most 10, and 15 minutes", len(ms), delay)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	at := time.Now().Add(delay)
	i, _ := slices.BinarySearchFunc(q.waiting, at, func(w memoryMessage, at time.Time) int {
		return cmp.Or(w.at.Compare(at), -1) // behind those of the same time
	})
	for _, m := range ms {
		q.waiting = slices.Insert(q.waiting, i, memoryMessage{at, m})
		i++
	}
	close(q.changed)
	q.changed = make(chan struct{})
	return nil
}

func (q *memoryQueue) Receive(ctx context.Context, max int) ([]delta.Message, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		q.mu.Lock()
		now := time.Now()
		n := 0
		for n < len(q.waiting) && n < max && !q.waiting[n].at.After(now) {
			n++
		}
		var ms []delta.Message
		for _, w := range q.waiting[:n] {
			ms = append(ms, w.m)
		}
		q.waiting = slices.Delete(q.waiting, 0, n)
		var due <-chan time.Time
		if len(q.waiting) > 0 {
			due = time.After(q.waiting[0].at.Sub(now))
		}
		changed := q.changed
		q.mu.Unlock()
		if n > 0 {
			return ms, nil
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-due:
		}
	}
}

// Snapshot is what the rows were at a moment, as a backup of the table.
type Snapshot struct{ parts map[string][]delta.Row }

// Snapshot takes a backup of the rows.
func (m *Memory) Snapshot() *Snapshot {
	m.rows.mu.Lock()
	defer m.rows.mu.Unlock()
	s := &Snapshot{map[string][]delta.Row{}}
	for part, rows := range m.rows.parts {
		s.parts[part] = slices.Clone(rows) // rows are never changed in place
	}
	return s
}

// Restore brings the rows back to what they were. Versions go on rising, so that nobody who read a row before writes over it.
func (m *Memory) Restore(s *Snapshot) {
	m.rows.mu.Lock()
	defer m.rows.mu.Unlock()
	m.rows.parts = map[string][]delta.Row{}
	for part, rows := range s.parts {
		m.rows.parts[part] = slices.Clone(rows)
	}
}

// Each goes over the rows of a partition, in order.
func (m *Memory) Each(part string) iter.Seq[delta.Row] {
	m.rows.mu.Lock()
	rows := slices.Clone(m.rows.parts[part])
	m.rows.mu.Unlock()
	return slices.Values(rows)
}

// Parts goes over the partitions whose name begins with prefix, in order.
func (m *Memory) Parts(prefix string) iter.Seq[string] {
	m.rows.mu.Lock()
	defer m.rows.mu.Unlock()
	var parts []string
	for part, rows := range m.rows.parts {
		if strings.HasPrefix(part, prefix) && len(rows) > 0 {
			parts = append(parts, part)
		}
	}
	slices.Sort(parts)
	return slices.Values(parts)
}

package deltatest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// Effects counts every call that changes something on a store or a desk, and cuts the process off at chosen ones.
type Effects struct {
	mu sync.Mutex
	n  int
	// Cuts are where to cut: effect numbers from 1, of the whole history across restarts.
	Cuts []Cut
	// Names of the effects that happened, by number, for messages.
	Names []string
}

// Cut says before or after which effect the process dies.
type Cut struct {
	Effect int
	After  bool
}

func (c Cut) String() string {
	if c.After {
		return fmt.Sprintf("after effect %d", c.Effect)
	}
	return fmt.Sprintf("before effect %d", c.Effect)
}

// Crash is what a cut panics with: the process is gone, nothing after it runs.
type Crash struct{ Cut Cut }

// Count returns how many effects there were.
func (e *Effects) Count() int { e.mu.Lock(); defer e.mu.Unlock(); return e.n }

func (e *Effects) do(name string, effect func()) {
	e.mu.Lock()
	e.n++
	n := e.n
	e.Names = append(e.Names, name)
	e.mu.Unlock()
	e.cut(Cut{n, false})
	effect()
	e.cut(Cut{n, true})
}

func (e *Effects) cut(here Cut) {
	for _, c := range e.Cuts {
		if c == here {
			panic(Crash{here})
		}
	}
}

// Rows wraps a table.
func (e *Effects) Rows(r delta.Rows) delta.Rows { return cutRows{r, e} }

// Objects wraps an object store.
func (e *Effects) Objects(o delta.Objects) delta.Objects { return cutObjects{o, e} }

// Queue wraps a queue.
func (e *Effects) Queue(q delta.Queue) delta.Queue { return cutQueue{q, e} }

// Target wraps a target, and leaves it the capabilities that it has of those that a Desk has.
func (e *Effects) Target(t desk.Target) desk.Target {
	var find finder
	var revise reviser
	var merge merger
	if f, ok := t.(desk.Finder); ok {
		find = f.Find
	}
	if r, ok := t.(desk.Reviser); ok {
		revise = func(ctx context.Context, ticket desk.Ref, en desk.Entry, lock string) (err error) {
			e.do("target revise "+ticket.String(), func() { err = r.Revise(ctx, ticket, en, lock) })
			return err
		}
	}
	if m, ok := t.(desk.Merger); ok {
		merge = func(ctx context.Context, from, into desk.Ref, lock string) (err error) {
			e.do("target merge "+from.String(), func() { err = m.Merge(ctx, from, into, lock) })
			return err
		}
	}
	return able(cutTarget{t, e}, find, revise, merge)
}

type cutRows struct {
	delta.Rows
	e *Effects
}

func (c cutRows) Put(ctx context.Context, row delta.Row) (v int64, err error) {
	c.e.do("put "+row.Part+" "+row.Sort, func() { v, err = c.Rows.Put(ctx, row) })
	return v, err
}

func (c cutRows) PutMany(ctx context.Context, rows []delta.Row) (err error) {
	c.e.do("put many "+rows[0].Part, func() { err = c.Rows.PutMany(ctx, rows) })
	return err
}

func (c cutRows) Delete(ctx context.Context, k delta.Key, v int64) (err error) {
	c.e.do("delete "+k.Part+" "+k.Sort, func() { err = c.Rows.Delete(ctx, k, v) })
	return err
}

type cutObjects struct {
	delta.Objects
	e *Effects
}

func (c cutObjects) Put(ctx context.Context, key string, r io.Reader) (i delta.Info, err error) {
	c.e.do("object "+key, func() { i, err = c.Objects.Put(ctx, key, r) })
	return i, err
}

type cutQueue struct {
	delta.Queue
	e *Effects
}

func (c cutQueue) Send(ctx context.Context, ms []delta.Message, d time.Duration) (err error) {
	c.e.do("send", func() { err = c.Queue.Send(ctx, ms, d) })
	return err
}

type cutTarget struct {
	desk.Target
	e *Effects
}

func (c cutTarget) Create(ctx context.Context, r desk.Record) (w desk.Written, err error) {
	c.e.do("target create "+r.Ref.String(), func() { w, err = c.Target.Create(ctx, r) })
	return w, err
}

func (c cutTarget) Apply(ctx context.Context, ref desk.Ref, ch desk.Change) (w desk.Written, err error) {
	c.e.do("target apply "+ref.String(), func() { w, err = c.Target.Apply(ctx, ref, ch) })
	return w, err
}

func (c cutTarget) Match(ctx context.Context, r desk.Record) ([]string, error) {
	return c.Target.(desk.Matcher).Match(ctx, r)
}

func (c cutTarget) Check(ctx context.Context) error { return c.Target.(desk.Checker).Check(ctx) }

func (c cutTarget) Delete(ctx context.Context, ref desk.Ref, lock string) (err error) {
	c.e.do("target delete "+ref.String(), func() { err = c.Target.(desk.Deleter).Delete(ctx, ref, lock) })
	return err
}

func (c cutTarget) OpenFile(ctx context.Context, t desk.Ref, f desk.File) (io.ReadCloser, error) {
	return c.Target.(desk.Opener).OpenFile(ctx, t, f)
}

package deltatest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
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
	// Lost is the effect that takes place and whose answer is lost: the process lives on, and gets an error. 0 is none.
	Lost int
	lost bool
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

// LostOne tells whether an answer was lost.
func (e *Effects) LostOne() bool { e.mu.Lock(); defer e.mu.Unlock(); return e.lost }

// do carries an effect out and returns its error, or another one in the place of an answer that is lost.
func (e *Effects) do(name string, effect func() error) error {
	e.mu.Lock()
	e.n++
	n := e.n
	e.Names = append(e.Names, name)
	e.mu.Unlock()
	e.cut(Cut{n, false})
	err := effect()
	e.cut(Cut{n, true})
	if n == e.Lost && err == nil {
		e.mu.Lock()
		e.lost = true
		e.mu.Unlock()
		err = errors.New("deltatest: the answer was lost")
		if strings.HasPrefix(name, "target ") {
			err = &desk.Error{Op: name, Class: desk.ErrTransient, Said: "the answer was lost"}
		}
	}
	return err
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
		revise = func(ctx context.Context, ticket desk.Ref, en desk.Entry, lock string) error {
			return e.do("target revise "+ticket.String(), func() error { return r.Revise(ctx, ticket, en, lock) })
		}
	}
	if m, ok := t.(desk.Merger); ok {
		merge = func(ctx context.Context, from, into desk.Ref, lock string) error {
			return e.do("target merge "+from.String(), func() error { return m.Merge(ctx, from, into, lock) })
		}
	}
	return able(cutTarget{t, e}, find, revise, merge)
}

type cutRows struct {
	delta.Rows
	e *Effects
}

func (c cutRows) Put(ctx context.Context, row delta.Row) (v int64, err error) {
	if err := c.e.do("put "+row.Part+" "+row.Sort, func() error { v, err = c.Rows.Put(ctx, row); return err }); err != nil {
		return 0, err
	}
	return v, nil
}

func (c cutRows) PutMany(ctx context.Context, rows []delta.Row) error {
	return c.e.do("put many "+rows[0].Part, func() error { return c.Rows.PutMany(ctx, rows) })
}

func (c cutRows) Delete(ctx context.Context, k delta.Key, v int64) error {
	return c.e.do("delete "+k.Part+" "+k.Sort, func() error { return c.Rows.Delete(ctx, k, v) })
}

type cutObjects struct {
	delta.Objects
	e *Effects
}

func (c cutObjects) Put(ctx context.Context, key string, r io.Reader) (i delta.Info, err error) {
	if err := c.e.do("object "+key, func() error { i, err = c.Objects.Put(ctx, key, r); return err }); err != nil {
		return delta.Info{}, err
	}
	return i, nil
}

type cutQueue struct {
	delta.Queue
	e *Effects
}

func (c cutQueue) Send(ctx context.Context, ms []delta.Message, d time.Duration) error {
	return c.e.do("send", func() error { return c.Queue.Send(ctx, ms, d) })
}

type cutTarget struct {
	desk.Target
	e *Effects
}

func (c cutTarget) Create(ctx context.Context, r desk.Record) (w desk.Written, err error) {
	if err := c.e.do("target create "+r.Ref.String(), func() error { w, err = c.Target.Create(ctx, r); return err }); err != nil {
		return desk.Written{}, err
	}
	return w, nil
}

func (c cutTarget) Apply(ctx context.Context, ref desk.Ref, ch desk.Change) (w desk.Written, err error) {
	if err := c.e.do("target apply "+ref.String(), func() error { w, err = c.Target.Apply(ctx, ref, ch); return err }); err != nil {
		return desk.Written{}, err
	}
	return w, nil
}

func (c cutTarget) Define(ctx context.Context) (desk.Definitions, error) {
	return c.Target.(desk.Definer).Define(ctx)
}

func (c cutTarget) Match(ctx context.Context, r desk.Record) ([]string, error) {
	return c.Target.(desk.Matcher).Match(ctx, r)
}

func (c cutTarget) Check(ctx context.Context) error { return c.Target.(desk.Checker).Check(ctx) }

func (c cutTarget) Delete(ctx context.Context, ref desk.Ref, lock string) error {
	return c.e.do("target delete "+ref.String(), func() error { return c.Target.(desk.Deleter).Delete(ctx, ref, lock) })
}

func (c cutTarget) OpenFile(ctx context.Context, t desk.Ref, f desk.File) (io.ReadCloser, error) {
	return c.Target.(desk.Opener).OpenFile(ctx, t, f)
}

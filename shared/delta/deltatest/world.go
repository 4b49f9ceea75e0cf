package deltatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// World is one migration between two desks in memory, with a clock that moves only when somebody looks at it or waits, and
// processes that die and are started again.
type World struct {
	Source, Target *Desk
	Migration      delta.Migration
	Store          *Memory
	Effects        *Effects
	// Laptop: one process at a time that knows its predecessors to be dead. Otherwise processes know nothing of each other.
	Laptop bool
	// Disorder doubles, drops, delays and shuffles messages, by this seed; 0 delivers each once and in order.
	Disorder uint64
	// Ports, when set, gives each process that is started its table and its objects, in the place of Store.
	Ports func() (delta.Rows, delta.Objects)
	// Between, when set, stands between the engine and the table.
	Between func(delta.Rows) delta.Rows

	now     time.Time
	ids     int
	process int
	rng     *rand.Rand
	late    []delta.Message
	engine  *delta.Engine
	queue   *listQueue
	// Restarts counts processes that died.
	Restarts int
}

// NewWorld returns a world on the morning of 10 March 2026 with two empty desks.
func NewWorld(m delta.Migration) *World {
	w := &World{Migration: m, Store: NewMemory(), Effects: &Effects{}, now: time.Date(2026, 3, 10, 8, 0, 0, 0, time.UTC)}
	w.Source, w.Target = NewDesk("old", w.Clock), NewDesk("new", w.Clock)
	return w
}

// Clock returns the time; every look takes a millisecond.
func (w *World) Clock() time.Time { w.now = w.now.Add(time.Millisecond); return w.now }

// Wait lets time pass.
func (w *World) Wait(d time.Duration) { w.now = w.now.Add(d) }

// Until lets time pass until a moment that lies ahead.
func (w *World) Until(t time.Time) {
	if t.Before(w.now) {
		panic("deltatest: time does not go back")
	}
	w.now = t
}

// Engine returns the engine of the process that runs now.
func (w *World) Engine() *delta.Engine {
	if w.engine != nil {
		return w.engine
	}
	w.process++
	w.queue = &listQueue{}
	session := ""
	if w.Laptop {
		session = fmt.Sprintf("process-%d", w.process)
	}
	rows, objects := w.Store.Rows(), w.Store.Objects()
	if w.Ports != nil {
		rows, objects = w.Ports()
	}
	rows = w.Effects.Rows(rows)
	if w.Between != nil {
		rows = w.Between(rows)
	}
	e, err := delta.New(delta.Config{
		Migration: w.Migration, SourceID: "old", TargetID: "new", Source: w.Source.AsSource(), Target: w.Effects.Target(w.Target.AsTarget()),
		SourceSide: w.Source.Traits(), TargetSide: w.Target.Traits(),
		Rows: rows, Objects: w.Effects.Objects(objects), Queue: w.Effects.Queue(w.queue),
		Now: w.Clock, NewID: func() string { w.ids++; return fmt.Sprintf("%026d", w.ids) }, Session: session,
	})
	if err != nil {
		panic(err)
	}
	w.engine = e
	return e
}

// Restart ends the process; the next call starts another one.
func (w *World) Restart() { w.engine = nil }

// Do runs f, again in a new process whenever it is cut off, until it comes to its end. Where an answer was lost that f cannot do
// without, somebody begins it again: on a laptop the process has ended with it, elsewhere it goes on.
func (w *World) Do(f func(*delta.Engine) error) error {
	for range 50 {
		lost := w.Effects.LostOne()
		crashed, err := w.try(f)
		if lost = w.Effects.LostOne() && !lost; !crashed && (err == nil || !lost) {
			return err
		}
		if crashed || w.Laptop {
			w.engine = nil
		}
		w.Restarts++
	}
	return errors.New("cut off again and again")
}

func (w *World) try(f func(*delta.Engine) error) (crashed bool, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case Crash:
			crashed = true
		default:
			panic(p)
		}
	}()
	return false, f(w.Engine())
}

// Run carries a run through to its end, whatever happens to the processes on the way, and returns how it ended.
// between, when set, is called between any two steps, for people who work meanwhile.
func (w *World) Run(q delta.Request, between func()) (run delta.Run, err error) {
	ctx := context.Background()
	id := ""
	err = w.Do(func(e *delta.Engine) error {
		if id == "" {
			r, _, err := e.Start(ctx, q)
			var no *delta.Refusal
			if errors.As(err, &no) && q.Kind == delta.Full && w.Restarts > 0 && !q.Continue && !q.Restart {
				// The process died after the lane was taken: go on with it, as a person would.
				r, _, err = e.Start(ctx, delta.Request{Kind: delta.Full, Scope: q.Scope, Continue: true})
				if errors.As(err, &no) { // or even after the end
					return w.ended(e, q, &id)
				}
			}
			if err != nil {
				return err
			}
			id = r.ID
		}
		for range 2000 {
			p, err := e.Step(ctx, id)
			if err != nil {
				return err
			}
			if between != nil {
				between()
			}
			if p.Run.Status.Ended() {
				run = p.Run
				return nil
			}
			w.deliver(e)
		}
		return fmt.Errorf("run %s does not end", id)
	})
	return run, err
}

func (w *World) ended(e *delta.Engine, q delta.Request, id *string) error {
	o, err := e.Status(context.Background())
	if err != nil {
		return err
	}
	for _, r := range slices.Backward(o.Runs) {
		if r.Kind == q.Kind && r.Scope == q.Scope {
			*id = r.ID
			return nil
		}
	}
	return fmt.Errorf("no run of scope %s", q.Scope)
}

// deliver hands out what is in the queue, in small batches, and waits a little.
func (w *World) deliver(e *delta.Engine) {
	ctx := context.Background()
	ms := w.queue.take(w.now)
	if w.Disorder != 0 {
		if w.rng == nil {
			w.rng = rand.New(rand.NewPCG(w.Disorder, 1))
		}
		var out []delta.Message
		for _, m := range append(ms, w.late...) {
			switch w.rng.IntN(10) {
			case 0: // lost
			case 1, 2:
				out = append(out, m, m)
			case 3:
				w.late = append(w.late, m) // delivered now and once more, much later
				out = append(out, m)
			default:
				out = append(out, m)
			}
		}
		if len(w.late) > 20 {
			w.late = w.late[10:]
		}
		w.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
		ms = out
	}
	for batch := range slices.Chunk(ms, 3) {
		for _, r := range e.Work(ctx, ctx, batch) {
			w.queue.add(w.now.Add(max(r.Delay, time.Second)), r.Message)
		}
	}
	if next := w.queue.next(); len(ms) == 0 && !next.IsZero() && next.After(w.now) {
		w.now = next
	} else {
		w.Wait(20 * time.Second)
	}
}

type listQueue struct {
	at []time.Time
	ms []delta.Message
}

func (q *listQueue) add(at time.Time, m delta.Message) {
	q.at, q.ms = append(q.at, at), append(q.ms, m)
}

func (q *listQueue) Send(_ context.Context, ms []delta.Message, _ time.Duration) error {
	for _, m := range ms {
		q.add(time.Time{}, m)
	}
	return nil
}

func (q *listQueue) take(now time.Time) []delta.Message {
	var out []delta.Message
	var at []time.Time
	var rest []delta.Message
	for i, m := range q.ms {
		if q.at[i].After(now) {
			at, rest = append(at, q.at[i]), append(rest, m)
		} else {
			out = append(out, m)
		}
	}
	q.at, q.ms = at, rest
	return out
}

func (q *listQueue) next() (t time.Time) {
	for _, at := range q.at {
		if t.IsZero() || at.Before(t) {
			t = at
		}
	}
	return t
}

package sim

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// proc is one process, or one thread of the laptop's only process. Processes take turns: each runs until a call of its own
// hands the turn on, so that a seed plays the same way again.
type proc struct {
	w      *world
	name   string
	skew   time.Duration
	engine *delta.Engine
	wake   time.Time
	idle   bool      // a worker that waits for messages
	ends   time.Time // when the platform ends it
	doomed bool
	died   bool
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
}

// crash is what a dying process panics with.
type crash struct{}

// spawn starts a process.
func (w *world) spawn(name string, body func(*proc)) *proc {
	w.starts++
	p := &proc{w: w, name: fmt.Sprintf("%s-%d", name, w.starts), wake: w.now}
	if !w.p.laptop && w.p.skew > 0 {
		p.skew = time.Duration(w.roll.Int64N(int64(2*w.p.skew))) - w.p.skew
	}
	if w.p.laptop {
		for _, other := range w.procs {
			p.engine = other.engine // one process
		}
	}
	if p.engine == nil {
		p.engine = w.engine(w.session(), p.skew)
	}
	p.next, p.stop = iter.Pull(func(yield func(struct{}) bool) {
		p.yield = yield
		defer func() {
			switch x := recover().(type) {
			case nil:
			case crash:
				p.died = true
			default:
				panic(fmt.Sprintf("%v\n%s", x, debug.Stack()))
			}
		}()
		body(p)
	})
	w.procs = append(w.procs, p)
	return p
}

// session names the laptop's process; processes in the cloud know nothing of each other.
func (w *world) session() string {
	if !w.p.laptop {
		return ""
	}
	return fmt.Sprintf("session-%d", w.found["crash"])
}

// pause hands the turn on.
func (p *proc) pause() {
	if !p.yield(struct{}{}) {
		panic(crash{})
	}
	if p.doomed || p.w.killed {
		panic(crash{})
	}
}

// sleep lets others have their turns for a while.
func (p *proc) sleep(d time.Duration) {
	p.wake = p.w.now.Add(d)
	p.pause()
}

// run gives turns until done says so, or nobody wants one.
func (w *world) run(done func() bool) {
	for !done() {
		var ready []*proc
		var soonest time.Time
		for _, p := range w.procs {
			if !p.wake.After(w.now) {
				ready = append(ready, p)
			} else if soonest.IsZero() || p.wake.Before(soonest) {
				soonest = p.wake
			}
		}
		if len(ready) == 0 {
			if soonest.IsZero() {
				return
			}
			w.pass(soonest.Sub(w.now))
			continue
		}
		w.turn(ready[w.roll.IntN(len(ready))])
	}
}

func (w *world) turn(p *proc) {
	w.cur = p
	_, on := p.next()
	w.cur = nil
	if !on {
		w.remove(p)
	}
	if w.killed {
		for len(w.procs) > 0 {
			o := w.procs[0]
			w.cur = o
			o.died = true
			o.stop()
			w.cur = nil
			w.remove(o)
		}
		w.killed = false
		w.q.ms = nil // the laptop's queue is in memory
	}
}

func (w *world) remove(p *proc) {
	for i, o := range w.procs {
		if o == p {
			w.procs = append(w.procs[:i:i], w.procs[i+1:]...)
			return
		}
	}
}

// kill ends the process whose turn it is, or on the laptop all of them.
func (w *world) kill(victim *proc) {
	if victim == nil {
		return
	}
	w.found["crash"]++
	w.say("%s dies", victim.name)
	if w.p.laptop {
		w.killed = true
		return
	}
	victim.doomed = true
}

// limit is a context that ends at a moment of the simulation.
type limit struct {
	context.Context
	w  *world
	at time.Time
}

func (l limit) Err() error {
	if l.w.now.After(l.at) {
		return context.DeadlineExceeded
	}
	return nil
}

// worker carries out messages.
func (w *world) worker(p *proc) {
	for {
		ms := w.q.take()
		if len(ms) == 0 {
			p.idle = true
			p.sleep(max(time.Duration(1+w.roll.IntN(5))*time.Second, w.q.quiet()))
			p.idle = false
			continue
		}
		p.ends = w.now.Add(5 * time.Minute)
		var batch []delta.Message
		for _, m := range ms {
			batch = append(batch, m.m)
		}
		intake := w.now.Add(4 * time.Minute)
		if w.hit("deadline") {
			intake = w.now.Add(time.Duration(w.roll.IntN(8)) * time.Second)
		}
		ctx := limit{context.Background(), w, p.ends}
		retries := p.engine.Work(ctx, limit{context.Background(), w, intake}, batch)
		if w.now.After(p.ends) { // the platform ended it; what it has done is done
			w.occur("fault/timed out")
			panic(crash{})
		}
		w.q.settle(ms, retries)
		w.work++
	}
}

// staff sees to it that there are workers.
func (w *world) staff() {
	n := 0
	for _, p := range w.procs {
		if p.ends != (time.Time{}) || p.name[0] == 'w' {
			n++
		}
	}
	for ; n < w.p.workers; n++ {
		w.spawn("worker", w.worker)
	}
}

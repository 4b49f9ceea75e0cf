package localstore

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// Queue is the queue of one session, in memory. A message is given out once; what a session had not received when it ended
// is gone, and the next session sends again whatever the plan says is open.
type Queue struct {
	calls  *counter
	reader bool

	mu      sync.Mutex
	waiting dues
	sent    int
	changed chan struct{} // closed when a message comes in
}

func newQueue(calls *counter, reader bool) *Queue {
	return &Queue{calls: calls, reader: reader, changed: make(chan struct{})}
}

// Send implements delta.Queue.
func (q *Queue) Send(ctx context.Context, ms []delta.Message, delay time.Duration) error {
	q.calls.add("queue.Send")
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("send %d messages: %w", len(ms), ctx.Err())
	case len(ms) > 10:
		return fmt.Errorf("send %d messages: at most 10 at a time", len(ms))
	case delay < 0 || delay > 15*time.Minute:
		return fmt.Errorf("send with delay %s: at most 15 minutes", delay)
	case q.reader:
		return errors.New("send: this process only looks at the store; messages reach workers only in the process that runs")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	at := time.Now().Add(delay)
	for _, m := range ms {
		q.sent++
		heap.Push(&q.waiting, due{at, q.sent, m})
	}
	close(q.changed)
	q.changed = make(chan struct{})
	return nil
}

// Receive waits until messages are due and returns up to max of them, those first that were due first. It returns ctx's
// error when ctx ends before.
func (q *Queue) Receive(ctx context.Context, max int) ([]delta.Message, error) {
	q.calls.add("queue.Receive")
	if max < 1 {
		return nil, fmt.Errorf("receive up to %d messages: ask for at least one", max)
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		ms, next, changed := q.take(max)
		if len(ms) > 0 {
			return ms, nil
		}
		var timer <-chan time.Time // nil, thus silent, while nothing is waiting
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer:
		}
	}
}

// take returns what is due, or when the next message will be (zero if none is waiting) and a channel that is closed when
// another one comes in.
func (q *Queue) take(max int) (ms []delta.Message, next time.Time, changed <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for now := time.Now(); len(q.waiting) > 0 && len(ms) < max; {
		if q.waiting[0].at.After(now) {
			next = q.waiting[0].at
			break
		}
		ms = append(ms, heap.Pop(&q.waiting).(due).m)
	}
	return ms, next, q.changed
}

// Pending returns how many messages have not been received, due or not.
func (q *Queue) Pending() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// due is a message with its time; n keeps the order of those with the same time.
type due struct {
	at time.Time
	n  int
	m  delta.Message
}

type dues []due

func (d dues) Len() int { return len(d) }
func (d dues) Less(i, j int) bool {
	if c := d[i].at.Compare(d[j].at); c != 0 {
		return c < 0
	}
	return d[i].n < d[j].n
}
func (d dues) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *dues) Push(x any)   { *d = append(*d, x.(due)) }
func (d *dues) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = due{}
	*d = (*d)[:last]
	return x
}

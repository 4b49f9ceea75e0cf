package delta

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// dispatch sends messages for what is planned and not yet out: kinds in load order (a kind begins when the one before has
// all its outcomes), open tickets before closed ones, and never more at a time than Flight. A page that was sent and lacks
// outcomes after a while is sent again, only what lacks one: messages may be lost, and it is the plan that counts. All that
// follows depends on is that an entry without an outcome reaches a worker again and again (model: Deliver).
func (e *Engine) dispatch(ctx context.Context, run *Run, pages []pageRow) error {
	flight := 0
	for i := range pages {
		p := &pages[i]
		if p.Sums == nil && !e.stale(p, p.SentOpen) {
			flight += p.Open
		}
		if p.Sums == nil && !e.stale(p, p.SentRest) {
			flight += p.Planned - p.Open
		}
	}
	for _, k := range e.kinds() {
		of := func(p pageRow) bool { return p.Kind == k && p.Sums == nil }
		for _, open := range []bool{true, false} {
			if !open && !run.Listed && k == "ticket" {
				continue // there may be open ones to come
			}
			for i := range pages {
				p := &pages[i]
				if !of(*p) || flight >= e.Flight {
					continue
				}
				from, to, sent := 0, p.Open, &p.SentOpen
				if !open {
					from, to, sent = p.Open, p.Planned, &p.SentRest
				}
				if from == to || !e.stale(p, *sent) {
					continue
				}
				now := e.Now().UTC().Truncate(time.Millisecond)
				if err := e.send(ctx, run, p, from, to, now); err != nil {
					return err
				}
				*sent, p.Session = now, e.Session
				var err error
				if p.version, err = e.put(ctx, e.pageKey(run.ID, p.No), p.version, p); err != nil {
					return err
				}
				flight += to - from
			}
		}
		if slices.ContainsFunc(pages, of) {
			return nil // the next kind waits
		}
	}
	return nil
}

// stale tells whether messages sent then are to be sent (again): never sent, sent by a process that is no more, or too long
// ago. Each half of a page has its own stamp; the session is of both.
func (e *Engine) stale(p *pageRow, sent time.Time) bool {
	return sent.IsZero() || e.Session != "" && p.Session != e.Session || e.Now().Sub(sent) > e.Resend
}

func (e *Engine) send(ctx context.Context, run *Run, p *pageRow, from, to int, now time.Time) error {
	done, err := finished[counted](ctx, e, run.ID, p.No)
	if err != nil {
		return err
	}
	var ms []Message
	for seq := from; seq < to; seq++ {
		if _, ok := done[seq]; !ok {
			ms = append(ms, Message{Migration: e.mig.ID, Run: run.ID, Page: p.No, Seq: seq, Sent: now.UnixMilli()})
		}
	}
	for ten := range slices.Chunk(ms, 10) {
		if err := e.Queue.Send(ctx, ten, 0); err != nil {
			return fmt.Errorf("send %d messages of run %s page %d: %w", len(ten), run.ID, p.No, err)
		}
	}
	return nil
}

// finished returns the outcomes of a page by sequence number, or as much of them as T has.
func finished[T any](ctx context.Context, e *Engine, run string, page int) (map[int]T, error) {
	out := map[int]T{}
	err := e.each(ctx, e.outPart(run, page), "", func(r Row) error {
		o, err := decode[T](r)
		if err != nil {
			return err
		}
		seq, err := strconv.Atoi(r.Sort)
		if err != nil {
			return fmt.Errorf("outcome row %s %s: %w", r.Part, r.Sort, err)
		}
		out[seq] = o
		return nil
	})
	return out, err
}

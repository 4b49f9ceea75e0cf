package deltatest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

var queueRules = []storeRule{
	{"queue/delivers", queueDelivers},
	{"queue/delay", queueDelay},
	{"queue/limits", queueLimits},
	{"queue/waits", queueWaits},
	{"queue/cancelled", queueCancelled},
}

// patience bounds what would otherwise hang; no rule asks how fast a store is.
const patience = time.Minute

// queueDelivers: every message arrives as it was sent, at least once.
func queueDelivers(t testing.TB, s Stores) {
	name := newName()
	waiting := map[delta.Message]bool{}
	for _, n := range []int{1, 10, 10, 4, 0} {
		var ms []delta.Message
		for range n {
			m := delta.Message{Migration: name, Run: "run", Page: len(waiting) / 7, Seq: len(waiting) % 7}
			ms, waiting[m] = append(ms, m), true
		}
		if err := s.Queue.Send(t.Context(), ms, 0); err != nil {
			t.Fatalf("Send of %d messages: %v", n, err)
		}
	}
	sent := len(waiting)
	for len(waiting) > 0 {
		for _, m := range receive(t, s, 3) {
			if m.Migration == name && m.Page*7+m.Seq >= sent || m.Migration == name && m.Run != "run" {
				t.Fatalf("received %v, which was not sent", m)
			}
			delete(waiting, m)
		}
	}
}

// queueDelay: a message does not come before its time; one that was sent later without delay does not wait for it.
func queueDelay(t testing.TB, s Stores) {
	name := newName()
	late, soon := delta.Message{Migration: name, Seq: 1}, delta.Message{Migration: name, Seq: 2}
	const delay = time.Second
	sent := time.Now()
	if err := s.Queue.Send(t.Context(), []delta.Message{late}, delay); err != nil {
		t.Fatalf("Send with a delay: %v", err)
	}
	if err := s.Queue.Send(t.Context(), []delta.Message{soon}, 0); err != nil {
		t.Fatalf("Send: %v", err)
	}
	for waiting := map[delta.Message]bool{late: true, soon: true}; len(waiting) > 0; {
		for _, m := range receive(t, s, 10) {
			if passed := time.Since(sent); m == late && passed < delay {
				t.Fatalf("a message with a delay of %s came after %s", delay, passed)
			}
			delete(waiting, m)
		}
	}
}

func queueLimits(t testing.TB, s Stores) {
	name := newName()
	for _, c := range []struct {
		n     int
		delay time.Duration
	}{{11, 0}, {1, -time.Second}, {1, 15*time.Minute + time.Second}} {
		if err := s.Queue.Send(t.Context(), make([]delta.Message, c.n), c.delay); err == nil {
			t.Errorf("Send of %d messages with a delay of %s: no error; want a refusal", c.n, c.delay)
		}
	}
	if err := s.Queue.Send(t.Context(), []delta.Message{{Migration: name}}, 15*time.Minute); err != nil {
		t.Errorf("Send with a delay of 15 minutes: %v", err)
	}
}

// queueWaits: a receiver that came first gets a message that is sent afterwards.
func queueWaits(t testing.TB, s Stores) {
	m := delta.Message{Migration: newName()}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := make(chan error, 1)
	go func() {
		for {
			ms, err := s.Queue.Receive(ctx, 10)
			if err != nil {
				got <- err
				return
			}
			for _, r := range ms {
				if r == m {
					got <- nil
					return
				}
			}
		}
	}()
	if err := s.Queue.Send(t.Context(), []delta.Message{m}, 0); err != nil {
		t.Fatalf("Send: %v", err)
	}
	if err := <-got; err != nil {
		t.Errorf("Receive: %v; want what was sent meanwhile", err)
	}
}

func queueCancelled(t testing.TB, s Stores) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for {
			if _, err := s.Queue.Receive(ctx, 1); err != nil {
				done <- err
				return
			}
		}
	}()
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Receive with a context that was cancelled: %v; want context.Canceled", err)
		}
	case <-time.After(patience):
		t.Error("Receive did not end with its context")
	}
	if err := s.Queue.Send(ctx, []delta.Message{{}}, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Send with a cancelled context: %v; want context.Canceled", err)
	}
}

func receive(t testing.TB, s Stores, max int) []delta.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ms, err := s.Queue.Receive(ctx, max)
	if err != nil {
		t.Fatalf("Receive: %v; a message is lost", err)
	}
	if len(ms) == 0 || len(ms) > max {
		t.Fatalf("Receive of up to %d gave %d messages", max, len(ms))
	}
	return ms
}

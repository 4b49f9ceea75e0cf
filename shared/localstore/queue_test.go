package localstore

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

func TestQueueInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(&counter{}, false)
		began := time.Now()
		type arrival struct {
			seq   int
			after time.Duration
		}
		var mu sync.Mutex
		var got []arrival
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 2 { // receivers that wait before anything is sent
			wg.Go(func() {
				for {
					ms, err := q.Receive(ctx, 2)
					if err != nil {
						if !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					for _, m := range ms {
						got = append(got, arrival{m.Seq, time.Since(began)})
					}
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		for seq, delay := range []time.Duration{15 * time.Minute, time.Minute, 0, 0, 0, time.Minute} {
			if err := q.Send(t.Context(), []delta.Message{{Seq: seq}}, delay); err != nil {
				t.Fatal(err)
			}
		}
		if n := q.Pending(); n < 3 || n > 6 {
			t.Errorf("%d pending; three are not due", n)
		}
		time.Sleep(16 * time.Minute) //nolint:forbidigo // of the bubble: no time passes
		cancel()
		wg.Wait()
		slices.SortFunc(got, func(a, b arrival) int { return a.seq - b.seq })
		want := []arrival{{0, 15 * time.Minute}, {1, time.Minute}, {2, 0}, {3, 0}, {4, 0}, {5, time.Minute}}
		if !slices.Equal(got, want) || q.Pending() != 0 {
			t.Errorf("received %v, %d pending; want %v", got, q.Pending(), want)
		}
	})
}

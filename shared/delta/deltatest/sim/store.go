package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
)

var errStore = errors.New("the store did not answer")

// rows is the table with what goes wrong with it, and somebody who looks at everything that is written.
type rows struct {
	w *world
	delta.Rows
}

func (r rows) before() error {
	r.w.tick(4 * time.Millisecond)
	if r.w.cur != nil && len(r.w.armed) > 0 && r.w.hit("store throttled") {
		return errStore
	}
	return nil
}

func (r rows) lost() bool {
	return r.w.cur != nil && len(r.w.armed) > 0 && r.w.hit("store answer lost")
}

func (r rows) Get(ctx context.Context, k delta.Key) (delta.Row, error) {
	if err := r.before(); err != nil {
		return delta.Row{}, err
	}
	r.w.gets++
	return r.Rows.Get(ctx, k)
}

func (r rows) GetMany(ctx context.Context, ks []delta.Key) ([]delta.Row, error) {
	if err := r.before(); err != nil {
		return nil, err
	}
	return r.Rows.GetMany(ctx, ks)
}

func (r rows) Range(ctx context.Context, part, prefix, after string, limit int) ([]delta.Row, bool, error) {
	if err := r.before(); err != nil {
		return nil, false, err
	}
	return r.Rows.Range(ctx, part, prefix, after, limit)
}

func (r rows) Put(ctx context.Context, row delta.Row) (int64, error) {
	if err := r.before(); err != nil {
		return 0, err
	}
	v, err := r.Rows.Put(ctx, row)
	if errors.Is(err, delta.ErrStale) {
		r.w.occur("store/somebody was faster")
	}
	if err == nil {
		r.w.wrote(row)
		r.w.tick(time.Millisecond)
		if r.lost() {
			return 0, errStore
		}
	}
	return v, err
}

func (r rows) PutMany(ctx context.Context, all []delta.Row) error {
	if err := r.before(); err != nil {
		return err
	}
	err := r.Rows.PutMany(ctx, all)
	if err == nil {
		for _, row := range all {
			r.w.wrote(row)
		}
		r.w.tick(time.Millisecond)
		if r.lost() {
			return errStore
		}
	}
	return err
}

func (r rows) Delete(ctx context.Context, k delta.Key, version int64) error {
	if err := r.before(); err != nil {
		return err
	}
	err := r.Rows.Delete(ctx, k, version)
	if err == nil {
		if strings.HasPrefix(k.Part, "held/") {
			r.w.occur("held/settled")
		}
		r.w.tick(time.Millisecond)
		if r.lost() {
			return errStore
		}
	}
	return err
}

// rowSeen is what was last seen of a ledger row or run row.
type rowSeen struct {
	claim, how, status       string
	held, gone, into, joined bool
	unfinished               bool
}

func between(b []byte, from, to string) string {
	_, rest, ok := bytes.Cut(b, []byte(from))
	if !ok {
		return ""
	}
	got, _, _ := bytes.Cut(rest, []byte(to))
	return string(got)
}

// wrote looks at a row that was written: for words that must not be there, and for what it says has happened.
func (w *world) wrote(row delta.Row) {
	kind, _, _ := strings.Cut(row.Part, "/")
	if kind != "held" && leaks(row.Body) {
		w.violate("leaked", "row %s %s holds a customer's words: …%s", row.Part, row.Sort, around(row.Body))
	}
	has := func(s string) bool { return bytes.Contains(row.Body, []byte(s)) }
	switch kind {
	case "led":
		if row.Sort != "row" || !strings.Contains(row.Part, "/ticket/") {
			return
		}
		if t := w.dst.records[desk.Ref{Kind: desk.Ticket, ID: between(row.Body, `"target":"`, `"`)}]; t != nil {
			t.noted = true
		}
		old := w.rows[row.Part]
		now := rowSeen{
			claim: between(row.Body, `"claim":{"by":"`, `"`), how: between(row.Body, `"how":"`, `"`), held: has(`"held":true`), gone: has(`"gone":"`),
			into: has(`"into":"`), joined: has(`"joining":"`), unfinished: has(`"unfinished":true`),
		}
		w.rows[row.Part] = now
		switch {
		case old.claim == "" && now.claim != "":
			w.occur("ledger/claimed")
		case old.claim != "" && now.claim == "":
			w.occur("ledger/claim ended")
		case old.claim != now.claim:
			w.occur("ledger/claim taken over")
		}
		on := func(was, is bool, what string) {
			if !was && is {
				w.occur("ledger/" + what)
			}
		}
		if old.how != now.how && now.how != "" {
			w.occur("ledger/" + now.how)
		}
		on(old.held, now.held, "held")
		on(now.held, old.held, "no longer held")
		on(old.gone, now.gone, "gone")
		on(now.gone, old.gone, "back again")
		on(old.into, now.into, "merged")
		on(old.joined, now.joined, "fenced off")
		on(now.unfinished, old.unfinished, "create finished")
	case "runs":
		w.alone(row)
		old, is := w.rows[row.Part+row.Sort], between(row.Body, `"status":"`, `"`)
		if old.status != is {
			w.occur("run/" + old.status + " → " + is)
			w.say("run %s of %s is %s: %s", row.Sort, between(row.Body, `"lane":"`, `"`), is, between(row.Body, `"why":"`, `"`))
		}
		w.rows[row.Part+row.Sort] = rowSeen{status: is}
	case "held":
		w.occur("held/kept")
		for s, what := range map[string]string{`"again":true`: "asked again", `"doubt":"`: "in doubt", `"gone":true`: "gone in the target"} {
			if has(s) {
				w.occur("held/" + what)
			}
		}
	case "due":
		w.occur("due/" + between(row.Body, `"why":"`, `"`))
		w.say("  %s %s", row.Part, row.Sort)
	case "out":
		outcome := between(row.Body, `"outcome":"`, `"`)
		w.occur("outcome/" + outcome)
		if outcome == "failed" && has(desk.ErrThrottled.Error()) {
			w.violate("miscounted", "waiting for a limit was counted as an attempt: %s", row.Body)
		}
		if w.loud {
			w.say("outcome %s/%s %s", row.Part, row.Sort, row.Body)
		}
	case "mig":
		w.moved(row.Body)
	}
}

// alone looks whether a window has one active run at the most.
func (w *world) alone(row delta.Row) {
	lane := between(row.Body, `"lane":"`, `"`)
	if !strings.HasPrefix(lane, "window/") {
		return
	}
	switch other := w.lanes[lane]; {
	case !delta.Status(between(row.Body, `"status":"`, `"`)).Ended():
		if other != "" && other != row.Sort {
			w.violate("doubled", "runs %s and %s are active in lane %s at the same time", other, row.Sort, lane)
		}
		w.lanes[lane] = row.Sort
	case other == row.Sort:
		delete(w.lanes, lane)
	}
}

// moved looks whether a cutoff went back: it never does, unless the whole ledger went back.
func (w *world) moved(body []byte) {
	var st struct {
		Windows map[string]struct {
			Cutoff json.RawMessage `json:"cutoff"`
		} `json:"windows"`
	}
	if err := json.Unmarshal(body, &st); err != nil {
		w.violate("miscounted", "the state row is damaged: %v", err)
		return
	}
	for name, win := range st.Windows {
		var c cursor
		if len(win.Cutoff) == 0 || json.Unmarshal(win.Cutoff, &c) != nil {
			continue
		}
		if old := w.cutoffs[name]; c.Seq < old.Seq || c.At.Before(old.At) {
			w.violate("miscounted", "the cutoff of window %s moved back, from %+v to %+v", name, old, c)
		}
		w.cutoffs[name] = c
	}
}

// around shows where the words are.
func around(b []byte) string {
	i := max(bytes.Index(b, []byte(planted)), bytes.Index(b, shouted), 0)
	return string(b[max(0, i-80):min(len(b), i+40)])
}

// shouted is how planted looks in a desk that writes in capitals.
var shouted = bytes.ToUpper([]byte(planted))

func leaks(b []byte) bool {
	return bytes.Contains(b, []byte(planted)) || bytes.Contains(b, shouted)
}

// objects is the store of objects with what goes wrong with it.
type objects struct {
	w *world
	delta.Objects
}

func (o objects) Put(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
	o.w.tick(8 * time.Millisecond)
	if o.w.cur != nil && len(o.w.armed) > 0 && o.w.hit("objects slow down") {
		return delta.Info{}, errStore
	}
	if strings.HasPrefix(key, "plan/") || strings.HasPrefix(key, "reports/") {
		b, err := io.ReadAll(r)
		if err != nil {
			return delta.Info{}, err
		}
		if leaks(b) {
			o.w.violate("leaked", "object %s holds a customer's words", key)
		}
		r = bytes.NewReader(b)
	}
	i, err := o.Objects.Put(ctx, key, r)
	if err == nil {
		o.w.tick(time.Millisecond)
	}
	return i, err
}

func (o objects) Open(ctx context.Context, key string) (io.ReadCloser, delta.Info, error) {
	o.w.tick(4 * time.Millisecond)
	return o.Objects.Open(ctx, key)
}

// queue is a standard queue: at least once, in any order.
type queue struct {
	w  *world
	ms []queued
}

type queued struct {
	m  delta.Message
	at time.Time
	no int
}

func (q *queue) Send(_ context.Context, ms []delta.Message, d time.Duration) error {
	w := q.w
	w.tick(4 * time.Millisecond)
	if w.cur != nil && w.hit("queue fails half way") {
		ms = ms[:len(ms)/2]
		defer w.tick(time.Millisecond)
		q.put(ms, d)
		return errStore
	}
	q.put(ms, d)
	w.tick(time.Millisecond)
	return nil
}

func (q *queue) put(ms []delta.Message, d time.Duration) {
	w := q.w
	for _, m := range ms {
		if w.hit("message lost") {
			continue
		}
		q.add(m, d)
		if w.hit("message doubled") {
			q.add(m, d)
		}
		if w.hit("message late") {
			q.add(m, d+time.Duration(10+w.roll.IntN(300))*time.Minute)
		}
	}
}

func (q *queue) add(m delta.Message, d time.Duration) {
	q.w.no++
	q.ms = append(q.ms, queued{m: m, at: q.w.now.Add(d), no: q.w.no})
	q.rouse(q.w.now.Add(d))
}

// quiet is how long nothing in the queue will be due, as far as that is known now, and half a minute at the most.
func (q *queue) quiet() time.Duration {
	d := 30 * time.Second
	for _, m := range q.ms {
		d = min(d, m.at.Sub(q.w.now))
	}
	return d
}

// rouse wakes up workers that would sleep past the moment at which a message is due: each a little later, as a worker does
// that asks every few seconds.
func (q *queue) rouse(due time.Time) {
	for _, p := range q.w.procs {
		if p.idle && p.wake.After(due.Add(5*time.Second)) {
			p.wake = due.Add(time.Duration(1+q.w.roll.IntN(5)) * time.Second)
		}
	}
}

// take hands out a few messages in disorder, and hides them for a while.
func (q *queue) take() []queued {
	var out []queued
	n := 1 + q.w.roll.IntN(5)
	start := 0
	if len(q.ms) > 1 {
		start = q.w.roll.IntN(len(q.ms))
	}
	for i := range q.ms {
		m := &q.ms[(start+i)%len(q.ms)]
		if len(out) < n && !m.at.After(q.w.now) {
			out = append(out, *m)
			m.at = q.w.now.Add(30 * time.Minute) // visibility: six times the timeout of the function
		}
	}
	return out
}

// settle acknowledges what was taken, but for what comes back.
func (q *queue) settle(taken []queued, back []delta.Retry) {
	q.w.backs += len(back)
	for _, r := range back {
		if leaks([]byte(r.Why)) {
			q.w.violate("leaked", "an error holds a customer's words: %s", r.Why)
		}
		q.w.say("back in %s: %d/%d: %s", r.Delay, r.Message.Page, r.Message.Seq, r.Why)
	}
	for _, t := range taken {
		i := slices.IndexFunc(q.ms, func(m queued) bool { return m.no == t.no })
		if i < 0 {
			continue // it was seen again meanwhile, and acknowledged
		}
		j := slices.IndexFunc(back, func(r delta.Retry) bool { return r.Message == t.m })
		if j < 0 {
			q.ms = slices.Delete(q.ms, i, i+1)
			continue
		}
		q.ms[i].at = q.w.now.Add(max(back[j].Delay, time.Second))
		q.rouse(q.ms[i].at)
	}
}

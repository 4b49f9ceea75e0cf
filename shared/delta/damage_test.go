package delta_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// planted stands where only content does, and must never be in an error.
const planted = "planted words"

// lived returns a world in the middle of its life, with a row of every sort in its store: a full run that ended, a delta that
// is under way, something held, something due, a link that waits.
func lived(t testing.TB) *deltatest.World {
	t.Helper()
	w := deltatest.NewWorld(migration())
	w.Laptop = true
	d := w.Source
	ann := d.Add(desk.Person, desk.Fields{desk.Name: {planted}, desk.Email: {"ann@x.example"}})
	both := d.Add(desk.Ticket, desk.Fields{desk.Subject: {planted}, desk.Status: {"open"}, desk.Group: {"Support"}, desk.Requester: {ann}})
	d.Say(both, true, desk.Author{ID: ann, Name: planted}, planted, map[string][]byte{"a": []byte(planted)})
	if r, err := w.Run(delta.Request{Kind: delta.Full, Scope: "all"}, nil); err != nil || r.Status != delta.Verified {
		t.Fatal(r.Status, err)
	}
	d.Edit(ticket(both), desk.Fields{desk.Status: {planted + " of the source"}})
	w.Target.Edit(ticket(w.Target.Target(ticket(both))), desk.Fields{desk.Status: {planted + " of the target"}})
	d.Add(desk.Ticket, desk.Fields{desk.Subject: {planted}, desk.LinkRefersTo: {"999"}})
	w.Wait(time.Hour)
	if _, err := w.Run(mainDelta, nil); err != nil {
		t.Fatal(err)
	}
	d.Add(desk.Ticket, desk.Fields{desk.Subject: {planted}, desk.Status: {"open"}})
	d.Edit(ticket(both), desk.Fields{desk.Subject: {planted + " again"}})
	w.Wait(time.Hour)
	e := w.Engine()
	r, _, err := e.Start(ctx, mainDelta)
	if err == nil {
		_, err = e.Step(ctx, r.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Restart()
	return w
}

// stored returns all rows of a store, in order.
func stored(w *deltatest.World) []delta.Row {
	var out []delta.Row
	for part := range w.Store.Parts("") {
		out = slices.AppendSeq(out, w.Store.Each(part))
	}
	return out
}

// spoil replaces one value inside a row's JSON, or the whole of it. Which one is told by a number, of which there are as many
// as it returns.
func spoil(body []byte, nth int, value string) (spoiled []byte, values int) {
	var doc any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return []byte(value), 1
	}
	n := 0
	var walk func(v any) any
	walk = func(v any) any {
		mine := n == nth
		n++
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				v[k] = walk(v[k])
			}
		case []any:
			for i := range v {
				v[i] = walk(v[i])
			}
		}
		if mine {
			return json.RawMessage(value)
		}
		return v
	}
	doc = walk(doc)
	out, err := json.Marshal(doc)
	if err != nil {
		out = []byte(value) // what is no JSON can only be the whole row
	}
	return out, n
}

// use does everything that an engine can do, in a new process, and looks whether it only ever fails with an error.
func use(t *testing.T, w *deltatest.World, what string) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		e := w.Engine()
		do := func(op string, f func() error) {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("%s: %s panics: %v\n%s", what, op, p, debug.Stack())
				}
			}()
			if err := f(); err != nil && strings.Contains(err.Error(), planted) {
				t.Errorf("%s: %s says too much: %v", what, op, err)
			}
		}
		var runs []string
		do("status", func() error {
			o, err := e.Status(ctx)
			for _, r := range o.Runs {
				runs = append(runs, r.ID)
			}
			return err
		})
		for part := range w.Store.Parts("runs/") {
			for r := range w.Store.Each(part) {
				runs = append(runs, r.Sort)
			}
		}
		slices.Sort(runs)
		runs = slices.Compact(runs)
		do("held", func() error { _, err := e.HeldRecords(ctx); return err })
		for _, kind := range desk.LoadOrder() {
			do("links", func() error {
				return e.Links(ctx, kind, func(string, desk.Ref) string { return "" }, func(delta.Link) error { return nil })
			})
			for id := range 6 {
				do("explain", func() error { _, err := e.Explain(ctx, desk.Ref{Kind: kind, ID: fmt.Sprint(101 + id)}); return err })
			}
		}
		do("decide", func() error {
			return e.Decide(ctx, ticket("102"), desk.Status, "", delta.Decision{Choice: delta.ChooseSource})
		})
		do("extend", func() error { return e.Extend(ctx, "main", w.Clock().Add(time.Hour)) })
		for _, q := range []delta.Request{mainDelta, {Kind: delta.Delta, Window: "support"}, {Kind: delta.Full, Scope: "all", Continue: true}, {Kind: delta.Verify, Scope: "all"}} {
			do("start", func() error {
				r, _, err := e.Start(ctx, q)
				if err == nil {
					runs = append(runs, r.ID)
				}
				return err
			})
		}
		for range 3 {
			for _, id := range runs {
				do("step", func() error { _, err := e.Step(ctx, id); return err })
				for page := range 4 {
					for seq := range 2 {
						do("work", func() error {
							var all []error
							for _, again := range e.Work(ctx, ctx, []delta.Message{{Migration: "acme", Run: id, Page: page, Seq: seq, Sent: 1 << 60}}) {
								all = append(all, errors.New(again.Why))
							}
							return errors.Join(all...)
						})
					}
				}
				do("report", func() error { _, err := e.Report(ctx, id); return err })
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s: there is no end", what)
	}
}

// wrong are values that may stand in a row that somebody else wrote.
var wrong = []string{
	`null`, `{}`, `[]`, `""`, `"odd words"`, `-1`, `999999999999`, `9223372036854775807`, `1e400`, `true`, `[{}]`, `{"x":{}}`, `"0001-01-01T00:00:00Z"`, `"9999-12-31T23:59:59Z"`, `{"ref":{"kind":"x","id":"/../"}}`, `{`, "",
}

// TestDamagedRows spoils every value of every row, one at a time: whoever can write into the store can make a migration fail,
// and no more than that.
func TestDamagedRows(t *testing.T) {
	rows := stored(lived(t))
	step := 1
	if testing.Short() {
		step = 37
	}
	n := 0
	for i, row := range rows {
		_, values := spoil(row.Body, -1, "")
		for nth := range values {
			for _, value := range wrong {
				if n++; n%step != 0 {
					continue
				}
				damage(t, uint(i), uint(nth), value)
			}
		}
	}
	t.Logf("%d rows, %d ways to spoil them, every %dth tried", len(rows), n, step)
}

func damage(t *testing.T, which, nth uint, value string) {
	t.Helper()
	w := lived(t)
	rows := stored(w)
	row := rows[which%uint(len(rows))]
	_, values := spoil(row.Body, -1, "")
	row.Body, _ = spoil(row.Body, int(nth%uint(values)), value)
	if len(row.Body) == 0 {
		row.Body = []byte{} // a row always has a body
	}
	if _, err := w.Store.Rows().Put(ctx, row); err != nil {
		return // larger than rows are
	}
	use(t, w, fmt.Sprintf("row %s %s: %s", row.Part, row.Sort, row.Body))
}

// FuzzStore spoils a row, or puts something else in the place of a plan page.
func FuzzStore(f *testing.F) {
	for i, value := range wrong {
		for n := range uint(40) {
			if n%4 == uint(i)%4 {
				f.Add(n, n*uint(i), value, false)
			}
		}
		f.Add(uint(i), uint(0), value, true)
		f.Add(uint(i), uint(0), "["+value+","+value+"]", true)
	}
	f.Add(uint(0), uint(0), `[{"ref":{"kind":"ticket","id":"102"},"stamp":{"at":"2026-03-10T08:00:00Z"},"due":"held","due_version":1},{"ref":{"kind":"odd","id":""}}]`, true)
	f.Fuzz(func(t *testing.T, which, nth uint, value string, page bool) {
		if !page {
			damage(t, which, nth, value)
			return
		}
		w := lived(t)
		if _, err := w.Store.Objects().Put(ctx, "plan/acme/other.json", strings.NewReader(value)); err != nil {
			t.Fatal(err)
		}
		for part := range w.Store.Parts("pages/") {
			for row := range w.Store.Each(part) {
				var p map[string]any
				if err := json.Unmarshal(row.Body, &p); err != nil {
					t.Fatal(err)
				}
				p["object"] = "plan/acme/other.json"
				row.Body, _ = json.Marshal(p)
				if _, err := w.Store.Rows().Put(ctx, row); err != nil {
					t.Fatal(err)
				}
			}
		}
		use(t, w, "plan page "+value)
	})
}

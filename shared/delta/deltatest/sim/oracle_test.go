package sim

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// A reply moves the status on some desks, and the same call may set it to just that. It is the call's work then: what people do
// afterwards only the target moved, and what people had set before was written over.
func TestReplyMovesStatusToWhatIsWritten(t *testing.T) {
	const reply, later = 10 * time.Minute, 20 * time.Minute
	at := func(d time.Duration) time.Time { return time.Date(2026, 3, 11, 8, 0, 0, 0, time.UTC).Add(d) }
	made := edit{at: at(0), no: 2, by: migration, val: "resolved"}
	theirs := edit{at: at(time.Minute), no: 3, by: people, old: "resolved", val: "rejected"}
	moved := edit{at: at(reply), no: 6, by: automation, old: "rejected", val: "open"}
	says := func(d time.Duration) edit { return edit{at: at(d), no: 7, by: migration, old: "open", val: "open"} }
	afterwards := []edit{
		{at: at(later), no: 8, by: people, old: "open", val: "resolved"},
		{at: at(later + time.Second), no: 9, by: people, old: "resolved", val: "rejected"},
	}
	answer := decided{no: 5, ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, field: desk.Status, choice: delta.ChooseValue, value: "open", source: "stalled", target: "rejected"}
	other := answer
	other.value = "new"
	const unasked = "both sides changed it, and nobody was asked"

	for _, c := range []struct {
		name      string
		decisions []decided
		hist      []edit
		source    []edit // after the answer
		lost      string
		written   int // over the work of people, without an excuse
	}{
		{"an answer is carried out, and people go on", []decided{answer}, append([]edit{moved, says(reply)}, afterwards...), nil, "", 0},
		{"the source goes on, too", []decided{answer}, append([]edit{moved, says(reply)}, afterwards...), []edit{{no: 10, by: people, old: "waiting", val: "new"}}, unasked, 0},
		{"the answer was another one", []decided{other}, append([]edit{moved, says(reply)}, afterwards...), nil, unasked, 1},
		{"the answer never arrived", []decided{answer}, append([]edit{moved}, afterwards...), nil, unasked, 0},
		{"another reply says what it found", []decided{answer}, append([]edit{moved, says(reply + time.Second)}, afterwards...), nil, unasked, 0},
		{"nobody has answered", nil, append([]edit{moved, says(reply)}, afterwards...), nil, unasked, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(1)
			w.p.dst = deskTraits{lock: true, touched: true, reopens: true}
			w.dst.t, w.mig.ConflictField, w.decisions = w.p.dst, nil, c.decisions
			s := &record{ref: answer.ref, hist: map[desk.Field][]edit{desk.Status: append([]edit{
				{no: 1, by: people, val: "done"}, {no: 4, by: people, old: "done", val: "waiting"},
			}, c.source...)}}
			x := &record{ref: desk.Ref{Kind: desk.Ticket, ID: "2"}, source: s.ref, hist: map[desk.Field][]edit{desk.Status: append([]edit{made, theirs}, c.hist...)}}
			for _, r := range []*record{s, x} {
				h := r.hist[desk.Status]
				r.versions = []version{{fields: desk.Fields{desk.Status: desk.Text(h[len(h)-1].val)}}}
			}
			w.src.records[s.ref] = s
			o := &oracle{w: w}
			if d := cmp.Diff(c.lost, o.field(s, x, desk.Status, delta.Held{})); d != "" {
				t.Errorf("what is wrong with the field (-want +got):\n%s", d)
			}
			o.overwritten(x)
			if len(w.bad) != c.written {
				t.Errorf("%d times written over the work of people, want %d: %v", len(w.bad), c.written, w.bad)
			}
		})
	}
}

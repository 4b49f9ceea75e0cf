package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// event is one thing that happens in a world, which could as well not happen.
type event struct {
	no    int
	phase int // 0: the full runs; below: a sample, an undo, runs that look; 1 and on: the deltas of a round
	at    int // after so many calls of the phase; -1: before it begins
	what  string
	sub   uint64 // seed of what the event decides
}

func (e event) String() string {
	when := fmt.Sprintf("phase %d, call %d", e.phase, e.at)
	if e.at < 0 {
		when = fmt.Sprintf("before phase %d", e.phase)
	}
	return fmt.Sprintf("#%d %s: %s", e.no, when, e.what)
}

// weighted is a sort of event with how many of it there are in a hundred worlds, in each phase of them.
type weighted struct {
	what   string
	often  int
	during bool // may happen while runs are on
	before bool // may happen between runs
}

// sorts are all there is. Most worlds see many of the first and few of the last.
var sorts = []weighted{
	{"source: new ticket", 90, true, true},
	{"source: reply", 320, true, true},
	{"source: note", 80, true, true},
	{"source: edit", 420, true, true},
	{"source: burst", 60, true, true},
	{"source: move to another group", 70, true, true},
	{"source: link", 60, true, true},
	{"source: rename a person", 20, true, true},
	{"source: delete", 40, true, true},
	{"source: restore", 30, true, true},
	{"source: spam", 25, true, true},
	{"source: no spam", 15, true, true},
	{"source: merge", 35, true, true},
	{"source: redact", 30, true, true},
	{"source: flip privacy", 20, true, true},
	{"target: edit", 260, true, true},
	{"target: same as the source", 40, true, true},
	{"target: reply", 70, true, true},
	{"target: delete", 12, true, true},
	{"target: merge", 12, true, true},
	{"target: ticket of its own", 20, true, true},

	{"fault: throttled", 40, true, false},
	{"fault: transient", 60, true, false},
	{"fault: rubbish", 15, true, false},
	{"fault: slow", 15, true, false},
	{"fault: rejected", 10, true, false},
	{"fault: lost answer", 60, true, false},
	{"fault: late effect", 40, true, false},
	{"fault: file cut", 10, true, false},
	{"fault: file longer", 8, true, false},
	{"fault: file expired", 8, true, false},
	{"fault: mailed", 2, true, false},
	{"fault: store throttled", 25, true, false},
	{"fault: store answer lost", 35, true, false},
	{"fault: objects slow down", 10, true, false},
	{"fault: queue fails half way", 10, true, false},
	{"fault: message lost", 30, true, false},
	{"fault: message doubled", 60, true, false},
	{"fault: message late", 15, true, false},
	{"fault: deadline", 15, true, false},
	{"fault: crash", 70, true, false},
	{"fault: source down", 3, true, false},
	{"fault: target down", 4, true, false},
	{"fault: source key revoked", 2, true, false},
	{"fault: target key revoked", 3, true, false},
	{"fault: source limit", 3, true, false},
	{"fault: target limit", 4, true, false},
	{"fault: poison", 5, true, false},

	{"operator: decide", 160, true, true},
	{"operator: cancel", 5, true, false},
	{"operator: restart", 12, true, false},
	{"operator: another scope", 6, false, true},
	{"operator: another mapping", 6, false, true},
	{"operator: snapshot", 8, true, false},
	{"operator: restore the ledger", 7, false, true},
	{"operator: long pause", 4, false, true},
	{"operator: dry run", 4, false, true},
	{"operator: verify", 8, false, true},
	{"operator: one-off since", 5, false, true},
	{"operator: census", 12, false, true},
	{"source: unheard edit", 20, true, true},
	{"target: harm", 60, false, true},
}

// newScript draws what happens in a world.
func newScript(p params) []event {
	r := rand.New(rand.NewPCG(p.seed, 3))
	var out []event
	for phase := 0; phase <= p.rounds; phase++ {
		calls := 1200
		if phase == 0 {
			calls = 4000
		}
		for _, s := range sorts {
			if s.what == "target: harm" && !p.harm {
				continue
			}
			n := s.often / 100
			if r.IntN(100) < s.often%100 {
				n++
			}
			n = (n + r.IntN(n+1)) / 2 * 2
			if n == 0 && r.IntN(100) < s.often%100 {
				n = 1
			}
			for range n {
				e := event{phase: phase, at: r.IntN(calls), what: s.what, sub: r.Uint64()}
				if s.before && (!s.during || r.IntN(2) == 0) {
					e.at = -1
				}
				out = append(out, e)
			}
		}
	}
	out = append(out, sideScript(p)...)
	slices.SortStableFunc(out, func(a, b event) int { return cmp.Or(a.phase-b.phase, a.at-b.at) })
	for i := range out {
		out[i].no = i
	}
	return out
}

// happen lets one event happen. victim is the process whose turn it is.
func (w *world) happen(e event, victim *proc) {
	side, what, _ := strings.Cut(e.what, ": ")
	w.say("%s", e)
	r := rand.New(rand.NewPCG(e.sub, 5))
	switch side {
	case "source", "target":
		w.people(side, what, r)
	case "operator":
		w.operate(what, r)
	case "fault":
		w.strike(e, what, victim, r)
	}
}

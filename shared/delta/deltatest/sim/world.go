package sim

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// world is one migration with everybody who takes part in it.
type world struct {
	p        params
	src, dst *simDesk
	store    *deltatest.Memory
	mig      delta.Migration
	oldRules bool // the mapping is the one of the beginning

	now  time.Time
	no   int // numbers everything that happens
	ids  int
	roll *rand.Rand // turns, durations, lags: what no event of the script decides

	procs  []*proc
	cur    *proc
	killed bool // the machine died with all its processes
	starts int
	firing bool
	calls  int // of this phase
	due    []event
	armed  []event
	after  []later
	q      queue
	calm   bool // people and faults have come to rest

	down, revoked map[*simDesk]time.Time
	limit         map[*simDesk]time.Time // until then the desk asks everybody for a pause
	asked         map[string]int         // how often all the same, by what was asked
	poison        map[desk.Ref]bool
	wandered      map[string]bool // entries that have been in more than one ticket
	mailing       bool            // the target mails at every write, until the operator mends it
	mails         int
	decisions     []decided
	wanted        []string         // by the operator, when the runs are over
	recreated     map[desk.Ref]int // how often a person said: create it again
	outdated      bool             // a delta was refused because its scope means something else now
	sampled       string           // the run that moved a sample
	undoing       bool             // a run is being taken back
	restored      bool             // the ledger went back to an earlier day
	unheard       bool             // something changed in the source that its feed did not tell
	harmed        bool             // something in the target was changed without a trace
	uncounted     bool             // a census was stopped when all was calm
	counted       bool             // what a census found since has been carried over
	ended         map[string]bool
	snapshot      *deltatest.Snapshot
	rows          map[string]rowSeen
	cutoffs       map[string]cursor
	lanes         map[string]string // windows' active runs

	found              map[string]int // what occurred
	bad                []violation
	trace              []string
	loud               bool // keep a trace
	log                bytes.Buffer
	work               int
	total, gets, backs int
}

// violation is something that must never be.
type violation struct {
	Sort string // lost, doubled, overwritten, miscounted, stuck, leaked
	What string
}

func (w *world) violate(sort, format string, args ...any) {
	if len(w.bad) < 20 {
		w.bad = append(w.bad, violation{sort, fmt.Sprintf(format, args...)})
	}
	w.say("VIOLATION %s: "+format, append([]any{sort}, args...)...)
}

func (w *world) say(format string, args ...any) {
	if w.loud {
		who := "-"
		if w.cur != nil {
			who = w.cur.name
		}
		w.trace = append(w.trace, fmt.Sprintf("%s %-10s %s", w.now.Format("02 15:04:05"), who, fmt.Sprintf(format, args...)))
	}
}

// occur counts what happened, for the table of what the runs have covered.
func (w *world) occur(what string) {
	w.found[what]++
	w.say("· %s", what)
}

func newWorld(seed uint64) *world {
	w := &world{
		p: newParams(seed), now: time.Date(2026, 3, 10, 8, 0, 0, 0, time.UTC), roll: rand.New(rand.NewPCG(seed, 2)), store: deltatest.NewMemory(),
		down: map[*simDesk]time.Time{}, revoked: map[*simDesk]time.Time{}, limit: map[*simDesk]time.Time{}, asked: map[string]int{},
		poison: map[desk.Ref]bool{}, ended: map[string]bool{}, recreated: map[desk.Ref]int{}, wandered: map[string]bool{},
		rows: map[string]rowSeen{}, cutoffs: map[string]cursor{}, lanes: map[string]string{}, found: map[string]int{}, oldRules: true,
	}
	w.q.w = w
	w.mig = w.p.migration()
	w.src, w.dst = newDesk(w, "old", w.p.src), newDesk(w, "new", w.p.dst)
	if max(w.p.src.skew.Abs(), w.p.dst.skew.Abs()) >= 10*time.Minute {
		w.occur("clock/a desk 10 minutes off")
	}
	if w.p.skew >= 10*time.Minute {
		w.occur("clock/ours up to 10 minutes off")
	}
	return w
}

// later is something that will happen by itself.
type later struct {
	at time.Time
	do func()
}

func (w *world) later(d time.Duration, do func()) {
	l := later{w.now.Add(d), do}
	i, _ := slices.BinarySearchFunc(w.after, l, func(a, b later) int { return a.at.Compare(b.at) })
	w.after = slices.Insert(w.after, i, l)
}

// tick passes at every call: time goes on, things happen, the process may die, another one may have its turn.
func (w *world) tick(cost time.Duration) {
	w.calls++
	w.total++
	w.pass(cost)
	p := w.cur
	if p == nil {
		return
	}
	if w.killed || p.doomed {
		panic(crash{})
	}
	if w.roll.IntN(w.p.turns) == 0 {
		p.pause()
	}
}

// pass lets time pass, and everything happen that is due by then.
func (w *world) pass(d time.Duration) {
	to := w.now.Add(d)
	if w.firing {
		w.now = to
		return
	}
	w.firing = true
	cur := w.cur
	for len(w.after) > 0 && !w.after[0].at.After(to) {
		l := w.after[0]
		w.after = w.after[1:]
		if l.at.After(w.now) {
			w.now = l.at
		}
		w.cur = nil
		l.do()
	}
	w.now = to
	for len(w.due) > 0 && w.due[0].at <= w.calls {
		e := w.due[0]
		w.due = w.due[1:]
		w.cur = nil
		w.happen(e, cur)
	}
	w.cur, w.firing = cur, false
}

// engine returns a new process's engine.
func (w *world) engine(session string, skew time.Duration) *delta.Engine {
	e, err := delta.New(delta.Config{
		Migration: w.mig, SourceID: "old", TargetID: "new", Source: &source{w.src}, Target: w.dst.asTarget(),
		SourceSide: w.traits(w.src), TargetSide: w.traits(w.dst),
		Rows: rows{w, w.store.Rows()}, Objects: objects{w, w.store.Objects()}, Queue: &w.q,
		Now:     func() time.Time { return w.now.Add(skew) },
		NewID:   func() string { w.ids++; return fmt.Sprintf("%026d", w.ids) },
		NewSalt: func() string { return "the same salt in every play" },
		Session: session, Log: w.logger(), Timeout: 5 * time.Minute, Skew: 2 * w.p.skew,
	})
	if err != nil {
		panic(err)
	}
	return e
}

func (w *world) logger() *slog.Logger {
	if !w.p.logs {
		return nil
	}
	return slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (w *world) traits(d *simDesk) desk.Traits {
	t := desk.Traits{
		Kinds: desk.LoadOrder(), SeesDeletes: !d.t.hides, KeepsTimes: d.t.times, KeepsAuthors: true, KeepsHistory: true,
		StampResolution: d.t.resolution, ListLag: max(d.t.listLag, d.t.readLag), FindLag: d.t.findLag, Settle: 10 * time.Second,
	}
	if d.t.markers {
		t.EntryMarker = "a field of the entry"
	}
	return t
}

// operator does something at the command line or the console: in a process of its own, while nobody else has a turn.
func (w *world) operator(do func(context.Context, *delta.Engine) error) error {
	cur, firing := w.cur, w.firing
	w.cur, w.firing = nil, true
	defer func() { w.cur, w.firing = cur, firing }()
	armed := w.armed
	w.armed = nil // what goes wrong is meant for the planners and workers
	defer func() { w.armed = append(armed, w.armed...) }()
	return do(context.Background(), w.engine(w.session(), 0))
}

package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

// params are what one world is like. They follow from its seed.
type params struct {
	seed     uint64
	src, dst deskTraits
	tickets  int
	laptop   bool // one machine, one process at a time; else processes that know nothing of each other
	workers  int
	turns    int           // a call in so many hands the turn on
	skew     time.Duration // how far the clocks of our processes may be off, either way
	logs     bool          // look into the log as well
	apart    bool          // the two scopes overlap only in part, and some tickets are in none
	apartB   bool          // the second scope is wider from the middle on
	mode     delta.Mode    // of the second window
	policies delta.Policies
	rounds   int
	sample   int  // how many tickets are moved before the full run
	undone   bool // and taken back
	undo     int  // the round of which one delta is taken back
	harm     bool // things change in the target without a trace, and a verification heals them
}

func newParams(seed uint64) params {
	r := rand.New(rand.NewPCG(seed, 1))
	yes := func(percent int) bool { return r.IntN(100) < percent }
	pick := func(ds ...time.Duration) time.Duration { return ds[r.IntN(len(ds))] }
	p := params{
		seed: seed, tickets: 20 + r.IntN(4), laptop: yes(40), workers: 1 + r.IntN(3), turns: 2 + r.IntN(6), logs: yes(10), apart: yes(40), rounds: 4,
		mode: delta.CreateUpdate, policies: delta.DefaultPolicies(),
	}
	p.src = deskTraits{
		resolution: pick(time.Millisecond, time.Second, time.Second, time.Minute), listLag: pick(0, 0, 5*time.Second, time.Minute),
		readLag: pick(0, 0, 5*time.Second, 40*time.Second, 5*time.Minute), skew: pick(0, 10*time.Minute, -10*time.Minute), feed: yes(50), seq: yes(40), hides: yes(15),
		overlap: yes(30), pageSize: 3 + r.IntN(5),
	}
	if p.src.seq {
		p.src.feed = true
	}
	if !p.src.feed && yes(50) {
		p.src.cap = 8
	}
	p.dst = deskTraits{
		resolution: time.Second, skew: pick(0, 10*time.Minute, -10*time.Minute), findLag: pick(0, 0, 20*time.Second, 2*time.Minute), lock: yes(70), finder: yes(85), markers: yes(85), times: yes(70),
		reviser: yes(50), merger: yes(80), touched: yes(40), tells: yes(60), takesAll: yes(30), upper: yes(30), reopens: yes(30), automates: yes(30), feed: true, pageSize: 5,
	}
	p.dst.dates = seed%3 == 0 // without a roll, so that the worlds stay what they are
	if !p.laptop && yes(60) {
		p.skew = pick(time.Second, time.Minute, 10*time.Minute)
	}
	if !p.apart && yes(25) {
		p.mode = []delta.Mode{delta.CreateOnly, delta.UpdateOnly}[r.IntN(2)]
	}
	any := func(os ...delta.OnEvent) delta.OnEvent { return os[r.IntN(len(os))] }
	p.policies.OnDeleted = any(delta.Ignore, delta.Tag, delta.Close, delta.Mirror)
	p.policies.OnSpam = any(delta.Ignore, delta.Tag, delta.Close, delta.Mirror)
	p.policies.OnMerged = any(delta.Mirror, delta.Mirror, delta.Mirror, delta.Close, delta.Tag, delta.Ignore)
	if !p.dst.merger { // then the desk cannot delete either
		for _, o := range []*delta.OnEvent{&p.policies.OnDeleted, &p.policies.OnSpam} {
			if *o == delta.Mirror {
				*o = delta.Close
			}
		}
	}
	p.policies.OnTargetGone = []delta.OnGone{delta.HoldGone, delta.RecreateGone, delta.IgnoreGone}[r.IntN(3)]
	p.policies.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.SourceWins, colour: delta.TargetWins}
	p.policies.ThresholdShare, p.policies.ThresholdCount = 0.9, 100
	if yes(15) {
		p.policies.ThresholdShare, p.policies.ThresholdCount = 0.02, 1+r.IntN(2)
	}
	if yes(25) {
		p.sample, p.undone = 1+r.IntN(8), yes(70)
	}
	if yes(20) {
		p.undo = 1 + r.IntN(p.rounds)
	}
	p.harm = yes(15)
	return p
}

// migration is the migration file of the beginning.
func (p params) migration() delta.Migration {
	m := delta.Migration{
		ID: "acme", Hash: "h1",
		Scopes:   map[string]desk.Scope{"all": {}, "support": groups("Support")},
		Windows:  map[string]delta.Window{"main": {Scope: "all", Mode: delta.CreateUpdate}, "support": {Scope: "support", Mode: p.mode}},
		Rules:    rules(true),
		Policies: p.policies,
	}
	if p.apart {
		m.Scopes["all"] = groups("Support", "Sales")
	}
	return m
}

func groups(names ...string) desk.Scope {
	return desk.Scope{Any: map[desk.Field][]string{desk.Group: names}}
}

// statuses are the mapping of the status, of the beginning and after the change. The oracle has it from here, too: what a
// mapping says is for people to decide.
func statuses(old bool) map[string]string {
	m := map[string]string{"open": "open", "waiting": "stalled", "done": "resolved", "new": "new"}
	if !old {
		m["waiting"] = "pending"
	}
	return m
}

func rules(old bool) mapping.Rules {
	return mapping.Rules{
		Fields: map[desk.Kind][]mapping.FieldRule{desk.Ticket: {{From: desk.Status, To: desk.Status, Values: statuses(old), Unmapped: mapping.Block}}},
		People: mapping.PersonRule{Unmatched: "create"},
	}
}

// change renews the migration file.
func (w *world) change(do func(*delta.Migration)) {
	m := w.mig
	scopes := map[string]desk.Scope{}
	for k, v := range m.Scopes {
		scopes[k] = v
	}
	m.Scopes = scopes
	do(&m)
	w.no++
	m.Hash = fmt.Sprintf("h%d", w.no)
	w.mig = m
	if len(w.procs) > 0 {
		panic("sim: the migration file changes only between runs")
	}
}

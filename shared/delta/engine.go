package delta

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

// Config is what an Engine is made of.
type Config struct {
	Migration Migration
	// SourceID and TargetID name the two desks (an address, a folder); a ledger belongs to one pair.
	SourceID, TargetID     string
	Source                 desk.Source
	Target                 desk.Target
	SourceSide, TargetSide desk.Traits

	Rows    Rows
	Objects Objects
	Queue   Queue

	// Now is the clock, NewID makes ids that sort by time (ULIDs).
	Now   func() time.Time
	NewID func() string
	// NewSalt makes the secret of a certificate's digests; nil means crypto/rand's.
	NewSalt func() string
	Log     *slog.Logger

	// Session names this process where no other one can be at work: claims and messages of any other session are known to
	// be dead. Empty where several processes share the store.
	Session string
	// Timeout is how long a worker can live at the most; a claim outlives it by the target's Settle.
	Timeout time.Duration
	// Skew is how far the clocks of two processes may be apart. A claim outlives its holder by as much, so that a process
	// whose clock is ahead does not take over from one that is at work. 0 means 20 minutes, or none where there is a
	// Session: one machine has one clock.
	Skew time.Duration
	// Resend is after how long a message without an outcome is sent again.
	Resend time.Duration
	// Flight is how many messages may be out at a time.
	Flight int
	// Usage returns what this process has used so far: requests by side and endpoint, store calls by operation. May be nil.
	Usage func() (requests map[string]map[string]int, storeCalls map[string]int)
}

// Engine does the steps of one migration's runs. It is safe for concurrent use.
type Engine struct {
	Config
	mig       Migration
	rows      Rows
	rules     string // digest of the mapping
	born      time.Time
	mu        sync.Mutex
	defs      *desk.Definitions
	pages     map[string][]planEntry // by object key, a small cache
	people    map[string]string      // resolved, by run: another process may have made somebody anew since
	rematch   map[string]bool        // fallback people looked for again, by run
	shown     map[string][]string    // ids that a survey's stage has shown, see surveyed
	foreseen  map[string]string      // people that runs that only look have looked for, by run
	tries     map[Message]int        // attempts that the ledger does not count: rehearsals, verifications, conflicts
	rehearsed map[string]int         // which entry of a rehearsal's plan has looked at a record
	seconds   map[string]float64
	pause     time.Time // no desk is asked until then, see heed
	used      usageRow  // already booked
}

// New returns an engine. Nothing is read or written yet.
func New(c Config) (*Engine, error) {
	var bad []error
	need := func(ok bool, what string) {
		if !ok {
			bad = append(bad, fmt.Errorf("engine: %s is missing", what))
		}
	}
	need(c.Migration.ID != "", "the migration's id")
	need(c.Source != nil && c.Target != nil, "a desk")
	need(c.Rows != nil && c.Objects != nil && c.Queue != nil, "a store")
	need(c.NewID != nil, "NewID")
	if err := errors.Join(bad...); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.NewSalt == nil {
		c.NewSalt = rand.Text
	}
	c.Timeout = cmpOr(c.Timeout, 5*time.Minute)
	c.Resend = cmpOr(c.Resend, 10*time.Minute)
	c.Flight = cmpOr(c.Flight, 500)
	if c.Session == "" {
		c.Skew = cmpOr(c.Skew, 20*time.Minute)
	}
	return &Engine{
		Config: c, mig: c.Migration, rows: c.Rows, rules: c.Migration.Rules.Hash(), born: c.Now(),
		pages: map[string][]planEntry{}, people: map[string]string{}, rematch: map[string]bool{}, shown: map[string][]string{},
		foreseen: map[string]string{}, tries: map[Message]int{}, rehearsed: map[string]int{}, seconds: map[string]float64{},
	}, nil
}

func cmpOr[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// kinds are those that both desks have, in load order.
func (e *Engine) kinds() []desk.Kind {
	var out []desk.Kind
	for _, k := range desk.LoadOrder() {
		if slices.Contains(e.SourceSide.Kinds, k) && slices.Contains(e.TargetSide.Kinds, k) {
			out = append(out, k)
		}
	}
	return out
}

// definitions of the target, asked once per engine.
func (e *Engine) definitions(ctx context.Context) (desk.Definitions, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.defs != nil {
		return *e.defs, nil
	}
	defs, err := define(ctx, e.Target)
	if err != nil {
		return desk.Definitions{}, fmt.Errorf("ask the target for its fields: %w", err)
	}
	e.defs = &defs
	return defs, nil
}

func define(ctx context.Context, d any) (desk.Definitions, error) {
	if d, ok := d.(desk.Definer); ok {
		return d.Define(ctx)
	}
	return desk.Definitions{}, nil
}

// Preflight looks whether both desks can be reached with rights enough, and whether the mapping fits their fields. It
// changes nothing, and reports everything it finds at once.
func (e *Engine) Preflight(ctx context.Context) error {
	var bad []error
	for _, side := range []struct {
		name string
		desk any
	}{{"source", e.Source}, {"target", e.Target}} {
		if c, ok := side.desk.(desk.Checker); ok {
			if err := c.Check(ctx); err != nil {
				bad = append(bad, fmt.Errorf("%s: %w", side.name, err))
			}
		}
	}
	if err := errors.Join(bad...); err != nil {
		return err
	}
	src, err := define(ctx, e.Source)
	if err != nil {
		return fmt.Errorf("ask the source for its fields: %w", err)
	}
	tgt, err := e.definitions(ctx)
	if err != nil {
		return err
	}
	return errors.Join(append(e.mig.Rules.Check(src, tgt), e.checkNames(src, tgt)...)...)
}

// checkNames finds what the migration file names and the desks do not have: a scope over a group that does not exist would
// move nothing and say nothing.
func (e *Engine) checkNames(src, tgt desk.Definitions) (bad []error) {
	option := func(d desk.Definitions, f desk.Field, v, where string) {
		def, ok := d.Field(desk.Ticket, f)
		switch {
		case len(d.Fields[desk.Ticket]) == 0:
		case !ok:
			bad = append(bad, fmt.Errorf("%s: there is no field %s%s", where, f, meant(string(f), fieldNames(d))))
		case v != "" && len(def.Options) > 0 && !slices.Contains(def.Options, v):
			bad = append(bad, fmt.Errorf("%s: %s has no value %q%s", where, f, v, meant(v, def.Options)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.mig.Scopes)) {
		for _, f := range slices.Sorted(maps.Keys(e.mig.Scopes[name].Any)) {
			for _, v := range e.mig.Scopes[name].Any[f] {
				option(src, f, v, "scopes."+name+", in the source")
			}
		}
	}
	closes, tags := "", ""
	for _, p := range e.mig.events() {
		switch _, can := e.Target.(desk.Deleter); {
		case p.policy == Close:
			closes = p.name
		case p.policy == Tag:
			tags = p.name
		case p.policy == Mirror && p.deletes && !can:
			bad = append(bad, fmt.Errorf("policies.%s: mirror deletes the ticket in the target, and this target cannot; choose close, tag or ignore", p.name))
		}
	}
	if closes != "" {
		option(tgt, desk.Status, e.mig.ClosedStatus, "policies.closed_status (of policies."+closes+"), in the target")
	}
	if tags != "" {
		option(tgt, desk.Tags, e.mig.EventTag, "policies.event_tag (of policies."+tags+"), in the target")
	}
	for _, f := range slices.Sorted(maps.Keys(e.mig.ConflictField)) {
		option(tgt, f, "", "policies.fields, in the target")
	}
	return bad
}

func fieldNames(d desk.Definitions) []string {
	var out []string
	for _, def := range d.Fields[desk.Ticket] {
		out = append(out, string(def.Field))
	}
	return out
}

func meant(word string, names []string) string {
	if near := mapping.Nearest(word, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; there are: " + strings.Join(names, ", ")
}

func (e *Engine) clock(step string) func() {
	start := e.Now()
	return func() {
		e.mu.Lock()
		e.seconds[step] += e.Now().Sub(start).Seconds()
		e.mu.Unlock()
	}
}

// usage is what this process used since it was last asked.
func (e *Engine) usage() *usageRow {
	now := usageRow{}
	if e.Usage != nil {
		now.Requests, now.StoreCalls = e.Usage()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now.Seconds = maps.Clone(e.seconds)
	diff := usageRow{Requests: map[string]map[string]int{}, StoreCalls: subtract(now.StoreCalls, e.used.StoreCalls), Seconds: subtract(now.Seconds, e.used.Seconds)}
	for side, byEndpoint := range now.Requests {
		if d := subtract(byEndpoint, e.used.Requests[side]); len(d) > 0 {
			diff.Requests[side] = d
		}
	}
	e.used = now
	return &diff
}

// Book keeps what this process used for a run that it leaves unfinished.
func (e *Engine) Book(ctx context.Context, run string) error {
	_, err := e.put(ctx, Key{e.usagePart(run), e.NewID()}, 0, e.usage())
	return err
}

func subtract[N int | float64](now, before map[string]N) map[string]N {
	out := map[string]N{}
	for k, n := range now {
		if d := n - before[k]; d > 0 {
			out[k] = d
		}
	}
	return out
}

// Refusal is an error that says why something may not begin, and what to do.
type Refusal struct{ Why string }

func (r *Refusal) Error() string { return r.Why }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

// Allows tells what is wrong with a request for a run as far as it and the migration file alone decide: a *Refusal. Nothing is
// read, and Start asks the same again.
func (e *Engine) Allows(q Request) error {
	_, err := e.plan(q)
	return err
}

// mapped is what a source record becomes: the mapping's result plus the entries the mapping adds.
func (e *Engine) mapped(ctx context.Context, rec desk.Record) (mapping.Result, error) {
	defs, err := e.definitions(ctx)
	if err != nil {
		return mapping.Result{}, err
	}
	return e.mig.Rules.Apply(rec, defs), nil
}

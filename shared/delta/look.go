package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Explanation is everything the ledger knows of one record. It holds no content.
type Explanation struct {
	Ref    desk.Ref `json:"ref"`
	Target string   `json:"target,omitempty"`
	How    string   `json:"how,omitempty"`
	Into   string   `json:"merged_into,omitempty"`
	Gone   string   `json:"gone,omitempty"`
	// Read is when the reading that was last carried out began.
	Read    time.Time `json:"read,omitzero"`
	Entries int       `json:"entries"`
	// Busy is until when a worker's claim is respected.
	Busy time.Time `json:"busy_until,omitzero"`
	// Due says which runs take it up although the source need not list it, and why.
	Due   []string `json:"due,omitempty"`
	Held  string   `json:"held,omitempty"`
	Next  string   `json:"next,omitempty"`
	Trail []Trace  `json:"trail"`
	// Looks are what the newest verification, census and undo said of it, where it was in one.
	Looks []Look `json:"looks,omitempty"`
	// Waits: other records' links wait for it to arrive.
	Waits bool `json:"awaited,omitempty"`
}

// Look is what a run that compares, or takes back, said of a record.
type Look struct {
	Kind    Kind      `json:"kind"`
	Run     string    `json:"run"`
	Started time.Time `json:"started"` // the run
	Outcome Outcome   `json:"outcome"`
	// Found is the outcome in words.
	Found string `json:"found"`
	// Kept and Left as in the run's report.
	Kept []string `json:"kept,omitempty"`
	Left []string `json:"left,omitempty"`
}

// found says in words what a run that looks, or an undo, made of a record.
func found(k Kind, o outcomeRow) string {
	switch {
	case k == Undo:
		return cmpOr(o.Reason, string(o.Outcome))
	case o.Outcome == OutUnchanged && k == Verify:
		return strings.TrimSuffix("the same on both sides; "+o.Reason, "; ")
	case o.Outcome == OutUnchanged:
		return strings.TrimSuffix("nothing missed; "+o.Reason, "; ")
	case o.Outcome == OutExcluded && k == Verify:
		return "not compared: " + o.Reason
	}
	return o.Reason
}

// looks finds what the newest verification, census and undo said of a record. Their plans say in which it is.
func (e *Engine) looks(ctx context.Context, ref desk.Ref) (out []Look, err error) {
	var runs []Run
	if err := e.each(ctx, e.runsPart(), "", func(r Row) error {
		run, err := decode[Run](r)
		if !run.Dry && (run.Kind == Verify || run.Kind == Census || run.Kind == Undo) {
			runs = append(runs, run)
		}
		return err
	}); err != nil {
		return nil, err
	}
	for _, run := range slices.Backward(runs) { // their ids sort by time
		if slices.ContainsFunc(out, func(l Look) bool { return l.Kind == run.Kind }) {
			continue
		}
		o, err := e.outcomeOf(ctx, run.ID, ref)
		if err != nil {
			return nil, err
		}
		if o.Outcome != "" {
			out = append(out, Look{Kind: run.Kind, Run: run.ID, Started: run.Started, Outcome: o.Outcome, Found: found(run.Kind, o), Kept: o.Kept, Left: o.Left})
		}
	}
	slices.Reverse(out)
	return out, nil
}

// outcomeOf returns what became of a record in a run: the zero outcomeRow if it was not planned, or has no outcome yet.
func (e *Engine) outcomeOf(ctx context.Context, run string, ref desk.Ref) (o outcomeRow, err error) {
	pages, err := e.pageRows(ctx, run)
	if err != nil {
		return o, err
	}
	for _, p := range pages {
		if p.Kind != ref.Kind {
			continue
		}
		es, err := e.entries(ctx, p.Object)
		if errors.Is(err, ErrNoObject) {
			continue // plans are not kept for ever
		}
		if err != nil {
			return o, err
		}
		if seq := slices.IndexFunc(es, func(it planEntry) bool { return it.Ref == ref }); seq >= 0 {
			_, err := e.get(ctx, e.outKey(run, p.No, seq), &o)
			return o, err
		}
	}
	return o, nil
}

// Explain tells what is known of a record, or refuses where nothing is.
func (e *Engine) Explain(ctx context.Context, ref desk.Ref) (Explanation, error) {
	var row ledgerRow
	v, err := e.get(ctx, e.ledgerKey(ref), &row)
	if err != nil {
		return Explanation{}, err
	}
	x := Explanation{
		Ref: ref, Target: row.Target, How: row.How, Into: row.Into, Gone: string(row.Gone), Read: row.Began, Trail: row.Trail, Waits: row.Awaited,
	}
	known := maps.Clone(row.Entries)
	if known == nil {
		known = map[string]entryRow{}
	}
	if _, err := e.loadChunks(ctx, ref, known); err != nil {
		return x, err
	}
	x.Entries = len(known)
	if row.Claim != nil {
		x.Busy = row.Claim.Until
	}
	for i, t := range x.Trail {
		x.Trail[i].Why = dueWords(t.Why)
	}
	if x.Looks, err = e.looks(ctx, ref); err != nil {
		return x, err
	}
	for _, scope := range slices.Sorted(maps.Keys(e.mig.Scopes)) {
		var d dueRow
		if n, err := e.get(ctx, e.dueKey(scope, ref), &d); err != nil {
			return x, err
		} else if n > 0 {
			why := dueWords(d.Why)
			if d.Heal && d.Why != "verify" {
				why += ", and " + dueWords("verify")
			}
			x.Due = append(x.Due, fmt.Sprintf("next run over scope %s: %s", scope, why))
		}
	}
	if v == 0 && len(x.Due)+len(x.Looks) == 0 {
		return x, refuse("nothing is known of %s: no run has listed it. Ids are the source's", ref)
	}
	var h Held
	if n, err := e.get(ctx, e.heldKey(ref), &h); err != nil {
		return x, err
	} else if n > 0 {
		x.Held, x.Next = h.reason(), h.next()
	}
	return x, nil
}

// WindowStatus is where a window's chain stands.
type WindowStatus struct {
	Name     string    `json:"name"`
	Scope    string    `json:"scope"`
	Kind     Kind      `json:"kind"`
	Mode     Mode      `json:"mode"` // of a delta
	Cutoff   string    `json:"cutoff"`
	LastOK   time.Time `json:"last_ok,omitzero"`
	Deadline time.Time `json:"deadline,omitzero"`
	Active   string    `json:"active,omitempty"`
	// Baseline is the full run that the chain began with, or is to begin with.
	Baseline string `json:"baseline,omitempty"`
}

// Overview is what `status` shows.
type Overview struct {
	Migration string         `json:"migration"`
	Windows   []WindowStatus `json:"windows"`
	Runs      []RunStatus    `json:"runs"`
	Held      int            `json:"held"`
	Due       map[string]int `json:"due"` // by scope
}

// RunStatus is one line of the list of runs.
type RunStatus struct {
	ID       string    `json:"id"`
	Kind     Kind      `json:"kind"`
	Window   string    `json:"window,omitempty"`
	Scope    string    `json:"scope"`
	Dry      bool      `json:"dry_run,omitempty"`
	Status   Status    `json:"status"`
	Why      string    `json:"why,omitempty"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Planned  int       `json:"planned"`
	Finished int       `json:"finished"`
	// Undoes is the run that an undo takes back, UndoneBy the run by which this one was undone.
	Undoes   string `json:"undoes,omitempty"`
	UndoneBy string `json:"undone_by,omitempty"`
}

// Status tells where the migration stands.
func (e *Engine) Status(ctx context.Context) (Overview, error) {
	o := Overview{Migration: e.mig.ID, Windows: []WindowStatus{}, Runs: []RunStatus{}, Due: map[string]int{}}
	var st state
	if _, err := e.get(ctx, e.stateKey(), &st); err != nil {
		return o, err
	}
	for _, name := range slices.Sorted(maps.Keys(e.mig.Windows)) {
		w := e.mig.Windows[name]
		ws := WindowStatus{Name: name, Scope: w.Scope, Kind: cmpOr(w.Kind, Delta), Mode: w.Mode, Active: st.Lanes["window/"+name].Run}
		if ws.Kind == Census {
			ws.LastOK = st.Windows[name].LastOK
		} else if b := st.Scopes[w.Scope].Baseline; b != nil {
			s := st.Windows[name]
			ws.Cutoff, ws.Baseline = string(s.Cutoff), b.Run
			if s.Baseline != b.Run {
				ws.Cutoff = string(b.Mark)
			}
			ws.LastOK, ws.Deadline = s.LastOK, e.deadline(st, name)
		}
		o.Windows = append(o.Windows, ws)
	}
	err := e.each(ctx, e.runsPart(), "", func(r Row) error {
		run, err := decode[Run](r)
		if err != nil {
			return err
		}
		rs := RunStatus{ID: run.ID, Kind: run.Kind, Window: run.Window, Scope: run.Scope, Dry: run.Dry, Status: run.Status, Why: run.Why, Started: run.Started, Ended: run.Ended, Undoes: run.Undoes, UndoneBy: run.UndoneBy}
		pages, err := e.pageRows(ctx, run.ID)
		if err != nil {
			return err
		}
		for _, p := range pages {
			rs.Planned += p.Planned
			if p.Sums != nil {
				rs.Finished += p.Sums.Finished()
				continue
			}
			outs, err := finished[counted](ctx, e, run.ID, p.No)
			if err != nil {
				return err
			}
			rs.Finished += len(outs)
		}
		o.Runs = append(o.Runs, rs)
		return nil
	})
	if err != nil {
		return o, err
	}
	for _, name := range slices.Sorted(maps.Keys(st.Lanes)) { // a run may have its lane and not its row yet
		l := st.Lanes[name]
		if r := l.Begin; r != nil && !slices.ContainsFunc(o.Runs, func(s RunStatus) bool { return s.ID == l.Run }) {
			o.Runs = append(o.Runs, RunStatus{ID: r.ID, Kind: r.Kind, Window: r.Window, Scope: r.Scope, Dry: r.Dry, Status: r.Status, Started: r.Started})
		}
	}
	held, err := e.HeldRecords(ctx)
	o.Held = len(held)
	for scope := range e.mig.Scopes {
		err = errors.Join(err, e.each(ctx, e.duePart(scope), "", func(Row) error { o.Due[scope]++; return nil }))
	}
	return o, err
}

// Link is one migrated record.
type Link struct {
	Source    string `json:"source"`
	Target    string `json:"target"`
	SourceURL string `json:"source_url"`
	TargetURL string `json:"target_url"`
}

// Links calls f with every planned record of the migration that has a target, in the order in which it was first planned.
// Addresses are those that addr makes.
func (e *Engine) Links(ctx context.Context, kind desk.Kind, addr func(side string, ref desk.Ref) string, f func(Link) error) error {
	seen := map[string]bool{}
	return e.each(ctx, e.runsPart(), "", func(r Row) error {
		run, err := decode[Run](r)
		if err != nil {
			return err
		}
		pages, err := e.pageRows(ctx, run.ID)
		if err != nil {
			return err
		}
		for _, p := range pages {
			if p.Kind != kind || run.Dry || run.Kind.Looks() {
				continue
			}
			es, err := e.entries(ctx, p.Object)
			if err != nil {
				return err
			}
			for _, it := range es {
				if seen[it.Ref.ID] {
					continue
				}
				seen[it.Ref.ID] = true
				var row ledgerRow
				if _, err := e.get(ctx, e.ledgerKey(it.Ref), &row); err != nil {
					return err
				}
				if row.Target == "" {
					continue
				}
				l := Link{Source: it.Ref.ID, Target: row.Target, SourceURL: addr("source", it.Ref), TargetURL: addr("target", desk.Ref{Kind: kind, ID: row.Target})}
				if err := f(l); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

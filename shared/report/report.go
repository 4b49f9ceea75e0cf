// Package report is what people read after a run: the run report as JSON (the record; schema.json is published), as a
// self-contained HTML page, and as lines for a terminal. It is pure; shared/delta fills a Report in from plan and outcomes.
package report

import (
	"encoding/json"
	"time"
)

// Report of one run. It holds ids, names of fields, counts and durations; never a subject, body, name or address of what is moved.
type Report struct {
	Migration string `json:"migration"`
	// Owner looks at the exceptions, Decider decides what is held: the migration's own people, as its file names them.
	Owner   string `json:"owner,omitempty"`
	Decider string `json:"decider,omitempty"`
	Run     string `json:"run"`  // ULID
	Kind    string `json:"kind"` // full, delta, sample, verify, census, remap, undo, backup
	Window  string `json:"window,omitempty"`
	Scope   string `json:"scope"`
	Mode    string `json:"mode"`
	Dry     bool   `json:"dry_run"`
	// Status: verified, exceptions (finished with held or failed records), stopped (threshold, or mail noticed), cancelled,
	// waiting or running.
	Status string `json:"status"`
	// Why is one sentence for a status other than verified.
	Why string `json:"why,omitempty"`
	// Undoes is the run that an undo took back, UndoneBy the run by which this one was undone since.
	Undoes     string    `json:"undoes,omitempty"`
	UndoneBy   string    `json:"undone_by,omitempty"`
	ConfigHash string    `json:"config_hash"`
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended,omitzero"`

	CutoffBefore json.RawMessage `json:"cutoff_before"` // null: from the beginning
	CutoffAfter  json.RawMessage `json:"cutoff_after"`

	Counts Counts `json:"counts"`
	// ByKind has the same sums per kind of record, in load order.
	ByKind []KindCounts `json:"by_kind"`

	// Requests to the desks by side ("source", "target") and endpoint, and calls of the store by operation. Counted by
	// the processes that worked on the run; a process that was killed takes its count with it.
	Requests   map[string]map[string]int `json:"requests"`
	StoreCalls map[string]int            `json:"store_calls"`
	Bytes      int64                     `json:"file_bytes"` // of files carried over

	// Seconds by step: list, push, close.
	Seconds map[string]float64 `json:"seconds"`

	// Losses by class, with what each class means.
	Losses []LossClass `json:"losses"`
	// Exceptions are every held and failed record; for an undo, "held" are those in which something of the run stays. A verify
	// run has those that differ: the first ones, and how many more there are; its certificate has all of them.
	Exceptions        []Exception `json:"exceptions"`
	ExceptionsLeftOut int         `json:"exceptions_left_out,omitempty"`
	// Kept lists fields and entries that people changed in the target and that were left alone: record, field names, and
	// entries as "entry ID".
	Kept        []Kept `json:"kept"`
	KeptLeftOut int    `json:"kept_left_out,omitempty"`
	// Excluded by reason.
	Excluded map[string]int `json:"excluded"`
	// Chosen are the tickets of a sample with the features for which each was chosen, out of as many as were Looked at.
	Chosen []Chosen `json:"chosen,omitempty"`
	Looked int      `json:"looked_at,omitempty"`
	// Would says of a rehearsal what a run would do, record by record: of the first ones that would be created or updated, and how
	// many more there are.
	Would        []Would `json:"would,omitempty"`
	WouldLeftOut int     `json:"would_left_out,omitempty"`
	// Left is everything of the undone run that an undo did not take back.
	Left []Left `json:"left,omitempty"`
}

// Chosen is a ticket of a sample.
type Chosen struct {
	Record   string   `json:"record"`
	Features []string `json:"features"`
}

// Would is a record with what a run that is no rehearsal does, in a sentence that names ids and fields.
type Would struct {
	Record string `json:"record"`
	Target string `json:"target,omitempty"`
	What   string `json:"what"`
}

// Left is a record with what an undo could not take back, in sentences that name ids and fields.
type Left struct {
	Record string   `json:"record"`
	Target string   `json:"target,omitempty"`
	What   []string `json:"what"`
}

// Counts of plan entries: listed = dropped + planned; planned = created + updated + unchanged + excluded + held + failed.
type Counts struct {
	Listed    int `json:"listed"`
	Dropped   int `json:"dropped"`
	Planned   int `json:"planned"`
	Created   int `json:"created"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
	Excluded  int `json:"excluded"`
	Held      int `json:"held"`
	Failed    int `json:"failed"`
}

// Finished returns how many planned records have an outcome.
func (c Counts) Finished() int {
	return c.Created + c.Updated + c.Unchanged + c.Excluded + c.Held + c.Failed
}

// Add returns the sums of both.
func (c Counts) Add(d Counts) Counts {
	return Counts{
		c.Listed + d.Listed, c.Dropped + d.Dropped, c.Planned + d.Planned, c.Created + d.Created, c.Updated + d.Updated,
		c.Unchanged + d.Unchanged, c.Excluded + d.Excluded, c.Held + d.Held, c.Failed + d.Failed,
	}
}

// KindCounts are the counts of one kind of record.
type KindCounts struct {
	Kind string `json:"kind"`
	Counts
}

// LossClass is one sort of thing that the target cannot keep.
type LossClass struct {
	Class   string `json:"class"`
	Meaning string `json:"meaning"`
	Count   int    `json:"count"`
	// Examples are up to five record ids.
	Examples []string `json:"examples"`
}

// Exception is one record that needs somebody.
type Exception struct {
	Record  string `json:"record"` // kind/id in the source
	Target  string `json:"target,omitempty"`
	Outcome string `json:"outcome"` // held, failed
	Reason  string `json:"reason"`
	// Next says what to do, as a command where there is one.
	Next string `json:"next"`
}

// Kept is a record with the fields in which the target's people were left their way.
type Kept struct {
	Record string   `json:"record"`
	Fields []string `json:"fields"`
}

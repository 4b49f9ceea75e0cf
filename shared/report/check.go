package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schema is the JSON Schema (2020-12) of a Report, as it is published.
//
//go:embed schema.json
var Schema []byte

// JSON writes the report as the record that is kept. What is empty is written as an empty list or object, never as null.
func JSON(w io.Writer, r Report) error {
	r = filled(r)
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write report of run %s as JSON: %w", r.Run, err)
	}
	return nil
}

// filled gives a report the lists and objects that it lacks.
func filled(r Report) Report {
	for _, c := range []*json.RawMessage{&r.CutoffBefore, &r.CutoffAfter} {
		if len(*c) == 0 {
			*c = json.RawMessage("null")
		}
	}
	r.ByKind, r.Losses, r.Exceptions, r.Kept = list(r.ByKind), list(r.Losses), list(r.Exceptions), list(r.Kept)
	for i := range r.Losses {
		r.Losses[i].Examples = list(r.Losses[i].Examples)
	}
	for i := range r.Chosen {
		r.Chosen[i].Features = list(r.Chosen[i].Features)
	}
	for i := range r.Left {
		r.Left[i].What = list(r.Left[i].What)
	}
	for i := range r.Kept {
		r.Kept[i].Fields = list(r.Kept[i].Fields)
	}
	r.StoreCalls, r.Seconds, r.Excluded = object(r.StoreCalls), object(r.Seconds), object(r.Excluded)
	requests := map[string]map[string]int{}
	for side, n := range r.Requests {
		requests[side] = object(n)
	}
	r.Requests = requests
	return r
}

func list[T any](l []T) []T { return append([]T{}, l...) }

func object[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// Validate tells in which places data is not a report as Schema describes it.
func Validate(data []byte) error {
	s, err := compiled()
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("the report is not JSON: %w", err)
	}
	if err := s.Validate(doc); err != nil {
		return fmt.Errorf("the report does not follow its schema: %w", err)
	}
	return nil
}

var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		return nil, fmt.Errorf("read schema.json: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		return nil, fmt.Errorf("read schema.json: %w", err)
	}
	return c.Compile("schema.json")
})

// Check tells every way in which the report contradicts itself: sums that are not right, or a status that the counts belie.
func Check(r Report) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	// While a run goes on, and after it was ended early, planned records may have no outcome.
	whole := r.Status == "verified" || r.Status == "exceptions"
	sums := func(what string, c Counts) {
		for _, n := range c.all() {
			if n.n < 0 {
				wrong("%s: %s is %d", what, n.name, n.n)
			}
		}
		if c.Listed != c.Dropped+c.Planned {
			wrong("%s: listed %d is not dropped %d + planned %d", what, c.Listed, c.Dropped, c.Planned)
		}
		if n := c.Finished(); n > c.Planned || (whole && n < c.Planned) {
			wrong("%s: planned %d is not created %d + updated %d + unchanged %d + excluded %d + held %d + failed %d",
				what, c.Planned, c.Created, c.Updated, c.Unchanged, c.Excluded, c.Held, c.Failed)
		}
	}
	sums("counts", r.Counts)
	var total Counts
	seen := map[string]bool{}
	for _, k := range r.ByKind {
		sums(k.Kind, k.Counts)
		total = total.Add(k.Counts)
		if seen[k.Kind] {
			wrong("kind %s occurs twice", k.Kind)
		}
		seen[k.Kind] = true
	}
	if total != r.Counts {
		wrong("the kinds together are %+v, the counts %+v", total, r.Counts)
	}
	outcomes := map[string]int{}
	for _, e := range r.Exceptions {
		outcomes[e.Outcome]++
	}
	all := outcomes["held"] == r.Counts.Held && outcomes["failed"] == r.Counts.Failed
	if r.ExceptionsLeftOut > 0 { // so it is open which of them are held
		all = r.Kind == "verify" && outcomes["held"] <= r.Counts.Held && outcomes["failed"] <= r.Counts.Failed
	}
	if !all || len(r.Exceptions)+r.ExceptionsLeftOut != r.Counts.Held+r.Counts.Failed {
		wrong("%d exceptions (%d held, %d failed) for %d held and %d failed records",
			len(r.Exceptions), outcomes["held"], outcomes["failed"], r.Counts.Held, r.Counts.Failed)
	}
	if n := len(r.Would) + r.WouldLeftOut; r.Dry && n != r.Counts.Created+r.Counts.Updated || !r.Dry && n > 0 {
		wrong("it says of %d records what would be done, and %d are created and %d updated (rehearsal: %v)", n, r.Counts.Created, r.Counts.Updated, r.Dry)
	}
	excluded := 0
	for _, n := range r.Excluded {
		excluded += n
	}
	if excluded != r.Counts.Excluded {
		wrong("the reasons of exclusion add up to %d, excluded are %d", excluded, r.Counts.Excluded)
	}
	switch needs := r.Counts.Held + r.Counts.Failed; {
	case r.Status == "verified" && needs > 0:
		wrong("the run is verified although %d records are held or failed", needs)
	case r.Status == "exceptions" && needs == 0:
		wrong("the run has exceptions although no record is held or failed")
	}
	if !r.Ended.IsZero() && r.Ended.Before(r.Started) {
		wrong("the run ended %s, before it started %s", r.Ended, r.Started)
	}
	if len(errs) > 0 {
		return fmt.Errorf("report of run %s: %w", r.Run, errors.Join(errs...))
	}
	return nil
}

// tally is a name with a number.
type tally struct {
	name string
	n    int
}

// all returns the counts by name, in the order in which they come about.
func (c Counts) all() []tally {
	return append([]tally{{"listed", c.Listed}, {"dropped", c.Dropped}, {"planned", c.Planned}}, c.outcomes()...)
}

// named gives the counts the names they have in this run: what an undo writes is what it takes back.
func (r Report) named(all []tally) []tally {
	if r.Kind == "undo" {
		for i := range all {
			if all[i].name == "updated" {
				all[i].name = "taken back"
			}
		}
	}
	return all
}

// outcomes returns what became of the planned records.
func (c Counts) outcomes() []tally {
	return []tally{
		{"created", c.Created}, {"updated", c.Updated}, {"unchanged", c.Unchanged}, {"excluded", c.Excluded}, {"held", c.Held}, {"failed", c.Failed},
	}
}

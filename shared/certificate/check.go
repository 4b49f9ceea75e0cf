package certificate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// State is how one side of a record compares with its certificate.
type State string

// The states.
const (
	Same State = "same"
	// Changed: the content is another one, and so is the version: somebody has worked on it since.
	Changed State = "changed"
	// Differs: the content is another one although the version has not moved, or the record is there more often: something
	// was changed without a trace.
	Differs State = "differs"
	Gone    State = "gone"
	// Unreadable content: the desk shows the record and refuses to give all of it out.
	Unread State = "unread"
)

// Finding is the state of one side, with a sentence for any state but Same. It holds ids and versions, no content.
type Finding struct {
	State State  `json:"state"`
	Why   string `json:"why,omitempty"`
}

// Result is what a check found of one record.
type Result struct {
	Record string  `json:"record"`
	Source Finding `json:"source"`
	Target Finding `json:"target"`
}

// Same tells whether both sides are as certified.
func (r Result) Same() bool { return r.Source.State == Same && r.Target.State == Same }

// Checker compares records of two desks with a certificate. It only reads, and knows no ledger. It is safe for concurrent use.
type Checker struct {
	Source desk.Source
	Target desk.Target
	Header Header
}

// Check reads both records that a line names and tells how they compare. A line without sides, of a record that was not
// compared, must not be given. An error is one of the desks: it says nothing about the record.
func (c Checker) Check(ctx context.Context, l Line) (Result, error) {
	res := Result{Record: l.Record}
	kind, id, _ := strings.Cut(l.Record, "/")
	ref := desk.Ref{Kind: desk.Kind(kind), ID: id}
	var err error
	if res.Source, err = c.source(ctx, ref, l.Source); err != nil {
		return res, fmt.Errorf("check %s in the source: %w", ref, err)
	}
	if res.Target, err = c.target(ctx, ref, l.Target); err != nil {
		return res, fmt.Errorf("check target %s of %s: %w", l.Target.ID, ref, err)
	}
	return res, nil
}

func (c Checker) source(ctx context.Context, ref desk.Ref, was *Side) (Finding, error) {
	rec, err := c.Source.Read(ctx, ref)
	if err != nil {
		return failed(err)
	}
	switch {
	case rec.Ref != ref:
		return Finding{Changed, "merged into " + rec.Ref.ID}, nil
	case rec.Event == desk.Deleted || rec.Event == desk.Spam:
		return Finding{Gone, string(rec.Event)}, nil
	}
	if rec, err = ReadSource(ctx, c.Source, rec, c.Header.MaxFile); err != nil {
		return failed(err)
	}
	return compare(was, c.Header.Digester().Source(rec)), nil
}

func (c Checker) target(ctx context.Context, ref desk.Ref, was *Side) (Finding, error) {
	rec, err := c.Target.Read(ctx, desk.Ref{Kind: ref.Kind, ID: was.ID})
	if err != nil {
		return failed(err)
	}
	if rec.Ref.ID != was.ID {
		return Finding{Changed, "merged into " + rec.Ref.ID}, nil
	}
	if f, ok := c.Target.(desk.Finder); ok && ref.Kind == desk.Ticket {
		ids, err := f.Find(ctx, ref)
		if err != nil {
			return failed(err)
		}
		if max(len(ids), 1) != max(was.Copies, 1) {
			return Finding{Differs, fmt.Sprintf("%d times in the target: %s", len(ids), strings.Join(ids, ", "))}, nil
		}
	}
	if rec, err = ReadTarget(ctx, c.Target, c.Header.Migration, rec); err != nil {
		return failed(err)
	}
	is := c.Header.Digester().Target(rec)
	found := compare(was, is)
	if found.State != Same && was.Entries > 0 && is.Entries == 0 && len(rec.Entries) > 0 {
		found.Why += "; none of its entries shows as the migration's: is this the account that the migration used?"
	}
	return found, nil
}

func compare(was, is *Side) Finding {
	switch {
	case is.Digest == was.Digest:
		return Finding{State: Same}
	case is.Version != was.Version:
		return Finding{Changed, fmt.Sprintf("somebody has worked on it since: version %s was certified, now it is %s", was.Version, is.Version) + counts(was, is)}
	}
	return Finding{Differs, fmt.Sprintf("it says something else although its version is still %s: it was changed without a trace", was.Version) + counts(was, is)}
}

// counts says what came or went.
func counts(was, is *Side) string {
	var out string
	for _, n := range []struct {
		what    string
		was, is int
	}{{"entries", was.Entries, is.Entries}, {"files", was.Files, is.Files}} {
		if n.was != n.is {
			out += fmt.Sprintf("; it had %d %s, now %d", n.was, n.what, n.is)
		}
	}
	return out
}

// failed turns an answer about one record into a finding, and hands on an error of the desk.
func failed(err error) (Finding, error) {
	switch {
	case errors.Is(err, desk.ErrNotFound):
		return Finding{Gone, "no longer there"}, nil
	case errors.Is(err, desk.ErrRejected):
		return Finding{Unread, err.Error()}, nil
	}
	return Finding{}, err
}

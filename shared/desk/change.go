package desk

import (
	"encoding/json"
	"time"
)

// Cursor is a place in a desk's stream of changes. It is opaque to everyone but the source that made it, which must refuse
// a damaged one and one of another desk with ErrCursor. A nil cursor is the beginning of time.
type Cursor = json.RawMessage

// Event says what happened to a listed record.
type Event string

// The events.
const (
	Changed Event = "changed" // created or changed, or nothing special
	Deleted Event = "deleted"
	Merged  Event = "merged" // into Listed.Into
	Spam    Event = "spam"
)

// Stamp is what a listing tells about a record's version. It is never a reason to write, only to look.
type Stamp struct {
	At time.Time `json:"at"`
	// Seq orders changes more finely than At where the desk numbers them; else 0.
	Seq int64 `json:"seq,omitempty"`
}

// Before tells whether s is certainly an older version than t.
func (s Stamp) Before(t Stamp) bool {
	if s.Seq != 0 && t.Seq != 0 {
		return s.Seq < t.Seq
	}
	return s.At.Before(t.At)
}

// Listed is one line of a listing.
type Listed struct {
	Ref   Ref    `json:"ref"`
	Stamp Stamp  `json:"stamp"`
	Event Event  `json:"event,omitempty"` // empty means Changed
	Into  string `json:"into,omitempty"`  // for Merged: the id of the record that lives on
	Open  bool   `json:"open,omitempty"`  // the ticket is still being worked on, as far as the listing tells
}

// Page is one page of a listing. Next goes on after it, in any process. Done says that Next is the end of the interval.
type Page struct {
	Items []Listed
	Next  Cursor
	Done  bool
}

// Scope says what moves. The zero Scope is everything. A record is in scope when it passes every filter that is set;
// shared/delta applies it to each record read, so a source may use it to list less and need not.
type Scope struct {
	// Any maps a field to the values of which the record must have at least one.
	Any map[Field][]string `json:"any,omitempty"`
	// CreatedFrom (inclusive) and CreatedTo (exclusive) bound the Created field.
	CreatedFrom time.Time `json:"created_from,omitzero"`
	CreatedTo   time.Time `json:"created_to,omitzero"`
}

// Holds tells whether a ticket's fields are in scope, and if not, why not. People and companies are always in scope.
func (s Scope) Holds(r Record) (ok bool, why string) {
	if r.Ref.Kind != Ticket {
		return true, ""
	}
	for _, f := range sortedKeys(s.Any) {
		if !overlap(r.Fields[f], s.Any[f]) {
			return false, "its " + string(f) + " is outside the scope"
		}
	}
	at, err := time.Parse(time.RFC3339, r.Fields[Created].First())
	switch {
	case s.CreatedFrom.IsZero() && s.CreatedTo.IsZero():
		return true, ""
	case err != nil:
		return false, "it has no creation time"
	}
	if !s.CreatedFrom.IsZero() && at.Before(s.CreatedFrom) || !s.CreatedTo.IsZero() && !at.Before(s.CreatedTo) {
		return false, "it was created outside the scope's dates"
	}
	return true, ""
}

// Change is what a target is to do to one record: only the named fields and the missing entries, never "make it equal".
type Change struct {
	// Fields to set. An empty Value unsets.
	Fields Fields
	// Entries to add, in order, each with its Marker.
	Entries []Entry
	// Lock is the Record.Lock that the decision was based on; a target that has locks fails with ErrConflict, before any
	// effect, when the record has moved since. Empty: no lock asked for.
	Lock string
}

// Empty tells whether there is nothing to do.
func (c Change) Empty() bool { return len(c.Fields) == 0 && len(c.Entries) == 0 }

// Written is what a target did, also on an error: whatever is in it has happened.
type Written struct {
	// ID of the record in the target.
	ID string
	// Now is the record as it looks after the write, where the target can tell; else nil, and the engine reads it.
	Now *Record
	// Entries maps markers to the ids that the target gave the entries.
	Entries map[string]string
	// Losses that this write could not avoid.
	Losses []Loss
}

// Loss is something that the target cannot keep as the source has it, and where it is kept instead.
type Loss struct {
	Class string `json:"class"`          // one of the target's Traits.Losses
	What  string `json:"what"`           // field, entry or file it is about, by id
	Kept  string `json:"kept,omitempty"` // where it went: "header line", "entry", "note", "link"
}

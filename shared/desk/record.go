package desk

import (
	"context"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Kind names a sort of record.
type Kind string

// The kinds that move. Groups (queues, teams) are matched by the mapping and never created.
const (
	Company Kind = "company"
	Person  Kind = "person"
	Ticket  Kind = "ticket"
)

// LoadOrder is the order in which kinds are moved: a ticket refers to people, people to companies.
func LoadOrder() []Kind { return []Kind{Company, Person, Ticket} }

// Ref names one record of one desk. The ID is the desk's own, stable under renaming, at most 200 bytes.
type Ref struct {
	Kind Kind   `json:"kind"`
	ID   string `json:"id"`
}

// String returns kind/id, as logs and errors write it.
func (r Ref) String() string { return string(r.Kind) + "/" + r.ID }

// Field names a field of a record. Fields of a desk's own making are Custom fields.
type Field string

// Fields that every desk shares. Fields of people and companies:
const (
	Name        Field = "name"
	Email       Field = "email" // all addresses; the first one is the primary address
	Phone       Field = "phone"
	Login       Field = "login"
	ExternalID  Field = "external_id"
	CompanyOf   Field = "company" // a company's id
	Role        Field = "role"    // "agent" or "customer"
	Active      Field = "active"  // "true" or "false"
	Locale      Field = "locale"
	TimeZone    Field = "time_zone" // IANA name
	Address     Field = "address"
	Description Field = "description"
)

// Fields of tickets. Times are RFC 3339 in UTC, see Time.
const (
	Subject       Field = "subject"
	Status        Field = "status"
	Priority      Field = "priority"
	Type          Field = "type"
	Group         Field = "group"     // name of the queue or team
	Requester     Field = "requester" // people's ids; most desks allow one
	Assignee      Field = "assignee"  // a person's id
	CC            Field = "cc"        // people's ids, a set
	Followers     Field = "followers" // people's ids, a set: copied on internal notes as well
	Tags          Field = "tags"      // a set
	Channel       Field = "channel"
	Created       Field = "created"
	Started       Field = "started"
	Resolved      Field = "resolved"
	Due           Field = "due"            // SLA: resolution is due
	FirstDue      Field = "first_due"      // SLA: first reply is due
	TimeWorked    Field = "time_worked"    // whole minutes
	TimeEstimated Field = "time_estimated" // whole minutes
	TimeLeft      Field = "time_left"      // whole minutes
)

// Links go one way, from the record that carries them; the desk shows the other end by itself. Values are ticket ids, or
// absolute addresses that point outside the desk.
const (
	LinkParent    Field = "link.parent"
	LinkDependsOn Field = "link.depends_on"
	LinkRefersTo  Field = "link.refers_to"
)

// Custom names a field of the desk's own making, by the name its administrators gave it.
func Custom(name string) Field { return Field("custom." + name) }

// CustomName returns the name inside a Custom field, and whether f is one.
func (f Field) CustomName() (string, bool) { return strings.CutPrefix(string(f), "custom.") }

// Points tells what the field's values refer to: Person, Company or Ticket; "" where they are plain values.
func (f Field) Points() Kind {
	switch f {
	case Requester, Assignee, CC, Followers:
		return Person
	case CompanyOf:
		return Company
	case LinkParent, LinkDependsOn, LinkRefersTo:
		return Ticket
	}
	return ""
}

// IsSet tells whether the order of the field's values means nothing, so that they are kept sorted.
func (f Field) IsSet() bool {
	switch f {
	case CC, Followers, Tags, LinkParent, LinkDependsOn, LinkRefersTo, Requester:
		return true
	}
	return strings.HasPrefix(string(f), "custom.")
}

// Value is what a field holds: no strings when it is unset, one for a plain field, several for a list. An empty string is
// never an element: a desk that knows "" reports it as unset.
type Value []string

// Text returns a Value of the given strings, empty ones left out.
func Text(ss ...string) Value {
	var v Value
	for _, s := range ss {
		if s != "" {
			v = append(v, s)
		}
	}
	return v
}

// Set returns the strings sorted, without doubles and without empty ones.
func Set(ss ...string) Value {
	v := Text(ss...)
	slices.Sort(v)
	return slices.Compact(v)
}

// Time returns t as a Value: RFC 3339, UTC, whole seconds. The zero time is unset.
func Time(t time.Time) Value {
	if t.IsZero() {
		return nil
	}
	return Value{t.UTC().Truncate(time.Second).Format(time.RFC3339)}
}

// First returns the first string, or "".
func (v Value) First() string {
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

// Equal tells whether both hold the same strings in the same order; nil and empty are equal.
func (v Value) Equal(w Value) bool { return slices.Equal(v, w) }

// Fields are a record's values. A field that is absent was not told by the desk; one that is present and empty is unset.
type Fields map[Field]Value

// Record is one company, person or ticket in canonical form.
type Record struct {
	Ref    Ref    `json:"ref"`
	URL    string `json:"url,omitempty"` // where a person would look at it
	Stamp  Stamp  `json:"stamp"`         // what a listing would tell of it now
	Fields Fields `json:"fields"`
	// Entries of a ticket in the order of the thread.
	Entries []Entry `json:"entries,omitempty"`
	// History holds the status changes that the desk remembers, oldest first.
	History []StatusChange `json:"history,omitempty"`
	// Aliases are ids of tickets that were merged into this one, directly or by way of others.
	Aliases []string `json:"aliases,omitempty"`
	// Event tells what is special about the record as it is now: Changed for an ordinary one, Deleted, Spam.
	Event Event `json:"event,omitempty"`
	// Lock is an opaque word for "unchanged since": Target.Apply, Deleter.Delete, Merger.Merge and Reviser.Revise with this Lock fail with ErrConflict
	// when anything has moved. Empty where the desk has no such thing: then a write may land on what people, or another ticket that they merged into
	// this one, changed since it was read.
	Lock string `json:"lock,omitempty"`
	// Touched says, in a target, in which fields somebody other than this account had the last word since the account made
	// the record. Nil where the desk cannot tell. After a cut-off it tells our own half-done write from people's work.
	Touched map[Field]bool `json:"-"`
	// Began is when the reading of this record began, on the desk's own clock: the record holds every change that the
	// desk had accepted by then, less the desk's Traits.ListLag.
	Began time.Time `json:"began"`
}

// StatusChange is one line of a ticket's status history.
type StatusChange struct {
	At     time.Time `json:"at"`
	By     Author    `json:"by"`
	Before string    `json:"before"`
	After  string    `json:"after"`
}

// Author says who wrote something. ID is a person's id on the desk that the record belongs to, or "" for the desk itself.
type Author struct {
	ID    string `json:"id,omitempty"`
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
}

// Entry is one message, note or comment of a ticket.
type Entry struct {
	// ID is unique within the desk, not only within the ticket.
	ID string `json:"id"`
	// Marker is how the migration knows its own entries in the target, see Target. Empty on a source and on entries that
	// people wrote.
	Marker string `json:"marker,omitempty"`
	// Public tells whether the customer can see it. A reply is public, a note or comment is not.
	Public  bool      `json:"public"`
	Author  Author    `json:"author"`
	At      time.Time `json:"at"`
	Subject string    `json:"subject,omitempty"`
	// Body in canonical form, see CanonicalBody; Type is "text/plain" or "text/html".
	Body string `json:"body,omitempty"`
	Type string `json:"type,omitempty"`
	// Headers of the mail it came with, those that keep a mail thread together: Message-ID, In-Reply-To, References,
	// From, To, Cc.
	Headers map[string]string `json:"headers,omitempty"`
	// Minutes of work booked with the entry.
	Minutes int    `json:"minutes,omitempty"`
	Files   []File `json:"files,omitempty"`
}

// File is a file of an entry, in the order of the message.
type File struct {
	ID     string `json:"id"` // the desk's own
	Name   string `json:"name,omitempty"`
	Type   string `json:"type,omitempty"` // media type without parameters, lower case
	Size   int64  `json:"size"`           // bytes as the desk declares them; -1 where it does not
	SHA256 string `json:"sha256,omitempty"`
	Inline bool   `json:"inline,omitempty"`
	CID    string `json:"cid,omitempty"` // Content-ID that the body refers to, without brackets
	// Open streams the bytes. The engine sets it on files that a target is to write, over a copy whose size and hash are
	// known; a target reads it to the end. It may be opened again for another attempt.
	Open func(context.Context) (io.ReadCloser, error) `json:"-"`
}

// CanonicalBody brings a body to the form in which bodies are compared and kept: line ends are LF, and the line ends at the
// very end are gone (desks add and drop one as they like). Everything else stays as it is.
func CanonicalBody(s string) string {
	return strings.TrimRight(lineEnd.ReplaceAllString(s, "\n"), "\n")
}

// lineEnd takes in CRs that were doubled on the way, so that a canonical body stays what it is.
var lineEnd = regexp.MustCompile(`\r+\n`)

package desk

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Source is a desk that is read. Nothing it does may change anything on the desk.
type Source interface {
	// Mark returns a cursor for now: whatever the desk accepts after the call is listed after it. It is the desk's own
	// answer; a source never builds it from a clock of ours.
	Mark(ctx context.Context) (Cursor, error)

	// Changes lists the records of a kind that were created or changed in (from, until], a page per call. A nil from lists
	// everything there is, deleted records left out where the desk hides them. A record may be listed twice, none may be
	// left out, also when records change while pages are fetched and when many share a second. For the next page, call
	// again with from set to Page.Next. Kinds the desk does not have answer an empty page with Done.
	//
	// A damaged or foreign cursor fails with ErrCursor.
	Changes(ctx context.Context, kind Kind, scope Scope, from, until Cursor) (Page, error)

	// Read returns the whole record, and the time on the desk's clock at which reading began. A merged ticket's id
	// answers with the record that lives on, under that record's id. A record that is gone fails with ErrNotFound; a
	// deleted one that the desk still shows is returned with Event Deleted.
	Read(ctx context.Context, ref Ref) (Record, error)
}

// Target is a desk that is written to.
//
// Entries carry a Marker, made by the engine from the migration's id and the source entry's id. A target whose Traits name
// an EntryMarker stores it with the entry and shows it again in Read, on entries that this account wrote and on no others.
//
// Nothing a target does may mail anybody. A target that notices that the desk mailed after all fails with ErrMailed.
type Target interface {
	// Create makes the record and, where the desk can, stores r.Ref (the source's) with it so that Find finds it. It takes
	// as much of r as the desk takes in its one creating request; what is missing from Written is added by Apply. It must
	// not send the creating request twice. An error without Written.ID leaves open whether the record was made, unless it
	// is ErrRejected, ErrUnauthorized or ErrThrottled, which promise that it was not.
	Create(ctx context.Context, r Record) (Written, error)

	// Read returns the record as it is now, with the target's ids in every field that points somewhere. The id of a ticket
	// that was merged answers with the record that lives on, under that record's id. ErrNotFound if it is gone or deleted.
	Read(ctx context.Context, ref Ref) (Record, error)

	// Apply sets the named fields and adds the named entries. Doing it twice with the same fields changes nothing;
	// entries are added again, so the engine never sends one that may be there.
	Apply(ctx context.Context, ref Ref, c Change) (Written, error)
}

// The capabilities. A Source or Target has one when it implements the interface.
type (
	// Checker looks, without changing anything, whether the desk can be reached and the account may do what a migration
	// needs. ErrUnauthorized tells which right is missing.
	Checker interface {
		Check(ctx context.Context) error
	}

	// Definer tells what the desk's fields are, so that a mapping can be checked before the first request that writes.
	Definer interface {
		Define(ctx context.Context) (Definitions, error)
	}

	// Finder finds what Create stored: all ids of records that carry the given source reference. A record just created may
	// be missing for as long as Traits.FindLag. One that was merged since should be found, too, under its own id or that of
	// the record that lives on: else what a create made whose answer was lost is made again.
	Finder interface {
		Find(ctx context.Context, source Ref) ([]string, error)
	}

	// Matcher finds the records that mean the same person or company as r, wherever they come from: by e-mail address,
	// external id, login or name, in that order, and only certain matches.
	Matcher interface {
		Match(ctx context.Context, r Record) ([]string, error)
	}

	// Opener streams a file of an entry that Read returned. The reader fails if fewer bytes arrive than the desk declared.
	Opener interface {
		OpenFile(ctx context.Context, ticket Ref, f File) (io.ReadCloser, error)
	}

	// Deleter deletes a record as it was read: lock is the Record.Lock it had then. One that has moved since (people worked on
	// it, or merged it with another one) fails with ErrConflict, and nothing is deleted. Without a lock whatever is there goes.
	// It is called only where a policy of the migration names deletion, and for tickets that a run made which an operator undoes.
	Deleter interface {
		Delete(ctx context.Context, ref Ref, lock string) error
	}

	// Merger merges a ticket into another one, as the source did. lock is the Record.Lock that the one which goes had when it was
	// read: if it has moved since (people worked on it, or merged it into another one), that fails with ErrConflict, and nothing is
	// merged.
	Merger interface {
		Merge(ctx context.Context, from, into Ref, lock string) error
	}

	// Reviser changes an entry that the migration wrote earlier: its subject, body, headers, files and visibility become those
	// of e, whose ID is the target's; when it was written and by whom stays. A file without Open is one that the entry has, by
	// its id in the target, and keeps; files that e does not name go, in such a way that nobody can read them any more. Doing
	// it twice is the same as doing it once. lock is the ticket's Record.Lock as it was read: one that has moved since fails with
	// ErrConflict, and nothing is changed. Without a lock it is changed whatever people have done meanwhile.
	Reviser interface {
		Revise(ctx context.Context, ticket Ref, e Entry, lock string) error
	}

	// Addresser tells where a person would look at a record, without asking the desk.
	Addresser interface {
		Address(ref Ref) string
	}

	// Rewinder returns a cursor for a moment in the past: whatever changed at or after it is listed after the cursor.
	Rewinder interface {
		At(ctx context.Context, t time.Time) (Cursor, error)
	}
)

// Write says when a desk lets a field be written.
type Write string

// The moments. OnCreate is a promise to take the value, and none to keep it: what a reading shows afterwards counts, and the engine
// tells the rest in a note.
const (
	Always   Write = "always"
	OnCreate Write = "create"
	Never    Write = "never"
)

// FieldDef describes a field of a desk.
type FieldDef struct {
	Field    Field    `json:"field"`
	Label    string   `json:"label,omitempty"`
	Options  []string `json:"options,omitempty"` // the values allowed, all of them; empty where any value is
	Many     bool     `json:"many,omitempty"`
	Required bool     `json:"required,omitempty"`
	Write    Write    `json:"write"`
	// Max is the longest value in characters; 0 where there is no limit that the desk tells.
	Max int `json:"max,omitempty"`
}

// Definitions are what a desk tells of itself.
type Definitions struct {
	Fields map[Kind][]FieldDef `json:"fields"`
	// Open: the desk takes custom fields that it does not have yet, and makes them.
	Open bool `json:"open,omitempty"`
}

// Field returns the definition of a field, and whether there is one.
func (d Definitions) Field(k Kind, f Field) (FieldDef, bool) {
	for _, def := range d.Fields[k] {
		if def.Field == f {
			return def, true
		}
	}
	return FieldDef{}, false
}

// Traits are facts of one side of a desk that need no code. desktest proves each one.
type Traits struct {
	Kinds []Kind
	// SeesDeletes: a deletion is listed. Without it only a census can find one.
	SeesDeletes bool
	// KeepsTimes and KeepsAuthors: entries keep their time and author as fields of their own. A target that cannot keeps
	// both in the entry's header line, and still shows them in Read.
	KeepsTimes, KeepsAuthors bool
	// KeepsHistory: the status history can be written. Without it the engine adds it as one note.
	KeepsHistory bool
	// EntryMarker says where an entry's Marker is stored, in words; empty where the desk has no such place.
	EntryMarker string
	// StampResolution is the smallest step of Stamp.At: two changes within it may carry the same stamp.
	StampResolution time.Duration
	// ListLag is how long an accepted change may stay invisible to Changes and Read.
	ListLag time.Duration
	// FindLag is how long a created record may stay invisible to Find.
	FindLag time.Duration
	// Settle is how long a request may go on working on the desk after its client has died.
	Settle time.Duration
	// MaxFile is the largest file in bytes, MaxFiles the most per entry; 0 where there is no limit.
	MaxFile  int64
	MaxFiles int
	// Losses names what this side cannot keep, by class, with one sentence each.
	Losses map[string]string
}

// Option describes one setting of a connector.
type Option struct {
	Name     string
	Help     string
	Required bool
	Secret   bool // never printed, must be given by reference
	Path     bool // a file or folder: a relative one is relative to the migration file
	Default  string
}

// Config is a connector's settings after secrets were resolved. However it is printed, it shows names and no values.
type Config map[string]string

// Format implements fmt.Formatter for every verb.
func (c Config) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "config of %s", strings.Join(sortedKeys(c), ", "))
}

// MarshalJSON writes the names of the settings.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(sortedKeys(c)) }

// Deps is what a connector gets from outside.
type Deps struct {
	// HTTP carries every request. Timeouts, counting, recording and fault injection are transports inside it.
	HTTP *http.Client
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Log gets ids, counts and durations; never content. Nil discards.
	Log *slog.Logger
	// Migration is the migration's id, as it appears in markers.
	Migration string
	// ReadOnly: a target will only be read. It makes and changes nothing.
	ReadOnly bool
}

// Connector is what a folder in connectors exports. A nil constructor means that the desk cannot be used on that side.
type Connector struct {
	Name       string
	Options    []Option
	NewSource  func(Config, Deps) (Source, error)
	NewTarget  func(Config, Deps) (Target, error)
	SourceSide func(Config) Traits
	TargetSide func(Config) Traits
}

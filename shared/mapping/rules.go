package mapping

import (
	"github.com/deltadesk/deltadesk/shared/desk"
)

// Unmapped says what becomes of a value or field that the rules give no home.
type Unmapped string

// The choices.
const (
	// Pass keeps field and value under the same name. It is the default where the target has a field of that name.
	Pass Unmapped = "pass"
	// Note writes field and value into an internal note of the ticket. It is the default where the target has none.
	Note Unmapped = "note"
	// Block fails the record with the reason, until the mapping covers it.
	Block Unmapped = "block"
	// Drop leaves the value out. The file must name it; nothing is dropped by default.
	Drop Unmapped = "drop"
)

// FieldRule says where one field of the source goes.
type FieldRule struct {
	From desk.Field
	// To is the target's field; empty with Unmapped Note or Drop.
	To desk.Field
	// Values maps values of the source to values of the target. Values not in it follow Unmapped.
	Values map[string]string
	// Default is the target's value where the source has none.
	Default string
	// Transform names one of Transforms, applied before Values.
	Transform string
	Unmapped  Unmapped
	// Meaning is the sentence for the people who approve the mapping; it changes nothing.
	Meaning string
	// Line in the migration file, for messages.
	Line int
}

// PersonRule says what becomes of people that Matcher does not find in the target.
type PersonRule struct {
	// Map names people outright: id or e-mail address in the source → id or e-mail address in the target.
	Map map[string]string
	// Unmatched is "create", "fallback" or "block".
	Unmatched string
	// Fallback is the id or e-mail address, in the target, of who stands in.
	Fallback string
	Line     int
}

// Rules is the mapping of one migration.
type Rules struct {
	Fields map[desk.Kind][]FieldRule
	// Groups maps names of queues and teams; others follow GroupsUnmapped (Pass or Block) unless GroupDefault is set.
	Groups         map[string]string
	GroupDefault   string
	GroupsUnmapped Unmapped
	People         PersonRule
	// Unmapped for fields that no rule names; empty means Pass where the target has the field and Note where not.
	Unmapped Unmapped
}

// Problem is a value that the rules leave without a home where the file says Block.
type Problem struct {
	Field desk.Field
	Why   string // without the value: problems are logged
}

// Result of mapping one record.
type Result struct {
	// Record for the target. Its Ref, entries and every id in its fields are still the source's: shared/delta translates
	// ids by the ledger.
	Record desk.Record
	// Noted are fields without a home that are to go into an internal note, in a stable order; see NoteBody.
	Noted []Noted
	// Losses by class, "unmapped" for values that a rule drops.
	Losses   []desk.Loss
	Problems []Problem
}

// Noted is one line of the note for fields without a home.
type Noted struct {
	Field desk.Field
	Value desk.Value
}

package mapping

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Unmapped says what becomes of a value or field that the rules give no home.
type Unmapped string

// The choices.
const (
	// Pass keeps the value as it is, where the target accepts it, and is Note where not. It is the default.
	Pass Unmapped = "pass"
	// Note writes field and value into an internal note of the ticket.
	Note Unmapped = "note"
	// Block fails the record with the reason, until the mapping covers it.
	Block Unmapped = "block"
	// Drop leaves the value out. The file must name it; nothing is dropped by default.
	Drop Unmapped = "drop"
)

// FieldRule says where one field of the source goes. A field of the source may go to several fields of the target, each
// with a rule of its own; a field of the target is filled by one rule only.
type FieldRule struct {
	// From is the source's field; empty for a rule that only sets Default.
	From desk.Field
	// To is the target's field; empty with Unmapped Note or Drop.
	To desk.Field
	// Values maps values of the source to values of the target. Values not in it follow Unmapped.
	Values map[string]string
	// Default is the target's value where nothing else fills the field: the source has no value, or Unmapped noted or
	// dropped all it had.
	Default string
	// Transform names one of Transforms, applied before Values. A value of which it makes nothing follows Unmapped.
	Transform string
	// Unmapped for the values that the target does not accept or that are not in Values. Empty or Pass: where the target
	// does not accept the value either, Rules.Unmapped decides.
	Unmapped Unmapped
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
	// Apart gives everybody a record of their own, whoever is there already: for a backup.
	Apart bool
	// Fallback is the id or e-mail address, in the target, of who stands in.
	Fallback string
	Line     int
}

// Rules is the mapping of one migration.
type Rules struct {
	Fields map[desk.Kind][]FieldRule
	// Groups maps names of queues and teams. Others go to GroupDefault, their own name into the note; where there is no
	// GroupDefault they follow GroupsUnmapped (Pass or Block).
	Groups         map[string]string
	GroupDefault   string
	GroupsUnmapped Unmapped
	People         PersonRule
	// Unmapped for fields that no rule names and the target has not, and for values that it does not accept: Pass and Note
	// both write them into the note, Block fails the record. A field that the target has passes in any case.
	Unmapped Unmapped
	// Line of the mapping, and of its groups, in the migration file, for messages.
	Line, GroupsLine int
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
	// Noted are fields without a home that are to go into an internal note, sorted by field; see NoteBody. Fields that
	// point at people, companies or tickets carry the source's ids; shared/delta turns them into words first.
	Noted []Noted
	// Losses of the source's fields, each class once for a field, sorted by field; see LossClasses.
	Losses []desk.Loss
	// Problems fail the record. The Record beside them is not to be written.
	Problems []Problem
}

// LossClasses says what each class of Result.Losses means.
func LossClasses() map[string]string {
	return map[string]string{
		LossUnmapped:  "a value for which the target has no place was left out: a rule drops it, or the record has no thread to note it in",
		LossNoted:     "a value for which the target has no place is kept in an internal note",
		LossShortened: "a value longer or with more parts than the target allows was cut; tickets keep the whole of it in an internal note",
	}
}

// The classes of losses that mapping causes.
const (
	LossUnmapped  = "unmapped"
	LossNoted     = "noted"
	LossShortened = "shortened"
)

// Noted is one line of the note for fields without a home.
type Noted struct {
	Field desk.Field
	Value desk.Value
}

// Hash returns a digest of everything in the rules that decides what Apply does or what becomes of people: hex SHA-256.
// Meanings, line numbers and the order of rules do not count.
func (r Rules) Hash() string {
	r.Line, r.GroupsLine, r.People.Line = 0, 0, 0
	r.Groups, r.People.Map = some(r.Groups), some(r.People.Map)
	fields := map[desk.Kind][]FieldRule{}
	for k, rules := range r.Fields {
		if len(rules) == 0 {
			continue
		}
		rules = slices.Clone(rules)
		for i := range rules {
			rules[i].Meaning, rules[i].Line = "", 0
			rules[i].Values = some(rules[i].Values)
		}
		slices.SortStableFunc(rules, func(a, b FieldRule) int { return cmp.Or(cmp.Compare(a.To, b.To), cmp.Compare(a.From, b.From)) })
		fields[k] = rules
	}
	r.Fields = fields
	b, err := json.Marshal(r)
	if err != nil {
		panic("mapping: rules that cannot be written as JSON: " + err.Error()) // only strings and maps of strings reach this
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// some returns nil for an empty map, so that "none" is written in one way.
func some(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}

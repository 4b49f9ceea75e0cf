package mapping_test

import (
	"fmt"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

// A status is translated, a priority that the target does not know is kept in a note, and nothing is lost.
func ExampleRules_Apply() {
	rules := mapping.Rules{Fields: map[desk.Kind][]mapping.FieldRule{desk.Ticket: {
		{From: desk.Status, To: desk.Status, Transform: "lower", Values: map[string]string{"waiting": "stalled"}},
	}}}
	target := desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{desk.Ticket: {
		{Field: desk.Status, Write: desk.Always, Options: []string{"open", "stalled", "resolved"}},
		{Field: desk.Priority, Write: desk.Always, Options: []string{"low", "high"}},
	}}}
	res := rules.Apply(desk.Record{
		Ref:    desk.Ref{Kind: desk.Ticket, ID: "42"},
		Fields: desk.Fields{desk.Status: {"Waiting"}, desk.Priority: {"purple"}},
	}, target)

	fmt.Println(res.Record.Fields)
	fmt.Println(mapping.NoteBody(res.Noted))
	fmt.Println(res.Losses)
	// Output:
	// map[priority:[] status:[stalled]]
	// From the previous help desk, without a field of its own here:
	// Priority: purple
	// [{noted priority note}]
}

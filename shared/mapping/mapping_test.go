package mapping_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files")

func TestTransforms(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"lower", "HIGH Ä", "high ä"},
		{"upper", "high ß", "HIGH ß"},
		{"trim", "\t a  b \n", "a  b"},
		{"spaces", "\t a \n b ", "a b"},
		{"digits", "INV-0042 ٣", "0042"},
		{"digits", "none", ""},
		{"slug", "  VIP (gold) Größe!", "vip-gold-größe"},
		{"slug", "!", ""},
		{"date", "2026-03-01T00:30:00+01:00", "2026-02-28"},
		{"date", "2026-03-01", "2026-03-01"},
		{"date", "01.03.2026", ""},
	}
	tested := map[string]bool{}
	for _, tc := range tests {
		tested[tc.name] = true
		if got := mapping.Transforms[tc.name].Do(tc.in); got != tc.want {
			t.Errorf("%s of %q is %q, want %q", tc.name, tc.in, got, tc.want)
		}
	}
	for name, tr := range mapping.Transforms {
		if !tested[name] || tr.Help == "" {
			t.Errorf("%s has no test or no help", name)
		}
	}
}

func TestNotes(t *testing.T) {
	body := mapping.NoteBody([]mapping.Noted{
		{Field: "channel", Value: desk.Value{"phone"}},
		{Field: "custom.Cost centre", Value: desk.Value{"4711", "4712"}},
		{Field: "custom.Remarks", Value: desk.Value{"first line\r\nsecond line\n"}},
		{Field: "priority"},
		{Field: "time_worked", Value: desk.Value{"25"}},
		{Field: "link.refers_to", Value: desk.Value{"17"}},
	})
	golden(t, "testdata/note.golden", body+"\n")
	if got := mapping.NoteBody([]mapping.Noted{{Field: "channel"}}); got != "" {
		t.Errorf("a note about nothing: %q", got)
	}
}

func TestHistoryNote(t *testing.T) {
	berlin := time.FixedZone("", 3600)
	rec := ticket(nil)
	rec.History = []desk.StatusChange{
		{At: time.Date(2026, 1, 1, 0, 30, 0, 5, berlin), By: desk.Author{ID: "7", Name: "Jo Doe", Email: "jo@x"}, After: "new"},
		{At: time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC), By: desk.Author{ID: "7", Email: "jo@x"}, Before: "new", After: "open"},
		{At: time.Date(2026, 1, 3, 8, 0, 1, 0, time.UTC), By: desk.Author{ID: "7"}, Before: "open", After: "waiting\nfor them"},
		{At: time.Date(2026, 1, 4, 8, 0, 2, 0, time.UTC), Before: "waiting\nfor them", After: "resolved"},
	}
	e, ok := mapping.HistoryNote(rec)
	if !ok {
		t.Fatal("no note")
	}
	golden(t, "testdata/history.golden", e.Body+"\n")
	e.Body = ""
	want := desk.Entry{ID: "status-history/42", At: time.Date(2026, 1, 4, 8, 0, 2, 0, time.UTC), Type: "text/plain"}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	if _, ok := mapping.HistoryNote(ticket(nil)); ok {
		t.Error("a note without history")
	}
}

func TestHash(t *testing.T) {
	rules := func() mapping.Rules {
		return mapping.Rules{
			Fields: map[desk.Kind][]mapping.FieldRule{desk.Ticket: {
				{From: "status", To: "status", Values: map[string]string{"a": "b"}, Default: "c", Transform: "lower", Unmapped: mapping.Note},
				{From: "type", To: "priority"},
			}},
			Groups: map[string]string{"a": "b"}, GroupDefault: "d", GroupsUnmapped: mapping.Pass, Unmapped: mapping.Note,
			People: mapping.PersonRule{Map: map[string]string{"a": "b"}, Unmatched: "fallback", Fallback: "f"},
		}
	}
	first := rules().Hash()
	if len(first) != 64 {
		t.Fatalf("hash %q", first)
	}
	same := map[string]func(*mapping.Rules){
		"lines and meanings": func(r *mapping.Rules) {
			r.Line, r.GroupsLine, r.People.Line = 1, 2, 3
			r.Fields[desk.Ticket][0].Line, r.Fields[desk.Ticket][0].Meaning = 4, "why"
		},
		"the order of rules": func(r *mapping.Rules) {
			fs := r.Fields[desk.Ticket]
			fs[0], fs[1] = fs[1], fs[0]
		},
		"empty instead of none": func(r *mapping.Rules) {
			r.Fields[desk.Person] = []mapping.FieldRule{}
			r.Fields[desk.Ticket][1].Values = map[string]string{}
		},
	}
	for name, change := range same {
		r := rules()
		change(&r)
		if r.Hash() != first {
			t.Errorf("%s change the hash", name)
		}
	}
	other := map[string]func(*mapping.Rules){
		"from":            func(r *mapping.Rules) { r.Fields[desk.Ticket][0].From = "x" },
		"to":              func(r *mapping.Rules) { r.Fields[desk.Ticket][0].To = "x" },
		"values":          func(r *mapping.Rules) { r.Fields[desk.Ticket][0].Values["a"] = "x" },
		"default":         func(r *mapping.Rules) { r.Fields[desk.Ticket][0].Default = "x" },
		"transform":       func(r *mapping.Rules) { r.Fields[desk.Ticket][0].Transform = "x" },
		"unmapped":        func(r *mapping.Rules) { r.Fields[desk.Ticket][0].Unmapped = "x" },
		"kind":            func(r *mapping.Rules) { r.Fields[desk.Person] = r.Fields[desk.Ticket] },
		"groups":          func(r *mapping.Rules) { r.Groups["x"] = "y" },
		"group default":   func(r *mapping.Rules) { r.GroupDefault = "x" },
		"groups unmapped": func(r *mapping.Rules) { r.GroupsUnmapped = "x" },
		"people":          func(r *mapping.Rules) { r.People.Map["x"] = "y" },
		"unmatched":       func(r *mapping.Rules) { r.People.Unmatched = "x" },
		"fallback":        func(r *mapping.Rules) { r.People.Fallback = "x" },
		"all unmapped":    func(r *mapping.Rules) { r.Unmapped = "x" },
	}
	for name, change := range other {
		r := rules()
		change(&r)
		if r.Hash() == first {
			t.Errorf("%s does not change the hash", name)
		}
	}
	// A new version of Deltadesk must not make every ticket due again.
	if want := "a1fe7751d156bc3b46cfde2cf71ee906c8335e2b9827dbad9f38dfae3be65124"; first != want {
		t.Errorf("the hash of the same rules is another one now: %s, want %s", first, want)
	}
}

func TestCheck(t *testing.T) {
	source := desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{
		desk.Ticket: {
			{Field: desk.Subject}, {Field: desk.Status}, {Field: desk.Group}, {Field: desk.Priority}, {Field: desk.Assignee},
			{Field: desk.Custom("Level")},
		},
		desk.Person: {{Field: desk.Email}},
	}}
	rule := func(r mapping.FieldRule) mapping.Rules {
		r.Line = 12
		rules := ticketRules(r)
		rules.Line, rules.GroupsLine, rules.People.Line = 2, 30, 40
		rules.Fields[desk.Person] = []mapping.FieldRule{{From: "email", To: "name", Line: 20}}
		return rules
	}
	with := func(change func(*mapping.Rules)) mapping.Rules {
		r := rule(mapping.FieldRule{From: "custom.Level", To: "custom.Tier"})
		change(&r)
		return r
	}
	tests := []struct {
		name  string
		rules mapping.Rules
		want  []string
	}{
		{"nothing wrong", rule(mapping.FieldRule{From: "custom.Level", To: "custom.Tier", Values: map[string]string{"1": "gold"}, Default: "silver"}), nil},
		{"from", rule(mapping.FieldRule{From: "custom.Levl", To: "custom.Tier"}), []string{
			`line 12: mapping: the source has no ticket field custom.Levl (did you mean "custom.Level"?); it has assignee, custom.Level, group, priority, status, subject`,
		}},
		{"to", rule(mapping.FieldRule{From: "custom.Level", To: "custom.tear"}), []string{
			`line 12: mapping: the target has no ticket field custom.tear (did you mean "custom.Tier"?); it has assignee, created, custom.Note, custom.Tier, group, link.parent, priority, requester, resolved, status, subject, tags`,
		}},
		{"no field at all", rule(mapping.FieldRule{From: "levle", To: "tag"}), []string{
			`line 12: mapping: there is no field "levle"; a field of a desk's own making is written custom.NAME`,
			`line 12: mapping: there is no field "tag" (did you mean "tags"?); a field of a desk's own making is written custom.NAME`,
		}},
		{"read-only", rule(mapping.FieldRule{From: "custom.Level", To: "resolved"}), []string{
			"line 12: mapping: ticket field resolved cannot be written in the target; choose another field, or leave to out and say unmapped: note",
		}},
		{"values", rule(mapping.FieldRule{From: "custom.Level", To: "custom.Tier", Values: map[string]string{"1": "Gold", "2": "silver", "3": ""}, Default: "tin"}), []string{
			`line 12: mapping: "Gold" is not among the target's options for ticket field custom.Tier (did you mean "gold"?); they are gold, silver`,
			`line 12: mapping: "tin" is not among the target's options for ticket field custom.Tier; they are gold, silver`,
		}},
		{"too long", rule(mapping.FieldRule{From: "custom.Level", To: "custom.Note", Default: "123456"}), []string{
			`line 12: mapping: "123456" has 6 characters; the target allows 5 for ticket field custom.Note`,
		}},
		{"transform", rule(mapping.FieldRule{From: "custom.Level", To: "custom.Tier", Transform: "lowre"}), []string{
			`line 12: mapping: there is no transform "lowre" (did you mean "lower"?); there are date, digits, lower, slug, spaces, trim, upper`,
		}},
		{"no from", rule(mapping.FieldRule{To: "custom.Tier"}), []string{
			"line 12: mapping: the rule has no from; a rule without from needs to and default",
		}},
		{"no to", rule(mapping.FieldRule{From: "custom.Level"}), []string{
			"line 12: mapping: the rule for ticket field custom.Level has no to; name a field of the target, or say unmapped: note, drop or block",
		}},
		{"no to for values", rule(mapping.FieldRule{From: "custom.Level", Unmapped: mapping.Drop, Values: map[string]string{"a": "b"}}), []string{
			"line 12: mapping: the rule for ticket field custom.Level has no to, so that values, default and transform have no effect; add to or remove them",
		}},
		{"unmapped", rule(mapping.FieldRule{From: "custom.Level", To: "custom.Tier", Unmapped: "keep"}), []string{
			`line 12: mapping: unmapped is "keep"; it can be pass, note, block or drop`,
		}},
		{"a word for a person", rule(mapping.FieldRule{From: "custom.Level", To: "assignee"}), []string{
			"line 12: mapping: ticket field custom.Level holds plain values and ticket field assignee holds people; one cannot fill the other",
		}},
		{"a constant person", rule(mapping.FieldRule{To: "assignee", Default: "jo"}), []string{
			"line 12: mapping: ticket field assignee points at a person and cannot have a default; people without a match follow people.fallback",
		}},
		{"values for people", rule(mapping.FieldRule{From: "assignee", To: "requester", Transform: "lower"}), []string{
			"line 12: mapping: ticket field assignee holds people, which follow the records themselves; remove values, default and transform (people are mapped under people.map)",
		}},
		{"two rules for one field", with(func(r *mapping.Rules) {
			r.Fields[desk.Ticket] = append(r.Fields[desk.Ticket], mapping.FieldRule{From: "priority", To: "custom.Tier", Line: 13})
		}), []string{
			"line 13: mapping: ticket field custom.Tier is filled by the rule in line 12 already; a field of the target has one rule",
		}},
		{"required and taken elsewhere", rule(mapping.FieldRule{From: "status", To: "custom.Tier"}), []string{
			"line 2: mapping: the target requires ticket field status and nothing fills it; add a rule with to: status and a from or a default",
		}},
		{"required and not in the source", with(func(r *mapping.Rules) { r.Fields[desk.Person] = nil }), []string{
			"line 2: mapping: the target requires person field name and nothing fills it; add a rule with to: name and a from or a default",
		}},
		{"group of the target", with(func(r *mapping.Rules) { r.Groups = map[string]string{"a": "Genral"} }), []string{
			`line 30: mapping: "Genral" is not among the target's options for ticket field group (did you mean "General"?); they are General, Accounts, Sales`,
		}},
		{"group to nothing", with(func(r *mapping.Rules) { r.Groups = map[string]string{"a": ""} }), []string{
			`line 30: mapping: the group "a" is mapped to nothing; name a group of the target`,
		}},
		{"group default", with(func(r *mapping.Rules) { r.GroupDefault = "None" }), []string{
			`line 30: mapping: "None" is not among the target's options for ticket field group; they are General, Accounts, Sales`,
		}},
		{"groups unmapped", with(func(r *mapping.Rules) { r.GroupsUnmapped = mapping.Drop }), []string{
			`line 30: mapping: groups_unmapped is "drop"; it can be pass or block`,
		}},
		{"group twice", with(func(r *mapping.Rules) {
			r.GroupDefault = "General"
			r.Fields[desk.Ticket] = append(r.Fields[desk.Ticket], mapping.FieldRule{From: "group", To: "group", Line: 13})
		}), []string{
			"line 13: mapping: the group has a rule here and is mapped by groups, too; keep one of them",
		}},
		{"people", with(func(r *mapping.Rules) {
			r.People.Unmatched, r.People.Map = "fallback", map[string]string{"a": ""}
		}), []string{
			"line 40: mapping: people.unmatched is fallback and people.fallback names nobody; give the id or e-mail address of a person in the target",
			`line 40: mapping: people.map names nobody for "a"; give the id or e-mail address of a person in the target`,
		}},
		{"unmatched", with(func(r *mapping.Rules) { r.People.Unmatched = "skip" }), []string{
			`line 40: mapping: people.unmatched is "skip"; it can be create, fallback or block`,
		}},
		{"all unmapped", with(func(r *mapping.Rules) { r.Unmapped = mapping.Drop }), []string{
			`line 2: mapping: unmapped is "drop"; it can be pass, note or block`,
		}},
		{"kind", with(func(r *mapping.Rules) { r.Fields["queue"] = nil }), []string{
			`line 2: mapping: there are no records of kind "queue"; there are company, person and ticket`,
		}},
		{"no line", with(func(r *mapping.Rules) { r.Unmapped, r.Line = mapping.Drop, 0 }), []string{
			`mapping: unmapped is "drop"; it can be pass, note or block`,
		}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, err := range tc.rules.Check(source, target()) {
				var m *mapping.Mistake
				if !errors.As(err, &m) {
					t.Fatalf("%T is no *Mistake", err)
				}
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestCheckWithoutDefinitions proves that a desk that tells nothing of itself is not held against the rules.
func TestCheckWithoutDefinitions(t *testing.T) {
	r := ticketRules(
		mapping.FieldRule{From: "custom.a", To: "custom.b", Values: map[string]string{"x": "y"}, Line: 3},
		mapping.FieldRule{From: "custom.a", To: "custom.c", Line: 4}, // one field to two is no mistake
		mapping.FieldRule{From: "custom.a", Unmapped: mapping.Note, Line: 5},
		mapping.FieldRule{From: "custom.d", Unmapped: mapping.Drop, Line: 6},
	)
	if errs := r.Check(desk.Definitions{}, desk.Definitions{}); errs != nil {
		t.Error(errs)
	}
}

func TestKnownField(t *testing.T) {
	for _, f := range append(mapping.KnownFields(), "custom.Cost centre", "custom.x  y") {
		if _, ok := mapping.KnownField(f); !ok {
			t.Errorf("%q is no field", f)
		}
	}
	for f, want := range map[desk.Field]string{"": "", "custom.": "", "custom. x": "", "custom.a\nb": "", "zebra": "", "descripton": ` (did you mean "description"?)`} {
		if near, ok := mapping.KnownField(f); ok || near != want {
			t.Errorf("%q: %v, near %q, want %q", f, ok, near, want)
		}
	}
}

// TestLongLists proves that a field with thousands of options makes no message of thousands of words.
func TestLongLists(t *testing.T) {
	var options []string
	for i := range 1000 {
		options = append(options, fmt.Sprintf("option %d", i))
	}
	defs := desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{desk.Ticket: {{Field: "type", Options: options}}}}
	errs := ticketRules(mapping.FieldRule{To: "type", Default: "none", Line: 3}).Check(desk.Definitions{}, defs)
	if len(errs) != 1 || !strings.HasSuffix(errs[0].Error(), "option 19 and 980 more") {
		t.Error(errs)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"create", "update", "status", "custom.Cost centre", "url"}
	for word, want := range map[string]string{
		"craete": "create", "STATUS": "status", "stat": "status", "custom.Cost center": "custom.Cost centre", "uri": "url",
		"zebra": "", "": "", strings.Repeat("x", 1000): "",
	} {
		if got := mapping.Nearest(word, names); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got); run with -update after looking at it:\n%s", path, diff)
	}
}

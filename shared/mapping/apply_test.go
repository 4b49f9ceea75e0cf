package mapping_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// target is a desk with a few fields of each sort.
func target() desk.Definitions {
	return desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{
		desk.Ticket: {
			{Field: desk.Subject, Write: desk.Always, Required: true, Max: 10},
			{Field: desk.Status, Write: desk.Always, Required: true, Options: []string{"new", "open", "resolved"}},
			{Field: desk.Priority, Write: desk.Always, Options: []string{"low", "high"}},
			{Field: desk.Group, Write: desk.Always, Required: true, Options: []string{"General", "Accounts", "Sales"}},
			{Field: desk.Requester, Write: desk.Always},
			{Field: desk.Assignee, Write: desk.Always},
			{Field: desk.Tags, Write: desk.Always, Many: true},
			{Field: desk.Created, Write: desk.OnCreate},
			{Field: desk.Resolved, Write: desk.Never},
			{Field: desk.LinkParent, Write: desk.Always},
			{Field: desk.Custom("Tier"), Write: desk.Always, Many: true, Options: []string{"gold", "silver"}},
			{Field: desk.Custom("Note"), Write: desk.Always, Max: 5},
		},
		desk.Person: {
			{Field: desk.Name, Write: desk.Always, Required: true},
			{Field: desk.Email, Write: desk.Always},
		},
	}}
}

func ticket(fields desk.Fields) desk.Record {
	return desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "42"}, Fields: fields}
}

func ticketRules(rules ...mapping.FieldRule) mapping.Rules {
	return mapping.Rules{Fields: map[desk.Kind][]mapping.FieldRule{desk.Ticket: rules}}
}

func TestApply(t *testing.T) {
	noted := func(f desk.Field) desk.Loss {
		return desk.Loss{Class: mapping.LossNoted, What: string(f), Kept: "note"}
	}
	shortened := func(f desk.Field) desk.Loss {
		return desk.Loss{Class: mapping.LossShortened, What: string(f), Kept: "note"}
	}
	unmapped := func(f desk.Field) desk.Loss {
		return desk.Loss{Class: mapping.LossUnmapped, What: string(f)}
	}
	open := mapping.FieldRule{From: "status", To: "status", Values: map[string]string{"o": "open", "n": "new"}}
	with := func(r mapping.FieldRule, change func(*mapping.FieldRule)) mapping.FieldRule { change(&r); return r }

	tests := []struct {
		name     string
		rules    mapping.Rules
		anything bool // the target has no definitions
		in       desk.Record
		want     desk.Fields
		noted    []mapping.Noted
		losses   []desk.Loss
		problems []mapping.Problem
	}{
		{
			name: "a field without a rule passes where the target has it",
			in:   ticket(desk.Fields{"subject": {"Hi"}, "priority": {"low"}, "created": {"2026-01-01T00:00:00Z"}}),
			want: desk.Fields{"subject": {"Hi"}, "priority": {"low"}, "created": {"2026-01-01T00:00:00Z"}},
		},
		{
			name:   "a field that the target has not is noted",
			in:     ticket(desk.Fields{"channel": {"phone"}, "custom.Cost": {"1", "2"}}),
			want:   desk.Fields{},
			noted:  []mapping.Noted{{Field: "channel", Value: desk.Value{"phone"}}, {Field: "custom.Cost", Value: desk.Value{"1", "2"}}},
			losses: []desk.Loss{noted("channel"), noted("custom.Cost")},
		},
		{
			name:   "a field that cannot be written is noted",
			in:     ticket(desk.Fields{"resolved": {"2026-01-01T00:00:00Z"}}),
			want:   desk.Fields{},
			noted:  []mapping.Noted{{Field: "resolved", Value: desk.Value{"2026-01-01T00:00:00Z"}}},
			losses: []desk.Loss{noted("resolved")},
		},
		{
			name:     "a field that the target has not is a problem with block",
			rules:    mapping.Rules{Unmapped: mapping.Block},
			in:       ticket(desk.Fields{"channel": {"phone"}}),
			want:     desk.Fields{},
			problems: []mapping.Problem{{Field: "channel", Why: "the target has no field for it"}},
		},
		{
			name:  "an unset field without a home leaves nothing behind",
			rules: mapping.Rules{Unmapped: mapping.Block},
			in:    ticket(desk.Fields{"channel": {}}),
			want:  desk.Fields{},
		},
		{
			name: "unset stays unset",
			in:   ticket(desk.Fields{"priority": nil}),
			want: desk.Fields{"priority": nil},
		},
		{
			name:   "a value that is no option is noted and the field unset",
			in:     ticket(desk.Fields{"priority": {"urgent"}}),
			want:   desk.Fields{"priority": nil},
			noted:  []mapping.Noted{{Field: "priority", Value: desk.Value{"urgent"}}},
			losses: []desk.Loss{noted("priority")},
		},
		{
			name:     "a required field cannot be noted away",
			in:       ticket(desk.Fields{"status": {"odd"}}),
			want:     desk.Fields{"status": nil},
			noted:    []mapping.Noted{{Field: "status", Value: desk.Value{"odd"}}},
			losses:   []desk.Loss{noted("status")},
			problems: []mapping.Problem{{Field: "status", Why: "the target requires status, and no value of the source has a home there"}},
		},
		{
			name:     "everything passes where the target tells nothing",
			anything: true,
			in:       ticket(desk.Fields{"channel": {"phone"}, "custom.Cost": {"1", "2"}, "subject": {strings.Repeat("x", 999)}}),
			want:     desk.Fields{"channel": {"phone"}, "custom.Cost": {"1", "2"}, "subject": {strings.Repeat("x", 999)}},
		},
		{
			name:  "values",
			rules: ticketRules(open),
			in:    ticket(desk.Fields{"status": {"o"}}),
			want:  desk.Fields{"status": {"open"}},
		},
		{
			name:  "a value outside values passes where the target accepts it",
			rules: ticketRules(open),
			in:    ticket(desk.Fields{"status": {"resolved"}}),
			want:  desk.Fields{"status": {"resolved"}},
		},
		{
			name:     "a value outside values blocks with block",
			rules:    ticketRules(with(open, func(r *mapping.FieldRule) { r.Unmapped = mapping.Block })),
			in:       ticket(desk.Fields{"status": {"resolved"}}),
			want:     desk.Fields{"status": nil},
			problems: []mapping.Problem{{Field: "status", Why: "a value is not among the values of the rule"}},
		},
		{
			name:   "a value outside values is noted and the default stands in",
			rules:  ticketRules(with(open, func(r *mapping.FieldRule) { r.Unmapped, r.Default = mapping.Note, "new" })),
			in:     ticket(desk.Fields{"status": {"resolved"}}),
			want:   desk.Fields{"status": {"new"}},
			noted:  []mapping.Noted{{Field: "status", Value: desk.Value{"resolved"}}},
			losses: []desk.Loss{noted("status")},
		},
		{
			name:   "a value outside values is dropped and counted",
			rules:  ticketRules(mapping.FieldRule{From: "priority", To: "priority", Values: map[string]string{"1": "low"}, Unmapped: mapping.Drop}),
			in:     ticket(desk.Fields{"priority": {"9"}}),
			want:   desk.Fields{"priority": nil},
			losses: []desk.Loss{unmapped("priority")},
		},
		{
			name:  "a value mapped to nothing",
			rules: ticketRules(mapping.FieldRule{From: "priority", To: "priority", Values: map[string]string{"none": ""}}),
			in:    ticket(desk.Fields{"priority": {"none"}}),
			want:  desk.Fields{"priority": nil},
		},
		{
			name:  "the default where the source has none, unset or not told",
			rules: ticketRules(mapping.FieldRule{From: "priority", To: "priority", Default: "low"}, mapping.FieldRule{From: "type", To: "custom.Tier", Default: "gold"}),
			in:    ticket(desk.Fields{"priority": nil}),
			want:  desk.Fields{"priority": {"low"}, "custom.Tier": {"gold"}},
		},
		{
			name:  "a constant takes the place of the source's field",
			rules: ticketRules(mapping.FieldRule{To: "priority", Default: "low"}),
			in:    ticket(desk.Fields{"priority": {"high"}}),
			want:  desk.Fields{"priority": {"low"}},
			noted: []mapping.Noted{{Field: "priority", Value: desk.Value{"high"}}}, losses: []desk.Loss{noted("priority")},
		},
		{
			name:  "a field that was not told is not unset",
			rules: ticketRules(mapping.FieldRule{From: "type", To: "priority"}),
			in:    ticket(desk.Fields{}),
			want:  desk.Fields{},
		},
		{
			name:  "transform comes before values",
			rules: ticketRules(with(open, func(r *mapping.FieldRule) { r.Transform = "lower" })),
			in:    ticket(desk.Fields{"status": {"O"}}),
			want:  desk.Fields{"status": {"open"}},
		},
		{
			name:   "a transform that makes nothing of a value does not lose it",
			rules:  ticketRules(mapping.FieldRule{From: "custom.Ext", To: "custom.Note", Transform: "digits"}),
			in:     ticket(desk.Fields{"custom.Ext": {"none"}}),
			want:   desk.Fields{"custom.Note": nil},
			noted:  []mapping.Noted{{Field: "custom.Ext", Value: desk.Value{"none"}}},
			losses: []desk.Loss{noted("custom.Ext")},
		},
		{
			name:     "a transform that there is not",
			rules:    ticketRules(mapping.FieldRule{From: "priority", To: "priority", Transform: "none", Unmapped: mapping.Block}),
			in:       ticket(desk.Fields{"priority": {"low"}}),
			want:     desk.Fields{"priority": nil},
			problems: []mapping.Problem{{Field: "priority", Why: "its rule names a transform that there is not"}},
		},
		{
			name: "one field to two",
			rules: ticketRules(mapping.FieldRule{From: "type", To: "priority", Values: map[string]string{"a": "low"}},
				mapping.FieldRule{From: "type", To: "custom.Tier", Values: map[string]string{"a": "gold"}}),
			in:   ticket(desk.Fields{"type": {"a"}}),
			want: desk.Fields{"priority": {"low"}, "custom.Tier": {"gold"}},
		},
		{
			name:   "note and drop without to",
			rules:  ticketRules(mapping.FieldRule{From: "priority", Unmapped: mapping.Note}, mapping.FieldRule{From: "custom.Note", Unmapped: mapping.Drop}),
			in:     ticket(desk.Fields{"priority": {"low"}, "custom.Note": {"x"}}),
			want:   desk.Fields{},
			noted:  []mapping.Noted{{Field: "priority", Value: desk.Value{"low"}}},
			losses: []desk.Loss{unmapped("custom.Note"), noted("priority")},
		},
		{
			name:  "sets are mapped element-wise, sorted, without doubles",
			rules: ticketRules(mapping.FieldRule{From: "tags", To: "tags", Transform: "slug", Values: map[string]string{"vip": "a"}}),
			in:    ticket(desk.Fields{"tags": {"VIP", "big bug", "vip", "z"}}),
			want:  desk.Fields{"tags": {"a", "big-bug", "z"}},
		},
		{
			name:   "of a set only what has no home is noted",
			in:     ticket(desk.Fields{"custom.Tier": {"bronze", "gold", "tin"}}),
			want:   desk.Fields{"custom.Tier": {"gold"}},
			noted:  []mapping.Noted{{Field: "custom.Tier", Value: desk.Value{"bronze", "tin"}}},
			losses: []desk.Loss{noted("custom.Tier")},
		},
		{
			name:   "of a list that the target cannot hold the first one goes, and all are noted",
			rules:  ticketRules(mapping.FieldRule{From: "tags", To: "custom.Note"}),
			in:     ticket(desk.Fields{"tags": {"a", "b"}}),
			want:   desk.Fields{"custom.Note": {"a"}},
			noted:  []mapping.Noted{{Field: "tags", Value: desk.Value{"a", "b"}}},
			losses: []desk.Loss{shortened("tags")},
		},
		{
			name:   "a long subject is cut and noted whole",
			in:     ticket(desk.Fields{"subject": {"Grüße aus Köln"}}),
			want:   desk.Fields{"subject": {"Grüße aus…"}},
			noted:  []mapping.Noted{{Field: "subject", Value: desk.Value{"Grüße aus Köln"}}},
			losses: []desk.Loss{shortened("subject")},
		},
		{
			name:   "a cut does not take a letter from its accent",
			in:     ticket(desk.Fields{"subject": {"12345678e\u0301 and more"}}),
			want:   desk.Fields{"subject": {"12345678…"}},
			noted:  []mapping.Noted{{Field: "subject", Value: desk.Value{"12345678e\u0301 and more"}}},
			losses: []desk.Loss{shortened("subject")},
		},
		{
			name:     "a rule that only blocks",
			rules:    ticketRules(mapping.FieldRule{From: "type", Unmapped: mapping.Block}),
			in:       ticket(desk.Fields{"type": {"a", "b"}}),
			want:     desk.Fields{},
			problems: []mapping.Problem{{Field: "type", Why: "the target has no field for it"}},
		},
		{
			name:   "a cut does not take a picture apart",
			in:     ticket(desk.Fields{"subject": {"1234567\U0001F468\u200d\U0001F469\u200d\U0001F467"}}),
			want:   desk.Fields{"subject": {"1234567…"}},
			noted:  []mapping.Noted{{Field: "subject", Value: desk.Value{"1234567\U0001F468\u200d\U0001F469\u200d\U0001F467"}}},
			losses: []desk.Loss{shortened("subject")},
		},
		{
			name: "a subject of just the right length",
			in:   ticket(desk.Fields{"subject": {"ÄÖÜäöüß123"}}),
			want: desk.Fields{"subject": {"ÄÖÜäöüß123"}},
		},
		{
			name:   "another long value is noted, not cut",
			in:     ticket(desk.Fields{"custom.Note": {"123456"}}),
			want:   desk.Fields{"custom.Note": nil},
			noted:  []mapping.Noted{{Field: "custom.Note", Value: desk.Value{"123456"}}},
			losses: []desk.Loss{noted("custom.Note")},
		},
		{
			name:  "ids are left alone",
			rules: ticketRules(mapping.FieldRule{From: "assignee", To: "requester", Transform: "upper", Values: map[string]string{"x": "y"}, Unmapped: mapping.Block}),
			in:    ticket(desk.Fields{"assignee": {"x", "b"}, "link.parent": {"9", "1", "https://x"}}),
			want:  desk.Fields{"requester": {"x", "b"}, "link.parent": {"9", "1", "https://x"}},
		},
		{
			name:   "people of a field that the target has not are noted by id",
			in:     ticket(desk.Fields{"followers": {"7"}}),
			want:   desk.Fields{},
			noted:  []mapping.Noted{{Field: "followers", Value: desk.Value{"7"}}},
			losses: []desk.Loss{noted("followers")},
		},
		{
			name:  "a group by name",
			rules: mapping.Rules{Groups: map[string]string{"Support": "General"}},
			in:    ticket(desk.Fields{"group": {"Support"}}),
			want:  desk.Fields{"group": {"General"}},
		},
		{
			name:  "a group that is not listed passes",
			rules: mapping.Rules{Groups: map[string]string{"Support": "General"}},
			in:    ticket(desk.Fields{"group": {"Accounts"}}),
			want:  desk.Fields{"group": {"Accounts"}},
		},
		{
			name:   "a group that is not listed goes to the default, its name to the note",
			rules:  mapping.Rules{Groups: map[string]string{"Support": "General"}, GroupDefault: "Sales", GroupsUnmapped: mapping.Block},
			in:     ticket(desk.Fields{"group": {"Accounts"}}),
			want:   desk.Fields{"group": {"Sales"}},
			noted:  []mapping.Noted{{Field: "group", Value: desk.Value{"Accounts"}}},
			losses: []desk.Loss{noted("group")},
		},
		{
			name:   "the default alone",
			rules:  mapping.Rules{GroupDefault: "Sales"},
			in:     ticket(desk.Fields{"group": {"General"}}),
			want:   desk.Fields{"group": {"Sales"}},
			noted:  []mapping.Noted{{Field: "group", Value: desk.Value{"General"}}},
			losses: []desk.Loss{noted("group")},
		},
		{
			name:  "the default where there is no group",
			rules: mapping.Rules{GroupDefault: "Sales"},
			in:    ticket(desk.Fields{"subject": {"a"}}),
			want:  desk.Fields{"subject": {"a"}, "group": {"Sales"}},
		},
		{
			name:     "a group that is not listed blocks",
			rules:    mapping.Rules{Groups: map[string]string{"Support": "General"}, GroupsUnmapped: mapping.Block},
			in:       ticket(desk.Fields{"group": {"General"}}),
			want:     desk.Fields{"group": nil},
			problems: []mapping.Problem{{Field: "group", Why: "a value is not among the values of the rule"}},
		},
		{
			name:     "without a list every group blocks",
			rules:    mapping.Rules{GroupsUnmapped: mapping.Block},
			in:       ticket(desk.Fields{"group": {"General"}}),
			want:     desk.Fields{"group": nil},
			problems: []mapping.Problem{{Field: "group", Why: "a value is not among the values of the rule"}},
		},
		{
			name:     "a group that the target has not is a problem",
			rules:    mapping.Rules{Groups: map[string]string{"Support": "General"}},
			in:       ticket(desk.Fields{"group": {"Unknown"}}),
			want:     desk.Fields{"group": nil},
			noted:    []mapping.Noted{{Field: "group", Value: desk.Value{"Unknown"}}},
			losses:   []desk.Loss{noted("group")},
			problems: []mapping.Problem{{Field: "group", Why: "the target requires group, and no value of the source has a home there"}},
		},
		{
			name:   "a person has no thread for a note",
			in:     desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: "7"}, Fields: desk.Fields{"name": {"Jo"}, "email": {"a@x", "b@x"}, "locale": {"de"}, "group": {"x"}}},
			rules:  mapping.Rules{GroupDefault: "Sales"},
			want:   desk.Fields{"name": {"Jo"}, "email": {"a@x"}},
			noted:  []mapping.Noted{{Field: "email", Value: desk.Value{"a@x", "b@x"}}, {Field: "group", Value: desk.Value{"x"}}, {Field: "locale", Value: desk.Value{"de"}}},
			losses: []desk.Loss{{Class: mapping.LossShortened, What: "email"}, unmapped("group"), unmapped("locale")},
		},
		{
			name: "a kind of which the target tells nothing",
			in:   desk.Record{Ref: desk.Ref{Kind: desk.Company, ID: "7"}, Fields: desk.Fields{"name": {"Acme"}, "custom.x": {"y"}}},
			want: desk.Fields{"name": {"Acme"}, "custom.x": {"y"}},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			defs := target()
			if tc.anything {
				defs = desk.Definitions{}
			}
			got := tc.rules.Apply(tc.in, defs)
			want := mapping.Result{Record: tc.in, Noted: tc.noted, Losses: tc.losses, Problems: tc.problems}
			want.Record.Fields = tc.want
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestApplyKeepsTheRest proves that whatever is no field passes, and that the result shares nothing that grows or is set.
func TestApplyKeepsTheRest(t *testing.T) {
	in := ticket(desk.Fields{"tags": {"b", "a"}, "cc": {"2", "1"}})
	in.URL, in.Lock, in.Event = "https://x", "l", desk.Changed
	in.Began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	in.Entries = []desk.Entry{{ID: "1", Body: "b", Files: []desk.File{{ID: "f"}}}}
	in.History = []desk.StatusChange{{Before: "new", After: "open"}}
	in.Aliases = []string{"41"}
	before, _ := json.Marshal(in)

	got := mapping.Rules{}.Apply(in, desk.Definitions{}).Record
	want := in
	want.Fields = desk.Fields{"tags": {"a", "b"}, "cc": {"2", "1"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	got.Fields["x"] = desk.Value{"y"}
	got.Fields["cc"][0] = "changed"
	got.Entries[0].Body = "changed"
	got.History[0].After = "changed"
	got.Aliases[0] = "changed"
	if after, _ := json.Marshal(in); string(after) != string(before) {
		t.Errorf("the input changed:\n%s\n%s", before, after)
	}
}

func TestEveryLossClassIsExplained(t *testing.T) {
	for _, c := range []string{mapping.LossNoted, mapping.LossShortened, mapping.LossUnmapped} {
		if mapping.LossClasses()[c] == "" {
			t.Error(c)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add("status", "status", "Open", "open", "open", "new", "lower", "block", "note")
	f.Add("subject", "subject", "A very long subject indeed", "", "", "", "", "", "pass")
	f.Add("subject", "subject", "e\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301", "", "", "", "", "", "")
	f.Add("tags", "custom.Tier", "gold|x|y", "x", "silver", "gold", "slug", "drop", "block")
	f.Add("assignee", "requester", "7|8", "7", "9", "", "upper", "note", "")
	f.Add("custom.a", "", "x", "", "", "", "", "drop", "")
	f.Add("", "priority", "", "", "", "low", "", "", "block")
	f.Add("created", "custom.Note", "2026-01-01T00:00:00Z", "", "", "", "date", "", "")
	f.Add("group", "group", "a\xff|\u200d|", "a", "", "", "digits", "pass", "pass")
	f.Fuzz(func(t *testing.T, from, to, values, key, value, def, transform, unmapped, all string) {
		in := ticket(desk.Fields{
			desk.Status: {"open"}, desk.Custom("other"): {values + "!"},
		})
		if from != "" {
			in.Fields[desk.Field(from)] = desk.Text(strings.Split(values, "|")...)
		}
		in.Entries = []desk.Entry{{ID: "1", Body: values}}
		before, _ := json.Marshal(in)
		r := ticketRules(mapping.FieldRule{
			From: desk.Field(from), To: desk.Field(to), Default: def, Transform: transform, Unmapped: mapping.Unmapped(unmapped),
			Values: map[string]string{key: value},
		})
		r.Unmapped = mapping.Unmapped(all)
		r.Check(target(), target())
		r.Hash()
		for _, defs := range []desk.Definitions{target(), {}} {
			got := r.Apply(in, defs)
			again := r.Apply(in, defs)
			if diff := cmp.Diff(got, again); diff != "" {
				t.Fatalf("two answers:\n%s", diff)
			}
			if after, _ := json.Marshal(in); string(after) != string(before) {
				t.Fatal("the input changed")
			}
			for f, v := range got.Record.Fields {
				d, ok := defs.Field(desk.Ticket, f)
				if len(defs.Fields) > 0 && (!ok || d.Write == desk.Never) {
					t.Fatalf("field %q, which cannot be written", f)
				}
				if f.Points() != "" || f == desk.Field(to) && slices.Contains(v, def) {
					continue // what the engine translates, and what Check reports
				}
				for _, s := range v {
					if s == "" || len(d.Options) > 0 && !slices.Contains(d.Options, s) || d.Max > 0 && len([]rune(s)) > d.Max {
						t.Fatalf("field %q holds %q", f, s)
					}
				}
			}
			// A value is somewhere: in a field, in the note, among the losses or the problems.
			for f, v := range in.Fields {
				mapped := f == desk.Field(from) && (len(got.Record.Fields[desk.Field(to)]) > 0 || value == "")
				blank := strings.TrimSpace(strings.Join(v, "")) == ""
				if !mapped && !blank && !desk.Set(got.Record.Fields[f]...).Equal(desk.Set(v...)) &&
					!slices.ContainsFunc(got.Noted, func(n mapping.Noted) bool { return n.Field == f }) &&
					!slices.ContainsFunc(got.Losses, func(l desk.Loss) bool { return l.What == string(f) }) &&
					!slices.ContainsFunc(got.Problems, func(p mapping.Problem) bool { return p.Field == f }) {
					t.Fatalf("field %q is lost", f)
				}
			}
			for _, p := range got.Problems {
				if len(values) > 20 && strings.Contains(p.Why, values) && !strings.Contains(to+transform, values) {
					t.Fatal("a value is in a problem")
				}
			}
			mapping.NoteBody(got.Noted)
		}
	})
}

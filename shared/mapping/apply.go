package mapping

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Apply maps one record. What it returns is for a target that has the given definitions; of a kind of which they say
// nothing, the target is taken to accept everything. It never changes rec.
//
// A field goes where its rules say. A field that no rule names keeps its name, where the target has a field of that name
// that can be written. A value that the target does not accept, and a field that it has not, follow the rule's and then the
// rules' Unmapped. A field of the target in which a value could have been and is not is unset, so that it does not depend
// on what the source held earlier. Entries and ids pass as they are.
func (r Rules) Apply(rec desk.Record, target desk.Definitions) Result {
	a := &applying{
		rules:  r,
		kind:   rec.Ref.Kind,
		target: target,
		out:    desk.Fields{},
		noted:  map[desk.Field]desk.Value{},
		losses: map[desk.Loss]bool{},
	}
	rules := r.fieldRules(a.kind)
	named, filled := map[desk.Field]bool{}, map[desk.Field]bool{}
	for _, rule := range rules {
		named[rule.From], filled[rule.To] = true, true
	}
	for _, rule := range rules {
		in, told := rec.Fields[rule.From]
		a.field(rule, in, told)
	}
	for _, f := range slices.Sorted(maps.Keys(rec.Fields)) {
		switch {
		case named[f]:
		case filled[f]:
			a.field(FieldRule{From: f}, rec.Fields[f], true) // another field of the source has taken its place
		default:
			a.field(FieldRule{From: f, To: f}, rec.Fields[f], true)
		}
	}

	rec.Fields = a.out
	rec.Entries = slices.Clone(rec.Entries)
	rec.History = slices.Clone(rec.History)
	rec.Aliases = slices.Clone(rec.Aliases)
	return Result{Record: rec, Noted: a.notes(), Losses: a.sortedLosses(), Problems: a.problems}
}

// fieldRules returns the rules for the fields of a kind, the one for groups among them.
func (r Rules) fieldRules(k desk.Kind) []FieldRule {
	rules := r.Fields[k]
	if k != desk.Ticket || len(r.Groups) == 0 && r.GroupDefault == "" && r.GroupsUnmapped != Block {
		return rules
	}
	g := FieldRule{
		From: desk.Group, To: desk.Group, Values: r.Groups, Default: r.GroupDefault, Unmapped: r.GroupsUnmapped, Line: r.GroupsLine,
	}
	if r.GroupDefault != "" {
		g.Unmapped = Note
	}
	if len(g.Values) == 0 && g.Unmapped != Pass && g.Unmapped != "" {
		g.Values = map[string]string{"": ""} // no group is mapped, which is not the same as a rule without values
	}
	return append(slices.Clip(slices.Clone(rules)), g)
}

// applying is one call of Apply.
type applying struct {
	rules    Rules
	kind     desk.Kind
	target   desk.Definitions
	out      desk.Fields
	noted    map[desk.Field]desk.Value
	losses   map[desk.Loss]bool
	problems []Problem
}

// field carries out one rule. told says whether the source told the field at all.
func (a *applying) field(rule FieldRule, in desk.Value, told bool) {
	def, has := a.definition(rule.To)
	if rule.To == "" || !has {
		for _, v := range in {
			a.homeless(rule, v, "the target has no field for it")
		}
		return
	}
	var out desk.Value
	refused := false
	for _, v := range in {
		w, why := a.value(rule, v, def)
		switch {
		case why != "":
			a.homeless(rule, v, why)
			refused = true
		case w != "" && !slices.Contains(out, w):
			out = append(out, w)
		}
	}
	if len(out) == 0 && rule.Default != "" {
		out = desk.Value{rule.Default}
	}
	reported := slices.ContainsFunc(a.problems, func(p Problem) bool { return p.Field == rule.From })
	if len(out) == 0 && refused && def.Required && !reported {
		a.problem(rule, "the target requires "+string(rule.To)+", and no value of the source has a home there")
	}
	plain := rule.From.Points() == "" && rule.To.Points() == ""
	if plain && rule.To.IsSet() {
		out = desk.Set(out...)
	}
	if plain && a.defined() && !def.Many && len(out) > 1 {
		a.note(rule.From, in...)
		a.lose(LossShortened, rule.From, true)
		out = out[:1]
	}
	if told || len(out) > 0 {
		a.out[rule.To] = out
	}
}

// value maps one value for the field that def describes, or says why it has no home there. An empty value with an empty
// reason is one that the rule turns into nothing.
func (a *applying) value(rule FieldRule, v string, def desk.FieldDef) (mapped, why string) {
	if rule.From.Points() != "" || rule.To.Points() != "" {
		return v, ""
	}
	w := v
	if rule.Transform != "" {
		t, ok := Transforms[rule.Transform]
		if !ok {
			return "", "its rule names a transform that there is not"
		}
		if w = t.Do(v); w == "" {
			if strings.TrimSpace(v) == "" {
				return "", ""
			}
			return "", "the transform " + rule.Transform + " makes nothing of a value"
		}
	}
	if len(rule.Values) > 0 {
		mapped, ok := rule.Values[w]
		switch {
		case ok && mapped == "":
			return "", ""
		case ok:
			w = mapped
		case rule.Unmapped != Pass && rule.Unmapped != "":
			return "", "a value is not among the values of the rule"
		}
	}
	if len(def.Options) > 0 && !slices.Contains(def.Options, w) {
		return "", "a value is not among the target's options for " + string(rule.To)
	}
	if def.Max > 0 && utf8.RuneCountInString(w) > def.Max {
		if !prose(rule.To) {
			return "", fmt.Sprintf("a value is longer than the target's %d characters for %s", def.Max, rule.To)
		}
		a.note(rule.From, v)
		a.lose(LossShortened, rule.From, true)
		w = cut(w, def.Max)
	}
	return w, ""
}

// prose tells whether a field's value may be cut: it is read, and nothing compares it.
func prose(f desk.Field) bool { return f == desk.Subject || f == desk.Description }

// homeless does with a value that has no home in the target what the rules say.
func (a *applying) homeless(rule FieldRule, v, why string) {
	policy := rule.Unmapped
	if policy == "" || policy == Pass {
		policy = a.rules.Unmapped
	}
	switch policy {
	case Block:
		a.problem(rule, why)
	case Drop:
		a.lose(LossUnmapped, rule.From, false)
	default:
		a.note(rule.From, v)
		a.lose(LossNoted, rule.From, true)
	}
}

// defined tells whether the target says anything about the record's kind.
func (a *applying) defined() bool { return len(a.target.Fields[a.kind]) > 0 }

// definition returns what the target says of a field, and whether the field can be written.
func (a *applying) definition(f desk.Field) (desk.FieldDef, bool) {
	if !a.defined() {
		return desk.FieldDef{Field: f, Write: desk.Always}, true
	}
	def, ok := a.target.Field(a.kind, f)
	if _, own := f.CustomName(); !ok && own && a.target.Open {
		return desk.FieldDef{Field: f, Many: true, Write: desk.Always}, true
	}
	return def, ok && def.Write != desk.Never
}

func (a *applying) problem(rule FieldRule, why string) {
	p := Problem{Field: rule.From, Why: why}
	if !slices.Contains(a.problems, p) {
		a.problems = append(a.problems, p)
	}
}

func (a *applying) note(f desk.Field, vs ...string) {
	for _, v := range vs {
		if !slices.Contains(a.noted[f], v) {
			a.noted[f] = append(a.noted[f], v)
		}
	}
}

// lose records a loss. Only tickets have a thread that can keep a note.
func (a *applying) lose(class string, f desk.Field, noted bool) {
	l := desk.Loss{Class: class, What: string(f)}
	switch {
	case noted && a.kind == desk.Ticket:
		l.Kept = "note"
	case class == LossNoted:
		l.Class = LossUnmapped
	}
	a.losses[l] = true
}

func (a *applying) notes() []Noted {
	var out []Noted
	for _, f := range slices.Sorted(maps.Keys(a.noted)) {
		out = append(out, Noted{Field: f, Value: a.noted[f]})
	}
	return out
}

func (a *applying) sortedLosses() []desk.Loss {
	return slices.SortedFunc(maps.Keys(a.losses), func(l, m desk.Loss) int {
		return strings.Compare(l.What+"\x00"+l.Class, m.What+"\x00"+m.Class)
	})
}

package mapping

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Mistake is something wrong with the rules, for the people who wrote them.
type Mistake struct {
	Line    int // in the migration file; 0 where the mapping is missing from it
	Message string
}

// Error returns "line 12: mapping: …".
func (m *Mistake) Error() string {
	if m.Line == 0 {
		return "mapping: " + m.Message
	}
	return fmt.Sprintf("line %d: mapping: %s", m.Line, m.Message)
}

// Check returns every mistake in the rules, each a *Mistake, in the order of the file. A side of which nothing is known has
// empty definitions; with both empty, Check finds what is wrong whatever the desks are.
func (r Rules) Check(source, target desk.Definitions) []error {
	c := &checking{rules: r, source: source, target: target}
	for _, k := range desk.LoadOrder() {
		c.kind = k
		to := map[desk.Field]int{}
		for _, rule := range r.Fields[k] {
			c.rule(rule)
			if first, twice := to[rule.To]; twice && rule.To != "" {
				c.say(rule.Line, "%s is filled by the rule in line %d already; a field of the target has one rule", c.name(rule.To), first)
			} else {
				to[rule.To] = rule.Line
			}
		}
		c.required(to)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Fields)) {
		if !slices.Contains(desk.LoadOrder(), k) {
			c.say(r.Line, "there are no records of kind %q; there are company, person and ticket", k)
		}
	}
	c.groups()
	c.people()
	if !slices.Contains([]Unmapped{"", Pass, Note, Block}, r.Unmapped) {
		c.say(r.Line, "unmapped is %q; it can be pass, note or block", r.Unmapped)
	}
	slices.SortStableFunc(c.mistakes, func(a, b *Mistake) int { return a.Line - b.Line })
	var out []error
	for _, m := range c.mistakes {
		out = append(out, m)
	}
	return out
}

// checking is one call of Check.
type checking struct {
	rules          Rules
	source, target desk.Definitions
	kind           desk.Kind
	mistakes       []*Mistake
}

func (c *checking) say(line int, format string, args ...any) {
	c.mistakes = append(c.mistakes, &Mistake{Line: line, Message: fmt.Sprintf(format, args...)})
}

func (c *checking) name(f desk.Field) string { return fmt.Sprintf("%s field %s", c.kind, f) }

func (c *checking) rule(rule FieldRule) {
	if rule.From == "" && (rule.To == "" || rule.Default == "") {
		c.say(rule.Line, "the rule has no from; a rule without from needs to and default")
		return
	}
	if rule.To == "" && rule.Unmapped != Note && rule.Unmapped != Drop && rule.Unmapped != Block {
		c.say(rule.Line, "the rule for %s has no to; name a field of the target, or say unmapped: note, drop or block", c.name(rule.From))
	}
	if rule.To == "" && (rule.Default != "" || len(rule.Values) > 0 || rule.Transform != "") {
		c.say(rule.Line, "the rule for %s has no to, so that values, default and transform have no effect; add to or remove them", c.name(rule.From))
	}
	if !slices.Contains([]Unmapped{"", Pass, Note, Block, Drop}, rule.Unmapped) {
		c.say(rule.Line, "unmapped is %q; it can be pass, note, block or drop", rule.Unmapped)
	}
	if rule.Transform != "" {
		if _, ok := Transforms[rule.Transform]; !ok {
			names := slices.Sorted(maps.Keys(Transforms))
			c.say(rule.Line, "there is no transform %q%s; there are %s", rule.Transform, nearest(rule.Transform, names), strings.Join(names, ", "))
		}
	}
	fromOK := rule.From == "" || c.exists(rule.Line, "source", c.source, rule.From)
	toOK := rule.To == "" || c.exists(rule.Line, "target", c.target, rule.To)
	if fromOK && toOK {
		c.points(rule)
	}
	if def, ok := c.target.Field(c.kind, rule.To); ok {
		if def.Write == desk.Never {
			c.say(rule.Line, "%s cannot be written in the target; choose another field, or leave to out and say unmapped: note", c.name(rule.To))
		} else {
			c.values(rule.Line, def, rule.Values, rule.Default)
		}
	}
}

// exists reports a field that a side has not.
func (c *checking) exists(line int, side string, defs desk.Definitions, f desk.Field) bool {
	if near, ok := KnownField(f); !ok {
		c.say(line, "there is no field %q%s; a field of a desk's own making is written custom.NAME", f, near)
		return false
	}
	if len(defs.Fields[c.kind]) == 0 {
		return true
	}
	_, own := f.CustomName()
	if _, ok := defs.Field(c.kind, f); ok || own && defs.Open {
		return true
	}
	var names []string
	for _, def := range defs.Fields[c.kind] {
		names = append(names, string(def.Field))
	}
	slices.Sort(names)
	c.say(line, "the %s has no %s%s; it has %s", side, c.name(f), nearest(string(f), names), list(names))
	return false
}

// points reports rules that would take an id for a word, or a word for an id.
func (c *checking) points(rule FieldRule) {
	if rule.From == "" {
		if rule.To.Points() != "" {
			c.say(rule.Line, "%s points at a %s and cannot have a default; people without a match follow people.fallback", c.name(rule.To), rule.To.Points())
		}
		return
	}
	if rule.To != "" && rule.From.Points() != rule.To.Points() {
		c.say(rule.Line, "%s holds %s and %s holds %s; one cannot fill the other",
			c.name(rule.From), holds(rule.From), c.name(rule.To), holds(rule.To))
		return
	}
	if rule.From.Points() != "" && (len(rule.Values) > 0 || rule.Transform != "" || rule.Default != "") {
		c.say(rule.Line, "%s holds %s, which follow the records themselves; remove values, default and transform (people are mapped under people.map)",
			c.name(rule.From), holds(rule.From))
	}
}

func holds(f desk.Field) string {
	switch f.Points() {
	case desk.Person:
		return "people"
	case desk.Company:
		return "companies"
	case desk.Ticket:
		return "tickets"
	}
	return "plain values"
}

// values reports values that the target does not accept.
func (c *checking) values(line int, def desk.FieldDef, values map[string]string, defaultValue string) {
	bad := map[string]bool{}
	for _, from := range slices.Sorted(maps.Keys(values)) {
		bad[values[from]] = true
	}
	bad[defaultValue] = true
	delete(bad, "")
	for _, v := range slices.Sorted(maps.Keys(bad)) {
		if len(def.Options) > 0 && !slices.Contains(def.Options, v) {
			c.say(line, "%q is not among the target's options for %s%s; they are %s",
				v, c.name(def.Field), nearest(v, def.Options), list(def.Options))
		}
		if n := utf8.RuneCountInString(v); def.Max > 0 && n > def.Max {
			c.say(line, "%q has %d characters; the target allows %d for %s", v, n, def.Max, c.name(def.Field))
		}
	}
}

// required reports fields that the target requires and nothing fills. to holds the fields that rules fill.
func (c *checking) required(to map[desk.Field]int) {
	for _, def := range c.target.Fields[c.kind] {
		_, ruled := to[def.Field]
		_, same := c.source.Field(c.kind, def.Field)
		if c.kind == desk.Ticket && def.Field == desk.Group && c.rules.GroupDefault != "" {
			same = true
		}
		if !def.Required || def.Write == desk.Never || ruled || same && !c.taken(def.Field) || len(c.source.Fields[c.kind]) == 0 {
			continue
		}
		c.say(c.rules.Line, "the target requires %s and nothing fills it; add a rule with to: %s and a from or a default", c.name(def.Field), def.Field)
	}
}

// taken tells whether a rule takes the source's field elsewhere, so that it does not pass under its own name.
func (c *checking) taken(f desk.Field) bool {
	return slices.ContainsFunc(c.rules.Fields[c.kind], func(rule FieldRule) bool { return rule.From == f })
}

func (c *checking) groups() {
	c.kind = desk.Ticket
	r := c.rules
	if !slices.Contains([]Unmapped{"", Pass, Block}, r.GroupsUnmapped) {
		c.say(r.GroupsLine, "groups_unmapped is %q; it can be pass or block", r.GroupsUnmapped)
	}
	if len(r.Groups) == 0 && r.GroupDefault == "" && r.GroupsUnmapped == "" {
		return
	}
	for _, rule := range r.Fields[desk.Ticket] {
		if rule.From == desk.Group || rule.To == desk.Group {
			c.say(rule.Line, "the group has a rule here and is mapped by groups, too; keep one of them")
		}
	}
	for _, from := range slices.Sorted(maps.Keys(r.Groups)) {
		if r.Groups[from] == "" {
			c.say(r.GroupsLine, "the group %q is mapped to nothing; name a group of the target", from)
		}
	}
	if def, ok := c.target.Field(desk.Ticket, desk.Group); ok {
		c.values(r.GroupsLine, def, r.Groups, r.GroupDefault)
	}
}

func (c *checking) people() {
	p := c.rules.People
	switch p.Unmatched {
	case "", "create", "block":
	case "fallback":
		if p.Fallback == "" {
			c.say(p.Line, "people.unmatched is fallback and people.fallback names nobody; give the id or e-mail address of a person in the target")
		}
	default:
		c.say(p.Line, "people.unmatched is %q; it can be create, fallback or block", p.Unmatched)
	}
	for _, from := range slices.Sorted(maps.Keys(p.Map)) {
		if p.Map[from] == "" {
			c.say(p.Line, "people.map names nobody for %q; give the id or e-mail address of a person in the target", from)
		}
	}
}

// known are the fields that every desk shares.
var known = []desk.Field{
	desk.Name, desk.Email, desk.Phone, desk.Login, desk.ExternalID, desk.CompanyOf, desk.Role, desk.Active, desk.Locale,
	desk.TimeZone, desk.Address, desk.Description,
	desk.Subject, desk.Status, desk.Priority, desk.Type, desk.Group, desk.Requester, desk.Assignee, desk.CC, desk.Followers,
	desk.Tags, desk.Channel, desk.Created, desk.Started, desk.Resolved, desk.Due, desk.FirstDue, desk.TimeWorked,
	desk.TimeEstimated, desk.TimeLeft, desk.LinkParent, desk.LinkDependsOn, desk.LinkRefersTo,
}

// KnownFields returns the fields that every desk shares.
func KnownFields() []desk.Field { return slices.Clone(known) }

// KnownField tells whether f is a field that desks share or a custom field. Where it is neither, near asks whether the
// nearest one was meant, ready to follow the name in a message; it is empty where none is near.
func KnownField(f desk.Field) (near string, ok bool) {
	if name, custom := f.CustomName(); custom {
		return "", name != "" && strings.TrimSpace(name) == name && !strings.ContainsAny(name, "\r\n")
	}
	if slices.Contains(known, f) {
		return "", true
	}
	var names []string
	for _, k := range known {
		names = append(names, string(k))
	}
	return nearest(string(f), names), false
}

func nearest(word string, names []string) string {
	if n := Nearest(word, names); n != "" {
		return fmt.Sprintf(" (did you mean %q?)", n)
	}
	return ""
}

// list names at most 20 of names.
func list(names []string) string {
	if len(names) > 20 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:20], ", "), len(names)-20)
	}
	return strings.Join(names, ", ")
}

// Nearest returns the name that somebody who wrote word most likely meant, or "" where none is near.
func Nearest(word string, names []string) string {
	if len(word) > 100 {
		return ""
	}
	best, least := "", 1+max(1, utf8.RuneCountInString(word)/3)
	for _, n := range names {
		w, m := strings.ToLower(word), strings.ToLower(n)
		d := distance(w, m)
		if len(w) >= 3 && len(n) >= 3 && (strings.HasPrefix(w, m) || strings.HasPrefix(m, w)) {
			d = min(d, 1)
		}
		if d < least {
			best, least = n, d
		}
	}
	return best
}

// distance counts the letters to add, remove, replace or swap with their neighbour on the way from a to b.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	d := make([][]int, len(s)+1)
	for i := range d {
		d[i] = make([]int, len(t)+1)
		d[i][0] = i
	}
	for j := range t {
		d[0][j+1] = j + 1
	}
	for i := range s {
		for j := range t {
			cost := 1
			if s[i] == t[j] {
				cost = 0
			}
			d[i+1][j+1] = min(d[i][j+1]+1, d[i+1][j]+1, d[i][j]+cost)
			if i > 0 && j > 0 && s[i] == t[j-1] && s[i-1] == t[j] {
				d[i+1][j+1] = min(d[i+1][j+1], d[i-1][j-1]+1)
			}
		}
	}
	return d[len(s)][len(t)]
}

package boot

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

// The patterns are in the schema as well.
var (
	idPattern    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	emailPattern = regexp.MustCompile(`^[^@\s]+@[^@\s]+$`)
	sharePattern = regexp.MustCompile(`^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%$`)
)

func (d *decoder) file(n *node) *File {
	f := &File{}
	if n.is == nothing {
		d.say(n, "the file is empty; copy one of the examples in infra/migrations")
		return f
	}
	m := d.section(n, "file")
	d.need(n, m, "migration", "its id, such as acme, under which everything is kept")
	d.need(n, m, "owner", "name and e-mail address of who looks at the exceptions every day")
	d.need(n, m, "decider", "name and e-mail address of who may stop the migration and decides what is held")
	d.need(n, m, "source", "the desk that is read")
	d.need(n, m, "target", "the desk that is written to")
	d.need(n, m, "scopes", "what moves; `scopes: {all: {}}` is everything")

	f.Migration.ID = d.id(m["migration"])
	f.Owner = d.contact(m["owner"])
	f.Decider = d.contact(m["decider"])
	f.Source = d.desk(m["source"], "source", func(c desk.Connector) bool { return c.NewSource != nil })
	f.Target = d.desk(m["target"], "target", func(c desk.Connector) bool { return c.NewTarget != nil })
	if m["target"] != nil && f.Source.same(f.Target) {
		d.say(m["target"], "source and target are the same desk; a migration goes from one to another")
	}
	f.Migration.Scopes = d.scopes(m["scopes"])
	f.Migration.Windows = d.windows(m["windows"], m["scopes"])
	f.Migration.Rules = d.rules(m["mapping"])
	f.Migration.Policies = d.policies(m["policies"])
	f.Backup = d.backup(m["backup"])
	return f
}

func (d *decoder) id(n *node) string {
	if !d.want(n, text) {
		return ""
	}
	if !idPattern.MatchString(n.text) {
		d.say(n, "%q cannot be an id; use at most 40 lower-case letters, digits and hyphens", n.text)
	}
	return n.text
}

// named returns the entries of a table whose keys are ids.
func (d *decoder) named(n *node) []entry {
	es := d.table(n)
	for _, e := range es {
		if !idPattern.MatchString(e.key) {
			d.say(e.value, "%q cannot be a name; use at most 40 lower-case letters, digits and hyphens", e.key)
		}
	}
	return es
}

func (d *decoder) contact(n *node) Contact {
	m := d.section(n, "contact")
	d.need(n, m, "name", "the person's name")
	d.need(n, m, "email", "the person's e-mail address")
	c := Contact{Name: d.text(m["name"]), Email: d.text(m["email"])}
	if c.Email != "" && !emailPattern.MatchString(c.Email) {
		d.say(m["email"], "%q is not an e-mail address; write it as jo@acme.example", c.Email)
	}
	return c
}

func (d *decoder) desk(n *node, side string, can func(desk.Connector) bool) Desk {
	m := d.section(n, "desk")
	d.need(n, m, "connector", "the name of the desk's product")
	var names []string
	for _, c := range d.opts.Connectors {
		if can(c) {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	name := d.text(m["connector"])
	i := slices.IndexFunc(d.opts.Connectors, func(c desk.Connector) bool { return c.Name == name })
	switch {
	case name == "":
	case i < 0:
		d.say(m["connector"], "there is no connector %q%s; as a %s there are %s", name, near(name, names), side, strings.Join(names, ", "))
	case !can(d.opts.Connectors[i]):
		d.say(m["connector"], "%q cannot be a %s; there are %s", name, side, strings.Join(names, ", "))
	}
	if name == "" || i < 0 {
		d.table(m["options"])
		return Desk{}
	}
	out := Desk{Connector: d.opts.Connectors[i], Config: desk.Config{}}
	switch options := m["options"]; {
	case options == nil:
		d.options(n, nil, out)
	case d.want(options, object):
		d.options(options, options.entries, out)
	}
	return out
}

// options fills the desk's Config.
func (d *decoder) options(n *node, given []entry, dk Desk) {
	var names []string
	for _, o := range dk.Connector.Options {
		names = append(names, o.Name)
	}
	for _, e := range given {
		i := slices.Index(names, e.key)
		if i < 0 {
			d.say(e.value, "%s has no option of the name in this line%s; there are %s", dk.Connector.Name, near(e.key, names), strings.Join(names, ", "))
			continue
		}
		v, ok := d.option(e.value, dk.Connector.Options[i])
		if dk.Connector.Options[i].Path && v != "" && !strings.Contains(v, "-----BEGIN") {
			v = d.resolve(v)
		}
		dk.Config[e.key] = v
		if ok && v == "" && dk.Connector.Options[i].Required {
			d.say(e.value, "it is empty, and %s requires it: %s", dk.Connector.Name, dk.Connector.Options[i].Help)
		}
	}
	for _, o := range dk.Connector.Options {
		if _, ok := dk.Config[o.Name]; ok {
			continue
		}
		if o.Default != "" {
			dk.Config[o.Name] = o.Default
			continue
		}
		if !o.Required {
			continue
		}
		help := o.Help
		if o.Secret {
			help += " (give env:NAME or file:PATH)"
		}
		d.say(&node{line: n.line, col: n.col, at: n.at}, "option %s is missing, and %s requires it: %s", o.Name, dk.Connector.Name, help)
	}
}

func (d *decoder) scopes(n *node) map[string]desk.Scope {
	out := map[string]desk.Scope{}
	es := d.named(n)
	if n != nil && n.is == object && len(es) == 0 {
		d.say(n, "there must be a scope; `all: {}` is everything")
	}
	for _, e := range es {
		m := d.section(e.value, "scope")
		s := desk.Scope{CreatedFrom: d.time(m["created_from"]), CreatedTo: d.time(m["created_to"])}
		if !s.CreatedFrom.IsZero() && !s.CreatedTo.IsZero() && !s.CreatedFrom.Before(s.CreatedTo) {
			d.say(m["created_to"], "it is not after created_from; created_to is the first moment that does not belong to the scope")
		}
		for _, f := range d.table(m["filters"]) {
			if s.Any == nil {
				s.Any = map[desk.Field][]string{}
			}
			d.field(f.value, f.key)
			s.Any[desk.Field(f.key)] = d.filter(f.value)
		}
		out[e.key] = s
	}
	return out
}

// field reports a name that is no field.
func (d *decoder) field(n *node, name string) {
	if near, ok := mapping.KnownField(desk.Field(name)); !ok {
		d.say(n, "there is no field %q%s; a field of a desk's own making is written custom.NAME", name, near)
	}
}

func (d *decoder) filter(n *node) []string {
	if !d.want(n, list) {
		return nil
	}
	if len(n.items) == 0 {
		d.say(n, "the list is empty, so that nothing would move; name a value or remove the filter")
	}
	var out []string
	for _, item := range n.items {
		w := d.word(item)
		if w == "" && item.is == text {
			d.say(item, "the value is empty; no field ever holds an empty value")
		}
		out = append(out, w)
	}
	return out
}

// time reads a day (its first moment in UTC) or a moment.
func (d *decoder) time(n *node) time.Time {
	if !d.want(n, text) {
		return time.Time{}
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, n.text); err == nil {
			return t.UTC()
		}
	}
	d.say(n, "%q is no date; write a day as 2026-01-31 or a moment as 2026-01-31T08:00:00Z", n.text)
	return time.Time{}
}

func (d *decoder) windows(n, scopes *node) map[string]delta.Window {
	out := map[string]delta.Window{}
	var names []string
	if scopes != nil {
		for _, e := range scopes.entries {
			names = append(names, e.key)
		}
	}
	for _, e := range d.named(n) {
		m := d.section(e.value, "window")
		d.need(e.value, m, "scope", "the name of the scope that the window brings over")
		w := delta.Window{
			Scope: d.text(m["scope"]),
			Kind:  choice(d, m["kind"], delta.Delta, delta.Delta, delta.Census),
			Mode:  choice(d, m["mode"], "", delta.CreateOnly, delta.UpdateOnly, delta.CreateUpdate),
		}
		switch {
		case w.Kind == delta.Delta:
			d.need(e.value, m, "mode", "create, update or create+update")
		case m["mode"] != nil:
			d.say(m["mode"], "a census only looks, so it has no mode; leave the line out")
		}
		if w.Scope != "" && !slices.Contains(names, w.Scope) {
			d.say(m["scope"], "there is no scope %q%s; there are %s", w.Scope, near(w.Scope, names), strings.Join(names, ", "))
		}
		out[e.key] = w
	}
	return out
}

func (d *decoder) rules(n *node) mapping.Rules {
	m := d.section(n, "mapping")
	r := mapping.Rules{
		Unmapped:       choice(d, m["unmapped"], "", mapping.Pass, mapping.Note, mapping.Block),
		Groups:         d.words(m["groups"]),
		GroupsUnmapped: choice(d, m["groups_unmapped"], "", mapping.Pass, mapping.Block),
		People:         d.people(m["people"]),
	}
	if m["group_default"] != nil {
		r.GroupDefault = d.word(m["group_default"])
	}
	if n != nil {
		r.Line, r.GroupsLine = n.line, n.line
	}
	for _, key := range []string{"groups_unmapped", "group_default", "groups"} {
		if m[key] != nil {
			r.GroupsLine = m[key].line
		}
	}
	for _, kind := range desk.LoadOrder() {
		rules := m[string(kind)]
		if !d.want(rules, list) {
			continue
		}
		for _, item := range rules.items {
			if rule, ok := d.rule(item); ok {
				if r.Fields == nil {
					r.Fields = map[desk.Kind][]mapping.FieldRule{}
				}
				r.Fields[kind] = append(r.Fields[kind], rule)
			}
		}
	}
	for _, err := range r.Check(desk.Definitions{}, desk.Definitions{}) {
		var wrong *mapping.Mistake
		if errors.As(err, &wrong) {
			d.say(&node{line: wrong.Line, at: "mapping"}, "%s", wrong.Message)
		}
	}
	return r
}

// rule returns a rule, and whether it can be checked further.
func (d *decoder) rule(n *node) (mapping.FieldRule, bool) {
	before := len(d.mistakes)
	m := d.section(n, "rule")
	r := mapping.FieldRule{
		From:      desk.Field(d.text(m["from"])),
		To:        desk.Field(d.text(m["to"])),
		Values:    d.words(m["values"]),
		Default:   d.word(m["default"]),
		Transform: d.text(m["transform"]),
		Unmapped:  choice(d, m["unmapped"], "", mapping.Pass, mapping.Note, mapping.Block, mapping.Drop),
		Meaning:   d.text(m["meaning"]),
		Line:      n.line,
	}
	return r, n.is == object && len(d.mistakes) == before
}

func (d *decoder) people(n *node) mapping.PersonRule {
	m := d.section(n, "people")
	p := mapping.PersonRule{
		Map:       d.words(m["map"]),
		Unmatched: choice(d, m["unmatched"], "create", "create", "fallback", "block"),
		Fallback:  d.word(m["fallback"]),
	}
	if n != nil {
		p.Line = n.line
	}
	return p
}

func (d *decoder) policies(n *node) delta.Policies {
	m := d.section(n, "policies")
	p := delta.DefaultPolicies()
	conflicts := []delta.Conflict{delta.Hold, delta.SourceWins, delta.TargetWins}
	events := []delta.OnEvent{delta.Ignore, delta.Tag, delta.Close, delta.Mirror}
	p.Conflict = choice(d, m["conflict"], p.Conflict, conflicts...)
	p.OnDeleted = choice(d, m["deleted"], p.OnDeleted, events...)
	p.OnMerged = choice(d, m["merged"], p.OnMerged, events...)
	p.OnSpam = choice(d, m["spam"], p.OnSpam, events...)
	p.OnRevised = choice(d, m["revised"], p.OnRevised, events...)
	p.OnPrivacy = choice(d, m["privacy"], p.OnPrivacy, events...)
	p.OnSplit = choice(d, m["split"], p.OnSplit, events...)
	p.OnTargetGone = choice(d, m["target_gone"], p.OnTargetGone, delta.HoldGone, delta.RecreateGone, delta.IgnoreGone)
	for _, e := range d.table(m["fields"]) {
		d.field(e.value, e.key)
		if p.ConflictField == nil {
			p.ConflictField = map[desk.Field]delta.Conflict{}
		}
		p.ConflictField[desk.Field(e.key)] = choice(d, e.value, p.Conflict, conflicts...)
	}
	if m["event_tag"] != nil {
		p.EventTag = d.text(m["event_tag"])
	}
	if m["closed_status"] != nil {
		p.ClosedStatus = d.text(m["closed_status"])
	}
	if days := m["deadline_days"]; days != nil {
		p.Deadline = time.Duration(d.count(days, 3650)) * 24 * time.Hour
	}
	t := d.section(m["threshold"], "threshold")
	if t["share"] != nil {
		p.ThresholdShare = d.share(t["share"])
	}
	if t["count"] != nil {
		p.ThresholdCount = d.count(t["count"], 1_000_000_000)
	}
	return p
}

// count reads a whole number from 1 to most.
func (d *decoder) count(n *node, most int) int {
	if !d.want(n, number) {
		return 1
	}
	i, err := strconv.Atoi(n.text)
	if err != nil || i < 1 || i > most {
		d.say(n, "%s is not possible; it can be a whole number from 1 to %d", n.text, most)
		return 1
	}
	return i
}

// share reads a percentage.
func (d *decoder) share(n *node) float64 {
	const how = "write a percentage from 0% to 100%, such as 0.5%"
	if n.is == word || n.is == number {
		d.say(n, "%s has no percent sign; %s", n.text, how)
		return 0
	}
	if !d.want(n, text) {
		return 0
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(n.text, "%"), 64)
	if err != nil || !sharePattern.MatchString(n.text) {
		d.say(n, "%q is not possible; %s", n.text, how)
		return 0
	}
	return v / 100
}

func (d *decoder) backup(n *node) Backup {
	m := d.section(n, "backup")
	d.need(n, m, "folder", "where the backup goes")
	if folder := d.text(m["folder"]); folder != "" {
		return Backup{Folder: d.resolve(folder)}
	}
	return Backup{}
}

// same tells whether both are one desk, as far as their options show.
func (d Desk) same(e Desk) bool {
	if d.Connector.Name == "" || d.Connector.Name != e.Connector.Name {
		return false
	}
	if d.Config["url"] != "" {
		return strings.EqualFold(strings.TrimRight(d.Config["url"], "/"), strings.TrimRight(e.Config["url"], "/"))
	}
	return maps.Equal(d.Config, e.Config)
}

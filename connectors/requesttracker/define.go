package requesttracker

import (
	"context"
	"net/url"
	"slices"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// defaultStatuses are those of the lifecycle "default" as RT comes. "deleted" is reached by deleting.
var defaultStatuses = []string{"new", "open", "stalled", "resolved", "rejected"}

// Define tells RT's fields. Statuses belong to lifecycles, which REST cannot be asked for: they are told where the option
// statuses names them or where every queue has the default lifecycle, and any value passes elsewhere.
func (s *source) Define(ctx context.Context) (desk.Definitions, error) { return s.define(ctx) }

// Define tells RT's fields, without those that hold the source's id and address.
func (t *target) Define(ctx context.Context) (desk.Definitions, error) {
	return t.define(ctx, t.opt.idField, t.opt.urlField)
}

func (a *account) define(ctx context.Context, skip ...string) (desk.Definitions, error) {
	queues, _, err := every[wireQueue](ctx, a, "/queues", url.Values{
		"query": {jsonQuery(where{Field: "id", Operator: ">", Value: 0})}, "fields": {"Name,Lifecycle,Disabled"},
	})
	if err != nil {
		return desk.Definitions{}, err
	}
	statuses, custom := a.opt.statuses, false
	var names []string
	for _, q := range queues {
		custom = custom || q.Lifecycle != "default"
		if q.Disabled != "1" {
			names = append(names, string(q.Name))
		}
	}
	if len(statuses) == 0 && !custom {
		statuses = defaultStatuses
	}
	slices.Sort(names)
	d := desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{desk.Ticket: ticketDefs(statuses, names), desk.Person: personDefs()}}
	cfs, _, err := every[wireCFDef](ctx, a, "/customfields", url.Values{
		"query": {jsonQuery(where{Field: "id", Operator: ">", Value: 0})}, "fields": {"Name,Type,LookupType,MaxValues,Disabled"},
	})
	if err != nil {
		return desk.Definitions{}, err
	}
	roles, _, err := every[wireCFDef](ctx, a, "/customroles", url.Values{
		"query": {jsonQuery(where{Field: "id", Operator: ">", Value: 0})}, "fields": {"Name"},
	})
	if err != nil {
		return desk.Definitions{}, err
	}
	for _, r := range roles {
		d.Fields[desk.Ticket] = append(d.Fields[desk.Ticket], desk.FieldDef{
			Field: desk.Custom(customRole + string(r.ID)), Label: string(r.Name), Many: true, Write: desk.Never,
		})
	}
	kinds := map[str]desk.Kind{"RT::Queue-RT::Ticket": desk.Ticket, "RT::User": desk.Person}
	for _, cf := range cfs {
		kind, ok := kinds[cf.LookupType]
		if !ok || cf.Disabled == "1" || slices.Contains(skip, string(cf.Name)) {
			continue
		}
		def := desk.FieldDef{Field: desk.Custom(string(cf.Name)), Label: string(cf.Name), Many: cf.MaxValues != "1", Write: desk.Always}
		switch cf.Type {
		case "Select":
			var full wireCFDef
			if _, err := a.get(ctx, "/customfield/"+string(cf.ID), nil, &full); err != nil {
				return desk.Definitions{}, err
			}
			for _, v := range full.Values {
				def.Options = append(def.Options, string(v))
			}
		case "Image", "Binary":
			def.Write = desk.Never
		}
		d.Fields[kind] = append(d.Fields[kind], def)
	}
	return d, nil
}

// maxSubject is where RT cuts subjects.
const maxSubject = 200

func ticketDefs(statuses, queues []string) []desk.FieldDef {
	return []desk.FieldDef{
		{Field: desk.Subject, Write: desk.Always, Max: maxSubject},
		{Field: desk.Status, Write: desk.Always, Options: statuses},
		{Field: desk.Group, Label: "Queue", Write: desk.Always, Required: true, Options: queues},
		{Field: desk.Priority, Write: desk.Always},
		{Field: desk.Requester, Label: "Requestors", Write: desk.Always, Many: true},
		{Field: desk.CC, Write: desk.Always, Many: true},
		{Field: desk.Followers, Label: "AdminCc", Write: desk.Always, Many: true},
		{Field: desk.Assignee, Label: "Owner", Write: desk.Always},
		{Field: desk.Created, Write: desk.OnCreate}, // and kept or not: what RT shows afterwards tells
		{Field: desk.Started, Write: desk.Always},
		{Field: desk.Resolved, Write: desk.Always},
		{Field: desk.Due, Write: desk.Always},
		{Field: fieldStarts, Label: "Starts", Write: desk.Always},
		{Field: desk.TimeWorked, Write: desk.Always},
		{Field: desk.TimeEstimated, Write: desk.Always},
		{Field: desk.TimeLeft, Write: desk.Always},
		{Field: desk.LinkRefersTo, Write: desk.Always, Many: true},
		{Field: desk.LinkDependsOn, Write: desk.Always, Many: true},
		{Field: desk.LinkParent, Label: "Member of", Write: desk.Always, Many: true},
		{Field: fieldSLA, Label: "Service level", Write: desk.Always},
		{Field: desk.Custom("Requestor groups"), Write: desk.Never, Many: true},
		{Field: desk.Custom("Cc groups"), Write: desk.Never, Many: true},
		{Field: desk.Custom("AdminCc groups"), Write: desk.Never, Many: true},
	}
}

func personDefs() []desk.FieldDef {
	defs := []desk.FieldDef{
		{Field: desk.Login, Label: "Name", Write: desk.Always, Max: 200},
		{Field: desk.Name, Label: "RealName", Write: desk.Always, Max: 120},
		{Field: desk.Email, Write: desk.Always, Max: 120},
		{Field: desk.Phone, Label: "WorkPhone", Write: desk.Always, Max: 30},
		{Field: desk.Role, Label: "Privileged", Write: desk.Always, Options: []string{"agent", "customer"}},
		{Field: desk.Active, Write: desk.Always, Options: []string{"true", "false"}},
		{Field: desk.Locale, Label: "Lang", Write: desk.Always, Max: 16},
		{Field: desk.TimeZone, Write: desk.Always, Max: 50},
		{Field: desk.Description, Label: "Comments", Write: desk.Always},
	}
	var attrs []desk.Field
	for name := range (wireUser{}).attributes() {
		attrs = append(attrs, desk.Custom(name))
	}
	slices.Sort(attrs)
	for _, f := range attrs {
		defs = append(defs, desk.FieldDef{Field: f, Write: desk.Always})
	}
	return defs
}

package requesttracker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// target writes. Silence comes first, so how a thing is written depends on who would hear of it:
//
//   - A ticket is made without people. Its queue's watchers, and its owner where one is set at once, are named in
//     TransSquelchMailTo, which RT's scrips obey for that one transaction.
//   - While a ticket has nobody to be mailed (no people, no owner, no watchers of its queue), entries and fields go over
//     REST. People are added last; that mails nobody.
//   - Everything else that a default scrip listens to (entries, status and owner of a ticket that has people, and every new
//     owner) goes through the update form of RT's web pages with its boxes "do not notify" ticked: the form's switch holds
//     for all transactions of the request, and RT itself works out whom it concerns, groups and queue watchers included.
//     The form writes a message; where only status or owner change it is an internal note that says so.
//
// After every write the ticket's transactions are read: a mail leaves an EmailRecord, which is ErrMailed.
type target struct {
	*account

	mu     sync.Mutex
	ready  bool                        // the custom fields for source id and address have been seen
	single map[string]bool             // custom fields of one value
	times  map[string]bool             // custom fields that hold a time
	zone   string                      // of the account, in which RT reads these; asked where there are any
	queues map[string]cached[[]string] // addresses of watchers, by the queue's name and id
	users  map[string]cached[wireUser] // by login and id

	laterStatus sync.Map // queue and status in which a ticket cannot begin
}

// Check looks whether RT can be reached, the account sees everything, and every queue has the custom fields that carry the
// source's id and address.
func (t *target) Check(ctx context.Context) error {
	if err := t.check(ctx); err != nil {
		return err
	}
	if err := t.fieldsThere(ctx); err != nil {
		return err
	}
	if len(t.times) > 0 {
		if err := t.inUTC(); err != nil {
			return err
		}
	}
	queues, _, err := every[wireQueue](ctx, t.account, "/queues", url.Values{
		"query": {jsonQuery(where{Field: "id", Operator: ">", Value: 0})}, "fields": {"Name,Disabled"},
	})
	if err != nil {
		return err
	}
	for _, q := range queues {
		cfs, _, err := every[wireCFDef](ctx, t.account, "/queue/"+string(q.ID)+"/customfields", url.Values{"fields": {"Name,LookupType"}})
		if err != nil {
			return err
		}
		if missing := t.missing(cfs); len(missing) > 0 {
			return t.tellMissing(missing, "in queue "+string(q.ID))
		}
	}
	return nil
}

const ticketLookup = "RT::Queue-RT::Ticket"

func (t *target) missing(cfs []wireCFDef) []string {
	var out []string
	for _, name := range []string{t.opt.idField, t.opt.urlField} {
		if !slices.ContainsFunc(cfs, func(cf wireCFDef) bool {
			return string(cf.Name) == name && cf.LookupType == ticketLookup && cf.Disabled != "1"
		}) {
			out = append(out, name)
		}
	}
	return out
}

func (t *target) tellMissing(names []string, where string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "the custom field %q is missing %s; create each missing one once, ", names[0], where)
	b.WriteString(`under Admin > Custom Fields as "Enter one value" for tickets, applied to all queues, or with ` +
		`POST /REST/2.0/customfield {"Name":"` + names[0] + `","Type":"FreeformSingle","Queue":0}`)
	return &desk.Error{Op: "check custom fields", Said: b.String(), Class: desk.ErrUnauthorized}
}

// fieldsThere refuses to write anything that Find would not find again. Asked once.
func (t *target) fieldsThere(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ready {
		return nil
	}
	cfs, _, err := every[wireCFDef](ctx, t.account, "/customfields", url.Values{
		"query": {jsonQuery(where{Field: "LookupType", Value: ticketLookup})}, "fields": {"Name,LookupType,Disabled,Type,MaxValues"},
	})
	if err != nil {
		return err
	}
	if missing := t.missing(cfs); len(missing) > 0 {
		return t.tellMissing(missing, "in this RT")
	}
	t.times, t.single = map[string]bool{}, map[string]bool{}
	for _, cf := range cfs {
		if cf.MaxValues == "1" {
			t.single[string(cf.Name)] = true
		}
		if cf.Type == "DateTime" {
			t.times[string(cf.Name)] = true
		}
	}
	if len(t.times) > 0 {
		var us wireUser
		if _, err := t.get(ctx, "/user/"+url.PathEscape(t.opt.user), nil, &us); err != nil {
			return err
		}
		t.zone = string(us.Timezone)
	}
	t.ready = true
	return nil
}

// inUTC tells whether RT takes what we write into custom fields of times for UTC.
func (t *target) inUTC() error {
	switch t.zone {
	case "UTC", "GMT", "Etc/UTC":
		return nil
	}
	return &desk.Error{
		Op: "check custom fields", Class: desk.ErrUnauthorized,
		Said: "RT reads the times of custom fields in the zone of the account: set the Timezone of the migration's account to UTC",
	}
}

// customFields brings values of custom fields to the form in which RT reads them rightly: times as the account's wall clock
// shows them, and null where a single value goes.
func (t *target) customFields(ctx context.Context, body map[string]any) error {
	cfs, _ := body["CustomFields"].(map[string]any)
	if len(cfs) == 0 {
		return nil
	}
	if err := t.fieldsThere(ctx); err != nil {
		return err
	}
	for name, v := range cfs {
		values, ok := v.([]string)
		if ok && len(values) == 0 && t.single[name] {
			cfs[name] = nil
		}
		if !ok || len(values) == 0 || !t.times[name] {
			continue
		}
		if err := t.inUTC(); err != nil {
			return err
		}
		for i, s := range values {
			if at, err := time.Parse(time.RFC3339, s); err == nil {
				values[i] = at.UTC().Format(time.DateTime)
			}
		}
	}
	return nil
}

// sourceID is what the custom field holds: ids of several migrations may meet in one RT.
func (t *target) sourceID(ref desk.Ref) string { return t.deps.Migration + "/" + ref.ID }

// Find finds tickets by the custom field. People have no place for a source id: Match finds them, and Create of a login
// that is there adopts it.
func (t *target) Find(ctx context.Context, ref desk.Ref) ([]string, error) {
	if ref.Kind != desk.Ticket {
		return nil, nil
	}
	want := t.sourceID(ref)
	ts, _, err := every[wireTicket](ctx, t.account, "/tickets", url.Values{
		"query":  {"'CF.{" + t.opt.idField + "}' = " + quoteSQL(want) + " AND EffectiveId > 0"},
		"fields": {"CustomFields"},
	})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, w := range ts {
		if slices.Contains(w.cf(t.opt.idField), want) { // RT compares without case
			ids = append(ids, string(w.ID))
		}
	}
	return ids, nil
}

// Read returns a record as it is now. Entries that this account wrote with a header line come as what they stand for.
func (t *target) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	switch ref.Kind {
	case desk.Ticket:
		_, r, err := t.read(ctx, ref.ID)
		if err == nil && r.Event == desk.Deleted {
			err = &desk.Error{Op: "read " + ref.String(), Said: "deleted", Class: desk.ErrNotFound}
		}
		return r, err
	case desk.Person:
		return t.person(ctx, ref.ID)
	}
	return desk.Record{}, noKind(ref)
}

func (t *target) read(ctx context.Context, id string) (thread, desk.Record, error) {
	th, began, err := t.thread(ctx, id, true)
	if err != nil {
		return th, desk.Record{}, err
	}
	return th, t.present(th, began), nil
}

// present makes a record of a thread, and shows entries of ours as what they stand for.
func (t *target) present(th thread, began time.Time) desk.Record {
	r := t.record(th, began, t.opt.idField, t.opt.urlField)
	ours := map[string]bool{}
	for _, x := range th.txns {
		ours[x.ID.String()] = t.isUs(x.Creator)
	}
	files := map[string]wireAttachment{}
	parts := map[string][]wireAttachment{}
	for _, p := range th.parts {
		files[p.ID.String()] = p
		parts[string(p.TransactionID)] = append(parts[string(p.TransactionID)], p)
	}
	entries := r.Entries[:0]
	for _, e := range r.Entries {
		if ours[e.ID] {
			if e.Body == serviceNote && !e.Public {
				continue // no conversation: see target
			}
			if cutHeader(&e) {
				e.Headers = nil
				if s, ok := ownSubject(parts[e.ID]); ok {
					e.Subject = s
				}
				for i := range e.Files {
					files[e.Files[i].ID].own(&e.Files[i])
				}
			}
		}
		entries = append(entries, e)
	}
	r.Entries = entries
	r.Touched = touched(th.txns, r.Fields, t.isUs)
	return r
}

// serviceNote is the message of the form where there is nothing to say.
const serviceNote = "[Deltadesk carried over status or owner]"

// mailed tells whether RT mailed because of something that this account did after transaction since. The mails of a
// transaction follow it directly: RT locks the ticket while its scrips run.
func (t *target) mailed(txns []wireTxn, since int64) error {
	ours := false
	for _, x := range txns {
		switch {
		case x.Type == "EmailRecord" || x.Type == "CommentEmailRecord":
			if ours && int64(x.ID) > since {
				return &desk.Error{Op: "write ticket/" + string(x.ObjectID), Said: "transaction " + x.ID.String(), Class: desk.ErrMailed}
			}
		case x.Creator.Name != "RT_System":
			ours = t.isUs(x.Creator)
		}
	}
	return nil
}

// Create makes a person or a ticket.
func (t *target) Create(ctx context.Context, r desk.Record) (desk.Written, error) {
	switch r.Ref.Kind {
	case desk.Ticket:
		return t.createTicket(ctx, r)
	case desk.Person:
		return t.createPerson(ctx, r)
	}
	return desk.Written{}, &desk.Error{Op: "create " + r.Ref.String(), Said: "RT has no such kind", Class: desk.ErrRejected}
}

func (t *target) createTicket(ctx context.Context, r desk.Record) (desk.Written, error) {
	var w desk.Written
	op := "create " + r.Ref.String()
	if err := t.fieldsThere(ctx); err != nil {
		return w, err
	}
	fields := maps.Clone(r.Fields)
	for _, f := range []desk.Field{desk.Requester, desk.CC, desk.Followers, desk.TimeWorked} {
		delete(fields, f) // people last; the time worked comes with the entries
	}
	maps.DeleteFunc(fields, func(_ desk.Field, v desk.Value) bool { return len(v) == 0 })
	body, unknown := ticketBody(fields)
	body["Subject"] = fields[desk.Subject].First()
	delete(body, "CustomFields")
	if unknown = slices.DeleteFunc(unknown, func(f desk.Field) bool { return f == desk.Created }); len(unknown) > 0 {
		return w, noField(op, unknown)
	}
	if v := fields[desk.Created]; len(v) > 0 {
		body["Created"] = rtTime(v)
	}
	if v := fields[desk.Status].First(); v != "" {
		body["Status"] = v
	}
	cfs := map[string]any{t.opt.idField: t.sourceID(r.Ref)}
	if r.URL != "" {
		cfs[t.opt.urlField] = r.URL
	}
	for f, v := range fields {
		if name, ok := f.CustomName(); ok && f != fieldStarts && f != fieldSLA {
			cfs[name] = listOf(v)
		}
	}
	body["CustomFields"] = cfs
	if err := t.customFields(ctx, body); err != nil {
		return w, err
	}
	quiet, err := t.watchers(ctx, fields[desk.Group].First())
	if err != nil {
		return w, err
	}
	// RT's first message is always public: an internal first entry is added by Apply.
	var first *desk.Entry
	if len(r.Entries) > 0 && r.Entries[0].Public {
		first = &r.Entries[0]
		if first.Subject != "" {
			// RT gives the first message the ticket's subject. Where the ticket was renamed since, Apply renames it again.
			body["Subject"] = first.Subject
		}
		body["TimeWorked"] = first.Minutes
	}
	if owner := fields[desk.Assignee].First(); owner != "" && len(r.Entries) <= b01(first != nil) {
		// Nothing follows, so the owner may come at once. Set later, RT's form would be needed for its silence.
		mail, err := t.mailOf(ctx, owner)
		if err != nil {
			return w, err
		}
		body["Owner"], quiet = owner, append(quiet, mail...)
	}
	if len(quiet) > 0 && !t.opt.unguarded {
		// RT takes the list on creation but drops lists from JSON unless they look like the id of an object.
		body["TransSquelchMailTo"] = map[string]any{"type": "user", "id": quiet, "_url": "-"}
	}
	key := fields[desk.Group].First() + "\x00" + fields[desk.Status].First()
	if _, later := t.laterStatus.Load(key); later {
		delete(body, "Status")
	}
	id, losses, err := t.postTicket(ctx, body, first)
	if _, has := body["Status"]; has && errors.Is(err, desk.ErrRejected) {
		// A lifecycle says in which statuses a ticket may begin ("rejected" is none of them in RT's own), and REST does not
		// tell which. A refusal has made nothing, so the ticket may begin as RT likes; Apply brings it to its status.
		delete(body, "Status")
		refused := err
		if id, losses, err = t.postTicket(ctx, body, first); err == nil {
			t.laterStatus.Store(key, true)
		} else if errors.Is(err, desk.ErrRejected) {
			err = refused
		}
	}
	if err != nil {
		return w, err
	}
	w.ID, w.Losses = id, losses
	th, now, err := t.read(ctx, w.ID)
	if err != nil {
		return w, err
	}
	t.tell(&w, now)
	if err := t.mailed(th.txns, 0); err != nil {
		return w, err
	}
	if first != nil {
		if err := kept(op, th.txns, 0, now, r.Entries[:1]); err != nil {
			return w, err
		}
	}
	if !slices.Contains(th.ticket.cf(t.opt.idField), t.sourceID(r.Ref)) {
		return w, t.tellMissing([]string{t.opt.idField}, "in queue "+string(th.ticket.Queue.ID))
	}
	return w, nil
}

// postTicket sends the one creating request.
func (t *target) postTicket(ctx context.Context, body map[string]any, first *desk.Entry) (id string, losses []desk.Loss, err error) {
	req := api(http.MethodPost, "/ticket", rest.Body{})
	if req.Body, losses, err = t.message(ctx, body, first); err != nil {
		return "", nil, err
	}
	req.Stream = first != nil && len(first.Files) > 0
	var made struct {
		ID str `json:"id"`
	}
	if _, err := t.rest.JSON(ctx, req, &made); err != nil {
		return "", nil, err
	}
	if !isID(string(made.ID)) {
		return "", nil, senseless(req.Label, "a ticket was made, and no number was told")
	}
	return string(made.ID), losses, nil
}

// tell puts what was read back into w.
func (t *target) tell(w *desk.Written, now desk.Record) {
	w.Now = &now
	if w.Entries == nil {
		w.Entries = map[string]string{}
	}
	for _, e := range now.Entries {
		if e.Marker != "" {
			w.Entries[e.Marker] = e.ID
		}
	}
	if len(w.Entries) == 0 {
		w.Entries = nil
	}
}

func noField(op string, fields []desk.Field) error {
	return &desk.Error{Op: op, Said: "RT has no field " + join(fields), Class: desk.ErrRejected}
}

func join(fields []desk.Field) string {
	s := make([]string, len(fields))
	for i, f := range fields {
		s[i] = string(f)
	}
	return strings.Join(s, ", ")
}

// Delete deletes a ticket. RT only hides it, and people are never deleted. For a ticket that was merged RT deletes the one that
// lives on; the lock, which is of neither by then, keeps it from that.
func (t *target) Delete(ctx context.Context, ref desk.Ref, lock string) error {
	if ref.Kind != desk.Ticket {
		return &desk.Error{Op: "delete " + ref.String(), Said: "RT deletes tickets only", Class: desk.ErrRejected}
	}
	req := api(http.MethodDelete, "/ticket/"+url.PathEscape(ref.ID), rest.Body{})
	req.Header = ifMatch(lock)
	_, _, _, err := t.rest.Text(ctx, req)
	return err
}

// ifMatch asks RT to refuse, with 412, what is no longer as it was read; nothing without a lock.
func ifMatch(lock string) http.Header {
	if lock == "" {
		return nil
	}
	return http.Header{"If-Match": {`"` + lock + `"`}}
}

// Merge merges a ticket into another one. RT answers 200 whatever it did.
func (t *target) Merge(ctx context.Context, from, into desk.Ref, lock string) error {
	if from.Kind != desk.Ticket || into.Kind != desk.Ticket {
		return &desk.Error{Op: "merge " + from.String(), Said: "RT merges tickets only", Class: desk.ErrRejected}
	}
	req := api(http.MethodPut, "/ticket/"+url.PathEscape(from.ID), rest.JSON(map[string]any{"MergeInto": into.ID}))
	req.Header = ifMatch(lock) // of a ticket that was merged meanwhile RT would take the one that lives on
	if _, err := t.rest.JSON(ctx, req, nil); err != nil {
		return err
	}
	now, _, err := t.look(ctx, from.ID)
	if err != nil {
		return err
	}
	if string(now.ID) != into.ID {
		return &desk.Error{Op: "merge " + from.String(), Said: "RT did not merge it", Class: desk.ErrRejected}
	}
	return nil
}

var (
	_ desk.Target    = (*target)(nil)
	_ desk.Checker   = (*target)(nil)
	_ desk.Definer   = (*target)(nil)
	_ desk.Finder    = (*target)(nil)
	_ desk.Matcher   = (*target)(nil)
	_ desk.Opener    = (*target)(nil)
	_ desk.Deleter   = (*target)(nil)
	_ desk.Merger    = (*target)(nil)
	_ desk.Addresser = (*target)(nil)
)

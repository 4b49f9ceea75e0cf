package requesttracker

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// Apply sets fields and adds entries.
func (t *target) Apply(ctx context.Context, ref desk.Ref, c desk.Change) (desk.Written, error) {
	switch ref.Kind {
	case desk.Ticket:
		return t.applyTicket(ctx, ref, c)
	case desk.Person:
		return t.applyPerson(ctx, ref, c)
	}
	return desk.Written{}, noKind(ref)
}

func (t *target) applyTicket(ctx context.Context, ref desk.Ref, c desk.Change) (desk.Written, error) {
	w := desk.Written{ID: ref.ID}
	op := "update " + ref.String()
	body, unknown := ticketBody(c.Fields)
	if len(unknown) > 0 {
		return w, noField(op, unknown)
	}
	before, tag, err := t.look(ctx, ref.ID)
	if err != nil {
		return w, err
	}
	if before.Status == "deleted" {
		return w, &desk.Error{Op: op, Said: "deleted", Class: desk.ErrNotFound}
	}
	if c.Lock != "" && c.Lock != tag {
		return w, &desk.Error{Op: op, Class: desk.ErrConflict}
	}
	if c.Empty() {
		return w, nil
	}
	if err := t.customFields(ctx, body); err != nil {
		return w, err
	}
	w.ID = string(before.ID)
	since, _ := strconv.ParseInt(tag, 10, 64)
	p := &push{target: t, id: w.ID, op: op, before: before, since: since, newest: since, w: &w}
	if err := p.prepare(ctx, c); err != nil {
		return w, err
	}
	for i := range c.Entries {
		if err := p.entry(ctx, c.Entries[i], i == len(c.Entries)-1); err != nil {
			return w, err
		}
	}
	lock := ""
	if len(c.Entries) == 0 {
		lock = c.Lock
	}
	if err := p.fields(ctx, body, lock); err != nil {
		return w, err
	}
	th, now, err := p.settle(ctx)
	if err != nil {
		return w, err
	}
	t.tell(&w, now)
	if err := t.mailed(th.txns, since); err != nil {
		return w, err
	}
	if err := kept(op, th.txns, since, now, c.Entries); err != nil {
		return w, err
	}
	return w, refused(op, c.Fields, now.Fields)
}

// push is one Apply to one ticket.
type push struct {
	*target
	id, op string
	before wireTicket
	since  int64 // newest transaction before the push
	newest int64 // newest one that this push has seen
	w      *desk.Written

	heard   bool   // somebody would be mailed
	status  string // to be set; empty where it stays
	restore bool   // status is what it was: replies may move it
	owner   string // to be set by the form; empty where it stays
	unowned bool   // the owner is to be unset
	squelch []string
	sent    bool // a status was sent, so that RT may have dated Resolved and Started with now
	dates   desk.Fields
	kept    desk.Fields // what the push does not name and RT may move by itself
}

// prepare finds out who would hear of the push, and what status and owner are to be in the end.
func (p *push) prepare(ctx context.Context, c desk.Change) error {
	b := p.before
	p.heard = len(b.Requestor)+len(b.Cc)+len(b.AdminCc) > 0 || b.Owner.ID != nobody
	for _, members := range b.CustomRoles {
		p.heard = p.heard || len(members) > 0
	}
	for _, l := range b.Links {
		p.heard = p.heard || l.Ref == "customrole"
	}
	queue, err := p.watchers(ctx, string(b.Queue.ID))
	if err != nil {
		return err
	}
	p.heard = p.heard || len(queue) > 0
	if b.Owner.ID != nobody {
		mail, err := p.mailOf(ctx, string(b.Owner.ID))
		if err != nil {
			return err
		}
		p.squelch = append(p.squelch, mail...)
	}
	if v, ok := c.Fields[desk.Status]; ok && v.First() != string(b.Status) {
		p.status = v.First()
	}
	if p.status == "" && slices.ContainsFunc(c.Entries, func(e desk.Entry) bool { return e.Public }) {
		// A reply opens a ticket that is new or closed. What it is to be is decided by the engine, not by RT.
		p.status, p.restore = string(b.Status), true
	}
	if v, ok := c.Fields[desk.Assignee]; ok {
		if p.owner = v.First(); p.owner == "" {
			p.unowned = b.Owner.ID != nobody
		} else {
			u, err := p.user(ctx, p.owner)
			if err != nil {
				return err
			}
			if u.Name == b.Owner.ID {
				p.owner = ""
			} else if u.EmailAddress != "" {
				p.squelch = append(p.squelch, string(u.EmailAddress))
			}
		}
	}
	p.dates = desk.Fields{}
	if p.restore {
		p.dates[desk.Resolved], p.dates[desk.Started] = desk.Time(b.Resolved.time()), desk.Time(b.Started.time())
	}
	p.kept = desk.Fields{}
	if len(c.Entries) > 0 || p.status != "" {
		// RT dates a ticket whose status moves, and takes tags like [example #12] out of a message's subject into the
		// ticket's, also into an empty one. Nobody asked for that: settle sets back the subject, and dates that had a value.
		before := desk.Fields{desk.Resolved: desk.Time(b.Resolved.time()), desk.Started: desk.Time(b.Started.time()), desk.Subject: desk.Text(string(b.Subject))}
		for f, v := range before {
			if _, named := c.Fields[f]; !named && (len(v) > 0 || f == desk.Subject) {
				p.kept[f] = v
			}
		}
	}
	for _, f := range []desk.Field{desk.Resolved, desk.Started} {
		if v, ok := c.Fields[f]; ok {
			p.dates[f] = v
		}
	}
	if p.opt.unguarded {
		p.heard = false
	}
	return nil
}

// entry adds one entry, the last one together with status and owner.
func (p *push) entry(ctx context.Context, e desk.Entry, last bool) error {
	if p.heard || last && p.owner != "" && !p.opt.unguarded {
		return p.form(ctx, &e, last)
	}
	kind := "comment"
	if e.Public {
		kind = "correspond"
	}
	body := map[string]any{}
	if e.Minutes != 0 {
		body["TimeTaken"] = e.Minutes
	}
	if last && p.status != "" {
		body["Status"] = p.status
		p.sent, p.status = true, ""
	}
	req := api(http.MethodPost, "/ticket/"+p.id+"/"+kind, rest.Body{})
	var losses []desk.Loss
	var err error
	if req.Body, losses, err = p.message(ctx, body, &e); err != nil {
		return err
	}
	req.Stream = len(e.Files) > 0
	_, header, _, err := p.rest.Text(ctx, req)
	if err != nil {
		return err
	}
	loc := header.Get("Location")
	id, err := strconv.ParseInt(loc[strings.LastIndexByte(loc, '/')+1:], 10, 64)
	if err != nil {
		return &desk.Error{Op: req.Label, Said: "RT did not tell the number of the entry", Class: desk.ErrTransient}
	}
	p.wrote(e, id, losses)
	return nil
}

func (p *push) wrote(e desk.Entry, id int64, losses []desk.Loss) {
	if p.w.Entries == nil {
		p.w.Entries = map[string]string{}
	}
	p.w.Entries[e.Marker] = strconv.FormatInt(id, 10)
	p.w.Losses = append(p.w.Losses, losses...)
}

// form writes through RT's update form, which can be told to notify nobody. e is nil where only status or owner change.
// Files are put into the session first, as a browser does it.
func (p *push) form(ctx context.Context, e *desk.Entry, last bool) error {
	const label = "POST /Ticket/Update.html"
	referer := p.referer()
	v := url.Values{
		"id": {p.id}, "SubmitTicket": {"1"},
		"SkipNotification": {"Requestor", "Cc", "AdminCc"}, "TxnRecipients": {strings.Join(p.squelch, ",")},
	}
	for role := range p.before.CustomRoles {
		v.Add("SkipNotification", role)
	}
	for _, l := range p.before.Links {
		if l.Ref == "customrole" {
			v.Add("SkipNotification", customRole+string(l.ID))
		}
	}
	want := "Comment"
	var losses []desk.Loss
	if e == nil {
		v.Set("UpdateType", "private")
		v.Set("UpdateContent", serviceNote)
		v.Set("UpdateContentType", "text/plain")
	} else {
		v.Set("UpdateType", "private")
		if e.Public {
			v.Set("UpdateType", "response")
			want = "Correspond"
		}
		v.Set("UpdateContent", addHeader(*e))
		v.Set("UpdateContentType", entryType(*e))
		if e.Subject != "" {
			// The form drops a subject that is the ticket's own. RT trims the space when it stores it.
			v.Set("UpdateSubject", e.Subject+" ")
		}
		if e.Minutes != 0 {
			v.Set("UpdateTimeWorked", strconv.Itoa(e.Minutes))
		}
		ups, l, err := p.uploads(ctx, *e)
		if err != nil {
			return err
		}
		losses = l
		if len(ups) > 0 {
			tok := token()
			v.Set("Token", tok)
			for i, u := range ups {
				if err := p.uploadToSession(ctx, tok, i, u, referer); err != nil {
					return err
				}
			}
		}
	}
	if last {
		if p.status != "" {
			v.Set("Status", p.status)
		}
		if p.owner != "" {
			v.Set("Owner", p.owner)
			v.Set("ForceOwnerChange", "1")
		}
	}
	page, header, status, err := p.rest.Text(ctx, rest.Request{
		Method: http.MethodPost, Path: "/Ticket/Update.html", Label: label, Body: rest.Form(v),
		Header: http.Header{"Referer": {referer}}, Accept: []int{http.StatusFound, http.StatusSeeOther},
	})
	if err != nil {
		return err
	}
	if last {
		p.sent = p.sent || p.status != ""
		p.status, p.owner = "", ""
		if strings.Contains(header.Get("Location"), "/Ticket/Display.html") {
			// Done, as RT says; the record is read in a moment anyway, and shows the entry's number.
			p.w.Losses = append(p.w.Losses, losses...)
			return nil
		}
	}
	id, err := p.after(ctx, want)
	if err != nil {
		return err
	}
	if id == 0 {
		// Nothing was written, and RT's page, which is in its language, said why.
		if status != http.StatusOK && !strings.Contains(header.Get("Location"), "/Ticket/Display.html") || strings.Contains(string(page), `name="pass"`) {
			p.logout()
			return &desk.Error{Op: label, Status: status, Said: "RT did not accept the form: the session or the Referer", Class: desk.ErrTransient}
		}
		return &desk.Error{Op: label, Status: status, Said: "RT's update form refused the entry, or the address it came from", Class: desk.ErrRejected}
	}
	if e != nil {
		p.wrote(*e, id, losses)
	}
	return nil
}

// referer is an address on the host that RT believes to be its own: its pages take forms from there only.
func (p *push) referer() string {
	if base, _, ok := strings.Cut(string(p.before.selfURL()), apiRoot); ok {
		return base + "/"
	}
	return p.opt.conn.URL.String() + "/"
}

func (w wireTicket) selfURL() str {
	for _, l := range w.Links {
		if l.Ref == "self" {
			return l.URL
		}
	}
	return w.URL
}

func token() string { return strings.ToLower(rand.Text()) }

// uploadToSession stores a file for a later form. RT orders files by their path and keeps the last part as the name.
func (p *push) uploadToSession(ctx context.Context, tok string, i int, u up, referer string) error {
	const label = "POST /Helpers/Upload/Add"
	var done struct {
		Status str `json:"status"`
	}
	_, err := p.rest.JSON(ctx, rest.Request{
		Method: http.MethodPost, Path: "/Helpers/Upload/Add", Label: label, Stream: true,
		Header: http.Header{"Referer": {referer}},
		Body: rest.Multipart(rest.Field("Token", tok), rest.Part{
			Name: "Attach", FileName: fmt.Sprintf("%06d/%s", i, u.name), Type: u.contentType, Size: u.file.Size, Open: u.file.Open,
		}),
	}, &done)
	if err == nil && done.Status != "success" {
		err = &desk.Error{Op: label, Said: "RT did not take the file", Class: desk.ErrTransient}
	}
	return err
}

// after looks at what a form did: the number of our newest entry of a type since the last look, 0 where there is none.
func (p *push) after(ctx context.Context, kind string) (int64, error) {
	txns, _, err := every[wireTxn](ctx, p.account, "/transactions", url.Values{
		"query":  {"ObjectType = 'RT::Ticket' AND ObjectId = " + p.id + " AND id > " + strconv.FormatInt(p.newest, 10)},
		"fields": {txnFields}, "fields[Creator]": {memberFields},
	})
	if err != nil {
		return 0, err
	}
	if err := p.mailed(txns, p.since); err != nil {
		return 0, err
	}
	var id int64
	for _, x := range txns {
		p.newest = max(p.newest, int64(x.ID))
		if string(x.Type) == kind && p.isUs(x.Creator) {
			id = int64(x.ID)
		}
	}
	return id, nil
}

// fields sets what is left after the entries.
func (p *push) fields(ctx context.Context, body map[string]any, lock string) error {
	if (p.status != "" && p.heard || p.owner != "") && !p.opt.unguarded {
		if err := p.form(ctx, nil, true); err != nil {
			return err
		}
		lock = ""
	}
	dates, _ := ticketBody(p.dates)
	if p.restore && (p.before.Status == "open" || p.before.Status == "stalled") {
		dates = nil // replies hardly move these; settle looks whether they did
	}
	if p.status != "" {
		body["Status"], p.sent = p.status, true
	} else if p.sent || p.restore {
		maps.Copy(body, dates)
		dates = nil
	} else {
		dates = nil // they are in body
	}
	if p.owner != "" {
		body["Owner"] = p.owner
	} else if p.unowned {
		body["Owner"] = nobody
	}
	// RT dates a ticket that closes with now, whatever the same request says, so the dates come after the status.
	for _, b := range []map[string]any{body, dates} {
		if err := p.put(ctx, b, lock); err != nil {
			return err
		}
		lock = ""
	}
	return nil
}

func (p *push) put(ctx context.Context, body map[string]any, lock string) error {
	if len(body) == 0 {
		return nil
	}
	req := api(http.MethodPut, "/ticket/"+p.id, rest.JSON(body))
	req.Header = ifMatch(lock)
	_, err := p.rest.JSON(ctx, req, nil)
	return err
}

// settle reads the ticket, and once more where RT moved by itself what nobody asked to move.
func (p *push) settle(ctx context.Context) (thread, desk.Record, error) {
	th, now, err := p.read(ctx, p.id)
	if err != nil {
		return th, now, err
	}
	moved := desk.Fields{}
	for f, v := range p.kept {
		if !v.Equal(now.Fields[f]) {
			moved[f] = v
		}
	}
	if p.restore {
		for f, v := range p.dates {
			if !v.Equal(now.Fields[f]) {
				moved[f] = v
			}
		}
	}
	if len(moved) == 0 {
		return th, now, nil
	}
	body, _ := ticketBody(moved)
	if err := p.put(ctx, body, ""); err != nil {
		return th, now, err
	}
	return p.read(ctx, p.id)
}

// kept looks whether the entries and their files are there: RT may cut or drop files over its limit, and tells so in a
// transaction only.
func kept(op string, txns []wireTxn, since int64, now desk.Record, want []desk.Entry) error {
	for _, x := range txns {
		if len(want) > 0 && int64(x.ID) > since && strings.HasPrefix(string(x.Type), "Attachment") {
			return &desk.Error{Op: op, Said: "RT cut or dropped a file: transaction " + x.ID.String(), Class: desk.ErrRejected}
		}
	}
	for _, e := range want {
		i := slices.IndexFunc(now.Entries, func(got desk.Entry) bool { return got.Marker == e.Marker })
		if i < 0 {
			return &desk.Error{Op: op, Said: "RT did not record entry " + e.ID, Class: desk.ErrTransient}
		}
		got := now.Entries[i].Files
		for j, f := range e.Files {
			if len(got) != len(e.Files) || f.Size >= 0 && got[j].Size != f.Size {
				return &desk.Error{Op: op, Said: "RT did not keep file " + f.ID + " of entry " + e.ID, Class: desk.ErrRejected}
			}
		}
	}
	return nil
}

// refused compares what was asked for with what is there: RT answers 200 with a sentence when it refuses a field.
func refused(op string, want, got desk.Fields) error {
	var fields []desk.Field
	for f, v := range want {
		if f.IsSet() {
			v = desk.Set(v...)
		}
		if (f == desk.TimeWorked || f == desk.TimeEstimated || f == desk.TimeLeft) && v.First() == "0" {
			v = nil
		}
		if f == desk.Priority && len(v) == 0 {
			v = desk.Text("0")
		}
		if !v.Equal(got[f]) {
			fields = append(fields, f)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	slices.Sort(fields)
	return &desk.Error{Op: op, Said: "RT did not take " + join(fields), Class: desk.ErrRejected}
}

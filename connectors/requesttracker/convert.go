package requesttracker

import (
	"cmp"
	"mime"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Fields of RT that the language of desks has no word for. They look like custom fields of these names.
var (
	fieldStarts = desk.Custom("Starts")
	fieldSLA    = desk.Custom("SLA")
)

// thread is everything RT tells about one ticket.
type thread struct {
	ticket wireTicket
	txns   []wireTxn         // in id order
	parts  []wireAttachment  // in id order, without Content
	texts  map[number]string // Content of the unnamed text parts
}

// fields returns the ticket's fields. skip names custom fields that are the migration's own.
func (w wireTicket) fields(skip ...string) desk.Fields {
	f := desk.Fields{
		desk.Subject:       desk.Text(string(w.Subject)),
		desk.Status:        desk.Text(string(w.Status)),
		desk.Priority:      desk.Text(string(w.Priority)),
		desk.Group:         desk.Text(string(w.Queue.Name)),
		desk.Created:       desk.Time(w.Created.time()),
		desk.Started:       desk.Time(w.Started.time()),
		desk.Resolved:      desk.Time(w.Resolved.time()),
		desk.Due:           desk.Time(w.Due.time()),
		desk.TimeWorked:    minutes(w.TimeWorked),
		desk.TimeEstimated: minutes(w.TimeEstimated),
		desk.TimeLeft:      minutes(w.TimeLeft),
		desk.Requester:     people(w.Requestor),
		desk.CC:            people(w.Cc),
		desk.Followers:     people(w.AdminCc),
		desk.Assignee:      nil,
		fieldStarts:        desk.Time(w.Starts.time()),
	}
	if w.SLA != "" {
		f[fieldSLA] = desk.Text(string(w.SLA))
	}
	if w.Owner.Name != nobody && w.Owner.ID != nobody {
		f[desk.Assignee] = desk.Text(string(w.Owner.ID))
	}
	// Groups as watchers are no people; they are told so that nothing is lost without a word.
	for role, members := range map[string][]wireRef{"Requestor": w.Requestor, "Cc": w.Cc, "AdminCc": w.AdminCc} {
		if v := groups(members); len(v) > 0 {
			f[desk.Custom(role+" groups")] = v
		}
	}
	for role, members := range w.CustomRoles {
		var v []string
		for _, m := range members {
			if m.Name != nobody && m.ID != nobody {
				v = append(v, cmp.Or(string(m.EmailAddress), string(m.Name), string(m.ID)))
			}
		}
		if len(v) > 0 {
			f[desk.Custom(role)] = desk.Set(v...)
		}
	}
	for _, cf := range w.CustomFields {
		if !slices.Contains(skip, string(cf.Name)) {
			f[desk.Custom(string(cf.Name))] = cf.value()
		}
	}
	for field, ref := range linkRefs {
		f[field] = w.links(ref)
	}
	return f
}

// linkRefs are RT's names of the links that a ticket carries itself.
var linkRefs = map[desk.Field]string{
	desk.LinkRefersTo: "refers-to", desk.LinkDependsOn: "depends-on", desk.LinkParent: "parent",
}

func (w wireTicket) links(ref string) desk.Value {
	var v []string
	for _, l := range w.Links {
		switch {
		case string(l.Ref) != ref:
		case l.Type == "ticket":
			v = append(v, string(l.ID))
		case l.Type == "external":
			v = append(v, string(l.URL))
		default: // an asset or article of the same RT: its address is what can be kept
			v = append(v, string(l.URL))
		}
	}
	return desk.Set(v...)
}

func (c wireCF) value() desk.Value {
	v := make([]string, len(c.Values))
	for i, s := range c.Values {
		v[i] = string(s)
	}
	return desk.Set(v...)
}

func (w wireTicket) cf(name string) desk.Value {
	for _, cf := range w.CustomFields {
		if string(cf.Name) == name {
			return cf.value()
		}
	}
	return nil
}

const nobody = "Nobody"

func people(members []wireRef) desk.Value {
	var v []string
	for _, m := range members {
		if m.Type == "user" {
			v = append(v, string(m.ID))
		}
	}
	return desk.Set(v...)
}

func groups(members []wireRef) desk.Value {
	var v []string
	for _, m := range members {
		if m.Type == "group" {
			v = append(v, cmp.Or(string(m.Name), string(m.ID)))
		}
	}
	return desk.Set(v...)
}

func minutes(s str) desk.Value {
	n, err := strconv.Atoi(string(s))
	if err != nil || n == 0 {
		return nil
	}
	return desk.Text(strconv.Itoa(n))
}

// author of a transaction. RT's own doings have no person.
func author(r wireRef) desk.Author {
	switch r.Name {
	case "RT_System", nobody:
		return desk.Author{Name: string(r.Name)}
	}
	return desk.Author{ID: string(r.ID), Name: cmp.Or(string(r.RealName), string(r.Name)), Email: string(r.EmailAddress)}
}

// seq is the newest transaction of the thread.
func (t thread) seq() int64 {
	var n int64
	for _, x := range t.txns {
		n = max(n, int64(x.ID))
	}
	return n
}

// aliases are the tickets merged into this one: their transactions are in its history.
func (t thread) aliases() []string {
	var out []string
	for _, x := range t.txns {
		if id := string(x.ObjectID); id != "" && id != string(t.ticket.ID) && x.ObjectType == "RT::Ticket" {
			out = append(out, id)
		}
	}
	return []string(desk.Set(out...))
}

func (t thread) history() []desk.StatusChange {
	var out []desk.StatusChange
	for _, x := range t.txns {
		if x.Type == "Status" || x.Type == "Set" && x.Field == "Status" {
			out = append(out, desk.StatusChange{At: x.Created.time(), By: author(x.Creator), Before: string(x.OldValue), After: string(x.NewValue)})
		}
	}
	return out
}

// entries returns the conversation in the order of the transactions.
func (t thread) entries() []desk.Entry {
	parts := map[string][]wireAttachment{}
	for _, p := range t.parts {
		parts[string(p.TransactionID)] = append(parts[string(p.TransactionID)], p)
	}
	var out []desk.Entry
	for _, x := range t.txns {
		if x.Type != "Create" && x.Type != "Correspond" && x.Type != "Comment" {
			continue
		}
		id := x.ID.String()
		ps := parts[id]
		worked, _ := strconv.Atoi(string(x.TimeTaken))
		if len(ps) == 0 && x.Type == "Create" && worked == 0 {
			continue // a ticket made without a message
		}
		e := desk.Entry{ID: id, Public: x.Type != "Comment", Author: author(x.Creator), At: x.Created.time(), Minutes: worked}
		t.fill(&e, ps)
		out = append(out, e)
	}
	return out
}

// headersOf begins the id of a file that is the headers of a forwarded mail: the id of its first part follows.
const headersOf = "h"

// ownSubject returns the subject that message gave a ticket's first entry, where it is not the ticket's.
func ownSubject(ps []wireAttachment) (string, bool) {
	if i := slices.IndexFunc(ps, wireAttachment.unnamedText); i >= 0 {
		return param(headers(string(ps[i].Headers))["content-type"], paramSubject)
	}
	return "", false
}

// fill sets subject, headers, body and files of an entry from its parts, which RT numbers in the order of the message.
func (t thread) fill(e *desk.Entry, ps []wireAttachment) {
	if len(ps) > 0 {
		h := headers(string(ps[0].Headers))
		e.Subject = cmp.Or(string(ps[0].Subject), h["subject"])
		e.Headers = mailHeaders(h)
	}
	body, twin := t.body(ps)
	for i, p := range ps {
		switch {
		case i == body:
			e.Type = "text/plain"
			if strings.EqualFold(string(p.ContentType), "text/html") {
				e.Type = "text/html"
			}
			e.Body = desk.CanonicalBody(t.texts[p.ID])
		case i == twin, p.container():
		case p.nested() && i+1 < len(ps):
			// RT takes a forwarded mail apart; its headers are those of the part that follows.
			e.Files = append(e.Files, desk.File{
				ID: headersOf + ps[i+1].ID.String(), Type: "text/rfc822-headers", Size: int64(len(ps[i+1].Headers)),
			})
		default:
			e.Files = append(e.Files, p.file())
		}
	}
	if body < 0 {
		e.Type = "text/plain"
	}
}

// body finds the part that is the entry's text: the first unnamed text; of two alternatives the HTML one. twin is the
// plain alternative when it says nothing that the HTML does not say. RT's lists do not tell a part's parent, but the order
// does: alternatives follow their container, and nothing but containers stands between them.
func (t thread) body(ps []wireAttachment) (body, twin int) {
	body = slices.IndexFunc(ps, wireAttachment.unnamedText)
	if body <= 0 || strings.EqualFold(string(ps[body].ContentType), "text/html") || !strings.EqualFold(string(ps[body-1].ContentType), "multipart/alternative") {
		return body, -1
	}
	next := body + 1
	for next < len(ps) && ps[next].container() {
		next++
	}
	if next == len(ps) || !ps[next].unnamedText() || !strings.EqualFold(string(ps[next].ContentType), "text/html") {
		return body, -1
	}
	if sameWords(t.texts[ps[body].ID], t.texts[ps[next].ID]) {
		return next, body
	}
	return next, -1
}

// sameWords tells whether an HTML text says every letter and digit of a plain one, in order, and nothing else.
func sameWords(plain, markup string) bool { return words(plain) == words(htmlText(markup)) }

func words(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, s)
}

func htmlText(s string) string {
	z := html.NewTokenizer(strings.NewReader(s))
	var b strings.Builder
	hidden := 0
	for {
		switch z.Next() {
		case html.ErrorToken:
			return b.String()
		case html.TextToken:
			if hidden == 0 {
				b.Write(z.Text())
			}
		case html.StartTagToken:
			if name, _ := z.TagName(); invisible(string(name)) {
				hidden++
			}
		case html.EndTagToken:
			if name, _ := z.TagName(); invisible(string(name)) && hidden > 0 {
				hidden--
			}
		}
	}
}

func invisible(tag string) bool { return tag == "style" || tag == "script" || tag == "title" }

// file describes a part that is not the entry's text. Only sizes of parts that are not text are what RT will deliver: a
// text's size was taken before RT brought it to UTF-8.
func (p wireAttachment) file() desk.File {
	h := headers(string(p.Headers))
	f := desk.File{ID: p.ID.String(), Name: string(p.Filename), Type: mediaTypeOf(string(p.ContentType)), Size: -1}
	if n, err := strconv.ParseInt(string(p.ContentLength), 10, 64); err == nil && n >= 0 && !transcoded(f.Type) {
		f.Size = n
	}
	f.CID = strings.TrimSpace(strings.NewReplacer("<", "", ">", "").Replace(h["content-id"]))
	disposition, _, _ := strings.Cut(h["content-disposition"], ";")
	f.Inline = f.CID != "" && !strings.EqualFold(strings.TrimSpace(disposition), "attachment")
	return f
}

// transcoded: media types of which RT may change the bytes.
func transcoded(mediaType string) bool {
	return strings.HasPrefix(mediaType, "text/") || strings.HasPrefix(mediaType, "message/")
}

// headers parses RT's Headers into lower-case names; of repeated ones the first counts. No value has a line end, not even the
// half of one, which whoever writes it into a mail again would take for the beginning of another header.
func headers(s string) map[string]string {
	out := map[string]string{}
	last := ""
	for line := range strings.SplitSeq(lineEnds.Replace(s), "\n") {
		if line != "" && (line[0] == ' ' || line[0] == '\t') {
			if last != "" {
				out[last] = strings.TrimSpace(out[last] + " " + strings.TrimSpace(line))
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if last = ""; !ok {
			continue
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if _, dup := out[name]; dup {
			continue
		}
		out[name], last = strings.TrimSpace(value), name
	}
	return out
}

var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", " ")

// mailHeaders picks what keeps a mail thread together. RT gives every message a Message-ID of its own; only one that came
// with a mail is worth keeping.
func mailHeaders(h map[string]string) map[string]string {
	if h["from"] == "" {
		return nil
	}
	out := map[string]string{}
	for _, name := range []string{"Message-ID", "In-Reply-To", "References", "From", "To", "Cc"} {
		if v := h[strings.ToLower(name)]; v != "" {
			out[name] = v
		}
	}
	return out
}

// What RT has no place for, or would not take, travels as parameters of a file's Content-Type, which RT keeps word for
// word: the name where RT would change it, the type where it would change the bytes, and the Content-ID.
const (
	paramName   = "x-dd-name"
	paramType   = "x-dd-type"
	paramCID    = "x-dd-cid"
	paramInline = "x-dd-inline"
	// paramSubject is on the text of a ticket's first message, whose own subject RT replaces by the ticket's.
	paramSubject = "x-dd-subject"
)

// own restores what upload put into the Content-Type of a file of ours.
func (p wireAttachment) own(f *desk.File) {
	ct := headers(string(p.Headers))["content-type"]
	if v, ok := param(ct, paramName); ok {
		f.Name = v
	}
	if v, ok := param(ct, paramType); ok {
		f.Type = v
	}
	if v, ok := param(ct, paramCID); ok {
		f.CID = v
	}
	if _, ok := param(ct, paramInline); ok {
		f.Inline = true
	}
	if n, err := strconv.ParseInt(string(p.ContentLength), 10, 64); err == nil && n >= 0 {
		f.Size = n // our files are stored byte for byte
	}
}

func param(contentType, name string) (string, bool) {
	_, v, ok := strings.Cut(contentType, name+"=")
	if !ok {
		return "", false
	}
	v, _, _ = strings.Cut(v, ";")
	return headerUnescape(strings.Trim(strings.TrimSpace(v), `"`)), true
}

// paramEscape keeps letters, digits, dots and hyphens and writes the rest as %XX.
func paramEscape(s string) string {
	var b strings.Builder
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

var mediaType = regexp.MustCompile(`^(application|audio|chemical|font|image|message|model|text|video|x-[a-z]+)/[a-z0-9][a-z0-9!#$&^_.+-]{0,60}$`)

// upload says under which name and Content-Type a file is sent. exact tells that RT keeps a text of this type as it is.
func upload(f desk.File, exact bool) (name, contentType string) {
	name = safeName(f.Name)
	contentType = f.Type
	raw := transcoded(f.Type) && !exact || !mediaType.MatchString(f.Type)
	if raw {
		contentType = "application/octet-stream"
	} else if strings.HasPrefix(f.Type, "text/") {
		contentType += "; charset=utf-8"
	}
	if raw && f.Type != contentType {
		contentType += "; " + paramType + `="` + paramEscape(f.Type) + `"`
	}
	if name != f.Name {
		contentType += "; " + paramName + `="` + paramEscape(f.Name) + `"`
	}
	if f.CID != "" {
		contentType += "; " + paramCID + `="` + paramEscape(f.CID) + `"`
	}
	if f.Inline {
		contentType += "; " + paramInline + "=1"
	}
	return name, contentType
}

// safeName is a name that every way into RT takes and keeps, as like the file's own as possible.
func safeName(s string) string {
	s = strings.NewReplacer("/", "／", `\`, "＼", `"`, "＂", "%", "％").Replace(strings.ToValidUTF8(s, "�"))
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, s)
	switch s = strings.TrimSpace(s); s {
	case "":
		return "(unnamed)"
	case "0":
		return "(0)"
	}
	for utf8.RuneCountInString(s) > 100 || len(s) > 240 {
		// The end of a name tells programs what it is, so the middle goes.
		r := []rune(s)
		s = string(r[:len(r)/2]) + string(r[len(r)/2+1:])
	}
	return s
}

// exactText tells whether RT gives back a text file byte for byte: valid UTF-8 without noncharacters.
func exactText(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return false
		}
		b = b[n:]
	}
	return true
}

// rtTime is RT's form of a time, UTC; unset is 1970.
func rtTime(v desk.Value) string {
	at, err := time.Parse(time.RFC3339, v.First())
	if err != nil {
		return "1970-01-01 00:00:00"
	}
	return at.UTC().Format("2006-01-02 15:04:05")
}

// person is a user as a record.
func (u wireUser) fields(skip ...string) desk.Fields {
	f := desk.Fields{
		desk.Name:        desk.Text(string(u.RealName)),
		desk.Login:       desk.Text(string(u.Name)),
		desk.Email:       desk.Text(string(u.EmailAddress)),
		desk.Phone:       desk.Text(string(u.WorkPhone)),
		desk.Role:        desk.Text("customer"),
		desk.Active:      desk.Text("true"),
		desk.Locale:      desk.Text(string(u.Lang)),
		desk.TimeZone:    desk.Text(string(u.Timezone)),
		desk.Description: desk.Text(string(u.Comments)),
	}
	if u.Privileged == "1" {
		f[desk.Role] = desk.Text("agent")
	}
	if u.Disabled == "1" {
		f[desk.Active] = desk.Text("false")
	}
	for attr, v := range u.attributes() {
		if v != "" {
			f[desk.Custom(attr)] = desk.Text(string(v))
		}
	}
	for _, cf := range u.CustomFields {
		if !slices.Contains(skip, string(cf.Name)) {
			f[desk.Custom(string(cf.Name))] = cf.value()
		}
	}
	return f
}

// attributes are a user's plain attributes without a word of their own in the language of desks.
func (u wireUser) attributes() map[string]str {
	return map[string]str{
		"NickName": u.NickName, "Organization": u.Organization, "HomePhone": u.HomePhone, "MobilePhone": u.MobilePhone,
		"PagerPhone": u.PagerPhone, "Address1": u.Address1, "Address2": u.Address2, "City": u.City, "State": u.State,
		"Zip": u.Zip, "Country": u.Country,
	}
}

// userBody is what POST and PUT of a user take for the given fields. Fields that RT has no place for are returned by name.
func userBody(fields desk.Fields) (body map[string]any, unknown []desk.Field) {
	plain := map[desk.Field]string{
		desk.Name: "RealName", desk.Login: "Name", desk.Email: "EmailAddress", desk.Phone: "WorkPhone", desk.Locale: "Lang",
		desk.TimeZone: "Timezone", desk.Description: "Comments",
	}
	attrs := wireUser{}.attributes()
	body = map[string]any{}
	cfs := map[string]any{}
	for f, v := range fields {
		if attr, ok := plain[f]; ok {
			body[attr] = v.First()
			continue
		}
		switch name, custom := f.CustomName(); {
		case f == desk.Role:
			body["Privileged"] = b01(v.First() == "agent")
		case f == desk.Active:
			body["Disabled"] = b01(v.First() == "false")
		case custom:
			if _, ok := attrs[name]; ok {
				body[name] = v.First()
			} else {
				cfs[name] = listOf(v)
			}
		case len(v) > 0:
			unknown = append(unknown, f)
		}
	}
	if len(cfs) > 0 {
		body["CustomFields"] = cfs
	}
	slices.Sort(unknown)
	return body, unknown
}

func b01(b bool) int {
	if b {
		return 1
	}
	return 0
}

// listOf is v as a JSON array that is never null.
func listOf(v desk.Value) []string { return append([]string{}, v...) }

// ticketBody is what PUT of a ticket takes for the given fields, without status and owner, which are set with care
// elsewhere. Fields that RT has no place for are returned by name.
func ticketBody(fields desk.Fields) (body map[string]any, unknown []desk.Field) {
	body = map[string]any{}
	cfs := map[string]any{}
	for f, v := range fields {
		switch f {
		case desk.Subject, desk.Group:
			body[ticketAttr[f]] = v.First()
		case desk.Priority:
			body[ticketAttr[f]] = cmp.Or(v.First(), "0")
		case desk.Started, desk.Resolved, desk.Due, fieldStarts:
			body[ticketAttr[f]] = rtTime(v)
		case desk.TimeWorked, desk.TimeEstimated, desk.TimeLeft:
			body[ticketAttr[f]] = cmp.Or(v.First(), "0")
		case fieldSLA:
			body["SLA"] = v.First()
		case desk.Requester, desk.CC, desk.Followers, desk.LinkRefersTo, desk.LinkDependsOn, desk.LinkParent:
			body[ticketAttr[f]] = listOf(v)
		case desk.Status, desk.Assignee:
		default:
			if name, ok := f.CustomName(); ok {
				cfs[name] = listOf(v)
			} else if len(v) > 0 {
				unknown = append(unknown, f)
			}
		}
	}
	if len(cfs) > 0 {
		body["CustomFields"] = cfs
	}
	slices.Sort(unknown)
	return body, unknown
}

var ticketAttr = map[desk.Field]string{
	desk.Subject: "Subject", desk.Group: "Queue", desk.Priority: "Priority", desk.Started: "Started", desk.Resolved: "Resolved",
	desk.Due: "Due", fieldStarts: "Starts", desk.TimeWorked: "TimeWorked", desk.TimeEstimated: "TimeEstimated",
	desk.TimeLeft: "TimeLeft", desk.Requester: "Requestor", desk.CC: "Cc", desk.Followers: "AdminCc",
	desk.LinkRefersTo: "RefersTo", desk.LinkDependsOn: "DependsOn", desk.LinkParent: "MemberOf", desk.Status: "Status",
	desk.Assignee: "Owner",
}

// mediaTypeOf is the media type of an answer's Content-Type, lower case, without parameters.
func mediaTypeOf(contentType string) string {
	mt, _, _ := mime.ParseMediaType(contentType)
	return mt
}

// mergedInto reads the id at the end of the address that a merge leaves behind.
var mergedInto = regexp.MustCompile(`/ticket/(\d+)$`)

// touched says in which fields of a ticket somebody else had the last word. What RT does by itself counts as done by
// whoever acted before. A message of ours moves status, dates and subject; where we put back what somebody else had set, the last
// word is still theirs. Nil if the ticket was not made by us.
func touched(txns []wireTxn, fields desk.Fields, ours func(wireRef) bool) map[desk.Field]bool {
	if len(txns) == 0 || txns[0].Type != "Create" || !ours(txns[0].Creator) {
		return nil
	}
	byAttr := map[string]desk.Field{}
	for f, attr := range ticketAttr {
		byAttr[attr] = f
	}
	out, said := map[desk.Field]bool{}, map[desk.Field]string{}
	other := false
	theirs := func(f desk.Field, value string) bool {
		if other {
			said[f] = value
		}
		v, ever := said[f]
		return other || ever && v == value
	}
	for _, x := range txns {
		if x.Creator.Name != "RT_System" {
			other = !ours(x.Creator)
		}
		switch x.Type {
		case "Status":
			// With the status RT moves the dates, and writes no transaction about them.
			t := theirs(desk.Status, string(x.NewValue))
			out[desk.Status], out[desk.Started], out[desk.Resolved] = t, t, t
		case "Take", "Untake", "Steal", "Force", "Give":
			out[desk.Assignee] = other
		case "CustomField":
			for f := range fields { // the transaction has the custom field's number only
				if _, own := f.CustomName(); own && (other || !out[f]) {
					out[f] = other
				}
			}
		case "AddLink", "DeleteLink":
			for _, f := range []desk.Field{desk.LinkParent, desk.LinkDependsOn, desk.LinkRefersTo} {
				out[f] = out[f] || other
			}
		case "Correspond", "Comment":
			out[desk.TimeWorked] = out[desk.TimeWorked] || other
		default:
			f, ok := byAttr[string(x.Field)]
			switch {
			case ok && (f == desk.Started || f == desk.Resolved):
				out[f] = theirs(f, string(x.NewValue)) || out[desk.Status] // set back with the status
			case ok && x.Type == "Set":
				out[f] = theirs(f, string(x.NewValue))
			case ok:
				out[f] = other
			}
		}
	}
	return out
}

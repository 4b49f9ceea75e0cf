package rttest

import (
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

func sortInts(a []int64) { slices.Sort(a) }

// hands do things on one desk and write them into the script.
type hands struct {
	s      *Server
	db     *sql.DB
	script *Script
	prefix string // of Message-IDs
	count  int
}

// mail sends a mail that makes a ticket (ticket 0) or replies to one, and returns the ticket's id.
func (h *hands) mail(ctx context.Context, m message, ticket int64) (int64, error) {
	h.count++
	id := fmt.Sprintf("%s-%d-%s@cust.example", h.prefix, h.count, m.name)
	tag := ""
	if ticket != 0 {
		tag = fmt.Sprintf("[%s #%d]", h.s.Name, ticket)
	}
	queue, action := m.queue, m.action
	if queue == "" {
		queue = "General"
	}
	if action == "" {
		action = "correspond"
	}
	if err := h.s.Mail(ctx, queue, action, m.raw(id, tag)); err != nil {
		return 0, fmt.Errorf("%s: %w", m.name, err)
	}
	var txn, got int64
	err := h.db.QueryRowContext(ctx, `SELECT t.id, t.ObjectId FROM Attachments a JOIN Transactions t ON t.id = a.TransactionId
		WHERE a.MessageId = ? AND t.ObjectType = 'RT::Ticket' AND t.Type <> 'EmailRecord' ORDER BY a.id LIMIT 1`, id).Scan(&txn, &got)
	if err != nil {
		return 0, fmt.Errorf("mail %s cannot be found in %s: %w", m.name, h.s.Name, err)
	}
	e := EntryLog{Kind: "Create", Mail: id}
	m.body.walk(func(p part) {
		if p.sha != "" {
			e.Files = append(e.Files, FileLog{SHA: p.sha, Name: p.file})
		}
	})
	if ticket == 0 {
		h.script.addTicket(&TicketLog{ID: got, Name: m.name, Queue: queue, Entries: []EntryLog{e}},
			Action{Side: h.s.opts.Role, Who: m.from, Do: "create", Ticket: got, Source: got, Txn: txn})
		return got, nil
	}
	e.Kind = map[string]string{"correspond": "Correspond", "comment": "Comment"}[action]
	h.script.log(Action{Side: h.s.opts.Role, Who: m.from, Do: map[string]string{"correspond": "reply", "comment": "comment"}[action], Ticket: ticket, Source: ticket, Txn: txn},
		func(t *TicketLog) { t.Entries = append(t.Entries, e) })
	return ticket, nil
}

// create makes a ticket by REST. fields are those of RT.
func (h *hands) create(ctx context.Context, who, name string, fields map[string]any, files ...sentFile) (int64, error) {
	if len(files) > 0 {
		fields["Attachments"] = attachments(files)
	}
	var out struct {
		ID any `json:"id"`
	}
	if _, err := h.s.call(ctx, who, "POST", "/ticket", fields, &out); err != nil {
		return 0, err
	}
	id, err := strconv.ParseInt(fmt.Sprint(out.ID), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("create: id %v", out.ID)
	}
	e := EntryLog{Kind: "Create"}
	if c, ok := fields["Content"].(string); ok {
		e.Text = c
	}
	e.Files = fileLogs(files)
	queue, _ := fields["Queue"].(string)
	a := Action{Side: h.s.opts.Role, Who: who, Do: "create", Ticket: id}
	if h.s.opts.Role == TargetRole {
		h.script.log(a, nil)
		return id, nil
	}
	a.Source = id
	h.script.addTicket(&TicketLog{ID: id, Name: name, Queue: queue, Entries: []EntryLog{e}}, a)
	return id, nil
}

func attachments(files []sentFile) []map[string]string {
	var all []map[string]string
	for _, f := range files {
		content := base64.StdEncoding.EncodeToString(f.Content)
		if content == "" {
			content = "\n" // RT refuses the empty string and decodes this to nothing
		}
		// RT takes the characters of a name for bytes.
		name := make([]rune, 0, len(f.Name))
		for _, c := range []byte(f.Name) {
			name = append(name, rune(c))
		}
		all = append(all, map[string]string{"FileName": string(name), "FileType": f.Type, "FileContent": content})
	}
	return all
}

func fileLogs(files []sentFile) []FileLog {
	var all []FileLog
	for _, f := range files {
		if !strings.HasPrefix(f.Type, "text/") {
			all = append(all, FileLog{SHA: sum(f.Content), Name: f.Name})
		}
	}
	return all
}

// say replies ("correspond") or comments ("comment") by REST; source is the ticket's id in the source.
func (h *hands) say(ctx context.Context, who, how string, ticket, source int64, ctype, text string, minutes int, files ...sentFile) error {
	b := map[string]any{"ContentType": ctype, "Content": text}
	if minutes > 0 {
		b["TimeTaken"] = minutes
	}
	if len(files) > 0 {
		b["Attachments"] = attachments(files)
	}
	head, err := h.s.call(ctx, who, "POST", fmt.Sprintf("/ticket/%d/%s", ticket, how), b, nil)
	if err != nil {
		return err
	}
	var txn int64
	if l := head["Location"]; len(l) == 1 {
		txn, _ = strconv.ParseInt(path.Base(l[0]), 10, 64)
	}
	a := Action{Side: h.s.opts.Role, Who: who, Do: "reply", Ticket: ticket, Source: source, Txn: txn}
	e := EntryLog{Kind: "Correspond", Text: text, Files: fileLogs(files)}
	if how == "comment" {
		a.Do, e.Kind = "comment", "Comment"
	}
	if h.s.opts.Role == TargetRole {
		a.Body = text
		h.script.log(a, nil)
		return nil
	}
	h.script.log(a, func(t *TicketLog) { t.Entries = append(t.Entries, e) })
	return nil
}

// set changes fields by PUT, and checks that the desk did not refuse: each field must be answered by a sentence that reports a
// change, or by none where it had the value already.
func (h *hands) set(ctx context.Context, who string, ticket, source int64, fields map[string]any) error {
	var said []string
	if _, err := h.s.call(ctx, who, "PUT", fmt.Sprintf("/ticket/%d", ticket), fields, &said); err != nil {
		return err
	}
	for _, line := range said {
		for _, bad := range []string{"isn't a valid", "Permission", "not allowed", "Could not", "could not", "Invalid", "That user may not", "You can only"} {
			if strings.Contains(line, bad) {
				return fmt.Errorf("ticket %d of %s: %s", ticket, h.s.Name, line)
			}
		}
	}
	for k, v := range fields {
		if k != "CustomFields" {
			h.script.log(Action{Side: h.s.opts.Role, Who: who, Do: "set", Ticket: ticket, Source: source, Field: k, Value: fmt.Sprint(v)}, h.noteSet(k, v))
			continue
		}
		for name, v := range v.(map[string]any) {
			h.script.log(Action{Side: h.s.opts.Role, Who: who, Do: "set", Ticket: ticket, Source: source, Field: "cf." + name, Value: fmt.Sprint(v)}, h.noteSet("cf."+name, v))
		}
	}
	return nil
}

// noteSet remembers a value that RT keeps as it is given. The status is not one of them: RT changes it by itself.
func (h *hands) noteSet(field string, v any) func(*TicketLog) {
	name, ok := map[string]string{"Subject": "subject", "Priority": "priority", "Queue": "queue", "Owner": "owner"}[field]
	if !ok {
		name = field
		if !strings.HasPrefix(field, "cf.") {
			return nil
		}
	}
	if h.s.opts.Role == TargetRole {
		return nil
	}
	return func(t *TicketLog) {
		if t.Set == nil {
			t.Set = map[string]string{}
		}
		switch v := v.(type) {
		case []string:
			vs := slices.Sorted(slices.Values(v))
			t.Set[name] = strings.Join(vs, "\x1f")
		default:
			t.Set[name] = fmt.Sprint(v)
		}
	}
}

func (h *hands) remove(ctx context.Context, who string, ticket int64) error {
	if _, err := h.s.call(ctx, who, "DELETE", fmt.Sprintf("/ticket/%d", ticket), nil, nil); err != nil {
		return err
	}
	a := Action{Side: h.s.opts.Role, Who: who, Do: "delete", Ticket: ticket, Source: ticket}
	h.script.log(a, func(t *TicketLog) { t.Deleted, t.DeletedAt = true, len(h.script.data.Actions) })
	return nil
}

func (h *hands) merge(ctx context.Context, who string, from, into int64) error {
	var said []string
	if _, err := h.s.call(ctx, who, "PUT", fmt.Sprintf("/ticket/%d", from), map[string]any{"MergeInto": into}, &said); err != nil {
		return err
	}
	if !slices.Contains(said, "Merge Successful") {
		return fmt.Errorf("merge of %d into %d: %q", from, into, said)
	}
	a := Action{Side: h.s.opts.Role, Who: who, Do: "merge", Ticket: from, Value: strconv.FormatInt(into, 10)}
	if h.s.opts.Role == TargetRole { // its numbers are not those of the script's tickets
		h.script.log(a, nil)
		return nil
	}
	a.Source = from
	h.script.log(a, func(t *TicketLog) { t.Into, t.IntoAt = into, len(h.script.data.Actions) })
	return nil
}

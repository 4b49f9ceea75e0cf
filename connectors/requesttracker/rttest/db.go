package rttest

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// state is one desk as its database has it at one moment.
type state struct {
	tickets map[int64]*dbTicket
	entries map[int64][]*dbEntry // Create, Correspond and Comment, by the ticket they were written to, in order of id
	txns    map[int64][]*dbTxn   // all transactions of a ticket, in order of id
	links   []dbLink
	users   map[int64]dbUser
	queues  map[int64]string
	fields  map[int64]string // custom fields
}

type dbUser struct{ name, email, real, creator string }

// who is how people are compared: by address, or by login where they have none.
func (u dbUser) who() string {
	if u.email != "" {
		return strings.ToLower(u.email)
	}
	return strings.ToLower(u.name)
}

type dbTicket struct {
	id, effective int64
	creator       string
	// fields by the oracle's names; several values are sorted and joined with \x1f
	fields map[string]string
}

type dbTxn struct {
	id, ticket            int64
	kind, field, old, new string
	creator               string // login
	created               string
	user                  int64
}

type dbEntry struct {
	dbTxn
	public  bool
	subject string
	leaves  []*dbLeaf
	rows    int // attachment rows, containers included
}

type dbLeaf struct {
	id          int64
	name, ctype string
	exact       *string // the name that the migration wrote beside one that RT cannot store, see ExactName
	sha         string
	size        int
	text        string // content of text types
	alternative int64  // row of the multipart/alternative it is part of, directly or further down; 0 for none
	inMail      bool   // below a message/rfc822
	container   bool   // has parts
}

type dbLink struct {
	base, target int64 // 0 for an address
	kind         string
	address      string // the target, where it is an address
	creator      string
}

// readState reads a consistent state: all of it within one read transaction.
func readState(ctx context.Context, file string) (*state, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, err
	}
	db, err := openDB(file, true)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	s := &state{
		tickets: map[int64]*dbTicket{}, entries: map[int64][]*dbEntry{}, txns: map[int64][]*dbTxn{},
		users: map[int64]dbUser{}, queues: map[int64]string{}, fields: map[int64]string{},
	}
	for _, f := range []func(context.Context, *sql.Tx) error{s.readNames, s.readTickets, s.readWatchers, s.readCustom, s.readLinks, s.readEntries} {
		if err := f(ctx, tx); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
	}
	return s, nil
}

// each runs a query and calls f for every row.
func each(ctx context.Context, tx *sql.Tx, query string, f func(scan func(...any) error) error) error {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (s *state) readNames(ctx context.Context, tx *sql.Tx) error {
	return errors.Join(
		each(ctx, tx, `SELECT u.id, u.Name, coalesce(u.EmailAddress,''), coalesce(u.RealName,''), coalesce(c.Name,'') FROM Users u LEFT JOIN Users c ON c.id = u.Creator`, func(scan func(...any) error) error {
			var id int64
			var u dbUser
			err := scan(&id, &u.name, &u.email, &u.real, &u.creator)
			s.users[id] = u
			return err
		}),
		names(ctx, tx, `SELECT id, Name FROM Queues`, s.queues),
		names(ctx, tx, `SELECT id, Name FROM CustomFields`, s.fields),
	)
}

func names(ctx context.Context, tx *sql.Tx, query string, into map[int64]string) error {
	return each(ctx, tx, query, func(scan func(...any) error) error {
		var id int64
		var name string
		err := scan(&id, &name)
		into[id] = name
		return err
	})
}

// RT's word for an unset time.
const epoch = "1970-01-01 00:00:00"

func (s *state) readTickets(ctx context.Context, tx *sql.Tx) error {
	return each(ctx, tx, `SELECT id, EffectiveId, Queue, Owner, Creator, coalesce(Subject,''), coalesce(Status,''), coalesce(Priority,0), coalesce(TimeWorked,0),
		coalesce(TimeEstimated,0), coalesce(TimeLeft,0), coalesce(Created,''), coalesce(Starts,''), coalesce(Started,''), coalesce(Due,''), coalesce(Resolved,'')
		FROM Tickets WHERE Type = 'ticket'`, func(scan func(...any) error) error {
		t := &dbTicket{fields: map[string]string{}}
		var queue, owner, creator int64
		var subject, status, created, starts, started, due, resolved string
		var priority, worked, estimated, left int
		if err := scan(&t.id, &t.effective, &queue, &owner, &creator, &subject, &status, &priority, &worked, &estimated, &left, &created, &starts, &started, &due, &resolved); err != nil {
			return err
		}
		t.creator = s.users[creator].name
		for k, v := range map[string]string{
			"queue": s.queues[queue], "owner": strings.ToLower(s.users[owner].name), "subject": subject, "status": status, "priority": strconv.Itoa(priority),
			"timeworked": strconv.Itoa(worked), "timeestimated": strconv.Itoa(estimated), "timeleft": strconv.Itoa(left),
			"created": created, "starts": starts, "started": started, "due": due, "resolved": resolved,
		} {
			if v == epoch {
				v = ""
			}
			t.fields[k] = v
		}
		s.tickets[t.id] = t
		return nil
	})
}

const listSep = "\x1f"

func addTo(list, v string) string {
	if list == "" {
		return v
	}
	vs := append(strings.Split(list, listSep), v)
	slices.Sort(vs)
	return strings.Join(slices.Compact(vs), listSep)
}

func (s *state) readWatchers(ctx context.Context, tx *sql.Tx) error {
	return each(ctx, tx, `SELECT g.Instance, g.Name, m.MemberId FROM Groups g JOIN GroupMembers m ON m.GroupId = g.id
		WHERE g.Domain = 'RT::Ticket-Role' AND g.Name IN ('Requestor', 'Cc', 'AdminCc')`, func(scan func(...any) error) error {
		var ticket, member int64
		var role string
		if err := scan(&ticket, &role, &member); err != nil {
			return err
		}
		if t := s.tickets[ticket]; t != nil {
			role = strings.ToLower(role)
			t.fields[role] = addTo(t.fields[role], s.who(member))
		}
		return nil
	})
}

func (s *state) who(principal int64) string {
	if u, ok := s.users[principal]; ok {
		return u.who()
	}
	return fmt.Sprintf("group %d", principal)
}

func (s *state) readCustom(ctx context.Context, tx *sql.Tx) error {
	return each(ctx, tx, `SELECT CustomField, ObjectId, coalesce(Content,''), LargeContent, coalesce(ContentEncoding,'') FROM ObjectCustomFieldValues
		WHERE ObjectType = 'RT::Ticket' AND Disabled = 0`, func(scan func(...any) error) error {
		var cf, ticket int64
		var v, encoding string
		var large []byte
		if err := scan(&cf, &ticket, &v, &large, &encoding); err != nil {
			return err
		}
		if v == "" && len(large) > 0 {
			b, err := decode(encoding, large)
			if err != nil {
				return fmt.Errorf("custom field of ticket %d: %w", ticket, err)
			}
			v = string(b)
		}
		if t := s.tickets[ticket]; t != nil {
			name := "cf." + s.fields[cf]
			t.fields[name] = addTo(t.fields[name], strings.ReplaceAll(v, "\r\n", "\n"))
		}
		return nil
	})
}

func (s *state) readLinks(ctx context.Context, tx *sql.Tx) error {
	return each(ctx, tx, `SELECT Type, coalesce(LocalBase,0), coalesce(LocalTarget,0), Target, Creator FROM Links ORDER BY id`, func(scan func(...any) error) error {
		var l dbLink
		var creator int64
		var target string
		if err := scan(&l.kind, &l.base, &l.target, &target, &creator); err != nil {
			return err
		}
		if l.target == 0 {
			l.address = target
		}
		l.creator = s.users[creator].name
		s.links = append(s.links, l)
		return nil
	})
}

func (s *state) readEntries(ctx context.Context, tx *sql.Tx) error {
	byTxn := map[int64]*dbEntry{}
	// RT keeps the values of a custom field's change as references.
	err := each(ctx, tx, `SELECT t.id, t.ObjectId, t.Type, coalesce(t.Field,''),
			coalesce(nullif(t.OldValue,''), o.LargeContent, o.Content, ''), coalesce(nullif(t.NewValue,''), n.LargeContent, n.Content, ''), t.Creator, coalesce(t.Created,'')
		FROM Transactions t
			LEFT JOIN ObjectCustomFieldValues o ON t.ReferenceType = 'RT::ObjectCustomFieldValue' AND o.id = t.OldReference
			LEFT JOIN ObjectCustomFieldValues n ON t.ReferenceType = 'RT::ObjectCustomFieldValue' AND n.id = t.NewReference
		WHERE t.ObjectType = 'RT::Ticket' ORDER BY t.id`, func(scan func(...any) error) error {
		t := &dbTxn{}
		if err := scan(&t.id, &t.ticket, &t.kind, &t.field, &t.old, &t.new, &t.user, &t.created); err != nil {
			return err
		}
		t.creator = s.users[t.user].name
		s.txns[t.ticket] = append(s.txns[t.ticket], t)
		switch t.kind {
		case "Create", "Correspond", "Comment":
			e := &dbEntry{dbTxn: *t, public: t.kind != "Comment"}
			byTxn[t.id] = e
			s.entries[t.ticket] = append(s.entries[t.ticket], e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	type node struct {
		leaf   *dbLeaf
		parent int64
	}
	nodes := map[int64]*node{}
	return each(ctx, tx, `SELECT id, TransactionId, coalesce(Parent,0), coalesce(Subject,''), coalesce(Filename,''), coalesce(ContentType,''),
		coalesce(ContentEncoding,''), coalesce(Headers,''), Content FROM Attachments ORDER BY id`, func(scan func(...any) error) error {
		var txn, parent int64
		var subject, encoding, headers string
		var content []byte
		l := &dbLeaf{}
		if err := scan(&l.id, &txn, &parent, &subject, &l.name, &l.ctype, &encoding, &headers, &content); err != nil {
			return err
		}
		e := byTxn[txn]
		if e == nil {
			return nil // of an EmailRecord or another object
		}
		e.rows++
		l.ctype = strings.ToLower(strings.TrimSpace(strings.Split(l.ctype, ";")[0]))
		if name, ok := ExactName(headers); ok {
			l.exact = &name
		}
		if parent == 0 && e.rows == 1 {
			e.subject = subject
		}
		if up := nodes[parent]; up != nil {
			// A parent's number is always lower than its children's.
			up.leaf.container = true
			e.leaves = slices.DeleteFunc(e.leaves, func(x *dbLeaf) bool { return x == up.leaf })
			l.alternative, l.inMail = up.leaf.alternative, up.leaf.inMail || up.leaf.ctype == "message/rfc822"
		}
		if l.ctype == "multipart/alternative" {
			l.alternative = l.id
		}
		nodes[l.id] = &node{l, parent}
		b, err := decode(encoding, content)
		if err != nil {
			return fmt.Errorf("attachment %d: %w", l.id, err)
		}
		l.sha, l.size = sum(b), len(b)
		if strings.HasPrefix(l.ctype, "text/") || isMail(l) {
			l.text = string(b)
		}
		if !strings.HasPrefix(l.ctype, "multipart/") {
			e.leaves = append(e.leaves, l)
		}
		return nil
	})
}

// decode undoes what RT does to content for the database's sake.
func decode(encoding string, b []byte) ([]byte, error) {
	switch encoding {
	case "", "none":
		return b, nil
	case "base64":
		return base64.StdEncoding.DecodeString(strings.Map(func(r rune) rune {
			if r == '\n' || r == '\r' {
				return -1
			}
			return r
		}, string(b)))
	case "quoted-printable":
		out := make([]byte, 0, len(b))
		for i := 0; i < len(b); i++ {
			switch {
			case b[i] != '=':
				out = append(out, b[i])
			case i+1 < len(b) && b[i+1] == '\n':
				i++
			case i+2 < len(b) && b[i+1] == '\r' && b[i+2] == '\n':
				i += 2
			case i+2 < len(b):
				n, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8)
				if err != nil {
					return nil, errors.New("damaged quoted-printable")
				}
				out = append(out, byte(n))
				i += 2
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("content encoding %q", encoding)
}

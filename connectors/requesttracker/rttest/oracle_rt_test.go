//go:build rt

package rttest

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// perfect writes a target database that is what a perfect migration would have made of the source's, with other ticket
// numbers, header lines, and the migration's account as the author of everything.
func perfect(t *testing.T, srcFile, file string) {
	t.Helper()
	b, err := os.ReadFile(srcFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := readState(t.Context(), srcFile)
	if err != nil {
		t.Fatal(err)
	}
	db, err := openDB(file, false)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	do := func(q string, a ...any) {
		t.Helper()
		if _, err := tx.Exec(q, a...); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	for _, id := range sortedIDs(src.entries) {
		for _, e := range src.entries[id] {
			m := fromSource(e)
			u := src.users[e.user]
			head := fmt.Sprintf("[acme entry/%d %s, %s]", e.id, u.who(), e.created)
			done := false
			for _, l := range e.leaves {
				maybe := false
				for _, x := range m.maybe {
					maybe = maybe || x == l
				}
				switch {
				case maybe:
					do(`UPDATE Attachments SET ContentType = 'multipart/x-gone', Content = '' WHERE id = ?`, l.id)
				case !done && isText(l) && l.name == "" && canonical(l.text) == m.bodies[0] && (l.ctype == "text/html") == m.html:
					text := head + "\n\n" + l.text
					if m.html {
						text = "<p>" + strings.ReplaceAll(strings.ReplaceAll(head, "<", "&lt;"), ">", "&gt;") + "</p>\n" + l.text
					}
					do(`UPDATE Attachments SET ContentEncoding = 'none', Content = ? WHERE id = ?`, text, l.id)
					done = true
				case isText(l) && l.name == "":
					do(`UPDATE Attachments SET Filename = 'part.txt' WHERE id = ?`, l.id)
				}
			}
			if !done {
				do(`INSERT INTO Attachments (TransactionId, Parent, Subject, ContentType, ContentEncoding, Content, Creator) VALUES (?, 0, ?, 'text/plain', 'none', ?, 1)`, e.id, e.subject, head)
			}
		}
	}
	do(`UPDATE Transactions SET Creator = (SELECT id FROM Users WHERE Name = 'deltadesk') WHERE ObjectType = 'RT::Ticket'`)
	do(`UPDATE Links SET Creator = (SELECT id FROM Users WHERE Name = 'deltadesk')`)
	do(`INSERT INTO CustomFields (id, Name, Type, MaxValues, LookupType) VALUES (900, 'Deltadesk Source ID', 'Freeform', 1, 'RT::Queue-RT::Ticket')`)
	do(`INSERT INTO ObjectCustomFieldValues (CustomField, ObjectType, ObjectId, Content) SELECT 900, 'RT::Ticket', id, 'ticket/' || id FROM Tickets WHERE EffectiveId = id AND Status <> 'deleted'`)
	do(`DELETE FROM Transactions WHERE ObjectType = 'RT::Ticket' AND ObjectId IN (SELECT id FROM Tickets WHERE Status = 'deleted')`)
	do(`DELETE FROM Links WHERE LocalBase IN (SELECT id FROM Tickets WHERE Status = 'deleted') OR LocalTarget IN (SELECT id FROM Tickets WHERE Status = 'deleted')`)
	do(`DELETE FROM Tickets WHERE Status = 'deleted'`)
	do(`UPDATE Links SET LocalBase = LocalBase + 1000 WHERE LocalBase > 0`)
	do(`UPDATE Links SET LocalTarget = LocalTarget + 1000 WHERE LocalTarget > 0`)
	do(`UPDATE Groups SET Instance = Instance + 1000 WHERE Domain = 'RT::Ticket-Role'`)
	do(`UPDATE ObjectCustomFieldValues SET ObjectId = ObjectId + 1000 WHERE ObjectType = 'RT::Ticket'`)
	do(`UPDATE Transactions SET ObjectId = ObjectId + 1000 WHERE ObjectType = 'RT::Ticket'`)
	do(`UPDATE Tickets SET id = id + 1000, EffectiveId = EffectiveId + 1000`)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// liveSource returns the seeded source's database in one file, without a log beside it, and its script.
func liveSource(t *testing.T) (string, *Script) {
	t.Helper()
	src, script := seededSource(t)
	file := filepath.Join(t.TempDir(), "src.sqlite3")
	db, err := openDB(src.DBFile, true)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`VACUUM INTO ?`, file); err != nil {
		t.Fatal(err)
	}
	return file, script
}

// TestOracleCanFail: a perfect target gives no fault; each planted one is found, and counted where it belongs.
func TestOracleCanFail(t *testing.T) {
	srcFile, script := liveSource(t)
	good := filepath.Join(t.TempDir(), "good.sqlite3")
	perfect(t, srcFile, good)
	src, err := readState(t.Context(), srcFile)
	if err != nil {
		t.Fatal(err)
	}
	o := &Oracle{Script: script}
	check := func(file string) Result {
		dst, err := readState(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		return o.judge(src, dst, nil)
	}
	clean := check(good)
	t.Log(clean)
	if !clean.OK() || clean.Tickets < 200 || clean.Entries < 500 || clean.Files < 90 {
		t.Fatalf("a perfect target does not pass:\n%s", strings.Join(clean.Details, "\n"))
	}
	const entry = `(SELECT t.id FROM Transactions t JOIN Attachments a ON a.TransactionId = t.id WHERE t.ObjectType = 'RT::Ticket' AND t.Type = 'Correspond' AND a.Content LIKE '%Entry 5:%')`
	for _, c := range []struct {
		name string
		sql  []string
		sum  func(Result) int
	}{
		{"entry deleted", []string{`DELETE FROM Transactions WHERE id = ` + entry}, func(r Result) int { return r.Lost }},
		{"visibility", []string{`UPDATE Transactions SET Type = 'Comment' WHERE id = ` + entry}, func(r Result) int { return r.Differences }},
		{"body", []string{`UPDATE Attachments SET Content = replace(Content, 'Entry 5:', 'Entry 5;') WHERE TransactionId = ` + entry}, func(r Result) int { return r.Differences }},
		{"byte of a file", []string{`UPDATE Attachments SET Content = 'B' || substr(Content, 2) WHERE Filename = 'scan.pdf'`}, func(r Result) int { return r.Differences }},
		{"name of a file", []string{`UPDATE Attachments SET Filename = 'scan2.pdf' WHERE Filename = 'scan.pdf'`}, func(r Result) int { return r.Differences }},
		{"type of a file", []string{`UPDATE Attachments SET ContentType = 'image/jpeg' WHERE Filename = 'scan.pdf'`}, func(r Result) int { return r.Differences }},
		{"file gone", []string{`DELETE FROM Attachments WHERE Filename = 'logo.png'`}, func(r Result) int { return r.Differences }},
		{"file in an alternative's place gone", []string{`DELETE FROM Attachments WHERE Content LIKE '%order number is 4711%'`}, func(r Result) int { return r.Differences }},
		{"ticket gone", []string{`DELETE FROM Tickets WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Lost }},
		{"ticket deleted", []string{`UPDATE Tickets SET Status = 'deleted' WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Lost }},
		{"ticket deleted by the migration", []string{
			`UPDATE Tickets SET Status = 'deleted' WHERE Subject = 'A long thread'`,
			`INSERT INTO Transactions (ObjectType, ObjectId, Type, Field, OldValue, NewValue, Creator) SELECT 'RT::Ticket', t.id, 'Status', 'Status', 'open', 'deleted', u.id FROM Tickets t, Users u WHERE t.Subject = 'A long thread' AND u.Name = 'deltadesk'`,
		}, func(r Result) int { return r.Differences }},
		{"ticket twice", []string{
			`INSERT INTO Tickets (id, EffectiveId, Queue, Type, Owner, Subject, Status, Creator) SELECT 5000, 5000, Queue, Type, Owner, Subject, Status, Creator FROM Tickets WHERE Subject = 'A long thread'`,
			`INSERT INTO ObjectCustomFieldValues (CustomField, ObjectType, ObjectId, Content) SELECT 900, 'RT::Ticket', 5000, v.Content FROM ObjectCustomFieldValues v JOIN Tickets t ON t.id = v.ObjectId WHERE v.CustomField = 900 AND t.Subject = 'A long thread'`,
		}, func(r Result) int { return r.Doubled }},
		{"ticket without its mark", []string{
			`INSERT INTO Tickets (id, EffectiveId, Queue, Type, Owner, Subject, Status) VALUES (5000, 5000, 1, 'ticket', 6, 'x', 'new')`,
			`INSERT INTO Transactions (ObjectType, ObjectId, Type, Creator) SELECT 'RT::Ticket', 5000, 'Create', id FROM Users WHERE Name = 'deltadesk'`,
		}, func(r Result) int { return r.Doubled }},
		{"entry twice", []string{
			`INSERT INTO Transactions (id, ObjectType, ObjectId, Type, Creator, Created) SELECT 99999, ObjectType, ObjectId, Type, Creator, Created FROM Transactions WHERE id = ` + entry,
			`INSERT INTO Attachments (TransactionId, Parent, Subject, Filename, ContentType, ContentEncoding, Content) SELECT 99999, 0, Subject, Filename, ContentType, ContentEncoding, Content FROM Attachments WHERE TransactionId = ` + entry,
		}, func(r Result) int { return r.Doubled }},
		{"the same comment twice", []string{
			`INSERT INTO Transactions (id, ObjectType, ObjectId, Type, Creator, Created) SELECT 99999, ObjectType, ObjectId, Type, Creator, Created FROM Transactions WHERE Type = 'Comment' AND ObjectType = 'RT::Ticket' AND ObjectId > 1000 ORDER BY id LIMIT 1`,
			`INSERT INTO Attachments (TransactionId, Parent, Subject, Filename, ContentType, ContentEncoding, Content) SELECT 99999, 0, Subject, Filename, ContentType, ContentEncoding, Content FROM Attachments WHERE TransactionId = (SELECT id FROM Transactions WHERE Type = 'Comment' AND ObjectType = 'RT::Ticket' ORDER BY id LIMIT 1)`,
		}, func(r Result) int { return r.Doubled }},
		{"order", []string{
			`UPDATE Transactions SET id = 99999 WHERE id = ` + entry,
			`UPDATE Attachments SET TransactionId = 99999 WHERE Content LIKE '%Entry 5:%'`,
		}, func(r Result) int { return r.Differences }},
		{"subject", []string{`UPDATE Tickets SET Subject = 'A longer thread' WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Differences }},
		{"status", []string{`UPDATE Tickets SET Status = 'resolved' WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Differences }},
		{"priority", []string{`UPDATE Tickets SET Priority = Priority + 1 WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Differences }},
		{"queue", []string{`UPDATE Tickets SET Queue = 1 WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Differences }},
		{"owner", []string{`UPDATE Tickets SET Owner = 6 WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Differences }},
		{"due", []string{`UPDATE Tickets SET Due = '2030-01-01 00:00:00' WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Differences }},
		{"created", []string{`UPDATE Tickets SET Created = '2030-01-01 00:00:00' WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Differences }},
		{"time worked", []string{`UPDATE Tickets SET TimeWorked = TimeWorked + 1 WHERE Subject = 'A long thread'`}, func(r Result) int { return r.Differences }},
		{"watcher", []string{`DELETE FROM GroupMembers WHERE GroupId IN (SELECT g.id FROM Groups g JOIN Tickets t ON t.id = g.Instance WHERE g.Domain = 'RT::Ticket-Role' AND g.Name = 'Cc' AND t.Subject = 'A long thread')`}, func(r Result) int { return r.Differences }},
		{"custom field", []string{`UPDATE ObjectCustomFieldValues SET Content = 'mm' WHERE Content = 'µm²'`}, func(r Result) int { return r.Differences }},
		{"a value of several", []string{`DELETE FROM ObjectCustomFieldValues WHERE Content = 'third'`}, func(r Result) int { return r.Differences }},
		{"long custom field", []string{`UPDATE ObjectCustomFieldValues SET LargeContent = LargeContent || 'x' WHERE LargeContent <> ''`}, func(r Result) int { return r.Differences }},
		{"link gone", []string{`DELETE FROM Links WHERE Type = 'DependsOn'`}, func(r Result) int { return r.Lost }},
		{"link turned", []string{`UPDATE Links SET LocalBase = LocalTarget, LocalTarget = LocalBase WHERE Type = 'MemberOf'`}, func(r Result) int { return r.Differences }},
		{"merged ticket on its own", []string{
			`UPDATE Tickets SET EffectiveId = id WHERE id = (SELECT min(id) FROM Tickets WHERE EffectiveId <> id)`,
			`INSERT INTO ObjectCustomFieldValues (CustomField, ObjectType, ObjectId, Content) SELECT 900, 'RT::Ticket', id, 'ticket/' || (id - 1000) FROM Tickets WHERE id NOT IN (SELECT ObjectId FROM ObjectCustomFieldValues WHERE CustomField = 900) AND EffectiveId = id`,
		}, func(r Result) int { return r.Differences }},
		{"a person twice", []string{`INSERT INTO Users (id, Name, EmailAddress, Creator) VALUES (90000, 'ana2', 'ANA@cust.example', 1)`}, func(r Result) int { return r.Doubled }},
		{"a person's name", []string{`UPDATE Users SET RealName = 'Anna', Creator = (SELECT id FROM Users WHERE Name = 'deltadesk') WHERE EmailAddress = 'ana@cust.example'`}, func(r Result) int { return r.Differences }},
		{"author not told", []string{`UPDATE Attachments SET Content = replace(Content, '@', ' at ') WHERE TransactionId = ` + entry + ` AND Content LIKE '[%'`,
			`UPDATE Attachments SET Content = replace(Content, 'agent', 'someone') WHERE TransactionId = ` + entry + ` AND Content LIKE '[%'`}, func(r Result) int { return r.Differences }},
		{"time not told", []string{`UPDATE Attachments SET Content = replace(Content, '20', '19') WHERE TransactionId = ` + entry + ` AND Content LIKE '[%'`}, func(r Result) int { return r.Differences }},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := spoiled(t, good, c.sql)
			r := check(file)
			if c.sum(r) == 0 {
				t.Errorf("not found: %s\n%s", r, strings.Join(r.Details, "\n"))
			} else if n := r.Lost + r.Doubled + r.Differences; n > 20 && c.name != "ticket gone" {
				t.Errorf("one fault gives %d findings: %s\n%s", n, r, strings.Join(r.Details, "\n"))
			}
		})
	}
}

// spoiled is a copy of a database in which something was changed.
func spoiled(t *testing.T, good string, sql []string) string {
	t.Helper()
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "spoiled.sqlite3")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	execAll(t, file, sql)
	return file
}

// TestOracleUndated: a target that goes by its own clock must tell in the thread when a ticket was made.
func TestOracleUndated(t *testing.T) {
	srcFile, script := liveSource(t)
	good := filepath.Join(t.TempDir(), "good.sqlite3")
	perfect(t, srcFile, good)
	src, err := readState(t.Context(), srcFile)
	if err != nil {
		t.Fatal(err)
	}
	const ticket = `(SELECT min(id) FROM Tickets t WHERE Status <> 'deleted' AND EffectiveId = id AND NOT EXISTS
		(SELECT 1 FROM Transactions x WHERE x.ObjectType = 'RT::Ticket' AND x.ObjectId = t.id AND x.Created = t.Created))`
	const other = `UPDATE Tickets SET Created = '2030-01-01 00:00:00' WHERE `
	note := func(kind, at string) []string {
		return []string{
			`INSERT INTO Transactions (id, ObjectType, ObjectId, Type, Creator, Created) SELECT 99999, 'RT::Ticket', ` + ticket + `, '` + kind + `', id, '2030-01-01 00:00:00' FROM Users WHERE Name = 'deltadesk'`,
			`INSERT INTO Attachments (TransactionId, Parent, ContentType, ContentEncoding, Content, Creator) SELECT 99999, 0, 'text/plain', 'none', '[acme/fields/1/x]' || char(10) || char(10) || 'Created: ' || ` + at + `, 1`,
			other + `id = ` + ticket,
		}
	}
	told := `(SELECT replace(Created, ' ', 'T') || 'Z' FROM Tickets WHERE id = ` + ticket + `)`
	for _, c := range []struct {
		name string
		sql  []string
		want Result
	}{
		{"an entry of the same second tells it", []string{other + `Subject = 'A long thread'`}, Result{Undated: 1}},
		{"a note tells it", note("Comment", told), Result{Undated: 1, Noted: 1, Notes: 1}},
		{"a note tells something else", note("Comment", `'2025-01-01T00:00:00Z'`), Result{Differences: 1, Notes: 1}},
		{"everybody sees the note", note("Correspond", told), Result{Differences: 2}},
		{"nothing tells it", []string{other + `id = ` + ticket}, Result{Differences: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := spoiled(t, good, c.sql)
			dst, err := readState(t.Context(), file)
			if err != nil {
				t.Fatal(err)
			}
			r := (&Oracle{Script: script, Undated: true}).judge(src, dst, nil)
			if r.Undated != c.want.Undated || r.Noted != c.want.Noted || r.Notes != c.want.Notes || r.Differences != c.want.Differences || r.Lost+r.Doubled+r.Overwritten > 0 {
				t.Errorf("%d undated, %d noted, %d notes, %s\n%s", r.Undated, r.Noted, r.Notes, r, strings.Join(r.Details, "\n"))
			}
		})
	}
}

func execAll(t *testing.T, file string, qs []string) {
	t.Helper()
	db, err := openDB(file, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func(db *sql.DB) { _ = db.Close() }(db)
	for _, q := range qs {
		res, err := db.Exec(q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			t.Fatalf("changes nothing: %s", q)
		}
	}
}

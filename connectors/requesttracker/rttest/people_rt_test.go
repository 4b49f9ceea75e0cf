//go:build rt

package rttest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// install makes the live target a perfect copy of the live source.
func install(t *testing.T, srcFile string, dst *Server) {
	t.Helper()
	ctx := t.Context()
	if err := dst.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for _, ext := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(dst.DBFile + ext)
	}
	perfect(t, srcFile, dst.DBFile)
	execAll(t, dst.DBFile, []string{
		`INSERT INTO ObjectCustomFields (CustomField, ObjectId, SortOrder, Creator) VALUES (900, 0, 9, 1)`,
		`UPDATE Links SET Base = 'fsck.com-rt://dst.example/ticket/' || LocalBase WHERE LocalBase > 0 AND Type <> 'MergedInto'`,
		`UPDATE Links SET Target = 'fsck.com-rt://dst.example/ticket/' || LocalTarget WHERE LocalTarget > 0 AND Type <> 'MergedInto'`,
	})
	if out, err := exec.Command("chown", "www-data:www-data", dst.DBFile).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_ = os.Remove(dst.MailLog)
	if _, err := Up(ctx, dst.Name, dst.port, dst.dir, dst.opts); err != nil {
		t.Fatal(err)
	}
}

// TestPeople: people work on both desks; what they do on the target is theirs, what the migration does over it is found,
// and mails are put down to who caused them.
func TestPeople(t *testing.T) {
	ctx := t.Context()
	file, script := liveSource(t)
	src, _ := seededSource(t)
	dst := renew(t, TargetRole)
	install(t, file, dst)
	p, err := NewPeople(src, dst, script, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o := &Oracle{Source: src, Target: dst, Script: script, MaxDetails: 400}
	check := func() Result {
		t.Helper()
		r, err := o.Check(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := check(); !r.OK() {
		t.Fatalf("before: %s\n%s", r, strings.Join(r.Details, "\n"))
	}
	t0 := time.Now()
	if err := p.Run(ctx, 150); err != nil {
		t.Fatal(err)
	}
	t.Logf("150 actions in %v", time.Since(t0))
	did := map[string]int{}
	for _, a := range script.Actions()[len(script.Actions())-140:] {
		did[string(a.Side)+" "+a.Do+" "+a.Field]++
	}
	t.Log(did)
	r := check()
	t.Logf("%s, %d held, %d kept, %d mails of people", r, len(r.Held), len(r.Kept), r.PeopleMails)
	for _, d := range r.Details {
		if strings.HasPrefix(d, "difference: source ticket") && strings.Contains(d, "target ticket") || strings.HasPrefix(d, "lost") {
			continue // nothing has been migrated since
		}
		if strings.Contains(d, "was merged into") {
			continue
		}
		t.Error(d)
	}
	if r.Overwritten != 0 || r.Mails != 0 || r.PeopleMails == 0 || r.Lost == 0 || r.Differences == 0 {
		t.Errorf("%s, mails of people %d", r, r.PeopleMails)
	}

	// The migration goes over people's work.
	var a Action
	for _, x := range script.Actions() {
		if x.Side == TargetRole && x.Field == "Priority" {
			a = x
		}
	}
	m := hands{s: dst, script: newScript(0)}
	if err := m.set(ctx, MigrationUser, a.Ticket, 0, map[string]any{"Priority": 1}); err != nil {
		t.Fatal(err)
	}
	if got := check(); got.Overwritten != r.Overwritten+1 {
		t.Errorf("a field set by people was overwritten: %s", got)
	}
	if err := m.set(ctx, MigrationUser, a.Ticket, 0, map[string]any{"Priority": priority(t, src, a.Source)}); err != nil {
		t.Fatal(err)
	}
	if got := check(); got.Overwritten != r.Overwritten+1 {
		t.Errorf("a field set by people was replaced by the source's value: %s", got)
	}
	if err := m.say(ctx, MigrationUser, "correspond", a.Ticket, 0, "text/plain", "[acme] mails", 0); err != nil {
		t.Fatal(err)
	}
	if got := check(); got.Mails == 0 {
		t.Errorf("the migration mailed: %s", got)
	}
	var reply Action
	for _, x := range script.Actions() {
		if x.Side == TargetRole && x.Do == "reply" {
			reply = x
		}
	}
	execAll(t, dst.DBFile, []string{fmt.Sprintf(`UPDATE Attachments SET Content = 'changed' WHERE TransactionId = %d`, reply.Txn)})
	if got := check(); got.Overwritten < r.Overwritten+2 {
		t.Errorf("a reply of the target's people was changed: %s", got)
	}
	// And into the source.
	if err := (&hands{s: src, script: newScript(0)}).set(ctx, MigrationUser, script.Live()[3], 0, map[string]any{"Priority": 77}); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range check().Details {
		found = found || strings.Contains(d, "was made by the migration") && strings.Contains(d, "source ticket")
	}
	if !found {
		t.Error("the migration wrote to the source, and nobody noticed")
	}
}

// TestMergedInTarget: where people of the target merge migrated tickets, their threads are one, and nothing else is forgiven.
func TestMergedInTarget(t *testing.T) {
	ctx := t.Context()
	file, script := liveSource(t)
	src, _ := seededSource(t)
	dst := renew(t, TargetRole)
	install(t, file, dst)
	p, err := NewPeople(src, dst, script, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o := &Oracle{Source: src, Target: dst, Script: script}
	check := func() Result {
		t.Helper()
		r, err := o.Check(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	live := script.Live()
	a, b := live[len(live)-1], live[len(live)-2]
	if err := p.Merge(ctx, TargetRole, a, b); err != nil {
		t.Fatal(err)
	}
	before := check()
	if !before.OK() {
		t.Fatalf("merged in the target: %s\n%s", before, strings.Join(before.Details, "\n"))
	}
	if err := p.Write(ctx, a); err != nil {
		t.Fatal(err)
	}
	if r := check(); r.Lost != 1 {
		t.Errorf("an answer that has not come over: %s", r)
	}
	id, err := dst.IDs(ctx, fmt.Sprintf(`SELECT min(t.id) FROM Transactions t JOIN Attachments x ON x.TransactionId = t.id
		WHERE t.ObjectType = 'RT::Ticket' AND t.ObjectId = %d AND t.Type IN ('Create', 'Correspond', 'Comment') AND x.ContentType = 'text/plain'`, a+1000))
	if err != nil {
		t.Fatal(err)
	}
	// The same entry once more, in the survivor.
	if err := dst.Exec(ctx,
		fmt.Sprintf(`INSERT INTO Transactions (id, ObjectType, ObjectId, Type, Creator, Created) SELECT 99999, ObjectType, %d, 'Correspond', Creator, Created FROM Transactions WHERE id = %d`, b+1000, id[0]),
		fmt.Sprintf(`INSERT INTO Attachments (TransactionId, Parent, Subject, Filename, ContentType, ContentEncoding, Content) SELECT 99999, 0, Subject, Filename, ContentType, ContentEncoding, Content FROM Attachments WHERE TransactionId = %d`, id[0])); err != nil {
		t.Fatal(err)
	}
	if r := check(); r.Doubled != 1 {
		t.Errorf("an entry is in both threads: %s\n%s", r, strings.Join(r.Details, "\n"))
	}
	// Nobody's merge but the migration's.
	if err := dst.Exec(ctx, `UPDATE Transactions SET Creator = (SELECT id FROM Users WHERE Name = 'deltadesk') WHERE Field = 'MergedInto' AND NewValue LIKE '%/`+fmt.Sprint(b+1000)+`'`); err != nil {
		t.Fatal(err)
	}
	if r := check(); r.Differences == 0 {
		t.Errorf("the migration merged what is not merged in the source: %s", r)
	}
}

// TestPicture: what is deleted is gone, and nothing else that people see changes unnoticed.
func TestPicture(t *testing.T) {
	ctx := t.Context()
	dst := renew(t, TargetRole)
	script := newScript(1)
	if err := SeedTarget(ctx, dst, script); err != nil {
		t.Fatal(err)
	}
	picture := func() Picture {
		t.Helper()
		p, err := dst.Picture(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	before := picture()
	h := hands{s: dst, script: script}
	id, err := h.create(ctx, MigrationUser, "", map[string]any{"Queue": "General", "Subject": "x", "Requestor": []string{"x@x.example"}, "ContentType": "text/plain", "Content": "x"})
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := before.Diff(picture()); n == 0 {
		t.Error("a new ticket changes nothing")
	}
	if _, err := dst.call(ctx, MigrationUser, "DELETE", fmt.Sprintf("/ticket/%d", id), nil, nil); err != nil {
		t.Fatal(err)
	}
	if n, places := before.Diff(picture()); n != 0 {
		t.Errorf("a ticket came and went: %v", places)
	}
	for _, q := range []string{
		`UPDATE Tickets SET Priority = 7 WHERE id = 1`, `UPDATE Attachments SET Content = 'y' WHERE TransactionId = (SELECT min(TransactionId) FROM Attachments WHERE ContentType = 'text/plain')`,
		`UPDATE ObjectCustomFieldValues SET Content = 'y' WHERE ObjectId = 1 AND Content = 'ORD-00002'`, `UPDATE Transactions SET Type = 'Correspond' WHERE Type = 'Comment'`,
		`DELETE FROM GroupMembers WHERE GroupId IN (SELECT id FROM Groups WHERE Domain = 'RT::Ticket-Role' AND Name = 'Requestor' AND Instance = 1)`,
	} {
		was := picture()
		if err := dst.Exec(ctx, q); err != nil {
			t.Fatal(err)
		}
		if n, _ := was.Diff(picture()); n == 0 {
			t.Errorf("not noticed: %s", q)
		}
	}
}

// TestSeedTarget: the target's own tickets, and Reset.
func TestSeedTarget(t *testing.T) {
	ctx := t.Context()
	dst := renew(t, TargetRole)
	script := newScript(1)
	t0 := time.Now()
	if err := SeedTarget(ctx, dst, script); err != nil {
		t.Fatal(err)
	}
	t.Logf("seeded in %v", time.Since(t0))
	if lines, err := dst.mails(); err != nil || len(lines) != 0 {
		t.Errorf("%d mails, %v", len(lines), err)
	}
	h := hands{s: dst, script: script.Clone()}
	if _, err := h.create(ctx, MigrationUser, "", map[string]any{"Queue": "General", "Subject": "x", "Requestor": []string{"x@x.example"}, "ContentType": "text/plain", "Content": "x"}); err != nil {
		t.Fatal(err)
	}
	if lines, err := dst.mails(); err != nil || len(lines) != 1 || lines[0].By != MigrationUser {
		t.Errorf("mails %+v, %v", lines, err)
	}
	t0 = time.Now()
	if err := dst.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("reset in %v", time.Since(t0))
	s, err := readState(ctx, dst.DBFile)
	if err != nil || len(s.tickets) != 7 {
		t.Errorf("after the reset %d tickets, %v", len(s.tickets), err)
	}
}

func priority(t *testing.T, s *Server, ticket int64) string {
	t.Helper()
	st, err := readState(t.Context(), s.DBFile)
	if err != nil {
		t.Fatal(err)
	}
	return st.tickets[ticket].fields["priority"]
}

package rttest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// customers who write mails and are put on tickets. Some have no name, one writes in capitals.
var customers = []string{
	`Ana Example <ana@cust.example>`, `bob@cust.example`, `=?utf-8?Q?Zo=C3=AB_Gr=C3=BCn?= <zoe@cust.example>`, `<noah@cust.example>`,
	`"Kim, Q." <kim@cust.example>`, `Pat O'Neil <pat@corp.example>`, `nameless@corp.example`, `=?utf-8?B?5bGx55Sw?= <yamada@corp.example>`,
	`Max Mustermann <max@corp.example>`, `LOUD@CORP.EXAMPLE`, `Eve <eve@third.example>`, `info@third.example`,
}

func address(header string) string {
	if i := strings.LastIndexByte(header, '<'); i >= 0 {
		return strings.TrimSuffix(header[i+1:], ">")
	}
	return header
}

// Seed fills the source with some 230 tickets: the mails of the corpus through the mail gateway, and a help desk's ordinary
// and extraordinary life over REST. Then it moves all times into the past, switches the notification scrips on and takes a
// snapshot, so that Reset returns to the seeded state (go on with a Clone of the script then). It takes about half a
// minute. The same seed gives the same tickets under the same ids.
func Seed(ctx context.Context, src *Server, seed int64) (*Script, error) {
	s := &seeder{every: 1, ordinary: 150}
	return s.seed(ctx, src, seed, s.mails, s.desk, s.thread, s.links, s.merges, s.ends)
}

// SeedSmall is Seed with some 50 tickets, in a few seconds: ordinary ones, some of the corpus, two that were merged and one
// that was deleted.
func SeedSmall(ctx context.Context, src *Server, seed int64) (*Script, error) {
	s := &seeder{every: 6, ordinary: 36}
	return s.seed(ctx, src, seed, s.mails, s.desk, func(ctx context.Context) error {
		p := s.plain[20:]
		return errors.Join(
			s.link(ctx, p[0], "RefersTo", p[1], "https://tracker.example/bug/1"),
			s.merge(ctx, "agent1", p[2], p[3]),
			s.remove(ctx, "agent1", p[4]),
		)
	})
}

func (s *seeder) seed(ctx context.Context, src *Server, seed int64, steps ...func(context.Context) error) (*Script, error) {
	db, err := src.readDB()
	if err != nil {
		return nil, err
	}
	defer db.Close()
	script := newScript(seed)
	s.hands = hands{s: src, db: db, script: script, prefix: "seed"}
	s.rng, s.byName, s.made = rand.New(rand.NewPCG(uint64(seed), 1)), map[string]int64{}, map[int64]string{}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("seed %s: %w", src.Name, err)
		}
	}
	if err := age(ctx, src, seed, s.made); err != nil {
		return nil, fmt.Errorf("seed %s: %w", src.Name, err)
	}
	if err := src.SetScrips(ctx, true); err != nil {
		return nil, err
	}
	return script, src.Snapshot(ctx)
}

type seeder struct {
	hands
	every    int // one in so many mails of the corpus; with more than 1 none that replies
	ordinary int // tickets
	rng      *rand.Rand
	byName   map[string]int64 // tickets by the name of what made them
	plain    []int64          // ordinary tickets, free for any use
	made     map[int64]string // when they were made; REST does not take it any more since Debian's 5.0.3+dfsg-3~deb12u7
}

func (s *seeder) mails(ctx context.Context) error {
	for i, m := range corpus(s.rng) {
		if i%s.every != 0 || s.every > 1 && m.replyTo != "" {
			continue
		}
		to := int64(0)
		if m.replyTo != "" {
			if to = s.byName[m.replyTo]; to == 0 {
				return fmt.Errorf("corpus: %s replies to %s, which there is not", m.name, m.replyTo)
			}
		}
		id, err := s.mail(ctx, m, to)
		if err != nil {
			return err
		}
		s.byName[m.name] = id
	}
	return nil
}

var (
	regions  = []string{"EMEA", "APAC", "AMER"}
	tagWords = []string{"vip", "eu", "größer", "bug", "to, do", "a/b", "日本", "urgent"}
	words    = strings.Fields("printer invoice login delivery café contract réseau shipment パスワード server refund naïve order bill тест phone update крыша screen backup")
)

func (s *seeder) sentence(n int) string {
	w := make([]string, n)
	for i := range w {
		w[i] = words[s.rng.IntN(len(words))]
	}
	return strings.Join(w, " ")
}

func (s *seeder) agent() string { return Agents[s.rng.IntN(len(Agents))] }

func past(rng *rand.Rand) time.Time {
	return time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rng.IntN(400*24*3600)) * time.Second)
}

func stamp(t time.Time) string { return t.UTC().Format(time.DateTime) }

// desk makes ordinary tickets with every kind of field.
func (s *seeder) desk(ctx context.Context) error {
	// A customer with an account and no address.
	if _, err := s.s.call(ctx, s.s.User, "POST", "/user", map[string]any{"Name": "walkin", "RealName": "Walk-in Customer"}, nil); err != nil {
		return err
	}
	for i := range s.ordinary {
		made := past(s.rng)
		f := map[string]any{
			"Queue": []string{"General", "Support"}[s.rng.IntN(2)], "Subject": fmt.Sprintf("%s %d", s.sentence(2+s.rng.IntN(4)), i),
			"Requestor":   []string{address(customers[s.rng.IntN(len(customers))])},
			"ContentType": "text/plain", "Content": fmt.Sprintf("Ticket %d of the desk.\n\n%s\n", i, s.sentence(12)),
		}
		if i%3 == 0 {
			f["ContentType"], f["Content"] = "text/html", fmt.Sprintf("<p>Ticket %d of the desk.</p>\n<ul><li>%s</li></ul>", i, s.sentence(8))
		}
		if i%4 != 3 {
			f["Owner"] = s.agent()
		}
		if i%5 == 0 {
			f["Cc"] = []string{address(customers[s.rng.IntN(len(customers))]), "cc" + fmt.Sprint(i%7) + "@corp.example"}
		}
		if i%7 == 0 {
			f["AdminCc"] = []string{"agent3@desk.example", "lead@corp.example"}
		}
		if i%6 == 1 {
			f["Requestor"] = []string{address(customers[0]), address(customers[i%len(customers)]), "third@third.example"}
		}
		if i%31 == 30 {
			f["Requestor"] = []string{"walkin"}
		}
		if i == 17 {
			delete(f, "Requestor")
		}
		f["Priority"] = s.rng.IntN(100)
		if i%4 == 1 {
			f["Due"] = stamp(made.Add(time.Duration(1+s.rng.IntN(2000)) * time.Hour))
		}
		if i%9 == 2 {
			f["Starts"] = stamp(made.Add(time.Hour))
		}
		if i%8 == 3 {
			f["TimeWorked"], f["TimeEstimated"], f["TimeLeft"] = s.rng.IntN(500), 600, 60+s.rng.IntN(60)
		}
		switch i % 6 {
		case 1, 2:
			f["Status"], f["Started"] = "open", stamp(made.Add(90*time.Second))
		case 3:
			f["Status"], f["Started"] = "open", stamp(made.Add(2*time.Hour))
		case 4:
			f["Status"], f["Started"], f["Resolved"] = "resolved", stamp(made.Add(time.Hour)), stamp(made.Add(72*time.Hour))
		}
		cf := map[string]any{}
		if i%2 == 0 {
			cf["Region"] = regions[s.rng.IntN(3)]
		}
		if i%3 == 1 {
			cf["Tags"] = []string{tagWords[i%len(tagWords)], tagWords[(i+3)%len(tagWords)]}
		}
		if i%4 == 2 {
			cf["Order No"] = fmt.Sprintf("ORD-%05d", i)
		}
		if i%10 == 5 {
			cf["Maßeinheit"] = "µm²"
		}
		if i%12 == 6 {
			cf["Steps"] = "1. open it\n2. " + strings.Repeat(s.sentence(10)+"\n", 1+i/12) // beyond 255 characters for larger i
		}
		if len(cf) > 0 {
			f["CustomFields"] = cf
		}
		var files []sentFile
		if i%11 == 4 {
			files = append(files, sentFile{fmt.Sprintf("file-%d.bin", i), "application/octet-stream", randomBytes(s.rng, 500+s.rng.IntN(9000))})
		}
		id, err := s.create(ctx, s.agent(), fmt.Sprintf("desk-%d", i), f, files...)
		if err != nil {
			return err
		}
		s.plain, s.made[id] = append(s.plain, id), stamp(made)
		if i%6 == 3 { // RT takes new, open and resolved from a new ticket, nothing else
			if err := s.set(ctx, s.agent(), id, id, map[string]any{"Status": "stalled"}); err != nil {
				return err
			}
		}
		for j := range s.rng.IntN(3) {
			if err := s.entry(ctx, id, j); err != nil {
				return err
			}
		}
	}
	// Changes after creation.
	for i, id := range s.plain[:min(40, len(s.plain))] {
		f := map[string]any{}
		switch i % 8 {
		case 0:
			f["Queue"] = []string{"General", "Support"}[i/8%2]
		case 1:
			f["Owner"] = s.agent()
		case 2:
			f["Priority"] = 100 + i
		case 3:
			f["Subject"] = "Renamed: " + s.sentence(3)
		case 4:
			f["CustomFields"] = map[string]any{"Tags": []string{"later", tagWords[i%len(tagWords)], "third"}}
		case 5:
			f["Requestor"] = []string{"new.owner@corp.example", address(customers[i%len(customers)])}
		case 6:
			f["Due"], f["TimeWorked"] = stamp(past(s.rng)), 17+i
		case 7:
			f["Status"] = "rejected"
		}
		if err := s.set(ctx, s.agent(), id, id, f); err != nil {
			return err
		}
	}
	return nil
}

// entry adds a reply or a comment to an ordinary ticket.
func (s *seeder) entry(ctx context.Context, id int64, j int) error {
	switch s.rng.IntN(5) {
	case 0:
		return s.say(ctx, s.agent(), "comment", id, id, "text/plain", "Internal: "+s.sentence(9), s.rng.IntN(2)*5)
	case 1:
		return s.say(ctx, s.agent(), "correspond", id, id, "text/html", "<p>Dear customer,</p><p>"+s.sentence(9)+"</p>", 0)
	case 2:
		return s.say(ctx, s.agent(), "correspond", id, id, "text/plain", "Dear customer,\n\n"+s.sentence(20)+"\n", 0,
			sentFile{"größe-日本.bin", "application/octet-stream", randomBytes(s.rng, 300)}, sentFile{"leer.bin", "application/octet-stream", nil})
	default:
		_, err := s.mail(ctx, message{name: fmt.Sprintf("answer-%d-%d", id, j), from: customers[s.rng.IntN(len(customers))], subject: "answer",
			body: body("plain", "utf-8", "8bit", "Dear desk,\r\n\r\n"+s.sentence(10)+"\r\n")}, id)
		return err
	}
}

// thread makes a ticket of 120 entries, many within one second, some the same, some with a file.
func (s *seeder) thread(ctx context.Context) error {
	id, err := s.create(ctx, "agent1", "thread", map[string]any{"Queue": "Support", "Subject": "A long thread", "Requestor": []string{"ana@cust.example"},
		"Cc": []string{"bob@cust.example"}, "Owner": "agent2", "ContentType": "text/plain", "Content": "It begins.\n"})
	if err != nil {
		return err
	}
	s.byName["thread"] = id
	for i := 1; i < 120; i++ {
		text := fmt.Sprintf("Entry %d: %s\n", i, s.sentence(6))
		switch {
		case i%10 == 0:
			text = "Ping?\n"
		case i%17 == 0:
			text = strings.Repeat(s.sentence(200)+"\n", 10)
		}
		switch i % 4 {
		case 0:
			_, err = s.mail(ctx, message{name: fmt.Sprintf("thread-%d", i), from: customers[0], subject: "A long thread", body: body("plain", "utf-8", "8bit", text)}, id)
		case 1:
			var files []sentFile
			if i%5 == 0 {
				files = append(files, sentFile{fmt.Sprintf("t%d.bin", i), "application/octet-stream", randomBytes(s.rng, 2000)})
			}
			err = s.say(ctx, s.agent(), "correspond", id, id, "text/plain", text, 0, files...)
		case 2:
			err = s.say(ctx, s.agent(), "comment", id, id, "text/plain", text, 1)
		default:
			err = s.say(ctx, s.agent(), "correspond", id, id, "text/html", "<p>"+strings.TrimSpace(text)+"</p>", 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *seeder) link(ctx context.Context, from int64, kind string, to ...any) error {
	var said []string
	if _, err := s.s.call(ctx, s.agent(), "PUT", fmt.Sprintf("/ticket/%d", from), map[string]any{"Add" + kind: to}, &said); err != nil {
		return err
	}
	s.script.log(Action{Side: s.s.opts.Role, Who: "agent", Do: "link", Ticket: from, Source: from, Field: kind, Value: fmt.Sprint(to...)}, nil)
	return nil
}

func (s *seeder) links(ctx context.Context) error {
	p := s.plain[40:]
	return errors.Join(
		s.link(ctx, p[0], "RefersTo", p[1], p[2]), s.link(ctx, p[1], "RefersTo", p[0]), // a circle
		s.link(ctx, p[3], "DependsOn", p[4]), s.link(ctx, p[5], "DependsOn", p[4]),
		s.link(ctx, p[6], "Parent", p[7]), s.link(ctx, p[8], "Parent", p[7]), s.link(ctx, p[7], "Parent", p[9]),
		s.link(ctx, p[10], "RefersTo", "https://tracker.example/bug?id=7&x=ä", "https://tracker.example/bug?id=8"),
		s.link(ctx, p[11], "DependsOn", "https://tracker.example/bug/9"),
		s.link(ctx, s.byName["alt-same"], "RefersTo", s.byName["thread"], p[3]),
		s.link(ctx, p[40], "RefersTo", p[41]), // p[41] will be deleted
		s.link(ctx, p[42], "RefersTo", p[12]), // p[12] will be merged
	)
}

func (s *seeder) merges(ctx context.Context) error {
	p := s.plain[52:]
	if err := errors.Join(
		s.merge(ctx, "agent1", p[0], p[1]),                                     // into a newer one
		s.merge(ctx, "agent1", p[3], p[2]),                                     // into an older one
		s.merge(ctx, "agent2", p[4], p[5]), s.merge(ctx, "agent2", p[5], p[6]), // a chain
		s.merge(ctx, "agent2", p[7], p[9]), s.merge(ctx, "agent2", p[8], p[9]), // two into one
		s.merge(ctx, "agent1", s.byName["twin-1"], s.byName["twin-0"]),
	); err != nil {
		return err
	}
	// Replies to numbers that are gone, after the merge: they are written to the survivor.
	for _, f := range []struct{ old, now int64 }{{p[0], p[1]}, {p[4], p[6]}} {
		h := s.hands
		h.prefix = "merged"
		m := message{name: fmt.Sprintf("to-%d", f.old), from: customers[1], subject: "to the old number", body: body("plain", "utf-8", "8bit", "To the old number.\r\n")}
		if _, err := h.mail(ctx, m, f.old); err != nil {
			return err
		}
		if err := s.say(ctx, "agent1", "correspond", f.now, f.now, "text/plain", "After the merge.\n", 0); err != nil {
			return err
		}
	}
	return nil
}

// ends: deleted, resolved, rejected, reopened.
func (s *seeder) ends(ctx context.Context) error {
	p := s.plain[40:]
	for _, id := range []int64{p[41], p[50], p[51], s.byName["charset-1-utf-8"], s.byName["list-mail"]} {
		if err := s.remove(ctx, "agent1", id); err != nil {
			return err
		}
	}
	for i, id := range s.plain[105:120] {
		status := []string{"resolved", "rejected", "stalled"}[i%3]
		if err := s.set(ctx, s.agent(), id, id, map[string]any{"Status": status}); err != nil {
			return err
		}
		if i%5 == 0 { // reopened by the customer
			m := message{name: fmt.Sprintf("reopen-%d", id), from: customers[0], subject: "still broken", body: body("plain", "utf-8", "8bit", "It is still broken.\r\n")}
			if _, err := s.mail(ctx, m, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// age moves the times of every ticket's transactions into the past, in their order: as if the help desk had been used for
// two years until an hour ago. Several transactions of a ticket keep one and the same second. Times that the script has
// set itself (Started and so on in 2025) stay; made are the tickets that were made when their first transaction does not say.
func age(ctx context.Context, src *Server, seed int64, made map[int64]string) error {
	db, err := openDB(src.DBFile, false)
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	rows, err := tx.QueryContext(ctx, `SELECT id, ObjectId, Created FROM Transactions WHERE ObjectType = 'RT::Ticket' ORDER BY id`)
	if err != nil {
		return err
	}
	type txn struct {
		id, ticket int64
		at         string
	}
	var all []txn
	for rows.Next() {
		var t txn
		var at sql.NullString
		if err := rows.Scan(&t.id, &t.ticket, &at); err != nil {
			return err
		}
		t.at = dbTime(at.String)
		all = append(all, t)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(seed), 2))
	end := time.Now().Add(-time.Hour).Truncate(time.Second)
	at := end.AddDate(-2, 0, 0)
	step := end.Sub(at) / time.Duration(max(1, len(all)))
	for i, t := range all {
		if i == 0 || all[i-1].ticket != t.ticket || rng.IntN(3) == 0 {
			at = end.AddDate(-2, 0, 0).Add(time.Duration(i) * step).Truncate(time.Second)
		}
		now := stamp(at)
		for _, q := range []struct {
			sql  string
			args []any
		}{
			{`UPDATE Transactions SET Created = ? WHERE id = ?`, []any{now, t.id}},
			{`UPDATE Attachments SET Created = ? WHERE TransactionId = ?`, []any{now, t.id}},
			{`UPDATE Tickets SET Created = ? WHERE id = ? AND abs(strftime('%s', Created) - strftime('%s', ?)) <= 2`, []any{now, t.ticket, t.at}},
			{`UPDATE Tickets SET Started = ? WHERE id = ? AND abs(strftime('%s', Started) - strftime('%s', ?)) <= 2`, []any{now, t.ticket, t.at}},
			{`UPDATE Tickets SET Resolved = ? WHERE id = ? AND abs(strftime('%s', Resolved) - strftime('%s', ?)) <= 2`, []any{now, t.ticket, t.at}},
			{`UPDATE Tickets SET LastUpdated = ? WHERE id = ? OR id = (SELECT EffectiveId FROM Tickets WHERE id = ?)`, []any{now, t.ticket, t.ticket}},
		} {
			if _, err := tx.ExecContext(ctx, q.sql, q.args...); err != nil {
				return err
			}
		}
	}
	for id, at := range made {
		if _, err := tx.ExecContext(ctx, `UPDATE Tickets SET Created = ? WHERE id = ?`, at, id); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// dbTime brings a time of the database, which the driver may have parsed, back to RT's form.
func dbTime(s string) string {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return stamp(t)
	}
	return s
}

// ownCreated is what REST is told of when the target's own tickets were made.
const ownCreated = "2024-02-03 04:05:06"

// KeepsCreated tells whether a target that SeedTarget has filled has taken over when its tickets were made, as RT did before Debian's
// 5.0.3+dfsg-3~deb12u7.
func (s *Server) KeepsCreated(ctx context.Context) (bool, error) {
	ids, err := s.IDs(ctx, `SELECT id FROM Tickets WHERE Subject LIKE 'The target''s own ticket %' AND Created = '`+ownCreated+`'`)
	return len(ids) > 0, err
}

// SeedTarget gives the target a life of its own: tickets that nobody migrates, so that no number can be taken for free, and
// a customer who is known there under another login. It takes a snapshot of that and empties the mail log.
func SeedTarget(ctx context.Context, dst *Server, script *Script) error {
	for _, u := range []map[string]any{
		{"Name": "bobby", "EmailAddress": "bob@cust.example", "RealName": "Bob of the target"},
		{"Name": "Pat@Corp.example", "EmailAddress": "Pat@Corp.example"},
	} {
		if _, err := dst.call(ctx, dst.User, "POST", "/user", u, nil); err != nil {
			return err
		}
	}
	h := hands{s: dst, script: script, prefix: "own"}
	for i := range 7 {
		id, err := h.create(ctx, Agents[i%3], "", map[string]any{
			"Queue": []string{"General", "Support"}[i%2], "Subject": fmt.Sprintf("The target's own ticket %d", i), "Requestor": []string{address(customers[i])},
			"Created": ownCreated, "ContentType": "text/plain", "Content": "Of no concern to a migration.\n", "CustomFields": map[string]any{"Tags": []string{"own"}, "Order No": "ORD-00002"},
		})
		if err != nil {
			return err
		}
		if err := h.say(ctx, Agents[i%3], "comment", id, 0, "text/plain", "own comment", 0); err != nil {
			return err
		}
	}
	if err := os.Remove(dst.MailLog); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return dst.Snapshot(ctx)
}

package rttest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// People are the scripted customers and agents who work on both desks while a migration runs, or between its runs. Each
// action is finished, read back where the desk may refuse it, and logged in the Script before the next one begins. What is
// done follows from the seed; on the target also from which tickets have arrived there by then.
//
// A ticket of the target belongs to the source ticket that SourceID reads out of its custom field.
type People struct {
	source, target hands
	script         *Script
	rng            *rand.Rand
	n              int
	close          []func() error
}

// SourceID reads the source ticket's id out of the value of SourceIDField in the target: the whole value, or what stands
// behind its last slash. It and SourceIDField are what the harness knows of the connector's ways; see also StripHeader.
var (
	SourceIDField = "Deltadesk Source ID"
	SourceID      = func(value string) (int64, bool) {
		id, err := strconv.ParseInt(value[strings.LastIndexByte(value, '/')+1:], 10, 64)
		return id, err == nil
	}
)

// NewPeople prepares people. Close them in the end.
func NewPeople(source, target *Server, script *Script, seed int64) (*People, error) {
	p := &People{script: script, rng: rand.New(rand.NewPCG(uint64(seed), 3))}
	for _, x := range []struct {
		s *Server
		h *hands
	}{{source, &p.source}, {target, &p.target}} {
		db, err := x.s.readDB()
		if err != nil {
			return nil, err
		}
		p.close = append(p.close, db.Close)
		*x.h = hands{s: x.s, db: db, script: script, prefix: fmt.Sprintf("people%d", seed)}
	}
	return p, nil
}

// Close releases the databases.
func (p *People) Close() error {
	var errs []error
	for _, f := range p.close {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// Run does n actions one after the other. It stops early, without an error, when ctx is done between two actions.
func (p *People) Run(ctx context.Context, n int) error {
	for range n {
		if ctx.Err() != nil {
			return nil
		}
		// An action that has begun is brought to its end, else nobody would know whether it took place.
		if err := p.Step(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// Step does one action, on the source or on the target.
func (p *People) Step(ctx context.Context) error {
	p.n++
	onTarget, roll, pick := p.rng.IntN(100) < 40, p.rng.IntN(100), p.rng.Uint64()
	// One generator per action: what one action draws does not depend on what another one found.
	rng := rand.New(rand.NewPCG(uint64(p.n), pick))
	if onTarget {
		moved, err := migrated(ctx, p.target.db)
		if err != nil {
			return err
		}
		var both []int64
		for _, id := range p.script.Live() {
			if moved[id] != 0 {
				both = append(both, id)
			}
		}
		if len(both) > 0 {
			id := choose(rng, both)
			if err := p.onTarget(ctx, rng, roll, id, moved[id]); err != nil {
				return fmt.Errorf("people, action %d on the target: %w", p.n, err)
			}
			return nil
		}
	}
	if err := p.onSource(ctx, rng, roll); err != nil {
		return fmt.Errorf("people, action %d on the source: %w", p.n, err)
	}
	return nil
}

// choose prefers a dozen tickets, so that both sides and several people meet on the same ones.
func choose(rng *rand.Rand, ids []int64) int64 {
	if rng.IntN(2) == 0 {
		step := max(1, len(ids)/12)
		return ids[rng.IntN((len(ids)+step-1)/step)*step]
	}
	return ids[rng.IntN(len(ids))]
}

// migrated maps source ids to the ids of living tickets in the target.
func migrated(ctx context.Context, db *sql.DB) (map[int64]int64, error) {
	rows, err := db.QueryContext(ctx, `SELECT v.Content, t.id FROM ObjectCustomFieldValues v JOIN CustomFields f ON f.id = v.CustomField
		JOIN Tickets t ON t.id = v.ObjectId WHERE f.Name = ? AND v.ObjectType = 'RT::Ticket' AND v.Disabled = 0
		AND t.EffectiveId = t.id AND t.Status <> 'deleted' ORDER BY t.id DESC`, SourceIDField)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	m := map[int64]int64{}
	for rows.Next() {
		var v string
		var id int64
		if err := rows.Scan(&v, &id); err != nil {
			return nil, err
		}
		if src, ok := SourceID(v); ok {
			m[src] = id
		}
	}
	return m, rows.Err()
}

func (p *People) onSource(ctx context.Context, rng *rand.Rand, roll int) error {
	h, live := &p.source, p.script.Live()
	if len(live) < 20 {
		return errors.New("fewer than 20 tickets are left")
	}
	id, agent := choose(rng, live), Agents[rng.IntN(len(Agents))]
	word := func() string { return words[rng.IntN(len(words))] }
	set := func(field string, v any) error { return h.set(ctx, agent, id, id, map[string]any{field: v}) }
	cf := func(name string, v any) error { return set("CustomFields", map[string]any{name: v}) }
	switch {
	case roll < 22: // a customer writes
		b := body("plain", "utf-8", "8bit", fmt.Sprintf("Customer's answer %d: %s\r\n", p.n, word()))
		switch rng.IntN(4) {
		case 0:
			b = multi("mixed", b, attach("application/pdf", fmt.Sprintf("answer-%d.pdf", p.n), randomBytes(rng, 1500)))
		case 1:
			b = multi("alternative", b, body("html", "iso-8859-1", "quoted-printable", fmt.Sprintf("<p>Customer's answer %d, größer: <i>%d</i></p>", p.n, p.n*7)))
		}
		_, err := h.mail(ctx, message{name: "answer", from: customers[rng.IntN(len(customers))], subject: "answer", body: b}, id)
		return err
	case roll < 36:
		return h.say(ctx, agent, "correspond", id, id, "text/plain", fmt.Sprintf("Agent's answer %d\n\n%s", p.n, word()), 0)
	case roll < 46:
		return h.say(ctx, agent, "comment", id, id, "text/html", fmt.Sprintf("<p>Agent's note %d, %s</p>", p.n, word()), rng.IntN(2)*3,
			sentFile{fmt.Sprintf("note-%d.bin", p.n), "application/octet-stream", randomBytes(rng, 200)})
	case roll < 52:
		return set("Priority", 2000+p.n)
	case roll < 57:
		return set("Subject", fmt.Sprintf("Renamed in the source %d: %s", p.n, word()))
	case roll < 61:
		return cf("Order No", fmt.Sprintf("SRC-%d", p.n))
	case roll < 64:
		return cf("Tags", []string{fmt.Sprintf("s%d", p.n), tagWords[rng.IntN(len(tagWords))]})
	case roll < 67:
		return cf("Region", regions[rng.IntN(3)])
	case roll < 71:
		return set("Owner", agent)
	case roll < 76:
		return set("Status", []string{"open", "resolved", "stalled"}[rng.IntN(3)])
	case roll < 78:
		return set("Cc", []string{fmt.Sprintf("cc%d@corp.example", p.n), address(customers[rng.IntN(len(customers))])})
	case roll < 80:
		return set("Queue", []string{"General", "Support"}[rng.IntN(2)])
	case roll < 83:
		to := choose(rng, live)
		if to == id {
			to = live[0] + live[1] - min(id, live[1]) // another one
		}
		if to == id {
			return nil
		}
		s := seeder{hands: *h, rng: rng}
		return s.link(ctx, id, "RefersTo", to, fmt.Sprintf("https://tracker.example/bug/%d", p.n))
	case roll < 90:
		_, err := h.mail(ctx, message{name: "new", from: customers[rng.IntN(len(customers))], cc: "cc1@corp.example", queue: "Support", subject: fmt.Sprintf("New ticket %d", p.n),
			body: multi("mixed", body("plain", "utf-8", "8bit", fmt.Sprintf("New ticket %d\r\n", p.n)), attach("image/png", "new.png", png(byte(p.n))))}, 0)
		return err
	case roll < 94:
		_, err := h.create(ctx, agent, "people", map[string]any{"Queue": "General", "Subject": fmt.Sprintf("By telephone %d", p.n), "Requestor": []string{address(customers[rng.IntN(len(customers))])},
			"Owner": agent, "ContentType": "text/plain", "Content": fmt.Sprintf("Somebody called, %d.", p.n), "CustomFields": map[string]any{"Region": "APAC"}})
		return err
	case roll < 97:
		return h.remove(ctx, agent, id)
	default:
		into := choose(rng, live)
		if into == id {
			return nil
		}
		return h.merge(ctx, agent, id, into)
	}
}

func (p *People) onTarget(ctx context.Context, rng *rand.Rand, roll int, source, id int64) error {
	h, agent := &p.target, Agents[rng.IntN(len(Agents))]
	set := func(field string, v any) error { return h.set(ctx, agent, id, source, map[string]any{field: v}) }
	cf := func(name string, v any) error { return set("CustomFields", map[string]any{name: v}) }
	switch {
	case roll < 28:
		return h.say(ctx, agent, "correspond", id, source, "text/plain", fmt.Sprintf("[%d] Answered in the target by %s.", p.n, agent), 0)
	case roll < 52:
		return h.say(ctx, agent, "comment", id, source, "text/plain", fmt.Sprintf("Noted in the target, %d.", p.n), 0,
			sentFile{"target.bin", "application/octet-stream", randomBytes(rng, 50)})
	case roll < 64:
		return set("Priority", 5000+p.n)
	case roll < 72:
		return set("Subject", fmt.Sprintf("Renamed in the target %d", p.n))
	case roll < 80:
		return cf("Order No", fmt.Sprintf("DST-%d", p.n))
	case roll < 85:
		return cf("Tags", []string{fmt.Sprintf("d%d", p.n), "vip"})
	case roll < 93:
		return set("Owner", agent)
	default:
		return set("Status", []string{"open", "resolved", "stalled"}[rng.IntN(3)])
	}
}

// Disagree lets people on both sides change the same field of n migrated tickets to different things, and a customer write
// to each of them in the source. It returns the source's ids.
func (p *People) Disagree(ctx context.Context, n int) ([]int64, error) {
	moved, err := migrated(ctx, p.target.db)
	if err != nil {
		return nil, err
	}
	var ids []int64
	for _, id := range p.script.Live() {
		if moved[id] != 0 && len(ids) < n {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		p.n++
		agent := Agents[p.n%len(Agents)]
		if err := p.source.set(ctx, agent, id, id, map[string]any{"Priority": 2000 + p.n}); err != nil {
			return ids, err
		}
		if err := p.target.set(ctx, agent, moved[id], id, map[string]any{"Priority": 5000 + p.n}); err != nil {
			return ids, err
		}
		b := body("plain", "utf-8", "8bit", fmt.Sprintf("And a customer's answer, %d.\r\n", p.n))
		if _, err := p.source.mail(ctx, message{name: "answer", from: customers[p.n%len(customers)], subject: "answer", body: b}, id); err != nil {
			return ids, err
		}
	}
	return ids, nil
}

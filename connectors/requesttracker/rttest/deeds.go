package rttest

import (
	"context"
	"fmt"
)

// Moved maps the source's ids to the living tickets of the target that carry them.
func (p *People) Moved(ctx context.Context) (map[int64]int64, error) {
	return migrated(ctx, p.target.db)
}

// Write lets a customer write to tickets of the source, a mail to each.
func (p *People) Write(ctx context.Context, tickets ...int64) error {
	for _, id := range tickets {
		p.n++
		m := message{
			name: "answer", from: customers[p.n%len(customers)], subject: "answer",
			body: multi("mixed", body("plain", "utf-8", "8bit", fmt.Sprintf("A customer's answer, %d.\r\n", p.n)), attach("application/pdf", fmt.Sprintf("answer-%d.pdf", p.n), []byte{byte(p.n), 1, 2, 3})),
		}
		if _, err := p.source.mail(ctx, m, id); err != nil {
			return err
		}
	}
	return nil
}

// on returns the hands of one side, and the id there of a ticket of the source.
func (p *People) on(ctx context.Context, side Role, ticket int64) (*hands, int64, error) {
	if side == SourceRole {
		return &p.source, ticket, nil
	}
	moved, err := migrated(ctx, p.target.db)
	if err == nil && moved[ticket] == 0 {
		err = fmt.Errorf("source ticket %d is not in the target", ticket)
	}
	return &p.target, moved[ticket], err
}

// Set lets an agent of one side set a field, by RT's name; custom fields are "cf.NAME". The ticket is the source's id on
// either side.
func (p *People) Set(ctx context.Context, side Role, ticket int64, field string, value any) error {
	h, id, err := p.on(ctx, side, ticket)
	if err != nil {
		return err
	}
	fields := map[string]any{field: value}
	if len(field) > 3 && field[:3] == "cf." {
		fields = map[string]any{"CustomFields": map[string]any{field[3:]: value}}
	}
	p.n++
	return h.set(ctx, Agents[p.n%len(Agents)], id, ticket, fields)
}

// Answer lets an agent of one side reply, or write a comment where internal is set.
func (p *People) Answer(ctx context.Context, side Role, ticket int64, internal bool) error {
	h, id, err := p.on(ctx, side, ticket)
	if err != nil {
		return err
	}
	p.n++
	how := "correspond"
	if internal {
		how = "comment"
	}
	return h.say(ctx, Agents[p.n%len(Agents)], how, id, ticket, "text/plain", fmt.Sprintf("An agent's word, %d.", p.n), 0)
}

// Delete lets an agent of the source delete a ticket.
func (p *People) Delete(ctx context.Context, ticket int64) error {
	return p.source.remove(ctx, Agents[0], ticket)
}

// Merge lets an agent of one side merge a ticket into another one; both are the source's ids on either side.
func (p *People) Merge(ctx context.Context, side Role, from, into int64) error {
	h, a, err := p.on(ctx, side, from)
	if err != nil {
		return err
	}
	_, b, err := p.on(ctx, side, into)
	if err != nil {
		return err
	}
	return h.merge(ctx, Agents[1], a, b)
}

// MergeIntoOwn lets an agent of the target merge a migrated ticket into one of the target's own.
func (p *People) MergeIntoOwn(ctx context.Context, ticket, own int64) error {
	h, id, err := p.on(ctx, TargetRole, ticket)
	if err != nil {
		return err
	}
	return h.merge(ctx, Agents[1], id, own)
}

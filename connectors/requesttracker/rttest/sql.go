package rttest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Exec changes the server's database behind its back, in one transaction, and fails where a statement changes nothing.
func (s *Server) Exec(ctx context.Context, statements ...string) error {
	db, err := openDB(s.DBFile, false)
	if err != nil {
		return err
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, q := range statements {
		res, err := tx.ExecContext(ctx, q)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", s.Name, q, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(fmt.Errorf("%s: changes nothing: %s", s.Name, q), err)
		}
	}
	return tx.Commit()
}

// IDs returns the first column of a query of numbers.
func (s *Server) IDs(ctx context.Context, query string) ([]int64, error) {
	db, err := s.readDB()
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", s.Name, query, err)
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// RenameUnseen changes a ticket's subject in the source's database, as an administrator's script would: LastUpdated moves,
// and no transaction tells of it.
func (p *People) RenameUnseen(ctx context.Context, ticket int64) error {
	p.n++
	subject := fmt.Sprintf("Renamed by SQL %d", p.n)
	if err := p.source.s.Exec(ctx, fmt.Sprintf(`UPDATE Tickets SET Subject = '%s', LastUpdated = '%s' WHERE id = %d`, subject, stamp(time.Now()), ticket)); err != nil {
		return err
	}
	p.script.log(Action{Side: SourceRole, Who: "SQL", Do: "set", Ticket: ticket, Source: ticket, Field: "Subject", Value: subject}, p.source.noteSet("Subject", subject))
	return nil
}

// DeleteUnseen marks a ticket of the source as deleted in the database: RT lists it no longer, and no transaction says why.
func (p *People) DeleteUnseen(ctx context.Context, ticket int64) error {
	if err := p.source.s.Exec(ctx, fmt.Sprintf(`UPDATE Tickets SET Status = 'deleted', LastUpdated = '%s' WHERE id = %d`, stamp(time.Now()), ticket)); err != nil {
		return err
	}
	p.script.log(Action{Side: SourceRole, Who: "SQL", Do: "delete", Ticket: ticket, Source: ticket},
		func(t *TicketLog) { t.Deleted, t.DeletedAt = true, len(p.script.data.Actions) })
	return nil
}

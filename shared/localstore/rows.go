package localstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

const (
	maxBody = 300 << 10
	// A page of Range ends when its bodies reach this, as it does in the cloud.
	maxPage = 1 << 20
)

// Rows is the table of a Store.
type Rows struct {
	s                                              *Store
	get, page, scan, insert, update, upsert, erase *sql.Stmt
}

func newRows(ctx context.Context, s *Store) (*Rows, error) {
	r := &Rows{s: s}
	for _, p := range []struct {
		stmt **sql.Stmt
		db   *sql.DB
		text string
	}{
		{&r.get, s.readers, `SELECT version, body FROM rows WHERE part = ? AND sort = ?`},
		{&r.page, s.readers, `SELECT sort, version, body FROM rows WHERE part = ? AND sort >= ? AND sort < ? ORDER BY sort LIMIT ?`},
		{&r.scan, s.readers, `SELECT part, sort, version, body FROM rows WHERE (part, sort) > (?, ?) AND part < ? ORDER BY part, sort LIMIT ?`},
		{&r.insert, s.writer, `INSERT INTO rows (part, sort, version, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`},
		{&r.update, s.writer, `UPDATE rows SET version = ?, body = ? WHERE part = ? AND sort = ? AND version = ?`},
		{&r.upsert, s.writer, `INSERT INTO rows (part, sort, version, body) VALUES (?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET version = max(version + 1, excluded.version), body = excluded.body`},
		{&r.erase, s.writer, `DELETE FROM rows WHERE part = ? AND sort = ? AND version = ?`},
	} {
		var err error
		if *p.stmt, err = p.db.PrepareContext(ctx, p.text); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Get implements delta.Rows.
func (r *Rows) Get(ctx context.Context, key delta.Key) (delta.Row, error) {
	r.s.calls.add("rows.Get")
	row, err := r.read(ctx, key)
	if err != nil {
		return delta.Row{}, fmt.Errorf("get row %s: %w", name(key), err)
	}
	return row, nil
}

func (r *Rows) read(ctx context.Context, key delta.Key) (delta.Row, error) {
	if err := key.Check(); err != nil {
		return delta.Row{}, err
	}
	row := delta.Row{Key: key}
	err := r.get.QueryRowContext(ctx, key.Part, key.Sort).Scan(&row.Version, &row.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return delta.Row{}, delta.ErrNoRow
	}
	return row, explain(err)
}

// GetMany implements delta.Rows.
func (r *Rows) GetMany(ctx context.Context, keys []delta.Key) ([]delta.Row, error) {
	r.s.calls.add("rows.GetMany")
	if len(keys) > 100 {
		return nil, fmt.Errorf("get %d rows: at most 100 at a time", len(keys))
	}
	rows := make([]delta.Row, 0, len(keys))
	seen := make(map[delta.Key]bool, len(keys))
	for _, key := range keys {
		if seen[key] {
			continue
		}
		seen[key] = true
		row, err := r.read(ctx, key)
		switch {
		case errors.Is(err, delta.ErrNoRow):
		case err != nil:
			return nil, fmt.Errorf("get %d rows: %s: %w", len(keys), name(key), err)
		default:
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// lastVersion is the newest version that this process gave to any row.
var lastVersion atomic.Int64

// newVersion returns the time in nanoseconds, or more: always more than before, also when the clock stands still or is set
// back. So no row is made again with a version that it had before it was deleted, whoever made it then.
func newVersion() int64 {
	for {
		last := lastVersion.Load()
		v := max(time.Now().UnixNano(), last+1)
		if lastVersion.CompareAndSwap(last, v) {
			return v
		}
	}
}

// Put implements delta.Rows.
func (r *Rows) Put(ctx context.Context, row delta.Row) (version int64, err error) {
	r.s.calls.add("rows.Put")
	err = checkRow(row)
	if err == nil && row.Version < 0 {
		err = fmt.Errorf("version %d is negative", row.Version)
	}
	if err == nil {
		err = r.one(ctx, func(ctx context.Context) (sql.Result, error) {
			version = newVersion()
			if row.Version == 0 {
				return r.insert.ExecContext(ctx, row.Part, row.Sort, version, row.Body)
			}
			version = max(version, row.Version+1) // another process's clock may have been ahead
			return r.update.ExecContext(ctx, version, row.Body, row.Part, row.Sort, row.Version)
		})
	}
	if err != nil {
		return 0, fmt.Errorf("put row %s, version %d: %w", name(row.Key), row.Version, err)
	}
	return version, nil
}

// PutMany implements delta.Rows. It takes effect as a whole or not at all.
func (r *Rows) PutMany(ctx context.Context, rows []delta.Row) error {
	r.s.calls.add("rows.PutMany")
	if len(rows) > 25 {
		return fmt.Errorf("put %d rows: at most 25 at a time", len(rows))
	}
	for _, row := range rows {
		if err := checkRow(row); err != nil {
			return fmt.Errorf("put %d rows: %s: %w", len(rows), name(row.Key), err)
		}
	}
	_, err := r.s.write(ctx, func(ctx context.Context) (sql.Result, error) {
		tx, err := r.s.writer.BeginTx(ctx, nil)
		if err != nil {
			return nil, err
		}
		defer tx.Rollback()
		for _, row := range rows {
			if _, err := tx.StmtContext(ctx, r.upsert).ExecContext(ctx, row.Part, row.Sort, newVersion(), row.Body); err != nil {
				return nil, err
			}
		}
		return changed(len(rows)), tx.Commit()
	})
	if err != nil {
		return fmt.Errorf("put %d rows: %w", len(rows), err)
	}
	return nil
}

// Delete implements delta.Rows.
func (r *Rows) Delete(ctx context.Context, key delta.Key, version int64) error {
	r.s.calls.add("rows.Delete")
	err := key.Check()
	if err == nil {
		err = r.one(ctx, func(ctx context.Context) (sql.Result, error) {
			return r.erase.ExecContext(ctx, key.Part, key.Sort, version)
		})
	}
	if err != nil {
		return fmt.Errorf("delete row %s, version %d: %w", name(key), version, err)
	}
	return nil
}

// one runs a conditional write; if it changed nothing the condition did not hold.
func (r *Rows) one(ctx context.Context, run func(context.Context) (sql.Result, error)) error {
	n, err := r.s.write(ctx, run)
	if err == nil && n == 0 {
		return delta.ErrStale
	}
	return err
}

// Range implements delta.Rows.
func (r *Rows) Range(ctx context.Context, part, prefix, after string, limit int) (_ []delta.Row, more bool, err error) {
	r.s.calls.add("rows.Range")
	defer func() {
		if err != nil {
			err = fmt.Errorf("range over rows %s: %w", name(delta.Key{Part: part, Sort: prefix}), explain(err))
		}
	}()
	if limit < 1 || limit > 1000 {
		return nil, false, fmt.Errorf("limit %d is not between 1 and 1000", limit)
	}
	whole := delta.Key{Part: part, Sort: cmp.Or(prefix, "-")} // a prefix may be empty
	if err := errors.Join(whole.Check(), checkText("after", after)); err != nil {
		return nil, false, err
	}
	// In printable ASCII nothing comes between a string and the same with a space behind it, and everything that begins
	// with a prefix comes before the prefix with a byte above '~'.
	from := max(prefix, after+" ")
	page, err := r.page.QueryContext(ctx, part, from, prefix+"\x7f", limit+1)
	if err != nil {
		return nil, false, err
	}
	defer page.Close()
	var rows []delta.Row
	for bytes := 0; page.Next(); {
		if len(rows) == limit || bytes > maxPage {
			return rows, true, nil
		}
		row := delta.Row{Key: delta.Key{Part: part}}
		if err := page.Scan(&row.Sort, &row.Version, &row.Body); err != nil {
			return nil, false, err
		}
		bytes += len(row.Body)
		rows = append(rows, row)
	}
	return rows, false, page.Err()
}

// Scan implements delta.Rows. Next is the key of the page's last row.
func (r *Rows) Scan(ctx context.Context, prefix, from string, limit int) (_ []delta.Row, next string, err error) {
	r.s.calls.add("rows.Scan")
	defer func() {
		if err != nil {
			err = fmt.Errorf("scan rows of %+q: %w", prefix, explain(err))
		}
	}()
	if limit < 1 || limit > 1000 {
		return nil, "", fmt.Errorf("limit %d is not between 1 and 1000", limit)
	}
	if err := (delta.Key{Part: prefix, Sort: "-"}).Check(); err != nil {
		return nil, "", err
	}
	after := delta.Key{Part: prefix} // before the first one: a Sort is never empty
	if from != "" {
		var ok bool
		// Neither half of a key has a line feed in it.
		if after.Part, after.Sort, ok = strings.Cut(from, "\n"); !ok || !strings.HasPrefix(after.Part, prefix) {
			return nil, "", fmt.Errorf("%+q is no place in this scan", from)
		}
	}
	page, err := r.scan.QueryContext(ctx, after.Part, after.Sort, prefix+"\x7f", limit+1)
	if err != nil {
		return nil, "", err
	}
	defer page.Close()
	var rows []delta.Row
	for bytes := 0; page.Next(); {
		if len(rows) == limit || bytes > maxPage {
			last := rows[len(rows)-1]
			return rows, last.Part + "\n" + last.Sort, nil
		}
		var row delta.Row
		if err := page.Scan(&row.Part, &row.Sort, &row.Version, &row.Body); err != nil {
			return nil, "", err
		}
		bytes += len(row.Body)
		rows = append(rows, row)
	}
	return rows, "", page.Err()
}

// changed is the result of a transaction.
type changed int64

func (changed) LastInsertId() (int64, error)   { return 0, nil }
func (c changed) RowsAffected() (int64, error) { return int64(c), nil }

func checkRow(row delta.Row) error {
	if len(row.Body) > maxBody {
		return fmt.Errorf("the body has %d bytes, at most %d are allowed", len(row.Body), maxBody)
	}
	if row.Body == nil {
		return errors.New("the row has no body")
	}
	return row.Key.Check()
}

// name shows a key in an error.
func name(k delta.Key) string { return fmt.Sprintf("%+q/%+q", k.Part, k.Sort) }

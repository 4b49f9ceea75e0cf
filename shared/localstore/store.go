// Package localstore keeps the engine's state on one machine: rows in an embedded database, objects in a folder, messages
// in memory. It implements delta.Rows, delta.Objects and delta.Queue and decides nothing.
//
// A store is a directory:
//
//	deltadesk.db   rows and the index of objects (SQLite in WAL mode, every commit synced), with its -wal and -shm files
//	objects/       the bytes of objects; the index is the record, a file that it does not name is rubbish
//	tmp/           objects that are being written
//	run.lock       held by the one process that runs migrations, with its process id in it
//
// One process runs (Open); any number may look and write single rows meanwhile (OpenReader): a decision or a longer
// deadline is a conditional Put on one row. The directory must be on a local disk, because the database shares memory
// between processes.
//
// A row's version is the time of its last write in nanoseconds, or a little more, so that a row that is made again does not
// take up the versions it had before.
//
// A call that returned has been synced to disk, since a lost intent row would double a ticket. The queue is not kept: the
// plan is the record and messages are wake-ups, so a new session dispatches again.
package localstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// What Open and OpenReader answer when there is a reason that a program may want to know.
var (
	// ErrBusy: another process runs on this store; the message names its process id.
	ErrBusy = errors.New("another process is running on this store")
	// ErrNoStore: the directory holds no store (yet).
	ErrNoStore = errors.New("no store")
)

const (
	databaseName = "deltadesk.db"
	lockName     = "run.lock"

	// The database says whose it is (application_id, "DDsk") and how it is laid out (user_version).
	application = 0x4444736b
	format      = 1
)

const schema = `
CREATE TABLE rows (
	part    TEXT    NOT NULL,
	sort    TEXT    NOT NULL,
	version INTEGER NOT NULL,
	body    BLOB    NOT NULL,
	PRIMARY KEY (part, sort)
) WITHOUT ROWID;
CREATE TABLE objects (
	key    TEXT    NOT NULL PRIMARY KEY,
	file   TEXT    NOT NULL, -- below objects/, with slashes
	size   INTEGER NOT NULL,
	sha256 TEXT    NOT NULL,
	made   INTEGER NOT NULL  -- Unix milliseconds
) WITHOUT ROWID;
`

// Options of Open and OpenReader. The zero value is good.
type Options struct {
	// BusyTimeout is how long a call waits for another process that is writing; 10 seconds if zero.
	BusyTimeout time.Duration
}

// Store is an open store.
type Store struct {
	dir     string
	session string
	lock    *os.File // nil in a reader
	readers *sql.DB
	writer  *sql.DB // one connection
	turn    chan struct{}
	calls   counter

	rows    *Rows
	objects *Objects
	queue   *Queue
}

// Open opens the store in dir to run on it, and makes it if there is none. Only one process can; the others get ErrBusy.
// Ctx is for the opening only.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w; choose a directory that you may write to", err)
	}
	session, err := ulid.New(ulid.Now(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("open store: make a session id: %w", err)
	}
	lock, err := takeLock(filepath.Join(dir, lockName), session.String())
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s, err := open(ctx, dir, o, true)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s.lock, s.session = lock, session.String()
	return s, nil
}

// OpenReader opens the store in dir beside a process that may be running on it. Everything can be read, and single rows
// and objects written; messages cannot be sent, since they would reach nobody. ErrNoStore if there is none.
func OpenReader(ctx context.Context, dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, databaseName)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open store: %w in %s; check the directory, or begin with a run", ErrNoStore, dir)
	} else if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return open(ctx, dir, o, false)
}

func open(ctx context.Context, dir string, o Options, create bool) (_ *Store, err error) {
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 10 * time.Second
	}
	s := &Store{dir: dir, turn: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open store %s: %w", dir, explain(err))
			s.Close()
		}
	}()
	pragmas := []string{
		fmt.Sprintf("busy_timeout(%d)", o.BusyTimeout.Milliseconds()),
		"synchronous(FULL)", "fullfsync(1)", "journal_size_limit(67108864)",
	}
	if s.writer, err = sql.Open("sqlite", dsn(dir, pragmas...)); err != nil {
		return nil, err
	}
	s.writer.SetMaxOpenConns(1)
	if err := s.checkFormat(ctx, create); err != nil {
		return nil, err
	}
	if s.readers, err = sql.Open("sqlite", dsn(dir, append(pragmas, "query_only(1)")...)); err != nil {
		return nil, err
	}
	s.readers.SetMaxOpenConns(8)
	s.readers.SetMaxIdleConns(8)
	for _, sub := range []string{objectsName, tempName} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	if s.rows, err = newRows(ctx, s); err != nil {
		return nil, err
	}
	s.objects = newObjects(s)
	s.queue = newQueue(&s.calls, !create)
	return s, nil
}

// dsn names the database with its pragmas, in the order given.
func dsn(dir string, pragmas ...string) string {
	u := url.URL{
		Scheme:   "file",
		Path:     filepath.ToSlash(filepath.Join(dir, databaseName)),
		RawQuery: url.Values{"_pragma": pragmas}.Encode(),
	}
	return u.String()
}

// checkFormat makes sure that the database is ours and of our format, or lays it out if it is new and create is set.
func (s *Store) checkFormat(ctx context.Context, create bool) error {
	var app, version, tables int
	err := s.writer.QueryRowContext(ctx, `SELECT
		(SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema)`).Scan(&app, &version, &tables)
	switch {
	case err != nil:
		return err
	case app == application && version == format:
		return nil
	case app == application && version > format:
		return fmt.Errorf("it has format %d and this program knows formats up to %d; use the newer deltadesk that wrote it", version, format)
	case app != 0 || version != 0 || tables != 0:
		return fmt.Errorf("%s belongs to another program (application id %d, format %d); choose another directory", databaseName, app, version)
	case !create:
		return fmt.Errorf("%w in it yet; begin with a run", ErrNoStore)
	}
	// An empty database beside objects is a lost one. Going on would copy every ticket a second time.
	if _, err := os.Stat(filepath.Join(s.dir, objectsName)); err == nil {
		return fmt.Errorf("%s is gone or empty, but the store was in use; restore the file from a backup, or begin anew in an empty directory "+
			"with a full run that adopts what is in the target already", databaseName)
	}
	for _, q := range []string{"PRAGMA page_size = 8192", "PRAGMA journal_mode = WAL"} {
		if _, err := s.writer.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, q := range []string{schema, fmt.Sprintf("PRAGMA application_id = %d", application), fmt.Sprintf("PRAGMA user_version = %d", format)} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Rows returns the table.
func (s *Store) Rows() *Rows { return s.rows }

// Objects returns the folder of objects.
func (s *Store) Objects() *Objects { return s.objects }

// Queue returns the queue of this session.
func (s *Store) Queue() *Queue { return s.queue }

// Session returns an id (a ULID) that is new with every Open; it is empty for a reader. What an earlier session claimed or
// sent is known to be over, because only one process can hold the lock.
func (s *Store) Session() string { return s.session }

// Calls returns how often each operation was called on this Store, for reports.
func (s *Store) Calls() map[string]int { return s.calls.all() }

// Close lets go of the store. Calls under way fail.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.readers, s.writer} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// write runs one statement on the writing connection and returns the number of rows that it changed. It waits for its turn
// as long as ctx lets it; once begun it is not interrupted, so that an answer is rarely in doubt.
func (s *Store) write(ctx context.Context, run func(context.Context) (sql.Result, error)) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-s.turn }()
	res, err := run(context.WithoutCancel(ctx))
	if err != nil {
		return 0, explain(err)
	}
	return res.RowsAffected()
}

// explain adds to an error of the database what to do about it.
func explain(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("another process kept the database locked; try again, and see what else has %s open: %w", databaseName, err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("the disk is full; free some space and go on: %w", err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%s is damaged; stop, keep a copy, and restore it together with its -wal file from a backup: %w", databaseName, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return fmt.Errorf("%s cannot be written; check owner and rights of the directory and its files: %w", databaseName, err)
	case sqlite3.SQLITE_IOERR:
		return fmt.Errorf("the disk failed; check it, and that the directory is on a local disk: %w", err)
	}
	return err
}

// counter counts calls by operation.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) add(op string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[op]++
}

func (c *counter) all() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[string]int, len(c.n))
	for op, n := range c.n {
		m[op] = n
	}
	return m
}

// checkText refuses what is not at most 500 bytes of printable ASCII.
func checkText(what, s string) error {
	if len(s) > 500 {
		return fmt.Errorf("%s has %d bytes, at most 500 are allowed", what, len(s))
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return fmt.Errorf("%s %+q has a byte that is not printable ASCII", what, s)
		}
	}
	return nil
}

var (
	_ delta.Rows    = (*Rows)(nil)
	_ delta.Objects = (*Objects)(nil)
	_ delta.Queue   = (*Queue)(nil)
)

package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// What a store answers when a condition does not hold.
var (
	// ErrNoRow: there is no row under that key.
	ErrNoRow = errors.New("no such row")
	// ErrStale: the row was changed (or made, or deleted) by somebody else since it was read; nothing was written.
	ErrStale = errors.New("row changed meanwhile")
	// ErrNoObject: there is no object under that key.
	ErrNoObject = errors.New("no such object")
	// ErrExists: an object's key is written once.
	ErrExists = errors.New("object exists")
)

// Key of a row. Rows of one Part are kept in the byte order of Sort. Both are 1 to 500 bytes of printable ASCII, never empty.
type Key struct{ Part, Sort string }

// Check tells what is wrong with a key that no store takes.
func (k Key) Check() error {
	for _, p := range []struct{ what, text string }{{"part", k.Part}, {"sort", k.Sort}} {
		if n := len(p.text); n < 1 || n > 500 {
			return fmt.Errorf("the key's %s has %d bytes; want 1 to 500", p.what, n)
		}
		for i := range len(p.text) {
			if c := p.text[i]; c < ' ' || c > '~' {
				return fmt.Errorf("the key's %s has the byte 0x%02x at %d; want printable ASCII only", p.what, c, i)
			}
		}
	}
	return nil
}

// Row is one record of the store: about a kilobyte, at most 300 KB.
type Row struct {
	Key
	// Version is above 0 and grows with every write; a row that is made again after it was deleted gets a version it never
	// had before, so that nobody who read the old one can write over the new one. A store may begin with the time in
	// nanoseconds. In a Put it is the version that was read: 0 for "must not exist yet".
	Version int64
	Body    []byte // JSON
}

// Rows is the table. Every call is one request to one row (or page of rows) with one condition: what DynamoDB can do with a
// single conditional write. There are no transactions. A call that returned has been made durable; a call that returned an
// error other than ErrStale or ErrNoRow may or may not have taken effect. Safe for concurrent use, also by several
// processes.
type Rows interface {
	// Get returns the row as the last Put left it (a consistent read), or ErrNoRow.
	Get(ctx context.Context, key Key) (Row, error)
	// GetMany returns those of at most 100 rows that exist, in any order (consistent reads). A key that is named twice comes
	// once.
	GetMany(ctx context.Context, keys []Key) ([]Row, error)
	// Put writes the row if its version is still the one given, else ErrStale. It returns the new version.
	Put(ctx context.Context, row Row) (version int64, err error)
	// PutMany writes at most 25 rows whatever was there before. For rows whose content is a function of their key. Which
	// version they have afterwards is left open, also whether a version read before still holds: a Put or Delete of such a
	// row must not rely on one.
	PutMany(ctx context.Context, rows []Row) error
	// Delete removes the row if its version is still the one given, else ErrStale. A row that is gone is ErrStale too.
	Delete(ctx context.Context, key Key, version int64) error
	// Range returns rows of a partition whose Sort begins with prefix and is greater than after, in order, at most limit
	// (1 to 1,000) and possibly fewer (consistent reads); more tells whether there are any left, and is never true with no
	// rows. Prefix and after may be empty.
	Range(ctx context.Context, part, prefix, after string, limit int) (rows []Row, more bool, err error)
	// Scan returns the rows whose Part begins with prefix (never empty), whatever their Sort, in no order that anybody may
	// rely on: at most limit (1 to 1,000) per call and possibly fewer, also none. The first call has an empty from; each
	// further one, in any process, has the next that the one before returned; an empty next is the end. A row that is there
	// from the first call to the last comes at least once, as it was at some time in between; one that is made or deleted
	// meanwhile may come or not.
	//
	// It may read the whole table, so nothing that happens every few minutes calls it: a census does, which must see what
	// no listing names, and a decision of a person that a record is a certain one of the target: whose is that already?
	Scan(ctx context.Context, prefix, from string, limit int) (rows []Row, next string, err error)
}

// Objects keeps bytes under keys that are written once: plan pages, staged content, reports. Keys are slash-separated
// printable ASCII, at most 500 bytes.
type Objects interface {
	// Put stores what r gives until EOF. If r fails nothing is stored and its error is returned. ErrExists if the key is
	// taken. The object can be seen only when it is complete; memory does not grow with its size.
	Put(ctx context.Context, key string, r io.Reader) (Info, error)
	// Open streams the object, or fails with ErrNoObject.
	Open(ctx context.Context, key string) (io.ReadCloser, Info, error)
}

// The first parts of the engine's object keys. How long objects are kept goes by them.
const (
	stagingPrefix = "staging/"
	undoPrefix    = "undo/"
	planPrefix    = "plan/"
	reportsPrefix = "reports/"
)

// ObjectPrefix is a first part of object keys.
type ObjectPrefix struct {
	Name string // with the slash
	// Kept is how long its objects are kept; nothing is read of an older one.
	Kept time.Duration
}

// ObjectPrefixes are the first parts of all keys under which the engine keeps objects. A store expires objects by them. For
// staging/ another time may be set.
func ObjectPrefixes() []ObjectPrefix {
	const day = 24 * time.Hour
	return []ObjectPrefix{{stagingPrefix, 10 * day}, {undoPrefix, UndoKept}, {planPrefix, 90 * day}, {reportsPrefix, 90 * day}}
}

// Info describes an object.
type Info struct {
	Size   int64
	SHA256 string // hex
}

// Message wakes a worker up for one entry of a plan page. It carries no content; losing it, doubling it or bringing it
// late harms nothing, because the plan page is the record.
type Message struct {
	Migration string `json:"m"`
	Run       string `json:"r"`
	Page      int    `json:"p"`
	Seq       int    `json:"s"` // index in the page
	// Sent is when it was sent, Unix milliseconds. One that was sent again since is too old to be looked at.
	Sent int64 `json:"t"`
}

// Queue takes messages for the workers. A standard queue: at least once, in any order.
type Queue interface {
	// Send hands over at most 10 messages, to be delivered not before delay (0 to 15 minutes) has passed. On an error some
	// may have been sent.
	Send(ctx context.Context, ms []Message, delay time.Duration) error
}

package archive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// The order of a write is the algorithm. Under the folder's lock:
//
//	1. pending.json  the journal line that is about to be written
//	2. record file   with the line's sequence number inside
//	3. journal       the line
//	4. pending.json  removed
//
// A record is therefore never older than what the journal lists. Cut off between 2 and 3, the change is done but not
// listed: the next writer finds pending.json and the record with its number, and writes the line. Readers, who must not
// write, add it in memory. Cut off earlier, nothing has happened.

// line is one line of the journal: one change of one record, and what is needed to find the record without opening it.
type line struct {
	Seq   int64      `json:"seq"` // 1, 2, 3, ...
	At    time.Time  `json:"at"`  // on the archive's clock, never before the line above
	Ref   desk.Ref   `json:"ref"`
	Event desk.Event `json:"event,omitempty"`
	Into  string     `json:"into,omitempty"`
	Open  bool       `json:"open,omitempty"`
	// As the record is after the change:
	Sources []desk.Ref `json:"sources,omitempty"`
	Aliases []string   `json:"aliases,omitempty"`
	Keys    []string   `json:"keys,omitempty"`  // hashed, see matchKeys
	Files   []string   `json:"files,omitempty"` // SHA-256
}

// pending is the content of pending.json.
type pending struct {
	Line string   `json:"line"`           // the JSON of the journal line
	Drop []string `json:"drop,omitempty"` // files to remove afterwards if no record has them any more
}

// chain is the checksum of a journal line: over its JSON and the checksum of the line before. It tells damage, and
// cursors of another archive or of a copy that went its own way.
type chain [8]byte

func (c chain) String() string { return hex.EncodeToString(c[:]) }

func (c chain) next(raw []byte) chain {
	sum := sha256.Sum256(slices.Concat(c[:], raw))
	return chain(sum[:8])
}

// parseLine reads one journal line, without its line end. It does not look at the checksum's value.
func parseLine(b []byte) (l line, raw []byte, sum string, err error) {
	head, raw, ok := bytes.Cut(b, []byte(" "))
	if !ok || len(head) != 16 {
		return line{}, nil, "", errors.New("no checksum")
	}
	if err := decodeStrict(raw, &l); err != nil {
		return line{}, nil, "", err
	}
	if _, err := recordPath(l.Ref); err != nil {
		return line{}, nil, "", err
	}
	if l.Ref.ID == "" || len(l.Ref.ID) > maxID {
		return line{}, nil, "", errors.New("a record without a valid id")
	}
	switch l.Event {
	case "", desk.Changed, desk.Deleted, desk.Spam:
	case desk.Merged:
		if l.Into == "" {
			return line{}, nil, "", errors.New("merged into nothing")
		}
	default:
		return line{}, nil, "", errors.New("unknown event")
	}
	if slices.ContainsFunc(l.Files, func(s string) bool { return !hexSHA.MatchString(s) }) {
		return line{}, nil, "", errors.New("a file without SHA-256")
	}
	return l, raw, string(head), nil
}

// index is the journal in memory.
type index struct {
	offset    int64 // bytes of the journal that are in lines
	journaled int   // lines that are in the journal; one more may be pending
	lines     []line
	sums      []chain
	latest    map[desk.Ref]int        // the record's last line
	sources   map[desk.Ref][]desk.Ref // source → records
	aliases   map[string]string       // merged ticket → ticket
	keys      map[string][]desk.Ref
	files     map[string]int // how many records have the file
}

func newIndex() index {
	return index{
		latest: map[desk.Ref]int{}, sources: map[desk.Ref][]desk.Ref{}, aliases: map[string]string{},
		keys: map[string][]desk.Ref{}, files: map[string]int{},
	}
}

func (x *index) last() int64 { return int64(len(x.lines)) }

// tail returns the checksum after n lines; start is that of no lines.
func (x *index) tail(start chain, n int64) chain {
	if n == 0 {
		return start
	}
	return x.sums[n-1]
}

// add takes in the next line.
func (x *index) add(l line, sum chain) {
	if i, ok := x.latest[l.Ref]; ok {
		old := &x.lines[i]
		for _, s := range old.Sources {
			drop(x.sources, s, old.Ref)
		}
		for _, a := range old.Aliases {
			if x.aliases[a] == old.Ref.ID {
				delete(x.aliases, a)
			}
		}
		for _, k := range old.Keys {
			drop(x.keys, k, old.Ref)
		}
		for _, f := range old.Files {
			if x.files[f]--; x.files[f] <= 0 {
				delete(x.files, f)
			}
		}
		old.Sources, old.Aliases, old.Keys, old.Files = nil, nil, nil, nil // memory
	}
	x.latest[l.Ref] = len(x.lines)
	x.lines = append(x.lines, l)
	x.sums = append(x.sums, sum)
	for _, s := range l.Sources {
		x.sources[s] = append(x.sources[s], l.Ref)
	}
	for _, a := range l.Aliases {
		if _, taken := x.aliases[a]; !taken && l.Ref.Kind == desk.Ticket {
			x.aliases[a] = l.Ref.ID
		}
	}
	for _, k := range l.Keys {
		x.keys[k] = append(x.keys[k], l.Ref)
	}
	for _, f := range l.Files {
		x.files[f]++
	}
}

func drop[K comparable](m map[K][]desk.Ref, k K, r desk.Ref) {
	m[k] = slices.DeleteFunc(m[k], func(s desk.Ref) bool { return s == r })
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// folder is an open archive. Safe for concurrent use; several of them, in several processes, may be open on one folder.
type folder struct {
	settings
	id    identity
	start chain // the checksum before the first line
	now   func() time.Time

	writing chan struct{} // holds one token: the writer of this folder value
	mu      sync.Mutex    // guards x
	x       index
}

func openFolder(s settings, d desk.Deps) (*folder, error) {
	b, err := s.readFile(deskFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("archive: open %s: it is no archive, there is no %s in it", s.dir, deskFile)
	}
	if err != nil {
		return nil, fmt.Errorf("archive: open %s: %w", s.dir, err)
	}
	id, err := parseIdentity(b)
	if err != nil {
		return nil, fmt.Errorf("archive: open %s: %w", s.dir, err)
	}
	f := &folder{settings: s, id: id, start: chain{}.next([]byte(id.ID)), now: d.Now, writing: make(chan struct{}, 1), x: newIndex()}
	if f.now == nil {
		f.now = time.Now
	}
	return f, nil
}

// damaged is what every operation says when the folder as a whole cannot be trusted. It counts as temporary: the run
// waits until somebody has put the folder right.
func (f *folder) damaged(op string, err error) error {
	return &desk.Error{Op: op, Class: desk.ErrTransient, Err: fmt.Errorf("archive %s: %w", f.dir, err)}
}

// refresh brings the index up to the journal. The caller holds mu.
func (f *folder) refresh() error {
	j, err := f.open(journalFile, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) && f.x.journaled == 0 {
		return f.peek()
	}
	if err != nil {
		return err
	}
	defer j.Close()
	info, err := j.Stat()
	if err != nil {
		return err
	}
	if info.Size() < f.x.offset {
		return fmt.Errorf("%s is shorter than it was; was the folder replaced by an older copy?", journalFile)
	}
	if info.Size() > f.x.offset {
		if _, err := j.Seek(f.x.offset, io.SeekStart); err != nil {
			return err
		}
		if err := f.read(bufio.NewReaderSize(j, 1<<16)); err != nil {
			return err
		}
	}
	return f.peek()
}

// promised tells whether a write is, or was, under way, so that the journal's end need not be sound.
func (f *folder) promised() bool {
	_, err := f.lstat(pendingFile)
	return err == nil
}

// read takes in complete lines. What a write that is under way has put after the last one is left alone.
func (f *folder) read(r *bufio.Reader) error {
	for {
		b, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		l, raw, sum, err := parseLine(b[:len(b)-1])
		if err == nil {
			err = f.check(l, raw, sum)
		}
		if err != nil {
			if _, more := r.Peek(1); errors.Is(more, io.EOF) && f.promised() {
				return nil
			}
			return fmt.Errorf("%s is damaged at byte %d: %w; bring it back from a copy", journalFile, f.x.offset, err)
		}
		f.x.offset += int64(len(b))
		f.x.journaled++
		if l.Seq > f.x.last() { // else it was pending when it was read first
			f.x.add(l, f.x.tail(f.start, l.Seq-1).next(raw))
		}
	}
}

// check tells whether a line may follow the journaled ones.
func (f *folder) check(l line, raw []byte, sum string) error {
	n := int64(f.x.journaled)
	if l.Seq != n+1 {
		return fmt.Errorf("line %d where %d belongs", l.Seq, n+1)
	}
	if f.x.tail(f.start, n).next(raw).String() != sum {
		return errors.New("wrong checksum")
	}
	if n < f.x.last() && f.x.sums[n].String() != sum {
		return errors.New("a line that was pending has changed")
	}
	return nil
}

// peek adds the pending line if its change is done.
func (f *folder) peek() error {
	p, l, err := f.pending()
	if err != nil || p == nil || l.Seq != int64(f.x.journaled)+1 || l.Seq <= f.x.last() {
		return err
	}
	st, err := f.load(l.Ref)
	if err != nil || st.Record.Stamp.Seq != l.Seq {
		return nil // a record that cannot be read was not written by this line; reading it will say so
	}
	f.x.add(l, f.x.tail(f.start, l.Seq-1).next([]byte(p.Line)))
	return nil
}

// pending reads pending.json; nil where there is none.
func (f *folder) pending() (*pending, line, error) {
	b, err := f.readFile(pendingFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, line{}, nil
	}
	if err != nil {
		return nil, line{}, err
	}
	return parsePending(b)
}

func parsePending(b []byte) (*pending, line, error) {
	var p pending
	if err := decodeStrict(b, &p); err != nil {
		return nil, line{}, fmt.Errorf("%s is damaged: %w", pendingFile, err)
	}
	l, _, _, err := parseLine([]byte("0123456789abcdef " + p.Line))
	if err != nil {
		return nil, line{}, fmt.Errorf("%s is damaged: %w", pendingFile, err)
	}
	return &p, l, nil
}

// exclusive runs fn as the folder's only writer, over an index that is up to date, after whatever a dead writer left was
// finished.
func (f *folder) exclusive(ctx context.Context, op string, fn func() error) error {
	if err := f.writable(ctx, op); err != nil {
		return err
	}
	select {
	case f.writing <- struct{}{}:
		defer func() { <-f.writing }()
	case <-ctx.Done():
		return &desk.Error{Op: op, Class: desk.ErrTransient, Err: ctx.Err()}
	}
	lock, err := f.lock(ctx)
	if err != nil {
		return f.damaged(op, err)
	}
	defer lock.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refresh(); err != nil {
		return f.damaged(op, err)
	}
	if err := f.recover(); err != nil {
		return f.damaged(op, err)
	}
	return fn()
}

func (f *folder) writable(ctx context.Context, op string) error {
	if f.readOnly {
		return &desk.Error{Op: op, Class: desk.ErrUnauthorized, Err: errors.New("the archive is opened read-only")}
	}
	if err := ctx.Err(); err != nil {
		return &desk.Error{Op: op, Class: desk.ErrTransient, Err: err}
	}
	return nil
}

// recover finishes the write that a dead writer began. The caller is the writer.
func (f *folder) recover() error {
	if info, err := f.lstat(journalFile); err == nil && info.Size() > f.x.offset { // a line that was cut off
		if !f.promised() {
			return fmt.Errorf("%s ends in the middle of a line at byte %d, and no write was under way; bring it back from a copy", journalFile, f.x.offset)
		}
		if err := f.truncate(journalFile, f.x.offset); err != nil {
			return err
		}
	}
	p, l, err := f.pending()
	if err != nil || p == nil {
		return err
	}
	if int64(f.x.journaled) < f.x.last() { // refresh saw that its change is done
		if err := f.append(l, p.Line); err != nil {
			return err
		}
	}
	return f.finish(*p)
}

// append writes a line to the journal, and to the index unless it is there already.
func (f *folder) append(l line, raw string) error {
	_, statErr := f.lstat(journalFile)
	j, err := f.open(journalFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND)
	if err != nil {
		return err
	}
	defer j.Close()
	sum := f.x.tail(f.start, l.Seq-1).next([]byte(raw))
	n, err := j.WriteString(sum.String() + " " + raw + "\n")
	if err != nil {
		return err
	}
	if f.fsync {
		if err := j.Sync(); err != nil {
			return err
		}
		if statErr != nil {
			if err := f.in(func(root *os.Root) error { return f.syncDir(root, ".") }); err != nil {
				return err
			}
		}
	}
	f.x.offset += int64(n)
	f.x.journaled++
	if l.Seq > f.x.last() {
		f.x.add(l, sum)
	}
	return nil
}

// finish removes the files that no record has any more, then the pending line.
func (f *folder) finish(p pending) error {
	for _, sha := range p.Drop {
		if f.x.files[sha] > 0 {
			continue
		}
		path, err := blobPath(sha)
		if err != nil {
			return fmt.Errorf("%s is damaged: %w", pendingFile, err)
		}
		if err := f.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return f.remove(pendingFile)
}

// commit writes a record. The caller is in exclusive. After it began, an error leaves open whether the record was written;
// the next writer finds out.
func (f *folder) commit(st *stored) error {
	l := st.line()
	l.Seq = f.x.last() + 1
	l.At = f.now().UTC().Truncate(stampStep)
	if n := len(f.x.lines); n > 0 && l.At.Before(f.x.lines[n-1].At) {
		l.At = f.x.lines[n-1].At
	}
	st.Record.Stamp = desk.Stamp{At: l.At, Seq: l.Seq}
	path, err := recordPath(l.Ref)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(l)
	if err != nil {
		return err
	}
	p := pending{Line: string(raw)}
	if i, ok := f.x.latest[l.Ref]; ok {
		for _, sha := range f.x.lines[i].Files {
			if !slices.Contains(l.Files, sha) {
				p.Drop = append(p.Drop, sha)
			}
		}
	}
	promise, err := json.Marshal(p)
	if err != nil {
		return err
	}
	content, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		return err
	}
	if err := f.replace(pendingFile, promise); err != nil {
		return err
	}
	if err := f.replace(path, append(content, '\n')); err != nil {
		return err
	}
	if err := f.append(l, p.Line); err != nil {
		return err
	}
	return f.finish(p)
}

// load reads a record's file. Fails with fs.ErrNotExist where there is none.
func (f *folder) load(ref desk.Ref) (stored, error) {
	path, err := recordPath(ref)
	if err != nil {
		return stored{}, fmt.Errorf("%w: %w", err, fs.ErrNotExist)
	}
	b, err := f.readFile(path)
	if err != nil {
		return stored{}, err
	}
	st, err := parseStored(b)
	if err == nil && st.Record.Ref != ref {
		err = errors.New("it is the file of another record")
	}
	if err != nil {
		return stored{}, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return st, nil
}

package archive

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// target writes an archive. A record gets the id that it has in the source; where that is taken, ~2, ~3 and so on are
// appended to it and to its entries' ids. So links, people and merges mean in the archive what they mean in the source.
type target struct{ *folder }

// lockOf returns the word that changes with every write of the record.
func lockOf(s desk.Stamp) string { return strconv.FormatInt(s.Seq, 10) }

// Create implements desk.Target.
func (t *target) Create(ctx context.Context, r desk.Record) (desk.Written, error) {
	op := "create " + r.Ref.String()
	if err := t.writable(ctx, op); err != nil {
		return desk.Written{}, err
	}
	if _, err := recordPath(r.Ref); err != nil {
		return desk.Written{}, &desk.Error{Op: op, Class: desk.ErrRejected, Err: err}
	}
	switch r.Event {
	case "", desk.Changed, desk.Deleted, desk.Spam:
	default:
		return desk.Written{}, &desk.Error{Op: op, Class: desk.ErrRejected, Err: errors.New("an archive cannot create a record of this event")}
	}
	if err := valid(r); err != nil {
		return desk.Written{}, &desk.Error{Op: op, Class: desk.ErrRejected, Err: err}
	}
	entries, files, err := t.stageAll(ctx, op, r.Entries, nil)
	defer t.discard(files)
	if err != nil {
		return desk.Written{}, err
	}
	var out desk.Written
	err = t.exclusive(ctx, op, func() error {
		st := stored{Record: r, Origins: []origin{{Ref: r.Ref, URL: r.URL}}}
		rec := &st.Record
		if rec.Ref.ID == "" {
			rec.Ref.ID, st.Origins = fmt.Sprintf("archive-%d", t.x.last()+1), nil
		}
		base, n := rec.Ref.ID, 1
		for rec.Ref.ID = numbered(base, n); t.taken(rec.Ref); rec.Ref.ID = numbered(base, n) {
			n++
		}
		rec.Fields = canonical(r.Fields)
		rec.Entries = adopt(rec.Ref.ID, n, nil, entries)
		rec.History = slices.Clone(r.History)
		for i := range rec.History {
			rec.History[i].At = rec.History[i].At.UTC()
		}
		rec.Aliases = desk.Set(r.Aliases...)
		rec.Lock, rec.Began = "", time.Time{}
		if err := t.store(op, &st, files); err != nil {
			return err
		}
		out = t.written(&st, rec.Entries)
		return nil
	})
	return out, err
}

// taken tells whether an id belongs to a record, also to one that was deleted or merged.
func (t *target) taken(ref desk.Ref) bool {
	_, used := t.x.latest[ref]
	_, alias := t.x.aliases[ref.ID]
	return used || alias && ref.Kind == desk.Ticket
}

// Read implements desk.Target.
func (t *target) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	op := "read " + ref.String()
	began := t.now().UTC()
	st, err := t.find(ctx, op, ref)
	if err != nil {
		return desk.Record{}, err
	}
	if st.Record.Event == desk.Deleted {
		return desk.Record{}, &desk.Error{Op: op, Class: desk.ErrNotFound}
	}
	return st.shown(began), nil
}

// Apply implements desk.Target. Entries go where their times belong in the thread. A change of the status becomes a line of
// the history, at the time of the write, because a Change does not carry the source's line.
func (t *target) Apply(ctx context.Context, ref desk.Ref, c desk.Change) (desk.Written, error) {
	op := "apply to " + ref.String()
	if err := t.writable(ctx, op); err != nil {
		return desk.Written{}, err
	}
	if err := valid(desk.Record{Fields: c.Fields, Entries: c.Entries}); err != nil {
		return desk.Written{}, &desk.Error{Op: op, Class: desk.ErrRejected, Err: err}
	}
	if len(c.Entries) > 0 && ref.Kind != desk.Ticket {
		return desk.Written{}, &desk.Error{Op: op, Class: desk.ErrRejected, Err: errors.New("only tickets have entries")}
	}
	st, err := t.find(ctx, op, ref)
	if err == nil {
		err = movable(op, &st, c.Lock)
	}
	if err != nil {
		return desk.Written{}, err
	}
	entries, files, err := t.stageAll(ctx, op, c.Entries, nil)
	defer t.discard(files)
	if err != nil {
		return desk.Written{}, err
	}
	var out desk.Written
	err = t.exclusive(ctx, op, func() error {
		st, err := t.resolve(op, ref)
		if err == nil {
			err = movable(op, &st, c.Lock)
		}
		if err != nil {
			return err
		}
		r := &st.Record
		fields := maps.Clone(r.Fields)
		maps.Copy(fields, canonical(c.Fields))
		if same(fields, r.Fields) && len(entries) == 0 {
			out = t.written(&st, nil)
			return nil
		}
		if before, after := r.Fields[desk.Status].First(), fields[desk.Status].First(); r.Ref.Kind == desk.Ticket && before != after {
			r.History = append(r.History, desk.StatusChange{At: t.now().UTC().Truncate(stampStep), Before: before, After: after})
		}
		r.Fields = fields
		added := adopt(r.Ref.ID, st.copyNumber(), r.Entries, entries)
		if len(added) > 0 {
			r.Entries = thread(r.Entries, added)
		}
		if err := t.store(op, &st, files); err != nil {
			return err
		}
		out = t.written(&st, added)
		return nil
	})
	return out, err
}

// movable tells whether a record may be changed by somebody who read it under this lock.
func movable(op string, st *stored, lock string) error {
	if st.Record.Event == desk.Deleted {
		return &desk.Error{Op: op, Class: desk.ErrNotFound}
	}
	if lock != "" && lock != lockOf(st.Record.Stamp) {
		return &desk.Error{Op: op, Class: desk.ErrConflict}
	}
	return nil
}

// copyNumber returns the n of the ids that this ticket's entries get, see numbered.
func (st *stored) copyNumber() int {
	if len(st.Origins) == 0 {
		return 1
	}
	for n := 1; n < 1000; n++ {
		if numbered(st.Origins[0].Ref.ID, n) == st.Record.Ref.ID {
			return n
		}
	}
	return 1
}

func same(a, b desk.Fields) bool { return maps.EqualFunc(a, b, desk.Value.Equal) }

// store gives the staged files their names and writes the record. The caller is in exclusive.
func (t *target) store(op string, st *stored, files stagedFiles) error {
	for _, x := range files {
		path, err := blobPath(x.sha)
		if err != nil {
			return t.damaged(op, err)
		}
		if err := t.rename(x.name, path); err != nil {
			return t.damaged(op, err)
		}
	}
	if err := t.noteFields(st.Record.Ref.Kind, st.Record.Fields); err != nil {
		return t.damaged(op, err)
	}
	if err := t.commit(st); err != nil {
		return t.damaged(op, err)
	}
	return nil
}

// noteFields adds custom fields that were never seen to the ones that Define tells.
func (t *target) noteFields(k desk.Kind, fs desk.Fields) error {
	fresh := func(known []desk.Field) (out []desk.Field) {
		for f := range fs {
			if _, custom := f.CustomName(); custom && !slices.Contains(known, f) {
				out = append(out, f)
			}
		}
		return out
	}
	if len(fresh(nil)) == 0 {
		return nil
	}
	known, err := t.customFields()
	if err != nil {
		return err
	}
	add := fresh(known[k])
	if len(add) == 0 {
		return nil
	}
	known[k] = append(known[k], add...)
	slices.Sort(known[k])
	b, err := json.MarshalIndent(known, "", " ")
	if err != nil {
		return err
	}
	return t.replace(fieldsFile, append(b, '\n'))
}

// written describes what was done to a record, in memory of its own.
func (t *target) written(st *stored, added []desk.Entry) desk.Written {
	now := st.shown(t.now().UTC())
	w := desk.Written{ID: st.Record.Ref.ID, Now: &now}
	for _, e := range added {
		if e.Marker == "" {
			continue
		}
		if w.Entries == nil {
			w.Entries = map[string]string{}
		}
		w.Entries[e.Marker] = e.ID
	}
	return w
}

// stagedFiles are complete files that have no final name yet.
type stagedFiles []staged

func (t *target) discard(all stagedFiles) {
	for _, x := range all {
		_ = t.remove(x.name) // gone where it got its final name
	}
}

// stageAll copies the files of entries into the archive and returns the entries with what was copied. A file that cannot be
// opened must be one of kept: the files that the entry has already.
func (t *target) stageAll(ctx context.Context, op string, in []desk.Entry, kept []desk.File) ([]desk.Entry, stagedFiles, error) {
	var all stagedFiles
	out := slices.Clone(in)
	for i := range out {
		out[i].Files = slices.Clone(out[i].Files)
		for j := range out[i].Files {
			x := &out[i].Files[j]
			at := fmt.Sprintf("file %d of entry %d", j, i)
			if x.Open == nil {
				k := slices.IndexFunc(kept, func(y desk.File) bool { return y.ID == x.ID && (x.SHA256 == "" || x.SHA256 == y.SHA256) })
				if k < 0 {
					return nil, all, &desk.Error{Op: op, Class: desk.ErrRejected, Err: errors.New(at + " has no content")}
				}
				x.Size, x.SHA256 = kept[k].Size, kept[k].SHA256
				continue
			}
			s, err := t.stageOne(ctx, *x)
			if s.name != "" {
				all = append(all, s)
			}
			if err != nil {
				class := desk.Class(err)
				return nil, all, &desk.Error{Op: op, Class: class, Err: fmt.Errorf("%s: %w", at, err)}
			}
			x.Size, x.SHA256, x.Open = s.size, s.sha, nil
		}
	}
	return out, all, nil
}

func (t *target) stageOne(ctx context.Context, x desk.File) (staged, error) {
	r, err := x.Open(ctx)
	if err != nil {
		return staged{}, err
	}
	defer r.Close()
	s, err := t.stage(ctx, r)
	switch {
	case err != nil:
		return s, err
	case x.Size >= 0 && s.size != x.Size:
		return s, fmt.Errorf("%d bytes came, %d were declared", s.size, x.Size)
	case x.SHA256 != "" && s.sha != x.SHA256:
		return s, errors.New("its bytes do not have the declared hash")
	}
	return s, nil
}

// Find implements desk.Finder.
func (t *target) Find(ctx context.Context, src desk.Ref) ([]string, error) {
	if err := t.current(ctx, "find "+src.String()); err != nil {
		return nil, err
	}
	defer t.mu.Unlock()
	var out []string
	for _, ref := range t.x.sources[src] {
		if ref.Kind == src.Kind {
			out = append(out, ref.ID)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Match implements desk.Matcher: by e-mail address, external id, then login of a person; by e-mail address, external id,
// then name of a company. A person's name is not certain enough.
func (t *target) Match(ctx context.Context, r desk.Record) ([]string, error) {
	if err := t.current(ctx, "match "+r.Ref.String()); err != nil {
		return nil, err
	}
	defer t.mu.Unlock()
	for _, f := range matchFields(r.Ref.Kind) {
		var out []string
		for _, k := range keysOf(r, f) {
			for _, ref := range t.x.keys[k] {
				out = append(out, ref.ID)
			}
		}
		if len(out) > 0 {
			slices.Sort(out)
			return slices.Compact(out), nil
		}
	}
	return nil, nil
}

// Delete implements desk.Deleter. Of the record nothing stays but its id, the source's ids and the time; its files go unless
// another record has the same bytes.
func (t *target) Delete(ctx context.Context, ref desk.Ref, lock string) error {
	op := "delete " + ref.String()
	return t.exclusive(ctx, op, func() error {
		st, err := t.resolve(op, ref)
		if err == nil {
			err = movable(op, &st, lock)
		}
		if err != nil {
			return err
		}
		origins := make([]origin, len(st.Origins))
		for i, o := range st.Origins {
			origins[i].Ref = o.Ref
		}
		gone := stored{Record: desk.Record{Ref: st.Record.Ref, Event: desk.Deleted, Aliases: st.Record.Aliases}, Origins: origins}
		if err := t.commit(&gone); err != nil {
			return t.damaged(op, err)
		}
		return nil
	})
}

// Merge implements desk.Merger: the thread, the aliases and the origins of from go to into, and from's id answers with
// into from then on. Cut off in between, it is completed by doing it again.
func (t *target) Merge(ctx context.Context, from, into desk.Ref, lock string) error {
	op := fmt.Sprintf("merge %s into %s", from, into)
	if from.Kind != desk.Ticket || into.Kind != desk.Ticket {
		return &desk.Error{Op: op, Class: desk.ErrRejected, Err: errors.New("only tickets can be merged")}
	}
	return t.exclusive(ctx, op, func() error {
		a, err := t.resolve(op, from)
		if err != nil {
			return err
		}
		b, err := t.resolve(op, into)
		if err != nil {
			return err
		}
		if err := errors.Join(movable(op, &a, ""), movable(op, &b, "")); err != nil {
			return err
		}
		if a.Record.Ref == b.Record.Ref {
			if a.Record.Ref != from {
				return nil // done already
			}
			return &desk.Error{Op: op, Class: desk.ErrRejected, Err: errors.New("a ticket cannot be merged into itself")}
		}
		if err := movable(op, &a, lock); err != nil {
			return err
		}
		r := &b.Record
		moved := slices.DeleteFunc(a.Record.Entries, func(e desk.Entry) bool { return cameAcross(r.Entries, e) })
		r.Entries = thread(r.Entries, adopt(r.Ref.ID, 1, r.Entries, moved))
		r.Aliases = desk.Set(slices.Concat(r.Aliases, a.Record.Aliases, []string{a.Record.Ref.ID})...)
		for _, o := range a.Origins {
			if !slices.Contains(b.Origins, o) {
				b.Origins = append(b.Origins, o)
			}
		}
		if err := t.commit(&b); err != nil {
			return t.damaged(op, err)
		}
		gone := stored{Record: desk.Record{Ref: a.Record.Ref, Event: desk.Merged}, Into: r.Ref.ID, Origins: a.Origins}
		if err := t.commit(&gone); err != nil {
			return t.damaged(op, err)
		}
		return nil
	})
}

// cameAcross tells whether an earlier merge that was cut off has brought the entry already.
func cameAcross(have []desk.Entry, e desk.Entry) bool {
	return slices.ContainsFunc(have, func(x desk.Entry) bool {
		return (x.ID == e.ID || strings.HasPrefix(x.ID, e.ID+"~")) && x.Marker == e.Marker && x.Digest() == e.Digest()
	})
}

// Revise implements desk.Reviser. A file without Open must be one that the entry has.
func (t *target) Revise(ctx context.Context, ticket desk.Ref, e desk.Entry, lock string) error {
	op := fmt.Sprintf("revise entry %s of %s", e.ID, ticket)
	if err := t.writable(ctx, op); err != nil {
		return err
	}
	if err := valid(desk.Record{Entries: []desk.Entry{e}}); err != nil {
		return &desk.Error{Op: op, Class: desk.ErrRejected, Err: err}
	}
	st, err := t.find(ctx, op, ticket)
	if err != nil {
		return err
	}
	i, err := ours(op, &st, e.ID)
	if err != nil {
		return err
	}
	in, files, err := t.stageAll(ctx, op, []desk.Entry{e}, st.Record.Entries[i].Files)
	defer t.discard(files)
	if err != nil {
		return err
	}
	e = adopt(ticket.ID, 1, nil, in)[0]
	return t.exclusive(ctx, op, func() error {
		st, err := t.resolve(op, ticket)
		if err != nil {
			return err
		}
		i, err := ours(op, &st, e.ID)
		if err == nil {
			err = movable(op, &st, lock)
		}
		if err != nil {
			return err
		}
		have := &st.Record.Entries[i]
		for _, x := range e.Files {
			has := func(sha string) bool { return sha == x.SHA256 }
			if !slices.ContainsFunc(files, func(s staged) bool { return has(s.sha) }) && !slices.ContainsFunc(have.Files, func(y desk.File) bool { return has(y.SHA256) }) {
				return &desk.Error{Op: op, Class: desk.ErrConflict, Err: fmt.Errorf("file %s is no longer in the entry", x.ID)}
			}
		}
		have.Public, have.Subject, have.Body, have.Type, have.Headers, have.Files = e.Public, e.Subject, e.Body, e.Type, e.Headers, e.Files
		return t.store(op, &st, files)
	})
}

// ours returns the place of an entry that the migration wrote.
func ours(op string, st *stored, id string) (int, error) {
	if st.Record.Event == desk.Deleted {
		return 0, &desk.Error{Op: op, Class: desk.ErrNotFound}
	}
	i := slices.IndexFunc(st.Record.Entries, func(e desk.Entry) bool { return e.ID == id })
	switch {
	case i < 0:
		return 0, &desk.Error{Op: op, Class: desk.ErrNotFound}
	case st.Record.Entries[i].Marker == "":
		return 0, &desk.Error{Op: op, Class: desk.ErrRejected, Err: errors.New("the migration did not write this entry")}
	}
	return i, nil
}

// Check implements desk.Checker: the journal is sound, and the account may write.
func (t *target) Check(ctx context.Context) error {
	if err := t.writable(ctx, "check"); err != nil {
		return err
	}
	if err := t.sound(ctx); err != nil {
		return err
	}
	j, err := t.open(lockFile, os.O_RDWR)
	if err != nil {
		return &desk.Error{Op: "check", Class: desk.ErrUnauthorized, Err: err}
	}
	return j.Close()
}

// checked is a file on its way out: reading fails at the end when the bytes are not the ones that were stored, and as soon
// as there are more of them.
type checked struct {
	ctxReader
	c    io.Closer
	op   string
	want desk.File
	h    hash.Hash
	n    int64
}

func newChecked(ctx context.Context, op string, f *os.File, want desk.File) io.ReadCloser {
	return &checked{ctxReader: ctxReader{ctx, f}, c: f, op: op, want: want, h: sha256.New()}
}

// Read implements io.Reader.
func (c *checked) Read(p []byte) (int, error) {
	n, err := c.ctxReader.Read(p)
	c.h.Write(p[:n])
	c.n += int64(n)
	switch {
	case c.n > c.want.Size, errors.Is(err, io.EOF) && (c.n != c.want.Size || hexSum(c.h) != c.want.SHA256):
		return n, &desk.Error{Op: c.op, Class: desk.ErrRejected, Err: errors.New("the file in the archive is damaged: its bytes are not those that were stored")}
	case err != nil && !errors.Is(err, io.EOF):
		return n, &desk.Error{Op: c.op, Class: desk.ErrTransient, Err: err}
	}
	return n, err
}

// Close implements io.Closer.
func (c *checked) Close() error { return c.c.Close() }

// The capabilities of the target.
var (
	_ desk.Target  = (*target)(nil)
	_ desk.Checker = (*target)(nil)
	_ desk.Definer = (*target)(nil)
	_ desk.Finder  = (*target)(nil)
	_ desk.Matcher = (*target)(nil)
	_ desk.Opener  = (*target)(nil)
	_ desk.Deleter = (*target)(nil)
	_ desk.Merger  = (*target)(nil)
	_ desk.Reviser = (*target)(nil)
)

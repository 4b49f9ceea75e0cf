package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// source reads an archive. It shows what the original desk had: entries without the markers of the run that wrote them.
type source struct{ *folder }

// place is the content of a cursor: how many lines of the journal lie before it, and their checksum.
type place struct {
	Seq int64  `json:"archive_seq"`
	Sum string `json:"sum"`
}

func parseCursor(c desk.Cursor) (place, error) {
	var p place
	if err := decodeStrict(c, &p); err != nil {
		return place{}, err
	}
	if p.Seq < 0 || len(p.Sum) != 16 {
		return place{}, errors.New("it has no valid place")
	}
	return p, nil
}

// cursor returns the cursor after n lines. The caller holds mu.
func (f *folder) cursor(n int64) desk.Cursor {
	b, err := json.Marshal(place{Seq: n, Sum: f.x.tail(f.start, n).String()})
	if err != nil {
		panic("archive: a cursor that cannot be written as JSON: " + err.Error()) // a number and hex digits
	}
	return b
}

// seq returns how many lines lie before a cursor. The caller holds mu.
func (f *folder) seq(op string, c desk.Cursor) (int64, error) {
	p, err := parseCursor(c)
	if err == nil && (p.Seq > f.x.last() || f.x.tail(f.start, p.Seq).String() != p.Sum) {
		err = errors.New("it was made by another archive, or by a copy of this one that has other changes")
	}
	if err != nil {
		return 0, &desk.Error{Op: op, Class: desk.ErrCursor, Err: err}
	}
	return p.Seq, nil
}

// current locks the index and brings it up to date. On success the caller unlocks mu.
func (f *folder) current(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return &desk.Error{Op: op, Class: desk.ErrTransient, Err: err}
	}
	f.mu.Lock()
	if err := f.refresh(); err != nil {
		f.mu.Unlock()
		return f.damaged(op, err)
	}
	return nil
}

// Mark implements desk.Source.
func (s *source) Mark(ctx context.Context) (desk.Cursor, error) {
	if err := s.current(ctx, "mark"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return s.cursor(s.x.last()), nil
}

// At implements desk.Rewinder.
func (s *source) At(ctx context.Context, t time.Time) (desk.Cursor, error) {
	if err := s.current(ctx, "rewind"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	t = t.Truncate(stampStep)
	n := sort.Search(len(s.x.lines), func(i int) bool { return !s.x.lines[i].At.Before(t) })
	return s.cursor(int64(n)), nil
}

// Changes implements desk.Source. A record that changed several times in the interval is listed at its last change. The
// scope is left to the caller.
func (s *source) Changes(ctx context.Context, kind desk.Kind, _ desk.Scope, from, until desk.Cursor) (desk.Page, error) {
	op := "list " + string(kind)
	if err := s.current(ctx, op); err != nil {
		return desk.Page{}, err
	}
	defer s.mu.Unlock()
	var first int64
	last := s.x.last()
	var err error
	if from != nil {
		if first, err = s.seq(op, from); err != nil {
			return desk.Page{}, err
		}
	}
	if until != nil {
		if last, err = s.seq(op, until); err != nil {
			return desk.Page{}, err
		}
	}
	last = max(first, last)
	page := desk.Page{}
	n := first
	for ; n < last && len(page.Items) < s.pageSize; n++ {
		l := s.x.lines[n]
		if l.Ref.Kind != kind {
			continue
		}
		if later := int64(s.x.latest[l.Ref]); later > n && later < last {
			continue
		}
		item := desk.Listed{Ref: l.Ref, Stamp: desk.Stamp{At: l.At, Seq: l.Seq}, Event: l.Event, Into: l.Into, Open: l.Open}
		if item.Event == "" {
			item.Event = desk.Changed
		}
		page.Items = append(page.Items, item)
	}
	page.Next, page.Done = s.cursor(n), n == last
	return page, nil
}

// Read implements desk.Source. A record that was deleted here is not found; one that the original desk showed as deleted
// is returned as such.
func (s *source) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	began := s.now().UTC()
	st, err := s.find(ctx, "read "+ref.String(), ref)
	if err != nil {
		return desk.Record{}, err
	}
	r := st.shown(began)
	for i := range r.Entries {
		r.Entries[i].Marker = ""
	}
	return r, nil
}

// shown returns the record as it is read.
func (st *stored) shown(began time.Time) desk.Record {
	r := st.Record
	r.Began = began
	r.Lock = lockOf(r.Stamp)
	if r.Event == "" {
		r.Event = desk.Changed
	}
	return r
}

// find reads a record, following merges. op is what errors say was attempted.
func (f *folder) find(ctx context.Context, op string, ref desk.Ref) (stored, error) {
	if err := f.current(ctx, op); err != nil {
		return stored{}, err
	}
	defer f.mu.Unlock()
	return f.resolve(op, ref)
}

// resolve is find for a caller who holds mu over an index that is up to date.
func (f *folder) resolve(op string, ref desk.Ref) (stored, error) {
	for range 1000 {
		st, err := f.load(ref)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			into, ok := f.x.aliases[ref.ID]
			if !ok || ref.Kind != desk.Ticket {
				return stored{}, &desk.Error{Op: op, Class: desk.ErrNotFound}
			}
			ref.ID = into
		case err != nil:
			return stored{}, &desk.Error{Op: op, Class: desk.ErrRejected, Err: err}
		case st.Record.Event == desk.Merged:
			ref.ID = st.Into
		case st.gone():
			return stored{}, &desk.Error{Op: op, Class: desk.ErrNotFound}
		default:
			return st, nil
		}
	}
	return stored{}, &desk.Error{Op: op, Class: desk.ErrRejected, Err: errors.New("its merges go round in a circle")}
}

// OpenFile implements desk.Opener. The file is looked up by its id in the ticket, so nothing else can be read through it.
func (f *folder) OpenFile(ctx context.Context, ticket desk.Ref, x desk.File) (io.ReadCloser, error) {
	op := fmt.Sprintf("open file %s of %s", x.ID, ticket)
	st, err := f.find(ctx, op, ticket)
	if err != nil {
		return nil, err
	}
	for _, e := range st.Record.Entries {
		i := slices.IndexFunc(e.Files, func(y desk.File) bool {
			return y.ID == x.ID && (x.SHA256 == "" || x.SHA256 == y.SHA256)
		})
		if i < 0 {
			continue
		}
		path, err := blobPath(e.Files[i].SHA256)
		if err != nil {
			return nil, &desk.Error{Op: op, Class: desk.ErrRejected, Err: err}
		}
		b, err := f.open(path, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &desk.Error{Op: op, Class: desk.ErrNotFound, Err: errors.New(path + " is missing in the archive")}
		}
		if err != nil {
			return nil, f.damaged(op, err)
		}
		return newChecked(ctx, op, b, e.Files[i]), nil
	}
	return nil, &desk.Error{Op: op, Class: desk.ErrNotFound}
}

// Define implements desk.Definer. Besides the fields that all desks share these are the custom fields that were ever
// written; an archive takes any other one as well.
func (f *folder) Define(ctx context.Context) (desk.Definitions, error) {
	if err := ctx.Err(); err != nil {
		return desk.Definitions{}, &desk.Error{Op: "define", Class: desk.ErrTransient, Err: err}
	}
	custom, err := f.customFields()
	if err != nil {
		return desk.Definitions{}, f.damaged("define", err)
	}
	d := desk.Definitions{Open: true, Fields: map[desk.Kind][]desk.FieldDef{}}
	for k, fs := range sharedFields {
		for _, x := range slices.Concat(fs, custom[k]) {
			_, isCustom := x.CustomName()
			d.Fields[k] = append(d.Fields[k], desk.FieldDef{Field: x, Many: isCustom || x.IsSet() || x == desk.Email, Write: desk.Always})
		}
	}
	return d, nil
}

var sharedFields = map[desk.Kind][]desk.Field{
	desk.Company: {desk.Name, desk.Email, desk.Phone, desk.ExternalID, desk.Active, desk.Locale, desk.TimeZone, desk.Address, desk.Description, desk.Created},
	desk.Person: {
		desk.Name, desk.Email, desk.Phone, desk.Login, desk.ExternalID, desk.CompanyOf, desk.Role, desk.Active, desk.Locale,
		desk.TimeZone, desk.Address, desk.Description, desk.Created,
	},
	desk.Ticket: {
		desk.Subject, desk.Status, desk.Priority, desk.Type, desk.Group, desk.Requester, desk.Assignee, desk.CC, desk.Followers,
		desk.CompanyOf, desk.Tags, desk.Channel, desk.Description, desk.ExternalID, desk.Created, desk.Started, desk.Resolved, desk.Due,
		desk.FirstDue, desk.TimeWorked, desk.TimeEstimated, desk.TimeLeft, desk.LinkParent, desk.LinkDependsOn, desk.LinkRefersTo,
	},
}

func (f *folder) customFields() (map[desk.Kind][]desk.Field, error) {
	out := map[desk.Kind][]desk.Field{}
	b, err := f.readFile(fieldsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	if err := decodeStrict(b, &out); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; without it, it is made again as fields are written", fieldsFile, err)
	}
	return out, nil
}

// sound tells whether the folder is an archive whose journal can be trusted.
func (f *folder) sound(ctx context.Context) error {
	if err := f.current(ctx, "check"); err != nil {
		return err
	}
	f.mu.Unlock()
	return nil
}

// Check implements desk.Checker.
func (s *source) Check(ctx context.Context) error { return s.sound(ctx) }

// The capabilities of the source.
var (
	_ desk.Source   = (*source)(nil)
	_ desk.Checker  = (*source)(nil)
	_ desk.Definer  = (*source)(nil)
	_ desk.Opener   = (*source)(nil)
	_ desk.Rewinder = (*source)(nil)
)

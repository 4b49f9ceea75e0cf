package deltatest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Desk is a help desk in memory for the engine's own proof: stateful, with a feed of changes, people who work on it, and the
// faults a test asks for. It shares no code with the engine or a connector.
type Desk struct {
	Name string
	// Now is the desk's own clock.
	Now func() time.Time
	// PageSize of listings.
	PageSize int
	// NoFinder, NoReviser, NoMerger and NoMarkers take capabilities away.
	NoFinder, NoReviser, NoMerger, NoMarkers bool
	// NoLocks: nobody can ask for a write to what nobody has touched.
	NoLocks bool
	// FindLag is how long Find does not see what was just created.
	FindLag time.Duration
	// Timed: entries keep their times, also without markers.
	Timed bool
	// FindsMerged makes Find answer with the ticket that lives on for one that was merged, as archives do.
	FindsMerged bool
	// Blind makes Find see nothing: what a migration would do without looking.
	Blind bool
	// Fail, when set, is asked before every call ("mark", "list", "read", "open", "find", "match", "create", "apply", "check",
	// "revise", "merge", "delete"); its error is the call's. Lose is asked after a create, apply, revise or delete took effect; its error
	// is what the caller gets instead of the answer.
	Fail, Lose func(op string, ref desk.Ref) error
	// TellsTouched: Read says which fields people had the last word in.
	TellsTouched bool
	// HidesSizes: nobody learns how large a file is before it is opened.
	HidesSizes bool
	// Meddle, when set, is what the desk does by itself to a record's fields when entries arrive, before the fields of the
	// same Apply are set. Cut is called in between: a process may die there.
	Meddle func(desk.Fields)
	Cut    func()
	// Stale makes that many reads show the record as it was before its last change. ListLag says that such a thing may be.
	Stale   int
	ListLag time.Duration
	// Lingers is how long what the target side deleted is still shown as it was.
	Lingers time.Duration
	// JoinsInto: a merge writes the ticket that lives on first, so that the other one has the higher number.
	JoinsInto bool
	// Purges: what was deleted cannot be read any more, as in a desk that hides it.
	Purges bool
	// Calls counts calls by the same names.
	Calls map[string]int
	// Normalise, when set, changes a field's value as the desk stores it.
	Normalise func(desk.Field, desk.Value) desk.Value
	// Defines is what the target side says of its fields; it says nothing, and takes them all, where it is empty.
	Defines desk.Definitions

	mu      sync.Mutex
	records map[desk.Ref]*stored
	order   []desk.Ref
	feed    []change
	next    int
	writes  int
	unseen  bool
}

type stored struct {
	rec    desk.Record
	source desk.Ref // what Create stored with it
	made   time.Time
	seq    int64
	into   string
	gone   bool
	faded  time.Time  // until then one that is gone is still shown
	event  desk.Event // how it went: Deleted or Spam
	files  map[string][]byte
	before *desk.Record // as it was before its last change
	edited map[desk.Field]bool
}

type change struct {
	ref   desk.Ref
	at    time.Time
	event desk.Event
	into  string
}

// NewDesk returns an empty desk.
func NewDesk(name string, now func() time.Time) *Desk {
	return &Desk{Name: name, Now: now, PageSize: 3, records: map[desk.Ref]*stored{}, next: 100}
}

func (d *Desk) touch(ref desk.Ref, ev desk.Event, into string) {
	s := d.records[ref]
	at := d.Now().UTC().Truncate(time.Second)
	if d.unseen {
		s.seq, s.rec.Stamp = 0, desk.Stamp{At: at}
		return
	}
	d.feed = append(d.feed, change{ref, at, ev, into})
	s.seq = int64(len(d.feed))
	s.rec.Stamp = desk.Stamp{At: at, Seq: s.seq}
	s.rec.Lock = strconv.FormatInt(s.seq, 10)
}

// call counts a call and asks whether it is to fail. It is made without holding the desk's lock.
func (d *Desk) call(op string, ref desk.Ref) error {
	d.mu.Lock()
	if d.Calls == nil {
		d.Calls = map[string]int{}
	}
	d.Calls[op]++
	f := d.Fail
	d.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(op, ref)
}

func (d *Desk) lose(op string, ref desk.Ref) error {
	if d.Lose == nil {
		return nil
	}
	return d.Lose(op, ref)
}

func (d *Desk) newID() string { d.next++; return strconv.Itoa(d.next) }

// Add makes a record as the desk's people would, and returns its id.
func (d *Desk) Add(k desk.Kind, f desk.Fields) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ref := desk.Ref{Kind: k, ID: d.newID()}
	fields := maps.Clone(f)
	if k == desk.Ticket {
		fields[desk.Created] = desk.Time(d.Now())
	}
	d.records[ref] = &stored{rec: desk.Record{Ref: ref, Fields: fields, URL: "https://" + d.Name + "/" + ref.String()}, files: map[string][]byte{}}
	d.order = append(d.order, ref)
	d.touch(ref, desk.Changed, "")
	return ref.ID
}

// Edit sets fields as the desk's people would.
func (d *Desk) Edit(ref desk.Ref, f desk.Fields) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.records[ref].rec
	old.Fields = maps.Clone(old.Fields)
	d.records[ref].before = &old
	s := d.records[ref]
	maps.Copy(s.rec.Fields, f)
	if s.edited == nil {
		s.edited = map[desk.Field]bool{}
	}
	for x := range f {
		s.edited[x] = true
	}
	d.touch(ref, desk.Changed, "")
}

// Say adds an entry as the desk's people would, with files by name.
func (d *Desk) Say(ticket string, public bool, author desk.Author, body string, files map[string][]byte) {
	en := desk.Entry{Public: public, Author: author, Body: body, Type: "text/plain"}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		en.Files = append(en.Files, desk.File{Name: name, Type: "application/octet-stream"})
	}
	d.Post(ticket, en, files)
}

// Post adds an entry as it is given; the desk gives it its id and time, and its files theirs, with the bytes by name.
func (d *Desk) Post(ticket string, en desk.Entry, files map[string][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ref := desk.Ref{Kind: desk.Ticket, ID: ticket}
	s := d.records[ref]
	en.ID, en.At = d.newID(), d.Now().UTC().Truncate(time.Second)
	for i := range en.Files {
		f := &en.Files[i]
		f.ID, f.Size = d.newID(), int64(len(files[f.Name]))
		s.files[f.ID] = files[f.Name]
	}
	s.rec.Entries = append(s.rec.Entries, en)
	d.touch(ref, desk.Changed, "")
}

// Unseen lets people work behind the feed's back: what they do shows in a full listing and when it is read, and the feed of
// changes says nothing of it.
func (d *Desk) Unseen(work func()) {
	d.unseen = true
	work()
	d.unseen = false
}

// Remove deletes a ticket as the desk's people would.
func (d *Desk) Remove(ref desk.Ref) { d.leave(ref, desk.Deleted) }

// Join merges a ticket into another one as the desk's people would.
func (d *Desk) Join(from, into desk.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.join(from, into)
}

func (d *Desk) join(from, into desk.Ref) {
	into = d.alive(into)
	a, b := d.records[from], d.records[into]
	if a.into != "" || from == into {
		return
	}
	b.rec.Entries = append(b.rec.Entries, a.rec.Entries...)
	slices.SortStableFunc(b.rec.Entries, func(x, y desk.Entry) int { return x.At.Compare(y.At) })
	maps.Copy(b.files, a.files)
	b.rec.Aliases = append(append(b.rec.Aliases, a.rec.Aliases...), from.ID)
	was := a.rec
	a.into, a.before = into.ID, &was
	if d.JoinsInto {
		d.touch(into, desk.Changed, "")
	}
	d.touch(from, desk.Merged, into.ID)
	if !d.JoinsInto {
		d.touch(into, desk.Changed, "")
	}
}

// Harm is something that Damage does.
type Harm int

// The harms: to the first entry (its file's first byte, visibility, text, time, subject), to the thread (the last entry is
// gone, the first one is there twice, one has a marker of nobody, the first two have changed places), to the ticket (there
// twice, its subject is another one, it has another requester, gone).
const (
	FileByte Harm = iota
	Visibility
	Body
	EntryTime
	EntrySubject
	LoseEntry
	RepeatEntry
	ForeignEntry
	SwapEntries
	Double
	FieldValue
	Requester
	LoseLinks
	Vanish
)

// Damage harms a ticket behind everybody's back: neither its version nor the feed tells.
func (d *Desk) Damage(ticket string, h Harm) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.records[desk.Ref{Kind: desk.Ticket, ID: ticket}]
	switch h {
	case FileByte:
		id := s.rec.Entries[0].Files[0].ID
		b := slices.Clone(s.files[id])
		b[0]++
		s.files[id] = b
	case Visibility, Body, EntryTime, EntrySubject:
		s.rec.Entries = slices.Clone(s.rec.Entries)
		en := &s.rec.Entries[0]
		switch h {
		case Visibility:
			en.Public = !en.Public
		case Body:
			en.Body += "!"
		case EntryTime:
			en.At = en.At.Add(time.Minute)
		default:
			en.Subject += "!"
		}
	case LoseEntry:
		s.rec.Entries = s.rec.Entries[:len(s.rec.Entries)-1]
	case RepeatEntry, ForeignEntry:
		en := s.rec.Entries[0]
		en.ID = d.newID()
		if h == ForeignEntry {
			en.Marker += "0"
		}
		s.rec.Entries = append(slices.Clone(s.rec.Entries), en)
	case SwapEntries:
		s.rec.Entries = slices.Clone(s.rec.Entries)
		s.rec.Entries[0], s.rec.Entries[1] = s.rec.Entries[1], s.rec.Entries[0]
	case Double:
		c := *s
		c.rec.Fields = maps.Clone(s.rec.Fields)
		c.rec.Ref.ID = d.newID()
		d.records[c.rec.Ref] = &c
		d.order = append(d.order, c.rec.Ref)
	case FieldValue:
		s.rec.Fields = maps.Clone(s.rec.Fields)
		s.rec.Fields[desk.Subject] = desk.Value{"changed without a trace"}
	case Requester: // as desks do when people are merged
		s.rec.Fields = maps.Clone(s.rec.Fields)
		s.rec.Fields[desk.Requester] = desk.Value{"1"}
	case LoseLinks:
		s.rec.Fields = maps.Clone(s.rec.Fields)
		delete(s.rec.Fields, desk.LinkRefersTo)
	case Vanish:
		s.gone = true
	}
}

// Seen is one record as a person looks at it: by source reference, without ids that depend on the order of creation.
type Seen struct {
	Fields  map[desk.Field]string
	Entries []string
	Files   []string
}

// Look returns what is on the desk, by a key that is the source's reference where there is one. Records that were merged
// away or deleted are left out. References between records are shown by that key too.
func (d *Desk) Look() map[string][]Seen {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := func(ref desk.Ref) string {
		s := d.records[ref]
		if s == nil {
			return "?" + ref.ID
		}
		ref = d.alive(ref)
		s = d.records[ref]
		if s.source.ID != "" {
			return s.source.String()
		}
		return "own " + ref.String()
	}
	out := map[string][]Seen{}
	for _, ref := range d.order {
		s := d.records[ref]
		if s.gone || s.into != "" {
			continue
		}
		seen := Seen{Fields: map[desk.Field]string{}}
		for f, v := range s.rec.Fields {
			if len(v) == 0 {
				continue
			}
			w := slices.Clone(v)
			if k := f.Points(); k != "" {
				for i, id := range w {
					w[i] = name(desk.Ref{Kind: k, ID: id})
				}
				slices.Sort(w)
			}
			seen.Fields[f] = fmt.Sprint([]string(w))
		}
		for _, en := range s.rec.Entries {
			seen.Entries = append(seen.Entries, fmt.Sprintf("%s public=%v %s", en.Marker, en.Public, en.Body))
			for _, f := range en.Files {
				sum := sha256.Sum256(s.files[f.ID])
				seen.Files = append(seen.Files, f.Name+" "+hex.EncodeToString(sum[:4]))
			}
		}
		out[name(ref)] = append(out[name(ref)], seen)
	}
	return out
}

// Merged returns which records were merged, and what they live on in, by the keys of Look.
func (d *Desk) Merged() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := func(ref desk.Ref) string {
		if s := d.records[ref]; s.source.ID != "" {
			return s.source.String()
		}
		return "own " + ref.String()
	}
	out := map[string]string{}
	for _, ref := range d.order {
		if d.records[ref].into != "" {
			out[name(ref)] = name(d.alive(ref))
		}
	}
	return out
}

// Writes returns how many writes the target side carried out.
func (d *Desk) Writes() int { d.mu.Lock(); defer d.mu.Unlock(); return d.writes }

// Target returns the id of the record that carries a source reference, "" if there is none.
func (d *Desk) Target(source desk.Ref) string {
	ids, _ := d.find(source, 0)
	if len(ids) == 0 {
		return ""
	}
	return ids[0]
}

func (d *Desk) find(source desk.Ref, lag time.Duration) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []string
	shown := func(s *stored) bool { return lag == 0 || s.made.Add(lag).Before(d.Now()) }
	for _, ref := range d.order {
		s, lives := d.records[ref], d.alive(ref)
		if s.source == source && shown(s) && !d.records[lives].gone && (s.into == "" || d.FindsMerged) {
			ids = append(ids, lives.ID)
		}
	}
	return ids, nil
}

// Traits of both sides.
func (d *Desk) Traits() desk.Traits {
	t := desk.Traits{
		Kinds: desk.LoadOrder(), SeesDeletes: true, KeepsTimes: true, KeepsAuthors: true, EntryMarker: "a field of the entry",
		StampResolution: time.Second, Settle: 10 * time.Second, ListLag: d.ListLag, FindLag: d.FindLag,
	}
	if d.NoMarkers {
		t.EntryMarker, t.KeepsTimes = "", d.Timed
	}
	return t
}

// AsSource returns the desk's reading side.
func (d *Desk) AsSource() desk.Source { return &sourceSide{d} }

// AsTarget returns the desk's writing side.
func (d *Desk) AsTarget() desk.Target {
	t := &targetSide{d}
	return able(t, when(!d.NoFinder, t.find), when(!d.NoReviser, t.revise), when(!d.NoMerger, t.merge))
}

type sourceSide struct{ d *Desk }

type place struct {
	Desk string
	Seq  int  // position in the feed
	Full bool // listing everything, by order
	At   int
}

func (s *sourceSide) cursor(p place) desk.Cursor {
	p.Desk = s.d.Name
	b, _ := json.Marshal(p)
	return b
}

func (s *sourceSide) parse(c desk.Cursor) (place, error) {
	var p place
	if err := json.Unmarshal(c, &p); err != nil || p.Desk != s.d.Name {
		return p, &desk.Error{Op: "read cursor", Class: desk.ErrCursor}
	}
	return p, nil
}

func (s *sourceSide) Mark(ctx context.Context) (desk.Cursor, error) {
	if err := s.d.call("mark", desk.Ref{}); err != nil {
		return nil, err
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return s.cursor(place{Seq: len(s.d.feed)}), ctx.Err()
}

func (s *sourceSide) Changes(ctx context.Context, kind desk.Kind, _ desk.Scope, from, until desk.Cursor) (desk.Page, error) {
	d := s.d
	if err := d.call("list", desk.Ref{Kind: kind}); err != nil {
		return desk.Page{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	end, err := s.parse(until)
	if err != nil {
		return desk.Page{}, err
	}
	p := place{Full: true}
	if from != nil {
		if p, err = s.parse(from); err != nil {
			return desk.Page{}, err
		}
	}
	var page desk.Page
	listed := func(ref desk.Ref, c change) {
		r := d.records[ref]
		page.Items = append(page.Items, desk.Listed{Ref: ref, Stamp: desk.Stamp{At: c.at, Seq: r.seq}, Event: c.event, Into: c.into, Open: r.rec.Fields[desk.Status].First() == "open"})
	}
	if p.Full {
		for ; p.At < len(d.order) && len(page.Items) < d.PageSize; p.At++ {
			ref := d.order[p.At]
			r := d.records[ref]
			if ref.Kind != kind || r.gone {
				continue
			}
			c := change{at: r.rec.Stamp.At}
			if r.into != "" {
				c.event, c.into = desk.Merged, r.into
			}
			listed(ref, c)
		}
		page.Done = p.At >= len(d.order)
	} else {
		for ; p.Seq < end.Seq && len(page.Items) < d.PageSize; p.Seq++ {
			if c := d.feed[p.Seq]; c.ref.Kind == kind {
				r := d.records[c.ref]
				page.Items = append(page.Items, desk.Listed{Ref: c.ref, Stamp: desk.Stamp{At: c.at, Seq: int64(p.Seq + 1)}, Event: c.event, Into: c.into, Open: r.rec.Fields[desk.Status].First() == "open"})
			}
		}
		page.Done = p.Seq >= end.Seq
	}
	page.Next = s.cursor(p)
	return page, ctx.Err()
}

func (s *sourceSide) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	return s.d.read(ctx, ref, false)
}

func (d *Desk) read(ctx context.Context, ref desk.Ref, target bool) (desk.Record, error) {
	if err := d.call("read", ref); err != nil {
		return desk.Record{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.records[d.alive(ref)]
	if own := d.records[ref]; d.Stale > 0 && !target && own != nil && own.into != "" {
		r = own // the replica has not heard of the merge
	}
	lingers := ok && target && d.Now().Before(r.faded)
	if !ok || r.gone && (target || d.Purges) && !lingers {
		return desk.Record{}, &desk.Error{Op: "read " + ref.String(), Class: desk.ErrNotFound}
	}
	rec, gone := r.rec, r.gone && !lingers
	if d.Stale > 0 && !target && r.before != nil {
		d.Stale--
		rec, gone = *r.before, false
	}
	rec.Fields = maps.Clone(rec.Fields)
	rec.Entries = slices.Clone(rec.Entries)
	rec.Aliases = slices.Clone(rec.Aliases)
	rec.Began = d.Now().UTC()
	if target && d.TellsTouched && r.source.ID != "" {
		rec.Touched = map[desk.Field]bool{}
		maps.Copy(rec.Touched, r.edited)
	}
	if d.NoLocks {
		rec.Lock = ""
	}
	rec.Event = desk.Changed
	if gone {
		rec.Event = r.event
	}
	for i := range rec.Entries {
		en := &rec.Entries[i]
		if d.NoMarkers {
			en.Marker = ""
		}
		if !d.HidesSizes {
			continue
		}
		en.Files = slices.Clone(en.Files)
		for k := range en.Files {
			en.Files[k].Size = -1
		}
	}
	return rec, ctx.Err()
}

func (s *sourceSide) OpenFile(ctx context.Context, ticket desk.Ref, f desk.File) (io.ReadCloser, error) {
	return s.d.openFile(ctx, ticket, f)
}

func (d *Desk) openFile(ctx context.Context, ticket desk.Ref, f desk.File) (io.ReadCloser, error) {
	if err := d.call("open", ticket); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.records[ticket]
	if !ok {
		return nil, &desk.Error{Op: "open file " + f.ID, Class: desk.ErrNotFound}
	}
	return io.NopCloser(bytes.NewReader(r.files[f.ID])), ctx.Err()
}

func (s *sourceSide) At(_ context.Context, t time.Time) (desk.Cursor, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	i := 0
	for i < len(s.d.feed) && s.d.feed[i].at.Before(t.Truncate(time.Second)) {
		i++
	}
	return s.cursor(place{Seq: i}), nil
}

type targetSide struct{ d *Desk }

func (t *targetSide) find(_ context.Context, source desk.Ref) ([]string, error) {
	if err := t.d.call("find", source); err != nil || t.d.Blind {
		return nil, err
	}
	return t.d.find(source, t.d.FindLag)
}

func (s *sourceSide) Check(context.Context) error { return s.d.call("check", desk.Ref{}) }

func (t *targetSide) Check(context.Context) error { return t.d.call("check", desk.Ref{}) }

func (t *targetSide) Define(context.Context) (desk.Definitions, error) { return t.d.Defines, nil }

func (t *targetSide) Match(_ context.Context, r desk.Record) ([]string, error) {
	if err := t.d.call("match", r.Ref); err != nil {
		return nil, err
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	var ids []string
	for _, ref := range t.d.order {
		mine := t.d.records[ref].rec.Fields
		same := slices.ContainsFunc(mine[desk.Email], func(m string) bool { return slices.Contains(r.Fields[desk.Email], m) })
		if ref.Kind == desk.Company {
			same = mine[desk.Name].Equal(r.Fields[desk.Name])
		}
		if ref.Kind == r.Ref.Kind && same {
			ids = append(ids, ref.ID)
		}
	}
	return ids, nil
}

func (t *targetSide) Create(ctx context.Context, r desk.Record) (desk.Written, error) {
	if err := t.d.call("create", r.Ref); err != nil {
		return desk.Written{}, err
	}
	w, err := t.create(ctx, r)
	if lost := t.d.lose("create", r.Ref); err == nil && lost != nil {
		return desk.Written{}, lost
	}
	return w, err
}

func (t *targetSide) create(ctx context.Context, r desk.Record) (desk.Written, error) {
	d := t.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return desk.Written{}, err
	}
	ref := desk.Ref{Kind: r.Ref.Kind, ID: d.newID()}
	s := &stored{source: r.Ref, made: d.Now(), rec: desk.Record{Ref: ref, Fields: desk.Fields{}, URL: "https://" + d.Name + "/" + ref.String()}, files: map[string][]byte{}}
	d.records[ref] = s
	d.order = append(d.order, ref)
	d.writes++
	w := desk.Written{ID: ref.ID, Entries: map[string]string{}}
	// As desks do: people and links come in a later request, and so does all but the first entry.
	for f, v := range r.Fields {
		if f.Points() == "" {
			s.rec.Fields[f] = d.norm(f, v)
		}
	}
	err := d.addEntries(ctx, s, r.Entries[:min(1, len(r.Entries))], w.Entries)
	d.touch(ref, desk.Changed, "")
	return w, err
}

func (d *Desk) norm(f desk.Field, v desk.Value) desk.Value {
	if d.Normalise != nil {
		return d.Normalise(f, v)
	}
	return slices.Clone(v)
}

func (d *Desk) addEntries(ctx context.Context, s *stored, es []desk.Entry, ids map[string]string) error {
	for _, en := range es {
		marker := en.Marker
		en.ID = d.newID()
		for i, f := range en.Files {
			b, err := load(ctx, f)
			if err != nil {
				return err
			}
			en.Files[i] = desk.File{ID: d.newID(), Name: f.Name, Type: f.Type, Size: int64(len(b))}
			s.files[en.Files[i].ID] = b
		}
		s.rec.Entries = append(s.rec.Entries, en)
		ids[marker] = en.ID
	}
	return nil
}

func (t *targetSide) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	return t.d.read(ctx, ref, true)
}

func (t *targetSide) Apply(ctx context.Context, ref desk.Ref, c desk.Change) (desk.Written, error) {
	if err := t.d.call("apply", ref); err != nil {
		return desk.Written{}, err
	}
	w, err := t.apply(ctx, ref, c)
	if lost := t.d.lose("apply", ref); err == nil && lost != nil {
		return desk.Written{}, lost
	}
	return w, err
}

func (t *targetSide) apply(ctx context.Context, ref desk.Ref, c desk.Change) (desk.Written, error) {
	d := t.d
	d.mu.Lock()
	defer d.mu.Unlock()
	w := desk.Written{ID: ref.ID, Entries: map[string]string{}}
	if err := ctx.Err(); err != nil {
		return w, err
	}
	s, ok := d.records[d.alive(ref)]
	if !ok || s.gone {
		return w, &desk.Error{Op: "apply " + ref.String(), Class: desk.ErrNotFound}
	}
	if c.Lock != "" && c.Lock != s.rec.Lock {
		return w, &desk.Error{Op: "apply " + ref.String(), Class: desk.ErrConflict}
	}
	d.writes++
	if err := d.addEntries(ctx, s, slices.Clone(c.Entries), w.Entries); err != nil {
		return w, err
	}
	if d.Meddle != nil && len(c.Entries) > 0 {
		d.Meddle(s.rec.Fields)
	}
	if d.Cut != nil {
		d.Cut() // between the entries and the fields of one Apply
	}
	for f, v := range c.Fields {
		s.rec.Fields[f] = d.norm(f, v)
		delete(s.edited, f)
	}
	d.touch(ref, desk.Changed, "")
	return w, nil
}

// merge follows a merge, as desks do: the one that lives on goes into the other one.
func (t *targetSide) merge(ctx context.Context, from, into desk.Ref, lock string) error {
	if err := t.d.call("merge", from); err != nil {
		return err
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if from = t.d.alive(from); lock != "" && lock != t.d.records[from].rec.Lock {
		return &desk.Error{Op: "merge " + from.String(), Class: desk.ErrConflict}
	}
	t.d.writes++
	t.d.join(from, into)
	return nil
}

func (t *targetSide) Delete(ctx context.Context, ref desk.Ref, lock string) error {
	if err := t.d.call("delete", ref); err != nil {
		return err
	}
	if err := t.remove(ctx, ref, lock); err != nil {
		return err
	}
	return t.d.lose("delete", ref)
}

// remove follows a merge, as desks do: the one that lives on goes.
func (t *targetSide) remove(ctx context.Context, ref desk.Ref, lock string) error {
	d := t.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	r, ok := d.records[d.alive(ref)]
	switch {
	case !ok || r.gone:
		return &desk.Error{Op: "delete " + ref.String(), Class: desk.ErrNotFound}
	case lock != "" && lock != r.rec.Lock:
		return &desk.Error{Op: "delete " + ref.String(), Class: desk.ErrConflict}
	}
	d.writes++
	r.gone, r.faded = true, d.Now().Add(d.Lingers)
	return nil
}

func (t *targetSide) revise(ctx context.Context, ticket desk.Ref, e desk.Entry, lock string) error {
	if err := t.d.call("revise", ticket); err != nil {
		return err
	}
	if err := t.rewrite(ctx, ticket, e, lock); err != nil {
		return err
	}
	return t.d.lose("revise", ticket)
}

func (t *targetSide) rewrite(ctx context.Context, ticket desk.Ref, e desk.Entry, lock string) error {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	s, ok := t.d.records[ticket]
	i := -1
	if ok && !s.gone {
		i = slices.IndexFunc(s.rec.Entries, func(x desk.Entry) bool { return x.ID == e.ID })
	}
	if i < 0 {
		return &desk.Error{Op: "revise entry " + e.ID, Class: desk.ErrNotFound}
	}
	if lock != "" && lock != s.rec.Lock {
		return &desk.Error{Op: "revise entry " + e.ID, Class: desk.ErrConflict}
	}
	have := s.rec.Entries[i]
	have.Public, have.Subject, have.Body, have.Type, have.Headers, have.Files = e.Public, e.Subject, e.Body, e.Type, e.Headers, nil
	for _, f := range e.Files {
		if f.Open != nil {
			b, err := load(ctx, f)
			if err != nil {
				return err
			}
			f = desk.File{ID: t.d.newID(), Name: f.Name, Type: f.Type, Size: int64(len(b))}
			s.files[f.ID] = b
		}
		have.Files = append(have.Files, f)
	}
	s.rec.Entries = slices.Clone(s.rec.Entries)
	s.rec.Entries[i] = have
	t.d.writes++
	t.d.touch(ticket, desk.Changed, "")
	return nil
}

func load(ctx context.Context, f desk.File) ([]byte, error) {
	r, err := f.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (t *targetSide) OpenFile(ctx context.Context, ticket desk.Ref, f desk.File) (io.ReadCloser, error) {
	return t.d.openFile(ctx, ticket, f)
}

var (
	_ desk.Rewinder = (*sourceSide)(nil)
	_ desk.Opener   = (*sourceSide)(nil)
	_ desk.Matcher  = (*targetSide)(nil)
	_ desk.Checker  = (*targetSide)(nil)
	_ desk.Deleter  = (*targetSide)(nil)
)

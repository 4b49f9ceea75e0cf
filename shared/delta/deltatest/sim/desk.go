package sim

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// planted is in everything that a customer or an agent wrote. It must never reach a log, an error, a message or a report.
// The colon keeps it apart from digests.
const planted = "zq9:"

// actor is who changed something on a desk.
type actor string

const (
	people     actor = "people"
	migration  actor = "migration"
	automation actor = "automation"
	nobody     actor = "nobody" // a restored backup, a slip in the database: no trace of it is left
)

// deskTraits are the ways in which one simulated desk differs from another one.
type deskTraits struct {
	resolution time.Duration // of stamps
	listLag    time.Duration // how long a change may stay invisible to listings; the mark is put back by it
	readLag    time.Duration // how far a replica that answers a reading may be behind
	findLag    time.Duration // how long what was created may stay invisible to a search
	skew       time.Duration // of the desk's clock
	feed       bool          // lists events in their order; else records by the time of their last change
	seq        bool          // stamps carry a sequence number
	hides      bool          // deleted records are neither listed nor shown
	overlap    bool          // pages repeat the end of the page before
	cap        int           // a listing of records begins anew, at the last stamp, after so many
	pageSize   int

	lock, finder, markers, reviser, merger bool
	times                                  bool // entries keep the time that they had in the old desk
	touched                                bool // says in which fields people had the last word
	tells                                  bool // the answer to a write shows the record
	takesAll                               bool // a create takes the whole thread, not only the first entry
	upper                                  bool // writes colours in capitals
	dates                                  bool // goes by its own clock when a ticket was made, whatever it is told
	reopens                                bool // a reply moves the status
	automates                              bool // a trigger fires seconds after a write
}

// edit is one change of one field.
type edit struct {
	at  time.Time
	no  int // of all that happened in this world
	by  actor
	old string
	val string
	// seen is when whoever wrote this last read the record, for a migration's write.
	seen time.Time
	// event: the write carries out what a policy says about a deletion, merge or spam.
	event bool
	// undo: the write takes a run back.
	undo bool
}

// written is one write of the migration, and when it had read the record.
type written struct{ read, at time.Time }

type file struct {
	id, name string
	content  string
}

type entry struct {
	id, marker string
	public     bool
	body       string
	at         time.Time
	author     desk.Author
	files      []file
	by         actor
}

// version is a record between two changes.
type version struct {
	at        time.Time
	seq       int64
	shown     time.Time // from then on listings show it
	fields    desk.Fields
	entries   []entry
	aliases   []string
	gone      bool
	spam      bool
	into      string
	forgotten bool // merged away or removed behind the back of the feed
}

// record is one record with all that happened to it.
type record struct {
	ref      desk.Ref
	versions []version // oldest first; only as many as a lagging replica or listing can show
	hist     map[desk.Field][]edit
	source   desk.Ref // what the migration stored with it
	made     actor
	madeAt   time.Time
	read     map[*proc]time.Time // when each process last read it
	seen     map[*proc]int64     // and what it was then
	touched  map[desk.Field]bool
	wrote    []written // by the migration
	back     time.Time // when people restored it last, or said that it is no spam
	cleared  time.Time // when people said last that it is no spam
	removed  bool      // by an undo
	unheard  bool      // something happened to it that the feed did not tell
	goneNo   int       // when it was deleted last, by the number of what happens
	madeNo   int       // when it was made
	intoNo   int       // when it was merged into another one
	intoAt   time.Time // the same, by the world's clock
	brought  []string  // markers of the entries that it was created with
	noted    bool      // the ledger has named it
}

// writtenAt is when the migration last wrote a field of the record.
func (r *record) writtenAt() (no int) {
	for _, es := range r.hist {
		for _, e := range es {
			if e.by == migration {
				no = max(no, e.no)
			}
		}
	}
	return no
}

// around tells whether a moment is within d of a write of the migration, or between that and the reading that it follows from.
func (r *record) around(at time.Time, d time.Duration) bool {
	return slices.ContainsFunc(append(slices.Clone(r.wrote), written{r.madeAt, r.madeAt}), func(x written) bool {
		from := x.read
		if from.IsZero() { // whoever made it has not read it
			from = x.at
		}
		return at.After(from.Add(-d)) && at.Before(x.at.Add(d))
	})
}

func (r *record) goneAt() int { return r.goneNo }

func (r *record) now() *version { return &r.versions[len(r.versions)-1] }

func (r *record) live() bool { v := r.now(); return !v.gone && v.into == "" }

type change struct {
	ref   desk.Ref
	at    time.Time
	event desk.Event
	into  string
}

// simDesk is one desk.
type simDesk struct {
	w       *world
	name    string
	t       deskTraits
	records map[desk.Ref]*record
	order   []*record
	feed    []change
	next    int
	said    []saying // what people wrote
}

type saying struct {
	in *record
	en entry
}

func newDesk(w *world, name string, t deskTraits) *simDesk {
	return &simDesk{w: w, name: name, t: t, records: map[desk.Ref]*record{}, next: 100}
}

// clock is the desk's own.
func (d *simDesk) clock() time.Time { return d.w.now.Add(d.t.skew).UTC() }

func (d *simDesk) newID() string { d.next++; return strconv.Itoa(d.next) }

func (d *simDesk) add(k desk.Kind, f desk.Fields, by actor) *record {
	ref := desk.Ref{Kind: k, ID: d.newID()}
	r := &record{ref: ref, hist: map[desk.Field][]edit{}, made: by, madeAt: d.w.now, madeNo: d.w.no, read: map[*proc]time.Time{}, seen: map[*proc]int64{}}
	r.versions = []version{{fields: desk.Fields{}}}
	d.records[ref] = r
	d.order = append(d.order, r)
	d.change(r, desk.Changed, "", func(v *version) {
		if k == desk.Ticket {
			v.fields[desk.Created] = desk.Time(d.clock())
		}
		d.set(r, v, f, by, time.Time{}, false)
	})
	return r
}

// change makes a new version of a record and puts it into the feed.
func (d *simDesk) change(r *record, ev desk.Event, into string, do func(*version)) {
	d.quietly(r, do)
	now := d.clock()
	d.w.no++
	switch ev {
	case desk.Deleted:
		r.goneNo = d.w.no
	case desk.Merged:
		r.intoNo, r.intoAt = d.w.no, d.w.now
	}
	d.feed = append(d.feed, change{r.ref, now, ev, into})
	v := r.now()
	v.at, v.seq, v.shown = now, int64(len(d.feed)), now
	if d.t.listLag > 0 {
		v.shown = now.Add(time.Duration(d.w.roll.Int64N(int64(d.t.listLag))))
	}
}

// unheard makes a new version that a full listing shows, and the feed never tells of.
func (d *simDesk) unheard(r *record, do func(*version)) {
	d.quietly(r, do)
	v := r.now()
	v.at = d.clock()
	v.shown = v.at
	r.unheard, d.w.unheard = true, true
}

// harm changes a field without a trace: no listing, no lock and nobody's name tells of it.
func (d *simDesk) harm(r *record, f desk.Field, val desk.Value) {
	touched := r.touched[f]
	d.quietly(r, func(v *version) { d.set(r, v, desk.Fields{f: val}, nobody, time.Time{}, false) })
	if d.w.harmed = true; !touched {
		delete(r.touched, f)
	}
}

// quietly makes a new version that no listing tells of.
func (d *simDesk) quietly(r *record, do func(*version)) {
	v := *r.now()
	v.fields = maps.Clone(v.fields)
	v.entries = slices.Clone(v.entries)
	v.aliases = slices.Clone(v.aliases)
	do(&v)
	lag := max(d.t.readLag, d.t.listLag)
	if lag == 0 || len(r.versions) == 1 && r.now().at.IsZero() {
		r.versions = append(r.versions[:0], v)
		return
	}
	r.versions = append(r.versions, v)
	if n := len(r.versions); n > 2 && d.clock().Sub(r.versions[1].at) > 2*lag {
		r.versions = slices.Delete(r.versions, 0, 1)
	}
}

func text(v desk.Value) string { return strings.Join(v, "|") }

// set sets fields of a version and writes history.
func (d *simDesk) set(r *record, v *version, f desk.Fields, by actor, seen time.Time, event bool) {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		val := f[name]
		if d.t.upper && name == colour {
			val = desk.Text(strings.ToUpper(text(val)))
		}
		if name.IsSet() {
			val = desk.Set(val...)
		}
		old := text(v.fields[name])
		v.fields[name] = val
		d.w.no++
		r.hist[name] = append(r.hist[name], edit{d.w.now, d.w.no, by, old, text(val), seen, event, by == migration && d.w.undoing})
		if by == migration {
			delete(r.touched, name)
		} else if r.source.ID != "" && old != text(val) {
			if r.touched == nil {
				r.touched = map[desk.Field]bool{}
			}
			r.touched[name] = true
		}
	}
}

// shown is what a listing shows of it by now: a version before, while it lags behind the last one; false if it is too new.
func (r *record) shown(now time.Time) (version, bool) {
	for _, v := range slices.Backward(r.versions) {
		if !v.shown.After(now) {
			return v, true
		}
	}
	return version{}, false
}

// as is the version that a replica shows which is so far behind; false if it does not know the record yet.
func (r *record) as(of time.Time) (version, bool) {
	for _, v := range slices.Backward(r.versions) {
		if !v.at.After(of) {
			return v, true
		}
	}
	return version{}, false
}

func (d *simDesk) stamp(v version) desk.Stamp {
	s := desk.Stamp{At: v.at.Truncate(d.t.resolution)}
	if d.t.seq {
		s.Seq = v.seq
	}
	return s
}

// show is a version as the API tells it.
func (d *simDesk) show(r *record, v version, target bool) desk.Record {
	rec := desk.Record{Ref: r.ref, URL: "https://" + d.name + "/" + r.ref.String(), Stamp: d.stamp(v), Fields: maps.Clone(v.fields), Event: desk.Changed}
	switch {
	case v.gone:
		rec.Event = desk.Deleted
	case v.spam:
		rec.Event = desk.Spam
	}
	if len(v.entries) > 0 {
		rec.Entries = make([]desk.Entry, len(v.entries))
		for i, en := range v.entries {
			e := desk.Entry{ID: en.id, Public: en.public, Author: en.author, At: en.at, Body: en.body, Type: "text/plain"}
			if target && d.t.markers && en.by == migration {
				e.Marker = en.marker
			}
			for _, f := range en.files {
				e.Files = append(e.Files, desk.File{ID: f.id, Name: f.name, Type: "application/octet-stream", Size: int64(len(f.content))})
			}
			rec.Entries[i] = e
		}
	}
	rec.Aliases = slices.Clone(v.aliases)
	if !target {
		return rec
	}
	if d.t.lock {
		rec.Lock = strconv.FormatInt(v.seq, 10)
	}
	if d.t.touched && r.source.ID != "" {
		rec.Touched = map[desk.Field]bool{}
		maps.Copy(rec.Touched, r.touched)
	}
	return rec
}

// survivor follows merges.
func (d *simDesk) survivor(r *record) *record {
	for range 20 {
		into := r.now().into
		if into == "" {
			return r
		}
		r = d.records[desk.Ref{Kind: r.ref.Kind, ID: into}]
	}
	return r
}

// tickets returns those that are there.
func (d *simDesk) tickets(match func(*record) bool) []*record {
	var out []*record
	for _, r := range d.order {
		if r.ref.Kind == desk.Ticket && r.live() && (match == nil || match(r)) {
			out = append(out, r)
		}
	}
	return out
}

const (
	colour = desk.Field("custom.colour")
	odd    = desk.Field("custom.odd") // the target has no such field
)

package sim

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// source is how the engine sees the old desk: the contract of desk.Source, kept to the letter and no further.
type source struct{ d *simDesk }

// cursor is a place in the listing of one desk.
type cursor struct {
	Desk string
	Seq  int       `json:",omitzero"` // feed: the last event listed
	At   time.Time `json:",omitzero"` // records: stamps before it are listed
	ID   string    `json:",omitzero"` // and at it up to this record
	All  int       `json:",omitzero"` // listing everything: so many of the desk's records are listed
	N    int       `json:",omitzero"` // records listed since the listing began
	Was  int       `json:",omitzero"` // how much had happened on the desk when the page was listed
}

// paged notes what lies between two pages of a listing: the same stamp on both sides of the border, and work that has gone on since.
func (s *source) paged(c cursor, last, next time.Time) {
	if last.Equal(next) {
		s.d.w.occur("desk/one stamp on two pages")
	}
	if c.N > 0 && c.Was < len(s.d.feed) {
		s.d.w.occur("desk/changed between two pages")
	}
}

func (c cursor) raw() desk.Cursor {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return b
}

func (s *source) parse(raw desk.Cursor) (cursor, error) {
	var c cursor
	if err := json.Unmarshal(raw, &c); err != nil || c.Desk != s.d.name {
		return c, &desk.Error{Op: "read cursor", Class: desk.ErrCursor}
	}
	return c, nil
}

func (s *source) Check(ctx context.Context) error {
	return s.d.w.call(ctx, s.d, "check", desk.Ref{}).err
}

// Mark is put back by what a listing may not show yet: so all that lies before it can be listed.
func (s *source) Mark(ctx context.Context) (desk.Cursor, error) {
	if o := s.d.w.call(ctx, s.d, "mark", desk.Ref{}); o.err != nil {
		return nil, o.err
	}
	return s.mark().raw(), ctx.Err()
}

func (s *source) mark() cursor {
	d := s.d
	sure := d.clock().Add(-d.t.listLag)
	c := cursor{Desk: d.name}
	if d.t.feed {
		c.Seq = len(d.feed)
		for c.Seq > 0 && d.t.listLag > 0 && d.feed[c.Seq-1].at.After(sure) {
			d.w.occur("desk/not listed yet")
			c.Seq--
		}
		return c
	}
	c.At = sure.Truncate(d.t.resolution)
	return c
}

func (s *source) At(_ context.Context, t time.Time) (desk.Cursor, error) {
	d := s.d
	c := cursor{Desk: d.name, At: t.Truncate(d.t.resolution)}
	if d.t.feed {
		c.At = time.Time{}
		for c.Seq < len(d.feed) && d.feed[c.Seq].at.Before(t.Truncate(d.t.resolution)) {
			c.Seq++
		}
	}
	return c.raw(), nil
}

func (s *source) Changes(ctx context.Context, kind desk.Kind, _ desk.Scope, from, until desk.Cursor) (desk.Page, error) {
	if o := s.d.w.call(ctx, s.d, "list", desk.Ref{Kind: kind}); o.err != nil {
		return desk.Page{}, o.err
	}
	end, err := s.parse(until)
	if err != nil {
		return desk.Page{}, err
	}
	if from == nil {
		return s.everything(kind, cursor{Desk: s.d.name, All: 0}), ctx.Err()
	}
	c, err := s.parse(from)
	switch {
	case err != nil:
		return desk.Page{}, err
	case c.All > 0:
		return s.everything(kind, c), ctx.Err()
	case s.d.t.feed:
		return s.events(kind, c, end), ctx.Err()
	}
	return s.changed(kind, c, end), ctx.Err()
}

// everything lists all records in the order in which they were made.
func (s *source) everything(kind desk.Kind, c cursor) desk.Page {
	d := s.d
	var p desk.Page
	for ; c.All < len(d.order) && len(p.Items) < d.t.pageSize; c.All++ {
		r := d.order[c.All]
		v, shown := r.shown(d.clock())
		if r.ref.Kind != kind || !shown || v.gone && d.t.hides || v.forgotten {
			continue
		}
		p.Items = append(p.Items, s.listed(r, v, s.event(v), v.into))
	}
	p.Done = c.All >= len(d.order)
	p.Next = c.raw()
	return p
}

func (s *source) event(v version) desk.Event {
	switch {
	case v.gone:
		return desk.Deleted
	case v.into != "":
		return desk.Merged
	case v.spam:
		return desk.Spam
	}
	return desk.Changed
}

func (s *source) listed(r *record, v version, ev desk.Event, into string) desk.Listed {
	return desk.Listed{Ref: r.ref, Stamp: s.d.stamp(v), Event: ev, Into: into, Open: v.fields[desk.Status].First() == "open"}
}

// events lists the feed.
func (s *source) events(kind desk.Kind, c, end cursor) desk.Page {
	d := s.d
	var p desk.Page
	if d.t.overlap && c.N > 0 && c.Seq > 0 {
		c.Seq-- // pages repeat
	}
	for ; c.Seq < end.Seq && len(p.Items) < d.t.pageSize+1; c.Seq++ {
		ch := d.feed[c.Seq]
		if ch.ref.Kind != kind || ch.event == desk.Deleted && d.t.hides {
			continue
		}
		v := d.records[ch.ref].now()
		st := desk.Stamp{At: ch.at.Truncate(d.t.resolution)}
		if d.t.seq {
			st.Seq = int64(c.Seq + 1)
		}
		p.Items = append(p.Items, desk.Listed{Ref: ch.ref, Stamp: st, Event: ch.event, Into: ch.into, Open: v.fields[desk.Status].First() == "open"})
	}
	if c.N += len(p.Items); c.Seq < end.Seq && c.Seq > 0 {
		s.paged(c, d.feed[c.Seq-1].at.Truncate(d.t.resolution), d.feed[c.Seq].at.Truncate(d.t.resolution))
	}
	c.Was = len(d.feed)
	if p.Done = c.Seq >= end.Seq; p.Done {
		c.N = 0
	}
	p.Next = c.raw()
	return p
}

// changed lists records by the time of their last change. A record that changes while pages are fetched moves behind them,
// so the listing goes on to what is the end by then: a record that was changed up to the mark is never left out because it
// was changed again.
func (s *source) changed(kind desk.Kind, c, end cursor) desk.Page {
	d := s.d
	now := d.clock()
	type line struct {
		r *record
		v version
	}
	var all []line
	for _, r := range d.order {
		if r.ref.Kind != kind {
			continue
		}
		v, shown := r.shown(now)
		if !shown {
			d.w.occur("desk/not listed yet")
			continue
		}
		st := v.at.Truncate(d.t.resolution)
		if v.gone && d.t.hides || v.forgotten || st.Before(c.At) || st.Equal(c.At) && r.ref.ID <= c.ID {
			continue
		}
		all = append(all, line{r, v})
	}
	slices.SortFunc(all, func(a, b line) int {
		return cmp.Or(a.v.at.Truncate(d.t.resolution).Compare(b.v.at.Truncate(d.t.resolution)), strings.Compare(a.r.ref.ID, b.r.ref.ID))
	})
	var p desk.Page
	for i, l := range all {
		if len(p.Items) == d.t.pageSize {
			last := all[i-1]
			c.At, c.ID = last.v.at.Truncate(d.t.resolution), last.r.ref.ID
			s.paged(c, c.At, l.v.at.Truncate(d.t.resolution))
			c.Was = len(d.feed)
			if c.N += len(p.Items); d.t.cap > 0 && c.N >= d.t.cap && c.N-len(p.Items) < d.t.cap {
				d.w.occur("desk/list cap")
				c.ID = "" // the wall: begin anew at the last stamp, inclusive
			}
			if d.t.overlap && i > 1 && all[i-2].v.at.Truncate(d.t.resolution).Equal(c.At) && c.ID != "" {
				c.ID = all[i-2].r.ref.ID
			}
			p.Next = c.raw()
			return p
		}
		p.Items = append(p.Items, s.listed(l.r, l.v, s.event(l.v), l.v.into))
	}
	p.Done, p.Next = true, end.raw()
	return p
}

func (s *source) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	d := s.d
	began := d.clock()
	if o := d.w.call(ctx, d, "read", ref); o.err != nil {
		return desk.Record{}, o.err
	}
	r, ok := d.records[ref]
	of := d.clock()
	if d.t.readLag > 0 && d.w.roll.IntN(3) == 0 {
		of = of.Add(-time.Duration(d.w.roll.Int64N(int64(d.t.readLag))))
	}
	var v version
	for ok {
		if v, ok = r.as(of); !ok || v.into == "" {
			break
		}
		r, ok = d.records[desk.Ref{Kind: ref.Kind, ID: v.into}]
	}
	if ok && v.at.Before(r.now().at) {
		d.w.occur("desk/stale read")
	}
	if !ok || v.gone && d.t.hides || v.forgotten {
		return desk.Record{}, &desk.Error{Op: "read " + ref.String(), Class: desk.ErrNotFound}
	}
	rec := d.show(r, v, false)
	rec.Began = began
	return rec, ctx.Err()
}

func (s *source) OpenFile(ctx context.Context, ticket desk.Ref, f desk.File) (io.ReadCloser, error) {
	d := s.d
	o := d.w.call(ctx, d, "open", ticket)
	if o.err != nil {
		return nil, o.err
	}
	if r := d.records[ticket]; r != nil {
		for _, en := range d.survivor(r).now().entries {
			for _, x := range en.files {
				if x.id == f.ID {
					content := x.content
					switch {
					case o.cut && len(content) > 0:
						content = content[:len(content)-1]
					case o.longer:
						content += "?"
					}
					return io.NopCloser(strings.NewReader(content)), nil
				}
			}
		}
	}
	return nil, &desk.Error{Op: "open file " + f.ID, Class: desk.ErrNotFound}
}

// The verbs that write are no part of a source: here they are a trap.
func (s *source) trap(op string, ref desk.Ref) error {
	s.d.w.violate("overwritten", "the source was written to: %s %s", op, ref)
	return &desk.Error{Op: op + " " + ref.String(), Class: desk.ErrRejected}
}

func (s *source) Create(_ context.Context, r desk.Record) (desk.Written, error) {
	return desk.Written{}, s.trap("create", r.Ref)
}

func (s *source) Apply(_ context.Context, ref desk.Ref, _ desk.Change) (desk.Written, error) {
	return desk.Written{}, s.trap("apply", ref)
}

func (s *source) Revise(_ context.Context, ticket desk.Ref, _ desk.Entry, _ string) error {
	return s.trap("revise", ticket)
}
func (s *source) Merge(_ context.Context, from, _ desk.Ref, _ string) error {
	return s.trap("merge", from)
}
func (s *source) Delete(_ context.Context, ref desk.Ref) error { return s.trap("delete", ref) }

var (
	_ desk.Source   = (*source)(nil)
	_ desk.Checker  = (*source)(nil)
	_ desk.Opener   = (*source)(nil)
	_ desk.Rewinder = (*source)(nil)
)

package deltatest

import (
	"slices"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// leave takes a ticket out of sight.
func (d *Desk) leave(ref desk.Ref, event desk.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.records[ref]
	was := s.rec
	s.gone, s.event, s.before = true, event, &was
	d.touch(ref, event, "")
}

// Junk marks a ticket as spam as the desk's people would.
func (d *Desk) Junk(ref desk.Ref) { d.leave(ref, desk.Spam) }

// Restore brings a ticket back that was deleted or marked as spam.
func (d *Desk) Restore(ref desk.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[ref].gone = false
	d.touch(ref, desk.Changed, "")
}

// alive returns the record that lives on: ref itself, or what it was merged into.
func (d *Desk) alive(ref desk.Ref) desk.Ref {
	for range len(d.order) {
		s := d.records[ref]
		if s == nil || s.into == "" {
			break
		}
		ref.ID = s.into
	}
	return ref
}

// Part takes a merge back as the desk's people would: the ticket gets its own entries back, as they are now.
func (d *Desk) Part(from desk.Ref) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, into := d.records[from], d.alive(from)
	b := d.records[into]
	a.into = ""
	mine := map[string]bool{}
	for _, en := range a.rec.Entries {
		mine[en.ID] = true
	}
	a.rec.Entries = nil
	for _, en := range b.rec.Entries {
		if mine[en.ID] {
			a.rec.Entries = append(a.rec.Entries, en)
		}
	}
	b.rec.Entries = slices.DeleteFunc(slices.Clone(b.rec.Entries), func(en desk.Entry) bool { return mine[en.ID] })
	b.rec.Aliases = slices.DeleteFunc(slices.Clone(b.rec.Aliases), func(id string) bool {
		return id == from.ID || slices.Contains(a.rec.Aliases, id)
	})
	d.touch(from, desk.Changed, "")
	d.touch(into, desk.Changed, "")
}

// Revise changes one entry of a ticket as the desk's people would: its text, its visibility, its files.
func (d *Desk) Revise(ticket string, n int, change func(*desk.Entry)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ref := desk.Ref{Kind: desk.Ticket, ID: ticket}
	s := d.records[ref]
	s.rec.Entries = slices.Clone(s.rec.Entries)
	change(&s.rec.Entries[n])
	d.touch(ref, desk.Changed, "")
}

// Redact blanks one entry of a ticket and takes its files away.
func (d *Desk) Redact(ticket string, n int) {
	d.Revise(ticket, n, func(en *desk.Entry) { en.Body, en.Files = "(redacted)", nil })
}

// Flip turns the visibility of one entry of a ticket.
func (d *Desk) Flip(ticket string, n int) {
	d.Revise(ticket, n, func(en *desk.Entry) { en.Public = !en.Public })
}

// Drop takes one entry out of a ticket.
func (d *Desk) Drop(ticket string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ref := desk.Ref{Kind: desk.Ticket, ID: ticket}
	s := d.records[ref]
	s.rec.Entries = slices.Delete(slices.Clone(s.rec.Entries), n, n+1)
	d.touch(ref, desk.Changed, "")
}

// Move takes the entries of a ticket from the nth on into another one, or into a new one of the given fields where to is "".
// It returns the other ticket's id.
func (d *Desk) Move(from string, n int, to string, f desk.Fields) string {
	if to == "" {
		to = d.Add(desk.Ticket, f)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a, b := desk.Ref{Kind: desk.Ticket, ID: from}, desk.Ref{Kind: desk.Ticket, ID: to}
	src, dst := d.records[a], d.records[b]
	moved := slices.Clone(src.rec.Entries[n:])
	src.rec.Entries = slices.Clone(src.rec.Entries[:n])
	for _, en := range moved {
		for _, x := range en.Files {
			dst.files[x.ID] = src.files[x.ID]
		}
	}
	dst.rec.Entries = append(slices.Clone(dst.rec.Entries), moved...)
	slices.SortStableFunc(dst.rec.Entries, func(x, y desk.Entry) int { return x.At.Compare(y.At) })
	d.touch(a, desk.Changed, "")
	d.touch(b, desk.Changed, "")
	return to
}

// Replace puts other bytes into the first file of an entry, which keeps its name, and its id unless it is to have another.
func (d *Desk) Replace(ticket string, n int, content []byte, another bool) {
	d.Revise(ticket, n, func(en *desk.Entry) {
		f := en.Files[0]
		f.Size = int64(len(content))
		if another {
			f.ID = d.newID()
		}
		en.Files = append([]desk.File{f}, en.Files[1:]...)
		d.records[desk.Ref{Kind: desk.Ticket, ID: ticket}].files[f.ID] = content
	})
}

// Past gives a ticket a history of its status.
func (d *Desk) Past(ref desk.Ref, changes ...desk.StatusChange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[ref].rec.History = changes
	d.touch(ref, desk.Changed, "")
}

package rttest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Picture is what people see of a desk, as its database has it: every ticket that is not deleted, with its number, what it
// is merged into, its columns, watchers and custom fields (not LastUpdated); its links; its transactions of every kind, each
// with kind, author, time, field and values; the attachments of its messages with subject, name, type and the SHA-256 of
// their content. RT deletes nothing for good over REST: a ticket with status deleted counts as gone. Accounts are not part
// of it, since RT cannot remove any.
type Picture map[string]string

// Picture reads the desk as it is now.
func (s *Server) Picture(ctx context.Context) (Picture, error) {
	st, err := readState(ctx, s.DBFile)
	if err != nil {
		return nil, err
	}
	p := Picture{}
	there := func(id int64) bool { t := st.tickets[id]; return t != nil && t.fields["status"] != "deleted" }
	for id, t := range st.tickets {
		if !there(id) {
			continue
		}
		where := fmt.Sprintf("ticket %d", id)
		p[where] = fmt.Sprintf("by %s, in %d", t.creator, t.effective)
		for f, v := range t.fields {
			if v != "" {
				p[where+" "+f] = strings.ReplaceAll(v, listSep, "|")
			}
		}
		for _, x := range st.txns[id] {
			p[fmt.Sprintf("%s transaction %d", where, x.id)] = strings.Join([]string{x.kind, x.creator, x.created, x.field, x.old, x.new}, "|")
		}
		for _, e := range st.entries[id] {
			for i, l := range e.leaves {
				p[fmt.Sprintf("%s transaction %d part %d", where, e.id, i)] = strings.Join([]string{e.subject, l.name, l.ctype, l.sha}, "|")
			}
		}
	}
	for _, l := range st.links {
		if there(l.base) && (l.target == 0 || there(l.target)) {
			p[fmt.Sprintf("link %d %s %d %s", l.base, l.kind, l.target, l.address)] = l.creator
		}
	}
	return p, nil
}

// Diff tells in which places another picture differs from this one; at most 20 are named, n counts all. Values are not
// shown.
func (p Picture) Diff(other Picture) (n int, places []string) {
	all := maps.Clone(p)
	maps.Copy(all, other)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		before, had := p[k]
		after, has := other[k]
		what := "changed"
		switch {
		case had && has && before == after:
			continue
		case !had:
			what = "new"
		case !has:
			what = "gone"
		}
		if n++; n <= 20 {
			places = append(places, k+": "+what)
		}
	}
	return n, places
}

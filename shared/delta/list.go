package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// pageLimit is how many due records make a page. A source's page has fewer than maxPage.
const (
	pageLimit = 200
	maxPage   = 1_000_000
)

// list goes on listing a run, at most budget pages, and reports whether everything is listed.
//
// A page's object is written before its row, and the row carries the place (Next) from which listing goes on. So the place
// moves on only over pages that are kept, in one write with the page: cut off in between, the page is listed again (model:
// ListPage).
func (e *Engine) list(ctx context.Context, run *Run, pages []pageRow, budget int) ([]pageRow, error) {
	defer e.clock("list")()
	switch run.Kind {
	case Sample:
		return e.pick(ctx, run, pages, budget)
	case Undo:
		return e.listWritten(ctx, run, pages, budget)
	}
	kind, from, dueDone, kinds := e.place(run, pages)
	if kind < 0 {
		return pages, fmt.Errorf("run %s has listed %s records, a kind that the two desks do not share", run.ID, pages[len(pages)-1].Kind)
	}
	start := run.From
	if run.Kind != Delta {
		start = nil
	}
	for ; kind < len(kinds); kind, from, dueDone = kind+1, start, false {
		k := kinds[kind]
		if !dueDone {
			rows, err := e.listDue(ctx, run, k, len(pages))
			if err != nil {
				return pages, err
			}
			pages = append(pages, rows...)
		}
		heal, err := e.healing(ctx, pages, k)
		if err != nil {
			return pages, err
		}
		for {
			if budget--; budget < 0 {
				return pages, nil
			}
			page, err := e.listPage(ctx, run, k, from, run.Until)
			if err != nil {
				return pages, err
			}
			keep, err := e.undropped(ctx, run, page.Items)
			if err != nil {
				return pages, err
			}
			row := pageRow{Kind: k, Listed: len(page.Items), Dropped: len(page.Items) - len(keep), Next: page.Next, Done: page.Done}
			// Nothing was listed and nothing is left: there is nothing to remember. Cut off here, the same is asked again.
			if len(page.Items) > 0 || !page.Done {
				entries := make([]planEntry, len(keep))
				for i, it := range keep {
					entries[i] = planEntry{Listed: it, Heal: heal[it.Ref]}
				}
				row.No = len(pages)
				if row, err = e.putPage(ctx, run, row, entries); err != nil {
					return pages, err
				}
				pages = append(pages, row)
			}
			if from = page.Next; page.Done {
				break
			}
		}
	}
	var err error
	pages, run.Listed, err = e.listLeft(ctx, run, pages, budget)
	return pages, err
}

// listLeft lists the tickets that have left the source since the cutoff of before a full run: a listing of everything does not show
// them, and the next delta begins at the run's mark. A source that does not know that place any more is left to a census.
func (e *Engine) listLeft(ctx context.Context, run *Run, pages []pageRow, budget int) (_ []pageRow, all bool, err error) {
	if run.Kind != Full || len(run.From) == 0 || !slices.Contains(e.kinds(), desk.Ticket) {
		return pages, true, nil
	}
	from := run.From
	if n := len(pages); n > 0 && pages[n-1].Left {
		if from = pages[n-1].Next; pages[n-1].Done {
			return pages, true, nil
		}
	}
	for ; budget > 0; budget-- {
		page, err := e.listPage(ctx, run, desk.Ticket, from, run.Until)
		if errors.Is(err, desk.ErrCursor) {
			return pages, true, nil
		}
		if err != nil {
			return pages, false, err
		}
		row := pageRow{No: len(pages), Kind: desk.Ticket, Listed: len(page.Items), Next: page.Next, Done: page.Done, Left: true}
		var entries []planEntry
		for _, it := range page.Items {
			if it.Event == desk.Deleted || it.Event == desk.Spam {
				entries = append(entries, planEntry{Listed: it})
			}
		}
		if row.Dropped = row.Listed - len(entries); row.Listed > 0 || !page.Done {
			if row, err = e.putPage(ctx, run, row, entries); err != nil {
				return pages, false, err
			}
			pages = append(pages, row)
		}
		if from = page.Next; page.Done {
			return pages, true, nil
		}
	}
	return pages, false, nil
}

// listPage asks the source for one page.
func (e *Engine) listPage(ctx context.Context, run *Run, k desk.Kind, from, until desk.Cursor) (desk.Page, error) {
	page, err := e.Source.Changes(ctx, k, run.Filter, from, until)
	if err == nil && !page.Done && bytes.Equal(page.Next, from) {
		err = fmt.Errorf("the source names the same place again and again: %w", desk.ErrCursor)
	}
	if err != nil {
		return page, fmt.Errorf("list changed %s records: %w", k, err)
	}
	return page, nil
}

// place finds out from the pages where listing goes on.
func (e *Engine) place(run *Run, pages []pageRow) (kind int, from desk.Cursor, dueDone bool, kinds []desk.Kind) {
	kinds = e.kinds()
	from = run.From
	if run.Kind != Delta {
		from = nil
	}
	if len(pages) == 0 {
		return 0, from, false, kinds
	}
	last := pages[len(pages)-1]
	kind = slices.Index(kinds, last.Kind)
	switch {
	case kind < 0: // not of these desks
	case last.Left:
		return len(kinds), from, true, kinds
	case last.Done:
		return kind + 1, from, false, kinds
	case last.DuePage:
		return kind, from, true, kinds
	}
	return kind, last.Next, true, kinds
}

// undropped leaves out what need not be read: invariant 1, second line. The ledger's last reading must have begun later
// than the listed change by more than the stamp's resolution (two changes in the same second may carry the same stamp)
// and the source's lag (a change accepted before may not have been visible to that reading). A full run reads everything.
func (e *Engine) undropped(ctx context.Context, run *Run, items []desk.Listed) ([]desk.Listed, error) {
	if run.Kind != Delta || !run.Since.IsZero() || len(items) == 0 {
		return items, nil
	}
	read, err := getMany[followed](ctx, e, items, func(it desk.Listed) Key { return e.ledgerKey(it.Ref) })
	if err != nil {
		return nil, fmt.Errorf("read the ledger of %d listed records: %w", len(items), err)
	}
	var keep []desk.Listed
	for _, it := range items {
		if l, ok := read[e.ledgerKey(it.Ref)]; !ok || !e.known(l, it) {
			keep = append(keep, it)
		}
	}
	return keep, nil
}

// known tells whether a listed change is certainly part of what the ledger's last reading saw.
func (e *Engine) known(l followed, it desk.Listed) bool {
	return l.Target != "" && l.Claim == nil && !l.Held && !l.Awaited && l.Gone == "" && it.Event != desk.Merged && it.Event != desk.Deleted && it.Event != desk.Spam &&
		l.Rules == e.rules && l.Began.After(it.Stamp.At.Add(e.SourceSide.StampResolution+e.SourceSide.ListLag))
}

// listDue makes pages of the due rows of a kind, those with the given reasons only if there are any. A sample
// stays as large as it is: whoever else is due is for the next delta.
func (e *Engine) listDue(ctx context.Context, run *Run, k desk.Kind, no int, why ...string) ([]pageRow, error) {
	var entries []planEntry
	if run.Kind.Looks() || run.Dry && len(why) > 0 {
		return nil, nil
	}
	planned := func(desk.Ref) bool { return true }
	if run.Kind == Sample {
		all, err := e.planned(ctx, run.ID)
		if err != nil {
			return nil, err
		}
		planned = func(ref desk.Ref) bool { return all[ref] }
	}
	err := e.each(ctx, e.duePart(run.Scope), string(k)+"/", func(r Row) error {
		d, err := decode[dueRow](r)
		if err != nil {
			return err
		}
		if d.Mode != "" && run.Mode != "" && run.Mode != CreateUpdate && run.Mode != d.Mode || len(why) > 0 && !slices.Contains(why, d.Why) || !planned(d.Listed.Ref) {
			return nil
		}
		entries = append(entries, planEntry{Listed: d.Listed, Due: d.Why, Late: len(why) > 0, DueVersion: r.Version, Heal: d.Heal})
		return nil
	})
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	var rows []pageRow
	for part := range slices.Chunk(entries, pageLimit) {
		row, err := e.putPage(ctx, run, pageRow{No: no + len(rows), Kind: k, Listed: len(part), DuePage: true, Done: len(why) > 0}, part)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// healing are the records of a kind that are due with a difference that a verification has found. Where the source lists one of them as
// well, its two entries may be carried out in either order, and what the first one takes for the work of people the second cannot heal.
func (e *Engine) healing(ctx context.Context, pages []pageRow, k desk.Kind) (map[desk.Ref]bool, error) {
	out := map[desk.Ref]bool{}
	for _, p := range pages {
		if !p.DuePage || p.Kind != k {
			continue
		}
		es, err := e.entries(ctx, p.Object)
		if err != nil {
			return nil, err
		}
		for _, it := range es {
			if it.Heal {
				out[it.Ref] = true
			}
		}
	}
	return out, nil
}

// putPage keeps one page of the plan: object first, then row. Open tickets come first.
func (e *Engine) putPage(ctx context.Context, run *Run, row pageRow, entries []planEntry) (pageRow, error) {
	slices.SortStableFunc(entries, func(a, b planEntry) int {
		switch {
		case a.Open == b.Open:
			return 0
		case a.Open:
			return -1
		}
		return 1
	})
	row.Planned, row.At = len(entries), e.Now().UTC()
	for _, it := range entries {
		if it.Open {
			row.Open++
		}
	}
	if len(entries) > 0 {
		// The key names the content: the same page listed again after a cut-off may hold something else.
		row.Object = fmt.Sprintf(planPrefix+"%s/%s/%06d-%s.json", e.mig.ID, run.ID, row.No, digestJSON(entries))
		if err := e.keepObject(ctx, row.Object, entries); err != nil {
			return row, fmt.Errorf("keep plan page %d of run %s: %w", row.No, run.ID, err)
		}
	}
	var err error
	row.version, err = e.put(ctx, e.pageKey(run.ID, row.No), 0, row)
	return row, err
}

// entries returns the plan entries of a page.
func (e *Engine) entries(ctx context.Context, object string) ([]planEntry, error) {
	e.mu.Lock()
	es, ok := e.pages[object]
	e.mu.Unlock()
	if ok || object == "" {
		return es, nil
	}
	es, err := readObject[[]planEntry](ctx, e, object)
	if err != nil {
		return nil, fmt.Errorf("read plan page: %w", err)
	}
	e.mu.Lock()
	if len(e.pages) > 64 {
		clear(e.pages)
	}
	e.pages[object] = es
	e.mu.Unlock()
	return es, nil
}

// pageRows returns the pages of a run, in order.
func (e *Engine) pageRows(ctx context.Context, run string) ([]pageRow, error) {
	var out []pageRow
	err := e.each(ctx, e.pagePart(run), "", func(r Row) error {
		p, err := decode[pageRow](r)
		if err == nil && !p.sound(len(out)) {
			err = fmt.Errorf("row %s %s is damaged: it is no page of a plan", r.Part, r.Sort)
		}
		p.version = r.Version
		out = append(out, p)
		return err
	})
	return out, err
}

// sound tells whether a row can be the nth page of a plan: what is counted and repeated over it relies on that.
func (p pageRow) sound(nth int) bool {
	return p.No == nth && slices.Contains(desk.LoadOrder(), p.Kind) && p.Listed >= 0 && p.Dropped >= 0 && p.Planned == p.Listed-p.Dropped &&
		p.Open >= 0 && p.Open <= p.Planned && p.Planned < maxPage
}

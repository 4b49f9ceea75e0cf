package delta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// A survey is how a census or a remap finds out what it has to look at: it holds a full listing of the source against the
// ledger, and reads nothing that is certainly known. It goes through stages, each over all kinds of record; every page of
// every stage is kept like any plan page, and its row carries the place where the stage goes on.
//
// What changes while the listing goes on looks just like what a delta has missed: listed, and not in the ledger. So nothing
// is planned from the listing alone. When it has ended, and whatever it can have shown has had the source's lag to reach the
// feed as well, a second mark is taken, and the feed up to there says which records a delta brings anyway. The order of
// these three is what keeps a census from crying wolf.
type stage string

const (
	// stageList: the source's full listing. What is certainly known is dropped and counted; the rest is left for stagePlan.
	stageList stage = "list"
	// stageFeed: what the scope's deltas are about to list, up to the second mark. Only ids are kept.
	stageFeed stage = "feed"
	// stagePlan: what a page of stageList has left. What comes anyway is dropped by a census and marked by a remap.
	stagePlan stage = "plan"
	// stageLedger: tickets of the ledger that neither the listing nor the feed has shown (a census).
	stageLedger stage = "ledger"
)

// A page of a survey joins pages of the source until it has so many lines.
const surveyLines = 2000

// surveyIDs is the object of a page of stageList or stageFeed. It is all that a survey has to remember of a listing.
type surveyIDs struct {
	IDs  []string      `json:"ids,omitempty"`
	Left []desk.Listed `json:"left,omitempty"`
}

// surveyPlace is where a survey goes on.
type surveyPlace struct {
	stage stage
	kind  desk.Kind
	from  desk.Cursor
	until desk.Cursor
	of    int
	place string
}

// survey goes on with the survey of a run, about budget requests, and sets run.Listed when there is nothing left to plan.
func (e *Engine) survey(ctx context.Context, run *Run, pages []pageRow, budget int) ([]pageRow, error) {
	defer e.clock("list")()
	for budget > 0 {
		at, more := e.surveyPlace(run, pages)
		if !more {
			run.Listed = true
			return pages, nil
		}
		var row pageRow
		var err error
		switch at.stage {
		case stageList:
			row, err = e.surveyList(ctx, run, len(pages), at, &budget)
		case stageFeed:
			if listed := pages[len(pages)-1].Survey.At; len(at.until) == 0 && e.SourceSide.ListLag > 0 && e.Now().Before(listed.Add(e.SourceSide.ListLag+e.Skew)) {
				return pages, nil // by whichever clock it was listed
			}
			row, err = e.surveyFeed(ctx, run, len(pages), at, &budget)
		case stagePlan:
			budget--
			row, err = e.surveyPlan(ctx, run, pages, at)
		case stageLedger:
			row, err = e.surveyLedger(ctx, run, pages, at, &budget)
		}
		if err != nil {
			return pages, err
		}
		pages = append(pages, row)
	}
	return pages, nil
}

// surveyPlace finds out from the pages where the survey goes on, and whether it does.
func (e *Engine) surveyPlace(run *Run, pages []pageRow) (surveyPlace, bool) {
	kinds := e.kinds()
	if len(kinds) == 0 {
		return surveyPlace{}, false
	}
	if len(pages) == 0 {
		return surveyPlace{stage: stageList, kind: kinds[0]}, true
	}
	last := pages[len(pages)-1]
	s := last.Survey
	next := slices.Index(kinds, last.Kind) + 1
	of := 0
	switch {
	case s.Stage == stageList && !last.Done:
		return surveyPlace{stage: stageList, kind: last.Kind, from: last.Next}, true
	case s.Stage == stageList && next < len(kinds):
		return surveyPlace{stage: stageList, kind: kinds[next]}, true
	case s.Stage == stageList:
		return surveyPlace{stage: stageFeed, kind: kinds[0], from: run.From}, true
	case s.Stage == stageFeed && !last.Done:
		return surveyPlace{stage: stageFeed, kind: last.Kind, from: last.Next, until: s.Until}, true
	case s.Stage == stageFeed && next < len(kinds):
		return surveyPlace{stage: stageFeed, kind: kinds[next], from: run.From, until: s.Until}, true
	case s.Stage == stagePlan:
		of = s.Of + 1
	case s.Stage == stageLedger:
		return surveyPlace{stage: stageLedger, kind: last.Kind, place: s.Place}, !last.Done
	}
	for ; of < len(pages) && pages[of].Survey.Stage == stageList; of++ {
		if pages[of].Survey.Left > 0 {
			return surveyPlace{stage: stagePlan, kind: pages[of].Kind, of: of}, true
		}
	}
	return surveyPlace{stage: stageLedger, kind: desk.Ticket}, run.Kind == Census && slices.Contains(kinds, desk.Ticket)
}

func (e *Engine) surveyList(ctx context.Context, run *Run, no int, at surveyPlace, budget *int) (pageRow, error) {
	row := pageRow{No: no, Kind: at.kind, Next: at.from, Survey: &surveyRow{Stage: stageList}}
	var ids surveyIDs
	for *budget > 0 && !row.Done && row.Dropped+len(ids.Left) < surveyLines {
		*budget--
		page, err := e.listPage(ctx, run, at.kind, row.Next, run.Until)
		if err != nil {
			return row, err
		}
		known, err := getMany[followed](ctx, e, page.Items, func(it desk.Listed) Key { return e.ledgerKey(it.Ref) })
		if err != nil {
			return row, fmt.Errorf("read the ledger of %d listed records: %w", len(page.Items), err)
		}
		for _, it := range page.Items {
			if l := known[e.ledgerKey(it.Ref)]; run.Kind == Census && !e.agreed(run, l, it) || run.Kind == Remap && e.outdated(l, it) {
				ids.Left = append(ids.Left, it)
				continue
			}
			row.Dropped++
			if run.Kind == Census && at.kind == desk.Ticket {
				ids.IDs = append(ids.IDs, it.Ref.ID)
			}
		}
		row.Next, row.Done = page.Next, page.Done
	}
	row.Listed, row.Survey.Left = row.Dropped, len(ids.Left)
	return e.putSurvey(ctx, run, row, ids)
}

func (e *Engine) surveyFeed(ctx context.Context, run *Run, no int, at surveyPlace, budget *int) (pageRow, error) {
	if len(at.until) == 0 {
		var err error
		if at.until, err = e.Source.Mark(ctx); err != nil {
			return pageRow{}, fmt.Errorf("ask the source where now is: %w", err)
		}
	}
	row := pageRow{No: no, Kind: at.kind, Next: at.from, Survey: &surveyRow{Stage: stageFeed, Until: at.until}}
	var ids surveyIDs
	for *budget > 0 && !row.Done && len(ids.IDs) < surveyLines {
		*budget--
		page, err := e.listPage(ctx, run, at.kind, row.Next, at.until)
		if err != nil {
			return row, err
		}
		rows, err := getMany[followed](ctx, e, page.Items, func(it desk.Listed) Key { return e.ledgerKey(it.Ref) })
		if err != nil {
			return row, fmt.Errorf("read the ledger of %d listed records: %w", len(page.Items), err)
		}
		for _, it := range page.Items {
			if !e.known(rows[e.ledgerKey(it.Ref)], it) { // else a delta drops it unread
				ids.IDs = append(ids.IDs, it.Ref.ID)
			}
		}
		row.Next, row.Done = page.Next, page.Done
	}
	return e.putSurvey(ctx, run, row, ids)
}

func (e *Engine) surveyPlan(ctx context.Context, run *Run, pages []pageRow, at surveyPlace) (pageRow, error) {
	ids, err := e.readSurvey(ctx, pages[at.of].Survey.IDs)
	if err != nil {
		return pageRow{}, err
	}
	feed, err := e.surveyed(ctx, run, pages, stageFeed, at.kind)
	if err != nil {
		return pageRow{}, err
	}
	due, err := getMany[dueRow](ctx, e, ids.Left, func(it desk.Listed) Key { return e.dueKey(run.Scope, it.Ref) })
	if err != nil {
		return pageRow{}, fmt.Errorf("read what is due of %d listed records: %w", len(ids.Left), err)
	}
	row := pageRow{No: len(pages), Kind: at.kind, Listed: len(ids.Left), Survey: &surveyRow{Stage: stagePlan, Of: at.of, At: e.Now().UTC()}}
	var entries []planEntry
	for _, it := range ids.Left {
		_, comes := slices.BinarySearch(feed, it.Ref.ID)
		if d, ok := due[e.dueKey(run.Scope, it.Ref)]; ok {
			comes = comes || e.takes(run, run.Scope, d)
		}
		if comes && run.Kind == Census {
			row.Dropped++
			continue
		}
		entries = append(entries, planEntry{Listed: it, Comes: comes})
	}
	return e.putPage(ctx, run, row, entries)
}

// surveyLedger plans the tickets of the ledger that the source has not shown. They are the only ones of its rows that are
// counted as listed: all others were, by the source.
func (e *Engine) surveyLedger(ctx context.Context, run *Run, pages []pageRow, at surveyPlace, budget *int) (pageRow, error) {
	listed, err := e.surveyed(ctx, run, pages, stageList, at.kind)
	if err != nil {
		return pageRow{}, err
	}
	feed, err := e.surveyed(ctx, run, pages, stageFeed, at.kind)
	if err != nil {
		return pageRow{}, err
	}
	row := pageRow{No: len(pages), Kind: at.kind, Survey: &surveyRow{Stage: stageLedger, Place: at.place, At: e.Now().UTC()}}
	prefix := e.ledgerPart(desk.Ref{Kind: at.kind})
	var entries []planEntry
	for *budget > 0 && !row.Done && len(entries) < pageLimit {
		*budget--
		rows, next, err := e.rows.Scan(ctx, prefix, row.Survey.Place, 1000)
		if err != nil {
			return row, fmt.Errorf("look through the ledger: %w", err)
		}
		for _, r := range rows {
			if r.Sort != e.ledgerKey(desk.Ref{}).Sort {
				continue // a part of a long thread
			}
			l, err := decode[ledgerRow](r)
			if err != nil {
				return row, err
			}
			id, err := e.ledgerID(r.Part, at.kind)
			if err != nil {
				return row, fmt.Errorf("row %s %s: %w", r.Part, r.Sort, err)
			}
			_, shown := slices.BinarySearch(listed, id)
			_, comes := slices.BinarySearch(feed, id)
			if !shown && !comes && e.missable(run, l) {
				entries = append(entries, planEntry{Listed: desk.Listed{Ref: desk.Ref{Kind: at.kind, ID: id}}, Unlisted: true})
			}
		}
		row.Survey.Place, row.Done = next, next == ""
	}
	due, err := getMany[dueRow](ctx, e, entries, func(it planEntry) Key { return e.dueKey(run.Scope, it.Ref) })
	if err != nil {
		return row, fmt.Errorf("read what is due of %d records: %w", len(entries), err)
	}
	entries = slices.DeleteFunc(entries, func(it planEntry) bool { d, ok := due[e.dueKey(run.Scope, it.Ref)]; return ok && !d.fails() })
	row.Listed = len(entries)
	return e.putPage(ctx, run, row, entries)
}

// putSurvey keeps a page of a listing: the object with its ids first, then the row that names it.
func (e *Engine) putSurvey(ctx context.Context, run *Run, row pageRow, ids surveyIDs) (pageRow, error) {
	row.Survey.At = e.Now().UTC()
	if len(ids.IDs)+len(ids.Left) > 0 {
		row.Survey.IDs = fmt.Sprintf(planPrefix+"%s/%s/%06d-ids-%s.json", e.mig.ID, run.ID, row.No, digestJSON(ids))
		if err := e.keepObject(ctx, row.Survey.IDs, ids); err != nil {
			return row, fmt.Errorf("keep survey page %d of run %s: %w", row.No, run.ID, err)
		}
	}
	return e.putPage(ctx, run, row, nil)
}

func (e *Engine) readSurvey(ctx context.Context, object string) (ids surveyIDs, err error) {
	if object == "" {
		return ids, nil
	}
	if ids, err = readObject[surveyIDs](ctx, e, object); err != nil {
		return ids, fmt.Errorf("read survey page: %w", err)
	}
	return ids, nil
}

// surveyed returns the ids of a kind that a finished stage has shown, sorted: a string for each is all that is held in
// memory. The last few answers are kept, because the stages that follow ask with every page.
func (e *Engine) surveyed(ctx context.Context, run *Run, pages []pageRow, st stage, k desk.Kind) ([]string, error) {
	key := run.ID + " " + string(st) + " " + string(k)
	e.mu.Lock()
	ids, ok := e.shown[key]
	e.mu.Unlock()
	if ok {
		return ids, nil
	}
	if pages == nil {
		var err error
		if pages, err = e.pageRows(ctx, run.ID); err != nil {
			return nil, err
		}
	}
	for _, p := range pages {
		if p.Kind != k || p.Survey.Stage != st {
			continue
		}
		page, err := e.readSurvey(ctx, p.Survey.IDs)
		if err != nil {
			return nil, err
		}
		ids = append(ids, page.IDs...)
		for _, it := range page.Left {
			ids = append(ids, it.Ref.ID)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	e.mu.Lock()
	if len(e.shown) > 3 {
		clear(e.shown)
	}
	e.shown[key] = ids
	e.mu.Unlock()
	return ids, nil
}

// reached is the cutoff from which stageFeed lists: that of the scope's chain that succeeded last. What changed before it has
// been brought over by that chain's runs, stands in their reports and is due, or was missed; which of its windows brings
// the rest makes no difference.
func (e *Engine) reached(st state, scope string, b *baseline) desk.Cursor {
	from, last := b.Mark, time.Time{}
	for name, w := range st.Windows {
		if m := e.mig.Windows[name]; m.Scope == scope && m.Kind != Census && w.Baseline == b.Run && w.LastOK.After(last) {
			from, last = w.Cutoff, w.LastOK
		}
	}
	return from
}

// takes tells whether a delta takes up what is due in a scope. What is left to a mode that no window of the scope has waits there for
// good: a census of the scope knows of it, but a remap must not rely on it.
func (e *Engine) takes(run *Run, scope string, d dueRow) bool {
	return run.Kind == Census && scope == run.Scope || e.mig.hasDeltas(scope, d.Mode)
}

// comes tells whether a delta takes the record up in any case, of this scope or, where it is due, of another one, and finishes it then.
//
// Of one that neither the listing nor a reading shows, that is not so where runs fail at it, as they may for that very reason.
func (e *Engine) comes(ctx context.Context, w *work) (bool, error) {
	unseen := w.it.Unlisted && w.rec.Ref.ID == ""
	comes := w.it.Comes || w.row.Held && !unseen
	for _, scope := range slices.Sorted(maps.Keys(e.mig.Scopes)) {
		if comes {
			break
		}
		var d dueRow
		v, err := e.get(ctx, e.dueKey(scope, w.ref), &d)
		if err != nil {
			return false, err
		}
		if comes = v > 0 && e.takes(w.run, scope, d) && (!unseen || !d.fails()); comes && scope != w.run.Scope && w.run.Kind == Census {
			w.makesDue("missed", "", "") // here as well: whichever delta comes first
		}
	}
	if comes {
		w.finish(OutExcluded, "the next delta takes it up in any case: it has changed in the source, or is due")
	}
	return comes, nil
}

// makesDue says what is to become due once the outcome is written.
func (w *work) makesDue(why string, ev desk.Event, into string) {
	w.due = &dueRow{Listed: desk.Listed{Ref: w.ref, Event: ev, Into: into, Open: w.it.Open}, Why: why, Run: w.run.ID}
	if ev == "" {
		w.due.Listed.Stamp = w.it.Stamp
	}
}

// confirm notes that a reading has come to just what was carried out last. So the record need not be read again on account
// of an older change, or of a mapping that makes the same of it. Whoever carries it out at the same moment knows better. Not so where a
// link waits for its other end: what is written does not show it, and only a delta sees to it that it is drawn.
func (e *Engine) confirm(ctx context.Context, w *work) error {
	if w.run.Dry || len(w.waits) > 0 {
		return nil
	}
	_, err := update(ctx, e, e.ledgerKey(w.ref), func(r *ledgerRow) error {
		if r.Claim != nil || r.Held || r.Digest != w.row.Digest || !r.Began.Equal(w.row.Began) {
			return errKeep
		}
		r.Began, r.Rules = w.rec.Began.UTC(), e.rules
		return nil
	})
	return err
}

// foresee is what pointed comes to in a run that only looks: the id that a delta would find, "" for somebody whom the source
// does not know (any more), and a word that no id agrees with for whom a delta would have to make.
func (e *Engine) foresee(ctx context.Context, w *work, ref desk.Ref, row ledgerRow) (string, error) {
	again := row.How == "fallback" && w.run.Kind == Remap // the rules for people may be others now
	if w.run.Kind == Verify || row.Target != "" && !again {
		return row.Target, nil
	}
	key := w.run.ID + " " + ref.String()
	e.mu.Lock()
	id, ok := e.foreseen[key]
	e.mu.Unlock()
	if ok {
		return id, nil
	}
	id, err := e.look(ctx, w, ref, row)
	if err != nil {
		return "", fmt.Errorf("needed by %s: %w", w.ref, err)
	}
	e.mu.Lock()
	if len(e.foreseen) > 50_000 {
		clear(e.foreseen)
	}
	e.foreseen[key] = id
	e.mu.Unlock()
	return id, nil
}

func (e *Engine) look(ctx context.Context, w *work, ref desk.Ref, row ledgerRow) (string, error) {
	rec, err := e.Source.Read(ctx, ref)
	switch {
	case errors.Is(err, desk.ErrNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read %s: %w", ref, err)
	case rec.Event == desk.Deleted || rec.Event == desk.Spam:
		return row.Target, nil
	case rec.Ref != ref: // merged: whom it was merged into stands for it
		if _, err := e.get(ctx, e.ledgerKey(rec.Ref), &row); err != nil || row.Target != "" {
			return row.Target, err
		}
	}
	res, err := e.mapped(ctx, rec)
	if err != nil {
		return "", err
	}
	p := &work{m: w.m, run: w.run, it: planEntry{Listed: desk.Listed{Ref: rec.Ref}}, ref: rec.Ref, rec: rec, row: row, errand: true}
	if len(res.Problems) == 0 {
		if err := e.build(ctx, p, res); err != nil {
			return "", err
		}
		id, _, err := e.find(ctx, p, false)
		if err != nil && !errors.Is(err, desk.ErrRejected) || id != "" {
			return id, err
		}
	}
	return "(to be made: " + ref.String() + ")", nil
}

package delta

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// A sample is a handful of odd tickets that are moved before the rest, so that a team sees the hard cases first. Which
// tickets are odd shows only when they are read, and not all of them can be, so it is done in three steps:
//
//	draw    the whole listing is gone through, ids only; the lot falls to those whose ids have the smallest digests, which
//	        spreads them over the listing and falls to the same ones again. Of tickets that the listing shows as merged, as
//	        many as the sample is to have are drawn beside them, because they are rare
//	look    those drawn are read until perSample in scope for each one wanted have been seen, at most maxLooked; kept are the
//	        names of the features found, and digests of values
//	choose  greedily, so that together they show as many features as possible, each of them first of all once
//
// Each step keeps what it has in rows as it goes, and each follows from what the one before kept, so it can be cut off
// anywhere and comes to the same sample. The plan page, with the reasons in it, is the record: once it is there nothing is
// chosen again.
const (
	// MaxSample is how many tickets a sample may have.
	MaxSample = 100

	perSample = 10
	maxLooked = 600
	lookBatch = 10
)

// lotRow is how far drawing has come.
type lotRow struct {
	Next   desk.Cursor   `json:"next,omitempty"`
	Listed int           `json:"listed"`
	Done   bool          `json:"done,omitempty"`
	Merged []desk.Listed `json:"merged,omitempty"`
	Others []desk.Listed `json:"others,omitempty"`
}

// looked is what was seen of one ticket that was drawn. It holds no value, only digests.
type looked struct {
	Listed desk.Listed `json:"listed"`
	// Out: it cannot be chosen, because it is gone, out of scope or the same as another one.
	Out      bool                    `json:"out,omitempty"`
	Features []string                `json:"features,omitempty"`
	Entries  int                     `json:"entries,omitempty"`
	People   int                     `json:"people,omitempty"`
	Values   map[desk.Field][]string `json:"values,omitempty"`
}

type lookedRow struct {
	Tickets []looked `json:"tickets"`
}

// pick goes on choosing the tickets of a sample, by at most budget pages of the listing or batches of reading.
func (e *Engine) pick(ctx context.Context, run *Run, pages []pageRow, budget int) ([]pageRow, error) {
	k := Key{e.lotPart(run.ID), "drawn"}
	var lot lotRow
	version, err := e.get(ctx, k, &lot)
	if err != nil {
		return pages, err
	}
	if !lot.Done {
		for ; budget > 0 && !lot.Done; budget-- {
			if err := e.draw(ctx, run, &lot); err != nil {
				return pages, err
			}
		}
		if _, err := e.put(ctx, k, version, lot); err != nil {
			return pages, err
		}
	}
	seen, err := e.seen(ctx, run.ID)
	if err != nil {
		return pages, err
	}
	drawn := append(slices.Clone(lot.Merged), lot.Others...)
	drawn = drawn[:min(len(drawn), maxLooked)]
	for ; lot.Done && !enough(seen, drawn, run.N); budget-- {
		if budget <= 0 {
			return pages, nil
		}
		batch, err := e.examine(ctx, run, seen, drawn[len(seen):min(len(seen)+lookBatch, len(drawn))])
		if err != nil {
			return pages, err
		}
		if _, err := e.put(ctx, Key{e.lotPart(run.ID), fmt.Sprintf("seen/%06d", len(seen)/lookBatch)}, 0, lookedRow{batch}); err != nil {
			return pages, err
		}
		seen = append(seen, batch...)
	}
	if !lot.Done {
		return pages, nil
	}
	if len(pages) == 0 && lot.Listed > 0 {
		entries := choose(seen, run.N)
		row := pageRow{Kind: desk.Ticket, Listed: lot.Listed, Dropped: lot.Listed - len(entries), Done: true}
		if row, err = e.putPage(ctx, run, row, entries); err != nil {
			return pages, err
		}
		pages = append(pages, row)
	}
	run.Listed, run.Looked = true, len(seen)
	return pages, nil
}

// draw takes in one page of the listing.
func (e *Engine) draw(ctx context.Context, run *Run, lot *lotRow) error {
	page, err := e.Source.Changes(ctx, desk.Ticket, run.Filter, lot.Next, run.Until)
	if err != nil {
		return fmt.Errorf("list tickets to choose a sample from: %w", err)
	}
	if !page.Done && bytes.Equal(page.Next, lot.Next) {
		return fmt.Errorf("list tickets to choose a sample from: the source names the same place again and again: %w", desk.ErrCursor)
	}
	for _, it := range page.Items {
		switch it.Event {
		case desk.Deleted, desk.Spam:
		case desk.Merged:
			lot.Merged = drawn(lot.Merged, it, run.N)
		default:
			lot.Others = drawn(lot.Others, it, maxLooked)
		}
	}
	lot.Listed += len(page.Items)
	lot.Next, lot.Done = page.Next, page.Done
	return nil
}

// drawn puts a ticket where the digest of its id belongs, and keeps the first limit ones.
func drawn(lot []desk.Listed, it desk.Listed, limit int) []desk.Listed {
	at, twice := slices.BinarySearchFunc(lot, it, func(a, b desk.Listed) int {
		return cmp.Or(strings.Compare(digestJSON(a.Ref), digestJSON(b.Ref)), strings.Compare(a.Ref.ID, b.Ref.ID))
	})
	if twice { // listed again: the newer stamp counts
		lot[at] = it
		return lot
	}
	if at >= limit {
		return lot
	}
	lot = slices.Insert(lot, at, it)
	return lot[:min(len(lot), limit)]
}

// seen returns what was seen so far, in the order of the lot.
func (e *Engine) seen(ctx context.Context, run string) (all []looked, err error) {
	err = e.each(ctx, e.lotPart(run), "seen/", func(r Row) error {
		row, err := decode[lookedRow](r)
		all = append(all, row.Tickets...)
		return err
	})
	return all, err
}

// planned returns the records that are in the plan of a run.
func (e *Engine) planned(ctx context.Context, run string) (map[desk.Ref]bool, error) {
	pages, err := e.pageRows(ctx, run)
	if err != nil {
		return nil, err
	}
	all := map[desk.Ref]bool{}
	for _, p := range pages {
		es, err := e.entries(ctx, p.Object)
		if err != nil {
			return nil, err
		}
		for _, it := range es {
			all[it.Ref] = true
		}
	}
	return all, nil
}

func enough(seen []looked, drawn []desk.Listed, n int) bool {
	in := 0
	for _, t := range seen {
		if !t.Out {
			in++
		}
	}
	return len(seen) >= len(drawn) || in >= perSample*n
}

// examine reads tickets and notes what is odd about them. One that the desk refuses to give out is odd, too.
func (e *Engine) examine(ctx context.Context, run *Run, before []looked, batch []desk.Listed) ([]looked, error) {
	known := map[desk.Ref]bool{}
	for _, t := range before {
		known[t.Listed.Ref] = true
	}
	var out []looked
	for _, it := range batch {
		rec, err := e.Source.Read(ctx, it.Ref)
		t := looked{Listed: it}
		switch {
		case errors.Is(err, desk.ErrRejected):
			t.Features = []string{"refused by the source"}
		case errors.Is(err, desk.ErrNotFound):
			t.Out = true
		case err != nil:
			return nil, fmt.Errorf("read %s to choose a sample: %w", it.Ref, err)
		default:
			in, _ := run.Filter.Holds(rec)
			if rec.Ref != it.Ref { // what is moved of a ticket that was merged is the one that lives on
				t.Listed = desk.Listed{Ref: rec.Ref, Stamp: rec.Stamp}
			}
			if t.Out = !in || rec.Event == desk.Deleted || rec.Event == desk.Spam || known[rec.Ref]; !t.Out {
				e.features(rec, &t)
			}
		}
		known[t.Listed.Ref] = true
		out = append(out, t)
	}
	return out, nil
}

// features finds what is odd about one ticket by itself; what is odd beside others follows in choose.
func (e *Engine) features(rec desk.Record, t *looked) {
	has := map[string]bool{}
	people := map[string]bool{}
	texts := slices.Clone(rec.Fields[desk.Subject])
	for _, f := range []desk.Field{desk.Requester, desk.Assignee, desk.CC, desk.Followers} {
		for _, id := range rec.Fields[f] {
			people[id] = true
		}
	}
	for _, f := range []desk.Field{desk.LinkParent, desk.LinkDependsOn, desk.LinkRefersTo} {
		has["links"] = has["links"] || len(rec.Fields[f]) > 0
	}
	for _, en := range rec.Entries {
		texts = append(texts, en.Subject, en.Body)
		has["private notes"] = has["private notes"] || !en.Public
		has["HTML"] = has["HTML"] || en.Type == "text/html"
		has["non-ASCII names"] = has["non-ASCII names"] || !ascii(en.Author.Name)
		if who := cmp.Or(en.Author.ID, en.Author.Email); who != "" {
			people[who] = true
		}
		for _, f := range en.Files {
			inline := f.Inline || f.CID != ""
			has["files"] = has["files"] || !inline
			has["inline images"] = has["inline images"] || inline
			has["non-ASCII file names"] = has["non-ASCII file names"] || !ascii(f.Name)
			has["files over the target's limit"] = has["files over the target's limit"] || e.TargetSide.MaxFile > 0 && f.Size > e.TargetSide.MaxFile
		}
	}
	has["right-to-left text"] = slices.ContainsFunc(texts, rightToLeft)
	has["merged tickets"] = len(rec.Aliases) > 0
	for _, f := range slices.Sorted(maps.Keys(has)) {
		if has[f] {
			t.Features = append(t.Features, f)
		}
	}
	t.Entries, t.People, t.Values = len(rec.Entries), len(people), map[desk.Field][]string{}
	for f, v := range rec.Fields {
		if f == desk.Subject || f == desk.Description || f.Points() != "" {
			continue
		}
		for _, s := range v {
			t.Values[f] = append(t.Values[f], desk.Value{s}.Digest())
		}
	}
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// rightToLeft tells whether a text has letters that are written from right to left, or marks that turn the direction.
func rightToLeft(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		switch r {
		case '\u200F', '\u202B', '\u202E', '\u2067':
			return true
		}
		return r > unicode.MaxLatin1 && unicode.In(r, unicode.Hebrew, unicode.Arabic, unicode.Syriac, unicode.Thaana, unicode.Nko, unicode.Adlam)
	})
}

// feature is one thing that a sample should show. Each rare value is one of its own, told apart by a digest.
type feature struct{ name, value string }

// choose returns at most n of the tickets seen, with the names of what is odd about each. It is pure.
//
// Each feature counts half as much with every chosen ticket that has it, and a rare value a quarter of any other feature,
// because there may be many of them. Between equals the lot decides.
func choose(seen []looked, n int) []planEntry {
	var in []looked
	for _, t := range seen {
		if !t.Out {
			in = append(in, t)
		}
	}
	all := weigh(in)
	covered := map[feature]int{}
	gain := func(i int) (sum int) {
		for f, weight := range all[i] {
			sum += weight >> covered[f]
		}
		return sum
	}
	var out []planEntry
	taken := make([]bool, len(in))
	for len(out) < min(n, len(in)) {
		best, most := -1, -1
		for i := range in {
			if g := gain(i); !taken[i] && g > most {
				best, most = i, g
			}
		}
		taken[best] = true
		var names []string
		for f := range all[best] {
			covered[f]++
			names = append(names, f.name)
		}
		slices.Sort(names)
		if names = slices.Compact(names); len(names) == 0 {
			names = []string{"nothing odd"}
		}
		out = append(out, planEntry{Listed: in[best].Listed, Chosen: names})
	}
	return out
}

// weigh returns the features of each ticket with their weights. Long threads and many people are those that nine in ten
// tickets do not exceed; a value is rare when one in fifty tickets has it, or only one, in a field whose values do recur.
func weigh(in []looked) []map[feature]int {
	const odd, rare = 1 << 16, 1 << 14
	var entries, people []int
	count := map[desk.Field]map[string]int{}
	have := map[desk.Field]int{}
	for _, t := range in {
		entries, people = append(entries, t.Entries), append(people, t.People)
		for f, vs := range t.Values {
			have[f]++
			if count[f] == nil {
				count[f] = map[string]int{}
			}
			for _, v := range vs {
				count[f][v]++
			}
		}
	}
	long, many := max(8, ninth(entries)), max(4, ninth(people))
	few := max(1, len(in)/50)
	all := make([]map[feature]int, len(in))
	for i, t := range in {
		all[i] = map[feature]int{}
		for _, f := range t.Features {
			all[i][feature{f, ""}] = odd
		}
		if t.Entries >= long {
			all[i][feature{"long thread", ""}] = odd
		}
		if t.People >= many {
			all[i][feature{"many people", ""}] = odd
		}
		for f, vs := range t.Values {
			recur := 2*len(count[f]) <= have[f] || have[f] <= few
			for _, v := range vs {
				if recur && count[f][v] <= few {
					all[i][feature{"rare value of " + string(f), v}] = rare
				}
			}
		}
	}
	return all
}

// ninth returns the number that nine in ten do not exceed.
func ninth(ns []int) int {
	if len(ns) == 0 {
		return 0
	}
	slices.Sort(ns)
	return ns[(len(ns)-1)*9/10]
}

package rttest

import (
	"context"
	"fmt"
	"html"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Oracle says what the target must look like, from the script and from both databases, and counts what does not. It
// shares no code with what it judges.
type Oracle struct {
	Source, Target *Server
	Script         *Script
	// Decided are the fields for which somebody decided what the target is to have: "SOURCEID/FIELD", with the oracle's name
	// of the field, to the value as the database has it; a value of "source" stands for the source's.
	Decided map[string]string
	// Ignore are fields that are not compared, by the oracle's names; for losses that have been declared. Besides the names
	// in Details there are entry.subject (of every entry) and create.subject (of the message that made the ticket).
	Ignore []string
	// Undated says that the target does not keep when a ticket was made: of each one whose time of creation is another than the
	// source's its own entries must tell the source's, in a header line or an internal note. Without it that is a difference.
	Undated bool
	// Meaning is how the migration's mapping translates a field's value, by the oracle's names; nil where every value stays
	// what it is. Of a field with several values it is asked for each.
	Meaning func(field, value string) string
	// Unfinished says that source tickets that are not in the target yet are no loss: for a look between two runs.
	Unfinished bool
	// DeletedBefore is the number of actions in the script when the migration began: tickets deleted earlier must not be in
	// the target, later ones may. 0 leaves both open for all.
	DeletedBefore int
	// Undone says that a run was undone: tickets that the migration deleted in the target are no fault then, and count as not
	// there.
	Undone bool
	// LagSince makes the oracle measure how long entries written in the source since then took to the target; zero: none.
	LagSince time.Time
	// MaxDetails bounds Result.Details; 0 means 50.
	MaxDetails int
}

// Result are the oracle's sums. Lost, Doubled, Differences and Overwritten are failures, Mails are mails that the migration
// caused (PeopleMails those of the people).
type Result struct {
	Tickets, Entries, Files                 int // compared
	Lost, Doubled, Differences, Overwritten int
	Mails, PeopleMails                      int
	Notes                                   int // entries that the migration added of its own: status history, fields without a home
	// Undated are the tickets that have another time of creation and tell the source's in their thread, see Oracle.Undated; Noted
	// are those of them of which only a note tells it.
	Undated, Noted int
	// Held are the fields, as "SOURCEID/FIELD", that people changed in the target and that the source has changed to something
	// else since: what a run must report as held, unless it was decided. Kept are those that only people in the target changed.
	Held, Kept []string
	// Either are fields that were changed on both sides, but on which both agreed for a while: if a run came in between they
	// are kept, if none did they are held.
	Either []string
	// Lags are, ascending and to the second, how long entries took from the source to the target, see Oracle.LagSince.
	Lags    []time.Duration
	Details []string
}

// String is the line of the acceptance test.
func (r Result) String() string {
	return fmt.Sprintf("tickets=%d entries=%d files=%d lost=%d doubled=%d differences=%d overwritten=%d mails=%d",
		r.Tickets, r.Entries, r.Files, r.Lost, r.Doubled, r.Differences, r.Overwritten, r.Mails)
}

// OK tells whether nothing is wrong.
func (r Result) OK() bool {
	return r.Lost == 0 && r.Doubled == 0 && r.Differences == 0 && r.Overwritten == 0 && r.Mails == 0
}

// Check reads both desks, which should be at rest, and compares.
func (o *Oracle) Check(ctx context.Context) (Result, error) {
	src, err := readState(ctx, o.Source.DBFile)
	if err != nil {
		return Result{}, err
	}
	dst, err := readState(ctx, o.Target.DBFile)
	if err != nil {
		return Result{}, err
	}
	mails, err := o.Target.mails()
	if err != nil {
		return Result{}, err
	}
	return o.judge(src, dst, mails), nil
}

// judge is Check without the reading.
func (o *Oracle) judge(src, dst *state, mails []mailLine) Result {
	j := &judgement{o: o, src: src, dst: dst, claims: map[int64][]int64{}, max: o.MaxDetails}
	if j.max == 0 {
		j.max = 50
	}
	for _, d := range checkScript(o.Script, src) {
		j.differ("%s", d)
	}
	j.readOnly()
	j.claim()
	j.deletions()
	for _, id := range sortedIDs(src.tickets) {
		j.ticket(src.tickets[id])
	}
	for _, g := range j.groups() {
		j.thread(g)
	}
	slices.Sort(j.r.Lags)
	j.links()
	j.users()
	j.people()
	j.mails(mails)
	return j.r
}

type judgement struct {
	o        *Oracle
	src, dst *state
	r        Result
	max      int
	claims   map[int64][]int64 // source id → target tickets that carry it
	home     map[int64]int64   // source id → the one living target ticket it is in
}

func (j *judgement) note(what, format string, a ...any) {
	if len(j.r.Details) < j.max {
		j.r.Details = append(j.r.Details, what+": "+fmt.Sprintf(format, a...))
	}
}

func (j *judgement) lost(format string, a ...any)    { j.r.Lost++; j.note("lost", format, a...) }
func (j *judgement) doubled(format string, a ...any) { j.r.Doubled++; j.note("doubled", format, a...) }
func (j *judgement) differ(format string, a ...any) {
	j.r.Differences++
	j.note("difference", format, a...)
}

func (j *judgement) overwritten(format string, a ...any) {
	j.r.Overwritten++
	j.note("overwritten", format, a...)
}

func sortedIDs[V any](m map[int64]V) []int64 {
	var ids []int64
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// readOnly: the migration's account has written nothing in the source.
func (j *judgement) readOnly() {
	for _, id := range sortedIDs(j.src.txns) {
		for _, t := range j.src.txns[id] {
			if t.creator == MigrationUser {
				j.differ("source ticket %d: transaction %d (%s %s) was made by the migration", id, t.id, t.kind, t.field)
			}
		}
	}
}

// claim finds which target tickets say that they are which source ticket. Deleted ones count where there is no other.
func (j *judgement) claim() {
	j.home = map[int64]int64{}
	deleted := map[int64][]int64{}
	for _, id := range sortedIDs(j.dst.tickets) {
		t := j.dst.tickets[id]
		v := t.fields["cf."+SourceIDField]
		if v == "" {
			if t.effective == id && j.madeByMigration(id) {
				j.doubled("target ticket %d was made by the migration and names no source ticket", id)
			}
			continue
		}
		for _, one := range strings.Split(v, listSep) {
			src, ok := SourceID(one)
			if !ok || j.src.tickets[src] == nil {
				j.differ("target ticket %d: %s names no ticket of the source", id, SourceIDField)
				continue
			}
			if t.fields["status"] == "deleted" {
				if j.undone(id) {
					continue
				}
				deleted[src] = append(deleted[src], id)
				continue
			}
			j.claims[src] = append(j.claims[src], id)
		}
	}
	for src, ids := range deleted {
		if len(j.claims[src]) == 0 {
			j.claims[src] = ids[len(ids)-1:]
		}
	}
	for src, ids := range j.claims {
		// A survivor that took over the merged ticket's mark is no second copy.
		var eff []int64
		for _, id := range ids {
			eff = append(eff, j.dst.tickets[id].effective)
		}
		slices.Sort(eff)
		eff = slices.Compact(eff)
		own := 0 // copies: tickets whose mark is this source id alone
		for _, id := range ids {
			if !strings.Contains(j.dst.tickets[id].fields["cf."+SourceIDField], listSep) {
				own++
			}
		}
		if len(eff) > 1 || own > 1 {
			j.doubled("source ticket %d is target tickets %v", src, ids)
		}
		j.home[src] = eff[0]
	}
}

// deletions: the migration deletes nothing in the target, unless a run was undone.
func (j *judgement) deletions() {
	if j.o.Undone {
		return
	}
	for _, id := range sortedIDs(j.dst.tickets) {
		if j.dst.tickets[id].fields["status"] == "deleted" && j.deletedByMigration(id) {
			j.differ("target ticket %d was deleted by the migration", id)
		}
	}
}

// undone tells whether a ticket of the target was removed by an undo.
func (j *judgement) undone(target int64) bool {
	t := j.dst.tickets[target]
	return j.o.Undone && t != nil && t.fields["status"] == "deleted" && j.deletedByMigration(target)
}

// deletedByMigration tells whether it was the migration, not people, that deleted a ticket of the target which is deleted.
func (j *judgement) deletedByMigration(target int64) bool {
	ts := j.dst.txns[target]
	for i := len(ts) - 1; i >= 0; i-- {
		if j.dst.field(ts[i]) == "status" {
			return j.dst.cause(target, i) == MigrationUser
		}
	}
	return false
}

// mergedByPeople tells whether people of the target merged a ticket into another one.
func (j *judgement) mergedByPeople(target int64) bool {
	return slices.ContainsFunc(j.dst.txns[target], func(t *dbTxn) bool {
		return t.kind == "AddLink" && t.field == "MergedInto" && t.creator != MigrationUser && !strings.HasSuffix(t.new, fmt.Sprintf("/%d", target))
	})
}

// swallowed tells whether people of the target merged others into a ticket. RT adds up their times and watchers then, and
// writes no transaction about it.
func (j *judgement) swallowed(target int64) bool {
	for id, t := range j.dst.tickets {
		if id != target && t.effective == target && j.mergedByPeople(id) {
			return true
		}
	}
	return false
}

var summedByMerge = []string{"timeworked", "timeestimated", "timeleft", "requestor", "cc", "admincc"}

// group is what is compared as one thread: a source ticket with those merged into it, and the target tickets they are in.
// Where people of the target merged tickets, threads of several source tickets are one.
type group struct{ src, dst []int64 }

// groups gathers all tickets that have anything in the target.
func (j *judgement) groups() []*group {
	up := map[int64]int64{} // of survivors: the source's as they are, the target's below zero
	root := func(n int64) int64 {
		for up[n] != 0 {
			n = up[n]
		}
		return n
	}
	for src, ids := range j.claims {
		for _, id := range ids {
			if a, b := root(j.src.tickets[src].effective), root(-j.dst.tickets[id].effective); a != b {
				up[a] = b
			}
		}
	}
	by := map[int64]*group{}
	var all []*group
	for _, id := range sortedIDs(j.src.tickets) {
		r := root(j.src.tickets[id].effective)
		if by[r] == nil {
			by[r] = &group{}
			all = append(all, by[r])
		}
		by[r].src = append(by[r].src, id)
	}
	for _, id := range sortedIDs(j.dst.tickets) {
		if g := by[root(-j.dst.tickets[id].effective)]; g != nil {
			g.dst = append(g.dst, id)
		}
	}
	return slices.DeleteFunc(all, func(g *group) bool { return len(g.dst) == 0 })
}

func (j *judgement) madeByMigration(target int64) bool {
	for _, e := range j.dst.entries[target] {
		if e.kind == "Create" {
			return e.creator == MigrationUser
		}
	}
	return false
}

// ticket compares one source ticket, except for its thread.
func (j *judgement) ticket(t *dbTicket) {
	switch {
	case t.fields["status"] == "deleted" && t.effective == t.id:
		// Policy of the test: a deletion is ignored. What came over before it stays, and is compared no further than
		// that nothing of it is there twice.
		log := j.o.Script.ticket(t.id)
		if home := j.home[t.id]; home != 0 && log != nil && j.o.DeletedBefore > 0 && log.DeletedAt > 0 && log.DeletedAt <= j.o.DeletedBefore {
			j.differ("source ticket %d was deleted before the migration began and is target ticket %d", t.id, home)
		}
		return
	case t.effective != t.id:
		// Merged away. Its words are the survivor's; its own number may be in the target (migrated before, then merged
		// there as well) or not (merged before), but never as a ticket of its own.
		if s := j.src.tickets[t.effective]; s != nil && s.fields["status"] == "deleted" {
			return // the survivor was deleted before a run saw the merge: with policy ignore both stay as they were
		}
		home, into := j.home[t.id], j.home[t.effective]
		if home != 0 && home != into && !slices.ContainsFunc(slices.Concat(j.claims[t.id], j.claims[t.effective]), j.mergedByPeople) {
			j.differ("source ticket %d was merged into %d, but target ticket %d was not merged into %d", t.id, t.effective, home, into)
		}
		return
	}
	home := j.home[t.id]
	if home == 0 {
		if !j.o.Unfinished {
			j.lost("source ticket %d is not in the target", t.id)
		}
		return
	}
	j.r.Tickets++
	target := j.dst.tickets[home]
	if target == nil {
		j.lost("source ticket %d: target ticket %d is gone", t.id, home)
		return
	}
	if target.fields["status"] == "deleted" {
		j.lost("source ticket %d: target ticket %d is deleted", t.id, home)
		return
	}
	if own := j.claims[t.id][0]; own != home {
		if !j.mergedByPeople(own) {
			j.differ("source ticket %d: target ticket %d is merged into %d", t.id, own, home)
		}
		return // what lives on there is not this ticket alone
	}
	j.fields(t, target)
}

// tellsCreated tells whether the migration's entries in a ticket of the target say when it was made: a header line to the second,
// or an internal note.
func (j *judgement) tellsCreated(target int64, at string) (header, note bool) {
	for id, t := range j.dst.tickets {
		if id != target && t.effective != target {
			continue
		}
		for _, e := range j.dst.entries[id] {
			if e.creator != MigrationUser || len(e.leaves) == 0 {
				continue
			}
			m := fromTarget(e)
			header = header || strings.Contains(m.header, at)
			for _, b := range m.bodies {
				note = note || !e.public && strings.Contains(b, "Created: "+strings.Replace(at, " ", "T", 1)+"Z")
			}
		}
	}
	return header, note
}

func (s *Script) ticket(id int64) *TicketLog {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.data.Tickets[id]; t != nil {
		c := *t
		return &c
	}
	return nil
}

// fields compares a ticket's fields, three-way where people changed one in the target.
func (j *judgement) fields(src, dst *dbTicket) {
	var all []string
	for f := range src.fields {
		all = append(all, f)
	}
	for f := range dst.fields {
		if src.fields[f] == "" && !strings.HasPrefix(f, "cf.Deltadesk ") {
			all = append(all, f)
		}
	}
	slices.Sort(all)
	swallowed := j.swallowed(dst.id)
	for _, f := range slices.Compact(all) {
		if slices.Contains(j.o.Ignore, f) {
			continue
		}
		if swallowed && slices.Contains(summedByMerge, f) {
			continue
		}
		want, got := j.meaning(f, src.fields[f]), canonical(dst.fields[f])
		if v, ok := j.o.Decided[fmt.Sprintf("%d/%s", src.id, f)]; ok {
			if v == "source" {
				v = want
			}
			if got != v {
				j.differ("source ticket %d, target ticket %d: %s is %q, decided was %q", src.id, dst.id, f, clip(got), clip(v))
			}
			continue
		}
		if f == "created" && got != want && j.o.Undated {
			switch header, note := j.tellsCreated(dst.id, want); {
			case !header && !note:
				j.differ("source ticket %d, target ticket %d: nothing tells that it was made at %s", src.id, dst.id, want)
			case !header:
				j.r.Noted++
				fallthrough
			default:
				j.r.Undated++
			}
			continue
		}
		first, touched := j.touched(dst.id, f)
		if touched == 0 {
			if got != want && !j.consequence(dst.id, f) {
				j.differ("source ticket %d, target ticket %d: %s is %q, source has %q", src.id, dst.id, f, clip(got), clip(want))
			}
			continue
		}
		if got == want {
			continue
		}
		if base, known := j.valueAfter(dst.id, f, first-1); known && base == want {
			j.r.Kept = append(j.r.Kept, fmt.Sprintf("%d/%s", src.id, f))
		} else {
			list := &j.r.Held
			if j.agreed(dst.id, f, want) {
				list = &j.r.Either
			}
			*list = append(*list, fmt.Sprintf("%d/%s", src.id, f))
		}
		people, known := j.valueAfter(dst.id, f, touched)
		if !known || people == got {
			continue
		}
		j.overwritten("source ticket %d, target ticket %d: %s was set to %q by people (transaction %d) and is %q", src.id, dst.id, f, clip(people), touched, clip(got))
	}
	// What people set and the migration replaced by the source's value. It may where both sides had the same value for a
	// while: what the source did afterwards was no conflict.
	for _, f := range slices.Compact(all) {
		if slices.Contains(j.o.Ignore, f) || j.meaning(f, src.fields[f]) != canonical(dst.fields[f]) || swallowed && slices.Contains(summedByMerge, f) {
			continue
		}
		if _, ok := j.o.Decided[fmt.Sprintf("%d/%s", src.id, f)]; ok {
			continue
		}
		_, touched := j.touched(dst.id, f)
		if touched == 0 {
			continue
		}
		people, known := j.valueAfter(dst.id, f, touched)
		if known && people != canonical(dst.fields[f]) && !j.sourceHad(src.id, f, people) {
			j.overwritten("source ticket %d, target ticket %d: %s was set to %q by people (transaction %d), the source's %q replaced it", src.id, dst.id, f, clip(people), touched, clip(dst.fields[f]))
		}
	}
}

// meaning is what a value of the source is to be in the target.
func (j *judgement) meaning(field, v string) string {
	if j.o.Meaning == nil || v == "" {
		return canonical(v)
	}
	list := ""
	for _, one := range strings.Split(v, listSep) {
		list = addTo(list, j.o.Meaning(field, one))
	}
	return canonical(list)
}

func clip(s string) string {
	s = strings.ReplaceAll(s, listSep, "|")
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// field is the oracle's name of the field that a transaction changed, "" for none. RT writes Set for columns, and special
// kinds for the rest.
func (s *state) field(t *dbTxn) string {
	switch t.kind {
	case "Status":
		return "status"
	case "CustomField":
		id, _ := strconv.ParseInt(t.field, 10, 64)
		return "cf." + s.fields[id]
	case "AddWatcher", "DelWatcher":
		return strings.ToLower(t.field)
	case "Set", "SetWatcher", "Steal", "Take", "Give", "Untake", "Force":
		return strings.ToLower(t.field)
	}
	return ""
}

// value translates a transaction's old or new value into the oracle's.
func (s *state) value(t *dbTxn, v string) string {
	switch s.field(t) {
	case "owner":
		id, _ := strconv.ParseInt(v, 10, 64)
		return strings.ToLower(s.users[id].name)
	case "queue":
		id, _ := strconv.ParseInt(v, 10, 64)
		return s.queues[id]
	case "requestor", "cc", "admincc":
		id, _ := strconv.ParseInt(v, 10, 64)
		return s.who(id)
	}
	return v
}

// cause is who is behind a transaction: RT does some things by itself, because of what somebody did on the ticket just before.
func (s *state) cause(ticket int64, i int) string {
	ts := s.txns[ticket]
	for k := i; k >= 0; k-- {
		if ts[k].creator != "RT_System" {
			return ts[k].creator
		}
	}
	return "RT_System"
}

// touched returns the first and the last transaction by which people, not the migration, changed the field in the target; 0
// for none.
func (j *judgement) touched(target int64, field string) (first, last int64) {
	for i, t := range j.dst.txns[target] {
		if j.dst.field(t) == field && j.dst.cause(target, i) != MigrationUser {
			last = t.id
			if first == 0 {
				first = t.id
			}
		}
	}
	return first, last
}

// agreed tells whether the target once had the value that the source has now, and people changed it again.
func (j *judgement) agreed(target int64, field, want string) bool {
	for i, t := range j.dst.txns[target] {
		if j.dst.field(t) == field && j.dst.cause(target, i) != MigrationUser && j.dst.value(t, t.old) == want {
			return true
		}
	}
	return false
}

// consequence tells whether a field follows from what people did in the target: RT sets these times with the status.
func (j *judgement) consequence(target int64, field string) bool {
	_, status := j.touched(target, "status")
	return status != 0 && (field == "resolved" || field == "started")
}

// valueAfter undoes, backwards from now, what happened to the field after the transaction. known is false where RT does not
// write down what it replaced (long texts).
func (j *judgement) valueAfter(target int64, field string, txn int64) (v string, known bool) {
	ts := j.dst.txns[target]
	v = canonical(j.dst.tickets[target].fields[field])
	for i := len(ts) - 1; i >= 0 && ts[i].id > txn; i-- {
		t := ts[i]
		if j.dst.field(t) != field {
			continue
		}
		old, now := j.dst.value(t, t.old), j.dst.value(t, t.new)
		if t.kind == "CustomField" && old == "" && now == "" {
			return "", false
		}
		if t.kind != "CustomField" && t.kind != "AddWatcher" && t.kind != "DelWatcher" {
			v = old
			continue
		}
		set := slices.DeleteFunc(strings.Split(v, listSep), func(s string) bool { return s == "" || now != "" && s == now })
		if old != "" {
			set = append(set, old)
		}
		slices.Sort(set)
		v = strings.Join(slices.Compact(set), listSep)
	}
	if v == epoch {
		v = ""
	}
	return v, true
}

// sourceHad tells whether the source's field ever had the value.
func (j *judgement) sourceHad(ticket int64, field, v string) bool {
	if j.meaning(field, j.src.tickets[ticket].fields[field]) == v {
		return true
	}
	for _, t := range j.src.txns[ticket] {
		if j.src.field(t) == field && (j.meaning(field, j.src.value(t, t.old)) == v || j.meaning(field, j.src.value(t, t.new)) == v) {
			return true
		}
	}
	return false
}

// entry is an entry in the form in which both sides are compared.
type entry struct {
	*dbEntry
	header string   // the migration's header line, of the target's entries
	bodies []string // ways to read the body; the source has one
	html   bool
	files  []*dbLeaf // that must be there
	maybe  []*dbLeaf // that may be there: an alternative that says the same
	loose  bool      // of the source: need not be in the target
	used   bool
}

// StripHeader splits what the migration put in front of an entry's body from the body. There may be several ways to read
// it; the header is a first line or paragraph that begins with "[". It returns no bodies where there is no header.
var StripHeader = func(body string, isHTML bool) (header string, bodies []string) {
	if isHTML {
		if m := htmlHeader.FindStringSubmatchIndex(body); m != nil {
			rest := body[m[1]:]
			return html.UnescapeString(tags.ReplaceAllString(body[:m[1]], " ")), []string{rest, strings.TrimPrefix(rest, "\n"), strings.TrimPrefix(rest, "<br>"), strings.TrimPrefix(rest, "<hr>")}
		}
		return "", nil
	}
	if !strings.HasPrefix(body, "[") {
		return "", nil
	}
	line, rest, _ := strings.Cut(body, "\n")
	bodies = []string{rest, strings.TrimPrefix(rest, "\n")}
	if para, after, ok := strings.Cut(body, "\n\n"); ok && para != line {
		bodies = append(bodies, after)
		line = para
	}
	return line, bodies
}

var (
	htmlHeader = regexp.MustCompile(`(?s)^\s*(?:<p[^>]*>\s*(?:<[a-z]+[^>]*>\s*)*\[.*?</p>|<div[^>]*>\s*(?:<[a-z]+[^>]*>\s*)*\[.*?</div>|<pre[^>]*>\s*\[.*?</pre>|<blockquote[^>]*>\s*\[.*?</blockquote>|\[[^\n]*?(?:\n|<br ?/?>))`)
	tags       = regexp.MustCompile(`(?s)<style.*?</style>|<script.*?</script>|<!--.*?-->|<[^>]*>`)
	hidden     = regexp.MustCompile(`(?s)<style.*?</style>|<script.*?</script>|<!--.*?-->`)
	altText    = regexp.MustCompile(`(?s)alt="([^"]*)"`)
	wordRE     = regexp.MustCompile(`[\p{L}\p{N}]+`)
)

func isText(l *dbLeaf) bool { return l.ctype == "text/plain" || l.ctype == "text/html" }

// fromSource reads a source entry: its body is the HTML of an alternative, else the first text without a file name.
func fromSource(e *dbEntry) *entry {
	m := &entry{dbEntry: e}
	first := slices.IndexFunc(e.leaves, func(l *dbLeaf) bool { return isText(l) && l.name == "" && !l.inMail })
	var body *dbLeaf
	if first >= 0 {
		body = e.leaves[first]
		if a := body.alternative; a != 0 {
			for _, l := range e.leaves {
				if l.alternative == a && l.ctype == "text/html" && l.name == "" {
					body = l
				}
			}
		}
	}
	for _, l := range e.leaves {
		switch {
		case l == body:
			m.bodies, m.html = []string{canonical(l.text)}, l.ctype == "text/html"
		case l.size == 0 && l.name == "" && strings.HasPrefix(l.ctype, "text/"), l.ctype == "message/rfc822" && l.size == 0:
			m.maybe = append(m.maybe, l)
		case body != nil && body.alternative != 0 && l.alternative == body.alternative && l.ctype == "text/plain" && l.name == "" && saysNoMore(l.text, body.text):
			m.maybe = append(m.maybe, l)
		default:
			m.files = append(m.files, l)
		}
	}
	if body == nil {
		m.bodies = []string{""}
	}
	return m
}

// saysNoMore tells whether the HTML has every word of the plain text.
func saysNoMore(plain, markup string) bool {
	text := hidden.ReplaceAllString(markup, " ")
	have := map[string]bool{}
	for _, a := range altText.FindAllStringSubmatch(text, -1) {
		for _, w := range wordRE.FindAllString(strings.ToLower(html.UnescapeString(a[1])), -1) {
			have[w] = true
		}
	}
	// Tags may stand within a word or between two.
	for _, between := range []string{"", " "} {
		for _, w := range wordRE.FindAllString(strings.ToLower(html.UnescapeString(tags.ReplaceAllString(text, between))), -1) {
			have[w] = true
		}
	}
	for _, w := range wordRE.FindAllString(strings.ToLower(plain), -1) {
		if !have[w] {
			return false
		}
	}
	return true
}

// fromTarget reads an entry that the migration wrote.
func fromTarget(e *dbEntry) *entry {
	m := &entry{dbEntry: e}
	for _, l := range e.leaves {
		if m.bodies == nil && isText(l) && l.name == "" {
			m.html = l.ctype == "text/html"
			text := strings.ReplaceAll(l.text, "\r\n", "\n")
			m.header, m.bodies = StripHeader(text, m.html)
			for i := range m.bodies {
				m.bodies[i] = canonical(m.bodies[i])
			}
			if m.bodies == nil {
				m.bodies = []string{canonical(text)}
			}
			continue
		}
		if l.ctype == "message/rfc822" && l.size == 0 { // RT has taken it apart
			continue
		}
		m.files = append(m.files, l)
	}
	if m.bodies == nil {
		m.bodies = []string{""}
	}
	return m
}

func (m *entry) sameBody(t *entry) bool {
	b := m.bodies[0]
	if b != "" && m.html != t.html {
		return false
	}
	return slices.ContainsFunc(t.bodies, func(x string) bool { return x == b || imageless(x) == imageless(b) && m.html })
}

var cid = regexp.MustCompile(`(?i)src="(?:cid:|/Ticket/Attachment/|https?://[^"]*/Ticket/Attachment/)[^"]*"`)

// imageless leaves out where an inline picture is looked for: a desk may only show it under its own address.
func imageless(s string) string { return cid.ReplaceAllString(s, `src="cid:"`) }

// sameFiles compares the files of two entries; it returns what is wrong in words, and how many are there.
func (m *entry) sameFiles(t *entry) (wrong []string, n int) {
	left := slices.Clone(t.files)
	if slices.ContainsFunc(m.files, func(l *dbLeaf) bool { return l.inMail }) {
		// RT has taken a mail within the mail apart; the target may have it in one piece again.
		var all []*dbLeaf
		for _, x := range left {
			if x.ctype == "text/rfc822-headers" {
				continue // the inner mail's own headers, which RT shows in no other way
			}
			if parts := openMail(x); parts != nil {
				all = append(all, parts...)
			} else {
				all = append(all, x)
			}
		}
		left = all
	}
	take := func(l *dbLeaf, strict bool) bool {
		for _, ok := range []func(x *dbLeaf) bool{
			func(x *dbLeaf) bool { return x.sha == l.sha && sameName(l, x) && sameType(l, x) },
			func(x *dbLeaf) bool { return !strict && x.sha == l.sha },
		} {
			if k := slices.IndexFunc(left, ok); k >= 0 {
				left = slices.Delete(left, k, k+1)
				return true
			}
		}
		return false
	}
	var missing []*dbLeaf
	for _, l := range m.files {
		if take(l, true) {
			n++
		} else {
			missing = append(missing, l)
		}
	}
	for _, l := range missing {
		k := slices.IndexFunc(left, func(x *dbLeaf) bool { return x.sha == l.sha })
		if k < 0 {
			// An alternative's or mail's text may have got its line end changed on its way to a file.
			k = slices.IndexFunc(left, func(x *dbLeaf) bool { return l.text != "" && l.name == "" && canonical(x.text) == canonical(l.text) })
			if k >= 0 {
				left = slices.Delete(left, k, k+1)
				n++
				continue
			}
			wrong = append(wrong, fmt.Sprintf("file %q (attachment %d, %s, %d bytes) is missing or changed", l.name, l.id, l.ctype, l.size))
			continue
		}
		x := left[k]
		left = slices.Delete(left, k, k+1)
		n++
		if !sameName(l, x) {
			wrong = append(wrong, fmt.Sprintf("file %q (attachment %d) is called %q", l.name, l.id, x.name))
		}
		if !sameType(l, x) {
			wrong = append(wrong, fmt.Sprintf("file %q (attachment %d) is %s, source has %s", l.name, l.id, x.ctype, l.ctype))
		}
	}
	for _, l := range m.maybe {
		if !take(l, false) {
			if k := slices.IndexFunc(left, func(x *dbLeaf) bool { return canonical(x.text) == canonical(l.text) && x.text != "" }); k >= 0 {
				left = slices.Delete(left, k, k+1)
			}
		}
	}
	for _, x := range left {
		wrong = append(wrong, fmt.Sprintf("file %q (target attachment %d) is not in the source", x.name, x.id))
	}
	return wrong, n
}

func sameName(src, dst *dbLeaf) bool {
	if dst.exact != nil {
		return *dst.exact == src.name // RT could not store it as it is; it must have been kept exactly all the same
	}
	return src.name == "" || src.name == dst.name
}

var exactName = regexp.MustCompile(`x-dd-name="?([^";\s]*)`)

// ExactName finds the name that the migration kept in an attachment's headers where RT's REST cannot store it: empty ones,
// and those with quotes, slashes and the like.
var ExactName = func(headers string) (string, bool) {
	m := exactName.FindStringSubmatch(headers)
	if m == nil {
		return "", false
	}
	name, err := url.PathUnescape(m[1])
	return name, err == nil
}

// sameType: text types other than UTF-8's may come over as plain bytes.
func sameType(src, dst *dbLeaf) bool {
	return src.ctype == dst.ctype || strings.HasPrefix(src.ctype, "text/") && (dst.ctype == "application/octet-stream" || src.name == "")
}

// thread compares the entries of a group.
func (j *judgement) thread(g *group) {
	var want, got []*entry
	for _, id := range g.src {
		eff := j.src.tickets[j.src.tickets[id].effective]
		home := j.home[eff.id]
		// Of a ticket that was deleted in the source some may be missing; one that is not in the target has been told of.
		loose := eff.fields["status"] == "deleted" || home == 0 || j.dst.tickets[home].fields["status"] == "deleted"
		for _, e := range j.src.entries[id] {
			w := fromSource(e)
			w.loose = loose
			want = append(want, w)
			j.r.Entries += b01(!loose)
		}
	}
	for _, id := range g.dst {
		if j.dst.tickets[j.dst.tickets[id].effective].fields["status"] == "deleted" {
			continue
		}
		for _, e := range j.dst.entries[id] {
			if e.creator == MigrationUser && len(e.leaves) > 0 {
				got = append(got, fromTarget(e))
			}
		}
	}
	byID := func(a, b *entry) int { return int(a.id - b.id) }
	slices.SortFunc(want, byID)
	slices.SortFunc(got, byID)
	pair := map[*entry]*entry{}
	match := func(ok func(w, g *entry) bool) {
		for _, w := range want {
			if pair[w] != nil {
				continue
			}
			for _, g := range got {
				if !g.used && ok(w, g) {
					pair[w], g.used = g, true
					break
				}
			}
		}
	}
	same := func(w, g *entry) bool {
		wrong, _ := w.sameFiles(g)
		return w.public == g.public && w.sameBody(g) && len(wrong) == 0
	}
	// By everything and the header's number, by everything, by number, by body and visibility, by body or by files.
	match(func(w, g *entry) bool { return hasNumber(g.header, w.id) && same(w, g) })
	match(same)
	match(func(w, g *entry) bool { return hasNumber(g.header, w.id) })
	match(func(w, g *entry) bool { return w.bodies[0] != "" && w.public == g.public && w.sameBody(g) })
	match(func(w, g *entry) bool { return w.bodies[0] != "" && w.sameBody(g) })
	match(func(w, g *entry) bool {
		return len(w.files) > 0 && slices.ContainsFunc(g.files, func(x *dbLeaf) bool { return x.sha == w.files[0].sha && x.size > 0 })
	})
	last := map[int64]*entry{} // by the ticket that an entry was written to
	for _, w := range want {
		g := pair[w]
		if g == nil {
			if !w.loose {
				j.lost("source ticket %d: entry %d (%s) is not in target ticket %d", w.ticket, w.id, w.kind, j.home[j.src.tickets[w.ticket].effective])
			}
			continue
		}
		j.lag(w, g)
		where := fmt.Sprintf("source ticket %d entry %d, target ticket %d entry %d", w.ticket, w.id, g.ticket, g.id)
		if w.public != g.public {
			j.differ("%s: visibility (%s, source has %s)", where, g.kind, w.kind)
		}
		if !w.sameBody(g) {
			j.differ("%s: body", where)
		}
		wrong, n := w.sameFiles(g)
		if !w.loose {
			j.r.Files += n
		}
		for _, x := range wrong {
			j.differ("%s: %s", where, x)
		}
		if !sameSubject(w, g) && !slices.Contains(j.o.Ignore, "entry.subject") && (w.kind != "Create" || !slices.Contains(j.o.Ignore, "create.subject")) {
			j.differ("%s: subject %q, source has %q", where, clip(g.subject), clip(w.subject))
		}
		j.header(where, w, g)
		// Entries of one ticket come in its order. Of merged tickets only each one's own order is certain.
		if l := last[w.ticket]; l != nil && pair[l].id > g.id {
			j.differ("%s: stands before entry %d, in the source behind it", where, l.id)
		}
		last[w.ticket] = w
	}
	seen := map[string]bool{}
	for _, g := range got {
		if g.used {
			continue
		}
		twice := slices.ContainsFunc(want, func(w *entry) bool {
			p := pair[w]
			return p != nil && (g.header != "" && g.header == p.header || same(w, g) && w.bodies[0]+fmt.Sprint(w.files) != "[]")
		})
		switch {
		case twice, seen[strings.Join(g.bodies, "\x00")] && g.bodies[0] != "":
			j.doubled("target ticket %d: entry %d is there twice", g.ticket, g.id)
		case !g.public && len(g.files) == 0:
			j.r.Notes++ // the migration's own: status history, fields without a home
		default:
			j.differ("target ticket %d: entry %d (%s) is not in the source", g.ticket, g.id, g.kind)
		}
		seen[strings.Join(g.bodies, "\x00")] = true
	}
}

func b01(b bool) int {
	if b {
		return 1
	}
	return 0
}

// lag notes how long an entry took from one desk to the other.
func (j *judgement) lag(w, g *entry) {
	written, err := time.Parse(time.DateTime, w.created)
	arrived, err2 := time.Parse(time.DateTime, g.created)
	if j.o.LagSince.IsZero() || err != nil || err2 != nil || written.Before(j.o.LagSince) {
		return
	}
	j.r.Lags = append(j.r.Lags, arrived.Sub(written))
}

// hasNumber tells whether a header line names the number.
func hasNumber(header string, id int64) bool {
	return slices.Contains(number.FindAllString(header, -1), strconv.FormatInt(id, 10))
}

var number = regexp.MustCompile(`\d+`)

// sameSubject: RT cuts at 200 bytes and takes line breaks out; a subject that the target has no place for may be in the
// header line.
func sameSubject(w, g *entry) bool {
	flat := func(s string) string {
		if s = strings.Join(strings.Fields(s), " "); s == "No Subject" {
			s = ""
		}
		return s
	}
	want, got := flat(w.subject), flat(g.subject)
	return want == "" || want == got || len(got) >= 190 && strings.HasPrefix(want, got) || strings.Contains(flat(g.header), want)
}

// header: the time and the author that RT does not let the migration set must stand in the header line.
func (j *judgement) header(where string, w, g *entry) {
	if g.header == "" {
		j.differ("%s: no header line with author and time", where)
		return
	}
	u := j.src.users[w.user]
	low := strings.ToLower(g.header)
	has := func(s string) bool { return s != "" && strings.Contains(low, strings.ToLower(s)) }
	if !has(u.email) && !has(u.real) && !has(u.name) {
		j.differ("%s: the header line does not name the author %s", where, u.who())
	}
	if len(w.created) >= 10 && !has(w.created[:10]) {
		j.differ("%s: the header line does not tell the day %s", where, w.created[:10])
	}
}

// users: nobody is in the target twice, and whom the migration made has the source's name.
func (j *judgement) users() {
	count := func(s *state) map[string][]int64 {
		m := map[string][]int64{}
		for _, id := range sortedIDs(s.users) {
			if u := s.users[id]; u.email != "" {
				m[u.who()] = append(m[u.who()], id)
			}
		}
		return m
	}
	have := count(j.src)
	for who, ids := range count(j.dst) {
		from := have[who]
		if len(ids) > 1 && len(from) < 2 {
			j.doubled("target users %v are the same person", ids)
		}
		if u := j.dst.users[ids[0]]; len(ids) == 1 && len(from) == 1 && u.creator == MigrationUser && u.real != j.src.users[from[0]].real {
			j.differ("target user %d: another real name than source user %d", ids[0], from[0])
		}
	}
}

// links: between tickets that have moved, and to addresses.
func (j *judgement) links() {
	type key struct {
		base    int64
		kind    string
		target  int64
		address string
	}
	have := map[key]string{}
	for _, l := range j.dst.links {
		if l.kind != "MergedInto" && l.base != 0 && !j.undone(l.base) {
			have[key{j.effective(j.dst, l.base), l.kind, j.effective(j.dst, l.target), l.address}] = l.creator
		}
	}
	wanted := map[key]bool{}
	for _, l := range j.src.links {
		if l.kind == "MergedInto" || l.base == 0 {
			continue
		}
		base, target := j.effective(j.src, l.base), j.effective(j.src, l.target)
		if base == target && target != 0 || j.home[base] == 0 {
			continue
		}
		k := key{j.home[base], l.kind, 0, l.address}
		if target != 0 {
			if k.target = j.home[target]; k.target == 0 || k.target == k.base {
				continue // it points to what has not moved, or has been merged with it
			}
		}
		wanted[k] = true
		gone := j.src.tickets[base] == nil || j.src.tickets[base].fields["status"] == "deleted" ||
			target != 0 && (j.src.tickets[target] == nil || j.src.tickets[target].fields["status"] == "deleted")
		if _, ok := have[k]; !ok && !gone && !j.o.Unfinished {
			j.lost("source ticket %d: link %s to %d %s is not in the target", base, l.kind, target, l.address)
		}
	}
	stayed := map[int64]bool{} // of tickets deleted in the source, or merged into such
	for id, home := range j.home {
		if s := j.src.tickets[j.effective(j.src, id)]; s != nil && s.fields["status"] == "deleted" {
			stayed[home] = true
		}
	}
	for k, creator := range have {
		if creator == MigrationUser && !wanted[k] && !stayed[k.base] {
			j.differ("target ticket %d: link %s to %d %s is not in the source", k.base, k.kind, k.target, k.address)
		}
	}
}

func (j *judgement) effective(s *state, id int64) int64 {
	if t := s.tickets[id]; t != nil {
		return t.effective
	}
	return id
}

// people: what the people did in the target is there as they left it.
func (j *judgement) people() {
	for _, a := range j.o.Script.Actions() {
		if a.Side != TargetRole {
			continue
		}
		t := j.dst.tickets[a.Ticket]
		if t == nil {
			j.overwritten("target ticket %d, on which %s worked, is gone", a.Ticket, a.Who)
			continue
		}
		switch a.Do {
		case "reply", "comment":
			ok := slices.ContainsFunc(j.dst.entries[a.Ticket], func(e *dbEntry) bool {
				return (a.Txn == 0 || e.id == a.Txn) && e.creator == a.Who && e.public == (a.Do == "reply") &&
					slices.ContainsFunc(e.leaves, func(l *dbLeaf) bool { return canonical(l.text) == canonical(a.Body) })
			}) || a.Txn != 0 && slices.ContainsFunc(j.dst.entries[t.effective], func(e *dbEntry) bool { // it was merged under the writer's pen
				return e.id == a.Txn && e.creator == a.Who && slices.ContainsFunc(e.leaves, func(l *dbLeaf) bool { return canonical(l.text) == canonical(a.Body) })
			})
			if !ok {
				j.overwritten("target ticket %d: the %s of %s (transaction %d) is gone or changed", a.Ticket, a.Do, a.Who, a.Txn)
			}
		case "create":
			if !slices.ContainsFunc(j.dst.txns[a.Ticket], func(x *dbTxn) bool { return x.creator == MigrationUser }) {
				continue
			}
			if !j.swallowed(a.Ticket) {
				j.overwritten("target ticket %d is the target's own and was written to by the migration", a.Ticket)
				continue
			}
			// People merged a migrated ticket into it, so that one's later entries come here. Its fields stay people's.
			for _, f := range slices.Sorted(maps.Keys(t.fields)) {
				if f == "started" || f == "resolved" {
					continue // RT moves these with the status, and writes no transaction about it
				}
				_, touched := j.touched(a.Ticket, f)
				if v, known := j.valueAfter(a.Ticket, f, touched); known && v != canonical(t.fields[f]) {
					j.overwritten("target ticket %d is the target's own, and the migration made its %s %q of %q", a.Ticket, f, clip(t.fields[f]), clip(v))
				}
			}
		}
	}
}

// mails attributes each mail to who caused it. Mails that RT sends on its own account count for whoever worked on the ticket
// last; those that nobody can be named for count for the migration.
func (j *judgement) mails(lines []mailLine) {
	for _, m := range lines {
		by := m.By
		if by == "RT_System" || by == "" {
			by = MigrationUser
			ts := j.dst.txns[m.Ticket]
			if i := slices.IndexFunc(ts, func(t *dbTxn) bool { return t.id == m.Txn }); i >= 0 {
				by = j.dst.cause(m.Ticket, i)
			}
		}
		if by != MigrationUser {
			j.r.PeopleMails++
			continue
		}
		j.r.Mails++
		j.note("mail", "target ticket %d: transaction %d (%s) mailed", m.Ticket, m.Txn, m.Type)
	}
}

package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

// Retry is a message to be delivered again.
type Retry struct {
	Message Message
	Delay   time.Duration
	Why     string
}

// Work carries out a batch of messages and returns those that are to be delivered again; all others are done with. It
// stops taking up records when intake ends, and stops altogether when ctx does.
//
// The batch is read as a whole, then kept as one object of raw records, then written record by record. That makes the
// reading a little older than the writing, which is safe: a record claims its ledger row on the condition that nobody has
// carried it out since, and what changes in the source after the reading is listed by the next delta.
//
// The outcome is the last thing that is written of a record (model: PutOutcome), because nobody looks at the record again
// once it is there. Cut off before, the record is delivered again, and the ledger knows the outcome.
func (e *Engine) Work(ctx, intake context.Context, ms []Message) []Retry {
	defer e.clock("push")()
	var retry []Retry
	var jobs []*work
	known := batch{map[string]*Run{}, map[Key]*pageRow{}}
	back := func(m Message, v verdict, err error) {
		why := v.why
		if why == "" && err != nil {
			why = err.Error()
		}
		retry = append(retry, Retry{Message: m, Delay: v.delay, Why: why})
	}
	for _, m := range ms {
		if intake.Err() != nil {
			back(m, verdict{}, intake.Err())
			continue
		}
		if d := e.paused(); d > 0 {
			back(m, verdict{delay: d, why: "a desk asked for a pause, or lets us in no more"}, nil)
			continue
		}
		w, err := e.open(ctx, known, m)
		if err != nil {
			back(m, verdict{delay: 5 * time.Second}, err)
			continue
		}
		if w == nil {
			continue // the run is over, or the entry has its outcome
		}
		switch w.run.Kind {
		case Verify:
			w.err = e.verifyOne(ctx, w)
		case Census:
			w.err = e.censusOne(ctx, w)
		case Remap:
			w.err = e.remapOne(ctx, w)
		case Undo:
			w.err = e.undoOne(ctx, w)
		default:
			w.err = e.prepare(ctx, w)
		}
		e.heed(w.err)
		jobs = append(jobs, w)
	}
	if err := e.stageRaw(ctx, jobs); err != nil {
		for _, w := range jobs {
			if w.err == nil && !w.done {
				w.err = err
			}
		}
	}
	var outs []Row
	for _, w := range jobs {
		if w.err == nil && !w.done {
			if intake.Err() != nil {
				back(w.m, verdict{}, intake.Err())
				continue
			}
			if d := e.paused(); d > 0 {
				back(w.m, verdict{delay: d, why: "a desk asked for a pause, or lets us in no more"}, nil)
				continue
			}
			w.err = e.carryOut(ctx, intake, w)
			e.heed(w.err)
		}
		if w.err != nil && !w.done {
			v, err := e.settle(ctx, w)
			if err != nil {
				back(w.m, verdict{delay: 5 * time.Second}, err)
				continue
			}
			if !w.done {
				back(w.m, v, w.err)
				continue
			}
		}
		if err := e.conclude(ctx, w); err != nil {
			back(w.m, verdict{delay: time.Second}, err)
			w.done = false
			continue
		}
		body, err := json.Marshal(w.out)
		if err != nil {
			panic("delta: an outcome that cannot be written as JSON: " + err.Error())
		}
		if w.run.Status == Waiting {
			w.run.Status = Running
			if err := e.note(ctx, w.m.Run, Running, ""); err != nil { // it goes on
				back(w.m, verdict{delay: time.Second}, err)
				w.done = false
				continue
			}
		}
		outs = append(outs, Row{Key: e.outKey(w.m.Run, w.m.Page, w.m.Seq), Body: body})
		e.Log.Debug("pushed", "run", w.m.Run, "record", w.it.Ref.String(), "outcome", w.out.Outcome)
	}
	for part := range slices.Chunk(outs, 25) {
		if err := e.rows.PutMany(ctx, part); err != nil {
			// The records are carried out; delivered again they answer with the outcome that the ledger remembers.
			for _, w := range jobs {
				if w.done {
					back(w.m, verdict{delay: time.Second}, fmt.Errorf("write outcomes: %w", err))
				}
			}
			return retry
		}
	}
	return retry
}

// batch holds what is read once per batch: a batch is short, and every step looks again.
type batch struct {
	runs  map[string]*Run
	pages map[Key]*pageRow
}

// work is one plan entry on its way.
type work struct {
	m   Message
	run *Run
	it  planEntry
	// listed is when that was listed, by the clock of whoever did.
	listed time.Time
	// errand: not an entry of the plan, but a person or company that one needs.
	errand bool

	claimed   string // the claim that is ours
	before    *claim // the claim that was taken over
	recovered bool   // something of it had taken effect
	revised   bool   // entries were revised, so that the target's lock has moved
	takenOver bool   // somebody claimed before us and never said what came of it

	ours []desk.Field // what a writer of ours, cut off, made of them was there already

	ref    desk.Ref  // what it came to: the record that lives on, for one that was merged
	row    ledgerRow // of ref, as read
	rec    desk.Record
	want   desk.Record // mapped, with the target's ids
	digest string
	losses []desk.Loss
	waits  []desk.Ref // links to records that have not arrived

	known     map[string]entryRow // entries that are in the target
	lent      map[string]string   // those of them that are in the target of an alias, which is still to be merged there
	unsent    map[string]bool     // entries that may be in the target of an alias, where it cannot show that
	chunks    int                 // rows of the thread that are full
	fresh     []string            // entries added to known since the row was read
	puts      map[desk.Field]string
	forgotten bool            // it was in the target, and a ledger of an earlier day did not know
	lock      string          // of the target, as it was read before a write
	brings    []string        // entries that are about to be added, or may have been, where the target shows it
	open      []string        // entries of which it is open whether they are in the target
	adds      []string        // entries that are just being added, where the target cannot show it afterwards
	came      map[string]bool // entries that were in another ticket before

	heals    map[string]harm // entries that a verification found to differ
	again    map[string]bool // those of them that are lost, and added again
	compared *compared

	revising   map[string]bool     // entries about to be revised, and whether the customer is to see them
	words      []string            // those of them that get the source's words
	turns      []string            // those of them that get the source's visibility
	unanswered bool                // a revision was sent and not answered
	touched    []string            // entries written by this push
	unsettled  bool                // entries have left, and where to cannot be told yet
	parted     bool                // the source has taken it out of the ticket into which it was merged
	marks      []OnEvent           // what policies do to the ticket because of its entries
	kept       map[string]entryRow // what the ledger is to know of those entries when that is done
	tag        tagged              // why it is to carry the event tag
	deleting   bool                // the target is about to be deleted

	held        Held // as it will be
	heldBefore  Held
	heldVersion int64
	wrote       []string
	bytes       int64
	reason      string  // of an outcome that is not held
	later       Mode    // excluded by the run's mode: the mode that will take it up
	due         *dueRow // what a run that only looks has found

	done bool
	out  outcomeRow
	err  error
}

func (w *work) pos() int { return w.m.Page*maxPage + w.m.Seq }

func (w *work) finish(o Outcome, reason string) {
	w.done, w.err = true, nil
	w.out = outcomeRow{
		Ref: w.it.Ref, Target: w.row.Target, Outcome: o, Reason: reason, Losses: w.losses, Bytes: w.bytes, Kept: w.out.Kept, Chosen: w.it.Chosen, Left: w.out.Left,
		Compared: w.compared,
	}
}

// Errors by which a record is put back without being anybody's fault.
var (
	errBusy   = errors.New("another worker has it")
	errNotYet = errors.New("the source still shows an older version than it listed")
	errLater  = errors.New("out of time; what is finished is kept")
)

// busyError says since when there is a claim, and until when it must be respected at the longest.
type busyError struct{ since, until time.Time }

// delay is when to look again: soon, because a claim mostly ends within a second or two (two tickets of one new customer
// meet at the customer), and less often the older it is.
func (b busyError) delay(now time.Time) time.Duration {
	d := min(max(now.Sub(b.since)/2, 2*time.Second), 5*time.Minute)
	return max(min(d, b.until.Sub(now)), time.Second)
}

func (b busyError) Error() string        { return errBusy.Error() }
func (b busyError) Is(target error) bool { return target == errBusy }

// open finds out what a message is about; nil if there is nothing left to do (model: Deliver).
func (e *Engine) open(ctx context.Context, known batch, m Message) (*work, error) {
	run, ok := known.runs[m.Run]
	if !ok {
		r, err := e.run(ctx, m.Run)
		var no *Refusal
		if errors.As(err, &no) {
			return nil, nil // a run of another store, or erased
		}
		if err != nil {
			return nil, err
		}
		run = &r
		known.runs[m.Run] = run
	}
	if run.Status.Ended() || run.Stop != "" {
		return nil, nil
	}
	if run.Config != e.mig.Hash {
		return nil, refuse("run %s goes by another version of the migration file", run.ID)
	}
	if _, err := e.rows.Get(ctx, e.outKey(m.Run, m.Page, m.Seq)); !errors.Is(err, ErrNoRow) {
		return nil, err
	}
	page := e.pageKey(m.Run, m.Page)
	p, ok := known.pages[page]
	if !ok {
		p = &pageRow{}
		if _, err := e.get(ctx, page, p); err != nil {
			return nil, err
		}
		known.pages[page] = p
	}
	es, err := e.entries(ctx, p.Object)
	if err != nil {
		return nil, err
	}
	if len(es) != p.Planned {
		return nil, fmt.Errorf("plan page %s has %d entries, and its row says %d: one of them is damaged", p.Object, len(es), p.Planned)
	}
	if m.Seq < 0 || m.Seq >= len(es) {
		return nil, nil // not of this plan
	}
	sent := p.SentRest
	if m.Seq < p.Open {
		sent = p.SentOpen
	}
	if !sent.IsZero() && m.Sent < sent.UnixMilli() {
		return nil, nil // it was sent again since: one copy is enough
	}
	return &work{m: m, run: run, it: es[m.Seq], ref: es[m.Seq].Ref, listed: p.At}, nil
}

// prepare reads the record and decides whether anything is to be written. It changes nothing.
//
// The ledger row is read before the source (model: Read). So whoever carries the record out after this reading began moves the
// row under it, and the claim is refused: of two readings the older one never writes last. A reading that does not show yet
// what was listed is put back (model: NotYet).
func (e *Engine) prepare(ctx context.Context, w *work) error {
	if err := e.loadRow(ctx, w); err != nil {
		return err
	}
	if w.concluded() {
		return nil
	}
	if err := e.free(w.row); err != nil {
		return err
	}
	if w.it.Heal {
		if err := e.settled(w.row); err != nil { // what a desk does not show yet is not lost
			return err
		}
	}
	// Listed twice, and carried out with the other entry of this run (held or not); or listed again after it was read.
	seen := w.row.followed
	if inRun := w.row.Last != nil && w.row.Last.Run == w.run.ID; inRun {
		seen.Held = false
	} else if w.run.Kind != Delta || !w.run.Since.IsZero() {
		seen.Target = "" // a full run reads everything
	}
	if w.it.Due == "" && e.known(seen, w.it.Listed) {
		w.finish(OutUnchanged, "")
		return nil
	}
	rec, err := e.Source.Read(ctx, w.ref)
	shown := err == nil
	if errors.Is(err, desk.ErrNotFound) {
		if rec, err = e.notShown(ctx, w, err); w.done {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", w.ref, err)
	}
	w.rec = rec
	if w.older(rec) {
		return fmt.Errorf("read %s: %w", w.ref, errNotYet) // invariant 1: an older read is "not yet", never "unchanged"
	}
	if rec.Ref != w.ref {
		// Merged: what is left to carry out is the record that lives on.
		if err := e.follow(ctx, w, rec.Ref); err != nil || w.done {
			return err
		}
	}
	if shown && e.behind(w) {
		return fmt.Errorf("read %s: %w", w.ref, errNotYet) // another reading has shown more
	}
	if rec.Event == desk.Deleted || rec.Event == desk.Spam {
		if err := e.eventOf(ctx, w); err != nil {
			return err
		}
		switch {
		case w.row.Target == "" && w.row.Claim == nil && !e.forgotten(w), w.leftBefore(), w.ref.Kind != desk.Ticket:
			note := e.noteSeen
			if !shown && w.it.Event == desk.Deleted {
				note = e.noteDeleted
			}
			if err := note(ctx, w); err != nil {
				return err
			}
			w.finish(OutExcluded, string(rec.Event)+" in the source")
		case w.run.Mode == CreateOnly:
			w.finish(OutExcluded, leftByMode)
			w.later = UpdateOnly
		}
		return nil
	}
	var alias ledgerRow // of the one that was merged into it
	if w.ref != w.it.Ref {
		if _, err := e.get(ctx, e.ledgerKey(w.it.Ref), &alias); err != nil {
			return err
		}
	}
	// A write that is open is brought to its end, whatever became of the record meanwhile.
	if ok, why := w.run.Filter.Holds(rec); !ok && w.row.Claim == nil && w.ref != w.it.Ref && w.row.Target == "" && !w.run.Dry {
		if err := e.arrivedAs(ctx, w); err != nil {
			return err
		}
		return e.leave(ctx, w, why)
	} else if !ok && w.row.Claim == nil && alias.Claim == nil {
		if err := e.handOn(ctx, w); err != nil {
			return err
		}
		if w.ref == w.it.Ref && w.row.Target == "" && w.run.Kind == Delta && !w.run.Dry {
			if err := e.endWith(ctx, w); err != nil {
				return err
			}
		}
		if err := e.arrivedAs(ctx, w); err != nil {
			return err
		}
		w.finish(OutExcluded, why)
		return nil
	}
	res, err := e.mapped(ctx, rec)
	if err != nil {
		return err
	}
	if len(res.Problems) > 0 {
		return problem(w.ref, res)
	}
	if err := e.build(ctx, w, res); err != nil {
		return err
	}
	// Else the merge is still to be carried over.
	joined := w.ref == w.it.Ref || alias.Claim == nil && (alias.Into == w.ref.ID || slices.Contains(rec.Aliases, alias.Into))
	if joined && w.row.Target != "" && w.row.Claim == nil && !w.row.Held && w.row.Gone == "" && w.row.Into == "" && !w.row.Unfinished &&
		w.row.Digest == w.digest && w.it.Due != dueMoved && !w.it.Heal && len(w.waits) == 0 && !w.lacking() && !w.ofEarlierDay() {
		if err := e.noteSeen(ctx, w); err != nil { // it may say again what was carried out, and have said something else in between
			return err
		}
		w.finish(OutUnchanged, "")
		return nil
	}
	switch {
	case w.errand: // somebody in the plan needs it, whatever the mode
	case w.row.Claim != nil: // what was begun is brought to its end
	case w.row.Target != "" && !w.row.Unfinished && w.run.Mode == CreateOnly:
		w.finish(OutExcluded, leftByMode)
		w.later = UpdateOnly
	case w.row.Target == "" && w.row.How == "" && w.run.Mode == UpdateOnly:
		w.finish(OutExcluded, "the mode leaves new records out")
		w.later = CreateOnly
	}
	return nil
}

// leftBefore tells whether it has been carried over already that the record left the source. A ledger of an earlier day does not know
// whether it had come back in between.
func (w *work) leftBefore() bool {
	return w.row.Gone == w.rec.Event && w.row.Claim == nil && (!w.ofEarlierDay() || !w.row.Stamp.Before(w.rec.Stamp))
}

// problem is the error of a record for which the mapping says block.
func problem(ref desk.Ref, res mapping.Result) error {
	p := res.Problems[0]
	return &desk.Error{Op: "map " + ref.String(), Class: desk.ErrRejected, Said: fmt.Sprintf("%s: %s; cover it in the migration file", p.Field, p.Why)}
}

// follow turns the work towards the record that ref was merged into.
func (e *Engine) follow(ctx context.Context, w *work, into desk.Ref) error {
	w.ref = into
	if err := e.loadRow(ctx, w); err != nil || w.concluded() {
		return err
	}
	return e.free(w.row)
}

// concluded tells whether the entry was carried out already, and only the outcome did not get through: a doubled or late message answers
// the same.
func (w *work) concluded() bool {
	if l := w.row.Last; l != nil && l.Run == w.m.Run && l.Pos == w.pos() && !w.errand {
		w.done, w.out = true, l.Out
	}
	return w.done
}

func (e *Engine) loadRow(ctx context.Context, w *work) error {
	w.row = ledgerRow{}
	v, err := e.get(ctx, e.ledgerKey(w.ref), &w.row)
	w.row.version = v
	return err
}

// free tells whether a claim may be ignored or taken over: only when its holder can no longer be alive, and no request of
// its can still be at work on the target. A claim of another session of this process's own store is known to be dead, but
// a request it sent just before it died is not: that is waited out. By then it has taken effect (model: LandLate) or never
// will (model: NeverArrives), so that what is looked up afterwards stays as it was found.
func (e *Engine) free(row ledgerRow) error {
	c := row.Claim
	if c == nil {
		return nil
	}
	until := c.Until
	if e.Session != "" && c.Session != e.Session {
		dead := e.born
		if dead.Before(c.At) {
			dead = c.At
		}
		if u := dead.Add(e.TargetSide.Settle + e.shows()); u.Before(until) {
			until = u
		}
	}
	if c.Delete {
		until = until.Add(e.TargetSide.ListLag) // by then what was deleted is no longer shown, and what is shown was not
	}
	if e.Now().Before(until) {
		return busyError{since: c.At, until: until}
	}
	return nil
}

// build makes what the target is to hold out of the mapping's result: notes for what has no home, and the target's ids in
// everything that points somewhere.
func (e *Engine) build(ctx context.Context, w *work, res mapping.Result) error {
	w.want, w.losses = res.Record, slices.Clone(res.Losses)
	w.want.Fields = maps.Clone(w.want.Fields)
	w.want.Entries = slices.Clone(w.want.Entries)
	if err := e.resolve(ctx, w); err != nil {
		return err
	}
	// The digest is of what the source says. Notes that we add are left out: they tell of the day they were written.
	var files []string // a file that another one of the same name and size replaced
	for _, en := range w.want.Entries {
		files = append(files, filesDigest(en))
	}
	w.digest = digestJSON([]any{w.want.Digest(), res.Noted, files})
	if w.ref.Kind == desk.Ticket {
		err := e.loadEntries(ctx, w)
		if err != nil {
			return err
		}
		for i, n := range res.Noted {
			if n.Field.Points() == desk.Person {
				if res.Noted[i].Value, err = e.names(ctx, n.Value); err != nil {
					return fmt.Errorf("name whom field %s of %s points to: %w", n.Field, w.ref, err)
				}
			}
		}
		e.addNotes(w, res)
	}
	for i := range w.want.Entries {
		w.want.Entries[i].Marker = e.marker(w.want.Entries[i].ID)
	}
	return nil
}

// anew is build for a record that is to begin from nothing in the target: what is written once only is written again.
func (e *Engine) anew(ctx context.Context, w *work) error {
	res, err := e.mapped(ctx, w.rec)
	if err != nil {
		return err
	}
	w.waits = nil
	return e.build(ctx, w, res)
}

// marker is how one of our entries is known again in the target.
func (e *Engine) marker(entry string) string { return e.mig.ID + "/" + entry }

// entryOf is the way back.
func (e *Engine) entryOf(marker string) string { return strings.TrimPrefix(marker, e.mig.ID+"/") }

// addNotes puts what has no home in the target into internal notes: once when the ticket is created, and fields without a
// home again when they change.
func (e *Engine) addNotes(w *work, res mapping.Result) {
	note := func(id, body string) {
		w.want.Entries = append(w.want.Entries, desk.Entry{ID: id, At: w.rec.Stamp.At.UTC(), Body: body, Type: "text/plain"})
	}
	if len(res.Noted) > 0 {
		note("fields/"+w.ref.ID+"/"+digestJSON(res.Noted), mapping.NoteBody(res.Noted))
	}
	// The status history is written once, at creation: later changes are in the target's own history.
	if !e.TargetSide.KeepsHistory && (w.row.Target == "" || w.row.Unfinished) {
		if h, ok := mapping.HistoryNote(w.rec); ok {
			w.want.Entries = append(w.want.Entries, h)
			w.losses = append(w.losses, desk.Loss{Class: "status-history", What: w.ref.String(), Kept: "note"})
		}
	}
	if e.TargetSide.MaxFile > 0 {
		for i, en := range w.want.Entries {
			var keep []desk.File
			for _, f := range en.Files {
				if f.Size <= e.TargetSide.MaxFile {
					keep = append(keep, f)
					continue
				}
				w.losses = append(w.losses, desk.Loss{Class: "oversize-file", What: "entry " + en.ID + " file " + f.ID, Kept: "note"})
				note("oversize/"+en.ID+"/"+f.ID, fmt.Sprintf("A file of %d bytes is larger than this desk takes (%d) and stayed in the source: %s\n%s", f.Size, e.TargetSide.MaxFile, f.Name, w.rec.URL))
			}
			w.want.Entries[i].Files = keep
		}
	}
}

// addUnkept sees to what the target takes only when a record is made, and has not kept: whether it does so shows in nothing but a
// reading. Of a time of creation it is enough that an entry of the ticket has the same one; everything else goes into an internal note,
// as what the target has no field for. A ticket into which people have merged ours is another one, made at its own time.
func (e *Engine) addUnkept(w *work, now desk.Record, defs desk.Definitions) {
	if w.ref.Kind != desk.Ticket || w.row.How == mergedThere {
		return
	}
	var unkept []mapping.Noted
	for _, f := range slices.Sorted(maps.Keys(w.want.Fields)) {
		v := w.want.Fields[f]
		if def, ok := defs.Field(w.ref.Kind, f); !ok || def.Write != desk.OnCreate || len(v) == 0 || v.Digest() == now.Fields[f].Digest() {
			continue
		}
		l := desk.Loss{Class: lossUnkept, What: fmt.Sprintf("%s of %s", f, w.ref), Kept: "note"}
		if f == desk.Created && e.tellsTime(w, v) {
			l.Kept = "entry"
		} else {
			unkept = append(unkept, mapping.Noted{Field: f, Value: v})
		}
		w.losses = append(w.losses, l)
	}
	if len(unkept) == 0 {
		return
	}
	id := "fields/" + w.ref.ID + "/" + digestJSON(unkept)
	w.want.Entries = append(w.want.Entries, desk.Entry{
		ID: id, Marker: e.marker(id), At: w.rec.Stamp.At.UTC(), Body: mapping.NoteBody(unkept), Type: "text/plain",
	})
}

// lossUnkept is a value that the target takes when a record is made, and did not keep.
const lossUnkept = "unkept"

// tellsTime tells whether an entry of the ticket was written at a time, and the target shows when its entries were written.
func (e *Engine) tellsTime(w *work, at desk.Value) bool {
	if !e.TargetSide.KeepsTimes && e.TargetSide.EntryMarker == "" {
		return false
	}
	return slices.ContainsFunc(w.want.Entries, func(en desk.Entry) bool { return !isNote(en.ID) && desk.Time(en.At).Equal(at) })
}

// names turns people's ids into what a reader of a note can understand. Whom the source does not show keeps the id. Whom it cannot show
// just now is waited for: a note that says something else is another one, and would stand beside the first.
func (e *Engine) names(ctx context.Context, ids desk.Value) (desk.Value, error) {
	var out desk.Value
	for _, id := range ids {
		rec, err := e.Source.Read(ctx, desk.Ref{Kind: desk.Person, ID: id})
		name, mail := rec.Fields[desk.Name].First(), rec.Fields[desk.Email].First()
		switch {
		case err != nil && !errors.Is(err, desk.ErrNotFound) && !errors.Is(err, desk.ErrRejected):
			return nil, err
		case err != nil || name == "" && mail == "":
			out = append(out, id)
		case name == "" || mail == "":
			out = append(out, name+mail)
		default:
			out = append(out, name+" <"+mail+">")
		}
	}
	return out, nil
}

// settle decides what follows from w.err, and finishes w if that is an outcome (model: GiveUp). A record that failed becomes
// due before it gets that outcome (model: MakeDue): cut off in between, this run tries it again, and none forgets it.
func (e *Engine) settle(ctx context.Context, w *work) (verdict, error) {
	err := w.err
	var busy busyError
	switch {
	case errors.As(err, &busy):
		return verdict{delay: busy.delay(e.Now())}, nil
	case errors.Is(err, errLater):
		return verdict{}, nil
	}
	n := w.row.Attempts[w.run.ID].N + 1
	quiet := w.run.Dry || w.run.Kind.Looks() // nothing is written, so attempts are counted in this process only
	if quiet {
		n = e.try(w.m)
	}
	v := dispose(err, n)
	if v.act == decideAgain && !quiet && e.try(w.m) >= maxConflicts {
		v.act = fail
	}
	if errors.Is(err, errNotYet) {
		v = verdict{act: tryAgain, delay: max(time.Second<<n, e.SourceSide.ListLag)}
		if n >= maxAttempts {
			v.act = fail
			if errors.Is(err, desk.ErrNotFound) && e.silent(w) && !quiet {
				v = verdict{act: tryAgain, delay: max(time.Minute, e.SourceSide.ListLag+e.Skew)}
			}
		}
	}
	if v.act == fail && desk.Class(err) == desk.ErrTransient && !errors.Is(err, errNotYet) { //nolint:errorlint // Class answers with the bare sentinel
		// Before a record is given up: is it the record, or is the desk not there at all?
		if down := e.deskDown(ctx); down != nil {
			v = verdict{act: waitDesk, delay: time.Minute, why: down.Error()}
		}
	}
	switch {
	case quiet && v.act == fail:
		w.finish(OutFailed, err.Error())
		w.out.Next = "mend the cause and run it again; nothing was written and nothing made due"
		return v, nil
	case quiet && v.act == tryAgain:
		return v, nil
	}
	switch v.act {
	case tryAgain:
		row, err := update(ctx, e, e.ledgerKey(w.ref), func(r *ledgerRow) error {
			a, tried := r.Attempts[w.run.ID]
			if !tried {
				a.Since = e.Now().UTC()
			}
			a.N = n
			r.Attempts = r.without("") // a copy
			r.Attempts[w.run.ID] = a
			return nil
		})
		w.row = row
		return v, err
	case waitDesk:
		return v, e.note(ctx, w.run.ID, Waiting, v.why)
	case stopRun:
		return v, e.ask(ctx, w.run.ID, Stopped, v.why)
	case fail:
		reason := err.Error()
		w.finish(OutFailed, reason)
		if w.run.Kind == Undo {
			w.out.Next = "mend the cause, then: deltadesk undo " + w.run.Undoes
			return v, nil
		}
		w.out.Next = "mend the cause; the record stays due and is tried again by the next run"
		if err := e.makeDue(ctx, w.run.Scope, dueRow{Listed: w.it.Listed, Why: "failed", Run: w.run.ID}); err != nil {
			return v, err
		}
		_, err := update(ctx, e, e.ledgerKey(w.ref), func(r *ledgerRow) error {
			r.Attempts = r.without(w.run.ID)
			r.trace(Trace{At: e.Now().UTC(), Run: w.run.ID, Seen: w.it.Stamp.At, Outcome: OutFailed, Why: reason})
			return nil
		})
		return v, err
	}
	return v, nil
}

// try counts attempts in memory.
func (e *Engine) try(m Message) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.tries) > 50_000 {
		clear(e.tries)
	}
	m.Sent = 0 // however often it is sent
	e.tries[m]++
	return e.tries[m]
}

func (e *Engine) deskDown(ctx context.Context) error {
	for _, side := range []struct {
		name string
		desk any
	}{{"source", e.Source}, {"target", e.Target}} {
		if c, ok := side.desk.(desk.Checker); ok {
			if err := c.Check(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", side.name, err)
			}
		}
	}
	return nil
}

// note writes down that a run waits, or no longer does.
func (e *Engine) note(ctx context.Context, run string, s Status, why string) error {
	_, err := update(ctx, e, e.runKey(run), func(r *Run) error {
		if r.Status.Ended() || r.Stop != "" || r.Status == s && r.Why == why {
			return errKeep
		}
		r.Status, r.Why = s, why
		return nil
	})
	return err
}

// makeFoundDue makes due what a run that only looks has found, so that the next delta carries it out.
func (e *Engine) makeFoundDue(ctx context.Context, w *work) error {
	if w.due == nil {
		return nil
	}
	return e.makeDue(ctx, w.run.Scope, *w.due)
}

// conclude writes what follows from a finished record besides its own row: whoever waited for it becomes due, and the due
// row that brought it here goes, unless it was written anew (model: ForgetDue). It comes after the commit, because until then
// the due row is all that remembers the record; and before the outcome, because after it nobody comes back. It may be done
// twice. A record that is held was made due by its commit.
func (e *Engine) conclude(ctx context.Context, w *work) error {
	if w.run.Dry || w.run.Kind == Undo {
		return nil
	}
	if w.run.Kind.Looks() {
		return e.makeFoundDue(ctx, w)
	}
	if w.row.Awaited && w.row.Target != "" {
		if err := e.wake(ctx, w.run.ID, w.ref); err != nil {
			return err
		}
	}
	switch w.out.Outcome {
	case OutCreated, OutUpdated, OutUnchanged, OutExcluded:
		if w.later != "" {
			return e.putOff(ctx, w)
		}
		if w.it.Due != "" {
			if err := e.caughtUp(ctx, w); err != nil {
				return err
			}
			if err := e.rows.Delete(ctx, e.dueKey(w.run.Scope, w.it.Ref), w.it.DueVersion); err != nil && !errors.Is(err, ErrStale) {
				return err
			}
		}
	}
	return nil
}

// without returns the attempts of all runs but one. Those of runs of long ago go first.
func (r *ledgerRow) without(run string) map[string]attempts {
	out := map[string]attempts{}
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(r.Attempts))) { // runs' ids sort by time
		if id != run && len(out) < 8 {
			out[id] = r.Attempts[id]
		}
	}
	return out
}

func (r *ledgerRow) trace(t Trace) {
	r.Trail = append(r.Trail, t)
	if n := len(r.Trail); n > 5 {
		r.Trail = slices.Clone(r.Trail[n-5:])
	}
}

package delta

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

// Kind says what a run does.
type Kind string

// The kinds of run.
const (
	Full   Kind = "full"
	Delta  Kind = "delta"
	Sample Kind = "sample"
	Verify Kind = "verify"
	Census Kind = "census"
	Remap  Kind = "remap"
	Undo   Kind = "undo"
)

// Looks tells whether a run of this kind only looks: it reads and compares, and writes to neither desk. What it finds
// becomes due, where it is asked to see to it, and the next delta carries it out.
func (k Kind) Looks() bool { return k == Verify || k == Census || k == Remap }

// Undoable tells whether runs of this kind keep before-images, so that they can be undone. A full run does not: what it
// writes is mostly new, an image of each record would cost as much as the record, and it is undone by its own means, which
// is an empty target and a new ledger.
func (k Kind) Undoable() bool { return k == Sample || k == Delta }

// Status of a run.
type Status string

// The states a run can be in. The last four are ends.
const (
	Running    Status = "running"
	Waiting    Status = "waiting" // for a desk that cannot be reached or an account that is no longer let in
	Verified   Status = "verified"
	Exceptions Status = "exceptions"
	Stopped    Status = "stopped"
	Cancelled  Status = "cancelled"
)

// Ended tells whether nothing more will happen.
func (s Status) Ended() bool {
	return s == Verified || s == Exceptions || s == Stopped || s == Cancelled
}

// state is the one row per migration that holds what must change together: baselines, cutoffs and which lane is busy.
type state struct {
	// Source and Target name the desks this ledger belongs to.
	Source  string                 `json:"source,omitempty"`
	Target  string                 `json:"target,omitempty"`
	Scopes  map[string]scopeState  `json:"scopes,omitempty"`
	Windows map[string]windowState `json:"windows,omitempty"`
	// Adopted is when a run last adopted what was in the target already. A ledger that was new or restored then may still
	// lack what that run did not see (a ticket that was out of scope or deleted that day), so every create looks first from
	// then on, and a row that nobody has carried out since is not believed.
	Adopted time.Time `json:"adopted,omitzero"`
	// AdoptedBy is that run: what it has carried out, by whichever clock, is of no earlier day.
	AdoptedBy string `json:"adopted_by,omitempty"`
	// Lanes maps a lane ("window/main", "full/all") to its active run: invariant 7.
	Lanes map[string]lane `json:"lanes,omitempty"`
}

type lane struct {
	Run       string `json:"run"`
	Exclusive bool   `json:"exclusive,omitempty"`
	// Begin is the run as it began: whoever does not find its row writes it from here.
	Begin *Run `json:"begin,omitempty"`
}

type scopeState struct {
	Baseline *baseline `json:"baseline,omitempty"`
	// Full is a full run that has begun and not finished, or was stopped: what --continue goes on with.
	Full string `json:"full,omitempty"`
}

type baseline struct {
	Run   string      `json:"run"`
	Mark  desk.Cursor `json:"mark"`
	Ended time.Time   `json:"ended"`
	// Scope is the digest of the filters that the baseline read.
	Scope string `json:"scope"`
}

type windowState struct {
	Cutoff desk.Cursor `json:"cutoff,omitempty"`
	// Baseline is the run whose mark the chain began with.
	Baseline string    `json:"baseline,omitempty"`
	LastOK   time.Time `json:"last_ok,omitzero"`
	// Extended is a later deadline that an operator set.
	Extended time.Time `json:"extended,omitzero"`
}

// Run is one execution.
type Run struct {
	ID     string     `json:"id"`
	Kind   Kind       `json:"kind"`
	Lane   string     `json:"lane"`
	Window string     `json:"window,omitempty"`
	Scope  string     `json:"scope"`
	Filter desk.Scope `json:"filter"`
	Mode   Mode       `json:"mode"`
	Dry    bool       `json:"dry,omitempty"`
	// Adopt makes the run look at every record in the target, for a new or restored ledger; Adopted makes every create look
	// there first. AdoptedBy is the run of which that is the time.
	Adopt     bool      `json:"adopt,omitempty"`
	Adopted   time.Time `json:"adopted,omitzero"`
	AdoptedBy string    `json:"adopted_by,omitempty"`
	// Heal makes what a verification finds due.
	Heal bool `json:"heal,omitempty"`
	// Salt of the digests in a verification's certificate.
	Salt string `json:"salt,omitempty"`
	// Since is set when an operator re-reads a past range; such a run moves no cutoff.
	Since time.Time `json:"since,omitzero"`
	// N is how many tickets a sample is to have, Looked how many were read to choose them.
	N      int `json:"n,omitempty"`
	Looked int `json:"looked,omitempty"`
	// Images: the run keeps before-images of what it writes to.
	Images bool `json:"images,omitempty"`
	// Undoes is the run that this one undoes; UndoneBy the run by which this one was undone.
	Undoes   string      `json:"undoes,omitempty"`
	UndoneBy string      `json:"undone_by,omitempty"`
	Config   string      `json:"config"`
	From     desk.Cursor `json:"from,omitempty"`
	Until    desk.Cursor `json:"until"`
	Started  time.Time   `json:"started"`
	Ended    time.Time   `json:"ended,omitzero"`
	Status   Status      `json:"status"`
	Why      string      `json:"why,omitempty"`
	// Listed: every kind has been listed up to the mark.
	Listed bool `json:"listed,omitempty"`
	// Stop asks the next step to end the run with this status (cancel, mail noticed).
	Stop Status `json:"stop,omitempty"`
	// Forgiven is how many failures had happened when an operator continued a stopped run.
	Forgiven int `json:"forgiven,omitempty"`
	// Usage of the process that closed the run; others have usage rows.
	Usage *usageRow `json:"usage,omitempty"`

	version int64
}

// planEntry is one line of a plan page.
type planEntry struct {
	desk.Listed
	// Due is why the record is in the plan although the source did not list it; empty for listed ones.
	Due string `json:"due,omitempty"`
	// Late: everything else of the run has been carried out.
	Late bool `json:"late,omitempty"`
	// DueVersion is the version of the due row that this entry answers.
	DueVersion int64 `json:"due_version,omitempty"`
	// Unlisted: the ledger has the record, and the source's listing has not (a census).
	Unlisted bool `json:"unlisted,omitempty"`
	// Comes: a delta takes the record up in any case (a remap).
	Comes bool `json:"comes,omitempty"`
	// Heal as in dueRow.
	Heal bool `json:"heal,omitempty"`
	// Chosen names the features for which a sample has the ticket.
	Chosen []string `json:"chosen,omitempty"`
}

// why says why the record is in the plan, where that is more than that it was listed.
func (p planEntry) why() string {
	if len(p.Chosen) > 0 {
		return "chosen for the sample: " + strings.Join(p.Chosen, ", ")
	}
	return p.Due
}

// pageRow is one row per plan page.
type pageRow struct {
	No      int         `json:"no"`
	Kind    desk.Kind   `json:"kind"`
	Object  string      `json:"object,omitempty"` // empty when nothing was planned
	Listed  int         `json:"listed"`
	Dropped int         `json:"dropped"`
	Planned int         `json:"planned"`
	Open    int         `json:"open"` // the first Open entries are of open tickets
	Next    desk.Cursor `json:"next,omitempty"`
	// Done: the kind has been listed to the mark.
	Done bool `json:"done,omitempty"`
	// DuePage: the entries come from due rows; the kind's listing begins after it.
	DuePage bool `json:"due_page,omitempty"`
	// Left: a full run's, of what has left the source since the cutoff of before. See listLeft.
	Left bool `json:"left,omitempty"`
	// Last: nothing is planned after this page, which is empty. See endPlan.
	Last bool `json:"last,omitempty"`
	// At is when it was listed, by the clock of whoever did.
	At time.Time `json:"at,omitzero"`
	// SentOpen and SentRest are when messages for the open and for the other entries were last sent.
	SentOpen time.Time `json:"sent_open,omitzero"`
	SentRest time.Time `json:"sent_rest,omitzero"`
	Session  string    `json:"session,omitempty"`
	// Survey says what a page of a census or remap is for.
	Survey *surveyRow `json:"survey,omitempty"`
	// Sums are set when every entry has its outcome.
	Sums *report.Counts `json:"sums,omitempty"`

	version int64
}

// surveyRow is what a page of a census or remap has besides: the stage it belongs to, and where that goes on. See survey.go.
type surveyRow struct {
	Stage stage `json:"stage"`
	// IDs names the object with what the page has listed.
	IDs string `json:"ids,omitempty"`
	// Left is how many of its lines stage plan has yet to plan; they are counted there.
	Left int `json:"left,omitempty"`
	// Until is the mark up to which the feed is listed.
	Until desk.Cursor `json:"until,omitempty"`
	// Of is the page of stage list that a page of stage plan plans.
	Of int `json:"of,omitempty"`
	// Place is where the scan of the ledger goes on.
	Place string    `json:"place,omitempty"`
	At    time.Time `json:"at"`
}

// Outcome says what became of one plan entry.
type Outcome string

// The outcomes.
const (
	OutCreated   Outcome = "created"
	OutUpdated   Outcome = "updated"
	OutUnchanged Outcome = "unchanged"
	OutExcluded  Outcome = "excluded"
	OutHeld      Outcome = "held"
	OutFailed    Outcome = "failed"
)

// outcomeRow is one row per plan entry of a run. It holds ids, names of fields and sentences; never content.
type outcomeRow struct {
	Ref     desk.Ref    `json:"ref"`
	Target  string      `json:"target,omitempty"`
	Outcome Outcome     `json:"outcome"`
	Reason  string      `json:"reason,omitempty"`
	Next    string      `json:"next,omitempty"`
	Kept    []string    `json:"kept,omitempty"`
	Losses  []desk.Loss `json:"losses,omitempty"`
	Bytes   int64       `json:"bytes,omitempty"`
	// Absent: a census found the record neither listed nor readable.
	Absent bool `json:"absent,omitempty"`
	// Chosen names the features for which a sample has the ticket.
	Chosen []string `json:"chosen,omitempty"`
	// Left says what an undo could not take back, and why.
	Left []string `json:"left,omitempty"`
	// Compared is set by a verification that had both records before it.
	Compared *compared `json:"compared,omitempty"`
}

// ledgerRow is one row per record of the source: the memory of the migration.
type ledgerRow struct {
	followed
	// How the link came about: "created", "found", "matched", "fallback", "decided", mergedThere.
	How string `json:"how,omitempty"`
	// Unfinished: the record was made and has not got everything yet.
	Unfinished bool `json:"unfinished,omitempty"`
	// Joining is the record that is about to take this one in: whoever read this one before the merge finds its row moved.
	Joining string `json:"joining,omitempty"`
	// Apart tells that the target did not follow a merge: its own ticket there, if it has one, keeps its thread.
	Apart bool `json:"apart,omitempty"`
	// Was are the records that this one was merged into until the source took it out again: a search for this one in the
	// target may still answer with their tickets.
	Was []string `json:"was_in,omitempty"`
	// Digest of the mapped and resolved record as last carried out.
	Digest string `json:"digest,omitempty"`
	// Fields is the merge base: what the source said and what the target looked like after our last write.
	Fields map[desk.Field]base `json:"fields,omitempty"`
	// Lock is the target's when it was last read back, if the thread was then as we know it: while the target shows the same,
	// nobody has worked on it since. See untraced.
	Lock string `json:"lock,omitempty"`
	// Worked: somebody else may have worked on the target record at some time. Files are not read at every write, so their
	// bytes may be people's work, however long ago.
	Worked bool `json:"worked,omitempty"`
	// Entries of short threads; longer ones spill into rows of their own, see entries.go.
	Entries map[string]entryRow `json:"entries,omitempty"`
	// Wrote is the run that wrote to the target's record last.
	Wrote string `json:"wrote,omitempty"`
	// Rest is a digest of the fields that are not in Fields, as they were when a run that can be undone had made the record.
	Rest string `json:"rest,omitempty"`
	// Look: an undo removed the record; whoever creates it again looks first, because people may have brought it back.
	Look bool `json:"look,omitempty"`
	// Open are entries that a writer who was cut off may have added before the record left the source, or they left the record, in
	// a target that cannot show which entries are ours.
	Open []string `json:"open,omitempty"`
	// Tag tells that the event tag is ours, and why it is there.
	Tag tagged `json:"tag,omitempty"`
	// Deleted is the digest of what the source said when a person decided that the record stays deleted in the target.
	Deleted string `json:"deleted,omitempty"`
	// Attempts that came to nothing, by run: runs of two windows may try the same record at the same time.
	Attempts map[string]attempts `json:"attempts,omitempty"`
	// Last is the plan entry that was carried out last, with its outcome, so that a doubled message answers the same.
	Last *last `json:"last,omitempty"`
	// Trail holds the last few things that happened, for explain.
	Trail []Trace `json:"trail,omitempty"`

	version int64
}

// followed is what tells whether a listed record has to be read again. A listing of many asks the ledger for no more of each.
type followed struct {
	// Target is the record's id in the target, "" as long as there is none.
	Target string `json:"target,omitempty"`
	// Into is the record that this one was merged into, in the source.
	Into string `json:"into,omitempty"`
	// Claim is set while somebody may be writing; what it means is in push.go.
	Claim *claim `json:"claim,omitempty"`
	// Began is when the last reading that was carried out began, on the source's clock.
	Began time.Time `json:"began,omitzero"`
	// Stamp is the newest that a reading had which was carried out, or was about to be.
	Stamp desk.Stamp `json:"stamp,omitzero"`
	// Rules is the digest of the mapping that the record went through when it was last carried out.
	Rules string `json:"rules,omitempty"`
	// Held: there is a held row.
	Held bool `json:"held,omitempty"`
	// Outside tells, by the digest of a scope, when a reading began that found the record outside of it: so that a census
	// reads it again only when it has changed.
	Outside map[string]time.Time `json:"outside,omitempty"`
	// Gone is the event by which the record left the source.
	Gone desk.Event `json:"gone,omitempty"`
	// Awaited: another record's link waits for this one to arrive, or has not been told yet that it did.
	Awaited bool `json:"awaited,omitempty"`
}

// mergedThere is How where the target's people merged the record's ticket into another one: the thread goes on there, and the
// fields are theirs.
const mergedThere = "merged in the target"

// base of one field: digests of the mapped source value and of the target's value after our last write. Tgt is left out
// where it equals Src.
type base struct {
	Src string `json:"s"`
	Tgt string `json:"t,omitempty"`
	// Same tells that Tgt was left out.
	Same bool `json:"e,omitempty"`
	// Kept: a decision or policy left the target its value.
	Kept bool `json:"k,omitempty"`
	// Ask: a cut-off left it unclear whose the target's value is, so a person is asked whatever the policy.
	Ask bool `json:"q,omitempty"`
	// Left is the digest of a value of the target's people that was written again as it was: the desk names us as the one
	// who wrote it last, and it is theirs.
	Left string `json:"l,omitempty"`
	// Theirs, of what is intended: the target's people had had the last word before. It was Was.
	Theirs bool   `json:"p,omitempty"`
	Was    string `json:"w,omitempty"`
	// Event: the target's value is what a policy set when the record left the source; Src is what the source said before.
	Event bool `json:"g,omitempty"`
	// Moved: the target said something else than Tgt when it was last read back, and that was left to its people.
	Moved bool `json:"m,omitempty"`
}

// tagged says why a ticket of the target carries the event tag.
type tagged string

// A ticket that left the source loses its tag when it comes back; one of which an entry was changed keeps it.
const (
	tagTicket tagged = "ticket"
	tagEntry  tagged = "entry"
)

func newBase(src, tgt string) base {
	if src == tgt {
		return base{Src: src, Same: true}
	}
	return base{Src: src, Tgt: tgt}
}

// leaving notes that t was written again as it was. Where nothing was ever agreed on, it stays like that.
func (b base) leaving(t string, based bool) base {
	if !based {
		b = base{Src: "cut off", Tgt: "cut off"}
	}
	b.Left = t
	return b
}

// leftTo tells whether what the target says is not what we left there, but its people's. A desk that names us as the one who had the
// last word has lost something, and that is nobody's work.
func (b base) leftTo(after desk.Record, f desk.Field) bool {
	t := after.Fields[f].Digest()
	return t != b.tgt() && (after.Touched == nil || after.Touched[f] || b.Moved || t == b.Left)
}

func (b base) tgt() string {
	if b.Same {
		return b.Src
	}
	return b.Tgt
}

type claim struct {
	By      string    `json:"by"`
	Session string    `json:"session,omitempty"`
	At      time.Time `json:"at"`
	// Until is when its holder can no longer be alive, and no request of its on the way.
	Until time.Time `json:"until"`
	// Create: the intent is to create.
	Create bool `json:"create,omitempty"`
	// Answered is when the decision to create was made that this claim carries out: it is good for one create. A question that
	// is put again begins anew.
	Answered time.Time `json:"answered,omitzero"`
	// Intent is what the fields to be written will say: the base they will have.
	Intent map[desk.Field]base `json:"intent,omitempty"`
	// Adds are the entries to be added, in a target that cannot show which entries are ours: those of a claim that is found
	// later are in doubt, and no others.
	Adds []string `json:"adds,omitempty"`
	// Brings are the entries to be added, in a target that shows which entries are ours: should the record leave the source before
	// anybody has looked, they are told from those of other tickets.
	Brings []string `json:"brings,omitempty"`
	// Lock is the target's before the write, where it has one: while it shows the same, nothing has happened there.
	Lock string `json:"lock,omitempty"`
	// Puts are digests of what fields say already and are to go on saying: they are written again, because the desk moves
	// them when an entry arrives. What they say stays the work of whoever said it.
	Puts map[desk.Field]string `json:"puts,omitempty"`
	// Revised are the entries to be changed, and whether the customer is to see them.
	Revised map[string]bool `json:"revised,omitempty"`
	// Words are those of them that are to get the source's words, Turns those that are to get its visibility.
	Words []string `json:"words,omitempty"`
	Turns []string `json:"turns,omitempty"`
	// Delete: the intent is to delete.
	Delete bool `json:"delete,omitempty"`
	// Undo is the run that is being undone, where that is the intent.
	Undo string `json:"undo,omitempty"`
}

type attempts struct {
	N int `json:"n"`
	// Since is when the first one was.
	Since time.Time `json:"since"`
}

type last struct {
	Run string     `json:"run"`
	Pos int        `json:"pos"` // page*1e6 + seq
	Out outcomeRow `json:"out"`
}

// entryRow is what the ledger knows of one entry that was copied: the base of its three-way comparison.
type entryRow struct {
	// Target is its id in the target, "" where the target does not tell.
	Target string `json:"t,omitempty"`
	// Digest is of the words and files that the source said last, or taken; Files is of which files they are.
	Digest string `json:"d"`
	Files  string `json:"f,omitempty"`
	// Shown is the digest of what the target showed then, where it shows them its own way or was left as it was.
	Shown string `json:"s,omitempty"`
	// Unseen: nobody has looked yet how the target shows what was written last.
	Unseen bool `json:"u,omitempty"`
	// Private: the source did not show it to the customer.
	Private bool `json:"p,omitempty"`
	// Own: the target's people made it private themselves.
	Own bool `json:"o,omitempty"`
	// Left and Turned tell that words or visibility are known to be others in the target than in the source: its people's, or
	// a policy's or a decision's doing.
	Left   bool `json:"l,omitempty"`
	Turned bool `json:"v,omitempty"`
	// Ask: a ledger of an earlier day could not tell who had the last word in the target; a person is asked.
	Ask bool `json:"q,omitempty"`
	// Came: it was in another ticket before, and its moved row tells where copies of it may be.
	Came bool `json:"c,omitempty"`
	// Again: it was lost in the target and added again, so it does not stand in its place of the thread.
	Again bool `json:"a,omitempty"`
}

// taken is the Digest of an entry that is no longer in its ticket in the source.
const taken = "taken"

// readable tells whether the copy still says what the entry did.
func (k entryRow) readable() bool { return k.Digest != taken || k.Left }

// movedRow says where an entry is that has been in more than one ticket. There is none for all the others.
type movedRow struct {
	// In is the ticket of the source that has it now, as far as its worker has said so.
	In string `json:"in,omitempty"`
	// Kept are the tickets of the source whose tickets in the target may still show it; their ledger rows tell.
	Kept []string `json:"kept,omitempty"`
}

// Trace is one thing that happened to a record.
type Trace struct {
	At      time.Time `json:"at"`
	Run     string    `json:"run"`
	Seen    time.Time `json:"seen,omitzero"` // the listed stamp
	Outcome Outcome   `json:"outcome"`
	Why     string    `json:"why,omitempty"`
	Wrote   []string  `json:"wrote,omitempty"`
	Check   string    `json:"check,omitempty"` // how the read-back compared
	Blind   bool      `json:"blind,omitempty"` // nobody has looked what the target's record says
}

// dueRow makes a later run take a record up although the source does not list it again.
type dueRow struct {
	Listed desk.Listed `json:"listed"`
	Why    string      `json:"why"` // held, failed, mode, link, moved, scope, decision, undone, missed, mapping, verify
	Run    string      `json:"run"`
	Mode   Mode        `json:"mode,omitempty"` // for why=mode: the mode that would cover it
	// Heal: a verification found a difference. Whatever else makes the record due meanwhile, it stays until the record was
	// carried out with nothing left over. See heal.go.
	Heal bool `json:"heal,omitempty"`
}

// fails tells whether the last run failed at it.
func (d dueRow) fails() bool { return d.Why == "failed" }

// waitRow says that Ref has a link to the record of its partition.
type waitRow struct {
	Ref   desk.Ref `json:"ref"`
	Scope string   `json:"scope"`
}

// usageRow is what one process used for a run.
type usageRow struct {
	Requests   map[string]map[string]int `json:"requests,omitempty"`
	StoreCalls map[string]int            `json:"store_calls,omitempty"`
	Seconds    map[string]float64        `json:"seconds,omitempty"`
}

func (u *usageRow) add(v usageRow) {
	if u.Requests == nil {
		u.Requests = map[string]map[string]int{}
	}
	for side, m := range v.Requests {
		if u.Requests[side] == nil {
			u.Requests[side] = map[string]int{}
		}
		for k, n := range m {
			u.Requests[side][k] += n
		}
	}
	if u.StoreCalls == nil {
		u.StoreCalls = map[string]int{}
	}
	for k, n := range v.StoreCalls {
		u.StoreCalls[k] += n
	}
	if u.Seconds == nil {
		u.Seconds = map[string]float64{}
	}
	for k, n := range v.Seconds {
		u.Seconds[k] += n
	}
}

// Keys. Partitions are many and small, so that they spread: a ledger partition per record, an outcome partition per page.
func (e *Engine) stateKey() Key { return Key{"mig/" + e.mig.ID, "state"} }

func (e *Engine) runsPart() string     { return "runs/" + e.mig.ID }
func (e *Engine) runKey(id string) Key { return Key{e.runsPart(), id} }

func (e *Engine) pagePart(run string) string { return "pages/" + e.mig.ID + "/" + run }

func (e *Engine) pageKey(run string, no int) Key {
	return Key{e.pagePart(run), fmt.Sprintf("%06d", no)}
}

func (e *Engine) outPart(run string, page int) string {
	return fmt.Sprintf("out/%s/%s/%06d", e.mig.ID, run, page)
}

func (e *Engine) outKey(run string, page, seq int) Key {
	return Key{e.outPart(run, page), fmt.Sprintf("%06d", seq)}
}

func (e *Engine) ledgerPart(r desk.Ref) string {
	return "led/" + e.mig.ID + "/" + string(r.Kind) + "/" + keyID(r.ID)
}

func (e *Engine) ledgerKey(r desk.Ref) Key { return Key{e.ledgerPart(r), "row"} }

func (e *Engine) duePart(scope string) string { return "due/" + e.mig.ID + "/" + scope }

func (e *Engine) dueKey(scope string, r desk.Ref) Key {
	return Key{e.duePart(scope), string(r.Kind) + "/" + keyID(r.ID)}
}

func (e *Engine) waitPart(r desk.Ref) string {
	return "wait/" + e.mig.ID + "/" + string(r.Kind) + "/" + keyID(r.ID)
}

func (e *Engine) movedKey(entry string) Key {
	return Key{"moved/" + e.mig.ID + "/" + keyID(entry), "row"}
}

func (e *Engine) heldPart() string { return "held/" + e.mig.ID }

func (e *Engine) heldKey(r desk.Ref) Key {
	return Key{e.heldPart(), string(r.Kind) + "/" + keyID(r.ID)}
}

func (e *Engine) imagePart(run string) string { return "undo/" + e.mig.ID + "/" + run }

func (e *Engine) imageKey(run string, r desk.Ref) Key {
	return Key{e.imagePart(run), string(r.Kind) + "/" + keyID(r.ID)}
}

func (e *Engine) lotPart(run string) string { return "lot/" + e.mig.ID + "/" + run }

func (e *Engine) usagePart(run string) string { return "usage/" + e.mig.ID + "/" + run }

// keyID writes an id of a desk in printable ASCII without slashes, so that it can stand in a key.
func keyID(id string) string {
	var b strings.Builder
	for i := 0; i < len(id); i++ {
		c := id[i]
		if c > ' ' && c < 0x7f && c != '/' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// ledgerID is the id of the record whose ledger partition this is.
func (e *Engine) ledgerID(part string, k desk.Kind) (string, error) {
	return url.PathUnescape(strings.TrimPrefix(part, e.ledgerPart(desk.Ref{Kind: k})))
}

// get reads a row into v and returns its version; ErrNoRow leaves v alone and returns version 0 without an error.
func (e *Engine) get(ctx context.Context, k Key, v any) (int64, error) {
	row, err := e.rows.Get(ctx, k)
	if errors.Is(err, ErrNoRow) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read row %s %s: %w", k.Part, k.Sort, err)
	}
	if err := json.Unmarshal(row.Body, v); err != nil {
		return 0, fmt.Errorf("row %s %s is damaged: %w", k.Part, k.Sort, err)
	}
	return row.Version, nil
}

// getMany reads the rows of any number of items, those that exist.
func getMany[T, I any](ctx context.Context, e *Engine, items []I, key func(I) Key) (map[Key]T, error) {
	out := map[Key]T{}
	for part := range slices.Chunk(items, 100) {
		var keys []Key
		for _, it := range part {
			if k := key(it); !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
		rows, err := e.rows.GetMany(ctx, keys)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if out[r.Key], err = decode[T](r); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// put writes v if the row still has the version given.
func (e *Engine) put(ctx context.Context, k Key, version int64, v any) (int64, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("row %s %s: %w", k.Part, k.Sort, err)
	}
	n, err := e.rows.Put(ctx, Row{Key: k, Version: version, Body: body})
	if err != nil {
		return 0, fmt.Errorf("write row %s %s: %w", k.Part, k.Sort, err)
	}
	return n, nil
}

// update reads a row, lets change work on it and writes it back, again and again until nobody came between. If change
// returns errKeep nothing is written.
func update[T any](ctx context.Context, e *Engine, k Key, change func(*T) error) (T, error) {
	for {
		var v T
		version, err := e.get(ctx, k, &v)
		if err != nil {
			return v, err
		}
		if err := change(&v); errors.Is(err, errKeep) {
			return v, nil
		} else if err != nil {
			return v, err
		}
		_, err = e.put(ctx, k, version, v)
		if errors.Is(err, ErrStale) && ctx.Err() == nil {
			continue
		}
		return v, err
	}
}

var errKeep = errors.New("leave the row as it is")

// each calls f with every row of a partition whose sort key begins with prefix, in order.
func (e *Engine) each(ctx context.Context, part, prefix string, f func(Row) error) error {
	after := ""
	for {
		rows, more, err := e.rows.Range(ctx, part, prefix, after, 500)
		if err != nil {
			return fmt.Errorf("read rows of %s: %w", part, err)
		}
		for _, r := range rows {
			if err := f(r); err != nil {
				return err
			}
			after = r.Sort
		}
		if !more {
			return nil
		}
	}
}

func decode[T any](r Row) (T, error) {
	var v T
	if err := json.Unmarshal(r.Body, &v); err != nil {
		return v, fmt.Errorf("row %s %s is damaged: %w", r.Part, r.Sort, err)
	}
	return v, nil
}

// keepObject keeps v under a key that names its content: one that is there already is the same.
func (e *Engine) keepObject(ctx context.Context, key string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("object %s: %w", key, err)
	}
	if _, err := e.Objects.Put(ctx, key, bytes.NewReader(body)); err != nil && !errors.Is(err, ErrExists) {
		return err
	}
	return nil
}

// readObject reads what keepObject has kept; an error that is ErrNoObject where it is no longer there.
func readObject[T any](ctx context.Context, e *Engine, key string) (v T, err error) {
	r, _, err := e.Objects.Open(ctx, key)
	if err != nil {
		return v, fmt.Errorf("read object %s: %w", key, err)
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		return v, fmt.Errorf("read object %s: %w", key, err)
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("object %s is damaged: %w", key, err)
	}
	return v, nil
}

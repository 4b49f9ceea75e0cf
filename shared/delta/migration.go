package delta

import (
	"maps"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

// Migration is the checked content of one migration file, as far as it decides what the engine does.
type Migration struct {
	ID string // lower-case letters, digits and hyphens, at most 40
	// Hash of the file (hex SHA-256), pinned by every run.
	Hash    string
	Scopes  map[string]desk.Scope
	Windows map[string]Window
	Rules   mapping.Rules
	Policies
}

// Window is a named recurring delta, or census, over one scope.
type Window struct {
	Scope string
	// Kind is Delta (or empty) or Census.
	Kind Kind
	// Mode of a delta; a census has none.
	Mode Mode
}

// Mode says which of the planned changes a run carries out. What it leaves out is excluded and stays due for a mode that
// covers it.
type Mode string

// The modes.
const (
	CreateOnly   Mode = "create"
	UpdateOnly   Mode = "update"
	CreateUpdate Mode = "create+update"
)

// Conflict says what happens to a field that both sides changed, differently.
type Conflict string

// The conflict policies.
const (
	Hold       Conflict = "hold"
	SourceWins Conflict = "source-wins"
	TargetWins Conflict = "target-wins"
)

// OnEvent says what an event in the source does to the target: a ticket was deleted, merged or found to be spam; an entry was
// changed, hidden or moved after it was copied.
type OnEvent string

// The event policies. Mirror does the same in the target (delete, merge, revise); without it nothing is ever deleted there.
// Where a target cannot, the ticket is held, and says what somebody must do by hand. Of an entry, the other three leave the
// copy as it is, which the report says.
const (
	Ignore OnEvent = "ignore"
	Tag    OnEvent = "tag"
	Close  OnEvent = "close"
	Mirror OnEvent = "mirror"
)

// OnGone says what happens when a migrated ticket is no longer in the target.
type OnGone string

// The policies for tickets that the target's people deleted.
const (
	HoldGone     OnGone = "hold"
	RecreateGone OnGone = "recreate"
	IgnoreGone   OnGone = "ignore"
)

// Policies of a migration. The zero value is not valid; DefaultPolicies is.
type Policies struct {
	Conflict      Conflict
	ConflictField map[desk.Field]Conflict
	OnDeleted     OnEvent
	OnMerged      OnEvent
	OnSpam        OnEvent
	// OnRevised is about an entry that was changed, redacted or removed after it was copied (no desk tells an edit from a
	// redaction), OnPrivacy about one that was hidden from the customer or shown, OnSplit about one that went to another ticket.
	OnRevised    OnEvent
	OnPrivacy    OnEvent
	OnSplit      OnEvent
	OnTargetGone OnGone
	// EventTag is the tag of policy Tag; ClosedStatus the target's status of policy Close.
	EventTag, ClosedStatus string
	// Deadline is how long after the baseline's end, or after a chain's last success, a delta may begin.
	Deadline time.Duration
	// A run stops when more than ThresholdShare of its planned records have failed, and at least ThresholdCount.
	ThresholdShare float64
	ThresholdCount int
}

// conflict returns the policy for one field. Started and resolved are stamps that desks set by themselves when the status
// moves: unless the file says otherwise nobody is asked about them, and the target keeps its own.
func (p Policies) conflict(f desk.Field) Conflict {
	if own, ok := p.ConflictField[f]; ok {
		return own
	}
	if f == desk.Started || f == desk.Resolved {
		return TargetWins
	}
	return p.Conflict
}

// eventPolicy is one of the event policies, under its name in the migration file.
type eventPolicy struct {
	name    string
	policy  OnEvent
	deletes bool // as far as mirror goes
}

func (p Policies) events() []eventPolicy {
	return []eventPolicy{
		{"deleted", p.OnDeleted, true},
		{"spam", p.OnSpam, true},
		{"merged", p.OnMerged, false},
		{"revised", p.OnRevised, false},
		{"privacy", p.OnPrivacy, false},
		{"split", p.OnSplit, false},
	}
}

// onEvent returns the policy for a ticket that left the source.
func (p Policies) onEvent(event desk.Event) OnEvent {
	if event == desk.Spam {
		return p.OnSpam
	}
	return p.OnDeleted
}

// DefaultPolicies are what a file that says nothing gets.
func DefaultPolicies() Policies {
	return Policies{
		Conflict: Hold, OnDeleted: Ignore, OnMerged: Mirror, OnSpam: Ignore,
		OnRevised: Mirror, OnPrivacy: Mirror, OnSplit: Mirror, OnTargetGone: HoldGone,
		EventTag: "deleted-in-source", ClosedStatus: "resolved",
		Deadline: 10 * 24 * time.Hour, ThresholdShare: 0.005, ThresholdCount: 25,
	}
}

// hasDeltas tells whether a window brings over what is due in a scope, in this mode where one is named.
func (m Migration) hasDeltas(scope string, mode Mode) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(m.Windows)), func(w Window) bool {
		return w.Scope == scope && w.Kind != Census && (mode == "" || cmpOr(w.Mode, CreateUpdate) == CreateUpdate || w.Mode == mode)
	})
}

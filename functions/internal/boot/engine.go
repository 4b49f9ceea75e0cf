package boot

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/deltadesk/deltadesk/connectors/all"
	"github.com/deltadesk/deltadesk/connectors/archive"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

// Ports is the store that an engine runs on.
type Ports struct {
	Rows    delta.Rows
	Objects delta.Objects
	Queue   delta.Queue
	// Session as in delta.Config.
	Session string
	// Calls counts calls of the store by operation. May be nil.
	Calls func() map[string]int
	// ReadOnly: the engine will only be asked what it knows, so nothing of the target is made or written.
	ReadOnly bool
	Log      *slog.Logger
}

// Backed returns the migration file with the archive of its backup section as target: a migration of its own, with a ledger
// of its own, that keeps everything as it is.
func (f *File) Backed() (*File, error) {
	if f.Backup.Folder == "" {
		return nil, errors.New("the migration file has no backup section; add: backup: {folder: ./backup}")
	}
	b := *f
	b.Target = Desk{Connector: archive.Connector, Config: desk.Config{"folder": f.Backup.Folder}}
	b.Migration.ID += "-backup"
	b.Migration.Rules.Fields, b.Migration.Rules.Groups, b.Migration.Rules.GroupDefault = nil, nil, ""
	b.Migration.Rules.GroupsUnmapped = ""
	b.Migration.Rules.Unmapped = ""
	b.Migration.Rules.People = mapping.PersonRule{Unmatched: "create", Apart: true}
	b.Migration.Scopes = map[string]desk.Scope{"all": {}}
	b.Migration.Windows = map[string]delta.Window{"backup": {Scope: "all", Mode: delta.CreateUpdate}}
	// A backup is ours alone: nobody works in it, and whatever the source says is kept, deleted tickets included.
	b.Migration.Conflict, b.Migration.ConflictField = delta.SourceWins, nil
	b.Migration.OnDeleted, b.Migration.OnSpam, b.Migration.OnMerged = delta.Ignore, delta.Ignore, delta.Mirror
	// But what was redacted or hidden in the source must not stay readable in a backup.
	b.Migration.OnRevised, b.Migration.OnPrivacy, b.Migration.OnSplit = delta.Mirror, delta.Mirror, delta.Mirror
	b.Migration.Deadline = 10 * 365 * 24 * time.Hour
	return &b, nil
}

// Desks are the clients of both desks of a migration.
type Desks struct {
	Source desk.Source
	Target desk.Target
	// SourceName and TargetName are what ledgers and certificates call them.
	SourceName, TargetName string
	// Requests made so far, by side and endpoint.
	Requests func() map[string]map[string]int
}

// Desks makes the clients of both desks; readOnly for a target that will only be read. It makes no request.
func (f *File) Desks(log *slog.Logger, readOnly bool) (Desks, error) {
	deps := desk.Deps{Log: log, Migration: f.Migration.ID, ReadOnly: readOnly}
	var bad []error
	counts := map[string]func() map[string]int{}
	client := func(side string, d Desk) desk.Deps {
		c, count, err := all.Client(d.Config)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", side, err))
		}
		counts[side] = count
		deps := deps
		deps.HTTP = c
		return deps
	}
	sdeps, tdeps := client("source", f.Source), client("target", f.Target)
	if err := errors.Join(bad...); err != nil {
		return Desks{}, err
	}
	source, err := f.Source.Connector.NewSource(f.Source.Config, sdeps)
	if err != nil {
		bad = append(bad, fmt.Errorf("source: %w", err))
	}
	target, err := f.Target.Connector.NewTarget(f.Target.Config, tdeps)
	if err != nil {
		bad = append(bad, fmt.Errorf("target: %w", err))
	}
	return Desks{
		Source: source, Target: target, SourceName: f.Source.place(), TargetName: f.Target.place(),
		Requests: func() map[string]map[string]int {
			return map[string]map[string]int{"source": counts["source"](), "target": counts["target"]()}
		},
	}, errors.Join(bad...)
}

// Engine makes the clients of both desks and the engine between them. It makes no request.
func (f *File) Engine(p Ports) (*delta.Engine, error) {
	d, err := f.Desks(p.Log, p.ReadOnly)
	if err != nil {
		return nil, err
	}
	entropy := ulid.Monotonic(rand.Reader, 0)
	safe := &ulid.LockedMonotonicReader{MonotonicReader: entropy}
	return delta.New(delta.Config{
		Migration: f.Migration, SourceID: d.SourceName, TargetID: d.TargetName, Source: d.Source, Target: d.Target,
		SourceSide: f.Source.Connector.SourceSide(f.Source.Config), TargetSide: f.Target.Connector.TargetSide(f.Target.Config),
		Rows: p.Rows, Objects: p.Objects, Queue: p.Queue, Session: p.Session, Log: p.Log, Now: time.Now,
		NewID: func() string { return ulid.MustNew(ulid.Now(), safe).String() },
		Usage: func() (map[string]map[string]int, map[string]int) {
			var calls map[string]int
			if p.Calls != nil {
				calls = p.Calls()
			}
			return d.Requests(), calls
		},
	})
}

// Addresses returns a function that tells where a person would look at a record of the "source" or the "target", "" where
// the desk has no addresses.
func (f *File) Addresses() func(side string, ref desk.Ref) string {
	desks := map[string]any{}
	for side, d := range map[string]Desk{"source": f.Source, "target": f.Target} {
		client, _, err := all.Client(d.Config)
		if err != nil {
			continue
		}
		deps := desk.Deps{HTTP: client, Migration: f.Migration.ID}
		if side == "source" {
			desks[side], err = d.Connector.NewSource(d.Config, deps)
		} else {
			desks[side], err = d.Connector.NewTarget(d.Config, deps)
		}
		if err != nil {
			delete(desks, side)
		}
	}
	return func(side string, ref desk.Ref) string {
		if a, ok := desks[side].(desk.Addresser); ok {
			return a.Address(ref)
		}
		return ""
	}
}

// place names the desk: the connector and where it is. A ledger belongs to two places.
func (d Desk) place() string {
	for _, o := range []string{"url", "folder"} {
		if v := d.Config[o]; v != "" {
			return d.Connector.Name + " " + v
		}
	}
	return d.Connector.Name
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/functions/internal/boot"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/localstore"
	"github.com/deltadesk/deltadesk/shared/report"
)

type runCmd struct {
	Kind     string `required:"" enum:"full,delta,sample,verify,census,remap,backup" help:"full (the history), delta (what changed since the cutoff), sample (a few odd tickets, chosen to show the hard cases; can be undone), verify (compare both desks), census (count everything in the source, find what no delta was told of), remap (after the mapping has changed: make due what becomes something else), backup (source into the archive that the migration file names)."`
	Window   string `help:"Window of a delta or census run; may be left out where there is one."`
	Scope    string `help:"Scope of any other run but a backup; may be left out where there is one."`
	N        *int   `name:"n" placeholder:"20" help:"Sample only: how many tickets, 1 to 100; 20 if left out. Up to 600 are read to choose them."`
	Mode     string `enum:",create,update,create+update" default:"" help:"Full, sample and delta only: create, update or create+update; overrides the window's."`
	Since    string `placeholder:"TIME" help:"Delta only: list what changed since this time (2026-01-31T08:00:00Z), or since the beginning of this day in UTC (2026-01-31), instead of since the cutoff. Moves no cutoff."`
	DryRun   bool   `help:"Write nothing to the target and say what would happen."`
	Continue bool   `help:"Full only: go on with the full run that was cut off or stopped. Keeps its cutoff."`
	Restart  bool   `help:"Full only: read everything again and begin a new baseline."`
	Adopt    bool   `help:"Full only: look in the target before every create, now and in all later runs: for a new or restored store over a target that has been written to. A ticket that an undo removed since the backup counts as deleted in the target. An answer to create something again that was given before is asked for once more. Where the target cannot be searched, a ticket that is not in it any more is asked about, whatever target_gone says."`
	Heal     bool   `help:"Verify only: what differs becomes due, and the next delta heals it or holds it for a person. Entries that are gone from a ticket on which nobody has worked since come back: if somebody erased one behind the desk on purpose, look first without --heal."`
	Workers  int    `default:"4" help:"How many batches are worked on at a time."`
}

// Staged content is kept for ten days, as in the cloud.
const staged = 10 * 24 * time.Hour

func (c *runCmd) Run(a *app) error {
	if err := atOnce(a, c.Workers); err != nil {
		return err
	}
	var since time.Time
	if c.Since != "" {
		if c.Kind != "delta" {
			return usage(a, "--since belongs to delta runs")
		}
		var err error
		if since, _, err = moment(c.Since); err != nil {
			return usage(a, "--since %v", err)
		}
	}
	n := 0
	switch {
	case c.N != nil && c.Kind != "sample":
		return usage(a, "--n belongs to sample runs")
	case c.N != nil && (*c.N < 1 || *c.N > delta.MaxSample):
		return usage(a, "--n must be 1 to %d", delta.MaxSample)
	case c.N != nil:
		n = *c.N
	case c.Kind == "sample":
		n = 20
	}
	if c.Heal && (c.Kind != "verify" || c.DryRun) {
		return usage(a, "--heal belongs to verify runs that are no rehearsal")
	}
	if given := c.notOfBackups(); c.Kind == "backup" && len(given) > 0 {
		return usage(a, "a backup is of all that the source shows, whatever became of it: %s cannot be chosen. There are --restart (read everything again), --dry-run, --adopt and --workers", strings.Join(given, ", "))
	}
	l, err := a.open(c.Kind == "backup", c.Workers)
	if err != nil {
		return err
	}
	defer l.close()
	q := delta.Request{
		Kind: delta.Kind(c.Kind), Window: c.Window, Scope: c.Scope, N: n, Mode: delta.Mode(c.Mode), Since: since, Dry: c.DryRun,
		Restart: c.Restart, Continue: c.Continue, Adopt: c.Adopt, Heal: c.Heal,
	}
	if c.Kind == "backup" {
		if q, err = l.backup(q); err != nil {
			return err
		}
	}
	rep, err := l.run(q)
	if err != nil {
		return err
	}
	if c.Kind == "backup" {
		rep.Kind = "backup"
	}
	return a.show(rep)
}

// notOfBackups names what was given of that which a backup does not let anybody choose.
func (c *runCmd) notOfBackups() []string {
	var given []string
	for _, f := range []struct{ name, value string }{{"--scope", c.Scope}, {"--window", c.Window}, {"--mode", c.Mode}} {
		if f.value != "" {
			given = append(given, f.name)
		}
	}
	return given
}

func usage(a *app, format string, args ...any) error {
	fmt.Fprintf(a.err, "deltadesk: %s\nSee: %s --help\n", fmt.Sprintf(format, args...), a.command)
	return exit(exitUsage)
}

// atOnce checks how many batches or records are worked on at a time.
func atOnce(a *app, workers int) error {
	if workers < 1 || workers > 64 {
		return usage(a, "--workers must be 1 to 64")
	}
	return nil
}

// moment reads a time, or a day in UTC: then it is the day's beginning.
func moment(s string) (t time.Time, day bool, err error) {
	if t, err = time.Parse(time.RFC3339, s); err == nil {
		return t, false, nil
	}
	if t, err = time.Parse(time.DateOnly, s); err == nil {
		return t, true, nil
	}
	return t, false, fmt.Errorf("%q is neither a time nor a day: write 2026-01-31T08:00:00Z or 2026-01-31", s)
}

// named gives a report the people of the migration.
func named(f *boot.File, rep report.Report) report.Report {
	rep.Owner, rep.Decider = f.Owner.String(), f.Decider.String()
	return rep
}

// show prints a run's report and answers with its exit code.
func (a *app) show(rep report.Report) error {
	var err error
	if a.cli.JSON {
		err = report.JSON(a.out, rep)
	} else {
		err = report.Text(a.out, rep, 0, a.tty)
	}
	if err != nil {
		return err
	}
	switch delta.Status(rep.Status) {
	case delta.Verified:
		return nil
	case delta.Exceptions:
		return exit(exitExceptions)
	}
	return exit(exitError)
}

// laptop is one process that runs a migration: the engine, its store, and workers around the queue.
type laptop struct {
	a       *app
	file    *boot.File
	store   *localstore.Store
	engine  *delta.Engine
	workers int
}

func (a *app) open(backup bool, workers int) (*laptop, error) {
	f, err := a.load(backup)
	if err != nil {
		return nil, err
	}
	s, err := localstore.Open(a.ctx, a.storeDir(), localstore.Options{})
	if err != nil {
		return nil, err
	}
	for prefix, age := range map[string]time.Duration{"staging/": staged, "undo/": delta.UndoKept} {
		if _, err := s.Objects().Expire(a.ctx, prefix, age); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	e, err := f.Engine(boot.Ports{Rows: s.Rows(), Objects: s.Objects(), Queue: s.Queue(), Session: s.Session(), Calls: s.Calls, Log: a.log})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &laptop{a: a, file: f, store: s, engine: e, workers: workers}, nil
}

func (l *laptop) close() { l.store.Close() }

// backup turns a backup into a full run the first time and into a delta afterwards.
func (l *laptop) backup(q delta.Request) (delta.Request, error) {
	o, err := l.engine.Status(l.a.ctx)
	if err != nil {
		return q, err
	}
	q.Kind, q.Window, q.Scope = delta.Full, "", "all"
	if o.Windows[0].Baseline != "" && !q.Restart {
		if q.Adopt {
			return q, usage(l.a, "--adopt belongs to backups that read everything: deltadesk run --kind backup --restart --adopt")
		}
		q.Kind, q.Window, q.Scope = delta.Delta, "backup", ""
		q.Continue = false
	} else if slices.ContainsFunc(o.Runs, func(r delta.RunStatus) bool { return r.Kind == delta.Full && !r.Status.Ended() }) {
		q.Continue = !q.Restart
	}
	return q, nil
}

// run carries a run to its end. A delta that was cut off before is finished first; since its mark is older than the wish
// for a delta now, another one follows. A full run, a sample, an undo or a comparison that was cut off and is finished now is
// the one that was asked for.
func (l *laptop) run(q delta.Request) (report.Report, error) {
	if err := l.engine.Allows(q); err != nil {
		return report.Report{}, usage(l.a, "%v", err)
	}
	r, resumed, err := l.engine.Start(l.a.ctx, q)
	if err != nil {
		return report.Report{}, err
	}
	if err := l.carry(r, resumed); err != nil {
		return report.Report{}, err
	}
	rep, err := l.engine.Report(l.a.ctx, r.ID)
	rep = named(l.file, rep)
	asked := q.Kind == delta.Full || q.Kind == delta.Sample || q.Kind == delta.Undo || q.Kind == delta.Verify && q.Heal == r.Heal
	if s := delta.Status(rep.Status); err != nil || !resumed || asked || s != delta.Verified && s != delta.Exceptions {
		return rep, err
	}
	fmt.Fprintf(l.a.err, "Run %s, cut off earlier, is finished; now the one you asked for.\n", r.ID)
	return l.run(q)
}

// carry does the run's steps, with workers around the queue, until it has ended or no more work is to be taken up. A desk
// that cannot be reached is waited for.
func (l *laptop) carry(r delta.Run, resumed bool) error {
	p := l.a.progress(r, resumed)
	defer p.stop()
	intake, enough := context.WithCancel(l.a.ctx)
	defer enough()
	work := context.WithoutCancel(l.a.ctx)
	var wg sync.WaitGroup
	for range l.workers {
		wg.Go(func() { l.worker(work, intake, p) })
	}
	defer wg.Wait()
	defer enough()
	for {
		at, err := l.engine.Step(intake, r.ID)
		switch {
		case intake.Err() != nil:
			enough()
			wg.Wait()
			if err := l.engine.Book(work, r.ID); err != nil {
				return err
			}
			p.stop()
			fmt.Fprintf(l.a.err, "Stopped cleanly; what is finished is kept. Go on with the same command%s.\n", map[bool]string{true: " and --continue"}[r.Kind == delta.Full])
			return exit(exitError)
		case err != nil && !worthWaiting(err):
			return err
		case err != nil:
			p.note("waiting: " + err.Error())
			_ = rest(intake, 10*time.Second) // the next look at intake tells
		default:
			p.show(at)
			if at.Run.Status.Ended() {
				return nil
			}
			_ = rest(intake, delta.Pause)
		}
	}
}

// worthWaiting tells a desk that cannot be reached, lets nobody in or asks for a pause from everything that waiting does not
// mend.
func worthWaiting(err error) bool {
	var de *desk.Error
	if !errors.As(err, &de) {
		return false // of the store, or a refusal
	}
	c := desk.Class(err)
	return c == desk.ErrTransient || c == desk.ErrUnauthorized || c == desk.ErrThrottled //nolint:errorlint // Class answers with the bare sentinel
}

func (l *laptop) worker(work, intake context.Context, p *progress) {
	for {
		ms, err := l.store.Queue().Receive(intake, 5)
		if err != nil {
			return
		}
		for _, r := range l.engine.Work(work, intake, ms) {
			if r.Delay > 5*time.Second && r.Why != "" {
				p.note(r.Why)
			}
			if err := l.store.Queue().Send(work, []delta.Message{r.Message}, r.Delay); err != nil {
				p.note(err.Error()) // the plan is the record: it is sent again by the next process
			}
		}
	}
}

// rest waits, or returns an error when no more work is to be taken up.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func writeFile(path string, write func(*os.File) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

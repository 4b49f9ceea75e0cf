package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/deltadesk/deltadesk/connectors/all"
	"github.com/deltadesk/deltadesk/functions/internal/boot"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/localstore"
)

// Exit codes.
const (
	exitDone       = 0
	exitError      = 1
	exitUsage      = 2
	exitExceptions = 3 // finished, with held or failed records; of a check: not everything is as certified
)

type cli struct {
	Config string `short:"c" default:"deltadesk.yaml" type:"path" placeholder:"FILE" help:"The migration file (${default})."`
	Store  string `placeholder:"DIR" type:"path" help:"Where the ledger and staged files are kept (.deltadesk beside the migration file)."`
	JSON   bool   `name:"json" help:"Answer in JSON on standard output."`
	Log    string `enum:"off,info,debug" default:"off" help:"Write log lines (JSON; ids and counts only) to standard error: off, info or debug."`

	Run     runCmd     `cmd:"" help:"Run once: a full run first, then deltas; or sample, verify, census, remap or backup."`
	Undo    undoCmd    `cmd:"" help:"Take back what a sample or delta run wrote, as far as nobody has changed it since; list the rest. Up to 30 days after it began."`
	Serve   serveCmd   `cmd:"" help:"Run deltas again and again until Ctrl-C."`
	Status  statusCmd  `cmd:"" help:"Where the migration stands: windows, cutoffs, deadlines, runs. Works while a run is on."`
	Explain explainCmd `cmd:"" help:"Everything known of one ticket: when it was seen, what was decided and why, what was written, what the newest verify, census and undo said of it."`
	Held    heldCmd    `cmd:"" help:"What waits for a person's decision."`
	Decide  decideCmd  `cmd:"" help:"Decide about something held. The next run carries it out, if both sides still say what they said."`
	Links   linksCmd   `cmd:"" help:"Which record of the source is which in the target, with addresses."`
	Report  reportCmd  `cmd:"" help:"The report of a run, for the terminal, as JSON or as a page."`
	Extend  extendCmd  `cmd:"" help:"Set a later deadline for a window's next delta."`

	Certificate certificateCmd `cmd:"" help:"The certificate of a verify run: what was compared and how it came out, record by record."`
	Check       checkCmd       `cmd:"" help:"Compare both desks with a certificate again. Needs the migration file and read access, no store."`
}

const description = `Deltadesk moves a help desk to another one while both stay open.

  deltadesk run --kind full --dry-run     what would happen, nothing is written
  deltadesk run --kind sample --n 20      moves twenty odd tickets first; deltadesk undo RUN takes them back
  deltadesk run --kind full               copies the history
  deltadesk run --kind delta              brings over what changed since; again and again, until the team switches
  deltadesk held, deltadesk decide …      what both sides changed waits for you, everything else goes on
  deltadesk run --kind verify             compares both desks as they are now; --heal makes what differs due
  deltadesk certificate, deltadesk check  the proof of it, and the same comparison later, by anybody who may read both
  deltadesk run --kind census             finds what no delta was told of; the next delta brings it
  deltadesk run --kind remap              after the mapping has changed: the next delta writes what becomes something else

The migration file says what moves where; infra/migrations has commented examples.
Exit codes: 0 done, 1 error, 2 usage, 3 finished with held or failed tickets (check: not everything is as certified).`

// app is what commands work with.
type app struct {
	ctx      context.Context // ends when no more work is to be taken up
	cli      *cli
	command  string // as it is typed: "deltadesk run"
	out, err io.Writer
	tty      bool
	log      *slog.Logger
}

// exit ends the command with a code, its message already written.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	log.SetOutput(io.Discard) // only net/http writes there, and what: bytes that a server sent out of turn
	var c cli
	code := -1
	parser, err := kong.New(&c, kong.Name("deltadesk"), kong.Description(description), kong.Writers(stdout, stderr),
		kong.Exit(func(n int) { code = n }), kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}), kong.UsageOnError())
	if err != nil {
		panic(err) // the command line's own description is wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kctx, err := parser.Parse(args)
	if code == 0 {
		return exitDone // --help
	}
	if err != nil {
		of := parser.Model.Node
		if pe := (*kong.ParseError)(nil); errors.As(err, &pe) && pe.Context.Selected() != nil {
			of = pe.Context.Selected()
		}
		fmt.Fprintf(stderr, "deltadesk: %v\nSee: %s --help\n", err, of.FullPath())
		return exitUsage
	}
	a := &app{ctx: ctx, cli: &c, command: kctx.Selected().FullPath(), out: stdout, log: slog.New(slog.DiscardHandler)}
	if f, ok := stderr.(*os.File); ok {
		a.tty = term.IsTerminal(int(f.Fd()))
	}
	stderr = &oneAtATime{w: stderr} // progress and log lines come from several workers
	a.err = stderr
	if c.Log != "off" {
		level := slog.LevelInfo
		if c.Log == "debug" {
			level = slog.LevelDebug
		}
		a.log = slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	}
	err = kctx.Run(a)
	var e exit
	var no *delta.Refusal
	var mistake *boot.Mistake
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &e):
		return int(e)
	case errors.As(err, &mistake):
		fmt.Fprintf(stderr, "%v\n\nNothing was written. Mend the migration file and try again.\n", err)
		return exitUsage
	case errors.As(err, &no):
		fmt.Fprintf(stderr, "deltadesk: %v\n", no)
		return exitError
	}
	fmt.Fprintf(stderr, "deltadesk: %v\n", err)
	return exitError
}

// oneAtATime is a writer for several goroutines.
type oneAtATime struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (o *oneAtATime) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(p)
}

// load reads the migration file; for a backup, turned towards the archive.
func (a *app) load(backup bool) (*boot.File, error) {
	f, err := boot.Load(a.cli.Config, boot.Options{Connectors: all.Connectors()})
	if err != nil || !backup {
		return f, err
	}
	return f.Backed()
}

func (a *app) storeDir() string {
	if a.cli.Store != "" {
		return a.cli.Store
	}
	return filepath.Join(filepath.Dir(a.cli.Config), ".deltadesk")
}

// look opens the store beside a process that may be running on it.
func (a *app) look(backup bool) (*boot.File, *delta.Engine, func(), error) {
	f, err := a.load(backup)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := localstore.OpenReader(a.ctx, a.storeDir(), localstore.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	e, err := f.Engine(boot.Ports{Rows: s.Rows(), Objects: s.Objects(), Queue: s.Queue(), ReadOnly: true, Log: a.log})
	if err != nil {
		s.Close()
		return nil, nil, nil, err
	}
	return f, e, func() { s.Close() }, nil
}

// ref reads what people type for a record: "42" is a ticket, "person/7" somebody.
func ref(s string) (desk.Ref, error) {
	kind, id, ok := strings.Cut(s, "/")
	if !ok {
		kind, id = string(desk.Ticket), s
	}
	switch k := desk.Kind(kind); k {
	case desk.Ticket, desk.Person, desk.Company:
		if id != "" {
			return desk.Ref{Kind: k, ID: id}, nil
		}
	}
	return desk.Ref{}, fmt.Errorf("%q is no record: write a ticket's id in the source (42), or person/ID, company/ID", s)
}

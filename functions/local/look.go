package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

func (a *app) json(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (a *app) table(header table.Row) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(a.out)
	t.SetStyle(table.StyleLight)
	t.Style().Options.SeparateRows = false
	t.AppendHeader(header)
	return t
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05") + " UTC"
}

// inTable is how much of a sentence or value a table shows; all of it is in --json, and in explain.
const inTable = 40

func short(s string) string {
	if r := []rune(s); len(r) > inTable {
		return string(r[:inTable-1]) + "…"
	}
	return s
}

// place shows a cursor's numbers and times, which is what moves in it; the rest names the desk, and --json has it.
func place(cursor string) string {
	var all map[string]json.RawMessage
	if json.Unmarshal([]byte(cursor), &all) != nil {
		return cmp.Or(short(cursor), "-")
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		v := string(all[name])
		var n json.Number
		var t time.Time
		if json.Unmarshal(all[name], &t) == nil {
			v = when(t)
		} else if json.Unmarshal(all[name], &n) != nil || v[0] == '"' {
			continue
		}
		parts = append(parts, name+" "+v)
	}
	return short(cmp.Or(strings.Join(parts, ", "), cursor))
}

type statusCmd struct{}

// standing is what status shows: the migration, and the backup of its source where one has been begun.
type standing struct {
	delta.Overview
	Backup *delta.Overview `json:"backup,omitempty"`
}

func (a *app) standing() (standing, error) {
	f, e, done, err := a.look(false)
	if err != nil {
		return standing{}, err
	}
	defer done()
	o, err := e.Status(a.ctx)
	s := standing{Overview: o}
	if err != nil || f.Backup.Folder == "" {
		return s, err
	}
	if _, err := os.Stat(f.Backup.Folder); errors.Is(err, fs.ErrNotExist) {
		return s, nil // none has been begun
	}
	_, b, bdone, err := a.look(true)
	if err != nil {
		return s, err
	}
	defer bdone()
	kept, err := b.Status(a.ctx)
	if len(kept.Runs) > 0 {
		s.Backup = &kept
	}
	return s, err
}

func (statusCmd) Run(a *app) error {
	o, err := a.standing()
	if err != nil {
		return err
	}
	if a.cli.JSON {
		return a.json(o)
	}
	fmt.Fprintf(a.out, "Migration %s: %d held for a decision\n", o.Migration, o.Held)
	t := a.table(table.Row{"window", "scope", "mode", "cutoff", "last success", "deadline", "active run"})
	for _, w := range o.Windows {
		last := when(w.LastOK)
		what := string(w.Mode)
		switch {
		case w.Kind == delta.Census:
			what = string(w.Kind)
		case w.Baseline == "":
			last = "no full run yet"
		}
		t.AppendRow(table.Row{w.Name, w.Scope, what, place(w.Cutoff), last, when(w.Deadline), w.Active})
	}
	runs := o.Runs
	if o.Backup != nil {
		var last time.Time
		active := ""
		for _, r := range o.Backup.Runs {
			r.Kind, r.Window = "backup", ""
			runs = append(runs, r)
			switch {
			case !r.Status.Ended():
				active = r.ID
			case r.Status == delta.Verified || r.Status == delta.Exceptions:
				last = r.Ended
			}
		}
		w := o.Backup.Windows[0]
		t.AppendRow(table.Row{"(backup)", w.Scope, "", place(w.Cutoff), when(last), "-", active})
		slices.SortFunc(runs, func(a, b delta.RunStatus) int { return strings.Compare(a.ID, b.ID) })
	}
	t.Render()
	t = a.table(table.Row{"run", "kind", "window or scope", "status", "finished", "planned", "started", "why"})
	for _, r := range runs {
		where := r.Scope
		if r.Window != "" {
			where = r.Window
		}
		kind := string(r.Kind)
		if r.Dry {
			kind += " (dry)"
		}
		why := r.Why
		if r.Undoes != "" {
			why = strings.TrimSuffix("undoes run "+r.Undoes+"; "+why, "; ")
		}
		if r.UndoneBy != "" {
			why = strings.TrimSuffix("undone by run "+r.UndoneBy+"; "+why, "; ")
		}
		t.AppendRow(table.Row{r.ID, kind, where, r.Status, r.Finished, r.Planned, when(r.Started), short(why)})
	}
	t.Render()
	for _, scope := range slices.Sorted(maps.Keys(o.Due)) {
		if n := o.Due[scope]; n > 0 {
			fmt.Fprintf(a.out, "%s %s due in the next run over scope %s.\n", report.Records(n), report.Plural(n, "is", "are"), scope)
		}
	}
	return nil
}

type explainCmd struct {
	Ticket string `arg:"" help:"A ticket's id in the source, or person/ID, company/ID."`
}

func (c explainCmd) Run(a *app) error {
	r, err := ref(c.Ticket)
	if err != nil {
		return usage(a, "%v", err)
	}
	f, e, done, err := a.look(false)
	if err != nil {
		return err
	}
	defer done()
	x, err := e.Explain(a.ctx, r)
	if err != nil {
		return err
	}
	if a.cli.JSON {
		return a.json(x)
	}
	line := func(what, format string, args ...any) {
		fmt.Fprintf(a.out, "%-12s %s\n", what, fmt.Sprintf(format, args...))
	}
	address := f.Addresses()
	line("source", "%s %s", x.Ref, address("source", x.Ref))
	switch {
	case x.Into != "":
		line("merged", "into %s/%s in the source; look there", x.Ref.Kind, x.Into)
	case x.Target == "":
		line("target", "not there")
	default:
		line("target", "%s (%s) %s", x.Target, x.How, address("target", desk.Ref{Kind: r.Kind, ID: x.Target}))
	}
	if x.Gone != "" {
		line("event", "%s in the source", x.Gone)
	}
	if !x.Read.IsZero() {
		line("last read", "%s; %d entries are in the target", when(x.Read), x.Entries)
	}
	for _, t := range x.Trail {
		line(t.At.UTC().Format(time.DateTime), "run %s: %s%s", t.Run, t.Outcome, opt(", because: ", t.Why))
		if !t.Seen.IsZero() {
			line("", "seen in the listing as of %s", when(t.Seen))
		}
		if len(t.Wrote) > 0 {
			line("", "wrote %s; %s", strings.Join(t.Wrote, ", "), t.Check)
		}
	}
	for _, l := range x.Looks {
		line(string(l.Kind), "run %s of %s: %s", l.Run, when(l.Started), l.Found)
		if len(l.Kept) > 0 {
			line("", "left as people set it in the target: %s", strings.Join(l.Kept, ", "))
		}
	}
	if !x.Busy.IsZero() {
		line("busy", "a worker has it; its claim is respected until %s", when(x.Busy))
	}
	for _, d := range x.Due {
		line("due", "%s", d)
	}
	if x.Held != "" {
		line("held", "%s", x.Held)
		line("next", "%s", x.Next)
	}
	return nil
}

func opt(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

type heldCmd struct{}

func (heldCmd) Run(a *app) error {
	f, e, done, err := a.look(false)
	if err != nil {
		return err
	}
	defer done()
	hs, err := e.HeldRecords(a.ctx)
	if err != nil {
		return err
	}
	if a.cli.JSON {
		if hs == nil {
			hs = []delta.Held{}
		}
		return a.json(hs)
	}
	if len(hs) == 0 {
		fmt.Fprintln(a.out, "Nothing is held.")
		return nil
	}
	t := a.table(table.Row{"record", "target", "since", "what", "why", "source says", "target says", "decided"})
	again := func(why string, moved bool) string {
		if moved {
			why = "again since it was decided: " + why
		}
		return short(why)
	}
	says := func(vs ...string) string { return cmp.Or(short(strings.Join(vs, ", ")), "-") }
	for _, h := range hs {
		row := func(what, why, source, target string, d *delta.Decision) {
			t.AppendRow(table.Row{h.Ref, cmp.Or(h.Target, "-"), when(h.Since), what, why, source, target, decided(d)})
		}
		for _, fd := range h.Fields {
			row(string(fd.Field), again("changed on both sides", fd.Again), says(fd.Source...), says(fd.Target...), fd.Decision)
		}
		for _, en := range h.Entries {
			row("entry "+en.Entry, again(en.Why, en.Again), "-", "-", en.Decision)
		}
		if h.Doubt != "" {
			row("in doubt", short(h.Question()), "-", says(h.Candidates...), h.Answer)
		}
		if h.Gone {
			row("the ticket", short(h.Question()), "-", "-", h.Answer)
		}
	}
	t.Render()
	fmt.Fprintf(a.out, `%s decides:
  deltadesk decide RECORD --field FIELD --choose source|target|value [--value V]
  deltadesk decide RECORD --entry ENTRY --choose source|target
  deltadesk decide RECORD --link TARGET-ID | --create-again
  deltadesk decide RECORD --choose target (of what was deleted in the target: leave it deleted)
What is cut short is whole in deltadesk explain RECORD and with --json.
`, f.Decider)
	return nil
}

func decided(d *delta.Decision) string {
	switch {
	case d == nil:
		return "-"
	case d.Choice == delta.ChooseValue && len(d.Value) == 0:
		return "empty, next run"
	case d.Choice == delta.ChooseValue:
		return short(strings.Join(d.Value, ", ")) + ", next run"
	case d.Choice == delta.ChooseLink:
		return "link " + d.Value.First() + ", next run"
	}
	return string(d.Choice) + ", next run"
}

type decideCmd struct {
	Ticket      string   `arg:"" help:"The record, as held shows it."`
	Field       string   `help:"The held field."`
	Entry       string   `help:"The held entry."`
	Choose      string   `enum:",source,target,value" default:"" help:"For a field: source (approve), target (keep) or value; for an entry: source, or target (leave it, or it was seen to by hand). Without either, for a record deleted in the target: target (leave it deleted, until the source changes it again)."`
	Value       []string `sep:"none" help:"With --choose value: what the field shall be; again for a list."`
	Link        string   `placeholder:"TARGET-ID" help:"For a record in doubt, or deleted in the target: it is this one there. If that one is another record's already, nothing is written and it is asked again."`
	CreateAgain bool     `help:"For a record in doubt, or deleted in the target: it is not there, create it."`
}

// decision is what decide answers in JSON.
type decision struct {
	Ref    desk.Ref     `json:"ref"`
	Field  desk.Field   `json:"field,omitempty"`
	Entry  string       `json:"entry,omitempty"`
	Choice delta.Choice `json:"choice"`
	Value  desk.Value   `json:"value,omitempty"` // of value; of link the target's id
}

func (c decideCmd) Run(a *app) error {
	r, err := ref(c.Ticket)
	if err != nil {
		return usage(a, "%v", err)
	}
	d := delta.Decision{Choice: delta.Choice(c.Choose), Value: desk.Text(c.Value...)}
	ways := 0
	for _, set := range []bool{c.Choose != "", c.Link != "", c.CreateAgain} {
		if set {
			ways++
		}
	}
	switch {
	case ways != 1:
		return usage(a, "say one of --choose, --link and --create-again")
	case c.Field != "" && c.Entry != "", c.Choose != "" && c.Choose != "target" && c.Field == "" && c.Entry == "":
		return usage(a, "--choose needs --field FIELD or --entry ENTRY")
	case c.Choose == "" && (c.Field != "" || c.Entry != ""):
		return usage(a, "--link and --create-again are for the whole record: leave --field and --entry out")
	case c.Choose != "value" && len(c.Value) > 0:
		return usage(a, "--value belongs to --choose value")
	case c.Choose == "value" && c.Entry != "":
		return usage(a, "an entry is decided with --choose source or --choose target")
	case c.Choose == "value" && len(c.Value) == 0:
		return usage(a, "--choose value needs --value V (to empty the field: --value '')")
	case c.Link != "":
		d = delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{c.Link}}
	case c.CreateAgain:
		d = delta.Decision{Choice: delta.ChooseCreate}
	}
	if u, err := user.Current(); err == nil {
		d.By = u.Username
	}
	_, e, done, err := a.look(false)
	if err != nil {
		return err
	}
	defer done()
	if err := e.Decide(a.ctx, r, desk.Field(c.Field), c.Entry, d); err != nil {
		return err
	}
	if a.cli.JSON {
		return a.json(decision{r, desk.Field(c.Field), c.Entry, d.Choice, d.Value})
	}
	fmt.Fprintf(a.out, "Decided. The next run over its scope carries it out, if both sides still say what they said.\n")
	return nil
}

type linksCmd struct {
	Kind   string `enum:"ticket,person,company" default:"ticket" help:"ticket, person or company."`
	Format string `enum:"csv,json" default:"csv" help:"csv or json."`
}

func (c linksCmd) Run(a *app) error {
	f, e, done, err := a.look(false)
	if err != nil {
		return err
	}
	defer done()
	var all []delta.Link
	w := csv.NewWriter(a.out)
	asJSON := a.cli.JSON || c.Format == "json"
	if !asJSON {
		if err := w.Write([]string{"source_id", "target_id", "source_url", "target_url"}); err != nil {
			return err
		}
	}
	err = e.Links(a.ctx, desk.Kind(c.Kind), f.Addresses(), func(l delta.Link) error {
		if asJSON {
			all = append(all, l)
			return nil
		}
		return w.Write([]string{l.Source, l.Target, l.SourceURL, l.TargetURL})
	})
	if err != nil {
		return err
	}
	if asJSON {
		if all == nil {
			all = []delta.Link{}
		}
		return a.json(all)
	}
	w.Flush()
	return w.Error()
}

type reportCmd struct {
	RunID string `arg:"" name:"run" optional:"" help:"The run's id; the newest one if left out."`
	HTML  string `placeholder:"FILE" type:"path" help:"Write the report as a page."`
}

func (c reportCmd) Run(a *app) error {
	f, e, done, err := a.look(false)
	if err != nil {
		return err
	}
	defer done()
	rep, err := a.find(e, c.RunID)
	if err != nil {
		_, b, bdone, berr := a.look(true) // it may be a backup's
		if berr != nil {
			return err
		}
		defer bdone()
		if rep, berr = a.find(b, c.RunID); berr != nil {
			return err
		}
		rep.Kind = "backup"
	}
	rep = named(f, rep)
	if c.HTML != "" {
		if err := writeFile(c.HTML, func(w *os.File) error { return report.HTML(io.Writer(w), rep) }); err != nil {
			return err
		}
		if !a.cli.JSON {
			fmt.Fprintf(a.out, "Written: %s\n", c.HTML)
			return nil
		}
	}
	if a.cli.JSON {
		return report.JSON(a.out, rep)
	}
	return report.Text(a.out, rep, 0, a.tty)
}

func (a *app) find(e *delta.Engine, id string) (report.Report, error) {
	if id == "" {
		o, err := e.Status(a.ctx)
		if err != nil {
			return report.Report{}, err
		}
		if len(o.Runs) == 0 {
			return report.Report{}, errors.New("there has been no run yet")
		}
		id = o.Runs[len(o.Runs)-1].ID
	}
	return e.Report(a.ctx, id)
}

type extendCmd struct {
	Window string `arg:"" help:"The window."`
	Until  string `required:"" placeholder:"DATE" help:"The new deadline: 2026-12-24 (end of that day, UTC) or a full RFC 3339 time."`
}

func (c extendCmd) Run(a *app) error {
	until, day, err := moment(c.Until)
	if err != nil {
		return usage(a, "--until %v", err)
	}
	if day {
		until = until.Add(24*time.Hour - time.Second)
	}
	_, e, done, err := a.look(false)
	if err != nil {
		return err
	}
	defer done()
	if err := e.Extend(context.WithoutCancel(a.ctx), c.Window, until); err != nil {
		if no := (*delta.Refusal)(nil); errors.As(err, &no) { // the window or the date
			return usage(a, "%v", no)
		}
		return err
	}
	if a.cli.JSON {
		return a.json(struct {
			Window   string    `json:"window"`
			Deadline time.Time `json:"deadline"`
		}{c.Window, until.UTC()})
	}
	fmt.Fprintf(a.out, "Window %s may run until %s.\n", c.Window, when(until))
	return nil
}

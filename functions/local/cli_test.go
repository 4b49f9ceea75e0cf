package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/connectors/archive"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/localstore"
	"github.com/deltadesk/deltadesk/shared/report"
)

// bench is a migration between two archives, driven by the command line.
type bench struct {
	t        *testing.T
	dir      string
	src, dst desk.Target // both worked on by people
}

const archives = `migration: acme
owner: {name: Jo, email: jo@acme.example}
decider: {name: Jo, email: jo@acme.example}
source: {connector: archive, options: {folder: old, fsync: "false"}}
target: {connector: archive, options: {folder: new, fsync: "false"}}
scopes: {all: {}}
windows: {main: {scope: all, mode: create+update}, count: {scope: all, kind: census}}
backup: {folder: backup}
`

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir()}
	b.write("deltadesk.yaml", archives)
	open := func(name string) desk.Target {
		d, err := archive.Connector.NewTarget(desk.Config{"folder": filepath.Join(b.dir, name), "fsync": "false"}, desk.Deps{Migration: "people"})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	b.src, b.dst = open("old"), open("new")
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) add(d desk.Target, r desk.Record) string {
	b.t.Helper()
	w, err := d.Create(context.Background(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	return w.ID
}

func (b *bench) edit(d desk.Target, id string, f desk.Fields) {
	b.t.Helper()
	if _, err := d.Apply(context.Background(), desk.Ref{Kind: desk.Ticket, ID: id}, desk.Change{Fields: f}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) do(want int, args ...string) (out, errs string) {
	b.t.Helper()
	var o, e bytes.Buffer
	if code := run(b.t.Context(), append([]string{"--config", filepath.Join(b.dir, "deltadesk.yaml")}, args...), &o, &e); code != want {
		b.t.Fatalf("deltadesk %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, e.String(), o.String())
	}
	return o.String(), e.String()
}

func (b *bench) run(want int, args ...string) report.Report {
	b.t.Helper()
	out, _ := b.do(want, append([]string{"run", "--json"}, args...)...)
	if err := report.Validate([]byte(out)); err != nil {
		b.t.Fatal(err)
	}
	var rep report.Report
	if err := json.Unmarshal([]byte(out), &rep); err != nil {
		b.t.Fatal(err)
	}
	if err := report.Check(rep); err != nil {
		b.t.Fatal(err)
	}
	return rep
}

// untouched fails the test if anything was written to a desk.
func (b *bench) untouched(name string) {
	b.t.Helper()
	src, err := archive.Connector.NewSource(desk.Config{"folder": filepath.Join(b.dir, name)}, desk.Deps{})
	if err != nil {
		b.t.Fatal(err)
	}
	mark, err := src.Mark(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, k := range desk.LoadOrder() {
		if p, err := src.Changes(b.t.Context(), k, desk.Scope{}, nil, mark); err != nil || len(p.Items) > 0 {
			b.t.Errorf("something was written to %s: %+v, %v", name, p, err)
		}
	}
}

func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("it does not say %q:\n%s", w, text)
		}
	}
}

// TestCommands takes a migration through everything the command line can do.
func TestCommands(t *testing.T) {
	b := newBench(t)
	ann := b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: "ann"}, Fields: desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}}})
	at := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	file := func(text string) desk.File {
		return desk.File{ID: "f", Name: "ü.txt", Type: "text/plain", Size: int64(len(text)), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(text)), nil
		}}
	}
	ticket := func(i int) string {
		id := fmt.Sprint("t", i)
		return b.add(b.src, desk.Record{
			Ref:     desk.Ref{Kind: desk.Ticket, ID: id},
			Fields:  desk.Fields{desk.Subject: {fmt.Sprint("subject ", i)}, desk.Status: {"open"}, desk.Requester: {ann}, desk.Created: desk.Time(at), desk.Custom("Cost"): {"12"}},
			Entries: []desk.Entry{{ID: id + "-1", Marker: "people/" + id, Public: true, At: at, Body: "hello", Type: "text/plain", Author: desk.Author{ID: ann, Name: "Ann"}, Files: []desk.File{file("bytes")}}},
		})
	}
	first, second := ticket(1), ticket(2)

	dry := b.run(exitDone, "--kind", "full", "--dry-run")
	b.untouched("new")
	full := b.run(exitDone, "--kind", "full")
	if full.Counts != dry.Counts || full.Counts.Created != 3 {
		t.Errorf("dry %+v, full %+v", dry.Counts, full.Counts)
	}
	if rep := b.run(exitDone, "--kind", "verify"); rep.Counts.Unchanged != 3 || rep.Mode != "" {
		t.Errorf("verify %+v, mode %q", rep.Counts, rep.Mode)
	}
	target := func(id string) string {
		t.Helper()
		out, _ := b.do(exitDone, "links")
		for line := range strings.Lines(out) {
			if f := strings.Split(strings.TrimSpace(line), ","); f[0] == id {
				return f[1]
			}
		}
		t.Fatalf("links does not name %s:\n%s", id, out)
		return ""
	}

	// Both sides change the status of the first; the second gets a reply.
	b.edit(b.src, first, desk.Fields{desk.Status: {"stalled"}})
	b.edit(b.dst, target(first), desk.Fields{desk.Status: {"resolved"}})
	if _, err := b.src.Apply(t.Context(), desk.Ref{Kind: desk.Ticket, ID: second}, desk.Change{Entries: []desk.Entry{{ID: "r", Marker: "people/r", Public: true, At: at, Body: "a reply", Type: "text/plain"}}}); err != nil {
		t.Fatal(err)
	}
	rep := b.run(exitExceptions, "--kind", "delta")
	if rep.Counts.Held != 1 || rep.Counts.Updated != 1 || rep.Owner != "Jo <jo@acme.example>" || rep.Decider != rep.Owner {
		t.Errorf("delta %+v of %q, %q", rep.Counts, rep.Owner, rep.Decider)
	}
	out, _ := b.do(exitDone, "held")
	says(t, out, "ticket/"+first+" │ "+target(first), "status", "changed on both sides", "stalled", "resolved", "Jo <jo@acme.example> decides")
	out, _ = b.do(exitDone, "explain", first)
	says(t, out, "source", "target", "created", "read back as written", "held", "status changed on both sides", "deltadesk decide ticket/"+first)
	_, errs := b.do(exitError, "decide", first, "--field", "subject", "--choose", "source")
	says(t, errs, "field subject of ticket/"+first+" is not held")
	_, errs = b.do(exitError, "decide", first, "--choose", "target")
	says(t, errs, "--field FIELD or --entry ENTRY; held of ticket/"+first+" is: status changed on both sides")
	b.do(exitUsage, "decide", first, "--choose", "source")
	b.do(exitDone, "decide", first, "--field", "status", "--choose", "value", "--value", "rejected")
	out, _ = b.do(exitDone, "held")
	says(t, out, "rejected, next run")
	b.run(exitDone, "--kind", "delta")
	now, err := b.dst.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: target(first)})
	if err != nil || now.Fields[desk.Status].First() != "rejected" {
		t.Errorf("status %v, %v", now.Fields[desk.Status], err)
	}
	out, _ = b.do(exitDone, "held")
	says(t, out, "Nothing is held")
	out, _ = b.do(exitDone, "status")
	says(t, out, "main", "verified", full.Run, "CUTOFF", "archive_seq 5 ")
	if strings.Contains(out, "backup") {
		t.Errorf("a backup is listed that nobody made:\n%s", out)
	}
	out, _ = b.do(exitDone, "report", full.Run)
	says(t, out, full.Run, "owner Jo")
	page := filepath.Join(b.dir, "report.html")
	b.do(exitDone, "report", "--html", page)
	if html, err := os.ReadFile(page); err != nil || !bytes.Contains(html, []byte("<html")) {
		t.Errorf("no page: %v", err)
	}
	b.do(exitDone, "extend", "main", "--until", "2099-12-31")
	_, errs = b.do(exitUsage, "extend", "main", "--until", "2001-12-31")
	says(t, errs, "has already passed")
	_, errs = b.do(exitUsage, "extend", "main", "--until", "2098-12-31")
	says(t, errs, "the deadline of window \"main\" is 2099-12-31 23:59:59 already, which is later")
	if rep := b.run(exitDone, "--kind", "delta"); rep.Counts != (report.Counts{}) {
		t.Errorf("a delta without changes: %+v", rep.Counts)
	}

	_, errs = b.do(exitError, "run", "--kind", "full", "--continue")
	says(t, errs, "full run "+full.Run+" of scope \"all\" finished on ", "--kind delta", "--restart")

	// A census in its window finds that nothing was missed; it is no window for deltas.
	if rep := b.run(exitDone, "--kind", "census"); rep.Window != "count" || rep.Counts.Failed != 0 || rep.Counts.Listed != 3 {
		t.Errorf("census %+v", rep)
	}
	out, _ = b.do(exitDone, "run", "--kind", "census", "--window", "count")
	says(t, out, "Nothing was missed")
	_, errs = b.do(exitUsage, "run", "--kind", "delta", "--window", "count")
	says(t, errs, "window \"count\" is a census")
	out, _ = b.do(exitDone, "status")
	says(t, out, "count", "census")

	// Another mapping: a remap finds whom it concerns, a delta writes it.
	b.write("deltadesk.yaml", archives+"mapping: {ticket: [{from: status, to: status, values: {open: new}}]}\n")
	if rep := b.run(exitDone, "--kind", "remap"); rep.Counts.Updated != 1 { // the first has another status
		t.Errorf("remap %+v", rep.Counts)
	}
	if rep := b.run(exitDone, "--kind", "delta"); rep.Counts.Updated != 1 {
		t.Errorf("delta after the remap %+v", rep.Counts)
	}
	if now, err := b.dst.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: target(second)}); err != nil || now.Fields[desk.Status].First() != "new" {
		t.Errorf("status %v, %v", now.Fields[desk.Status], err)
	}
	b.write("deltadesk.yaml", archives)

	// A backup is a full run the first time and a delta afterwards; it keeps custom fields as fields. Tickets are merged before the
	// first one and before the second: neither has the merged one apart, and neither has the restore.
	merge := func(from, into string) {
		t.Helper()
		if err := b.src.(desk.Merger).Merge(t.Context(), desk.Ref{Kind: desk.Ticket, ID: from}, desk.Ref{Kind: desk.Ticket, ID: into}, ""); err != nil {
			t.Fatal(err)
		}
	}
	young := ticket(4)
	b.run(exitDone, "--kind", "delta")
	merge(young, second)
	if rep := b.run(exitDone, "--kind", "delta"); rep.Counts.Failed != 0 {
		t.Errorf("delta after a merge: %+v", rep.Exceptions)
	}
	if rep := b.run(exitDone, "--kind", "backup"); rep.Counts.Created != 3 || len(rep.Losses) > 0 {
		t.Errorf("backup %+v, losses %+v", rep.Counts, rep.Losses)
	}
	out, _ = b.do(exitDone, "status")
	says(t, out, "(backup)", "backup     │ all ")
	out, _ = b.do(exitDone, "status", "--json")
	says(t, out, `"migration": "acme-backup"`)
	_, errs = b.do(exitUsage, "run", "--kind", "backup", "--adopt")
	says(t, errs, "deltadesk run --kind backup --restart --adopt")
	merge(ticket(3), first)
	ticket(5)
	if rep := b.run(exitDone, "--kind", "backup"); rep.Counts.Created != 1 {
		t.Errorf("second backup %+v", rep.Counts)
	}
	b.write("deltadesk.yaml", strings.NewReplacer("migration: acme", "migration: restore", "folder: old", "folder: backup", "folder: new", "folder: restored", "backup: {folder: backup}\n", "").Replace(archives))
	if rep := b.run(exitDone, "--kind", "full"); rep.Counts.Created != 4 || len(rep.Losses) > 0 {
		t.Errorf("restore %+v, losses %+v", rep.Counts, rep.Losses)
	}
	b.run(exitDone, "--kind", "verify")
}

// TestBadInput: a clear error that says what, where and what to do; nothing written.
func TestBadInput(t *testing.T) {
	for _, tc := range []struct {
		name string
		file func(string) string
		args []string
		code int
		says []string
	}{
		{"no such kind", nil, []string{"run", "--kind", "all"}, exitUsage, []string{"full", "delta", "verify", "census", "remap", "backup"}},
		{"no command", nil, []string{"frobnicate"}, exitUsage, []string{"frobnicate", "--help"}},
		{"all mistakes at once", func(s string) string {
			return strings.NewReplacer("scope: all,", "scope: al,", "windows:", "colour: red\nwindows:").Replace(s)
		}, []string{"run", "--kind", "full"}, exitUsage, []string{"deltadesk.yaml:7", "colour", "deltadesk.yaml:8", "al", "Nothing was written"}},
		{"no full run yet", nil, []string{"run", "--kind", "delta"}, exitError, []string{"No full run", "--kind full"}},
		{"no such window", nil, []string{"run", "--kind", "delta", "--window", "night"}, exitUsage, []string{"night", "main", "see: deltadesk run --help"}},
		{"no such scope", nil, []string{"run", "--kind", "full", "--scope", "emea"}, exitUsage, []string{"emea", "all"}},
		{"since with full", nil, []string{"run", "--kind", "full", "--since", "2026-01-01T00:00:00Z"}, exitUsage, []string{"--since belongs to delta"}},
		{"heal with full", nil, []string{"run", "--kind", "full", "--heal"}, exitUsage, []string{"--heal belongs to verify"}},
		{"heal in a rehearsal", nil, []string{"run", "--kind", "verify", "--heal", "--dry-run"}, exitUsage, []string{"no rehearsal"}},
		{"adopt with a delta", nil, []string{"run", "--kind", "delta", "--adopt"}, exitUsage, []string{"--adopt belongs to full runs: deltadesk run --kind full --restart --adopt"}},
		{"adopt with verify", nil, []string{"run", "--kind", "verify", "--adopt"}, exitUsage, []string{"--adopt belongs to full runs"}},
		{"a delta of a scope", nil, []string{"run", "--kind", "delta", "--scope", "all"}, exitUsage, []string{"--window NAME instead of --scope all", "has main"}},
		{"a backup of a scope", nil, []string{"run", "--kind", "backup", "--scope", "all", "--mode", "create"}, exitUsage, []string{"--scope, --mode cannot be chosen", "--restart"}},
		{"a backup of a window", nil, []string{"run", "--kind", "backup", "--window", "main"}, exitUsage, []string{"--window cannot be chosen"}},
		{"both ways on", nil, []string{"run", "--kind", "full", "--continue", "--restart"}, exitUsage, []string{"choose one"}},
		{"restart of a delta", nil, []string{"run", "--kind", "delta", "--restart"}, exitUsage, []string{"belong to full runs"}},
		{"a mode of what only looks", nil, []string{"run", "--kind", "verify", "--mode", "create"}, exitUsage, []string{"has no mode"}},
		{"since a word", nil, []string{"run", "--kind", "delta", "--since", "yesterday"}, exitUsage, []string{`"yesterday"`, "write 2026-01-31T08:00:00Z or 2026-01-31"}},
		{"a sample of none", nil, []string{"run", "--kind", "sample", "--n", "0"}, exitUsage, []string{"--n must be 1 to 100"}},
		{"serve by nobody", nil, []string{"serve", "--every", "main=1h", "--workers", "0"}, exitUsage, []string{"--workers must be 1 to 64", "see: deltadesk serve --help"}},
		{"serve by too many", nil, []string{"serve", "--every", "main=1h", "--workers", "65"}, exitUsage, []string{"--workers must be 1 to 64"}},
		{"a flag that is not there", nil, []string{"decide", "1", "--feild", "status"}, exitUsage, []string{"--feild", "see: deltadesk decide --help"}},
		{"a value without one", nil, []string{"decide", "1", "--field", "status", "--choose", "value"}, exitUsage, []string{"--choose value needs --value v (to empty the field: --value '')", "see: deltadesk decide --help"}},
		{"a value for an entry", nil, []string{"decide", "1", "--entry", "7", "--choose", "value", "--value", "x"}, exitUsage, []string{"an entry is decided with"}},
		{"a field that is linked", nil, []string{"decide", "1", "--field", "status", "--link", "7"}, exitUsage, []string{"whole record"}},
		{"a deadline of no day", nil, []string{"extend", "main", "--until", "soon"}, exitUsage, []string{`"soon"`, "2026-01-31"}},
		{"mapping to a field that is not there", func(s string) string {
			return s + "mapping: {ticket: [{from: status, to: staus}]}\n"
		}, []string{"run", "--kind", "full"}, exitUsage, []string{":9", "staus"}},
		{"no store yet", nil, []string{"status"}, exitError, []string{"begin with a run"}},
		{"a damaged archive", func(s string) string { return strings.Replace(s, "folder: old", "folder: damaged", 1) }, []string{"run", "--kind", "full"}, exitError, []string{"damaged"}},
		{"backup without a folder", func(s string) string { return strings.Replace(s, "backup: {folder: backup}\n", "", 1) }, []string{"run", "--kind", "backup"}, exitError, []string{"backup: {folder:"}},
		{"two answers", nil, []string{"decide", "1", "--field", "status", "--choose", "source", "--create-again"}, exitUsage, []string{"say one of"}},
		{"no record", nil, []string{"explain", "queue/4"}, exitUsage, []string{"person/ID"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t)
			b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Fields: desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}}})
			if err := os.Mkdir(filepath.Join(b.dir, "damaged"), 0o700); err != nil {
				t.Fatal(err)
			}
			b.write("damaged/desk.json", "{not json")
			if tc.file != nil {
				b.write("deltadesk.yaml", tc.file(archives))
			}
			_, errs := b.do(tc.code, tc.args...)
			for i, w := range tc.says { // a sentence may begin with it
				tc.says[i] = strings.ToLower(w)
			}
			says(t, strings.ToLower(errs), tc.says...)
			b.untouched("new")
		})
	}
}

// A second process on the same store is told who has it; looking is possible all the time.
func TestBusyStore(t *testing.T) {
	b := newBench(t)
	b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Fields: desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}}})
	b.run(exitDone, "--kind", "full")
	s, err := localstore.Open(t.Context(), filepath.Join(b.dir, ".deltadesk"), localstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, errs := b.do(exitError, "run", "--kind", "delta")
	says(t, errs, fmt.Sprintf("process %d", os.Getpid()))
	b.do(exitDone, "status")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b.run(exitDone, "--kind", "delta")
}

// A store that belongs to other desks, and a cursor of another desk.
func TestForeign(t *testing.T) {
	b := newBench(t)
	b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Fields: desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}}})
	b.run(exitDone, "--kind", "full")
	b.write("deltadesk.yaml", strings.Replace(archives, "folder: old", "folder: other", 1))
	if err := os.CopyFS(filepath.Join(b.dir, "other"), os.DirFS(filepath.Join(b.dir, "old"))); err != nil {
		t.Fatal(err)
	}
	_, errs := b.do(exitError, "run", "--kind", "delta")
	says(t, errs, "this store belongs to", "other")

	// The folder stays, the desk in it is another one: the cursor is refused, the cutoff stays.
	b.write("deltadesk.yaml", archives)
	if err := os.RemoveAll(filepath.Join(b.dir, "old")); err != nil {
		t.Fatal(err)
	}
	b = &bench{t: t, dir: b.dir}
	d, err := archive.Connector.NewTarget(desk.Config{"folder": filepath.Join(b.dir, "old"), "fsync": "false"}, desk.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	b.add(d, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "9"}, Fields: desk.Fields{desk.Subject: {"nine"}}})
	_, errs = b.do(exitError, "run", "--kind", "delta")
	says(t, errs, "cursor")
}

// Ctrl-C: what has been taken up is finished, and the same command goes on.
func TestInterrupted(t *testing.T) {
	b := newBench(t)
	for i := range 30 {
		b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: fmt.Sprint(i)}, Fields: desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}}})
	}
	ctx, interrupt := context.WithCancel(t.Context())
	var out bytes.Buffer
	errs := writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("full run")) { // the first line: the run has begun
			interrupt()
		}
		return len(p), nil
	})
	args := []string{"--config", filepath.Join(b.dir, "deltadesk.yaml"), "run", "--kind", "full"}
	if code := run(ctx, args, &out, errs); code != exitError {
		t.Fatalf("exit code %d", code)
	}
	_, refusal := b.do(exitError, "run", "--kind", "full")
	says(t, refusal, "--continue", "--restart")
	rep := b.run(exitDone, "--kind", "full", "--continue")
	if rep.Counts.Created != 30 || rep.Status != string(delta.Verified) {
		t.Errorf("%+v", rep.Counts)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestNoSecrets plants words in everything that customers write and looks for them wherever they must not be: logs, errors,
// progress, reports, explanations, messages. (`held` shows values: that is what it is for.)
func TestNoSecrets(t *testing.T) {
	b := newBench(t)
	planted := []string{"PlantedSubject", "PlantedBody", "PlantedName", "planted@mail.example", "PlantedFile", "PlantedBytes", "PlantedStatus", "PlantedAgent"}
	ann := b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: "1"}, Fields: desk.Fields{desk.Name: {"PlantedName"}, desk.Email: {"planted@mail.example"}}})
	at := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	id := b.add(b.src, desk.Record{
		Ref:    desk.Ref{Kind: desk.Ticket, ID: "2"},
		Fields: desk.Fields{desk.Subject: {"PlantedSubject"}, desk.Status: {"open"}, desk.Requester: {ann}},
		Entries: []desk.Entry{{ID: "3", Marker: "people/3", Public: true, At: at, Body: "PlantedBody", Type: "text/plain", Author: desk.Author{ID: ann, Name: "PlantedName", Email: "planted@mail.example"},
			Files: []desk.File{{ID: "4", Name: "PlantedFile", Type: "text/plain", Size: 12, Open: func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader("PlantedBytes")), nil
			}}}}},
	})
	lost := b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "5"}, Fields: desk.Fields{desk.Subject: {"PlantedSubject"}, desk.Status: {"PlantedStatus"}}})
	b.write("deltadesk.yaml", archives+"mapping: {ticket: [{from: status, to: status, values: {open: open, stalled: stalled}, unmapped: block}]}\n")
	var seen strings.Builder
	look := func(want int, args ...string) {
		out, errs := b.do(want, append(args, "--log", "debug")...)
		seen.WriteString(out + errs)
	}
	look(exitExceptions, "run", "--kind", "full", "--json")
	if !strings.Contains(seen.String(), "ticket/"+lost) || !strings.Contains(seen.String(), `"msg":"pushed"`) {
		t.Fatal("nothing failed, or nothing was logged: there is nothing to look through")
	}
	b.edit(b.src, id, desk.Fields{desk.Status: {"stalled"}})
	out, _ := b.do(exitDone, "links")
	for line := range strings.Lines(out) {
		if f := strings.Split(strings.TrimSpace(line), ","); f[0] == id {
			b.edit(b.dst, f[1], desk.Fields{desk.Status: {"PlantedAgent"}})
		}
	}
	look(exitExceptions, "run", "--kind", "delta", "--json")
	look(exitExceptions, "run", "--kind", "delta")
	look(exitExceptions, "run", "--kind", "verify", "--json", "--heal")
	look(exitDone, "certificate")
	certificate := filepath.Join(b.dir, "certificate")
	look(exitDone, "certificate", "--out", certificate)
	b.edit(b.dst, id, desk.Fields{desk.Status: {"PlantedAgent", "PlantedStatus"}})
	b.inFile("new/records/ticket", "PlantedBody", "PlantedBody!")
	look(exitExceptions, "check", certificate)
	look(exitExceptions, "check", certificate, "--json")
	look(exitDone, "explain", id, "--json")
	look(exitDone, "explain", lost)
	look(exitDone, "status")
	look(exitDone, "report")
	for _, word := range planted {
		if strings.Contains(seen.String(), word) {
			t.Errorf("%q appears:\n%s", word, around(seen.String(), word))
		}
	}
}

func around(text, word string) string {
	i := strings.Index(text, word)
	return text[max(0, i-200):min(len(text), i+100)]
}

// serve runs a window's delta when its time has come, says so in one line, and ends cleanly on a signal.
func TestServe(t *testing.T) {
	b := newBench(t)
	b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Fields: desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}}})
	b.run(exitDone, "--kind", "full")
	b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "2"}, Fields: desk.Fields{desk.Subject: {"two"}, desk.Status: {"open"}}})
	ctx, interrupt := context.WithCancel(t.Context())
	var lines strings.Builder
	out := writerFunc(func(p []byte) (int, error) {
		lines.Write(p)
		if strings.Contains(lines.String(), "window main") { // the other one comes before
			interrupt()
		}
		return len(p), nil
	})
	var errs bytes.Buffer
	if code := run(ctx, []string{"--config", filepath.Join(b.dir, "deltadesk.yaml"), "serve", "--every", "main=1h,count=1h"}, out, &errs); code != exitDone {
		t.Fatalf("exit code %d\n%s", code, errs.String())
	}
	says(t, lines.String(), "window main: verified", "1 created", "window count: verified")
	says(t, errs.String(), "Stopped cleanly")
	ctx, interrupt = context.WithCancel(t.Context())
	lines.Reset()
	out = func(p []byte) (int, error) { interrupt(); return lines.Write(p) }
	if code := run(ctx, []string{"--config", filepath.Join(b.dir, "deltadesk.yaml"), "serve", "--json", "--every", "main=1h"}, out, io.Discard); code != exitDone {
		t.Fatalf("exit code %d", code)
	}
	var rep report.Report
	if err := json.Unmarshal([]byte(lines.String()), &rep); err != nil || rep.Window != "main" || strings.Count(lines.String(), "\n") != 1 {
		t.Errorf("serve --json: %v\n%s", err, lines.String())
	}
	_, usage := b.do(exitUsage, "serve", "--every", "night=1h")
	says(t, usage, `no window "night"`, "main")
	_, usage = b.do(exitUsage, "serve", "--every", "main=1ms")
	says(t, usage, "too often")
}

// What a desk sends is in no log, also where net/http writes it into the standard one by itself.
func TestStandardLogIsSilent(t *testing.T) {
	defer log.SetOutput(log.Writer())
	var said bytes.Buffer
	log.SetOutput(&said)
	newBench(t).do(exitDone, "--help")
	if log.Print("words of a customer"); said.Len() > 0 {
		t.Errorf("%q", said.String())
	}
}

// A sample says why it has each ticket, an undo takes it back and says what stays, and the full run brings everything once.
func TestSampleAndUndo(t *testing.T) {
	b := newBench(t)
	odd := b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Fields: desk.Fields{desk.Subject: {"שלום"}, desk.Status: {"open"}}})
	b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "2"}, Fields: desk.Fields{desk.Subject: {"plain"}, desk.Status: {"open"}}})
	mine := b.add(b.dst, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "3"}, Fields: desk.Fields{desk.Subject: {"of the new desk's own"}, desk.Status: {"open"}}})

	b.do(2, "run", "--kind", "full", "--n", "3")
	b.do(2, "run", "--kind", "sample", "--n", "101")
	text, _ := b.do(0, "run", "--kind", "sample", "--n", "1")
	if !strings.Contains(text, "ticket/"+odd+": right-to-left text") {
		t.Errorf("the sample does not say why:\n%s", text)
	}
	var o delta.Overview
	out, _ := b.do(0, "status", "--json")
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		t.Fatal(err)
	}
	sampled := o.Runs[0].ID
	b.do(0, "undo", sampled, "--dry-run")
	if text, _ = b.do(0, "undo", sampled); !strings.Contains(text, "undoes run "+sampled) {
		t.Errorf("the undo:\n%s", text)
	}
	if text, _ = b.do(0, "status"); !strings.Contains(text, "undone by run ") {
		t.Errorf("status after the undo:\n%s", text)
	}
	text, _ = b.do(0, "explain", odd)
	says(t, text, "undo         run ", ": removed", "next run over scope all: an undo took back what was written")
	if _, errs := b.do(1, "undo", sampled); !strings.Contains(errs, "was undone by run") {
		t.Errorf("a second undo: %s", errs)
	}
	if _, err := b.dst.Read(context.Background(), desk.Ref{Kind: desk.Ticket, ID: mine}); err != nil {
		t.Errorf("the target's own ticket: %v", err)
	}
	if rep := b.run(0, "--kind", "full"); rep.Counts.Created != 2 {
		t.Errorf("the full run after it: %+v", rep.Counts)
	}
}

// A field is emptied only by who says so, a day is a time for --since, and both are carried out.
func TestValueAndSince(t *testing.T) {
	b := newBench(t)
	id := b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Fields: desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}, desk.Custom("Cost"): {"1"}}})
	b.run(exitDone, "--kind", "full")
	b.edit(b.src, id, desk.Fields{desk.Custom("Cost"): {"2"}})
	b.edit(b.dst, id, desk.Fields{desk.Custom("Cost"): {"3"}})
	b.run(exitExceptions, "--kind", "delta", "--since", time.Now().UTC().Add(-24*time.Hour).Format(time.DateOnly))
	b.do(exitDone, "decide", id, "--field", "custom.Cost", "--choose", "value", "--value", "")
	b.run(exitDone, "--kind", "delta")
	now, err := b.dst.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: id})
	if err != nil || len(now.Fields[desk.Custom("Cost")]) != 0 {
		t.Errorf("custom.Cost is %q, %v", now.Fields[desk.Custom("Cost")], err)
	}
}

// TestJSON: with --json whatever a command says on standard output is JSON.
func TestJSON(t *testing.T) {
	b := newBench(t)
	id := b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Fields: desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}}})
	b.run(exitDone, "--kind", "full")
	b.run(exitDone, "--kind", "verify")
	b.edit(b.src, id, desk.Fields{desk.Status: {"stalled"}})
	b.edit(b.dst, id, desk.Fields{desk.Status: {"resolved"}})
	in := func(name string) string { return filepath.Join(b.dir, name) }
	for _, tc := range []struct {
		code int
		args []string
		says string
	}{
		{exitExceptions, []string{"run", "--kind", "delta"}, `"held":1`},
		{exitDone, []string{"status"}, `"windows"`},
		{exitDone, []string{"explain", id}, `"trail"`},
		{exitDone, []string{"held"}, `"fields"`},
		{exitDone, []string{"decide", id, "--field", "status", "--choose", "value", "--value", "open"}, `{"ref":{"kind":"ticket","id":"1"},"field":"status","choice":"value","value":["open"]}`},
		{exitDone, []string{"links"}, `"target_url"`},
		{exitDone, []string{"report"}, `"counts"`},
		{exitDone, []string{"report", "--html", in("page.html")}, `"counts"`},
		{exitDone, []string{"extend", "main", "--until", "2099-12-31"}, `{"window":"main","deadline":"2099-12-31T23:59:59Z"}`},
		{exitDone, []string{"certificate"}, `"sha256"`},
		{exitDone, []string{"certificate", "--out", in("certificate")}, `"sha256"`},
		{exitExceptions, []string{"check", in("certificate")}, `"not_the_same":1`},
	} {
		out, _ := b.do(tc.code, append(tc.args, "--json")...)
		var tight bytes.Buffer
		for d := json.NewDecoder(strings.NewReader(out)); ; {
			var v json.RawMessage
			if err := d.Decode(&v); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%v: %v\n%s", tc.args, err, out)
			}
			if err := json.Compact(&tight, v); err != nil {
				t.Fatal(err)
			}
		}
		says(t, tight.String(), tc.says)
	}
}

// Each sort of what waits says what it is, why it waits, and what was decided.
func TestHeldTable(t *testing.T) {
	b := newBench(t)
	at := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	ticket := func(id string) string {
		return b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: id}, Fields: desk.Fields{desk.Subject: {id}, desk.Status: {"open"}},
			Entries: []desk.Entry{{ID: id + "-1", Marker: "people/" + id, Public: true, At: at, Body: "hello", Type: "text/plain"}}})
	}
	gone, both, revised := ticket("gone"), ticket("both"), ticket("revised")
	b.run(exitDone, "--kind", "full")
	if err := b.dst.(desk.Deleter).Delete(t.Context(), desk.Ref{Kind: desk.Ticket, ID: gone}, ""); err != nil {
		t.Fatal(err)
	}
	b.edit(b.src, gone, desk.Fields{desk.Status: {"stalled"}})
	long := strings.Repeat("long ", 20)
	b.edit(b.src, both, desk.Fields{desk.Subject: {long}})
	b.edit(b.dst, both, desk.Fields{desk.Subject: {"short"}})
	revise := func(d desk.Target, body string) {
		t.Helper()
		r, err := d.Read(t.Context(), desk.Ref{Kind: desk.Ticket, ID: revised})
		if err != nil {
			t.Fatal(err)
		}
		e := r.Entries[0]
		e.Body = body
		if err := d.(desk.Reviser).Revise(t.Context(), r.Ref, e, r.Lock); err != nil {
			t.Fatal(err)
		}
	}
	revise(b.src, "another")
	ours, err := archive.Connector.NewTarget(desk.Config{"folder": filepath.Join(b.dir, "new"), "fsync": "false"}, desk.Deps{Migration: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	revise(ours, "a third")
	b.run(exitExceptions, "--kind", "delta")
	out, _ := b.do(exitDone, "held")
	says(t, out, "WHY", "ticket/gone    │ gone", "deleted in the target", "ticket/both    │ both", "long long long long long long long long…", "ticket/revised │ revised", "entry revised-1")
	for _, no := range []string{"in doubt", "as it was", strings.TrimSpace(long)} {
		if strings.Contains(out, no) {
			t.Errorf("it says %q:\n%s", no, out)
		}
	}
	b.do(exitDone, "decide", both, "--field", "subject", "--choose", "value", "--value", "")
	b.do(exitDone, "decide", gone, "--link", "9")
	out, _ = b.do(exitDone, "held")
	says(t, out, "empty, next run", "link 9, next run")
}

// A cutoff is shown by what moves in it, and nothing is wider than a table can bear.
func TestPlace(t *testing.T) {
	for cursor, want := range map[string]string{
		"":                                   "-",
		`{"archive_seq":7,"sum":"0123abcd"}`: "archive_seq 7",
		`{"rt":"https://rt.old.example:443","txn":4711,"gaps":[4700]}`: "txn 4711",
		`{"at":"2026-01-31T08:00:00Z","id":"x"}`:                       "at 2026-01-31 08:00:00 UTC",
		`{"id":"x"}`:                                                   `{"id":"x"}`,
		`"` + strings.Repeat("ü", 50) + `"`:                            `"` + strings.Repeat("ü", 38) + "…",
	} {
		if got := place(cursor); got != want {
			t.Errorf("%s: got %q, want %q", cursor, got, want)
		}
	}
}

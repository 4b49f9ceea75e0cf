//go:build rt

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/connectors/requesttracker/rttest"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/report"
)

var (
	rtSeed = flag.Int64("rt.seed", 20260310, "seed of mail, people and kills")
	rtDir  = flag.String("rt.dir", "", "folder for the servers; a temporary one, removed afterwards, if empty")
	rtPort = flag.Int("rt.port", 18470, "first of six ports")
)

// stage is two real Request Trackers, seeded, and the built command line.
type stage struct {
	t        *testing.T
	dir, bin string
	src, dst *rttest.Server
	seeded   *rttest.Script
	script   *rttest.Script
	people   *rttest.People
	before   int // actions when the migration began
	store    string
	decided  map[string]string
	taken    []int64                          // by earlier scenes
	undone   bool                             // a run was undone
	undated  bool                             // this RT does not keep when a ticket was made
	meaning  func(field, value string) string // of the mapping, where it has one
}

const migrationYAML = `migration: acme
owner: {name: Jo Doe, email: jo@acme.example}
decider: {name: Jo Doe, email: jo@acme.example}
source:
  connector: requesttracker
  options: {url: "%s", user: deltadesk, password: env:RT_PASSWORD, allow_http: true, allow_private: true}
target:
  connector: requesttracker
  options: {url: "%s", user: deltadesk, password: env:RT_PASSWORD, allow_http: true, allow_private: true, settle: 8s%s}
scopes:
  all: {}
  support: {filters: {group: [Support]}}
windows:
  everything: {scope: all, mode: create+update}
  support: {scope: support, mode: create+update}
policies:
  deleted: ignore
  merged: mirror
backup: {folder: %s}
`

// say prints a line of the protocol of the test.
func (s *stage) say(format string, args ...any) {
	fmt.Printf("test-rt %s %s\n", time.Now().UTC().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (s *stage) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// config writes a migration file.
func (s *stage) config(name, source, target, extra string) string {
	file := filepath.Join(s.dir, name)
	s.check(os.WriteFile(file, fmt.Appendf(nil, migrationYAML, source, target, extra, filepath.Join(s.dir, "backup")), 0o600))
	return file
}

func (s *stage) command(config string, args ...string) *exec.Cmd {
	c := exec.Command(s.bin, append(args, "--config", config, "--store", s.store)...)
	c.Env = append(os.Environ(), "RT_PASSWORD="+rttest.MigrationUser)
	return c
}

// do runs the command to its end and returns its standard output; codes are the exit codes that are right.
func (s *stage) do(config string, codes []int, args ...string) []byte {
	s.t.Helper()
	c := s.command(config, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if code := c.ProcessState.ExitCode(); !slices.Contains(codes, code) {
		s.t.Fatalf("deltadesk %s: exit code %d\n%s\n%s", strings.Join(args, " "), code, tail(errs.Bytes()), tail(out.Bytes()))
	}
	return out.Bytes()
}

func tail(b []byte) []byte { return b[max(0, len(b)-6000):] }

// run does one run and prints what it took.
func (s *stage) run(config string, args ...string) report.Report {
	s.t.Helper()
	began := time.Now()
	out := s.do(config, []int{exitDone, exitExceptions}, append([]string{"run", "--json"}, args...)...)
	var rep report.Report
	s.check(json.Unmarshal(out, &rep))
	s.check(report.Validate(out))
	s.check(report.Check(rep))
	c := rep.Counts
	s.say("%-6s %s: listed=%d dropped=%d planned=%d created=%d updated=%d unchanged=%d excluded=%d held=%d failed=%d | requests source=%d target=%d | %.1f s",
		rep.Kind, rep.Status, c.Listed, c.Dropped, c.Planned, c.Created, c.Updated, c.Unchanged, c.Excluded, c.Held, c.Failed,
		sum(rep.Requests["source"]), sum(rep.Requests["target"]), time.Since(began).Seconds())
	for i, e := range rep.Exceptions {
		if i < 20 {
			s.say("  %s %s: %s", e.Outcome, e.Record, e.Reason)
		}
	}
	return rep
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// oracle knows what the test has told it so far.
func (s *stage) oracle() *rttest.Oracle {
	return &rttest.Oracle{Source: s.src, Target: s.dst, Script: s.script, Decided: s.decided, DeletedBefore: s.before, Undone: s.undone, Undated: s.undated, Meaning: s.meaning}
}

// judge asks the oracle, prints its line, and fails the test unless it is satisfied.
func (s *stage) judge(unfinished bool) rttest.Result {
	s.t.Helper()
	o := s.oracle()
	o.Unfinished = unfinished
	r := must(o.Check(context.Background()))(s.t)
	s.judged(r)
	return r
}

func (s *stage) judged(r rttest.Result) {
	s.t.Helper()
	s.say("%s, made at another time: %d, of which a note tells it: %d", r, r.Undated, r.Noted)
	for _, d := range r.Details {
		s.say("  %s", d)
	}
	if !r.OK() {
		s.t.Errorf("%s", r)
	}
	if r.Tickets > 10 && (s.undated != (r.Undated > r.Noted) || s.undated != (r.Noted > 0)) {
		s.t.Errorf("when it was made is told in the thread of %d tickets, only by a note in %d; this RT keeps it: %t", r.Undated, r.Noted, !s.undated)
	}
}

// setup brings two servers up, fills them with what seed makes, and builds the command. Servers of another name and on
// other ports stand beside them.
func setup(t *testing.T, name string, port int, seed func(context.Context, *rttest.Server, int64) (*rttest.Script, error)) *stage {
	ctx := t.Context()
	s := &stage{t: t, dir: *rtDir}
	if s.dir == "" {
		s.dir = must(os.MkdirTemp("", "deltadesk-rt-"))(t)
		t.Cleanup(func() { os.RemoveAll(s.dir) })
	}
	s.check(os.MkdirAll(s.dir, 0o755))
	s.check(os.Chmod(s.dir, 0o755)) // the servers run as another user
	s.bin = filepath.Join(s.dir, "deltadesk")
	if out, err := exec.Command("go", "build", "-o", s.bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	began := time.Now()
	up := func(name string, port int, role rttest.Role) *rttest.Server {
		srv := must(rttest.Up(ctx, name, port, s.dir, rttest.Options{Role: role, Workers: 6}))(t)
		t.Cleanup(func() {
			if err := srv.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return srv
	}
	s.src, s.dst = up("src"+name, port, rttest.SourceRole), up("dst"+name, port+1, rttest.TargetRole)
	s.say("two Request Trackers are up, the target with its default scrips (%.0f s)", time.Since(began).Seconds())
	began = time.Now()
	saved := filepath.Join(s.dir, fmt.Sprintf("seeded%s-%d.json", name, *rtSeed))
	if script, err := rttest.LoadScript(saved); err == nil { // a folder that was used before
		s.seeded = script
		s.check(s.src.Reset(ctx))
		s.check(s.dst.Reset(ctx))
	} else {
		s.seeded = must(seed(ctx, s.src, *rtSeed))(t)
		s.check(rttest.SeedTarget(ctx, s.dst, s.seeded))
		s.check(s.seeded.Save(saved))
	}
	s.undated = !must(s.dst.KeepsCreated(ctx))(t)
	s.say("seeded: %d tickets, %d actions, seed %d (%.0f s)", s.seeded.Tickets(), len(s.seeded.Actions()), *rtSeed, time.Since(began).Seconds())
	t.Cleanup(func() {
		if s.people != nil {
			s.people.Close()
		}
	})
	return s
}

// begin brings both desks back to where they were when the migration began, with a store of its own.
func (s *stage) begin(name string, reset bool) {
	s.t.Helper()
	if reset {
		s.check(s.src.Reset(context.Background()))
		s.check(s.dst.Reset(context.Background()))
	}
	if s.people != nil {
		s.check(s.people.Close())
	}
	s.script = s.seeded.Clone()
	s.before = len(s.script.Actions())
	s.people = must(rttest.NewPeople(s.src, s.dst, s.script, *rtSeed))(s.t)
	s.store, s.decided = filepath.Join(s.dir, "store-"+name), map[string]string{}
	s.check(os.RemoveAll(s.store))
}

// work lets people work until stop is called; their mistakes fail the test.
func (s *stage) work(most int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.people.Run(ctx, most) }()
	return func() {
		cancel()
		s.check(<-done)
	}
}

// TestRequestTracker moves one real Request Tracker to another while people work on both. What must come of it is said by
// the people's own log and by both databases, never by the engine.
func TestRequestTracker(t *testing.T) {
	s := setup(t, "", *rtPort, rttest.Seed)
	acme := s.config("acme.yaml", s.src.URL, s.dst.URL, "")
	if !t.Run("dialogue", func(t *testing.T) { s.t = t; s.dialogue(acme) }) {
		return
	}
	t.Run("killed", func(t *testing.T) { s.t = t; s.killed(acme) })
	t.Run("backup", func(t *testing.T) { s.t = t; s.backup(acme) })
	t.Run("guard off", func(t *testing.T) { s.t = t; s.guardOff() })
	s.t = t
}

func (s *stage) dialogue(acme string) {
	t := s.t
	s.begin("dialogue", false)
	dry := s.run(acme, "--kind", "full", "--scope", "all", "--dry-run")

	stop := s.work(150)
	first := s.run(acme, "--kind", "full", "--scope", "all")
	stop()
	s.say("people did %d things during the full run", len(s.script.Actions())-s.before)
	s.unkept(first)
	if d := first.Counts.Planned - dry.Counts.Planned; d < 0 {
		t.Errorf("the dry run planned %d, the full run %d", dry.Counts.Planned, first.Counts.Planned)
	}

	stop = s.work(40)
	s.run(acme, "--kind", "delta", "--window", "everything")
	stop()
	s.check(s.people.Run(context.Background(), 40))
	s.run(acme, "--kind", "delta", "--window", "everything")
	s.check(s.people.Run(context.Background(), 20))
	disputed := must(s.people.Disagree(context.Background(), 3))(t)
	last := s.run(acme, "--kind", "delta", "--window", "everything")
	s.say("people did %d things in all", len(s.script.Actions())-s.before)
	r := s.judge(false)
	for _, id := range disputed {
		if !slices.Contains(r.Held, fmt.Sprintf("%d/priority", id)) {
			t.Errorf("both sides changed the priority of ticket %d, and the target has the source's", id)
		}
	}
	tickets := func(lists ...[]string) int {
		ids := map[string]bool{}
		for _, f := range slices.Concat(lists...) {
			id, _, _ := strings.Cut(f, "/")
			ids[id] = true
		}
		return len(ids)
	}
	if n := last.Counts.Held; n < tickets(r.Held) || n > tickets(r.Held, r.Either) {
		t.Errorf("the oracle says that %v need somebody (and perhaps %v), the run held %d records", r.Held, r.Either, n)
	}

	s.decide(acme, r)

	verify := s.run(acme, "--kind", "verify", "--scope", "all")
	if verify.Counts.Failed != 0 {
		t.Errorf("verify finds %d differences", verify.Counts.Failed)
	}
	s.idle(acme)
	s.look(acme)
	s.badInput(acme)
}

// unkept: where RT goes by its own clock when a ticket was made, the report of the run that made tickets says so; only there.
func (s *stage) unkept(rep report.Report) {
	s.t.Helper()
	n := 0
	for _, l := range rep.Losses {
		if l.Class == "unkept" {
			n = l.Count
		}
	}
	s.say("times of creation that were not kept: %d", n)
	if wrote := rep.Counts.Created + rep.Counts.Updated; s.undated && (n < 10 || n > wrote) || !s.undated && n > 0 {
		s.t.Errorf("of %d records written, the time of creation of %d is reported as not kept; this RT keeps them: %t", wrote, n, !s.undated)
	}
}

// badInput: each of these gets a clear error, writes nothing and leaves the cutoff where it was.
func (s *stage) badInput(acme string) {
	t := s.t
	good := string(must(os.ReadFile(acme))(t))
	windows := func() string {
		var o delta.Overview
		s.check(json.Unmarshal(s.do(acme, []int{exitDone}, "status", "--json"), &o))
		return fmt.Sprint(o.Windows, len(o.Runs))
	}
	before := windows()
	for name, bad := range map[string]struct {
		password, yaml string
		code           int
		says           []string
	}{
		"wrong password":     {"nonsense", good, exitError, []string{"source", "not authorised"}},
		"missing right":      {"agent1", strings.ReplaceAll(good, "user: deltadesk", "user: agent1"), exitError, []string{"SuperUser"}},
		"no secret":          {"", good, exitUsage, []string{"RT_PASSWORD", "Nothing was written"}},
		"unreachable":        {"deltadesk", strings.Replace(good, s.dst.URL, "http://127.0.0.1:1", 1), exitError, nil},
		"no such field":      {"deltadesk", good + "mapping: {ticket: [{from: custom.Order No, to: custom.Ordre No}]}\n", exitError, []string{"line ", "custom.Ordre No", "did you mean"}},
		"no such queue":      {"deltadesk", strings.Replace(good, "[Support]", "[Supp0rt]", 1), exitError, []string{"Supp0rt", "did you mean"}},
		"a changed scope":    {"deltadesk", strings.Replace(good, "all: {}", "all: {created_from: 2025-01-01}", 1), exitError, []string{"means something else"}},
		"an unknown setting": {"deltadesk", good + "colour: red\n", exitUsage, []string{"colour"}},
	} {
		file := filepath.Join(s.dir, "bad.yaml")
		s.check(os.WriteFile(file, []byte(bad.yaml), 0o600))
		c := s.command(file, "run", "--kind", "delta", "--window", "everything")
		c.Env = append(os.Environ(), "RT_PASSWORD="+bad.password)
		out, err := c.CombinedOutput()
		if code := c.ProcessState.ExitCode(); code != bad.code {
			t.Errorf("%s: exit code %d (%v), want %d\n%s", name, code, err, bad.code, tail(out))
		}
		for _, w := range bad.says {
			if !strings.Contains(string(out), w) {
				t.Errorf("%s does not say %q:\n%s", name, w, tail(out))
			}
		}
	}
	if after := windows(); after != before {
		t.Errorf("bad input moved something:\n%s\n%s", before, after)
	}
	s.say("bad input: refused, nothing written")
}

// decide answers everything that is held: the first for the source, the others for the target.
func (s *stage) decide(acme string, r rttest.Result) {
	var held []delta.Held
	s.check(json.Unmarshal(s.do(acme, []int{exitDone}, "held", "--json"), &held))
	n := 0
	for _, h := range held {
		for _, f := range h.Fields {
			choose := "target"
			if n == 0 {
				if len(h.Fields) > 1 {
					continue // one answer for the whole ticket is easier to tell the oracle
				}
				choose = "source"
				for _, id := range r.Held { // the oracle's name of the field
					if rest, ok := strings.CutPrefix(id, h.Ref.ID+"/"); ok {
						s.decided[h.Ref.ID+"/"+rest] = "source"
					}
				}
			}
			n++
			s.do(acme, []int{exitDone}, "decide", h.Ref.String(), "--field", string(f.Field), "--choose", choose)
		}
	}
	s.say("decided %d held fields", n)
	if n == 0 {
		s.t.Error("nothing was held: the dialogue did not try what it is to try")
	}
	rep := s.run(acme, "--kind", "delta", "--window", "everything")
	s.say("after the decisions: held=%d", rep.Counts.Held)
	s.judge(false)
}

// idle is a delta with nothing between.
func (s *stage) idle(acme string) {
	var held []delta.Held
	s.check(json.Unmarshal(s.do(acme, []int{exitDone}, "held", "--json"), &held))
	s.run(acme, "--kind", "delta", "--window", "everything")
	rep := s.run(acme, "--kind", "delta", "--window", "everything")
	s.say("requests of a delta without changes: %v", rep.Requests)
	if rep.Counts.Listed != len(held) || rep.Counts.Created+rep.Counts.Updated != 0 {
		s.t.Errorf("a delta without changes: %+v", rep.Counts)
	}
	if len(held) > 0 {
		return
	}
	for _, e := range []string{"PUT", "POST /ticket", "DELETE"} {
		for label := range rep.Requests["target"] {
			if strings.HasPrefix(label, e) {
				s.t.Errorf("a delta without changes made a request %s", label)
			}
		}
	}
	for label, n := range rep.Requests["source"] {
		if strings.Contains(label, "(list ") && n > 1 {
			s.t.Errorf("%d listing requests %q, want one per kind at the most", n, label)
		}
		if strings.Contains(label, "attachment") {
			s.t.Errorf("a delta without changes fetched %s", label)
		}
	}
	listed := slices.ContainsFunc(slices.Collect(maps.Keys(s.run(acme, "--kind", "delta", "--window", "everything", "--since", time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)).Requests["source"])),
		func(label string) bool { return strings.Contains(label, "(list ") })
	if !listed {
		s.t.Error("no request is counted as a listing: the count of listings proves nothing")
	}
}

// look tries the commands that tell people where things are.
func (s *stage) look(acme string) {
	links := strings.Split(strings.TrimSpace(string(s.do(acme, []int{exitDone}, "links"))), "\n")
	s.say("links: %d lines, %s", len(links), links[1])
	id, _, _ := strings.Cut(links[1], ",")
	explained := string(s.do(acme, []int{exitDone}, "explain", id))
	for _, want := range []string{"created", "read back", s.dst.URL} {
		if !strings.Contains(explained, want) {
			s.t.Errorf("explain %s does not say %q:\n%s", id, want, explained)
		}
	}
	s.do(acme, []int{exitDone}, "status")
	s.do(acme, []int{exitDone}, "report")
	s.do(acme, []int{exitDone}, "report", "--html", filepath.Join(s.dir, "report.html"))
	s.do(acme, []int{exitDone}, "extend", "everything", "--until", "2099-01-01")
	s.do(acme, []int{exitUsage}, "explain", "nonsense/1")
	s.do(acme, []int{exitError}, "run", "--kind", "full", "--scope", "all")
}

// killed kills the command at random moments of a full and of delta runs, and goes on every time.
func (s *stage) killed(acme string) {
	s.begin("killed", true)
	rng := rand.New(rand.NewPCG(uint64(*rtSeed), 7))
	kills := 0
	try := func(within time.Duration, args ...string) {
		s.t.Helper()
		after, killed, err := rttest.KillRandomly(s.command(acme, args...), rng, within)
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			s.t.Fatal(err)
		}
		if killed {
			kills++
			s.say("kill -9 number %d after %.2f s", kills, after.Seconds())
		}
	}
	stop := s.work(60)
	try(8*time.Second, "run", "--kind", "full", "--scope", "all")
	for range 11 {
		try(8*time.Second, "run", "--kind", "full", "--scope", "all", "--continue")
	}
	stop()
	full := s.command(acme, "run", "--kind", "full", "--scope", "all", "--continue", "--json")
	if out, err := full.Output(); err != nil && full.ProcessState.ExitCode() != exitExceptions && full.ProcessState.ExitCode() != exitError {
		s.t.Fatalf("%v\n%s", err, tail(out))
	}
	for n := 0; kills < 20 && n < 100; n++ {
		s.check(s.people.Run(context.Background(), 6))
		try(2500*time.Millisecond, "run", "--kind", "delta", "--window", "everything")
	}
	s.run(acme, "--kind", "delta", "--window", "everything")
	s.say("killed %d times, seed %d", kills, *rtSeed)
	if kills < 20 {
		s.t.Errorf("only %d kills came in time", kills)
	}
	s.judge(false)
}

// backup writes the source into an archive and restores the archive into an empty Request Tracker.
func (s *stage) backup(acme string) {
	s.begin("backup", true)
	s.check(os.RemoveAll(filepath.Join(s.dir, "backup")))
	s.run(acme, "--kind", "backup")
	empty := must(rttest.Up(context.Background(), "empty", *rtPort+2, s.dir, rttest.Options{Role: rttest.TargetRole, Workers: 6}))(s.t)
	defer func() { s.check(empty.Destroy(context.Background())) }()
	restore := filepath.Join(s.dir, "restore.yaml")
	yaml := fmt.Sprintf(migrationYAML, "http://unused", empty.URL, "", "./unused")
	from, to := strings.Index(yaml, "source:"), strings.Index(yaml, "target:")
	yaml = yaml[:from] + "source:\n  connector: archive\n  options: {folder: " + filepath.Join(s.dir, "backup") + "}\n" + yaml[to:]
	s.check(os.WriteFile(restore, []byte(strings.Replace(yaml, "migration: acme", "migration: restore", 1)), 0o600))
	s.store = filepath.Join(s.dir, "store-restore")
	s.check(os.RemoveAll(s.store))
	restored := s.run(restore, "--kind", "full", "--scope", "all")
	rep := s.run(restore, "--kind", "verify", "--scope", "all")
	if rep.Counts.Failed != 0 || rep.Counts.Held != 0 {
		s.t.Errorf("verify after the restore: %+v", rep.Counts)
	}
	for _, l := range append(restored.Losses, rep.Losses...) {
		s.say("  loss %s: %d", l.Class, l.Count)
		if !slices.Contains([]string{"status-history", "unkept", "entry-time", "entry-author", "last-updated", "transaction-numbers", "text-type", "file-name"}, l.Class) {
			s.t.Errorf("loss %s is not one that Request Tracker forces", l.Class)
		}
	}
	if mail, err := os.ReadFile(empty.MailLog); err == nil && len(mail) > 0 {
		s.t.Errorf("the restore mailed:\n%s", tail(mail))
	}
}

// guardOff is the control: without the guard the desk must mail, or counting mails would prove nothing.
func (s *stage) guardOff() {
	s.begin("guard-off", true)
	off := s.config("guard-off.yaml", s.src.URL, s.dst.URL, ", mail_guard: \"off\"")
	c := s.command(off, "run", "--kind", "full", "--scope", "all", "--json")
	out, err := c.Output()
	if err != nil && c.ProcessState.ExitCode() < 0 {
		s.t.Fatalf("%v\n%s", err, tail(out))
	}
	o := rttest.Oracle{Source: s.src, Target: s.dst, Script: s.script, Unfinished: true}
	r := must(o.Check(context.Background()))(s.t)
	s.say("control run with the mail guard off: mails=%d", r.Mails)
	if r.Mails == 0 {
		s.t.Error("the guard was off and nothing was mailed: the check of mails proves nothing")
	}
}

//go:build rt && soak

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/connectors/requesttracker/rttest"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/report"
)

var (
	soakFor  = flag.Duration("soak.for", 10*time.Minute, "how long people work on both desks")
	soakPace = flag.Duration("soak.pace", 400*time.Millisecond, "from one thing that somebody does to the next")
)

// TestSoak serves two windows over overlapping scopes, a delta of each every minute, while people work on both desks all
// the time. Then they stop, each window runs once more, and both desks must be the same but for what is held.
func TestSoak(t *testing.T) {
	s := setup(t, "", *rtPort, rttest.Seed)
	acme := s.config("acme.yaml", s.src.URL, s.dst.URL, "")
	s.begin("soak", false)
	s.run(acme, "--kind", "full", "--scope", "all")
	s.run(acme, "--kind", "full", "--scope", "support")

	serve := s.command(acme, "serve", "--every", "everything=1m,support=1m")
	errs := must(os.Create(filepath.Join(s.dir, "serve.log")))(t)
	defer errs.Close()
	serve.Stderr = errs
	out := must(serve.StdoutPipe())(t)
	s.check(serve.Start())
	ended := make(chan error, 1)
	go func() {
		for in := bufio.NewScanner(out); in.Scan(); {
			s.say("%s", in.Text())
		}
		ended <- serve.Wait()
	}()
	began := time.Now()
	s.everybodyWorks(began.Add(*soakFor), ended)
	s.say("people stop; serve is told to")
	s.check(serve.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-ended:
		if err != nil {
			log, _ := os.ReadFile(errs.Name())
			t.Fatalf("serve: %v\n%s", err, tail(log))
		}
	case <-time.After(2 * time.Minute):
		_ = serve.Process.Kill()
		t.Fatal("serve did not stop within two minutes of being told to")
	}
	s.run(acme, "--kind", "delta", "--window", "everything")
	s.run(acme, "--kind", "delta", "--window", "support")
	verify := s.run(acme, "--kind", "verify", "--scope", "all")
	if verify.Counts.Failed != 0 {
		t.Errorf("verify finds %d differences", verify.Counts.Failed)
	}
	o := s.oracle()
	o.LagSince = began
	r := must(o.Check(context.Background()))(t)
	s.judged(r)
	s.reckon(acme, r)
}

// everybodyWorks lets people do one thing after the other until the time has come. It ends early if serve does.
func (s *stage) everybodyWorks(until time.Time, ended <-chan error) {
	s.t.Helper()
	tick := time.NewTicker(*soakPace)
	defer tick.Stop()
	for time.Now().Before(until) {
		select {
		case err := <-ended:
			s.t.Fatalf("serve ended by itself: %v", err)
		case <-tick.C:
			s.check(s.people.Step(context.Background()))
		}
	}
}

// reckon prints what it all came to.
func (s *stage) reckon(acme string, r rttest.Result) {
	s.t.Helper()
	did := map[rttest.Role]int{}
	for _, a := range s.script.Actions()[s.before:] {
		did[a.Side]++
	}
	s.say("soak %s: people changed things %d times in the source and %d times in the target", *soakFor, did[rttest.SourceRole], did[rttest.TargetRole])
	var o delta.Overview
	s.check(json.Unmarshal(s.do(acme, []int{exitDone}, "status", "--json"), &o))
	runs, requests := map[string]int{}, map[string]int{}
	for _, x := range o.Runs {
		if x.Kind != delta.Delta {
			continue
		}
		var rep report.Report
		s.check(json.NewDecoder(bytes.NewReader(s.do(acme, []int{exitDone}, "report", x.ID, "--json"))).Decode(&rep))
		runs[x.Window]++
		runs[rep.Status]++
		requests["source"] += sum(rep.Requests["source"])
		requests["target"] += sum(rep.Requests["target"])
	}
	s.say("soak %s: runs %v, requests %v", *soakFor, runs, requests)
	if least := max(2, int(soakFor.Minutes()/2)); runs["everything"] < least || runs["support"] < least { // a slow machine misses turns
		s.t.Errorf("in %s the windows ran %d and %d times", *soakFor, runs["everything"], runs["support"])
	}
	if n := len(r.Lags); n > 0 {
		s.say("soak %s: %d entries took p50 %s, p95 %s, at most %s from desk to desk", *soakFor, n, r.Lags[n/2], r.Lags[n*95/100], r.Lags[n-1])
	} else {
		s.t.Error("no entry came over")
	}
	held := slices.Compact(slices.Sorted(func(yield func(string) bool) {
		for _, f := range r.Held {
			id, _, _ := strings.Cut(f, "/")
			if !yield(id) {
				return
			}
		}
	}))
	s.say("soak %s: %s, %d fields of %d tickets held, %d kept", *soakFor, r, len(r.Held), len(held), len(r.Kept))
}

//go:build simulate

package sim

import (
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"
)

var (
	runs  = flag.Int("sim.runs", 200, "how many migrations to play")
	seed  = flag.Uint64("sim.seed", 1, "what they follow from")
	run   = flag.Int("sim.run", 0, "play only this one, and print what happens")
	only  = flag.String("sim.only", "", "with -sim.run: numbers of the events that happen, comma-separated; all if empty")
	short = flag.Int("sim.shorten", 0, "shorten the trace of this run, which failed")
	first = flag.Bool("sim.first", false, "end with the first run that fails")
)

func TestSimulate(t *testing.T) {
	o := Options{Runs: *runs, Seed: *seed, Run: *run, First: *first, Out: os.Stdout}
	if *only == "none" {
		o.Only = []int{}
	} else if *only != "" {
		for _, s := range strings.Split(*only, ",") {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			o.Only = append(o.Only, n)
		}
	}
	if *short > 0 {
		shorten(t, *short)
		return
	}
	res := Simulate(o)
	if *run == 0 {
		rare := res.Table(os.Stdout)
		if res.Runs >= 1000 && len(rare) > 0 {
			t.Errorf("in fewer than one run in a hundred: %s", strings.Join(rare, ", "))
		}
	}
	if !res.Bad() {
		return
	}
	t.Errorf("run %d failed: %s", res.Failed, res.What)
	if *run == 0 && !*first {
		shorten(t, res.Failed)
	}
}

func shorten(t *testing.T, run int) {
	var s []string
	for _, n := range Shorten(*seed, run, os.Stdout) {
		s = append(s, strconv.Itoa(n))
	}
	t.Errorf("replay: make simulate SEED=%d RUN=%d ONLY=%s", *seed, run, strings.Join(s, ","))
}

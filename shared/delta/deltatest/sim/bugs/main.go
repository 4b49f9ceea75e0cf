// Command bugs shows that the simulation can fail. It breaks one decision after the other, of the engine or of what the
// simulated source promises to it, and wants the simulation to notice each one within a number of runs:
//
//	go run ./shared/delta/deltatest/sim/bugs
//
// Nothing in the engine knows of this. A bug is a small change of its text (table.go), made in a copy that the compiler
// takes for the file itself (build.go). So what is tried is the engine as it is, but for that one decision; and a change
// that no longer fits, because the engine has moved on, is an error.
//
// Each bug plays the same runs as the engine as it is (hunt.go): what counts is what goes wrong with the bug only.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/deltadesk/deltadesk/shared/delta/deltatest/sim"
)

func main() {
	runs := flag.Int("runs", 20_000, "within how many migrations each bug must be found")
	only := flag.String("only", "", "names of the bugs to try, comma-separated; all if empty")
	play := flag.Int("play", 0, "only play runs, beginning with this one, and write those that fail as JSON; how a copy with a bug in it is called")
	flag.Parse()
	if *play > 0 {
		res := sim.Simulate(sim.Options{From: *play, Runs: *runs, Seed: 1})
		if err := json.NewEncoder(os.Stdout).Encode(res.Why); err != nil {
			panic(err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := try(ctx, *runs, *only); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // nothing is left to be undone
	}
}

func try(ctx context.Context, runs int, only string) error {
	chosen := bugs()
	if only != "" {
		var err error
		if chosen, err = named(chosen, strings.Split(only, ",")); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "bugs")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return hunt(ctx, os.Stdout, dir, chosen, runs)
}

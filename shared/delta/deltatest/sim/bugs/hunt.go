package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// found is what the simulator says of the first run with a violation.
type found struct {
	run  int
	sort string // lost, doubled, overwritten, miscounted, stuck, leaked
	what string
}

// hunt tries one bug after the other and says how many runs it took to find each. It fails if one was not found.
func hunt(ctx context.Context, out io.Writer, dir string, chosen []bug, runs int) error {
	top, err := root(ctx)
	if err != nil {
		return err
	}
	sound, err := build(ctx, top, dir, "sound", nil)
	if err != nil {
		return err
	}
	total, missed := 0, []string{}
	for i, b := range chosen {
		began := time.Now()
		f, err := b.find(ctx, top, dir, runs)
		if err == nil {
			err = b.judge(ctx, sound, f, runs)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		total += f.run
		fmt.Fprintf(out, "%2d/%d %-28s invariant %-2d  runs=%-6d %s (%.0f s)\n", i+1, len(chosen), b.name, b.invariant, f.run, verdict(f, err), time.Since(began).Seconds())
		if err != nil {
			missed = append(missed, b.name)
		}
	}
	fmt.Fprintf(out, "bugs=%d found=%d runs=%d\n", len(chosen), len(chosen)-len(missed), total)
	if len(missed) > 0 {
		return fmt.Errorf("not found: %s", strings.Join(missed, ", "))
	}
	return nil
}

func verdict(f found, err error) string {
	if err != nil {
		return "NOT FOUND: " + err.Error()
	}
	return f.sort + ": " + f.what
}

// find plays runs with the bug in it up to the first violation.
func (b bug) find(ctx context.Context, top, dir string, runs int) (found, error) {
	copies, err := b.apply(top, dir)
	if err != nil {
		return found{}, err
	}
	program, err := build(ctx, top, dir, b.name, copies)
	if err != nil {
		return found{}, err
	}
	defer os.Remove(program)
	return simulate(ctx, program, "-sim.runs="+strconv.Itoa(runs), "-sim.first")
}

// judge tells whether what was found is this bug: a violation of the sort that is expected of it, in a run that the engine
// as it is comes through.
func (b bug) judge(ctx context.Context, sound string, f found, runs int) error {
	switch {
	case f.run == 0:
		return fmt.Errorf("not one of %d runs shows a violation", runs)
	case !slices.Contains(b.sorts, f.sort):
		return fmt.Errorf("run %d shows something else than %s: %s: %s", f.run, strings.Join(b.sorts, " or "), f.sort, f.what)
	}
	control, err := simulate(ctx, sound, "-sim.run="+strconv.Itoa(f.run))
	if err == nil && control.run != 0 {
		err = fmt.Errorf("the engine as it is fails in run %d, too: %s: %s", f.run, control.sort, control.what)
	}
	return err
}

var failed = regexp.MustCompile(`(?m)run (\d+) failed: (\w+): (.*)$`)

// simulate runs the simulator and returns the violation it found, the zero value if none.
func simulate(ctx context.Context, program string, args ...string) (found, error) {
	cmd := exec.CommandContext(ctx, program, append(args, "-test.run=^TestSimulate$", "-test.timeout=6h")...)
	cmd.Dir = filepath.Dir(program)
	out, err := cmd.CombinedOutput()
	m := failed.FindStringSubmatch(string(out))
	var exit *exec.ExitError
	switch {
	case err == nil && m == nil:
		return found{}, nil
	case errors.As(err, &exit) && m != nil:
		n, err := strconv.Atoi(m[1])
		return found{run: n, sort: m[2], what: m[3]}, err
	}
	return found{}, fmt.Errorf("the simulator broke down: %w\n%s", err, out[max(0, len(out)-2000):])
}

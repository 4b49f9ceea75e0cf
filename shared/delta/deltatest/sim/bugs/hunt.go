package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Runs are played in blocks. Before the first bug the engine as it is plays some, to see how good it is.
const (
	block = 50
	probe = 500
)

// violation is what the simulator says of a run.
type violation struct {
	sort string // lost, doubled, overwritten, miscounted, stuck, leaked
	what string
}

// program is one build of the simulator, with what it has played so far.
type program struct {
	path string
	bad  map[int]violation // by run
	next int               // the first run that it has not played
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
	if err := sound.play(ctx, min(probe, runs)); err != nil {
		return err
	}
	fmt.Fprintf(out, "the engine as it is: %d of %d runs show a violation\n", len(sound.bad), sound.next-1)
	missed := []string{}
	for i, b := range chosen {
		began := time.Now()
		c, err := b.find(ctx, top, dir, sound, runs)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		said := c.String()
		if err != nil {
			missed = append(missed, b.name)
			said = "NOT FOUND: " + err.Error()
		}
		fmt.Fprintf(out, "%2d/%d  %-27s invariant %-2d  runs=%-5d %s (%.0f s)\n", i+1, len(chosen), b.name, b.invariant, c.first, said, time.Since(began).Seconds())
	}
	fmt.Fprintf(out, "bugs=%d found=%d, each within %d runs\n", len(chosen), len(chosen)-len(missed), runs)
	if len(missed) > 0 {
		return fmt.Errorf("not found: %s", strings.Join(missed, ", "))
	}
	return nil
}

// find plays runs with the bug and without it until it is certain that the bug shows.
func (b bug) find(ctx context.Context, top, dir string, sound *program, runs int) (comparison, error) {
	copies, err := b.apply(top, dir)
	if err != nil {
		return comparison{}, err
	}
	broken, err := build(ctx, top, dir, b.name, copies)
	if err != nil {
		return comparison{}, err
	}
	defer os.Remove(broken.path)
	for upTo := block; upTo < runs+block; upTo += block {
		for _, p := range []*program{broken, sound} {
			if err := p.play(ctx, min(upTo, runs)); err != nil {
				return comparison{}, err
			}
		}
		if c := compare(broken, sound, b.sorts); c.certain() {
			return c, nil
		}
	}
	c := compare(broken, sound, b.sorts)
	return c, fmt.Errorf("%d runs: %s", runs, c)
}

// comparison holds the runs with a bug against the same runs without it.
type comparison struct {
	first   int // the first run that the bug alone spoils
	what    violation
	with    int // runs that show a violation of the sort expected, and none without the bug
	without int // the other way round
	others  int // runs that show another sort of violation than the one expected, and none without the bug
	dirty   int // runs of the engine as it is that show any violation at all
}

func compare(broken, sound *program, sorts []string) comparison {
	c := comparison{dirty: len(sound.bad)}
	for _, n := range slices.Sorted(maps.Keys(broken.bad)) {
		v := broken.bad[n]
		switch _, without := sound.bad[n]; {
		case without:
		case !slices.Contains(sorts, v.sort):
			c.others++
		default:
			if c.with++; c.first == 0 {
				c.first, c.what = n, v
			}
		}
	}
	for n, v := range sound.bad {
		if _, with := broken.bad[n]; !with && n < broken.next && slices.Contains(sorts, v.sort) {
			c.without++
		}
	}
	return c
}

// certain tells whether the bug has been seen. If the engine as it is comes through all runs, one is enough. As long as it
// does not, a bug shifts what happens in a world, and by that alone some runs begin to fail and others no longer do, as many
// of these as of those: then it has to be many more of these, beyond four standard deviations.
func (c comparison) certain() bool {
	if c.dirty == 0 {
		return c.with > 0
	}
	more := c.with - c.without
	return more > 0 && more*more >= 16*(c.with+c.without)
}

func (c comparison) String() string {
	s := fmt.Sprintf("shown by %d", c.with)
	if c.without > 0 {
		s += fmt.Sprintf(", hidden by %d", c.without)
	}
	if c.others > 0 {
		s += fmt.Sprintf(", something else by %d", c.others)
	}
	if c.first > 0 {
		s += fmt.Sprintf("; %s: %s", c.what.sort, c.what.what)
	}
	return s
}

// play goes on up to a run.
func (p *program) play(ctx context.Context, upTo int) error {
	for p.next <= upTo {
		n := min(block, upTo-p.next+1)
		out, err := exec.CommandContext(ctx, p.path, "-play="+strconv.Itoa(p.next), "-runs="+strconv.Itoa(n)).Output()
		if err != nil {
			return fmt.Errorf("play runs %d to %d: %w", p.next, p.next+n-1, err)
		}
		var why map[int]string
		if err := json.Unmarshal(out, &why); err != nil {
			return fmt.Errorf("play runs %d to %d: %w", p.next, p.next+n-1, err)
		}
		for run, s := range why {
			sort, what, _ := strings.Cut(s, ": ")
			what, _, _ = strings.Cut(what, "\n")
			p.bad[run] = violation{sort, what}
		}
		p.next += n
	}
	return nil
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/report"
)

type serveCmd struct {
	Every   map[string]time.Duration `required:"" mapsep:"," placeholder:"WINDOW=DURATION" help:"How often each window runs: --every main=5m,support=1h. Windows left out do not run."`
	Workers int                      `default:"4" help:"How many batches are worked on at a time."`
}

// Help is shown under the command.
func (serveCmd) Help() string {
	return "With --json the report of each run is a line of JSON."
}

// Run starts every window's delta or census when its time has come, one after the other, until no more work is to be taken up. A run
// that fails or is refused does not end the serving: the next turn tries again.
func (c *serveCmd) Run(a *app) error {
	if err := atOnce(a, c.Workers); err != nil {
		return err
	}
	l, err := a.open(false, c.Workers)
	if err != nil {
		return err
	}
	defer l.close()
	names := slices.Sorted(maps.Keys(c.Every))
	for _, n := range names {
		if _, ok := l.file.Migration.Windows[n]; !ok {
			return usage(a, "there is no window %q; the migration file has %s", n, strings.Join(slices.Sorted(maps.Keys(l.file.Migration.Windows)), ", "))
		}
		if c.Every[n] < time.Second {
			return usage(a, "--every %s=%s is too often: at least 1s", n, c.Every[n])
		}
	}
	next := map[string]time.Time{}
	for a.ctx.Err() == nil {
		now := time.Now()
		soonest := now.Add(time.Hour)
		for _, n := range names {
			if !next[n].After(now) {
				next[n] = now.Add(c.Every[n]).Truncate(time.Second)
				if err := c.turn(a, l, n); err != nil {
					return err
				}
			}
			if next[n].Before(soonest) {
				soonest = next[n]
			}
		}
		_ = rest(a.ctx, time.Until(soonest))
	}
	fmt.Fprintln(a.err, "Stopped cleanly.")
	return nil
}

func (c *serveCmd) turn(a *app, l *laptop, window string) error {
	kind := l.file.Migration.Windows[window].Kind
	rep, err := l.run(delta.Request{Kind: kind, Window: window})
	var code exit
	switch {
	case a.ctx.Err() != nil:
		return nil
	case errors.As(err, &code):
		return err
	case err != nil:
		fmt.Fprintf(a.err, "%s window %s: %v\n", time.Now().UTC().Format(time.TimeOnly), window, err)
		return nil
	}
	if a.cli.JSON {
		var whole, line bytes.Buffer
		if err := report.JSON(&whole, rep); err != nil {
			return err
		}
		if err := json.Compact(&line, whole.Bytes()); err != nil {
			return err
		}
		_, err := fmt.Fprintln(a.out, line.String())
		return err
	}
	k := rep.Counts
	fmt.Fprintf(a.out, "%s window %s: %s, %d listed, %d created, %d updated, %d held, %d failed (run %s)\n",
		time.Now().UTC().Format(time.TimeOnly), window, rep.Status, k.Listed, k.Created, k.Updated, k.Held, k.Failed, rep.Run)
	return nil
}

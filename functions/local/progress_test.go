package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/report"
)

func TestBar(t *testing.T) {
	at := func(listed bool, planned, finished, failed int) delta.Progress {
		return delta.Progress{Counts: report.Counts{Listed: planned, Planned: planned, Failed: failed}, Finished: finished, Listed: listed}
	}
	of := func(k delta.Kind) delta.Progress { return delta.Progress{Run: delta.Run{Kind: k}, Listed: true} }
	for _, tc := range []struct {
		at    delta.Progress
		first int
		took  time.Duration
		want  string
	}{
		{at(false, 40, 3, 0), 0, time.Second, "listing: 40 listed, 40 planned, 3 finished"},
		{of(delta.Delta), 0, time.Second, "nothing has changed"},
		{of(delta.Census), 0, time.Second, "nothing was missed"},
		{of(delta.Remap), 0, time.Second, "the mapping makes nothing else of anything"},
		{of(delta.Verify), 0, time.Second, "nothing to do"},
		{at(true, 100, 0, 0), 0, time.Minute, "[..............................] 0 of 100"},
		{at(true, 100, 50, 2), 10, 20 * time.Second, "[###############...............] 50 of 100, 2.0/s, about 25s left, 0 held, 2 failed"},
		{at(true, 100, 100, 0), 0, 50 * time.Second, "[##############################] 100 of 100, 2.0/s"},
	} {
		if got := bar(tc.at, tc.first, tc.took); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

// On a terminal one line is redrawn, and what is said in between gets a line of its own; elsewhere lines are plain and few.
func TestProgress(t *testing.T) {
	for _, tty := range []bool{true, false} {
		var b bytes.Buffer
		a := &app{err: &b, tty: tty}
		p := a.progress(delta.Run{ID: "R", Kind: delta.Full, Scope: "all"}, true)
		half := delta.Progress{Counts: report.Counts{Planned: 10}, Finished: 5, Listed: true}
		p.show(half)
		p.show(half)
		p.note("waiting: the desk is away")
		p.note("waiting: the desk is away")
		p.show(half)
		p.stop()
		out := b.String()
		if !strings.HasPrefix(out, "full run R of scope all, going on\n") || strings.Count(out, "the desk is away") != 1 || !strings.HasSuffix(out, "\n") {
			t.Errorf("tty=%v: %q", tty, out)
		}
		redrawn, lines := strings.Count(out, "\r\x1b[K"), strings.Count(out, "5 of 10")
		if tty && redrawn != 3 || !tty && (redrawn != 0 || lines != 1) {
			t.Errorf("tty=%v: redrawn %d times, %d lines: %q", tty, redrawn, lines, out)
		}
	}
}

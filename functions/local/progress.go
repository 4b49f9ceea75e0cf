package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// progress shows a run on its way: one line that is redrawn on a terminal, a plain line now and then elsewhere.
type progress struct {
	mu      sync.Mutex
	w       io.Writer
	tty     bool
	began   time.Time
	first   int // finished when this process took it up
	last    time.Time
	lastMsg string
	drawn   bool
	stopped bool
}

func (a *app) progress(r delta.Run, resumed bool) *progress {
	what := string(r.Kind) + " run " + r.ID
	if r.Undoes != "" {
		what += ", undoing run " + r.Undoes
	} else if r.Window != "" {
		what += " of window " + r.Window
	} else {
		what += " of scope " + r.Scope
	}
	if r.Dry {
		what += " (dry: nothing is written)"
	}
	if resumed {
		what += ", going on"
	}
	fmt.Fprintln(a.err, what)
	return &progress{w: a.err, tty: a.tty, began: time.Now(), first: -1}
}

func (p *progress) show(at delta.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	now := time.Now()
	if p.first < 0 {
		p.first = at.Finished
	}
	if !p.tty && now.Sub(p.last) < 5*time.Second && !at.Run.Status.Ended() {
		return
	}
	p.last = now
	line := bar(at, p.first, now.Sub(p.began))
	if p.tty {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		p.drawn = true
		return
	}
	fmt.Fprintln(p.w, line)
}

// bar says how far it is, how fast, and how long it will take.
func bar(at delta.Progress, first int, took time.Duration) string {
	c := at.Counts
	if !at.Listed && at.Run.Kind == delta.Sample {
		return "choosing the sample"
	}
	if !at.Listed {
		return fmt.Sprintf("listing: %d listed, %d planned, %d finished", c.Listed, c.Planned, at.Finished)
	}
	if c.Planned == 0 {
		switch at.Run.Kind {
		case delta.Delta:
			return "nothing has changed"
		case delta.Census:
			return "nothing was missed"
		case delta.Remap:
			return "the mapping makes nothing else of anything"
		}
		return "nothing to do"
	}
	const width = 30
	n := width * at.Finished / c.Planned
	line := fmt.Sprintf("[%s%s] %d of %d", strings.Repeat("#", n), strings.Repeat(".", width-n), at.Finished, c.Planned)
	if done := at.Finished - first; done > 0 && took > time.Second {
		rate := float64(done) / took.Seconds()
		line += fmt.Sprintf(", %.1f/s", rate)
		if left := c.Planned - at.Finished; left > 0 {
			line += ", about " + time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second).String() + " left"
		}
	}
	if c.Held+c.Failed > 0 {
		line += fmt.Sprintf(", %d held, %d failed", c.Held, c.Failed)
	}
	return line
}

// note says something once, until something else is to be said.
func (p *progress) note(msg string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || msg == p.lastMsg {
		return
	}
	p.lastMsg = msg
	if p.drawn {
		fmt.Fprintln(p.w)
		p.drawn = false
	}
	fmt.Fprintln(p.w, msg)
}

func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		fmt.Fprintln(p.w)
	}
	p.drawn, p.stopped = false, true
}

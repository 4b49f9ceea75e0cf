package report

import (
	"fmt"
	"math"
)

// flow is the picture of where the listed records went: three columns of bars, joined by bands as thick as their numbers.
type flow struct {
	Width, Height int
	Bands         []band
	Bars          []bar
}

type band struct{ Path, Class string }

// bar is a bar with its label to its right.
type bar struct {
	Class, Name, Count   string
	X, Y, H              string
	LabelX, NameY, NextY string
	None                 bool
}

const (
	flowFull  = 220.0 // the height of all that was listed
	flowSlot  = 40.0  // the least distance of two labels
	flowThick = 14.0  // of a bar
)

// newFlow lays the picture out. Bars that are too thin to see are drawn thicker.
func newFlow(r Report) flow {
	c := r.Counts
	if c.Listed <= 0 {
		return flow{}
	}
	scale := func(n int) float64 {
		if n <= 0 {
			return 0
		}
		return math.Max(1.5, float64(n)/float64(c.Listed)*flowFull)
	}
	const left, middle, right = 4.0, 250.0, 500.0
	f := flow{Width: 600}
	height := 0.0
	add := func(name string, n int, x, y float64) float64 {
		h := scale(n)
		at := y + 12 // of the label: beside the middle of a bar that is in the middle of bands, else beside its top
		if x < right && h > 60 {
			at = y + h/2 - 4
		}
		f.Bars = append(f.Bars, bar{
			Class: "c-" + name, Name: r.named([]tally{{name, n}})[0].name, Count: number(n), None: n == 0,
			X: px(x), Y: px(y), H: px(h), LabelX: px(x + flowThick + 8), NameY: px(at), NextY: px(at + 17),
		})
		height = math.Max(height, math.Max(y+h, y+flowSlot-6))
		return h
	}
	join := func(name string, x0, y0, x1, y1, h0, h1 float64) {
		if h0 <= 0 || h1 <= 0 {
			return
		}
		x0 += flowThick
		m := (x0 + x1) / 2
		f.Bands = append(f.Bands, band{Class: "c-" + name, Path: fmt.Sprintf("M%s %s C%s %s %s %s %s %s L%s %s C%s %s %s %s %s %s Z",
			px(x0), px(y0), px(m), px(y0), px(m), px(y1), px(x1), px(y1), px(x1), px(y1+h1), px(m), px(y1+h1), px(m), px(y0+h0), px(x0), px(y0+h0))})
	}
	const top = 4.0
	add("listed", c.Listed, left, top)

	// Planned on top, dropped below.
	planned := add("planned", c.Planned, middle, top)
	below := top + math.Max(planned, flowSlot) + 12
	dropped := add("dropped", c.Dropped, middle, below)
	share := flowFull * float64(c.Planned) / float64(c.Listed)
	join("planned", left, top, middle, top, share, planned)
	join("dropped", left, top+share, middle, below, flowFull-share, dropped)

	out := c.outcomes()
	if open := c.Planned - c.Finished(); open > 0 {
		out = append(out, tally{"unfinished", open})
	}
	from, to := top, top
	for _, o := range out {
		h := add(o.name, o.n, right, to)
		part := 0.0
		if c.Planned > 0 {
			part = planned * float64(o.n) / float64(c.Planned)
		}
		join(o.name, middle, from, right, to, part, h)
		from += part
		to += math.Max(h+6, flowSlot)
	}
	f.Height = int(height) + 8
	return f
}

// px writes a length in the picture.
func px(v float64) string { return fmt.Sprintf("%.1f", v) }

package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// textExceptions is how many exceptions a terminal shows.
const textExceptions = 10

// Text writes the closing lines for a terminal that is width columns wide (80 if not known), with colours if color is set.
func Text(w io.Writer, r Report, width int, color bool) error {
	if width <= 0 {
		width = 80
	}
	t := text{width: max(width, 40), color: color}
	for _, line := range t.fold("", Verdict(r)) {
		t.line(t.paint(statusColor(r), line))
	}
	if r.Why != "" {
		t.wrap("", r.Why)
	}
	t.line("")
	t.wrap("", strings.Join(facts(r), " · "))
	t.counts(r)
	t.pairs(r)
	t.losses(r)
	t.chosen(r)
	t.would(r)
	t.left(r)
	t.exceptions(r)
	if _, err := w.Write(t.b.Bytes()); err != nil {
		return fmt.Errorf("write report of run %s: %w", r.Run, err)
	}
	return nil
}

// facts names the run.
func facts(r Report) []string {
	f := []string{r.Migration, r.Kind}
	if r.Window != "" {
		f = append(f, "window "+r.Window)
	}
	f = append(f, "scope "+r.Scope)
	if r.Mode != "" {
		f = append(f, r.Mode)
	}
	if r.Undoes != "" {
		f = append(f, "undoes run "+r.Undoes)
	}
	if r.UndoneBy != "" {
		f = append(f, "undone by run "+r.UndoneBy)
	}
	f = append(f, "run "+r.Run, "since "+stamp(r.Started))
	if !r.Ended.IsZero() {
		f = append(f, "took "+length(r.Ended.Sub(r.Started)))
	}
	if r.Owner != "" {
		f = append(f, "owner "+r.Owner)
	}
	return f
}

const (
	green  = "32"
	yellow = "33"
	red    = "31"
	bold   = "1"
)

func statusColor(r Report) string {
	switch r.Status {
	case "verified":
		return bold + ";" + green
	case "stopped":
		return bold + ";" + red
	case "exceptions", "cancelled", "waiting":
		return bold + ";" + yellow
	}
	return bold
}

// text is what has been written so far.
type text struct {
	b     bytes.Buffer
	width int
	color bool
}

func (t *text) paint(color, s string) string {
	if !t.color {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

func (t *text) line(s string) { t.b.WriteString(strings.TrimRight(s, " ") + "\n") }

func (t *text) heading(s string) {
	t.line("")
	t.line(t.paint(bold, s))
}

// wrap writes s in lines that are not too long: the first begins with first, the others with as many spaces.
func (t *text) wrap(first, s string) {
	for _, line := range t.fold(first, s) {
		t.line(line)
	}
}

func (t *text) fold(first, s string) (lines []string) {
	line := first
	for i, word := range strings.Fields(clean(s)) {
		switch {
		case i == 0:
		case utf8.RuneCountInString(line+" "+word) > t.width:
			lines = append(lines, line)
			line = strings.Repeat(" ", utf8.RuneCountInString(first))
		default:
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// counts writes one column per kind, as many side by side as there is room for, and the sum.
func (t *text) counts(r Report) {
	columns := append([]KindCounts{}, r.ByKind...)
	if len(columns) != 1 {
		columns = append(columns, KindCounts{Kind: "all", Counts: r.Counts})
	}
	const first = 12
	for len(columns) > 0 {
		t.line("")
		head, n, used := strings.Repeat(" ", first), 0, first
		widths := []int{}
		for _, k := range columns {
			w := 2 + max(utf8.RuneCountInString(k.Kind), len(number(k.Listed)), 5)
			if n > 0 && used+w > t.width {
				break
			}
			head += pad(clean(k.Kind), w)
			widths = append(widths, w)
			used += w
			n++
		}
		t.line(t.paint(bold, head))
		for row, name := range r.named(r.Counts.all()) {
			line, some := fmt.Sprintf("%-*s", first, name.name), false
			if row > 2 || name.name == "dropped" {
				line = fmt.Sprintf("%-*s", first, "  "+name.name)
			}
			for i, k := range columns[:n] {
				v := k.Counts.all()[row].n
				line += pad(number(v), widths[i])
				some = some || v > 0
			}
			switch {
			case some && name.name == "held":
				line = t.paint(yellow, line)
			case some && name.name == "failed":
				line = t.paint(red, line)
			}
			t.line(line)
		}
		columns = columns[n:]
	}
	if open := r.Counts.Planned - r.Counts.Finished(); open > 0 {
		t.line(fmt.Sprintf("  %s not finished", Records(open)))
	}
}

// pad puts s to the right of a column.
func pad(s string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s))) + s
}

// pairs writes what is one line each.
func (t *text) pairs(r Report) {
	pair := func(name, value string) { t.wrap(fmt.Sprintf("%-12s", name), value) }
	t.line("")
	t.wrap("", cutoffWords(r))
	t.line("")
	for _, side := range []string{"source", "target"} {
		if n := sum(r.Requests[side]); n > 0 {
			pair(side, number(n)+" "+Plural(n, "request", "requests"))
		}
	}
	if r.Bytes > 0 {
		pair("files", size(r.Bytes))
	}
	var took []string
	for _, step := range steps(r.Seconds) {
		took = append(took, step+" "+length(seconds(r.Seconds[step])))
	}
	if len(took) > 0 {
		pair("work", strings.Join(took, ", "))
	}
	if len(r.Kept) > 0 {
		pair("kept", Records(len(r.Kept)+r.KeptLeftOut)+" with fields that people changed in the target, left as they are")
	}
	for _, e := range largest(r.Excluded) {
		pair("excluded", number(e.n)+": "+e.name)
	}
}

func (t *text) losses(r Report) {
	if len(r.Losses) == 0 {
		return
	}
	t.heading("What the target cannot keep")
	for _, l := range r.Losses {
		t.wrap("  ", fmt.Sprintf("%s, %s %s: %s", l.Class, number(l.Count), Plural(l.Count, "time", "times"), l.meaning()))
	}
}

// chosen says why each ticket of a sample is in it.
func (t *text) chosen(r Report) {
	if len(r.Chosen) == 0 {
		return
	}
	t.heading(fmt.Sprintf("Chosen, of %s looked at", number(r.Looked)))
	for _, c := range r.Chosen {
		t.wrap("  ", clean(c.Record)+": "+strings.Join(c.Features, ", "))
	}
}

// would lists what a rehearsal says that a run would do.
func (t *text) would(r Report) {
	if len(r.Would) == 0 {
		return
	}
	t.heading("What would be done")
	for _, l := range r.Would {
		record := clean(l.Record)
		if l.Target != "" {
			record += " (target " + clean(l.Target) + ")"
		}
		t.wrap("  ", record+": "+l.What)
	}
	if r.WouldLeftOut > 0 {
		t.line(fmt.Sprintf("  and %s more", number(r.WouldLeftOut)))
	}
}

// left lists what an undo could not take back. What also needs somebody is listed there.
func (t *text) left(r Report) {
	needs := map[string]bool{}
	for _, e := range r.Exceptions {
		needs[e.Record] = true
	}
	heading := false
	for _, l := range r.Left {
		if needs[l.Record] {
			continue
		}
		if !heading {
			t.heading("Stays in the target")
			heading = true
		}
		record := clean(l.Record)
		if l.Target != "" {
			record += " (target " + clean(l.Target) + ")"
		}
		t.wrap("  ", record+": "+strings.Join(l.What, "; "))
	}
}

func (t *text) exceptions(r Report) {
	if len(r.Exceptions) == 0 {
		return
	}
	t.heading("Needs somebody")
	if r.Decider != "" {
		t.wrap("  ", r.Decider+" decides.")
	}
	for _, e := range r.Exceptions[:min(len(r.Exceptions), textExceptions)] {
		color := yellow
		if e.Outcome == "failed" {
			color = red
		}
		record := clean(e.Record)
		if e.Target != "" {
			record += " (target " + clean(e.Target) + ")"
		}
		t.line("  " + t.paint(color, clean(r.outcome(e))) + " " + record)
		t.wrap("      ", e.Reason)
		if e.Next != "" {
			t.wrap("      → ", e.Next)
		}
	}
	switch n := len(r.Exceptions) + r.ExceptionsLeftOut - min(len(r.Exceptions), textExceptions); {
	case n > 0 && r.ExceptionsLeftOut > 0:
		t.line(fmt.Sprintf("  and %s more; the certificate names all of them", number(n)))
	case n > 0:
		t.line(fmt.Sprintf("  and %s more, which the report lists", number(n)))
	}
}

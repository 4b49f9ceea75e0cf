package report

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Verdict says in one or two sentences how the run went.
func Verdict(r Report) string {
	if !r.Dry {
		return verdict(r)
	}
	return "Rehearsal: nothing was written. " + verdict(r)
}

func verdict(r Report) string {
	c := r.Counts
	needs := c.Held + c.Failed
	switch r.Status {
	case "verified":
		switch {
		case r.Kind == "census":
			return "Nothing was missed: what the source shows and what was brought over agree, but for what the next delta brings anyway."
		case r.Kind == "remap":
			return fmt.Sprintf("The mapping makes something else of %s; the next delta writes what it makes of them.", Records(c.Updated))
		case r.Kind == "undo" && c.Planned == 0:
			return "Done. The run had written nothing."
		case r.Kind == "undo" && r.Dry:
			return fmt.Sprintf("All that the run did to %s would be taken back.", Records(c.Planned-c.Excluded))
		case r.Kind == "undo":
			return fmt.Sprintf("Undone: all that the run did to %s.", Records(c.Planned-c.Excluded))
		case r.Kind == "sample" && c.Planned == 0:
			return "Done. There is no ticket to take a sample of."
		case r.Kind == "verify" && c.Planned == 0:
			return "Done. There is nothing to compare."
		case c.Planned == 0:
			return "Done. Nothing had changed."
		case r.Kind == "verify":
			return fmt.Sprintf("Both sides agree: nothing differs in the %s compared.", Records(c.Planned-c.Excluded))
		case r.Dry:
			return fmt.Sprintf("All %s would go through.", planned(c))
		}
		return fmt.Sprintf("Done. All %s are accounted for.", planned(c))
	case "exceptions":
		switch {
		case r.Kind == "verify":
			return fmt.Sprintf("%s of %s compared %s.", number(needs), Records(c.Planned-c.Excluded), Plural(needs, "is not the same on both sides", "are not the same on both sides"))
		case r.Kind == "census":
			return fmt.Sprintf("%s of %s looked at %s missed by the deltas, or could not be looked at.", number(needs), Records(c.Planned), Plural(needs, "was", "were"))
		case r.Kind == "remap":
			return fmt.Sprintf("The mapping makes something else of %s; %s could not be looked at.", Records(c.Updated), number(needs))
		case r.Kind == "undo" && r.Dry:
			return fmt.Sprintf("%s of %s would not be taken back wholly.", number(needs), planned(c))
		case r.Kind == "undo":
			return fmt.Sprintf("Undone, but in %s of %s something stays as the run left it.", number(needs), planned(c))
		case r.Dry:
			return fmt.Sprintf("%s of %s would need somebody.", number(needs), planned(c))
		}
		return fmt.Sprintf("Done, but %s of %s %s somebody.", number(needs), planned(c), Plural(needs, "needs", "need"))
	case "stopped":
		return fmt.Sprintf("Stopped after %s of %s.", number(c.Finished()), planned(c))
	case "cancelled":
		return fmt.Sprintf("Cancelled after %s of %s.", number(c.Finished()), planned(c))
	case "waiting":
		return fmt.Sprintf("Waiting; it goes on by itself. %s of %s have an outcome.", number(c.Finished()), planned(c))
	case "running":
		return fmt.Sprintf("Running. So far %s of %s have an outcome.", number(c.Finished()), planned(c))
	}
	return "Status " + r.Status + "."
}

// outcome is what an exception is called: what an undo leaves is not held for a decision, it stays.
func (r Report) outcome(e Exception) string {
	if r.Kind == "undo" && e.Outcome == "held" {
		return "stays"
	}
	return e.Outcome
}

// cutoffWords says what became of the cutoff.
func cutoffWords(r Report) string {
	before, after := cursor(r.CutoffBefore), cursor(r.CutoffAfter)
	switch {
	case r.Kind == "sample":
		return "A sample moves no cutoff and makes no baseline."
	case r.Kind == "undo" && !r.Dry:
		return "The cutoff stayed where it was: what was taken back is due, and the next run brings it again."
	case before != after:
		return "The cutoff moved forward: the next delta lists what changed after the mark that this run began with."
	case r.Dry:
		return "The cutoff stayed where it was, because a rehearsal moves nothing."
	case r.Kind == "verify", r.Kind == "census", r.Kind == "remap":
		return "The cutoff stayed where it was, because a comparison moves nothing."
	case r.Status == "running" || r.Status == "waiting":
		return "The cutoff moves when the run has finished."
	case r.Status == "stopped" || r.Status == "cancelled":
		return "The cutoff stayed where it was: the next run lists the same changes again, so nothing is lost."
	}
	if r.Counts.Listed == 0 {
		return "The cutoff stayed where it was, because nothing had changed."
	}
	return "The cutoff stayed where it was."
}

// cursor shows a cutoff.
func cursor(c json.RawMessage) string {
	if s := string(bytes.TrimSpace(c)); s != "" && s != "null" {
		var b bytes.Buffer
		if json.Compact(&b, c) != nil {
			return s
		}
		return b.String()
	}
	return "the beginning"
}

// meaning of a class of losses, which a report of an older version may lack.
func (l LossClass) meaning() string {
	return cmp.Or(l.Meaning, "no description is known for this class")
}

func planned(c Counts) string {
	return number(c.Planned) + " planned " + Plural(c.Planned, "record", "records")
}

// Records says how many records, in the words of every report.
func Records(n int) string { return number(n) + " " + Plural(n, "record", "records") }

// Plural chooses the word for one or for more.
func Plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// number writes n with a comma between thousands.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes a number of bytes.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d bytes", n)
	}
	f := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB"} {
		if f /= 1000; f < 999.95 || unit == "TB" {
			return fmt.Sprintf("%.1f %s", f, unit)
		}
	}
	panic("unreachable")
}

// stamp writes a time.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// length writes a duration, as people say it.
func length(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

// seconds of a step as a duration.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// steps returns the names of steps in the order in which they are done.
func steps(m map[string]float64) []string {
	order := func(s string) int { return slices.Index([]string{"close", "push", "list"}, s) } // unknown ones last
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(order(b), order(a)), strings.Compare(a, b))
	})
}

// largest returns the names in m, those with the largest numbers first.
func largest(m map[string]int) []tally {
	var all []tally
	for name, n := range m {
		all = append(all, tally{name, n})
	}
	slices.SortFunc(all, func(a, b tally) int { return cmp.Or(cmp.Compare(b.n, a.n), strings.Compare(a.name, b.name)) })
	return all
}

// sum of the numbers in m.
func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// clean replaces what could play tricks on a terminal: control characters, and those that turn the direction of writing.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

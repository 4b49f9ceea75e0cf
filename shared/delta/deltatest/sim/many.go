package sim

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a simulation.
type Options struct {
	Runs int
	// From is the number of the first one; 0 means 1.
	From int
	Seed uint64
	// Run plays only this one, with its trace; 0 plays all.
	Run int
	// Only names the events of the script that happen; nil means all.
	Only []int
	// First ends the simulation with the first violation, and shortens nothing.
	First bool
	Out   io.Writer
}

// Result of a simulation.
type Result struct {
	Runs int
	// By counts runs with a violation, by sort.
	By map[string]int
	// Found counts the runs in which something occurred.
	Found map[string]int
	// Why says of each run that failed what was found first: the sort of violation, a colon, what is wrong.
	Why map[int]string
	// Failed is the first run that failed, 0 if none did.
	Failed int
	What   string
}

// sortsOfViolation in the order in which they are printed.
var sortsOfViolation = []string{"lost", "doubled", "overwritten", "miscounted", "stuck", "leaked"}

// Bad tells whether any run showed a violation.
func (r Result) Bad() bool { return r.Failed != 0 }

// Line is the summary in one line.
func (r Result) Line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "runs=%d", r.Runs)
	for _, s := range sortsOfViolation {
		fmt.Fprintf(&b, " %s=%d", s, r.By[s])
	}
	return b.String()
}

func seedOf(seed uint64, run int) uint64 { return seed*1_000_003 + uint64(run) } //nolint:gosec // run is above 0

// one plays one run.
func playOne(seed uint64, only []int, loud bool) (w *world) {
	w = newWorld(seed)
	w.loud = loud
	w.say("%+v", w.p)
	script := newScript(w.p)
	if only != nil {
		script = slices.DeleteFunc(script, func(e event) bool { return !slices.Contains(only, e.no) })
	}
	defer func() {
		if p := recover(); p != nil {
			w.violate("stuck", "panic: %v\n%s", p, debug.Stack())
		}
	}()
	w.play(script)
	return w
}

// Simulate plays runs on all processors and sums up what occurred.
func Simulate(o Options) Result {
	if o.Run > 0 {
		return replay(o)
	}
	debug.SetGCPercent(400)
	res := Result{By: map[string]int{}, Found: map[string]int{}, Why: map[int]string{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin := max(o.From, 1)
	next, began, said := begin-1, time.Now(), time.Now()
	stop, failed := false, 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				if next++; next >= begin+o.Runs || stop {
					mu.Unlock()
					return
				}
				n := next
				mu.Unlock()
				w := playOne(seedOf(o.Seed, n), nil, false)
				mu.Lock()
				res.Runs++
				for what := range w.found {
					res.Found[what]++
				}
				for _, s := range sortsOfViolation {
					if slices.ContainsFunc(w.bad, func(v violation) bool { return v.Sort == s }) {
						res.By[s]++
					}
				}
				if len(w.bad) > 0 {
					res.Why[n] = w.bad[0].Sort + ": " + w.bad[0].What
					if res.Failed == 0 || n < res.Failed {
						res.Failed, res.What = n, res.Why[n]
					}
					stop = stop || o.First
					if failed++; failed <= 12 && o.Out != nil {
						line, _, _ := strings.Cut(w.bad[0].What, "\n")
						fmt.Fprintf(o.Out, "  run %d: %s: %s\n", n, w.bad[0].Sort, line)
					}
				}
				if o.Out != nil && time.Since(said) > 20*time.Second {
					said = time.Now()
					fmt.Fprintf(o.Out, "  … %s, %.1f runs a second\n", res.Line(), float64(res.Runs)/time.Since(began).Seconds())
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if o.Out != nil {
		fmt.Fprintf(o.Out, "%s seed=%d seconds=%.1f runs_per_second=%.1f\n", res.Line(), o.Seed, time.Since(began).Seconds(), float64(res.Runs)/time.Since(began).Seconds())
	}
	return res
}

// replay plays one run and prints its trace.
func replay(o Options) Result {
	w := playOne(seedOf(o.Seed, o.Run), o.Only, true)
	res := Result{Runs: 1, By: map[string]int{}, Found: w.found}
	for _, v := range w.bad {
		res.By[v.Sort]++
		res.Failed, res.What = o.Run, w.bad[0].Sort+": "+w.bad[0].What
	}
	for _, l := range w.trace {
		fmt.Fprintln(o.Out, l)
	}
	for _, v := range w.bad {
		fmt.Fprintf(o.Out, "%s: %s\n", v.Sort, v.What)
	}
	return res
}

// class is what is wrong, without the records that it is wrong with.
func (v violation) class() string {
	line, _, _ := strings.Cut(v.What, "\n")
	line = quoted.ReplaceAllString(line, "")
	return v.Sort + " " + line
}

var quoted = regexp.MustCompile(`"[^"]*"|[0-9]+`)

// eventLine is how an event stands in a trace.
var eventLine = regexp.MustCompile(` #[0-9]+ `)

// Shorten leaves out every event of a failed run without which it still fails in the same way, and returns the numbers of
// those that it needs.
func Shorten(seed uint64, run int, out io.Writer) []int {
	s := seedOf(seed, run)
	w := playOne(s, nil, false)
	if len(w.bad) == 0 {
		return nil
	}
	first := w.bad[0].class()
	fails := func(only []int) bool {
		w := playOne(s, only, false)
		return len(w.bad) > 0 && w.bad[0].class() == first
	}
	var keep []int
	for _, e := range newScript(newParams(s)) {
		keep = append(keep, e.no)
	}
	tries := 0
	for size := len(keep) / 2; size >= 1; size /= 2 {
		for i := 0; i < len(keep) && tries < 600; {
			less := append(slices.Clone(keep[:i]), keep[min(i+size, len(keep)):]...)
			if tries++; fails(less) {
				keep = less
			} else {
				i += size
			}
		}
	}
	if keep == nil {
		keep = []int{}
	}
	fmt.Fprintf(out, "shortened to %d events in %d tries\n", len(keep), tries)
	return keep
}

// Table prints how often everything occurred, and returns what occurred in fewer than one run in a hundred.
func (r Result) Table(out io.Writer) (rare []string) {
	all := map[string]int{}
	for _, s := range expected() {
		all[s] = 0
	}
	maps.Copy(all, r.Found)
	group := ""
	for _, what := range slices.Sorted(maps.Keys(all)) {
		if g, _, _ := strings.Cut(what, "/"); g != group {
			group = g
			fmt.Fprintf(out, "%s\n", g)
		}
		_, name, _ := strings.Cut(what, "/")
		fmt.Fprintf(out, "  %-52s %7d runs %6.1f %%\n", name, all[what], 100*float64(all[what])/float64(max(r.Runs, 1)))
	}
	for _, what := range expected() {
		if r.Found[what]*100 < r.Runs {
			rare = append(rare, what)
		}
	}
	return rare
}

// expected is all that must occur in at least one run in a hundred: every fault, everything that people and operators do,
// what becomes of runs, ledger rows, held and due records, every outcome. What the engine avoids by waiting (a search that
// lags behind a create) and what two rare things must meet for (a run that is cancelled before it has begun) is printed, and
// not demanded.
func expected() []string {
	out := []string{
		"undo/done", "undo/a delta", "undo/a ticket is removed", "undo/a ticket stays", "census/missed update", "store/somebody was faster",
		"desk/automation", "desk/changed between two pages", "desk/entry revised", "desk/list cap", "desk/lock conflict", "desk/not listed yet",
		"desk/one stamp on two pages", "desk/stale read", "clock/a desk 10 minutes off", "clock/ours up to 10 minutes off",
	}
	for group, names := range map[string]string{
		"run": " → running, running → verified, running → exceptions, running → stopped, running → cancelled, running → waiting, waiting → running, " +
			"waiting → cancelled, stopped → running, cancelled → running, continued, resumed, refused, schedule doubled",
		"ledger": "claimed, claim ended, claim taken over, created, create finished, found, decided, held, no longer held, gone, back again, merged, " +
			"merged in the target, fenced off",
		"held":    "kept, settled, in doubt, gone in the target, asked again, decided source, decided target, decided value, decided link, decided create",
		"due":     "held, failed, mode, link, moved, scope, decision, undone, missed, mapping, verify",
		"outcome": "created, updated, unchanged, excluded, held, failed",
	} {
		for name := range strings.SplitSeq(names, ", ") {
			out = append(out, group+"/"+name)
		}
	}
	for _, s := range sorts {
		side, what, _ := strings.Cut(s.what, ": ")
		switch side {
		case "fault":
			out = append(out, "fault/"+what)
		case "operator":
			out = append(out, "operator/"+what)
		default:
			out = append(out, "people/"+s.what)
		}
	}
	slices.Sort(out)
	return out
}

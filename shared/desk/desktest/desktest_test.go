package desktest

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// TestMem: a desk that keeps its promises passes, and nothing is skipped.
func TestMem(t *testing.T) {
	o := newMem("").options()
	for _, name := range Rules() {
		t.Run(name, func(t *testing.T) {
			rec := try(t.Context(), o, name)
			if len(rec.failures) > 0 || rec.skipped != "" && name != "source/empty" {
				t.Errorf("skipped %q, failures:\n%s", rec.skipped, strings.Join(rec.failures, "\n"))
			}
		})
	}
}

// flaws maps each way of breaking the contract to the rules that must notice.
var flaws = map[string][]string{
	"lists a ghost":           {"source/empty"},
	"check fails":             {"source/check", "target/check"},
	"one page only":           {"source/pages"},
	"people unseen":           {"source/people"},
	"resume is lost":          {"source/resume"},
	"drops ties":              {"source/same-second", "source/pages"},
	"updates unseen":          {"source/update"},
	"offset paging":           {"source/mutation"},
	"hides deletes":           {"source/delete"},
	"forgets aliases":         {"source/merge"},
	"other kinds fail":        {"source/other-kind"},
	"accepts damaged cursors": {"source/damaged-cursor"},
	"accepts foreign cursors": {"source/foreign-cursor"},
	"rewinds too little":      {"source/rewind"},
	"ignores contexts":        {"source/cancel", "target/cancel"},
	"empty strings":           {"source/records"},
	"reverses threads":        {"source/entries"},
	"began in the future":     {"source/began"},
	"random ids":              {"source/digest"},
	"unknown is empty":        {"source/unknown", "target/gone"},
	"cuts files":              {"source/files", "target/files"},
	"defines nothing":         {"source/define", "target/define"},
	"check writes":            {"source/read-only"},
	"all public":              {"target/create-read", "source/entries"},
	"ignores names":           {"target/people"},
	"retries creates":         {"target/lost-answer", "errors/500"},
	"finds too much":          {"target/find"},
	"matches everybody":       {"target/match"},
	"applies more each time":  {"target/apply-again"},
	"makes equal":             {"target/apply-only-named"},
	"ignores updates":         {"target/update"},
	"ignores unset":           {"target/unset"},
	"ignores links":           {"target/links"},
	"forgets markers":         {"target/entries", "target/create-read"},
	"markers on others":       {"target/markers-of-others"},
	"entry times are now":     {"target/times-authors"},
	"trims bodies":            {"target/texts"},
	"same ids":                {"target/parallel"},
	"gone is fine":            {"target/gone"},
	"ignores locks":           {"target/lock"},
	"stays public":            {"target/revise"},
	"keeps subjects":          {"target/revise"},
	"revises what has moved":  {"target/revise"},
	"keeps files":             {"target/revise"},
	"hides files":             {"target/revise"},
	"merge deletes":           {"target/merge"},
	"merges what has moved":   {"target/merge"},
	"deletes nothing":         {"target/delete"},
	"deletes what has moved":  {"target/delete"},
	"deletes what lives on":   {"target/delete"},
	"mails":                   {"target/silent"},
	"own client":              {"errors/client"},
	"misreads 401":            {"errors/401"},
	"misreads 403":            {"errors/403"},
	"misreads 404":            {"errors/404"},
	"misreads 409":            {"errors/409"},
	"misreads 500":            {"errors/500"},
	"misreads 502":            {"errors/502"},
	"429 seconds":             {"errors/429-seconds"},
	"429 date":                {"errors/429-date"},
	"html is fine":            {"errors/html"},
	"cut is fine":             {"errors/cut"},
	"timeout is rejected":     {"errors/timeout"},
	"tells secrets":           {"errors/401"},
}

// TestFlaws: each rule fails on a desk that breaks it.
func TestFlaws(t *testing.T) {
	caught := map[string]bool{}
	for _, flaw := range slices.Sorted(maps.Keys(flaws)) {
		for _, name := range flaws[flaw] {
			caught[name] = true
			t.Run(flaw+"/"+name, func(t *testing.T) {
				rec := try(t.Context(), newMem(flaw).options(), name)
				if len(rec.failures) == 0 {
					t.Errorf("the rule passes (skipped: %q)", rec.skipped)
				}
				for _, f := range rec.failures {
					t.Log(f)
					if strings.HasPrefix(f, "panic") {
						t.Error("the rule panics")
					}
				}
			})
		}
	}
	for _, name := range Rules() {
		if !caught[name] {
			t.Errorf("no flaw shows that %s can fail", name)
		}
	}
}

// TestLag: a desk may lag as long as it says, and no longer.
func TestLag(t *testing.T) {
	const lag = 60 * time.Millisecond
	about := []string{"source/pages", "source/update", "source/mutation", "source/delete", "source/merge", "target/find", "target/lost-answer"}
	for _, name := range about {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			honest, liar := newMem(""), newMem("")
			honest.lag, honest.declared = lag, 10*lag
			liar.lag, liar.declared = 20*lag, lag
			if rec := try(t.Context(), honest.options(), name); len(rec.failures) > 0 {
				t.Errorf("a lag that is declared fails: %q", rec.failures)
			}
			if rec := try(t.Context(), liar.options(), name); len(rec.failures) == 0 {
				t.Error("a lag longer than declared passes")
			}
		})
	}
}

func TestFaults(t *testing.T) {
	good := newMem("").options()
	good.Skip = map[string]string{"source/merge": "merging is a matter of the paid edition, see https://vendor.example/merge"}
	for _, tt := range []struct {
		name  string
		spoil func(*Options)
		want  string
	}{
		{"good", func(*Options) {}, ""},
		{"unknown rule", func(o *Options) { o.Skip = map[string]string{"source/nonsense": "https://vendor.example"} }, "no rule"},
		{"no link", func(o *Options) { o.Skip = map[string]string{"source/merge": "flaky"} }, "does not link"},
		{"no side", func(o *Options) { o.Source, o.Target = nil, nil }, "neither"},
		{"no constructor", func(o *Options) { o.Connector = desk.Connector{} }, "neither"},
		{"no seed", func(o *Options) { o.Seed = nil }, "Seed is required"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := good
			tt.spoil(&o)
			var got []string
			for _, err := range faults(o) {
				got = append(got, err.Error())
			}
			if tt.want == "" && len(got) > 0 || tt.want != "" && !strings.Contains(strings.Join(got, "\n"), tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestOneSide: a connector with one side is tried on that side alone.
func TestOneSide(t *testing.T) {
	o := newMem("").options()
	o.Target = nil
	if rec := try(t.Context(), o, "target/find"); rec.skipped == "" {
		t.Error("a target rule runs without a target")
	}
	if rec := try(t.Context(), o, "errors/500"); len(rec.failures) > 0 {
		t.Errorf("got %q", rec.failures)
	}
	o = newMem("").options()
	o.Source, o.Seed = nil, nil
	if rec := try(t.Context(), o, "source/pages"); rec.skipped == "" {
		t.Error("a source rule runs without a source")
	}
	if rec := try(t.Context(), o, "errors/429-date"); len(rec.failures) > 0 || rec.skipped != "" {
		t.Errorf("got %q, skipped %q", rec.failures, rec.skipped)
	}
}

// TestRun runs the suite as a connector's test does.
func TestRun(t *testing.T) {
	t.Setenv("DESKTEST_NO_SKIP", "1")
	Run(t, newMem("").options())
}

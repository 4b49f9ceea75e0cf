package delta_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The comments of the engine name the actions of its model, and every action is named in one: neither drifts away from the
// other. Whether the model holds is checked by `make model`.
func TestModelNamesTheCode(t *testing.T) {
	spec, err := os.ReadFile("model/Migration.tla")
	if err != nil {
		t.Fatal(err)
	}
	actions := modelActions(string(spec))
	if len(actions) < 20 {
		t.Fatalf("found only these actions in the model: %v", actions)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names, wrong := namedActions(string(code))
		for _, w := range wrong {
			t.Errorf("%s: a comment says %q; want \"model: Action\", or several with commas", file, w)
		}
		for _, name := range names {
			named[name] = true
			if !slices.Contains(actions, name) {
				t.Errorf("%s: a comment names the action %s, and the model has none of that name; it has %s", file, name, strings.Join(actions, ", "))
			}
		}
	}
	for _, a := range actions {
		if !named[a] {
			t.Errorf("no comment of the engine says \"model: %s\": which code is it?", a)
		}
	}
}

var (
	modelWords = regexp.MustCompile(`\bmodel: \S*`)
	modelNames = regexp.MustCompile(`^model: ([A-Z][A-Za-z]*(?:, [A-Z][A-Za-z]*)*)`)
)

// namedActions returns the actions that comments of Go code name, and what stands where a name should.
func namedActions(code string) (names, wrong []string) {
	var text strings.Builder
	for line := range strings.Lines(code) {
		if c := strings.Index(line, "//"); c >= 0 {
			text.WriteString(strings.TrimSpace(line[c+2:]) + " ")
		} else {
			text.WriteString("\n")
		}
	}
	for _, at := range modelWords.FindAllStringIndex(text.String(), -1) {
		m := modelNames.FindStringSubmatch(text.String()[at[0]:])
		if m == nil {
			wrong = append(wrong, text.String()[at[0]:at[1]])
			continue
		}
		names = append(names, strings.Split(m[1], ", ")...)
	}
	return names, wrong
}

var (
	definition = regexp.MustCompile(`(?m)^([A-Z][A-Za-z]*)(?:\([^)]*\))? ==`)
	identifier = regexp.MustCompile(`\b[A-Z][A-Za-z]*\b`)
	remark     = regexp.MustCompile(`(?m)\\\*.*$`)
)

// modelActions returns the definitions of a TLA+ module that Next comes to and that say what a state becomes: those with
// UNCHANGED in them. What has none only gathers others.
func modelActions(spec string) []string {
	spec = remark.ReplaceAllString(spec, "")
	bodies := map[string]string{}
	at := definition.FindAllStringSubmatchIndex(spec, -1)
	for i, d := range at {
		end := len(spec)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		bodies[spec[d[2]:d[3]]] = spec[d[1]:end]
	}
	actions := map[string]bool{}
	todo := []string{"Next"}
	for len(todo) > 0 {
		name := todo[0]
		body := bodies[name]
		todo = todo[1:]
		delete(bodies, name) // once is enough
		if strings.Contains(body, "UNCHANGED") {
			actions[name] = true
		} else {
			todo = append(todo, identifier.FindAllString(body, -1)...)
		}
	}
	return slices.Sorted(maps.Keys(actions))
}

func TestModelNames(t *testing.T) {
	names, wrong := namedActions("// one (model:\n// Claim, TakeOver), model: Commit.\nvar x int // model: nothing\n// model: Read, and so on")
	if got := strings.Join(names, " "); got != "Claim TakeOver Commit Read" || len(wrong) != 1 {
		t.Errorf("%s, wrong: %q", got, wrong)
	}
	got := modelActions("A(x) ==\n  /\\ x = 1 \\* not C\n  /\\ UNCHANGED y\n\nB == UNCHANGED y\nC == UNCHANGED y\nGroup == A(1) \\/ B\nNext == \\/ Group\nSpec == C")
	if strings.Join(got, " ") != "A B" {
		t.Errorf("%v", got)
	}
}

package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every bug fits the sources as they are, and what comes of it is Go; each invariant has at least one.
func TestBugsFit(t *testing.T) {
	top, err := root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names, broken := map[string]bool{}, map[int]bool{}
	for _, b := range bugs() {
		if names[b.name] {
			t.Errorf("two bugs are named %s", b.name)
		}
		names[b.name], broken[b.invariant] = true, true
		copies, err := b.apply(top, t.TempDir())
		if err != nil {
			t.Error(err)
		}
		for _, c := range copies {
			if _, err := parser.ParseFile(token.NewFileSet(), c, nil, 0); err != nil {
				t.Errorf("bug %s: %v", b.name, err)
			}
		}
	}
	for n := 1; n <= 12; n++ {
		if !broken[n] {
			t.Errorf("no bug breaks invariant %d", n)
		}
	}
}

func TestNoLongerFits(t *testing.T) {
	top := t.TempDir()
	if err := os.WriteFile(filepath.Join(top, "x.go"), []byte("a := 1\nb := 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for old, want := range map[string]string{"a := 1": "", ":= 1": "2 times", "c := 1": "0 times"} {
		_, err := bug{name: "x", changes: []change{{"x.go", old, "2"}}}.apply(top, t.TempDir())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", old, err, want)
		}
	}
}

func TestNamed(t *testing.T) {
	if got, err := named(bugs(), []string{"blind-create"}); err != nil || len(got) != 1 || got[0].name != "blind-create" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := named(bugs(), []string{"blind-creat"}); err == nil {
		t.Error("a bug that does not exist was picked")
	}
}

// A run counts for a bug only if the engine as it is comes through it, and what it shows is what the bug does.
func TestCompare(t *testing.T) {
	lost, stuck := violation{sort: "lost"}, violation{sort: "stuck"}
	broken := &program{bad: map[int]violation{1: lost, 2: lost, 3: stuck, 5: lost}, next: 6}
	sound := &program{bad: map[int]violation{1: stuck, 4: lost, 9: lost}, next: 10}
	want := comparison{first: 2, what: lost, with: 2, without: 1, others: 1, dirty: 3}
	if got := compare(broken, sound, []string{"lost"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCertain(t *testing.T) {
	for _, c := range []struct {
		comparison
		want bool
	}{
		{comparison{}, false},
		{comparison{with: 1}, true},
		{comparison{with: 1, dirty: 1}, false},
		{comparison{with: 15, dirty: 1}, false},
		{comparison{with: 16, dirty: 1}, true},
		{comparison{with: 30, without: 10, dirty: 10}, false},
		{comparison{with: 10, without: 60, dirty: 60}, false},
		{comparison{with: 60, without: 10, dirty: 10}, true},
	} {
		if got := c.certain(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.comparison, got, c.want)
		}
	}
}

package delta

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Every reason for which the engine makes something due is told in words.
func TestDueWords(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:dueRow\{.*Why: |makesDue\(|why := )"(\w+)"`).FindAllStringSubmatch(string(text), -1) {
			if n++; dueWords(m[1]) == m[1] {
				t.Errorf("%s: due because of %q, which nobody understands", f, m[1])
			}
		}
	}
	if n < 10 || dueWords(dueMoved) == dueMoved {
		t.Errorf("%d reasons were found", n)
	}
	if s := "chosen for the sample: HTML"; dueWords(s) != s {
		t.Errorf("%q is told as %q", s, dueWords(s))
	}
}

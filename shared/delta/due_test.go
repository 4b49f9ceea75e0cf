package delta

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/deltadesk/deltadesk/shared/report"
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

// One is one, in words as well.
func TestEndWords(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		n    report.Counts
		want string
	}{
		{Delta, report.Counts{Held: 1}, "1 record is held for a decision, 0 failed; it stays due"},
		{Delta, report.Counts{Held: 1234, Failed: 1}, "1,234 records are held for a decision, 1 failed; they stay due"},
		{Remap, report.Counts{Failed: 1}, "1 record could not be looked at; it is as it was"},
		{Remap, report.Counts{Failed: 2}, "2 records could not be looked at; they are as they were"},
		{Verify, report.Counts{Failed: 1, Held: 1}, "1 record differs, 1 more only in what is held"},
		{Verify, report.Counts{Failed: 22}, "22 records differ, 0 more only in what is held"},
	} {
		if got, err := new(Engine).exceptions(t.Context(), &Run{Kind: c.kind}, sums{total: c.n}); err != nil || got != c.want {
			t.Errorf("%s: got %q, want %q", c.kind, got, c.want)
		}
	}
}

//go:build rt

package rttest

import "testing"

// TestScriptAndSource: what the script sent is what the source has, byte for byte.
func TestScriptAndSource(t *testing.T) {
	file, script := liveSource(t)
	s, err := readState(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range checkScript(script, s) {
		t.Error(d)
	}
	n := 0
	for _, es := range s.entries {
		n += len(es)
	}
	t.Logf("%d tickets, %d entries", len(s.tickets), n)
}

package desktest

import "github.com/deltadesk/deltadesk/shared/desk"

// Canonical tells where a record that was read is not in canonical form, for tests that make records of their own. It names
// places, never content.
func Canonical(r desk.Record, kinds ...desk.Kind) []string { return problems(r, kinds) }

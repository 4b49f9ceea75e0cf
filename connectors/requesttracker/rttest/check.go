package rttest

import (
	"fmt"
	"slices"
	"strings"
)

// checkScript compares the script's log with the source: entries in number, order, kind and words, files by hash, deletions,
// merges and the values last set. It proves that the source is what the script says, and that nobody else wrote to it.
func checkScript(script *Script, src *state) []string {
	script.mu.Lock()
	defer script.mu.Unlock()
	var bad []string
	say := func(format string, a ...any) { bad = append(bad, fmt.Sprintf("source "+format, a...)) }
	for id := range src.tickets {
		if script.data.Tickets[id] == nil {
			say("ticket %d: not of the script's making", id)
		}
	}
	for id, t := range script.data.Tickets {
		got := src.tickets[id]
		if got == nil {
			say("ticket %d: is not there", id)
			continue
		}
		if (got.fields["status"] == "deleted") != t.Deleted {
			say("ticket %d: status %s, but deleted is %v in the script", id, got.fields["status"], t.Deleted)
		}
		into := id
		for script.data.Tickets[into].Into != 0 {
			into = script.data.Tickets[into].Into
		}
		if got.effective != into {
			say("ticket %d: merged into %d, script says %d", id, got.effective, into)
		}
		if t.Into == 0 {
			for f, v := range t.Set {
				if strings.ReplaceAll(got.fields[f], "\r\n", "\n") != v {
					say("ticket %d: %s is %q, script says %q", id, f, got.fields[f], v)
				}
			}
		}
		es := src.entries[id]
		if into != id || len(es) < len(t.Entries) {
			// What is written to a merged number is written to the survivor.
		} else if len(es) != len(t.Entries) && !wasMergedInto(script, id) {
			say("ticket %d: %d entries, script says %d", id, len(es), len(t.Entries))
		}
		if wasMergedInto(script, id) || into != id {
			continue
		}
		for i, e := range es {
			if i >= len(t.Entries) {
				break
			}
			want := t.Entries[i]
			if e.kind != want.Kind {
				say("ticket %d entry %d (transaction %d): %s, script says %s", id, i, e.id, e.kind, want.Kind)
			}
			if want.Text != "" && !slices.ContainsFunc(e.leaves, func(l *dbLeaf) bool { return canonical(l.text) == canonical(want.Text) }) {
				say("ticket %d entry %d (transaction %d): other words than the script's", id, i, e.id)
			}
			for _, f := range want.Files {
				k := slices.IndexFunc(e.leaves, func(l *dbLeaf) bool { return l.sha == f.SHA && (f.Name == "" || l.name == f.Name) })
				if k < 0 {
					say("ticket %d entry %d (transaction %d): file %q is not there byte for byte", id, i, e.id, f.Name)
				}
			}
		}
	}
	slices.Sort(bad)
	return bad
}

// wasMergedInto tells whether another ticket was merged into this one, so that its entries are not the script's list of it alone.
func wasMergedInto(script *Script, id int64) bool {
	for _, t := range script.data.Tickets {
		if t.Into == id {
			return true
		}
	}
	return false
}

// canonical is the form in which bodies are compared: LF, no line ends at the end.
func canonical(s string) string { return strings.TrimRight(strings.ReplaceAll(s, "\r\n", "\n"), "\n") }

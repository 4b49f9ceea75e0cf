package mapping

import (
	"fmt"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// NoteBody returns the text of the internal note that keeps what has no field of its own in the target: a line for each
// field. It is empty when there is nothing to keep.
func NoteBody(noted []Noted) string {
	var b strings.Builder
	for _, n := range noted {
		if len(n.Value) == 0 {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("From the previous help desk, without a field of its own here:\n")
		}
		text := desk.CanonicalBody(strings.Join(n.Value, ", "))
		if strings.Contains(text, "\n") {
			text = "\n  " + strings.ReplaceAll(text, "\n", "\n  ")
		} else {
			text = " " + text
		}
		fmt.Fprintf(&b, "%s:%s\n", label(n.Field), text)
	}
	return desk.CanonicalBody(b.String())
}

// label returns a field's name for people: "Time worked" for time_worked, a custom field's own name.
func label(f desk.Field) string {
	if name, ok := f.CustomName(); ok {
		return oneLine(name)
	}
	s := strings.NewReplacer("_", " ", ".", " ").Replace(string(f))
	return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):]
}

// HistoryNote returns the internal note that keeps a ticket's status history in a target that cannot store one, and whether
// there is any history. Its time is that of the last change; it has no author. The same history gives the same note.
func HistoryNote(rec desk.Record) (desk.Entry, bool) {
	if rec.Ref.Kind != desk.Ticket || len(rec.History) == 0 {
		return desk.Entry{}, false
	}
	var b strings.Builder
	b.WriteString("Status changes in the previous help desk (times in UTC):\n")
	var last time.Time
	for _, c := range rec.History {
		at := c.At.UTC().Truncate(time.Second)
		if at.After(last) {
			last = at
		}
		fmt.Fprintf(&b, "%s  %s", at.Format(time.DateTime), oneLine(c.After))
		if c.Before != "" {
			fmt.Fprintf(&b, " (was %s)", oneLine(c.Before))
		}
		if by := name(c.By); by != "" {
			fmt.Fprintf(&b, ", by %s", by)
		}
		b.WriteByte('\n')
	}
	return desk.Entry{
		ID:   "status-history/" + rec.Ref.ID,
		At:   last,
		Body: desk.CanonicalBody(b.String()),
		Type: "text/plain",
	}, true
}

// name returns the best name there is for an author; "" for the desk itself.
func name(a desk.Author) string {
	for _, s := range []string{a.Name, a.Email, a.ID} {
		if s := oneLine(s); s != "" {
			return s
		}
	}
	return ""
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

package desktest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// problems tells where a record that was read is not in canonical form. It names places, never content.
func problems(r desk.Record, kinds []desk.Kind) []string {
	var out []string
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if !slices.Contains(kinds, r.Ref.Kind) {
		bad("kind %q is not one that the traits declare", string(r.Ref.Kind))
	}
	if r.Ref.ID == "" || len(r.Ref.ID) > 200 || !utf8.ValidString(r.Ref.ID) {
		bad("its id is empty, longer than 200 bytes or not UTF-8")
	}
	utc := func(what string, at time.Time) {
		if at.IsZero() || at.Location() != time.UTC {
			bad("%s is unset or not in UTC", what)
		}
	}
	utc("began", r.Began)
	utc("the stamp's time", r.Stamp.At)
	if !slices.Contains([]desk.Event{"", desk.Changed, desk.Deleted, desk.Spam}, r.Event) {
		bad("event %q is none that a record can have", string(r.Event))
	}
	for f, v := range r.Fields {
		for _, p := range fieldProblems(f, v) {
			bad("field %s %s", f, p)
		}
	}
	if r.Ref.Kind != desk.Ticket && len(r.Entries)+len(r.History)+len(r.Aliases) > 0 {
		bad("only tickets have entries, a history and aliases")
	}
	ids := map[string]bool{}
	for i, e := range r.Entries {
		if e.ID == "" || ids[e.ID] {
			bad("entry %d has no id of its own", i)
		}
		ids[e.ID] = true
		utc(fmt.Sprintf("the time of entry %d", i), e.At)
		if i > 0 && e.At.Before(r.Entries[i-1].At) {
			bad("entry %d is older than the one before it", i)
		}
		if desk.CanonicalBody(e.Body) != e.Body {
			bad("the body of entry %d is not canonical", i)
		}
		if !utf8.ValidString(e.Body) {
			bad("the body of entry %d is not UTF-8", i)
		}
		if e.Body != "" && e.Type != "text/plain" && e.Type != "text/html" {
			bad("the type of entry %d is neither text/plain nor text/html", i)
		}
		files := map[string]bool{}
		for j, x := range e.Files {
			switch {
			case x.ID == "" || files[x.ID]:
				bad("file %d of entry %d has no id of its own", j, i)
			case x.Size < -1:
				bad("file %d of entry %d has a size below -1", j, i)
			case x.Type != strings.ToLower(x.Type) || strings.ContainsAny(x.Type, "; "):
				bad("the type of file %d of entry %d is not lower case without parameters", j, i)
			case strings.ContainsAny(x.CID, "<>"):
				bad("the content id of file %d of entry %d has brackets", j, i)
			case x.SHA256 != "" && len(x.SHA256) != 64:
				bad("the hash of file %d of entry %d is no SHA-256", j, i)
			}
			files[x.ID] = true
		}
	}
	for i, h := range r.History {
		utc(fmt.Sprintf("the time of history line %d", i), h.At)
		if i > 0 && h.At.Before(r.History[i-1].At) {
			bad("history line %d is older than the one before it", i)
		}
	}
	if !desk.Value(r.Aliases).Equal(desk.Set(r.Aliases...)) || slices.Contains(r.Aliases, r.Ref.ID) {
		bad("the aliases are no sorted set of other ids")
	}
	return out
}

func fieldProblems(f desk.Field, v desk.Value) []string {
	var out []string
	if slices.Contains(v, "") {
		out = append(out, "holds an empty string")
	}
	if slices.ContainsFunc(v, func(s string) bool { return !utf8.ValidString(s) }) {
		out = append(out, "is not UTF-8")
	}
	if f.IsSet() && !v.Equal(desk.Set(v...)) {
		out = append(out, "is a set and not sorted, or holds something twice")
	}
	first, set := v.First(), len(v) > 0
	single := false
	switch f {
	case desk.Created, desk.Started, desk.Resolved, desk.Due, desk.FirstDue:
		single = true
		if at, err := time.Parse(time.RFC3339, first); set && (err != nil || !v.Equal(desk.Time(at))) {
			out = append(out, "is no time as desk.Time writes it")
		}
	case desk.TimeWorked, desk.TimeEstimated, desk.TimeLeft:
		single = true
		if _, err := strconv.Atoi(first); set && err != nil {
			out = append(out, "is no whole number")
		}
	case desk.Active:
		single = true
		if set && first != "true" && first != "false" {
			out = append(out, "is neither true nor false")
		}
	case desk.Role:
		single = true
		if set && first != "agent" && first != "customer" {
			out = append(out, "is neither agent nor customer")
		}
	case desk.Subject, desk.Status, desk.Priority, desk.Type, desk.Group, desk.Assignee, desk.Channel, desk.Login:
		single = true
	}
	if single && len(v) > 1 {
		out = append(out, "holds more than one value")
	}
	return out
}

package mapping

import (
	"regexp"
	"strings"
	"time"
	"unicode"
)

// Transform turns one value into another. It is pure. The empty string says that it can make nothing of the value, which
// then counts as unmapped.
type Transform struct {
	Help string
	Do   func(string) string
}

// Transforms are the transforms that a rule may name.
var Transforms = map[string]Transform{
	"lower":  {"all letters lower case: `High` becomes `high`", strings.ToLower},
	"upper":  {"all letters upper case: `de` becomes `DE`", strings.ToUpper},
	"trim":   {"no white space at either end", strings.TrimSpace},
	"spaces": {"one space for every run of white space, none at either end", func(s string) string { return strings.Join(strings.Fields(s), " ") }},
	"digits": {"only the digits 0 to 9: `INV-0042` becomes `0042`", digits},
	"slug":   {"lower case, a hyphen for everything that is neither letter nor digit: `VIP (gold)` becomes `vip-gold`", slug},
	"date":   {"the day of a time, in UTC: `2026-03-01T09:30:00Z` becomes `2026-03-01`", date},
}

func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}

var notWord = regexp.MustCompile(`[^\pL\pM\pN]+`)

func slug(s string) string {
	return strings.Trim(notWord.ReplaceAllString(strings.ToLower(s), "-"), "-")
}

func date(s string) string {
	t, err := time.Parse(time.RFC3339, s)
	if err == nil {
		return t.UTC().Format(time.DateOnly)
	}
	if _, err := time.Parse(time.DateOnly, s); err == nil {
		return s
	}
	return ""
}

// cut shortens a text to at most n characters, the last of which is an ellipsis, without taking a letter from its accents.
func cut(s string, n int) string {
	rs := []rune(s)
	if len(rs) <= n {
		return s
	}
	end := n - 1
	for end > 0 && (unicode.Is(unicode.M, rs[end]) || rs[end] == zeroWidthJoiner || rs[end-1] == zeroWidthJoiner) {
		end--
	}
	return strings.TrimRightFunc(string(rs[:end]), unicode.IsSpace) + "…"
}

const zeroWidthJoiner = '\u200d'

package requesttracker

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// RT keeps neither the time nor the author of an entry that is written later, and has no place for a marker. All three
// stand in the first line of the body, which people can read and Read parses back:
//
//	[acme/94 · 2019-03-04 05:06:07 UTC · Anna Example <anna@x.example>]
//
// In HTML the line is a paragraph. It is believed only on entries that the migration's own account wrote.

const (
	headerDot  = " · "
	headerTime = "2006-01-02 15:04:05 UTC"
	htmlOpen   = `<p style="color:#777;font-size:85%">[`
	htmlClose  = "]</p>\n"
)

// addHeader puts the header line of e before its body.
func addHeader(e desk.Entry) string {
	at := "unknown time"
	if !e.At.IsZero() {
		at = e.At.UTC().Format(headerTime)
	}
	who := headerEscape(e.Author.Name)
	if e.Author.Email != "" {
		if who != "" {
			who += " "
		}
		who += "<" + headerEscape(e.Author.Email) + ">"
	}
	line := strings.ReplaceAll(headerEscape(e.Marker), " ", "%20") + headerDot + at + headerDot + who
	if e.Type == "text/html" {
		return htmlOpen + html.EscapeString(line) + htmlClose + e.Body
	}
	return "[" + line + "]\n\n" + e.Body
}

var headerLine = regexp.MustCompile(`^(\S+) · (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|unknown time) · ([^<>]*?)(?: ?<([^<>]+)>)?$`)

// cutHeader takes the header line off the body of e and fills in what it says. It reports false, and changes nothing,
// where the body does not begin with one.
func cutHeader(e *desk.Entry) bool {
	line, body, ok := splitHeader(e.Body, e.Type == "text/html")
	if !ok {
		return false
	}
	m := headerLine.FindStringSubmatch(line)
	if m == nil {
		return false
	}
	var at time.Time
	if m[2] != "unknown time" {
		var err error
		if at, err = time.Parse(headerTime, m[2]); err != nil {
			return false
		}
	}
	e.Marker, e.At, e.Body = headerUnescape(m[1]), at, body
	e.Author = desk.Author{Name: headerUnescape(m[3]), Email: headerUnescape(m[4])}
	return true
}

func splitHeader(body string, isHTML bool) (line, rest string, ok bool) {
	if isHTML {
		b, found := strings.CutPrefix(body, htmlOpen)
		if !found {
			return "", "", false
		}
		if line, rest, ok = strings.Cut(b, htmlClose); !ok {
			// A body that was empty: the line end at its very end is gone.
			if line, ok = strings.CutSuffix(b, strings.TrimSuffix(htmlClose, "\n")); !ok {
				return "", "", false
			}
		}
		return html.UnescapeString(line), rest, true
	}
	b, found := strings.CutPrefix(body, "[")
	if !found {
		return "", "", false
	}
	if line, rest, ok = strings.Cut(b, "]\n\n"); !ok {
		line, ok = strings.CutSuffix(b, "]")
	}
	return line, rest, ok
}

// headerEscape writes what would break the line, or what RT would change, as %XX of its bytes.
func headerEscape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if plainRune(r) && (r != ' ' || i > 0 && i < len(s)-1) {
			b.WriteString(s[i : i+n])
		} else {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
		i += n
	}
	return b.String()
}

func plainRune(r rune) bool {
	return r == ' ' || r != utf8.RuneError && unicode.IsPrint(r) && !strings.ContainsRune("%<>[]·", r)
}

var headerEscaped = regexp.MustCompile(`%[0-9A-F]{2}`)

func headerUnescape(s string) string {
	return headerEscaped.ReplaceAllStringFunc(s, func(m string) string {
		var c byte
		_, _ = fmt.Sscanf(m[1:], "%02X", &c)
		return string([]byte{c})
	})
}

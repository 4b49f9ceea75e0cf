package boot

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestTooMuch: a file that would take the parser hours, or all of the stack, is refused at a line of it.
func TestTooMuch(t *testing.T) {
	const n = 300_000
	for name, data := range map[string]string{
		"brackets": strings.Repeat("[", n), "closed brackets": strings.Repeat("[", n) + strings.Repeat("]", n), "braces": strings.Repeat("{a: ", n),
		"lists": strings.Repeat("- ", n), "keys of keys": strings.Repeat("? ", n), "anchors": strings.Repeat("&a ", n), "tags": strings.Repeat("!a ", n),
		"keys": strings.Repeat("a: b\n", n), "keys in braces": "{" + strings.Repeat("a: b,", n) + "}", "brackets in lines": strings.Repeat("[\n", n),
	} {
		_, err := Parse("conf/acme.yaml", []byte(data), testOptions())
		var m *Mistake
		if !errors.As(err, &m) || !strings.Contains(m.Message, "more than") || m.Line > maxKeys+1 {
			t.Errorf("%s: %.200v", name, err)
		}
	}
	var people strings.Builder
	for i := range maxKeys - 100 {
		fmt.Fprintf(&people, "      p%d@x: q%d@y\n", i, i)
	}
	f, err := Parse("conf/acme.yaml", []byte(minimal+"mapping:\n  people:\n    map:\n"+people.String()), testOptions())
	if err != nil || len(f.Migration.Rules.People.Map) != maxKeys-100 {
		t.Errorf("a file with many people: %.200v", err)
	}
}

// FuzzSecret writes a secret into the file itself, where none may stand, with anything before and after it. The mistake says
// so and does not repeat it.
func FuzzSecret(f *testing.F) {
	for where := range places {
		f.Add(uint8(where), "", "")
		f.Add(uint8(where), ", ", ",")
	}
	for i, s := range []string{" ", ": ", "'", `"`, "#", " #", "|", ">", "- ", "{", "}", "[", "]", "&", "*", "!", "!!str ", "%", "@", "`", "? ", "\t", "\u2028", "<<: ", `"\x`, `"\e[2J`} {
		f.Add(uint8(i), s, "")
		f.Add(uint8(i+7), "", s)
		f.Add(uint8(i+14), s, s)
	}
	f.Fuzz(func(t *testing.T, where uint8, before, after string) {
		if strings.ContainsAny(before+after, "\n\r") {
			return // then it may stand where there is no secret
		}
		if strings.Contains(before, "env:") || strings.Contains(before, "file:") {
			return // then it is the name of one, which is told
		}
		data := strings.Replace(places[int(where)%len(places)], "SECRET", before+planted+after, 1)
		_, err := Parse("conf/acme.yaml", []byte(data), testOptions())
		if err == nil {
			return // it went into a comment, or into another section's text
		}
		if strings.Contains(err.Error(), planted) {
			t.Errorf("the secret is repeated:\n%v\n%s", err, data)
		}
	})
}

// places are files in which somebody has written a secret where a reference belongs, or nearly there.
var places = []string{
	rt("password: SECRET"),
	rt("password: 'SECRET'"),
	rt(`password: "SECRET"`),
	rt("token: a, password: [SECRET]"),
	rt("password: {SECRET: x}"),
	rt("password: {x: SECRET}"),
	rt("password:SECRET"),
	rt("password SECRET"),
	block("password: SECRET"),
	block("password: 'SECRET'"),
	block(`password: "SECRET"`),
	block("password: |\n      SECRET"),
	block("password: >-\n      SECRET"),
	block("password:\n      SECRET"),
	block("password:\n      - SECRET"),
	block("password:\n      SECRET: x"),
	block("password:\n      x: SECRET"),
	block("password:SECRET"),
	block("password SECRET"),
	block("- SECRET"),
	block("SECRET"),
	block("password:\n    SECRET"),
	block("password: env:RT_SOURCE_PASSWORD\n     SECRET"),
}

// block is minimal with a source written line by line.
func block(option string) string {
	return strings.Replace(minimal, "source: {connector: archive, options: {folder: in}}",
		"source:\n  connector: requesttracker\n  options:\n    url: u\n    user: x\n    "+option, 1)
}

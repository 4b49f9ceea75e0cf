package boot

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFile is the largest migration file. A real one has a few kilobytes, with every person mapped by hand some hundred.
const maxFile = 2 << 20

// The parser calls itself for every level, and within a section for every key, and copies what it has each time: without
// these limits a file could take hours or all of the stack, which nothing recovers from.
const (
	maxDepth = 100
	maxKeys  = 20_000
)

// keys are the keys of each section: what the schema in infra/migrations lists as properties. Sections whose keys the
// author chooses (scopes, windows, options, filters, tables) are not among them.
var keys = map[string][]string{
	"file":      {"migration", "owner", "decider", "source", "target", "scopes", "windows", "mapping", "policies", "backup"},
	"contact":   {"name", "email"},
	"desk":      {"connector", "options"},
	"scope":     {"filters", "created_from", "created_to"},
	"window":    {"scope", "kind", "mode"},
	"mapping":   {"unmapped", "ticket", "person", "company", "groups", "group_default", "groups_unmapped", "people"},
	"rule":      {"from", "to", "values", "default", "transform", "unmapped", "meaning"},
	"people":    {"unmatched", "fallback", "map"},
	"policies":  {"conflict", "fields", "deleted", "merged", "spam", "revised", "privacy", "split", "target_gone", "event_tag", "closed_status", "deadline_days", "threshold"},
	"threshold": {"share", "count"},
	"backup":    {"folder"},
}

// node is a value of the file with its place.
type node struct {
	is        shape
	line, col int
	at        string // the way to it: "mapping.ticket[2].to"
	text      string // of a word, as written, without quotes
	items     []*node
	entries   []entry
}

type entry struct {
	key   string
	value *node
}

// shape is what a node is. A word is a scalar that YAML does not take for text: 10, true, 0.5.
type shape string

const (
	text    shape = "text"
	word    shape = "a number or true or false"
	number  shape = "a whole number"
	list    shape = "a list"
	object  shape = "a set of keys"
	nothing shape = "empty"
	broken  shape = "" // reported already
)

// decoder turns a file's bytes into a File and collects mistakes on the way. Every method goes on after a mistake with
// something harmless, and takes a nil node for a section that is not there.
type decoder struct {
	path     string
	opts     Options
	mistakes []*Mistake
}

func (d *decoder) say(n *node, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if n.at != "" {
		msg = n.at + ": " + msg
	}
	msg = strings.Map(func(r rune) rune { // a mistake is one line, and does nothing to a terminal
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, msg)
	d.mistakes = append(d.mistakes, &Mistake{Line: max(1, n.line), Column: max(1, n.col), Path: d.path, Message: msg})
}

// parse reads YAML of the plain kind: one document, no anchors, aliases, merge keys or tags.
func (d *decoder) parse(data []byte) *node {
	top := &node{line: 1, col: 1}
	if len(data) > maxFile {
		d.say(top, "the file has %d bytes; at most %d are read", len(data), maxFile)
		return top
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")) // the parser counts a comment's CRLF as two lines
	if i := invalid(data); i >= 0 {
		top.line = 1 + bytes.Count(data[:i], []byte("\n"))
		d.say(top, "the file is not plain text in UTF-8 here; save it as such")
		return top
	}
	f, err := parseYAML(data)
	if err != nil {
		msg := "it cannot be read"
		var big *tooBig
		if errors.As(err, &big) {
			d.say(&node{line: big.at.Line, col: big.at.Column}, "%s", big.why)
			return top
		}
		var e yaml.Error
		if errors.As(err, &e) {
			if tk := e.GetToken(); tk != nil && tk.Position != nil {
				top.line, top.col = tk.Position.Line, tk.Position.Column
			}
			if m := e.GetMessage(); !strings.Contains(m, `"`) { // where it quotes, it could quote a secret
				msg = m
			}
		}
		d.say(top, "this is not YAML: %s; look for a missing quote, bracket or blank here or just above", msg)
		return top
	}
	var docs []ast.Node
	for _, doc := range f.Docs {
		if doc.Body != nil {
			docs = append(docs, doc.Body)
		}
	}
	switch len(docs) {
	case 0:
		top.is = nothing
		return top
	case 1:
	default:
		p := docs[1].GetToken().Position
		d.say(&node{line: p.Line, col: p.Column}, "a second document begins here; a migration has a file of its own")
	}
	top = d.node(docs[0], "")
	return top
}

// parseYAML turns a panic of the parser into an error.
func parseYAML(data []byte) (f *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the YAML parser failed")
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if err := measure(tokens); err != nil {
		return nil, err
	}
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// tooBig is a file that goes beyond maxDepth or maxKeys at a place.
type tooBig struct {
	at  *token.Position
	why string
}

func (t *tooBig) Error() string { return t.why }

// measure finds where a file becomes too much for the parser. Levels are begun by brackets, and within a line by whatever may
// stand before a value; levels that are indented cost so many blanks that maxFile bounds them.
func measure(tokens token.Tokens) error {
	brackets, keys, line, before := 0, 0, 0, 0
	for _, tk := range tokens {
		if tk.Position == nil {
			continue
		}
		if tk.Position.Line != line {
			line, before = tk.Position.Line, 0
		}
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			before++
		case token.MappingValueType:
			keys++
		}
		if brackets+before > maxDepth {
			return &tooBig{tk.Position, fmt.Sprintf("more than %d levels are open here; no migration file needs so many", maxDepth)}
		}
		if keys > maxKeys {
			return &tooBig{tk.Position, fmt.Sprintf("the file has more than %d keys here; map fewer values by hand", maxKeys)}
		}
	}
	return nil
}

// invalid returns where data stops being text; -1 where it does not.
func invalid(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 || unicode.IsControl(r) && !strings.ContainsRune("\t\n", r) {
			return i
		}
		i += n
	}
	return -1
}

func (d *decoder) node(a ast.Node, at string) *node {
	n := &node{at: at, line: 1, col: 1}
	if a == nil {
		n.is = nothing
		return n
	}
	if tk := a.GetToken(); tk != nil && tk.Position != nil {
		n.line, n.col, n.text = tk.Position.Line, tk.Position.Column, tk.Value
	}
	switch a := a.(type) {
	case *ast.NullNode:
		n.is = nothing
	case *ast.StringNode:
		n.is, n.text = text, a.Value
	case *ast.LiteralNode:
		n.is, n.text = text, a.Value.Value
	case *ast.IntegerNode:
		n.is = number
	case *ast.FloatNode, *ast.BoolNode:
		n.is = word
	case *ast.InfinityNode, *ast.NanNode:
		d.say(n, "put the value in quotes; without them it is a number that does not exist")
	case *ast.SequenceNode:
		n.is = list
		for i, v := range a.Values {
			n.items = append(n.items, d.node(v, fmt.Sprintf("%s[%d]", at, i)))
		}
	case *ast.MappingNode:
		n.is = object
		d.entries(n, a.Values)
	case *ast.MappingValueNode:
		n.is = object
		d.entries(n, []*ast.MappingValueNode{a})
	case *ast.AnchorNode, *ast.AliasNode:
		d.say(n, "anchors (&) and aliases (*) are not read here; write the value out, or put it in quotes if it is meant to begin so")
	case *ast.TagNode:
		d.say(n, "tags (!) are not read here; remove it, or put the value in quotes if it is meant to begin so")
	default:
		d.say(n, "this kind of YAML is not read here; write it as `key: value` or `- item`")
	}
	return n
}

func (d *decoder) entries(n *node, vs []*ast.MappingValueNode) {
	first := map[string]int{}
	for i, v := range vs {
		k := d.key(v.Key, n.at)
		if i == 0 && k.line > 0 {
			n.line, n.col = k.line, k.col
		}
		if k.is == broken {
			continue
		}
		if line, twice := first[k.text]; twice {
			d.say(&node{line: k.line, col: k.col, at: d.join(n.at, k.text)}, "the key is in line %d already; keep one of them", line)
			continue
		}
		first[k.text] = k.line
		value := d.node(v.Value, d.join(n.at, k.text))
		if value.is == nothing || value.is == object || value.is == list {
			value.line, value.col = k.line, k.col // where people look for a section
		}
		n.entries = append(n.entries, entry{k.text, value})
	}
}

func (d *decoder) key(a ast.MapKeyNode, at string) *node {
	switch a := a.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.LiteralNode:
		return d.node(a, at)
	case *ast.NullNode:
		n := d.node(a, at)
		n.is, n.text = text, a.GetToken().Value
		return n
	}
	n := &node{at: at, line: 1, col: 1}
	if tk := a.GetToken(); tk != nil && tk.Position != nil {
		n.line, n.col = tk.Position.Line, tk.Position.Column
	}
	d.say(n, "this kind of key is not read here; write it as `key: value`, in quotes if it has unusual characters")
	return n
}

// join returns the way to a key. Among a desk's options only names of options are told: where a colon or a comma is missing or
// too much, a secret stands in a key's place.
func (d *decoder) join(at, key string) string {
	switch desk, option, _ := strings.Cut(at, ".options"); {
	case at == "":
		return key
	case (desk == "source" || desk == "target") && len(desk) < len(at) && (option != "" || !d.isOption(key)):
		return at
	}
	return at + "." + key
}

func (d *decoder) isOption(name string) bool {
	return slices.ContainsFunc(d.opts.Connectors, func(c desk.Connector) bool {
		return slices.ContainsFunc(c.Options, func(o desk.Option) bool { return o.Name == name })
	})
}

// want reports a node of another shape.
func (d *decoder) want(n *node, is shape) bool {
	switch {
	case n == nil || n.is == broken:
		return false
	case n.is == is:
		return true
	case n.is == nothing:
		d.say(n, "nothing is given; it must be %s%s, or the key left out", is, empty(is))
	case is == text && (n.is == word || n.is == number):
		d.say(n, "it must be text; put the value in quotes")
	default:
		d.say(n, "it must be %s, and is %s", is, n.is)
	}
	return false
}

func empty(is shape) string {
	switch is {
	case object:
		return ", {} for an empty one"
	case list:
		return ", [] for an empty one"
	}
	return ""
}

// section returns the values of an object by key, after reporting keys that the section has not.
func (d *decoder) section(n *node, name string) map[string]*node {
	out := map[string]*node{}
	if !d.want(n, object) {
		return out
	}
	for _, e := range n.entries {
		if !slices.Contains(keys[name], e.key) {
			d.say(&node{line: e.value.line, col: e.value.col, at: e.value.at}, "there is no such key%s; there are %s", near(e.key, keys[name]), strings.Join(keys[name], ", "))
			continue
		}
		out[e.key] = e.value
	}
	return out
}

// need reports keys that an object must have. what says what they are for.
func (d *decoder) need(n *node, m map[string]*node, key, what string) {
	if n != nil && n.is == object && m[key] == nil {
		d.say(&node{line: n.line, col: n.col, at: n.at}, "%s is missing: %s", key, what)
	}
}

// table returns the entries of an object whose keys the author chooses.
func (d *decoder) table(n *node) []entry {
	if !d.want(n, object) {
		return nil
	}
	return n.entries
}

// words returns a table from any keys to single values.
func (d *decoder) words(n *node) map[string]string {
	var out map[string]string
	for _, e := range d.table(n) {
		if out == nil {
			out = map[string]string{}
		}
		if w, ok := d.single(e.value); ok {
			out[e.key] = w
		}
	}
	return out
}

// word returns a single value, or "" where there is none.
func (d *decoder) word(n *node) string {
	w, _ := d.single(n)
	return w
}

// single returns a value as it is written: text, a number, true or false.
func (d *decoder) single(n *node) (w string, ok bool) {
	switch {
	case n == nil || n.is == broken:
	case n.is == text || n.is == word || n.is == number:
		return n.text, true
	case n.is == nothing:
		d.say(n, `nothing is given; write "" if it is meant to be empty`)
	default:
		d.say(n, "it must be a single value, and is %s", n.is)
	}
	return "", false
}

// text returns text that is not blank.
func (d *decoder) text(n *node) string {
	if !d.want(n, text) {
		return ""
	}
	if strings.TrimSpace(n.text) == "" {
		d.say(n, "the text is empty; fill it in or leave the key out")
	}
	return n.text
}

// choice returns one of the given words. Without the node it returns otherwise.
func choice[T ~string](d *decoder, n *node, otherwise T, of ...T) T {
	if n == nil || n.is != word && n.is != number && !d.want(n, text) {
		return otherwise
	}
	if n.is != text || !slices.Contains(of, T(n.text)) {
		var names []string
		for _, c := range of {
			names = append(names, string(c))
		}
		d.say(n, "%q is not possible%s; it can be %s", n.text, near(n.text, names), strings.Join(names, ", "))
		return otherwise
	}
	return T(n.text)
}

func near(word string, names []string) string {
	if n := mapping.Nearest(word, names); n != "" {
		return fmt.Sprintf(" (did you mean %q?)", n)
	}
	return ""
}

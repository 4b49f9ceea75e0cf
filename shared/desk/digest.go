package desk

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// Digest returns a short fingerprint of a value: 12 characters. Unset is the empty string.
func (v Value) Digest() string {
	if len(v) == 0 {
		return ""
	}
	return digest(appendStrings(nil, v))
}

// Digest returns a fingerprint of what people would notice about an entry: visibility, author, time, subject, body and files
// (by name, type, size and hash where known). IDs, marker and headers are left out.
func (e Entry) Digest() string {
	type file struct {
		Name, Type, SHA string
		Size            int64
	}
	fs := make([]file, len(e.Files))
	for i, f := range e.Files {
		fs[i] = file{Name: f.Name, Type: f.Type, SHA: f.SHA256, Size: f.Size}
	}
	b := strconv.AppendBool([]byte{'['}, e.Public)
	b = appendString(append(b, ','), e.Author.Name)
	b = appendString(append(b, ','), e.Author.Email)
	b = strconv.AppendInt(append(b, ','), e.At.Unix(), 10)
	b = appendString(append(b, ','), e.Subject)
	b = appendString(append(b, ','), e.Type)
	b = appendString(append(b, ','), CanonicalBody(e.Body))
	b = strconv.AppendInt(append(b, ','), int64(e.Minutes), 10)
	return digest(append(append(append(b, ','), marshal(fs)...), ']'))
}

// Digest returns a fingerprint of the whole record: fields, entries in order, aliases, event. Stamp, lock, address and
// reading time are left out, so that two readings of an unchanged record agree.
func (r Record) Digest() string {
	b := appendString([]byte{'['}, r.Ref.Kind)
	b = appendString(append(b, ','), r.Event)
	b = appendStrings(append(b, ','), r.Aliases)
	for _, f := range sortedKeys(r.Fields) {
		if len(r.Fields[f]) > 0 {
			b = appendString(append(b, ','), f)
			b = appendStrings(append(b, ','), r.Fields[f])
		}
	}
	for _, e := range r.Entries {
		b = appendString(append(b, ','), e.ID)
		b = appendString(append(b, ','), e.Digest())
	}
	return digest(append(b, ']'))
}

// appendStrings writes a list as json.Marshal does: nil is null. Every record that is read or written is digested, some of
// its values several times, and what takes time there is not the hash.
func appendStrings(b []byte, list []string) []byte {
	if list == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

// appendString writes a text as json.Marshal does.
func appendString[S ~string](b []byte, s S) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return append(b, marshal(s)...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("desk: a record that cannot be written as JSON: " + err.Error()) // only strings, numbers and booleans reach this
	}
	return b
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func overlap(a Value, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

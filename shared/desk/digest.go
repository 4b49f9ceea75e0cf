package desk

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
)

// Digest returns a short fingerprint of a value: 12 characters. Unset is the empty string.
func (v Value) Digest() string {
	if len(v) == 0 {
		return ""
	}
	return digest([]string(v))
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
	return digest([]any{e.Public, e.Author.Name, e.Author.Email, e.At.UTC().Unix(), e.Subject, e.Type, CanonicalBody(e.Body), e.Minutes, fs})
}

// Digest returns a fingerprint of the whole record: fields, entries in order, aliases, event. Stamp, lock, address and
// reading time are left out, so that two readings of an unchanged record agree.
func (r Record) Digest() string {
	parts := []any{r.Ref.Kind, r.Event, r.Aliases}
	for _, f := range sortedKeys(r.Fields) {
		if len(r.Fields[f]) > 0 {
			parts = append(parts, f, []string(r.Fields[f]))
		}
	}
	for _, e := range r.Entries {
		parts = append(parts, e.ID, e.Digest())
	}
	return digest(parts)
}

func digest(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("desk: a record that cannot be written as JSON: " + err.Error()) // only strings, numbers and booleans reach this
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func overlap(a Value, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

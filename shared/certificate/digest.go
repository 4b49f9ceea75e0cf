package certificate

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Unreadable stands in File.SHA256 where a target shows a file and does not give it out.
const Unreadable = "unreadable"

// ReadSource returns a record of the source with the hash of every file as it was read now, whatever the desk declares. Files
// larger than largest (0: no limit) are left out of that.
func ReadSource(ctx context.Context, s desk.Source, r desk.Record, largest int64) (desk.Record, error) {
	return hashed(ctx, s, r, func(_ desk.Entry, f desk.File) bool { return largest <= 0 || f.Size <= largest }, false)
}

// ReadTarget returns a record of the target with the hash of every file, as it was read now, of the entries that the migration
// wrote. A file that the desk does not give out is Unreadable.
func ReadTarget(ctx context.Context, t desk.Target, migration string, r desk.Record) (desk.Record, error) {
	return hashed(ctx, t, r, func(e desk.Entry, _ desk.File) bool { return ours(migration, e) }, true)
}

// ours tells whether an entry of a target carries a marker of the migration.
func ours(migration string, e desk.Entry) bool { return strings.HasPrefix(e.Marker, migration+"/") }

func hashed(ctx context.Context, d any, r desk.Record, which func(desk.Entry, desk.File) bool, lenient bool) (desk.Record, error) {
	o, can := d.(desk.Opener)
	r.Entries = slices.Clone(r.Entries)
	for i := range r.Entries {
		files := slices.Clone(r.Entries[i].Files)
		for j, f := range files {
			files[j].SHA256 = ""
			if !can || !which(r.Entries[i], f) {
				continue
			}
			sum, err := HashFile(o.OpenFile(ctx, r.Ref, f))
			switch {
			case err == nil:
			case lenient && (errors.Is(err, desk.ErrNotFound) || errors.Is(err, desk.ErrRejected)):
				sum = Unreadable
			default:
				return r, fmt.Errorf("read file %s of entry %s of %s: %w", f.ID, r.Entries[i].ID, r.Ref, err)
			}
			files[j].SHA256 = sum
		}
		r.Entries[i].Files = files
	}
	return r, nil
}

// HashFile returns the SHA-256 of a file in hex, and closes it. It takes what opening the file returned, its error too.
func HashFile(r io.ReadCloser, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Digester makes the digests of one certificate.
type Digester struct {
	key       []byte
	migration string
}

// Digester of a certificate. The key binds every digest to the salt, the migration, its mapping and both desks.
func (h Header) Digester() Digester {
	m := hmac.New(sha256.New, []byte(h.Salt))
	encode(m, h.Migration, h.Mapping, h.Source, h.Target)
	return Digester{m.Sum(nil), h.Migration}
}

// Source describes a record that ReadSource returned.
func (d Digester) Source(r desk.Record) *Side {
	return d.side("source", r, func(e desk.Entry) (string, bool) { return e.ID, true })
}

// Target describes a record that ReadTarget returned.
func (d Digester) Target(r desk.Record) *Side {
	return d.side("target", r, func(e desk.Entry) (string, bool) { return e.Marker, ours(d.migration, e) })
}

func (d Digester) side(name string, r desk.Record, id func(desk.Entry) (string, bool)) *Side {
	s := &Side{ID: r.Ref.ID, Version: version(r)}
	m := hmac.New(sha256.New, d.key)
	encode(m, name, r.Ref.Kind)
	for _, f := range slices.Sorted(maps.Keys(r.Fields)) {
		if len(r.Fields[f]) > 0 {
			encode(m, f, r.Fields[f])
		}
	}
	for _, e := range r.Entries {
		name, in := id(e)
		if !in {
			continue
		}
		s.Entries++
		encode(m, name, e.Public, e.At.UTC().Unix(), e.Subject, desk.CanonicalBody(e.Body))
		for _, f := range e.Files {
			s.Files++
			if f.SHA256 != "" {
				encode(m, f.Name, f.SHA256)
			} else {
				encode(m, f.Name, f.Size)
			}
		}
	}
	s.Digest = base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:24])
	return s
}

// encode writes values so that no two lists of values look the same.
func encode(w io.Writer, vs ...any) {
	if err := json.NewEncoder(w).Encode(vs); err != nil {
		panic("certificate: a record that cannot be written as JSON: " + err.Error()) // only strings, numbers and booleans reach this
	}
}

// version is the lock of a record, or its stamp where the desk has no locks.
func version(r desk.Record) string {
	switch {
	case r.Lock != "":
		return r.Lock
	case r.Stamp.Seq != 0:
		return fmt.Sprintf("%s/%d", r.Stamp.At.UTC().Format(time.RFC3339), r.Stamp.Seq)
	}
	return r.Stamp.At.UTC().Format(time.RFC3339)
}

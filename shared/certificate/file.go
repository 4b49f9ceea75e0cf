package certificate

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
)

// Writer writes a certificate line by line. It keeps nothing of what it wrote but the sums.
type Writer struct {
	w   io.Writer
	sum hash.Hash
	t   Trailer
}

// NewWriter writes the first line. What names the form is filled in.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	h.Format, h.Version, h.Schema = Format, Version, schemaID
	if h.Salt != "" {
		h.SaltSHA256 = saltDigest(h.Salt)
	}
	c := &Writer{w: w, sum: sha256.New(), t: Trailer{Verdict: "verified"}}
	return c, c.line(h)
}

// Add writes the line of one record.
func (c *Writer) Add(l Line) error {
	c.t.add(l)
	return c.line(l)
}

// Close writes the last line, and returns it. The underlying writer stays open.
func (c *Writer) Close() (Trailer, error) {
	c.t.SHA256 = hex.EncodeToString(c.sum.Sum(nil))
	return c.t, c.line(c.t)
}

func (c *Writer) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	b = append(b, '\n')
	c.sum.Write(b)
	if _, err := c.w.Write(b); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	return nil
}

// maxLine is the longest line that is read: a record with thousands of kept or differing entries.
const maxLine = 4 << 20

// Read reads a certificate to its end and calls f, unless it is nil, with each record's line. Only after an error-free end is
// it known that nothing was changed or cut off on the way; whoever acts on lines reads once without f before.
func Read(r io.Reader, f func(Header, Line) error) (Header, Trailer, error) {
	var h Header
	t := Trailer{Verdict: "verified"}
	sum, lines, n := sha256.New(), bufio.NewScanner(r), 0
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		b := lines.Bytes()
		n++
		switch {
		case n == 1:
			if err := begin(b, &h); err != nil {
				return h, t, err
			}
		case bytes.HasPrefix(b, []byte(`{"record":`)):
			var l Line
			if err := strict(b, &l); err != nil {
				return h, t, fmt.Errorf("line %d of the certificate is damaged or cut short: %w", n, err)
			}
			t.add(l)
			if f != nil {
				if err := f(h, l); err != nil {
					return h, t, err
				}
			}
		default:
			err := end(b, n, sum, &t, lines)
			return h, t, err
		}
		sum.Write(b)
		sum.Write([]byte{'\n'})
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return h, t, fmt.Errorf("line %d of the certificate is longer than any that Deltadesk writes", n+1)
	case err != nil:
		return h, t, fmt.Errorf("read certificate: %w", err)
	case n == 0:
		return h, t, errors.New("the file is empty")
	}
	return h, t, fmt.Errorf("the certificate is cut short: after line %d its last line, which has the sums and the SHA-256, is missing", n)
}

func begin(b []byte, h *Header) error {
	var first struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(b, &first); err != nil || first.Format != Format {
		return errors.New("the file is no certificate of Deltadesk: its first line does not say so")
	}
	if first.Version != Version {
		return fmt.Errorf("the certificate has version %d of the form, and this program knows version %d", first.Version, Version)
	}
	if err := strict(b, h); err != nil {
		return fmt.Errorf("line 1 of the certificate is damaged or cut short: %w", err)
	}
	return nil
}

// end reads the last line and compares it with what came before it.
func end(b []byte, n int, sum hash.Hash, counted *Trailer, lines *bufio.Scanner) error {
	var last Trailer
	if err := strict(b, &last); err != nil {
		return fmt.Errorf("line %d of the certificate is damaged or cut short: %w", n, err)
	}
	counted.SHA256 = hex.EncodeToString(sum.Sum(nil))
	switch {
	case last.SHA256 != counted.SHA256:
		return fmt.Errorf("the certificate was changed: the SHA-256 of its lines is %s, its last line says %s", counted.SHA256, last.SHA256)
	case last != *counted:
		return errors.New("the certificate was changed: its last line does not have the sums of the lines before it")
	case lines.Scan():
		return fmt.Errorf("the certificate was changed: there is something after its last line, %d", n)
	}
	return nil
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one value")
	}
	return nil
}

// WithoutSalt copies a certificate and leaves its salt out, which it returns: what is left can be shown to people who must
// not learn anything of the records, and is checked by those who have the salt.
func WithoutSalt(w io.Writer, r io.Reader) (salt string, t Trailer, err error) {
	var out *Writer
	start := func(h Header) error {
		if out != nil {
			return nil
		}
		if h.Salt != "" {
			salt, h.Salt, h.SaltSHA256 = h.Salt, "", saltDigest(h.Salt)
		}
		h.Limits = slices.DeleteFunc(slices.Clone(h.Limits), func(s string) bool { return s == LimitGuess })
		out, err = NewWriter(w, h)
		return err
	}
	h, _, err := Read(r, func(h Header, l Line) error {
		if err := start(h); err != nil {
			return err
		}
		return out.Add(l)
	})
	if err == nil {
		err = start(h)
	}
	if err != nil {
		return "", t, err
	}
	t, err = out.Close()
	return salt, t, err
}

package rest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Part of a multipart/form-data body. A part with a FileName is an upload.
type Part struct {
	Name     string
	FileName string
	Type     string // empty sends none
	Size     int64  // -1 where it is not known
	Open     func(context.Context) (io.ReadCloser, error)
}

// Field returns a part that holds text.
func Field(name, value string) Part { return FieldOf(name, "", value) }

// FieldOf returns a part that holds text of a media type.
func FieldOf(name, mediaType, value string) Part {
	return Part{Name: name, Type: mediaType, Size: int64(len(value)), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(value)), nil
	}}
}

// Multipart returns a body that streams the parts one after the other: memory does not grow with their size. Its length
// is announced where every part's size is known, and then a part that holds more or fewer bytes fails the request.
func Multipart(parts ...Part) Body {
	var b [16]byte
	_, _ = rand.Read(b[:])
	boundary := "deltadesk-" + hex.EncodeToString(b[:])
	heads := make([]string, len(parts))
	end := "--" + boundary + "--\r\n"
	total := int64(len(end))
	for i, p := range parts {
		h := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"" + quote(p.Name) + `"`
		if p.FileName != "" {
			h += `; filename="` + quote(p.FileName) + `"`
		}
		if p.Type != "" {
			h += "\r\nContent-Type: " + quoteType(p.Type)
		}
		heads[i] = h + "\r\n\r\n"
		if p.Size < 0 {
			total = -1
		}
		if total >= 0 {
			total += int64(len(heads[i])) + p.Size + 2
		}
	}
	return Body{Type: "multipart/form-data; boundary=" + boundary, Length: total, Open: func(ctx context.Context) (io.ReadCloser, error) {
		var all []Opener
		for i, p := range parts {
			all = append(all, Text(heads[i]), part(ctx, p), Text("\r\n"))
		}
		return Concat(append(all, Text(end))...), nil
	}}
}

// quote makes a name safe inside a quoted header parameter, the way browsers do: UTF-8 as it is, line ends as %0D and %0A,
// quotes escaped. Other control characters, which no header may hold, go the way of line ends.
func quote(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case control(c):
			fmt.Fprintf(&b, "%%%02X", c)
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			fallthrough
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// quoteType leaves out of a Content-Type what no header may hold.
func quoteType(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && control(byte(r)) {
			return -1
		}
		return r
	}, s)
}

func control(c byte) bool { return c < ' ' || c == 0x7f }

// Opener opens something to be read once.
type Opener func() (io.ReadCloser, error)

// Text opens a string.
func Text(s string) Opener {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

func part(ctx context.Context, p Part) Opener {
	return func() (io.ReadCloser, error) {
		r, err := p.Open(ctx)
		if err != nil {
			// Nothing complete can have arrived, so what was asked for has not been done.
			return nil, fmt.Errorf("opening what is to be sent: %w", err)
		}
		if p.Size < 0 {
			return r, nil
		}
		return &exact{ReadCloser: r, left: p.Size}, nil
	}
}

// Concat reads one source after the other, each opened when its turn comes.
func Concat(sources ...Opener) io.ReadCloser { return &multi{queue: sources} }

type multi struct {
	queue []Opener
	now   io.ReadCloser
}

func (m *multi) Read(p []byte) (int, error) {
	for {
		if m.now == nil {
			if len(m.queue) == 0 {
				return 0, io.EOF
			}
			r, err := m.queue[0]()
			if err != nil {
				return 0, err
			}
			m.now, m.queue = r, m.queue[1:]
		}
		n, err := m.now.Read(p)
		if errors.Is(err, io.EOF) {
			err = m.now.Close()
			m.now = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (m *multi) Close() error {
	m.queue = nil
	if m.now == nil {
		return nil
	}
	err := m.now.Close()
	m.now = nil
	return err
}

var errSize = errors.New("a file is not as long as it was said to be")

// exact fails unless precisely left bytes come.
type exact struct {
	io.ReadCloser
	left int64
}

func (e *exact) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	e.left -= int64(n)
	if e.left < 0 || err == io.EOF && e.left != 0 {
		return 0, &desk.Error{Op: "sending a file", Class: desk.ErrTransient, Err: errSize}
	}
	return n, err
}

package requesttracker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// message adds an entry to a request's body, and the files to the request: nothing is held in memory.
func (t *target) message(ctx context.Context, body map[string]any, e *desk.Entry) (rest.Body, []desk.Loss, error) {
	if e == nil {
		return rest.JSON(body), nil, nil
	}
	body["Content"], body["ContentType"] = addHeader(*e), entryType(*e)
	if subject, creating := body["Subject"]; !creating && e.Subject != "" {
		body["Subject"] = e.Subject
	} else if creating && (subject != e.Subject || len(e.Subject) > 200) { // RT cuts a ticket's subject, and its first message's with it
		body["ContentType"] = entryType(*e) + "; " + paramSubject + `="` + paramEscape(e.Subject) + `"`
	}
	ups, losses, err := t.uploads(ctx, *e)
	if err != nil || len(ups) == 0 {
		return rest.JSON(body), losses, err
	}
	if slices.ContainsFunc(ups, func(u up) bool { return u.file.Size == 0 }) {
		return jsonWithFiles(body, ups), losses, nil
	}
	head, err := json.Marshal(body)
	if err != nil {
		return rest.Body{}, nil, err
	}
	parts := []rest.Part{rest.Field("JSON", string(head))}
	for _, u := range ups {
		parts = append(parts, rest.Part{Name: "Attachments", FileName: u.name, Type: u.contentType, Size: u.file.Size, Open: u.file.Open})
	}
	return rest.Multipart(parts...), losses, nil
}

func entryType(e desk.Entry) string {
	if e.Type == "text/html" {
		return e.Type
	}
	return "text/plain"
}

// up is a file on its way.
type up struct {
	file              desk.File
	name, contentType string
}

// uploads decides how each file of an entry is sent. Texts are looked through first: RT would rewrite those that are not
// UTF-8.
func (t *target) uploads(ctx context.Context, e desk.Entry) ([]up, []desk.Loss, error) {
	var out []up
	var losses []desk.Loss
	for _, f := range e.Files {
		if f.Open == nil {
			return nil, nil, &desk.Error{Op: "write file " + f.ID, Said: "a file without content", Class: desk.ErrRejected}
		}
		exact := true
		if transcoded(f.Type) {
			var err error
			if exact, err = scanText(ctx, f); err != nil {
				return nil, nil, err
			}
			if !exact {
				losses = append(losses, desk.Loss{Class: lossTextType, What: "file " + f.ID, Kept: "its bytes"})
			}
		}
		name, ct := upload(f, exact)
		if name != f.Name {
			losses = append(losses, desk.Loss{Class: lossFileName, What: "file " + f.ID, Kept: "its Content-Type"})
		}
		out = append(out, up{f, name, ct})
	}
	return out, losses, nil
}

func scanText(ctx context.Context, f desk.File) (bool, error) {
	r, err := f.Open(ctx)
	if err != nil {
		return false, err
	}
	defer r.Close()
	buf := make([]byte, 64<<10)
	kept := 0
	for {
		n, err := r.Read(buf[kept:])
		n += kept
		// A rune may be cut by the end of the buffer: up to three bytes wait for the rest.
		cut := n
		if err == nil {
			for cut > 0 && n-cut < 3 && buf[cut-1] >= 0x80 {
				cut--
			}
			if n-cut == 3 && buf[cut] < 0xF0 {
				cut = n - lastRune(buf[:n])
			}
		}
		if !exactText(buf[:cut]) {
			return false, nil
		}
		kept = copy(buf, buf[cut:n])
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// lastRune returns how many bytes at the end of b belong to a rune that may be incomplete.
func lastRune(b []byte) int {
	for n := 1; n <= 3 && n <= len(b); n++ {
		if b[len(b)-n]&0xC0 == 0xC0 {
			return n
		}
	}
	return 0
}

// jsonWithFiles is a body with files in base64: the only way in which REST takes empty ones. Names must be written as the
// characters of their UTF-8 bytes.
func jsonWithFiles(body map[string]any, ups []up) rest.Body {
	head, err := json.Marshal(body)
	if err != nil {
		panic("requesttracker: a body that is not JSON: " + err.Error())
	}
	begin := strings.TrimSuffix(string(head), "}") + `,"Attachments":[`
	const end = "]}"
	length := int64(len(begin) + len(end))
	heads := make([]string, len(ups))
	for i, u := range ups {
		latin := make([]rune, 0, len(u.name))
		for _, c := range []byte(u.name) {
			latin = append(latin, rune(c))
		}
		one, err := json.Marshal(map[string]string{"FileName": string(latin), "FileType": u.contentType})
		if err != nil {
			panic("requesttracker: a file's name that is not JSON: " + err.Error())
		}
		heads[i] = strings.TrimSuffix(string(one), "}") + `,"FileContent":"`
		if i > 0 {
			heads[i] = "," + heads[i]
		}
		length += int64(len(heads[i]) + len(fileEnd))
		switch size := u.file.Size; {
		case size == 0:
			length += int64(len(noBytes))
		case size < 0 || length < 0:
			length = math.MinInt64 / 2
		default:
			length += (size + 2) / 3 * 4
		}
	}
	return rest.Body{Type: "application/json", Length: max(length, -1), Open: func(ctx context.Context) (io.ReadCloser, error) {
		all := []rest.Opener{rest.Text(begin)}
		for i, u := range ups {
			content := rest.Text(noBytes)
			if u.file.Size != 0 {
				content = func() (io.ReadCloser, error) {
					r, err := u.file.Open(ctx)
					return &encoder{in: r}, err
				}
			}
			all = append(all, rest.Text(heads[i]), content, rest.Text(fileEnd))
		}
		return rest.Concat(append(all, rest.Text(end))...), nil
	}}
}

const (
	fileEnd = `"}`
	noBytes = " " // base64 of nothing that RT does not take for nothing
)

// encoder reads the base64 of what in gives.
type encoder struct {
	in  io.ReadCloser
	raw [3 << 12]byte
	buf [4 << 12]byte
	out []byte // of buf, not yet read
	err error
}

func (e *encoder) Read(p []byte) (int, error) {
	if len(e.out) == 0 && e.err == nil {
		n, err := io.ReadFull(e.in, e.raw[:])
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		e.err = err
		base64.StdEncoding.Encode(e.buf[:], e.raw[:n])
		e.out = e.buf[:base64.StdEncoding.EncodedLen(n)]
	}
	if len(e.out) == 0 {
		return 0, e.err
	}
	n := copy(p, e.out)
	e.out = e.out[n:]
	return n, nil
}

func (e *encoder) Close() error { return e.in.Close() }

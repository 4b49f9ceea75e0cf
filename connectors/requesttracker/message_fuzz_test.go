package requesttracker

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/html"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// FuzzMessage reads back what is sent for an entry, as RT would: its text, its files' bytes and names, no header and no file
// more. What RT has no place for comes back out of the Content-Types.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{"", "a.txt", "../../etc/passwd", `C:\x\y`, `a"b`, "a\r\nContent-Type: text/html\r\n\r\n<b>", "\x00", "\u202egnp.exe", "\xff\xfe", strings.Repeat("ä/", 300), "0", " ", "=?utf-8?q?x?=", "%41", "x;y=z", "a\u2028b", "😀"} {
		f.Add(s, "text/plain", s, s, "body", "bytes", true)
		f.Add(s, s, "c@d", "subject", s, s, false)
		f.Add("a", "message/rfc822", s, s, s, "", false)
		f.Add("a", "text/csv", "", s, "", "\xe4\xf6", true)
	}
	tg := &target{account: testAccount()}
	f.Fuzz(func(t *testing.T, name, kind, cid, subject, text, content string, creating bool) {
		e := desk.Entry{ID: "1", Marker: "m/1", At: at, Author: desk.Author{Name: name}, Subject: subject, Body: text, Type: kind}
		e.Files = []desk.File{file("f", name, kind, []byte(content)), file("g", kind, "image/png", []byte("x"))}
		e.Files[0].CID, e.Files[0].Inline = cid, cid != ""
		body := map[string]any{}
		if creating {
			body["Subject"] = "the ticket's own"
		}
		b, losses, err := tg.message(t.Context(), body, &e)
		if err != nil {
			t.Fatal(err)
		}
		rc, err := b.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(rc)
		if err != nil || b.Length != int64(len(raw)) {
			t.Fatalf("%d bytes, %d announced, %v", len(raw), b.Length, err)
		}
		var sent struct {
			Subject, Content, ContentType string
			Attachments                   []struct{ FileName, FileType, FileContent string }
		}
		files := received(t, b.Type, raw, &sent)
		if len(files) != 2 {
			t.Fatalf("%d files were sent", len(files))
		}
		if utf8.ValidString(text) && sent.Content != addHeader(e) {
			t.Errorf("the text %q is sent as %q", text, sent.Content)
		}
		if got, ok := ownSubject([]wireAttachment{{ContentType: "text/plain", Headers: str("Content-Type: " + sent.ContentType)}}); creating && (!ok || got != subject) || strings.ContainsAny(sent.ContentType, "\r\n") {
			t.Errorf("the subject %q is sent as %q", subject, sent.ContentType)
		}
		for i, want := range e.Files {
			x := files[i]
			if safe := safeName(want.Name); x.name != safe || safe == "" || safe == "0" || len(safe) > 255 || !utf8.ValidString(safe) || strings.ContainsAny(safe, "/\\\"\r\n\x00") || safeName(safe) != safe {
				t.Errorf("the name %q is sent as %q", want.Name, x.name)
			}
			if want := map[int]string{0: content, 1: "x"}[i]; x.content != want {
				t.Errorf("%q is sent as %q", want, x.content)
			}
			if _, _, err := mime.ParseMediaType(x.kind); err != nil {
				t.Errorf("the type %q is sent as %q: %v", want.Type, x.kind, err)
			}
			got := desk.File{Name: x.name, Type: mediaTypeOf(x.kind)}
			wireAttachment{Headers: str("Content-Type: " + x.kind), ContentLength: "0"}.own(&got)
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(desk.File{}, "ID", "Size", "SHA256", "Open")); diff != "" {
				t.Errorf("-sent +read back:\n%s", diff)
			}
		}
		for _, l := range losses {
			if l.What != "file f" && l.What != "file g" {
				t.Errorf("a loss of %q", l.What)
			}
		}
	})
}

type receivedFile struct{ name, kind, content string }

// received takes a request's body apart, in either of its two forms.
func received(t *testing.T, kind string, raw []byte, sent *struct {
	Subject, Content, ContentType string
	Attachments                   []struct{ FileName, FileType, FileContent string }
}) []receivedFile {
	t.Helper()
	mt, params, err := mime.ParseMediaType(kind)
	if err != nil {
		t.Fatal(err)
	}
	var out []receivedFile
	if mt == "application/json" {
		if err := json.Unmarshal(raw, sent); err != nil {
			t.Fatal(err)
		}
		for _, a := range sent.Attachments {
			name := make([]byte, 0, len(a.FileName))
			for _, c := range a.FileName { // bytes as characters
				name = append(name, byte(c))
			}
			b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(a.FileContent))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, receivedFile{string(name), a.FileType, string(b)})
		}
		return out
	}
	parts := multipart.NewReader(bytes.NewReader(raw), params["boundary"])
	for n := 0; ; n++ {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			if err := json.Unmarshal(b, sent); err != nil || p.FormName() != "JSON" || len(p.Header) != 1 {
				t.Fatalf("%v, %v", p.Header, err)
			}
			continue
		}
		_, params, err := mime.ParseMediaType(p.Header.Get("Content-Disposition"))
		if err != nil || params["name"] != "Attachments" || len(p.Header) != 2 {
			t.Fatalf("%v, %v", p.Header, err)
		}
		out = append(out, receivedFile{params["filename"], p.Header.Get("Content-Type"), string(b)})
	}
}

// FuzzFile compares the bytes of a file that are read from the stream with what a JSON parser makes of the whole answer.
func FuzzFile(f *testing.F) {
	for _, s := range []string{
		`{"Content":"SGVsbG8="}`, `{"Headers":"a: \"{\\\u00e4","Parent":{"Content":"no"},"Content":"SGVs\nbG8=\n"}`, `{"Content":"","id":7}`, `{"id":7}`, `{}`, `[]`, `null`, `7`, `"Content"`, "", "{", `{"Content":`, `{"Content":"`, `{"Content":"SGVs`,
		`{"Content":"SGVsbG8="`, `{"Content":"SGVsbG8=","id":`, `{"Content":null}`, `{"Content":{"Content":"SGVsbG8="}}`, `{"Content":["SGVsbG8="]}`, `{"a":"Content","Content":"SGVsbG8="}`, `{"a":["Content","x"],"Content":"SGVsbG8="}`,
		`{"Content":"SGVs\/bG8="}`, `{"Content":"\u0053GVsbG8="}`, `{"Content":"SGVsbG8"}`, `{"Content":"====" }`, `{"Content":"SGVsbG8=SGVsbG8="}`, ` {"x":1,"Content" : "SGVsbG8=" } `, `{"Content":"SGVsbG8="} ` + planted, `}{"Content":"SGVsbG8="}`,
		`{"Content":"SGVsbG8=","Headers":"` + strings.Repeat("x", 2<<20) + `"}`,
	} {
		f.Add([]byte(s), int64(-1))
		f.Add([]byte(s), int64(5))
	}
	f.Fuzz(func(t *testing.T, answer []byte, size int64) {
		r := &fileReader{body: io.NopCloser(nil), in: bufio.NewReaderSize(bytes.NewReader(answer), 16), want: size}
		got, err := io.ReadAll(r)
		var e *desk.Error
		if err != nil && (!errors.As(err, &e) || e.Class == nil || strings.Contains(err.Error(), planted)) {
			t.Errorf("got %v", err)
		}
		if err == nil && size >= 0 && int64(len(got)) < size {
			t.Errorf("%d bytes of %d are taken for all", len(got), size)
		}
		var all map[string]json.RawMessage
		if json.Unmarshal(answer, &all) != nil || all == nil || bytes.Count(answer, []byte("Content")) != 1 || bytes.Contains(answer, []byte(`\u`)) {
			return // no JSON object, or one that can be read in two ways
		}
		var text string
		if raw, ok := all["Content"]; ok && json.Unmarshal(raw, &text) != nil {
			return
		}
		want, decodeErr := base64.StdEncoding.DecodeString(text)
		switch short := size >= 0 && int64(len(want)) < size; {
		case (decodeErr != nil || short) != (err != nil):
			t.Errorf("got %v, want %v (too short: %t)", err, decodeErr, short)
		case err == nil && !bytes.Equal(got, want):
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// FuzzWords: a text and its own HTML say the same words, and whatever is added to one of them makes a difference.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"", "Hello *you*", "a < b & c > d", "&amp;", "<script>x", "</p>", "<!--", "<![CDATA[x]]>", "\x00a", "ä\xff", "<plaintext>", "</title", "<style>a", "&#x41;", "\r\n", "<textarea>x", "<iframe>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		for _, markup := range []string{html.EscapeString(s), "<p>" + html.EscapeString(s) + "</p>", "<style>p{}</style><b>" + html.EscapeString(s) + "</b><script>x</script>"} {
			if !sameWords(s, markup) {
				t.Errorf("%q does not say what %q says", markup, s)
			}
			if sameWords(s+"x", markup) || sameWords(s, markup+"x") {
				t.Errorf("%q, %q: a letter more is no difference", s, markup)
			}
		}
		if n := len(htmlText(s)); n > 4*len(s)+8 {
			t.Errorf("%d bytes of HTML have %d bytes of text", len(s), n)
		}
	})
}

// FuzzHeaders compares headers with the standard library's parser where that can read them, and looks into what becomes of an
// entry whose mail has any headers: no value has a line end, which a mail could take for another header.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{
		"", "From: a@x\nTo: b@x\n", "From: a\r\nSubject: x\r\n folded\r\nSubject: y\r\n", "From: a\rBcc: c@x\n", ":", " x", "a:\n b\n\tc", "Message-ID: <1@x>\nReferences: <0@x>\n\t<1@x>\nFrom: x", "From\n: x", "FROM : x", "From: \x00\x0b", "Content-ID: <a<b>>\nFrom: x",
		"Content-Type: text/plain; x-dd-name=\"%0D%0A\"; x-dd-type=\"A;B\"", "Content-Disposition: attachment; filename=x\nContent-ID: <c>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := headers(s)
		for name, v := range got {
			if strings.ContainsAny(name+v, "\r\n") || name != strings.ToLower(name) || v != strings.TrimSpace(v) {
				t.Errorf("%q: %q", name, v)
			}
		}
		plain := s == strings.TrimSpace(s) && !strings.Contains(s, "\n\n") && !strings.ContainsAny(s, "\r\v\f\u0085\u00a0") && utf8.ValidString(s)
		if want, err := textproto.NewReader(bufio.NewReader(strings.NewReader(s + "\n\n"))).ReadMIMEHeader(); err == nil && plain {
			for name, vs := range want {
				if strings.Contains(name, " ") {
					continue // kept as it is by the one, cut by the other
				}
				if g := strings.Join(strings.Fields(got[strings.ToLower(name)]), " "); g != strings.Join(strings.Fields(vs[0]), " ") {
					t.Errorf("%s is %q, want %q", name, g, vs[0])
				}
			}
		}
		w := thread{ticket: wireTicket{ID: "7"}, txns: []wireTxn{{ID: 1, Type: "Create", Creator: wireRef{Name: "root"}}}, texts: map[number]string{2: "x"}, parts: []wireAttachment{
			{ID: 2, TransactionID: "1", ContentType: "text/plain", Headers: str(s)}, {ID: 3, TransactionID: "1", ContentType: "image/png", Headers: str(s), Filename: str(s)},
		}}
		for _, e := range testAccount().record(w, at).Entries {
			for name, v := range e.Headers {
				if strings.ContainsAny(name+v, "\r\n") {
					t.Errorf("header %s is %q", name, v)
				}
			}
			for _, x := range e.Files {
				if strings.ContainsAny(x.CID, "<>\r\n") || strings.ContainsAny(x.Type, ";\r\n") {
					t.Errorf("file %+v", x)
				}
			}
		}
	})
}

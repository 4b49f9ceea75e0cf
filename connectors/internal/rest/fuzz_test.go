package rest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// planted stands where only content does, and must never be in an error.
const planted = "planted-words"

// wellSaid checks an error: it has a class, and no content.
func wellSaid(t *testing.T, err error) {
	t.Helper()
	var e *desk.Error
	switch {
	case err == nil:
	case !errors.As(err, &e) || e.Class == nil:
		t.Errorf("without a class: %v", err)
	case strings.Contains(err.Error(), planted):
		t.Errorf("says too much: %v", err)
	case e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter:
		t.Errorf("wait %v", e.RetryAfter)
	}
}

// FuzzAnswer: whatever comes back over the wire, status line and headers included, is an answer or an error with a class that
// repeats nothing of it, and a POST is sent once.
func FuzzAnswer(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for _, s := range []string{
		"", planted, planted + "\r\n\r\n", "HTTP/1.1 " + planted, "HTTP/1.1 999 " + planted + "\r\n\r\n", "HTTP/" + planted + " 200 OK\r\n\r\n",
		ok + "Content-Length: " + planted + "\r\n\r\n", ok + "Content-Length: -1\r\n\r\n", ok + "Content-Length: 9\r\nContent-Length: 8\r\n\r\n{}",
		ok + planted + "\r\n\r\n", ok + " " + planted + "\r\n\r\n", ok + planted + "\x00: x\r\n\r\n", ok + "X: " + planted + "\x00\r\n\r\n", ok + "Transfer-Encoding: " + planted + "\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n" + planted, ok + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + planted + "\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		ok + "Content-Encoding: gzip\r\n\r\n" + planted, ok + "Content-Length: 2\r\n\r\n{}", ok + "Content-Length: 99\r\n\r\n{}", ok + "\r\n{\"a\":\"" + planted + "\"}",
		ok + "\r\n{\"" + planted + "\":1,\"b\":{\"" + planted + "\":[1]}}", ok + "\r\n{\"b\":{\"" + planted + "\":\"x\"}}", ok + "\r\n{\"c\":\"" + planted + "\"}", ok + "\r\n\xff\xfe", ok + "\r\n" + strings.Repeat("[", 2000),
		"HTTP/1.1 302 Found\r\nLocation: http://%zz" + planted + "\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: //" + planted + "/\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: x://" + planted + "\r\n\r\n",
		"HTTP/1.1 302 Found\r\n\r\n", "HTTP/1.1 429 Slow\r\nRetry-After: NaN\r\n\r\n", "HTTP/1.1 429 Slow\r\nRetry-After: -1e999\r\n\r\n", "HTTP/1.1 429 Slow\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n",
		"HTTP/1.1 500 \r\n\r\n", "HTTP/1.1 500 \r\n\r\n" + planted, "HTTP/1.1 401 No\r\n\r\n", "HTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "\r\n{}",
		"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ok + strings.Repeat("X: y\r\n", 9000) + "\r\n{}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		for _, r := range []Request{{Method: http.MethodGet, Path: "/x", Query: url.Values{"q": {planted}}, Follow: true}, {Method: http.MethodPost, Path: "/" + planted, Label: "POST /N", Body: JSON(planted)}} {
			synctest.Test(t, func(t *testing.T) {
				sent := 0
				tr := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 256 << 10, DialContext: func(context.Context, string, string) (net.Conn, error) {
					sent++
					near, far := net.Pipe()
					go answerWith(far, wire)
					return near, nil
				}}
				cl := New(Options{Base: parse(t, "http://desk.example"), HTTP: &http.Client{Transport: tr}, MaxAnswer: 1 << 16, Renew: func() {}})
				var out struct {
					A int
					B map[string][]int
					C time.Time
				}
				_, err := cl.JSON(t.Context(), r, &out)
				if wellSaid(t, err); r.Method == http.MethodPost && sent > 2 || sent > 3*7 {
					t.Errorf("%d requests", sent)
				}
				body, _, status, err := cl.Text(t.Context(), r)
				if wellSaid(t, err); err == nil && (status < 200 || status > 299 || len(body) > 1<<16) {
					t.Errorf("status %d and %d bytes are an answer", status, len(body))
				}
				if res, err := cl.Open(t.Context(), r); err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					wellSaid(t, err)
					_ = res.Body.Close()
				} else {
					wellSaid(t, err)
				}
			})
		}
	})
}

// answerWith waits for a request and answers with bytes.
func answerWith(c net.Conn, wire []byte) {
	defer c.Close()
	if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = c.Write(wire)
	}
}

// FuzzMultipart: whatever the names and types of the parts, a server reads just these parts, each with its own bytes and no
// header more.
func FuzzMultipart(f *testing.F) {
	for _, s := range []string{"a.txt", "", `a"b`, `a\b`, `\`, `a\"`, "a\r\nX-Evil: 1\r\n\r\nbody", "\r\n--deltadesk", "../../x", "\x00", "\u202egnp.exe", "\xff", "%0D%22", "a;filename=b", strings.Repeat("ü", 5000), "=?utf-8?q?x?=", "\t", "\x7f", " a "} {
		f.Add(s, s, "text/plain", "content", int64(0))
		f.Add("file", "a.txt", s, s, int64(-1))
		f.Add("file", s, "text/plain; charset=utf-8; name=\""+s+"\"", s, int64(1))
	}
	f.Fuzz(func(t *testing.T, name, fileName, kind, content string, off int64) {
		size := int64(len(content)) + off
		if off < -1 || size < 0 {
			size = -1
		}
		b := Multipart(FieldOf(name, kind, content), Part{
			Name: name, FileName: fileName, Type: kind, Size: size,
			Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
		}, Field("last", "end"))
		rc, err := b.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(rc)
		_ = rc.Close()
		if size >= 0 && size != int64(len(content)) {
			if err == nil || desk.Class(err) != desk.ErrTransient { //nolint:errorlint // a class is one of the sentinels itself
				t.Errorf("%d bytes of %d: %v", len(content), size, err)
			}
			return
		}
		if err != nil || b.Length >= 0 && b.Length != int64(len(raw)) || (b.Length < 0) != (size < 0) {
			t.Fatalf("%d bytes, %d announced, %v", len(raw), b.Length, err)
		}
		_, params, err := mime.ParseMediaType(b.Type)
		if err != nil {
			t.Fatal(err)
		}
		parts := multipart.NewReader(bytes.NewReader(raw), params["boundary"])
		for i, want := range []struct{ name, fileName, kind, content string }{{name, "", kind, content}, {name, fileName, kind, content}, {"last", "", "", "end"}} {
			p, err := parts.NextRawPart()
			if err != nil {
				t.Fatalf("part %d: %v", i, err)
			}
			got, err := io.ReadAll(p)
			if string(got) != want.content || err != nil {
				t.Errorf("part %d has %d bytes of %d, %v", i, len(got), len(want.content), err)
			}
			for h, v := range p.Header {
				if h != "Content-Disposition" && (h != "Content-Type" || want.kind == "") || len(v) != 1 {
					t.Errorf("part %d has the header %s %d times", i, h, len(v))
				}
			}
			if _, params, err := mime.ParseMediaType(p.Header.Get("Content-Disposition")); err != nil || params["name"] != shown(want.name) || params["filename"] != shown(want.fileName) {
				t.Errorf("part %d: %q and %q become %q, %v", i, want.name, want.fileName, params, err)
			}
		}
		if _, err := parts.NextRawPart(); !errors.Is(err, io.EOF) {
			t.Errorf("after the last part: %v", err)
		}
	})
}

// shown is a name as a server sees it.
func shown(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

package requesttracker

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/desk"
)

var at = time.Date(2019, 3, 4, 5, 6, 7, 0, time.UTC)

func TestHeaderForm(t *testing.T) {
	e := desk.Entry{Marker: "acme/94", At: at, Author: desk.Author{Name: "Anna Example", Email: "anna@x.example"}, Type: "text/plain", Body: "Hello\n"}
	if got := addHeader(e); got != "[acme/94 · 2019-03-04 05:06:07 UTC · Anna Example <anna@x.example>]\n\nHello\n" {
		t.Error(got)
	}
	e.Type, e.Author.Name = "text/html", `"A & B"`
	if got := addHeader(e); got != `<p style="color:#777;font-size:85%">[acme/94 · 2019-03-04 05:06:07 UTC · &#34;A &amp; B&#34; &lt;anna@x.example&gt;]</p>`+"\nHello\n" {
		t.Error(got)
	}
}

func TestHeaderIsNotBelievedWhereThereIsNone(t *testing.T) {
	for _, body := range []string{
		"", "[", "[]", "[x]\n\ny", "Hello", "[a/1 · 2019-13-04 05:06:07 UTC · x]\n\n", "[a/1 · 2019-03-04 05:06:07 · x]\n\n",
		" [a/1 · 2019-03-04 05:06:07 UTC · x]\n\n", "[a/1 · 2019-03-04 05:06:07 UTC · x] y",
	} {
		e := desk.Entry{Body: body, Type: "text/plain"}
		if cutHeader(&e) || e.Body != body || e.Marker != "" {
			t.Errorf("%q was taken for a header", body)
		}
	}
}

// Any entry comes back as it was, after what RT does to a body: line ends at the very end may go.
func FuzzHeader(f *testing.F) {
	for _, body := range []string{"", "x", "\n\nx", "]\n\n[", "<p>[x]</p>\n", htmlOpen + "]" + htmlClose, "a\r\nb"} {
		f.Add("acme/94", "Anna <x> · 100%41 ]", "a@x.example", body, true, int64(1551675967))
		f.Add("a b/%41", "", "", body, false, int64(0))
		f.Add("m", " ä\u2028\xff ", "<>", body, true, int64(-1))
	}
	f.Fuzz(func(t *testing.T, marker, name, email, body string, isHTML bool, sec int64) {
		if marker == "" || sec < -1e10 || sec > 1e11 || strings.HasSuffix(desk.CanonicalBody(body), "\r") {
			return // a line feed after the carriage return would make a line end of both
		}
		want := desk.Entry{Marker: marker, Author: desk.Author{Name: name, Email: email}, Body: desk.CanonicalBody(body), Type: "text/plain"}
		if sec != 0 {
			want.At = time.Unix(sec, 0).UTC()
		}
		if isHTML {
			want.Type = "text/html"
		}
		for _, stored := range []string{addHeader(want), strings.TrimRight(addHeader(want), "\n"), addHeader(want) + "\n\n"} {
			if utf8.ValidString(body) != utf8.ValidString(stored) {
				t.Errorf("the header line itself is not UTF-8: %q", stored)
			}
			got := desk.Entry{Body: desk.CanonicalBody(stored), Type: want.Type}
			if !cutHeader(&got) {
				t.Fatalf("not found in %q", stored)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
	})
}

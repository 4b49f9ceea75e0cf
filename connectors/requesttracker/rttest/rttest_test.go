package rttest

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/mail"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestCorpus(t *testing.T) {
	all := corpus(rand.New(rand.NewPCG(1, 1)))
	if len(all) < 60 {
		t.Errorf("%d messages, at least 60 are wanted", len(all))
	}
	names := map[string]bool{}
	for _, m := range all {
		if names[m.name] {
			t.Errorf("two messages are called %s", m.name)
		}
		if m.replyTo != "" && !names[m.replyTo] {
			t.Errorf("%s replies to %s, which comes later or never", m.name, m.replyTo)
		}
		names[m.name] = true
		raw := m.raw("id@x", "")
		parsed, err := mail.ReadMessage(bytes.NewReader(raw))
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if _, err := io.Copy(io.Discard, parsed.Body); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
	again := corpus(rand.New(rand.NewPCG(1, 1)))
	for i := range all {
		if !bytes.Equal(all[i].raw("id", ""), again[i].raw("id", "")) {
			t.Errorf("%s is not the same again", all[i].name)
		}
	}
}

func TestStripHeader(t *testing.T) {
	for _, c := range []struct {
		body   string
		html   bool
		header string
		want   string
	}{
		{"[acme 7 ana@x, 2026-01-02]\n\nHello\n\nyou", false, "[acme 7 ana@x, 2026-01-02]", "Hello\n\nyou"},
		{"[acme 7]\nHello", false, "[acme 7]", "Hello"},
		{"[acme 7\n second line]\n\nHello", false, "[acme 7\n second line]", "Hello"},
		{"[acme 7]", false, "[acme 7]", ""},
		{"[acme 7]\n\n\n\nblank lines stay", false, "[acme 7]", "\n\nblank lines stay"},
		{"Hello", false, "", ""},
		{"<p>[acme 7 Ana &lt;ana@x&gt;]</p>\n<p>Hello</p>", true, "[acme 7 Ana <ana@x>]", "<p>Hello</p>"},
		{"<div class=\"m\"><small>[acme 7]</small></div><p>Hello</p>", true, "[acme 7]", "<p>Hello</p>"},
		{"<p>Hello</p>", true, "", ""},
	} {
		header, bodies := StripHeader(c.body, c.html)
		if strings.TrimSpace(header) != c.header {
			t.Errorf("%q: header %q, want %q", c.body, header, c.header)
		}
		found := c.want == "" && c.header == ""
		for _, b := range bodies {
			found = found || b == c.want
		}
		if !found {
			t.Errorf("%q: bodies %q, want %q", c.body, bodies, c.want)
		}
	}
}

func TestSaysNoMore(t *testing.T) {
	for _, c := range []struct {
		plain, html string
		want        bool
	}{
		{"Hello there,\n\nthe printer is on fire.", "<p>Hello there,</p><p>the <b>print</b>er is on&nbsp;fire.</p>", true},
		{"", "<p>x</p>", true},
		{"Logo: [image]", `<p>Logo: <img src="cid:x" alt="[image]"></p>`, true},
		{"Your number is 4711", "<p>Your number is in the other part</p>", false},
		{"alert", "<script>alert</script>", false},
	} {
		if got := saysNoMore(c.plain, c.html); got != c.want {
			t.Errorf("%q in %q: %v", c.plain, c.html, got)
		}
	}
}

func TestSourceID(t *testing.T) {
	for v, want := range map[string]int64{"ticket/12": 12, "12": 12, "src/ticket/7": 7, "x": 0, "": 0} {
		got, ok := SourceID(v)
		if got != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v", v, got, ok)
		}
	}
}

func TestDecode(t *testing.T) {
	for _, c := range []struct{ encoding, in, want string }{
		{"none", "a=3D", "a=3D"}, {"quoted-printable", "a=3D=\nb =C3=A4\n", "a=b ä\n"}, {"base64", "YW\nJj\n", "abc"},
	} {
		got, err := decode(c.encoding, []byte(c.in))
		if err != nil || string(got) != c.want {
			t.Errorf("%s %q: %q, %v", c.encoding, c.in, got, err)
		}
	}
}

func TestKillRandomly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	if _, killed, err := KillRandomly(exec.Command("sleep", "60"), rng, 50*time.Millisecond); !killed || err != nil {
		t.Errorf("a long process: killed %v, %v", killed, err)
	}
	rng = rand.New(rand.NewPCG(1, 1))
	if _, killed, err := KillRandomly(exec.Command("true"), rng, time.Hour); killed || err != nil {
		t.Errorf("a short process: killed %v, %v", killed, err)
	}
	if _, killed, err := KillRandomly(exec.Command("false"), rng, time.Hour); killed || err == nil {
		t.Errorf("a failing process: killed %v, %v", killed, err)
	}
}

func TestOpenMail(t *testing.T) {
	pdf := randomBytes(rand.New(rand.NewPCG(1, 1)), 100)
	m := message{from: "a@x", subject: "s", body: multi("mixed", body("plain", "utf-8", "quoted-printable", "größe\r\n"), attach("application/pdf", "a.pdf", pdf))}
	got := openMail(&dbLeaf{ctype: "message/rfc822", text: string(m.raw("i@x", ""))})
	if len(got) != 2 || canonical(got[0].text) != "größe" || got[1].sha != sum(pdf) || got[1].name != "a.pdf" {
		t.Errorf("%+v", got)
	}
	if openMail(&dbLeaf{ctype: "text/plain", text: "x"}) != nil {
		t.Error("a text is no mail")
	}
}

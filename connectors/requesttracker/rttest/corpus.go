package rttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"mime/quotedprintable"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
)

// message is one mail of the corpus.
type message struct {
	name    string
	queue   string // default General
	action  string // default correspond
	replyTo string // name of the message that made the ticket; empty for a new ticket
	from    string // header values, as they stand in the mail
	to, cc  string
	subject string // header value without the ticket's tag
	headers []string
	body    part
}

// part is one node of a MIME tree.
type part struct {
	head  []string // header lines
	data  []byte   // body as transmitted
	parts []part   // of a multipart
	sha   string   // of a file whose bytes RT must keep: SHA-256 of its content
	file  string   // and its name, "" for none
}

func sum(b []byte) string { h := sha256.Sum256(b); return hex.EncodeToString(h[:]) }

// charsets by MIME name.
var charsets = map[string]encoding.Encoding{
	"iso-8859-1": charmap.ISO8859_1, "iso-8859-2": charmap.ISO8859_2, "iso-8859-5": charmap.ISO8859_5, "iso-8859-7": charmap.ISO8859_7,
	"iso-8859-8": charmap.ISO8859_8, "iso-8859-9": charmap.ISO8859_9, "iso-8859-15": charmap.ISO8859_15,
	"windows-1250": charmap.Windows1250, "windows-1251": charmap.Windows1251, "windows-1252": charmap.Windows1252,
	"windows-1253": charmap.Windows1253, "windows-1254": charmap.Windows1254, "windows-1255": charmap.Windows1255,
	"windows-1256": charmap.Windows1256, "windows-1258": charmap.Windows1258, "koi8-r": charmap.KOI8R, "koi8-u": charmap.KOI8U,
	"iso-2022-jp": japanese.ISO2022JP, "shift_jis": japanese.ShiftJIS, "euc-jp": japanese.EUCJP,
	"gb2312": simplifiedchinese.GBK, "gbk": simplifiedchinese.GBK, "gb18030": simplifiedchinese.GB18030,
	"big5": traditionalchinese.Big5, "euc-kr": korean.EUCKR,
	"utf-16": unicode.UTF16(unicode.BigEndian, unicode.UseBOM), "utf-16le": unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM),
}

func encode(charset, s string) []byte {
	enc, ok := charsets[charset]
	if !ok { // utf-8, us-ascii, and names that nobody knows
		return []byte(s)
	}
	b, err := enc.NewEncoder().Bytes([]byte(s))
	if err != nil {
		panic(fmt.Sprintf("corpus: %s cannot write %q: %v", charset, s, err))
	}
	return b
}

// word is an RFC 2047 encoded word; long ones are cut at characters.
func word(charset, s string) string {
	var words []string
	for len(s) > 0 {
		n := 0
		for i := range s {
			if i > 36 {
				break
			}
			n = i
		}
		if len(s) <= 40 {
			n = len(s)
		}
		words = append(words, "=?"+charset+"?B?"+base64.StdEncoding.EncodeToString(encode(charset, s[:n]))+"?=")
		s = s[n:]
	}
	return strings.Join(words, "\r\n ")
}

// param is an RFC 2231 parameter.
func param(name, charset, s string) string {
	var b strings.Builder
	for _, c := range encode(charset, s) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return name + "*=" + charset + "''" + b.String()
}

func transfer(how string, b []byte) []byte {
	var out bytes.Buffer
	switch how {
	case "base64":
		s := base64.StdEncoding.EncodeToString(b)
		for len(s) > 76 {
			out.WriteString(s[:76] + "\r\n")
			s = s[76:]
		}
		out.WriteString(s + "\r\n")
	case "quoted-printable":
		w := quotedprintable.NewWriter(&out)
		_, _ = w.Write(b) // into memory
		_ = w.Close()
	default:
		out.Write(b)
	}
	return out.Bytes()
}

func body(subtype, charset, how, s string) part {
	head := "Content-Type: text/" + subtype
	if charset != "" {
		head += "; charset=" + charset
	}
	return part{head: []string{head, "Content-Transfer-Encoding: " + how}, data: transfer(how, encode(charset, s))}
}

// file makes a file part. head are its Content-Type and, where it has one, its Content-Disposition line.
func file(name string, b []byte, how string, head ...string) part {
	return part{head: append(head, "Content-Transfer-Encoding: "+how), data: transfer(how, b), sha: sum(b), file: name}
}

// attach makes an ordinary attachment.
func attach(ctype, name string, b []byte) part {
	p := file(name, b, "base64", "Content-Type: "+ctype+"; name=\""+name+"\"", "Content-Disposition: attachment; filename=\""+name+"\"")
	if strings.HasPrefix(ctype, "text/") || ctype == "message/rfc822" {
		p.sha = "" // RT reads and rewrites these
	}
	return p
}

// unnamed drops the promise that RT keeps the part's name, unsure the one that it keeps its bytes.
func (p part) unnamed() part { p.file = ""; return p }
func (p part) unsure() part  { p.sha = ""; return p }

func multi(subtype string, ps ...part) part {
	return part{head: []string{"Content-Type: multipart/" + subtype}, parts: ps}
}

func (p part) write(out *bytes.Buffer, path string) {
	if p.parts == nil {
		for _, h := range p.head {
			out.WriteString(h + "\r\n")
		}
		out.WriteString("\r\n")
		out.Write(p.data)
		return
	}
	b := "=_deltadesk_" + path
	out.WriteString(p.head[0] + "; boundary=\"" + b + "\"\r\n")
	for _, h := range p.head[1:] {
		out.WriteString(h + "\r\n")
	}
	out.WriteString("\r\nThis is a multipart message.\r\n")
	for i, q := range p.parts {
		out.WriteString("\r\n--" + b + "\r\n")
		q.write(out, fmt.Sprintf("%s_%d", path, i))
	}
	out.WriteString("\r\n--" + b + "--\r\n")
}

// walk calls f for every leaf.
func (p part) walk(f func(part)) {
	if p.parts == nil {
		f(p)
		return
	}
	for _, q := range p.parts {
		q.walk(f)
	}
}

// raw writes the mail. tag is the ticket's subject tag, empty for a new ticket.
func (m message) raw(id, tag string) []byte {
	var out bytes.Buffer
	line := func(k, v string) {
		if v != "" {
			out.WriteString(k + ": " + v + "\r\n")
		}
	}
	to := m.to
	if to == "" {
		to = "help@src.example"
	}
	subject := m.subject
	if tag != "" {
		subject = strings.TrimSpace("Re: " + tag + " " + subject)
	}
	line("From", m.from)
	line("To", to)
	line("Cc", m.cc)
	out.WriteString("Subject: " + subject + "\r\n")
	line("Date", "Mon, 02 Mar 2026 10:11:12 +0100")
	line("Message-ID", "<"+id+">")
	line("MIME-Version", "1.0")
	for _, h := range m.headers {
		out.WriteString(h + "\r\n")
	}
	m.body.write(&out, "0")
	return out.Bytes()
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// png is a picture of one pixel, different for every n.
func png(n byte) []byte {
	b, _ := base64.StdEncoding.DecodeString("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
	return append(b, n)
}

// corpus returns the mails, in the order in which they are to be sent. Everything that help desks get wrong in mail is in
// it once.
func corpus(rng *rand.Rand) []message {
	const (
		ana  = `Ana Example <ana@cust.example>`
		bob  = `bob@cust.example`
		zoe  = `=?utf-8?Q?Zo=C3=AB_Gr=C3=BCn?= <zoe@cust.example>`
		omar = `=?windows-1256?B?` + `2uPR` + `?= <omar@cust.example>`
		yuki = `=?iso-2022-jp?B?GyRCOzNFRBsoQg==?= <yuki@cust.example>`
		kim  = `"Kim, Q. \"Q\" Lee" <kim@cust.example>`
		noah = `<noah@cust.example>`
	)
	plain := func(s string) part { return body("plain", "utf-8", "8bit", s) }
	html := func(s string) part { return body("html", "utf-8", "quoted-printable", s) }
	var all []message
	add := func(m message) { all = append(all, m) }

	// 1. Charsets, in body and subject.
	texts := []struct{ charset, how, s string }{
		{"us-ascii", "7bit", "Plain old ASCII.\r\nSecond line.\r\n"},
		{"utf-8", "8bit", "Ünïcödé, naïve café – “quotes” … €\r\n"},
		{"utf-8", "base64", "Emoji: 👩‍💻🎉 and 𝒎𝒂𝒕𝒉, astral 𐍈\r\n"},
		{"iso-8859-1", "quoted-printable", "Größe, déjà vu, ñandú\r\n"},
		{"iso-8859-2", "8bit", "Příliš žluťoučký kůň\r\n"},
		{"iso-8859-5", "base64", "Съешь ещё этих булок\r\n"},
		{"iso-8859-7", "base64", "Καλημέρα κόσμε\r\n"},
		{"iso-8859-8", "base64", "שלום עולם\r\n"},
		{"iso-8859-9", "quoted-printable", "Pijamalı hasta yağız şoföre\r\n"},
		{"iso-8859-15", "quoted-printable", "Preis: 12 € für Œuvres\r\n"},
		{"windows-1250", "8bit", "Zażółć gęślą jaźń\r\n"},
		{"windows-1251", "base64", "Привет, мир! № 7\r\n"},
		{"windows-1252", "quoted-printable", "“Smart quotes” – and €uro…\r\n"},
		{"windows-1253", "base64", "Γειά σου\r\n"},
		{"windows-1254", "base64", "Türkçe karakterler: ğüşiöç\r\n"},
		{"windows-1255", "base64", "בדיקה\r\n"},
		{"windows-1256", "base64", "مرحبا بالعالم\r\n"},
		{"koi8-r", "8bit", "Проверка связи\r\n"},
		{"koi8-u", "base64", "Слава їжакам\r\n"},
		{"iso-2022-jp", "7bit", "こんにちは世界\r\n漢字テスト\r\n"},
		{"shift_jis", "base64", "日本語のメール表示\r\n"},
		{"euc-jp", "base64", "日本語ユニックス\r\n"},
		{"gb2312", "base64", "你好,世界\r\n"},
		{"gbk", "base64", "繁體與简体\r\n"},
		{"gb18030", "base64", "汉字€测试\r\n"},
		{"big5", "base64", "您好世界\r\n"},
		{"euc-kr", "base64", "안녕하세요 세계\r\n"},
		{"utf-16", "base64", "UTF-16 with a mark: žába\r\n"},
	}
	for i, t := range texts {
		subject := "Charset " + t.charset
		if t.charset != "us-ascii" && !strings.HasPrefix(t.charset, "utf-16") {
			subject = word(t.charset, strings.TrimSpace(strings.Split(t.s, "\r\n")[0]))
		}
		b := body("plain", t.charset, t.how, t.s)
		if t.charset == "utf-16" {
			b = multi("mixed", b) // at the top, RT would read the mail's header as UTF-16 as well and refuse it
		}
		add(message{
			name: fmt.Sprintf("charset-%d-%s", i, t.charset), from: []string{ana, bob, zoe, noah}[i%4], subject: subject,
			queue: []string{"General", "Support"}[i%2], body: b,
		})
	}
	// Replies in another charset than the ticket's, text as a file in an old charset.
	add(message{name: "latin1-file", from: bob, subject: "Text files", body: multi("mixed",
		plain("Two text files and a table.\r\n"),
		file("alt.txt", encode("iso-8859-1", "Größe\r\nMaß\r\n"), "base64", `Content-Type: text/plain; charset=iso-8859-1; name="alt.txt"`, `Content-Disposition: attachment; filename="alt.txt"`).unsure(),
		file("neu.txt", []byte("Größe\nMaß\n"), "base64", `Content-Type: text/plain; charset=utf-8; name="neu.txt"`, `Content-Disposition: attachment; filename="neu.txt"`).unsure(),
		attach("text/csv", "table.csv", []byte("a;b\r\n1;2\r\n\"x\";\"y\"\r\n")),
		file("page.html", encode("windows-1252", "<p>“Gr\u00f6\u00dfe”</p>"), "base64", `Content-Type: text/html; charset=windows-1252; name="page.html"`, `Content-Disposition: attachment; filename="page.html"`).unsure(),
	)})
	add(message{name: "utf16-file", from: bob, subject: "A text file in UTF-16", body: multi("mixed", plain("see file\r\n"),
		file("u16.txt", encode("utf-16", "žába\r\n"), "base64", `Content-Type: text/plain; charset=utf-16; name="u16.txt"`, `Content-Disposition: attachment; filename="u16.txt"`).unsure())})
	add(message{name: "unknown-charset", from: bob, subject: "A charset that nobody knows", body: part{
		head: []string{"Content-Type: text/plain; charset=x-klingon", "Content-Transfer-Encoding: 8bit"}, data: []byte("nuqneH \xe4\xf6\xfc\r\n")}})
	add(message{name: "no-charset-8bit", from: bob, subject: "Raw latin1 \xfc in a header", body: part{
		head: []string{"Content-Type: text/plain"}, data: []byte("Gr\xfc\xdfe ohne Angabe\r\n")}})
	add(message{name: "no-content-type", from: bob, subject: "No content type at all", body: part{data: []byte("Just text.\r\n")}})

	// 2. Alternatives.
	add(message{name: "alt-same", from: ana, subject: "Alternatives that agree", body: multi("alternative",
		plain("Hello there,\r\n\r\nthe printer is on fire.\r\n"), html("<p>Hello there,</p>\n<p>the <b>printer</b> is on fire.</p>\n"))})
	add(message{name: "alt-differ", from: ana, subject: "Alternatives that differ", body: multi("alternative",
		plain("Your order number is 4711. Only the text says so.\r\n"), html("<h1>Thank you!</h1><p>Please see the other part.</p>"))})
	add(message{name: "alt-empty-plain", from: ana, subject: "Empty text part", body: multi("alternative", plain(""), html("<p>Only HTML says anything.</p>"))})
	add(message{name: "alt-three", from: ana, subject: "Three alternatives", body: multi("alternative",
		plain("Meeting at ten\r\n"), html("<p>Meeting at ten</p>"),
		file("", []byte("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nEND:VCALENDAR\r\n"), "7bit", "Content-Type: text/calendar; charset=utf-8; method=REQUEST").unsure())})
	add(message{name: "html-only", from: zoe, subject: "HTML only", body: html("<html><head><style>p{color:red}</style></head><body><p>Hällo &amp; &lt;tag&gt;</p><br/><a href=\"https://x.example/?a=1&amp;b=2\">link</a></body></html>\n")})
	add(message{name: "html-script", from: zoe, subject: "HTML <b>with</b> a script & \"quotes\"", body: html("<p onclick=\"x()\">Hi</p><script>alert(1)</script><!-- c --><table><tr><td>1</td></tr></table>")})
	add(message{name: "related", from: zoe, subject: "Inline pictures", body: multi("related",
		multi("alternative", plain("Logo: [image]\r\n"), html(`<p>Logo: <img src="cid:logo@cust.example" alt="[image]"> and <img src="cid:two@cust.example"></p>`)),
		file("logo.png", png(1), "base64", `Content-Type: image/png; name="logo.png"`, `Content-Disposition: inline; filename="logo.png"`, "Content-ID: <logo@cust.example>"),
		file("", png(2), "base64", "Content-Type: image/png", "Content-ID: <two@cust.example>"))})
	add(message{name: "alt-related", from: zoe, subject: "Related inside alternative", body: multi("alternative",
		plain("see the picture\r\n"), multi("related", html(`<p>see the picture</p><img src="cid:in@x">`),
			file("image001.png", png(3), "base64", `Content-Type: image/png; name="image001.png"`, "Content-ID: <in@x>", `Content-Disposition: inline; filename="image001.png"`)))})
	add(message{name: "nested", from: ana, subject: "Nested multiparts", body: multi("mixed",
		multi("mixed", multi("alternative", plain("deep text\r\n"), html("<p>deep text</p>")), attach("application/pdf", "deep.pdf", randomBytes(rng, 3000))),
		multi("mixed", attach("application/zip", "b.zip", randomBytes(rng, 2000)), multi("mixed", attach("image/gif", "c.gif", []byte("GIF89a\x00\x01"))))),
	})
	add(message{name: "text-file-text", from: ana, subject: "Text, picture, text", body: multi("mixed",
		plain("before the picture\r\n"),
		file("mid.png", png(4), "base64", `Content-Type: image/png; name="mid.png"`, `Content-Disposition: inline; filename="mid.png"`),
		plain("after the picture, and just as important\r\n"))})
	add(message{name: "footer", from: ana, subject: "A list footer", body: multi("mixed", html("<p>Body</p>"), plain("-- \r\nlist footer\r\n"))})
	add(message{name: "signed", from: ana, subject: "Signed mail", body: multi("signed; micalg=sha-256; protocol=\"application/pkcs7-signature\"",
		plain("signed text\r\n"), attach("application/pkcs7-signature", "smime.p7s", randomBytes(rng, 900)))})
	add(message{name: "report", from: `Mail Daemon <daemon@cust.example>`, subject: "Delivery report", body: multi("report; report-type=delivery-status",
		plain("could not deliver\r\n"),
		part{head: []string{"Content-Type: message/delivery-status"}, data: []byte("Reporting-MTA: dns; x.example\r\n\r\nFinal-Recipient: rfc822; a@x\r\nAction: failed\r\n")},
		part{head: []string{"Content-Type: text/rfc822-headers"}, data: []byte("Subject: lost\r\nFrom: a@x\r\n")})})

	// 3. Names of files.
	add(message{name: "names", queue: "Support", from: kim, subject: "Names", body: multi("mixed", plain("names\r\n"),
		file("Übersicht für März.pdf", randomBytes(rng, 500), "base64", "Content-Type: application/pdf", "Content-Disposition: attachment; "+param("filename", "utf-8", "Übersicht für März.pdf")),
		file("報告書.xlsx", randomBytes(rng, 501), "base64", "Content-Type: application/vnd.ms-excel; name=\""+word("utf-8", "報告書.xlsx")+"\"", "Content-Disposition: attachment; filename=\""+word("utf-8", "報告書.xlsx")+"\""),
		file("Größe.doc", randomBytes(rng, 502), "base64", "Content-Type: application/msword", "Content-Disposition: attachment; "+param("filename", "iso-8859-1", "Größe.doc")),
		file("a very long name that is continued.bin", randomBytes(rng, 503), "base64", "Content-Type: application/octet-stream",
			"Content-Disposition: attachment; filename*0=\"a very long name \"; filename*1=\"that is continued.bin\"").unnamed(),
		file(`say "cheese".png`, png(5), "base64", "Content-Type: image/png", `Content-Disposition: attachment; filename="say \"cheese\".png"`).unnamed(),
		file("a/b/c.bin", randomBytes(rng, 504), "base64", "Content-Type: application/octet-stream", `Content-Disposition: attachment; filename="a/b/c.bin"`).unnamed(),
		file("C:\\Users\\x.bin", randomBytes(rng, 505), "base64", "Content-Type: application/octet-stream", `Content-Disposition: attachment; filename="C:\\Users\\x.bin"`).unnamed(),
		file("../../etc/passwd", randomBytes(rng, 506), "base64", "Content-Type: application/octet-stream", `Content-Disposition: attachment; filename="../../etc/passwd"`).unnamed(),
		file("semi;colon, comma=.bin", randomBytes(rng, 507), "base64", "Content-Type: application/octet-stream", `Content-Disposition: attachment; filename="semi;colon, comma=.bin"`),
		file("0", randomBytes(rng, 508), "base64", "Content-Type: application/octet-stream", `Content-Disposition: attachment; filename="0"`).unnamed(),
		file("🎉.bin", randomBytes(rng, 509), "base64", "Content-Type: application/octet-stream", "Content-Disposition: attachment; "+param("filename", "utf-8", "🎉.bin")),
	)})
	add(message{name: "same-name", from: kim, subject: "Two files of one name, two of one content", body: multi("mixed", plain("x\r\n"),
		attach("application/octet-stream", "same.bin", []byte("one")), attach("application/octet-stream", "same.bin", []byte("two")),
		attach("application/octet-stream", "copy.bin", []byte("two")), attach("application/octet-stream", "same.bin", []byte("two")))})
	add(message{name: "nameless", from: noah, subject: "Files without a name", body: multi("mixed", plain("no names\r\n"),
		file("", randomBytes(rng, 100), "base64", "Content-Type: application/octet-stream"),
		file("", png(6), "base64", "Content-Type: image/png", "Content-Disposition: attachment"),
		file("", []byte("{\"a\":1}"), "base64", "Content-Type: application/json", "Content-Disposition: attachment"))})
	add(message{name: "long-name", from: noah, subject: "A long name", body: multi("mixed", plain("long\r\n"),
		file(strings.Repeat("long-", 30)+".bin", randomBytes(rng, 77), "base64", "Content-Type: application/octet-stream", `Content-Disposition: attachment; filename="`+strings.Repeat("long-", 30)+`.bin"`))})

	// 4. Sizes and bytes.
	add(message{name: "empty-file", from: noah, subject: "An empty file", body: multi("mixed", plain("nothing in it\r\n"),
		attach("application/octet-stream", "empty.bin", nil), attach("image/png", "empty.png", nil))})
	add(message{name: "five-megabytes", from: noah, subject: "5 MB", body: multi("mixed", plain("big\r\n"), attach("application/octet-stream", "big.bin", randomBytes(rng, 5<<20)))})
	allBytes := make([]byte, 512)
	for i := range allBytes {
		allBytes[i] = byte(i)
	}
	add(message{name: "all-bytes", from: noah, subject: "Every byte", body: multi("mixed", plain("bytes\r\n"), attach("application/octet-stream", "bytes.bin", allBytes),
		attach("application/json", "crlf.json", []byte("{\r\n\"a\":\n1}\r")), attach("application/xml", "bom.xml", []byte("\xef\xbb\xbf<a/>")))})
	add(message{name: "long-lines", from: ana, subject: "Very long lines", body: body("plain", "utf-8", "quoted-printable", strings.Repeat("word ", 4000)+"\r\n"+strings.Repeat("x", 20000)+"\r\n")})
	add(message{name: "long-subject", from: ana, subject: strings.TrimSpace(strings.Repeat("A subject of more than two hundred characters\r\n ", 7)), body: plain("long subject\r\n")})
	add(message{name: "long-subject-utf8", from: ana, subject: word("utf-8", strings.Repeat("Länge ", 45)), body: plain("long subject, in umlauts\r\n")})
	add(message{name: "no-subject", from: ana, subject: "", body: plain("I have no subject.\r\n")})
	add(message{name: "empty-body", from: ana, subject: "Empty body", body: plain("")})
	add(message{name: "white-body", from: ana, subject: "Blank lines  and   spaces", body: plain("\r\n\r\n   \r\nindented\r\n\tand tabbed  \r\n\r\n\r\n")})
	add(message{name: "spaces-in-text", from: ana, subject: "Trailing newlines and form feeds", body: plain("a\x0cb\r\n>From here\r\nFrom there\r\n.\r\nlast line without end")})
	add(message{name: "format-flowed", from: ana, subject: "Format flowed", body: part{head: []string{"Content-Type: text/plain; charset=utf-8; format=flowed; delsp=yes"}, data: []byte("a soft \r\nbreak\r\n-- \r\nsig\r\n")}})
	add(message{name: "bracket-body", from: ana, subject: "[brackets] at the start", body: plain("[2026-03-02 Ana wrote:] this first line looks like somebody's header line\r\n\r\nand this is the text\r\n")})

	// 5. Only a file.
	add(message{name: "only-pdf", from: noah, subject: "Only a file", body: attach("application/pdf", "scan.pdf", randomBytes(rng, 4000))})
	add(message{name: "only-nameless-image", from: noah, subject: "Only a picture without a name", body: file("", png(7), "base64", "Content-Type: image/png")})
	add(message{name: "only-text-file", from: noah, subject: "Only a text file", body: file("note.txt", []byte("I am a file\n"), "base64",
		`Content-Type: text/plain; charset=utf-8; name="note.txt"`, `Content-Disposition: attachment; filename="note.txt"`).unsure()})
	add(message{name: "mixed-one-file", from: noah, subject: "A multipart of one file", body: multi("mixed", attach("application/zip", "z.zip", randomBytes(rng, 321)))})

	// 6. Mail in mail.
	inner := message{from: bob, subject: "the inner one", body: multi("mixed", plain("inner text\r\n"), attach("application/pdf", "inner.pdf", randomBytes(rng, 222)))}
	add(message{name: "rfc822", from: ana, subject: "Fwd: a mail in a mail", body: multi("mixed", plain("see below\r\n"),
		part{head: []string{"Content-Type: message/rfc822", "Content-Disposition: attachment"}, data: inner.raw("inner-1@cust.example", "")})})
	add(message{name: "rfc822-named", from: ana, subject: "A mail as a file", body: multi("mixed", plain("attached\r\n"),
		part{head: []string{"Content-Type: message/rfc822; name=\"mail.eml\"", "Content-Disposition: attachment; filename=\"mail.eml\""}, data: message{from: zoe, subject: word("utf-8", "Grüße"), body: plain("short\r\n")}.raw("inner-2@cust.example", "")})})

	// 7. Directions, people.
	add(message{name: "rtl", from: omar, subject: word("utf-8", "طلب \u202bرقم 12\u202c عاجل"), body: plain("\u200fمرحبا، الطلب رقم 12 \u2067שלום\u2069 done\r\n")})
	add(message{name: "japanese", from: yuki, subject: word("iso-2022-jp", "お問い合わせ"), body: multi("alternative",
		body("plain", "iso-2022-jp", "7bit", "注文が届きません。\r\n"), body("html", "iso-2022-jp", "7bit", "<p>注文が届きません。</p>\r\n"))})
	add(message{name: "many-cc", queue: "Support", from: zoe, cc: `Boss <boss@cust.example>, "Doe, Jane" <jane@cust.example>, lone@cust.example, =?utf-8?B?` +
		base64.StdEncoding.EncodeToString([]byte("Jürgen")) + `?= <JUERGEN@Cust.Example>`, subject: "Several people in Cc", body: plain("all of us\r\n")})
	add(message{name: "two-from", from: `"Only Address" <first.last+tag@sub.cust.example>`, subject: "Plus address", body: plain("plus\r\n")})
	add(message{name: "quote-address", from: `"O'Brien" <o'brien@cust.example>`, subject: "It's quoted; DROP TABLE -- %_ \\ 'x'", body: plain("quotes\r\n")})
	add(message{name: "reply-to", from: ana, headers: []string{"Reply-To: Ana at home <ana.home@cust.example>"}, subject: "Reply-To", body: plain("another address\r\n")})
	add(message{name: "list-mail", from: bob, headers: []string{"Precedence: bulk", "List-Id: <l.x.example>", "In-Reply-To: <unknown@x>", "References: <r1@x> <r2@x>\r\n <r3@x>"},
		subject: "From a list [other #77]", body: plain("list\r\n")})

	// 8. Replies, to the tickets above.
	for i := range 3 { // word for word the same
		add(message{name: fmt.Sprintf("same-reply-%d", i), replyTo: "alt-same", from: ana, subject: "Alternatives that agree", body: plain("Any news?\r\n")})
	}
	add(message{name: "reply-quoted", replyTo: "alt-same", from: ana, subject: "Alternatives that agree", headers: []string{"In-Reply-To: <alt-same@cust.example>"},
		body: multi("alternative", plain("Thanks!\r\n\r\n> On Monday Agent wrote:\r\n> > deep\r\n"), html("<p>Thanks!</p><blockquote>On Monday Agent wrote:<blockquote>deep</blockquote></blockquote>"))})
	add(message{name: "reply-files", replyTo: "names", queue: "Support", from: kim, subject: word("utf-8", "Namen, größer"), body: multi("mixed", plain("one more\r\n"),
		attach("application/pdf", "again.pdf", randomBytes(rng, 1000)))})
	add(message{name: "reply-only-file", replyTo: "only-pdf", from: noah, subject: "Only a file", body: file("", randomBytes(rng, 60), "base64", "Content-Type: application/octet-stream")})
	add(message{name: "reply-stranger", replyTo: "many-cc", queue: "Support", from: `stranger@elsewhere.example`, subject: "Several people in Cc", body: plain("I am not on this ticket.\r\n")})
	add(message{name: "reply-koi8", replyTo: "rtl", from: omar, subject: word("koi8-r", "Ответ"), body: body("plain", "koi8-r", "base64", "Ответ на арабский запрос\r\n")})
	add(message{name: "comment-mail", replyTo: "many-cc", queue: "Support", action: "comment", from: "Agent1 <agent1@desk.example>", subject: "internal", body: plain("a comment by mail\r\n")})
	add(message{name: "reply-foreign-tag", replyTo: "html-only", from: zoe, subject: "[vendor.example #123] about your case", body: plain("a foreign tag in the subject\r\n")})
	add(message{name: "reply-empty", replyTo: "related", from: zoe, subject: "Inline pictures", body: plain("")})

	// 9. Three tickets that look the same.
	for i := range 3 {
		add(message{name: fmt.Sprintf("twin-%d", i), from: bob, subject: "Printer broken", body: plain("The printer is broken.\r\n")})
	}
	return all
}

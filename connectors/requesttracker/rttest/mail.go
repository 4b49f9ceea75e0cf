package rttest

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
)

func isMail(l *dbLeaf) bool {
	return l.ctype == "message/rfc822" || strings.HasSuffix(strings.ToLower(l.name), ".eml")
}

// openMail returns the parts of a file that is a mail, or nil for another file.
func openMail(l *dbLeaf) []*dbLeaf {
	if !isMail(l) || l.text == "" {
		return nil
	}
	m, err := mail.ReadMessage(strings.NewReader(l.text))
	if err != nil {
		return nil
	}
	return openPart(l.id, m.Header.Get, m.Body)
}

func openPart(id int64, header func(string) string, body io.Reader) []*dbLeaf {
	ctype, params, err := mime.ParseMediaType(header("Content-Type"))
	if err != nil {
		ctype = "text/plain"
	}
	if strings.HasPrefix(ctype, "multipart/") && params["boundary"] != "" {
		var all []*dbLeaf
		for r := multipart.NewReader(body, params["boundary"]); ; {
			p, err := r.NextRawPart()
			if err != nil {
				return all
			}
			all = append(all, openPart(id, p.Header.Get, p)...)
		}
	}
	switch strings.ToLower(strings.TrimSpace(header("Content-Transfer-Encoding"))) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return nil
	}
	l := &dbLeaf{id: id, ctype: ctype, sha: sum(b), size: len(b), inMail: true}
	if _, p, err := mime.ParseMediaType(header("Content-Disposition")); err == nil {
		l.name = p["filename"]
	}
	if l.name == "" {
		l.name = params["name"]
	}
	if strings.HasPrefix(ctype, "text/") {
		l.text = string(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))
	}
	return []*dbLeaf{l}
}

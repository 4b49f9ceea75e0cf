package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
)

// Of long lists a page shows so many; the JSON report has them all.
const htmlRows = 1000

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"number": number, "size": size, "stamp": stamp, "length": length, "seconds": seconds, "cursor": cursor, "join": strings.Join,
	"steps": steps, "largest": func(m map[string]int) []row { return rows(largest(m)) }, "sum": sum,
	"outcomes": func(r Report, c Counts) []row { return rows(r.named(c.all())) }, "meaning": LossClass.meaning, "outcome": Report.outcome,
}).Parse(pageText))

// page is what the template sees.
type page struct {
	Report
	Verdict, Tone, Cutoff string
	Flow                  flow
	Open                  int
	MoreExceptions        int
	MoreKept, MoreLeft    int
}

// row is a tally for the template.
type row struct {
	Name string
	N    int
}

func rows(all []tally) []row {
	r := make([]row, len(all))
	for i, t := range all {
		r[i] = row{t.name, t.n}
	}
	return r
}

// HTML writes the report as a page that needs nothing else: no script, no font, no picture from anywhere. It prints well
// and follows the reader's choice of light or dark.
func HTML(w io.Writer, r Report) error {
	p := page{
		Report: filled(r), Verdict: Verdict(r), Tone: tone(r), Cutoff: cutoffWords(r), Flow: newFlow(r), Open: r.Counts.Planned - r.Counts.Finished(),
	}
	if n := len(p.Exceptions) - htmlRows; n > 0 {
		p.Exceptions, p.MoreExceptions = p.Exceptions[:htmlRows], n
	}
	if n := len(p.Kept) - htmlRows; n > 0 {
		p.Kept, p.MoreKept = p.Kept[:htmlRows], n
	}
	if n := len(p.Left) - htmlRows; n > 0 {
		p.Left, p.MoreLeft = p.Left[:htmlRows], n
	}
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, p)
	if err == nil {
		_, err = w.Write(b.Bytes())
	}
	if err != nil {
		return fmt.Errorf("write report of run %s as a page: %w", r.Run, err)
	}
	return nil
}

// tone of the verdict: good, care, bad or plain.
func tone(r Report) string {
	switch r.Status {
	case "verified":
		return "good"
	case "stopped":
		return "bad"
	case "exceptions", "cancelled", "waiting":
		return "care"
	}
	return "plain"
}

package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

var began = time.Date(2026, 11, 20, 22, 0, 4, 0, time.UTC)

// exceptions is a delta that finished with held and failed records.
func exceptions() Report {
	return Report{
		Migration: "acme", Owner: "Jo Doe <jo@acme.example>", Decider: "Kim Ito <kim@acme.example>",
		Run: "01JD5Y6QZV8J3W3C4N7H2K9M5T", Kind: "delta", Window: "nightly", Scope: "all", Mode: "create+update", Status: "exceptions",
		ConfigHash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		Started:    began, Ended: began.Add(74*time.Minute + 31*time.Second),
		CutoffBefore: json.RawMessage(`{"t": "2026-11-19T22:00:03Z"}`), CutoffAfter: json.RawMessage(`{"t":"2026-11-20T22:00:04Z"}`),
		Counts: Counts{Listed: 15240, Dropped: 2899, Planned: 12341, Created: 412, Updated: 3021, Unchanged: 8861, Excluded: 33, Held: 11, Failed: 3},
		ByKind: []KindCounts{
			{"company", Counts{Listed: 120, Dropped: 40, Planned: 80, Created: 2, Updated: 8, Unchanged: 70}},
			{"person", Counts{Listed: 5120, Dropped: 859, Planned: 4261, Created: 110, Updated: 1013, Unchanged: 3130, Excluded: 8}},
			{"group", Counts{}},
			{"ticket", Counts{Listed: 10000, Dropped: 2000, Planned: 8000, Created: 300, Updated: 2000, Unchanged: 5661, Excluded: 25, Held: 11, Failed: 3}},
		},
		Requests: map[string]map[string]int{
			"source": {"incremental/tickets": 101, "tickets/show": 8000, "tickets/comments": 8214, "users/show": 4261},
			"target": {"tickets/create": 300, "tickets/update": 2144, "tickets/view": 8301, "contacts/create": 110},
		},
		StoreCalls: map[string]int{"rows.Get": 24912, "rows.Put": 50113, "objects.Put": 8123},
		Bytes:      1_234_567_890,
		Seconds:    map[string]float64{"close": 2.4, "push": 16212.7, "list": 88},
		Losses: []LossClass{
			{"oversize-file", "The file is larger than the target takes; a note says where it is.", 1, []string{"ticket/991"}},
			{"status-history", "The status history cannot be written there; it is kept as one internal note.", 2311, []string{"ticket/12", "ticket/17", "ticket/33", "ticket/40", "ticket/41"}},
		},
		Exceptions: append([]Exception{
			{"ticket/42", "9931", "held", "status changed on both sides; priority changed on both sides", "deltadesk decide ticket/42 --field status --choose source|target|value"},
			{"ticket/77", "", "held", "an answer to create was lost, and this target cannot be searched", "deltadesk decide ticket/77 --link TARGET-ID | --create-again"},
			{"ticket/1042", "10230", "failed", "The target rejected field cf_region (422).", "mend the cause; the record stays due and is tried again by the next run"},
		}, more()...),
		Kept:     []Kept{{"ticket/51", []string{"assignee", "priority"}}, {"ticket/53", []string{"status"}}},
		Excluded: map[string]int{"the mode leaves changes of migrated records out": 25, "spam in the source": 8},
	}
}

func more() (all []Exception) {
	for i := range 9 {
		all = append(all, Exception{fmt.Sprintf("ticket/%d", 2000+i), fmt.Sprint(11000 + i), "held", "group changed on both sides", fmt.Sprintf("deltadesk decide ticket/%d --field group --choose source|target|value", 2000+i)})
	}
	for i := range 2 {
		all = append(all, Exception{fmt.Sprintf("ticket/%d", 3000+i), "", "failed", "The source answered 500 five times.", "mend the cause; the record stays due and is tried again by the next run"})
	}
	return all
}

// reports are runs of every sort, each of them right.
func reports() map[string]Report {
	verified := exceptions()
	verified.Status = "verified"
	verified.Counts.Unchanged += verified.Counts.Held + verified.Counts.Failed
	verified.Counts.Held, verified.Counts.Failed = 0, 0
	verified.ByKind[3].Counts = Counts{Listed: 10000, Dropped: 2000, Planned: 8000, Created: 300, Updated: 2000, Unchanged: 5675, Excluded: 25}
	verified.Exceptions = nil

	stopped := exceptions()
	stopped.Status, stopped.CutoffAfter = "stopped", stopped.CutoffBefore
	stopped.Why = "26 of 4,126 finished records failed, more than the threshold of 0.5 % and 25 allows."
	stopped.Counts = Counts{Listed: 10000, Dropped: 2000, Planned: 8000, Updated: 3000, Unchanged: 1100, Failed: 26}
	stopped.ByKind = []KindCounts{{"ticket", stopped.Counts}}
	stopped.Excluded, stopped.Exceptions = nil, nil
	for i := range 26 {
		stopped.Exceptions = append(stopped.Exceptions, Exception{fmt.Sprintf("ticket/%d", i), "", "failed", "The target rejected field cf_region (422).", ""})
	}

	empty := Report{
		Migration: "acme", Run: "01JD5Y6QZV8J3W3C4N7H2K9M5T", Kind: "delta", Window: "hourly", Scope: "emea", Mode: "create", Status: "verified",
		Started: began, Ended: began.Add(1900 * time.Millisecond), CutoffBefore: json.RawMessage(`"a"`), CutoffAfter: json.RawMessage(`"b"`),
	}

	still := empty // nothing had changed, so the mark is where it was
	still.CutoffAfter = still.CutoffBefore

	running := exceptions()
	running.Status, running.Kind, running.Window, running.Ended = "running", "full", "", time.Time{}
	running.CutoffBefore, running.CutoffAfter = nil, nil
	running.Counts = Counts{Listed: 500000, Planned: 500000, Created: 123456, Held: 1}
	running.ByKind = []KindCounts{{"ticket", running.Counts}}
	running.Exceptions, running.Kept, running.Losses, running.Excluded = running.Exceptions[:1], nil, nil, nil

	dry := verified
	dry.Dry, dry.CutoffAfter = true, dry.CutoffBefore
	dry.Would = []Would{{"tickets/61", "9950", "would set 2 fields, add 1 entry"}, {"tickets/62", "", "would be created, have ticket/3 merged into it"}}
	dry.WouldLeftOut = dry.Counts.Created + dry.Counts.Updated - len(dry.Would)

	verify := exceptions()
	verify.Kind, verify.Mode, verify.Window, verify.CutoffAfter = "verify", "", "", verify.CutoffBefore
	verify.Counts = Counts{Listed: 100, Planned: 100, Unchanged: 95, Excluded: 4, Failed: 1}
	verify.ByKind = []KindCounts{{"ticket", verify.Counts}}
	verify.Excluded = map[string]int{"not in the source any more": 4}
	verify.Exceptions = []Exception{{"ticket/5", "77", "failed", "differs: priority", "deltadesk explain ticket/5"}}
	verify.Kept, verify.Losses = nil, nil
	many := verify // only the first ones are listed
	many.Counts = Counts{Listed: 50_000, Planned: 50_000, Unchanged: 20_000, Held: 4_000, Failed: 26_000}
	many.ByKind = []KindCounts{{"ticket", many.Counts}}
	many.Excluded, many.ExceptionsLeftOut = nil, 29_999
	many.Kept, many.KeptLeftOut = []Kept{{"ticket/51", []string{"priority"}}}, 700

	sample := empty
	sample.Kind, sample.Window, sample.Mode, sample.CutoffBefore, sample.CutoffAfter = "sample", "", "create+update", nil, nil
	sample.Counts = Counts{Listed: 12000, Dropped: 11997, Planned: 3, Created: 3}
	sample.ByKind = []KindCounts{{"ticket", sample.Counts}}
	sample.Looked, sample.UndoneBy = 30, "01JD5Y6QZV8J3W3C4N7H2K9M5V"
	sample.Chosen = []Chosen{{"ticket/42", []string{"HTML", "files", "rare value of priority"}}, {"ticket/7", []string{"right-to-left text"}}, {"ticket/8", []string{"nothing odd"}}}

	undo := sample
	undo.Kind, undo.Mode, undo.Run, undo.Undoes, undo.UndoneBy = "undo", "", sample.UndoneBy, sample.Run, ""
	undo.Status, undo.Why, undo.Looked, undo.Chosen = "exceptions", "records in which something of the run stays: 1; failed: 0", 0, nil
	undo.Counts = Counts{Listed: 4, Planned: 4, Updated: 2, Excluded: 1, Held: 1}
	undo.ByKind = []KindCounts{{"person", Counts{Listed: 1, Planned: 1, Excluded: 1}}, {"ticket", Counts{Listed: 3, Planned: 3, Updated: 2, Held: 1}}}
	undo.Excluded = map[string]int{"people and companies that the run created stay": 1}
	undo.Exceptions = []Exception{{"ticket/7", "1007", "held", "not undone: somebody has worked on it since (status)", "look at it in the target; deltadesk explain ticket/7 says what was written"}}
	undo.Left = []Left{
		{"person/3", "103", []string{"created by the run, and stays: others may point to it"}}, {"ticket/7", "1007", []string{"somebody has worked on it since (status)"}},
	}
	clean := undo
	clean.Status, clean.Why, clean.Exceptions, clean.Left = "verified", "", nil, undo.Left[:1]
	clean.Counts.Updated, clean.Counts.Held = 3, 0
	clean.ByKind = []KindCounts{undo.ByKind[0], {"ticket", Counts{Listed: 3, Planned: 3, Updated: 3}}}

	cancelled := stopped
	cancelled.Status, cancelled.Why = "cancelled", "Cancelled by an operator."
	waiting := running
	waiting.Status, waiting.Why = "waiting", "The source cannot be reached since 2026-11-20 22:10 UTC."
	return map[string]Report{
		"verified": verified, "exceptions": exceptions(), "stopped": stopped, "empty": empty, "still": still, "running": running, "dry": dry, "verify": verify, "many": many,
		"cancelled": cancelled, "waiting": waiting, "sample": sample, "undo": undo, "undone": clean,
	}
}

func TestGolden(t *testing.T) {
	for name, r := range reports() {
		for ext, write := range map[string]func(*bytes.Buffer) error{
			"json": func(b *bytes.Buffer) error { return JSON(b, r) },
			"txt":  func(b *bytes.Buffer) error { return Text(b, r, 80, false) },
			"html": func(b *bytes.Buffer) error { return HTML(b, r) },
		} {
			t.Run(name+"."+ext, func(t *testing.T) {
				var got bytes.Buffer
				if err := write(&got); err != nil {
					t.Fatal(err)
				}
				file := filepath.Join("testdata", name+"."+ext)
				if *update {
					if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, got.Bytes(), 0o644)); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err, "; make it with -update")
				}
				if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
					t.Errorf("%s, -want +got (accept with -update):\n%s", file, diff)
				}
			})
		}
	}
}

func TestSchema(t *testing.T) {
	for name, r := range reports() {
		t.Run(name, func(t *testing.T) {
			if err := Check(r); err != nil {
				t.Error(err)
			}
			var b bytes.Buffer
			if err := JSON(&b, r); err != nil {
				t.Fatal(err)
			}
			if err := Validate(b.Bytes()); err != nil {
				t.Error(err)
			}
			var back Report
			if err := json.Unmarshal(b.Bytes(), &back); err != nil {
				t.Fatal(err)
			}
			var again bytes.Buffer
			if err := JSON(&again, back); err != nil || again.String() != b.String() {
				t.Errorf("read and written again (%v), -first +second:\n%s", err, cmp.Diff(b.String(), again.String()))
			}
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	var b bytes.Buffer
	if err := JSON(&b, exceptions()); err != nil {
		t.Fatal(err)
	}
	good := b.String()
	for _, c := range []struct{ name, old, new, want string }{
		{"not JSON", "{", "", "not JSON"},
		{"unknown key", `"migration"`, `"subject": "Printer on fire", "migration"`, "subject"},
		{"unknown count", `"listed"`, `"lost": 1, "listed"`, "lost"},
		{"unknown key of a kind", `"kind": "person"`, `"name": "x", "kind": "person"`, "name"},
		{"unknown key of a loss", `"class"`, `"text": "x", "class"`, "text"},
		{"unknown key of an exception", `"record"`, `"title": "x", "record"`, "title"},
		{"unknown key of kept", `"fields"`, `"values": [], "fields"`, "values"},
		{"third side", `"source": {`, `"middle": {}, "source": {`, "middle"},
		{"count below zero", `"dropped": 2899`, `"dropped": -1`, "dropped"},
		{"half a record", `"dropped": 2899`, `"dropped": 0.5`, "dropped"},
		{"missing", `"dry_run": false,`, ``, "dry_run"},
		{"status", `"exceptions",`, `"fine",`, "status"},
		{"outcome", `"held",`, `"updated",`, "outcome"},
		{"run", "01JD5Y6QZV8J3W3C4N7H2K9M5T", "42", "run"},
		{"time", "2026-11-20T22:00:04Z\",\n  \"ended", "yesterday\",\n  \"ended", "started"},
		{"null list", `"examples": [`, `"examples": null, "meaning": [`, "losses"},
		{"a sixth example", `"ticket/12",`, `"ticket/12", "ticket/13",`, "examples"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := strings.Replace(good, c.old, c.new, 1)
			if bad == good {
				t.Fatalf("the report has no %s", c.old)
			}
			if err := Validate([]byte(bad)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want an error about %s", err, c.want)
			}
		})
	}
}

// TestSchemaNamesEveryField: a field that is added to Report must be added to the schema.
func TestSchemaNamesEveryField(t *testing.T) {
	var r Report
	n := 0
	plant(reflect.ValueOf(&r).Elem(), func() string { n++; return fmt.Sprint("x", n) })
	r.Migration, r.Run, r.Kind, r.Status = "acme", "01JD5Y6QZV8J3W3C4N7H2K9M5T", "full", "running"
	r.Exceptions[0].Outcome = "held"
	r.Requests = map[string]map[string]int{"source": {"x": 1}}
	var b bytes.Buffer
	if err := JSON(&b, r); err != nil {
		t.Fatal(err)
	}
	if err := Validate(b.Bytes()); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Report)
		want   string
	}{
		{"right", func(*Report) {}, ""},
		{"lost in listing", func(r *Report) { r.Counts.Listed++; r.ByKind[0].Listed++ }, "listed 15241 is not dropped 2899 + planned 12341"},
		{"lost in pushing", func(r *Report) { r.Counts.Updated--; r.ByKind[3].Updated-- }, "planned 12341 is not created 412 + updated 3020"},
		{"one kind", func(r *Report) { r.ByKind[0].Updated--; r.ByKind[1].Updated++ }, "company: planned 80 is not"},
		{"kinds and total", func(r *Report) { r.ByKind = r.ByKind[:3] }, "the kinds together"},
		{"kind twice", func(r *Report) { r.ByKind[2].Kind = "person" }, "occurs twice"},
		{"negative", func(r *Report) { r.Counts.Held = -1 }, "held is -1"},
		{"exception left out", func(r *Report) { r.Exceptions = r.Exceptions[1:] }, "13 exceptions (10 held, 3 failed) for 11 held and 3 failed"},
		{"left out of a delta", func(r *Report) { r.Exceptions, r.ExceptionsLeftOut = r.Exceptions[1:], 1 }, "13 exceptions (10 held, 3 failed) for"},
		{"too many left out", func(r *Report) { *r = reports()["many"]; r.ExceptionsLeftOut++ }, "1 exceptions (0 held, 1 failed) for"},
		{"exception of another sort", func(r *Report) { r.Exceptions[0].Outcome = "updated" }, "14 exceptions (10 held"},
		{"reasons", func(r *Report) { r.Excluded["spam in the source"]++ }, "add up to 34, excluded are 33"},
		{"too good", func(r *Report) { r.Status = "verified" }, "verified although 14"},
		{"too bad", func(r *Report) { *r = reports()["verified"]; r.Status = "exceptions" }, "no record is held or failed"},
		{"back in time", func(r *Report) { r.Ended = r.Started.Add(-1) }, "before it started"},
		{"more done than planned", func(r *Report) { *r = reports()["running"]; r.Counts.Created, r.ByKind[0].Created = 5e5, 5e5 }, "planned 500000 is not"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := exceptions()
			c.change(&r)
			err := Check(r)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// plant puts texts into every string of v, and something into everything else.
func plant(v reflect.Value, text func() string) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(began))
	case v.Type() == reflect.TypeFor[json.RawMessage]():
		b, err := json.Marshal(text())
		if err != nil {
			panic(err)
		}
		v.Set(reflect.ValueOf(json.RawMessage(b)))
	case v.Kind() == reflect.String:
		v.SetString(text())
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			plant(v.Field(i), text)
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		plant(v.Index(0), text)
	case v.Kind() == reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		plant(key, text)
		plant(value, text)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case v.CanInt():
		v.SetInt(3)
	case v.CanFloat():
		v.SetFloat(3)
	}
}

// TestPlanted puts markup into every string: the page shows each of them, as text.
func TestPlanted(t *testing.T) {
	for _, status := range []string{"", "verified", "exceptions", "stopped", "running"} {
		var r Report
		n := 0
		plant(reflect.ValueOf(&r).Elem(), func() string {
			n++
			return fmt.Sprintf(`x%dx"'><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}</style></title>`, n)
		})
		if status != "" {
			r.Status = status
		}
		var b bytes.Buffer
		if err := HTML(&b, r); err != nil {
			t.Fatal(err)
		}
		got := b.String()
		if strings.Count(got, "<script") > 0 || strings.Count(got, "<img") > 0 || strings.Count(got, "</style>") != 1 || strings.Count(got, "</title>") != 2 {
			t.Errorf("status %q: markup got through", status)
		}
		if status != "" {
			continue
		}
		for i := 1; i <= n; i++ {
			if !strings.Contains(got, fmt.Sprintf("x%dx", i)) {
				t.Errorf("the page leaves text %d of %d out:\n%+v", i, n, r)
			}
		}
	}
}

// TestNothingFromOutside: the page can be opened anywhere, for ever.
func TestNothingFromOutside(t *testing.T) {
	for name, r := range reports() {
		var b bytes.Buffer
		if err := HTML(&b, r); err != nil {
			t.Fatal(err)
		}
		if found := regexp.MustCompile(`(?i)https?:|src=|href=|url\(|@import|<script|<link|<iframe|ZgotmplZ`).FindString(b.String()); found != "" {
			t.Errorf("%s: the page contains %s", name, found)
		}
	}
}

// TestTextIsTame: nothing in a report can steer the terminal, and lines are as narrow as was asked for.
func TestTextIsTame(t *testing.T) {
	var r Report
	plant(reflect.ValueOf(&r).Elem(), func() string { return "a\x1b[2Jb\r\n\x07c\u202ed" })
	var b bytes.Buffer
	if err := Text(&b, r, 80, false); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexAny(b.String(), "\x1b\r\x07\u202e"); i >= 0 {
		t.Errorf("%q got through", b.String()[i:i+1])
	}
	for name, r := range reports() {
		for _, width := range []int{0, 40, 60, 100} {
			b.Reset()
			if err := Text(&b, r, width, false); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(b.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); width > 0 && n > max(width, 64) {
					t.Errorf("%s at %d: a line of %d: %s", name, width, n, line)
				}
			}
		}
		b.Reset()
		if err := Text(&b, r, 80, true); err != nil {
			t.Fatal(err)
		}
		var plain bytes.Buffer
		if err := Text(&plain, r, 80, false); err != nil {
			t.Fatal(err)
		}
		if got := regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(b.String(), ""); got != plain.String() || !strings.Contains(b.String(), "\x1b[") {
			t.Errorf("%s: colours change the text:\n%s", name, cmp.Diff(plain.String(), got))
		}
	}
}

func TestWords(t *testing.T) {
	for want, got := range map[string]string{
		"0": number(0), "999": number(999), "1,000": number(1000), "-1,234": number(-1234), "-123": number(-123), "12,345,678": number(12345678),
		"999 bytes": size(999), "1.0 kB": size(1000), "1.0 MB": size(999_999), "1.2 GB": size(1_234_567_890), "2500.0 TB": size(25e14),
		"0.5 s": length(500 * time.Millisecond), "59 s": length(59900 * time.Millisecond), "1 min 5 s": length(65 * time.Second), "26 h 3 min": length(26*time.Hour + 3*time.Minute),
		"Status odd.": Verdict(Report{Status: "odd"}),
	} {
		if got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
}

// TestLongLists: a page stays readable for a browser.
func TestLongLists(t *testing.T) {
	r := exceptions()
	for range htmlRows {
		r.Exceptions = append(r.Exceptions, r.Exceptions[0])
		r.Kept = append(r.Kept, r.Kept[0])
	}
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1,000 shown, 14 more in the JSON report", "1,000 shown, 2 more in the JSON report"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

// TestTaught: what reports of the tests teach can be typed.
func TestTaught(t *testing.T) {
	for name, r := range reports() {
		for _, e := range r.Exceptions {
			if _, cmd, ok := strings.Cut(e.Next, "deltadesk "); ok && !regexp.MustCompile(`^(decide|explain) (ticket|person|company)/\d+ ?`).MatchString(cmd) {
				t.Errorf("%s: there is no command %q", name, e.Next)
			}
		}
	}
}

package main

import (
	"context"
	"encoding/base64"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/connectors/archive"
	"github.com/deltadesk/deltadesk/shared/desk"
)

var writeExample = flag.Bool("example", false, "write infra/migrations/example anew")

const migrations = "../../infra/migrations"

// TestMain lets the test's own program be the command line: what README says to type is typed.
func TestMain(m *testing.M) {
	if os.Getenv("DELTADESK_IS_TEST") != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestTryIt runs what README says under "Try it", as it stands there, in a folder with what a clone has.
func TestTryIt(t *testing.T) {
	if *writeExample {
		makeExample(t)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(readme), "## Try it\n")
	_, script, _ = strings.Cut(script, "```sh\n")
	script, _, found := strings.Cut(script, "```\n")
	script, built := strings.CutPrefix(script, "make build ")
	if !found || !built {
		t.Fatalf("README does not say what to type, or begins otherwise than with make build:\n%s", script)
	}
	clone := t.TempDir()
	self, err := os.Executable()
	if err == nil {
		err = os.CopyFS(filepath.Join(clone, "infra/migrations"), os.DirFS(migrations))
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(clone, "out"), 0o700)
	}
	if err == nil {
		err = os.Symlink(self, filepath.Join(clone, "out/deltadesk"))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ = strings.Cut(script, "\n")
	typed := func(script string) string {
		t.Helper()
		c := exec.Command("sh", "-e")
		c.Dir, c.Stdin, c.Env = clone, strings.NewReader(script), append(os.Environ(), "DELTADESK_IS_TEST=1")
		said, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, script, said)
		}
		return string(said)
	}
	says(t, typed(script), "Rehearsal: nothing was written", "right-to-left text", "Both sides agree", "merged", "source_id")
	// The example shows all that it promises.
	says(t, typed("out/deltadesk -c out/archive-to-archive.yaml run --kind sample --n 10"), "files", "inline images", "HTML", "private notes", "merged tickets", "right-to-left text")
	says(t, typed("out/deltadesk -c out/archive-to-archive.yaml run --kind census"), "Nothing was missed")
}

// makeExample writes the example archive anew.
func makeExample(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(migrations, "example")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	d, err := archive.Connector.NewTarget(desk.Config{"folder": dir}, desk.Deps{Migration: "people"})
	if err != nil {
		t.Fatal(err)
	}
	add := func(k desk.Kind, id string, f desk.Fields, more func(*desk.Record)) {
		r := desk.Record{Ref: desk.Ref{Kind: k, ID: id}, Fields: f}
		if more != nil {
			more(&r)
		}
		if _, err := d.Create(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Date(2026, 1, 12, 8, 30, 0, 0, time.UTC)
	people := map[string]desk.Author{}
	for id, name := range map[string]string{"1": "Ada Verner", "2": "Bruno Okafor", "3": "נועה לוי", "4": "Dana Agent", "5": "Emil Agent"} {
		people[id] = desk.Author{ID: id, Name: name, Email: "person" + id + "@acme.example"}
	}
	add(desk.Company, "1", desk.Fields{desk.Name: {"Acme Printing"}}, nil)
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		f := desk.Fields{desk.Name: {people[id].Name}, desk.Email: {people[id].Email}}
		if id < "3" {
			f[desk.CompanyOf] = desk.Value{"1"}
		}
		add(desk.Person, id, f, nil)
	}
	file := func(name, kind, body string) desk.File {
		return desk.File{Name: name, Type: kind, Size: int64(len(body)), Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }}
	}
	// say is an entry: who, how many hours after the ticket came, and what.
	type say struct {
		who   string
		after int
		body  string
		note  bool
		files []desk.File
	}
	n := 0
	ticket := func(id string, f desk.Fields, who string, thread ...say) {
		at := start.Add(time.Duration(n) * 7 * time.Hour)
		n++
		f[desk.Requester], f[desk.Created] = desk.Value{who}, desk.Time(at)
		add(desk.Ticket, id, f, func(r *desk.Record) {
			for i, s := range thread {
				e := desk.Entry{ID: id + "-" + string(rune('1'+i)), Public: !s.note, At: at.Add(time.Duration(s.after) * time.Hour), Body: s.body, Type: "text/plain", Author: people[s.who], Files: s.files}
				if strings.HasPrefix(s.body, "<") {
					e.Type = "text/html"
				}
				for j := range e.Files {
					e.Files[j].ID = e.ID + "-" + string(rune('a'+j))
				}
				r.Entries = append(r.Entries, e)
			}
		})
	}
	dot, err := base64.StdEncoding.DecodeString("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==")
	if err != nil {
		t.Fatal(err)
	}
	image := file("jam.png", "image/png", string(dot))
	image.Inline, image.CID = true, "jam"
	ticket("1", desk.Fields{desk.Subject: {"Printer on the third floor is jammed"}, desk.Status: {"open"}, desk.Assignee: {"4"}, desk.Tags: {"hardware", "printer"}}, "1",
		say{who: "1", body: `<p>It looks like this:</p><p><img src="cid:jam"></p>`, files: []desk.File{image}},
		say{who: "4", after: 1, body: "Third time this month. Ask for a replacement.", note: true},
		say{who: "4", after: 2, body: "Somebody comes today."})
	ticket("2", desk.Fields{desk.Subject: {"Invoice 2026-117"}, desk.Status: {"resolved"}, desk.Assignee: {"5"}, desk.Custom("Cost Centre"): {"4711"}}, "2",
		say{who: "2", body: "Please check the attached.", files: []desk.File{file("invoice.csv", "text/csv", "item,amount\npaper,120\ntoner,80\n"), file("Übersicht.txt", "text/plain", "Papier und Toner\n")}},
		say{who: "5", after: 5, body: "It is right.", files: []desk.File{file("checked.txt", "text/plain", "checked\n")}})
	ticket("3", desk.Fields{desk.Subject: {"המדפסת לא עובדת"}, desk.Status: {"waiting"}}, "3",
		say{who: "3", body: "שלום, המדפסת בקומה השלישית לא עובדת מאז הבוקר."},
		say{who: "4", after: 3, body: "תודה, אנחנו בודקים."})
	ticket("4", desk.Fields{desk.Subject: {"VPN drops every hour"}, desk.Status: {"open"}, desk.Assignee: {"5"}}, "1",
		say{who: "1", body: "Since Monday."},
		say{who: "5", after: 2, body: "Which network are you in?"})
	ticket("5", desk.Fields{desk.Subject: {"VPN again"}, desk.Status: {"open"}}, "1",
		say{who: "1", body: "At home; see the log.", files: []desk.File{file("vpn.log", "text/plain", "08:00 up\n09:00 down\n")}})
	ticket("6", desk.Fields{desk.Subject: {"New laptop for Noa"}, desk.Status: {"waiting"}, desk.Priority: {"high"}, desk.LinkDependsOn: {"7"}, desk.Due: desk.Time(start.Add(400 * time.Hour))}, "4",
		say{who: "4", body: "She starts in February.", note: true})
	ticket("7", desk.Fields{desk.Subject: {"Order ten laptops"}, desk.Status: {"open"}, desk.Tags: {"purchase"}, desk.TimeWorked: {"45"}}, "5",
		say{who: "5", body: "Three offers are in.", files: []desk.File{file("offers.csv", "text/csv", "firm,price\na,900\nb,870\nc,910\n")}},
		say{who: "4", after: 20, body: "Take b.", note: true})
	ticket("8", desk.Fields{desk.Subject: {"Password forgotten"}, desk.Status: {"resolved"}}, "2", say{who: "2", body: "I have forgotten it."}, say{who: "4", after: 1, body: "You have mail."})
	ticket("9", desk.Fields{desk.Subject: {"Win a prize"}, desk.Status: {"rejected"}}, "2", say{who: "2", body: "<p>Was this from you?</p>"})
	ticket("10", desk.Fields{desk.Subject: {"Where is the new handbook?"}, desk.Status: {"new"}, desk.LinkRefersTo: {"https://intranet.acme.example/handbook"}}, "3",
		say{who: "3", body: "The link in the welcome mail leads nowhere."})
	if err := d.(desk.Merger).Merge(ctx, desk.Ref{Kind: desk.Ticket, ID: "5"}, desk.Ref{Kind: desk.Ticket, ID: "4"}, ""); err != nil {
		t.Fatal(err)
	}
	later := desk.Entry{ID: "4-3", Public: true, At: start.Add(200 * time.Hour), Body: "Both are the router's doing; a new one is on its way.", Type: "text/plain", Author: people["5"]}
	if _, err := d.Apply(ctx, desk.Ref{Kind: desk.Ticket, ID: "4"}, desk.Change{Entries: []desk.Entry{later}}); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{"lock", "tmp"} { // made again by who writes
		if err := os.RemoveAll(filepath.Join(dir, left)); err != nil {
			t.Fatal(err)
		}
	}
}

package delta_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

func sample(n int) delta.Request { return delta.Request{Kind: delta.Sample, Scope: "all", N: n} }

// plant fills the source with ordinary tickets and, among them, one odd ticket of each sort. It returns the odd ones by what
// is odd about them.
func plant(w *deltatest.World, ordinary int) map[string]string {
	d := w.Source
	ann := d.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
	by := desk.Author{ID: ann, Name: "Ann"}
	plain := func() string {
		id := d.Add(desk.Ticket, desk.Fields{desk.Subject: {"Printer"}, desk.Status: {"open"}, desk.Group: {"Support"}, desk.Priority: {"10"}, desk.Requester: {ann}})
		d.Say(id, true, by, "it burns", nil)
		return id
	}
	some := func(n int) {
		for range n {
			plain()
		}
	}
	odd := map[string]string{}
	post := func(what string, en desk.Entry, files map[string][]byte) {
		odd[what] = plain()
		d.Post(odd[what], en, files)
	}
	text := desk.Entry{Public: true, Author: by, Body: "plain", Type: "text/plain"}
	with := func(change func(*desk.Entry)) desk.Entry { en := text; change(&en); return en }
	some(ordinary / 2)
	post("files", with(func(en *desk.Entry) { en.Files = []desk.File{{Name: "a.pdf"}} }), map[string][]byte{"a.pdf": {1}})
	post("inline images", with(func(en *desk.Entry) { en.Files = []desk.File{{Name: "b.png", Inline: true, CID: "b"}} }), map[string][]byte{"b.png": {2}})
	post("non-ASCII file names", with(func(en *desk.Entry) { en.Files = []desk.File{{Name: "Lösung.txt"}} }), map[string][]byte{"Lösung.txt": {3}})
	post("right-to-left text", with(func(en *desk.Entry) { en.Body = "שלום" }), nil)
	post("private notes", with(func(en *desk.Entry) { en.Public = false }), nil)
	post("HTML", with(func(en *desk.Entry) { en.Body, en.Type = "<b>x</b>", "text/html" }), nil)
	post("non-ASCII names", with(func(en *desk.Entry) { en.Author = desk.Author{Name: "Zoë"} }), nil)
	odd["long thread"] = plain()
	for i := range 12 {
		d.Say(odd["long thread"], true, by, fmt.Sprint("and another thing ", i), nil)
	}
	odd["merged tickets"] = plain()
	d.Join(ticket(plain()), ticket(odd["merged tickets"]))
	odd["rare value of priority"] = plain()
	d.Edit(ticket(odd["rare value of priority"]), desk.Fields{desk.Priority: {"99"}})
	odd["links"] = plain()
	d.Edit(ticket(odd["links"]), desk.Fields{desk.LinkRefersTo: {"https://outside.example/1"}})
	odd["many people"] = plain()
	var cc desk.Value
	for i := range 6 {
		cc = append(cc, d.Add(desk.Person, desk.Fields{desk.Name: {fmt.Sprint("P", i)}, desk.Email: {fmt.Sprintf("p%d@x.example", i)}}))
	}
	d.Edit(ticket(odd["many people"]), desk.Fields{desk.CC: desk.Set(cc...)})
	some(ordinary - ordinary/2)
	w.Wait(time.Hour)
	return odd
}

func chosen(rep report.Report) map[string][]string {
	out := map[string][]string{}
	for _, c := range rep.Chosen {
		out[c.Record] = c.Features
	}
	return out
}

// The planted odd tickets are found among the ordinary ones, before there was any full run, and the report says why.
func TestSample(t *testing.T) {
	w := world(t)
	odd := plant(w, 50)
	rep := reportOf(t, w, run(t, w, sample(len(odd))).ID)
	if rep.Status != "verified" || rep.Counts.Planned != len(odd) || rep.Counts.Created != len(odd) || rep.Counts.Listed != 50+len(odd)+1 || rep.Looked != 50+len(odd)+1 {
		t.Errorf("%s %+v, looked at %d", rep.Status, rep.Counts, rep.Looked)
	}
	got := chosen(rep)
	for what, id := range odd {
		if !slices.Contains(got["ticket/"+id], what) {
			t.Errorf("ticket %s was planted for %q; chosen for %q", id, what, got["ticket/"+id])
		}
	}
	if len(got) != len(odd) {
		t.Errorf("%d tickets have a reason, want %d", len(got), len(odd))
	}
	look := w.Target.Look()
	for what, id := range odd {
		if n := len(look["ticket/"+id]); n != 1 {
			t.Errorf("the ticket with %s is %d times in the target", what, n)
		}
	}
	if !cmp.Equal(rep.CutoffBefore, rep.CutoffAfter) {
		t.Errorf("the cutoff moved from %s to %s", rep.CutoffBefore, rep.CutoffAfter)
	}
	x, err := w.Engine().Explain(ctx, ticket(odd["HTML"]))
	if err != nil || len(x.Trail) != 1 || !strings.Contains(x.Trail[0].Why, "chosen for the sample: HTML") {
		t.Errorf("%+v %v", x.Trail, err)
	}

	// It moved no cutoff and made no baseline.
	_, _, err = w.Engine().Start(ctx, mainDelta)
	refused(t, err, "no full run of scope")
	full(t, w)
	for ref, all := range w.Target.Look() {
		if len(all) != 1 {
			t.Errorf("after the full run %s is %d times in the target", ref, len(all))
		}
	}
	// After the full run a sample finds everything there.
	again := reportOf(t, w, run(t, w, sample(len(odd))).ID)
	if again.Counts.Unchanged != len(odd) {
		t.Errorf("%+v", again.Counts)
	}
	if d := cmp.Diff(got, chosen(again)); d != "" {
		t.Errorf("another sample of the same desk:\n%s", d)
	}
}

// Of a large desk only a bounded number is read, and not from its beginning alone.
func TestSampleIsBounded(t *testing.T) {
	w := world(t)
	w.Source.PageSize = 100
	var ids []string
	for i := range 3000 {
		ids = append(ids, addTicket(w, fmt.Sprint(i)))
	}
	for _, tc := range []struct{ n, reads int }{{1, 10}, {3, 30}, {100, 600}} {
		read := map[string]bool{}
		w.Source.Fail = func(op string, ref desk.Ref) error {
			if op == "read" {
				read[ref.ID] = true
			}
			return nil
		}
		q := sample(tc.n)
		q.Dry = true
		rep := reportOf(t, w, run(t, w, q).ID)
		if rep.Looked != tc.reads || len(read) != tc.reads || rep.Counts.Planned != tc.n || rep.Counts.Listed != 3000 {
			t.Errorf("n=%d: looked at %d, read %d, want %d; %+v", tc.n, rep.Looked, len(read), tc.reads, rep.Counts)
		}
		quarter := map[int]int{}
		for i, id := range ids {
			if read[id] {
				quarter[i/750]++
			}
		}
		if tc.reads >= 30 && len(quarter) != 4 {
			t.Errorf("n=%d: read by quarter of the listing: %v", tc.n, quarter)
		}
	}
	if n := w.Target.Writes(); n != 0 {
		t.Errorf("a rehearsal wrote %d times", n)
	}
}

// A sample stays within its scope, and one that finds fewer tickets than it is to have takes those there are.
func TestSampleScope(t *testing.T) {
	w := world(t)
	want := map[string]bool{}
	for i := range 60 {
		id := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {fmt.Sprint(i)}, desk.Status: {"open"}, desk.Group: {map[bool]string{true: "Support", false: "Sales"}[i%20 == 0]}})
		if i%20 == 0 {
			want["ticket/"+id] = true
		}
	}
	rep := reportOf(t, w, run(t, w, delta.Request{Kind: delta.Sample, Scope: "support", N: 5}).ID)
	if len(rep.Chosen) != len(want) || rep.Counts.Created != len(want) {
		t.Errorf("%+v %+v", rep.Counts, rep.Chosen)
	}
	for _, c := range rep.Chosen {
		if !want[c.Record] {
			t.Errorf("%s is out of scope", c.Record)
		}
	}
}

func TestSampleRefusals(t *testing.T) {
	w := world(t)
	addTicket(w, "one")
	for _, tc := range []struct {
		q    delta.Request
		want string
	}{
		{sample(0), "a sample has 1 to 100 tickets"},
		{sample(101), "a sample has 1 to 100 tickets"},
		{delta.Request{Kind: delta.Full, Scope: "all", N: 3}, "--n belongs to sample runs"},
		{delta.Request{Kind: delta.Sample, N: 3}, "which scope?"},
		{delta.Request{Kind: delta.Sample, Scope: "all", N: 3, Window: "main"}, "has a scope, not a window"},
	} {
		_, _, err := w.Engine().Start(ctx, tc.q)
		refused(t, err, tc.want)
	}
	if n := w.Effects.Count(); n != 0 {
		t.Errorf("%d effects", n)
	}
	first, _, err := w.Engine().Start(ctx, sample(1))
	if err != nil {
		t.Fatal(err)
	}
	again, resumed, err := w.Engine().Start(ctx, sample(2))
	if err != nil || !resumed || again.ID != first.ID || again.N != 1 {
		t.Errorf("a second sample of the scope: %+v %v %v", again, resumed, err)
	}
}

// An empty desk, and one that refuses to give a ticket out: that one is odd, too.
func TestSampleEdges(t *testing.T) {
	w := world(t)
	if rep := reportOf(t, w, run(t, w, sample(3)).ID); rep.Status != "verified" || rep.Counts.Planned != 0 {
		t.Errorf("%s %+v", rep.Status, rep.Counts)
	}
	for i := range 5 {
		addTicket(w, fmt.Sprint(i))
	}
	poison := addTicket(w, "poison")
	w.Source.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref.ID == poison {
			return &desk.Error{Op: "read", Class: desk.ErrRejected}
		}
		return nil
	}
	rep := reportOf(t, w, run(t, w, sample(1)).ID)
	if rep.Counts.Failed != 1 || !cmp.Equal(chosen(rep), map[string][]string{"ticket/" + poison: {"refused by the source"}}) {
		t.Errorf("%+v %+v", rep.Counts, rep.Chosen)
	}
}

// Two tickets of a sample refer to each other: both ends are drawn within the sample, and nobody else is taken up.
func TestSampleLinks(t *testing.T) {
	w := world(t)
	a, b := addTicket(w, "a"), addTicket(w, "b")
	w.Source.Edit(ticket(a), desk.Fields{desk.LinkRefersTo: {b}})
	w.Source.Edit(ticket(b), desk.Fields{desk.LinkRefersTo: {a}})
	run(t, w, sample(2))
	look := w.Target.Look()
	if look["ticket/"+a][0].Fields[desk.LinkRefersTo] != "[ticket/"+b+"]" || look["ticket/"+b][0].Fields[desk.LinkRefersTo] != "[ticket/"+a+"]" {
		t.Errorf("%v", look)
	}
}

// A ticket that waited for one of the sample is for the next delta: a sample stays as large as it is.
func TestSampleWakes(t *testing.T) {
	w := world(t)
	id, waits := addTicket(w, "odd"), addTicket(w, "waits")
	for _, en := range []desk.Entry{{Type: "text/html", Body: "<b>x</b>"}, {Type: "text/plain", Body: "שלום", Author: desk.Author{Name: "Zoë"}}} {
		w.Source.Post(id, en, nil)
	}
	w.Source.Edit(ticket(waits), desk.Fields{desk.LinkRefersTo: {id}})
	w.Source.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref.ID == id {
			return &desk.Error{Op: op, Class: desk.ErrRejected}
		}
		return nil
	}
	full(t, w)
	w.Source.Fail = nil
	rep := reportOf(t, w, run(t, w, sample(1)).ID)
	link := func() string { return w.Target.Look()["ticket/"+waits][0].Fields[desk.LinkRefersTo] }
	if rep.Counts.Planned != 1 || rep.Counts.Created != 1 || link() != "" {
		t.Errorf("%+v, the other's link is %q", rep.Counts, link())
	}
	run(t, w, mainDelta)
	if link() != "[ticket/"+id+"]" {
		t.Errorf("after the delta the link is %q", link())
	}
}

// Cut off before and after every effect, a sample comes to the same tickets, for the same reasons, and picks once.
func TestCrashSample(t *testing.T) {
	t.Parallel()
	play := func(laptop bool, disorder uint64, cuts ...deltatest.Cut) (*deltatest.World, report.Report, error) {
		w := deltatest.NewWorld(migration())
		w.Laptop, w.Disorder, w.Effects.Cuts = laptop, disorder, cuts
		seed(w)
		r, err := w.Run(sample(4), nil)
		if err != nil {
			return w, report.Report{}, err
		}
		rep, err := w.Engine().Report(ctx, r.ID)
		return w, rep, err
	}
	for _, laptop := range []bool{true, false} {
		calm, rep, err := play(laptop, 0)
		if err != nil || rep.Counts.Created != 4 || len(rep.Chosen) != 4 {
			t.Fatalf("%+v %v", rep.Counts, err)
		}
		want := calm.Target.Look()
		for i := 1; i <= calm.Effects.Count(); i += stride(7) {
			for _, after := range []bool{true, false} {
				for _, disorder := range []uint64{0, uint64(i)} {
					w, got, err := play(laptop, disorder, deltatest.Cut{Effect: i, After: after}, deltatest.Cut{Effect: i + 3, After: !after})
					if err != nil {
						t.Errorf("laptop=%v cut at %s: %v", laptop, calm.Effects.Names[i-1], err)
						continue
					}
					if d := cmp.Diff(want, w.Target.Look()); d != "" {
						t.Errorf("laptop=%v disorder=%d cut at %s: another end:\n%s", laptop, disorder, calm.Effects.Names[i-1], d)
					}
					if d := cmp.Diff(chosen(rep), chosen(got)); d != "" || rep.Counts.Planned != got.Counts.Planned {
						t.Errorf("laptop=%v cut at %s: chosen %+v:\n%s", laptop, calm.Effects.Names[i-1], got.Counts, d)
					}
				}
			}
		}
	}
}

// stride is how many effects the small explorers go forward at a time.
func stride(short int) int {
	if testing.Short() {
		return max(short, *crashStride)
	}
	return *crashStride
}

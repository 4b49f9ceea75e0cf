package desk_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/desk"
)

func TestValue(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	for name, tt := range map[string]struct{ got, want desk.Value }{
		"text":                  {desk.Text("b", "a", "b"), desk.Value{"b", "a", "b"}},
		"text drops empty ones": {desk.Text("", "a", ""), desk.Value{"a"}},
		"no text is unset":      {desk.Text(""), nil},
		"set":                   {desk.Set("b", "", "a", "b"), desk.Value{"a", "b"}},
		"no set is unset":       {desk.Set(), nil},
		"time":                  {desk.Time(time.Date(2020, 1, 1, 0, 30, 0, 999, berlin)), desk.Value{"2019-12-31T23:30:00Z"}},
		"zero time is unset":    {desk.Time(time.Time{}), nil},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if !desk.Value(nil).Equal(desk.Value{}) || desk.Value(nil).First() != "" || (desk.Value{"a", "b"}).Equal(desk.Value{"b", "a"}) {
		t.Error("nil and empty must be equal, and order must count")
	}
	given := []string{"b", "a"}
	desk.Set(given...)
	if given[0] != "b" {
		t.Error("Set sorted the caller's slice")
	}
}

func TestDigest(t *testing.T) {
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	base := func() desk.Record {
		return desk.Record{
			Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Fields: desk.Fields{desk.Subject: {"s"}},
			Entries: []desk.Entry{{ID: "e", At: at, Body: "b", Files: []desk.File{{ID: "f", Name: "n", Size: 1}}}},
		}
	}
	want := base().Digest()
	for name, change := range map[string]func(*desk.Record){
		"stamp":               func(r *desk.Record) { r.Stamp = desk.Stamp{At: at, Seq: 7} },
		"lock":                func(r *desk.Record) { r.Lock = "x" },
		"address":             func(r *desk.Record) { r.URL = "https://x.example" },
		"began":               func(r *desk.Record) { r.Began = at },
		"a field told unset":  func(r *desk.Record) { r.Fields[desk.Due] = nil },
		"marker":              func(r *desk.Record) { r.Entries[0].Marker = "m" },
		"headers":             func(r *desk.Record) { r.Entries[0].Headers = map[string]string{"To": "x"} },
		"line end at the end": func(r *desk.Record) { r.Entries[0].Body = "b\r\n" },
		"time zone":           func(r *desk.Record) { r.Entries[0].At = at.In(time.FixedZone("", 3600)) },
		"a file's id":         func(r *desk.Record) { r.Entries[0].Files[0].ID = "g" },
	} {
		r := base()
		if change(&r); r.Digest() != want {
			t.Errorf("%s is not left out of the digest", name)
		}
	}
	seen := map[string]string{want: "nothing"}
	for name, change := range map[string]func(*desk.Record){
		"subject":       func(r *desk.Record) { r.Fields[desk.Subject] = desk.Value{"t"} },
		"another field": func(r *desk.Record) { r.Fields[desk.Status] = desk.Value{"s"} },
		"value split":   func(r *desk.Record) { r.Fields[desk.Subject] = desk.Value{"s", "s"} },
		"event":         func(r *desk.Record) { r.Event = desk.Spam },
		"alias":         func(r *desk.Record) { r.Aliases = []string{"2"} },
		"body":          func(r *desk.Record) { r.Entries[0].Body = "c" },
		"leading blank": func(r *desk.Record) { r.Entries[0].Body = " b" },
		"visibility":    func(r *desk.Record) { r.Entries[0].Public = true },
		"author":        func(r *desk.Record) { r.Entries[0].Author.Name = "a" },
		"time":          func(r *desk.Record) { r.Entries[0].At = at.Add(time.Second) },
		"file name":     func(r *desk.Record) { r.Entries[0].Files[0].Name = "m" },
		"file size":     func(r *desk.Record) { r.Entries[0].Files[0].Size = 2 },
		"entry gone":    func(r *desk.Record) { r.Entries = nil },
		"entry twice":   func(r *desk.Record) { r.Entries = append(r.Entries, r.Entries[0]) },
	} {
		r := base()
		change(&r)
		if other, ok := seen[r.Digest()]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[r.Digest()] = name
	}
	if d := (desk.Value{"x"}).Digest(); len(d) != 12 || desk.Value(nil).Digest() != "" || (desk.Value{}).Digest() != "" {
		t.Errorf("digests of values: %q", d)
	}
}

func TestScopeHolds(t *testing.T) {
	created := func(s string) desk.Record {
		return desk.Record{Ref: desk.Ref{Kind: desk.Ticket}, Fields: desk.Fields{desk.Created: desk.Text(s), desk.Group: {"emea"}, desk.Tags: {"a", "b"}}}
	}
	day := func(d int) time.Time { return time.Date(2020, 1, d, 0, 0, 0, 0, time.UTC) }
	among := func(f desk.Field, vs ...string) desk.Scope {
		return desk.Scope{Any: map[desk.Field][]string{f: vs}}
	}
	for name, tt := range map[string]struct {
		scope desk.Scope
		r     desk.Record
		want  bool
	}{
		"everything":             {desk.Scope{}, created("2020-01-02T00:00:00Z"), true},
		"no creation time":       {desk.Scope{}, created(""), true},
		"one of":                 {among(desk.Tags, "x", "b"), created("2020-01-02T00:00:00Z"), true},
		"none of":                {among(desk.Tags, "x"), created("2020-01-02T00:00:00Z"), false},
		"unset field":            {among(desk.Type, "x"), created("2020-01-02T00:00:00Z"), false},
		"both filters":           {desk.Scope{Any: map[desk.Field][]string{desk.Group: {"emea"}, desk.Tags: {"x"}}}, created("2020-01-02T00:00:00Z"), false},
		"from is inclusive":      {desk.Scope{CreatedFrom: day(2)}, created("2020-01-02T00:00:00Z"), true},
		"before from":            {desk.Scope{CreatedFrom: day(2)}, created("2020-01-01T23:59:59Z"), false},
		"to is exclusive":        {desk.Scope{CreatedTo: day(2)}, created("2020-01-02T00:00:00Z"), false},
		"before to":              {desk.Scope{CreatedTo: day(2)}, created("2020-01-01T23:59:59Z"), true},
		"dates need a time":      {desk.Scope{CreatedTo: day(2)}, created(""), false},
		"people are always held": {among(desk.Tags, "x"), desk.Record{Ref: desk.Ref{Kind: desk.Person}}, true},
	} {
		ok, why := tt.scope.Holds(tt.r)
		if ok != tt.want || ok != (why == "") {
			t.Errorf("%s: got %t, %q", name, ok, why)
		}
	}
}

func TestStampBefore(t *testing.T) {
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	s := func(sec int, seq int64) desk.Stamp {
		return desk.Stamp{At: at.Add(time.Duration(sec) * time.Second), Seq: seq}
	}
	for _, tt := range []struct {
		a, b desk.Stamp
		want bool
	}{
		{s(0, 0), s(1, 0), true},
		{s(0, 0), s(0, 0), false},
		{s(1, 1), s(0, 2), true}, // numbers win over times
		{s(0, 2), s(1, 1), false},
		{s(0, 5), s(1, 0), true}, // only one has a number
	} {
		if got := tt.a.Before(tt.b); got != tt.want {
			t.Errorf("%v before %v: %t", tt.a, tt.b, got)
		}
	}
}

func TestClass(t *testing.T) {
	cause := errors.New("cause")
	for _, tt := range []struct{ err, want error }{
		{nil, nil},
		{cause, desk.ErrTransient},
		{desk.ErrConflict, desk.ErrConflict},
		{fmt.Errorf("push: %w", &desk.Error{Class: desk.ErrNotFound}), desk.ErrNotFound},
		{&desk.Error{Op: "x", Err: cause}, desk.ErrTransient},
		{&desk.Error{Class: desk.ErrTransient, Err: desk.ErrUnauthorized}, desk.ErrUnauthorized},
		{errors.Join(desk.ErrRejected, desk.ErrMailed), desk.ErrMailed}, // the one that stops the run
	} {
		if got := desk.Class(tt.err); got != tt.want { //nolint:errorlint // a class is one of the sentinels itself
			t.Errorf("%v: got class %v, want %v", tt.err, got, tt.want)
		}
	}
	err := fmt.Errorf("a: %w", &desk.Error{Op: "create ticket/42", Status: 422, Said: "no such queue", Class: desk.ErrRejected, Err: cause})
	var de *desk.Error
	if !errors.As(err, &de) || !errors.Is(err, cause) || !errors.Is(err, desk.ErrRejected) {
		t.Error("the error does not lead to its parts")
	}
	if got, want := de.Error(), "create ticket/42: refused by the desk (status 422): no such queue: cause"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFields(t *testing.T) {
	if name, ok := desk.Custom("Größe").CustomName(); name != "Größe" || !ok {
		t.Errorf("got %q, %t", name, ok)
	}
	if _, ok := desk.Subject.CustomName(); ok {
		t.Error("subject is no custom field")
	}
	for f, want := range map[desk.Field]desk.Kind{
		desk.CC: desk.Person, desk.Assignee: desk.Person, desk.CompanyOf: desk.Company, desk.LinkParent: desk.Ticket, desk.Subject: "", desk.Custom("cc"): "",
	} {
		if got := f.Points(); got != want {
			t.Errorf("%s points to %q, want %q", f, got, want)
		}
	}
	for f, want := range map[desk.Field]bool{desk.Tags: true, desk.Custom("x"): true, desk.Email: false, desk.Subject: false, desk.Assignee: false} {
		if got := f.IsSet(); got != want {
			t.Errorf("%s is a set: %t", f, got)
		}
	}
	if !slices.Equal(desk.LoadOrder(), []desk.Kind{desk.Company, desk.Person, desk.Ticket}) {
		t.Error("what refers to something is loaded after it")
	}
	defs := desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{desk.Ticket: {{Field: desk.Subject, Max: 200}}}}
	if d, ok := defs.Field(desk.Ticket, desk.Subject); !ok || d.Max != 200 {
		t.Errorf("got %+v, %t", d, ok)
	}
	if _, ok := defs.Field(desk.Person, desk.Subject); ok {
		t.Error("a person has no subject")
	}
	if !(desk.Change{Lock: "x"}).Empty() || (desk.Change{Entries: []desk.Entry{{}}}).Empty() {
		t.Error("a change is empty when it has neither fields nor entries")
	}
}

func FuzzCanonicalBody(f *testing.F) {
	for _, s := range []string{"", "a", "a\r\n", "a\r\n\r\nb\n\n", "\r\r\n", "\n", "a\rb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := desk.CanonicalBody(s)
		if desk.CanonicalBody(once) != once {
			t.Errorf("%q becomes %q, which becomes another one", s, once)
		}
	})
}

func ExampleCanonicalBody() {
	fmt.Printf("%q\n", desk.CanonicalBody("Hello,\r\n\r\n  world \r\n\n"))
	// Output: "Hello,\n\n  world "
}

func ExampleText() {
	r := desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "42"}, Fields: desk.Fields{
		desk.Subject:       desk.Text("Printer on fire"),
		desk.Tags:          desk.Set("urgent", "floor-3", "urgent"),
		desk.Custom("Ort"): desk.Text(""), // known to be unset
	}}
	fmt.Println(r.Ref, r.Fields[desk.Tags], len(r.Fields[desk.Custom("Ort")]))
	// Output: ticket/42 [floor-3 urgent] 0
}

func ExampleClass() {
	err := fmt.Errorf("push ticket/42: %w", &desk.Error{Op: "POST /ticket", Status: 429, Class: desk.ErrThrottled, RetryAfter: time.Minute})
	fmt.Println(desk.Class(err))
	fmt.Println(err)
	// Output:
	// limit reached
	// push ticket/42: POST /ticket: limit reached (status 429)
}

func TestConfigShowsNoValues(t *testing.T) {
	c := desk.Config{"url": "https://x.example", "password": "hunter2"}
	b, err := json.Marshal(map[string]any{"c": c})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c, c), fmt.Sprintf("%+v", struct{ C desk.Config }{c}), string(b)} {
		if strings.Contains(s, "hunter2") || strings.Contains(s, "x.example") || !strings.Contains(s, "password") {
			t.Errorf("%s", s)
		}
	}
}

package certificate_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/certificate"
	"github.com/deltadesk/deltadesk/shared/desk"
)

var at = time.Date(2026, 3, 10, 8, 0, 0, 0, time.UTC)

func header() certificate.Header {
	return certificate.Header{
		Migration: "acme", Run: "01JD5Y6QZV8J3W3C4N7H2K9M5T", Scope: "all", ScopeDigest: "d", Config: "c", Mapping: "m", Source: "archive old", Target: "archive new",
		Mark: json.RawMessage(`{"n":1}`), Started: at, Ended: at.Add(time.Hour), Salt: "a salt of some length", Limits: []string{certificate.LimitGuess},
	}
}

func lines() []certificate.Line {
	side := func(id string) *certificate.Side {
		return &certificate.Side{ID: id, Version: "7", Entries: 2, Files: 1, Digest: strings.Repeat("a", 32)}
	}
	return []certificate.Line{
		{Record: "ticket/1", Outcome: "unchanged", Source: side("1"), Target: side("101"), Kept: []string{"priority"}},
		{Record: "ticket/2", Outcome: "held", Reason: "differs only where it is held: status", Source: side("2"), Target: side("102"), Held: []string{"status"}},
		{Record: "ticket/3", Outcome: "failed", Reason: "not in the target"},
		{Record: "person/4", Outcome: "excluded", Reason: "deleted in the source"},
	}
}

func written(t *testing.T, h certificate.Header, ls ...certificate.Line) string {
	t.Helper()
	var b bytes.Buffer
	w, err := certificate.NewWriter(&b, h)
	for _, l := range ls {
		if err == nil {
			err = w.Add(l)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteAndRead(t *testing.T) {
	for n := range len(lines()) + 1 {
		text := written(t, header(), lines()[:n]...)
		for line := range strings.Lines(text) {
			if err := certificate.Validate([]byte(line)); err != nil {
				t.Errorf("%v\n%s", err, line)
			}
		}
		var got []certificate.Line
		h, tr, err := certificate.Read(strings.NewReader(text), func(_ certificate.Header, l certificate.Line) error { got = append(got, l); return nil })
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if d := cmp.Diff(append([]certificate.Line(nil), lines()[:n]...), got); d != "" {
			t.Errorf("lines (-want +got):\n%s", d)
		}
		if !h.Fits(h.Salt) || h.Fits(h.Salt+"x") || h.SaltSHA256 == "" {
			t.Errorf("the salt is not known again by %q", h.SaltSHA256)
		}
		h.Format, h.Version, h.Schema, h.SaltSHA256 = "", 0, "", ""
		if d := cmp.Diff(header(), h); d != "" {
			t.Errorf("header (-want +got):\n%s", d)
		}
		body := text[:strings.LastIndex(strings.TrimSpace(text), "\n")+1]
		sum := sha256.Sum256([]byte(body))
		want := certificate.Trailer{Records: n, Unchanged: min(n, 1), Held: min(max(n-1, 0), 1), Failed: min(max(n-2, 0), 1), Excluded: max(n-3, 0), Verdict: "verified", SHA256: hex.EncodeToString(sum[:])}
		if n > 1 {
			want.Verdict = "exceptions"
		}
		if d := cmp.Diff(want, tr); d != "" {
			t.Errorf("trailer (-want +got):\n%s", d)
		}
	}
}

// TestTampered: every byte that is changed, every end that is cut off and every line that is gone, doubled or moved is told.
func TestTampered(t *testing.T) {
	good := written(t, header(), lines()...)
	read := func(text string) error {
		_, _, err := certificate.Read(strings.NewReader(text), nil)
		return err
	}
	for i := range len(good) {
		if i == len(good)-1 {
			break // the last line without its end of line says the same
		}
		b := []byte(good)
		b[i] ^= 1
		if read(string(b)) == nil {
			t.Errorf("byte %d was changed from %q to %q, and nothing was noticed", i, good[i], b[i])
		}
		if read(good[:i]) == nil {
			t.Errorf("cut off after %d bytes, and nothing was noticed", i)
		}
	}
	all := strings.SplitAfter(good, "\n")
	all = all[:len(all)-1]
	join := func(ls ...string) string { return strings.Join(ls, "") }
	for _, tc := range []struct{ name, text, says string }{
		{"nothing", "", "empty"},
		{"something else", "hello\n", "no certificate"},
		{"a report", `{"migration":"acme"}` + "\n", "no certificate"},
		{"a later form", strings.Replace(good, `"version":1`, `"version":2`, 1), "version 2"},
		{"an unknown word", strings.Replace(good, `"run":`, `"rum":`, 1), "line 1 of the certificate is damaged"},
		{"no last line", join(all[:5]...), "cut short: after line 5"},
		{"a line gone", join(all[0], all[2], all[3], all[4], all[5]), "was changed"},
		{"a line twice", join(all[0], all[1], all[1], all[2], all[3], all[4], all[5]), "was changed"},
		{"lines moved", join(all[0], all[2], all[1], all[3], all[4], all[5]), "was changed"},
		{"two certificates", good + good, "after its last line"},
		{"a value changed", strings.Replace(good, `"held"`, `"unchanged"`, 1), "was changed"},
		{"a line too long", all[0] + `{"record":"` + strings.Repeat("x", 5<<20) + `"}` + "\n" + all[5], "longer than any"},
	} {
		if err := read(tc.text); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v; want an error that says %q", tc.name, err, tc.says)
		}
	}
	// Somebody who writes the SHA-256 anew must also get the sums right.
	forged := join(all[0], all[1], all[2], all[4])
	sum := sha256.Sum256([]byte(forged))
	_, tr, _ := certificate.Read(strings.NewReader(good), nil)
	if err := read(forged + strings.Replace(all[5], tr.SHA256, hex.EncodeToString(sum[:]), 1)); err == nil || !strings.Contains(err.Error(), "sums") {
		t.Errorf("forged: %v", err)
	}
}

func TestWithoutSalt(t *testing.T) {
	for _, ls := range [][]certificate.Line{nil, lines()} {
		var b bytes.Buffer
		salt, tr, err := certificate.WithoutSalt(&b, strings.NewReader(written(t, header(), ls...)))
		if err != nil || salt != header().Salt || strings.Contains(b.String(), salt) {
			t.Errorf("salt %q, %v", salt, err)
		}
		h, again, err := certificate.Read(&b, nil)
		if err != nil || again != tr || h.Salt != "" || h.Run != header().Run || len(h.Limits) > 0 || !h.Fits(salt) || h.Fits("another") {
			t.Errorf("%+v %+v, %v", h, again, err)
		}
	}
	if _, _, err := certificate.WithoutSalt(io.Discard, strings.NewReader(written(t, header(), lines()...)[:700])); err == nil {
		t.Error("a cut certificate was copied")
	}
}

// TestSchemaNamesEveryField: what is added to a line must be added to the schema, and the schema refuses everything else.
func TestSchemaNamesEveryField(t *testing.T) {
	h := header()
	h.Format, h.Version, h.Schema, h.MaxFile, h.SaltSHA256 = certificate.Format, certificate.Version, "https://x.example/schema.json", 1, strings.Repeat("0", 64)
	s := certificate.Side{ID: "1", Version: "1", Entries: 1, Files: 1, Digest: strings.Repeat("b", 32), Copies: 2}
	full := []any{h, certificate.Line{Record: "ticket/1", Outcome: "held", Reason: "x", Source: &s, Target: &s, Kept: []string{"x"}, Held: []string{"x"}},
		certificate.Trailer{Records: 1, Unchanged: 1, Excluded: 1, Held: 1, Failed: 1, Verdict: "exceptions", SHA256: strings.Repeat("0", 64)}}
	for _, v := range full {
		rv := reflect.ValueOf(v)
		for i := range rv.NumField() {
			if rv.Field(i).IsZero() {
				t.Errorf("%T.%s is not set: the test proves nothing about it", v, rv.Type().Field(i).Name)
			}
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := certificate.Validate(b); err != nil {
			t.Error(err)
		}
		if err := certificate.Validate(bytes.Replace(b, []byte("{"), []byte(`{"subject":"Printer on fire",`), 1)); err == nil {
			t.Errorf("%T with a subject follows the schema", v)
		}
	}
}

// files is a desk that gives files out by id.
type files struct {
	desk.Source
	desk.Target
	bytes map[string]string
	fail  map[string]error
	recs  map[string]desk.Record
	found []string
	err   error
}

func (f *files) OpenFile(_ context.Context, _ desk.Ref, x desk.File) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(f.bytes[x.ID])), f.fail[x.ID]
}

func (f *files) Read(_ context.Context, ref desk.Ref) (desk.Record, error) {
	r, ok := f.recs[ref.ID]
	if !ok && f.err == nil {
		return r, &desk.Error{Op: "read", Class: desk.ErrNotFound}
	}
	return r, f.err
}

func (f *files) Find(context.Context, desk.Ref) ([]string, error) { return f.found, f.err }

func record() desk.Record {
	return desk.Record{
		Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Lock: "7", Stamp: desk.Stamp{At: at}, Fields: desk.Fields{desk.Subject: {"s"}, desk.Tags: {"a", "b"}},
		Entries: []desk.Entry{
			{ID: "e", Marker: "acme/e", Public: true, At: at, Author: desk.Author{ID: "9", Name: "Ann"}, Subject: "hi", Body: "b\r\n", Files: []desk.File{{ID: "f", Name: "n", Size: 3, SHA256: "declared"}}},
			{ID: "x", Public: true, At: at, Body: "an agent's"},
			{ID: "y", Marker: "acme-2/y", Public: true, At: at, Body: "of another migration"},
		},
	}
}

// TestDigest: what a digest is of, and what not.
func TestDigest(t *testing.T) {
	ctx := t.Context()
	digests := func(h certificate.Header, r desk.Record, f *files) (source, target *certificate.Side) {
		t.Helper()
		s, err := certificate.ReadSource(ctx, f, r, h.MaxFile)
		if err != nil {
			t.Fatal(err)
		}
		g, err := certificate.ReadTarget(ctx, f, h.Migration, r)
		if err != nil {
			t.Fatal(err)
		}
		return h.Digester().Source(s), h.Digester().Target(g)
	}
	d := func() *files { return &files{bytes: map[string]string{"f": "abc"}} }
	src, tgt := digests(header(), record(), d())
	if src.Entries != 3 || tgt.Entries != 1 || src.Files != 1 || tgt.Files != 1 || src.Version != "7" || src.ID != "1" {
		t.Errorf("%+v %+v", src, tgt)
	}
	if src.Digest == tgt.Digest {
		t.Error("both sides have the same digest: one could be passed off as the other")
	}
	for _, tc := range []struct {
		name         string
		change       func(*certificate.Header, *desk.Record, *files)
		source, both bool // the source's digest changes; and the target's as well
	}{
		{"nothing", func(*certificate.Header, *desk.Record, *files) {}, false, false},
		{"a field", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Fields[desk.Subject] = desk.Value{"S"} }, true, true},
		{"a field moved into another", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Fields[desk.Tags] = desk.Value{"a\",\"b"} }, true, true},
		{"a field unset", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Fields[desk.Status] = nil }, false, false},
		{"visibility", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries[0].Public = false }, true, true},
		{"text", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries[0].Body = "c" }, true, true},
		{"line ends", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries[0].Body = "b" }, false, false},
		{"time", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries[0].At = at.Add(time.Second) }, true, true},
		{"subject of an entry", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries[0].Subject = "ho" }, true, true},
		{"an author's name", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries[0].Author.Name = "Anna" }, false, false},
		{"a file's bytes", func(_ *certificate.Header, _ *desk.Record, f *files) { f.bytes["f"] = "abd" }, true, true},
		{"a file's name", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries[0].Files[0].Name = "m" }, true, true},
		{"what the desk declares of a file", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries[0].Files[0].SHA256 = "x" }, false, false},
		{"an entry gone", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries = r.Entries[1:] }, true, true},
		{"an agent's entry", func(_ *certificate.Header, r *desk.Record, _ *files) { r.Entries[1].Body = "another" }, true, false},
		{"version", func(_ *certificate.Header, r *desk.Record, _ *files) {
			r.Lock, r.Stamp, r.URL, r.Began = "8", desk.Stamp{At: at.Add(1)}, "x", at
		}, false, false},
		{"another salt", func(h *certificate.Header, _ *desk.Record, _ *files) { h.Salt = "another" }, true, true},
		{"another mapping", func(h *certificate.Header, _ *desk.Record, _ *files) { h.Mapping = "another" }, true, true},
		{"another desk", func(h *certificate.Header, _ *desk.Record, _ *files) { h.Source = "another" }, true, true},
		{"a file that is too large to be read", func(h *certificate.Header, _ *desk.Record, _ *files) { h.MaxFile = 2 }, true, false},
	} {
		h, r, f := header(), record(), d()
		tc.change(&h, &r, f)
		s, g := digests(h, r, f)
		if got := s.Digest != src.Digest; got != tc.source {
			t.Errorf("%s: the source's digest changes: %v, want %v", tc.name, got, tc.source)
		}
		if got := g.Digest != tgt.Digest; got != tc.both {
			t.Errorf("%s: the target's digest changes: %v, want %v", tc.name, got, tc.both)
		}
	}
	// A file that cannot be read is an error in the source, and a difference in the target, unless the desk has a bad moment.
	f := d()
	f.fail = map[string]error{"f": &desk.Error{Op: "open", Class: desk.ErrRejected}}
	if _, err := certificate.ReadSource(ctx, f, record(), 0); err == nil {
		t.Error("a file of the source that cannot be read is passed over")
	}
	if g, err := certificate.ReadTarget(ctx, f, "acme", record()); err != nil || g.Entries[0].Files[0].SHA256 != certificate.Unreadable {
		t.Errorf("%+v, %v", g, err)
	}
	f.fail["f"] = &desk.Error{Op: "open", Class: desk.ErrTransient}
	if _, err := certificate.ReadTarget(ctx, f, "acme", record()); err == nil {
		t.Error("a bad moment of the target is taken for a difference")
	}
}

// TestCheck goes through what may have become of a record since.
func TestCheck(t *testing.T) {
	type sides struct{ src, tgt *files }
	fresh := func() sides {
		one := func(id string) *files {
			r := record()
			r.Ref.ID = id
			return &files{bytes: map[string]string{"f": "abc"}, recs: map[string]desk.Record{id: r}, found: []string{"101"}}
		}
		return sides{one("1"), one("101")}
	}
	h := header()
	line := func(s sides) certificate.Line {
		a, err := certificate.ReadSource(t.Context(), s.src, s.src.recs["1"], 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := certificate.ReadTarget(t.Context(), s.tgt, h.Migration, s.tgt.recs["101"])
		if err != nil {
			t.Fatal(err)
		}
		return certificate.Line{Record: "ticket/1", Outcome: "unchanged", Source: h.Digester().Source(a), Target: h.Digester().Target(b)}
	}
	edit := func(f *files, id string, change func(*desk.Record)) {
		r := f.recs[id]
		r.Fields = desk.Fields{desk.Subject: {"s"}, desk.Tags: {"a", "b"}}
		change(&r)
		f.recs[id] = r
	}
	for _, tc := range []struct {
		name     string
		since    func(sides)
		src, tgt certificate.State
		says     string
	}{
		{"nothing", func(sides) {}, certificate.Same, certificate.Same, ""},
		{"worked on, and put back", func(s sides) { edit(s.tgt, "101", func(r *desk.Record) { r.Lock = "9" }) }, certificate.Same, certificate.Same, ""},
		{"changed in the source", func(s sides) { edit(s.src, "1", func(r *desk.Record) { r.Lock = "9"; r.Fields[desk.Subject] = nil }) }, certificate.Changed, certificate.Same, "version 7 was certified, now it is 9"},
		{"changed in the target", func(s sides) { edit(s.tgt, "101", func(r *desk.Record) { r.Lock = "9"; r.Fields[desk.Subject] = nil }) }, certificate.Same, certificate.Changed, "now it is 9"},
		{"changed without a trace", func(s sides) { s.tgt.bytes["f"] = "abd" }, certificate.Same, certificate.Differs, "still 7"},
		{"gone from the target", func(s sides) { delete(s.tgt.recs, "101") }, certificate.Same, certificate.Gone, "no longer there"},
		{"gone from the source", func(s sides) { delete(s.src.recs, "1") }, certificate.Gone, certificate.Same, "no longer there"},
		{"deleted in the source", func(s sides) { edit(s.src, "1", func(r *desk.Record) { r.Event = desk.Deleted }) }, certificate.Gone, certificate.Same, "deleted"},
		{"merged in the source", func(s sides) { edit(s.src, "1", func(r *desk.Record) { r.Ref.ID = "2" }) }, certificate.Changed, certificate.Same, "merged into 2"},
		{"merged in the target", func(s sides) { edit(s.tgt, "101", func(r *desk.Record) { r.Ref.ID = "102" }) }, certificate.Same, certificate.Changed, "merged into 102"},
		{"twice in the target", func(s sides) { s.tgt.found = []string{"101", "200"} }, certificate.Same, certificate.Differs, "2 times in the target: 101, 200"},
		{"not found by its id any more", func(s sides) { s.tgt.found = nil }, certificate.Same, certificate.Same, ""},
		{"a file of the source that is not given out", func(s sides) {
			s.src.fail = map[string]error{"f": &desk.Error{Op: "open", Class: desk.ErrRejected, Said: "damaged"}}
		}, certificate.Unread, certificate.Same, "damaged"},
		{"read by another account", func(s sides) {
			edit(s.tgt, "101", func(r *desk.Record) {
				r.Entries = append([]desk.Entry(nil), r.Entries...)
				r.Entries[0].Marker = ""
			})
		}, certificate.Same, certificate.Differs, "is this the account"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := fresh()
			l := line(s)
			tc.since(s)
			res, err := certificate.Checker{Source: s.src, Target: s.tgt, Header: h}.Check(t.Context(), l)
			if err != nil || res.Source.State != tc.src || res.Target.State != tc.tgt || res.Same() != (tc.src == certificate.Same && tc.tgt == certificate.Same) {
				t.Errorf("%+v, %v", res, err)
			}
			if said := fmt.Sprint(res.Source.Why, res.Target.Why); !strings.Contains(said, tc.says) || (tc.says == "") != (said == "") {
				t.Errorf("it says %q, want %q", said, tc.says)
			}
		})
	}
	t.Run("twice already when it was certified", func(t *testing.T) {
		s := fresh()
		l := line(s)
		l.Target.Copies, s.tgt.found = 2, []string{"101", "200"}
		if res, err := (certificate.Checker{Source: s.src, Target: s.tgt, Header: h}).Check(t.Context(), l); err != nil || !res.Same() {
			t.Errorf("%+v, %v", res, err)
		}
	})
	t.Run("a desk that does not answer says nothing about the record", func(t *testing.T) {
		s := fresh()
		l := line(s)
		s.tgt.err = &desk.Error{Op: "read", Class: desk.ErrTransient}
		if res, err := (certificate.Checker{Source: s.src, Target: s.tgt, Header: h}).Check(t.Context(), l); err == nil {
			t.Errorf("%+v", res)
		}
	})
}

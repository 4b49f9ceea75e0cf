package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/certificate"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// certified is a bench with one person and n tickets that have been copied and compared, and the certificate of it.
func certified(t *testing.T, n int) (b *bench, cert string) {
	t.Helper()
	b = newBench(t)
	ann := b.add(b.src, desk.Record{Ref: desk.Ref{Kind: desk.Person, ID: "ann"}, Fields: desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}}})
	at := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	for i := range n {
		id, text := fmt.Sprint("t", i), fmt.Sprint("bytes of ", i)
		b.add(b.src, desk.Record{
			Ref: desk.Ref{Kind: desk.Ticket, ID: id}, Fields: desk.Fields{desk.Subject: {fmt.Sprint("subject ", i)}, desk.Status: {"open"}, desk.Requester: {ann}},
			Entries: []desk.Entry{
				{ID: id + "-1", Public: true, At: at, Body: "hello from " + id, Type: "text/plain", Files: []desk.File{{ID: "f", Name: "f.bin", Type: "application/octet-stream", Size: int64(len(text)),
					Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}}},
				{ID: id + "-2", At: at.Add(time.Minute), Body: "a note", Type: "text/plain"},
			},
		})
	}
	b.run(exitDone, "--kind", "full")
	b.run(exitDone, "--kind", "verify")
	cert = filepath.Join(b.dir, "certificate")
	_, errs := b.do(exitDone, "certificate", "--out", cert)
	says(t, errs, fmt.Sprintf("%d records: verified", n+1), "SHA-256")
	return b, cert
}

// inFile changes a file below a folder of the bench that holds old.
func (b *bench) inFile(folder, old, changed string) {
	b.t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(b.dir, folder), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte(old)) {
			n++
			err = os.WriteFile(path, bytes.ReplaceAll(text, []byte(old), []byte(changed)), 0o600)
		}
		return err
	})
	if err != nil || n != 1 {
		b.t.Fatalf("%q is in %d files of %s: %v", old, n, folder, err)
	}
}

// TestCertificate: what is changed behind everybody's back in the files of an archive is found by a check on a machine that has
// nothing but the migration file, by a verification, and is healed by the next delta; then the old certificate holds again.
func TestCertificate(t *testing.T) {
	b, cert := certified(t, 4)
	out, _ := b.do(exitDone, "certificate")
	if text, err := os.ReadFile(cert); err != nil || out != string(text) {
		t.Errorf("standard output and --out differ: %v", err)
	}
	for line := range strings.Lines(out) {
		if err := certificate.Validate([]byte(line)); err != nil {
			t.Errorf("%v\n%s", err, line)
		}
	}
	store := filepath.Join(b.dir, ".deltadesk")
	apart := func(f func()) { // the laptop of somebody who only has the migration file
		t.Helper()
		if err := os.Rename(store, store+".away"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.Rename(store+".away", store); err != nil {
				t.Fatal(err)
			}
		}()
		f()
		if _, err := os.Stat(store); err == nil {
			t.Error("a check makes a store")
		}
	}
	apart(func() {
		out, _ := b.do(exitDone, "check", cert)
		says(t, out, "5 as certified", "verified")
	})
	b.write("elsewhere.yaml", strings.Replace(archives, "folder: new", "folder: copy", 1))
	if err := os.CopyFS(filepath.Join(b.dir, "copy"), os.DirFS(filepath.Join(b.dir, "new"))); err != nil {
		t.Fatal(err)
	}
	_, errs := b.do(exitError, "--config", filepath.Join(b.dir, "elsewhere.yaml"), "check", cert)
	says(t, errs, "the certificate is about the target archive", "copy")
	b.do(exitDone, "--config", filepath.Join(b.dir, "elsewhere.yaml"), "check", cert, "--moved")
	b.inFile("new/records/ticket", "hello from t0", "hellO from t0")
	b.inFile("new/files", "bytes of 1", "bytes oF 1")
	b.inFile("new/records/ticket", `"subject 2"`, `"Subject 2"`)
	b.edit(b.dst, "t3", desk.Fields{desk.Status: {"resolved"}}) // an agent's work
	apart(func() {
		out, _ := b.do(exitExceptions, "check", cert)
		says(t, out, "ticket/t0 differs in the target", "ticket/t1 differs in the target", "ticket/t2 differs in the target", "ticket/t3 changed in the target",
			"1 as certified", "1 changed in the target", "3 differ in the target")
		out, _ = b.do(exitExceptions, "check", cert, "--json", "--workers", "1")
		if got := strings.Split(strings.TrimSpace(out), "\n"); len(got) != 5 || !strings.Contains(got[4], `"same":1,"not_the_same":4`) {
			t.Errorf("as JSON: %s", out)
		}
	})
	found := b.run(exitExceptions, "--kind", "verify", "--heal")
	if found.Counts.Failed != 3 || len(found.Kept) != 1 {
		t.Errorf("%+v %+v", found.Exceptions, found.Kept)
	}
	out, _ = b.do(exitDone, "explain", "t0")
	says(t, out, "next run over scope all: a verification found that it differs")
	for _, x := range found.Exceptions {
		says(t, x.Next, "the next delta over scope all")
	}
	if rep := b.run(exitDone, "--kind", "delta"); rep.Counts.Updated != 3 {
		t.Errorf("%+v", rep.Counts)
	}
	out, _ = b.do(exitDone, "explain", "t0")
	says(t, out, "because: a verification found that it differs", "entry t0-1 revised", "verify       run "+found.Run+" of "+when(found.Started)+": differs: entry t0-1 text")
	again := b.run(exitDone, "--kind", "verify", "--heal")
	out, _ = b.do(exitDone, "explain", "t0")
	says(t, out, "run "+again.Run+" of "+when(again.Started)+": the same on both sides")
	out, _ = b.do(exitDone, "explain", "t3")
	says(t, out, "left as people set it in the target: status")
	if rep := b.run(exitDone, "--kind", "delta"); rep.Counts.Planned != 0 {
		t.Errorf("healed twice: %+v", rep.Counts)
	}
	apart(func() {
		out, _ := b.do(exitExceptions, "check", cert)
		says(t, out, "4 as certified", "1 changed in the target")
	})

	// Without its salt it says nothing to anybody who has not got the salt.
	bare, salt := filepath.Join(b.dir, "bare"), filepath.Join(b.dir, "salt")
	b.do(exitDone, "certificate", "--out", bare, "--salt-out", salt)
	_, errs = b.do(exitError, "check", bare)
	says(t, errs, "without its salt", "--salt")
	b.do(exitDone, "check", bare, "--salt", salt)
	_, errs = b.do(exitError, "check", bare, "--salt", cert)
	says(t, errs, "this is not the salt of the certificate", "nothing was read")
	_, errs = b.do(exitError, "check", cert, "--salt", bare)
	says(t, errs, "this is not the salt of the certificate")

	// One of an earlier version does not say which its salt is.
	text, err := os.ReadFile(bare)
	if err != nil {
		t.Fatal(err)
	}
	older := regexp.MustCompile(`"salt_sha256":"[0-9a-f]{64}",`).ReplaceAllString(string(text), "")
	last := strings.LastIndex(strings.TrimSpace(older), "\n") + 1
	older = older[:last] + regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(older[last:], fmt.Sprintf("%x", sha256.Sum256([]byte(older[:last]))))
	if len(older) >= len(text) {
		t.Fatal("the certificate does not say which its salt is")
	}
	b.write("older", older)
	out, _ = b.do(exitDone, "check", filepath.Join(b.dir, "older"), "--salt", salt)
	says(t, out, "5 as certified")

	// The comparison needs no mapping, so another one is no reason to refuse it.
	b.write("deltadesk.yaml", archives+"mapping: {ticket: [{from: status, to: status, default: open}]}\n")
	out, errs = b.do(exitExceptions, "check", cert)
	says(t, out, "4 as certified", "1 changed in the target")
	says(t, errs, "The mapping is another one now", "does not use it")
}

// One is one, in words as well.
func TestCheckWords(t *testing.T) {
	for _, tc := range []struct {
		sums checked
		t    certificate.Trailer
		want string
	}{
		{checked{Run: "R", Same: 2}, certificate.Trailer{Records: 2, Verdict: "verified", SHA256: "S"},
			"Certificate of run R (verified, 2 records, SHA-256 S): 2 as certified.\n"},
		{checked{Run: "R", NotCompared: 1, Target: map[certificate.State]int{certificate.Differs: 1, certificate.Gone: 2}}, certificate.Trailer{Records: 1, Held: 1, Verdict: "exceptions", SHA256: "S"},
			"Certificate of run R (exceptions, 1 record, SHA-256 S): 0 as certified, 1 differs in the target, 2 gone in the target.\n" +
				"1 record had not been compared when it was made.\n" +
				"1 record was not the same on both sides then: as certified means as it was found, not that both sides agree.\n"},
		{checked{Run: "R", NotCompared: 2, Source: map[certificate.State]int{certificate.Differs: 22}}, certificate.Trailer{Records: 30, Failed: 3, Verdict: "exceptions", SHA256: "S"},
			"Certificate of run R (exceptions, 30 records, SHA-256 S): 0 as certified, 22 differ in the source.\n" +
				"2 records had not been compared when it was made.\n" +
				"3 records were not the same on both sides then: as certified means as they were found, not that both sides agree.\n"},
	} {
		var b strings.Builder
		if err := tc.sums.text(&b, tc.t); err != nil || b.String() != tc.want {
			t.Errorf("got  %s\nwant %s%v", b.String(), tc.want, err)
		}
	}
}

// TestCheckRefuses: a certificate that is damaged, or of something else, is refused before anything is read from a desk.
func TestCheckRefuses(t *testing.T) {
	b, cert := certified(t, 2)
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		do   func(b *bench)
		args []string
		code int
		says []string
	}{
		{"cut short", func(b *bench) { b.write("certificate", string(text[:len(text)-300])) }, nil, exitError, []string{"cut short"}},
		{"tampered with", func(b *bench) { b.write("certificate", strings.Replace(string(text), `"t1"`, `"t0"`, 1)) }, nil, exitError, []string{"was changed"}},
		{"no certificate", func(b *bench) { b.write("certificate", "{}\n") }, nil, exitError, []string{"no certificate"}},
		{"not there", func(b *bench) { os.Remove(filepath.Join(b.dir, "certificate")) }, nil, exitUsage, []string{"certificate"}},
		{"no workers", func(*bench) {}, []string{"--workers", "0"}, exitUsage, []string{"--workers"}},
		{"all that does not fit, at once", func(b *bench) {
			b.write("deltadesk.yaml", strings.NewReplacer("migration: acme", "migration: other", "folder: new,", "folder: elsewhere,").Replace(archives))
		}, nil, exitError, []string{"migration acme", "has other", "target archive", "elsewhere", "nothing was read"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := &bench{t: t, dir: t.TempDir(), src: b.src, dst: b.dst}
			b.write("deltadesk.yaml", strings.NewReplacer("folder: old,", "folder: "+filepath.Join(filepath.Dir(cert), "old")+",", "folder: new,", "folder: "+filepath.Join(filepath.Dir(cert), "new")+",").Replace(archives))
			b.write("certificate", string(text))
			b.do(exitDone, "check", filepath.Join(b.dir, "certificate"))
			if err := os.MkdirAll(filepath.Join(b.dir, "elsewhere"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(b.dir, "elsewhere"), os.DirFS(filepath.Join(filepath.Dir(cert), "new"))); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(b.dir, "old"), os.DirFS(filepath.Join(filepath.Dir(cert), "old"))); err != nil {
				t.Fatal(err)
			}
			tc.do(b)
			_, errs := b.do(tc.code, append([]string{"check", filepath.Join(b.dir, "certificate")}, tc.args...)...)
			says(t, errs, tc.says...)
		})
	}
	_, errs := b.do(exitError, "certificate", "01JD5Y6QZV8J3W3C4N7H2K9M5T")
	says(t, errs, "there is no run")
	rep := b.run(exitDone, "--kind", "delta")
	_, errs = b.do(exitError, "certificate", rep.Run)
	says(t, errs, "is a delta run")
	fresh := newBench(t)
	fresh.add(fresh.src, desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: "1"}, Fields: desk.Fields{desk.Subject: {"one"}}})
	fresh.run(exitDone, "--kind", "full")
	_, errs = fresh.do(exitError, "certificate")
	says(t, errs, "run --kind verify")
	// A check of a target that is not there makes none.
	if err := os.RemoveAll(filepath.Join(b.dir, "new")); err != nil {
		t.Fatal(err)
	}
	b.do(exitError, "check", cert)
	if _, err := os.Stat(filepath.Join(b.dir, "new")); err == nil {
		t.Error("a check makes an archive")
	}
}

// A comparison that was cut off goes on with the same command, and is the one that was asked for: it is not done again.
func TestVerifyGoesOn(t *testing.T) {
	b, _ := certified(t, 30)
	ctx, interrupt := context.WithCancel(t.Context())
	errs := writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("verify run")) {
			interrupt()
		}
		return len(p), nil
	})
	if code := run(ctx, []string{"--config", filepath.Join(b.dir, "deltadesk.yaml"), "run", "--kind", "verify"}, io.Discard, errs); code != exitError {
		t.Fatalf("exit code %d", code)
	}
	_, said := b.do(exitDone, "run", "--kind", "verify")
	says(t, said, "going on")
	if strings.Contains(said, "now the one you asked for") {
		t.Errorf("it is done again: %s", said)
	}
}

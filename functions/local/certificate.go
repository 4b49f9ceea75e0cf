package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/deltadesk/deltadesk/functions/internal/boot"
	"github.com/deltadesk/deltadesk/shared/certificate"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/report"
)

type certificateCmd struct {
	RunID   string `arg:"" name:"run" optional:"" help:"The verify run's id; the newest one that has finished if left out."`
	Out     string `placeholder:"FILE" type:"path" help:"Write the certificate into a file instead of to standard output."`
	SaltOut string `placeholder:"FILE" type:"path" help:"Leave the salt out of the certificate and write it into this file. Such a certificate can be shown to people who must learn nothing of the records; who checks it needs the salt as well."`
}

// Help is shown under the command.
func (certificateCmd) Help() string {
	return `A certificate is a text of JSON lines: what was compared, a line for each record, and at the end the sums and a SHA-256 of all
lines before. It holds ids, versions, counts and digests, never a value.

` + certificate.LimitGuess + `

` + certificate.LimitSigned
}

func (c certificateCmd) Run(a *app) (err error) {
	_, e, done, err := a.look(false)
	if err != nil {
		return err
	}
	defer done()
	r, err := e.Certificate(a.ctx, c.RunID)
	if err != nil {
		return err
	}
	defer r.Close()
	out := a.out
	if c.Out != "" {
		f, err := os.OpenFile(c.Out, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	var t certificate.Trailer
	if c.SaltOut == "" {
		// It is read while it is copied: a damaged one is not handed out as if nothing were.
		_, t, err = certificate.Read(io.TeeReader(r, out), nil)
	} else {
		var salt string
		if salt, t, err = certificate.WithoutSalt(out, r); err == nil {
			err = os.WriteFile(c.SaltOut, []byte(salt+"\n"), 0o600)
		}
	}
	if err != nil {
		return err
	}
	if a.cli.JSON && c.Out != "" { // else standard output has the certificate, which is JSON
		return a.json(t)
	}
	fmt.Fprintf(a.err, "%s: %s. SHA-256 of the lines, to be noted in another place as well: %s\n", report.Records(t.Records), t.Verdict, t.SHA256)
	return nil
}

type checkCmd struct {
	File    string `arg:"" name:"certificate" type:"existingfile" help:"The certificate."`
	Salt    string `placeholder:"FILE" type:"existingfile" help:"The file with its salt, where the certificate was written without."`
	Moved   bool   `help:"The desks have other addresses now (say, a copy of an archive in another folder): do not mind."`
	Workers int    `default:"4" help:"How many records are read at a time."`
}

// Help is shown under the command.
func (checkCmd) Help() string {
	return `Both records that each line names are read again and compared with their digests. Nothing is written anywhere, and no store is
needed: the migration file says where the desks are and which account reads them. Use the account that the migration used where
the target knows the migration's entries by their author.

  same      as certified
  changed   the content is another one, and so is the record's version: somebody has worked on it since
  differs   the content is another one and the version has not moved, or the record is there more often: changed without a trace
  gone      no longer there
  unread    the desk refuses to give all of it out

With --json each record that is not the same is a line, and the sums are the last one.

Exit codes: 0 everything is as certified, 3 something is not, 1 error (nothing is said about what was not read), 2 usage.

` + certificate.LimitSigned
}

// checked are the sums of a check.
type checked struct {
	Run string `json:"run"`
	// Certified is the verdict of the certificate.
	Certified   string `json:"certified"`
	SHA256      string `json:"sha256"`
	Same        int    `json:"same"`
	Other       int    `json:"not_the_same"`
	NotCompared int    `json:"not_compared"` // when the certificate was made
	// Source and Target have the numbers of records by state; those that are the same are left out.
	Source map[certificate.State]int `json:"source"`
	Target map[certificate.State]int `json:"target"`
}

func (c checkCmd) Run(a *app) error {
	if err := atOnce(a, c.Workers); err != nil {
		return err
	}
	f, err := a.load(false)
	if err != nil {
		return err
	}
	cert, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer cert.Close()
	h, t, err := certificate.Read(cert, nil) // all of it, before the first request
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	d, err := f.Desks(a.log, true)
	if err != nil {
		return err
	}
	if err := c.belongs(a, f, d, &h); err != nil {
		return err
	}
	if _, err := cert.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sums := checked{Run: h.Run, Certified: t.Verdict, SHA256: t.SHA256, Source: map[certificate.State]int{}, Target: map[certificate.State]int{}}
	if err := c.all(a, certificate.Checker{Source: d.Source, Target: d.Target, Header: h}, cert, &sums); err != nil {
		return err
	}
	if a.cli.JSON {
		err = json.NewEncoder(a.out).Encode(sums)
	} else {
		err = sums.text(a.out, t)
	}
	if err == nil && sums.Other > 0 {
		err = exit(exitExceptions)
	}
	return err
}

// belongs tells every way in which a certificate is not about the migration of the file, and completes it with its salt.
func (c checkCmd) belongs(a *app, f *boot.File, d boot.Desks, h *certificate.Header) error {
	var bad []error
	for _, x := range []struct {
		what, certified, file string
		may                   bool
	}{
		{"migration", h.Migration, f.Migration.ID, false},
		{"source", h.Source, d.SourceName, c.Moved},
		{"target", h.Target, d.TargetName, c.Moved},
	} {
		if x.certified != x.file && !x.may {
			bad = append(bad, fmt.Errorf("the certificate is about the %s %s, the migration file has %s", x.what, x.certified, x.file))
		}
	}
	switch {
	case h.Salt == "" && c.Salt == "":
		bad = append(bad, errors.New("the certificate was written without its salt: give the file that has it with --salt"))
	case c.Salt != "":
		b, err := os.ReadFile(c.Salt)
		if err != nil {
			bad = append(bad, err)
		}
		if h.Salt = string(bytes.TrimSpace(b)); err == nil && !h.Fits(h.Salt) {
			bad = append(bad, fmt.Errorf("%s: this is not the salt of the certificate", c.Salt))
		}
	}
	if err := errors.Join(bad...); err != nil {
		return fmt.Errorf("nothing was read from the desks: %w", err)
	}
	if h.Mapping != f.Migration.Rules.Hash() {
		fmt.Fprintln(a.err, "The mapping is another one now than when the records were compared. A check does not use it: each desk is held against what it said then.")
	}
	return nil
}

// all checks line by line, several at a time, and writes down what is not as certified as it is found.
func (c checkCmd) all(a *app, ch certificate.Checker, cert io.Reader, sums *checked) error {
	ctx, stop := context.WithCancelCause(a.ctx)
	defer stop(nil)
	lines, results := make(chan certificate.Line), make(chan certificate.Result)
	var wg sync.WaitGroup
	for range c.Workers {
		wg.Go(func() {
			for l := range lines {
				res, err := patiently(ctx, func() (certificate.Result, error) { return ch.Check(ctx, l) })
				if err != nil {
					stop(err)
					return
				}
				select {
				case results <- res:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	notCompared := 0
	go func() {
		_, _, err := certificate.Read(cert, func(_ certificate.Header, l certificate.Line) error {
			if l.Source == nil || l.Target == nil {
				notCompared++
				return nil
			}
			select {
			case lines <- l:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		if err != nil {
			stop(err)
		}
		close(lines)
		wg.Wait()
		close(results)
	}()
	for res := range results {
		if err := sums.add(a, res); err != nil {
			stop(err)
		}
	}
	sums.NotCompared = notCompared
	if a.ctx.Err() != nil {
		return fmt.Errorf("stopped after %s; nothing is said about the others", report.Records(sums.records()))
	}
	return context.Cause(ctx)
}

// patiently tries again where a desk asks for a pause or fails for a moment.
func patiently(ctx context.Context, try func() (certificate.Result, error)) (certificate.Result, error) {
	for n := 1; ; n++ {
		res, err := try()
		if err == nil || n == 5 || !worthWaiting(err) || errors.Is(err, desk.ErrUnauthorized) {
			return res, err
		}
		pause := time.Second << n
		var de *desk.Error
		if errors.As(err, &de) && de.RetryAfter > 0 {
			pause = min(de.RetryAfter, 15*time.Minute)
		}
		if err := rest(ctx, pause); err != nil {
			return res, err
		}
	}
}

// records is how many were checked.
func (s *checked) records() int { return s.Same + s.Other }

func (s *checked) add(a *app, res certificate.Result) error {
	if res.Same() {
		s.Same++
		return nil
	}
	s.Other++
	if a.cli.JSON {
		if err := json.NewEncoder(a.out).Encode(res); err != nil {
			return err
		}
	}
	for _, side := range []struct {
		name  string
		found certificate.Finding
		sums  map[certificate.State]int
	}{{"source", res.Source, s.Source}, {"target", res.Target, s.Target}} {
		if side.found.State == certificate.Same {
			continue
		}
		side.sums[side.found.State]++
		if !a.cli.JSON {
			if _, err := fmt.Fprintf(a.out, "%s %s in the %s: %s\n", res.Record, side.found.State, side.name, side.found.Why); err != nil {
				return err
			}
		}
	}
	return nil
}

// text writes the sums for people.
func (s *checked) text(w io.Writer, t certificate.Trailer) error {
	parts := []string{fmt.Sprintf("%d as certified", s.Same)}
	for _, state := range []certificate.State{certificate.Changed, certificate.Differs, certificate.Gone, certificate.Unread} {
		for _, side := range []struct {
			name string
			sums map[certificate.State]int
		}{{"source", s.Source}, {"target", s.Target}} {
			if n := side.sums[state]; n > 0 {
				word := string(state)
				if state == certificate.Differs {
					word = report.Plural(n, "differs", "differ")
				}
				parts = append(parts, fmt.Sprintf("%d %s in the %s", n, word, side.name))
			}
		}
	}
	_, err := fmt.Fprintf(w, "Certificate of run %s (%s, %s, SHA-256 %s): %s.\n", s.Run, t.Verdict, report.Records(t.Records), t.SHA256, strings.Join(parts, ", "))
	if err == nil && s.NotCompared > 0 {
		_, err = fmt.Fprintf(w, "%s had not been compared when it was made.\n", report.Records(s.NotCompared))
	}
	if n := t.Held + t.Failed; err == nil && n > 0 {
		_, err = fmt.Fprintf(w, "%s %s not the same on both sides then: as certified means as %s found, not that both sides agree.\n",
			report.Records(n), report.Plural(n, "was", "were"), report.Plural(n, "it was", "they were"))
	}
	return err
}

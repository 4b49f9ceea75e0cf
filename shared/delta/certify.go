package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/deltadesk/deltadesk/shared/certificate"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// storeCertificate keeps the certificate of a verification that looked at everything. It is written from the outcomes, a page
// at a time.
func (e *Engine) storeCertificate(ctx context.Context, run Run) error {
	if run.Kind != Verify || run.Dry || run.Status != Verified && run.Status != Exceptions {
		return nil
	}
	pages, err := e.pageRows(ctx, run.ID)
	if err != nil {
		return err
	}
	c := &certifier{e: e, ctx: ctx, run: run, pages: pages}
	if c.w, err = certificate.NewWriter(&c.buf, e.certificateHeader(run)); err != nil {
		return err
	}
	if _, err := e.Objects.Put(ctx, e.certificateKey(run), c); err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("keep the certificate of run %s: %w", run.ID, err)
	}
	return nil
}

func (e *Engine) certificateKey(run Run) string {
	return fmt.Sprintf(reportsPrefix+"%s/%s-%d.certificate.ndjson", e.mig.ID, run.ID, run.Ended.Unix())
}

func (e *Engine) certificateHeader(run Run) certificate.Header {
	h := certificate.Header{
		Migration: e.mig.ID, Run: run.ID, Scope: run.Scope, ScopeDigest: scopeDigest(run.Filter), Config: run.Config, Mapping: e.rules,
		Source: e.SourceID, Target: e.TargetID, Mark: null(run.Until), Started: run.Started, Ended: run.Ended, MaxFile: e.TargetSide.MaxFile,
		Salt: run.Salt, Limits: []string{certificate.LimitGuess, certificate.LimitSigned},
	}
	if e.TargetSide.EntryMarker == "" {
		h.Limits = append(h.Limits, "Entries and their files were not compared: this target cannot show which ones the migration wrote.")
	}
	if _, ok := e.Target.(desk.Finder); !ok {
		h.Limits = append(h.Limits, "Whether a ticket is there twice was not looked at: this target cannot be searched by the source's id.")
	}
	if _, ok := e.Target.(desk.Opener); !ok {
		h.Limits = append(h.Limits, "Files were compared by name and size: this target does not give them out.")
	}
	return h
}

// certifier gives a certificate out while it is written: one page of outcomes is in memory at a time.
type certifier struct {
	e     *Engine
	ctx   context.Context
	run   Run
	pages []pageRow
	buf   bytes.Buffer
	w     *certificate.Writer
	done  bool
}

// Read implements io.Reader.
func (c *certifier) Read(p []byte) (int, error) {
	for c.buf.Len() == 0 {
		if c.done {
			return 0, io.EOF
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	return c.buf.Read(p)
}

func (c *certifier) next() error {
	if len(c.pages) == 0 {
		c.done = true
		_, err := c.w.Close()
		return err
	}
	page := c.pages[0]
	c.pages = c.pages[1:]
	outs, err := finished[outcomeRow](c.ctx, c.e, c.run.ID, page.No)
	if err != nil {
		return err
	}
	for seq := range page.Planned {
		o, ok := outs[seq]
		if !ok {
			return fmt.Errorf("certificate of run %s: entry %d of page %d has no outcome", c.run.ID, seq, page.No)
		}
		l := certificate.Line{Record: o.Ref.String(), Outcome: string(o.Outcome), Reason: o.Reason, Kept: o.Kept}
		if o.Compared != nil {
			l.Source, l.Target, l.Held = o.Compared.Source, o.Compared.Target, o.Compared.Held
		}
		if err := c.w.Add(l); err != nil {
			return err
		}
	}
	return nil
}

// Certificate opens the certificate of a verify run; of the newest one that has finished, if id is empty.
func (e *Engine) Certificate(ctx context.Context, id string) (io.ReadCloser, error) {
	var run Run
	if id != "" {
		var err error
		if run, err = e.run(ctx, id); err != nil {
			return nil, err
		}
		switch {
		case run.Kind != Verify || run.Dry:
			return nil, refuse("run %s is a %s run: certificates are made by verify runs", id, run.Kind)
		case run.Status != Verified && run.Status != Exceptions:
			return nil, refuse("verify run %s is %s: it has not looked at everything, so there is no certificate", id, run.Status)
		}
	} else if err := e.each(ctx, e.runsPart(), "", func(r Row) error {
		x, err := decode[Run](r)
		if x.Kind == Verify && !x.Dry && (x.Status == Verified || x.Status == Exceptions) {
			run = x
		}
		return err
	}); err != nil {
		return nil, err
	}
	if run.ID == "" {
		return nil, refuse("no verify run has finished yet. First: deltadesk run --kind verify")
	}
	r, _, err := e.Objects.Open(ctx, e.certificateKey(run))
	if errors.Is(err, ErrNoObject) {
		return nil, refuse("the certificate of run %s is not in the store (any more). Compare again: deltadesk run --kind verify --scope %s", run.ID, run.Scope)
	}
	if err != nil {
		return nil, fmt.Errorf("open the certificate of run %s: %w", run.ID, err)
	}
	return r, nil
}

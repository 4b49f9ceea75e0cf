// Package desktest is the conformance suite of connectors: what the contract in shared/desk promises, as rules that a
// desk is put through. A connector's test calls Run in about fifteen lines.
//
// Rules have names such as "source/resume"; each is a subtest. Rules share one desk and bring their own records, so the
// desk need not be empty, and nothing is cleaned up. A rule reports through T, so that this package's own test can show
// that each one fails on a desk that breaks it.
//
//	func TestConformance(t *testing.T) {
//		desktest.Run(t, desktest.Options{
//			Connector: Connector,
//			Source:    desk.Config{"url": srcURL, "token": token, "page_size": "5"},
//			Target:    desk.Config{"url": tgtURL, "token": token},
//			Seed:      seed{src}, TargetSeed: seed{tgt.as("somebody else")},
//			Ticket:    desk.Fields{desk.Group: {"Support"}, desk.Status: {"open"}},
//			Update:    desk.Fields{desk.Status: {"resolved"}},
//			Secrets:   []string{token},
//			Skip:      map[string]string{"source/merge": "tickets cannot be merged, see https://vendor.example/doc"},
//		})
//	}
package desktest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Options say what is put through the suite.
type Options struct {
	Connector desk.Connector
	// Source and Target are the settings of the two sides. A nil one leaves that side out, as does a nil constructor.
	Source, Target desk.Config
	// Deps go to every constructor. HTTP is the client that reaches the desk, nil means http.DefaultClient; the suite puts
	// its transports around that client's. Migration is "desktest" if empty.
	Deps desk.Deps
	// NoHTTP: the connector makes no HTTP requests, so the rules that meddle with them do not apply.
	NoHTTP bool

	// Seed works on the source desk as the people there do. Required for the source side.
	Seed Seed
	// TargetSeed works on the target desk, as another person than the target's account.
	TargetSeed Seed
	// Other are settings of a source like Source on another desk, whose cursors Source must refuse.
	Other desk.Config
	// Reset, if set, empties the source desk of tickets. It is called once, before everything else.
	Reset func(ctx context.Context) error
	// Fingerprint, if set, tells about the source desk's whole content in a few bytes.
	Fingerprint func(ctx context.Context) (string, error)

	// Mails, if set, tells how many mails the target desk has sent so far.
	Mails func(ctx context.Context) (int, error)
	// NewFields: the target makes a custom field when it is written first, so it need not be defined before.
	NewFields bool

	// PageSize is how many records Source puts on a page; set the connector's option to something small. Default 5.
	PageSize int
	// Ticket holds what a ticket needs on the target beyond subject and requester (a group, perhaps), and any other fields
	// that are to be proven; Update holds other values for some of those fields, so that Apply is proven too. Person is the same for people,
	// beyond name and email.
	Ticket, Update, Person desk.Fields

	// Skip maps a rule to the reason why this desk cannot keep it. The reason must hold an https:// link to the vendor's
	// document that says so.
	Skip map[string]string
	// Secrets must not occur in the text of any error.
	Secrets []string
}

// Seed makes and changes a desk's records behind the connector's back. Whatever it cannot do is an error, and fails the
// rule that asked for it; Options.Skip is the way out.
type Seed interface {
	// Create makes a person (fields Name, Email) or a ticket (fields Subject, Requester: a person that Create made) with
	// entries: Public, Body, Type and Files (Name, Type, Open). Times, authors and other fields are the desk's own choice.
	Create(ctx context.Context, r desk.Record) (desk.Ref, error)
	// Change sets fields out of those of Create, and adds entries.
	Change(ctx context.Context, ref desk.Ref, c desk.Change) error
	// Delete deletes a ticket.
	Delete(ctx context.Context, ref desk.Ref) error
	// Merge merges ticket from into ticket into.
	Merge(ctx context.Context, from, into desk.Ref) error
}

// T is what a rule reports to. *testing.T is one.
type T interface {
	Helper()
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	// Skipf ends the rule because the desk lacks the capability that it is about.
	Skipf(format string, args ...any)
}

// rule is one promise.
type rule struct {
	name string
	// needs tells why the rule cannot be tried: missing is a hook that Options lacks, lacks a capability or trait that the
	// desk does not have.
	needs func(e *env) (missing, lacks string)
	run   func(t T, e *env)
}

func rules() []rule { return slices.Concat(sourceRules(), targetRules(), errorRules()) }

// Rules returns the names of all rules, as Options.Skip takes them.
func Rules() []string {
	var names []string
	for _, r := range rules() {
		names = append(names, r.name)
	}
	return names
}

// Run puts a connector through the suite, each rule in a subtest of its name. With DESKTEST_NO_SKIP=1 in the environment a
// rule that is skipped because Options lacks a hook fails.
func Run(t *testing.T, o Options) {
	t.Helper()
	for _, err := range faults(o) {
		t.Error(err)
	}
	e := newEnv(o)
	if o.Reset != nil && e.hasSource() {
		if err := o.Reset(t.Context()); err != nil {
			t.Fatalf("emptying the source desk: %v", err)
		}
	}
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			if reason, ok := o.Skip[r.name]; ok {
				t.Skip("the vendor says no: " + reason)
			}
			missing, lacks := r.needs(e)
			switch {
			case lacks != "":
				t.Skip("not on this desk: " + lacks)
			case missing != "" && os.Getenv("DESKTEST_NO_SKIP") == "1":
				t.Fatal("cannot be tried without Options." + missing)
			case missing != "":
				t.Skip("set Options." + missing + " to try this")
			}
			r.run(t, e)
		})
	}
}

// faults tells what is wrong with the options.
func faults(o Options) []error {
	var errs []error
	known := Rules()
	for name, reason := range o.Skip {
		if !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("Options.Skip names %q, which is no rule", name))
		}
		if !strings.Contains(reason, "https://") {
			errs = append(errs, fmt.Errorf("Options.Skip[%q] does not link the vendor's document (https://...) that says the desk cannot", name))
		}
	}
	e := &env{o: o}
	if !e.hasSource() && !e.hasTarget() {
		errs = append(errs, errors.New("Options name neither a source nor a target side"))
	}
	if e.hasSource() && o.Seed == nil {
		errs = append(errs, errors.New("Options.Seed is required to try the source side"))
	}
	return errs
}

// transport puts the suite's meddling around the transport that reaches the desk.
type transport func(base http.RoundTripper) http.RoundTripper

func (e *env) deps(wrap transport) desk.Deps {
	d := e.o.Deps
	if d.Migration == "" {
		d.Migration = "desktest"
	}
	client := http.Client{}
	if d.HTTP != nil {
		client = *d.HTTP
	}
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	if wrap != nil {
		client.Transport = wrap(client.Transport)
	}
	d.HTTP = &client
	return d
}

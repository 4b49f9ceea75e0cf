//go:build aws

package delta_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/awsstore/awstest"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// TestCrashAWS cuts a small migration off at every effect while its state is in DynamoDB and S3: before every other one and
// after those between, a third of them a second time soon after, with messages in disorder. Every process opens the store
// anew and knows nothing of the others, as functions do.
func TestCrashAWS(t *testing.T) {
	cfg := awstest.AWS(t)
	play := func(disorder uint64, cuts ...deltatest.Cut) (*deltatest.World, error) {
		w := crashWorld(false, disorder, cuts, false)
		stack := awstest.Stack(t, cfg)
		w.Ports = func() (delta.Rows, delta.Objects) {
			s := awstest.Open(t, cfg, stack)
			return s.Rows(), s.Objects()
		}
		return w, playSmall(w)
	}
	calm, err := play(0)
	if err != nil {
		t.Fatal(err)
	}
	want, n, violations := calm.Target.Look(), calm.Effects.Count(), 0
	for i := 1; i <= n && violations < 3; i++ {
		disorder, cuts := uint64(0), []deltatest.Cut{{Effect: i, After: i%2 == 0}}
		if i%3 == 0 {
			disorder, cuts = uint64(i), append(cuts, deltatest.Cut{Effect: i + 1 + i%11, After: i%2 != 0})
		}
		w, err := play(disorder, cuts...)
		if d := cmp.Diff(want, w.Target.Look()); d != "" && err == nil {
			err = fmt.Errorf("another end (-undisturbed +this):\n%s", d)
		}
		if err != nil {
			violations++
			t.Errorf("cut %v (%s): %v", cuts, name(w.Effects, cuts), err)
		}
	}
	t.Logf("crash explorer over AWS: effects=%d violations=%d", n, violations)
}

// playSmall is a full run and a delta with a file, a conflict that is held and decided, and a second delta that carries it out.
func playSmall(w *deltatest.World) error {
	ann := w.Source.Add(desk.Person, desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}})
	author := desk.Author{ID: ann, Name: "Ann"}
	a := w.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"a"}, desk.Status: {"open"}, desk.Requester: {ann}})
	w.Source.Say(a, true, author, "it burns", map[string][]byte{"a.bin": {1, 2, 3}})
	w.Wait(time.Hour)
	run := func(q delta.Request) error {
		r, err := w.Run(q, nil)
		if err == nil && r.Status != delta.Verified && r.Status != delta.Exceptions {
			err = fmt.Errorf("run %s ended %s: %s", r.ID, r.Status, r.Why)
		}
		return err
	}
	if err := run(delta.Request{Kind: delta.Full, Scope: "all"}); err != nil {
		return err
	}
	w.Until(time.Date(2026, 3, 11, 9, 0, 0, 0, time.UTC))
	w.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}})
	w.Target.Edit(ticket(w.Target.Target(ticket(a))), desk.Fields{desk.Status: {"resolved"}})
	w.Source.Say(a, true, author, "still", map[string][]byte{"b.bin": {4}})
	w.Wait(time.Hour)
	if err := run(delta.Request{Kind: delta.Delta, Window: "main"}); err != nil {
		return err
	}
	if err := w.Do(func(e *delta.Engine) error {
		return e.Decide(context.Background(), ticket(a), desk.Status, "", delta.Decision{Choice: delta.ChooseSource})
	}); err != nil {
		return err
	}
	w.Wait(time.Hour)
	return run(delta.Request{Kind: delta.Delta, Window: "main"})
}

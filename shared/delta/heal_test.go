package delta_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/certificate"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
	"github.com/deltadesk/deltadesk/shared/report"
)

// healing is a small migration whose first ticket, mail, is about to be harmed.
type healing struct {
	t *testing.T
	w *deltatest.World
	s *script
	// mail in the source and in the target
	src, tgt desk.Ref
	runs     []string
}

func newHealing(t *testing.T, prepare func(*deltatest.World)) *healing {
	t.Helper()
	w := world(t)
	if prepare != nil {
		prepare(w)
	}
	h := &healing{t: t, w: w, s: seed(w)}
	full(t, w)
	run(t, w, mainDelta)
	h.src = ticket(h.s.mail)
	h.tgt = ticket(w.Target.Target(h.src))
	w.Wait(time.Hour)
	return h
}

func (h *healing) verify(heal bool) report.Report {
	h.t.Helper()
	h.w.Wait(time.Minute)
	return reportOf(h.t, h.w, run(h.t, h.w, delta.Request{Kind: delta.Verify, Scope: "all", Heal: heal}).ID)
}

func (h *healing) delta() report.Report {
	h.t.Helper()
	h.w.Wait(time.Minute)
	return reportOf(h.t, h.w, run(h.t, h.w, mainDelta).ID)
}

// certificate returns the one of the last verification; every line follows the schema.
func (h *healing) certificate() []byte {
	h.t.Helper()
	r, err := h.w.Engine().Certificate(ctx, "")
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if err := certificate.Validate(line); err != nil {
			h.t.Errorf("%v\n%s", err, line)
		}
	}
	return b
}

// check compares both desks with a certificate, as somebody who has neither ledger nor store, and returns what is not as
// certified.
func (h *healing) check(cert []byte) []certificate.Result {
	h.t.Helper()
	var out []certificate.Result
	if _, _, err := certificate.Read(bytes.NewReader(cert), func(head certificate.Header, l certificate.Line) error {
		if l.Source == nil {
			return nil
		}
		c := certificate.Checker{Source: h.w.Source.AsSource(), Target: h.w.Target.AsTarget(), Header: head}
		res, err := c.Check(ctx, l)
		if !res.Same() {
			out = append(out, res)
		}
		return err
	}); err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *healing) found(rep report.Report, outcome, says string) {
	h.t.Helper()
	if len(rep.Exceptions) != 1 || rep.Exceptions[0].Outcome != outcome || rep.Exceptions[0].Record != h.src.String() || !strings.Contains(rep.Exceptions[0].Reason, says) {
		h.t.Fatalf("exceptions %+v; want one, %s, that says %q", rep.Exceptions, outcome, says)
	}
}

func (h *healing) clean(rep report.Report) {
	h.t.Helper()
	if len(rep.Exceptions) > 0 || rep.Status != string(delta.Verified) {
		h.t.Errorf("%s, exceptions %+v; want none", rep.Status, rep.Exceptions)
	}
}

// TestHeal plants every harm there is behind everybody's back. Each is found by a verification and by a check of an older
// certificate; one verification with --heal and one delta heal it where the target can, and hold it where it cannot; what only
// people can mend is said, and makes nothing due; doing it again changes nothing.
func TestHeal(t *testing.T) {
	const healed, held, hand = "healed", "held", "hand"
	for _, tc := range []struct {
		name         string
		harm         deltatest.Harm
		says         string
		state        certificate.State
		plain, revis string // what comes of it in a target that cannot revise entries, and in one that can
	}{
		{"a file's byte", deltatest.FileByte, "file ", certificate.Differs, held, healed},
		{"visibility", deltatest.Visibility, "visibility", certificate.Differs, held, healed},
		{"text", deltatest.Body, "text", certificate.Differs, held, healed},
		{"an entry's time", deltatest.EntryTime, "time", certificate.Differs, hand, hand},
		{"an entry's subject", deltatest.EntrySubject, "subject", certificate.Differs, held, healed},
		{"a lost entry", deltatest.LoseEntry, "is missing", certificate.Differs, healed, healed},
		{"an entry twice", deltatest.RepeatEntry, "twice", certificate.Differs, hand, hand},
		{"entries that changed places", deltatest.SwapEntries, "order of entries", certificate.Differs, hand, hand},
		{"a field", deltatest.FieldValue, "subject (changed in the target without a trace)", certificate.Differs, healed, healed},
		{"the ticket twice", deltatest.Double, "2 times in the target", certificate.Differs, hand, hand},
		{"the ticket gone", deltatest.Vanish, "no longer in the target", certificate.Gone, held, held},
	} {
		for _, revises := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, revises=%v", tc.name, revises), func(t *testing.T) {
				comes := tc.plain
				if revises {
					comes = tc.revis
				}
				h := newHealing(t, func(w *deltatest.World) { w.Target.NoReviser = !revises })
				h.clean(h.verify(false))
				cert := h.certificate()
				if got := h.check(cert); len(got) > 0 {
					t.Fatalf("nothing has happened, and the check finds %+v", got)
				}
				sound, writes := h.w.Target.Look(), h.w.Target.Writes()
				h.w.Target.Damage(h.tgt.ID, tc.harm)
				harmed := h.w.Target.Look()
				if got := h.check(cert); len(got) != 1 || got[0].Target.State != tc.state || got[0].Source.State != certificate.Same {
					t.Errorf("the check finds %+v; want %s in the target", got, tc.state)
				}
				h.found(h.verify(false), "failed", tc.says)
				if rep := h.delta(); rep.Counts.Planned > 0 {
					t.Errorf("a verification without --heal made %d due", rep.Counts.Planned)
				}
				found := h.verify(true)
				h.found(found, "failed", tc.says)
				if next := found.Exceptions[0].Next; strings.Contains(next, "by hand") != (comes == hand) {
					t.Errorf("what happens next: %s", next)
				}
				if got := h.w.Target.Writes(); got != writes {
					t.Errorf("verifications wrote %d times", got-writes)
				}
				rep := h.delta()
				want, writesNow := sound, h.w.Target.Writes()
				switch comes {
				case healed:
					if rep.Counts.Updated != 1 {
						t.Errorf("the delta: %+v", rep.Counts)
					}
					if got := h.check(cert); len(got) > 0 {
						t.Errorf("healed, and the check finds %+v", got)
					}
					h.clean(h.verify(true))
					h.clean(h.delta())
				case held:
					want = harmed
					h.found(rep, "held", "")
					if writesNow != writes {
						t.Errorf("%d writes for what is held", writesNow-writes)
					}
					h.found(h.verify(true), "held", "")
					h.found(h.delta(), "held", "") // asked, and asked only
				case hand:
					want = harmed
					if rep.Counts.Planned > 0 {
						t.Errorf("what no run can mend made %d due", rep.Counts.Planned)
					}
					h.found(h.verify(true), "failed", tc.says)
				}
				if d := cmp.Diff(want, h.w.Target.Look()); d != "" {
					t.Errorf("target (-want +got):\n%s", d)
				}
				if got := h.w.Target.Writes(); got != writesNow {
					t.Errorf("healing again wrote %d times", got-writesNow)
				}
			})
		}
	}
}

// What is held for a person comes to an end, whatever they say.
func TestHealDecided(t *testing.T) {
	decide := func(h *healing, entry string, d delta.Decision) {
		h.t.Helper()
		if err := h.w.Engine().Decide(ctx, h.src, "", entry, d); err != nil {
			h.t.Fatal(err)
		}
	}
	nth := func(h *healing, i int) string {
		h.t.Helper()
		rec, err := h.w.Source.AsSource().Read(ctx, h.src)
		if err != nil {
			h.t.Fatal(err)
		}
		return rec.Entries[i].ID
	}
	// An agent has worked on the ticket: perhaps on the entry.
	heal := func(h *healing, harm deltatest.Harm) {
		h.t.Helper()
		h.w.Target.Damage(h.tgt.ID, harm)
		h.w.Target.Edit(h.tgt, desk.Fields{desk.Tags: {"seen"}})
		h.verify(true)
		h.found(h.delta(), "held", "it is open who")
	}
	for name, tc := range map[string]struct {
		harm  deltatest.Harm
		entry int
	}{
		"text": {deltatest.Body, 0}, "file": {deltatest.FileByte, 0}, "visibility": {deltatest.Visibility, 0}, "lost": {deltatest.LoseEntry, 1},
	} {
		t.Run("left as it is: "+name, func(t *testing.T) {
			h := newHealing(t, nil)
			heal(h, tc.harm)
			harmed := h.w.Target.Look()
			decide(h, nth(h, tc.entry), delta.Decision{Choice: delta.ChooseTarget})
			h.clean(h.delta())
			rep := h.verify(true)
			h.clean(rep)
			if len(rep.Kept) != 1 || !slices.Contains(rep.Kept[0].Fields, "entry "+nth(h, tc.entry)) {
				t.Errorf("kept %+v: what was accepted is still to be seen", rep.Kept)
			}
			h.clean(h.delta())
			if d := cmp.Diff(harmed, h.w.Target.Look()); d != "" {
				t.Errorf("target (-want +got):\n%s", d)
			}
		})
		t.Run("the source's: "+name, func(t *testing.T) {
			h := newHealing(t, nil)
			sound := h.w.Target.Look()
			heal(h, tc.harm)
			decide(h, nth(h, tc.entry), delta.Decision{Choice: delta.ChooseSource})
			if rep := h.delta(); rep.Counts.Updated != 1 {
				t.Errorf("%+v", rep.Counts)
			}
			h.clean(h.verify(true))
			got, want := h.w.Target.Look()[h.src.String()][0], sound[h.src.String()][0]
			if d := cmp.Diff(want.Entries, got.Entries) + cmp.Diff(want.Files, got.Files); d != "" {
				t.Errorf("thread (-want +got):\n%s", d)
			}
		})
		t.Run("asked until it is decided: "+name, func(t *testing.T) {
			h := newHealing(t, nil)
			heal(h, tc.harm)
			writes := h.w.Target.Writes()
			for range 2 { // also where the ticket is carried out for another reason
				h.w.Source.Edit(h.src, desk.Fields{desk.Priority: {fmt.Sprint(h.w.Target.Writes())}})
				h.w.Wait(time.Hour)
				h.found(h.delta(), "held", "it is open who")
			}
			if got := h.w.Target.Writes(); got != writes+2 {
				t.Errorf("%d writes, want two for the field", got-writes)
			}
		})
	}
	t.Run("gone, and the policy says to make it again", func(t *testing.T) {
		h := newHealing(t, func(w *deltatest.World) { w.Migration.OnTargetGone = delta.RecreateGone })
		sound := h.w.Target.Look()
		h.w.Target.Damage(h.tgt.ID, deltatest.Vanish)
		h.verify(true)
		h.clean(h.delta())
		h.clean(h.verify(true))
		if d := cmp.Diff(sound[h.src.String()], h.w.Target.Look()[h.src.String()]); d != "" {
			t.Errorf("target (-want +got):\n%s", d)
		}
	})
	t.Run("gone, and the policy says to leave it", func(t *testing.T) {
		h := newHealing(t, func(w *deltatest.World) { w.Migration.OnTargetGone = delta.IgnoreGone })
		h.w.Target.Damage(h.tgt.ID, deltatest.Vanish)
		rep := h.verify(true)
		h.clean(rep)
		if rep.Excluded["deleted in the target"] != 1 {
			t.Errorf("excluded %v", rep.Excluded)
		}
	})
}

// Nothing of people's work is a difference, and healing leaves it alone: fields they changed (also before the last push),
// unset, and changed on both sides; their entries; entries that they changed, as long as nobody decides.
func TestHealLeavesPeopleAlone(t *testing.T) {
	for _, touched := range []bool{false, true} {
		t.Run(fmt.Sprintf("tells who touched a field: %v", touched), func(t *testing.T) {
			h := newHealing(t, func(w *deltatest.World) { w.Target.TellsTouched = touched })
			h.verify(false)
			cert := h.certificate()
			h.w.Target.Edit(h.tgt, desk.Fields{desk.Subject: {"an agent's better one"}, desk.Priority: nil})
			h.w.Target.Say(h.tgt.ID, true, desk.Author{Name: "agent"}, "an agent's reply", map[string][]byte{"x": {1}})
			// The ticket is pushed once more: our lock is now younger than the agent's work.
			h.w.Source.Say(h.s.mail, true, desk.Author{Name: "Ann"}, "more", nil)
			h.w.Wait(time.Hour)
			h.clean(h.delta())
			h.w.Target.Edit(ticket(h.w.Target.Target(ticket(h.s.conflict))), desk.Fields{desk.Status: {"resolved"}})
			h.w.Source.Edit(ticket(h.s.conflict), desk.Fields{desk.Status: {"stalled"}})
			h.w.Wait(time.Hour)
			h.delta()
			peoples, writes := h.w.Target.Look(), h.w.Target.Writes()
			rep := h.verify(true)
			if rep.Counts.Failed != 0 || rep.Counts.Held != 1 || !strings.Contains(rep.Exceptions[0].Reason, "held: status") {
				t.Errorf("%+v", rep.Exceptions)
			}
			if d := cmp.Diff([]report.Kept{{Record: h.src.String(), Fields: []string{"priority", "subject"}}}, rep.Kept); d != "" {
				t.Errorf("kept (-want +got):\n%s", d)
			}
			h.delta()
			if d := cmp.Diff(peoples, h.w.Target.Look()); d != "" || h.w.Target.Writes() != writes {
				t.Errorf("%d writes; target (-want +got):\n%s", h.w.Target.Writes()-writes, d)
			}
			for _, res := range h.check(cert) {
				if res.Target.State == certificate.Differs || res.Source.State == certificate.Differs {
					t.Errorf("people's work is no corruption: %+v", res)
				}
			}
			// A person redacts an entry of ours: nobody writes over it until somebody says so.
			h.w.Target.Damage(h.tgt.ID, deltatest.Body)
			h.w.Target.Edit(h.tgt, desk.Fields{desk.Tags: {"redacted"}})
			peoples, writes = h.w.Target.Look(), h.w.Target.Writes()
			h.verify(true)
			if rep := h.delta(); rep.Counts.Held != 2 {
				t.Errorf("%+v", rep.Exceptions)
			}
			if d := cmp.Diff(peoples, h.w.Target.Look()); d != "" || h.w.Target.Writes() != writes {
				t.Errorf("%d writes; target (-want +got):\n%s", h.w.Target.Writes()-writes, d)
			}
			// Also not when the ticket is pushed for another reason in between, which makes our lock the youngest again.
			h.w.Source.Say(h.s.mail, true, desk.Author{Name: "Ann"}, "and more", nil)
			h.w.Wait(time.Hour)
			h.delta()
			h.verify(true)
			h.delta()
			if got := h.w.Target.Look()[h.src.String()][0].Entries[0]; !strings.HasSuffix(got, "!") {
				t.Errorf("the redacted entry is %q", got)
			}
		})
	}
}

// A value that a decision left to the target cannot be brought back when it is lost: that is for people to say.
func TestHealKeptValue(t *testing.T) {
	h := newHealing(t, nil)
	subject := func(choice delta.Choice) {
		t.Helper()
		if err := h.w.Engine().Decide(ctx, h.src, desk.Subject, "", delta.Decision{Choice: choice, Value: desk.Value{"an agent's better one"}}); err != nil {
			t.Fatal(err)
		}
		h.clean(h.delta())
	}
	h.w.Target.Edit(h.tgt, desk.Fields{desk.Subject: {"an agent's better one"}})
	h.w.Source.Edit(h.src, desk.Fields{desk.Subject: {"the source's better one"}})
	h.w.Wait(time.Hour)
	h.found(h.delta(), "held", "subject")
	subject(delta.ChooseTarget)
	h.clean(h.verify(true))
	h.w.Target.Damage(h.tgt.ID, deltatest.FieldValue)
	h.found(h.verify(true), "failed", "subject (changed in the target without a trace)")
	h.found(h.delta(), "held", "subject")
	h.found(h.verify(true), "held", "subject")
	h.found(h.delta(), "held", "subject")
	subject(delta.ChooseValue)
	h.clean(h.verify(true))
	if got := h.w.Target.Look()[h.src.String()][0].Fields[desk.Subject]; got != "[an agent's better one]" {
		t.Errorf("subject %s", got)
	}
}

// A healed entry stands at the end of the thread: that is where it can be, and no difference any more.
func TestHealOrder(t *testing.T) {
	h := newHealing(t, nil)
	h.w.Target.Damage(h.tgt.ID, deltatest.SwapEntries)
	h.w.Target.Damage(h.tgt.ID, deltatest.LoseEntry) // now the first one is lost
	h.found(h.verify(true), "failed", "is missing")
	h.clean(h.delta())
	if got := h.w.Target.Look()[h.src.String()][0].Entries; len(got) != 2 || !strings.HasSuffix(got[1], "it burns") {
		t.Fatalf("entries %q", got)
	}
	h.clean(h.verify(true))
	h.clean(h.delta())
}

// A long thread spills into rows of its own; an entry that is lost from one of them is added again once, at the price of a
// comparison that grows with the thread and not with its square.
func TestHealLongThread(t *testing.T) {
	w := world(t)
	id := addTicket(w, "long")
	for i := range 400 {
		w.Source.Say(id, i%2 == 0, desk.Author{Name: "Ann"}, fmt.Sprint("entry ", i), nil)
	}
	full(t, w)
	w.Wait(time.Hour)
	h := &healing{t: t, w: w, src: ticket(id), tgt: ticket(w.Target.Target(ticket(id)))}
	h.w.Target.Damage(h.tgt.ID, deltatest.SwapEntries)
	h.w.Target.Damage(h.tgt.ID, deltatest.LoseEntry)
	h.found(h.verify(true), "failed", "is missing, order of entries")
	h.delta()
	if got := len(w.Target.Look()[h.src.String()][0].Entries); got != 400 {
		t.Errorf("%d entries", got)
	}
	h.found(h.verify(true), "failed", "differs: order of entries")
}

// Cut off before and after every effect of a verification that heals and of the delta that follows: the end is always the
// same, and nothing is there twice.
func TestHealCutOff(t *testing.T) {
	play := func(cuts []deltatest.Cut) (*healing, error) {
		h := newHealing(t, nil)
		other := ticket(h.w.Target.Target(ticket(h.s.survivor)))
		third := ticket(h.w.Target.Target(ticket(h.s.absorbed)))
		h.w.Target.Damage(h.tgt.ID, deltatest.SwapEntries)
		h.w.Target.Damage(h.tgt.ID, deltatest.LoseEntry) // so the first one is lost, and comes back behind the second
		h.w.Target.Damage(other.ID, deltatest.Body)
		h.w.Target.Damage(third.ID, deltatest.Vanish)
		base := h.w.Effects.Count()
		for i := range cuts {
			cuts[i].Effect += base
		}
		h.w.Effects.Cuts = cuts
		for _, q := range []delta.Request{{Kind: delta.Verify, Scope: "all", Heal: true}, mainDelta, {Kind: delta.Verify, Scope: "all"}} {
			h.w.Wait(time.Hour)
			r, err := h.w.Run(q, nil)
			if err != nil {
				return h, fmt.Errorf("%s run: %w", q.Kind, err)
			}
			if q.Kind == delta.Verify {
				h.runs = append(h.runs, r.ID)
			}
			if q.Kind == delta.Verify && !q.Heal {
				rep := reportOf(t, h.w, r.ID)
				if rep.Counts.Failed != 0 || rep.Counts.Held != 1 {
					return h, fmt.Errorf("in the end: %+v", rep.Exceptions)
				}
			}
		}
		return h, nil
	}
	calm, err := play(nil)
	if err != nil {
		t.Fatal(err)
	}
	want, n := calm.w.Target.Look(), calm.w.Effects.Count()
	calmStart := newHealing(t, nil).w.Effects.Count()
	stride := max(1, *crashStride/8)
	if testing.Short() {
		stride = 5
	}
	for i := 1; i <= n-calmStart; i += stride {
		for _, after := range []bool{false, true} {
			h, err := play([]deltatest.Cut{{Effect: i, After: after}})
			if err == nil {
				if d := cmp.Diff(want, h.w.Target.Look()); d != "" {
					err = fmt.Errorf("another end (-undisturbed +this):\n%s", d)
				}
			}
			if err != nil {
				t.Fatalf("cut at effect %d of the healing (after: %v, %s): %v", i, after, h.w.Effects.Names[min(i+calmStart, len(h.w.Effects.Names))-1], err)
			}
			for _, r := range h.runs { // whatever was cut off, each comparison has its certificate
				cert, err := h.w.Engine().Certificate(ctx, r)
				if err != nil {
					t.Fatal(err)
				}
				if _, sums, err := certificate.Read(cert, nil); err != nil || sums.Records != reportOf(t, h.w, r).Counts.Planned {
					t.Errorf("cut at effect %d: certificate %+v, %v", i, sums, err)
				}
			}
		}
	}
}

// The target is read by another account, so that no entry shows as ours: each is there, none is lost, none is added again.
func TestHealAnotherAccount(t *testing.T) {
	h := newHealing(t, nil)
	play := own(t, h.w, h.w.Source.AsSource(), h.w.Target.AsTarget())
	writes := h.w.Target.Writes()
	h.w.Target.NoMarkers = true
	r, err := play(delta.Request{Kind: delta.Verify, Scope: "all", Heal: true})
	if err != nil {
		t.Fatal(err)
	}
	rep := reportOf(t, h.w, r.ID)
	if rep.Counts.Failed == 0 || !strings.Contains(rep.Exceptions[0].Reason, "was the target's account changed?") {
		t.Fatalf("%+v", rep.Exceptions)
	}
	if _, err = play(mainDelta); err != nil {
		t.Fatal(err)
	}
	if h.w.Target.Writes() != writes {
		t.Errorf("%d writes", h.w.Target.Writes()-writes)
	}
	h.w.Target.NoMarkers = false // and the right account again
	if r, err = play(mainDelta); err != nil || r.Status != delta.Verified {
		t.Errorf("%s, %v", r.Status, err)
	}
	h.clean(h.verify(false))
}

// The answer to the write that heals gets lost: the entry is not added a second time.
func TestHealLostAnswer(t *testing.T) {
	h := newHealing(t, nil)
	sound := h.w.Target.Look()
	h.w.Target.Damage(h.tgt.ID, deltatest.LoseEntry)
	h.verify(true)
	n := 0
	h.w.Target.Lose = func(op string, ref desk.Ref) error {
		if n++; op == "apply" && n < 3 {
			return &desk.Error{Op: op, Class: desk.ErrTransient}
		}
		return nil
	}
	h.clean(h.delta())
	if d := cmp.Diff(sound, h.w.Target.Look()); d != "" || n == 0 {
		t.Errorf("%d writes; target (-want +got):\n%s", n, d)
	}
	h.clean(h.verify(true))
}

// A target that shows late what was written: what does not show before that time is up is not lost, and is looked at again.
func TestHealWaitsForLag(t *testing.T) {
	h := newHealing(t, nil)
	q, n := &sliceQueue{}, 0
	side := h.w.Target.Traits()
	side.ListLag = 24 * time.Hour
	e, err := delta.New(delta.Config{Migration: h.w.Migration, SourceID: "old", TargetID: "new", Source: h.w.Source.AsSource(), Target: h.w.Target.AsTarget(),
		SourceSide: h.w.Source.Traits(), TargetSide: side, Rows: h.w.Store.Rows(), Objects: h.w.Store.Objects(), Queue: q,
		Now: h.w.Clock, NewID: func() string { n++; return fmt.Sprintf("8%025d", n) }})
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := e.Start(ctx, delta.Request{Kind: delta.Verify, Scope: "all", Heal: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Step(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if back := e.Work(ctx, ctx, q.ms); len(q.ms) == 0 || len(back) != len(q.ms) || back[0].Delay <= 0 {
		t.Errorf("of %d messages %d come back: %+v", len(q.ms), len(back), back)
	}
	h.w.Wait(24 * time.Hour)
	if back := e.Work(ctx, ctx, q.ms); len(back) != 0 {
		t.Errorf("%+v", back)
	}
	// Nor does a delta add again what may only be late.
	h.w.Target.Damage(h.tgt.ID, deltatest.LoseEntry)
	h.w.Source.Say(h.s.mail, true, desk.Author{Name: "Ann"}, "more", nil)
	h.w.Wait(time.Hour)
	h.delta()
	h.verify(true)
	if r, _, err = e.Start(ctx, mainDelta); err != nil {
		t.Fatal(err)
	}
	q.ms = nil
	if _, err := e.Step(ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if back := e.Work(ctx, ctx, q.ms); len(q.ms) != 1 || len(back) != 1 || back[0].Delay <= 0 {
		t.Errorf("of %d messages %d come back: %+v", len(q.ms), len(back), back)
	}
}

// A desk that tells in which fields people had the last word: a field in which nobody had is set again, although an agent has
// worked on the ticket since. Who a ticket points to is another thing: desks change that by themselves, without a trace, when
// people are merged.
func TestHealFieldUntouched(t *testing.T) {
	for _, touched := range []bool{false, true} {
		h := newHealing(t, func(w *deltatest.World) { w.Target.TellsTouched = touched })
		h.w.Target.Edit(h.tgt, desk.Fields{desk.Priority: {"an agent's"}})
		h.w.Target.Damage(h.tgt.ID, deltatest.FieldValue)
		h.w.Target.Damage(h.tgt.ID, deltatest.Requester)
		rep := h.verify(true)
		if !touched {
			h.clean(rep) // it cannot be told from the agent's work
			continue
		}
		h.found(rep, "failed", "differs: subject (changed in the target without a trace)")
		h.clean(h.delta())
		h.clean(h.verify(false))
		if got := h.w.Target.Look()[h.src.String()][0].Fields; got[desk.Subject] != "[mail]" || got[desk.Priority] != "[an agent's]" || got[desk.Requester] != "[?1]" {
			t.Errorf("%v", got)
		}
	}
}

// Before what a verification has found is healed, another window carries over what the source has changed of the same ticket. In a desk
// that tells who had the last word, what was changed without a trace is not taken for the work of people.
func TestHealBehindPush(t *testing.T) {
	h := newHealing(t, func(w *deltatest.World) { w.Target.TellsTouched = true })
	run(t, h.w, delta.Request{Kind: delta.Full, Scope: "support"})
	h.w.Target.Damage(h.tgt.ID, deltatest.FieldValue)
	h.verify(true)
	h.w.Source.Edit(h.src, desk.Fields{desk.Status: {"stalled"}})
	h.w.Wait(time.Hour)
	run(t, h.w, delta.Request{Kind: delta.Delta, Window: "support"})
	h.clean(h.delta())
	if got := h.w.Target.Look()[h.src.String()][0].Fields; got[desk.Subject] != "[mail]" || got[desk.Status] != "[stalled]" {
		t.Errorf("the ticket is %v", got)
	}
	h.clean(h.verify(false))
}

// The source lists a ticket that is due for what a verification has found, and that entry of the plan is carried out first.
func TestHealListedFirst(t *testing.T) {
	h := newHealing(t, nil)
	h.w.Target.Damage(h.tgt.ID, deltatest.LoseEntry)
	h.verify(true)
	h.w.Source.Redact(h.s.mail, 1)
	h.w.Wait(time.Hour)
	e := h.w.Engine()
	r, _, err := e.Start(ctx, mainDelta)
	if err == nil {
		_, err = e.Step(ctx, r.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	e.Work(ctx, ctx, []delta.Message{{Migration: "acme", Run: r.ID, Page: 1, Seq: 0, Sent: h.w.Clock().UnixMilli()}})
	rep := h.delta()
	h.clean(rep)
	if rep.Counts.Planned != 2 {
		t.Errorf("planned are %d entries, want two of one ticket", rep.Counts.Planned)
	}
	same(t, "thread", []string{"it burns", "-(redacted)"}, bodies(h.w.Target.Look()[h.src.String()][0]))
	h.clean(h.verify(false))
}

// The ledger has lost a row: the record is looked for before it is created, and found.
func TestHealLostRow(t *testing.T) {
	h := newHealing(t, nil)
	sound := h.w.Target.Look()
	key := delta.Key{Part: "led/acme/ticket/" + h.s.mail, Sort: "row"}
	row, err := h.w.Store.Rows().Get(ctx, key)
	if err == nil {
		err = h.w.Store.Rows().Delete(ctx, key, row.Version)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.found(h.verify(true), "failed", "not in the target")
	h.clean(h.delta())
	h.clean(h.verify(true))
	if d := cmp.Diff(sound, h.w.Target.Look()); d != "" {
		t.Errorf("target (-want +got):\n%s", d)
	}
}

// Comparing while others push: a record that somebody has claimed is waited for, and what was pushed while it was compared is
// compared again. Half of a push is no difference.
func TestVerifyBesidePush(t *testing.T) {
	h := newHealing(t, func(w *deltatest.World) { w.Laptop = false })
	h.w.Source.Edit(h.src, desk.Fields{desk.Subject: {"another"}})
	h.w.Wait(time.Hour)
	play := own(t, h.w, h.w.Source.AsSource(), h.w.Target.AsTarget())
	pushed := false
	h.w.Target.Fail = func(op string, ref desk.Ref) error {
		if op == "find" && ref == h.src && !pushed { // the comparison has read both sides
			pushed = true
			if _, err := play(mainDelta); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	h.clean(h.verify(false))
	if !pushed {
		t.Error("nothing was pushed meanwhile")
	}
	h.w.Target.Fail = nil

	h.w.Source.Edit(h.src, desk.Fields{desk.Subject: {"a third"}})
	h.w.Wait(time.Hour)
	e := h.w.Engine()
	r, _, err := e.Start(ctx, mainDelta)
	if err == nil {
		_, err = e.Step(ctx, r.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.w.Effects.Cuts = []deltatest.Cut{{Effect: h.w.Effects.Count() + 2, After: true}} // staged, then claimed
	h.w.Do(func(e *delta.Engine) error {
		if h.w.Effects.Cuts != nil {
			defer func() { h.w.Effects.Cuts = nil }()
			e.Work(ctx, ctx, []delta.Message{{Migration: "acme", Run: r.ID, Page: 0, Seq: 0, Sent: h.w.Clock().UnixMilli()}})
		}
		return nil
	})
	claimed, err := h.w.Engine().Explain(ctx, h.src)
	if err != nil || claimed.Busy.IsZero() {
		t.Fatalf("the push was not cut off after its claim: %+v, %v", claimed, err)
	}
	began := h.w.Clock()
	rep := h.verify(false)
	h.found(rep, "failed", "subject (changed in the source since)")
	if !h.w.Clock().After(claimed.Busy) {
		t.Errorf("compared before %s, when the claim ended; begun at %s", claimed.Busy, began)
	}
}

// A replica of the source that is behind while both sides are compared: what it says of before is no difference, and what it does not
// show yet is compared all the same.
func TestVerifyBehindReplica(t *testing.T) {
	for _, lag := range []time.Duration{time.Minute, 30 * time.Minute} { // longer than messages are waited for before they are sent again
		s := newStage(t)
		s.Source.ListLag = lag
		id := s.ticket("one", "hello")
		s.full()
		s.Wait(time.Hour)
		s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		s.delta()
		s.Source.Stale = 1
		s.verified(0)
		if s.Source.Stale != 0 {
			t.Error("nobody asked the replica")
		}
		at(s.Source, "read", 1, func() error { return &desk.Error{Op: "read", Class: desk.ErrNotFound} })
		if c := s.verified(0).Counts; c.Unchanged != 1 {
			t.Errorf("a ticket that a replica did not show was not compared: %+v", c)
		}
		s.Source.Fail = nil
		s.Source.Purges = true
		at(s.Source, "read", 1, func() error { s.Source.Remove(ticket(id)); return nil })
		if c := s.verified(0).Counts; c.Excluded != 1 {
			t.Errorf("a ticket that went while both sides were compared: %+v", c)
		}
	}
}

// The migration file changes while a comparison is cut off: a certificate speaks of one file, so it begins anew.
func TestVerifyUnderAnotherFile(t *testing.T) {
	h := newHealing(t, nil)
	e := h.w.Engine()
	old, _, err := e.Start(ctx, delta.Request{Kind: delta.Verify, Scope: "all"})
	if err == nil {
		_, err = e.Step(ctx, old.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.w.Restart()
	again, resumed, err := h.w.Engine().Start(ctx, delta.Request{Kind: delta.Verify, Scope: "all"})
	if err != nil || !resumed || again.ID != old.ID {
		t.Fatalf("the same file: %s goes on: %v, %v", again.ID, resumed, err)
	}
	h.w.Restart()
	h.w.Migration.Hash = "h2"
	h.clean(h.verify(false))
	if rep := reportOf(t, h.w, old.ID); rep.Status != string(delta.Cancelled) {
		t.Errorf("the old one is %s", rep.Status)
	}
	head, _, err := certificate.Read(bytes.NewReader(h.certificate()), nil)
	if err != nil || head.Config != "h2" {
		t.Errorf("%+v, %v", head, err)
	}
	_, err = h.w.Engine().Certificate(ctx, old.ID)
	refused(t, err, "has not looked at everything")
}

// A note that the migration adds by itself and that is lost is added again; when there is another one, it stays as it is.
func TestHealNotes(t *testing.T) {
	h := newHealing(t, func(w *deltatest.World) {
		w.Migration.Rules.Fields = map[desk.Kind][]mapping.FieldRule{desk.Ticket: {{From: desk.Priority, Unmapped: mapping.Note}}}
	})
	h.clean(h.verify(false))
	h.w.Target.Damage(h.tgt.ID, deltatest.LoseEntry) // the note is the last one
	h.found(h.verify(true), "failed", "is missing")
	h.clean(h.delta())
	h.clean(h.verify(false))
	h.w.Source.Edit(h.src, desk.Fields{desk.Priority: {"20"}})
	h.w.Wait(time.Hour)
	h.clean(h.delta()) // another note
	h.clean(h.verify(true))
}

// However many differ: the report lists what a person can look through and says how many more there are, the certificate
// names every one.
func TestVerifyMany(t *testing.T) {
	w := world(t)
	w.Source.PageSize = 1000
	for i := range 10_050 {
		w.Source.Add(desk.Company, desk.Fields{desk.Name: {fmt.Sprint(i)}})
	}
	h := &healing{t: t, w: w}
	rep := h.verify(false) // nothing has been copied
	if rep.Counts.Failed != 10_050 || len(rep.Exceptions) != 10_000 || rep.ExceptionsLeftOut != 50 {
		t.Errorf("%d failed, %d listed, %d left out", rep.Counts.Failed, len(rep.Exceptions), rep.ExceptionsLeftOut)
	}
	cert, err := w.Engine().Certificate(ctx, rep.Run)
	if err != nil {
		t.Fatal(err)
	}
	if _, sums, err := certificate.Read(cert, nil); err != nil || sums.Records != 10_050 || sums.Failed != 10_050 {
		t.Errorf("certificate %+v, %v", sums, err)
	}
}

// A windowless scope, a rehearsal, another kind of run: refused before anything is written.
func TestHealRefusals(t *testing.T) {
	w := world(t)
	w.Migration.Scopes["other"] = desk.Scope{}
	addTicket(w, "one")
	for _, tc := range []struct {
		q    delta.Request
		says string
	}{
		{delta.Request{Kind: delta.Full, Scope: "all", Heal: true}, "--heal belongs to verify runs"},
		{delta.Request{Kind: delta.Delta, Window: "main", Heal: true}, "--heal belongs to verify runs"},
		{delta.Request{Kind: delta.Verify, Scope: "all", Heal: true, Dry: true}, "no rehearsal"},
		{delta.Request{Kind: delta.Verify, Scope: "other", Heal: true}, "no window of the migration file is over scope \"other\""},
	} {
		_, _, err := w.Engine().Start(ctx, tc.q)
		refused(t, err, tc.says)
	}
	if n := w.Effects.Count(); n > 0 {
		t.Errorf("%d effects: %v", n, w.Effects.Names)
	}
}

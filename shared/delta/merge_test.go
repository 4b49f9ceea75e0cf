package delta

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// TestMerge goes through the three-way table: base, source, target, what follows.
func TestMerge(t *testing.T) {
	val := func(s string) desk.Value { return desk.Text(s) }
	d := func(s string) string { return val(s).Digest() }
	const f = desk.Status
	type verdict struct {
		Apply              string
		Held, Kept, Accept bool
	}
	for _, tc := range []struct {
		name           string
		base           *base
		source, target string
		policy         Conflict
		decided        *Decision
		write          desk.Write
		ask            bool
		want           verdict
	}{
		{name: "nothing changed", base: &base{Src: d("a"), Same: true}, source: "a", target: "a", want: verdict{Accept: true}},
		{name: "only the source", base: &base{Src: d("a"), Same: true}, source: "b", target: "a", want: verdict{Apply: "b"}},
		{name: "only the target", base: &base{Src: d("a"), Same: true}, source: "a", target: "b", want: verdict{Kept: true}},
		{name: "both to the same", base: &base{Src: d("a"), Same: true}, source: "b", target: "b", want: verdict{Accept: true}},
		{name: "both differently", base: &base{Src: d("a"), Same: true}, source: "b", target: "c", want: verdict{Held: true}},
		{name: "both, source wins", base: &base{Src: d("a"), Same: true}, source: "b", target: "c", policy: SourceWins, want: verdict{Apply: "b"}},
		{name: "both, target wins", base: &base{Src: d("a"), Same: true}, source: "b", target: "c", policy: TargetWins, want: verdict{Kept: true, Accept: true}},
		{name: "the target writes it its own way", base: &base{Src: d("a"), Tgt: d("A")}, source: "a", target: "A", want: verdict{}},
		{name: "its own way, then the source", base: &base{Src: d("a"), Tgt: d("A")}, source: "b", target: "A", want: verdict{Apply: "b"}},
		{name: "its own way, then the target", base: &base{Src: d("a"), Tgt: d("A")}, source: "a", target: "B", want: verdict{Kept: true}},
		{name: "no base, empty", source: "a", want: verdict{Apply: "a"}},
		{name: "no base, something else", source: "a", target: "b", want: verdict{Held: true}},
		{name: "unset in the source", base: &base{Src: d("a"), Same: true}, target: "a", want: verdict{Apply: "(unset)"}},
		{name: "decided for the source", base: &base{Src: d("a"), Same: true}, source: "b", target: "c", decided: &Decision{Choice: ChooseSource, Source: d("b"), Target: d("c")}, want: verdict{Apply: "b"}},
		{name: "decided for the target", base: &base{Src: d("a"), Same: true}, source: "b", target: "c", decided: &Decision{Choice: ChooseTarget, Source: d("b"), Target: d("c")}, want: verdict{Kept: true, Accept: true}},
		{name: "decided for a value", base: &base{Src: d("a"), Same: true}, source: "b", target: "c", decided: &Decision{Choice: ChooseValue, Value: val("x"), Source: d("b"), Target: d("c")}, want: verdict{Apply: "x"}},
		{name: "decided, the source moved since", base: &base{Src: d("a"), Same: true}, source: "e", target: "c", decided: &Decision{Choice: ChooseTarget, Source: d("b"), Target: d("c")}, want: verdict{Held: true}},
		{name: "decided, the target moved since", base: &base{Src: d("a"), Same: true}, source: "b", target: "e", decided: &Decision{Choice: ChooseSource, Source: d("b"), Target: d("c")}, want: verdict{Held: true}},
		{name: "a decision beats the policy", base: &base{Src: d("a"), Same: true}, source: "b", target: "c", policy: SourceWins, decided: &Decision{Choice: ChooseTarget, Source: d("b"), Target: d("c")}, want: verdict{Kept: true, Accept: true}},
		{name: "settable at creation only", base: &base{Src: d("a"), Same: true}, source: "b", target: "a", write: desk.OnCreate, want: verdict{}},
		{name: "asked whatever the policy", base: &base{Src: d("a"), Tgt: d("b"), Kept: true}, source: "a", target: "c", policy: SourceWins, ask: true, want: verdict{Held: true}},
		{name: "asked, and decided for the source", base: &base{Src: d("a"), Tgt: d("b"), Kept: true}, source: "a", target: "c", ask: true, decided: &Decision{Choice: ChooseSource, Source: d("a"), Target: d("c")}, want: verdict{Apply: "a"}},
		{name: "asked, although it cannot be written", base: &base{Src: d("a"), Same: true}, source: "a", target: "c", ask: true, write: desk.OnCreate, want: verdict{Held: true}},
		{name: "decided for what cannot be written", base: &base{Src: d("a"), Same: true}, source: "a", target: "c", ask: true, write: desk.OnCreate, decided: &Decision{Choice: ChooseSource, Source: d("a"), Target: d("c")}, want: verdict{Held: true}},
		{name: "left as it is, which cannot be written", base: &base{Src: d("a"), Same: true}, source: "a", target: "c", ask: true, write: desk.OnCreate, decided: &Decision{Choice: ChooseTarget, Source: d("a"), Target: d("c")}, want: verdict{Kept: true, Accept: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := DefaultPolicies()
			if tc.policy != "" {
				p.ConflictField = map[desk.Field]Conflict{f: tc.policy}
			}
			bases := map[desk.Field]base{}
			if tc.base != nil {
				bases[f] = *tc.base
			}
			decided := map[desk.Field]Decision{}
			if tc.decided != nil {
				decided[f] = *tc.decided
			}
			defs := desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{desk.Ticket: {{Field: f, Write: cmpOr(tc.write, desk.Always)}}}}
			m := merge(desk.Ticket, bases, desk.Fields{f: val(tc.source)}, desk.Fields{f: val(tc.target)}, defs, p, decided, map[desk.Field]bool{f: tc.ask})
			got := verdict{Held: len(m.Held) == 1, Kept: len(m.Kept) == 1, Accept: len(m.Accept) == 1}
			if v, ok := m.Apply[f]; ok {
				got.Apply = cmpOr(v.First(), "(unset)")
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestDispose is the table of errors: what follows, and what counts as an attempt.
func TestDispose(t *testing.T) {
	e := func(class error, status int, after time.Duration) error {
		return &desk.Error{Op: "x", Class: class, Status: status, RetryAfter: after}
	}
	for _, tc := range []struct {
		name    string
		err     error
		attempt int
		act     action
		delay   time.Duration
	}{
		{"throttled, says how long", e(desk.ErrThrottled, 429, 7*time.Second), 9, giveBack, 7 * time.Second},
		{"throttled, absurdly long", e(desk.ErrThrottled, 429, 99*time.Hour), 9, giveBack, 15 * time.Minute},
		{"throttled, does not say", e(desk.ErrThrottled, 429, 0), 9, giveBack, 30 * time.Second},
		{"transient", e(desk.ErrTransient, 503, 0), 1, tryAgain, 2 * time.Second},
		{"transient, last", e(desk.ErrTransient, 503, 0), maxAttempts, fail, 0},
		{"unknown", errLater, 1, tryAgain, 2 * time.Second},
		{"rejected", e(desk.ErrRejected, 422, 0), 1, fail, 0},
		{"unauthorized", e(desk.ErrUnauthorized, 401, 0), 1, waitDesk, time.Minute},
		{"not found", e(desk.ErrNotFound, 404, 0), 1, fail, 0},
		{"conflict", e(desk.ErrConflict, 412, 0), 9, decideAgain, 2 * time.Second},
		{"stale row", ErrStale, 9, decideAgain, time.Second},
		{"mailed", e(desk.ErrMailed, 0, 0), 1, stopRun, 0},
	} {
		if v := dispose(tc.err, tc.attempt); v.act != tc.act || v.delay != tc.delay {
			t.Errorf("%s: %+v, want action %d after %v", tc.name, v, tc.act, tc.delay)
		}
	}
}

func TestKeyID(t *testing.T) {
	for in, want := range map[string]string{"42": "42", "a/b": "a%2Fb", "ü %": "%C3%BC%20%25", "\x00\x7f": "%00%7F"} {
		if got := keyID(in); got != want {
			t.Errorf("keyID(%q) = %q, want %q", in, got, want)
		}
	}
}

// A claim is looked at again soon while it is young, and never later than it must be respected.
func TestBusyDelay(t *testing.T) {
	now := time.Date(2026, 3, 10, 8, 0, 0, 0, time.UTC)
	for _, tc := range []struct{ age, left, want time.Duration }{
		{0, 5 * time.Minute, 2 * time.Second},
		{20 * time.Second, 5 * time.Minute, 10 * time.Second},
		{4 * time.Minute, time.Minute, 30 * time.Second},
		{4 * time.Minute, 3 * time.Second, 3 * time.Second},
		{4 * time.Minute, 0, time.Second},
	} {
		if got := (busyError{since: now.Add(-tc.age), until: now.Add(tc.left)}).delay(now); got != tc.want {
			t.Errorf("a claim %v old that holds for %v: %v, want %v", tc.age, tc.left, got, tc.want)
		}
	}
}

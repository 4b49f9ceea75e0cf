package delta_test

import (
	"context"
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

const takenText = "[This entry is no longer part of this ticket in the previous help desk.]"

var customer = desk.Author{Name: "Ann", Email: "ann@x.example"}

// stage is a world in which something happens to migrated tickets.
type stage struct {
	*deltatest.World
	t *testing.T
}

func newStage(t *testing.T) *stage {
	t.Helper()
	w := world(t)
	w.Migration.Policies = delta.DefaultPolicies()
	return &stage{w, t}
}

// ticket makes a ticket in the source with public entries; one whose words begin with a minus sign is private.
func (s *stage) ticket(subject string, entries ...string) string {
	id := addTicket(s.World, subject)
	s.say(id, entries...)
	return id
}

func (s *stage) say(id string, entries ...string) {
	for _, body := range entries {
		s.Wait(time.Minute)
		s.Source.Say(id, !strings.HasPrefix(body, "-"), customer, strings.TrimPrefix(body, "-"), nil)
	}
}

// there is the target's ticket.
func (s *stage) there(id string) desk.Ref { return ticket(s.Target.Target(ticket(id))) }

func (s *stage) delta() report.Report {
	s.t.Helper()
	s.Wait(time.Hour)
	return reportOf(s.t, s.World, run(s.t, s.World, mainDelta).ID)
}

func (s *stage) full() { s.t.Helper(); s.Wait(time.Hour); full(s.t, s.World) }

// verified wants that a verification finds no difference and no more than held records that wait for somebody.
func (s *stage) verified(held int) report.Report {
	s.t.Helper()
	rep := reportOf(s.t, s.World, run(s.t, s.World, delta.Request{Kind: delta.Verify, Scope: "all"}).ID)
	if rep.Counts.Failed != 0 || rep.Counts.Held != held {
		s.t.Errorf("verify: %d differ and %d held, want 0 and %d: %+v", rep.Counts.Failed, rep.Counts.Held, held, rep.Exceptions)
	}
	return rep
}

// thread wants these entries in the one ticket of the target that carries the source's id.
func (s *stage) thread(id string, want ...string) {
	s.t.Helper()
	all := s.Target.Look()["ticket/"+id]
	if len(all) != 1 {
		s.t.Errorf("ticket %s is %d times in the target, want once with %q", id, len(all), want)
		return
	}
	same(s.t, "thread of ticket "+id, want, bodies(all[0]))
}

func same(t *testing.T, what string, want, got []string) {
	t.Helper()
	if d := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func bodies(s deltatest.Seen) []string {
	var out []string
	for _, en := range s.Entries {
		_, rest, _ := strings.Cut(en, " public=")
		public, body, _ := strings.Cut(rest, " ")
		if public != "true" {
			body = "-" + body
		}
		out = append(out, body)
	}
	return out
}

func (s *stage) field(id string, f desk.Field, want string) {
	s.t.Helper()
	all := s.Target.Look()["ticket/"+id]
	if len(all) != 1 || all[0].Fields[f] != want {
		s.t.Errorf("ticket %s: %s is %+v, want %s", id, f, all, want)
	}
}

func (s *stage) absent(id string) {
	s.t.Helper()
	if n := len(s.Target.Look()["ticket/"+id]); n > 0 {
		s.t.Errorf("ticket %s is %d times in the target, want it gone", id, n)
	}
}

// held wants that one record is held for a reason with these words, and returns the held entry.
func (s *stage) held(words ...string) (entry string) {
	s.t.Helper()
	hs, err := s.Engine().HeldRecords(ctx)
	if err != nil || len(hs) != 1 {
		s.t.Fatalf("%d records held, %v; want one that says %q", len(hs), err, words)
	}
	x, err := s.Engine().Explain(ctx, hs[0].Ref)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, word := range words {
		if !strings.Contains(x.Held, word) {
			s.t.Errorf("held because %q, want the words %q", x.Held, word)
		}
	}
	if len(hs[0].Entries) == 1 {
		return hs[0].Entries[0].Entry
	}
	return ""
}

func (s *stage) nothingHeld() {
	s.t.Helper()
	hs, err := s.Engine().HeldRecords(ctx)
	if err != nil || len(hs) > 0 {
		s.t.Errorf("held: %+v, %v", hs, err)
	}
}

func (s *stage) decide(id, entry string, c delta.Choice) {
	s.t.Helper()
	if err := s.Engine().Decide(ctx, ticket(id), "", entry, delta.Decision{Choice: c}); err != nil {
		s.t.Fatal(err)
	}
}

func losses(rep report.Report, class string) int {
	for _, l := range rep.Losses {
		if l.Class == class {
			return l.Count
		}
	}
	return 0
}

// What was copied and is changed, redacted or removed in the source: by policy, in a target that can change entries and in one
// that cannot.
func TestRevised(t *testing.T) {
	type end struct {
		thread, files []string
		held, kept    int
		status, tags  string
	}
	events := map[string]struct {
		do   func(s *stage, id string)
		want end // of policy mirror
	}{
		"edited":            {func(s *stage, id string) { s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = "new" }) }, end{thread: []string{"new", "-note"}, files: []string{"a", "b"}}},
		"redacted":          {func(s *stage, id string) { s.Source.Redact(id, 0) }, end{thread: []string{"(redacted)", "-note"}}},
		"subject":           {func(s *stage, id string) { s.Source.Revise(id, 0, func(en *desk.Entry) { en.Subject = "" }) }, end{thread: []string{"old", "-note"}, files: []string{"a", "b"}}},
		"a file removed":    {func(s *stage, id string) { s.Source.Revise(id, 0, func(en *desk.Entry) { en.Files = en.Files[1:] }) }, end{thread: []string{"old", "-note"}, files: []string{"b"}}},
		"the entry removed": {func(s *stage, id string) { s.Source.Drop(id, 0) }, end{thread: []string{takenText, "-note"}}},
	}
	for name, ev := range events {
		for _, policy := range []delta.OnEvent{delta.Mirror, delta.Ignore, delta.Tag, delta.Close} {
			for _, can := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, %s, can %v", name, policy, can), func(t *testing.T) {
					s := newStage(t)
					s.Migration.OnRevised, s.Target.NoReviser = policy, !can
					id := s.ticket("one")
					s.Source.Say(id, true, customer, "old", map[string][]byte{"a": {1}, "b": {2, 3}})
					s.Source.Revise(id, 0, func(en *desk.Entry) { en.Subject = "words of the customer" })
					s.say(id, "-note")
					s.full()
					ev.do(s, id)
					rep := s.delta()

					want := end{thread: []string{"old", "-note"}, files: []string{"a", "b"}, kept: 1, status: "[open]"}
					switch {
					case policy == delta.Mirror && can:
						want = ev.want
						want.status = "[open]"
					case policy == delta.Mirror:
						want.held, want.kept = 1, 0
						s.held(map[bool]string{true: "is no longer in the source's ticket", false: "was changed or redacted in the source"}[name == "the entry removed"], "by hand")
					case policy == delta.Tag:
						want.tags = "[deleted-in-source]"
					case policy == delta.Close:
						want.status = "[resolved]"
					}
					seen := s.Target.Look()["ticket/"+id][0]
					got := end{thread: bodies(seen), held: rep.Counts.Held, kept: losses(rep, "kept-copy"), status: seen.Fields[desk.Status], tags: seen.Fields[desk.Tags]}
					for _, f := range seen.Files {
						got.files = append(got.files, strings.Fields(f)[0])
					}
					if d := cmp.Diff(want, got, cmp.AllowUnexported(end{})); d != "" {
						t.Errorf("(-want +got):\n%s", d)
					}
					s.verified(want.held)
					if want.held == 0 {
						// It is settled: nothing is due, and another change of the ticket brings nothing back.
						s.Source.Edit(ticket(id), desk.Fields{desk.Tags: {"x"}})
						rep = s.delta()
						s.thread(id, want.thread...)
						if rep.Counts.Planned != 1 || losses(rep, "kept-copy") != 0 {
							t.Errorf("%+v, %+v", rep.Counts, rep.Losses)
						}
						if policy == delta.Tag {
							s.field(id, desk.Tags, "[deleted-in-source x]")
						}
					}
				})
			}
		}
	}
}

// A file that is replaced, under its own id or by one that looks like it, is carried over anew, not from what was staged before.
func TestRevisedFile(t *testing.T) {
	for content, another := range map[string]bool{"******* and more": false, "******": true} {
		s := newStage(t)
		id := s.ticket("one")
		s.Source.Say(id, true, customer, "with a secret", map[string][]byte{"a": []byte("secret")})
		s.full()
		s.Source.Replace(id, 0, []byte(content), another)
		s.delta()
		s.verified(0)
	}
}

// Where the target cannot change entries a person does it by hand, and says so. What they see is bound to the source's version.
func TestRevisedByHand(t *testing.T) {
	for _, how := range []string{"edited", "the entry removed"} {
		t.Run(how, func(t *testing.T) {
			s := newStage(t)
			s.Target.NoReviser = true
			id := s.ticket("one", "secret", "more")
			s.full()
			if how == "edited" {
				s.Source.Redact(id, 0)
			} else {
				s.Source.Drop(id, 0)
			}
			s.delta()
			entry := s.held("entry ", "by hand")
			refused(t, s.Engine().Decide(ctx, ticket(id), "", entry, delta.Decision{Choice: delta.ChooseSource}), "change it there by hand")
			s.say(id, "a reply") // everything else goes on, and the question stays
			s.delta()
			s.thread(id, "secret", "more", "a reply")
			s.held("by hand")
			s.decide(id, entry, delta.ChooseTarget)
			s.Target.Redact(s.there(id).ID, 0) // also after the decision
			s.delta()
			s.nothingHeld()
			s.verified(0)
			s.say(id, "another")
			s.delta()
			s.nothingHeld()
			if how == "edited" {
				s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = "redacted otherwise" })
				s.delta()
				s.held("by hand")
			}
		})
	}
	t.Run("to the same words", func(t *testing.T) {
		s := newStage(t)
		s.Target.NoReviser = true
		id := s.ticket("one", "secret")
		s.full()
		s.Source.Redact(id, 0)
		s.delta()
		s.held("by hand")
		s.Target.Redact(s.there(id).ID, 0)
		s.delta()
		s.nothingHeld()
		s.verified(0)
	})
}

// People changed an entry of ours in the target, and the source changed it, too.
func TestRevisedOnBothSides(t *testing.T) {
	begin := func(t *testing.T) (*stage, string, string) {
		t.Helper()
		s := newStage(t)
		id := s.ticket("one", "secret")
		s.full()
		s.Target.Revise(s.there(id).ID, 0, func(en *desk.Entry) { en.Body = "(removed by an agent)" })
		s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = "secret, again" })
		s.delta()
		s.thread(id, "(removed by an agent)")
		return s, id, s.held("changed in the source, and people changed")
	}
	for choice, want := range map[delta.Choice]string{delta.ChooseSource: "secret, again", delta.ChooseTarget: "(removed by an agent)"} {
		t.Run(string(choice), func(t *testing.T) {
			s, id, entry := begin(t)
			s.verified(1)
			s.decide(id, entry, choice)
			s.delta()
			s.thread(id, want)
			s.nothingHeld()
			s.verified(0)
		})
	}
	t.Run("asked again", func(t *testing.T) {
		for _, side := range []string{"source", "target"} {
			s, id, entry := begin(t)
			s.decide(id, entry, delta.ChooseSource)
			if side == "source" {
				s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = "secret, once more" })
			} else {
				s.Target.Revise(s.there(id).ID, 0, func(en *desk.Entry) { en.Body = "(removed by another agent)" })
			}
			s.delta()
			s.held("and again since it was decided")
			if got := bodies(s.Target.Look()["ticket/"+id][0])[0]; !strings.HasPrefix(got, "(removed by") {
				t.Errorf("%s moved since the decision, and it was carried out: %q", side, got)
			}
		}
	})
}

// What only the target's people changed in an entry of ours is theirs.
func TestRevisedInTarget(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one", "words")
	s.full()
	s.Target.Revise(s.there(id).ID, 0, func(en *desk.Entry) { en.Body = "an agent's" })
	s.say(id, "more")
	rep := s.delta()
	s.thread(id, "an agent's", "more")
	if len(rep.Kept) != 1 || !strings.HasPrefix(rep.Kept[0].Fields[0], "entry ") || rep.Counts.Held != 0 {
		t.Errorf("kept %+v, %+v", rep.Kept, rep.Counts)
	}
	if rep := s.verified(0); len(rep.Kept) != 1 {
		t.Errorf("verify: kept %+v", rep.Kept)
	}
}

// Visibility, three ways. Steps are what the source (s) and the target's people (t) do to the entry, with a delta after each.
func TestPrivacy(t *testing.T) {
	turn := func(en *desk.Entry) { en.Public = !en.Public }
	edit := func(en *desk.Entry) { en.Body = "new" }
	both := func(en *desk.Entry) { en.Body, en.Public = "new", !en.Public }
	type step struct {
		side string
		do   func(*desk.Entry)
	}
	for _, tc := range []struct {
		name   string
		first  string
		policy delta.OnEvent
		steps  []step
		want   string
		held   string // empty: nothing is held
		source string // what it is when the source is chosen
	}{
		{"hidden", "words", "", []step{{"s", turn}}, "-words", "", ""},
		{"hidden and changed", "words", "", []step{{"s", both}}, "-new", "", ""},
		{"hidden and shown again", "words", "", []step{{"s", turn}, {"s", turn}}, "words", "", ""},
		{"shown", "-words", "", []step{{"s", turn}}, "words", "", ""},
		{"shown, hidden, shown", "-words", "", []step{{"s", turn}, {"s", turn}, {"s", turn}}, "words", "", ""},
		{"people hide it", "words", "", []step{{"t", turn}}, "-words", "", ""},
		{"people hide it, the source changes it", "words", "", []step{{"t", turn}, {"s", edit}}, "-new", "", ""},
		{"people hide it, the source follows", "words", "", []step{{"t", turn}, {"s", turn}}, "-words", "", ""},
		{"people hide it, the source follows and goes back", "words", "", []step{{"t", turn}, {"s", turn}, {"s", turn}}, "-words", "became public in the source, and the target's people had made it private", "words"},
		{"people hide it, the source follows, both go back", "words", "", []step{{"t", turn}, {"s", turn}, {"t", turn}, {"s", turn}}, "words", "", ""},
		{"people show it", "-words", "", []step{{"t", turn}}, "words", "", ""},
		{"people show it, the source changes it", "-words", "", []step{{"t", turn}, {"s", edit}}, "words", "the target shows", "-new"},
		{"people show it, the source follows", "-words", "", []step{{"t", turn}, {"s", turn}}, "words", "", ""},
		{"people show it, the source follows and goes back", "-words", "", []step{{"t", turn}, {"s", turn}, {"s", turn}}, "-words", "", ""},
		{"ignored", "words", delta.Ignore, []step{{"s", turn}}, "words", "", ""},
		{"ignored, and back", "words", delta.Ignore, []step{{"s", turn}, {"s", turn}}, "words", "", ""},
		{"ignored, changed", "words", delta.Ignore, []step{{"s", turn}, {"s", edit}}, "words", "the target shows", "-new"},
		{"ignored, changed at once", "words", delta.Ignore, []step{{"s", both}}, "words", "the target shows", "-new"},
		{"shown, ignored, and back", "-words", delta.Ignore, []step{{"s", turn}, {"s", turn}, {"s", edit}}, "-new", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			if tc.policy != "" {
				s.Migration.OnPrivacy = tc.policy
			}
			id := s.ticket("one", tc.first)
			s.full()
			for i, st := range tc.steps {
				if st.side == "s" {
					s.Source.Revise(id, 0, st.do)
				} else {
					s.Target.Revise(s.there(id).ID, 0, st.do)
					s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {fmt.Sprint(i)}}) // so that the delta sees the ticket
				}
				s.delta()
			}
			s.thread(id, tc.want)
			if tc.held == "" {
				s.nothingHeld()
				s.verified(0)
				return
			}
			entry := s.held(tc.held)
			s.verified(1)
			s.decide(id, entry, delta.ChooseSource)
			s.delta()
			s.thread(id, tc.source)
			s.nothingHeld()
			s.verified(0)
		})
	}
}

func TestPrivacyByHand(t *testing.T) {
	for first, words := range map[string]string{"words": "became private in the source", "-words": "became public in the source"} {
		s := newStage(t)
		s.Target.NoReviser = true
		id := s.ticket("one", first)
		s.full()
		s.Source.Flip(id, 0)
		s.delta()
		entry := s.held(words, "by hand")
		s.thread(id, first)
		s.decide(id, entry, delta.ChooseTarget)
		s.delta()
		s.nothingHeld()
		s.verified(0)
	}
}

// A redaction or a flip whose answer was lost, while the source goes on: our own half-done write is not taken for people's.
func TestRevisionInDoubt(t *testing.T) {
	for _, tc := range []struct {
		name        string
		first, then func(*desk.Entry)
		want        string
	}{
		{"edited twice", func(en *desk.Entry) { en.Body = "second" }, func(en *desk.Entry) { en.Body = "third" }, "third"},
		{"hidden and shown again", func(en *desk.Entry) { en.Public = false }, func(en *desk.Entry) { en.Public = true }, "first"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			id := s.ticket("one", "first")
			s.full()
			s.Source.Revise(id, 0, tc.first)
			lost := false
			s.Target.Lose = func(op string, _ desk.Ref) error {
				if op != "revise" || lost {
					return nil
				}
				lost = true
				s.Source.Revise(id, 0, tc.then)
				return &desk.Error{Op: op, Class: desk.ErrTransient, Said: "reset"}
			}
			s.delta()
			s.delta()
			s.thread(id, tc.want)
			s.nothingHeld()
			s.verified(0)
			if !lost {
				t.Error("no answer was lost")
			}
		})
	}
}

// An entry is added, its writer dies before saying so, and the source redacts it before anybody looks: what the target holds
// is not taken for what the source says now.
func TestRevisedBeforeItWasKnown(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one")
	s.full()
	s.say(id, "secret")
	lost := false
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op != "apply" || lost {
			return nil
		}
		lost = true
		s.Source.Redact(id, 0)
		return &desk.Error{Op: op, Class: desk.ErrTransient, Said: "reset"}
	}
	s.delta()
	s.delta()
	s.thread(id, "(redacted)")
	s.verified(0)
}

// The same in a target that cannot show which entries are ours and keeps times: somebody says that the entry is there, and it is
// redacted there, too.
func TestRevisedWhileInDoubt(t *testing.T) {
	for _, earlier := range []bool{false, true} { // is it the ledger that is of an earlier day?
		s := newStage(t)
		s.Target.NoMarkers, s.Target.Timed = true, true
		id := s.ticket("one", "first")
		s.full()
		if day := s.Store.Snapshot(); earlier {
			s.say(id, "secret")
			s.delta()
			s.Source.Redact(id, 1)
			s.Store.Restore(day)
			s.Restart()
			run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
		} else {
			s.say(id, "secret")
			lose(t, s.Target, "apply", func() { s.Source.Redact(id, 1) })
			s.delta()
			s.delta()
		}
		s.held("may have been added already")
		s.thread(id, "first", "secret")
		if err := s.Engine().Decide(ctx, ticket(id), "", "", delta.Decision{Choice: delta.ChooseLink, Value: desk.Value{s.there(id).ID}}); err != nil {
			t.Fatal(err)
		}
		s.delta()
		s.thread(id, "first", "(redacted)")
		s.nothingHeld()
	}
}

// A ticket is split: entries go to another ticket, new or not, and either of both may be carried out first.
func TestSplit(t *testing.T) {
	for _, policy := range []delta.OnEvent{delta.Mirror, delta.Ignore, delta.Tag} {
		for _, can := range []bool{true, false} {
			for _, into := range []string{"a new ticket", "an old ticket"} {
				for _, first := range []string{"losing", "gaining"} {
					t.Run(fmt.Sprintf("%s, can %v, into %s, the %s one first", policy, can, into, first), func(t *testing.T) {
						s := newStage(t)
						s.Migration.OnSplit, s.Target.NoReviser = policy, !can
						a := s.ticket("a", "a1", "a2", "a3")
						b := ""
						if into == "an old ticket" {
							b = s.ticket("b", "b1")
						}
						s.full()
						s.Wait(time.Hour)
						old := b != ""
						b = s.Source.Move(a, 1, b, desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Support"}})
						last := map[bool]string{true: b, false: a}[first == "losing"]
						once := false
						s.Source.Fail = func(op string, ref desk.Ref) error {
							if op == "read" && ref.ID == last && !once {
								once = true
								return &desk.Error{Op: op, Class: desk.ErrThrottled}
							}
							return nil
						}
						rep := s.delta()
						thread := []string{"a1", "a2", "a3"}
						kept := 4 // two entries, told of both tickets
						if policy == delta.Mirror && can {
							thread, kept = []string{"a1", takenText, takenText}, 0
						}
						s.thread(a, thread...)
						if old {
							s.thread(b, "b1", "a2", "a3")
						} else {
							s.thread(b, "a2", "a3")
						}
						s.nothingHeld()
						if got := losses(rep, "kept-copy"); got != kept {
							t.Errorf("%d kept copies reported, want %d: %+v", got, kept, rep.Losses)
						}
						tags := s.Target.Look()["ticket/"+a][0].Fields[desk.Tags]
						if (tags == "[deleted-in-source]") != (policy == delta.Tag) {
							t.Errorf("tags %s", tags)
						}
						if !once {
							t.Errorf("ticket %s was not put off", last)
						}
						if old { // moved between threads, they stand behind what was there
							return
						}
						if got := losses(s.verified(0), "kept-copy"); got != kept {
							t.Errorf("verify tells of %d kept copies, want %d", got, kept)
						}
					})
				}
			}
		}
	}
}

// A kept copy follows when the entry is redacted in the ticket that has it now.
func TestSplitThenRedacted(t *testing.T) {
	for _, can := range []bool{true, false} {
		t.Run(fmt.Sprint("can ", can), func(t *testing.T) {
			s := newStage(t)
			s.Migration.OnSplit, s.Target.NoReviser = delta.Ignore, !can
			a := s.ticket("a", "a1", "secret")
			s.full()
			b := s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Support"}})
			s.delta()
			s.thread(a, "a1", "secret")
			s.thread(b, "secret")
			s.Source.Redact(b, 0)
			s.delta()
			if !can {
				s.held("by hand", "target ticket "+s.there(a).ID+" has a copy of it")
				return
			}
			s.thread(a, "a1", takenText)
			s.thread(b, "(redacted)")
			s.verified(0)
		})
	}
}

// Half of the split comes with the next run: what was held as removed by then is told to have moved.
func TestSplitSeenInTwoRuns(t *testing.T) {
	s := newStage(t)
	s.Target.NoReviser = true
	a := s.ticket("a", "a1", "a2")
	s.full()
	b := s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Support"}})
	s.Source.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref.ID == b {
			return &desk.Error{Op: op, Class: desk.ErrRejected}
		}
		return nil
	}
	s.delta()
	s.held("is no longer in the source's ticket")
	s.Source.Fail = nil
	rep := s.delta()
	s.nothingHeld()
	s.thread(a, "a1", "a2")
	s.thread(b, "a2")
	if got := losses(rep, "kept-copy"); got != 2 {
		t.Errorf("%d kept copies reported, want both: %+v", got, rep.Losses)
	}
	s.verified(0)
}

// A split ticket that is held for something else: its entries are seen to all the same.
func TestSplitOfHeld(t *testing.T) {
	s := newStage(t)
	s.Target.NoReviser = true
	a := s.ticket("a", "a1", "a2")
	s.full()
	s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"resolved"}})
	s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}})
	s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Support"}})
	rep := s.delta()
	s.held("status changed on both sides")
	if got := losses(rep, "kept-copy"); got != 2 {
		t.Errorf("%d kept copies reported, want both: %+v", got, rep.Losses)
	}
	s.verified(1)
}

// And back: the entries return to the ticket that they came from.
func TestSplitAndBack(t *testing.T) {
	s := newStage(t)
	a := s.ticket("a", "a1", "a2")
	s.full()
	b := s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"b"}, desk.Status: {"open"}, desk.Group: {"Support"}})
	s.delta()
	s.thread(a, "a1", takenText)
	s.Source.Move(b, 0, a, nil)
	s.delta()
	s.thread(a, "a1", "a2")
	s.thread(b, takenText)
	s.verified(0)
}

// A ticket that left the source and came back, with what the target's people did meanwhile.
func TestRestored(t *testing.T) {
	nobody := func(*stage, string) {}
	for _, tc := range []struct {
		name   string
		policy delta.OnEvent
		people func(s *stage, id string)
		gone   bool   // while it is not in the source
		held   string // afterwards
		status string // afterwards
		tags   string // of the source's, "[vip]" before
	}{
		{"ignore", delta.Ignore, nobody, false, "", "[open]", "[vip]"},
		{"close", delta.Close, nobody, false, "", "[open]", "[vip]"},
		{"close, and people open it", delta.Close, func(s *stage, id string) {
			s.Target.Edit(s.there(id), desk.Fields{desk.Status: {"open"}})
		}, false, "", "[open]", "[vip]"},
		{"close, and people say something else", delta.Close, func(s *stage, id string) {
			s.Target.Edit(s.there(id), desk.Fields{desk.Status: {"stalled"}})
		}, false, "", "[stalled]", "[vip]"},
		{"tag", delta.Tag, nobody, false, "", "[open]", "[vip]"},
		{"tag, and people tag it, too", delta.Tag, func(s *stage, id string) {
			s.Target.Edit(s.there(id), desk.Fields{desk.Tags: {"deleted-in-source", "people's", "vip"}})
		}, false, "", "[open]", "[people's vip]"},
		{"tag, and people take it away", delta.Tag, func(s *stage, id string) {
			s.Target.Edit(s.there(id), desk.Fields{desk.Tags: {"vip"}})
		}, false, "", "[open]", "[vip]"},
		{"mirror", delta.Mirror, nobody, true, "", "[open]", "[vip]"},
		{"people delete it", delta.Close, func(s *stage, id string) { s.Target.Remove(s.there(id)) }, true, "deleted in the target", "", ""},
	} {
		for _, event := range []desk.Event{desk.Deleted, desk.Spam} {
			t.Run(fmt.Sprintf("%s, %s", event, tc.name), func(t *testing.T) {
				s := newStage(t)
				leave := s.Source.Remove
				if event == desk.Spam {
					leave = s.Source.Junk
					s.Migration.OnSpam = tc.policy
				} else {
					s.Migration.OnDeleted = tc.policy
				}
				id := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {"one"}, desk.Status: {"open"}, desk.Tags: {"vip"}})
				s.say(id, "first", "second")
				s.full()
				s.Target.Say(s.there(id).ID, true, desk.Author{Name: "agent"}, "an agent's", nil)
				leave(ticket(id))
				s.delta()
				tc.people(s, id)
				if n := len(s.Target.Look()["ticket/"+id]); n > 0 == tc.gone {
					t.Errorf("%d times in the target while it is %s", n, event)
				}
				s.Source.Restore(ticket(id))
				s.say(id, "third")
				s.delta()
				if tc.held != "" {
					s.held(tc.held)
					return
				}
				s.nothingHeld()
				want := []string{"first", "second", "an agent's", "third"}
				if tc.gone {
					want = slices.Delete(want, 2, 3) // it went with the ticket
				}
				s.thread(id, want...)
				s.field(id, desk.Status, tc.status)
				s.field(id, desk.Tags, tc.tags)
				s.verified(0)
				for _, effect := range s.Effects.Names {
					if strings.HasPrefix(effect, "put moved/") {
						t.Errorf("%s, and nothing has moved", effect)
					}
				}
				// The source has the last word again.
				s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"7"}})
				s.delta()
				s.field(id, desk.Priority, "[7]")
				s.field(id, desk.Tags, tc.tags)
			})
		}
	}
}

func TestDeletedAndRestoredBetweenRuns(t *testing.T) {
	for _, leave := range []func(*deltatest.Desk, desk.Ref){(*deltatest.Desk).Remove, (*deltatest.Desk).Junk} {
		s := newStage(t)
		s.Migration.OnDeleted, s.Migration.OnSpam = delta.Mirror, delta.Mirror
		id := s.ticket("one", "first")
		s.full()
		writes, there := s.Target.Writes(), s.there(id)
		leave(s.Source, ticket(id))
		s.Source.Restore(ticket(id))
		s.delta()
		if s.there(id) != there || s.Target.Writes() != writes {
			t.Errorf("target %s became %s, %d writes", there, s.there(id), s.Target.Writes()-writes)
		}
	}
}

// The answer to the event's write is lost, and the ticket is restored before anybody could look.
func TestRestoredWhileOpen(t *testing.T) {
	for policy, op := range map[delta.OnEvent]string{delta.Mirror: "delete", delta.Close: "apply", delta.Tag: "apply"} {
		for _, done := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, done %v", policy, done), func(t *testing.T) {
				s := newStage(t)
				s.Migration.OnDeleted = policy
				id := s.ticket("one", "first")
				s.full()
				s.Source.Remove(ticket(id))
				lost := false
				fault := func(o string, _ desk.Ref) error {
					if o != op || lost {
						return nil
					}
					lost = true
					s.Source.Restore(ticket(id))
					return &desk.Error{Op: op, Class: desk.ErrTransient, Said: "reset"}
				}
				if done {
					s.Target.Lose = fault
				} else {
					s.Target.Fail = fault
				}
				s.delta()
				s.delta()
				s.nothingHeld()
				s.thread(id, "first")
				s.field(id, desk.Status, "[open]")
				s.field(id, desk.Tags, "")
				s.verified(0)
				if !lost {
					t.Error("no answer was lost")
				}
			})
		}
	}
}

// A target that cannot show which entries are ours: the answer to an entry was lost before the ticket was deleted. When it
// comes back, the entry is still in doubt, and is not written again.
func TestRestoredWithEntriesInDoubt(t *testing.T) {
	s := newStage(t)
	s.Target.NoMarkers = true
	s.Migration.OnDeleted = delta.Tag
	id := s.ticket("one")
	s.full()
	s.say(id, "first")
	lost := loseOnce("apply")
	s.Target.Lose = func(op string, ref desk.Ref) error {
		err := lost(op, ref)
		if err != nil {
			s.Source.Remove(ticket(id))
		}
		return err
	}
	s.delta()
	s.delta()
	s.Source.Restore(ticket(id))
	s.delta()
	s.held("may have been added already")
	s.thread(id, "first")
}

// One event after the other.
func TestSpamThenDeleted(t *testing.T) {
	s := newStage(t)
	s.Migration.OnSpam, s.Migration.OnDeleted = delta.Close, delta.Mirror
	id := s.ticket("one", "first")
	s.full()
	s.Source.Junk(ticket(id))
	s.delta()
	s.field(id, desk.Status, "[resolved]")
	s.Source.Remove(ticket(id))
	s.delta()
	s.absent(id)
	s.Source.Restore(ticket(id))
	s.delta()
	s.thread(id, "first")
	s.field(id, desk.Status, "[open]")
}

// A merge is taken back in the source.
func TestUnmerged(t *testing.T) {
	for _, tc := range []struct {
		name       string
		policy     delta.OnEvent
		merger     bool
		a, b       []string // afterwards
		keptStatus string
	}{
		{"mirror", delta.Mirror, true, []string{"a1", "a2"}, []string{"b1", takenText, takenText, "b2"}, ""},
		{"mirror, cannot merge", delta.Mirror, false, []string{"a1", "a2"}, []string{"b1", takenText, takenText, "b2"}, "[resolved]"},
		{"close", delta.Close, true, []string{"a1", "a2"}, []string{"b1", takenText, takenText, "b2"}, "[resolved]"},
		{"ignore", delta.Ignore, true, []string{"a1", "a2"}, []string{"b1", takenText, takenText, "b2"}, "[open]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			s.Migration.OnMerged, s.Target.NoMerger = tc.policy, !tc.merger
			b := s.ticket("b", "b1")
			a := s.ticket("a", "a1", "a2")
			s.full()
			s.Source.Join(ticket(a), ticket(b))
			s.delta()
			if tc.keptStatus == "" {
				s.absent(a)
			} else {
				s.field(a, desk.Status, tc.keptStatus)
			}
			s.verified(0)
			s.say(b, "b2")
			s.delta()
			s.Source.Part(ticket(a))
			s.delta()
			s.thread(a, tc.a...)
			got := bodies(s.Target.Look()["ticket/"+b][0])
			slices.Sort(got)
			slices.Sort(tc.b)
			same(t, "thread of b", tc.b, got)
			s.field(a, desk.Status, "[open]")
			s.nothingHeld()
			s.verified(0)
			// Merged again.
			s.Source.Join(ticket(a), ticket(b))
			s.delta()
			s.nothingHeld()
		})
	}
}

// Whoever comes first after a merge was taken back, nothing is taken out of the ticket that goes on.
func TestUnmergedOrder(t *testing.T) {
	for _, last := range []string{"a", "b"} {
		s := newStage(t)
		s.Migration.OnMerged = delta.Close
		b, a := s.ticket("b", "b1"), s.ticket("a", "a1", "a2")
		s.full()
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.Source.Part(ticket(a))
		once := false
		s.Source.Fail = func(op string, ref desk.Ref) error {
			if op == "read" && ref.ID == map[string]string{"a": a, "b": b}[last] && !once {
				once = true
				return &desk.Error{Op: op, Class: desk.ErrThrottled}
			}
			return nil
		}
		s.delta()
		s.thread(a, "a1", "a2")
		if got := s.Target.Calls["revise"]; got != 2 {
			t.Errorf("%d entries revised, want the 2 that stayed behind in b", got)
		}
	}
}

// A ticket keeps its thread when it is merged again after a merge was taken back, and what is redacted then is redacted there, too.
func TestMergedAgainApart(t *testing.T) {
	s := newStage(t)
	s.Migration.OnMerged = delta.Close
	b, a := s.ticket("b", "b1"), s.ticket("a", "a1", "a2")
	s.full()
	s.Source.Join(ticket(a), ticket(b))
	s.delta()
	s.Source.Part(ticket(a))
	s.delta()
	s.Source.Join(ticket(a), ticket(b))
	s.delta()
	s.thread(a, "a1", "a2")
	s.thread(b, "b1", "a1", "a2")
	s.Source.Redact(b, 2)
	s.delta()
	s.thread(a, "a1", takenText)
	s.thread(b, "b1", "a1", "(redacted)")
	s.verified(0)
}

// The tag of a merge whose answer was lost goes as well when the merge is taken back.
func TestUnmergedTag(t *testing.T) {
	s := newStage(t)
	s.Migration.OnMerged = delta.Tag
	b, a := s.ticket("b", "b1"), s.ticket("a", "a1")
	s.full()
	s.Source.Join(ticket(a), ticket(b))
	s.Target.Lose = loseOnce("apply")
	s.delta()
	s.field(a, desk.Tags, "[deleted-in-source]")
	s.Source.Part(ticket(a))
	s.delta()
	s.field(a, desk.Tags, "")
}

// The answer to the create of a ticket that was taken out of a merge is lost, and the search in the target knows the ticket it
// was merged into by the same reference: that one is another's.
func TestUnmergedInDoubt(t *testing.T) {
	for _, done := range []bool{true, false} {
		s := newStage(t)
		s.Target.FindsMerged = true
		b, a := s.ticket("b", "b1"), s.ticket("a", "a1")
		s.full()
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.Source.Part(ticket(a))
		if done {
			s.Target.Lose = loseOnce("create")
		} else {
			s.Target.Fail = failOnce("create", desk.ErrTransient)
		}
		s.delta()
		s.delta()
		s.thread(a, "a1")
		s.thread(b, "b1", takenText)
		s.nothingHeld()
		s.verified(0)
	}
}

// What a ticket that was taken out of a merge left behind in another's ticket carries its id for good. Whoever looks for the one takes
// it for nothing else: not where people deleted what was made in its place, not where that was never made or is merged again into a
// third one, not when the other one was merged itself, or was not the first, and no undo does.
func TestUnmergedIsNotItsOwn(t *testing.T) {
	begin := func(t *testing.T) (s *stage, a, b, c string) {
		s = newStage(t)
		s.Target.FindsMerged = true
		b, a, c = s.ticket("b", "b1"), s.ticket("a", "a1"), s.ticket("c", "c1")
		s.full()
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.Source.Part(ticket(a))
		return s, a, b, c
	}
	never := func(then func()) func(string, desk.Ref) error { // no create arrives
		return func(op string, _ desk.Ref) error {
			if op != "create" {
				return nil
			}
			if then != nil {
				then()
			}
			return noAnswer()
		}
	}
	t.Run("deleted by people", func(t *testing.T) {
		s, a, b, _ := begin(t)
		s.delta()
		s.thread(a, "a1")
		made, err := s.Target.AsTarget().(desk.Finder).Find(ctx, ticket(a))
		if err != nil || len(made) != 2 {
			t.Fatalf("found %v, %v; want what stayed behind in b and the new one", made, err)
		}
		s.Target.Remove(ticket(made[1]))
		run(t, s.World, delta.Request{Kind: delta.Full, Scope: "all", Restart: true, Adopt: true})
		s.thread(b, "b1", takenText)
		s.held("deleted in the target")
	})
	for _, made := range []bool{true, false} {
		t.Run(fmt.Sprintf("merged again, made=%v", made), func(t *testing.T) {
			s, a, b, c := begin(t)
			if again := func() { s.Source.Join(ticket(a), ticket(c)) }; made {
				lose(t, s.Target, "create", again)
			} else {
				s.Target.Fail = never(again)
			}
			s.delta()
			s.Target.Fail = nil
			s.delta()
			s.thread(b, "b1", takenText)
			got := bodies(s.Target.Look()["ticket/"+c][0])
			slices.Sort(got)
			same(t, "thread of c", []string{"a1", "c1"}, got)
			s.nothingHeld()
		})
	}
	t.Run("the other one merged", func(t *testing.T) {
		s, a, b, c := begin(t)
		s.Target.Fail = never(func() { s.Source.Join(ticket(b), ticket(c)) })
		s.delta()
		s.delta()
		s.Target.Fail = nil
		s.delta()
		s.thread(a, "a1")
		s.thread(c, "b1", takenText, "c1")
		s.nothingHeld()
	})
	t.Run("taken out twice", func(t *testing.T) {
		s, a, b, c := begin(t)
		s.delta()
		s.Source.Join(ticket(a), ticket(c))
		s.delta()
		s.Source.Part(ticket(a))
		s.Target.Fail = never(nil)
		s.delta()
		s.Target.Fail = nil
		s.delta()
		s.thread(a, "a1")
		s.thread(b, "b1", takenText)
		s.thread(c, takenText, "c1")
		s.nothingHeld()
	})
	t.Run("undone", func(t *testing.T) {
		s, a, _, _ := begin(t)
		s.Target.Fail = never(nil)
		s.Wait(time.Hour)
		r := run(t, s.World, mainDelta)
		s.Target.Fail = nil
		if why := stays(reportOf(t, s.World, run(t, s.World, undo(r.ID)).ID), "ticket/"+a); why != "" {
			t.Errorf("the undo leaves it, because %s; it was never made", why)
		}
	})
}

// A merge is turned round between two runs: what lives on in the target goes on, as the other ticket.
func TestMergeTurnedRound(t *testing.T) {
	s := newStage(t)
	a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
	s.full()
	s.Source.Join(ticket(a), ticket(b))
	s.delta()
	s.Source.Part(ticket(a))
	s.Source.Join(ticket(b), ticket(a))
	s.say(a, "a2")
	s.delta()
	s.absent(a)
	s.thread(b, "a1", "b1", "a2")
	s.field(b, desk.Subject, "[a]")
	s.nothingHeld()
	s.verified(0)
}

// The same of a ticket that never was in the target, in desks that neither merge nor show which entries are ours; and whoever turns it
// round dies at any effect. Nothing is there twice: what is not known is asked.
func TestMergeTurnedRoundCutOff(t *testing.T) {
	for n := 1; n < 60; n++ {
		s := newStage(t)
		s.Target.NoMerger, s.Target.NoMarkers, s.Target.NoReviser = true, true, true
		s.full()
		a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.thread(b, "a1", "b1")
		s.Source.Part(ticket(a))
		s.Source.Join(ticket(b), ticket(a))
		s.say(a, "a2")
		s.Wait(time.Hour)
		s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		run(t, s.World, mainDelta)
		if s.Restarts == 0 {
			return
		}
		want := []string{"a1", "b1", "a2"}
		if hs, err := s.Engine().HeldRecords(ctx); err != nil || len(hs) > 0 {
			s.held("may have been added already")
			want = want[:min(3, len(s.Target.Look()["ticket/"+b][0].Entries))]
		}
		s.thread(b, want...)
		if t.Failed() {
			t.Fatalf("cut off at %s", s.Effects.Names[s.Effects.Cuts[0].Effect-1])
		}
	}
}

// What the target's people do to migrated tickets, and what the source does then.
func TestTargetSide(t *testing.T) {
	type pair struct {
		*stage
		a, b, own string // own: a ticket of the target's people
		ta, tb    desk.Ref
	}
	merge := func(s *pair, from, into desk.Ref) { s.Target.Join(from, into) }
	for _, tc := range []struct {
		name   string
		policy delta.OnGone
		people func(s *pair)
		source func(s *pair)
		check  func(s *pair)
	}{
		{"merged into another migrated one", "", func(s *pair) { merge(s, s.ta, s.tb) }, func(s *pair) {
			s.say(s.a, "a2")
			s.Source.Edit(ticket(s.a), desk.Fields{desk.Subject: {"changed"}})
		}, func(s *pair) {
			s.absent(s.a)
			s.thread(s.b, "a1", "b1", "a2")
			s.field(s.b, desk.Subject, "[b]")
		}},
		{"the survivor goes on", "", func(s *pair) { merge(s, s.ta, s.tb) }, func(s *pair) {
			s.say(s.b, "b2")
			s.Source.Edit(ticket(s.b), desk.Fields{desk.Subject: {"changed"}})
		}, func(s *pair) {
			s.thread(s.b, "a1", "b1", "b2")
			s.field(s.b, desk.Subject, "[changed]")
		}},
		{"merged into one of their own", "", func(s *pair) { merge(s, s.ta, ticket(s.own)) }, func(s *pair) { s.say(s.a, "a2") }, func(s *pair) {
			same(s.t, "own ticket", []string{"own words", "a1", "a2"}, sortedLike([]string{"own words", "a1", "a2"}, bodies(s.Target.Look()["own ticket/"+s.own][0])))
		}},
		{"merged twice, in a chain", "", func(s *pair) { merge(s, s.ta, s.tb); merge(s, s.tb, ticket(s.own)) }, func(s *pair) { s.say(s.a, "a2"); s.say(s.b, "b2") }, func(s *pair) {
			want := []string{"own words", "a1", "b1", "a2", "b2"}
			same(s.t, "own ticket", want, sortedLike(want, bodies(s.Target.Look()["own ticket/"+s.own][0])))
		}},
		{"merged twice, with a run between", "", func(s *pair) {
			merge(s, s.ta, s.tb)
			s.say(s.a, "a2")
			s.delta()
			merge(s, s.tb, ticket(s.own))
		}, func(s *pair) { s.say(s.a, "a3") }, func(s *pair) {
			want := []string{"own words", "a1", "b1", "a2", "a3"}
			same(s.t, "own ticket", want, sortedLike(want, bodies(s.Target.Look()["own ticket/"+s.own][0])))
		}},
		{"the survivor is deleted", "", func(s *pair) { merge(s, s.ta, s.tb); s.Target.Remove(s.tb) }, func(s *pair) { s.say(s.a, "a2") }, func(s *pair) {
			s.held("deleted in the target")
			if err := s.Engine().Decide(ctx, ticket(s.a), "", "", delta.Decision{Choice: delta.ChooseCreate}); err != nil {
				s.t.Fatal(err)
			}
			s.delta()
			s.thread(s.a, "a1", "a2")
			s.say(s.b, "b2")
			s.delta()
			s.held("deleted in the target")
			s.absent(s.b)
		}},
		{"the survivor is deleted, policy recreate", delta.RecreateGone, func(s *pair) { merge(s, s.ta, s.tb); s.Target.Remove(s.tb) }, func(s *pair) { s.say(s.a, "a2"); s.say(s.b, "b2") }, func(s *pair) {
			s.thread(s.a, "a1", "a2")
			s.thread(s.b, "b1", "b2")
		}},
		{"the survivor is deleted and restored", "", func(s *pair) { merge(s, s.ta, s.tb); s.Target.Remove(s.tb) }, func(s *pair) {
			s.say(s.a, "a2")
			s.delta()
			s.held("deleted in the target")
			s.Target.Restore(s.tb)
		}, func(s *pair) {
			s.nothingHeld()
			s.thread(s.b, "a1", "b1", "a2")
		}},
		{"deleted and restored", "", func(s *pair) { s.Target.Remove(s.ta) }, func(s *pair) {
			s.say(s.a, "a2")
			s.delta()
			s.held("deleted in the target")
			s.Target.Restore(s.ta)
			s.say(s.a, "a3")
		}, func(s *pair) {
			s.nothingHeld()
			s.thread(s.a, "a1", "a2", "a3")
		}},
		{"merged, and the source merges the same way", "", func(s *pair) { merge(s, s.ta, s.tb) }, func(s *pair) { s.Source.Join(ticket(s.a), ticket(s.b)); s.say(s.b, "b2") }, func(s *pair) {
			s.absent(s.a)
			s.thread(s.b, "a1", "b1", "b2")
		}},
		{"merged, and the source merges the other way", "", func(s *pair) { merge(s, s.tb, s.ta) }, func(s *pair) { s.Source.Join(ticket(s.a), ticket(s.b)); s.say(s.b, "b2") }, func(s *pair) {
			s.absent(s.b)
			s.thread(s.a, "a1", "b1", "b2")
		}},
		{"merged and seen, and the source merges the other way", "", func(s *pair) { merge(s, s.tb, s.ta); s.say(s.b, "b2"); s.delta() }, func(s *pair) { s.Source.Join(ticket(s.a), ticket(s.b)); s.say(s.b, "b3") }, func(s *pair) {
			s.absent(s.b)
			s.thread(s.a, "a1", "b1", "b2", "b3")
		}},
		{"merged into their own, and the source merges", "", func(s *pair) { merge(s, s.ta, ticket(s.own)) }, func(s *pair) { s.Source.Join(ticket(s.a), ticket(s.b)); s.say(s.b, "b2") }, func(s *pair) {
			// Their ticket is left alone; the survivor has the whole thread, as in the source.
			s.thread(s.b, "b1", "a1", "b2")
			same(s.t, "own ticket", []string{"a1", "own words"}, sortedLike([]string{"a1", "own words"}, bodies(s.Target.Look()["own ticket/"+s.own][0])))
			if x, err := s.Engine().Explain(ctx, ticket(s.a)); err != nil || x.Target != s.own || x.Into != s.b {
				s.t.Errorf("%+v, %v; want target %s, merged into %s", x, err, s.own, s.b)
			}
			s.Source.Redact(s.b, 0) // what was a's
			s.delta()
			s.thread(s.b, "b1", "(redacted)", "b2")
			same(s.t, "own ticket", []string{takenText, "own words"}, sortedLike([]string{takenText, "own words"}, bodies(s.Target.Look()["own ticket/"+s.own][0])))
		}},
		{"deleted, and the source merges", "", func(s *pair) { s.Target.Remove(s.ta) }, func(s *pair) { s.Source.Join(ticket(s.a), ticket(s.b)) }, func(s *pair) {
			s.thread(s.b, "b1", "a1")
		}},
		{"merged, and the merged one is deleted in the source", "", func(s *pair) { merge(s, s.ta, s.tb) }, func(s *pair) { s.Source.Remove(ticket(s.a)) }, func(s *pair) { s.thread(s.b, "a1", "b1") }},
		{"merged, and the survivor is deleted in the source", "", func(s *pair) { merge(s, s.ta, s.tb) }, func(s *pair) { s.Source.Remove(ticket(s.b)) }, func(s *pair) { s.thread(s.b, "a1", "b1") }},
		{"merged, and an entry is redacted in the source", "", func(s *pair) { merge(s, s.ta, s.tb) }, func(s *pair) { s.Source.Redact(s.a, 0) }, func(s *pair) { s.thread(s.b, "(redacted)", "b1") }},
		{"an entry of ours is removed, then redacted in the source", "", func(s *pair) { s.Target.Drop(s.ta.ID, 0) }, func(s *pair) { s.Source.Redact(s.a, 0) }, func(s *pair) { s.thread(s.a) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &pair{stage: newStage(t)}
			s.Migration.OnDeleted = delta.Mirror
			if tc.policy != "" {
				s.Migration.OnTargetGone = tc.policy
			}
			s.a, s.b = s.ticket("a", "a1"), s.ticket("b", "b1")
			s.own = s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"own"}})
			s.Target.Say(s.own, true, desk.Author{Name: "agent"}, "own words", nil)
			s.full()
			s.ta, s.tb = s.there(s.a), s.there(s.b)
			s.Wait(time.Hour)
			tc.people(s)
			tc.source(s)
			s.delta()
			tc.check(s)
			if hs, err := s.Engine().HeldRecords(ctx); err == nil && len(hs) == 0 {
				s.verified(0)
			}
		})
	}
}

// sortedLike returns got in the order of want, what want does not have behind.
func sortedLike(want, got []string) []string {
	got = slices.Clone(got)
	slices.SortStableFunc(got, func(x, y string) int {
		place := func(s string) int {
			if i := slices.Index(want, s); i >= 0 {
				return i
			}
			return len(want)
		}
		return place(x) - place(y)
	})
	return got
}

// Merges in the source that are more than one step, or lead out of what moves.
func TestMergesInSource(t *testing.T) {
	group := func(s *stage, subject, group string, entries ...string) string {
		id := s.Source.Add(desk.Ticket, desk.Fields{desk.Subject: {subject}, desk.Status: {"open"}, desk.Group: {group}})
		s.say(id, entries...)
		return id
	}
	t.Run("a chain in one go", func(t *testing.T) {
		for _, order := range []string{"abc", "bca"} {
			s := newStage(t)
			a, b, c := s.ticket("a", "a1"), s.ticket("b", "b1"), s.ticket("c", "c1")
			s.full()
			if order == "abc" {
				s.Source.Join(ticket(a), ticket(b))
				s.Source.Join(ticket(b), ticket(c))
			} else {
				s.Source.Join(ticket(b), ticket(c))
				s.Source.Join(ticket(a), ticket(c))
			}
			s.say(c, "c2")
			s.delta()
			s.absent(a)
			s.absent(b)
			s.thread(c, "a1", "b1", "c1", "c2")
			s.verified(0)
		}
	})
	t.Run("a chain with a run between", func(t *testing.T) {
		s := newStage(t)
		a, b, c := s.ticket("a", "a1"), s.ticket("b", "b1"), s.ticket("c", "c1")
		s.full()
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.thread(b, "a1", "b1")
		s.Source.Join(ticket(b), ticket(c))
		s.say(c, "c2")
		s.delta()
		s.thread(c, "a1", "b1", "c1", "c2")
		s.Source.Redact(c, 0) // what was a's
		s.delta()
		s.thread(c, "(redacted)", "b1", "c1", "c2")
		s.verified(0)
	})
	t.Run("in a circle", func(t *testing.T) {
		// No desk should; one that does must not keep a run from ending, and nothing may be there twice.
		s := newStage(t)
		a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
		src := &circle{Source: s.Source.AsSource(), a: a, b: b}
		play := own(t, s.World, src, s.Target.AsTarget())
		for i, q := range []delta.Request{fullAll, mainDelta, mainDelta, mainDelta} {
			if i > 0 {
				src.on = true
				s.Source.Edit(ticket(a), desk.Fields{desk.Priority: {fmt.Sprint(i)}})
				s.Source.Edit(ticket(b), desk.Fields{desk.Priority: {fmt.Sprint(i)}})
				s.Wait(time.Hour)
			}
			if r, err := play(q); err != nil {
				t.Fatal(r.Status, err)
			}
		}
		count := map[string]int{}
		for _, all := range s.Target.Look() {
			for _, seen := range all {
				for _, body := range bodies(seen) {
					count[body]++
				}
			}
		}
		if d := cmp.Diff(map[string]int{"a1": 1, "b1": 1}, count); d != "" {
			t.Errorf("entries in the target (-want +got):\n%s", d)
		}
	})
	t.Run("into one outside the scope, which comes in later", func(t *testing.T) {
		for _, policy := range []delta.OnEvent{delta.Mirror, delta.Tag, delta.Ignore} {
			s := newStage(t)
			s.Migration.OnMerged = policy
			b, a := group(s, "b", "Sales", "b1"), group(s, "a", "Support", "a1")
			s.Wait(time.Hour)
			run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
			s.Source.Join(ticket(a), ticket(b))
			s.Wait(time.Hour)
			support := delta.Request{Kind: delta.Delta, Window: "support"}
			run(t, s.World, support)
			s.thread(a, "a1")
			s.absent(b)
			s.field(a, desk.Status, map[delta.OnEvent]string{delta.Mirror: "[resolved]", delta.Tag: "[open]", delta.Ignore: "[open]"}[policy])
			s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Support"}})
			s.Wait(time.Hour)
			rep := reportOf(t, s.World, run(t, s.World, support).ID)
			s.thread(b, "b1", "a1")
			if policy == delta.Mirror && losses(rep, "kept-copy") != 1 {
				t.Errorf("a1 is in both tickets, and the report says %+v", rep.Losses)
			}
		}
	})
	t.Run("into one that was never migrated", func(t *testing.T) {
		s := newStage(t)
		a := s.ticket("a", "a1")
		s.full()
		b := s.ticket("b", "b1")
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.absent(a)
		s.thread(b, "a1", "b1")
		s.verified(0)
	})
	t.Run("one that was never migrated", func(t *testing.T) {
		s := newStage(t)
		b := s.ticket("b", "b1")
		s.full()
		a := s.ticket("a", "a1")
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.absent(a)
		s.thread(b, "b1", "a1")
		s.verified(0)
	})
	t.Run("one that is held", func(t *testing.T) {
		s := newStage(t)
		a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
		s.full()
		s.Target.Edit(s.there(a), desk.Fields{desk.Status: {"resolved"}})
		s.Source.Edit(ticket(a), desk.Fields{desk.Status: {"stalled"}})
		s.delta()
		s.held("status changed on both sides")
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.nothingHeld()
		s.thread(b, "a1", "b1")
	})
	t.Run("into one that is deleted before a run sees it", func(t *testing.T) {
		s := newStage(t)
		s.Migration.OnDeleted = delta.Mirror
		a, b := s.ticket("a", "a1"), s.ticket("b", "b1")
		s.full()
		s.Source.Join(ticket(a), ticket(b))
		s.Source.Remove(ticket(b))
		s.delta()
		s.absent(a)
		s.absent(b)
		s.Source.Restore(ticket(b))
		s.delta()
		s.absent(a)
		s.thread(b, "a1", "b1")
		s.verified(0)
	})
	t.Run("out of one ticket into another", func(t *testing.T) {
		s := newStage(t)
		a, b, c := s.ticket("a", "a1"), s.ticket("b", "b1"), s.ticket("c", "c1")
		s.full()
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		s.Source.Part(ticket(a))
		s.Source.Join(ticket(a), ticket(c))
		s.delta()
		s.absent(a)
		s.thread(b, takenText, "b1")
		s.thread(c, "c1", "a1")
		s.nothingHeld()
	})
}

// circle is a source of which two tickets each answer with the other one.
type circle struct {
	desk.Source
	a, b string
	on   bool
}

func (c *circle) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	if !c.on || ref.Kind != desk.Ticket {
		return c.Source.Read(ctx, ref)
	}
	other := map[string]string{c.a: c.b, c.b: c.a}[ref.ID]
	r, err := c.Source.Read(ctx, ticket(other))
	mine, err2 := c.Source.Read(ctx, ref)
	if err == nil {
		err = err2
	}
	r.Entries = append(slices.Clone(r.Entries), mine.Entries...)
	slices.SortFunc(r.Entries, func(x, y desk.Entry) int { return x.At.Compare(y.At) })
	r.Aliases = []string{ref.ID}
	if mine.Stamp.At.After(r.Stamp.At) || mine.Stamp.Seq > r.Stamp.Seq {
		r.Stamp = mine.Stamp
	}
	return r, err
}

// What no delta has carried over yet, verify finds.
func TestVerifyFindsWhatIsReadable(t *testing.T) {
	for words, do := range map[string]func(*deltatest.Desk, string, int){
		"text": (*deltatest.Desk).Redact, "visibility": (*deltatest.Desk).Flip, "is no longer in the source's ticket": (*deltatest.Desk).Drop,
	} {
		s := newStage(t)
		id := s.ticket("one", "first", "second")
		s.full()
		do(s.Source, id, 0)
		rep := reportOf(t, s.World, run(t, s.World, delta.Request{Kind: delta.Verify, Scope: "all"}).ID)
		if rep.Counts.Failed != 1 || !strings.Contains(rep.Exceptions[0].Reason, words) {
			t.Errorf("got %+v, want the words %q", rep.Exceptions, words)
		}
		s.delta()
		s.verified(0)
	}
}

// A policy that the target cannot follow is refused before anything is written.
func TestPoliciesFitTheTarget(t *testing.T) {
	for _, tc := range []struct {
		policy func(*delta.Policies)
		says   string
	}{
		{func(p *delta.Policies) { p.OnDeleted = delta.Mirror }, "policies.deleted: mirror deletes the ticket in the target, and this target cannot"},
		{func(p *delta.Policies) { p.OnSpam = delta.Mirror }, "policies.spam: mirror deletes"},
		{func(p *delta.Policies) { p.OnRevised = delta.Tag }, "policies.event_tag (of policies.revised), in the target: there is no field tags"},
		{func(p *delta.Policies) { p.OnSplit = delta.Close }, `policies.closed_status (of policies.split), in the target: status has no value "resolved"`},
	} {
		s := newStage(t)
		tc.policy(&s.Migration.Policies)
		tgt := &poorTarget{Target: s.Target.AsTarget()}
		play := own(t, s.World, s.Source.AsSource(), tgt)
		if _, err := play(fullAll); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("got %v, want the words %q", err, tc.says)
		}
	}
}

// poorTarget can neither delete nor tag, and knows one status.
type poorTarget struct{ desk.Target }

func (*poorTarget) Define(context.Context) (desk.Definitions, error) {
	return desk.Definitions{Fields: map[desk.Kind][]desk.FieldDef{desk.Ticket: {
		{Field: desk.Subject, Write: desk.Always}, {Field: desk.Status, Write: desk.Always, Options: []string{"open"}},
	}}}, nil
}

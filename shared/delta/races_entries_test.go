package delta_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// Races around single entries: edited, hidden, taken out or moved on either side while they are on their way.

// A ticket has lost an entry to another one, and fails when it is about to settle what becomes of the copy.
func TestRaceMovedThenFailed(t *testing.T) {
	s := newStage(t)
	s.Migration.OnSplit, s.Migration.OnRevised = delta.Mirror, delta.Ignore
	id := s.ticket("one", "stays", "moves")
	full(t, s.World)
	s.Wait(time.Hour)
	other := s.Source.Move(id, 1, "", desk.Fields{desk.Subject: {"other"}, desk.Status: {"open"}, desk.Group: {"Support"}})
	reads := 0
	s.Source.Fail = func(op string, ref desk.Ref) error {
		if op != "read" || ref != ticket(id) {
			return nil
		}
		if reads++; reads == 2 {
			return &desk.Error{Op: op, Class: desk.ErrRejected, Said: "for a moment"}
		}
		return nil
	}
	s.Wait(time.Minute)
	run(t, s.World, mainDelta)
	s.delta()
	s.delta()
	s.thread(other, "moves")
	s.thread(id, "stays", takenText)
}

// A run is cancelled when it has still to settle what became of an entry that left a ticket. The next one waits, too, until all
// others have said what they got.
func TestRaceMovedBehindCancelled(t *testing.T) {
	s := newStage(t)
	s.Migration.OnSplit, s.Migration.OnRevised = delta.Ignore, delta.Mirror
	id, other := s.ticket("one", "stays", "moves"), s.ticket("other", "of other")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Move(id, 1, other, nil)
	s.Source.Fail = func(op string, ref desk.Ref) error {
		if op == "read" && ref == ticket(other) { // before it was read
			o, err := s.Engine().Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range o.Runs {
				if !r.Status.Ended() {
					if err := s.Engine().Cancel(ctx, r.ID, "the operator"); err != nil {
						t.Error(err)
					}
				}
			}
			return noAnswer()
		}
		return nil
	}
	if r := run(t, s.World, mainDelta); r.Status != delta.Cancelled {
		t.Errorf("it is %s", r.Status)
	}
	s.Source.Fail = nil
	s.delta()
	s.delta()
	s.thread(id, "stays", "moves") // as the policy says
	s.thread(other, "of other", "moves")
}

// Policy close for an entry that changed; the ticket moves in the target between our reading and our write.
func TestRaceMarkAfterConflict(t *testing.T) {
	for _, policy := range []delta.OnEvent{delta.Close, delta.Tag} {
		for _, flip := range []bool{false, true} { // which is mirrored
			s := newStage(t)
			s.Migration.OnRevised, s.Migration.ClosedStatus = policy, "closed"
			id := s.ticket("one", "hello")
			full(t, s.World)
			s.Wait(time.Hour)
			if s.Source.Redact(id, 0); flip {
				s.Source.Flip(id, 0)
			}
			s.say(id, "more")
			at(s.Target, "apply", 1, func() error {
				s.Target.Say(s.there(id).ID, true, desk.Author{Name: "Agent"}, "people's", nil)
				return nil
			})
			rep := s.delta()
			s.Target.Fail = nil
			if policy == delta.Close {
				s.field(id, desk.Status, "[closed]")
			} else {
				s.field(id, desk.Tags, "[deleted-in-source]")
			}
			if n := losses(rep, "kept-copy"); n != 1 {
				t.Errorf("%d kept copies in the report, want 1", n)
			}
			first := "hello"
			if flip {
				first = "-hello"
			}
			s.thread(id, first, "people's", "more")
			if rep := s.delta(); rep.Counts.Planned > 0 {
				t.Errorf("%+v", rep.Counts)
			}
		}
	}
}

// Bytes of a file that were replaced by as many others.
func TestRaceHealSameSize(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one")
	s.Source.Say(id, true, customer, "with a file", map[string][]byte{"a.txt": []byte("aaaa")})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Replace(id, 0, []byte("bbbb"), false)
	s.delta()
	verify := delta.Request{Kind: delta.Verify, Scope: "all", Heal: true}
	run(t, s.World, verify)
	s.delta()
	rep := reportOf(t, s.World, run(t, s.World, verify).ID)
	if rep.Counts.Failed > 0 {
		t.Error("it is not healed")
	}
}

// People took an entry out of the target, in a desk that shows no markers, and the source changes it.
func TestRaceReviseOfTakenOut(t *testing.T) {
	s := newStage(t)
	s.Target.NoMarkers = true
	id := s.ticket("one", "first", "second")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Target.Drop(s.there(id).ID, 0)
	s.Source.Redact(id, 0)
	s.say(id, "third")
	s.delta()
	s.delta()
	s.thread(id, "second", "third")
}

// The answer to a revision is lost, and the source takes the change back: the target follows.
func TestRaceRevisedAndBack(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one", "hello")
	full(t, s.World)
	s.Wait(time.Hour)
	say := func(body string) { s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = body }) }
	say("edited")
	lose(t, s.Target, "revise", func() { say("hello") })
	s.delta()
	s.delta()
	s.thread(id, "hello")
}

// A revision loses its answer, and whoever takes it over dies in the middle of the next write: what he found out of the revision is not
// forgotten, so that the source's going back is no edit of people's.
func TestRaceRevisedThenCutOff(t *testing.T) {
	for n := 1; n < 60; n++ {
		s := newStage(t)
		id := s.ticket("one", "hello")
		full(t, s.World)
		s.Wait(time.Hour)
		say := func(body string) { s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = body }) }
		say("well")
		lose(t, s.Target, "revise", func() {
			s.Wait(time.Minute)
			s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
			s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
		})
		back := false
		if _, err := s.World.Run(mainDelta, func() {
			if s.Restarts > 0 && !back {
				back = true
				s.Wait(time.Minute)
				say("hello")
			}
		}); err != nil {
			t.Fatal(err)
		}
		if s.Restarts == 0 {
			return
		}
		s.delta()
		s.thread(id, "hello")
		if t.Failed() {
			t.Fatalf("cut off at %s", s.Effects.Names[s.Effects.Cuts[0].Effect-1])
		}
	}
}

// signing is a target that shows our entries its own way.
type signing struct{ desk.Target }

func (x *signing) Read(ctx context.Context, ref desk.Ref) (desk.Record, error) {
	r, err := x.Target.Read(ctx, ref)
	for i := range r.Entries {
		if r.Entries[i].Marker != "" {
			r.Entries[i].Body += " (signed)"
		}
	}
	return r, err
}

func (x *signing) Find(ctx context.Context, source desk.Ref) ([]string, error) {
	return x.Target.(desk.Finder).Find(ctx, source)
}

func (x *signing) Revise(ctx context.Context, ticket desk.Ref, en desk.Entry, lock string) error {
	return x.Target.(desk.Reviser).Revise(ctx, ticket, en, lock)
}

// How such a target shows an entry is no edit of people's: not when it came with the create, and not when the next call after it came, or
// after it was revised, is refused. What the source changes then goes through.
func TestRaceShownInItsOwnWay(t *testing.T) {
	for _, tc := range []struct {
		name    string
		refused int // which call to write the ticket
		change  func(s *stage, id string)
	}{
		{"created", 0, func(*stage, string) {}},
		{"added", 2, func(s *stage, id string) {
			s.say(id, "second")
			s.Source.Say(id, true, customer, "third", map[string][]byte{"a.txt": []byte("a")})
		}},
		{"revised", 1, func(s *stage, id string) {
			s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = "changed" })
			s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			id := s.ticket("one", "first")
			r := own(t, s.World, s.World.Source.AsSource(), &signing{s.World.Target.AsTarget()})
			do := func(q delta.Request) {
				t.Helper()
				s.Wait(time.Hour)
				run, err := r(q)
				if err != nil {
					t.Fatal(err)
				}
				if rep := reportOf(t, s.World, run.ID); len(rep.Kept) > 0 {
					t.Errorf("the report says that people changed %v", rep.Kept)
				}
			}
			do(delta.Request{Kind: delta.Full, Scope: "all"})
			tc.change(s, id)
			at(s.Target, "apply", tc.refused, func() error { return &desk.Error{Op: "apply", Class: desk.ErrConflict} })
			do(mainDelta)
			s.Target.Fail = nil
			n := len(s.Target.Look()["ticket/"+id][0].Entries)
			s.Source.Redact(id, min(n, 2)-1)
			do(mainDelta)
			if got := bodies(s.Target.Look()["ticket/"+id][0]); got[min(n, 2)-1] != "(redacted)" {
				t.Errorf("the thread is %q; want what was redacted in the source to be so there", got)
			}
			s.nothingHeld()
		})
	}
}

// The source hides an entry whose words people had changed in the target: the words stay theirs, whether the answer arrives or not. When
// the source changes the words as well, a person is asked.
func TestRaceTurnedBesidePeoples(t *testing.T) {
	for _, lost := range []bool{false, true} {
		s := newStage(t)
		id := s.ticket("one", "hello")
		full(t, s.World)
		s.Wait(time.Hour)
		s.Target.Revise(s.there(id).ID, 0, func(en *desk.Entry) { en.Body = "agent's words" })
		s.say(id, "more")
		s.delta()
		s.Source.Flip(id, 0)
		if lost {
			lose(t, s.Target, "revise", nil)
		}
		s.delta()
		s.thread(id, "-agent's words", "more")
		s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = "hello, edited" })
		s.delta()
		s.thread(id, "-agent's words", "more")
		s.held("people changed")
	}
}

// Other bytes are put in the place of a file, and neither its size nor its hash tells, after it was staged: what is copied is what the
// source has now, whether the words changed as well or the first attempt failed.
func TestRaceFileReplacedAfterStaging(t *testing.T) {
	for _, failed := range []bool{false, true} {
		s := newStage(t)
		s.Source.HidesSizes = true
		id := s.ticket("one")
		s.full()
		s.Source.Say(id, true, customer, "see the file", map[string][]byte{"a.txt": []byte("secret")})
		if failed {
			s.Target.Fail = failOnce("apply", desk.ErrRejected)
		}
		s.delta()
		s.Source.Replace(id, 0, []byte("public"), false)
		if !failed {
			s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = "see the other file" })
		}
		s.delta()
		same(t, "files", s.Source.Look()["own ticket/"+id][0].Files, s.Target.Look()["ticket/"+id][0].Files)
	}
}

// A reply loses its answer in a target that cannot show which entries are ours. Whatever the source does with the ticket before anybody
// has said what became of it, the reply is not added again: it is asked.
func TestRaceDoubtGoesAlong(t *testing.T) {
	begin := func(t *testing.T, merges bool, then func(s *stage, a, b string)) (s *stage, a, b string) {
		s = newStage(t)
		s.Target.NoMarkers, s.Target.NoMerger = true, !merges
		a, b = s.ticket("a", "a1"), s.ticket("b", "b1")
		s.full()
		s.say(a, "a2")
		lose(t, s.Target, "apply", func() {
			s.Wait(time.Second)
			then(s, a, b)
		})
		s.Wait(time.Hour)
		run(t, s.World, mainDelta)
		s.delta()
		return s, a, b
	}
	asked := func(s *stage, id string, want ...string) {
		s.t.Helper()
		got := bodies(s.Target.Look()["ticket/"+id][0])
		slices.Sort(got)
		same(s.t, "thread of "+id, want, got)
		s.held("may have been added already")
	}
	t.Run("merged, cut off", func(t *testing.T) {
		for n := 1; n < 60; n++ {
			s, _, b := begin(t, true, func(s *stage, a, b string) {
				s.Source.Join(ticket(a), ticket(b))
				s.Effects.Cuts = []deltatest.Cut{{Effect: s.Effects.Count() + n}}
			})
			if asked(s, b, "a1", "a2", "b1"); s.Restarts == 0 || t.Failed() {
				t.Logf("cut off at effect %d", n)
				return
			}
		}
	})
	t.Run("merged into a new one", func(t *testing.T) {
		c := ""
		s, _, _ := begin(t, true, func(s *stage, a, _ string) {
			c = addTicket(s.World, "c")
			s.Source.Join(ticket(a), ticket(c))
		})
		asked(s, c, "a1", "a2")
	})
	t.Run("deleted, restored and merged", func(t *testing.T) {
		s, a, b := begin(t, true, func(s *stage, a, b string) { s.Source.Remove(ticket(a)) })
		s.Source.Restore(ticket(a))
		s.Source.Join(ticket(a), ticket(b))
		s.delta()
		asked(s, b, "a1", "a2", "b1")
	})
	t.Run("moved away and back", func(t *testing.T) {
		to := ""
		s, a, _ := begin(t, true, func(s *stage, a, _ string) {
			to = s.Source.Move(a, 1, "", desk.Fields{desk.Subject: {"split"}, desk.Status: {"open"}, desk.Group: {"Support"}})
		})
		s.Source.Move(to, 0, a, nil)
		s.delta()
		asked(s, a, "a1", "a2")
	})
	t.Run("merged apart, and taken out again", func(t *testing.T) {
		s, a, _ := begin(t, false, func(s *stage, a, b string) { s.Source.Join(ticket(a), ticket(b)) })
		s.nothingHeld()
		s.Source.Part(ticket(a))
		s.delta()
		asked(s, a, "a1", "a2")
	})
}

// The answer to a reply is lost, and the source takes it out again before anybody has looked.
func TestRaceTakenOutBehindLostAnswer(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one", "hello")
	full(t, s.World)
	s.Wait(time.Hour)
	s.say(id, "secret")
	lose(t, s.Target, "apply", func() { s.Source.Drop(id, 1) })
	s.delta()
	s.delta()
	s.thread(id, "hello", takenText)
}

// People hid an entry that the source then changes, and the answer to the change is lost: it stays hidden.
func TestRaceHiddenByPeople(t *testing.T) {
	for _, lost := range []bool{false, true} {
		s := newStage(t)
		id := s.ticket("one", "hello")
		full(t, s.World)
		s.Wait(time.Hour)
		s.Target.Flip(s.there(id).ID, 0)
		s.Source.Redact(id, 0)
		if lost {
			lose(t, s.Target, "revise", nil)
		}
		s.delta()
		s.delta()
		s.thread(id, "-(redacted)")
	}
}

// A ticket that is made again has its history like the first time.
func TestRaceHistoryMadeAgain(t *testing.T) {
	for _, how := range []string{"gone", "parted"} {
		s := newStage(t)
		s.Migration.OnTargetGone = delta.RecreateGone
		id, b := s.ticket("one", "hello"), s.ticket("b", "of b")
		s.Source.Past(ticket(id), desk.StatusChange{At: s.Clock(), Before: "new", After: "open"})
		full(t, s.World)
		history := func() (n int) {
			for _, en := range s.Target.Look()["ticket/"+id][0].Entries {
				if strings.Contains(en, "status-history/") {
					n++
				}
			}
			return n
		}
		if history() != 1 {
			t.Fatal(s.Target.Look()["ticket/"+id])
		}
		s.Wait(time.Hour)
		if how == "gone" {
			s.Target.Remove(s.there(id))
			s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
		} else {
			s.Source.Join(ticket(id), ticket(b))
			s.delta()
			s.Source.Part(ticket(id))
		}
		s.delta()
		if history() != 1 {
			t.Errorf("%s: %v", how, s.Target.Look()["ticket/"+id])
		}
	}
}

// People take the event tag of an entry off.
func TestRaceTagTakenOffByPeople(t *testing.T) {
	s := newStage(t)
	s.Migration.OnRevised = delta.Tag
	id := s.ticket("one", "hello")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Redact(id, 0)
	s.delta()
	s.field(id, desk.Tags, "[deleted-in-source]")
	s.Target.Edit(s.there(id), desk.Fields{desk.Tags: nil})
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.delta()
	s.field(id, desk.Subject, "[two]")
	s.field(id, desk.Tags, "")
}

// An entry is in doubt, everything else of the push is known and committed. What people do after that is theirs.
func TestRaceDoubtKeepsIntent(t *testing.T) {
	s := newStage(t)
	s.Target.NoMarkers = true
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.SourceWins}
	id := s.ticket("one", "first", "second")
	full(t, s.World)
	s.Wait(time.Hour)
	s.say(id, "third")
	lose(t, s.Target, "apply", nil)
	run(t, s.World, mainDelta)
	s.held("may have been added already")
	s.Wait(time.Hour)
	at(s.Source, "read", 1, func() error { // after the listing: it is due, and read once
		s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"5"}})
		s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = "first, edited" })
		return nil
	})
	run(t, s.World, mainDelta)
	s.Source.Fail = nil
	s.field(id, desk.Priority, "[5]")
	s.thread(id, "first, edited", "second", "third")
	s.Wait(time.Hour)
	s.Target.Edit(s.there(id), desk.Fields{desk.Priority: {"9"}}) // only in the target
	s.Target.Revise(s.there(id).ID, 0, func(en *desk.Entry) { en.Body = "agent's words" })
	run(t, s.World, mainDelta)
	run(t, s.World, mainDelta)
	s.field(id, desk.Priority, "[9]")
	s.thread(id, "agent's words", "second", "third")
	s.Source.Revise(id, 0, func(en *desk.Entry) { en.Body = "first, edited again" })
	run(t, s.World, mainDelta)
	s.thread(id, "agent's words", "second", "third")
}

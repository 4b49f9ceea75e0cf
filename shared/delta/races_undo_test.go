package delta_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/delta/deltatest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// Races around undos: what is taken back is what the migration did, never what people did beside it.

// A run has written again, without the event's tag, the tags that people have set, and then people come to say what the source says. That is
// theirs as well: an undo of the run leaves it.
func TestRaceUndoOfWhatBothSay(t *testing.T) {
	s := newStage(t)
	s.Migration.OnDeleted = delta.Tag
	id := s.ticket("one", "first")
	s.Source.Edit(ticket(id), desk.Fields{desk.Tags: {"c", "e"}})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Target.Edit(s.there(id), desk.Fields{desk.Tags: {"b", "e"}})
	s.Source.Remove(ticket(id))
	run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	s.Source.Restore(ticket(id))
	r := run(t, s.World, mainDelta)
	s.field(id, desk.Tags, "[b e]")
	s.Target.Edit(s.there(id), desk.Fields{desk.Tags: {"c", "e"}})
	s.Wait(time.Hour)
	s.say(id, "more")
	run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	s.field(id, desk.Tags, "[c e]")
}

// A create loses its answer, and people work on the ticket before anybody has looked: it is asked about. Whether the answer is to
// leave it to them or still to come, an undo leaves the ticket.
func TestRaceUndoOfOpenCreate(t *testing.T) {
	for _, answered := range []bool{false, true} {
		s := newStage(t)
		full(t, s.World)
		s.Wait(time.Hour)
		id := s.ticket("one", "first")
		lose(t, s.Target, "create", func() {
			s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"by an agent"}})
		})
		r := run(t, s.World, mainDelta)
		s.held("subject")
		if answered {
			if err := s.Engine().Decide(ctx, ticket(id), desk.Subject, "", delta.Decision{Choice: delta.ChooseTarget}); err != nil {
				t.Fatal(err)
			}
			run(t, s.World, mainDelta)
		}
		s.Wait(time.Hour)
		run(t, s.World, undo(r.ID))
		s.field(id, desk.Subject, "[by an agent]")
	}
}

// Both sides change a field of a ticket that a delta has made, and a policy leaves it to the target's people: an undo of that delta
// does not take their work away with the ticket.
func TestRaceUndoOfKept(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Subject: delta.TargetWins}
	full(t, s.World)
	s.Wait(time.Hour)
	id := s.ticket("one", "first")
	r := run(t, s.World, mainDelta)
	s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"by an agent"}})
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	run(t, s.World, undo(r.ID))
	s.field(id, desk.Subject, "[by an agent]")
}

// A create loses its answer in a desk that nobody can search, and the source merges the ticket before anybody has looked. The report
// says that it may be in the target, and so does an undo.
func TestRaceUndoOfMergedOpenCreate(t *testing.T) {
	s := newStage(t)
	s.Target.NoFinder = true
	full(t, s.World)
	s.Wait(time.Hour)
	a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
	lost := false
	s.Target.Lose = func(op string, ref desk.Ref) error {
		if op != "create" || ref != ticket(a) || lost {
			return nil
		}
		lost = true
		s.Source.Join(ticket(a), ticket(b))
		return noAnswer()
	}
	r := run(t, s.World, mainDelta)
	if n := losses(reportOf(t, s.World, r.ID), "in-doubt"); n != 1 {
		t.Errorf("%d losses in doubt", n)
	}
	s.Wait(time.Hour)
	rep := reportOf(t, s.World, run(t, s.World, undo(r.ID)).ID)
	if s.Target.Look()["ticket/"+a] != nil && !strings.Contains(fmt.Sprint(rep.Exceptions), "it was merged into") {
		t.Errorf("%+v", rep.Exceptions)
	}
}

// People empty a field that a delta had filled in. The undo of that delta loses an answer and goes on: what people emptied is not
// its doing, and the next delta leaves it to them.
func TestRaceUndoOfEmptied(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}, desk.Priority: {"5"}})
	r := run(t, s.World, mainDelta)
	s.Target.Edit(s.there(id), desk.Fields{desk.Priority: nil})
	lose(t, s.Target, "apply", nil)
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	s.field(id, desk.Subject, "[one]")
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	if v := s.Target.Look()["ticket/"+id][0].Fields[desk.Priority]; len(v) > 0 {
		t.Errorf("priority is %v, and people had emptied it", v)
	}
}

// A delta that closed the ticket of a spam message is undone: the next one closes it again.
func TestRaceUndoneEvent(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnSpam, s.Migration.Policies.ClosedStatus = delta.Close, "closed"
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Junk(ticket(id))
	r := run(t, s.World, mainDelta)
	s.field(id, desk.Status, "[closed]")
	run(t, s.World, delta.Request{Kind: delta.Undo, Undo: r.ID})
	s.field(id, desk.Status, "[open]")
	run(t, s.World, mainDelta)
	s.field(id, desk.Status, "[closed]")
}

// A ticket is merged into one outside the scope of its run, and another run copies its entries there. Once the first run is undone the
// merge is carried over anew, and no entry is there twice: the ticket keeps its copies, and those follow the source.
func TestRaceUndoOfMergedOutside(t *testing.T) {
	s := newStage(t)
	s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateUpdate}
	support := delta.Request{Kind: delta.Delta, Window: "support"}
	a := s.ticket("a", "of a")
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	b := s.ticket("b", "of b")
	s.Source.Edit(ticket(b), desk.Fields{desk.Group: {"Sales"}})
	s.Source.Join(ticket(a), ticket(b))
	r := run(t, s.World, support)
	run(t, s.World, mainDelta)
	s.thread(b, "of a", "of b")
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	run(t, s.World, support)
	run(t, s.World, mainDelta)
	s.thread(a, "of a")
	s.thread(b, "of a", "of b")
	s.Source.Redact(b, 0)
	s.Wait(time.Hour)
	run(t, s.World, mainDelta)
	s.thread(a, takenText)
	s.thread(b, "(redacted)", "of b")
}

// A run over one scope brings to its end what it had begun before the ticket left that scope, and is undone: the run over the
// scope in which the ticket is now makes it again.
func TestRaceUndoneElsewhere(t *testing.T) {
	s := newStage(t)
	s.Target.TellsTouched = true
	s.Migration.Windows["support"] = delta.Window{Scope: "support", Mode: delta.CreateUpdate}
	support := delta.Request{Kind: delta.Delta, Window: "support"}
	full(t, s.World)
	run(t, s.World, delta.Request{Kind: delta.Full, Scope: "support"})
	s.Wait(time.Hour)
	id := s.ticket("one", "first")
	lose(t, s.Target, "create", func() {
		s.Source.Edit(ticket(id), desk.Fields{desk.Group: {"Sales"}})
	})
	r := run(t, s.World, support)
	s.thread(id, "first")
	run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	s.absent(id)
	run(t, s.World, support)
	run(t, s.World, mainDelta)
	s.thread(id, "first")
}

// A write loses its answer, and people empty the field before anybody has looked; a policy leaves it to them. An undo of the run
// leaves it to them as well.
func TestRaceUndoOfLeftToPeople(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.TargetWins}
	id := s.ticket("one")
	s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"1"}})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}, desk.Priority: {"5"}})
	lose(t, s.Target, "apply", func() {
		s.Target.Edit(s.there(id), desk.Fields{desk.Priority: nil})
	})
	r := run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	if v := s.Target.Look()["ticket/"+id][0].Fields[desk.Priority]; len(v) > 0 {
		t.Errorf("priority is %v, and people had emptied it", v)
	}
}

// The undo's own write loses its answer, and people change the field before it goes on: nothing is left to put back, and nothing that
// the undo has begun stays open.
func TestRaceUndoEndsItsClaim(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	r := run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	lose(t, s.Target, "apply", func() { s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"by an agent"}}) })
	run(t, s.World, undo(r.ID))
	s.field(id, desk.Subject, "[by an agent]")
	for part := range s.Store.Parts("led/") {
		for row := range s.Store.Each(part) {
			if strings.Contains(string(row.Body), `"claim"`) {
				t.Errorf("%s is still claimed: %s", row.Part, row.Body)
			}
		}
	}
}

// People merge a ticket in the moment in which an undo, or a policy, deletes it: what lives on is neither deleted nor called removed,
// and does not come a second time.
func TestRaceMergedWhileDeleted(t *testing.T) {
	for _, undoes := range []bool{true, false} {
		s := newStage(t)
		s.Migration.Policies.OnDeleted = delta.Mirror
		full(t, s.World)
		s.Wait(time.Hour)
		id := s.ticket("one", "first")
		r := run(t, s.World, mainDelta)
		own := s.Target.Add(desk.Ticket, desk.Fields{desk.Subject: {"of an agent"}})
		at(s.Target, "delete", 1, func() error {
			s.Target.Join(s.there(id), ticket(own))
			return nil
		})
		if s.Wait(time.Hour); undoes {
			run(t, s.World, undo(r.ID))
		} else {
			s.Source.Remove(ticket(id))
			run(t, s.World, mainDelta)
			s.Source.Restore(ticket(id))
		}
		run(t, s.World, mainDelta)
		if all := s.Target.Look()["ticket/"+id]; len(all) != 0 {
			t.Errorf("undo %t: it came a second time: %+v", undoes, all)
		}
		if len(s.Target.Look()["own ticket/"+own]) != 1 {
			t.Errorf("undo %t: the agent's ticket was deleted", undoes)
		}
	}
}

// People answer a ticket in the moment in which an undo removes it: it stays, and the undo says why.
func TestRaceAnsweredWhileUndone(t *testing.T) {
	s := newStage(t)
	full(t, s.World)
	s.Wait(time.Hour)
	id := s.ticket("one", "first")
	r := run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	at(s.Target, "delete", 1, func() error {
		s.Target.Say(s.there(id).ID, true, desk.Author{Name: "Agent"}, "the answer", nil)
		return nil
	})
	rep := reportOf(t, s.World, run(t, s.World, undo(r.ID)).ID)
	if said := fmt.Sprint(rep.Exceptions); !strings.Contains(said, "somebody has worked on it since") {
		t.Errorf("the undo says %s", said)
	}
	if got := fmt.Sprint(s.Target.Look()["ticket/"+id]); !strings.Contains(got, "the answer") {
		t.Errorf("the ticket is %s", got)
	}
}

// The source deletes a ticket while a write to it has lost its answer, and the target refuses to delete it. When its people delete it later
// that was their doing: should the source have it again, they are asked.
func TestRaceRefusedToDelete(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnDeleted = delta.Mirror
	id := s.ticket("one", "first")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	lose(t, s.Target, "apply", func() { s.Source.Remove(ticket(id)) })
	s.Target.Fail = func(op string, _ desk.Ref) error {
		if op == "delete" {
			return &desk.Error{Op: op, Class: desk.ErrRejected}
		}
		return nil
	}
	run(t, s.World, mainDelta)
	s.Target.Fail = nil
	s.Target.Remove(s.there(id))
	s.Source.Restore(ticket(id))
	s.delta()
	s.absent(id)
	s.held("deleted in the target")
}

// People merge another ticket into one in the moment in which a policy deletes it: that one is not deleted with it.
func TestRaceGainedWhileDeleted(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnDeleted = delta.Mirror
	a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Remove(ticket(a))
	at(s.Target, "delete", 1, func() error {
		s.Target.Join(s.there(b), s.there(a))
		return nil
	})
	s.delta()
	s.thread(a, "of a", "of b")
}

// A write that was cut off writes the status again as people have set it, which is what the migration had set before: an undo does
// not take the ticket away from them. Whoever writes it may die then.
func TestRaceUndoOfPutBack(t *testing.T) {
	for _, dies := range []bool{false, true} {
		s := newStage(t)
		s.Target.TellsTouched = true
		full(t, s.World)
		s.Wait(time.Hour)
		id := s.ticket("one", "first", "second")
		at(s.Target, "apply", 1, func() error {
			s.Target.Edit(s.there(id), desk.Fields{desk.Status: {"rejected"}})
			s.Target.Edit(s.there(id), desk.Fields{desk.Status: {"open"}})
			return noAnswer()
		})
		s.Target.Lose = func(op string, _ desk.Ref) error {
			if op == "apply" && dies {
				dies = false
				panic(deltatest.Crash{})
			}
			return nil
		}
		r := run(t, s.World, mainDelta)
		s.Wait(time.Hour)
		run(t, s.World, undo(r.ID))
		s.field(id, desk.Status, "[open]")
	}
}

// The desk opens a ticket again when an entry arrives, and people resolve it between two calls of one write, as the source has it. The
// write says that again: whether whoever writes it dies then or not, and whether a later run writes to the ticket, it stays theirs, and an
// undo does not take the ticket away from them.
func TestRaceUndoOfPutBackBetweenCalls(t *testing.T) {
	for _, then := range []string{"", "dies", "later"} {
		s := newStage(t)
		s.Target.TellsTouched = true
		full(t, s.World)
		s.Wait(time.Hour)
		id := s.ticket("one", "first", "second")
		s.Source.Say(id, true, desk.Author{Name: "Ann"}, "with a file", map[string][]byte{"a.txt": []byte("a")})
		s.Source.Edit(ticket(id), desk.Fields{desk.Status: {"resolved"}})
		s.Target.Meddle = func(f desk.Fields) { f[desk.Status] = desk.Value{"open"} }
		calls := 0
		s.Target.Lose = func(op string, _ desk.Ref) error {
			if op != "apply" {
				return nil
			}
			switch calls++; {
			case calls == 1:
				s.Target.Edit(s.there(id), desk.Fields{desk.Status: {"resolved"}})
			case calls == 2 && then == "dies":
				panic(deltatest.Crash{})
			}
			return nil
		}
		r := run(t, s.World, mainDelta)
		if s.Target.Lose = nil; calls != 2 {
			t.Fatalf("%q: %d calls", then, calls)
		}
		s.Wait(time.Hour)
		if then == "later" {
			s.say(id, "more")
			later := run(t, s.World, mainDelta)
			s.Wait(time.Hour)
			run(t, s.World, undo(later.ID))
		}
		run(t, s.World, undo(r.ID))
		s.field(id, desk.Status, "[resolved]")
	}
}

// The create of a ticket loses its answer, and the source shows an entry to customers meanwhile. Who hides it in the target cannot be
// told: an undo leaves the ticket, and says so.
func TestRaceUndoOfHidden(t *testing.T) {
	s := newStage(t)
	s.Target.NoMarkers, s.Target.NoReviser, s.Target.Timed = true, true, true
	full(t, s.World)
	s.Wait(time.Hour)
	id := s.ticket("one", "-first")
	lose(t, s.Target, "create", func() { s.Source.Flip(id, 0) })
	r := run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	rep := reportOf(t, s.World, run(t, s.World, undo(r.ID)).ID)
	if said := fmt.Sprint(rep.Exceptions); !strings.Contains(said, "it is open who hid them") {
		t.Errorf("the undo says %s", said)
	}
	s.field(id, desk.Subject, "[one]")
}

// Both sides change a field, the run that carries out the answer is undone, and the source takes its change back: only the target has
// changed then, so nobody is asked.
func TestRaceUndoOfAnswer(t *testing.T) {
	s := newStage(t)
	id := s.ticket("one")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.Target.Edit(s.there(id), desk.Fields{desk.Subject: {"by an agent"}})
	run(t, s.World, mainDelta)
	if err := s.Engine().Decide(ctx, ticket(id), desk.Subject, "", delta.Decision{Choice: delta.ChooseValue, Value: desk.Value{"three"}}); err != nil {
		t.Fatal(err)
	}
	r := run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[three]")
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	run(t, s.World, mainDelta)
	s.held("subject changed on both sides")
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"one"}})
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[by an agent]")
	s.nothingHeld()
}

// A desk moves a field by itself while a ticket is being made, in a write that is cut off, and does not tell that it was its doing: the
// field is left to its people. When they set what the migration had set, an undo does not take the ticket away from them.
func TestRaceUndoOfMovedBack(t *testing.T) {
	s := newStage(t)
	full(t, s.World)
	s.Wait(time.Hour)
	id := s.ticket("one", "first", "second")
	s.Source.Say(id, true, desk.Author{Name: "Ann"}, "with a file", map[string][]byte{"a.txt": []byte("a")})
	s.Source.Edit(ticket(id), desk.Fields{desk.Status: {"resolved"}})
	s.Target.Meddle = func(f desk.Fields) { f[desk.Status] = desk.Value{"open"} }
	at(s.Target, "apply", 2, func() error { return &desk.Error{Op: "apply", Class: desk.ErrThrottled} })
	r := run(t, s.World, mainDelta)
	s.field(id, desk.Status, "[open]")
	s.Target.Edit(s.there(id), desk.Fields{desk.Status: {"resolved"}})
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	s.field(id, desk.Status, "[resolved]")
}

// An undo deletes a ticket, and the desk asks for a pause before anybody can look whether it is gone: it was the undo's doing all the
// same, and the next delta brings the ticket again.
func TestRaceUndoUnseen(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.OnTargetGone = delta.IgnoreGone
	full(t, s.World)
	s.Wait(time.Hour)
	id := s.ticket("one", "first")
	r := run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	at(s.Target, "read", 2, func() error { return &desk.Error{Op: "read", Class: desk.ErrThrottled} })
	run(t, s.World, undo(r.ID))
	s.Target.Fail = nil
	s.absent(id)
	run(t, s.World, mainDelta)
	s.field(id, desk.Subject, "[one]")
}

// A target shows for a while what was deleted there, by a policy or an undo: it was our doing all the same, not that of the target's
// people, and the ticket comes again. Nothing is written to it while it is shown, also where the source has it again before that.
func TestRaceDeletedLingers(t *testing.T) {
	for _, by := range []string{"a policy", "an undo", "a policy, taken back"} {
		t.Run(by, func(t *testing.T) {
			s := newStage(t)
			s.Target.ListLag, s.Target.Lingers = 5*time.Minute, 4*time.Minute
			s.Migration.Policies.OnDeleted, s.Migration.Policies.OnTargetGone = delta.Mirror, delta.IgnoreGone
			full(t, s.World)
			s.Wait(time.Hour)
			id := s.ticket("one", "first")
			r := run(t, s.World, mainDelta)
			s.Wait(time.Hour)
			switch by {
			case "an undo":
				run(t, s.World, undo(r.ID))
				s.absent(id)
			case "a policy":
				s.Source.Remove(ticket(id))
				s.delta()
				s.absent(id)
				s.Source.Restore(ticket(id))
			default:
				s.Source.Remove(ticket(id))
				s.Target.Lose = func(op string, _ desk.Ref) error {
					if op == "delete" {
						s.Source.Restore(ticket(id))
					}
					return nil
				}
			}
			s.delta()
			s.Target.Lose = nil
			s.thread(id, "first")
			s.verified(0)
		})
	}
}

// An undo forgets what a lagging source has shown.
func TestRaceUndoForgetsStamp(t *testing.T) {
	s := newStage(t)
	s.Source.ListLag = 5 * time.Minute
	full(t, s.World)
	s.Wait(time.Hour)
	id := s.ticket("one")
	r := run(t, s.World, mainDelta)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	s.Wait(2 * time.Second)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"one"}})
	run(t, s.World, mainDelta)
	run(t, s.World, undo(r.ID))
	s.absent(id)
	s.Source.Stale = 1
	run(t, s.World, mainDelta)
	if s.Source.Stale != 0 {
		t.Error("nobody asked the replica")
	}
	s.field(id, desk.Subject, "[one]")
}

// An undo takes over what a later run left open.
func TestRaceUndoTakesOver(t *testing.T) {
	s := newStage(t)
	s.Migration.Policies.ConflictField = map[desk.Field]delta.Conflict{desk.Priority: delta.TargetWins}
	id := s.ticket("one")
	s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"low"}})
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Subject: {"two"}})
	r := run(t, s.World, mainDelta)
	s.Wait(time.Hour)
	s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"high"}})
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op == "apply" {
			return &desk.Error{Op: op, Class: desk.ErrMailed} // which stops the run
		}
		return nil
	}
	run(t, s.World, mainDelta)
	s.Target.Lose = nil
	s.field(id, desk.Priority, "[high]")
	s.Wait(time.Hour)
	run(t, s.World, undo(r.ID))
	s.Source.Edit(ticket(id), desk.Fields{desk.Priority: {"urgent"}})
	s.delta()
	if hs, _ := s.Engine().HeldRecords(ctx); len(hs) == 0 {
		s.field(id, desk.Priority, "[urgent]")
	}
}

// An undo is cancelled after it has opened the ticket of a merged one again: the next delta closes it.
func TestRaceCancelledUndoOfMerge(t *testing.T) {
	s := newStage(t)
	s.Migration.OnMerged, s.Migration.ClosedStatus = delta.Close, "closed"
	a, b := s.ticket("a", "of a"), s.ticket("b", "of b")
	full(t, s.World)
	s.Wait(time.Hour)
	s.Source.Join(ticket(a), ticket(b))
	r := run(t, s.World, mainDelta)
	s.field(a, desk.Status, "[closed]")
	s.Wait(time.Hour)
	u, _, err := s.Engine().Start(ctx, undo(r.ID))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	s.Target.Lose = func(op string, _ desk.Ref) error {
		if op == "apply" {
			if n++; n == 1 {
				if err := s.Engine().Cancel(ctx, u.ID, "the operator"); err != nil {
					t.Error(err)
				}
				panic(deltatest.Crash{})
			}
		}
		return nil
	}
	run(t, s.World, undo(r.ID))
	s.Target.Lose = nil
	s.field(a, desk.Status, "[open]")
	s.delta()
	s.delta()
	s.field(a, desk.Status, "[closed]")
	for part := range s.Store.Parts("led/") {
		for row := range s.Store.Each(part) {
			if strings.Contains(string(row.Body), `"claim"`) {
				t.Errorf("%s is still claimed: %s", row.Part, row.Body)
			}
		}
	}
}

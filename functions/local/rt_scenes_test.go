//go:build rt

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/deltadesk/deltadesk/connectors/requesttracker/rttest"
)

// TestRequestTrackerScenes plays what happens seldom, one scene after the other, on two small desks: deletions and merges,
// changes that no feed tells of, a changed mapping, runs that are undone, certificates, damage. What must come of each is
// written down beside it, and read in the databases.
func TestRequestTrackerScenes(t *testing.T) {
	s := setup(t, "small", *rtPort+4, rttest.SeedSmall)
	acme := s.config("scenes.yaml", s.src.URL, s.dst.URL, "")
	s.begin("scenes", false)
	for _, scene := range []struct {
		name string
		play func(acme string)
	}{
		{"first full run", s.firstRun},
		{"deleted in the source", s.deletedInSource},
		{"merged", s.merged},
	} {
		if !t.Run(scene.name, func(t *testing.T) { s.t = t; scene.play(acme) }) {
			return // the next scene begins where this one ends
		}
	}
}

func (s *stage) firstRun(acme string) {
	s.run(acme, "--kind", "full", "--scope", "all")
	s.judge(false)
}

// variant writes a migration file like another one, with one thing said differently.
func (s *stage) variant(like, name, old, now string) string {
	s.t.Helper()
	b := must(os.ReadFile(like))(s.t)
	if !bytes.Contains(b, []byte(old)) {
		s.t.Fatalf("%s does not say %q", like, old)
	}
	file := filepath.Join(s.dir, name)
	s.check(os.WriteFile(file, bytes.Replace(b, []byte(old), []byte(now), 1), 0o600))
	return file
}

func (s *stage) delta(config string) { s.run(config, "--kind", "delta", "--window", "everything") }

// take returns n living tickets of the source that are in the target, each only once in the whole test.
func (s *stage) take(n int) []int64 {
	s.t.Helper()
	moved := must(s.people.Moved(context.Background()))(s.t)
	var ids []int64
	for _, id := range s.script.Live() {
		if len(ids) < n && moved[id] != 0 && !slices.Contains(s.taken, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) < n {
		s.t.Fatalf("the desk is too small: %d tickets are left, %d are wanted", len(ids), n)
	}
	s.taken = append(s.taken, ids...)
	return ids
}

// inTarget is the target's ticket of a source ticket.
func (s *stage) inTarget(id int64) int64 {
	s.t.Helper()
	to := must(s.people.Moved(context.Background()))(s.t)[id]
	if to == 0 {
		s.t.Fatalf("source ticket %d is not in the target", id)
	}
	return to
}

// one is the number that a query of the target's database answers.
func (s *stage) one(format string, args ...any) int64 {
	s.t.Helper()
	ids := must(s.dst.IDs(context.Background(), fmt.Sprintf(format, args...)))(s.t)
	if len(ids) != 1 {
		s.t.Fatalf("%d rows: %s", len(ids), fmt.Sprintf(format, args...))
	}
	return ids[0]
}

func (s *stage) hasStatus(target int64, status string) bool {
	s.t.Helper()
	return s.one(`SELECT count(*) FROM Tickets WHERE id = %d AND Status = '%s'`, target, status) == 1
}

// deletedInSource: with policy ignore the ticket stays as it is, with close it is closed, and nothing is deleted.
func (s *stage) deletedInSource(acme string) {
	ctx := context.Background()
	closing := s.variant(acme, "scenes-close.yaml", "deleted: ignore", "deleted: close")
	ids := s.take(2)
	for _, id := range ids {
		s.check(s.people.Set(ctx, rttest.SourceRole, id, "Status", "open"))
	}
	s.delta(acme)
	stays, closes := s.inTarget(ids[0]), s.inTarget(ids[1])
	s.check(s.people.Delete(ctx, ids[0]))
	s.delta(acme)
	s.check(s.people.Delete(ctx, ids[1]))
	s.delta(closing)
	if !s.hasStatus(stays, "open") {
		s.t.Errorf("policy ignore: target ticket %d is not open any more", stays)
	}
	if !s.hasStatus(closes, "resolved") {
		s.t.Errorf("policy close: target ticket %d is not resolved", closes)
	}
	s.say("deleted in the source: ignored=1 closed=1")
	s.judge(false)
}

// merged: a merge in the source is mirrored; one by the target's agents is followed, and what is written in the source
// later comes to where the ticket lives on, once.
func (s *stage) merged(acme string) {
	ctx := context.Background()
	ids := s.take(7)
	mirrored, followed, own, both := ids[0:2], ids[2:4], ids[4], ids[5:7]
	s.check(s.people.Merge(ctx, rttest.SourceRole, mirrored[0], mirrored[1]))
	follow := map[int64]int64{followed[0]: s.inTarget(followed[1]), own: 3}
	s.check(s.people.Merge(ctx, rttest.TargetRole, followed[0], followed[1]))
	s.check(s.people.MergeIntoOwn(ctx, own, follow[own]))
	s.check(s.people.Merge(ctx, rttest.TargetRole, both[0], both[1]))
	s.check(s.people.Merge(ctx, rttest.SourceRole, both[0], both[1]))
	into := s.inTarget(mirrored[1])
	if n := s.one(`SELECT count(*) FROM Tickets WHERE EffectiveId = %d AND id <> %[1]d`, into); n != 0 {
		s.t.Fatalf("target ticket %d has %d others in it before the run", into, n)
	}
	for range 2 { // the second time they are known to be merged
		before := map[int64]int64{}
		for id, to := range follow {
			before[id] = s.ours(to)
			s.check(s.people.Write(ctx, id))
			s.check(s.people.Answer(ctx, rttest.SourceRole, id, true))
		}
		s.check(s.people.Write(ctx, mirrored...))
		s.check(s.people.Write(ctx, both...))
		s.delta(acme)
		for id, to := range follow {
			if n := s.ours(to) - before[id]; n != 2 {
				s.t.Errorf("source ticket %d got 2 entries, target ticket %d, into which it was merged, %d", id, to, n)
			}
		}
	}
	if n := s.one(`SELECT count(*) FROM Tickets WHERE EffectiveId = %d AND id <> %[1]d`, into); n != 1 {
		s.t.Errorf("target ticket %d has %d others in it, not 1", into, n)
	}
	s.say("merged: mirrored=1 followed=2 on both sides=1")
	s.judge(false)
}

// ours counts what the migration wrote to a ticket of the target.
func (s *stage) ours(target int64) int64 {
	s.t.Helper()
	return s.one(`SELECT count(*) FROM Transactions t JOIN Users u ON u.id = t.Creator WHERE t.ObjectType = 'RT::Ticket' AND t.ObjectId = %d
		AND t.Type IN ('Create', 'Correspond', 'Comment') AND u.Name = '%s'`, target, rttest.MigrationUser)
}

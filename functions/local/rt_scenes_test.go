//go:build rt

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/deltadesk/deltadesk/connectors/requesttracker/rttest"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/report"
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
		{"sample and undo", s.sampleAndUndo},
		{"first full run", s.firstRun},
		{"deleted in the source", s.deletedInSource},
		{"merged", s.merged},
		{"census", s.census},
		{"certificate", s.certificate},
		{"damage", s.damage},
		{"remap", s.remap},
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

// sampleAndUndo: a sample comes over and is taken back. What people see of the target is then as it was before (Picture says
// what is compared); accounts stay, since RT cannot remove any.
func (s *stage) sampleAndUndo(acme string) {
	ctx := context.Background()
	before := must(s.dst.Picture(ctx))(s.t)
	sample := s.run(acme, "--kind", "sample", "--scope", "all", "--n", "20")
	n, _ := before.Diff(must(s.dst.Picture(ctx))(s.t))
	if made := len(must(s.people.Moved(ctx))(s.t)); made != 20 || n < 20 {
		s.t.Errorf("a sample of 20 made %d tickets in the target, %d places differ", made, n)
	}
	s.unkept(sample)
	s.judge(true)
	s.undone = true
	var rep report.Report
	s.check(json.Unmarshal(s.do(acme, []int{exitDone, exitExceptions}, "undo", sample.Run, "--json"), &rep))
	s.say("undo   %s: %+v | requests source=%d target=%d", rep.Status, rep.Counts, sum(rep.Requests["source"]), sum(rep.Requests["target"]))
	for _, l := range rep.Left {
		if l.Target != "" && strings.HasPrefix(l.Record, "ticket/") {
			s.t.Errorf("%s, target %s, was not undone: %s", l.Record, l.Target, strings.Join(l.What, "; "))
		}
	}
	n, places := before.Diff(must(s.dst.Picture(ctx))(s.t))
	s.say("undone: %d places of the target differ from before the sample", n)
	if n != 0 {
		s.t.Errorf("%d places of the target are not as they were before the sample:\n%s", n, strings.Join(places, "\n"))
	}
	s.judge(true)
}

// census: what was changed in the source's database without a transaction is found, comes with the next delta, and is
// missed no more.
func (s *stage) census(acme string) {
	ctx := context.Background()
	closing := s.variant(acme, "scenes-close.yaml", "deleted: ignore", "deleted: close")
	s.delta(acme)
	if rep := s.run(acme, "--kind", "census", "--scope", "all"); missed(rep) != 0 {
		s.t.Errorf("nothing was missed, the census says %d", missed(rep))
	}
	ids := s.take(3)
	renamed, deleted := ids[:2], ids[2]
	s.check(s.people.Set(ctx, rttest.SourceRole, deleted, "Status", "open"))
	s.delta(acme)
	closes := s.inTarget(deleted)
	for _, id := range renamed {
		s.check(s.people.RenameUnseen(ctx, id))
	}
	s.check(s.people.DeleteUnseen(ctx, deleted))
	s.delta(closing) // the feed tells nothing
	o := s.oracle()
	if r := must(o.Check(ctx))(s.t); r.Differences != len(renamed) || !s.hasStatus(closes, "open") {
		s.t.Errorf("a delta found what the feed does not tell, or the changes by SQL are none: %s", r)
	}
	rep := s.run(closing, "--kind", "census", "--scope", "all")
	if missed(rep) != len(ids) {
		s.t.Errorf("%d changes were missed, the census says %d", len(ids), missed(rep))
	}
	s.delta(closing)
	if !s.hasStatus(closes, "resolved") {
		s.t.Errorf("policy close: target ticket %d is not resolved", closes)
	}
	again := s.run(acme, "--kind", "census", "--scope", "all")
	if missed(again) != 0 {
		s.t.Errorf("nothing is missed any more, the census says %d", missed(again))
	}
	s.say("census: missed=%d, after the next delta missed=%d", missed(rep), missed(again))
	s.judge(false)
}

// missed is how many changes a census found that no delta brought.
func missed(rep report.Report) int { return rep.Counts.Failed }

// certificate: right after a comparison all is as certified; an agent's change is told from one that left no trace.
func (s *stage) certificate(acme string) {
	ctx := context.Background()
	ids := s.take(2)
	s.delta(acme)
	verify := s.run(acme, "--kind", "verify", "--scope", "all")
	cert := filepath.Join(s.dir, "certificate")
	s.do(acme, []int{exitDone}, "certificate", "--out", cert)
	s.do(acme, []int{exitDone}, "certificate", verify.Run, "--out", cert)
	s.do(acme, []int{exitDone}, "check", cert)
	s.check(s.people.Set(ctx, rttest.TargetRole, ids[0], "Priority", 77))
	changed := fmt.Sprintf("ticket/%d changed in the target", ids[0])
	s.mustSay(s.do(acme, []int{exitExceptions}, "check", cert), changed)
	part := s.one(`SELECT max(a.id) FROM Attachments a JOIN Transactions t ON t.id = a.TransactionId WHERE t.ObjectType = 'RT::Ticket' AND t.ObjectId = %d
		AND t.Type IN ('Create', 'Correspond', 'Comment') AND a.ContentType LIKE 'text/%%'`, s.inTarget(ids[1]))
	s.check(s.dst.Exec(ctx, fmt.Sprintf(`UPDATE Attachments SET Content = Content || '!' WHERE id = %d`, part)))
	differs := fmt.Sprintf("ticket/%d differs in the target", ids[1])
	out := s.do(acme, []int{exitExceptions}, "check", cert)
	s.mustSay(out, changed, differs)
	for line := range bytes.Lines(out) {
		s.say("check: %s", bytes.TrimSpace(line))
	}
	s.check(s.dst.Exec(ctx, fmt.Sprintf(`UPDATE Attachments SET Content = substr(Content, 1, length(Content) - 1) WHERE id = %d`, part)))
	s.mustSay(s.do(acme, []int{exitExceptions}, "check", cert), changed)
	s.judge(false)
}

func (s *stage) mustSay(out []byte, lines ...string) {
	s.t.Helper()
	for _, l := range lines {
		if !bytes.Contains(out, []byte(l)) {
			s.t.Errorf("nothing says %q:\n%s", l, tail(out))
		}
	}
}

// damage: what was spoilt in the target's database is found. A healing and a delta bring back what can be brought back over
// REST, and say of the rest that it needs somebody.
func (s *stage) damage(acme string) {
	ctx := context.Background()
	ids := s.take(4)
	gone, flipped, worded, spoilt := ids[0], ids[1], ids[2], ids[3]
	s.check(s.people.Write(ctx, ids...))
	s.delta(acme)
	last := map[int64]int64{}
	for _, id := range ids {
		last[id] = s.one(`SELECT max(id) FROM Transactions WHERE ObjectType = 'RT::Ticket' AND ObjectId = %d AND Type = 'Correspond'`, s.inTarget(id))
	}
	file := s.one(`SELECT id FROM Attachments WHERE TransactionId = %d AND Filename LIKE '%%.pdf'`, last[spoilt])
	first := s.one(`SELECT instr('0123456789ABCDEF', substr(hex(Content), 1, 1)) * 16 + instr('0123456789ABCDEF', substr(hex(Content), 2, 1)) - 17 FROM Attachments WHERE id = %d`, file)
	s.check(s.dst.Exec(ctx,
		fmt.Sprintf(`DELETE FROM Attachments WHERE TransactionId = %d`, last[gone]),
		fmt.Sprintf(`DELETE FROM Transactions WHERE id = %d`, last[gone]),
		fmt.Sprintf(`UPDATE Transactions SET Type = 'Comment' WHERE id = %d`, last[flipped]),
		fmt.Sprintf(`UPDATE Attachments SET Content = replace(Content, 'answer', 'Answer') WHERE TransactionId = %d AND ContentType = 'text/plain'`, last[worded]),
		fmt.Sprintf(`UPDATE Attachments SET Content = 'B' || substr(Content, 2) WHERE id = %d`, file)))
	o := s.oracle()
	differences := 4 // a file that was spoilt is one that is missing and one that nobody sent
	if r := must(o.Check(ctx))(s.t); r.Lost != 1 || r.Differences != differences {
		s.t.Errorf("four things were spoilt, the oracle says %s\n%s", r, strings.Join(r.Details, "\n"))
	}
	found := func(rep report.Report) (out []int64) {
		for _, e := range rep.Exceptions {
			if n, err := strconv.ParseInt(strings.TrimPrefix(e.Record, "ticket/"), 10, 64); err == nil {
				out = append(out, n)
			}
		}
		slices.Sort(out)
		return out
	}
	rep := s.run(acme, "--kind", "verify", "--scope", "all", "--heal")
	if !slices.Equal(found(rep), ids) {
		s.t.Errorf("spoilt were the tickets %v, verify finds %v", ids, found(rep))
	}
	healing := s.run(acme, "--kind", "delta", "--window", "everything")
	rest := ids[1:] // RT changes no message once it is written
	if !slices.Equal(found(healing), rest) {
		s.t.Errorf("what cannot be healed are the tickets %v, the delta names %v", rest, found(healing))
	}
	for _, e := range healing.Exceptions {
		if e.Reason == "" {
			s.t.Errorf("%s is %s without a reason", e.Record, e.Outcome)
		}
	}
	if r := must(o.Check(ctx))(s.t); r.Lost != 0 || r.Doubled != 0 || r.Differences != differences {
		s.t.Errorf("one of four can be healed, the oracle says %s\n%s", r, strings.Join(r.Details, "\n"))
	}
	s.say("damage: planted=4 found=%d healed=%d told=%d", len(found(rep)), len(ids)-len(rest), len(found(healing)))
	s.check(s.dst.Exec(ctx,
		fmt.Sprintf(`UPDATE Transactions SET Type = 'Correspond' WHERE id = %d`, last[flipped]),
		fmt.Sprintf(`UPDATE Attachments SET Content = replace(Content, 'Answer', 'answer') WHERE TransactionId = %d AND ContentType = 'text/plain'`, last[worded]),
		fmt.Sprintf(`UPDATE Attachments SET Content = CAST(X'%02X' || substr(Content, 2) AS BLOB) WHERE id = %d`, first, file)))
	if mended := s.run(acme, "--kind", "delta", "--window", "everything"); mended.Counts.Held != 0 {
		s.t.Errorf("everything was mended by hand, and still held are %v", found(mended))
	}
	s.judge(false)
}

// remap: a mapping that changes makes the tickets due whose values it is about, and no others; what agents did stays theirs.
func (s *stage) remap(acme string) {
	ctx := context.Background()
	mapped := s.variant(acme, "scenes-remap.yaml", "policies:", "mapping: {ticket: [{from: custom.Region, to: custom.Region, values: {APAC: AMER}}]}\npolicies:")
	affected := must(s.src.IDs(ctx, `SELECT t.id FROM Tickets t JOIN ObjectCustomFieldValues v ON v.ObjectType = 'RT::Ticket' AND v.ObjectId = t.id AND v.Disabled = 0
		JOIN CustomFields f ON f.id = v.CustomField WHERE f.Name = 'Region' AND v.Content = 'APAC' AND t.Status <> 'deleted' AND t.EffectiveId = t.id ORDER BY t.id`))(s.t)
	if len(affected) < 4 {
		s.t.Fatalf("only %d tickets have the value", len(affected))
	}
	s.check(s.people.Set(ctx, rttest.TargetRole, affected[0], "cf.Order No", "of an agent"))
	s.check(s.people.Set(ctx, rttest.TargetRole, affected[1], "cf.Region", "EMEA"))
	s.check(s.people.Set(ctx, rttest.TargetRole, affected[2], "Subject", "An agent's subject"))
	rep := s.run(mapped, "--kind", "remap", "--scope", "all")
	var o delta.Overview
	s.check(json.Unmarshal(s.do(mapped, []int{exitDone}, "status", "--json"), &o))
	s.say("remap: %d tickets have the value, %d are due: %+v", len(affected), o.Due["all"], rep.Counts)
	if o.Due["all"] != len(affected) {
		s.t.Errorf("%d tickets are affected, %d are due", len(affected), o.Due["all"])
	}
	s.meaning = func(field, value string) string {
		if field == "cf.Region" && value == "APAC" {
			return "AMER"
		}
		return value
	}
	rep = s.run(mapped, "--kind", "delta", "--window", "everything")
	if rep.Counts.Updated != len(affected)-1 || rep.Counts.Held != 1 {
		s.t.Errorf("%d tickets are affected, an agent had a say in one: %+v", len(affected), rep.Counts)
	}
	if r := s.judge(false); !slices.Equal(r.Held, []string{fmt.Sprintf("%d/cf.Region", affected[1])}) {
		s.t.Errorf("held are %v", r.Held)
	}
}

package main

import (
	"fmt"
	"slices"
	"strings"
)

// bug is one decision, broken.
type bug struct {
	name      string
	invariant int      // which one it breaks; CONTRIBUTING.md has them
	is        string   // in words
	sorts     []string // of violation: what the simulator must call it
	changes   []change
}

// change replaces text that must be in the file exactly once.
type change struct{ file, old, new string }

// engine changes a file of the engine.
func engine(file, old, new string) change { return change{"shared/delta/" + file, old, new} }

// world changes a file of the simulator: what the desks promise to the engine is decided there.
func world(file, old, new string) change {
	return change{"shared/delta/deltatest/sim/" + file, old, new}
}

func sorts(s ...string) []string { return s }

// named picks bugs by name.
func named(all []bug, names []string) ([]bug, error) {
	var out []bug
	for _, n := range names {
		i := slices.IndexFunc(all, func(b bug) bool { return b.name == n })
		if i < 0 {
			var known []string
			for _, b := range all {
				known = append(known, b.name)
			}
			return nil, fmt.Errorf("there is no bug %q; there are: %s", n, strings.Join(known, ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}

// bugs are all there is, by the invariant that they break. Each is one that a migration of this kind has had, or that would
// break an invariant for which there is no such one.
func bugs() []bug {
	return []bug{
		// 1: nothing lost.
		{
			"older-read-is-unchanged", 1, "a reading older than the listed stamp counts as unchanged", sorts("lost"),
			[]change{engine("push.go",
				`return fmt.Errorf("read %s: %w", w.ref, errNotYet) // invariant 1: an older read is "not yet", never "unchanged"`,
				`w.finish(OutUnchanged, ""); return nil`)},
		},
		{
			"silent-clock", 1, "what the target did not keep of a create is not looked for", sorts("lost"),
			[]change{engine("write.go", "	e.addUnkept(w, now, defs)\n", "")},
		},
		{
			"drop-by-version", 1, "a change is dropped because its stamp was carried out, whenever the reading began", sorts("lost"),
			[]change{engine("list.go",
				`l.Began.After(it.Stamp.At.Add(e.SourceSide.StampResolution+e.SourceSide.ListLag))`,
				`!l.Stamp.At.Before(it.Stamp.At)`)},
		},
		{
			"same-second", 1, "a change is dropped that happened after the reading, within the resolution of its stamp", sorts("lost"),
			[]change{engine("list.go",
				`it.Stamp.At.Add(e.SourceSide.StampResolution+e.SourceSide.ListLag)`,
				`it.Stamp.At.Add(e.SourceSide.ListLag)`)},
		},
		{
			"lag-forgotten", 1, "a change is dropped that the reading could not see yet", sorts("lost"),
			[]change{engine("list.go",
				`it.Stamp.At.Add(e.SourceSide.StampResolution+e.SourceSide.ListLag)`,
				`it.Stamp.At.Add(e.SourceSide.StampResolution)`)},
		},
		{
			"behind-is-newest", 1, "a reading from a replica that is behind is carried out after a newer one", sorts("lost", "doubled"),
			[]change{engine("push.go", "if shown && e.behind(w) {", "if shown && false {")},
		},
		{
			"after-for-from", 1, "a listing goes on after the last stamp of a page, not at it: > for >=", sorts("lost"),
			[]change{world("source.go", `st.Before(c.At) || st.Equal(c.At) && r.ref.ID <= c.ID`, `!st.After(c.At)`)},
		},
		{
			"place-before-page", 1, "the place in the listing is kept before the page that leads to it", sorts("lost"),
			[]change{
				engine("list.go",
					"\trow.Planned, row.At = len(entries), e.Now().UTC()\n",
					"\tvar err error\n\tplace := pageRow{No: row.No, Kind: row.Kind, Next: row.Next, Done: row.Done, DuePage: row.DuePage}\n"+
						"\tif row.version, err = e.put(ctx, e.pageKey(run.ID, row.No), 0, place); err != nil {\n\t\treturn row, err\n\t}\n\trow.Planned, row.At = len(entries), e.Now().UTC()\n"),
				engine("list.go",
					"\tvar err error\n\trow.version, err = e.put(ctx, e.pageKey(run.ID, row.No), 0, row)",
					"\trow.version, err = e.put(ctx, e.pageKey(run.ID, row.No), row.version, row)"),
			},
		},
		{
			"deleted-is-empty", 1, "a ticket that cannot be read is taken for one without content", sorts("lost"),
			[]change{engine("replica.go",
				`return rec, fmt.Errorf("%w: %w", errNotYet, cause)`,
				"_ = fmt.Errorf(\"%w: %w\", errNotYet, cause)\n\treturn desk.Record{Ref: w.ref, Stamp: w.it.Stamp, Began: w.it.Stamp.At, Event: desk.Changed}, nil")},
		},
		{
			"hold-swallows-replies", 1, "what else is new waits with a field that is held", sorts("lost"),
			[]change{engine("write.go",
				"\tw.held.Fields = m.Held\n",
				"\tw.held.Fields = m.Held\n\tif len(m.Held) > 0 {\n\t\treturn e.commit(ctx, w, OutHeld)\n\t}\n")},
		},
		{
			"census-believes-the-ledger", 1, "a census takes for known whatever the ledger has, however old the reading is", sorts("lost"),
			[]change{engine("census.go",
				`l.Target != "" && l.Claim == nil && l.Gone == "" && l.Began.After(sure)`,
				`l.Target != "" && l.Claim == nil && l.Gone == ""`)},
		},
		{
			"census-asks-the-feed-too-early", 1, "a census calls missed what changed while it listed", sorts("miscounted"),
			[]change{engine("survey.go", `if at.until, err = e.Source.Mark(ctx); err != nil {`, `if at.until = run.Until; err != nil {`)},
		},
		{
			"gone-is-not-due", 1, "a census finds a ticket gone for which the source has no word, and nothing becomes due", sorts("lost"),
			[]change{engine("census.go", `for _, ref := range gone {`, `for _, ref := range gone[:0] {`)},
		},
		{
			"harm-is-kept", 1, "a verification takes for people's work what nobody changed", sorts("lost"),
			[]change{engine("verify.go", `case e.untraced(w, now, f, others):`, `case e.untraced(w, now, f, others) && !based:`)},
		},
		{
			"remap-by-stamp", 1, "a remap looks only at what has changed in the source since it was carried out", sorts("lost"),
			[]change{engine("remap.go", `same := w.asCarriedOut()`, `same := !w.row.Began.Before(w.it.Stamp.At)`)},
		},
		{
			"undone-is-forgotten", 1, "what an undo puts back is not due, so no delta brings it again", sorts("lost"),
			[]change{engine("putback.go",
				"\tif err := e.makeDue(ctx, w.run.Scope, w.undone()); err != nil {\n\t\treturn err\n\t}\n\tif err := e.claim(ctx, w, b.intent)",
				"\tif err := e.claim(ctx, w, b.intent)")},
		},

		// 2: nothing twice.
		{
			"blind-create", 2, "a create whose answer was lost is sent again", sorts("doubled"),
			[]change{engine("write.go", `return desk.Record{}, e.doubt(ctx, w, err)`, `return desk.Record{}, e.release(ctx, w, err)`)},
		},
		{
			"taken-over-unseen", 2, "a claim is taken over, and nobody looks what its holder did", sorts("doubled"),
			[]change{engine("write.go", `e.find(ctx, w, w.run.adopted() || w.takenOver)`, `e.find(ctx, w, w.run.adopted())`)},
		},
		{
			"restored-ledger-doubles", 2, "after the ledger was restored nobody looks for what it forgot", sorts("doubled"),
			[]change{engine("write.go", `e.find(ctx, w, w.run.adopted() || w.takenOver)`, `e.find(ctx, w, w.takenOver)`)},
		},
		{
			"image-after-the-create", 2, "that a run made a ticket is kept for an undo only when it is made", sorts("lost"),
			[]change{
				engine("write.go",
					"\tif err := e.before(ctx, w, image{Ref: w.ref}); err != nil {\n\t\treturn desk.Record{}, e.release(ctx, w, err)\n\t}\n",
					""),
				engine("write.go",
					"\tw.row.Target, w.row.How, w.row.Unfinished = written.ID, \"created\", true\n",
					"\tif err := e.before(ctx, w, image{Ref: w.ref}); err != nil {\n\t\treturn desk.Record{}, e.doubt(ctx, w, err)\n\t}\n"+
						"\tw.row.Target, w.row.How, w.row.Unfinished = written.ID, \"created\", true\n"),
			},
		},

		// 3: the cutoff moves forward only, over finished work only.
		{
			"cutoff-from-our-clock", 3, "the mark is our own time, not what the source says", sorts("lost"),
			[]change{engine("start.go",
				`if run.Until, err = e.Source.Mark(ctx); err != nil {`,
				`if run.Until, err = e.Source.(desk.Rewinder).At(ctx, e.Now()); err != nil {`)},
		},
		{
			"stop-moves-cutoff", 3, "a run that the threshold stopped moves the cutoff", sorts("lost"),
			[]change{engine("close.go",
				`if run.Status != Verified && run.Status != Exceptions {`,
				`if run.Status != Verified && run.Status != Exceptions && run.Status != Stopped {`)},
		},
		{
			"continue-renews-baseline", 3, "a full run that goes on takes a new mark", sorts("lost"),
			[]change{
				engine("start.go",
					"\tsums, err := e.sums(ctx, id)\n",
					"\tmark, err := e.Source.Mark(ctx)\n\tif err != nil {\n\t\treturn Run{}, false, err\n\t}\n\tsums, err := e.sums(ctx, id)\n"),
				engine("start.go",
					"\t\tif r.Adopted.IsZero() {\n",
					"\t\tr.Until = mark\n\t\tif r.Adopted.IsZero() {\n"),
			},
		},
		{
			"scope-change-keeps-cutoff", 3, "a window goes on from its cutoff although its scope means something else now", sorts("lost"),
			[]change{engine("start.go", `if b.Scope != defined {`, `if false {`)},
		},

		// 4: nobody's work is overwritten silently.
		{
			"decision-for-other-versions", 4, "a decision is applied to versions it never saw", sorts("overwritten"),
			[]change{engine("merge.go", `if ok && (d.Source != s || d.Target != t) {`, `if false {`)},
		},
		{
			"base-of-what-was-sent", 4, "the base of the next merge is what was sent, not what was read back", sorts("lost"),
			[]change{engine("write.go", `newBase(v.Digest(), after.Fields[f].Digest())`, `newBase(v.Digest(), v.Digest())`)},
		},
		{
			"write-without-lock", 4, "a write does not tell the desk which version it is meant for", sorts("overwritten"),
			[]change{engine("write.go", `out[0].Lock = now.Lock`, `out[0].Lock = ""`)},
		},
		{
			"remap-overwrites", 4, "what another mapping makes of a field is written over what people set", sorts("overwritten"),
			[]change{engine("write.go",
				"\tm := merge(w.ref.Kind, w.row.Fields,",
				"\tfor f, b := range w.row.Fields {\n\t\tif w.it.Due == \"mapping\" {\n\t\t\tw.row.Fields[f] = newBase(b.Src, now.Fields[f].Digest())\n\t\t}\n\t}\n"+
					"\tm := merge(w.ref.Kind, w.row.Fields,")},
		},
		{
			"undo-over-people", 4, "an undo puts back what people have changed since", sorts("overwritten"),
			[]change{engine("putback.go", `case t == wrote.tgt(), bare.Fields[f].Digest() == wrote.tgt():`, `case true || bare.Fields == nil:`)},
		},
		{
			"heal-over-people", 4, "a verification's heal sets fields again that people have changed", sorts("overwritten"),
			[]change{engine("heal.go", `return !now.Touched[f] && !others`, `return !others`)},
		},
		{
			"heal-without-lock", 4, "a heal takes nobody's word for it that nobody has worked on a record", sorts("overwritten"),
			[]change{engine("heal.go", `return now.Lock != "" && now.Lock == w.row.Lock`, `return now.Lock != ""`)},
		},
		{
			"earlier-day-is-believed", 4, "what a restored ledger says of a ticket is taken for our last write", sorts("overwritten", "lost"),
			[]change{engine("ours.go", `return w.run.Adopt || w.forgotten || w.run.adopted() && len(w.row.Trail) > 0 &&`, `return false && w.run.adopted() && len(w.row.Trail) > 0 &&`)},
		},

		// 5: nothing is deleted unless a policy names it.
		{
			"deletes-unasked", 5, "what was deleted in the source is deleted in the target although the policy says ignore", sorts("lost"),
			[]change{engine("events.go", `case policy == Mirror:`, `case policy == Mirror || policy == Ignore:`)},
		},
		{
			"deletes-what-has-moved", 5, "a ticket is deleted whatever people have done to it since it was read", sorts("overwritten"),
			[]change{engine("events.go", `d.Delete(ctx, e.targetRef(w), lock)`, `d.Delete(ctx, e.targetRef(w), lock[:0])`)},
		},
		{
			"merges-what-has-moved", 5, "a ticket is merged whatever people have done to it since it was read", sorts("overwritten"),
			[]change{engine("events.go", `m.Merge(ctx, from, e.targetRef(w), old.Lock)`, `m.Merge(ctx, from, e.targetRef(w), old.Lock[:0])`)},
		},
		{
			"revises-what-has-moved", 5, "an entry is revised whatever people have done to its ticket since it was read", sorts("overwritten"),
			[]change{engine("revise.go", `Revise(ctx, e.targetRef(w), en, lock)`, `Revise(ctx, e.targetRef(w), en, lock[:0])`)},
		},
		{
			"undo-removes-people's-work", 5, "an undo removes a ticket on which people have worked since", sorts("overwritten"),
			[]change{engine("undo.go", `if what := e.worked(w, now, blind); len(what) > 0 {`, `if what := e.worked(w, now, blind); false {`)},
		},

		// 6: silent.
		{
			"mails-on", 6, "the run goes on after the target sent mail", sorts("leaked"),
			[]change{engine("dispose.go",
				`return verdict{act: stopRun, why: "the target sent mail because of the migration: " + err.Error()}`,
				`return verdict{act: tryAgain, delay: time.Second}`)},
		},

		// 7: one active run per window.
		{
			"two-runs-per-window", 7, "a run of a window starts while another one of it is on", sorts("doubled"),
			[]change{engine("start.go",
				`if active, ok := st.Lanes[run.Lane]; ok && !q.Restart {`,
				`if active, ok := st.Lanes[run.Lane]; ok && !q.Restart && run.Kind != Delta {`)},
		},

		// 8: the sums are right.
		{
			"sums-by-increment", 8, "outcomes are counted up as they come, not derived from what is there", sorts("stuck", "miscounted"),
			[]change{
				engine("rows.go", "\tSums *report.Counts `json:\"sums,omitempty\"`\n", "\tSums *report.Counts `json:\"sums,omitempty\"`\n\tUp report.Counts `json:\"up\"`\n"),
				engine("push.go",
					`outs = append(outs, Row{Key: e.outKey(w.m.Run, w.m.Page, w.m.Seq), Body: body})`,
					`if _, err := update(ctx, e, e.pageKey(w.m.Run, w.m.Page), func(p *pageRow) error { p.Up = p.Up.Add(one(w.out.Outcome)); return nil }); err != nil {
			back(w.m, verdict{delay: time.Second}, err)
			w.done = false
			continue
		}
		outs = append(outs, Row{Key: e.outKey(w.m.Run, w.m.Page, w.m.Seq), Body: body})`),
				engine("close.go", "\t\t\tfor _, o := range outs {\n\t\t\t\tc = c.Add(one(o.Outcome))\n\t\t\t}\n", "\t\t\tc = c.Add(p.Up)\n\t\t\t_ = outs\n"),
			},
		},

		// 9: the source is read only.
		{
			"marks-the-source", 9, "tickets that have been moved get a tag in the source", sorts("overwritten"),
			[]change{engine("claim.go",
				"\tif err := e.await(ctx, w); err != nil {\n",
				"\tif d, ok := e.Source.(interface {\n\t\tApply(context.Context, desk.Ref, desk.Change) (desk.Written, error)\n\t}); ok {\n"+
					"\t\tif _, err := d.Apply(ctx, w.ref, desk.Change{Fields: desk.Fields{desk.Tags: {\"moved\"}}}); err != nil {\n\t\t\treturn e.release(ctx, w, err)\n\t\t}\n\t}\n"+
					"\tif err := e.await(ctx, w); err != nil {\n")},
		},

		// 10: no customer's word in a log or error.
		{
			"value-in-error", 10, "an error names the value that could not be written", sorts("leaked"),
			[]change{engine("write.go",
				`fmt.Errorf("write target %s of %s: %w", w.row.Target, w.ref, err)`,
				`fmt.Errorf("write target %s of %s, %q: %w", w.row.Target, w.ref, w.want.Fields[desk.Subject], err)`)},
		},

		// 11: within the limits.
		{
			"limit-is-an-attempt", 11, "waiting for a limit counts as an attempt", sorts("miscounted"),
			[]change{engine("dispose.go",
				`return verdict{act: giveBack, delay: rest(err)}`,
				`if attempt < maxAttempts { return verdict{act: tryAgain, delay: rest(err)} }`)},
		},
		{
			"does-not-wait", 11, "a desk that asks for a pause is asked again at once", sorts("stuck"),
			[]change{
				engine("dispose.go", `return verdict{act: giveBack, delay: rest(err)}`, `return verdict{act: giveBack, delay: time.Second}`),
				engine("dispose.go", `until = e.Now().Add(rest(err))`, `until = e.Now().Add(time.Second)`),
			},
		},

		// 12: it ends.
		{
			"lost-message", 12, "a message that got lost is never sent again", sorts("stuck"),
			[]change{engine("dispatch.go", ` || e.Now().Sub(sent) > e.Resend`, ``)},
		},
		{
			"link-blocks", 12, "a ticket waits for whatever it refers to", sorts("stuck"),
			[]change{engine("refs.go", `w.waits = append(w.waits, end)`, `return "", busyError{since: e.Now(), until: e.Now()}`)},
		},
		{
			"refused-for-ever", 12, "a record that the desk refuses is tried again and again", sorts("stuck"),
			[]change{engine("dispose.go",
				"case desk.ErrRejected, desk.ErrNotFound, desk.ErrCursor:\n\t\treturn verdict{act: fail}",
				"case desk.ErrRejected, desk.ErrNotFound, desk.ErrCursor:\n\t\treturn verdict{act: tryAgain, delay: time.Minute}")},
		},
	}
}

package sim

import (
	"context"
	"slices"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// outcome is what becomes of one call to a desk.
type outcome struct {
	err    error
	lost   bool          // it takes effect, and the answer does not arrive
	late   time.Duration // it takes effect so long after the caller gave up
	cut    bool          // of a file: a byte is missing
	longer bool          // of a file: there is one too many
	mailed bool
}

// hit takes a fault of this sort that is waiting to strike.
func (w *world) hit(what string) bool {
	i := slices.IndexFunc(w.armed, func(e event) bool { return e.what == what })
	if i < 0 {
		return false
	}
	w.armed = slices.Delete(slices.Clone(w.armed), i, i+1)
	w.occur("fault/" + what)
	return true
}

func writes(op string) bool {
	return op == "create" || op == "apply" || op == "revise" || op == "merge" || op == "delete"
}

// call is one request to a desk.
func (w *world) call(ctx context.Context, d *simDesk, op string, ref desk.Ref) (o outcome) {
	cost := time.Duration(20+w.roll.IntN(300)) * time.Millisecond
	fail := func(class error, said string) outcome {
		return outcome{err: &desk.Error{Op: op + " " + ref.String(), Class: class, Said: said}}
	}
	if w.cur != nil && len(w.armed) > 0 && w.hit("slow") {
		cost = time.Duration(20+w.roll.IntN(160)) * time.Second
	}
	w.tick(cost)
	if w.cur == nil {
		return o // the operator's own look
	}
	w.say("%s %s %s", d.name, op, ref)
	defer func() {
		if o.err != nil {
			w.say("%s %s %s: %v", d.name, op, ref, o.err)
		}
	}()
	switch {
	case ctx.Err() != nil:
		return outcome{err: ctx.Err()}
	case w.now.Before(w.down[d]):
		return fail(desk.ErrTransient, "no answer")
	case w.now.Before(w.revoked[d]):
		return fail(desk.ErrUnauthorized, "key revoked")
	case w.now.Before(w.limit[d]):
		return w.pleaseWait(op, ref)
	case writes(op) && w.poison[ref] || op == "apply" && w.poison[w.sourceOf(ref)]:
		w.occur("fault/poison")
		return fail(desk.ErrRejected, "a value is not allowed")
	case writes(op) && op != "delete" && w.mailing:
		w.occur("fault/mailed")
		// A batch or two may be on its way when the first mail is noticed.
		if w.mails++; w.mails == 40 {
			w.violate("leaked", "the target has mailed %d times, and it is written to all the same", w.mails)
		}
		return outcome{mailed: true}
	case len(w.armed) == 0:
		return o
	case w.hit("throttled"):
		e := fail(desk.ErrThrottled, "slow down")
		e.err.(*desk.Error).RetryAfter = []time.Duration{0, time.Second, 30 * time.Second, 5 * time.Hour}[w.roll.IntN(4)] //nolint:errorlint,forcetypeassert // made above
		return e
	case w.hit("transient"):
		return fail(desk.ErrTransient, "status 503")
	case w.hit("rubbish"):
		return fail(desk.ErrTransient, "a page instead of an answer")
	case op == "open" && w.hit("file cut"):
		o.cut = true
	case op == "open" && w.hit("file longer"):
		o.longer = true
	case op == "open" && w.hit("file expired"):
		return fail(desk.ErrTransient, "the link expired")
	case !writes(op):
	case w.hit("rejected"):
		return fail(desk.ErrRejected, "a value is not allowed")
	case w.hit("lost answer"):
		o.lost = true
	case w.hit("late effect"):
		o.late = time.Duration(1+w.roll.IntN(8)) * time.Second
	}
	return o
}

const breather = 5 * time.Minute

// limited begins a time in which a desk answers nothing but that it has been asked too much.
func (w *world) limited(d *simDesk, until time.Time) {
	w.limit[d] = until
	clear(w.asked)
}

// pleaseWait asks for a pause. Two windows, doubled messages: a ticket may be asked for a few times in each pause, no more.
func (w *world) pleaseWait(op string, ref desk.Ref) outcome {
	what := op + " " + ref.String()
	if w.asked[what]++; ref.Kind == desk.Ticket && w.asked[what] == 100 {
		w.violate("stuck", "%s was asked for 100 times within %s, although the desk wants a pause of %s each time", what, 42*time.Minute, breather)
	}
	return outcome{err: &desk.Error{Op: what, Class: desk.ErrThrottled, Said: "slow down", RetryAfter: breather}}
}

func (w *world) sourceOf(ref desk.Ref) desk.Ref {
	if r := w.dst.records[ref]; r != nil {
		return r.source
	}
	return desk.Ref{}
}

// effect lets a write take effect, now or later or without anybody being told.
func (w *world) effect(o outcome, do func()) error {
	lost := &desk.Error{Op: "write", Class: desk.ErrTransient, Said: "connection reset"}
	if o.late > 0 {
		w.later(o.late, do)
		return lost
	}
	do()
	w.tick(10 * time.Millisecond) // a process may die between the effect and the answer
	switch {
	case o.lost:
		return lost
	case o.mailed:
		return &desk.Error{Op: "write", Class: desk.ErrMailed}
	}
	return nil
}

// observed notes that the process whose turn it is has just seen a target record.
func (w *world) observed(r *record) {
	if w.cur != nil {
		r.read[w.cur], r.seen[w.cur] = w.now, r.now().seq
	}
}

// eventWrite tells whether a write to r now may be what a policy says about a deletion, merge or spam in the source.
func (w *world) eventWrite(r *record) bool {
	s := w.src.records[r.source]
	if s == nil {
		return false
	}
	v := s.now()
	return v.gone || v.spam || v.into != "" || !s.back.IsZero() && w.now.Sub(s.back) < 10*time.Minute // it is told by a reading from before
}

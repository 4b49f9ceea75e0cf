package delta

import (
	"context"
	"errors"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// verdict is what follows from an error while one record is pushed.
type verdict struct {
	act   action
	delay time.Duration
	// why the run waits or stops, in words for the operator.
	why string
}

type action int

const (
	giveBack    action = iota // put the message back; this was no attempt
	tryAgain                  // put the message back; this was an attempt
	fail                      // outcome failed
	waitDesk                  // put the message back; the run waits for a desk
	stopRun                   // end the run at once
	decideAgain               // the record moved: read and decide again
)

// maxAttempts is how often a record is tried before its outcome is failed.
const maxAttempts = 5

// maxConflicts is how often a record may move under our hands before that is a failure.
const maxConflicts = 50

// rest is the pause that a desk asks for, at most a quarter of an hour at a time.
func rest(err error) time.Duration {
	var de *desk.Error
	if errors.As(err, &de) && de.RetryAfter > 0 {
		return min(de.RetryAfter, 15*time.Minute)
	}
	return 30 * time.Second
}

// keyRest is how long nothing is asked of a desk that lets us in no more: until somebody has seen to its key.
const keyRest = time.Minute

// heed keeps in mind that a desk asked for a pause, or lets us in no more, so that this process does not ask it once for every record.
func (e *Engine) heed(err error) {
	var until time.Time
	switch desk.Class(err) {
	case desk.ErrThrottled:
		until = e.Now().Add(rest(err))
	case desk.ErrUnauthorized:
		until = e.Now().Add(keyRest)
	default:
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if until.After(e.pause) {
		e.pause = until
	}
}

// paused is how much of a pause is left.
func (e *Engine) paused() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return max(e.pause.Sub(e.Now()), 0)
}

// dispose decides what follows from err on the nth attempt (from 1). It is pure. A transient failure without an answer
// from the far side on the last attempt is fail here; push asks the desk first whether it is there at all.
func dispose(err error, attempt int) verdict {
	var de *desk.Error
	errors.As(err, &de)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded) && de == nil:
		return verdict{act: giveBack}
	case errors.Is(err, ErrStale):
		return verdict{act: decideAgain, delay: time.Second}
	}
	switch desk.Class(err) {
	case desk.ErrMailed:
		return verdict{act: stopRun, why: "the target sent mail because of the migration: " + err.Error()}
	case desk.ErrUnauthorized:
		return verdict{act: waitDesk, delay: keyRest, why: err.Error()}
	case desk.ErrThrottled:
		return verdict{act: giveBack, delay: rest(err)}
	case desk.ErrConflict:
		return verdict{act: decideAgain, delay: 2 * time.Second}
	case desk.ErrRejected, desk.ErrNotFound, desk.ErrCursor:
		return verdict{act: fail}
	}
	if attempt >= maxAttempts {
		return verdict{act: fail}
	}
	return verdict{act: tryAgain, delay: time.Second << attempt}
}

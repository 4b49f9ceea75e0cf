package desk

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The error classes. Every error of a Source or Target is one of them or wraps one; an error that is none counts as
// ErrTransient. shared/delta alone decides what follows from which.
var (
	// ErrNotFound: the record is not there (any more).
	ErrNotFound = errors.New("not found")
	// ErrConflict: the record has moved since it was read; nothing was written.
	ErrConflict = errors.New("changed meanwhile")
	// ErrRejected: the desk understood and refuses this record; trying again is of no use until something changes.
	ErrRejected = errors.New("refused by the desk")
	// ErrUnauthorized: the account or its rights are not (or no longer) good enough for anything of this kind.
	ErrUnauthorized = errors.New("not authorised")
	// ErrThrottled: the desk asks for a pause; nothing was done.
	ErrThrottled = errors.New("limit reached")
	// ErrTransient: the desk or the way to it failed; whether a write took effect is open.
	ErrTransient = errors.New("temporary failure")
	// ErrCursor: a damaged cursor, or one of another desk.
	ErrCursor = errors.New("cursor does not belong to this desk")
	// ErrMailed: the desk mailed somebody because of what we wrote. The run must stop.
	ErrMailed = errors.New("the target sent mail")
)

// Error carries a class with its context. It holds ids and what the far side said, never content or secrets.
type Error struct {
	Op         string        // what was attempted: "create ticket/42", "GET /ticket/N"
	Status     int           // the far side's status code, 0 where there was none
	Said       string        // the far side's own words, shortened, free of secrets and content
	RetryAfter time.Duration // for ErrThrottled: how long to wait; 0 where the desk did not say
	Class      error         // one of the sentinels
	Err        error         // cause, may be nil
}

// Error says what was attempted, what came back and what class it is.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Class != nil {
		fmt.Fprintf(&b, ": %v", e.Class)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, " (status %d)", e.Status)
	}
	if e.Said != "" {
		fmt.Fprintf(&b, ": %s", e.Said)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap makes errors.Is find the class and the cause.
func (e *Error) Unwrap() []error {
	var out []error
	if e.Class != nil {
		out = append(out, e.Class)
	}
	if e.Err != nil {
		out = append(out, e.Err)
	}
	return out
}

// Class returns the sentinel that err wraps, ErrTransient where it wraps none, nil for nil.
func Class(err error) error {
	if err == nil {
		return nil
	}
	for _, c := range []error{ErrMailed, ErrCursor, ErrUnauthorized, ErrThrottled, ErrNotFound, ErrConflict, ErrRejected} {
		if errors.Is(err, c) {
			return c
		}
	}
	return ErrTransient
}

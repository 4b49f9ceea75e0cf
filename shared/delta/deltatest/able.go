package deltatest

import (
	"context"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// target is what every target of the tests can do: the capabilities that no test takes away.
type target interface {
	desk.Target
	desk.Matcher
	desk.Checker
	desk.Definer
	desk.Deleter
	desk.Opener
}

type (
	finder  func(context.Context, desk.Ref) ([]string, error)
	reviser func(context.Context, desk.Ref, desk.Entry, string) error
	merger  func(ctx context.Context, from, into desk.Ref, lock string) error
)

func (f finder) Find(ctx context.Context, source desk.Ref) ([]string, error) { return f(ctx, source) }

func (r reviser) Revise(ctx context.Context, ticket desk.Ref, e desk.Entry, lock string) error {
	return r(ctx, ticket, e, lock)
}

func (m merger) Merge(ctx context.Context, from, into desk.Ref, lock string) error {
	return m(ctx, from, into, lock)
}

func when[F any](can bool, f F) (none F) {
	if can {
		return f
	}
	return none
}

// able returns t with those of the capabilities that are not nil, and no others: a type says what a desk can do.
func able(t target, f finder, r reviser, m merger) desk.Target {
	switch {
	case f != nil && r != nil && m != nil:
		return struct {
			target
			finder
			reviser
			merger
		}{t, f, r, m}
	case f != nil && r != nil:
		return struct {
			target
			finder
			reviser
		}{t, f, r}
	case f != nil && m != nil:
		return struct {
			target
			finder
			merger
		}{t, f, m}
	case r != nil && m != nil:
		return struct {
			target
			reviser
			merger
		}{t, r, m}
	case f != nil:
		return struct {
			target
			finder
		}{t, f}
	case r != nil:
		return struct {
			target
			reviser
		}{t, r}
	case m != nil:
		return struct {
			target
			merger
		}{t, m}
	}
	return t
}

package delta

import (
	"maps"
	"slices"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// merge3 is what a three-way comparison of one record's fields comes to.
type merge3 struct {
	Apply desk.Fields // to be written
	Held  []heldField // wait for a person
	Kept  []desk.Field
	// Accept are fields whose present state on both sides is agreed on, and becomes the base as it is.
	Accept []desk.Field
}

// merge is invariant 4. Per field: the source's value (mapped), the target's value now, and the base: what both were after
// our last write.
//
//	changed only in the source   apply
//	changed only in the target   keep, and keep the base: should the source change later, both have changed
//	both, to the same value      nothing
//	both, differently            a decision bound to just these two values, else the field's policy
//
// A field without a base was never written by us (or the write is in doubt): what is empty in the target is filled in,
// what says something else is treated as changed on both sides.
//
// Fields of the target that cannot be written (any more) are left alone. Those in ask are a person's to decide, whatever the
// policy, and whether they can be written or not. It is pure.
func merge(k desk.Kind, bases map[desk.Field]base, source, target desk.Fields, defs desk.Definitions, p Policies, decided map[desk.Field]Decision, ask map[desk.Field]bool) merge3 {
	m := merge3{Apply: desk.Fields{}}
	for _, f := range slices.Sorted(maps.Keys(source)) {
		def, ok := defs.Field(k, f)
		writable := !ok || def.Write == desk.Always
		if !writable && !ask[f] {
			continue
		}
		s, t := source[f].Digest(), target[f].Digest()
		if s == t {
			m.Accept = append(m.Accept, f)
			continue
		}
		b, based := bases[f]
		if ask[f] {
			// Asked below.
		} else if !based {
			if t == "" {
				m.Apply[f] = source[f]
				continue
			}
		} else {
			moved := t != b.tgt()
			switch {
			case s == b.Src && moved:
				m.Kept = append(m.Kept, f)
				continue
			case s == b.Src:
				continue // the target writes this value its own way
			case !moved:
				m.Apply[f] = source[f]
				continue
			}
		}
		d, ok := decided[f]
		if ok && (d.Source != s || d.Target != t || !writable && d.Choice != ChooseTarget) {
			ok = false // one of the sides has moved since, or it cannot be done: ask again
		}
		policy := p.conflict(f)
		if ask[f] {
			policy = Hold
		}
		switch {
		case ok && d.Choice == ChooseSource, !ok && policy == SourceWins:
			m.Apply[f] = source[f]
		case ok && d.Choice == ChooseTarget, !ok && policy == TargetWins:
			m.Accept = append(m.Accept, f)
			m.Kept = append(m.Kept, f)
		case ok && d.Choice == ChooseValue:
			m.Apply[f] = d.Value
		default:
			m.Held = append(m.Held, heldField{Field: f, Source: source[f], Target: target[f], SourceDigest: s, TargetDigest: t, Untraced: ask[f]})
		}
	}
	return m
}

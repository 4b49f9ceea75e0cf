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
// fields of the target that cannot be written (any more) are left alone. It is pure.
func merge(k desk.Kind, bases map[desk.Field]base, source, target desk.Fields, defs desk.Definitions, p Policies, decided map[desk.Field]Decision) merge3 {
	m := merge3{Apply: desk.Fields{}}
	for _, f := range slices.Sorted(maps.Keys(source)) {
		if def, ok := defs.Field(k, f); ok && def.Write != desk.Always {
			continue
		}
		s, t := source[f].Digest(), target[f].Digest()
		if s == t {
			m.Accept = append(m.Accept, f)
			continue
		}
		// An answer holds whatever the base says, too: somebody may answer again while the first answer is being written.
		d, ok := decided[f]
		if ok && (d.Source != s || d.Target != t) {
			ok = false // one of the sides has moved since: ask again
		}
		b, based := bases[f]
		switch {
		case ok:
		case !based:
			if t == "" {
				m.Apply[f] = source[f]
				continue
			}
		default:
			moved := t != b.tgt() || b.Kept // what was left to the target is still not what we wrote
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
		policy := p.conflict(f)
		if b.Ask {
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
			m.Held = append(m.Held, heldField{Field: f, Source: source[f], Target: target[f], SourceDigest: s, TargetDigest: t})
		}
	}
	return m
}

package delta

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Choice is what a person decides about something held.
type Choice string

// The choices: for a field the source's value, the target's, or a third one; for a create in doubt the target record it
// is, or to create it (again); for an entry the source's, or to leave it as it is in the target; for a record that was deleted in
// the target the same as for one in doubt, or the target's: to leave it deleted.
const (
	ChooseSource Choice = "source"
	ChooseTarget Choice = "target"
	ChooseValue  Choice = "value"
	ChooseLink   Choice = "link"
	ChooseCreate Choice = "create"
)

// Decision is a person's answer, bound to the two versions it was made for.
type Decision struct {
	Choice Choice     `json:"choice"`
	Value  desk.Value `json:"value,omitempty"` // for ChooseValue; for ChooseLink the target's id
	// Source and Target are the digests of what both sides said when it was made.
	Source string    `json:"source,omitempty"`
	Target string    `json:"target,omitempty"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
}

type heldField struct {
	Field        desk.Field `json:"field"`
	Source       desk.Value `json:"source"`
	Target       desk.Value `json:"target"`
	SourceDigest string     `json:"source_digest"`
	TargetDigest string     `json:"target_digest"`
	Decision     *Decision  `json:"decision,omitempty"`
	// Again: a decision was made, and one of the sides moved before it could be carried out.
	Again bool `json:"again,omitempty"`
}

// Held is one record with what waits for a person.
type Held struct {
	Ref    desk.Ref  `json:"ref"`
	Target string    `json:"target,omitempty"`
	Since  time.Time `json:"since"`
	Run    string    `json:"run"`
	Scope  string    `json:"scope"`
	// Fields that both sides changed.
	Fields []heldField `json:"fields,omitempty"`
	// Doubt is why it is open whether the record is in the target already, with what was found there.
	Doubt      string   `json:"doubt,omitempty"`
	Candidates []string `json:"candidates,omitempty"`
	// Doubtful are the entries of which it is open whether they are there.
	Doubtful []string  `json:"doubtful,omitempty"`
	Answer   *Decision `json:"answer,omitempty"`
	// Entries that changed in the source after they were copied, which the target cannot change.
	Entries []heldEntry `json:"entries,omitempty"`
	// Gone: the record was deleted in the target. Source is the digest of what the source said then: a decision to leave it deleted
	// is bound to that.
	Gone   bool   `json:"gone,omitempty"`
	Source string `json:"source,omitempty"`
	// Refused is why the last answer was not carried out: the question is put again.
	Refused string `json:"refused,omitempty"`
}

type heldEntry struct {
	Entry string `json:"entry"`
	// Why it waits, and what is to be done by hand where the target cannot.
	Why string `json:"why"`
	// Can: the target can change it, so that the source may be chosen.
	Can bool `json:"can,omitempty"`
	// Heal: a verification found that the target's is another one. It is asked until somebody decides or mends it.
	Heal bool `json:"heal,omitempty"`
	// Source and Target are the versions that were seen. A decision for the target's holds as long as the source's stays:
	// somebody may have to change the target's by hand for it.
	Source   string    `json:"source"`
	Target   string    `json:"target,omitempty"`
	Decision *Decision `json:"decision,omitempty"`
	// Again: a decision was made, and one of the sides moved before it could be carried out.
	Again bool `json:"again,omitempty"`
}

func (h Held) empty() bool {
	return len(h.Fields) == 0 && h.Doubt == "" && len(h.Entries) == 0 && !h.Gone
}

// Question says what is open of the record as a whole, "" if nothing is.
func (h Held) Question() string {
	var parts []string
	for _, s := range []string{h.Refused, h.Doubt, map[bool]string{true: "it was deleted in the target"}[h.Gone]} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, "; ")
}

// reason says in one sentence what waits, without content.
func (h Held) reason() string {
	var parts []string
	if q := h.Question(); q != "" {
		parts = append(parts, q)
	}
	for _, f := range h.Fields {
		s := fmt.Sprintf("%s changed on both sides", f.Field)
		if f.Again {
			s += " (and again since it was decided)"
		}
		parts = append(parts, s)
	}
	for _, en := range h.Entries {
		if en.Again {
			en.Why += " (and again since it was decided)"
		}
		parts = append(parts, en.Why)
	}
	return strings.Join(parts, "; ")
}

// next says what the operator can do.
func (h Held) next() string {
	switch {
	case h.Doubt != "":
		return fmt.Sprintf("deltadesk decide %s --link TARGET-ID | --create-again", h.Ref)
	case h.Gone:
		return fmt.Sprintf("deltadesk decide %s --create-again | --link TARGET-ID | --choose target", h.Ref)
	case len(h.Fields) > 0:
		return fmt.Sprintf("deltadesk decide %s --field %s --choose source|target|value", h.Ref, h.Fields[0].Field)
	}
	if len(h.Entries) == 0 {
		return "" // nothing waits: a row that somebody else wrote
	}
	choices := "target"
	if h.Entries[0].Can {
		choices = "source|target"
	}
	return fmt.Sprintf("deltadesk decide %s --entry %s --choose %s", h.Ref, h.Entries[0].Entry, choices)
}

// decisions by field.
func (h Held) decisions() map[desk.Field]Decision {
	out := map[desk.Field]Decision{}
	for _, f := range h.Fields {
		if f.Decision != nil {
			out[f.Field] = *f.Decision
		}
	}
	return out
}

// spend takes the decision about a field back, so that it is asked again.
func (h *Held) spend(f desk.Field) {
	h.Fields = slices.Clone(h.Fields)
	for i := range h.Fields {
		if x := &h.Fields[i]; x.Field == f && x.Decision != nil {
			x.Decision, x.Again = nil, true
		}
	}
}

// says tells whether a decision about a field comes to this value of the target, where the source has that one.
func (d Decision) says(target, source string) bool {
	return d.Choice == ChooseSource && target == source || d.Choice == ChooseValue && target == d.Value.Digest()
}

// entry returns what was decided about an entry, the zero Decision if nothing was.
func (h Held) entry(id string) Decision {
	for _, x := range h.Entries {
		if x.Entry == id && x.Decision != nil {
			return *x.Decision
		}
	}
	return Decision{}
}

// asks tells whether an entry is held.
func (h Held) asks(id string) bool {
	return slices.ContainsFunc(h.Entries, func(x heldEntry) bool { return x.Entry == id })
}

// heals tells whether a difference that a verification found still waits for a person.
func (h Held) heals() bool {
	return slices.ContainsFunc(h.Entries, func(x heldEntry) bool { return x.Heal })
}

// HeldRecords returns everything that waits for a person.
func (e *Engine) HeldRecords(ctx context.Context) ([]Held, error) {
	var out []Held
	err := e.each(ctx, e.heldPart(), "", func(r Row) error {
		h, err := decode[Held](r)
		out = append(out, h)
		return err
	})
	return out, err
}

// Decide stores a decision about a held record. It is carried out by the next run of a window over its scope, and only if
// both sides still say what they said when it was made. Exactly one of field, entry and neither (a record in doubt) is
// meant.
func (e *Engine) Decide(ctx context.Context, ref desk.Ref, field desk.Field, entry string, d Decision) error {
	d.At = e.Now().UTC()
	var scope string
	_, err := update(ctx, e, e.heldKey(ref), func(h *Held) error {
		if h.Ref.ID == "" {
			return refuse("nothing of %s is held; `deltadesk held` lists what is", ref)
		}
		scope = h.Scope
		switch {
		case field != "":
			i := slices.IndexFunc(h.Fields, func(f heldField) bool { return f.Field == field })
			if i < 0 {
				return refuse("field %s of %s is not held; held is: %s", field, ref, h.reason())
			}
			if d.Choice != ChooseSource && d.Choice != ChooseTarget && d.Choice != ChooseValue {
				return refuse("a field is decided with source, target or value")
			}
			d.Source, d.Target = h.Fields[i].SourceDigest, h.Fields[i].TargetDigest
			h.Fields[i].Decision, h.Fields[i].Again = &d, false
		case entry != "":
			i := slices.IndexFunc(h.Entries, func(x heldEntry) bool { return x.Entry == entry })
			if i < 0 {
				return refuse("entry %s of %s is not held; held is: %s", entry, ref, h.reason())
			}
			switch {
			case d.Choice == ChooseTarget, d.Choice == ChooseSource && h.Entries[i].Can:
			case d.Choice == ChooseSource:
				return refuse("entry %s cannot be changed in the target by us: change it there by hand, then --choose target", entry)
			default:
				return refuse("an entry is decided with source or target")
			}
			d.Source, d.Target = h.Entries[i].Source, h.Entries[i].Target
			h.Entries[i].Decision, h.Entries[i].Again = &d, false
		default:
			leave := h.Gone && h.Doubt == "" // it can stay deleted
			switch {
			case h.Doubt == "" && !h.Gone && d.Choice != ChooseLink && d.Choice != ChooseCreate:
				return refuse("say of which field or entry: --field FIELD or --entry ENTRY; held of %s is: %s", ref, h.reason())
			case h.Doubt == "" && !h.Gone:
				return refuse("%s is not in doubt; held is: %s", ref, h.reason())
			case d.Choice == ChooseTarget && leave:
				d.Source = h.Source
			case d.Choice != ChooseLink && d.Choice != ChooseCreate && leave:
				return refuse("a record that was deleted in the target is decided with --create-again, --link TARGET-ID or --choose target (leave it deleted)")
			case d.Choice != ChooseLink && d.Choice != ChooseCreate:
				return refuse("a record in doubt is decided with --link TARGET-ID or --create-again")
			}
			h.Answer = &d
		}
		return nil
	})
	if err != nil {
		return err
	}
	return e.makeDue(ctx, scope, dueRow{Listed: desk.Listed{Ref: ref, Open: true}, Why: "decision"})
}

// loadHeld reads what was asked about w's record, and what somebody answered. An answer to create that is older than the day on
// which the migration adopted what is in the target may have been carried out on one that the ledger does not know: it is asked again.
func (e *Engine) loadHeld(ctx context.Context, w *work) (err error) {
	w.heldVersion, err = e.get(ctx, e.heldKey(w.ref), &w.heldBefore)
	if a := w.heldBefore.Answer; a != nil && a.Choice == ChooseCreate && a.At.Before(w.run.Adopted) {
		w.heldBefore.Answer = nil
	}
	return err
}

// keepHeld writes, renews or removes a record's held row.
func (e *Engine) keepHeld(ctx context.Context, h Held, before Held, version int64) error {
	if h.empty() {
		if version == 0 {
			return nil
		}
		if err := e.rows.Delete(ctx, e.heldKey(h.Ref), version); err != nil {
			return fmt.Errorf("remove the held row of %s: %w", h.Ref, err)
		}
		return nil
	}
	h.Since = before.Since
	if h.Since.IsZero() {
		h.Since = e.Now().UTC()
	}
	for i, f := range h.Fields {
		for _, old := range before.Fields {
			if old.Field != f.Field {
				continue
			}
			moved := old.SourceDigest != f.SourceDigest || old.TargetDigest != f.TargetDigest
			h.Fields[i].Again = old.Again || moved && old.Decision != nil
			if !moved {
				h.Fields[i].Decision = old.Decision
			}
		}
	}
	for i, en := range h.Entries {
		for _, old := range before.Entries {
			if old.Entry == en.Entry { // a decision that still holds has been carried out
				h.Entries[i].Again = old.Again || old.Decision != nil
			}
		}
	}
	_, err := e.put(ctx, e.heldKey(h.Ref), version, h)
	return err
}

func digestJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("delta: a row that cannot be written as JSON: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

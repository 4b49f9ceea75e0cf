package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// stored is the content of a record's file.
type stored struct {
	// Record as the source had it, with the archive's id and stamp. Lock and Began are never stored.
	Record desk.Record `json:"record"`
	// Into is the ticket that this one was merged into; its content went there.
	Into string `json:"into,omitempty"`
	// Origins are the records of the source that this one was made from: one, or several after a merge.
	Origins []origin `json:"origins,omitempty"`
}

type origin struct {
	Ref desk.Ref `json:"ref"`
	URL string   `json:"url,omitempty"`
}

// parseStored reads a record's file. What it accepts is safe to work with: known kind and event, unique entry and file ids,
// files with a hash.
func parseStored(b []byte) (stored, error) {
	var st stored
	if err := decodeStrict(b, &st); err != nil {
		return stored{}, err
	}
	r := st.Record
	if _, err := recordPath(r.Ref); err != nil {
		return stored{}, err
	}
	if r.Ref.ID == "" || len(r.Ref.ID) > maxID || r.Stamp.Seq < 1 {
		return stored{}, errors.New("it has no valid id or sequence number")
	}
	switch r.Event {
	case "", desk.Changed, desk.Deleted, desk.Spam:
	case desk.Merged:
		if st.Into == "" || st.Into == r.Ref.ID {
			return stored{}, errors.New("it is merged into nothing")
		}
	default:
		return stored{}, errors.New("it has an unknown event")
	}
	entries := map[string]bool{}
	for i, e := range r.Entries {
		if e.ID == "" || entries[e.ID] {
			return stored{}, fmt.Errorf("entry %d has no id of its own", i)
		}
		entries[e.ID] = true
		files := map[string]bool{}
		for j, x := range e.Files {
			if x.ID == "" || files[x.ID] || !hexSHA.MatchString(x.SHA256) || x.Size < 0 {
				return stored{}, fmt.Errorf("file %d of entry %d has no id, hash or size of its own", j, i)
			}
			files[x.ID] = true
		}
	}
	return st, nil
}

// line returns what the journal says about the record.
func (st *stored) line() line {
	r := st.Record
	l := line{Ref: r.Ref, Event: r.Event, Into: st.Into, Open: isOpen(r), Aliases: r.Aliases, Keys: matchKeys(r), Files: blobs(r)}
	if r.Event == desk.Changed {
		l.Event = ""
	}
	if !st.gone() {
		for _, o := range st.Origins {
			l.Sources = append(l.Sources, o.Ref)
		}
	}
	return l
}

// gone tells whether there is no content any more: deleted here, or merged.
func (st *stored) gone() bool {
	return st.Record.Event == desk.Merged || st.Record.Event == desk.Deleted && st.Record.Fields == nil
}

// isOpen guesses from the status, of which every desk has its own: it only decides what is moved first.
func isOpen(r desk.Record) bool {
	if r.Ref.Kind != desk.Ticket || r.Event == desk.Deleted || r.Event == desk.Merged || r.Event == desk.Spam {
		return false
	}
	switch strings.ToLower(r.Fields[desk.Status].First()) {
	case "closed", "resolved", "solved", "done", "rejected", "deleted", "spam":
		return false
	}
	return len(r.Fields[desk.Resolved]) == 0
}

func blobs(r desk.Record) []string {
	var out []string
	for _, e := range r.Entries {
		for _, x := range e.Files {
			out = append(out, x.SHA256)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// matchFields are the fields that identify a record for certain, best first. A person's name does not.
func matchFields(k desk.Kind) []desk.Field {
	switch k {
	case desk.Person:
		return []desk.Field{desk.Email, desk.ExternalID, desk.Login}
	case desk.Company:
		return []desk.Field{desk.Email, desk.ExternalID, desk.Name}
	}
	return nil
}

// matchKeys returns hashes of what identifies the record, so that the journal, which only grows, keeps nobody's address.
func matchKeys(r desk.Record) []string {
	var out []string
	for _, f := range matchFields(r.Ref.Kind) {
		out = append(out, keysOf(r, f)...)
	}
	return out
}

func keysOf(r desk.Record, f desk.Field) []string {
	var out []string
	for _, v := range r.Fields[f] {
		if f != desk.ExternalID {
			v = strings.ToLower(strings.TrimSpace(v))
		}
		sum := sha256.Sum256([]byte(string(r.Ref.Kind) + "\x00" + string(f) + "\x00" + v))
		out = append(out, hex.EncodeToString(sum[:10]))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// canonical returns fields as the contract wants them.
func canonical(fs desk.Fields) desk.Fields {
	out := make(desk.Fields, len(fs))
	for f, v := range fs {
		if f.IsSet() {
			out[f] = desk.Set(v...)
		} else {
			out[f] = desk.Text(v...)
		}
	}
	return out
}

// valid tells whether a record can be kept as it is. The message names places, never content.
func valid(r desk.Record) error {
	for f, v := range r.Fields {
		if f == "" || !utf8.ValidString(string(f)) {
			return errors.New("a field has no valid name")
		}
		if !slices.ContainsFunc(v, func(s string) bool { return !utf8.ValidString(s) }) {
			continue
		}
		return fmt.Errorf("field %s is not UTF-8", f)
	}
	ok := utf8.ValidString
	for i, e := range r.Entries {
		sound := ok(e.ID) && ok(e.Marker) && ok(e.Author.ID) && ok(e.Author.Name) && ok(e.Author.Email) && ok(e.Subject) && ok(e.Body) && ok(e.Type)
		for k, v := range e.Headers {
			sound = sound && ok(k) && ok(v)
		}
		for _, x := range e.Files {
			sound = sound && ok(x.ID) && ok(x.Name) && ok(x.Type) && ok(x.CID)
		}
		if !sound {
			return fmt.Errorf("entry %d is not UTF-8", i)
		}
	}
	for _, h := range r.History {
		if !ok(h.By.ID) || !ok(h.By.Name) || !ok(h.By.Email) || !ok(h.Before) || !ok(h.After) {
			return errors.New("the history is not UTF-8")
		}
	}
	if !ok(r.Ref.ID) || !ok(r.URL) || slices.ContainsFunc(r.Aliases, func(s string) bool { return s == "" || !ok(s) }) {
		return errors.New("its id, address or an alias is not UTF-8")
	}
	return nil
}

const maxID = 200

// numbered returns id for n = 1, else id~n, within the length that ids may have.
func numbered(id string, n int) string {
	suffix := ""
	if n > 1 {
		suffix = "~" + strconv.Itoa(n)
	}
	if len(id)+len(suffix) > maxID {
		sum := sha256.Sum256([]byte(id))
		id = "sha256-" + hex.EncodeToString(sum[:])
	}
	return id + suffix
}

// adopt makes entries ready to be kept: ids of their own within the ticket (nth is the ticket's number among those with
// the same source id), canonical bodies, UTC.
func adopt(ticket string, nth int, have, add []desk.Entry) []desk.Entry {
	taken := map[string]bool{}
	for _, e := range have {
		taken[e.ID] = true
	}
	out := make([]desk.Entry, len(add))
	for i, e := range add {
		id := e.ID
		if id == "" {
			id = ticket + "/" + strconv.Itoa(len(have)+i+1)
		}
		n := nth
		for taken[numbered(id, n)] {
			n++
		}
		e.ID = numbered(id, n)
		taken[e.ID] = true
		e.At = e.At.UTC()
		e.Body = desk.CanonicalBody(e.Body)
		e.Files = slices.Clone(e.Files)
		files := map[string]bool{}
		for j := range e.Files {
			x := &e.Files[j]
			id, n := x.ID, 1
			if id == "" {
				id = strconv.Itoa(j + 1)
			}
			for files[numbered(id, n)] {
				n++
			}
			x.ID = numbered(id, n)
			files[x.ID] = true
		}
		out[i] = e
	}
	return out
}

// thread puts added entries where their times belong; entries of one time stay in the order in which they came.
func thread(have, add []desk.Entry) []desk.Entry {
	out := slices.Concat(have, add)
	slices.SortStableFunc(out, func(a, b desk.Entry) int { return a.At.Compare(b.At) })
	return out
}

package rttest

import (
	"encoding/json"
	"os"
	"sync"
	"time"
)

// Script is what the scripted people did, on both desks, in order: the first of the two witnesses of what the target must
// look like (the other one are the databases). Safe for concurrent use.
type Script struct {
	mu   sync.Mutex
	data scriptData
}

type scriptData struct {
	Seed    int64                `json:"seed"`
	Actions []Action             `json:"actions"`
	Tickets map[int64]*TicketLog `json:"tickets"` // of the source, by id
}

// Action is one thing that somebody did.
type Action struct {
	N      int       `json:"n"`
	At     time.Time `json:"at"` // when it had been answered
	Side   Role      `json:"side"`
	Who    string    `json:"who"`
	Do     string    `json:"do"`     // create, reply, comment, set, delete, merge, link, watch
	Ticket int64     `json:"ticket"` // id on its own side
	// Source is the source's id of the ticket, also for an action on the target; 0 where the ticket is not of the source.
	Source int64  `json:"source,omitempty"`
	Field  string `json:"field,omitempty"`
	Value  string `json:"value,omitempty"`
	Txn    int64  `json:"txn,omitempty"`  // transaction that a reply or comment became
	Body   string `json:"body,omitempty"` // of a reply or comment on the target
	// Refused says that the desk did not take it (a merged or deleted ticket): it counts for nothing.
	Refused bool `json:"refused,omitempty"`
}

// TicketLog is what the script knows of a ticket of the source.
type TicketLog struct {
	ID      int64      `json:"id"`
	Name    string     `json:"name"` // of the corpus message that made it, or what it was made for
	Queue   string     `json:"queue"`
	Entries []EntryLog `json:"entries"`
	Deleted bool       `json:"deleted,omitempty"`
	// DeletedAt is the number of the action that deleted it; whether a migration saw it before is for the caller to say.
	DeletedAt int   `json:"deleted_at,omitempty"`
	Into      int64 `json:"into,omitempty"` // merged into, directly
	IntoAt    int   `json:"into_at,omitempty"`
	// Set are the values last set, by the oracle's names of fields, where the script set them itself and RT has no say.
	Set map[string]string `json:"set,omitempty"`
}

// EntryLog is one message that the script sent.
type EntryLog struct {
	Kind  string    `json:"kind"`            // Create, Correspond, Comment
	Mail  string    `json:"mail,omitempty"`  // Message-ID, of a mail
	Text  string    `json:"text,omitempty"`  // words that must be in the body; empty where the script makes no promise
	Files []FileLog `json:"files,omitempty"` // files whose bytes the desk must keep
}

// FileLog is one file that the script sent.
type FileLog struct {
	SHA  string `json:"sha256"`
	Name string `json:"name,omitempty"` // empty where the script makes no promise
}

func newScript(seed int64) *Script {
	return &Script{data: scriptData{Seed: seed, Tickets: map[int64]*TicketLog{}}}
}

// Actions returns a copy of the log.
func (s *Script) Actions() []Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Action(nil), s.data.Actions...)
}

// Tickets returns how many tickets the script made in the source, deleted and merged ones included.
func (s *Script) Tickets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.data.Tickets)
}

// MarshalJSON and UnmarshalJSON keep a script in a file between processes.
func (s *Script) MarshalJSON() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.Marshal(s.data)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (s *Script) UnmarshalJSON(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.Unmarshal(b, &s.data)
}

// Save writes the script to a file.
func (s *Script) Save(file string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

// LoadScript reads what Save wrote.
func LoadScript(file string) (*Script, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s := &Script{}
	return s, json.Unmarshal(b, s)
}

// Clone returns an independent copy, to go with a Server.Reset: a script knows everything that happened to its servers
// since their snapshots and nothing that was undone.
func (s *Script) Clone() *Script {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // plain data
	}
	c := &Script{}
	if err := json.Unmarshal(b, c); err != nil {
		panic(err)
	}
	return c
}

// log appends an action and applies f, if any, to the ticket's log, under the lock.
func (s *Script) log(a Action, f func(t *TicketLog)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.N, a.At = len(s.data.Actions)+1, time.Now().UTC()
	s.data.Actions = append(s.data.Actions, a)
	if f == nil {
		return
	}
	if t := s.data.Tickets[a.Ticket]; t != nil {
		f(t)
	}
}

func (s *Script) addTicket(t *TicketLog, a Action) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.N, a.At = len(s.data.Actions)+1, time.Now().UTC()
	s.data.Actions = append(s.data.Actions, a)
	s.data.Tickets[t.ID] = t
}

// Live returns the ids of the source's tickets that are neither deleted nor merged away, ascending.
func (s *Script) Live() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []int64
	for id, t := range s.data.Tickets {
		if !t.Deleted && t.Into == 0 {
			ids = append(ids, id)
		}
	}
	sortInts(ids)
	return ids
}

package requesttracker

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// Wire types of https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html. RT writes numbers now as numbers, now as strings,
// and unset lists as "", so every plain value is a str. Keys that differ only in case ("type", "Type") are both declared,
// because encoding/json would else take one for the other.

// str is a JSON string, number or boolean; null and everything else is "".
type str string

func (s *str) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	switch {
	case len(b) == 0 || b[0] == '{' || b[0] == '[' || string(b) == "null":
		*s = ""
	case b[0] == '"':
		var v string
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		*s = str(v)
	default:
		*s = str(b)
	}
	return nil
}

// number is an id that RT counts, 0 where there is none.
type number int64

func (n *number) UnmarshalJSON(b []byte) error {
	var s str
	if err := s.UnmarshalJSON(b); err != nil {
		return err
	}
	if *n = 0; isID(string(s)) {
		v, err := strconv.ParseInt(string(s), 10, 64)
		*n = number(v)
		return err
	}
	return nil
}

func (n number) String() string { return strconv.FormatInt(int64(n), 10) }

// isID tells whether s is a number as RT gives one to a record, written as RT writes it. Only such a one may get into a path,
// a query or a reference.
func isID(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && n > 0 && strconv.FormatInt(n, 10) == s
}

// list takes a JSON array; RT writes "" for an empty one.
type list[T any] []T

func (l *list[T]) UnmarshalJSON(b []byte) error {
	if b = bytes.TrimSpace(b); len(b) == 0 || b[0] != '[' {
		*l = nil
		return nil
	}
	return json.Unmarshal(b, (*[]T)(l))
}

// row is a line of a collection. known tells whether it says which record it is about.
type row interface{ known() bool }

func (x wireTxn) known() bool        { return x.ID > 0 && (x.ObjectID == "" || isID(string(x.ObjectID))) }
func (p wireAttachment) known() bool { return p.ID > 0 }
func (w wireTicket) known() bool {
	return isID(string(w.ID)) && (w.EffectiveID == "" || w.EffectiveID == "0" || isID(string(w.EffectiveID)))
}
func (u wireUser) known() bool  { return isID(string(u.ID)) }
func (r wireRef) known() bool   { return isID(string(r.ID)) }
func (q wireQueue) known() bool { return isID(string(q.ID)) }
func (c wireCFDef) known() bool { return isID(string(c.ID)) }

// page is the frame of every collection. Total is null for accounts from which RT hides rows.
type page[T row] struct {
	Total *int    `json:"total"`
	Items list[T] `json:"items"`
}

// wireRef points to a user, group or queue, with the sub-fields that the request asked for. In answers that were not asked
// for sub-fields ID is a user's name.
type wireRef struct {
	Type         str `json:"type"`
	ID           str `json:"id"`
	URL          str `json:"_url"`
	Name         str `json:"Name"`
	EmailAddress str `json:"EmailAddress"`
	RealName     str `json:"RealName"`
}

// wireCF is a custom field with its values on one record.
type wireCF struct {
	ID     str               `json:"id"`
	Name   str               `json:"name"`
	Values list[wireCFValue] `json:"values"`
}

// wireCFValue is text, or a file for which only its name is kept.
type wireCFValue string

func (v *wireCFValue) UnmarshalJSON(b []byte) error {
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '{' {
		var f struct {
			Filename str `json:"filename"`
		}
		if err := json.Unmarshal(b, &f); err != nil {
			return err
		}
		*v = wireCFValue(f.Filename)
		return nil
	}
	var s str
	if err := s.UnmarshalJSON(b); err != nil {
		return err
	}
	*v = wireCFValue(s)
	return nil
}

// wireLink is a line of _hyperlinks: links between tickets, links to addresses, and things of no interest here.
type wireLink struct {
	Ref  str `json:"ref"`
	Type str `json:"type"`
	ID   str `json:"id"`
	URL  str `json:"_url"`
}

// wireTicket is a ticket. https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html#Tickets
type wireTicket struct {
	LowerType     str                    `json:"type"`
	Type          str                    `json:"Type"`
	ID            str                    `json:"id"`
	URL           str                    `json:"_url"`
	EffectiveID   wireRefOrID            `json:"EffectiveId"`
	Subject       str                    `json:"Subject"`
	Status        str                    `json:"Status"`
	Priority      str                    `json:"Priority"`
	Queue         wireRef                `json:"Queue"`
	Owner         wireRef                `json:"Owner"`
	Requestor     list[wireRef]          `json:"Requestor"`
	Cc            list[wireRef]          `json:"Cc"`
	AdminCc       list[wireRef]          `json:"AdminCc"`
	CustomRoles   map[string]roleMembers `json:"CustomRoles"`
	CustomFields  list[wireCF]           `json:"CustomFields"`
	Links         list[wireLink]         `json:"_hyperlinks"`
	SLA           str                    `json:"SLA"`
	Created       wireTime               `json:"Created"`
	Starts        wireTime               `json:"Starts"`
	Started       wireTime               `json:"Started"`
	Resolved      wireTime               `json:"Resolved"`
	Due           wireTime               `json:"Due"`
	LastUpdated   wireTime               `json:"LastUpdated"`
	TimeWorked    str                    `json:"TimeWorked"`
	TimeEstimated str                    `json:"TimeEstimated"`
	TimeLeft      str                    `json:"TimeLeft"`
}

// wireRefOrID is EffectiveId, which is an id in lists and an object in single answers.
type wireRefOrID str

func (v *wireRefOrID) UnmarshalJSON(b []byte) error {
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '{' {
		var r wireRef
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		*v = wireRefOrID(r.ID)
		return nil
	}
	return (*str)(v).UnmarshalJSON(b)
}

// roleMembers are the members of a custom role: one object or a list.
type roleMembers []wireRef

func (m *roleMembers) UnmarshalJSON(b []byte) error {
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '{' {
		var r wireRef
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		*m = roleMembers{r}
		return nil
	}
	return (*list[wireRef])(m).UnmarshalJSON(b)
}

// wireTime is a time; RT writes unset ones as 1970.
type wireTime time.Time

func (t *wireTime) UnmarshalJSON(b []byte) error {
	var s str
	if err := s.UnmarshalJSON(b); err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339, string(s))
	if err != nil || at.Unix() <= 0 || at.UTC().Year() > 9999 {
		*t = wireTime{}
		return nil // a ticket with a broken date is still a ticket
	}
	*t = wireTime(at.UTC())
	return nil
}

func (t wireTime) time() time.Time { return time.Time(t) }

// wireTxn is a transaction. https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html#Transactions
type wireTxn struct {
	LowerType  str         `json:"type"`
	Type       str         `json:"Type"`
	ID         number      `json:"id"`
	ObjectType str         `json:"ObjectType"`
	ObjectID   wireRefOrID `json:"ObjectId"`
	Field      str         `json:"Field"`
	OldValue   str         `json:"OldValue"`
	NewValue   str         `json:"NewValue"`
	Data       str         `json:"Data"`
	TimeTaken  str         `json:"TimeTaken"`
	Created    wireTime    `json:"Created"`
	Creator    wireRef     `json:"Creator"`
}

// wireAttachment is one part of a message. https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html#Attachments
type wireAttachment struct {
	ID            number      `json:"id"`
	TransactionID wireRefOrID `json:"TransactionId"`
	ContentType   str         `json:"ContentType"`
	Filename      str         `json:"Filename"`
	Subject       str         `json:"Subject"`
	Headers       str         `json:"Headers"`
	ContentLength str         `json:"ContentLength"`
	Content       str         `json:"Content"`
}

func (p wireAttachment) container() bool {
	return strings.HasPrefix(strings.ToLower(string(p.ContentType)), "multipart/")
}

// nested tells whether the part is a mail inside a mail, of which the parts follow.
func (p wireAttachment) nested() bool {
	return strings.EqualFold(string(p.ContentType), "message/rfc822") && (p.ContentLength == "0" || p.ContentLength == "")
}

func (p wireAttachment) unnamedText() bool {
	return p.Filename == "" && strings.HasPrefix(strings.ToLower(string(p.ContentType)), "text/")
}

// wireUser is a user. https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html#Users
type wireUser struct {
	ID           str          `json:"id"`
	Name         str          `json:"Name"`
	EmailAddress str          `json:"EmailAddress"`
	RealName     str          `json:"RealName"`
	NickName     str          `json:"NickName"`
	Organization str          `json:"Organization"`
	WorkPhone    str          `json:"WorkPhone"`
	HomePhone    str          `json:"HomePhone"`
	MobilePhone  str          `json:"MobilePhone"`
	PagerPhone   str          `json:"PagerPhone"`
	Address1     str          `json:"Address1"`
	Address2     str          `json:"Address2"`
	City         str          `json:"City"`
	State        str          `json:"State"`
	Zip          str          `json:"Zip"`
	Country      str          `json:"Country"`
	Comments     str          `json:"Comments"`
	Lang         str          `json:"Lang"`
	Timezone     str          `json:"Timezone"`
	Privileged   str          `json:"Privileged"`
	Disabled     str          `json:"Disabled"`
	LastUpdated  wireTime     `json:"LastUpdated"`
	CustomFields list[wireCF] `json:"CustomFields"`
}

// wireQueue is a queue. https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html#Queues
type wireQueue struct {
	ID        str `json:"id"`
	Name      str `json:"Name"`
	Lifecycle str `json:"Lifecycle"`
	Disabled  str `json:"Disabled"`
}

// wireCFDef is a custom field's definition. https://docs.bestpractical.com/rt/5.0.3/RT/REST2.html#Custom-Fields
type wireCFDef struct {
	LowerType  str       `json:"type"`
	ID         str       `json:"id"`
	Name       str       `json:"Name"`
	Type       str       `json:"Type"`
	LookupType str       `json:"LookupType"`
	MaxValues  str       `json:"MaxValues"`
	Disabled   str       `json:"Disabled"`
	Values     list[str] `json:"Values"`
}

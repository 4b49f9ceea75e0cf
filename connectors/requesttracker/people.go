package requesttracker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// Match finds users by e-mail address, else by login.
func (t *target) Match(ctx context.Context, r desk.Record) ([]string, error) {
	if r.Ref.Kind != desk.Person {
		return nil, nil
	}
	for _, mail := range r.Fields[desk.Email] {
		if ids, err := t.usersBy(ctx, "EmailAddress", mail); err != nil || len(ids) > 0 {
			return ids, err
		}
	}
	if login := r.Fields[desk.Login].First(); login != "" && len(r.Fields[desk.Email]) == 0 {
		return t.usersBy(ctx, "Name", login)
	}
	return nil, nil
}

func (t *target) usersBy(ctx context.Context, field, value string) ([]string, error) {
	us, _, err := every[wireUser](ctx, t.account, "/users", url.Values{
		"query": {jsonQuery(where{Field: field, Value: value})}, "fields": {"id,Name,EmailAddress"}, "find_disabled_rows": {"1"},
	})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, u := range us {
		if !systemUser(u) && (field == "Name" && strings.EqualFold(string(u.Name), value) || field == "EmailAddress" && strings.EqualFold(string(u.EmailAddress), value)) {
			ids = append(ids, string(u.ID))
		}
	}
	return ids, nil
}

// createPerson makes a user. A login that is there already is that person where the e-mail address agrees, or where neither
// has one: so a creation whose answer was lost is found again.
func (t *target) createPerson(ctx context.Context, r desk.Record) (desk.Written, error) {
	op := "create " + r.Ref.String()
	mail := r.Fields[desk.Email].First()
	login := cmp.Or(r.Fields[desk.Login].First(), mail)
	if login == "" {
		return desk.Written{}, &desk.Error{Op: op, Said: "neither login nor e-mail address", Class: desk.ErrRejected}
	}
	fields := maps.Clone(r.Fields)
	maps.DeleteFunc(fields, func(_ desk.Field, v desk.Value) bool { return len(v) == 0 })
	delete(fields, desk.CompanyOf)
	body, unknown := userBody(fields)
	if len(unknown) > 0 {
		return desk.Written{}, noField(op, unknown)
	}
	disabled := body["Disabled"] == 1
	delete(body, "Disabled")
	for _, name := range slices.Compact([]string{login, cmp.Or(mail, login)}) {
		body["Name"] = name
		var made wireUser
		_, err := t.rest.JSON(ctx, api(http.MethodPost, "/user", rest.JSON(body)), &made)
		if err == nil {
			return t.madePerson(ctx, op, name, fields, disabled)
		}
		var e *desk.Error
		if !errors.As(err, &e) || e.Said != "Name in use" && e.Said != "Email address in use" {
			return desk.Written{}, err
		}
		ids, ferr := t.usersBy(ctx, "Name", name)
		if mail != "" {
			ids, ferr = t.usersBy(ctx, "EmailAddress", mail)
		}
		if ferr != nil {
			return desk.Written{}, ferr
		}
		if len(ids) == 1 {
			now, err := t.person(ctx, ids[0])
			if err != nil {
				return desk.Written{ID: ids[0]}, err
			}
			if mail != "" || len(now.Fields[desk.Email]) == 0 {
				return desk.Written{ID: ids[0], Now: &now}, nil
			}
		}
		if mail == "" {
			return desk.Written{}, &desk.Error{Op: op, Said: "the login belongs to somebody with an e-mail address", Class: desk.ErrRejected}
		}
	}
	return desk.Written{}, &desk.Error{Op: op, Said: "login and e-mail address are both taken", Class: desk.ErrRejected}
}

func (t *target) madePerson(ctx context.Context, op, name string, want desk.Fields, disabled bool) (desk.Written, error) {
	ids, err := t.usersBy(ctx, "Name", name)
	if err != nil || len(ids) != 1 {
		return desk.Written{}, cmp.Or(err, error(&desk.Error{Op: op, Said: "the new user cannot be found", Class: desk.ErrTransient}))
	}
	w := desk.Written{ID: ids[0]}
	if disabled {
		if _, err := t.rest.JSON(ctx, api(http.MethodPut, "/user/"+w.ID, rest.JSON(map[string]any{"Disabled": 1})), nil); err != nil {
			return w, err
		}
	}
	now, err := t.person(ctx, w.ID)
	if err == nil {
		w.Now = &now
	}
	return w, err
}

func (t *target) applyPerson(ctx context.Context, ref desk.Ref, c desk.Change) (desk.Written, error) {
	w := desk.Written{ID: ref.ID}
	op := "update " + ref.String()
	if len(c.Entries) > 0 {
		return w, &desk.Error{Op: op, Said: "people have no entries", Class: desk.ErrRejected}
	}
	body, unknown := userBody(c.Fields)
	if len(unknown) > 0 {
		return w, noField(op, unknown)
	}
	if len(body) > 0 {
		if _, err := t.rest.JSON(ctx, api(http.MethodPut, "/user/"+url.PathEscape(ref.ID), rest.JSON(body)), nil); err != nil {
			return w, err
		}
		t.mu.Lock()
		clear(t.users)
		t.mu.Unlock()
	}
	now, err := t.person(ctx, ref.ID)
	if err != nil {
		return w, err
	}
	w.Now = &now
	return w, refused(op, c.Fields, now.Fields)
}

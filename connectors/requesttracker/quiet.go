package requesttracker

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

type cached[T any] struct {
	v  T
	at time.Time
}

// cacheAge is how long a queue's watchers and a user's address are believed.
const cacheAge = 5 * time.Minute

func (t *target) now() time.Time {
	if t.deps.Now != nil {
		return t.deps.Now()
	}
	return time.Now()
}

// lookUp returns what is in a cache, or fetches it and keeps it under the names that fetch returns.
func lookUp[T any](t *target, cache map[string]cached[T], key string, fetch func() (T, []string, error)) (T, error) {
	t.mu.Lock()
	c, ok := cache[key]
	t.mu.Unlock()
	if ok && t.now().Sub(c.at) < cacheAge {
		return c.v, nil
	}
	at := t.now()
	v, names, err := fetch()
	if err != nil {
		return v, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range append(names, key) {
		cache[name] = cached[T]{v, at}
	}
	return v, nil
}

// watchers returns the addresses of those who watch a queue, groups resolved.
func (t *target) watchers(ctx context.Context, queue string) ([]string, error) {
	if queue == "" {
		return nil, nil // the creation will be refused
	}
	mails, err := lookUp(t, t.queues, queue, func() ([]string, []string, error) {
		var raw map[string]json.RawMessage
		if _, err := t.get(ctx, "/queue/"+url.PathEscape(queue), nil, &raw); err != nil {
			if errors.Is(err, desk.ErrNotFound) || errors.Is(err, desk.ErrUnauthorized) {
				err = &desk.Error{Op: "GET /queue/N", Said: "there is no such queue", Class: desk.ErrRejected}
			}
			return nil, nil, err
		}
		var mails []string
		for _, role := range slices.Sorted(maps.Keys(raw)) {
			if role != "Cc" && role != "AdminCc" && !strings.HasPrefix(role, customRole) {
				continue
			}
			var members roleMembers
			if err := json.Unmarshal(raw[role], &members); err != nil {
				return nil, nil, &desk.Error{Op: "GET /queue/N", Said: "unknown form of watchers", Class: desk.ErrTransient}
			}
			for _, m := range members {
				got, err := t.memberMails(ctx, m)
				if err != nil {
					return nil, nil, err
				}
				mails = append(mails, got...)
			}
		}
		var q wireRef
		for name, to := range map[string]*str{"id": &q.ID, "Name": &q.Name} {
			_ = json.Unmarshal(raw[name], to) // without them the answer is kept under one name only
		}
		return mails, slices.DeleteFunc([]string{string(q.ID), string(q.Name)}, func(s string) bool { return s == "" }), nil
	})
	return slices.Clone(mails), err
}

const customRole = "RT::CustomRole-"

func (t *target) memberMails(ctx context.Context, m wireRef) ([]string, error) {
	if m.Type != "group" {
		return t.mailOf(ctx, string(m.ID))
	}
	users, _, err := every[wireRef](ctx, t.account, "/group/"+string(m.ID)+"/members", url.Values{"recursively": {"1"}, "groups": {"0"}})
	if errors.Is(err, desk.ErrNotFound) {
		// RT shows the members of groups that people have made, and no longer those of its own.
		err = &desk.Error{Op: "GET /group/N/members", Said: "RT does not tell who is in a group that watches the queue: let one watch it that is not RT's own", Class: desk.ErrRejected}
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, u := range users {
		mail, err := t.mailOf(ctx, string(u.ID))
		if err != nil {
			return nil, err
		}
		out = append(out, mail...)
	}
	return out, nil
}

// mailOf returns the address of a user named by id or login: none or one.
func (t *target) mailOf(ctx context.Context, name string) ([]string, error) {
	u, err := t.user(ctx, name)
	if err != nil || u.EmailAddress == "" {
		return nil, err
	}
	return []string{string(u.EmailAddress)}, nil
}

func (t *target) user(ctx context.Context, name string) (wireUser, error) {
	return lookUp(t, t.users, name, func() (u wireUser, names []string, err error) {
		if _, err = t.get(ctx, "/user/"+url.PathEscape(name), nil, &u); errors.Is(err, desk.ErrNotFound) {
			err = &desk.Error{Op: "GET /user/N", Said: "there is no such user", Class: desk.ErrRejected}
		}
		return u, []string{string(u.ID), string(u.Name)}, err
	})
}

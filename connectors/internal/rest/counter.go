package rest

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"sync"
)

type labelKey struct{}

// WithLabel names the endpoint of a request for a Counter below.
func WithLabel(ctx context.Context, label string) context.Context {
	return context.WithValue(ctx, labelKey{}, label)
}

type purposeKey struct{}

// WithPurpose adds what requests are for to the endpoint that a Counter counts them under: "GET /transactions (mark)".
func WithPurpose(ctx context.Context, purpose string) context.Context {
	return context.WithValue(ctx, purposeKey{}, purpose)
}

func counted(ctx context.Context, label string) string {
	if p, ok := ctx.Value(purposeKey{}).(string); ok {
		return label + " (" + p + ")"
	}
	return label
}

// Label returns the endpoint of a request: the method and the path, with N for every segment that holds a digit or
// anything that may be a name, so that no id, address or word of a customer gets into a metric.
func Label(method, path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, p := range parts {
		if !plainWord(p) {
			parts[i] = "N"
		}
	}
	return method + " /" + strings.Join(parts, "/")
}

func plainWord(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_' && r != '-' {
			return false
		}
	}
	return true
}

// Counter counts requests by endpoint. The zero Counter with Next set is ready.
type Counter struct {
	Next http.RoundTripper // nil means http.DefaultTransport

	mu sync.Mutex
	n  map[string]int
}

// RoundTrip counts the request and passes it on.
func (c *Counter) RoundTrip(r *http.Request) (*http.Response, error) {
	label, ok := r.Context().Value(labelKey{}).(string)
	if !ok {
		label = Label(r.Method, r.URL.Path)
	}
	c.mu.Lock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[label]++
	c.mu.Unlock()
	next := c.Next
	if next == nil {
		next = http.DefaultTransport
	}
	return next.RoundTrip(r)
}

// Counts returns the number of requests by endpoint so far.
func (c *Counter) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// Total returns the number of requests so far.
func (c *Counter) Total() int {
	total := 0
	for _, n := range c.Counts() {
		total += n
	}
	return total
}

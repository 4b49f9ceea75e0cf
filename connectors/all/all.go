// Package all is the one list of connectors, and the door to what they share.
package all

import (
	"fmt"
	"net/http"

	"github.com/deltadesk/deltadesk/connectors/archive"
	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/connectors/requesttracker"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// Connectors returns all connectors, in alphabetical order.
func Connectors() []desk.Connector {
	return []desk.Connector{archive.Connector, requesttracker.Connector}
}

// Client returns the HTTP client for one desk, guarded, and the count of its requests by endpoint. A desk without an
// address (an archive) gets a client that refuses every request.
func Client(c desk.Config) (*http.Client, func() map[string]int, error) {
	if _, ok := c["url"]; !ok {
		return &http.Client{Transport: refuse{}}, func() map[string]int { return nil }, nil
	}
	conn, err := rest.ConnectionOf(c)
	if err != nil {
		return nil, nil, err
	}
	counter := &rest.Counter{}
	client, err := rest.NewHTTPClient(conn, counter)
	return client, counter.Counts, err
}

type refuse struct{}

func (refuse) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("%s: this desk has no address", r.Method)
}

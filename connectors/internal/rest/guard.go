package rest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

// ErrForbiddenAddress is wrapped by the error of a request to an address that the settings do not allow.
var ErrForbiddenAddress = errors.New("address not allowed")

// Guard decides, when a connection is dialled, whether the address may be reached. Names are judged by what they resolve
// to at that moment, so a name that changes its address between check and use is no way around it.
type Guard struct {
	// Own is the desk's own address. AllowHTTP and AllowPrivate hold for its host and port only, never for an address
	// found in content or in a redirect.
	Own          *url.URL
	AllowHTTP    bool
	AllowPrivate bool
	// Dialer is used to connect; its Control is replaced.
	Dialer net.Dialer
}

// DialContext dials addr if the guard allows it. It fits http.Transport.
func (g *Guard) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	d := g.Dialer
	d.ControlContext = nil
	d.Control = func(_, address string, _ syscall.RawConn) error {
		if g.AllowPrivate && addr == hostPort(g.Own) {
			return nil
		}
		ap, err := netip.ParseAddrPort(address)
		if err != nil || !Public(ap.Addr()) {
			return fmt.Errorf("%w: it is not a public one", ErrForbiddenAddress)
		}
		return nil
	}
	return d.DialContext(ctx, network, addr)
}

// check refuses schemes before anything is sent.
func (g *Guard) check(u *url.URL) error {
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && g.AllowHTTP && hostPort(u) == hostPort(g.Own):
		return nil
	}
	return fmt.Errorf("%w: only https is, unless allow_http is set for the desk's own address", ErrForbiddenAddress)
}

func hostPort(u *url.URL) string {
	if u == nil {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = "443"
		if u.Scheme == "http" {
			port = "80"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Networks that are neither private nor loopback in netip's eyes and still lead inside, or nowhere.
var special = prefixes("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23",
	"2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10")

func prefixes(ss ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Public tells whether an address belongs to the public internet.
func Public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// guardTransport picks the transport for a request: the desk's own, which trusts its ca_bundle, or the one for all others.
type guardTransport struct {
	guard      *Guard
	own, other http.RoundTripper
}

func (t *guardTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.guard.check(r.URL); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	if hostPort(r.URL) == hostPort(t.guard.Own) {
		return t.own.RoundTrip(r)
	}
	return t.other.RoundTrip(r)
}

// dialTimeout bounds connecting; the whole exchange is bounded by the Client.
const dialTimeout = 15 * time.Second

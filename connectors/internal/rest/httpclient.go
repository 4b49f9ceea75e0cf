package rest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Connection says how to reach one desk: what every connector that speaks HTTP has among its options.
type Connection struct {
	URL          *url.URL
	AllowHTTP    bool
	AllowPrivate bool
	// CABundle is PEM, trusted for the desk's own host and port in addition to the system's roots.
	CABundle []byte
	// MaxConns per host; 0 means 4.
	MaxConns int
}

// ConnectionOf reads the options url, allow_http, allow_private and ca_bundle, the same in every connector. ca_bundle is
// PEM text or the path of a file.
func ConnectionOf(c desk.Config) (Connection, error) {
	var errs []error
	out := Connection{AllowHTTP: flag(c, "allow_http", &errs), AllowPrivate: flag(c, "allow_private", &errs)}
	if n := c["connections"]; n != "" {
		var err error
		if out.MaxConns, err = strconv.Atoi(n); err != nil || out.MaxConns < 1 || out.MaxConns > 100 {
			errs = append(errs, errors.New("connections must be 1 to 100"))
		}
	}
	u, err := url.Parse(strings.TrimRight(c["url"], "/"))
	switch {
	case c["url"] == "":
		errs = append(errs, errors.New("url is missing"))
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		errs = append(errs, errors.New("url must be an address like https://desk.example.com, without user, query and fragment"))
	case u.Scheme != "https" && (u.Scheme != "http" || !out.AllowHTTP):
		errs = append(errs, errors.New("url must begin with https:// (or http:// with allow_http: true)"))
	default:
		out.URL = u
	}
	if b := c["ca_bundle"]; b != "" {
		if strings.Contains(b, "-----BEGIN") {
			out.CABundle = []byte(b)
		} else if out.CABundle, err = os.ReadFile(b); err != nil {
			errs = append(errs, errors.New("ca_bundle can not be read"))
		}
		if len(out.CABundle) > 0 && !x509.NewCertPool().AppendCertsFromPEM(out.CABundle) {
			errs = append(errs, errors.New("ca_bundle holds no certificate"))
		}
	}
	return out, errors.Join(errs...)
}

func flag(c desk.Config, name string, errs *[]error) bool {
	switch c[name] {
	case "", "false":
		return false
	case "true":
		return true
	}
	*errs = append(*errs, fmt.Errorf("%s must be true or false", name))
	return false
}

// ConnectionOptions describes what ConnectionOf reads.
func ConnectionOptions() []desk.Option {
	return []desk.Option{
		{Name: "url", Help: "address of the desk, e.g. https://desk.example.com", Required: true},
		{Name: "allow_http", Help: "true to allow http:// for this desk's own host and port", Default: "false"},
		{Name: "allow_private", Help: "true to allow a private or loopback address for this desk's own host and port", Default: "false"},
		{Name: "connections", Help: "how many connections at a time, 1 to 100; fewer than the desk's own workers", Default: "4"},
		{Name: "ca_bundle", Path: true, Help: "certificates (PEM, or a file of them) trusted for this desk's own host and port"},
	}
}

// NewHTTPClient returns the client that a process makes once per desk and passes to the connector in desk.Deps. It keeps
// no cookies and uses no proxy of the environment, since the guard could not see behind it. A counter may be nil.
func NewHTTPClient(c Connection, counter *Counter) (*http.Client, error) {
	if c.URL == nil {
		return nil, errors.New("rest: no address")
	}
	g := &Guard{Own: c.URL, AllowHTTP: c.AllowHTTP, AllowPrivate: c.AllowPrivate, Dialer: net.Dialer{Timeout: dialTimeout}}
	var own *x509.CertPool
	if len(c.CABundle) > 0 {
		var err error
		if own, err = x509.SystemCertPool(); err != nil {
			own = x509.NewCertPool()
		}
		if !own.AppendCertsFromPEM(c.CABundle) {
			return nil, errors.New("rest: the CA bundle holds no certificate")
		}
	}
	def(&c.MaxConns, 4)
	transport := func(roots *x509.CertPool) *http.Transport {
		return &http.Transport{
			DialContext:            g.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout:    dialTimeout,
			ResponseHeaderTimeout:  5 * time.Minute,
			IdleConnTimeout:        30 * time.Second,
			MaxConnsPerHost:        c.MaxConns,
			MaxIdleConnsPerHost:    c.MaxConns,
			MaxResponseHeaderBytes: 256 << 10,
			ForceAttemptHTTP2:      true,
		}
	}
	var rt http.RoundTripper = &guardTransport{guard: g, own: transport(own), other: transport(nil)}
	if counter != nil {
		counter.Next = rt
		rt = counter
	}
	return &http.Client{Transport: rt}, nil
}

// Package rest is the one HTTP client of all connectors. It adds credentials, keeps a login session, streams uploads and
// downloads, limits what is read, retries what may be repeated, and turns every failure into a desk.Error of the right
// class. No text that leaves this package holds a credential, a query string or a word of content.
//
// A connector talks through a Client. The *http.Client below it comes from outside, see NewHTTPClient: it carries the
// timeouts, the guard against addresses that are not meant (Guard) and the count of requests (Counter).
package rest

// Package requesttracker makes Request Tracker 5 a desk, as source and as target, over REST 2.0 and, for the one thing that
// REST cannot do, the update form of RT's own web pages.
//
// The hard part of RT as a target is silence: its default scrips mail requestors, watchers and owners at every reply, and
// REST has no switch against it. What is done about it stands in target.go and, for people, in README.md.
package requesttracker

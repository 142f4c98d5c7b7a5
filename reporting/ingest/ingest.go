// Package ingest follows the logs in which stock MTAs tell of their TLS sessions, and
// records one [reporting.Session] of each: [Follower] reads a file that grows, [Journal]
// systemd's, and [Replay] a whole log once.
//
// How a log is read, the package of its mail server says: postfix, exim or sendmail, each
// made of what they have in common, maillog. Datagrams (package datagram) and Exim's events
// need no following. Of one mail server one of these is the source of successes; its log may
// add what the others cannot carry ([Missing]).
//
// A log is rotated, and who reads it may be killed. So the sessions, how far the log was
// read and what is open between its lines are stored in one transaction: whatever happens,
// each session counts once (RFC 8460 §4.2).
package ingest

import (
	"fmt"

	"postseal/reporting/ingest/exim"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/ingest/postfix"
	"postseal/reporting/ingest/sendmail"
)

// New makes a reader for logs of "postfix", "exim" or "sendmail".
func New(format string, o maillog.Options) (maillog.Reader, error) {
	reader, known := formats[format]
	if !known {
		return nil, fmt.Errorf("log format %q is unknown: it is postfix, exim or sendmail", format)
	}
	return reader(o), nil
}

// formats makes the reader of each format.
var formats = map[string]func(maillog.Options) maillog.Reader{
	"postfix":  func(o maillog.Options) maillog.Reader { return postfix.New(o) },
	"exim":     func(o maillog.Options) maillog.Reader { return exim.New(o) },
	"sendmail": func(o maillog.Options) maillog.Reader { return sendmail.New(o) },
}

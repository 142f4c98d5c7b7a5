// Package ingest follows what stock MTAs leave behind of their TLS sessions in their logs,
// and records one [reporting.Session] of each: [Follower] from a file, [Journal] from
// systemd's, [Replay] once and for all from a file of any day.
//
// How a log is read, its package tells: postfix, exim or sendmail, made of what they have in
// common, maillog. Datagrams (datagram) and events (exim) need no following. Of one mail
// server one of these is the source of successes; a log may add what the others cannot
// carry ([Missing]).
//
// A log was written for people, and tells of lines, where RFC 8460 §4.2 counts sessions: so
// the sessions, how far the log was read and what is open between its lines are stored in
// one transaction. Each session counts once, over crashes and rotations.
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

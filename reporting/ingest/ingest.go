// Package ingest reads what stock MTAs leave behind of their TLS sessions, and makes
// one [reporting.Session] of each: from the logs of Postfix, Exim and Sendmail, from the
// datagrams of libtlsrpt ([DatagramReceiver]) and from the events of Exim ([Events]).
//
// A log was written for people. Its TLS lines name a host but no recipient, and the
// lines of many deliveries are mixed; what belongs together is joined again by process
// or queue id, until the line comes that names the recipient. Sessions are counted, not
// messages (RFC 8460 §4.2): a reused connection or a further recipient is none, and
// neither is trouble before TLS was tried (§4.3.4).
//
// Half of a line was written by strangers: replies of remote hosts, and addresses. So
// lines are taken apart by their structure and never searched, everything kept of them
// is bounded, and what is not understood is counted and skipped.
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

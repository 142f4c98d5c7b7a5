// Package reporting counts what happened: every attempt at TLS with an MX host is a
// [Session], whoever made it and however it became known, and sessions are what TLS
// reports count (RFC 8460 §4.2), not messages.
package reporting

import (
	"net/netip"
	"time"

	"postseal/reporting/tlsrpt"
)

// Session is one attempt at TLS with one MX host, and what came of it.
type Session struct {
	Time   time.Time
	Domain string // of the recipients, or the next hop: the report's key; A-labels, lower case, no final dot
	Policy Policy // that was applied

	SendingIP netip.Addr // ours; zero if unknown
	MXHost    string     // A-labels, lower case, no final dot; "" if unknown
	MXIP      netip.Addr // zero if unknown
	MXHelo    string     // its name in the reply to EHLO; "" if unknown

	Result tlsrpt.ResultType // "" is success
	Reason string            // failure-reason-code: printable ASCII, short; "" if there is none

	// Unverified: the policy is in mode testing, which a mail server does not judge,
	// and nobody has verified the MX host. Result says nothing then.
	Unverified bool
}

// Failed reports whether the session did not satisfy its policy.
func (s *Session) Failed() bool { return s.Result != "" }

// Policy is what a session was held to.
type Policy struct {
	Type    tlsrpt.PolicyType // "" where it is not known: it is never guessed
	Domain  string            // policy-domain: for TLSA the base domain
	Strings []string          // policy-string
	MX      []string          // mx-host: the patterns of an STS policy
}

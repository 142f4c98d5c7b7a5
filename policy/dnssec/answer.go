package dnssec

import (
	"errors"
	"syscall"
	"time"
)

// Status tells what a completed lookup found. Absence is an answer, not an
// error: RFC 7672 §2.1.1 treats a proven or an insecure "no such record" alike.
type Status uint8

const (
	Found    Status = iota // at least one record
	NoData                 // the name exists, but not with this type (RFC 2308 §2.2)
	NXDomain               // the name, or the end of its CNAME chain, does not exist
)

func (s Status) String() string { return [...]string{"found", "no data", "no such name"}[s] }

// Answer is the complete result of one lookup.
type Answer[T any] struct {
	Records []T
	Status  Status

	// Secure reports that the whole answer, every CNAME on the way and a
	// proof of absence included, was authenticated: the AD bit of a resolver
	// on a trusted path (RFC 7672 §2.1.1, RFC 4035 §4.9.3).
	Secure bool

	// Name is the end of the CNAME chain, in lower case without the final
	// dot; without aliases it is the name that was asked for.
	Name string

	// Aliases are the names on the way to Name, beginning with the one asked
	// for; nil without aliases.
	Aliases []string

	// TTL is the smallest of all records that led here; for absence it is the
	// negative TTL of RFC 2308 §5. It is never more than 24 hours and may be 0.
	TTL time.Duration
}

// MX is one mail exchanger. Host is in lower case without the final dot; the
// null MX of RFC 7505 has the Host "".
type MX struct {
	Preference uint16
	Host       string
}

// TLSA is one TLSA record as received (RFC 6698 §2.1); nothing is checked.
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// Kind says why a lookup gave no answer at all. For DANE every Kind is the
// same, an unreachable host (RFC 7672 §2.1.2); the words differ for people.
type Kind uint8

const (
	Timeout   Kind = iota // no reply from any server in time, or none can be reached
	ServFail              // RCODE 2 without a DNSSEC reason
	Bogus                 // RCODE 2 with an extended error that says DNSSEC (RFC 8914 §4)
	Refused               // RCODE 5
	Malformed             // FORMERR, NOTIMP, an unexpected RCODE, a reply that does not parse or match
	BadName               // the name, or one that an alias leads to, is no host name; it was not asked for
	Loop                  // the CNAME chain is too long or circular
	Canceled              // the caller's context ended
)

func (k Kind) String() string {
	return [...]string{"timeout", "server failure", "DNSSEC validation failure", "query refused", "malformed reply", "invalid name", "CNAME loop", "canceled"}[k]
}

// Error is the error of every lookup. It is always temporary.
type Error struct {
	Kind     Kind
	Name     string // name asked for; that of the alias target, if that was asked for by itself
	Type     string // "MX", "TLSA", …
	Server   string // last server asked, host:port; empty if none
	Extended string // text of the extended DNS error, printable and bounded
	Err      error  // cause, if any
}

func (e *Error) Error() string {
	s := e.Type + " lookup of " + printable(e.Name, maxName) + ": " + e.words()
	if e.Server != "" {
		s += " from " + e.Server
	}
	if e.Extended != "" {
		s += " (" + e.Extended + ")"
	}
	return s
}

// words are those of the Kind, or for no reply at all what the system says of it:
// "connection refused" sends an administrator to another place than "timeout".
func (e *Error) words() string {
	if e.Kind != Timeout {
		return e.Kind.String()
	}
	var no syscall.Errno
	switch {
	case errors.As(e.Err, &no):
		return no.Error()
	case errors.Is(e.Err, errNoServer):
		return errNoServer.Error()
	}
	return e.Kind.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Exchange is one finished lookup, for those who watch (see [WithTrace]).
type Exchange struct {
	Name, Type string
	Server     string
	Took       time.Duration
	Status     Status
	Secure     bool
	TTL        time.Duration
	Records    []string // presentation form, printable and bounded
	Err        error
}

// Validation tells whether authenticated answers can be had at present.
type Validation struct {
	On     bool
	Never  bool   // switched off by the operator (TrustNever)
	Reason string // why it is off, or on but unproven; for people
}

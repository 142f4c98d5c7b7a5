// Package requiretls is RFC 8689 in words: how a message says that it must only
// travel over authenticated TLS, or that it may travel without, and how that is
// said between the parts of postseal and the mail server beside it.
//
// REQUIRETLS is a parameter of the MAIL command (§2), TLS-Required: No a header
// field (§3). Mail servers that know neither can still be told by a rule or by the
// request header that Postfix 3.11 uses; what was decided then travels as a tag:
// the header X-Postseal-Route, which triggers Postfix's milter_header_checks, or a
// suffix of the recipients' domains, which Sendmail's mailertable finds. Neither
// tag is believed when it comes from outside, and both end at our own listener.
//
// The package is pure: it reads and writes text, and remembers nothing.
package requiretls

import "strings"

// Keyword is the EHLO keyword and the MAIL parameter (RFC 8689 §2).
const Keyword = "REQUIRETLS"

// Header fields.
const (
	TLSRequired = "TLS-Required"      // RFC 8689 §3
	Request     = "Require-TLS-ESMTP" // of a client that asks for REQUIRETLS; the name is Postfix 3.11's
	Route       = "X-Postseal-Route"  // the tag from the milter to the mail server's routing
)

// Mode is how a message is to be delivered.
type Mode uint8

const (
	Normal   Mode = iota // as the destination's policy says
	Required             // REQUIRETLS: authenticated TLS to a server that offers it too (RFC 8689 §4.2.1)
	Relaxed              // TLS-Required: No: whatever the destination publishes (RFC 8689 §4.2.2)
)

// String is the value of the header [Route].
func (m Mode) String() string { return [...]string{"normal", "requiretls", "relaxed"}[m] }

// suffixes of recipient domains, for mail servers that route by recipient. No
// name below .invalid exists (RFC 2606 §2).
var suffixes = [...]string{Required: ".requiretls.invalid", Relaxed: ".relaxed.invalid"}

// Suffix is what [AddSuffix] adds for m, "" for Normal.
func (m Mode) Suffix() string { return suffixes[m] }

// AddSuffix adds the tag of m to an address or a domain.
func AddSuffix(address string, m Mode) string { return address + suffixes[m] }

// CutSuffix takes the tags off an address or a domain, together with dots at the
// end; without a tag it is returned as it is, with Normal. Case does not matter. Of
// several tags, which only a stranger puts there, REQUIRETLS counts.
func CutSuffix(address string) (string, Mode) {
	found := Normal
	for {
		rest := strings.TrimRight(address, ".")
		m := tagged(rest)
		if m == Normal {
			return address, found
		}
		if found != Required {
			found = m
		}
		address = rest[:len(rest)-len(suffixes[m])]
	}
}

// tagged is the tag at the very end of an address or a domain.
func tagged(address string) Mode {
	for _, m := range []Mode{Required, Relaxed} {
		s := suffixes[m]
		if n := len(address) - len(s); n > 0 && strings.EqualFold(address[n:], s) {
			return m
		}
	}
	return Normal
}

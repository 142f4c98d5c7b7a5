// Package dane finds out what DNS says about a mail destination under DANE for
// SMTP (RFC 7672), and verifies a server's certificate against it.
//
// [Lookup] walks RFC 7672 §2.2: MX, then the addresses of each host, then TLSA
// records at _port._tcp of the host's name, where every answer counts only as
// far as DNSSEC authenticates it. It gives a [Plan]: the hosts, each with its
// [State], and the [Class] of the whole destination. [Check] and [Select] tell
// which TLSA records count (RFC 7671 §4, §9), [Plan.Names] which names a
// certificate may bear, and [Verify] is the check itself (RFC 7671 §5).
//
// # Class
//
// If the MX lookup fails, nothing can be told: ClassBroken (RFC 7672 §2.1.2). A host that provably has no address (Absent) does not count. A Broken host is
// unreachable (RFC 7672 §2.1.2): it is passed over as long as another host
// works, but it is never taken for one without DANE, or whoever can suppress a
// DNS reply could switch DANE off. So, with what remains:
//
//   - a usable host: ClassFull if the MX answer is secure and all other hosts
//     that remain are usable, else ClassPartial;
//   - else secure but unusable TLSA: ClassUnusable;
//   - else a Broken host where DANE is possible: ClassBroken if no other host
//     remains, else ClassPartial. Opportunistic DANE makes a mail server skip the
//     Broken host and use the others, which ClassNone would not;
//   - else ClassNone; but ClassPartial if the MX answer is secure and names more
//     hosts than are looked up.
//
// DANE is possible at a Broken host if the MX answer is secure, or an address
// of the host is, or a validator called the answer bogus, which presupposes a
// signed zone. Otherwise DANE has nothing to lose there: who can make a reply to
// an unauthenticated MX fail can as well forge the MX. Destinations without
// DNSSEC are therefore never delayed by a lame name server of one of their hosts.
package dane

// State is what DNS said about DANE at one host.
type State uint8

const (
	NoTLSA   State = iota // no TLSA record, or none that is secure (RFC 7672 §2.2)
	Insecure              // address insecure: TLSA was never asked (RFC 7672 §2.2.2); or no host name at all
	Usable                // secure TLSA, at least one usable
	Unusable              // secure TLSA, none usable: TLS without authentication
	Absent                // provably no such host or no address: does not count
	Broken                // a lookup failed or was bogus: unreachable, never "no DANE" (RFC 7672 §2.1.2)
)

func (s State) String() string {
	return [...]string{"no TLSA", "insecure", "usable", "unusable", "absent", "broken"}[s]
}

// Class is DANE's verdict over all hosts of a destination; see the package
// comment for the rule.
type Class uint8

const (
	ClassNone     Class = iota // proven or insecure absence everywhere
	ClassPartial               // some hosts usable, or the MX answer insecure, or a Broken host among ones without DANE
	ClassFull                  // secure MX answer, all hosts usable
	ClassUnusable              // no host usable, some with secure TLSA
	ClassBroken                // cannot be told now
)

func (c Class) String() string {
	return [...]string{"none", "partial", "full", "unusable", "broken"}[c]
}

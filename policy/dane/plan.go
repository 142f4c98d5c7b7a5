package dane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postseal/policy/dnssec"
)

// Host is one candidate for delivery.
type Host struct {
	Name       string // as in the MX record
	Preference uint16
	Addrs      []netip.Addr // IPv4 first; at most 32 of each family
	Secure     bool         // an address answer, or the proof that there is none, was authenticated
	Expanded   string       // end of a CNAME chain if all of it is secure, else ""
	State      State
	Reason     string        // why this State, in words; printable, at most 200 bytes
	Base       string        // TLSA base domain, when Usable or Unusable
	TLSA       []dnssec.TLSA // all records at Base
	Usable     []dnssec.TLSA // those that count, after digest agility (RFC 7671 §9)
	Err        error         // when Broken
	TTL        time.Duration // smallest of the answers that decided, when not Broken
}

// Plan is everything that DNS said about a destination.
type Plan struct {
	NextHop  string // A-labels
	Expanded string // CNAME expansion of NextHop, if it has one
	Port     uint16
	MXSecure bool          // MX answer (its absence, if Implicit) secure, or host Fixed
	Implicit bool          // no MX records: NextHop is the host
	Fixed    bool          // host was given, MX was not asked
	NullMX   bool          // RFC 7505
	NoDomain bool          // the MX answer was that there is no such name: mail cannot be delivered (RFC 5321 §5.1)
	Hosts    []Host        // by preference; order among equals is that of the name
	Skipped  int           // more MX hosts, worse than all of Hosts, that nothing was asked about
	Class    Class         //
	Reason   string        // why this Class, in words, naming host and error; printable, at most 200 bytes
	Err      error         // when the class is ClassBroken: the first cause
	TTL      time.Duration // smallest of all answers that decided; at most 30 s when a lookup failed
}

// Names are the reference identifiers for DANE-TA at host h (RFC 7672 §3.2.2): the
// TLSA base domain and, where DNSSEC or the lack of MX records ties it to h, the
// next hop as it was given and as it expands. The name in the MX record is not
// among them if the base is its expansion.
func (p *Plan) Names(h *Host) []string {
	base := h.Base
	if base == "" {
		base = h.Name
	}
	names := []string{base}
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}

	switch {
	case p.Fixed || p.Implicit: // the base is the next hop's own, or its secure expansion
		add(p.NextHop)
	case p.MXSecure: // and so are the CNAMEs that led to the MX records
		add(p.NextHop)
		add(p.Expanded)
	}
	return names
}

// maybeDANE tells whether DANE is possible at a Broken host; see the package comment.
func (p *Plan) maybeDANE(h *Host) bool {
	e, ok := errors.AsType[*dnssec.Error](h.Err)
	return p.MXSecure || h.Secure || ok && e.Kind == dnssec.Bogus
}

// conclude sets Class, Reason and Err from the hosts by the rule of the package comment.
func (p *Plan) conclude() {
	first := make(map[State]*Host)
	count := make(map[State]int)
	var suspect *Host // the first Broken host where DANE is possible
	for i := range p.Hosts {
		h := &p.Hosts[i]
		if count[h.State]++; count[h.State] == 1 {
			first[h.State] = h
		}
		if h.State == Broken && suspect == nil && p.maybeDANE(h) {
			suspect = h
		}
	}
	reachable := len(p.Hosts) - count[Absent] - count[Broken]

	switch {
	case count[Usable] > 0 && count[Usable] == reachable && p.MXSecure:
		p.Class = ClassFull
		p.because("usable TLSA at %s%s", p.tally(count[Usable]), p.shortfall(first))
	case count[Usable] > 0:
		p.Class = ClassPartial
		p.because("usable TLSA at %s%s", p.tally(count[Usable]), p.shortfall(first))
	case count[Unusable] > 0:
		p.Class = ClassUnusable
		p.because("%s: %s", first[Unusable].Name, first[Unusable].Reason)
	case suspect != nil && reachable > 0:
		p.Class = ClassPartial
		p.because("no TLSA at the hosts that can be looked up, but %s: %s", suspect.Name, suspect.Reason)
	case suspect != nil:
		p.Class, p.Err = ClassBroken, suspect.Err
		p.because("no host can be looked up; %s: %s", suspect.Name, suspect.Reason)
	case p.Skipped > 0 && p.MXSecure:
		p.Class = ClassPartial
		p.because("no TLSA at the best %d of %d MX hosts, the others were not looked up", len(p.Hosts), len(p.Hosts)+p.Skipped)
	default:
		p.Class = ClassNone
		p.because("%s", p.absence(first))
	}
}

// tally words how many of the hosts n is.
func (p *Plan) tally(n int) string {
	total := len(p.Hosts) + p.Skipped
	switch {
	case total == 1:
		return p.Hosts[0].Name
	case n == total:
		return fmt.Sprintf("all %d MX hosts", n)
	}
	return fmt.Sprintf("%d of %d MX hosts", n, total)
}

// shortfall words what is not as good as it could be beside usable hosts.
func (p *Plan) shortfall(first map[State]*Host) string {
	s := ""
	if !p.MXSecure {
		s = ", but the MX answer is not authenticated"
	}
	for _, state := range []State{NoTLSA, Insecure, Unusable, Broken, Absent} {
		if h := first[state]; h != nil {
			return s + "; " + h.Name + ": " + h.Reason
		}
	}
	return s
}

// absence words ClassNone.
func (p *Plan) absence(first map[State]*Host) string {
	for _, state := range []State{NoTLSA, Insecure, Broken, Absent} {
		if h := first[state]; h != nil {
			return h.Name + ": " + h.Reason
		}
	}
	return "no host"
}

func (p *Plan) because(format string, args ...any) {
	p.Reason = printable(fmt.Sprintf(format, args...))
}

// maxReason bounds texts for logs and replies to mail servers.
const maxReason = 200

// printable makes a text from outside fit for a log line and a mail server's reply.
func printable(s string) string {
	b := []byte(s[:min(len(s), maxReason)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

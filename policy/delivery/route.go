package delivery

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"

	"postseal/policy"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// nextHop is where a recipient's mail goes. Recipients with the same one share a copy.
type nextHop struct {
	dest    policy.Destination // zero for the two below
	literal netip.AddrPort     // an address instead of a name: no policy (RFC 5321 §4.1.3)
	local   bool               // LocalRelay

	mode   requiretls.Mode
	routed bool // by an administrator's route, which may lead to private addresses
}

// String names the next hop for logs and replies.
func (h nextHop) String() string {
	switch {
	case h.local:
		return "the local relay"
	case h.literal.IsValid():
		return h.literal.String()
	}
	return h.dest.String()
}

// group is the recipients of one message that have the next hop in common.
type group struct {
	nextHop
	recipients []int
	loose      chan struct{} // closed when the message is not needed any more, though replies are to come
	done       chan struct{} // closed when all have their replies
}

// route finds the next hop of an address, or the reply for one that has none. What is
// not held to REQUIRETLS is logged.
func (s *Server) route(address string, mode requiretls.Mode, log *slog.Logger) (nextHop, smtpclient.Reply) {
	h := nextHop{mode: mode}
	domain, at := "", strings.LastIndexByte(address, '@')
	if at >= 0 {
		domain = address[at+1:]
	}
	if at < 0 || s.isLocal(domain) { // without a domain: <postmaster>, RFC 5321 §4.1.1.3
		h.local, h.mode = true, requiretls.Normal
		if s.LocalRelay == "" {
			return h, answer(451, "4.3.5", "mail for local recipients cannot be delivered from here: delivery.local_relay is not set")
		}
		if mode == requiretls.Required {
			log.Info("final delivery nearby", "domain", domain, "requiretls", "exempt") // RFC 8689 §4.4
		}
		return h, smtpclient.Reply{}
	}
	if literal, ok := parseLiteral(domain); ok {
		h.literal = netip.AddrPortFrom(literal, s.port())
		return h, smtpclient.Reply{}
	}
	name, ok := parseDomain(domain)
	if !ok {
		return h, answer(550, "5.1.3", "the recipient's domain is not a domain name")
	}
	if r := s.smartHost(name); r != nil {
		return s.follow(r, mode, log)
	}
	h.dest = policy.Destination{Domain: name, Port: s.port()}
	return h, smtpclient.Reply{}
}

// follow is the hop of a route. Then the policy of the next hop applies, not that of
// the recipient's domain (RFC 8461 §3.4).
func (s *Server) follow(r *Route, mode requiretls.Mode, log *slog.Logger) (nextHop, smtpclient.Reply) {
	h := nextHop{mode: mode, routed: true}
	if mode == requiretls.Required && r.RequireTLSExempt {
		h.mode = requiretls.Normal
		log.Info("route is exempt from REQUIRETLS", "domain", r.Domain, "nexthop", r.NextHop, "requiretls", "exempt")
	}
	if literal, ok := parseLiteralHop(r.NextHop, s.port()); ok {
		h.literal = literal
		return h, smtpclient.Reply{}
	}
	dest, err := policy.ParseDestination(r.NextHop)
	if err != nil {
		return h, answer(451, "4.3.5", "the route of "+r.Domain+" has no usable next hop")
	}
	if !hasPort(r.NextHop) {
		dest.Port = s.port()
	}
	h.dest = dest
	return h, smtpclient.Reply{}
}

// Check tells what is wrong with the next hop of a route.
func (r Route) Check() error {
	if _, ok := parseLiteralHop(r.NextHop, defaultPort); ok {
		return nil
	}
	if _, err := policy.ParseDestination(r.NextHop); err != nil {
		return fmt.Errorf("%q is not host, [host] or [address], nor one of them with :port", r.NextHop)
	}
	return nil
}

// smartHost returns the most specific route of a domain, nil if there is none.
func (s *Server) smartHost(name string) *Route {
	var best *Route
	for i := range s.Routes {
		r := &s.Routes[i]
		if covers(r.Domain, name) && (best == nil || len(r.Domain) > len(best.Domain)) {
			best = r
		}
	}
	return best
}

// isLocal reports whether a recipient's domain is one of LocalDomains.
func (s *Server) isLocal(domain string) bool {
	name, ok := parseDomain(domain)
	if !ok {
		return false
	}
	for _, l := range s.LocalDomains {
		if covers(l, name) {
			return true
		}
	}
	return false
}

// covers matches a name with a domain of the configuration, ".example.org", which is
// all names below, or "*".
func covers(pattern, name string) bool {
	switch {
	case pattern == "*":
		return true
	case strings.HasPrefix(pattern, "."):
		return len(name) > len(pattern) && strings.EqualFold(name[len(name)-len(pattern):], pattern)
	}
	return strings.EqualFold(name, strings.TrimSuffix(pattern, "."))
}

func (s *Server) port() uint16 {
	if s.Port == 0 {
		return defaultPort
	}
	return s.Port
}

// parseDomain gives the canonical form of a recipient's domain. A name of one label
// is one like others, in the root (RFC 5321 §2.3.5, §5.1): nothing is added to it.
func parseDomain(s string) (name string, ok bool) {
	if strings.ContainsAny(s, ":[]") { // of next hops
		return "", false
	}
	if dest, err := policy.ParseDestination(s); err == nil {
		return dest.Domain, true
	}
	const parent = "x."
	b, ok := policy.AppendName(nil, []byte(parent+s))
	if !ok {
		return "", false
	}
	return string(b[len(parent):]), true
}

// parseLiteral reads an address literal (RFC 5321 §4.1.3).
func parseLiteral(s string) (netip.Addr, bool) {
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, false
	}
	s = s[1 : len(s)-1]
	const v6 = "IPv6:"
	tagged := len(s) > len(v6) && strings.EqualFold(s[:len(v6)], v6)
	if tagged {
		s = s[len(v6):]
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || tagged && a.Is4() {
		return netip.Addr{}, false
	}
	return a, true
}

// parseLiteralHop reads "[address]" or "[address]:port".
func parseLiteralHop(s string, port uint16) (netip.AddrPort, bool) {
	literal := s
	if end := strings.LastIndexByte(s, ']'); end >= 0 && hasPort(s) {
		n, err := strconv.ParseUint(s[end+2:], 10, 16)
		if err != nil || n == 0 {
			return netip.AddrPort{}, false
		}
		literal, port = s[:end+1], uint16(n)
	}
	a, ok := parseLiteral(literal)
	return netip.AddrPortFrom(a, port), ok
}

// hasPort reports whether a next hop says its port.
func hasPort(s string) bool {
	return strings.Contains(s[strings.LastIndexByte(s, ']')+1:], ":")
}

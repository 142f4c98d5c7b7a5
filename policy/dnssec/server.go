package dnssec

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// penalty is how long a server that failed stands behind the others. It is
// short, since all that is lost is the order.
const penalty = 15 * time.Second

// server is one resolver with what is known of it.
type server struct {
	addr    netip.AddrPort
	name    string // host:port, for people
	trusted bool   // the path to it
	err     error  // the address is none

	failed  atomic.Int64 // Unix ns until which it is put back
	verdict atomic.Pointer[verdict]
}

// verdict is the outcome of the self-tests of a server so far; nil before the
// first that told something.
type verdict struct {
	validates bool
	proven    bool   // by a test that has all that a proof needs
	reason    string // why it does not validate
}

// believed reports whether the AD bit of this server counts.
func (s *server) believed() bool {
	if !s.trusted {
		return false
	}
	v := s.verdict.Load()
	return v == nil || v.validates
}

// proven reports whether the self-test saw the server validate.
func (s *server) proven() bool {
	v := s.verdict.Load()
	return s.trusted && v != nil && v.validates && v.proven
}

func (s *server) putBack(now time.Time) { s.failed.Store(now.Add(penalty).UnixNano()) }
func (s *server) works()                { s.failed.Store(0) }

// pool holds the servers in use.
type pool struct {
	packets packets
	changed chan struct{} // one token: the list is another

	mu      sync.Mutex
	servers []*server // never changed in place
	conf    resolvConf
}

// servers returns the servers in order of preference; the slice must not be
// changed.
func (c *Client) servers() []*server {
	c.once.Do(func() {
		c.pool.changed = make(chan struct{}, 1)
		if len(c.Servers) > 0 {
			c.pool.servers = c.newServers(c.Servers)
		}
	})
	if len(c.Servers) > 0 {
		return c.pool.servers
	}
	return c.followed()
}

// newServers keeps what is known of servers that were there before.
func (c *Client) newServers(names []string) []*server {
	var list []*server
	for _, name := range names {
		addr, err := parseServer(name)
		if err == nil {
			name = addr.String()
		}
		if i := slices.IndexFunc(c.pool.servers, func(s *server) bool { return s.name == name }); i >= 0 {
			list = append(list, c.pool.servers[i])
			continue
		}
		list = append(list, &server{addr: addr, name: name, err: err, trusted: err == nil && c.trusts(addr.Addr())})
	}
	return list
}

// parseServer reads an IP address with or without a port.
func parseServer(s string) (netip.AddrPort, error) {
	const port = 53
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a.Unmap(), port), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("server %q is no IP address with a port", s)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// dockerForwarder is a loopback address inside of containers behind which a
// forwarder asks over the network, without a protected path.
var dockerForwarder = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// trusts reports whether the path to a server is protected, so that its AD bit
// can be believed (RFC 7672 §2.1.1, RFC 4035 §4.9.3, RFC 6840 §5.7).
func (c *Client) trusts(a netip.Addr) bool {
	switch c.TrustAD {
	case TrustAuto:
		return a.IsLoopback() && a != dockerForwarder
	case TrustAlways:
		return true
	}
	return false
}

// candidates returns the servers to ask, best first, and whether these are
// believed: if one server is believed, only such are asked. Whoever could make
// the believed one fail would otherwise get an unauthenticated answer used in
// its place. Servers that failed lately come last.
func (c *Client) candidates() ([]*server, bool) {
	all := c.servers()
	list := all
	believed := slices.ContainsFunc(all, (*server).believed)
	if believed && !allBelieved(all) {
		list = nil
		for _, s := range all {
			if s.believed() {
				list = append(list, s)
			}
		}
	}
	now := c.now().UnixNano()
	late := func(s *server) int64 {
		if until := s.failed.Load(); until > now {
			return until
		}
		return 0
	}
	if len(list) > 1 && slices.ContainsFunc(list, func(s *server) bool { return late(s) > 0 }) {
		list = byLateness(list, late)
	}
	return list, believed
}

func allBelieved(list []*server) bool {
	return !slices.ContainsFunc(list, func(s *server) bool { return !s.believed() })
}

// byLateness sorts a copy; lateness may change meanwhile, so it is read once.
func byLateness(list []*server, late func(*server) int64) []*server {
	type ranked struct {
		s    *server
		late int64
	}
	ranks := make([]ranked, len(list))
	for i, s := range list {
		ranks[i] = ranked{s, late(s)}
	}
	slices.SortStableFunc(ranks, func(a, b ranked) int {
		switch {
		case a.late < b.late:
			return -1
		case a.late > b.late:
			return 1
		}
		return 0
	})
	sorted := make([]*server, len(list))
	for i, r := range ranks {
		sorted[i] = r.s
	}
	return sorted
}

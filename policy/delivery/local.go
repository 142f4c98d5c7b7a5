package delivery

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"postseal/policy/smtpclient"
)

// relay is the client for LocalRelay, made once so that its sessions are reused.
type relay struct {
	once   sync.Once
	client *smtpclient.Client
	err    error
}

// localRelay is the host that takes mail for LocalDomains: one that runs beside us
// and must not hand it back. No TLS is demanded of it (RFC 8689 §4.4).
func (s *Server) localRelay() (*candidate, error) {
	r := &s.state.relay
	r.once.Do(func() {
		network, address, err := parseRelay(s.LocalRelay)
		if err != nil {
			r.err = err
			return
		}
		c := s.Client
		r.client = &smtpclient.Client{Hostname: c.Hostname, Roots: c.Roots, Limits: c.Limits, Now: c.Now, Log: c.Log,
			Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, address)
			}}
	})
	if r.err != nil {
		return nil, r.err
	}
	// An address is needed for form's sake; the client dials its own.
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 25)
	return &candidate{client: r.client, name: "local-relay", addrs: []netip.AddrPort{addr}}, nil
}

// parseRelay reads "tcp:host:port" or "unix:/path".
func parseRelay(s string) (network, address string, err error) {
	network, address, _ = strings.Cut(s, ":")
	switch network {
	case "unix":
		if address != "" {
			return network, address, nil
		}
	case "tcp", "inet":
		if _, _, err := net.SplitHostPort(address); err == nil {
			return "tcp", address, nil
		}
	}
	return "", "", fmt.Errorf(`delivery.local_relay %q is neither "tcp:host:port" nor "unix:/path"`, s)
}

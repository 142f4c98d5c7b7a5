package setup

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"postseal/cmd/postseal/internal/config"
	"postseal/policy/dnssec"
)

const (
	resolvConf = "/etc/resolv.conf"
	// Long enough for the questions of the self-test to servers far away, asked side by
	// side, and for a resolver that starts with an empty cache.
	maxSelfTest = 15 * time.Second
)

// docker is the forwarder of container networks, which is on loopback but forwards
// over the network.
var docker = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// Answers to the option that overrides the test of the resolver.
const (
	DANEAuto = "auto"
	DANEYes  = "yes"
	DANENo   = "no"
)

// dane says whether the mail server itself can do DANE with the resolvers that its C
// library uses, and why not. libc says whether it asks through that library.
func (s *System) dane(ctx context.Context, p *Plan, choice string, libc bool) (bool, error) {
	switch choice {
	case DANEYes:
		p.found("DANE by the mail server itself, as demanded")
		return true, nil
	case DANENo:
		p.found("no DANE by the mail server itself, as demanded")
		return false, nil
	}
	text, _, err := s.read(resolvConf)
	if err != nil {
		return false, err
	}
	servers, trustAD := parseResolvConf(string(text))
	ok, why := s.trusted(ctx, servers, trustAD || !libc || runtime.GOOS != "linux")
	if ok {
		p.found("resolver %s: validates, and its word may be taken", strings.Join(servers, ", "))
		return true, nil
	}
	p.found("resolver %s: no DANE by the mail server itself, since %s", strings.Join(servers, ", "), why)
	return false, nil
}

// trusted says whether the AD bit of the servers means something to who asks them.
func (s *System) trusted(ctx context.Context, servers []string, passedOn bool) (bool, string) {
	for _, server := range servers {
		addr, err := netip.ParseAddr(server)
		if err != nil || !addr.IsLoopback() || addr == docker {
			return false, server + " is not on this machine, and whoever is on the path could forge its answers; run a validating resolver here, such as unbound"
		}
	}
	if !passedOn {
		return false, resolvConf + ` lacks "options edns0 trust-ad", without which the C library hides what was validated`
	}
	if s.Validates != nil {
		return s.Validates(ctx, servers)
	}
	return validates(ctx, servers)
}

// validates makes the self-test of the daemon, with its default names.
func validates(ctx context.Context, servers []string) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, maxSelfTest)
	defer cancel()
	client := &dnssec.Client{SelfTest: config.Default().SelfTest()}
	for _, server := range servers {
		client.Servers = append(client.Servers, net.JoinHostPort(server, "53"))
	}
	v := client.Test(ctx)
	switch {
	case !v.On:
		return false, v.Reason
	case v.Reason != "": // another server is not used, or nothing was proven
		return false, "it is not known whether it validates (" + v.Reason + ")"
	}
	return true, ""
}

// parseResolvConf reads what resolv.conf(5) has of nameservers and trust-ad.
func parseResolvConf(text string) (servers []string, trustAD bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2:
		case fields[0] == "nameserver" && len(servers) < 3: // MAXNS
			servers = append(servers, fields[1])
		case fields[0] == "options" && slices.Contains(fields, "trust-ad"):
			trustAD = true
		}
	}
	if len(servers) == 0 {
		servers = []string{"127.0.0.1"} // as the library has it
	}
	return servers, trustAD
}

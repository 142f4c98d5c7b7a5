package host

import (
	"net/netip"
	"slices"
	"strings"
)

// ResolvConfFile is what the C library reads.
const ResolvConfFile = "/etc/resolv.conf"

// maxServers is MAXNS of resolv.conf(5): the C library does not read more.
const maxServers = 3

// ResolvConf is what a mail server's C library knows of resolvers (resolv.conf(5)).
type ResolvConf struct {
	Servers []string // addresses without ports; as they are written where they are none
	TrustAD bool     // glibc 2.31 and later hide AD without this option
}

// ReadResolvConf reads /etc/resolv.conf, or the copy of it in a chroot.
func (s *System) ReadResolvConf(name string) (ResolvConf, error) {
	text, err := s.Read(name)
	if err != nil {
		return ResolvConf{}, err
	}
	return parseResolvConf(string(text)), nil
}

func parseResolvConf(text string) ResolvConf {
	var c ResolvConf
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2:
		case fields[0] == "nameserver" && len(c.Servers) < maxServers:
			server := fields[1]
			if a, err := netip.ParseAddr(server); err == nil {
				server = a.String()
			}
			c.Servers = append(c.Servers, server)
		case fields[0] == "options" && slices.Contains(fields, "trust-ad"):
			c.TrustAD = true
		}
	}
	return c
}

// Asked are the servers that the C library asks: one on this machine where the file
// names none.
func (c ResolvConf) Asked() []string {
	if len(c.Servers) == 0 {
		return []string{"127.0.0.1"}
	}
	return c.Servers
}

// docker is the forwarder of container networks, which is on loopback but forwards
// over the network.
var docker = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// OnMachine reports whether a resolver is on this machine, so that nobody stands
// between it and who asks.
func OnMachine(server string) bool {
	a, err := netip.ParseAddr(server)
	return err == nil && a.IsLoopback() && a != docker
}

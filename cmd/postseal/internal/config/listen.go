package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Listen is a list of addresses as they are written: "unix:/path" or
// "tcp:host:port", with inet: for tcp: as mail servers have it. In the file a
// single address may stand without the brackets of a list.
type Listen []string

// UnmarshalTOML takes a string or a list of them.
func (l *Listen) UnmarshalTOML(v any) error {
	*l = Listen{}
	if s, ok := v.(string); ok {
		*l = Listen{s}
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		return errors.New("must be a list of addresses")
	}
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return errors.New("must be a list of addresses")
		}
		*l = append(*l, s)
	}
	return nil
}

// Endpoints parses all addresses.
func (l Listen) Endpoints() ([]Endpoint, error) {
	var list []Endpoint
	for _, s := range l {
		e, err := ParseEndpoint(s)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// Names are the hosts of the TCP addresses, as far as they can be parsed.
func (l Listen) Names() []string {
	var names []string
	for _, s := range l {
		if e, err := ParseEndpoint(s); err == nil && e.Network == "tcp" {
			host, _, _ := net.SplitHostPort(e.Address)
			names = append(names, host)
		}
	}
	return names
}

// Endpoint is an address for net.Listen and net.Dial.
type Endpoint struct {
	Network string // "unix" or "tcp"
	Address string
}

func (e Endpoint) String() string { return e.Network + ":" + e.Address }

// maxSocketPath is the longest path of a unix socket (sun_path of Linux, with the
// final zero; FreeBSD has 104), and room for ".new" at its end.
const maxSocketPath = 103 - 4

// ParseEndpoint reads "unix:/path", "tcp:host:port" or "inet:host:port".
func ParseEndpoint(s string) (Endpoint, error) {
	network, address, _ := strings.Cut(s, ":")
	switch network {
	case "unix":
		if !strings.HasPrefix(address, "/") {
			return Endpoint{}, fmt.Errorf("%q: the path of a unix socket must be absolute", s)
		}
		if len(address) > maxSocketPath {
			return Endpoint{}, fmt.Errorf("%q: the path of a unix socket must not be longer than %d bytes", s, maxSocketPath)
		}
		return Endpoint{"unix", address}, nil
	case "tcp", "inet":
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return Endpoint{}, fmt.Errorf("%q is not tcp:host:port", s)
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return Endpoint{}, fmt.Errorf("%q has no valid port number", s)
		}
		return Endpoint{"tcp", address}, nil
	}
	return Endpoint{}, fmt.Errorf("%q is neither unix:/path nor tcp:host:port", s)
}

// Exposed reports whether others than this machine may reach a TCP address. A
// name other than localhost counts as exposed.
func (e Endpoint) Exposed() bool {
	if e.Network != "tcp" {
		return false
	}
	host, _, _ := net.SplitHostPort(e.Address)
	if host == "localhost" {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err != nil || !addr.IsLoopback()
}

package sidecar

import (
	"net"
	"strings"

	"postseal/cmd/postseal/internal/config"
)

// Door is a listener of the daemon that the mail server connects to.
type Door struct {
	table, name string // in postseal.toml
	port        string // the usual one
}

// The doors that setup knows of.
var (
	Map        = Door{"socketmap", "listen", "8461"}
	Milter     = Door{"milter", "listen", "8462"}
	Delivery   = Door{"delivery", "listen", "8463"}
	RequireTLS = Door{"delivery", "requiretls_listen", "8465"}
	Relaxed    = Door{"delivery", "relaxed_listen", "8466"}
	Exim       = Door{"exim", "listen", "8464"}
)

// Table is the table of postseal.toml that a door is set in.
func (d Door) Table() string { return d.table }

// Port is the usual one, which the files of contrib have.
func (d Door) Port() string { return d.port }

// Endpoints are the addresses that a door has in the configuration.
func (f *File) Endpoints(d Door) []config.Endpoint {
	for _, s := range f.Config.Sections() {
		if s.Key != d.table+"."+d.name {
			continue
		}
		if endpoints, err := s.Listen.Endpoints(); err == nil { // checked when the file was read
			return endpoints
		}
	}
	return nil
}

// TCP is "host:port" of a door on loopback: the first that it has, else the usual one.
func (f *File) TCP(d Door) string {
	for _, e := range f.Endpoints(d) {
		host, port, err := net.SplitHostPort(e.Address)
		if e.Network != "tcp" || err != nil || port == "0" {
			continue
		}
		if host == "" || host == "0.0.0.0" || host == "::" {
			host = "127.0.0.1"
		}
		return net.JoinHostPort(host, port)
	}
	return "127.0.0.1:" + d.port
}

// MovedPort is the port of a door on 127.0.0.1; moved is false if that is the usual one,
// or the door is elsewhere.
func (f *File) MovedPort(d Door) (port string, moved bool) {
	port, ok := strings.CutPrefix(f.TCP(d), "127.0.0.1:")
	return port, ok && port != d.port
}

// UseTCP has the daemon listen at a door on loopback, unless it does.
func (f *File) UseTCP(d Door, why string) { f.Use(d, "tcp:"+f.TCP(d), why) }

// Use has the daemon listen at a door, unless it does. listen is as in postseal.toml.
func (f *File) Use(d Door, listen, why string) {
	if mine, err := config.ParseEndpoint(listen); err == nil {
		for _, e := range f.Endpoints(d) {
			_, port, _ := net.SplitHostPort(e.Address)
			_, wanted, _ := net.SplitHostPort(mine.Address)
			if e == mine || e.Network == "tcp" && port == wanted && wildcard(e.Address) {
				return
			}
		}
	}
	f.Need(Key{Table: d.table, Name: d.name, Value: []string{listen}, Also: true, Why: why})
}

func wildcard(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && (host == "" || host == "0.0.0.0" || host == "::")
}

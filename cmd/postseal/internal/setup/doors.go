package setup

import (
	"net"
	"path"
	"path/filepath"
	"strings"

	"postseal/cmd/postseal/internal/config"
)

// door is a listener of the daemon that the mail server connects to.
type door struct {
	table, name string // in postseal.toml
	socket      string // in contrib/postfix, below the queue folder; "": on TCP there too
	port        string // the usual one
	brackets    bool   // Postfix writes the host in brackets: it is a next hop
}

var (
	mapDoor        = door{"socketmap", "listen", "postseal/map.sock", "8461", false}
	milterDoor     = door{"milter", "listen", "postseal/milter.sock", "8462", false}
	deliveryDoor   = door{"delivery", "listen", "", "8463", true}
	requireTLSDoor = door{"delivery", "requiretls_listen", "postseal/lmtp-requiretls.sock", "8465", true}
	relaxedDoor    = door{"delivery", "relaxed_listen", "postseal/lmtp-relaxed.sock", "8466", true}
	eximDoor       = door{"exim", "listen", "", "8464", false}
)

// listens are the addresses that a door has in the configuration.
func (d door) listens(c *config.Config) config.Listen {
	for _, s := range c.Sections() {
		if s.Key == d.table+"."+d.name {
			return s.Listen
		}
	}
	return nil
}

// tcp is the address of a door on loopback: the first that it has, else the usual one.
func (d door) tcp(c *config.Config) string {
	endpoints, err := d.listens(c).Endpoints()
	if err != nil { // checked when the file was read
		endpoints = nil
	}
	for _, e := range endpoints {
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

// onUnix reports whether a door is below the queue folder.
func (p *postfix) onUnix(d door) bool { return p.options.Unix && d.socket != "" }

// address is a door as main.cf names it.
func (p *postfix) address(d door) string {
	if !p.onUnix(d) {
		address := d.tcp(p.daemon.config)
		if host, port, err := net.SplitHostPort(address); err == nil && d.brackets && !strings.Contains(host, ":") {
			address = "[" + host + "]:" + port
		}
		return "inet:" + address
	}
	endpoints, err := d.listens(p.daemon.config).Endpoints()
	if err != nil {
		endpoints = nil
	}
	for _, e := range endpoints {
		if rel, err := filepath.Rel(p.queue, e.Address); e.Network == "unix" && err == nil && !strings.HasPrefix(rel, "..") {
			return "unix:" + rel
		}
	}
	return "unix:" + d.socket
}

// atSockets puts the addresses at hand in the place of those in contrib.
func (p *postfix) atSockets(value string) string {
	for _, d := range []door{mapDoor, milterDoor, requireTLSDoor, relaxedDoor} {
		value = strings.ReplaceAll(value, "unix:"+d.socket, p.address(d))
	}
	return value
}

// nextHop is delivery.nexthop.
func (p *postfix) nextHop() string { return p.address(deliveryDoor) }

// use has the daemon listen at a door.
func (p *postfix) use(d door, why string) {
	listen := "tcp:" + d.tcp(p.daemon.config)
	if p.onUnix(d) {
		listen = "unix:" + path.Join(p.queue, strings.TrimPrefix(p.address(d), "unix:"))
		p.daemon.need(key{table: d.table, name: "group", value: "postfix", why: "lets Postfix in"})
		p.folder()
	}
	p.daemon.use(d, listen, why)
}

// use has the daemon listen at a door, unless it does.
func (f *daemonFile) use(d door, listen, why string) {
	if mine, err := config.ParseEndpoint(listen); err == nil {
		endpoints, err := d.listens(f.config).Endpoints()
		if err != nil {
			endpoints = nil
		}
		for _, e := range endpoints {
			_, port, _ := net.SplitHostPort(e.Address)
			_, wanted, _ := net.SplitHostPort(mine.Address)
			if e == mine || e.Network == "tcp" && port == wanted && wildcard(e.Address) {
				return
			}
		}
	}
	f.need(key{table: d.table, name: d.name, value: []string{listen}, also: true, why: why})
}

func wildcard(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && (host == "" || host == "0.0.0.0" || host == "::")
}

// folder says that the folder of the sockets must exist: the daemon does not make it.
func (p *postfix) folder() {
	dir := path.Join(p.queue, "postseal")
	command := "install -d -o " + daemonUser + " -g postfix -m 2750 " + dir
	for _, has := range p.Before {
		if has == command {
			return
		}
	}
	if !p.exists(dir) {
		p.Before = append(p.Before, command)
	}
}

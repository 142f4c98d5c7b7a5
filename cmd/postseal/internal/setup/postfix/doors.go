package postfix

import (
	"net"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/setup/sidecar"
)

// door is a listener of the daemon as contrib/postfix names it.
type door struct {
	sidecar.Door
	socket   string // below the queue folder; "": on TCP there too
	brackets bool   // Postfix writes the host in brackets: it is a next hop
}

var (
	mapDoor        = door{sidecar.Map, "postseal/map.sock", false}
	milterDoor     = door{sidecar.Milter, "postseal/milter.sock", false}
	deliveryDoor   = door{sidecar.Delivery, "", true}
	requireTLSDoor = door{sidecar.RequireTLS, "postseal/lmtp-requiretls.sock", true}
	relaxedDoor    = door{sidecar.Relaxed, "postseal/lmtp-relaxed.sock", true}
)

// onUnix reports whether a door is below the queue folder.
func (p *planner) onUnix(d door) bool { return p.options.Unix && d.socket != "" }

// address is a door as main.cf names it.
func (p *planner) address(d door) string {
	if !p.onUnix(d) {
		address := p.daemon.TCP(d.Door)
		if host, port, err := net.SplitHostPort(address); err == nil && d.brackets && !strings.Contains(host, ":") {
			address = "[" + host + "]:" + port
		}
		return "inet:" + address
	}
	for _, e := range p.daemon.Endpoints(d.Door) {
		if rel, err := filepath.Rel(p.queue, e.Address); e.Network == "unix" && err == nil && !strings.HasPrefix(rel, "..") {
			return "unix:" + rel
		}
	}
	return "unix:" + d.socket
}

// atSockets puts the addresses at hand in the place of those in contrib.
func (p *planner) atSockets(value string) string {
	for _, d := range []door{mapDoor, milterDoor, requireTLSDoor, relaxedDoor} {
		value = strings.ReplaceAll(value, "unix:"+d.socket, p.address(d))
	}
	return value
}

// nextHop is delivery.nexthop.
func (p *planner) nextHop() string { return p.address(deliveryDoor) }

// use has the daemon listen at a door.
func (p *planner) use(d door, why string) {
	if !p.onUnix(d) {
		p.daemon.UseTCP(d.Door, why)
		return
	}
	p.daemon.Need(sidecar.Key{Table: d.Table(), Name: "group", Value: "postfix", Why: "lets Postfix in"})
	p.folder()
	p.daemon.Use(d.Door, "unix:"+path.Join(p.queue, strings.TrimPrefix(p.address(d), "unix:")), why)
}

// folder says that the folder of the sockets must exist: the daemon does not make it.
func (p *planner) folder() {
	dir := path.Join(p.queue, "postseal")
	command := "install -d -o " + sidecar.User + " -g postfix -m 2750 " + dir
	if !slices.Contains(p.Before, command) && !p.Exists(dir) {
		p.Before = append(p.Before, command)
	}
}

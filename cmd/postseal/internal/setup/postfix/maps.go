package postfix

import (
	"net"
	"path"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/host/postconf"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/sidecar"
)

// Rival services that setup knows to take over from.
const (
	FromResolver = "postfix-mta-sts-resolver"
	FromTLSPol   = "postfix-tlspol"
)

// rival is another service that answers smtp_tls_policy_maps.
type rival struct {
	name    string
	port    string
	signs   []string // files of an installed one
	service string
}

var rivals = []rival{
	{FromResolver, "8461", []string{"/etc/mta-sts-daemon.yml", "/usr/bin/mta-sts-daemon", "/usr/local/bin/mta-sts-daemon",
		"/lib/systemd/system/postfix-mta-sts-resolver.service", "/etc/systemd/system/postfix-mta-sts-resolver.service"}, "postfix-mta-sts-resolver"},
	{FromTLSPol, "8642", []string{"/etc/postfix-tlspol/config.yaml", "/usr/bin/postfix-tlspol",
		"/lib/systemd/system/postfix-tlspol.service", "/etc/systemd/system/postfix-tlspol.service"}, "postfix-tlspol"},
}

// socket is where an item of smtp_tls_policy_maps asks.
type socket struct{ postconf.Socketmap }

func parseSocket(item string) (socket, bool) {
	m, ok := postconf.ParseSocketmap(item)
	return socket{m}, ok
}

// same reports whether two are at one address.
func (s socket) same(o socket) bool {
	return s.Kind == o.Kind && strings.Replace(s.Address, "localhost:", "127.0.0.1:", 1) == o.Address
}

func (s socket) port() string {
	_, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return ""
	}
	return port
}

// listen is the socket as postseal.toml has it.
func (s socket) listen(queue string) string {
	if s.Kind == "unix" {
		if path.IsAbs(s.Address) {
			return "unix:" + s.Address
		}
		return "unix:" + path.Join(queue, s.Address)
	}
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return "tcp:" + s.Address
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return "tcp:" + net.JoinHostPort(host, port)
}

// policyMaps puts our map behind the site's own tables, or in the place of what asked
// us in another dialect, or of the service that is replaced.
func (p *planner) policyMaps(want setting) error {
	ours, _ := parseSocket(want.value)
	from := p.options.From
	var raw, items = postconf.List(p.explicit[want.name]), postconf.List(p.expanded[want.name])
	replaced := ""
	for _, item := range items {
		sock, isSocket := parseSocket(item)
		if !isSocket {
			if strings.HasPrefix(item, "static:") {
				p.Warn("%s in %s answers for every domain: what stands behind it is never asked", item, want.name)
			}
			continue
		}
		old, known := rivalAt(sock)
		switch {
		case known && from == "" && p.present(old):
			return setup.Refuse("to move from it, say --from "+old.name, "%s asks %s already, by %s", want.name, old.name, item)
		case known && from != "" && old.name != from && p.present(old):
			return setup.Refuse("say --from "+old.name, "%s is of %s, not of %s", item, old.name, from)
		case sock.same(ours) && sock.Name == ours.Name:
			if from != "" {
				p.leave(from, item)
			}
			p.daemon.Use(sidecar.Map, sock.listen(p.queue), "where Postfix asks")
			return nil
		case p.options.KeepLine:
			return p.keepLine(sock, item)
		case from != "" || sock.same(ours) || strings.HasSuffix(sock.Address, mapDoor.socket):
			replaced = item
		default:
			return setup.Refuse("if it is another policy service, take it out first; two of them contradict each other", "%s asks a service that setup does not know: %s", want.name, item)
		}
	}
	return p.placeMap(want, raw, items, replaced)
}

// downTable stands in our place while the daemon stays down (contrib/postfix/README.md).
const downTable = "$postseal_known"

// placeMap makes the setting, with one item replaced or ours behind the others.
func (p *planner) placeMap(want setting, raw, items []string, replaced string) error {
	from := p.options.From
	if slices.Contains(raw, downTable) {
		replaced = downTable
	}
	if from != "" && replaced == "" {
		return setup.Refuse("leave out --from if it is gone", "smtp_tls_policy_maps has no line of %s", from)
	}
	p.use(mapDoor, "where Postfix asks")
	item := want.value
	switch at := slices.Index(raw, replaced); {
	case len(items) == 0:
	case replaced == "":
		want.value = p.explicit[want.name] + ", " + item
		want.why += "; your own tables go first, and win"
	case at < 0:
		return setup.Refuse("replace it by "+item+" where it stands, then run setup again",
			"%s comes from another setting that smtp_tls_policy_maps refers to", replaced)
	default:
		want.value = strings.Replace(p.explicit[want.name], replaced, item, 1)
		if from != "" {
			p.leave(from, item)
		}
	}
	p.set(want)
	return nil
}

// rivalAt is the service that is known to listen there.
func rivalAt(sock socket) (r rival, known bool) {
	for _, r := range rivals {
		if sock.Kind == "inet" && sock.port() == r.port || r.name == FromTLSPol && strings.HasPrefix(sock.Name, "QUERY") {
			return r, true
		}
	}
	return rival{}, false
}

// present reports whether a line that could be ours is a rival's: its port and map may
// be the same as ours, so the files of the other tell.
func (p *planner) present(r rival) bool {
	return r.port != sidecar.Map.Port() || p.FirstOf(r.signs...) != ""
}

// leave says how the other service is stopped. Where both have one port it must be
// stopped before ours starts.
func (p *planner) leave(from, item string) {
	i := slices.IndexFunc(rivals, func(r rival) bool { return r.name == from })
	stop := "systemctl disable --now " + rivals[i].service
	if sock, ok := parseSocket(item); ok && sock.port() == rivals[i].port || p.options.KeepLine {
		p.Before = append(p.Before, stop+"   # before postseal starts: both listen there. Mail waits meanwhile")
		return
	}
	p.After = append(p.After, stop)
}

// keepLine leaves the line of the other service, and has us listen where it did.
func (p *planner) keepLine(sock socket, item string) error {
	modern, known := postconf.Dialect(sock.Name)
	switch {
	case !known:
		return setup.Refuse("leave out --keep-line", "postseal has no map %q, which %s asks for", sock.Name, item)
	case modern && !p.version.Has(postconf.Patterns):
		return setup.Refuse("leave out --keep-line", "Postfix %s does not understand the answers of the map %s", p.version, sock.Name)
	case !modern && p.version.Has(postconf.Patterns):
		p.Warn("with the map %s Postfix %s does not check the names of MX hosts; without --keep-line it would", sock.Name, p.version)
	}
	p.Keep("smtp_tls_policy_maps: %s, which postseal answers from now on", item)
	p.daemon.Use(sidecar.Map, sock.listen(p.queue), "where "+p.options.From+" listened")
	p.leave(p.options.From, item)
	return nil
}

package setup

import (
	"net"
	"path"
	"slices"
	"strings"
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

// splitList takes a list of Postfix apart: at commas and blanks outside of braces.
func splitList(list string) []string {
	var all []string
	depth, start := 0, -1
	for i := 0; i <= len(list); i++ {
		end := i == len(list)
		switch {
		case !end && list[i] == '{':
			depth++
		case !end && list[i] == '}':
			depth--
		}
		separates := end || depth == 0 && strings.IndexByte(", \t\r\n", list[i]) >= 0
		switch {
		case separates && start >= 0:
			all = append(all, list[start:i])
			start = -1
		case !separates && start < 0:
			start = i
		}
	}
	return all
}

// socket is an item "socketmap:inet:host:port:name" or "socketmap:unix:path:name".
type socket struct{ kind, address, name string }

func parseSocket(item string) (socket, bool) {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(item, "proxy:"), "socketmap:")
	if !ok {
		return socket{}, false
	}
	kind, rest, ok := strings.Cut(rest, ":")
	at := strings.LastIndexByte(rest, ':')
	if !ok || at < 0 {
		return socket{}, false
	}
	return socket{kind, rest[:at], rest[at+1:]}, true
}

// same reports whether two are at one address.
func (s socket) same(o socket) bool {
	return s.kind == o.kind && strings.Replace(s.address, "localhost:", "127.0.0.1:", 1) == o.address
}

func (s socket) port() string {
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return ""
	}
	return port
}

// listen is the socket as postseal.toml has it.
func (s socket) listen(queue string) string {
	if s.kind == "unix" {
		if path.IsAbs(s.address) {
			return "unix:" + s.address
		}
		return "unix:" + path.Join(queue, s.address)
	}
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return "tcp:" + s.address
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return "tcp:" + net.JoinHostPort(host, port)
}

// policyMaps puts our map behind the site's own tables, or in the place of what asked
// us in another dialect, or of the service that is replaced.
func (p *postfix) policyMaps(want setting) error {
	ours, _ := parseSocket(want.value)
	from := p.options.From
	var raw, items = splitList(p.explicit[want.name]), splitList(p.expanded[want.name])
	replaced := ""
	for _, item := range items {
		sock, isSocket := parseSocket(item)
		if !isSocket {
			if strings.HasPrefix(item, "static:") {
				p.warn("%s in %s answers for every domain: what stands behind it is never asked", item, want.name)
			}
			continue
		}
		old, known := rivalAt(sock)
		switch {
		case known && from == "" && p.present(old):
			return refuse("to move from it, say --from "+old.name, "%s asks %s already, by %s", want.name, old.name, item)
		case known && from != "" && old.name != from && p.present(old):
			return refuse("say --from "+old.name, "%s is of %s, not of %s", item, old.name, from)
		case sock.same(ours) && sock.name == ours.name:
			if from != "" {
				p.leave(from, item)
			}
			p.daemon.use(mapDoor, sock.listen(p.queue), "where Postfix asks")
			return nil
		case p.options.KeepLine:
			return p.keepLine(sock, item)
		case from != "" || sock.same(ours) || strings.HasSuffix(sock.address, mapDoor.socket):
			replaced = item
		default:
			return refuse("if it is another policy service, take it out first; two of them contradict each other", "%s asks a service that setup does not know: %s", want.name, item)
		}
	}
	return p.placeMap(want, raw, items, replaced)
}

// downTable stands in our place while the daemon stays down (contrib/postfix/README.md).
const downTable = "$postseal_known"

// placeMap makes the setting, with one item replaced or ours behind the others.
func (p *postfix) placeMap(want setting, raw, items []string, replaced string) error {
	from := p.options.From
	if slices.Contains(raw, downTable) {
		replaced = downTable
	}
	if from != "" && replaced == "" {
		return refuse("leave out --from if it is gone", "smtp_tls_policy_maps has no line of %s", from)
	}
	p.use(mapDoor, "where Postfix asks")
	item := want.value
	switch at := slices.Index(raw, replaced); {
	case len(items) == 0:
	case replaced == "":
		want.value = p.explicit[want.name] + ", " + item
		want.why += "; your own tables go first, and win"
	case at < 0:
		return refuse("replace it by "+item+" where it stands, then run setup again",
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
		if sock.kind == "inet" && sock.port() == r.port || r.name == FromTLSPol && strings.HasPrefix(sock.name, "QUERY") {
			return r, true
		}
	}
	return rival{}, false
}

// present reports whether a line that could be ours is a rival's: its port and map may
// be the same as ours, so the files of the other tell.
func (p *postfix) present(r rival) bool {
	return r.port != mapDoor.port || p.firstOf(r.signs...) != ""
}

// leave says how the other service is stopped. Where both have one port it must be
// stopped before ours starts.
func (p *postfix) leave(from, item string) {
	i := slices.IndexFunc(rivals, func(r rival) bool { return r.name == from })
	stop := "systemctl disable --now " + rivals[i].service
	if sock, ok := parseSocket(item); ok && sock.port() == rivals[i].port || p.options.KeepLine {
		p.Before = append(p.Before, stop+"   # before postseal starts: both listen there. Mail waits meanwhile")
		return
	}
	p.After = append(p.After, stop)
}

// keepLine leaves the line of the other service, and has us listen where it did.
func (p *postfix) keepLine(sock socket, item string) error {
	ours := map[string]bool{"postfix": false, "query": false, "postfix-tlsrpt": true, "querywithtlsrpt": true}
	modern, known := ours[strings.ToLower(sock.name)]
	switch {
	case !known:
		return refuse("leave out --keep-line", "postseal has no map %q, which %s asks for", sock.name, item)
	case modern && !p.version.has(patterns):
		return refuse("leave out --keep-line", "Postfix %s does not understand the answers of the map %s", p.version, sock.name)
	case !modern && p.version.has(patterns):
		p.warn("with the map %s Postfix %s does not check the names of MX hosts; without --keep-line it would", sock.name, p.version)
	}
	p.kept("smtp_tls_policy_maps: %s, which postseal answers from now on", item)
	p.daemon.use(mapDoor, sock.listen(p.queue), "where "+p.options.From+" listened")
	p.leave(p.options.From, item)
	return nil
}

package doctor

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host/postconf"
)

// postfix is its configuration, as postconf(1) prints it with all defaults.
type postfix struct {
	settings map[string]string
	services []service
	release  postconf.Release
}

// service is a line of master.cf (master(5)).
type service struct {
	name, kind, chroot, command string
	options                     map[string]string // -o
}

func readPostfix(ctx context.Context, m *Machine) (*postfix, error) {
	text, err := m.Output(ctx, "postconf", "-x")
	if err != nil {
		return nil, err
	}
	p := &postfix{settings: postconf.Values(text)}
	if p.release, err = postconf.ParseRelease(p.get("mail_version")); err != nil {
		return nil, fmt.Errorf("postconf prints no mail_version that can be read, but %q", p.get("mail_version"))
	}
	text, err = m.Output(ctx, "postconf", "-M")
	if err != nil {
		return nil, err
	}
	p.services = parseMaster(text)
	return p, nil
}

func parseMaster(text string) []service {
	var list []service
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			if len(fields) < 8 {
				continue
			}
			list = append(list, service{name: fields[0], kind: fields[1], chroot: fields[4], command: fields[7], options: map[string]string{}})
			fields = fields[8:]
		}
		if len(list) == 0 {
			continue
		}
		for i, f := range fields {
			if f == "-o" && i+1 < len(fields) {
				f = fields[i+1]
			} else if f, _ = strings.CutPrefix(f, "-o"); f == fields[i] {
				continue
			}
			if name, value, found := strings.Cut(f, "="); found {
				list[len(list)-1].options[name] = value
			}
		}
	}
	return list
}

func (p *postfix) get(name string) string { return p.settings[name] }

func (p *postfix) service(name, kind string) *service {
	for i := range p.services {
		if s := &p.services[i]; s.name == name && s.kind == kind {
			return s
		}
	}
	return nil
}

// chrooted reports whether any service of this program is.
func (p *postfix) chrooted(command string) bool {
	return slices.ContainsFunc(p.services, func(s service) bool {
		return s.command == command && postconf.Chrooted(s.chroot, p.get("compatibility_level"))
	})
}

// place is a socket as Postfix writes it: "unix:path", relative to the queue directory,
// or "inet:host:port".
type place struct {
	text     string
	endpoint config.Endpoint
	absolute bool // a unix path that a chrooted service does not find
}

func (p *postfix) place(text string) (place, bool) {
	kind, rest, _ := strings.Cut(text, ":")
	switch kind {
	case "unix", "local":
		at := place{text: text, absolute: path.IsAbs(rest), endpoint: config.Endpoint{Network: "unix", Address: path.Clean(rest)}}
		if !at.absolute {
			at.endpoint.Address = path.Join(p.get("queue_directory"), rest)
		}
		return at, rest != ""
	case "inet", "inet6":
		rest = strings.Replace(rest, "localhost:", "127.0.0.1:", 1)
		if host, port, at := strings.Cut(rest, "@"); at { // Sendmail's form, which milters may have
			rest = port + ":" + host
		}
		return place{text: text, endpoint: config.Endpoint{Network: "tcp", Address: rest}}, true
	}
	return place{}, false
}

// listed reports whether one of our listeners is at this place. Paths are compared as
// they are written, then as files: one may lead through a link.
func (e *env) listed(at place, listen config.Listen) bool {
	endpoints, err := listen.Endpoints()
	if err != nil {
		return false
	}
	for _, ours := range endpoints {
		ours.Address = strings.Replace(ours.Address, "localhost:", "127.0.0.1:", 1)
		if at.endpoint == ours || at.endpoint.Network == "unix" && ours.Network == "unix" && e.Machine.same(at.endpoint.Address, ours.Address) {
			return true
		}
	}
	return false
}

// checkPostfix looks at what Postfix needs for any policy, SM-042.
func checkPostfix(_ context.Context, e *env) []Finding {
	p := e.postfix
	if p == nil {
		return nil
	}
	found := []Finding{ok("Postfix " + p.get("mail_version"))}
	switch level := p.get("smtp_tls_security_level"); level {
	case "may", "dane":
	case "", "none":
		if p.get("smtp_use_tls") != "yes" {
			found = append(found, warning("smtp_tls_security_level is not set: mail to domains without a policy goes in clear", "postconf -e 'smtp_tls_security_level = may'; postfix reload"))
		}
	default:
		found = append(found, hint("smtp_tls_security_level is "+level+": mail to domains that have no policy is held to it, and most mail servers' certificates do not pass", "postconf -e 'smtp_tls_security_level = may'; postfix reload"))
	}
	found = append(found, e.postfixAuthorities()...)
	switch {
	case e.Config.Host.DANE && p.get("smtp_dns_support_level") != "dnssec":
		found = append(found, failure("smtp_dns_support_level is not dnssec: mail to domains with DANE waits, or goes unauthenticated", "postconf -e 'smtp_dns_support_level = dnssec'; postfix reload   (or host.dane = false, with a [delivery] that takes such mail)"))
	case !e.Config.Host.DANE && len(e.Config.Delivery.Listen) == 0:
		found = append(found, failure("host.dane is false, and there is no delivery.listen: mail to domains with DANE waits", "host.dane = true, and: postconf -e 'smtp_dns_support_level = dnssec'; or set delivery.listen and transport_maps"))
	}
	return append(found, e.postfixReuse()...)
}

// postfixAuthorities: without them "secure" always fails. smtp(8) reads CAfile before
// its chroot, and looks into CApath after it (postconf(5)).
func (e *env) postfixAuthorities() []Finding {
	p := e.postfix
	const set = "postconf -e 'smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt'; postfix reload"
	file, dir := p.get("smtp_tls_CAfile"), p.get("smtp_tls_CApath")
	switch {
	case file != "":
		return e.store("smtp_tls_CAfile "+file, file, set)
	case dir != "" && p.chrooted("smtp") && !e.Machine.Exists(path.Join(p.get("queue_directory"), dir)):
		return []Finding{failure("smtp(8) is chrooted and does not find smtp_tls_CApath "+dir+": mail to domains with MTA-STS waits", set)}
	case dir != "":
		return e.folder("smtp_tls_CApath "+dir, dir, set)
	case p.get("tls_append_default_CA") == "yes":
		return nil
	}
	return []Finding{failure("neither smtp_tls_CAfile nor smtp_tls_CApath is set: every certificate fails, and mail to domains with MTA-STS waits", set)}
}

func (e *env) postfixReuse() []Finding {
	p := e.postfix
	if p.get("smtp_tls_connection_reuse") != "yes" {
		return nil
	}
	if p.service("tlsproxy", "unix") == nil {
		return []Finding{failure("smtp_tls_connection_reuse is yes, but master.cf has no tlsproxy: all mail with TLS waits", "postconf -e 'smtp_tls_connection_reuse = no'; or: postconf -M tlsproxy/unix='tlsproxy unix - - y - 0 tlsproxy'; postfix reload")}
	}
	return []Finding{hint("smtp_tls_connection_reuse is yes: a connection is used for "+p.get("smtp_connection_reuse_time_limit")+" under the policy that it was made with", "postconf -e 'smtp_tls_connection_reuse = no'; postfix reload   (unless you need it)")}
}

package postfix

import (
	"path"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/host/postconf"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/sidecar"
)

const (
	checksName   = "postseal_milter_header_checks"
	relayPort    = "10026" // in contrib/postfix/master.cf
	relayService = "127.0.0.1:" + relayPort
)

// tagging has the milter tag messages, and Postfix route by the tag.
func (p *planner) tagging() error {
	if !p.options.RequireTLS {
		return nil
	}
	for _, s := range p.wanted(tagSet, p.names()...) {
		switch s.name {
		case "smtpd_milters":
			p.append(s, p.address(milterDoor))
		case "non_smtpd_milters":
			if raw := p.explicit[s.name]; strings.Contains(raw, "$smtpd_milters") || strings.Contains(raw, "${smtpd_milters}") {
				p.Keep("non_smtpd_milters = %s", raw)
				continue
			}
			p.append(s, p.address(milterDoor))
		case "milter_header_checks":
			s.value = "regexp:" + path.Join(p.dir, checksName)
			p.append(s, s.value)
		case "smtp_requiretls_policy":
			p.nativePolicy(s)
		default:
			p.limit(s)
		}
	}
	p.checks = p.atSockets(strings.ReplaceAll(contribFile("milter_header_checks"), "/etc/postfix/"+checksName, path.Join(p.dir, checksName)))
	p.services = append(p.services, p.contribServices("postseal-requiretls/unix", "postseal-relaxed/unix", relayService+"/inet")...)
	p.use(milterDoor, "where Postfix has messages tagged")
	p.use(requireTLSDoor, "where messages go that require TLS")
	p.use(relaxedDoor, "where messages go that say TLS-Required: No")
	p.daemon.Need(sidecar.Key{Table: "delivery", Name: "local_relay", Value: "tcp:127.0.0.1:" + p.relayPort(), Why: "where recipients of your own domains come back to Postfix"})
	for _, name := range []string{"content_filter", "smtpd_proxy_filter"} {
		if v := p.expanded[name]; v != "" {
			p.Warn("%s = %s: the filter must hand mail back to a service with -o smtpd_milters=, or from this machine the header of RFC 8689 counts for anybody", name, v)
		}
	}
	return p.delivering()
}

// nativePolicy is what REQUIRETLS of Postfix 3.11 demands.
func (p *planner) nativePolicy(s setting) {
	switch is := p.explicit[s.name]; {
	case is == "":
		p.set(s)
	case !strings.Contains(is, ":requiretls"):
		p.Keep("smtp_requiretls_policy = %s: postseal's rules for REQUIRETLS do not reach it", is)
	}
}

func (p *planner) relayPort() string {
	if p.options.RelayPort != "" {
		return p.options.RelayPort
	}
	return relayPort
}

// contribServices are services of contrib/postfix/master.cf.
func (p *planner) contribServices(names ...string) []service {
	var all []service
	for _, s := range services() {
		if !slices.Contains(names, s.name) {
			continue
		}
		if p.relayPort() != relayPort {
			s.name = strings.Replace(s.name, relayService, "127.0.0.1:"+p.relayPort(), 1)
			s.entry = strings.Replace(s.entry, relayService, "127.0.0.1:"+p.relayPort(), 1)
		}
		all = append(all, s)
	}
	return all
}

// sessions chooses where it becomes known how sessions went. The log comes first: it
// has a checkpoint, and knows domains that datagrams leave out.
func (p *planner) sessions() error {
	if !p.options.TLSRPT {
		return nil
	}
	// Else the daemon greets by the machine's name, which often has no domain.
	if name := p.greeting(); p.daemon.Config.Delivery.Hostname == "" && strings.Contains(name, ".") {
		p.daemon.Need(sidecar.Key{Table: "delivery", Name: "hostname", Value: name, Why: "the name to greet MX hosts with, where domains in mode testing are probed"})
	}
	l := config.MailLog{Format: "postfix", Path: p.expanded["maillog_file"]}
	if l.Path == "" {
		l.Path = sidecar.FindLog(p.System, "/var/log/mail.log", "/var/log/maillog")
	}
	if !p.options.Direct && l.Path != "" {
		if p.daemon.Config.Reporting.TLSRPTSocket != "" {
			l.Sessions = "missing"
		}
		p.daemon.CountFrom(p.Plan, l)
		return nil
	}
	if !p.version.Has(postconf.Patterns) {
		return setup.Refuse("name the log in [[reporting.log]] of postseal.toml", "Postfix %s cannot report sessions by itself (that came with 3.10), and no log was found", p.version)
	}
	for _, s := range p.wanted(datagramSet, "main_tlsrpt.cf") {
		if s.name == "smtp_tlsrpt_enable" {
			s.why = "Postfix reports its sessions by itself" // there its comment is the file's
		}
		if p.expanded[s.name] != s.value {
			p.set(s)
		}
	}
	p.folder()
	p.daemon.Need(sidecar.Key{Table: "reporting", Name: "tlsrpt_socket", Value: "unix:" + path.Join(p.queue, "postseal/tlsrpt.sock"), Why: "where Postfix reports its sessions"})
	p.daemon.Need(sidecar.Key{Table: "reporting", Name: "group", Value: "postfix", Why: "lets Postfix in"})
	p.Warn("datagrams need a Postfix that was built with libtlsrpt, as Debian's is from 13 on; and set the sysctl net.unix.max_dgram_qlen to 512")
	if l.Path != "" {
		l.Sessions = "missing"
		p.daemon.CountFrom(p.Plan, l)
	}
	return nil
}

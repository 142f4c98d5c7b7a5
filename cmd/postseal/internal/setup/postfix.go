package setup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Options are those of every mail server.
type Options struct {
	Config string // postseal.toml; "": the default
	Dir    string // the mail server's configuration folder; "": where it says itself
	DANE   string // DANEAuto, DANEYes or DANENo
	TLSRPT bool   // count sessions, from the log if there is one
	Direct bool   // from what Postfix or Exim says by itself instead, with TLSRPT
}

// PostfixOptions say what Postfix shall do beyond asking for policies.
type PostfixOptions struct {
	Options
	Fallback   bool   // hand over what it cannot do itself
	RequireTLS bool   // tag messages for REQUIRETLS and TLS-Required: No
	Unix       bool   // sockets below the queue folder, in place of loopback
	From       string // the policy service that is replaced; "": none
	KeepLine   bool   // and its line stays, since we listen where it did
	RelayPort  string // of the service that takes local recipients back; "": that of contrib
}

// postfix is what is known of the Postfix at hand while a plan is made.
type postfix struct {
	*System
	*Plan
	options PostfixOptions

	dir     string // of the configuration
	queue   string
	version release
	daemon  *daemonFile
	explicit,
	expanded map[string]string // main.cf; and what it comes to

	settings []setting // to be made
	services []service
	checks   string // milter_header_checks, "" if it is not needed
	knowsTLS bool
}

// Postfix makes the plan for Postfix.
func (s *System) Postfix(ctx context.Context, o PostfixOptions) (*Plan, error) {
	p := &postfix{System: s, Plan: &Plan{MTA: "postfix"}, options: o}
	var err error
	if p.daemon, err = s.daemonFile(o.Config); err != nil {
		return nil, err
	}
	if err := p.look(ctx); err != nil {
		return nil, err
	}
	dane, err := s.dane(ctx, p.Plan, o.DANE, true)
	if err != nil {
		return nil, err
	}
	p.daemon.need(key{table: "host", name: "dane", value: dane, must: true, why: "whether Postfix can do DANE itself"})
	for _, step := range []func() error{
		func() error { return p.policies(dane) }, p.routing, p.tagging, p.sessions,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if err := p.overruled(ctx); err != nil {
		return nil, err
	}
	if err := p.stage(ctx); err != nil {
		return nil, err
	}
	p.commands()
	return p.Plan, nil
}

// look asks postconf what there is.
func (p *postfix) look(ctx context.Context) error {
	version, err := p.postconf(ctx, "-d", "-h", "mail_version")
	if err != nil {
		if errors.Is(err, errNoProgram) {
			return refuse("postconf comes with Postfix; name its root with --root if that is elsewhere", "there is no Postfix: %v", err)
		}
		return err
	}
	if p.version, err = parseRelease(version); err != nil {
		return err
	}
	if p.expanded, err = p.values(ctx, "-x"); err != nil {
		return err
	}
	if p.explicit, err = p.values(ctx, "-n"); err != nil {
		return err
	}
	if p.dir = p.options.Dir; p.dir == "" {
		p.dir = p.expanded["config_directory"]
	}
	p.queue = p.expanded["queue_directory"]
	tls, err := p.postconf(ctx, "-T", "compile-version")
	p.knowsTLS = err == nil && tls != ""
	chroot, err := p.postconf(ctx, "-F", "-h", "smtp/unix/chroot")
	if err != nil {
		return err
	}
	p.found("Postfix %s in %s", version, p.dir)
	if p.knowsTLS {
		p.found("TLS by %s", tls)
	}
	if p.chrooted(chroot) {
		p.found("smtp(8) is chrooted in %s; inet sockets need nothing there", p.queue)
		p.staleCopy()
	}
	if relay := p.expanded["relayhost"]; relay != "" {
		p.found("relayhost = %s: mail goes there, and the policy of that host is asked for", relay)
	}
	return p.refusals(version)
}

// overruled warns of services in master.cf that do not see what main.cf says.
func (p *postfix) overruled(ctx context.Context) error {
	options, err := p.values(ctx, "-P")
	if err != nil {
		return err
	}
	names := []string{"smtp_tls_policy_maps", "smtp_tls_security_level", "smtp_dns_support_level"}
	if p.options.RequireTLS {
		names = append(names, "smtpd_milters", "non_smtpd_milters", "milter_header_checks")
	}
	for _, option := range slices.Sorted(maps.Keys(options)) {
		at := strings.LastIndexByte(option, '/')
		if at > 0 && slices.Contains(names, option[at+1:]) && !strings.HasPrefix(options[option[:at]+"/syslog_name"], "postfix/postseal") {
			p.warn("master.cf: the service %s has -o %s=%s, so what main.cf says there is not for it", option[:at], option[at+1:], options[option])
		}
	}
	return nil
}

// chrooted reads the column of master.cf, whose default changed with Postfix 3.0.
func (p *postfix) chrooted(column string) bool {
	return column == "y" || column == "-" && strings.HasPrefix(p.expanded["compatibility_level"], "0")
}

// staleCopy says if the chroot has another resolv.conf.
func (p *postfix) staleCopy() {
	ours, _, err := p.read(resolvConf)
	copied, exists, err2 := p.read(path.Join(p.queue, resolvConf))
	if err == nil && err2 == nil && exists && string(ours) != string(copied) {
		p.After = append(p.After, "systemctl restart postfix   # "+path.Join(p.queue, resolvConf)+" differs from "+resolvConf)
	}
}

// refusals are what is not understood.
func (p *postfix) refusals(version string) error {
	switch {
	case !p.version.has(oldest):
		return refuse("", "Postfix %s is too old: before 3.4 it does not know the attribute servername, and holds mail over it", version)
	case !p.knowsTLS:
		return refuse("", "this Postfix was built without TLS")
	case p.expanded["multi_instance_directories"] != "" && p.options.Dir == "":
		return refuse("name the configuration folder of the one that sends mail out, with --config-dir",
			"there are several instances of Postfix (multi_instance_directories = %s)", p.expanded["multi_instance_directories"])
	}
	if p.version.major > native.major || p.version.major == native.major && p.version.minor > native.minor {
		p.warn("Postfix %s is newer than all that were tried, and is told what %s understands. Should it hold mail over an unknown attribute, use the map postfix", version, native)
	}
	if p.version.snapshot && !p.version.has(patterns) && p.version.minor == patterns.minor {
		p.warn("Postfix %s is a snapshot from before 3.10, so it is told what 3.9 understands", version)
	}
	return nil
}

// postconf runs postconf(1) for this instance.
func (p *postfix) postconf(ctx context.Context, args ...string) (string, error) {
	argv := []string{"postconf"}
	if p.options.Dir != "" {
		argv = append(argv, "-c", p.options.Dir)
	}
	out, err := p.run(ctx, append(argv, args...)...)
	return strings.TrimSpace(out), err
}

// values reads "name = value" lines.
func (p *postfix) values(ctx context.Context, args ...string) (map[string]string, error) {
	out, err := p.postconf(ctx, args...)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(line, "="); ok {
			all[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return all, nil
}

// names are the files of contrib/postfix for this version. They also choose the map
// whose answers it understands: an attribute that it does not know would hold the mail.
func (p *postfix) names() []string {
	names := []string{"main.cf"}
	if p.version.has(patterns) {
		names = append(names, "main_3.10.cf")
	}
	if p.version.has(native) {
		names = append(names, "main_3.11.cf")
	}
	return names
}

// wanted are the settings of a set, for the sockets at hand.
func (p *postfix) wanted(set []string, names ...string) []setting {
	var all []setting
	for _, s := range settings(names...) {
		if slices.Contains(set, s.name) {
			s.value = p.atSockets(s.value)
			all = append(all, s)
		}
	}
	return all
}

// set makes a setting.
func (p *postfix) set(s setting) { p.settings = append(p.settings, s) }

// append puts an item behind what a list has, unless it has it, seen by mark.
func (p *postfix) append(s setting, mark string) {
	if contains(p.expanded[s.name], mark) {
		return
	}
	if has := p.explicit[s.name]; has != "" {
		s.value = has + ", " + s.value
		s.why += "; yours go first"
	}
	p.set(s)
}

// contains looks for an address that does not go on.
func contains(list, mark string) bool {
	for rest := list; ; {
		_, behind, found := strings.Cut(rest, mark)
		if !found {
			return false
		}
		if behind == "" || !strings.ContainsAny(behind[:1], "0123456789abcdefghijklmnopqrstuvwxyz-_./:") {
			return true
		}
		rest = behind
	}
}

// policies is what every set-up has.
func (p *postfix) policies(dane bool) error {
	for _, s := range p.wanted(policySet, p.names()...) {
		is := p.expanded[s.name]
		switch s.name {
		case "smtp_tls_policy_maps":
			if err := p.policyMaps(s); err != nil {
				return err
			}
			continue
		case "smtp_dns_support_level":
			if !dane {
				if !p.options.Fallback {
					p.warn("Postfix does no DANE itself: if postseal's own resolver validates, mail to domains with DANE waits; --fallback has postseal deliver it")
				}
				if is == s.value {
					p.kept("smtp_dns_support_level = dnssec, though DANE by Postfix itself does not work: host.dane = false has postseal do it")
				}
				continue
			}
		case "smtp_tls_security_level":
			if is != "" && is != "none" {
				p.kept("smtp_tls_security_level = %s, for destinations without a policy", is)
				continue
			}
		case "smtp_tls_loglevel":
			if is != "" && is != "0" {
				continue
			}
		case "smtp_tls_CAfile":
			if is != "" {
				p.kept("smtp_tls_CAfile = %s: MTA-STS trusts whom it names", is)
				continue
			}
			if s.value = p.authorities(s.value); s.value == "" {
				p.warn("no file of certificate authorities was found; without smtp_tls_CAfile all mail to domains with MTA-STS enforce waits")
				continue
			}
		}
		if is != s.value {
			p.set(s)
		}
	}
	return nil
}

// authorities is the file of all certificate authorities: Debian's, Red Hat's, BSDs'.
func (p *postfix) authorities(debian string) string {
	return p.firstOf(debian, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem", "/usr/local/share/certs/ca-root-nss.crt")
}

// routing sends to the fallback what Postfix cannot do.
func (p *postfix) routing() error {
	if !p.options.Fallback {
		return nil
	}
	for _, s := range p.wanted(routingSet, p.names()...) {
		if s.name == "transport_maps" {
			p.append(s, s.value)
			continue
		}
		p.limit(s)
	}
	p.services = append(p.services, p.contribServices("postseal/unix")...)
	p.use(deliveryDoor, "where Postfix hands over what it cannot do itself")
	p.daemon.need(key{table: "delivery", name: "nexthop", value: p.nextHop(), must: true, why: "how Postfix reaches delivery.listen"})
	return p.delivering()
}

// limit sets a limit of a transport of ours, unless the administrator has.
func (p *postfix) limit(s setting) {
	is, ok := p.explicit[s.name]
	switch {
	case !ok:
		p.set(s)
	case is != s.value:
		p.kept("%s = %s", s.name, is)
	}
}

// delivering is what both uses of the fallback need of the daemon.
func (p *postfix) delivering() error {
	p.daemon.need(key{table: "delivery", name: "hostname", value: p.greeting(), must: true, why: "the name that Postfix greets others with"})
	local, tables := p.localDomains()
	p.daemon.need(key{table: "delivery", name: "local_domains", value: local, also: true,
		why: "tagged mail to a domain of your own that is missing here bounces"})
	for _, t := range tables {
		p.warn("your own domains that stand in %s must be added to delivery.local_domains by hand: tagged mail to one that is missing bounces", t)
	}
	return nil
}

func (p *postfix) greeting() string {
	if name := p.expanded["smtp_helo_name"]; name != "" {
		return name
	}
	return p.expanded["myhostname"]
}

// localDomains are the domains that Postfix is the destination of, and the tables that
// have more.
func (p *postfix) localDomains() (domains, tables []string) {
	for _, name := range []string{"mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains"} {
		for _, item := range splitList(p.expanded[name]) {
			switch {
			case strings.ContainsAny(item, ":/"):
				tables = append(tables, fmt.Sprintf("%s (%s)", item, name))
			case strings.ContainsAny(item, "{}$!") || !strings.Contains(item, "."): // localhost: no mail domain
			case !slices.Contains(domains, item):
				domains = append(domains, item)
			}
		}
	}
	if domains == nil {
		domains = []string{}
	}
	return domains, tables
}

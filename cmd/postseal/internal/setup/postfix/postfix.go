// Package postfix plans what Postfix 3.4 and later needs so that it asks postseal, and
// moves it over from another policy service.
//
// What is there is asked of postconf(1), and what is wanted stands in contrib/postfix,
// which is part of the program: the files for this version are read, their variables and
// sockets put in, and each setting weighed against the administrator's. A list such as
// smtp_tls_policy_maps or smtpd_milters keeps what it has, and ours goes behind it. The
// new main.cf and master.cf are made by postconf -e and -M in copies, so that nothing of
// Postfix's syntax is written by us.
//
// Sources: postconf(5), master(5), socketmap_table(5), MILTER_README, contrib/postfix/README.md.
package postfix

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/host/postconf"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/sidecar"
)

// Options say what Postfix shall do beyond asking for policies.
type Options struct {
	setup.Options
	Fallback   bool   // hand over what it cannot do itself
	RequireTLS bool   // tag messages for REQUIRETLS and TLS-Required: No
	Unix       bool   // sockets below the queue folder, in place of loopback
	From       string // the policy service that is replaced; "": none
	KeepLine   bool   // and its line stays, since we listen where it did
	RelayPort  string // of the service that takes local recipients back; "": that of contrib
}

// planner is what is known of the Postfix at hand while a plan is made.
type planner struct {
	*host.System
	*setup.Plan
	options Options

	dir     string // of the configuration
	queue   string
	version postconf.Release
	daemon  *sidecar.File
	explicit,
	expanded map[string]string // main.cf; and what it comes to

	settings []setting // to be made
	services []service
	checks   string // milter_header_checks, "" if it is not needed
	knowsTLS bool
}

// Plan makes the plan for Postfix. The error is a [setup.Refusal] where what is there is
// not understood.
func Plan(ctx context.Context, s *host.System, o Options) (*setup.Plan, error) {
	p := &planner{System: s, Plan: &setup.Plan{MTA: "postfix"}, options: o}
	var err error
	if p.daemon, err = sidecar.Open(s, o.Config); err != nil {
		return nil, err
	}
	if err := p.look(ctx); err != nil {
		return nil, err
	}
	dane, err := p.DANE(ctx, s, p.daemon.Config, o.Options, true)
	if err != nil {
		return nil, err
	}
	p.daemon.Need(sidecar.Key{Table: "host", Name: "dane", Value: dane, Must: true, Why: "whether Postfix can do DANE itself"})
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
func (p *planner) look(ctx context.Context) error {
	version, err := p.postconf(ctx, "-d", "-h", "mail_version")
	if err != nil {
		if errors.Is(err, host.ErrNoProgram) {
			return setup.Refuse("postconf comes with Postfix; name its root with --root if that is elsewhere", "there is no Postfix: %v", err)
		}
		return err
	}
	if p.version, err = postconf.ParseRelease(version); err != nil {
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
	p.Saw("Postfix %s in %s", version, p.dir)
	if p.knowsTLS {
		p.Saw("TLS by %s", tls)
	}
	if postconf.Chrooted(chroot, p.expanded["compatibility_level"]) {
		p.Saw("smtp(8) is chrooted in %s; inet sockets need nothing there", p.queue)
		p.staleCopy()
	}
	if relay := p.expanded["relayhost"]; relay != "" {
		p.Saw("relayhost = %s: mail goes there, and the policy of that host is asked for", relay)
	}
	return p.refusals(version)
}

// overruled warns of services in master.cf that do not see what main.cf says.
func (p *planner) overruled(ctx context.Context) error {
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
			p.Warn("master.cf: the service %s has -o %s=%s, so what main.cf says there is not for it", option[:at], option[at+1:], options[option])
		}
	}
	return nil
}

// staleCopy says if the chroot has another resolv.conf.
func (p *planner) staleCopy() {
	inside := path.Join(p.queue, host.ResolvConfFile)
	ours, _, err := p.Lookup(host.ResolvConfFile)
	copied, err2 := p.Read(inside)
	if err == nil && err2 == nil && string(ours) != string(copied) {
		p.After = append(p.After, "systemctl restart postfix   # "+inside+" differs from "+host.ResolvConfFile)
	}
}

// refusals are what is not understood.
func (p *planner) refusals(version string) error {
	switch {
	case !p.version.Has(postconf.Oldest):
		return setup.Refuse("", "Postfix %s is too old: before 3.4 it does not know the attribute servername, and holds mail over it", version)
	case !p.knowsTLS:
		return setup.Refuse("", "this Postfix was built without TLS")
	case p.expanded["multi_instance_directories"] != "" && p.options.Dir == "":
		return setup.Refuse("name the configuration folder of the one that sends mail out, with --config-dir",
			"there are several instances of Postfix (multi_instance_directories = %s)", p.expanded["multi_instance_directories"])
	}
	if p.version.After(postconf.Native) {
		p.Warn("Postfix %s is newer than all that were tried, and is told what %s understands. Should it hold mail over an unknown attribute, use the map postfix", version, postconf.Native)
	}
	if p.version.Snapshot && !p.version.Has(postconf.Patterns) && p.version.Minor == postconf.Patterns.Minor {
		p.Warn("Postfix %s is a snapshot from before 3.10, so it is told what 3.9 understands", version)
	}
	return nil
}

// postconf runs postconf(1) for this instance.
func (p *planner) postconf(ctx context.Context, args ...string) (string, error) {
	argv := []string{"postconf"}
	if p.options.Dir != "" {
		argv = append(argv, "-c", p.options.Dir)
	}
	out, err := p.Output(ctx, append(argv, args...)...)
	return strings.TrimSpace(out), err
}

// values reads "name = value" lines.
func (p *planner) values(ctx context.Context, args ...string) (map[string]string, error) {
	out, err := p.postconf(ctx, args...)
	return postconf.Values(out), err
}

// names are the files of contrib/postfix for this version. They also choose the map
// whose answers it understands: an attribute that it does not know would hold the mail.
func (p *planner) names() []string {
	names := []string{"main.cf"}
	if p.version.Has(postconf.Patterns) {
		names = append(names, "main_3.10.cf")
	}
	if p.version.Has(postconf.Native) {
		names = append(names, "main_3.11.cf")
	}
	return names
}

// wanted are the settings of a set, for the sockets at hand.
func (p *planner) wanted(set []string, names ...string) []setting {
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
func (p *planner) set(s setting) { p.settings = append(p.settings, s) }

// append puts an item behind what a list has, unless it has it, seen by mark.
func (p *planner) append(s setting, mark string) {
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
func (p *planner) policies(dane bool) error {
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
					p.Warn("Postfix does no DANE itself: if postseal's own resolver validates, mail to domains with DANE waits; --fallback has postseal deliver it")
				}
				if is == s.value {
					p.Keep("smtp_dns_support_level = dnssec, though DANE by Postfix itself does not work: host.dane = false has postseal do it")
				}
				continue
			}
		case "smtp_tls_security_level":
			if is != "" && is != "none" {
				p.Keep("smtp_tls_security_level = %s, for destinations without a policy", is)
				continue
			}
		case "smtp_tls_loglevel":
			if is != "" && is != "0" {
				continue
			}
		case "smtp_tls_CAfile":
			if is != "" {
				p.Keep("smtp_tls_CAfile = %s: MTA-STS trusts whom it names", is)
				continue
			}
			if s.value = p.FirstOf(host.Authorities()...); s.value == "" {
				p.Warn("no file of certificate authorities was found; without smtp_tls_CAfile all mail to domains with MTA-STS enforce waits")
				continue
			}
		}
		if is != s.value {
			p.set(s)
		}
	}
	return nil
}

// routing sends to the fallback what Postfix cannot do.
func (p *planner) routing() error {
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
	p.daemon.Need(sidecar.Key{Table: "delivery", Name: "nexthop", Value: p.nextHop(), Must: true, Why: "how Postfix reaches delivery.listen"})
	return p.delivering()
}

// limit sets a limit of a transport of ours, unless the administrator has.
func (p *planner) limit(s setting) {
	is, ok := p.explicit[s.name]
	switch {
	case !ok:
		p.set(s)
	case is != s.value:
		p.Keep("%s = %s", s.name, is)
	}
}

// delivering is what both uses of the fallback need of the daemon.
func (p *planner) delivering() error {
	p.daemon.Need(sidecar.Key{Table: "delivery", Name: "hostname", Value: p.greeting(), Must: true, Why: "the name that Postfix greets others with"})
	local, tables := p.localDomains()
	p.daemon.Need(sidecar.Key{Table: "delivery", Name: "local_domains", Value: local, Also: true,
		Why: "tagged mail to a domain of your own that is missing here bounces"})
	for _, t := range tables {
		p.Warn("your own domains that stand in %s must be added to delivery.local_domains by hand: tagged mail to one that is missing bounces", t)
	}
	return nil
}

func (p *planner) greeting() string {
	if name := p.expanded["smtp_helo_name"]; name != "" {
		return name
	}
	return p.expanded["myhostname"]
}

// localDomains are the domains that Postfix is the destination of, and the tables that
// have more.
func (p *planner) localDomains() (domains, tables []string) {
	for _, name := range []string{"mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains"} {
		for _, item := range postconf.List(p.expanded[name]) {
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

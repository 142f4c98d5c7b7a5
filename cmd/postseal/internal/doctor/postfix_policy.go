package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/host/postconf"
)

// socketmap is one "socketmap:place:name" of a list of maps (socketmap_table(5)).
type socketmap struct {
	place
	name   string
	proxy  bool
	others []string // maps that are asked before it
}

// socketmaps finds those in a setting; braces are of inline maps.
func (p *postfix) socketmaps(setting string) []socketmap {
	var all []socketmap
	var before []string
	for _, item := range postconf.List(p.get(setting)) {
		m, is := postconf.ParseSocketmap(item)
		at, good := p.place(m.Kind + ":" + m.Address)
		if !is || !good {
			before = append(before, item)
			continue
		}
		all = append(all, socketmap{at, m.Name, m.Proxied, slices.Clone(before)})
	}
	return all
}

// suggestMap is our map as this Postfix would write it.
func (e *env) suggestMap(name string) string {
	at := "inet:127.0.0.1:8461"
	if listen := e.Config.Socketmap.Listen; len(listen) > 0 {
		at = e.postfixPlace(listen[0])
	}
	return "socketmap:" + at + ":" + name
}

// dialect is the map for this version: an attribute that a Postfix does not know makes
// it defer all mail to the domain, and only 3.10 can check the names of MX hosts.
func (p *postfix) dialect() string {
	if p.release.Has(postconf.Patterns) {
		return "postfix-tlsrpt"
	}
	return "postfix"
}

// checkPostfixPolicy looks at whether Postfix asks us, where, and in which dialect.
func checkPostfixPolicy(_ context.Context, e *env) []Finding {
	p := e.postfix
	if p == nil {
		return nil
	}
	const setting = "smtp_tls_policy_maps"
	set := fmt.Sprintf("postconf -e '%s = %s'; postfix reload", setting, e.suggestMap(p.dialect()))
	maps := p.socketmaps(setting)
	if len(maps) == 0 {
		return []Finding{failure("Postfix does not ask postseal: "+setting+" has no socketmap", set)}
	}
	i := slices.IndexFunc(maps, func(m socketmap) bool { return e.listed(m.place, e.Config.Socketmap.Listen) })
	if i < 0 {
		return []Finding{failure(fmt.Sprintf("Postfix asks at %s, but postseal listens at %s (socketmap.listen)", maps[0].text, strings.Join(e.Config.Socketmap.Listen, ", ")), set)}
	}
	m := maps[i]
	found := e.dialectOf(m, set)
	found = append(found, e.inChroot(m, setting, "smtp")...)
	if len(m.others) > 0 {
		found = append(found, hint(setting+" asks "+strings.Join(m.others, ", ")+" before postseal: what stands there is not looked up any more", "put the rules into: postseal override set DOMAIN ...; or leave it so, if you mean it"))
	}
	for _, s := range p.services {
		if maps, set := s.options[setting]; set && s.command == "smtp" && !strings.Contains(maps, "socketmap:") && s.name != "relaxed-smtp" {
			found = append(found, hint(fmt.Sprintf("the service %s of master.cf has a %s of its own, without postseal: %q", s.name, setting, maps), "postconf -P "+s.name+"/unix/"+setting+"   (remove it, unless it is meant)"))
		}
	}
	if len(found) == 0 {
		found = append(found, ok("Postfix asks postseal at "+m.text+", map "+m.name))
	}
	return found
}

func (e *env) dialectOf(m socketmap, set string) []Finding {
	p := e.postfix
	recent, known := postconf.Dialect(m.name)
	switch {
	case !p.release.Has(postconf.Oldest):
		return []Finding{failure("Postfix "+p.get("mail_version")+" does not know servername=, which every policy has: such mail waits; 3.4 is the first that does", "upgrade Postfix")}
	case recent && !p.release.Has(postconf.Patterns):
		return []Finding{failure(fmt.Sprintf("map %s is for Postfix 3.10 and later, this is %s: mail to domains with MTA-STS waits", m.name, p.get("mail_version")), set)}
	case known && !recent && p.release.Has(postconf.Patterns):
		return []Finding{warning(fmt.Sprintf("map %s is for Postfix before 3.10: this one, %s, could check the names of MX hosts, too (RFC 8461 §4.1)", m.name, p.get("mail_version")), set)}
	case !known:
		return []Finding{failure("map "+m.name+" is no map of TLS policies", set)}
	}
	return nil
}

// inChroot: an absolute path is not found by a chrooted service. proxymap(8) is not
// chrooted as a rule.
func (e *env) inChroot(m socketmap, setting, command string) []Finding {
	if !m.absolute || m.proxy || !e.postfix.chrooted(command) {
		return nil
	}
	queue := e.postfix.get("queue_directory") + "/"
	path, inside := strings.CutPrefix(m.endpoint.Address, queue)
	do := fmt.Sprintf("postconf -e '%s = socketmap:unix:%s:%s'; postfix reload", setting, path, m.name)
	if !inside {
		do = "a socket below " + queue + " in socketmap.listen, and in main.cf its path without that, as unix:postseal/map.sock"
	}
	return []Finding{failure(fmt.Sprintf("%s has the absolute path %s, which a chrooted %s(8) does not find: all mail waits", setting, m.endpoint.Address, command), do)}
}

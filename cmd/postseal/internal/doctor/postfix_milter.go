package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"postseal/cmd/postseal/internal/host/postconf"
)

// milters are the places that a setting names, with default_action where it has one.
func (p *postfix) milters(setting string) (places []place, actions []string) {
	for _, item := range postconf.List(p.get(setting)) {
		action := p.get("milter_default_action")
		if inner, braced := strings.CutPrefix(item, "{"); braced {
			words := postconf.List(strings.TrimSuffix(inner, "}"))
			for _, w := range words {
				if a, is := strings.CutPrefix(w, "default_action="); is {
					action = a
				}
			}
			if len(words) > 0 {
				item = words[0]
			}
		}
		if at, good := p.place(item); good {
			places, actions = append(places, at), append(actions, action)
		}
	}
	return places, actions
}

// checkPostfixMilter looks at both halves of tagging: the milter, and what follows the tag.
func checkPostfixMilter(_ context.Context, e *env) []Finding {
	p := e.postfix
	if p == nil {
		return nil
	}
	listen := e.Config.Milter.Listen
	places, actions := p.milters("smtpd_milters")
	i := slices.IndexFunc(places, func(at place) bool { return e.listed(at, listen) })
	if len(listen) == 0 {
		for _, at := range places {
			if strings.Contains(at.text, "postseal") || strings.HasSuffix(at.text, ":8462") {
				return []Finding{failure("smtpd_milters names "+at.text+", but milter.listen is not set: mail is refused for now, or goes untagged", "milter.listen in "+e.file()+"; or take it out of smtpd_milters")}
			}
		}
		return nil
	}
	if i < 0 {
		return []Finding{warning("milter.listen is set, but smtpd_milters does not name it: no message is tagged", "add "+e.postfixPlace(listen[0])+" at the end of smtpd_milters; postfix reload")}
	}
	found := []Finding{}
	if actions[i] == "accept" {
		found = append(found, warning("while the milter is down mail is accepted untagged, also what must travel over TLS only (milter_default_action = accept)", fmt.Sprintf("smtpd_milters = { %s, default_action=tempfail }", places[i].text)))
	}
	if i < len(places)-1 {
		found = append(found, warning("another milter comes after postseal's: it can sign or remove the tag", "put "+places[i].text+" at the end of smtpd_milters"))
	}
	if places[i].absolute && p.chrooted("smtpd") {
		found = append(found, failure("smtpd_milters has the absolute path "+places[i].endpoint.Address+", which a chrooted smtpd(8) does not find", "a path relative to "+p.get("queue_directory")+", such as unix:postseal/milter.sock"))
	}
	other, _ := p.milters("non_smtpd_milters")
	if !slices.ContainsFunc(other, func(at place) bool { return e.listed(at, listen) }) {
		found = append(found, warning("non_smtpd_milters does not name the milter: mail from sendmail(1) is never tagged", "postconf -e 'non_smtpd_milters = $smtpd_milters'; postfix reload"))
	}
	found = append(found, e.afterTag()...)
	found = append(found, e.proxyFilter()...)
	if len(found) == 0 {
		found = append(found, ok("Postfix asks the milter at "+places[i].text))
	}
	return found
}

// postfixPlace is one of our listeners as main.cf writes it.
func (e *env) postfixPlace(listener string) string {
	if path, inside := strings.CutPrefix(listener, "unix:"+e.postfix.get("queue_directory")+"/"); inside {
		return "unix:" + path
	}
	if address, tcp := strings.CutPrefix(listener, "tcp:"); tcp {
		return "inet:" + address
	}
	return listener
}

// afterTag: a tag that nothing acts on changes nothing.
func (e *env) afterTag() []Finding {
	p := e.postfix
	if e.Config.Milter.Route != "header" {
		return []Finding{failure("milter.route is "+e.Config.Milter.Route+", but Postfix routes by a header", `milter.route = "header"`)}
	}
	if p.get("milter_header_checks") == "" {
		return []Finding{failure("the milter tags messages, but milter_header_checks is not set: the tags route nothing", "copy contrib's milter_header_checks; postconf -e 'milter_header_checks = regexp:/etc/postfix/postseal_milter_header_checks'; postfix reload")}
	}
	var missing []string
	for _, s := range []struct {
		name   string
		needed bool
	}{{"postseal-requiretls", len(e.Config.Delivery.RequireTLSListen) > 0}, {"postseal-relaxed", len(e.Config.Delivery.RelaxedListen) > 0}} {
		if s.needed && p.service(s.name, "unix") == nil {
			missing = append(missing, s.name)
		}
	}
	if len(missing) > 0 {
		return []Finding{warning("master.cf has no service "+strings.Join(missing, " or ")+", by the names of our sample", "add the lines of contrib's master.cf; postfix reload   (or nothing, if your milter_header_checks name services of your own)")}
	}
	return nil
}

// proxyFilter: before a proxy filter smtpd(8) hands no headers to milters, MIL-034
// (MILTER_README, Limitations).
func (e *env) proxyFilter() []Finding {
	p := e.postfix
	at := []string{}
	if p.get("smtpd_proxy_filter") != "" {
		at = append(at, "main.cf")
	}
	for _, s := range p.services {
		if s.command != "smtpd" || s.options["smtpd_proxy_filter"] == "" {
			continue
		}
		if milters, set := s.options["smtpd_milters"]; !set || milters != "" {
			at = append(at, "the service "+s.name+" of master.cf")
		}
	}
	if len(at) == 0 {
		return nil
	}
	return []Finding{warning("smtpd_proxy_filter is set in "+strings.Join(at, ", ")+": there the milter sees no headers, so TLS-Required: No and Require-TLS-ESMTP are not seen, and no tag is added",
		"smtpd_milters on the smtpd behind the filter, and -o smtpd_milters= on the one before it; or content_filter in place of smtpd_proxy_filter")}
}

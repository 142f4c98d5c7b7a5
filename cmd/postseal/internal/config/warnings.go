package config

import (
	"fmt"
	"slices"
	"strings"
)

// Exposed are the listeners that other machines may reach, by the words of the
// configuration: there is no authentication in these protocols.
func (c *Config) Exposed() []string {
	var list []string
	for _, s := range c.Sections() {
		endpoints, err := s.Listen.Endpoints()
		if err != nil { // checked before
			continue
		}
		for _, e := range endpoints {
			if e.Exposed() {
				list = append(list, e.String())
			}
		}
	}
	return list
}

// Warnings are settings that are possible but hardly meant, in words.
func (c *Config) Warnings() []string {
	var list []string
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	d := &c.Delivery
	if len(c.Milter.Listen) > 0 && len(d.RequireTLSListen) == 0 {
		warn("milter.listen is set, but delivery.requiretls_listen is not: messages that require TLS have nowhere to go")
	}
	if len(c.Milter.Listen) > 0 && len(d.RelaxedListen) == 0 {
		warn("milter.listen is set, but delivery.relaxed_listen is not: messages with TLS-Required: No have nowhere to go")
	}
	if c.Delivers() && len(c.Milter.Listen) > 0 && len(d.LocalDomains) == 0 {
		warn("milter.listen is set, but delivery.local_domains is not: tagged messages to the mail server's own domains are refused as a loop")
	}
	if c.Delivers() && len(d.Listen) == 0 && len(d.For) > 0 {
		warn("delivery.for sends mail to delivery.nexthop, but delivery.listen is not set: mail that a map routes there waits; if none is meant to, say for = []")
	}
	if c.Delivers() && len(d.LocalDomains) > 0 && d.LocalRelay == "" {
		warn("delivery.local_domains is set, but delivery.local_relay is not: local recipients of tagged messages wait")
	}
	if d.LocalRelay != "" && len(d.LocalDomains) == 0 {
		warn("delivery.local_relay is set, but delivery.local_domains is empty")
	}
	relay, _ := ParseEndpoint(d.LocalRelay) // as checked; zero if there is none
	for _, s := range c.Sections() {
		if endpoints, err := s.Listen.Endpoints(); err == nil && slices.Contains(endpoints, relay) {
			warn("delivery.local_relay is our own %s, and not a listener of the mail server: local recipients of tagged messages wait", s.Key)
		}
	}
	r := &c.Reporting
	if r.EximEvents && len(c.Exim.Listen) == 0 {
		warn("reporting.exim_events is true, but exim.listen is not set: no event can come in")
	}
	for _, l := range r.Logs {
		beside := func(o MailLog) bool { return o.Path == Journal && o.Format == l.Format }
		if l.Path != Journal && slices.ContainsFunc(r.Logs, beside) {
			warn("reporting.log has both %s and the journal as logs of %s: each session counts twice, unless they are of two mail servers", l.Path, l.Format)
		}
	}
	if r.Contact != "" && !c.Records() {
		warn("reporting.contact is set, but there is no source of sessions, such as [[reporting.log]]: no reports are sent")
	}
	for _, k := range r.DKIM {
		if sender := c.ReportFrom(); k.Domain != "" && !strings.HasSuffix("."+domainOf(sender), "."+strings.ToLower(k.Domain)) {
			warn("reporting.dkim: a signature of %s is not one of the sender %s: receivers refuse such reports", k.Domain, sender)
		}
	}
	if r.Contact == "" && (r.Organization != "" || r.From != "" || len(r.DKIM) > 0) {
		warn("reporting.contact is not set: no reports are sent")
	}
	return list
}

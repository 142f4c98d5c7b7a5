package main

import (
	"context"
	"fmt"
	"strings"
)

// exim: Exim 4.96 with contrib/exim. It does DANE and MTA-STS by itself, in mixed sets
// host by host; where TLSA records are unusable, and when they are tagged, messages go
// out through the daemon.
func (l *lab) exim(ctx context.Context) error {
	o, err := newExim(ctx, l)
	if err != nil {
		return err
	}
	defer o.stop()
	for _, c := range eximChapters {
		to, err := l.follow(ctx, o, c.name, c.mail, c.fates)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		for i, f := range c.fates {
			if c.name == "requiretls" && f.status == "bounced" {
				l.bounced(ctx, o, c.name, to[i], "550 5.")
			}
		}
	}
	for _, tell := range []func(context.Context, *other) error{l.eximCommand, l.lostReply, l.eximAliased, l.eximSingle, l.eximDown, l.eximBlind} {
		if err := tell(ctx, o); err != nil {
			return err
		}
	}
	l.untagged(o, "tags")
	return nil
}

const (
	viaSTS = "postseal_smtp_sts"
	viaTLS = "postseal_smtp"
	viaRT  = "postseal_lmtp_requiretls"
)

// eximUnverified is what GnuTLS, or OpenSSL, says of a certificate that will not do.
const eximUnverified = "certificate (verification|verify) failed"

var eximChapters = []chapter{
	{name: "policy", fates: []fate{
		{local: "m", scenario: "none", status: "sent", via: viaTLS, wire: encrypted, log: "CV=yes"},
		{local: "m", scenario: "none-selfsigned", status: "sent", via: viaTLS, wire: encrypted, log: "CV=no"},
		{local: "m", scenario: "none-plaintext", status: "sent", via: viaTLS, wire: clear},
		{local: "m", scenario: "sts", status: "sent", via: viaSTS, wire: encrypted, log: "CV=yes"},
		{local: "m", scenario: "sts-wildcard", status: "sent", via: viaSTS, wire: encrypted, log: "CV=yes"},
		{local: "m", scenario: "sts-testing", status: "sent", via: viaTLS, wire: encrypted, log: "CV=no"},
		{local: "m", scenario: "sts-expired", status: "deferred", via: viaSTS, log: eximUnverified},
		{local: "m", scenario: "sts-selfsigned", status: "deferred", via: viaSTS, log: eximUnverified},
		{local: "m", scenario: "sts-wrongname", status: "deferred", via: viaSTS, log: eximUnverified},
		{local: "m", scenario: "sts-nostarttls", status: "deferred", via: viaSTS, log: "a TLS session is required"},
		{local: "m", scenario: "sts-forged", status: "deferred", via: "postseal_sts_no_mx", log: "no MX host of .* is in the policy"},
		{local: "m", scenario: "sts-foreign-mx", status: "deferred", via: "postseal_sts_no_mx", log: "no MX host of .* is in the policy"},
		{local: "m", scenario: "dane", status: "sent", via: viaTLS, wire: encrypted, log: "CV=dane"},
		{local: "m", scenario: "dane-ta", status: "sent", via: viaTLS, wire: encrypted, log: "CV=dane"},
		{local: "m", scenario: "dane-mismatch", status: "deferred", via: viaTLS, log: eximUnverified + "|DANE"},
		{local: "m", scenario: "dane-nostarttls", status: "deferred", via: viaTLS, log: "TLS"},
		{local: "m", scenario: "tlsa-bogus", status: "deferred", via: "postseal_policy", log: "TLSA"},
		{local: "m", scenario: "both-mismatch", status: "deferred", via: viaTLS, log: eximUnverified + "|DANE"},
		{local: user, status: "sent", via: "mail_spool"},
	}},
	// A host that is no good for a policy is as good as before for domains without one.
	{name: "shared", fates: []fate{{local: "m", scenario: "sts-shared", status: "deferred", via: viaSTS, log: eximUnverified}}},
	{name: "shared", fates: []fate{{local: "m", scenario: "none-selfsigned", status: "sent", via: viaTLS, wire: encrypted}}},
	{name: "mixed", fates: []fate{
		{local: "m", scenario: "mixed", status: "sent", via: viaSTS, wire: encrypted, log: "H=mx1.*CV=dane"},
		{local: "m", scenario: "mixed-pkix", status: "sent", via: viaSTS, wire: encrypted, log: "H=mx2.*CV=yes"},
		{local: "m", scenario: "mixed-dane", status: "sent", via: viaSTS, wire: encrypted, log: "H=mx2.*CV=dane"},
		{local: "m", scenario: "mixed-broken", status: "deferred", via: viaSTS, log: eximUnverified},
		{local: "m", scenario: "dane-unusable", status: "sent", via: "postseal_lmtp", wire: encrypted},
	}},
	{name: "requiretls", mail: mail{headers: []string{asking}, body: secret}, fates: []fate{
		{local: "m", scenario: "rt-dane", status: "sent", via: viaRT, wire: required},
		{local: "perm", scenario: "rt-dane", status: "bounced", via: viaRT, log: "550 5.1.1 .*no such mailbox"},
		{local: "tmp", scenario: "rt-dane", status: "deferred", via: viaRT, log: "451 4.2.1 .*mailbox is busy"},
		{local: "m", scenario: "rt-sts", status: "sent", via: viaRT, wire: required},
		{local: "m", scenario: "rt-silent", status: "bounced", via: viaRT, log: "550 5.7.30 "},
		{local: "m", scenario: "rt-gone", status: "deferred", via: viaRT, log: "4[0-9]{2} 4"},
		{local: user, status: "sent", via: "mail_spool"},
	}},
	{name: "forged", mail: mail{client: stranger, headers: []string{asking, "X-Postseal-Route: requiretls"}}, fates: []fate{
		{local: "m", scenario: "rt-dane", status: "sent", via: viaTLS, wire: encrypted, log: "CV=dane"},
		{local: "m", scenario: "none-plaintext", status: "sent", via: viaTLS, wire: clear},
	}},
	{name: "relaxed", mail: mail{headers: []string{waiving}}, fates: []fate{
		{local: "m", scenario: "sts-expired", status: "sent", via: "postseal_lmtp_relaxed", wire: encrypted},
		{local: "m", scenario: "sts-nostarttls", status: "sent", via: "postseal_lmtp_relaxed", wire: clear},
		{local: "m", scenario: "dane-mismatch", status: "sent", via: "postseal_lmtp_relaxed", wire: encrypted},
		{local: "m", scenario: "rt-dane", status: "sent", via: "postseal_lmtp_relaxed", wire: encrypted},
		{local: user, status: "sent", via: "mail_spool"},
	}},
	// More than one field is malformed, and changes nothing (RFC 8689 §3).
	{name: "twice", mail: mail{headers: []string{waiving, waiving}}, fates: []fate{
		{local: "m", scenario: "sts-nostarttls", status: "deferred", via: viaSTS},
	}},
	{name: "both", mail: mail{headers: []string{waiving, asking}}, fates: []fate{
		{local: "m", scenario: "rt-dane", status: "sent", via: viaRT, wire: required},
		{local: "m", scenario: "rt-plaintext", status: "bounced", via: viaRT, log: "5[0-9]{2} 5.7."},
	}},
}

// eximDown: without the daemon Exim takes mail and keeps it, tagged or not; local
// mail is delivered. When the daemon is back all goes, under its tags.
func (l *lab) eximDown(ctx context.Context, o *other) error {
	o.daemon.process.stop()
	tagged, err := l.follow(ctx, o, "down", mail{headers: []string{asking}}, []fate{
		{local: "m", scenario: "rt-dane", status: "deferred", via: viaRT, log: "Connection refused"},
		{local: user, status: "sent", via: "mail_spool"}})
	if err != nil {
		return err
	}
	others, err := l.follow(ctx, o, "down", mail{}, []fate{
		{local: "m", scenario: "sts", status: "deferred", via: "postseal_policy", log: "policy service unavailable"},
		{local: "m", scenario: "none", status: "deferred", via: "postseal_policy", log: "policy service unavailable"},
		{local: user, status: "sent", via: "mail_spool"}})
	if err != nil {
		return err
	}
	if err := o.daemon.start(ctx); err != nil {
		return err
	}
	l.back(ctx, o, append(tagged[:1], others[:2]...), []wire{required, encrypted, encrypted})
	return nil
}

// eximCommand: a message from the command sendmail, which passes no ACL of SMTP.
func (l *lab) eximCommand(ctx context.Context, o *other) error {
	f := fate{local: "m", scenario: "rt-dane", status: "sent", via: viaRT, wire: required}
	to := o.recipient(f.local, byName(f.scenario).domain())
	if _, err := o.run(ctx, "sh", "-ec", `printf 'To: <%s>\n%s\n\nhello\n' "$0" "$1" | exim4 -t -f `+user+"@"+o.domain, to, asking); err != nil {
		return err
	}
	a, err := o.after(ctx, to, 0)
	if err != nil {
		return err
	}
	seen, problems := l.met(o, a, f)
	l.report.add(nil, o.name+" command", f.String(), seen, problems)
	return nil
}

// eximAliased: where an alias leads, the tag goes (RFC 8689 §4.1).
func (l *lab) eximAliased(ctx context.Context, o *other) error {
	to := eximAlias + "@" + o.domain
	if err := (mail{from: user + "@" + o.domain, to: []string{to}, headers: []string{asking}}).submit(o.address); err != nil {
		return err
	}
	a, err := o.after(ctx, to, 0)
	if err != nil {
		return err
	}
	taken := l.takenFor(eximAim + "@" + byName("rt-dane").domain())
	l.expect(o.name+" alias", to+" sent by "+viaRT+" with REQUIRETLS", oneLine(a.text), a.via == viaRT && len(taken) == 1 && onWire(taken[0]) == required)
	return nil
}

// eximSingle: the same files in one configuration file, as outside of Debian.
func (l *lab) eximSingle(ctx context.Context, o *other) error {
	const files = "/usr/share/postseal/exim/"
	config := l.eximMacros(o.domain) + `.include ` + files + `main
primary_hostname = ` + o.domain + `
domainlist local_domains = ` + o.domain + `
hostlist relay_from_hosts = 127.0.0.0/8
dns_dnssec_ok = 1
acl_smtp_data = check_data
begin acl
check_data:
.include ` + files + `acl_data
  accept
.include ` + files + `acl
begin routers
.include ` + files + `routers
begin transports
.include ` + files + `transports
`
	if err := o.write(map[string]string{"etc/exim4/single.conf": config}); err != nil {
		return err
	}
	for name, transport := range map[string]string{"sts": viaSTS, "dane": viaTLS, "dane-unusable": "postseal_lmtp"} {
		text, err := o.run(ctx, "exim4", "-C", "/etc/exim4/single.conf", "-bt", "m@"+byName(name).domain())
		l.expect(o.name+" single file", name+" by "+transport, oneLine(text), err == nil && strings.Contains(text, "transport = "+transport+"\n"))
	}
	return nil
}

// eximBlind: where Exim cannot see what was validated (host.dane = false), the daemon
// takes the mail that DANE is required for.
func (l *lab) eximBlind(ctx context.Context, o *other) error {
	if err := o.daemon.amend("dane = true", "dane = false", `for = ["mixed", `, `for = ["mixed", "dane", `); err != nil {
		return err
	}
	o.daemon.process.stop()
	if err := o.daemon.start(ctx); err != nil {
		return err
	}
	_, err := l.follow(ctx, o, "blind", mail{}, []fate{
		{local: "m", scenario: "dane", status: "sent", via: "postseal_lmtp", wire: encrypted},
		{local: "m", scenario: "both-mismatch", status: "deferred", via: "postseal_lmtp", log: "451 4.7.5 .*TLSA"},
		{local: "m", scenario: "sts", status: "sent", via: viaSTS, wire: encrypted},
	})
	return err
}

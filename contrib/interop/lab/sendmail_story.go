package main

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"os"
	"strings"
)

// sendmail: Sendmail with contrib/sendmail. It does MTA-STS by itself, and DANE from 8.18
// on. Before that DANE goes out through the daemon, and so do mixed sets of MX hosts and
// tagged messages at any time.
func (l *lab) sendmail(ctx context.Context) error {
	o, err := newSendmail(ctx, l)
	if err != nil {
		return err
	}
	defer o.stop()
	for _, c := range sendmailChapters(o.dane) {
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
	for _, tell := range []func(context.Context, *other) error{l.sendmailShared, l.sendmailBorrowed, l.sendmailVirtual, l.sendmailTable, l.lostReply, l.sendmailDown} {
		if err := tell(ctx, o); err != nil {
			return err
		}
	}
	l.untagged(o, "tags")
	return nil
}

// What has TLSA records: by Sendmail itself, and through the daemon.
var (
	sendmailDANEFates = []fate{
		{local: "m", scenario: "dane", status: "sent", via: "esmtp", wire: encrypted},
		{local: "m", scenario: "dane-expired", status: "sent", via: "esmtp", wire: encrypted},
		{local: "m", scenario: "dane-mismatch", status: "deferred", via: "esmtp", log: "454 4.7.0 DANE check failed"},
		{local: "m", scenario: "dane-nostarttls", status: "deferred", via: "esmtp", log: "454 4.7.0 DANE: missing STARTTLS"},
		{local: "m", scenario: "both-mismatch", status: "deferred", via: "esmtp", log: "454 4.7.0 DANE check failed"},
		{local: "m", scenario: "dane-unusable", status: "sent", via: "esmtp", wire: encrypted},
		{local: "m", scenario: "unusable-nostarttls", status: "deferred", via: "esmtp"},
	}
	daemonDANEFates = []fate{
		{local: "m", scenario: "dane", status: "sent", via: "postseal", wire: encrypted},
		{local: "m", scenario: "dane-expired", status: "sent", via: "postseal", wire: encrypted},
		{local: "m", scenario: "dane-mismatch", status: "deferred", via: "postseal", log: "4[0-9]{2} 4.* mx1.dane-mismatch"},
		{local: "m", scenario: "dane-nostarttls", status: "deferred", via: "postseal", log: "4[0-9]{2} 4.* mx1.dane-nostarttls"},
		{local: "m", scenario: "both-mismatch", status: "deferred", via: "postseal", log: "4[0-9]{2} 4.* mx1.both-mismatch"},
		{local: "m", scenario: "dane-unusable", status: "sent", via: "postseal", wire: encrypted},
		{local: "m", scenario: "unusable-nostarttls", status: "deferred", via: "postseal", log: "4[0-9]{2} 4.* mx1.unusable-nostarttls"},
	}
)

// sendmailChapters are the tables of the story. dane: Sendmail does that itself.
func sendmailChapters(dane bool) []chapter {
	pinned, untagged := daemonDANEFates, "postseal"
	if dane {
		pinned, untagged = sendmailDANEFates, "esmtp"
	}
	return []chapter{
		{name: "policy", fates: []fate{
			{local: "m", scenario: "none", status: "sent", via: "esmtp", wire: encrypted},
			{local: "m", scenario: "none-selfsigned", status: "sent", via: "esmtp", wire: encrypted},
			{local: "m", scenario: "none-plaintext", status: "sent", via: "esmtp", wire: clear},
			{local: "m", scenario: "sts", status: "sent", via: "esmtp", wire: encrypted},
			{local: "m", scenario: "sts-wildcard", status: "sent", via: "esmtp", wire: encrypted},
			{local: "m", scenario: "sts-testing", status: "sent", via: "esmtp", wire: encrypted},
			{local: "m", scenario: "sts-expired", status: "deferred", via: "esmtp", log: "(403|454) 4.7.0 authentication failed"},
			{local: "m", scenario: "sts-selfsigned", status: "deferred", via: "esmtp", log: "(403|454) 4.7.0 authentication failed"},
			{local: "m", scenario: "sts-wrongname", status: "deferred", via: "esmtp", log: "450 4.7.0 .* not listed in SANs"},
			{local: "m", scenario: "sts-nostarttls", status: "deferred", via: "esmtp", log: "(403|454) 4.7.0 other side does not support STARTTLS"},
			{local: "m", scenario: "sts-foreign-mx", status: "deferred", via: "esmtp", log: "450 4.7.0 .* not found in MX list($| reject)"},
			{local: user, status: "sent", via: "local"},
		}},
		{name: "dane", fates: pinned},
		{name: "mixed", fates: []fate{
			{local: "m", scenario: "mixed", status: "sent", via: "postseal", wire: encrypted},
			{local: "m", scenario: "mixed-pkix", status: "sent", via: "postseal", wire: encrypted},
			{local: "m", scenario: "mixed-dane", status: "sent", via: "postseal", wire: encrypted},
			{local: "m", scenario: "sts-long", status: "sent", via: "postseal", wire: encrypted},
			{local: "m", scenario: "sts-endless", status: "deferred", via: "postseal", log: "not in the MTA-STS policy"},
			{local: "m", scenario: "both-unusable", status: "sent", via: "postseal", wire: encrypted},
			{local: "m", scenario: "unusable-selfsigned", status: "deferred", via: "postseal", log: "self-signed|not trusted|unknown authority"},
			{local: "m", scenario: "sts-forged", status: "deferred", via: "postseal", log: "not in the MTA-STS policy"},
			{local: "m", scenario: "mixed-broken", status: "deferred", via: "postseal", log: "4[0-9]{2} 4.* mx[12].mixed-broken"},
		}},
		// One message, five domains, of which one is local: each recipient has a result of
		// its own (RFC 8689 §4.2.1).
		{name: "requiretls", mail: mail{headers: []string{asking}, params: "RET=FULL", body: secret}, fates: []fate{
			{local: "m", scenario: "rt-dane", status: "sent", via: "postseal-requiretls", wire: required},
			{local: "perm", scenario: "rt-dane", status: "bounced", via: "postseal-requiretls", log: "550 5.1.1 .*no such mailbox"},
			{local: "tmp", scenario: "rt-dane", status: "deferred", via: "postseal-requiretls", log: "451 4.2.1 .*mailbox is busy"},
			{local: "m", scenario: "rt-sts", status: "sent", via: "postseal-requiretls", wire: required},
			{local: "m", scenario: "rt-silent", status: "bounced", via: "postseal-requiretls", log: "550 5.7.30 "},
			{local: "m", scenario: "rt-gone", status: "deferred", via: "postseal-requiretls", log: "4[0-9]{2} 4"},
			{local: user, status: "sent", via: "local"},
		}},
		{name: "forged", mail: mail{client: stranger, headers: []string{asking, "X-Postseal-Route: requiretls"}}, fates: []fate{
			{local: "m", scenario: "rt-dane", status: "sent", via: untagged, wire: encrypted},
			{local: "m", scenario: "none-plaintext", status: "sent", via: "esmtp", wire: clear},
			{local: "m", scenario: "none-plaintext", suffix: ".requiretls.invalid", status: "sent", via: "esmtp", wire: clear},
			{local: "m", scenario: "sts-expired", suffix: ".relaxed.invalid", status: "deferred", via: "esmtp", log: "(403|454) 4.7.0"},
			{local: "m", scenario: "sts-expired", suffix: ".Relaxed.INVALID.", status: "deferred", via: "esmtp", log: "(403|454) 4.7.0"},
			{local: "m", scenario: "none-plaintext", suffix: ".relaxed.invalid.requiretls.invalid", status: "sent", via: "esmtp", wire: clear},
		}},
		{name: "relaxed", mail: mail{headers: []string{waiving}}, fates: []fate{
			{local: "m", scenario: "sts-expired", status: "sent", via: "postseal-relaxed", wire: encrypted},
			{local: "m", scenario: "sts-nostarttls", status: "sent", via: "postseal-relaxed", wire: clear},
			{local: "m", scenario: "dane-mismatch", status: "sent", via: "postseal-relaxed", wire: encrypted},
			{local: "m", scenario: "rt-dane", status: "sent", via: "postseal-relaxed", wire: encrypted},
			{local: user, status: "sent", via: "local"},
		}},
		// More than one field is malformed, and changes nothing (RFC 8689 §3).
		{name: "twice", mail: mail{headers: []string{waiving, waiving}}, fates: []fate{
			{local: "m", scenario: "sts-nostarttls", status: "deferred", via: "esmtp", log: "(403|454) 4.7.0"},
		}},
		{name: "both", mail: mail{headers: []string{waiving, asking}}, fates: []fate{
			{local: "m", scenario: "rt-dane", status: "sent", via: "postseal-requiretls", wire: required},
			{local: "m", scenario: "rt-plaintext", status: "bounced", via: "postseal-requiretls", log: "5[0-9]{2} 5.7."},
		}},
	}
}

// sendmailShared: two domains share an MX host, whose certificate satisfies the one
// without a policy only. Sendmail before 8.18.2 would send the other's mail down the
// connection that it has open for the first; and what has been refused for the other must
// not keep back what goes by no policy.
func (l *lab) sendmailShared(ctx context.Context, o *other) error {
	open := fate{local: "once", scenario: "none-selfsigned", status: "deferred", via: "esmtp", log: "4.2.1"}
	strict := fate{local: "m", scenario: "sts-shared", status: "deferred", via: "esmtp"}
	last := mail{body: strings.Repeat("the longer of two messages goes last\r\n", 50)}
	first, err := l.follow(ctx, o, "shared", last, []fate{open})
	if err != nil {
		return err
	}
	second, err := l.follow(ctx, o, "shared", mail{}, []fate{strict})
	if err != nil {
		return err
	}
	err = o.retry(ctx, first[0]) // both in one queue run, the refused one first
	l.expectNo(err, o.name+" shared", "queue run: "+first[0]+" sent")
	a, err := o.after(ctx, second[0], 1)
	if err != nil {
		return err
	}
	seen, problems := l.met(o, a, strict)
	l.report.add(nil, o.name+" shared", "queue run: "+strict.String(), seen, problems)
	open.local, open.status, open.wire, open.log = "m", "sent", encrypted, ""
	for _, both := range [][]fate{{open, strict}, {strict, open}} { // in one message
		if _, err := l.follow(ctx, o, "shared", mail{}, both); err != nil {
			return err
		}
	}
	return nil
}

// sendmailBorrowed: one queue run meets a host without a policy, then one that shows the
// names of the first in a certificate of its own making, and then the first again, for a
// domain with a policy. Sendmail keeps the names of the last handshake only.
func (l *lab) sendmailBorrowed(ctx context.Context, o *other) error {
	const line = "the longer of three messages goes last\r\n"
	open := func(scenario string) []fate {
		return []fate{{local: "once", scenario: scenario, status: "deferred", via: "esmtp", log: "4.2.1"}}
	}
	strict := fate{local: "m", scenario: "sts-wrongname", status: "deferred", via: "esmtp"}
	if _, err := l.follow(ctx, o, "borrowed", mail{}, open("none-wrongname")); err != nil {
		return err
	}
	other, err := l.follow(ctx, o, "borrowed", mail{body: strings.Repeat(line, 50)}, open("none-borrowed"))
	if err != nil {
		return err
	}
	last, err := l.follow(ctx, o, "borrowed", mail{body: strings.Repeat(line, 150)}, []fate{strict})
	if err != nil {
		return err
	}
	l.expectNo(o.retry(ctx, other[0]), o.name+" borrowed", "queue run: "+other[0]+" sent")
	a, err := o.after(ctx, last[0], 1)
	if err != nil {
		return err
	}
	seen, problems := l.met(o, a, strict)
	l.report.add(nil, o.name+" borrowed", "queue run: "+strict.String(), seen, problems)
	return nil
}

// sendmailVirtual: a recipient of a tagged message that is Sendmail's own, but for the
// milter looks like any other, since it leads out of the host. It comes back past the
// milter, and goes out untagged.
func (l *lab) sendmailVirtual(ctx context.Context, o *other) error {
	list := "list@" + virtualDomain
	if err := (mail{from: user + "@" + o.domain, to: []string{list}, headers: []string{asking}}).submit(o.address); err != nil {
		return err
	}
	back, err := o.after(ctx, list, 1)
	if err != nil {
		return err
	}
	all, err := o.attempts(list)
	if err != nil {
		return err
	}
	out := all[0]
	l.expect(o.name+" virtual", list+" sent by postseal-requiretls", oneLine(out.text), out.status == "sent" && out.via == "postseal-requiretls")
	log, err := os.ReadFile(o.mainlog)
	if err != nil {
		return err
	}
	good := back.status == "sent" && len(l.takenFor(virtualTarget)) == 1 && strings.Contains(string(log), "daemon=MTA-postseal")
	l.expect(o.name+" virtual", virtualTarget+" sent from the daemon without milter", oneLine(back.text), good)
	return nil
}

// sendmailTable: beside a mailertable of the site, with rules in place of ours.
func (l *lab) sendmailTable(ctx context.Context, o *other) error {
	pinned := "postseal"
	if o.dane {
		pinned = "esmtp"
	}
	for address, mailer := range map[string]string{
		"m@" + byName("mixed").domain():                           "postseal",
		"m@" + byName("dane").domain():                            pinned,
		"m@" + byName("sts").domain():                             "esmtp",
		"m@" + byName("none-signed").domain():                     "smtp",
		"m@" + byName("rt-dane").domain() + ".requiretls.invalid": "postseal-requiretls",
		"m@" + byName("rt-dane").domain() + ".relaxed.invalid":    "postseal-relaxed",
		user + "@" + o.domain:                                     "local",
	} {
		text, err := o.run(ctx, "/usr/sbin/sendmail", "-C/etc/mail/table.cf", "-bv", address)
		l.expect(o.name+" own table", address+" by "+mailer, oneLine(text), err == nil && strings.Contains(text, "mailer "+mailer+","))
	}
	return nil
}

// sendmailDown: without the daemon clients are told to come again, and what is in
// the queue stays there. When the daemon is back, all of it goes, under its tags.
func (l *lab) sendmailDown(ctx context.Context, o *other) error {
	first, err := l.follow(ctx, o, "down", mail{headers: []string{asking}}, []fate{
		{local: "once", scenario: "rt-dane", status: "deferred", via: "postseal-requiretls", log: "451 4.2.1 .*come again"}})
	if err != nil {
		return err
	}
	second, err := l.follow(ctx, o, "down", mail{}, []fate{
		{local: "once", scenario: "sts", status: "deferred", via: "esmtp", log: "4.2.1"},
		{local: "once", scenario: "none", status: "deferred", via: "esmtp", log: "4.2.1"}})
	if err != nil {
		return err
	}
	o.daemon.process.stop()
	err = mail{from: user + "@" + o.domain, to: []string{user + "@" + o.domain}}.submit(o.address)
	l.expect(o.name+" down", "no daemon: the client is told to come again", fmt.Sprint(err), comeAgain(err))
	if _, err := o.run(ctx, o.flush...); err != nil {
		return err
	}
	list, err := o.run(ctx, "/usr/sbin/sendmail", "-C/etc/mail/lab.cf", "-bp") // such an attempt is not in the log
	if err != nil {
		return err
	}
	for _, to := range append(first, second...) {
		local, _, _ := strings.Cut(to, "@") // the list cuts long addresses
		l.expect(o.name+" down", "no daemon: "+to+" waits", oneLine(list), strings.Contains(list, "<"+local+"@"))
	}
	if err := o.daemon.start(ctx); err != nil {
		return err
	}
	l.back(ctx, o, append(first, second...), []wire{required, encrypted, encrypted})
	return nil
}

// comeAgain reports whether a client was refused for the time being.
func comeAgain(err error) bool {
	var reply *textproto.Error
	return errors.As(err, &reply) && reply.Code/100 == 4
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// What a client writes into the header, and what must not come out.
const (
	asksForTLS  = "Require-TLS-ESMTP: yes" // the name is Postfix 3.11's
	waivesTLS   = "TLS-Required: No"       // RFC 8689 §3
	forgedRoute = "X-Postseal-Route: requiretls"
	confidence  = "this is for the recipients only"
)

// withParameter is a MAIL command with the parameter of RFC 8689 §2.
var withParameter = regexp.MustCompile(`(?i)^MAIL FROM:<[^>]*>.* REQUIRETLS( |$)`)

// requireTLS: one message that requires TLS, for five recipients in three domains,
// one of them our own, goes milter, FILTER, LMTP, daemon; every recipient has a
// fate of its own, and the bounce gives away nothing but the header.
func (l *lab) requireTLS(ctx context.Context) error {
	const name = "requiretls"
	l.each(ctx, name, func(ctx context.Context, p *postfix) error {
		l.daemon.localRelay = p.address + ":" + relayPort
		if err := l.daemon.restart(ctx); err != nil {
			return err
		}
		dane, sts := byName("rt-dane").domain(), byName("rt-sts").domain()
		from := p.name("from", byName("none").domain())
		one, two, later, never, local := p.name("m", dane), p.name("m", sts), p.name("once", dane), p.name("perm", sts), p.name("m", localDomain)
		m := mail{from: from, params: "RET=FULL ENVID=lab+2B1", to: []string{one, two, later, never, local}, headers: []string{asksForTLS, "X-Other: kept"}, body: confidence}
		if err := p.submit(m); err != nil {
			return err
		}
		first := l.fate(ctx, p, name, one, "sent 2.0.0", `said: taken`)
		known := "queue_id=" + first.queueID
		l.expectAt(p, name, "the daemon knows the queue id, by XFORWARD", known, first.queueID != "" && strings.Contains(l.daemon.logged(), known))
		l.fate(ctx, p, name, two, "sent 2.0.0", `said: taken`)
		postponed := l.fate(ctx, p, name, later, "deferred 4.2.1", `said: come again`)
		l.fate(ctx, p, name, never, "bounced 5.1.1", `said: no such mailbox`)
		l.fate(ctx, p, name, local, "sent 2.0.0", "")
		for _, to := range []string{one, two} {
			l.onTheWire(p, name, "", to, true)
		}
		for _, t := range l.takenFor(one) {
			l.expectAt(p, name, "ENVID and ORCPT arrive as they were sent", t.mail+", "+t.rcpt[0], strings.Contains(t.mail, " ENVID=lab+2B1") && strings.Contains(t.rcpt[0], " ORCPT=rfc822;"+one))
		}
		l.inMailbox(ctx, p, name, local)
		abroad := p.submit(mail{from: from, to: []string{one}, port: relayPort})
		l.expectAt(p, name, "the milter-free smtpd is no relay: 554", orTaken(abroad), code(abroad) == 554)
		l.bounce(ctx, p, name, from)
		if _, err := p.retry(ctx, postponed); err != nil {
			return err
		}
		l.onTheWire(p, name, "retried", later, true)
		return nil
	})
	return nil
}

// fate waits for the first attempt to deliver tagged mail to a recipient, and
// reports whether it went through the daemon and what became of it: status,
// enhanced code, and a pattern for the words.
func (l *lab) fate(ctx context.Context, p *postfix, name, recipient, want, words string) delivery {
	d, err := p.first(ctx, recipient)
	if err != nil {
		l.report.add(p, name, want, "", []string{err.Error()})
		return d
	}
	seen := d.status + " " + d.dsn
	good := seen == want && d.agent == "lmtp" && regexp.MustCompile(words).MatchString(d.text)
	_, domain, _ := strings.Cut(recipient, "@")
	l.expectAt(p, name, domain+": "+want, seen+" by "+d.agent+": "+d.text, good)
	return d
}

// onTheWire reports whether an MX host got a message once, over TLS, with the
// parameter or without it, and without our tag. what says which message that is,
// "" if its domain does.
func (l *lab) onTheWire(p *postfix, name, what, recipient string, required bool) {
	if what == "" {
		_, what, _ = strings.Cut(recipient, "@")
	}
	expected := what + ": MAIL without parameter"
	if required {
		expected = what + ": MAIL FROM:<…> REQUIRETLS"
	}
	taken := l.takenFor(recipient)
	if len(taken) != 1 {
		l.report.add(p, name, expected, "", []string{fmt.Sprintf("%s arrived %d times", recipient, len(taken))})
		return
	}
	t := taken[0]
	good := withParameter.MatchString(t.mail) == required && len(t.header("X-Postseal-Route")) == 0
	if required {
		good = good && t.tls
	}
	l.expectAt(p, name, expected, t.mail, good)
}

// inMailbox reports whether a message for our own domain has come back to Postfix
// and into the mailbox, without our tag.
func (l *lab) inMailbox(ctx context.Context, p *postfix, name, recipient string) {
	var text string
	err := until(ctx, func() error {
		files, err := filepath.Glob(filepath.Join(p.root, mailFolder, "inbox/new/*"))
		if err != nil {
			return err
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err == nil && strings.Contains(string(content), "Delivered-To: "+recipient) {
				text = string(content)
				return nil
			}
		}
		return fmt.Errorf("no mail for %s in %s", recipient, mailFolder)
	})
	seen := "in the mailbox"
	if err != nil {
		seen = err.Error()
	}
	l.expectAt(p, name, "local recipient: in the mailbox", seen, err == nil && strings.Contains(text, confidence) && !strings.Contains(text, "X-Postseal-Route"))
}

// bounce reports whether the sender of a message has got one, from the null path,
// which returns the header and nothing of the body (RFC 8689 §5).
func (l *lab) bounce(ctx context.Context, p *postfix, name, to string) (taken, bool) {
	notice, err := l.notice(ctx, to)
	if err != nil {
		l.report.add(p, name, "bounce", "", []string{err.Error()})
		return notice, false
	}
	headersOnly := strings.Contains(notice.text, "text/rfc822-headers") && !strings.Contains(notice.text, confidence)
	seen := notice.mail
	if !headersOnly {
		seen += ", with the body:\n" + notice.text
	}
	l.expectAt(p, name, "bounce: MAIL FROM:<>, text/rfc822-headers", seen, headersOnly && path(notice.mail) == "")
	return notice, true
}

// notice waits for the bounce to a sender.
func (l *lab) notice(ctx context.Context, to string) (taken, error) {
	var found taken
	err := until(ctx, func() error {
		all := l.takenFor(to)
		if len(all) == 0 {
			return fmt.Errorf("no bounce to %s", to)
		}
		found = all[0]
		return nil
	})
	return found, err
}

// requireTLSAsked: who may ask for TLS, and how: a header of a trusted client, a
// rule, sendmail(1), whatever command carries the text. Strangers may not, forged
// tags do nothing, and bounces are never tagged.
func (l *lab) requireTLSAsked(ctx context.Context) error {
	const name = "requiretls-asked"
	domain := byName("rt-dane").domain()
	l.each(ctx, name, func(ctx context.Context, p *postfix) error {
		for _, c := range []struct {
			how      string
			mail     mail
			required bool
		}{
			{"header of a trusted client", mail{from: sender, headers: []string{asksForTLS}}, true},
			{"header, with BDAT", mail{from: sender, headers: []string{asksForTLS}, bdat: true}, true},
			{"header, beside TLS-Required: No", mail{from: sender, headers: []string{asksForTLS, waivesTLS}}, true},
			{"rule for the sender", mail{from: confidential}, true},
			{"rule, from a stranger", mail{from: confidential, client: stranger}, true},
			{"header of a stranger", mail{from: sender, headers: []string{asksForTLS}, client: stranger}, false},
			{"forged tag", mail{from: sender, headers: []string{forgedRoute}}, false},
			{"forged tag of a stranger", mail{from: sender, headers: []string{forgedRoute}, client: stranger}, false},
			{"null sender", mail{headers: []string{asksForTLS}}, p.native},
		} {
			recipient := p.name("m", domain)
			c.mail.to = []string{recipient}
			if err := p.submit(c.mail); err != nil {
				return fmt.Errorf("%s: %w", c.how, err)
			}
			if _, err := p.first(ctx, recipient); err != nil {
				return fmt.Errorf("%s: %w", c.how, err)
			}
			l.onTheWire(p, name, c.how, recipient, c.required || p.native && slices.Contains(c.mail.headers, asksForTLS))
		}
		recipient := p.name("m", domain)
		command := fmt.Sprintf("printf 'Subject: lab\\n%s\\n\\nhello\\n' | sendmail -f %s %s", asksForTLS, sender, recipient)
		if _, err := p.run(ctx, "sh", "-ec", command); err != nil {
			return err
		}
		if _, err := p.first(ctx, recipient); err != nil {
			return err
		}
		l.onTheWire(p, name, "sendmail(1)", recipient, true)
		if !p.native {
			err := p.submit(mail{from: sender, to: []string{p.name("m", domain)}, params: "REQUIRETLS", startTLS: true})
			l.expectAt(p, name, "MAIL … REQUIRETLS: 555 5.5.4, the milter never sees it", orTaken(err), code(err) == 555)
		}
		return nil
	})
	return nil
}

// requireTLSCodes: what becomes of mail that requires TLS where it cannot be had
// (RFC 8689 §4.2.1): nothing is sent, and the code says why.
func (l *lab) requireTLSCodes(ctx context.Context) error {
	const name = "requiretls-codes"
	l.each(ctx, name, func(ctx context.Context, p *postfix) error {
		for _, c := range []struct{ domain, want string }{
			{"rt-silent", "bounced 5.7.30"},    // authenticated, but without the keyword
			{"rt-stranger", "bounced 5.7.10"},  // nothing authenticates the certificate
			{"rt-plaintext", "bounced 5.7.10"}, // no TLS at all
			{"rt-unproven", "bounced 5.7.10"},  // nothing proves the MX record
			{"rt-gone", "deferred 4.4.1"},      // nobody there: may be better tomorrow
		} {
			s := byName(c.domain)
			recipient := p.name("m", s.domain())
			said := l.said(s)
			if err := p.submit(mail{from: sender, to: []string{recipient}, headers: []string{asksForTLS}}); err != nil {
				return err
			}
			l.fate(ctx, p, name, recipient, c.want, "")
			if now := l.said(s); now != said {
				l.report.add(p, name, s.domain()+": no MAIL command", fmt.Sprintf("%d MAIL and RCPT commands", now-said), []string{"the MX host was told of the message"})
			}
		}
		second := p.name("m", byName("rt-second").domain())
		if err := p.submit(mail{from: sender, to: []string{second}, headers: []string{asksForTLS}}); err != nil {
			return err
		}
		l.fate(ctx, p, name, second, "sent 2.0.0", `^250 2\.0\.0 mx2\.`)
		l.onTheWire(p, name, "", second, true)
		return nil
	})
	return nil
}

// said counts the MAIL and RCPT commands that a domain's MX hosts have seen.
func (l *lab) said(s scenario) int {
	n := 0
	for _, c := range l.contacts(s) {
		n += c.commands
	}
	return n
}

// relaxed: TLS-Required: No is delivered whatever the destination publishes (RFC
// 8689 §4.2.2), and stays in the message.
func (l *lab) relaxed(ctx context.Context) error {
	const name = "relaxed"
	l.each(ctx, name, func(ctx context.Context, p *postfix) error {
		from := p.name("from", byName("none").domain())
		never := p.name("perm", byName("rt-sts").domain())
		m := mail{from: from, headers: []string{waivesTLS}, to: []string{never}}
		for _, domain := range []string{"sts-wrongname", "sts-expired", "sts-nostarttls", "dane-mismatch", "dane-nostarttls", "tlsa-bogus"} {
			m.to = append(m.to, p.name("m", byName(domain).domain()))
		}
		if err := p.submit(m); err != nil {
			return err
		}
		for _, recipient := range m.to[1:] {
			l.fate(ctx, p, name, recipient, "sent 2.0.0", "")
			l.onTheWire(p, name, "", recipient, false)
			for _, t := range l.takenFor(recipient) {
				kept := t.header("TLS-Required")
				if !slices.Equal(kept, []string{"No"}) {
					l.report.add(p, name, "the header stays", fmt.Sprint(kept), []string{t.text})
				}
			}
		}
		if err := l.builtIn(ctx, p); err != nil {
			return err
		}
		l.fate(ctx, p, name, never, "bounced 5.1.1", "")
		notice, err := l.notice(ctx, from)
		if err != nil {
			return err
		}
		copied := len(notice.header("TLS-Required")) > 0
		l.expectAt(p, name, fmt.Sprintf("bounce copies TLS-Required: %t (from 3.10)", !p.older), fmt.Sprint(copied), copied == !p.older)
		return nil
	})
	return nil
}

// builtIn: what the header does without milter and route: from 3.10 Postfix knows
// it.
func (l *lab) builtIn(ctx context.Context, p *postfix) error {
	recipient := p.name("m", byName("sts-wrongname").domain())
	if err := p.submit(mail{from: sender, to: []string{recipient}, headers: []string{waivesTLS}, port: untaggedPort}); err != nil {
		return err
	}
	want := "sent"
	if p.older {
		want = "deferred"
	}
	d, err := p.first(ctx, recipient)
	l.expectAt(p, "relaxed", "untagged, built in from 3.10: "+want, told(d, err), d.status == want && d.agent == "smtp")
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/smtp"
	"regexp"
	"strings"
)

// native: Postfix 3.11 has REQUIRETLS built in. With the maps postfix-tlsrpt and
// requiretls it delivers by itself where it can, and hands over to the daemon, tag
// and all, where it cannot.
func (l *lab) native(ctx context.Context) error {
	l.each(ctx, "native", func(ctx context.Context, p *postfix) error {
		if !p.native {
			return nil
		}
		if err := p.reconfigure(ctx, "milter_header_checks ="); err != nil { // nothing by tag
			return err
		}
		var err error
		for _, tell := range []func(context.Context, *postfix) error{
			l.nativeOffer, l.nativeFates, l.nativeBounces, l.nativeRelaxed, l.nativeHandOver, l.nativeMilter,
		} {
			if err = tell(ctx, p); err != nil {
				break
			}
		}
		return errors.Join(err, p.reconfigure(ctx))
	})
	return nil
}

// demanding is a message whose client demands TLS in the MAIL command, to a smtpd
// without milter.
func demanding(from string, to ...string) mail {
	return mail{from: from, to: to, params: "REQUIRETLS", port: untaggedPort, startTLS: true}
}

// nativeOffer: the keyword is offered inside TLS only (RFC 8689 §2).
func (l *lab) nativeOffer(_ context.Context, p *postfix) error {
	c, err := smtp.Dial(p.address + ":" + untaggedPort)
	if err != nil {
		return err
	}
	defer c.Close()
	clear, _ := c.Extension("REQUIRETLS")
	refusal := say(c, 250, "MAIL FROM:<%s> REQUIRETLS", sender)
	if err := c.StartTLS(insecure()); err != nil {
		return err
	}
	inside, _ := c.Extension("REQUIRETLS")
	l.expectAt(p, "native", "EHLO lists REQUIRETLS inside TLS only", fmt.Sprintf("clear text %t, TLS %t", clear, inside), !clear && inside)
	l.expectAt(p, "native", "MAIL … REQUIRETLS in clear text: 555", orTaken(refusal), code(refusal) == 555)
	return nil
}

// nativeFates: what becomes of a message for each kind of destination. A level
// that authenticates is what our map answers where there is a policy; without one
// Postfix refuses.
func (l *lab) nativeFates(ctx context.Context, p *postfix) error {
	for _, c := range []struct{ to, want, log string }{
		{"m@" + byName("rt-dane").domain(), "sent 2.0.0", `tls=dane(-only)?/requiretls`},
		{"m@" + byName("rt-sts").domain(), "sent 2.0.0", `tls=secure/requiretls`},
		{"m@" + byName("rt-silent").domain(), "bounced 5.7.30", `!requiretls:none`},
		{"m@" + byName("rt-stranger").domain(), "bounced 5.7.10", `!requiretls:nocertmatch`},
		{"m@[" + l.sinks[byName("none").host(0)].address + "]", "sent 2.0.0", `requiretls:`}, // by number: ours, opportunistic
	} {
		local, domain, _ := strings.Cut(c.to, "@")
		recipient := p.name(local, domain)
		if err := p.patiently(ctx, demanding(sender, recipient)); err != nil {
			return err
		}
		d, err := p.first(ctx, recipient)
		line, _ := d.says(regexp.MustCompile(`tls=\S*`))
		l.expectAt(p, "native", domain+": "+c.want+", "+c.log, line+" "+told(d, err),
			err == nil && d.status+" "+d.dsn == c.want && d.agent == "smtp" && regexp.MustCompile(c.log).MatchString(line))
		if d.status == "sent" {
			l.onTheWire(p, "native", "", recipient, strings.HasPrefix(domain, "rt-"))
		}
	}
	return nil
}

// nativeBounces: a bounce has headers only and no parameter, or, if so configured,
// the parameter; always the null sender (RFC 8689 §5).
func (l *lab) nativeBounces(ctx context.Context, p *postfix) error {
	never := func() string { return p.name("m", byName("rt-silent").domain()) }
	redacted := p.name("from", byName("rt-dane").domain())
	m := demanding(redacted, never())
	m.params, m.body = "RET=FULL REQUIRETLS", confidence
	if err := p.patiently(ctx, m); err != nil {
		return err
	}
	if notice, ok := l.bounce(ctx, p, "native", redacted); ok {
		l.expectAt(p, "native", "redacted bounce: no parameter", notice.mail, !withParameter.MatchString(notice.mail))
	}
	if err := p.reconfigure(ctx, "milter_header_checks =", "requiretls_redact_dsn = no"); err != nil {
		return err
	}
	kept := p.name("from", byName("rt-dane").domain())
	if err := p.patiently(ctx, demanding(kept, never())); err != nil {
		return err
	}
	notice, err := l.notice(ctx, kept)
	if err != nil {
		return err
	}
	l.expectAt(p, "native", "requiretls_redact_dsn = no: MAIL FROM:<> REQUIRETLS", notice.mail, withParameter.MatchString(notice.mail) && path(notice.mail) == "")
	return p.reconfigure(ctx, "milter_header_checks =")
}

// nativeRelaxed: the operator's exception in the map requiretls.
func (l *lab) nativeRelaxed(ctx context.Context, p *postfix) error {
	s := byName("rt-silent")
	if _, err := l.daemon.command(ctx, "override", "set", s.domain(), "--requiretls", "opportunistic", "--reason", "lab"); err != nil {
		return err
	}
	recipient := p.name("m", s.domain())
	if err := p.patiently(ctx, demanding(sender, recipient)); err != nil {
		return err
	}
	d, err := p.first(ctx, recipient)
	l.expectAt(p, "native", "override --requiretls opportunistic: sent", told(d, err), d.status == "sent")
	_, err = l.daemon.command(ctx, "override", "remove", s.domain())
	return err
}

// nativeHandOver: the request survives the LMTP connection to the daemon, which
// offers the keyword inside TLS, and a before-queue filter, by header.
func (l *lab) nativeHandOver(ctx context.Context, p *postfix) error {
	recipient := p.name("m", byName("rt-mixed").domain())
	if err := p.patiently(ctx, demanding(sender, recipient)); err != nil {
		return err
	}
	l.fate(ctx, p, "native", recipient, "sent 2.0.0", `said: taken`)
	l.onTheWire(p, "native", "over LMTP", recipient, true)

	recipient = p.name("m", byName("rt-dane").domain())
	proxied := demanding(sender, recipient)
	proxied.port = proxyPort
	if err := p.patiently(ctx, proxied); err != nil {
		return err
	}
	if _, err := p.first(ctx, recipient); err != nil {
		return err
	}
	l.onTheWire(p, "native", "over a proxy filter", recipient, true)
	for _, t := range l.takenFor(recipient) {
		header := strings.Join(t.header("Require-TLS-ESMTP"), ", ")
		l.expectAt(p, "native", "the proxy filter got "+asksForTLS, header, header == "yes")
	}
	return nil
}

// nativeMilter: a milter cannot switch REQUIRETLS on, since Postfix looks for the
// header before milters have added theirs. This is why tags need a route.
func (l *lab) nativeMilter(ctx context.Context, p *postfix) error {
	adder, err := newAdder(p.address+":"+adderPort, asksForTLS)
	if err != nil {
		return err
	}
	defer adder.close()
	recipient := p.name("m", byName("rt-dane").domain())
	if err := p.patiently(ctx, mail{from: sender, to: []string{recipient}, port: addedPort}); err != nil {
		return err
	}
	if _, err := p.first(ctx, recipient); err != nil {
		return err
	}
	l.onTheWire(p, "native", "header of a milter", recipient, false)
	for _, t := range l.takenFor(recipient) {
		header := strings.Join(t.header("Require-TLS-ESMTP"), ", ")
		l.expectAt(p, "native", "the milter's header is in the message", header, header == "yes")
	}
	return nil
}

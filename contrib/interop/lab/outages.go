package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// daemonDown: without the daemon mail waits, and never goes out with less than
// the policy; when the daemon is back it goes.
func (l *lab) daemonDown(ctx context.Context) error {
	const name = "daemon-down"
	s := byName("sts")
	var waiting []message
	l.each(ctx, name, func(ctx context.Context, p *postfix) error {
		m := message{scenario: s, postfix: p, recipient: p.name("once", s.domain()), before: l.visits(s, p)}
		if err := p.submit(mail{from: sender, to: []string{m.recipient}}); err != nil {
			return err
		}
		if _, err := p.first(ctx, m.recipient); err != nil { // the MX host wants it to come again
			return err
		}
		waiting = append(waiting, m)
		return nil
	})
	l.daemon.process.stop()
	for _, m := range waiting {
		_, err := m.postfix.send(s.domain())
		l.expectAt(m.postfix, name, "new mail: 451, the client comes again", orTaken(err), later(err))
		d, err := m.postfix.again(ctx, m.recipient)
		l.expectAt(m.postfix, name, "mail in the queue: deferred", told(d, err), d.status == "deferred" && d.dsn != "4.2.1")
	}
	if err := l.withoutTransport(ctx); err != nil {
		return err
	}
	if err := l.daemon.start(ctx); err != nil {
		return err
	}
	l.redeliver(ctx, name, "daemon back", waiting, sentOver("Verified"))
	return nil
}

// withoutTransport: the daemon is down, and Postfixes ask it first for transport and
// policies, then for policies only.
func (l *lab) withoutTransport(ctx context.Context) error {
	const name = "daemon-down"
	l.each(ctx, name, func(ctx context.Context, p *postfix) error {
		if err := p.reconfigure(ctx, "postseal_milter_down = accept"); err != nil {
			return err
		}
		var refusal error
		err := until(ctx, func() error { // a smtpd of before may still be there
			_, refusal = p.send(byName("sts").domain())
			if code(refusal) != 451 || !strings.Contains(refusal.Error(), "lookup failure") {
				return errors.New("no lookup failure")
			}
			return nil
		})
		l.expectAt(p, name, "transport alone: 451 Temporary lookup failure", orTaken(refusal), err == nil)
		return p.reconfigure(ctx, "transport_maps = inline:{lab.test=discard:}", "postseal_milter_down = accept")
	})
	if _, err := l.deliver(ctx, name, byName("sts"), held(`dsn=4\.7\.5.*client TLS configuration problem`)); err != nil {
		return err
	}
	l.each(ctx, name, func(ctx context.Context, p *postfix) error { return p.reconfigure(ctx) })
	return nil
}

// durable is how long a policy must have been answered to survive kill -9.
const durable = time.Second

// outage: the daemon is killed and comes back while neither DNS nor any policy
// host can be reached. What it knew is still enforced.
func (l *lab) outage(ctx context.Context) error {
	s, d := byName("sts"), byName("dane")
	if err := l.daemon.awaitAnswer(ctx, "postfix", d.domain(), "OK dane-only"); err != nil {
		return err
	}
	answered := time.Now()
	err := until(ctx, func() error {
		if err := l.daemon.awaitAnswer(ctx, "postfix", s.domain(), "OK secure"); err != nil {
			return err
		}
		if time.Since(answered) <= durable {
			return fmt.Errorf("answered for less than %s", durable)
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.daemon.process.kill()
	l.names.stop()
	l.web.stop()
	if err := l.daemon.start(ctx); err != nil {
		return err
	}
	for _, p := range l.postfixes {
		reply, problems := l.ask(s, p)
		l.report.add(p, "outage", "killed, no DNS, no HTTPS: "+s.fill(s.answer), reply, problems)
	}
	reply, err := l.daemon.ask("postfix", d.domain())
	if err != nil {
		return err
	}
	l.expect("outage", "DANE domain meanwhile: TEMP, or dane-only", reply, strings.HasPrefix(reply, "TEMP ") || strings.HasPrefix(reply, "OK dane-only"))

	if err := l.web.start(); err != nil {
		return err
	}
	if err := l.names.start(ctx); err != nil {
		return err
	}
	if _, err := l.deliver(ctx, "outage", s, sentOver("Verified")); err != nil {
		return err
	}
	err = l.daemon.awaitAnswer(ctx, "postfix", d.domain(), "OK dane-only")
	l.expectNo(err, "outage", "DANE domain when DNS is back: dane-only")
	return nil
}

// noValidation: a resolver that does not validate is found out by the
// self-test; DANE is switched off and the operator can see it. MTA-STS goes on.
func (l *lab) noValidation(ctx context.Context) error {
	blind, err := newDaemon(l.folder, l.postseal, "daemon-no-validation", notValidating, "127.0.0.2", nil)
	if err != nil {
		return err
	}
	if err := blind.start(ctx); err != nil {
		return err
	}
	defer blind.process.stop()
	off := regexp.MustCompile(`(?im)^.*(DANE|DNSSEC|validation).* off\b.*$`)
	for _, command := range [][]string{{"status"}, {"explain", byName("dane").domain()}} {
		var text string
		err := until(ctx, func() (err error) {
			if text, err = blind.command(ctx, command...); err == nil && !off.MatchString(text) {
				err = fmt.Errorf("DANE is not said to be off in:\n%s", text)
			}
			return err
		})
		seen := strings.TrimSpace(off.FindString(text))
		if err != nil {
			seen = err.Error()
		}
		l.expect("no-validation", command[0]+" says that DANE is off", seen, err == nil)
	}
	for name, want := range map[string]string{"dane": "NOTFOUND", "sts": "OK secure"} {
		err := blind.awaitAnswer(ctx, "postfix", byName(name).domain(), want)
		l.expectNo(err, "no-validation", byName(name).domain()+": "+want)
	}
	return nil
}

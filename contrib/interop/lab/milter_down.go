package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// milterDown: Postfixes that decide about TLS by themselves, and have the daemon
// for tagged messages only. Without it tagged mail waits in the queue and other
// mail flows; what happens to mail that comes in meanwhile is the administrator's
// choice.
func (l *lab) milterDown(ctx context.Context) error {
	l.each(ctx, "milter-down", func(ctx context.Context, p *postfix) error {
		tagged := p.name("once", byName("rt-dane").domain())
		err := l.acceptUntagged(ctx, p, tagged)
		if err == nil {
			err = l.refuseMeanwhile(ctx, p, tagged)
		}
		if l.daemon.process.ended() { // the next Postfix needs it
			err = errors.Join(err, l.daemon.start(ctx))
		}
		return errors.Join(err, p.reconfigure(ctx))
	})
	return nil
}

// aloneSettings leave the milter and the tags only.
var aloneSettings = []string{"smtp_tls_security_level = dane", "smtp_tls_policy_maps =", "transport_maps = inline:{lab.test=discard:}"}

// acceptUntagged: mail comes in without the milter. The message to tagged was
// tagged before.
func (l *lab) acceptUntagged(ctx context.Context, p *postfix, tagged string) error {
	const name = "milter-down"
	none := byName("none").domain()
	if err := p.reconfigure(ctx, append(aloneSettings, "postseal_milter_down = accept")...); err != nil {
		return err
	}
	if err := p.patiently(ctx, mail{from: sender, to: []string{tagged}, headers: []string{asksForTLS}}); err != nil {
		return err
	}
	l.fate(ctx, p, name, tagged, "deferred 4.2.1", "")

	cut := p.name("m", none)
	err := p.submit(mail{from: sender, to: []string{cut}, headers: []string{asksForTLS}, beforeData: l.daemon.process.kill})
	l.expectAt(p, name, "accept, killed before DATA: taken", orTaken(err), err == nil)
	if err == nil && !p.native { // 3.11 knows the header by itself
		d, err := p.first(ctx, cut)
		l.expectAt(p, name, "accept: goes out, and nobody has tagged it", told(d, err), d.status == "sent" && d.agent == "smtp")
	}

	d, err := p.again(ctx, tagged)
	l.expectAt(p, name, "tagged mail waits in the queue", told(d, err), d.status == "deferred" && d.dsn == "4.4.1" && d.agent == "lmtp")
	begin := time.Now()
	untagged, err := p.send(none)
	if err != nil {
		return err
	}
	d, err = p.first(ctx, untagged)
	l.expectAt(p, name, "accept: other mail flows", fmt.Sprintf("%s, %s, after %.1f s", d.status, d.tls(), time.Since(begin).Seconds()), err == nil && d.status == "sent" && d.tls() == "Trusted")
	return nil
}

// refuseMeanwhile: mail waits at the clients while the milter is away. The one to
// tagged goes out in the end.
func (l *lab) refuseMeanwhile(ctx context.Context, p *postfix, tagged string) error {
	const name = "milter-down"
	none := byName("none").domain()
	if err := p.reconfigure(ctx, append(aloneSettings, "postseal_milter_down = tempfail")...); err != nil {
		return err
	}
	err := until(ctx, func() error { // a smtpd of before may still be there
		err := p.submit(mail{from: sender, to: []string{p.name("m", none)}})
		if code(err) != 451 {
			return fmt.Errorf("%w: not 451", err)
		}
		return nil
	})
	l.expectAt(p, name, "tempfail: 451, the client comes again", orTaken(err), err == nil)
	if err := l.daemon.start(ctx); err != nil {
		return err
	}
	if err := p.patiently(ctx, mail{from: sender, to: []string{p.name("m", none)}}); err != nil {
		return err
	}
	err = p.submit(mail{from: sender, to: []string{p.name("m", none)}, beforeData: l.daemon.process.kill})
	l.expectAt(p, name, "tempfail, killed before DATA: 451", orTaken(err), code(err) == 451)
	if err := l.daemon.start(ctx); err != nil {
		return err
	}
	d, err := p.first(ctx, tagged)
	if err == nil {
		_, err = p.retry(ctx, d)
	}
	if err != nil {
		return err
	}
	l.onTheWire(p, name, "daemon back, the tagged one", tagged, true)
	return nil
}

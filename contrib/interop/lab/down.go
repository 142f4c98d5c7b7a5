package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// flowing: the daemon is down, and Postfixes have taken what it knew in place of it,
// by the files of contrib/postfix: mail to plain domains flows, what demands TLS is held
// to it, and what requires it by itself waits. With the daemon asked behind the
// table, domains that are not in it wait.
func (l *lab) flowing(ctx context.Context) error {
	if err := l.learn(ctx); err != nil {
		return err
	}
	l.each(ctx, "flowing", l.export)
	l.daemon.process.kill()
	l.each(ctx, "flowing", func(ctx context.Context, p *postfix) error {
		waiting, err := l.flow(ctx, p)
		if err == nil {
			err = l.unknownWaits(ctx, p)
		}
		if l.daemon.process.ended() { // the next Postfix needs it to have been there
			err = errors.Join(err, l.daemon.start(ctx))
		}
		if err == nil {
			err = l.afterwards(ctx, p, waiting)
		}
		l.daemon.process.kill()
		return errors.Join(err, p.reconfigure(ctx))
	})
	return l.daemon.start(ctx)
}

// knownDomains are those that the daemon is asked for before it goes down.
var knownDomains = []string{"none", "sts", "sts-wrongname", "dane", "dane-mismatch", "rt-dane"}

// unknownDomain is one that the daemon knows nothing of then.
const unknownDomain = "none-selfsigned"

// learn makes the daemon know the ones and not the other.
func (l *lab) learn(ctx context.Context) error {
	if _, err := l.daemon.command(ctx, "cache", "purge", byName(unknownDomain).domain()); err != nil {
		return err
	}
	for _, name := range knownDomains {
		s := byName(name)
		if err := l.daemon.awaitAnswer(ctx, "postfix", s.domain(), s.fill(s.answer)); err != nil {
			return err
		}
	}
	return nil
}

// export writes what the daemon knows into tables of a Postfix, one of them with the
// domains that demand nothing.
func (l *lab) export(ctx context.Context, p *postfix) error {
	checks, err := p.snippet("header_checks_down")
	if err != nil {
		return err
	}
	files := map[string]string{"postseal_header_checks": checks}
	for name, more := range map[string][]string{"postseal_policies": nil, "postseal_all": {"--none", "may"}} {
		if files[name], err = l.daemon.command(ctx, append([]string{"cache", "export", "--map", p.mapName()}, more...)...); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(p.root, "etc/postfix", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// flow sends mail while there is no daemon, and returns the recipient of what waits.
func (l *lab) flow(ctx context.Context, p *postfix) (waiting string, err error) {
	const name = "flowing"
	down, err := p.snippet("main_down.cf")
	if err != nil {
		return "", err
	}
	if err := p.reconfigure(ctx, down, "transport_maps = inline:{lab.test=discard:}"); err != nil {
		return "", err
	}
	if err := p.patiently(ctx, mail{from: sender, to: []string{p.name("m", byName("none").domain())}}); err != nil { // a smtpd of before may still be there
		return "", err
	}
	for _, s := range knownDomains {
		s := byName(s)
		m, err := l.send(s, p)
		if err != nil {
			return "", err
		}
		seen, problems := l.judge(ctx, m, s.outcome(p.older))
		l.report.add(p, name, s.domain()+": "+s.outcome(p.older).String(), seen, problems)
	}
	waiting = p.name("m", byName("rt-dane").domain())
	if err := p.submit(mail{from: sender, to: []string{waiting}, headers: []string{asksForTLS}}); err != nil {
		return "", err
	}
	d, err := p.first(ctx, waiting)
	l.expectAt(p, name, "mail that requires TLS waits in the queue", told(d, err), d.status == "deferred" && d.dsn == "4.4.1" && d.agent == "lmtp")
	return waiting, nil
}

// unknownWaits: the table first, the daemon that is down behind it.
func (l *lab) unknownWaits(ctx context.Context, p *postfix) error {
	const name = "flowing"
	down, err := p.snippet("main_down.cf")
	if err != nil {
		return err
	}
	down = strings.ReplaceAll(down, "\nsmtp_tls_policy_maps", "\n# smtp_tls_policy_maps")
	down = strings.ReplaceAll(down, "\n# smtp_tls_policy_maps = $postseal_known,", "\nsmtp_tls_policy_maps = $postseal_known,")
	if err := p.reconfigure(ctx, down, "transport_maps = inline:{lab.test=discard:}", "postseal_known = texthash:/etc/postfix/postseal_all"); err != nil {
		return err
	}
	for _, c := range []struct {
		domain string
		want   outcome
	}{
		{"none", sentOver("Trusted")}, {"sts", sentOver("Verified")},
		{unknownDomain, held(`dsn=4\.7\.5.*client TLS configuration problem`)},
	} {
		s := byName(c.domain)
		m, err := l.send(s, p)
		if err != nil {
			return err
		}
		seen, problems := l.judge(ctx, m, c.want)
		l.report.add(p, name, "daemon behind the table, "+s.domain()+": "+c.want.String(), seen, problems)
	}
	return nil
}

// afterwards: the daemon is back, and so is the configuration.
func (l *lab) afterwards(ctx context.Context, p *postfix, waiting string) error {
	if err := p.reconfigure(ctx); err != nil {
		return err
	}
	d, err := p.first(ctx, waiting)
	if err != nil {
		return err
	}
	if _, err = p.retry(ctx, d); err != nil {
		return fmt.Errorf("%s: %w", waiting, err)
	}
	l.onTheWire(p, "flowing", "daemon back, what required TLS", waiting, true)
	return nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// mixed: of a domain's MX hosts one has TLSA records and the other has none, and
// MTA-STS is enforced. The daemon asks of each host its own proof, DANE or PKIX,
// and a host that fails it does not keep the other from taking the mail.
func (l *lab) mixed(ctx context.Context) error {
	const name = "mixed"
	l.each(ctx, name, func(ctx context.Context, p *postfix) error {
		if err := l.daemon.restart(ctx); err != nil { // no session is left that could be used again
			return err
		}
		for _, c := range []struct {
			domain  string
			want    string
			words   string // of the reply
			log     string // of the daemon
			refused []int  // MX hosts that failed their proof
		}{
			{"mixed", "sent 2.0.0", `mx1\.`, `host=mx1\.{D}\S+ demand=dane secured=dane`, nil},
			{"mixed-pkix", "sent 2.0.0", `mx2\.`, `host=mx2\.{D}\S+ demand=pkix secured=pkix`, []int{0}},
			{"mixed-dane", "sent 2.0.0", `mx2\.`, `host=mx2\.{D}\S+ demand=dane secured=dane`, []int{0}},
			{"mixed-broken", "deferred 4.7.5", `TLSA.*authority|authority.*TLSA`, `mixed-broken\S+ mode=normal sent=0 deferred=1`, []int{0, 1}},
		} {
			s := byName(c.domain)
			before, visited := l.daemon.logged(), l.contacts(s)
			recipient, err := p.send(s.domain())
			if err != nil {
				return err
			}
			l.fate(ctx, p, name, recipient, c.want, c.words)
			pattern := strings.ReplaceAll(c.log, "{D}", regexp.QuoteMeta(s.domain()))
			at := regexp.MustCompile(pattern).FindString(l.daemon.logged()[len(before):])
			l.expectAt(p, name, s.domain()+": "+c.log, at, at != "")
			for _, i := range c.refused {
				now := l.contacts(s)[i]
				l.expectAt(p, name, s.host(i)+": TLS, but no MAIL command", fmt.Sprintf("%d more connections, %d commands", now.tls-visited[i].tls, now.commands), now.tls > visited[i].tls && now.commands == 0)
			}
		}
		return nil
	})
	return nil
}

// contact sums up what an MX host has seen.
type contact struct {
	tls      int // connections with TLS
	commands int // MAIL and RCPT
}

// contacts are those of each MX host of a domain.
func (l *lab) contacts(s scenario) []contact {
	all := make([]contact, len(s.mx))
	for i := range s.mx {
		for _, v := range l.sinks[s.host(i)].seen("") {
			if v.tls {
				all[i].tls++
			}
			all[i].commands += len(v.lines)
		}
	}
	return all
}

// logged is what the daemon has logged so far.
func (d *daemon) logged() string {
	text, _ := os.ReadFile(d.process.log.Name())
	return string(text)
}

// transport: what Postfix is told when it asks for whole addresses: of recipients,
// of senders, of our own domains.
func (l *lab) transport(ctx context.Context) error {
	const routed, left = "OK postseal:" + lmtpNexthop, "NOTFOUND "
	mixed, single := byName("mixed").domain(), byName("dane").domain()
	for _, c := range []struct{ key, want string }{
		{"u@" + mixed, routed},
		{"User+ext@" + strings.ToUpper(mixed), routed},
		{`"a@b"@` + mixed, routed},
		{"u@" + byName("bulk-fallback").domain(), routed}, // named in delivery.for
		{"u@" + single, left},
		{"u@" + byName("sts").domain(), left},
		{"u@" + byName("none").domain(), left},
		{"u@" + localDomain, left},
		{sender, left},
		{"*", left},
		{"u@[127.1.1.1]", left},
	} {
		reply, err := l.daemon.ask("transport", c.key)
		if err != nil {
			return err
		}
		l.expect("transport", fmt.Sprintf("transport %s: %s", c.key, c.want), reply, reply == c.want)
	}
	return ctx.Err()
}

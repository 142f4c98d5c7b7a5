package main

import (
	"context"
	"errors"
	"fmt"
	"net/smtp"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// postfix is a real Postfix in a Debian chroot.
type postfix struct {
	suite    string // of Debian
	root     string // the chroot
	snippets string // folder with the configuration that administrators include
	version  string // of Postfix
	older    bool   // than 3.10
	terse    bool   // before 3.6: does not say why a certificate is not enough, but for its issuer and its date
	native   bool   // 3.11 or newer: REQUIRETLS is built in
	address  string
	gates    bool // its failures fail the lab
	log      *maillog
	logs     string

	extra   []string // settings of main.cf that a story wants
	process *process
	sent    int // messages so far
}

// moving is the suite of Debian that changes every day: it is tried, and fails
// nothing.
const moving = "sid"

// newPostfix configures the Postfix of a chroot and starts it. The number tells
// several of them apart.
func newPostfix(ctx context.Context, o options, logs, suite string, number int) (*postfix, error) {
	p := &postfix{suite: suite, root: filepath.Join(o.work, suite), snippets: filepath.Join(o.contrib, "postfix"), logs: logs, gates: suite != moving, address: fmt.Sprintf("127.0.25.%d", number)}
	version, err := p.run(ctx, "postconf", "-d", "-h", "mail_version")
	if err != nil {
		return nil, err
	}
	p.version = strings.TrimSpace(version)
	major, minor := 0, 0
	if n, _ := fmt.Sscanf(p.version, "%d.%d", &major, &minor); n != 2 {
		return nil, fmt.Errorf("what is Postfix %q?", p.version)
	}
	p.terse = major < 3 || major == 3 && minor < 6
	p.older = major < 3 || major == 3 && minor < 10
	p.native = major > 3 || major == 3 && minor > 10
	p.log = &maillog{path: filepath.Join(p.root, "var/log/postfix.log")}
	// Postfix takes only addresses that are configured, even inside 127/8.
	if _, err := output(ctx, "ip", "address", "add", p.address+"/8", "dev", "lo"); err != nil {
		return nil, err
	}
	if err := p.configure(ctx); err != nil {
		return nil, err
	}
	if p.process, err = launch(filepath.Join(logs, "postfix-"+suite+".out"), "chroot", p.root, "postfix", "start-fg"); err != nil {
		return nil, err
	}
	return p, until(ctx, func() error {
		if p.process.ended() {
			return fmt.Errorf("%w: it ended at once, see %s and %s", errHopeless, p.process.log.Name(), p.log.path)
		}
		c, err := smtp.Dial(p.address + ":25")
		if err != nil {
			return err
		}
		return c.Quit()
	})
}

// words is the part of a regular expression that it can log.
func (p *postfix) words(pattern string) string {
	if p.terse && (pattern == nameMismatch || pattern == tlsaMismatch) {
		return "Server certificate not verified"
	}
	return pattern
}

// mapName is the dialect of the daemon that this Postfix understands.
func (p *postfix) mapName() string {
	if p.older {
		return "postfix"
	}
	return "postfix-tlsrpt"
}

// socketFolder is where the daemon's socket must be: chrooted processes see it
// relative to the queue directory.
func (p *postfix) socketFolder() string { return filepath.Join(p.root, "var/spool/postfix/postseal") }

// run runs a command in the chroot.
func (p *postfix) run(ctx context.Context, command ...string) (string, error) {
	return output(ctx, "chroot", append([]string{p.root}, command...)...)
}

// name makes an address in a domain that no other message has.
func (p *postfix) name(prefix, domain string) string {
	p.sent++
	return prefix + strconv.Itoa(p.sent) + "-" + p.suite + "@" + domain
}

// send submits a message for a domain and returns its recipient, which no other
// message has.
func (p *postfix) send(domain string) (recipient string, err error) {
	recipient = p.name("m", domain)
	return recipient, p.submit(mail{from: sender, to: []string{recipient}})
}

// submit gives it a message.
func (p *postfix) submit(m mail) error { return m.submit(p.address) }

// patiently gives it a message again and again while it says to come later.
func (p *postfix) patiently(ctx context.Context, m mail) error {
	return until(ctx, func() error {
		err := p.submit(m)
		if err != nil && !later(err) {
			err = fmt.Errorf("%w: %w", errHopeless, err)
		}
		return err
	})
}

// first waits for the first attempt to deliver to a recipient.
func (p *postfix) first(ctx context.Context, recipient string) (delivery, error) {
	var found delivery
	err := until(ctx, func() error {
		attempts, err := p.log.attempts(recipient)
		if err != nil {
			return err
		}
		if len(attempts) == 0 {
			return errors.New("no attempt to deliver in " + p.log.path)
		}
		found = attempts[0]
		return nil
	})
	return found, err
}

// again has Postfix try a deferred message once more, and waits for that attempt.
func (p *postfix) again(ctx context.Context, recipient string) (delivery, error) {
	before, err := p.log.attempts(recipient)
	if err != nil || len(before) == 0 {
		return delivery{}, fmt.Errorf("no attempt to deliver to %s: %w", recipient, err)
	}
	last := before[len(before)-1]
	if _, err := p.run(ctx, "postqueue", "-i", last.queueID); err != nil {
		return last, err
	}
	err = until(ctx, func() error {
		now, err := p.log.attempts(recipient)
		if err == nil && len(now) == len(before) {
			err = errors.New("no further attempt to deliver to " + recipient)
		}
		if err == nil {
			last = now[len(now)-1]
		}
		return err
	})
	return last, err
}

// retry has Postfix try a deferred message again and again until it is sent.
func (p *postfix) retry(ctx context.Context, d delivery) (delivery, error) {
	last := time.Time{}
	err := until(ctx, func() error {
		attempts, err := p.log.attempts(d.recipient)
		if err != nil {
			return err
		}
		if n := len(attempts); n > 0 {
			d = attempts[n-1]
		}
		if d.status == "sent" {
			return nil
		}
		if time.Since(last) > time.Second {
			last = time.Now()
			if _, err := p.run(ctx, "postqueue", "-i", d.queueID); err != nil {
				return err
			}
		}
		return errors.New("still " + d.status + ": " + d.text)
	})
	return d, err
}

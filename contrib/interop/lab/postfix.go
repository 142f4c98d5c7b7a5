package main

import (
	"context"
	"errors"
	"fmt"
	"net/smtp"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// postfix is a real Postfix in a Debian chroot.
type postfix struct {
	suite   string // of Debian
	root    string // the chroot
	version string // of Postfix
	older   bool   // than 3.10
	address string
	gates   bool // its failures fail the lab
	mail    *maillog
	logs    string

	process *process
	sent    int // messages so far
}

// moving is the suite of Debian that changes every day: it is tried, and fails
// nothing.
const moving = "sid"

// newPostfix configures the Postfix of a chroot and starts it. The number tells
// several of them apart.
func newPostfix(ctx context.Context, work, logs, suite string, number int) (*postfix, error) {
	p := &postfix{suite: suite, root: filepath.Join(work, suite), logs: logs, gates: suite != moving, address: fmt.Sprintf("127.0.25.%d", number)}
	version, err := p.run(ctx, "postconf", "-h", "mail_version")
	if err != nil {
		return nil, err
	}
	p.version = strings.TrimSpace(version)
	major, minor := 0, 0
	if n, _ := fmt.Sscanf(p.version, "%d.%d", &major, &minor); n != 2 {
		return nil, fmt.Errorf("what is Postfix %q?", p.version)
	}
	p.older = major < 3 || major == 3 && minor < 10
	p.mail = &maillog{path: filepath.Join(p.root, "var/log/postfix.log")}
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
			return fmt.Errorf("%w: it ended at once, see %s and %s", errHopeless, p.process.log.Name(), p.mail.path)
		}
		c, err := smtp.Dial(p.address + ":25")
		if err != nil {
			return err
		}
		return c.Quit()
	})
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

func (p *postfix) configure(ctx context.Context) error {
	if err := os.MkdirAll(p.socketFolder(), 0o755); err != nil {
		return err
	}
	files := map[string]string{
		"etc/resolv.conf":     "nameserver " + validating + "\noptions trust-ad edns0\n", // without trust-ad, libc hides AD and DANE is off
		"etc/hosts":           "127.0.0.1 localhost\n",
		"etc/postfix/main.cf": p.mainConfig(),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(p.root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	commands := `
		postfix check
		install -o postfix /dev/null /var/log/postfix.log
		postsuper -d ALL` // what an earlier run has left
	if p.older {
		// Copies resolv.conf and the like into the queue directory, where chrooted
		// processes look. Debian does this before each start; later versions by themselves.
		commands += "\n/usr/lib/postfix/configure-instance.sh -"
	}
	_, err := p.run(ctx, "sh", "-ec", commands)
	return err
}

// mainConfig is main.cf: the first part is what an administrator would set for
// the daemon, the second what the lab needs.
func (p *postfix) mainConfig() string {
	level := "3.6"
	if !p.older {
		level = "3.10"
	}
	return `
smtp_dns_support_level = dnssec
smtp_tls_security_level = may
smtp_tls_loglevel = 1
smtp_tls_CAfile = /etc/ssl/postseal-lab-ca.pem
smtp_tls_policy_maps = socketmap:unix:postseal/map.sock:` + p.mapName() + `

compatibility_level = ` + level + `
maillog_file = /var/log/postfix.log
myhostname = ` + p.suite + `.lab.test
mydestination =
alias_maps =
inet_interfaces = ` + p.address + `
inet_protocols = ipv4
smtp_bind_address = ` + p.address + `
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
transport_maps = inline:{lab.test=discard:}
notify_classes =
# The default asks for the root, which the lab does not have.
dnssec_probe = ns:` + string(signed) + `
# A resumed session is not verified against a changed policy.
smtp_tls_session_cache_database =
minimal_backoff_time = 1s
smtp_connect_timeout = 5s
`
}

// send submits a message for a domain and returns its recipient, which no other
// message has.
func (p *postfix) send(domain string) (recipient string, err error) {
	p.sent++
	recipient = "m" + strconv.Itoa(p.sent) + "@" + domain
	text := "From: <sender@lab.test>\r\nTo: <" + recipient + ">\r\nSubject: lab\r\n\r\nhello\r\n"
	return recipient, smtp.SendMail(p.address+":25", nil, "sender@lab.test", []string{recipient}, []byte(text))
}

// first waits for the first attempt to deliver to a recipient.
func (p *postfix) first(ctx context.Context, recipient string) (delivery, error) {
	var found delivery
	err := until(ctx, func() error {
		attempts, err := p.mail.attempts(recipient)
		if err != nil {
			return err
		}
		if len(attempts) == 0 {
			return errors.New("no attempt to deliver in " + p.mail.path)
		}
		found = attempts[0]
		return nil
	})
	return found, err
}

// retry has Postfix try a deferred message again and again until it is sent.
func (p *postfix) retry(ctx context.Context, d delivery) (delivery, error) {
	last := time.Time{}
	err := until(ctx, func() error {
		attempts, err := p.mail.attempts(d.recipient)
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

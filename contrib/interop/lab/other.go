package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/smtp"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// other is a mail server that is not Postfix, in a chroot of its own and with a
// daemon of its own: what it can do differs, and so does the daemon's config.
type other struct {
	name    string // of its files in contrib, and the first word of its checks
	root    string // the chroot
	logs    string
	address string
	domain  string                 // its own
	mainlog string                 // path
	parse   func(string) []attempt // reads that
	flush   []string               // the command that tries everything in the queue
	dane    bool                   // Sendmail: it does DANE itself
	hands   string                 // how the names of those that hand over to the daemon begin: mailers, transports
	daemon  *daemon

	process *process
	sent    int // recipients so far
}

// user has the only mailbox.
const user = "reader"

// attempt is one attempt to deliver to one recipient, as the log tells it.
type attempt struct {
	recipient string
	status    string // "sent", "deferred", "bounced"
	via       string // mailer or transport, or the router that deferred
	text      string // of the line
}

// newOther prepares what all have in common: names, authority, mailbox, and the
// files that administrators include. name is that of the folder with these, root that of
// the chroot.
func newOther(l *lab, name, root, address string) (*other, error) {
	o := &other{name: name, root: filepath.Join(l.work, root), logs: l.folder, address: address, domain: name + ".lab.test"}
	authority, err := os.ReadFile(filepath.Join(l.folder, "ca.pem"))
	if err != nil {
		return nil, err
	}
	files := map[string]string{
		"etc/resolv.conf":             "nameserver " + validating + "\noptions trust-ad edns0\n",
		"etc/hosts":                   "127.0.0.1 localhost\n" + address + " " + o.domain + "\n",
		"etc/mailname":                o.domain + "\n",
		"etc/ssl/postseal-lab-ca.pem": string(authority),
	}
	snippets, err := filepath.Glob(filepath.Join(l.contrib, name, "*"))
	if err != nil {
		return nil, err
	}
	for _, path := range snippets {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files[filepath.Join("usr/share/postseal", name, filepath.Base(path))] = string(text)
	}
	return o, o.write(files)
}

// write puts files into the chroot.
func (o *other) write(files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(o.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// run runs a command in the chroot.
func (o *other) run(ctx context.Context, command ...string) (string, error) {
	return output(ctx, "chroot", append([]string{o.root}, command...)...)
}

// prepare runs shell commands in the chroot, after those that make the user and
// empty the mailbox.
func (o *other) prepare(ctx context.Context, commands string) error {
	_, err := o.run(ctx, "sh", "-ec", `
		grep -q ^`+user+`: /etc/passwd || echo '`+user+`:x:2000:8::/:/bin/false' >>/etc/passwd
		rm -f /var/mail/`+user+"\n"+commands)
	return err
}

// start launches the mail server and waits until it greets.
func (o *other) start(ctx context.Context, command ...string) (err error) {
	o.process, err = launch(filepath.Join(o.logs, o.name+".out"), "chroot", append([]string{o.root}, command...)...)
	if err != nil {
		return err
	}
	return until(ctx, func() error {
		if o.process.ended() {
			return fmt.Errorf("%w: it ended at once, see %s", errHopeless, o.process.log.Name())
		}
		c, err := smtp.Dial(o.address + ":25")
		if err != nil {
			return err
		}
		return c.Quit()
	})
}

func (o *other) stop() {
	o.process.stop()
	if o.daemon != nil {
		o.daemon.process.stop()
	}
}

// recipient makes an address that no other message has; the local part scripts
// the reply of the sink.
func (o *other) recipient(local, domain string) string {
	if domain == "" {
		return user + "@" + o.domain
	}
	o.sent++
	return local + strconv.Itoa(o.sent) + "-" + o.name + "@" + domain
}

// attempts returns the attempts to deliver to a recipient, oldest first.
func (o *other) attempts(recipient string) ([]attempt, error) {
	text, err := os.ReadFile(o.mainlog)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []attempt
	for _, a := range o.parse(string(text)) {
		if strings.EqualFold(a.recipient, recipient) {
			found = append(found, a)
		}
	}
	return found, err
}

// after waits for an attempt to deliver to a recipient beyond the first n.
func (o *other) after(ctx context.Context, recipient string, n int) (attempt, error) {
	var last attempt
	err := until(ctx, func() error {
		all, err := o.attempts(recipient)
		if err != nil {
			return err
		}
		if len(all) <= n {
			return fmt.Errorf("%s: no attempt to deliver in %s beyond %d", recipient, o.mainlog, n)
		}
		last = all[len(all)-1]
		return nil
	})
	return last, err
}

// retry has the mail server try its queue until a recipient is served.
func (o *other) retry(ctx context.Context, recipient string) error {
	last := time.Time{}
	return until(ctx, func() error {
		all, err := o.attempts(recipient)
		if err != nil {
			return err
		}
		if n := len(all); n > 0 && all[n-1].status == "sent" {
			return nil
		}
		if time.Since(last) > time.Second {
			last = time.Now()
			if _, err := o.run(ctx, o.flush...); err != nil {
				return err
			}
		}
		return fmt.Errorf("%s is still not sent: %v", recipient, all)
	})
}

// mailbox returns the messages that the user has.
func (o *other) mailbox() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(o.root, "var/mail", user))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Split("\n"+string(text), "\nFrom ")[1:], err
}

// amend changes parts of the daemon's config, which must be there: old, new, …
func (d *daemon) amend(pairs ...string) error {
	text, err := os.ReadFile(d.config)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			return fmt.Errorf("%s: no %q", d.config, pairs[i])
		}
		text = []byte(strings.Replace(string(text), pairs[i], pairs[i+1], 1))
	}
	return os.WriteFile(d.config, text, 0o644)
}

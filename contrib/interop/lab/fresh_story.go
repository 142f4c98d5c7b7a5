package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// The destinations of a new user's first message.
const (
	freshDANE = "dane"
	freshSTS  = "sts"
)

func (l *lab) freshPostfix(ctx context.Context) error {
	return l.fresh(ctx, func() error {
		l.each(ctx, "fresh-postfix", func(ctx context.Context, p *postfix) error {
			return l.newcomer(ctx, p, filepath.Join(l.work, p.suite), freshPostfix)
		})
		return nil
	})
}

func (l *lab) freshExim(ctx context.Context) error {
	return l.fresh(ctx, func() error { return l.newcomer(ctx, nil, filepath.Join(l.work, l.eximRoot), freshExim) })
}

func (l *lab) freshSendmail(ctx context.Context) error {
	n := freshSendmail
	if dane, err := l.sendmailDANE(ctx); err != nil {
		return err
	} else if !dane {
		n = n.withoutDANE()
	}
	return l.fresh(ctx, func() error { return l.newcomer(ctx, nil, filepath.Join(l.work, l.sendmailRoot), n) })
}

// fresh tells a story while the lab's own daemon is away: the packaged one listens where
// that does.
func (l *lab) fresh(ctx context.Context, tell func() error) error {
	l.daemon.process.stop()
	err := tell()
	return errors.Join(err, l.daemon.restart(ctx))
}

// newcomer does what a new user does with a mail server, from the package to the first
// sessions that are counted, and back again. Nothing is done but what README.md says, on
// a machine as Debian sets it up, with what the lab must add (see newcomer).
func (l *lab) newcomer(ctx context.Context, p *postfix, chroot string, n newcomer) (err error) {
	m, err := newMachine(ctx, l.folder, chroot)
	if err != nil {
		return err
	}
	u := &using{lab: l, machine: m, newcomer: n, postfix: p, name: "fresh-" + n.mta, daemonLog: filepath.Join(l.folder, "fresh-"+filepath.Base(chroot)+".log")}
	defer func() { err = errors.Join(err, m.close(ctx)) }()
	if err := u.prepare(ctx); err != nil {
		return err
	}
	defer m.shell(ctx, n.stop) // again, if it has not come to that
	fmt.Printf("\n  %s with Debian's %s, as a new user\n", filepath.Base(chroot), n.mta)
	before, err := m.settings(n.stamp)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{u.install, u.setUp, u.deliver, u.count, u.takeAway} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	after, err := m.settings(n.stamp)
	if err != nil {
		return err
	}
	how := "reverted and purged: /etc is byte for byte as before"
	if n.stamp != "" {
		how += ", times aside"
	}
	l.report.add(p, u.name, how, fmt.Sprintf("%d files compared", len(before)), changed(before, after))
	return nil
}

// using is a newcomer at work.
type using struct {
	*lab
	*machine
	newcomer

	postfix    *postfix // nil: another mail server
	name       string   // of the story
	daemonLog  string
	begin      time.Time
	reload     []string          // commands by which the mail server reads its configuration again
	recipients map[string]string // by scenario
}

// prepare makes the machine what it is before postseal comes: the mail server as Debian's
// package sets it up for the answer "Internet Site", with its log, running.
func (u *using) prepare(ctx context.Context) error {
	authority, err := os.ReadFile(filepath.Join(u.folder, "ca.pem"))
	if err != nil {
		return err
	}
	deb, err := os.ReadFile(u.pkg)
	if err != nil {
		return fmt.Errorf("the package: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	if _, err := u.shell(ctx, "rm -rf /usr/share/postseal "+u.leavings); err != nil {
		return err
	}
	for path, text := range map[string]string{
		"etc/resolv.conf": "nameserver " + validating + "\noptions edns0 trust-ad\n", // README.md, with the lab's address
		"etc/hosts":       "127.0.0.1 localhost\n127.0.1.1 " + freshHost + " " + host + "\n",
		"etc/mailname":    freshHost + "\n",
		"usr/local/share/ca-certificates/lab.crt": string(authority), // as one of those that everybody trusts
		"srv/postseal.deb":                        string(deb),
	} {
		if err := u.write(path, text); err != nil {
			return err
		}
	}
	if _, err := u.shell(ctx, "update-ca-certificates\n"+u.debian+"\n"+u.newcomer.lab); err != nil {
		return err
	}
	if err := u.logs(ctx, u.sockets...); err != nil {
		return err
	}
	odd, err := u.shell(ctx, "dpkg --verify | grep ' /etc/' || true")
	if err != nil {
		return err
	}
	u.report.add(u.postfix, u.name, "the configuration is as Debian's package makes it", "dpkg --verify is content", listed(odd))
	_, err = u.shell(ctx, u.newcomer.start)
	return err
}

// listed are the lines of a text that have something in them.
func listed(text string) (all []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// install is step 2 of README.md.
func (u *using) install(ctx context.Context) error {
	u.begin = time.Now()
	if _, err := u.types(ctx, "dpkg -i /srv/postseal.deb"); err != nil {
		return err
	}
	// With systemd the package would have done this.
	if err := u.startDaemon(ctx, u.daemonLog); err != nil {
		return err
	}
	_, err := u.types(ctx, labSettings)
	return err
}

// setUp is step 3: setup, and each step that it says is left to do then.
func (u *using) setUp(ctx context.Context) error {
	said, err := u.types(ctx, "postseal setup "+u.mta+" --apply --tlsrpt")
	if err != nil {
		return err
	}
	_, then, found := strings.Cut(said, "\nthen:\n")
	if !found {
		return errors.New("setup does not say what is to be done then: " + said)
	}
	for _, line := range listed(then) {
		step, _, _ := strings.Cut(line, "   # ")
		switch before, restart := strings.CutSuffix(step, "systemctl restart postseal"); {
		case restart:
			if _, err := u.types(ctx, strings.TrimSuffix(before, " && ")); err != nil {
				return err
			}
			fmt.Println("  # systemctl restart postseal")
			u.machine.daemon.stop()
			err = u.startDaemon(ctx, u.daemonLog)
		case step == "postseal doctor" || strings.Contains(step, "DOMAIN"): // for who wants to look
		case strings.HasPrefix(step, "usermod "):
			_, err = u.types(ctx, step)
		default: // of the mail server
			u.reload = append(u.reload, systemctl.ReplaceAllString(step, "/etc/init.d/$2 $1"))
			_, err = u.types(ctx, u.reload[len(u.reload)-1])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// systemctl is a command that a script of /etc/init.d does as well.
var systemctl = regexp.MustCompile(`^systemctl (\w+) (\w+)$`)

// deliver is step 4: a message to a domain with DANE and to one with MTA-STS.
func (u *using) deliver(ctx context.Context) error {
	u.recipients = map[string]string{}
	for _, name := range []string{freshDANE, freshSTS} {
		machine := filepath.Base(u.scratch)
		u.recipients[name] = machine + "@" + byName(name).domain()
		if _, err := u.types(ctx, "printf 'Subject: hello\\n\\nhello\\n' | sendmail "+u.recipients[name]); err != nil {
			return err
		}
	}
	for _, proof := range u.proofs {
		line, err := u.logged(ctx, proof.pattern)
		u.report.add(u.postfix, u.name, proof.what, line, problem(err))
	}
	for name, to := range u.recipients {
		how := nowhere
		taken := u.takenFor(to)
		if len(taken) == 1 {
			how = onWire(taken[0])
		}
		u.expectAt(u.postfix, u.name, byName(name).host(0)+" took it "+string(encrypted), fmt.Sprintf("%d messages, %s", len(taken), how), how == encrypted)
	}
	return nil
}

func problem(err error) []string {
	if err == nil {
		return nil
	}
	return []string{err.Error()}
}

// logged waits for a line of the mail log.
func (u *using) logged(ctx context.Context, pattern string) (found string, err error) {
	path, wanted := filepath.Join(u.root, u.mailLog), regexp.MustCompile(pattern)
	err = until(ctx, func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if found = wanted.FindString(string(text)); found == "" {
			return fmt.Errorf("%s has no %q:\n%s", path, pattern, text)
		}
		return nil
	})
	return found, err
}

// count waits until exactly the sessions of these messages are counted.
func (u *using) count(ctx context.Context) error {
	var got counts
	ask := func() (err error) {
		got, err = sessionsBy(func(args ...string) (string, error) {
			return u.shell(ctx, "postseal "+strings.Join(args, " "))
		})
		if err == nil && got.differs(u.sessions()) != nil {
			err = errors.New("not yet")
		}
		return err
	}
	until(ctx, ask) // what is still missing then is found below
	if _, err := u.types(ctx, "postseal sessions"); err != nil {
		return err
	}
	fmt.Printf("  %s: %.1f s from dpkg -i to the sessions\n", u.name, time.Since(u.begin).Seconds())
	time.Sleep(settled)
	if err := ask(); got == nil {
		return err
	}
	u.compareCounts(u.postfix, u.name, "from the package to the count", got, u.sessions())
	return nil
}

// takeAway undoes it all, in the order that setup says.
func (u *using) takeAway(ctx context.Context) error {
	if _, err := u.types(ctx, "postseal setup "+u.mta+" --revert"); err != nil {
		return err
	}
	for _, command := range u.reload {
		if _, err := u.types(ctx, command); err != nil {
			return err
		}
	}
	u.machine.daemon.stop() // systemd, by the package
	if _, err := u.types(ctx, "dpkg --purge postseal"); err != nil {
		return err
	}
	if _, err := u.types(ctx, u.newcomer.stop); err != nil {
		return err
	}
	left, err := u.shell(ctx, "getent passwd postseal || true; getent group postseal || true; ls -d /var/lib/postseal /etc/postseal 2>/dev/null || true")
	if err != nil {
		return err
	}
	u.report.add(u.postfix, u.name, "purged: no user, no group, no folder", "none", listed(left))
	return nil
}

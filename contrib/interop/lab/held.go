package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// away is how long the daemon is away in the story restarted. It is below the 10 s for
// which the milter of contrib/postfix is waited for.
const away = 5 * time.Second

// restarted: the daemon is killed while another program, as a service manager does,
// holds its sockets. Everything that comes meanwhile waits some seconds for the new
// one, and nothing is deferred.
func (l *lab) restarted(ctx context.Context) error {
	l.daemon.process.stop()
	if err := l.daemon.hold(); err != nil {
		return err
	}
	if err := l.daemon.start(ctx); err != nil {
		return err
	}
	for _, name := range []string{"none", "sts", "rt-dane", "both-partial"} { // connections that will be lost
		if _, err := l.deliver(ctx, "restarted", byName(name), byName(name).want); err != nil {
			return err
		}
	}
	if err := l.whileAway(ctx, "milter, transport, policies", "25"); err != nil {
		return err
	}
	l.each(ctx, "restarted", func(ctx context.Context, p *postfix) error {
		return p.reconfigure(ctx, "transport_maps = inline:{lab.test=discard:}")
	})
	if err := l.whileAway(ctx, "policies", untaggedPort); err != nil {
		return err
	}
	l.each(ctx, "restarted", func(ctx context.Context, p *postfix) error { return p.reconfigure(ctx) })
	l.daemon.process.stop()
	l.daemon.release()
	return l.daemon.start(ctx)
}

// whileAway kills the daemon, has mail come in at a port of every Postfix, starts the
// daemon, and reports what became of the mail at the first attempt.
func (l *lab) whileAway(ctx context.Context, asked, port string) error {
	type one struct {
		message
		mail
		refusal chan error
	}
	var all []one
	for _, p := range l.postfixes {
		for _, name := range []string{"none", "sts", "rt-dane", "both-partial"} {
			s := byName(name)
			if port != "25" && name == "both-partial" { // it needs transport
				continue
			}
			o := one{message: message{scenario: s, postfix: p, recipient: p.name("m", s.domain())}, refusal: make(chan error, 1)}
			o.mail = mail{from: sender, to: []string{o.recipient}, port: port}
			if name == "rt-dane" && port == "25" {
				o.headers = []string{asksForTLS}
			}
			all = append(all, o)
		}
	}
	l.daemon.process.kill()
	for _, o := range all {
		go func() { o.refusal <- o.postfix.submit(o.mail) }()
	}
	select {
	case <-time.After(away):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := l.daemon.start(ctx); err != nil {
		return err
	}
	for _, o := range all {
		what := asked + " waited for, " + o.scenario.name
		if o.headers != nil {
			what += " tagged"
		}
		if err := <-o.refusal; err != nil {
			l.report.add(o.postfix, "restarted", what+": taken", "", []string{err.Error()})
			continue
		}
		d, err := o.postfix.first(ctx, o.recipient)
		l.expectAt(o.postfix, "restarted", what+": sent at once", told(d, err), err == nil && d.status == "sent")
		if o.headers != nil {
			l.onTheWire(o.postfix, "restarted", what, o.recipient, true)
		}
	}
	return nil
}

// hold opens the sockets of the daemon in its place; from now on it is started with
// them (sd_listen_fds(3)).
func (d *daemon) hold() error {
	for _, s := range []struct{ section, file, tcp string }{
		{"socketmap", "map.sock", d.mapping}, {"milter", "milter.sock", d.address + ":8462"}, {"delivery", "lmtp.sock", d.address + ":8463"},
		{"delivery-requiretls", "lmtp-requiretls.sock", d.address + ":8465"}, {"delivery-relaxed", "lmtp-relaxed.sock", d.address + ":8466"},
	} {
		ln, err := net.Listen("tcp", s.tcp)
		if err != nil {
			return err
		}
		if err := d.keep(s.section, ln, ln.(*net.TCPListener).File); err != nil {
			return err
		}
		for _, folder := range d.folders {
			path := filepath.Join(folder, s.file)
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				return err
			}
			ln.SetUnlinkOnClose(false)
			if err := os.Chmod(path, 0o666); err != nil {
				return err
			}
			if err := d.keep(s.section, ln, ln.File); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep takes a duplicate of a listener's socket.
func (d *daemon) keep(section string, ln net.Listener, file func() (*os.File, error)) error {
	f, err := file()
	if err != nil {
		return fmt.Errorf("%s: %w", ln.Addr(), err)
	}
	d.held, d.heldNames = append(d.held, f), append(d.heldNames, section)
	return ln.Close()
}

// release closes the sockets; the daemon makes its own again.
func (d *daemon) release() {
	for _, f := range d.held {
		f.Close()
	}
	d.held, d.heldNames = nil, nil
	for _, folder := range d.folders {
		files, _ := filepath.Glob(filepath.Join(folder, "*.sock"))
		for _, f := range files {
			os.Remove(f)
		}
	}
}

// serve is the command that is the daemon, with the sockets that are held for it.
func (d *daemon) serve() *exec.Cmd {
	if d.held == nil {
		return exec.Command(d.binary, "serve", "--config", d.config)
	}
	// The shell knows the process id before the program starts.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" serve --config "$1"`, d.binary, d.config)
	cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(d.held)), "LISTEN_FDNAMES="+strings.Join(d.heldNames, ":"))
	cmd.ExtraFiles = d.held
	return cmd
}

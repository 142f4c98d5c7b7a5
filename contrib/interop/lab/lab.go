package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// lab is everything that runs.
type lab struct {
	options
	folder    string // of this run: certificates, configs, logs
	sinks     map[string]*sink
	web       *policyHost
	names     *names
	daemon    *daemon
	postfixes []*postfix
	report    report
}

// start brings up the lab in the order in which its parts need each other.
func start(ctx context.Context, o options) (l *lab, err error) {
	l = &lab{options: o, folder: filepath.Join(o.work, "run"), sinks: map[string]*sink{}}
	defer func() {
		if err != nil {
			l.stop()
		}
	}()
	if err := os.RemoveAll(l.folder); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.folder, 0o755); err != nil {
		return nil, err
	}
	if _, err := output(ctx, "ip", "link", "set", "lo", "up"); err != nil {
		return nil, err
	}
	if err := l.startRemote(ctx); err != nil {
		return nil, err
	}
	return l, l.startLocal(ctx)
}

// startRemote brings up the world that mail goes to: SMTP servers, policy
// hosts, DNS.
func (l *lab) startRemote(ctx context.Context) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := ca.write(filepath.Join(l.folder, "ca.pem")); err != nil {
		return err
	}
	for _, suite := range l.suites {
		if err := ca.write(filepath.Join(l.work, suite, "etc/ssl/postseal-lab-ca.pem")); err != nil {
			return err
		}
		server, err := ca.issue(suite+".lab.test", good)
		if err != nil {
			return err
		}
		if err := writeServer(server, filepath.Join(l.work, suite, "etc/ssl/postseal-lab-server.pem")); err != nil {
			return err
		}
	}
	for n, s := range scenarios {
		if s.shares != "" {
			continue
		}
		for i, m := range s.mx {
			k := &sink{name: s.host(i), address: fmt.Sprintf("127.1.%d.%d", n+1, i+1), mx: m, authority: spkiHash(ca.cert)}
			if k.cert, err = ca.issue(k.name, m.cert); err != nil {
				return err
			}
			if err := k.listen(); err != nil {
				return err
			}
			l.sinks[k.name] = k
		}
	}
	if l.web, err = newPolicyHost(ca); err != nil {
		return err
	}
	if err := l.web.start(); err != nil {
		return err
	}
	l.names, err = newNames(ctx, filepath.Join(l.work, "bookworm"), l.folder, l.sinks)
	return err
}

// startLocal brings up the site that sends mail: the daemon and its Postfixes.
func (l *lab) startLocal(ctx context.Context) error {
	var folders []string
	for i, suite := range l.suites {
		p, err := newPostfix(ctx, l.options, l.folder, suite, i+1)
		if err != nil && suite != moving {
			return fmt.Errorf("postfix of %s: %w", suite, err)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "lab: goes on without the Postfix of %s: %v\n", suite, err)
			continue
		}
		l.postfixes = append(l.postfixes, p)
		folders = append(folders, p.socketFolder())
	}
	var err error
	if l.daemon, err = newDaemon(l.folder, l.postseal, "daemon", validating, daemonAddress, folders); err != nil {
		return err
	}
	return l.daemon.start(ctx)
}

// stop ends everything, in the opposite order.
func (l *lab) stop() {
	if l.daemon != nil {
		l.daemon.process.stop()
	}
	for _, p := range l.postfixes {
		p.process.stop()
	}
	if l.names != nil {
		l.names.stop()
	}
	if l.web != nil {
		l.web.stop()
	}
	for _, s := range l.sinks {
		s.close()
	}
}

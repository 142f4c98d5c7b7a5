package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// The daemon is killed every so often, and the log is rotated with some of the kills.
const (
	killEvery   = 1500 * time.Millisecond
	rotateEvery = 3
)

// killed is a mail server whose log is followed by a daemon that is killed.
type killed struct {
	address  string
	daemon   *daemon
	source   string // of the sessions
	messages int
	send     func(to string) error
	name     func(domain string) string // of a recipient
	rotate   func(n int) error
	flush    func() error // everything in the queue is tried
}

// sessionsKill: kill -9 of the daemon, again and again, while mail flows and the log is
// rotated under it: every TLS session that the MX host has seen is counted, and none
// twice. The first Postfix does for all.
func (l *lab) sessionsKill(ctx context.Context) error {
	p := l.postfixes[0]
	defer func() {
		l.daemon.restart(ctx) // as it was
		p.reconfigure(ctx)
	}()
	if err := l.quiet(ctx); err != nil {
		return err
	}
	if err := l.followAnew(ctx, p, logSource(p.log.path, "postfix", "all")); err != nil {
		return err
	}
	k := killed{address: p.address, daemon: l.daemon, source: "postfix", messages: 400}
	k.name = func(domain string) string { return p.name("m", domain) }
	k.send = func(to string) error { return p.patiently(ctx, mail{from: sender, to: []string{to}}) }
	k.rotate = func(n int) error { return p.rotate(ctx, n) }
	k.flush = func() error {
		_, err := p.run(ctx, "postqueue", "-f")
		return err
	}
	return l.countKilled(ctx, p, k)
}

// sessionsOtherKill is sessionsKill for another mail server, which opens its log anew for
// each line.
func (l *lab) sessionsOtherKill(ctx context.Context, o *other) error {
	if err := aside(o.mainlog); err != nil {
		return err
	}
	if err := o.daemon.anew(ctx, logSource(o.mainlog, o.name, "all")); err != nil {
		return err
	}
	k := killed{address: o.address, daemon: o.daemon, source: o.name, messages: 150}
	k.name = func(domain string) string { return o.recipient("m", domain) }
	k.send = func(to string) error {
		return until(ctx, func() error { return mail{from: user + "@" + o.domain, to: []string{to}}.submit(o.address) })
	}
	k.rotate = func(n int) error { return os.Rename(o.mainlog, fmt.Sprintf("%s.%d", o.mainlog, n)) }
	k.flush = func() error {
		_, err := o.run(ctx, o.flush...)
		return err
	}
	return l.countKilled(ctx, nil, k)
}

// countKilled is the story itself.
func (l *lab) countKilled(ctx context.Context, p *postfix, k killed) error {
	s := byName("bulk")
	before := l.tlsSessions(s, k.address)
	kills, rotations, err := l.whilePouring(ctx, k, s)
	if err != nil {
		return err
	}
	seen := l.tlsSessions(s, k.address) - before
	want := counts{fmt.Sprintf("%s %s no-policy-found success by %s", s.domain(), s.host(0), k.source): seen}
	got, err := k.daemon.await(ctx, want)
	if err != nil {
		return err
	}
	l.expectAt(p, "sessions-kill", fmt.Sprintf("%s: all %d messages arrive over kills and rotations", k.source, k.messages),
		fmt.Sprintf("%d kills, %d rotations, %d sessions with the MX host", kills, rotations, seen), kills >= 4 && rotations >= 1)
	l.compareCounts(p, "sessions-kill", k.source+" log, rotated, over kill -9", got, want)
	return nil
}

// tlsSessions counts those of a mail server with the MX hosts of a domain.
func (l *lab) tlsSessions(s scenario, address string) (n int) {
	for i := range s.mx {
		for _, v := range l.sinks[s.host(i)].seen(address) {
			if v.tls {
				n++
			}
		}
	}
	return n
}

// whilePouring kills the daemon now and then until all messages have arrived. Some
// times the log is renamed too, while nobody follows it or just after the start.
func (l *lab) whilePouring(ctx context.Context, k killed, s scenario) (kills, rotations int, err error) {
	var group sync.WaitGroup
	var done atomic.Bool
	var failure error
	due := make([]string, k.messages)
	for i := range due {
		due[i] = k.name(s.domain())
	}
	group.Go(func() {
		defer done.Store(true)
		for _, to := range due {
			if failure = k.send(to); failure != nil {
				return
			}
			time.Sleep(30 * time.Millisecond)
		}
	})
	for err == nil && !done.Load() {
		time.Sleep(killEvery)
		kills++
		k.daemon.process.kill()
		down := kills%(2*rotateEvery) == 0
		up := kills%(2*rotateEvery) == rotateEvery
		if down || up {
			rotations++
		}
		if down {
			err = k.rotate(kills)
		}
		if err == nil {
			err = k.daemon.start(ctx)
		}
		if err == nil && up {
			err = k.rotate(kills)
		}
	}
	group.Wait()
	if err = errors.Join(err, failure); err != nil {
		return kills, rotations, err
	}
	return kills, rotations, l.arrived(ctx, k, due)
}

// arrived waits until the MX hosts have taken what was due.
func (l *lab) arrived(ctx context.Context, k killed, due []string) error {
	flushed := time.Time{}
	return until(ctx, func() error {
		there := map[string]bool{}
		for _, t := range l.taken(func(t taken) bool { return t.from == k.address }) {
			for _, to := range t.to() {
				there[to] = true
			}
		}
		for _, to := range due {
			if there[to] {
				continue
			}
			if time.Since(flushed) > 2*time.Second {
				flushed = time.Now()
				if err := k.flush(); err != nil {
					return err
				}
			}
			return fmt.Errorf("%s has not arrived", to)
		}
		return nil
	})
}

// rotate renames the log, as logrotate does, and tells Postfix, a moment later.
func (p *postfix) rotate(ctx context.Context, n int) error {
	if err := os.Rename(p.log.path, fmt.Sprintf("%s.%d", p.log.path, n)); err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond) // what is written meanwhile goes to the renamed file
	_, err := p.run(ctx, "postfix", "reload")
	return err
}

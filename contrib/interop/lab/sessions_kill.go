package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The story sessions-kill: messages, kills of the daemon, rotations of the log.
const (
	killMessages = 400
	killEvery    = 1500 * time.Millisecond
	rotateEvery  = 3 // kills
)

// sessionsKill: kill -9 of the daemon, again and again, while mail flows and the log is
// rotated under it: every TLS session that the MX host has seen is counted, and none
// twice. The first Postfix does for all, since it is the log that is followed.
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
	s := byName("bulk")
	before := l.tlsSessions(s, p.address)
	kills, rotations, err := l.whilePouring(ctx, p, s, func(n int) error {
		l.daemon.process.kill()
		if n%rotateEvery != 0 {
			return l.daemon.start(ctx)
		}
		if n%(2*rotateEvery) == 0 { // while nobody follows it
			if err := p.rotate(ctx, n); err != nil {
				return err
			}
			return l.daemon.start(ctx)
		}
		if err := l.daemon.start(ctx); err != nil {
			return err
		}
		return p.rotate(ctx, n)
	})
	if err != nil {
		return err
	}
	seen := l.tlsSessions(s, p.address) - before
	want := counts{s.domain() + " " + s.host(0) + " no-policy-found success by postfix": seen}
	got, err := l.daemon.await(ctx, want)
	if err != nil {
		return err
	}
	l.expectAt(p, "sessions-kill", fmt.Sprintf("%d messages arrive, at least 5 kills and 2 rotations meanwhile", killMessages),
		fmt.Sprintf("%d kills, %d rotations, %d sessions with the MX host", kills, rotations, seen), kills >= 5 && rotations >= 2)
	l.compareCounts(p, "sessions-kill", "log, rotated, over kill -9", got, want)
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

// whilePouring kills the daemon now and then until all messages have arrived.
func (l *lab) whilePouring(ctx context.Context, p *postfix, s scenario, kill func(n int) error) (kills, rotations int, err error) {
	var group sync.WaitGroup
	var done atomic.Bool
	failure := make(chan error, 1)
	group.Go(func() {
		defer done.Store(true)
		for range killMessages {
			if err := p.patiently(ctx, mail{from: sender, to: []string{p.name("m", s.domain())}}); err != nil {
				failure <- err
				return
			}
			time.Sleep(30 * time.Millisecond)
		}
	})
	for !done.Load() {
		time.Sleep(killEvery)
		kills++
		if err := kill(kills); err != nil {
			return kills, rotations, err
		}
		if kills%rotateEvery == 0 {
			rotations++
		}
	}
	group.Wait()
	select {
	case err := <-failure:
		return kills, rotations, err
	default:
	}
	return kills, rotations, p.drained(ctx)
}

// drained waits until a Postfix has nothing left to deliver.
func (p *postfix) drained(ctx context.Context) error {
	flushed := time.Time{}
	return until(ctx, func() error {
		if time.Since(flushed) > 2*time.Second {
			flushed = time.Now()
			if _, err := p.run(ctx, "postqueue", "-f"); err != nil {
				return err
			}
		}
		queue, err := p.run(ctx, "postqueue", "-j")
		if err == nil && strings.TrimSpace(queue) != "" {
			err = fmt.Errorf("still in the queue: %s", queue)
		}
		return err
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

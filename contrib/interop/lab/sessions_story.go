package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// sessionsStory: what really happened, counted: each Postfix delivers to domains of
// every outcome, and then "postseal sessions" shows these sessions, no other and none
// twice. Every version is followed by its log; from 3.10 on once more by datagrams, with
// the log for what these lack.
func (l *lab) sessionsStory(ctx context.Context) error {
	defer func() {
		l.daemon.restart(ctx) // as it was
		for _, p := range l.postfixes {
			p.reconfigure(ctx)
		}
	}()
	for _, p := range l.postfixes {
		if err := l.quiet(ctx); err != nil {
			return err
		}
		if err := l.sessionsByLog(ctx, p); err != nil {
			l.report.add(p, "sessions", "the story goes on", "", []string{err.Error()})
		}
		if p.older {
			continue
		}
		if err := l.quiet(ctx); err != nil {
			return err
		}
		if err := l.sessionsByDatagram(ctx, p); err != nil {
			l.report.add(p, "sessions", "the story goes on", "", []string{err.Error()})
		}
	}
	return nil
}

// noQueueRuns keeps Postfix from trying again what was deferred.
const noQueueRuns = "queue_run_delay = 1h"

// quiet empties the queues of all Postfixes, whose retries would be counted.
func (l *lab) quiet(ctx context.Context) error {
	for _, p := range l.postfixes {
		for range 2 { // what is being tried at the moment is deferred, and then deleted
			if _, err := p.run(ctx, "postsuper", "-d", "ALL"); err != nil {
				return err
			}
			if err := p.reconfigure(ctx, noQueueRuns); err != nil {
				return err
			}
		}
	}
	return nil
}

// followAnew has the daemon follow a new log of a Postfix, which then writes that.
func (l *lab) followAnew(ctx context.Context, p *postfix, reporting string, settings ...string) error {
	if err := aside(p.log.path); err != nil {
		return err
	}
	if err := l.daemon.anew(ctx, reporting); err != nil {
		return err
	}
	return p.reconfigure(ctx, append(settings, noQueueRuns)...)
}

func (l *lab) sessionsByLog(ctx context.Context, p *postfix) error {
	if err := l.followAnew(ctx, p, logSource(p.log.path, "postfix", "all")); err != nil {
		return err
	}
	if err := l.everyOutcome(ctx, p); err != nil {
		return err
	}
	foreign := foreignMX
	if p.older { // it looks at the certificate only, which has no name of the policy
		foreign = `
			sts-foreign-mx     mx1 sts certificate-host-mismatch
			testing-foreign-mx mx1 sts validation-failure/mx-not-in-policy
		`
	}
	own := plainSessions + daneSessions + testingSessions + foreign
	if p.native {
		own += clearSessions
	}
	sessions := expected("postfix", own)
	if p.terse {
		sessions = plus(sessions.without(terseDomains...), expected("postfix", terseSessions))
	}
	want := plus(expected("policy", policySessions), sessions, expected("delivery", deliverySessions), expected("postfix", severalRecipients))
	got, err := l.daemon.await(ctx, want)
	if err != nil {
		return err
	}
	l.compareCounts(p, "sessions", "log", got, want)
	if err := l.reused(ctx, p, "log", "postfix"); err != nil {
		return err
	}
	return l.comparePolicies(p, "log")
}

// sessionsByDatagram: Postfix reports by itself. What has no session there comes from
// its log.
func (l *lab) sessionsByDatagram(ctx context.Context, p *postfix) error {
	tlsrpt, err := p.snippet("main_tlsrpt.cf")
	if err != nil {
		return err
	}
	uid, err := p.run(ctx, "id", "-u", "postfix")
	if err != nil {
		return err
	}
	socket := filepath.Join(p.socketFolder(), "tlsrpt.sock")
	reporting := fmt.Sprintf("tlsrpt_socket = %q\ntlsrpt_users = [%q]\nmode = \"0666\"\n", "unix:"+socket, strings.TrimSpace(uid))
	if err := l.followAnew(ctx, p, reporting+logSource(p.log.path, "postfix", "missing"), strings.Split(tlsrpt, "\n")...); err != nil {
		return err
	}
	if err := l.everyOutcome(ctx, p); err != nil {
		return err
	}
	reported := expected("datagram", plainSessions+daneSessions)
	want := plus(expected("policy", policySessions), reported.withoutHosts(), expected("datagram", severalRecipients).withoutHosts(), expected("delivery", deliverySessions),
		expected("postfix", testingSessions+foreignMX))
	got, err := l.daemon.await(ctx, want)
	if err != nil {
		return err
	}
	l.compareCounts(p, "sessions", "datagrams, log for the rest", got, want)
	if err := l.reused(ctx, p, "datagrams", "datagram"); err != nil {
		return err
	}
	return l.comparePolicies(p, "datagrams")
}

// severalRecipients of one message are one session, each domain by itself.
const severalRecipients = `
	none mx1 no-policy-found success
	dane mx1 tlsa success
`

// everyOutcome sends what the tables are about.
func (l *lab) everyOutcome(ctx context.Context, p *postfix) error {
	var sent []string
	send := func(m mail) error {
		m.from = sender
		sent = append(sent, m.to...)
		return p.patiently(ctx, m) // its smtpd may be one of before
	}
	before := map[string]int{}
	for _, name := range inTesting {
		before[name] = l.probes(name)
	}
	for _, name := range append(slices.Clone(inTesting), sentOnce...) {
		if err := send(mail{to: []string{p.name("m", byName(name).domain())}}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	var several []string
	for range 3 {
		several = append(several, p.name("m", byName("none").domain()), p.name("m", byName("dane").domain()))
	}
	relaxed := []string{p.name("m", byName("sts-expired").domain()), p.name("m", byName("dane-mismatch").domain())}
	for _, m := range []mail{{to: several}, {to: relaxed, headers: []string{waivesTLS}}, {to: []string{p.name("m", byName("rt-dane").domain())}, headers: []string{asksForTLS}}} {
		if err := send(m); err != nil {
			return err
		}
	}
	l.expectNo(l.probed(ctx, before), "sessions", "what got mail under a policy in mode testing is probed")
	for _, name := range inTesting {
		if err := send(mail{to: []string{p.name("m", byName(name).domain())}}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, to := range sent {
		if _, err := p.first(ctx, to); err != nil {
			return err
		}
	}
	for name, n := range before {
		l.expectAt(p, "sessions", byName(name).host(0)+" is probed once", fmt.Sprint(l.probes(name)-n), l.probes(name) == n+1)
	}
	return nil
}

// inTesting are domains with a policy in mode testing whose hosts are to be probed.
var inTesting = []string{"testing-good", "sts-testing"}

// probes are the connections that were made to a host to verify it.
func (l *lab) probes(name string) int {
	return len(l.sinks[byName(name).host(0)].seen(daemonAddress))
}

// probed waits until hosts were probed that had been so before times.
func (l *lab) probed(ctx context.Context, before map[string]int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := until(ctx, func() error {
		for name, n := range before {
			if l.probes(name) == n {
				return fmt.Errorf("no probe of %s", byName(name).host(0))
			}
		}
		return nil
	})
	time.Sleep(time.Second) // the conversation goes on, to QUIT
	return err
}

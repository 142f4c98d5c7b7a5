package main

import (
	"context"
	"fmt"
	"slices"
)

// sessionsExim: what Exim did, counted from its events, and then from its main log, in
// which less can be seen.
func (l *lab) sessionsExim(ctx context.Context) error {
	o, err := newExim(ctx, l)
	if err != nil {
		return err
	}
	defer o.stop()
	seen, logged := l.eximSessions()
	if err := l.countOther(ctx, o, "events", "exim_events = true\n"+logSource(o.mainlog, "exim", "missing"), seen); err != nil {
		return err
	}
	// Exim remembers which hosts have failed, and would not try them again so soon.
	const forget = "rm -rf /var/spool/exim4/input/* /var/spool/exim4/db/*"
	if _, err := o.run(ctx, "sh", "-ec", forget); err != nil {
		return err
	}
	if err := l.countOther(ctx, o, "log", logSource(o.mainlog, "exim", "all"), logged); err != nil {
		return err
	}
	if _, err := o.run(ctx, "sh", "-ec", forget); err != nil {
		return err
	}
	return l.sessionsOtherKill(ctx, o)
}

// eximSessions are what Exim's events say, and what its main log says, which differs by
// the library that it is built with.
func (l *lab) eximSessions() (seen, logged counts) {
	own, log := eximOwn, eximLogOnly
	differs := []string{"sts-failover", "mixed-broken"} // in the log
	if l.eximRoot == eximOpenSSL {
		own, log = eximOwnOpenSSL, eximLogOpenSSL
	} else {
		differs = append([]string{"sts-expired", "sts-selfsigned"}, differs...)
	}
	const dane = "dane-ta-wrongname"
	const all = plainSessions + daneSessions + severalRecipients + testingSessions + eximMixed
	delivered := expected("delivery", "rt-dane mx1 tlsa success")
	seen = plus(expected("event", all).without(dane), expected("event", own),
		expected("event", "none-plaintext mx1 no-policy-found starttls-not-supported"), expected("exim", eximForeign), delivered)
	logged = plus(expected("exim", all).without(append(differs, dane)...), expected("exim", own+log+eximForeign), delivered)
	return seen, logged
}

// sessionsSendmail: what Sendmail did, counted from its log.
func (l *lab) sessionsSendmail(ctx context.Context) error {
	o, err := newSendmail(ctx, l)
	if err != nil {
		return err
	}
	defer o.stop()
	none, want := expected("sendmail", "none mx1 no-policy-found success"), expected("sendmail", plainSessions+testingSessions+foreignMX)
	if o.dane {
		want = plus(want, none, expected("sendmail", daneSessions+"dane mx1 tlsa success"), expected("delivery", deliverySessions))
	} else { // each domain with TLSA records goes through the daemon
		want = plus(want, none, expected("delivery", daneSessions+deliverySessions+daemonBoth+"dane mx1 tlsa success"))
	}
	if err := l.countOther(ctx, o, "log", logSource(o.mainlog, "sendmail", "all"), want); err != nil {
		return err
	}
	if _, err := o.run(ctx, "sh", "-ec", "rm -rf /var/spool/mqueue/*"); err != nil {
		return err
	}
	return l.sessionsOtherKill(ctx, o)
}

// countOther has a mail server deliver what the tables are about, and compares.
func (l *lab) countOther(ctx context.Context, o *other, how, reporting string, want counts) error {
	if err := aside(o.mainlog); err != nil {
		return err
	}
	if err := o.daemon.anew(ctx, reporting); err != nil {
		return err
	}
	before := map[string]int{}
	for _, name := range inTesting {
		before[name] = l.probes(name)
	}
	several := map[string][]string{} // of one domain: Sendmail would change the host with each recipient otherwise
	for range 3 {
		for _, name := range []string{"none", "dane"} {
			several[name] = append(several[name], o.recipient("m", byName(name).domain()))
		}
	}
	if o.dane { // Sendmail 8.18 has a session for the first recipient, and one for the others
		several["dane"] = several["dane"][:1]
	}
	mails := []mail{
		{to: several["none"]},
		{to: several["dane"]},
		{to: []string{o.recipient("m", byName("sts-expired").domain()), o.recipient("m", byName("dane-mismatch").domain())}, headers: []string{waiving}},
		{to: []string{o.recipient("m", byName("rt-dane").domain())}, headers: []string{asking}},
	}
	if err := l.attempted(ctx, o, o.one(append(slices.Clone(inTesting), sentOnce...)), mails); err != nil {
		return err
	}
	l.expectNo(l.probed(ctx, before), o.name+" sessions", how+": what got mail under a policy in mode testing is probed")
	if err := l.attempted(ctx, o, o.one(inTesting), nil); err != nil {
		return err
	}
	want = plus(want, expected("policy", policySessions))
	got, err := o.daemon.await(ctx, want)
	if err != nil {
		return err
	}
	for name, n := range before {
		l.expect(o.name+" sessions", how+": "+byName(name).host(0)+" is probed once", fmt.Sprint(l.probes(name)-n), l.probes(name) == n+1)
	}
	name := o.name + " sessions"
	l.compareCounts(nil, name, how, got, want)
	return nil
}

// one is a message for each domain.
func (o *other) one(names []string) (mails []mail) {
	for _, name := range names {
		mails = append(mails, mail{to: []string{o.recipient("m", byName(name).domain())}})
	}
	return mails
}

// attempted submits messages and waits for the first attempt to deliver each.
func (l *lab) attempted(ctx context.Context, o *other, lists ...[]mail) error {
	all := slices.Concat(lists...)
	for _, m := range all {
		m.from = user + "@" + o.domain
		if err := m.submit(o.address); err != nil {
			return fmt.Errorf("submit for %v: %w", m.to, err)
		}
	}
	for _, m := range all {
		for _, to := range m.to {
			if _, err := o.after(ctx, to, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"postseal/cache/boltdb"
	"postseal/reporting"
	"postseal/reporting/store"
)

// sessionsSchema is that of cmd/postseal.
const sessionsSchema = 1

// policies are those that sessions were counted under, by domain: "TYPE
// POLICY-DOMAIN: STRING; STRING …", as reports will have them. The daemon must not run; a
// copy is looked at, so as to change nothing.
func (d *daemon) policies() (map[string][]string, error) {
	copied := filepath.Join(d.folder, "sessions-copy.db")
	if err := copyFile(copied, filepath.Join(d.folder, "state/sessions.db")); err != nil {
		return nil, err
	}
	db, err := boltdb.Open(copied, boltdb.Options{Schema: sessionsSchema, Buckets: store.Buckets})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	s := &store.Store{DB: db}
	days, err := s.Days()
	if err != nil {
		return nil, err
	}
	all := map[string][]string{}
	for _, day := range days {
		err := s.Each(day, "", func(k reporting.Key, p reporting.Policy, _ uint64) bool {
			text := fmt.Sprintf("%s %s: %s", p.Type, p.Domain, strings.Join(p.Strings, "; "))
			if !slices.Contains(all[k.Domain], text) {
				all[k.Domain] = append(all[k.Domain], text)
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// comparePolicies: each session stands under the policy that the daemon had answered,
// with all its strings, and one policy is one whoever tells of it (RFC 8460 §4.4).
func (l *lab) comparePolicies(p *postfix, how string) error {
	l.daemon.process.stop()
	all, err := l.daemon.policies()
	if err != nil {
		return err
	}
	sts := func(name string) string {
		s := byName(name)
		return "sts " + s.domain() + ": " + strings.ReplaceAll(strings.TrimSpace(s.policy()), "\n", "; ")
	}
	host := func(name string) *sink { return l.sinks[byName(name).host(0)] }
	for name, want := range map[string]string{
		"none":        "no-policy-found " + byName("none").domain() + ": ",
		"sts":         sts("sts"),
		"sts-expired": sts("sts-expired"),
		"sts-testing": sts("sts-testing"),
		"dane":        "tlsa " + host("dane").name + ": 3 1 1 " + spkiHash(host("dane").cert.Leaf),
		"dane-ta":     "tlsa " + host("dane-ta").name + ": 2 1 1 " + host("dane-ta").authority,
	} {
		got := all[byName(name).domain()]
		l.expectAt(p, "sessions", how+": "+want, strings.Join(got, " | "), len(got) == 1 && got[0] == want)
	}
	return nil
}

// reused: messages that go down a connection that is open already are no sessions
// (RFC 8460 §4.2). The MX host says how many there were.
func (l *lab) reused(ctx context.Context, p *postfix, how, source string) error {
	s := byName("bulk")
	before, err := l.daemon.sessions(ctx)
	if err != nil {
		return err
	}
	open := l.tlsSessions(s, p.address)
	if _, err := p.run(ctx, "postsuper", "-d", "ALL"); err != nil { // a reload tries what was deferred
		return err
	}
	reuse := []string{"smtp_tls_connection_reuse = yes", "smtp_connection_cache_destinations = " + s.domain()}
	if err := p.reconfigure(ctx, append(slices.Clone(p.extra), reuse...)...); err != nil {
		return err
	}
	const messages = 8
	for range messages {
		to := p.name("m", s.domain())
		if err := p.patiently(ctx, mail{from: sender, to: []string{to}}); err != nil {
			return err
		}
		if _, err := p.first(ctx, to); err != nil {
			return err
		}
	}
	there := l.tlsSessions(s, p.address) - open
	l.expectAt(p, "sessions", how+": connections are reused", fmt.Sprintf("%d messages, %d sessions", messages, there), there > 0 && there < messages)
	more := counts{fmt.Sprintf("%s %s no-policy-found success by %s", s.domain(), s.host(0), source): there}
	if source == "datagram" {
		more = more.withoutHosts()
	}
	got, err := l.daemon.await(ctx, plus(before, more))
	if err != nil {
		return err
	}
	l.report.add(p, "sessions", fmt.Sprintf("%s: %d sessions more for %d messages", how, there, messages), fmt.Sprint(got.total()-before.total()), got.differs(plus(before, more)))
	return nil
}

package main

import (
	"context"
	"fmt"
	"regexp"
	"time"
)

// story is a scenario in which something changes while mail is under way. Its
// function reports what it checks by itself, and returns an error if it could
// not go on.
type story struct {
	name string
	tell func(*lab, context.Context) error
}

// stories are told in this order; each leaves the lab as the next one expects it.
var stories = []story{
	{"explain", (*lab).explain},
	{"doors", (*lab).doors},
	{"cache", (*lab).cache},
	{"withdrawn", (*lab).withdrawn},
	{"exempted", (*lab).exempted},
	{"required", (*lab).required},
	{"daemon-down", (*lab).daemonDown},
	{"outage", (*lab).outage},
	{"no-validation", (*lab).noValidation},
}

func (l *lab) runStories(ctx context.Context) {
	for _, s := range stories {
		if !l.wants(s.name) {
			continue
		}
		if err := s.tell(l, ctx); err != nil {
			l.report.add(nil, s.name, "the story goes on", "", []string{err.Error()})
		}
	}
}

// expect reports one check of a story that has no Postfix in it.
func (l *lab) expect(name, expected, seen string, good bool) {
	var problems []string
	if !good {
		problems = []string{seen}
	}
	l.report.add(nil, name, expected, seen, problems)
}

// deliver sends a message to a domain through every Postfix, and reports on the
// first attempt.
func (l *lab) deliver(ctx context.Context, name string, s scenario, want outcome) ([]message, error) {
	var sent []message
	for _, p := range l.postfixes {
		m, err := l.send(s, p)
		if err != nil {
			return nil, err
		}
		sent = append(sent, m)
	}
	for _, m := range sent {
		seen, problems := l.judge(ctx, m, want)
		l.report.add(m.postfix, name, want.String(), seen, problems)
	}
	return sent, nil
}

// redeliver has every Postfix try the messages again until they are sent, and
// reports how.
func (l *lab) redeliver(ctx context.Context, name, after string, sent []message, want outcome) {
	begin := time.Now()
	for _, m := range sent {
		expected := after + ": " + want.String()
		d, err := m.postfix.first(ctx, m.recipient)
		if err == nil {
			d, err = m.postfix.retry(ctx, d)
		}
		if err != nil {
			l.report.add(m.postfix, name, expected, "", []string{err.Error()})
			continue
		}
		seen, problems := l.compare(m, d, want)
		l.report.add(m.postfix, name, expected, fmt.Sprintf("%s, after %.1f s", seen, time.Since(begin).Seconds()), problems)
	}
}

// withdrawn: a domain whose certificate is broken changes its policy from
// enforce to none, under a new id. Its mail goes out when the TXT record's TTL
// has run out; the body alone would have been good for a day.
func (l *lab) withdrawn(ctx context.Context) error {
	s := byName("withdrawn")
	sent, err := l.deliver(ctx, "withdrawn", s, s.want)
	if err != nil {
		return err
	}
	l.web.publish(s.domain(), policyText("none", nil, s.fill))
	l.names.ids[s.domain()] = "2"
	if err := l.names.change(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 6*stsTTL) // the TTL, and time to retry on a slow machine
	defer cancel()
	l.redeliver(ctx, "withdrawn", fmt.Sprintf("none, new id, TTL %s", stsTTL), sent, sentOver("Untrusted"))
	return nil
}

// exempted: the operator lets mail to a domain with a broken certificate go.
func (l *lab) exempted(ctx context.Context) error {
	s := byName("exempted")
	sent, err := l.deliver(ctx, "exempted", s, s.want)
	if err != nil {
		return err
	}
	if _, err := l.daemon.command(ctx, "override", "set", "--reason", "lab", s.domain(), "exempt"); err != nil {
		return err
	}
	l.redeliver(ctx, "exempted", "override exempt", sent, sentOver("Untrusted"))
	return nil
}

// required: the operator requires TLS for a domain that publishes nothing, and
// later no more.
func (l *lab) required(ctx context.Context) error {
	s := byName("required")
	if _, err := l.daemon.command(ctx, "override", "set", "--reason", "lab", "--level", "encrypt", s.domain(), "require"); err != nil {
		return err
	}
	sent, err := l.deliver(ctx, "required", s, refused("TLS is required, but was not offered"))
	if err != nil {
		return err
	}
	if _, err := l.daemon.command(ctx, "override", "remove", s.domain()); err != nil {
		return err
	}
	l.redeliver(ctx, "required", "override removed", sent, sentOver("plaintext"))
	return nil
}

// doors: the same decision in the words of every mail server.
func (l *lab) doors(ctx context.Context) error {
	sts, dane, none := byName("sts"), byName("dane"), byName("none")
	secure := sts.fill("OK secure match=mx1.{D} servername=hostname")
	for _, c := range []struct {
		mapName string
		of      scenario
		want    string // regular expression
	}{
		{"sts", sts, "^" + secure + "$"},
		{"sts", dane, "^NOTFOUND $"},
		{"QUERY", sts, "^" + secure},
		{"QUERYwithTLSRPT", sts, "^" + secure + " policy_type=sts"},
		{"QUERY", dane, "^OK dane-only"},
		{"transport", sts, "^NOTFOUND $"},
		{"mailertable", sts, "^NOTFOUND $"},
		{"nonsense", sts, "^TEMP "},
	} {
		reply, err := l.daemon.ask(c.mapName, c.of.domain())
		if err != nil {
			return err
		}
		l.expect("doors", c.mapName+" "+c.of.domain()+": "+c.want, reply, regexp.MustCompile(c.want).MatchString(reply))
	}
	for s, want := range map[*scenario]string{&sts: "^v=1 mode=enforce ignore=", &dane: "^v=1 mode=none", &none: "^v=1 mode=none"} {
		reply, err := l.daemon.askExim("policy  " + s.domain())
		if err != nil {
			return err
		}
		l.expect("doors", "Exim "+s.domain()+": "+want, reply, regexp.MustCompile(want).MatchString(reply))
	}
	return nil
}

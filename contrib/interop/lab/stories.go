package main

import (
	"context"
	"fmt"
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
	{"requiretls", (*lab).requireTLS},
	{"requiretls-asked", (*lab).requireTLSAsked},
	{"requiretls-codes", (*lab).requireTLSCodes},
	{"relaxed", (*lab).relaxed},
	{"mixed", (*lab).mixed},
	{"transport", (*lab).transport},
	{"native", (*lab).native},
	{"daemon-down", (*lab).daemonDown},
	{"flowing", (*lab).flowing},
	{"restarted", (*lab).restarted},
	{"milter-down", (*lab).milterDown},
	{"sessions", (*lab).sessionsStory},
	{"sessions-kill", (*lab).sessionsKill},
	{"reports", (*lab).reportsStory},
	{"kill", (*lab).kill},
	{"throughput", (*lab).throughput},
	{"outage", (*lab).outage},
	{"no-validation", (*lab).noValidation},
	{"sendmail", (*lab).sendmail},
	{"exim", (*lab).exim},
	{"sessions-exim", (*lab).sessionsExim},
	{"sessions-sendmail", (*lab).sessionsSendmail},
	{"fresh-postfix", (*lab).freshPostfix},
	{"fresh-exim", (*lab).freshExim},
	{"fresh-sendmail", (*lab).freshSendmail},
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

// each tells a story, or a part of it, with every Postfix by itself. If it cannot
// go on with one, that is a failure of this one, which may not gate.
func (l *lab) each(ctx context.Context, name string, tell func(context.Context, *postfix) error) {
	for _, p := range l.postfixes {
		if err := tell(ctx, p); err != nil {
			l.report.add(p, name, "the story goes on", "", []string{err.Error()})
		}
	}
}

// expect reports one check of a story that has no Postfix in it.
func (l *lab) expect(name, expected, seen string, good bool) {
	var problems []string
	if !good {
		problems = []string{"seen: " + seen}
	}
	l.report.add(nil, name, expected, seen, problems)
}

// expectAt reports one check of what a Postfix did.
func (l *lab) expectAt(p *postfix, name, expected, seen string, good bool) {
	var problems []string
	if !good {
		problems = []string{"seen: " + seen}
	}
	l.report.add(p, name, expected, seen, problems)
}

// told is an attempt to deliver in a few words, or why there is none.
func told(d delivery, err error) string {
	if err != nil {
		return err.Error()
	}
	return d.status + " " + d.dsn + " by " + d.agent + ": " + d.text
}

// orTaken is what a submission got for an answer.
func orTaken(err error) string {
	if err != nil {
		return err.Error()
	}
	return "taken"
}

// expectNo reports that something went as expected unless there is an error.
func (l *lab) expectNo(err error, name, expected string) {
	seen := "so it is"
	if err != nil {
		seen = err.Error()
	}
	l.expect(name, expected, seen, err == nil)
}

// deliver sends a message to a domain through every Postfix, and reports on the
// first attempt.
func (l *lab) deliver(ctx context.Context, name string, s scenario, want outcome) ([]message, error) {
	var sent []message
	l.each(ctx, name, func(_ context.Context, p *postfix) error {
		m, err := l.send(s, p)
		if err == nil {
			sent = append(sent, m)
		}
		return err
	})
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

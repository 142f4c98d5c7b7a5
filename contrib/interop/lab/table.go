package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// message is one mail on its way to a scenario's domain through one Postfix.
type message struct {
	scenario  scenario
	postfix   *postfix
	recipient string
	before    int // connections to the domain's MX hosts before it was sent
}

func (l *lab) send(s scenario, p *postfix) (message, error) {
	m := message{scenario: s, postfix: p, before: l.visits(s, p)}
	var err error
	m.recipient, err = p.send(s.domain())
	return m, err
}

// runTable sends a message to every domain of the table through every Postfix
// and reports what became of it.
func (l *lab) runTable(ctx context.Context) {
	var sent []message
	for _, s := range scenarios {
		if !l.wants(s.name) {
			continue
		}
		for _, p := range l.postfixes {
			m, err := l.send(s, p)
			if err != nil {
				l.report.add(p, s.name, "", "", []string{"cannot submit: " + err.Error()})
				continue
			}
			sent = append(sent, m)
		}
	}
	for _, m := range sent {
		want := m.scenario.outcome(m.postfix.older)
		seen, problems := l.judge(ctx, m, want)
		reply, wrong := l.ask(m.scenario, m.postfix)
		l.report.add(m.postfix, m.scenario.name, level(m.scenario.answer)+": "+want.String(), level(reply)+": "+seen, append(problems, wrong...))
	}
}

// judge waits for the first attempt to deliver a message and compares it with
// what is wanted. It returns what was seen, in words, and what was wrong.
func (l *lab) judge(ctx context.Context, m message, want outcome) (seen string, problems []string) {
	d, err := m.postfix.first(ctx, m.recipient)
	if err != nil {
		return "nothing", []string{err.Error()}
	}
	return l.compare(m, d, want)
}

// compare is judge for an attempt that is known.
func (l *lab) compare(m message, d delivery, want outcome) (seen string, problems []string) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	seen = d.status
	if d.status != want.status {
		wrong("status %s", d.status)
	}
	taken := l.takenFor(d.recipient)
	if (len(taken) == 1) != (want.status == "sent") {
		wrong("MX hosts took the message %d times", len(taken))
	}
	if len(taken) > 0 {
		word := d.tls()
		seen += ", " + word
		if encrypted := taken[0].tls; word != want.tls || encrypted != (want.tls != "plaintext") {
			wrong("the session was %s, and encrypted: %t", word, encrypted)
		}
	}
	// The daemon may have had a session open, which another message has paid for. Where the
	// MX record is forged, others have business with that host.
	contact := len(taken) > 0 || l.visits(m.scenario, m.postfix) > m.before && !m.scenario.forged
	if contact != want.contact {
		wrong("an MX host was contacted: %t", contact)
	} else if !contact {
		seen += ", no contact"
	}
	if pattern := m.postfix.words(want.log); pattern != "" {
		at, found := d.says(regexp.MustCompile(pattern))
		if !found {
			wrong("no line of the log matches %q", pattern)
		}
		seen += ": " + at
	}
	if problems != nil {
		problems = append(problems, d.lines...)
	}
	return seen, problems
}

// visits counts the connections of a Postfix, and of the daemon, to the MX hosts
// of a domain.
func (l *lab) visits(s scenario, p *postfix) int {
	n := 0
	for i := range s.mx {
		n += len(l.sinks[s.host(i)].seen(p.address)) + len(l.sinks[s.host(i)].seen(daemonAddress))
	}
	return n
}

// taken returns the messages that MX hosts have taken and that match.
func (l *lab) taken(match func(taken) bool) []taken {
	var all []taken
	for _, s := range l.sinks {
		for _, v := range s.seen("") {
			for _, t := range v.taken {
				if match(t) {
					all = append(all, t)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b taken) int { return a.at.Compare(b.at) })
	return all
}

// takenFor returns the messages that MX hosts have taken for a recipient.
func (l *lab) takenFor(recipient string) []taken {
	return l.taken(func(t taken) bool { return slices.Contains(t.to(), recipient) })
}

// ask asks the daemon what it tells Postfix of the domain, and returns that and
// what is wrong with it.
func (l *lab) ask(s scenario, p *postfix) (reply string, problems []string) {
	reply, err := l.daemon.ask(p.mapName(), s.domain())
	if err != nil {
		return "", []string{err.Error()}
	}
	if !strings.HasPrefix(reply, s.fill(s.answer)) {
		problems = []string{fmt.Sprintf("the map %s answers %q, not %q", p.mapName(), reply, s.fill(s.answer))}
	}
	return reply, problems
}

// level is the first word of an answer that says something: "dane-only",
// "NOTFOUND", "TEMP".
func level(answer string) string {
	word, _, _ := strings.Cut(strings.TrimPrefix(answer, "OK "), " ")
	return word
}

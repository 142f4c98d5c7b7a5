package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// wire is how an MX host took a message.
type wire string

const (
	nowhere   wire = ""
	clear     wire = "in plaintext"
	encrypted wire = "over TLS"
	required  wire = "with REQUIRETLS"
)

// fate is what must become of the copy for one recipient of a message.
type fate struct {
	local    string // local part: it scripts the sink's reply, see rcptReply
	scenario string // of the domain; "": the server's own domain
	suffix   string // that the client adds to the recipient
	status   string // "sent", "deferred", "bounced"
	via      string // regular expression: mailer or transport
	wire     wire
	log      string // regular expression that the line of the log matches
}

func (f fate) String() string {
	text := f.local + "@" + f.scenario + f.suffix + " " + f.status + " by " + f.via
	if f.wire != nowhere {
		text += " " + string(f.wire)
	}
	if f.log != "" {
		text += ": " + f.log
	}
	return text
}

// follow submits a message to one recipient for each fate, and reports on the
// first attempts. It returns the recipients.
func (l *lab) follow(ctx context.Context, o *other, chapter string, m mail, fates []fate) ([]string, error) {
	for _, f := range fates {
		domain := ""
		if f.scenario != "" {
			domain = byName(f.scenario).domain()
		}
		m.to = append(m.to, o.recipient(f.local, domain))
	}
	before := make([]int, len(fates)) // of the user's, who gets more than one message
	for i, to := range m.to {
		all, err := o.attempts(to)
		if err != nil {
			return nil, err
		}
		before[i] = len(all)
	}
	recipients := slices.Clone(m.to)
	for i, f := range fates {
		m.to[i] += f.suffix
	}
	if m.from == "" {
		m.from = user + "@" + o.domain
	}
	if err := m.submit(o.address); err != nil {
		return nil, fmt.Errorf("submit: %w", err)
	}
	for i, f := range fates {
		a, err := o.after(ctx, recipients[i], before[i])
		if err != nil {
			l.report.add(nil, o.name+" "+chapter, f.String(), "", []string{err.Error()})
			continue
		}
		seen, problems := l.met(o, a, f)
		l.report.add(nil, o.name+" "+chapter, f.String(), seen, problems)
	}
	return recipients, nil
}

// met compares an attempt, and what the MX hosts saw, with what must be.
func (l *lab) met(o *other, a attempt, f fate) (seen string, problems []string) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	seen = a.status + " by " + a.via
	if a.status != f.status {
		wrong("status %s", a.status)
	}
	if !regexp.MustCompile("^(" + f.via + ")$").MatchString(a.via) {
		wrong("by %s", a.via)
	}
	if at := regexp.MustCompile(f.log).FindString(a.text); f.log != "" {
		seen += ": " + at
		if at == "" {
			wrong("the line does not match %q", f.log)
		}
	}
	how := nowhere
	taken := l.takenFor(a.recipient)
	if len(taken) > 0 {
		how = onWire(taken[0])
		client := o.address
		if strings.HasPrefix(a.via, o.hands) {
			client = daemonAddress // where it connects from is up to the kernel
		}
		if taken[0].from != client {
			wrong("the MX host's client was %s", taken[0].from)
		}
		seen += " " + string(how)
	}
	if how != f.wire || len(taken) > 1 {
		wrong("MX hosts took it %d times, %s", len(taken), how)
	}
	if problems != nil {
		problems = append(problems, a.text)
	}
	return seen, problems
}

// onWire says how an MX host took a message.
func onWire(t taken) wire {
	switch {
	case !t.tls:
		return clear
	case strings.HasSuffix(strings.ToUpper(t.mail), " REQUIRETLS") || strings.Contains(strings.ToUpper(t.mail), " REQUIRETLS "):
		return required
	}
	return encrypted
}

// The headers by which a client asks (RFC 8689 §3, and the one of Postfix 3.11).
const (
	asking  = "Require-TLS-ESMTP: yes"
	waiving = "TLS-Required: No"
)

// secret is in the text of messages whose bounces must not carry it.
const secret = "the secret of this message"

// chapter is a part of the story of one mail server: a message, and its fates.
type chapter struct {
	name  string
	mail  mail
	fates []fate
}

// untagged checks that nothing which marks a message on its way inside ever reached
// an MX host.
func (l *lab) untagged(o *other, chapter string) {
	var problems []string
	for _, s := range l.sinks {
		for _, v := range s.seen("") {
			for _, line := range v.lines {
				if strings.Contains(strings.ToLower(line), ".invalid") {
					problems = append(problems, s.name+": "+line)
				}
			}
			for _, t := range v.taken {
				if tag := t.header("X-Postseal-Route"); tag != nil {
					problems = append(problems, s.name+": X-Postseal-Route: "+tag[0])
				}
			}
		}
	}
	l.report.add(nil, o.name+" "+chapter, "no suffix and no tag has reached an MX host", "so it is", problems)
}

// bounced checks the bounce for a recipient: it is there, says why, and has no text
// of the message.
func (l *lab) bounced(ctx context.Context, o *other, chapter, recipient, why string) {
	err := until(ctx, func() error {
		box, err := o.mailbox()
		if err != nil {
			return err
		}
		for _, text := range box {
			if !strings.Contains(text, "multipart/report") || !strings.Contains(text, recipient) || !strings.Contains(text, why) {
				continue
			}
			if strings.Contains(text, secret) {
				return fmt.Errorf("%w: the bounce carries the text of the message:\n%s", errHopeless, text)
			}
			return nil
		}
		return fmt.Errorf("no bounce for %s with %q among %d messages", recipient, why, len(box))
	})
	l.expectNo(err, o.name+" "+chapter, "bounce for "+recipient+": "+why+", headers only")
}

// back has the mail server try what waited for the daemon.
func (l *lab) back(ctx context.Context, o *other, to []string, want []wire) {
	for i, to := range to {
		err := o.retry(ctx, to)
		if taken := l.takenFor(to); err == nil && (len(taken) != 1 || onWire(taken[0]) != want[i]) {
			err = fmt.Errorf("%d times: %v", len(taken), taken)
		}
		l.expectNo(err, o.name+" down", "daemon back: "+to+" "+string(want[i]))
	}
}

// oneLine is a text for the report.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

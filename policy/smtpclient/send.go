package smtpclient

import (
	"context"
	"io"
	"net"
	"strings"
)

// A group of pipelined commands is small enough for the buffers of both sides, or
// each could wait for the other to read (RFC 2920 §3.1).
const (
	maxGroup      = 50
	maxGroupBytes = 8 << 10
)

// Send runs one transaction. size is that of data, in octets as it stands there:
// lines end in CRLF, dots are not doubled. Where the host lacks 8BITMIME or SMTPUTF8,
// an [io.Seeker] is read twice, to find out whether the message needs it; of
// another reader it is believed if the envelope says so.
//
// Nothing counts as delivered but what has a reply of class 2 (RFC 5321 §4.2.5). After
// ctx ends the session is of no use.
func (s *Session) Send(ctx context.Context, e *Envelope, data io.Reader, size int64) Result {
	t := &transaction{s: s, e: e, data: data, size: size}
	t.Replies = make([]Reply, len(e.To))
	done := s.during(ctx)
	defer done()
	t.Failure = t.run()
	t.settle()
	return t.Result
}

// transaction is one on its way.
type transaction struct {
	Result
	s        *Session
	e        *Envelope
	data     io.Reader
	size     int64
	mail     string   // the commands
	rcpts    []string // "" for a recipient that cannot be sent
	accepted []int    // recipients
	over     bool     // MAIL was refused
}

func (t *transaction) run() *Failure {
	s := t.s
	if s.broken || s.ended.Load() {
		return s.fail(StageMail, net.ErrClosed, 451, "4.4.2", "the connection is closed")
	}
	if f := t.prepare(); f != nil {
		return f
	}
	if strings.Join(t.rcpts, "") == "" { // no recipient can be sent
		return nil
	}
	if s.dirty {
		if f := s.reset(); f != nil {
			return f
		}
	}
	s.dirty = true
	var answered answer
	var f *Failure
	if s.Offers("PIPELINING") {
		answered, f = t.pipelined()
	} else {
		answered, f = t.stepwise()
	}
	if f != nil {
		return f
	}
	if answered.code == 0 { // DATA was not said
		return nil
	}
	return t.content(answered)
}

// stepwise waits for each reply before the next command.
func (t *transaction) stepwise() (answer, *Failure) {
	s := t.s
	a, f := s.command(StageMail, s.limits.Mail, t.mail, "MAIL")
	if f == nil {
		f = t.mailReply(a)
	}
	if f != nil || t.over {
		return answer{}, f
	}
	for i, line := range t.rcpts {
		if line == "" {
			continue
		}
		a, f := s.command(StageRcpt, s.limits.Rcpt, line, "RCPT")
		if f == nil {
			f = t.rcptReply(i, a)
		}
		if f != nil {
			return answer{}, f
		}
	}
	if len(t.accepted) == 0 { // RFC 5321 §4.1.1.4
		return answer{}, nil
	}
	return s.command(StageData, s.limits.Data, "DATA", "DATA")
}

// pipelined sends groups of commands, and reads their replies in order (RFC 2920
// §3.1). DATA goes with the last group if a recipient may have been accepted
// by then, and else after the reply.
func (t *transaction) pipelined() (answer, *Failure) {
	s := t.s
	lines := append([]string{t.mail}, t.rcpts...)
	for start := 0; start < len(lines) && !t.over; {
		end := group(lines, start)
		for i, line := range lines[start:end] {
			if line == "" {
				continue
			}
			if f := s.say(stageOf(start+i), line, "commands"); f != nil {
				return answer{}, f
			}
		}
		data := end == len(lines) && (start == 0 || len(t.accepted) > 0)
		if data {
			if f := s.say(StageData, "DATA", "commands"); f != nil {
				return answer{}, f
			}
		}
		if f := s.flush(stageOf(start), "commands"); f != nil {
			return answer{}, f
		}
		if f := t.replies(lines, start, end); f != nil {
			return answer{}, f
		}
		if data {
			return s.read(StageData, s.limits.Data, "DATA")
		}
		start = end
	}
	if len(t.accepted) == 0 {
		return answer{}, nil
	}
	return s.command(StageData, s.limits.Data, "DATA", "DATA")
}

// group is the end of the group that begins with lines[start].
func group(lines []string, start int) (end int) {
	size := 0
	for end = start; end < len(lines) && end-start < maxGroup; end++ {
		size += len(lines[end])
		if size > maxGroupBytes && end > start {
			break
		}
	}
	return end
}

func stageOf(line int) Stage {
	if line == 0 {
		return StageMail
	}
	return StageRcpt
}

// replies reads those to lines[start:end].
func (t *transaction) replies(lines []string, start, end int) *Failure {
	s := t.s
	for i := start; i < end; i++ {
		if lines[i] == "" {
			continue
		}
		verb, limit := "RCPT", s.limits.Rcpt
		if i == 0 {
			verb, limit = "MAIL", s.limits.Mail
		}
		a, f := s.read(stageOf(i), limit, verb)
		switch {
		case f != nil:
		case i == 0:
			f = t.mailReply(a)
		default:
			f = t.rcptReply(i-1, a)
		}
		if f != nil {
			return f
		}
	}
	return nil
}

func (t *transaction) mailReply(a answer) *Failure {
	switch a.class() {
	case 2:
		return nil
	case 3:
		return t.s.unexpected(StageMail, a, "MAIL")
	}
	t.all(a)
	return nil
}

// all takes a refusal that is for every recipient that has none yet.
func (t *transaction) all(a answer) {
	t.over = true
	for i, r := range t.Replies {
		if r.Code == 0 {
			t.Replies[i] = a.Reply()
		}
	}
}

func (t *transaction) rcptReply(i int, a answer) *Failure {
	switch {
	case a.class() == 3:
		return t.s.unexpected(StageRcpt, a, "RCPT")
	case t.over: // of no meaning after MAIL was refused
	case a.class() == 2:
		t.accepted = append(t.accepted, i)
	default:
		r, many := tooMany(a.Reply(), len(t.accepted) > 0)
		t.Replies[i] = r
		if many {
			t.Rest = append(t.Rest, i)
		}
	}
	return nil
}

// tooMany tells a limit on recipients, which others have used up, from what is wrong
// with this one. 552 was its code before RFC 5321, and is then as temporary as 452
// (RFC 5321 §4.5.3.1.10).
func tooMany(r Reply, others bool) (Reply, bool) {
	said := strings.HasSuffix(r.Enhanced, ".5.3") // RFC 3463 §3.6: too many recipients
	none := strings.HasSuffix(r.Enhanced, ".0.0")
	many := said || none && (r.Code == 452 || r.Code == 552)
	if many && (r.Code == 552 || others && r.Code/100 == 5) {
		r.Code, r.Enhanced = 452, "4.5.3"
	}
	return r, many && others
}

// settle says what the transaction left.
func (t *transaction) settle() {
	s := t.s
	// What is said without being asked would be taken for the next reply.
	t.Usable = !s.broken && !s.ended.Load() && s.r.Buffered() == 0
	if t.Failure != nil {
		return
	}
	for i := range t.Replies {
		if t.Replies[i].Code == 0 { // not to happen
			t.Failure = s.fail(StageRcpt, nil, 451, "4.5.0", "no reply for a recipient")
		}
	}
}

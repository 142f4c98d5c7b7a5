package smtpclient

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Stage of a conversation.
type Stage uint8

const (
	StageConnect Stage = iota
	StageGreeting
	StageHello
	StageSTARTTLS  // not offered, or refused
	StageHandshake // TLS failed
	StageVerify    // TLS came up, but does not prove what is demanded
	StageKeyword   // REQUIRETLS is not offered
	StageMail      // refused, or cannot be sent to this host as it is
	StageRcpt
	StageData
	StageEnd    // after the last dot
	StageReset  // between transactions
	StagePolicy // before any connection: what is known of the host forbids one
)

func (s Stage) String() string {
	return [...]string{
		"connect", "greeting", "hello", "starttls", "handshake", "verify", "keyword",
		"mail", "rcpt", "data", "end", "reset", "policy",
	}[s]
}

// Failure is the error of this package.
type Failure struct {
	Stage  Stage
	Result string // RFC 8460 §4.3 result type if it is about TLS, e.g. "starttls-not-supported"; else ""
	Reason string // failure-reason-code (RFC 8460 §4.4): short, printable
	Reply  Reply  // for the mail server, always of class 4 or 5; the words name host and address
	Remote bool   // the host itself said so: Reply has its enhanced code and quotes its reply
	Broken bool   // the connection broke or fell silent, which may be chance
	Err    error
	Info   Info // of a Failure of Connect: what was known of the session by then
}

func (f *Failure) Error() string { return f.Reply.Text }
func (f *Failure) Unwrap() error { return f.Err }

// Temporary reports whether another attempt at this host may succeed. A failure
// that is not temporary is definitive: for REQUIRETLS, that the host does not do
// what RFC 8689 §4.2.1 demands; else that it never takes mail (RFC 7504), or cannot
// take this message. What is unreachable, or says so with class 4, may do better
// later, whatever is demanded.
func (f *Failure) Temporary() bool { return f.Reply.Code/100 == 4 }

// Policy reports whether the host could be reached but must not be used, which
// says more than that another could not be reached.
func (f *Failure) Policy() bool {
	return f.Stage >= StageSTARTTLS && f.Stage <= StageKeyword || f.Stage == StagePolicy
}

// failure makes a failure with our own words.
func failure(stage Stage, err error, code int, enhanced, format string, args ...any) *Failure {
	text := fmt.Sprintf(format, args...)
	return &Failure{Stage: stage, Err: err, Reply: Reply{code, enhanced, clip(text, maxText)}}
}

// about adds what reports need.
func (f *Failure) about(result, reason string) *Failure {
	f.Result, f.Reason = result, clip(reason, maxReason)
	return f
}

// fail makes a failure that names host and address.
func (s *Session) fail(stage Stage, err error, code int, enhanced, format string, args ...any) *Failure {
	return failure(stage, err, code, enhanced, "%s: "+format, append([]any{s.target}, args...)...)
}

// refused is a failure of which the host itself told the reason. 421 says that
// the connection ends, not what is wrong with a message, so it never
// reaches a mail server, which would take it for our own end (RFC 5321 §3.8).
func (s *Session) refused(stage Stage, a answer, while string) *Failure {
	r := a.Reply()
	said := fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text)
	f := s.fail(stage, nil, r.Code, r.Enhanced, "said %q in reply to %s", said, while)
	f.Remote = true
	if r.Code == 421 {
		s.broken = true
		f.Reply.Code = 451
	}
	return f
}

// deferred is refused, but temporary whatever the host said.
func (s *Session) deferred(stage Stage, a answer, while string) *Failure {
	f := s.refused(stage, a, while)
	if !f.Temporary() {
		f.Reply.Code, f.Reply.Enhanced = 451, "4"+f.Reply.Enhanced[1:]
	}
	return f
}

// lost is a failure to read or write. The connection is of no use then.
func (s *Session) lost(stage Stage, err error, limit time.Duration, while string) *Failure {
	s.broken = true
	if bad, ok := errors.AsType[*replyError](err); ok {
		return s.fail(stage, err, 451, "4.5.0", "protocol error while %s: %s", while, bad.what)
	}
	f := s.wordLoss(stage, err, limit, while)
	f.Broken = true
	return f
}

// wordLoss says how the connection was lost.
func (s *Session) wordLoss(stage Stage, err error, limit time.Duration, while string) *Failure {
	switch {
	case s.ended.Load():
		return s.fail(stage, err, 451, "4.4.2", "no more time while %s", while)
	case errors.Is(err, os.ErrDeadlineExceeded):
		code := "4.4.2"
		if stage == StageGreeting {
			code = "4.4.1" // as good as no answer
		}
		return s.fail(stage, err, 451, code, "timed out after %v while %s", limit, while)
	}
	return s.fail(stage, err, 451, "4.4.2", "lost connection while %s%s", while, cause(err))
}

// cause words an error of the connection, unless it says no more than that it is gone.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ""
	}
	return ": " + err.Error()
}

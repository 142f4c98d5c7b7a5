// Package exim answers Exim, which has neither MTA-STS nor a lookup for socket
// maps, but can send a line to a socket and read one back (${readsocket, Exim
// specification §11.5):
//
//	policy DOMAIN       → v=1 mode=none
//	policy yes DOMAIN   → the same question for a message with TLS-Required: No (RFC 8689 §5)
//	                      v=1 mode=enforce ignore="!^mx1[.]example[.]org$ , *"
//	                      v=1 mode=fallback
//	                      v=1 mode=defer why="text for the log"
//	event …             → nothing; to answer would veto the session
//
// The answer is read by ${extract{mode}{…}}. Its list is for ignore_target_hosts
// of a router: regular expressions, since Exim would look a host name up and
// compare addresses, and a "*" of RFC 8461 §3.2 is one label. One connection
// carries one line each way; Exim waits 5 s.
package exim

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"time"

	"postseal/policy"
	"postseal/policy/mtasts"
	"postseal/socketmap/internal/door"
)

const (
	// maxLine leaves room for events that carry a certificate (RFC 8446 §4.4.2
	// allows more; real ones have 2 KiB).
	maxLine = 64 << 10

	// bufferSize holds any policy line.
	bufferSize = 1 << 10
)

// Decider decides; policy.Engine does.
type Decider interface {
	// Decide waits until it knows or ctx ends.
	Decide(ctx context.Context, dest policy.Destination) *policy.Decision

	// Override returns the operator's rule for a domain, nil if there is none.
	Override(domain string) *policy.Override
}

// Server answers on any number of listeners, one Serve each. Decider must be
// set; nothing may be changed while it serves.
type Server struct {
	Decider Decider
	Host    Host
	Event   func(line string) error // takes an event line, must not wait; nil: events are counted only
	Log     *slog.Logger            // nil: none

	Wait     time.Duration // for a decision; 0: 4 s, of the 5 s that ${readsocket waits
	MaxConns int           // of one listener; 0: 1024; more are closed at once
	Timeout  time.Duration // for a client to send its line, and again to take the answer; 0: 10 s
	Grace    time.Duration // for requests in flight when the context ends; 0: 10 s

	counters counters
}

// Serve answers on ln, which it closes, until ctx ends and the requests in
// flight are answered. The error is that of a listener closed by somebody else.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	limits := door.Limits{Conns: s.MaxConns, Grace: s.Grace}
	return door.Serve(ctx, ln, limits, &s.counters.conns, log, func(ctx, work context.Context, conn net.Conn) {
		s.serve(ctx, work, conn, log)
	})
}

func (s *Server) serve(ctx, work context.Context, conn net.Conn, log *slog.Logger) {
	timeout := orDefault(s.Timeout, 10*time.Second)
	conn.SetReadDeadline(time.Now().Add(timeout))
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	line, err := readLine(conn)
	stop()
	if err != nil {
		if ctx.Err() == nil {
			s.counters.protocolErrors.Add(1)
			log.Debug("no request", "client", conn.RemoteAddr().String(), "error", err)
		}
		return
	}
	answer := s.answer(work, line)
	if answer == "" {
		return
	}
	log.Debug("answer", "request", line[:min(len(line), 512)], "answer", answer)
	conn.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := conn.Write(append([]byte(answer), '\n')); err != nil {
		log.Debug("answer not taken", "client", conn.RemoteAddr().String(), "error", err)
	}
}

// answer returns the line for a request, "" if none is due.
func (s *Server) answer(ctx context.Context, line string) string {
	if strings.HasPrefix(line, "event ") || line == "event" {
		s.counters.events.Add(1)
		if s.Event != nil && s.Event(line) != nil {
			s.counters.protocolErrors.Add(1)
		}
		return ""
	}
	key, relaxed, ok := parseLine(line)
	if !ok {
		s.counters.protocolErrors.Add(1)
		return deferring(`the request is neither "policy DOMAIN" nor "policy yes DOMAIN"`)
	}
	answer := s.policy(ctx, key, relaxed)
	s.counters.count(answer)
	return answer
}

// parseLine splits at any white space: Exim leaves two blanks where the flag
// expands to nothing.
func parseLine(line string) (key string, relaxed, ok bool) {
	word := strings.Fields(line)
	switch {
	case len(word) == 2 && word[0] == "policy":
		return word[1], false, true
	case len(word) == 3 && word[0] == "policy" && word[1] == "yes":
		return word[2], true, true
	}
	return "", false, false
}

// policy decides. TLS-Required: No sets aside what the domain published, but not
// what the operator demands (RFC 8689 §5).
func (s *Server) policy(ctx context.Context, key string, relaxed bool) string {
	dest, err := policy.ParseDestination(key)
	if err != nil {
		return modeNone
	}
	if relaxed && !demands(s.Decider.Override(dest.Domain)) {
		return modeNone
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(s.Wait, 4*time.Second))
	defer cancel()
	return Answer(s.Decider.Decide(ctx, dest), s.Host)
}

func demands(rule *policy.Override) bool {
	if rule == nil {
		return false
	}
	return rule.Action == policy.Require || rule.Action == policy.Pin && rule.Policy != nil && rule.Policy.Mode == mtasts.Enforce
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

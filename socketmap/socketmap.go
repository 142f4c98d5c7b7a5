// Package socketmap answers the lookups of mail servers in the protocol of
// Sendmail's socket maps, which Postfix has too (socketmap_table(5)).
//
// A request is a netstring "name key", a reply one of "OK data", "NOTFOUND " and
// "TEMP reason". One connection carries many requests, one after the other, to
// several maps by name. The name picks the dialect: Postfix below 3.10 defers the
// mail over an attribute that it does not know, Sendmail over anything behind
// servername=hostname, so what is put into an answer depends on who asks. All
// maps exist on every listener. There is no authentication: a listener belongs
// on a socket in the file system or on loopback.
//
// What a remote domain publishes goes into an answer only after it was checked
// here once more, whatever was checked before.
package socketmap

import (
	"context"
	"log/slog"
	"net"
	"time"

	"postseal/policy"
	"postseal/socketmap/internal/door"
)

// Decider decides; policy.Engine does.
type Decider interface {
	// Cached returns the decision for a plain name if it is in memory, else nil.
	// It neither waits nor keeps name.
	Cached(name []byte) *policy.Decision

	// Decide waits until it knows or ctx ends.
	Decide(ctx context.Context, dest policy.Destination) *policy.Decision

	// Override returns the operator's rule for a domain, nil if there is none.
	Override(domain string) *policy.Override
}

// Server answers on any number of listeners, one Serve each. Decider must be
// set; nothing may be changed while it serves.
type Server struct {
	Decider  Decider
	HostDANE bool         // host.dane: the mail server does DANE itself
	Delivery *Delivery    // nil: there is no delivery fallback to route to
	Log      *slog.Logger // nil: none

	Wait         time.Duration // for a decision, from Postfix; 0: 5 s, of the 100 s that it waits
	SendmailWait time.Duration // from Sendmail, and for routes; 0: 4 s, of the 5 s that FEATURE(sts) waits

	MaxConns     int           // of one listener; 0: 1024; more are closed at once
	IdleTimeout  time.Duration // between requests; 0: 5 min, since Postfix closes after 10 s idle and 100 s in all
	FrameTimeout time.Duration // for a request once begun; 0: 30 s
	WriteTimeout time.Duration // for a client to take its answers; 0: 60 s
	Grace        time.Duration // for requests in flight when the context ends; 0: 10 s

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
		newSession(s, log, conn).run(ctx, work)
	})
}

func (s *Server) waitFor(id mapID) time.Duration {
	switch id {
	case mapSTS, mapTransport, mapMailertable: // routes are asked for inside an SMTP dialogue
		return orDefault(s.SendmailWait, 4*time.Second)
	}
	return orDefault(s.Wait, 5*time.Second)
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// Package milter tags messages for a mail server.
package milter

import (
	"log/slog"
	"net/netip"
	"time"
)

// Server serves on any number of listeners, one Serve each. Its zero value is
// useful; nothing may be changed while it serves.
type Server struct {
	Rules           []Rule         // the first that matches counts
	TrustedNetworks []netip.Prefix // clients that are believed as if they had authenticated; those of this machine are anyway
	RelaxedFrom     Who            // whose TLS-Required: No counts; "": [Anyone]'s, as RFC 8689 §3 has it
	Route           Route          // how the tag reaches the routing; "": [RouteHeader]
	OnError         OnError        // what becomes of messages that cannot be judged; "": [Tempfail]
	Log             *slog.Logger   // nil: none

	MaxConns    int           // of one listener; 0: 1024; more are closed at once
	IdleTimeout time.Duration // between frames; 0: 65 min, since Sendmail waits an hour for its clients
	Grace       time.Duration // for messages under way when the context ends; 0: 10 s
}

// Who is one of the two.
type Who string

const (
	Anyone  Who = "anyone"
	Trusted Who = "trusted" // authenticated, on this machine, or in a trusted network
)

// Route is how a tag is put on a message.
type Route string

const (
	RouteHeader    Route = "header"    // X-Postseal-Route, one for all recipients (Postfix)
	RouteRecipient Route = "recipient" // a suffix of each recipient's domain (Sendmail)
)

// OnError is what becomes of a message that cannot be judged, for a defect of ours
// or for its size.
type OnError string

const (
	Tempfail OnError = "tempfail" // it comes again
	Accept   OnError = "accept"   // it passes without a tag
)

func (e OnError) orDefault() OnError {
	if e == "" {
		return Tempfail
	}
	return e
}

// Check tells what is wrong with the rules; Serve does, too.
func (s *Server) Check() error {
	_, err := compileRules(s.Rules)
	return err
}

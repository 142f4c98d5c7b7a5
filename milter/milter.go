// Package milter looks at every message that a mail server takes in, and tags those
// that may only travel over authenticated TLS (REQUIRETLS, RFC 8689 §2), and those
// that may go without (TLS-Required: No, §3). The mail server routes by the tag to
// the listener that can keep the promise; its own queue, retries and bounces stay.
//
// TLS is required if the MAIL command says so; if the header Require-TLS-ESMTP: yes
// does, from a client that is trusted; or if a rule does. If none does, the header
// TLS-Required: No relaxes, or a rule. REQUIRETLS beats No (§4.1). A rule "none"
// exempts from the rules below it, not from what the sender asks. The null sender is
// never tagged. Where TLS is required, a bounce shall have headers only (§5), so
// RET=HDRS is set. Every tag that a message came with is taken off: two passes leave
// one. (Not kept over passes is what a rule said of the user, if only the first pass
// has one: set up the way back from content filters without milters.)
//
// Routed by header, a message has one tag for all its recipients: TLS is required if
// the rule of any recipient says so, and relaxed by rules if those of all do. Routed
// by recipient, each has its own, but for those that are delivered by a program.
// There the domain is changed until the listener changes it back, so that queue
// listings and bounces show the long name; NOTIFY and ORCPT are kept.
//
// Nothing is ever rejected, looked up, or waited for. Messages that cannot be judged
// go to the configured side at their end. The protocol is that of libmilter in its
// versions 2 to 6; go-milter serves it behind a connection that makes up for what it
// leaves out, see wire.
//
// # Setting up
//
// The milter stands last, behind signers and whatever rejects recipients; a tag must
// neither be signed nor be given to a recipient that another milter has refused.
//
//	Postfix   main.cf    smtpd_milters = { inet:127.0.0.1:8462, default_action=tempfail }
//	                     non_smtpd_milters = $smtpd_milters
//	                     milter_header_checks = regexp:/etc/postfix/postseal_milter_header_checks
//	          checks     /^X-Postseal-Route: requiretls$/ FILTER postseal-requiretls:inet:127.0.0.1:8465
//	                     /^X-Postseal-Route: relaxed$/    FILTER postseal-relaxed:inet:127.0.0.1:8466
//	          master.cf  both services, of the command lmtp
//	Sendmail  *.mc       INPUT_MAIL_FILTER(`postseal', `S=inet:8462@127.0.0.1, F=T, T=C:10s;S:10s;R:30s;E:60s')
//	                     FEATURE(`mailertable', …), which knows .requiretls.invalid and .relaxed.invalid
//	          config     milter.route = "recipient"
//	Exim      –          has no milters; its ACLs choose the port
//
// The folders contrib/postfix and contrib/sendmail have the whole of it.
// Postfix up to 3.10 and Sendmail refuse the parameter REQUIRETLS before a milter
// sees it; there the header or a rule must ask. The bounces that Postfix itself makes
// pass no milter unless internal_mail_filter_classes says so.
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

	counters counters
}

// Who tells whose word counts.
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

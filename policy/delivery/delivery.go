// Package delivery takes messages that the mail server beside us cannot deliver
// as their destination demands, and delivers them while the mail server waits.
//
// They come in over LMTP (RFC 2033), which has what SMTP lacks: a reply for each
// recipient behind the last dot. So one transaction may hold several domains, and
// every recipient gets the reply of his own remote server. There is no queue: what
// is not delivered is answered 4xx, stays in the mail server's queue, and comes
// again; nothing is acknowledged here that was not acknowledged there. In between
// a message is in memory, or, if it is large, in a file without a name.
//
// The socket carries the mode (package requiretls): normal, REQUIRETLS (RFC 8689
// §2) or TLS-Required: No (§3). The header X-Postseal-Route only steers the mail
// server; here it is never believed, and always removed.
//
// A listener belongs on a socket in the file system or on loopback: whoever may
// connect may relay.
package delivery

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/delivery/ledger"
	"postseal/policy/smtpclient"
)

// Resolver decides; policy.Engine does.
type Resolver interface {
	// Resolve returns the decision together with everything that DNS says about
	// the hosts; the plan is never nil. It waits until it knows, or ctx ends.
	Resolve(ctx context.Context, dest policy.Destination) (*policy.Decision, *dane.Plan)
}

// Route sends a domain to a smart host instead of its MX hosts.
type Route struct {
	Domain  string // recipients' domain, in A-labels; ".example.com" is everything below
	NextHop string // "host", "[host]", "host:port" or "[host]:port"; brackets: no MX lookup; or an address in brackets

	// RequireTLSExempt lets REQUIRETLS messages through to a gateway that cannot
	// satisfy RFC 8689 §4.2.1, by the administrator's word that they are safe there.
	RequireTLSExempt bool
}

// Server takes messages on any number of listeners, one Serve each. Resolver and
// Client must be set; nothing may be changed once it serves.
type Server struct {
	Resolver Resolver
	Client   *smtpclient.Client
	Ledger   *ledger.Ledger // nil: nothing is remembered. Its Run must outlast Serve
	Report   func(Outcome)  // of each session with an MX host; nil: none. Must not block

	// Reported waits until all that was reported before is safe; no reply is given
	// before that. nil: there is nothing to wait for.
	Reported func(context.Context) error

	Log *slog.Logger // nil: none
	Now func() time.Time

	Hostname     string       // ours: in replies, in Received lines, and to know ourselves among MX hosts; "": the system's
	Names        []string     // further names of this host and of the mail server
	Addresses    []netip.Addr // of this host, to know ourselves among MX hosts; loopback need not be named
	Port         uint16       // of MX hosts; 0: 25
	AllowPrivate bool         // MX hosts at loopback and private addresses are contacted
	LocalDomains []string     // handed to LocalRelay
	LocalRelay   string       // "tcp:host:port" or "unix:/path"; "": their recipients get 451
	Routes       []Route
	Deadline     time.Duration // from the last dot to the replies; 0: 9 min, below the 10 min that Postfix waits (lmtp_data_done_timeout)

	MaxMessage int64          // octets; 0: 100 MiB
	MaxMemory  int64          // octets of message text in memory, over all listeners; 0: 8 MiB; what is more goes into files
	TempDir    string         // of these files; "": os.TempDir
	Networks   []netip.Prefix // whose TCP connections are taken; nil: loopback
	NoTLS      bool           // TCP listeners do not offer STARTTLS, so REQUIRETLS neither
	RequireTLS bool           // TCP listeners take no message without TLS

	MaxConns      int           // of one listener; 0: 256; more are answered 421
	MaxRecipients int           // of one message; 0: 1000 (RFC 5321 §4.5.3.1.8 wants 100 at least)
	ReadTimeout   time.Duration // for the next command, or block of a message; 0: 5 min (RFC 5321 §4.5.3.2.7)
	WriteTimeout  time.Duration // for a client to take its replies; 0: 1 min
	Grace         time.Duration // for messages in flight when the context ends; 0: 10 s

	memory budget
	state  state // the engine's
}

// Defaults of Server.
const (
	defaultPort          = 25
	defaultMaxMessage    = 100 << 20
	defaultMaxMemory     = 8 << 20 // thousands of usual messages; with the buffers of 200 sessions and the collector's factor of 2 it stays far below 64 MiB
	defaultMaxConns      = 256
	defaultMaxRecipients = 1000
	defaultReadTimeout   = 5 * time.Minute
	defaultWriteTimeout  = time.Minute
	defaultGrace         = 10 * time.Second
)

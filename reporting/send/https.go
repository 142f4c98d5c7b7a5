package send

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"postseal/reporting/tlsrpt"
)

const (
	postLimit    = time.Minute // as RFC 8461 §3.3 suggests for the fetch of a policy
	maxRedirects = 3           // a path that was moved, and a slash that was forgotten
)

// HTTPS posts reports (RFC 8460 §5.4). Its methods may be used side by side; the fields
// must not change after the first use.
//
// Every request goes over a new connection, straight to an address that Lookup gave.
// Nothing is kept or taken from elsewhere: no proxy of the environment, no cookies, no
// credentials, no TLS session.
type HTTPS struct {
	// Lookup gives the addresses of a host, a name in A-labels; nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	// Public tells which addresses may be connected to; nil: every one. The URI is a
	// stranger's, who could have it lead into the operator's own network.
	Public func(netip.Addr) bool

	Roots *x509.CertPool // nil: the system's

	// Insecure posts to a server without a valid certificate too, and logs it. RFC
	// 8460 §3 allows that: it may be just what the report is about.
	Insecure bool

	Timeout time.Duration    // of one attempt, DNS and redirects included; 0: 60 s
	Log     *slog.Logger     // nil: discard
	Now     func() time.Time // for the validity of certificates; nil: time.Now
}

// Send posts a report to a URI that [tlsrpt.ParseRecord] found. The reply is the
// status, such as "201 Created", printable and of at most about 100 bytes. An error is
// a [*Failure]: final if the report is not one that can be sent, or the URI not one
// that can be posted to; else another try may do better, whatever the status (RFC 8460
// §5.5). A server that is not done at the deadline of ctx has failed; where ctx is
// canceled, it has not.
func (h *HTTPS) Send(ctx context.Context, uri string, r *tlsrpt.Report) (reply string, err error) {
	var report bytes.Buffer
	if err := r.EncodeGzip(&report); err != nil {
		return "", &Failure{Final: true, Err: fmt.Errorf("report to %s: %w", quoted(uri), err)}
	}
	to, err := parseOrigin(uri)
	if err != nil {
		return "", &Failure{Target: true, Final: true, Err: fmt.Errorf("cannot post to %s: %w", quoted(uri), err)}
	}
	limit := cmp.Or(h.Timeout, postLimit)
	attempt, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no complete answer within %v", limit))
	defer cancel()
	reply, err = h.follow(attempt, to, report.Bytes())
	if err == nil {
		return reply, nil
	}
	if errors.Is(ctx.Err(), context.Canceled) { // we have to end
		return "", ours("post to %s: %w", quoted(uri), context.Cause(ctx))
	}
	f, ok := err.(*Failure)
	if !ok {
		f = theirs("post to %s: %w", quoted(uri), cause(attempt, err)) // its time, or the caller's patience, is over
	}
	return "", f
}

// follow posts, again where the server says so. 307 and 308 alone ask for the same
// request again (RFC 9110 §15.4.8, §15.4.9), and only the host that the domain has
// named is trusted with a report, and with our request.
func (h *HTTPS) follow(ctx context.Context, to *origin, report []byte) (string, error) {
	for redirects := 0; ; redirects++ {
		a, err := h.post(ctx, to, report)
		switch {
		case err != nil:
			return "", err
		case a.code/100 == 2: // RFC 8460 §5.4
			return a.status, nil
		case a.code != http.StatusTemporaryRedirect && a.code != http.StatusPermanentRedirect:
			return "", theirs("%s answers with status %s%s", to, a.status, a.words)
		case redirects == maxRedirects:
			return "", theirs("%s redirects more than %d times", to, maxRedirects)
		}
		next, err := to.redirect(a.location)
		if err != nil {
			return "", theirs("%s answers with status %s, which is not followed: %w", to, a.status, err)
		}
		to = next
	}
}

func (h *HTTPS) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

func (h *HTTPS) log() *slog.Logger {
	if h.Log != nil {
		return h.Log
	}
	return slog.New(slog.DiscardHandler)
}

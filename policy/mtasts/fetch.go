package mtasts

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"postseal/policy/dnssec"
)

const (
	hostPrefix = "mta-sts."                 // RFC 8461 §3.3
	policyPath = "/.well-known/mta-sts.txt" // RFC 8461 §3.3
	httpsPort  = 443                        // RFC 8461 §3.3: an https URL without port
	fetchLimit = time.Minute                // RFC 8461 §3.3 suggests one minute
	dialLimit  = 5 * time.Second            // per address; leaves time for the next ones
	maxDials   = 8                          // addresses tried; a stranger may publish hundreds
	lateFamily = 500 * time.Millisecond     // wait for AAAA when A is there, or the reverse
)

// Fetcher gets policies over HTTPS (RFC 8461 §3.3). Its methods may be used side
// by side; the fields must not change after the first use.
//
// Every fetch is one request over one new connection, straight to an address that
// DNS gave. Nothing is kept or taken from elsewhere: no proxy of the environment,
// no cookies, no credentials, no HTTP cache, no TLS session. Redirects are failures.
//
// Revocation of the policy host's certificate is not checked, which RFC 8461 §3.3
// leaves open. Policy hosts rarely staple OCSP responses, authorities are giving
// OCSP up, and to fetch CRLs of a size and from a place that a stranger's
// certificate names would put more at risk than a policy host's stolen key does:
// whose holder must also forge the domain's DNS to make use of it.
type Fetcher struct {
	DNS          *dnssec.Client
	Roots        *x509.CertPool   // nil: the system's
	AllowPrivate bool             // connect to loopback, private and other special addresses too
	Timeout      time.Duration    // of a whole fetch, DNS included; 0: 60 s
	Port         uint16           // 0: 443; tests only
	Now          func() time.Time // for the validity of certificates; nil: time.Now
}

// Fetched is a successfully fetched policy and how it came.
type Fetched struct {
	Policy     *Policy
	Warnings   []string // of ParsePolicy
	Addr       netip.AddrPort
	TLSVersion uint16
	Issuer     string // of the policy host's certificate; printable and bounded
	NotAfter   time.Time
	Took       time.Duration
}

// Fetch gets the policy of a domain. Whether the domain's record announces one is
// for the caller to know. Every error is a [*FetchError].
func (f *Fetcher) Fetch(ctx context.Context, domain string) (*Fetched, error) {
	start := time.Now()
	fetched, err := f.fetch(ctx, domain)
	if err != nil {
		return nil, asFetchError(domain, err)
	}
	fetched.Took = time.Since(start)
	return fetched, nil
}

func (f *Fetcher) fetch(ctx context.Context, domain string) (*Fetched, error) {
	limit := cmp.Or(f.Timeout, fetchLimit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, inWords(context.DeadlineExceeded, "no complete answer within %v", limit))
	defer cancel()

	host := hostPrefix + domain
	// The caller vouches for the domain; but a name ends up in a request here.
	if !fits(hostPrefix, domain) || !isHostName(host, true) {
		return nil, fmt.Errorf("%s is no host name", quoted(host))
	}
	addrs, err := f.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	conn, addr, err := f.dial(ctx, host, addrs)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// Ends blocked reads and writes at the deadline too.
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	tlsConn := tls.Client(conn, f.tlsConfig(host))
	if err := tlsConn.HandshakeContext(ctx); err != nil {
		return nil, ended(ctx, handshakeError(host, err, f.now()))
	}
	body, err := get(ctx, tlsConn, host)
	if err != nil {
		return nil, ended(ctx, err)
	}
	policy, warnings, err := ParsePolicy(body)
	if err != nil {
		return nil, &FetchError{Result: PolicyInvalid, Err: err}
	}
	state := tlsConn.ConnectionState()
	leaf := state.PeerCertificates[0] // a verified handshake has one
	return &Fetched{
		Policy:     policy,
		Warnings:   warnings,
		Addr:       addr,
		TLSVersion: state.Version,
		Issuer:     printable(leaf.Issuer.String(), 200),
		NotAfter:   leaf.NotAfter,
	}, nil
}

// ended puts the end of ctx in the place of what it led to, such as the error of
// a read from the connection that it closed.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return temporary(fmt.Errorf("fetch ended: %w", context.Cause(ctx)))
}

func (f *Fetcher) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now()
}

// tlsConfig demands TLS 1.2 (RFC 8461 §7.1, RFC 9325 §3.1.1), a certificate that
// chains to a root and is valid for host among its DNS-IDs, which crypto/x509
// compares as RFC 9525 says, never the common name (RFC 8461 §3.3); and says
// host in SNI (RFC 8461 §7.1). Without HTTP/2: one small request gains nothing
// from it, and the code that a stranger's server can reach stays small.
func (f *Fetcher) tlsConfig(host string) *tls.Config {
	return &tls.Config{
		ServerName: host,
		RootCAs:    f.Roots,
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		Time:       f.now,
	}
}

// addresses returns those of the policy host that may be connected to, by turns of
// both families. IPv4 is first: a host with broken IPv6 is more common than one
// with broken IPv4, and a machine without IPv4 learns so at once.
func (f *Fetcher) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	lookups, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg         sync.WaitGroup
		a4, a6     dnssec.Answer[netip.Addr]
		err4, err6 error
	)
	// A server that leaves questions for one type without reply, as some do, must not
	// hold up the other.
	found := func(a dnssec.Answer[netip.Addr]) {
		if len(a.Records) > 0 {
			time.AfterFunc(lateFamily, cancel)
		}
	}
	wg.Go(func() { a4, err4 = f.DNS.LookupA(lookups, host); found(a4) })
	wg.Go(func() { a6, err6 = f.DNS.LookupAAAA(lookups, host); found(a6) })
	wg.Wait()

	all := byTurns(a4.Records, a6.Records)
	if len(all) == 0 {
		if err := cmp.Or(err4, err6); err != nil {
			return nil, ended(ctx, temporary(err))
		}
		return nil, fmt.Errorf("%s has no address", host)
	}
	if f.AllowPrivate {
		return all, nil
	}
	var public []netip.Addr
	for _, addr := range all {
		if IsPublic(addr) {
			public = append(public, addr)
		}
	}
	if len(public) == 0 {
		return nil, fmt.Errorf("%s has no public address, only %s", host, all[0])
	}
	return public, nil
}

// byTurns merges a and b, beginning with a.
func byTurns(a, b []netip.Addr) []netip.Addr {
	var all []netip.Addr
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			all = append(all, a[i])
		}
		if i < len(b) {
			all = append(all, b[i])
		}
	}
	return all
}

// dial connects to the first address that takes the connection.
func (f *Fetcher) dial(ctx context.Context, host string, addrs []netip.Addr) (net.Conn, netip.AddrPort, error) {
	dialer := net.Dialer{Timeout: dialLimit, KeepAlive: -1}
	var errs []string
	for _, addr := range addrs[:min(len(addrs), maxDials)] {
		to := netip.AddrPortFrom(addr, cmp.Or(f.Port, httpsPort))
		conn, err := dialer.DialContext(ctx, "tcp", to.String())
		if err == nil {
			return conn, to, nil
		}
		if ctx.Err() != nil {
			return nil, to, ended(ctx, err)
		}
		errs = append(errs, fmt.Sprintf("%v: %s", to, dialReason(err)))
	}
	return nil, netip.AddrPort{}, temporary(fmt.Errorf("cannot connect to %s: %s", host, strings.Join(errs, "; ")))
}

func dialReason(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Sprintf("no reply within %v", dialLimit)
	}
	return ioReason(err)
}

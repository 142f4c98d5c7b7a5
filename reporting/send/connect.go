package send

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

const (
	dialLimit = 5 * time.Second // per address; leaves time for the next ones
	maxDials  = 8               // addresses tried; a stranger may publish hundreds
)

// connect opens a TLS connection to the server of a URI.
func (h *HTTPS) connect(ctx context.Context, to *origin) (*tls.Conn, error) {
	addrs, err := h.addresses(ctx, to)
	if err != nil {
		return nil, err
	}
	raw, err := dial(ctx, to, addrs)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, h.tlsConfig(to.host))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		var noRoots x509.SystemRootsError
		if errors.As(err, &noRoots) {
			return nil, ours("the system's root certificates cannot be loaded: %w", noRoots)
		}
		return nil, theirs("TLS with %s: %w", to, cause(ctx, err))
	}
	return conn, nil
}

// addresses are those of a server that may be connected to, by turns of both families.
func (h *HTTPS) addresses(ctx context.Context, to *origin) ([]netip.Addr, error) {
	if to.addr.IsValid() {
		if !h.public(to.addr) {
			return nil, &Failure{Target: true, Final: true, Err: fmt.Errorf("%s is no public address", to)}
		}
		return []netip.Addr{to.addr}, nil
	}
	all, err := h.lookup(ctx, to.host)
	if err != nil {
		return nil, theirs("address of %s: %w", to, err)
	}
	if len(all) == 0 {
		return nil, theirs("%s has no address", to)
	}
	var v4, v6 []netip.Addr
	for _, addr := range all {
		switch addr = addr.Unmap(); {
		case !h.public(addr):
		case addr.Is4():
			v4 = append(v4, addr)
		default:
			v6 = append(v6, addr)
		}
	}
	if len(v4)+len(v6) == 0 {
		return nil, theirs("%s has no public address, only %s", to, all[0])
	}
	return byTurns(v4, v6), nil
}

func (h *HTTPS) public(addr netip.Addr) bool { return h.Public == nil || h.Public(addr) }

func (h *HTTPS) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if h.Lookup != nil {
		return h.Lookup(ctx, host)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
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
func dial(ctx context.Context, to *origin, addrs []netip.Addr) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialLimit, KeepAlive: -1}
	var reasons []string
	for _, addr := range addrs[:min(len(addrs), maxDials)] {
		at := netip.AddrPortFrom(addr, to.port)
		conn, err := dialer.DialContext(ctx, "tcp", at.String())
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		reasons = append(reasons, fmt.Sprintf("%v: %v", at, cause(ctx, err)))
	}
	return nil, theirs("cannot connect to %s: %s", to, strings.Join(reasons, "; "))
}

// tlsConfig verifies the certificate itself, since what follows if it is not valid is
// for [HTTPS.Insecure] to say. Without HTTP/2: one request gains nothing from it, and
// the code that a stranger's server can reach stays small.
func (h *HTTPS) tlsConfig(host string) *tls.Config {
	return &tls.Config{
		ServerName:         host,
		MinVersion:         tls.VersionTLS12, // RFC 9325 §3.1.1
		NextProtos:         []string{"http/1.1"},
		InsecureSkipVerify: true, // VerifyConnection does
		VerifyConnection: func(state tls.ConnectionState) error {
			err := h.verify(state, host)
			if err == nil || !h.Insecure {
				return err
			}
			h.log().Warn("report is posted although the certificate is not valid", "host", host, "error", printable(err.Error(), maxWords))
			return nil
		},
	}
}

// verify demands a certificate that chains to a root and is valid for host (RFC 9525).
func (h *HTTPS) verify(state tls.ConnectionState, host string) error {
	intermediates := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] { // every server has one at least
		intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		DNSName:       host,
		Roots:         h.Roots,
		Intermediates: intermediates,
		CurrentTime:   h.now(),
	})
	return err
}

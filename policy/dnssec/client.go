package dnssec

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// TrustAD says when the AD bit of a reply is believed.
type TrustAD uint8

const (
	TrustAuto   TrustAD = iota // from loopback addresses, 127.0.0.11 (a container's forwarder) excepted
	TrustAlways                // the operator vouches for the path to every server
	TrustNever                 // DANE is off
)

const (
	// RES_TIMEOUT of resolv.conf(5) is 5 s and twice that in all; an MTA waits
	// for us, so a silent server is left sooner.
	defaultTryTimeout = 2 * time.Second
	defaultTimeout    = 10 * time.Second
)

// Client asks validating resolvers. The zero value asks those of
// /etc/resolv.conf. Its methods may be used side by side; the fields must not
// change after the first use, and a Client must not be copied after it.
type Client struct {
	Servers    []string      // "host:port" in order of preference, host an IP address; empty: those of ResolvConf
	ResolvConf string        // empty: /etc/resolv.conf; followed when it changes
	TrustAD    TrustAD       //
	TryTimeout time.Duration // one question to one server; 0: 2 s
	Timeout    time.Duration // a whole lookup; 0: 10 s
	SelfTest   SelfTest      // names of the self-test; zero: no self-test
	Log        *slog.Logger  // nil: discard
	Now        func() time.Time

	once  sync.Once
	pool  pool
	epoch atomic.Uint64
}

// Epoch grows each time that it changes which servers are believed: by a
// self-test, or since resolv.conf names others. Who remembers an answer with the
// epoch of before its question must ask again in a later one, authenticated or not:
// a resolver may have lost its validation before the self-test could prove it.
func (c *Client) Epoch() uint64 { return c.epoch.Load() }

// SelfTest names what the self-test asks (see [Client.Run]).
type SelfTest struct {
	Signed   []string      // names with a correctly signed A, AAAA or SOA answer; a proof needs two
	Unsigned string        // an existing unsigned name
	Bogus    string        // a name whose signatures are wrong
	Interval time.Duration // 0: 1 h
}

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Client) log() *slog.Logger {
	if c.Log != nil {
		return c.Log
	}
	return slog.New(slog.DiscardHandler)
}

func (c *Client) tryTimeout() time.Duration {
	if c.TryTimeout > 0 {
		return c.TryTimeout
	}
	return defaultTryTimeout
}

func (c *Client) timeout() time.Duration {
	if c.Timeout > 0 {
		return c.Timeout
	}
	return defaultTimeout
}

// LookupMX asks for the mail exchangers of a domain, in the order received
// (RFC 5321 §5.1). The error is an [*Error], as with every lookup.
func (c *Client) LookupMX(ctx context.Context, domain string) (Answer[MX], error) {
	return lookup(ctx, c, domain, dns.TypeMX, decodeMX)
}

// LookupA asks for the IPv4 addresses of a host.
func (c *Client) LookupA(ctx context.Context, host string) (Answer[netip.Addr], error) {
	return lookup(ctx, c, host, dns.TypeA, decodeAddr)
}

// LookupAAAA asks for the IPv6 addresses of a host.
func (c *Client) LookupAAAA(ctx context.Context, host string) (Answer[netip.Addr], error) {
	return lookup(ctx, c, host, dns.TypeAAAA, decodeAddr)
}

// LookupCNAME asks for the alias record of name itself; it is not followed.
// Its security is that of the zone that name is in (RFC 7672 §2.1.3).
func (c *Client) LookupCNAME(ctx context.Context, name string) (Answer[string], error) {
	return lookup(ctx, c, name, dns.TypeCNAME, decodeName)
}

// LookupTLSA asks for TLSA records; name is the whole owner name, as in
// "_25._tcp.mx.example.org".
func (c *Client) LookupTLSA(ctx context.Context, name string) (Answer[TLSA], error) {
	return lookup(ctx, c, name, dns.TypeTLSA, decodeTLSA)
}

// LookupTXT asks for text. It joins the character strings of each record with
// nothing in between (RFC 8461 §3.1); the bytes are as received.
func (c *Client) LookupTXT(ctx context.Context, name string) (Answer[string], error) {
	return lookup(ctx, c, name, dns.TypeTXT, decodeTXT)
}

// lookup asks for name and follows an alias chain that the resolver left
// unfinished. The result is secure only if every part is (RFC 7672 §2.1.3).
func lookup[T any](ctx context.Context, c *Client, name string, qtype uint16, decode func(record) (T, error)) (Answer[T], error) {
	deadline := time.Now().Add(c.timeout())
	fail := func(err *Error) (Answer[T], error) { return Answer[T]{}, err }
	q := question{name: canonical(name), qtype: qtype}
	if !isName(q.name) {
		err := &Error{Kind: BadName, Name: name, Type: q.typ()}
		trace(ctx, q, time.Now(), part{}, err)
		return fail(err)
	}

	a := Answer[T]{Secure: true, TTL: maxTTL}
	take := func(records []record) error {
		a.Records = nil
		for _, rr := range records {
			v, err := decode(rr)
			if err != nil {
				return fmt.Errorf("%s record of %s: %w", q.typ(), rr.name, err)
			}
			a.Records = append(a.Records, v)
		}
		return nil
	}
	for {
		p, err := c.ask(ctx, q, deadline, len(a.Aliases), take)
		if err != nil {
			return fail(err)
		}
		a.Aliases = append(a.Aliases, p.aliases...)
		a.Name = p.name
		a.Secure = a.Secure && p.secure
		a.TTL = min(a.TTL, p.ttl)
		a.Status = p.status
		if !p.unfinished {
			return a, nil
		}
		q.name = p.name
		err = nil
		switch {
		case slices.Contains(a.Aliases, q.name):
			err = &Error{Kind: Loop, Name: q.name, Type: q.typ(), Server: p.server}
		case !isName(q.name):
			err = &Error{Kind: BadName, Name: q.name, Type: q.typ(), Server: p.server}
		}
		if err != nil {
			trace(ctx, q, time.Now(), part{}, err)
			return fail(err)
		}
	}
}

const (
	maxName  = 253 // RFC 1035 §2.3.4: 255 octets on the wire
	maxLabel = 63
)

// canonical is a name in lower case (ASCII only) without the final dot.
func canonical(name string) string { return strings.TrimSuffix(asciiLower(name), ".") }

func asciiLower(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// isName reports whether a canonical name can be a host name, or the name of a
// service below one: letters, digits, hyphen (RFC 1123 §2.1) and underscore
// (RFC 8552), and nothing that needs escaping.
func isName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	label := 0
	for i := 0; i < len(name); i++ {
		switch ch := name[i]; {
		case ch == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case 'a' <= ch && ch <= 'z', '0' <= ch && ch <= '9', ch == '-', ch == '_':
		default:
			return false
		}
		if label++; label > maxLabel {
			return false
		}
	}
	return label > 0
}

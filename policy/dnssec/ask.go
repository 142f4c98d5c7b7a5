package dnssec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// maxRounds bounds how often a silent server is asked for the same; the time
// limits usually end it sooner.
const maxRounds = 5

// ask puts one question to the servers until one answers.
//
// A server that is silent, unreachable, refuses or talks nonsense hands the
// question to the next. So does one that says SERVFAIL; but since that is how a
// validating resolver reports forged data (RFC 4035 §5.5), from then on an
// answer of another server counts only if it is authenticated, or if no server
// called the data bogus and the self-test has seen this other one validate. A
// resolver that does not validate cannot so turn bogus into insecure. Where no
// server is believed anyway this rule is moot, and any answer counts.
//
// used is the number of aliases that led to the question; take reads the records
// of the answer, and its error makes the reply a malformed one.
func (c *Client) ask(ctx context.Context, q question, deadline time.Time, used int, take func([]record) error) (part, *Error) {
	start := time.Now()
	p, err := c.askServers(ctx, q, deadline, used, take)
	if err != nil && err.Name == "" {
		err.Name, err.Type = q.name, q.typ()
	}
	trace(ctx, q, start, p, err)
	return p, err
}

func (c *Client) askServers(ctx context.Context, q question, deadline time.Time, used int, take func([]record) error) (part, *Error) {
	servers, believed := c.candidates()
	if len(servers) == 0 {
		return part{}, &Error{Kind: Timeout, Err: errNoServer}
	}
	var worst *Error
	for range maxRounds {
		var silent []*server
		for _, s := range servers {
			p, err := c.askServer(ctx, s, q, deadline, used, take)
			switch {
			case err == nil && (worst == nil || !believed || c.outweighs(s, p, worst)):
				return p, nil
			case err == nil:
				continue
			case err.Kind == Canceled || err.Kind == Loop:
				return part{}, err
			}
			worst = worse(worst, err)
			if err.Kind == Timeout && isTimeout(err.Err) {
				silent = append(silent, s)
			}
			if !time.Now().Before(deadline) {
				return part{}, worst
			}
		}
		if len(silent) == 0 || worst.Kind == ServFail || worst.Kind == Bogus {
			break
		}
		servers = silent
	}
	return part{}, worst
}

// outweighs reports whether an answer counts against an earlier error (see
// [Client.ask]).
func (c *Client) outweighs(s *server, p part, worst *Error) bool {
	switch worst.Kind {
	case Bogus:
		return p.secure
	case ServFail:
		// Without a self-test the operator alone vouches for the servers.
		return p.secure || s.proven() || c.SelfTest.none()
	}
	return true
}

// worse returns the error that says more: bogus before SERVFAIL before the
// latest of the others.
func worse(a, b *Error) *Error {
	if a != nil && (a.Kind == Bogus || a.Kind == ServFail && b.Kind != Bogus) {
		return a
	}
	return b
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// askServer asks one server and keeps account of its health.
func (c *Client) askServer(ctx context.Context, s *server, q question, deadline time.Time, used int, take func([]record) error) (part, *Error) {
	r, err := c.exchange(ctx, s, q, deadline)
	if err != nil {
		e := &Error{Kind: kindOf(ctx, err), Server: s.name, Err: err}
		if e.Kind != Canceled {
			s.putBack(c.now())
		}
		return part{}, e
	}
	if e := rcodeError(r); e != nil {
		e.Server = s.name
		if e.Kind == ServFail || e.Kind == Bogus {
			s.works()
		} else {
			s.putBack(c.now())
		}
		return part{}, e
	}
	p, err := conclude(q, r, used)
	if errors.Is(err, errChain) {
		return part{}, &Error{Kind: Loop, Server: s.name, Err: err}
	}
	if err == nil {
		err = take(p.records)
	}
	if err != nil {
		s.putBack(c.now())
		return part{}, &Error{Kind: Malformed, Server: s.name, Err: err}
	}
	s.works()
	p.server = s.name
	p.secure = r.ad && s.believed()
	return p, nil
}

// kindOf sorts the errors of an exchange.
func kindOf(ctx context.Context, err error) Kind {
	var n net.Error
	switch {
	case ctx.Err() != nil:
		return Canceled
	case errors.As(err, &n), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return Timeout
	}
	return Malformed
}

// rcodeError returns the error that a reply is, nil if it is an answer.
func rcodeError(r reply) *Error {
	e := &Error{Extended: r.extendedText()}
	switch r.rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		return nil
	case dns.RcodeServerFailure:
		e.Kind = ServFail
		if slices.ContainsFunc(r.extended, extendedError.bogus) {
			e.Kind = Bogus
		}
	case dns.RcodeRefused:
		e.Kind = Refused
	default:
		e.Kind = Malformed
		e.Err = fmt.Errorf("RCODE %s", rcodeName(r.rcode))
	}
	return e
}

func rcodeName(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return fmt.Sprint(rcode)
}

// bogus reports whether the code tells of DNSSEC validation (RFC 8914 §4).
func (e extendedError) bogus() bool {
	switch e.code {
	case dns.ExtendedErrorCodeUnsupportedDNSKEYAlgorithm,
		dns.ExtendedErrorCodeUnsupportedDSDigestType,
		dns.ExtendedErrorCodeDNSSECIndeterminate,
		dns.ExtendedErrorCodeDNSBogus,
		dns.ExtendedErrorCodeSignatureExpired,
		dns.ExtendedErrorCodeSignatureNotYetValid,
		dns.ExtendedErrorCodeDNSKEYMissing,
		dns.ExtendedErrorCodeRRSIGsMissing,
		dns.ExtendedErrorCodeNoZoneKeyBitSet,
		dns.ExtendedErrorCodeNSECMissing:
		return true
	}
	return false
}

const maxExtended = 120 // bytes of an extended error's text in ours

// extendedText is the extended error that says most, one of DNSSEC first.
func (r reply) extendedText() string {
	if len(r.extended) == 0 {
		return ""
	}
	e := r.extended[max(0, slices.IndexFunc(r.extended, extendedError.bogus))]
	text, ok := dns.ExtendedErrorCodeToString[e.code]
	if !ok {
		text = fmt.Sprintf("extended error %d", e.code)
	}
	if e.text != "" {
		text += ": " + e.text
	}
	return printable(text, maxExtended)
}

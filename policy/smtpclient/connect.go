package smtpclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Connect opens a session that satisfies the demand, at the one address of the
// target. The error is a [*Failure]; nothing of a message has been sent then. It
// waits no longer than the limits, and ends with ctx.
func (c *Client) Connect(ctx context.Context, t Target) (*Session, error) {
	if t.Demand.RequireTLS && t.Demand.Security < PKIX {
		t.Demand.Security = PKIX // RFC 8689 §4.2.1: never without authentication
	}
	s, f := c.open(ctx, t, true)
	if f != nil && f.broke() && t.Demand.Security == Opportunistic && ctx.Err() == nil {
		// RFC 7672 §2.2: TLS that fails is no reason to be worse off than
		// without; the connection is lost, though (RFC 3207 §4).
		broken := f
		if s, f = c.open(ctx, t, false); f == nil {
			s.info.NoTLS = broken
		}
	}
	if f != nil {
		return nil, f
	}
	if !s.info.TLS {
		s.proveNothing()
	}
	c.remember(s)
	c.logSession(s)
	return s, nil
}

// broke reports whether it was TLS that failed, or the connection over the mere
// mention of it, rather than the host.
func (f *Failure) broke() bool {
	return f.Stage == StageHandshake || f.Stage == StageSTARTTLS && !f.Remote
}

func (c *Client) open(ctx context.Context, t Target, secure bool) (*Session, *Failure) {
	s := &Session{target: t, hostname: c.Hostname, limits: c.Limits.orDefault()}
	s.info.Remote = t.Addr
	f := s.connect(ctx, c)
	if f == nil {
		done := s.during(ctx)
		defer done()
		f = s.begin(c, secure)
	}
	if f != nil {
		s.Close()
		f.Info = s.info
		return nil, f
	}
	return s, nil
}

func (s *Session) connect(ctx context.Context, c *Client) *Failure {
	conn, err := c.dial(ctx, s.target.Addr, s.limits.Connect)
	switch {
	case err == nil:
		s.attach(conn)
		return nil
	case ctx.Err() != nil:
		return s.fail(StageConnect, err, 451, "4.4.1", "no more time while connecting")
	}
	return s.fail(StageConnect, err, 451, "4.4.1", "cannot connect%s", cause(err))
}

func (c *Client) dial(ctx context.Context, addr netip.AddrPort, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	dial := c.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", addr.String())
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return conn, err
}

// begin leads the session up to where MAIL may be said.
func (s *Session) begin(c *Client, secure bool) *Failure {
	if f := s.greet(); f != nil {
		return f
	}
	if f := s.hello(); f != nil {
		return f
	}
	if secure {
		if f := s.secure(c); f != nil {
			return f
		}
	}
	if s.target.Demand.RequireTLS && !s.Offers("REQUIRETLS") { // RFC 8689 §4.2.1(5)
		return s.fail(StageKeyword, nil, 550, "5.7.30", "does not support REQUIRETLS").about("", "requiretls-not-offered")
	}
	return nil
}

// secure does STARTTLS, judges and says EHLO again; or finds that there is no TLS,
// which is all right where nothing is demanded.
func (s *Session) secure(c *Client) *Failure {
	f := s.startTLS()
	if f != nil && s.broken {
		return f
	}
	if f != nil {
		if s.target.Demand.Security != Opportunistic {
			return f
		}
		s.info.NoTLS = f // RFC 3207 §4: on in clear on this connection
		return nil
	}
	if f := s.handshake(c); f != nil {
		return f
	}
	if f := s.verdict(); f != nil {
		return f
	}
	f = s.hello()
	if f != nil && s.broken && !f.Remote {
		// With TLS 1.3 the server's own verdict on the handshake comes
		// after ours, as an alert in place of a reply.
		f = s.alerted(f)
	}
	return f
}

func (c *Client) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// logSession tells what an opportunistic session would have proven too (RFC 7672 §9.1).
func (c *Client) logSession(s *Session) {
	i := s.Info()
	attrs := []any{"host", s.target.String(), "demand", s.target.Demand.Security, "secured", i.Secured}
	if i.TLS {
		attrs = append(attrs, "version", tls.VersionName(i.Version), "cipher", tls.CipherSuiteName(i.Cipher))
	}
	for _, why := range []struct {
		key string
		err error
	}{{"dane", i.DANEErr}, {"pkix", i.PKIXErr}, {"sts", i.STSErr}} {
		if why.err != nil {
			attrs = append(attrs, why.key, clip(why.err.Error(), maxReason))
		}
	}
	if i.NoTLS != nil {
		attrs = append(attrs, "clear", i.NoTLS.Error())
	}
	c.log().Info("session", attrs...)
}

package smtpclient

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"time"
)

// startTLS asks for TLS wherever it is offered. The keyword is STARTTLS; TLS, of
// the drafts before RFC 2487, is not it.
func (s *Session) startTLS() *Failure {
	if !s.Offers("STARTTLS") {
		code, enhanced := s.target.Demand.codes("4.7.4")
		return s.fail(StageSTARTTLS, nil, code, enhanced, "does not offer STARTTLS").
			about("starttls-not-supported", "starttls-not-offered")
	}
	// Nothing may follow STARTTLS before its reply (RFC 3207 §4, RFC 2920 §3.1).
	a, f := s.command(StageSTARTTLS, s.limits.Hello, "STARTTLS", "STARTTLS")
	if f != nil {
		return f.about("starttls-not-supported", "starttls-failed")
	}
	if a.code != 220 {
		f := s.deferred(StageSTARTTLS, a, "STARTTLS")
		f.Reply.Code, f.Reply.Enhanced = 451, "4.7.4"
		if a.class() == 5 { // 454 may pass, the others will not
			f.Reply.Code, f.Reply.Enhanced = s.target.Demand.codes("4.7.4")
		}
		return f.about("starttls-not-supported", "starttls-refused: "+a.brief())
	}
	if n := s.r.Buffered(); n > 0 {
		// Somebody in between wants us to take this for the reply to what we
		// will say inside TLS (CVE-2011-0411).
		s.broken = true
		return s.fail(StageHandshake, nil, 451, "4.7.5", "sent %d octets in clear text behind its reply to STARTTLS", n).
			about("validation-failure", "plaintext-behind-starttls")
	}
	return nil
}

// codes are those of a failure to have TLS, or the right one: definitive for
// REQUIRETLS (RFC 8689 §4.2.1), else policies can be mended (RFC 8461 §5, RFC 7672 §2.2).
func (d Demand) codes(enhanced string) (int, string) {
	if d.RequireTLS {
		return 550, "5.7.10"
	}
	return 451, enhanced
}

// config is the client's side of TLS by RFC 9325 and RFC 10015. No session is ever
// resumed, no protocol negotiated (none is defined for relaying), no certificate
// presented, and versions are not tried out one after the other.
func (s *Session) config(c *Client) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// TLS 1.3 has its own. Static RSA and finite fields are out (RFC 10015),
		// and so is CBC, for which Go has no encrypt-then-MAC.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		Renegotiation: tls.RenegotiateNever,
		ServerName:    s.target.serverName(),
		Time:          c.Now,
		// The verdict is ours: there is more than one kind, and a session
		// that fails shall get QUIT (RFC 3207 §4.1), which the handshake's own
		// check would not leave us.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			s.judge(c, state)
			return nil
		},
	}
}

// serverName is the name for SNI: the TLSA base domain where there is one (RFC
// 7672 §8.1), else, and wherever the certificate must be for it, the MX host (RFC
// 8461 §7.1); none for an address literal.
func (t Target) serverName() string {
	if h := t.Demand.Host; h != nil && len(h.Usable) > 0 && t.Demand.Security != PKIX {
		return h.Base
	}
	return t.host()
}

func (s *Session) handshake(c *Client) *Failure {
	conn := tls.Client(s.raw, s.config(c))
	s.raw.SetDeadline(time.Now().Add(s.limits.Handshake))
	if err := conn.Handshake(); err != nil {
		s.broken = true
		return s.unshaken(err)
	}
	s.raw.SetDeadline(time.Time{})
	s.over(conn)
	state := conn.ConnectionState()
	s.info.TLS, s.info.Version, s.info.Cipher = true, state.Version, state.CipherSuite
	return nil
}

// unshaken explains why there was no handshake. Who was reached and does not do TLS
// as we want it will not for REQUIRETLS either; who hung up, fell silent or had
// trouble of his own may.
func (s *Session) unshaken(err error) *Failure {
	reason := ""
	remote, alert := errors.AsType[*net.OpError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	local, ours := strings.CutPrefix(err.Error(), "tls: ")
	switch {
	case s.ended.Load():
	case alert && remote.Op == "remote error":
		reason = "tls-remote-alert: " + strings.TrimPrefix(remote.Err.Error(), "tls: ")
	case record:
		reason = "tls-record-header-error"
	case ours:
		reason = "tls-local: " + local
	}
	if reason != "" {
		code, enhanced := s.target.Demand.codes("4.7.5")
		if alert && strings.Contains(reason, "internal error") { // nothing about us, RFC 8446 §6.2
			code, enhanced = 451, "4.7.5"
		}
		f := s.fail(StageHandshake, err, code, enhanced, "TLS handshake failed%s", cause(err)).about("validation-failure", reason)
		if ours && strings.Contains(local, "certificate") { // that crypto/x509 cannot read
			f.Result = "certificate-not-trusted"
		}
		return f
	}

	f := s.lost(StageHandshake, err, s.limits.Handshake, "waiting for the TLS handshake")
	switch {
	case s.ended.Load(): // which is nobody's fault
		return f
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = "tls-timeout"
	default:
		reason = "tls-connection-lost"
	}
	f.Reply.Enhanced = "4.7.5"
	return f.about("validation-failure", reason)
}

// alerted turns the failure of the first words inside TLS into that of the
// handshake, if the server answered with an alert, or just hung up.
func (s *Session) alerted(f *Failure) *Failure {
	_, bad := errors.AsType[*replyError](f.Err)
	if bad || errors.Is(f.Err, os.ErrDeadlineExceeded) {
		return f
	}
	return s.unshaken(f.Err)
}

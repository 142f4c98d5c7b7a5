package smtpclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"postseal/policy/dane"
)

// judge finds out what a TLS session proves, by DANE and by PKIX, whatever is
// demanded. It runs within every handshake.
func (s *Session) judge(c *Client, state tls.ConnectionState) {
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	i, d := &s.info, s.target.Demand
	i.Secured = Encrypt
	if i.PKIXErr = s.target.pkix(c.Roots, state.PeerCertificates, now()); i.PKIXErr == nil {
		i.Secured = PKIX
	}
	if d.STS != nil {
		i.STSErr = i.PKIXErr
		if !d.STS.Match(s.target.Name) {
			i.STSErr = errNotInPolicy
		}
	}
	if d.Plan == nil || d.Host == nil || len(d.Host.Usable) == 0 {
		return
	}
	var chain [][]byte
	for _, cert := range state.PeerCertificates {
		chain = append(chain, cert.Raw)
	}
	if _, err := dane.Verify(d.Host.Usable, chain, d.Plan.Names(d.Host), now()); err != nil {
		i.DANEErr = err
		return
	}
	i.Secured = DANE
}

// proveNothing is judge for a session in clear text.
func (s *Session) proveNothing() {
	i, d := &s.info, s.target.Demand
	if d.STS != nil {
		i.STSErr = i.NoTLS
		if !d.STS.Match(s.target.Name) {
			i.STSErr = errNotInPolicy
		}
	}
	if d.Host != nil && len(d.Host.Usable) > 0 {
		i.DANEErr = i.NoTLS
	}
}

var (
	errNotInPolicy   = errors.New("the MX host is not in the MTA-STS policy")
	errNoCertificate = errors.New("no certificate presented")
	errNotDANE       = errors.New("no usable TLSA records")
)

// pkix verifies the certificate of an MX host (RFC 8461 §4.2): a known authority,
// valid now, and a DNS-ID for the host's name (RFC 9525 §6.3); neither common
// names nor addresses count. An address literal has no other name than the address.
func (t Target) pkix(roots *x509.CertPool, chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return errNoCertificate
	}
	leaf := chain[0]
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return err
	}
	name := t.host()
	if name == "" {
		return leaf.VerifyHostname(t.Addr.Addr().Unmap().WithZone("").String())
	}
	if _, err := netip.ParseAddr(name); err == nil || name[0] == '[' {
		// crypto/x509 would look for the address.
		return x509.HostnameError{Certificate: leaf, Host: name}
	}
	return leaf.VerifyHostname(name)
}

// verdict holds what was found against what is demanded.
func (s *Session) verdict() *Failure {
	i := &s.info
	var err error
	switch s.target.Demand.Security {
	case Opportunistic, Encrypt:
		return nil
	case PKIX:
		if err = i.PKIXErr; err == nil && i.Secured >= PKIX {
			return nil
		}
	case DANE:
		if i.Secured == DANE {
			return nil
		}
		err = i.DANEErr
	}
	if err == nil { // judged by nothing: a demand without a host
		err = errNotDANE
	}
	code, enhanced := s.target.Demand.codes("4.7.5")
	return s.fail(StageVerify, err, code, enhanced, "%s", words(err)).about(Classify(err))
}

// Classify gives the result type and the failure-reason-code of RFC 8460 §4.3 for
// [Info.DANEErr], [Info.PKIXErr] and [Info.STSErr], and for a [*Failure] its own.
func Classify(err error) (result, reason string) {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Result, f.Reason
	}
	if e, ok := errors.AsType[*dane.VerifyError](err); ok {
		switch e.Failure {
		case dane.NoMatch:
			return "certificate-not-trusted", "tlsa-no-match"
		case dane.Expired:
			return "certificate-expired", "tlsa: " + clip(e.Reason, maxReason)
		case dane.NameMismatch:
			return "certificate-host-mismatch", "tlsa: " + clip(e.Reason, maxReason)
		}
		return "certificate-not-trusted", "tlsa: " + clip(e.Reason, maxReason)
	}
	if errors.Is(err, errNotInPolicy) {
		return "validation-failure", "mx-not-in-policy"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "certificate-host-mismatch", clip(words(err), maxReason)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return "certificate-expired", clip(words(err), maxReason)
	}
	return "certificate-not-trusted", clip(words(err), maxReason)
}

// words are those of err without the library's name, and without lists of names.
func words(err error) string {
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("certificate is not for %s", e.Host)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		if strings.Contains(e.Detail, " is before ") {
			return "certificate is not valid before " + e.Cert.NotBefore.UTC().Format(time.DateOnly)
		}
		return "certificate has expired on " + e.Cert.NotAfter.UTC().Format(time.DateOnly)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "certificate is signed by an unknown authority"
	}
	return strings.TrimPrefix(err.Error(), "x509: ")
}

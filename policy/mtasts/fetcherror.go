package mtasts

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// Result names the failure as RFC 8460 §4.3.2.2 does.
type Result string

const (
	// PolicyFetchError is every failure that is none of the others: DNS,
	// connection, TLS, time, HTTP status, size.
	PolicyFetchError Result = "sts-policy-fetch-error"
	// PolicyInvalid is a text that is no policy, or of another media type.
	PolicyInvalid Result = "sts-policy-invalid"
	// WebPKIInvalid is a certificate that does not authenticate the policy host.
	WebPKIInvalid Result = "sts-webpki-invalid"
)

// FetchError is the error of Fetch.
type FetchError struct {
	Domain    string
	Result    Result
	Temporary bool // may pass by itself; otherwise the domain's owner has to mend it
	Err       error
}

// Error is printable and of at most about 400 bytes, whatever the other side sent.
func (e *FetchError) Error() string {
	s := "policy of " + printable(e.Domain, maxNameLen) + ": " + printable(e.Err.Error(), 300)
	if e.Temporary {
		s += " (temporary)"
	}
	return s
}

func (e *FetchError) Unwrap() error { return e.Err }

// temporary marks err as one that may pass by itself.
func temporary(err error) error {
	return &FetchError{Result: PolicyFetchError, Temporary: true, Err: err}
}

// asFetchError names the domain in what a step of a fetch returned. An error without
// class is a lasting PolicyFetchError.
func asFetchError(domain string, err error) *FetchError {
	e, ok := err.(*FetchError)
	if !ok {
		e = &FetchError{Result: PolicyFetchError, Err: err}
	}
	e.Domain = domain
	return e
}

// handshakeError tells a certificate problem from a problem of TLS or of the network.
func handshakeError(host string, err error, now time.Time) error {
	var noRoots x509.SystemRootsError
	if errors.As(err, &noRoots) {
		// Our own trouble, which must not be reported as the other side's.
		return temporary(inWords(err, "the system's root certificates cannot be loaded: %v", noRoots.Err))
	}
	var verification *tls.CertificateVerificationError
	if errors.As(err, &verification) {
		return &FetchError{Result: WebPKIInvalid, Err: inWords(err, "%s", certificateReason(host, verification, now))}
	}
	e := inWords(err, "TLS with %s: %s", host, ioReason(err))
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") {
		return e // an alert: the other side cannot or will not
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return fmt.Errorf("%s does not speak TLS on its https port", host)
	}
	if !strings.HasPrefix(err.Error(), "tls: ") {
		return temporary(e)
	}
	// A certificate that cannot be parsed or used has no error type in crypto/tls.
	if strings.Contains(err.Error(), "certificate") {
		return &FetchError{Result: WebPKIInvalid, Err: e}
	}
	return e
}

// reasonError says in better words what err is.
type reasonError struct {
	words string
	err   error
}

func (e *reasonError) Error() string { return e.words }
func (e *reasonError) Unwrap() error { return e.err }

// inWords wraps err without its own text.
func inWords(err error, format string, args ...any) error {
	return &reasonError{fmt.Sprintf(format, args...), err}
}

// ioReason is the text of an error of a connection without the addresses, which
// differ from one attempt to the next.
func ioReason(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "connection closed too early"
	}
	var op *net.OpError
	if !errors.As(err, &op) {
		return err.Error()
	}
	if op.Op == "remote error" {
		return op.Op + ": " + op.Err.Error()
	}
	var call *os.SyscallError
	if errors.As(op.Err, &call) {
		return call.Err.Error()
	}
	return op.Err.Error()
}

// certificateReason says what is wrong with a certificate. What it takes from the
// certificate is printable and bounded.
func certificateReason(host string, err *tls.CertificateVerificationError, now time.Time) string {
	subject := "certificate of " + host
	var (
		invalid  x509.CertificateInvalidError
		name     x509.HostnameError
		unknown  x509.UnknownAuthorityError
		sentLeaf = len(err.UnverifiedCertificates) > 0
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if sentLeaf && !invalid.Cert.Equal(err.UnverifiedCertificates[0]) {
			subject = "issuer " + quoted(invalid.Cert.Subject.String()) + " of the " + subject
		}
		if now.Before(invalid.Cert.NotBefore) {
			return subject + " is not valid before " + invalid.Cert.NotBefore.UTC().Format(time.DateOnly)
		}
		return subject + " expired on " + invalid.Cert.NotAfter.UTC().Format(time.DateOnly)
	case errors.As(err, &name) && name.Certificate != nil:
		if len(name.Certificate.DNSNames) == 0 {
			return subject + " names no host (a common name does not count)"
		}
		return subject + " is only for " + certificateNames(name.Certificate)
	case errors.As(err, &unknown) && sentLeaf:
		leaf := err.UnverifiedCertificates[0]
		if leaf.Issuer.String() == leaf.Subject.String() {
			return subject + " is self-signed"
		}
		subject += " is from an unknown authority, " + quoted(leaf.Issuer.String())
		if len(err.UnverifiedCertificates) == 1 {
			subject += ", and came without an intermediate certificate" // often forgotten
		}
		return subject
	}
	return subject + " is invalid: " + printable(err.Err.Error(), 200)
}

// certificateNames lists the first names that a certificate is valid for.
func certificateNames(c *x509.Certificate) string {
	const most = 3
	var names []string
	for _, n := range c.DNSNames[:min(len(c.DNSNames), most)] {
		names = append(names, printable(n, 64))
	}
	s := strings.Join(names, ", ")
	if len(c.DNSNames) > most {
		s += ", ..."
	}
	return s
}

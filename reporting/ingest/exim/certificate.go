package exim

import (
	"crypto/x509"
	"errors"
	"time"

	"postseal/reporting/tlsrpt"
)

const (
	// maxChain is how many certificates of a chain are kept: one more than the depth
	// that GnuTLS and OpenSSL verify by default in mail servers (Postfix: 9).
	maxChain = 10

	// maxChainBytes bounds one chain; real ones have 2 to 6 KiB.
	maxChainBytes = 48 << 10
)

// verifyChain says what is wrong with the certificates that a server showed, its own
// first, as an MTA-STS policy sees it (RFC 8461 §4.2): "" if nothing is.
func verifyChain(chain [][]byte, host string, roots *x509.CertPool, now time.Time) (result tlsrpt.ResultType, reason string) {
	if len(chain) == 0 || len(chain[0]) == 0 {
		return tlsrpt.ValidationFailure, "no certificate"
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return tlsrpt.ValidationFailure, "certificate cannot be read"
	}
	switch {
	case now.After(leaf.NotAfter):
		return tlsrpt.CertificateExpired, "certificate has expired"
	case now.Before(leaf.NotBefore):
		return tlsrpt.ValidationFailure, "certificate is not yet valid"
	}
	between := x509.NewCertPool()
	for _, der := range chain[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	if err == nil {
		if leaf.VerifyHostname(host) != nil {
			return tlsrpt.CertificateHostMismatch, "certificate is for another host"
		}
		return "", ""
	}
	return chainError(leaf, err)
}

func chainError(leaf *x509.Certificate, err error) (tlsrpt.ResultType, string) {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case x509.Expired:
			return tlsrpt.CertificateExpired, "a certificate of the chain has expired"
		case x509.IncompatibleUsage:
			return tlsrpt.ValidationFailure, "certificate is not for servers"
		}
		return tlsrpt.CertificateNotTrusted, "certificate chain is broken"
	}
	if leaf.CheckSignatureFrom(leaf) == nil || string(leaf.RawIssuer) == string(leaf.RawSubject) {
		return tlsrpt.CertificateNotTrusted, "self-signed certificate"
	}
	return tlsrpt.CertificateNotTrusted, "unknown certification authority"
}

// leafMismatch reports whether a server's certificate is for other hosts.
func leafMismatch(der []byte, host string) bool {
	leaf, err := x509.ParseCertificate(der)
	return err == nil && leaf.VerifyHostname(host) != nil
}

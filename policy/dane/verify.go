package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"postseal/policy/dnssec"
)

// maxChain is how many presented certificates are looked at, the server's own
// included: one more than Postfix's smtp_tls_scert_verifydepth of 9.
const maxChain = 10

// Failure is the kind of a [VerifyError].
type Failure uint8

const (
	NoMatch      Failure = iota // no certificate matches a record, or none was presented
	Malformed                   // the server's certificate cannot be read
	Untrusted                   // a trust anchor matches, but the chain to it does not hold
	Expired                     // the same, because of validity dates
	NameMismatch                // the chain holds, but the certificate is for other names
)

func (f Failure) String() string {
	return [...]string{"no match", "malformed", "untrusted", "expired", "name mismatch"}[f]
}

// VerifyError is the error of [Verify]. Another connection to the same host may
// well succeed, so it is temporary as far as mail is concerned (RFC 7672 §2.2).
type VerifyError struct {
	Failure Failure
	Reason  string // printable, at most 200 bytes
	Err     error  // cause, if any
}

func (e *VerifyError) Error() string { return e.Reason }
func (e *VerifyError) Unwrap() error { return e.Err }

func failed(f Failure, err error, format string, args ...any) *VerifyError {
	s := fmt.Sprintf(format, args...)
	if err != nil {
		s += ": " + err.Error()
	}
	return &VerifyError{f, printable(s), err}
}

// Verify checks the certificates that a server presented, as DER in the order of the
// handshake, against usable records (Host.Usable), and gives the record that
// authenticates it. One is enough, and DANE-EE and DANE-TA may be mixed (RFC
// 6698 §4.1). names are the reference identifiers ([Plan.Names]); they and
// now matter to DANE-TA alone. The error is always a [*VerifyError].
//
// DANE-EE compares the server's certificate and looks at nothing else: no names,
// dates, key usages or signatures (RFC 7672 §3.1.1, RFC 7671 §5.1).
//
// DANE-TA is PKIX path validation with the matching certificate as the only
// root (RFC 7672 §3.1.2); the system's roots play no part. The dates of all
// certificates on the path count. So do those of the anchor itself, where the
// RFCs are silent and OpenSSL, hence Postfix, is as strict.
func Verify(records []dnssec.TLSA, chain [][]byte, names []string, now time.Time) (dnssec.TLSA, error) {
	if len(chain) == 0 {
		return dnssec.TLSA{}, failed(NoMatch, nil, "no certificate presented")
	}

	spki, spkiErr := spkiOf(chain[0])
	anchored := false
	for _, r := range records {
		switch {
		case r.Usage == usageEE && matches(r, chain[0], spki):
			return r, nil // only position 0 counts, RFC 7671 §5.1
		case r.Usage == usageTA:
			anchored = true
		}
	}
	if anchored {
		return verifyAnchored(records, chain[:min(len(chain), maxChain)], names, now)
	}
	if spkiErr != nil {
		return dnssec.TLSA{}, failed(Malformed, spkiErr, "certificate matches no TLSA record")
	}
	return dnssec.TLSA{}, failed(NoMatch, nil, "certificate matches none of %d TLSA records", len(records))
}

// matches compares a certificate, or its key where the selector says so, with a
// record (RFC 6698 §2.1.2, §2.1.3).
func matches(r dnssec.TLSA, cert, spki []byte) bool {
	data := cert
	switch r.Selector {
	case selectorCert:
	case selectorSPKI:
		data = spki
	default:
		return false
	}
	if len(data) == 0 {
		return false
	}

	switch r.MatchingType {
	case matchFull:
		return bytes.Equal(r.Data, data)
	case matchSHA256:
		sum := sha256.Sum256(data)
		return bytes.Equal(r.Data, sum[:])
	case matchSHA512:
		sum := sha512.Sum512(data)
		return bytes.Equal(r.Data, sum[:])
	}
	return false
}

// anchor is a certificate at which a path may end, and the record that says so.
type anchor struct {
	cert   *x509.Certificate
	record dnssec.TLSA
}

func verifyAnchored(records []dnssec.TLSA, chain [][]byte, names []string, now time.Time) (dnssec.TLSA, error) {
	leaf, err := parseCertificate(chain[0])
	if err != nil {
		return dnssec.TLSA{}, failed(Malformed, err, "certificate cannot be read")
	}
	var above []*x509.Certificate
	for _, der := range chain[1:] {
		c, err := parseCertificate(der)
		if err == nil && !c.Equal(leaf) { // the leaf repeated is no trust anchor
			above = append(above, c)
		}
	}

	anchors := anchorsOf(records, leaf, above)
	if len(anchors) == 0 {
		return dnssec.TLSA{}, failed(NoMatch, nil, "no certificate of %d presented matches one of %d TLSA records", len(chain), len(records))
	}
	paths, err := validate(leaf, above, anchors, now)
	if err != nil {
		return dnssec.TLSA{}, failed(failureOf(err, leaf, above, anchors, now), err, "certificate does not lead to the trust anchor")
	}
	for _, path := range paths {
		if !covers(path, names) {
			continue
		}
		for _, a := range anchors {
			if a.cert.Equal(path[len(path)-1]) {
				return a.record, nil
			}
		}
	}
	return dnssec.TLSA{}, failed(NameMismatch, nil, "certificate is for %s, not for %s",
		strings.Join(identifiers(leaf), ", "), strings.Join(names, ", "))
}

// anchorsOf finds where a path may end: at presented certificates that match a
// DANE-TA record, or at what the record itself holds, if nothing presented matches. A
// record that matches the leaf alone anchors nothing.
func anchorsOf(records []dnssec.TLSA, leaf *x509.Certificate, above []*x509.Certificate) []anchor {
	var anchors []anchor
	for _, r := range records {
		if r.Usage != usageTA {
			continue
		}
		presented := matches(r, leaf.Raw, leaf.RawSubjectPublicKeyInfo)
		for _, c := range above {
			if matches(r, c.Raw, c.RawSubjectPublicKeyInfo) {
				anchors = append(anchors, anchor{c, r})
				presented = true
			}
		}
		if presented || r.MatchingType != matchFull {
			continue
		}

		if r.Selector == selectorCert { // RFC 7671 §5.2.2
			if c, err := parseCertificate(r.Data); err == nil {
				anchors = append(anchors, anchor{c, r})
			}
			continue
		}
		for _, c := range signedBy(r.Data, leaf, above) { // RFC 7671 §5.2.3
			anchors = append(anchors, anchor{c, r})
		}
	}
	return anchors
}

// signedBy gives the certificates that a bare key signed. A path may end at
// each: the key, not the certificate, is the trust anchor, so that one step
// is verified here and crypto/x509 sees the rest. The leaf as its own root
// still has its dates and usage checked.
func signedBy(spki []byte, leaf *x509.Certificate, above []*x509.Certificate) []*x509.Certificate {
	key, err := parseKey(spki)
	if err != nil {
		return nil
	}
	// A version 1 certificate has no extensions to be held against it; the
	// algorithm only has to be known, the type of the key is what counts.
	issuer := &x509.Certificate{Version: 1, PublicKey: key, PublicKeyAlgorithm: x509.RSA}

	var signed []*x509.Certificate
	if leaf.CheckSignatureFrom(issuer) == nil {
		signed = append(signed, leaf)
	}
	for _, c := range above {
		// Roots of crypto/x509 may be of version 1, intermediates may not.
		if c.BasicConstraintsValid && c.IsCA && c.CheckSignatureFrom(issuer) == nil {
			signed = append(signed, c)
		}
	}
	return signed
}

func validate(leaf *x509.Certificate, above []*x509.Certificate, anchors []anchor, now time.Time) ([][]*x509.Certificate, error) {
	opts := x509.VerifyOptions{
		Roots:         x509.NewCertPool(), // never nil, which would mean the system's
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
	}
	for _, a := range anchors {
		opts.Roots.AddCert(a.cert)
	}
	for _, c := range above {
		opts.Intermediates.AddCert(c)
	}
	return leaf.Verify(opts)
}

// failureOf tells whether err is due to validity dates. For other certificates
// than the leaf crypto/x509 only says that it found no path, so ask whether there
// was one when a certificate was last, or first, valid.
func failureOf(err error, leaf *x509.Certificate, above []*x509.Certificate, anchors []anchor, now time.Time) Failure {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return Expired
	}

	certs := above
	for _, a := range anchors {
		certs = append(certs[:len(certs):len(certs)], a.cert)
	}
	for _, c := range certs[:min(len(certs), maxChain)] {
		at := now
		if now.After(c.NotAfter) {
			at = c.NotAfter
		} else if now.Before(c.NotBefore) {
			at = c.NotBefore
		}
		if at.Equal(now) {
			continue
		}
		if _, err := validate(leaf, above, anchors, at); err == nil {
			return Expired
		}
	}
	return Untrusted
}

// covers reports whether the first certificate of a path is for one of names.
func covers(path []*x509.Certificate, names []string) bool {
	leaf := path[0]
	if len(leaf.DNSNames) == 0 {
		// crypto/x509 holds name constraints against subject alternative names
		// alone, so a common name would escape them.
		for _, c := range path {
			if len(c.PermittedDNSDomains) > 0 || len(c.ExcludedDNSDomains) > 0 {
				return false
			}
		}
	}
	for _, id := range identifiers(leaf) {
		for _, name := range names {
			if covered(strings.ToLower(id), name) {
				return true
			}
		}
	}
	return false
}

// identifiers are the names that a certificate presents: its DNS-IDs and, only if
// it has none, the common name (RFC 7672 §3.2.3).
func identifiers(c *x509.Certificate) []string {
	if len(c.DNSNames) > 0 {
		return c.DNSNames
	}
	return []string{c.Subject.CommonName}
}

// covered matches a presented name with a reference identifier. A wildcard is
// the whole left-most label and stands for exactly one (RFC 7672 §3.2.3, RFC 6125
// §6.4.3); as in OpenSSL, not for one right below a top-level domain.
func covered(id, name string) bool {
	if name == "" || strings.Contains(name, "*") {
		return false
	}
	if id == name {
		return true
	}
	parent, ok := strings.CutPrefix(id, "*.")
	if !ok || !strings.Contains(parent, ".") {
		return false
	}
	label, rest, ok := strings.Cut(name, ".")
	return ok && label != "" && rest == parent
}

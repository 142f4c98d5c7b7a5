package dane_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"postseal/policy/dnssec"
)

// now is when certificates are verified in tests; issued ones are valid then.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

var serial atomic.Int64

// cert is a certificate with its key.
type cert struct {
	*x509.Certificate
	key crypto.Signer
}

// issue makes a certificate for name, which is a DNS-ID unless edit says otherwise.
// Without an issuer it is self-signed.
func issue(t testing.TB, issuer *cert, name string, edit ...func(*x509.Certificate)) *cert {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issueKey(t, key, issuer, name, edit...)
}

func issueKey(t testing.TB, key crypto.Signer, issuer *cert, name string, edit ...func(*x509.Certificate)) *cert {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    now.Add(-24 * time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	for _, f := range edit {
		f(tmpl)
	}
	parent, signer := tmpl, key
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &cert{c, key}
}

func authority(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign
	c.DNSNames = nil
	c.MaxPathLen = -1
}

func expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = now.Add(-48*time.Hour), now.Add(-24*time.Hour)
}

func notYetValid(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = now.Add(24*time.Hour), now.Add(48*time.Hour)
}

func names(dns ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = dns }
}

// tlsa makes the record for a certificate.
func tlsa(usage, selector, matching uint8, c *cert) dnssec.TLSA {
	data := c.Raw
	if selector == 1 {
		data = c.RawSubjectPublicKeyInfo
	}
	return dnssec.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: digest(matching, data)}
}

func digest(matching uint8, data []byte) []byte {
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		return sum[:]
	case 2:
		sum := sha512.Sum512(data)
		return sum[:]
	}
	return data
}

// wrong is a record of the form that matches nothing.
func wrong(usage, selector, matching uint8) dnssec.TLSA {
	return dnssec.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: digest(matching, []byte("something else"))}
}

func der(certs ...*cert) [][]byte {
	chain := make([][]byte, len(certs))
	for i, c := range certs {
		chain[i] = c.Raw
	}
	return chain
}

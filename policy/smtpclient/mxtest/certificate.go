package mxtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"

	"postseal/policy/dnssec"
)

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority is certified by another, or by itself if that is nil.
func newAuthority(name string, notAfter time.Time, by *authority) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             date(1990),
		NotAfter:              notAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	if by == nil {
		by = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

func date(year int) time.Time { return time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC) }

func certificates() []string {
	return []string{"", "expired", "notyet", "selfsigned", "otherca", "wrongname", "cnonly", "ipsan", "intermediate", "oldissuer", "malformed", "huge"}
}

// certificate is the host's own as its configuration wants it; its issuer's follows it.
// It stays the same until Set or Rekey.
func (h *Host) certificate() (*tls.Certificate, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cert != nil {
		return h.cert, nil
	}
	cert, err := h.issue(h.config, h.key)
	if err == nil {
		h.cert = cert
	}
	return cert, err
}

func (h *Host) issue(config Config, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	names := config.Names
	if names == nil {
		names = []string{h.Name}
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: names[0]},
		DNSNames:     names,
		NotBefore:    date(1990),
		NotAfter:     date(2100),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	ca, issuer := h.net.ca, h.net.ca.cert
	signer := ca.key
	var err error
	switch config.Certificate {
	case "expired":
		template.NotAfter = date(1999)
	case "notyet":
		template.NotBefore = date(2099)
	case "wrongname":
		template.DNSNames = []string{"wrong.mxtest.example"}
	case "cnonly":
		template.DNSNames = nil
	case "ipsan":
		template.DNSNames, template.IPAddresses = nil, []net.IP{net.ParseIP(h.Addr().Addr().String())}
	case "selfsigned":
		issuer, signer = template, key
	case "otherca":
		if ca, err = newAuthority("mxtest other CA", date(2100), nil); err != nil {
			return nil, err
		}
		issuer, signer = ca.cert, ca.key
	case "intermediate", "oldissuer":
		notAfter := date(2100)
		if config.Certificate == "oldissuer" {
			notAfter = date(1999)
		}
		if ca, err = newAuthority("mxtest intermediate CA", notAfter, &ca); err != nil {
			return nil, err
		}
		issuer, signer = ca.cert, ca.key
	case "malformed":
		return &tls.Certificate{Certificate: [][]byte{{0x30, 0x03, 0x02, 0x01, 0x00}}, PrivateKey: key}, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	chain := [][]byte{der}
	switch config.Certificate {
	case "selfsigned":
	case "huge":
		for size := 0; size < 1<<20; size += len(ca.cert.Raw) {
			chain = append(chain, ca.cert.Raw)
		}
	default:
		chain = append(chain, ca.cert.Raw)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key}, nil
}

// Record is a TLSA record that the host satisfies: usage 3 of its certificate or key,
// usage 2 of the CA. That of the certificate holds until Set or Rekey, that of the
// key until Rekey.
func (h *Host) Record(usage, selector, matching uint8) dnssec.TLSA {
	h.net.tb.Helper()
	leaf, err := h.certificate()
	if err != nil {
		h.net.tb.Fatalf("mxtest: %v", err)
	}
	var data []byte
	switch [2]uint8{usage, selector} {
	case [2]uint8{2, 0}:
		data = h.net.ca.cert.Raw
	case [2]uint8{2, 1}:
		data = h.net.ca.cert.RawSubjectPublicKeyInfo
	case [2]uint8{3, 0}:
		data = leaf.Certificate[0]
	case [2]uint8{3, 1}:
		public := &leaf.PrivateKey.(*ecdsa.PrivateKey).PublicKey
		if data, err = x509.MarshalPKIXPublicKey(public); err != nil {
			h.net.tb.Fatalf("mxtest: %v", err)
		}
	default:
		h.net.tb.Fatalf("mxtest: no TLSA record %d %d", usage, selector)
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(data)
		data = sum[:]
	case 2:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return dnssec.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: data}
}

// TLSA is [Host.Record] as a zone has it: "3 1 1 0123…".
func (h *Host) TLSA(usage, selector, matching uint8) string {
	h.net.tb.Helper()
	return fmt.Sprintf("%d %d %d %x", usage, selector, matching, h.Record(usage, selector, matching).Data)
}

package ststest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"time"
)

// authority is a CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey // of its certificates too, which saves time
}

func newAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := authorityTemplate("ststest CA", date(2100))
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

func authorityTemplate(name string, notAfter time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             date(1990),
		NotAfter:              notAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
}

func date(year int) time.Time { return time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC) }

// issue makes a certificate for names with one of the certificate faults.
func (ca authority) issue(host string, names []string, fault string) (*tls.Certificate, error) {
	if len(names) == 0 {
		names = []string{host}
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: host},
		DNSNames:     names,
		NotBefore:    date(1990),
		NotAfter:     date(2100),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	issuer := ca.cert
	var chain [][]byte
	switch fault {
	case "expired":
		template.NotAfter = date(1999)
	case "notyet":
		template.NotBefore = date(2099)
	case "wrongname":
		template.DNSNames = []string{"mta-sts.wrong.test"}
	case "cnonly":
		template.DNSNames = nil
	case "selfsigned":
		issuer = template
	case "oldissuer":
		issuer = authorityTemplate("ststest intermediate", date(1999))
		der, err := x509.CreateCertificate(rand.Reader, issuer, ca.cert, &ca.key.PublicKey, ca.key)
		if err != nil {
			return nil, err
		}
		chain = [][]byte{der}
	case "badcert":
		return &tls.Certificate{Certificate: [][]byte{{0x30, 0x01}}, PrivateKey: ca.key}, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &ca.key.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, chain...), PrivateKey: ca.key}, nil
}

// tlsConfig chooses certificate and faults by SNI.
func (s *Server) tlsConfig() *tls.Config {
	return &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			_, h, ok := s.look(hello.ServerName)
			if !ok {
				return nil, errors.New("no such policy host")
			}
			cert, err := s.ca.issue(hello.ServerName, h.names, h.fault)
			if err != nil {
				return nil, err
			}
			config := &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"http/1.1"}}
			if h.fault == "tls11" {
				config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			}
			return config, nil
		},
	}
}

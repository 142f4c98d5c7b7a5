package send

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

const (
	minRSA     = 1024     // RFC 8301 §3.2: signers MUST use 1024 bits or more
	goodRSA    = 2048     // RFC 8301 §3.2: and SHOULD use 2048
	maxKeyFile = 64 << 10 // a key of 16384 bits has 13 KiB
)

// Key signs reports with DKIM (RFC 6376), in the name of a domain: that of the From
// or, for receivers that go by DMARC, one aligned with it.
type Key struct {
	Domain, Selector string
	signer           crypto.Signer
}

// LoadKey reads a private key for the record at selector._domainkey.domain, both in
// A-labels. The file is PEM, PKCS#1 or PKCS#8, and holds an RSA key of at least 1024
// bits or an Ed25519 key (RFC 8463). Others than owner and group must have no access
// to it.
func LoadKey(domain, selector, file string) (Key, error) {
	name := selector + "._domainkey." + domain
	if selector == "" || domain == "" || !isName(name) {
		return Key{}, fmt.Errorf("DKIM key %s: %s is no name for its record: A-labels are needed", file, quoted(name))
	}
	text, err := readKey(file)
	if err != nil {
		return Key{}, err // names the file
	}
	signer, err := parseKey(text)
	if err != nil {
		return Key{}, fmt.Errorf("DKIM key %s: %w", file, err)
	}
	return Key{Domain: strings.ToLower(domain), Selector: selector, signer: signer}, nil
}

func readKey(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("DKIM key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("DKIM key: %w", err)
	}
	if mode := info.Mode(); mode.Perm()&0o007 != 0 {
		return nil, fmt.Errorf("DKIM key %s is open to every user (mode %04o); type: chmod o= %s", file, mode.Perm(), file)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("DKIM key: %w", err)
	}
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("DKIM key %s is larger than %d bytes", file, maxKeyFile)
	}
	return text, nil
}

// parseKey takes the first private key. What tools put before it, as the parameters of
// a curve, is passed over.
func parseKey(text []byte) (crypto.Signer, error) {
	found := "no PEM"
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, errors.New("is encrypted, and there is nobody to ask for the passphrase; type: openssl pkey -in OLD -out NEW")
		case block.Type == "RSA PRIVATE KEY":
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			return usable(key, err)
		case block.Type == "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			return usable(key, err)
		}
		found = quoted(block.Type)
	}
	return nil, fmt.Errorf("has no private key that DKIM knows, RSA or Ed25519, but %s", found)
}

func usable(key any, err error) (crypto.Signer, error) {
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < minRSA {
			return nil, fmt.Errorf("has %d bits; RFC 8301 has receivers refuse less than %d", bits, minRSA)
		}
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, errors.New("is neither RSA nor Ed25519, which is all that DKIM knows")
}

// Warning says what an administrator should know of the key, or nothing.
func (k Key) Warning() string {
	key, ok := k.public().(*rsa.PublicKey)
	if !ok || key.N.BitLen() >= goodRSA {
		return ""
	}
	return fmt.Sprintf("DKIM key %s._domainkey.%s has %d bits; RFC 8301 recommends %d", k.Selector, k.Domain, key.N.BitLen(), goodRSA)
}

// Record is the text of the TXT record to publish at selector._domainkey.domain.
//
// RFC 8460 §3 would have "s=tlsrpt" in it. With that alone the key would be none for
// mail (RFC 6376 §3.6.1), and DMARC would fail; the list "email:tlsrpt" is refused by
// verifiers that compare the whole value, as dkimpy does. Without "s" a key is for
// every service.
func (k Key) Record() string {
	switch key := k.public().(type) {
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return ""
		}
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
	case ed25519.PublicKey: // RFC 8463 §4.2: the bare key
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(key)
	}
	return ""
}

func (k Key) public() crypto.PublicKey {
	if k.signer == nil {
		return nil
	}
	return k.signer.Public()
}

// signedFields are those of [tlsrpt.Message]. RFC 8460 §5.3 wants the two that begin
// with TLS-Report among them. From is there once more than in the message: a second
// one cannot be added (RFC 6376 §5.4.2, §8.15).
var signedFields = []string{
	"Date", "From", "From", "To", "Subject", "Message-ID", "TLS-Report-Domain", "TLS-Report-Submitter",
	"TLS-Required", "Auto-Submitted", "MIME-Version", "Content-Type",
}

// sign returns the DKIM-Signature field for a message. It covers the whole body:
// RFC 8460 §3 forbids "l=".
func (k Key) sign(message []byte) (string, error) {
	s, err := dkim.NewSigner(&dkim.SignOptions{
		Domain:                 k.Domain,
		Selector:               k.Selector,
		Signer:                 k.signer,
		Hash:                   crypto.SHA256,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed,
		BodyCanonicalization:   dkim.CanonicalizationRelaxed,
		HeaderKeys:             signedFields,
	})
	if err != nil {
		return "", err
	}
	_, err = s.Write(message)
	if err := errors.Join(s.Close(), err); err != nil {
		return "", err
	}
	return s.Signature(), nil
}

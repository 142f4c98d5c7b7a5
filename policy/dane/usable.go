package dane

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"postseal/policy/dnssec"
)

// Certificate usages, selectors and matching types (RFC 6698 §7.2 to §7.4, names
// of RFC 7218 §2).
const (
	usageTA = 2 // DANE-TA: a trust anchor
	usageEE = 3 // DANE-EE: the server's own certificate

	selectorCert = 0
	selectorSPKI = 1

	matchFull   = 0
	matchSHA256 = 1
	matchSHA512 = 2
)

// maxRSABits is the largest RSA modulus that is worked with. crypto/tls draws
// the same line, so that nobody's key costs seconds to verify with.
const maxRSABits = 8192

// defaultStrength is the order of digests in RFC 7671 §9, strongest first.
var defaultStrength = [...]uint8{matchSHA512, matchSHA256}

// Check tells why a TLSA record is unusable for SMTP; nil means usable. Usages
// 0 and 1 are, since RFC 7672 §3.1.3 leaves them undefined and mapping them to 2
// and 3 would be a guess. So are unknown parameters, digests of the wrong length
// (RFC 6698 §4.1), and full data that is not the certificate or key it says it
// is. A full trust anchor must besides be one that crypto/x509 can work with; a
// full end-entity is only compared, and needs the right shape alone.
func Check(r dnssec.TLSA) error {
	if r.Usage != usageTA && r.Usage != usageEE {
		return fmt.Errorf("certificate usage %d is not for SMTP", r.Usage)
	}
	if r.Selector != selectorCert && r.Selector != selectorSPKI {
		return fmt.Errorf("unknown selector %d", r.Selector)
	}

	switch r.MatchingType {
	case matchFull:
		return checkFull(r)
	case matchSHA256:
		return checkLength(r, 32)
	case matchSHA512:
		return checkLength(r, 64)
	}
	return fmt.Errorf("unknown matching type %d", r.MatchingType)
}

func checkLength(r dnssec.TLSA, want int) error {
	if len(r.Data) != want {
		return fmt.Errorf("digest of matching type %d has %d octets, not %d", r.MatchingType, len(r.Data), want)
	}
	return nil
}

func checkFull(r dnssec.TLSA) error {
	var err error
	switch {
	case r.Usage == usageTA && r.Selector == selectorCert:
		_, err = parseCertificate(r.Data)
	case r.Usage == usageTA:
		_, err = parseKey(r.Data)
	case r.Selector == selectorCert:
		_, err = spkiOf(r.Data)
	default:
		err = checkSPKI(r.Data) // RFC 6698 §2.1.2: a bare SubjectPublicKeyInfo
	}
	return err
}

// Select gives the records that count: the usable ones (see [Check]), and of
// those for each usage and selector all of matching type Full(0), but only the
// strongest digest (RFC 7672 §5, RFC 7671 §9). The order of the records is kept.
// strength lists the matching types that are digests, strongest first; records
// of a digest that is not listed are unusable. Without it the order is 2, 1.
func Select(records []dnssec.TLSA, strength ...uint8) []dnssec.TLSA {
	if len(strength) == 0 {
		strength = defaultStrength[:]
	}

	type key struct{ usage, selector uint8 }
	best := make(map[key]int) // index into strength
	rank := func(r dnssec.TLSA) int { return slices.Index(strength, r.MatchingType) }

	var usable []dnssec.TLSA
	for _, r := range records {
		if Check(r) != nil {
			continue
		}
		if r.MatchingType == matchFull {
			usable = append(usable, r)
			continue
		}
		n := rank(r)
		if n < 0 {
			continue
		}
		usable = append(usable, r)
		k := key{r.Usage, r.Selector}
		if b, ok := best[k]; !ok || n < b {
			best[k] = n
		}
	}
	return slices.DeleteFunc(usable, func(r dnssec.TLSA) bool {
		return r.MatchingType != matchFull && rank(r) != best[key{r.Usage, r.Selector}]
	})
}

// parseCertificate parses a certificate that is going to be worked with.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return c, checkKeySize(c.PublicKey)
}

// parseKey parses a SubjectPublicKeyInfo that signatures are verified with.
func parseKey(der []byte) (any, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	return key, checkKeySize(key)
}

func checkKeySize(key any) error {
	if k, ok := key.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSABits {
		return errors.New("RSA key is too large")
	}
	return nil
}

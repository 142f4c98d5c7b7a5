package dane

import (
	"encoding/asn1"
	"errors"
)

var (
	errNotCertificate = errors.New("data is not a DER certificate")
	errNotSPKI        = errors.New("data is not a DER public key")
)

// spkiOf cuts the SubjectPublicKeyInfo out of a certificate, looking at its outer
// shape alone (RFC 5280 §4.1): crypto/x509 rejects certificates, for reasons that do
// not matter to DANE-EE, in which the key is plain to see.
func spkiOf(cert []byte) ([]byte, error) {
	body, rest, ok := sequence(cert)
	if !ok || len(rest) > 0 {
		return nil, errNotCertificate
	}
	tbs, rest, ok := sequence(body)
	if !ok {
		return nil, errNotCertificate
	}
	if _, rest, ok = sequence(rest); !ok { // signatureAlgorithm
		return nil, errNotCertificate
	}
	if v, rest, ok := element(rest); !ok || len(rest) > 0 || !universal(v, asn1.TagBitString) {
		return nil, errNotCertificate
	}

	v, next, ok := element(tbs)
	if ok && v.Class == asn1.ClassContextSpecific && v.Tag == 0 { // version
		v, next, ok = element(next)
	}
	if !ok || !universal(v, asn1.TagInteger) { // serialNumber
		return nil, errNotCertificate
	}
	for range 4 { // signature, issuer, validity, subject
		if _, next, ok = sequence(next); !ok {
			return nil, errNotCertificate
		}
	}
	v, _, ok = element(next)
	if !ok || checkSPKI(v.FullBytes) != nil {
		return nil, errNotCertificate
	}
	return v.FullBytes, nil
}

// checkSPKI reports whether der has the shape of a SubjectPublicKeyInfo: an
// algorithm and a bit string (RFC 5280 §4.1.2.7).
func checkSPKI(der []byte) error {
	body, rest, ok := sequence(der)
	if !ok || len(rest) > 0 {
		return errNotSPKI
	}
	algorithm, rest, ok := sequence(body)
	if !ok {
		return errNotSPKI
	}
	if oid, _, ok := element(algorithm); !ok || !universal(oid, asn1.TagOID) {
		return errNotSPKI
	}
	if key, rest, ok := element(rest); !ok || len(rest) > 0 || !universal(key, asn1.TagBitString) {
		return errNotSPKI
	}
	return nil
}

// sequence reads one SEQUENCE, and gives its contents and what follows it.
func sequence(der []byte) (contents, rest []byte, ok bool) {
	v, rest, ok := element(der)
	if !ok || v.Class != asn1.ClassUniversal || v.Tag != asn1.TagSequence || !v.IsCompound {
		return nil, nil, false
	}
	return v.Bytes, rest, true
}

func element(der []byte) (v asn1.RawValue, rest []byte, ok bool) {
	rest, err := asn1.Unmarshal(der, &v)
	return v, rest, err == nil
}

func universal(v asn1.RawValue, tag int) bool {
	return v.Class == asn1.ClassUniversal && v.Tag == tag && !v.IsCompound
}

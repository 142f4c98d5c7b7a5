package tlsrpt

import "strings"

// maxName is longer than any registered type; what is longer is not a name.
const maxName = 64

// registered holds the types of RFC 8460 §6.6.
var registered = map[ResultType]bool{
	StartTLSNotSupported: true, CertificateHostMismatch: true, CertificateExpired: true,
	CertificateNotTrusted: true, ValidationFailure: true, TLSAInvalid: true, DNSSECInvalid: true,
	DANERequired: true, STSPolicyFetchError: true, STSPolicyInvalid: true, STSWebPKIInvalid: true,
}

// retired are the names of the drafts of RFC 8460, which old programs still use, and
// what they are called now.
var retired = map[string]ResultType{
	"mx-mismatch":          CertificateHostMismatch,
	"certificate-mismatch": CertificateHostMismatch,
	"expired-certificate":  CertificateExpired,
	"invalid-certificate":  CertificateNotTrusted,
	"sts-invalid":          STSPolicyInvalid,
	"webpki-invalid":       STSWebPKIInvalid,
}

// Registered reports whether t is one of RFC 8460 §6.6.
func (t ResultType) Registered() bool { return registered[t] }

// Canonical is the result type that a program calls name: with underscores for hyphens
// (the log of Postfix), in any case, or by the name that a draft of RFC 8460 had for
// it. A name that the registry may get one day is kept. What can be none is a
// ValidationFailure, and reason is what was called so, made printable and short;
// reason is "" otherwise.
func Canonical(name string) (result ResultType, reason string) {
	folded := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	if now, ok := retired[folded]; ok {
		return now, ""
	}
	// The registry has lower-case words with hyphens between them.
	if folded == "" || len(folded) > maxName || !strings.Contains(folded, "-") ||
		folded[0] == '-' || folded[len(folded)-1] == '-' ||
		strings.Trim(folded, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return ValidationFailure, plain(name)
	}
	if strings.HasPrefix(folded, "certificate-name-constraints-") {
		return CertificateNotTrusted, folded // RFC 8460 §4.3.1 counts name constraints there
	}
	return ResultType(folded), ""
}

// plain keeps at most maxName printable ASCII bytes of s.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < maxName; i++ {
		if s[i] >= ' ' && s[i] <= '~' {
			b.WriteByte(s[i])
		} else {
			b.WriteByte('?')
		}
	}
	return strings.TrimSpace(b.String())
}

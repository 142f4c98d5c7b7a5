// Package tlsrpt is SMTP TLS Reporting (RFC 8460) as text: what a session's failure
// is called, and which policy it failed. It is pure: nothing is asked, sent or
// remembered here.
package tlsrpt

// ResultType says why a session failed (RFC 8460 §4.3). Types that others send and
// nobody has registered are kept as they are.
type ResultType string

// The registered types (RFC 8460 §6.6).
const (
	StartTLSNotSupported    ResultType = "starttls-not-supported"
	CertificateHostMismatch ResultType = "certificate-host-mismatch"
	CertificateExpired      ResultType = "certificate-expired"
	CertificateNotTrusted   ResultType = "certificate-not-trusted"
	ValidationFailure       ResultType = "validation-failure"
	TLSAInvalid             ResultType = "tlsa-invalid"
	DNSSECInvalid           ResultType = "dnssec-invalid"
	DANERequired            ResultType = "dane-required"
	STSPolicyFetchError     ResultType = "sts-policy-fetch-error"
	STSPolicyInvalid        ResultType = "sts-policy-invalid"
	STSWebPKIInvalid        ResultType = "sts-webpki-invalid"
)

// PolicyType is the kind of policy that a session was held to (RFC 8460 §4.4).
type PolicyType string

const (
	TLSA     PolicyType = "tlsa"
	STS      PolicyType = "sts"
	NoPolicy PolicyType = "no-policy-found"
)

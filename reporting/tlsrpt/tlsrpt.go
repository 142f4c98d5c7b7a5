// Package tlsrpt is SMTP TLS Reporting (RFC 8460) as text. It is pure: nothing is asked,
// sent or remembered here.
//
// A domain that wants reports has a TXT record that says where to ([ParseRecord], §3).
// Once a day a sender of mail tells it in JSON how many TLS sessions with its servers
// went well and why the others failed ([Report], §4.4): for each policy that sessions
// were held to, the numbers, and for each kind of failure the servers and a
// [ResultType] (§4.3). Reports travel compressed, as the attachment of a mail
// ([Message], §5.3) or by https (§5.4).
//
// What is written is strict, since receivers refuse a whole report for one "" or null:
// [Report.Tidy] brings it into form and [Report.Validate] lets nothing else out. What
// is read ([Read]) is taken as the largest senders are known to write it.
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

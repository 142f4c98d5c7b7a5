package main

// What one message for each of these domains is counted as, by whoever sees the
// session. Domains that are not here have no session: see the story.
const (
	// With MX hosts that the mail server itself judges by PKIX, or not at all.
	plainSessions = `
		none               mx1 no-policy-found success
		none-selfsigned    mx1 no-policy-found success
		none-signed        mx1 no-policy-found success
		sts                mx1 sts success
		sts-wildcard       mx1 sts success
		sts-expired        mx1 sts certificate-expired
		sts-selfsigned     mx1 sts certificate-not-trusted
		sts-wrongname      mx1 sts certificate-host-mismatch
		sts-nostarttls     mx1 sts starttls-not-supported
		sts-handshake      mx1 sts validation-failure
		sts-failover       mx1 sts certificate-expired
		sts-failover       mx2 sts success
		sts-none           mx1 no-policy-found success
		sts-unproven       mx1 no-policy-found success
	`
	// That STARTTLS was not offered where nothing demands it; Postfix logs that from
	// 3.11 on (tls=may:none).
	clearSessions = `
		none-plaintext mx1 no-policy-found starttls-not-supported
	`
	// Found by the daemon when it was asked, without any connection: the policy host's
	// certificate, and the signature of TLSA records.
	policySessions = `
		sts-unproven - sts sts-webpki-invalid
		tlsa-bogus   - tlsa dnssec-invalid
	`
	// To MX hosts that the policy does not list.
	foreignMX = `
		sts-foreign-mx     mx1 sts validation-failure/mx-not-in-policy
		testing-foreign-mx mx1 sts validation-failure/mx-not-in-policy
	`
	// Of which Postfix before 3.6 says only that the certificate was not verified, and not
	// whether its name or the TLSA records were the reason.
	terseSessions = `
		sts-wrongname     mx1 sts validation-failure
		sts-foreign-mx    mx1 sts validation-failure
		dane-ta-wrongname mx1 tlsa validation-failure
		dane-mismatch     mx1 tlsa validation-failure
		both-mismatch     mx1 tlsa validation-failure
		dane-failover     mx1 tlsa validation-failure
		dane-failover     mx2 tlsa success
	`
	// By TLSA records.
	daneSessions = `
		dane              mx1 tlsa success
		dane-expired      mx1 tlsa success
		dane-ta           mx1 tlsa success
		dane-ta-wrongname mx1 tlsa certificate-host-mismatch
		dane-mismatch     mx1 tlsa certificate-not-trusted
		dane-nostarttls   mx1 tlsa starttls-not-supported
		dane-failover     mx1 tlsa certificate-not-trusted
		dane-failover     mx2 tlsa success
		dane-partial      mx1 tlsa success
		both              mx1 tlsa success
		both-mismatch     mx1 tlsa certificate-not-trusted
	`
	// Through the daemon, which holds each host against both policies.
	deliverySessions = `
		mixed        mx1 tlsa success
		mixed        mx1 sts certificate-not-trusted
		mixed-pkix   mx1 tlsa certificate-not-trusted
		mixed-pkix   mx1 sts success
		mixed-pkix   mx2 sts success
		mixed-broken mx1 tlsa certificate-not-trusted
		mixed-broken mx1 sts success
		mixed-broken mx2 sts certificate-not-trusted
		rt-dane      mx1 tlsa success
	`
	// By Exim, which holds each host against what it judges it by.
	eximMixed = `
		mixed        mx1 tlsa success
		mixed-pkix   mx1 tlsa certificate-not-trusted
		mixed-pkix   mx2 sts success
		mixed-broken mx1 tlsa certificate-not-trusted
		mixed-broken mx2 sts certificate-not-trusted
	`
	// What Exim sees otherwise: with GnuTLS it does not compare the name under DANE-TA,
	// and it never connects to MX hosts outside the policy.
	eximOwn = `
		dane-ta-wrongname  mx1 tlsa success
		testing-foreign-mx mx1 sts validation-failure/mx-not-in-policy
	`
	eximForeign = `
		sts-foreign-mx - sts validation-failure/mx-not-in-policy
	`
	// What its main log tells less of (GnuTLS): why a certificate failed, but for the
	// name; of an MX host that failed before another took the message nothing but for
	// DANE; of mail in clear nothing.
	eximLogOnly = `
		sts-expired    mx1 sts validation-failure
		sts-selfsigned mx1 sts validation-failure
		sts-failover   mx2 sts success
		mixed-broken   mx2 sts validation-failure
	`
	// With OpenSSL Exim compares the name under DANE-TA.
	eximOwnOpenSSL = `
		dane-ta-wrongname  mx1 tlsa validation-failure
		testing-foreign-mx mx1 sts validation-failure/mx-not-in-policy
	`
	// With OpenSSL the main log tells why a certificate failed, but of an MX host that failed before another one took the
	// message no more than with GnuTLS.
	eximLogOpenSSL = `
		sts-failover   mx2 sts success
		mixed-broken   mx2 sts certificate-not-trusted
	`
	// What else the daemon sees where it does DANE for Sendmail: it holds what has both
	// against both.
	daemonBoth = `
		both          mx1 sts certificate-not-trusted
		both-mismatch mx1 sts success
	`
	// Under a policy in mode testing: one message before anybody has verified the host,
	// one after that.
	testingSessions = `
		testing-good mx1 sts unverified
		testing-good mx1 sts success
		sts-testing  mx1 sts unverified
		sts-testing  mx1 sts certificate-not-trusted/probe
	`
)

// terseDomains are those of terseSessions.
var terseDomains = []string{"sts-wrongname", "sts-foreign-mx", "dane-ta-wrongname", "dane-mismatch", "both-mismatch", "dane-failover"}

// sentOnce are the domains that get one message each, on their own.
var sentOnce = []string{"none", "none-selfsigned", "none-plaintext", "none-signed",
	"sts", "sts-wildcard", "sts-expired", "sts-selfsigned", "sts-wrongname", "sts-nostarttls", "sts-handshake", "sts-failover", "sts-foreign-mx", "sts-none", "testing-foreign-mx",
	"dane", "dane-expired", "dane-ta", "dane-ta-wrongname", "dane-mismatch", "dane-nostarttls", "dane-failover", "dane-partial", "both", "both-mismatch",
	"mixed", "mixed-pkix", "mixed-broken",
	"rt-gone", "tlsa-dead", "tlsa-bogus", "sts-unproven"}

package tlsrpt_test

import (
	"strings"
	"testing"

	"postseal/reporting/tlsrpt"
)

func TestCanonical(t *testing.T) {
	is := func(name string, want tlsrpt.ResultType, reason string) {
		t.Helper()
		if got, why := tlsrpt.Canonical(name); got != want || why != reason {
			t.Errorf("Canonical(%q) = %q, %q; want %q, %q", name, got, why, want, reason)
		}
	}
	t.Run("SEED-012 retired names are mapped", func(t *testing.T) {
		is("mx-mismatch", tlsrpt.CertificateHostMismatch, "")
		is("certificate-mismatch", tlsrpt.CertificateHostMismatch, "")
		is("expired-certificate", tlsrpt.CertificateExpired, "")
		is("invalid-certificate", tlsrpt.CertificateNotTrusted, "")
		is("sts-invalid", tlsrpt.STSPolicyInvalid, "")
		is("webpki-invalid", tlsrpt.STSWebPKIInvalid, "")
		is("certificate-name-constraints-not-permitted", tlsrpt.CertificateNotTrusted, "certificate-name-constraints-not-permitted")
	})
	t.Run("SEED-012 what is no name is a validation failure with it as reason", func(t *testing.T) {
		is("", tlsrpt.ValidationFailure, "")
		is("broken", tlsrpt.ValidationFailure, "broken")
		is("205", tlsrpt.ValidationFailure, "205")
		is("no such\r\nthing", tlsrpt.ValidationFailure, "no such??thing")
		is("-leading", tlsrpt.ValidationFailure, "-leading")
		is(strings.Repeat("a-", 100), tlsrpt.ValidationFailure, strings.Repeat("a-", 32))
	})
	t.Run("RPT-091 underscores are hyphens", func(t *testing.T) {
		is("starttls_not_supported", tlsrpt.StartTLSNotSupported, "")
		is("TLSA_INVALID", tlsrpt.TLSAInvalid, "")
	})
	t.Run("RPT-046 types of tomorrow are kept", func(t *testing.T) {
		is("foo-bar", "foo-bar", "")
	})
	t.Run("RPT-045 the STS trio", func(t *testing.T) {
		is("sts-policy-fetch-error", tlsrpt.STSPolicyFetchError, "")
		is("sts-policy-invalid", tlsrpt.STSPolicyInvalid, "")
		is("sts-webpki-invalid", tlsrpt.STSWebPKIInvalid, "")
	})
}

func TestRegistered(t *testing.T) {
	names := strings.Fields(`starttls-not-supported certificate-host-mismatch certificate-expired
		certificate-not-trusted validation-failure tlsa-invalid dnssec-invalid dane-required
		sts-policy-fetch-error sts-policy-invalid sts-webpki-invalid`)
	for _, name := range names {
		if result, reason := tlsrpt.Canonical(name); !result.Registered() || string(result) != name || reason != "" {
			t.Errorf("Canonical(%q) = %q, %q, registered: %t", name, result, reason, result.Registered())
		}
	}
	if tlsrpt.ResultType("foo-bar").Registered() {
		t.Error("foo-bar is registered")
	}
}

package foreign_test

import (
	"strings"
	"testing"

	"postseal/reporting/ingest/foreign"
	"postseal/reporting/tlsrpt"
)

func TestDomainName(t *testing.T) {
	long := strings.Repeat("a.", 126) + "a" // 253 octets
	for name, want := range map[string]string{
		"Example.ORG.": "example.org", "bücher.example": "xn--bcher-kva.example", "_x.example": "_x.example", "1.2.3.4a": "1.2.3.4a", long: long,
		// none: "" is what is refused
		"": "", ".": "", "a..b": "", "-a.example": "", "a-.example": "", "192.0.2.1": "", "2001:db8::1": "", "a b.example": "", "a.example\n": "",
		"[192.0.2.1]": "", "a<b>.example": "", strings.Repeat("a", 64) + ".example": "", long + "a": "", strings.Repeat("ü", 2000): "",
	} {
		if got, ok := foreign.DomainName(name); got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v", name, got, ok)
		}
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:DB8:0::1": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1", "fe80::1%eth0": "fe80::1",
		"": "invalid IP", "[192.0.2.1]": "invalid IP", "mx.example": "invalid IP",
	} {
		if got := foreign.Address(text); got.String() != want {
			t.Errorf("%q: got %s", text, got)
		}
	}
}

func TestHELOName(t *testing.T) {
	for reply, want := range map[string]string{
		"250-mx.example.org greets you\r\n250 8BITMIME": "mx.example.org", "250 MX.example.org.": "mx.example.org", " mx.example": "mx.example",
		"2500 mx.example": "2500", "25x-mx.example": "25x-mx.example", "250-": "250-", "": "", "250-m\x1bx": "m x",
	} {
		if got := foreign.HELOName(reply); got != want {
			t.Errorf("%q: got %q, want %q", reply, got, want)
		}
	}
}

func TestReason(t *testing.T) {
	for said, want := range map[string]string{
		" not  now\r\nfor <u@a.example> (x@y)": "not now for [address] [address]", `550 <"john doe"@a.example>: "no such" user "x y"@b.example`: `550 [address] "no such" user [address]`, "I\x89\xc6H\x01 \x7f": "I??H", "": "",
		strings.Repeat("x", 119) + " y": strings.Repeat("x", 119),
	} {
		if got := foreign.Reason(said); got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
}

func TestVerifyResult(t *testing.T) {
	for said, want := range map[string]tlsrpt.ResultType{
		"self-signed_certificate": tlsrpt.CertificateNotTrusted, "unable to get local issuer certificate": tlsrpt.CertificateNotTrusted,
		"Hostname mismatch": tlsrpt.CertificateHostMismatch, "certificate has expired": tlsrpt.CertificateExpired, "unknown": tlsrpt.ValidationFailure,
	} {
		if got := foreign.VerifyResult(said); got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
}

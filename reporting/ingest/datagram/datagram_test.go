package datagram_test

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/ingest/datagram"
	"postseal/reporting/ingest/maillog/maillogtest"
	"postseal/reporting/tlsrpt"
)

// one parses a datagram that holds exactly one session.
func one(t *testing.T, text string) reporting.Session {
	t.Helper()
	sessions, err := datagram.Parse([]byte(text))
	if err != nil || len(sessions) != 1 {
		t.Fatalf("%d sessions, error %v; want one\n%.300s", len(sessions), err, text)
	}
	return sessions[0]
}

func TestOfPostfix(t *testing.T) {
	got := one(t, `{"dpv":"1","d": "StsSelf.Example","pr": "v=TLSRPTv1;rua=mailto:x@y.example","policies":[{"policy-type":2,"policy-domain": "stsself.example","policy-string":["version: STSv1","mode: enforce","mx: mx.stsself.example","max_age: 86400"],"mx-host":["mx.stsself.example"],"failure-details":[{"c":205,"s": "192.0.2.1","n": "MX.StsSelf.Example","h": "250-mx.stsself.example greets you\r\n250-PIPELINING\r\n250 8BITMIME","r": "2001:DB8:0::1","f": "self-signed_certificate"}],"t":1,"f":1}]}`)
	want := reporting.Session{
		Domain: "stsself.example",
		Policy: reporting.Policy{
			Type: tlsrpt.STS, Domain: "stsself.example",
			Strings: []string{"version: STSv1", "mode: enforce", "mx: mx.stsself.example", "max_age: 86400"},
			MX:      []string{"mx.stsself.example"},
		},
		SendingIP: netip.MustParseAddr("192.0.2.1"),
		MXHost:    "mx.stsself.example",
		MXIP:      netip.MustParseAddr("2001:db8::1"),
		MXHelo:    "mx.stsself.example",
		Result:    tlsrpt.CertificateNotTrusted,
		Reason:    "self-signed_certificate",
	}
	if diff := cmp.Diff(want, got, maillogtest.CompareAddr); diff != "" {
		t.Error(diff)
	}
}

func TestForms(t *testing.T) {
	t.Run("without dpv, as Debian 13 sends it; policy-domain left out", func(t *testing.T) {
		got := one(t, `{"d":"good.example.","policies":[{"policy-type":9,"t":0,"f":0}]}`)
		want := reporting.Session{Domain: "good.example", Policy: reporting.Policy{Type: tlsrpt.NoPolicy, Domain: "good.example"}}
		if diff := cmp.Diff(want, got, maillogtest.CompareAddr); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("any spacing, order, unknown members, a NUL behind", func(t *testing.T) {
		got := one(t, " {\n\"policies\" : [ { \"f\" : 0 , \"new\":[{}], \"policy-type\" : 1,\n\"policy-domain\":\"MX.Dane.Example\" } ] ,\t\"d\" : \"dane.example\", \"dpv\":2 }\n\x00")
		if got.Policy.Type != tlsrpt.TLSA || got.Policy.Domain != "mx.dane.example" || got.Domain != "dane.example" || got.Failed() {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("RPT-002 DANE: the policy domain is the TLSA base domain", func(t *testing.T) {
		got := one(t, `{"d":"dane.example","policies":[{"policy-type":1,"policy-domain":"mx.prov.example","policy-string":["3 1 1 AB"],"f":0}]}`)
		if got.Domain != "dane.example" || got.Policy.Domain != "mx.prov.example" || !cmp.Equal(got.Policy.Strings, []string{"3 1 1 AB"}) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a success with details is a success", func(t *testing.T) {
		if got := one(t, `{"d":"a.example","policies":[{"policy-type":2,"failure-details":[{"c":204}],"t":1,"f":0}]}`); got.Failed() {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a failure without details is a failure", func(t *testing.T) {
		if got := one(t, `{"d":"a.example","policies":[{"policy-type":2,"t":0,"f":1}]}`); got.Result != tlsrpt.ValidationFailure {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a final result beyond 1 is a failure", func(t *testing.T) {
		if got := one(t, `{"d":"a.example","policies":[{"policy-type":2,"failure-details":[{"c":201}],"f":7}]}`); got.Result != tlsrpt.StartTLSNotSupported {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("details without a final result are a failure", func(t *testing.T) {
		if got := one(t, `{"d":"a.example","policies":[{"policy-type":2,"failure-details":[{"c":202}]}]}`); got.Result != tlsrpt.CertificateHostMismatch {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("an unknown policy type is not guessed", func(t *testing.T) {
		if got := one(t, `{"d":"a.example","policies":[{"policy-type":3,"f":0}]}`); got.Policy.Type != "" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("several policies are several results", func(t *testing.T) {
		sessions, err := datagram.Parse([]byte(`{"d":"a.example","policies":[{"policy-type":1,"policy-domain":"mx.a.example","f":0},{"policy-type":2,"failure-details":[{"c":204}],"f":1}]}`))
		if err != nil || len(sessions) != 2 {
			t.Fatalf("%d sessions, error %v", len(sessions), err)
		}
		if sessions[0].Failed() || sessions[0].Policy.Type != tlsrpt.TLSA || sessions[1].Result != tlsrpt.CertificateExpired || sessions[1].Policy.Type != tlsrpt.STS {
			t.Errorf("got %+v", sessions)
		}
	})
	t.Run("RPT-090 one final result for a connection, whatever the number of details", func(t *testing.T) {
		got := one(t, `{"d":"a.example","policies":[{"policy-type":2,"failure-details":[{"c":204},{"c":202},{"c":201}],"t":3,"f":1}]}`)
		if got.Result != tlsrpt.CertificateExpired {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a bad policy does not take the good one along", func(t *testing.T) {
		sessions, err := datagram.Parse([]byte(`{"d":"a.example","policies":[7,{"policy-type":9,"f":0},{"policy-type":9}]}`))
		if err == nil || len(sessions) != 1 {
			t.Errorf("%d sessions, error %v; want one and an error", len(sessions), err)
		}
	})
	t.Run("the EHLO reply is cut to the host name", func(t *testing.T) {
		for reply, want := range map[string]string{
			`250-MX.A.Example\r\n250 STARTTLS`: "mx.a.example",
			`250 mx.a.example hello there`:     "mx.a.example",
			`mx.a.example`:                     "mx.a.example",
			`250-[192.0.2.1] Hi`:               "[192.0.2.1]",
			`250`:                              "250",
			``:                                 "",
			`\r\n`:                             "",
			`250-m\u00e4x.example`:             "m?x.example",
		} {
			got := one(t, `{"d":"a.example","policies":[{"policy-type":2,"failure-details":[{"c":201,"h":"`+reply+`"}],"f":1}]}`)
			if got.MXHelo != want {
				t.Errorf("%q: got %q, want %q", reply, got.MXHelo, want)
			}
		}
	})
	t.Run("everything kept is printable and bounded", func(t *testing.T) {
		long := strings.Repeat("x\\u0007\xff\\u2028 ", 2000)
		got := one(t, `{"d":"a.example","policies":[{"policy-type":2,"policy-string":["`+long+`"],"mx-host":["`+long+`"],"failure-details":[{"c":205,"n":"`+long+`","h":"`+long+`","r":"`+long+`","f":"`+long+`"}],"f":1}]}`)
		for _, s := range []string{got.MXHelo, got.Reason, got.MXHost, got.Policy.Strings[0], got.Policy.MX[0]} {
			if len(s) > 1<<10 || strings.Trim(s, "x? ") != "" {
				t.Errorf("%d bytes kept: %.80q", len(s), s)
			}
		}
	})
	t.Run("a reason does not carry a mail address", func(t *testing.T) {
		got := one(t, `{"d":"a.example","policies":[{"policy-type":2,"failure-details":[{"c":205,"f":"said <user@a.example> is odd"}],"f":1}]}`)
		if got.Reason != "said [address] is odd" {
			t.Errorf("got %q", got.Reason)
		}
	})
	t.Run("a U-label becomes an A-label", func(t *testing.T) {
		if got := one(t, `{"d":"b\u00fccher.example","policies":[{"policy-type":9,"f":0}]}`); got.Domain != "xn--bcher-kva.example" {
			t.Errorf("got %q", got.Domain)
		}
	})
}

func TestResultTypes(t *testing.T) {
	for _, tt := range []struct {
		name, detail string
		result       tlsrpt.ResultType
		reason       string
	}{
		{"RPT-040 starttls-not-supported", `{"c":201}`, tlsrpt.StartTLSNotSupported, ""},
		{"RPT-041 certificate-host-mismatch", `{"c":202}`, tlsrpt.CertificateHostMismatch, ""},
		{"RPT-042 certificate-not-trusted", `{"c":203}`, tlsrpt.CertificateNotTrusted, ""},
		{"RPT-042 self-signed is not trusted, and says so", `{"c":205,"f":"self-signed_certificate"}`, tlsrpt.CertificateNotTrusted, "self-signed_certificate"},
		{"RPT-042 the same of OpenSSL 1.1", `{"c":205,"f":"self_signed_certificate"}`, tlsrpt.CertificateNotTrusted, "self_signed_certificate"},
		{"RPT-042 an unknown CA is not trusted", `{"c":205,"f":"unable_to_get_local_issuer_certificate"}`, tlsrpt.CertificateNotTrusted, "unable_to_get_local_issuer_certificate"},
		{"RPT-042 a foreign CA in the chain", `{"c":205,"f":"self-signed_certificate_in_certificate_chain"}`, tlsrpt.CertificateNotTrusted, "self-signed_certificate_in_certificate_chain"},
		{"certificate-expired", `{"c":204}`, tlsrpt.CertificateExpired, ""},
		{"RPT-043 a broken handshake is a validation-failure with its reason", `{"c":205,"f":"tls-handshake-failure"}`, tlsrpt.ValidationFailure, "tls-handshake-failure"},
		{"RPT-043 not yet valid", `{"c":205,"f":"certificate_is_not_yet_valid"}`, tlsrpt.ValidationFailure, "certificate_is_not_yet_valid"},
		{"RPT-043 no reason given", `{"c":205}`, tlsrpt.ValidationFailure, ""},
		{"RPT-044 tlsa-invalid", `{"c":304,"f":"all-TLSA-records-unusable"}`, tlsrpt.TLSAInvalid, "all-TLSA-records-unusable"},
		{"RPT-044 dnssec-invalid", `{"c":305}`, tlsrpt.DNSSECInvalid, ""},
		{"RPT-044 dane-required", `{"c":306}`, tlsrpt.DANERequired, ""},
		{"RPT-045 sts-policy-fetch-error", `{"c":301}`, tlsrpt.STSPolicyFetchError, ""},
		{"RPT-045 sts-policy-invalid", `{"c":302}`, tlsrpt.STSPolicyInvalid, ""},
		{"RPT-045 sts-webpki-invalid", `{"c":303}`, tlsrpt.STSWebPKIInvalid, ""},
		{"RPT-046 an unknown code is kept as the reason", `{"c":399,"f":"foo-bar"}`, tlsrpt.ValidationFailure, "399 foo-bar"},
		{"an internal code is kept as the reason", `{"c":901}`, tlsrpt.ValidationFailure, "901"},
		{"a code in quotes", `{"c":"204"}`, tlsrpt.CertificateExpired, ""},
		{"no code", `{"n":"mx.a.example"}`, tlsrpt.ValidationFailure, "no-code"},
		{"a code that is no number", `{"c":[1]}`, tlsrpt.ValidationFailure, "no-code"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := one(t, `{"d":"a.example","policies":[{"policy-type":2,"failure-details":[`+tt.detail+`],"t":1,"f":1}]}`)
			if got.Result != tt.result || got.Reason != tt.reason {
				t.Errorf("got %q (%q), want %q (%q)", got.Result, got.Reason, tt.result, tt.reason)
			}
		})
	}
}

// malformed are datagrams that hold no session at all.
var malformed = []string{
	``, ` `, "\x00", `null`, `7`, `"d"`, `[]`, `{}`, `{`, `{"d":"a.example"`, "\xff\xfe", `{"d":"a.example"}`,
	`{"policies":7}`, `{"d":"a.example","policies":7}`, `{"d":"a.example","policies":{}}`, `{"d":"a.example","policies":[]}`,
	`{"d":"a.example","policies":[7]}`, `{"d":"a.example","policies":[{}]}`, `{"d":"a.example","policies":[null]}`,
	`{"d":"a.example","policies":["f"]}`, `{"d":"a.example","policies":[{"f":"x"}]}`,
	`{"d":7,"policies":[{"f":0}]}`, `{"d":"","policies":[{"f":0}]}`, `{"d":"192.0.2.1","policies":[{"f":0}]}`,
	`{"d":"a b.example","policies":[{"f":0}]}`, `{"d":"-.example","policies":[{"f":0}]}`, `{"d":"a..example","policies":[{"f":0}]}`,
	`{"d":"` + strings.Repeat("a.", 200) + `example","policies":[{"f":0}]}`,
	`{"d":"a.example","policies":[` + strings.Repeat(`{"f":0},`, 20) + `{"f":0}]}`,
	`{"d":"a.example","policies":[{"f":0}]} trailing`, strings.Repeat("[", 20000), strings.Repeat(`{"d":`, 20000),
}

func TestMalformed(t *testing.T) {
	for _, text := range malformed {
		sessions, err := datagram.Parse([]byte(text))
		if err == nil || len(sessions) > 0 {
			t.Errorf("%.60q: %d sessions, error %v", text, len(sessions), err)
		}
	}
}

// TestCorpus reads what Postfix 3.10 sent.
func TestCorpus(t *testing.T) {
	file, err := os.ReadFile("testdata/libtlsrpt-3.10.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]tlsrpt.ResultType{
		"may-hsdrop": tlsrpt.ValidationFailure, "encrypt-protocols": tlsrpt.ValidationFailure, "sts-hsdrop": tlsrpt.ValidationFailure,
		"sts-hsalert": tlsrpt.ValidationFailure, "sts-badhello": tlsrpt.ValidationFailure, "sts-tls10": tlsrpt.ValidationFailure,
		"sts-notyet": tlsrpt.ValidationFailure, "encrypt-nostarttls": tlsrpt.StartTLSNotSupported, "sts-nostarttls": tlsrpt.StartTLSNotSupported,
		"sts-454": tlsrpt.StartTLSNotSupported, "sts-multimx-nostarttls": tlsrpt.StartTLSNotSupported, "sts-wrongname": tlsrpt.CertificateHostMismatch,
		"sts-multimx": tlsrpt.CertificateHostMismatch, "sts-expired": tlsrpt.CertificateExpired, "sts-selfsigned": tlsrpt.CertificateNotTrusted,
		"sts-otherca": tlsrpt.CertificateNotTrusted, "sts-selfsigned-cache": tlsrpt.CertificateNotTrusted,
	}
	lines := bytes.Split(bytes.TrimSpace(file), []byte("\n"))
	failures := map[string]bool{}
	for _, line := range lines {
		s := one(t, string(line))
		name := strings.TrimSuffix(s.Domain, ".example.test")
		if !s.Failed() {
			continue
		}
		failures[name] = true
		if s.Result != want[name] {
			t.Errorf("%s: got %q, want %q", name, s.Result, want[name])
		}
		if !strings.HasSuffix(s.MXHost, s.Domain) || !s.MXIP.IsValid() || !s.SendingIP.IsValid() || !strings.HasSuffix(s.MXHelo, ".sink.example.test") {
			t.Errorf("%s: got %+v", name, s)
		}
	}
	if len(lines) != 35 || len(failures) != len(want) {
		t.Errorf("%d lines, %d domains with failures, want %d", len(lines), len(failures), len(want))
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range malformed {
		f.Add([]byte(text))
	}
	file, err := os.ReadFile("testdata/libtlsrpt-3.10.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	for line := range bytes.Lines(file) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		sessions, err := datagram.Parse(text)
		if len(sessions) == 0 && err == nil {
			t.Error("neither session nor error")
		}
		for _, s := range sessions {
			maillogtest.CheckSession(t, s)
			if !maillogtest.Occurs(s.Domain, string(text)) && !bytes.Contains(text, []byte(`\`)) {
				t.Errorf("domain %q is not in the input", s.Domain)
			}
		}
	})
}

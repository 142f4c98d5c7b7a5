package lint_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/lint"
	"postseal/cmd/postseal/internal/status"
	"postseal/policy"
	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts/ststest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	other  = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

	// good is a domain that has everything right.
	good = `
example.org. MX 10 mx1.example.org.
example.org. MX 20 mx2.example.org.
mx1.example.org. A 192.0.2.1
mx2.example.org. A 192.0.2.2
_25._tcp.mx1.example.org. TLSA 3 1 1 ` + digest + `
_25._tcp.mx1.example.org. TLSA 3 1 1 ` + other + `
_25._tcp.mx2.example.org. TLSA 3 1 1 ` + digest + `
_25._tcp.mx2.example.org. TLSA 2 1 1 ` + other + `
_mta-sts.example.org. TXT "v=STSv1; id=20261101;"
mta-sts.example.org. A 127.0.0.1
_smtp._tls.example.org. TXT "v=TLSRPTv1; rua=mailto:tlsrpt@example.org"
`
	goodPolicy = "version: STSv1\nmode: enforce\nmx: mx1.example.org\nmx: mx2.example.org\nmax_age: 2592000\n"
)

// now is when everything below is looked at.
func now() time.Time { return time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC) }

// stage is a domain as somebody published it.
type stage struct {
	zone     string // instead of good
	policy   string // instead of goodPolicy; "-": none
	fault    string // of the policy host
	unsigned bool
	change   func(x *control.Explanation) // of what was decided
	fail     [][3]string                  // of the resolver
}

func (s stage) hints(t *testing.T) []lint.Hint {
	t.Helper()
	if s.zone == "" {
		s.zone = good
	}
	if s.policy == "" {
		s.policy = goodPolicy
	}
	signed := []string{"example.org"}
	if s.unsigned {
		signed = nil
	}
	server := dnstest.New(t, s.zone, signed...)
	for _, f := range s.fail {
		server.Fail(f[0], f[1], f[2])
	}
	host := ststest.New(t)
	if s.policy != "-" {
		host.Set("example.org", s.policy)
	}
	host.Fault("example.org", s.fault)
	dest, err := policy.ParseDestination("example.org")
	if err != nil {
		t.Fatal(err)
	}
	dns := server.Client()
	x := &control.Explanation{Validation: status.Validation{On: true}}
	if s.change != nil {
		s.change(x)
	}
	return lint.Check(lint.Facts{Records: lint.Ask(t.Context(), dns, host.Fetcher(dns), dest), Explanation: x, Now: now()})
}

func with(old, replacement string) string {
	if !strings.Contains(good, old) {
		panic("not in the zone: " + old)
	}
	return strings.ReplaceAll(good, old, replacement)
}

func probes(list ...control.Probe) func(x *control.Explanation) {
	return func(x *control.Explanation) { x.Probed = &control.Probed{Answers: list} }
}

// TestGood: who does everything right is left alone.
func TestGood(t *testing.T) {
	for name, s := range map[string]stage{
		"DANE and MTA-STS": {},
		"probed": {change: probes(control.Probe{Host: "mx1.example.org", Address: "192.0.2.1:25", TLS: "TLS 1.3", Proven: "dane"},
			control.Probe{Host: "mx2.example.org", Address: "192.0.2.2:25", Failure: "timed out"})},
		"an owner's wildcard": {policy: strings.Replace(goodPolicy, "mx: mx1.example.org\nmx: mx2.example.org", "mx: *.example.org", 1)},
		"as remembered": {change: func(x *control.Explanation) {
			x.Daemon, x.STS = true, &control.STS{ID: "20261101", Mode: "enforce", Text: goodPolicy}
		}},
		"both digests of each key": {zone: with("_25._tcp.mx1.example.org. TLSA 3 1 1 "+digest, "_25._tcp.mx1.example.org. TLSA 3 1 2 "+digest+other+
			"\n_25._tcp.mx1.example.org. TLSA 3 1 2 "+other+digest+"\n_25._tcp.mx1.example.org. TLSA 3 1 1 "+digest)},
		"no mail": {zone: "example.org. MX 0 .\n"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, h := range s.hints(t) {
				t.Errorf("%+v", h)
			}
		})
	}
}

// TestHints provokes every hint.
func TestHints(t *testing.T) {
	const sha512 = digest + other
	mx1 := "_25._tcp.mx1.example.org. TLSA 3 1 1 " + digest + "\n_25._tcp.mx1.example.org. TLSA 3 1 1 " + other + "\n"
	tlsa := func(records ...string) string {
		text := ""
		for _, r := range records {
			text += "_25._tcp.mx1.example.org. TLSA " + r + "\n"
		}
		return with(mx1, text)
	}
	body := func(old, replacement string) string { return strings.ReplaceAll(goodPolicy, old, replacement) }
	for _, tt := range []struct {
		name     string
		stage    stage
		severity lint.Severity
		what     string
		instead  string
	}{
		// MX
		{"no domain", stage{zone: "example.net. A 192.0.2.1\n"}, lint.Error, "there is no domain example.org", "register"},
		{"null MX among others", stage{zone: good + "example.org. MX 0 .\n"}, lint.Warning, "a null MX (0 .) stands beside other MX", "remove the null MX"},
		{"null MX with a policy", stage{zone: "example.org. MX 0 .\n_mta-sts.example.org. TXT \"v=STSv1; id=1;\"\n"}, lint.Tip, "an MTA-STS record stands beside a null MX", "remove _mta-sts.example.org"},
		{"no MX", stage{zone: "example.org. A 192.0.2.1\n"}, lint.Tip, "example.org has no MX record", "MX 10 example.org."},
		{"MX is an address", stage{zone: good + "example.org. MX 30 192.0.2.7.\n"}, lint.Error, "the MX record names an address, 192.0.2.7", "a host name"},
		{"MX is an alias", stage{zone: with("mx2.example.org. A 192.0.2.2", "mx2.example.org. CNAME mx3.example.org.\nmx3.example.org. A 192.0.2.2")}, lint.Warning, "mx2.example.org is an alias", "name the target"},
		{"MX without address", stage{zone: with("mx2.example.org. A 192.0.2.2\n", "")}, lint.Warning, "MX host mx2.example.org has no address", "an A or AAAA record"},
		{"broken host", stage{fail: [][3]string{{"_25._tcp.mx1.example.org", "TLSA", "SERVFAIL"}}}, lint.Error, "MX host mx1.example.org: TLSA lookup", "mend the name servers"},
		{"broken MX", stage{fail: [][3]string{{"example.org", "MX", "BOGUS"}}}, lint.Error, "the MX records cannot be looked up", "mend the name servers"},

		{"nothing answers", stage{fail: [][3]string{{"*", "*", "SERVFAIL"}}}, lint.Warning, "nothing that example.org publishes can be looked up", "postseal doctor"},

		// MTA-STS
		{"SEED-001 the TXT-only record of 2016", stage{zone: good + `_smtp_sts.example.org. TXT "v=STS1; to=true; mx=*.example.org; a=dnssec; c=webpki; e=86400"` + "\n"}, lint.Warning, "_smtp_sts.example.org has a TXT record, as a draft of MTA-STS had it", "_mta-sts.example.org. TXT"},
		{"SEED-001 the name of draft 00", stage{zone: good + `_mta_sts.example.org. TXT "v=STS1; id=1"` + "\n"}, lint.Warning, "_mta_sts.example.org has a TXT record", "remove the old record"},
		{"SEED-001 the version of draft 00", stage{zone: with("v=STSv1; id=20261101;", "v=STS1; id=20261101;")}, lint.Error, "a record of version STS1", "v=STSv1;"},
		{"no answer", stage{fail: [][3]string{{"_mta-sts.example.org", "TXT", "SERVFAIL"}}}, lint.Warning, "the MTA-STS record cannot be looked up", "mend"},
		{"STS-014 several records", stage{zone: good + `_mta-sts.example.org. TXT "v=STSv1; id=2;"` + "\n"}, lint.Error, "more than one MTA-STS record", "keep one"},
		{"STS-016 malformed", stage{zone: with("id=20261101;", "id=2026-11-01;")}, lint.Error, "malformed MTA-STS record", "letters and digits"},
		{"STS-018 a blank", stage{zone: with("v=STSv1; id", "v=STSv1 ; id")}, lint.Warning, "blank between", "v=STSv1; id=20261101;"},
		{"record gone", stage{zone: with(`_mta-sts.example.org. TXT "v=STSv1; id=20261101;"`, ""), change: func(x *control.Explanation) {
			x.Daemon, x.STS = true, &control.STS{ID: "1", Mode: "enforce", Text: goodPolicy}
		}}, lint.Error, "but a policy of mode enforce is remembered", "mode none"},
		{"STS-041 unreachable", stage{fault: "404"}, lint.Error, "sts-policy-fetch-error", "status 200"},
		{"STS-041 no answer", stage{fault: "close"}, lint.Error, "sts-policy-fetch-error", "postseal doctor"},
		{"STS-031 certificate", stage{fault: "expired"}, lint.Error, "sts-webpki-invalid", "a certificate for mta-sts.example.org"},
		{"SEED-002 JSON", stage{policy: `{"version":"STSv1","mode":"enforce"}`}, lint.Error, "sts-policy-invalid", `"version: STSv1"`},
		{"SEED-003 mode report", stage{policy: body("enforce", "report")}, lint.Error, "sts-policy-invalid", "mode: enforce"},
		{"STS-053 blank line", stage{policy: goodPolicy + "\n"}, lint.Warning, "is blank", "without that"},
		{"STS-057 long max_age", stage{policy: body("2592000", "31557601")}, lint.Error, "max_age 31557601 is capped", "31557600 or less"},
		{"max_age of an hour", stage{policy: body("2592000", "3600")}, lint.Warning, "less than a day", "604800"},
		{"max_age of two days", stage{policy: body("2592000", "172800")}, lint.Tip, "less than a week", "604800"},
		{"mode none", stage{policy: body("enforce", "none")}, lint.Tip, "mode none", "mode: enforce"},
		{"mode testing", stage{policy: body("enforce", "testing")}, lint.Tip, "mode testing", "mode: enforce with a new id"},
		{"mode testing for long", stage{zone: with("id=20261101", "id=20260301T1"), policy: body("enforce", "testing")}, lint.Warning, "mode testing, since 2026-03-01 by its id", "mode: enforce"},
		{"STS-090 one MX outside", stage{policy: body("mx: mx2.example.org\n", "")}, lint.Error, "mx2.example.org is not in the MTA-STS policy", "mx: mx2.example.org"},
		{"STS-090 one outside, testing", stage{policy: strings.Replace(body("mx: mx2.example.org\n", ""), "enforce", "testing", 1)}, lint.Warning, "mx2.example.org is not in the MTA-STS policy", "mx: mx2"},
		{"STS-090 all outside", stage{policy: body("mx1.example.org", "mx.example.net")[:len("version: STSv1\nmode: enforce\nmx: mx.example.net\n")] + "max_age: 604800\n"}, lint.Error, "no MX host of example.org is in its MTA-STS policy", "mx lines"},
		{"STS-091 the wildcard's own name", stage{zone: good + "example.org. MX 30 example.org.\nexample.org. A 192.0.2.9\n", policy: body("mx: mx1", "mx: *.example.org\nmx: mx1")}, lint.Error, "*.example.org is for names below example.org, not for itself", "mx: example.org"},
		{"STS-091 two labels", stage{zone: good + "example.org. MX 30 a.b.example.org.\na.b.example.org. A 192.0.2.9\n", policy: body("mx: mx1", "mx: *.example.org\nmx: mx1")}, lint.Error, "the * stands for one label", "mx: a.b.example.org"},
		{"a pattern of nobody", stage{policy: body("mx: mx1", "mx: old.example.org\nmx: mx1")}, lint.Tip, "mx: old.example.org of the MTA-STS policy matches no MX host", "remove it"},
		{"id not changed", stage{change: func(x *control.Explanation) {
			x.Daemon, x.STS = true, &control.STS{ID: "20261101", Mode: "testing", Text: "version: STSv1\nmode: testing\nmx: mx1.example.org\nmax_age: 86400\n"}
		}}, lint.Warning, "has changed, but not the id of its record, 20261101", "a new id"},

		// DANE
		{"not judged", stage{change: func(x *control.Explanation) { x.Validation.On = false }}, lint.Tip, "cannot be judged from here", "postseal doctor"},
		{"TLSA without DNSSEC", stage{unsigned: true}, lint.Error, "_25._tcp.mx1.example.org has TLSA records, but the addresses of mx1.example.org are not signed", "sign the zone"},
		{"insecure MX", stage{fail: [][3]string{{"example.org", "MX", "NOAD"}}}, lint.Warning, "the MX records of example.org are not signed", "sign example.org"},
		{"TLSA at one host only", stage{zone: with(mx1, "")}, lint.Warning, "mx2.example.org has usable TLSA records, but mx1.example.org has not", "every MX host"},
		{"DANE-060 usage 1 alone", stage{zone: tlsa("1 1 1 " + digest)}, lint.Error, "certificate usage 1 is not for SMTP", "TLSA 3 1 1"},
		{"DANE-060 usage 0 among others", stage{zone: tlsa("0 0 1 "+digest, "3 1 1 "+digest, "3 1 1 "+other)}, lint.Warning, "certificate usage 0 is not for SMTP", "TLSA 3 1 1"},
		{"DANE-061 unknown selector", stage{zone: tlsa("3 2 1 "+digest, "3 1 1 "+digest, "3 1 1 "+other)}, lint.Warning, "unknown selector 2", "TLSA 3 1 1"},
		{"DANE-061 unknown type", stage{zone: tlsa("3 1 9 "+digest, "3 1 1 "+digest, "3 1 1 "+other)}, lint.Warning, "unknown matching type 9", "TLSA 3 1 1"},
		{"DANE-061 short digest", stage{zone: tlsa("3 1 1 "+digest[2:], "3 1 1 "+digest, "3 1 1 "+other)}, lint.Warning, "has 31 octets, not 32", "TLSA 3 1 1"},
		{"DANE-100 one record", stage{zone: tlsa("3 1 1 " + digest)}, lint.Warning, "_25._tcp.mx1.example.org has no roll-over record", "of the next key"},
		{"DANE-101 usage 1", stage{zone: tlsa("1 1 1 "+digest, "3 1 1 "+digest, "3 1 1 "+other)}, lint.Warning, "certificate usage 1", "TLSA 3 1 1"},
		{"DANE-101 full key", stage{zone: tlsa("3 1 0 "+spki, "3 1 1 "+digest)}, lint.Warning, "has the whole certificate or key", "TLSA 3 1 1"},
		{"DANE-101 no SHA-256", stage{zone: tlsa("3 1 2 "+sha512, "2 1 2 "+sha512)}, lint.Warning, "has no SHA-256 digest", "matching type 1"},
		{"DANE-101 the certificate", stage{zone: tlsa("3 0 1 "+digest, "3 1 1 "+other)}, lint.Tip, "is of the certificate, not of its key", "TLSA 3 1 1"},
		{"DANE-101 the anchor is not sent", stage{zone: tlsa("2 0 1 " + digest), change: probes(control.Probe{Host: "mx1.example.org", Address: "192.0.2.1:25", TLS: "TLS 1.3", DANE: "no certificate matches"})}, lint.Error, "mx1.example.org (192.0.2.1:25) fails by its TLSA records: no certificate matches", "the certificate of usage 2 in its chain"},
		{"DANE-101 no STARTTLS", stage{change: probes(control.Probe{Host: "mx1.example.org", Address: "192.0.2.1:25", Failure: "does not offer STARTTLS", Result: "starttls-not-supported"})}, lint.Error, "mx1.example.org has TLSA records, but does not offer STARTTLS", "STARTTLS; or remove"},
		{"another certificate", stage{change: probes(control.Probe{Host: "mx1.example.org", Address: "192.0.2.1:25", TLS: "TLS 1.3", DANE: "no certificate matches"})}, lint.Error, "fails by its TLSA records", "beside the old one"},
		{"no certificate for MTA-STS", stage{change: probes(control.Probe{Host: "mx1.example.org", Address: "192.0.2.1:25", TLS: "TLS 1.3", PKIX: "expired", STS: "expired"})}, lint.Error, "fails by its certificate: expired", "of a known authority for mx1.example.org"},
		{"DANE-102 SHA-512 leaves a key out", stage{zone: tlsa("3 1 1 "+digest, "3 1 1 "+other, "3 1 2 "+sha512)}, lint.Warning, "TLSA 3 1 1 has 2 digests, but 3 1 2 has 1", "each key in both"},
		{"DANE-103 STARTTLS for some", stage{change: probes(
			control.Probe{Host: "mx1.example.org", Address: "192.0.2.1:25", TLS: "TLS 1.3"},
			control.Probe{Host: "mx1.example.org", Address: "[2001:db8::1]:25", Failure: "does not offer STARTTLS", Result: "starttls-not-supported"})}, lint.Warning, "offers STARTTLS at 192.0.2.1:25, but not at [2001:db8::1]:25", "for all clients"},

		// TLSRPT
		{"no TLSRPT", stage{zone: with(`_smtp._tls.example.org. TXT "v=TLSRPTv1; rua=mailto:tlsrpt@example.org"`, "")}, lint.Warning, "there is no TLSRPT record", "v=TLSRPTv1"},
		{"no answer", stage{fail: [][3]string{{"_smtp._tls.example.org", "TXT", "SERVFAIL"}}}, lint.Warning, "the TLSRPT record cannot be looked up", "mend"},
		{"several", stage{zone: good + `_smtp._tls.example.org. TXT "v=TLSRPTv1; rua=mailto:b@example.org"` + "\n"}, lint.Error, "more than one TLSRPT record", "one record"},
		{"malformed", stage{zone: with("rua=mailto:tlsrpt@example.org", "ruf=x")}, lint.Error, "the rua is missing", "v=TLSRPTv1; rua"},
		{"a note", stage{zone: with("rua=mailto:tlsrpt@example.org", "rua=mailto:tlsrpt@example.org,ftp://example.org/")}, lint.Warning, "_smtp._tls.example.org: ", "rua=mailto:"},
		{"SEED-010 the name of draft 00", stage{zone: good + `_smtp_tlsrpt.example.org. TXT "v=TLSRPT1; rua=mailto:a@example.org"` + "\n"}, lint.Warning, "as a draft of TLSRPT had it", "_smtp._tls.example.org. TXT"},
		{"SEED-010 the version of draft 00", stage{zone: with("v=TLSRPTv1", "v=TLSRPT1")}, lint.Error, "a record of version TLSRPT1", "v=TLSRPTv1"},
		{"nothing at all", stage{zone: "example.org. MX 10 mx1.example.org.\nmx1.example.org. A 192.0.2.1\n"}, lint.Tip, "neither an MTA-STS policy nor usable TLSA", "mode testing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hints := tt.stage.hints(t)
			i := slices.IndexFunc(hints, func(h lint.Hint) bool { return strings.Contains(h.What, tt.what) })
			if i < 0 {
				t.Fatalf("no %q in %+v", tt.what, hints)
			}
			h := hints[i]
			if h.Severity != tt.severity || !strings.Contains(h.Instead, tt.instead) || !strings.Contains(h.Why, "(RFC ") {
				t.Errorf("got %+v\nwant %s, instead %q", h, tt.severity, tt.instead)
			}
			if !slices.IsSortedFunc(hints, func(a, b lint.Hint) int { return rank(a) - rank(b) }) {
				t.Errorf("not the worst first: %+v", hints)
			}
		})
	}
}

func rank(h lint.Hint) int {
	return map[lint.Severity]int{lint.Error: 0, lint.Warning: 1, lint.Tip: 2}[h.Severity]
}

// TestCertificateEnds: the certificates of the test's policy host end in 2100.
func TestCertificateEnds(t *testing.T) {
	server := dnstest.New(t, good, "example.org")
	host := ststest.New(t)
	host.Set("example.org", goodPolicy)
	dns := server.Client()
	dest, err := policy.ParseDestination("example.org")
	if err != nil {
		t.Fatal(err)
	}
	f := lint.Facts{Records: lint.Ask(t.Context(), dns, host.Fetcher(dns), dest),
		Explanation: &control.Explanation{Validation: status.Validation{On: true}}, Now: time.Date(2099, 12, 28, 0, 0, 0, 0, time.UTC)}
	hints := lint.Check(f)
	if len(hints) != 1 || !strings.Contains(hints[0].What, "the certificate of mta-sts.example.org ends on 2100-01-0") {
		t.Errorf("got %+v", hints)
	}
}

// spki is a public key in full: ECDSA, P-256.
const spki = "3059301306072a8648ce3d020106082a8648ce3d030107034200046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"

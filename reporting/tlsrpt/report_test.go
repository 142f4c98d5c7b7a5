package tlsrpt_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting/tlsrpt"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: -want +got\n%s", path, diff)
	}
}

// day is the one that the reports of the tests are about.
var day = time.Date(2026, 1, 2, 13, 14, 15, 16, time.FixedZone("", 3600))

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// report has policies, and all else that is required.
func report(policies ...tlsrpt.PolicyResult) tlsrpt.Report {
	r := tlsrpt.Report{
		Organization: "Example Org & Söhne",
		Contact:      "tlsrpt@mta.example.org",
		ID:           tlsrpt.ReportID(day, "example.com", "mta.example.org", "mx1"),
		Policies:     policies,
	}
	r.Start, r.End = tlsrpt.Day(day)
	return r
}

func sts() tlsrpt.PolicyResult {
	return tlsrpt.PolicyResult{
		Policy: tlsrpt.Policy{
			Type: tlsrpt.STS, Domain: "example.com",
			Strings: []string{"version: STSv1", "mode: enforce", "mx: mail.example.com", "mx: *.example.net", "max_age: 86400"},
			MX:      []string{"mail.example.com", "*.example.net"},
		},
		Summary: tlsrpt.Summary{Successful: 5326, Failed: 303},
		Failures: []tlsrpt.FailureDetail{
			{Result: tlsrpt.CertificateExpired, SendingIP: addr("2001:db8:abcd:12::1"), MXHost: "mail.example.com", MXHelo: "mail.example.com", ReceivingIP: addr("2001:db8:abcd:13::1"), Sessions: 100},
			{Result: tlsrpt.StartTLSNotSupported, SendingIP: addr("192.0.2.5"), MXHost: "mx2.example.net", ReceivingIP: addr("203.0.113.56"), Sessions: 200, Info: "https://mta.example.org/tls?about=starttls"},
			{Result: tlsrpt.STSPolicyFetchError, Sessions: 3, Reason: "timeout"},
		},
	}
}

func tlsa() tlsrpt.PolicyResult {
	return tlsrpt.PolicyResult{
		Policy: tlsrpt.Policy{
			Type: tlsrpt.TLSA, Domain: "mail.example.com",
			Strings: []string{"3 1 1 " + strings.Repeat("0123456789abcdef", 4), "2 0 1 " + strings.Repeat("fedcba9876543210", 4)},
		},
		Summary: tlsrpt.Summary{Successful: 12, Failed: 1},
		Failures: []tlsrpt.FailureDetail{
			{Result: tlsrpt.CertificateNotTrusted, SendingIP: addr("192.0.2.5"), MXHost: "mail.example.com", ReceivingIP: addr("203.0.113.55"), Sessions: 1, Reason: "no TLSA record matches <the certificate>"},
		},
	}
}

func noPolicy() tlsrpt.PolicyResult {
	return tlsrpt.PolicyResult{Policy: tlsrpt.Policy{Type: tlsrpt.NoPolicy, Domain: "example.com"}, Summary: tlsrpt.Summary{Successful: 7}}
}

// encoded is the JSON of a report that has been tidied.
func encoded(t testing.TB, r tlsrpt.Report) []byte {
	t.Helper()
	r.Tidy()
	var b bytes.Buffer
	if err := r.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// object reads JSON as strictly as RFC 7493 has it: no name twice, nothing after it.
func object(t *testing.T, data []byte) map[string]any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v := value(t, dec)
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("something follows the JSON: %v", err)
	}
	o, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("no object: %v", v)
	}
	return o
}

func value(t *testing.T, dec *json.Decoder) any {
	t.Helper()
	token, err := dec.Token()
	if err != nil {
		t.Fatal(err)
	}
	switch token {
	case json.Delim('{'):
		o := map[string]any{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			if _, twice := o[key.(string)]; twice {
				t.Fatalf("%v is there twice", key)
			}
			o[key.(string)] = value(t, dec)
		}
		token, err = dec.Token()
		if err != nil {
			t.Fatal(token, err)
		}
		return o
	case json.Delim('['):
		a := []any{}
		for dec.More() {
			a = append(a, value(t, dec))
		}
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		return a
	}
	return token
}

func keys(o any) string {
	var list []string
	for key := range o.(map[string]any) {
		list = append(list, key)
	}
	return strings.Join(sorted(list), " ")
}

// TestEncode goes over every member of RFC 8460 §4.4.
func TestEncode(t *testing.T) {
	data := encoded(t, report(noPolicy(), tlsa(), sts()))
	o := object(t, data)
	policies := o["policies"].([]any)
	policy := func(i int) map[string]any { return policies[i].(map[string]any)["policy"].(map[string]any) }
	details := func(i int) []any { return policies[i].(map[string]any)["failure-details"].([]any) }

	t.Run("RPT-020 one UTC day", func(t *testing.T) {
		want := map[string]any{"start-datetime": "2026-01-02T00:00:00Z", "end-datetime": "2026-01-02T23:59:59Z"}
		if diff := cmp.Diff(want, o["date-range"]); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("RPT-021 I-JSON", func(t *testing.T) {
		r := report(noPolicy())
		r.Organization = "A\u2028\xffB\ufffe\ufdd0C\x00\u202eD\u0085"
		got := object(t, encoded(t, r))["organization-name"]
		if got != "A??B??C??D?" {
			t.Errorf("organization-name %q", got)
		}
	})
	t.Run("RPT-022 policies is an array for one too", func(t *testing.T) {
		if list := object(t, encoded(t, report(noPolicy())))["policies"].([]any); len(list) != 1 {
			t.Errorf("policies: %v", list)
		}
	})
	t.Run("RPT-023 several policies, two of a kind with their own counts", func(t *testing.T) {
		second := sts()
		second.Policy.Strings = []string{"version: STSv1", "mode: testing"}
		second.Summary, second.Failures = tlsrpt.Summary{Successful: 1}, nil
		list := object(t, encoded(t, report(sts(), second)))["policies"].([]any)
		if len(list) != 2 || list[0].(map[string]any)["summary"].(map[string]any)["total-successful-session-count"] != json.Number("5326") {
			t.Errorf("policies: %v", list)
		}
	})
	t.Run("RPT-050 the top keys", func(t *testing.T) {
		if got := keys(o); got != "contact-info date-range organization-name policies report-id" {
			t.Error(got)
		}
		if got := keys(policies[0]); got != "failure-details policy summary" {
			t.Error(got)
		}
	})
	t.Run("RPT-051 date and time", func(t *testing.T) {
		for key, at := range o["date-range"].(map[string]any) {
			if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`).MatchString(at.(string)) {
				t.Errorf("%s is %s", key, at)
			}
		}
	})
	t.Run("RPT-052 contact-info is a bare address", func(t *testing.T) {
		if o["contact-info"] != "tlsrpt@mta.example.org" {
			t.Error(o["contact-info"])
		}
	})
	t.Run("RPT-053 policy-type", func(t *testing.T) {
		for i, want := range []string{"sts", "tlsa", "no-policy-found"} {
			if got := policy(i)["policy-type"]; got != want {
				t.Errorf("policy %d is %v", i, got)
			}
		}
	})
	t.Run("RPT-054 policy-string", func(t *testing.T) {
		if diff := cmp.Diff([]any{"version: STSv1", "mode: enforce", "mx: mail.example.com", "mx: *.example.net", "max_age: 86400"}, policy(0)["policy-string"]); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]any{"2 0 1 " + strings.Repeat("fedcba9876543210", 4), "3 1 1 " + strings.Repeat("0123456789abcdef", 4)}, policy(1)["policy-string"]); diff != "" {
			t.Error(diff)
		}
		if got := keys(policy(2)); got != "policy-domain policy-type" {
			t.Error(got)
		}
	})
	t.Run("RPT-055 policy-domain in A-labels", func(t *testing.T) {
		p := noPolicy()
		p.Policy.Domain = "Bücher.example."
		got := object(t, encoded(t, report(p)))["policies"].([]any)[0].(map[string]any)["policy"].(map[string]any)["policy-domain"]
		if got != "xn--bcher-kva.example" || policy(1)["policy-domain"] != "mail.example.com" {
			t.Error(got)
		}
	})
	t.Run("RPT-056 mx-host is an array, of sts alone", func(t *testing.T) {
		if diff := cmp.Diff([]any{"mail.example.com", "*.example.net"}, policy(0)["mx-host"]); diff != "" {
			t.Error(diff)
		}
		if got := keys(policy(1)); got != "policy-domain policy-string policy-type" {
			t.Error(got)
		}
		p := sts()
		p.Policy.MX = []string{"*.Bücher.example", "not a name"}
		list := object(t, encoded(t, report(p)))["policies"].([]any)[0].(map[string]any)["policy"].(map[string]any)["mx-host"]
		if diff := cmp.Diff([]any{"*.xn--bcher-kva.example"}, list); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("RPT-057 counts are integers", func(t *testing.T) {
		want := map[string]any{"total-successful-session-count": json.Number("5326"), "total-failure-session-count": json.Number("303")}
		if diff := cmp.Diff(want, policies[0].(map[string]any)["summary"]); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("RPT-058 keys of failure-details, and only those that are known", func(t *testing.T) {
		want := []any{
			map[string]any{"result-type": "starttls-not-supported", "sending-mta-ip": "192.0.2.5", "receiving-mx-hostname": "mx2.example.net", "receiving-ip": "203.0.113.56",
				"failed-session-count": json.Number("200"), "additional-information": "https://mta.example.org/tls?about=starttls"},
			map[string]any{"result-type": "certificate-expired", "sending-mta-ip": "2001:db8:abcd:12::1", "receiving-mx-hostname": "mail.example.com", "receiving-mx-helo": "mail.example.com",
				"receiving-ip": "2001:db8:abcd:13::1", "failed-session-count": json.Number("100")},
			map[string]any{"result-type": "sts-policy-fetch-error", "failed-session-count": json.Number("3"), "failure-reason-code": "timeout"},
		}
		if diff := cmp.Diff(want, details(0)); diff != "" {
			t.Error(diff)
		}
		if list := details(2); list == nil || len(list) != 0 {
			t.Errorf("without failures: %v", list)
		}
	})
	t.Run("RPT-059 addresses as text", func(t *testing.T) {
		p := tlsa()
		p.Failures[0].SendingIP, p.Failures[0].ReceivingIP = addr("2001:DB8:0::1"), addr("::ffff:192.0.2.1")
		d := object(t, encoded(t, report(p)))["policies"].([]any)[0].(map[string]any)["failure-details"].([]any)[0].(map[string]any)
		if d["sending-mta-ip"] != "2001:db8::1" || d["receiving-ip"] != "192.0.2.1" {
			t.Error(d)
		}
	})
	t.Run("RPT-025 successes alone make a report", func(t *testing.T) {
		if got := object(t, encoded(t, report(noPolicy()))); len(got["policies"].([]any)) != 1 {
			t.Error(got)
		}
	})
	t.Run("SEED-011 nothing of the draft's report", func(t *testing.T) {
		p := sts()
		p.Failures = nil
		for _, old := range []string{"mx-mismatch", "certificate-mismatch", "expired-certificate", "invalid-certificate", "sts-invalid", "webpki-invalid", "certificate-name-constraints-not-permitted"} {
			p.Failures = append(p.Failures, tlsrpt.FailureDetail{Result: tlsrpt.ResultType(old), Sessions: 100, MXHost: "mx.example.com"})
		}
		out := string(encoded(t, report(p, tlsa(), noPolicy()))) + string(data)
		for _, old := range []string{"report-items", "message-count", "null", `""`, `"mx-mismatch`, `"certificate-mismatch`, `"expired-certificate`, `"invalid-certificate`, `"sts-invalid`, `"webpki-invalid`, "failure-error-code"} {
			if strings.Contains(out, old) {
				t.Errorf("%s is in %s", old, out)
			}
		}
	})
	t.Run("the same bytes for the same report in another order", func(t *testing.T) {
		p := sts()
		p.Failures[0], p.Failures[2] = p.Failures[2], p.Failures[0]
		if again := encoded(t, report(p, noPolicy(), tlsa())); !bytes.Equal(data, again) {
			t.Error(cmp.Diff(string(data), string(again)))
		}
	})
}

func TestGolden(t *testing.T) {
	golden(t, "report-sts.json", encoded(t, report(sts())))
	golden(t, "report-tlsa.json", encoded(t, report(tlsa())))
	golden(t, "report-no-policy-found.json", encoded(t, report(noPolicy())))
	golden(t, "report-all.json", encoded(t, report(noPolicy(), tlsa(), sts())))
}

func TestReportID(t *testing.T) {
	t.Run("RPT-060 unique", func(t *testing.T) {
		seen := make(map[string]bool, 1_000_000)
		for i := range 1_000_000 {
			seen[tlsrpt.ReportID(day.AddDate(0, 0, i%1000), fmt.Sprintf("d%d.example", i/1000), "mta.example.org", "")] = true
		}
		if len(seen) != 1_000_000 {
			t.Errorf("%d ids", len(seen))
		}
		if tlsrpt.ReportID(day, "a.example", "b.example", "mx1") == tlsrpt.ReportID(day, "a.example", "b.example", "mx2") {
			t.Error("two hosts have one id")
		}
	})
	t.Run("RPT-060 stable, and of the UTC day", func(t *testing.T) {
		want := "20260102.9b3ef7963d232e77.example.com@mta.example.org"
		if got := tlsrpt.ReportID(day, "example.com", "mta.example.org", "mx1"); got != want {
			t.Error(got)
		}
		if got := tlsrpt.ReportID(time.Date(2026, 1, 3, 0, 30, 0, 0, time.FixedZone("", 3600)), "example.com", "mta.example.org", "mx1"); got != want {
			t.Error(got)
		}
	})
	t.Run("RPT-070 file name", func(t *testing.T) {
		r := report()
		want := `^mta\.example\.org!example\.com!1767312000!1767398399![0-9a-zA-Z]+\.json\.gz$`
		if got := r.FileName("example.com"); !regexp.MustCompile(want).MatchString(got) {
			t.Error(got)
		}
	})
}

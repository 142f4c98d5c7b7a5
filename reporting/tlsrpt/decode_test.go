package tlsrpt_test

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting/tlsrpt"
)

// one is a report of one policy, of which a test writes a part otherwise.
func one(change ...string) string {
	return strings.NewReplacer(change...).Replace(`{
"organization-name":"Org","date-range":{"start-datetime":"2026-01-02T00:00:00Z","end-datetime":"2026-01-02T23:59:59Z"},
"contact-info":"r@org.example","report-id":"1@org.example","policies":[
{"policy":{"policy-type":"sts","policy-string":["version: STSv1"],"policy-domain":"example.com","mx-host":["mx.example.com"]},
"summary":{"total-successful-session-count":10,"total-failure-session-count":2},
"failure-details":[{"result-type":"validation-failure","sending-mta-ip":"192.0.2.1","receiving-mx-hostname":"mx.example.com",
"receiving-mx-helo":"helo.example.com","receiving-ip":"2001:db8::1","failed-session-count":2,"additional-information":"https://org.example/","failure-reason-code":"why"}]}]}`)
}

// decoded is what one() is.
func decoded() tlsrpt.Report {
	return tlsrpt.Report{
		Organization: "Org", Contact: "r@org.example", ID: "1@org.example",
		Start: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 1, 2, 23, 59, 59, 0, time.UTC),
		Policies: []tlsrpt.PolicyResult{{
			Policy:  tlsrpt.Policy{Type: tlsrpt.STS, Strings: []string{"version: STSv1"}, Domain: "example.com", MX: []string{"mx.example.com"}},
			Summary: tlsrpt.Summary{Successful: 10, Failed: 2},
			Failures: []tlsrpt.FailureDetail{{
				Result: tlsrpt.ValidationFailure, SendingIP: addr("192.0.2.1"), MXHost: "mx.example.com", MXHelo: "helo.example.com",
				ReceivingIP: addr("2001:db8::1"), Sessions: 2, Info: "https://org.example/", Reason: "why",
			}},
		}},
	}
}

// TestDecode changes one thing of a report at a time, and says what is told of it.
func TestDecode(t *testing.T) {
	same := func(*tlsrpt.Report) {}
	is := func(name, json string, change func(*tlsrpt.Report), peculiar ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			want := decoded()
			change(&want)
			got, told, err := tlsrpt.Decode(strings.NewReader(json))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, comparable); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(peculiar, told); diff != "" {
				t.Errorf("told: -want +got\n%s", diff)
			}
		})
	}
	policy := func(r *tlsrpt.Report) *tlsrpt.Policy { return &r.Policies[0].Policy }
	failure := func(r *tlsrpt.Report) *tlsrpt.FailureDetail { return &r.Policies[0].Failures[0] }

	is("RPT-050 as it should be", one(), same)
	is("RPT-050 unknown members", one(`"policies"`, `"x":{"y":[1,{}]},"policies"`, `"summary":{`, `"summary":{"z":null,`), same,
		"x is unknown", "summary.z is unknown")
	is("RPT-021 a member twice", one(`"report-id"`, `"report-id":"2@org.example","report-id"`), same, "report-id is there twice: the last one counts")
	is("RPT-021 more behind it", one()+"{}", same, "something follows the JSON")
	is("RPT-051 without a zone (Microsoft 2023)", one("00:00Z", "00:00", "59:59Z", "59:59"), same,
		"date-range.start-datetime is not of RFC 3339: 2026-01-02T00:00:00", "date-range.end-datetime is not of RFC 3339: 2026-01-02T23:59:59")
	is("RPT-051 another zone", one("2026-01-02T00:00:00Z", "2026-01-02T02:00:00+02:00"), same, "date-range.start-datetime is not in UTC: 2026-01-02T02:00:00+02:00")
	is("RPT-051 no time", one("2026-01-02T00:00:00Z", "today"), func(r *tlsrpt.Report) { r.Start = time.Time{} },
		"date-range.start-datetime is no time: today", "date-range is not whole")
	is("RPT-020 to the next day (Mail.ru 2023)", one("2026-01-02T23:59:59Z", "2026-01-03T00:00:00Z"), func(r *tlsrpt.Report) { r.End = r.End.Add(time.Second) },
		"date-range ends in the next day: 2026-01-03T00:00:00Z")
	is("RPT-020 no day (Stalwart)", one("2026-01-02T23:59:59Z", "2026-01-02T13:00:00Z"), func(r *tlsrpt.Report) { r.End = time.Date(2026, 1, 2, 13, 0, 0, 0, time.UTC) },
		"date-range is not a day of UTC: 2026-01-02T00:00:00Z to 2026-01-02T13:00:00Z")
	is("RPT-052 null (Stalwart)", one(`"r@org.example"`, `null`), func(r *tlsrpt.Report) { r.Contact = "" }, "contact-info is null", "contact-info is missing")
	is("RPT-052 with a name", one(`r@org.example`, `R <r@org.example>`), func(r *tlsrpt.Report) { r.Contact = "R <r@org.example>" },
		"contact-info is no bare mail address: R <r@org.example>")
	is("RPT-022 one that is no array", strings.Replace(strings.Replace(one(), `"policies":[`, `"policies":`, 1), `}]}]}`, `}]}}`, 1), same, "policies is no array")
	is("RPT-053 another type", one(`"sts"`, `"dane"`), func(r *tlsrpt.Report) { policy(r).Type = "dane" }, "policy-type dane is unknown")
	is("RPT-054 an array in a string (Microsoft 2024)", one(`"sts"`, `"tlsa"`, `["version: STSv1"]`, `["[\"3 1 1 00\",\"2 1 1 01\"]"]`, `,"mx-host":["mx.example.com"]`, ``),
		func(r *tlsrpt.Report) {
			*policy(r) = tlsrpt.Policy{Type: tlsrpt.TLSA, Domain: "example.com", Strings: []string{"3 1 1 00", "2 1 1 01"}}
		}, "policy.policy-string is a string that holds an array")
	is("RPT-054 none (Halon)", one(`["version: STSv1"]`, `""`), func(r *tlsrpt.Report) { policy(r).Strings = nil }, "policy.policy-string is no array", `policy.policy-string is ""`)
	is("RPT-055 no policy-domain (Postfix before 2025-09)", one(`"policy-domain":"example.com",`, ``), func(r *tlsrpt.Report) { policy(r).Domain = "" }, "policy-domain is missing")
	is("RPT-055 no A-labels", one(`"policy-domain":"example.com",`, `"policy-domain":"bücher.example",`), func(r *tlsrpt.Report) { policy(r).Domain = "bücher.example" },
		`policy-domain is not in lower-case A-labels: b\u00fccher.example`)
	is("RPT-056 a string", one(`["mx.example.com"]`, `"mx.example.com"`), same, "policy.mx-host is no array")
	is("RPT-056 mx-host-pattern", one(`mx-host"`, `mx-host-pattern"`), same, "policy.mx-host-pattern should be mx-host")
	is("RPT-056 none (Microsoft)", one(`,"mx-host":["mx.example.com"]`, ``), func(r *tlsrpt.Report) { policy(r).MX = nil }, "mx-host is missing in an sts policy")
	is("RPT-057 strings", one(`:10,`, `:"10",`), same, "summary.total-successful-session-count is a string")
	is("RPT-057 fractions", one(`:10,`, `:10.0,`), same, "summary.total-successful-session-count is no integer")
	is("RPT-057 negative", one(`:10,`, `:-1,`), func(r *tlsrpt.Report) { r.Policies[0].Summary.Successful = 0 }, "summary.total-successful-session-count is no count: -1")
	is("RPT-057 beyond", one(`:10,`, `:1e99,`), func(r *tlsrpt.Report) { r.Policies[0].Summary.Successful = 0 }, "summary.total-successful-session-count is no count: 1e99")
	is("RPT-026 totals that differ", one(`count":2}`, `count":3}`), func(r *tlsrpt.Report) { r.Policies[0].Summary.Failed = 3 },
		"the totals differ: 3 sessions failed, the details count 2")
	is("RPT-058 names of others", one("additional-information", "additional-info-uri", "failure-reason-code", "failure-error-code"), same,
		"failure-details.additional-info-uri should be additional-information", "failure-details.failure-error-code should be failure-reason-code")
	is("RPT-058 null and empty (mox)", one(`"https://org.example/"`, `""`, `"why"`, `null`), func(r *tlsrpt.Report) { failure(r).Info, failure(r).Reason = "", "" },
		`failure-details.additional-information is ""`, "failure-details.failure-reason-code is null")
	is("RPT-058 several lines (Postfix)", one(`"helo.example.com"`, `"helo.example.com\r\n250-PIPELINING\r\n250 SMTPUTF8"`), same, "failure-details.receiving-mx-helo is a reply of several lines")
	is("RPT-059 empty (Google)", one(`"192.0.2.1"`, `""`), func(r *tlsrpt.Report) { failure(r).SendingIP = netip.Addr{} }, `failure-details.sending-mta-ip is ""`)
	is("RPT-059 no address", one(`"192.0.2.1"`, `"here"`), func(r *tlsrpt.Report) { failure(r).SendingIP = netip.Addr{} }, `failure-details.sending-mta-ip is no address: here`)
	is("RPT-059 written otherwise", one(`2001:db8::1`, `2001:DB8:0::1`), same, "failure-details.receiving-ip is not written as usual: 2001:DB8:0::1")
	is("SEED-012 a retired name", one("validation-failure", "mx-mismatch"), func(r *tlsrpt.Report) { failure(r).Result = tlsrpt.CertificateHostMismatch },
		"result-type mx-mismatch is of a draft: now certificate-host-mismatch")
	is("RPT-046 a name of tomorrow", one("validation-failure", "foo-bar"), func(r *tlsrpt.Report) { failure(r).Result = "foo-bar" }, "result-type foo-bar is not registered")
	is("RPT-021 text that moves a terminal", one(`"why"`, `"\u001b[2Jwh\u202ey"`), func(r *tlsrpt.Report) { failure(r).Reason = "?[2Jwh?y" },
		"failure-details.failure-reason-code has characters that are no text")
	is("RPT-021 other kinds", one(`"why"`, `{"a":[]}`, `"Org"`, `7`, `"1@org.example"`, `true`), func(r *tlsrpt.Report) { r.Organization, r.ID, failure(r).Reason = "7", "", "" },
		"organization-name is a number", "report-id is no string", "failure-details.failure-reason-code is no string", "report-id is missing")
}

func TestDecodeRefuses(t *testing.T) {
	bad := func(name, want, json string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			if r, told, err := tlsrpt.Decode(strings.NewReader(json)); err == nil || !strings.Contains(err.Error(), want) || told != nil || r.Policies != nil {
				t.Errorf("%+v, %q, %v; want %s", r, told, err, want)
			}
		})
	}
	bad("nothing", "unexpected EOF", "")
	bad("no object", "no object", "[]")
	bad("another object", "nothing of RFC 8460", `{"a":1}`)
	bad("cut off", "unexpected EOF", one()[:200])
	bad("no JSON", "invalid character", `{"organization-name":`+"\x00}")
	bad("deep", "nested", `{"x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+"}")
	bad("20 MiB", "more than 20 MiB", `{"organization-name":"`+strings.Repeat("a", 21<<20)+`"}`)
}

func TestDecodeBounds(t *testing.T) {
	t.Run("many details", func(t *testing.T) {
		r, told, err := tlsrpt.Decode(strings.NewReader(one(`"failure-details":[`, `"failure-details":[`+strings.Repeat("{},", 100_001))))
		if err != nil || len(r.Policies[0].Failures) != 100_000 || !strings.Contains(strings.Join(told, "; "), "more than 100000") {
			t.Errorf("%d details, %q, %v", len(r.Policies[0].Failures), told, err)
		}
	})
	t.Run("many policies", func(t *testing.T) {
		r, _, err := tlsrpt.Decode(strings.NewReader(one(`"policies":[`, `"policies":[`+strings.Repeat("0,", 20_000))))
		if err != nil || len(r.Policies) != 10_000 {
			t.Errorf("%d policies, %v", len(r.Policies), err)
		}
	})
	t.Run("many peculiarities", func(t *testing.T) {
		var members strings.Builder
		for i := range 100 {
			members.WriteString(`"x` + strings.Repeat("y", i) + `":0,`)
		}
		_, told, err := tlsrpt.Decode(strings.NewReader(one(`"organization-name"`, members.String()+`"organization-name"`)))
		if err != nil || len(told) != 31 || told[30] != "and 70 more" {
			t.Errorf("%q, %v", told, err)
		}
	})
	t.Run("a long string", func(t *testing.T) {
		r, told, err := tlsrpt.Decode(strings.NewReader(one(`"why"`, `"`+strings.Repeat("ü", 5000)+`"`)))
		if err != nil || len(r.Policies[0].Failures[0].Reason) > 4096 || len(told) != 1 {
			t.Errorf("%q, %v", told, err)
		}
	})
}

// TestDecodeEncode reads what is written.
func TestDecodeEncode(t *testing.T) {
	r := report(sts(), tlsa(), noPolicy())
	data := encoded(t, r)
	r.Tidy()
	got, told, err := tlsrpt.Decode(bytes.NewReader(data))
	if err != nil || told != nil {
		t.Errorf("%q, %v", told, err)
	}
	for i := range r.Policies { // nothing and an empty array are one
		r.Policies[i].Failures = slices.Clip(r.Policies[i].Failures)
	}
	if diff := cmp.Diff(r, got, comparable); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(one()))
	f.Add([]byte(one(`["mx.example.com"]`, `"mx.example.com"`, `"192.0.2.1"`, `""`)))
	f.Add(encoded(f, report(sts(), tlsa(), noPolicy())))
	f.Add([]byte(mailOf(f, sts())))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, told, err := tlsrpt.Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		for _, s := range told {
			if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("told %q", s)
			}
		}
		first.Tidy()
		var b bytes.Buffer
		if first.Encode(&b) != nil {
			return // others write what may not be sent
		}
		second, told, err := tlsrpt.Decode(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, second, comparable, emptyIsNil); diff != "" {
			t.Errorf("told %q, -want +got\n%s", told, diff)
		}
		before := b.String()
		second.Tidy()
		b.Reset()
		if err := second.Encode(&b); err != nil || b.String() != before {
			t.Errorf("%v, %s", err, cmp.Diff(before, b.String()))
		}
	})
}

package tlsrpt_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postseal/reporting/tlsrpt"
)

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

var comparable = cmpopts.EquateComparable(addr("::"))

// detail is one of n sessions.
func detail(n uint64, change func(*tlsrpt.FailureDetail)) tlsrpt.FailureDetail {
	d := tlsrpt.FailureDetail{Result: tlsrpt.ValidationFailure, SendingIP: addr("192.0.2.1"), MXHost: "mx.example.com", MXHelo: "mx", ReceivingIP: addr("192.0.2.2"), Reason: "tls-alert", Sessions: n}
	change(&d)
	return d
}

func TestTidyMerges(t *testing.T) {
	same := func(*tlsrpt.FailureDetail) {}
	t.Run("RPT-061 equal details are one", func(t *testing.T) {
		p := noPolicy()
		p.Summary.Failed = 5
		for range 5 {
			p.Failures = append(p.Failures, detail(1, same))
		}
		r := report(p)
		r.Tidy()
		if diff := cmp.Diff([]tlsrpt.FailureDetail{detail(5, same)}, r.Policies[0].Failures, comparable); diff != "" {
			t.Error(diff)
		}
		if len(p.Failures) != 5 || p.Failures[0].Sessions != 1 {
			t.Error("the details that were handed in have changed")
		}
	})
	t.Run("RPT-061 others are not", func(t *testing.T) {
		p := noPolicy()
		p.Summary.Failed = 7
		p.Failures = []tlsrpt.FailureDetail{
			detail(1, same),
			detail(1, func(d *tlsrpt.FailureDetail) { d.Result = tlsrpt.CertificateExpired }),
			detail(1, func(d *tlsrpt.FailureDetail) { d.SendingIP = addr("192.0.2.9") }),
			detail(1, func(d *tlsrpt.FailureDetail) { d.MXHost = "mx2.example.com" }),
			detail(1, func(d *tlsrpt.FailureDetail) { d.ReceivingIP = addr("192.0.2.9") }),
			detail(1, func(d *tlsrpt.FailureDetail) { d.MXHelo = "mx2" }),
			detail(1, func(d *tlsrpt.FailureDetail) { d.Reason = "other" }),
		}
		r := report(p)
		if loss := r.Tidy(); len(r.Policies[0].Failures) != 7 || loss != (tlsrpt.Loss{}) {
			t.Errorf("%d details, %+v", len(r.Policies[0].Failures), loss)
		}
	})
	t.Run("RPT-023 equal policies are one", func(t *testing.T) {
		other := tlsa()
		slices.Reverse(other.Policy.Strings)
		other.Policy.Domain = "MAIL.example.com."
		for i, s := range other.Policy.Strings {
			other.Policy.Strings[i] = strings.ToUpper(s[:10] + " " + s[10:])
		}
		r := report(tlsa(), other)
		r.Tidy()
		if len(r.Policies) != 1 || r.Policies[0].Summary != (tlsrpt.Summary{Successful: 24, Failed: 2}) || r.Policies[0].Failures[0].Sessions != 2 {
			t.Errorf("%+v", r.Policies)
		}
	})
	t.Run("RPT-059 what is no name is left out", func(t *testing.T) {
		p := noPolicy()
		p.Summary.Failed = 1
		p.Failures = []tlsrpt.FailureDetail{detail(1, func(d *tlsrpt.FailureDetail) {
			d.MXHost, d.MXHelo, d.SendingIP = "[192.0.2.1]", "mx.example.com\r\n250-SIZE 1\r\n250 HELP", addr("fe80::1%eth0")
			d.Info = "javascript:alert(1)"
		})}
		r := report(p)
		r.Tidy()
		want := detail(1, func(d *tlsrpt.FailureDetail) { d.MXHost, d.MXHelo, d.SendingIP = "", "mx.example.com", addr("fe80::1") })
		if diff := cmp.Diff([]tlsrpt.FailureDetail{want}, r.Policies[0].Failures, comparable); diff != "" {
			t.Error(diff)
		}
	})
}

// crowd is a policy with many details, each of one session.
func crowd(n int) tlsrpt.PolicyResult {
	p := sts()
	p.Summary.Failed, p.Failures = uint64(n), nil
	results := []tlsrpt.ResultType{tlsrpt.ValidationFailure, tlsrpt.CertificateNotTrusted, "of-tomorrow", tlsrpt.CertificateExpired}
	for i := range n {
		p.Failures = append(p.Failures, detail(1, func(d *tlsrpt.FailureDetail) {
			d.Result, d.Reason = results[i%len(results)], fmt.Sprintf("reason %d", i)
		}))
	}
	return p
}

func TestTidyBounds(t *testing.T) {
	t.Run("RPT-083 many reasons are merged and the totals kept", func(t *testing.T) {
		r := report(crowd(100_000))
		loss := r.Tidy()
		p := r.Policies[0]
		sum := uint64(0)
		merged := 0
		for _, d := range p.Failures {
			if sum += d.Sessions; d.Reason == "several-details-merged" {
				merged++
			}
		}
		if len(p.Failures) > 1000 || sum != 100_000 || p.Summary.Failed != 100_000 || merged != 3 || loss.Details == 0 {
			t.Errorf("%d details, %d sessions of %d, %d merged, %+v", len(p.Failures), sum, p.Summary.Failed, merged, loss)
		}
		size := len(encoded(t, r))
		if size > 1<<20 {
			t.Errorf("%d bytes", size)
		}
		if again := r.Tidy(); again != (tlsrpt.Loss{}) {
			t.Errorf("a second time: %+v", again)
		}
	})
	t.Run("RPT-083 of many policies each has its share", func(t *testing.T) {
		var policies []tlsrpt.PolicyResult
		for i := range 500 {
			p := crowd(50)
			p.Policy.Domain = fmt.Sprintf("d%03d.example", i)
			policies = append(policies, p)
		}
		r := report(policies...)
		r.Tidy()
		for _, p := range r.Policies {
			sum := uint64(0)
			for _, d := range p.Failures {
				sum += d.Sessions
			}
			if len(p.Failures) != 3 || sum != 50 {
				t.Fatalf("%+v", p.Failures)
			}
		}
		encoded(t, r)
	})
	t.Run("RPT-083 policies beyond any reason", func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		var policies []tlsrpt.PolicyResult
		for i := range 1200 {
			p := tlsa()
			p.Policy.Domain = fmt.Sprintf("d%d.example", i)
			record := make([]byte, 4000) // a whole certificate
			for i := range record {
				record[i] = byte(random.Uint32())
			}
			p.Policy.Strings = []string{"3 0 0 " + hex.EncodeToString(record)}
			p.Summary.Successful = uint64(i)
			policies = append(policies, p)
		}
		r := report(policies...)
		if loss := r.Tidy(); loss.Policies != 200 || loss.Sessions != 200*199/2+200 || len(r.Policies) != 1000 {
			t.Errorf("%+v, %d policies", loss, len(r.Policies))
		}
		var b bytes.Buffer
		if err := r.EncodeGzip(&b); err != nil || b.Len() > 3<<20 {
			t.Errorf("%d bytes, %v", b.Len(), err)
		}
	})
	t.Run("RPT-026 a session that failed twice is in two details", func(t *testing.T) {
		p := noPolicy()
		p.Summary.Failed = 1
		p.Failures = []tlsrpt.FailureDetail{
			detail(1, func(d *tlsrpt.FailureDetail) { d.Result = tlsrpt.CertificateExpired }),
			detail(1, func(d *tlsrpt.FailureDetail) { d.Result = tlsrpt.CertificateHostMismatch }),
		}
		encoded(t, report(p))
	})
}

func TestTidyReasons(t *testing.T) {
	is := func(reason, want string) {
		t.Helper()
		p := noPolicy()
		p.Summary.Failed, p.Failures = 1, []tlsrpt.FailureDetail{detail(1, func(d *tlsrpt.FailureDetail) { d.Reason = reason })}
		r := report(p)
		r.Tidy()
		if got := r.Policies[0].Failures[0].Reason; got != want {
			t.Errorf("reason %q is %q, want %q", reason, got, want)
		}
	}
	t.Run("RPT-084 no mail address in a reason", func(t *testing.T) {
		is("mail for joe.doe+x@example.com refused", "mail for (address) refused")
		is("<joe@example.com>: no", "<(address)>: no")
		is(`"joe doe"@example.com, and a@b`, "(address), and (address)")
		is("a@b@c", "(address)")
		is("@", "(address)")
		is("x\xffü@example.com", "(address)")
		is(strings.Repeat("a@b ", 300)+strings.Repeat("c", 300)+"@example.com", strings.TrimSpace(strings.Repeat("(address) ", 20)))
	})
	t.Run("RPT-084 a reason is one short line", func(t *testing.T) {
		is(" a\r\n b\tc ", "a b c")
		is("a\x00\x1bb", "a??b")
		is(strings.Repeat("ab ", 1000), strings.TrimSpace(strings.Repeat("ab ", 67)))
		is("error:0A000086:SSL routines::certificate verify failed", "error:0A000086:SSL routines::certificate verify failed")
	})
	t.Run("RPT-046 types of tomorrow are kept", func(t *testing.T) {
		p := noPolicy()
		p.Summary.Failed = 1
		p.Failures = []tlsrpt.FailureDetail{detail(1, func(d *tlsrpt.FailureDetail) { d.Result = "foo-bar" })}
		if out := string(encoded(t, report(p))); !strings.Contains(out, `"result-type":"foo-bar"`) {
			t.Error(out)
		}
	})
}

func TestValidate(t *testing.T) {
	bad := func(name, want string, change func(*tlsrpt.Report)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			r := report(sts(), tlsa())
			r.Tidy()
			if err := r.Validate(); err != nil {
				t.Fatal(err)
			}
			change(&r)
			var b bytes.Buffer
			if err := r.Encode(&b); err == nil || !strings.Contains(err.Error(), want) || b.Len() > 0 {
				t.Errorf("%v, %d bytes; want %s", err, b.Len(), want)
			}
			if err := r.EncodeGzip(&b); err == nil || b.Len() > 0 {
				t.Errorf("%v, %d bytes", err, b.Len())
			}
		})
	}
	type R = *tlsrpt.Report
	first := func(r R) *tlsrpt.FailureDetail { return &r.Policies[0].Failures[0] }

	bad("RPT-050 no organisation", "organization-name", func(r R) { r.Organization = "" })
	bad("RPT-050 no policy", "0 policies", func(r R) { r.Policies = nil })
	bad("RPT-052 no bare address", "contact-info", func(r R) { r.Contact = "Name <a@x.example>" })
	bad("RPT-052 no address", "contact-info", func(r R) { r.Contact = "" })
	bad("RPT-060 no id", "report-id", func(r R) { r.ID = "" })
	bad("RPT-060 an id that is no msg-id", "report-id", func(r R) { r.ID = "2026-01-02T00:00:00Z_x@example.org" })
	bad("RPT-060 an id with a line end", "report-id", func(r R) { r.ID = "a@b\r\nBcc: c@d" })
	bad("RPT-051 another zone", "UTC", func(r R) { r.Start = r.Start.In(time.FixedZone("", 3600)) })
	bad("RPT-051 parts of seconds", "seconds", func(r R) { r.End = r.End.Add(time.Millisecond) })
	bad("RPT-051 backwards", "span", func(r R) { r.Start, r.End = r.End, r.Start })
	bad("RPT-051 none", "span", func(r R) { r.Start = time.Time{}.UTC() })
	bad("RPT-053 another type", "policy-type", func(r R) { r.Policies = r.Policies[:1]; r.Policies[0].Policy.Type = "dane" })
	bad("RPT-054 of no policy", "without a policy", func(r R) { r.Policies = r.Policies[1:]; r.Policies[0].Policy.Type = tlsrpt.NoPolicy })
	bad("RPT-054 no TLSA record", "policy-string", func(r R) { r.Policies[1].Policy.Strings = []string{"mail. TLSA 3 1 1 00"} })
	bad("RPT-054 empty", "policy-string", func(r R) { r.Policies[0].Policy.Strings[1] = "" })
	bad("RPT-055 no A-labels", "policy-domain", func(r R) { r.Policies = r.Policies[:1]; r.Policies[0].Policy.Domain = "bücher.example" })
	bad("RPT-055 no domain", "policy-domain", func(r R) { r.Policies[0].Policy.Domain = "" })
	bad("RPT-056 of tlsa", "mx-host", func(r R) { r.Policies[1].Policy.MX = []string{"mx.example.com"} })
	bad("RPT-056 no pattern", "mx-host", func(r R) { r.Policies[0].Policy.MX = []string{"mx.*.example.com"} })
	bad("RPT-057 beyond what JSON has", "2^53", func(r R) { r.Policies[0].Summary.Successful = 1 << 53 })
	bad("RPT-058 more than failed", "of 303", func(r R) { first(r).Sessions = 304 })
	bad("RPT-058 less than failed", "explain", func(r R) { r.Policies[0].Summary.Failed++ })
	bad("RPT-058 no session", "failed-session-count", func(r R) { r.Policies[0].Failures[2].Sessions = 0 })
	bad("RPT-058 additional-information", "additional-information", func(r R) { first(r).Info = "x" })
	bad("RPT-058 receiving-mx-hostname", "receiving-mx-hostname", func(r R) { first(r).MXHost = "MX.example.com" })
	bad("RPT-058 receiving-mx-helo", "receiving-mx-helo", func(r R) { first(r).MXHelo = "a b" })
	bad("RPT-059 a zone", "zone", func(r R) { first(r).SendingIP = addr("fe80::1%eth0") })
	bad("RPT-061 twice", "twice", func(r R) { r.Policies[0].Failures = append(r.Policies[0].Failures, r.Policies[0].Failures[2]) })
	bad("RPT-061 a policy twice", "twice", func(r R) { r.Policies[1] = r.Policies[0] })
	bad("RPT-083 too many details", "are the most", func(r R) { r.Policies[0].Failures = make([]tlsrpt.FailureDetail, 1001) })
	bad("RPT-083 too many policies", "policies", func(r R) { r.Policies = make([]tlsrpt.PolicyResult, 1001) })
	bad("RPT-084 an address in a reason", "failure-reason-code", func(r R) { first(r).Reason = "for a@b.example" })
	bad("SEED-011 a retired result", "result-type", func(r R) { first(r).Result = "mx-mismatch" })
	bad("SEED-011 success is no result", "result-type", func(r R) { first(r).Result = "success" })
}

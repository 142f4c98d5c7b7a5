package policy_test

import (
	"context"
	"sync"
	"testing"

	"postseal/policy"
)

func TestOutcomes(t *testing.T) {
	zone := `
fetch.test. MX 10 mx.fetch.test.
_mta-sts.fetch.test. TXT "v=STSv1; id=1;"
mta-sts.fetch.test. A 127.0.0.1
none.test. MX 10 mx.none.test.
_mta-sts.none.test. TXT "v=STSv1; id=1;"
mta-sts.none.test. A 127.0.0.1
bogus.signed.test. MX 10 mx.bogus.signed.test.
mx.bogus.signed.test. A 192.0.2.1
lame.signed.test. MX 10 mx.lame.signed.test.
mx.lame.signed.test. A 192.0.2.1
`
	var mu sync.Mutex
	var seen []policy.Outcome
	b := newBed(t, zone, func(e *policy.Engine) {
		e.Report = func(o policy.Outcome) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, o)
		}
	})
	took := func(domain string) []policy.Outcome {
		t.Helper()
		b.waitFor(func() bool { return b.Status().Flights == 0 }) // who asks beside one that ends gets what that has found
		b.Explain(context.Background(), policy.Destination{Domain: domain, Port: 25}, true)
		mu.Lock()
		defer mu.Unlock()
		list := seen
		seen = nil
		return list
	}
	text := func(mode string) string {
		return "version: STSv1\nmode: " + mode + "\nmx: mx.fetch.test\nmax_age: 86400\n"
	}

	t.Run("STS-140 RPT-029 a policy that cannot be fetched", func(t *testing.T) {
		b.web.Set("fetch.test", text("enforce"))
		b.web.Fault("fetch.test", "404")
		if list := took("fetch.test"); len(list) != 1 || list[0].Result != "sts-policy-fetch-error" || list[0].Type != policy.TypeSTS || list[0].STS != nil || list[0].Domain != "fetch.test" {
			t.Errorf("%+v", list)
		}
		b.web.Fault("fetch.test", "expired")
		if list := took("fetch.test"); len(list) != 1 || list[0].Result != "sts-webpki-invalid" {
			t.Errorf("an expired certificate: %+v", list)
		}
	})
	t.Run("STS-141 also while a policy is remembered", func(t *testing.T) {
		b.web.Fault("fetch.test", "")
		if list := took("fetch.test"); len(list) != 0 {
			t.Errorf("a good fetch: %+v", list)
		}
		b.web.Set("fetch.test", "version: STSv1\nmode: what\n")
		if list := took("fetch.test"); len(list) != 1 || list[0].Result != "sts-policy-invalid" || list[0].STS == nil {
			t.Errorf("%+v", list)
		}
	})
	t.Run("RPT-030 nothing where the policy in force is none", func(t *testing.T) {
		b.web.Set("none.test", "version: STSv1\nmode: none\nmax_age: 86400\n")
		took("none.test")
		b.web.Fault("none.test", "404")
		if list := took("none.test"); len(list) != 0 {
			t.Errorf("%+v", list)
		}
	})
	t.Run("RPT-044 signatures that do not hold, and nothing else of DNS", func(t *testing.T) {
		b.dns.Fail("_25._tcp.mx.bogus.signed.test", "TLSA", "BOGUS")
		if list := took("bogus.signed.test"); len(list) != 1 || list[0].Result != "dnssec-invalid" || list[0].Type != policy.TypeTLSA {
			t.Errorf("%+v", list)
		}
		b.dns.Fail("_25._tcp.mx.lame.signed.test", "TLSA", "SERVFAIL")
		if list := took("lame.signed.test"); len(list) != 0 {
			t.Errorf("a lame server: %+v", list)
		}
	})
}

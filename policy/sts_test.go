package policy_test

import (
	"strings"
	"testing"
	"time"

	"postseal/policy"
)

const domain = "example.test" // unsigned, so that MTA-STS decides

const domainZone = `
example.test.    300 IN SOA ns.example.test. h.example.test. 1 60 60 60 60
example.test.    300 IN MX 10 mx.example.test.
mx.example.test. 300 IN A 192.0.2.1
`

var (
	enforcing = policyText("enforce", "604800", "mx.example.test")
	relaxed   = policyText("none", "604800")
)

// newSTSBed is a bed on which domain enforces MTA-STS.
func newSTSBed(t *testing.T, change ...func(*policy.Engine)) *bed {
	b := newBed(t, domainZone+stsZone(domain, "1"), change...)
	b.web.Set(domain, enforcing)
	return b
}

const (
	enforced = "DANE none, STS enforce"
	noPolicy = "DANE none, no STS policy"
)

func TestRecordLifecycle(t *testing.T) {
	record := "_mta-sts." + domain
	t.Run("STS-023 a record that goes away deletes no policy", func(t *testing.T) {
		for _, gone := range []string{"", "_mta-sts.example.test. 300 IN TXT \"v=STSv1\"\n", "_mta-sts.example.test. 300 IN TXT \"v=STSv1; id=a;\"\n_mta-sts.example.test. 300 IN TXT \"v=STSv1; id=b;\"\n"} {
			b := newSTSBed(t)
			b.want(domain, policy.LevelSTS, enforced)
			b.dns.SetZone(domainZone+gone, "signed.test.")
			b.advance(301 * time.Second)
			b.want(domain, policy.LevelSTS, enforced)
		}
	})
	t.Run("STS-024 DNS failure with a known policy", func(t *testing.T) {
		b := newSTSBed(t)
		b.want(domain, policy.LevelSTS, enforced)
		b.dns.Fail(record, "TXT", "SERVFAIL")
		b.advance(301 * time.Second)
		b.want(domain, policy.LevelSTS, enforced)
	})
	t.Run("STS-025 DNS failure without one", func(t *testing.T) {
		b := newSTSBed(t)
		b.dns.Fail(record, "TXT", "SERVFAIL")
		b.want(domain, policy.LevelNone, "DANE none, STS not known")
		b.dns.Fail(record, "TXT", "")
		b.advance(2 * time.Minute)
		b.want(domain, policy.LevelSTS, enforced)
	})
	t.Run("STS-026 one TXT question per TTL", func(t *testing.T) {
		b := newSTSBed(t)
		for range 1000 {
			b.want(domain, policy.LevelSTS, enforced)
		}
		if n := b.dns.Count("TXT", record); n != 1 {
			t.Errorf("%d TXT questions", n)
		}
		b.advance(301 * time.Second)
		b.decide(domain)
		if n := b.dns.Count("TXT", record); n != 2 {
			t.Errorf("%d TXT questions after the TTL", n)
		}
	})
	t.Run("STS-021 the id is compared, not ordered", func(t *testing.T) {
		b := newSTSBed(t)
		b.dns.SetZone(domainZone+stsZone(domain, "20260201"), "signed.test.")
		b.decide(domain)
		for i, id := range []string{"20250101", "abc", "ABC"} {
			b.dns.SetZone(domainZone+stsZone(domain, id), "signed.test.")
			b.advance(301 * time.Second)
			b.decide(domain)
			if n := b.web.Gets(domain); n != i+2 {
				t.Errorf("id %s: %d GETs, want %d", id, n, i+2)
			}
		}
	})
	t.Run("STS-003 no climbing to the parent", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide("mail." + domain)
		if n := b.dns.Count("TXT", record); n != 0 {
			t.Errorf("%d questions for the parent's record", n)
		}
	})
	t.Run("STS-001 the domain in any case", func(t *testing.T) {
		b := newSTSBed(t)
		b.want("EXAMPLE.Test.", policy.LevelSTS, enforced)
		b.want(domain, policy.LevelSTS, enforced)
		if n := b.dns.Count("TXT", record); n != 1 {
			t.Errorf("%d TXT questions", n)
		}
	})
	t.Run("STS-006 the policy of a fixed host is its own", func(t *testing.T) {
		b := newSTSBed(t)
		b.want("["+domain+"]:587", policy.LevelSTS, enforced)
		if n := b.dns.Count("MX", domain); n != 0 {
			t.Errorf("%d MX questions for a fixed host", n)
		}
	})
	t.Run("SM-027 the port is no part of STS", func(t *testing.T) {
		b := newSTSBed(t)
		b.want(domain+":2525", policy.LevelSTS, enforced)
		b.want(domain, policy.LevelSTS, enforced)
		if n := b.web.Gets(domain); n != 1 {
			t.Errorf("%d GETs for one domain", n)
		}
	})
	t.Run("STS-008 over-long names have no record", func(t *testing.T) {
		b := newSTSBed(t)
		long := strings.Repeat("abcdefg.", 30) + "example" // 247 octets
		b.decide(long)
		for _, q := range b.dns.Queries() {
			if strings.HasPrefix(q, "TXT") {
				t.Errorf("asked %s", q)
			}
		}
	})
	t.Run("SEED-001 only the final record name is asked for", func(t *testing.T) {
		b := newBed(t, domainZone+"_smtp_sts.example.test. 300 IN TXT \"v=STS1; to=true\"\n_mta_sts.example.test. 300 IN TXT \"v=STSv1; id=1\"\n")
		b.want(domain, policy.LevelNone, noPolicy)
		for _, q := range b.dns.Queries() {
			if strings.Contains(q, "_smtp_sts") || strings.Contains(q, "_mta_sts") {
				t.Errorf("asked %s", q)
			}
		}
	})
}

func TestFetchLifecycle(t *testing.T) {
	t.Run("STS-041 no policy when the fetch fails", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Fault(domain, "404")
		b.want(domain, policy.LevelNone, noPolicy)
	})
	t.Run("STS-042 five minutes between GETs of one id", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Fault(domain, "404")
		b.decide(domain)
		for range 100 {
			b.advance(2900 * time.Millisecond)
			b.decide(domain)
		}
		if n := b.web.Gets(domain); n != 1 {
			t.Errorf("%d GETs within 290 s", n)
		}
		b.advance(11 * time.Second)
		b.web.Fault(domain, "")
		b.want(domain, policy.LevelSTS, enforced)
		if n := b.web.Gets(domain); n != 2 {
			t.Errorf("%d GETs after 301 s", n)
		}
	})
	t.Run("STS-042 a new id at once", func(t *testing.T) {
		b := newSTSBed(t)
		b.dns.SetZone(domainZone+strings.ReplaceAll(stsZone(domain, "1"), " 300 ", " 5 "), "signed.test.")
		b.web.Fault(domain, "404")
		b.decide(domain)
		b.web.Fault(domain, "")
		b.dns.SetZone(domainZone+stsZone(domain, "2"), "signed.test.")
		b.advance(10 * time.Second)
		b.want(domain, policy.LevelSTS, enforced)
	})
	t.Run("STS-037 no HTTP caching", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.dns.SetZone(domainZone+stsZone(domain, "2"), "signed.test.")
		b.advance(301 * time.Second)
		b.decide(domain)
		if n := b.web.Gets(domain); n != 2 {
			t.Errorf("%d GETs", n)
		}
	})
	t.Run("SEED-007 no trust on first use", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Fault(domain, "selfsigned")
		b.want(domain, policy.LevelNone, noPolicy)
	})
	t.Run("STS-058 max_age 0 serves the message at hand", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Set(domain, policyText("enforce", "0", "mx.example.test"))
		b.want(domain, policy.LevelSTS, enforced)
		b.want(domain, policy.LevelSTS, enforced)
		if n := b.web.Gets(domain); n != 2 {
			t.Errorf("%d GETs", n)
		}
	})
}

func TestPolicyLifecycle(t *testing.T) {
	t.Run("STS-070 valid until max_age after the fetch", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Set(domain, policyText("enforce", "86400", "mx.example.test"))
		b.decide(domain)
		b.web.Down()
		b.advance(86390 * time.Second)
		b.want(domain, policy.LevelSTS, enforced)
		b.advance(20 * time.Second)
		b.want(domain, policy.LevelNone, noPolicy)
	})
	t.Run("STS-071 applied through every outage", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.web.Down()
		b.dns.Down()
		b.advance(6 * 24 * time.Hour)
		b.want(domain, policy.LevelSTS, "DANE broken, last proven none, STS enforce")
	})
	t.Run("STS-072 expired and not refreshed is no policy", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.web.Down()
		b.advance(8 * 24 * time.Hour)
		b.want(domain, policy.LevelNone, noPolicy)
	})
	t.Run("STS-073 the same id needs no GET, another one does at once", func(t *testing.T) {
		b := newSTSBed(t)
		for range 10 {
			b.want(domain, policy.LevelSTS, enforced)
			b.advance(301 * time.Second)
		}
		if n := b.web.Gets(domain); n != 1 {
			t.Errorf("%d GETs", n)
		}
		b.dns.SetZone(domainZone+stsZone(domain, "2"), "signed.test.")
		b.web.Set(domain, relaxed)
		b.want(domain, policy.LevelNone, "DANE none, STS none")
	})
	t.Run("STS-074 the same id prolongs nothing", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Set(domain, policyText("enforce", "86400", "mx.example.test"))
		b.decide(domain)
		b.web.Down()
		for range 23 {
			b.advance(time.Hour)
			b.want(domain, policy.LevelSTS, enforced)
		}
		b.advance(time.Hour + time.Second)
		b.want(domain, policy.LevelNone, noPolicy)
	})
	t.Run("STS-077 a weaker policy replaces", func(t *testing.T) {
		for _, mode := range []string{"none", "testing"} {
			b := newSTSBed(t)
			b.decide(domain)
			b.dns.SetZone(domainZone+stsZone(domain, "2"), "signed.test.")
			b.web.Set(domain, policyText(mode, "604800", "mx.example.test"))
			b.advance(301 * time.Second)
			b.want(domain, policy.LevelNone, "DANE none, STS "+mode)
		}
	})
	t.Run("STS-078 an invalid policy replaces nothing", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.dns.SetZone(domainZone+stsZone(domain, "2"), "signed.test.")
		b.web.Set(domain, "version: STSv1\nmode: report\n")
		b.advance(301 * time.Second)
		b.want(domain, policy.LevelSTS, enforced)
	})
	t.Run("STS-062 one bad mx line voids the new policy only", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.dns.SetZone(domainZone+stsZone(domain, "2"), "signed.test.")
		b.web.Set(domain, enforcing+"mx: **.x\n")
		b.advance(301 * time.Second)
		b.want(domain, policy.LevelSTS, enforced)
	})
	t.Run("STS-081 mode none is remembered", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Set(domain, relaxed)
		b.want(domain, policy.LevelNone, "DANE none, STS none")
		b.advance(301 * time.Second)
		b.want(domain, policy.LevelNone, "DANE none, STS none")
		if n := b.web.Gets(domain); n != 1 {
			t.Errorf("%d GETs", n)
		}
	})
	t.Run("STS-082 survives a restart while all is down", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.dns.Down()
		b.web.Down()
		b.restart()
		b.want(domain, policy.LevelSTS, enforced) // within the TTLs
		b.advance(time.Hour)
		b.want(domain, policy.LevelSTS, "DANE broken, last proven none, STS enforce")
		b.advance(7 * 24 * time.Hour)
		if d := b.decide(domain); d.Level != policy.LevelTemp {
			t.Errorf("after expiry with DNS down: %s by %q", d.Level, d.Rule)
		}
	})
	t.Run("STS-083 what is remembered", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		var list []policy.Summary
		if err := b.List(func(s policy.Summary) bool { list = append(list, s); return true }); err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 || list[0].Key != domain || list[0].STSMode != "enforce" || list[0].STSID != "1" || list[0].LastError != "" ||
			list[0].STSExpires.Sub(list[0].STSFetched) != 604800*time.Second {
			t.Errorf("%+v", list)
		}
	})
	t.Run("STS-084 an operator can drop a policy", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.web.Down()
		if n, err := b.Purge(domain); n != 1 || err != nil {
			t.Errorf("purged %d, %v", n, err)
		}
		b.want(domain, policy.LevelNone, noPolicy)
	})
	t.Run("testing requires nothing and is kept for reports", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Set(domain, policyText("testing", "604800", "mx.example.test"))
		if d := b.want(domain, policy.LevelNone, "DANE none, STS testing"); d.STS == nil {
			t.Error("the testing policy is not kept for reports")
		}
	})
}

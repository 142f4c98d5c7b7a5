package policy_test

import (
	"context"
	"testing"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/dnssec"
)

func TestResolve(t *testing.T) {
	zone := `
dane.signed.test. MX 10 mx.dane.signed.test.
mx.dane.signed.test. A 192.0.2.1
_25._tcp.mx.dane.signed.test. TLSA ` + tlsa + `
plain.test. MX 10 mx.plain.test.
mx.plain.test. A 192.0.2.2
`
	ctx := context.Background()
	resolve := func(b *bed, domain string, level policy.Level, class dane.Class, host string) {
		t.Helper()
		d, plan := b.Resolve(ctx, policy.Destination{Domain: domain, Port: 25})
		if d.Level != level {
			t.Errorf("%s: level %s, want %s", domain, d.Level, level)
		}
		if plan == nil || plan.Class != class {
			t.Fatalf("%s: plan %+v, want class %s", domain, plan, class)
		}
		if host != "" && (len(plan.Hosts) != 1 || plan.Hosts[0].Name != host || len(plan.Hosts[0].Addrs) != 1) {
			t.Errorf("%s: hosts %+v, want %s with its address", domain, plan.Hosts, host)
		}
	}

	b := newBed(t, zone)
	resolve(b, "dane.signed.test", policy.LevelDANEOnly, dane.ClassFull, "mx.dane.signed.test")
	resolve(b, "plain.test", policy.LevelNone, dane.ClassNone, "mx.plain.test")

	t.Run("an overridden domain has its hosts", func(t *testing.T) {
		b.SetOverrides([]policy.Override{{Domain: "dane.signed.test", Action: policy.Exempt}})
		defer b.SetOverrides(nil)
		resolve(b, "dane.signed.test", policy.LevelMay, dane.ClassFull, "mx.dane.signed.test")
	})
	t.Run("a decision from disk has its hosts", func(t *testing.T) {
		resolve(b, "dane.signed.test", policy.LevelDANEOnly, dane.ClassFull, "mx.dane.signed.test")
		b.restart()
		resolve(b, "dane.signed.test", policy.LevelDANEOnly, dane.ClassFull, "mx.dane.signed.test")
	})
	t.Run("without validation nothing is secure", func(t *testing.T) {
		off := newBed(t, zone, func(e *policy.Engine) { e.DNS.TrustAD = dnssec.TrustNever })
		resolve(off, "dane.signed.test", policy.LevelNone, dane.ClassNone, "mx.dane.signed.test")
	})
	t.Run("a failed lookup is told", func(t *testing.T) {
		b.dns.Fail("broken.signed.test", "MX", "SERVFAIL")
		_, plan := b.Resolve(ctx, policy.Destination{Domain: "broken.signed.test", Port: 25})
		if plan.Class != dane.ClassBroken || plan.Err == nil {
			t.Errorf("plan %+v, want broken", plan)
		}
	})
}

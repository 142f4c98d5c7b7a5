package policy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"postseal/policy"
	"postseal/policy/dnssec"
)

// TestValidationOff: a resolver that is proven not to validate switches DANE
// off, but not for those who were proven to have it.
func TestValidationOff(t *testing.T) {
	zone := fullZone + tlsa + "\n" + strings.ReplaceAll(fullZone, "full.", "other.") + tlsa + "\n" +
		domainZone + stsZone(domain, "1") + `
one.signed.test.   300 IN A 192.0.2.7
two.signed.test.   300 IN A 192.0.2.8
plain.test.        300 IN A 192.0.2.9
bogus.signed.test. 300 IN A 192.0.2.10
`
	const proven, unseen = "full.signed.test", "other.signed.test"
	b := newBed(t, zone, func(e *policy.Engine) {
		e.DNS.SelfTest = dnssec.SelfTest{Signed: []string{"one.signed.test", "two.signed.test"},
			Unsigned: "plain.test", Bogus: "bogus.signed.test", Interval: 5 * time.Millisecond}
	})
	b.web.Set(domain, enforcing)
	b.dns.Fail("bogus.signed.test", "*", "BOGUS")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- b.DNS.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	b.want(proven, policy.LevelDANEOnly, "DANE full")
	b.dns.Fail("bogus.signed.test", "*", "") // from now on it is answered
	b.waitFor(func() bool { return !b.DNS.Validation().On })
	if d := b.want(proven, policy.LevelTemp, "DANE proven, DNSSEC off"); !strings.Contains(d.Reason, "bogus.signed.test") {
		t.Errorf("the reason does not name the proof: %s", d.Reason)
	}
	if d := b.want(unseen, policy.LevelNone, "DNSSEC off, no STS policy"); !d.Unvalidated {
		t.Error("RT-047: the decision does not say that nothing can be known to be secure now")
	}
	b.SetOverrides([]policy.Override{{Domain: unseen, Action: policy.Exempt}})
	if d := b.want(unseen, policy.LevelMay, "override exempt"); !d.Unvalidated {
		t.Error("RT-047: nor does that of an override")
	}
	b.SetOverrides(nil)
	b.want(domain, policy.LevelSTS, "DNSSEC off, STS enforce")
	b.advance(8 * 24 * time.Hour)
	b.want(proven, policy.LevelNone, "DNSSEC off, no STS policy")

	b.dns.Fail("bogus.signed.test", "*", "BOGUS")
	b.waitFor(func() bool { return b.DNS.Validation().On })
	b.advance(time.Minute)
	b.want(proven, policy.LevelDANEOnly, "DANE full")
	if d := b.want(unseen, policy.LevelDANEOnly, "DANE full"); d.Unvalidated {
		t.Error("validation is on again")
	}
}

// TestNeverTrusted: what the operator switched off is off, for all.
func TestNeverTrusted(t *testing.T) {
	b := newBed(t, fullZone+tlsa)
	b.want("full.signed.test", policy.LevelDANEOnly, "DANE full")
	b.restart(func(e *policy.Engine) { e.DNS.TrustAD = dnssec.TrustNever })
	b.advance(301 * time.Second)
	if d := b.want("full.signed.test", policy.LevelNone, "DNSSEC off, no STS policy"); d.Unvalidated {
		t.Error("what is switched off for good will not change")
	}
	if n := b.dns.Count("TLSA", "_25._tcp.mx.full.signed.test"); n != 1 {
		t.Errorf("DANE-001: %d TLSA questions", n)
	}
}

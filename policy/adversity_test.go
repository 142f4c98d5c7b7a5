package policy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"postseal/policy"
	"postseal/policy/dnssec"
)

// What goes wrong at the worst moment must not weaken an answer.

// selfTested lets the resolver be tested by four names, of which the bogus one fails
// as it should until somebody mends it.
func selfTested(e *policy.Engine) {
	e.DNS.SelfTest = dnssec.SelfTest{Signed: []string{"one.signed.test", "two.signed.test"},
		Unsigned: "plain.test", Bogus: "bogus.signed.test", Interval: 5 * time.Millisecond}
}

const selfTestZone = `
one.signed.test.   300 IN A 192.0.2.7
two.signed.test.   300 IN A 192.0.2.8
plain.test.        300 IN A 192.0.2.9
bogus.signed.test. 300 IN A 192.0.2.10
`

// testUntil runs the self-test until its outcome is on or off.
func (b *bed) testUntil(on bool) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- b.DNS.Run(ctx) }()
	b.waitFor(func() bool { return b.DNS.Validation().On == on })
	cancel()
	if err := <-ended; err != nil {
		b.t.Error(err)
	}
}

func TestKnownPolicyOfEveryDestination(t *testing.T) {
	b := newSTSBed(t)
	keys := []string{domain, domain + ":2525", "[" + domain + "]:587"}
	for _, key := range keys {
		b.want(key, policy.LevelSTS, enforced)
	}
	b.dns.SetZone(domainZone+stsZone(domain, "2"), "signed.test.")
	b.advance(301 * time.Second)
	b.web.Delay(time.Hour)
	defer b.web.Delay(0)
	for _, key := range keys {
		b.waitFor(func() bool { return !strings.HasPrefix(b.hurry(key).Rule, "DANE not known") })
		if d := b.hurry(key); d.Level != policy.LevelSTS {
			t.Errorf("STS-024 %s: %s by %q while the new policy is fetched", key, d.Level, d.Rule)
		}
	}
}

func TestClockSetBack(t *testing.T) {
	t.Run("STS-082 what is remembered from the future is asked for again", func(t *testing.T) {
		b := newBed(t, domainZone)
		b.advance(365 * 24 * time.Hour)
		b.want(domain, policy.LevelNone, noPolicy)
		b.stop()
		b.dns.SetZone(domainZone+stsZone(domain, "1"), "signed.test.")
		b.web.Set(domain, enforcing)
		b.advance(-365 * 24 * time.Hour)
		b.start()
		b.want(domain, policy.LevelSTS, enforced)
	})
	t.Run("STS-077 a policy fetched in the future can be replaced", func(t *testing.T) {
		b := newSTSBed(t)
		b.advance(30 * 24 * time.Hour)
		b.want(domain, policy.LevelSTS, enforced)
		b.stop()
		b.advance(-30 * 24 * time.Hour)
		b.start()
		b.web.Set(domain, relaxed)
		if d := b.Refresh(context.Background(), policy.Destination{Domain: domain, Port: 25}); d.Level != policy.LevelNone {
			t.Errorf("%s by %q", d.Level, d.Rule)
		}
	})
}

func TestValidationLostBeforeTheProof(t *testing.T) {
	const proven = "full.signed.test"
	b := newBed(t, fullZone+tlsa+"\n"+selfTestZone, selfTested)
	b.want(proven, policy.LevelDANEOnly, "DANE full")
	b.waitFor(func() bool { return b.Status().Flights == 0 }) // DANE answers before it is remembered
	b.dns.SetZone(fullZone + tlsa + "\n" + selfTestZone)      // no AD any more
	b.advance(301 * time.Second)
	b.want(proven, policy.LevelNone, noPolicy) // nothing tells that the resolver is at fault
	b.testUntil(false)
	b.want(proven, policy.LevelTemp, "DANE proven, DNSSEC off")
	b.dns.SetZone(fullZone+tlsa+"\n"+selfTestZone, "signed.test.")
	b.dns.Fail("bogus.signed.test", "*", "BOGUS")
	b.testUntil(true)
	b.want(proven, policy.LevelDANEOnly, "DANE full")
}

func TestNoDANEFromFailures(t *testing.T) {
	b := newBed(t, selfTestZone+`
none.signed.test. 300 IN MX 10 mx1.none.signed.test.
none.signed.test. 300 IN MX 20 mx2.none.signed.test.
mx1.none.signed.test. 300 IN A 192.0.2.1
mx2.none.signed.test. 300 IN A 192.0.2.2
`, selfTested)
	b.dns.Fail("_25._tcp.mx2.none.signed.test", "TLSA", "SERVFAIL")
	b.want("none.signed.test", policy.LevelDANE, "DANE partial")
	b.testUntil(false) // the bogus name is answered
	b.want("none.signed.test", policy.LevelNone, "DNSSEC off, no STS policy")
}

func TestStopIsNoFinding(t *testing.T) {
	for range 10 {
		b := newSTSBed(t)
		b.dns.Delay(time.Hour)
		b.hurry(domain)
		b.waitFor(func() bool { return b.dns.Count("TXT", "_mta-sts."+domain) > 0 })
		b.stop()
		b.dns.Delay(0)
		b.start()
		b.want(domain, policy.LevelSTS, enforced)
	}
}

func TestChangedPolicyThatCannotBeFetched(t *testing.T) {
	long := strings.ReplaceAll(domainZone, "60 60 60 60", "60 60 60 86400")
	b := newBed(t, long+stsZone(domain, "1"))
	b.web.Set(domain, policyText("enforce", "900", "mx.example.test"))
	b.want(domain, policy.LevelSTS, enforced)
	b.dns.SetZone(strings.ReplaceAll(long+stsZone(domain, "2"), " 300 ", " 86400 "), "signed.test.")
	b.web.Fault(domain, "404")
	for range 2 {
		b.advance(301 * time.Second)
		b.want(domain, policy.LevelSTS, enforced)
	}
	b.advance(400 * time.Second)
	b.want(domain, policy.LevelNone, noPolicy) // STS-072: max_age is over
}

func TestFlightsAreBounded(t *testing.T) {
	b := newBed(t, strings.ReplaceAll(domainZone, " 300 ", " 0 ")+stsZone(domain, "1"))
	b.web.Set(domain, enforcing)
	b.web.Delay(time.Hour)
	defer b.web.Delay(0)
	b.hurry(domain)
	b.waitFor(func() bool { return b.web.Gets(domain) > 0 })
	for range 300 {
		b.hurry(domain)
	}
	if n := b.Status().Flights; n > 30 {
		t.Errorf("%d flights for one domain", n)
	}
}

func TestFailingIsForgotten(t *testing.T) {
	b := newSTSBed(t)
	b.decide(domain)
	b.web.Down()
	for range 4 {
		b.advance(20 * time.Hour)
		b.RunDue()
	}
	if n := b.Status().Failing; n != 1 {
		t.Errorf("%d policies fail", n)
	}
	if _, err := b.Purge(domain); err != nil {
		t.Error(err)
	}
	if n := b.Status().Failing; n != 0 {
		t.Errorf("%d policies fail after the purge", n)
	}
}

func TestPinRemovedWhileLookedUp(t *testing.T) {
	b := newSTSBed(t)
	b.want(domain, policy.LevelSTS, enforced)
	b.advance(301 * time.Second)
	b.SetOverrides([]policy.Override{{Domain: domain, Action: policy.Pin, Policy: parsePolicy(t, policyText("none", "86400"))}})
	b.dns.Delay(time.Hour)
	n := b.dns.Count("MX", domain)
	got := make(chan *policy.Decision)
	go func() { got <- b.decide(domain) }()
	b.waitFor(func() bool { return b.dns.Count("MX", domain) > n })
	b.SetOverrides(nil)
	b.dns.Delay(0)
	if d := <-got; d.Level != policy.LevelSTS {
		t.Errorf("%s by %q", d.Level, d.Rule)
	}
}

func TestPurgeWhileLookedUp(t *testing.T) {
	b := newSTSBed(t)
	b.want(domain, policy.LevelSTS, enforced)
	b.advance(301 * time.Second)
	b.dns.SetZone(domainZone, "signed.test.") // the record is gone
	b.dns.Delay(time.Hour)
	n := b.dns.Count("TXT", "_mta-sts."+domain)
	got := make(chan *policy.Decision)
	go func() { got <- b.decide(domain) }()
	b.waitFor(func() bool { return b.dns.Count("TXT", "_mta-sts."+domain) > n })
	if _, err := b.Purge(domain); err != nil {
		t.Error(err)
	}
	b.dns.Delay(0)
	<-got
	b.want(domain, policy.LevelNone, noPolicy) // STS-084
}

func TestDeferWhileTheRecordCannotBeAsked(t *testing.T) {
	b := newSTSBed(t, func(e *policy.Engine) { e.FirstContact = policy.Defer })
	b.dns.Fail("_mta-sts."+domain, "TXT", "SERVFAIL")
	b.want(domain, policy.LevelTemp, "first contact")
	b.dns.Fail("_mta-sts."+domain, "TXT", "")
	b.advance(31 * time.Second)
	b.want(domain, policy.LevelSTS, enforced)
}

// TestPolicyAtDeadline: a report must not blame the policy of before for what was
// answered when the time was over.
func TestPolicyAtDeadline(t *testing.T) {
	b := newSTSBed(t)
	b.web.Delay(time.Hour)
	defer b.web.Delay(0)
	b.waitFor(func() bool { return b.hurry(domain).Level == policy.LevelNone })
	b.waitFor(func() bool {
		a, ok := b.PolicyAt(domain, b.now())
		return ok && a.Type == policy.TypeNoPolicy
	})
}

package policy_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"postseal/policy"
)

const fullZone = `
full.signed.test.    300 IN MX 10 mx.full.signed.test.
mx.full.signed.test. 300 IN A 192.0.2.1
_25._tcp.mx.full.signed.test. 300 IN TLSA `

func TestWaiting(t *testing.T) {
	t.Run("STS-043 a herd asks once", func(t *testing.T) {
		b := newSTSBed(t)
		var g sync.WaitGroup
		for range 256 {
			g.Go(func() { b.want(domain, policy.LevelSTS, enforced) })
		}
		g.Wait()
		if txt, get := b.dns.Count("TXT", "_mta-sts."+domain), b.web.Gets(domain); txt != 1 || get != 1 {
			t.Errorf("%d TXT questions, %d GETs", txt, get)
		}
	})
	t.Run("DANE full does not wait for a policy host", func(t *testing.T) {
		const d = "full.signed.test"
		b := newBed(t, fullZone+tlsa+"\n"+stsZone(d, "1"))
		b.web.Set(d, policyText("enforce", "604800", "mx."+d))
		b.web.Delay(time.Hour)
		b.want(d, policy.LevelDANEOnly, "DANE full") // 30 s would have passed
		b.web.Delay(0)
	})
	t.Run("STS-118 a slow policy host: no policy in time, the policy later", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Delay(time.Hour)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		asked := make(chan *policy.Decision)
		go func() { asked <- b.Decide(ctx, policy.Destination{Domain: domain, Port: 25}) }()
		b.waitFor(func() bool { return b.web.Gets(domain) > 0 && b.dns.Count("A", "mx."+domain) > 0 })
		b.waitFor(func() bool { // DANE is known once this does not say otherwise
			return b.hurry(domain).Rule == "DANE none, STS not known"
		})
		cancel()
		if d := <-asked; d.Level != policy.LevelNone || d.Rule != "DANE none, STS not known" {
			t.Errorf("got %s by %q", d.Level, d.Rule)
		}
		b.web.Delay(0) // lets the one that waits go on
		b.want(domain, policy.LevelSTS, enforced)
		if n := b.web.Gets(domain); n != 1 {
			t.Errorf("%d GETs", n)
		}
	})
	t.Run("first contact deferred on request", func(t *testing.T) {
		b := newSTSBed(t, func(e *policy.Engine) { e.FirstContact = policy.Defer })
		b.web.Delay(time.Hour)
		b.waitFor(func() bool { return b.hurry(domain).Rule == "first contact" })
		if d := b.hurry(domain); d.Level != policy.LevelTemp {
			t.Errorf("got %s", d.Level)
		}
		b.web.Delay(0)
		b.want(domain, policy.LevelSTS, enforced)
	})
	t.Run("a known policy holds while its id is asked for", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.dns.SetZone(domainZone+stsZone(domain, "2"), "signed.test.")
		b.advance(301 * time.Second)
		b.web.Delay(time.Hour)
		b.waitFor(func() bool { return b.hurry(domain).Rule == enforced })
		b.web.Delay(0)
	})
	t.Run("DANE not known in time is a temporary failure", func(t *testing.T) {
		b := newSTSBed(t)
		b.dns.Delay(time.Hour)
		if d := b.hurry(domain); d.Level != policy.LevelTemp || d.Rule != "DANE not known in time" {
			t.Errorf("got %s by %q", d.Level, d.Rule)
		}
		b.dns.Delay(0)
	})
	t.Run("DANE not known in time, last proven none, STS enforce", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.advance(301 * time.Second)
		b.dns.Down()
		if d := b.hurry(domain); d.Level != policy.LevelSTS || !strings.Contains(d.Rule, "last proven none") {
			t.Errorf("got %s by %q", d.Level, d.Rule)
		}
	})
	t.Run("no deadline passed is remembered", func(t *testing.T) {
		b := newSTSBed(t)
		b.hurry(domain)
		b.want(domain, policy.LevelSTS, enforced)
	})
}

// waitFor polls until ok, as long as the test may take.
func (b *bed) waitFor(ok func() bool) {
	b.t.Helper()
	for range 10000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	b.t.Fatal("waited in vain")
}

func TestQuestions(t *testing.T) {
	t.Run("DANE-033 no TLSA where the address is insecure", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		for _, q := range b.dns.Queries() {
			if strings.HasPrefix(q, "TLSA") {
				t.Errorf("asked %s", q)
			}
		}
	})
	t.Run("DANE-015 TLSA is asked again after its TTL, without a floor", func(t *testing.T) {
		const d, owner = "full.signed.test", "_25._tcp.mx.full.signed.test"
		b := newBed(t, strings.Replace(fullZone, "_25._tcp.mx.full.signed.test. 300", "_25._tcp.mx.full.signed.test. 2", 1)+tlsa)
		b.decide(d)
		b.decide(d)
		if n := b.dns.Count("TLSA", owner); n != 1 {
			t.Errorf("%d questions within the TTL", n)
		}
		b.advance(2 * time.Second)
		b.decide(d)
		if n := b.dns.Count("TLSA", owner); n != 2 {
			t.Errorf("%d questions after the TTL", n)
		}
	})
	t.Run("DANE and STS age separately", func(t *testing.T) {
		b := newBed(t, domainZone+strings.ReplaceAll(stsZone(domain, "1"), " 300 ", " 5 "))
		b.web.Set(domain, enforcing)
		b.decide(domain)
		b.advance(6 * time.Second)
		b.decide(domain)
		if mx, txt := b.dns.Count("MX", domain), b.dns.Count("TXT", "_mta-sts."+domain); mx != 1 || txt != 2 {
			t.Errorf("%d MX and %d TXT questions", mx, txt)
		}
	})
	t.Run("DANE-039 the port of the key", func(t *testing.T) {
		b := newBed(t, fullZone+tlsa)
		b.decide("full.signed.test:2525")
		if n := b.dns.Count("TLSA", "_2525._tcp.mx.full.signed.test"); n != 1 {
			t.Errorf("%d questions", n)
		}
	})
	t.Run("DANE-029 DANE-126 a fixed host", func(t *testing.T) {
		b := newBed(t, fullZone+tlsa)
		b.want("[mx.full.signed.test]", policy.LevelDANEOnly, "DANE full")
		if n := b.dns.Count("MX", "mx.full.signed.test"); n != 0 {
			t.Errorf("%d MX questions", n)
		}
	})
}

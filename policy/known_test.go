package policy_test

import (
	"maps"
	"testing"
	"time"

	"postseal/policy"
)

func TestKnown(t *testing.T) {
	zone := domainZone + stsZone(domain, "1") + `
dane.signed.test. MX 10 mx.dane.signed.test.
mx.dane.signed.test. A 192.0.2.1
_25._tcp.mx.dane.signed.test. TLSA ` + tlsa + `
mixed.signed.test. MX 10 mx.dane.signed.test.
mixed.signed.test. MX 20 mx.mixed.signed.test.
mx.mixed.signed.test. A 192.0.2.2
plain.test. MX 10 mx.plain.test.
mx.plain.test. A 192.0.2.2
`
	b := newBed(t, zone)
	b.web.Set(domain, enforcing)
	for _, key := range []string{domain, "dane.signed.test", "mixed.signed.test", "plain.test", domain + ":587"} {
		b.decide(key)
	}
	b.dns.Fail("broken.signed.test", "MX", "SERVFAIL")
	b.want("broken.signed.test", policy.LevelTemp, "DANE broken")
	b.dns.Fail("_mta-sts.unknown.test", "TXT", "SERVFAIL")
	b.want("unknown.test", policy.LevelNone, "DANE none, STS not known")

	known := func(t *testing.T, want map[string]policy.Level) {
		t.Helper()
		got := map[string]policy.Level{}
		err := b.Known(func(d *policy.Decision) bool {
			got[d.Destination.String()] = d.Level
			if d.Level == policy.LevelSTS && d.STS == nil {
				t.Errorf("%s: no policy", d.Destination)
			}
			return true
		})
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	all := map[string]policy.Level{
		domain: policy.LevelSTS, "dane.signed.test": policy.LevelDANEOnly, "mixed.signed.test": policy.LevelDANE,
		"plain.test": policy.LevelNone, domain + ":587": policy.LevelSTS,
	}
	with := func(more map[string]policy.Level) map[string]policy.Level {
		m := maps.Clone(all)
		maps.Copy(m, more)
		return m
	}
	t.Run("what is remembered", func(t *testing.T) { known(t, all) })
	t.Run("after a restart, when every TTL is over", func(t *testing.T) {
		b.restart()
		b.advance(2 * 24 * time.Hour)
		known(t, all)
	})
	t.Run("while nothing can be looked up", func(t *testing.T) {
		b.dns.Fail("dane.signed.test", "MX", "SERVFAIL")
		b.want("dane.signed.test", policy.LevelTemp, "DANE broken")
		known(t, all)
	})
	t.Run("rules, also for what was never asked for", func(t *testing.T) {
		b.SetOverrides([]policy.Override{
			{Domain: "dane.signed.test", Action: policy.Exempt},
			{Domain: ".example.net", Action: policy.Require, Level: policy.LevelEncrypt},
			{Domain: "pinned.test", Action: policy.Pin, Policy: parsePolicy(t, enforcing)},
			{Domain: "over.test", Action: policy.Exempt, Expires: time.Now()},
			{Domain: "only.test", RequireTLS: "disable"},
		})
		defer b.SetOverrides(nil)
		known(t, with(map[string]policy.Level{"dane.signed.test": policy.LevelMay, ".example.net": policy.LevelEncrypt, "pinned.test": policy.LevelSTS}))
	})
	t.Run("a policy ends", func(t *testing.T) {
		b.advance(7 * 24 * time.Hour)
		known(t, with(map[string]policy.Level{domain: policy.LevelNone, domain + ":587": policy.LevelNone}))
	})
	t.Run("until it is enough", func(t *testing.T) {
		b.SetOverrides([]policy.Override{{Domain: "hand.test", Action: policy.Exempt}})
		defer b.SetOverrides(nil)
		n := 0
		if err := b.Known(func(*policy.Decision) bool { n++; return false }); err != nil || n != 1 {
			t.Errorf("%d calls, %v", n, err)
		}
	})
}

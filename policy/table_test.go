package policy_test

import (
	"context"
	"testing"
	"time"

	"postseal/policy"
	"postseal/policy/dane"
)

// The Internet of the table: DANE as the name says, every domain also with an
// MTA-STS record. Domains below signed.test are signed.
var tableZone = `
signed.test. 300 IN SOA ns.signed.test. h.signed.test. 1 300 300 300 300
plain.test.  300 IN SOA ns.plain.test.  h.plain.test.  1 300 300 300 300

full.signed.test.            300 IN MX 10 mx1.full.signed.test.
full.signed.test.            300 IN MX 20 mx2.full.signed.test.
mx1.full.signed.test.        300 IN A 192.0.2.1
mx2.full.signed.test.        300 IN A 192.0.2.2
_25._tcp.mx1.full.signed.test. 300 IN TLSA ` + tlsa + `
_25._tcp.mx2.full.signed.test. 300 IN TLSA ` + tlsa + `

implicit.signed.test.        300 IN A 192.0.2.3
_25._tcp.implicit.signed.test. 300 IN TLSA ` + tlsa + `

absent.signed.test.          300 IN MX 10 gone.absent.signed.test.
absent.signed.test.          300 IN MX 20 mx.absent.signed.test.
mx.absent.signed.test.       300 IN A 192.0.2.4
_25._tcp.mx.absent.signed.test. 300 IN TLSA ` + tlsa + `

mixed.signed.test.           300 IN MX 10 mx1.mixed.signed.test.
mixed.signed.test.           300 IN MX 20 mx2.mixed.signed.test.
mx1.mixed.signed.test.       300 IN A 192.0.2.5
mx2.mixed.signed.test.       300 IN A 192.0.2.6
_25._tcp.mx1.mixed.signed.test. 300 IN TLSA ` + tlsa + `

foreign.plain.test.          300 IN MX 10 mx.provider.signed.test.
mx.provider.signed.test.     300 IN A 192.0.2.7
_25._tcp.mx.provider.signed.test. 300 IN TLSA ` + tlsa + `

unusable.signed.test.        300 IN MX 10 mx.unusable.signed.test.
mx.unusable.signed.test.     300 IN A 192.0.2.8
_25._tcp.mx.unusable.signed.test. 300 IN TLSA 1 1 1 ` + tlsa[6:] + `

none.signed.test.            300 IN MX 10 mx.none.signed.test.
mx.none.signed.test.         300 IN A 192.0.2.9

none.plain.test.             300 IN MX 10 mx.none.plain.test.
mx.none.plain.test.          300 IN A 192.0.2.10

half.signed.test.            300 IN MX 10 mx1.half.signed.test.
half.signed.test.            300 IN MX 20 mx2.half.signed.test.
mx1.half.signed.test.        300 IN A 192.0.2.11
mx2.half.signed.test.        300 IN A 192.0.2.12
_25._tcp.mx1.half.signed.test. 300 IN TLSA ` + tlsa + `
_25._tcp.mx2.half.signed.test. 300 IN TLSA ` + tlsa + `

nullmx.signed.test.          300 IN MX 0 .
`

// tableDomains maps a case to its domain and the faults that DNS has there.
var tableDomains = []struct {
	name   string
	domain string
	faults [][3]string
	class  dane.Class
}{
	{"full", "full.signed.test", nil, dane.ClassFull},
	{"full, implicit MX", "implicit.signed.test", nil, dane.ClassFull},
	{"full, one host provably absent", "absent.signed.test", nil, dane.ClassFull},
	{"full, one host's TLSA broken", "half.signed.test", [][3]string{{"_25._tcp.mx1.half.signed.test", "TLSA", "SERVFAIL"}}, dane.ClassFull},
	{"full, one host's addresses bogus", "half.signed.test", [][3]string{{"mx2.half.signed.test", "*", "BOGUS"}}, dane.ClassFull},
	{"partial, one host without TLSA", "mixed.signed.test", nil, dane.ClassPartial},
	{"partial, MX insecure", "foreign.plain.test", nil, dane.ClassPartial},
	{"unusable", "unusable.signed.test", nil, dane.ClassUnusable},
	{"none, signed", "none.signed.test", nil, dane.ClassNone},
	{"none, unsigned", "none.plain.test", nil, dane.ClassNone},
	{"none, null MX", "nullmx.signed.test", nil, dane.ClassNone},
	{"broken, MX SERVFAIL", "full.signed.test", [][3]string{{"full.signed.test", "MX", "SERVFAIL"}}, dane.ClassBroken},
	{"broken, MX bogus", "none.signed.test", [][3]string{{"none.signed.test", "MX", "BOGUS"}}, dane.ClassBroken},
	{"broken, MX refused", "none.signed.test", [][3]string{{"none.signed.test", "MX", "REFUSED"}}, dane.ClassBroken},
	{"broken, all TLSA fail", "half.signed.test", [][3]string{{"_25._tcp.mx1.half.signed.test", "TLSA", "SERVFAIL"}, {"_25._tcp.mx2.half.signed.test", "TLSA", "BOGUS"}}, dane.ClassBroken},
	{"broken, all addresses fail", "none.signed.test", [][3]string{{"mx.none.signed.test", "*", "SERVFAIL"}}, dane.ClassBroken},
}

// TestDecisionTable walks the table of decisions: every class of DANE, in its
// variants, against every state of MTA-STS.
func TestDecisionTable(t *testing.T) {
	type row struct {
		level policy.Level
		rule  string
	}
	want := map[dane.Class]map[string]row{
		dane.ClassFull: {
			"enforce": {policy.LevelDANEOnly, "DANE full"},
			"testing": {policy.LevelDANEOnly, "DANE full"},
			"none":    {policy.LevelDANEOnly, "DANE full"},
			"":        {policy.LevelDANEOnly, "DANE full"},
		},
		dane.ClassPartial: {
			"enforce": {policy.LevelSTS, "DANE partial, STS enforce"},
			"testing": {policy.LevelDANE, "DANE partial"},
			"none":    {policy.LevelDANE, "DANE partial"},
			"":        {policy.LevelDANE, "DANE partial"},
		},
		dane.ClassUnusable: {
			"enforce": {policy.LevelSTS, "DANE unusable, STS enforce"},
			"testing": {policy.LevelDANE, "DANE unusable"},
			"none":    {policy.LevelDANE, "DANE unusable"},
			"":        {policy.LevelDANE, "DANE unusable"},
		},
		dane.ClassNone: {
			"enforce": {policy.LevelSTS, "DANE none, STS enforce"},
			"testing": {policy.LevelNone, "DANE none, STS testing"},
			"none":    {policy.LevelNone, "DANE none, STS none"},
			"":        {policy.LevelNone, "DANE none, no STS policy"},
		},
		dane.ClassBroken: { // never seen before, so nothing was ever proven
			"enforce": {policy.LevelTemp, "DANE broken"},
			"testing": {policy.LevelTemp, "DANE broken"},
			"none":    {policy.LevelTemp, "DANE broken"},
			"":        {policy.LevelTemp, "DANE broken"},
		},
	}
	for _, c := range tableDomains {
		for mode, w := range want[c.class] {
			t.Run(c.name+", STS "+mode, func(t *testing.T) {
				t.Parallel()
				zone := tableZone
				if mode != "" {
					zone += stsZone(c.domain, "1")
				}
				b := newBed(t, zone)
				if mode != "" {
					b.web.Set(c.domain, policyText(mode, "604800", "*."+c.domain))
				}
				for _, f := range c.faults {
					b.dns.Fail(f[0], f[1], f[2])
				}
				d := b.want(c.domain, w.level, w.rule)
				if d.DANE != c.class {
					t.Errorf("DANE is %s (%s), want %s", d.DANE, d.Reason, c.class)
				}
				if d.Level == policy.LevelSTS && (d.STS == nil || len(d.STS.MX) == 0) {
					t.Error("no MX patterns at level sts")
				}
				if d.Reason == "" {
					t.Error("no reason")
				}
			})
		}
	}
}

// TestDecisionTableLastProven: DANE that breaks later is judged by what was
// proven last.
func TestDecisionTableLastProven(t *testing.T) {
	cases := []struct {
		name, domain, mode string
		level              policy.Level
		rule               string
	}{
		{"none then broken, enforce", "none.signed.test", "enforce", policy.LevelSTS, "DANE broken, last proven none, STS enforce"},
		{"none unsigned then broken, enforce", "none.plain.test", "enforce", policy.LevelSTS, "DANE broken, last proven none, STS enforce"},
		{"none then broken, testing", "none.signed.test", "testing", policy.LevelTemp, "DANE broken"},
		{"DANE-006 none then broken, no policy", "none.signed.test", "", policy.LevelTemp, "DANE broken"},
		{"STS-131 full then broken, enforce", "full.signed.test", "enforce", policy.LevelTemp, "DANE broken"},
		{"partial then broken, enforce", "mixed.signed.test", "enforce", policy.LevelTemp, "DANE broken"},
		{"unusable then broken, enforce", "unusable.signed.test", "enforce", policy.LevelTemp, "DANE broken"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			zone := tableZone
			if c.mode != "" {
				zone += stsZone(c.domain, "1")
			}
			b := newBed(t, zone)
			if c.mode != "" {
				b.web.Set(c.domain, policyText(c.mode, "604800", "*."+c.domain))
			}
			b.Explain(context.Background(), policy.Destination{Domain: c.domain, Port: 25}, false) // waits for all
			b.dns.Fail(c.domain, "MX", "SERVFAIL")
			b.advance(301 * time.Second)
			b.want(c.domain, c.level, c.rule)

			b.restart() // what was proven outlives us
			b.dns.Fail(c.domain, "MX", "SERVFAIL")
			b.advance(time.Minute)
			b.want(c.domain, c.level, c.rule)

			b.dns.Fail(c.domain, "MX", "")
			b.advance(time.Minute)
			if d := b.decide(c.domain); d.Level == policy.LevelTemp {
				t.Errorf("still %s after DNS healed: %s", d.Level, d.Reason)
			}
		})
	}
}

package policy_test

import (
	"strings"
	"testing"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/mtasts"
)

// listing puts a policy with n patterns of 49 bytes into a decision: 50 with their colon.
func listing(d *policy.Decision, n int) *policy.Decision {
	d.STS = &mtasts.Policy{Mode: mtasts.Enforce}
	for range n {
		d.STS.MX = append(d.STS.MX, strings.Repeat("x", 41)+".example")
	}
	return d
}

func TestFallback(t *testing.T) {
	at := func(domain string, level policy.Level, class dane.Class) *policy.Decision {
		return &policy.Decision{Destination: policy.Destination{Domain: domain, Port: 25}, Level: level, DANE: class}
	}
	all := policy.Fallback{Mixed: true, DANE: true, STS: true, Unusable: true, Domains: []string{"chosen.example", ".below.example"}, Local: []string{"own.example", ".own.example"}}
	for _, c := range []struct {
		name string
		f    *policy.Fallback
		d    *policy.Decision
		want bool
	}{
		{"nothing configured", nil, at("a.example", policy.LevelSTS, dane.ClassPartial), false},
		{"zero value", &policy.Fallback{}, at("a.example", policy.LevelDANEOnly, dane.ClassFull), false},
		{"mixed", &policy.Fallback{Mixed: true}, at("a.example", policy.LevelSTS, dane.ClassPartial), true},
		{"mixed, but no TLSA at all", &policy.Fallback{Mixed: true}, at("a.example", policy.LevelSTS, dane.ClassNone), false},
		{"mixed, but no enforce", &policy.Fallback{Mixed: true}, at("a.example", policy.LevelDANE, dane.ClassPartial), false},
		{"dane", &policy.Fallback{DANE: true}, at("a.example", policy.LevelDANEOnly, dane.ClassFull), true},
		{"dane, opportunistic", &policy.Fallback{DANE: true}, at("a.example", policy.LevelDANE, dane.ClassPartial), true},
		{"dane, but MTA-STS", &policy.Fallback{DANE: true}, at("a.example", policy.LevelSTS, dane.ClassNone), false},
		{"sts", &policy.Fallback{STS: true}, at("a.example", policy.LevelSTS, dane.ClassNone), true},
		{"unusable", &policy.Fallback{Unusable: true}, at("a.example", policy.LevelDANE, dane.ClassUnusable), true},
		{"unusable, and MTA-STS", &policy.Fallback{Unusable: true}, at("a.example", policy.LevelSTS, dane.ClassUnusable), true},
		{"unusable, but usable, and MTA-STS", &policy.Fallback{Unusable: true}, at("a.example", policy.LevelSTS, dane.ClassPartial), false},
		{"unusable, but usable", &policy.Fallback{Unusable: true}, at("a.example", policy.LevelDANE, dane.ClassPartial), false},
		{"Sendmail, TLSA at some hosts", &policy.Fallback{Sendmail: true}, at("a.example", policy.LevelSTS, dane.ClassPartial), true},
		{"Sendmail, TLSA that nobody can use", &policy.Fallback{Sendmail: true}, at("a.example", policy.LevelSTS, dane.ClassUnusable), true},
		{"Sendmail, no TLSA", &policy.Fallback{Sendmail: true}, at("a.example", policy.LevelSTS, dane.ClassNone), false},
		{"Sendmail, no enforce", &policy.Fallback{Sendmail: true}, at("a.example", policy.LevelDANE, dane.ClassUnusable), false},
		{"Sendmail, a long list", &policy.Fallback{Sendmail: true}, listing(at("a.example", policy.LevelSTS, dane.ClassNone), 5), false},
		{"Sendmail, a list that is too long", &policy.Fallback{Sendmail: true}, listing(at("a.example", policy.LevelSTS, dane.ClassNone), 6), true},
		{"a list that is too long for Sendmail", &policy.Fallback{Mixed: true}, listing(at("a.example", policy.LevelSTS, dane.ClassNone), 6), false},
		{"no requirement", &all, at("a.example", policy.LevelNone, dane.ClassNone), false},
		{"cannot be told", &all, at("a.example", policy.LevelTemp, dane.ClassBroken), false},
		{"exempted", &all, at("a.example", policy.LevelMay, dane.ClassFull), false},
		{"chosen", &all, at("chosen.example", policy.LevelNone, dane.ClassNone), true},
		{"chosen alone", &all, at("x.chosen.example", policy.LevelNone, dane.ClassNone), false},
		{"below chosen", &all, at("x.below.example", policy.LevelTemp, dane.ClassBroken), true},
		{"local", &all, at("own.example", policy.LevelSTS, dane.ClassPartial), false},
		{"below local", &all, at("x.own.example", policy.LevelDANEOnly, dane.ClassFull), false},
	} {
		if got := c.f.Takes(c.d); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}

package policy

import (
	"time"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
)

// daneMemory is how long a domain that was proven to have DANE is held to it
// while the resolver cannot be trusted: a week covers an outage over a
// holiday, and bounds the harm of a record that was withdrawn meanwhile.
const daneMemory = 7 * 24 * time.Hour

// finding is all that is known about a destination when it must be decided.
type finding struct {
	domain string

	daneKnown  bool // false: the lookups have not ended
	dane       dane.Class
	daneReason string
	proven     dane.Class // the last class that was not broken …
	provenAt   time.Time  // … and when; zero: never
	usedDANE   time.Time  // last time any secure TLSA was seen; zero: never
	off        string     // why DNSSEC validation is off; "" = it is on

	stsKnown bool           // false: discovery has not ended, or could not tell
	sts      *mtasts.Policy // unexpired policy, whatever stsKnown says
}

// verdict is one row of the table.
type verdict struct {
	level  Level
	rule   string
	reason string
}

// decide is the decision table: DANE before MTA-STS (RFC 8461 §2), and never
// the weaker of two when the stronger may exist.
func decide(f finding, first FirstContact, now time.Time) verdict {
	enforce := f.sts != nil && f.sts.Mode == mtasts.Enforce
	switch {
	case f.off != "" && !f.usedDANE.IsZero() && now.Sub(f.usedDANE) < daneMemory:
		return verdict{LevelTemp, "DANE proven, DNSSEC off", "had DANE on " + f.usedDANE.UTC().Format(time.DateOnly) + ", but DNSSEC validation is off: " + f.off}
	case f.off != "":
		return f.withoutDANE(enforce, first, "DNSSEC off", "DNSSEC validation is off")
	case !f.daneKnown || f.dane == dane.ClassBroken:
		return f.broken(enforce)
	case f.dane == dane.ClassFull:
		return verdict{LevelDANEOnly, "DANE full", f.daneReason}
	case f.dane == dane.ClassPartial && enforce:
		// "dane" alone would let a host without TLSA records be stripped.
		return verdict{LevelSTS, "DANE partial, STS enforce", f.daneReason + "; MTA-STS enforce covers every host"}
	case f.dane == dane.ClassUnusable && enforce:
		return verdict{LevelSTS, "DANE unusable, STS enforce", f.daneReason + "; MTA-STS enforce"}
	case f.dane == dane.ClassPartial, f.dane == dane.ClassUnusable:
		if v, wait := f.firstContact(first); wait {
			return v
		}
		return verdict{LevelDANE, "DANE " + f.dane.String(), f.daneReason}
	}
	return f.withoutDANE(enforce, first, "DANE none", f.daneReason)
}

// broken: not knowing about DANE is a reason to wait (RFC 7672 §2.1.2), unless
// the last that was proven is that the domain has none, and MTA-STS protects it.
func (f *finding) broken(enforce bool) verdict {
	rule, why := "DANE broken", f.daneReason
	if !f.daneKnown {
		rule, why = "DANE not known in time", "the DNS lookups for MX, addresses and TLSA of "+f.domain+" have not ended yet"
	}
	if enforce && !f.provenAt.IsZero() && f.proven == dane.ClassNone {
		return verdict{LevelSTS, rule + ", last proven none, STS enforce", why + "; last proven without DANE; MTA-STS enforce"}
	}
	return verdict{LevelTemp, rule, why}
}

func (f *finding) withoutDANE(enforce bool, first FirstContact, rule, why string) verdict {
	if enforce {
		return verdict{LevelSTS, rule + ", STS enforce", join(why, "MTA-STS enforce")}
	}
	if v, wait := f.firstContact(first); wait {
		return v
	}
	switch {
	case f.sts != nil:
		mode := f.sts.Mode.String()
		return verdict{LevelNone, rule + ", STS " + mode, join(why, "MTA-STS mode "+mode)}
	case !f.stsKnown:
		return verdict{LevelNone, rule + ", STS not known", join(why, "whether there is an MTA-STS policy is not known yet")}
	}
	return verdict{LevelNone, rule + ", no STS policy", join(why, "no MTA-STS policy")}
}

// firstContact: a domain without a known policy of which it cannot be told yet
// whether it has one.
func (f *finding) firstContact(first FirstContact) (verdict, bool) {
	if f.stsKnown || f.sts != nil || first != Defer {
		return verdict{}, false
	}
	return verdict{LevelTemp, "first contact", "whether there is an MTA-STS policy is not known yet (policy.first_contact)"}, true
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// overridden is the verdict of a rule, ok false if the rule leaves the
// decision to what is published.
func (o *Override) overridden() (v verdict, ok bool) {
	if o == nil {
		return verdict{}, false
	}
	why := "override of " + o.Domain
	if o.Reason != "" {
		why += ": " + o.Reason
	}
	switch o.Action {
	case Exempt:
		return verdict{LevelMay, "override exempt", why}, true
	case Require:
		return verdict{o.Level, "override require " + o.Level.String(), why}, true
	}
	return verdict{}, false
}

// clean makes text fit for a log line or a TEMP reply: printable ASCII, at
// most 200 bytes, the length up to which Postfix logs it.
func clean(s string) string {
	const limit = 200
	b := make([]byte, 0, min(len(s), limit))
	for i := 0; i < len(s) && len(b) < limit; i++ {
		c := s[i]
		if c < 0x20 || c > 0x7e {
			c = '?'
		}
		b = append(b, c)
	}
	return string(b)
}

package policy

import (
	"time"

	"postseal/policy/dane"
)

// Known calls f with what each destination requires by what was last proven of it,
// until f returns false: for a mail server that goes on without the daemon. Nothing
// is looked up, and no age is too great but that of MTA-STS policies, which end. Left
// out is of what too little was ever found out. The rules of the operator are all
// among them, those for what is below a domain as ".example.org".
func (e *Engine) Known(f func(*Decision) bool) error {
	now, all := e.now(), true
	ruled := map[string]bool{}
	err := e.memos().All(func(key string, m *memo) bool {
		dest, err := ParseDestination(key)
		if err != nil {
			return true
		}
		o := e.rules.Load().find(dest.Domain, now)
		if o != nil {
			ruled[key] = true
		}
		sts := m.sts
		if !dest.plain() {
			sts = stsState{}
			if domain, ok := e.memory.Get(dest.Domain); ok {
				sts = domain.sts
			}
		}
		if d := e.known(dest, o, &m.dane, &sts, now); d != nil {
			all = f(d)
		}
		return all
	})
	if err != nil || !all {
		return err
	}
	for _, o := range e.rules.Load().list() {
		if ruled[o.Domain] || !o.Expires.IsZero() && !now.Before(o.Expires) {
			continue
		}
		dest := Destination{Domain: o.Domain, Port: 25}
		if d := e.known(dest, o, &daneState{}, &stsState{}, now); d != nil && !f(d) {
			break
		}
	}
	return nil
}

// known decides by what was proven, nil if that is not enough.
func (e *Engine) known(dest Destination, o *Override, proven *daneState, s *stsState, now time.Time) *Decision {
	d := &Decision{Destination: dest, Override: o, DANE: proven.proven, MXSecure: proven.mxSecure, STS: s.live(now), Made: now, Expires: now}
	if o != nil && o.Policy != nil {
		d.STS = o.Policy
	}
	v, ok := o.overridden()
	if !ok {
		in := finding{domain: dest.Domain, daneKnown: true, dane: proven.proven, daneReason: "last proven DANE " + proven.proven.String(),
			stsKnown: true, sts: d.STS}
		v = decide(in, e.FirstContact, now)
	}
	// That a destination requires nothing takes a proof of both.
	neverDANE := proven.known && proven.class == dane.ClassBroken && proven.provenAt.IsZero()
	neverSTS := s.unknown || s.recordUntil.IsZero()
	if v.level == LevelNone && d.STS == nil && (neverDANE || neverSTS) {
		return nil
	}
	d.Level, d.Rule, d.Reason = v.level, v.rule, clean(v.reason)
	return d
}

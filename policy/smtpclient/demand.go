package smtpclient

import (
	"errors"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
	"postseal/policy/requiretls"
)

// Require is the rule of what host h of plan p must prove under decision d. The
// failure says why it must not even be contacted; its stage is [StagePolicy].
//
// Host by host, DANE goes first (RFC 8461 §2): a host with usable TLSA records must
// satisfy them, and MTA-STS neither rescues it nor is needed besides, if the MX answer
// is proven. A host
// whose lookup failed is never taken for one without DANE (RFC 7672 §2.1.2). All
// others are for MTA-STS, if it is enforced. REQUIRETLS adds its own conditions and
// takes nothing away (RFC 8689 §4.2.1), but for bounces, which travel without it
// (§4.2.1 exempts the null return path), and where the operator has relaxed it for the
// domain in the words of Postfix ([policy.Override.RequireTLS]). TLS-Required: No waives what the
// destination publishes (§4.2.2), not what the operator demands.
func Require(d *policy.Decision, p *dane.Plan, h *dane.Host, mode requiretls.Mode, bounce bool) (Demand, *Failure) {
	r := rule{d, p, h, Demand{Plan: p, Host: h, STS: d.STS}}
	if h.State == dane.Absent || len(h.Addrs) == 0 && h.State != dane.Broken {
		return r.no(nil, "4.4.4", "%s: no such host, or no address: %s", h.Name, h.Reason)
	}
	if h.State == dane.Broken && len(h.Addrs) == 0 {
		return r.broken()
	}
	if mode == requiretls.Relaxed {
		return r.relaxed()
	}
	demand, f := r.normal()
	if f != nil || mode != requiretls.Required || bounce {
		return demand, f
	}
	return r.required(demand)
}

type rule struct {
	d      *policy.Decision
	p      *dane.Plan
	h      *dane.Host
	demand Demand
}

func (r *rule) normal() (Demand, *Failure) {
	if r.d.Level == policy.LevelTemp {
		return r.no(nil, "4.7.5", "%s: %s", r.d.Destination.Domain, r.d.Reason)
	}
	if o := r.d.Override; o != nil {
		switch o.Action {
		case policy.Exempt:
			return r.yes(Opportunistic)
		case policy.Require:
			return r.override(o.Level)
		}
	}
	switch r.h.State {
	case dane.Broken:
		return r.broken()
	case dane.Usable:
		return r.usable()
	case dane.Insecure:
		if r.d.Level == policy.LevelDANEOnly {
			// The decision is from before a restart, the plan is not. Whoever
			// validated then does not now.
			return r.dane("DANE was proven for all hosts, but %s: %s", r.h.State, r.h.Reason)
		}
	}
	if r.enforced() {
		return r.sts()
	}
	return r.unauthenticated()
}

// usable is for hosts with TLSA records that can be used: behind an insecure MX answer
// too, as Postfix does by default. But who forges that answer can name a host of his own
// with records of his own, so an enforced policy must list the host then (RFC 8461 §4).
func (r *rule) usable() (Demand, *Failure) {
	if r.enforced() && !r.p.MXSecure && !r.p.Fixed && !r.d.STS.Match(r.h.Name) {
		return r.sts()
	}
	return r.yes(DANE)
}

// unauthenticated is for hosts that can not be authenticated by DANE. TLSA records
// that cannot be used still promise TLS (RFC 7672 §2.2).
func (r *rule) unauthenticated() (Demand, *Failure) {
	if r.h.State == dane.Unusable {
		return r.yes(Encrypt)
	}
	return r.yes(Opportunistic)
}

// override is an operator's rule in place of all that is published.
func (r *rule) override(level policy.Level) (Demand, *Failure) {
	switch level {
	case policy.LevelEncrypt:
		return r.yes(Encrypt)
	case policy.LevelSTS:
		return r.sts()
	case policy.LevelDANEOnly:
		if r.h.State == dane.Broken {
			return r.broken()
		}
		if r.h.State != dane.Usable {
			return r.dane("DANE is mandatory, but %s: %s", r.h.State, r.h.Reason)
		}
		if !r.p.MXSecure && !r.p.Fixed {
			return r.dane("DANE is mandatory, but the MX answer is not authenticated")
		}
		return r.yes(DANE)
	}
	switch r.h.State { // LevelDANE
	case dane.Broken:
		return r.broken()
	case dane.Usable:
		return r.yes(DANE)
	}
	return r.unauthenticated()
}

func (r *rule) dane(format string, args ...any) (Demand, *Failure) {
	demand, f := r.no(nil, "4.7.5", "%s: "+format, append([]any{r.h.Name}, args...)...)
	return demand, f.about("dane-required", r.h.State.String())
}

// enforced reports whether an MTA-STS policy is in force and enforced; one in
// testing mode is judged by, and no more (RFC 8461 §5).
func (r *rule) enforced() bool { return r.d.STS != nil && r.d.STS.Mode == mtasts.Enforce }

// sts is RFC 8461 §4: the policy lists the MX host, by the name in the MX record,
// and the certificate is for that name.
func (r *rule) sts() (Demand, *Failure) {
	if r.d.STS == nil || !r.d.STS.Match(r.h.Name) {
		demand, f := r.no(errNotInPolicy, "4.7.5", "%s: not in the MTA-STS policy of %s", r.h.Name, r.d.Destination.Domain)
		return demand, f.about(Classify(errNotInPolicy))
	}
	return r.yes(PKIX)
}

// relaxed is RFC 8689 §4.2.2: as if neither DANE nor MTA-STS existed, a failed
// lookup of TLSA records included. The operator's own rules stand.
func (r *rule) relaxed() (Demand, *Failure) {
	o := r.d.Override
	switch {
	case o != nil && o.Action == policy.Require:
		return r.override(o.Level)
	case o != nil && o.Action == policy.Pin && r.enforced():
		if r.h.State == dane.Usable { // as without the header: DANE before the pinned policy
			return r.usable()
		}
		return r.sts()
	}
	return r.yes(Opportunistic)
}

// required adds RFC 8689 §4.2.1: the host is authenticated, and TLSA records that
// cannot be used authenticate nothing.
func (r *rule) required(demand Demand) (Demand, *Failure) {
	if o := r.d.Override; o != nil {
		switch o.RequireTLS { // smtp_requiretls_policy, postconf(5)
		case "disable":
			return demand, nil
		case "opportunistic", "opportunistic+starttls":
			if o.RequireTLS != "opportunistic" {
				demand.Security = max(demand.Security, Encrypt)
			}
			demand.AskTLS = r.proven()
			return demand, nil
		}
	}
	if !r.proven() {
		return r.unproven()
	}
	if demand.Security < PKIX {
		demand.Security = PKIX
		if r.h.State == dane.Usable {
			demand.Security = DANE
		}
	}
	demand.RequireTLS = true
	return demand, nil
}

// proven reports whether the MX name is, by DNSSEC or by an enforced MTA-STS policy;
// if there is an MX record at all (RFC 8689 §4.2.1).
func (r *rule) proven() bool {
	return r.p.Fixed || r.p.Implicit || r.p.MXSecure || r.enforced() && r.d.STS.Match(r.h.Name)
}

// unproven is final, unless DNSSEC may come back and prove the name.
func (r *rule) unproven() (Demand, *Failure) {
	code, enhanced, why := 550, "5.7.10", ""
	if r.d.Unvalidated {
		code, enhanced, why = 451, "4.7.10", ", which is not validated now"
	}
	f := failure(StagePolicy, nil, code, enhanced,
		"%s: REQUIRETLS needs an MX answer authenticated by DNSSEC%s, or a host in an enforced MTA-STS policy", r.h.Name, why)
	return Demand{}, f.about("", "requiretls-mx-not-authenticated")
}

// broken is a host of which DNS does not tell what it must.
func (r *rule) broken() (Demand, *Failure) {
	enhanced, result := "4.4.3", ""
	if len(r.h.Addrs) > 0 { // it was the TLSA lookup then
		enhanced, result = "4.7.5", "tlsa-invalid"
	}
	if e, ok := errors.AsType[*dnssec.Error](r.h.Err); ok && e.Kind == dnssec.Bogus {
		result = "dnssec-invalid"
	}
	demand, f := r.no(r.h.Err, enhanced, "%s: %s", r.h.Name, r.h.Reason)
	return demand, f.about(result, r.h.Reason)
}

func (r *rule) yes(s Security) (Demand, *Failure) {
	r.demand.Security = s
	return r.demand, nil
}

func (r *rule) no(err error, enhanced, format string, args ...any) (Demand, *Failure) {
	return Demand{}, failure(StagePolicy, err, 451, enhanced, format, args...)
}

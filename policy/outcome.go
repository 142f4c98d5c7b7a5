package policy

import (
	"errors"
	"time"

	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
)

// Outcome is a failure of what a domain publishes, found before any connection: it
// is to be reported as if a session had failed (RFC 8461 §6, RFC 8460 §4.3.2).
type Outcome struct {
	Time   time.Time
	Domain string
	Type   string         // of the policy: TypeSTS or TypeTLSA
	STS    *mtasts.Policy // that stays in force; nil: none
	Result string         // RFC 8460 §4.3.2
	Reason string         // failure-reason-code: printable, at most 200 bytes
}

// tell hands out an outcome, once for each failed attempt.
func (e *Engine) tell(o Outcome) {
	if e.Report != nil {
		o.Reason = clean(o.Reason)
		e.Report(o)
	}
}

// tellFetch tells of a policy that could not be fetched or is invalid. Of a domain
// whose policy in force is none, nothing is reported (RFC 8461 §6).
func (e *Engine) tellFetch(domain string, live *mtasts.Policy, err error, now time.Time) {
	failure, ok := errors.AsType[*mtasts.FetchError](err)
	if !ok || live != nil && live.Mode == mtasts.None {
		return
	}
	e.tell(Outcome{Time: now, Domain: domain, Type: TypeSTS, STS: live, Result: string(failure.Result), Reason: failure.Err.Error()})
}

// tellDNSSEC tells of records whose signatures do not hold. Other failures of DNS
// may be trouble of the network, which is nobody's fault (RFC 8460 §4.3.4).
func (e *Engine) tellDNSSEC(d *Decision) {
	if d.Plan == nil || d.Plan.Class != dane.ClassBroken {
		return
	}
	if failure, ok := errors.AsType[*dnssec.Error](d.Plan.Err); ok && failure.Kind == dnssec.Bogus {
		e.tell(Outcome{Time: d.Made, Domain: d.Destination.Domain, Type: TypeTLSA, Result: "dnssec-invalid", Reason: d.Plan.Reason})
	}
}

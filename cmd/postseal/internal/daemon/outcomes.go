package daemon

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/delivery"
	"postseal/policy/mtasts"
	"postseal/reporting"
	"postseal/reporting/tlsrpt"
)

// policyAt is what the domain of a session was last answered before it. Of TLSA
// records, those count that stand at the MX host.
func (d *daemon) policyAt(s *reporting.Session) (reporting.Policy, bool) {
	at := s.Time
	if at.Nanosecond() == 0 {
		at = at.Add(time.Second - 1) // most logs tell no more than the second, which a first mail needs less than
	}
	a, ok := d.engine.PolicyAt(s.Domain, at)
	if !ok || a.Type == "" {
		return reporting.Policy{}, false
	}
	p := reporting.Policy{Type: tlsrpt.PolicyType(a.Type), Domain: s.Domain, Strings: a.Strings(), MX: a.MX()}
	if a.Type != policy.TypeTLSA {
		return p, true
	}
	if s.MXHost == "" {
		return reporting.Policy{}, false
	}
	base, records := a.TLSA(s.MXHost)
	if len(records) == 0 {
		// A host without records beside others that have some: no policy was applied.
		return reporting.Policy{Type: tlsrpt.NoPolicy, Domain: s.Domain}, true
	}
	p.Domain, p.Strings = base, records
	return p, true
}

// reasonMX says that a policy does not list an MX host; RFC 8460 has no result type
// for that.
const reasonMX = "mx-not-in-policy"

// judge is for policies in mode testing: a mail server that is told nothing does
// not compare MX names with a policy, nor verify certificates. What has failed
// anyway has failed.
func (d *daemon) judge(s *reporting.Session, from reporting.Source) {
	if s.Policy.Type == tlsrpt.NoPolicy && from == fromDatagrams {
		// All that Postfix was told of. It had no policy, but the domain may have one.
		if p, ok := d.policyAt(s); ok && p.Type == tlsrpt.STS && inTesting(p) {
			s.Policy = p
		}
	}
	if s.Policy.Type != tlsrpt.STS || from == fromDelivery || from == fromPolicy || !inTesting(s.Policy) || s.Failed() {
		return
	}
	if s.MXHost == "" {
		s.Unverified = true // a datagram of a success names none
		return
	}
	published := mtasts.Policy{Mode: mtasts.Testing, MX: s.Policy.MX}
	if !published.Match(s.MXHost) {
		s.Result, s.Reason = tlsrpt.ValidationFailure, reasonMX
		return
	}
	if d.recording.prober == nil {
		s.Unverified = true
		return
	}
	d.recording.prober.Note(s.Domain, s.Policy.MX)
	v, ok := d.recording.prober.Verdict(s.MXHost, s.Time)
	switch {
	case !ok:
		s.Unverified = true
	case v.Result != "":
		s.Result, s.Reason = tlsrpt.ResultType(v.Result), "probe: "+v.Reason
	}
}

// notInPolicy is all that the events of Exim lack: it makes no connection, and so tells
// of none, where no MX host is in the policy.
func notInPolicy(s *reporting.Session) bool {
	return s.Result == tlsrpt.ValidationFailure && s.Reason == reasonMX
}

// inTestingMode reports whether the domain of a session has a policy in mode testing.
func (d *daemon) inTestingMode(s *reporting.Session) bool {
	p, ok := d.policyAt(s)
	return ok && p.Type == tlsrpt.STS && inTesting(p)
}

func inTesting(p reporting.Policy) bool {
	return slices.ContainsFunc(p.Strings, func(line string) bool {
		key, value, _ := strings.Cut(line, ":")
		return strings.TrimSpace(key) == "mode" && strings.TrimSpace(value) == mtasts.Testing.String()
	})
}

// recordPolicy counts a failure that was found before any connection.
func (d *daemon) recordPolicy(o policy.Outcome) {
	s := reporting.Session{Time: o.Time, Domain: o.Domain, Result: tlsrpt.ResultType(o.Result), Reason: o.Reason,
		Policy: reporting.Policy{Type: tlsrpt.PolicyType(o.Type), Domain: o.Domain}}
	if o.STS != nil {
		s.Policy.Strings, s.Policy.MX = slices.Collect(o.STS.Lines()), o.STS.MX
	}
	d.recording.recorder.Record(s, fromPolicy)
}

// recordDelivery counts a session of the delivery fallback, under each policy that
// it was judged by (RFC 8460 §4.4). With TLS-Required: No none was applied, and what
// carries a report of ours is not counted (§3).
func (d *daemon) recordDelivery(o delivery.Outcome) {
	if o.Relaxed || d.recording.own != nil && d.recording.own([]byte(o.MessageID)) {
		return
	}
	for _, j := range o.Judgements {
		d.recording.recorder.Record(reporting.Session{
			Time: o.Time, Domain: o.Domain, SendingIP: o.Local, MXHost: strings.ToLower(o.MX), MXIP: o.Remote,
			Result: tlsrpt.ResultType(j.Result), Reason: j.Reason, Policy: appliedPolicy(&o, j),
		}, fromDelivery)
	}
}

func appliedPolicy(o *delivery.Outcome, j delivery.Judgement) reporting.Policy {
	p := reporting.Policy{Type: tlsrpt.PolicyType(j.Policy), Domain: o.Domain}
	switch {
	case j.Policy == delivery.PolicySTS && o.Decision != nil && o.Decision.STS != nil:
		p.Strings, p.MX = slices.Collect(o.Decision.STS.Lines()), o.Decision.STS.MX
	case j.Policy == delivery.PolicyTLSA && o.Host != nil:
		p.Domain, p.Strings = base(o.Host), tlsaStrings(o.Host)
	}
	return p
}

func base(h *dane.Host) string {
	if h.Base != "" {
		return h.Base
	}
	return h.Name
}

func tlsaStrings(h *dane.Host) []string {
	var list []string
	for _, r := range h.TLSA {
		list = append(list, fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.MatchingType, hex.EncodeToString(r.Data)))
	}
	return list
}

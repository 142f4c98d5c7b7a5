package delivery

import (
	"net/netip"
	"time"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/mtasts"
	"postseal/policy/smtpclient"
)

// Outcome is what one session with an MX host showed, or that there could be none
// since the host does not satisfy the policy. There is none for a host that could
// not be reached, and for address literals and local delivery.
type Outcome struct {
	Time          time.Time
	Domain        string           // the next hop: the recipients' domain, or a smart host
	MX            string           // as in the MX record
	Remote, Local netip.Addr       // invalid if the host was not contacted
	Decision      *policy.Decision // with the policies, and the override if there is one
	Host          *dane.Host       // with the TLSA records
	Relaxed       bool             // TLS-Required: No: no policy was applied, and nothing is to be reported
	MessageID     string           // of the message that the session was opened for, as its header has it; "" if there is none

	// Judgements has one for each policy that the session was judged by, whether
	// it was enforced or not; without any, the one of PolicyNone.
	Judgements []Judgement
}

// Judgement is a session in the light of one policy.
type Judgement struct {
	Policy string // PolicyTLSA, PolicySTS or PolicyNone
	Result string // RFC 8460 §4.3 result type; "": success
	Reason string // failure-reason-code (RFC 8460 §4.4)
}

// Policy types of RFC 8460 §4.2.
const (
	PolicyTLSA = "tlsa"
	PolicySTS  = "sts"
	PolicyNone = "no-policy-found"
)

// report tells of a session that came about, f nil, or failed with f.
func (s *Server) report(w *walk, c *candidate, addr netip.AddrPort, info smtpclient.Info, f *smtpclient.Failure) {
	if s.Report == nil || w.decision == nil || f != nil && !judged(f) {
		return
	}
	o := w.outcome(c.demand.Host)
	o.Remote, o.Local = addr.Addr(), info.Local.Addr()
	o.Judgements = judge(c.demand, info, f)
	w.told.Store(true)
	s.Report(o)
}

// unmet tells of a host that was not contacted, since it does not satisfy the policy.
func (s *Server) unmet(w *walk, h *dane.Host, f *smtpclient.Failure) {
	if s.Report == nil || f.Result == "" {
		return
	}
	kind := PolicyTLSA
	if sts := w.decision.STS; h.State != dane.Broken && sts != nil && !sts.Match(h.Name) {
		kind = PolicySTS
	}
	o := w.outcome(h)
	o.Judgements = []Judgement{{kind, f.Result, f.Reason}}
	w.told.Store(true)
	s.Report(o)
}

// reportBroken tells of hosts whose TLSA records could not be looked up, where that
// leaves none to contact.
func (w *walk) reportBroken(d *policy.Decision, p *dane.Plan) {
	open := *d
	open.Level = policy.LevelNone // so that the host's own failure is named, not that of all
	for i := range p.Hosts {
		h := &p.Hosts[i]
		if h.State != dane.Broken {
			continue
		}
		if _, f := smtpclient.Require(&open, p, h, w.mode, true); f != nil {
			w.s.unmet(w, h, f)
		}
	}
}

func (w *walk) outcome(h *dane.Host) Outcome {
	return Outcome{Time: w.s.now(), Domain: w.dest.Domain, MX: h.Name, Decision: w.decision, Host: h, Relaxed: w.relaxed(), MessageID: w.m.messageID}
}

// judged reports whether a failure tells something about TLS.
func judged(f *smtpclient.Failure) bool {
	return f.Result != "" || f.Stage >= smtpclient.StageSTARTTLS && f.Stage <= smtpclient.StageKeyword
}

// judge is the session in the light of each policy.
func judge(d smtpclient.Demand, info smtpclient.Info, f *smtpclient.Failure) []Judgement {
	clear := info.NoTLS
	if f != nil && (f.Stage == smtpclient.StageSTARTTLS || f.Stage == smtpclient.StageHandshake) {
		clear = f
	}
	unverified := f != nil && clear == nil && f.Stage != smtpclient.StageKeyword

	var list []Judgement
	add := func(policy string, demanded bool, err error) {
		switch {
		case clear != nil:
			list = append(list, Judgement{policy, clear.Result, clear.Reason})
		case unverified && demanded:
			list = append(list, Judgement{policy, f.Result, f.Reason})
		case err != nil:
			result, reason := smtpclient.Classify(err)
			list = append(list, Judgement{policy, result, reason})
		default:
			list = append(list, Judgement{Policy: policy})
		}
	}

	switch d.Host.State {
	case dane.Usable:
		add(PolicyTLSA, d.Security == smtpclient.DANE, info.DANEErr)
	case dane.Unusable: // reported although it is no reason not to deliver (RFC 7672 §2.2)
		list = append(list, Judgement{PolicyTLSA, "tlsa-invalid", "no-usable-tlsa"})
	}
	if d.STS != nil && d.STS.Mode != mtasts.None {
		if d.STS.Match(d.Host.Name) {
			add(PolicySTS, d.Security == smtpclient.PKIX, info.STSErr)
		} else {
			list = append(list, Judgement{PolicySTS, "validation-failure", "mx-not-in-policy"})
		}
	}
	if len(list) == 0 {
		add(PolicyNone, true, nil)
	}
	return list
}

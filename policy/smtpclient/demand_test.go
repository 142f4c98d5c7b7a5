package smtpclient_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// situation is a decision and what DNS says about one host.
type situation struct {
	name     string
	state    dane.State
	sts      string // mode, "!mode" if the policy does not list the host; "" if there is none
	override string // exempt, encrypt, sts, dane, dane-only or pin
	word     string // of the operator for REQUIRETLS
	off      bool   // DNSSEC validation is off for now
	plan     string // secure, insecure, fixed or implicit; "" is secure
	mode     requiretls.Mode
	bounce   bool
	level    policy.Level
	bare     bool   // the host has no address
	err      error  // of the host
	want     string // security, with "requiretls"; or code, enhanced code and result type
}

func (s situation) require(t *testing.T) (smtpclient.Demand, *smtpclient.Failure) {
	t.Helper()
	h := &dane.Host{Name: mx, State: s.state, Reason: "for the test", Err: s.err}
	if !s.bare {
		h.Addrs = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	}
	switch s.state {
	case dane.Usable:
		h.Base, h.Usable = mx, []dnssec.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: make([]byte, 32)}}
	case dane.Unusable:
		h.Base = mx
	}
	p := &dane.Plan{NextHop: domain, MXSecure: s.plan == "" || s.plan == "secure", Fixed: s.plan == "fixed", Implicit: s.plan == "implicit"}
	d := &policy.Decision{Destination: policy.Destination{Domain: domain}, Level: s.level, Reason: "cannot be told now", Plan: p, Unvalidated: s.off}
	if s.sts != "" {
		mode, others := strings.CutPrefix(s.sts, "!")
		pattern := mx
		if others {
			pattern = "mx.other.example"
		}
		d.STS = stsPolicy(t, mode, pattern)
	}
	switch s.override {
	case "":
	case "exempt":
		d.Override = &policy.Override{Action: policy.Exempt}
	case "pin":
		d.Override = &policy.Override{Action: policy.Pin, Policy: d.STS}
	default:
		d.Override = &policy.Override{Action: policy.Require, Level: map[string]policy.Level{
			"encrypt": policy.LevelEncrypt, "sts": policy.LevelSTS, "dane": policy.LevelDANE, "dane-only": policy.LevelDANEOnly,
		}[s.override]}
	}
	if s.word != "" {
		if d.Override == nil {
			d.Override = &policy.Override{}
		}
		d.Override.RequireTLS = s.word
	}
	demand, f := smtpclient.Require(d, p, h, s.mode, s.bounce)
	if f == nil && (demand.Plan != p || demand.Host != h || demand.STS != d.STS) {
		t.Errorf("a session would not be judged by all there is: %+v", demand)
	}
	return demand, f
}

func TestRequire(t *testing.T) {
	const (
		usable, unusable, notlsa, insecure, absent, broken = dane.Usable, dane.Unusable, dane.NoTLSA, dane.Insecure, dane.Absent, dane.Broken
		required, relaxed                                  = requiretls.Required, requiretls.Relaxed
		notInPolicy                                        = "451 4.7.5 validation-failure"
		brokenTLSA                                         = "451 4.7.5 tlsa-invalid"
		unproven                                           = "550 5.7.10"
	)
	bogus := &dnssec.Error{Kind: dnssec.Bogus}
	for _, s := range []situation{
		// Normal.
		{name: "DANE-050 usable TLSA", state: usable, want: "dane"},
		{name: "DANE-051 unusable TLSA", state: unusable, want: "encrypt"},
		{name: "DANE-052 no TLSA", state: notlsa, want: "opportunistic"},
		{name: "DANE-052 insecure address", state: insecure, want: "opportunistic"},
		{name: "DANE-053 failed TLSA lookup", state: broken, want: brokenTLSA},
		{name: "DANE-053 bogus TLSA lookup", state: broken, err: bogus, want: "451 4.7.5 dnssec-invalid"},
		{name: "DANE-053 failed address lookup", state: broken, bare: true, want: "451 4.4.3"},
		{name: "DANE-053 bogus address lookup", state: broken, bare: true, err: bogus, want: "451 4.4.3 dnssec-invalid"},
		{name: "DANE-009 no such host", state: absent, bare: true, want: "451 4.4.4"},
		{name: "DANE-110 usable TLSA and STS", state: usable, sts: "enforce", want: "dane"},
		{name: "DANE-125 usable TLSA behind an insecure MX answer", state: usable, plan: "insecure", want: "dane"},
		{name: "STS-130 STS never rescues failing DANE", state: usable, sts: "enforce", plan: "insecure", want: "dane"},
		{name: "STS-131 no STS in place of a failed lookup", state: broken, sts: "enforce", want: brokenTLSA},
		{name: "STS-132 DANE decides alone", state: usable, sts: "!enforce", want: "dane"},
		{name: "STS-133 no TLSA: by STS", state: notlsa, sts: "enforce", want: "pkix"},
		{name: "STS-133 no TLSA: by STS, not listed", state: notlsa, sts: "!enforce", want: notInPolicy},
		{name: "STS-133 insecure address: by STS", state: insecure, sts: "enforce", want: "pkix"},
		{name: "STS-133 insecure address: by STS, not listed", state: insecure, sts: "!enforce", want: notInPolicy},
		{name: "STS-133 unusable TLSA: by STS", state: unusable, sts: "enforce", want: "pkix"},
		{name: "STS-133 unusable TLSA: by STS, not listed", state: unusable, sts: "!enforce", want: notInPolicy},
		{name: "STS-094 not listed", state: notlsa, sts: "!enforce", plan: "insecure", want: notInPolicy},
		{name: "STS-094 not listed, and the records are those of who forged the MX answer", state: usable, sts: "!enforce", plan: "insecure", want: notInPolicy},
		{name: "STS-094 the same of a domain without MX records", state: usable, sts: "!enforce", plan: "implicit", want: notInPolicy},
		{name: "STS-094 not listed, but the operator has named the host", state: usable, sts: "!enforce", plan: "fixed", want: "dane"},
		{name: "STS-111 not listed, in testing", state: usable, sts: "!testing", plan: "insecure", want: "dane"},
		{name: "STS-111 testing", state: notlsa, sts: "testing", want: "opportunistic"},
		{name: "STS-111 testing, not listed", state: notlsa, sts: "!testing", want: "opportunistic"},
		{name: "STS-112 none", state: notlsa, sts: "none", want: "opportunistic"},
		{name: "what cannot be told waits", state: notlsa, level: policy.LevelTemp, want: "451 4.7.5"},
		{name: "what cannot be told waits, even with TLSA", state: usable, level: policy.LevelTemp, want: "451 4.7.5"},

		{name: "DANE-053 proven before, not validated now", state: insecure, level: policy.LevelDANEOnly, plan: "insecure", want: "451 4.7.5 dane-required"},
		{name: "DANE-053 proven before, withdrawn now", state: notlsa, level: policy.LevelDANEOnly, want: "opportunistic"},
		{name: "DANE-053 proven before, not validated now, relaxed", state: insecure, level: policy.LevelDANEOnly, plan: "insecure", mode: relaxed, want: "opportunistic"},

		// The operator's rules.
		{name: "exempt", state: usable, sts: "!enforce", override: "exempt", want: "opportunistic"},
		{name: "exempt, broken", state: broken, override: "exempt", want: "opportunistic"},
		{name: "SMTP-039 encrypt", state: notlsa, override: "encrypt", want: "encrypt"},
		{name: "SMTP-039 encrypt, usable TLSA", state: usable, override: "encrypt", want: "encrypt"},
		{name: "SMTP-039 encrypt, broken", state: broken, override: "encrypt", want: "encrypt"},
		{name: "sts", state: usable, sts: "enforce", override: "sts", want: "pkix"},
		{name: "sts, not listed", state: notlsa, sts: "!enforce", override: "sts", want: notInPolicy},
		{name: "sts without patterns", state: notlsa, override: "sts", want: notInPolicy},
		{name: "dane, usable", state: usable, sts: "!enforce", override: "dane", want: "dane"},
		{name: "dane, unusable", state: unusable, sts: "!enforce", override: "dane", want: "encrypt"},
		{name: "dane, no TLSA", state: notlsa, sts: "!enforce", override: "dane", want: "opportunistic"},
		{name: "dane, broken", state: broken, override: "dane", want: brokenTLSA},
		{name: "DANE-027 mandatory, usable", state: usable, override: "dane-only", want: "dane"},
		{name: "DANE-027 mandatory, fixed host", state: usable, plan: "fixed", override: "dane-only", want: "dane"},
		{name: "DANE-027 mandatory, insecure MX answer", state: usable, plan: "insecure", override: "dane-only", want: "451 4.7.5 dane-required"},
		{name: "DANE-027 mandatory, no TLSA", state: notlsa, sts: "enforce", override: "dane-only", want: "451 4.7.5 dane-required"},
		{name: "DANE-027 mandatory, unusable TLSA", state: unusable, override: "dane-only", want: "451 4.7.5 dane-required"},
		{name: "DANE-027 mandatory, broken", state: broken, override: "dane-only", want: brokenTLSA},
		{name: "pin goes behind DANE", state: usable, sts: "!enforce", override: "pin", want: "dane"},
		{name: "pin", state: notlsa, sts: "enforce", override: "pin", want: "pkix"},

		// REQUIRETLS.
		{name: "RT-031 MX by DNSSEC", state: notlsa, mode: required, want: "pkix requiretls"},
		{name: "RT-031 MX by STS", state: notlsa, plan: "insecure", sts: "enforce", mode: required, want: "pkix requiretls"},
		{name: "RT-031 MX not proven", state: notlsa, plan: "insecure", mode: required, want: unproven},
		{name: "RT-031 MX not proven, host not listed", state: usable, plan: "insecure", sts: "!enforce", mode: required, want: notInPolicy},
		{name: "RT-031 bogus is for now", state: broken, err: bogus, plan: "insecure", mode: required, want: "451 4.7.5 dnssec-invalid"},
		{name: "RT-032 testing does not count", state: notlsa, plan: "insecure", sts: "testing", mode: required, want: unproven},
		{name: "RT-032 none does not count", state: notlsa, plan: "insecure", sts: "none", mode: required, want: unproven},
		{name: "RT-033 no MX", state: notlsa, plan: "implicit", mode: required, want: "pkix requiretls"},
		{name: "RT-033 fixed host", state: notlsa, plan: "fixed", mode: required, want: "pkix requiretls"},
		{name: "RT-034 DANE", state: usable, mode: required, want: "dane requiretls"},
		{name: "RT-034 else PKIX", state: insecure, mode: required, want: "pkix requiretls"},
		{name: "RT-035 PKIX with STS", state: notlsa, sts: "enforce", mode: required, want: "pkix requiretls"},
		{name: "RT-036 DANE behind an MX that STS proves", state: usable, plan: "insecure", sts: "enforce", mode: required, want: "dane requiretls"},
		{name: "RT-037 unusable TLSA authenticate nothing", state: unusable, mode: required, want: "pkix requiretls"},
		{name: "RT-038 DANE behind an insecure MX answer", state: usable, plan: "insecure", mode: required, want: unproven},
		{name: "DANE-111 REQUIRETLS adds to DANE", state: usable, plan: "insecure", mode: required, want: unproven},
		{name: "RT-047 unreachable is for now", state: broken, bare: true, mode: required, want: "451 4.4.3"},
		{name: "RT-047 no such host is for now", state: absent, bare: true, mode: required, want: "451 4.4.4"},
		{name: "RT-047 what cannot be told is for now", state: notlsa, plan: "insecure", level: policy.LevelTemp, mode: required, want: "451 4.7.5"},
		{name: "RT-090 STS on top", state: notlsa, sts: "!enforce", mode: required, want: notInPolicy},
		{name: "RT-090 DANE on top", state: usable, sts: "enforce", mode: required, want: "dane requiretls"},
		{name: "RT-090 failed lookups on top", state: broken, sts: "enforce", mode: required, want: brokenTLSA},
		{name: "RT-090 the operator's rule on top", state: notlsa, override: "dane-only", mode: required, want: "451 4.7.5 dane-required"},
		{name: "RT-090 the operator's exemption is none from REQUIRETLS", state: usable, override: "exempt", mode: required, want: "dane requiretls"},
		{name: "RT-090 nor is encrypt enough", state: notlsa, override: "encrypt", mode: required, want: "pkix requiretls"},
		{name: "RT-047 without DNSSEC for now, MX not proven", state: notlsa, plan: "insecure", off: true, mode: required, want: "451 4.7.10"},
		{name: "RT-047 without DNSSEC for now, MX by STS", state: notlsa, plan: "insecure", sts: "enforce", off: true, mode: required, want: "pkix requiretls"},
		{name: "RT-101 enforce", state: notlsa, plan: "insecure", word: "enforce", mode: required, want: unproven},
		{name: "RT-101 opportunistic", state: notlsa, word: "opportunistic", mode: required, want: "opportunistic if offered"},
		{name: "RT-101 opportunistic, MX not proven", state: notlsa, plan: "insecure", word: "opportunistic", mode: required, want: "opportunistic"},
		{name: "RT-101 opportunistic waives no DANE", state: usable, word: "opportunistic", mode: required, want: "dane if offered"},
		{name: "RT-101 opportunistic waives no STS", state: notlsa, sts: "!enforce", word: "opportunistic", mode: required, want: notInPolicy},
		{name: "RT-101 opportunistic under an exemption", state: usable, override: "exempt", word: "opportunistic", mode: required, want: "opportunistic if offered"},
		{name: "RT-101 opportunistic+starttls", state: notlsa, word: "opportunistic+starttls", mode: required, want: "encrypt if offered"},
		{name: "RT-101 opportunistic+starttls, STS", state: notlsa, sts: "enforce", word: "opportunistic+starttls", mode: required, want: "pkix if offered"},
		{name: "RT-101 opportunistic+starttls, MX not proven", state: notlsa, plan: "insecure", word: "opportunistic+starttls", mode: required, want: "encrypt"},
		{name: "RT-101 disable", state: notlsa, word: "disable", mode: required, want: "opportunistic"},
		{name: "RT-101 disable waives no DANE", state: usable, word: "disable", mode: required, want: "dane"},
		{name: "RT-101 a word that is none relaxes nothing", state: notlsa, word: "Disable", mode: required, want: "pkix requiretls"},
		{name: "RT-101 is for REQUIRETLS alone", state: notlsa, word: "opportunistic+starttls", want: "opportunistic"},
		{name: "RT-101 is for REQUIRETLS alone, relaxed", state: usable, word: "opportunistic+starttls", mode: relaxed, want: "opportunistic"},
		{name: "RT-073 bounce, and the operator's word", state: notlsa, word: "opportunistic+starttls", mode: required, bounce: true, want: "opportunistic"},
		{name: "RT-073 bounce", state: notlsa, plan: "insecure", mode: required, bounce: true, want: "opportunistic"},
		{name: "RT-073 bounce, under policy", state: usable, mode: required, bounce: true, want: "dane"},

		// TLS-Required: No.
		{name: "RT-060 DANE is ignored", state: usable, mode: relaxed, want: "opportunistic"},
		{name: "RT-060 unusable TLSA are ignored", state: unusable, mode: relaxed, want: "opportunistic"},
		{name: "RT-060 STS is ignored", state: notlsa, sts: "!enforce", mode: relaxed, want: "opportunistic"},
		{name: "RT-060 so is what cannot be told", state: notlsa, level: policy.LevelTemp, mode: relaxed, want: "opportunistic"},
		{name: "RT-060 exempt", state: usable, override: "exempt", mode: relaxed, want: "opportunistic"},
		{name: "DANE-111 failed TLSA lookup", state: broken, mode: relaxed, want: "opportunistic"},
		{name: "RT-062 failed TLSA lookup", state: broken, err: bogus, mode: relaxed, want: "opportunistic"},
		{name: "RT-062 failed address lookup", state: broken, bare: true, mode: relaxed, want: "451 4.4.3"},
		{name: "RT-062 no such host", state: absent, bare: true, mode: relaxed, want: "451 4.4.4"},
		{name: "RT-063 encrypt", state: usable, override: "encrypt", mode: relaxed, want: "encrypt"},
		{name: "RT-063 sts", state: notlsa, sts: "enforce", override: "sts", mode: relaxed, want: "pkix"},
		{name: "RT-063 dane", state: usable, override: "dane", mode: relaxed, want: "dane"},
		{name: "RT-063 dane-only", state: notlsa, override: "dane-only", mode: relaxed, want: "451 4.7.5 dane-required"},
		{name: "RT-063 pinned enforce", state: notlsa, sts: "enforce", override: "pin", mode: relaxed, want: "pkix"},
		{name: "RT-063 pinned enforce, not listed", state: notlsa, sts: "!enforce", override: "pin", mode: relaxed, want: notInPolicy},
		{name: "RT-063 pinned enforce, usable TLSA", state: usable, sts: "enforce", override: "pin", mode: relaxed, want: "dane"},
		{name: "RT-063 pinned enforce, failed lookup", state: broken, sts: "enforce", override: "pin", mode: relaxed, want: "pkix"},
		{name: "RT-063 pinned testing", state: notlsa, sts: "testing", override: "pin", mode: relaxed, want: "opportunistic"},
	} {
		t.Run(s.name, func(t *testing.T) {
			demand, f := s.require(t)
			if got := require(t, demand, f); got != s.want {
				t.Errorf("%s, want %s", got, s.want)
			}
			if s.err != nil && f != nil && !errors.Is(f, s.err) {
				t.Errorf("the failure hides its cause: %v", f.Err)
			}
		})
	}
}

func require(t *testing.T, demand smtpclient.Demand, f *smtpclient.Failure) string {
	t.Helper()
	if f == nil {
		s := demand.Security.String()
		if demand.RequireTLS {
			s += " requiretls"
		}
		if demand.AskTLS {
			s += " if offered"
		}
		return s
	}
	checkReply(t, f.Reply)
	if f.Stage != smtpclient.StagePolicy || !f.Policy() || demand.Security != smtpclient.Opportunistic {
		t.Errorf("stage %v, demand %+v", f.Stage, demand)
	}
	if !strings.HasPrefix(f.Reply.Text, mx+": ") && !strings.HasPrefix(f.Reply.Text, domain+": ") {
		t.Errorf("the reply does not name the host: %q", f.Reply.Text)
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", f.Reply.Code, f.Reply.Enhanced, f.Result))
}

// TestRequireNever walks all situations for what must hold in every one of them.
func TestRequireNever(t *testing.T) {
	states := []dane.State{dane.NoTLSA, dane.Insecure, dane.Usable, dane.Unusable, dane.Absent, dane.Broken}
	walk := func(t *testing.T, check func(s situation, d smtpclient.Demand, f *smtpclient.Failure) bool) {
		t.Helper()
		for _, state := range states {
			for _, sts := range []string{"", "enforce", "!enforce", "testing", "!testing", "none"} {
				for _, override := range []string{"", "exempt", "encrypt", "sts", "dane", "dane-only", "pin"} {
					for _, plan := range []string{"secure", "insecure", "fixed", "implicit"} {
						for _, mode := range []requiretls.Mode{requiretls.Normal, requiretls.Required, requiretls.Relaxed} {
							s := situation{state: state, sts: sts, override: override, plan: plan, mode: mode}
							s.bare = state == dane.Absent
							if override == "pin" && sts == "" {
								continue
							}
							if d, f := s.require(t); !check(s, d, f) {
								t.Errorf("%+v: %+v, %v", s, d, f)
							}
						}
					}
				}
			}
		}
	}
	t.Run("RT-044 REQUIRETLS is never downgraded", func(t *testing.T) {
		walk(t, func(s situation, d smtpclient.Demand, f *smtpclient.Failure) bool {
			return s.mode != requiretls.Required || f != nil || d.RequireTLS && d.Security >= smtpclient.PKIX
		})
	})
	t.Run("RT-065 nothing else asks for the parameter", func(t *testing.T) {
		walk(t, func(s situation, d smtpclient.Demand, f *smtpclient.Failure) bool {
			return s.mode == requiretls.Required && !d.AskTLS || !d.RequireTLS && !d.AskTLS
		})
	})
	t.Run("SMTP-043 clear text only where nothing applies", func(t *testing.T) {
		walk(t, func(s situation, d smtpclient.Demand, f *smtpclient.Failure) bool {
			published := s.state == dane.Usable || s.state == dane.Unusable || s.state == dane.Broken || strings.HasSuffix(s.sts, "enforce")
			waived := s.override == "exempt" || s.override == "dane" && s.state != dane.Usable && s.state != dane.Unusable && s.state != dane.Broken ||
				s.mode == requiretls.Relaxed && (s.override == "" || s.override == "pin" && !strings.HasSuffix(s.sts, "enforce"))
			return f != nil || d.Security != smtpclient.Opportunistic || !published || waived
		})
	})
	t.Run("SMTP-130 policy failures are temporary", func(t *testing.T) {
		walk(t, func(s situation, d smtpclient.Demand, f *smtpclient.Failure) bool {
			return f == nil || f.Temporary() || s.mode == requiretls.Required && f.Reply.Enhanced == "5.7.10"
		})
	})
	t.Run("DANE is demanded of hosts with usable records only", func(t *testing.T) {
		walk(t, func(s situation, d smtpclient.Demand, f *smtpclient.Failure) bool {
			return d.Security != smtpclient.DANE || len(d.Host.Usable) > 0
		})
	})
}

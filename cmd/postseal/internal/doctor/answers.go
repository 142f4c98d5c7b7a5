package doctor

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
)

// checkAnswers has domains decided that are known to have a policy, or TLSA records.
func checkAnswers(ctx context.Context, e *env) []Finding {
	type question struct {
		domain string
		judge  func(*env, string, *control.Explanation) Finding
	}
	var all []question
	for _, d := range e.STSDomains {
		all = append(all, question{d, judgeSTS})
	}
	if e.Config.DNS.TrustAD != "never" {
		for _, d := range e.DANEDomains {
			all = append(all, question{d, judgeDANE})
		}
	}
	found := make([]Finding, len(all))
	var g sync.WaitGroup
	for i, q := range all {
		g.Go(func() {
			x, err := e.Explain(ctx, q.domain)
			if i < len(e.STSDomains) && (err != nil || x.STS == nil) && e.absent(ctx, q.domain) {
				found[i] = hint("there is no "+q.domain+", says the resolver: no domain with an MTA-STS policy was tried", nameSTSDomain)
				return
			}
			if err != nil {
				found[i] = warning("what is required of "+q.domain+" could not be found out: "+reason(err), "postseal explain "+q.domain)
				return
			}
			found[i] = q.judge(e, q.domain, x)
		})
	}
	g.Wait()
	if dane := found[min(len(e.STSDomains), len(found)):]; e.OneDANE && slices.ContainsFunc(dane, func(f Finding) bool { return f.Level == OK }) {
		for i := range dane {
			if dane[i].Level == Warning {
				dane[i].Level = Hint
			}
		}
	}
	return found
}

// who decided, for people.
func who(x *control.Explanation) string {
	if x.Daemon {
		return "the daemon"
	}
	return "this command, alone,"
}

func judgeSTS(_ *env, domain string, x *control.Explanation) Finding {
	do := "postseal explain " + domain
	switch {
	case x.Override != nil:
		return hint(domain+", which has a policy in mode enforce, is decided by an override", "postseal override list")
	case x.STS != nil && x.STS.Mode == "enforce":
		return ok(fmt.Sprintf("%s finds the MTA-STS policy of %s", who(x), domain))
	}
	return warning(fmt.Sprintf("%s finds no MTA-STS policy in mode enforce for %s, which has one: %s", who(x), domain, x.Reason), do)
}

// judgeDANE: a name of the self-test is signed, and has TLSA records if it is one of ours.
func judgeDANE(e *env, domain string, x *control.Explanation) Finding {
	do := "postseal explain " + domain
	which := "which has TLSA records"
	ours := !e.OneDANE || slices.Contains(config.Default().DNS.SelfTestSigned, domain)
	if !ours {
		which = "a name of dns.self_test_signed"
	}
	switch {
	case x.Override != nil:
		return hint(domain+", "+which+", is decided by an override", "postseal override list")
	case x.DANE.Class == "full" || x.DANE.Class == "partial":
		return ok(fmt.Sprintf("%s finds DANE at %s", who(x), domain))
	case !ours:
		return hint(fmt.Sprintf("%s finds no DANE at %s, %s, which needs none: %s", who(x), domain, which, x.Reason), "name a domain that has TLSA records with --dane-domain")
	}
	return warning(fmt.Sprintf("%s finds no DANE at %s, %s: %s", who(x), domain, which, x.Reason), do)
}

package doctor

import (
	"context"
	"fmt"
	"slices"
	"sync"

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

func judgeDANE(_ *env, domain string, x *control.Explanation) Finding {
	do := "postseal explain " + domain
	switch {
	case x.Override != nil:
		return hint(domain+", which has TLSA records, is decided by an override", "postseal override list")
	case x.DANE.Class == "full" || x.DANE.Class == "partial":
		return ok(fmt.Sprintf("%s finds DANE at %s", who(x), domain))
	}
	return warning(fmt.Sprintf("%s finds no DANE at %s, which has TLSA records: %s", who(x), domain, x.Reason), do)
}

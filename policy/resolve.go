package policy

import (
	"context"

	"postseal/policy/dane"
)

// Resolve returns the decision for dest with everything that DNS says about its
// hosts, for who delivers there. It waits for lookups until ctx ends. Neither is
// ever nil; what failed is in the plan's Class, Err and hosts, and then the
// decision may still be a requirement that was known before.
//
// The plan is the one that the decision was made from. A decision that needed
// none (an override, DNSSEC validation off) or was restored from disk gets one that
// is looked up now, hence never older than the decision: where a host has usable
// TLSA records in the plan, they count whatever the decision says.
func (e *Engine) Resolve(ctx context.Context, dest Destination) (*Decision, *dane.Plan) {
	d := e.Decide(ctx, dest)
	if d.Plan != nil {
		return d, d.Plan
	}
	return d, dane.Lookup(ctx, e.DNS, dest.Domain, dest.Port, dest.Fixed)
}

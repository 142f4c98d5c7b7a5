package setup

import (
	"postseal/cmd/postseal/internal/config"
	"postseal/policy/dnssec"
)

// SelfTestNames are those that the resolver is tested with.
func SelfTestNames(daemon *config.Config) dnssec.SelfTest { return testNames(daemon) }

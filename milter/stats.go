package milter

import (
	"sync/atomic"

	"postseal/policy/requiretls"
)

// Stats counts messages since the start. In tagging by recipient, a message of which
// any recipient was tagged counts.
type Stats struct {
	Messages uint64 // whose end was seen
	Required uint64 // of them, tagged to require TLS
	Relaxed  uint64 // of them, tagged to do without
	Errors   uint64 // of them, not judged: see Server.OnError
}

// counters are Stats while they grow.
type counters struct{ messages, required, relaxed, errors atomic.Uint64 }

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	c := &s.counters
	return Stats{Messages: c.messages.Load(), Required: c.required.Load(), Relaxed: c.relaxed.Load(), Errors: c.errors.Load()}
}

func (c *counters) tagged(mode requiretls.Mode) {
	switch mode {
	case requiretls.Required:
		c.required.Add(1)
	case requiretls.Relaxed:
		c.relaxed.Add(1)
	}
}

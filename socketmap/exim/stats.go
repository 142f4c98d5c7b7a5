package exim

import (
	"strings"
	"sync/atomic"

	"postseal/socketmap/internal/door"
)

type counters struct {
	conns          door.Counts
	protocolErrors atomic.Uint64
	events         atomic.Uint64
	modes          [len(modes)]atomic.Uint64
}

func (c *counters) count(answer string) {
	for i, mode := range modes {
		if strings.HasPrefix(answer, mode) {
			c.modes[i].Add(1)
		}
	}
}

// Stats are counts since the start of the process; only Open is a present state.
type Stats struct {
	Open           int64             // connections
	Accepted       uint64            // connections
	Refused        uint64            // connections over the limit, closed at once
	ProtocolErrors uint64            // lines that are no request, or did not come
	Events         uint64            // event lines
	Answers        map[string]uint64 // by mode: "none", "enforce", "fallback", "defer"
}

// Stats returns the counts of all listeners together.
func (s *Server) Stats() Stats {
	c := &s.counters
	st := Stats{
		Open:           c.conns.Open.Load(),
		Accepted:       c.conns.Accepted.Load(),
		Refused:        c.conns.Refused.Load(),
		ProtocolErrors: c.protocolErrors.Load(),
		Events:         c.events.Load(),
		Answers:        map[string]uint64{},
	}
	for i, mode := range modes {
		if n := c.modes[i].Load(); n > 0 {
			st.Answers[strings.TrimPrefix(mode, "v=1 mode=")] = n
		}
	}
	return st
}

package delivery

import (
	"sync/atomic"

	"postseal/policy/smtpclient"
)

// Stats counts what was handed over since the start: recipients, but for Messages.
// One message may come several times, and counts each time.
type Stats struct {
	Messages  uint64
	InFlight  int64  // messages that have no replies yet
	Delivered uint64 // class 2
	Deferred  uint64 // class 4
	Bounced   uint64 // class 5
	Already   uint64 // of Delivered, those that had been in an attempt whose reply was lost
}

// counters are Stats while they grow.
type counters struct {
	messages, delivered, deferred, bounced, already atomic.Uint64

	inFlight atomic.Int64
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	c := &s.state.counters
	return Stats{Messages: c.messages.Load(), InFlight: c.inFlight.Load(), Delivered: c.delivered.Load(),
		Deferred: c.deferred.Load(), Bounced: c.bounced.Load(), Already: c.already.Load()}
}

// begin counts a message, and end the replies to it.
func (c *counters) begin() {
	c.messages.Add(1)
	c.inFlight.Add(1)
}

func (c *counters) end(replies []smtpclient.Reply) {
	c.inFlight.Add(-1)
	for _, r := range replies {
		switch r.Code / 100 {
		case 2:
			c.delivered.Add(1)
		case 5:
			c.bounced.Add(1)
		default:
			c.deferred.Add(1)
		}
	}
}

package socketmap

import (
	"log/slog"
	"sync/atomic"
	"time"

	"postseal/policy"
	"postseal/socketmap/internal/door"
)

type kind uint8

const (
	kindOK kind = iota
	kindNotFound
	kindTemp
	kindCount
)

var kinds = [kindCount]string{"ok", "notfound", "temp"}

type counters struct {
	conns          door.Counts
	protocolErrors atomic.Uint64
	requests       [mapCount][kindCount]atomic.Uint64
	cutWarned      atomic.Int64 // Unix seconds
}

func (c *counters) count(id mapID, reply []byte) {
	k := kindTemp
	switch reply[0] {
	case replyOK[0]:
		k = kindOK
	case replyNotFound[0]:
		k = kindNotFound
	}
	c.requests[id][k].Add(1)
}

// Stats are counts since the start of the process; only Open is a present state.
type Stats struct {
	Open           int64                        // connections
	Accepted       uint64                       // connections
	Refused        uint64                       // connections over the limit, closed at once
	ProtocolErrors uint64                       // connections closed for what came over them, or did not
	Requests       map[string]map[string]uint64 // answers by map ("unknown" for all others) and "ok", "notfound", "temp"
}

// Stats returns the counts of all listeners together. Maps never asked are left out.
func (s *Server) Stats() Stats {
	c := &s.counters
	st := Stats{
		Open:           c.conns.Open.Load(),
		Accepted:       c.conns.Accepted.Load(),
		Refused:        c.conns.Refused.Load(),
		ProtocolErrors: c.protocolErrors.Load(),
		Requests:       map[string]map[string]uint64{},
	}
	for id := range c.requests {
		for k := range c.requests[id] {
			n := c.requests[id][k].Load()
			if n == 0 {
				continue
			}
			name := maps[id].name
			if st.Requests[name] == nil {
				st.Requests[name] = map[string]uint64{}
			}
			st.Requests[name][kinds[k]] = n
		}
	}
	return st
}

// warnCut tells, once a minute at most, that a policy was too long for
// mx_host_pattern: Postfix then checks certificates only, not MX names.
func (s *Server) warnCut(log *slog.Logger, d *policy.Decision) {
	now, last := time.Now().Unix(), s.counters.cutWarned.Load()
	if now-last < 60 || !s.counters.cutWarned.CompareAndSwap(last, now) {
		return
	}
	log.Warn("policy too long for mx_host_pattern: Postfix does not check MX names", "domain", d.Destination.Domain, "patterns", len(d.STS.MX))
}

package policy

import (
	"sync/atomic"
	"time"

	"postseal/policy/dane"
)

// memo is all that is remembered of one destination. A published memo is
// never changed, except for the time of its last use.
type memo struct {
	key      string
	sts      stsState // of plain domains only; other destinations use their domain's
	dane     daneState
	answered []Answered
	used     atomic.Int64 // Unix seconds

	decision *Decision // not stored; nil after a restart
}

// daneState is the last outcome of the lookups for DANE.
type daneState struct {
	known    bool
	class    dane.Class
	mxSecure bool
	reason   string
	at       time.Time // when that was learnt; zero after a restart
	until    time.Time

	proven   dane.Class // last class that was not broken
	provenAt time.Time
	used     time.Time // last time secure TLSA records were seen

	plan *dane.Plan // not stored
}

// with returns a copy for change.
func (m *memo) with() *memo {
	c := &memo{key: m.key, sts: m.sts, dane: m.dane, answered: m.answered, decision: m.decision}
	c.used.Store(m.used.Load())
	return c
}

// usedGranularity keeps the time of last use from being written at each lookup.
const usedGranularity = 60 // seconds

// touch notes a use, cheaply.
func (m *memo) touch(now time.Time) {
	if s := now.Unix(); s-m.used.Load() >= usedGranularity {
		m.used.Store(s)
	}
}

func (m *memo) lastUsed() time.Time { return time.Unix(m.used.Load(), 0) }

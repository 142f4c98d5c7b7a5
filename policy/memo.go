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
	stored   int64        // used as last written to disk

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
	epoch    uint64 // of the resolver's trust that it was learnt under; not stored

	proven   dane.Class // last class that was not broken
	provenAt time.Time
	used     time.Time // last time secure TLSA records were seen

	plan *dane.Plan // not stored
}

// with returns a copy for change.
func (m *memo) with() *memo {
	c := &memo{key: m.key, sts: m.sts, dane: m.dane, answered: m.answered, stored: m.stored, decision: m.decision}
	c.used.Store(m.used.Load())
	return c
}

const (
	// usedGranularity keeps the time of last use from being changed at each lookup,
	usedGranularity = 60 // seconds
	// and usedWritten from being written for nothing else; it is small beside
	// what it decides, refreshWindow and keepUnused.
	usedWritten = 6 * 60 * 60 // seconds
)

// touch notes a use, cheaply.
func (m *memo) touch(now time.Time) {
	if s := now.Unix(); s-m.used.Load() >= usedGranularity {
		m.used.Store(s)
	}
}

func (m *memo) lastUsed() time.Time { return time.Unix(m.used.Load(), 0) }

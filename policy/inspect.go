package policy

import (
	"context"
	"maps"
	"slices"
	"time"

	"postseal/policy/dnssec"
)

// Summary is what is remembered about a destination, for listings.
type Summary struct {
	Key        string // as Destination.String
	Decision   string // the rule that decided last; "" after a restart
	Level      Level
	STSMode    string // "enforce", "testing", "none"; "" without an unexpired policy
	STSID      string
	STSExpires time.Time
	STSFetched time.Time
	STSRefresh time.Time // next fetch in the background
	STSSource  string    // address and certificate of the policy host
	LastError  string    // of the last failed fetch; "" after a good one
	Failures   int       // in a row
	DANE       string    // class; "" if never looked up
	DANEUntil  time.Time
	LastUsed   time.Time
}

func (m *memo) summary(now time.Time) Summary {
	s := Summary{Key: m.key, LastUsed: m.lastUsed()}
	s.setSTS(m, now)
	if d := m.decision; d != nil {
		s.Decision, s.Level = d.Rule, d.Level
	}
	if m.dane.known {
		s.DANE, s.DANEUntil = m.dane.class.String(), m.dane.until
	}
	return s
}

func (s *Summary) setSTS(m *memo, now time.Time) {
	s.LastError, s.Failures = m.sts.failure, m.sts.failures
	if p := m.sts.live(now); p != nil {
		s.STSMode, s.STSID, s.STSSource = p.Mode.String(), m.sts.id, m.sts.source.String()
		s.STSExpires, s.STSFetched, s.STSRefresh = m.sts.expires(), m.sts.fetched, m.sts.refresh
	}
}

// List calls f for every remembered destination until it returns false.
func (e *Engine) List(f func(Summary) bool) error {
	now := e.now()
	return e.memos().All(func(_ string, m *memo) bool { return f(m.summary(now)) })
}

// Refresh looks everything about dest up again, the policy body included, and
// waits for it until ctx ends.
func (e *Engine) Refresh(ctx context.Context, dest Destination) *Decision {
	return e.Explain(ctx, dest, true).Decision
}

// Purge forgets a domain with all its ports and hosts, or everything with "".
// It returns how many destinations went. What lookups under way find is not
// remembered.
func (e *Engine) Purge(domain string) (int, error) {
	e.memos()
	e.forgetFlights()
	defer e.forgetFlights() // those that began while we looked
	var keys []string
	err := e.memory.All(func(key string, _ *memo) bool {
		if d, err := ParseDestination(key); domain == "" || err == nil && d.Domain == domain {
			keys = append(keys, key)
		}
		return true
	})
	for _, key := range keys {
		e.drop(key, func(*memo) bool { return true })
	}
	return len(keys), err
}

// forgetFlights keeps what is being looked up from being remembered.
func (e *Engine) forgetFlights() {
	e.writing.Lock()
	defer e.writing.Unlock()
	e.purges.Add(1)
}

// drop forgets a destination if what is remembered of it at last is disposable.
func (e *Engine) drop(key string, disposable func(*memo) bool) {
	m, ok := e.memory.Get(key)
	e.writing.Lock()
	if newer, found := e.memory.Recent(key); found {
		m = newer
	}
	if ok && disposable(m) {
		e.memory.Delete(key)
	}
	e.writing.Unlock()
	e.trails.Remove(key)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.failing, key)
}

// Status is the state of the engine for people and monitors.
type Status struct {
	Validation     dnssec.Validation
	Entries        int               // destinations in memory
	Flights        int               // destinations being looked up
	Decisions      map[string]uint64 // made since the start, by level; answers from memory not counted
	RefreshFailing []string          // domains whose policy cannot be refreshed, at most 20
	Failing        int               // how many there are
}

// Status returns a snapshot.
func (e *Engine) Status() Status {
	s := Status{Entries: e.memos().Len(), Validation: e.DNS.Validation(), Decisions: map[string]uint64{}}
	for l := range e.counts {
		s.Decisions[Level(l).String()] = e.counts[l].Load()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Flights, s.Failing = e.flying, len(e.failing)
	s.RefreshFailing = slices.Sorted(maps.Keys(e.failing))
	s.RefreshFailing = s.RefreshFailing[:min(len(s.RefreshFailing), 20)]
	return s
}

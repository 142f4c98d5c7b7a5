package policy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
)

const (
	// dnsRetry is when a lookup that failed is made again; a failure is no
	// answer and is not kept longer (RFC 7672 §2.1.2, RFC 8461 §3.3).
	dnsRetry = 30 * time.Second
	// fetchRetry is the first pause after a failed GET for the same id (RFC
	// 8461 §3.3: at least five minutes); it doubles up to fetchRetryMax.
	fetchRetry    = 5 * time.Minute
	fetchRetryMax = 4 * time.Hour
	// refreshEvery is how often the body is fetched whatever the id says (RFC
	// 8461 §3.3, §10.2: once a day).
	refreshEvery = 24 * time.Hour
	// refreshLeast: policies that live shorter than twice this are fetched
	// when they are asked for, not ahead.
	refreshLeast = 5 * time.Minute
)

// stsState is what is remembered of a domain's MTA-STS. It is never changed
// once published; zero means never looked.
type stsState struct {
	record      string // id of the TXT record as last seen, "" if there is no valid one
	recordUntil time.Time
	unknown     bool // whether the domain has a policy could not be found out

	policy  *mtasts.Policy // last good one, expired or not; nil if none
	id      string         // the id it was fetched under
	source  source
	fetched time.Time
	refresh time.Time // next fetch whatever the id says

	failedID string // the id whose fetch failed last
	failed   time.Time
	failures int // in a row
	failure  string
}

func (s *stsState) expires() time.Time {
	if s.policy == nil {
		return time.Time{}
	}
	return s.fetched.Add(s.policy.MaxAge) // counted from the fetch, RFC 8461 §3.2
}

// live is the unexpired policy, nil if none.
func (s *stsState) live(now time.Time) *mtasts.Policy {
	if s.policy == nil || !now.Before(s.expires()) {
		return nil
	}
	return s.policy
}

// wantsFetch: a record announces a policy that is not the one at hand.
func (s *stsState) wantsFetch(now time.Time) bool {
	return s.record != "" && (s.id != s.record || s.live(now) == nil)
}

// retryAt is the earliest time of the next fetch for the current record.
func (s *stsState) retryAt() time.Time {
	if s.failures == 0 || s.failedID != s.record {
		return time.Time{} // a new id may be tried at once, RFC 8461 §3.3
	}
	return s.failed.Add(backoff(s.failures))
}

func backoff(failures int) time.Duration {
	return min(fetchRetry<<min(failures-1, 10), fetchRetryMax)
}

// due reports whether anything must be asked before the state may be used at now.
func (s *stsState) due(now time.Time) bool {
	return passed(s.recordUntil, now) || s.wantsFetch(now) && passed(s.retryAt(), now)
}

// maxAhead is the longest that anything is remembered for without being asked
// again: the limit of a TTL, and a minute for rounding.
const maxAhead = 24*time.Hour + time.Minute

// passed reports whether the time to ask again has come, also if the clock was
// set back since t was noted.
func passed(t, now time.Time) bool { return !now.Before(t) || t.Sub(now) > maxAhead }

// until is when due turns true or the live policy ends.
func (s *stsState) until(now time.Time) time.Time {
	t := s.recordUntil
	if s.wantsFetch(now) {
		t = earlier(t, s.retryAt())
	}
	if s.live(now) != nil {
		t = earlier(t, s.expires())
	}
	return t
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// adopt takes over the policy of another state.
func (s *stsState) adopt(other *stsState) {
	s.policy, s.id, s.source, s.fetched, s.refresh = other.policy, other.id, other.source, other.fetched, other.refresh
	s.failedID, s.failed, s.failures, s.failure = other.failedID, other.failed, other.failures, other.failure
}

// effort says how hard a discovery tries.
type effort uint8

const (
	asDue   effort = iota // what has run out
	recheck               // the TXT record too, even if its TTL has not ended
	refetch               // the body too, whatever the id says and whether or not there is a record
)

// discover brings a state up to date (RFC 8461 §3.3). It never loses an
// unexpired policy, whatever fails; only another valid one replaces it, be it
// weaker (§5.1). note gets a line for each thing concluded.
func (e *Engine) discover(ctx context.Context, domain string, old stsState, how effort, note func(string, ...any)) stsState {
	s := old
	if how != asDue || passed(s.recordUntil, e.now()) {
		e.lookupRecord(ctx, domain, &s, note)
	}
	now := e.now()
	switch {
	case how == refetch && (s.record != "" || s.policy != nil):
	case !s.wantsFetch(now):
		return s
	case how == asDue && !passed(s.retryAt(), now):
		note("policy %s could not be fetched at %s (%s); next try at %s", s.record, stamp(s.failed), s.failure, stamp(s.retryAt()))
		return s
	}
	e.fetch(ctx, domain, &s, note)
	return s
}

func (e *Engine) lookupRecord(ctx context.Context, domain string, s *stsState, note func(string, ...any)) {
	rec, ttl, err := mtasts.LookupRecord(ctx, e.DNS, domain)
	now := e.now()
	var dnsErr *dnssec.Error
	switch {
	case err == nil:
		s.record, s.unknown, s.recordUntil = rec.ID, false, now.Add(ttl)
		note("record id %s, checked again after %s", rec.ID, ttl)
		for _, w := range rec.Warnings {
			note("record: %s", w)
		}
	case errors.As(err, &dnsErr):
		// Whether there is a record is unknown; the last id stays.
		s.unknown, s.recordUntil = true, now.Add(dnsRetry)
		note("%v; asked again after %s", err, dnsRetry)
	default:
		s.record, s.unknown, s.recordUntil = "", false, now.Add(ttl)
		note("%v; asked again after %s", err, ttl)
	}
}

func (e *Engine) fetch(ctx context.Context, domain string, s *stsState, note func(string, ...any)) {
	if err := e.slots.acquire(ctx); err != nil {
		s.unknown, s.recordUntil = true, e.now().Add(dnsRetry)
		note("policy of %s not fetched: too many fetches are under way", domain)
		return
	}
	got, err := e.Fetch.Fetch(ctx, domain)
	e.slots.release()
	now := e.now()
	if err != nil {
		s.failures++
		s.failedID, s.failed, s.failure = s.record, now, clean(err.Error())
		s.refresh = now.Add(jitter(backoff(s.failures)))
		note("%v", err)
		if ctx.Err() == nil { // what a stop cut short is no finding
			e.tellFetch(domain, s.live(now), err, now)
		}
		if p := s.live(now); p != nil {
			note("the policy fetched at %s stays in force until %s", stamp(s.fetched), stamp(s.expires()))
		}
		return
	}
	if s.policy == nil || s.policy.Text != got.Policy.Text {
		s.policy = got.Policy
	}
	if s.record != "" || s.id == "" {
		s.id = s.record
	}
	s.source, s.fetched, s.refresh = sourceOf(got), now, now.Add(refreshAfter(got.Policy.MaxAge))
	s.failures, s.failedID, s.failed, s.failure = 0, "", time.Time{}, ""
	note("policy mode %s, mx %v, max_age %s", got.Policy.Mode, got.Policy.MX, got.Policy.MaxAge)
	note("fetched in %s from %s", got.Took.Round(time.Millisecond), s.source)
	for _, w := range got.Warnings {
		note("policy: %s", w)
	}
}

// source is where a policy came from.
type source struct {
	addr     string
	issuer   string // of the policy host's certificate
	notAfter time.Time
}

// maxIssuer bounds the name of an authority that is remembered with a policy.
const maxIssuer = 64

func sourceOf(f *mtasts.Fetched) source {
	issuer := clean(f.Issuer)
	return source{f.Addr.String(), issuer[:min(len(issuer), maxIssuer)], f.NotAfter}
}

func (s source) String() string {
	if s.addr == "" {
		return ""
	}
	return fmt.Sprintf("%s, certificate by %q until %s", s.addr, s.issuer, stamp(s.notAfter))
}

// refreshAfter spreads refreshes: a day, or half a short life, less up to a quarter.
func refreshAfter(maxAge time.Duration) time.Duration {
	d := min(refreshEvery, maxAge/2)
	return d - rand.N(d/4+1)
}

// jitter adds up to a quarter.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/4+1) }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

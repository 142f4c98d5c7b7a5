package policy

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"postseal/policy/mtasts"
)

const (
	// scanEvery is how often all that is remembered is looked through for
	// what must be fetched within the next such time, and what may go.
	scanEvery = time.Hour
	// refreshRate bounds background fetches a second; a hundred thousand
	// domains once a day are little more than one.
	refreshRate = 10
	// refreshSlots bounds the background fetches at the same time; the rest of
	// maxFetches is for those that a mail server waits for.
	refreshSlots = 16
	// keepUnused is how long a destination without a live policy is kept
	// after its last use: as long as proven DANE is held to (daneMemory).
	keepUnused = daneMemory
	// refreshWindow: policies of domains that nobody has asked for within it
	// are left to expire.
	refreshWindow = 30 * 24 * time.Hour
	// alertAfter is how many refreshes in a row must fail before a warning;
	// the second is about five minutes after the first.
	alertAfter = 2
	// maxFailing bounds the list for the status page.
	maxFailing = 1000
)

// agenda is what must be refreshed before the next scan, by time.
type agenda struct {
	mu    sync.Mutex
	items agendaHeap
	noted map[string]time.Time // the earliest of each key in items
	until time.Time            // end of the current scan's horizon
	wake  chan struct{}
}

type agendaItem struct {
	at  time.Time
	key string
}

type agendaHeap []agendaItem

func (h agendaHeap) Len() int           { return len(h) }
func (h agendaHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h agendaHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *agendaHeap) Push(x any)        { *h = append(*h, x.(agendaItem)) }
func (h *agendaHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// add notes a refresh if it is due before the next scan, which finds the others.
// Of several times of one key the earliest counts; when that was too early, the
// key is added again.
func (a *agenda) add(key string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, noted := a.noted[key]
	if noted && !at.Before(before) || at.IsZero() || !at.Before(a.until) {
		return
	}
	a.noted[key] = at
	heap.Push(&a.items, agendaItem{at, key})
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// next removes and returns the first item if it is due, else tells how long
// nothing will be.
func (a *agenda) next(now time.Time) (key string, wait time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.items) > 0 {
		first := a.items[0]
		if now.Before(first.at) {
			return "", min(first.at.Sub(now), a.until.Sub(now)), false
		}
		heap.Pop(&a.items)
		if at, noted := a.noted[first.key]; noted && at.Equal(first.at) { // else there was an earlier one
			delete(a.noted, first.key)
			return first.key, 0, true
		}
	}
	return "", a.until.Sub(now), false
}

func (a *agenda) reset(until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.items, a.noted, a.until = nil, map[string]time.Time{}, until
}

// refreshAll keeps policies alive until ctx ends.
func (e *Engine) refreshAll(ctx context.Context) {
	limit := rate.NewLimiter(refreshRate, 1)
	free := make(slots, refreshSlots)
	var running sync.WaitGroup
	defer running.Wait()
	for ctx.Err() == nil {
		e.scan(ctx)
		for ctx.Err() == nil {
			key, wait, ok := e.agenda.next(e.now())
			if ok && !e.refreshDue(key) {
				continue
			}
			if ok {
				if limit.Wait(ctx) == nil && free.acquire(ctx) == nil {
					running.Go(func() {
						defer free.release()
						e.refresh(key)
					})
				}
				continue
			}
			if wait <= 0 {
				break // time for the next scan
			}
			select {
			case <-ctx.Done():
			case <-e.agenda.wake:
			case <-time.After(wait):
			}
		}
	}
}

// scan drops what nobody uses and notes what is due within the next scanEvery.
func (e *Engine) scan(ctx context.Context) {
	now := e.now()
	e.agenda.reset(now.Add(scanEvery))
	err := e.memos().All(func(key string, m *memo) bool {
		switch {
		case m.disposable(now):
			e.drop(key, func(m *memo) bool { return m.disposable(now) })
		case m.wantsRefresh(now):
			e.agenda.add(key, m.refreshAt(now))
		}
		return ctx.Err() == nil
	})
	if err != nil {
		e.Log.Error("cannot look through the remembered policies", "err", err)
	}
}

func (m *memo) disposable(now time.Time) bool {
	return m.sts.live(now) == nil && now.Sub(m.lastUsed()) > keepUnused
}

// wantsRefresh: a live policy of some length that somebody uses.
func (m *memo) wantsRefresh(now time.Time) bool {
	p := m.sts.live(now)
	return p != nil && p.MaxAge >= 2*refreshLeast && now.Sub(m.lastUsed()) < min(p.MaxAge, refreshWindow)
}

// refreshAt is when the policy is to be fetched; at once if the clock was set
// back so that it seems far away.
func (m *memo) refreshAt(now time.Time) time.Time {
	if passed(m.sts.refresh, now) {
		return earlier(now, m.sts.refresh)
	}
	return m.sts.refresh
}

// refreshDue reports whether a policy is to be fetched now; if it is only too
// early, the agenda has it again.
func (e *Engine) refreshDue(key string) bool {
	now := e.now()
	m, ok := e.memos().Get(key)
	if !ok || !m.wantsRefresh(now) {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.failing, key)
		return false
	}
	if at := m.refreshAt(now); now.Before(at) {
		e.agenda.add(key, at)
		return false
	}
	return true
}

// refresh fetches the policy of a domain whatever its id says (RFC 8461 §3.3).
func (e *Engine) refresh(key string) {
	ctx, cancel := context.WithTimeout(e.base, flightLimit)
	defer cancel()
	s := e.stsOf(ctx, key, refetch, func(string, ...any) {})
	e.alert(key, &s, e.now())
}

// alert warns of a policy that cannot be refreshed, long before it expires
// (RFC 8461 §10.2 asks for it; not for mode none).
func (e *Engine) alert(domain string, s *stsState, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.failures < alertAfter || s.policy == nil || s.policy.Mode == mtasts.None {
		delete(e.failing, domain)
		return
	}
	if len(e.failing) < maxFailing {
		e.failing[domain] = struct{}{}
	}
	e.Log.Warn("policy cannot be refreshed", "domain", domain, "mode", s.policy.Mode.String(), "failures", s.failures,
		"age", now.Sub(s.fetched).Round(time.Second), "expires", stamp(s.expires()), "err", s.failure)
}

package policy

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"postseal/cache"
	"postseal/cache/boltdb"
	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
)

// Bucket is the bucket of the database that the engine keeps its memory in.
const Bucket = "policies"

const (
	// flightLimit bounds the lookups of one destination, the caller's
	// patience notwithstanding (RFC 8461 §3.3 suggests a minute for a fetch).
	flightLimit = 60 * time.Second
	// maxFlights bounds the destinations that are looked up at the same time;
	// each costs some goroutines and sockets.
	maxFlights = 2048
	// maxFetches bounds the policies that are fetched at the same time, so
	// that slow policy hosts cannot exhaust sockets.
	maxFetches = 256
	// keptTrails is for how many destinations explain can tell the past.
	keptTrails = 256
)

// errStopping is the cause of the cancellation when Run ends.
var errStopping = errors.New("postseal is stopping")

// FirstContact says what a caller is told when MTA-STS discovery of a domain
// never seen before is not done in time (policy.first_contact).
type FirstContact uint8

const (
	Deliver FirstContact = iota // no policy: RFC 8461 gives delivery priority
	Defer                       // temporary failure
)

// Engine decides. Set the fields, then call Run in a goroutine of its own; the
// other methods may be called from any number of goroutines.
type Engine struct {
	DNS          *dnssec.Client
	Fetch        *mtasts.Fetcher
	DB           *boltdb.DB // with the bucket Bucket; nil: nothing outlives a restart
	CacheSize    int        // destinations in memory; 0: 12000
	FirstContact FirstContact
	Report       func(Outcome)    // of failures; must not block. nil: none
	Log          *slog.Logger     // nil: discard
	Now          func() time.Time // nil: time.Now

	once      sync.Once
	memory    *cache.Cache[*memo]
	rules     atomic.Pointer[rules]
	ruleCount atomic.Uint64 // grows with each change of the rules
	purges    atomic.Uint64 // grows with each purge
	base      context.Context
	stop      context.CancelCauseFunc
	slots     slots
	discovery singleflight.Group // by domain
	trails    *lru.Cache[string, *Trail]
	agenda    agenda
	counts    [LevelTemp + 1]atomic.Uint64

	mu        sync.Mutex // guards what follows
	flights   map[string]*flight
	flying    int                 // flights that run, those included that another has replaced
	recording map[string]struct{} // destinations whose override is being remembered
	failing   map[string]struct{}
	ended     bool
	running   sync.WaitGroup

	writing sync.Mutex // held from reading a memo in memory to putting its successor
}

// memos returns the memory, made at the first call.
func (e *Engine) memos() *cache.Cache[*memo] {
	e.once.Do(func() {
		if e.Log == nil {
			e.Log = slog.New(slog.DiscardHandler)
		}
		e.memory = cache.New(cache.Options[*memo]{DB: e.DB, Bucket: Bucket, Size: e.CacheSize,
			Append: appendMemo, Decode: decodeMemo, Key: func(m *memo) string { return m.key }, Log: e.Log})
		e.base, e.stop = context.WithCancelCause(context.Background())
		e.slots = make(slots, maxFetches)
		e.trails, _ = lru.New[string, *Trail](keptTrails) // fails for sizes below 1 only
		e.flights = map[string]*flight{}
		e.failing = map[string]struct{}{}
		e.recording = map[string]struct{}{}
		e.agenda.wake = make(chan struct{}, 1)
	})
	return e.memory
}

func (e *Engine) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

// generation changes whenever decisions made before must not be used again: the
// rules are others, or what DNSSEC validation is worth. Both counts only grow.
func (e *Engine) generation() uint64 { return e.ruleCount.Load() + e.DNS.Epoch() }

// usable reports whether a remembered decision may be used now.
func (e *Engine) usable(d *Decision, now time.Time) bool {
	return d != nil && d.Fresh(now) && d.generation == e.generation()
}

// Cached returns the fresh decision for a plain domain name, canonical as
// [AppendName] gives it, if it is in memory; else nil. It neither blocks nor
// allocates.
func (e *Engine) Cached(name []byte) *Decision {
	m, ok := e.memos().Peek(name)
	if !ok {
		return nil
	}
	now := e.now()
	if !e.usable(m.decision, now) {
		return nil
	}
	m.touch(now)
	return m.decision
}

// Decide returns the decision for dest, never nil. It waits for lookups until
// ctx ends; then what is known decides, while the lookups go on behind for up
// to a minute and serve the next caller. It does not wait for MTA-STS where
// DANE alone decides.
func (e *Engine) Decide(ctx context.Context, dest Destination) *Decision {
	key := dest.String()
	for {
		now := e.now()
		if m, ok := e.memos().Peek([]byte(key)); ok && e.usable(m.decision, now) {
			m.touch(now)
			return m.decision
		}
		if d := e.ruled(dest, now); d != nil {
			return d
		}
		f, err := e.join(key, dest, asDue)
		if err != nil {
			return e.busy(key, dest, err)
		}
		d := f.wait(ctx)
		if d.generation == e.generation() || ctx.Err() != nil {
			f.answered(d)
			return d
		}
	}
}

// ruled is the decision of an override that needs no lookup, or nil.
func (e *Engine) ruled(dest Destination, now time.Time) *Decision {
	e.memos()
	gen := e.generation()
	o := e.rules.Load().find(dest.Domain, now)
	v, ok := o.overridden()
	if !ok {
		return nil
	}
	d := &Decision{Destination: dest, Level: v.level, Rule: v.rule, Reason: clean(v.reason), Override: o, Made: now, Expires: now.Add(time.Hour), generation: gen}
	if v.level == LevelSTS {
		d.STS = o.Policy
	}
	dns := e.DNS.Validation()
	d.Unvalidated = !dns.On && !dns.Never
	if u := o.until(); !u.IsZero() {
		d.Expires = earlier(d.Expires, u)
	}
	e.record(d, e.purges.Load(), true)
	return d
}

// record remembers in the background, where reading the disk keeps nobody
// waiting, what d answered; and d itself if it is for others to use, too.
func (e *Engine) record(d *Decision, purges uint64, shared bool) {
	key := d.Destination.String()
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, already := e.recording[key]; already || e.ended || len(e.recording) >= maxFlights {
		return
	}
	e.recording[key] = struct{}{}
	e.running.Go(func() {
		e.publish(key, purges, func(m *memo) bool {
			if shared {
				m.decision = d
			}
			m.touch(d.Made)
			return m.remember(d)
		})
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.recording, key)
	})
}

// errBusy is why there is no flight for a destination.
var errBusy = errors.New("too many lookups are under way")

// busy answers when nothing can be looked up: by what is in memory.
func (e *Engine) busy(key string, dest Destination, why error) *Decision {
	f := &flight{e: e, key: key, dest: dest, start: e.now()}
	f.recall()
	d := f.decideLocked() // nobody else has this flight
	if d.Level == LevelTemp {
		d.Reason = why.Error()
	}
	return d
}

// publish replaces the memo of key by a changed copy, unless anything was purged
// since purges was read. change tells whether that must outlive a restart; the
// time of the last use alone is written now and then. The disk is read, where
// memory lacks the memo, before the lock is taken.
func (e *Engine) publish(key string, purges uint64, change func(*memo) (lasting bool)) {
	memory := e.memos()
	m, ok := memory.Peek([]byte(key))
	if !ok {
		m, ok = memory.Get(key)
	}
	e.writing.Lock()
	defer e.writing.Unlock()
	if e.purges.Load() != purges {
		return
	}
	if newer, found := memory.Recent(key); found {
		m, ok = newer, true
	}
	if ok {
		m = m.with()
	} else {
		m = &memo{key: key}
	}
	lasting := change(m)
	if !lasting && ok && m.used.Load()-m.stored < usedWritten {
		memory.Hold(key, m)
		return
	}
	m.stored = m.used.Load()
	memory.Put(key, m)
}

// SetOverrides replaces all rules. Decisions made under the old ones are not
// used again.
func (e *Engine) SetOverrides(list []Override) {
	e.rules.Store(newRules(list))
	e.ruleCount.Add(1)
}

// Override returns the rule for a domain that holds now, nil if none.
func (e *Engine) Override(domain string) *Override {
	return e.rules.Load().find(domain, e.now())
}

// Run refreshes policies ahead of their end and writes the memory to disk
// behind the lookups. It returns after ctx has ended, all lookups have, and
// what they found is written.
func (e *Engine) Run(ctx context.Context) error {
	memory := e.memos()
	writer, stopWriter := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWriter()
	defer context.AfterFunc(ctx, func() { e.stop(errStopping) })()
	var g sync.WaitGroup
	var err error
	g.Go(func() { err = memory.Run(writer) })
	e.refreshAll(ctx)
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
	e.running.Wait()
	stopWriter()
	g.Wait()
	return err
}

// slots is a counting semaphore.
type slots chan struct{}

func (s slots) acquire(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s slots) release() { <-s }

package policy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"postseal/policy/dane"
	"postseal/policy/mtasts"
)

// offRecheck is how long a decision made without DNSSEC validation is used,
// and brokenFor one made on a failed lookup: seconds, since neither is an answer.
const (
	offRecheck = 30 * time.Second
	brokenFor  = 10 * time.Second
)

// flight is one run of lookups for one destination, shared by all who ask
// while it lasts.
type flight struct {
	e          *Engine
	key        string
	dest       Destination
	how        effort
	start      time.Time
	generation uint64 // what it decides by
	purges     uint64

	mu       sync.Mutex
	recalled bool          // memory had it
	moved    chan struct{} // closed and replaced when something more is known
	dane     daneState
	daneDone bool
	off      string // why DNSSEC is off
	never    bool   // … by the operator's will
	sts      stsState
	stsDone  bool
	final    *Decision

	steps     []Step
	keptParts []string // parts that needed no lookup
}

// join returns the flight for a destination, starting one if there is none
// that tries as hard. The error says why that cannot be.
func (e *Engine) join(key string, dest Destination, how effort) (*flight, error) {
	e.memos()
	gen := e.generation()
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.flights[key]; f != nil && f.how >= how && f.generation == gen && f.purges == e.purges.Load() && !f.outdated() {
		return f, nil
	}
	if e.ended {
		return nil, errStopping
	}
	if e.flying >= maxFlights {
		return nil, errBusy
	}
	f := &flight{e: e, key: key, dest: dest, how: how, start: e.now(), generation: gen, purges: e.purges.Load(), moved: make(chan struct{})}
	f.recall()
	e.flights[key] = f
	e.flying++
	e.running.Go(f.run)
	return f, nil
}

func (f *flight) run() {
	ctx, cancel := context.WithTimeout(f.e.base, flightLimit)
	defer cancel()
	if !f.recalled { // the disk may make us wait
		f.restore(f.read(f.key), f.read(f.dest.Domain))
	}
	var g sync.WaitGroup
	g.Go(func() { f.lookupDANE(f.traced(ctx, "dane")) })
	f.lookupSTS(f.traced(ctx, "sts"))
	g.Wait()
	f.finish()
}

func (f *flight) read(key string) *memo {
	m, _ := f.e.memory.Get(key)
	return m
}

// recall starts from what is in memory, if all of it is.
func (f *flight) recall() {
	own, ok := f.e.memory.Peek([]byte(f.key))
	domain := own
	if !f.dest.plain() {
		var found bool
		domain, found = f.e.memory.Peek([]byte(f.dest.Domain))
		ok = ok && found
	}
	f.restore(own, domain)
	f.recalled = ok
}

// minRedo is how long what DNS said is at least used while MTA-STS discovery
// goes on: a TTL of 0 beside a slow policy host must not start a flight a question.
const minRedo = time.Second

// outdated: what DNS said at the start of the flight is past its TTL, while
// MTA-STS discovery goes on.
func (f *flight) outdated() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.e.now()
	if f.final != nil {
		return !f.final.Fresh(now)
	}
	return f.daneDone && f.off == "" && !now.Before(f.dane.until) && now.Sub(f.dane.at) >= minRedo
}

// restore starts from what is remembered of the destination and, for MTA-STS,
// of its domain; either may be nil.
func (f *flight) restore(own, domain *memo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if own != nil {
		f.dane = own.dane
	}
	if domain == nil {
		return
	}
	f.sts = domain.sts
	if p := f.sts.live(f.e.now()); p != nil && f.moved != nil {
		f.stepLocked(Step{Topic: "sts", part: "sts", kept: true, Text: fmt.Sprintf("remembered: policy mode %s, id %s, in force until %s, fetched %s from %s",
			p.Mode, f.sts.id, stamp(f.sts.expires()), stamp(f.sts.fetched), f.sts.source)})
	}
}

// plain: MX at port 25, the destination that carries its domain's STS state.
func (d Destination) plain() bool { return !d.Fixed && d.Port == 25 }

func (f *flight) lookupDANE(ctx context.Context) {
	if f.how == asDue && f.dane.known && f.dane.epoch == f.e.DNS.Epoch() && !passed(f.dane.until, f.e.now()) {
		f.kept("dane", "remembered: %s (%s), looked up again at %s", f.dane.class, f.dane.reason, stamp(f.dane.until))
		f.progress(func() { f.daneDone = true })
		return
	}
	epoch := f.e.DNS.Epoch()
	v := f.e.DNS.Validation()
	var plan *dane.Plan
	if v.On {
		plan = dane.Lookup(ctx, f.e.DNS, f.dest.Domain, f.dest.Port, f.dest.Fixed)
		v = f.e.DNS.Validation() // what was asked after it went off proves nothing
	}
	now := f.e.now()
	if !v.On {
		f.note("dane", "not looked up: DNSSEC validation is off: %s", v.Reason)
		f.progress(func() { f.daneDone, f.off, f.never = true, v.Reason, v.Never })
		return
	}
	f.note("dane", "%s: %s", plan.Class, plan.Reason)
	f.progress(func() {
		f.dane.learn(plan, epoch, now)
		f.daneDone = true
	})
	if plan.Class == dane.ClassFull {
		f.publishEarly()
	}
}

// learn takes over the outcome of lookups that ended at now.
func (d *daneState) learn(plan *dane.Plan, epoch uint64, now time.Time) {
	ttl := plan.TTL
	if plan.Class == dane.ClassBroken {
		ttl = min(ttl, brokenFor)
	}
	d.known, d.class, d.reason, d.mxSecure = true, plan.Class, clean(plan.Reason), plan.MXSecure
	d.at, d.until, d.epoch, d.plan = now, now.Add(ttl), epoch, plan
	seen, failed := false, false
	for i := range plan.Hosts {
		switch plan.Hosts[i].State {
		case dane.Usable, dane.Unusable:
			seen = true
		case dane.Broken:
			failed = true
		}
	}
	if seen {
		d.used = now
	}
	// A failure is no proof that there is no DANE.
	if plan.Class != dane.ClassBroken && (seen || !failed) {
		d.proven, d.provenAt = plan.Class, now
	}
}

func (f *flight) lookupSTS(ctx context.Context) {
	var noted atomic.Bool
	s := f.e.stsOf(ctx, f.dest.Domain, f.how, func(format string, args ...any) {
		noted.Store(true)
		f.note("sts", format, args...)
	})
	if !noted.Load() {
		f.kept("sts", "remembered: record id %q, asked for again at %s", s.record, stamp(s.recordUntil))
	}
	f.progress(func() { f.sts, f.stsDone = s, true })
}

// stsOf brings the STS state of a domain up to date and remembers it. Flights
// of several destinations of one domain share the work; note is called for
// what this call has asked, not at all if that is nothing.
func (e *Engine) stsOf(ctx context.Context, domain string, how effort, note func(string, ...any)) stsState {
	if o := e.Override(domain); o != nil && o.Action == Pin {
		note("policy pinned by the override of %s", o.Domain)
		return e.lastKnown(domain)
	}
	result := make(chan stsState, 1)
	e.running.Go(func() {
		s, _, _ := e.discovery.Do(fmt.Sprint(how, e.generation(), domain), func() (any, error) {
			return e.renew(ctx, domain, how, note), nil
		})
		result <- s.(stsState)
	})
	select {
	case s := <-result:
		return s
	case <-ctx.Done():
		note("MTA-STS discovery of %s did not end in time", domain)
		return e.lastKnown(domain)
	}
}

// lastKnown is the state in memory, good for no more than a moment.
func (e *Engine) lastKnown(domain string) stsState {
	var s stsState
	if m, ok := e.memos().Peek([]byte(domain)); ok {
		s = m.sts
	}
	s.unknown, s.recordUntil = true, earlier(s.recordUntil, e.now().Add(dnsRetry))
	return s
}

// renew is the work of stsOf, done once for all who want it at the same time.
func (e *Engine) renew(ctx context.Context, domain string, how effort, note func(string, ...any)) stsState {
	purges := e.purges.Load()
	var old stsState
	if m, ok := e.memos().Get(domain); ok {
		old = m.sts
	}
	if how == asDue && !old.due(e.now()) {
		return old
	}
	s := e.discover(ctx, domain, old, how, note)
	if e.base.Err() != nil { // what our own stop cut short is no finding
		old.unknown = true
		return old
	}
	e.publish(domain, purges, func(m *memo) bool {
		if !m.sts.fetched.Equal(old.fetched) && m.sts.fetched.After(s.fetched) {
			s.adopt(&m.sts) // fetched beside this
		}
		if m.sts.policy != s.policy {
			m.decision = nil // of before the change
		}
		m.sts = s
		if how != refetch { // by the background: nobody has asked
			m.touch(e.now())
		}
		return true
	})
	e.agenda.add(domain, s.refresh)
	return s
}

// progress changes what is known and wakes those who wait.
func (f *flight) progress(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.moved)
	f.moved = make(chan struct{})
}

// wait returns the decision once it is certain, or what is known when ctx ends.
func (f *flight) wait(ctx context.Context) *Decision {
	for {
		f.mu.Lock()
		d, moved := f.final, f.moved
		if d == nil && f.daneDone && f.off == "" && f.dane.class == dane.ClassFull {
			d = f.decideLocked() // STS never overrides DANE, RFC 8461 §2
		}
		f.mu.Unlock()
		if d != nil {
			return d
		}
		select {
		case <-moved:
		case <-ctx.Done():
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.final != nil {
				return f.final
			}
			return f.decideLocked()
		}
	}
}

// decideLocked weighs what is known now.
func (f *flight) decideLocked() *Decision {
	e, now := f.e, f.e.now()
	o := e.Override(f.dest.Domain)
	in := finding{domain: f.dest.Domain, daneKnown: f.daneDone, dane: f.dane.class, daneReason: f.dane.reason,
		proven: f.dane.proven, provenAt: f.dane.provenAt, usedDANE: f.dane.used, off: f.off,
		stsKnown: f.stsDone && !f.sts.unknown, sts: f.policyLocked(o, now)}
	if f.never {
		in.usedDANE = time.Time{}
	}
	if o != nil && o.Action == Pin {
		in.stsKnown = true
	}
	v, ok := o.overridden()
	if !ok {
		v = decide(in, e.FirstContact, now)
	}
	d := &Decision{Destination: f.dest, Level: v.level, Rule: v.rule, Reason: clean(v.reason), Override: o,
		DANE: f.dane.class, MXSecure: f.dane.mxSecure, STS: in.sts, Plan: f.dane.plan, Made: now, generation: f.generation}
	if f.off != "" {
		d.DANE, d.MXSecure, d.Plan = dane.ClassNone, false, nil
		d.Unvalidated = !f.never
	}
	d.Expires = f.expiryLocked(d, now)
	return d
}

// policyLocked is the policy that may be used for a message now: an unexpired
// one, or one that this very flight has fetched although it says max_age 0.
func (f *flight) policyLocked(o *Override, now time.Time) *mtasts.Policy {
	if o != nil && o.Action == Pin {
		return o.Policy
	}
	if p := f.sts.live(now); p != nil {
		return p
	}
	if f.sts.policy != nil && f.stsDone && !f.sts.fetched.Before(f.start) {
		return f.sts.policy
	}
	return nil
}

// expiryLocked is the end of the shortest of what the decision rests on; a
// decision made before all is known is of use to nobody else.
func (f *flight) expiryLocked(d *Decision, now time.Time) time.Time {
	t := f.dane.until
	if f.off != "" {
		t = now.Add(offRecheck)
	}
	if !f.daneDone {
		return now
	}
	if u := d.Override.until(); !u.IsZero() {
		t = earlier(t, u)
	}
	if d.Level == LevelDANEOnly {
		return t
	}
	if !f.stsDone {
		return now
	}
	if d.Override != nil && d.Override.Action == Pin {
		return t
	}
	return earlier(t, f.sts.until(now))
}

// answered remembers, for the reports, a decision that some mail server was told
// before the flight has ended.
func (f *flight) answered(d *Decision) {
	f.mu.Lock()
	early := f.final != d
	f.mu.Unlock()
	if early && d.Level != LevelTemp {
		f.e.record(d, f.purges, false)
	}
}

// publishEarly lets a decision by DANE alone be found in memory while MTA-STS
// discovery goes on.
func (f *flight) publishEarly() {
	f.mu.Lock()
	d, state := f.decideLocked(), f.dane
	f.mu.Unlock()
	f.publish(d, state, nil)
}

// publish puts the decision where it is found, unless a later flight was faster,
// or the policy that it rests on, sts, was replaced meanwhile.
func (f *flight) publish(d *Decision, state daneState, sts *stsState) {
	e := f.e
	e.publish(f.key, f.purges, func(m *memo) bool {
		if m.dane.at.After(state.at) {
			return false
		}
		lasting := !m.dane.until.Equal(state.until)
		m.decision, m.dane = d, state
		if sts != nil && !e.current(f.dest, m, sts) {
			m.decision = nil
		}
		m.touch(d.Made)
		return m.remember(d) || lasting
	})
}

// current reports whether sts is still what is remembered of the domain of dest,
// whose memo is m if that is plain.
func (e *Engine) current(dest Destination, m *memo, sts *stsState) bool {
	if !dest.plain() {
		var ok bool
		if m, ok = e.memory.Peek([]byte(dest.Domain)); !ok {
			return true // pushed out of memory; nothing is known against it
		}
	}
	return m.sts.policy == sts.policy && m.sts.fetched.Equal(sts.fetched)
}

// finish publishes the decision and ends the flight.
func (f *flight) finish() {
	e := f.e
	f.mu.Lock()
	d, state, sts := f.decideLocked(), f.dane, f.sts
	trail := f.trailLocked(d)
	f.mu.Unlock()
	if e.base.Err() == nil { // what a stop cut short is no finding
		f.publish(d, state, &sts)
		e.tellDNSSEC(d)
		if e.purges.Load() == f.purges {
			e.trails.Add(f.key, trail)
		}
	}
	f.progress(func() { f.final = d })
	e.counts[d.Level].Add(1)
	e.Log.Debug("decision", "destination", f.key, "level", d.Level.String(), "rule", d.Rule, "reason", d.Reason, "took", d.Made.Sub(f.start))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flying--
	if e.flights[f.key] == f {
		delete(e.flights, f.key)
	}
}

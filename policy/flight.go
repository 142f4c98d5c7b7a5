package policy

import (
	"context"
	"fmt"
	"sync"
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
	e     *Engine
	key   string
	dest  Destination
	how   effort
	start time.Time

	mu       sync.Mutex
	restored *memo
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
// that tries as hard; nil if there are too many.
func (e *Engine) join(key string, dest Destination, how effort) *flight {
	e.memos()
	e.mu.Lock()
	defer e.mu.Unlock()
	if f := e.flights[key]; f != nil && f.how >= how && !f.outdated() {
		return f
	}
	if e.ended || len(e.flights) >= maxFlights {
		return nil
	}
	f := &flight{e: e, key: key, dest: dest, how: how, start: e.now(), moved: make(chan struct{})}
	if m, ok := e.memory.Peek([]byte(key)); ok {
		f.restore(m)
	}
	e.flights[key] = f
	e.running.Go(f.run)
	return f
}

func (f *flight) run() {
	e := f.e
	ctx, cancel := context.WithTimeout(e.base, flightLimit)
	defer cancel()

	if f.restored == nil { // not in memory; the disk may make us wait
		m, _ := e.memory.Get(f.key)
		f.restore(m)
	}
	var g sync.WaitGroup
	g.Go(func() { f.lookupDANE(f.traced(ctx, "dane")) })
	f.lookupSTS(f.traced(ctx, "sts"))
	g.Wait()
	f.finish()
}

// outdated: what DNS said at the start of the flight is past its TTL, while
// MTA-STS discovery goes on.
func (f *flight) outdated() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.daneDone && f.off == "" && !f.e.now().Before(f.dane.until)
}

// restore starts from what is remembered.
func (f *flight) restore(m *memo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restored = m
	if m == nil {
		return
	}
	f.dane = m.dane
	if !f.dest.plain() {
		return
	}
	f.sts = m.sts
	now := f.e.now()
	if p := m.sts.live(now); p != nil {
		f.stepLocked(Step{Topic: "sts", part: "sts", kept: true, Text: fmt.Sprintf("remembered: policy mode %s, id %s, in force until %s, fetched %s from %s",
			p.Mode, m.sts.id, stamp(m.sts.expires()), stamp(m.sts.fetched), m.sts.source)})
	}
}

// plain: MX at port 25, the destination that carries its domain's STS state.
func (d Destination) plain() bool { return !d.Fixed && d.Port == 25 }

func (f *flight) lookupDANE(ctx context.Context) {
	now := f.e.now()
	if f.how == asDue && f.dane.known && now.Before(f.dane.until) {
		f.kept("dane", "remembered: %s (%s), looked up again at %s", f.dane.class, f.dane.reason, stamp(f.dane.until))
		f.progress(func() { f.daneDone = true })
		return
	}
	v := f.e.DNS.Validation()
	var plan *dane.Plan
	if v.On {
		plan = dane.Lookup(ctx, f.e.DNS, f.dest.Domain, f.dest.Port, f.dest.Fixed)
		v = f.e.DNS.Validation() // what was asked after it went off proves nothing
	}
	now = f.e.now()
	if !v.On {
		f.note("dane", "not looked up: DNSSEC validation is off: %s", v.Reason)
		f.progress(func() { f.daneDone, f.off, f.never = true, v.Reason, v.Never })
		return
	}
	f.note("dane", "%s: %s", plan.Class, plan.Reason)
	f.progress(func() {
		f.dane.learn(plan, now)
		f.daneDone = true
	})
	if plan.Class == dane.ClassFull {
		f.publishEarly()
	}
}

// learn takes over the outcome of lookups that ended at now.
func (d *daneState) learn(plan *dane.Plan, now time.Time) {
	ttl := plan.TTL
	if plan.Class == dane.ClassBroken {
		ttl = min(ttl, brokenFor)
	}
	d.known, d.class, d.reason, d.mxSecure = true, plan.Class, clean(plan.Reason), plan.MXSecure
	d.at, d.until, d.plan = now, now.Add(ttl), plan
	if plan.Class == dane.ClassBroken {
		return
	}
	d.proven, d.provenAt = plan.Class, now
	if plan.Class != dane.ClassNone {
		d.used = now
	}
}

func (f *flight) lookupSTS(ctx context.Context) {
	noted := false
	s := f.e.stsOf(ctx, f.dest.Domain, f.how, func(format string, args ...any) {
		noted = true
		f.note("sts", format, args...)
	})
	if !noted {
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
		return stsState{}
	}
	result := e.discovery.DoChan(domain+" "+string(rune('0'+how)), func() (any, error) {
		var old stsState
		if m, ok := e.memos().Get(domain); ok {
			old = m.sts
		}
		if how == asDue && !old.due(e.now()) {
			return old, nil
		}
		s := e.discover(ctx, domain, old, how, note)
		e.publish(domain, func(m *memo) bool {
			s.keepNewer(&m.sts)
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
		return s, nil
	})
	select {
	case r := <-result:
		return r.Val.(stsState)
	case <-ctx.Done():
		note("MTA-STS discovery of %s did not end in time", domain)
		m, _ := e.memos().Get(domain)
		if m == nil {
			return stsState{}
		}
		return m.sts
	}
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
	gen := e.generation.Load()
	o := e.Override(f.dest.Domain)
	in := finding{domain: f.dest.Domain, daneKnown: f.daneDone, dane: f.dane.class, daneReason: f.dane.reason,
		proven: f.dane.proven, provenAt: f.dane.provenAt, usedDANE: f.dane.used, off: f.off,
		stsKnown: f.stsDone, sts: f.policyLocked(o, now)}
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
		DANE: f.dane.class, MXSecure: f.dane.mxSecure, STS: in.sts, Plan: f.dane.plan, Made: now, generation: gen}
	if f.off != "" {
		d.DANE, d.MXSecure, d.Plan = dane.ClassNone, false, nil
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

// publishEarly lets a decision by DANE alone be found in memory while MTA-STS
// discovery goes on.
func (f *flight) publishEarly() {
	f.mu.Lock()
	d := f.decideLocked()
	state := f.dane
	f.mu.Unlock()
	f.publish(d, state)
}

// publish puts the decision where it is found, unless a later flight was faster.
func (f *flight) publish(d *Decision, state daneState) {
	f.e.publish(f.key, func(m *memo) bool {
		if m.dane.at.After(state.at) {
			return false
		}
		lasting := !m.dane.until.Equal(state.until)
		m.decision, m.dane = d, state
		m.touch(d.Made)
		return m.remember(d) || lasting
	})
}

// finish publishes the decision and ends the flight.
func (f *flight) finish() {
	e := f.e
	f.mu.Lock()
	d := f.decideLocked()
	state := f.dane
	trail := f.trailLocked(d)
	f.mu.Unlock()
	if context.Cause(e.base) == nil { // what a stop cut short is no finding
		f.publish(d, state)
		e.trails.Add(f.key, trail)
	}
	e.counts[d.Level].Add(1)
	e.Log.Debug("decision", "destination", f.key, "level", d.Level.String(), "rule", d.Rule, "reason", d.Reason, "took", d.Made.Sub(f.start))
	e.mu.Lock()
	if e.flights[f.key] == f {
		delete(e.flights, f.key)
	}
	e.mu.Unlock()
	f.progress(func() { f.final = d })
}

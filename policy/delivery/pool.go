package delivery

import (
	"net/netip"
	"sync"
	"time"

	"postseal/policy"
	"postseal/policy/smtpclient"
)

const (
	// idleTime is how long a session waits for the next message: long enough for
	// a burst of messages, short enough not to hold a place at the remote host.
	idleTime = 3 * time.Second
	// maxIdle sessions wait in all, and maxIdlePerHost at one address under one demand.
	maxIdle, maxIdlePerHost = 64, 4

	// deadTime is how long an address that nothing answered at is passed over
	// while there are others; maxDead bounds how many are remembered.
	deadTime = time.Minute
	maxDead  = 4096
)

// sessionKey is all that a session was opened under. A message goes over an idle
// session only where it is the same: the pointers are those of the decision and the
// plan themselves, so a policy or TLSA records that were looked up again, or another
// domain with the same MX host, get a session of their own (RFC 8689 §4.2.1).
type sessionKey struct {
	client   *smtpclient.Client
	decision *policy.Decision
	name     string
	addr     netip.AddrPort
	demand   smtpclient.Demand
}

// pool keeps open sessions for a moment.
type pool struct {
	tasks *tasks

	mu     sync.Mutex
	idle   map[sessionKey][]*idle
	count  int
	closed bool
}

type idle struct {
	*smtpclient.Session
	timer *time.Timer
}

// take returns an idle session, nil if there is none.
func (p *pool) take(key sessionKey) *smtpclient.Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[key]
	if len(list) == 0 {
		return nil
	}
	i := list[len(list)-1] // the one used last is the least likely to have been closed
	p.remove(key, i)
	i.timer.Stop()
	return i.Session
}

// put keeps a session for the next message, or closes it.
func (p *pool) put(key sessionKey, s *smtpclient.Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.count >= maxIdle || len(p.idle[key]) >= maxIdlePerHost {
		p.tasks.run(s.Close)
		return
	}
	if p.idle == nil {
		p.idle = map[sessionKey][]*idle{}
	}
	i := &idle{Session: s}
	i.timer = time.AfterFunc(idleTime, func() { p.expire(key, i) })
	p.idle[key] = append(p.idle[key], i)
	p.count++
}

func (p *pool) expire(key sessionKey, i *idle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.remove(key, i) {
		p.tasks.run(i.Close)
	}
}

// remove takes i out of the pool, and reports whether it was there.
func (p *pool) remove(key sessionKey, i *idle) bool {
	list := p.idle[key]
	for n := range list {
		if list[n] != i {
			continue
		}
		list = append(list[:n], list[n+1:]...)
		if p.idle[key] = list; len(list) == 0 {
			delete(p.idle, key)
		}
		p.count--
		return true
	}
	return false
}

// close says QUIT in all sessions, and keeps none from now on until open.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for key, list := range p.idle {
		for _, i := range list {
			i.timer.Stop()
			p.tasks.run(i.Close)
		}
		delete(p.idle, key)
	}
	p.count = 0
}

func (p *pool) open(t *tasks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks, p.closed = t, false
}

// dead remembers at which addresses nothing answered. Only failures to connect are
// held against an address, never what was said or proven there (RFC 5321 §4.5.4.1).
type dead struct {
	mu    sync.Mutex
	until map[netip.AddrPort]time.Time
}

func (d *dead) add(addr netip.AddrPort, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil {
		d.until = map[netip.AddrPort]time.Time{}
	}
	if len(d.until) >= maxDead {
		for a, t := range d.until {
			if !now.Before(t) {
				delete(d.until, a)
			}
		}
	}
	if len(d.until) < maxDead {
		d.until[addr] = now.Add(deadTime)
	}
}

func (d *dead) is(addr netip.AddrPort, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, ok := d.until[addr]
	return ok && now.Before(t)
}

func (d *dead) forget(addr netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.until, addr)
}

package dnssec

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	defaultInterval = time.Hour
	// After a test that told nothing or found fault the next comes sooner,
	// each time after twice as long, up to the interval.
	firstRetry = time.Minute
)

func (t SelfTest) none() bool { return len(t.Signed) == 0 && t.Unsigned == "" && t.Bogus == "" }

// complete reports whether passing the test proves that a server validates.
func (t SelfTest) complete() bool { return len(t.Signed) > 0 && t.Bogus != "" }

func (t SelfTest) interval() time.Duration {
	if t.Interval > 0 {
		return t.Interval
	}
	return defaultInterval
}

// Run makes the self-test of every trusted server at once and then every
// Interval, until ctx ends; then it returns nil. Without names to ask it only
// waits.
//
// A server is switched off, which is to say its AD bit is no longer believed,
// by proof alone: it answers for the bogus name, it sets AD for the unsigned
// one, or it sets AD for none of two or more signed names although it answers
// for all. Timeouts and errors change nothing, since whoever can block the test
// names could otherwise switch DANE off. Passing all of a later test switches
// it on again.
func (c *Client) Run(ctx context.Context) error {
	if c.SelfTest.none() || c.TrustAD == TrustNever {
		<-ctx.Done()
		return nil
	}
	interval := c.SelfTest.interval()
	retry := firstRetry
	for {
		wait := interval
		if c.selfTest(ctx) {
			retry = firstRetry
		} else {
			wait = min(retry, interval)
			retry = min(2*retry, interval)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-c.pool.changed: // there may be servers never tested
			timer.Stop()
			retry = firstRetry
		case <-timer.C:
		}
	}
}

// Test makes the self-test once, at most until ctx ends, and tells what is known
// then. It is for commands, which do not live long enough for [Client.Run].
func (c *Client) Test(ctx context.Context) Validation {
	if !c.SelfTest.none() && c.TrustAD != TrustNever {
		c.selfTest(ctx)
	}
	return c.Validation()
}

// selfTest tests the trusted servers side by side, and reports whether all
// passed.
func (c *Client) selfTest(ctx context.Context) bool {
	ok := true
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, s := range c.servers() {
		if !s.trusted {
			continue
		}
		wg.Go(func() {
			passed := c.judge(s, c.observe(ctx, s))
			mu.Lock()
			defer mu.Unlock()
			ok = ok && passed
		})
	}
	wg.Wait()
	return ok
}

// judge draws the consequence from what was seen of a server, and reports
// whether it passed.
func (c *Client) judge(s *server, seen []observation) bool {
	reason := proof(seen)
	before := s.verdict.Load()
	off := before != nil && !before.validates
	switch {
	case reason != "":
		reason = "resolver " + s.name + " " + reason
		s.verdict.Store(&verdict{reason: reason})
		if !off {
			c.epoch.Add(1)
			c.log().Error("resolver does not validate, DANE is off for it", "server", s.name, "reason", reason)
		}
		return false
	case !passed(seen):
		return false
	}
	if off || c.SelfTest.complete() {
		s.verdict.Store(&verdict{validates: true, proven: c.SelfTest.complete()})
	}
	if off {
		c.epoch.Add(1)
		c.log().Info("resolver validates again, DANE is on for it", "server", s.name)
	}
	return true
}

// role is what a name is in the test.
type role uint8

const (
	signed role = iota
	unsigned
	bogus
)

// observation is what a server did with one name.
type observation struct {
	role  role
	name  string
	rcode int // -1: no reply that could be understood
	ad    bool
}

func (o observation) exists() bool { return o.rcode == dns.RcodeSuccess }

// proof says in words what proves that the server does not validate; "" if
// nothing does.
func proof(seen []observation) string {
	var plain []string // signed names that came without AD
	authentic := false
	for _, o := range seen {
		switch o.role {
		case bogus:
			// An authenticated proof that the name is gone is no answer for it.
			if o.exists() || o.rcode == dns.RcodeNameError && !o.ad {
				return "answers for " + o.name + " whose signatures are wrong"
			}
		case unsigned:
			// That a name does not exist can be proven by a signed parent.
			if o.exists() && o.ad {
				return "claims that " + o.name + " is authentic, which is not signed"
			}
		case signed:
			if o.exists() && !o.ad {
				plain = append(plain, o.name)
			} else {
				authentic = true // or it cannot be told
			}
		}
	}
	// One name may have lost its signatures; two at once have not.
	if len(plain) >= 2 && !authentic {
		return "does not authenticate " + strings.Join(plain, " or ") + ", which are signed"
	}
	return ""
}

// passed reports whether everything was as it ought to be.
func passed(seen []observation) bool {
	for _, o := range seen {
		ok := false
		switch o.role {
		case signed:
			ok = o.exists() && o.ad
		case unsigned:
			ok = o.exists() && !o.ad
		case bogus:
			ok = o.rcode == dns.RcodeServerFailure // RFC 4035 §5.5
		}
		if !ok {
			return false
		}
	}
	return true
}

// observe asks a server for all names of the test side by side.
func (c *Client) observe(ctx context.Context, s *server) []observation {
	var seen []observation
	add := func(r role, name string) {
		if name != "" {
			seen = append(seen, observation{role: r, name: name})
		}
	}
	for _, name := range c.SelfTest.Signed {
		add(signed, name)
	}
	add(unsigned, c.SelfTest.Unsigned)
	add(bogus, c.SelfTest.Bogus)

	deadline := time.Now().Add(c.timeout())
	var wg sync.WaitGroup
	for i := range seen {
		o := &seen[i]
		wg.Go(func() { o.rcode, o.ad = c.probe(ctx, s, o.name, deadline) })
	}
	wg.Wait()
	return seen
}

// probe asks one server for one name, again while it is silent; a resolver may
// need its time for a name that it has not seen yet.
func (c *Client) probe(ctx context.Context, s *server, name string, deadline time.Time) (rcode int, ad bool) {
	q := question{canonical(name), dns.TypeA}
	if q.name != "" && !isName(q.name) {
		return -1, false
	}
	for range maxRounds {
		r, err := c.exchange(ctx, s, q, deadline)
		if err == nil {
			return r.rcode, r.ad
		}
		if ctx.Err() != nil || !isTimeout(err) || !time.Now().Before(deadline) {
			break
		}
	}
	return -1, false
}

// Validation tells whether answers can be Secure now, and why not.
func (c *Client) Validation() Validation {
	if c.TrustAD == TrustNever {
		return Validation{Never: true, Reason: `dns.trust_ad is "never"`}
	}
	var on, proven int
	var off string
	servers := c.servers()
	for _, s := range servers {
		switch v := s.verdict.Load(); {
		case s.err != nil:
			off = first(off, s.err.Error())
		case !s.trusted:
			off = first(off, untrustedReason(s))
		case v == nil:
			on++
		case v.validates:
			on++
			if v.proven {
				proven++
			}
		default:
			off = first(off, v.reason)
		}
	}
	switch {
	case on == 0:
		return Validation{Reason: first(off, errNoServer.Error())}
	case off != "":
		return Validation{On: true, Reason: "not used: " + off}
	case c.SelfTest.none():
		return Validation{On: true, Reason: "unproven: no self-test is configured"}
	case proven < on:
		return Validation{On: true, Reason: "unproven: the self-test has not passed yet"}
	}
	return Validation{On: true}
}

func untrustedReason(s *server) string {
	return fmt.Sprintf(`the path to resolver %s is not protected; use a validating resolver on this machine, or set dns.trust_ad = "always" if nobody can forge its replies`, s.name)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

var errNoServer = errors.New("no resolver configured")

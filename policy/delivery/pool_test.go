package delivery

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

// TestReuse: an idle session saves the next message a connection.
func TestReuse(t *testing.T) {
	t.Run("a burst goes over one connection, which ends soon after", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			b.Resolver = &once{Resolver: b}
			h := b.host("d.test", mxtest.Config{})
			for n := range 5 {
				m := b.message("u@d.test")
				m.queueID = strings.Repeat("x", n+1)
				want(t, b.deliver(context.Background(), m)[0], "250 2.0.0")
				time.Sleep(idleTime - 1)
			}
			if c := h.Conns(); len(c) != 1 || c[0].Quit {
				t.Fatalf("%d connections, or closed already", len(c))
			}
			time.Sleep(2 * time.Nanosecond)
			synctest.Wait()
			if c := h.Conns(); !c[0].Quit {
				t.Error("no QUIT")
			}
		})
	})
	t.Run("a decision that was made anew", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			for n := range 3 {
				m := b.message("u@d.test")
				m.queueID = strings.Repeat("x", n+1)
				want(t, b.deliver(context.Background(), m)[0], "250 2.0.0")
			}
			if n := len(h.Conns()); n != 3 {
				t.Errorf("%d connections", n)
			}
		})
	})
	for _, at := range []string{mxtest.Drop, "421 4.4.2 idle for too long"} {
		t.Run("a session that has gone meanwhile: "+at, func(t *testing.T) {
			frozen(t, func(t *testing.T, b *still) {
				b.Resolver = &once{Resolver: b}
				h := b.host("d.test", mxtest.Config{})
				h.Reply("MAIL", "250 2.1.0 ok", at, "250 2.1.0 ok")
				for n := range 2 {
					m := b.message("u@d.test")
					m.queueID = strings.Repeat("x", n+1)
					want(t, b.deliver(context.Background(), m)[0], "250 2.0.0")
				}
				if n := len(h.Conns()); n != 2 {
					t.Errorf("%d connections", n)
				}
				took(t, h, 2)
			})
		})
	}
	t.Run("bounds", func(t *testing.T) {
		var ts tasks
		p := pool{tasks: &ts}
		for n := range 2 * maxIdle {
			for range 2 * maxIdlePerHost {
				p.put(sessionKey{name: strings.Repeat("x", n)}, &smtpclient.Session{})
			}
		}
		if p.count != maxIdle || len(p.idle) != maxIdle/maxIdlePerHost {
			t.Errorf("%d sessions with %d hosts", p.count, len(p.idle))
		}
		if p.take(sessionKey{name: "x"}) == nil || p.take(sessionKey{name: "x", demand: smtpclient.Demand{RequireTLS: true}}) != nil {
			t.Error("none, or one for something stronger")
		}
		p.close()
		p.put(sessionKey{}, &smtpclient.Session{})
		if p.count != 0 || p.take(sessionKey{}) != nil {
			t.Error("a closed pool has sessions")
		}
		ts.wait()
	})
}

// once resolves each destination a single time, as an engine with a memory.
type once struct {
	Resolver
	mu    sync.Mutex
	known map[policy.Destination]resolved
}

type resolved struct {
	decision *policy.Decision
	plan     *dane.Plan
}

func (o *once) Resolve(ctx context.Context, dest policy.Destination) (*policy.Decision, *dane.Plan) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, ok := o.known[dest]
	if !ok {
		r.decision, r.plan = o.Resolver.Resolve(ctx, dest)
		if o.known == nil {
			o.known = map[policy.Destination]resolved{}
		}
		o.known[dest] = r
	}
	return r.decision, r.plan
}

// TestDead: hosts that did not answer are passed over, if there are others.
func TestDead(t *testing.T) {
	t.Run("SMTP-077 dead hosts cost their time once", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			down := netip.MustParseAddr("198.51.100.7")
			r := &once{Resolver: b}
			_, p := r.Resolve(context.Background(), policy.Destination{Domain: "d.test", Port: 25})
			p.Hosts[0].Preference = 20
			p.Hosts = append(p.Hosts, p.Hosts[0])
			p.Hosts[1].Name, p.Hosts[1].Preference, p.Hosts[1].Addrs = "down.d.test", 10, []netip.Addr{down}
			b.Resolver = r
			deliver := func(id string, wait time.Duration) {
				t.Helper()
				m := b.message("u@d.test")
				m.queueID = id
				start := time.Now()
				want(t, b.deliver(context.Background(), m)[0], "250 2.0.0", "mx.d.test")
				if took := time.Since(start); took != wait {
					t.Errorf("%s: took %v, want %v", id, took, wait)
				}
			}
			deliver("first", 30*time.Second)
			deliver("second", 0)
			time.Sleep(deadTime)
			deliver("a minute later", 30*time.Second)

			// When the others fail it is tried after all.
			h.Reply("GREETING", "451 not now")
			time.Sleep(idleTime + time.Second)
			b.hosts[down] = b.host("back.test", mxtest.Config{})
			m := b.message("u@d.test")
			m.queueID = "back"
			want(t, b.deliver(context.Background(), m)[0], "250 2.0.0", "down.d.test")
		})
	})
	t.Run("SMTP-077 policy failures are never remembered", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11, mxtest.Config{Certificate: "expired"})
		b.mx("d.test", 10, "mx.test")
		b.sts("d.test", "enforce", "mx.test")
		want(t, b.send(normal, "u@d.test")[0], "451 4.7.5")
		h.Reply("GREETING", mxtest.Drop)
		want(t, b.send(normal, "u@d.test")[0], "451 4.4.2")
		if n := len(b.state.dead.until); n != 0 {
			t.Errorf("%d addresses held for dead", n)
		}
	})
}

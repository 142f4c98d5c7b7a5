package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postseal/cache/boltdb"
	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/delivery/ledger"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

// still is a bed for synthetic time: MX hosts in memory, and no DNS. The host of
// domain x is mx.x; "slow." in front of it makes DNS wait for ever.
type still struct {
	*Server
	t     testing.TB
	net   *mxtest.Net
	hosts map[netip.Addr]*mxtest.Host
	names map[string]netip.Addr
	begun bool
}

var here = &net.UnixAddr{Name: "test", Net: "unix"}

func newStill(t *testing.T) *still {
	b := &still{t: t, net: mxtest.New(t), hosts: map[netip.Addr]*mxtest.Host{}, names: map[string]netip.Addr{}}
	b.Server = &Server{Resolver: b, Hostname: "relay.test", AllowPrivate: true,
		Client: &smtpclient.Client{Hostname: "relay.test", Roots: b.net.Roots, Dial: b.dial}}
	b.begin(here)
	b.begun = true
	return b
}

// remember gives the server a ledger.
func (b *still) remember(ctx context.Context, wg *sync.WaitGroup) {
	db, err := boltdb.Open(filepath.Join(b.t.TempDir(), "delivery.db"), boltdb.Options{Schema: 1, Buckets: []string{ledger.Bucket}})
	if err != nil {
		b.t.Fatal(err)
	}
	l := &ledger.Ledger{DB: db}
	b.Ledger = l
	wg.Go(func() {
		if err := l.Run(ctx); err != nil {
			b.t.Error(err)
		}
		db.Close()
	})
}

// frozen runs f in synthetic time, with a ledger, and ends all that f began.
func frozen(t *testing.T, f func(t *testing.T, b *still)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newStill(t)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		b.remember(ctx, &wg)
		f(t, b)
		if b.begun {
			b.end(here)
		}
		cancel()
		wg.Wait()
	})
}

func (b *still) host(domain string, c mxtest.Config) *mxtest.Host {
	c.NoTickets = true
	h := b.net.Host("mx."+domain, "")
	h.Set(c)
	addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(len(b.hosts) + 1)})
	b.hosts[addr], b.names[h.Name] = h, addr
	return h
}

func (b *still) dial(ctx context.Context, network, address string) (net.Conn, error) {
	h := b.hosts[netip.MustParseAddrPort(address).Addr()]
	if h == nil { // a black hole
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return h.Dial(ctx, network, address)
}

func (b *still) Resolve(ctx context.Context, dest policy.Destination) (*policy.Decision, *dane.Plan) {
	d, p := &policy.Decision{Destination: dest}, &dane.Plan{NextHop: dest.Domain, Port: dest.Port}
	if strings.HasPrefix(dest.Domain, "slow.") {
		<-ctx.Done()
		p.Class, p.Err = dane.ClassBroken, errors.New("no answer")
		return d, p
	}
	addr, ok := b.names["mx."+dest.Domain]
	if !ok {
		addr = netip.MustParseAddr("198.51.100.1")
	}
	p.Hosts = []dane.Host{{Name: "mx." + dest.Domain, Addrs: []netip.Addr{addr}, State: dane.Insecure}}
	return d, p
}

func (b *still) message(to ...string) *message {
	return (&bed{}).message(normal, "s@sender.test", to...)
}

// later delivers in the background.
func (b *still) later(m *message) <-chan []smtpclient.Reply {
	c := make(chan []smtpclient.Reply, 1)
	go func() { c <- b.deliver(context.Background(), m) }()
	return c
}

// TestDeadline: the mail server hears of every recipient before it loses patience.
func TestDeadline(t *testing.T) {
	t.Run("SMTP-122 451 at the deadline, and the late reply is remembered", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			h.Reply(".", mxtest.Stall+" 250 2.0.0 taken at last", "250 2.0.0 twice")
			start := time.Now()
			r := b.deliver(context.Background(), b.message("u@d.test"))
			want(t, r[0], "451 4.4.2", "not finished in time")
			if took := time.Since(start); took != defaultDeadline {
				t.Errorf("after %v", took)
			}
			h.Release()
			synctest.Wait()
			r = b.deliver(context.Background(), b.message("u@d.test"))
			want(t, r[0], "250 2.0.0", "mx.d.test", "taken at last", "already delivered at ")
			took(t, h, 1)
		})
	})
	t.Run("SMTP-122 a retry joins the attempt", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			b.Deadline = time.Minute
			h := b.host("d.test", mxtest.Config{})
			h.Reply(".", mxtest.Stall+" 250 2.0.0 taken at last", "250 2.0.0 twice")
			want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "451 4.4.2")
			first, second := b.later(b.message("u@d.test")), b.later(b.message("u@d.test"))
			synctest.Wait()
			h.Release()
			want(t, (<-first)[0], "250 2.0.0", "taken at last")
			want(t, (<-second)[0], "250 2.0.0", "taken at last")
			took(t, h, 1)
		})
	})
	t.Run("SMTP-122 a retry may lose patience too", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			b.Deadline = time.Minute
			h := b.host("d.test", mxtest.Config{})
			h.Reply(".", mxtest.Stall)
			for range 3 {
				want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "451 4.4.2")
			}
			h.Release()
			synctest.Wait()
			took(t, h, 1)
		})
	})
	t.Run("SMTP-122 a late refusal is not remembered", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			b.Deadline = time.Minute
			h := b.host("d.test", mxtest.Config{})
			h.Reply(".", mxtest.Stall+" 451 4.3.0 no room", "250 2.0.0 taken")
			want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "451 4.4.2")
			h.Release()
			synctest.Wait()
			want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "250 2.0.0")
			took(t, h, 1)
		})
	})
	t.Run("SMTP-122 the reply is waited for ten minutes", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			h.Reply(".", mxtest.Stall, "250 2.0.0 taken")
			want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "451 4.4.2")
			time.Sleep(2 * time.Minute)
			want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "250 2.0.0")
			h.Release()
		})
	})
	for _, at := range []string{"GREETING", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "CONTENT"} {
		t.Run("SMTP-122 what was not sent by then never is: "+at, func(t *testing.T) {
			frozen(t, func(t *testing.T, b *still) {
				b.Deadline = time.Minute
				h := b.host("d.test", mxtest.Config{TLSKeywords: []string{"8BITMIME"}, Keywords: []string{"8BITMIME"}})
				h.Reply(at, mxtest.Stall)
				m := b.message("u@d.test")
				if at == "CONTENT" { // too much for any buffer
					m.content = plainText("X: y\r\n\r\n" + strings.Repeat("0123456789\r\n", 1<<20))
				}
				want(t, b.deliver(context.Background(), m)[0], "451 4.4.2")
				h.Release()
				synctest.Wait()
				took(t, h, 0)
			})
		})
	}
	t.Run("SMTP-122 what was not begun by then never is", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			b.LocalDomains, b.LocalRelay = []string{"d.test"}, "unix:/nowhere"
			b.state.relay.once.Do(func() { b.state.relay.client = b.Client })
			b.hosts[netip.MustParseAddr("127.0.0.1")] = h
			late, cancel := context.WithCancel(context.Background())
			cancel()
			const often = 50 // as chance would have a part in it
			for n := range often {
				want(t, b.deliver(context.Background(), b.message(fmt.Sprintf("u%d@d.test", n)))[0], "250 2.0.0") // and leaves a session open
				want(t, b.deliver(late, b.message(fmt.Sprintf("v%d@d.test", n)))[0], "451 4.4.2")
			}
			synctest.Wait()
			took(t, h, often)
		})
	})
	t.Run("DNS and hosts that do not answer", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			b.Deadline = 20 * time.Second
			h := b.host("d.test", mxtest.Config{})
			start := time.Now()
			r := b.deliver(context.Background(), b.message("u@slow.test", "u@down.test", "u@d.test"))
			want(t, r[0], "451 4.4.2", "slow.test")
			want(t, r[1], "451 4.4.2", "mx.down.test")
			want(t, r[2], "250 2.0.0")
			if took := time.Since(start); took != b.Deadline {
				t.Errorf("after %v", took)
			}
			took(t, h, 1)
		})
	})
	t.Run("SMTP-122 more next hops than are delivered to side by side", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			b.Deadline = time.Minute
			var to []string
			for n := range maxGroups + 1 {
				domain := fmt.Sprintf("d%d.test", n)
				b.host(domain, mxtest.Config{}).Reply(".", mxtest.Stall)
				to = append(to, "u@"+domain)
			}
			start := time.Now()
			for _, r := range b.deliver(context.Background(), b.message(to...)) {
				want(t, r, "451 4.4.2")
			}
			if took := time.Since(start); took != b.Deadline {
				t.Errorf("after %v", took)
			}
		})
	})
	t.Run("SMTP-077 a dead host is passed over for a minute", func(t *testing.T) {
		var d dead
		now := time.Now()
		addr := netip.MustParseAddrPort("192.0.2.1:25")
		d.add(addr, now)
		if !d.is(addr, now.Add(deadTime-1)) || d.is(addr, now.Add(deadTime)) || d.is(netip.MustParseAddrPort("192.0.2.1:26"), now) {
			t.Error("not dead, or too long, or another")
		}
		for n := range maxDead + 50 {
			d.add(netip.AddrPortFrom(addr.Addr(), uint16(n)), now)
		}
		if len(d.until) > maxDead {
			t.Errorf("%d remembered", len(d.until))
		}
		d.add(addr, now.Add(time.Hour))
		if len(d.until) != 1 {
			t.Errorf("%d remembered after an hour", len(d.until))
		}
	})
}

// TestSideBySide: no domain waits for another.
func TestSideBySide(t *testing.T) {
	frozen(t, func(t *testing.T, b *still) {
		hosts := []*mxtest.Host{b.host("d.test", mxtest.Config{}), b.host("e.test", mxtest.Config{})}
		for _, h := range hosts {
			h.Reply(".", mxtest.Stall)
		}
		done := b.later(b.message("u@d.test", "u@e.test"))
		synctest.Wait()
		for _, h := range hosts {
			if n := len(h.Mails()); n != 1 {
				t.Errorf("%s has %d messages while the other does not reply", h.Name, n)
			}
			h.Release()
		}
		for _, r := range <-done {
			want(t, r, "250 2.0.0")
		}
	})
}

// TestEnd: what happens to messages when the listeners end.
func TestEnd(t *testing.T) {
	// interrupted has a host stall when it is told at, and the listeners end then.
	interrupted := func(t *testing.T, b *still, at string) *mxtest.Host {
		h := b.host("d.test", mxtest.Config{})
		h.Reply(at, mxtest.Stall)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan []smtpclient.Reply, 1)
		go func() { done <- b.deliver(ctx, b.message("u@d.test")) }()
		synctest.Wait()
		stop()
		want(t, (<-done)[0], "451 4.4.2", "stopping")
		return h
	}
	end := func(t *testing.T, b *still, after time.Duration) {
		start := time.Now()
		b.end(here)
		b.begun = false
		if took := time.Since(start); took != after {
			t.Errorf("ended after %v", took)
		}
	}
	t.Run("before the last dot", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := interrupted(t, b, "RCPT")
			h.Release()
			synctest.Wait()
			took(t, h, 0)
		})
	})
	t.Run("after the last dot, in time", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := interrupted(t, b, ".")
			time.AfterFunc(readOn/2, h.Release)
			end(t, b, readOn/2)
			b.begin(here)
			b.begun = true
			want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "250 2.0.0", "already delivered")
			took(t, h, 1)
		})
	})
	t.Run("after the last dot, too late", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := interrupted(t, b, ".")
			end(t, b, readOn)
			h.Release()
		})
	})
	t.Run("idle sessions get QUIT", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "250 2.0.0")
			if c := h.Conns(); len(c) != 1 || c[0].Quit {
				t.Errorf("%d connections, or closed already", len(c))
			}
			b.end(here)
			b.begun = false
			if c := h.Ended(); len(c) != 1 || !c[0].Quit {
				t.Errorf("%d connections, or no QUIT", len(c))
			}
		})
	})
}

// TestLedger: a message is sent twice only if it was meant to be.
func TestLedger(t *testing.T) {
	again := func(name string, sent int, change func(m *message)) {
		t.Run(name, func(t *testing.T) {
			frozen(t, func(t *testing.T, b *still) {
				h := b.host("d.test", mxtest.Config{})
				want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "250 2.0.0")
				m := b.message("u@d.test")
				change(m)
				r := b.deliver(context.Background(), m)[0]
				want(t, r, "250 2.0.0")
				if known := strings.Contains(r.Text, "already delivered"); known != (sent == 1) {
					t.Errorf("got %q", r.Text)
				}
				took(t, h, sent)
			})
		})
	}
	again("the same", 1, func(*message) {})
	again("another recipient", 2, func(m *message) { m.envelope.To[0].Addr = "v@d.test" })
	again("another sender", 2, func(m *message) { m.envelope.From = "t@sender.test" })
	again("another text", 2, func(m *message) { m.digest = digest("Received: other\r\n\r\n") })
	again("a queue id", 2, func(m *message) { m.queueID = "4abc" })

	t.Run("without mark of the mail server", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			for range 2 {
				m := b.message("u@d.test")
				m.received = ""
				want(t, b.deliver(context.Background(), m)[0], "250 2.0.0")
			}
			took(t, h, 2)
		})
	})
	t.Run("only who has it already", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			h.Reply("RCPT TO:<v@d.test>", "450 4.2.0 later", "250 2.1.5 ok")
			r := b.deliver(context.Background(), b.message("u@d.test", "v@d.test"))
			want(t, r[0], "250 2.0.0")
			want(t, r[1], "450 4.2.0")
			r = b.deliver(context.Background(), b.message("u@d.test", "v@d.test"))
			want(t, r[0], "250 2.0.0", "already delivered")
			want(t, r[1], "250 2.0.0", "mx.d.test")
			if to := h.Mails()[1].To; len(to) != 1 || to[0] != "<v@d.test>" {
				t.Errorf("the second time to %q", to)
			}
		})
	})
	t.Run("the same recipient twice", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			for _, r := range b.deliver(context.Background(), b.message("u@d.test", "u@d.test")) {
				want(t, r, "250 2.0.0")
			}
			took(t, h, 1)
		})
	})
	t.Run("a ledger that cannot write does not hold up mail", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			works := b.Ledger
			b.Ledger = &ledger.Ledger{DB: works.DB} // nobody writes
			start := time.Now()
			want(t, b.deliver(context.Background(), b.message("u@d.test"))[0], "250 2.0.0", "mx.d.test")
			if took := time.Since(start); took != recordPatience {
				t.Errorf("after %v", took)
			}
			took(t, h, 1)
		})
	})
	t.Run("a message that cannot be read", func(t *testing.T) {
		frozen(t, func(t *testing.T, b *still) {
			h := b.host("d.test", mxtest.Config{})
			m := b.message("u@d.test")
			m.content = unreadable{}
			want(t, b.deliver(context.Background(), m)[0], "451 4.3.0")
			took(t, h, 0)
		})
	})
}

type unreadable struct{}

func (unreadable) Open() io.Reader          { return unreadable{} }
func (unreadable) Size() int64              { return 100 }
func (unreadable) Read([]byte) (int, error) { return 0, errors.New("disk") }

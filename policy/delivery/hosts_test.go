package delivery

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"postseal/policy/dane"
	"postseal/policy/smtpclient/mxtest"
)

// TestHosts: which hosts a message goes to, and what DNS has to say (RFC 5321 §5.1).
func TestHosts(t *testing.T) {
	t.Run("SMTP-001 an alias leads to another name's MX", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.e.test", 11)
		b.publish("d.test. IN CNAME e.test.")
		b.mx("e.test", 10, "mx.e.test")
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0", "mx.e.test[127.0.0.11]")
		took(t, h, 1)
	})
	t.Run("SMTP-002 no such domain", func(t *testing.T) {
		b := newBed(t)
		b.host("mx.e.test", 11)
		want(t, b.send(normal, "u@gone.test")[0], "550 5.1.2", "gone.test")
		if n := b.dns.Count("A", "gone.test"); n != 0 {
			t.Errorf("%d questions for its address", n)
		}
	})
	t.Run("SMTP-003 MX lookup fails", func(t *testing.T) {
		b := newBed(t)
		h := b.host("d.test", 11)
		b.dns.Fail("d.test", "MX", "SERVFAIL")
		want(t, b.send(normal, "u@d.test")[0], "451 4.4.3", "d.test")
		untouched(t, h)
	})
	t.Run("SMTP-004 no MX records", func(t *testing.T) {
		b := newBed(t)
		h := b.host("d.test", 11)
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0", "d.test[127.0.0.11]")
		took(t, h, 1)
	})
	t.Run("SMTP-005 unusable MX is no reason for the domain's address", func(t *testing.T) {
		b := newBed(t)
		h := b.host("d.test", 11)
		b.mx("d.test", 10, "nohost.test")
		want(t, b.send(normal, "u@d.test")[0], "451 4.4.4", "nohost.test")
		untouched(t, h)
	})
	t.Run("SMTP-010 null MX", func(t *testing.T) {
		b := newBed(t)
		b.publish("d.test. IN MX 0 .\nd.test. IN A 127.0.0.11")
		want(t, b.send(normal, "u@d.test")[0], "556 5.1.10", "d.test")
		if n := b.dns.Count("A", "d.test"); n != 0 {
			t.Errorf("%d questions for its address", n)
		}
	})
	t.Run("DANE-031 null MX in a signed zone", func(t *testing.T) {
		b := newBed(t)
		b.publish("d.signed.test. IN MX 0 .")
		want(t, b.send(normal, "u@d.signed.test")[0], "556 5.1.10")
		for _, q := range b.dns.Queries() {
			if !strings.HasPrefix(q, "MX ") && !strings.HasPrefix(q, "TXT ") {
				t.Errorf("asked %s", q)
			}
		}
	})
	t.Run("SMTP-011 a sender without mail of its own", func(t *testing.T) {
		b := newBed(t)
		h := b.host("d.test", 11)
		h.Reply("MAIL", "550 5.7.27 sender domain has null MX")
		want(t, b.send(normal, "u@d.test")[0], "550 5.7.27", "d.test[127.0.0.11]", "sender domain has null MX")
	})
	t.Run("SMTP-015 one label is a whole name", func(t *testing.T) {
		b := newBed(t)
		b.host("other.test", 12)
		b.publish("foo. IN A 127.0.0.12")
		want(t, b.send(normal, "u@foo")[0], "250 2.0.0")
		want(t, b.send(normal, "u@localhost")[0], "550 5.1.2")
		for _, q := range b.dns.Queries() {
			name := q[strings.IndexByte(q, ' ')+1:]
			if name != "foo" && name != "localhost" && name != "_mta-sts.foo" && name != "_mta-sts.localhost" {
				t.Errorf("asked %s", q)
			}
		}
	})
	t.Run("DANE-038 MX hosts that are aliases", func(t *testing.T) {
		b := newBed(t)
		h := b.host("real.signed.test", 11)
		b.publish("alias.signed.test. IN CNAME real.signed.test.")
		b.mx("d.signed.test", 10, "alias.signed.test")
		b.tlsa(h, h.TLSA(3, 1, 1))
		want(t, b.send(normal, "u@d.signed.test")[0], "250 2.0.0", "alias.signed.test")
		took(t, h, 1)
		if got := b.reported(); len(got) != 1 || got[0] != "alias.signed.test tlsa:" {
			t.Errorf("reported %q", got)
		}
	})
	t.Run("no valid domain", func(t *testing.T) {
		b := newBed(t)
		for _, to := range []string{"u@-.test", "u@a..test", "u@d.test:25", "u@[nonsense]", "u@[127.0.0.1"} {
			want(t, b.send(normal, to)[0], "550 5.1.3")
		}
	})
}

// TestOrder: preference first, chance among equals (RFC 5321 §5.1).
func TestOrder(t *testing.T) {
	plan := &dane.Plan{Hosts: []dane.Host{{Name: "a.test", Preference: 10}, {Name: "b.test", Preference: 10, State: dane.Usable}, {Name: "c.test", Preference: 20, State: dane.Usable}}}
	w := &walk{delivery: &delivery{s: &Server{Hostname: "relay.test"}}, group: &group{}}
	const runs = 2000
	first := 0
	for range runs {
		hosts, r := w.hosts(plan)
		if r.Code != 0 || len(hosts) != 3 || hosts[2].Name != "c.test" {
			t.Fatalf("got %v, %v", hosts, r)
		}
		if hosts[0].Name == "a.test" {
			first++
		}
	}
	// Six standard deviations: wrong once in a billion runs.
	even := math.Abs(float64(first)-runs/2) < 6*math.Sqrt(runs)/2
	t.Run("SMTP-006 equal preference is shuffled", func(t *testing.T) {
		if !even {
			t.Errorf("first %d times of %d", first, runs)
		}
	})
	t.Run("DANE-023 TLSA is no preference", func(t *testing.T) {
		if !even {
			t.Errorf("the host without TLSA was first %d times of %d", first, runs)
		}
	})
	t.Run("DANE-022 a worse host with TLSA comes later", func(t *testing.T) {
		b := newBed(t)
		plain, signed := b.host("mx1.signed.test", 11), b.host("mx2.signed.test", 12)
		b.tlsa(signed, signed.TLSA(3, 1, 1))
		b.mx("d.signed.test", 10, "mx1.signed.test", 20, "mx2.signed.test")
		want(t, b.send(normal, "u@d.signed.test")[0], "250 2.0.0", "mx1.signed.test")
		took(t, plain, 1)
		untouched(t, signed)
	})
	t.Run("SMTP-007 addresses in the resolver's order", func(t *testing.T) {
		b := newBed(t)
		first, second := b.host("mx.test", 12), b.host("mx.test", 11)
		first.Reply("GREETING", mxtest.Drop)
		for n := range 5 {
			b.mx(fmt.Sprintf("d%d.test", n), 10, "mx.test")
			want(t, b.send(normal, fmt.Sprintf("u@d%d.test", n))[0], "250 2.0.0", "mx.test[127.0.0.11]")
			if len(first.Conns()) != n+1 {
				t.Errorf("the first address was tried %d times in %d deliveries", len(first.Conns()), n+1)
			}
		}
		took(t, second, 5)
	})
	t.Run("SMTP-021 a host that never takes mail, beside one that does", func(t *testing.T) {
		b := newBed(t)
		never, good := b.host("a.test", 11), b.host("z.test", 12)
		never.Reply("GREETING", "521 5.3.2 no mail here")
		b.mx("d.test", 10, "a.test", 20, "z.test")
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0", "z.test")
		took(t, good, 1)
		good.Reply("GREETING", "521 5.3.2 nor here")
		b.state.pool.close()
		want(t, b.send(normal, "u@d.test")[0], "556 5.3.2", "a.test", "z.test")
		good.Reply("GREETING", "554 5.3.0 not today")
		want(t, b.send(normal, "u@d.test")[0], "451 4.3.2", "a.test", "z.test")
	})
	t.Run("SMTP-008 five addresses of a host", func(t *testing.T) {
		b := newBed(t)
		b.host("other.test", 10)
		var hosts []*mxtest.Host
		for n := range 8 {
			h := b.host("mx.test", 11+n)
			h.Reply("GREETING", mxtest.Drop)
			hosts = append(hosts, h)
		}
		b.mx("d.test", 10, "mx.test")
		want(t, b.send(normal, "u@d.test")[0], "451 4.4.2")
		tried := 0
		for _, h := range hosts {
			tried += len(h.Conns())
		}
		if tried != maxAddrs {
			t.Errorf("%d addresses tried, want %d", tried, maxAddrs)
		}
	})
}

// TestOurselves: mail never comes back to us (RFC 5321 §5.1).
func TestOurselves(t *testing.T) {
	setting := func(t *testing.T) (*bed, []*mxtest.Host) {
		b := newBed(t)
		var hosts []*mxtest.Host
		for n, name := range []string{"a.test", "us.test", "b.test"} {
			hosts = append(hosts, b.host(name, 11+n))
			b.mx("d.test", 10*(n+1), name)
		}
		return b, hosts
	}
	check := func(t *testing.T, b *bed, hosts []*mxtest.Host) {
		t.Helper()
		hosts[0].Reply("GREETING", "451 not now")
		want(t, b.send(normal, "u@d.test")[0], "451 4.0.0", "a.test")
		untouched(t, hosts[1])
		untouched(t, hosts[2])
	}
	t.Run("SMTP-009 our own name", func(t *testing.T) {
		b, hosts := setting(t)
		b.Hostname = "US.test."
		check(t, b, hosts)
	})
	t.Run("SMTP-009 a further name", func(t *testing.T) {
		b, hosts := setting(t)
		b.Names = []string{"us.test"}
		check(t, b, hosts)
	})
	t.Run("SMTP-009 our own address", func(t *testing.T) {
		b, hosts := setting(t)
		b.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.12")}
		check(t, b, hosts)
	})
	t.Run("SMTP-009 we are the best host", func(t *testing.T) {
		b, hosts := setting(t)
		b.Names = []string{"a.test"}
		want(t, b.send(normal, "u@d.test")[0], "554 5.4.6", "loops back", "delivery.local_domains")
		for _, h := range hosts {
			untouched(t, h)
		}
	})
	t.Run("SMTP-131 a next hop that is our own listener", func(t *testing.T) {
		b, hosts := setting(t)
		own := tcpAddr(hosts[0].Addr())
		b.begin(own)
		defer b.end(own)
		want(t, b.send(normal, "u@d.test")[0], "554 5.4.6", "loops back")
		b.Routes = []Route{{Domain: "*", NextHop: fmt.Sprintf("[a.test]:%d", b.Port)}}
		want(t, b.send(normal, "u@e.test")[0], "554 5.4.6", "loops back")
		b.Routes[0].NextHop = fmt.Sprintf("[127.0.0.11]:%d", b.Port)
		want(t, b.send(normal, "u@e.test")[0], "554 5.4.6", "loops back")
		untouched(t, hosts[0])
	})
	t.Run("STS-113 an invalid candidate before us", func(t *testing.T) {
		b, hosts := setting(t)
		b.Names = []string{"us.test"}
		b.sts("d.test", "enforce", "us.test", "b.test")
		want(t, b.send(normal, "u@d.test")[0], "451 4.7.5", "a.test")
		for _, h := range hosts {
			untouched(t, h)
		}
	})
}

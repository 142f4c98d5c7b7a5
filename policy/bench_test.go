package policy_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postseal/policy"
)

// BenchmarkCold is the first lookup of a domain when each DNS reply takes 20
// ms, beside the bare round trips that RFC 7672 §2.2 makes it wait for: MX, then
// addresses, then TLSA. The metric "ratio" is bare time over ours, 1 at best.
func BenchmarkCold(b *testing.B) {
	const wait = 20 * time.Millisecond
	for _, parallel := range []int{1, 64} {
		b.Run(fmt.Sprintf("%dparallel", parallel), func(b *testing.B) {
			var zone strings.Builder
			name := func(i int) string { return fmt.Sprintf("d%d.signed.test", i) }
			for i := range parallel {
				fmt.Fprintf(&zone, "%[1]s. 300 IN MX 10 mx.%[1]s.\nmx.%[1]s. 300 IN A 192.0.2.1\n_25._tcp.mx.%[1]s. 300 IN TLSA %[2]s\n", name(i), tlsa)
			}
			bed := newBed(b, zone.String())
			bed.dns.Delay(wait)
			var bare, ours time.Duration
			for b.Loop() {
				bare += all(parallel, func(i int) {
					for _, q := range []struct {
						name string
						typ  uint16
					}{{name(i), dns.TypeMX}, {"mx." + name(i), dns.TypeA}, {"_25._tcp.mx." + name(i), dns.TypeTLSA}} {
						roundTrip(b, bed.dns.Addr, q.name, q.typ)
					}
				})
				ours += all(parallel, func(i int) {
					if d := bed.decide(name(i)); d.Level != policy.LevelDANEOnly {
						b.Errorf("%s: %s", name(i), d.Reason)
					}
				})
				if _, err := bed.Purge(""); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(bare)/float64(ours), "ratio")
			b.ReportMetric(float64(ours.Milliseconds())/float64(b.N), "ms/herd")
		})
	}
}

// all runs f for 0 … n-1 side by side and returns how long it took.
func all(n int, f func(i int)) time.Duration {
	start := time.Now()
	var g sync.WaitGroup
	for i := range n {
		g.Go(func() { f(i) })
	}
	g.Wait()
	return time.Since(start)
}

// roundTrip is one DNS question in the cheapest way.
func roundTrip(b *testing.B, server, name string, typ uint16) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), typ)
	m.SetEdns0(1232, true)
	packed, err := m.Pack()
	if err != nil {
		b.Error(err)
		return
	}
	c, err := net.Dial("udp", server)
	if err != nil {
		b.Error(err)
		return
	}
	defer c.Close()
	buf := make([]byte, 1232)
	if _, err := c.Write(packed); err != nil {
		b.Error(err)
	}
	if _, err := c.Read(buf); err != nil {
		b.Error(err)
	}
}

// BenchmarkHerd is 256 callers on one cold domain; the metrics are the
// questions and GETs that reach the Internet.
func BenchmarkHerd(b *testing.B) {
	bed := newBed(b, domainZone+stsZone(domain, "1"))
	bed.web.Set(domain, enforcing)
	herds := 0
	for b.Loop() {
		all(256, func(int) {
			if d := bed.decide(domain); d.Level != policy.LevelSTS {
				b.Errorf("%s", d.Reason)
			}
		})
		herds++
		if _, err := bed.Purge(""); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(bed.dns.Count("TXT", "_mta-sts."+domain))/float64(herds), "TXT/herd")
	b.ReportMetric(float64(bed.web.Gets(domain))/float64(herds), "GET/herd")
}

// BenchmarkCached is a decision from memory, as the doors ask for it.
func BenchmarkCached(b *testing.B) {
	bed := newBed(b, domainZone+stsZone(domain, "1"), func(e *policy.Engine) { e.Now = nil })
	bed.web.Set(domain, enforcing)
	bed.decide(domain)
	name := []byte(domain)
	b.ReportAllocs()
	for b.Loop() {
		if bed.Cached(name) == nil {
			b.Fatal("not in memory")
		}
	}
}

// BenchmarkDecideFromDisk is the first question after a restart.
func BenchmarkDecideFromDisk(b *testing.B) {
	bed := newBed(b, domainZone+stsZone(domain, "1"))
	bed.web.Set(domain, enforcing)
	bed.decide(domain)
	for b.Loop() {
		b.StopTimer()
		bed.restart()
		b.StartTimer()
		bed.Decide(context.Background(), policy.Destination{Domain: domain, Port: 25})
	}
}

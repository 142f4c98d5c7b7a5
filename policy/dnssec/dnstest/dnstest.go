// Package dnstest is an honest little DNS server for tests. It behaves like a
// recursive, validating resolver (RFC 1034 §4.3.2, RFC 4035 §3.2.3) that knows
// only its own zone text: it follows CNAMEs and puts the whole chain into the
// answer, tells "no such name" from "no such type", proves absence with an SOA
// (RFC 2308), cuts what is too long for UDP, and sets AD where every name on
// the way is below a signed suffix and the question had AD or DO. It does not
// sign anything. It answers on a loopback address over UDP and TCP, counts what
// it is asked, and misbehaves on request (see [Server.Fail]).
package dnstest

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postseal/policy/dnssec"
)

// Server answers from zone text on a loopback address, over UDP and TCP.
type Server struct {
	Addr string // host:port

	t    testing.TB
	done chan struct{} // closed when the test ends

	mu      sync.Mutex
	zone    zone
	faults  map[question]string
	queries []string
	delay   time.Duration
	down    bool
}

type question struct{ name, typ string }

// New starts a server that ends with the test. zone is in master-file form, in
// absolute names or relative to the root, with 300 s as the default TTL; one
// owner "*.name" stands for all names below. An SOA record gives the negative
// TTL of the names below it, otherwise it is 60 s.
//
// Names at and below one of the signed suffixes are answered with AD; a suffix
// with "!" before it is unsigned again. The longest suffix counts.
func New(t testing.TB, zone string, signed ...string) *Server {
	t.Helper()
	s := &Server{t: t, done: make(chan struct{}), faults: make(map[question]string)}
	s.SetZone(zone, signed...)
	udp, tcp := listen(t)
	s.Addr = udp.LocalAddr().String()

	var wg sync.WaitGroup
	var started sync.WaitGroup
	servers := []*dns.Server{{PacketConn: udp}, {Listener: tcp}}
	for _, d := range servers {
		d.Handler = dns.HandlerFunc(s.serve)
		d.UDPSize = dns.DefaultMsgSize
		started.Add(1)
		d.NotifyStartedFunc = started.Done
		wg.Go(func() {
			if err := d.ActivateAndServe(); err != nil {
				t.Errorf("dnstest: %v", err)
			}
		})
	}
	started.Wait()
	t.Cleanup(func() {
		close(s.done)
		for _, d := range servers {
			if err := d.Shutdown(); err != nil {
				t.Errorf("dnstest: %v", err)
			}
		}
		wg.Wait()
	})
	return s
}

// listen opens the same free port for UDP and TCP.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	var last error
	for range 20 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		last = err
		udp.Close()
	}
	t.Fatal(last)
	return nil, nil
}

// Client is a client of this server that trusts it, with short time limits:
// 400 ms for a try and 1.2 s for a lookup.
func (s *Server) Client() *dnssec.Client {
	return &dnssec.Client{
		Servers:    []string{s.Addr},
		TryTimeout: 400 * time.Millisecond,
		Timeout:    1200 * time.Millisecond,
	}
}

// SetZone replaces all records.
func (s *Server) SetZone(text string, signed ...string) {
	z, err := parseZone(text, signed)
	if err != nil {
		s.t.Errorf("dnstest: %v", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone = z
}

// Fail makes questions for name and type end in an error; "" or "*" stands for
// any type, and "*" for any name. A fault of a name is met also by those who
// come along a CNAME. fault is one of:
//
//   - an RCODE mnemonic: "SERVFAIL", "REFUSED", "FORMERR", …
//   - "BOGUS": SERVFAIL with the extended error 6 (RFC 8914 §4.7)
//   - "TIMEOUT": no reply
//   - "TRUNCATE": an empty reply with TC over UDP, the true one over TCP
//   - "TRUNCATE-NOTCP": the same over UDP, and no reply over TCP
//   - "GARBAGE": the header and question are right, the rest is not
//   - "WRONGQUESTION", "WRONGID": a reply to something else
//   - "NOAD": the true reply without AD
//   - "NOCHAIN": only the first CNAME of a chain, as from a resolver that did not go on
//   - "NOSOA": absence without SOA
//
// An empty fault mends it.
func (s *Server) Fail(name, typ, fault string) {
	q := question{canonical(name), typ}
	if typ == "" {
		q.typ = "*"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fault == "" {
		delete(s.faults, q)
		return
	}
	if _, ok := dns.StringToRcode[fault]; !ok && !slices.Contains(faults[:], fault) {
		s.t.Errorf("dnstest: unknown fault %q", fault)
		return
	}
	s.faults[q] = fault
}

// Delay makes every reply wait.
func (s *Server) Delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// Queries lists the questions so far as "TYPE name", name in lower case without the final dot.
func (s *Server) Queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.queries)
}

// Count counts the questions for name and type so far.
func (s *Server) Count(typ, name string) int {
	want := typ + " " + canonical(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, q := range s.queries {
		if q == want {
			n++
		}
	}
	return n
}

// ResetQueries forgets them.
func (s *Server) ResetQueries() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = nil
}

// Down stops answering anything; questions are still counted.
func (s *Server) Down() { s.setDown(true) }

// Up starts again after [Server.Down].
func (s *Server) Up() { s.setDown(false) }

func (s *Server) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Refused returns the address of a port on which nothing listens.
func Refused(t testing.TB) string {
	t.Helper()
	udp, tcp := listen(t)
	addr := fmt.Sprint(udp.LocalAddr())
	udp.Close()
	tcp.Close()
	return addr
}

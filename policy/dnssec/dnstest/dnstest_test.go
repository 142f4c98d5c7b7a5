package dnstest_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"postseal/policy/dnssec/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const zone = `
example.org. 3600 SOA ns.example.org. hostmaster.example.org. 1 2 3 4 90
_25._tcp.mx.example.org. TLSA 3 1 1 00
alias.example.org. CNAME far.test.
far.test. A 192.0.2.1
*.wild.example.org. A 192.0.2.2
host.wild.example.org. TXT x
plain.example.org. A 192.0.2.3
`

func ask(t *testing.T, s *dnstest.Server, name string, qtype uint16, change func(*dns.Msg)) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	if change != nil {
		change(m)
	}
	r, _, err := new(dns.Client).Exchange(m, s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestServer(t *testing.T) {
	s := dnstest.New(t, zone, "example.org.", "!plain.example.org")
	ad := func(m *dns.Msg) { m.AuthenticatedData = true }
	do := func(m *dns.Msg) { m.SetEdns0(1232, true) }
	for _, tt := range []struct {
		name   string
		qtype  uint16
		change func(*dns.Msg)
		rcode  int
		n      int // records in the answer
		soa    string
		ad     bool
	}{
		{"_25._tcp.mx.example.org.", dns.TypeTLSA, ad, 0, 1, "", true},
		{"_25._tcp.mx.example.org.", dns.TypeTLSA, do, 0, 1, "", true},
		{"_25._tcp.mx.example.org.", dns.TypeTLSA, nil, 0, 1, "", false},
		{"_25._tcp.MX.example.org.", dns.TypeA, ad, 0, 0, "example.org.", true},
		{"mx.example.org.", dns.TypeA, ad, 0, 0, "example.org.", true}, // empty, and yet it exists
		{"no.example.org.", dns.TypeA, ad, dns.RcodeNameError, 0, "example.org.", true},
		{"no.test.", dns.TypeA, ad, dns.RcodeNameError, 0, ".", false},
		{"alias.example.org.", dns.TypeA, ad, 0, 2, "", false},
		{"alias.example.org.", dns.TypeCNAME, ad, 0, 1, "", true},
		{"alias.example.org.", dns.TypeMX, ad, 0, 1, ".", false},
		{"plain.example.org.", dns.TypeA, ad, 0, 1, "", false},
		{"a.b.wild.example.org.", dns.TypeA, ad, 0, 1, "", true},
		{"host.wild.example.org.", dns.TypeA, ad, 0, 0, "example.org.", true},
	} {
		r := ask(t, s, tt.name, tt.qtype, tt.change)
		soa := ""
		if len(r.Ns) > 0 {
			soa = r.Ns[0].Header().Name
		}
		if r.Rcode != tt.rcode || len(r.Answer) != tt.n || soa != tt.soa || r.AuthenticatedData != tt.ad {
			t.Errorf("%s %s: %v", dns.TypeToString[tt.qtype], tt.name, r)
		}
	}
	s.SetZone("a.test. A 192.0.2.1")
	if r := ask(t, s, "plain.example.org.", dns.TypeA, nil); r.Rcode != dns.RcodeNameError {
		t.Error(r)
	}
}

func TestQueries(t *testing.T) {
	s := dnstest.New(t, zone)
	ask(t, s, "Far.Test.", dns.TypeA, nil)
	ask(t, s, "far.test.", dns.TypeA, nil)
	ask(t, s, "example.org.", dns.TypeMX, nil)
	if d := cmp.Diff([]string{"A far.test", "A far.test", "MX example.org"}, s.Queries()); d != "" {
		t.Error(d)
	}
	if s.Count("A", "FAR.test.") != 2 || s.Count("AAAA", "far.test") != 0 {
		t.Error(s.Queries())
	}
	s.ResetQueries()
	if s.Queries() != nil || s.Count("A", "far.test") != 0 {
		t.Error(s.Queries())
	}
}

func TestDown(t *testing.T) {
	s := dnstest.New(t, zone)
	s.Down()
	m := new(dns.Msg).SetQuestion("far.test.", dns.TypeA)
	for _, network := range []string{"udp", "tcp"} {
		_, _, err := (&dns.Client{Net: network, Timeout: 50 * time.Millisecond}).Exchange(m, s.Addr)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	}
	s.Up()
	ask(t, s, "far.test.", dns.TypeA, nil)
	s.Delay(time.Millisecond)
	ask(t, s, "far.test.", dns.TypeA, nil)
	s.Delay(time.Hour) // does not outlive the test
	_, _, err := (&dns.Client{Timeout: 20 * time.Millisecond}).Exchange(m, s.Addr)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if _, err := net.Dial("udp", dnstest.Refused(t)); err != nil {
		t.Error(err)
	}
}

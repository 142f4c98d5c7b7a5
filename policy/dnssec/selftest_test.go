package dnssec_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
)

func okReply(m *dns.Msg) {
	m.Answer = []dns.RR{&dns.A{
		Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: []byte{192, 0, 2, 66},
	}}
}

// events is a log handler that hands over level and server of each record.
type events chan string

func (events) Enabled(context.Context, slog.Level) bool { return true }
func (e events) WithAttrs([]slog.Attr) slog.Handler     { return e }
func (e events) WithGroup(string) slog.Handler          { return e }
func (e events) Handle(_ context.Context, r slog.Record) error {
	e <- r.Level.String()
	return nil
}

var selfTest = dnssec.SelfTest{Signed: []string{"s1.test", "s2.test"}, Unsigned: "u.test", Bogus: "b.test"}

const selfTestZone = `
s1.test. A 192.0.2.1
s2.test. AAAA 2001:db8::1
u.test.  A 192.0.2.1
b.test.  A 192.0.2.1
mx.s1.test. A 192.0.2.2
`

func selfTestServer(t *testing.T) *dnstest.Server {
	s := dnstest.New(t, selfTestZone, "s1.test", "s2.test")
	s.Fail("b.test", "", "BOGUS")
	return s
}

// step changes the server, and says what one more test must lead to.
type step struct {
	change func(s *dnstest.Server)
	passed bool
	on     bool
	says   string // in the reason
	log    string // level of the one record, if any
}

func TestSelfTest(t *testing.T) {
	fail := func(name, fault string) func(*dnstest.Server) {
		return func(s *dnstest.Server) { s.Fail(name, "", fault) }
	}
	all := func(changes ...func(*dnstest.Server)) func(*dnstest.Server) {
		return func(s *dnstest.Server) {
			for _, f := range changes {
				f(s)
			}
		}
	}
	signed := func(names ...string) func(*dnstest.Server) {
		return func(s *dnstest.Server) { s.SetZone(selfTestZone, names...) }
	}
	gone := func(names ...string) func(*dnstest.Server) {
		return func(s *dnstest.Server) { s.SetZone("x. A 192.0.2.1", names...) }
	}
	good := step{fail("b.test", "BOGUS"), true, true, "", ""}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"DANE-002 all is well", []step{good, good, {fail("b.test", "SERVFAIL"), true, true, "", ""}}},
		{"DANE-002 bogus name answered, and healed", []step{
			good,
			{fail("b.test", ""), false, false, "answers for b.test", "ERROR"},
			{fail("b.test", ""), false, false, "answers for b.test", ""},
			{fail("b.test", "TIMEOUT"), false, false, "answers for b.test", ""},
			{fail("b.test", "BOGUS"), true, true, "", "INFO"},
			good,
		}},
		{"DANE-002 proof at the first test", []step{{fail("b.test", ""), false, false, "answers for b.test", "ERROR"}}},
		{"DANE-002 bogus name denied without AD", []step{
			{all(gone(), fail("b.test", "")), false, false, "answers for b.test", "ERROR"},
		}},
		{"DANE-002 AD on the unsigned name", []step{
			{signed("s1.test", "s2.test", "u.test"), false, false, "u.test", "ERROR"},
			{signed("s1.test", "s2.test"), true, true, "", "INFO"},
		}},
		{"DANE-002 AD stripped", []step{
			good,
			{signed(), false, false, "s1.test or s2.test", "ERROR"},
			{signed("s1.test"), false, false, "s1.test or s2.test", ""}, // healing takes a complete test
			{signed("s1.test", "s2.test"), true, true, "", "INFO"},
		}},
		{"one AD missing changes nothing", []step{good, {signed("s1.test"), false, true, "", ""}}},
		{"one AD missing proves nothing at first", []step{{signed("s1.test"), false, true, "unproven", ""}}},
		{"one missing and one silent change nothing", []step{
			{all(signed("s1.test"), fail("s1.test", "TIMEOUT")), false, true, "unproven", ""},
		}},
		{"one missing and one bogus change nothing", []step{
			{all(signed("s1.test"), fail("s1.test", "SERVFAIL")), false, true, "unproven", ""},
		}},
		{"blocked names change nothing", []step{
			good,
			{fail("*", "SERVFAIL"), false, true, "", ""},
			{all(fail("*", "REFUSED"), fail("b.test", "")), false, true, "", ""},
			{fail("*", "TIMEOUT"), false, true, "", ""},
		}},
		{"a silent server is unproven", []step{{fail("*", "TIMEOUT"), false, true, "unproven", ""}}},
		{"a bogus name that is proven to be gone proves nothing", []step{
			{all(gone("test"), fail("b.test", "")), false, true, "unproven", ""},
		}},
		{"an unsigned name below a signed parent that is gone proves nothing", []step{
			{all(gone("test"), fail("b.test", "BOGUS")), false, true, "unproven", ""},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := selfTestServer(t)
			log := make(events, 10)
			c := s.Client()
			c.SelfTest = selfTest
			c.Log = slog.New(log)
			for i, step := range tt.steps {
				step.change(s)
				if passed := dnssec.SelfTestOnce(c, t.Context()); passed != step.passed {
					t.Fatalf("step %d: passed %t", i, passed)
				}
				v := c.Validation()
				if v.On != step.on || !strings.Contains(v.Reason, step.says) || step.says == "" && v.Reason != "" {
					t.Fatalf("step %d: %+v", i, v)
				}
				if !v.On && !strings.Contains(v.Reason, s.Addr) {
					t.Errorf("step %d: reason %q does not name the server", i, v.Reason)
				}
				var level string
				if len(log) > 0 {
					level = <-log
				}
				if level != step.log || len(log) > 0 {
					t.Fatalf("step %d: logged %q", i, level)
				}
				if a, err := c.LookupA(t.Context(), "mx.s1.test"); err == nil && a.Secure && !step.on {
					t.Fatalf("step %d: secure while off", i)
				}
			}
		})
	}
}

// A server proven not to validate is left alone while another is believed.
func TestSelfTestOfOneServer(t *testing.T) {
	a, b := selfTestServer(t), selfTestServer(t)
	a.Fail("b.test", "", "")
	c := a.Client()
	c.Servers = []string{a.Addr, b.Addr}
	c.SelfTest = selfTest
	if dnssec.SelfTestOnce(c, t.Context()) {
		t.Fatal("passed")
	}
	if v := c.Validation(); !v.On || !strings.Contains(v.Reason, a.Addr) {
		t.Fatal(v)
	}
	a.ResetQueries()
	if r, err := c.LookupA(t.Context(), "mx.s1.test"); err != nil || !r.Secure || a.Queries() != nil {
		t.Fatal(r, err, a.Queries())
	}
	b.Fail("mx.s1.test", "", "BOGUS")
	_, err := c.LookupA(t.Context(), "mx.s1.test")
	kind(t, err, dnssec.Bogus)
	if a.Queries() != nil {
		t.Fatal("asked a server that does not validate")
	}

	b.Fail("b.test", "", "")
	dnssec.SelfTestOnce(c, t.Context())
	if v := c.Validation(); v.On {
		t.Fatal(v)
	}
	if r, err := c.LookupA(t.Context(), "mx.s1.test"); err != nil || r.Secure {
		t.Fatal("both are off and still answer", r, err)
	}
}

// TestEpoch: it grows with every change of what is believed, and only then.
func TestEpoch(t *testing.T) {
	s := selfTestServer(t)
	c := s.Client()
	c.SelfTest = selfTest
	for i, tt := range []struct {
		fault string
		want  uint64
	}{{"BOGUS", 0}, {"TIMEOUT", 0}, {"", 1}, {"", 1}, {"BOGUS", 2}, {"BOGUS", 2}} {
		s.Fail("b.test", "", tt.fault)
		dnssec.SelfTestOnce(c, t.Context())
		if got := c.Epoch(); got != tt.want {
			t.Errorf("test %d: epoch %d, want %d", i, got, tt.want)
		}
	}
}

func TestUnreachableInWords(t *testing.T) {
	c := &dnssec.Client{Servers: []string{dnstest.Refused(t)}}
	_, err := c.LookupMX(t.Context(), "example.test")
	kind(t, err, dnssec.Timeout)
	if want := "MX lookup of example.test: connection refused from " + c.Servers[0]; err == nil || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestRun(t *testing.T) {
	t.Run("state follows", func(t *testing.T) {
		s := selfTestServer(t)
		s.Fail("b.test", "", "")
		log := make(events, 10)
		c := s.Client()
		c.SelfTest = selfTest
		c.SelfTest.Interval = time.Millisecond
		c.Log = slog.New(log)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		if level := <-log; level != "ERROR" || c.Validation().On {
			t.Error(level, c.Validation())
		}
		s.Fail("b.test", "", "BOGUS")
		if level := <-log; level != "INFO" || !c.Validation().On {
			t.Error(level, c.Validation())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("ends amid a test", func(t *testing.T) {
		asked := make(chan struct{}, 4)
		c := &dnssec.Client{
			Servers: []string{raw(t, func([]byte) [][]byte { asked <- struct{}{}; return nil })},
			Timeout: time.Hour, TryTimeout: time.Hour, SelfTest: selfTest,
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		<-asked
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("waits without names", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := new(dnssec.Client).Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestTest is the one self-test of a command.
func TestTest(t *testing.T) {
	for _, tt := range []struct {
		name, fault string // of the bogus name
		trust       dnssec.TrustAD
		on          bool
		says        string
	}{
		{"passed", "BOGUS", dnssec.TrustAuto, true, ""},
		{"proof", "", dnssec.TrustAuto, false, "answers for b.test"},
		{"nobody answers", "TIMEOUT", dnssec.TrustAuto, true, "unproven"},
		{"not asked", "BOGUS", dnssec.TrustNever, false, "never"},
	} {
		t.Run("DANE-002 "+tt.name, func(t *testing.T) {
			s := selfTestServer(t)
			s.Fail("b.test", "", tt.fault)
			c := &dnssec.Client{Servers: []string{s.Addr}, SelfTest: selfTest, TrustAD: tt.trust, TryTimeout: 200 * time.Millisecond}
			v := c.Test(t.Context())
			if v.On != tt.on || !strings.Contains(v.Reason, tt.says) || (tt.says == "") != (v.Reason == "") {
				t.Errorf("got %+v, want on %v, %q", v, tt.on, tt.says)
			}
		})
	}
}

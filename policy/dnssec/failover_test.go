package dnssec_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
)

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newClock() *clock { return &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func TestFailover(t *testing.T) {
	for _, fault := range []string{"REFUSED", "FORMERR", "GARBAGE", "TIMEOUT", "SERVFAIL"} {
		t.Run(fault, func(t *testing.T) {
			a, b := dnstest.New(t, testZone, "example.org"), dnstest.New(t, testZone, "example.org")
			a.Fail("*", "", fault)
			time := newClock()
			c := a.Client()
			c.Servers = []string{a.Addr, b.Addr}
			c.Now = time.now
			ask := func(wantA, wantB int) {
				t.Helper()
				r, err := c.LookupA(t.Context(), "mx.example.org")
				if err != nil || !r.Secure || len(r.Records) != 2 {
					t.Fatal(r, err)
				}
				if na, nb := len(a.Queries()), len(b.Queries()); na != wantA || nb != wantB {
					t.Fatalf("%d and %d questions, want %d and %d", na, nb, wantA, wantB)
				}
				a.ResetQueries()
				b.ResetQueries()
			}
			ask(1, 1)
			if fault == "SERVFAIL" { // is about the name and not the server
				ask(1, 1)
				return
			}
			ask(0, 1)
			time.t = time.t.Add(16 * second)
			ask(1, 1)
			a.Fail("*", "", "")
			ask(0, 1)
			time.t = time.t.Add(16 * second)
			ask(1, 0)
		})
	}
}

const second = time.Second

func TestUnreachableFailover(t *testing.T) {
	s := dnstest.New(t, testZone, "example.org")
	c := &dnssec.Client{Servers: []string{dnstest.Refused(t), s.Addr}, TryTimeout: time.Hour, Timeout: time.Hour}
	if a, err := c.LookupA(t.Context(), "mx.example.org"); err != nil || !a.Secure {
		t.Fatal(a, err)
	}
}

// One lost packet is not the end.
func TestSilentOnce(t *testing.T) {
	n := 0
	s := dnstest.New(t, testZone, "example.org")
	addr := raw(t, func(q []byte) [][]byte {
		if n++; n == 1 {
			return nil
		}
		return [][]byte{pack(t, q, okReply)}
	})
	c := s.Client()
	c.Servers = []string{addr}
	c.Timeout = time.Minute
	if _, err := c.LookupA(t.Context(), "mx.example.org"); err != nil {
		t.Fatal(err)
	}
}

// A SERVFAIL may be the word of a validating resolver for forged data: it must
// not be turned into an insecure answer by another server.
func TestServFailOutweighs(t *testing.T) {
	test := dnssec.SelfTest{Signed: []string{"s1.test", "s2.test"}, Unsigned: "u.test", Bogus: "b.test"}
	const names = "\ns1.test. A 192.0.2.1\ns2.test. A 192.0.2.1\nu.test. A 192.0.2.1\nb.test. A 192.0.2.1\n"
	for _, tt := range []struct {
		name, fault  string
		secure       bool // the other server's answer
		test, passed bool
		silent       bool // the other server
		want         string
	}{
		{name: "DANE-003 bogus outweighs an insecure answer", fault: "BOGUS", want: "bogus"},
		{name: "DANE-003 bogus outweighs even a proven server", fault: "BOGUS", test: true, passed: true, want: "bogus"},
		{name: "a secure answer outweighs bogus", fault: "BOGUS", secure: true, want: "secure"},
		{name: "DANE-003 SERVFAIL outweighs an unproven server", fault: "SERVFAIL", test: true, want: "servfail"},
		{name: "a proven server outweighs SERVFAIL", fault: "SERVFAIL", test: true, passed: true, want: "insecure"},
		{name: "so does one the operator vouches for", fault: "SERVFAIL", want: "insecure"},
		{name: "a secure answer outweighs SERVFAIL", fault: "SERVFAIL", secure: true, test: true, want: "secure"},
		{name: "bogus is kept over silence", fault: "BOGUS", silent: true, want: "bogus"},
		{name: "SERVFAIL is kept over silence", fault: "SERVFAIL", silent: true, want: "servfail"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := dnstest.New(t, testZone+names, "example.org", "s1.test", "s2.test")
			suffixes := []string{"s1.test", "s2.test"}
			if tt.secure {
				suffixes = append(suffixes, "example.org")
			}
			b := dnstest.New(t, testZone+names, suffixes...)
			for _, s := range []*dnstest.Server{a, b} {
				s.Fail("b.test", "", "SERVFAIL")
			}
			c := a.Client()
			c.Servers = []string{a.Addr, b.Addr}
			if tt.test {
				c.SelfTest = test
			}
			if tt.passed && !dnssec.SelfTestOnce(c, t.Context()) {
				t.Fatal("self-test", c.Validation())
			}
			a.Fail("mx.example.org", "", tt.fault)
			if tt.silent {
				b.Fail("mx.example.org", "", "TIMEOUT")
			}
			r, err := c.LookupA(t.Context(), "mx.example.org")
			switch tt.want {
			case "bogus":
				kind(t, err, dnssec.Bogus)
			case "servfail":
				kind(t, err, dnssec.ServFail)
			default:
				if err != nil || r.Secure != (tt.want == "secure") || len(r.Records) != 2 {
					t.Fatal(r, err)
				}
			}
		})
	}
}

func TestTrustNever(t *testing.T) {
	a, b := dnstest.New(t, testZone, "example.org"), dnstest.New(t, testZone, "example.org")
	c := a.Client()
	c.TrustAD = dnssec.TrustNever
	c.Servers = []string{a.Addr, b.Addr}
	r, err := c.LookupA(t.Context(), "mx.example.org")
	if err != nil || r.Secure {
		t.Error("DANE-001:", r, err)
	}
	if v := c.Validation(); v.On || !v.Never || !strings.Contains(v.Reason, "dns.trust_ad") {
		t.Error(v)
	}
	// Nobody is believed, so any answer is as good as another.
	a.Fail("*", "", "BOGUS")
	if r, err = c.LookupA(t.Context(), "mx.example.org"); err != nil || r.Secure {
		t.Error(r, err)
	}
}

func TestValidation(t *testing.T) {
	for _, tt := range []struct {
		name   string
		client *dnssec.Client
		on     bool
		says   []string
	}{
		{"DANE-001 far server", &dnssec.Client{Servers: []string{"192.0.2.1:53"}}, false, []string{"192.0.2.1:53", "dns.trust_ad"}},
		{"DANE-001 far server with opt-in", &dnssec.Client{Servers: []string{"192.0.2.1:53"}, TrustAD: dnssec.TrustAlways}, true, []string{"unproven"}},
		{"DANE-001 container forwarder", &dnssec.Client{Servers: []string{"127.0.0.11:53"}}, false, []string{"127.0.0.11:53"}},
		{"near server", &dnssec.Client{Servers: []string{"127.0.0.1"}}, true, []string{"unproven", "no self-test"}},
		{"near server, test to come", &dnssec.Client{Servers: []string{"[::1]:53"}, SelfTest: dnssec.SelfTest{Bogus: "b.test"}}, true, []string{"not passed"}},
		{"one of two", &dnssec.Client{Servers: []string{"192.0.2.1:53", "127.0.0.53:53"}}, true, []string{"192.0.2.1:53", "not used"}},
		{"no address", &dnssec.Client{Servers: []string{"localhost:53"}}, false, []string{`"localhost:53"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := tt.client.Validation()
			if v.On != tt.on || v.Never {
				t.Error(v)
			}
			for _, s := range tt.says {
				if !strings.Contains(v.Reason, s) {
					t.Errorf("reason %q does not say %q", v.Reason, s)
				}
			}
		})
	}
}

// As long as one server is believed, no other is asked.
func TestOnlyBelievedAreAsked(t *testing.T) {
	asked := false
	far := raw(t, func(q []byte) [][]byte { asked = true; return [][]byte{pack(t, q, okReply)} })
	near := dnstest.New(t, testZone, "example.org")
	far = strings.Replace(far, "127.0.0.1", "127.0.0.11", 1)
	near.Fail("*", "", "REFUSED")
	c := near.Client()
	c.Servers = []string{far, near.Addr}
	_, err := c.LookupA(t.Context(), "mx.example.org")
	if e := kind(t, err, dnssec.Refused); e.Server != near.Addr || asked {
		t.Error(e)
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	time := newClock()
	c := &dnssec.Client{ResolvConf: path, Now: time.now}
	expect := func(what, server string) {
		t.Helper()
		v := c.Validation()
		if server == "" && v.On || server != "" && !v.On && strings.Contains(v.Reason, " "+server+" ") {
			return
		}
		t.Fatalf("%s: %+v", what, v)
	}
	expect("without a file the local machine is asked", "")
	write("nameserver 192.0.2.1\n")
	expect("it is looked at once a second", "")
	time.t = time.t.Add(second)
	expect("then it is read", "192.0.2.1:53")
	write("nameserver 192.0.2.2\n")
	time.t = time.t.Add(second)
	expect("and again when replaced", "192.0.2.2:53")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	time.t = time.t.Add(second)
	expect("a vanished file changes nothing", "192.0.2.2:53")
	write("nameserver fe80::1%eth0\n")
	time.t = time.t.Add(second)
	expect("a zone is kept", "[fe80::1%eth0]:53")
	write("search example.org\n")
	time.t = time.t.Add(second)
	expect("without a server it is the local machine", "")
}

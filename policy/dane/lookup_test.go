package dane_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
)

// good and useless are TLSA RDATA.
var (
	good    = "3 1 1 " + strings.Repeat("ab", 32)
	better  = "3 1 1 " + strings.Repeat("cd", 32)
	useless = "1 1 1 " + strings.Repeat("ab", 32)
)

// scene is one destination in DNS, and what becomes of it. Names below sig.test
// are signed, those below uns.test are not.
type scene struct {
	name    string
	zone    string
	fail    [][3]string // name, type, fault
	nextHop string      // default d.sig.test
	port    uint16      // default 25
	fixed   bool

	class  dane.Class
	states string   // "host state base, host state, …" with base if it is not the host
	asked  []string // all TLSA and CNAME questions, sorted, if not nil
}

func (s *scene) lookup(t *testing.T) (*dane.Plan, *dnstest.Server) {
	t.Helper()
	srv := dnstest.New(t, s.zone, "sig.test")
	for _, f := range s.fail {
		srv.Fail(f[0], f[1], f[2])
	}
	if s.nextHop == "" {
		s.nextHop = "d.sig.test"
	}
	if s.port == 0 {
		s.port = 25
	}
	return dane.Lookup(t.Context(), srv.Client(), s.nextHop, s.port, s.fixed), srv
}

// states words the hosts of a plan as in a scene.
func states(p *dane.Plan) string {
	var b []string
	for _, h := range p.Hosts {
		s := h.Name + " " + h.State.String()
		if h.Base != "" && h.Base != h.Name {
			s += " " + h.Base
		}
		b = append(b, s)
	}
	return strings.Join(b, ", ")
}

// asked lists the questions of some types.
func asked(srv *dnstest.Server, types ...string) []string {
	list := []string{}
	for _, q := range srv.Queries() {
		if typ, _, _ := strings.Cut(q, " "); slices.Contains(types, typ) {
			list = append(list, q)
		}
	}
	slices.Sort(list)
	return slices.Compact(list) // a question may be repeated after a timeout
}

func checkPlan(t *testing.T, p *dane.Plan) {
	t.Helper()
	printable := func(s string) bool {
		return s != "" && len(s) <= 200 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
	}
	if !printable(p.Reason) {
		t.Errorf("reason of the plan: %q", p.Reason)
	}
	if (p.Class == dane.ClassBroken) != (p.Err != nil) {
		t.Errorf("class %v with error %v", p.Class, p.Err)
	}
	for _, h := range p.Hosts {
		if !printable(h.Reason) {
			t.Errorf("reason of %s: %q", h.Name, h.Reason)
		}
		if (h.State == dane.Broken) != (h.Err != nil) {
			t.Errorf("%s is %v with error %v", h.Name, h.State, h.Err)
		}
		if (h.State == dane.Usable) != (len(h.Usable) > 0) {
			t.Errorf("%s is %v with %d usable records", h.Name, h.State, len(h.Usable))
		}
		if h.State == dane.Broken && p.TTL > 30*time.Second {
			t.Errorf("%s is broken for %v", h.Name, p.TTL)
		}
	}
}

func play(t *testing.T, scenes []scene) {
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel() // some wait for a timeout
			p, srv := s.lookup(t)
			checkPlan(t, p)
			if p.Class != s.class {
				t.Errorf("class %v, want %v: %s", p.Class, s.class, p.Reason)
			}
			if diff := cmp.Diff(s.states, states(p)); diff != "" {
				t.Errorf("hosts (-want +got): %s", diff)
			}
			if s.asked != nil {
				if diff := cmp.Diff(s.asked, asked(srv, "TLSA", "CNAME")); diff != "" {
					t.Errorf("questions (-want +got): %s", diff)
				}
			}
		})
	}
}

const (
	none     = dane.ClassNone
	partial  = dane.ClassPartial
	full     = dane.ClassFull
	unusable = dane.ClassUnusable
	broken   = dane.ClassBroken
)

func TestStatusAndErrors(t *testing.T) {
	const (
		mx   = "d.sig.test. 300 IN MX 10 mx.sig.test.\n"
		addr = "mx.sig.test. 300 IN A 192.0.2.1\n"
	)
	record := "_25._tcp.mx.sig.test. 300 IN TLSA " + good + "\n"
	second := "d.sig.test. 300 IN MX 20 mx2.sig.test.\nmx2.sig.test. 300 IN A 192.0.2.2\n"
	secondRecord := "_25._tcp.mx2.sig.test. 300 IN TLSA " + good + "\n"

	scenes := []scene{
		{name: "DANE-003 unsigned host is insecure", zone: "d.sig.test. IN MX 10 mx.uns.test.\nmx.uns.test. IN A 192.0.2.1\n_25._tcp.mx.uns.test. IN TLSA " + good,
			class: none, states: "mx.uns.test insecure", asked: []string{}},
		{name: "DANE-003 bogus is an error", zone: mx + addr + record, fail: [][3]string{{"mx.sig.test", "*", "BOGUS"}},
			class: broken, states: "mx.sig.test broken", asked: []string{}},
		{name: "DANE-004 TLSA NXDOMAIN is an answer", zone: mx + addr,
			class: none, states: "mx.sig.test no TLSA", asked: []string{"TLSA _25._tcp.mx.sig.test"}},
		{name: "DANE-004 TLSA NODATA is an answer", zone: mx + addr + "_25._tcp.mx.sig.test. IN TXT x",
			class: none, states: "mx.sig.test no TLSA"},
		{name: "DANE-006 error on MX, no fallback to A", zone: mx + addr + record + "d.sig.test. IN A 192.0.2.3", fail: [][3]string{{"d.sig.test", "MX", "SERVFAIL"}},
			class: broken, states: "", asked: []string{}},
		{name: "DANE-006 error on MX of an unsigned domain", nextHop: "d.uns.test", zone: "d.uns.test. IN A 192.0.2.3", fail: [][3]string{{"d.uns.test", "MX", "TIMEOUT"}},
			class: broken, states: "", asked: []string{}},
		{name: "DANE-007 error on the addresses of one host", zone: mx + addr + record + second + secondRecord, fail: [][3]string{{"mx.sig.test", "*", "SERVFAIL"}},
			class: full, states: "mx.sig.test broken, mx2.sig.test usable"},
		{name: "DANE-008 TLSA error at the sole host", zone: mx + addr + record, fail: [][3]string{{"_25._tcp.mx.sig.test", "TLSA", "TIMEOUT"}},
			class: broken, states: "mx.sig.test broken"},
		{name: "DANE-053 TLSA error beside a host without TLSA", zone: mx + addr + second, fail: [][3]string{{"_25._tcp.mx.sig.test", "TLSA", "SERVFAIL"}},
			class: partial, states: "mx.sig.test broken, mx2.sig.test no TLSA"},
		{name: "DANE-053 TLSA error beside a usable host", zone: mx + addr + second + secondRecord, fail: [][3]string{{"_25._tcp.mx.sig.test", "TLSA", "SERVFAIL"}},
			class: full, states: "mx.sig.test broken, mx2.sig.test usable"},
		{name: "DANE-009 all hosts in error", zone: mx + addr + second, fail: [][3]string{{"mx.sig.test", "*", "SERVFAIL"}, {"mx2.sig.test", "*", "REFUSED"}},
			class: broken, states: "mx.sig.test broken, mx2.sig.test broken", asked: []string{}},
		{name: "DANE-034 AAAA error, A secure", zone: mx + addr + record, fail: [][3]string{{"mx.sig.test", "AAAA", "TIMEOUT"}},
			class: full, states: "mx.sig.test usable"},
		{name: "DANE-034 A error, AAAA secure", zone: mx + "mx.sig.test. IN AAAA 2001:db8::1\n" + record, fail: [][3]string{{"mx.sig.test", "A", "SERVFAIL"}},
			class: full, states: "mx.sig.test usable"},
		{name: "DANE-008 A error, AAAA securely absent", zone: mx + record, fail: [][3]string{{"mx.sig.test", "A", "SERVFAIL"}},
			class: broken, states: "mx.sig.test broken", asked: []string{}},
		{name: "DANE-008 A error, AAAA insecurely absent", zone: "d.sig.test. IN MX 10 mx.uns.test.\nmx.uns.test. IN TXT x", fail: [][3]string{{"mx.uns.test", "A", "SERVFAIL"}},
			class: none, states: "mx.uns.test insecure", asked: []string{}},
	}
	for _, fault := range []string{"SERVFAIL", "REFUSED", "FORMERR", "TIMEOUT", "GARBAGE"} {
		scenes = append(scenes,
			scene{name: "DANE-005 MX " + fault, zone: mx + addr + record, fail: [][3]string{{"d.sig.test", "MX", fault}},
				class: broken, states: ""},
			scene{name: "DANE-005 addresses " + fault, zone: mx + addr + record, fail: [][3]string{{"mx.sig.test", "*", fault}},
				class: broken, states: "mx.sig.test broken"},
			scene{name: "DANE-005 TLSA " + fault, zone: mx + addr + record, fail: [][3]string{{"_25._tcp.mx.sig.test", "TLSA", fault}},
				class: broken, states: "mx.sig.test broken"})
	}
	play(t, scenes)
}

func TestAliases(t *testing.T) {
	const mx = "d.sig.test. IN MX 10 a.sig.test.\n"
	chain := mx + "a.sig.test. IN CNAME b.sig.test.\nb.sig.test. IN CNAME c.sig.test.\nc.sig.test. IN A 192.0.2.1\n"
	leads := mx + "a.sig.test. IN CNAME h.uns.test.\nh.uns.test. IN A 192.0.2.1\n"
	at := func(name, rdata string) string { return "_25._tcp." + name + ". IN TLSA " + rdata + "\n" }

	play(t, []scene{
		{name: "DANE-010 alias loop", zone: mx + "a.sig.test. IN CNAME b.sig.test.\nb.sig.test. IN CNAME a.sig.test.",
			class: broken, states: "a.sig.test broken", asked: []string{}},
		{name: "DANE-010 insecure link behind a secure one", zone: leads,
			class: none, states: "a.sig.test no TLSA"},
		{name: "DANE-011 alias made from a DNAME", zone: "d.sig.test. IN MX 10 mx.x.sig.test.\nx.sig.test. IN DNAME y.sig.test.\nmx.x.sig.test. IN CNAME mx.y.sig.test.\nmx.y.sig.test. IN A 192.0.2.1\n" + at("mx.y.sig.test", good),
			class: full, states: "mx.x.sig.test usable mx.y.sig.test"},
		{name: "DANE-012 alias signed, target not", zone: leads + at("a.sig.test", good) + at("h.uns.test", better),
			class: full, states: "a.sig.test usable", asked: []string{"CNAME a.sig.test", "TLSA _25._tcp.a.sig.test"}},
		{name: "DANE-036 both unsigned", zone: "d.sig.test. IN MX 10 a.uns.test.\na.uns.test. IN CNAME h.uns.test.\nh.uns.test. IN A 192.0.2.1\n" + at("a.uns.test", good),
			class: none, states: "a.uns.test insecure", asked: []string{"CNAME a.uns.test"}},
		{name: "DANE-036 alias unsigned, target signed", zone: "d.sig.test. IN MX 10 a.uns.test.\na.uns.test. IN CNAME h.sig.test.\nh.sig.test. IN A 192.0.2.1\n" + at("h.sig.test", good),
			class: none, states: "a.uns.test insecure", asked: []string{"CNAME a.uns.test"}},
		{name: "DANE-012 error on the CNAME question", zone: leads + at("a.sig.test", good), fail: [][3]string{{"a.sig.test", "CNAME", "SERVFAIL"}},
			class: broken, states: "a.sig.test broken", asked: []string{"CNAME a.sig.test"}},
		{name: "DANE-012 error on the CNAME question, nothing signed", nextHop: "d.uns.test",
			zone: "d.uns.test. IN MX 10 a.uns.test.\na.uns.test. IN CNAME h.uns.test.\nh.uns.test. IN A 192.0.2.1\n", fail: [][3]string{{"a.uns.test", "CNAME", "SERVFAIL"}},
			class: none, states: "a.uns.test broken"},
		{name: "DANE-008 A error behind a signed alias, AAAA insecurely absent", zone: leads, fail: [][3]string{{"a.sig.test", "A", "SERVFAIL"}},
			class: broken, states: "a.sig.test broken", asked: []string{}},
		{name: "DANE-037 at the end", zone: chain + at("c.sig.test", good),
			class: full, states: "a.sig.test usable c.sig.test", asked: []string{"TLSA _25._tcp.c.sig.test"}},
		{name: "DANE-037 at the original", zone: chain + at("a.sig.test", good),
			class: full, states: "a.sig.test usable", asked: []string{"TLSA _25._tcp.a.sig.test", "TLSA _25._tcp.c.sig.test"}},
		{name: "DANE-037 at both", zone: chain + at("a.sig.test", good) + at("c.sig.test", better),
			class: full, states: "a.sig.test usable c.sig.test"},
		{name: "DANE-037 at an intermediate only", zone: chain + at("b.sig.test", good),
			class: none, states: "a.sig.test no TLSA", asked: []string{"TLSA _25._tcp.a.sig.test", "TLSA _25._tcp.c.sig.test"}},
		{name: "DANE-040 unusable at the end, good at the original", zone: chain + at("c.sig.test", useless) + at("a.sig.test", good),
			class: unusable, states: "a.sig.test unusable c.sig.test", asked: []string{"TLSA _25._tcp.c.sig.test"}},
		{name: "DANE-040 error at the end, good at the original", zone: chain + at("a.sig.test", good), fail: [][3]string{{"_25._tcp.c.sig.test", "TLSA", "SERVFAIL"}},
			class: broken, states: "a.sig.test broken", asked: []string{"TLSA _25._tcp.c.sig.test"}},
		{name: "DANE-040 insecure at the end, good at the original", zone: chain + "_25._tcp.c.sig.test. IN CNAME t.uns.test.\nt.uns.test. IN TLSA " + better + "\n" + at("a.sig.test", good),
			class: full, states: "a.sig.test usable"},
		{name: "DANE-041 alias at the TLSA name", zone: mx + "a.sig.test. IN A 192.0.2.1\n_25._tcp.a.sig.test. IN CNAME tlsa.prov.sig.test.\ntlsa.prov.sig.test. IN TLSA " + good,
			class: full, states: "a.sig.test usable"},
		{name: "DANE-042 insecure TLSA", zone: mx + "a.sig.test. IN A 192.0.2.1\n_25._tcp.a.sig.test. IN CNAME t.uns.test.\nt.uns.test. IN TLSA " + good,
			class: none, states: "a.sig.test no TLSA"},
	})
}

func TestScope(t *testing.T) {
	host := func(name string, records ...string) string {
		s := name + ". IN A 192.0.2.1\n"
		for _, r := range records {
			s += "_25._tcp." + name + ". IN TLSA " + r + "\n"
		}
		return s
	}
	mx := func(pref int, host string) string { return fmt.Sprintf("d.sig.test. IN MX %d %s.\n", pref, host) }
	long := strings.Repeat(strings.Repeat("a", 60)+".", 3) + strings.Repeat("b", 53) + ".sig.test"

	play(t, []scene{
		{name: "DANE-020 MX is an IPv4 address", zone: mx(10, "192.0.2.1"), class: none, states: "192.0.2.1 insecure", asked: []string{}},
		{name: "DANE-020 MX is an IPv4 address beside a host", zone: mx(10, "192.0.2.1") + mx(20, "mx.sig.test") + host("mx.sig.test", good),
			class: partial, states: "192.0.2.1 insecure, mx.sig.test usable"},
		{name: "DANE-020 next hop is an address", nextHop: "[2001:db8::1]", fixed: true, class: none, states: "[2001:db8::1] insecure", asked: []string{}},
		{name: "DANE-022 sorted by preference", zone: mx(30, "c.sig.test") + mx(10, "b.sig.test") + mx(20, "a.sig.test") + host("a.sig.test", good) + host("b.sig.test") + host("c.sig.test", good),
			class: partial, states: "b.sig.test no TLSA, a.sig.test usable, c.sig.test usable"},
		{name: "DANE-022 duplicates are merged", zone: mx(30, "b.sig.test") + mx(10, "b.sig.test") + mx(20, "a.sig.test") + host("a.sig.test", good) + host("b.sig.test", good),
			class: full, states: "b.sig.test usable, a.sig.test usable"},
		{name: "DANE-024 insecure MX, host with TLSA", nextHop: "d.uns.test", zone: "d.uns.test. IN MX 10 mx.sig.test.\n" + host("mx.sig.test", good),
			class: partial, states: "mx.sig.test usable"},
		{name: "DANE-024 insecure MX, unusable TLSA", nextHop: "d.uns.test", zone: "d.uns.test. IN MX 10 mx.sig.test.\n" + host("mx.sig.test", useless),
			class: unusable, states: "mx.sig.test unusable"},
		{name: "DANE-021 secure alias to insecure MX", zone: "d.sig.test. IN CNAME d.uns.test.\nd.uns.test. IN MX 10 mx.sig.test.\n" + host("mx.sig.test", good),
			class: partial, states: "mx.sig.test usable"},
		{name: "DANE-029 fixed host, its port", nextHop: "smtp.sig.test", port: 587, fixed: true, zone: "smtp.sig.test. IN MX 10 no.sig.test.\nsmtp.sig.test. IN A 192.0.2.1\n_587._tcp.smtp.sig.test. IN TLSA " + good,
			class: full, states: "smtp.sig.test usable", asked: []string{"TLSA _587._tcp.smtp.sig.test"}},
		{name: "DANE-126 fixed host without TLSA", nextHop: "smtp.sig.test", fixed: true, zone: host("smtp.sig.test"), class: none, states: "smtp.sig.test no TLSA"},
		{name: "DANE-126 fixed host, unsigned", nextHop: "smtp.uns.test", fixed: true, zone: host("smtp.uns.test", good), class: none, states: "smtp.uns.test insecure"},
		{name: "DANE-030 no MX records", zone: host("d.sig.test", good), class: full, states: "d.sig.test usable"},
		{name: "DANE-030 no MX records, unsigned", nextHop: "d.uns.test", zone: host("d.uns.test", good), class: none, states: "d.uns.test insecure", asked: []string{}},
		{name: "DANE-030 no such domain", zone: host("e.sig.test"), class: none, states: "d.sig.test absent"},
		{name: "DANE-032 null MX among others", zone: mx(0, "") + mx(10, "mx.sig.test") + host("mx.sig.test", good), class: full, states: "mx.sig.test usable"},
		{name: "DANE-033 address insecure, TLSA would fail", nextHop: "d.sig.test", zone: mx(10, "mx.uns.test") + host("mx.uns.test"), fail: [][3]string{{"_25._tcp.mx.uns.test", "TLSA", "SERVFAIL"}},
			class: none, states: "mx.uns.test insecure", asked: []string{}},
		{name: "DANE-033 no address", zone: mx(10, "mx.sig.test") + "mx.sig.test. IN TXT x\n_25._tcp.mx.sig.test. IN TLSA " + good, class: none, states: "mx.sig.test absent", asked: []string{}},
		{name: "DANE-033 absent host does not count", zone: mx(10, "gone.sig.test") + mx(20, "mx.sig.test") + host("mx.sig.test", good), class: full, states: "gone.sig.test absent, mx.sig.test usable"},
		{name: "DANE-033 insecurely absent host counts", zone: mx(10, "gone.uns.test") + mx(20, "mx.sig.test") + host("mx.sig.test", good), class: partial, states: "gone.uns.test insecure, mx.sig.test usable"},
		{name: "DANE-035 one TLSA question", zone: mx(10, "mx.sig.test") + host("mx.sig.test", good), class: full, states: "mx.sig.test usable", asked: []string{"TLSA _25._tcp.mx.sig.test"}},
		{name: "DANE-039 port 2525", port: 2525, zone: mx(10, "mx.sig.test") + host("mx.sig.test", good) + "_2525._tcp.mx.sig.test. IN TLSA " + useless,
			class: unusable, states: "mx.sig.test unusable", asked: []string{"TLSA _2525._tcp.mx.sig.test"}},
		{name: "DANE-039 host too long for a TLSA name", zone: mx(10, long) + long + ". IN A 192.0.2.1\n", class: none, states: long + " no TLSA", asked: []string{}},
		{name: "DANE-050 one usable record is enough", zone: mx(10, "mx.sig.test") + host("mx.sig.test", useless, good), class: full, states: "mx.sig.test usable"},
		{name: "DANE-051 none usable", zone: mx(10, "mx.sig.test") + host("mx.sig.test", useless), class: unusable, states: "mx.sig.test unusable"},
		{name: "DANE-052 proven absence", zone: mx(10, "mx.sig.test") + host("mx.sig.test"), class: none, states: "mx.sig.test no TLSA"},
		{name: "DANE-062 a bare key, 3 1 0", zone: mx(10, "mx.sig.test") + host("mx.sig.test", fmt.Sprintf("3 1 0 %x", issue(t, nil, "x").RawSubjectPublicKeyInfo)),
			class: full, states: "mx.sig.test usable"},
	})
}

func TestNullMX(t *testing.T) {
	for name, zone := range map[string]string{
		"DANE-031 alone":                     "d.sig.test. IN MX 0 .\nd.sig.test. IN A 192.0.2.1",
		"DANE-032 alone, of preference 10":   "d.sig.test. IN MX 10 .\nd.sig.test. IN A 192.0.2.1",
		"DANE-032 twice, nothing else there": "d.sig.test. IN MX 0 .\nd.sig.test. IN MX 10 .",
	} {
		t.Run(name, func(t *testing.T) {
			p, srv := (&scene{zone: zone}).lookup(t)
			checkPlan(t, p)
			if !p.NullMX || p.Class != none || len(p.Hosts) != 0 || !p.MXSecure {
				t.Errorf("got %+v", p)
			}
			if diff := cmp.Diff([]string{"MX d.sig.test"}, srv.Queries()); diff != "" {
				t.Errorf("questions (-want +got): %s", diff)
			}
		})
	}
}

func TestPlanFields(t *testing.T) {
	p, _ := (&scene{nextHop: "D.sig.test.", zone: `
d.sig.test. 500 IN CNAME e.sig.test.
e.sig.test. 400 IN MX 10 a.sig.test.
a.sig.test. 300 IN CNAME c.sig.test.
c.sig.test. 200 IN A 192.0.2.1
c.sig.test. 200 IN AAAA 2001:db8::1
_25._tcp.c.sig.test. 100 IN TLSA ` + good}).lookup(t)
	checkPlan(t, p)
	if p.NextHop != "d.sig.test" || p.Expanded != "e.sig.test" || !p.MXSecure || p.Implicit || p.Fixed || p.Port != 25 {
		t.Errorf("plan %+v", p)
	}
	h := p.Hosts[0]
	if h.Name != "a.sig.test" || h.Expanded != "c.sig.test" || h.Base != "c.sig.test" || !h.Secure || h.Preference != 10 {
		t.Errorf("host %+v", h)
	}
	if got := fmt.Sprint(h.Addrs); got != "[192.0.2.1 2001:db8::1]" {
		t.Errorf("addresses %s", got)
	}
}

func TestTTL(t *testing.T) {
	zone := func(mx, addr, tlsa int) string {
		return fmt.Sprintf("d.sig.test. %d IN MX 10 mx.sig.test.\nmx.sig.test. %d IN A 192.0.2.1\nmx.sig.test. 3600 IN AAAA 2001:db8::1\n_25._tcp.mx.sig.test. %d IN TLSA %s\n", mx, addr, tlsa, good)
	}
	for _, tt := range []struct {
		name string
		zone string
		want time.Duration
	}{
		{"DANE-015 of MX", zone(60, 600, 600), time.Minute},
		{"DANE-015 of the address", zone(600, 60, 600), time.Minute},
		{"DANE-015 of TLSA", zone(600, 600, 60), time.Minute},
		{"DANE-015 of a host without TLSA", zone(600, 600, 600) + "d.sig.test. 600 IN MX 20 x.uns.test.\nx.uns.test. 60 IN A 192.0.2.9\nx.uns.test. 60 IN AAAA 2001:db8::9", time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := (&scene{zone: tt.zone}).lookup(t)
			if p.TTL != tt.want {
				t.Errorf("TTL %v, want %v", p.TTL, tt.want)
			}
		})
	}
	t.Run("DANE-015 of an error", func(t *testing.T) {
		p, _ := (&scene{zone: zone(600, 600, 600), fail: [][3]string{{"d.sig.test", "MX", "SERVFAIL"}}}).lookup(t)
		if p.TTL != 30*time.Second {
			t.Errorf("TTL %v of an error", p.TTL)
		}
	})
	t.Run("DANE-015 of an error in one address family", func(t *testing.T) {
		p, _ := (&scene{zone: zone(600, 600, 600), fail: [][3]string{{"mx.sig.test", "A", "SERVFAIL"}}}).lookup(t)
		if p.Class != full || p.TTL != 30*time.Second {
			t.Errorf("class %v, TTL %v", p.Class, p.TTL)
		}
	})
}

// TestManyHosts has more hosts than are looked up.
func TestManyHosts(t *testing.T) {
	var b strings.Builder
	for i := range 30 {
		fmt.Fprintf(&b, "d.sig.test. IN MX %d mx%02d.sig.test.\nmx%02d.sig.test. IN A 192.0.2.1\n", 10+i, i, i)
		fmt.Fprintf(&b, "e.sig.test. IN MX %d mx%02d.sig.test.\n_26._tcp.mx%02d.sig.test. IN TLSA %s\n", 10+i, i, i, good)
	}
	for port, want := range map[uint16]dane.Class{26: full, 25: partial} {
		p, srv := (&scene{zone: b.String(), port: port}).lookup(t)
		checkPlan(t, p)
		if p.Class != want || len(p.Hosts) != 20 || p.Skipped != 10 || p.Hosts[19].Name != "mx19.sig.test" {
			t.Errorf("port %d: class %v, %d hosts, %d skipped: %s", port, p.Class, len(p.Hosts), p.Skipped, p.Reason)
		}
		if n := len(asked(srv, "A")); n != 20 {
			t.Errorf("%d hosts were looked up", n)
		}
	}
}

func TestValidationOff(t *testing.T) {
	t.Run("DANE-001 AD of a resolver that is not trusted", func(t *testing.T) {
		srv := dnstest.New(t, "d.sig.test. IN MX 10 mx.sig.test.\nmx.sig.test. IN A 192.0.2.1\n_25._tcp.mx.sig.test. IN TLSA "+good, "sig.test")
		client := srv.Client()
		client.TrustAD = dnssec.TrustNever
		p := dane.Lookup(t.Context(), client, "d.sig.test", 25, false)
		checkPlan(t, p)
		if p.Class != none || p.MXSecure || states(p) != "mx.sig.test insecure" {
			t.Errorf("class %v, MX secure %v, hosts %s", p.Class, p.MXSecure, states(p))
		}
		if q := asked(srv, "TLSA"); len(q) > 0 {
			t.Errorf("asked %v", q)
		}
	})
}

// TestCancel ends the context while the addresses of many hosts are asked.
func TestCancel(t *testing.T) {
	var b strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, "d.sig.test. IN MX 10 mx%02d.sig.test.\nmx%02d.sig.test. IN A 192.0.2.1\n", i, i)
	}
	srv := dnstest.New(t, b.String(), "sig.test")
	for i := range 20 {
		srv.Fail(fmt.Sprintf("mx%02d.sig.test", i), "*", "TIMEOUT")
	}
	client := srv.Client()
	client.TryTimeout, client.Timeout = time.Hour, time.Hour

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for len(asked(srv, "A", "AAAA")) < 12 && t.Context().Err() == nil {
			runtime.Gosched()
		}
		cancel()
	})
	p := dane.Lookup(ctx, client, "d.sig.test", 25, false)
	checkPlan(t, p)
	if e, ok := errors.AsType[*dnssec.Error](p.Err); p.Class != broken || !ok || e.Kind != dnssec.Canceled {
		t.Errorf("class %v, error %v", p.Class, p.Err)
	}
}

// FuzzLookup has any name as next hop: nothing of it may panic, or get unbounded or
// unprintable into a reason. No server is asked twice.
func FuzzLookup(f *testing.F) {
	srv := dnstest.New(f, "d.sig.test. IN MX 10 mx.sig.test.\nmx.sig.test. IN A 192.0.2.1", "sig.test")
	client := srv.Client()
	for _, s := range []string{"d.sig.test", "192.0.2.1", "[2001:db8::1]", "a..b", "", ".", "x\x00y", strings.Repeat("a.", 200), "a b{}"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, name string, fixed bool) {
		checkPlan(t, dane.Lookup(t.Context(), client, name, 25, fixed))
	})
}

// BenchmarkLookup compares one lookup with the bare round trips that cannot be
// avoided: MX, then addresses, then TLSA.
func BenchmarkLookup(b *testing.B) {
	srv := dnstest.New(b, "d.sig.test. IN MX 10 mx.sig.test.\nmx.sig.test. IN A 192.0.2.1\nmx.sig.test. IN AAAA 2001:db8::1\n_25._tcp.mx.sig.test. IN TLSA "+good, "sig.test")
	const delay = 20 * time.Millisecond
	srv.Delay(delay)
	client := srv.Client()
	for b.Loop() {
		if p := dane.Lookup(b.Context(), client, "d.sig.test", 25, false); p.Class != full {
			b.Fatal(p.Reason)
		}
	}
	took := float64(b.Elapsed()) / float64(b.N)
	b.ReportMetric(3*float64(delay)/took, "of-3-round-trips")
	b.ReportMetric(float64(len(srv.Queries()))/float64(b.N), "questions/op")
}

// TestNoDomain: a next hop that does not exist is told from one without MX records,
// and its addresses are not asked for.
func TestNoDomain(t *testing.T) {
	for _, c := range []struct {
		name, nextHop, zone string
		want                bool
		states              string
		asked               int // questions for an address
	}{
		{"SMTP-002 proven", "d.sig.test", "e.sig.test. IN A 192.0.2.1\n", true, "d.sig.test absent", 0},
		{"SMTP-002 insecure", "d.uns.test", "e.uns.test. IN A 192.0.2.1\n", true, "d.uns.test insecure", 0},
		{"SMTP-002 end of an alias", "d.uns.test", "d.uns.test. IN CNAME gone.uns.test.\n", true, "d.uns.test insecure", 0},
		{"SMTP-004 no MX records", "d.uns.test", "d.uns.test. IN A 192.0.2.1\n", false, "d.uns.test insecure", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, srv := (&scene{nextHop: c.nextHop, zone: c.zone}).lookup(t)
			checkPlan(t, p)
			if p.NoDomain != c.want || !p.Implicit || states(p) != c.states {
				t.Errorf("NoDomain %v, Implicit %v, hosts %q", p.NoDomain, p.Implicit, states(p))
			}
			if n := len(asked(srv, "A", "AAAA")); n != c.asked {
				t.Errorf("%d questions for an address, want %d", n, c.asked)
			}
		})
	}
}

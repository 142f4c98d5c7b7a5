package dane_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/dane"
	"postseal/policy/dnssec/dnstest"
)

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		plan dane.Plan
		host dane.Host
		want string
	}{
		{"DANE-087 base alone", dane.Plan{NextHop: "d.example"}, dane.Host{Name: "mx.d.example", Base: "mx.d.example"}, "mx.d.example"},
		{"DANE-088 secure MX", dane.Plan{NextHop: "d.example", MXSecure: true}, dane.Host{Name: "mx.d.example", Base: "mx.d.example"}, "mx.d.example d.example"},
		{"DANE-088 secure MX behind an alias", dane.Plan{NextHop: "d.example", Expanded: "e.example", MXSecure: true}, dane.Host{Name: "mx.d.example", Base: "mx.d.example"}, "mx.d.example d.example e.example"},
		{"DANE-088 the domain is its own MX", dane.Plan{NextHop: "d.example", MXSecure: true}, dane.Host{Name: "d.example", Base: "d.example"}, "d.example"},
		{"DANE-089 insecure MX behind an alias", dane.Plan{NextHop: "d.example", Expanded: "e.example"}, dane.Host{Name: "mx.d.example", Expanded: "h.example", Base: "h.example"}, "h.example"},
		{"DANE-090 no MX, base is the expansion", dane.Plan{NextHop: "d.example", Expanded: "h.example", Implicit: true, MXSecure: true}, dane.Host{Name: "d.example", Expanded: "h.example", Base: "h.example"}, "h.example d.example"},
		{"DANE-090 no MX, base is the next hop", dane.Plan{NextHop: "d.example", Implicit: true, MXSecure: true}, dane.Host{Name: "d.example", Expanded: "h.example", Base: "d.example"}, "d.example"},
		{"DANE-090 fixed host, base is the expansion", dane.Plan{NextHop: "d.example", Fixed: true, MXSecure: true}, dane.Host{Name: "d.example", Expanded: "h.example", Base: "h.example"}, "h.example d.example"},
		{"DANE-087 no TLSA", dane.Plan{NextHop: "d.example"}, dane.Host{Name: "mx.d.example"}, "mx.d.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(tt.plan.Names(&tt.host), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestExample is that of RFC 7672 §3.2.2.
func TestExample(t *testing.T) {
	root := issue(t, nil, "root", authority)
	anchor := fmt.Sprintf("2 0 1 %x", digest(1, root.Raw))
	srv := dnstest.New(t, `
exchange.example.org.          IN CNAME mail.example.org.
mail.example.org.              IN CNAME example.com.
example.com.                   IN MX 10 mx10.example.com.
example.com.                   IN MX 15 mx15.example.com.
example.com.                   IN MX 20 mx20.example.com.
mx10.example.com.              IN A 192.0.2.10
_25._tcp.mx10.example.com.     IN TLSA `+anchor+`
mx15.example.com.              IN CNAME mxbackup.example.com.
mxbackup.example.com.          IN A 192.0.2.15
_25._tcp.mx15.example.com.     IN TLSA `+anchor+`
mx20.example.com.              IN CNAME mxbackup.example.net.
mxbackup.example.net.          IN A 198.51.100.20
_25._tcp.mxbackup.example.net. IN TLSA `+anchor+`
`, "example.org", "example.com", "example.net")

	p := dane.Lookup(t.Context(), srv.Client(), "exchange.example.org", 25, false)
	if p.Class != full || len(p.Hosts) != 3 { // DANE-038: MX hosts may be aliases
		t.Fatalf("class %v (%s), hosts %s", p.Class, p.Reason, states(p))
	}
	all := []string{"exchange.example.org", "mail.example.org", "example.com", "mx10.example.com", "mx15.example.com", "mxbackup.example.com", "mx20.example.com", "mxbackup.example.net"}
	for i, base := range []string{"mx10.example.com", "mx15.example.com", "mxbackup.example.net"} {
		h := &p.Hosts[i]
		want := []string{"exchange.example.org", "example.com", base}
		t.Run("DANE-093 "+h.Name, func(t *testing.T) {
			if h.Base != base {
				t.Errorf("base %s, want %s", h.Base, base)
			}
			for _, name := range all {
				leaf := issue(t, root, name)
				_, err := dane.Verify(h.Usable, der(leaf, root), p.Names(h), now)
				if (err == nil) != slices.Contains(want, name) {
					t.Errorf("certificate for %s: %v", name, err)
				}
			}
		})
	}
}

// part is a host of the combinations below: a state, and for Broken whether DANE is
// known to be possible there.
type part struct {
	label    string
	state    dane.State
	possible bool
}

var parts = []part{
	{"notlsa", dane.NoTLSA, false},
	{"insecure", dane.Insecure, false},
	{"usable", dane.Usable, false},
	{"unusable", dane.Unusable, false},
	{"absent", dane.Absent, false},
	{"lame", dane.Broken, false},  // no address lookup works
	{"bogus", dane.Broken, true},  // the same, said to be bogus
	{"notell", dane.Broken, true}, // secure address, no TLSA lookup works
}

// verdict restates DESIGN, plainly: look at what is reachable, and only if nothing there
// has TLSA at what is broken.
func verdict(secure bool, hosts []part) dane.Class {
	var usable, unusable, others, possible int
	for _, h := range hosts {
		switch h.state {
		case dane.Usable:
			usable++
		case dane.Unusable:
			unusable++
		case dane.NoTLSA, dane.Insecure:
			others++
		case dane.Broken:
			if secure || h.possible {
				possible++
			}
		}
	}
	if usable > 0 && unusable == 0 && others == 0 && secure {
		return full
	}
	if usable > 0 {
		return partial
	}
	if unusable > 0 {
		return dane.ClassUnusable
	}
	if possible > 0 && others > 0 {
		return partial
	}
	if possible > 0 {
		return broken
	}
	return none
}

// TestClass looks up every mix of one to three hosts, with a secure and with an
// insecure MX answer.
func TestClass(t *testing.T) {
	type mix struct {
		domain string
		secure bool
		hosts  []part
	}
	var mixes []mix
	var zone strings.Builder
	add := func(hosts ...part) {
		for _, secure := range []bool{true, false} {
			var labels []string
			for _, h := range hosts {
				labels = append(labels, h.label)
			}
			domain := strings.Join(labels, "-") + map[bool]string{true: ".sig.test", false: ".uns.test"}[secure]
			for i, h := range hosts {
				top := "sig.test"
				if h.state == dane.Insecure {
					top = "uns.test"
				}
				fmt.Fprintf(&zone, "%s. 300 IN MX %d %s%d.h.%s.\n", domain, i, h.label, i, top)
			}
			mixes = append(mixes, mix{domain, secure, hosts})
		}
	}
	for i, a := range parts {
		add(a)
		for j, b := range parts[i:] {
			add(a, b)
			for _, c := range parts[i+j:] {
				add(a, b, c)
			}
		}
	}
	for i := range 3 {
		for _, label := range []string{"notlsa", "usable", "unusable", "notell", "lame", "bogus"} {
			fmt.Fprintf(&zone, "%s%d.h.sig.test. 300 IN A 192.0.2.1\n", label, i)
		}
		fmt.Fprintf(&zone, "insecure%d.h.uns.test. 300 IN A 192.0.2.1\n", i)
		fmt.Fprintf(&zone, "_25._tcp.usable%d.h.sig.test. 300 IN TLSA %s\n", i, good)
		fmt.Fprintf(&zone, "_25._tcp.unusable%d.h.sig.test. 300 IN TLSA %s\n", i, useless)
	}

	srv := dnstest.New(t, zone.String(), "sig.test")
	for i := range 3 {
		srv.Fail(fmt.Sprintf("lame%d.h.sig.test", i), "*", "SERVFAIL")
		srv.Fail(fmt.Sprintf("bogus%d.h.sig.test", i), "*", "BOGUS")
		srv.Fail(fmt.Sprintf("_25._tcp.notell%d.h.sig.test", i), "TLSA", "SERVFAIL")
	}
	client := srv.Client()

	var wg sync.WaitGroup
	free := make(chan struct{}, 8)
	for _, m := range mixes {
		wg.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			p := dane.Lookup(t.Context(), client, m.domain, 25, false)
			checkPlan(t, p)
			if want := verdict(m.secure, m.hosts); p.Class != want {
				t.Errorf("%s: class %v, want %v: %s", m.domain, p.Class, want, p.Reason)
			}
			var got, want []dane.State
			for i, h := range p.Hosts {
				got, want = append(got, h.State), append(want, m.hosts[i].state)
			}
			if diff := cmp.Diff(want, got); diff != "" || len(p.Hosts) != len(m.hosts) || p.MXSecure != m.secure {
				t.Errorf("%s: hosts %s, MX secure %v", m.domain, states(p), p.MXSecure)
			}
		})
	}
	wg.Wait()
}

package dnssec_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kind asserts that err is an [*dnssec.Error] of a kind, and returns it.
func kind(t *testing.T, err error, want dnssec.Kind) *dnssec.Error {
	t.Helper()
	var e *dnssec.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want one of kind %q", err, want)
	}
	if e.Kind != want {
		t.Fatalf("error %v of kind %q, want %q", err, e.Kind, want)
	}
	return e
}

// equal asserts that a lookup gave exactly this answer.
func equal[T any](t *testing.T, got dnssec.Answer[T], err error, want dnssec.Answer[T]) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Fatalf("answer (-want +got):\n%s", d)
	}
}

const testZone = `
$TTL 300
org.              SOA ns.example.org. hostmaster.example.org. 1 2 3 4 30
example.org.      3600 SOA ns.example.org. hostmaster.example.org. 1 2 3 4 90
example.org.      120 MX 10 MX.Example.org.
example.org.      90  MX 20 backup.example.org.
example.org.      NS ns.example.org.
null.example.org. MX 0 .
mx.example.org.   A 192.0.2.1
mx.example.org.   A 192.0.2.2
mx.example.org.   AAAA 2001:db8::1
mx.example.org.   AAAA ::ffff:192.0.2.1
_25._tcp.mx.example.org. 60 TLSA 3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
_25._tcp.short.example.org. TLSA \# 3 030101
alias.example.org.   200 CNAME MX.example.org.
dangling.example.org.    CNAME gone.example.org.
bare.example.org.        CNAME empty.example.org.
empty.example.org.       TXT "here"
out.example.org.         CNAME host.unsigned.test.
host.unsigned.test.      A 192.0.2.9
in.unsigned.test.        CNAME mx.example.org.
week.example.org. 604800 A 192.0.2.7
zero.example.org.      0 A 192.0.2.8
forever.test.  604800 SOA ns.forever.test. hostmaster.forever.test. 1 2 3 4 604800
_mta-sts.example.org. TXT "v=STSv1; id=20" "26;"
_mta-sts.example.org. TXT "a\"b\\c\200" ""
_mta-sts.user.example.org. CNAME _mta-sts.example.org.
loop1.example.org. CNAME loop2.example.org.
loop2.example.org. CNAME loop1.example.org.
self.example.org.  CNAME self.example.org.
`

func chain(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "c%d.example.org. CNAME c%d.example.org.\n", i, i+1)
	}
	fmt.Fprintf(&b, "c%d.example.org. A 192.0.2.1\n", n)
	return b.String()
}

func TestLookup(t *testing.T) {
	c := dnstest.New(t, testZone+chain(20), "example.org", "org.", "forever.test").Client()
	ctx := t.Context()

	t.Run("MX", func(t *testing.T) {
		a, err := c.LookupMX(ctx, "Example.ORG.")
		equal(t, a, err, dnssec.Answer[dnssec.MX]{
			Records: []dnssec.MX{{10, "mx.example.org"}, {20, "backup.example.org"}},
			Secure:  true, Name: "example.org", TTL: 90 * time.Second,
		})
	})
	t.Run("DANE-031 the null MX has an empty host", func(t *testing.T) {
		a, err := c.LookupMX(ctx, "null.example.org")
		equal(t, a, err, dnssec.Answer[dnssec.MX]{
			Records: []dnssec.MX{{0, ""}}, Secure: true, Name: "null.example.org", TTL: 300 * time.Second,
		})
	})
	t.Run("addresses", func(t *testing.T) {
		a, err := c.LookupA(ctx, "mx.example.org")
		equal(t, a, err, dnssec.Answer[netip.Addr]{
			Records: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
			Secure:  true, Name: "mx.example.org", TTL: 300 * time.Second,
		})
		a, err = c.LookupAAAA(ctx, "mx.example.org")
		equal(t, a, err, dnssec.Answer[netip.Addr]{
			Records: []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.1")},
			Secure:  true, Name: "mx.example.org", TTL: 300 * time.Second,
		})
	})
	t.Run("TLSA", func(t *testing.T) {
		a, err := c.LookupTLSA(ctx, "_25._tcp.mx.example.org")
		data := []byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")
		equal(t, a, err, dnssec.Answer[dnssec.TLSA]{
			Records: []dnssec.TLSA{{3, 1, 1, append(data, data...)}},
			Secure:  true, Name: "_25._tcp.mx.example.org", TTL: time.Minute,
		})
	})
	t.Run("DANE-043 a TLSA record of three octets is seen", func(t *testing.T) {
		a, err := c.LookupTLSA(ctx, "_25._tcp.short.example.org")
		equal(t, a, err, dnssec.Answer[dnssec.TLSA]{
			Records: []dnssec.TLSA{{3, 1, 1, nil}}, Secure: true, Name: "_25._tcp.short.example.org", TTL: 300 * time.Second,
		})
	})
	t.Run("STS-012 strings are joined, bytes are as received", func(t *testing.T) {
		a, err := c.LookupTXT(ctx, "_mta-sts.example.org")
		equal(t, a, err, dnssec.Answer[string]{
			Records: []string{"v=STSv1; id=2026;", "a\"b\\c\xc8"}, Secure: true, Name: "_mta-sts.example.org", TTL: 300 * time.Second,
		})
	})
	t.Run("STS-011 an alias of the record name is followed", func(t *testing.T) {
		a, err := c.LookupTXT(ctx, "_mta-sts.user.example.org")
		if err != nil || len(a.Records) != 2 || a.Name != "_mta-sts.example.org" {
			t.Fatal(a, err)
		}
	})
	t.Run("STS-011 an alias loop is a lookup failure", func(t *testing.T) {
		_, err := c.LookupTXT(ctx, "loop1.example.org")
		kind(t, err, dnssec.Loop)
	})
	t.Run("alias", func(t *testing.T) {
		a, err := c.LookupA(ctx, "alias.example.org")
		if err != nil || a.Name != "mx.example.org" || !cmp.Equal(a.Aliases, []string{"alias.example.org"}) || a.TTL != 200*time.Second || !a.Secure {
			t.Fatal(a, err)
		}
	})
	t.Run("DANE-012 an alias itself can be asked for", func(t *testing.T) {
		a, err := c.LookupCNAME(ctx, "out.example.org")
		equal(t, a, err, dnssec.Answer[string]{
			Records: []string{"host.unsigned.test"}, Secure: true, Name: "out.example.org", TTL: 300 * time.Second,
		})
		a, err = c.LookupCNAME(ctx, "self.example.org")
		equal(t, a, err, dnssec.Answer[string]{
			Records: []string{"self.example.org"}, Secure: true, Name: "self.example.org", TTL: 300 * time.Second,
		})
	})
	t.Run("DANE-010 one insecure link makes the answer insecure", func(t *testing.T) {
		for _, name := range []string{"out.example.org", "in.unsigned.test"} {
			a, err := c.LookupA(ctx, name)
			if err != nil || a.Secure || len(a.Records) == 0 || len(a.Aliases) != 1 {
				t.Fatal(name, a, err)
			}
		}
	})
	t.Run("DANE-010 a chain too long or circular is an error", func(t *testing.T) {
		for _, name := range []string{"c0.example.org", "c3.example.org", "loop1.example.org", "self.example.org"} {
			_, err := c.LookupA(ctx, name)
			kind(t, err, dnssec.Loop)
		}
		if a, err := c.LookupA(ctx, "c4.example.org"); err != nil || len(a.Aliases) != 16 {
			t.Fatal(a, err)
		}
	})
}

func TestAbsence(t *testing.T) {
	s := dnstest.New(t, testZone, "example.org", "org.", "forever.test")
	c := s.Client()
	s.Fail("nosoa.example.org", "", "NOSOA")
	for _, tt := range []struct {
		name, ask string
		status    dnssec.Status
		secure    bool
		end       string
		ttl       time.Duration
	}{
		{"DANE-004 no such type, secure", "mx.example.org", dnssec.NoData, true, "mx.example.org", 90 * time.Second},
		{"DANE-004 no such name, secure", "no.example.org", dnssec.NXDomain, true, "no.example.org", 90 * time.Second},
		{"DANE-004 no such type, insecure", "host.unsigned.test", dnssec.NoData, false, "host.unsigned.test", time.Minute},
		{"DANE-004 no such name, insecure", "no.unsigned.test", dnssec.NXDomain, false, "no.unsigned.test", time.Minute},
		{"an empty name above others exists", "_tcp.mx.example.org", dnssec.NoData, true, "_tcp.mx.example.org", 90 * time.Second},
		{"an alias of nothing", "dangling.example.org", dnssec.NXDomain, true, "gone.example.org", 90 * time.Second},
		{"an alias without the type", "bare.example.org", dnssec.NoData, true, "empty.example.org", 90 * time.Second},
		{"STS-026 the minimum of the SOA counts", "other.org", dnssec.NXDomain, true, "other.org", 30 * time.Second},
		{"STS-026 an hour at most", "x.forever.test", dnssec.NXDomain, true, "x.forever.test", time.Hour},
		{"without SOA it is short", "nosoa.example.org", dnssec.NXDomain, true, "nosoa.example.org", time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := c.LookupTLSA(t.Context(), tt.ask)
			if err != nil || a.Status != tt.status || a.Secure != tt.secure || a.Name != tt.end || a.TTL != tt.ttl || a.Records != nil {
				t.Fatalf("%+v, %v", a, err)
			}
		})
	}
}

func TestTTL(t *testing.T) {
	c := dnstest.New(t, testZone).Client()
	for name, want := range map[string]time.Duration{
		"week.example.org": 24 * time.Hour, // capped
		"zero.example.org": 0,              // DANE-015: no floor
		"mx.example.org":   300 * time.Second,
	} {
		t.Run("DANE-015 "+name, func(t *testing.T) {
			if a, err := c.LookupA(t.Context(), name); err != nil || a.TTL != want {
				t.Fatal(a, err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	s := dnstest.New(t, testZone)
	c := s.Client()
	label := strings.Repeat("a", 63)
	long := strings.Join([]string{label, label, label}, ".") + "."
	for _, name := range []string{
		"", ".", "..", "a..b", ".a", "a b", "bücher.example", "a\x00b", `a\.b`, "a.b..", "[192.0.2.1]", "a/b", "*.example.org",
		label + "a.org", long + strings.Repeat("a", 62), strings.Repeat("a.", 200),
	} {
		_, err := c.LookupA(t.Context(), name)
		if e := kind(t, err, dnssec.BadName); e.Name != name || e.Type != "A" || e.Server != "" {
			t.Errorf("%q: %+v", name, e)
		}
	}
	if q := s.Queries(); q != nil {
		t.Fatal("asked", q)
	}
	for _, name := range []string{"a", "_dmarc.example.org", "-a.org", "1.2.3.4", label + ".org", long + strings.Repeat("a", 61), "xn--bcher-kva.example."} {
		if _, err := c.LookupA(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}

// DANE-013: the system's resolver hides what DANE needs.
func TestNoSystemResolver(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"net.Look" + "up", "net.Resol" + "ver", "net.Defa" + "ultResolver"} {
			if strings.Contains(string(text), word) {
				t.Errorf("%s uses %s", file, word)
			}
		}
	}
}

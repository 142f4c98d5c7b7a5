package dnssec_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
)

func TestTrace(t *testing.T) {
	var mu sync.Mutex
	var seen []dnssec.Exchange
	ctx := dnssec.WithTrace(t.Context(), func(x dnssec.Exchange) {
		mu.Lock()
		defer mu.Unlock()
		if x.Took < 0 {
			t.Error(x.Took)
		}
		x.Took = 0
		seen = append(seen, x)
	})
	var many strings.Builder
	for range 30 {
		many.WriteString("many.example.org. MX 10 x" + strings.Repeat("x", many.Len()%40) + ".example.org.\n")
	}
	s := dnstest.New(t, testZone+many.String()+`
long.example.org. TXT "`+strings.Repeat("x", 250)+`" "`+strings.Repeat("y", 250)+`" "\200\000"
strange.example.org. TXT "a\013\010b\233\"c"
`, "example.org")
	c := s.Client()
	last := func(t *testing.T, n int) []dnssec.Exchange {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		got := seen
		seen = nil
		if len(got) != n {
			t.Fatalf("%d exchanges, want %d: %+v", len(got), n, got)
		}
		return got
	}

	t.Run("found", func(t *testing.T) {
		c.LookupA(ctx, "Alias.example.org")
		want := dnssec.Exchange{
			Name: "alias.example.org", Type: "A", Server: s.Addr, Secure: true, TTL: 200 * time.Second,
			Records: []string{
				"alias.example.org. 200 IN CNAME MX.example.org.",
				"mx.example.org. 300 IN A 192.0.2.1",
				"mx.example.org. 300 IN A 192.0.2.2",
			},
		}
		if d := cmp.Diff(want, last(t, 1)[0]); d != "" {
			t.Error(d)
		}
	})
	t.Run("absent", func(t *testing.T) {
		c.LookupTLSA(ctx, "no.example.org")
		want := dnssec.Exchange{
			Name: "no.example.org", Type: "TLSA", Server: s.Addr, Status: dnssec.NXDomain, Secure: true, TTL: 90 * time.Second,
		}
		if d := cmp.Diff(want, last(t, 1)[0]); d != "" {
			t.Error(d)
		}
	})
	t.Run("failed", func(t *testing.T) {
		s.Fail("mx.example.org", "AAAA", "BOGUS")
		_, err := c.LookupAAAA(ctx, "mx.example.org")
		x := last(t, 1)[0]
		if x.Err == nil || x.Err.Error() != err.Error() || x.Server != s.Addr || x.Secure || x.Records != nil {
			t.Errorf("%+v", x)
		}
	})
	t.Run("not asked", func(t *testing.T) {
		c.LookupA(ctx, "a b\n")
		if x := last(t, 1)[0]; x.Err == nil || x.Server != "" || x.Name != "a b?" {
			t.Errorf("%+v", x)
		}
	})
	t.Run("in parts", func(t *testing.T) {
		s.Fail("alias.example.org", "", "NOCHAIN")
		c.LookupA(ctx, "alias.example.org")
		x := last(t, 2)
		if x[0].Name != "alias.example.org" || x[1].Name != "mx.example.org" || len(x[0].Records) != 1 || len(x[1].Records) != 2 {
			t.Errorf("%+v", x)
		}
	})
	t.Run("bounded", func(t *testing.T) {
		c.LookupMX(ctx, "many.example.org")
		if x := last(t, 1)[0]; len(x.Records) != 20 {
			t.Error(len(x.Records))
		}
		c.LookupTXT(ctx, "long.example.org")
		if r := last(t, 1)[0].Records[0]; len(r) != 300 || !strings.HasSuffix(r, "...") {
			t.Error(len(r), r)
		}
		c.LookupTXT(ctx, "strange.example.org")
		if r := last(t, 1)[0].Records[0]; r != `strange.example.org. 300 IN TXT "a\013\010b\233\"c"` {
			t.Error(r)
		}
	})
}

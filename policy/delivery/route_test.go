package delivery

import (
	"log/slog"
	"strings"
	"testing"

	"postseal/policy/requiretls"
)

// FuzzRoute: whatever stands in an address or in a route, there is one next hop or a
// reply, and a domain leads to the same one in each of its forms.
func FuzzRoute(f *testing.F) {
	for _, a := range []string{"u@d.test", "u@D.Test.", "postmaster", "@", "u@", "u@[192.0.2.1]", "u@[IPv6:2001:db8::1]", "u@ü.test",
		`"a@b"@c.test`, "u@foo", "u@here.test", "u@d.test:25", "u@[d.test]", "u@route.test", "u@xn--tda.test", "u@127.0.0.1"} {
		f.Add(a, "[smart.test]:587")
	}
	f.Add("u@route.test", "[192.0.2.1]:25")
	f.Add("u@route.test", "[IPv6:2001:db8::1]")
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, address, next string) {
		s := &Server{LocalDomains: []string{"here.test", ".here.test"}, LocalRelay: "unix:/x", Routes: []Route{{Domain: "route.test", NextHop: next}}}
		if _, r := s.route("u@route.test", normal, log); (r.Code == 0) != (s.Routes[0].Check() == nil) {
			t.Errorf("%q: %v, %v", next, s.Routes[0].Check(), r)
		}
		for _, mode := range []requiretls.Mode{normal, required, relaxed} {
			h, r := s.route(address, mode, log)
			if r.Code != 0 {
				if r.Code/100 != 4 && r.Code/100 != 5 {
					t.Errorf("%q: %v", address, r)
				}
				continue
			}
			kinds := 0
			for _, is := range []bool{h.local, h.literal.IsValid(), h.dest.Domain != ""} {
				if is {
					kinds++
				}
			}
			if kinds != 1 {
				t.Errorf("%q: %+v is of %d kinds", address, h, kinds)
			}
			if h.local || h.routed || h.dest.Domain == "" {
				continue
			}
			if h.dest.Domain != strings.ToLower(h.dest.Domain) || h.dest.Port != 25 || h.dest.Fixed {
				t.Errorf("%q: %+v", address, h)
			}
			if again, r := s.route("x@"+h.dest.Domain, mode, log); r.Code != 0 || again != h {
				t.Errorf("%q: %+v, then %+v, %v", address, h, again, r)
			}
		}
	})
}

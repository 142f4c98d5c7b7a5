package setup_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/setup"
	"postseal/cmd/postseal/internal/setup/setuptest"
)

func TestDANE(t *testing.T) {
	for _, c := range []struct {
		name, resolv, choice string
		validates            bool
		asksItself           bool // not through the C library
		dane                 bool
		says                 string
	}{
		{"proven", "nameserver 127.0.0.1\noptions trust-ad\n", "auto", true, false, true, "its word may be taken"},
		{"IPv6", "nameserver ::1\noptions edns0 trust-ad\n", "auto", true, false, true, "its word may be taken"},
		{"no trust-ad", "nameserver 127.0.0.1\n", "auto", true, false, false, "trust-ad"},
		{"no trust-ad, not needed", "nameserver 127.0.0.1\n", "auto", true, true, true, "its word may be taken"},
		{"elsewhere", "nameserver 127.0.0.1\nnameserver 192.0.2.53\noptions trust-ad\n", "auto", true, false, false, "192.0.2.53 is not on this machine"},
		{"container", "nameserver 127.0.0.11\noptions trust-ad\n", "auto", true, false, false, "127.0.0.11 is not on this machine"},
		{"no address", "nameserver here\noptions trust-ad\n", "auto", true, false, false, "here is not on this machine"},
		{"no server", "options trust-ad\n", "auto", true, false, true, "resolver 127.0.0.1: validates"},
		{"no file", "", "auto", true, true, true, "resolver 127.0.0.1: validates"},
		{"does not validate", "nameserver 127.0.0.1\noptions trust-ad\n", "auto", false, false, false, "bogus"},
		{"demanded", "nameserver 192.0.2.53\n", "yes", false, false, true, "as demanded"},
		{"refused", "nameserver 127.0.0.1\noptions trust-ad\n", "no", true, false, false, "as demanded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := setuptest.New(t, "")
			m.Write("/etc/resolv.conf", c.resolv)
			if c.resolv == "" {
				if err := os.Remove(m.Path("/etc/resolv.conf")); err != nil {
					t.Fatal(err)
				}
			}
			o := setup.Options{DANE: c.choice, Validates: func(context.Context, []string) (bool, string) { return c.validates, "bogus is answered" }}
			var p setup.Plan
			dane, err := p.DANE(t.Context(), m.System, config.Default(), o, !c.asksItself)
			if err != nil || dane != c.dane {
				t.Errorf("got %v, %v; want %v", dane, err, c.dane)
			}
			if found := strings.Join(p.Found, "\n"); !strings.Contains(found, c.says) {
				t.Errorf("found %q, want %q", found, c.says)
			}
		})
	}
}

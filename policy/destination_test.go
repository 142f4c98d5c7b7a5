package policy_test

import (
	"errors"
	"strings"
	"testing"

	"postseal/policy"
)

func TestParseDestination(t *testing.T) {
	long := strings.Repeat("a.", 126) + "b" // 253 octets
	good := []struct{ item, key, want string }{
		{"STS-001 case and final dot", "EXAMPLE.com.", "example.com"},
		{"SM-020 bare", "example.com", "example.com"},
		{"SM-020 port", "example.com:587", "example.com:587"},
		{"SM-020 host", "[Smart.example.net]", "[smart.example.net]:25"},
		{"SM-020 host and port", "[smart.example.net]:587", "[smart.example.net]:587"},
		{"SM-020 named port", "[smart.example.net]:smtp", "[smart.example.net]:25"},
		{"SM-021 case is kept by Postfix", "May-Trusted.Example.TEST", "may-trusted.example.test"},
		{"SM-025 U-labels", "bücher.example", "xn--bcher-kva.example"},
		{"STS-005 U-labels and A-labels are one", "XN--bcher-kva.example", "xn--bcher-kva.example"},
		{"STS-005 U-labels in capitals", "BÜCHER.example", "xn--bcher-kva.example"},
		{"SM-027 the usual port is no part of the name", "example.com:25", "example.com"},
		{"underscore", "under_score.example.org", "under_score.example.org"},
		{"longest name", long, long},
	}
	for _, c := range good {
		t.Run(c.item, func(t *testing.T) {
			d, err := policy.ParseDestination(c.key)
			if err != nil || d.String() != c.want {
				t.Errorf("%q: got %q, %v, want %q", c.key, d, err, c.want)
			}
		})
	}
	bad := []struct{ item, key string }{
		{"SM-022 parent", ".example.com"},
		{"SM-022 top parent", ".com"},
		{"SM-023 socket path", "/var/run/dovecot/lmtp"},
		{"SM-023 relative socket path", "private/lmtp"},
		{"SM-024 single label", "localhost"},
		{"SM-024 too long", "b" + long},
		{"SM-024 long label", strings.Repeat("a", 64) + ".example"},
		{"SM-024 empty label", "a..example"},
		{"SM-024 hyphen first", "-a.example"},
		{"SM-024 hyphen last", "a-.example"},
		{"SM-024 hyphen at the end", "a.example-"},
		{"SM-024 invalid UTF-8", "b\xc3.example"},
		{"SM-024 control", "a\n.example"},
		{"SM-007 blank", "a b.example"},
		{"SM-007 blank in brackets", "[a b]:25"},
		{"SM-007 empty", ""},
		{"STS-004 literal", "[192.0.2.1]"},
		{"STS-004 IPv6 literal", "[IPv6:2001:db8::1]"},
		{"DANE-020 literal with port", "[192.0.2.1]:25"},
		{"SM-024 address", "192.0.2.1"},
		{"SM-024 IPv6 address", "2001:db8::1"},
		{"bracket open", "[a.example"},
		{"bracket and text", "[a.example]x"},
		{"bracket and colon", "[a.example]:"},
		{"colon", "a.example:"},
		{"port 0", "a.example:0"},
		{"port too large", "a.example:65536"},
		{"port signed", "a.example:+25"},
		{"port name", "a.example:gopher"},
		{"mail address", "user@a.example"},
		{"wildcard", "*.a.example"},
		{"dot", "."},
	}
	for _, c := range bad {
		t.Run(c.item, func(t *testing.T) {
			if d, err := policy.ParseDestination(c.key); !errors.Is(err, policy.ErrNoPolicy) {
				t.Errorf("%q: got %q, %v", c.key, d, err)
			}
		})
	}
}

func TestAppendNameAllocatesNothing(t *testing.T) {
	buf, key := make([]byte, 0, 256), []byte("Mail.Example.ORG.")
	n := testing.AllocsPerRun(100, func() {
		if name, ok := policy.AppendName(buf, key); !ok || string(name) != "mail.example.org" {
			t.Fatalf("got %q, %v", name, ok)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseDestination(f *testing.F) {
	for _, s := range []string{"example.org", "[a.example]:25", "bücher.example", ".x", "[IPv6:::1]", "a.example:smtp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		d, err := policy.ParseDestination(key)
		if err != nil {
			return
		}
		for _, c := range []byte(d.Domain) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
				t.Fatalf("%q became %q", key, d.Domain)
			}
		}
		again, err := policy.ParseDestination(d.String())
		if err != nil || again != d {
			t.Fatalf("%q became %q, then %q, %v", key, d, again, err)
		}
	})
}

package mtasts_test

import (
	"strings"
	"testing"

	"postseal/policy/mtasts"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		name     string
		patterns string
		host     string
		want     bool
	}{
		{"STS-090 as is", "mail.example.com", "mail.example.com", true},
		{"STS-090 case and final dot", "mail.example.com", "MAIL.Example.COM.", true},
		{"STS-090 case of the pattern", "MAIL.Example.com", "mail.example.COM", true},
		{"STS-090 A-labels", "mx.xn--bcher-kva.example", "MX.XN--BCHER-KVA.example", true},
		{"STS-090 U-labels never match", "mx.xn--bcher-kva.example", "mx.bücher.example", false},
		{"STS-090 other name", "mail.example.com", "mail2.example.com", false},
		{"STS-090 part of the name", "mail.example.com", "example.com", false},
		{"STS-090 below the name", "mail.example.com", "a.mail.example.com", false},
		{"STS-090 second pattern", "mail.example.com *.example.net", "mx.example.net", true},
		{"STS-090 two final dots", "mail.example.com", "mail.example.com..", false},
		{"STS-090 no folding beyond ASCII", "mark.example.com", "mar\u212a.example.com", false},

		{"STS-091 one label", "*.example.net", "mx1.example.net", true},
		{"STS-091 case and final dot", "*.example.net", "MX1.Example.NET.", true},
		{"STS-091 no label", "*.example.net", "example.net", false},
		{"STS-091 two labels", "*.example.net", "a.b.example.net", false},
		{"STS-091 part of a label", "*.example.net", "xexample.net", false},
		{"STS-091 empty label", "*.example.net", ".example.net", false},
		{"STS-091 top-level domain", "*.com", "example.com", true},
		{"STS-091 the pattern itself", "*.example.net", "*.example.net", false},
		{"STS-091 single label", "*.com", "com", false},
		{"STS-091 underscore", "*.example.net", "mx_1.example.net", true},

		{"STS-100 implicit MX", "example.com", "example.com", true},
		{"STS-100 implicit MX not listed", "mail.example.com", "example.com", false},

		{"STS-101 address", "*.example.net", "192.0.2.1.", false},
		{"STS-101 address with brackets", "*.example.net", "[192.0.2.1]", false},
		{"STS-101 IPv6 address", "*.example.net", "2001:db8::1", false},
		{"STS-101 null MX", "*.example.net", "", false},
		{"STS-101 root", "*.example.net", ".", false},
		{"STS-101 blank", "*.example.net", "a b.example.net", false},
		{"STS-101 NUL", "*.example.net", "a\x00.example.net", false},
		{"STS-101 hyphen first", "*.example.net", "-a.example.net", false},
		{"STS-101 long label", "*.example.net", strings.Repeat("a", 64) + ".example.net", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policy(t, strings.Fields(c.patterns)...)
			if got := p.Match(c.host); got != c.want {
				t.Errorf("%q matches %q: %v, want %v", c.patterns, c.host, got, c.want)
			}
		})
	}
}

func TestMatchWithoutPatterns(t *testing.T) {
	if new(mtasts.Policy).Match("mail.example.com") {
		t.Error("an empty policy matches")
	}
}

func policy(t testing.TB, patterns ...string) *mtasts.Policy {
	t.Helper()
	body := "version: STSv1\nmode: enforce\nmax_age: 86400\n"
	for _, mx := range patterns {
		body += "mx: " + mx + "\n"
	}
	p, _, err := mtasts.ParsePolicy(body)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMatchDoesNotAllocate(t *testing.T) {
	p := policy(t, "mail.example.com", "*.example.net")
	for _, host := range []string{"mx1.example.net", "MX1.Example.NET.", "mx.example.org"} {
		if n := testing.AllocsPerRun(100, func() { p.Match(host) }); n != 0 {
			t.Errorf("Match(%q) allocates %v times", host, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	p := policy(b, "mail.example.com", "mail2.example.com", "*.example.org", "*.example.net")
	b.ReportAllocs()
	for b.Loop() {
		if !p.Match("mx1.example.net") {
			b.Fatal("no match")
		}
	}
}

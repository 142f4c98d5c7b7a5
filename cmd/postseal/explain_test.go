package main

import (
	"context"
	"strings"
	"testing"

	"postseal/cmd/postseal/internal/control"
	"postseal/policy"
	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts/ststest"
	"postseal/socketmap"
)

const bothZone = `
example.org. MX 10 mx1.example.org.
example.org. MX 20 mx2.example.org.
_mta-sts.example.org. TXT "v=STSv1; id=20261124;"
mta-sts.example.org. A 127.0.0.1
mx1.example.org. A 192.0.2.1
mx1.example.org. AAAA 2001:db8::1
mx2.example.org. A 192.0.2.2
_25._tcp.mx1.example.org. TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
`

// An ordinary explanation shows every step on one screen: records with their
// authenticity and TTL, the id, the certificate of the policy host, the policy,
// the rule, and the answers.
func TestExplanationShowsEveryStep(t *testing.T) {
	host := ststest.New(t)
	host.Set("example.org", "version: STSv1\nmode: enforce\nmx: mx1.example.org\nmx: mx2.example.org\nmax_age: 604800\n")
	dns := dnstest.New(t, bothZone, "example.org").Client()
	engine := &policy.Engine{DNS: dns, Fetch: host.Fetcher(dns)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	defer func() { cancel(); <-done }()

	dest, err := policy.ParseDestination("example.org")
	if err != nil {
		t.Fatal(err)
	}
	trail := engine.Explain(t.Context(), dest, false)
	text := string(render(control.NewExplanation(trail, dns.Validation(), &socketmap.Server{HostDANE: true})))
	for _, want := range []string{
		"decision    sts, by the rule: DANE partial, STS enforce\n",
		"DANE        partial, MX answer authenticated\n",
		"mx1.example.org              usable    3 1 1 0123456789abcdef...  STS match\n",
		"mx2.example.org              no TLSA ",
		"MTA-STS     mode enforce, max_age 7 d, mx: mx1.example.org mx2.example.org\n",
		"MX    example.org: 10 mx1.example.org.",
		"AAAA  mx1.example.org: 2001:db8::1 (secure, ttl 5m0s)\n",
		"TLSA  _25._tcp.mx1.example.org: 3 1 1 ",
		"TLSA  _25._tcp.mx2.example.org: no such name (secure, ttl ",
		`TXT   _mta-sts.example.org: "v=STSv1; id=20261124;" (secure, ttl 5m0s)`,
		"record id 20261124",
		"A     mta-sts.example.org: 127.0.0.1",
		`certificate by "CN=ststest CA" until 2100-01-02`,
		"postfix         OK secure match=mx1.example.org:mx2.example.org servername=hostname\n",
		"sts             OK secure match=mx1.example.org:mx2.example.org servername=hostname\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if n := strings.Count(text, "\n"); n > 45 {
		t.Errorf("%d lines", n)
	}
	for line := range strings.Lines(text) {
		if len(line) > columns+1 {
			t.Errorf("too long: %s", line)
		}
	}
}

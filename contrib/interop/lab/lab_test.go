package main

import (
	"bufio"
	"net"
	"net/textproto"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The table is data that anyone may add to: what it must keep.
func TestScenarios(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenarios {
		if seen[s.name] {
			t.Errorf("%s stands twice in the table", s.name)
		}
		seen[s.name] = true
		if len(s.mx) == 0 || s.answer == "" {
			t.Errorf("%s lacks an MX host or an answer", s.name)
		}
		for i, m := range s.mx {
			if m.tlsa != noTLSA && s.zone != signed && !s.forged {
				t.Errorf("%s: TLSA in an unsigned zone", s.host(i))
			}
		}
		for _, o := range []outcome{s.outcome(true), s.outcome(false)} {
			if o.status == "sent" && o.tls == "" || o.status == "deferred" && o.log == "" {
				t.Errorf("%s: %q is not a whole outcome", s.name, o)
			}
			if _, err := regexp.Compile(o.log); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
	}
}

func TestPolicy(t *testing.T) {
	s := scenario{name: "d", zone: plain, mx: []mx{{}, {}}, sts: enforce()}
	want := "version: STSv1\nmode: enforce\nmx: mx1.d.plain.test\nmx: mx2.d.plain.test\nmax_age: 86400\n"
	if diff := cmp.Diff(want, s.policy()); diff != "" {
		t.Error(diff)
	}
	s.sts = enforce("*.{D}")
	if got := s.policy(); !strings.Contains(got, "mx: *.d.plain.test\n") || strings.Contains(got, "mx1") {
		t.Errorf("policy with patterns of its own: %q", got)
	}
}

// Two processes write by turns, and one domain's name ends another's.
func TestAttempts(t *testing.T) {
	const log = `Nov 24 15:00:00 bookworm postfix/smtp[10]: Untrusted TLS connection established to mx1.sts.plain.test[127.1.1.1]:25: TLSv1.3
Nov 24 15:00:00 bookworm postfix/smtp[11]: warning: socketmap server temporary error: TLSA of mx1.x-sts.plain.test
Nov 24 15:00:00 bookworm postfix/smtp[10]: 0652BC41E8: to=<m1@sts.plain.test>, relay=mx1.sts.plain.test[127.1.1.1]:25, delay=0.03, delays=0/0.02/0/0, dsn=4.7.5, status=deferred (Server certificate not verified)
Nov 24 15:00:00 bookworm postfix/qmgr[9]: 0652BC41E8: removed
Nov 24 15:00:00 bookworm postfix/smtp[11]: 0652BC41E9: to=<m1@x-sts.plain.test>, relay=none, delay=0.03, delays=0/0.02/0/0, dsn=4.7.5, status=deferred (client TLS configuration problem)
Nov 24 15:00:01 bookworm postfix/smtp[10]: Verified TLS connection established to mx1.sts.plain.test[127.1.1.1]:25: TLSv1.3
Nov 24 15:00:01 bookworm postfix/smtp[10]: 0652BC41E8: to=<m1@sts.plain.test>, relay=mx1.sts.plain.test[127.1.1.1]:25, delay=1, delays=0/0.02/0/0, dsn=2.0.0, status=sent (250 taken)
`
	type attempt struct{ Status, DSN, TLS, Text string }
	var got []attempt
	for _, d := range attempts(log, "m1@sts.plain.test") {
		got = append(got, attempt{d.status, d.dsn, d.tls(), d.text})
	}
	want := []attempt{
		{"deferred", "4.7.5", "Untrusted", "Server certificate not verified"},
		{"sent", "2.0.0", "Verified", "250 taken"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	other := attempts(log, "m1@x-sts.plain.test")
	if len(other) != 1 {
		t.Fatalf("%d attempts", len(other))
	}
	if _, found := other[0].says(regexp.MustCompile("temporary error: TLSA")); !found {
		t.Errorf("the line of the other process is missing: %q", other[0].lines)
	}
}

func TestReadNetstring(t *testing.T) {
	good := func(in, want string) {
		t.Helper()
		if got, err := readNetstring(bufio.NewReader(strings.NewReader(in))); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	bad := func(in string) {
		t.Helper()
		if got, err := readNetstring(bufio.NewReader(strings.NewReader(in))); err == nil {
			t.Errorf("%q: %q", in, got)
		}
	}
	good("9:NOTFOUND ,", "NOTFOUND ")
	good("0:,", "")
	bad("")
	bad("3:ab,")
	bad("2:abc")
	bad("-1:,")
	bad("999999999999:,")
}

func TestBreakSignatures(t *testing.T) {
	const sig = "20261201000000 20261101000000 1 signed.test. c2lnbmF0dXJlc2lnbmF0dXJl"
	const zone = "dane.signed.test.\t60\tIN\tRRSIG\tMX 13 3 60 " + sig + "\n" +
		"mx-bogus.signed.test.\t60\tIN\tRRSIG\tMX 13 3 60 " + sig + "\n" +
		"mx-bogus.signed.test.\t60\tIN\tRRSIG\tNSEC 13 3 60 " + sig + "\n" +
		"bogus.selftest.signed.test.\t60\tIN\tRRSIG\tA 13 4 60 " + sig
	var broken []bool
	for line := range strings.Lines(breakSignatures(zone)) {
		broken = append(broken, strings.Contains(line, "AAAA"))
	}
	if diff := cmp.Diff([]bool{false, true, false, true}, broken); diff != "" {
		t.Error(diff)
	}
}

func TestLastOnly(t *testing.T) {
	const config = "a = 1\n# b = 0\nb = 2\na = 3\n"
	want := "# a = 1 (set again below)\n# b = 0\nb = 2\na = 3\n"
	if diff := cmp.Diff(want, lastOnly(config)); diff != "" {
		t.Error(diff)
	}
}

// A message for three recipients, of which one is taken: the judgement of many
// stories rests on what a sink remembers.
func TestSink(t *testing.T) {
	s := &sink{name: "mx.test", mx: mx{cert: good, requireTLS: true}}
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); s.serve(theirs) }()
	client := textproto.NewConn(ours)
	expect := func(code int, command string) {
		t.Helper()
		if command != "" {
			if err := client.PrintfLine("%s", command); err != nil {
				t.Fatal(err)
			}
		}
		if _, text, err := client.ReadResponse(code); err != nil {
			t.Errorf("%q: %s, %v", command, text, err)
		} else if strings.Contains(text, "REQUIRETLS") {
			t.Errorf("%q: %s in clear text", command, text)
		}
	}
	expect(220, "")
	expect(250, "EHLO client.test")
	expect(250, "MAIL FROM:<a@b.test> SIZE=10 REQUIRETLS")
	expect(451, "RCPT TO:<tmp1@d.test>")
	expect(550, "RCPT TO:<perm1@d.test>")
	expect(503, "DATA")
	expect(451, "RCPT TO:<once1@d.test>")
	expect(250, "RCPT TO:<once1@d.test> NOTIFY=NEVER")
	expect(354, "DATA")
	expect(250, "Message-ID: <1@b.test>\r\nX-A: 1\r\nX-A: 2\r\n\r\n..dot\r\n.")
	expect(221, "QUIT")
	<-done
	visits := s.seen("")
	if len(visits) != 1 || len(visits[0].taken) != 1 || len(visits[0].lines) != 5 {
		t.Fatalf("remembers %+v", visits)
	}
	m := visits[0].taken[0]
	if diff := cmp.Diff([]string{"once1@d.test"}, m.to()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"1", "2"}, m.header("x-a")); diff != "" {
		t.Error(diff)
	}
	if !withParameter.MatchString(m.mail) || path(m.mail) != "a@b.test" || m.id() != "<1@b.test>" || !strings.HasSuffix(m.text, "\n.dot\n") || m.tls {
		t.Errorf("remembers %+v", m)
	}
}

func TestWithParameter(t *testing.T) {
	for line, want := range map[string]bool{
		"MAIL FROM:<a@b> REQUIRETLS":              true,
		"MAIL FROM:<> SIZE=1 requiretls RET=HDRS": true,
		"MAIL FROM:<a@b> REQUIRETLS=1":            false,
		"MAIL FROM:<REQUIRETLS@b> SIZE=1":         false,
		"MAIL FROM:<a@b>":                         false,
	} {
		if got := withParameter.MatchString(line); got != want {
			t.Errorf("%q: %t", line, got)
		}
	}
}

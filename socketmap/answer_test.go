package socketmap_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/mtasts"
	"postseal/socketmap"
	"postseal/socketmap/pipetest"
)

var update = flag.Bool("update", false, "rewrite testdata/answers.golden")

// levels has a decision of every level, and of the classes that change an answer.
func levels(t testing.TB) (names []string, all map[string]*policy.Decision) {
	all = map[string]*policy.Decision{}
	add := func(name string, d *policy.Decision) {
		names, all[name] = append(names, name), d
	}
	testing := decision("example.com", policy.LevelNone)
	testing.STS = parsePolicy(t, strings.Replace(p1, "enforce", "testing", 1))
	full, partial := decision("example.com", policy.LevelDANEOnly), decision("example.com", policy.LevelDANE)
	full.DANE, partial.DANE = dane.ClassFull, dane.ClassPartial
	temp := decision("example.com", policy.LevelTemp)
	temp.Reason = "MX of example.com: SERVFAIL"
	fixed := stsDecision(t, "example.com", p1)
	fixed.Destination.Fixed, fixed.Destination.Port = true, 587
	pinned := decision("example.com", policy.LevelSTS)
	pinned.STS = &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.example.com"}}

	add("none", decision("example.com", policy.LevelNone))
	add("none, STS testing", testing)
	add("may", decision("example.com", policy.LevelMay))
	add("encrypt", decision("example.com", policy.LevelEncrypt))
	add("STS", stsDecision(t, "example.com", p1))
	add("STS at [example.com]:587", fixed)
	add("STS pinned, without text", pinned)
	add("DANE full", full)
	add("DANE partial", partial)
	add("dane-only by a rule", decision("example.com", policy.LevelDANEOnly))
	add("temporary failure", temp)
	return names, all
}

func TestGolden(t *testing.T) {
	var b strings.Builder
	fmt.Fprintln(&b, "# level | host.dane | map | reply. SM-030…041, SM-051, STS-150…157, DANE-120…122, SEED-040")
	names, all := levels(t)
	for _, name := range names {
		for _, host := range []bool{true, false} {
			for _, m := range []string{"postfix", "postfix-tlsrpt", "QUERY", "QUERYwithTLSRPT", "sts"} {
				o := &oracle{cached: map[string]*policy.Decision{"example.com": all[name]}}
				s := &socketmap.Server{Decider: o, HostDANE: host}
				fmt.Fprintf(&b, "%s | %t | %s | %s|\n", name, host, m, ask(s, m+" example.com"))
			}
		}
	}
	const path = "testdata/answers.golden"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestAnswers(t *testing.T) {
	names, all := levels(t)
	for _, name := range names {
		for _, host := range []bool{true, false} {
			s := &socketmap.Server{HostDANE: host, Decider: &oracle{cached: map[string]*policy.Decision{"example.com": all[name]}}}
			list := s.Answers(all[name])
			if len(list) != 3 {
				t.Fatal(list)
			}
			for _, a := range list {
				if got := ask(s, a.Map+" example.com"); got != a.Text {
					t.Errorf("%s %s: explained as %q, answered as %q", name, a.Map, a.Text, got)
				}
			}
		}
	}
}

func TestKeys(t *testing.T) {
	const asksNothing = ""
	cases := []struct{ name, key, reply, asked string }{
		{"SM-020 bare", "example.com", stsReply, asksNothing},
		{"SM-021 case and final dot", "EXAMPLE.com.", stsReply, asksNothing},
		{"SM-025 U-labels", "bücher.example", stsReply, asksNothing},
		{"SM-025 U-labels in capitals", "BÜCHER.Example.", stsReply, asksNothing},
		{"SM-025 A-labels", "xn--bcher-kva.example", stsReply, asksNothing},
		{"SM-020 not known yet", "new.example", "NOTFOUND ", "new.example"},
		{"SM-020 host and port", "[Example.com]:587", "NOTFOUND ", "[example.com]:587"},
		{"SM-020 host", "[example.com]", "NOTFOUND ", "[example.com]:25"},
		{"SM-020 named port", "[example.com]:smtp", "NOTFOUND ", "[example.com]:25"},
		{"SM-027 port", "example.com:2525", "NOTFOUND ", "example.com:2525"},
		{"SM-022 parent", ".example.com", "NOTFOUND ", asksNothing},
		{"SM-022 top", ".com", "NOTFOUND ", asksNothing},
		{"SM-023 socket", "/var/run/dovecot/lmtp", "NOTFOUND ", asksNothing},
		{"SM-023 relative socket", "private/lmtp", "NOTFOUND ", asksNothing},
		{"SM-024 single label", "localhost", "NOTFOUND ", asksNothing},
		{"SM-024 over-long", strings.Repeat("a.", 127) + "example", "NOTFOUND ", asksNothing},
		{"SM-024 over-long label", strings.Repeat("a", 64) + ".example", "NOTFOUND ", asksNothing},
		{"SM-024 invalid UTF-8", "b\xc3.example", "NOTFOUND ", asksNothing},
		{"SM-007 empty", "", "NOTFOUND ", asksNothing},
		{"SM-007 blanks", "[a b]:25", "NOTFOUND ", asksNothing},
		{"SM-007 leading blank", " example.com", "NOTFOUND ", asksNothing},
		{"SM-007 trailing text", "example.com extra", "NOTFOUND ", asksNothing},
		{"SM-007 NUL", "example.com\x00", "NOTFOUND ", asksNothing},
		{"STS-004 literal", "[192.0.2.1]", "NOTFOUND ", asksNothing},
		{"STS-004 IPv6 literal", "[IPv6:2001:db8::1]:25", "NOTFOUND ", asksNothing},
		{"STS-004 address", "192.0.2.1", "NOTFOUND ", asksNothing},
		{"mail address", "user@example.com", "NOTFOUND ", asksNothing},
		{"wildcard", "*.example.com", "NOTFOUND ", asksNothing},
	}
	o := newOracle(t)
	addr := startTCP(t, &socketmap.Server{Decider: o})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := len(o.questions())
			for _, m := range []string{"postfix", "sts", "QUERY"} {
				dial(t, addr).ask(m+" "+c.key, c.reply)
			}
			got := strings.Join(o.questions()[before:], " ")
			want := strings.TrimSuffix(strings.Repeat(c.asked+" ", 3), " ")
			if strings.TrimSpace(got) != strings.TrimSpace(want) {
				t.Errorf("asked %q, want %q", got, want)
			}
		})
	}
	t.Run("STS-006 a fixed host has its own policy", func(t *testing.T) {
		o.slow["example.com"] = func(context.Context) *policy.Decision { return o.cached["example.com"] }
		dial(t, addr).ask("postfix [example.com]:587", stsReply)
		dial(t, addr).ask("QUERY [example.com]", stsReply)
	})
}

func TestMaps(t *testing.T) {
	o := newOracle(t)
	o.overrides["relaxed.example"] = &policy.Override{RequireTLS: "opportunistic"}
	o.overrides["off.example"] = &policy.Override{RequireTLS: "disable"}
	o.overrides["starttls.example"] = &policy.Override{RequireTLS: "opportunistic+starttls"}
	o.overrides["strict.example"] = &policy.Override{RequireTLS: "enforce"}
	o.overrides["pinned.example"] = &policy.Override{Action: policy.Pin}
	o.overrides["typo.example"] = &policy.Override{RequireTLS: "optional"}
	s := &socketmap.Server{Decider: o, HostDANE: true}
	cases := []struct{ name, request, reply string }{
		{"case of the name", "POSTFIX example.com", stsReply},
		{"case of the name", "queryWITHtlsrpt none.example", "NOTFOUND "},
		{"no Unicode folding", "ſts example.com", "TEMP unknown map ??ts"},
		{"SM-010 unknown", "foo example.com", "TEMP unknown map foo"},
		{"SM-010 a prefix is not a name", "postfix-tls example.com", "TEMP unknown map postfix-tls"},
		{"SM-010 long and hostile", "\r\n\x00\xff" + strings.Repeat("x", 200) + " k", "TEMP unknown map ????" + strings.Repeat("x", 28)},
		{"SM-007 no key", "postfix", "NOTFOUND "},
		{"SM-007 nothing", "", "TEMP unknown map"},
		{"SM-007 only a blank", " ", "TEMP unknown map"},
		{"requiretls", "requiretls example.com", "OK enforce"},
		{"requiretls relaxed", "RequireTLS Relaxed.Example", "OK opportunistic"},
		{"requiretls off", "requiretls off.example", "OK disable"},
		{"requiretls STARTTLS", "requiretls starttls.example", "OK opportunistic+starttls"},
		{"requiretls strict", "requiretls strict.example", "OK enforce"},
		{"requiretls with another rule", "requiretls pinned.example", "OK enforce"},
		{"requiretls with a word Postfix lacks", "requiretls typo.example", "TEMP the override's requiretls is none of Postfix's words for typo.example"},
		{"requiretls garbage", "requiretls [127.0.0.1]", "NOTFOUND "},
		{"requiretls parent", "requiretls .example", "NOTFOUND "},
		{"transport", "transport example.com", "NOTFOUND "},
		{"transport of everything", "transport *", "NOTFOUND "},
		{"mailertable", "mailertable example.com", "NOTFOUND "},
		{"mailertable parent", "mailertable .", "NOTFOUND "},
		{"SM-051 Sendmail", "sts example.com", stsReply},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := ask(s, c.request); got != c.reply {
				t.Errorf("got %q, want %q", got, c.reply)
			}
		})
	}
}

func TestSTSAnswers(t *testing.T) {
	answer := func(m string, d *policy.Decision) string {
		return ask(&socketmap.Server{Decider: &oracle{cached: map[string]*policy.Decision{"example.com": d}}}, m+" example.com")
	}
	sts := func(text string, mx ...string) *policy.Decision {
		d := decision("example.com", policy.LevelSTS)
		d.STS = &mtasts.Policy{Mode: mtasts.Enforce, MX: mx, Text: text}
		return d
	}
	const named = " policy_type=sts policy_domain=example.com"
	t.Run("STS-150 golden", func(t *testing.T) {
		want := stsReply + named + " { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: mail.example.com }" +
			" { policy_string = mx: *.example.net } { policy_string = max_age: 604800 } mx_host_pattern=mail.example.com mx_host_pattern=*.example.net"
		if got := answer("postfix-tlsrpt", stsDecision(t, "example.com", p1)); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
	t.Run("SM-032 lines that Postfix would misread are left out", func(t *testing.T) {
		d := sts("version: STSv1\n\n note: a}b{ \nx: {ok}\ny: tab\tand é\nz: \x01\nw: \x7f\nv: \xff\nu: \u0085\nmode = enforce, really\n", "a.test")
		want := "OK secure match=a.test servername=hostname" + named + " { policy_string = version: STSv1 } { policy_string = y: tab and é }" +
			" { policy_string = mode = enforce, really } mx_host_pattern=a.test"
		if got := answer("postfix-tlsrpt", d); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
	t.Run("SM-032 patterns are checked once more", func(t *testing.T) {
		d := sts("", "a.test ciphers=null", "a{", "", "*.", "*", "*.*.b.test", "b..test", "-b.test", "A.test", "a.test.", "1:2", "hostname", "nexthop", "dot-nexthop", "under_score.test", "*.c.test")
		if got, want := answer("postfix", d), "OK secure match=under_score.test:.c.test servername=hostname"; got != want {
			t.Errorf("got %q", got)
		}
	})
	t.Run("STS-155 never an empty match", func(t *testing.T) {
		for _, d := range []*policy.Decision{sts(""), sts("", "nexthop"), sts("", "a b"), decision("example.com", policy.LevelSTS)} {
			for _, m := range []string{"postfix", "postfix-tlsrpt", "sts"} {
				if got := answer(m, d); !strings.HasPrefix(got, "TEMP no MX host ") {
					t.Errorf("%s: %q", m, got)
				}
			}
		}
	})
	t.Run("SM-051 Sendmail gets nothing behind servername", func(t *testing.T) {
		for _, m := range []string{"sts", "postfix", "QUERY"} {
			if got := answer(m, stsDecision(t, "example.com", p1)); got != stsReply {
				t.Errorf("%s: %q", m, got)
			}
		}
	})
	t.Run("STS-154 testing is no requirement", func(t *testing.T) {
		d := sts(p1, "a.test")
		d.Level = policy.LevelNone
		if got := answer("postfix-tlsrpt", d); got != "NOTFOUND " {
			t.Errorf("%q", got)
		}
	})
	t.Run("SM-041 reasons are short and printable", func(t *testing.T) {
		d := decision("example.com", policy.LevelTemp)
		for _, reason := range []string{"", " ", strings.Repeat("x", 300), "a\r\nb\x00é", strings.Repeat("é", 300)} {
			d.Reason = reason
			got := answer("postfix", d)
			if words, ok := strings.CutPrefix(got, "TEMP "); !ok || words == "" || len(words) > 200 || !printable(words) {
				t.Errorf("%q: %q", reason, got)
			}
		}
	})
	t.Run("SM-003 a decider without a decision", func(t *testing.T) {
		o := newOracle(t)
		o.slow["nil.example"] = func(context.Context) *policy.Decision { return nil }
		dial(t, startTCP(t, &socketmap.Server{Decider: o})).ask("postfix nil.example", "TEMP no decision")
	})
}

// hosts returns n different names of about size octets.
func hosts(n, size int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("mx%04d.%s.test", i, strings.Repeat(strings.Repeat("a", 49)+".", size/50)+"b")
	}
	return list
}

func TestLongPolicies(t *testing.T) {
	answer := func(mx []string, text string) (reply, log string) {
		d := decision("example.com", policy.LevelSTS)
		d.STS = &mtasts.Policy{Mode: mtasts.Enforce, MX: mx, Text: text}
		var b strings.Builder
		s := &socketmap.Server{Decider: &oracle{slow: map[string]func(context.Context) *policy.Decision{
			"example.com": func(context.Context) *policy.Decision { return d },
		}}, Log: slog.New(slog.NewTextHandler(&b, nil))}
		ln := pipetest.Listen()
		stop := start(t, s, ln)
		c := newClient(t, ln.Dial())
		for range 3 {
			c.send(frame("postfix-tlsrpt example.com"))
			got, err := readReply(c.r)
			if err != nil || reply != "" && got != reply {
				t.Fatalf("%.100q, %v", got, err)
			}
			reply = got
		}
		stop()
		return reply, b.String()
	}
	text := "version: STSv1\n" + strings.Repeat("a: b\n", 12_000) // 60 KB
	t.Run("SM-004 all fits", func(t *testing.T) {
		reply, log := answer(hosts(10, 50), p1)
		if !strings.Contains(reply, "policy_string") || strings.Count(reply, "mx_host_pattern") != 10 || log != "" {
			t.Errorf("%q %q", reply, log)
		}
	})
	t.Run("SM-004 policy_string goes first", func(t *testing.T) {
		reply, log := answer(hosts(100, 100), text)
		p, err := parsePostfix(strings.TrimPrefix(reply, "OK "), true)
		if err != nil || len(p.match) != 100 || len(p.mxPatterns) != 100 || p.policyStrings != nil || p.policyType != "sts" || log != "" {
			t.Errorf("%.200q, %v, %q", reply, err, log)
		}
	})
	t.Run("SM-004 then mx_host_pattern, logged once", func(t *testing.T) {
		reply, log := answer(hosts(800, 100), text)
		p, err := parsePostfix(strings.TrimPrefix(reply, "OK "), true)
		if err != nil || len(p.match) != 800 || p.mxPatterns != nil || p.policyType != "" || strings.Count(log, "\n") != 1 || !strings.Contains(log, "domain=example.com") {
			t.Errorf("%.200q, %v, %q", reply, err, log)
		}
	})
	t.Run("SM-004 never match", func(t *testing.T) {
		if reply, _ := answer(hosts(1000, 150), text); reply != "TEMP too many MX hosts for one answer in the MTA-STS policy for example.com" {
			t.Errorf("%.200q", reply)
		}
	})
}

func printable(s string) bool {
	for _, r := range s {
		if r < ' ' || r > '~' {
			return false
		}
	}
	return true
}

var sendmailAnswer = regexp.MustCompile(`^secure match=\.?[a-z0-9_-][a-z0-9._-]*(:\.?[a-z0-9_-][a-z0-9._-]*)* servername=hostname$`)

// checkAnswer fails if the mail server behind the map could not read the text as
// it was meant.
func checkAnswer(t *testing.T, d *policy.Decision, a socketmap.Answer) {
	t.Helper()
	if len(a.Text) > 100_000 {
		t.Fatalf("%d octets", len(a.Text))
	}
	if words, ok := strings.CutPrefix(a.Text, "TEMP "); ok {
		if words == "" || len(words) > 200 || !printable(words) {
			t.Fatalf("%q", a.Text)
		}
		return
	}
	value, ok := strings.CutPrefix(a.Text, "OK ")
	if !ok {
		if a.Text != "NOTFOUND " {
			t.Fatalf("%q", a.Text)
		}
		return
	}
	if a.Map == "sts" {
		if !sendmailAnswer.MatchString(value) {
			t.Fatalf("%q", a.Text)
		}
		return
	}
	p, err := parsePostfix(value, a.Map == "postfix-tlsrpt")
	if err != nil {
		t.Fatalf("%q: %v", a.Text, err)
	}
	if (p.level == "secure") != (d.Level == policy.LevelSTS) || p.level == "none" {
		t.Fatalf("%q at level %v", a.Text, d.Level)
	}
	if p.level != "secure" {
		if value != p.level {
			t.Fatalf("%q", a.Text)
		}
		return
	}
	if len(p.match) == 0 || p.servername != "hostname" {
		t.Fatalf("%q", a.Text)
	}
	for _, m := range p.match {
		if m == "nexthop" || m == "hostname" || m == "dot-nexthop" || !validName(strings.TrimPrefix(m, ".")) {
			t.Fatalf("%q matches %q", a.Text, m)
		}
	}
	for _, m := range p.mxPatterns {
		if !validName(strings.TrimPrefix(m, "*.")) {
			t.Fatalf("%q has pattern %q", a.Text, m)
		}
	}
	for _, s := range p.policyStrings {
		if s == "" || strings.ContainsAny(s, "{}") || strings.ContainsFunc(s, unicode.IsControl) {
			t.Fatalf("%q has policy string %q", a.Text, s)
		}
	}
	if p.policyType != "" && len(d.STS.Text) < 2000 { // else they may have been dropped
		if diff := cmp.Diff(policyStrings(d.STS), p.policyStrings); diff != "" {
			t.Fatalf("%q: %s", a.Text, diff)
		}
	}
}

// policyStrings is what can be said of the lines that reports have.
func policyStrings(p *mtasts.Policy) []string {
	var list []string
	for line := range p.Lines() {
		line = strings.Trim(line, " ")
		if line != "" && utf8.ValidString(line) && !strings.ContainsAny(line, "{}") && !strings.ContainsFunc(line, unicode.IsControl) {
			list = append(list, line)
		}
	}
	return list
}

func validName(s string) bool {
	return s == strings.ToLower(s) && (validHostname(s) || validHostname(s+".test"))
}

// FuzzAnswer: whatever a domain publishes, every answer can be read.
func FuzzAnswer(f *testing.F) {
	f.Add(uint8(policy.LevelSTS), true, p1, "mail.example.com", "*.example.net", "")
	f.Add(uint8(policy.LevelSTS), true, "a: }\n b{ \n\n\x00: \xff\r\n\ufeff", "a b", "hostname", "{")
	f.Add(uint8(policy.LevelSTS), false, "x", "a.test policy_type=sts", "*.*", "a:b")
	f.Add(uint8(policy.LevelTemp), false, "", "", "", "bad\nreason")
	f.Add(uint8(99), true, strings.Repeat("a: b\n", 20000), "a.test", ".b.test", "")
	f.Fuzz(func(t *testing.T, level uint8, host bool, text, mx1, mx2, reason string) {
		d := decision("example.com", policy.Level(level%8))
		d.Reason = reason
		d.STS = &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{mx1, mx2, strings.ToLower(mx1)}, Text: text}
		for _, a := range (&socketmap.Server{HostDANE: host}).Answers(d) {
			checkAnswer(t, d, a)
		}
		if p, _, err := mtasts.ParsePolicy(text); err == nil {
			d.STS = p
			for _, a := range (&socketmap.Server{HostDANE: host}).Answers(d) {
				checkAnswer(t, d, a)
			}
		}
	})
}

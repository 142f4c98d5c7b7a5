package exim_test

import (
	"context"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/mtasts"
	"postseal/socketmap/exim"
	"postseal/socketmap/pipetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ exim.Decider = (*policy.Engine)(nil)

// oracle is a Decider with fixed answers. What is not known has no requirement.
type oracle struct {
	known     map[string]*policy.Decision
	slow      map[string]func(context.Context) *policy.Decision
	overrides map[string]*policy.Override

	mu    sync.Mutex
	asked []string
}

func (o *oracle) Decide(ctx context.Context, dest policy.Destination) *policy.Decision {
	o.mu.Lock()
	o.asked = append(o.asked, dest.String())
	o.mu.Unlock()
	if f := o.slow[dest.Domain]; f != nil {
		return f(ctx)
	}
	if d := o.known[dest.Domain]; d != nil {
		return d
	}
	return &policy.Decision{Destination: dest}
}

func (o *oracle) Override(domain string) *policy.Override { return o.overrides[domain] }

func decision(level policy.Level, class dane.Class) *policy.Decision {
	return &policy.Decision{Destination: policy.Destination{Domain: "d.test", Port: 25}, Level: level, DANE: class}
}

func stsDecision(mx ...string) *policy.Decision {
	d := decision(policy.LevelSTS, dane.ClassNone)
	d.STS = &mtasts.Policy{Mode: mtasts.Enforce, MX: mx}
	return d
}

func tempDecision(reason string) *policy.Decision {
	d := decision(policy.LevelTemp, dane.ClassBroken)
	d.Reason = reason
	return d
}

const (
	none     = "v=1 mode=none"
	fallback = "v=1 mode=fallback"
	enforce  = `v=1 mode=enforce ignore="!^mx1[.]a[.]test$ , !^[^.]+[.]b[.]test$ , *"`

	cannotDANE    = `v=1 mode=defer why="this mail server cannot do DANE (RFC 7672; host.dane = false), which is required for d.test"`
	cannotEncrypt = `v=1 mode=defer why="Exim cannot require encryption alone, as a rule does for d.test"`
	unusable      = `v=1 mode=defer why="Exim cannot do DANE where all TLSA records are unusable, as those of d.test"`
	notEveryHost  = `v=1 mode=defer why="Exim cannot do mandatory DANE where not every MX host has it, as is required for d.test"`
	malformed     = `v=1 mode=defer why="the request is neither \"policy DOMAIN\" nor \"policy yes DOMAIN\""`
)

func TestAnswer(t *testing.T) {
	type answers struct{ alone, withFallback, withDANE, withBoth string }
	same := func(s string) answers { return answers{s, s, s, s} }
	unusableSTS := stsDecision("mx1.a.test", "*.b.test")
	unusableSTS.DANE = dane.ClassUnusable
	cases := []struct {
		name string
		d    *policy.Decision
		want answers
	}{
		{"SM-055 no requirement", decision(policy.LevelNone, dane.ClassNone), same(none)},
		{"exempt", decision(policy.LevelMay, dane.ClassNone), same(none)},
		{"encrypt", decision(policy.LevelEncrypt, dane.ClassNone), answers{cannotEncrypt, fallback, cannotEncrypt, fallback}},
		{"SM-055 STS enforce", stsDecision("mx1.a.test", "*.b.test"), same(enforce)},
		{"hyphen and underscore", stsDecision("mx-1.a_b.test"), same(`v=1 mode=enforce ignore="!^mx-1[.]a_b[.]test$ , *"`)},
		{"unchecked patterns are left out", stsDecision(`a", *`, "mx1.a.test", "*", "*.", "a.test$|.*", "", "A.test", "*.b.test"), same(enforce)},
		{"STS-155 no pattern left", stsDecision("*"), same(`v=1 mode=defer why="no MX host can be used of the MTA-STS policy for d.test"`)},
		{"STS-155 no policy", decision(policy.LevelSTS, dane.ClassNone), same(`v=1 mode=defer why="no MX host is known of the MTA-STS policy for d.test"`)},
		{"DANE full", decision(policy.LevelDANEOnly, dane.ClassFull), answers{cannotDANE, fallback, none, none}},
		{"DANE-127 DANE partial", decision(policy.LevelDANE, dane.ClassPartial), answers{cannotDANE, fallback, none, none}},
		{"DANE unusable crashes Exim 4.96", decision(policy.LevelDANE, dane.ClassUnusable), answers{cannotDANE, fallback, unusable, fallback}},
		{"DANE unusable crashes Exim 4.96 under STS enforce, too", unusableSTS, answers{enforce, enforce, enforce, fallback}},
		{"dane-only by a rule, unusable", decision(policy.LevelDANEOnly, dane.ClassUnusable), answers{cannotDANE, fallback, unusable, fallback}},
		{"dane-only by a rule, no records", decision(policy.LevelDANEOnly, dane.ClassNone), answers{cannotDANE, fallback, notEveryHost, fallback}},
		{"SM-040 temporary", tempDecision("MX of d.test: SERVFAIL"), same(`v=1 mode=defer why="MX of d.test: SERVFAIL"`)},
		{"why is quoted", tempDecision("a \"b\" \\c\r\nd\x00é"), same(`v=1 mode=defer why="a \"b\" \\c??d???"`)},
		{"why is short", tempDecision(strings.Repeat(`"`, 300)), same(`v=1 mode=defer why="` + strings.Repeat(`\"`, 200) + `"`)},
		{"why is never empty", tempDecision(""), same(`v=1 mode=defer why="temporary failure"`)},
		{"no decision", nil, same(`v=1 mode=defer why="no decision"`)},
		{"unknown level", decision(99, dane.ClassNone), same(`v=1 mode=defer why="temporary failure"`)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := answers{
				exim.Answer(c.d, exim.Host{}),
				exim.Answer(c.d, exim.Host{Fallback: true}),
				exim.Answer(c.d, exim.Host{DANE: true}),
				exim.Answer(c.d, exim.Host{DANE: true, Fallback: true}),
			}
			if got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
	t.Run("too long", func(t *testing.T) {
		mx := make([]string, 1000)
		for i := range mx {
			mx[i] = strings.Repeat("a.", 60) + "test"
		}
		if got, want := exim.Answer(stsDecision(mx...), exim.Host{}), `v=1 mode=defer why="too many MX hosts for one answer in the MTA-STS policy for d.test"`; got != want {
			t.Errorf("%.200q", got)
		}
	})
}

func TestChosenForFallback(t *testing.T) {
	all := &policy.Fallback{STS: true, Domains: []string{"d.test"}}
	for _, c := range []struct {
		name string
		d    *policy.Decision
		host exim.Host
		want string
	}{
		{"MTA-STS", stsDecision("mx1.a.test", "*.b.test"), exim.Host{DANE: true, Fallback: true, Takes: &policy.Fallback{STS: true}}, fallback},
		{"a domain", decision(policy.LevelNone, dane.ClassNone), exim.Host{DANE: true, Fallback: true, Takes: all}, fallback},
		{"another domain", decision(policy.LevelNone, dane.ClassNone), exim.Host{DANE: true, Fallback: true, Takes: &policy.Fallback{Domains: []string{"e.test"}}}, none},
		{"without a fallback", stsDecision("mx1.a.test", "*.b.test"), exim.Host{DANE: true, Takes: all}, enforce},
	} {
		if got := exim.Answer(c.d, c.host); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestIgnoreList applies the list as Exim does: the first item that matches
// decides, "!" negates.
func TestIgnoreList(t *testing.T) {
	list := ignoreList(t, exim.Answer(stsDecision("mx1.a.test", "*.b.test"), exim.Host{}))
	ignored := func(host string) bool {
		for _, item := range list {
			pattern, negated := strings.CutPrefix(item, "!")
			if pattern == "*" || strings.HasPrefix(pattern, "^") && regexp.MustCompile(pattern).MatchString(host) {
				return !negated
			}
		}
		return false
	}
	for host, want := range map[string]bool{
		"mx1.a.test": false, "x.b.test": false,
		"mx2.a.test": true, "mx1.a.test.evil.test": true, "mx1xa.test": true, "b.test": true, ".b.test": true, "x.y.b.test": true, "xb.test": true, "": true,
	} {
		if ignored(host) != want {
			t.Errorf("STS-091 %q: ignored %t", host, !want)
		}
	}
}

func ignoreList(t *testing.T, answer string) []string {
	list, ok := strings.CutPrefix(answer, `v=1 mode=enforce ignore="`)
	if !ok {
		t.Fatal(answer)
	}
	return strings.Split(strings.TrimSuffix(list, `"`), " , ")
}

func newOracle() *oracle {
	return &oracle{
		known: map[string]*policy.Decision{
			"sts.test":               stsDecision("mx1.a.test", "*.b.test"),
			"required.test":          decision(policy.LevelEncrypt, dane.ClassNone),
			"xn--bcher-kva.test":     stsDecision("mx1.a.test", "*.b.test"),
			"temp.test":              tempDecision("SERVFAIL"),
			"pinned.test":            stsDecision("mx1.a.test", "*.b.test"),
			"pinned-to-testing.test": decision(policy.LevelDANEOnly, dane.ClassFull),
		},
		slow: map[string]func(context.Context) *policy.Decision{},
		overrides: map[string]*policy.Override{
			"required.test":          {Action: policy.Require, Level: policy.LevelEncrypt},
			"exempt.test":            {Action: policy.Exempt},
			"pinned.test":            {Action: policy.Pin, Policy: &mtasts.Policy{Mode: mtasts.Enforce}},
			"pinned-to-testing.test": {Action: policy.Pin, Policy: &mtasts.Policy{Mode: mtasts.Testing}},
			"sts.test":               {RequireTLS: "opportunistic"},
		},
	}
}

func TestLines(t *testing.T) {
	cases := []struct{ name, line, want, asked string }{
		{"policy", "policy sts.test", enforce, "sts.test"},
		{"two blanks for an empty flag", "policy  sts.test", enforce, "sts.test"},
		{"CR and tabs", "policy\tsts.test \r", enforce, "sts.test"},
		{"SM-021 case and final dot", "policy STS.test.", enforce, "sts.test"},
		{"SM-025 U-labels", "policy bücher.test", enforce, "xn--bcher-kva.test"},
		{"temporary", "policy temp.test", `v=1 mode=defer why="SERVFAIL"`, "temp.test"},
		{"no policy", "policy other.test", none, "other.test"},
		{"STS-004 literal", "policy [192.0.2.1]", none, ""},
		{"SM-024 single label", "policy localhost", none, ""},
		{"a domain called yes", "policy yes", none, ""},
		{"TLS-Required: No", "policy yes sts.test", none, ""},
		{"TLS-Required: No, a rule requires", "policy yes required.test", cannotEncrypt, "required.test"},
		{"TLS-Required: No, a rule pins", "policy yes pinned.test", enforce, "pinned.test"},
		{"TLS-Required: No, a rule pins nothing", "policy yes pinned-to-testing.test", none, ""},
		{"TLS-Required: No, a rule exempts", "policy yes exempt.test", none, ""},
		{"empty", "", malformed, ""},
		{"no domain", "policy", malformed, ""},
		{"other flag", "policy no sts.test", malformed, ""},
		{"more words", "policy yes sts.test x", malformed, ""},
		{"other verb", "Policy sts.test", malformed, ""},
		{"netstring", "19:postfix example.com,", malformed, ""},
		{"HTTP", "GET / HTTP/1.1", malformed, ""},
		{"event", "event n=tls:cert m=1 der=AAAA", "", ""},
		{"event alone", "event", "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o := newOracle()
			s := &exim.Server{Decider: o, Host: exim.Host{DANE: true}}
			if got := s.AnswerLine(t.Context(), c.line); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if got := strings.Join(o.asked, " "); got != c.asked {
				t.Errorf("asked %q, want %q", got, c.asked)
			}
		})
	}
}

// start serves on a new listener until the test ends.
func start(t *testing.T, s *exim.Server) (addr string, stop func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends all of raw, half-closes as Exim does unless told not to, and
// returns what comes until the end.
func exchange(t *testing.T, addr, raw string, half bool) string {
	t.Helper()
	c := dial(t, addr)
	io.WriteString(c, raw) // the server may close before it has all
	if half {
		c.(*net.TCPConn).CloseWrite()
	}
	b, _ := io.ReadAll(c) // a reset is as good as an end of file
	return string(b)
}

func TestConnection(t *testing.T) {
	s := &exim.Server{Decider: newOracle(), Host: exim.Host{DANE: true}}
	addr, _ := start(t, s)
	for _, c := range []struct {
		name, raw string
		half      bool
		want      string
	}{
		{"SM-017 half-close", "policy sts.test\n", true, enforce + "\n"},
		{"SM-017 no half-close", "policy sts.test\n", false, enforce + "\n"},
		{"SM-017 half-close for a line end", "policy sts.test", true, enforce + "\n"},
		{"one line only", "policy sts.test\npolicy temp.test\n", true, enforce + "\n"},
		{"garbage", "\x00\xff\n", true, malformed + "\n"},
		{"empty line", "\n", true, malformed + "\n"},
		{"nothing", "", true, ""},
		{"an event gets nothing", "event n=smtp:ehlo\n", true, ""},
		{"an event with a certificate", "event der=" + strings.Repeat("A", 60_000) + "\n", false, ""},
		{"a line too long", "policy " + strings.Repeat("a", 70_000) + "\n", true, ""},
		{"a long line", "policy " + strings.Repeat("a", 60_000) + "\n", true, none + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := exchange(t, addr, c.raw, c.half); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	want := exim.Stats{Accepted: 11, ProtocolErrors: 4, Events: 2, Answers: map[string]uint64{"enforce": 4, "none": 1}}
	got := s.Stats()
	got.Open = 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTooManyConnections(t *testing.T) {
	o := newOracle()
	started, release := make(chan struct{}), make(chan struct{})
	o.slow["slow.test"] = func(context.Context) *policy.Decision {
		close(started)
		<-release
		return decision(policy.LevelNone, dane.ClassNone)
	}
	s := &exim.Server{Decider: o, MaxConns: 1}
	addr, _ := start(t, s)
	c := dial(t, addr)
	io.WriteString(c, "policy slow.test\n")
	<-started
	if got := exchange(t, addr, "policy sts.test\n", false); got != "" {
		t.Errorf("SM-011 got %q", got)
	}
	close(release)
	if b, err := io.ReadAll(c); err != nil || string(b) != none+"\n" {
		t.Errorf("got %q, %v", b, err)
	}
	if st := s.Stats(); st.Refused != 1 {
		t.Errorf("%+v", st)
	}
}

func TestShutdown(t *testing.T) {
	o := newOracle()
	started, release := make(chan struct{}), make(chan struct{})
	o.slow["slow.test"] = func(context.Context) *policy.Decision {
		close(started)
		<-release
		return decision(policy.LevelNone, dane.ClassNone)
	}
	addr, stop := start(t, &exim.Server{Decider: o})
	idle, c := dial(t, addr), dial(t, addr)
	io.WriteString(c, "policy slow.test\n")
	<-started
	go stop()
	if b, err := io.ReadAll(idle); len(b) != 0 {
		t.Errorf("SM-016 idle: %q, %v", b, err)
	}
	close(release)
	if b, err := io.ReadAll(c); err != nil || string(b) != none+"\n" {
		t.Errorf("SM-016 in flight: %q, %v", b, err)
	}
}

func TestTimeouts(t *testing.T) {
	bed := func(t *testing.T, o *oracle) (*exim.Server, net.Conn) {
		ctx, cancel := context.WithCancel(t.Context())
		ln := pipetest.Listen()
		s, ended := &exim.Server{Decider: o}, make(chan error)
		go func() { ended <- s.Serve(ctx, ln) }()
		ours := ln.Dial()
		t.Cleanup(func() {
			ours.Close()
			cancel()
			<-ended
		})
		return s, ours
	}
	t.Run("SM-013 Exim waits 5 s", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := newOracle()
			o.slow["slow.test"] = func(ctx context.Context) *policy.Decision {
				begin := time.Now()
				<-ctx.Done()
				return tempDecision(time.Since(begin).String())
			}
			_, c := bed(t, o)
			io.WriteString(c, "policy slow.test\n")
			if b, err := io.ReadAll(c); err != nil || string(b) != `v=1 mode=defer why="4s"`+"\n" {
				t.Errorf("got %q, %v", b, err)
			}
		})
	})
	t.Run("SM-016 a line byte by byte", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, c := bed(t, newOracle())
			n := 0
			for ; n < 100; n++ {
				if _, err := io.WriteString(c, "p"); err != nil {
					break
				}
				time.Sleep(time.Second)
			}
			synctest.Wait()
			if st := s.Stats(); n > 11 || st.Open != 0 || st.ProtocolErrors != 1 {
				t.Errorf("%d bytes, %+v", n, st)
			}
		})
	})
	t.Run("SM-016 an answer not taken", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, c := bed(t, newOracle())
			io.WriteString(c, "policy sts.test\n")
			time.Sleep(11 * time.Second)
			synctest.Wait()
			if st := s.Stats(); st.Open != 0 {
				t.Errorf("%+v", st)
			}
		})
	})
}

var wellFormed = regexp.MustCompile(`^v=1 mode=(none|fallback|enforce ignore="(!\^(\[\^\.\]\+\[\.\])?[a-z0-9_-]+(\[\.\][a-z0-9_-]+)*\$ , )+\*"|defer why="([ !#-\[\]-~]|\\["\\])+")$`)

// FuzzEximLine: whatever comes in, and whatever a domain publishes, one line that
// Exim can read comes out, or nothing for an event.
func FuzzEximLine(f *testing.F) {
	f.Add("policy  sts.test", "mx1.a.test", "*.b.test", "", uint8(policy.LevelSTS))
	f.Add("policy yes sts.test", "a\" , !^.*$", "*", "a\\", uint8(policy.LevelSTS))
	f.Add("policy sts.test", "", "", "bad \"reason\"\n\\", uint8(policy.LevelTemp))
	f.Add("event n=tls:cert", "", "", "", uint8(0))
	f.Add("\x00\xff \n", "", "", "", uint8(9))
	f.Fuzz(func(t *testing.T, line, mx1, mx2, reason string, level uint8) {
		d := stsDecision(mx1, mx2)
		d.Level, d.Reason, d.DANE = policy.Level(level%8), reason, dane.Class(level%5)
		s := &exim.Server{Decider: &oracle{known: map[string]*policy.Decision{"sts.test": d}}}
		if got := s.AnswerLine(t.Context(), line); got != "" && !wellFormed.MatchString(got) || got == "" && !strings.HasPrefix(line, "event") {
			t.Fatalf("%q: %q", line, got)
		}
		for _, host := range []exim.Host{{}, {DANE: true}, {Fallback: true}} {
			if got := exim.Answer(d, host); !wellFormed.MatchString(got) {
				t.Fatalf("%q", got)
			}
		}
	})
}

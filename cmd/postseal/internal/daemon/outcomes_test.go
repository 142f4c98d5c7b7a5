package daemon

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/delivery"
	"postseal/policy/dnssec"
	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts"
	"postseal/policy/mtasts/ststest"
	"postseal/policy/probe"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
	"postseal/reporting"
	"postseal/reporting/tlsrpt"
)

// tally is a store that counts by what matters to a reader of reports.
type tally struct {
	mu     sync.Mutex
	counts map[string]uint64
	mxs    map[string]bool
}

func (c *tally) Write(b reporting.Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts, c.mxs = map[string]uint64{}, map[string]bool{}
	}
	for _, counts := range b.Counts {
		for k, n := range counts {
			c.mxs[k.MXHost] = true
			p := b.Policies[k.Policy]
			what := string(k.Result)
			if what == "" {
				what = "success"
			}
			c.counts[fmt.Sprintf("%s %s %s %s", k.Domain, p.Type, k.Standing, what)] += n
		}
	}
	return nil
}

func (c *tally) Mark(string) ([]byte, error) { return nil, nil }

// hosts are the names of the MX hosts so far.
func (c *tally) hosts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.mxs))
}

func (c *tally) of(what string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[what]
}

// site is the part of a daemon that records, with an Internet of its own: a domain
// with a policy in mode testing and one MX host.
type site struct {
	*daemon
	*tally
	t  *testing.T
	mx *mxtest.Host

	start time.Time // of the first answer

	mu    sync.Mutex
	ahead time.Duration
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, tally: &tally{}}
	web, network := ststest.New(t), mxtest.New(t)
	s.mx = network.Host("mx.testing.test", "127.0.81.1")
	web.Set("testing.test", "version: STSv1\nmode: testing\nmx: mx.testing.test\nmax_age: 86400\n")
	client := dnstest.New(t, fmt.Sprintf(`
testing.test. MX 10 mx.testing.test.
mx.testing.test. A 127.0.81.1
_mta-sts.testing.test. TXT "v=STSv1; id=1;"
mta-sts.testing.test. A %s
`, web.IP)).Client()
	client.TryTimeout, client.Timeout = time.Second, 3*time.Second
	engine := &policy.Engine{DNS: client, Fetch: &mtasts.Fetcher{DNS: client, Roots: web.Roots, AllowPrivate: true, Port: web.Port}, Now: s.now}
	prober := &probe.Prober{Resolver: engine, Port: network.Port, AllowPrivate: true, Now: s.now,
		Client: &smtpclient.Client{Hostname: "probe.test", Roots: network.Roots, Limits: probe.Limits()}}
	s.daemon = &daemon{engine: engine, recording: &recording{prober: prober}}
	s.recording.recorder = &reporting.Recorder{Store: s.tally, PolicyAt: s.policyAt, Judge: s.judge, Interval: time.Millisecond}
	for _, run := range []func(context.Context) error{engine.Run, prober.Run, s.recording.recorder.Run} {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	s.start = engine.Decide(t.Context(), policy.Destination{Domain: "testing.test", Port: 25}).Made // as the mail server asks
	return s
}

func (s *site) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead)
}

func (s *site) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

// sessions are those of a mail server that was told nothing.
func (s *site) sessions(n int, host string) {
	s.t.Helper()
	list := make([]reporting.Session, n)
	for i := range list {
		list[i] = reporting.Session{Time: s.now(), Domain: "testing.test", MXHost: host, MXIP: netip.MustParseAddr("127.0.81.1")}
	}
	if err := s.recording.recorder.Commit(s.t.Context(), list, "postfix", nil); err != nil {
		s.t.Fatal(err)
	}
}

// probed waits for a verdict newer than since.
func (s *site) probed(since time.Time) {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if v, ok := s.recording.prober.Verdict("mx.testing.test", s.now()); ok && v.At.After(since) {
			return
		}
	}
	s.t.Fatal("no probe")
}

// A mail server does not verify where nothing is demanded. What is counted of a
// domain in mode testing rests on the probe of its MX host, at most a day old: nothing
// before the first one, then what that has shown, a certificate that breaks meanwhile
// from the next one on.
func TestTestingMode(t *testing.T) {
	s := newSite(t)
	want := func(what string, n uint64) {
		t.Helper()
		if got := s.of("testing.test sts " + what); got != n {
			t.Errorf("%s: %d, want %d", what, got, n)
		}
	}
	start := s.now()
	s.mx.Reply("GREETING", mxtest.Stall) // so that no probe ends before its time
	s.sessions(20, "mx.testing.test")    // these ask for the probe
	want("unverified success", 20)
	s.mx.Reply("GREETING")
	s.mx.Release()
	s.probed(start)
	s.sessions(30, "mx.testing.test")
	want("reported success", 30)

	s.mx.Set(mxtest.Config{Certificate: "expired"})
	s.sessions(10, "mx.testing.test") // a probe a day, no more
	want("reported success", 40)
	s.mx.Reply("GREETING", mxtest.Stall)
	s.advance(25 * time.Hour)
	next := s.now()
	s.engine.Decide(t.Context(), policy.Destination{Domain: "testing.test", Port: 25})
	s.sessions(1, "mx.testing.test")
	want("unverified success", 21)
	s.mx.Reply("GREETING")
	s.mx.Release()
	s.probed(next)
	s.sessions(39, "mx.testing.test")
	want("reported certificate-expired", 39)

	t.Run("RPT-028 violations of mode testing are failures", func(t *testing.T) {
		want("reported certificate-expired", 39)
	})
	t.Run("an MX host outside the policy is judged without contact", func(t *testing.T) {
		s.sessions(5, "rogue.testing.test")
		want("reported validation-failure", 5)
	})
	t.Run("datagrams say that there was no policy", func(t *testing.T) {
		datagram := reporting.Session{Time: s.now(), Domain: "testing.test", MXHost: "rogue.testing.test", Policy: reporting.Policy{Type: tlsrpt.NoPolicy, Domain: "testing.test"}}
		s.recording.recorder.Record(datagram, fromDatagrams)
		if err := s.recording.recorder.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		want("reported validation-failure", 6)
		datagram.MXHost = "" // as of a success
		s.recording.recorder.Record(datagram, fromDatagrams)
		if err := s.recording.recorder.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		want("unverified success", 22)
	})
	t.Run("without probes nothing is said", func(t *testing.T) {
		s.recording.prober = nil
		s.sessions(7, "mx.testing.test")
		want("unverified success", 29)
	})
}

func TestPolicyOfSession(t *testing.T) {
	s := newSite(t)
	p, ok := s.policyAt(&reporting.Session{Domain: "testing.test", MXHost: "mx.testing.test", Time: s.now()})
	if !ok || p.Type != tlsrpt.STS || p.Domain != "testing.test" || len(p.Strings) != 4 || len(p.MX) != 1 {
		t.Errorf("%+v, %t", p, ok)
	}
	if _, ok := s.policyAt(&reporting.Session{Domain: "testing.test", MXHost: "mx.testing.test", Time: s.start.Truncate(time.Second)}); !ok {
		t.Error("a log tells the second alone, in which the first answer was given")
	}
	if p, ok := s.policyAt(&reporting.Session{Domain: "testing.test", Time: s.now().Add(-time.Hour)}); ok {
		t.Errorf("before the first answer: %+v", p)
	}
	if p, ok := s.policyAt(&reporting.Session{Domain: "never.test", Time: s.now()}); ok {
		t.Errorf("a domain that nobody has asked for: %+v", p)
	}
}

func TestDeliverySessions(t *testing.T) {
	s := newSite(t)
	host := &dane.Host{Name: "mx.both.test", Base: "mx.both.test", State: dane.Usable, TLSA: []dnssec.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{0xab}}}}
	o := delivery.Outcome{Time: s.now(), Domain: "both.test", MX: "mx.both.test", Host: host,
		Decision: &policy.Decision{STS: &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.both.test"}, Text: "version: STSv1\nmode: enforce\n"}},
		Judgements: []delivery.Judgement{
			{Policy: delivery.PolicyTLSA},
			{Policy: delivery.PolicySTS, Result: "certificate-not-trusted", Reason: "unknown authority"},
		}}
	s.recordDelivery(o)
	o.Relaxed = true
	s.recordDelivery(o)
	o.Relaxed = false
	s.recording.own = func(id []byte) bool { return tlsrpt.IsMessageID(id, "mta.test") }
	o.MessageID = "<tlsrpt.0123456789abcdef0123456789abcdef@mta.test>"
	s.recordDelivery(o)
	o.Domain, o.MessageID = "other.test", "<1@client.test>"
	s.recordDelivery(o)
	if err := s.recording.recorder.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for what, n := range map[string]uint64{"both.test tlsa reported success": 1, "both.test sts reported certificate-not-trusted": 1} {
		if got := s.of(what); got != n {
			t.Errorf("%s: %d, want %d", what, got, n)
		}
	}
	t.Run("RPT-077 what carried a report is not counted, all else is", func(t *testing.T) {
		if got, other := s.of("both.test tlsa reported success"), s.of("other.test tlsa reported success"); got != 1 || other != 1 {
			t.Errorf("%d, %d of another", got, other)
		}
	})
	t.Run("RT-067 what was relaxed is not counted", func(t *testing.T) {
		if got := s.of("both.test tlsa reported success"); got != 1 {
			t.Errorf("%d", got)
		}
	})
}

// What the delivery fallback has seen becomes counts, policy by policy.
func TestCountsOfDelivery(t *testing.T) {
	s := newSite(t)
	enforce := &policy.Decision{STS: &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"mx.sts.test"}, Text: "version: STSv1\nmode: enforce\n"}}
	record := func(domain string, d *policy.Decision, h *dane.Host, judgements ...delivery.Judgement) {
		s.recordDelivery(delivery.Outcome{Time: s.now(), Domain: domain, MX: h.Name, Host: h, Decision: d, Judgements: judgements})
	}
	counted := func(t *testing.T, what string, n uint64) {
		t.Helper()
		if err := s.recording.recorder.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.of(what); got != n {
			t.Errorf("%s: %d, want %d", what, got, n)
		}
	}
	plain := &dane.Host{Name: "mx.sts.test", State: dane.NoTLSA}

	t.Run("STS-142 an MX host without STARTTLS or a good certificate", func(t *testing.T) {
		record("sts.test", enforce, plain, delivery.Judgement{Policy: delivery.PolicySTS, Result: "starttls-not-supported"})
		record("sts.test", enforce, plain, delivery.Judgement{Policy: delivery.PolicySTS, Result: "certificate-expired"})
		counted(t, "sts.test sts reported starttls-not-supported", 1)
		counted(t, "sts.test sts reported certificate-expired", 1)
	})
	t.Run("RPT-025 successes are counted too", func(t *testing.T) {
		record("sts.test", enforce, plain, delivery.Judgement{Policy: delivery.PolicySTS})
		counted(t, "sts.test sts reported success", 1)
	})
	t.Run("RPT-026 a failed session is one failure of each policy that it failed", func(t *testing.T) {
		both := &dane.Host{Name: "mx.both.test", Base: "mx.both.test", State: dane.Usable}
		record("both.test", enforce, both, delivery.Judgement{Policy: delivery.PolicyTLSA, Result: "certificate-not-trusted"}, delivery.Judgement{Policy: delivery.PolicySTS, Result: "certificate-not-trusted"})
		counted(t, "both.test tlsa reported certificate-not-trusted", 1)
		counted(t, "both.test sts reported certificate-not-trusted", 1)
	})
	t.Run("RPT-031 no policy found", func(t *testing.T) {
		record("none.test", &policy.Decision{}, &dane.Host{Name: "mx.none.test"}, delivery.Judgement{Policy: delivery.PolicyNone})
		record("none.test", &policy.Decision{}, &dane.Host{Name: "mx.none.test"}, delivery.Judgement{Policy: delivery.PolicyNone, Result: "starttls-not-supported"})
		counted(t, "none.test no-policy-found reported success", 1)
		counted(t, "none.test no-policy-found reported starttls-not-supported", 1)
	})
	t.Run("DANE-025 DANE is counted as a policy of the MX host, never of the domain", func(t *testing.T) {
		p := appliedPolicy(&delivery.Outcome{Domain: "insecure.test", Host: &dane.Host{Name: "mx.provider.test", Base: "mx.provider.test"}}, delivery.Judgement{Policy: delivery.PolicyTLSA})
		if p.Domain != "mx.provider.test" {
			t.Errorf("policy-domain %s", p.Domain)
		}
	})
	t.Run("DANE-026 the MX host is named as in the MX record", func(t *testing.T) {
		aliased := &dane.Host{Name: "mx.alias.test", Expanded: "host.provider.test", Base: "host.provider.test", State: dane.Usable}
		record("alias.test", &policy.Decision{}, aliased, delivery.Judgement{Policy: delivery.PolicyTLSA})
		counted(t, "alias.test tlsa reported success", 1)
		if got := s.hosts(); !slices.Contains(got, "mx.alias.test") || slices.Contains(got, "host.provider.test") {
			t.Errorf("%q", got)
		}
	})
}

package probe_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postseal/policy"
	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts"
	"postseal/policy/mtasts/ststest"
	"postseal/policy/probe"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a prober with an Internet of its own.
type bed struct {
	*probe.Prober
	t   *testing.T
	web *ststest.Server
	net *mxtest.Net
	pol *policy.Engine
	mx  map[string]*mxtest.Host

	mu    sync.Mutex
	ahead time.Duration
}

func (b *bed) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.ahead)
}

func (b *bed) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead += d
}

// newBed makes domains with two MX hosts, mx1 and mx2 of each, at addresses that the
// hosts have.
func newBed(t *testing.T, domains ...string) *bed {
	t.Helper()
	b := &bed{t: t, web: ststest.New(t), net: mxtest.New(t), mx: map[string]*mxtest.Host{}}
	zone := ""
	for i, d := range domains {
		for n := 1; n <= 2; n++ {
			name, ip := fmt.Sprintf("mx%d.%s", n, d), fmt.Sprintf("127.0.%d.%d", 71+i, n)
			b.mx[name] = b.net.Host(name, ip)
			zone += fmt.Sprintf("%s. MX %d %s.\n%s. A %s\n", d, 10*n, name, name, ip)
		}
		zone += fmt.Sprintf("_mta-sts.%s. TXT \"v=STSv1; id=1;\"\nmta-sts.%s. A %s\n", d, d, b.web.IP)
	}
	dns := dnstest.New(t, zone)
	client := dns.Client()
	client.TryTimeout, client.Timeout = time.Second, 3*time.Second
	engine := &policy.Engine{DNS: client, Fetch: &mtasts.Fetcher{DNS: client, Roots: b.web.Roots, AllowPrivate: true, Port: b.web.Port}, Now: b.now}
	b.pol = engine
	b.Prober = &probe.Prober{Resolver: engine, Port: b.net.Port, AllowPrivate: true, Now: b.now,
		Client: &smtpclient.Client{Hostname: "probe.test", Roots: b.net.Roots, Limits: probe.Limits()}}
	for _, run := range []func(context.Context) error{engine.Run, b.Run} {
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
	return b
}

// publish gives a domain a policy and returns its patterns.
func (b *bed) publish(domain, mode string, mx ...string) []string {
	text := "version: STSv1\nmode: " + mode + "\n"
	for _, m := range mx {
		text += "mx: " + m + "\n"
	}
	text += "max_age: 86400\n"
	b.web.Set(domain, text)
	return mx
}

// verdict waits for that of a host.
func (b *bed) verdict(host string) probe.Verdict {
	b.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if v, ok := b.Verdict(host, b.now()); ok {
			return v
		}
	}
	b.t.Fatalf("no verdict on %s", host)
	return probe.Verdict{}
}

// visits counts the connections to a host, and finds mail among them.
func (b *bed) visits(host string) int {
	b.t.Helper()
	conns := b.mx[host].Ended()
	for _, c := range conns {
		if verbs := c.Verbs(); slices.Contains(verbs, "MAIL") || !c.Quit && c.TLS {
			b.t.Errorf("%s: a probe said %q, QUIT %t", host, verbs, c.Quit)
		}
	}
	return len(conns)
}

// settled notes mail to a domain until that asks for nothing any more.
func (b *bed) settled(domain string, patterns []string) {
	b.t.Helper()
	for range 3 {
		b.Note(domain, patterns)
		for deadline := time.Now().Add(30 * time.Second); b.Waits(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				b.t.Fatalf("%s is still waiting", domain)
			}
		}
	}
}

func TestVerdicts(t *testing.T) {
	b := newBed(t, "a.test")
	b.mx["mx2.a.test"].Set(mxtest.Config{Certificate: "expired"})
	text := b.publish("a.test", "testing", "mx1.a.test", "mx2.a.test")
	b.Note("a.test", text)
	if v := b.verdict("mx1.a.test"); v.Result != "" {
		t.Errorf("a good host: %+v", v)
	}
	if v := b.verdict("mx2.a.test"); v.Result != "certificate-expired" {
		t.Errorf("an expired certificate: %+v", v)
	}
	if _, ok := b.Verdict("mx1.a.test", b.now().Add(-25*time.Hour)); ok {
		t.Error("a verdict for a session of yesterday")
	}
}

func TestFaults(t *testing.T) {
	for certificate, want := range map[string]string{"selfsigned": "certificate-not-trusted", "otherca": "certificate-not-trusted", "wrongname": "certificate-host-mismatch", "cnonly": "certificate-host-mismatch"} {
		t.Run(certificate, func(t *testing.T) {
			b := newBed(t, "a.test")
			b.mx["mx1.a.test"].Set(mxtest.Config{Certificate: certificate})
			b.Note("a.test", b.publish("a.test", "testing", "mx1.a.test"))
			if v := b.verdict("mx1.a.test"); v.Result != want {
				t.Errorf("%+v, want %s", v, want)
			}
		})
	}
	t.Run("no STARTTLS", func(t *testing.T) {
		b := newBed(t, "a.test")
		b.mx["mx1.a.test"].Set(mxtest.Config{NoSTARTTLS: true})
		b.Note("a.test", b.publish("a.test", "testing", "mx1.a.test"))
		if v := b.verdict("mx1.a.test"); v.Result != "starttls-not-supported" {
			t.Errorf("%+v", v)
		}
	})
}

func TestOnceADay(t *testing.T) {
	b := newBed(t, "a.test")
	text := b.publish("a.test", "testing", "mx1.a.test")
	b.Note("a.test", text)
	b.verdict("mx1.a.test")
	b.settled("a.test", text)
	if n := b.visits("mx1.a.test"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if n := b.visits("mx2.a.test"); n != 0 {
		t.Errorf("a host outside the policy was contacted %d times", n)
	}
	b.settled("a.test", append([]string{"not.published.test"}, text...))
	if n := b.visits("mx1.a.test"); n != 1 {
		t.Errorf("asked %d times though nothing has changed", n)
	}
	b.advance(25 * time.Hour)
	b.Note("a.test", text)
	b.verdict("mx1.a.test")
	if n := b.visits("mx1.a.test"); n != 2 {
		t.Errorf("asked %d times in two days", n)
	}
}

func TestChangedPolicyIsSooner(t *testing.T) {
	b := newBed(t, "a.test")
	b.Note("a.test", b.publish("a.test", "testing", "mx1.a.test"))
	b.verdict("mx1.a.test")
	text := b.publish("a.test", "testing", "*.a.test")
	b.pol.Refresh(t.Context(), policy.Destination{Domain: "a.test", Port: b.net.Port})
	b.Note("a.test", text)
	b.verdict("mx2.a.test")
	if n := b.visits("mx1.a.test"); n != 2 {
		t.Errorf("asked %d times under two policies", n)
	}
}

func TestOtherModes(t *testing.T) {
	for _, mode := range []string{"enforce", "none"} {
		b := newBed(t, "a.test")
		b.settled("a.test", b.publish("a.test", mode, "mx1.a.test"))
		if n := b.visits("mx1.a.test"); n != 0 {
			t.Errorf("%s: asked %d times", mode, n)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	for name, fault := range map[string]mxtest.Config{
		"unreachable":           {Banner: "421 4.3.2 not now\r\n"},
		"lost in the handshake": {Handshake: mxtest.Drop},
		"reset":                 {Handshake: mxtest.Reset},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, "a.test")
			b.mx["mx1.a.test"].Set(fault)
			text := b.publish("a.test", "testing", "mx1.a.test")
			b.settled("a.test", text)
			if v, ok := b.Verdict("mx1.a.test", b.now()); ok {
				t.Errorf("a verdict without an answer: %+v", v)
			}
			before := len(b.mx["mx1.a.test"].Ended())
			b.settled("a.test", text)
			if n := len(b.mx["mx1.a.test"].Ended()); n != before || n == 0 {
				t.Errorf("asked %d times, then %d", before, n)
			}
			b.mx["mx1.a.test"].Set(mxtest.Config{})
			b.advance(2 * time.Hour)
			b.Note("a.test", text)
			if v := b.verdict("mx1.a.test"); v.Result != "" {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestAsk(t *testing.T) {
	b := newBed(t, "a.test")
	b.mx["mx2.a.test"].Set(mxtest.Config{Certificate: "selfsigned"})
	b.publish("a.test", "enforce", "mx1.a.test")
	list := b.Ask(t.Context(), policy.Destination{Domain: "a.test", Port: b.net.Port})
	if len(list) != 2 || list[0].Host != "mx1.a.test" || list[0].Info.STSErr != nil || list[0].Info.PKIXErr != nil || !list[0].Info.TLS {
		t.Fatalf("%+v", list)
	}
	if err := list[1].Info.PKIXErr; err == nil || !strings.Contains(fmt.Sprint(list[1].Info.STSErr), "policy") {
		t.Errorf("the second host: %v, %v", err, list[1].Info.STSErr)
	}
}

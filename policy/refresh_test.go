package policy_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"postseal/policy"
)

// logged is a log to look into.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestRefresh(t *testing.T) {
	t.Run("STS-075 daily, whatever the TXT says", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.dns.SetZone(domainZone+"mta-sts.example.test. 300 IN A 127.0.0.1\n", "signed.test.")
		for range 20 { // ten days, the life of the policy is seven
			b.advance(12 * time.Hour)
			b.RunDue()
			b.want(domain, policy.LevelSTS, enforced)
		}
		if n := b.web.Gets(domain); n < 8 || n > 14 {
			t.Errorf("%d GETs in ten days", n)
		}
	})
	t.Run("STS-075 before the end of a short life", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Set(domain, policyText("enforce", "3600", "mx.example.test"))
		b.decide(domain)
		b.advance(31 * time.Minute)
		b.RunDue()
		if n := b.web.Gets(domain); n != 2 {
			t.Errorf("%d GETs", n)
		}
	})
	t.Run("STS-079 the body is read again under the same id", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.web.Set(domain, relaxed)
		b.advance(25 * time.Hour)
		b.RunDue()
		b.want(domain, policy.LevelNone, "DANE none, STS none")
	})
	t.Run("STS-076 only what is used, and the rest is dropped", func(t *testing.T) {
		b := newSTSBed(t)
		b.decide(domain)
		b.decide("other." + domain)
		b.advance(8 * 24 * time.Hour)
		b.RunDue()
		if n := b.web.Gets(domain); n != 1 {
			t.Errorf("%d GETs for a domain that nobody asks for", n)
		}
		left := 0
		if err := b.List(func(policy.Summary) bool { left++; return true }); err != nil || left != 0 {
			t.Errorf("%d left, %v", left, err)
		}
	})
	t.Run("STS-076 spread", func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 1000 {
			d := policy.RefreshAfter(30 * 24 * time.Hour)
			if d > 24*time.Hour || d < 18*time.Hour {
				t.Fatalf("refresh after %s", d)
			}
			seen[d.Truncate(time.Minute)] = true
		}
		if len(seen) < 100 {
			t.Errorf("%d different minutes", len(seen))
		}
	})
	t.Run("STS-080 an alert well before expiry, not for mode none", func(t *testing.T) {
		for _, mode := range []string{"enforce", "none"} {
			var log logged
			b := newSTSBed(t, func(e *policy.Engine) { e.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			b.web.Set(domain, policyText(mode, "604800", "mx.example.test"))
			b.decide(domain)
			b.web.Down()
			for range 4 {
				b.advance(20 * time.Hour)
				b.RunDue()
			}
			warned := strings.Contains(log.String(), "policy cannot be refreshed") && strings.Contains(log.String(), "domain="+domain)
			if warned != (mode == "enforce") {
				t.Errorf("mode %s: %s", mode, log.String())
			}
			if s := b.Status(); (s.Failing == 1) != (mode == "enforce") {
				t.Errorf("mode %s: %+v", mode, s)
			}
		}
	})
	t.Run("STS-043 pauses grow", func(t *testing.T) {
		b := newSTSBed(t)
		b.web.Fault(domain, "404")
		for range 24 * 60 / 5 { // a day, a question every five minutes
			b.decide(domain)
			b.advance(5*time.Minute + time.Second)
		}
		if n := b.web.Gets(domain); n < 5 || n > 15 {
			t.Errorf("%d GETs a day for a policy that is not there", n)
		}
	})
}

func TestOverrides(t *testing.T) {
	pin := func(mode string, mx ...string) policy.Override {
		return policy.Override{Action: policy.Pin, Policy: parsePolicy(t, policyText(mode, "86400", mx...))}
	}
	rule := func(o policy.Override, domain string) policy.Override { o.Domain = domain; return o }
	cases := []struct {
		name, domain string
		override     policy.Override
		level        policy.Level
		rule         string
	}{
		{"exempt", domain, policy.Override{Domain: domain, Action: policy.Exempt}, policy.LevelMay, "override exempt"},
		{"exempt from DANE", "full.signed.test", policy.Override{Domain: "full.signed.test", Action: policy.Exempt}, policy.LevelMay, "override exempt"},
		{"exempt below", "a.b." + domain, policy.Override{Domain: "." + domain, Action: policy.Exempt}, policy.LevelMay, "override exempt"},
		{"below is not the domain itself", domain, policy.Override{Domain: "." + domain, Action: policy.Exempt}, policy.LevelSTS, enforced},
		{"require encrypt", "none.test", policy.Override{Domain: "none.test", Action: policy.Require, Level: policy.LevelEncrypt}, policy.LevelEncrypt, "override require encrypt"},
		{"DANE-028 require dane-only", "none.test", policy.Override{Domain: "none.test", Action: policy.Require, Level: policy.LevelDANEOnly}, policy.LevelDANEOnly, "override require dane-only"},
		{"require secure", "none.test", policy.Override{Domain: "none.test", Action: policy.Require, Level: policy.LevelSTS, Policy: pin("enforce", "*.none.test").Policy}, policy.LevelSTS, "override require sts"},
		{"pin enforce", "none.test", rule(pin("enforce", "mx.none.test"), "none.test"), policy.LevelSTS, enforced},
		{"pin none over a published enforce", domain, rule(pin("none"), domain), policy.LevelNone, "DANE none, STS none"},
		{"pin leaves DANE first", "full.signed.test", rule(pin("none"), "full.signed.test"), policy.LevelDANEOnly, "DANE full"},
		{"requiretls alone changes nothing", domain, policy.Override{Domain: domain, RequireTLS: "opportunistic"}, policy.LevelSTS, enforced},
	}
	for _, c := range cases {
		t.Run("STS-084 "+c.name, func(t *testing.T) {
			b := newBed(t, domainZone+stsZone(domain, "1")+fullZone+tlsa+"\n")
			b.web.Set(domain, enforcing)
			before := b.decide(c.domain)
			b.SetOverrides([]policy.Override{c.override})
			d := b.want(c.domain, c.level, c.rule)
			if d.Level == policy.LevelSTS && (d.STS == nil || len(d.STS.MX) == 0) {
				t.Error("no MX patterns at level sts")
			}
			b.want(c.domain, c.level, c.rule) // now remembered
			b.SetOverrides(nil)
			b.want(c.domain, before.Level, before.Rule)
		})
	}
	t.Run("expiry", func(t *testing.T) {
		b := newSTSBed(t)
		b.SetOverrides([]policy.Override{{Domain: domain, Action: policy.Exempt, Expires: b.now().Add(time.Minute)}})
		b.want(domain, policy.LevelMay, "override exempt")
		b.advance(61 * time.Second)
		b.want(domain, policy.LevelSTS, enforced)
	})
	t.Run("the more specific rule", func(t *testing.T) {
		b := newSTSBed(t)
		b.SetOverrides([]policy.Override{
			{Domain: ".test", Action: policy.Exempt},
			{Domain: domain, Action: policy.Require, Level: policy.LevelEncrypt},
		})
		b.want(domain, policy.LevelEncrypt, "override require encrypt")
		b.want("other.test", policy.LevelMay, "override exempt")
	})
	t.Run("the reason is told", func(t *testing.T) {
		b := newSTSBed(t)
		b.SetOverrides([]policy.Override{{Domain: domain, Action: policy.Exempt, Reason: "their \x00firewall"}})
		if d := b.decide(domain); d.Reason != "override of example.test: their ?firewall" {
			t.Errorf("%q", d.Reason)
		}
	})
}

func TestPolicyAt(t *testing.T) {
	b := newSTSBed(t)
	before := b.now()
	b.advance(time.Minute)
	b.decide(domain)
	first := b.now()
	for i := 2; i <= 12; i++ {
		b.advance(time.Hour)
		b.dns.SetZone(domainZone+stsZone(domain, fmt.Sprint(i)), "signed.test.")
		b.web.Set(domain, policyText("enforce", "604800", "mx.example.test", fmt.Sprintf("mx%d.example.test", i)))
		b.decide(domain)
		if i == 3 {
			if a, ok := b.PolicyAt(domain, first.Add(time.Second)); !ok || a.Type != policy.TypeSTS || len(a.MX()) != 1 || a.Strings()[1] != "mode: enforce" {
				t.Errorf("the first policy: %v, %+v, %q", ok, a, a.Strings())
			}
			if _, ok := b.PolicyAt(domain, before); ok {
				t.Error("known before anything was answered")
			}
		}
	}
	check := func() {
		t.Helper()
		if _, ok := b.PolicyAt(domain, first); ok {
			t.Error("more than eight kept")
		}
		if a, ok := b.PolicyAt(domain, b.now()); !ok || len(a.MX()) != 2 || a.MX()[1] != "mx12.example.test" {
			t.Errorf("now: %v, %q", ok, a.MX())
		}
		if a, ok := b.PolicyAt(domain, b.now().Add(-90*time.Minute)); !ok || a.MX()[1] != "mx10.example.test" {
			t.Errorf("90 minutes ago: %v, %q", ok, a.MX())
		}
	}
	check()
	b.restart()
	check()
	if _, ok := b.PolicyAt("never.test", b.now()); ok {
		t.Error("known for a domain never asked for")
	}
}

func TestPolicyAtDANE(t *testing.T) {
	b := newBed(t, fullZone+tlsa)
	b.decide("full.signed.test")
	b.waitFor(func() bool { _, ok := b.PolicyAt("full.signed.test", b.now()); return ok })
	a, ok := b.PolicyAt("full.signed.test", b.now())
	want := "_25._tcp.mx.full.signed.test. IN TLSA " + tlsa
	if !ok || a.Type != policy.TypeTLSA || len(a.Strings()) != 1 || a.Strings()[0] != want {
		t.Errorf("%v, %+v, %q", ok, a, a.Strings())
	}
	b.restart()
	b.decide("full.signed.test") // from disk, without the records
	if a, _ := b.PolicyAt("full.signed.test", b.now()); len(a.Strings()) != 1 {
		t.Errorf("after a restart: %q", a.Strings())
	}
}

func TestExplain(t *testing.T) {
	b := newSTSBed(t)
	ctx := context.Background()
	dest := policy.Destination{Domain: domain, Port: 25}
	trail := b.Explain(ctx, dest, false)
	text := ""
	for _, s := range trail.Steps {
		text += s.Topic + ": " + s.Text + "\n"
	}
	for _, part := range []string{"MX    example.test: 10 mx.example.test", "ttl 5m0s", "insecure", "record id 1", "mode enforce", "certificate by"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
	if trail.Cached || trail.Decision.Level != policy.LevelSTS {
		t.Errorf("%+v", trail.Decision)
	}
	if again := b.Explain(ctx, dest, false); !again.Cached || len(again.Steps) != len(trail.Steps) {
		t.Errorf("the second time: cached %v, %d steps", again.Cached, len(again.Steps))
	}
	b.advance(301 * time.Second)
	b.decide(domain) // asks for the record again, and for the MX
	later := b.Explain(ctx, dest, false)
	text = ""
	for _, s := range later.Steps {
		text += s.Topic + ": " + s.Text + "\n"
	}
	if !later.Cached || !strings.Contains(text, "remembered: policy mode enforce") || !strings.Contains(text, "certificate by") {
		t.Errorf("after the TTL: cached %v\n%s", later.Cached, text)
	}
	if fresh := b.Explain(ctx, dest, true); fresh.Cached || b.web.Gets(domain) != 2 {
		t.Errorf("fresh: cached %v, %d GETs", fresh.Cached, b.web.Gets(domain))
	}
}

// TestExplainKeepsSteps: what was found for an earlier question is part of the
// trail as long as the decision rests on it.
func TestExplainKeepsSteps(t *testing.T) {
	b := newBed(t, domainZone+strings.ReplaceAll(stsZone(domain, "1"), " 300 ", " 5 "))
	b.web.Set(domain, enforcing)
	b.decide(domain)
	for range 3 {
		b.advance(6 * time.Second)
		b.decide(domain) // asks for the record only
	}
	trail := b.Explain(context.Background(), policy.Destination{Domain: domain, Port: 25}, false)
	var mx, txt int
	for _, s := range trail.Steps {
		if strings.HasPrefix(s.Text, "MX ") {
			mx++
		}
		if strings.HasPrefix(s.Text, "TXT ") {
			txt++
		}
	}
	if mx != 1 || txt != 1 || !trail.Cached {
		t.Errorf("cached %v, %d MX and %d TXT steps in %+v", trail.Cached, mx, txt, trail.Steps)
	}
	if n := b.dns.Count("MX", domain); n != 1 {
		t.Errorf("%d MX questions", n)
	}
}

func FuzzDecodeMemo(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00"))
	f.Add([]byte("\x01\x03\x80\x01\x011\x00\x05\x01\x2eversion: STSv1\nmode: none\nmx: a.b\nmax_age: 12\n\x01\x03a:1\x01b\x05\x01\x02\x00\x00\x00\x00\x01\x00\x02no\x05\x00\x01\x00\x01\x01\x03sts\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x08"))
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := policy.DecodeMemo("example.org", data)
		if err != nil {
			return
		}
		if twice, err := policy.DecodeMemo("example.org", once); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%q became %q, %v", once, twice, err)
		}
	})
}

// TestScan: the background finds by itself what is due and what may go.
func TestScan(t *testing.T) {
	b := newSTSBed(t)
	b.decide(domain)
	b.decide("unused." + domain)
	b.stop()
	b.advance(25 * time.Hour)
	b.start() // scans at once
	b.waitFor(func() bool { return b.web.Gets(domain) == 2 })
	b.decide(domain)
	b.stop()
	b.advance(daysUnused)
	b.start()
	b.waitFor(func() bool {
		left := 0
		return b.List(func(s policy.Summary) bool { left++; return true }) == nil && left == 0
	})
}

const daysUnused = 8 * 24 * time.Hour

func TestTLSAOfHost(t *testing.T) {
	b := newBed(t, `
alias.signed.test. MX 10 mx1.alias.signed.test.
alias.signed.test. MX 20 mx2.alias.signed.test.
alias.signed.test. MX 30 mx3.alias.signed.test.
mx1.alias.signed.test. CNAME end.signed.test.
end.signed.test. A 192.0.2.1
_25._tcp.end.signed.test. TLSA `+tlsa+`
mx2.alias.signed.test. A 192.0.2.2
_25._tcp.mx2.alias.signed.test. TLSA `+tlsa+`
mx3.alias.signed.test. A 192.0.2.3
`)
	b.want("alias.signed.test", policy.LevelDANE, "DANE partial")
	b.waitFor(func() bool { _, ok := b.PolicyAt("alias.signed.test", b.now()); return ok })
	check := func() {
		t.Helper()
		a, ok := b.PolicyAt("alias.signed.test", b.now())
		if !ok || len(a.Strings()) != 2 {
			t.Fatalf("%v, %q", ok, a.Strings())
		}
		for host, want := range map[string]string{"mx1.alias.signed.test": "end.signed.test", "mx2.alias.signed.test": "mx2.alias.signed.test", "mx3.alias.signed.test": "", "end.signed.test": ""} {
			base, records := a.TLSA(host)
			if base != want || (len(records) == 1) != (want != "") {
				t.Errorf("%s: base %q, records %q", host, base, records)
			}
			for _, r := range records {
				if want := "_25._tcp." + want + ". IN TLSA " + tlsa; r != want {
					t.Errorf("%s: %q, want %q", host, r, want)
				}
			}
		}
	}
	check()
	b.restart()
	check()
}

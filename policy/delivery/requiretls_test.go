package delivery

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/policy"
	"postseal/policy/mtasts"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient/mxtest"
)

// deaf are the keywords of a host that does not know REQUIRETLS.
var deaf = mxtest.Config{TLSKeywords: []string{"PIPELINING", "8BITMIME", "DSN"}}

// untold checks that a host was never told of a message.
func untold(t testing.TB, h *mxtest.Host) {
	t.Helper()
	if m := commands(h, "MAIL"); len(m) != 0 {
		t.Errorf("%s was told %q", h.Name, m)
	}
}

// TestRequireTLS: RFC 8689 §4.2.1, one host at a time.
func TestRequireTLS(t *testing.T) {
	for _, c := range []struct {
		name   string
		domain string // signed or not
		host   string
		config mxtest.Config
		tlsa   string // "" for none; "good", "rekeyed", or a record
		sts    string // mode; "" for none
		codes  string
	}{
		{name: "RT-030 signed MX", domain: "d.signed.test", host: "mx.test", codes: "250 2.0.0"},
		{name: "RT-031 unsigned MX without MTA-STS", domain: "d.test", host: "mx.test", codes: "550 5.7.10"},
		{name: "RT-031 unsigned MX with MTA-STS", domain: "d.test", host: "mx.test", sts: "enforce", codes: "250 2.0.0"},
		{name: "RT-032 testing does not count", domain: "d.test", host: "mx.test", sts: "testing", codes: "550 5.7.10"},
		{name: "RT-032 none does not count", domain: "d.test", host: "mx.test", sts: "none", codes: "550 5.7.10"},
		{name: "RT-034 self-signed without TLSA", domain: "d.signed.test", host: "mx.test", config: mxtest.Config{Certificate: "selfsigned"}, codes: "550 5.7.10"},
		{name: "RT-034 authenticated by DANE", domain: "d.signed.test", host: "mx.signed.test", config: mxtest.Config{Certificate: "selfsigned"}, tlsa: "good", codes: "250 2.0.0"},
		{name: "RT-035 certificate for the domain alone", domain: "d.signed.test", host: "mx.test", config: mxtest.Config{Names: []string{"d.signed.test"}}, codes: "550 5.7.10"},
		{name: "RT-036 DANE-EE has no name", domain: "d.signed.test", host: "mx.signed.test", config: mxtest.Config{Certificate: "wrongname"}, tlsa: "good", codes: "250 2.0.0"},
		{name: "RT-037 unusable TLSA, good certificate", domain: "d.signed.test", host: "mx.signed.test", tlsa: "0 1 1 " + strings.Repeat("ab", 32), codes: "250 2.0.0"},
		{name: "RT-037 unusable TLSA, self-signed", domain: "d.signed.test", host: "mx.signed.test", config: mxtest.Config{Certificate: "selfsigned"}, tlsa: "0 1 1 " + strings.Repeat("ab", 32), codes: "550 5.7.10"},
		{name: "RT-038 DANE behind an insecure MX", domain: "d.test", host: "mx.signed.test", tlsa: "good", codes: "550 5.7.10"},
		{name: "DANE-111 REQUIRETLS asks for more than DANE", domain: "d.test", host: "mx.signed.test", tlsa: "good", codes: "550 5.7.10"},
		{name: "RT-045 the sender hears of it", domain: "d.signed.test", host: "mx.test", config: deaf, codes: "550 5.7.30"},
		{name: "RT-046 no keyword", domain: "d.signed.test", host: "mx.signed.test", config: deaf, tlsa: "good", codes: "550 5.7.30"},
		{name: "RT-046 no STARTTLS", domain: "d.signed.test", host: "mx.test", config: mxtest.Config{NoSTARTTLS: true}, codes: "550 5.7.10"},
		{name: "RT-090 TLSA mismatch", domain: "d.signed.test", host: "mx.signed.test", tlsa: "rekeyed", codes: "451 4.7.10"},
		{name: "RT-090 outside of the policy", domain: "d.signed.test", host: "mx.test", sts: "other", codes: "451 4.7.5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			h := b.host(c.host, 11, c.config)
			b.mx(c.domain, 10, c.host)
			switch c.tlsa {
			case "":
			case "good", "rekeyed":
				b.tlsa(h, h.TLSA(3, 1, 1))
			default:
				b.tlsa(h, c.tlsa)
			}
			if c.tlsa == "rekeyed" {
				h.Rekey()
			}
			switch c.sts {
			case "":
			case "other":
				b.sts(c.domain, "enforce", "other.test")
			default:
				b.sts(c.domain, c.sts, c.host)
			}
			r := b.send(required, "u@"+c.domain)[0]
			want(t, r, c.codes, c.host)
			if r.Code == 250 {
				took(t, h, 1)
				if m := commands(h, "MAIL"); len(m) != 1 || !strings.HasSuffix(m[0], " REQUIRETLS") {
					t.Errorf("said %q", m)
				}
				return
			}
			untold(t, h)
		})
	}
	t.Run("RT-033 a domain without MX", func(t *testing.T) {
		b := newBed(t)
		h := b.host("d.test", 11)
		want(t, b.send(required, "u@d.test")[0], "250 2.0.0")
		took(t, h, 1)
	})
	t.Run("RT-033 a fixed relay", func(t *testing.T) {
		b := newBed(t)
		h := b.host("smart.test", 11)
		b.Routes = []Route{{Domain: "*", NextHop: "[smart.test]"}}
		want(t, b.send(required, "u@d.test")[0], "250 2.0.0", "smart.test")
		took(t, h, 1)
	})
	t.Run("RT-030 null MX", func(t *testing.T) {
		b := newBed(t)
		b.publish("d.test. IN MX 0 .")
		want(t, b.send(required, "u@d.test")[0], "556 5.1.10")
	})
	t.Run("RT-031 bogus MX", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11)
		b.mx("d.signed.test", 10, "mx.test")
		b.dns.Fail("d.signed.test", "MX", "BOGUS")
		want(t, b.send(required, "u@d.signed.test")[0], "451 4.4.3")
		untouched(t, h)
	})
	t.Run("address literals prove nothing", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11)
		want(t, b.send(required, "u@[127.0.0.11]")[0], "550 5.7.10")
		untold(t, h)
	})
}

// TestRequireTLSHosts: several hosts and domains.
func TestRequireTLSHosts(t *testing.T) {
	two := func(t *testing.T, first, second mxtest.Config) (b *bed, a, z *mxtest.Host) {
		b = newBed(t)
		a, z = b.host("a.test", 11, first), b.host("z.test", 12, second)
		b.mx("d.signed.test", 10, "a.test", 20, "z.test")
		return b, a, z
	}
	t.Run("RT-042 QUIT, and the next host", func(t *testing.T) {
		b, a, z := two(t, deaf, mxtest.Config{})
		want(t, b.send(required, "u@d.signed.test")[0], "250 2.0.0", "z.test")
		untold(t, a)
		took(t, z, 1)
		if c := a.Ended(); len(c) != 1 || !c[0].Quit {
			t.Errorf("%d connections, or no QUIT", len(c))
		}
	})
	t.Run("RT-043 other mail may go there", func(t *testing.T) {
		b, a, _ := two(t, deaf, deaf)
		want(t, b.send(required, "u@d.signed.test")[0], "550 5.7.30")
		want(t, b.send(normal, "u@d.signed.test")[0], "250 2.0.0", "a.test")
		took(t, a, 1)
	})
	t.Run("RT-044 never downgraded", func(t *testing.T) {
		b, a, z := two(t, deaf, mxtest.Config{NoSTARTTLS: true})
		want(t, b.send(required, "u@d.signed.test")[0], "550 5.7.30", "a.test", "z.test")
		untold(t, a)
		untold(t, z)
	})
	t.Run("RT-046 the keyword says more than the certificate", func(t *testing.T) {
		b, _, _ := two(t, mxtest.Config{Certificate: "expired"}, deaf)
		want(t, b.send(required, "u@d.signed.test")[0], "550 5.7.30", "a.test", "z.test")
		b, _, _ = two(t, mxtest.Config{Certificate: "expired"}, mxtest.Config{Certificate: "selfsigned"})
		want(t, b.send(required, "u@d.signed.test")[0], "550 5.7.10", "a.test", "z.test")
	})
	t.Run("RT-047 a host that was not reached", func(t *testing.T) {
		b, _, z := two(t, deaf, mxtest.Config{})
		z.Reply("GREETING", mxtest.Drop)
		want(t, b.send(required, "u@d.signed.test")[0], "451 4.7.10", "a.test", "z.test")
		z.Reply("GREETING", "554 no mail today")
		want(t, b.send(required, "u@d.signed.test")[0], "451 4.7.10", "a.test", "z.test")
	})
	t.Run("RT-047 STARTTLS that may work later", func(t *testing.T) {
		b, _, z := two(t, deaf, mxtest.Config{})
		z.Reply("STARTTLS", "454 4.7.0 not now")
		want(t, b.send(required, "u@d.signed.test")[0], "451 4.7.10", "a.test", "z.test")
	})
	t.Run("RT-047 a host that does not exist does not count", func(t *testing.T) {
		b := newBed(t)
		b.host("a.test", 11, deaf)
		b.mx("d.signed.test", 10, "a.test", 20, "gone.signed.test")
		want(t, b.send(required, "u@d.signed.test")[0], "550 5.7.30", "a.test")
	})
	t.Run("RT-048 each domain by itself", func(t *testing.T) {
		b, a, _ := two(t, mxtest.Config{}, mxtest.Config{})
		b.host("mx.e.test", 13, deaf)
		b.mx("e.signed.test", 10, "mx.e.test")
		r := b.send(required, "u@d.signed.test", "u@e.signed.test", "u@f.test")
		want(t, r[0], "250 2.0.0", "a.test")
		want(t, r[1], "550 5.7.30", "mx.e.test")
		want(t, r[2], "550 5.1.2")
		took(t, a, 1)
	})
	t.Run("RT-013 every copy keeps the tag", func(t *testing.T) {
		b, a, z := two(t, mxtest.Config{}, mxtest.Config{})
		b.mx("e.signed.test", 10, "z.test")
		b.mx("f.signed.test", 10, "z.test")
		for _, r := range b.send(required, "u@d.signed.test", "u@e.signed.test", "u@f.signed.test") {
			want(t, r, "250 2.0.0")
		}
		all := append(commands(a, "MAIL"), commands(z, "MAIL")...)
		if len(all) != 3 || slices.ContainsFunc(all, func(m string) bool { return !strings.HasSuffix(m, " REQUIRETLS") }) {
			t.Errorf("said %q", all)
		}
	})
	t.Run("RT-010 the tag stays with the message", func(t *testing.T) {
		b, a, z := two(t, deaf, mxtest.Config{})
		z.Reply("GREETING", "451 not now", "220 z.test")
		m := b.message(required, "s@sender.test", "u@d.signed.test")
		want(t, b.deliver(context.Background(), m)[0], "451 4.7.10")
		want(t, b.deliver(context.Background(), m)[0], "250 2.0.0", "z.test")
		untold(t, a)
	})
	t.Run("RT-012 REQUIRETLS beats the header", func(t *testing.T) {
		b, a, z := two(t, deaf, mxtest.Config{})
		m := b.message(required, "s@sender.test", "u@d.signed.test")
		c := plainText("Received: x\r\nTLS-Required: No\r\n\r\nHello.\r\n")
		m.digest, m.content = digest(c), c
		want(t, b.deliver(context.Background(), m)[0], "250 2.0.0", "z.test")
		untold(t, a)
		if mail := z.Mails()[0]; !strings.HasSuffix(mail.From, " REQUIRETLS") || string(mail.Data) != string(c) {
			t.Errorf("%q, %q", mail.From, mail.Data)
		}
	})
	t.Run("one recipient requires TLS, one does without", func(t *testing.T) {
		b, a, _ := two(t, mxtest.Config{}, mxtest.Config{})
		m := b.message(required, "s@sender.test", "u@d.signed.test", "v@d.signed.test")
		m.modes[1] = relaxed
		for _, r := range b.deliver(context.Background(), m) {
			want(t, r, "250 2.0.0")
		}
		for _, mail := range a.Mails() {
			if strings.Contains(mail.From, "REQUIRETLS") != strings.Contains(mail.To[0], "u@") {
				t.Errorf("%q for %q", mail.From, mail.To)
			}
		}
		took(t, a, 2)
	})
	for _, name := range []string{"RT-049 no weaker session is used", "DANE-099 no weaker session is used"} {
		t.Run(name, func(t *testing.T) {
			b, a, _ := two(t, mxtest.Config{}, mxtest.Config{})
			b.mx("e.signed.test", 10, "a.test") // another domain, so another decision
			for _, c := range []struct {
				mode  requiretls.Mode
				to    string
				conns int
			}{
				{normal, "u@d.signed.test", 1}, {normal, "u@d.signed.test", 1},
				{required, "u@d.signed.test", 2}, {required, "u@d.signed.test", 2},
				{normal, "u@e.signed.test", 3}, {required, "u@e.signed.test", 4},
				{normal, "u@d.signed.test", 4},
			} {
				want(t, b.send(c.mode, c.to)[0], "250 2.0.0")
				if n := len(a.Conns()); n != c.conns {
					t.Errorf("%s to %s: %d connections, want %d", c.mode, c.to, n, c.conns)
				}
			}
		})
	}
	t.Run("RT-050 a relay is bound too", func(t *testing.T) {
		b := newBed(t)
		h := b.host("smart.test", 11, deaf)
		b.Routes = []Route{{Domain: "*", NextHop: "[smart.test]"}}
		want(t, b.send(required, "u@d.test")[0], "550 5.7.30", "smart.test")
		untold(t, h)
	})
	t.Run("RT-082 a gateway by exemption only", func(t *testing.T) {
		b := newBed(t)
		h := b.host("gate.test", 11, mxtest.Config{NoSTARTTLS: true})
		b.Routes = []Route{{Domain: "d.test", NextHop: "[gate.test]", RequireTLSExempt: true}, {Domain: "e.test", NextHop: "[gate.test]"}}
		r := b.send(required, "u@d.test", "u@e.test")
		want(t, r[0], "250 2.0.0", "gate.test")
		want(t, r[1], "550 5.7.10", "gate.test")
		took(t, h, 1)
	})
	t.Run("RT-051 final delivery nearby", func(t *testing.T) {
		b := newBed(t)
		h := b.host("store.test", 11, mxtest.Config{NoSTARTTLS: true})
		b.LocalDomains, b.LocalRelay = []string{"here.test"}, fmt.Sprintf("tcp:127.0.0.11:%d", b.Port)
		var log bytes.Buffer
		b.Log = slog.New(slog.NewTextHandler(&log, nil))
		want(t, b.send(required, "u@here.test")[0], "250 2.0.0")
		took(t, h, 1)
		if line := `msg="final delivery nearby" queue_id=`; !strings.Contains(log.String(), line) || !strings.Contains(log.String(), "domain=here.test requiretls=exempt\n") {
			t.Errorf("logged %q", log.String())
		}
	})
	t.Run("RT-073 a bounce is not thrown away", func(t *testing.T) {
		b, a, _ := two(t, deaf, deaf)
		want(t, b.deliver(context.Background(), b.message(required, "", "u@d.signed.test"))[0], "250 2.0.0")
		took(t, a, 1)
		if m := commands(a, "MAIL"); strings.Contains(m[0], "REQUIRETLS") {
			t.Errorf("said %q", m)
		}
	})
}

// TestRelaxed: TLS-Required: No (RFC 8689 §4.2.2).
func TestRelaxed(t *testing.T) {
	for _, c := range []struct {
		name   string
		config mxtest.Config
		rekey  bool
		sts    bool
		tls    bool
	}{
		{"RT-060 MTA-STS", mxtest.Config{Certificate: "expired"}, false, true, true},
		{"RT-060 DANE", mxtest.Config{}, true, false, true},
		{"RT-060 no STARTTLS", mxtest.Config{NoSTARTTLS: true}, false, true, false},
		{"RT-061 TLS is still used", mxtest.Config{}, false, true, true},
		{"RT-061 clear text after a failed handshake", mxtest.Config{NeedCert: true}, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			h := b.host("mx.signed.test", 11, c.config)
			b.mx("d.signed.test", 10, "mx.signed.test")
			b.tlsa(h, h.TLSA(3, 1, 1))
			if c.rekey {
				h.Rekey()
			}
			if c.sts {
				b.sts("d.signed.test", "enforce", "mx.signed.test")
			}
			want(t, b.send(relaxed, "u@d.signed.test")[0], "250 2.0.0")
			took(t, h, 1)
			if m := h.Mails(); m[0].TLS != c.tls || strings.Contains(m[0].From, "REQUIRETLS") {
				t.Errorf("TLS %v, %q", m[0].TLS, m[0].From)
			}
			for _, o := range b.reported() {
				if !strings.Contains(o, " relaxed ") {
					t.Errorf("reported %q", o)
				}
			}
		})
	}
	for _, name := range []string{"RT-062 TLSA lookups may fail", "DANE-111 DANE is suspended"} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			h := b.host("mx.signed.test", 11)
			b.mx("d.signed.test", 10, "mx.signed.test")
			b.dns.Fail("_"+portOf(b)+"._tcp.mx.signed.test", "TLSA", "BOGUS")
			want(t, b.send(normal, "u@d.signed.test")[0], "451 4.7.5")
			want(t, b.send(relaxed, "u@d.signed.test")[0], "250 2.0.0")
			took(t, h, 1)
			b.dns.Fail("e.signed.test", "MX", "BOGUS")
			want(t, b.send(relaxed, "u@e.signed.test")[0], "451 4.4.3")
		})
	}
	t.Run("RT-063 local rules stand above", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11, mxtest.Config{NoSTARTTLS: true})
		b.mx("d.test", 10, "mx.test")
		b.mx("e.test", 10, "mx.test")
		p, _, err := mtasts.ParsePolicy(stsPolicy("enforce", "mx.test"))
		if err != nil {
			t.Fatal(err)
		}
		b.pol.SetOverrides([]policy.Override{
			{Domain: "d.test", Action: policy.Require, Level: policy.LevelEncrypt},
			{Domain: "e.test", Action: policy.Pin, Policy: p}})
		for _, r := range b.send(relaxed, "u@d.test", "u@e.test") {
			want(t, r, "451 4.7.4", "mx.test")
		}
		untold(t, h)
	})
	t.Run("RT-064 a server that insists and fails", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11, mxtest.Config{NeedCert: true})
		h.Reply("MAIL", "530 5.7.0 Must issue a STARTTLS command first")
		b.mx("d.test", 10, "mx.test")
		want(t, b.send(relaxed, "u@d.test")[0], "530 5.7.0", "mx.test", "Must issue")
		took(t, h, 0)
	})
	t.Run("RT-060 what is reported says so", func(t *testing.T) {
		b := newBed(t)
		b.host("mx.test", 11)
		b.mx("d.test", 10, "mx.test")
		b.send(relaxed, "u@d.test")
		if diff := cmp.Diff([]string{"mx.test relaxed no-policy-found:"}, b.reported()); diff != "" {
			t.Error(diff)
		}
	})
}

package delivery

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/policy"
	"postseal/policy/mtasts"
	"postseal/policy/smtpclient/mxtest"
)

// TestSTS: what an MTA-STS policy makes of the MX hosts (RFC 8461 §4, §5).
func TestSTS(t *testing.T) {
	for _, c := range []struct {
		name   string
		config mxtest.Config
		listed string
		codes  string
		result string
	}{
		{"STS-110 not in the policy", mxtest.Config{}, "other.test", "451 4.7.5", "validation-failure"},
		{"STS-110 no STARTTLS", mxtest.Config{NoSTARTTLS: true}, "mx.test", "451 4.7.4", "starttls-not-supported"},
		{"STS-110 certificate", mxtest.Config{Certificate: "wrongname"}, "mx.test", "451 4.7.5", "certificate-host-mismatch"},
		{"STS-115 a policy failure is temporary", mxtest.Config{Certificate: "expired"}, "mx.test", "451 4.7.5", "certificate-expired"},
		{"SMTP-130 a policy failure is temporary", mxtest.Config{Certificate: "selfsigned"}, "mx.test", "451 4.7.5", "certificate-not-trusted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			h := b.host("mx.test", 11, c.config)
			b.mx("d.test", 10, "mx.test")
			b.sts("d.test", "enforce", c.listed)
			want(t, b.send(normal, "u@d.test")[0], c.codes, "mx.test")
			if m := commands(h, "MAIL"); len(m) != 0 {
				t.Errorf("said %q", m)
			}
			if diff := cmp.Diff([]string{"mx.test sts:" + c.result}, b.reported()); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("STS-111 testing delivers and counts", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11, mxtest.Config{NoSTARTTLS: true})
		b.mx("d.test", 10, "mx.test")
		b.sts("d.test", "testing", "mx.test")
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0")
		took(t, h, 1)
		if diff := cmp.Diff([]string{"mx.test sts:starttls-not-supported"}, b.reported()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("STS-112 none is as no policy", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11, mxtest.Config{NoSTARTTLS: true})
		b.mx("d.test", 10, "mx.test")
		b.sts("d.test", "none", "other.test")
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0")
		took(t, h, 1)
		if diff := cmp.Diff([]string{"mx.test no-policy-found:starttls-not-supported"}, b.reported()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("STS-114 the next MX takes the mail", func(t *testing.T) {
		b := newBed(t)
		bad, good := b.host("a.test", 11, mxtest.Config{Certificate: "expired"}), b.host("b.test", 12)
		b.mx("d.test", 10, "a.test", 20, "b.test")
		b.sts("d.test", "enforce", "*.test")
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0", "b.test[127.0.0.12]")
		took(t, bad, 0)
		took(t, good, 1)
		if diff := cmp.Diff([]string{"a.test sts:certificate-expired", "b.test sts:"}, b.reported()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("STS-007 domains that share an MX", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11, mxtest.Config{Certificate: "selfsigned"})
		for _, d := range []string{"open.test", "strict.test"} {
			b.mx(d, 10, "mx.test")
		}
		b.sts("strict.test", "enforce", "mx.test")
		for range 2 { // also when a session waits for more
			r := b.send(normal, "u@open.test", "u@strict.test")
			want(t, r[0], "250 2.0.0")
			want(t, r[1], "451 4.7.5", "mx.test")
		}
		took(t, h, 2)
	})
	t.Run("STS-102 roots of MX hosts are their own", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11)
		b.mx("d.test", 10, "mx.test")
		b.sts("d.test", "enforce", "mx.test")
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0")
		b.Client.Roots = b.web.Roots // who vouches for policy hosts does not for MX hosts
		b.state.pool.close()
		want(t, b.send(normal, "u@d.test")[0], "451 4.7.5", "mx.test")
		took(t, h, 1)
	})
	for _, name := range []string{"STS-116 a corrected policy before the mail is given up", "STS-119 each attempt asks for the policy"} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			h := b.host("new.test", 11)
			b.mx("d.test", 10, "new.test")
			b.sts("d.test", "enforce", "old.test")
			want(t, b.send(normal, "u@d.test")[0], "451 4.7.5", "new.test")
			b.zone = strings.Replace(b.zone, "id=1;", "id=2;", 1)
			b.publish("")
			b.web.Set("d.test", stsPolicy("enforce", "new.test"))
			b.advance(301e9) // the TTL of the record
			want(t, b.send(normal, "u@d.test")[0], "250 2.0.0")
			took(t, h, 1)
		})
	}
	t.Run("STS-002 a smart host's own domain decides", func(t *testing.T) {
		b := newBed(t)
		h := b.host("smart.test", 11, mxtest.Config{Certificate: "selfsigned"})
		b.sts("d.test", "enforce", "smart.test")
		b.Routes = []Route{{Domain: "d.test", NextHop: "[smart.test]"}}
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0")
		took(t, h, 1)
	})
	for _, name := range []string{"STS-117 a relay has a policy of its own", "SMTP-133 the next hop's policy"} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			h := b.host("mx.relay.test", 11, mxtest.Config{Certificate: "selfsigned"})
			b.mx("relay.test", 10, "mx.relay.test")
			b.Hostname = "us.test"
			b.sts("relay.test", "enforce", "mx.relay.test")
			b.Routes = []Route{{Domain: ".d.test", NextHop: "relay.test"}}
			want(t, b.send(normal, "u@sub.d.test")[0], "451 4.7.5", "mx.relay.test")
			took(t, h, 0)
		})
	}
}

// TestDANE: host by host (RFC 7672 §2.2).
func TestDANE(t *testing.T) {
	t.Run("DANE-009 no host left", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.signed.test", 11)
		b.tlsa(h, h.TLSA(3, 1, 1))
		h.Rekey()
		b.mx("d.signed.test", 10, "mx.signed.test")
		want(t, b.send(normal, "u@d.signed.test")[0], "451 4.7.5", "mx.signed.test")
		took(t, h, 0)
		if diff := cmp.Diff([]string{"mx.signed.test tlsa:certificate-not-trusted"}, b.reported()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("DANE-027 mandatory DANE delays what lacks it", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11)
		b.mx("d.test", 10, "mx.test")
		b.pol.SetOverrides([]policy.Override{{Domain: "d.test", Action: policy.Require, Level: policy.LevelDANEOnly}})
		want(t, b.send(normal, "u@d.test")[0], "451 4.7.5", "mx.test")
		untouched(t, h)
	})
	t.Run("DANE-053 a failed TLSA lookup", func(t *testing.T) {
		b := newBed(t)
		lame, good := b.host("a.signed.test", 11), b.host("b.signed.test", 12)
		b.dns.Fail("_"+portOf(b)+"._tcp.a.signed.test", "TLSA", "SERVFAIL")
		b.mx("d.signed.test", 10, "a.signed.test", 20, "b.signed.test")
		b.mx("e.signed.test", 10, "a.signed.test")
		want(t, b.send(normal, "u@d.signed.test")[0], "250 2.0.0", "b.signed.test")
		took(t, good, 1)
		want(t, b.send(normal, "u@e.signed.test")[0], "451 4.7.5", "a.signed.test")
		untouched(t, lame)
		if diff := cmp.Diff([]string{"a.signed.test tlsa:tlsa-invalid", "b.signed.test no-policy-found:", "a.signed.test tlsa:tlsa-invalid"}, b.reported()); diff != "" {
			t.Error(diff)
		}
	})
	for _, name := range []string{"STS-130 MTA-STS does not rescue", "DANE-110 MTA-STS does not rescue"} {
		t.Run(name, func(t *testing.T) {
			for _, mode := range []string{"enforce", "testing", "none"} {
				b := newBed(t)
				h := b.host("mx.signed.test", 11)
				b.tlsa(h, h.TLSA(3, 1, 1))
				h.Rekey()
				b.mx("d.signed.test", 10, "mx.signed.test")
				b.sts("d.signed.test", mode, "mx.signed.test")
				want(t, b.send(normal, "u@d.signed.test")[0], "451 4.7.5")
				took(t, h, 0)
			}
		})
	}
	t.Run("STS-131 nor replaces a failed TLSA lookup", func(t *testing.T) {
		b := newBed(t)
		lame := b.host("a.signed.test", 11)
		b.dns.Fail("_"+portOf(b)+"._tcp.a.signed.test", "TLSA", "SERVFAIL")
		b.host("b.signed.test", 12, mxtest.Config{Certificate: "expired"})
		b.mx("d.signed.test", 10, "a.signed.test", 20, "b.signed.test")
		b.sts("d.signed.test", "enforce", "*.signed.test")
		want(t, b.send(normal, "u@d.signed.test")[0], "451 4.7.5", "a.signed.test", "b.signed.test")
		untouched(t, lame)
	})
	t.Run("STS-132 DANE decides alone", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.signed.test", 11, mxtest.Config{Certificate: "selfsigned"})
		b.tlsa(h, h.TLSA(3, 1, 1))
		b.mx("d.signed.test", 10, "mx.signed.test")
		b.sts("d.signed.test", "enforce", "mx.signed.test")
		want(t, b.send(normal, "u@d.signed.test")[0], "250 2.0.0")
		took(t, h, 1)
	})
	t.Run("DANE-125 usable TLSA behind an insecure MX", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.signed.test", 11)
		b.tlsa(h, h.TLSA(3, 1, 1))
		b.mx("d.test", 10, "mx.signed.test")
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0")
		h.Rekey()
		b.state.pool.close()
		want(t, b.send(normal, "u@d.test")[0], "451 4.7.5", "mx.signed.test")
		took(t, h, 1)
	})
}

// TestMixed: one host with TLSA records, one without, and MTA-STS enforce. Each is
// held to its own proof, and the other still takes the mail.
func TestMixed(t *testing.T) {
	setting := func(t *testing.T) (b *bed, dane, sts *mxtest.Host) {
		b = newBed(t)
		// Neither would pass by the other's proof.
		dane = b.host("dane.signed.test", 11, mxtest.Config{Certificate: "selfsigned"})
		sts = b.host("sts.test", 12)
		b.tlsa(dane, dane.TLSA(3, 1, 1))
		b.mx("d.signed.test", 10, "dane.signed.test", 20, "sts.test")
		b.sts("d.signed.test", "enforce", "dane.signed.test", "sts.test")
		return b, dane, sts
	}
	t.Run("STS-133 both by their own proof", func(t *testing.T) {
		b, dane, sts := setting(t)
		want(t, b.send(normal, "u@d.signed.test")[0], "250 2.0.0", "dane.signed.test")
		took(t, dane, 1)
		dane.Reply("GREETING", "451 not now")
		b.state.pool.close()
		want(t, b.send(normal, "u@d.signed.test")[0], "250 2.0.0", "sts.test")
		took(t, sts, 1)
	})
	t.Run("STS-133 DANE fails, MTA-STS takes the mail", func(t *testing.T) {
		b, dane, sts := setting(t)
		dane.Set(mxtest.Config{}) // a certificate that MTA-STS would accept
		dane.Rekey()
		want(t, b.send(normal, "u@d.signed.test")[0], "250 2.0.0", "sts.test")
		took(t, dane, 0)
		took(t, sts, 1)
		if diff := cmp.Diff([]string{"dane.signed.test tlsa:certificate-not-trusted sts:", "sts.test sts:"}, b.reported()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("STS-133 MTA-STS fails, DANE takes the mail", func(t *testing.T) {
		b, dane, sts := setting(t)
		b.zone = strings.Replace(b.zone, "MX 10 dane", "MX 30 dane", 1)
		b.publish("")
		sts.Set(mxtest.Config{Certificate: "wrongname"})
		want(t, b.send(normal, "u@d.signed.test")[0], "250 2.0.0", "dane.signed.test")
		took(t, dane, 1)
		took(t, sts, 0)
	})
	t.Run("STS-133 both fail", func(t *testing.T) {
		b, dane, sts := setting(t)
		dane.Rekey()
		sts.Set(mxtest.Config{Certificate: "selfsigned"})
		want(t, b.send(normal, "u@d.signed.test")[0], "451 4.7.5", "dane.signed.test", "sts.test")
		took(t, dane, 0)
		took(t, sts, 0)
	})
}

// TestOverrides: the operator's rules.
func TestOverrides(t *testing.T) {
	t.Run("SMTP-039 TLS can be demanded per destination", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11, mxtest.Config{NoSTARTTLS: true})
		b.mx("d.test", 10, "mx.test")
		b.mx("e.test", 10, "mx.test")
		b.pol.SetOverrides([]policy.Override{{Domain: "d.test", Action: policy.Require, Level: policy.LevelEncrypt}})
		r := b.send(normal, "u@d.test", "u@e.test")
		want(t, r[0], "451 4.7.4", "mx.test")
		want(t, r[1], "250 2.0.0")
		took(t, h, 1)
	})
	t.Run("exempt", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11, mxtest.Config{NoSTARTTLS: true})
		b.mx("d.test", 10, "mx.test")
		b.sts("d.test", "enforce", "mx.test")
		b.pol.SetOverrides([]policy.Override{{Domain: "d.test", Action: policy.Exempt}})
		want(t, b.send(normal, "u@d.test")[0], "250 2.0.0")
		took(t, h, 1)
	})
	t.Run("pinned policy", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11)
		b.mx("d.test", 10, "mx.test")
		p, _, err := mtasts.ParsePolicy(stsPolicy("enforce", "other.test"))
		if err != nil {
			t.Fatal(err)
		}
		b.pol.SetOverrides([]policy.Override{{Domain: "d.test", Action: policy.Pin, Policy: p}})
		want(t, b.send(normal, "u@d.test")[0], "451 4.7.5", "mx.test")
		untouched(t, h)
	})
}

// No reply is given before the sessions that it rests on are safe; a disk that fails
// does not turn a delivery into another.
func TestReportedBeforeTheReply(t *testing.T) {
	b := newBed(t)
	b.host("mx.test", 11)
	b.mx("d.test", 10, "mx.test")
	b.Resolver = &once{Resolver: b.pol}
	var waited [][]string
	b.Reported = func(context.Context) error {
		waited = append(waited, b.reported())
		return errors.New("disk full")
	}
	want(t, b.send(normal, "u@d.test")[0], "250 2.0.0")
	if diff := cmp.Diff([][]string{{"mx.test no-policy-found:"}}, waited); diff != "" {
		t.Errorf("reported before the wait (-want +got):\n%s", diff)
	}
	want(t, b.send(normal, "u@d.test", "u@gone.test")[0], "250 2.0.0")
	if sessions := len(b.reported()); len(waited) != sessions { // the second message goes over the first one's
		t.Errorf("waited %d times for %d sessions", len(waited), sessions)
	}
}

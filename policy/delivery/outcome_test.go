package delivery

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/policy"
	"postseal/policy/smtpclient/mxtest"
)

// TestOutcome: what a session showed, by each policy that there is.
func TestOutcome(t *testing.T) {
	const none = "no-policy-found:"
	for _, c := range []struct {
		name   string
		config mxtest.Config
		reply  string // to the command STARTTLS
		tlsa   string // "good", "rekeyed", or a record
		sts    string // mode
		listed string // in the policy; "" for the host
		want   string
	}{
		{name: "no policy", want: none},
		{name: "no policy, no STARTTLS", config: mxtest.Config{NoSTARTTLS: true}, want: none + "starttls-not-supported"},
		{name: "no policy, STARTTLS refused", reply: "454 4.7.0 not now", want: none + "starttls-not-supported"},
		{name: "no policy, handshake fails", config: mxtest.Config{NeedCert: true}, want: none + "validation-failure"},
		{name: "no policy, certificate of no matter", config: mxtest.Config{Certificate: "expired"}, want: none},
		{name: "DANE", tlsa: "good", want: "tlsa:"},
		{name: "DANE mismatch", tlsa: "rekeyed", want: "tlsa:certificate-not-trusted"},
		{name: "DANE, no STARTTLS", tlsa: "good", config: mxtest.Config{NoSTARTTLS: true}, want: "tlsa:starttls-not-supported"},
		{name: "DANE unusable", tlsa: "0 1 1 " + strings.Repeat("ab", 32), want: "tlsa:tlsa-invalid"},
		{name: "enforce", sts: "enforce", want: "sts:"},
		{name: "enforce, untrusted", sts: "enforce", config: mxtest.Config{Certificate: "otherca"}, want: "sts:certificate-not-trusted"},
		{name: "enforce, outside", sts: "enforce", listed: "other.test", want: "sts:validation-failure"},
		{name: "testing", sts: "testing", want: "sts:"},
		{name: "testing, mismatch", sts: "testing", config: mxtest.Config{Certificate: "wrongname"}, want: "sts:certificate-host-mismatch"},
		{name: "testing, expired", sts: "testing", config: mxtest.Config{Certificate: "expired"}, want: "sts:certificate-expired"},
		{name: "testing, outside", sts: "testing", listed: "other.test", want: "sts:validation-failure"},
		{name: "testing, outside, no STARTTLS", sts: "testing", listed: "other.test", config: mxtest.Config{NoSTARTTLS: true}, want: "sts:validation-failure"},
		{name: "testing, handshake fails", sts: "testing", config: mxtest.Config{NeedCert: true}, want: "sts:validation-failure"},
		{name: "none", sts: "none", want: none},
		{name: "both pass", tlsa: "good", sts: "enforce", want: "tlsa: sts:"},
		{name: "DANE decides, MTA-STS is reported", tlsa: "good", sts: "enforce", config: mxtest.Config{Certificate: "selfsigned"}, want: "tlsa: sts:certificate-not-trusted"},
		{name: "DANE fails, MTA-STS is reported", tlsa: "rekeyed", sts: "testing", want: "tlsa:certificate-not-trusted sts:"},
		{name: "both fail", tlsa: "rekeyed", sts: "enforce", config: mxtest.Config{Certificate: "expired"}, want: "tlsa:certificate-not-trusted sts:certificate-expired"},
		{name: "neither has TLS", tlsa: "good", sts: "testing", config: mxtest.Config{NoSTARTTLS: true}, want: "tlsa:starttls-not-supported sts:starttls-not-supported"},
		{name: "unusable TLSA and MTA-STS", tlsa: "0 1 1 " + strings.Repeat("ab", 32), sts: "enforce", want: "tlsa:tlsa-invalid sts:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			h := b.host("mx.signed.test", 11, c.config)
			b.mx("d.signed.test", 10, "mx.signed.test")
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
			if c.reply != "" {
				h.Reply("STARTTLS", c.reply)
			}
			if c.sts != "" {
				listed := c.listed
				if listed == "" {
					listed = h.Name
				}
				b.sts("d.signed.test", c.sts, listed)
				b.discovered("d.signed.test")
			}
			b.send(normal, "u@d.signed.test", "v@d.signed.test")
			if diff := cmp.Diff([]string{"mx.signed.test " + c.want}, b.reported()); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("what else is told", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11)
		b.mx("d.test", 10, "mx.test")
		b.Routes = []Route{{Domain: "r.test", NextHop: "d.test"}}
		before := b.now()
		want(t, b.send(normal, "u@r.test")[0], "250 2.0.0")
		if len(b.outcomes) != 1 {
			t.Fatalf("%d outcomes", len(b.outcomes))
		}
		o := b.outcomes[0]
		if o.Domain != "d.test" || o.MX != "mx.test" || o.Relaxed || o.Time.Before(before) ||
			o.Remote.String() != h.IP || !o.Local.IsLoopback() || o.Decision == nil || o.Host == nil || o.Host.Name != "mx.test" {
			t.Errorf("got %+v", o)
		}
		want(t, b.send(normal, "u@r.test")[0], "250 2.0.0")
		if len(b.outcomes) != 1 {
			t.Error("a session is told of twice")
		}
		failing := b.host("bad.test", 12, mxtest.Config{Certificate: "expired"})
		b.mx("e.test", 10, failing.Name)
		b.sts("e.test", "enforce", failing.Name)
		want(t, b.send(normal, "u@e.test")[0], "451 4.7.5")
		if o := b.outcomes[1]; o.Remote.String() != failing.IP || !o.Local.IsLoopback() {
			t.Errorf("of a failure: %+v", o)
		}
	})
	t.Run("a host without the keyword has done its TLS", func(t *testing.T) {
		b := newBed(t)
		b.host("mx.test", 11, deaf)
		b.mx("d.test", 10, "mx.test")
		b.sts("d.test", "enforce", "mx.test")
		want(t, b.send(required, "u@d.test")[0], "550 5.7.30")
		if diff := cmp.Diff([]string{"mx.test sts:"}, b.reported()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a host that was not reached tells nothing", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11)
		b.publish("down.test. IN A 127.0.0.99")
		b.mx("d.test", 10, "down.test", 20, "mx.test")
		h.Reply("GREETING", "554 5.3.0 no")
		want(t, b.send(normal, "u@d.test")[0], "451 4.3.0")
		if o := b.reported(); len(o) != 0 {
			t.Errorf("reported %q", o)
		}
	})
}

// discovered waits until the policy of a domain is known; DANE alone would not wait.
func (b *bed) discovered(domain string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		d := b.pol.Decide(ctx, policy.Destination{Domain: domain, Port: b.Port})
		if d.STS != nil {
			return
		}
		if ctx.Err() != nil {
			b.t.Fatal("no policy found")
		}
	}
}

package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postseal/policy/smtpclient/mxtest"
)

// TestRecipients: one copy for all that one host takes, and each the reply that
// is his.
func TestRecipients(t *testing.T) {
	one := func(t *testing.T, c ...mxtest.Config) (*bed, *mxtest.Host) {
		b := newBed(t)
		h := b.host("mx.test", 11, c...)
		b.mx("d.test", 10, "mx.test")
		return b, h
	}
	two := func(t *testing.T) (b *bed, a, z *mxtest.Host) {
		b = newBed(t)
		a, z = b.host("a.test", 11), b.host("z.test", 12)
		b.mx("d.test", 10, "a.test", 20, "z.test")
		return b, a, z
	}
	t.Run("SMTP-074 one copy for several", func(t *testing.T) {
		b, h := one(t)
		for _, r := range b.send(normal, "u@d.test", "v@D.Test.", "w@d.test") {
			want(t, r, "250 2.0.0", "mx.test[127.0.0.11]")
		}
		took(t, h, 1)
		if n := len(h.Mails()[0].To); n != 3 {
			t.Errorf("%d recipients", n)
		}
	})
	t.Run("SMTP-075 more recipients than the host takes", func(t *testing.T) {
		b, h := one(t, mxtest.Config{MaxRcpts: 50})
		var to []string
		for n := range 120 {
			to = append(to, fmt.Sprintf("u%d@d.test", n))
		}
		for _, r := range b.send(normal, to...) {
			want(t, r, "250 2.0.0")
		}
		var sizes []int
		for _, m := range h.Mails() {
			sizes = append(sizes, len(m.To))
		}
		if !slices.Equal(sizes, []int{50, 50, 20}) || len(h.Conns()) != 1 {
			t.Errorf("transactions of %v recipients over %d connections", sizes, len(h.Conns()))
		}
	})
	t.Run("SMTP-075 a host that takes none", func(t *testing.T) {
		b, h := one(t)
		h.Reply("RCPT", "452 4.5.3 too many recipients")
		want(t, b.send(normal, "u@d.test")[0], "452 4.5.3", "mx.test")
		if n := len(commands(h, "RCPT")); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
	for _, verb := range []string{"MAIL", "RCPT", "DATA", "."} {
		t.Run("SMTP-076 a permanent reply to "+verb+" is final", func(t *testing.T) {
			b, a, z := two(t)
			a.Reply(verb, "550 5.1.1 no such user here")
			want(t, b.send(normal, "u@d.test")[0], "550 5.1.1", "a.test[127.0.0.11]", "no such user here")
			untouched(t, z)
		})
		t.Run("SMTP-076 a transient reply to "+verb+" is for this host", func(t *testing.T) {
			b, a, z := two(t)
			a.Reply(verb, "451 4.3.0 try again")
			want(t, b.send(normal, "u@d.test")[0], "250 2.0.0", "z.test")
			took(t, z, 1)
		})
	}
	t.Run("SMTP-076 each recipient by itself", func(t *testing.T) {
		b, a, z := two(t)
		a.Reply("RCPT TO:<no@d.test>", "550 5.1.1 no")
		a.Reply("RCPT TO:<later@d.test>", "450 4.2.1 later")
		r := b.send(normal, "yes@d.test", "no@d.test", "later@d.test")
		want(t, r[0], "250 2.0.0", "a.test")
		want(t, r[1], "550 5.1.1", "a.test")
		want(t, r[2], "250 2.0.0", "z.test")
		if to := z.Mails()[0].To; !slices.Equal(to, []string{"<later@d.test>"}) {
			t.Errorf("the second host got %q", to)
		}
	})
	t.Run("a lost connection leads to the next host", func(t *testing.T) {
		for _, at := range []string{"GREETING", "EHLO", "MAIL", "RCPT", "DATA"} {
			b, a, z := two(t)
			a.Reply(at, mxtest.Drop)
			want(t, b.send(normal, "u@d.test")[0], "250 2.0.0", "z.test")
			took(t, a, 0)
			took(t, z, 1)
		}
	})
	t.Run("after the last dot it may have been taken", func(t *testing.T) {
		b, a, z := two(t)
		a.Reply(".", mxtest.Drop)
		want(t, b.send(normal, "u@d.test")[0], "451 4.4.2", "a.test")
		untouched(t, z)
	})
	t.Run("SMTP-087 a bounce that fails makes no noise", func(t *testing.T) {
		b, a, z := two(t)
		a.Reply("RCPT", "550 5.1.1 no such user")
		want(t, b.deliver(context.Background(), b.message(normal, "", "u@d.test"))[0], "550 5.1.1")
		took(t, a, 0)
		untouched(t, z)
		if m := commands(a, "MAIL"); len(m) != 1 || !strings.HasPrefix(m[0], "MAIL FROM:<> ") {
			t.Errorf("said %q", m)
		}
	})
	t.Run("RT-024 the message goes out as it is", func(t *testing.T) {
		b, h := one(t)
		m := b.message(normal, "s@sender.test", "u@d.test")
		c := plainText("Received: x\r\nTLS-Required:  No\r\nX: \ty\r\n\r\n.\r\n..x\r\n")
		m.digest, m.content = digest(c), c
		want(t, b.deliver(context.Background(), m)[0], "250 2.0.0")
		if got := string(h.Mails()[0].Data); got != string(c) {
			t.Errorf("got %q", got)
		}
	})
}

// TestReplies: what the mail server is told.
func TestReplies(t *testing.T) {
	one := func(t *testing.T) (*bed, *mxtest.Host) {
		b := newBed(t)
		h := b.host("mx.test", 11)
		b.mx("d.test", 10, "mx.test")
		return b, h
	}
	for _, c := range []struct{ name, at, remote, codes, words string }{
		{"SMTP-128 as it was said", "RCPT", "550 5.1.1 no such user", "550 5.1.1", "mx.test[127.0.0.11]"},
		{"SMTP-128 the enhanced code is of another class", "RCPT", "550 4.1.1 x", "550 5.0.0", " said: x"},
		{"SMTP-128 no enhanced code", "RCPT", "550 x", "550 5.0.0", " said: x"},
		{"SMTP-128 several lines", ".", "250-2.0.0 one\n250 2.0.0 two", "250 2.0.0", "one two"},
		{"SMTP-128 other bytes", "RCPT", "550 5.1.1 a\x1bb\xffc", "550 5.1.1", "a?b?c"},
		{"SMTP-150 a code of another class", ".", "451 5.7.1 greylisted", "451 4.0.0", "greylisted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, h := one(t)
			h.Reply(c.at, c.remote)
			want(t, b.send(normal, "u@d.test")[0], c.codes, c.words)
		})
	}
	t.Run("SMTP-128 a long reply", func(t *testing.T) {
		b, h := one(t)
		h.Reply("RCPT", "550 5.1.1 "+strings.Repeat("x", 900))
		r := b.send(normal, "u@d.test")[0]
		want(t, r, "550 5.1.1", "mx.test[127.0.0.11]")
		if n := len(fmt.Sprintf("%d %s %s\r\n", r.Code, r.Enhanced, r.Text)); n > 512 {
			t.Errorf("%d octets", n)
		}
	})
	t.Run("SMTP-129 a policy failure beats a host that is down", func(t *testing.T) {
		for _, order := range [][]string{{"bad.test", "down.test"}, {"down.test", "bad.test"}} {
			b := newBed(t)
			b.host("bad.test", 11, mxtest.Config{Certificate: "expired"})
			b.publish("down.test. IN A 127.0.0.99")
			b.mx("d.test", 10, order[0], 20, order[1])
			b.sts("d.test", "enforce", "*.test")
			want(t, b.send(normal, "u@d.test")[0], "451 4.7.5", "bad.test", "down.test")
		}
	})
	t.Run("SMTP-129 what was said to the recipient beats both", func(t *testing.T) {
		b := newBed(t)
		h := b.host("grey.test", 11)
		h.Reply("RCPT", "450 4.2.0 greylisted")
		b.host("bad.test", 12, mxtest.Config{Certificate: "expired"})
		b.mx("d.test", 10, "grey.test", 20, "bad.test")
		b.sts("d.test", "enforce", "*.test")
		want(t, b.send(normal, "u@d.test")[0], "450 4.2.0", "greylisted")
	})
	t.Run("no host answers", func(t *testing.T) {
		b, h := one(t)
		b.publish("down.test. IN A 127.0.0.99")
		b.mx("e.test", 10, "down.test")
		want(t, b.send(normal, "u@e.test")[0], "451 4.4.1", "down.test[127.0.0.99]")
		h.Reply("GREETING", "554 5.3.0 go away")
		want(t, b.send(normal, "u@d.test")[0], "451 4.3.0", "go away")
		h.Reply("GREETING", "521 5.3.2 never")
		want(t, b.send(normal, "u@d.test")[0], "556 5.3.2", "never")
	})
	t.Run("too large for the host", func(t *testing.T) {
		b := newBed(t)
		b.host("a.test", 11, mxtest.Config{TLSKeywords: []string{"SIZE 10"}})
		z := b.host("z.test", 12)
		b.mx("d.test", 10, "a.test", 20, "z.test")
		want(t, b.send(normal, "u@d.test")[0], "552 5.3.4", "a.test")
		untouched(t, z)
	})
	t.Run("UTF-8 that no host takes", func(t *testing.T) {
		b := newBed(t)
		b.host("a.test", 11, mxtest.Config{TLSKeywords: []string{"8BITMIME"}})
		z := b.host("z.test", 12, mxtest.Config{TLSKeywords: []string{"8BITMIME"}})
		b.mx("d.test", 10, "a.test", 20, "z.test")
		want(t, b.send(normal, "ü@d.test")[0], "550 5.6.7", "a.test", "z.test")
		z.Set(mxtest.Config{})
		b.state.pool.close() // it would go over the session of before
		want(t, b.send(normal, "ü@d.test")[0], "250 2.0.0", "z.test")
	})
	t.Run("SMTP-150 every reply of ours", func(t *testing.T) {
		for _, code := range []int{250, 451, 452, 530, 550, 556} {
			for _, enhanced := range []string{"", "2.0.0", "4.7.5", "5.7.10", "5.999.999"} {
				r := answer(code, enhanced, "x\r\ny\xff")
				if r.Enhanced[0] != byte('0'+code/100) || r.Text != "x??y?" {
					t.Errorf("%d %q became %v", code, enhanced, r)
				}
			}
		}
	})
	// What RFC 3463 and the IANA list of its codes call by these names.
	known := map[string]string{
		"4.7.4": "security features not supported", "4.7.5": "cryptographic failure",
		"4.7.10": "encryption needed", "5.7.10": "encryption needed", "5.7.30": "REQUIRETLS support required",
		"5.7.0": "other security status", "5.7.1": "delivery not authorized", "4.7.0": "other security status",
	}
	for _, name := range []string{"SMTP-151 no code of another meaning", "SMTP-153 no code of another meaning"} {
		t.Run(name, func(t *testing.T) {
			var files []string
			for _, folder := range []string{".", "../smtpclient"} {
				list, err := filepath.Glob(filepath.Join(folder, "*.go"))
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, list...)
			}
			code := regexp.MustCompile(`"([245]\.7\.[0-9]+)`)
			found := 0
			for _, f := range files {
				if strings.HasSuffix(f, "_test.go") {
					continue
				}
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range code.FindAllStringSubmatch(string(b), -1) {
					if found++; known[m[1]] == "" {
						t.Errorf("%s says %s", f, m[1])
					}
				}
			}
			if found < 5 {
				t.Errorf("only %d codes found", found)
			}
		})
	}
}

// TestNextHops: routes, literals, the local relay.
func TestNextHops(t *testing.T) {
	t.Run("SMTP-012 an address literal", func(t *testing.T) {
		b := newBed(t)
		h := b.host("mx.test", 11, mxtest.Config{NoSTARTTLS: true})
		want(t, b.send(normal, "u@[127.0.0.11]")[0], "250 2.0.0", "[127.0.0.11]")
		took(t, h, 1)
		if q := b.dns.Queries(); len(q) != 0 {
			t.Errorf("asked %q", q)
		}
		if o := b.reported(); len(o) != 0 {
			t.Errorf("reported %q", o)
		}
	})
	t.Run("SMTP-012 what literals look like", func(t *testing.T) {
		for s, addr := range map[string]string{
			"[192.0.2.1]": "192.0.2.1", "[IPv6:2001:db8::1]": "2001:db8::1", "[ipv6:2001:db8::1]": "2001:db8::1",
			"[IPv6:192.0.2.1]": "", "[fe80::1%eth0]": "", "[]": "", "192.0.2.1": "", "[x]": "",
		} {
			got, ok := parseLiteral(s)
			if ok != (addr != "") || ok && got.String() != addr {
				t.Errorf("%s: %v, %v", s, got, ok)
			}
		}
	})
	t.Run("SMTP-013 brackets and ports", func(t *testing.T) {
		for _, form := range []string{"[smart.test]", "[smart.test]:%d", "smart.test", "smart.test:%d", "[127.0.0.11]", "[127.0.0.11]:%d"} {
			b := newBed(t)
			h := b.host("smart.test", 11)
			b.AllowPrivate = false // of no matter to an administrator's own route
			mx := b.host("mx.test", 12)
			b.mx("smart.test", 10, "mx.test")
			hop := form
			if strings.Contains(form, "%d") {
				hop = fmt.Sprintf(form, b.net.Port)
				b.Port = 1
			}
			b.Routes = []Route{{Domain: "d.test", NextHop: hop}}
			want(t, b.send(normal, "u@d.test")[0], "250 2.0.0")
			if form[0] == '[' {
				took(t, h, 1)
				if n := b.dns.Count("MX", "smart.test"); n != 0 {
					t.Errorf("%s: %d questions for MX", hop, n)
				}
				continue
			}
			took(t, mx, 1)
		}
	})
	t.Run("SMTP-013 the most specific route", func(t *testing.T) {
		s := &Server{Routes: []Route{{Domain: "*", NextHop: "all"}, {Domain: ".d.test", NextHop: "below"}, {Domain: "a.d.test", NextHop: "itself"}, {Domain: ".c.d.test", NextHop: "deeper"}}}
		for domain, hop := range map[string]string{"x.test": "all", "d.test": "all", "b.d.test": "below", "a.d.test": "itself", "e.c.d.test": "deeper", "c.d.test": "below"} {
			if r := s.smartHost(domain); r == nil || r.NextHop != hop {
				t.Errorf("%s: %v, want %s", domain, r, hop)
			}
		}
	})
	t.Run("SMTP-013 a route that leads nowhere", func(t *testing.T) {
		b := newBed(t)
		for _, hop := range []string{"", "[", "[x", "a:b:c", "[127.0.0.1]:0", ":25"} {
			b.Routes = []Route{{Domain: "*", NextHop: hop}}
			want(t, b.send(normal, "u@d.test")[0], "451 4.3.5")
		}
	})
	t.Run("SMTP-014 MX hosts at private addresses", func(t *testing.T) {
		b := newBed(t)
		b.AllowPrivate = false
		h := b.host("mx.test", 11)
		b.publish("mx.test. IN A 10.0.0.1\nmx.test. IN A 224.0.0.1\nmx.test. IN A 0.0.0.0\nmx.test. IN AAAA ::1\nmx.test. IN AAAA fd00::1")
		b.mx("d.test", 10, "mx.test")
		want(t, b.send(normal, "u@d.test")[0], "451 4.4.4", "not a public address")
		untouched(t, h)
	})
	t.Run("SMTP-014 public ones among them", func(t *testing.T) {
		w := &walk{delivery: &delivery{s: &Server{}}, group: &group{}}
		c := &candidate{name: "mx.test"}
		for _, a := range []string{"127.0.0.1", "9.9.9.9", "::ffff:10.0.0.1", "2620:fe::fe", "fe80::1", "8.8.8.8"} {
			c.addrs = append(c.addrs, netip.AddrPortFrom(netip.MustParseAddr(a), 25))
		}
		if got := fmt.Sprint(w.usable(c)); got != "[9.9.9.9:25 [2620:fe::fe]:25 8.8.8.8:25]" || len(w.setbacks) != 3 {
			t.Errorf("got %s, %d setbacks", got, len(w.setbacks))
		}
	})
	t.Run("SMTP-014 nor literals", func(t *testing.T) {
		b := newBed(t)
		b.AllowPrivate = false
		h := b.host("mx.test", 11)
		want(t, b.send(normal, "u@[127.0.0.11]")[0], "451 4.4.4", "not a public address")
		untouched(t, h)
	})
	t.Run("local domains", func(t *testing.T) {
		b := newBed(t)
		h := b.host("store.test", 11)
		b.LocalDomains = []string{"here.test", ".here.test"}
		want(t, b.send(normal, "u@here.test")[0], "451 4.3.5", "delivery.local_relay")
		b.LocalRelay = fmt.Sprintf("tcp:127.0.0.11:%d", b.Port)
		b.Routes = []Route{{Domain: "*", NextHop: "[elsewhere.test]"}}
		for _, to := range []string{"u@HERE.test", "u@sub.here.test", "postmaster"} {
			want(t, b.send(relaxed, to)[0], "250 2.0.0")
		}
		took(t, h, 3)
		if o := b.reported(); len(o) != 0 {
			t.Errorf("reported %q", o)
		}
	})
	t.Run("no such local relay", func(t *testing.T) {
		b := newBed(t)
		b.LocalDomains, b.LocalRelay = []string{"here.test"}, "nonsense"
		want(t, b.send(normal, "u@here.test")[0], "451 4.3.5", "nonsense")
	})
}

package socketmap_test

import (
	"context"
	"testing"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/socketmap"
)

// routes is a server with a fallback that takes the destinations with gaps.
func routes(t *testing.T) (*socketmap.Server, *oracle) {
	o := newOracle(t)
	mixed := stsDecision(t, "mixed.example", p1)
	mixed.DANE = dane.ClassPartial
	o.cached["mixed.example"] = mixed
	o.slow["slow.example"] = func(ctx context.Context) *policy.Decision {
		d := decision("slow.example", policy.LevelDANEOnly)
		d.DANE = dane.ClassFull
		return d
	}
	o.slow["unknown.example"] = func(ctx context.Context) *policy.Decision {
		return decision("unknown.example", policy.LevelTemp)
	}
	return &socketmap.Server{Decider: o, Delivery: &socketmap.Delivery{NextHop: "unix:postseal/lmtp.sock",
		Takes: &policy.Fallback{Mixed: true, DANE: true, Domains: []string{"chosen.example"}, Local: []string{"own.example"}}}}, o
}

func TestRoutes(t *testing.T) {
	s, o := routes(t)
	addr := startTCP(t, s)
	const lmtp, mailer = "OK postseal:unix:postseal/lmtp.sock", "OK postseal:[127.0.0.1]"
	for _, c := range []struct{ name, request, reply string }{
		{"a whole address", "transport User+tag@Mixed.Example", lmtp},
		{"an address with two at-signs", `transport "a@b"@mixed.example`, lmtp},
		{"a domain", "transport mixed.example", lmtp},
		{"STS-117 what the host can do stays with it", "transport u@example.com", "NOTFOUND "},
		{"nothing published", "transport u@none.example", "NOTFOUND "},
		{"chosen by the operator", "transport u@chosen.example", lmtp},
		{"the host's own", "transport u@own.example", "NOTFOUND "},
		{"the catch-all", "transport *", "NOTFOUND "},
		{"the null sender", "transport ", "NOTFOUND "},
		{"a local name", "transport root", "NOTFOUND "},
		{"an address literal", "transport u@[192.0.2.1]", "NOTFOUND "},
		{"a parent", "transport .mixed.example", "NOTFOUND "},
		{"looked up first", "transport u@slow.example", lmtp},
		{"what cannot be told stays with the host, whose policy map defers it", "transport u@unknown.example", "NOTFOUND "},
		{"Sendmail", "mailertable mixed.example", mailer},
		{"Sendmail, looked up first", "mailertable slow.example", mailer},
		{"Sendmail, parent", "mailertable .example", "NOTFOUND "},
		{"Sendmail, the last parent", "mailertable .", "NOTFOUND "},
		{"Sendmail, the host's own", "mailertable own.example", "NOTFOUND "},
		{"Sendmail, tagged", "mailertable none.example.requiretls.invalid", "OK postseal-requiretls:[127.0.0.1]"},
		{"Sendmail, tagged, any case", "mailertable None.Example.RequireTLS.Invalid", "OK postseal-requiretls:[127.0.0.1]"},
		{"Sendmail, tagged relaxed", "mailertable none.example.relaxed.invalid", "OK postseal-relaxed:[127.0.0.1]"},
		{"Sendmail, the tag itself", "mailertable .requiretls.invalid", "OK postseal-requiretls:[127.0.0.1]"},
		{"Sendmail, tagged but the host's own", "mailertable own.example.requiretls.invalid", "OK postseal-requiretls:[127.0.0.1]"},
		{"Sendmail, not the tag", "mailertable requiretls.invalid", "NOTFOUND "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dial(t, addr).ask(c.request, c.reply)
		})
	}
	t.Run("the host's own domains are not looked up", func(t *testing.T) {
		for _, q := range o.questions() {
			if q == "own.example" {
				t.Error("asked about own.example")
			}
		}
	})
}

func TestRoutesWithoutFallback(t *testing.T) {
	o := newOracle(t)
	for _, s := range []*socketmap.Server{
		{Decider: o},
		{Decider: o, Delivery: &socketmap.Delivery{Takes: &policy.Fallback{}}},
	} {
		for _, request := range []string{"transport u@dane.example", "mailertable dane.example"} {
			if got := ask(s, request); got != "NOTFOUND " {
				t.Errorf("%s: %q", request, got)
			}
		}
	}
	const want = "TEMP the recipient is tagged requiretls, but no delivery fallback is configured (delivery.listen)"
	if got := ask(&socketmap.Server{Decider: o}, "mailertable a.example.requiretls.invalid"); got != want {
		t.Errorf("tagged: %q, want %q", got, want)
	}
}

func TestRoutesAreExplained(t *testing.T) {
	s, o := routes(t)
	for domain, want := range map[string]string{"mixed.example": "OK postseal:unix:postseal/lmtp.sock", "example.com": "NOTFOUND "} {
		list := s.Answers(o.cached[domain])
		if last := list[len(list)-1]; len(list) != 4 || last.Map != "transport" || last.Text != want {
			t.Errorf("%s: %v", domain, list)
		}
	}
}

func TestRequireTLSMap(t *testing.T) {
	o := newOracle(t)
	o.overrides["relaxed.example"] = &policy.Override{Domain: "relaxed.example", RequireTLS: "opportunistic"}
	s := &socketmap.Server{Decider: o}
	for _, c := range []struct{ name, request, reply string }{
		{"RT-101 enforce is the answer for everybody", "requiretls example.org", "OK enforce"},
		{"RT-101 the operator alone may relax it", "requiretls relaxed.example", "OK opportunistic"},
		{"RT-101 addresses are for the next item of the setting", "requiretls 192.0.2.1", "NOTFOUND "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ask(s, c.request); got != c.reply {
				t.Errorf("got %q, want %q", got, c.reply)
			}
		})
	}
}

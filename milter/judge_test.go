package milter_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/milter"
	"postseal/socketmap/pipetest"
)

const (
	tagRequired = "h X-Postseal-Route: requiretls"
	tagRelaxed  = "h X-Postseal-Route: relaxed"
	headersOnly = "e <sender@example.org> RET=HDRS"
)

// far is a client that is neither near nor has authenticated.
const far = "192.0.2.25"

// once shows one message from a client to a new server.
func once(t *testing.T, s *milter.Server, client string, x mail) []string {
	t.Helper()
	m := connect(t, s)
	m.connect("client.example.com", client)
	changes, verdict := m.transact(x)
	if verdict != "c" {
		t.Errorf("%+v: verdict %s", x, verdict)
	}
	return changes
}

func check(t *testing.T, s *milter.Server, client string, x mail, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, once(t, s, client, x)); diff != "" {
		t.Errorf("%+v: %s", x, diff)
	}
}

func TestVerdict(t *testing.T) {
	near := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	s := &milter.Server{TrustedNetworks: near}

	t.Run("RT-003 the parameter REQUIRETLS tags, whoever the client is", func(t *testing.T) {
		check(t, s, far, mail{from: "<sender@example.org> REQUIRETLS"}, tagRequired, headersOnly)
		check(t, s, far, mail{from: "<sender@example.org> SIZE=100 requiretls BODY=8BITMIME"}, tagRequired, headersOnly)
		check(t, s, far, mail{from: "<sender@example.org> SIZE=100"})
	})
	t.Run("SEED-020 REQUIRETLS with options tags nothing", func(t *testing.T) {
		for _, option := range []string{"CHAIN", "DANE,DNSSEC", "NO", ""} {
			check(t, s, far, mail{from: "<sender@example.org> REQUIRETLS=" + option})
		}
	})
	t.Run("RT-011 the header TLS-Required: No tags", func(t *testing.T) {
		check(t, s, far, mail{header: []string{"TLS-Required: No"}}, tagRelaxed)
		check(t, s, far, mail{header: []string{"TLS-Required: Yes"}})
		check(t, s, far, mail{header: []string{"TLS-Required: No", "tls-required: No"}})
	})
	t.Run("RT-012 REQUIRETLS beats the header TLS-Required: No, which stays", func(t *testing.T) {
		check(t, s, far, mail{from: "<sender@example.org> REQUIRETLS", header: []string{"TLS-Required: No"}}, tagRequired, headersOnly)
		check(t, s, "127.0.0.1", mail{header: []string{"TLS-Required: No", "Require-TLS-ESMTP: yes"}}, tagRequired, headersOnly)
	})
	t.Run("RT-015 a client asks by header where the mail server has no parameter, if it may", func(t *testing.T) {
		ask := []string{"Require-TLS-ESMTP: yes"}
		check(t, s, far, mail{header: ask})
		check(t, s, far, mail{header: ask, user: "alice"}, tagRequired, headersOnly)
		check(t, s, "127.0.0.9", mail{header: ask}, tagRequired, headersOnly)
		check(t, s, "2001:db8::25", mail{header: ask}, tagRequired, headersOnly)
		check(t, s, "IPv6:2001:db8::25", mail{header: ask}, tagRequired, headersOnly)
		check(t, s, "IPv6:2001:db9::25", mail{header: ask})
		check(t, s, "127.0.0.9", mail{header: []string{"Require-TLS-ESMTP: no"}})
		// No change asks for the parameter itself: mail servers ignore it.
		for _, c := range once(t, s, far, mail{from: "<sender@example.org> REQUIRETLS ENVID=x"}) {
			if strings.HasPrefix(c, "e ") && strings.Contains(c, "REQUIRETLS") {
				t.Errorf("change %q", c)
			}
		}
	})
	t.Run("RT-018 only trusted clients may say No if so configured", func(t *testing.T) {
		log := &logger{}
		s := &milter.Server{TrustedNetworks: near, RelaxedFrom: milter.Trusted, Log: log.slog()}
		no := []string{"TLS-Required: No"}
		check(t, s, far, mail{header: no})
		if !strings.Contains(log.String(), "may not say No") {
			t.Errorf("logged: %s", log)
		}
		check(t, s, far, mail{header: no, user: "alice"}, tagRelaxed)
		check(t, s, "127.0.0.1", mail{header: no}, tagRelaxed)
	})
	t.Run("a bounce is never tagged", func(t *testing.T) {
		all := &milter.Server{Rules: []milter.Rule{{Sender: "", Tag: "requiretls"}}}
		check(t, all, far, mail{from: "<> REQUIRETLS"})
		check(t, all, "127.0.0.1", mail{from: "<>", header: []string{"Require-TLS-ESMTP: yes", "TLS-Required: No", "X-Postseal-Route: requiretls"}},
			"m 1 X-Postseal-Route: ")
		check(t, all, far, mail{}, tagRequired, headersOnly)
	})
	t.Run("RT-080 a forwarder behind the milter keeps the tag", func(t *testing.T) {
		m := connect(t, &milter.Server{}) // no networks at all: this machine counts anyway
		m.connect("localhost", "127.0.0.1")
		changes, _ := m.transact(mail{header: []string{"Received: by forwarder", "Require-TLS-ESMTP: yes"}})
		if diff := cmp.Diff([]string{tagRequired, headersOnly}, changes); diff != "" {
			t.Error(diff)
		}
		changes, _ = m.transact(mail{header: []string{"Received: by forwarder", "TLS-Required: No"}})
		if diff := cmp.Diff([]string{tagRelaxed}, changes); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("RT-023 what an attached message says does not count", func(t *testing.T) {
		m := dial(t, &milter.Server{})
		m.negotiate(6, allActions, 0) // with the body
		m.connect("client.example.com", far)
		changes, verdict := m.transact(mail{body: "--x\r\nContent-Type: message/rfc822\r\n\r\nTLS-Required: No\r\n\r\n"})
		if changes != nil || verdict != "c" {
			t.Errorf("%q, %s", changes, verdict)
		}
	})
	t.Run("RT-066 an older mail server routes by the tag relaxed", func(t *testing.T) {
		check(t, s, far, mail{header: []string{"tls-required:\n no "}}, tagRelaxed)
		check(t, &milter.Server{Route: milter.RouteRecipient}, far, mail{header: []string{"TLS-Required: No"}},
			"+ <rcpt@example.net.relaxed.invalid>", "- <rcpt@example.net>")
	})
	t.Run("SEED-021 the headers of the drafts tag nothing", func(t *testing.T) {
		log := &logger{}
		s := &milter.Server{Log: log.slog()}
		check(t, s, "127.0.0.1", mail{header: []string{"Require-TLS: NO", "RequireTLS: NO", "Require-TLS: yes"}})
		if got := strings.Count(log.String(), "draft"); got != 3 {
			t.Errorf("%d hints: %s", got, log)
		}
	})
	t.Run("a malformed header is ignored with a warning", func(t *testing.T) {
		log := &logger{}
		check(t, &milter.Server{Log: log.slog()}, far, mail{header: []string{"TLS-Required: maybe"}})
		if !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("logged: %s", log)
		}
	})
}

func TestForgedTags(t *testing.T) {
	s := &milter.Server{}
	t.Run("RT-016 every foreign tag is deleted and means nothing", func(t *testing.T) {
		check(t, s, far, mail{header: []string{"X-Postseal-Route: requiretls"}}, "m 1 X-Postseal-Route: ")
		check(t, s, "127.0.0.1", mail{user: "alice", header: []string{"X-Postseal-Route: relaxed"}}, "m 1 X-Postseal-Route: ")
		check(t, s, far, mail{header: []string{"x-postseal-ROUTE: \n requiretls", "To: x", "X-Postseal-Route : relaxed", "X-POSTSEAL-ROUTE: "}},
			"m 3 X-Postseal-Route: ", "m 2 X-Postseal-Route: ", "m 1 X-Postseal-Route: ")
		check(t, s, far, mail{from: "<sender@example.org> REQUIRETLS", header: []string{"X-Postseal-Route: relaxed"}},
			"m 1 X-Postseal-Route: ", tagRequired, headersOnly)
	})
	t.Run("RT-016 a thousand tags are deleted as well", func(t *testing.T) {
		x := mail{from: "<sender@example.org> REQUIRETLS RET=HDRS"}
		for range 1000 {
			x.header = append(x.header, "X-Postseal-Route: relaxed")
		}
		if changes := once(t, s, far, x); len(changes) != 1001 || changes[1000] != tagRequired {
			t.Errorf("%d changes", len(changes))
		}
	})
	t.Run("RT-016 a foreign route suffix is taken off", func(t *testing.T) {
		s := &milter.Server{Route: milter.RouteRecipient}
		check(t, s, far, mail{to: []string{"<a@example.net.requiretls.invalid>", "<b@example.net.RELAXED.invalid> NOTIFY=NEVER", "<c@example.net>"}},
			"+ <a@example.net>", "- <a@example.net.requiretls.invalid>",
			"2 <b@example.net> NOTIFY=NEVER", "- <b@example.net.RELAXED.invalid>")
		check(t, s, far, mail{from: "<>", to: []string{"<a@example.net.requiretls.invalid>"}},
			"+ <a@example.net>", "- <a@example.net.requiretls.invalid>")
		// As Sendmail takes them too: it would route by the suffix all the same.
		for _, forged := range []string{"a@example.net.relaxed.invalid.", "a@example.net.relaxed.invalid.requiretls.invalid",
			"a@example.net.relaxed.invalid(x)", "a@example.net.relaxed.(a(b\\)c)x)invalid"} {
			check(t, s, far, mail{to: []string{"<" + forged + ">"}}, "+ <a@example.net>", "- <"+forged+">")
		}
		m := connect(t, s)
		m.connect("client.example.com", far)
		m.command('M', "<sender@example.org>")
		m.command('R', "<a@example.net .relaxed\t. invalid >")
		changes, _ := m.end()
		if diff := cmp.Diff([]string{"+ <a@example.net>", "- <a@example.net .relaxed\t. invalid >"}, changes); diff != "" {
			t.Error(diff)
		}
		check(t, s, far, mail{to: []string{`<"a(b"@example.net>`, "<a@example.net.>"}}) // no tags
	})
	t.Run("MIL-010 fields are counted by name, from 1, the last goes first", func(t *testing.T) {
		check(t, s, far, mail{header: []string{"X-Postseal-Router: 1", "X-Postseal-Route: 2", "TLS-Required: No", "X-Postseal-Route: 3"}},
			"m 2 X-Postseal-Route: ", "m 1 X-Postseal-Route: ", tagRelaxed)
	})
	t.Run("MIL-038 a second pass leaves one tag", func(t *testing.T) {
		x := mail{from: "<sender@example.org> REQUIRETLS RET=HDRS", header: []string{"X-Postseal-Route: requiretls"}}
		check(t, s, far, x, "m 1 X-Postseal-Route: ", tagRequired)
		recipients := &milter.Server{Route: milter.RouteRecipient}
		x = mail{from: "<sender@example.org> REQUIRETLS RET=hdrs", to: []string{"<a@example.net.requiretls.invalid>"}}
		check(t, recipients, far, x)
		for _, same := range []string{"<a@example.net.requiretls.INVALID>", "<a@example.net.requiretls.invalid.>", "<a@example.net(x).requiretls.invalid>"} {
			x.to = []string{same}
			check(t, recipients, far, x)
		}
		check(t, recipients, far, mail{to: []string{"<a@example.net(x)>", "<a@example.net.>"}})
		x.to = []string{"<a@example.net.>"}
		check(t, recipients, far, x, "+ <a@example.net.requiretls.invalid>", "- <a@example.net.>")
	})
}

func TestHeadersOnly(t *testing.T) {
	s := &milter.Server{}
	t.Run("RT-077 RET=HDRS is set for the host's bounces", func(t *testing.T) {
		check(t, s, far, mail{from: "<sender@example.org> REQUIRETLS"}, tagRequired, headersOnly)
		check(t, s, far, mail{from: "<sender@example.org> REQUIRETLS ret=hdrs ENVID=a+2Bb"}, tagRequired)
	})
	t.Run("RT-071 RET=FULL is disregarded where TLS is required, there alone", func(t *testing.T) {
		check(t, s, far, mail{from: "<sender@example.org> RET=FULL REQUIRETLS"}, tagRequired, headersOnly)
		check(t, s, far, mail{from: "<sender@example.org> RET=FULL"})
		check(t, s, far, mail{from: "<sender@example.org> RET=FULL", header: []string{"TLS-Required: No"}}, tagRelaxed)
	})
	t.Run("MIL-036 only RET and ENVID are set with Postfix", func(t *testing.T) {
		check(t, s, far, mail{from: "<sender@example.org> SIZE=100 BODY=8BITMIME REQUIRETLS ENVID=a+2Bb RET=FULL SMTPUTF8"},
			tagRequired, headersOnly+" ENVID=a+2Bb")
	})
	t.Run("Sendmail is told all parameters again, since it forgets them", func(t *testing.T) {
		check(t, &milter.Server{Route: milter.RouteRecipient, Rules: []milter.Rule{{Tag: "requiretls"}}}, far,
			mail{from: "<sender@example.org> SIZE=100 BODY=8BITMIME ENVID=a RET=FULL"},
			"+ <rcpt@example.net.requiretls.invalid>", "- <rcpt@example.net>", headersOnly+" SIZE=100 BODY=8BITMIME ENVID=a")
	})
}

func TestRules(t *testing.T) {
	rules := func(list ...milter.Rule) *milter.Server { return &milter.Server{Rules: list} }
	required := []string{tagRequired, headersOnly}
	t.Run("RT-017 the first rule that matches demands TLS, relaxes, or exempts", func(t *testing.T) {
		s := rules(
			milter.Rule{Sender: "public@example.org", Tag: "none"},
			milter.Rule{Sender: "@example.org", Recipient: ".bank.example", Tag: "requiretls"},
			milter.Rule{Recipient: "old@bücher.example", Tag: "relaxed"},
			milter.Rule{Recipient: "one@exact.example", Tag: "requiretls"},
			milter.Rule{User: "Finance", Tag: "requiretls"},
			milter.Rule{User: "@corp.example", Recipient: "*", Tag: "requiretls"},
		)
		check(t, s, far, mail{to: []string{"<x@eu.bank.example>"}}, required...)
		check(t, s, far, mail{to: []string{"<x@EU.Bank.example.>"}}, required...)
		check(t, s, far, mail{to: []string{"<@relay.example:x@eu.bank.example>"}}, required...)
		check(t, s, far, mail{to: []string{"<@relay.example,@b.example:One@exact.example>"}}, required...)
		check(t, s, far, mail{to: []string{"<(x)x@eu.bank(y).example(z)>"}}, required...)
		check(t, s, far, mail{to: []string{"<x@bank.example>"}}) // itself is not below
		check(t, s, far, mail{to: []string{"<x@notbank.example>"}})
		check(t, s, far, mail{from: "<sender@example.com>", to: []string{"<x@eu.bank.example>"}})
		check(t, s, far, mail{from: "<sender@example.org.(x)>", to: []string{"<x@eu.bank.example>"}}, tagRequired, "e <sender@example.org.(x)> RET=HDRS")
		check(t, s, far, mail{from: "<Public@example.org>", user: "finance", to: []string{"<x@eu.bank.example>"}})
		check(t, s, far, mail{user: "finance"}, required...)
		check(t, s, far, mail{user: "bob@CORP.example"}, required...)
		check(t, s, far, mail{user: "bob@corp.example.com"})
		check(t, s, far, mail{to: []string{"<Old@xn--bcher-kva.example>"}}, tagRelaxed)
		check(t, s, far, mail{to: []string{"<old@BÜCHER.example>"}}, tagRelaxed)
	})
	t.Run("RT-017 a rule exempts from rules, not from what the sender asks", func(t *testing.T) {
		s := rules(milter.Rule{Sender: "*", Tag: "none"})
		check(t, s, far, mail{from: "<sender@example.org> REQUIRETLS"}, required...)
		check(t, s, far, mail{header: []string{"TLS-Required: No"}}, tagRelaxed)
	})
	t.Run("RT-017 one recipient's rule demands TLS for all, all must agree to relax", func(t *testing.T) {
		s := rules(milter.Rule{Recipient: "@strict.example", Tag: "requiretls"}, milter.Rule{Recipient: "@lax.example", Tag: "relaxed"})
		check(t, s, far, mail{to: []string{"<a@lax.example>", "<b@strict.example>", "<c@example.net>"}}, required...)
		check(t, s, far, mail{to: []string{"<a@lax.example>", "<c@example.net>"}})
		check(t, s, far, mail{to: []string{"<a@lax.example>", "<b@lax.example>"}}, tagRelaxed)
		// A rule that demands stands above the sender's No, one that relaxes beside it.
		check(t, s, far, mail{to: []string{"<b@strict.example>"}, header: []string{"TLS-Required: No"}}, required...)
		check(t, s, far, mail{to: []string{"<c@example.net>", "<a@lax.example>"}, header: []string{"TLS-Required: No"}}, tagRelaxed)
	})
	t.Run("recipients are tagged one by one where the route is theirs", func(t *testing.T) {
		s := rules(milter.Rule{Recipient: "@strict.example", Tag: "requiretls"}, milter.Rule{Recipient: "@lax.example", Tag: "relaxed"})
		s.Route = milter.RouteRecipient
		to := []string{"<a@lax.example>", "<b@strict.example> NOTIFY=FAILURE ORCPT=rfc822;b@strict.example", "<c@example.net>", "<d@strict.example>", "<e@strict.example>"}
		mailers := []string{"esmtp", "esmtp", "esmtp", "local", "relay"}
		check(t, s, far, mail{to: to, mailers: mailers},
			"+ <a@lax.example.relaxed.invalid>", "- <a@lax.example>",
			"2 <b@strict.example.requiretls.invalid> NOTIFY=FAILURE ORCPT=rfc822;b@strict.example", "- <b@strict.example>",
			"+ <e@strict.example.requiretls.invalid>", "- <e@strict.example>", headersOnly)
		check(t, s, far, mail{to: to[:3], mailers: mailers, from: "<sender@example.org> REQUIRETLS"},
			"+ <a@lax.example.requiretls.invalid>", "- <a@lax.example>",
			"2 <b@strict.example.requiretls.invalid> NOTIFY=FAILURE ORCPT=rfc822;b@strict.example", "- <b@strict.example>",
			"+ <c@example.net.requiretls.invalid>", "- <c@example.net>", headersOnly)
		check(t, s, far, mail{to: to[1:3], header: []string{"TLS-Required: No"}},
			"2 <b@strict.example.requiretls.invalid> NOTIFY=FAILURE ORCPT=rfc822;b@strict.example", "- <b@strict.example>",
			"+ <c@example.net.relaxed.invalid>", "- <c@example.net>", headersOnly)
	})
}

func TestBadRules(t *testing.T) {
	bad := func(r milter.Rule) {
		t.Helper()
		s := &milter.Server{Rules: []milter.Rule{{Tag: "none"}, r}}
		if err := s.Check(); err == nil || !strings.HasPrefix(err.Error(), "rule 2: ") {
			t.Errorf("%+v: %v", r, err)
		}
		if err := s.Serve(t.Context(), pipetest.Listen()); err == nil {
			t.Errorf("%+v: served", r)
		}
	}
	bad(milter.Rule{})
	bad(milter.Rule{Tag: "normal"})
	bad(milter.Rule{Sender: "example.org", Tag: "relaxed"})
	bad(milter.Rule{Recipient: "user@", Tag: "relaxed"})
	bad(milter.Rule{Recipient: "@", Tag: "relaxed"})
	bad(milter.Rule{Recipient: ".", Tag: "relaxed"})
	bad(milter.Rule{User: "user@", Tag: "relaxed"})
}

func TestLog(t *testing.T) {
	log := &logger{}
	m := connect(t, &milter.Server{Log: log.slog()})
	m.connect("client.example.com", far)
	m.macros('H', "{tls_version}", "TLSv1.3")
	m.command('H', "client.example.com")
	m.transact(mail{from: "<sender@example.org> REQUIRETLS", header: []string{"Subject: secret"}})
	const want = `level=INFO msg=tagged queue_id=4bT9xY tag=requiretls why="parameter REQUIRETLS" recipients=1 client_tls=TLSv1.3`
	if !strings.Contains(log.String(), want) {
		t.Errorf("logged: %s", log)
	}
	for _, private := range []string{"sender@", "rcpt@", "secret"} {
		if strings.Contains(log.String(), private) {
			t.Errorf("%s is logged: %s", private, log)
		}
	}
}

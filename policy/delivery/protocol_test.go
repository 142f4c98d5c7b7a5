package delivery_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/delivery"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

const forwardKeyword = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"

func TestHello(t *testing.T) {
	common := []string{
		"PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING",
		"SIZE 104857600", forwardKeyword,
	}
	check := func(t *testing.T, have, want []string) {
		t.Helper()
		if diff := cmp.Diff(want, have); diff != "" {
			t.Error(diff)
		}
	}
	t.Run("SMTP-107 only what can be carried is offered", func(t *testing.T) {
		check(t, openUnix(t, &delivery.Server{}).dial().lhlo(), common)
	})
	t.Run("SMTP-127 what LMTP must offer", func(t *testing.T) {
		have := openUnix(t, &delivery.Server{}).dial().lhlo()
		for _, k := range []string{"PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"} {
			if !slices.Contains(have, k) {
				t.Errorf("%s is not offered", k)
			}
		}
	})
	t.Run("RT-002 REQUIRETLS only inside TLS", func(t *testing.T) {
		c := openTCP(t, &delivery.Server{}, requiretls.Normal).dial()
		check(t, c.lhlo(), append(slices.Clone(common), "STARTTLS"))
		c.startTLS()
		check(t, c.lhlo(), append(slices.Clone(common), "REQUIRETLS"))
		check(t, openTCP(t, &delivery.Server{NoTLS: true}, requiretls.Normal).dial().lhlo(), common)
	})
	t.Run("RT-001 the keyword has no parameters", func(t *testing.T) {
		c := openTCP(t, &delivery.Server{}, requiretls.Normal).greeted()
		c.startTLS()
		c.send("LHLO me\r\n")
		for c.line() != "250 REQUIRETLS" {
		}
	})
	t.Run("RT-006 LMTP has it too", func(t *testing.T) {
		for _, mode := range []requiretls.Mode{requiretls.Normal, requiretls.Required, requiretls.Relaxed} {
			c := openTCP(t, &delivery.Server{}, mode).greeted()
			c.startTLS()
			if !slices.Contains(c.lhlo(), "REQUIRETLS") {
				t.Errorf("%s: LHLO does not offer it", mode)
			}
		}
	})
	t.Run("SMTP-152 greeting, LHLO and 354 have no enhanced code", func(t *testing.T) {
		c := openUnix(t, &delivery.Server{}).connect()
		c.want("220 relay.example.com LMTP Service Ready")
		c.send("LHLO me\r\n")
		c.want("250-relay.example.com", "250-PIPELINING")
		for !strings.HasPrefix(c.line(), "250 ") {
		}
		c.begin("a@example.net")
		c.ask("DATA", goAhead)
		c.send(".\r\n")
		c.want(delivered) // which has one (RFC 2034 §3)
		for _, command := range []string{"RSET", "NOOP", "VRFY x", "FOO", "DATA", "QUIT"} {
			c.send(command + "\r\n")
			line := c.line()
			if code, rest, _ := strings.Cut(line, " "); !strings.HasPrefix(rest, code[:1]+".") {
				t.Errorf("%s: %q has no enhanced code of its class", command, line)
			}
		}
	})
	t.Run("SMTP-125 LHLO only", func(t *testing.T) {
		c := openUnix(t, &delivery.Server{}).dial()
		c.refused("EHLO mail.example.com", "500 5.5.1 ")
		c.refused("HELO mail.example.com", "500 5.5.1 ")
		c.refused("MAIL FROM:<a@example.com>", "503 5.5.1 ")
		c.refused("LHLO", "501 5.5.4 ")
		c.lhlo()
		c.begin()
	})
}

func TestParameters(t *testing.T) {
	plain := openUnix(t, &delivery.Server{MaxMessage: 1000})
	secure := openTCP(t, &delivery.Server{}, requiretls.Normal)
	cases := []struct {
		name, mail, rcpt string // parameters
		code             string // of the first that is refused; "" none
		tls              bool
	}{
		{"RT-005 in clear text it is refused", "REQUIRETLS", "", "530 5.7.10 ", false},
		{"RT-003 without a value", "REQUIRETLS", "", "", true},
		{"RT-003 case does not matter", "requireTLS", "", "", true},
		{"RT-003 a value", "REQUIRETLS=YES", "", "501 5.5.4 ", true},
		{"RT-003 an empty value", "REQUIRETLS=", "", "501 5.5.4 ", true},
		{"RT-003 twice", "REQUIRETLS requiretls", "", "501 5.5.4 ", true},
		{"RT-003 on RCPT", "", "REQUIRETLS", "555 5.5.4 ", true},
		{"SEED-020 options are refused", "REQUIRETLS=CHAIN,NO", "", "501 5.5.4 ", true},
		{"SEED-020 options are refused", "REQUIRETLS=DANE", "", "501 5.5.4 ", true},
		{"SMTP-107 unknown", "FOO=1", "", "555 5.5.4 ", false},
		{"SMTP-107 unknown without value", "FOO", "", "555 5.5.4 ", false},
		{"SMTP-107 unknown on RCPT", "", "FOO=1", "555 5.5.4 ", false},
		{"SMTP-107 BINARYMIME is not offered", "BODY=BINARYMIME", "", "501 5.5.4 ", false},
		{"SMTP-108 DELIVERBY", "BY=60;R", "", "555 5.5.4 ", false},
		{"SMTP-108 FUTURERELEASE", "HOLDFOR=60", "", "555 5.5.4 ", false},
		{"SMTP-108 FUTURERELEASE", "HOLDUNTIL=2026-01-01T00:00:00Z", "", "555 5.5.4 ", false},
		{"SMTP-108 MT-PRIORITY", "MT-PRIORITY=3", "", "555 5.5.4 ", false},
		{"SMTP-108 RRVS", "", "RRVS=2026-01-01T00:00:00Z", "555 5.5.4 ", false},
		{"SMTP-108 DELIVERBY on RCPT", "", "BY=60;R", "555 5.5.4 ", false},
		{"SMTP-110 AUTH= is dropped", "AUTH=a@example.com", "", "", false},
		{"SMTP-110 AUTH=<>", "AUTH=<>", "", "", false},
		{"AUTH without value", "AUTH", "", "501 5.5.4 ", false},
		{"size in the limit", "SIZE=1000", "", "", false},
		{"size above the limit", "SIZE=1001", "", "552 5.3.4 ", false},
		{"no size", "SIZE=1k", "", "501 5.5.4 ", false},
		{"no size", "SIZE", "", "501 5.5.4 ", false},
		{"huge size", "SIZE=99999999999999999999999", "", "501 5.5.4 ", false},
		{"body", "BODY=8bitmime", "", "", false},
		{"SMTPUTF8", "SMTPUTF8", "", "", false},
		{"SMTPUTF8 with value", "SMTPUTF8=1", "", "501 5.5.4 ", false},
		{"RET", "RET=hdrs", "", "", false},
		{"RET", "RET=NONE", "", "501 5.5.4 ", false},
		{"ENVID", "ENVID=a+2Bb", "", "", false},
		{"ENVID not in xtext", "ENVID=a+b", "", "501 5.5.4 ", false},
		{"ENVID empty", "ENVID=", "", "501 5.5.4 ", false},
		{"NOTIFY", "", "NOTIFY=SUCCESS,delay,FAILURE", "", false},
		{"NOTIFY", "", "NOTIFY=NEVER,DELAY", "501 5.5.4 ", false},
		{"NOTIFY", "", "NOTIFY=", "501 5.5.4 ", false},
		{"ORCPT", "", "ORCPT=rfc822;a+2Bb@example.net", "", false},
		{"ORCPT of another kind", "", "ORCPT=x400;/c=de/", "501 5.5.4 ", false},
		{"ORCPT of another kind", "", "ORCPT=unknown;12345", "", false},
		{"ORCPT without kind", "", "ORCPT=a@example.net", "501 5.5.4 ", false},
		{"not a key", "S!ZE=1", "", "501 5.5.4 ", false},
		{"no key", "=1", "", "501 5.5.4 ", false},
		{"twice", "SIZE=1 SIZE=2", "", "501 5.5.4 ", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := plain
			conn := func() *client { return d.greeted() }
			if c.tls {
				d, conn = secure, secure.secured
			}
			line := conn()
			mail, rcpt := "MAIL FROM:<a@example.com> "+c.mail, "RCPT TO:<b@example.net> "+c.rcpt
			if c.code != "" && c.rcpt == "" {
				line.refused(mail, c.code)
				line.refused("RCPT TO:<b@example.net>", "503 5.5.1 ")
				return
			}
			line.ask(mail, senderOK)
			if c.code != "" {
				line.refused(rcpt, c.code)
				line.refused("DATA", "503 5.5.1 ")
				return
			}
			line.ask(rcpt, recipientOK)
		})
	}
}

func TestEnvelope(t *testing.T) {
	// send returns what became of one transaction on a new connection.
	send := func(t *testing.T, d *door, mail string, rcpt ...string) *delivery.Message {
		t.Helper()
		d.mu.Lock()
		d.have = nil
		d.mu.Unlock()
		c := d.greeted
		if _, tcp := d.addr.(*net.TCPAddr); tcp {
			c = d.secured
		}
		conn := c()
		conn.ask("MAIL FROM:"+mail, senderOK)
		for _, r := range rcpt {
			conn.ask("RCPT TO:"+r, recipientOK)
		}
		conn.data("Subject: x\r\n\r\n")
		for range rcpt {
			conn.want(delivered)
		}
		return d.message()
	}
	unix := openUnix(t, &delivery.Server{})
	tcp := openTCP(t, &delivery.Server{}, requiretls.Normal)

	t.Run("everything as written", func(t *testing.T) {
		got := send(t, unix, "<Sender+tag@Example.COM> BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314159 SIZE=12",
			`<"quoted \"one\" @ home"@example.net> NOTIFY=success,DELAY ORCPT=rfc822;Bob+2B@example.net`,
			"<ünïcode@exämple.net> ORCPT=utf-8;ünïcode@exämple.net", "<@a.example,@b.example:c@[192.0.2.1]>", "<joined\u200dup@example.net> ORCPT=utf-8;a\u3000b", "<d@[IPv6:2001:db8::1]>").Envelope
		want := smtpclient.Envelope{
			From: "Sender+tag@Example.COM", Body: "8BITMIME", UTF8: true, Ret: "HDRS", EnvID: "QQ+2B314159",
			To: []smtpclient.Recipient{
				{Addr: `"quoted \"one\" @ home"@example.net`, Notify: "success,DELAY", ORcpt: "rfc822;Bob+2B@example.net"},
				{Addr: "ünïcode@exämple.net", ORcpt: "utf-8;ünïcode@exämple.net"},
				{Addr: "c@[192.0.2.1]"},
				{Addr: "joined\u200dup@example.net", ORcpt: "utf-8;a\u3000b"},
				{Addr: "d@[IPv6:2001:db8::1]"},
			},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("SMTP-110 AUTH= goes nowhere", func(t *testing.T) {
		got := send(t, unix, "<> AUTH=a@example.com", "<b@example.net>").Envelope
		want := smtpclient.Envelope{To: []smtpclient.Recipient{{Addr: "b@example.net"}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	modes := func(t *testing.T, m *delivery.Message, mode requiretls.Mode, of ...requiretls.Mode) {
		t.Helper()
		if m.Mode != mode || !slices.Equal(m.Modes, of) {
			t.Errorf("mode %s %s, want %s %s", m.Mode, m.Modes, mode, of)
		}
	}
	t.Run("RT-003 the parameter on MAIL", func(t *testing.T) {
		modes(t, send(t, tcp, "<a@example.com> requiretls", "<b@example.net>"), requiretls.Required, requiretls.Required)
	})
	t.Run("RT-010 the tag is recorded with the message", func(t *testing.T) {
		modes(t, send(t, tcp, "<a@example.com> REQUIRETLS", "<b@example.net>", "<c@example.org>"), requiretls.Required, requiretls.Required, requiretls.Required)
		modes(t, send(t, tcp, "<a@example.com>", "<b@example.net>"), requiretls.Normal, requiretls.Normal)
		modes(t, send(t, openTCP(t, &delivery.Server{}, requiretls.Required), "<a@example.com>", "<b@example.net>"), requiretls.Required, requiretls.Required)
		modes(t, send(t, openTCP(t, &delivery.Server{}, requiretls.Relaxed), "<a@example.com>", "<b@example.net>"), requiretls.Relaxed, requiretls.Relaxed)
		modes(t, send(t, openTCP(t, &delivery.Server{}, requiretls.Relaxed), "<a@example.com> REQUIRETLS", "<b@example.net>"), requiretls.Required, requiretls.Required)
	})
	t.Run("RT-010 the tag ends with the message", func(t *testing.T) {
		c := tcp.secured()
		c.ask("MAIL FROM:<a@example.com> REQUIRETLS", senderOK)
		c.ask("RSET", "250 2.0.0 Session reset")
		tcp.mu.Lock()
		tcp.have = nil
		tcp.mu.Unlock()
		c.begin("b@example.net")
		c.data("\r\n")
		c.want(delivered)
		modes(t, tcp.message(), requiretls.Normal, requiretls.Normal)
	})
	t.Run("suffixes are tags", func(t *testing.T) {
		m := send(t, unix, "<a@example.com>", "<b@example.net.requiretls.invalid>", "<c@example.net.RELAXED.invalid>", "<d@example.net>")
		modes(t, m, requiretls.Normal, requiretls.Required, requiretls.Relaxed, requiretls.Normal)
		var to []string
		for _, r := range m.Envelope.To {
			to = append(to, r.Addr)
		}
		if diff := cmp.Diff([]string{"b@example.net", "c@example.net", "d@example.net"}, to); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("REQUIRETLS beats the relaxed suffix", func(t *testing.T) {
		m := send(t, tcp, "<a@example.com> REQUIRETLS", "<c@example.net.relaxed.invalid>")
		modes(t, m, requiretls.Required, requiretls.Required)
	})
	t.Run("RT-004 the MAIL line may be longer", func(t *testing.T) {
		mail := "<" + strings.Repeat("a", 523-len("MAIL FROM:<@example.com> REQUIRETLS\r\n")) + "@example.com>"
		modes(t, send(t, tcp, mail+" REQUIRETLS", "<b@example.net>"), requiretls.Required, requiretls.Required)
	})
	t.Run("SMTP-103 and longer with SMTPUTF8", func(t *testing.T) {
		mail := "<" + strings.Repeat("ü", (522-len("MAIL FROM:<@example.com> SMTPUTF8\r\n"))/2) + "@example.com>"
		if m := send(t, unix, mail+" SMTPUTF8", "<b@example.net>"); !m.Envelope.UTF8 || "<"+m.Envelope.From+">" != mail {
			t.Errorf("%+v", m.Envelope)
		}
		mail = "<" + strings.Repeat("a", 533-len("MAIL FROM:<@example.com> SMTPUTF8 REQUIRETLS\r\n")) + "@example.com>"
		if m := send(t, tcp, mail+" SMTPUTF8 REQUIRETLS", "<b@example.net>"); !m.Envelope.UTF8 || m.Mode != requiretls.Required {
			t.Errorf("%+v", m)
		}
	})
	t.Run("XFORWARD", func(t *testing.T) {
		c := unix.greeted()
		for _, x := range []string{
			"XFORWARD NAME=client.example ADDR=192.0.2.7 PORT=54321",
			"XFORWARD PROTO=ESMTP HELO=[UNAVAILABLE] IDENT=4cZ+2Bx1 SOURCE=REMOTE",
		} {
			c.ask(x, "250 2.0.0 ok")
		}
		unix.mu.Lock()
		unix.have = nil
		unix.mu.Unlock()
		c.begin("a@example.net")
		c.refused("XFORWARD IDENT=x", "503 5.5.1 ")
		c.data("\r\n")
		c.want(delivered)
		if m := unix.message(); m.QueueID != "4cZ+x1" {
			t.Errorf("%q", m.QueueID)
		}
		unix.have = nil
		c.ask("XFORWARD ADDR=IPV6:2001:db8::1 PORT=[UNAVAILABLE] IDENT=two", "250 2.0.0 ok")
		c.begin("a@example.net")
		c.data("\r\n")
		c.want(delivered)
		if m := unix.message(); m.QueueID != "two" {
			t.Errorf("%q", m.QueueID)
		}
		unix.have = nil
		c.begin("a@example.net") // nothing is left of the message before
		c.data("\r\n")
		c.want(delivered)
		if m := unix.message(); m.QueueID != "" {
			t.Errorf("%q", m.QueueID)
		}
		for _, odd := range []string{
			"XFORWARD", "XFORWARD NAME", "XFORWARD FOO=1", "XFORWARD IDENT=a FOO=1",
		} {
			c.refused(odd, "501 5.5.4 ")
		}
		for _, useless := range []string{"HELO=+00", "ADDR=nobody PORT=x", "IDENT=", "NAME=" + strings.Repeat("a", 300)} {
			c.ask("XFORWARD "+useless, "250 2.0.0 ok")
		}
		fresh := unix.dial()
		fresh.refused("XFORWARD IDENT=x", "503 5.5.1 ")
	})
}

func TestAddresses(t *testing.T) {
	d := openUnix(t, &delivery.Server{})
	for _, bad := range []string{
		"", "a@example.com", "<a@example.com", "<a>", "<@example.com>", "<a@>", "<a b@example.com>", "<a@b c>", "<a@b@c>",
		"<a@example.com>SIZE=1", `<"a@example.com>`, `<"a"b@example.com>`, `<a@b"c>d">`, "<a(x)@example.com>", "<a@exa/mple>",
		"<a\tb@example.com>", "<@route>", "<@route:>", `<@ro"ute:a@example.com>`, "<<a@example.com>>", `<"\`,
	} {
		c := d.greeted()
		c.send("MAIL FROM:" + bad + "\r\n")
		if line := c.line(); line[0] != '5' {
			t.Errorf("MAIL FROM:%s: %q", bad, line)
		}
		c.refused("MAIL FROM:<a@example.com> BODY=8BITMIME X", "555 ")
		c.begin()
		c.send("RCPT TO:" + bad + "\r\n")
		if line := c.line(); line[0] != '5' {
			t.Errorf("RCPT TO:%s: %q", bad, line)
		}
	}
	c := d.greeted()
	c.refused("MAIL FROM:<ü@example.com>", "553 5.6.7 ")
	c.begin()
	c.refused("RCPT TO:<>", "501 5.1.3 ")
	c.refused("RCPT TO:<a@ü.example>", "553 5.6.7 ")
	c.refused("RCPT FROM:<a@example.com>", "501 5.1.3 ")
	c.refused("MAIL FROM:<a@example.com>", "503 5.5.1 ")
	c.ask("rcpt to: <a@example.com>", recipientOK)
}

func TestReplies(t *testing.T) {
	t.Run("SMTP-120 one reply per accepted recipient", func(t *testing.T) {
		d := openUnix(t, &delivery.Server{})
		d.reply = func(m *delivery.Message, i int) smtpclient.Reply {
			return smtpclient.Reply{Code: 250, Enhanced: "2.1.5", Text: fmt.Sprintf("number %d", i)}
		}
		c := d.greeted()
		c.begin("a@example.net")
		c.refused("RCPT TO:<b@example.net> FOO", "555 ")
		c.begin2("a@example.net", "A@example.net", "a@example.net")
		c.data("\r\n")
		c.want("250 2.1.5 number 0", "250 2.1.5 number 1", "250 2.1.5 number 2", "250 2.1.5 number 3")
		c.ask("NOOP", "250 2.0.0 I have successfully done nothing")
	})
	t.Run("SMTP-121 each reply stands for one recipient", func(t *testing.T) {
		d := openUnix(t, &delivery.Server{})
		d.reply = func(m *delivery.Message, i int) smtpclient.Reply {
			return []smtpclient.Reply{
				{Code: 250, Enhanced: "2.0.0", Text: "mx.a.example[192.0.2.1]: <a@a.example> ok"},
				{Code: 451, Enhanced: "4.7.5", Text: "b.example: certificate not trusted"},
				{Code: 550, Enhanced: "5.7.30", Text: "c.example: REQUIRETLS is not offered"},
				{Code: 250, Text: "no enhanced code"},
				{Code: 550, Enhanced: "4.1.1", Text: "classes differ"},
				{Code: 550, Enhanced: "garbage", Text: "two\r\nlines \x00 and ü " + strings.Repeat("x", 1000)},
				{},
			}[i]
		}
		c := d.greeted()
		c.begin("a@a.example", "b@b.example", "c@c.example", "d@d.example", "e@e.example", "f@f.example", "g@g.example")
		c.data("\r\n")
		c.want(
			"250 2.0.0 mx.a.example[192.0.2.1]: <a@a.example> ok",
			"451 4.7.5 b.example: certificate not trusted",
			"550 5.7.30 c.example: REQUIRETLS is not offered",
			"250 2.0.0 no enhanced code",
			"550 5.0.0 classes differ",
		)
		if line := c.line(); !strings.HasPrefix(line, "550 5.0.0 two??lines ? and ? xxx") || len(line) > 510 {
			t.Errorf("%d octets: %q", len(line), line)
		}
		c.code("451 4.0.0")
		c.ask("RSET", "250 2.0.0 Session reset")
	})
	t.Run("SMTP-124 DATA without recipients", func(t *testing.T) {
		d := openUnix(t, &delivery.Server{})
		c := d.greeted()
		c.refused("DATA", "503 5.5.1 ")
		c.begin()
		c.refused("DATA", "503 5.5.1 ")
		c.refused("RCPT TO:<>", "501 ")
		c.refused("DATA", "503 5.5.1 ")
		c.send("BDAT 6 LAST\r\nDATA\r\n")
		c.code("503 5.5.1 ")
		c.ask("NOOP", "250 2.0.0 I have successfully done nothing")
		d.none()
	})
	t.Run("too many recipients", func(t *testing.T) {
		d := openUnix(t, &delivery.Server{MaxRecipients: 2})
		c := d.greeted()
		c.begin("a@example.net", "b@example.net")
		c.refused("RCPT TO:<c@example.net>", "452 4.5.3 ")
		c.data("\r\n")
		c.want(delivered, delivered)
	})
	t.Run("a panic is one message's trouble", func(t *testing.T) {
		var log bytes.Buffer
		d := openUnix(t, &delivery.Server{Log: slog.New(slog.NewTextHandler(&log, nil))})
		d.reply = func(*delivery.Message, int) smtpclient.Reply { panic("a mistake of ours") }
		c := d.greeted()
		c.begin("a@example.net", "b@example.net")
		c.data("\r\n")
		c.want("421 4.0.0 Internal server error", "421 4.0.0 Internal server error")
		c.wantClosed()
		d.stop()
		if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "a mistake of ours") {
			t.Errorf("log: %s", log.String())
		}
	})
	t.Run("wrong number of replies", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		s := &delivery.Server{Hostname: "relay.example.com"}
		go func() {
			done <- s.ServeWith(ctx, ln, requiretls.Normal, func(context.Context, *delivery.Message) []smtpclient.Reply { return nil })
		}()
		c := (&door{t: t, addr: ln.Addr()}).greeted()
		c.begin("a@example.net", "b@example.net")
		c.data("\r\n")
		c.want("451 4.3.0 internal error", "451 4.3.0 internal error")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// begin2 adds recipients.
func (c *client) begin2(recipients ...string) {
	c.t.Helper()
	for _, r := range recipients {
		c.ask("RCPT TO:<"+r+">", recipientOK)
	}
}

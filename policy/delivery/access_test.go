package delivery_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"postseal/policy/delivery"
	"postseal/policy/requiretls"
)

func TestTLS(t *testing.T) {
	t.Run("SMTP-041 TLS may be demanded", func(t *testing.T) {
		d := openTCP(t, &delivery.Server{RequireTLS: true}, requiretls.Normal)
		c := d.greeted()
		for _, command := range []string{"MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>", "DATA", "RSET", "VRFY x", "XFORWARD IDENT=x", "FOO"} {
			c.refused(command, "530 5.7.0 ")
		}
		c.send("BDAT 6 LAST\r\nNOOP\r\n")
		c.code("530 5.7.0 ")
		c.ask("NOOP", "250 2.0.0 I have successfully done nothing")
		c.startTLS()
		c.lhlo()
		c.begin("b@example.net")
		c.data("\r\n")
		c.want(delivered)
		c.ask("QUIT", "221 2.0.0 Bye")
	})
	t.Run("SMTP-042 bytes pipelined behind STARTTLS", func(t *testing.T) {
		d := openTCP(t, &delivery.Server{}, requiretls.Normal)
		c := d.greeted()
		c.send("STARTTLS\r\nMAIL FROM:<a@example.com>\r\n")
		c.code("421 4.7.0 ")
		c.wantClosed()
	})
	t.Run("SMTP-042 STARTTLS with an argument", func(t *testing.T) {
		c := openTCP(t, &delivery.Server{}, requiretls.Normal).greeted()
		c.refused("STARTTLS now", "501 5.5.4 ")
		c.startTLS()
	})
	t.Run("SMTP-042 not again inside TLS", func(t *testing.T) {
		d := openTCP(t, &delivery.Server{}, requiretls.Normal)
		c := d.greeted()
		c.startTLS()
		if slices.Contains(c.lhlo(), "STARTTLS") {
			t.Error("STARTTLS is offered inside TLS")
		}
		c.refused("STARTTLS", "503 5.5.1 ")
	})
	t.Run("SMTP-042 what was said in clear is forgotten", func(t *testing.T) {
		d := openTCP(t, &delivery.Server{}, requiretls.Normal)
		c := d.greeted()
		c.ask("XFORWARD IDENT=clear", "250 2.0.0 ok")
		c.begin("clear@example.net")
		c.startTLS()
		c.refused("RCPT TO:<more@example.net>", "503 5.5.1 ")
		c.refused("DATA", "503 5.5.1 ")
		c.refused("MAIL FROM:<b@example.com>", "503 5.5.1 ")
		c.refused("XFORWARD IDENT=x", "503 5.5.1 ")
		c.send("BDAT 2 LAST\r\n\r\n")
		c.code("503 5.5.1 ")
		c.lhlo()
		c.refused("DATA", "503 5.5.1 ")
		c.begin("tls@example.net")
		c.data("\r\n")
		c.want(delivered)
		if m := d.message(); m.QueueID != "" || m.Envelope.To[0].Addr != "tls@example.net" {
			t.Errorf("%+v", m)
		}
	})
	t.Run("not offered on a socket in the file system", func(t *testing.T) {
		openUnix(t, &delivery.Server{}).greeted().refused("STARTTLS", "502 5.5.1 ")
	})
	t.Run("a broken handshake ends the connection", func(t *testing.T) {
		d := openTCP(t, &delivery.Server{}, requiretls.Normal)
		c := d.greeted()
		c.ask("STARTTLS", "220 2.0.0 ready for TLS")
		c.send("MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n")
		rest, _ := io.ReadAll(c.in)
		if bytes.Contains(rest, []byte("250")) {
			t.Errorf("%q", rest)
		}
		d.none()
	})
	t.Run("RT-007 a client that wants REQUIRETLS finds it at loopback", func(t *testing.T) {
		// As Postfix 3.11 does at its level "may": without verification.
		d := openTCP(t, &delivery.Server{}, requiretls.Normal)
		c := d.dial()
		if !slices.Contains(c.lhlo(), "STARTTLS") {
			t.Fatal("STARTTLS is not offered")
		}
		c.startTLS()
		if !slices.Contains(c.lhlo(), "REQUIRETLS") {
			t.Fatal("REQUIRETLS is not offered")
		}
		c.ask("MAIL FROM:<a@example.com> SIZE=2 REQUIRETLS", senderOK)
		c.begin2("b@example.net")
		c.data("\r\n")
		c.want(delivered)
		if m := d.message(); m.Mode != requiretls.Required {
			t.Errorf("the tag is lost: %s", m.Mode)
		}
	})
	t.Run("RT-007 a warning where it cannot be", func(t *testing.T) {
		var log bytes.Buffer
		d := openTCP(t, &delivery.Server{NoTLS: true, Log: slog.New(slog.NewTextHandler(&log, nil))}, requiretls.Normal)
		d.dial()
		d.stop()
		if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "REQUIRETLS") {
			t.Errorf("log: %s", log.String())
		}
	})
}

func TestAccess(t *testing.T) {
	t.Run("SMTP-132 other addresses are refused", func(t *testing.T) {
		d := openTCP(t, &delivery.Server{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, requiretls.Normal)
		c := d.connect()
		c.want("554 relay.example.com takes mail from its own mail server only")
		c.wantClosed()
	})
	t.Run("SMTP-132 loopback by default", func(t *testing.T) {
		openTCP(t, &delivery.Server{}, requiretls.Normal).dial()
		for addr, want := range map[string]bool{
			"127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
			"192.0.2.1": false, "10.0.0.1": false, "::": false, "fe80::1%eth0": false, "2001:db8::1": false, "::ffff:192.0.2.1": false,
		} {
			if got := delivery.Allowed(t, &delivery.Server{}, addr); got != want {
				t.Errorf("%s: %t", addr, got)
			}
		}
	})
	t.Run("too many connections", func(t *testing.T) {
		d := openUnix(t, &delivery.Server{MaxConns: 2})
		a := d.greeted()
		d.greeted()
		third := d.connect()
		third.want("421 relay.example.com has too many connections")
		third.wantClosed()
		a.ask("QUIT", "221 2.0.0 Bye")
		a.wantClosed()
		for { // the place is free soon
			c := d.connect()
			if line := c.line(); strings.HasPrefix(line, "220 ") {
				return
			}
		}
	})
}

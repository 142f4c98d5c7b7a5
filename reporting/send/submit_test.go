package send_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postseal/reporting/send"
)

// submit sends a message to a mail server at address that is called mail.example.org.
func submit(t *testing.T, address string) (string, error) {
	t.Helper()
	m := &send.Mail{
		Submit: "smtp://mail.example.org:25", From: from, Envelope: "bounces@mta.example.org", Hostname: "mta.example.org",
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	return m.Send(t.Context(), message(t), to)
}

func TestSubmit(t *testing.T) {
	var s mailServer
	s.serve(t, nil)
	text := message(t)
	m := &send.Mail{Submit: "smtp://" + s.address, From: from, Hostname: "mta.example.org"}
	reply, err := m.Send(t.Context(), text, to)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(reply, "250 2.0.0 ") {
		t.Errorf("reply %q", reply)
	}
	mail := s.taken()
	if len(mail) != 1 {
		t.Fatalf("%d mails", len(mail))
	}
	t.Run("RPT-075 the bytes are those of Message", func(t *testing.T) {
		if mail[0].text != string(text) {
			t.Errorf("%q", mail[0].text)
		}
	})
	t.Run("RPT-076 the mail says that TLS is not required", func(t *testing.T) {
		if !strings.Contains(mail[0].text, "\r\nTLS-Required: No\r\n") {
			t.Error(mail[0].text)
		}
	})
	mail[0].text = ""
	if want := (submitted{hello: "mta.example.org", from: from, to: to, options: "HDRS [FAILURE]"}); mail[0] != want {
		t.Errorf("%+v, want %+v", mail[0], want)
	}
}

func TestSubmitTLS(t *testing.T) {
	config := certificate(t)
	t.Run("if offered, and whatever the certificate", func(t *testing.T) {
		var s mailServer
		s.serve(t, config)
		if _, err := submit(t, s.address); err != nil {
			t.Fatal(err)
		}
		if mail := s.taken(); len(mail) != 1 || !mail[0].tls || mail[0].hello != "mta.example.org" || mail[0].from != "bounces@mta.example.org" {
			t.Errorf("%+v", mail)
		}
	})
	t.Run("not over loopback", func(t *testing.T) {
		var s mailServer
		s.serve(t, config)
		m := &send.Mail{Submit: "smtp://" + s.address, From: from}
		if _, err := m.Send(t.Context(), message(t), to); err != nil {
			t.Fatal(err)
		}
		if mail := s.taken(); len(mail) != 1 || mail[0].tls {
			t.Errorf("%+v", mail)
		}
	})
	const rest = "250-mx.test\n250 starttls\n<\n"
	const mail = "250 ok\n<\n250 ok\n<\n354 go on\n<.\n250 2.0.0 Ok: queued as ABC\n<\n221 bye"
	for name, connections := range map[string][]string{
		"offered in lower case": {"220 mx.test\n<\n" + rest + "220 go\ntls\n<\n250 mx.test\n<\n" + mail},
		"refused: in clear":     {"220 mx.test\n<\n" + rest + "454 not now\n<\n" + mail},
		"failed: in clear":      {"220 mx.test\n<\n" + rest + "220 go\nthis is no TLS", "220 mx.test\n<\n" + rest + mail},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := submit(t, script(t, config, connections...))
			if err != nil || reply != "250 2.0.0 Ok: queued as ABC" {
				t.Errorf("%q, %v", reply, err)
			}
		})
	}
}

func TestSubmitRefused(t *testing.T) {
	refuse := func(code int, enhanced smtp.EnhancedCode, text string) *smtp.SMTPError {
		return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
	}
	none := smtp.NoEnhancedCode
	for name, c := range map[string]struct {
		server        *mailServer
		target, final bool
	}{
		"RCPT 550":                    {&mailServer{atRcpt: refuse(550, smtp.EnhancedCode{5, 1, 1}, "No such user")}, true, true},
		"RCPT 450":                    {&mailServer{atRcpt: refuse(450, smtp.EnhancedCode{4, 2, 0}, "Greylisted")}, true, false},
		"RCPT 550, plain":             {&mailServer{atRcpt: refuse(550, none, "unknown user")}, true, true},
		"RCPT 556, null MX":           {&mailServer{atRcpt: refuse(556, smtp.EnhancedCode{5, 1, 10}, "takes no mail")}, true, true},
		"RCPT 450, plain":             {&mailServer{atRcpt: refuse(450, none, "try later")}, true, false},
		"RCPT 451":                    {&mailServer{atRcpt: refuse(451, smtp.EnhancedCode{4, 3, 0}, "local error")}, false, false},
		"RCPT 452":                    {&mailServer{atRcpt: refuse(452, smtp.EnhancedCode{4, 3, 1}, "disk full")}, false, false},
		"RCPT 554, relay":             {&mailServer{atRcpt: refuse(554, smtp.EnhancedCode{5, 7, 1}, "Relay access denied")}, false, false},
		"RCPT 550, relay as Exim":     {&mailServer{atRcpt: refuse(550, none, "relay not permitted")}, false, false},
		"RCPT 450, sender's domain":   {&mailServer{atRcpt: refuse(450, smtp.EnhancedCode{4, 1, 8}, "<x>: Domain not found")}, false, false},
		"RCPT 550, sender":            {&mailServer{atRcpt: refuse(550, smtp.EnhancedCode{5, 1, 0}, "Sender address rejected")}, false, false},
		"RCPT 530, no authentication": {&mailServer{atRcpt: refuse(530, none, "Authentication required")}, false, false},
		"MAIL 550":                    {&mailServer{atMail: refuse(550, smtp.EnhancedCode{5, 1, 0}, "not you")}, false, false},
		"DATA 550":                    {&mailServer{atData: refuse(550, smtp.EnhancedCode{5, 7, 1}, "spam")}, false, false},
		"message 554":                 {&mailServer{atMessage: refuse(554, smtp.EnhancedCode{5, 7, 1}, "spam")}, false, false},
		"message 452":                 {&mailServer{atMessage: refuse(452, smtp.EnhancedCode{4, 3, 1}, "disk full")}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.server.serve(t, nil)
			m := &send.Mail{Submit: "smtp://" + c.server.address, From: from}
			_, err := m.Send(t.Context(), message(t), to)
			f := failure(t, err, c.target, c.final)
			for _, e := range []*smtp.SMTPError{c.server.atMail, c.server.atRcpt, c.server.atData, c.server.atMessage} {
				if e != nil && !strings.Contains(f.Error(), e.Message) {
					t.Errorf("%v", f)
				}
			}
		})
	}
}

func TestSubmitBroken(t *testing.T) {
	const begin = "220 mx.test\n<\n250 mx.test\n<\n250 ok\n<\n250 ok\n<\n354 go on\n"
	for name, c := range map[string]struct{ script, want string }{
		"no greeting":              {"", "connection was closed"},
		"unfriendly":               {"554 go away", "554 go away"},
		"no SMTP":                  {"\x1b[31mhello\xff", `\x1b`},
		"EHLO refused":             {"220 mx.test\n<\n502 what?", "502 what?"},
		"dropped after DATA":       {begin + "<", "connection was closed"},
		"dropped after the dot":    {begin + "<.", "connection was closed"},
		"reply without end":        {"220 mx.test\n<\nflood\n250-x", "without end"},
		"line without end":         {"220 mx.test\n<\nflood\n250-" + strings.Repeat("x", 8000), "without end"},
		"final reply no 250":       {begin + "<.\n354 more", "354 more"},
		"multi-line and unprinted": {"220 mx.test\n<\n550-\x00one\n550 two", `550 \x00one two`},
	} {
		t.Run(name, func(t *testing.T) {
			m := &send.Mail{Submit: "smtp://" + script(t, nil, c.script), From: from}
			_, err := m.Send(t.Context(), message(t), to)
			// What was sent when it broke off may be reset, or have been read.
			if f := failure(t, err, false, false); !strings.Contains(f.Error(), c.want) && !strings.Contains(f.Error(), "reset") && !strings.Contains(f.Error(), "broken pipe") {
				t.Errorf("%v", f)
			}
		})
	}
	t.Run("taken, and then no word to QUIT", func(t *testing.T) {
		m := &send.Mail{Submit: "smtp://" + script(t, nil, begin+"<.\n250 Ok: \x07queued"), From: from}
		if reply, err := m.Send(t.Context(), message(t), to); err != nil || reply != `250 Ok: \aqueued` {
			t.Errorf("%q, %v", reply, err)
		}
	})
}

func TestSubmitEnds(t *testing.T) {
	stalled := func() string { return script(t, nil, "220 mx.test\n<\nwait") }
	t.Run("with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		over := errors.New("over")
		time.AfterFunc(50*time.Millisecond, func() { cancel(over) })
		_, err := (&send.Mail{Submit: "smtp://" + stalled(), From: from}).Send(ctx, message(t), to)
		if failure(t, err, false, false); !errors.Is(err, over) {
			t.Errorf("%v", err)
		}
	})
	t.Run("after its time", func(t *testing.T) {
		_, err := (&send.Mail{Submit: "smtp://" + stalled(), From: from, Timeout: 50 * time.Millisecond}).Send(t.Context(), message(t), to)
		if f := failure(t, err, false, false); !strings.Contains(f.Error(), "not done within 50ms") {
			t.Errorf("%v", err)
		}
	})
	t.Run("where nobody listens", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		_, err = (&send.Mail{Submit: "smtp://" + ln.Addr().String(), From: from}).Send(t.Context(), message(t), to)
		if f := failure(t, err, false, false); !strings.Contains(f.Error(), "refused") {
			t.Errorf("%v", err)
		}
	})
}

func TestSendRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		mail          send.Mail
		to            string
		target, final bool
	}{
		"a line end in the address": {send.Mail{Submit: "smtp://127.0.0.1:1", From: from}, "a@example.net>\r\nDATA", true, true},
		"no address":                {send.Mail{Submit: "smtp://127.0.0.1:1", From: from}, "", true, true},
		"no sender":                 {send.Mail{Submit: "smtp://127.0.0.1:1"}, to, false, false},
		"a line end in the sender":  {send.Mail{Submit: "smtp://127.0.0.1:1", From: "a@example.org\r\nRSET"}, to, false, false},
		"no way":                    {send.Mail{From: from}, to, false, false},
		"unknown way":               {send.Mail{Submit: "lmtp:/run/x", From: from}, to, false, false},
		"no host":                   {send.Mail{Submit: "smtp://:25", From: from}, to, false, false},
		"relative path":             {send.Mail{Submit: "sendmail:sendmail", From: from}, to, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.mail.Send(t.Context(), message(t), c.to)
			failure(t, err, c.target, c.final)
		})
	}
	var s mailServer
	s.serve(t, nil)
	_, err := (&send.Mail{Submit: "smtp://" + s.address, From: from, Hostname: "a\r\nRSET"}).Send(t.Context(), message(t), to)
	failure(t, err, false, false)
}

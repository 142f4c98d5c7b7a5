package mxtest_test

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"postseal/policy/dane"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestDelivery sends a message to a good host, by DANE, and looks at all that was recorded.
func TestDelivery(t *testing.T) {
	n := mxtest.New(t)
	h := n.Host("mx.example.org", "127.0.0.11")
	host := &dane.Host{Name: h.Name, Base: h.Name, State: dane.Usable}
	host.Usable = append(host.Usable, h.Record(3, 1, 1))
	client := &smtpclient.Client{Hostname: "client.example.net", Roots: n.Roots}
	s, err := client.Connect(t.Context(), smtpclient.Target{
		Name: h.Name, Addr: h.Addr(),
		Demand: smtpclient.Demand{Security: smtpclient.DANE, Plan: &dane.Plan{NextHop: "example.org"}, Host: host, RequireTLS: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if i := s.Info(); i.Secured != smtpclient.DANE || i.PKIXErr != nil || i.Name != h.Name {
		t.Errorf("info %+v", i)
	}
	text := "Subject: x\r\n\r\n.dot\r\n"
	r := s.Send(context.Background(), &smtpclient.Envelope{
		From: "a@example.net", To: []smtpclient.Recipient{{Addr: "b@example.org"}, {Addr: "c@example.org"}},
	}, strings.NewReader(text), int64(len(text)))
	if r.Failure != nil || r.Replies[0].Code != 250 || r.Replies[1].Code != 250 || !r.Usable {
		t.Errorf("result %+v, %v", r, r.Failure)
	}
	s.Close()
	c := h.Ended()
	if len(c) != 1 || !c[0].TLS || !c[0].Quit || c[0].Hello.ServerName != h.Name || len(c[0].Mails) != 1 {
		t.Fatalf("recorded %+v", c)
	}
	if got, want := strings.Join(c[0].Verbs(), " "), "EHLO STARTTLS EHLO MAIL RCPT RCPT DATA . QUIT"; got != want {
		t.Errorf("said %s, want %s", got, want)
	}
	m := c[0].Mails[0]
	if string(m.Data) != text || m.From != "<a@example.net> SIZE=20 REQUIRETLS" || len(m.To) != 2 || !m.Taken || !m.TLS {
		t.Errorf("mail %+v", m)
	}
}

// ask says lines in clear text and gives the replies, without what follows the code.
func ask(t *testing.T, h *mxtest.Host, lines ...string) string {
	t.Helper()
	conn, err := h.Dial(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	var codes []string
	for i := 0; i <= len(lines); i++ {
		if i > 0 {
			io.WriteString(conn, lines[i-1]+"\r\n")
		}
		line, err := "", error(nil)
		for line, err = r.ReadString('\n'); err == nil && line[3] == '-'; line, err = r.ReadString('\n') {
		}
		if err != nil {
			return strings.Join(append(codes, "end"), " ")
		}
		codes = append(codes, line[:3])
	}
	return strings.Join(codes, " ")
}

func TestReply(t *testing.T) {
	h := mxtest.New(t).Host("mx.example.org", "")
	check := func(want string, lines ...string) {
		t.Helper()
		if got := ask(t, h, lines...); got != want {
			t.Errorf("%q: %s, want %s", lines, got, want)
		}
	}
	check("220 250 250 250 354 250 221", "EHLO x", "MAIL FROM:<a@x>", "rcpt to:<b@x>", "DATA", "text\r\n.", "QUIT")
	check("220 503 250 503 554 502 250", "RCPT TO:<b@x>", "MAIL FROM:<a@x>", "MAIL FROM:<a@x>", "DATA", "VRFY b", "RSET")
	h.Reply("RCPT", "450 4.2.1 later", "451 4.2.1 later still")
	h.Reply("RCPT b@x", "550 5.1.1 who")
	check("220 250 450 550 451 451 550", "MAIL FROM:<a@x>", "RCPT TO:<a@x>", "RCPT TO:<b@x>", "RCPT TO:<a@x>", "RCPT TO:<a@x>", "RCPT TO:<b@x>")
	h.Reply("RCPT b@x")
	h.Reply("RCPT", mxtest.Drop)
	check("220 250 end", "MAIL FROM:<a@x>", "RCPT TO:<b@x>")
	h.Reply("RCPT")
	h.Set(mxtest.Config{MaxRcpts: 1, Discard: true})
	check("220 250 250 452 354 250", "MAIL FROM:<a@x>", "RCPT TO:<a@x>", "RCPT TO:<b@x>", "DATA", "12\r\n.")
	h.Ended()
	if mails := h.Mails(); len(mails) != 2 || string(mails[0].Data) != "text\r\n" || mails[1].Data != nil || mails[1].Size != 4 {
		t.Errorf("mails %+v", mails)
	}
	if h.Forget(); len(h.Conns()) != 0 {
		t.Error("nothing was forgotten")
	}
}

func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mxtest.New(t).Host("mx.example.org", "")
		h.Reply("NOOP", mxtest.Stall, mxtest.Stall+" 450 later")
		go func() {
			for range 2 {
				synctest.Wait()
				time.Sleep(time.Hour)
				h.Release()
			}
		}()
		start := time.Now()
		if got := ask(t, h, "NOOP", "NOOP"); got != "220 250 450" || time.Since(start) != 2*time.Hour {
			t.Errorf("%s after %v", got, time.Since(start))
		}
	})
}

func TestTLSA(t *testing.T) {
	h := mxtest.New(t).Host("mx.example.org", "")
	key, leaf, ca := h.TLSA(3, 1, 1), h.TLSA(3, 0, 1), h.TLSA(2, 1, 1)
	if !strings.HasPrefix(key, "3 1 1 ") || len(key) != 6+64 || len(h.TLSA(2, 0, 2)) != 6+128 || len(h.Record(2, 0, 0).Data) < 100 {
		t.Errorf("records %s, %s", key, h.TLSA(2, 0, 2))
	}
	h.Set(mxtest.Config{})
	if h.TLSA(3, 1, 1) != key || h.TLSA(3, 0, 1) == leaf {
		t.Error("Set changes the key, or keeps the certificate")
	}
	h.Rekey()
	if h.TLSA(3, 1, 1) == key || h.TLSA(2, 1, 1) != ca {
		t.Error("Rekey keeps the key, or changes the CA")
	}
}

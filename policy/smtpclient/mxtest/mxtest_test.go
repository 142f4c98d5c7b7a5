package mxtest_test

import (
	"context"
	"strings"
	"testing"

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

package smtpclient_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postseal/policy/dane"
	"postseal/policy/dnssec"
	"postseal/policy/mtasts"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mx     = "mx.example.org"
	domain = "example.org"
)

// bed is one host and a client that trusts its CA.
type bed struct {
	*mxtest.Host
	t      testing.TB
	net    *mxtest.Net
	client *smtpclient.Client
}

// newBed makes a host at a loopback address.
func newBed(t testing.TB) *bed { return makeBed(t, "127.0.0.21") }

// newPipe makes a host that is reached in memory, for synthetic time.
func newPipe(t testing.TB) *bed {
	b := makeBed(t, "")
	b.client.Dial = b.Dial
	b.Set(mxtest.Config{NoTickets: true})
	return b
}

func makeBed(t testing.TB, ip string) *bed {
	n := mxtest.New(t)
	return &bed{n.Host(mx, ip), t, n, &smtpclient.Client{Hostname: "client.example.net", Roots: n.Roots}}
}

// target is the host under a demand by name: opportunistic, encrypt, pkix, dane, or
// one of the last two with "requiretls" behind it.
func (b *bed) target(demand string) smtpclient.Target {
	words := strings.Fields(demand)
	d := smtpclient.Demand{RequireTLS: len(words) == 2}
	for _, s := range []smtpclient.Security{smtpclient.Opportunistic, smtpclient.Encrypt, smtpclient.PKIX, smtpclient.DANE} {
		if s.String() == words[0] {
			d.Security = s
		}
	}
	if d.Security == smtpclient.DANE {
		d = daneDemand(b.Record(3, 1, 1))
		d.RequireTLS = len(words) == 2
	}
	return smtpclient.Target{Name: mx, Addr: b.Addr(), Demand: d}
}

func daneDemand(records ...dnssec.TLSA) smtpclient.Demand {
	return smtpclient.Demand{
		Security: smtpclient.DANE,
		Plan:     &dane.Plan{NextHop: domain, MXSecure: true},
		Host:     &dane.Host{Name: mx, Base: mx, State: dane.Usable, TLSA: records, Usable: records},
	}
}

// connect tries and says QUIT. What came of it is in one line: what was secured, or
// the failure's code, enhanced code, stage and result type; and what was said on
// each connection.
func (b *bed) connect(target smtpclient.Target) (outcome, said string) {
	b.t.Helper()
	s, err := b.client.Connect(b.t.Context(), target)
	outcome = b.outcome(s, err)
	if err == nil {
		s.Close()
	}
	return outcome, b.said()
}

func (b *bed) outcome(s *smtpclient.Session, err error) string {
	b.t.Helper()
	if err == nil {
		i := s.Info()
		if i.TLS != (i.Secured != smtpclient.Opportunistic) || i.TLS != (i.NoTLS == nil) {
			b.t.Errorf("info contradicts itself: %+v", i)
		}
		return i.Secured.String()
	}
	f := b.failure(err)
	return strings.TrimSpace(fmt.Sprintf("%d %s %s %s", f.Reply.Code, f.Reply.Enhanced, f.Stage, f.Result))
}

// failure checks what every failure must be.
func (b *bed) failure(err error) *smtpclient.Failure {
	b.t.Helper()
	f, ok := errors.AsType[*smtpclient.Failure](err)
	if !ok {
		b.t.Fatalf("not a failure: %v", err)
	}
	checkReply(b.t, f.Reply)
	if !strings.HasPrefix(f.Reply.Text, mx+"["+b.Addr().Addr().String()+"]") {
		b.t.Errorf("the reply does not name the host: %q", f.Reply.Text)
	}
	if c := f.Reply.Code / 100; c != 4 && c != 5 {
		b.t.Errorf("a failure of code %d", f.Reply.Code)
	}
	if f.Policy() != strings.Contains("starttls handshake verify keyword policy", f.Stage.String()) {
		b.t.Errorf("at %s: policy %v", f.Stage, f.Policy())
	}
	if (f.Result == "") != (f.Reason == "") && f.Stage != smtpclient.StageKeyword {
		b.t.Errorf("result %q, reason %q", f.Result, f.Reason)
	}
	return f
}

// checkReply holds a reply to SMTP-128 and SMTP-150.
func checkReply(t testing.TB, r smtpclient.Reply) {
	t.Helper()
	if len(r.Text) > 512 || strings.ContainsFunc(r.Text, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("not one printable line: %q", r.Text)
	}
	if r.Code != 0 && (r.Enhanced == "" || int(r.Enhanced[0]-'0') != r.Code/100) {
		t.Errorf("code %d with %q", r.Code, r.Enhanced)
	}
}

// said lists the commands of all connections, when they have ended.
func (b *bed) said() string {
	b.t.Helper()
	var all []string
	for _, c := range b.Ended() {
		all = append(all, strings.Join(c.Verbs(), " "))
	}
	return strings.Join(all, " | ")
}

// open connects where that must go well.
func (b *bed) open(demand string) *smtpclient.Session {
	b.t.Helper()
	s, err := b.client.Connect(b.t.Context(), b.target(demand))
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// send sends text to recipients over a session.
func (b *bed) send(s *smtpclient.Session, text string, to ...string) smtpclient.Result {
	b.t.Helper()
	e := &smtpclient.Envelope{From: "a@example.net"}
	for _, addr := range to {
		e.To = append(e.To, smtpclient.Recipient{Addr: addr})
	}
	return b.sendAs(s, e, text)
}

func (b *bed) sendAs(s *smtpclient.Session, e *smtpclient.Envelope, text string) smtpclient.Result {
	b.t.Helper()
	r := s.Send(b.t.Context(), e, strings.NewReader(text), int64(len(text)))
	if len(r.Replies) != len(e.To) {
		b.t.Fatalf("%d replies for %d recipients", len(r.Replies), len(e.To))
	}
	none := 0
	for _, reply := range r.Replies {
		checkReply(b.t, reply)
		if reply.Code == 0 {
			none++
		}
	}
	if (none > 0) != (r.Failure != nil) {
		b.t.Errorf("%d without a reply, failure %v", none, r.Failure)
	}
	if r.Failure != nil {
		b.failure(r.Failure)
	}
	return r
}

// codes are those of the replies.
func codes(r smtpclient.Result) string {
	var all []string
	for _, reply := range r.Replies {
		if reply.Code == 0 {
			all = append(all, "-")
			continue
		}
		all = append(all, fmt.Sprintf("%d %s", reply.Code, reply.Enhanced))
	}
	s := strings.Join(all, ", ")
	if r.Failure != nil {
		s += fmt.Sprintf("; %d %s %s", r.Failure.Reply.Code, r.Failure.Reply.Enhanced, r.Failure.Stage)
	}
	return s
}

func stsPolicy(t testing.TB, mode string, patterns ...string) *mtasts.Policy {
	t.Helper()
	body := "version: STSv1\nmode: " + mode + "\nmax_age: 86400\n"
	for _, p := range patterns {
		body += "mx: " + p + "\n"
	}
	p, _, err := mtasts.ParsePolicy(body)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wait is long for what does not take long.
const wait = 20 * time.Second

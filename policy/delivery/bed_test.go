package delivery

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postseal/cache/boltdb"
	"postseal/policy"
	"postseal/policy/delivery/ledger"
	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts"
	"postseal/policy/mtasts/ststest"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

const (
	normal   = requiretls.Normal
	required = requiretls.Required
	relaxed  = requiretls.Relaxed
)

// plainText is a message.
type plainText string

func (c plainText) Open() io.Reader { return strings.NewReader(string(c)) }
func (c plainText) Size() int64     { return int64(len(c)) }

// bed is an engine with an Internet of its own: names below "signed.test." are signed.
type bed struct {
	*Server
	t    testing.TB
	dns  *dnstest.Server
	web  *ststest.Server
	net  *mxtest.Net
	pol  *policy.Engine
	zone string

	mu       sync.Mutex
	outcomes []Outcome
	ahead    time.Duration // of all clocks but those of certificates
}

func newBed(t testing.TB) *bed {
	t.Helper()
	b := &bed{t: t, dns: dnstest.New(t, "", "signed.test."), web: ststest.New(t), net: mxtest.New(t)}
	client := b.dns.Client()
	client.TryTimeout, client.Timeout = time.Second, 3*time.Second // a busy machine is no dead resolver
	b.pol = &policy.Engine{DNS: client, Now: b.now,
		Fetch: &mtasts.Fetcher{DNS: client, Roots: b.web.Roots, AllowPrivate: true, Port: b.web.Port}}
	b.Server = &Server{
		Resolver: b.pol, Client: &smtpclient.Client{Hostname: "relay.test", Roots: b.net.Roots},
		Hostname: "relay.test", AllowPrivate: true, Report: b.report, Now: b.now,
		Ledger: newLedger(t),
	}
	here := &net.UnixAddr{Name: "test", Net: "unix"}
	b.begin(here)
	run(t, b.pol.Run)
	t.Cleanup(func() { b.end(here) })
	return b
}

// run runs a component until the test ends.
func run(t testing.TB, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func newLedger(t testing.TB) *ledger.Ledger {
	t.Helper()
	db, err := boltdb.Open(filepath.Join(t.TempDir(), "delivery.db"), boltdb.Options{Schema: 1, Buckets: []string{ledger.Bucket}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	l := &ledger.Ledger{DB: db}
	run(t, l.Run)
	return l
}

func (b *bed) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.ahead)
}

func (b *bed) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead += d
}

func (b *bed) report(o Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outcomes = append(b.outcomes, o)
}

// reported are the outcomes so far: "mx.example tlsa:, sts:certificate-expired".
func (b *bed) reported() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, o := range b.outcomes {
		s := o.MX
		if o.Relaxed {
			s += " relaxed"
		}
		for _, j := range o.Judgements {
			s += " " + j.Policy + ":" + j.Result
		}
		list = append(list, s)
	}
	return list
}

// host starts an MX host at 127.0.0.n and gives its name that address.
func (b *bed) host(name string, n int, c ...mxtest.Config) *mxtest.Host {
	b.t.Helper()
	ip := fmt.Sprintf("127.0.0.%d", n)
	h := b.net.Host(name, ip)
	for _, c := range c {
		h.Set(c)
	}
	b.Port = b.net.Port
	b.publish("%s. IN A %s", name, ip)
	return h
}

// publish adds records to the zone.
func (b *bed) publish(format string, args ...any) {
	b.zone += fmt.Sprintf(format, args...) + "\n"
	b.dns.SetZone(b.zone, "signed.test.")
}

// tlsa publishes records for a host.
func (b *bed) tlsa(h *mxtest.Host, record string) {
	b.publish("_%d._tcp.%s. IN TLSA %s", b.net.Port, h.Name, record)
}

// mx publishes MX records of a domain: preference and host in turns.
func (b *bed) mx(domain string, records ...any) {
	for i := 0; i < len(records); i += 2 {
		b.publish("%s. IN MX %v %v.", domain, records[i], records[i+1])
	}
}

// sts publishes an MTA-STS policy.
func (b *bed) sts(domain, mode string, mx ...string) {
	b.publish("_mta-sts.%s. IN TXT \"v=STSv1; id=1;\"\nmta-sts.%s. IN A %s", domain, domain, b.web.IP)
	b.web.Set(domain, stsPolicy(mode, mx...))
}

func stsPolicy(mode string, mx ...string) string {
	s := "version: STSv1\nmode: " + mode + "\n"
	for _, m := range mx {
		s += "mx: " + m + "\n"
	}
	return s + "max_age: 86400\n"
}

// digest is that of a text.
func digest(text plainText) ledger.Digest {
	h := ledger.NewHash()
	io.WriteString(h, string(text))
	return h.Digest()
}

// message makes one that the ledger can tell from others.
func (b *bed) message(mode requiretls.Mode, from string, to ...string) *message {
	c := plainText("Received: from client.test\r\nSubject: test\r\n\r\nHello.\r\n")
	m := &message{mode: mode, digest: digest(c), content: c, received: "from client.test"}
	m.envelope.From = from
	for _, to := range to {
		m.envelope.To = append(m.envelope.To, smtpclient.Recipient{Addr: to})
		m.modes = append(m.modes, mode)
	}
	return m
}

// send delivers a message from a sender who is nobody else's.
func (b *bed) send(mode requiretls.Mode, to ...string) []smtpclient.Reply {
	b.t.Helper()
	b.mu.Lock()
	b.ahead++ // so that it differs
	from := fmt.Sprintf("s%d@sender.test", b.ahead)
	b.mu.Unlock()
	return b.deliver(context.Background(), b.message(mode, from, to...))
}

// want checks a reply: "451 4.4.3", and words that must be in its text.
func want(t testing.TB, r smtpclient.Reply, codes string, words ...string) {
	t.Helper()
	if got := fmt.Sprintf("%d %s", r.Code, r.Enhanced); got != codes {
		t.Errorf("got %s %s, want %s", got, r.Text, codes)
	}
	for _, w := range words {
		if !strings.Contains(r.Text, w) {
			t.Errorf("%q does not mention %q", r.Text, w)
		}
	}
}

// took checks how many messages a host has taken.
func took(t testing.TB, h *mxtest.Host, n int) {
	t.Helper()
	taken := 0
	for _, m := range h.Mails() {
		if m.Taken {
			taken++
		}
	}
	if taken != n {
		t.Errorf("%s took %d messages, want %d", h.Name, taken, n)
	}
}

// untouched checks that nobody has connected to a host.
func untouched(t testing.TB, h *mxtest.Host) {
	t.Helper()
	if n := len(h.Conns()); n != 0 {
		t.Errorf("%s: %d connections, want none", h.Name, n)
	}
}

// commands are all that a host was told with a verb.
func commands(h *mxtest.Host, verb string) (list []string) {
	for _, c := range h.Conns() {
		for _, line := range c.Commands {
			if strings.HasPrefix(line, verb) {
				list = append(list, line)
			}
		}
	}
	return list
}

func tcpAddr(a netip.AddrPort) net.Addr { return net.TCPAddrFromAddrPort(a) }

func portOf(b *bed) string { return strconv.Itoa(int(b.net.Port)) }

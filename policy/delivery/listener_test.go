package delivery_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"postseal/policy/delivery"
	"postseal/policy/delivery/ledger"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// door is a listener under test, with a delivery that says yes and keeps what
// it got.
type door struct {
	t     testing.TB
	addr  net.Addr
	stop  func() // ends it, and waits
	reply func(m *delivery.Message, i int) smtpclient.Reply

	mu   sync.Mutex
	have []*delivery.Message
}

var ok = smtpclient.Reply{Code: 250, Enhanced: "2.0.0", Text: "mx.example.net said: ok"}

func (d *door) deliver(_ context.Context, m *delivery.Message) []smtpclient.Reply {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.have = append(d.have, m)
	var replies []smtpclient.Reply
	for i := range m.Envelope.To {
		replies = append(replies, d.reply(m, i))
	}
	return replies
}

// message is the only one that came.
func (d *door) message() *delivery.Message {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.have) != 1 {
		d.t.Fatalf("%d messages, want 1", len(d.have))
	}
	return d.have[0]
}

func (d *door) none() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.have) != 0 {
		d.t.Fatalf("a message came through: %+v", d.have[0])
	}
}

// open serves on ln until the test ends.
func open(t testing.TB, s *delivery.Server, ln net.Listener, mode requiretls.Mode) *door {
	t.Helper()
	s.Ledger = &ledger.Ledger{} // nobody asks it, but digests are made for it
	if s.Hostname == "" {
		s.Hostname = "relay.example.com"
	}
	d := &door{t: t, addr: ln.Addr(), reply: func(*delivery.Message, int) smtpclient.Reply { return ok }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.ServeWith(ctx, ln, mode, d.deliver) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if n := s.InMemory(); n != 0 {
			t.Errorf("%d octets are still counted as in memory", n)
		}
	})
	t.Cleanup(d.stop)
	return d
}

func openTCP(t testing.TB, s *delivery.Server, mode requiretls.Mode) *door {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return open(t, s, ln, mode)
}

func openUnix(t testing.TB, s *delivery.Server) *door {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "lmtp"))
	if err != nil {
		t.Fatal(err)
	}
	return open(t, s, ln, requiretls.Normal)
}

// client speaks LMTP by hand.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// dial connects and reads the greeting.
func (d *door) dial() *client {
	d.t.Helper()
	c := d.connect()
	c.want("220 relay.example.com LMTP Service Ready")
	return c
}

func (d *door) connect() *client {
	d.t.Helper()
	conn, err := net.Dial(d.addr.Network(), d.addr.String())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	return &client{d.t, conn, bufio.NewReader(conn)}
}

// greeted says LHLO as well.
func (d *door) greeted() *client {
	d.t.Helper()
	c := d.dial()
	c.lhlo()
	return c
}

// secured is greeted inside TLS.
func (d *door) secured() *client {
	d.t.Helper()
	c := d.greeted()
	c.startTLS()
	c.lhlo()
	return c
}

func (c *client) startTLS() {
	c.t.Helper()
	c.ask("STARTTLS", "220 2.0.0 ready for TLS")
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.conn, c.in = conn, bufio.NewReader(conn)
}

// lhlo returns the keywords.
func (c *client) lhlo() []string {
	c.t.Helper()
	c.send("LHLO mail.example.com\r\n")
	c.want("250-relay.example.com")
	var list []string
	for {
		line := c.line()
		list = append(list, line[4:])
		switch line[:4] {
		case "250-":
		case "250 ":
			return list
		default:
			c.t.Fatalf("LHLO: %q", line)
		}
	}
}

func (c *client) send(raw string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, raw); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) line() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("after %q: %v", line, err)
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		c.t.Fatalf("line without CR: %q", line)
	}
	return text
}

func (c *client) want(lines ...string) {
	c.t.Helper()
	for _, want := range lines {
		if got := c.line(); got != want {
			c.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// code reads a reply and compares its beginning.
func (c *client) code(want string) {
	c.t.Helper()
	if got := c.line(); !strings.HasPrefix(got, want) {
		c.t.Fatalf("got %q, want %q", got, want)
	}
}

func (c *client) ask(command string, want ...string) {
	c.t.Helper()
	c.send(command + "\r\n")
	c.want(want...)
}

// refused sends a command and compares the beginning of the reply.
func (c *client) refused(command, code string) {
	c.t.Helper()
	c.send(command + "\r\n")
	c.code(code)
}

func (c *client) wantClosed() {
	c.t.Helper()
	if line, err := c.in.ReadString('\n'); err == nil || line != "" || errors.Is(err, context.DeadlineExceeded) {
		c.t.Fatalf("got %q, %v, want the end", line, err)
	}
}

const (
	senderOK    = "250 2.1.0 sender ok"
	recipientOK = "250 2.1.5 recipient ok"
	goAhead     = "354 end with <CR><LF>.<CR><LF>"
	delivered   = "250 2.0.0 mx.example.net said: ok"
)

// begin says MAIL and RCPT.
func (c *client) begin(recipients ...string) {
	c.t.Helper()
	c.ask("MAIL FROM:<sender@example.com>", senderOK)
	for _, r := range recipients {
		c.ask("RCPT TO:<"+r+">", recipientOK)
	}
}

// data sends a text, with its dots doubled by the caller.
func (c *client) data(text string) {
	c.t.Helper()
	c.ask("DATA", goAhead)
	c.send(text + ".\r\n")
}

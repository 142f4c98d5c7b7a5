package socketmap_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/policy/mtasts"
	"postseal/socketmap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ socketmap.Decider = (*policy.Engine)(nil)

// oracle is a Decider with fixed answers. What is neither known nor slow has no
// requirement.
type oracle struct {
	cached    map[string]*policy.Decision
	slow      map[string]func(context.Context) *policy.Decision
	overrides map[string]*policy.Override

	mu    sync.Mutex
	asked []string
}

func (o *oracle) note(q string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, q)
}

func (o *oracle) questions() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

func (o *oracle) Cached(name []byte) *policy.Decision { return o.cached[string(name)] }

func (o *oracle) Decide(ctx context.Context, dest policy.Destination) *policy.Decision {
	o.note(dest.String())
	if f := o.slow[dest.Domain]; f != nil {
		return f(ctx)
	}
	return &policy.Decision{Destination: dest}
}

func (o *oracle) Override(domain string) *policy.Override {
	o.note("override " + domain)
	return o.overrides[domain]
}

// p1 is the policy P1 of spec/mta-sts.md.
const p1 = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"

func parsePolicy(t testing.TB, text string) *mtasts.Policy {
	t.Helper()
	p, _, err := mtasts.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decision(domain string, level policy.Level) *policy.Decision {
	return &policy.Decision{Destination: policy.Destination{Domain: domain, Port: 25}, Level: level}
}

func stsDecision(t testing.TB, domain, text string) *policy.Decision {
	d := decision(domain, policy.LevelSTS)
	d.STS = parsePolicy(t, text)
	return d
}

func newOracle(t testing.TB) *oracle {
	full := decision("dane.example", policy.LevelDANEOnly)
	full.DANE = dane.ClassFull
	return &oracle{
		cached: map[string]*policy.Decision{
			"example.com":           stsDecision(t, "example.com", p1),
			"dane.example":          full,
			"none.example":          decision("none.example", policy.LevelNone),
			"xn--bcher-kva.example": stsDecision(t, "xn--bcher-kva.example", p1),
		},
		slow:      map[string]func(context.Context) *policy.Decision{},
		overrides: map[string]*policy.Override{},
	}
}

const (
	stsReply  = "OK secure match=mail.example.com:.example.net servername=hostname"
	daneReply = "OK dane-only"
)

// start serves on ln until the test ends, and returns what ends it earlier.
func start(t testing.TB, s *socketmap.Server, ln net.Listener) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func startTCP(t testing.TB, s *socketmap.Server) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	start(t, s, ln)
	return ln.Addr().String()
}

// client speaks to a server and fails the test when it cannot.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { conn.Close() })
	return &client{conn, t, bufio.NewReader(conn)}
}

func frame(s string) string { return strconv.Itoa(len(s)) + ":" + s + "," }

func (c *client) send(raw string) {
	c.t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) want(reply string) {
	c.t.Helper()
	if got, err := readReply(c.r); err != nil || got != reply {
		c.t.Fatalf("got %q, %v, want %q", got, err, reply)
	}
}

func (c *client) ask(request, reply string) {
	c.t.Helper()
	c.send(frame(request))
	c.want(reply)
}

// wantClosed passes when the server closes without a word.
func (c *client) wantClosed() {
	c.t.Helper()
	// A reset is as good as an end of file: the server may leave something unread.
	if b, err := c.r.ReadByte(); err == nil {
		c.t.Fatalf("got %q, want the end", b)
	}
}

// readReply reads a netstring as strictly as Sendmail: no leading zeros, no blanks.
func readReply(r *bufio.Reader) (string, error) {
	head, err := r.ReadString(':')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(head[:len(head)-1])
	if err != nil || strconv.Itoa(n)+":" != head || n > 100_000 {
		return "", fmt.Errorf("bad length %q", head)
	}
	buf := make([]byte, n+1)
	if _, err := io.ReadFull(r, buf); err != nil {
		return "", err
	}
	if buf[n] != ',' {
		return "", errors.New("no comma")
	}
	return string(buf[:n]), nil
}

// ask puts one question to a handler that answers from memory.
func ask(s *socketmap.Server, request string) string {
	reply := string(socketmap.NewHandler(s)(nil, []byte(request)))
	_, content, _ := strings.Cut(reply, ":")
	return strings.TrimSuffix(content, ",")
}

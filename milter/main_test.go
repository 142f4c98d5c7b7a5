package milter_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"postseal/milter"
	"postseal/socketmap/pipetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What Postfix 3.11 and Sendmail 8.17 offer.
const (
	allActions = 0x1ff
	allSteps   = 0x1fffff
)

// Bits of the protocol's steps.
const (
	noBody     = 0x10
	noReplyHdr = 0x80
)

// start serves on ln until the test ends, and returns what ends it earlier.
func start(t testing.TB, s *milter.Server, ln net.Listener) (stop func()) {
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

// connect starts a server and negotiates with it as a mail server of today.
func connect(t testing.TB, s *milter.Server) *mta {
	t.Helper()
	p := pipetest.Listen()
	start(t, s, p)
	m := newMTA(t, p.Dial())
	m.negotiate(6, allActions, allSteps)
	return m
}

// mta is the mail server's side of a connection.
type mta struct {
	net.Conn
	t       testing.TB
	r       *bufio.Reader
	version uint32
	actions uint32
	steps   uint32
	symlist string
}

func newMTA(t testing.TB, conn net.Conn) *mta {
	t.Cleanup(func() { conn.Close() })
	return &mta{Conn: conn, t: t, r: bufio.NewReader(conn)}
}

// frame makes a frame, with NUL behind every argument.
func frame(code byte, args ...string) []byte {
	var data []byte
	for _, a := range args {
		data = append(append(data, a...), 0)
	}
	return rawFrame(code, data)
}

func rawFrame(code byte, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(data)))
	return append(append(b, code), data...)
}

func (m *mta) write(b []byte) {
	m.t.Helper()
	if _, err := m.Write(b); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mta) send(code byte, args ...string) { m.t.Helper(); m.write(frame(code, args...)) }

func (m *mta) read() (code byte, data []byte) {
	m.t.Helper()
	var n uint32
	if err := binary.Read(m.r, binary.BigEndian, &n); err != nil {
		m.t.Fatalf("no answer: %v", err)
	}
	data = make([]byte, n)
	if _, err := io.ReadFull(m.r, data); err != nil {
		m.t.Fatal(err)
	}
	return data[0], data[1:]
}

// wantClosed passes when the milter closes without a word.
func (m *mta) wantClosed() {
	m.t.Helper()
	if b, err := m.r.ReadByte(); err == nil {
		m.t.Fatalf("got %q, want the end", b)
	}
}

func offer(version, actions, steps uint32) []byte {
	data := binary.BigEndian.AppendUint32(nil, version)
	data = binary.BigEndian.AppendUint32(data, actions)
	return rawFrame('O', binary.BigEndian.AppendUint32(data, steps))
}

func (m *mta) negotiate(version, actions, steps uint32) {
	m.t.Helper()
	m.write(offer(version, actions, steps))
	code, data := m.read()
	if code != 'O' || len(data) < 12 {
		m.t.Fatalf("negotiation: %q %q", code, data)
	}
	m.version = binary.BigEndian.Uint32(data)
	m.actions = binary.BigEndian.Uint32(data[4:])
	m.steps = binary.BigEndian.Uint32(data[8:])
	for rest := data[12:]; len(rest) > 0; {
		list, after, _ := bytes.Cut(rest[4:], []byte{0})
		m.symlist += fmt.Sprintf("%d: %s\n", binary.BigEndian.Uint32(rest), list)
		rest = after
	}
}

// silences are the bits of steps that go without a reply, by command.
var silences = map[byte]uint32{'C': 0x1000, 'H': 0x2000, 'M': 0x4000, 'R': 0x8000, 'T': 0x10000, 'U': 0x20000, 'N': 0x40000, 'B': 0x80000, 'L': noReplyHdr}

// skips are the bits of steps that are not sent.
var skips = map[byte]uint32{'C': 0x1, 'H': 0x2, 'M': 0x4, 'R': 0x8, 'B': noBody, 'L': 0x20, 'N': 0x40, 'U': 0x100, 'T': 0x200}

// command sends a command as the agreement has it, and wants it to be continued.
func (m *mta) command(code byte, args ...string) {
	m.t.Helper()
	m.raw(frame(code, args...))
}

func (m *mta) raw(b []byte) {
	m.t.Helper()
	code := b[4]
	if m.steps&skips[code] != 0 {
		return
	}
	m.write(b)
	if m.steps&silences[code] != 0 {
		return
	}
	if got, data := m.read(); got != 'c' {
		m.t.Fatalf("%q: answered %q %q", code, got, data)
	}
}

// macros sends the macros of a command, as names and values.
func (m *mta) macros(code byte, kv ...string) {
	m.t.Helper()
	m.send('D', append([]string{string(code) + kv[0]}, kv[1:]...)...)
}

func (m *mta) connect(host, addr string) {
	m.t.Helper()
	family := "4"
	if strings.Contains(addr, ":") {
		family = "6"
	}
	m.command('C', host, family+"\x10\x92"+addr)
}

// end sends the end of the message, and returns the changes and the verdict.
func (m *mta) end() (changes []string, verdict string) {
	m.t.Helper()
	m.macros('E', "i", "4bT9xY")
	m.send('E')
	for {
		code, data := m.read()
		switch code {
		case 'h', '+', '-', '2', 'e':
			args := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
			if code == 'h' {
				args = []string{strings.Join(args, ": ")}
			}
			changes = append(changes, string(code)+" "+strings.Join(args, " "))
		case 'm':
			args := strings.Split(string(data[4:]), "\x00")
			changes = append(changes, fmt.Sprintf("m %d %s: %s", binary.BigEndian.Uint32(data), args[0], args[1]))
		default:
			return changes, string(code) + strings.TrimRight(" "+string(data), " \x00")
		}
	}
}

// mail is a message as a mail server shows it.
type mail struct {
	from    string // with its parameters; "": <sender@example.org>
	user    string // {auth_authen}
	to      []string
	mailers []string // {rcpt_mailer} of each
	header  []string // fields; what comes first is Subject
	body    string
}

// transact shows a whole message.
func (m *mta) transact(x mail) (changes []string, verdict string) {
	m.t.Helper()
	if x.from == "" {
		x.from = "<sender@example.org>"
	}
	if x.user != "" {
		m.macros('M', "{auth_type}", "PLAIN", "{auth_authen}", x.user)
	}
	m.command('M', strings.Fields(x.from)...)
	if x.to == nil {
		x.to = []string{"<rcpt@example.net>"}
	}
	for i, to := range x.to {
		if i < len(x.mailers) {
			m.macros('R', "{rcpt_mailer}", x.mailers[i])
		}
		m.command('R', strings.Fields(to)...)
	}
	m.command('T')
	for _, f := range append([]string{"Subject: hello"}, x.header...) {
		name, value, _ := strings.Cut(f, ":")
		m.command('L', name, strings.TrimPrefix(value, " "))
	}
	m.command('N')
	m.raw(rawFrame('B', []byte(x.body+"body\r\n")))
	return m.end()
}

// logger collects lines for one test.
type logger struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logger) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logger) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logger) slog() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// panics is a log that breaks over the line that tells of a tag.
type panics struct{ slog.Handler }

func (p panics) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "tagged" {
		panic("no log today")
	}
	return p.Handler.Handle(ctx, r)
}

// parseLine reads a line of testdata: a direction, a command, and its data in the
// escapes of Go.
func parseLine(t testing.TB, line string) []byte {
	t.Helper()
	data := ""
	if len(line) > 4 {
		var err error
		if data, err = strconv.Unquote(`"` + line[4:] + `"`); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return rawFrame(line[2], []byte(data))
}

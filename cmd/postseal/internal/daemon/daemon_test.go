package daemon_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postseal/cmd/postseal/internal/config"
	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/daemon"
	"postseal/policy/dnssec/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const zone = `
example.org. MX 10 mx.example.org.
mx.example.org. A 192.0.2.1
_25._tcp.mx.example.org. TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
`

const patience = 30 * time.Second

// bed is a daemon in this process, with its own folder and resolver.
type bed struct {
	t       *testing.T
	dir     string
	dns     *dnstest.Server
	log     *lines
	signals chan os.Signal
	states  chan string // what the service manager was told
	options daemon.Options

	mu     sync.Mutex
	config config.Config

	ended chan error
}

func newBed(t *testing.T) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "ps") // the path of a unix socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bed{t: t, dir: dir, dns: dnstest.New(t, zone, "example.org"), log: &lines{},
		signals: make(chan os.Signal, 4), states: make(chan string, 1000), ended: make(chan error, 1)}
	c := config.Default()
	c.StateDir = filepath.Join(dir, "state")
	c.DNS.Servers, c.DNS.SelfTest = []string{b.dns.Addr}, false
	c.Socketmap.Listen = config.Listen{"unix:" + dir + "/map.sock"}
	c.Exim.Listen = config.Listen{"unix:" + dir + "/exim.sock"}
	c.Control.Listen = config.Listen{"unix:" + dir + "/control.sock"}
	c.HTTP.Listen = config.Listen{"unix:" + dir + "/http.sock"}
	b.config = *c
	b.options = daemon.Options{Load: b.load, Version: "test", Log: b.log, Signals: b.signals, Notify: func(s string) { b.states <- s }}
	return b
}

func (b *bed) load() (*config.Config, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.config
	return &c, nil
}

// start runs the daemon until it is ready.
func (b *bed) start() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.ended <- daemon.Run(ctx, b.options)
	}()
	b.t.Cleanup(func() { cancel(); <-done })
	b.told("READY=1")
}

// told waits until the service manager is told something that begins so, and
// returns all of it.
func (b *bed) told(prefix string) string {
	b.t.Helper()
	for {
		select {
		case s := <-b.states:
			if strings.HasPrefix(s, prefix) {
				return s
			}
		case err := <-b.ended:
			b.t.Fatalf("the daemon ended: %v\n%s", err, b.log)
		case <-time.After(patience):
			b.t.Fatalf("the service manager is not told %s\n%s", prefix, b.log)
		}
	}
}

// stopped waits for the end of Run.
func (b *bed) stopped() {
	b.t.Helper()
	select {
	case err := <-b.ended:
		if err != nil {
			b.t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		b.t.Fatalf("the daemon does not end\n%s", b.log)
	}
}

func (b *bed) dial(name string) net.Conn {
	b.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func (b *bed) control() *control.Client {
	return &control.Client{Sockets: []string{filepath.Join(b.dir, "control.sock")}}
}

// ask sends a request and returns the function that waits for its reply.
func (b *bed) ask(key string) func() string {
	b.t.Helper()
	conn := b.dial("map.sock")
	request := "postfix " + key
	if _, err := fmt.Fprintf(conn, "%d:%s,", len(request), request); err != nil {
		b.t.Fatal(err)
	}
	return func() string {
		b.t.Helper()
		r := bufio.NewReader(conn)
		length, err := r.ReadString(':')
		if err != nil {
			b.t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, ":"))
		if err != nil {
			b.t.Fatal(err)
		}
		reply := make([]byte, n+1)
		if _, err := io.ReadFull(r, reply); err != nil {
			b.t.Fatal(err)
		}
		return string(reply[:n])
	}
}

// asked waits until the resolver was asked something, by which a request is in flight.
func (b *bed) asked() {
	b.t.Helper()
	for end := time.Now().Add(patience); len(b.dns.Queries()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatal("the resolver is not asked")
		}
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestLife(t *testing.T) {
	b := newBed(t)
	b.start()
	if got := b.ask("example.org")(); got != "OK dane-only" {
		t.Errorf("postfix: %q", got)
	}
	exim := b.dial("exim.sock")
	fmt.Fprintln(exim, "policy example.org")
	if got, err := io.ReadAll(exim); err != nil || !strings.HasPrefix(string(got), "v=1 mode=none") {
		t.Errorf("exim: %q, %v", got, err)
	}
	s, err := b.control().Status(t.Context())
	if err != nil || s.Version != "test" || s.Answers["postfix"]["ok"] != 1 || len(s.Listen) != 4 {
		t.Errorf("status: %+v, %v", s, err)
	}
	b.signals <- syscall.SIGTERM
	b.told("STOPPING=1")
	b.stopped()
	for _, name := range []string{"map.sock", "exim.sock", "control.sock", "http.sock"} {
		if _, err := os.Lstat(filepath.Join(b.dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind: %v", name, err)
		}
	}
}

func TestSocketPermissions(t *testing.T) {
	b := newBed(t)
	// To name its own user and group needs no rights.
	b.config.Socketmap = config.Door{Listen: b.config.Socketmap.Listen, Mode: "0600", Owner: strconv.Itoa(os.Getuid()), Group: strconv.Itoa(os.Getgid())}
	b.config.Exim.Mode = "0666"
	b.start()
	for name, want := range map[string]os.FileMode{"map.sock": 0o600, "exim.sock": 0o666, "control.sock": 0o600, "http.sock": 0o600} {
		info, err := os.Stat(filepath.Join(b.dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	info, err := os.Stat(filepath.Join(b.dir, "state"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("state: %v, %v", info.Mode(), err)
	}
}

// What is remembered outlives a restart, with DNS down.
func TestRestart(t *testing.T) {
	b := newBed(t)
	b.start()
	if got := b.ask("example.org")(); got != "OK dane-only" {
		t.Errorf("got %q", got)
	}
	b.signals <- syscall.SIGTERM
	b.stopped()
	b.dns.Down()
	b.start()
	err := b.control().List(t.Context(), "example.org", func(e control.Entry) error {
		if e.DANE != "full" {
			t.Errorf("remembered: %+v", e)
		}
		return errors.New("seen")
	})
	if err == nil || err.Error() != "seen" {
		t.Errorf("example.org is forgotten: %v", err)
	}
}

func TestDrain(t *testing.T) {
	t.Run("SM-016 requests in flight are answered", func(t *testing.T) {
		b := newBed(t)
		b.start()
		b.dns.Delay(100 * time.Millisecond)
		reply := b.ask("example.org")
		b.asked()
		b.signals <- syscall.SIGTERM
		b.told("STOPPING=1")
		if got := reply(); got != "OK dane-only" {
			t.Errorf("got %q", got)
		}
		b.stopped()
	})
	t.Run("SM-016 a second signal ends the waiting", func(t *testing.T) {
		b := newBed(t)
		b.dns.Fail("*", "*", "TIMEOUT")
		b.start()
		reply := b.ask("example.org")
		b.asked()
		b.signals <- syscall.SIGTERM
		b.told("STOPPING=1")
		b.signals <- syscall.SIGINT
		if got := reply(); !strings.HasPrefix(got, "TEMP ") {
			t.Errorf("got %q", got)
		}
		b.stopped()
		if !strings.Contains(b.log.String(), "stopping at once") {
			t.Error(b.log)
		}
	})
	t.Run("the end of the context stops too", func(t *testing.T) {
		b := newBed(t)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { b.ended <- daemon.Run(ctx, b.options) }()
		b.told("READY=1")
		cancel()
		b.stopped()
	})
}

func TestReload(t *testing.T) {
	b := newBed(t)
	b.start()
	b.mu.Lock()
	b.config.Log.Level, b.config.Host.DANE = "debug", false
	b.mu.Unlock()
	b.signals <- syscall.SIGHUP
	state := b.told("RELOADING=1")
	_, usec, ok := strings.Cut(state, "\nMONOTONIC_USEC=")
	if n, err := strconv.ParseUint(usec, 10, 64); !ok || err != nil || n == 0 {
		t.Errorf("told %q", state)
	}
	b.told("READY=1")

	// The level is in force now; what needs a restart goes on being said.
	r, err := b.control().Reload(t.Context())
	if err != nil || len(r.Changed) > 0 || strings.Join(r.NeedRestart, " ") != "host.dane" {
		t.Errorf("reload: %+v, %v", r, err)
	}

	// Rules that cannot be used are an error, and the old ones stay.
	rules := filepath.Join(b.dir, "state", "overrides.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[[override]]\ndomain = 'example.org'\naction = 'exempt'\n")
	if _, err := b.control().Reload(t.Context()); err != nil {
		t.Error(err)
	}
	write("[[override]]\ndomain = 'example.org'\naction = 'forbid'\n")
	if _, err := b.control().Reload(t.Context()); err == nil || !strings.Contains(err.Error(), rules+":3: override.1.action: ") {
		t.Errorf("got %v", err)
	}
	if got := b.ask("example.org")(); got != "OK may" {
		t.Errorf("got %q", got)
	}
}

func TestWatchdog(t *testing.T) {
	b := newBed(t)
	b.options.Watchdog = 20 * time.Millisecond
	b.start()
	b.told("WATCHDOG=1")
	b.told("WATCHDOG=1")
}

// Sockets of the service manager stand in for the same ones of the configuration,
// stand beside the others with a warning, and are not removed in the end.
func TestInheritedSockets(t *testing.T) {
	for name, unnamed := range map[string]bool{"map.sock": false, "given.sock": true} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.options.Files = []*os.File{b.given(name, "socketmap")}
			b.start()
			for _, socket := range []string{name, "map.sock"} {
				conn := b.dial(socket)
				fmt.Fprint(conn, "12:postfix .org,")
				reply := make([]byte, len("9:NOTFOUND ,"))
				if _, err := io.ReadFull(conn, reply); err != nil || string(reply) != "9:NOTFOUND ," {
					t.Errorf("%s: got %q, %v", socket, reply, err)
				}
			}
			if got := strings.Contains(b.log.String(), "the configuration does not name"); got != unnamed {
				t.Errorf("warned %v, want %v\n%s", got, unnamed, b.log)
			}
			b.signals <- syscall.SIGTERM
			b.stopped()
			if _, err := os.Lstat(filepath.Join(b.dir, name)); err != nil {
				t.Errorf("the socket of the service manager is gone: %v", err)
			}
		})
	}
}

// given is a socket as the service manager hands it over.
func (b *bed) given(path, name string) *os.File {
	b.t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(b.dir, path), Net: "unix"})
	if err != nil {
		b.t.Fatal(err)
	}
	defer ln.Close()
	ln.SetUnlinkOnClose(false)
	f, err := ln.File()
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		b.t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name)
}

func TestStrangeSocket(t *testing.T) {
	b := newBed(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b.options.Files = []*os.File{f}
	if err := daemon.Run(t.Context(), b.options); err == nil || !strings.Contains(err.Error(), "FileDescriptorName must be") {
		t.Errorf("got %v", err)
	}
}

// Whatever fails at the start fails as an error, and leaves nothing behind.
func TestStartFails(t *testing.T) {
	for name, change := range map[string]func(*bed){
		"state_dir":                         func(b *bed) { b.config.StateDir = "/dev/null/x" },
		"owner of":                          func(b *bed) { b.config.Socketmap.Owner = "no-such-user-here" },
		"group of":                          func(b *bed) { b.config.Exim.Group = "no-such-group-here" },
		"sts.ca_file":                       func(b *bed) { b.config.STS.CAFile = "/nonexistent" },
		"socketmap.listen":                  func(b *bed) { b.config.Socketmap.Listen = config.Listen{"unix:/nonexistent/x.sock"} },
		"x.sock: its folder does not exist": func(b *bed) { b.config.HTTP.Listen = config.Listen{"unix:/nonexistent/x.sock"} },
		"http.listen":                       func(b *bed) { b.config.HTTP.Listen = config.Listen{"tcp:192.0.2.1:1"} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			change(b)
			err := daemon.Run(t.Context(), b.options)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
			left, _ := filepath.Glob(filepath.Join(b.dir, "*.sock*"))
			if left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

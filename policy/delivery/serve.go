package delivery

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// Serve takes messages on ln, which it closes, until ctx ends. Then connections
// without a message are closed, and messages in flight get Grace until their work
// is cancelled; it returns when all have been answered. mode is that of all
// messages of this listener. The error is that of a listener closed by somebody else.
func (s *Server) Serve(ctx context.Context, ln net.Listener, mode requiretls.Mode) error {
	s.begin(ln.Addr())
	defer s.end(ln.Addr())
	return s.serve(ctx, ln, mode, s.deliver)
}

func (s *Server) serve(ctx context.Context, ln net.Listener, mode requiretls.Mode,
	deliver func(context.Context, *message) []smtpclient.Reply,
) error {
	defer ln.Close()
	d, err := s.door(ln.Addr(), mode)
	if err != nil {
		return err
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	d.deliver = func(m *message) []smtpclient.Reply { return deliver(work, m) }

	l := &listener{Listener: ln, door: d, open: map[*wire]bool{}}
	srv := d.protocol()
	serving, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		<-serving.Done()
		l.stop()
		grace := time.NewTimer(d.grace)
		defer grace.Stop()
		select {
		case <-grace.C:
			cancel()
		case <-ended:
		}
	})
	err = srv.Serve(l)
	stop() // also if the listener broke by itself
	srv.Shutdown(context.WithoutCancel(ctx))
	close(ended)
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
}

// door is a listener's settings, with the defaults filled in.
type door struct {
	server   *Server
	mode     requiretls.Mode
	hostname string
	log      *slog.Logger
	deliver  func(*message) []smtpclient.Reply
	now      func() time.Time

	tls      *tls.Config // nil: STARTTLS is not offered
	mustTLS  bool
	networks []netip.Prefix // nil: whoever reaches the socket

	maxMessage    int64
	maxMemory     int64
	maxConns      int
	maxRecipients int
	readTimeout   time.Duration
	writeTimeout  time.Duration
	grace         time.Duration
}

// loopback is what may connect over TCP by default (RFC 6890 §2.2.2, RFC 4291 §2.5.3).
func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

func (s *Server) door(addr net.Addr, mode requiretls.Mode) (*door, error) {
	d := &door{
		server: s, mode: mode, hostname: s.Hostname, log: s.Log, now: s.Now,
		maxMessage:    orDefault(s.MaxMessage, defaultMaxMessage),
		maxMemory:     orDefault(s.MaxMemory, defaultMaxMemory),
		maxConns:      orDefault(s.MaxConns, defaultMaxConns),
		maxRecipients: orDefault(s.MaxRecipients, defaultMaxRecipients),
		readTimeout:   orDefault(s.ReadTimeout, defaultReadTimeout),
		writeTimeout:  orDefault(s.WriteTimeout, defaultWriteTimeout),
		grace:         orDefault(s.Grace, defaultGrace),
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.now == nil {
		d.now = time.Now
	}
	if d.hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("name of this host, for replies: %w", err)
		}
		d.hostname = name
	}
	if _, tcp := addr.(*net.TCPAddr); !tcp {
		return d, nil
	}
	d.mustTLS = s.RequireTLS
	if d.networks = s.Networks; d.networks == nil {
		d.networks = loopback()
	}
	if s.NoTLS {
		d.log.Warn("delivery listener without TLS: Postfix 3.11 drops REQUIRETLS when it hands a message over", "listener", addr.String())
		return d, nil
	}
	cert, err := selfSigned(d.hostname, d.now())
	if err != nil {
		return nil, fmt.Errorf("certificate of the listener %s: %w", addr, err)
	}
	d.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	return d, nil
}

// protocol is go-smtp, with everything switched off that a wire does itself.
func (d *door) protocol() *smtp.Server {
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return newSession(c.Conn().(*wire)), nil
	}))
	srv.LMTP = true
	srv.Domain = d.hostname
	srv.MaxRecipients = d.maxRecipients
	// The wire knows the limits of commands and of the message. Lines of text have
	// none: mail servers take longer ones than RFC 5321 §4.5.3.1.6 has, and fold
	// them themselves if need be.
	srv.MaxLineLength, srv.MaxMessageBytes = 0, 0
	srv.ErrorLog = protocolLog{d.log}
	return srv
}

// protocolLog is for what go-smtp has to say: mostly that a client went away.
type protocolLog struct{ log *slog.Logger }

func (l protocolLog) Printf(format string, v ...any) {
	level := slog.LevelDebug
	// It survives a panic, and answers 421. It goes on after a failure to accept,
	// such as too many open files, but meanwhile nobody comes in.
	if strings.HasPrefix(format, "panic") || strings.HasPrefix(format, "accept") {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, "delivery listener: "+fmt.Sprintf(format, v...))
}

func (l protocolLog) Println(v ...any) { l.Printf("%s", fmt.Sprint(v...)) }

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// listener gives go-smtp the connections that may speak, as wires.
type listener struct {
	net.Listener
	door *door

	mu      sync.Mutex
	stopped bool
	open    map[*wire]bool
}

// Accept keeps away who may not speak (RFC 5321 §3.1: 554 in place of the
// greeting), or not now (§3.8: 421).
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !l.door.allowed(conn.RemoteAddr()) {
			l.door.log.Warn("delivery listener refused a connection", "client", conn.RemoteAddr().String())
			refuse(conn, "554 "+l.door.hostname+" takes mail from its own mail server only\r\n")
			continue
		}
		w := newWire(l.door, conn, l.closed)
		if !l.add(w) {
			refuse(conn, "421 "+l.door.hostname+" has too many connections\r\n")
			continue
		}
		return w, nil
	}
}

func (d *door) allowed(peer net.Addr) bool {
	tcp, ok := peer.(*net.TCPAddr)
	if !ok {
		return d.networks == nil
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, p := range d.networks {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

func (l *listener) add(w *wire) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || len(l.open) >= l.door.maxConns {
		return false
	}
	l.open[w] = true
	return true
}

func (l *listener) closed(w *wire) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, w)
}

// stop ends what goes on between messages.
func (l *listener) stop() {
	l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	for w := range l.open {
		w.stop()
	}
}

// refuse says why and closes. The text fits into any socket's buffer, so that
// nobody can hold up the others here.
func refuse(conn net.Conn, text string) {
	conn.SetWriteDeadline(time.Now().Add(time.Second))
	io.WriteString(conn, text)
	conn.Close()
}

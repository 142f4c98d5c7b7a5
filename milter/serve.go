package milter

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	gomilter "github.com/emersion/go-milter"
)

const (
	// defaultConns is far above the process limit of a usual Postfix (100,
	// default_process_limit): one connection is one SMTP session.
	defaultConns = 1024

	// defaultIdle outlives Sendmail's patience with its clients, during which it
	// keeps the milter waiting (an hour, confTO_COMMAND); Postfix has 5 min.
	defaultIdle = 65 * time.Minute

	// defaultFrame and defaultWrite are for a mail server on the same machine.
	defaultFrame, defaultWrite = 30 * time.Second, 60 * time.Second

	// defaultGrace is for messages under way when the context ends.
	defaultGrace = 10 * time.Second

	// Waits between attempts to accept while descriptors or memory lack.
	minPause, maxPause = 5 * time.Millisecond, time.Second

	// warnEvery is how often connections over the limit are logged.
	warnEvery = time.Minute
)

// Serve judges the messages of the mail servers that connect to ln, which it
// closes, until ctx ends and the messages under way are judged or the grace time
// is over. The error is that of a rule, or of a listener closed by somebody else.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	rules, err := compileRules(s.Rules)
	if err != nil {
		ln.Close()
		return err
	}
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := acceptor{ln: ln, log: log, slots: make(chan struct{}, orDefault(s.MaxConns, defaultConns))}
	background, closeConns := context.WithCancel(context.WithoutCancel(ctx))
	defer closeConns()
	defer context.AfterFunc(ctx, func() { ln.Close() })()

	var running sync.WaitGroup
	for {
		conn, err := a.accept(ctx)
		if conn == nil {
			defer time.AfterFunc(orDefault(s.Grace, defaultGrace), closeConns).Stop()
			running.Wait()
			return err
		}
		running.Go(func() {
			defer a.release()
			defer context.AfterFunc(background, func() { conn.Close() })()
			s.converse(ctx, conn, rules, log)
		})
	}
}

// converse runs one connection. go-milter can serve nothing but a listener, has no
// means to stop, and does not wait for its sessions. So each connection gets a
// server of its own, whose listener has that one connection, and its end is known
// by its being closed.
func (s *Server) converse(ctx context.Context, conn net.Conn, rules []rule, log *slog.Logger) {
	w := &wire{
		Conn: conn,
		log:  log,
		limits: limits{
			idle:  orDefault(s.IdleTimeout, defaultIdle),
			frame: defaultFrame,
			write: defaultWrite,
		},
		closed: make(chan struct{}),
	}
	w.session = &session{server: s, rules: rules, log: log, wire: w}
	defer context.AfterFunc(ctx, w.drain)()
	server := gomilter.Server{NewMilter: func() gomilter.Milter { return w.session }}
	server.Serve(&single{conn: w})
	<-w.closed
}

// single is a listener of one connection.
type single struct{ conn net.Conn }

func (l *single) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, io.EOF
	}
	conn := l.conn
	l.conn = nil
	return conn, nil
}

func (l *single) Close() error   { return nil }
func (l *single) Addr() net.Addr { return nil }

// acceptor accepts connections within bounds.
type acceptor struct {
	ln      net.Listener
	log     *slog.Logger
	slots   chan struct{}
	refused int
	warned  time.Time
}

// accept waits for a connection. Without one it is over: by the context, or with
// the error of a closed listener. A connection too many is closed at once, so that
// the mail server need not wait to do what it is set up to do.
func (a *acceptor) accept(ctx context.Context) (net.Conn, error) {
	pause := minPause
	for {
		conn, err := a.ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil, nil
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil: // EMFILE, ENOBUFS, a connection aborted early: all pass
			a.log.Warn("accept", "listener", a.ln.Addr().String(), "error", err, "pause", pause)
			wait(ctx, pause)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		select {
		case a.slots <- struct{}{}:
			return conn, nil
		default:
			conn.Close()
			a.refuse()
		}
	}
}

func (a *acceptor) refuse() {
	a.refused++
	if now := time.Now(); a.warned.IsZero() || now.Sub(a.warned) >= warnEvery {
		a.warned = now
		a.log.Warn("more connections than the limit, the mail server goes without its milter",
			"listener", a.ln.Addr().String(), "limit", cap(a.slots), "refused", a.refused)
	}
}

func (a *acceptor) release() { <-a.slots }

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

package smtpclient

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Session is an open session that satisfies its demand. It is for one goroutine.
type Session struct {
	target   Target
	hostname string
	limits   Limits

	raw  net.Conn // the TCP connection
	conn net.Conn // raw, or TLS over it
	r    *bufio.Reader
	w    *bufio.Writer // to a pieceWriter

	extensions map[string]string
	info       Info
	broken     bool        // nothing can be said any more
	dirty      bool        // a transaction has begun and not ended
	ended      atomic.Bool // the caller's context did, and took the connection along
}

// writeSize is one piece of a message as RFC 5321 §4.5.3.2.5 has it: what is
// written under one time limit. It is the largest TLS record (RFC 8446 §5.1). Twice
// as much is a fifth faster to a host on the same machine, but takes the memory in
// each of hundreds of sessions.
const writeSize = 16 << 10

func (s *Session) attach(conn net.Conn) {
	s.raw = conn
	if tcp, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		s.info.Local = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	s.over(conn)
}

// over goes on over conn, with nothing left of what was read before.
func (s *Session) over(conn net.Conn) {
	s.conn = conn
	s.r = bufio.NewReaderSize(conn, maxLine)
	s.w = bufio.NewWriterSize(pieceWriter{s}, writeSize)
}

// pieceWriter gives each piece its time (RFC 5321 §4.5.3.2.5).
type pieceWriter struct{ s *Session }

func (w pieceWriter) Write(p []byte) (int, error) {
	w.s.raw.SetWriteDeadline(time.Now().Add(w.s.limits.Block))
	return w.s.conn.Write(p)
}

// during closes the connection if ctx ends before done is called.
func (s *Session) during(ctx context.Context) (done func()) {
	stop := context.AfterFunc(ctx, func() {
		s.ended.Store(true)
		s.raw.Close()
	})
	return func() { stop() }
}

// read waits for the reply to something. A 421 is a failure whatever it is the
// reply to: the host closes the connection then (RFC 5321 §3.8).
func (s *Session) read(stage Stage, limit time.Duration, to string) (answer, *Failure) {
	s.raw.SetReadDeadline(time.Now().Add(limit))
	a, err := readReply(s.r)
	if err != nil {
		return a, s.lost(stage, err, limit, waiting(to))
	}
	if a.code == 421 {
		return a, s.refused(stage, a, to)
	}
	return a, nil
}

// connecting is what the greeting is the reply to.
const connecting = "the connection"

func waiting(to string) string {
	if to == connecting {
		return "waiting for the greeting"
	}
	return "waiting for the reply to " + to
}

// command says line and waits for the reply.
func (s *Session) command(stage Stage, limit time.Duration, line, verb string) (answer, *Failure) {
	if f := s.say(stage, line, verb); f != nil {
		return answer{}, f
	}
	if f := s.flush(stage, verb); f != nil {
		return answer{}, f
	}
	return s.read(stage, limit, verb)
}

// flush sends what is in the buffer.
func (s *Session) flush(stage Stage, what string) *Failure {
	if err := s.w.Flush(); err != nil {
		return s.lost(stage, err, s.limits.Block, "sending "+what)
	}
	return nil
}

// say puts a line into the buffer.
func (s *Session) say(stage Stage, line, verb string) *Failure {
	s.w.WriteString(line)
	if _, err := s.w.WriteString("\r\n"); err != nil {
		return s.lost(stage, err, s.limits.Block, "sending "+verb)
	}
	return nil
}

// unexpected is a reply of a class that the command does not have. Who knows what
// the host is talking about.
func (s *Session) unexpected(stage Stage, a answer, to string) *Failure {
	s.broken = true
	r := a.Reply()
	return s.fail(stage, nil, 451, "4.5.0", "protocol error while %s: unexpected reply %d %s", waiting(to), r.Code, r.Text)
}

// Info is what is known of the session.
func (s *Session) Info() Info { return s.info }

// Target is where the session leads, with the demand that it satisfies.
func (s *Session) Target() Target { return s.target }

// Reset ends a transaction that has begun (RSET), or finds out whether the host is
// still there. After an error, always a [*Failure], the session is of no use.
func (s *Session) Reset(ctx context.Context) error {
	done := s.during(ctx)
	defer done()
	if f := s.reset(); f != nil {
		return f
	}
	return nil
}

func (s *Session) reset() *Failure {
	if s.broken || s.ended.Load() {
		return s.fail(StageReset, net.ErrClosed, 451, "4.4.2", "the connection is closed")
	}
	a, f := s.command(StageReset, s.limits.Reset, "RSET", "RSET")
	if f != nil {
		return f
	}
	if a.class() != 2 {
		return s.unexpected(StageReset, a, "RSET")
	}
	s.dirty = false
	return nil
}

// Close says QUIT, does not wait for long, and closes the connection. Of the zero
// Session, which never was open, nothing is to be closed.
func (s *Session) Close() {
	if s.raw == nil {
		return
	}
	defer s.raw.Close()
	if s.broken || s.ended.Load() {
		return
	}
	s.broken = true
	s.raw.SetDeadline(time.Now().Add(s.limits.Quit))
	// Not through the buffer, which may hold what shall not go out any more
	// and would give itself more time.
	if _, err := s.conn.Write([]byte("QUIT\r\n")); err == nil {
		readReply(s.r) // whatever it is (RFC 5321 §4.1.1.10)
	}
}

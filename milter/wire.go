package milter

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	gomilter "github.com/emersion/go-milter"
)

// wire is a connection as go-milter is to see it. go-milter reads whole, checked
// frames from it, and only those that it knows; what it would lose on the way (the
// parameters of MAIL and RCPT, macros of earlier commands), negotiate wrongly or
// end the session for (QUIT_NC) is dealt with here. All but draining happens in the
// one goroutine in which go-milter reads, handles and writes.
type wire struct {
	net.Conn
	limits  limits
	session *session
	log     *slog.Logger

	rest       []byte // of the frame that go-milter is reading
	buf        []byte
	negotiated bool
	broken     bool // nothing can be written any more

	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	busy     bool // within a message
	draining bool // end as soon as it is not busy
}

// limits of time on a connection.
type limits struct {
	idle, frame, write time.Duration
}

// Read gives go-milter the next frame. Everything that ends the connection is an
// end of file to go-milter, which would log anything else on its own.
func (w *wire) Read(p []byte) (int, error) {
	for len(w.rest) == 0 {
		frame, err := w.receive()
		if err != nil {
			w.report(err)
			return 0, io.EOF
		}
		if w.rest, err = w.admit(frame); err != nil {
			w.report(err)
			return 0, io.EOF
		}
	}
	n := copy(p, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wire) report(err error) {
	switch {
	case errors.Is(err, errFrame):
		w.log.Warn("mail server breaks the protocol", "error", err)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
	default:
		w.log.Debug("connection lost", "error", err)
	}
}

// receive waits for a frame.
func (w *wire) receive() ([]byte, error) {
	if cap(w.buf) > keptBuffer {
		w.buf = nil
	}
	if !w.await() {
		return nil, net.ErrClosed
	}
	var head [4]byte
	if _, err := io.ReadFull(w.Conn, head[:]); err != nil {
		return nil, err
	}
	w.SetReadDeadline(time.Now().Add(w.limits.frame))
	frame, err := readFrame(w.Conn, head, w.buf)
	w.buf = frame
	return frame, err
}

// admit deals with what go-milter must not see, and returns the rest for it.
func (w *wire) admit(frame []byte) ([]byte, error) {
	code, data := gomilter.Code(frame[4]), frame[5:]
	if !w.negotiated && code != gomilter.CodeOptNeg {
		return nil, malformed(frame[4], "before the negotiation")
	}
	s := w.session
	switch code {
	case gomilter.CodeOptNeg:
		return nil, w.negotiate(data)
	case gomilter.CodeMacro:
		return nil, s.macros.define(data)
	case gomilter.CodeQuitNewConn:
		s.reset()
		return nil, nil
	case codeUnknown:
		w.send(byte(gomilter.ActContinue), nil)
		return nil, nil
	case gomilter.CodeMail, gomilter.CodeRcpt:
		var err error
		if s.addr, s.params, err = parseEnvelope(frame[4], data); err != nil {
			return nil, err
		}
	case gomilter.CodeHeader:
		if err := checkHeader(frame); err != nil {
			return nil, err
		}
	case gomilter.CodeConn:
		var err error
		if frame, err = checkConnect(frame); err != nil {
			return nil, err
		}
	case gomilter.CodeHelo, gomilter.CodeData, gomilter.CodeEOH, gomilter.CodeBody, gomilter.CodeEOB,
		gomilter.CodeAbort, gomilter.CodeQuit:
	default:
		return nil, malformed(frame[4], "unknown")
	}
	s.macros.arrive(code)
	return frame, nil
}

// negotiate answers the offer in place of go-milter, which says the same whatever
// was offered.
func (w *wire) negotiate(data []byte) error {
	if w.negotiated {
		return malformed(byte(gomilter.CodeOptNeg), "a second negotiation")
	}
	agreed, answer, err := negotiate(w.session.server.Route, data)
	if err != nil {
		// Closed without an answer, the mail server does what it is set up to do
		// without its milter.
		w.log.Error("negotiation with the mail server", "error", err)
		return net.ErrClosed
	}
	w.log.Debug("negotiated", "version", agreed.version, "actions", uint32(agreed.actions), "steps", uint32(agreed.steps))
	w.negotiated, w.session.agreed = true, agreed
	w.send(byte(gomilter.CodeOptNeg), answer)
	return nil
}

// send writes a frame of our own, between those of go-milter.
func (w *wire) send(code byte, data []byte) {
	w.Write(appendFrame(nil, code, data))
}

// Write never fails for go-milter, which would log that on its own: the next Read
// ends the connection.
func (w *wire) Write(p []byte) (int, error) {
	if w.broken {
		return len(p), nil
	}
	w.SetWriteDeadline(time.Now().Add(w.limits.write))
	if _, err := w.Conn.Write(p); err != nil {
		w.log.Debug("connection lost", "error", err)
		w.broken = true
		w.Conn.Close()
	}
	return len(p), nil
}

// Close ends the connection; go-milter calls it last of all.
func (w *wire) Close() error {
	err := w.Conn.Close()
	w.once.Do(func() { close(w.closed) })
	return err
}

// await gets ready to read a frame. It is false when there shall be no more.
func (w *wire) await() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.draining && !w.busy {
		return false
	}
	w.SetReadDeadline(time.Now().Add(w.limits.idle))
	return true
}

// within says whether a message has begun that is not judged yet.
func (w *wire) within(message bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = message
}

// drain ends the connection as soon as no message is under way.
func (w *wire) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.draining = true
	if !w.busy {
		w.SetReadDeadline(time.Unix(1, 0)) // long ago
	}
}

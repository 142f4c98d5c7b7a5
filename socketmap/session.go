package socketmap

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"postseal/policy"
)

const (
	// bufferSize holds any request about a domain, and tens of pipelined ones. It
	// is what an idle connection costs.
	bufferSize = 4 << 10

	// maxUnsent replies are written even if more requests are at hand.
	maxUnsent = 16 << 10

	// maxInFlight requests of one connection; then reading stops. Postfix has one.
	maxInFlight = 64
)

// session is one connection. Its goroutine reads, and answers at once what is
// known. What must be waited for gets a goroutine, and a place in the queue;
// until the queue is empty again, all later answers go through it, in order.
//
// out belongs to the reading goroutine while inFlight is 0, else to who holds mu.
type session struct {
	server *Server
	log    *slog.Logger
	conn   net.Conn

	in      []byte // in[r:] is read, but not yet understood
	r       int
	scratch [256]byte

	readDeadline time.Time // as last set
	partial      bool      // a request has begun

	out           []byte
	writeDeadline time.Time
	broken        atomic.Bool // writing failed

	inFlight atomic.Int32 // length of queue, until what leaves it is written
	mu       sync.Mutex
	changed  *sync.Cond // queue got shorter
	queue    []*pending
	workers  sync.WaitGroup
}

type pending struct {
	question
	done bool
}

func newSession(s *Server, log *slog.Logger, conn net.Conn) *session {
	se := &session{server: s, log: log, conn: conn, in: make([]byte, 0, bufferSize)}
	se.changed = sync.NewCond(&se.mu)
	return se
}

// run serves the connection until the client closes or half-closes it, breaks
// the protocol, or is silent for too long, or ctx ends; then it waits for what is
// in flight. Lookups take work.
func (s *session) run(ctx, work context.Context) {
	defer context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })()
	err := s.serve(ctx, work)
	s.workers.Wait()
	s.flush()
	if err != nil && ctx.Err() == nil && !s.broken.Load() {
		s.server.counters.protocolErrors.Add(1)
		s.log.Debug("connection closed", "client", s.conn.RemoteAddr().String(), "error", err)
	}
}

// serve returns nil when the client has closed between requests, or was idle.
func (s *session) serve(ctx, work context.Context) error {
	for {
		need, err := s.takeFrames(work)
		if err != nil {
			return err
		}
		if s.inFlight.Load() == 0 {
			s.flush()
		}
		if s.broken.Load() {
			return nil
		}
		s.makeRoom(need)
		s.setReadDeadline()
		if ctx.Err() != nil { // checked after the deadline was set, which undoes that of run
			return nil
		}
		n, err := s.conn.Read(s.in[len(s.in):cap(s.in)])
		s.in = s.in[:len(s.in)+n]
		if err == nil || n > 0 {
			continue
		}
		switch {
		case len(s.in) == s.r: // closed, reset or silent between requests
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		}
		return err
	}
}

// takeFrames answers or queues all complete requests in the buffer. need is the
// size that the next one has at least.
func (s *session) takeFrames(work context.Context) (need int, err error) {
	for {
		request, size, need, err := parseFrame(s.in[s.r:])
		if err != nil || size == 0 {
			return need, err
		}
		s.r += size
		s.partial = false
		s.take(work, request)
		if s.broken.Load() {
			return 0, nil
		}
	}
}

func (s *session) take(work context.Context, request []byte) {
	q := s.ask(request)
	if q.wait || s.inFlight.Load() > 0 {
		s.enqueue(work, q)
		return
	}
	s.out = s.answer(s.out, &q)
	if len(s.out) > maxUnsent {
		s.flush()
	}
}

// enqueue waits for a place in the queue, and starts the lookup.
func (s *session) enqueue(work context.Context, q question) {
	if s.inFlight.Load() == 0 {
		s.flush() // the answers before this one need not wait for it
	}
	p := &pending{question: q, done: !q.wait}
	s.mu.Lock()
	for len(s.queue) >= maxInFlight {
		s.changed.Wait()
	}
	s.queue = append(s.queue, p)
	s.inFlight.Add(1)
	if p.done { // the queue may have run empty since
		s.drain()
	}
	s.mu.Unlock()
	if p.done {
		return
	}
	s.workers.Go(func() {
		d := s.decide(work, p.id, p.dest)
		s.mu.Lock()
		defer s.mu.Unlock()
		p.decision, p.done = d, true
		s.drain()
	})
}

func (s *session) decide(work context.Context, id mapID, dest policy.Destination) *policy.Decision {
	ctx, cancel := context.WithTimeout(work, s.server.waitFor(id))
	defer cancel()
	return s.server.Decider.Decide(ctx, dest)
}

// drain writes the answers that are due. mu is held, so that they stay in order;
// nobody waits longer for that than for the client itself.
func (s *session) drain() {
	n := 0
	for n < len(s.queue) && s.queue[n].done {
		s.out = s.answer(s.out, &s.queue[n].question)
		n++
		if len(s.out) > maxUnsent {
			s.flush()
		}
	}
	if n == 0 {
		return
	}
	s.flush()
	clear(s.queue[:n])
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	s.inFlight.Add(int32(-n)) // the last touch: it may hand out over to the reader
	s.changed.Signal()
}

func (s *session) flush() {
	if len(s.out) == 0 {
		return
	}
	if !s.broken.Load() {
		s.setWriteDeadline()
		if _, err := s.conn.Write(s.out); err != nil {
			s.broken.Store(true)
			s.conn.Close() // ends the read
		}
	}
	if s.out = s.out[:0]; cap(s.out) > bufferSize {
		s.out = nil
	}
}

// makeRoom lets the buffer hold need bytes from r on, and gives back what a long
// request took. need is bounded by maxRequest.
func (s *session) makeRoom(need int) {
	rest := len(s.in) - s.r
	switch {
	case need > cap(s.in) || rest == 0 && cap(s.in) > bufferSize:
		in := make([]byte, rest, max(need, bufferSize))
		copy(in, s.in[s.r:])
		s.in, s.r = in, 0
	case s.r > 0 && (rest == 0 || s.r+need > cap(s.in)):
		copy(s.in, s.in[s.r:])
		s.in, s.r = s.in[:rest], 0
	}
}

// setReadDeadline is the idle timeout between requests, and the frame timeout
// from a request's first byte on: who sends byte by byte does not gain by it. As
// setting costs more than answering, the idle one is renewed once an eighth has passed.
func (s *session) setReadDeadline() {
	now := time.Now()
	begun := len(s.in) > s.r
	if begun {
		if s.partial {
			return
		}
		s.partial = true
		s.readDeadline = now.Add(orDefault(s.server.FrameTimeout, 30*time.Second))
		s.conn.SetReadDeadline(s.readDeadline)
		return
	}
	idle := orDefault(s.server.IdleTimeout, 5*time.Minute)
	if left := s.readDeadline.Sub(now); left > idle-idle/8 && left <= idle {
		return
	}
	s.readDeadline = now.Add(idle)
	s.conn.SetReadDeadline(s.readDeadline)
}

// setWriteDeadline leaves a client half of WriteTimeout at least, and is as sparing.
func (s *session) setWriteDeadline() {
	timeout := orDefault(s.server.WriteTimeout, time.Minute)
	now := time.Now()
	if s.writeDeadline.Sub(now) > timeout/2 {
		return
	}
	s.writeDeadline = now.Add(timeout)
	s.conn.SetWriteDeadline(s.writeDeadline)
}

package datagram

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"postseal/reporting"
)

const (
	// maxWaiting holds 20 000 datagrams a second for 10 s, which is more than a host's
	// Postfix makes.
	maxWaiting = 200_000

	// maxWaitingBytes holds that many of the largest usual size, 900 bytes. It is
	// memory only while the consumer stands still.
	maxWaitingBytes = 192 << 20

	// kernelBuffer matters where the kernel counts bytes of the receiver (FreeBSD:
	// net.local.dgram.recvspace is 16 KiB). Linux counts datagrams, and
	// net.unix.max_dgram_qlen was fixed when the socket was made.
	kernelBuffer = 4 << 20

	// lookUp is how often the receiver looks whether it should end.
	lookUp = 100 * time.Millisecond

	// receiveRetry is the pause after an error of the socket itself.
	receiveRetry = 100 * time.Millisecond
)

// Receiver is the receiving end of libtlsrpt (Postfix 3.10 and later). A sender
// never waits: what does not fit into the kernel's queue, 10 datagrams on a Linux that
// nobody has tuned, is lost. So one goroutine does nothing but receive, and
// another does what may take time. Emit must be set; nothing may be changed while Run runs.
type Receiver struct {
	// Emit is called from one goroutine. It may wait for a disk: 200 000 datagrams
	// or 192 MiB of them wait meanwhile, and the rest is counted as lost.
	Emit func(reporting.Session)

	// UIDs are the users who may report; empty is everybody who can write to the
	// socket. Only Linux tells who sent, and not for what came before Run.
	UIDs []uint32

	Log *slog.Logger // nil: none

	MaxWaiting      int // datagrams; 0: 200 000
	MaxWaitingBytes int // 0: 192 MiB

	received, lost, refused, malformed, sessions atomic.Uint64
	queue                                        atomic.Pointer[ring]
}

// Stats counts since the start of the process; only Waiting is a present state.
type Stats struct {
	Received  uint64 // all that came, those below included
	Refused   uint64 // from users who may not
	Lost      uint64 // came while the queue was full
	Malformed uint64 // could not be read, or not in all parts
	Sessions  uint64 // that were emitted
	Waiting   int    // in the queue
}

// Stats may be called at any time.
func (r *Receiver) Stats() Stats {
	st := Stats{
		Received:  r.received.Load(),
		Refused:   r.refused.Load(),
		Lost:      r.lost.Load(),
		Malformed: r.malformed.Load(),
		Sessions:  r.sessions.Load(),
	}
	if q := r.queue.Load(); q != nil {
		st.Waiting = q.waiting()
	}
	return st
}

// Run receives on conn, which it closes, until ctx ends and all that came is emitted.
// The error is that of a socket closed by somebody else, or of UIDs on a system that
// does not tell who sent.
func (r *Receiver) Run(ctx context.Context, conn *net.UnixConn) error {
	defer conn.Close()
	log := r.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if len(r.UIDs) > 0 {
		if err := askCredentials(conn); err != nil {
			return fmt.Errorf("who sends a datagram: %w", err)
		}
	}
	if err := conn.SetReadBuffer(kernelBuffer); err != nil {
		log.Debug("receive buffer", "error", err)
	}
	queue := newRing(orDefault(r.MaxWaiting, maxWaiting), orDefault(r.MaxWaitingBytes, maxWaitingBytes))
	r.queue.Store(queue)

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.consume(queue, log) })
	defer queue.end()
	return r.receive(ctx, conn, queue, log)
}

// receive does nothing but receive, on a thread of its own: each moment that it is
// elsewhere may cost a datagram, and the runtime's poller is a moment away.
func (r *Receiver) receive(ctx context.Context, conn *net.UnixConn, queue *ring, log *slog.Logger) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("socket for datagrams: %w", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var failed error
	err = raw.Control(func(fd uintptr) {
		patience := unix.NsecToTimeval(int64(lookUp))
		failed = errors.Join(unix.SetNonblock(int(fd), false), unix.SetsockoptTimeval(int(fd), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience))
		if failed == nil {
			failed = r.receiveFrom(ctx, int(fd), conn, queue, log)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("socket for datagrams: %w", err)
	}
	return nil
}

// receiveFrom receives until ctx has ended and the kernel holds nothing more, or
// somebody has closed conn.
func (r *Receiver) receiveFrom(ctx context.Context, fd int, conn *net.UnixConn, queue *ring, log *slog.Logger) error {
	buf := make([]byte, maxDatagram+1)
	oob := make([]byte, credentialsSpace)
	for {
		flags := 0
		if ctx.Err() != nil {
			flags = unix.MSG_DONTWAIT
		}
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, flags)
		switch {
		case err == nil:
			r.keep(buf[:n], oob[:oobn], queue)
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			log.Warn("datagram not received", "error", err)
			pause(ctx, receiveRetry)
			if ctx.Err() != nil {
				return nil
			}
		case flags != 0:
			return nil
		default:
			if err := conn.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
		}
	}
}

func (r *Receiver) keep(data, oob []byte, queue *ring) {
	r.received.Add(1)
	if len(r.UIDs) > 0 {
		uid, ok := senderUID(oob)
		if !ok || !slices.Contains(r.UIDs, uid) {
			r.refused.Add(1)
			return
		}
	}
	if len(data) > maxDatagram {
		r.malformed.Add(1) // and cut by the kernel besides
		return
	}
	if !queue.put(received{data: append([]byte(nil), data...), at: time.Now().UTC()}) {
		r.lost.Add(1)
	}
}

// consume turns what waits into sessions. What goes wrong is logged when it begins,
// then at most once a minute: whoever can send a bad datagram can send millions.
func (r *Receiver) consume(queue *ring, log *slog.Logger) {
	var bad, lost throttle
	for {
		datagram, ok := queue.take()
		if !ok {
			return
		}
		if n := r.lost.Load(); n > 0 && lost.due(datagram.at, n) {
			log.Warn("datagrams lost, sessions are not recorded fast enough", "total", n)
		}
		sessions, err := Parse(datagram.data)
		if err != nil {
			n := r.malformed.Add(1)
			if bad.due(datagram.at, n) {
				log.Warn("malformed datagram", "error", err, "total", n)
			}
		}
		for i := range sessions {
			sessions[i].Time = datagram.at
			r.Emit(sessions[i])
			r.sessions.Add(1)
		}
	}
}

// throttle says when a counter that has grown is worth a line again.
type throttle struct {
	at    time.Time
	count uint64
}

func (t *throttle) due(now time.Time, count uint64) bool {
	if count == t.count || !t.at.IsZero() && now.Sub(t.at) < time.Minute {
		return false
	}
	t.at, t.count = now, count
	return true
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func orDefault(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}

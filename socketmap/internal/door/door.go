// Package door is what the socketmap and the Exim door share: they accept
// connections within bounds, end in good order, and let nothing into an answer
// that was not checked.
//
// Clients are local mail servers, and they wait for their answer in silence for
// up to 100 s (socketmap_table(5)). So a connection too many is accepted and
// closed at once: Postfix then tries once more, and defers the mail with a
// reason. Left in the backlog, its request would only look unanswered.
package door

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultConns is many times the default process limit of Postfix (100,
	// default_process_limit), and little memory.
	DefaultConns = 1024

	// DefaultGrace outlives the longest wait for a decision.
	DefaultGrace = 10 * time.Second

	// lastWrite is for what is answered when the grace time is over.
	lastWrite = time.Second

	// Waits between attempts to accept while the system is out of descriptors
	// or memory: short, since mail waits; growing, to leave it the processor.
	minPause, maxPause = 5 * time.Millisecond, time.Second

	// warnEvery is how often connections over the limit are logged.
	warnEvery = time.Minute
)

// Limits of a door. Zero values mean the defaults above.
type Limits struct {
	Conns int           // open at a time
	Grace time.Duration // for requests in flight when ctx ends
}

// Counts of connections, since the start but for Open.
type Counts struct {
	Open     atomic.Int64
	Accepted atomic.Uint64
	Refused  atomic.Uint64 // over the limit
}

// Handler serves one connection and returns when it is done with it; the
// connection is then closed. After ctx has ended it must answer what it has read
// and read nothing more. Lookups take work, which ends with the grace time.
type Handler func(ctx, work context.Context, conn net.Conn)

// Serve accepts connections until ctx ends, lets the requests in flight be
// answered within the grace time, and returns nil when all has ended. The error
// is that of a listener that was closed by somebody else.
func Serve(ctx context.Context, ln net.Listener, limits Limits, counts *Counts, log *slog.Logger, handle Handler) error {
	d := drain{grace: limits.Grace}
	if d.grace <= 0 {
		d.grace = DefaultGrace
	}
	if limits.Conns <= 0 {
		limits.Conns = DefaultConns
	}
	background := context.WithoutCancel(ctx)
	d.work, d.endWork = context.WithCancel(background)
	d.conns, d.closeConns = context.WithCancel(background)
	defer d.closeConns()
	defer d.endWork()
	defer context.AfterFunc(ctx, func() { ln.Close() })()

	slots := make(chan struct{}, limits.Conns)
	pause := minPause
	var warned time.Time
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			d.finish()
			return nil
		case errors.Is(err, net.ErrClosed):
			d.finish()
			return err
		case err != nil: // EMFILE, ENOBUFS, a connection aborted early: all pass
			log.Warn("accept", "listener", ln.Addr().String(), "error", err, "pause", pause)
			wait(ctx, pause)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		select {
		case slots <- struct{}{}:
		default:
			refused := counts.Refused.Add(1)
			conn.Close()
			if now := time.Now(); warned.IsZero() || now.Sub(warned) >= warnEvery {
				warned = now
				log.Warn("more connections than the limit, the mail of those refused waits", "listener", ln.Addr().String(),
					"limit", limits.Conns, "refused", refused)
			}
			continue
		}
		counts.Accepted.Add(1)
		counts.Open.Add(1)
		d.running.Go(func() {
			defer func() {
				conn.Close()
				counts.Open.Add(-1)
				<-slots
			}()
			defer context.AfterFunc(d.conns, func() { conn.Close() })()
			handle(ctx, d.work, conn)
		})
	}
}

// drain ends what runs in three steps: reading (ctx), waiting for decisions
// (work), and at last the connections of clients that do not take their answers.
type drain struct {
	grace      time.Duration
	work       context.Context
	endWork    context.CancelFunc
	conns      context.Context
	closeConns context.CancelFunc
	running    sync.WaitGroup
}

func (d *drain) finish() {
	defer time.AfterFunc(d.grace, d.endWork).Stop()
	defer time.AfterFunc(d.grace+lastWrite, d.closeConns).Stop()
	d.running.Wait()
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

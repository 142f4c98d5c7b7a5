package delivery

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// readOn is how long replies to messages that were sent whole are waited for
// after all listeners have ended.
const readOn = 5 * time.Second

// errEnded is the cause of the end of what must not outlive the listeners.
var errEnded = errors.New("postseal is stopping")

// state is what the engine keeps between messages.
type state struct {
	pool    pool
	dead    dead
	flights flights
	tasks   tasks // what may outlive the call of deliver that started it
	relay   relay

	counters counters

	mu        sync.Mutex
	serving   int        // listeners
	listening []net.Addr // theirs
	hard      context.Context
	cut       context.CancelCauseFunc
	over      bool // the last listener has ended, and hard with it, or soon
}

// begin is called by each Serve when it starts, before any call of deliver.
func (s *Server) begin(addr net.Addr) {
	st := &s.state
	st.mu.Lock()
	defer st.mu.Unlock()
	st.serving++
	st.listening = append(st.listening, addr)
	if st.over || st.hard == nil {
		st.hard, st.cut = context.WithCancelCause(context.Background())
		st.over = false
		st.pool.open(&st.tasks)
	}
}

// lifetime is the context of what reads on after a deadline.
func (st *state) lifetime() context.Context {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.hard
}

// end is called by each Serve when all its calls of deliver have returned. The last
// one waits for the replies to what was sent whole, for a moment, and then for all
// that the engine has started.
func (s *Server) end(addr net.Addr) {
	st := &s.state
	st.mu.Lock()
	if n := slices.Index(st.listening, addr); n >= 0 {
		st.listening = slices.Delete(st.listening, n, n+1)
	}
	if st.serving--; st.serving > 0 {
		st.mu.Unlock()
		return
	}
	cut := st.cut
	st.over = true // whoever begins now begins anew
	st.pool.close()
	st.mu.Unlock()

	timer := time.AfterFunc(readOn, func() { cut(errEnded) })
	st.tasks.wait()
	timer.Stop()
	cut(errEnded)
}

// listens reports whether a listener of ours is at addr.
func (st *state) listens(addr netip.AddrPort) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, l := range st.listening {
		t, ok := l.(*net.TCPAddr)
		if !ok {
			continue
		}
		own := t.AddrPort()
		ip := own.Addr().Unmap()
		switch {
		case own.Port() != addr.Port():
		case ip == addr.Addr().Unmap(), ip.IsUnspecified() && addr.Addr().IsLoopback():
			return true
		}
	}
	return false
}

// tasks counts goroutines. Unlike a WaitGroup it may be added to while it is waited for.
type tasks struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when n falls to 0; nil: nobody waits
}

func (t *tasks) run(f func()) {
	t.mu.Lock()
	t.n++
	t.mu.Unlock()
	go func() {
		defer t.done()
		f()
	}()
}

func (t *tasks) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.none != nil {
		close(t.none)
		t.none = nil
	}
}

// wait returns when nothing runs.
func (t *tasks) wait() {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return
	}
	if t.none == nil {
		t.none = make(chan struct{})
	}
	none := t.none
	t.mu.Unlock()
	<-none
}

// Package pipetest is a listener for tests in which time is not real, and for
// those that need many connections: what Dial opens and Accept takes is a
// [net.Pipe], which testing/synctest understands and which uses up no file
// descriptors. It has no buffer, so that a side that does not read blocks the
// other at once, where TCP would take some more; deadlines work as on TCP.
package pipetest

import (
	"net"
	"os"
	"sync"
	"syscall"
)

// Listener is one that is reached by Dial. Make it inside the bubble of synctest
// that it is used in.
type Listener struct {
	// Exhausted is how many times Accept fails first, as out of file descriptors.
	// Set it before somebody accepts.
	Exhausted int

	conns chan net.Conn
	done  chan struct{}
	close func()
}

// Listen makes a listener. It need not be closed.
func Listen() *Listener {
	l := &Listener{conns: make(chan net.Conn), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.done) })
	return l
}

// Dial waits until the connection is accepted, and returns the client's side.
func (l *Listener) Dial() net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- theirs
	return ours
}

// Accept waits for a Dial. Its error after Close is [net.ErrClosed]; those by
// Exhausted are [syscall.EMFILE] in the form that package net gives them.
func (l *Listener) Accept() (net.Conn, error) {
	if l.Exhausted > 0 {
		l.Exhausted--
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept, and may be called again.
func (l *Listener) Close() error { l.close(); return nil }

// Addr is that of a unix socket without a file.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

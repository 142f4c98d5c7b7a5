package socketmap_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"postseal/socketmap"
)

// BenchmarkHandlerCached is what a question costs whose answer is in memory: from
// the content of the request to the reply as it is written. It must not allocate.
func BenchmarkHandlerCached(b *testing.B) {
	handle := socketmap.NewHandler(&socketmap.Server{Decider: newOracle(b), HostDANE: true})
	for _, request := range []string{"postfix none.example", "postfix dane.example", "postfix Example.COM", "postfix-tlsrpt example.com", "sts example.com", "postfix .example.com"} {
		b.Run(request, func(b *testing.B) {
			b.ReportAllocs()
			in, out := []byte(request), make([]byte, 0, 4096)
			for b.Loop() {
				out = handle(out[:0], in)
			}
		})
	}
}

func TestHandlerAllocatesNothing(t *testing.T) {
	handle := socketmap.NewHandler(&socketmap.Server{Decider: newOracle(t), HostDANE: true})
	out := make([]byte, 0, 4096)
	for _, request := range []string{"postfix none.example", "QUERY dane.example", "postfix Example.COM.", "postfix-tlsrpt example.com", "sts example.com", "transport example.com", "postfix .example.com"} {
		in := []byte(request)
		if n := testing.AllocsPerRun(100, func() { out = handle(out[:0], in) }); n != 0 {
			t.Errorf("SM-026 %s: %v allocations", request, n)
		}
	}
}

// BenchmarkRoundTrip compares the server with one that reads a netstring and
// writes back one of the same size as our reply, and does nothing else. The
// metric echo/ours is the part of that bare server's rate that is reached.
func BenchmarkRoundTrip(b *testing.B) {
	for _, network := range []string{"unix", "tcp"} {
		for _, conns := range []int{1, 64} {
			for _, m := range []string{"postfix", "postfix-tlsrpt"} {
				b.Run(fmt.Sprintf("%s/conns=%d/%s", network, conns, m), func(b *testing.B) {
					compareRoundTrips(b, network, conns, frame(m+" example.com"))
				})
			}
		}
	}
}

func compareRoundTrips(b *testing.B, network string, conns int, request string) {
	listen := func() net.Listener {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(b.TempDir(), "s")
		}
		ln, err := net.Listen(network, address)
		if err != nil {
			b.Fatal(err)
		}
		return ln
	}
	ours := listen()
	start(b, &socketmap.Server{Decider: newOracle(b)}, ours)
	reply := firstReply(b, ours.Addr(), request)
	echo := listen()
	serveEcho(b, echo, reply)

	us, them := newLoad(b, ours.Addr(), conns, request, len(reply)), newLoad(b, echo.Addr(), conns, request, len(reply))
	const batch = 20 // round trips of a connection, in turn, so that both see the same machine
	var took, tookEcho time.Duration
	n := 0
	us.run(batch)
	them.run(batch)
	for b.Loop() {
		tookEcho += them.run(batch)
		took += us.run(batch)
		n += batch * conns
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(n), "ns/answer")
	b.ReportMetric(tookEcho.Seconds()/took.Seconds(), "echo/ours")
	b.ReportMetric(0, "ns/op") // of both together: tells nothing
}

func firstReply(b *testing.B, addr net.Addr, request string) []byte {
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		b.Fatal(err)
	}
	c := newClient(b, conn)
	c.send(request)
	reply, err := readReply(c.r)
	if err != nil {
		b.Fatal(err)
	}
	return []byte(frame(reply))
}

// load is a number of clients that ask one question after the other.
type load struct {
	b       *testing.B
	conns   []net.Conn
	request []byte
	size    int
}

func newLoad(b *testing.B, addr net.Addr, n int, request string, size int) *load {
	l := &load{b: b, request: []byte(request), size: size}
	for range n {
		conn, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		l.conns = append(l.conns, conn)
	}
	return l
}

func (l *load) run(n int) time.Duration {
	begin := time.Now()
	var wg sync.WaitGroup
	for _, conn := range l.conns {
		wg.Go(func() {
			buf := make([]byte, l.size)
			for range n {
				if _, err := conn.Write(l.request); err != nil {
					l.b.Error(err)
					return
				}
				if _, err := io.ReadFull(conn, buf); err != nil {
					l.b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}

func serveEcho(b *testing.B, ln net.Listener, reply []byte) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { echo(conn, reply) })
		}
	})
	b.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
}

func echo(conn net.Conn, reply []byte) {
	defer conn.Close()
	r, w := bufio.NewReader(conn), bufio.NewWriter(conn)
	for {
		head, err := r.ReadSlice(':')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(string(bytes.TrimSuffix(head, []byte(":"))))
		if err != nil {
			return
		}
		if _, err := r.Discard(n + 1); err != nil {
			return
		}
		if _, err := w.Write(reply); err != nil {
			return
		}
		if r.Buffered() > 0 {
			continue
		}
		if err := w.Flush(); err != nil {
			return
		}
	}
}

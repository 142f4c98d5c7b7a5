package delivery

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

// lines is a message of size octets.
func lines(size int) []byte {
	head := "Received: from client.test\r\nSubject: test\r\n\r\n"
	return append([]byte(head), bytes.Repeat([]byte(strings.Repeat("x", 62)+"\r\n"), (size-len(head))/64+1)[:size-len(head)-2]...)
}

// handOver says one message to a listener over a connection of its own, as a mail
// server that does not keep connections does, and returns the last reply.
func handOver(network, addr string, message []byte, id int64) (string, error) {
	conn, err := net.Dial(network, addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	// until sends, and reads up to the last line of the n-th reply from then on.
	until := func(n int, parts ...[]byte) (line string, err error) {
		for _, p := range parts {
			if _, err := conn.Write(p); err != nil {
				return "", err
			}
		}
		for n > 0 {
			if line, err = in.ReadString('\n'); err != nil {
				return "", err
			}
			if len(line) > 3 && line[3] == ' ' {
				n--
			}
		}
		return line, nil
	}
	if _, err := until(2, []byte("LHLO mail.test\r\n")); err != nil {
		return "", err
	}
	text := fmt.Sprintf("XFORWARD IDENT=q%d\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@d.test>\r\nDATA\r\n", id)
	if line, err := until(4, []byte(text)); err != nil || line[0] != '3' {
		return line, err
	}
	line, err := until(1, message, []byte("\r\n.\r\n"))
	if err == nil {
		_, err = until(1, []byte("QUIT\r\n"))
	}
	return line, err
}

// each runs f n times, in as many goroutines as there are workers.
func each(n int64, workers int, f func() error) error {
	var left atomic.Int64
	left.Store(n)
	var wg sync.WaitGroup
	failed := make(chan error, workers)
	for range workers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	return <-failed
}

// BenchmarkHandOff hands messages over by LMTP to a server whose MX host is at
// loopback, a connection for each. The ratio is to the same number of messages
// straight from the same client code to the same host, a session for each.
//
//	go test -run '^$' -bench HandOff ./policy/delivery
func BenchmarkHandOff(b *testing.B) {
	for _, remember := range []bool{false, true} {
		for _, size := range []int{1 << 10, 1 << 20} {
			for _, workers := range []int{1, 16, 64} {
				b.Run(fmt.Sprintf("ledger=%t/%dKiB/%d", remember, size>>10, workers), func(b *testing.B) {
					handOff(b, remember, lines(size), workers)
				})
			}
		}
	}
}

func handOff(b *testing.B, remember bool, message []byte, workers int) {
	bed := newBed(b)
	if !remember {
		bed.Ledger = nil
	}
	host := bed.host("mx.d.test", 11, mxtest.Config{Discard: true})
	bed.mx("d.test", 10, "mx.d.test")
	socket := filepath.Join(b.TempDir(), "lmtp")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	bed.Report, bed.TempDir = nil, b.TempDir()
	run(b, func(ctx context.Context) error { return bed.Serve(ctx, ln, requiretls.Normal) })

	var id atomic.Int64
	over := func() error {
		line, err := handOver("unix", socket, message, id.Add(1))
		if err == nil && line[0] != '2' {
			err = fmt.Errorf("reply %q", line)
		}
		return err
	}
	if err := over(); err != nil { // DNS is asked now, and not again
		b.Fatal(err)
	}
	b.SetBytes(int64(len(message)))
	b.ResetTimer()
	if err := each(int64(b.N), workers, over); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	took := b.Elapsed()
	begun := time.Now()
	if err := each(int64(b.N), workers, func() error { return straight(bed, host, message) }); err != nil {
		b.Fatal(err)
	}
	alone := time.Since(begun)
	b.ReportMetric(float64(alone.Nanoseconds())/float64(b.N), "straight-ns/op")
	b.ReportMetric(float64(took)/float64(alone), "ratio")
}

// straight sends a message over a session of its own.
func straight(bed *bed, host *mxtest.Host, message []byte) error {
	ctx := context.Background()
	s, err := bed.Client.Connect(ctx, smtpclient.Target{Name: host.Name, Addr: host.Addr()})
	if err != nil {
		return err
	}
	defer s.Close()
	e := &smtpclient.Envelope{From: "a@client.test", To: []smtpclient.Recipient{{Addr: "b@d.test"}}}
	r := s.Send(ctx, e, io.MultiReader(bytes.NewReader(message), strings.NewReader("\r\n")), int64(len(message)+2))
	if r.Failure != nil {
		return r.Failure
	}
	return nil
}

// BenchmarkMemory has 200 messages of 10 MiB in flight at once, and reports the
// largest resident size of the process, clients included. In "hold" all messages
// are in before the first is read, and then all are read side by side; in
// "deliver" they go to an MX host, which is in the same process, too. It needs
// 2 GiB of disk.
//
//	go test -run '^$' -bench Memory -benchtime 1x ./policy/delivery
func BenchmarkMemory(b *testing.B) {
	const messages = 200
	b.Run("hold", func(b *testing.B) {
		together := barrier(messages)
		s := &Server{Hostname: "relay.test", TempDir: b.TempDir()}
		inFlight(b, messages, func(ctx context.Context, ln net.Listener) error {
			return s.serve(ctx, ln, requiretls.Normal, func(_ context.Context, m *message) []smtpclient.Reply {
				together()
				n, err := io.Copy(struct{ io.Writer }{io.Discard}, m.content.Open())
				if err != nil || n != m.content.Size() {
					return []smtpclient.Reply{reply(451, "4.3.0", fmt.Sprint(n, err))}
				}
				return []smtpclient.Reply{reply(250, "2.0.0", "ok")}
			})
		})
	})
	b.Run("deliver", func(b *testing.B) {
		bed := newBed(b)
		bed.Report, bed.TempDir = nil, b.TempDir()
		bed.host("mx.d.test", 11, mxtest.Config{Discard: true})
		bed.mx("d.test", 10, "mx.d.test")
		inFlight(b, messages, func(ctx context.Context, ln net.Listener) error {
			return bed.Serve(ctx, ln, requiretls.Normal)
		})
	})
}

// barrier returns a function that returns when it was called n times.
func barrier(n int) func() {
	var mu sync.Mutex
	count, gate := 0, make(chan struct{})
	return func() {
		mu.Lock()
		mine := gate
		if count++; count%n == 0 {
			close(gate)
			gate = make(chan struct{})
		}
		mu.Unlock()
		<-mine
	}
}

// inFlight sends b.N times so many messages side by side, and reports the largest
// resident size.
func inFlight(b *testing.B, messages int, serve func(context.Context, net.Listener) error) {
	const size, limit = 10 << 20, 64 << 20
	ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "lmtp"))
	if err != nil {
		b.Fatal(err)
	}
	run(b, func(ctx context.Context) error { return serve(ctx, ln) })
	stop, highest := make(chan struct{}), make(chan int64)
	go func() {
		peak := int64(0)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-tick.C:
				peak = max(peak, resident())
			case <-stop:
				tick.Stop()
				highest <- peak
				return
			}
		}
	}()
	piece := lines(64 << 10)
	for range b.N {
		var wg sync.WaitGroup
		for i := range messages {
			wg.Go(func() { // every other one says how large it is
				if err := sendPieces(ln.Addr().String(), piece, size/len(piece), i%2*size); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	close(stop)
	peak := <-highest
	b.ReportMetric(float64(peak)/(1<<20), "MiB")
	if peak > limit {
		b.Errorf("%d MiB are resident, the limit is %d MiB", peak>>20, limit>>20)
	}
}

// sendPieces says that the message has size octets, and sends n pieces.
func sendPieces(addr string, piece []byte, n, size int) error {
	conn, err := net.Dial("unix", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "LHLO x\r\nMAIL FROM:<a@client.test> SIZE=%d\r\nRCPT TO:<b@d.test>\r\nDATA\r\n", size)
	for range n {
		if _, err := conn.Write(piece); err != nil {
			return err
		}
	}
	io.WriteString(conn, "\r\n.\r\nQUIT\r\n")
	all, err := io.ReadAll(conn)
	if err == nil && !bytes.Contains(all, []byte("\r\n354 ")) || !bytes.HasSuffix(all, []byte("\r\n221 2.0.0 Bye\r\n")) || bytes.Contains(all, []byte("\r\n4")) {
		err = fmt.Errorf("replies %q", all)
	}
	return err
}

// resident is what the process has in memory, by the system's account where there is one.
func resident() int64 {
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(text)); len(f) > 1 {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n * int64(os.Getpagesize())
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}

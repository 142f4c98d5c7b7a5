package delivery

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
	text := fmt.Sprintf("XFORWARD IDENT=q%d\r\nMAIL FROM:<a@client.test> SIZE=%d\r\nRCPT TO:<b@d.test>\r\nDATA\r\n", id, len(message))
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
// straight from the same client code to the same host, a session for each; the
// work-ratio is that of the processor time of both sides and the host, which is
// what the fallback adds. It reuses sessions where some are idle: with 64 in
// parallel hardly any are, since the pool keeps maxIdlePerHost.
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
	var alone, work, workAlone time.Duration
	for left := int64(b.N); left > 0; { // in turns, so that a busy machine slows both
		n := min(left, int64(max(workers, 16)))
		left -= n
		used := processorTime(b)
		if err := each(n, workers, over); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		begun, between := time.Now(), processorTime(b)
		if err := each(n, workers, func() error { return straight(bed, host, message) }); err != nil {
			b.Fatal(err)
		}
		alone += time.Since(begun)
		work, workAlone = work+between-used, workAlone+processorTime(b)-between
		b.StartTimer()
	}
	b.StopTimer()
	b.ReportMetric(float64(alone)/float64(b.N), "straight-ns/op")
	b.ReportMetric(float64(b.Elapsed())/float64(alone), "ratio")
	b.ReportMetric(float64(work)/float64(workAlone), "work-ratio")
}

// processorTime is what this process has used, of the kernel too.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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

package delivery

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

// inFlight messages are there at once in BenchmarkMemory.
const inFlight = 200

// BenchmarkMemory has 200 messages of 10 MiB in flight at once, and reports the
// largest resident size of the process that takes them. In "hold" all messages are
// in before the first is read, and then all are read side by side; in "deliver"
// they go to an MX host over TLS. It needs 2 GiB of disk, and Linux.
//
//	go test -run '^$' -bench Memory -benchtime 1x ./policy/delivery
func BenchmarkMemory(b *testing.B) {
	if role := os.Getenv("MEMORY_ROLE"); role != "" {
		takeInFlight(b, role)
		return
	}
	for _, role := range []string{"hold", "deliver"} {
		b.Run(role, func(b *testing.B) {
			sink := mxtest.New(b).Host("mx.d.test", "127.0.0.11")
			sink.Set(mxtest.Config{Discard: true})
			for round := range b.N {
				measure(b, fmt.Sprintf("%s%d", role, round), sink.Addr().Port(), role)
			}
		})
	}
}

// measure starts a process that takes messages, and sends them.
func measure(b *testing.B, name string, port uint16, role string) {
	const size, limit = 10 << 20, 64 << 20
	socket := filepath.Join(b.TempDir(), name)
	cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkMemory$", "-test.benchtime=1x")
	cmd.Env = append(os.Environ(), "MEMORY_ROLE="+role, "MEMORY_SOCKET="+socket, fmt.Sprintf("MEMORY_PORT=%d", port))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	said := bufio.NewScanner(stdout)
	for said.Scan() && !strings.HasSuffix(said.Text(), "ready") {
	}

	piece := lines(64 << 10)
	var wg sync.WaitGroup
	for i := range inFlight {
		wg.Go(func() { // every other one says how large it is
			if err := sendPieces(socket, fmt.Sprintf("s%d", i), piece, size/len(piece), i%2*size); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	peak := largest(cmd.Process.Pid)
	stdin.Close() // which ends it
	rest, _ := io.ReadAll(stdout)
	if err := cmd.Wait(); err != nil {
		b.Errorf("%v: %s", err, rest)
	}
	b.ReportMetric(float64(peak)/(1<<20), "MiB")
	if peak == 0 || peak > limit {
		b.Errorf("%d MiB were resident, the limit is %d MiB", peak>>20, limit>>20)
	}
}

// takeInFlight is the process that is measured. It runs until its input ends.
func takeInFlight(b *testing.B, role string) {
	ln, err := net.Listen("unix", os.Getenv("MEMORY_SOCKET"))
	if err != nil {
		b.Fatal(err)
	}
	bed := newBed(b)
	bed.TempDir = b.TempDir()
	serve := bed.Serve
	if role == "hold" {
		together := barrier(inFlight)
		serve = func(ctx context.Context, ln net.Listener, mode requiretls.Mode) error {
			return bed.serve(ctx, ln, mode, func(_ context.Context, m *message) []smtpclient.Reply {
				together()
				n, err := io.Copy(struct{ io.Writer }{io.Discard}, m.content.Open())
				if err != nil || n != m.content.Size() {
					return []smtpclient.Reply{reply(451, "4.3.0", fmt.Sprint(n, err))}
				}
				return []smtpclient.Reply{reply(250, "2.0.0", "ok")}
			})
		}
	}
	port, err := strconv.ParseUint(os.Getenv("MEMORY_PORT"), 10, 16)
	if err != nil {
		b.Fatal(err)
	}
	bed.Port = uint16(port)
	bed.mx("d.test", 10, "mx.d.test")
	bed.publish("mx.d.test. IN A 127.0.0.11")
	run(b, func(ctx context.Context) error { return serve(ctx, ln, requiretls.Normal) })
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// barrier returns a function that returns when it was called n times.
func barrier(n int) func() {
	var all sync.WaitGroup
	all.Add(n)
	return func() {
		all.Done()
		all.Wait()
	}
}

// sendPieces says that the message has size octets, and sends n pieces. Each one
// has its own sender, or the ledger would take it for one sent before.
func sendPieces(addr, from string, piece []byte, n, size int) error {
	conn, err := net.Dial("unix", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "LHLO x\r\nMAIL FROM:<%s@client.test> SIZE=%d\r\nRCPT TO:<b@d.test>\r\nDATA\r\n", from, size)
	for range n {
		if _, err := conn.Write(piece); err != nil {
			return err
		}
	}
	io.WriteString(conn, "\r\n.\r\nQUIT\r\n")
	all, err := io.ReadAll(conn)
	_, after, ok := bytes.Cut(all, []byte("\r\n354 "))
	if err == nil && (!ok || !bytes.Contains(after, []byte("\r\n250 2.0.0 "))) {
		err = fmt.Errorf("replies %q", all)
	}
	return err
}

// largest is the largest resident size that a process had; 0: nobody knows.
func largest(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	if f := strings.Fields(after); len(f) > 1 {
		n, _ := strconv.ParseInt(f[0], 10, 64)
		return n << 10
	}
	return 0
}

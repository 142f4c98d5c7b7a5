package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"postseal/policy/dnssec/dnstest"
	"postseal/policy/mtasts/ststest"
)

var domains = flag.Int("domains", 1000, "domains with an MTA-STS policy in mode enforce")

func TestMain(m *testing.M) {
	if job := os.Getenv(fillVariable); job != "" {
		if err := fill(context.Background(), job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// name spreads the domains over the database as real names are.
func name(i int) string { return fmt.Sprintf("%08x.bench.test", uint32(i)*2654435761) }

// body is a policy of the usual size; each domain has its own.
func body(i int) string {
	return fmt.Sprintf("version: STSv1\r\nmode: enforce\r\nmx: mx1.%[1]s\r\nmx: mx2.%[1]s\r\nmx: *.mail.bench.test\r\nmax_age: 604800\r\n", name(i))
}

// BenchmarkDaemon reports, for -domains domains in mode enforce:
//
//	fill-peak-MiB   most memory of the process that discovered them all
//	warm-MiB        memory of the daemon after it answered for each of them
//	warm-peak-MiB   the most it had until then
//	of-it-mapped-MiB  what of warm-MiB is pages of files, which the kernel may take back
//	B/domain        of warm-MiB, less a daemon without any
//	file-MiB        the database
//	start-ms        from exec to the first answer, median of 15 starts
func BenchmarkDaemon(b *testing.B) {
	bin := filepath.Join(b.TempDir(), "postseal")
	if out, err := exec.Command("go", "build", "-o", bin, "postseal/cmd/postseal").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	dns, web := internet(b, *domains)
	for b.Loop() {
		state := b.TempDir()
		empty := start(b, bin, b.TempDir(), dns.Addr)
		idle := memory(b, empty.pid(), "VmRSS")
		empty.stop()

		peak := runFill(b, fillJob{DNS: dns.Addr, Port: web.Port, CA: web.CA(), DB: filepath.Join(state, "policies.db"), Domains: *domains})
		var took []time.Duration
		for range 15 {
			d := start(b, bin, state, dns.Addr)
			took = append(took, d.took)
			d.stop()
		}
		slices.Sort(took)

		d := start(b, bin, state, dns.Addr)
		d.askAll(*domains)
		warm, high, mapped := memory(b, d.pid(), "VmRSS"), memory(b, d.pid(), "VmHWM"), memory(b, d.pid(), "RssFile")
		d.stop()

		file, err := os.Stat(filepath.Join(state, "policies.db"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(mib(peak), "fill-peak-MiB")
		b.ReportMetric(mib(warm), "warm-MiB")
		b.ReportMetric(mib(high), "warm-peak-MiB")
		b.ReportMetric(mib(mapped), "of-it-mapped-MiB")
		b.ReportMetric(float64(warm-idle)/float64(*domains), "B/domain")
		b.ReportMetric(mib(file.Size()), "file-MiB")
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "start-ms")
	}
}

// internet publishes a policy for n unsigned domains.
func internet(b *testing.B, n int) (*dnstest.Server, *ststest.Server) {
	web := ststest.New(b)
	var zone strings.Builder
	zone.WriteString("mx.bench.test. 86400 IN A 192.0.2.1\n")
	for i := range n {
		fmt.Fprintf(&zone, "%[1]s. 86400 IN MX 10 mx.bench.test.\n_mta-sts.%[1]s. 86400 IN TXT \"v=STSv1; id=20260101T%06[2]d;\"\nmta-sts.%[1]s. 86400 IN A 127.0.0.1\n", name(i), i)
		web.Set(name(i), body(i))
	}
	return dnstest.New(b, zone.String()), web
}

// daemon is a running postseal serve.
type daemon struct {
	b      *testing.B
	cmd    *exec.Cmd
	log    bytes.Buffer
	socket string
	took   time.Duration // from exec to the first answer
}

func start(b *testing.B, bin, state, dns string) *daemon {
	d := &daemon{b: b, socket: filepath.Join(state, "map.sock")}
	conf := filepath.Join(state, "postseal.toml")
	text := fmt.Sprintf("state_dir = %q\n[dns]\nservers = [%q]\nself_test = false\n[socketmap]\nlisten = [%q]\n[http]\nlisten = []\n", state, dns, "unix:"+d.socket)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	d.cmd = exec.Command(bin, "serve", "--config", conf)
	d.cmd.Stderr = &d.log
	begin := time.Now()
	if err := d.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for time.Since(begin) < time.Minute {
		if reply, err := d.ask(name(0)); err == nil && reply != "" {
			d.took = time.Since(begin)
			return d
		}
		time.Sleep(200 * time.Microsecond)
	}
	b.Fatalf("no answer:\n%s", d.log.String())
	return nil
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

func (d *daemon) stop() {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.b.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		d.b.Fatalf("%v\n%s", err, d.log.String())
	}
}

// ask is one lookup on a connection of its own.
func (d *daemon) ask(key string) (string, error) {
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	fmt.Fprintf(c, "%d:postfix %s,", len("postfix ")+len(key), key)
	return readNetstring(bufio.NewReader(c))
}

// askAll asks for n domains, several at a time, and wants "secure" for each.
func (d *daemon) askAll(n int) {
	c, err := net.Dial("unix", d.socket)
	if err != nil {
		d.b.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	const window = 32
	for i := 0; i < n+window; i++ {
		if i < n {
			fmt.Fprintf(c, "%d:postfix %s,", len("postfix ")+len(name(i)), name(i))
		}
		if i < window {
			continue
		}
		reply, err := readNetstring(r)
		if err != nil || !strings.HasPrefix(reply, "OK secure match=mx1."+name(i-window)) {
			d.b.Fatalf("%s: %q, %v", name(i-window), reply, err)
		}
	}
}

func readNetstring(r *bufio.Reader) (string, error) {
	size, err := r.ReadString(':')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(size, ":"))
	if err != nil {
		return "", err
	}
	text := make([]byte, n+1)
	for at := 0; at < len(text); {
		m, err := r.Read(text[at:])
		if err != nil {
			return "", err
		}
		at += m
	}
	return string(text[:n]), nil
}

// runFill discovers all domains in a process of its own and returns the most
// memory that it used, in bytes.
func runFill(b *testing.B, job fillJob) int64 {
	text, err := json.Marshal(job)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fillVariable+"="+string(text), "GOGC=50") // as postseal serve sets it
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	peak, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return peak
}

// memory reads a field of /proc/PID/status, in bytes.
func memory(b *testing.B, pid int, field string) int64 {
	n, err := statusField(pid, field)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

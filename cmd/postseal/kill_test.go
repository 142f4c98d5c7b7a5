package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/cmd/postseal/internal/control"
	"postseal/policy/dnssec/dnstest"
)

const (
	// killVariable says how often the daemon is killed; contrib/interop/full asks
	// for more.
	killVariable = "POSTSEAL_KILLS"
	killRounds   = 20
	killSessions = 100_000

	killDomains = 50
	together    = 16 // smtp processes whose lines are mixed
	pieces      = 10 // of what is written in a round
)

// TestKilled kills the daemon again and again while a log is written and rotated.
// Whatever it was doing, in the end each session counts once.
func TestKilled(t *testing.T) {
	rounds := killCount(t)
	k := newKilled(t)
	lines := k.log(killSessions)

	d := k.start()
	k.says("log does not exist yet") // of what was there it would read nothing
	k.write(lines[0])
	k.await("first.example.test")
	kill(d)
	lines = lines[1:]
	for round := range rounds {
		from, to := len(lines)*round/rounds, len(lines)*(round+1)/rounds
		k.round(round, lines[from:to])
	}
	k.write(session(0, 0, k.at(0), "last.example.test"))
	k.want["last.example.test"] = counts{Success: 1}
	k.start()
	k.await("last.example.test")
	if diff := cmp.Diff(k.want, k.counted()); diff != "" {
		t.Errorf("after %d kills (-want +got):\n%s\n%s", rounds, diff, k.stderr())
	}
	t.Logf("%d kills, %d files", rounds, k.rotations+1)
}

func killCount(t *testing.T) int {
	s := os.Getenv(killVariable)
	if s == "" {
		return killRounds
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number", killVariable, s)
	}
	return n
}

// counts of one domain.
type counts struct{ Success, Failure uint64 }

type killed struct {
	*testing.T
	dir       string
	config    string
	day       time.Time
	random    *rand.Rand
	rotations int
	want      map[string]counts
}

func newKilled(t *testing.T) *killed {
	dir, err := os.MkdirTemp("", "ps")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	k := &killed{T: t, dir: dir, config: filepath.Join(dir, "postseal.toml"), day: time.Now().UTC().Truncate(24 * time.Hour),
		random: rand.New(rand.NewPCG(1, 2)), want: map[string]counts{}}
	text := fmt.Sprintf(`state_dir = %q
dns = { servers = [%q], self_test = false }
socketmap.listen = []
http.listen = []
control.listen = [%q]
[reporting]
probe = false
[[reporting.log]]
path = %q
format = "postfix"
`, dir+"/state", dnstest.New(t, "example.test. A 192.0.2.1\n").Addr, "unix:"+dir+"/control.sock", k.path())
	if err := os.WriteFile(k.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *killed) path() string { return filepath.Join(k.dir, "mail.log") }

func (k *killed) at(n int) time.Time { return k.day.Add(time.Duration(n) * time.Millisecond) }

// log writes down what is to be counted, and returns the lines with their line ends:
// several deliveries at a time, so that most places are in the midst of some.
func (k *killed) log(sessions int) []string {
	lines := []string{session(0, 0, k.at(0), "first.example.test")}
	k.want["first.example.test"] = counts{Success: 1}
	for n := 0; n < sessions; n += together {
		var open [][]string
		for p := range min(together, sessions-n) {
			domain := fmt.Sprintf("d%d.example.test", (n+p)*killDomains/sessions)
			c := k.want[domain]
			text := session(p, n, k.at(n+p), domain)
			if (n+p)%7 == 0 {
				text = failure(p, n, k.at(n+p), domain)
				c.Failure++
			} else {
				c.Success++
			}
			k.want[domain] = c
			open = append(open, strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n"))
		}
		for i := range 3 {
			for _, own := range open {
				if i < len(own) {
					lines = append(lines, strings.TrimSuffix(own[i], "\n")+"\n")
				}
			}
		}
	}
	return lines
}

// session is what Postfix logs of a delivery that succeeds.
func session(process, message int, at time.Time, domain string) string {
	head := fmt.Sprintf("%s mta postfix/smtp[%d]:", at.Format("2006-01-02T15:04:05.000000Z07:00"), 100+process)
	return fmt.Sprintf("%s Trusted TLS connection established to mx.%s[192.0.2.1]:25: TLSv1.3 with cipher TLS_AES_128_GCM_SHA256 (128/128 bits)\n"+
		"%s %X0%X: to=<u@%s>, relay=mx.%s[192.0.2.1]:25, delay=0.07, delays=0/0.02/0.05/0, dsn=2.0.0, status=sent (250 2.0.0 ok)\n",
		head, domain, head, 0xA0000000+message, process, domain, domain)
}

// failure is what it logs of one that is stopped by a certificate.
func failure(process, message int, at time.Time, domain string) string {
	head := fmt.Sprintf("%s mta postfix/smtp[%d]:", at.Format("2006-01-02T15:04:05.000000Z07:00"), 100+process)
	return fmt.Sprintf("%s server certificate verification failed for mx.%s[192.0.2.1]:25: num=62:hostname mismatch\n"+
		"%s Untrusted TLS connection established to mx.%s[192.0.2.1]:25: TLSv1.3 with cipher TLS_AES_128_GCM_SHA256 (128/128 bits)\n"+
		"%s %X0%X: to=<u@%s>, relay=mx.%s[192.0.2.1]:25, delay=0.01, delays=0/0/0/0, dsn=4.7.5, status=deferred (Server certificate not verified)\n",
		head, domain, head, domain, head, 0xA0000000+message, process, domain, domain)
}

// round writes lines in pieces, rotates the log between two of them, and kills the
// daemon at some moment, before or behind that.
func (k *killed) round(round int, lines []string) {
	k.Helper()
	rotateAt, killAt := k.random.IntN(pieces), k.random.IntN(pieces)
	d := k.start()
	deadline := time.Now().Add(time.Duration(k.random.IntN(400)) * time.Millisecond)
	if round%4 == 3 { // long enough to look for more, and to see a rotation
		deadline = time.Now().Add(2200 * time.Millisecond)
	}
	for p := range pieces {
		if p == rotateAt {
			k.rotate(round%2 == 0)
		}
		k.write(strings.Join(lines[len(lines)*p/pieces:len(lines)*(p+1)/pieces], ""))
		if p == killAt {
			time.Sleep(time.Until(deadline))
			kill(d)
		}
		tick()
	}
}

// tick lets a file system with coarse times tell files apart by their age.
func tick() { time.Sleep(10 * time.Millisecond) }

// write appends text to the log, in two steps that cut a line.
func (k *killed) write(text string) {
	k.Helper()
	f, err := os.OpenFile(k.path(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		k.Fatal(err)
	}
	defer f.Close()
	cut := k.random.IntN(len(text))
	for _, part := range []string{text[:cut], text[cut:]} {
		if _, err := io.WriteString(f, part); err != nil {
			k.Fatal(err)
		}
	}
}

// rotate does what logrotate does, by renaming or by copying.
func (k *killed) rotate(rename bool) {
	k.Helper()
	tick()
	k.rotations++
	old := fmt.Sprintf("%s.%d", k.path(), k.rotations)
	if rename {
		if err := os.Rename(k.path(), old); err != nil {
			k.Fatal(err)
		}
		tick()
		return
	}
	text, err := os.ReadFile(k.path())
	if err != nil {
		k.Fatal(err)
	}
	if err := os.WriteFile(old, text, 0o600); err != nil {
		k.Fatal(err)
	}
	if err := os.Truncate(k.path(), 0); err != nil {
		k.Fatal(err)
	}
	tick()
}

// start starts the daemon, which ends with the test.
func (k *killed) start() *exec.Cmd {
	k.Helper()
	log, err := os.OpenFile(filepath.Join(k.dir, "stderr"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		k.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("postseal", "serve", "--config", k.config)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		k.Fatal(err)
	}
	k.Cleanup(func() { kill(cmd) })
	return cmd
}

// kill does not ask, and may be called again.
func kill(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func (k *killed) stderr() string {
	text, _ := os.ReadFile(filepath.Join(k.dir, "stderr"))
	return string(text[max(0, len(text)-4000):])
}

// counted asks the daemon as a person does.
func (k *killed) counted() map[string]counts {
	ctx, cancel := context.WithTimeout(k.Context(), patience)
	defer cancel()
	text, err := exec.CommandContext(ctx, "postseal", "sessions", "--json", "--config", k.config, "--day", k.day.Format(time.DateOnly)).Output()
	if err != nil {
		return nil // it has just been started
	}
	got := map[string]counts{}
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		var s control.Sessions
		if err := dec.Decode(&s); err != nil {
			if err != io.EOF {
				k.Fatal(err)
			}
			return got
		}
		c := got[s.Domain]
		if s.Outcome.Outcome == "success" {
			c.Success += s.Count
		} else {
			c.Failure += s.Count
		}
		got[s.Domain] = c
	}
}

// says waits until the daemon has logged something.
func (k *killed) says(text string) {
	k.Helper()
	for end := time.Now().Add(patience); !strings.Contains(k.stderr(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			k.Fatalf("the daemon does not say %q\n%s", text, k.stderr())
		}
	}
}

// await waits until a session with a domain is counted.
func (k *killed) await(domain string) {
	k.Helper()
	for end := time.Now().Add(2 * patience); k.counted()[domain] == (counts{}); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			k.Fatalf("%s is not counted\n%s", domain, k.stderr())
		}
	}
}

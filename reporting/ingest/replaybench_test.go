//go:build unix

package ingest_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest"
	"postseal/reporting/ingest/maillog/maillogtest"
)

// mixedLog is what a mail server logs: each tenth line is of a TLS session, one more of
// its delivery, the rest is noise. It returns the number of sessions as well.
func mixedLog(lines int) (log []byte, sessions int) {
	var b bytes.Buffer
	rnd := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, time.November, 21, 0, 0, 0, 0, time.UTC)
	for n := 0; n < lines; n += 10 {
		at = at.Add(time.Duration(rnd.IntN(400)) * time.Millisecond)
		put := func(program string, pid int, format string, args ...any) {
			fmt.Fprintf(&b, "%s mta37 %s[%d]: ", at.Format(time.Stamp), program, pid)
			fmt.Fprintf(&b, format, args...)
			b.WriteByte('\n')
		}
		id := fmt.Sprintf("%X", 0x10000000000+rnd.Int64N(0xfffffffff))
		number := int(500 * rnd.ExpFloat64()) // few domains get most of the mail
		domain := fmt.Sprintf("dom%d.example.test", number)
		relay := fmt.Sprintf("mx.%s[198.51.%d.%d]:25", domain, number>>8, number&255)
		client := fmt.Sprintf("unknown[192.0.2.%d]", rnd.IntN(255))
		out := 20000 + rnd.IntN(60)
		put("postfix/postscreen", 811, "CONNECT from [192.0.2.%d]:%d to [198.51.100.1]:25", rnd.IntN(255), 1024+rnd.IntN(60000))
		put("postfix/smtpd", 23414, "connect from %s", client)
		put("dovecot", 700, "imap-login: Login: user=<user%d>, method=PLAIN, rip=192.0.2.7, lip=198.51.100.1, mpid=%d, TLS, session=<aBcDeFgH>", rnd.IntN(900), rnd.IntN(65000))
		put("postfix/smtpd", 23414, "%s: client=%s", id, client)
		put("postfix/cleanup", 23423, "%s: message-id=<%d.%s@client.example.test>", id, rnd.Int64(), id)
		put("postfix/qmgr", 23052, "%s: from=<sender@client.example.test>, size=%d, nrcpt=1 (queue active)", id, rnd.IntN(90000))
		put("postfix/smtpd", 23414, "disconnect from %s ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5", client)
		put("postfix/smtp", out, "Verified TLS connection established to %s: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature RSA-PSS (2048 bits) server-digest SHA256", relay)
		put("postfix/smtp", out, "%s: to=<user%d@%s>, relay=%s, delay=0.61, delays=0.07/0.02/0.31/0.21, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as %X)", id, rnd.IntN(900), domain, relay, rnd.Int64N(0xffffffffff))
		put("postfix/qmgr", 23052, "%s: removed", id)
		sessions++
	}
	return b.Bytes(), sessions
}

// BenchmarkPostfixReplay reads a mixed log of 50 MB from a file, and lets grep count
// in it as the measure: grep-ratio is the speed of the reader by that of grep. Both are
// taken by the processor time of the best run, since neither is alone on the machine.
func BenchmarkPostfixReplay(b *testing.B) {
	log, want := mixedLog(400_000)
	path := filepath.Join(b.TempDir(), "mail.log")
	if err := os.WriteFile(path, log, 0o600); err != nil {
		b.Fatal(err)
	}
	grep := grepTime(b, path)
	lines := bytes.Count(log, []byte{'\n'})
	b.SetBytes(int64(len(log)))
	b.ReportAllocs()
	var best time.Duration
	for b.Loop() {
		start := processorTime(b)
		got := 0
		file, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		r, err := ingest.New("postfix", maillogtest.Options())
		if err != nil {
			b.Fatal(err)
		}
		emit := func(reporting.Session) { got++ }
		if err := ingest.Replay(file, r, emit); err != nil {
			b.Fatal(err)
		}
		r.Flush(emit)
		file.Close()
		if got != want {
			b.Fatalf("%d sessions, want %d", got, want)
		}
		if took := processorTime(b) - start; best == 0 || took < best {
			best = took
		}
	}
	b.ReportMetric(float64(lines)/best.Seconds(), "lines/s")
	b.ReportMetric(float64(len(log))/best.Seconds()/1e6, "best-MB/s")
	if grep > 0 {
		b.ReportMetric(float64(grep)/float64(best), "grep-ratio")
	}
}

// grepTime is the best of five; 0 where there is no grep.
func grepTime(b *testing.B, path string) (best time.Duration) {
	grep, err := exec.LookPath("grep")
	if err != nil {
		return 0
	}
	for range 5 {
		cmd := exec.Command(grep, "-c", "TLS connection", path)
		// The output goes to a pipe: for /dev/null grep would stop at the first line.
		if _, err := cmd.Output(); err != nil {
			b.Fatal(err)
		}
		if took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(); best == 0 || took < best {
			best = took
		}
	}
	return best
}

// processorTime is that of this process so far.
func processorTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

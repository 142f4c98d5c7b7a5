package ingest_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest"
	"postseal/reporting/ingest/maillog"
)

// fakeJournal is journalctl as far as we use it: entry N has the cursor cN.
const fakeJournal = `#!/bin/sh
for arg; do
  case $arg in
    --lines=1) behind=$(($(wc -l <"$0.entries") - 1)) ;;
    --after-cursor=c*) behind=${arg#--after-cursor=c} ;;
  esac
done
echo $$ >"$0.pid"
echo "$@" >>"$0.args"
exec tail -n +$((behind + 1)) -f "$0.entries"
`

// counter is a store that only counts, by domain.
type counter struct {
	mu     sync.Mutex
	counts map[string]uint64
	marks  map[string][]byte
}

func (c *counter) Write(b reporting.Batch) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, counts := range b.Counts {
		for k, n := range counts {
			c.counts[k.Domain] += n
		}
	}
	maps.Copy(c.marks, b.Marks)
	return nil
}

func (c *counter) Mark(name string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.marks[name], nil
}

func (c *counter) of(domain string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[domain]
}

// journalBed is a journal with a reader that can be started again.
type journalBed struct {
	*testing.T
	program string
	store   *counter
	entries int
	journal *ingest.Journal
}

func newJournalBed(t *testing.T) *journalBed {
	b := &journalBed{T: t, program: filepath.Join(t.TempDir(), "journalctl"), store: &counter{counts: map[string]uint64{}, marks: map[string][]byte{}}}
	if err := os.WriteFile(b.program, []byte(fakeJournal), 0o700); err != nil {
		t.Fatal(err)
	}
	return b
}

// start follows the journal until stop is called.
func (b *journalBed) start() (stop func()) {
	b.Helper()
	reader, err := ingest.New("postfix", maillog.Options{})
	if err != nil {
		b.Fatal(err)
	}
	recorder := &reporting.Recorder{Store: b.store}
	b.journal = &ingest.Journal{Command: []string{b.program}, Reader: reader, Source: "postfix", Recorder: recorder, Store: b.store,
		Pause: time.Millisecond, Quiet: 5 * time.Millisecond}
	writing, stopWriting := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(writing)
	var g sync.WaitGroup
	g.Go(func() { recorder.Run(writing) })
	ended := make(chan error, 1)
	go func() { ended <- b.journal.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		stopWriting()
		g.Wait()
	})
	b.Cleanup(stop)
	return stop
}

// add adds entries, and deliver those of one delivery.
func (b *journalBed) add(messages ...string) {
	b.Helper()
	f, err := os.OpenFile(b.program+".entries", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for _, m := range messages {
		b.entries++
		fmt.Fprintf(f, `{"__CURSOR":"c%d","__REALTIME_TIMESTAMP":"1795317829153612","_HOSTNAME":"mta","_PID":"7","SYSLOG_IDENTIFIER":"postfix/smtp","MESSAGE":%s}`+"\n",
			b.entries, strconv.Quote(m))
	}
}

func tlsUp(domain string) string {
	return "Trusted TLS connection established to mx." + domain + "[192.0.2.1]:25: TLSv1.3 with cipher TLS_AES_128_GCM_SHA256 (128/128 bits)"
}

func delivered(domain string) string {
	return "1FA629C04DA: to=<u@" + domain + ">, relay=mx." + domain + "[192.0.2.1]:25, delay=0.07, delays=0/0.02/0.05/0, dsn=2.0.0, status=sent (250 2.0.0 ok)"
}

// until waits for what must come.
func (b *journalBed) until(what string, done func() bool) {
	b.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("%s does not come; counted %v", what, b.store.counts)
		}
	}
}

func (b *journalBed) counted(domain string) {
	b.Helper()
	b.until(domain, func() bool { return b.store.of(domain) == 1 })
}

// running waits until the child that was started with an argument knows where to
// begin, and returns its process id.
func (b *journalBed) running(argument string) int {
	b.Helper()
	b.until(argument, func() bool {
		args, _ := os.ReadFile(b.program + ".args")
		lines := strings.Split(strings.TrimSpace(string(args)), "\n")
		return strings.HasSuffix(lines[len(lines)-1], argument)
	})
	text, _ := os.ReadFile(b.program + ".pid")
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func TestJournal(t *testing.T) {
	b := newJournalBed(t)
	b.add(tlsUp("old.example"), delivered("old.example"))
	stop := b.start()
	b.running("--follow --lines=1")
	b.until("the end of what there is", func() bool { return !b.journal.CaughtUp().IsZero() })
	b.add(tlsUp("a.example"), delivered("a.example"))
	b.counted("a.example")
	b.add(strings.Repeat("x", maillog.MaxLine), "nothing of ours", tlsUp("open.example"), delivered("mark.example"))
	b.add(tlsUp("b.example"), delivered("b.example"))
	b.counted("b.example")
	if s := b.journal.Stats(); s.Lines != 8 || s.Oversize != 1 {
		t.Errorf("stats %+v", s)
	}

	// What is open between two lines survives, and nothing counts twice.
	b.add(tlsUp("d.example"))
	b.until("the line", func() bool { return b.journal.Stats().Lines == 9 })
	stop()
	b.add(delivered("d.example"), tlsUp("e.example"), delivered("e.example"))
	stop = b.start()
	b.counted("e.example")

	// A child that ends is replaced by one that goes on.
	pid := b.running("--after-cursor=c10") // of the second start
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.running("--after-cursor=c14")
	b.add(tlsUp("f.example"), delivered("f.example"))
	b.counted("f.example")
	stop()
	for _, domain := range []string{"a.example", "b.example", "d.example", "e.example", "f.example"} {
		b.counted(domain)
	}
	if n := b.store.of("old.example"); n != 0 {
		t.Errorf("%d sessions from before the first start", n)
	}
}

// What comes between the first start and the first entry that is read must not be lost
// by a second start.
func TestJournalKilledAtOnce(t *testing.T) {
	b := newJournalBed(t)
	b.add(tlsUp("old.example"), delivered("old.example"), tlsUp("open.example"), delivered("last.example"))
	stop := b.start()
	b.until("a mark", func() bool { mark, _ := b.store.Mark("journal"); return mark != nil })
	stop()
	b.add(tlsUp("a.example"), delivered("a.example"))
	b.start()
	b.counted("a.example")
	if len(b.store.counts) != 1 {
		t.Errorf("counted %v", b.store.counts)
	}
}

// A program that is missing, or that fails, is tried again until there is an end.
func TestJournalWithoutProgram(t *testing.T) {
	b := newJournalBed(t)
	if err := os.Remove(b.program); err != nil {
		t.Fatal(err)
	}
	stop := b.start()
	if err := os.WriteFile(b.program, []byte("#!/bin/sh\nhead -c 1000000 /dev/zero >&2\necho fails >>\"$0.args\"\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.running("fails")
	stop()
}

func FuzzJournalCursor(f *testing.F) {
	f.Add([]byte("\x01\x02c1state"))
	f.Add([]byte("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01c"))
	f.Fuzz(func(t *testing.T, mark []byte) {
		store := &counter{marks: map[string][]byte{"journal": mark}}
		reader, err := ingest.New("postfix", maillog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		j := &ingest.Journal{Command: []string{"true"}, Reader: reader, Store: store, Recorder: &reporting.Recorder{Store: store}}
		if err := j.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

package ingest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/ingest/maillog/maillogtest"
)

// mortal is a store that takes nothing any more after a crash.
type mortal struct {
	*counter
	dead atomic.Bool
}

func (m *mortal) Write(b reporting.Batch) error {
	if m.dead.Load() {
		return errors.New("crashed")
	}
	return m.counter.Write(b)
}

// TestOwnAfterCrash: what became of a report is told before the checkpoint is stored, and
// so again after a crash in between; a report that was open then is still known.
func TestOwnAfterCrash(t *testing.T) {
	const (
		postfix   = "Nov 22 03:23:59 mta37 postfix/"
		received  = postfix + "cleanup[23423]: CED959C04A2: message-id=" + maillogtest.OwnID
		up        = postfix + "smtp[23424]: Verified TLS connection established to mx.sts-ok.example.test[127.0.60.101]:25: TLSv1.3 with cipher TLS_AES_128_GCM_SHA256 (128/128 bits)"
		relay     = ", relay=mx.sts-ok.example.test[127.0.60.101]:25, delay=0.05, delays=0/0/0.04/0, "
		deferred  = postfix + "smtp[23424]: CED959C04A2: to=<rua@sts-ok.example.test>" + relay + "dsn=4.2.1, status=deferred (host mx.sts-ok.example.test[127.0.60.101] said: 451 4.2.1 mailbox busy (in reply to RCPT TO command))"
		otherSent = postfix + "smtp[23424]: EA8829C04C2: to=<u1@sts-ok.example.test>" + relay + "dsn=2.0.0, status=sent (250 2.0.0 queued as 6E)"
	)
	store := &mortal{counter: &counter{counts: map[string]uint64{}, marks: map[string][]byte{}}}
	path := filepath.Join(t.TempDir(), "mail.log")
	write := func(lines ...string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(strings.Join(lines, "\n") + "\n"); err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	// run follows the log until done, or until it has crashed at what became of a report.
	run := func(crash bool, done func() bool) (told []maillog.Status) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		store.dead.Store(false)
		recorder := &reporting.Recorder{Store: store}
		f := &ingest.Follower{Path: path, Source: "postfix", Recorder: recorder, Store: store, Whole: true, Poll: time.Millisecond}
		o := maillogtest.Options()
		o.Delivered = func(d maillog.Delivery) {
			told = append(told, d.Status)
			if crash {
				store.dead.Store(true)
				cancel()
			}
		}
		var err error
		if f.Reader, err = ingest.New("postfix", o); err != nil {
			t.Fatal(err)
		}
		var parts sync.WaitGroup
		defer parts.Wait()
		parts.Go(func() {
			if err := recorder.Run(ctx); err != nil && !crash {
				t.Error(err)
			}
		})
		parts.Go(func() {
			defer cancel()
			for ctx.Err() == nil && !done() {
				time.Sleep(time.Millisecond)
			}
		})
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
		return told
	}
	counted := func(n uint64) func() bool {
		return func() bool { return store.of("sts-ok.example.test") == n }
	}
	never := func() bool { return false }

	write(received, up, otherSent)
	run(false, counted(1)) // the checkpoint is behind these lines, and the report is open
	write(up, deferred, up, otherSent)
	if told := run(true, never); len(told) != 1 {
		t.Fatalf("told %q", told)
	}
	t.Run("RPT-077 told again, and not counted", func(t *testing.T) {
		if told := run(false, counted(2)); len(told) != 1 || told[0] != maillog.Deferred {
			t.Errorf("told %q", told)
		}
	})
}

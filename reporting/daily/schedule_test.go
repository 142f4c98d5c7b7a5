package daily_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/send"
)

// A day's reports leave from 00:15 to 04:15, evenly and once each (RFC 8460 §4.1).
func TestSpread(t *testing.T) {
	t.Run("RPT-020", func(t *testing.T) {
		bubble(t, func(b *bed) {
			const n = 400
			day, begin := yesterday(), midnight()
			b.asking(day, names(n)...)
			b.sessions(day, "silent.example", 7)
			b.run(24 * time.Hour)
			quarters := map[int]int{}
			for domain, at := range b.at() {
				if len(at) != 1 {
					t.Errorf("%s: %d reports", domain, len(at))
				}
				since := at[0].Sub(begin) - 15*time.Minute
				if since < 0 || since > 4*time.Hour+time.Minute {
					t.Errorf("%s: sent %v after midnight", domain, at[0].Sub(begin))
				}
				quarters[int(since/time.Hour)]++
			}
			if len(b.at()) != n {
				t.Errorf("%d reports of %d", len(b.at()), n)
			}
			for hour := range 4 {
				if got := quarters[hour]; got < n/8 || got > n/2 {
					t.Errorf("%d reports in hour %d: %v", got, hour, quarters)
				}
			}
			if p := b.state(day, "silent.example"); p.State != daily.NoRecord {
				t.Errorf("without a record: %+v", p)
			}
			if b.lookups["silent.example"] != 1 {
				t.Errorf("%d lookups of a domain without a record", b.lookups["silent.example"])
			}
		})
	})
}

// temporary is what a target says that has trouble.
func temporary(text string) error { return &send.Failure{Target: true, Err: errors.New(text)} }

// Trouble is waited out, ever longer, for a day (RFC 8460 §5.5).
func TestRetry(t *testing.T) {
	t.Run("RPT-081", func(t *testing.T) {
		bubble(t, func(b *bed) {
			day := yesterday()
			b.asking(day, "a.example")
			var tries []time.Time
			b.takes = func(_ context.Context, a arrival) error {
				tries = append(tries, a.at)
				if len(tries) < 5 {
					return temporary("450 4.2.2 mailbox full")
				}
				return nil
			}
			b.run(24 * time.Hour)
			if len(tries) != 5 || len(b.arrived) != 1 {
				t.Fatalf("%d tries, %d arrived", len(tries), len(b.arrived))
			}
			wait := 10 * time.Minute
			for i := 1; i < len(tries); i++ {
				got := tries[i].Sub(tries[i-1])
				if got < wait*3/4 || got > wait*5/4+2*time.Second {
					t.Errorf("try %d: after %v, wanted about %v", i+1, got, wait)
				}
				wait *= 2
			}
			if p := b.state(day, "a.example"); p.State != daily.Sent || p.Tries != 5 || p.Targets[0].Reply != "250 2.0.0 Ok" {
				t.Errorf("%+v", p)
			}
		})
	})
}

func TestGiveUp(t *testing.T) {
	t.Run("RPT-081", func(t *testing.T) {
		bubble(t, func(b *bed) {
			day := yesterday()
			b.asking(day, "a.example", "b.example")
			var tries []time.Time
			b.takes = func(_ context.Context, a arrival) error {
				if a.domain != "a.example" {
					return nil
				}
				tries = append(tries, a.at)
				return temporary("450 4.2.2 mailbox full")
			}
			b.run(40 * time.Hour)
			first, last := tries[0], tries[len(tries)-1]
			if got := last.Sub(first); got < 24*time.Hour || got > 24*time.Hour+time.Minute {
				t.Errorf("tried for %v", got)
			}
			if n := len(tries); n < 8 || n > 16 {
				t.Errorf("%d tries", n)
			}
			if p := b.state(day, "a.example"); p.State != daily.GivenUp || p.Tries != len(tries) {
				t.Errorf("%+v", p)
			}
			if diff := cmp.Diff([]string{"b.example mailto:reports@b.example"}, b.arrivals()); diff != "" {
				t.Error(diff)
			}
			if s := b.Stats(); s.Sent != 1 || s.GaveUp != 1 || s.Failed != uint64(len(tries)) || s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
		})
	})
}

// A restart changes nothing: neither the moments, nor what was sent.
func TestRestart(t *testing.T) {
	at := map[bool]map[string][]time.Time{}
	for _, restarts := range []bool{false, true} {
		bubble(t, func(b *bed) {
			b.asking(yesterday(), names(100)...)
			for range 24 {
				b.run(10*time.Minute + time.Second)
				if restarts {
					b.restart()
				}
			}
			b.run(2 * time.Hour)
			at[restarts] = b.at()
		})
	}
	near := cmp.Comparer(func(a, b time.Time) bool { return a.Sub(b).Abs() < 15*time.Second })
	if diff := cmp.Diff(at[false], at[true], near); diff != "" || len(at[true]) != 100 {
		t.Errorf("%d reports (-without restarts +with):\n%s", len(at[true]), diff)
	}
}

// A lookup that fails is no answer (RFC 8460 §3).
func TestRecordTrouble(t *testing.T) {
	t.Run("RPT-011", func(t *testing.T) {
		bubble(t, func(b *bed) {
			day := yesterday()
			b.asking(day, "a.example", "b.example")
			b.down["a.example"], b.down["b.example"] = true, true
			go func() {
				time.Sleep(12 * time.Hour)
				b.mu.Lock()
				defer b.mu.Unlock()
				b.down["a.example"] = false
			}()
			b.run(40 * time.Hour)
			if diff := cmp.Diff([]string{"a.example mailto:reports@a.example"}, b.arrivals()); diff != "" {
				t.Error(diff)
			}
			if p := b.state(day, "b.example"); p.State != daily.GivenUp || p.Reason != "TLSRPT record of b.example: TXT lookup of _smtp._tls.b.example: timeout" {
				t.Errorf("%+v", p)
			}
		})
	})
}

// Days that were missed are caught up, three of them.
func TestCatchUp(t *testing.T) {
	bubble(t, func(b *bed) {
		for ago := range reporting.Day(6) {
			b.asking(yesterday()-ago, fmt.Sprintf("ago%d.example", ago+1))
		}
		b.run(6 * time.Hour)
		got := map[string]bool{}
		for domain := range b.at() {
			got[domain] = true
		}
		if diff := cmp.Diff([]string{"ago1.example", "ago2.example", "ago3.example"}, sorted(got)); diff != "" {
			t.Error(diff)
		}
		if n := strings.Count(b.log.String(), "reports of a day are missed"); n != 3 { // of the days that are looked at
			t.Errorf("told of %d days", n)
		}
	})
}

// A report that waits while the daemon is down for too long is not lost without a word.
func TestWaitedTooLong(t *testing.T) {
	bubble(t, func(b *bed) {
		b.asking(yesterday(), "a.example")
		b.takes = func(context.Context, arrival) error { return temporary("450") }
		b.run(6 * time.Hour)
		time.Sleep(5 * oneDay)
		b.restart()
		b.run(2 * oneDay)
		if n := strings.Count(b.log.String(), "reports of a day are missed"); n != 1 || b.Stats().Waiting != 0 {
			t.Errorf("told %d times, %+v", n, b.Stats())
		}
	})
}

// refused is what a target says that will not have the report.
func refused(text string) error {
	return &send.Failure{Target: true, Final: true, Err: errors.New(text)}
}

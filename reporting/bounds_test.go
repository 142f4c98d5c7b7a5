package reporting_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postseal/reporting"
	"postseal/reporting/tlsrpt"
)

// A clock that was ahead must not keep the days until then from being reported.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		var ahead atomic.Int64
		ahead.Store(int64(400 * 24 * time.Hour))
		r := &reporting.Recorder{Store: m}
		c := &reporting.Closing{Recorder: r, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
		if err := c.Restore(); err != nil {
			t.Fatal(err)
		}
		stopRecorder := run(t, r)
		done, cancel := start(t, c)
		time.Sleep(25 * time.Hour)
		today := reporting.DayOf(time.Now())
		if !c.Closed(today) {
			t.Fatal("the day before is not closed")
		}
		ahead.Store(0)
		time.Sleep(time.Minute)
		synctest.Wait()
		if c.Closed(today + 1) {
			t.Error("tomorrow is closed")
		}
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if today = reporting.DayOf(time.Now()); !c.Closed(today-1) || c.Closed(today) {
			t.Error("days are not closed any more")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := stopRecorder(); err != nil {
			t.Error(err)
		}
		again := &reporting.Closing{Recorder: r}
		if err := again.Restore(); err != nil || again.Last() != today-1 {
			t.Errorf("after a restart the last day is %s, want %s; %v", again.Last(), today-1, err)
		}
	})
}

// What a stranger claims to be a policy must not fill the memory while the disk stalls.
func TestPoliciesInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{stall: make(chan struct{})}
		r := &reporting.Recorder{Store: m}
		stop := run(t, r)
		r.Record(session("first.example"), "datagram")
		time.Sleep(time.Second) // the write hangs from now on
		text := strings.Repeat("x", 1000)
		list := make([]string, 100)
		for i := range list {
			list[i] = text
		}
		const n = 750 // 75 MB
		for i := range n {
			s := session("a.example")
			list[0] = fmt.Sprint(i)
			s.Policy = reporting.Policy{Type: tlsrpt.STS, Domain: s.Domain, Strings: list}
			r.Record(s, "datagram")
		}
		r.Record(session("b.example"), "datagram")
		if dropped := r.Dropped(); dropped == 0 || dropped >= n/2 {
			t.Errorf("%d of %d dropped", dropped, n)
		}
		close(m.stall)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got, want := m.total(), uint64(2+n)-r.Dropped(); got != want {
			t.Errorf("%d sessions, want %d", got, want)
		}
	})
}

// closer is a store that looks whether anything comes for a day after it was closed.
type closer struct {
	memory
	closed bool
	after  int
}

func (c *closer) Write(b reporting.Batch) error {
	for k := range b.Counts[reporting.DayOf(noon)] {
		if c.closed && k.Standing == reporting.Reported {
			c.after++
		}
	}
	if _, ok := b.Marks["closed"]; ok {
		c.closed = true
	}
	return nil
}

// Sessions that are recorded while a day is being closed are either on disk with the
// mark, or late.
func TestClosingMeetsRecording(t *testing.T) {
	for range 50 {
		var now struct {
			sync.Mutex
			time.Time
		}
		now.Time = noon
		store := &closer{}
		r := &reporting.Recorder{Store: store, Interval: time.Microsecond}
		c := &reporting.Closing{Recorder: r, Now: func() time.Time {
			now.Lock()
			defer now.Unlock()
			return now.Time
		}}
		if err := c.Restore(); err != nil {
			t.Fatal(err)
		}
		r.Closed = c.Closed
		stopRecorder := run(t, r)
		now.Lock()
		now.Time = noon.AddDate(0, 0, 1)
		now.Unlock()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for !c.Closed(reporting.DayOf(noon)) {
					r.Record(session("a.example"), "datagram")
				}
				r.Record(session("a.example"), "datagram")
			})
		}
		done, cancel := start(t, c)
		wg.Wait()
		cancel()
		<-done
		if err := stopRecorder(); err != nil {
			t.Fatal(err)
		}
		if store.after > 0 {
			t.Fatal("counted for a day after it was closed")
		}
	}
}

// A log may say anything about the time, and each day takes room.
func TestDaysToCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		r := &reporting.Recorder{Store: m, Now: func() time.Time { return noon }}
		stop := run(t, r)
		for days, want := range []uint64{0, 0, 1, 1} {
			before := r.Dropped()
			s := session("a.example")
			s.Time = noon.AddDate(0, 0, days)
			r.Record(s, "postfix")
			if got := r.Dropped() - before; got != want {
				t.Errorf("%d days ahead: dropped %d, want %d", days, got, want)
			}
		}
		s := session("a.example")
		s.Time = noon.AddDate(5, 0, 0)
		if err := r.Commit(t.Context(), []reporting.Session{s, session("a.example")}, "postfix", nil); err != nil {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if m.total() != 3 || r.Dropped() != 3 {
			t.Errorf("%d counted, %d dropped", m.total(), r.Dropped())
		}
	})
}

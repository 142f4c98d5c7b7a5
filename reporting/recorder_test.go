package reporting_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"postseal/reporting"
	"postseal/reporting/tlsrpt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a store that can fail, and stall.
type memory struct {
	mu     sync.Mutex
	counts map[reporting.Day]map[reporting.Key]uint64
	marks  map[string][]byte
	writes int
	fail   error
	stall  chan struct{} // nil: it does not
}

func (m *memory) Write(b reporting.Batch) error {
	m.mu.Lock()
	stall := m.stall
	m.mu.Unlock()
	if stall != nil {
		<-stall
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.writes++; m.fail != nil {
		return m.fail
	}
	if m.counts == nil {
		m.counts, m.marks = map[reporting.Day]map[reporting.Key]uint64{}, map[string][]byte{}
	}
	for day, counts := range b.Counts {
		if m.counts[day] == nil {
			m.counts[day] = map[reporting.Key]uint64{}
		}
		for k, n := range counts {
			m.counts[day][k] += n
		}
	}
	maps.Copy(m.marks, b.Marks)
	return nil
}

func (m *memory) Mark(name string) ([]byte, error) { return m.marks[name], nil }

func (m *memory) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) total() (n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, counts := range m.counts {
		for _, c := range counts {
			n += c
		}
	}
	return n
}

// run starts a recorder in the bubble and returns what ends it.
func run(t *testing.T, r *reporting.Recorder) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func session(domain string) reporting.Session {
	return reporting.Session{Time: noon, Domain: domain, MXHost: "mx." + domain, MXIP: netip.MustParseAddr("192.0.2.1")}
}

func TestRecordIsWrittenBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		r := &reporting.Recorder{Store: m}
		stop := run(t, r)
		for range 1000 {
			r.Record(session("a.example"), "datagram")
		}
		synctest.Wait()
		if m.total() != 0 {
			t.Error("written before the interval")
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if m.total() != 1000 || m.writes != 1 {
			t.Errorf("%d sessions in %d writes", m.total(), m.writes)
		}
		r.Record(session("b.example"), "datagram")
		if err := stop(); err != nil || m.total() != 1001 {
			t.Errorf("at the end: %v, %d sessions", err, m.total())
		}
		r.Record(session("c.example"), "datagram")
		if r.Dropped() != 1 || r.Counted() != 1001 {
			t.Errorf("dropped %d, want the one after the end; counted %d", r.Dropped(), r.Counted())
		}
	})
}

func TestCommitWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		r := &reporting.Recorder{Store: m}
		stop := run(t, r)
		start := time.Now()
		r.Record(session("a.example"), "datagram")
		err := r.Commit(t.Context(), []reporting.Session{session("b.example"), session("b.example")}, "postfix", map[string][]byte{"log": []byte("7")})
		if err != nil || m.total() != 3 || string(m.marks["log"]) != "7" {
			t.Errorf("%v, %d sessions, mark %q", err, m.total(), m.marks["log"])
		}
		if took := time.Since(start); took != 0 { // in the bubble
			t.Errorf("the one who waits was kept for %s", took)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if err := r.Commit(t.Context(), nil, "postfix", nil); !errors.Is(err, reporting.ErrEnded) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestFailingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		m.set(errors.New("disk full"))
		r := &reporting.Recorder{Store: m}
		stop := run(t, r)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := r.Commit(ctx, []reporting.Session{session("a.example")}, "postfix", nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while the disk fails: %v", err)
		}
		for i := range 5 {
			r.Record(session(fmt.Sprintf("b%d.example", i)), "datagram")
		}
		m.set(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if m.total() != 6 {
			t.Errorf("when it is well again: %d sessions", m.total())
		}
		m.set(errors.New("disk full"))
		r.Record(session("c.example"), "datagram")
		if err := stop(); err == nil {
			t.Error("what could not be written at the end is not told")
		}
	})
}

// A disk that hangs keeps nobody waiting who records; memory is bounded.
func TestStalledDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{stall: make(chan struct{})}
		r := &reporting.Recorder{Store: m}
		stop := run(t, r)
		r.Record(session("first.example"), "datagram")
		time.Sleep(time.Second) // the write hangs from now on
		const domains, room = 200_500, 200_000
		for i := range domains {
			r.Record(session(fmt.Sprintf("d%d.example", i)), "datagram")
		}
		r.Record(session("d0.example"), "datagram") // one that is known still counts
		if r.Dropped() != domains-room {
			t.Errorf("dropped %d, want %d", r.Dropped(), domains-room)
		}
		close(m.stall)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if want := uint64(1 + room + 1); m.total() != want {
			t.Errorf("%d sessions, want %d", m.total(), want)
		}
	})
}

func TestKeys(t *testing.T) {
	sts := reporting.Policy{Type: tlsrpt.STS, Domain: "A.example", Strings: []string{"version: STSv1", "mode:  enforce"}, MX: []string{"MX.a.example"}}
	tlsa := reporting.Policy{Type: tlsrpt.TLSA, Domain: "mx.a.example", Strings: []string{"_25._tcp.mx.a.example. IN TLSA 3 1 1 ABCD", "2 1 1 ef01"}}
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		r := &reporting.Recorder{Store: m,
			PolicyAt: func(s *reporting.Session) (reporting.Policy, bool) { return sts, s.Domain == "a.example" },
			Closed:   func(d reporting.Day) bool { return d < reporting.DayOf(noon) },
		}
		stop := run(t, r)
		record := func(change func(*reporting.Session)) {
			s := session("a.example")
			change(&s)
			r.Record(s, "test")
		}
		record(func(s *reporting.Session) {})
		record(func(s *reporting.Session) {
			s.Policy = reporting.Policy{Type: tlsrpt.STS, Domain: "a.example", Strings: []string{"version: STSv1 ", "mode: enforce"}, MX: []string{"mx.a.example"}}
		})
		record(func(s *reporting.Session) { s.Policy = tlsa })
		record(func(s *reporting.Session) {
			s.Policy = reporting.Policy{Type: tlsrpt.TLSA, Domain: "mx.a.example", Strings: []string{"2 1 1 EF01", "3 1 1 abcd"}}
		})
		record(func(s *reporting.Session) { s.Domain = "b.example" })
		record(func(s *reporting.Session) { s.Time = noon.AddDate(0, 0, -1) })
		record(func(s *reporting.Session) { s.Unverified = true })
		record(func(s *reporting.Session) { s.MXIP = netip.MustParseAddr("::ffff:192.0.2.1") })
		record(func(s *reporting.Session) {
			s.Result, s.Reason = tlsrpt.ValidationFailure, "ünd\r\n"+strings.Repeat("x", 500)
		})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		today, yesterday := m.counts[reporting.DayOf(noon)], m.counts[reporting.DayOf(noon)-1]
		count := func(name string, day map[reporting.Key]uint64, want uint64, is func(reporting.Key) bool) {
			t.Helper()
			var n uint64
			for k, c := range day {
				if is(k) {
					n += c
				}
			}
			if n != want {
				t.Errorf("%s: %d, want %d in\n%v", name, n, want, day)
			}
		}
		count("one policy by two ways, and an address by two", today, 3, func(k reporting.Key) bool {
			c := sts.Canonical()
			return k.Policy == c.ID() && k.Standing == reporting.Reported && k.Result == ""
		})
		count("one set of records by two ways", today, 2, func(k reporting.Key) bool { c := tlsa.Canonical(); return k.Policy == c.ID() })
		count("no policy is guessed", today, 1, func(k reporting.Key) bool { return k.Domain == "b.example" && k.Policy == reporting.PolicyID{} })
		count("late", yesterday, 1, func(k reporting.Key) bool { return k.Standing == reporting.Late })
		count("unverified", today, 1, func(k reporting.Key) bool { return k.Standing == reporting.Unverified })
		count("bounded", today, 1, func(k reporting.Key) bool {
			return k.Result == tlsrpt.ValidationFailure && len(k.Reason) == 199 && strings.HasPrefix(k.Reason, "?nd??xxx")
		})
	})
}

func TestPolicyChanges(t *testing.T) {
	t.Run("RPT-023 each policy of a day has its own counts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := &memory{}
			r := &reporting.Recorder{Store: m, PolicyAt: func(s *reporting.Session) (reporting.Policy, bool) {
				id := "id: 1"
				if !s.Time.Before(noon) {
					id = "id: 2"
				}
				return reporting.Policy{Type: tlsrpt.STS, Domain: s.Domain, Strings: []string{id}}, true
			}}
			stop := run(t, r)
			for hours := -3; hours < 5; hours++ {
				s := session("a.example")
				s.Time = noon.Add(time.Duration(hours) * time.Hour)
				r.Record(s, "postfix")
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			var got []uint64
			for _, n := range m.counts[reporting.DayOf(noon)] {
				got = append(got, n)
			}
			if slices.Sort(got); !slices.Equal(got, []uint64{3, 5}) {
				t.Errorf("%v, want 3 before and 5 after", got)
			}
		})
	})
}

func TestDay(t *testing.T) {
	for text, want := range map[string]string{
		"2026-11-28T00:00:00Z": "2026-11-28", "2026-11-28T23:59:59.999Z": "2026-11-28", "2026-11-29T00:30:00+01:00": "2026-11-28",
		"1969-12-31T23:59:59Z": "1969-12-31",
	} {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		day := reporting.DayOf(at)
		if day.String() != want {
			t.Errorf("%s: %s, want %s", text, day, want)
		}
		if again, err := reporting.ParseDay(day.String()); err != nil || again != day {
			t.Errorf("%s: read again as %s, %v", day, again, err)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	m := &memory{}
	r := &reporting.Recorder{Store: m}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var list []reporting.Session
	for i := range 10_000 {
		s := session(fmt.Sprintf("d%d.example", i))
		s.Policy = reporting.Policy{Type: tlsrpt.STS, Domain: s.Domain, Strings: []string{"version: STSv1", "mode: enforce", "mx: " + s.MXHost, "max_age: 86400"}, MX: []string{s.MXHost}}
		list = append(list, s)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Record(list[i%len(list)], "datagram")
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sessions/s")
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
	if r.Dropped() > 0 {
		b.Errorf("dropped %d", r.Dropped())
	}
}

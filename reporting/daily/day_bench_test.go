package daily_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"postseal/reporting"
	"postseal/reporting/daily"
	"postseal/reporting/store"
	"postseal/reporting/store/storetest"
	"postseal/reporting/tlsrpt"
)

var benchDomains = flag.Int("domains", 10_000, "domains of BenchmarkDay")

// BenchmarkDay sends the reports of a day: as many domains as -domains says, 25 sessions
// each, 95 % of the domains with one kind of session and the others with tens of kinds of
// failure. A large relay's day has 200 000 domains. In "2%" so many of the domains ask for reports, every other one by
// mail, in "100%" all do. The database is real; DNS, mail and web servers answer at once,
// each domain has its own, and all reports are due when it begins. It reports
//
//	ns/report, ms/day    work for a report that is sent, and for the day, of all goroutines
//	heap-MiB             the most that was seen in use
//	MiB-db               of the database file
//	ms/look              one look through all reports, as every five minutes
//	mails/s              that the host MTA would take on average over the default spread
//
// Mails are not slowed down: the host MTA has no limit here.
//
//	go test -run '^$' -bench Day -benchtime 1x -timeout 30m ./reporting/daily -domains 200000
func BenchmarkDay(b *testing.B) {
	for _, percent := range []int{2, 100} {
		b.Run(fmt.Sprintf("%d%%", percent), func(b *testing.B) {
			for range b.N {
				benchDay(b, percent)
			}
		})
	}
}

func benchDay(b *testing.B, percent int) {
	b.StopTimer()
	path := filepath.Join(b.TempDir(), "sessions.db")
	day := reporting.DayOf(time.Now()) - 1
	s := storetest.Open(b, path)
	fillDay(b, s, day)
	w := &fastWorld{percent: percent}
	r := &daily.Reporter{
		Store: s, Closed: func(d reporting.Day) bool { return d <= day }, Record: w.record, Mail: fastMail{w}, HTTPS: w,
		Organization: "Example", Contact: "tlsrpt@sender.example", Spread: time.Nanosecond, MailRate: 1e9,
		Now: func() time.Time { return time.Now().Add(24 * time.Hour) }, // all are due
		Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	stop, peak := make(chan struct{}), make(chan uint64)
	debug.FreeOSMemory() // nothing of the set-up is to be counted
	go func() { peak <- heapPeak(stop) }()
	b.StartTimer()
	start := time.Now()
	go func() { done <- r.Run(ctx) }()
	want := uint64(*benchDomains * percent / 100)
	for seen := uint64(0); seen < uint64(*benchDomains); seen = w.lookups.Load() {
		time.Sleep(10 * time.Millisecond)
	}
	for r.Stats().Sent < want {
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(start)
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	close(stop)
	heap := <-peak
	look := time.Now()
	if err := r.Plan(context.Background(), day); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(time.Since(look).Microseconds())/1000, "ms/look")
	open := 0
	if err := r.Each(day, func(_ store.Subject, p daily.Progress, _ time.Time) bool {
		if !p.Done() {
			open++
		}
		return true
	}); err != nil {
		b.Fatal(err)
	}
	if open > 0 {
		b.Errorf("%d reports are not done with", open)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took.Nanoseconds())/float64(want), "ns/report")
	b.ReportMetric(float64(took.Milliseconds()), "ms/day")
	b.ReportMetric(float64(heap)/(1<<20), "heap-MiB")
	b.ReportMetric(float64(info.Size())/(1<<20), "MiB-db")
	b.ReportMetric(float64(w.mails.Load())/(4*time.Hour).Seconds(), "mails/s")
	b.ReportMetric(float64(w.bytes.Load())/float64(want), "B/report")
}

// heapPeak is the most heap in use until stop.
func heapPeak(stop <-chan struct{}) (peak uint64) {
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-stop:
			tick.Stop()
			return peak
		case <-tick.C:
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
	}
}

// fillDay counts the sessions of a day.
func fillDay(b *testing.B, s *store.Store, day reporting.Day) {
	random := rand.New(rand.NewPCG(1, 2))
	const perBatch = 20_000
	for from := 0; from < *benchDomains; from += perBatch {
		batch := reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{day: {}}, Policies: map[reporting.PolicyID]reporting.Policy{}}
		for i := from; i < min(from+perBatch, *benchDomains); i++ {
			domain := benchDomain(i)
			p := reporting.Policy{Type: tlsrpt.NoPolicy, Domain: domain}
			if i%10 == 0 {
				p = reporting.Policy{Type: tlsrpt.STS, Domain: domain, MX: []string{"mx." + domain},
					Strings: []string{"version: STSv1", "mode: enforce", "mx: mx." + domain, "max_age: 604800"}}
			}
			id := p.ID()
			batch.Policies[id] = p
			k := reporting.Key{Domain: domain, Policy: id, Source: "postfix", MXHost: "mx." + domain,
				SendingIP: netip.AddrFrom4([4]byte{192, 0, 2, 1}), MXIP: netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})}
			batch.Counts[day][k] = 25
			if i%20 != 0 {
				continue
			}
			for n := range 10 + random.IntN(80) {
				k.Result, k.Reason = tlsrpt.CertificateNotTrusted, fmt.Sprintf("self-signed certificate %d", n%4)
				k.MXIP = netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
				batch.Counts[day][k] = 1
			}
		}
		if err := s.Write(batch); err != nil {
			b.Fatal(err)
		}
	}
}

func benchDomain(i int) string { return fmt.Sprintf("customer-%d.example.org", i) }

// fastWorld answers at once.
type fastWorld struct {
	percent               int
	lookups, mails, bytes atomic.Uint64
}

func (w *fastWorld) record(_ context.Context, domain string) (tlsrpt.Record, error) {
	var i int
	fmt.Sscanf(domain, "customer-%d", &i)
	w.lookups.Add(1)
	switch {
	case i%100 >= w.percent:
		return tlsrpt.Record{}, tlsrpt.ErrNoRecord
	case i%2 == 0:
		return tlsrpt.ParseRecord([]string{"v=TLSRPTv1; rua=mailto:reports@" + domain})
	}
	return tlsrpt.ParseRecord([]string{"v=TLSRPTv1; rua=https://" + domain + "/"})
}

func (w *fastWorld) Write(p []byte) (int, error) {
	w.bytes.Add(uint64(len(p)))
	return len(p), nil
}

func (w *fastWorld) Send(_ context.Context, _ string, r *tlsrpt.Report) (string, error) {
	return "201 Created", r.EncodeGzip(w)
}

type fastMail struct{ *fastWorld }

func (m fastMail) MessageID(r *tlsrpt.Report, to string) string {
	return (&tlsrpt.Message{Report: r, From: "tlsrpt@sender.example", To: to}).MessageID()
}

func (m fastMail) Message(r *tlsrpt.Report, domain, to string, date time.Time) ([]byte, error) {
	m.mails.Add(1)
	msg := tlsrpt.Message{Report: r, Domain: domain, From: "tlsrpt@sender.example", To: to, Date: date}
	return nil, msg.Encode(io.MultiWriter(m.fastWorld))
}

func (m fastMail) Send(context.Context, []byte, string) (string, error) { return "250 Ok", nil }

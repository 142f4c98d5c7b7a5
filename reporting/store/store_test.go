package store_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"postseal/reporting"
	"postseal/reporting/store"
	"postseal/reporting/store/storetest"
	"postseal/reporting/tlsrpt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const today = reporting.Day(20785) // 2026-11-28

var sts = reporting.Policy{Type: tlsrpt.STS, Domain: "a.example", Strings: []string{"version: STSv1"}, MX: []string{"mx.a.example"}}

func key(domain string) reporting.Key {
	return reporting.Key{Domain: domain, Source: "postfix", MXHost: "mx." + domain, MXHelo: "helo." + domain, Result: tlsrpt.CertificateExpired,
		Reason: "certificate has expired", SendingIP: netip.MustParseAddr("2001:db8::1"), MXIP: netip.MustParseAddr("192.0.2.1")}
}

func write(t testing.TB, s *store.Store, counts map[reporting.Key]uint64) {
	t.Helper()
	if err := s.Write(reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{today: counts}, Policies: map[reporting.PolicyID]reporting.Policy{sts.ID(): sts}}); err != nil {
		t.Fatal(err)
	}
}

// all reads a day.
func all(t testing.TB, s *store.Store, domain string) (map[reporting.Key]uint64, map[reporting.Key]reporting.Policy) {
	t.Helper()
	counts, policies := map[reporting.Key]uint64{}, map[reporting.Key]reporting.Policy{}
	if err := s.Each(today, domain, func(k reporting.Key, p reporting.Policy, n uint64) bool {
		counts[k], policies[k] = n, p
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return counts, policies
}

func TestCountsAddUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := storetest.Open(t, path)
	withPolicy, plain := key("a.example"), key("ab.example")
	withPolicy.Policy, withPolicy.Standing = sts.ID(), reporting.Unverified
	write(t, s, map[reporting.Key]uint64{withPolicy: 2, plain: 1})
	write(t, s, map[reporting.Key]uint64{withPolicy: 3})
	s.DB.Close()

	s = storetest.Open(t, path)
	counts, policies := all(t, s, "")
	if diff := cmp.Diff(map[reporting.Key]uint64{withPolicy: 5, plain: 1}, counts, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(sts, policies[withPolicy]); diff != "" {
		t.Errorf("policy (-want +got):\n%s", diff)
	}
	if counts, _ := all(t, s, "a.example"); len(counts) != 1 || counts[withPolicy] != 5 {
		t.Errorf("one domain: %v", counts)
	}
	if counts, _ := all(t, s, "a.exampl"); len(counts) != 0 {
		t.Errorf("the beginning of a domain: %v", counts)
	}
	if totals, err := s.Totals(today); err != nil || totals != (store.Totals{Domains: 2}) {
		t.Errorf("%+v, %v", totals, err)
	}
}

func TestMarks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := storetest.Open(t, path)
	put := func(marks map[string][]byte) {
		t.Helper()
		if err := s.Write(reporting.Batch{Marks: marks}); err != nil {
			t.Fatal(err)
		}
	}
	put(map[string][]byte{"log": []byte("1"), "other": []byte("2")})
	put(map[string][]byte{"log": []byte("3"), "other": nil})
	s.DB.Close()
	s = storetest.Open(t, path)
	for name, want := range map[string]string{"log": "3", "other": "", "never": ""} {
		if got, err := s.Mark(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestDays(t *testing.T) {
	s := storetest.Open(t, filepath.Join(t.TempDir(), "sessions.db"))
	counts := map[reporting.Key]uint64{key("a.example"): 1}
	for _, d := range []reporting.Day{today, today - 2, today - 1} {
		if err := s.Write(reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{d: counts}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Drop(today - 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(today - 7); err != nil {
		t.Errorf("a day of which nothing is known: %v", err)
	}
	days, err := s.Days()
	if err != nil || !slices.Equal(days, []reporting.Day{today - 2, today}) {
		t.Errorf("%v, %v", days, err)
	}
}

// Strangers can multiply outcomes, so they are bounded; the counts stay exact.
func TestBounds(t *testing.T) {
	s := storetest.Open(t, filepath.Join(t.TempDir(), "sessions.db"))
	s.MaxDetails, s.MaxDomains = 3, 2
	for i := range 10 {
		k := key("a.example")
		k.Reason = fmt.Sprint("reason ", i)
		write(t, s, map[reporting.Key]uint64{k: 1})
		write(t, s, map[reporting.Key]uint64{k: 1}) // those that are there still count as they are
	}
	counts, _ := all(t, s, "a.example")
	bare := reporting.Key{Domain: "a.example", Source: "postfix", Result: tlsrpt.CertificateExpired}
	if len(counts) != 4 || counts[bare] != 14 {
		t.Errorf("%d outcomes, %d without details: %v", len(counts), counts[bare], counts)
	}
	for i := range 10 { // even without details they may differ
		k := key("a.example")
		k.Result = tlsrpt.ResultType(fmt.Sprint("new-", i))
		write(t, s, map[reporting.Key]uint64{k: 1})
	}
	write(t, s, map[reporting.Key]uint64{key("b.example"): 1})
	write(t, s, map[reporting.Key]uint64{key("c.example"): 5})
	totals, err := s.Totals(today)
	if want := (store.Totals{Domains: 2, Merged: 14 + 2, Dropped: 8 + 5}); err != nil || totals != want {
		t.Errorf("%+v, want %+v, %v", totals, want, err)
	}
	var n uint64
	counts, _ = all(t, s, "")
	for _, c := range counts {
		n += c
	}
	if n+totals.Dropped != 20+10+1+5 {
		t.Errorf("%d counted and %d dropped are not all", n, totals.Dropped)
	}
}

func FuzzKey(f *testing.F) {
	k := key("a.example")
	f.Add(store.AppendKey(nil, &k))
	f.Add([]byte(strings.Repeat("\x00", 40)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, ok := store.DecodeKey(raw)
		if !ok {
			return
		}
		if again, ok := store.DecodeKey(store.AppendKey(nil, &k)); !ok || again != k {
			t.Errorf("%+v becomes %+v", k, again)
		}
	})
}

// The day of a large provider: so many domains, in batches of an interval each.
func BenchmarkFlush(b *testing.B) {
	const domains, batch = 200_000, 5_000
	for b.Loop() {
		b.StopTimer()
		s := storetest.Open(b, filepath.Join(b.TempDir(), "sessions.db"))
		b.StartTimer()
		for from := 0; from < domains; from += batch {
			counts := map[reporting.Key]uint64{}
			for i := from; i < from+batch; i++ {
				counts[key(fmt.Sprintf("d%d.example", i*7919%domains))] = 1
			}
			write(b, s, counts)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/domains, "µs/domain")
}

// Nor may all domains together, nor what is claimed to be their policies, fill the disk.
func TestBoundsOfADay(t *testing.T) {
	s := storetest.Open(t, filepath.Join(t.TempDir(), "sessions.db"))
	s.MaxOutcomes, s.MaxPolicyBytes = 4, 1000
	for i := range 5 {
		for j := range 4 {
			k := key(fmt.Sprintf("d%d.example", i))
			k.Reason = fmt.Sprint("reason ", j)
			write(t, s, map[reporting.Key]uint64{k: 1})
		}
	}
	counts, _ := all(t, s, "")
	totals, err := s.Totals(today)
	if want := (store.Totals{Domains: 5, Merged: 16}); err != nil || totals != want || len(counts) != 4+4 {
		t.Errorf("%d outcomes, %+v, want %+v, %v", len(counts), totals, want, err)
	}
	write(t, s, map[reporting.Key]uint64{key("d9.example"): 3})
	if totals, _ = s.Totals(today); totals.Dropped != 3 {
		t.Errorf("%+v: the ninth outcome is one too many", totals)
	}

	s.MaxOutcomes = 0
	for i := range 6 {
		p := reporting.Policy{Type: tlsrpt.STS, Domain: "p.example", Strings: []string{strings.Repeat(fmt.Sprint(i), 300)}}
		k := key("p.example")
		k.Policy = p.ID()
		if err := s.Write(reporting.Batch{Counts: map[reporting.Day]map[reporting.Key]uint64{today: {k: 1}}, Policies: map[reporting.PolicyID]reporting.Policy{k.Policy: p}}); err != nil {
			t.Fatal(err)
		}
	}
	_, policies := all(t, s, "p.example")
	whole := 0
	for _, p := range policies {
		if p.Type != tlsrpt.STS || p.Domain != "p.example" {
			t.Errorf("%+v: type and domain are kept always", p)
		}
		whole += len(p.Strings)
	}
	if len(policies) != 6 || whole != 2 {
		t.Errorf("%d of %d policies have their text, want 2 of 6", whole, len(policies))
	}
}

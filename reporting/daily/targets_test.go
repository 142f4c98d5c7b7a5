package daily_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/reporting/daily"
)

// stall waits like a server that never answers.
func stall(ctx context.Context, limit time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(limit):
		return errors.New("no answer")
	}
}

// Each target is tried until it has the report; the report counts as delivered with the
// first that has.
func TestTargets(t *testing.T) {
	t.Run("RPT-010 the second takes it", func(t *testing.T) {
		bubble(t, func(b *bed) {
			day := yesterday()
			b.askingAt(day, func(string) string { return "https://bad.example/,https://good.example/r" }, "a.example")
			failures := 0
			b.takes = func(_ context.Context, a arrival) error {
				if a.target == "https://bad.example/" && failures < 3 {
					failures++
					return temporary("500 Internal Server Error")
				}
				return nil
			}
			b.run(4*time.Hour + 20*time.Minute)
			if p := b.state(day, "a.example"); !p.Delivered() {
				t.Errorf("%+v", p)
			}
			b.run(20 * time.Hour)
			if diff := cmp.Diff([]string{"a.example https://good.example/r", "a.example https://bad.example/"}, b.arrivals()); diff != "" {
				t.Error(diff)
			}
			p := b.state(day, "a.example")
			if p.State != daily.Sent || p.Targets[0].Tries != 4 || p.Targets[1].Tries != 1 || b.arrived[0].id != b.arrived[1].id {
				t.Errorf("%+v", p)
			}
		})
	})
	t.Run("RPT-010 one refuses and one never answers", func(t *testing.T) {
		bubble(t, func(b *bed) {
			b.askingAt(yesterday(), func(string) string { return "https://a.example/,https://b.example/,mailto:c@c.example" }, "a.example")
			b.takes = func(ctx context.Context, a arrival) error {
				switch a.target {
				case "https://a.example/":
					return refused("404 Not Found")
				case "https://b.example/":
					return stall(ctx, time.Minute)
				}
				return nil
			}
			b.run(40 * time.Hour)
			p := b.state(yesterday()-1, "a.example")
			want := []daily.State{daily.Refused, daily.GivenUp, daily.Sent}
			for i, at := range p.Targets {
				if at.State != want[i] || at.Trying {
					t.Errorf("%+v", at)
				}
			}
			if p.State != daily.Sent || p.Targets[0].Tries != 1 || len(b.arrived) != 1 {
				t.Errorf("%+v", p)
			}
		})
	})
}

// A web server that very many name gets a report a second, two at once, whoever they are;
// those of others leave on time (RFC 8460 §7).
func TestManyForOne(t *testing.T) {
	t.Run("RPT-012", func(t *testing.T) {
		for _, answer := range []time.Duration{100 * time.Millisecond, 3 * time.Second} {
			bubble(t, func(b *bed) {
				const many = 300
				b.Spread = 2 * time.Minute
				b.askingAt(yesterday(), func(string) string { return "https://one.example/" }, names(many)...)
				b.asking(yesterday(), "x.other.example", "y.other.example", "z.other.example")
				dues := b.dues(yesterday())
				var mu sync.Mutex
				var busy, most int
				var begun []time.Time
				b.takes = func(ctx context.Context, a arrival) error {
					if a.target != "https://one.example/" {
						return nil
					}
					mu.Lock()
					busy++
					most = max(most, busy)
					begun = append(begun, time.Now())
					mu.Unlock()
					defer func() {
						mu.Lock()
						busy--
						mu.Unlock()
					}()
					time.Sleep(answer)
					return nil
				}
				b.run(time.Hour)
				if most > 2 {
					t.Errorf("%d at once", most)
				}
				for i := 1; i < len(begun); i++ {
					if d := begun[i].Sub(begun[i-1]); d < time.Second {
						t.Errorf("%v apart", d)
					}
				}
				lookups := 0
				for domain, at := range b.at() {
					lookups += b.lookups[domain]
					if !strings.HasSuffix(domain, ".other.example") {
						continue
					}
					if late := at[0].Sub(dues[domain]); late < 0 || late > 5*time.Second {
						t.Errorf("%s: %v late", domain, late)
					}
				}
				if len(b.arrived) != many+3 || lookups > 5*many {
					t.Errorf("%d reports of %d, %d lookups", len(b.arrived), many+3, lookups)
				}
				t.Logf("%d took %v, %d lookups", many, begun[len(begun)-1].Sub(begun[0]), lookups)
			})
		}
	})
}

// A place that many name and that never answers is left alone more and more.
func TestManyForOneStalled(t *testing.T) {
	bubble(t, func(b *bed) {
		const many = 300
		b.Spread = 2 * time.Minute
		b.askingAt(yesterday(), func(string) string { return "https://one.example/" }, names(many)...)
		b.takes = func(ctx context.Context, a arrival) error { return stall(ctx, time.Minute) }
		b.run(6 * time.Hour)
		lookups := 0
		for _, n := range b.lookups {
			lookups += n
		}
		if lookups > 20*many {
			t.Errorf("%d lookups", lookups)
		}
	})
}

// Servers that stall, thousands of them and all at once, hold up nobody else for long.
func TestStalling(t *testing.T) {
	hostile := func(b *bed) {
		b.Spread = time.Minute
		b.askingAt(yesterday(), func(domain string) string {
			var list []string
			for i := range 10 {
				list = append(list, fmt.Sprintf("https://h%d.%s/", i, domain))
			}
			return strings.Join(list, ",")
		}, names(1000)...)
	}
	for _, c := range []struct {
		name  string
		world func(b *bed)
	}{
		{"web servers", func(b *bed) {
			b.takes = func(ctx context.Context, a arrival) error {
				if strings.HasPrefix(a.target, "https://h") {
					return stall(ctx, time.Minute)
				}
				return nil
			}
		}},
		{"name servers", func(b *bed) {
			b.stalls = func(ctx context.Context, domain string) error {
				if strings.HasSuffix(domain, ".other.example") {
					return nil
				}
				return stall(ctx, time.Minute)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(b *bed) {
				hostile(b)
				var others []string
				for i := range 50 {
					others = append(others, fmt.Sprintf("o%d.other.example", i))
				}
				b.asking(yesterday(), others...)
				c.world(b)
				dues := b.dues(yesterday())
				b.run(27 * time.Minute)
				at := b.at()
				latest := time.Duration(0)
				for _, domain := range others {
					if len(at[domain]) != 1 {
						t.Fatalf("%s: %d reports", domain, len(at[domain]))
					}
					latest = max(latest, at[domain][0].Sub(dues[domain]))
				}
				if latest > 5*time.Minute {
					t.Errorf("%v late", latest)
				}
				t.Log("at most late:", latest)
			})
		})
	}
}

// What strangers publish harms their own reports alone.
func TestHostileRecords(t *testing.T) {
	bubble(t, func(b *bed) {
		day := yesterday()
		b.asking(day, "a.example", "scheme.example", "ftp.example", "many.example")
		b.records["scheme.example"] = "v=TLSRPTv1; rua=postmaster@scheme.example"
		b.records["ftp.example"] = "v=TLSRPTv1; rua=ftp://ftp.example/"
		var list []string
		for i := range 10_000 {
			list = append(list, fmt.Sprintf("https://h%d.many.example/", i))
		}
		b.records["many.example"] = "v=TLSRPTv1; rua=" + strings.Join(list, ",")
		b.run(6 * time.Hour)
		if n := len(b.at()["many.example"]); n != 10 {
			t.Errorf("%d targets of 10 000", n)
		}
		if n := len(b.at()["a.example"]); n != 1 || len(b.arrived) != 11 {
			t.Errorf("%d reports, %d in all", n, len(b.arrived))
		}
		for _, domain := range []string{"scheme.example", "ftp.example"} {
			if p := b.state(day, domain); p.State != daily.NoRecord || !strings.Contains(p.Reason, "unusable TLSRPT record") {
				t.Errorf("%s: %+v", domain, p)
			}
		}
	})
}

// A record that names other targets at each look does not grow what is remembered.
func TestChangingRecord(t *testing.T) {
	bubble(t, func(b *bed) {
		day, n := yesterday(), 0
		b.asking(day, "a.example")
		b.stalls = func(context.Context, string) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			rua := "v=TLSRPTv1; rua=https://never.example/"
			for range 9 {
				n++
				rua += fmt.Sprintf(",https://t%d.example/", n)
			}
			b.records["a.example"] = rua
			return nil
		}
		b.takes = func(_ context.Context, a arrival) error {
			if a.target == "https://never.example/" {
				return temporary("503")
			}
			return nil
		}
		b.run(40 * time.Hour)
		if p := b.state(day, "a.example"); len(p.Targets) > 30 || len(b.arrived) > 30 {
			t.Errorf("%d targets, %d reports", len(p.Targets), len(b.arrived))
		}
	})
}

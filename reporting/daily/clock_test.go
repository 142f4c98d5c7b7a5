package daily_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postseal/reporting"
	"postseal/reporting/daily"
)

// A clock that jumps has no report sent twice, and none is lost that it did not make too
// old to report.
func TestClock(t *testing.T) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	for _, c := range []struct {
		name       string
		jump, back time.Duration // at 02:00, and half an hour later
	}{
		{"back an hour", -time.Hour, 0},
		{"back a day", -day, 0},
		{"ahead a day", day, 0},
		{"ahead a day and back", day, -day},
		{"ahead two days and back", 2 * day, -2 * day},
		{"ahead four days and back", 4 * day, -4 * day},
		{"ahead a year and back", year, -year},
		{"back a year and ahead", -year, year},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(b *bed) {
				var offset atomic.Int64
				b.Now = func() time.Time { return time.Now().Round(0).Add(time.Duration(offset.Load())) }
				b.Closed = func(d reporting.Day) bool { return b.Now().After((d + 1).Start().Add(10 * time.Minute)) }
				first := yesterday()
				stuck := []string{"s1.stuck.example", "s2.stuck.example", "s3.stuck.example", "s4.stuck.example", "s5.stuck.example"}
				b.asking(first, append(names(100), stuck...)...)
				b.asking(first+1, "today.example")
				b.takes = func(_ context.Context, a arrival) error {
					if strings.HasSuffix(a.domain, "stuck.example") {
						return temporary("450 4.2.2 mailbox full")
					}
					return nil
				}
				go func() {
					time.Sleep(2 * time.Hour)
					offset.Add(int64(c.jump))
					time.Sleep(30 * time.Minute)
					offset.Add(int64(c.back))
				}()
				b.run(70 * time.Hour)
				at := b.at()
				for _, domain := range append(names(100), "today.example") {
					if len(at[domain]) != 1 {
						t.Errorf("%s: reports at %v", domain, at[domain])
					}
					if n := b.lookups[domain]; n > 3 {
						t.Errorf("%s: %d lookups", domain, n)
					}
				}
				for _, domain := range stuck {
					if p := b.state(first, domain); p.State != daily.GivenUp || p.Tries < 4 || p.Tries > 40 {
						t.Errorf("%s: %+v", domain, p)
					}
				}
			})
		})
	}
}

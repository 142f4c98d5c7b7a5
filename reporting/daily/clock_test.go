package daily_test

import (
	"context"
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
		{"ahead four days and back", 4 * day, -4 * day},
		{"ahead a year and back", year, -year},
		{"back a year and ahead", -year, year},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(b *bed) {
				var offset atomic.Int64
				b.Now = func() time.Time { return time.Now().Round(0).Add(time.Duration(offset.Load())) }
				b.Closed = func(d reporting.Day) bool { return b.Now().After((d + 1).Start().Add(10 * time.Minute)) }
				b.asking(yesterday(), append(names(100), "stuck.example")...)
				b.asking(yesterday()+1, "today.example")
				tries := 0
				b.takes = func(_ context.Context, a arrival) error {
					if a.domain == "stuck.example" {
						tries++
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
				b.run(90 * time.Hour)
				at := b.at()
				for _, domain := range append(names(100), "today.example") {
					if len(at[domain]) != 1 {
						t.Errorf("%s: reports at %v", domain, at[domain])
					}
					if n := b.lookups[domain]; n > 3 {
						t.Errorf("%s: %d lookups", domain, n)
					}
				}
				if p := b.state(yesterday()-3, "stuck.example"); p.State != daily.GivenUp || tries < 4 || tries > 40 {
					t.Errorf("after %d tries: %+v", tries, p)
				}
			})
		})
	}
}

package maillog_test

import (
	"testing"
	"time"

	"postseal/reporting/ingest/maillog"
)

// timeOf is what a clock makes of the stamp of a line.
func timeOf(c *maillog.Clock, stamp string) string {
	e, ok := maillog.Head([]byte(stamp + " mta postfix/smtp[7]: text"))
	if !ok {
		return ""
	}
	at, ok := c.At(e.Stamp)
	if !ok {
		return ""
	}
	return at.Format(time.RFC3339Nano)
}

func TestStamps(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, stamp string
		now         string
		want        string // "" for a line that is not read
	}{
		{"local time", "Jul  3 04:05:06", "2026-07-03T12:00:00Z", "2026-07-03T02:05:06Z"},
		{"one blank before the day", "Jul 3 04:05:06", "2026-07-03T12:00:00Z", "2026-07-03T02:05:06Z"},
		{"winter time", "Jan  3 04:05:06.25", "2026-01-03T12:00:00Z", "2026-01-03T03:05:06.25Z"},
		{"before midnight of another zone", "Jan  3 00:30:00", "2026-01-03T12:00:00Z", "2026-01-02T23:30:00Z"},
		{"the year before", "Dec 31 23:59:59", "2026-01-01T00:00:10Z", "2025-12-31T22:59:59Z"},
		{"a clock that is ahead", "Jan  1 00:10:00", "2025-12-31T22:00:00Z", "2025-12-31T23:10:00Z"},
		{"more than a day ahead is a year ago", "Jan  3 04:05:06", "2026-01-01T12:00:00Z", "2025-01-03T03:05:06Z"},
		{"a leap day long ago", "Feb 29 12:00:00", "2027-03-01T00:00:00Z", "2024-02-29T11:00:00Z"},
		{"a leap second", "2016-12-31T23:59:60Z", "2026-01-01T00:00:00Z", "2017-01-01T00:00:00Z"},
		{"no zone", "2026-07-03T04:05:06", "2026-07-03T12:00:00Z", "2026-07-03T02:05:06Z"},
		{"a year of its own", "2019-07-03T04:05:06.5-02:30", "2026-07-03T12:00:00Z", "2019-07-03T06:35:06.5Z"},
		{"no such day", "Feb 30 04:05:06", "2026-07-03T12:00:00Z", ""},
		{"no such month", "Foo  3 04:05:06", "2026-07-03T12:00:00Z", ""},
		{"no such hour", "Jul  3 24:05:06", "2026-07-03T12:00:00Z", ""},
		{"no such zone", "2026-07-03T04:05:06+99:00", "2026-07-03T12:00:00Z", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339, test.now)
			if err != nil {
				t.Fatal(err)
			}
			c := &maillog.Clock{Location: berlin, Now: func() time.Time { return now }}
			for range 2 { // the second answer is the one that it remembers
				if got := timeOf(c, test.stamp); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			}
		})
	}
	t.Run("the year rolls over inside a file", func(t *testing.T) {
		c := &maillog.Clock{Location: time.UTC, Now: func() time.Time { return time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC) }}
		for stamp, want := range map[string]string{"Dec 31 23:59:59": "2025-12-31T23:59:59Z", "Jan  1 00:00:00": "2026-01-01T00:00:00Z"} {
			if got := timeOf(c, stamp); got != want {
				t.Errorf("%s: got %q, want %q", stamp, got, want)
			}
		}
	})
}

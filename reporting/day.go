package reporting

import "time"

// Day is a day of UTC, counted from 1970-01-01: reports cover such days (RFC 8460 §4.1).
type Day int32

const secondsPerDay = 24 * 60 * 60

// DayOf is the day that t is in.
func DayOf(t time.Time) Day {
	s := t.Unix()
	d := s / secondsPerDay
	if s%secondsPerDay < 0 {
		d--
	}
	return Day(d)
}

// ParseDay reads "2026-11-28".
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return 0, err
	}
	return DayOf(t), nil
}

// Start is the first moment of the day.
func (d Day) Start() time.Time { return time.Unix(int64(d)*secondsPerDay, 0).UTC() }

// String is the day as "2026-11-28".
func (d Day) String() string { return d.Start().Format(time.DateOnly) }

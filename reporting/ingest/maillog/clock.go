package maillog

import (
	"bytes"
	"time"
)

// Clock turns the stamps of a log into times. Lines come in bursts, so it remembers
// the last answer.
type Clock struct {
	Location *time.Location   // of stamps without a zone
	Now      func() time.Time // by which a year is found

	stamp [40]byte // of the last answer
	n     int
	last  time.Time
}

const (
	classicLen = len("Nov  3 04:05:06")
	isoLen     = len("2026-11-03T04:05:06")
)

// StampLen is the length of the stamp that line begins with; 0 if there is none. Its
// form is looked at, its numbers are not.
func StampLen(line []byte) int {
	if len(line) > classicLen && line[3] == ' ' && line[9] == ':' && line[12] == ':' {
		return classicLen + fraction(line[classicLen:])
	}
	// One blank before a day of one digit, as BusyBox and some templates write it.
	if n := classicLen - 1; len(line) > n && line[3] == ' ' && line[5] == ' ' && line[8] == ':' && line[11] == ':' {
		return n + fraction(line[n:])
	}
	if len(line) <= isoLen || line[4] != '-' || line[7] != '-' || line[10] != 'T' && line[10] != ' ' || line[13] != ':' || line[16] != ':' {
		return 0
	}
	n := isoLen + fraction(line[isoLen:])
	return n + ZoneLen(line[n:])
}

// fraction is the length of ".123456" or ",123".
func fraction(b []byte) int {
	if len(b) < 2 || b[0] != '.' && b[0] != ',' {
		return 0
	}
	n := 1
	for n < len(b) && n <= 9 && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	if n == 1 {
		return 0
	}
	return n
}

// ZoneLen is the length of "Z", "+01:00" or "+0100" that b begins with.
func ZoneLen(b []byte) int {
	switch {
	case len(b) > 0 && b[0] == 'Z':
		return 1
	case len(b) < len("+0100") || b[0] != '+' && b[0] != '-' || !Digits(b[1:3]):
		return 0
	case b[3] == ':' && len(b) >= len("+01:00") && Digits(b[4:6]):
		return len("+01:00")
	case Digits(b[3:5]):
		return len("+0100")
	}
	return 0
}

// At is the time that a stamp means, in UTC.
func (c *Clock) At(stamp []byte) (time.Time, bool) {
	if c.n > 0 && bytes.Equal(stamp, c.stamp[:c.n]) {
		return c.last, true
	}
	t, ok := c.read(stamp)
	if !ok || t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{}, false
	}
	if c.n = 0; len(stamp) <= len(c.stamp) {
		c.n = copy(c.stamp[:], stamp)
	}
	c.last = t
	return t, true
}

func (c *Clock) read(stamp []byte) (time.Time, bool) {
	switch {
	case len(stamp) > 1 && stamp[0] == '@':
		return micros(stamp[1:])
	case len(stamp) > 3 && stamp[3] == ' ':
		return c.yearless(stamp)
	case len(stamp) >= isoLen:
		return c.iso(stamp)
	}
	return time.Time{}, false
}

// micros reads microseconds since 1970, as journald counts.
func micros(b []byte) (time.Time, bool) {
	if len(b) < 7 || len(b) > 18 {
		return time.Time{}, false
	}
	var us int64
	for _, d := range b {
		if d < '0' || d > '9' {
			return time.Time{}, false
		}
		us = us*10 + int64(d-'0')
	}
	return time.UnixMicro(us).UTC(), true
}

// yearless reads "Nov  3 04:05:06". The year is the latest that puts it no more than
// a day after now: clocks and zones differ, and a rotated file is older, never newer.
// So December and January of one file get their own years.
func (c *Clock) yearless(stamp []byte) (time.Time, bool) {
	month := bytes.Index([]byte("JanFebMarAprMayJunJulAugSepOctNovDec"), stamp[:3])
	if month < 0 || month%3 != 0 {
		return time.Time{}, false
	}
	day, clockText := stamp[4:6], stamp[7:]
	switch {
	case stamp[5] == ' ':
		day, clockText = stamp[4:5], stamp[6:]
	case day[0] == ' ':
		day = day[1:]
	}
	d, ok := atoi(day)
	sec, frac, okTime := timeOfDay(clockText)
	if !ok || !okTime {
		return time.Time{}, false
	}
	limit := c.Now().In(c.Location).AddDate(0, 0, 1)
	// A 29th of February may be up to eight years away.
	for year := limit.Year(); year > limit.Year()-9; year-- {
		if !exists(year, month/3+1, d) {
			continue
		}
		t := time.Date(year, time.Month(month/3+1), d, 0, 0, sec, frac, c.Location)
		if !t.After(limit) {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// iso reads RFC 3339; without a zone the time is local.
func (c *Clock) iso(stamp []byte) (time.Time, bool) {
	year, okYear := atoi(stamp[:4])
	month, okMonth := atoi(stamp[5:7])
	day, okDay := atoi(stamp[8:10])
	rest := stamp[11:]
	n := len("04:05:06") + fraction(stamp[isoLen:])
	sec, frac, okTime := timeOfDay(rest[:n])
	if !okYear || !okMonth || !okDay || !okTime || !exists(year, month, day) {
		return time.Time{}, false
	}
	zone, ok := c.zone(rest[n:])
	if !ok {
		return time.Time{}, false
	}
	if zone == nil {
		return time.Date(year, time.Month(month), day, 0, 0, sec, frac, c.Location).UTC(), true
	}
	return time.Date(year, time.Month(month), day, 0, 0, sec, frac, time.UTC).Add(-*zone), true
}

// exists reports whether the calendar has that day.
func exists(year, month, day int) bool {
	return month >= 1 && month <= 12 && day >= 1 && time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).Day() == day
}

// zone reads an offset from UTC; nil is local time.
func (c *Clock) zone(b []byte) (*time.Duration, bool) {
	var offset time.Duration
	switch {
	case len(b) == 0:
		return nil, true
	case b[0] == 'Z':
		return &offset, len(b) == 1
	}
	hours, okHours := atoi(b[1:3])
	minutes, okMinutes := atoi(b[len(b)-2:])
	if !okHours || !okMinutes || hours > 23 || minutes > 59 {
		return nil, false
	}
	offset = time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if b[0] == '-' {
		offset = -offset
	}
	return &offset, true
}

// timeOfDay reads "04:05:06" with or without a fraction, as seconds of the day and
// nanoseconds. A leap second counts as the second after it.
func timeOfDay(b []byte) (sec, nanos int, ok bool) {
	if len(b) < 8 || b[2] != ':' || b[5] != ':' {
		return 0, 0, false
	}
	h, okH := atoi(b[:2])
	m, okM := atoi(b[3:5])
	s, okS := atoi(b[6:8])
	if !okH || !okM || !okS || h > 23 || m > 59 || s > 60 {
		return 0, 0, false
	}
	if len(b) > 8 {
		if fraction(b[8:]) != len(b)-8 {
			return 0, 0, false
		}
		nanos, _ = atoi(b[9:])
		for i := len(b) - 9; i < 9; i++ {
			nanos *= 10
		}
	}
	return h*3600 + m*60 + s, nanos, true
}

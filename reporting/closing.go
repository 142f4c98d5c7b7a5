package reporting

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// closeAt is when a day is closed at the latest: reports may be sent until 04:00
	// at leisure (RFC 8460 §4.1), and a log that is read so late has other trouble.
	closeAt = 6 * time.Hour
	// endDelay is how late a session may become known: with the end of its delivery,
	// which waits 10 min for the last reply (RFC 5321 §4.5.3.2.6).
	endDelay = 15 * time.Minute

	markClosed = "closed"
	checkEvery = 10 * time.Second
)

// Closing closes days: when all logs have been read beyond midnight and the last
// deliveries, so that no session of the day is missing, at the latest at 06:00. What
// becomes known later is late. Set the fields, then call Run.
type Closing struct {
	Recorder *Recorder
	Logs     []func() time.Time // up to when everything in each log was recorded; zero: never yet
	Now      func() time.Time   // nil: time.Now
	Log      *slog.Logger       // nil: none

	closed atomic.Int32 // the last day that is
}

// Restore reads which day was closed last, before anything is recorded. Where none
// ever was, all before today are: nothing was recorded then.
func (c *Closing) Restore() error {
	last := DayOf(c.now()) - 1
	mark, err := c.Recorder.Store.Mark(markClosed)
	if err != nil {
		return err
	}
	if day, err := ParseDay(string(mark)); mark != nil && err == nil {
		last = day
	}
	c.closed.Store(int32(last))
	return nil
}

// Closed reports whether a day is closed.
func (c *Closing) Closed(d Day) bool { return int32(d) <= c.closed.Load() }

// Last is the last day that is closed.
func (c *Closing) Last() Day { return Day(c.closed.Load()) }

// Run closes days until ctx ends.
func (c *Closing) Run(ctx context.Context) error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		if err := c.check(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("close a day: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// check closes the days that are due. A day is closed for new sessions first, and
// then on disk: one between the two is late, and in no report.
func (c *Closing) check(ctx context.Context) error {
	now := c.now()
	last, first := c.Last(), c.Last()
	if today := DayOf(now); last > today {
		// The clock was ahead. Today stays closed, since its reports may be under way.
		last, first = today, today
	}
	for last+1 < DayOf(now) && c.due(last+1, now) {
		last++
	}
	if last == c.Last() {
		return nil
	}
	c.closed.Store(int32(last))
	if err := c.Recorder.Commit(ctx, nil, "", map[string][]byte{markClosed: []byte(last.String())}); err != nil {
		return err
	}
	if last == first {
		c.Log.Warn("days to come were closed, since the clock was ahead; they are open again", "closed", last.String())
		return nil
	}
	c.Log.Info("day closed", "day", last.String())
	return nil
}

// due reports whether nothing more is to come for a day that is over.
func (c *Closing) due(d Day, now time.Time) bool {
	midnight := (d + 1).Start()
	if !now.Before(midnight.Add(closeAt)) {
		return true
	}
	if now.Before(midnight.Add(endDelay)) {
		return false
	}
	for _, readUpTo := range c.Logs {
		if readUpTo().Before(midnight.Add(endDelay)) {
			return false
		}
	}
	return true
}

func (c *Closing) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

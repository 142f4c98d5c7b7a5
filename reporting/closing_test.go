package reporting_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"postseal/reporting"
)

// closings runs a recorder and its closing in a bubble, whose time begins at
// midnight of 2000-01-01.
func closings(t *testing.T, m *memory, logs ...func() time.Time) (c *reporting.Closing, stop func()) {
	r := &reporting.Recorder{Store: m}
	c = &reporting.Closing{Recorder: r, Logs: logs}
	if err := c.Restore(); err != nil {
		t.Fatal(err)
	}
	r.Closed = c.Closed
	stopRecorder := run(t, r)
	done, cancel := start(t, c)
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := stopRecorder(); err != nil {
			t.Error(err)
		}
	}
}

// start closes days until it is cancelled.
func start(t *testing.T, c *reporting.Closing) (done chan error, cancel func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done = make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return done, cancel
}

func TestClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		today := reporting.DayOf(time.Now())
		behind := time.Hour // of the log
		c, stop := closings(t, m, time.Now, func() time.Time { return time.Now().Add(-behind) })
		defer func() { stop() }()
		if c.Closed(today) || !c.Closed(today-1) {
			t.Error("at the first start: today is open, what was before is not")
		}
		until := func(hours, minutes int) {
			time.Sleep(time.Until((today + 1).Start().Add(time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute)))
			synctest.Wait()
		}
		until(1, 0)
		if c.Closed(today) {
			t.Error("closed while a log is an hour behind")
		}
		until(1, 16)
		if !c.Closed(today) || c.Closed(today+1) {
			t.Error("not closed when all logs are beyond midnight")
		}
		stop()
		c, stop = closings(t, m, func() time.Time { return time.Time{} })
		if !c.Closed(today) || c.Closed(today+1) {
			t.Error("not closed any more after a restart")
		}
		until(24+5, 59)
		if c.Closed(today + 1) {
			t.Error("closed before 06:00 although a log was not read")
		}
		until(24+6, 1)
		if !c.Closed(today + 1) {
			t.Error("not closed after 06:00")
		}
		stop()
		time.Sleep(72 * time.Hour)
		c, stop = closings(t, m)
		synctest.Wait()
		if last := reporting.DayOf(time.Now()) - 1; !c.Closed(last) {
			t.Error("days that passed while nothing ran are open")
		}
	})
}

func TestClosingWithoutLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := closings(t, &memory{})
		defer stop()
		today := reporting.DayOf(time.Now())
		time.Sleep(24*time.Hour + 14*time.Minute)
		synctest.Wait()
		if c.Closed(today) {
			t.Error("closed while deliveries that began before midnight may still go on")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !c.Closed(today) {
			t.Error("not closed a quarter of an hour after midnight")
		}
	})
}

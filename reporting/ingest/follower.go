package ingest

import (
	"bytes"
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest/follow"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

const (
	// Without sessions the mark need not follow at once: to read lines again that
	// told of none costs time only.
	markAfter = 8 << 20          // bytes
	markEvery = 10 * time.Second // if anything was read
)

// Follower records the sessions of a mail log as it grows. Which lines have been
// read, and what is open between them, is stored in one transaction with the
// sessions that they told of: over a crash each session counts once.
type Follower struct {
	Path     string
	Reader   maillog.Reader // a new one
	Source   reporting.Source
	Recorder *reporting.Recorder
	Store    reporting.Store               // the recorder's
	Keep     func(*reporting.Session) bool // which sessions count; nil: all
	Whole    bool                          // begin with the first line when nothing was read yet, not behind the last
	Poll     time.Duration                 // between looks for more; 0: 1 s
	Log      *slog.Logger                  // nil: none

	caughtUp atomic.Int64 // Unix nanoseconds
	stats    atomic.Pointer[maillog.Stats]
}

// Missing keeps the sessions of a log that neither datagrams nor events of the same
// mail server carry: failures that are found before there is a connection, and hosts
// that an MTA-STS policy does not list (Postfix, smtp_connect.c).
func Missing(s *reporting.Session) bool {
	switch s.Result {
	case tlsrpt.DANERequired, tlsrpt.DNSSECInvalid:
		return true
	case tlsrpt.ValidationFailure:
		return s.Reason == maillog.OutsidePolicy
	}
	return false
}

// CaughtUp is the last time at which everything in the log had been read and
// recorded; zero before the first.
func (f *Follower) CaughtUp() time.Time {
	n := f.caughtUp.Load()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// Stats counts lines since the start.
func (f *Follower) Stats() maillog.Stats {
	if s := f.stats.Load(); s != nil {
		return *s
	}
	return maillog.Stats{}
}

// Run follows the log until ctx ends; what is not recorded by then is read again by
// the next run. The error is that of the store.
func (f *Follower) Run(ctx context.Context) error {
	if f.Log == nil {
		f.Log = slog.New(slog.DiscardHandler)
	}
	from, err := f.restore()
	if err != nil {
		return err
	}
	p := &progress{Follower: f, at: from, fresh: from == (follow.Position{}), marked: time.Now()}
	l := follow.Log{Path: f.Path, Poll: f.Poll, Whole: f.Whole, Log: f.Log, AtEnd: func() { p.atEnd(ctx) }}
	err = l.Run(ctx, from, func(lines []byte, behind follow.Position) error { return p.take(ctx, lines, behind) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// markName is where position and state are stored.
func (f *Follower) markName() string { return "log " + f.Path }

// restore goes on where the last run was. What cannot be read is as if there had
// been none.
func (f *Follower) restore() (follow.Position, error) {
	mark, err := f.Store.Mark(f.markName())
	if err != nil || mark == nil {
		return follow.Position{}, err
	}
	at, state, err := follow.CutPosition(mark)
	if err == nil {
		err = f.Reader.RestoreState(state)
	}
	if err != nil {
		f.Log.Warn("how far the log was read cannot be told; starting anew", "path", f.Path, "error", err)
		return follow.Position{}, nil
	}
	return at, nil
}

// progress is what a run has read.
type progress struct {
	*Follower
	at       follow.Position
	fresh    bool // nothing has been stored yet
	sessions []reporting.Session
	unmarked int64 // bytes
	marked   time.Time
}

func (p *progress) take(ctx context.Context, lines []byte, behind follow.Position) error {
	emit := func(s reporting.Session) {
		if p.Keep == nil || p.Keep(&s) {
			p.sessions = append(p.sessions, s)
		}
	}
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte{'\n'})
		p.unmarked += int64(len(line)) + 1
		p.Reader.Line(line, emit)
		lines = rest
	}
	stats := p.Reader.Stats()
	p.stats.Store(&stats)
	p.at = behind
	if len(p.sessions) == 0 && p.unmarked < markAfter && !p.fresh {
		return nil
	}
	return p.commit(ctx)
}

// commit waits for the disk, so that nothing is read beyond what is safe.
func (p *progress) commit(ctx context.Context) error {
	mark := p.Reader.AppendState(p.at.Append(nil))
	if err := p.Recorder.Commit(ctx, p.sessions, p.Source, map[string][]byte{p.markName(): mark}); err != nil {
		return err
	}
	p.sessions, p.unmarked, p.marked, p.fresh = p.sessions[:0], 0, time.Now(), false
	return nil
}

func (p *progress) atEnd(ctx context.Context) {
	now := time.Now()
	if p.unmarked > 0 && now.Sub(p.marked) > markEvery && p.commit(ctx) != nil {
		return // the end of ctx, or of the recorder
	}
	p.caughtUp.Store(now.UnixNano())
}

package policy

import (
	"context"
	"time"
)

// RunDue does what the background would have done by now: it drops what
// nobody uses and makes each refresh that is due.
func (e *Engine) RunDue() {
	e.agenda.reset(e.now()) // so that the background leaves it to us
	var due []string
	_ = e.memos().All(func(key string, m *memo) bool {
		switch now := e.now(); {
		case m.disposable(now):
			e.drop(key, func(*memo) bool { return true })
		case m.wantsRefresh(now) && !now.Before(m.refreshAt(now)):
			due = append(due, key)
		}
		return true
	})
	for _, key := range due {
		e.refresh(key)
	}
}

// Flush waits until all is on disk.
func (e *Engine) Flush(ctx context.Context) error { return e.memos().Flush(ctx) }

// RefreshAfter is the pause before a daily refresh.
func RefreshAfter(maxAge time.Duration) time.Duration { return refreshAfter(maxAge) }

// DecodeMemo decodes a stored record and encodes it again.
func DecodeMemo(key string, data []byte) ([]byte, error) {
	m, err := decodeMemo(key, data)
	if err != nil {
		return nil, err
	}
	return appendMemo(nil, m), nil
}

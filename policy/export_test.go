package policy

import (
	"context"
	"time"
)

// RunDue does what the background would have done by now: a scan, and each
// refresh that is due.
func (e *Engine) RunDue(ctx context.Context) (refreshed []string) {
	e.scan(ctx)
	for {
		key, _, ok := e.agenda.next(e.now())
		if !ok {
			return refreshed
		}
		e.refresh(key)
		refreshed = append(refreshed, key)
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

package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	retryPause = time.Second // after a failed transaction, as a full disk stays full

	sweepEvery = time.Hour // between two looks for expired entries
	sweepFirst = time.Minute
	// sweepPause and sweepBatch keep deliveries from waiting for a sweep: a
	// transaction of so many deletions takes some milliseconds.
	sweepPause = 20 * time.Millisecond
	sweepBatch = 500
)

// Run writes, and drops entries after 6 days, until ctx ends and all that was
// recorded before is written.
func (l *Ledger) Run(ctx context.Context) error {
	l.init()
	sweep := time.NewTimer(sweepFirst)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return l.end()
		case <-l.dirty:
			if l.commit() == nil {
				continue
			}
			select {
			case <-ctx.Done():
			case <-time.After(retryPause):
			}
			signal(l.dirty)
		case <-sweep.C:
			pause := sweepEvery
			if l.sweep() {
				pause = sweepPause
			}
			sweep.Reset(pause)
		}
	}
}

// end writes what waits, and turns away what comes later.
func (l *Ledger) end() error {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	return l.commit()
}

// commit writes all that waits in one transaction. What cannot be written waits
// again, though nobody waits for it any more.
func (l *Ledger) commit() error {
	l.mu.Lock()
	b := l.waiting
	if len(b.entries) == 0 {
		l.mu.Unlock()
		return nil
	}
	l.writing, l.waiting = b, newBatch()
	l.mu.Unlock()

	b.err = l.store(b.entries)
	if b.err != nil {
		l.Log.Error("ledger of deliveries cannot be written, will try again; a retried message may be sent twice after a restart",
			"waiting", len(b.entries), "error", b.err)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing = nil
	if b.err != nil {
		for key, e := range b.entries {
			if _, newer := l.waiting.entries[key]; !newer && len(l.waiting.entries) < maxWaiting {
				l.waiting.entries[key] = e
			}
		}
	}
	close(b.done)
	return b.err
}

// dayOf is the name of the bucket in which the entries of a day are, so that they go
// together, and a day without mail costs nothing.
func dayOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func (l *Ledger) store(todo map[Key]Entry) error {
	keys := make([]Key, 0, len(todo))
	for key := range todo {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b Key) int { return slices.Compare(a[:], b[:]) }) // bbolt likes it best
	return l.DB.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(Bucket))
		if err != nil {
			return fmt.Errorf("bucket %q: %w", Bucket, err)
		}
		for _, key := range keys {
			e := todo[key]
			day, err := b.CreateBucketIfNotExists([]byte(dayOf(e.At)))
			if err != nil {
				return fmt.Errorf("bucket of %s: %w", dayOf(e.At), err)
			}
			if err := day.Put(key[:], e.encode(nil)); err != nil {
				return fmt.Errorf("record of %s: %w", dayOf(e.At), err)
			}
		}
		return nil
	})
}

// errNothing ends a transaction without writing.
var errNothing = errors.New("nothing has expired")

// sweep drops some expired entries, and reports whether there are more.
func (l *Ledger) sweep() (more bool) {
	// The last entries of a day expire a day after its first.
	until := dayOf(l.Now().Add(-keep))
	err := l.DB.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(Bucket))
		if b == nil {
			return nil
		}
		name, v := b.Cursor().First()
		if name == nil || string(name) >= until {
			return errNothing
		}
		more = true
		if v != nil { // no bucket, so not ours
			return b.Delete(name)
		}
		return shrink(b, name)
	})
	if err != nil && !errors.Is(err, errNothing) {
		l.Log.Warn("ledger of deliveries cannot be swept", "error", err)
		return false
	}
	return more
}

// shrink deletes entries of a day, and at last its bucket.
func shrink(b *bolt.Bucket, name []byte) error {
	day := b.Bucket(name)
	c := day.Cursor()
	n := 0
	for key, _ := c.First(); key != nil; key, _ = c.First() {
		if n++; n > sweepBatch {
			return nil
		}
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return b.DeleteBucket(name)
}

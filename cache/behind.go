package cache

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	batch        = 500         // changes that start a transaction at once
	maxWaiting   = 200_000     // keys; about 100 MB of policies, minutes of a stalled disk
	retryPause   = time.Second // after a failed transaction, as a full disk stays full
	lastAttempts = 3           // when Run ends
	quiet        = time.Minute // between two lines about the same trouble
)

// note leaves a change for the writer, with c.mu held.
func (c *Cache[V]) note(key string, ch change[V]) {
	c.changes++
	if c.o.DB == nil {
		return
	}
	// A lost deletion would bring an old value back, so deletions have room of their own.
	limit := maxWaiting
	if ch.deleted {
		limit *= 2
	}
	_, known := c.waiting[key]
	if !known && len(c.waiting) >= limit || key == "" || len(key) > bolt.MaxKeySize {
		c.dropped.Add(1)
		return
	}
	if len(c.waiting) == 0 {
		c.oldest = time.Now()
	}
	c.waiting[key] = ch
	signal(c.dirty)
	if len(c.waiting) >= batch {
		signal(c.full)
	}
}

// signal wakes who waits for ch, now or next.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// gather waits for more changes, until the oldest has waited for Interval, and
// writes them. After a failure it waits longer, and so do all that are in a hurry.
func (c *Cache[V]) gather(ctx context.Context) {
	c.mu.Lock()
	due := c.oldest.Add(c.o.Interval)
	c.mu.Unlock()
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	case <-c.full:
	}
	if c.Flush(ctx) == nil {
		return
	}
	timer.Reset(max(retryPause, c.o.Interval))
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	signal(c.dirty)
}

// write brings all changes that wait to the disk in one transaction. The caller
// holds c.writer. After an error they wait again, but for those of keys that
// were changed meanwhile.
func (c *Cache[V]) write() error {
	c.mu.Lock()
	if len(c.waiting) == 0 {
		c.mu.Unlock()
		return nil
	}
	c.writing, c.waiting = c.waiting, map[string]change[V]{}
	todo := c.writing
	select {
	case <-c.full: // said of what is being written now
	default:
	}
	c.mu.Unlock()

	refused, err := c.store(todo)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = nil
	if err == nil {
		c.written.Add(uint64(len(todo) - refused))
		c.dropped.Add(uint64(refused))
		c.failed.over(c.o.Log, "cache is written again", "bucket", c.o.Bucket)
		return nil
	}
	// The older changes give way where both do not fit.
	for key, ch := range todo {
		if _, newer := c.waiting[key]; newer {
			continue
		}
		if len(c.waiting) >= 2*maxWaiting {
			c.dropped.Add(1)
			continue
		}
		c.waiting[key] = ch
	}
	c.failures.Add(1)
	c.failed.log(c.o.Log, "cache cannot be written, will try again", "bucket", c.o.Bucket, "waiting", len(c.waiting), "error", err)
	return err
}

// store writes changes in one transaction, in the order of their keys, which
// bbolt likes best. Changes that bbolt refuses by themselves, because of their
// size say, are left out and counted, or they would hold up all others for ever.
func (c *Cache[V]) store(todo map[string]change[V]) (refused int, err error) {
	keys := make([]string, 0, len(todo))
	for key := range todo {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var last error
	err = c.o.DB.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(c.o.Bucket))
		if err != nil {
			return fmt.Errorf("bucket %q: %w", c.o.Bucket, err)
		}
		for _, key := range keys {
			ch := todo[key]
			if ch.deleted {
				err = b.Delete([]byte(key))
			} else {
				// bbolt keeps the value until the commit: no buffer to share.
				err = b.Put([]byte(key), c.o.Append(nil, ch.value))
			}
			if err != nil {
				refused++
				last = fmt.Errorf("key %.100q: %w", key, err)
			}
		}
		return nil
	})
	if last != nil {
		c.broken.log(c.o.Log, "cache records cannot be stored and are dropped", "bucket", c.o.Bucket, "count", refused, "error", last)
	}
	return refused, err
}

// read returns a copy of the record of key, nil if there is none.
func (c *Cache[V]) read(key string) (data []byte, err error) {
	err = c.o.DB.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket([]byte(c.o.Bucket)); b != nil {
			data = bytesOf(b.Get([]byte(key)))
		}
		return nil
	})
	return data, err
}

// bytesOf copies v, keeping the difference between empty and missing.
func bytesOf(v []byte) []byte {
	if v == nil {
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}

// complaint logs a trouble when it begins and then once a minute.
type complaint struct {
	mu    sync.Mutex
	since time.Time // the line before; zero: no trouble
	left  int       // lines left out since
}

func (c *complaint) log(log *slog.Logger, msg string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.since.IsZero() && now.Sub(c.since) < quiet {
		c.left++
		return
	}
	log.Warn(msg, append(args, "unlogged", c.left)...)
	c.since, c.left = now, 0
}

// over logs the end of a trouble, if there was one.
func (c *complaint) over(log *slog.Logger, msg string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return
	}
	log.Info(msg, args...)
	c.since, c.left = time.Time{}, 0
}

// Package cache remembers values by name: in memory for speed, in one bucket
// of a bbolt file for the next start.
//
// Memory is a 2Q LRU: a new entry waits in a short queue and moves to the long
// one when it is used again, so that one bulk mailing to 50 000 domains pushes
// out its own entries and not those of the domains that get mail every minute
// (Johnson and Shasha, "2Q: A Low Overhead High Performance Buffer Management
// Replacement Algorithm", VLDB 1994).
//
// Writing goes behind: [Cache.Put] changes memory at once and leaves a note;
// [Cache.Run] writes all notes in one transaction every [Options].Interval, or
// as soon as 500 wait. No method but Get, All and Flush touches the disk, and
// none holds a lock while the disk works. Several changes of one key become one
// write.
//
// A crash (kill -9, power) loses what was put within the last Interval plus the
// time of one transaction, and nothing older (on a disk that takes longer than
// Interval for one: the time of two); where the disk refuses writes, what was
// put since, which is logged and tried again. [Cache.Run] that ends in
// order loses nothing. If so much waits for a stalled disk that 200 000 keys
// are noted, further keys live in memory only and are counted in
// [Stats].Dropped.
//
// The cache knows no time: an entry stays until it is replaced, deleted or
// pushed out of memory, and on disk until it is deleted. When it expires is
// written in the value, and the caller's business.
package cache

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	lru "github.com/hashicorp/golang-lru/v2"

	"postseal/cache/boltdb"
)

const (
	defaultSize     = 12000                  // some 25 MB of policies, so that 100 000 on disk stay below 100 MiB in all
	smallestSize    = 4                      // New2Q refuses sizes whose half rounds to nothing
	defaultInterval = 200 * time.Millisecond // what a crash may lose, DESIGN §6
)

// Options of New.
type Options[V any] struct {
	DB       *boltdb.DB // nil: memory only
	Bucket   string
	Size     int                          // entries in memory; 0: 12000
	Append   func(dst []byte, v V) []byte // encode; called by the goroutine that writes, some time after Put
	Decode   func(key string, data []byte) (V, error)
	Key      func(v V) string // the key that v was put under (no allocation); nil: uses do not keep an entry in memory
	Interval time.Duration    // longest delay of a write; 0: 200 ms
	Log      *slog.Logger     // nil: discard
}

// Cache is a 2Q LRU in front of one bucket. Its methods may be called from any
// number of goroutines. Values must not change after Put in any way that
// Append could see half done.
type Cache[V any] struct {
	o      Options[V]
	memory *lru.TwoQueueCache[string, V]
	writer chan struct{} // holds the right to write to the bucket, of one at a time

	dirty chan struct{} // tells Run that something waits
	full  chan struct{} // tells Run that much waits

	mu      sync.Mutex
	waiting map[string]change[V] // noted since the last transaction began
	writing map[string]change[V] // in the transaction that runs; not modified
	oldest  time.Time            // when waiting ceased to be empty
	changes uint64               // Puts and Deletes so far

	written, failures, dropped, undecodable atomic.Uint64

	failed complaint // of writing
	broken complaint // of reading and of records
}

// change is what is to happen to a key on disk.
type change[V any] struct {
	value   V
	deleted bool
}

// Stats are counts since New, and of now where marked.
type Stats struct {
	Memory      int    // entries in memory, now
	Waiting     int    // changes not yet on disk, now
	Written     uint64 // changes that reached the disk
	Failures    uint64 // transactions that failed; their changes wait on
	Dropped     uint64 // changes that never go to disk: too many wait, or the key is not possible there
	Undecodable uint64 // records that did not decode and were deleted
}

// New returns an empty cache over what the bucket holds. With a DB, someone
// must call Run.
func New[V any](o Options[V]) *Cache[V] {
	if o.Size <= 0 {
		o.Size = defaultSize
	}
	if o.Interval <= 0 {
		o.Interval = defaultInterval
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	memory, _ := lru.New2Q[string, V](max(o.Size, smallestSize)) // fails for smaller sizes only
	return &Cache[V]{o: o, memory: memory, writer: make(chan struct{}, 1), waiting: map[string]change[V]{},
		dirty: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// Peek finds key in memory only. It does not allocate and keeps nothing of key.
func (c *Cache[V]) Peek(key []byte) (v V, ok bool) {
	// A view of key as a string lives for this call: Peek of the LRU compares only.
	return c.recall(unsafe.String(unsafe.SliceData(key), len(key)))
}

// recall finds key in memory and counts the use. It keeps nothing of key: the
// LRU stores the key of a Get that moves an entry to the long queue, so it is
// given the value's own.
func (c *Cache[V]) recall(key string) (v V, ok bool) {
	if v, ok = c.memory.Peek(key); ok && c.o.Key != nil {
		c.memory.Get(c.o.Key(v))
	}
	return v, ok
}

// Recent finds key in memory or among what waits to be written, without the disk.
func (c *Cache[V]) Recent(key string) (v V, ok bool) {
	if v, ok := c.recall(key); ok {
		return v, ok
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, noted := c.noted(key)
	return ch.value, noted && !ch.deleted
}

// Get looks in memory, then among what waits to be written, then in the bucket
// (and keeps it in memory). A record that does not decode is deleted with a
// warning; where the disk cannot be read, that is logged and ok is false.
func (c *Cache[V]) Get(key string) (v V, ok bool) {
	if v, ok := c.recall(key); ok || c.o.DB == nil {
		return v, ok
	}
	for range 3 {
		v, ok, settled := c.fetch(key)
		if settled {
			return v, ok
		}
	}
	// Puts of other keys came between each time. It is right, just not kept.
	v, ok, _ = c.fetch(key)
	return v, ok
}

// fetch is Get without memory. settled is false where a Put or Delete came in
// while the disk was read, so that what was read may be old and is not kept.
func (c *Cache[V]) fetch(key string) (v V, ok, settled bool) {
	c.mu.Lock()
	if ch, found := c.noted(key); found {
		if !ch.deleted {
			c.memory.Add(c.own(key, ch.value), ch.value)
		}
		c.mu.Unlock()
		return ch.value, !ch.deleted, true
	}
	before := c.changes
	c.mu.Unlock()

	data, err := c.read(key)
	if err != nil {
		c.broken.log(c.o.Log, "cache cannot be read", "bucket", c.o.Bucket, "error", err)
		return v, false, true
	}
	if data == nil {
		return v, false, true
	}
	v, err = c.o.Decode(key, data)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes != before {
		return v, err == nil, false
	}
	if err != nil {
		c.spoilt(key, err)
		return v, false, true
	}
	c.memory.Add(c.own(key, v), v)
	return v, true, true
}

// noted finds the change of a key that is not on disk yet, with c.mu held.
func (c *Cache[V]) noted(key string) (change[V], bool) {
	ch, ok := c.waiting[key]
	if !ok {
		ch, ok = c.writing[key]
	}
	return ch, ok
}

// spoilt deletes a record that did not decode, with c.mu held.
func (c *Cache[V]) spoilt(key string, err error) {
	c.undecodable.Add(1)
	c.broken.log(c.o.Log, "cache record does not decode and is dropped", "bucket", c.o.Bucket, "key", key, "error", err)
	c.note(key, change[V]{deleted: true})
}

// own returns key in a string that the cache may keep: that of the value,
// which is there anyway, or a copy, since key may be a piece of something large.
func (c *Cache[V]) own(key string, v V) string {
	if c.o.Key != nil {
		if k := c.o.Key(v); k == key {
			return k
		}
	}
	return strings.Clone(key)
}

// Put stores v in memory at once and on disk within Interval.
func (c *Cache[V]) Put(key string, v V) {
	key = c.own(key, v)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory.Add(key, v)
	c.note(key, change[V]{value: v})
}

// Hold stores v in memory only, for a value that differs from the one under key
// in nothing that must outlive a restart. What waits to be written stays.
func (c *Cache[V]) Hold(key string, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++ // so that no Get that reads the disk now puts the old value back
	c.memory.Add(c.own(key, v), v)
}

// Delete removes key from both.
func (c *Cache[V]) Delete(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory.Remove(key)
	c.note(strings.Clone(key), change[V]{deleted: true})
}

// Len returns the number of entries in memory.
func (c *Cache[V]) Len() int { return c.memory.Len() }

// Stats returns the counts.
func (c *Cache[V]) Stats() Stats {
	s := Stats{Memory: c.memory.Len(), Written: c.written.Load(), Failures: c.failures.Load(),
		Dropped: c.dropped.Load(), Undecodable: c.undecodable.Load()}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Waiting = len(c.waiting) + len(c.writing)
	return s
}

// Flush returns when all that was put before is on disk, or with why it is
// not. It may outlast ctx by one transaction.
func (c *Cache[V]) Flush(ctx context.Context) error {
	if c.o.DB == nil {
		return nil
	}
	select {
	case c.writer <- struct{}{}:
		defer func() { <-c.writer }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return c.write()
}

// Run writes behind until ctx ends, then writes what is left. It returns an
// error where that could not be written, and takes as long as the disk takes
// for three attempts. Without a DB it waits for ctx to end.
func (c *Cache[V]) Run(ctx context.Context) error {
	if c.o.DB == nil {
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.dirty:
			c.gather(ctx)
		}
	}
	var err error
	for range lastAttempts {
		if err = c.Flush(context.WithoutCancel(ctx)); err == nil {
			return nil
		}
	}
	return errors.Join(errors.New("what was remembered last is not on disk"), err)
}

// Package ledger remembers what was delivered, so that a mail server that lost
// our reply does not make us send a message twice.
//
// SMTP cannot close the gap between the remote's 250 and the moment when the
// sender has read it (RFC 1047): who loses the reply must send again. Our sender is
// the mail server beside us, and we stand in the middle: so the remote's 250 is
// on disk before the mail server reads it from us, and when the same message comes
// again for the same recipient, it gets that answer instead of a second delivery.
//
// The same message is one of the same sender and the same bytes, the topmost
// Received line of the mail server included, which has its queue id and date; where
// the mail server says its queue id, that counts too. A message that was sent
// again on purpose differs in them, and is none of the ledger's business.
//
// One goroutine writes ([Ledger.Run]). Whoever records waits for the commit, which
// takes in all that came during the one before: many deliveries share one fsync.
package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"postseal/cache/boltdb"
)

// Bucket is the bucket of the database.
const Bucket = "delivered"

const (
	// keep is a day more than the five for which mail servers usually retry
	// (RFC 5321 §4.5.4.1).
	keep = 6 * 24 * time.Hour

	// maxWaiting bounds the records that a stalled or full disk may keep in
	// memory: some 20 MB.
	maxWaiting = 50_000
)

// ErrEnded is returned by Record after Run has ended.
var ErrEnded = errors.New("the ledger of deliveries is closed")

// errFull is why a record is not even remembered in memory.
var errFull = errors.New("too many deliveries wait to be recorded")

// Digest stands for all bytes of a message as received.
type Digest [sha256.Size]byte

// Hash makes the Digest of what is written to it.
type Hash struct{ sha hash.Hash }

// NewHash returns the Hash of nothing yet.
func NewHash() *Hash { return &Hash{sha256.New()} }

// Write never fails.
func (h *Hash) Write(p []byte) (int, error) { return h.sha.Write(p) }

// Digest is that of all that was written so far.
func (h *Hash) Digest() Digest { return Digest(h.sha.Sum(nil)) }

// Key names one message for one recipient: a SHA-256.
type Key [sha256.Size]byte

// Key is that of the message for a recipient. queueID may be empty.
func (d Digest) Key(queueID, sender, recipient string) Key {
	h := sha256.New()
	for _, s := range []string{queueID, sender, recipient} { // each with its length, so that none runs into the next
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		io.WriteString(h, s)
	}
	h.Write(d[:])
	return Key(h.Sum(nil))
}

// Entry is what is known of a delivery that succeeded.
type Entry struct {
	At       time.Time
	Code     int    // of the remote's reply, 200 to 299
	Enhanced string // "2.0.0"; "" if there is none
	Text     string // printable, at most 512 bytes
}

// Ledger is safe for any number of goroutines. Set the fields, then call Run in a
// goroutine of its own; before, Record waits.
type Ledger struct {
	DB  *boltdb.DB       // with the bucket Bucket
	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: discard

	once  sync.Once
	dirty chan struct{} // something waits

	mu      sync.Mutex
	ended   bool
	waiting *batch // for the next transaction
	writing *batch // in the one that runs; nil: none does
}

// batch is what one transaction writes.
type batch struct {
	entries map[Key]Entry // not changed while it is written
	done    chan struct{} // closed after the transaction
	err     error         // of it
}

func newBatch() *batch { return &batch{entries: map[Key]Entry{}, done: make(chan struct{})} }

func (l *Ledger) init() {
	l.once.Do(func() {
		if l.Now == nil {
			l.Now = time.Now
		}
		if l.Log == nil {
			l.Log = slog.New(slog.DiscardHandler)
		}
		l.dirty = make(chan struct{}, 1)
		l.waiting = newBatch()
	})
}

// Record returns nil when the entries are on disk. After any other error than
// ErrEnded they are known until the process ends, and further attempts are made
// to write them; but for those that find too many waiting for a disk that fails.
func (l *Ledger) Record(ctx context.Context, entries map[Key]Entry) error {
	l.init()
	b, err := l.note(entries)
	if err != nil {
		return err
	}
	signal(l.dirty)
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return fmt.Errorf("record delivery: %w", context.Cause(ctx))
	}
}

// note leaves entries for the next transaction.
func (l *Ledger) note(entries map[Key]Entry) (*batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return nil, ErrEnded
	case len(l.waiting.entries)+len(entries) > maxWaiting:
		return nil, errFull
	}
	for key, e := range entries {
		l.waiting.entries[key] = e.clean()
	}
	return l.waiting, nil
}

// Lookup tells what is known of an earlier delivery. What cannot be read is not
// known: sending twice is better than not at all.
func (l *Ledger) Lookup(key Key) (Entry, bool) {
	l.init()
	l.mu.Lock()
	for _, b := range []*batch{l.waiting, l.writing} {
		if b == nil {
			continue
		}
		if e, ok := b.entries[key]; ok {
			l.mu.Unlock()
			return e, true
		}
	}
	l.mu.Unlock()

	var e Entry
	found := false
	err := l.DB.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(Bucket))
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for name, _ := c.Last(); name != nil && !found; name, _ = c.Prev() {
			if day := b.Bucket(name); day != nil {
				e, found = decode(day.Get(key[:]))
			}
		}
		return nil
	})
	if err != nil {
		l.Log.Warn("ledger of deliveries cannot be read, a retried message may be sent twice", "error", err)
		return Entry{}, false
	}
	return e, found && l.Now().Sub(e.At) < keep
}

// signal wakes who waits for ch, now or next.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

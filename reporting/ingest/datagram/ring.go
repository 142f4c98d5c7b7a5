package datagram

import (
	"sync"
	"time"
)

// received is one datagram as it came.
type received struct {
	data []byte
	at   time.Time
}

// ringChunk is how many datagrams one piece of a ring holds. A ring grows by pieces, so
// that putting one in never waits for others to be moved.
const ringChunk = 512

type chunk struct {
	items [ringChunk]received
	next  *chunk
}

// ring is a queue between one that may not wait and one that may: put never blocks,
// and refuses what is beyond its bounds.
type ring struct {
	maxItems, maxBytes int

	mu         sync.Mutex
	first      *chunk // where take stands
	last       *chunk // where put stands
	head, tail int    // in first, in last
	items      int
	bytes      int
	spare      *chunk
	ended      bool

	wake chan struct{} // of one place: something has come, or the end
}

func newRing(maxItems, maxBytes int) *ring {
	c := new(chunk)
	return &ring{maxItems: maxItems, maxBytes: maxBytes, first: c, last: c, wake: make(chan struct{}, 1)}
}

// put takes over r.data; it reports whether there was room.
func (q *ring) put(r received) bool {
	q.mu.Lock()
	if q.items >= q.maxItems || q.bytes+len(r.data) > q.maxBytes {
		q.mu.Unlock()
		return false
	}
	if q.tail == ringChunk {
		c := q.spare
		if q.spare = nil; c == nil {
			c = new(chunk)
		}
		q.last.next, q.last, q.tail = c, c, 0
	}
	q.last.items[q.tail] = r
	q.tail++
	q.items++
	q.bytes += len(r.data)
	q.mu.Unlock()
	q.signal()
	return true
}

// end says that nothing more will be put.
func (q *ring) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.signal()
}

func (q *ring) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for one; false is the end.
func (q *ring) take() (received, bool) {
	for {
		q.mu.Lock()
		if q.items > 0 {
			r := q.pop()
			q.mu.Unlock()
			return r, true
		}
		ended := q.ended
		q.mu.Unlock()
		if ended {
			return received{}, false
		}
		<-q.wake
	}
}

func (q *ring) pop() received {
	if q.head == ringChunk {
		old := q.first
		q.first, q.head = old.next, 0
		old.next = nil
		q.spare = old
	}
	r := q.first.items[q.head]
	q.first.items[q.head] = received{}
	q.head++
	q.items--
	q.bytes -= len(r.data)
	return r
}

// waiting is how many are in it.
func (q *ring) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.items
}

package maillog

import "time"

// Slot is something open in a log: a message, or a process.
type Slot[T any] struct {
	Key          string
	At           time.Time // of the last line
	Value        T
	size         int
	newer, older *Slot[T]
}

// Table holds slots by key and by age, within bounds. What does not fit any more is the
// oldest. Init makes it usable.
type Table[T any] struct {
	maxSlots, maxBytes int
	weigh              func(*T) int // about how many bytes it holds; 0: nothing is open

	byKey map[string]*Slot[T]
	ends  Slot[T] // a ring: newer is the oldest, older the newest
	bytes int
}

// Init empties the table and sets its bounds.
func (t *Table[T]) Init(maxSlots, maxBytes int, weigh func(*T) int) {
	t.maxSlots, t.maxBytes, t.weigh = maxSlots, maxBytes, weigh
	t.byKey = map[string]*Slot[T]{}
	t.ends.newer, t.ends.older = &t.ends, &t.ends
	t.bytes = 0
}

// Len is how many there are.
func (t *Table[T]) Len() int { return len(t.byKey) }

// Has reports whether there is a slot of that key.
func (t *Table[T]) Has(key string) bool { return t.byKey[key] != nil }

// Find returns a slot, or nil. It does not allocate.
func (t *Table[T]) Find(key []byte) *Slot[T] { return t.byKey[string(key)] }

// Get returns a slot, a new one if there is none, as the youngest.
func (t *Table[T]) Get(key []byte, at time.Time) *Slot[T] {
	s := t.byKey[string(key)]
	if s == nil {
		s = &Slot[T]{Key: string(key)}
		t.byKey[s.Key] = s
	} else {
		t.unlink(s)
	}
	s.At = at
	t.link(s)
	return s
}

// Put adds a slot that is not in it, as the youngest.
func (t *Table[T]) Put(s *Slot[T]) {
	t.byKey[s.Key] = s
	t.link(s)
	s.size = len(s.Key) + t.weigh(&s.Value)
	t.bytes += s.size
}

func (t *Table[T]) link(s *Slot[T]) {
	s.older, s.newer = t.ends.older, &t.ends
	s.older.newer, t.ends.older = s, s
}

func (t *Table[T]) unlink(s *Slot[T]) {
	s.older.newer, s.newer.older = s.newer, s.older
}

// Remove takes a slot out.
func (t *Table[T]) Remove(s *Slot[T]) {
	t.unlink(s)
	delete(t.byKey, s.Key)
	t.bytes -= s.size
}

// Oldest is the slot that nothing was heard of for longest; nil: there is none.
func (t *Table[T]) Oldest() *Slot[T] {
	if t.ends.newer == &t.ends {
		return nil
	}
	return t.ends.newer
}

// All goes from the oldest to the youngest; nothing may be added or removed meanwhile.
func (t *Table[T]) All(yield func(*Slot[T]) bool) {
	for s := t.ends.newer; s != &t.ends && yield(s); s = s.newer {
	}
}

// Settle accounts for a slot that has changed, removes it if nothing is open, and
// gives those that have to go to evicted.
func (t *Table[T]) Settle(s *Slot[T], evicted func(*T)) {
	w := t.weigh(&s.Value)
	if w == 0 {
		t.Remove(s)
		return
	}
	w += len(s.Key)
	t.bytes += w - s.size
	s.size = w
	for t.bytes > t.maxBytes || len(t.byKey) > t.maxSlots {
		s := t.Oldest()
		evicted(&s.Value)
		t.Remove(s)
	}
}

// Take moves the slots of another table in here, which was empty.
func (t *Table[T]) Take(other *Table[T]) {
	for s := other.Oldest(); s != nil; s = other.Oldest() {
		other.Remove(s)
		t.Put(s)
	}
}

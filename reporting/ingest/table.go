package ingest

import "time"

// slot is something open in a log: a message, or a process.
type slot[T any] struct {
	key          string
	at           time.Time // of the last line
	value        T
	size         int
	newer, older *slot[T]
}

// table holds slots by key and by age, within bounds. What does not fit any more is the
// oldest.
type table[T any] struct {
	maxSlots, maxBytes int
	weigh              func(*T) int // about how many bytes it holds; 0: nothing is open

	byKey map[string]*slot[T]
	ends  slot[T] // a ring: newer is the oldest, older the newest
	bytes int
}

func (t *table[T]) init(maxSlots, maxBytes int, weigh func(*T) int) {
	t.maxSlots, t.maxBytes, t.weigh = maxSlots, maxBytes, weigh
	t.byKey = map[string]*slot[T]{}
	t.ends.newer, t.ends.older = &t.ends, &t.ends
	t.bytes = 0
}

// len is how many there are.
func (t *table[T]) len() int { return len(t.byKey) }

// has does not allocate, nor does find.
func (t *table[T]) has(key string) bool { return t.byKey[key] != nil }

func (t *table[T]) find(key []byte) *slot[T] { return t.byKey[string(key)] }

// get returns a slot, a new one if there is none, as the youngest.
func (t *table[T]) get(key []byte, at time.Time) *slot[T] {
	s := t.byKey[string(key)]
	if s == nil {
		s = &slot[T]{key: string(key)}
		t.byKey[s.key] = s
	} else {
		t.unlink(s)
	}
	s.at = at
	t.link(s)
	return s
}

// put adds a slot that is not in it, as the youngest.
func (t *table[T]) put(s *slot[T]) {
	t.byKey[s.key] = s
	t.link(s)
	s.size = len(s.key) + t.weigh(&s.value)
	t.bytes += s.size
}

func (t *table[T]) link(s *slot[T]) {
	s.older, s.newer = t.ends.older, &t.ends
	s.older.newer, t.ends.older = s, s
}

func (t *table[T]) unlink(s *slot[T]) {
	s.older.newer, s.newer.older = s.newer, s.older
}

func (t *table[T]) remove(s *slot[T]) {
	t.unlink(s)
	delete(t.byKey, s.key)
	t.bytes -= s.size
}

func (t *table[T]) oldest() *slot[T] {
	if t.ends.newer == &t.ends {
		return nil
	}
	return t.ends.newer
}

// all goes from the oldest to the youngest; nothing may be added or removed meanwhile.
func (t *table[T]) all(yield func(*slot[T]) bool) {
	for s := t.ends.newer; s != &t.ends && yield(s); s = s.newer {
	}
}

// settle accounts for a slot that has changed, removes it if nothing is open, and
// gives those that have to go to evicted.
func (t *table[T]) settle(s *slot[T], evicted func(*T)) {
	w := t.weigh(&s.value)
	if w == 0 {
		t.remove(s)
		return
	}
	w += len(s.key)
	t.bytes += w - s.size
	s.size = w
	for t.bytes > t.maxBytes || len(t.byKey) > t.maxSlots {
		s := t.oldest()
		evicted(&s.value)
		t.remove(s)
	}
}

// take moves the slots of another table in here, which was empty.
func (t *table[T]) take(other *table[T]) {
	for s := other.oldest(); s != nil; s = other.oldest() {
		other.remove(s)
		t.put(s)
	}
}

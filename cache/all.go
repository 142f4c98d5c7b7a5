package cache

import bolt "go.etcd.io/bbolt"

// chunk is how many records All reads in one transaction: some 100 µs.
const chunk = 256

// All calls f with every value, on disk or in memory, until f returns false. Holds no lock
// and no long transaction while f runs.
//
// What was put or deleted before is seen so. What is put or deleted while All
// runs may be seen or not; no key is seen twice. Values that are only on disk
// are not taken into memory. The order is not defined.
func (c *Cache[V]) All(f func(key string, v V) bool) error {
	// Keys that may not be on disk; those met there are struck off. Bounded by
	// Size and by what may wait.
	rest := c.unsaved()
	var after []byte
	for c.o.DB != nil {
		records, err := c.next(after)
		if err != nil {
			return err
		}
		for _, r := range records {
			delete(rest, string(r.key))
			v, ok := c.newest(r)
			if ok && !f(string(r.key), v) {
				return nil
			}
		}
		if len(records) < chunk {
			break
		}
		after = records[len(records)-1].key
	}
	for key := range rest {
		v, ok, _ := c.current(key)
		if ok && !f(key, v) {
			return nil
		}
	}
	return nil
}

// unsaved returns the keys in memory and among the changes.
func (c *Cache[V]) unsaved() map[string]struct{} {
	keys := map[string]struct{}{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, changes := range []map[string]change[V]{c.waiting, c.writing} {
		for key := range changes {
			keys[key] = struct{}{}
		}
	}
	for _, key := range c.memory.Keys() {
		keys[key] = struct{}{}
	}
	return keys
}

// record is one of the bucket, copied.
type record struct{ key, data []byte }

// next reads the records that follow a key, or the first.
func (c *Cache[V]) next(after []byte) (records []record, err error) {
	err = c.o.DB.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(c.o.Bucket))
		if b == nil {
			return nil
		}
		cur := b.Cursor()
		k, v := cur.First()
		if after != nil {
			if k, v = cur.Seek(after); string(k) == string(after) {
				k, v = cur.Next()
			}
		}
		for ; k != nil && len(records) < chunk; k, v = cur.Next() {
			records = append(records, record{bytesOf(k), bytesOf(v)})
		}
		return nil
	})
	return records, err
}

// current finds the value of a key that is in memory or noted; found is false
// where only the disk can tell. Memory comes first: it is never older, and
// holds what was not noted for want of room.
func (c *Cache[V]) current(key string) (v V, ok, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.memory.Peek(key); ok {
		return v, true, true
	}
	ch, found := c.noted(key)
	return ch.value, found && !ch.deleted, found
}

// newest returns the value of a record that was read, or a newer one.
func (c *Cache[V]) newest(r record) (v V, ok bool) {
	key := string(r.key)
	if v, ok, found := c.current(key); found {
		return v, ok
	}
	v, err := c.o.Decode(key, r.data)
	if err == nil {
		return v, true
	}
	// Read again: the record may have been replaced since, and must not be
	// deleted then.
	v, ok, _ = c.fetch(key)
	return v, ok
}

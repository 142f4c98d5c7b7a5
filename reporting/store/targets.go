package store

import (
	"bytes"

	bolt "go.etcd.io/bbolt"
)

// bucketTargets is beside the days, since it outlives them.
const bucketTargets = "targets"

// Target is what is remembered of where reports go, nil if nothing is.
func (s *Store) Target(uri string) (state []byte, err error) {
	err = s.DB.View(func(tx *bolt.Tx) error {
		state = bytes.Clone(tx.Bucket([]byte(bucketTargets)).Get([]byte(uri)))
		return nil
	})
	return state, err
}

// EditTarget puts what f makes of the state in its place, and removes it where f makes
// nothing. It is on disk when EditTarget returns nil.
func (s *Store) EditTarget(uri string, f func(state []byte) []byte) error {
	return s.DB.Update(func(tx *bolt.Tx) error {
		targets := tx.Bucket([]byte(bucketTargets))
		before := targets.Get([]byte(uri))
		switch after := f(bytes.Clone(before)); {
		case bytes.Equal(before, after):
			return nil
		case len(after) == 0:
			return targets.Delete([]byte(uri))
		default:
			return targets.Put([]byte(uri), after)
		}
	})
}

// EachTarget calls f for all that something is remembered of, until it returns false.
func (s *Store) EachTarget(f func(uri string, state []byte) bool) error {
	for after := []byte(nil); ; {
		var uris []string
		var states [][]byte
		err := s.DB.View(func(tx *bolt.Tx) error {
			c := tx.Bucket([]byte(bucketTargets)).Cursor()
			key, value := c.First()
			if after != nil {
				key, value = c.Seek(append(after, 0))
			}
			for ; key != nil && len(uris) < page; key, value = c.Next() {
				uris, states = append(uris, string(key)), append(states, bytes.Clone(value))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i := range uris {
			if !f(uris[i], states[i]) {
				return nil
			}
		}
		if len(uris) < page {
			return nil
		}
		after = []byte(uris[len(uris)-1])
	}
}

// ForgetTargets removes all of whose state f says so, many in a transaction.
func (s *Store) ForgetTargets(f func(state []byte) bool) error {
	for after := []byte(nil); ; {
		seen := 0
		err := s.DB.Update(func(tx *bolt.Tx) error {
			targets := tx.Bucket([]byte(bucketTargets))
			c := targets.Cursor()
			key, value := c.First()
			if after != nil {
				key, value = c.Seek(append(bytes.Clone(after), 0))
			}
			var last []byte
			var gone [][]byte
			for seen = 0; key != nil && seen < page; key, value = c.Next() {
				seen++
				last = bytes.Clone(key)
				if f(bytes.Clone(value)) {
					gone = append(gone, last)
				}
			}
			for _, key := range gone { // a cursor may pass over one where it removes
				if err := targets.Delete(key); err != nil {
					return err
				}
			}
			after = last
			return nil
		})
		if err != nil || seen < page {
			return err
		}
	}
}

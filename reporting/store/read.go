package store

import (
	"bytes"

	bolt "go.etcd.io/bbolt"

	"postseal/reporting"
)

// Each calls f for all counts of a day, or with a domain for its alone, in the order
// of the domains, until f returns false. Entries that cannot be read are passed over.
func (s *Store) Each(day reporting.Day, domain string, f func(reporting.Key, reporting.Policy, uint64) bool) error {
	return s.DB.View(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(bucketDays)).Bucket([]byte(day.String()))
		if root == nil {
			return nil
		}
		counts, policies := root.Bucket([]byte(bucketCounts)), root.Bucket([]byte(bucketPolicies))
		if counts == nil || policies == nil {
			return nil
		}
		var prefix []byte
		if domain != "" {
			prefix = append([]byte(domain), 0)
		}
		cursor := counts.Cursor()
		for key, value := cursor.Seek(prefix); bytes.HasPrefix(key, prefix) && key != nil; key, value = cursor.Next() {
			k, ok := decodeKey(key)
			if !ok {
				continue
			}
			var p reporting.Policy
			if k.Policy != (reporting.PolicyID{}) {
				p = decodePolicy(policies.Get(k.Policy[:]))
			}
			if !f(k, p, number(value)) {
				return nil
			}
		}
		return nil
	})
}

// Days are those of which anything is known, the oldest first.
func (s *Store) Days() (days []reporting.Day, err error) {
	err = s.DB.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketDays)).ForEachBucket(func(name []byte) error {
			if d, err := reporting.ParseDay(string(name)); err == nil {
				days = append(days, d)
			}
			return nil
		})
	})
	return days, err
}

// Drop forgets a day.
func (s *Store) Drop(day reporting.Day) error {
	return s.DB.Update(func(tx *bolt.Tx) error {
		days := tx.Bucket([]byte(bucketDays))
		if days.Bucket([]byte(day.String())) == nil {
			return nil
		}
		return days.DeleteBucket([]byte(day.String()))
	})
}

// Totals are what the bounds have cost on a day.
type Totals struct {
	Domains uint64
	Merged  uint64 // sessions that are counted without their details
	Dropped uint64 // sessions that are not counted
}

// Totals of a day.
func (s *Store) Totals(day reporting.Day) (t Totals, err error) {
	err = s.DB.View(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(bucketDays)).Bucket([]byte(day.String()))
		if root == nil {
			return nil
		}
		if domains := root.Bucket([]byte(bucketDomains)); domains != nil {
			t.Domains = domains.Sequence()
		}
		t.Merged, t.Dropped = number(root.Get([]byte(keyMerged))), number(root.Get([]byte(keyDropped)))
		return nil
	})
	return t, err
}

package store

import (
	"bytes"

	bolt "go.etcd.io/bbolt"

	"postseal/reporting"
)

// page is how many counts are read in one transaction: who reads slowly, as a person
// with a pager, must not keep others from writing.
const page = 1000

// counted is a count as it was read.
type counted struct {
	raw    []byte // of key
	key    reporting.Key
	policy reporting.Policy
	n      uint64
}

// Each calls f for all counts of a day, or with a domain for its alone, in the order
// of the domains, and of a domain in that of the policies, until f returns false. What
// is counted meanwhile may be missing. Entries that cannot be read are passed over.
func (s *Store) Each(day reporting.Day, domain string, f func(reporting.Key, reporting.Policy, uint64) bool) error {
	var prefix, after []byte
	if domain != "" {
		prefix = append([]byte(domain), 0)
	}
	for {
		list, err := s.page(day, prefix, after)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, c := range list {
			if after = c.raw; c.n > 0 && !f(c.key, c.policy, c.n) {
				return nil
			}
		}
	}
}

// page reads the next counts behind a key. One that cannot be read has no number.
func (s *Store) page(day reporting.Day, prefix, after []byte) (list []counted, err error) {
	err = s.DB.View(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(bucketDays)).Bucket([]byte(day.String()))
		if root == nil {
			return nil
		}
		counts, policies := root.Bucket([]byte(bucketCounts)), root.Bucket([]byte(bucketPolicies))
		if counts == nil || policies == nil {
			return nil
		}
		cursor := counts.Cursor()
		from := prefix
		var last counted // whose policy the next one often has too: one may be 64 KiB
		if after != nil {
			from = append(bytes.Clone(after), 0) // the least of all that are greater
		}
		for key, value := cursor.Seek(from); key != nil && bytes.HasPrefix(key, prefix) && len(list) < page; key, value = cursor.Next() {
			c := counted{raw: bytes.Clone(key)}
			if k, ok := decodeKey(key); ok {
				c.key, c.n = k, number(value)
				switch k.Policy {
				case reporting.PolicyID{}:
				case last.key.Policy:
					c.policy = last.policy
				default:
					c.policy = decodePolicy(policies.Get(k.Policy[:]))
				}
				last = c
			}
			list = append(list, c)
		}
		return nil
	})
	return list, err
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

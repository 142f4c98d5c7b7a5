package store

import (
	"bytes"
	"encoding/binary"
	"errors"

	bolt "go.etcd.io/bbolt"

	"postseal/reporting"
	"postseal/reporting/tlsrpt"
)

// keyIndexed of a day says that its bucket of hosts is whole.
const keyIndexed = "indexed"

// IndexHosts finds the MX hosts of a closed day whose TLSA records sessions were held to,
// so that [Store.EachSubject] names them. It does nothing the second time.
func (s *Store) IndexHosts(day reporting.Day) error {
	done := true
	err := s.DB.View(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(bucketDays)).Bucket([]byte(day.String()))
		done = root == nil || root.Get([]byte(keyIndexed)) != nil
		return nil
	})
	if err != nil || done {
		return err
	}
	var found [][]byte
	var last string
	var broken error
	err = s.Each(day, "", func(k reporting.Key, p reporting.Policy, _ uint64) bool {
		if p.Type != tlsrpt.TLSA || p.Domain == "" || k.Standing != reporting.Reported {
			return true
		}
		entry := p.Domain + "\x00" + k.Domain
		if entry == last {
			return true
		}
		last = entry
		if found = append(found, []byte(entry)); len(found) == page {
			broken = s.addHosts(day, found, false)
			found = found[:0]
		}
		return broken == nil
	})
	if err := errors.Join(err, broken); err != nil {
		return err
	}
	return s.addHosts(day, found, true)
}

func (s *Store) addHosts(day reporting.Day, entries [][]byte, whole bool) error {
	return s.DB.Update(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(bucketDays)).Bucket([]byte(day.String()))
		if root == nil {
			return nil
		}
		hosts, err := root.CreateBucketIfNotExists([]byte(bucketHosts))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := hosts.Put(e, nil); err != nil {
				return err
			}
		}
		if !whole {
			return nil
		}
		return root.Put([]byte(keyIndexed), binary.AppendUvarint(nil, 1))
	})
}

// HostDomains are the domains whose sessions of a day were held to the TLSA records of a
// host, at most most of them.
func (s *Store) HostDomains(day reporting.Day, host string, most int) (domains []string, err error) {
	prefix := append([]byte(host), 0)
	err = s.below(day, bucketHosts, func(b *bolt.Bucket) error {
		c := b.Cursor()
		for key, _ := c.Seek(prefix); bytes.HasPrefix(key, prefix) && len(domains) < most; key, _ = c.Next() {
			domains = append(domains, string(key[len(prefix):]))
		}
		return nil
	})
	return domains, err
}

// Package store keeps what package reporting counts in a bbolt database.
//
// A bucket for each UTC day holds counts, the policies that they name, and how many
// different outcomes each domain has; it is dropped whole when the day is old, in
// one step, however large it is. Beside the days are marks: how far a log has been
// read, for instance. A batch of counts and marks is one transaction, so that a
// mark never tells of counts that are lost, nor the other way round.
//
// What strangers can multiply is bounded here, where restarts do not forget it: the
// domains of a day, the outcomes of a domain and of all (RFC 8460 §8 warns of such
// reports), and the text of policies. Counts stay exact beyond the bound, only their
// details are merged.
package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"

	"postseal/cache/boltdb"
	"postseal/reporting"
)

// Buckets are those that the database must have.
var Buckets = []string{bucketDays, bucketMarks, bucketTargets}

const (
	bucketDays  = "days"
	bucketMarks = "marks"

	// Below a day.
	bucketCounts   = "counts"
	bucketPolicies = "policies"
	bucketDomains  = "domains" // number of different keys

	keyMerged  = "merged"  // of a day: sessions whose details were left out
	keyDropped = "dropped" // … that were not counted at all
	keyText    = "text"    // bytes of its policies

	// maxDetails different outcomes of a domain and day make a report of about
	// 500 KiB before it is packed; real ones have tens.
	maxDetails = 2000
	maxDomains = 1_000_000

	// maxOutcomes of all domains of a day take some 1 GB; as many again may come without
	// details.
	maxOutcomes = 4_000_000

	// maxPolicyBytes is room for the policies of a million domains, of 250 bytes usually.
	maxPolicyBytes = 512 << 20
)

// Store is safe for any number of goroutines.
type Store struct {
	DB *boltdb.DB // with Buckets

	MaxDetails     int // of a domain and day; 0: 2000
	MaxDomains     int // of a day; 0: 1 000 000
	MaxOutcomes    int // of a day with details; 0: 4 000 000
	MaxPolicyBytes int // of a day; beyond, type and domain are kept of a policy; 0: 512 MiB

	mu      sync.Mutex // of what SetProgress writes
	waiting []*progressWrite
	writing bool
}

var _ reporting.Store = (*Store)(nil)

// Write adds a batch. All of it is on disk when Write returns nil, else nothing.
func (s *Store) Write(b reporting.Batch) error {
	return s.DB.Update(func(tx *bolt.Tx) error {
		days := tx.Bucket([]byte(bucketDays))
		for _, day := range slices.Sorted(maps.Keys(b.Counts)) {
			w, err := s.open(days, day)
			if err != nil {
				return err
			}
			if err := w.add(b.Counts[day], b.Policies); err != nil {
				return fmt.Errorf("%s: %w", day, err)
			}
		}
		marks := tx.Bucket([]byte(bucketMarks))
		for name, value := range b.Marks {
			if len(value) == 0 {
				if err := marks.Delete([]byte(name)); err != nil {
					return err
				}
				continue
			}
			if err := marks.Put([]byte(name), value); err != nil {
				return err
			}
		}
		return nil
	})
}

// Mark returns what a batch last put under a name, nil if nothing.
func (s *Store) Mark(name string) (value []byte, err error) {
	err = s.DB.View(func(tx *bolt.Tx) error {
		value = bytes.Clone(tx.Bucket([]byte(bucketMarks)).Get([]byte(name)))
		return nil
	})
	return value, err
}

// day is the buckets of one day in a write transaction.
type day struct {
	root, counts, policies, domains *bolt.Bucket
	maxDetails, maxDomains          uint64
	maxOutcomes, maxText            uint64
	known, outcomes                 uint64 // domains, and keys
	text                            uint64 // bytes of policies that are new
	merged, dropped                 uint64
}

func (s *Store) open(days *bolt.Bucket, of reporting.Day) (*day, error) {
	d := &day{maxDetails: orDefault(s.MaxDetails, maxDetails), maxDomains: orDefault(s.MaxDomains, maxDomains),
		maxOutcomes: orDefault(s.MaxOutcomes, maxOutcomes), maxText: orDefault(s.MaxPolicyBytes, maxPolicyBytes)}
	var err error
	if d.root, err = days.CreateBucketIfNotExists([]byte(of.String())); err != nil {
		return nil, err
	}
	for name, b := range map[string]**bolt.Bucket{bucketCounts: &d.counts, bucketPolicies: &d.policies, bucketDomains: &d.domains} {
		if *b, err = d.root.CreateBucketIfNotExists([]byte(name)); err != nil {
			return nil, err
		}
	}
	d.known, d.outcomes = d.domains.Sequence(), d.counts.Sequence()
	return d, nil
}

func orDefault(n, def int) uint64 {
	if n <= 0 {
		return uint64(def)
	}
	return uint64(n)
}

// add counts in the order of the keys, which keeps to few pages.
func (d *day) add(counts map[reporting.Key]uint64, policies map[reporting.PolicyID]reporting.Policy) error {
	type entry struct {
		key []byte
		of  reporting.Key
		n   uint64
	}
	list := make([]entry, 0, len(counts))
	for k, n := range counts {
		list = append(list, entry{appendKey(nil, &k), k, n})
	}
	slices.SortFunc(list, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	for _, e := range list {
		dropped := d.dropped
		if err := d.count(e.key, e.of, e.n); err != nil {
			return err
		}
		if d.dropped > dropped {
			continue
		}
		if err := d.policy(e.of.Policy, policies); err != nil {
			return err
		}
	}
	if err := errors.Join(d.domains.SetSequence(d.known), d.counts.SetSequence(d.outcomes)); err != nil {
		return err
	}
	if err := raise(d.root, keyText, d.text); err != nil {
		return err
	}
	if err := raise(d.root, keyMerged, d.merged); err != nil {
		return err
	}
	return raise(d.root, keyDropped, d.dropped)
}

// policy keeps what an ID stands for, its text while there is room.
func (d *day) policy(id reporting.PolicyID, policies map[reporting.PolicyID]reporting.Policy) error {
	if id == (reporting.PolicyID{}) || d.policies.Get(id[:]) != nil {
		return nil
	}
	p := policies[id]
	raw := encodePolicy(p)
	if number(d.root.Get([]byte(keyText)))+d.text+uint64(len(raw)) > d.maxText {
		raw = encodePolicy(reporting.Policy{Type: p.Type, Domain: p.Domain})
	} else {
		d.text += uint64(len(raw))
	}
	return d.policies.Put(id[:], raw)
}

// count adds n to a key. One more outcome than a domain may have goes to one
// without details, and only where even those are too many, as under a policy that
// changes all day, nowhere.
func (d *day) count(key []byte, k reporting.Key, n uint64) error {
	if old := d.counts.Get(key); old != nil {
		return d.counts.Put(key, binary.AppendUvarint(nil, number(old)+n))
	}
	details := number(d.domains.Get([]byte(k.Domain)))
	switch {
	case (details >= d.maxDetails || d.outcomes >= d.maxOutcomes) && !bare(&k):
		dropped := d.dropped
		k = strip(k)
		err := d.count(appendKey(nil, &k), k, n)
		d.merged += n - (d.dropped - dropped)
		return err
	case details == 0 && d.known >= d.maxDomains, details >= 2*d.maxDetails, d.outcomes >= 2*d.maxOutcomes:
		d.dropped += n
		return nil
	case details == 0:
		d.known++
	}
	d.outcomes++
	if err := d.domains.Put([]byte(k.Domain), binary.AppendUvarint(nil, details+1)); err != nil {
		return err
	}
	return d.counts.Put(key, binary.AppendUvarint(nil, n))
}

// strip leaves out what a report can do without.
func strip(k reporting.Key) reporting.Key {
	return reporting.Key{Domain: k.Domain, Policy: k.Policy, Standing: k.Standing, Source: k.Source, Result: k.Result}
}

func bare(k *reporting.Key) bool { return *k == strip(*k) }

func raise(b *bolt.Bucket, key string, n uint64) error {
	if n == 0 {
		return nil
	}
	return b.Put([]byte(key), binary.AppendUvarint(nil, number(b.Get([]byte(key)))+n))
}

// number is 0 for what is missing or damaged.
func number(value []byte) uint64 {
	n, size := binary.Uvarint(value)
	if size <= 0 {
		return 0
	}
	return n
}

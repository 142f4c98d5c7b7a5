package store

import (
	"bytes"

	bolt "go.etcd.io/bbolt"

	"postseal/reporting"
)

// Below a day, beside its counts.
const (
	bucketReports = "reports" // what became of a domain's report
	bucketHosts   = "hosts"   // MX host, zero, domain: sessions held to TLSA records of the host
	bucketMailed  = "mailed"  // domain: report mails of ours that it was sent that day
)

// Subject is what a report is about: a domain that mail went to, or with Host an MX
// host, which may want reports on its TLSA records (RFC 8460 Appendix A has such one).
type Subject struct {
	Name string
	Host bool
}

// key keeps hosts apart from domains that have the same name.
func (s Subject) key() []byte {
	if s.Host {
		return append([]byte(s.Name), "\x00mx"...)
	}
	return []byte(s.Name)
}

// Progress is what became of reports, as package daily writes it.
type Progress struct {
	Day     reporting.Day
	Subject Subject
	State   []byte

	// Mailed are the domains of the mail addresses that took the report, now.
	Mailed []string
	// Messages are the mails that are to bring it, with their Message-IDs.
	Messages []Message
	On       reporting.Day // the day that is today, which keeps both
}

// SetProgress is on disk when it returns nil, else nothing of it is. Progress of a day
// that is forgotten is forgotten too. Of several about one subject the last counts. What
// many callers bring while the disk is busy is written at once.
func (s *Store) SetProgress(list ...Progress) error {
	w := &progressWrite{list, make(chan error, 1)}
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	if s.writing {
		s.mu.Unlock()
		return <-w.done
	}
	s.writing = true
	for len(s.waiting) > 0 { // the first writes for all that come meanwhile
		list := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		err := s.writeProgress(list)
		for _, w := range list {
			w.done <- err
		}
		s.mu.Lock()
	}
	s.writing = false
	s.mu.Unlock()
	return <-w.done
}

type progressWrite struct {
	list []Progress
	done chan error
}

func (s *Store) writeProgress(list []*progressWrite) error {
	return s.DB.Update(func(tx *bolt.Tx) error {
		days := tx.Bucket([]byte(bucketDays))
		for _, w := range list {
			for i := range w.list {
				if err := w.list[i].put(days); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (p *Progress) put(days *bolt.Bucket) error {
	root := days.Bucket([]byte(p.Day.String()))
	if root == nil {
		return nil
	}
	reports, err := root.CreateBucketIfNotExists([]byte(bucketReports))
	if err != nil {
		return err
	}
	if err := reports.Put(p.Subject.key(), p.State); err != nil || len(p.Mailed)+len(p.Messages) == 0 {
		return err
	}
	today, err := days.CreateBucketIfNotExists([]byte(p.On.String()))
	if err != nil {
		return err
	}
	if err := keepMessages(today, p.Messages); err != nil || len(p.Mailed) == 0 {
		return err
	}
	mailed, err := today.CreateBucketIfNotExists([]byte(bucketMailed))
	if err != nil {
		return err
	}
	for _, domain := range p.Mailed {
		if err := raise(mailed, domain, 1); err != nil {
			return err
		}
	}
	return nil
}

// Progress is what SetProgress was last given, nil if nothing.
func (s *Store) Progress(day reporting.Day, of Subject) (state []byte, err error) {
	err = s.below(day, bucketReports, func(b *bolt.Bucket) error {
		state = bytes.Clone(b.Get(of.key()))
		return nil
	})
	return state, err
}

// Mailed is how many report mails of ours a domain was sent on a day.
func (s *Store) Mailed(day reporting.Day, domain string) (n uint64, err error) {
	err = s.below(day, bucketMailed, func(b *bolt.Bucket) error {
		n = number(b.Get([]byte(domain)))
		return nil
	})
	return n, err
}

// below reads a bucket of a day, if there is one.
func (s *Store) below(day reporting.Day, name string, f func(*bolt.Bucket) error) error {
	return s.DB.View(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(bucketDays)).Bucket([]byte(day.String()))
		if root == nil {
			return nil
		}
		if b := root.Bucket([]byte(name)); b != nil {
			return f(b)
		}
		return nil
	})
}

// EachSubject calls f for every domain of a day that sessions are known of, and then for
// every host that [Store.IndexHosts] has found, each with what became of its report (nil:
// nothing yet), until f returns false.
func (s *Store) EachSubject(day reporting.Day, f func(of Subject, state []byte) bool) error {
	for _, list := range []struct {
		bucket string
		host   bool
	}{{bucketDomains, false}, {bucketHosts, true}} {
		for after := []byte(nil); ; {
			names, states, err := s.subjects(day, list.bucket, list.host, after)
			if err != nil {
				return err
			}
			for i, name := range names {
				if !f(Subject{name, list.host}, states[i]) {
					return nil
				}
			}
			if len(names) < page {
				break
			}
			after = []byte(names[len(names)-1])
		}
	}
	return nil
}

// subjects reads the next names behind one. Those of hosts end with a zero.
func (s *Store) subjects(day reporting.Day, bucket string, host bool, after []byte) (names []string, states [][]byte, err error) {
	err = s.DB.View(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(bucketDays)).Bucket([]byte(day.String()))
		if root == nil || root.Bucket([]byte(bucket)) == nil {
			return nil
		}
		reports, cursor := root.Bucket([]byte(bucketReports)), root.Bucket([]byte(bucket)).Cursor()
		key, _ := cursor.First()
		if after != nil {
			key, _ = cursor.Seek(append(bytes.Clone(after), 1)) // behind all that begin with the name and a zero
		}
		for key != nil && len(names) < page {
			name, _, _ := bytes.Cut(key, []byte{0})
			of := Subject{string(name), host}
			var state []byte
			if reports != nil {
				state = bytes.Clone(reports.Get(of.key()))
			}
			names, states = append(names, of.Name), append(states, state)
			if key, _ = cursor.Next(); host {
				key, _ = cursor.Seek(append([]byte(of.Name), 1))
			}
		}
		return nil
	})
	return names, states, err
}

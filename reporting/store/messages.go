package store

import (
	"encoding/json"

	bolt "go.etcd.io/bbolt"

	"postseal/reporting"
)

// bucketMessages is below the day on which mails were sent: what they were, by their
// Message-IDs.
const bucketMessages = "messages"

// Message is a mail that brings a report to an address.
type Message struct {
	ID      string        `json:"-"`
	Day     reporting.Day `json:"d"`
	Subject Subject       `json:"s"`
	URI     string        `json:"u"` // of the target
}

func keepMessages(today *bolt.Bucket, list []Message) error {
	if len(list) == 0 {
		return nil
	}
	b, err := today.CreateBucketIfNotExists([]byte(bucketMessages))
	if err != nil {
		return err
	}
	for _, m := range list {
		text, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if err := b.Put([]byte(m.ID), text); err != nil {
			return err
		}
	}
	return nil
}

// Message finds a mail by its Message-ID, as long as the day on which it was sent last is
// kept.
func (s *Store) Message(id string) (m Message, ok bool, err error) {
	days, err := s.Days()
	if err != nil {
		return m, false, err
	}
	for i := len(days) - 1; i >= 0 && !ok; i-- {
		err := s.below(days[i], bucketMessages, func(b *bolt.Bucket) error {
			if text := b.Get([]byte(id)); text != nil {
				ok = json.Unmarshal(text, &m) == nil
			}
			return nil
		})
		if err != nil {
			return m, false, err
		}
	}
	m.ID = id
	return m, ok, nil
}

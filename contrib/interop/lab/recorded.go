package main

import (
	"io"
	"os"
	"path/filepath"

	"postseal/cache/boltdb"
	"postseal/policy/delivery/ledger"

	bolt "go.etcd.io/bbolt"
)

// ledgerSchema is that of cmd/postseal.
const ledgerSchema = 1

// recorded counts the deliveries in the ledger of a daemon that does not run. It
// looks at a copy, so as to change nothing.
func (d *daemon) recorded() (int, error) {
	copied := filepath.Join(d.folder, "ledger-copy.db")
	if err := copyFile(copied, filepath.Join(d.folder, "state/delivery.db")); err != nil {
		return 0, err
	}
	db, err := boltdb.Open(copied, boltdb.Options{Schema: ledgerSchema, Buckets: []string{ledger.Bucket}})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	n := 0
	err = db.View(func(tx *bolt.Tx) error {
		days := tx.Bucket([]byte(ledger.Bucket))
		return days.ForEachBucket(func(name []byte) error {
			return days.Bucket(name).ForEach(func(_, _ []byte) error { n++; return nil })
		})
	})
	return n, err
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

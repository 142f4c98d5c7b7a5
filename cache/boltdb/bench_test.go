package boltdb_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"postseal/cache/boltdb"
)

// BenchmarkOpen opens and closes a file of about 50 MB that the page cache holds.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state.db")
	db, err := boltdb.Open(path, options(nil))
	if err != nil {
		b.Fatal(err)
	}
	if err := put(db, 42_000, 1000); err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		db, err := boltdb.Open(path, options(nil))
		if err != nil {
			b.Fatal(err)
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(info.Size())/(1<<20), "MB")
}

func BenchmarkView(b *testing.B) {
	db := open(b, filepath.Join(b.TempDir(), "state.db"), options(nil))
	if err := put(db, 10_000, 200); err != nil {
		b.Fatal(err)
	}
	key := fmt.Appendf(nil, "key-%06d", 4321)
	b.ReportAllocs()
	for b.Loop() {
		err := db.View(func(tx *bolt.Tx) error {
			if tx.Bucket([]byte(bucket)).Get(key) == nil {
				return os.ErrNotExist
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpdate writes one durable record each time: two syncs of the disk.
func BenchmarkUpdate(b *testing.B) {
	db := open(b, filepath.Join(b.TempDir(), "state.db"), options(nil))
	for b.Loop() {
		if err := put(db, 1, 200); err != nil {
			b.Fatal(err)
		}
	}
}

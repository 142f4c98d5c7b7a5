// Package storetest opens the database of sessions for tests, as the daemon
// does.
package storetest

import (
	"testing"

	"postseal/cache/boltdb"
	"postseal/reporting/store"
)

// Open opens or makes the database at path and closes it when the test ends, unless
// that is done before.
func Open(t testing.TB, path string) *store.Store {
	t.Helper()
	db, err := boltdb.Open(path, boltdb.Options{Schema: 1, Buckets: store.Buckets})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &store.Store{DB: db}
}

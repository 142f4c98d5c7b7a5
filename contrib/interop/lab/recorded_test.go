package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postseal/cache/boltdb"
	"postseal/policy/delivery/ledger"
)

// The story of the kills rests on this count.
func TestRecorded(t *testing.T) {
	d := &daemon{folder: t.TempDir()}
	if err := os.Mkdir(filepath.Join(d.folder, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	db, err := boltdb.Open(filepath.Join(d.folder, "state/delivery.db"), boltdb.Options{Schema: ledgerSchema, Buckets: []string{ledger.Bucket}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	l := &ledger.Ledger{DB: db}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	entries := map[ledger.Key]ledger.Entry{}
	for _, recipient := range []string{"a@d.test", "b@d.test", "c@d.test"} {
		entries[ledger.Digest{}.Key("queue id", "s@d.test", recipient)] = ledger.Entry{At: time.Now(), Code: 250}
	}
	if err := l.Record(ctx, entries); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := d.recorded(); n != 3 || err != nil {
		t.Errorf("%d recorded, not 3: %v", n, err)
	}
}

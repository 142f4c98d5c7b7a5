package boltdb_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// The file is damaged from outside while it is open.
func TestDamageWhileOpen(t *testing.T) {
	page := int64(os.Getpagesize())
	overwrite := func(from int64) func(path string) error {
		return func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(bytes.Repeat([]byte("garbage "), len(good())/8), from)
			return errors.Join(err, f.Close())
		}
	}
	tests := []struct {
		name   string
		damage func(path string) error
	}{
		{"emptied", func(path string) error { return os.Truncate(path, 0) }},
		{"cut after the meta pages", func(path string) error { return os.Truncate(path, 2*page) }},
		{"overwritten", overwrite(0)},
		{"overwritten after the meta pages", overwrite(2 * page)},
	}
	for _, test := range tests {
		for _, writing := range []bool{false, true} {
			name := test.name + ", noticed by View"
			if writing {
				name = test.name + ", noticed by Update"
			}
			t.Run(name, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "state.db")
				if err := os.WriteFile(path, good(), 0o600); err != nil {
					t.Fatal(err)
				}
				var log bytes.Buffer
				db := open(t, path, options(&log))
				if err := test.damage(path); err != nil {
					t.Fatal(err)
				}
				var err error
				if writing {
					err = put(db, 1, 1)
				} else {
					_, err = count(db)
				}
				if err == nil || !strings.Contains(err.Error(), path) {
					t.Errorf("error %v", err)
				}
				if n, err := count(db); n != 0 || err != nil {
					t.Errorf("afterwards %d records, %v", n, err)
				}
				if err := put(db, 5, 5); err != nil {
					t.Error(err)
				}
				if n, err := count(db); n != 5 || err != nil {
					t.Errorf("after writing %d records, %v", n, err)
				}
				if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
					t.Errorf("%d errors logged: %s", n, &log)
				}
				if _, err := os.Stat(path + aside); err != nil {
					// Emptied: nothing is there to keep, but the name is.
					t.Error(err)
				}
			})
		}
	}
}

// Many readers meet the damage at once: it is set aside once, and none hangs.
func TestDamageMetByMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, good(), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	db := open(t, path, options(&log))
	if err := os.Truncate(path, 2*int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { _, _ = count(db) })
		wg.Go(func() { _ = put(db, 1, 1) })
	}
	wg.Wait()
	if _, err := count(db); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "set aside"); n != 1 {
		t.Errorf("set aside %d times: %s", n, &log)
	}
}

// A replacement that is impossible at first is made when it becomes possible.
func TestReplacedLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state.db")
	db := open(t, path, options(nil))
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := count(db); err == nil {
			t.Error("no error without a folder")
		}
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if err := put(db, 3, 3); err != nil {
		t.Error(err)
	}
	if n, err := count(db); n != 3 || err != nil {
		t.Errorf("%d records, %v", n, err)
	}
}

// A mistake of the caller is an error, and does not cost the database.
func TestPanicOfCaller(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	var log bytes.Buffer
	db := open(t, path, options(&log))
	if err := put(db, 7, 7); err != nil {
		t.Fatal(err)
	}
	mistake := func(tx *bolt.Tx) error { return tx.Bucket([]byte("no such bucket")).Put([]byte("k"), nil) }
	if err := db.View(mistake); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("View: %v", err)
	}
	if err := db.Update(mistake); err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("Update: %v", err)
	}
	// Ending the transaction early makes bbolt's own steps fail.
	_ = db.Update(func(tx *bolt.Tx) error { return tx.Commit() })
	// The file is opened again where bbolt may have kept its locks.
	if err := db.Update(func(tx *bolt.Tx) error { tx.OnCommit(func() { panic("mine") }); return nil }); err == nil {
		t.Error("no error from a panic within the commit")
	}
	if err := put(db, 8, 8); err != nil {
		t.Error(err)
	}
	if n, err := count(db); n != 8 || err != nil {
		t.Errorf("%d records, %v", n, err)
	}
	if strings.Contains(log.String(), "set aside") {
		t.Error(log.String())
	}
}

func TestErrorOfCaller(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"), options(nil))
	mine := errors.New("mine")
	if err := db.View(func(*bolt.Tx) error { return mine }); err != mine {
		t.Errorf("View: %v", err)
	}
	err := db.Update(func(tx *bolt.Tx) error {
		return errors.Join(tx.Bucket([]byte(bucket)).Put([]byte("k"), []byte("v")), mine)
	})
	if !errors.Is(err, mine) {
		t.Errorf("Update: %v", err)
	}
	if n, err := count(db); n != 0 || err != nil {
		t.Errorf("%d records, %v: the transaction was not undone", n, err)
	}
}

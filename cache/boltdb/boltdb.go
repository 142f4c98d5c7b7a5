// Package boltdb opens bbolt database files so that a bad one never stops the
// mail. It is the only opener of database files in the house.
//
// bbolt keeps one B+ tree of pages in one file, maps it into memory and trusts
// it: two meta pages carry a checksum, all others none. Each commit writes new
// pages, syncs, and then writes the older of the two meta pages, so a process
// killed at any moment leaves the state before or after a transaction, never
// between. What commits cannot guard against (a truncated copy, a bad sector,
// a stray write) makes bbolt panic, fault or run in circles. So Open first
// reads every page in use with plain reads and checks its shape (about 10 ms
// for 50 MB in the page cache), and transactions turn panics and faults into
// errors. A damaged file, or one with another schema version, is renamed to
// NAME.damaged-YYYYMMDDThhmmssZ, which is logged as an error, and an empty file
// takes its place. What was remembered is lost then, but mail flows on and the
// next start does not fail on the same file again.
//
// A file that cannot be opened for want of rights or space, or that another
// process holds, is not damaged: Open returns that error and changes nothing.
package boltdb

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// defaultMaxSize is far above what the caches and counters of a busy relay
// need (a policy takes about 1 KB), and far below what fills a disk.
const defaultMaxSize = min(4<<30, math.MaxInt)

// Options of Open.
type Options struct {
	Schema  int          // version of the contents; a file with another one is set aside
	Buckets []string     // created if missing
	MaxSize int          // bytes; 0: 4 GiB. Writes beyond it return bbolt's ErrMaxSizeReached
	Log     *slog.Logger // nil: discard
	Now     func() time.Time
}

// DB is an open database file. Its methods may be called from any number of
// goroutines.
type DB struct {
	path string
	o    Options

	current atomic.Pointer[file] // nil: closed, or a replacement could not be made
	write   sync.Mutex           // held by Update, Close and whoever replaces current
	closed  bool                 // guarded by write
}

// Open opens the file at path, or makes it (mode 0600) in a folder that must
// exist. It returns an error where the file is held by another process for
// more than a second, or cannot be opened, made or written. A damaged file is
// set aside instead, see the package comment.
func Open(path string, o Options) (*DB, error) {
	if o.MaxSize <= 0 {
		o.MaxSize = defaultMaxSize
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	db := &DB{path: path, o: o}
	g, err := db.open()
	if err != nil {
		return nil, err
	}
	db.current.Store(g)
	return db, nil
}

// Close waits for running transactions and closes the file. Later transactions
// return an error.
func (db *DB) Close() error {
	db.write.Lock()
	defer db.write.Unlock()
	db.closed = true
	g := db.current.Swap(nil)
	if g == nil {
		return nil
	}
	if err := guard(g.bolt.Close); err != nil {
		return fmt.Errorf("close state file %s: %w", db.path, err)
	}
	return nil
}

// open opens the file, setting a damaged one aside.
func (db *DB) open() (*file, error) {
	for tries := 1; ; tries++ {
		g, err := db.openOnce()
		if err == nil {
			return g, nil
		}
		// A file that was just made and is damaged again is a broken disk.
		var d *damage
		if !errors.As(err, &d) || tries == 3 {
			return nil, err
		}
	}
}

// openOnce locks, checks and opens the file. Where that shows damage, the file
// is set aside while the lock is held, so that no other process takes the name
// in between, and the damage is returned.
func (db *DB) openOnce() (*file, error) {
	f, err := lock(db.path)
	if err != nil {
		return nil, err
	}
	g := &file{os: f}
	if err := db.prepare(g); err != nil {
		if d := damageOf(err); d != nil {
			err = db.setAside(g, d)
		}
		g.discard()
		return nil, err
	}
	return g, nil
}

// prepare opens the locked file with bbolt and makes what is missing in it.
func (db *DB) prepare(g *file) error {
	info, err := g.os.Stat()
	if err != nil {
		return fmt.Errorf("open state file: %w", err)
	}
	if g.info = info; info.Size() > 0 {
		if err := check(g.os, info.Size()); err != nil {
			return fmt.Errorf("read state file %s: %w", db.path, err)
		}
	} else if err := g.room(); err != nil {
		return fmt.Errorf("make state file %s: %w", db.path, err)
	}
	if err := g.open(db.path, db.o.MaxSize); err != nil {
		return fmt.Errorf("open state file %s: %w", db.path, err)
	}
	if err := db.contents(g); err != nil {
		return fmt.Errorf("prepare state file %s: %w", db.path, err)
	}
	if info.Size() == 0 {
		return syncFolder(db.path)
	}
	return nil
}

// damageOf finds what of an error of Open means that the file itself is bad.
func damageOf(err error) *damage {
	var d *damage
	if errors.As(err, &d) {
		return d
	}
	var c *crash
	if errors.As(err, &c) {
		return &damage{c.Error()}
	}
	for _, bad := range []error{berrors.ErrInvalid, berrors.ErrVersionMismatch, berrors.ErrChecksum, berrors.ErrIncompatibleValue} {
		if errors.Is(err, bad) {
			return &damage{bad.Error()}
		}
	}
	return nil
}

// schemaBucket and schemaKey hold Options.Schema as decimal text.
const (
	schemaBucket = "_schema"
	schemaKey    = "version"
)

// contents compares the schema version and makes missing buckets. It writes
// only where something is missing.
func (db *DB) contents(g *file) error {
	missing := true
	err := g.run(false, func(tx *bolt.Tx) error {
		var err error
		missing, err = db.missing(tx)
		return err
	})
	if err != nil || !missing {
		return err
	}
	return g.run(true, func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(schemaBucket))
		if err != nil {
			return err
		}
		if err := b.Put([]byte(schemaKey), fmt.Append(nil, db.o.Schema)); err != nil {
			return err
		}
		for _, name := range db.o.Buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// missing says whether the file lacks the schema version or a bucket.
func (db *DB) missing(tx *bolt.Tx) (bool, error) {
	b := tx.Bucket([]byte(schemaBucket))
	if b == nil {
		if k, _ := tx.Cursor().First(); k != nil {
			return false, &damage{"it is a bbolt file of another program (no schema version in it)"}
		}
		return true, nil
	}
	if have, want := string(b.Get([]byte(schemaKey))), fmt.Sprint(db.o.Schema); have != want {
		return false, &damage{fmt.Sprintf("its contents have schema version %.20q, this program reads and writes version %q", have, want)}
	}
	for _, name := range db.o.Buckets {
		if tx.Bucket([]byte(name)) == nil {
			return true, nil
		}
	}
	return false, nil
}

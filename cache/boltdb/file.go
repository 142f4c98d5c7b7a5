package boltdb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	lockWait  = time.Second           // long enough for a predecessor that is closing
	lockRetry = 50 * time.Millisecond // as bbolt's own flockRetryTimeout
)

// file is one opening of the database file. After damage it is given up and
// another takes its place.
type file struct {
	os   *os.File
	info fs.FileInfo
	bolt *bolt.DB

	stuck atomic.Bool // bbolt panicked and may have left its locks held
}

// lock opens path and takes the lock that bbolt will ask for again (flock
// counts per open file, so bbolt gets it at once). It comes first since a file
// that another process is writing looks damaged.
func lock(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open state file %s: not a regular file", path)
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockRetry) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open state file: %w", err)
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && sameFile(f, path) {
			return f, nil
		}
		f.Close()
		switch {
		case err != nil && !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, fmt.Errorf("lock state file %s: %w", path, err)
		case !time.Now().Before(deadline):
			return nil, fmt.Errorf("state file %s is in use by another process: is another postseal running?", path)
		}
	}
}

// sameFile says whether path still leads to f: while we waited for the lock,
// its holder may have set the file aside.
func sameFile(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(mine, now)
}

// room finds out whether a new file can be written. On a full disk bbolt would
// leave a part of it behind, which looks damaged at the next start.
func (g *file) room() error {
	const first = 4 // pages that bbolt begins with
	_, err := g.os.WriteAt(make([]byte, first*os.Getpagesize()), 0)
	return errors.Join(err, g.os.Truncate(0))
}

// open hands the locked file to bbolt.
func (g *file) open(path string, maxSize int) error {
	return guard(func() (err error) {
		g.bolt, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout: lockWait, // the default waits for ever
			// The freelist is synced (the default): without, an opening after a
			// crash scans the whole file.
			FreelistType: bolt.FreelistArrayType,
			MaxSize:      maxSize,
			OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return g.os, nil },
		})
		return err
	})
}

// discard closes a file whose opening did not succeed, and that no one uses yet.
func (g *file) discard() {
	if g.bolt != nil && !g.stuck.Load() {
		_ = guard(g.bolt.Close)
	}
	g.release()
}

// release gives up the lock without closing the bbolt database, whose own locks
// a panic may have left held. Its mapping stays, since others may be reading
// it, and a mapping keeps the file lock: hence the explicit unlocking.
func (g *file) release() {
	_ = syscall.Flock(int(g.os.Fd()), syscall.LOCK_UN)
	g.os.Close()
}

// syncFolder makes a new or renamed name of path durable.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync folder of state file: %w", err)
	}
	defer d.Close()
	// Some file systems cannot sync a folder; none of those loses the file.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync folder of state file %s: %w", path, err)
	}
	return nil
}

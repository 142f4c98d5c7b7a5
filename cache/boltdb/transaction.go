package boltdb

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"syscall"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// View runs f in a read transaction. Keys and values are valid only until f
// returns, so f decodes or copies. f must be short (pages are not reused while
// it runs) and must not start another transaction. The error is f's own, or
// names the file. Where the file turns out damaged, this call returns an error
// and the next one finds an empty database.
func (db *DB) View(f func(*bolt.Tx) error) error {
	g := db.current.Load()
	if g == nil {
		var err error
		if g, err = db.revive(); err != nil {
			return err
		}
	}
	err := g.run(false, f)
	if !suspect(err) {
		return db.named(err)
	}
	db.write.Lock()
	defer db.write.Unlock()
	return db.settle(g, err)
}

// Update runs f in a write transaction, which is on disk when Update returns
// nil and has not happened when it returns an error from f. One runs at a time.
// What is said of View holds here too.
func (db *DB) Update(f func(*bolt.Tx) error) error {
	db.write.Lock()
	defer db.write.Unlock()
	g, err := db.revived()
	if err != nil {
		return err
	}
	err = g.run(true, f)
	if !suspect(err) {
		return db.named(err)
	}
	return db.settle(g, err)
}

// revive returns the current file, opening it again after a replacement that
// was not possible at the time, for want of space say.
func (db *DB) revive() (*file, error) {
	db.write.Lock()
	defer db.write.Unlock()
	return db.revived()
}

// revived is revive with db.write held.
func (db *DB) revived() (*file, error) {
	if db.closed {
		return nil, fmt.Errorf("state file %s: %w", db.path, berrors.ErrDatabaseNotOpen)
	}
	if g := db.current.Load(); g != nil {
		return g, nil
	}
	g, err := db.open()
	if err != nil {
		return nil, err
	}
	db.current.Store(g)
	return g, nil
}

// settle finds out what a panic, a fault or missing meta pages mean, with
// db.write held. The file decides: panics of callers also come by here, and
// must not cost them a sound database.
func (db *DB) settle(g *file, cause error) error {
	failed := fmt.Errorf("state file %s: %w", db.path, cause)
	if db.closed || db.current.Load() != g {
		return failed // someone else has seen to it
	}
	c, _ := cause.(*crash)
	err := inspect(g)
	var d *damage
	if !errors.As(err, &d) {
		db.o.Log.Error("state file transaction panicked, its contents are sound", "file", db.path, "error", cause,
			"check", err, "stack", c.trace())
		if !g.stuck.Load() {
			return failed
		}
	}
	db.current.Store(nil)
	if d != nil {
		if err := db.setAside(g, d); err != error(d) {
			db.o.Log.Error("state file cannot be replaced", "file", db.path, "error", err)
		}
	}
	g.release()
	if _, err := db.revived(); err != nil {
		db.o.Log.Error("state file cannot be opened again, will be tried with the next transaction", "file", db.path, "error", err)
	}
	return failed
}

// inspect checks the file of g as Open does.
func inspect(g *file) error {
	info, err := g.os.Stat()
	if err != nil {
		return err
	}
	return check(g.os, info.Size())
}

// crash is a panic or a memory fault inside a transaction.
type crash struct {
	value any
	stack []byte
}

func (c *crash) Error() string { return fmt.Sprintf("transaction panicked: %v", c.value) }

func (c *crash) trace() string {
	if c == nil {
		return ""
	}
	return string(c.stack)
}

// suspect says whether err, straight from run, calls for settle.
func suspect(err error) bool {
	switch err.(type) {
	case *crash, *damage:
		return true
	}
	return false
}

// bboltError is an error of bbolt itself, in contrast to one that f returned.
type bboltError struct{ err error }

func (e *bboltError) Error() string { return e.err.Error() }
func (e *bboltError) Unwrap() error { return e.err }

// named adds the file to errors that are not f's own.
func (db *DB) named(err error) error {
	if e, ok := err.(*bboltError); ok {
		return fmt.Errorf("state file %s: %w", db.path, e.err)
	}
	return err
}

// run is bbolt's View or Update in steps, so that a panic of f can be told
// from one of bbolt, which leaves the locks of bbolt held.
func (g *file) run(writable bool, f func(*bolt.Tx) error) error {
	if err := g.probe(); err != nil {
		return err
	}
	var tx *bolt.Tx
	err := guard(func() (err error) {
		tx, err = g.bolt.Begin(writable)
		return err
	})
	if err != nil {
		return g.ofBolt(err)
	}
	ended := false
	defer func() {
		if !ended { // f called runtime.Goexit, as t.FailNow does
			_ = guard(tx.Rollback)
		}
	}()
	err = guard(func() error { return f(tx) })
	ended = true
	if err != nil || !writable {
		if rollback := guard(tx.Rollback); rollback != nil {
			return g.ofBolt(rollback)
		}
		return err
	}
	return g.ofBolt(guard(tx.Commit))
}

// ofBolt marks err as bbolt's, and g as unusable where it says so.
func (g *file) ofBolt(err error) error {
	if err == nil {
		return nil
	}
	if c, ok := err.(*crash); ok {
		g.stuck.Store(true)
		return c
	}
	// The mapping was lost when the file grew; only opening it again helps.
	if errors.Is(err, berrors.ErrInvalidMapping) {
		g.stuck.Store(true)
		return &crash{value: err}
	}
	return &bboltError{err}
}

// guard calls f and returns its panic, or its fault on mapped memory, as a *crash.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = &crash{value: v, stack: debug.Stack()}
		}
	}()
	return f()
}

// probe finds out whether one meta page is left. bbolt would panic without,
// holding locks that concurrent transactions need for ending: so a file that
// was overwritten or emptied from outside is noticed before.
func (g *file) probe() error {
	_, err := newestMeta(g.os)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EIO) {
		return damaged("its first pages are gone: %v", err)
	}
	if err != nil && !suspect(err) {
		return &bboltError{err} // closed meanwhile
	}
	return err
}

package boltdb_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"postseal/cache/boltdb"
)

const bucket = "things"

// clock is the time of all set-aside names in these tests.
func clock() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

const aside = ".damaged-20260304T050607Z"

func options(log *bytes.Buffer) boltdb.Options {
	o := boltdb.Options{Schema: 2, Buckets: []string{bucket, "more"}, Now: clock}
	if log != nil {
		o.Log = slog.New(slog.NewTextHandler(log, nil))
	}
	return o
}

func open(t testing.TB, path string, o boltdb.Options) *boltdb.DB {
	t.Helper()
	db, err := boltdb.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func put(db *boltdb.DB, n int, size int) error {
	return db.Update(func(tx *bolt.Tx) error {
		for i := range n {
			if err := tx.Bucket([]byte(bucket)).Put(fmt.Appendf(nil, "key-%06d", i), bytes.Repeat([]byte{byte(i)}, size)); err != nil {
				return err
			}
		}
		return nil
	})
}

func count(db *boltdb.DB) (n int, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error { n++; return nil })
	})
	return n, err
}

// good returns the bytes of a file with branch, leaf, inline and free pages.
var good = sync.OnceValue(func() []byte {
	dir, err := os.MkdirTemp("", "boltdb")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "good.db")
	db, err := boltdb.Open(path, options(nil))
	if err != nil {
		panic(err)
	}
	// Twice, so that there are free pages; 300 records take several leaves.
	if err := errors.Join(put(db, 400, 40), put(db, 300, 60), db.Close()); err != nil {
		panic(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return b
})

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new.db")
	db, err := boltdb.Open(path, options(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := put(db, 10, 10); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}

	o := options(nil)
	o.Buckets = append(o.Buckets, "later")
	db = open(t, path, o)
	if n, err := count(db); n != 10 || err != nil {
		t.Errorf("%d records, %v", n, err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		if tx.Bucket([]byte("later")) == nil {
			return errors.New("the bucket added later is missing")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOpenEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "empty.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if n, err := count(open(t, path, options(&log))); n != 0 || err != nil || log.Len() > 0 {
		t.Errorf("%d records, %v, log %s", n, err, &log)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	bad := func(name, path, want string) {
		t.Run(name, func(t *testing.T) {
			db, err := boltdb.Open(path, options(nil))
			if err == nil {
				db.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %q should name %q and %s", err, want, path)
			}
		})
	}
	kept := filepath.Join(dir, "kept.db")
	if err := os.WriteFile(kept, good(), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, kept, options(nil))
	loop := filepath.Join(dir, "loop.db")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	bad("folder is missing", filepath.Join(dir, "no", "x.db"), "no such file or directory")
	bad("folder is a file", filepath.Join(kept, "x.db"), "not a directory")
	bad("a folder", dir, "not a regular file")
	bad("a device", "/dev/null", "not a regular file")
	bad("a link to itself", loop, "too many levels")
	bad("in use", kept, "is another postseal running?")
	if os.Geteuid() != 0 {
		closed := filepath.Join(dir, "closed.db")
		if err := os.WriteFile(closed, good(), 0); err != nil {
			t.Fatal(err)
		}
		bad("no permission", closed, "permission denied")
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*damaged*")); len(names) > 0 {
		t.Errorf("set aside: %q", names)
	}
}

func TestSetAside(t *testing.T) {
	page := os.Getpagesize()
	change := func(f func(b []byte)) func() []byte {
		return func() []byte { b := bytes.Clone(good()); f(b); return b }
	}
	cut := func(n int) func() []byte { return func() []byte { return bytes.Clone(good()[:n]) } }
	// pages calls f with each page that has the flags, from page 2 on.
	pages := func(flags byte, f func(p []byte)) func() []byte {
		return change(func(b []byte) {
			for at := 2 * page; at < len(b); at += page {
				if b[at+8] == flags {
					f(b[at : at+page])
				}
			}
		})
	}
	tests := []struct {
		name string
		file func() []byte
	}{
		{"one byte", cut(1)},
		{"garbage", func() []byte { return bytes.Repeat([]byte("garbage "), 5000) }},
		{"text", func() []byte { return []byte("overrides = []\n") }},
		{"zeroes", func() []byte { return make([]byte, 32<<10) }},
		{"cut in the first meta page", cut(page - 1)},
		{"cut after the first meta page", cut(page)},
		{"cut after the meta pages", cut(2 * page)},
		{"cut in the middle", cut(6*page + 17)},
		{"both meta pages changed", change(func(b []byte) { b[40]++; b[page+40]++ })},
		{"both magics changed", change(func(b []byte) { b[16]++; b[page+16]++ })},
		{"both versions changed", change(func(b []byte) { b[20]++; b[page+20]++ })},
		{"branch pages overwritten", pages(1, func(p []byte) { clear(p) })},
		{"branch page leads to itself", pages(1, func(p []byte) { copy(p[16+8:16+16], p[:8]) })},
		{"branch page leads out of the file", pages(1, func(p []byte) { p[16+8+5] = 1 })},
		{"branch page leads far", pages(1, func(p []byte) { p[16+8+1] = 1 })},
		{"branch page is empty", pages(1, func(p []byte) { p[10], p[11] = 0, 0 })},
		{"leaf pages overwritten", pages(2, func(p []byte) { clear(p) })},
		{"leaf pages with a wrong number", pages(2, func(p []byte) { p[0]++ })},
		{"leaf pages claim to be branches", pages(2, func(p []byte) { p[8] = 1 })},
		{"leaf pages with too many elements", pages(2, func(p []byte) { p[10], p[11] = 255, 255 })},
		{"leaf pages with overflow", pages(2, func(p []byte) { p[15] = 255 })},
		{"keys out of the page", pages(2, func(p []byte) { p[16+4+3] = 128 })},
		{"keys of 2 GB", pages(2, func(p []byte) { p[16+8+3] = 127 })},
		{"values of 2 GB", pages(2, func(p []byte) { p[16+12+3] = 127 })},
		{"freelist of another type", pages(16, func(p []byte) { p[8] = 2 })},
		{"freelist too long", pages(16, func(p []byte) { p[10], p[11] = 254, 255 })},
		{"freelist far too long", pages(16, func(p []byte) { p[10], p[11] = 255, 255; p[16+7] = 255 })},
		{"freelist holds meta page", pages(16, func(p []byte) { copy(p[16:24], make([]byte, 8)); p[10] = max(p[10], 1) })},
		{"freelist holds page behind the end", pages(16, func(p []byte) { p[16+6] = 1; p[10] = max(p[10], 1) })},
		{"freelist holds itself", pages(16, func(p []byte) { copy(p[16:24], p[:8]); p[10] = max(p[10], 1) })},
		{"older schema", func() []byte { return fileOf(t, boltdb.Options{Schema: 1}) }},
		{"newer schema", func() []byte { return fileOf(t, boltdb.Options{Schema: 3}) }},
		{"another program's", func() []byte { return foreign(t) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			content := test.file()
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			db := open(t, path, options(&log))
			if n, err := count(db); n != 0 || err != nil {
				t.Errorf("%d records, %v", n, err)
			}
			if err := put(db, 10, 10); err != nil {
				t.Error(err)
			}
			if kept, err := os.ReadFile(path + aside); err != nil || !bytes.Equal(kept, content) {
				t.Errorf("not kept as it was: %d bytes of %d, %v", len(kept), len(content), err)
			}
			if line := log.String(); strings.Count(line, "level=ERROR") != 1 || !strings.Contains(line, "file="+path+" kept_as="+path+aside) {
				t.Errorf("log: %s", line)
			}
		})
	}
}

// fileOf returns the bytes of a file made with other options.
func fileOf(t *testing.T, o boltdb.Options) []byte {
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := boltdb.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return read(t, path)
}

// foreign returns the bytes of a bbolt file that boltdb did not make.
func foreign(t *testing.T) []byte {
	path := filepath.Join(t.TempDir(), "foreign.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte(bucket)); return err })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return read(t, path)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSetAsideKeepsEarlierOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	for i := range 3 {
		if err := os.WriteFile(path, fmt.Appendf(nil, "garbage %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := boltdb.Open(path, options(nil))
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
	}
	for i, name := range []string{aside, aside + "-2", aside + "-3"} {
		if got, want := string(read(t, path+name)), fmt.Sprintf("garbage %d", i); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
}

// One bad meta page is what a kill in the middle of a commit leaves.
func TestOneMetaPageIsEnough(t *testing.T) {
	for meta := range 2 {
		path := filepath.Join(t.TempDir(), "state.db")
		b := bytes.Clone(good())
		b[meta*os.Getpagesize()+40]++
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := count(open(t, path, options(nil))); n < 300 || err != nil {
			t.Errorf("without meta page %d: %d records, %v", meta, n, err)
		}
	}
}

func TestMaxSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	o := options(nil)
	o.MaxSize = 256 << 10
	db := open(t, path, o)
	if err := put(db, 100, 10); err != nil {
		t.Fatal(err)
	}
	if err := put(db, 100, 10_000); !errors.Is(err, berrors.ErrMaxSizeReached) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
	if n, err := count(db); n != 100 || err != nil {
		t.Errorf("%d records, %v", n, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > int64(o.MaxSize) {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

func TestClosed(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"), options(nil))
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if _, err := count(db); !errors.Is(err, berrors.ErrDatabaseNotOpen) {
		t.Errorf("View: %v", err)
	}
	if err := put(db, 1, 1); !errors.Is(err, berrors.ErrDatabaseNotOpen) {
		t.Errorf("Update: %v", err)
	}
}

package cache_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"postseal/cache"
	"postseal/cache/boltdb"
)

const bucket = "entries"

// entry is a value that knows its key, as the values of the house do.
type entry struct {
	name    string
	version uint64
	text    string
}

func appendEntry(dst []byte, e *entry) []byte {
	return append(binary.BigEndian.AppendUint64(dst, e.version), e.text...)
}

func decodeEntry(key string, data []byte) (*entry, error) {
	if len(data) < 8 {
		return nil, errors.New("too short")
	}
	return &entry{key, binary.BigEndian.Uint64(data), string(data[8:])}, nil
}

func named(name string) *entry { return &entry{name: name, version: 1, text: "text of " + name} }

func openDB(t testing.TB, path string, maxSize int) *boltdb.DB {
	t.Helper()
	db, err := boltdb.Open(path, boltdb.Options{Schema: 1, Buckets: []string{bucket}, MaxSize: maxSize})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func newDB(t testing.TB) *boltdb.DB { return openDB(t, filepath.Join(t.TempDir(), "state.db"), 0) }

// over returns a cache over db, which may be nil, with room for size entries.
func over(db *boltdb.DB, size int, log ...*bytes.Buffer) *cache.Cache[*entry] {
	o := cache.Options[*entry]{DB: db, Bucket: bucket, Size: size, Append: appendEntry, Decode: decodeEntry,
		Key: func(e *entry) string { return e.name }}
	for _, b := range log {
		o.Log = slog.New(slog.NewTextHandler(b, nil))
	}
	return cache.New(o)
}

func flush(t testing.TB, c *cache.Cache[*entry]) {
	t.Helper()
	if err := c.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// onDisk returns the versions in the bucket.
func onDisk(t testing.TB, db *boltdb.DB) map[string]uint64 {
	t.Helper()
	found := map[string]uint64{}
	err := db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
			e, err := decodeEntry(string(k), v)
			if err == nil {
				found[e.name] = e.version
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func all(t testing.TB, c *cache.Cache[*entry]) map[string]uint64 {
	t.Helper()
	found := map[string]uint64{}
	err := c.All(func(key string, e *entry) bool {
		if _, twice := found[key]; twice || key != e.name {
			t.Errorf("%s (%s) again or misnamed", key, e.name)
		}
		found[key] = e.version
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestMemoryOnly(t *testing.T) {
	c := over(nil, 10)
	c.Put("a.example", named("a.example"))
	c.Put("b.example", named("b.example"))
	c.Delete("b.example")
	for _, get := range []func(string) (*entry, bool){c.Get, func(k string) (*entry, bool) { return c.Peek([]byte(k)) }} {
		if e, ok := get("a.example"); !ok || e.text != "text of a.example" {
			t.Errorf("a: %v, %v", e, ok)
		}
		if e, ok := get("b.example"); ok {
			t.Errorf("deleted b: %v", e)
		}
	}
	if d := cmp.Diff(map[string]uint64{"a.example": 1}, all(t, c)); d != "" || c.Len() != 1 {
		t.Error(c.Len(), d)
	}
	flush(t, c)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(cache.Stats{Memory: 1}, c.Stats()); d != "" {
		t.Error(d)
	}
}

func TestRemembersOverRestart(t *testing.T) {
	db := newDB(t)
	c := over(db, 10)
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		c.Put(name, named(name))
	}
	c.Delete("b.example")
	flush(t, c)
	c.Delete("c.example")
	flush(t, c)
	if d := cmp.Diff(cache.Stats{Memory: 1, Written: 4}, c.Stats()); d != "" {
		t.Error(d)
	}

	c = over(db, 10)
	if _, ok := c.Peek([]byte("a.example")); ok {
		t.Error("Peek read the disk")
	}
	if e, ok := c.Get("a.example"); !ok || *e != *named("a.example") {
		t.Errorf("Get: %v, %v", e, ok)
	}
	if _, ok := c.Peek([]byte("a.example")); !ok {
		t.Error("Get did not keep a in memory")
	}
	for _, name := range []string{"b.example", "c.example", "d.example", ""} {
		if e, ok := c.Get(name); ok {
			t.Errorf("%q: %v", name, e)
		}
	}
}

// What memory has no room for is found among what waits, then on disk.
func TestPushedOutOfMemory(t *testing.T) {
	c := over(newDB(t), 4)
	for i := range 100 {
		c.Put(fmt.Sprint(i), named(fmt.Sprint(i)))
	}
	if c.Len() != 4 {
		t.Errorf("%d entries in memory", c.Len())
	}
	for _, when := range []string{"waiting", "on disk"} {
		for i := range 100 {
			if e, ok := c.Get(fmt.Sprint(i)); !ok || e.name != fmt.Sprint(i) {
				t.Errorf("%s: %d is %v, %v", when, i, e, ok)
			}
		}
		flush(t, c)
	}
}

// One pass over many names does not push out those in use.
func TestScanResistance(t *testing.T) {
	c := over(nil, 100)
	for i := range 20 {
		c.Put(fmt.Sprint("used-", i), named(fmt.Sprint("used-", i)))
		key := fmt.Appendf(nil, "used-%d", i)
		c.Peek(key)
		clear(key) // the cache keeps nothing of it
	}
	for i := range 10_000 {
		c.Put(fmt.Sprint("bulk-", i), named(fmt.Sprint("bulk-", i)))
	}
	for i := range 20 {
		if _, ok := c.Peek(fmt.Appendf(nil, "used-%d", i)); !ok {
			t.Errorf("used-%d is gone", i)
		}
	}
}

func TestPeekDoesNotAllocate(t *testing.T) {
	c := over(nil, 100)
	c.Put("a.example", named("a.example"))
	hit, miss := []byte("a.example"), []byte("b.example")
	if n := testing.AllocsPerRun(100, func() { c.Peek(hit); c.Peek(miss) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestUndecodable(t *testing.T) {
	spoil := func(db *boltdb.DB) {
		err := db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte("bad.example"), []byte("x")) })
		if err != nil {
			t.Fatal(err)
		}
	}
	db, log := newDB(t), &bytes.Buffer{}
	c := over(db, 10, log)
	c.Put("good.example", named("good.example"))
	flush(t, c)
	spoil(db)
	if e, ok := c.Get("bad.example"); ok {
		t.Errorf("Get: %v", e)
	}
	if line := log.String(); !strings.Contains(line, "level=WARN") || !strings.Contains(line, "key=bad.example") {
		t.Errorf("log: %s", line)
	}
	flush(t, c)
	if d := cmp.Diff(map[string]uint64{"good.example": 1}, onDisk(t, db)); d != "" {
		t.Error(d)
	}
	spoil(db)
	if d := cmp.Diff(map[string]uint64{"good.example": 1}, all(t, c)); d != "" {
		t.Error(d)
	}
	if n := c.Stats().Undecodable; n != 2 {
		t.Errorf("%d counted", n)
	}
}

func TestAll(t *testing.T) {
	c := over(newDB(t), 50)
	want := map[string]uint64{}
	put := func(from, to int, version uint64) {
		for i := from; i < to; i++ {
			e := named(fmt.Sprintf("%04d", i))
			e.version = version
			c.Put(e.name, e)
			want[e.name] = version
		}
	}
	put(0, 1000, 1) // several chunks
	flush(t, c)
	put(900, 1100, 2) // on disk and waiting, and waiting only
	for i := 100; i < 400; i++ {
		c.Delete(fmt.Sprintf("%04d", i))
		delete(want, fmt.Sprintf("%04d", i))
	}
	if d := cmp.Diff(want, all(t, c)); d != "" {
		t.Error(d)
	}
	flush(t, c)
	if d := cmp.Diff(want, all(t, c)); d != "" {
		t.Error("after Flush:", d)
	}
	if c.Len() > 50 {
		t.Errorf("All took %d entries into memory", c.Len())
	}

	n := 0
	if err := c.All(func(string, *entry) bool { n++; return n < 300 }); err != nil || n != 300 {
		t.Errorf("stopped after %d, %v", n, err)
	}
	// The callback may do everything with the cache.
	err := c.All(func(key string, e *entry) bool {
		c.Get(key)
		c.Delete(key)
		return c.Flush(context.Background()) == nil
	})
	if left := all(t, c); err != nil || len(left) > 0 {
		t.Errorf("%d left, %v", len(left), err)
	}
}

// While a transaction is held up, everything but Get from disk and Flush goes on.
func TestNeverWaitsForTheDisk(t *testing.T) {
	db := newDB(t)
	c := over(db, 10)
	c.Put("a.example", named("a.example"))
	c.Put("b.example", named("b.example"))
	held, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = db.Update(func(*bolt.Tx) error { close(held); <-goOn; return nil })
	})
	<-held
	wg.Go(func() { flush(t, c) })
	if c.Stats().Waiting != 2 {
		t.Fatal("nothing waits")
	}
	c.Put("c.example", named("c.example"))
	c.Delete("b.example")
	if _, ok := c.Peek([]byte("a.example")); !ok {
		t.Error("a is not in memory")
	}
	if _, ok := c.Get("b.example"); ok {
		t.Error("b is not deleted")
	}
	if d := cmp.Diff(map[string]uint64{"a.example": 1, "c.example": 1}, all(t, c)); d != "" {
		t.Error(d)
	}
	close(goOn)
	wg.Wait()
	flush(t, c)
	if d := cmp.Diff(map[string]uint64{"a.example": 1, "c.example": 1}, onDisk(t, db)); d != "" {
		t.Error(d)
	}
}

func TestFlushGivesUpWithContext(t *testing.T) {
	db := newDB(t)
	c := over(db, 10)
	c.Put("a.example", named("a.example"))
	held, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = db.Update(func(*bolt.Tx) error { close(held); <-goOn; return nil }) })
	<-held
	// A first Flush holds the writer once the note is taken over; the second waits for it.
	wg.Go(func() { flush(t, c) })
	ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, errors.New("no longer"))
	defer cancel()
	wg.Go(func() {
		<-ctx.Done()
		close(goOn)
	})
	if err := c.Flush(ctx); err != nil && err.Error() != "no longer" {
		t.Error(err)
	}
	wg.Wait()
}

// A newer value must never be covered by an older one from disk or by a batch
// that was on its way, however Get, Put, Flush and eviction interleave.
func TestNeverGoesBack(t *testing.T) {
	c := over(newDB(t), 4)
	const names, versions = 12, 300
	done := make(chan struct{})
	var writers, others sync.WaitGroup
	for n := range names {
		writers.Go(func() {
			for v := range uint64(versions) {
				name := fmt.Sprint(n)
				c.Put(name, &entry{name: name, version: v + 1})
			}
		})
		others.Go(func() {
			var last uint64
			for {
				select {
				case <-done:
					return
				default:
				}
				if e, ok := c.Get(fmt.Sprint(n)); ok {
					if e.version < last {
						t.Errorf("%d went back from %d to %d", n, last, e.version)
						return
					}
					last = e.version
				}
			}
		})
	}
	others.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if err := c.Flush(context.Background()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	writers.Wait()
	close(done)
	others.Wait()
	for n := range names {
		if e, ok := c.Get(fmt.Sprint(n)); !ok || e.version != versions {
			t.Errorf("%d ends with %v, %v", n, e, ok)
		}
	}
}

func TestRunWritesBehind(t *testing.T) {
	db := newDB(t)
	synctest.Test(t, func(t *testing.T) {
		c := over(db, 2000)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		c.Put("a.example", named("a.example"))
		time.Sleep(199 * time.Millisecond)
		synctest.Wait()
		if n := c.Stats().Written; n != 0 {
			t.Errorf("%d written before 200 ms", n)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := c.Stats().Written; n != 1 {
			t.Errorf("%d written after 200 ms", n)
		}
		for i := range 500 {
			c.Put(fmt.Sprint(i), named(fmt.Sprint(i)))
		}
		synctest.Wait()
		if n := c.Stats().Written; n != 501 {
			t.Errorf("%d written, 500 more should not have waited", n)
		}
		c.Put("last.example", named("last.example"))
		cancel()
		wg.Wait()
	})
	if _, ok := onDisk(t, db)["last.example"]; !ok {
		t.Error("Run ended without writing what was left")
	}
}

// TestHold: what is held is found in memory, but never written.
func TestHold(t *testing.T) {
	db := newDB(t)
	c := over(db, 10)
	c.Put("a", named("a"))
	c.Hold("a", &entry{name: "a", version: 2})
	if v, ok := c.Get("a"); !ok || v.version != 2 {
		t.Errorf("got %+v, %v", v, ok)
	}
	flush(t, c)
	if v, ok := over(db, 10).Get("a"); !ok || v.version != 1 {
		t.Errorf("on disk: %+v, %v", v, ok)
	}
	c.Hold("b", named("b"))
	flush(t, c)
	if _, ok := over(db, 10).Get("b"); ok {
		t.Error("what was only held is on disk")
	}
}

// TestRecent: what was pushed out of memory before it was written is found.
func TestRecent(t *testing.T) {
	c := over(newDB(t), 4)
	for i := range 100 {
		key := fmt.Sprint(i)
		c.Put(key, named(key))
	}
	if v, ok := c.Recent("0"); !ok || v.name != "0" {
		t.Errorf("got %+v, %v", v, ok)
	}
	c.Delete("0")
	if _, ok := c.Recent("0"); ok {
		t.Error("found after its deletion")
	}
	flush(t, c)
	if _, ok := c.Recent("1"); ok {
		t.Error("read from the disk")
	}
}

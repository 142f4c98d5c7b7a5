package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"postseal/cache/boltdb"
	"postseal/policy/delivery/ledger"
)

func open(t testing.TB, path string, maxSize int) *boltdb.DB {
	t.Helper()
	db, err := boltdb.Open(path, boltdb.Options{Schema: 1, Buckets: []string{ledger.Bucket}, MaxSize: maxSize})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// run starts a ledger; stop ends it.
func run(t testing.TB, l *ledger.Ledger) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { stop() })
	return stop
}

func sum(s string) ledger.Digest {
	h := ledger.NewHash()
	io.WriteString(h, s)
	return h.Digest()
}

func key(n int) ledger.Key {
	return sum("message").Key("", "s@a.test", fmt.Sprint("u", n, "@b.test"))
}

func entry(at time.Time) ledger.Entry {
	return ledger.Entry{At: at.Round(0), Code: 250, Enhanced: "2.0.0", Text: "mx.test[192.0.2.1] said: ok"}
}

func record(t testing.TB, l *ledger.Ledger, k ledger.Key, e ledger.Entry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.Record(ctx, map[ledger.Key]ledger.Entry{k: e}); err != nil {
		t.Error(err)
	}
}

func TestKey(t *testing.T) {
	one := sum("message").Key("Q1", "s@a.test", "u@b.test")
	if again := sum("message").Key("Q1", "s@a.test", "u@b.test"); again != one {
		t.Error("the same message has two keys")
	}
	for name, other := range map[string]ledger.Key{
		"text":             sum("messagf").Key("Q1", "s@a.test", "u@b.test"),
		"queue id":         sum("message").Key("Q2", "s@a.test", "u@b.test"),
		"no queue id":      sum("message").Key("", "s@a.test", "u@b.test"),
		"sender":           sum("message").Key("Q1", "t@a.test", "u@b.test"),
		"recipient":        sum("message").Key("Q1", "s@a.test", "v@b.test"),
		"another division": sum("message").Key("Q1", "s@a.testu", "@b.test"),
	} {
		if other == one {
			t.Errorf("another %s, the same key", name)
		}
	}
	h := ledger.NewHash()
	for _, part := range []string{"mes", "", "sage"} {
		io.WriteString(h, part)
	}
	if h.Digest() != sum("message") {
		t.Error("the digest is another in pieces")
	}
}

func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "delivery.db")
	db := open(t, path, 0)
	l := &ledger.Ledger{DB: db}
	stop := run(t, l)
	at := time.Now()
	if _, ok := l.Lookup(key(1)); ok {
		t.Error("known before it was recorded")
	}
	record(t, l, key(1), entry(at))
	record(t, l, key(2), ledger.Entry{At: at, Code: 999, Enhanced: "not one at all", Text: strings.Repeat("\x00é", 600)})
	if got, ok := l.Lookup(key(1)); !ok || !cmp.Equal(got, entry(at)) {
		t.Errorf("got %v, %v", got, ok)
	}
	if got, ok := l.Lookup(key(2)); !ok || got.Code != 250 || got.Enhanced != "" || len(got.Text) != 512 || strings.Trim(got.Text, "?") != "" {
		t.Errorf("got %v, %v", got, ok)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := l.Record(t.Context(), map[ledger.Key]ledger.Entry{key(3): entry(at)}); !errors.Is(err, ledger.ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	l = &ledger.Ledger{DB: open(t, path, 0)}
	if got, ok := l.Lookup(key(1)); !ok || !cmp.Equal(got, entry(at)) {
		t.Errorf("after a restart: got %v, %v", got, ok)
	}
}

// TestPatience: Record ends with its context, and what it left is known and written.
func TestPatience(t *testing.T) {
	l := &ledger.Ledger{DB: open(t, filepath.Join(t.TempDir(), "delivery.db"), 0)}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Record(ctx, map[ledger.Key]ledger.Entry{key(1): entry(time.Now())}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, ok := l.Lookup(key(1)); !ok {
		t.Error("not known though it waits")
	}
	stop := run(t, l)
	if err := stop(); err != nil {
		t.Error(err)
	}
	l = &ledger.Ledger{DB: l.DB}
	if _, ok := l.Lookup(key(1)); !ok {
		t.Error("not written at the end")
	}
}

// TestFullDisk: what cannot be written is an error at once, known as long as the
// process lives, and written when that is possible again.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "delivery.db")
	l := &ledger.Ledger{DB: open(t, path, 64<<10)}
	run(t, l)
	var failed int
	for n := range 2000 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := l.Record(ctx, map[ledger.Key]ledger.Entry{key(n): entry(time.Now())})
		cancel()
		if err != nil {
			failed = n
			break
		}
	}
	if failed == 0 {
		t.Fatal("2000 entries in 64 KiB")
	}
	for n := range failed + 1 {
		if _, ok := l.Lookup(key(n)); !ok {
			t.Errorf("entry %d of %d is not known", n, failed)
		}
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, filepath.Join(t.TempDir(), "delivery.db"), 0)
		l := &ledger.Ledger{DB: db}
		stop := run(t, l)
		const many = 1200 // more than one transaction drops
		start := time.Now()
		entries := map[ledger.Key]ledger.Entry{}
		for n := range many {
			entries[key(n)] = entry(time.Now())
		}
		if err := l.Record(t.Context(), entries); err != nil {
			t.Fatal(err)
		}
		time.Sleep(ledger.Keep - time.Second)
		synctest.Wait()
		if _, ok := l.Lookup(key(0)); !ok {
			t.Error("forgotten before its time")
		}
		record(t, l, key(many), entry(time.Now()))
		time.Sleep(2 * time.Second)
		if _, ok := l.Lookup(key(0)); ok {
			t.Error("known after its time")
		}
		time.Sleep(26 * time.Hour)
		synctest.Wait()
		if n := count(t, db); n != 1 {
			t.Errorf("%d entries on disk after %v, want 1", n, time.Since(start))
		}
		if _, ok := l.Lookup(key(many)); !ok {
			t.Error("the later one is gone too")
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func count(t *testing.T, db *boltdb.DB) (n int) {
	err := db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(ledger.Bucket))
		return b.ForEachBucket(func(day []byte) error {
			n += b.Bucket(day).Stats().KeyN
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
	return n
}

// TestDamage: a value that was not written by us is not known.
func TestDamage(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "delivery.db"), 0)
	l := &ledger.Ledger{DB: db}
	k := key(1)
	good := entry(time.Now()).Encode()
	values := map[string][]byte{
		"empty": {}, "another version": append([]byte{9}, good[1:]...), "cut": good[:10],
		"a code that is no success": append(append(append([]byte{}, good[:9]...), 2, 38), good[11:]...),
		"too long":                  append(append([]byte{}, good...), make([]byte, 600)...),
		"not printable":             append(append([]byte{}, good...), 7),
	}
	for name, v := range values {
		err := db.Update(func(tx *bolt.Tx) error {
			day, err := tx.Bucket([]byte(ledger.Bucket)).CreateBucketIfNotExists([]byte("2026-01-01"))
			if err != nil {
				return err
			}
			return day.Put(k[:], v)
		})
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := l.Lookup(k); ok {
			t.Errorf("%s: known as %v", name, e)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(entry(time.Unix(1e9, 5)).Encode())
	f.Add(ledger.Entry{Code: 251}.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := ledger.Decode(b)
		if !ok {
			return
		}
		if e.Code < 200 || e.Code > 299 || len(e.Text) > 512 {
			t.Errorf("%v", e)
		}
		if again, ok := ledger.Decode(e.Encode()); !ok || !cmp.Equal(again, e) {
			t.Errorf("%v became %v, %v", e, again, ok)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	for _, parallel := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(parallel), func(b *testing.B) {
			l := &ledger.Ledger{DB: open(b, filepath.Join(b.TempDir(), "delivery.db"), 0)}
			stop := run(b, l)
			var wg sync.WaitGroup
			b.ResetTimer()
			for g := range parallel {
				wg.Go(func() {
					for n := g; n < b.N; n += parallel {
						record(b, l, key(n), entry(time.Now()))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			if err := stop(); err != nil {
				b.Error(err)
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	l := &ledger.Ledger{DB: open(b, filepath.Join(b.TempDir(), "delivery.db"), 0)}
	run(b, l)
	entries := map[ledger.Key]ledger.Entry{}
	for n := range 10_000 {
		entries[key(n)] = entry(time.Now())
	}
	if err := l.Record(b.Context(), entries); err != nil {
		b.Fatal(err)
	}
	k := key(10_001)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := l.Lookup(k); ok {
			b.Fatal("known")
		}
	}
}

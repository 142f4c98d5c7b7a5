package daily_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"postseal/reporting"
	"postseal/reporting/daily"
)

// block makes all writes of progress about a day fail, by a value where the store has a
// bucket, until the function that it returns is called.
func (b *bed) block(day reporting.Day) (unblock func()) {
	b.Helper()
	name := []byte("reports")
	var kept [][2][]byte
	change := func(f func(root *bolt.Bucket) error) {
		if err := b.db.Update(func(tx *bolt.Tx) error {
			return f(tx.Bucket([]byte("days")).Bucket([]byte(day.String())))
		}); err != nil {
			b.Error(err)
		}
	}
	change(func(root *bolt.Bucket) error {
		if reports := root.Bucket(name); reports != nil {
			if err := reports.ForEach(func(k, v []byte) error {
				kept = append(kept, [2][]byte{append([]byte(nil), k...), append([]byte(nil), v...)})
				return nil
			}); err != nil {
				return err
			}
			if err := root.DeleteBucket(name); err != nil {
				return err
			}
		}
		return root.Put(name, []byte("no bucket"))
	})
	return func() {
		change(func(root *bolt.Bucket) error {
			if err := root.Delete(name); err != nil {
				return err
			}
			reports, err := root.CreateBucket(name)
			for _, e := range kept {
				if err == nil {
					err = reports.Put(e[0], e[1])
				}
			}
			return err
		})
	}
}

// Nothing is sent before it is on disk that it will be.
func TestDiskFailsBefore(t *testing.T) {
	bubble(t, func(b *bed) {
		b.asking(yesterday(), names(20)...)
		unblock := b.block(yesterday())
		b.run(6 * time.Hour)
		if len(b.arrived) > 0 {
			t.Errorf("%d reports left", len(b.arrived))
		}
		if n := strings.Count(b.log.String(), "no reports are sent while"); n != 1 {
			t.Errorf("told %d times", n)
		}
		unblock()
		b.run(time.Hour)
		if len(b.arrived) != 20 {
			t.Errorf("%d reports of 20", len(b.arrived))
		}
		time.Sleep(oneDay)
		b.asking(yesterday(), names(20)...)
		b.block(yesterday())
		b.run(6 * time.Hour)
		if n := strings.Count(b.log.String(), "no reports are sent while"); n != 2 {
			t.Errorf("told %d times, after it was over in between", n)
		}
	})
}

// What was sent and cannot be written down is not sent again, and is written later.
func TestDiskFailsAfter(t *testing.T) {
	bubble(t, func(b *bed) {
		day := yesterday()
		b.asking(day, "a.example")
		var unblock func()
		b.takes = func(context.Context, arrival) error {
			unblock = b.block(day)
			return nil
		}
		b.run(4*time.Hour + 30*time.Minute)
		if len(b.arrived) != 1 {
			t.Fatalf("%d reports", len(b.arrived))
		}
		go func() {
			time.Sleep(20 * time.Hour)
			unblock()
		}()
		b.run(22 * time.Hour)
		if p := b.state(day, "a.example"); p.State != daily.Sent || len(b.arrived) != 1 {
			t.Errorf("%+v, %d reports", p, len(b.arrived))
		}
	})
}

// A daemon that is killed between a report's arrival and the note of it warns, waits and
// sends the same report again.
func TestKilled(t *testing.T) {
	bubble(t, func(b *bed) {
		day := yesterday()
		b.asking(day, "a.example")
		left := filepath.Join(b.TempDir(), "left.db") // the database as the kill leaves it
		b.takes = func(context.Context, arrival) error {
			data, err := os.ReadFile(b.path)
			if err != nil {
				return err
			}
			return os.WriteFile(left, data, 0o600)
		}
		b.run(b.dues(day)["a.example"].Add(3 * time.Second).Sub(midnight()))
		first := b.arrived
		if len(first) != 1 {
			t.Fatalf("%d reports", len(first))
		}
		b.takes, b.arrived, b.path = nil, nil, left
		b.restart()
		if p := b.state(day, "a.example"); p.State != daily.Waiting || !p.Targets[0].Trying {
			t.Fatalf("%+v", p)
		}
		b.run(24 * time.Hour)
		if len(b.arrived) != 1 {
			t.Fatalf("%d reports", len(b.arrived))
		}
		again := b.arrived[0]
		if wait := again.at.Sub(first[0].at); wait < 7*time.Minute {
			t.Errorf("again after %v", wait)
		}
		id := func(a arrival) string { return header([]byte(a.mail), "Message-ID") }
		if again.id != first[0].id || id(again) != id(first[0]) || id(again) == "" {
			t.Errorf("%s %s, then %s %s", first[0].id, id(first[0]), again.id, id(again))
		}
		if !strings.Contains(b.log.String(), "a report may arrive twice") {
			t.Error("no warning")
		}
	})
}

// Run ends soon, whatever its targets do, and what was under way is tried again.
func TestShutdown(t *testing.T) {
	bubble(t, func(b *bed) {
		day := yesterday()
		b.askingAt(day, func(d string) string { return "https://" + d + "/" }, names(200)...)
		b.setup = func(r *daily.Reporter) { r.Spread = time.Minute }
		b.setup(b.Reporter)
		b.takes = func(ctx context.Context, a arrival) error { return stall(ctx, time.Minute) }
		b.run(15*time.Minute + 30*time.Second)
		if since := time.Since(midnight()); since > 15*time.Minute+36*time.Second {
			t.Errorf("ended %v late", since-15*time.Minute-30*time.Second)
		}
		b.takes = nil
		b.restart()
		b.run(time.Hour)
		if len(b.at()) != 200 || len(b.arrived) != 200 {
			t.Errorf("%d reports about %d of 200 domains", len(b.arrived), len(b.at()))
		}
	})
}

// A database that is gone ends Run with its error.
func TestDatabaseGone(t *testing.T) {
	bubble(t, func(b *bed) {
		b.asking(yesterday(), "a.example")
		b.db.Close()
		if err := b.Run(b.Context()); err == nil {
			t.Error("no error")
		}
	})
}

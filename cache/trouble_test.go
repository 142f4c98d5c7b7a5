package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postseal/cache"
)

// large does not fit into a file of smallFile bytes.
const smallFile = 256 << 10

func large(name string) *entry {
	return &entry{name: name, version: 2, text: strings.Repeat("x", 2*smallFile)}
}

// A failed write is tried again with what came since, and is logged once a minute.
func TestFullDisk(t *testing.T) {
	log := &bytes.Buffer{}
	db := openDB(t, filepath.Join(t.TempDir(), "state.db"), smallFile)
	synctest.Test(t, func(t *testing.T) {
		c := over(db, 4, log)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		c.Put("big.example", large("big.example"))
		for i := range 600 {
			c.Put(fmt.Sprint(i), named(fmt.Sprint(i)))
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		s := c.Stats()
		if s.Written != 0 || s.Waiting != 601 || s.Failures < 10 || s.Failures > 40 {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("%d lines: %s", n, log)
		}
		if e, ok := c.Get("big.example"); !ok || e.version != 2 {
			t.Errorf("what waits is lost: %v", ok)
		}
		c.Put("big.example", named("big.example")) // now it fits
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s := c.Stats(); s.Written != 601 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		cancel()
		wg.Wait()
	})
	if !strings.Contains(log.String(), "written again") {
		t.Error(log)
	}
	if found := onDisk(t, db); len(found) != 601 || found["big.example"] != 1 {
		t.Errorf("%d on disk, big is version %d", len(found), found["big.example"])
	}
}

// A change made while a transaction fails wins over the older one.
func TestFailedWriteGivesWayToNewer(t *testing.T) {
	db := openDB(t, filepath.Join(t.TempDir(), "state.db"), smallFile)
	c := over(db, 10)
	c.Put("big.example", large("big.example"))
	c.Put("a.example", named("a.example"))
	if err := c.Flush(context.Background()); err == nil {
		t.Fatal("no error")
	}
	c.Delete("big.example")
	flush(t, c)
	if d := cmp.Diff(map[string]uint64{"a.example": 1}, onDisk(t, db)); d != "" {
		t.Error(d)
	}
}

func TestRunSaysWhatIsNotOnDisk(t *testing.T) {
	c := over(openDB(t, filepath.Join(t.TempDir(), "state.db"), smallFile), 10)
	c.Put("big.example", large("big.example"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Run(ctx); err == nil || !strings.Contains(err.Error(), "state.db") {
		t.Errorf("error %v", err)
	}
}

// A closed database costs the disk, not the memory.
func TestClosedDatabase(t *testing.T) {
	db := newDB(t)
	c := over(db, 10)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	c.Put("a.example", named("a.example"))
	if _, ok := c.Get("a.example"); !ok {
		t.Error("not in memory")
	}
	if _, ok := c.Get("b.example"); ok {
		t.Error("found what is not there")
	}
	if err := c.Flush(context.Background()); err == nil {
		t.Error("Flush: no error")
	}
	if err := c.All(func(string, *entry) bool { return true }); err == nil {
		t.Error("All: no error")
	}
}

// A database file destroyed while open is replaced; what waits gets there.
func TestDamagedDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := openDB(t, path, 0)
	c := over(db, 10)
	c.Put("a.example", named("a.example"))
	flush(t, c)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	c.Put("b.example", named("b.example"))
	if err := c.Flush(context.Background()); err == nil {
		t.Error("no error from a destroyed file")
	}
	flush(t, c)
	if d := cmp.Diff(map[string]uint64{"b.example": 1}, onDisk(t, db)); d != "" {
		t.Error(d)
	}
}

// Keys that the file cannot hold stay in memory and hold up no others.
func TestImpossibleKeys(t *testing.T) {
	db := newDB(t)
	c := over(db, 10)
	long := strings.Repeat("x", 40_000)
	for _, name := range []string{"", long, "a.example"} {
		c.Put(name, named(name))
	}
	flush(t, c)
	for _, name := range []string{"", long, "a.example"} {
		if _, ok := c.Get(name); !ok {
			t.Errorf("%.10q is lost", name)
		}
	}
	if d := cmp.Diff(cache.Stats{Memory: 3, Written: 1, Dropped: 2}, c.Stats()); d != "" {
		t.Error(d)
	}
}

// What waits for a stalled disk is bounded; the rest lives in memory.
func TestStalledDisk(t *testing.T) {
	const most, more = 200_000, 50
	db := newDB(t)
	c := over(db, most+more)
	for i := range most + more {
		name := fmt.Sprint(i)
		c.Put(name, &entry{name: name})
	}
	first := named("0")
	c.Put("0", first) // known keys still coalesce
	c.Delete("1")
	if s := c.Stats(); s.Waiting != most || s.Dropped != more {
		t.Errorf("%+v", s)
	}
	last := fmt.Sprint(most + more - 1)
	if _, ok := c.Get(last); !ok {
		t.Error("the last is not in memory")
	}
	n := 0
	if err := c.All(func(string, *entry) bool { n++; return true }); err != nil || n != most+more-1 {
		t.Errorf("All shows %d, %v", n, err)
	}
	c.Delete(last) // deletions have room of their own
	if s := c.Stats(); s.Waiting != most+1 {
		t.Errorf("%+v", s)
	}
}

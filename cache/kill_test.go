package cache_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"postseal/cache/boltdb"
)

// childVar names the file that a re-executed test binary writes to.
const childVar = "CACHE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVar); path != "" {
		fmt.Fprintln(os.Stderr, putForEver(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// putForEver puts one entry a millisecond and prints "put NAME TIME", and in
// between "disk" when a transaction of its own got through, so that a disk
// slower than the test's bound can be told from a cache that is late.
func putForEver(path string) error {
	db, err := boltdb.Open(path, boltdb.Options{Schema: 1, Buckets: []string{bucket}})
	if err != nil {
		return err
	}
	c := over(db, 100)
	go func() { fmt.Fprintln(os.Stderr, c.Run(context.Background())) }()
	go func() {
		for range time.Tick(50 * time.Millisecond) {
			if err := db.Update(func(*bolt.Tx) error { return nil }); err == nil {
				fmt.Printf("disk - %d\n", time.Now().UnixMilli())
			}
		}
	}()
	for n := range time.Tick(time.Millisecond) {
		name := fmt.Sprint(n.UnixNano())
		c.Put(name, named(name))
		fmt.Printf("put %s %d\n", name, time.Now().UnixMilli())
	}
	return nil
}

// Whatever was put a second before a kill is on disk (Interval is 200 ms).
func TestKillLosesLessThanASecond(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			path := filepath.Join(dir, fmt.Sprint("state-", i, ".db"))
			lines := killedAfter(t, self, path, 1500*time.Millisecond+time.Duration(i)*130*time.Millisecond)
			verify(t, path, lines)
		})
	}
	wg.Wait()
}

// killedAfter returns what a child printed until it was killed.
func killedAfter(t *testing.T, self, path string, life time.Duration) (lines []string) {
	child := exec.Command(self)
	child.Env = append(os.Environ(), childVar+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	if err := child.Start(); err != nil {
		t.Error(err)
		return nil
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		if lines = append(lines, s.Text()); len(lines) == 1 {
			time.AfterFunc(life, func() { _ = child.Process.Kill() })
		}
	}
	_ = child.Wait() // says that it was killed
	return lines
}

// verify compares what was put with what the file holds.
func verify(t *testing.T, path string, lines []string) {
	put := map[string]int64{}
	var last, disk, stall int64
	for _, line := range lines {
		var what, name string
		var at int64
		if _, err := fmt.Sscan(line, &what, &name, &at); err != nil {
			t.Errorf("%q: %v", line, err)
			return
		}
		last = at
		if what == "put" {
			put[name] = at
			continue
		}
		if disk != 0 {
			stall = max(stall, at-disk)
		}
		disk = at
	}
	stall = max(stall, last-disk)
	db := openDB(t, path, 0)
	found := onDisk(t, db)
	lost, oldest := 0, int64(0)
	for name, at := range put {
		if _, ok := found[name]; !ok {
			lost++
			oldest = max(oldest, last-at)
		}
	}
	t.Logf("%d put, %d lost, the oldest %d ms before the kill; longest pause of the disk %d ms", len(put), lost, oldest, stall)
	if oldest > 1000+2*max(0, stall-200) || len(found) == 0 {
		t.Errorf("%d of %d lost, one put %d ms before the kill", lost, len(put), oldest)
	}
	if aside := strings.Join(glob(path+".*"), " "); aside != "" {
		t.Errorf("set aside: %s", aside)
	}
}

func glob(pattern string) []string {
	names, _ := filepath.Glob(pattern)
	return names
}

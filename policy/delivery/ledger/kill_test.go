package ledger_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postseal/cache/boltdb"
	"postseal/policy/delivery/ledger"
)

// childVar names the file that a re-executed test binary writes to, and startVar
// the number of its first entry.
const childVar, startVar = "LEDGER_TEST_CHILD", "LEDGER_TEST_START"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVar); path != "" {
		fmt.Fprintln(os.Stderr, recordForEver(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// recordForEver records entry after entry, several at the same time, and prints the
// number of each when Record has returned.
func recordForEver(path string) error {
	start, err := strconv.Atoi(os.Getenv(startVar))
	if err != nil {
		return err
	}
	db, err := boltdb.Open(path, boltdb.Options{Schema: 1, Buckets: []string{ledger.Bucket}})
	if err != nil {
		return err
	}
	l := &ledger.Ledger{DB: db}
	var wg sync.WaitGroup
	wg.Go(func() { l.Run(context.Background()) })
	const side = 8
	for g := range side {
		wg.Go(func() {
			for n := start + g; ; n += side {
				if l.Record(context.Background(), map[ledger.Key]ledger.Entry{key(n): entry(time.Now())}) == nil {
					fmt.Println(n)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// TestKill: whatever Record returned nil for is there after kill -9.
func TestKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "delivery.db")
	var acknowledged []int
	for round := range 15 {
		acknowledged = append(acknowledged, killed(t, self, path, round*1_000_000)...)
		db := open(t, path, 0)
		l := &ledger.Ledger{DB: db}
		for _, n := range acknowledged {
			if _, ok := l.Lookup(key(n)); !ok {
				t.Fatalf("round %d: entry %d was acknowledged and is not known", round, n)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if aside, _ := filepath.Glob(path + ".*"); len(aside) > 0 {
		t.Errorf("set aside: %q", aside)
	}
	t.Logf("%d entries recorded in 15 lives", len(acknowledged))
}

// killed runs a child until it has acknowledged a few entries and a random moment
// more, and returns all that it has acknowledged.
func killed(t *testing.T, self, path string, start int) (acknowledged []int) {
	t.Helper()
	child := exec.Command(self)
	child.Env = append(os.Environ(), childVar+"="+path, fmt.Sprint(startVar, "=", start))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines, enough := bufio.NewScanner(out), 1+rand.IntN(20)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		if acknowledged = append(acknowledged, n); len(acknowledged) == enough {
			// The pipe goes on to be read: what is in it was acknowledged.
			time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, func() { _ = child.Process.Kill() })
		}
	}
	_ = child.Wait() // says that it was killed
	return acknowledged
}

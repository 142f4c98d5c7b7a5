package boltdb_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"postseal/cache/boltdb"
)

// childVar names the file that a re-executed test binary writes to.
const childVar = "BOLTDB_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVar); path != "" {
		fmt.Fprintln(os.Stderr, writeForEver(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// writeForEver writes record after record, some of them large and some in the
// place of old ones, and prints the number of each when it is durable.
func writeForEver(path string) error {
	db, err := boltdb.Open(path, options(nil))
	if err != nil {
		return err
	}
	var next uint64
	err = db.View(func(tx *bolt.Tx) error {
		if k, _ := tx.Bucket([]byte(bucket)).Cursor().Last(); k != nil {
			next = binary.BigEndian.Uint64(k) + 1
		}
		return nil
	})
	for ; err == nil; next++ {
		err = db.Update(func(tx *bolt.Tx) error {
			if err := tx.Bucket([]byte("more")).Put(fmt.Append(nil, next%50), make([]byte, next%3000)); err != nil {
				return err
			}
			return tx.Bucket([]byte(bucket)).Put(binary.BigEndian.AppendUint64(nil, next), fmt.Append(nil, next))
		})
		if err == nil {
			fmt.Println(next)
		}
	}
	return err
}

// A process killed at any moment leaves a file that opens and holds all that
// Update acknowledged.
func TestKill(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "state.db")
	acknowledged := 0
	for round := range 20 {
		acknowledged = max(acknowledged, killedWriter(t, self, path))
		db, err := boltdb.Open(path, options(nil))
		if err != nil {
			t.Fatal(err)
		}
		held := 0
		err = db.View(func(tx *bolt.Tx) error {
			for ; tx.Bucket([]byte(bucket)).Get(binary.BigEndian.AppendUint64(nil, uint64(held))) != nil; held++ {
			}
			return <-tx.Check() // bbolt's own, complete check
		})
		if err != nil {
			t.Fatal(err)
		}
		if held <= acknowledged {
			t.Fatalf("round %d: records up to %d, but %d was acknowledged", round, held-1, acknowledged)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if aside, _ := filepath.Glob(path + ".*"); len(aside) > 0 {
		t.Errorf("set aside: %q", aside)
	}
	t.Logf("%d records written in 20 lives", acknowledged)
}

// killedWriter runs a child until it has acknowledged a few records and a
// random moment more, and returns the number of the last.
func killedWriter(t *testing.T, self, path string) (last int) {
	t.Helper()
	child := exec.Command(self)
	child.Env = append(os.Environ(), childVar+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines, enough := bufio.NewScanner(out), 1+rand.IntN(20)
	for n := 0; lines.Scan(); n++ {
		if last, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(err)
		}
		if n == enough {
			// The pipe goes on to be read: what is in it was acknowledged.
			time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, func() { _ = child.Process.Kill() })
		}
	}
	_ = child.Wait() // says that it was killed
	return last
}

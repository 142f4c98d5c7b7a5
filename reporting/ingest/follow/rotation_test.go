package follow_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// caughtUp waits until all that there is was handed out after this call.
func (r *reader) caughtUp() {
	r.t.Helper()
	for range 2 { // one may be under way
		select {
		case <-r.atEnd:
		case <-time.After(30 * time.Second):
			r.t.Fatal("not caught up")
		}
	}
}

// What comes between the first start and the first line that is read must not be
// lost by a second start.
func TestKilledBeforeTheFirstLine(t *testing.T) {
	r := newReader(t)
	r.log.Whole = false
	r.write("mail.log", "old\n")
	r.start()
	r.caughtUp()
	r.stop()
	r.write("mail.log", "a\n")
	r.start()
	r.want("a")
}

func TestKilledBeforeTheLogExists(t *testing.T) {
	r := newReader(t)
	r.log.Whole = false
	r.start()
	r.awaitStored()
	r.stop()
	r.write("mail.log", "a\n")
	r.start()
	r.want("a")
}

// awaitStored waits until there is a position.
func (r *reader) awaitStored() {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		stored := r.stored
		r.mu.Unlock()
		if stored != nil {
			return
		}
	}
	r.t.Fatal("no position")
}

// At the beginning of a file that is empty, every file has the same text before it.
func TestRotatedBeforeTheFirstLine(t *testing.T) {
	r := newReader(t)
	r.log.Whole = false
	r.write("mail.log.1", "old\n")
	r.write("mail.log", "")
	touch(t, r, "mail.log.1", "mail.log")
	r.start()
	r.caughtUp()
	r.stop()
	if err := os.Remove(r.log.Path); err != nil {
		t.Fatal(err)
	}
	r.write("mail.log.2", "") // or the new file might get the inode number of the old one
	r.write("mail.log", "a\n")
	r.start()
	r.want("a")
}

// Files beside the log that hold the same lines are no predecessors of it, as mail.info
// beside mail (SUSE).
func TestOtherFilesBesideIt(t *testing.T) {
	r := newReader(t)
	r.write("mail.log", "a\n")
	r.write("mail.log.info", "a\n")
	r.start()
	r.want("a")
	r.stop()
	r.write("mail.log", "b\n")
	r.write("mail.log.info", "b\n")
	r.rename("mail.log", "mail.log-20261128")
	r.write("mail.log", "c\n")
	r.write("mail.log.info", "c\n")
	touch(t, r, "mail.log-20261128", "mail.log", "mail.log.info")
	r.start()
	r.want("a", "b", "c")
	r.caughtUp()
	r.want("a", "b", "c")
}

// A predecessor is there twice while it is being packed.
func TestPackingUnderWay(t *testing.T) {
	text := strings.Repeat("some line of a log\n", 10_000)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(text + "b\n"))
	z.Close()
	for _, part := range []int{0, 5, packed.Len() / 2, packed.Len() - 1, packed.Len()} {
		t.Run(fmt.Sprint(part, " bytes"), func(t *testing.T) {
			r := newReader(t)
			r.write("mail.log", text)
			want := strings.Split(text, "\n")
			want = want[:len(want)-1]
			r.start()
			r.want(want...)
			r.stop()
			r.write("mail.log", "b\n")
			r.rename("mail.log", "mail.log.1")
			r.write("mail.log.1.gz", packed.String()[:part])
			r.write("mail.log", "c\n")
			touch(t, r, "mail.log.1", "mail.log.1.gz", "mail.log")
			r.start()
			r.want(append(want, "b", "c")...)
			r.caughtUp()
			r.want(append(want, "b", "c")...)
		})
	}
}

// The disk stalls for so long that the log is rotated twice.
func TestRotatedTwiceWhileTaking(t *testing.T) {
	r := newReader(t)
	r.write("mail.log", "a\n")
	r.start()
	r.want("a")
	r.mu.Lock()
	r.then = func() {
		r.rename("mail.log", "mail.log.2")
		r.write("mail.log.1", "c\n")
		r.write("mail.log", "d\n")
		touch(t, r, "mail.log.2", "mail.log.1", "mail.log")
	}
	r.mu.Unlock()
	r.write("mail.log", "b\n")
	r.want("a", "b", "c", "d")
}

// Device numbers change when the machine starts again, and a restored file has
// another inode number: it is the same log.
func TestSameLogElsewhere(t *testing.T) {
	r := newReader(t)
	var said strings.Builder
	r.log.Log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r.write("mail.log", "a\n")
	r.start()
	r.want("a")
	r.stop()
	r.rename("mail.log", "elsewhere")
	r.write("mail.log", "a\nb\n")
	if err := os.Remove(filepath.Join(filepath.Dir(r.log.Path), "elsewhere")); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.want("a", "b")
	r.stop()
	if said.Len() > 0 {
		t.Errorf("complains: %s", said.String())
	}
}

// A packed log that is damaged behind the position must not keep the others from
// being read for ever.
func TestDamagedPredecessor(t *testing.T) {
	r := stopped(t)
	r.write("mail.log", "b\n")
	r.rename("mail.log", "mail.log.1")
	r.pack("mail.log.1")
	path := filepath.Join(filepath.Dir(r.log.Path), "mail.log.1.gz")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-6] ^= 1 // of the checksum
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r.write("mail.log", "c\n")
	touch(t, r, "mail.log.1.gz", "mail.log")
	r.start()
	r.want("a", "b", "c")
}

// Before a line is read of a file, it is copied and truncated: at its beginning every
// file looks the same.
func TestCopiedBeforeTheFirstLine(t *testing.T) {
	for _, part := range []string{"", "c", "c of a line"} { // there before; nothing of it is handed out
		for at := range 6 { // looks after the renaming; at the third, the new file is opened
			t.Run(fmt.Sprintf("%q, look %d", part, at), func(t *testing.T) {
				r := newReader(t)
				atEnd, looks := r.log.AtEnd, -1
				r.log.AtEnd = func() {
					if looks == 0 {
						r.write("mail.log", " ends\nd\n")
						r.copytruncate("mail.log.2")
						r.write("mail.log", "e\nf\nand g\n")
					}
					looks--
					atEnd()
				}
				r.write("mail.log", "a\n")
				r.start()
				r.want("a")
				r.mu.Lock()
				r.then = func() {
					r.rename("mail.log", "mail.log.1")
					r.write("mail.log", part)
					touch(t, r, "mail.log.1", "mail.log")
					looks = at
				}
				r.mu.Unlock()
				r.write("mail.log", "b\n")
				r.want("a", "b", part+" ends", "d", "e", "f", "and g")
			})
		}
	}
}

// While the first lines of a long log are taken, it is copied, truncated, and grows
// beyond them.
func TestCopiedWhileTaking(t *testing.T) {
	const lines = 50_000 // of which one look hands out some thousand
	var want []string
	var text, more strings.Builder
	for n := range 2 * lines {
		line := fmt.Sprintf("line %d of the log", n)
		want = append(want, line)
		to := &text
		if n >= lines {
			to = &more
		}
		to.WriteString(line + "\n")
	}
	r := stopped(t) // has read one line
	r.write("mail.log", text.String())
	r.then = func() {
		r.copytruncate("mail.log.1")
		r.write("mail.log", more.String())
	}
	r.start()
	r.want(append([]string{"a"}, want...)...)
}

package follow_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postseal/reporting/ingest/follow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader follows a log and remembers what it got, as a program would on disk.
type reader struct {
	t    *testing.T
	log  follow.Log
	stop func()

	atEnd chan struct{} // told without waiting

	mu     sync.Mutex
	lines  []string
	stored []byte // position
	fail   error
	then   func() // is called once, before the next lines are taken
}

func newReader(t *testing.T) *reader {
	r := &reader{t: t, log: follow.Log{Path: filepath.Join(t.TempDir(), "mail.log"), Poll: time.Millisecond, Whole: true}, stop: func() {}, atEnd: make(chan struct{})}
	r.log.AtEnd = func() {
		select {
		case r.atEnd <- struct{}{}:
		default:
		}
	}
	t.Cleanup(func() { r.stop() })
	return r
}

// start goes on where the last one ended, like a daemon that was killed.
func (r *reader) start() {
	r.t.Helper()
	r.stop()
	var from follow.Position
	if r.stored != nil {
		var rest []byte
		var err error
		if from, rest, err = follow.CutPosition(r.stored); err != nil || len(rest) > 0 {
			r.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.log.Run(ctx, from, r.take) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, r.fail) {
			r.t.Error(err)
		}
	})
}

func (r *reader) take(lines []byte, behind follow.Position) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	if then := r.then; then != nil {
		r.then = nil
		then()
	}
	for line := range strings.Lines(string(lines)) {
		r.lines = append(r.lines, strings.TrimSuffix(line, "\n"))
	}
	r.stored = behind.Append(nil)
	return nil
}

func (r *reader) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// want waits until so many lines have come, and compares them all.
func (r *reader) want(lines ...string) {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second) // of a busy machine; nothing takes as long
	for len(r.got()) < len(lines) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	got := r.got()
	for i := range min(len(got), len(lines)) {
		if got[i] != lines[i] {
			r.t.Fatalf("line %d: got %.60q, want %.60q", i, got[i], lines[i])
		}
	}
	if len(got) != len(lines) {
		r.t.Fatalf("%d lines, want %d", len(got), len(lines))
	}
}

func (r *reader) write(name, text string) {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(filepath.Dir(r.log.Path), name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		r.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) rename(from, to string) {
	r.t.Helper()
	dir := filepath.Dir(r.log.Path)
	if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) pack(name string) {
	r.t.Helper()
	path := filepath.Join(filepath.Dir(r.log.Path), name)
	text, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		r.t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(text)
	if err := errors.Join(z.Close(), os.WriteFile(path+".gz", b.Bytes(), 0o600), os.Chtimes(path+".gz", info.ModTime(), info.ModTime()), os.Remove(path)); err != nil {
		r.t.Fatal(err)
	}
}

// copytruncate is what logrotate does for writers that cannot be told.
func (r *reader) copytruncate(to string) {
	r.t.Helper()
	text, err := os.ReadFile(r.log.Path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(to, string(text))
	if err := os.Truncate(r.log.Path, 0); err != nil {
		r.t.Fatal(err)
	}
}

// stopped has read one line when it was stopped.
func stopped(t *testing.T) *reader {
	r := newReader(t)
	r.write("mail.log", "a\n")
	r.start()
	r.want("a")
	r.stop()
	return r
}

func TestGrowing(t *testing.T) {
	r := newReader(t)
	r.start() // before there is a file
	r.write("mail.log", "a\nb\nhal")
	r.want("a", "b")
	r.write("mail.log", "f\n\n")
	r.want("a", "b", "half", "")
}

func TestFirstStartBeginsAtTheEnd(t *testing.T) {
	r := newReader(t)
	r.log.Whole = false
	r.write("mail.log", strings.Repeat("old\n", 50_000)+"hal")
	r.start()
	time.Sleep(20 * time.Millisecond) // would be time enough to read the old ones
	r.write("mail.log", "f\nnew\n")
	r.want("half", "new")
}

func TestRestart(t *testing.T) {
	r := stopped(t)
	r.write("mail.log", "b\n")
	r.start()
	r.want("a", "b")
}

func TestRename(t *testing.T) {
	r := newReader(t)
	r.write("mail.log", "a\n")
	r.start()
	r.want("a")
	r.rename("mail.log", "mail.log.1")
	r.write("mail.log.1", "b\nwithout end") // its writer has not been told yet
	r.want("a", "b")
	r.write("mail.log", "c\n")
	r.want("a", "b", "without end", "c")
}

func TestRenameWhileStopped(t *testing.T) {
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprint("packed ", packed), func(t *testing.T) {
			r := newReader(t)
			r.write("mail.log", strings.Repeat("x", 1000)+"\na\n")
			r.start()
			r.want(strings.Repeat("x", 1000), "a")
			r.stop()
			r.write("mail.log", "b\n")
			r.rename("mail.log", "mail.log.2")
			r.write("mail.log.1", "c\n")
			r.write("mail.log", "d\n")
			touch(t, r, "mail.log.2", "mail.log.1", "mail.log")
			if packed {
				r.pack("mail.log.2")
				touch(t, r, "mail.log.2.gz", "mail.log.1", "mail.log")
			}
			r.start()
			r.want(strings.Repeat("x", 1000), "a", "b", "c", "d")
			r.write("mail.log", "e\n")
			r.want(strings.Repeat("x", 1000), "a", "b", "c", "d", "e")
		})
	}
}

// The log has its place elsewhere, and is rotated there.
func TestSymlink(t *testing.T) {
	r := newReader(t)
	there := filepath.Join(filepath.Dir(r.log.Path), "there")
	if err := os.Mkdir(there, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("there/mail.log", r.log.Path); err != nil {
		t.Fatal(err)
	}
	r.write("there/mail.log", "a\n")
	r.start()
	r.want("a")
	r.stop()
	r.write("there/mail.log", "b\n")
	r.rename("there/mail.log", "there/mail.log.1")
	r.write("there/mail.log", "c\n")
	r.start()
	r.want("a", "b", "c")
}

// What was missed is still being read when the log is rotated once more.
func TestRotatedWhileCatchingUp(t *testing.T) {
	for name, rotate := range map[string]func(*reader){
		"copytruncate": func(r *reader) { r.copytruncate("mail.log.2") },
		"rename":       func(r *reader) { r.rename("mail.log", "mail.log.2") },
		"copy, so far": func(r *reader) { r.write("mail.log.2", "c\n") },
	} {
		t.Run(name, func(t *testing.T) {
			r := stopped(t)
			r.write("mail.log", "b\n")
			r.rename("mail.log", "mail.log.1")
			r.write("mail.log", "c\nd\n")
			touch(t, r, "mail.log.1", "mail.log")
			r.then = func() { rotate(r) }
			r.start()
			r.want("a", "b", "c", "d")
			r.write("mail.log", "e\n")
			r.want("a", "b", "c", "d", "e")
		})
	}
}

// touch gives files the order of their ages, the oldest first.
func touch(t *testing.T, r *reader, names ...string) {
	t.Helper()
	at := time.Now().Add(-time.Hour)
	for _, name := range names {
		at = at.Add(time.Minute)
		if err := os.Chtimes(filepath.Join(filepath.Dir(r.log.Path), name), at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCopytruncate(t *testing.T) {
	r := newReader(t)
	r.write("mail.log", "a\nb\n")
	r.start()
	r.want("a", "b")
	r.copytruncate("mail.log.1")
	r.write("mail.log", "c\n")
	r.want("a", "b", "c")
}

func TestCopytruncateWhileStopped(t *testing.T) {
	r := stopped(t)
	r.write("mail.log", "b\n")
	r.copytruncate("mail.log.1")
	r.write("mail.log", "c\n")
	r.start()
	r.want("a", "b", "c")
}

// The file has grown beyond where it was read to: only the hash tells.
func TestRegrown(t *testing.T) {
	r := stopped(t)
	r.write("mail.log", "b\n")
	r.copytruncate("mail.log.1")
	r.write("mail.log", "1\n2\n3\n4\n")
	r.start()
	r.want("a", "b", "1", "2", "3", "4")
}

// A new file with the old one's inode number is another one.
func TestInodeReused(t *testing.T) {
	r := stopped(t)
	text, err := os.ReadFile(r.log.Path)
	if err != nil {
		t.Fatal(err)
	}
	r.write("mail.log.1", string(text)+"b\n")                                 // as if it had been moved over file systems
	if err := os.WriteFile(r.log.Path, []byte("c\nd\n"), 0o600); err != nil { // the same inode
		t.Fatal(err)
	}
	r.start()
	r.want("a", "b", "c", "d")
}

func TestNothingLeftOfIt(t *testing.T) {
	r := stopped(t)
	if err := os.Remove(r.log.Path); err != nil {
		t.Fatal(err)
	}
	r.write("mail.log.1.gz", "not packed")
	r.write("mail.log", "another log\n")
	r.start()
	r.want("a", "another log")
}

func TestHugeLine(t *testing.T) {
	r := newReader(t)
	r.start()
	r.write("mail.log", "a\n"+strings.Repeat("x", 700<<10))
	r.want("a")
	r.stop() // in the midst of it
	r.start()
	r.write("mail.log", strings.Repeat("y", 600<<10)+"\nb\n")
	r.want("a", "b")
	r.stop()
	r.start()
	r.write("mail.log", "c\n")
	r.want("a", "b", "c")
}

func TestTakeFails(t *testing.T) {
	r := newReader(t)
	r.fail = errors.New("no")
	r.write("mail.log", "a\n")
	r.start()
	time.Sleep(10 * time.Millisecond)
	r.stop()
	r.fail = nil
	r.start()
	r.want("a")
}

func TestNoRegularFile(t *testing.T) {
	r := newReader(t)
	if err := os.Mkdir(r.log.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	r.start()
	time.Sleep(5 * time.Millisecond)
	if err := os.Remove(r.log.Path); err != nil {
		t.Fatal(err)
	}
	r.write("mail.log", "a\n")
	r.want("a")
}

// Everything at random: writes of half lines, both rotations, restarts. Whatever
// happens, each line comes once, in order.
func TestRandomRotation(t *testing.T) {
	r := newReader(t)
	random := rand.New(rand.NewPCG(1, 2))
	var want []string
	r.write("mail.log", "first\n")
	want = append(want, "first")
	r.start()
	rotation := 0
	for n := range 300 {
		line := fmt.Sprintf("line %d %s", n, strings.Repeat("x", random.IntN(600)))
		want = append(want, line)
		cut := random.IntN(len(line))
		r.write("mail.log", line[:cut])
		if random.IntN(4) == 0 {
			r.stop()
			r.start()
		}
		r.write("mail.log", line[cut:]+"\n")
		if random.IntN(8) > 0 {
			continue
		}
		r.want(want...) // else a second rotation could pass before the first was seen
		rotation++
		old := fmt.Sprintf("mail.log-%03d", rotation)
		switch random.IntN(3) {
		case 0:
			r.rename("mail.log", old)
		case 1:
			r.stop()
			r.rename("mail.log", old)
			r.pack(old)
			r.write("mail.log", "")
			r.start()
		case 2:
			r.copytruncate(old)
		}
	}
	r.want(want...)
}

func FuzzPosition(f *testing.F) {
	f.Add([]byte{})
	f.Add(follow.Position{}.Append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, rest, err := follow.CutPosition(raw)
		if err != nil {
			return
		}
		if again := append(p.Append(nil), rest...); !bytes.Equal(again, raw) {
			t.Errorf("%x becomes %x", raw, again)
		}
	})
}

package delivery

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"postseal/policy/delivery/ledger"
)

const (
	firstPiece = 4 << 10  // holds most messages of a few lines
	piece      = 16 << 10 // of what is kept in memory
	filePiece  = 32 << 10 // written at once; more takes memory in each of hundreds of sessions

	// maxInMemory is the size up to which a message is kept in memory, if there is
	// room: most mail is smaller, and what is larger the page cache keeps as well.
	maxInMemory = 256 << 10
)

var errTooLarge = errors.New("message larger than the limit")

// storageError says that a message could not be kept.
type storageError struct{ err error }

func (e storageError) Error() string { return "keep message: " + e.err.Error() }
func (e storageError) Unwrap() error { return e.err }

// budget counts what all messages together keep in memory.
type budget struct{ used atomic.Int64 }

// take reports whether n more octets may be kept.
func (b *budget) take(n, limit int64) bool {
	if b.used.Add(n) <= limit {
		return true
	}
	b.used.Add(-n)
	return false
}

// body is the text of one message, octet by octet as received. It is in memory
// while it is small and the budget allows, else in a file that has no name any
// more, so that nothing is left over however we end.
type body struct {
	budget *budget
	limit  int64 // of the budget
	dir    string
	large  bool         // it was said to be
	hash   *ledger.Hash // of what is received, while it is at hand; nil: nobody asks for it

	pieces [][]byte // of firstPiece, then piece octets
	taken  int64
	file   *os.File
	size   int64

	last  byte // received
	stray bool // there are bare CRs or LFs
}

// receive reads r to its end. Of more than max octets the error is errTooLarge;
// if the text cannot be kept it is a storageError.
func (b *body) receive(r io.Reader, max int64) error {
	var buf []byte // once there is a file
	for {
		into, err := b.room(&buf)
		if err != nil {
			return storageError{err}
		}
		into = into[:min(int64(len(into)), max-b.size+1)] // one octet too many tells
		n, err := fill(r, into)
		b.note(into[:n])
		if b.hash != nil {
			b.hash.Write(into[:n])
		}
		if b.size += int64(n); b.size > max {
			return errTooLarge
		}
		if b.file == nil {
			end := len(b.pieces) - 1
			b.pieces[end] = b.pieces[end][:len(b.pieces[end])+n]
		} else if _, err := b.file.Write(into[:n]); err != nil {
			return storageError{err}
		}
		switch {
		case err == io.EOF:
			b.finish()
			return nil
		case err != nil:
			return err
		}
	}
}

// fill reads until p is full or there is an error.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = r.Read(p[n:])
		n += more
	}
	return n, err
}

// room is where the next octets go: the rest of the last piece, a new piece, or
// a buffer in front of the file.
func (b *body) room(buf *[]byte) ([]byte, error) {
	if b.file != nil {
		return *buf, nil
	}
	size := int64(firstPiece)
	if n := len(b.pieces); n > 0 {
		if end := b.pieces[n-1]; len(end) < cap(end) {
			return end[len(end):cap(end)], nil
		}
		size = piece
	}
	if !b.large && b.size+size <= maxInMemory && b.budget.take(size, b.limit) {
		b.taken += size
		b.pieces = append(b.pieces, make([]byte, 0, size))
		return b.pieces[len(b.pieces)-1][:size], nil
	}
	*buf = make([]byte, filePiece)
	return *buf, b.spill()
}

// spilled is how the names of files begin, where they cannot do without one for a
// moment.
const spilled = "postseal-message-"

// Sweep removes the files of messages that a process was killed beside before they
// lost their names; dir is the TempDir of a [Server] that does not serve yet.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), spilled) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// spill moves the text into a file.
func (b *body) spill() error {
	f, err := nameless(b.dir)
	if err != nil {
		return err
	}
	b.file = f
	for _, p := range b.pieces {
		if _, err := f.Write(p); err != nil {
			return err
		}
	}
	b.pieces = nil
	b.release()
	return nil
}

// named opens a file and takes its name away.
func named(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, spilled+"*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// note looks for line ends that are none (RFC 5321 §2.3.8).
func (b *body) note(p []byte) {
	if b.stray || len(p) == 0 {
		return
	}
	last := b.last
	b.last = p[len(p)-1]
	if last == '\r' {
		if p[0] != '\n' {
			b.stray = true
			return
		}
		p = p[1:]
	}
	ends := 0
	for rest := p; ; ends++ {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		if i == 0 || rest[i-1] != '\r' {
			b.stray = true
			return
		}
		rest = rest[i+1:]
	}
	returns := bytes.Count(p, []byte{'\r'})
	if bytes.HasSuffix(p, []byte{'\r'}) { // it may still get its LF
		returns--
	}
	b.stray = returns != ends
}

// digest is that of the text as received, zero if nobody asks for it.
func (b *body) digest() (d ledger.Digest) {
	if b.hash != nil {
		d = b.hash.Digest()
	}
	return d
}

func (b *body) finish() { b.stray = b.stray || b.last == '\r' }

func (b *body) release() {
	b.budget.used.Add(-b.taken)
	b.taken = 0
}

// Close gives memory and disk back. Readers that still are open may fail.
func (b *body) Close() error {
	b.release()
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}

func (b *body) Size() int64 { return b.size }

func (b *body) Open() io.Reader { return io.NewSectionReader(b, 0, b.size) }

// ReadAt implements io.ReaderAt, for any number of readers side by side.
func (b *body) ReadAt(p []byte, off int64) (int, error) {
	if b.file != nil {
		return b.file.ReadAt(p, off)
	}
	total := 0
	for len(p) > 0 {
		i, within := 0, off
		if off >= firstPiece {
			i, within = int(1+(off-firstPiece)/piece), (off-firstPiece)%piece
		}
		if i >= len(b.pieces) || within >= int64(len(b.pieces[i])) {
			return total, io.EOF
		}
		n := copy(p, b.pieces[i][within:])
		p, off, total = p[n:], off+int64(n), total+n
	}
	return total, nil
}

// lines reads a part of the text that begins and ends with lines, or with the
// text. It has no line ends but CRLF: each bare CR or LF is a blank, as Postfix
// has it since 3.9 (postconf(5), cleanup_replace_stray_cr_lf), so that no later
// server can see a line, or the end of the message, where there is none. Refusing
// such mail would bounce what most servers still take.
func (b *body) lines(off, n int64) io.Reader {
	r := io.NewSectionReader(b, off, n)
	if !b.stray {
		return r
	}
	return &straightener{r: bufio.NewReaderSize(r, firstPiece)}
}

// straightener replaces each bare CR and LF by a blank.
type straightener struct {
	r    *bufio.Reader
	last byte
}

func (s *straightener) Read(p []byte) (int, error) {
	for n := range p {
		c, err := s.r.ReadByte()
		if err != nil {
			return n, err
		}
		p[n] = c
		switch c {
		case '\r':
			if next, _ := s.r.Peek(1); len(next) == 0 || next[0] != '\n' {
				p[n] = ' '
			}
		case '\n':
			if s.last != '\r' {
				p[n] = ' '
			}
		}
		s.last = c
	}
	return len(p), nil
}

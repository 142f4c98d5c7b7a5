package ingest

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"time"
)

// errState is returned for state that RestoreState refuses. That loses what was open,
// not what was counted.
var errState = errors.New("state of a log reader is damaged or of another version")

// stateWriter writes what a reader has open: a version, which names the reader and
// its layout, the values one after the other, and a checksum.
type stateWriter struct {
	b     []byte
	start int
}

// newStateWriter begins a state behind dst.
func newStateWriter(dst []byte, version byte) stateWriter {
	return stateWriter{b: append(dst, version), start: len(dst)}
}

func (w *stateWriter) byte(b byte)   { w.b = append(w.b, b) }
func (w *stateWriter) uint(n uint64) { w.b = binary.AppendUvarint(w.b, n) }
func (w *stateWriter) text(s string) { w.uint(uint64(len(s))); w.b = append(w.b, s...) }

func (w *stateWriter) time(t time.Time) {
	if t.IsZero() {
		w.uint(0)
		return
	}
	w.uint(uint64(t.Unix()) + 1) // stamps are of 1970 to 9999
	w.uint(uint64(t.Nanosecond()))
}

func (w *stateWriter) addr(a netip.Addr) { w.text(string(a.AsSlice())) }

// bits writes up to eight flags.
func (w *stateWriter) bits(flags ...bool) {
	var b byte
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	w.byte(b)
}

// sealed ends the state, and gives dst with it.
func (w *stateWriter) sealed() []byte {
	return binary.LittleEndian.AppendUint32(w.b, crc32.ChecksumIEEE(w.b[w.start:]))
}

// stateReader reads what stateWriter wrote. After the first fault everything is zero.
type stateReader struct {
	b      []byte
	before bool // of the earlier version
	bad    bool
}

// newStateReader opens what ends in a checksum and begins with one of two versions: the
// present one, or the one before, which has no messages of our own at its end.
func newStateReader(state []byte, version, before byte) (*stateReader, error) {
	n := len(state) - 4
	if n < 1 || state[0] != version && state[0] != before || binary.LittleEndian.Uint32(state[n:]) != crc32.ChecksumIEEE(state[:n]) {
		return nil, errState
	}
	return &stateReader{b: state[1:n], before: state[0] == before}, nil
}

// refuse says that what was read cannot be.
func (r *stateReader) refuse() { r.bad = true }

// end is the end of the state: an error if there was a fault, or if more follows.
func (r *stateReader) end() error {
	if r.bad || len(r.b) > 0 {
		return errState
	}
	return nil
}

func (r *stateReader) next(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *stateReader) byte() byte {
	if b := r.next(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *stateReader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if r.bad || size <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

// count reads a number of things that follow, each of a byte at least.
func (r *stateReader) count(limit int) int {
	n := r.uint()
	if n > uint64(limit) || n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *stateReader) text() string { return string(r.next(r.uint())) }

func (r *stateReader) time() time.Time {
	sec := r.uint()
	if sec == 0 {
		return time.Time{}
	}
	nanos := r.uint()
	if sec > 1<<40 || nanos >= uint64(time.Second) {
		r.bad = true
		return time.Time{}
	}
	return time.Unix(int64(sec)-1, int64(nanos)).UTC()
}

func (r *stateReader) addr() netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(r.text()))
	return a
}

func (r *stateReader) bits(flags ...*bool) {
	b := r.byte()
	for i, f := range flags {
		*f = b&(1<<i) != 0
	}
}

func (r *stateReader) flag() bool { return r.byte()&1 != 0 }

package maillog

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

// StateWriter writes what a reader has open: a version, which names the reader and
// its layout, the values one after the other, and a checksum. The layout of a reader has
// no other description than its code.
type StateWriter struct {
	b     []byte
	start int
}

// NewStateWriter begins a state behind dst.
func NewStateWriter(dst []byte, version byte) StateWriter {
	return StateWriter{b: append(dst, version), start: len(dst)}
}

// Byte writes one byte.
func (w *StateWriter) Byte(b byte) { w.b = append(w.b, b) }

// Uint writes a number.
func (w *StateWriter) Uint(n uint64) { w.b = binary.AppendUvarint(w.b, n) }

// Text writes a string.
func (w *StateWriter) Text(s string) { w.Uint(uint64(len(s))); w.b = append(w.b, s...) }

// Time writes a time, which may be zero.
func (w *StateWriter) Time(t time.Time) {
	if t.IsZero() {
		w.Uint(0)
		return
	}
	w.Uint(uint64(t.Unix()) + 1) // stamps are of 1970 to 9999
	w.Uint(uint64(t.Nanosecond()))
}

// Addr writes an address, which may be zero.
func (w *StateWriter) Addr(a netip.Addr) { w.Text(string(a.AsSlice())) }

// Bits writes up to eight flags.
func (w *StateWriter) Bits(flags ...bool) {
	var b byte
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	w.Byte(b)
}

// Sealed ends the state, and gives dst with it.
func (w *StateWriter) Sealed() []byte {
	return binary.LittleEndian.AppendUint32(w.b, crc32.ChecksumIEEE(w.b[w.start:]))
}

// StateReader reads what StateWriter wrote. After the first fault everything is zero.
type StateReader struct {
	b   []byte
	bad bool
}

// NewStateReader opens what begins with its version and ends in a checksum.
func NewStateReader(state []byte, version byte) (*StateReader, error) {
	n := len(state) - 4
	if n < 1 || state[0] != version || binary.LittleEndian.Uint32(state[n:]) != crc32.ChecksumIEEE(state[:n]) {
		return nil, errState
	}
	return &StateReader{b: state[1:n]}, nil
}

// Refuse says that what was read cannot be.
func (r *StateReader) Refuse() { r.bad = true }

// End is the end of the state: an error if there was a fault, or if more follows.
func (r *StateReader) End() error {
	if r.bad || len(r.b) > 0 {
		return errState
	}
	return nil
}

func (r *StateReader) next(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// Byte reads what [StateWriter.Byte] wrote, and so on.
func (r *StateReader) Byte() byte {
	if b := r.next(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint reads a number.
func (r *StateReader) Uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if r.bad || size <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

// Count reads a number of things that follow, each of a byte at least, and refuses more
// than limit.
func (r *StateReader) Count(limit int) int {
	n := r.Uint()
	if n > uint64(limit) || n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

// Text reads a string.
func (r *StateReader) Text() string { return string(r.next(r.Uint())) }

// Time reads a time, in UTC.
func (r *StateReader) Time() time.Time {
	sec := r.Uint()
	if sec == 0 {
		return time.Time{}
	}
	nanos := r.Uint()
	if sec > 1<<40 || nanos >= uint64(time.Second) {
		r.bad = true
		return time.Time{}
	}
	return time.Unix(int64(sec)-1, int64(nanos)).UTC()
}

// Addr reads an address.
func (r *StateReader) Addr() netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(r.Text()))
	return a
}

// Bits reads up to eight flags.
func (r *StateReader) Bits(flags ...*bool) {
	b := r.Byte()
	for i, f := range flags {
		*f = b&(1<<i) != 0
	}
}

// Flag reads one flag that Bits wrote.
func (r *StateReader) Flag() bool { return r.Byte()&1 != 0 }

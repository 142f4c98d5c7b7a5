package follow

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Position is a place between two lines of a file. The zero value is none.
type Position struct {
	file   fileID
	offset int64
	hash   [sha256.Size]byte // of the window before offset
}

// fileID names a file as long as it exists.
type fileID struct{ device, inode uint64 }

// window is the bytes before a position, with zeros before the start of the file:
// more than one line of a mail log, which has a time and a queue id. Only its hash is
// stored, since a log is private.
type window [256]byte

func (w *window) hash() [sha256.Size]byte { return sha256.Sum256(w[:]) }

// shift moves the window over text.
func (w *window) shift(text []byte) {
	if len(text) >= len(w) {
		copy(w[:], text[len(text)-len(w):])
		return
	}
	copy(w[:], w[len(text):])
	copy(w[len(w)-len(text):], text)
}

// windowAt reads the window before an offset.
func windowAt(f io.ReaderAt, offset int64) (w window, err error) {
	n := min(offset, int64(len(w)))
	if n == 0 {
		return w, nil
	}
	if _, err = f.ReadAt(w[int64(len(w))-n:], offset-n); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return w, err
}

// start is the beginning of a file.
func start(id fileID) Position {
	var none window
	return Position{file: id, hash: none.hash()}
}

// in reports whether f has before the position what was there when it was taken.
func (p *Position) in(f io.ReaderAt) bool {
	w, err := windowAt(f, p.offset)
	return err == nil && w.hash() == p.hash
}

// identify tells which file f is, and its size.
func identify(f *os.File) (fileID, int64, error) {
	info, err := f.Stat()
	if err != nil {
		return fileID{}, 0, err
	}
	if !info.Mode().IsRegular() {
		return fileID{}, 0, fmt.Errorf("%s is no regular file", f.Name())
	}
	id, err := idOf(info)
	return id, info.Size(), err
}

func idOf(info fs.FileInfo) (fileID, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, fmt.Errorf("%s: this system does not tell which file it is", info.Name())
	}
	return fileID{uint64(st.Dev), uint64(st.Ino)}, nil
}

const (
	positionVersion = 1
	positionSize    = 1 + 3*8 + sha256.Size
)

// Append appends the stored form of p to dst.
func (p Position) Append(dst []byte) []byte {
	dst = append(dst, positionVersion)
	for _, n := range []uint64{p.file.device, p.file.inode, uint64(p.offset)} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	return append(dst, p.hash[:]...)
}

// ErrPosition is returned for a stored position that cannot be read.
var ErrPosition = errors.New("the stored position in the log cannot be read")

// CutPosition reads a stored position at the beginning of b and returns the rest.
func CutPosition(b []byte) (p Position, rest []byte, err error) {
	if len(b) < positionSize || b[0] != positionVersion {
		return Position{}, nil, ErrPosition
	}
	p.file.device = binary.BigEndian.Uint64(b[1:])
	p.file.inode = binary.BigEndian.Uint64(b[9:])
	p.offset = int64(binary.BigEndian.Uint64(b[17:]))
	copy(p.hash[:], b[25:])
	if p.offset < 0 {
		return Position{}, nil, ErrPosition
	}
	return p, b[positionSize:], nil
}

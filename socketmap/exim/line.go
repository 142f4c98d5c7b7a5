package exim

import (
	"bytes"
	"errors"
	"io"
)

var (
	errLong  = errors.New("line longer than 64 KiB")
	errEmpty = errors.New("closed without a line")
)

// readLine reads up to the first line end, or to the end of what the client
// sends: it half-closes. What comes behind the line is left.
func readLine(r io.Reader) (string, error) {
	buf := make([]byte, 0, bufferSize)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		got := buf[len(buf) : len(buf)+n]
		if i := bytes.IndexByte(got, '\n'); i >= 0 {
			return string(buf[:len(buf)+i]), nil
		}
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF) && len(buf) > 0:
			return string(buf), nil
		case errors.Is(err, io.EOF):
			return "", errEmpty
		case err != nil:
			return "", err
		case len(buf) == maxLine:
			return "", errLong
		case len(buf) == cap(buf):
			larger := make([]byte, len(buf), min(4*cap(buf), maxLine))
			copy(larger, buf)
			buf = larger
		}
	}
}

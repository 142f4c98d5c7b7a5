package delivery

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"postseal/policy/smtpclient"
)

// errAbandoned says that the client gave a message up between two chunks.
var errAbandoned = errors.New("message given up by the client")

// dotText is a text behind DATA, up to CR LF dot CR LF. A dot in front of a line
// is taken off (RFC 5321 §4.5.2). Only CR LF ends a line (§4.1.1.4), so LF dot LF
// is text.
type dotText struct {
	wire  *wire
	begin bool   // of a line
	cr    bool   // the last octet was a CR
	rest  []byte // of what was read
	ended bool
}

func newDotText(w *wire) *dotText { return &dotText{wire: w, begin: true} }

func (d *dotText) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && !d.ended {
		if len(d.rest) == 0 {
			// Give what there is before waiting for more.
			if n > 0 && d.wire.in.Buffered() == 0 {
				return n, nil
			}
			if err := d.more(); err != nil {
				return n, err
			}
			continue
		}
		c := copy(p[n:], d.rest)
		n, d.rest = n+c, d.rest[c:]
	}
	if d.ended && n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// more reads up to the end of a line, or of the buffer.
func (d *dotText) more() error {
	line, err := d.wire.in.ReadSlice('\n')
	if err != nil && err != bufio.ErrBufferFull {
		return noEnd(err)
	}
	whole := err == nil
	if d.begin && line[0] == '.' {
		if string(line) == ".\r\n" {
			d.ended = true
			return nil
		}
		line = line[1:]
	}
	d.begin = whole && (bytes.HasSuffix(line, []byte("\r\n")) || d.cr && len(line) == 1)
	d.cr = len(line) > 0 && line[len(line)-1] == '\r'
	d.rest = line
	return nil
}

// drop reads the text to its end. Who goes on sending without one is cut off.
func (d *dotText) drop(smtpclient.Reply) error {
	_, err := io.CopyN(io.Discard, d, d.wire.door.maxMessage)
	if err == io.EOF {
		return nil
	}
	d.wire.over = true
	return errTooLarge
}

// chunk is what a BDAT announces.
type chunk struct {
	size int64
	last bool
}

// chunkText is a text behind one or more BDAT. From the first on it speaks with
// the client itself: go-smtp believes to be in DATA.
type chunkText struct {
	wire      *wire
	chunk     chunk
	left      int64
	abandoned bool // nobody waits for replies
}

func newChunkText(w *wire, c chunk) *chunkText { return &chunkText{wire: w, chunk: c, left: c.size} }

func (c *chunkText) Read(p []byte) (int, error) {
	for c.left == 0 {
		if c.chunk.last {
			return 0, io.EOF
		}
		c.wire.answer(reply(250, "2.0.0", fmt.Sprintf("%d octets received", c.chunk.size)))
		if err := c.command(); err != nil {
			return 0, err
		}
	}
	n, err := c.wire.in.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, noEnd(err)
}

// noEnd is err, but for an end that is not that of the text.
func noEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// command reads commands up to the next BDAT. Most others are out of order here
// (RFC 3030 §2).
func (c *chunkText) command() error {
	w := c.wire
	for {
		line, err := w.readLine()
		if err != nil {
			return noEnd(err)
		}
		verb, args, _ := strings.Cut(line, " ")
		switch strings.ToUpper(verb) {
		case "BDAT":
			if c.chunk, err = parseChunk(strings.Trim(args, " ")); err != nil {
				w.answer(reply(501, "5.5.4", err.Error()))
				w.over, c.abandoned = true, true
				return err
			}
			c.left = c.chunk.size
			return nil
		case "RSET", "QUIT", "LHLO":
			w.next, w.hasNext, c.abandoned = line, true, true
			return errAbandoned
		case "NOOP":
			w.answer(reply(250, "2.0.0", "ok"))
		default:
			if err := w.wrong(reply(503, "5.5.1", "BDAT or RSET comes next")); err != nil {
				w.over, c.abandoned = true, true
				return err
			}
		}
	}
}

// drop reads the chunk to its end. Behind the last one each recipient gets a
// reply (RFC 2033 §4.2); else there is one for the chunk, and the message is over.
func (c *chunkText) drop(r smtpclient.Reply) error {
	if _, err := io.CopyN(io.Discard, c.wire.in, c.left); err != nil {
		return err
	}
	if c.left = 0; c.chunk.last {
		return nil
	}
	c.abandoned = true
	c.wire.answer(r)
	return errAbandoned
}

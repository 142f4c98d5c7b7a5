package delivery

import (
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
	begin bool // of a line
	cr    bool // the last octet was a CR
	ended bool
}

func newDotText(w *wire) *dotText { return &dotText{wire: w, begin: true} }

func (d *dotText) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && !d.ended {
		// Give what there is before waiting for more.
		if n > 0 && d.wire.in.Buffered() == 0 {
			return n, nil
		}
		text, err := d.next()
		if err != nil {
			return n, err
		}
		c := copy(p[n:], text)
		d.take(text[:c])
		n += c
	}
	if d.ended && n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// next is the text that has been received, at most up to the next line that begins
// with a dot: whole lines need not be looked at one by one. It has no octet behind the
// end, or where a dot was taken off and nothing is there yet.
func (d *dotText) next() ([]byte, error) {
	in := d.wire.in
	if _, err := in.Peek(1); err != nil {
		return nil, noEnd(err)
	}
	text, _ := in.Peek(in.Buffered())
	if d.begin && text[0] == '.' {
		return nil, d.dot()
	}
	if d.cr && text[0] == '\n' { // the dot may be next
		return text[:1], nil
	}
	if i := bytes.Index(text, []byte("\r\n.")); i >= 0 {
		text = text[:i+len("\r\n")]
	}
	return text, nil
}

// dot takes off the dot in front of a line, or the end of the text.
func (d *dotText) dot() error {
	in := d.wire.in
	line, err := in.Peek(2)
	if err == nil && line[1] == '\r' {
		line, err = in.Peek(len(".\r\n"))
	}
	if err != nil {
		return noEnd(err)
	}
	if string(line) == ".\r\n" {
		d.ended = true
		in.Discard(len(line))
		return nil
	}
	d.begin, d.cr = false, false
	in.Discard(1)
	return nil
}

// take removes text from what has been received.
func (d *dotText) take(text []byte) {
	if len(text) == 0 {
		return
	}
	last := len(text) - 1
	d.begin = text[last] == '\n' && (last > 0 && text[last-1] == '\r' || last == 0 && d.cr)
	d.cr = text[last] == '\r'
	d.wire.in.Discard(len(text))
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

package smtpclient

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"time"
)

// lastWords is how long a reply is waited for after the connection broke while
// we were sending: a host that has had enough says why before it hangs up.
const lastWords = 5 * time.Second

// content is the rest after the reply to DATA.
func (t *transaction) content(a answer) *Failure {
	s := t.s
	switch {
	case a.class() >= 4:
		t.allAccepted(a)
		return nil
	case a.class() != 3:
		return s.unexpected(StageData, a, "DATA")
	case len(t.accepted) == 0:
		return t.nothing()
	}
	if f := t.write(); f != nil || s.broken {
		return f
	}
	b, f := s.read(StageEnd, s.limits.End, "the message")
	if f != nil {
		t.Uncertain = !f.Remote
		return f
	}
	if b.class() == 3 { // a late reply to DATA perhaps, and the host has the message
		t.Uncertain = true
		return s.unexpected(StageEnd, b, "the message")
	}
	s.dirty = false
	t.allAccepted(b)
	return nil
}

// nothing is the message for a host that takes one for nobody (RFC 2920 §3.1).
// Whatever it says to that, all have their refusals already.
func (t *transaction) nothing() *Failure {
	s := t.s
	f := s.say(StageData, ".", "no message")
	if f == nil {
		f = s.flush(StageData, "no message")
	}
	if f == nil {
		_, f = s.read(StageEnd, s.limits.End, "no message")
	}
	s.dirty = f != nil
	return t.unless(f)
}

// unless drops a failure that changes nothing: all recipients have replies.
func (t *transaction) unless(f *Failure) *Failure {
	for _, r := range t.Replies {
		if r.Code == 0 {
			return f
		}
	}
	return nil
}

func (t *transaction) allAccepted(a answer) {
	for _, i := range t.accepted {
		t.Replies[i] = a.Reply()
	}
}

// write sends the message and the last dot. Without the whole message there is no
// dot: the connection is cut, so that nothing can be taken for it. It is broken
// without a failure if the host said why it hung up.
func (t *transaction) write() *Failure {
	s := t.s
	d := dots{w: s.w, start: true}
	n, err := io.CopyBuffer(&d, io.LimitReader(t.data, t.size+1), make([]byte, min(writeSize, t.size+1)))
	if d.err == nil && (err != nil || n != t.size) {
		if err == nil {
			err = fmt.Errorf("the message has not the %d octets that were announced", t.size)
		}
		s.broken = true
		return s.fail(StageData, err, 451, "4.3.0", "message not sent: %v", err)
	}
	if err = d.end(); err == nil {
		err = s.w.Flush()
	}
	if err == nil {
		return nil
	}
	f := s.lost(StageData, err, s.limits.Block, "sending the message")
	if s.ended.Load() {
		return f
	}
	s.raw.SetReadDeadline(time.Now().Add(lastWords))
	if a, err := readReply(s.r); err == nil && a.class() >= 4 && a.code != 421 {
		t.allAccepted(a)
		return t.unless(f)
	}
	return f
}

// dots writes a message as DATA wants it (RFC 5321 §4.5.2). A CR or LF that is not
// part of a CRLF becomes a blank: some hosts take it for the end of a line, and
// what follows for the next command (RFC 5321 §2.3.8, §4.1.1.4).
type dots struct {
	w     *bufio.Writer
	start bool // of a line
	cr    bool // seen, and not yet written
	err   error
}

func (d *dots) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && d.err == nil {
		if d.cr {
			d.cr = false
			if p[0] == '\n' {
				d.put("\r\n")
				d.start, p = true, p[1:]
				continue
			}
			d.put(" ")
		}
		if d.start && p[0] == '.' {
			d.put(".")
		}
		text := p
		if i := bytes.IndexByte(p, '\r'); i >= 0 {
			text, d.cr = p[:i], true
		}
		p = p[len(text):]
		if d.cr {
			p = p[1:]
		}
		d.text(text)
	}
	return n, d.err
}

// text is without CR.
func (d *dots) text(text []byte) {
	for len(text) > 0 && d.err == nil {
		line, rest, found := bytes.Cut(text, []byte{'\n'})
		_, d.err = d.w.Write(line)
		d.start = false
		if found {
			d.put(" ")
		}
		text = rest
	}
}

func (d *dots) put(s string) {
	d.start = false
	if d.err == nil {
		_, d.err = d.w.WriteString(s)
	}
}

// end writes what ends a message.
func (d *dots) end() error {
	if d.cr {
		d.put(" ")
	}
	if !d.start {
		d.put("\r\n")
	}
	d.put(".\r\n")
	return d.err
}

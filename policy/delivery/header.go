package delivery

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"postseal/policy/requiretls"
)

const (
	// maxHops is the loop detection of RFC 5321 §6.3.
	maxHops = 100

	// maxOwnHops is the same for our own Received lines. A message may pass twice
	// or three times by right: to a list, and through a forwarder.
	maxOwnHops = 4

	// maxReceived is what is looked at of a Received field, and of a Message-ID; our own
	// mark is at its beginning, and real ones have a few hundred octets.
	maxReceived = 2 << 10

	// maxRoutes is a limit on what must be remembered of a header. The milter
	// removes foreign fields, and adds one.
	maxRoutes = 100

	// mark follows our name in our Received lines.
	mark = "(postseal)"
)

var errTooManyRoutes = errors.New("too many fields " + requiretls.Route)

// span is a part of a text, from start up to end.
type span struct{ start, end int64 }

// header is what is to be known of the header section of a message.
type header struct {
	routes    []span // the fields X-Postseal-Route
	received  string // the topmost Received field, unfolded
	messageID string // the text of the first Message-ID; "" if there is none
	hops      int    // Received fields
	own       int    // those of them that are ours
}

// headerScan reads a header section field by field.
type headerScan struct {
	header
	ours  string // what is found in our own Received fields
	field string // name of the field that is read, in small letters; "" in front of the first
	text  []byte // the field itself, if it is one of those that are kept
}

// scanHeader reads r up to the end of the header section: the empty line, or a
// line that is no field, with which mail servers let the text begin, too. What is
// behind belongs to somebody else: the header of an attached message (RFC 8689
// §3, "top-level").
func scanHeader(r io.Reader, hostname string) (header, error) {
	s := headerScan{ours: strings.ToLower("by " + hostname + " " + mark)}
	in := bufio.NewReaderSize(r, firstPiece)
	var pos int64
	for {
		start := pos
		line, err := in.ReadSlice('\n')
		pos += int64(len(line))
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return header{}, err
		}
		if !s.line(line) {
			break
		}
		for err == bufio.ErrBufferFull { // of a long line only the beginning counts
			line, err = in.ReadSlice('\n')
			pos += int64(len(line))
			s.more(line)
		}
		if cutErr := s.cut(start, pos); cutErr != nil {
			return header{}, cutErr
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return header{}, err
		}
	}
	s.endField()
	return s.header, nil
}

// line takes the beginning of a line and reports whether it belongs to the header.
func (s *headerScan) line(line []byte) bool {
	if len(line) == 0 {
		return false
	}
	if line[0] == ' ' || line[0] == '\t' {
		s.more(line)
		return s.field != ""
	}
	s.endField()
	name, ok := fieldName(line)
	if !ok {
		return false
	}
	s.field = name
	s.more(line)
	return true
}

func (s *headerScan) more(line []byte) {
	if s.field == "received" || s.field == "message-id" {
		n := min(len(line), maxReceived-len(s.text))
		s.text = append(s.text, line[:n]...)
	}
}

// cut remembers a line of the field X-Postseal-Route. Adjacent ones become one.
func (s *headerScan) cut(start, end int64) error {
	if !strings.EqualFold(s.field, requiretls.Route) {
		return nil
	}
	if n := len(s.routes); n > 0 && s.routes[n-1].end == start {
		s.routes[n-1].end = end
		return nil
	}
	if len(s.routes) == maxRoutes {
		return errTooManyRoutes
	}
	s.routes = append(s.routes, span{start, end})
	return nil
}

func (s *headerScan) endField() {
	switch s.field {
	case "received":
		text := unfold(s.text)
		if s.hops++; s.hops == 1 {
			s.received = text
		}
		if strings.Contains(strings.ToLower(text), s.ours) {
			s.own++
		}
	case "message-id":
		if s.messageID == "" {
			_, id, _ := bytes.Cut(s.text, []byte(":"))
			s.messageID = unfold(id)
		}
	}
	s.field, s.text = "", s.text[:0]
}

// unfold removes the line ends of a field (RFC 5322 §2.2.3); the blanks behind
// them stay as one, since relays fold differently.
func unfold(field []byte) string {
	return strings.Join(strings.Fields(string(field)), " ")
}

// fieldName returns the name of the field that begins with line, in small
// letters (RFC 5322 §3.6.8, and the blanks before the colon of §4.5.3).
func fieldName(line []byte) (string, bool) {
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	if !ok || len(name) == 0 {
		return "", false
	}
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return "", false
		}
	}
	return strings.ToLower(string(name)), true
}

// edited is a message as it goes out: a line in front, then the text without
// some parts.
type edited struct {
	front string
	body  *body
	keep  []span
	back  string
	size  int64
}

// edit adds front, removes the parts cut, which are whole lines, and ends the last
// line. Nothing else changes (RFC 5321 §4.4, §6.4).
func edit(front string, b *body, cut []span) *edited {
	e := &edited{front: front, body: b, size: int64(len(front))}
	pos := int64(0)
	for _, c := range append(cut, span{b.size, b.size}) {
		if c.start > pos {
			e.keep = append(e.keep, span{pos, c.start})
			e.size += c.start - pos
		}
		pos = c.end
	}
	var end [2]byte
	if n, _ := b.ReadAt(end[:], max(b.size-2, 0)); string(end[:n]) != "\r\n" && b.size > 0 {
		e.back = "\r\n" // BDAT may leave it out (RFC 3030 §2)
		e.size += 2
	}
	return e
}

func (e *edited) Size() int64 { return e.size }

func (e *edited) Open() io.Reader {
	parts := []io.Reader{strings.NewReader(e.front)}
	for _, k := range e.keep {
		parts = append(parts, e.body.lines(k.start, k.end-k.start))
	}
	return io.MultiReader(append(parts, strings.NewReader(e.back))...)
}

// trace is what our Received field says.
type trace struct {
	helo, hostname, id string
	peer               netip.Addr // zero: over a socket in the file system
	tls, utf8          bool
	recipient          string // "" if there are several
	at                 time.Time
}

// String is the field (RFC 5321 §4.4). The protocol names are of RFC 3848 and
// RFC 6531 §4.3.
func (t trace) String() string {
	from := "local"
	if t.peer.Is6() {
		from = "[IPv6:" + t.peer.String() + "]"
	} else if t.peer.IsValid() {
		from = "[" + t.peer.String() + "]"
	}
	protocol := "LMTP"
	if t.tls {
		protocol += "S"
	}
	if t.utf8 {
		protocol = "UTF8" + protocol
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Received: from %s (%s)\r\n\tby %s %s with %s id %s", t.helo, from, t.hostname, mark, protocol, t.id)
	if t.recipient != "" {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", t.recipient)
	}
	fmt.Fprintf(&b, "; %s\r\n", t.at.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	return b.String()
}

package delivery

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"postseal/policy/smtpclient"
)

const (
	// maxLine is the longest command line, with its CRLF. RFC 5321 §4.5.3.1.4 has
	// 512 octets, SMTPUTF8 adds 10 (RFC 6531 §3.4), REQUIRETLS 11 (RFC 8689 §2),
	// SIZE 26 (RFC 1870 §3), AUTH 500 (RFC 4954 §3) and ORCPT 500 (RFC 3461 §5.4).
	maxLine = 4096

	// maxErrors in a row end a connection that does not speak LMTP. A message may
	// have many recipients that are refused.
	maxErrors = 100

	inputSize        = 16 << 10 // as much as a piece of a message, and as a TLS record (RFC 8446 §5.1)
	handshakeTimeout = time.Minute
)

var (
	errShutdown = errors.New("shutting down")
	errLineLong = errors.New("line too long")
	errBareLF   = errors.New("line ends with a bare LF")
	errClosing  = errors.New("the connection is given up")
)

// wire stands between a client and go-smtp, which takes it for the connection.
//
// go-smtp keeps the order of an LMTP session, reads addresses, and brings each
// recipient's reply back in its place. What it has not, or does otherwise than a
// relay must, is done here: XFORWARD; STARTTLS, which go-smtp would put above the
// wire, so that nothing inside TLS were seen; parameters and addresses as they
// were written; the codes of refusals; time limits. It never gets the text of a
// message either: its DATA reader (v0.25.1) loses a CR behind a dot and overlooks
// the end behind CR CR LF, which Postfix sends for a line that ends with a CR, and
// its BDAT leaves a goroutine behind when the client gives up.
//
// So go-smtp sees each command line alone, and only if it is well-formed and in
// order: it asks for the next one (Read) when it has answered the last (Write), so
// that both sides are always at the same command. To DATA and to the first BDAT it
// says 354 and starts the session's LMTPData, which reads the text from here; go-smtp
// then is shown an empty one. All this happens in one goroutine at a time; only stop
// comes from elsewhere.
type wire struct {
	door   *door
	raw    net.Conn // as accepted
	conn   net.Conn // raw, or TLS on top of it
	in     *bufio.Reader
	out    bytes.Buffer // unsent replies; they leave when the client has to say something new
	closed func(*wire)
	once   sync.Once

	secure  bool // inside TLS
	helo    string
	queueID string // by XFORWARD
	errors  int
	session *session

	handed  string // the command that go-smtp has
	pending string // octets that it will read next
	said    string // the beginning of a line that it is writing
	next    string // a command line that was read ahead
	hasNext bool

	from transaction // of the MAIL that go-smtp has
	to   recipient   // of the RCPT that it has
	text text        // of the message, from 354 on
	show bool        // go-smtp has not yet read the empty text
	over bool        // nobody knows where the next command is
	gone bool        // closed; what was pipelined behind QUIT is not looked at

	mu       sync.Mutex
	idle     bool // waits for a command
	stopping time.Time
}

// text is a message on its way in.
type text interface {
	io.Reader
	// drop reads away what is left of a text that is refused. Then either the
	// recipients' replies are due (nil), or the client was told already.
	drop(smtpclient.Reply) error
}

func newWire(d *door, conn net.Conn, closed func(*wire)) *wire {
	w := &wire{door: d, raw: conn, conn: conn, closed: closed}
	w.in = bufio.NewReaderSize(readerFunc(w.fill), inputSize)
	return w
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Read gives go-smtp one command line, or the empty text.
func (w *wire) Read(p []byte) (int, error) {
	if w.gone {
		return 0, io.EOF
	}
	if w.pending == "" && w.show {
		w.show, w.pending = false, ".\r\n"
	}
	for w.pending == "" {
		if w.over {
			return 0, io.EOF
		}
		w.handed, w.text = "", nil
		if err := w.command(); err != nil {
			w.farewell(err)
			return 0, io.EOF
		}
	}
	n := copy(p, w.pending)
	w.pending = w.pending[n:]
	return n, nil
}

// farewell says why the connection ends.
func (w *wire) farewell(err error) {
	switch {
	case errors.Is(err, errShutdown), errors.Is(err, os.ErrDeadlineExceeded) && w.isStopping():
		w.answer(reply(421, "4.3.2", w.door.hostname+" is shutting down"))
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.answer(reply(421, "4.4.2", w.door.hostname+" waited too long for a command"))
	case errors.Is(err, errLineLong):
		w.answer(reply(500, "5.5.2", "line too long"))
	case errors.Is(err, errBareLF):
		w.answer(reply(500, "5.5.2", "lines end with CR LF (RFC 5321 section 2.3.8)"))
	}
}

// Write takes go-smtp's replies.
func (w *wire) Write(p []byte) (int, error) {
	w.said += string(p)
	for {
		line, rest, ok := strings.Cut(w.said, "\r\n")
		if !ok {
			return len(p), nil
		}
		w.said = rest
		w.reply(line)
	}
}

// reply passes a line of go-smtp on, in our words where they differ.
func (w *wire) reply(line string) {
	code, _, _ := strings.Cut(line, " ")
	switch {
	case w.handed == "LHLO" && strings.HasPrefix(line, "250"):
		if code == "250" {
			w.out.WriteString(w.welcome())
		}
	case w.handed == "MAIL" && code == "250": // without the address
		w.answer(reply(250, "2.1.0", "sender ok"))
	case w.handed == "RCPT" && code == "250":
		w.answer(reply(250, "2.1.5", "recipient ok"))
	case w.handed == "DATA" && w.text == nil && code == "354":
		w.text, w.show = newDotText(w), true
		w.out.WriteString("354 end with <CR><LF>.<CR><LF>\r\n")
	case w.handed == "BDAT" && w.text == nil && code == "354": // BDAT has no such reply
		w.text, w.show = w.session.chunks, true
	case w.text != nil && w.session != nil:
		line, ok := w.session.finalReply(line)
		if ok {
			w.out.WriteString(line + "\r\n")
		}
	default:
		w.out.WriteString(line + "\r\n")
	}
}

// answer says something that go-smtp knows nothing of.
func (w *wire) answer(r smtpclient.Reply) {
	fmt.Fprintf(&w.out, "%d %s %s\r\n", r.Code, r.Enhanced, oneLine(r.Text))
}

func reply(code int, enhanced, text string) smtpclient.Reply {
	return smtpclient.Reply{Code: code, Enhanced: enhanced, Text: text}
}

// welcome lists what a message can keep on its way through us, and nothing else
// (RFC 5321 §4.1.1.1). REQUIRETLS only inside TLS (RFC 8689 §2, appendix A).
func (w *wire) welcome() string {
	lines := []string{
		w.door.hostname, "PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING",
		fmt.Sprintf("SIZE %d", w.door.maxMessage), "XFORWARD " + forwardKeyword,
	}
	if w.door.tls != nil && !w.secure {
		lines = append(lines, "STARTTLS")
	}
	if w.secure {
		lines = append(lines, "REQUIRETLS")
	}
	var b strings.Builder
	for i, line := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		b.WriteString("250" + sep + line + "\r\n")
	}
	return b.String()
}

// readLine reads a command line, without its CRLF.
func (w *wire) readLine() (string, error) {
	if w.hasNext {
		w.hasNext = false
		return w.next, nil
	}
	var line []byte
	for {
		part, err := w.in.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return "", errLineLong
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if err != bufio.ErrBufferFull {
			return "", err
		}
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return "", errBareLF
	}
	return string(text), nil
}

// fill reads from the client, who must have all replies before he can go on.
func (w *wire) fill(p []byte) (int, error) {
	if err := w.flush(); err != nil {
		return 0, err
	}
	if err := w.arm(w.door.readTimeout); err != nil {
		return 0, err
	}
	return w.conn.Read(p)
}

func (w *wire) flush() error {
	if w.out.Len() == 0 {
		return nil
	}
	w.raw.SetWriteDeadline(time.Now().Add(w.door.writeTimeout))
	_, err := w.conn.Write(w.out.Bytes())
	w.out.Reset()
	return err
}

// arm sets the time limit of the next read: each has its own, since go-smtp's
// limit would be that of the whole text.
func (w *wire) arm(limit time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = w.text == nil
	at := time.Now().Add(limit)
	if !w.stopping.IsZero() {
		if w.idle {
			return errShutdown
		}
		if w.stopping.Before(at) {
			at = w.stopping
		}
	}
	return w.raw.SetReadDeadline(at)
}

// stop makes the connection end before the next command; a message that is on
// its way in has the time of grace.
func (w *wire) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping = time.Now().Add(w.door.grace)
	if w.idle {
		w.raw.SetReadDeadline(time.Unix(1, 0))
	} else {
		w.raw.SetReadDeadline(w.stopping)
	}
}

func (w *wire) isStopping() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.stopping.IsZero()
}

// Close sends what is unsent.
func (w *wire) Close() error {
	err := net.ErrClosed
	w.once.Do(func() {
		w.gone = true
		w.flush()
		err = w.conn.Close()
		w.closed(w)
	})
	return err
}

// startTLS is done here so that all commands inside TLS are seen, too (RFC 3207 §4).
func (w *wire) startTLS(args string) error {
	switch {
	case w.secure:
		return w.wrong(reply(503, "5.5.1", "TLS is on already"))
	case w.door.tls == nil:
		return w.wrong(reply(502, "5.5.1", "STARTTLS is not offered here"))
	case args != "":
		return w.wrong(reply(501, "5.5.4", "STARTTLS takes no argument"))
	case w.in.Buffered() > 0:
		// They may have been put there by somebody between us and the client.
		w.answer(reply(421, "4.7.0", "commands were pipelined behind STARTTLS"))
		return errClosing
	}
	w.answer(reply(220, "2.0.0", "ready for TLS"))
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.arm(handshakeTimeout); err != nil {
		return errClosing
	}
	conn := tls.Server(w.raw, w.door.tls)
	w.raw.SetWriteDeadline(time.Now().Add(handshakeTimeout))
	if err := conn.Handshake(); err != nil {
		w.door.log.Debug("TLS with the mail server", "error", err)
		return errClosing
	}
	// Nothing said in clear counts any more (§4.2). go-smtp forgets it at the LHLO
	// that is required next.
	w.conn, w.secure, w.helo, w.queueID = conn, true, "", ""
	return nil
}

func (w *wire) LocalAddr() net.Addr  { return w.raw.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr { return w.raw.RemoteAddr() }

// Deadlines are ours.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

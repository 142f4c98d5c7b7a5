package delivery

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

	"postseal/policy/delivery/ledger"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// maxReplyText is what a reply line of 512 octets (RFC 5321 §4.5.3.1.5) has room
// for behind its codes.
const maxReplyText = 512 - len("250 5.700.700 \r\n")

// transaction is what was said between MAIL and the text.
type transaction struct {
	mode     requiretls.Mode
	envelope smtpclient.Envelope
	modes    []requiretls.Mode
	queueID  string   // by XFORWARD
	bare     string   // the sender as go-smtp names it
	names    []string // recipients as go-smtp names them
	size     int64    // as announced; 0: it was not
}

// recipient of a transaction.
type recipient struct {
	smtpclient.Recipient
	bare string
	mode requiretls.Mode // of the suffix
}

// session is what go-smtp calls. It takes addresses and parameters from the wire,
// where they are as the client wrote them.
type session struct {
	wire        *wire
	transaction *transaction
	chunks      *chunkText // of a BDAT; nil behind DATA
	replied     int        // final replies
}

func newSession(w *wire) *session {
	w.session = &session{wire: w}
	return w.session
}

var _ smtp.LMTPSession = (*session)(nil)

// errTwoReadings: go-smtp reads an address otherwise than we do, so that neither
// may be trusted.
var errTwoReadings = wording(reply(501, "5.1.3", "address with two readings"))

func (s *session) Reset() {
	s.transaction, s.chunks, s.replied = nil, nil, 0
	s.wire.queueID = "" // as Postfix's own server does
}

func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	t := s.wire.from
	if from != t.bare {
		return errTwoReadings
	}
	s.transaction = &t
	return nil
}

func (s *session) Rcpt(name string, _ *smtp.RcptOptions) error {
	to, t := s.wire.to, s.transaction
	if name != to.bare {
		return errTwoReadings
	}
	mode := to.mode
	if mode == requiretls.Normal || t.mode == requiretls.Required { // which beats Relaxed (RFC 8689 §4.1)
		mode = t.mode
	}
	t.envelope.To = append(t.envelope.To, to.Recipient)
	t.modes = append(t.modes, mode)
	t.names = append(t.names, name)
	return nil
}

// Data is not called: this is LMTP.
func (s *session) Data(io.Reader) error { return errors.New("LMTP only") }

// LMTPData takes the text and answers for each recipient. r is the empty text
// that the wire shows to go-smtp.
func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	t := s.transaction
	replies := s.receive(t)
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	for i, name := range t.names {
		status.SetStatus(name, wording(replies[i]))
	}
	return nil
}

// receive takes the text, lets the message be delivered, and returns one reply
// for each recipient.
func (s *session) receive(t *transaction) []smtpclient.Reply {
	d := s.wire.door
	b := &body{budget: &d.server.memory, limit: d.maxMemory, dir: d.server.TempDir, large: t.size > maxInMemory}
	if d.server.Ledger != nil {
		b.hash = ledger.NewHash()
	}
	defer b.Close()
	if err := b.receive(s.wire.text, d.maxMessage); err != nil {
		r := s.trouble(err)
		if s.keepable(err) {
			s.wire.text.drop(r)
		}
		return all(t, r)
	}
	m, r := s.message(t, b)
	if r.Code != 0 {
		return all(t, r)
	}
	replies := d.deliver(m)
	if len(replies) != len(t.names) {
		d.log.Error("delivery gave the wrong number of replies", "have", len(replies), "want", len(t.names))
		return all(t, reply(451, "4.3.0", "internal error"))
	}
	return replies
}

// keepable reports that the connection is in order, only the text is not taken.
func (s *session) keepable(err error) bool {
	var storage storageError
	return errors.Is(err, errTooLarge) || errors.As(err, &storage)
}

func (s *session) trouble(err error) smtpclient.Reply {
	var storage storageError
	switch {
	case errors.Is(err, errTooLarge):
		return s.wire.tooLarge()
	case errors.As(err, &storage):
		s.wire.door.log.Error("no room for a message", "error", err)
		return reply(452, "4.3.1", "no room for the message")
	}
	return reply(451, "4.4.2", "the message did not arrive whole")
}

func all(t *transaction, r smtpclient.Reply) []smtpclient.Reply {
	list := make([]smtpclient.Reply, len(t.names))
	for i := range list {
		list[i] = r
	}
	return list
}

// message makes a message of a text. The reply refuses it.
func (s *session) message(t *transaction, b *body) (*message, smtpclient.Reply) {
	d := s.wire.door
	h, err := scanHeader(b.lines(0, b.size), d.hostname)
	switch {
	case errors.Is(err, errTooManyRoutes):
		return nil, reply(554, "5.6.0", err.Error())
	case err != nil:
		return nil, s.trouble(storageError{err})
	case h.hops > maxHops, h.own >= maxOwnHops:
		return nil, reply(554, "5.4.6", fmt.Sprintf("mail loop: %d Received lines, %d of %s", h.hops, h.own, d.hostname))
	}
	m := &message{
		mode: t.mode, envelope: t.envelope, modes: t.modes,
		digest: b.digest(), received: h.received, messageID: h.messageID,
		queueID: t.queueID, id: strings.ToLower(rand.Text()[:16]),
	}
	line := trace{
		helo: s.helo(), hostname: d.hostname, id: m.id,
		tls: s.wire.secure, utf8: t.envelope.UTF8, at: d.now(),
	}
	if tcp, ok := s.wire.RemoteAddr().(*net.TCPAddr); ok {
		line.peer = tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	if len(t.envelope.To) == 1 && ascii(t.envelope.To[0].Addr) {
		line.recipient = t.envelope.To[0].Addr
	}
	m.content = edit(line.String(), b, h.routes)
	return m, smtpclient.Reply{}
}

// helo is the client's name as far as it is one.
func (s *session) helo() string {
	name := s.wire.helo
	if len(name) > 255 || !ascii(name) || strings.IndexFunc(name, notInDomain) >= 0 {
		return "unknown"
	}
	return name
}

// wording is r for go-smtp, which takes replies of all kinds as errors.
func wording(r smtpclient.Reply) *smtp.SMTPError {
	e := &smtp.SMTPError{Code: r.Code, Message: oneLine(r.Text)}
	if r.Code < 200 || r.Code > 599 || r.Code/100 == 3 {
		e.Code = 451
	}
	if parts := strings.Split(r.Enhanced, "."); len(parts) == 3 {
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 10)
			if err != nil {
				n = 0
			}
			e.EnhancedCode[i] = int(n)
		}
	}
	if e.EnhancedCode[0] != e.Code/100 { // RFC 3463 §2; X.0.0 is what go-smtp makes of none
		e.EnhancedCode = smtp.EnhancedCodeNotSet
	}
	return e
}

// oneLine makes printable ASCII of what may fit into a reply.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), maxReplyText)])
	return strings.TrimSpace(s)
}

// finalReply is a line of go-smtp behind a text, without the address that it puts
// in front of the recipient's reply: the mail server knows it, and the reply is the
// remote server's own. ok is false if nobody waits for it.
func (s *session) finalReply(line string) (_ string, ok bool) {
	if s.chunks != nil && s.chunks.abandoned {
		return "", false
	}
	if t := s.transaction; t != nil && s.replied < len(t.names) {
		code, after, found := strings.Cut(line, "<"+t.names[s.replied]+"> ")
		if found && strings.Count(code, " ") == 2 {
			line = code + after
		}
	}
	s.replied++
	return line, true
}

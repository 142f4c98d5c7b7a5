package send

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"time"
)

const (
	smtpPort   = "25"
	maxReplies = 64 << 10        // of one conversation; some 2 KiB are usual
	maxReply   = 512             // RFC 5321 §4.5.3.1.5
	lastWords  = 5 * time.Second // for why the other side hangs up, and for the end of QUIT
)

// envelope is what is submitted.
type envelope struct {
	from, to string
	message  []byte
}

// handshakeError is TLS that failed.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "STARTTLS: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// submit hands a message to the mail server. The client of go-smtp says "EHLO
// localhost" before STARTTLS, that of net/smtp hides the final reply with the queue id,
// and neither bounds replies; so there is one here, of six commands.
func (m *Mail) submit(ctx context.Context, address string, e envelope) (string, error) {
	address = strings.TrimSuffix(address, "/")
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]") // without a port
	}
	if host == "" {
		return "", ours("submit = %s names no host", quoted(m.Submit))
	}
	address = net.JoinHostPort(host, cmp.Or(port, smtpPort))
	reply, err := m.converse(ctx, address, e, !isLoopback(host))
	if _, ok := errors.AsType[*handshakeError](err); ok && ctx.Err() == nil {
		// The mail server is the operator's own, and a report no secret.
		reply, err = m.converse(ctx, address, e, false)
	}
	if err == nil {
		return reply, nil
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		return "", f
	}
	return "", ours("submit to %s: %w", quoted(address), cause(ctx, err))
}

func isLoopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

func (m *Mail) converse(ctx context.Context, address string, e envelope, secure bool) (string, error) {
	dial := m.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s := &submission{name: address, hostname: cmp.Or(m.Hostname, "localhost"), raw: conn}
	if !isPrintable(s.hostname) {
		return "", ours("%s is no host name for EHLO", quoted(s.hostname))
	}
	s.speak(conn)
	if err := s.begin(ctx, secure); err != nil {
		return "", err
	}
	return s.transaction(e)
}

// submission is one conversation with the host's mail server.
type submission struct {
	name, hostname string
	raw            net.Conn
	limited        *io.LimitedReader
	text           *textproto.Conn
	offers         map[string]bool
}

// speak uses conn from here on. Nothing that was read before counts.
func (s *submission) speak(conn net.Conn) {
	s.limited = &io.LimitedReader{R: conn, N: maxReplies}
	s.text = textproto.NewConn(struct {
		io.Reader
		io.Writer
		io.Closer
	}{s.limited, conn, conn})
}

// begin leads up to where MAIL may be said.
func (s *submission) begin(ctx context.Context, secure bool) error {
	if _, err := s.expect("its greeting", 220); err != nil {
		return err
	}
	if err := s.hello(); err != nil {
		return err
	}
	if !secure || !s.offers["STARTTLS"] {
		return nil
	}
	if _, err := s.command(220, "STARTTLS"); err != nil {
		if _, refused := errors.AsType[*Failure](err); refused {
			return nil // on in clear
		}
		return err
	}
	// Encryption for the way through the operator's own network, to a server whose
	// certificate is often its own; there is nothing to authenticate for.
	conn := tls.Client(s.raw, &tls.Config{InsecureSkipVerify: true})
	if err := conn.HandshakeContext(ctx); err != nil {
		return &handshakeError{cause(ctx, err)}
	}
	s.speak(conn)
	return s.hello()
}

func (s *submission) hello() error {
	text, err := s.command(250, "EHLO %s", s.hostname)
	if err != nil {
		return err
	}
	s.offers = make(map[string]bool)
	for line := range strings.SplitSeq(text, "\n") {
		keyword, _, _ := strings.Cut(line, " ")
		s.offers[strings.ToUpper(keyword)] = true // RFC 5321 §4.1.1.1: in any case
	}
	return nil
}

// transaction sends the message and returns the final reply. Bounces are asked for
// without the message, whose content is no news here (RFC 3461).
func (s *submission) transaction(e envelope) (string, error) {
	ret, notify := "", ""
	if s.offers["DSN"] {
		ret, notify = " RET=HDRS", " NOTIFY=FAILURE"
	}
	if _, err := s.command(250, "MAIL FROM:<%s>%s", e.from, ret); err != nil {
		return "", err
	}
	if _, err := s.command(25, "RCPT TO:<%s>%s", e.to, notify); err != nil {
		return "", recipient(err)
	}
	if _, err := s.command(354, "DATA"); err != nil {
		return "", err
	}
	w := s.text.DotWriter()
	_, err := w.Write(e.message)
	if err = errors.Join(err, w.Close()); err != nil {
		s.raw.SetReadDeadline(time.Now().Add(lastWords))
		if _, said := s.expect("the message", 250); isRefusal(said) {
			return "", said
		}
		return "", err
	}
	text, err := s.expect("the message", 250)
	if err != nil {
		return "", err
	}
	s.raw.SetDeadline(time.Now().Add(lastWords))
	s.command(221, "QUIT") // it has the message whatever comes of this
	return printable("250 "+strings.ReplaceAll(text, "\n", " "), maxReply), nil
}

// command sends one and reads the reply, whose code is or begins with expected.
func (s *submission) command(expected int, format string, args ...any) (string, error) {
	line := fmt.Sprintf(format, args...)
	if err := s.text.PrintfLine("%s", line); err != nil {
		return "", err
	}
	return s.expect(line, expected)
}

// refusal is a reply that was not hoped for.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string {
	return printable(fmt.Sprintf("%d %s", r.code, strings.ReplaceAll(r.text, "\n", " ")), maxWords/2)
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*refusal](err)
	return ok
}

// expect reads one reply to what was said. A refusal is our own trouble, and may pass:
// a rule of the mail server, which the operator can change. It is so after the message
// too, where nobody but the mail server's own filters has looked at it.
func (s *submission) expect(said string, code int) (string, error) {
	_, text, err := s.text.ReadResponse(code)
	if reply, ok := errors.AsType[*textproto.Error](err); ok {
		return "", ours("mail server %s in reply to %s: %w", s.name, printable(said, maxWords/4), &refusal{reply.Code, reply.Msg})
	}
	if err != nil && s.limited.N <= 0 {
		return "", ours("mail server %s sends replies without end", s.name)
	}
	return text, err
}

// recipient is what RCPT failed for. The mail server may refuse the recipient's domain
// or mailbox, of which it knows, and for ever then; or us.
func recipient(err error) error {
	said, ok := errors.AsType[*refusal](err)
	if !ok {
		return err
	}
	f := &Failure{Target: said.ofTarget(), Err: err}
	f.Final = f.Target && said.code/100 == 5
	return f
}

// ofTarget reports whether a reply to RCPT is about the recipient. Mail servers give
// their opinion of the sender and of the client there too (Postfix: smtpd_delay_reject),
// and for one to whom they do not relay every recipient is wrong; were that taken for
// the targets' doing, a slip of the operator would look like the end of all of them.
func (r *refusal) ofTarget() bool {
	text := strings.ToLower(r.text)
	if strings.Contains(text, "relay") || strings.Contains(text, "sender") {
		return false
	}
	switch subject, detail := r.enhanced(); subject { // RFC 3463 §3
	case "1": // address; .7 and .8 are the sender's
		return detail != "7" && detail != "8"
	case "2", "4": // mailbox; network and routing
		return true
	case "3", "5", "6", "7": // mail system, protocol, content, policy
		return false
	}
	switch r.code { // RFC 5321 §4.2.3, RFC 7504
	case 450, 550, 551, 552, 553, 556:
		return true
	}
	return false
}

// enhanced is the subject and the detail of the reply's enhanced code (RFC 2034 §4).
func (r *refusal) enhanced() (subject, detail string) {
	word, _, _ := strings.Cut(r.text, " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || parts[0][0] != byte('0'+r.code/100) {
		return "", ""
	}
	return parts[1], parts[2]
}

// isPrintable reports whether s can stand in a command.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

package send

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"postseal/reporting/tlsrpt"
)

// submitLimit lets a content filter of the host take its time: half of what RFC 5321
// §4.5.3.2.6 has for the final reply alone.
const submitLimit = 5 * time.Minute

// Mail hands reports to the host's mail server. Its methods may be used side by side;
// the fields must not change after the first use.
type Mail struct {
	// Submit is how: "smtp://host:port" or "sendmail:/path". By SMTP nobody logs in:
	// the mail server must take mail for the world from this machine.
	Submit string

	From     string        // of the header; addr-spec
	Envelope string        // the reverse-path, where bounces go (RFC 5321 §4.4); "": From
	Hostname string        // for EHLO; "": localhost
	Keys     []Key         // each makes a signature; without any the host has to sign
	Timeout  time.Duration // of one submission; 0: 5 min

	// Dial opens the connection to the mail server; nil: [net.Dialer].
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Message is the mail that brings the report about domain (A-labels) to an address,
// signed, with CRLF at the end of its lines: exactly the bytes that are submitted.
// Date is that of its header. For the same arguments only the signatures differ, which
// hold the time at which they were made. An error is a [*Failure], final if it is the
// report that cannot be sent.
func (m *Mail) Message(r *tlsrpt.Report, domain, to string, date time.Time) ([]byte, error) {
	message := tlsrpt.Message{Report: r, Domain: domain, From: m.From, To: to, Date: date}
	var unsigned bytes.Buffer
	if err := message.Encode(&unsigned); err != nil {
		return nil, &Failure{Final: true, Err: fmt.Errorf("report about %s to %s: %w", quoted(domain), quoted(to), err)}
	}
	var signed bytes.Buffer
	for _, key := range m.Keys {
		signature, err := key.sign(unsigned.Bytes())
		if err != nil {
			return nil, ours("sign the report about %s with DKIM key %s of %s: %w", quoted(domain), key.Selector, key.Domain, err)
		}
		signed.WriteString(signature)
	}
	signed.Write(unsigned.Bytes())
	return signed.Bytes(), nil
}

// MessageID is the Message-ID of that message, with its angle brackets.
func (m *Mail) MessageID(r *tlsrpt.Report, to string) string {
	return (&tlsrpt.Message{Report: r, From: m.From, To: to}).MessageID()
}

// Send submits a message that [Mail.Message] made for the address to. The reply is what
// the mail server said, printable and of at most about 500 bytes: with the queue id, as
// a rule. An error is a [*Failure]. After one, the mail server may have the message
// nevertheless, if it broke off at the very end; another try sends the same report id
// and message id, by which receivers know them as one.
func (m *Mail) Send(ctx context.Context, message []byte, to string) (reply string, err error) {
	if address, err := tlsrpt.ParseAddress(to); err != nil || address != to {
		return "", &Failure{Target: true, Final: true, Err: fmt.Errorf("%s is no bare mail address", quoted(to))}
	}
	from, err := tlsrpt.ParseAddress(cmp.Or(m.Envelope, m.From))
	if err != nil {
		return "", ours("the sender %s is no mail address: %w", quoted(cmp.Or(m.Envelope, m.From)), err)
	}
	limit := cmp.Or(m.Timeout, submitLimit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	if path, ok := strings.CutPrefix(m.Submit, "sendmail:"); ok {
		return sendmail(ctx, path, from, to, message)
	}
	if address, ok := strings.CutPrefix(m.Submit, "smtp://"); ok {
		return m.submit(ctx, address, envelope{from, to, message})
	}
	return "", ours("submit = %s is neither smtp://host:port nor sendmail:/path", quoted(m.Submit))
}

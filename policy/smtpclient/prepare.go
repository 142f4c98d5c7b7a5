package smtpclient

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/net/idna"
)

// prepare words the commands, by what the host offers, and refuses what cannot go
// to it. Nothing has been said yet.
func (t *transaction) prepare() *Failure {
	s, e := t.s, t.e
	if !sound(e.From) {
		return s.fail(StageMail, nil, 553, "5.1.7", "sender address cannot be sent")
	}
	for _, parameter := range []string{e.Ret, e.EnvID} {
		if !plain(parameter) {
			return s.fail(StageMail, nil, 501, "5.5.4", "DSN parameter cannot be sent")
		}
	}
	utf8, from, to, f := t.international()
	if f != nil {
		return f
	}
	mail := "MAIL FROM:<" + from + ">"
	if s.Offers("SIZE") {
		if limit := s.sizeLimit(); limit > 0 && t.size > limit {
			return s.fail(StageMail, nil, 552, "5.3.4", "message of %d octets is larger than its limit of %d", t.size, limit)
		}
		mail += fmt.Sprintf(" SIZE=%d", t.size)
	}
	body, f := t.body()
	if f != nil {
		return f
	}
	mail += body
	if utf8 {
		mail += " SMTPUTF8"
	}
	if s.Offers("DSN") { // RFC 3461 §5.2.1
		mail += parameter("RET", e.Ret) + parameter("ENVID", e.EnvID)
	}
	if s.keepsTLS() {
		mail += " REQUIRETLS"
	}
	t.mail = mail
	t.recipients(to, utf8)
	return nil
}

// keepsTLS reports whether the parameter REQUIRETLS goes with MAIL: demanded, or
// there would be no session, or asked for and no less justified.
func (s *Session) keepsTLS() bool {
	d := s.target.Demand
	return d.RequireTLS || d.AskTLS && s.info.Secured >= PKIX && s.Offers("REQUIRETLS")
}

// recipients words the RCPT commands. An address that would be more than an address
// on the wire is refused for itself.
func (t *transaction) recipients(to []string, utf8 bool) {
	t.rcpts = make([]string, len(to))
	for i, r := range t.e.To {
		if r.Addr == "" || !sound(r.Addr) || !plain(r.Notify) || !plain(r.ORcpt) {
			t.Replies[i] = Reply{553, "5.1.3", "recipient address cannot be sent"}
			continue
		}
		line := "RCPT TO:<" + to[i] + ">"
		if t.s.Offers("DSN") {
			line += parameter("NOTIFY", r.Notify)
			if utf8 || ascii(r.ORcpt) { // RFC 6533 §3
				line += parameter("ORCPT", r.ORcpt)
			}
		}
		t.rcpts[i] = line
	}
}

func parameter(name, value string) string {
	if value == "" {
		return ""
	}
	return " " + name + "=" + value
}

// body is the BODY parameter (RFC 6152 §2). To convert an 8-bit message would break its
// signatures, so that a host without 8BITMIME does not get it.
func (t *transaction) body() (string, *Failure) {
	s := t.s
	switch strings.ToUpper(t.e.Body) {
	case "8BITMIME":
		if s.Offers("8BITMIME") {
			return " BODY=8BITMIME", nil
		}
		if eight, err := t.eight(false); err != nil {
			return "", s.fail(StageMail, err, 451, "4.3.0", "message cannot be read: %v", err)
		} else if !eight {
			return "", nil
		}
		return "", s.fail(StageMail, nil, 554, "5.6.3", "does not support 8BITMIME, which the message needs")
	case "BINARYMIME": // needs BDAT (RFC 3030 §3), which is not spoken here
		return "", s.fail(StageMail, nil, 554, "5.6.3", "message of BODY=BINARYMIME cannot be sent")
	case "7BIT":
		if s.Offers("8BITMIME") {
			return " BODY=7BIT", nil
		}
	}
	return "", nil
}

// international tells whether SMTPUTF8 goes with MAIL (RFC 6531 §3.4), and gives the
// addresses as they can be sent. Domains alone can be A-labels (§3.2).
func (t *transaction) international() (utf8 bool, from string, to []string, f *Failure) {
	s, e := t.s, t.e
	from = e.From
	wide := !ascii(from)
	for _, r := range e.To {
		to = append(to, r.Addr)
		wide = wide || !ascii(r.Addr)
	}
	if !wide && !e.UTF8 {
		return false, from, to, nil
	}
	if s.Offers("SMTPUTF8") {
		return true, from, to, nil
	}
	no := func() (bool, string, []string, *Failure) {
		return false, "", nil, s.fail(StageMail, nil, 550, "5.6.7", "does not support SMTPUTF8, which the message needs")
	}
	ok := true
	if from, ok = narrow(from); !ok {
		return no()
	}
	for i := range to {
		if to[i], ok = narrow(to[i]); !ok {
			return no()
		}
	}
	eight, err := t.eight(true)
	if err != nil {
		return false, "", nil, s.fail(StageMail, err, 451, "4.3.0", "message cannot be read: %v", err)
	}
	if eight {
		return no()
	}
	return false, from, to, nil
}

// narrow writes the domain of an address in A-labels; ok is false if the address is
// not ASCII then.
func narrow(addr string) (string, bool) {
	if ascii(addr) {
		return addr, true
	}
	at := strings.LastIndexByte(addr, '@')
	domain, err := idna.Lookup.ToASCII(addr[at+1:])
	if err != nil || at < 0 || !ascii(addr[:at]) {
		return addr, false
	}
	return addr[:at+1] + domain, true
}

// eight tells whether the message, or its header alone, has octets beyond ASCII.
// Of a reader that cannot go back the envelope is believed, which says so.
func (t *transaction) eight(header bool) (bool, error) {
	seeker, ok := t.data.(io.Seeker)
	if !ok {
		return true, nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if errors.Is(err, errors.ErrUnsupported) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	found, err := wide(t.data, header)
	if err != nil {
		return false, err
	}
	_, err = seeker.Seek(start, io.SeekStart)
	return found, err
}

func wide(data io.Reader, header bool) (bool, error) {
	r := bufio.NewReaderSize(data, writeSize)
	line := true // at its start
	for {
		p, err := r.ReadSlice('\n')
		if !ascii(p) {
			return true, nil
		}
		if header && line && len(bytes.TrimRight(p, "\r\n")) == 0 && len(p) > 0 {
			return false, nil
		}
		switch line = err == nil; err {
		case nil, bufio.ErrBufferFull:
		case io.EOF:
			return false, nil
		default:
			return false, err
		}
	}
}

func ascii[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// sound reports whether an address stays one address inside angle brackets: no
// control characters, and no blank or bracket outside a quoted string. All else is
// the host's to judge.
func sound(addr string) bool {
	quoted, escaped := false, false
	for _, c := range []byte(addr) {
		if c < ' ' || c == 0x7f {
			return false
		}
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '<' || c == '>'):
			return false
		}
	}
	return !quoted
}

// plain reports whether a parameter's value is one word.
func plain(value string) bool {
	for _, c := range []byte(value) {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

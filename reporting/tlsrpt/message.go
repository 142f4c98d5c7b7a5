package tlsrpt

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"strings"
	"time"
)

// MediaType is that of a compressed report, by mail and by https (RFC 8460 §5.3, §5.4).
const MediaType = "application/tlsrpt+gzip"

const (
	mailRows   = 50 // failures in the text part; the file has all
	base64Line = 76 // RFC 2045 §6.8
)

// Message is the mail that brings a report (RFC 8460 §5.3), but for its signature. Its
// bytes depend on nothing but the fields.
type Message struct {
	Report *Report
	Domain string    // that the report is about: TLS-Report-Domain; A-labels
	From   string    // addr-spec
	To     string    // addr-spec, of a [Target]
	Date   time.Time // of the header field, in its own zone
}

// Encode writes the message with CRLF at the end of its lines, none longer than RFC
// 5322 §2.1.1 has them. Nothing is written of a report that [Report.Validate] refuses.
func (m *Message) Encode(w io.Writer) error {
	if err := m.validate(); err != nil {
		return err
	}
	boundary := "=_tlsrpt_" + m.Report.unique() // "=_" is in no base64 and no quoted-printable
	if err := m.encodeHeader(w, boundary); err != nil {
		return err
	}
	if err := m.encodeText(w, boundary); err != nil {
		return err
	}
	if err := m.encodeReport(w, boundary); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\r\n--"+boundary+"--\r\n")
	return err
}

func (m *Message) validate() error {
	if m.Report == nil {
		return errors.New("a message without a report")
	}
	if err := m.Report.Validate(); err != nil {
		return err
	}
	if name, ok := asciiName(m.Domain); !ok || name != m.Domain {
		return fmt.Errorf("report domain %s is not in A-labels", quoted(m.Domain))
	}
	for _, address := range []string{m.From, m.To} {
		if a, err := ParseAddress(address); err != nil || a != address {
			return fmt.Errorf("%s is no bare mail address", quoted(address))
		}
	}
	if m.Date.Year() < 1970 || m.Date.Year() > 9999 {
		return errors.New("a message without a date")
	}
	return nil
}

// idPrefix begins the Message-ID of a report and idDigits follow, so that logs of mail
// servers, which all name it, tell which deliveries were of reports.
const (
	idPrefix = "tlsrpt."
	idDigits = 32
)

// MessageID is the same for every attempt to send a report to one address, so that who
// gets it twice can tell. [IsMessageID] knows it again.
func (m *Message) MessageID() string {
	sum := sha256.Sum256([]byte(m.Report.ID + "\x00" + m.To))
	return "<" + idPrefix + hex.EncodeToString(sum[:idDigits/2]) + "@" + domainOf(m.From) + ">"
}

// IsMessageID reports whether id is what [Message.MessageID] gives to a message from an
// address at domain, with its angle brackets or without. Anybody can write such a
// Message-ID: it tells what need not be counted, and is no proof of an origin.
func IsMessageID(id []byte, domain string) bool {
	if n := len(id); n > 1 && id[0] == '<' && id[n-1] == '>' {
		id = id[1 : n-1]
	}
	const at = len(idPrefix) + idDigits
	if domain == "" || len(id) != at+1+len(domain) || string(id[:len(idPrefix)]) != idPrefix || id[at] != '@' {
		return false
	}
	for _, c := range id[len(idPrefix):at] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return strings.EqualFold(string(id[at+1:]), domain)
}

// encodeHeader folds the Subject by the grammar of RFC 8460 §5.3, which has blanks or
// folds between its words; unfolded it is as the grammar's example.
func (m *Message) encodeHeader(w io.Writer, boundary string) error {
	r := m.Report
	_, err := io.WriteString(w, strings.Join([]string{
		"Date: " + m.Date.Format("Mon, 02 Jan 2006 15:04:05 -0700"),
		"From: " + m.From,
		"To: " + m.To,
		"Subject: Report Domain: " + m.Domain,
		" Submitter: " + r.Submitter(),
		" Report-ID: <" + r.ID + ">",
		"Message-ID: " + m.MessageID(),
		"TLS-Report-Domain: " + m.Domain,
		"TLS-Report-Submitter: " + r.Submitter(),
		"TLS-Required: No",               // RFC 8460 §3: in spite of what it reports; RFC 8689 §5
		"Auto-Submitted: auto-generated", // RFC 3834 §5.1
		"MIME-Version: 1.0",
		`Content-Type: multipart/report; report-type="tlsrpt";`,
		` boundary="` + boundary + `"`,
		"", "",
	}, "\r\n"))
	return err
}

func (m *Message) encodeText(w io.Writer, boundary string) error {
	_, err := io.WriteString(w, strings.Join([]string{
		"--" + boundary,
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: quoted-printable",
		"", "",
	}, "\r\n"))
	if err != nil {
		return err
	}
	q := quotedprintable.NewWriter(w)
	if err := m.Report.WriteText(q, m.Domain, mailRows); err != nil {
		return err
	}
	return q.Close()
}

func (m *Message) encodeReport(w io.Writer, boundary string) error {
	_, err := io.WriteString(w, strings.Join([]string{
		"--" + boundary,
		"Content-Type: " + MediaType,
		"Content-Transfer-Encoding: base64",
		"Content-Disposition: attachment;",
		` filename="` + m.Report.FileName(m.Domain) + `"`,
		"", "",
	}, "\r\n"))
	if err != nil {
		return err
	}
	b := base64.NewEncoder(base64.StdEncoding, &lines{w: w})
	if err := m.Report.EncodeGzip(b); err != nil {
		return err
	}
	return b.Close()
}

// lines breaks base64 into lines.
type lines struct {
	w  io.Writer
	on int // bytes on the last line
}

func (l *lines) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if l.on == base64Line {
			if _, err := io.WriteString(l.w, "\r\n"); err != nil {
				return written, err
			}
			l.on = 0
		}
		n := min(len(p), base64Line-l.on)
		if _, err := l.w.Write(p[:n]); err != nil {
			return written, err
		}
		written += n
		l.on += n
		p = p[n:]
	}
	return written, nil
}

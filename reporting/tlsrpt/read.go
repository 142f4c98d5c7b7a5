package tlsrpt

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"strings"
)

const (
	maxInput     = 32 << 20 // bytes of a file or message; receivers take 10 MB, base64 adds a third
	maxParts     = 100      // of a message, nested ones too
	maxPartDepth = 5        // a forwarded report in a mailing list's frame has 3
)

// errNoPart is what a message without a report gives.
var errNoPart = errors.New("no part of the message is a TLS report")

// Read reads a report as it is found: JSON, JSON compressed by gzip, or a mail that has
// either in it, forwarded or not. Peculiarities are told as [Decode] does, those of
// the mail too. That a mail is signed (RFC 8460 §3) is not checked.
func Read(r io.Reader) (Report, []string, error) {
	limited := &io.LimitedReader{R: r, N: maxInput + 1}
	report, peculiar, err := read(bufio.NewReader(limited))
	if limited.N <= 0 {
		return Report{}, nil, fmt.Errorf("more than %d MiB", maxInput>>20)
	}
	return report, peculiar, err
}

func read(in *bufio.Reader) (Report, []string, error) {
	switch form(in) {
	case formGzip, formJSON:
		return readPart(in)
	case formEmpty:
		return Report{}, nil, errors.New("nothing to read")
	case formMail:
	}
	m := &message{}
	if head, _ := in.Peek(5); string(head) == "From " { // a mailbox of one message
		if _, err := in.ReadString('\n'); err != nil {
			return Report{}, nil, unexpected(err)
		}
	}
	if err := m.read(in, 0); err != nil {
		return Report{}, nil, err
	}
	if !m.found {
		return Report{}, nil, errNoPart
	}
	m.compare()
	m.list = append(m.list, m.peculiar...)
	return m.report, m.told(), nil
}

type forms int

const (
	formEmpty forms = iota
	formGzip
	formJSON
	formMail
)

// form tells by the first bytes what is read, and passes over a byte order mark, which
// RFC 8259 §8.1 lets a parser ignore.
func form(in *bufio.Reader) forms {
	head, _ := in.Peek(64)
	if rest, ok := bytes.CutPrefix(head, []byte("\ufeff")); ok {
		head = rest
		in.Discard(len("\ufeff")) // which Peek has seen: no error
	}
	switch text := bytes.TrimLeft(head, " \t\r\n"); {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}): // RFC 1952 §2.3.1
		return formGzip
	case len(text) == 0:
		return formEmpty
	case text[0] == '{' || text[0] == '[':
		return formJSON
	}
	return formMail
}

// readPart reads JSON, compressed or not.
func readPart(in *bufio.Reader) (Report, []string, error) {
	if form(in) != formGzip {
		return Decode(in)
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return Report{}, nil, fmt.Errorf("no report: %w", err)
	}
	inner := bufio.NewReader(z) // Decode bounds what comes out
	if form(inner) == formGzip {
		return Report{}, nil, errors.New("no report: gzip in gzip")
	}
	return Decode(inner)
}

// message is a mail that is searched for a report.
type message struct {
	notes
	found    bool
	parts    int
	report   Report
	peculiar []string // of the report
	header   mail.Header
}

// read searches a message, or one within a message.
func (m *message) read(in io.Reader, depth int) error {
	mail, err := mail.ReadMessage(in)
	if err != nil {
		return errors.New("neither JSON, gzip nor a mail: " + shown(err.Error(), maxPeculiarText)) // it quotes the line
	}
	before := m.found
	if err := m.part(textproto.MIMEHeader(mail.Header), mail.Body, depth); err != nil {
		return err
	}
	if m.found && !before && m.header == nil {
		m.header = mail.Header // of the innermost message, which is the report's own
	}
	return nil
}

// part searches a part, and those within it.
func (m *message) part(header textproto.MIMEHeader, body io.Reader, depth int) error {
	if m.parts++; m.parts > maxParts || depth > maxPartDepth {
		return fmt.Errorf("a message of more than %d parts, or more than %d deep", maxParts, maxPartDepth)
	}
	media, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil && media == "" {
		media = "text/plain" // RFC 2045 §5.2
	}
	switch {
	case strings.HasPrefix(media, "multipart/"):
		return m.multipart(media, params, body, depth)
	case media == "message/rfc822":
		return m.read(decoded(header, body), depth+1)
	case m.found || !m.candidate(media, params, header):
		return nil
	}
	in := bufio.NewReader(decoded(header, body))
	compressed := form(in) == formGzip
	report, peculiar, err := readPart(in)
	if err != nil {
		if !strings.HasPrefix(media, "application/tlsrpt") {
			return nil // some other attachment
		}
		return err
	}
	m.found, m.report, m.peculiar = true, report, peculiar
	switch {
	case media == "application/tlsrpt+gzip" && !compressed:
		m.note("the part says gzip and is none")
	case media == "application/tlsrpt+json" && compressed:
		m.note("the part says JSON and is gzip")
	case !strings.HasPrefix(media, "application/tlsrpt+"): // RFC 8460 §5.3
		m.note("the part is %s, not application/tlsrpt+gzip", media)
	}
	return nil
}

func (m *message) multipart(media string, params map[string]string, body io.Reader, depth int) error {
	before := m.found
	parts := multipart.NewReader(body, params["boundary"])
	for {
		part, err := parts.NextRawPart() // its encoding is undone by decoded, which knows base64
		if err == io.EOF || err != nil && m.found {
			break
		}
		if err != nil {
			return fmt.Errorf("a broken %s: %s", shown(media, 40), shown(err.Error(), maxPeculiarText))
		}
		if err := m.part(part.Header, part, depth+1); err != nil {
			return err
		}
	}
	if before || !m.found {
		return nil
	}
	if media != "multipart/report" {
		m.note("the report is in %s, not multipart/report", media)
	} else if params["report-type"] != "tlsrpt" {
		m.note("report-type is %s, not tlsrpt", quoted(params["report-type"]))
	}
	return nil
}

// candidate reports whether a part may be a report: by its type, or by its name where
// the type says nothing.
func (m *message) candidate(media string, params map[string]string, header textproto.MIMEHeader) bool {
	switch media {
	case "application/tlsrpt+gzip", "application/tlsrpt+json", "application/tlsrpt",
		"application/json", "application/gzip", "application/x-gzip":
		return true
	}
	_, disposition, _ := mime.ParseMediaType(header.Get("Content-Disposition"))
	name := strings.ToLower(disposition["filename"])
	if name == "" {
		name = strings.ToLower(params["name"])
	}
	return strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".json.gz")
}

// decoded undoes the transfer encoding.
func decoded(header textproto.MIMEHeader, body io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(header.Get("Content-Transfer-Encoding"))) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	}
	return body
}

// compare tells where the header says something else than the report, which counts
// (RFC 8460 §5.6).
func (m *message) compare() {
	if m.header.Get("TLS-Report-Domain") == "" {
		m.note("the mail has no TLS-Report-Domain")
	}
	switch submitter := m.header.Get("TLS-Report-Submitter"); {
	case submitter == "":
		m.note("the mail has no TLS-Report-Submitter")
	case !strings.EqualFold(submitter, m.report.Submitter()):
		m.note("the TLS-Report-Submitter is %s, the contact is %s", submitter, m.report.Contact)
	}
	_, id, ok := strings.Cut(m.header.Get("Subject"), "Report-ID:")
	if id = strings.TrimSpace(id); !ok {
		m.note("the Subject has no Report-ID")
		return
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(id, "<"), ">")
	if len(bare) != len(id)-2 || !strings.Contains(bare, "@") { // RFC 8460 §5.3
		m.note("the Report-ID of the Subject is no msg-id: %s", id)
	}
	if bare != m.report.ID {
		m.note("the Report-ID of the Subject is another: %s", id)
	}
}

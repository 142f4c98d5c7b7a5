package milter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	gomilter "github.com/emersion/go-milter"
)

const (
	// maxFrame is go-milter's own limit. Mail servers send bodies in pieces of
	// 64 KiB and headers of at most 100 KiB (header_size_limit of Postfix, 32 KiB
	// for MaxHeadersLength of Sendmail), if they are set up as usual.
	maxFrame = 1 << 20

	// maxCommand limits all other frames, of which parts are kept. SMTP commands
	// end at 512 octets, with extensions at some thousand (RFC 5321 §4.5.3.1.4).
	maxCommand = 64 << 10

	// keptBuffer is how large a buffer may be that waits for the next frame.
	keptBuffer = 16 << 10
)

// Codes that go-milter does not know, of a command and of a change.
const (
	codeUnknown gomilter.Code          = 'U' // SMFIC_UNKNOWN: an SMTP command that the mail server does not know
	codeAddPar  gomilter.ModifyActCode = '2' // SMFIR_ADDRCPT_PAR: add a recipient with its ESMTP parameters
)

// errFrame is returned for a frame that no mail server sends.
var errFrame = errors.New("milter protocol")

func malformed(code byte, what string) error {
	return fmt.Errorf("%w: frame %q: %s", errFrame, code, what)
}

// readFrame reads a frame, length included, behind a length that was read into
// head. Memory grows only with what has really come.
func readFrame(r io.Reader, head [4]byte, buf []byte) ([]byte, error) {
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxFrame {
		return nil, fmt.Errorf("%w: a frame of %d octets", errFrame, n)
	}
	b := bytes.NewBuffer(append(buf[:0], head[:]...))
	if got, err := io.CopyN(b, r, int64(n)); err != nil {
		return nil, fmt.Errorf("%w: %d of %d octets came: %w", errFrame, got, n, err)
	}
	frame := b.Bytes()
	switch code := gomilter.Code(frame[4]); {
	case code == gomilter.CodeHeader, code == gomilter.CodeBody:
	case n > maxCommand:
		return nil, malformed(frame[4], "too long")
	}
	return frame, nil
}

// appendFrame appends a frame to dst.
func appendFrame(dst []byte, code byte, data []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(1+len(data)))
	return append(append(dst, code), data...)
}

// cstrings splits data that ends in NUL.
func cstrings(data []byte) ([]string, bool) {
	if len(data) == 0 || data[len(data)-1] != 0 {
		return nil, false
	}
	return strings.Split(string(data[:len(data)-1]), "\x00"), true
}

// parseEnvelope reads the frame of MAIL or RCPT: the address, then the parameters,
// each ended by NUL. The address is returned without its angle brackets.
func parseEnvelope(code byte, data []byte) (addr string, params []string, err error) {
	args, ok := cstrings(data)
	if !ok {
		return "", nil, malformed(code, "no address")
	}
	addr, params = args[0], args[1:]
	// Some builds of Sendmail 8.17.1 with EAI put everything into one string.
	if i := pathEnd(addr); i < len(addr) {
		params = append(strings.Fields(addr[i:]), params...)
		addr = addr[:i]
	}
	if n := len(addr); n >= 2 && addr[0] == '<' && addr[n-1] == '>' {
		addr = addr[1 : n-1]
	}
	return addr, params, nil
}

// pathEnd returns where the path "<…>" at the start of s ends if a blank follows
// it, else len(s). Quoted local parts may hold angle brackets (RFC 5321 §4.1.2).
func pathEnd(s string) int {
	if !strings.HasPrefix(s, "<") {
		return len(s)
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted && i+1 < len(s) && s[i+1] == ' ':
			return i + 1
		}
	}
	return len(s)
}

// bare is an address without comments (RFC 5322 §3.2.2), and its domain without
// blanks and dots at the end. RFC 5321 has none of them in commands, but Sendmail
// takes them, and routes by what is left.
func bare(addr string) string {
	addr = uncomment(addr)
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		return addr
	}
	domain := strings.Join(strings.Fields(addr[at:]), "")
	return addr[:at] + strings.TrimRight(domain, ".")
}

func uncomment(addr string) string {
	if strings.IndexByte(addr, '(') < 0 {
		return addr
	}
	var b strings.Builder
	quoted, depth := false, 0
	for i := 0; i < len(addr); i++ {
		c := addr[i]
		escaped := c == '\\' && i+1 < len(addr)
		switch {
		case escaped && depth > 0:
			i++
			continue
		case escaped:
			b.WriteByte(c)
			i++
			c = addr[i]
		case depth == 0 && c == '"':
			quoted = !quoted
		case !quoted && c == '(':
			depth++
			continue
		case depth > 0 && c == ')':
			depth--
			continue
		}
		if depth == 0 {
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}

// checkConnect checks the frame of a new client, which go-milter reads with less
// care, and takes off the prefix of IPv6 addresses (RFC 5321 §4.1.3), with which
// go-milter sees none.
func checkConnect(frame []byte) ([]byte, error) {
	data := frame[5:]
	host := bytes.IndexByte(data, 0)
	if host < 0 || len(data) < host+2 {
		return nil, malformed(frame[4], "no family")
	}
	switch family := gomilter.ProtoFamily(data[host+1]); family {
	case gomilter.FamilyUnknown:
		return frame, nil
	case gomilter.FamilyUnix, gomilter.FamilyInet, gomilter.FamilyInet6:
		if len(data) < host+5 || data[len(data)-1] != 0 { // a port of 2 octets, an address, NUL
			return nil, malformed(frame[4], "no address")
		}
		const prefix = "IPv6:"
		at := host + 4
		if len(data) < at+len(prefix) || !strings.EqualFold(string(data[at:at+len(prefix)]), prefix) {
			return frame, nil
		}
		return appendFrame(nil, frame[4], append(data[:at:at], data[at+len(prefix):]...)), nil
	default:
		return nil, malformed(frame[4], "unknown family")
	}
}

// checkHeader makes sure that a header's frame is a name and a value: go-milter
// answers others itself, even where no answer was agreed.
func checkHeader(frame []byte) error {
	parts, ok := cstrings(frame[5:])
	if !ok || len(parts) != 2 || parts[0] == "" {
		return malformed(frame[4], "not a name and a value")
	}
	return nil
}

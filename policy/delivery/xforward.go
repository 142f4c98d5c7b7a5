package delivery

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// forwardKeyword lists what the mail server may tell about the client that it has
// the message from (Postfix, XFORWARD_README).
const forwardKeyword = "NAME ADDR PORT PROTO HELO IDENT SOURCE"

// maxForward is the longest value (XFORWARD_README: 255 octets).
const maxForward = 255

var errForward = errors.New("want " + forwardKeyword + ", each with its value")

// forward is what XFORWARD said. Only what is used is kept.
type forward struct {
	addr    netip.Addr
	port    uint16
	queueID string
}

// with returns f with the attributes in args; unavailable ones are forgotten.
func (f forward) with(args string) (forward, error) {
	if args == "" {
		return f, errForward
	}
	for s := range strings.SplitSeq(args, " ") {
		if s == "" {
			continue
		}
		name, raw, ok := strings.Cut(s, "=")
		if !ok {
			return f, errForward
		}
		value, valid := decodeXtext(raw)
		if !valid || len(value) > maxForward || value == "[UNAVAILABLE]" || value == "[TEMPUNAVAIL]" {
			value = "" // what a client called itself must not stop its mail
		}
		switch strings.ToUpper(name) {
		case "ADDR":
			f.addr = parseForwardAddr(value)
		case "PORT":
			n, _ := strconv.ParseUint(value, 10, 16)
			f.port = uint16(n)
		case "IDENT":
			f.queueID = value
		case "NAME", "PROTO", "HELO", "SOURCE":
		default:
			return f, errForward
		}
	}
	return f, nil
}

// client is the zero value if it is not known.
func (f forward) client() netip.AddrPort {
	if !f.addr.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(f.addr, f.port)
}

// parseForwardAddr reads an address as in RFC 5321 §4.1.3, without its brackets.
func parseForwardAddr(s string) netip.Addr {
	const prefix = "IPv6:"
	if len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		s = s[len(prefix):]
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// decodeXtext decodes RFC 3461 §4. What is not printable then is not valid here.
func decodeXtext(s string) (string, bool) {
	if !isXtext(s) {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			n, _ := strconv.ParseUint(s[i+1:i+3], 16, 8)
			c, i = byte(n), i+2
		}
		b.WriteByte(c)
	}
	return b.String(), printable(b.String())
}

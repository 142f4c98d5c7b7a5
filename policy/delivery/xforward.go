package delivery

import (
	"errors"
	"strconv"
	"strings"
)

// forwardKeyword lists what the mail server may tell about the client that it has
// the message from (Postfix, XFORWARD_README).
const forwardKeyword = "NAME ADDR PORT PROTO HELO IDENT SOURCE"

// maxForward is the longest value (XFORWARD_README: 255 octets).
const maxForward = 255

var errForward = errors.New("want " + forwardKeyword + ", each with its value")

// forwarded is the queue id after XFORWARD with args: all else that it tells is
// taken, and of no use here. It is forgotten where it is said to be unavailable.
func forwarded(queueID, args string) (string, error) {
	if args == "" {
		return "", errForward
	}
	for s := range strings.SplitSeq(args, " ") {
		if s == "" {
			continue
		}
		name, raw, ok := strings.Cut(s, "=")
		if !ok {
			return "", errForward
		}
		switch strings.ToUpper(name) {
		case "IDENT":
			queueID = decodeForward(raw)
		case "NAME", "ADDR", "PORT", "PROTO", "HELO", "SOURCE": // what a client called itself must not stop its mail
		default:
			return "", errForward
		}
	}
	return queueID, nil
}

// decodeForward decodes a value (RFC 3461 §4); "" for one that is none.
func decodeForward(s string) string {
	if !isXtext(s) {
		return ""
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
	value := b.String()
	if len(value) > maxForward || !printable(value) || value == "[UNAVAILABLE]" || value == "[TEMPUNAVAIL]" {
		return ""
	}
	return value
}

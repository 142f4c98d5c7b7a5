package requiretls

import (
	"errors"
	"fmt"
	"strings"
)

// ErrTwice is returned by [SaysNo] for a header with more than one field
// TLS-Required, which RFC 8689 §3 forbids, and by [Parameter] for a parameter
// that is given twice.
var ErrTwice = errors.New("given more than once")

// SaysNo reports whether the fields TLS-Required of a message, by their values
// in order, say No. The values may be folded. An error says why fields that are
// there do not count: the safe side is to protect the message as if they were
// not there. RFC 8689 §3 knows no value but No.
func SaysNo(values ...string) (bool, error) {
	switch len(values) {
	case 0:
		return false, nil
	case 1:
	default:
		return false, fmt.Errorf("header %s: %w", TLSRequired, ErrTwice)
	}
	if v := value(values[0]); !equal(v, "No") {
		return false, fmt.Errorf("header %s: value %s is not No", TLSRequired, quote(v))
	}
	return true, nil
}

// Requested reports whether one of the fields Require-TLS-ESMTP, by their values,
// asks for REQUIRETLS. Whether the client may ask is for the caller to judge.
func Requested(values ...string) bool {
	for _, v := range values {
		if equal(value(v), "yes") {
			return true
		}
	}
	return false
}

// Field returns which of [TLSRequired], [Request] and [Route] a field name is, ""
// for any other. Case does not matter, nor do blanks before the colon, which RFC
// 5322 §4.5.8 lets receivers see: no spelling may carry a forged tag past us.
func Field(name string) string {
	name = strings.TrimRight(name, " \t")
	for _, f := range []string{TLSRequired, Request, Route} {
		if equal(name, f) {
			return f
		}
	}
	return ""
}

// Draft reports whether a field name is one that drafts of RFC 8689 used for what
// is now TLS-Required. Such fields mean nothing; who sends them may want to know.
func Draft(name string) bool {
	name = strings.TrimRight(name, " \t")
	return equal(name, "Require-TLS") || equal(name, "RequireTLS")
}

// value unfolds a field's value (RFC 5322 §2.2.3) and takes off the blanks around it.
func value(s string) string {
	for _, eol := range []string{"\r\n", "\n"} {
		s = strings.ReplaceAll(s, eol+" ", " ")
		s = strings.ReplaceAll(s, eol+"\t", "\t")
	}
	return strings.Trim(s, " \t")
}

// equal compares without regard to ASCII case. strings.EqualFold alone would
// take the long s for an s; it is longer in bytes.
func equal(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// maxQuote is enough to recognise a value in the log.
const maxQuote = 40

// quote makes one printable line of something that a stranger wrote.
func quote(s string) string {
	if len(s) > maxQuote {
		s = s[:maxQuote]
	}
	return fmt.Sprintf("%+q", s)
}

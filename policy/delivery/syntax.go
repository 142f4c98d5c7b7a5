package delivery

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	errPath       = errors.New("want <local-part@domain>")
	errParameters = errors.New("want parameters as KEY or KEY=value, each once")
	errChunk      = errors.New("want BDAT with a size, and LAST behind the last chunk")
)

// path of a MAIL or RCPT.
type path struct {
	address string // as written, without a source route
	bare    string // without quotes and backslashes, as go-smtp has it
}

// parsePath reads "FROM:<path>" or "TO:<path>" (RFC 5321 §4.1.2). rest is what
// stands behind.
func parsePath(args, prefix string, null bool) (p path, rest string, err error) {
	if len(args) < len(prefix) || !strings.EqualFold(args[:len(prefix)], prefix) {
		return path{}, "", errPath
	}
	s, ok := strings.CutPrefix(strings.TrimLeft(args[len(prefix):], " "), "<")
	if !ok {
		return path{}, "", errPath
	}
	if strings.HasPrefix(s, "@") { // a source route, which is ignored (appendix C)
		route, after, ok := strings.Cut(s, ":")
		if !ok || strings.ContainsAny(route, `<>" `) {
			return path{}, "", errPath
		}
		s, null = after, false
	}
	if after, ok := strings.CutPrefix(s, ">"); ok && null {
		return path{}, after, behind(after)
	}
	start := s
	local, s, ok := cutLocalPart(s)
	if !ok || local == "" || !strings.HasPrefix(s, "@") {
		return path{}, "", errPath
	}
	domain, after, ok := strings.Cut(s[1:], ">")
	if !ok || domain == "" || strings.IndexFunc(domain, notInDomain) >= 0 {
		return path{}, "", errPath
	}
	p = path{address: start[:len(start)-len(after)-1], bare: local + "@" + domain}
	return p, after, behind(after)
}

func behind(rest string) error {
	if rest != "" && rest[0] != ' ' {
		return errPath
	}
	return nil
}

// cutLocalPart reads a local part without its quotes.
func cutLocalPart(s string) (local, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, `()<>[]:;@\," `)
		if end < 0 {
			return "", "", false
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// notInDomain reports what is in no name and no address literal.
func notInDomain(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r >= utf8.RuneSelf:
		return false
	}
	return !strings.ContainsRune("-._[]:", r)
}

// parameter of MAIL or RCPT.
type parameter struct {
	key, value string // the key in capitals
	has        bool   // a value, be it empty
}

func parseParameters(s string) ([]parameter, error) {
	var list []parameter
	for s := range strings.SplitSeq(s, " ") { // no other blank separates
		if s == "" {
			continue
		}
		key, value, has := strings.Cut(s, "=")
		p := parameter{strings.ToUpper(key), value, has}
		if key == "" || strings.IndexFunc(key, notInKey) >= 0 {
			return nil, errParameters
		}
		for _, other := range list {
			if other.key == p.key {
				return nil, errParameters
			}
		}
		list = append(list, p)
	}
	return list, nil
}

func notInKey(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-')
}

// isXtext checks the encoding of RFC 3461 §4.
func isXtext(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c <= ' ', c > '~', c == '=':
			return false
		case c == '+':
			if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return false
			}
			i += 2
		}
	}
	return s != ""
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' || c >= 'a' && c <= 'f'
}

// isNotify checks RFC 3461 §4.1.
func isNotify(s string) bool {
	if strings.EqualFold(s, "NEVER") {
		return true
	}
	for word := range strings.SplitSeq(strings.ToUpper(s), ",") {
		switch word {
		case "SUCCESS", "FAILURE", "DELAY":
		default:
			return false
		}
	}
	return true
}

// isTypedAddress checks RFC 3461 §4.2, and the form with UTF-8 of RFC 6533 §3.
func isTypedAddress(s string, utf bool) bool {
	kind, address, ok := strings.Cut(s, ";")
	if !ok || kind == "" || address == "" || strings.IndexFunc(kind, notInKey) >= 0 {
		return false
	}
	if strings.EqualFold(kind, "utf-8") {
		return !strings.Contains(address, "=") && (utf || ascii(address))
	}
	return isXtext(address)
}

// parseChunk reads the arguments of BDAT (RFC 3030 §2).
func parseChunk(args string) (chunk, error) {
	size, last, ok := strings.Cut(args, " ")
	n, err := strconv.ParseUint(size, 10, 31)
	if err != nil || ok && !strings.EqualFold(strings.TrimSpace(last), "LAST") {
		return chunk{}, errChunk
	}
	return chunk{size: int64(n), last: ok}, nil
}

// printable reports valid UTF-8 without control characters and line separators,
// so that no reader finds more lines in it than one. What joins letters stays:
// addresses have it (RFC 6532 §3.1).
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
	}) < 0
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

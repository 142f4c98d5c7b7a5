package tlsrpt

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

const (
	maxName255 = 253 // RFC 1035 §2.3.4: 255 octets on the wire
	maxLabel   = 63  // RFC 1035 §2.3.4
	maxLocal   = 64  // RFC 5321 §4.5.3.1.1
	maxAddress = 254 // RFC 5321 §4.5.3.1.3: 256 octets with the angle brackets
)

// ParseAddress checks a bare addr-spec (RFC 5322 §3.4.1) that mail can be sent to from
// anywhere, and returns it with its domain in lower-case A-labels. Refused are what
// only some could send to (SMTPUTF8), address literals, and names without a dot:
// a stranger's "root@localhost" is nobody's wish for reports.
func ParseAddress(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return "", errors.New("no @")
	}
	local := s[:at]
	if len(local) > maxLocal || !isDotAtom(local) && !isQuotedString(local) {
		return "", errors.New("invalid local part")
	}
	domain, ok := asciiName(s[at+1:])
	if !ok || !strings.Contains(domain, ".") || strings.HasSuffix(domain, ".localhost") {
		return "", errors.New("invalid domain")
	}
	if len(local)+1+len(domain) > maxAddress {
		return "", errors.New("too long")
	}
	return local + "@" + domain, nil
}

// domainOf is what stands behind the last @.
func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// asciiName is a host or domain name in lower-case A-labels without a final dot.
// Underscores are let pass: hosts have them, whatever RFC 952 says.
func asciiName(s string) (string, bool) {
	s = strings.TrimSuffix(s, ".")
	for i := range len(s) {
		if s[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(s)
			if err != nil {
				return "", false
			}
			s = ascii
			break
		}
	}
	if s == "" || len(s) > maxName255 {
		return "", false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return "", false
		}
	}
	return strings.ToLower(s), true
}

func isLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isDotAtom reports whether s is a dot-atom-text (RFC 5322 §3.2.3).
func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for i := range len(atom) {
			if c := atom[i]; !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) < 0 {
				return false
			}
		}
	}
	return true
}

// isQuotedString reports whether s is the Quoted-string of RFC 5321 §4.1.2.
func isQuotedString(s string) bool {
	if len(s) < 3 || s[0] != '"' || s[len(s)-1] != '"' {
		return false
	}
	inner := s[1 : len(s)-1]
	for i := 0; i < len(inner); i++ {
		switch c := inner[i]; {
		case c < ' ' || c > '~' || c == '"':
			return false
		case c == '\\':
			if i++; i == len(inner) || inner[i] < ' ' || inner[i] > '~' {
				return false
			}
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// shown is at most limit bytes of s, printable, for messages that hold words of a
// stranger.
func shown(s string, limit int) string {
	cut := ""
	if len(s) > limit {
		s, cut = s[:limit], "..."
	}
	q := strconv.QuoteToASCII(s)
	q = q[1 : len(q)-1]
	if len(q) > limit {
		q, cut = q[:limit], "..."
	}
	return strings.ReplaceAll(q, `\"`, `"`) + cut
}

// quoted is shown in quotation marks, for a single value.
func quoted(s string) string { return `"` + shown(s, 64) + `"` }

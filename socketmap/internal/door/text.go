package door

import "strings"

// MaxReason is how much of a reason Postfix logs (smtp_tls_policy.c, "%.200s").
const MaxReason = 200

// AppendReason appends the words for an administrator in printable ASCII, at
// most MaxReason bytes of it. Every other byte becomes "?": whatever a stranger
// published, a reply stays one line.
func AppendReason(dst []byte, reason string) []byte {
	reason = strings.TrimSpace(reason)
	if reason == "" {
		reason = "temporary failure"
	}
	for i := range min(len(reason), MaxReason) {
		c := reason[i]
		if c < ' ' || c > '~' {
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}

// Host splits an MX pattern of RFC 8461 §3.2 into the name and whether "*."
// stood before it. ok is false for everything that could mean something else to
// a mail server than a host name in lower case: such a pattern must not be used.
// The policy was checked when it was parsed; this is the last gate.
func Host(pattern string) (name string, wildcard, ok bool) {
	name, wildcard = strings.CutPrefix(pattern, "*.")
	if name == "" || len(name) > 253 { // RFC 1035 §2.3.4
		return "", false, false
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i == len(name) || name[i] == '.' {
			if i == start || i-start > 63 || name[start] == '-' || name[i-1] == '-' {
				return "", false, false
			}
			start = i + 1
			continue
		}
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return "", false, false
		}
	}
	return name, wildcard, true
}

package mtasts

import "strings"

// Match reports whether an MX host name, as it stands in the MX record, is in the
// policy (RFC 8461 §4.1). Case and a final dot do not matter. "*." in a pattern
// stands for exactly one label. Without MX records the name is the domain itself
// (the implicit MX of RFC 5321 §5.1). What is no host name, an address for
// instance, never matches. Match does not allocate.
func (p *Policy) Match(host string) bool {
	host = strings.TrimSuffix(host, ".")
	// Real MX hosts with "_" exist, though RFC 5321 has none. A wildcard may cover one.
	if !isHostName(host, true) {
		return false
	}
	_, parent, _ := strings.Cut(host, ".")
	for _, pattern := range p.MX {
		name := host
		rest, wildcard := strings.CutPrefix(pattern, "*.")
		if wildcard {
			name = parent // "" matches nothing
		}
		// Both are ASCII here, so that this is the folding of DNS and no other.
		if strings.EqualFold(name, rest) {
			return true
		}
	}
	return false
}

// isHostName reports whether s is a Domain of RFC 5321 §4.1.2 in A-label form,
// without the final dot, within the limits of DNS. What looks like an IPv4 address
// is not: no top-level domain is a number (RFC 3696 §2).
func isHostName(s string, underscore bool) bool {
	if s == "" || len(s) > maxNameLen {
		return false
	}
	start, letters := 0, false // of the present label
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if i == start || i-start > maxLabelLen || s[start] == '-' || s[i-1] == '-' {
				return false
			}
			if i < len(s) {
				start, letters = i+1, false
			}
			continue
		}
		switch c := s[i]; {
		case '0' <= c && c <= '9':
		case isAlphanumeric(c), c == '-', underscore && c == '_':
			letters = true
		default:
			return false
		}
	}
	return letters
}

package mtasts

import "strconv"

// printable returns at most about limit bytes of s, with everything but
// printable ASCII escaped, for messages that hold words of a stranger.
func printable(s string, limit int) string {
	cut := len(s) > limit
	if cut {
		s = s[:limit]
	}
	clean := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			clean = false
			break
		}
	}
	if !clean {
		q := strconv.QuoteToASCII(s)
		s = q[1 : len(q)-1]
		if len(s) > limit {
			s, cut = s[:limit], true
		}
	}
	if cut {
		s += "..."
	}
	return s
}

// quoted is printable in quotation marks, for a single value.
func quoted(s string) string {
	const limit = 64 // a field name is at most 32 bytes long; the rest is context
	cut := ""
	if len(s) > limit {
		s, cut = s[:limit], "..."
	}
	return strconv.QuoteToASCII(s) + cut
}

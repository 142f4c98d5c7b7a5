package socketmap

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"postseal/policy"
	"postseal/policy/dane"
	"postseal/socketmap/internal/door"
)

// Reply kinds of socketmap_table(5), each with its space: without one Postfix
// 3.10 takes NOTFOUND for an error, and Sendmail reads past the end. PERM is
// never used: it defers mail in Postfix like TEMP, but Sendmail delivers without
// any check. TIMEOUT says no more than TEMP.
const (
	replyOK       = "OK "
	replyNotFound = "NOTFOUND "
	replyTemp     = "TEMP "
)

// dialect is how a decision is put into words.
type dialect uint8

const (
	plain    dialect = iota // smtp_tls_policy_maps of Postfix 3.4 and later
	tlsrpt                  // the same of 3.10 and later: TLSRPT attributes and MX patterns
	sendmail                // FEATURE(sts) of Sendmail 8.17 and later
)

// appendDecision appends the answer for d. The level word none is never used,
// since it would switch TLS off: what requires nothing is NOTFOUND, and the mail
// server keeps its own default (postconf(5), smtp_tls_policy_maps). cut reports
// that mx_host_pattern had to be left out.
func appendDecision(dst []byte, d *policy.Decision, to dialect, hostDANE bool) (_ []byte, cut bool) {
	if d == nil {
		return appendTemp(dst, "no decision"), false
	}
	domain := d.Destination.Domain
	switch d.Level {
	case policy.LevelNone:
		return append(dst, replyNotFound...), false
	case policy.LevelMay:
		if to == sendmail { // opportunistic is what it does by itself
			return append(dst, replyNotFound...), false
		}
		return append(dst, "OK may"...), false
	case policy.LevelEncrypt:
		if to == sendmail { // it knows "secure" only, and to answer nothing would drop a local rule
			return appendTemp(dst, "map sts cannot say encrypt (use TLS_Rcpt in the access map), as a rule requires for "+domain), false
		}
		return append(dst, "OK encrypt"...), false
	case policy.LevelSTS:
		return appendSTS(dst, d, to)
	case policy.LevelDANE, policy.LevelDANEOnly:
		return appendDANE(dst, d, to, hostDANE), false
	}
	return appendTemp(dst, d.Reason), false
}

func appendTemp(dst []byte, reason string) []byte {
	return door.AppendReason(append(dst, replyTemp...), reason)
}

// appendDANE appends the bare word: match is an error at these levels, and TLSRPT
// attributes are ignored (Postfix itself reports TLSA policies).
func appendDANE(dst []byte, d *policy.Decision, to dialect, hostDANE bool) []byte {
	domain := d.Destination.Domain
	switch {
	case !hostDANE:
		return appendTemp(dst, "this mail server cannot do DANE (RFC 7672; host.dane = false), which is required for "+domain)
	case to == sendmail && d.Level == policy.LevelDANEOnly && d.DANE != dane.ClassFull:
		// Sendmail does DANE host by host, which is enough where all hosts have it.
		return appendTemp(dst, "Sendmail cannot do mandatory DANE where not every MX host has it, as is required for "+domain)
	case to == sendmail: // its own DANE goes first (operations guide, "DANE")
		return append(dst, replyNotFound...)
	case d.Level == policy.LevelDANEOnly:
		return append(dst, "OK dane-only"...)
	}
	return append(dst, "OK dane"...)
}

// appendSTS appends "secure match=… servername=hostname", and for tlsrpt what
// makes Postfix check the MX name against the patterns (RFC 8461 §4.1), and tell
// libtlsrpt which policy that was. servername: no SNI is sent otherwise.
func appendSTS(dst []byte, d *policy.Decision, to dialect) (_ []byte, cut bool) {
	start, domain := len(dst), d.Destination.Domain
	if d.STS == nil {
		return appendTemp(dst, "no MX host is known of the MTA-STS policy for "+domain), false
	}
	if to == sendmail && policy.LongMatch(d.STS.MX) {
		return appendTemp(dst, "Sendmail cannot compare as many MX hosts as the MTA-STS policy lists, so mail must go through the delivery fallback: "+domain), false
	}
	dst, found := appendMatch(append(dst, "OK secure match="...), d.STS.MX)
	if !found { // an empty list would mean the next hop's own name
		return appendTemp(dst[:start], "no MX host can be used of the MTA-STS policy for "+domain), false
	}
	dst = append(dst, " servername=hostname"...)
	if len(dst)-start > maxReply {
		return appendTemp(dst[:start], "too many MX hosts for one answer in the MTA-STS policy for "+domain), false
	}
	if _, wildcard, ok := door.Host(domain); to != tlsrpt || !ok || wildcard {
		return dst, false
	}
	bare := len(dst)
	dst = append(dst, " policy_type=sts policy_domain="...)
	dst = append(dst, domain...)
	named := len(dst)
	dst = appendPatterns(appendPolicyStrings(dst, d), d.STS.MX)
	if len(dst)-start > maxReply {
		dst = appendPatterns(dst[:named], d.STS.MX)
	}
	if len(dst)-start > maxReply {
		return dst[:bare], true
	}
	return dst, false
}

// appendMatch appends the patterns as match takes them: joined by ":", with ".d"
// for "*.d" (postconf(5), smtp_tls_secure_cert_match). A pattern that would say
// something else to the mail server is left out: then fewer hosts match.
func appendMatch(dst []byte, patterns []string) (_ []byte, found bool) {
	for _, p := range patterns {
		name, wildcard, ok := door.Host(p)
		if !ok || !wildcard && isKeyword(name) {
			continue
		}
		if found {
			dst = append(dst, ':')
		}
		if wildcard {
			dst = append(dst, '.')
		}
		dst = append(dst, name...)
		found = true
	}
	return dst, found
}

// isKeyword reports names that match takes for strategies.
func isKeyword(name string) bool {
	return name == "hostname" || name == "nexthop" || name == "dot-nexthop"
}

func appendPatterns(dst []byte, patterns []string) []byte {
	for _, p := range patterns {
		if _, _, ok := door.Host(p); !ok {
			continue
		}
		dst = append(dst, " mx_host_pattern="...)
		dst = append(dst, p...)
	}
	return dst
}

// appendPolicyStrings appends the policy's lines in its own order (RFC 8460
// §4.4), each in braces, within which Postfix keeps blanks. They are those of
// mtasts.Policy.Lines, without what that would allocate for each answer.
func appendPolicyStrings(dst []byte, d *policy.Decision) []byte {
	text := strings.TrimPrefix(d.STS.Text, "\ufeff")
	for text != "" {
		line, rest, ended := strings.Cut(text, "\n")
		text = rest
		if ended {
			line = strings.TrimSuffix(line, "\r")
		}
		line = strings.Trim(line, " \t")
		if !isPolicyString(line) {
			continue
		}
		dst = append(dst, " { policy_string = "...)
		for i := range len(line) {
			if c := line[i]; c == '\t' {
				dst = append(dst, ' ')
			} else {
				dst = append(dst, c)
			}
		}
		dst = append(dst, " }"...)
	}
	return dst
}

// isPolicyString reports whether line survives Postfix's parser as it is: an
// unbalanced brace or a control character would make the whole answer invalid,
// and all mail to the domain wait.
func isPolicyString(line string) bool {
	if line == "" {
		return false
	}
	ascii := true
	for i := range len(line) {
		switch c := line[i]; {
		case c == '\t':
		case c < ' ', c == 0x7f, c == '{', c == '}':
			return false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return ascii || utf8.ValidString(line) && !strings.ContainsFunc(line, isControl)
}

func isControl(r rune) bool { return r != '\t' && unicode.IsControl(r) }

// Answer is what one map says.
type Answer struct {
	Map  string // "postfix", "postfix-tlsrpt", "sts"; "transport" if there is a delivery fallback
	Text string // the reply without its netstring: "NOTFOUND ", "OK dane-only", …
}

// Answers returns what the maps with a dialect of their own answer for d; the
// others answer as one of these (QUERY, QUERYwithTLSRPT, mailertable) or not from
// decisions. Of s only what it knows of the mail server counts.
func (s *Server) Answers(d *policy.Decision) []Answer {
	var list []Answer
	for _, m := range []mapID{mapPostfix, mapPostfixTLSRPT, mapSTS} {
		text, _ := appendDecision(nil, d, maps[m].dialect, s.HostDANE)
		list = append(list, Answer{Map: maps[m].name, Text: string(text)})
	}
	if s.Delivery != nil && s.Delivery.NextHop != "" {
		list = append(list, Answer{Map: maps[mapTransport].name, Text: string(s.Delivery.appendRoute(nil, mapTransport, d))})
	}
	return list
}

package postfix

import (
	"bytes"
	"strings"

	"postseal/reporting/ingest/foreign"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

// The grammar of single lines. Everything is matched from the start of the text: what
// stands further right may have been written by a remote host.

// verdict says why a session fails.
type verdict struct {
	result  tlsrpt.ResultType
	reason  string
	policy  tlsrpt.PolicyType // "" unless the line names it
	certain bool              // whatever the level is
}

// unusableTLSA is that there are TLSA records, and that none can be used: the mail goes
// with TLS, but not by DANE.
var unusableTLSA = verdict{result: tlsrpt.TLSAInvalid, reason: "all TLSA records unusable", policy: tlsrpt.TLSA, certain: true}

// establishedTo matches "Verified TLS connection established to ", with Trusted,
// Untrusted or Anonymous instead. The word says nothing at may and encrypt, and is not
// stable over versions: a certificate of another host is "Trusted" up to 3.5 and since
// 3.10. But where it is, no other fault can be.
func establishedTo(text []byte) (rest []byte, trusted, ok bool) {
	if len(text) == 0 || text[0] < 'A' || text[0] > 'Z' {
		return nil, false, false
	}
	i := bytes.IndexByte(text[:min(len(text), len("Anonymous "))], ' ')
	rest, ok = bytes.CutPrefix(text[i+1:], []byte("TLS connection established to "))
	return rest, ok && string(text[:i]) == "Trusted", ok
}

// queueID matches "1FA629C04DA: ", hexadecimal digits, and "4jXF2t728Vz1V45J: ", which
// has no vowels (enable_long_queue_ids); so "warning: " is none.
func queueID(text []byte) (id, rest []byte, ok bool) {
	i := bytes.IndexByte(text[:min(len(text), maxQueueID+1)], ':')
	if i < 5 || i+1 >= len(text) || text[i+1] != ' ' {
		return nil, nil, false
	}
	hexadecimal, long := true, i >= 10
	for _, c := range text[:i] {
		switch {
		case '0' <= c && c <= '9':
		case 'A' <= c && c <= 'F':
			long = long && c != 'A' && c != 'E'
		case 'G' <= c && c <= 'Z', 'a' <= c && c <= 'z':
			hexadecimal = false
			long = long && strings.IndexByte("IOUaeiou", c) < 0
		default:
			return nil, nil, false
		}
	}
	return text[:i], text[i+2:], hexadecimal || long
}

// maxQueueID is far beyond a long queue id: base 52 of seconds, "z", base 51 of the
// inode number, which is 22 at most.
const maxQueueID = 40

// endpoint matches "H[IP]" and a port behind it, if there is one. name is "H[IP]".
func endpoint(b []byte) (name, rest []byte, ok bool) {
	open := 0
	for open < len(b) && endpointBytes[b[open]]&hostByte != 0 {
		open++
	}
	if open == 0 || open > foreign.MaxName || open == len(b) || b[open] != '[' {
		return nil, nil, false
	}
	end := open + 1
	for end < len(b) && endpointBytes[b[end]]&addressByte != 0 {
		end++
	}
	// "[private/lmtp]" is none.
	if end-open < 3 || end-open > foreign.MaxAddress || end == len(b) || b[end] != ']' {
		return nil, nil, false
	}
	name, rest = b[:end+1], b[end+1:]
	if len(rest) > 1 && rest[0] == ':' && rest[1] >= '0' && rest[1] <= '9' {
		n := 1
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		rest = rest[n:]
	}
	return name, rest, true
}

const (
	hostByte    = 1 // anything but blanks and what stands around a host
	addressByte = 2
)

// endpointBytes says where a byte may stand.
var endpointBytes = func() (table [256]byte) {
	for c := range table {
		if c > ' ' && c != 0x7f && strings.IndexByte(",(<[]", byte(c)) < 0 {
			table[c] |= hostByte
		}
		if strings.IndexByte("0123456789abcdefABCDEF:.", byte(c)) >= 0 {
			table[c] |= addressByte
		}
	}
	return table
}()

// certificateFailed matches "server certificate verification failed for H[IP]:25: …".
func certificateFailed(text []byte) (relay, said []byte, ok bool) {
	for _, purpose := range []string{"server ", "CA ", "client "} {
		if rest, found := bytes.CutPrefix(text, []byte(purpose)); found {
			text = rest
			break
		}
	}
	text, ok = bytes.CutPrefix(text, []byte("certificate verification failed for "))
	if !ok {
		return nil, nil, false
	}
	if relay, text, ok = endpoint(text); !ok {
		return nil, nil, false
	}
	said, ok = bytes.CutPrefix(text, []byte(": "))
	return relay, said, ok
}

// verdictOf reads why a certificate was refused.
func verdictOf(said []byte) verdict {
	if name, ok := bytes.CutPrefix(said, []byte("external policy failure (")); ok {
		name, _, _ = bytes.Cut(name, []byte(")"))
		var v verdict
		v.result, v.reason = tlsrpt.Canonical(string(name))
		if strings.HasPrefix(string(v.result), "sts-") {
			v.policy = tlsrpt.STS
		}
		return v
	}
	if bytes.HasPrefix(said, []byte("untrusted issuer ")) {
		// What follows is a name that the remote host chose.
		return verdict{result: tlsrpt.CertificateNotTrusted, reason: "untrusted issuer"}
	}
	if n, text, ok := bytes.Cut(said, []byte(":")); ok && bytes.HasPrefix(n, []byte("num=")) {
		said = text
	}
	text := foreign.Reason(string(said))
	v := verdict{result: foreign.VerifyResult(text), reason: text}
	if strings.Contains(text, "DANE TLSA") {
		v.policy = tlsrpt.TLSA
	}
	return v
}

// handshakeVerdict reads what stands behind the host in "SSL_connect error to".
func handshakeVerdict(rest []byte) verdict {
	v := verdict{result: tlsrpt.ValidationFailure, reason: "tls-handshake-failure"}
	said, ok := bytes.CutPrefix(rest, []byte(": "))
	// "-1" and "0" are what SSL_connect(3) gave back.
	if ok && len(said) > 0 && said[0] != '-' && !maillog.Digits(said) {
		v.reason = "tls-handshake-failure: " + foreign.Reason(string(said))
	}
	v.reason = v.reason[:min(len(v.reason), foreign.MaxReason)]
	return v
}

// libraryReason reads "error:0A000438:SSL routines::tlsv1 alert internal error:../ssl/…".
func libraryReason(text []byte) string {
	parts := bytes.SplitN(text, []byte(":"), 6)
	if len(parts) < 6 || string(parts[0]) != "error" || len(parts[4]) == 0 {
		return ""
	}
	return foreign.Reason(string(parts[4]))
}

// policyLookup matches "D/H: reason". D may be "[host]:port"; only H comes from DNS,
// and neither can hold a slash.
func policyLookup(text []byte) (dest, host, why []byte, ok bool) {
	dest, rest, ok := bytes.Cut(text, []byte("/"))
	if !ok || len(dest) == 0 || bytes.IndexByte(dest, ' ') >= 0 {
		return nil, nil, nil, false
	}
	host, why, ok = bytes.Cut(rest, []byte(": "))
	if !ok || len(host) == 0 || bytes.IndexByte(host, ' ') >= 0 {
		return nil, nil, nil, false
	}
	return dest, host, why, true
}

// lookupVerdict says what a refused TLS policy is called. ok is false for what is wrong
// on our side.
func lookupVerdict(why []byte) (v verdict, ok bool) {
	v = verdict{reason: foreign.Reason(string(why)), policy: tlsrpt.TLSA}
	switch {
	case bytes.HasPrefix(why, []byte("no TLSA records found")),
		bytes.HasPrefix(why, []byte("non DNSSEC destination")),
		bytes.HasPrefix(why, []byte("Verification not possible, MX RRset is insecure")):
		v.result = tlsrpt.DANERequired
	case bytes.HasPrefix(why, []byte("TLSA records unusable")):
		v.result = tlsrpt.TLSAInvalid
	case bytes.HasPrefix(why, []byte("TLSA lookup error for ")):
		v.result, v.reason = tlsrpt.DNSSECInvalid, "TLSA lookup error"
	default:
		return v, false
	}
	return v, true
}

// nextHop takes brackets and port off a destination; "" if no name is left.
func nextHop(dest []byte) string {
	if rest, ok := bytes.CutPrefix(dest, []byte("[")); ok {
		dest, _, _ = bytes.Cut(rest, []byte("]"))
	} else {
		dest, _, _ = bytes.Cut(dest, []byte(":"))
	}
	name, _ := foreign.DomainName(string(dest))
	return name
}

// outsidePolicy matches "X' does not match STS MX pattern for 'D'".
func outsidePolicy(text []byte) (host, domain []byte, ok bool) {
	host, rest, ok := bytes.Cut(text, []byte("'"))
	if !ok {
		return nil, nil, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(" does not match STS MX pattern for '")); !ok {
		return nil, nil, false
	}
	domain, _, ok = bytes.Cut(rest, []byte("'"))
	return host, domain, ok
}

// notOffered matches what stands in parentheses, or behind the queue id, where the
// host has no STARTTLS or refuses it.
func notOffered(text []byte) (relay []byte, reason string, ok bool) {
	text = bytes.TrimPrefix(text, []byte("Protocol error: "))
	rest, ok := bytes.CutPrefix(text, []byte("TLS is required, but "))
	if !ok {
		if rest, ok = requireTLS(text); !ok {
			return nil, "", false
		}
		rest = bytes.TrimPrefix(rest, []byte("TLS service "))
	}
	if after, found := bytes.CutPrefix(rest, []byte("was not offered by host ")); found {
		relay, rest, ok = endpoint(after)
		return relay, "", ok && len(rest) == 0
	}
	after, found := bytes.CutPrefix(rest, []byte("host "))
	if !found {
		return nil, "", false
	}
	if relay, rest, ok = endpoint(after); !ok {
		return nil, "", false
	}
	reply, found := bytes.CutPrefix(rest, []byte(" refused to start TLS: "))
	if !found {
		return nil, "", false
	}
	reason = "STARTTLS refused"
	if len(reply) >= 3 && maillog.Digits(reply[:3]) {
		reason += ": " + string(reply[:3]) // the rest is the remote host's own words
	}
	return relay, reason, true
}

// requireTLS matches the beginning of what Postfix 3.11 says where REQUIRETLS fails.
func requireTLS(text []byte) (rest []byte, ok bool) {
	text = bytes.TrimPrefix(text, []byte("REQUIRETLS Failure: "))
	if rest, ok = bytes.CutPrefix(text, []byte("sender requested REQUIRETLS, but ")); ok {
		return rest, true
	}
	return bytes.CutPrefix(text, []byte("Sender requested REQUIRETLS, but "))
}

// notVerified matches the reason why a session with TLS was given up.
func notVerified(text []byte) bool {
	switch string(text) {
	case "Server certificate not verified", "Server certificate not trusted":
		return true
	}
	rest, ok := requireTLS(text)
	return ok && (bytes.HasPrefix(rest, []byte("no matching server certificate")) || bytes.HasPrefix(rest, []byte("no trusted server certificate")))
}

// tlsReport is a line that starts with "TLSRPT: ".
type tlsReport struct {
	proxyNote
	domain string
	failed bool
}

// tlsReportLine matches "status=failure, domain=D, receiving_mx=H[IP], failure_type=…,
// failure_reason=…". The last may hold anything.
func tlsReportLine(text []byte) (r tlsReport, ok bool) {
	switch rest, failed := bytes.CutPrefix(text, []byte("status=failure, ")); {
	case failed:
		r.failed, text = true, rest
	default:
		if text, ok = bytes.CutPrefix(text, []byte("status=success, ")); !ok {
			return r, false
		}
	}
	domain, rest, _ := bytes.Cut(text, []byte(", "))
	if domain, ok = bytes.CutPrefix(domain, []byte("domain=")); !ok {
		return r, false
	}
	if r.domain, ok = foreign.DomainName(string(domain)); !ok {
		return r, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte("receiving_mx=")); !ok {
		return r, false
	}
	relay, rest, ok := endpoint(rest)
	if !ok {
		return r, false
	}
	r.relay = string(relay)
	if !r.failed {
		return r, true
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(", failure_type=")); !ok {
		return r, false
	}
	name, why, _ := bytes.Cut(rest, []byte(", failure_reason="))
	r.verdict = reportVerdict(string(name), string(why))
	return r, true
}

// reportVerdict puts right that Postfix has one type for all of X.509 that it does not
// know by number, a self-signed certificate among it (RFC 8460 §4.3.1).
func reportVerdict(name, why string) verdict {
	var v verdict
	v.result, v.reason = tlsrpt.Canonical(name)
	if why != "" {
		v.reason = foreign.Reason(why)
		if v.result == tlsrpt.ValidationFailure {
			v.result = foreign.VerifyResult(why)
		}
	}
	return v
}

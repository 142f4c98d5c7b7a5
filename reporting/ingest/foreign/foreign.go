// Package foreign cleans what strangers wrote: names and addresses that come from DNS,
// replies of remote hosts, and what a TLS library says about their certificates.
//
// Half of a log line, or of a datagram, is theirs, and some of it ends up in a report that
// is sent to others still (RFC 8460 §4.4). What leaves here is short, printable ASCII, so
// that nobody can fill a report, or slip markup or controls into a log; a failure's reason
// holds no mail address. A domain has one form only (A-labels, RFC 5890 §2.3.2.1, in lower
// case, without a final dot), since sessions are counted by it, and what is none is
// refused. The words for a bad certificate become the result types of RFC 8460 §4.3.
package foreign

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"postseal/reporting/tlsrpt"
)

const (
	// MaxName is the length of a name in presentation form (RFC 1035 §2.3.4).
	MaxName = 253

	// MaxReason is that of a failure-reason-code: it leaves room for what TLS libraries say, and lets no remote host fill
	// a report.
	MaxReason = 120

	// MaxAddress is that of an IP address with one bracket.
	MaxAddress = len("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]")
)

// DomainName gives a domain or host name the form of a [reporting.Session]: A-labels,
// lower case, no final dot. ok is false for what is none, an address for instance.
func DomainName(s string) (name string, ok bool) {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 4*MaxName { // 63 octets of an A-label are at most 4 times as many in UTF-8
		return "", false
	}
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
	if !hostName(s) {
		return "", false
	}
	return strings.ToLower(s), true
}

// hostName reports whether s consists of labels of letters, digits, hyphens and, as
// found in the wild, underscores (RFC 1123 §2.1). The last one is no number, or
// it would be an address.
func hostName(s string) bool {
	if len(s) > MaxName {
		return false
	}
	start, letters := 0, false
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if i == start || i-start > 63 || s[start] == '-' || s[i-1] == '-' {
				return false
			}
			if i < len(s) {
				start, letters = i+1, false
			}
			continue
		}
		switch c := s[i]; {
		case '0' <= c && c <= '9':
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '_':
			letters = true
		default:
			return false
		}
	}
	return letters
}

// Address reads an IP address in any form, without brackets; what is none is the zero
// Addr. Zones are taken off, and IPv4 that is mapped into IPv6 is IPv4.
func Address(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.WithZone("").Unmap()
}

// HELOName is the name in a reply to EHLO: the first word of its first line (RFC 5321
// §4.1.1.1), without the code in front.
func HELOName(reply string) string {
	reply = strings.TrimLeft(reply, " \t\r\n")
	if len(reply) > 4 && strings.Trim(reply[:3], "0123456789") == "" && (reply[3] == '-' || reply[3] == ' ') {
		reply = reply[4:]
	}
	reply = strings.TrimLeft(reply, " \t")
	if end := strings.IndexAny(reply, " \t\r\n"); end >= 0 {
		reply = reply[:end]
	}
	return strings.ToLower(Printable(strings.TrimSuffix(reply, "."), MaxName))
}

// Printable keeps printable ASCII of s, with one blank for any number of blanks and
// controls, "?" for each character beyond, and at most limit bytes.
func Printable(s string, limit int) string {
	var b strings.Builder
	blank := false
	for _, r := range s {
		if b.Len() >= limit {
			break
		}
		switch {
		case r <= ' ' || r == 0x7f:
			blank = b.Len() > 0
			continue
		case r > 0x7e:
			r = '?'
		}
		if blank && b.Len()+1 < limit {
			b.WriteByte(' ')
		}
		blank = false
		b.WriteByte(byte(r))
	}
	return b.String()
}

// Reason makes a failure-reason-code of what a program or a remote host said. What
// may be a mail address does not leave the house: words with an at sign, from the quote
// on that a local part has opened.
func Reason(s string) string {
	s = Printable(s, 4*MaxReason)
	if strings.Contains(s, "@") {
		words := strings.Split(s, " ")
		opened := -1 // the word with a quote that none has closed yet
		for i, w := range words {
			odd := strings.Count(w, `"`)%2 == 1
			if strings.Contains(w, "@") {
				if odd && opened >= 0 {
					clear(words[opened:i])
				}
				words[i] = "[address]"
			}
			switch {
			case odd && opened >= 0:
				opened = -1
			case odd:
				opened = i
			}
		}
		s = strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
	}
	return strings.TrimRight(s[:min(len(s), MaxReason)], " ")
}

// trustErrors are words in what OpenSSL (X509_verify_cert_error_string) and GnuTLS say
// of a chain that leads to no CA we trust, or is broken on the way (RFC 8460
// §4.3.1), in lower case, with blanks for underscores.
var trustErrors = []string{
	"self-signed", "self signed", "issuer certificate", "verify the first certificate",
	"not trusted", "untrusted", "unknown ca", "no matching dane", "signature failure",
	"invalid ca certificate", "subtree", "name constraint", "authority and subject key",
	"authority and issuer", "certificate rejected", "certificate revoked",
}

// nameErrors are the same for a certificate of another host.
var nameErrors = []string{
	"hostname mismatch", "name mismatch", "ip address mismatch", "does not match the hostname", "not listed in sans",
}

// VerifyResult is the type of what a TLS library says about a certificate.
func VerifyResult(said string) tlsrpt.ResultType {
	said = strings.ToLower(strings.ReplaceAll(said, "_", " "))
	switch {
	case containsAny(said, nameErrors):
		return tlsrpt.CertificateHostMismatch
	case strings.Contains(said, "expired"):
		return tlsrpt.CertificateExpired
	case containsAny(said, trustErrors):
		return tlsrpt.CertificateNotTrusted
	}
	return tlsrpt.ValidationFailure
}

func containsAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

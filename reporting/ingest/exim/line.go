package exim

import (
	"bytes"
	"net/netip"
	"strings"

	"postseal/reporting/ingest/foreign"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

// The grammar of Exim's main log, 4.94 to 4.100. Every line is read from the left, and
// no further than to where a remote host's words begin.

// cutStamp takes "2026-11-22 03:01:00", with ".123" (+millisec) and " +0100"
// (log_timezone) if they are there, and gives them the form of a clock's stamp.
func cutStamp(line []byte, buf []byte) (stamp, rest []byte, ok bool) {
	if len(line) <= len("2026-11-22 03:01:00") || line[10] != ' ' {
		return nil, nil, false
	}
	n := maillog.StampLen(line)
	if n == 0 || n >= len(line) || line[n] != ' ' {
		return nil, nil, false
	}
	stamp, rest = line[:n], line[n+1:]
	if z := maillog.ZoneLen(rest); z > 1 && z < len(rest) && rest[z] == ' ' {
		stamp = append(append(buf[:0], stamp...), rest[:z]...)
		rest = rest[z+1:]
	}
	return stamp, rest, true
}

// cutChunk takes off "[1\3] ", which says that the line was cut for syslog. Of the
// pieces only the first is of use: what counts stands in front.
func cutChunk(text []byte) (rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '[' {
		return text, true
	}
	end := bytes.IndexByte(text[:min(len(text), len("[999/999]"))], ']')
	if end < 0 {
		return text, true
	}
	part, of, cut := bytes.Cut(text[1:end], []byte(`\`))
	if !cut {
		part, of, cut = bytes.Cut(text[1:end], []byte("/"))
	}
	if !cut || !maillog.Digits(part) || !maillog.Digits(of) {
		return text, true // a process id
	}
	return bytes.TrimPrefix(text[end+1:], []byte(" ")), string(part) == "1"
}

// cutID takes the message id, behind "[123] " if process ids are logged (+pid): 6-6-2
// characters of base 62, 6-11-4 since 4.97.
func cutID(b []byte) (id, rest []byte, ok bool) {
	if len(b) > 0 && b[0] == '[' {
		if pid, after, found := bytes.Cut(b[1:], []byte("] ")); found && maillog.Digits(pid) {
			b = after
		}
	}
	for _, form := range [][2]int{{6, 2}, {11, 4}} {
		n := 6 + 1 + form[0] + 1 + form[1]
		if len(b) > n && b[n] == ' ' && b[6] == '-' && b[7+form[0]] == '-' && maillog.Base62(b[:6]) && maillog.Base62(b[7:7+form[0]]) && maillog.Base62(b[n-form[1]:n]) {
			return b[:n], b[n+1:], true
		}
	}
	return nil, nil, false
}

// mxHost is "H=mx.example.org [192.0.2.1]:25": DS stands before the address if the MX
// record was signed (+dnssec), the port if +outgoing_port, and "*" behind a connection
// that was open already.
type mxHost struct {
	name   string
	ip     netip.Addr
	reused bool
}

// same reports whether both are one host; the name may have got lost.
func (h *mxHost) same(o *mxHost) bool { return h.ip == o.ip && h.ip.IsValid() }

// readHost reads from behind "H=". rest begins with what follows: a blank, or ":".
func readHost(b []byte) (h mxHost, rest []byte, ok bool) {
	open := bytes.Index(b[:min(len(b), foreign.MaxName+len(" DS [")+1)], []byte(" ["))
	if open < 1 {
		return h, nil, false
	}
	name := bytes.TrimSuffix(b[:open], []byte(" DS"))
	b = b[open+2:]
	end := bytes.IndexByte(b[:min(len(b), foreign.MaxAddress)], ']')
	if end < 0 || bytes.IndexByte(name, ' ') >= 0 {
		return h, nil, false
	}
	if h.ip = foreign.Address(string(b[:end])); !h.ip.IsValid() {
		return h, nil, false
	}
	h.name, _ = foreign.DomainName(string(name)) // an address in brackets, where hosts have no name
	_, rest = cutPort(b[end+1:])
	if len(rest) > 0 && rest[0] == '*' {
		h.reused, rest = true, rest[1:]
	}
	return h, rest, true
}

// cutPort takes ":25" off.
func cutPort(b []byte) (port int, rest []byte) {
	if len(b) < 2 || b[0] != ':' {
		return 0, b
	}
	n := 1
	for n < len(b) && n <= 5 && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	for _, c := range b[1:n] {
		port = 10*port + int(c-'0')
	}
	if n == 1 {
		return 0, b
	}
	return port, b[n:]
}

// recipient is a line about a recipient:
//
//	=> u@d (parent@e) <orig@f> F=<s@g> R=router T=transport H=mx DS [192.0.2.1]:25*
//	   I=[198.51.100.1]:40120 X=TLS1.3:…:128 CV=yes DN="…" C="250 …" QT=1s DT=0s
//	== u@d R=router T=transport defer (-37) H=mx [192.0.2.1]:25 I=[…]:… DT=0s: text
//	** u@d R=router T=transport H=mx [192.0.2.1]:25 I=[…]:… X=… CV=yes DN="…": text
//
// Everything but the address depends on log_selector. 4.100 leaves the number of a
// deferral out.
type recipient struct {
	kind      byte // '=' delivered, '-' another one with the same connection, 'd' deferred, 'f' failed
	address   []byte
	domain    string
	transport string
	hasHost   bool
	host      mxHost
	local     netip.Addr
	port      int  // our own; 0 if unknown
	tls       bool // X=
	dane      bool // CV=dane
	text      []byte
	rest      []byte // from the first words of a remote host on
}

// readRecipient reads a line from its mark on. ok is false if it is about no
// recipient; bad if it should be, but is out of form.
func readRecipient(b []byte) (r recipient, ok, bad bool) {
	if len(b) < 4 || b[2] != ' ' {
		return r, false, false
	}
	switch string(b[:2]) {
	case "=>", ">>": // delivered; the second while the message still came in
		r.kind = '='
	case "->":
		r.kind = '-'
	case "==":
		r.kind = 'd'
	case "**":
		r.kind = 'f'
	default:
		return r, false, false
	}
	addr, rest, found := cutWord(b[3:])
	if !found {
		return r, false, true
	}
	// "** u@d: text", where routing failed.
	addr, found = bytes.CutSuffix(addr, []byte(":"))
	if at := bytes.LastIndexByte(addr, '@'); at >= 0 {
		r.domain, _ = foreign.DomainName(string(addr[at+1:]))
	}
	r.address = addr
	if found {
		r.text = rest
	} else {
		r.fields(rest)
	}
	return r, true, false
}

// cutWord takes what ends at a blank outside of quotes, and not behind a backslash, which
// Exim keeps in a local part as it came; rest is behind it.
func cutWord(b []byte) (word, rest []byte, ok bool) {
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted:
			return b[:i], b[i+1:], i > 0
		}
	}
	return b, nil, len(b) > 0 && !quoted
}

// fields reads what stands behind the address, up to the first words that a remote
// host chose.
func (r *recipient) fields(b []byte) {
	for len(b) > 0 {
		var ok bool
		if b, ok = r.remark(b); ok {
			return
		}
		switch {
		case bytes.HasPrefix(b, []byte("H=")) && !r.hasHost:
			if r.host, b, ok = readHost(b[2:]); !ok {
				return
			}
			r.hasHost = true
		case bytes.HasPrefix(b, []byte("defer ")) || bytes.HasPrefix(b, []byte("defer:")):
			b = cutDefer(b[len("defer"):])
		case bytes.HasPrefix(b, []byte(`DN="`)), bytes.HasPrefix(b, []byte(`SNI="`)), bytes.HasPrefix(b, []byte("C=")):
			r.rest = b
			return
		default:
			var word []byte
			if word, b, ok = cutWord(b); !ok {
				return
			}
			if word, ok = bytes.CutSuffix(word, []byte(":")); ok {
				r.text = b
				b = nil
			}
			r.field(word)
			continue
		}
	}
}

// remark takes blanks off, or the text, behind which nothing is left to read.
func (r *recipient) remark(b []byte) (rest []byte, ok bool) {
	if text, found := cutText(b); found {
		r.text = text
		return nil, true
	}
	return bytes.TrimLeft(b, " "), false
}

// cutDefer takes " (-37)" off.
func cutDefer(b []byte) []byte {
	if !bytes.HasPrefix(b, []byte(" (")) {
		return b
	}
	_, rest, _ := bytes.Cut(b, []byte(")"))
	return rest
}

// cutText reads ": text" or " : text" (4.100).
func cutText(b []byte) (text []byte, ok bool) {
	b = bytes.TrimPrefix(b, []byte(" "))
	return bytes.CutPrefix(b, []byte(": "))
}

func (r *recipient) field(word []byte) {
	name, value, ok := bytes.Cut(word, []byte("="))
	if n := len(word); n > 2 && word[0] == '<' && word[n-1] == '>' {
		r.address = word[1 : n-1] // before aliases; other fields begin with their names
		return
	}
	if !ok {
		return
	}
	switch string(name) {
	case "T":
		r.transport = string(value)
	case "I":
		if open, after, found := bytes.Cut(value, []byte("]")); found && len(open) > 0 {
			r.local = foreign.Address(string(open[1:]))
			r.port, _ = cutPort(after)
		}
	case "X":
		r.tls = len(value) > 0
	case "CV":
		r.dane = string(value) == "dane"
	}
}

// readFailure is what the text behind the host says; ok is false if it is about something
// else than TLS. detail is what an OpenSSL build has logged before.
func readFailure(text []byte, detail string) (result tlsrpt.ResultType, reason string, ok bool) {
	switch {
	case bytes.HasPrefix(text, []byte("TLS session: ")):
		result, reason = readHandshake(foreign.Printable(string(text[len("TLS session: "):]), foreign.MaxReason*2), detail)
		return result, reason, true
	case bytes.HasPrefix(text, []byte("a TLS session is required, but the server did not offer TLS support")):
		return tlsrpt.StartTLSNotSupported, "", true
	case bytes.HasPrefix(text, []byte("a TLS session is required, but an attempt to start TLS failed")):
		return tlsrpt.StartTLSNotSupported, "STARTTLS was offered, but refused", true
	case bytes.HasPrefix(text, []byte("SMTP error from remote mail server after STARTTLS: ")):
		return tlsrpt.StartTLSNotSupported, foreign.Reason(string(text[len("SMTP error from remote mail server after STARTTLS: "):])), true
	case bytes.HasPrefix(text, []byte("DANE error: tlsa lookup FAIL")):
		return tlsrpt.DANERequired, "", true
	case bytes.HasPrefix(text, []byte("DANE error: ")):
		return tlsrpt.DNSSECInvalid, foreign.Reason(string(text[len("DANE error: "):])), true
	}
	return "", "", false
}

// readHandshake reads "(certificate verification failed): certificate invalid". GnuTLS
// builds say that of all that can be wrong with a chain, and nothing at all of a name
// that differs; OpenSSL builds have said more before.
func readHandshake(said, detail string) (tlsrpt.ResultType, string) {
	reason := foreign.Reason(said)
	switch {
	case !verificationFailed(said):
		return tlsrpt.ValidationFailure, reason
	case detail != "":
		return foreign.VerifyResult(detail), detail
	case strings.HasSuffix(said, "failed)"), strings.HasSuffix(said, "failed):"):
		return tlsrpt.CertificateHostMismatch, reason
	case strings.Contains(said, "certificate differs"), strings.Contains(said, "CA constrains"):
		return tlsrpt.CertificateNotTrusted, reason // no TLSA record matches
	}
	return foreign.VerifyResult(said), reason
}

// readVerifyError reads "[192.0.2.1] SSL verify error: depth=0 error=certificate has
// expired cert=/CN=…" and "… certificate name mismatch: DN=…".
func readVerifyError(b []byte) (ip netip.Addr, detail string, ok bool) {
	if len(b) == 0 || b[0] != '[' {
		return ip, "", false
	}
	end := bytes.IndexByte(b[:min(len(b), foreign.MaxAddress)], ']')
	if end < 0 {
		return ip, "", false
	}
	said, ok := bytes.CutPrefix(b[end+1:], []byte(" SSL verify error: "))
	ip = foreign.Address(string(b[1:end]))
	if !ok || !ip.IsValid() {
		return ip, "", false
	}
	if bytes.HasPrefix(said, []byte("certificate name mismatch")) {
		return ip, "certificate name mismatch", true
	}
	_, why, ok := bytes.Cut(said, []byte(" error="))
	if !ok {
		return ip, "", false
	}
	why, _, _ = bytes.Cut(why, []byte(" cert="))
	return ip, foreign.Reason(string(why)), true
}

// readUnencrypted reads "TLS session: why: delivering unencrypted to H=mx [192.0.2.1]
// (not in hosts_require_tls)", from behind its first blank.
func readUnencrypted(b []byte) (h mxHost, why string, ok bool) {
	said, ok := bytes.CutPrefix(b, []byte("TLS session: "))
	if !ok {
		return h, "", false
	}
	at := bytes.LastIndex(said, []byte(": delivering unencrypted to H="))
	if at < 0 {
		return h, "", false
	}
	h, _, ok = readHost(said[at+len(": delivering unencrypted to H="):])
	return h, foreign.Reason(string(said[:at])), ok
}

// readDANE reads "DANE attempt failed; TLS connection to mx [192.0.2.1]: why".
func readDANE(b []byte) (h mxHost, why string, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte("DANE attempt failed; TLS connection to "))
	if !ok {
		return h, "", false
	}
	h, rest, ok := readHost(b)
	if !ok {
		return h, "", false
	}
	text, ok := cutText(rest)
	return h, foreign.Printable(string(text), 2*foreign.MaxReason), ok
}

package sendmail

import (
	"bytes"
	"net/netip"
	"strings"

	"postseal/reporting/ingest/foreign"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

// The grammar of Sendmail's log, 8.17 and 8.18, at LogLevel 9 to 14.

// cutID takes "6AM3CIox025729: " off, or "NOQUEUE: ", if it is there.
func cutID(text []byte) (id, rest []byte) {
	i := bytes.IndexByte(text[:min(len(text), 24)], ':')
	if i < len("NOQUEUE") || i+1 >= len(text) || text[i+1] != ' ' || !maillog.Base62(text[:i]) {
		return nil, text
	}
	return text[:i], text[i+2:]
}

// cutField cuts "name=value, " off; value has no ", ".
func cutField(b []byte) (name, value, rest []byte, ok bool) {
	field, rest, _ := bytes.Cut(b, []byte(", "))
	name, value, ok = bytes.Cut(field, []byte("="))
	return name, value, rest, ok
}

// readRelay reads "mx.example.org. [192.0.2.1]", "mx. [IPv6:2001:db8:0:0:0:0:0:1]", "mx.",
// "[192.0.2.1] [192.0.2.1]". The final dot is there in some lines.
func readRelay(b []byte) (host string, ip netip.Addr) {
	name, bracket, found := bytes.Cut(b, []byte(" ["))
	host, _ = foreign.DomainName(string(name))
	if found {
		bracket, _, _ = bytes.Cut(bracket, []byte("]"))
		ip = foreign.Address(strings.TrimPrefix(string(bracket), "IPv6:"))
	}
	return host, ip
}

// tlsLine is what stands behind "STARTTLS=client, ".
type tlsLine struct {
	kind   byte // 'e' established, 'c' of its certificate, 'x' handshake failed, 'w' a warning about DANE, 'l' a fault of ours
	host   string
	verify string
	reason string
	status string
}

// readTLS reads
//
//	relay=mx., version=TLSv1.3, verify=OK, cipher=…, bits=128/128, status=…
//	cert-subject=/CN=…, cert-issuer=…, verifymsg=certificate has expired      (LogLevel 12)
//	error: connect failed=-1, reason=…, SSL_error=1, errno=0, retry=-1
//	relay=mx, warning=DANE configured in DNS but STARTTLS not offered
//	get_tls_se_features=failed, ret=75
func readTLS(b []byte) (t tlsLine, ok bool) {
	switch {
	case bytes.HasPrefix(b, []byte("cert-subject=")):
		// A subject is escaped, but for a comma.
		at := bytes.LastIndex(b, []byte(", verifymsg="))
		if at < 0 {
			return t, false
		}
		t.kind, t.reason = 'c', foreign.Reason(string(b[at+len(", verifymsg="):]))
		return t, true
	case bytes.HasPrefix(b, []byte("error: connect failed=")):
		return readBroken(b), true
	case bytes.HasPrefix(b, []byte("get_tls_se_features=failed")):
		t.kind = 'l'
		return t, true
	case !bytes.HasPrefix(b, []byte("relay=")):
		return t, false
	}
	relay, rest, _ := bytes.Cut(b[len("relay="):], []byte(", "))
	t.host, _ = readRelay(relay)
	if warning, found := bytes.CutPrefix(rest, []byte("warning=DANE configured in DNS but ")); found {
		t.kind, t.reason = 'w', foreign.Reason(string(warning))
		return t, true
	}
	version := false
	for len(rest) > 0 {
		var name, value []byte
		name, value, rest, _ = cutField(rest)
		switch string(name) {
		case "version":
			version = true
		case "verify":
			t.verify = string(value[:min(len(value), 20)])
		case "status":
			t.status = foreign.Reason(string(value))
		}
	}
	t.kind = 'e'
	return t, version && t.verify != ""
}

// readBroken reads "error: connect failed=-1, reason=…, SSL_error=1, …".
func readBroken(b []byte) (t tlsLine) {
	t.kind = 'x'
	if _, after, found := bytes.Cut(b, []byte(", reason=")); found {
		why := after
		if at := bytes.LastIndex(after, []byte(", SSL_error=")); at >= 0 {
			why = after[:at]
			if bytes.HasPrefix(after[at:], []byte(", SSL_error=2, errno=11")) {
				// SSL_ERROR_WANT_READ and EAGAIN: Timeout.starttls has passed.
				why = []byte("timed out")
			}
			if _, relay, named := bytes.Cut(after[at:], []byte(", relay=")); named {
				relay, _, _ = bytes.Cut(relay, []byte(", "))
				t.host, _ = readRelay(relay)
			}
		}
		t.reason = foreign.Reason(string(why))
	}
	return t
}

// rejection is "ruleset=tls_server, arg1=FAIL, relay=mx, reject=403 4.7.0 …". arg1
// of tls_rcpt is a recipient.
type rejection struct {
	ruleset string
	arg     string
	host    string
	text    string
}

func readRejection(b []byte) (r rejection, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte("ruleset="))
	if !ok {
		return r, false
	}
	ruleset, b, ok := bytes.Cut(b, []byte(", arg1="))
	if !ok || string(ruleset) != "tls_server" && string(ruleset) != "tls_rcpt" {
		return r, false
	}
	arg, b, ok := cutArgument(b)
	if !ok {
		return r, false
	}
	relay, text, ok := bytes.Cut(b, []byte(", reject="))
	if !ok {
		return r, false
	}
	r.ruleset = string(ruleset)
	r.arg = string(arg[:min(len(arg), 20)])
	r.host, _ = readRelay(relay)
	r.text = foreign.Printable(string(text), 2*foreign.MaxReason)
	return r, true
}

// cutArgument cuts at ", relay=" outside of quotes.
func cutArgument(b []byte) (arg, rest []byte, ok bool) {
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted && bytes.HasPrefix(b[i:], []byte(", relay=")):
			return b[:i], b[i+len(", relay="):], true
		}
	}
	return nil, nil, false
}

// outcome is what a rejection says; ok is false if it is about a fault of ours.
func (r *rejection) outcome() (v verdict, ok bool) {
	text := r.text
	// "450 4.7.0 <u@d>... mx not listed in SANs": of a recipient nothing is kept.
	if _, after, found := strings.Cut(text, ">... "); found {
		text = after
	} else if len(text) > 10 && text[3] == ' ' && text[9] == ' ' {
		text = text[10:]
	}
	v.reason = foreign.Reason(text)
	switch {
	case strings.HasPrefix(text, "STS lookup temp fail"), strings.Contains(text, "temporarily not possible"):
		return v, false
	case strings.HasPrefix(text, "STS "):
		v.policy = tlsrpt.STS
	case strings.HasPrefix(text, "DANE"):
		v.policy = tlsrpt.TLSA
	}
	switch {
	case strings.Contains(text, " not listed in SANs"):
		v.result, v.reason, v.policy = tlsrpt.CertificateHostMismatch, "", tlsrpt.STS
	case strings.Contains(text, " not found in "):
		v.result, v.reason, v.policy = tlsrpt.ValidationFailure, maillog.OutsidePolicy, tlsrpt.STS
	case strings.Contains(text, "does not support STARTTLS"), strings.Contains(text, "missing STARTTLS"), r.arg == "NONE":
		v.result, v.reason = tlsrpt.StartTLSNotSupported, ""
	case strings.HasPrefix(text, "DANE check failed temporarily"), r.arg == "TEMP":
		v.result, v.reason = tlsrpt.StartTLSNotSupported, "STARTTLS was offered, but refused"
	case strings.HasPrefix(text, "DANE check failed"):
		v.result = tlsrpt.CertificateNotTrusted
	default:
		v.result = tlsrpt.ValidationFailure
	}
	return v, true
}

// toLine is
//
//	to=<u@d>,<v@d>, ctladdr=…, delay=00:00:01, xdelay=…, mailer=esmtp, pri=30080,
//	  relay=mx. [192.0.2.1], dsn=2.0.0, reply=…, STS=OK, stat=Sent (…)
type toLine struct {
	list   []byte // of recipients; it points into the line
	domain string // of the first recipient
	dsn    string // RFC 3463
	mailer string
	host   string
	ip     netip.Addr
	sts    bool
	reply  string // of the remote host, where it is logged
	stat   string
}

func readTo(b []byte) (t toLine, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte("to="))
	if !ok {
		return t, false
	}
	first, rest, ok := cutRecipients(b)
	if !ok {
		return t, false
	}
	t.list, b = b[:len(b)-len(rest)-len(", ")], rest
	if at := bytes.LastIndexByte(first, '@'); at >= 0 {
		t.domain, _ = foreign.DomainName(string(first[at+1:]))
	}
	for len(b) > 0 {
		if stat, found := bytes.CutPrefix(b, []byte("stat=")); found {
			t.stat = foreign.Printable(string(stat), 2*foreign.MaxReason)
			return t, true
		}
		if reply, found := bytes.CutPrefix(b, []byte("reply=")); found {
			// What a remote host said may go on until the last "stat=".
			if at := bytes.LastIndex(reply, []byte(", stat=")); at >= 0 {
				t.stat = foreign.Printable(string(reply[at+len(", stat="):]), 2*foreign.MaxReason)
				reply = reply[:at]
			}
			t.reply = foreign.Printable(string(reply), 2*foreign.MaxReason)
			return t, true
		}
		var name, value []byte
		name, value, b, _ = cutField(b)
		switch string(name) {
		case "mailer":
			t.mailer = string(value)
		case "dsn":
			t.dsn = string(value[:min(len(value), 11)])
		case "relay":
			t.host, t.ip = readRelay(value)
		case "STS":
			t.sts = string(value) == "OK"
		}
	}
	return t, false
}

// cutRecipients takes the addresses, which end at the first ", " outside of quotes.
func cutRecipients(b []byte) (first, rest []byte, ok bool) {
	quoted, end := false, 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			if end == 0 {
				end = i
			}
			if i+1 < len(b) && b[i+1] == ' ' {
				first = bytes.TrimSuffix(bytes.TrimPrefix(b[:end], []byte("<")), []byte(">"))
				return first, b[i+2:], true
			}
		}
	}
	return nil, nil, false
}

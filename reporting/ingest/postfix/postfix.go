// Package postfix reads the log of Postfix 3.4 to 3.12.
//
// One smtp(8) process handles one delivery at a time, and logs in order: what it found
// at each MX host, then one line with status= per recipient. The first have no queue
// id, so they wait under the process until the second give them a domain. Of each host
// that was tried there is one session, whatever the number of messages and recipients
// (RFC 8460 §4.2); trouble before TLS is none (§4.3.4). tlsproxy(8) repeats what smtp
// says, and knows more only where a handshake or a certificate fails. From 3.10 on there
// are lines in the words of RFC 8460 ("TLSRPT: "), which win where they are more precise.
//
// Whether a certificate that was refused matters, the security level decides, which is
// not logged before 3.11: a session is a success unless a later line says that it was
// given up. What stands right of a remote host's first word may be a forgery, so a line
// is read from its start alone.
package postfix

import (
	"bytes"
	"cmp"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest/foreign"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

// Log is a [maillog.Reader] of Postfix's log.
type Log struct {
	clock maillog.Clock
	stats maillog.Stats
	open  openTable
	proxy proxyNotes
	own   maillog.OwnMails
	names nameCache
}

// New makes a reader that has read nothing yet.
func New(o maillog.Options) *Log {
	o = o.Filled()
	p := &Log{clock: maillog.Clock{Location: o.Location, Now: o.Now}, own: maillog.OwnMails{Is: o.Own, Told: o.Delivered}}
	p.open.init()
	p.own.Forget()
	return p
}

// Line is that of [maillog.Reader].
func (p *Log) Line(line []byte, emit func(reporting.Session)) {
	p.stats.Lines++
	if len(line) > maillog.MaxLine {
		p.stats.Oversize++
		return
	}
	if !p.worthReading(line) {
		return
	}
	e, ok := maillog.Head(bytes.TrimRight(line, "\r"))
	if !ok || len(e.PID) == 0 {
		return
	}
	switch p.program(&e) {
	case programSMTP:
		p.smtp(&e, emit)
	case programProxy:
		p.tlsproxy(&e)
	default:
		if id, rest, ok := queueID(e.Text); ok {
			p.ownLine(&e, id, rest)
		}
	}
}

// worthReading passes lines of smtp and tlsproxy, those about messages of ours, and those
// whose program must be looked for with more care. Nine of ten lines end here, so it does
// little.
func (p *Log) worthReading(line []byte) bool {
	if len(line) < len("Nov  3 04:05:06") {
		return false
	}
	if line[0] == '{' {
		return bytes.Contains(line, []byte(`smtp"`)) || bytes.Contains(line, []byte(`tlsproxy"`)) || p.aboutOwnJSON(line)
	}
	// The first bracket of a classic line is that of the process id.
	if i := bytes.IndexByte(line, '['); i > 8 {
		if string(line[i-4:i]) == "smtp" || string(line[i-8:i]) == "tlsproxy" {
			return true
		}
		if (string(line[i-7:i]) == "cleanup" || p.own.Any()) && p.aboutOwn(line[i:]) {
			return true
		}
	}
	if line[0] != '<' && (line[0] < '0' || line[0] > '9') {
		return false
	}
	// "2026-… host app-name …" has no colon behind the third word.
	rest := line
	if line[0] == '<' {
		end := bytes.IndexByte(line, '>')
		if end < 0 || !bytes.HasPrefix(line[end+1:], []byte("1 ")) {
			return false
		}
		rest = line[end+3:]
	}
	for range 2 {
		_, after, ok := maillog.Word(rest)
		if !ok {
			return false
		}
		rest = after
	}
	tag, _, ok := maillog.Word(rest)
	return ok && tag[len(tag)-1] != ':'
}

// relaxed is the transport of contrib/postfix for mail that waives TLS: no session of it
// is counted (RFC 8689 §4.1).
const relaxed = "postseal-relaxed"

type program int

const (
	programOther program = iota
	programSMTP
	programProxy
)

// program says who wrote the line. syslog_name and the names of transports may be
// anything: postfix/smtp, postfix-out/smtp, postfix/relay/smtp. Where the tag was cut
// at its first slash, the text alone must tell: but for lmtp(8) with TLS and tlsproxy(8)
// nothing in a mail log writes the lines that count.
func (p *Log) program(e *maillog.Entry) program {
	rest, part := e.Tag, []byte(nil)
	for found := true; found; {
		part, rest, found = bytes.Cut(rest, []byte("/"))
		if string(part) == relaxed {
			return programOther
		}
	}
	switch {
	case string(part) == "smtp", e.Cut:
		return programSMTP
	case string(part) == "tlsproxy":
		return programProxy
	}
	return programOther
}

// smtp reads a line of an SMTP client.
func (p *Log) smtp(e *maillog.Entry, emit func(reporting.Session)) {
	text := e.Text
	if rest, trusted, ok := establishedTo(text); ok {
		p.established(e, rest, trusted)
		return
	}
	if id, rest, ok := queueID(text); ok {
		p.queued(e, id, rest, emit)
		return
	}
	if relay, said, ok := certificateFailed(text); ok {
		p.verdict(e, relay, verdictOf(said))
		return
	}
	switch {
	case bytes.HasPrefix(text, []byte("SSL_connect error to ")):
		if e.Cut { // tlsproxy's, perhaps
			p.tlsproxy(e)
		}
		p.broken(e, text[len("SSL_connect error to "):])
	case bytes.HasPrefix(text, []byte("warning: ")):
		p.warning(e, text[len("warning: "):])
	case bytes.HasPrefix(text, []byte("TLSRPT: ")):
		p.report(e, text[len("TLSRPT: "):])
	default:
		p.resumed(e, text)
	}
}

// established is a session; it is a success unless something follows.
func (p *Log) established(e *maillog.Entry, rest []byte, trusted bool) {
	relay, rest, ok := endpoint(rest)
	at, okTime := p.clock.At(e.Stamp)
	if !ok || !okTime || !bytes.HasPrefix(rest, []byte(": ")) {
		p.stats.Unparsed++
		return
	}
	process := p.open.get(e.Key)
	try := &smtpTry{kind: tryEstablished, trusted: trusted, mxHost: p.names.of(relay), at: at}
	if process.cert.relay == try.relay {
		try.verdict, process.cert = process.cert.verdict, pendingVerdict{}
		if try.verdict.certain {
			try.fail(try.verdict)
		}
	}
	p.add(process, try)
}

// broken is a handshake that failed.
func (p *Log) broken(e *maillog.Entry, rest []byte) {
	relay, rest, ok := endpoint(rest)
	at, okTime := p.clock.At(e.Stamp)
	if !ok || !okTime {
		p.stats.Unparsed++
		return
	}
	try := &smtpTry{kind: tryBroken, mxHost: p.names.of(relay), at: at}
	try.fail(handshakeVerdict(rest))
	p.add(p.open.get(e.Key), try)
}

// verdict keeps why a certificate was refused until the session is logged, which is the
// next thing that Postfix does; whether that matters, the level decides, and a later
// line tells.
func (p *Log) verdict(e *maillog.Entry, relay []byte, v verdict) {
	at, ok := p.clock.At(e.Stamp)
	if !ok {
		p.stats.Unparsed++
		return
	}
	process := p.open.get(e.Key)
	if !process.cert.verdict.certain || process.cert.relay != string(relay) {
		process.cert = pendingVerdict{relay: string(relay), at: at, verdict: v}
	}
	p.settle(process)
}

// resumed reads "H[IP]:25: re-using session with untrusted …" and "H[IP]:25: all TLSA
// records unusable, …": the first says why without detail, since those were logged
// when the session was new; with the second the mail goes all the same.
func (p *Log) resumed(e *maillog.Entry, text []byte) {
	relay, rest, ok := endpoint(text)
	if !ok {
		return
	}
	switch {
	case bytes.HasPrefix(rest, []byte(": re-using session with untrusted ")):
		p.verdict(e, relay, verdict{result: tlsrpt.CertificateNotTrusted, reason: resumedReason})
	case bytes.HasPrefix(rest, []byte(": all TLSA records unusable")):
		p.verdict(e, relay, unusableTLSA)
	}
}

// resumedReason is that of a session whose certificate failed in an earlier one.
const resumedReason = "not verified in an earlier session"

// warning reads what Postfix decides before it connects, and what OpenSSL said of the
// handshake before.
func (p *Log) warning(e *maillog.Entry, text []byte) {
	switch {
	case bytes.HasPrefix(text, []byte("TLS policy lookup for ")):
		p.lookup(e, text[len("TLS policy lookup for "):])
	case bytes.HasPrefix(text, []byte("TLS policy lookup error for ")): // where a connection might be reused
		p.lookup(e, text[len("TLS policy lookup error for "):])
	case bytes.HasPrefix(text, []byte("MX name '")):
		p.outside(e, text[len("MX name '"):])
	case bytes.HasPrefix(text, []byte("TLS library problem: ")):
		if process := p.open.find(e.Key); process != nil {
			if last := process.last(); last != nil && last.kind == tryBroken {
				last.library(text[len("TLS library problem: "):])
				p.settle(process)
			}
		}
	default:
		p.resumed(e, text)
	}
}

// lookup reads "D/H: reason": DANE forbids to connect to the host H.
func (p *Log) lookup(e *maillog.Entry, text []byte) {
	dest, host, why, ok := policyLookup(text)
	if !ok {
		p.stats.Unparsed++
		return
	}
	v, ok := lookupVerdict(why)
	if !ok {
		return // ours: "client TLS configuration problem"
	}
	at, ok := p.clock.At(e.Stamp)
	if !ok {
		p.stats.Unparsed++
		return
	}
	try := &smtpTry{kind: tryForbidden, at: at}
	try.host, _ = foreign.DomainName(string(host))
	try.domain = nextHop(dest)
	try.fail(v)
	p.add(p.open.get(e.Key), try)
}

// outside reads "X' does not match STS MX pattern for 'D'" (3.10.5 and later).
func (p *Log) outside(e *maillog.Entry, text []byte) {
	host, domain, ok := outsidePolicy(text)
	at, okTime := p.clock.At(e.Stamp)
	if !ok || !okTime {
		p.stats.Unparsed++
		return
	}
	try := &smtpTry{kind: tryForbidden, at: at}
	try.host, _ = foreign.DomainName(string(host))
	try.policyDomain, _ = foreign.DomainName(string(domain))
	try.fail(verdict{result: tlsrpt.ValidationFailure, reason: maillog.OutsidePolicy, policy: tlsrpt.STS})
	p.add(p.open.get(e.Key), try)
}

// report keeps what Postfix 3.10 and later say of a session in the words of RFC 8460.
// It goes with another line of the same host; where there is none, because
// smtp_tls_loglevel is 0, it is the session.
func (p *Log) report(e *maillog.Entry, text []byte) {
	r, ok := tlsReportLine(text)
	at, okTime := p.clock.At(e.Stamp)
	if !ok || !okTime {
		p.stats.Unparsed++
		return
	}
	r.at = at
	process := p.open.get(e.Key)
	if len(process.reports) < maxTries {
		process.reports = append(process.reports, r)
	}
	p.settle(process)
}

// tlsproxy keeps why a handshake failed, until smtp says for which delivery.
func (p *Log) tlsproxy(e *maillog.Entry) {
	note := proxyNote{logHost: string(e.Host)}
	text := bytes.TrimPrefix(e.Text, []byte("warning: "))
	var relay []byte
	if r, said, ok := certificateFailed(text); ok {
		relay, note.verdict = r, verdictOf(said)
	} else if rest, found := bytes.CutPrefix(text, []byte("SSL_connect error to ")); found {
		if relay, rest, found = endpoint(rest); found {
			note.broken, note.verdict = true, handshakeVerdict(rest)
		}
	}
	at, ok := p.clock.At(e.Stamp)
	if relay == nil || !ok {
		return
	}
	note.relay, note.at = string(relay), at
	p.proxy.keep(note)
}

// Flush is that of [maillog.Reader].
func (p *Log) Flush(emit func(reporting.Session)) {
	for process := p.open.oldest(); process != nil; process = p.open.oldest() {
		p.merge(process)
		p.emit(process, "", emit)
		p.open.remove(process)
	}
	p.proxy = proxyNotes{}
	p.own.Forget()
}

// Stats is that of [maillog.Reader].
func (p *Log) Stats() maillog.Stats {
	s := p.stats
	s.Open = p.open.waiting()
	return s
}

// emit sends out what a process has collected. domain is that of the recipient; what
// has neither it nor one of its own is dropped.
func (p *Log) emit(process *smtpProcess, domain string, emit func(reporting.Session)) {
	for i := range process.tries {
		try := &process.tries[i]
		if try.domain = cmp.Or(try.domain, domain, try.policyDomain); try.domain == "" {
			p.stats.Dropped++
			continue
		}
		p.stats.Sessions++
		process.count(try.relay)
		emit(try.session())
	}
	process.clear()
}

// discard counts what a process has collected for a message of ours. A session belongs
// to the message that it was opened for: of others that go by the same connection none is
// logged.
func (p *Log) discard(process *smtpProcess) {
	for i := range process.tries {
		process.count(process.tries[i].relay)
	}
	p.stats.Own += uint64(len(process.tries))
	process.clear()
}

// session is what a try comes to.
func (t *smtpTry) session() reporting.Session {
	return reporting.Session{
		Time:   t.at.UTC(),
		Domain: t.domain,
		Policy: reporting.Policy{Type: t.policy, Domain: t.policyDomain},
		MXHost: t.host,
		MXIP:   t.ip,
		Result: t.result,
		Reason: t.reason,
	}
}

// old reports whether what was logged at t cannot belong to a line of now any more.
func old(t, now time.Time) bool { return now.Sub(t) > maxAge || t.Sub(now) > maxAge }

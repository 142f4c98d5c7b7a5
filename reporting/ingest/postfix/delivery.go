package postfix

import (
	"bytes"

	"postseal/reporting"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

// recipientLine is
//
//	to=<u@D>, orig_to=<x@E>, relay=H[IP]:25, conn_use=2, delay=1, delays=0/0/1/0, tls=secure, dsn=2.0.0, status=sent (250 ok)
//
// behind the queue id. orig_to, conn_use and tls (3.11) may be missing.
type recipientLine struct {
	address  []byte
	original []byte // before it was rewritten; nil if it was not
	relay    []byte // "H[IP]"; nil for "none" and for sockets
	tls      []byte
	status   []byte
	sent     bool
	text     []byte // in the parentheses; what a remote host said stands in it
}

// readRecipient takes the line apart from the left, each field in its place. ok is
// false where a field is out of place.
//
// Versions before 3.5, and info_log_address_format = internal, log addresses without
// quotes, so that
//
//	to=<a@b.example>, relay=mx.b.example[192.0.2.1]:25, … status=sent (x@c.example>, relay=mx.b.example[192.0.2.1]:25, …
//
// is one to a recipient at c.example, of a sender's choice, or one to b.example, with
// a remote host's reply. It is read as the latter: else whoever strips STARTTLS could
// have it overlooked by the words of a reply.
func readRecipient(b []byte) (r recipientLine, ok bool) {
	if b, ok = bytes.CutPrefix(b, []byte("to=<")); !ok {
		return r, false
	}
	if r.address, b, ok = addressEnd(b); !ok {
		return r, false
	}
	if rest, found := bytes.CutPrefix(b, []byte("orig_to=<")); found {
		if r.original, b, ok = addressEnd(rest); !ok {
			return r, false
		}
	}
	if b, ok = bytes.CutPrefix(b, []byte("relay=")); !ok {
		return r, false
	}
	relay, b, ok := logField(b)
	if !ok {
		return r, false
	}
	if name, rest, found := endpoint(relay); found && len(rest) == 0 {
		r.relay = name
	}
	for !bytes.HasPrefix(b, []byte("status=")) {
		var f []byte
		if f, b, ok = logField(b); !ok {
			return r, false
		}
		if value, found := bytes.CutPrefix(f, []byte("tls=")); found {
			r.tls = value
		}
	}
	return r.finish(b[len("status="):])
}

// logField reads "name=value, ", or a value alone. None of them has a blank.
func logField(b []byte) (f, rest []byte, ok bool) {
	i := bytes.IndexByte(b, ' ')
	if i < 2 || b[i-1] != ',' {
		return nil, nil, false
	}
	return b[:i-1], b[i+1:], true
}

// finish reads "sent (250 ok)". A line that was cut has no closing parenthesis. With
// soft_bounce = yes what would bounce is deferred, under a word of its own.
func (r recipientLine) finish(b []byte) (recipientLine, bool) {
	status, text, _ := bytes.Cut(b, []byte(" "))
	if string(status) == "SOFTBOUNCE" {
		status = []byte("deferred")
	}
	if len(status) == 0 {
		return r, false
	}
	for _, c := range status {
		if c < 'a' || c > 'z' {
			return r, false
		}
	}
	r.status, r.sent = status, string(status) == "sent"
	if text, found := bytes.CutPrefix(text, []byte("(")); found {
		r.text = bytes.TrimSuffix(text, []byte(")"))
	}
	return r, true
}

// addressEnd finds the end of an address that starts at b: ">, " with the next field
// behind it, and outside the quotes of a local part (RFC 5321 §4.1.2).
func addressEnd(b []byte) (address, rest []byte, ok bool) {
	from := 0
	if len(b) > 0 && b[0] == '"' {
		for i := 1; i < len(b); i++ {
			if b[i] == '\\' {
				i++
				continue
			}
			if b[i] == '"' && i+1 < len(b) && b[i+1] == '@' {
				from = i
				break
			}
		}
	}
	for {
		i := bytes.IndexByte(b[from:], '>')
		if i < 0 {
			return nil, nil, false
		}
		from += i + 1
		rest, ok = bytes.CutPrefix(b[from:], []byte(", "))
		if ok && (bytes.HasPrefix(rest, []byte("relay=")) || bytes.HasPrefix(rest, []byte("orig_to=<"))) {
			return b[:from-1], rest, true
		}
	}
}

// queued reads a line with a queue id.
func (p *Log) queued(e *maillog.Entry, id, text []byte, emit func(reporting.Session)) {
	if bytes.HasPrefix(text, []byte("to=<")) {
		p.recipient(e, id, text, emit)
		return
	}
	if e.Cut {
		p.ownLine(e, id, text) // the program may be any
	}
	relay, reason, refused := notOffered(text)
	unverified := !refused && notVerified(text)
	process := p.open.find(e.Key)
	if process == nil {
		if !refused && !unverified {
			return
		}
		process = p.open.get(e.Key)
	}
	at, ok := p.clock.At(e.Stamp)
	switch {
	case !ok:
		p.stats.Unparsed++
	case refused:
		process.claim(id) // of the host before
		p.add(process, refusedTry(p.names.of(relay), reason, at))
	case unverified:
		p.unverified(e, process, nil)
	}
	process.claim(id)
	p.settle(process)
}

// recipient reads the line that ends a delivery, or one of several.
func (p *Log) recipient(e *maillog.Entry, id, text []byte, emit func(reporting.Session)) {
	process := p.open.find(e.Key)
	r, ok := readRecipient(text)
	at, okTime := p.clock.At(e.Stamp)
	if !ok || !okTime {
		p.stats.Unparsed++
		if process != nil {
			p.stats.Dropped += uint64(len(process.tries))
			process.clear()
			p.settle(process)
		}
		return
	}
	own := p.own.Find(e.Host, id)
	if own != nil {
		p.tell(own, &r, at)
	}
	if process == nil {
		if !r.tells() {
			return
		}
		process = p.open.get(e.Key)
	}
	domain := p.names.domain(r.address)
	process.begin(id, r.address, domain, at)
	p.stats.Dropped += uint64(process.dropStrangers(id, r.relay, at))
	p.conclude(e, process, &r)
	p.merge(process)
	if own != nil {
		p.discard(process)
	} else {
		p.emit(process, domain, emit)
	}
	p.settle(process)
	p.expire(at)
}

// tells reports whether the line alone shows a session, without another before it.
func (r *recipientLine) tells() bool {
	if _, plain := r.plaintext(); plain {
		return true
	}
	if r.sent {
		return false
	}
	_, _, refused := notOffered(r.text)
	return refused || notVerified(r.text) || string(r.text) == "Cannot start TLS: handshake failure"
}

// plaintext reads "tls=may:none": a connection without TLS at a level that allows it.
// Features may follow: "tls=may:none/requiretls:none", "tls=may:none,trace" (3.12).
func (r *recipientLine) plaintext() (relay []byte, ok bool) {
	level, rest, found := bytes.Cut(r.tls, []byte(":none"))
	if !found || r.relay == nil || !r.sent || len(level) == 0 || bytes.ContainsAny(level, "!?/:,") {
		return nil, false
	}
	return r.relay, len(rest) == 0 || rest[0] == ',' || rest[0] == '/'
}

// dane reports whether the level was dane and TLSA records were used.
func (r *recipientLine) dane() bool {
	level, _, _ := bytes.Cut(r.tls, []byte("/"))
	level = bytes.TrimPrefix(level, []byte("!"))
	return (bytes.HasPrefix(level, []byte("dane")) || bytes.HasPrefix(level, []byte("half-dane"))) && bytes.IndexByte(level, '?') < 0
}

// conclude adds what the line itself tells of its session.
func (p *Log) conclude(e *maillog.Entry, process *smtpProcess, r *recipientLine) {
	at, _ := p.clock.At(e.Stamp)
	if relay, plain := r.plaintext(); plain && !process.knows(relay) {
		p.add(process, refusedTry(p.names.of(relay), "", at))
	}
	if !r.sent {
		if relay, reason, refused := notOffered(r.text); refused {
			if !process.knows(relay) {
				p.add(process, refusedTry(p.names.of(relay), reason, at))
			}
		} else if notVerified(r.text) {
			p.unverified(e, process, r.relay)
		} else if string(r.text) == "Cannot start TLS: handshake failure" {
			p.handshake(e, process, r.relay)
		}
	}
	last := process.last()
	if last == nil || !r.dane() || string(r.relay) != last.relay {
		return
	}
	if last.policy == "" {
		last.policy = tlsrpt.TLSA
	}
	if !last.failed() && bytes.HasPrefix(r.tls, []byte("dane:encrypt")) {
		last.fail(unusableTLSA)
	}
}

// unverified fails the session that was given up because of its certificate. relay is
// nil where the line does not name the host.
func (p *Log) unverified(e *maillog.Entry, process *smtpProcess, relay []byte) {
	try := process.lastUp(relay)
	at, _ := p.clock.At(e.Stamp)
	if try == nil {
		// With smtp_tls_loglevel = 0 the session itself was not logged.
		name := process.cert.relay
		if name == "" || relay != nil && string(relay) != name {
			name = string(relay)
		}
		if name == "" || process.knows([]byte(name)) {
			return
		}
		up := &smtpTry{kind: tryEstablished, mxHost: p.names.of([]byte(name)), at: at}
		if process.cert.relay == name {
			up.at, up.verdict, process.cert = process.cert.at, process.cert.verdict, pendingVerdict{}
		}
		p.add(process, up)
		if try = process.last(); try == nil {
			return
		}
	}
	v := try.verdict
	if note, ok := p.proxy.take(e.Host, try.relay, false, at); ok && v.result == "" {
		v = note.verdict
	}
	// Before 3.6, and of a session that was resumed, Postfix says no more. A trusted chain
	// can fail by its name, and under DANE by the TLSA records, which are not known here.
	if v.result == "" || try.trusted && v.reason == resumedReason {
		v = verdict{result: tlsrpt.ValidationFailure, reason: "certificate not verified"}
	}
	try.fail(v)
}

// handshake is "Cannot start TLS", which may be our own fault: it counts only if
// SSL_connect had failed before, in this process or in tlsproxy. The line about a host
// that is not the last names none, so there tlsproxy cannot be asked.
func (p *Log) handshake(e *maillog.Entry, process *smtpProcess, relay []byte) {
	at, _ := p.clock.At(e.Stamp)
	if last := process.last(); last != nil && last.kind == tryBroken {
		return
	}
	if relay == nil || process.knows(relay) {
		return
	}
	note, ok := p.proxy.take(e.Host, string(relay), true, at)
	if !ok {
		return
	}
	try := &smtpTry{kind: tryBroken, mxHost: p.names.of(relay), at: note.at}
	try.fail(note.verdict)
	p.add(process, try)
}

// merge gives the sessions what TLSRPT lines say of them. A line that goes with no
// other is a session by itself.
func (p *Log) merge(process *smtpProcess) {
	for i := range process.reports {
		r := &process.reports[i]
		try := process.unreported(r.relay)
		if try == nil {
			if len(process.tries) >= maxTries {
				continue
			}
			process.tries = append(process.tries, smtpTry{kind: tryEstablished, mxHost: p.names.of([]byte(r.relay)), at: r.at})
			try = process.last()
		}
		try.reported, try.domain = true, r.domain
		if !r.failed {
			continue
		}
		if !try.failed() || try.result == tlsrpt.ValidationFailure && r.verdict.result != tlsrpt.ValidationFailure {
			try.fail(r.verdict)
		}
		if try.reason == "" {
			try.reason = r.verdict.reason
		}
	}
	process.reports = process.reports[:0]
}

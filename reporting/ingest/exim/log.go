// Package exim reads what Exim tells of its TLS sessions: its main log ([Log]), of versions
// 4.94 to 4.100, and the events that it raises while it delivers ([Events]). Either is one
// source of sessions for a host, never both.
//
// The log comes for nothing and has a checkpoint, but says little of hosts that were not
// the last, and nothing of deliveries in clear. The events name each host, the reply to its
// EHLO (RFC 5321 §4.1.1.1, RFC 3207 §4) and the certificates that it showed, which are
// verified once more here: Exim's word for all that may be wrong with them is one, where
// RFC 8460 §4.3 knows several, and what MTA-STS would say of them (RFC 8461 §4.2) nobody
// asks it.
//
// Both know a connection by message, host and our own port. Sessions are counted, not
// messages (RFC 8460 §4.2), and a second connection in clear, after a handshake that failed,
// is no second session.
package exim

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest/foreign"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

const (
	// minRetry is the shortest time between two attempts of one message at one host
	// that counts as two where local ports are not logged: queue runs are 30 min apart
	// by default, and recipients of one attempt are logged within a second.
	minRetry = time.Minute

	// maxWait is how long a failure may wait for the line that names its recipient.
	// Exim goes on to the next host at once, which may take final_timeout, 10 min.
	maxWait = time.Hour
)

// Log reads the main log of Exim, its own file or through syslog.
//
// A line about a recipient names everything: domain, host, address and, with
// +outgoing_interface, our own port, which tells connections apart. But of a host that
// was not the last, only a line without a recipient tells, if anything does. It waits
// under the message id for the recipients that follow. Deliveries in clear are no
// sessions: the log does not say whether STARTTLS was offered, and without +tls_cipher all
// would look so.
type Log struct {
	clock maillog.Clock
	stats maillog.Stats
	open  maillog.Table[message]
	own   maillog.OwnMails
	buf   [48]byte
}

// New makes a reader that has read nothing yet.
func New(o maillog.Options) *Log {
	o = o.Filled()
	x := &Log{clock: maillog.Clock{Location: o.Location, Now: o.Now}, own: maillog.OwnMails{Is: o.Own, Told: o.Delivered}}
	x.init()
	return x
}

func (x *Log) init() {
	x.open.Init(maxMessages, maxMessageBytes, (*message).weight)
	x.own.Forget()
}

// Line is that of [maillog.Reader].
func (x *Log) Line(line []byte, emit func(reporting.Session)) {
	x.stats.Lines++
	if len(line) > maillog.MaxLine {
		x.stats.Oversize++
		return
	}
	stamp, id, text, ok := x.head(bytes.TrimRight(line, "\r"))
	if !ok || !matters(text) && !x.own.Asked(text, "<= ") {
		return
	}
	at, ok := x.clock.At(stamp)
	if !ok {
		x.stats.Unparsed++
		return
	}
	x.message(id, text, at, emit)
	x.expire(at, emit)
}

// head takes off what stands before the text: Exim's own stamp, or that of syslog, or
// both.
func (x *Log) head(line []byte) (stamp, id, text []byte, ok bool) {
	stamp, rest, own := cutStamp(line, x.buf[:])
	if own {
		if id, text, ok = cutID(rest); ok {
			return stamp, id, text, true
		}
	}
	if !own && !bytes.Contains(line, []byte("exim")) {
		return nil, nil, nil, false
	}
	e, ok := maillog.Head(line)
	if !ok || !bytes.HasPrefix(e.Tag, []byte("exim")) {
		return nil, nil, nil, false
	}
	rest, ok = cutChunk(e.Text)
	if !ok {
		return nil, nil, nil, false
	}
	stamp = e.Stamp
	if inner, behind, found := cutStamp(rest, x.buf[:]); found {
		stamp, rest = inner, behind // it has the year
	}
	id, text, ok = cutID(rest)
	return stamp, id, text, ok
}

// matters passes the lines that message reads.
func matters(text []byte) bool {
	if len(text) < 4 {
		return false
	}
	switch string(text[:2]) {
	case "=>", "->", "==", "**", ">>", "Co", "TL", "DA", "H=":
		return true
	}
	return text[0] == '['
}

// message reads one line of a message.
func (x *Log) message(id, text []byte, at time.Time, emit func(reporting.Session)) {
	if bytes.HasPrefix(text, []byte("<= ")) {
		x.own.Received(nil, id, readMessageID(text), 0, at)
		return
	}
	r, ok, bad := readRecipient(text)
	if bad {
		x.stats.Unparsed++
		return
	}
	if ok {
		x.tell(id, &r, at)
		x.recipient(id, &r, at, emit)
		return
	}
	if string(text) == "Completed" || bytes.HasPrefix(text, []byte("Completed ")) {
		if m := x.open.Find(id); m != nil {
			x.settle(m, emit)
		}
		x.own.Done(nil, id)
		return
	}
	if ip, detail, ok := readVerifyError(text); ok {
		m := x.open.Get(id, at)
		m.Value.note(ip, detail, at)
		x.bound(m)
		return
	}
	if t, ok := x.attempt(id, text, at); ok {
		m := x.open.Get(id, at)
		m.Value.add(t)
		x.bound(m)
	}
}

// attempt reads a line about a host that failed, without a recipient.
func (x *Log) attempt(id, text []byte, at time.Time) (t try, ok bool) {
	t.at = at
	if h, why, ok := readUnencrypted(text); ok {
		t.host, t.result, t.reason = h, tlsrpt.ValidationFailure, why
		return t, true
	}
	if h, why, ok := readDANE(text); ok {
		t.host, t.dane = h, true
		t.result, t.reason = readHandshake(why, x.detail(id, h.ip, at))
		if t.result == tlsrpt.ValidationFailure && verificationFailed(why) {
			t.result = tlsrpt.CertificateNotTrusted // OpenSSL builds say no more
		}
		return t, true
	}
	rest, ok := bytes.CutPrefix(text, []byte("H="))
	if !ok {
		return t, false
	}
	if t.host, rest, ok = readHost(rest); !ok {
		return t, false
	}
	said, ok := cutText(rest)
	if !ok {
		return t, false
	}
	t.result, t.reason, ok = readFailure(said, x.detail(id, t.host.ip, at))
	t.dane = bytes.HasPrefix(said, []byte("DANE error: "))
	return t, ok
}

func (x *Log) detail(id []byte, ip netip.Addr, at time.Time) string {
	if m := x.open.Find(id); m != nil {
		return m.Value.detail(ip, at)
	}
	return ""
}

// recipient reads a line that names a domain.
func (x *Log) recipient(id []byte, r *recipient, at time.Time, emit func(reporting.Session)) {
	if slices.Contains(notCounted, r.transport) {
		if m := x.open.Find(id); m != nil {
			m.Value.take(&r.host) // tried on behalf of this recipient, and not to be counted
			x.bound(m)
		}
		return
	}
	if r.domain == "" {
		return // a local one
	}
	if outside(r) {
		m := x.open.Get(id, at)
		t := try{at: at, result: tlsrpt.ValidationFailure, reason: maillog.OutsidePolicy, sts: true}
		if m.Value.count(connection{domain: r.domain, at: at}) {
			x.emit(m, t, r.domain, emit)
		}
		x.bound(m)
		return
	}
	if !r.hasHost && r.kind != 'd' {
		return // a pipe, or routing failed
	}
	m := x.open.Get(id, at)
	m.Value.candidate(r.domain)
	if r.hasHost {
		x.connection(m, r, at, emit)
	}
	x.bound(m)
}

// outside reads "MTA-STS: no MX host of D is in the policy", which the router of
// contrib/exim says, and which mentions the recipient's own domain.
func outside(r *recipient) bool {
	rest, ok := bytes.CutPrefix(r.text, []byte("MTA-STS: no MX host of "))
	if !ok || r.kind != 'd' || r.hasHost {
		return false
	}
	domain, _, _ := bytes.Cut(rest, []byte(" "))
	name, _ := foreign.DomainName(string(domain))
	return name == r.domain
}

// connection: the recipient was tried at a host.
func (x *Log) connection(slot *maillog.Slot[message], r *recipient, at time.Time, emit func(reporting.Session)) {
	m := &slot.Value
	if r.tls {
		m.forgive(r.host.ip)
		if r.kind == '-' || r.host.reused || !m.count(connection{ip: r.host.ip, port: r.port, domain: r.domain, at: at}) {
			return
		}
		x.emit(slot, try{at: at, host: r.host, local: r.local, dane: r.dane}, r.domain, emit)
		return
	}
	result, reason, failed := readFailure(r.text, m.detail(r.host.ip, at))
	if t, ok := m.take(&r.host); ok {
		// In clear, or given up, at the host that an earlier line was about: that has
		// said the same, or why the handshake failed.
		if failed && t.result == tlsrpt.ValidationFailure {
			t.result, t.reason = result, reason
		}
		t.local = r.local
		m.count(connection{ip: r.host.ip, port: r.port, domain: r.domain, at: at, failed: true})
		x.emit(slot, t, r.domain, emit)
		return
	}
	if failed && m.count(connection{ip: r.host.ip, port: r.port, domain: r.domain, at: at, failed: true}) {
		dane := bytes.HasPrefix(r.text, []byte("DANE error: "))
		x.emit(slot, try{at: at, host: r.host, local: r.local, result: result, reason: reason, dane: dane}, r.domain, emit)
	}
}

func (x *Log) emit(m *maillog.Slot[message], t try, domain string, emit func(reporting.Session)) {
	if x.own.Any() && x.own.Find(nil, []byte(m.Key)) != nil {
		x.stats.Own++
		return
	}
	s := reporting.Session{
		Time: t.at, Domain: domain, SendingIP: t.local,
		MXHost: t.host.name, MXIP: t.host.ip, Result: t.result, Reason: t.reason,
	}
	switch {
	case t.dane:
		s.Policy = reporting.Policy{Type: tlsrpt.TLSA, Domain: t.host.name}
	case t.sts:
		s.Policy = reporting.Policy{Type: tlsrpt.STS, Domain: domain}
	}
	x.stats.Sessions++
	emit(s)
}

// settle ends a message: what has not found its recipient belongs to the only domain
// that the message went to, if it is only one.
func (x *Log) settle(m *maillog.Slot[message], emit func(reporting.Session)) {
	for _, t := range m.Value.tries {
		if len(m.Value.domains) == 1 {
			x.emit(m, t, m.Value.domains[0], emit)
		} else {
			x.stats.Dropped++
		}
	}
	x.open.Remove(m)
}

// expire settles the messages of which nothing was logged for long.
func (x *Log) expire(now time.Time, emit func(reporting.Session)) {
	for m := x.open.Oldest(); m != nil && now.Sub(m.At) > maxWait; m = x.open.Oldest() {
		x.settle(m, emit)
	}
}

// bound keeps the table within its bounds.
func (x *Log) bound(m *maillog.Slot[message]) {
	x.open.Settle(m, func(evicted *message) { x.stats.Dropped += uint64(len(evicted.tries)) })
}

// Flush is that of [maillog.Reader].
func (x *Log) Flush(emit func(reporting.Session)) {
	for m := x.open.Oldest(); m != nil; m = x.open.Oldest() {
		x.settle(m, emit)
	}
	x.own.Forget()
}

// Stats is that of [maillog.Reader].
func (x *Log) Stats() maillog.Stats {
	s := x.stats
	for m := range x.open.All {
		if len(m.Value.tries) > 0 {
			s.Open++
		}
	}
	return s
}

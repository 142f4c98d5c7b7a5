// Package sendmail reads the log of Sendmail 8.17 and 8.18.
//
// The lines about STARTTLS name a host, but neither message nor address. One process
// delivers one message after the other, and logs in order: STARTTLS, what a ruleset
// objects to, and at last "to=", which has the recipients' domain. So the former wait
// under the process for the latter; they are the sessions that RFC 8460 §4.2 counts. A
// connection that was kept open says nothing of STARTTLS again, and whether a host without
// TLS offered none or refused it (RFC 3207 §4) is not said at all: neither is a session.
//
// What is wrong with a certificate is known from LogLevel 12 on; before, a ruleset says
// only that it was not good enough for MTA-STS (RFC 8461) or for DANE (RFC 7672).
package sendmail

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest/foreign"
	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

const (
	// maxCached is how long a connection may stay open for the next message:
	// twice ConnectionCacheTimeout, which is 5 min.
	maxCached = 10 * time.Minute

	// maxAge is how long a delivery in hand may be silent: one reply may take
	// an hour (Timeout.rcpt, Timeout.datafinal), and several hosts may be tried.
	maxAge = 5 * time.Hour

	// maxProcesses: MaxDaemonChildren and MaxQueueChildren set no limit by default, and
	// a log may be that of several hosts.
	maxProcesses = 16384

	// maxOpenBytes bounds what all of them hold.
	maxOpenBytes = 32 << 20

	// maxTries bounds the hosts of one delivery.
	maxTries = 64
)

// verdict says why a session fails.
type verdict struct {
	result tlsrpt.ResultType
	reason string
	policy tlsrpt.PolicyType // "" unless the line names it
}

// Log is a [maillog.Reader] of Sendmail's log.
type Log struct {
	clock  maillog.Clock
	stats  maillog.Stats
	open   maillog.Table[process]
	recent maillog.Table[recent]
	own    maillog.OwnMails
}

// process is what a process has logged of the delivery in hand.
type process struct {
	tries   []try
	current mxHost   // that it talks to, where LogLevel 12 tells
	hosts   []mxHost // whose addresses are known
	local   bool     // STARTTLS was not tried, by a fault of ours
}

type mxHost struct {
	name string
	ip   netip.Addr
}

// try is a session that waits for its domain.
type try struct {
	at     time.Time
	host   mxHost // without a name until a ruleset says it, if the handshake failed
	detail string // what is wrong with the certificate, in case that it matters
	broken bool   // the handshake failed
	verdict
}

func (t *try) failed() bool { return t.result != "" }

// recent is what a process has just counted: what is said of further
// messages with the same connection is not another one.
type recent struct {
	hosts []counted
}

type counted struct {
	host string
	at   time.Time
}

// New makes a reader that has read nothing yet.
func New(o maillog.Options) *Log {
	o = o.Filled()
	s := &Log{clock: maillog.Clock{Location: o.Location, Now: o.Now}, own: maillog.OwnMails{Is: o.Own, Told: o.Delivered}}
	s.init()
	return s
}

func (s *Log) init() {
	s.open.Init(maxProcesses, maxOpenBytes, (*process).weight)
	s.recent.Init(maxProcesses, maxOpenBytes, (*recent).weight)
	s.own.Forget()
}

// Line is that of [maillog.Reader].
func (s *Log) Line(line []byte, emit func(reporting.Session)) {
	s.stats.Lines++
	if len(line) > maillog.MaxLine {
		s.stats.Oversize++
		return
	}
	if !matters(line) && !s.aboutOwn(line) {
		return
	}
	e, ok := maillog.Head(bytes.TrimRight(line, "\r"))
	if !ok || len(e.PID) == 0 {
		return
	}
	id, text := cutID(e.Text)
	switch {
	case bytes.HasPrefix(text, []byte("STARTTLS=client, ")):
		s.starttls(&e, text[len("STARTTLS=client, "):])
	case bytes.HasPrefix(text, []byte("to=")):
		s.delivery(&e, id, text, emit)
	case bytes.HasPrefix(text, []byte("ruleset=")):
		s.ruleset(&e, text)
	case bytes.HasPrefix(text, []byte("tls_clt_features=")), bytes.HasPrefix(text, []byte("rscheck(tls_clt_features)=")):
		s.connected(&e, text)
	default:
		s.ownLine(&e, id, text)
	}
}

// matters passes what may be one of the lines that count; it does little.
func matters(line []byte) bool {
	for _, mark := range []string{" to=", "STARTTLS=client", "ruleset=tls_", "tls_clt_features", `"to=`} {
		if bytes.Contains(line, []byte(mark)) {
			return true
		}
	}
	return false
}

// connected reads "tls_clt_features=…, relay=mx [192.0.2.1]" (LogLevel 12): a
// connection was made.
func (s *Log) connected(e *maillog.Entry, text []byte) {
	at := bytes.LastIndex(text, []byte("relay="))
	now, ok := s.clock.At(e.Stamp)
	if at < 0 || !ok {
		return
	}
	relay, _, _ := bytes.Cut(text[at+len("relay="):], []byte(", "))
	var h mxHost
	if h.name, h.ip = readRelay(relay); h.name == "" || !h.ip.IsValid() {
		return
	}
	p := s.open.Get(e.Key, now)
	p.Value.current = h
	p.Value.know(h)
	s.settle(p)
}

// starttls reads a line about a handshake.
func (s *Log) starttls(e *maillog.Entry, text []byte) {
	line, ok := readTLS(text)
	if !ok {
		if bytes.HasPrefix(text, []byte("relay=")) {
			s.stats.Unparsed++
		}
		return
	}
	at, ok := s.clock.At(e.Stamp)
	if !ok {
		s.stats.Unparsed++
		return
	}
	slot := s.open.Get(e.Key, at)
	p := &slot.Value
	switch line.kind {
	case 'e':
		s.add(p, established(&line, at))
	case 'c':
		if t := p.last(); t != nil && !t.broken && t.detail == "" && line.reason != "ok" {
			t.explain(line.reason)
		}
	case 'x':
		t := try{at: at, broken: true, verdict: verdict{result: tlsrpt.ValidationFailure, reason: line.reason}}
		if t.host.name = line.host; line.host == "" {
			t.host = p.current
		}
		s.add(p, t)
	case 'w':
		s.warned(p, &line, at)
	case 'l':
		p.local = true
	}
	s.settle(slot)
}

// explain says what the certificate lacks. Under DANE the handshake's own line has failed
// the session already: that no record matches is the same in other words, but with
// DANE-TA it may be the name or the date (RFC 7672 §3.1.2).
func (t *try) explain(detail string) {
	t.detail = detail
	if result := foreign.VerifyResult(detail); t.failed() && result != tlsrpt.ValidationFailure {
		t.result, t.reason = result, detail
	}
}

func established(line *tlsLine, at time.Time) try {
	t := try{at: at, host: mxHost{name: line.host}}
	switch {
	case strings.HasPrefix(line.verify, "DANE"):
		t.verdict = verdict{result: tlsrpt.CertificateNotTrusted, reason: "no TLSA record matches", policy: tlsrpt.TLSA}
	case line.verify == "TRUSTED":
		t.policy = tlsrpt.TLSA
	case strings.Contains(line.status, "TLSA"):
		t.verdict = verdict{result: tlsrpt.TLSAInvalid, reason: line.status, policy: tlsrpt.TLSA}
	}
	return t
}

// warned reads that DANE was demanded of a host without TLS. "STARTTLS failed" is a
// refusal as well as a broken handshake, which was logged before.
func (s *Log) warned(p *process, line *tlsLine, at time.Time) {
	if t := p.last(); t != nil && t.broken && (t.host.name == "" || t.host.name == line.host) {
		t.host.name, t.policy = line.host, tlsrpt.TLSA
		return
	}
	v := verdict{result: tlsrpt.StartTLSNotSupported, policy: tlsrpt.TLSA}
	if line.reason == "STARTTLS failed" {
		v.reason = "STARTTLS was offered, but refused"
	}
	s.add(p, try{at: at, host: mxHost{name: line.host}, verdict: v})
}

// ruleset reads why a session was not good enough.
func (s *Log) ruleset(e *maillog.Entry, text []byte) {
	if !bytes.HasPrefix(text, []byte("ruleset=tls_server,")) && !bytes.HasPrefix(text, []byte("ruleset=tls_rcpt,")) {
		return
	}
	r, ok := readRejection(text)
	at, okTime := s.clock.At(e.Stamp)
	if !ok || !okTime {
		s.stats.Unparsed++
		return
	}
	slot := s.open.Get(e.Key, at)
	p := &slot.Value
	v, ok := r.outcome()
	if p.local && r.ruleset == "tls_server" {
		p.local, ok = false, false
	}
	if ok {
		s.reject(e, p, &r, v, at)
	}
	s.settle(slot)
}

func (s *Log) reject(e *maillog.Entry, p *process, r *rejection, v verdict, at time.Time) {
	if t := p.try(r.host); t != nil {
		t.host.name = r.host
		if t.policy == "" {
			t.policy = v.policy
		}
		if !t.failed() {
			t.fail(v)
		}
		return
	}
	// No word of a handshake: there was none, or it was that of an earlier message.
	if r.ruleset == "tls_rcpt" && s.justCounted(e.Key, r.host, at) {
		return
	}
	if v.result == tlsrpt.ValidationFailure && v.reason != maillog.OutsidePolicy {
		v.result = tlsrpt.StartTLSNotSupported
	}
	s.add(p, try{at: at, host: mxHost{name: r.host}, verdict: v})
}

// fail applies what a ruleset says; what the certificate lacks is known better from
// LogLevel 12 on.
func (t *try) fail(v verdict) {
	if v.result == tlsrpt.ValidationFailure && t.detail != "" && v.reason != maillog.OutsidePolicy {
		v.result, v.reason = foreign.VerifyResult(t.detail), t.detail
	}
	t.result, t.reason = v.result, v.reason
}

// delivery reads the line that gives a domain to what the process has tried.
func (s *Log) delivery(e *maillog.Entry, id, text []byte, emit func(reporting.Session)) {
	to, ok := readTo(text)
	at, okTime := s.clock.At(e.Stamp)
	if !ok || !okTime {
		if bytes.Contains(text, []byte(", relay=")) {
			s.stats.Unparsed++
		}
		return
	}
	slot := s.open.Get(e.Key, at)
	p := &slot.Value
	p.tries = slices.DeleteFunc(p.tries, func(t try) bool {
		if old(t.at, at) {
			s.stats.Dropped++ // of another process with this id
			return true
		}
		return false
	})
	own := s.tell(e, id, &to, at)
	switch {
	case skips(&to):
	case to.domain == "" && !own:
		s.stats.Dropped += uint64(len(p.tries))
	default:
		s.conclude(e, p, &to, at)
		for i := range p.tries {
			if own {
				s.stats.Own++ // the connection may be kept, but is ours
			} else {
				s.emit(&p.tries[i], to.domain, emit)
			}
			s.counted(e.Key, &p.tries[i], at)
		}
	}
	*p = process{}
	s.settle(slot)
	s.expire(at)
}

// notCounted are mailers of submission to the own server, of smart hosts, which are not
// the recipient's, and of what is not SMTP; LMTP has the name of what it is for.
var notCounted = []string{"relay", "local", "lmtp", "prog", "*file*", "*include*", "procmail", "cyrus", "cyrusv2", "uucp", "usenet", "fax", "discard", "error"}

// skips: not every delivery goes to an MX host of the recipient's domain.
func skips(to *toLine) bool {
	return slices.Contains(notCounted, to.mailer) || strings.HasPrefix(to.mailer, "postseal") || filterAddress(to.ip)
}

// filterAddress reports whether an address is where filters of the same host listen: ::1
// or 127.0.0.0/24. The rest of 127/8 is as good as any address, in laboratories at least.
func filterAddress(ip netip.Addr) bool {
	if b := ip.Unmap(); b.Is4() {
		four := b.As4()
		return four[0] == 127 && four[1] == 0 && four[2] == 0
	}
	return ip.IsLoopback()
}

// conclude adds what the line itself tells of the sessions.
func (s *Log) conclude(e *maillog.Entry, p *process, to *toLine, at time.Time) {
	if to.host != "" && to.ip.IsValid() {
		p.know(mxHost{to.host, to.ip})
	}
	if said, found := strings.CutPrefix(to.stat, "Deferred: "); found && len(said) > 10 && (strings.HasPrefix(said[10:], "STS ") || strings.HasPrefix(said[10:], "DANE")) {
		r := rejection{ruleset: "tls_rcpt", host: to.host, text: said}
		if v, ok := r.outcome(); ok && p.try(to.host) != nil {
			s.reject(e, p, &r, v, at) // 8.18.2 says it here as well
		}
	}
	for i := range p.tries {
		t := &p.tries[i]
		if t.host.name == "" && to.host != "" && !slices.ContainsFunc(p.tries, func(o try) bool { return o.host.name == to.host }) {
			t.host.name = to.host // the second connection to it was in clear
		}
		if !t.host.ip.IsValid() {
			t.host.ip = p.address(t.host.name)
		}
		if t.host.name == "" && to.host == "" {
			t.host.ip = to.ip // a host without a name
		}
		if t.host.name != to.host {
			continue
		}
		if t.result == tlsrpt.StartTLSNotSupported && t.reason != "" && to.reply != "" {
			t.reason = foreign.Reason(to.reply)
		}
		if to.sts && t.policy == "" {
			t.policy = tlsrpt.STS
		}
	}
}

func (s *Log) emit(t *try, domain string, emit func(reporting.Session)) {
	session := reporting.Session{
		Time: t.at, Domain: domain, MXHost: t.host.name, MXIP: t.host.ip,
		Result: t.result, Reason: t.reason, Policy: reporting.Policy{Type: t.policy},
	}
	switch t.policy {
	case tlsrpt.TLSA:
		session.Policy.Domain = t.host.name
	case tlsrpt.STS:
		session.Policy.Domain = domain
	}
	s.stats.Sessions++
	emit(session)
}

func (s *Log) add(p *process, t try) {
	if len(p.tries) >= maxTries {
		s.stats.Dropped++
		return
	}
	p.tries = append(p.tries, t)
}

func (s *Log) settle(slot *maillog.Slot[process]) {
	s.open.Settle(slot, func(p *process) { s.stats.Dropped += uint64(len(p.tries)) })
}

// expire drops what will not be heard of again.
func (s *Log) expire(now time.Time) {
	for p := s.open.Oldest(); p != nil && old(p.At, now); p = s.open.Oldest() {
		s.stats.Dropped += uint64(len(p.Value.tries))
		s.open.Remove(p)
	}
	for r := s.recent.Oldest(); r != nil && now.Sub(r.At).Abs() > maxCached; r = s.recent.Oldest() {
		s.recent.Remove(r)
	}
}

// Flush is that of [maillog.Reader].
func (s *Log) Flush(func(reporting.Session)) {
	for p := s.open.Oldest(); p != nil; p = s.open.Oldest() {
		s.stats.Dropped += uint64(len(p.Value.tries))
		s.open.Remove(p)
	}
	s.init()
}

// Stats is that of [maillog.Reader].
func (s *Log) Stats() maillog.Stats {
	st := s.stats
	for p := range s.open.All {
		if len(p.Value.tries) > 0 {
			st.Open++
		}
	}
	return st
}

// old reports whether what was logged at t cannot belong to a line of now any more.
func old(t, now time.Time) bool { return now.Sub(t).Abs() > maxAge }

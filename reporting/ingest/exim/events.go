package exim

import (
	"bytes"
	"crypto/x509"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest/foreign"
	"postseal/reporting/tlsrpt"
)

const (
	// maxJoins is how many connections wait for their last event. Exim has one per
	// delivery process, some hundreds.
	maxJoins = 10_000

	// maxJoinBytes bounds their certificates together.
	maxJoinBytes = 64 << 20

	// joinAge: Exim waits 5 min for each reply, 10 min for the last.
	joinAge = 30 * time.Minute
)

// Events joins the events of Exim into sessions. An event names its message, its
// connection and what is known of TLS so far; a session is known
//
//   - as a success by the second reply to EHLO, the one under TLS,
//   - as a failure by the event that defers the host (msg:host:defer), with the DANE result
//     before it and the certificates that were shown,
//   - as one without TLS by a delivery in clear, and by the first reply to EHLO
//     where that offered none and nothing more was heard.
//
// After a handshake that failed where TLS is not required, Exim connects to the
// same host once more and sends in clear: that is no second session. Some values
// are stale, those of the previous host: the transport is empty and the error number is
// the old one until the new host has failed. So only the two events that end
// something are asked for them.
//
// Emit must be set; nothing may be changed after the first call of Line.
type Events struct {
	// Emit is called by who calls Line; it must not wait.
	Emit func(reporting.Session)

	// Verdict, if set, is told how the certificates of a session look that did not
	// have to be verified: with result "" an MTA-STS policy would have
	// been content. It comes before the session's Emit.
	Verdict func(host string, at time.Time, result tlsrpt.ResultType, reason string)

	Roots *x509.CertPool   // for what MTA-STS asks of certificates; nil: the system's
	Now   func() time.Time // nil: time.Now

	// Skip names transports whose deliveries are not counted; nil: those of
	// contrib/exim that lead to postseal itself, and Debian's to a smart host.
	Skip []string

	// Own reports whether a Message-ID is that of a report of ours, whose sessions are
	// not counted (RFC 8460 §3); it must not be kept. nil: none is.
	Own func(messageID []byte) bool

	mu    sync.Mutex
	joins joinTable
	stats EventStats
}

// EventStats counts since the start of the process; only Open is a present state.
type EventStats struct {
	Events    uint64 // lines
	Malformed uint64 // of them
	Sessions  uint64 // that were emitted
	Dropped   uint64 // connections whose result never became known
	Open      int    // connections that wait for more
}

// notCounted are the transports of contrib/exim that lead to postseal itself, and that of
// Debian's to a smart host, which is not the recipient's MX host.
var notCounted = []string{"postseal_lmtp", "postseal_lmtp_requiretls", "postseal_lmtp_relaxed", "remote_smtp_smarthost"}

// ended is a session that lacks its final touch, which needs no lock.
type ended struct {
	reporting.Session
	join *join
	said string // what Exim said of the failure
}

// Line takes one event line and emits what it completes. Exim waits for whoever
// calls it. The error says why a line is malformed.
func (e *Events) Line(line string) error {
	now := time.Now()
	if e.Now != nil {
		now = e.Now()
	}
	ev, err := parseEvent(line)
	e.mu.Lock()
	e.stats.Events++
	var done []ended
	if err != nil {
		e.stats.Malformed++
	} else {
		done = e.step(&ev, now.UTC())
	}
	done = append(done, e.expire(now.Add(-joinAge))...)
	e.stats.Sessions += uint64(len(done))
	e.mu.Unlock()
	for i := range done {
		e.finish(&done[i])
	}
	return err
}

// Flush emits what can be said of all open connections; it is for the end.
func (e *Events) Flush() {
	e.mu.Lock()
	var done []ended
	for j := e.joins.oldest(); j != nil; j = e.joins.oldest() {
		done = append(done, e.giveUp(j)...)
	}
	e.stats.Sessions += uint64(len(done))
	e.mu.Unlock()
	for i := range done {
		e.finish(&done[i])
	}
}

// Stats may be called at any time.
func (e *Events) Stats() EventStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := e.stats
	st.Open = e.joins.len()
	return st
}

// skipped reports whether an event is of a transport that does not count. 4.96 does
// not name it again for the second host, so it is remembered.
func (e *Events) skipped(ev *event, now time.Time) bool {
	key := ev.message + " " + ev.domain
	skip := e.Skip
	if skip == nil {
		skip = notCounted
	}
	switch {
	case ev.transport == "":
		return e.joins.skipping.has(key)
	case slices.Contains(skip, ev.transport):
		e.joins.skipping.add(key, now)
		return true
	}
	e.joins.skipping.drop(key)
	return false
}

// step takes an event into its connection.
func (e *Events) step(ev *event, now time.Time) []ended {
	if !ev.addr.IsValid() || ev.message == "" {
		return nil // no connection was made
	}
	ev.skip = e.skipped(ev, now) || e.Own != nil && e.Own(ev.messageID)
	j := e.joins.find(ev)
	if j != nil {
		j.skip = ev.skip
	}
	switch ev.name {
	case "smtp:ehlo":
		return e.greeted(j, ev, now)
	case "tls:cert":
		e.certificate(e.openJoin(j, ev, now), ev)
	case "dane:fail":
		j := e.openJoin(j, ev, now)
		j.dane, j.daneReason = tlsrpt.Canonical(ev.data)
	case "msg:host:defer":
		return e.deferred(j, ev, now)
	case "msg:delivery":
		return e.delivered(j, ev)
	}
	return nil
}

// greeted: the first reply to EHLO opens a connection, the one under TLS is
// success.
func (e *Events) greeted(j *join, ev *event, now time.Time) []ended {
	if ev.encrypted {
		j = e.openJoin(j, ev, now)
		j.domain, j.host = ev.domain, ev.host
		s := ended{Session: j.session(""), join: j}
		if ev.dane {
			s.Policy = reporting.Policy{Type: tlsrpt.TLSA, Domain: s.MXHost}
		}
		j.judge = !ev.dane
		return e.close(j, s)
	}
	var done []ended
	if j != nil && j.greeted {
		done = e.giveUp(j) // its port is used again, so that connection is gone
		j = nil
	}
	j = e.openJoin(j, ev, now)
	j.greeted = true
	j.offered = offersSTARTTLS(ev.data)
	j.helo = foreign.HELOName(ev.data)
	j.retry = e.joins.failedBefore(ev)
	return done
}

// certificate keeps one element of the chain; its depth is the text of the event.
// OpenSSL builds may show each twice.
func (e *Events) certificate(j *join, ev *event) {
	depth, err := strconv.Atoi(ev.data)
	if err != nil || depth < 0 || depth >= maxChain || len(ev.der) == 0 {
		return
	}
	for len(j.chain) <= depth {
		j.chain = append(j.chain, nil)
	}
	grown := len(ev.der) - len(j.chain[depth])
	if j.bytes+grown > maxChainBytes || e.joins.bytes+grown > maxJoinBytes {
		return
	}
	j.chain[depth] = ev.der
	j.bytes += grown
	e.joins.bytes += grown
}

// refused keeps the certificate that an OpenSSL build has refused: that element of the
// chain had no event of its own. If it is that of an authority in the middle, nothing is
// known of the host's.
func (e *Events) refused(j *join, ev *event) {
	if len(j.chain) > 0 && len(j.chain[0]) > 0 || len(ev.der) == 0 {
		return
	}
	c, err := x509.ParseCertificate(ev.der)
	if err != nil || c.IsCA && !bytes.Equal(c.RawIssuer, c.RawSubject) {
		return
	}
	e.certificate(j, &event{data: "0", der: ev.der})
}

// deferred: Exim gives up this host for now.
func (e *Events) deferred(j *join, ev *event, now time.Time) []ended {
	said := foreign.Printable(ev.data, maxEventData)
	why := deferReason(ev.errno, said)
	if j == nil && (why == otherTrouble || why == inClear) {
		return nil // no connection was made, or none that we know
	}
	j = e.openJoin(j, ev, now)
	j.domain, j.host = ev.domain, ev.host
	s := ended{Session: j.session(""), join: j, said: said}
	if j.dane != "" || why == daneLookupFailed {
		s.Policy = reporting.Policy{Type: tlsrpt.TLSA, Domain: s.MXHost}
	}
	switch {
	case why == notStarted:
		s.Result = tlsrpt.StartTLSNotSupported
		if j.offered {
			s.Reason = refusedReason(said)
		}
	case j.dane != "":
		s.Result, s.Reason = j.dane, j.daneReason
	case why == daneLookupFailed:
		s.Result = tlsrpt.DNSSECInvalid
	case why == handshakeFailed:
		s.Result = tlsrpt.ValidationFailure
		e.refused(j, ev)
		if !verificationFailed(said) {
			e.joins.noteFailure(ev, now)
		}
	case why == inClear:
		return e.clear(j)
	default:
		return e.giveUp(j) // the network, or a reply to something else
	}
	return e.close(j, s)
}

// delivered: a recipient was accepted.
func (e *Events) delivered(j *join, ev *event) []ended {
	if j == nil || ev.encrypted {
		return nil // counted already: another recipient, or a connection that was kept open
	}
	j.domain, j.host = ev.domain, ev.host
	return e.clear(j)
}

// clear is the end of a connection that did not use TLS.
func (e *Events) clear(j *join) []ended {
	switch {
	case j.retry, !j.greeted:
		e.joins.remove(j)
		return nil
	case j.dane != "":
		return e.giveUp(j)
	}
	s := ended{Session: j.session(tlsrpt.StartTLSNotSupported), join: j}
	if j.offered {
		s.Reason = "STARTTLS was offered, but refused"
	}
	return e.close(j, s)
}

// giveUp says what can be said of a connection of which nothing more will be heard.
func (e *Events) giveUp(j *join) []ended {
	switch {
	case j.dane != "":
		s := ended{Session: j.session(j.dane), join: j}
		s.Reason = j.daneReason
		s.Policy = reporting.Policy{Type: tlsrpt.TLSA, Domain: s.MXHost}
		return e.close(j, s)
	case j.greeted && !j.offered && !j.retry:
		return e.close(j, ended{Session: j.session(tlsrpt.StartTLSNotSupported), join: j})
	}
	if !j.skip && !j.retry {
		e.stats.Dropped++
	}
	e.joins.remove(j)
	return nil
}

// close takes a connection out; it is a session if its domain is one and its transport
// counts.
func (e *Events) close(j *join, s ended) []ended {
	e.joins.remove(j)
	if j.skip {
		return nil
	}
	if s.Domain == "" {
		e.stats.Dropped++
		return nil
	}
	return []ended{s}
}

func (e *Events) expire(before time.Time) []ended {
	var done []ended
	for j := e.joins.oldest(); j != nil && j.started.Before(before); j = e.joins.oldest() {
		done = append(done, e.giveUp(j)...)
	}
	e.joins.forget(before)
	return done
}

// openJoin returns j, or a new connection; the oldest makes room.
func (e *Events) openJoin(j *join, ev *event, now time.Time) *join {
	if j != nil {
		return j
	}
	if e.joins.len() >= maxJoins {
		e.stats.Dropped++
		e.joins.remove(e.joins.oldest())
	}
	return e.joins.open(ev, now)
}

// finish finds the true type of a failure, and emits.
func (e *Events) finish(s *ended) {
	j := s.join
	switch {
	case s.Result == "" && e.Verdict != nil && j.judge && len(j.chain) > 0:
		result, reason := verifyChain(j.chain, s.MXHost, e.Roots, s.Time)
		e.Verdict(s.MXHost, s.Time, result, reason)
	case s.Result == tlsrpt.ValidationFailure && s.Policy.Type == tlsrpt.TLSA:
		s.Result, s.Reason = daneFailure(s.said, j, s.Time)
	case s.Result == tlsrpt.ValidationFailure:
		s.Result, s.Reason = e.handshakeFailure(s.said, j, s.Time)
	}
	e.Emit(s.Session)
}

// handshakeFailure: only where Exim says that it was the certificate, what is wrong
// with that matters: the handshake may have failed behind it.
func (e *Events) handshakeFailure(said string, j *join, now time.Time) (tlsrpt.ResultType, string) {
	reason := foreign.Reason(strings.TrimPrefix(said, "TLS session: "))
	if !verificationFailed(said) || len(j.chain) == 0 {
		return tlsrpt.ValidationFailure, reason
	}
	host, _ := foreign.DomainName(j.host)
	result, why := verifyChain(j.chain, host, e.Roots, now)
	if result == "" {
		// Exim trusts other CAs than we do.
		return tlsrpt.CertificateNotTrusted, reason
	}
	return result, why
}

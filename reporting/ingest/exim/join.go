package exim

import (
	"net/netip"
	"strings"
	"time"

	"postseal/reporting"
	"postseal/reporting/ingest/foreign"
	"postseal/reporting/tlsrpt"
)

// join is one connection of Exim to one host, of which events are still expected.
type join struct {
	message string
	addr    netip.Addr
	local   netip.Addr
	port    uint16

	domain, host string
	helo         string
	greeted      bool // the first reply to EHLO is there
	offered      bool // and has STARTTLS
	retry        bool // in clear after a handshake that failed
	skip         bool // its transport, or its message, does not count
	judge        bool // TLS was not required to be verified
	chain        [][]byte
	bytes        int
	dane         tlsrpt.ResultType
	daneReason   string
	started      time.Time

	older, newer *join
}

func (j *join) session(result tlsrpt.ResultType) reporting.Session {
	s := reporting.Session{Time: j.started, SendingIP: j.local, MXIP: j.addr, MXHelo: j.helo, Result: result}
	s.Domain, _ = foreign.DomainName(j.domain)
	s.MXHost, _ = foreign.DomainName(j.host)
	return s
}

// hop is a message on its way to a host.
type hop struct {
	message string
	addr    netip.Addr
}

// joinTable holds the open connections by message and host, and in order of their
// age. Beside them it remembers two things for a while: where TLS has just
// failed, and which messages go out by transports that do not count.
type joinTable struct {
	byHop        map[hop][]*join
	count, bytes int
	first, last  *join
	failures     memory
	skipping     memory
}

func (t *joinTable) len() int { return t.count }

func (t *joinTable) oldest() *join { return t.first }

// find returns the connection of an event: that with its local port, and the latest
// to the same host where a port is not known.
func (t *joinTable) find(ev *event) *join {
	list := t.byHop[hop{ev.message, ev.addr}]
	for i := len(list) - 1; i >= 0; i-- {
		if j := list[i]; j.port == ev.port || j.port == 0 || ev.port == 0 {
			return j
		}
	}
	return nil
}

func (t *joinTable) open(ev *event, now time.Time) *join {
	j := &join{
		message: ev.message, addr: ev.addr, local: ev.local, port: ev.port,
		domain: ev.domain, host: ev.host, skip: ev.skip, started: now, older: t.last,
	}
	if t.last != nil {
		t.last.newer = j
	} else {
		t.first = j
	}
	t.last = j
	if t.byHop == nil {
		t.byHop = map[hop][]*join{}
	}
	h := hop{ev.message, ev.addr}
	t.byHop[h] = append(t.byHop[h], j)
	t.count++
	return j
}

func (t *joinTable) remove(j *join) {
	if j.older != nil {
		j.older.newer = j.newer
	} else {
		t.first = j.newer
	}
	if j.newer != nil {
		j.newer.older = j.older
	} else {
		t.last = j.older
	}
	h := hop{j.message, j.addr}
	list := t.byHop[h]
	for i := range list {
		if list[i] == j {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(t.byHop, h)
	} else {
		t.byHop[h] = list
	}
	t.count--
	t.bytes -= j.bytes
}

// noteFailure remembers that the handshake failed: if TLS is not required, Exim comes
// back in clear at once.
func (t *joinTable) noteFailure(ev *event, now time.Time) {
	t.failures.add(failureKey(ev), now)
}

// failedBefore reports, once, whether it has.
func (t *joinTable) failedBefore(ev *event) bool {
	key := failureKey(ev)
	failed := t.failures.has(key)
	t.failures.drop(key)
	return failed
}

func failureKey(ev *event) string {
	return ev.message + " " + ev.addr.String() + " " + ev.domain
}

func (t *joinTable) forget(before time.Time) {
	t.failures.forget(before)
	t.skipping.forget(before)
}

// memory is a bounded set of what happened lately.
type memory struct {
	at    map[string]time.Time
	order []string // oldest first; what was dropped is still in it
}

func (m *memory) add(key string, now time.Time) {
	if m.at == nil {
		m.at = map[string]time.Time{}
	}
	if len(m.order) >= maxJoins {
		m.drop(m.order[0])
		m.order = m.order[1:]
	}
	if _, known := m.at[key]; !known {
		m.order = append(m.order, key)
	}
	m.at[key] = now
}

func (m *memory) has(key string) bool {
	_, ok := m.at[key]
	return ok
}

func (m *memory) drop(key string) { delete(m.at, key) }

func (m *memory) forget(before time.Time) {
	for len(m.order) > 0 {
		key := m.order[0]
		if at, ok := m.at[key]; ok && !at.Before(before) {
			return
		}
		m.drop(key)
		m.order = m.order[1:]
	}
}

// What msg:host:defer is about.
const (
	otherTrouble = iota
	handshakeFailed
	notStarted
	daneLookupFailed
	inClear
)

// deferReason reads the error number of an event (Exim's macros.h: ERRNO_DNSDEFER
// -36, ERRNO_TLSFAILURE -37, ERRNO_TLSREQUIRED -38), or its text.
func deferReason(errno int, said string) int {
	switch {
	case strings.Contains(said, "after STARTTLS"):
		return notStarted
	case errno == -37, strings.HasPrefix(said, "TLS session:"):
		return handshakeFailed
	case errno == -38, strings.Contains(said, "a TLS session is required"):
		return notStarted
	case errno == -36, strings.HasPrefix(said, "DANE error"):
		return daneLookupFailed
	case strings.Contains(said, "after MAIL FROM"), strings.Contains(said, "after RCPT TO"),
		strings.Contains(said, "after DATA"), strings.Contains(said, "after end of data"), strings.Contains(said, "after pipelined"):
		return inClear
	}
	return otherTrouble
}

// refusedReason keeps the reply to STARTTLS, if there is one.
func refusedReason(said string) string {
	if _, reply, ok := strings.Cut(said, "after STARTTLS: "); ok {
		return foreign.Reason(reply)
	}
	return "STARTTLS was offered, but refused"
}

// verificationFailed reports whether a handshake failed by our own verdict. GnuTLS
// builds say "(certificate verification failed)", OpenSSL "certificate verify failed".
func verificationFailed(said string) bool {
	return strings.Contains(said, "certificate verif")
}

// daneFailure refines "validation-failure", which is all that Exim's event has. With
// usage DANE-EE neither name nor date count (RFC 7672 §3.1.1), and Exim does not say
// which usage it was: but it names the name only after the chain has held, which
// needs DANE-TA. GnuTLS builds then say nothing behind "failed)".
func daneFailure(said string, j *join, now time.Time) (tlsrpt.ResultType, string) {
	reason := foreign.Reason(strings.TrimPrefix(said, "TLS session: "))
	switch {
	case j.daneReason != "":
		return tlsrpt.ValidationFailure, j.daneReason // the event named something else
	case !verificationFailed(said):
		return tlsrpt.ValidationFailure, reason
	}
	if strings.HasSuffix(said, "(certificate verification failed)") && len(j.chain) > 0 {
		host, _ := foreign.DomainName(j.host)
		if leafMismatch(j.chain[0], host) {
			return tlsrpt.CertificateHostMismatch, "certificate is for another host"
		}
	}
	return tlsrpt.CertificateNotTrusted, reason
}

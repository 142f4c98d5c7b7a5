package ingest

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"slices"
	"time"

	"postseal/reporting/tlsrpt"
)

// stateVersion names the layout below, which has no other description. State of
// another version is refused, which loses what was open, not what was counted.
const stateVersion = 1

var errState = errors.New("state of a log reader is damaged or of another version")

func (p *postfix) AppendState(dst []byte) []byte {
	start := len(dst)
	w := stateWriter{append(dst, stateVersion)}
	w.uint(uint64(len(p.open.byKey)))
	for s := p.open.ends.newer; s != &p.open.ends; s = s.newer {
		w.process(s)
	}
	w.uint(uint64(len(p.proxy.notes)))
	for i := range p.proxy.notes {
		w.note(&p.proxy.notes[i])
	}
	return binary.LittleEndian.AppendUint32(w.b, crc32.ChecksumIEEE(w.b[start:]))
}

func (p *postfix) RestoreState(state []byte) error {
	n := len(state) - 4
	if n < 1 || state[0] != stateVersion || binary.LittleEndian.Uint32(state[n:]) != crc32.ChecksumIEEE(state[:n]) {
		return errState
	}
	r := stateReader{b: state[1:n]}
	var open openTable
	open.init()
	for range r.count(maxProcesses) {
		r.process(&open)
	}
	var notes []proxyNote
	for range r.count(maxNotes) {
		notes = append(notes, r.note())
	}
	if r.bad || len(r.b) > 0 {
		return errState
	}
	p.open.take(&open)
	p.proxy.notes = notes
	return nil
}

// take moves the processes of another table in here.
func (o *openTable) take(other *openTable) {
	o.init()
	for s := other.oldest(); s != nil; s = other.oldest() {
		other.remove(s)
		s.size = s.weight()
		o.bytes += s.size
		o.byKey[s.key] = s
		o.link(s)
	}
}

type stateWriter struct{ b []byte }

func (w *stateWriter) uint(n uint64) { w.b = binary.AppendUvarint(w.b, n) }
func (w *stateWriter) text(s string) { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *stateWriter) time(t time.Time) {
	if t.IsZero() {
		w.uint(0)
		return
	}
	w.uint(uint64(t.Unix()) + 1) // stamps are of 1970 to 9999
	w.uint(uint64(t.Nanosecond()))
}

func (w *stateWriter) flags(flags ...bool) {
	var b byte
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	w.b = append(w.b, b)
}

func (w *stateWriter) verdict(v *verdict) {
	w.text(string(v.result))
	w.text(v.reason)
	w.text(string(v.policy))
	w.flags(v.certain)
}

func (w *stateWriter) note(n *proxyNote) {
	w.text(n.logHost)
	w.text(n.relay)
	w.time(n.at)
	w.flags(n.broken)
	w.verdict(&n.verdict)
}

func (w *stateWriter) try(t *smtpTry) {
	w.b = append(w.b, byte(t.kind))
	w.flags(t.reported, t.trusted)
	w.time(t.at)
	for _, s := range []string{t.relay, t.host, t.domain, string(t.policy), t.policyDomain, string(t.result), t.reason, t.owner} {
		w.text(s)
	}
	w.text(string(t.ip.AsSlice()))
	w.verdict(&t.verdict)
}

func (w *stateWriter) process(s *smtpProcess) {
	w.text(s.key)
	w.text(string(s.queueID.text[:s.queueID.n]))
	w.uint(uint64(s.first))
	w.time(s.since)
	w.uint(uint64(len(s.relays)))
	for _, relay := range s.relays {
		w.text(relay)
	}
	w.text(s.cert.relay)
	w.time(s.cert.at)
	w.verdict(&s.cert.verdict)
	w.uint(uint64(len(s.tries)))
	for i := range s.tries {
		w.try(&s.tries[i])
	}
	w.uint(uint64(len(s.reports)))
	for i := range s.reports {
		r := &s.reports[i]
		w.note(&r.proxyNote)
		w.text(r.domain)
		w.flags(r.failed)
	}
}

// stateReader reads what stateWriter wrote. After the first fault everything is zero.
type stateReader struct {
	b   []byte
	bad bool
}

func (r *stateReader) next(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *stateReader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if r.bad || size <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

// count reads a number of things that follow, each of a byte at least.
func (r *stateReader) count(limit int) int {
	n := r.uint()
	if n > uint64(limit) || n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *stateReader) text() string { return string(r.next(r.uint())) }

func (r *stateReader) time() time.Time {
	sec := r.uint()
	if sec == 0 {
		return time.Time{}
	}
	nanos := r.uint()
	if sec > 1<<40 || nanos >= uint64(time.Second) {
		r.bad = true
		return time.Time{}
	}
	return time.Unix(int64(sec)-1, int64(nanos)).UTC()
}

func (r *stateReader) flags() byte {
	if b := r.next(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *stateReader) flag() bool { return r.flags()&1 != 0 }

func (r *stateReader) verdict() verdict {
	return verdict{
		result: tlsrpt.ResultType(r.text()), reason: r.text(),
		policy: tlsrpt.PolicyType(r.text()), certain: r.flag(),
	}
}

func (r *stateReader) note() proxyNote {
	return proxyNote{logHost: r.text(), relay: r.text(), at: r.time(), broken: r.flag(), verdict: r.verdict()}
}

func (r *stateReader) try() smtpTry {
	var t smtpTry
	if b := r.next(1); b != nil {
		t.kind = tryKind(b[0])
	}
	flags := r.flags()
	t.reported, t.trusted = flags&1 != 0, flags&2 != 0
	t.at = r.time()
	t.relay, t.host, t.domain = r.text(), r.text(), r.text()
	t.policy, t.policyDomain = tlsrpt.PolicyType(r.text()), r.text()
	t.result, t.reason, t.owner = tlsrpt.ResultType(r.text()), r.text(), r.text()
	t.ip, _ = netip.AddrFromSlice([]byte(r.text()))
	t.verdict = r.verdict()
	return t
}

func (r *stateReader) process(open *openTable) {
	key := r.text()
	if r.bad || open.byKey[key] != nil {
		r.bad = true
		return
	}
	s := open.get([]byte(key))
	s.queueID.set([]byte(r.text()))
	s.first, s.since = uint32(r.uint()), r.time()
	for range r.count(maxTries) {
		s.relays = append(s.relays, r.text())
	}
	s.cert = pendingVerdict{relay: r.text(), at: r.time(), verdict: r.verdict()}
	for range r.count(maxTries) {
		s.tries = append(s.tries, r.try())
	}
	for range r.count(maxTries) {
		report := tlsReport{proxyNote: r.note(), domain: r.text(), failed: r.flag()}
		s.reports = append(s.reports, report)
	}
	s.tries, s.reports = slices.Clip(s.tries), slices.Clip(s.reports)
}

package ingest

import (
	"net/netip"
	"slices"

	"postseal/reporting/tlsrpt"
)

// postfixStateVersion names the layout below, which has no other description. The one
// before had no messages of our own.
const (
	postfixStateVersion = 2
	postfixStateBefore  = 1
)

func (p *postfix) AppendState(dst []byte) []byte {
	start := len(dst)
	w := stateWriter{append(dst, postfixStateVersion)}
	w.uint(uint64(len(p.open.byKey)))
	for s := p.open.ends.newer; s != &p.open.ends; s = s.newer {
		w.process(s)
	}
	w.uint(uint64(len(p.proxy.notes)))
	for i := range p.proxy.notes {
		w.note(&p.proxy.notes[i])
	}
	w.ownMails(&p.own)
	return w.sealed(start)
}

func (p *postfix) RestoreState(state []byte) error {
	r, err := checkedState(state, postfixStateVersion, postfixStateBefore)
	if err != nil {
		return err
	}
	var open openTable
	open.init()
	for range r.count(maxProcesses) {
		r.process(&open)
	}
	var notes []proxyNote
	for range r.count(maxNotes) {
		notes = append(notes, r.note())
	}
	own := r.ownMails()
	if r.bad || len(r.b) > 0 {
		return errState
	}
	p.open.take(&open)
	p.proxy.notes = notes
	p.own.forget()
	p.own.open.take(own)
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

func (w *stateWriter) verdict(v *verdict) {
	w.text(string(v.result))
	w.text(v.reason)
	w.text(string(v.policy))
	w.bits(v.certain)
}

func (w *stateWriter) note(n *proxyNote) {
	w.text(n.logHost)
	w.text(n.relay)
	w.time(n.at)
	w.bits(n.broken)
	w.verdict(&n.verdict)
}

func (w *stateWriter) try(t *smtpTry) {
	w.b = append(w.b, byte(t.kind))
	w.bits(t.reported, t.trusted)
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
		w.bits(r.failed)
	}
}

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

package ingest

import (
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
	w := newStateWriter(dst, postfixStateVersion)
	w.uint(uint64(len(p.open.byKey)))
	for s := p.open.ends.newer; s != &p.open.ends; s = s.newer {
		s.append(&w)
	}
	w.uint(uint64(len(p.proxy.notes)))
	for i := range p.proxy.notes {
		p.proxy.notes[i].append(&w)
	}
	p.own.append(&w)
	return w.sealed()
}

func (p *postfix) RestoreState(state []byte) error {
	r, err := newStateReader(state, postfixStateVersion, postfixStateBefore)
	if err != nil {
		return err
	}
	var open openTable
	open.init()
	for range r.count(maxProcesses) {
		readProcess(r, &open)
	}
	var notes []proxyNote
	for range r.count(maxNotes) {
		notes = append(notes, readNote(r))
	}
	own := readOwnMails(r)
	if err := r.end(); err != nil {
		return err
	}
	p.open.take(&open)
	p.proxy.notes = notes
	p.own.take(own)
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

func (v *verdict) append(w *stateWriter) {
	w.text(string(v.result))
	w.text(v.reason)
	w.text(string(v.policy))
	w.bits(v.certain)
}

func (n *proxyNote) append(w *stateWriter) {
	w.text(n.logHost)
	w.text(n.relay)
	w.time(n.at)
	w.bits(n.broken)
	n.verdict.append(w)
}

func (t *smtpTry) append(w *stateWriter) {
	w.byte(byte(t.kind))
	w.bits(t.reported, t.trusted)
	w.time(t.at)
	for _, s := range []string{t.relay, t.host, t.domain, string(t.policy), t.policyDomain, string(t.result), t.reason, t.owner} {
		w.text(s)
	}
	w.addr(t.ip)
	t.verdict.append(w)
}

func (s *smtpProcess) append(w *stateWriter) {
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
	s.cert.verdict.append(w)
	w.uint(uint64(len(s.tries)))
	for i := range s.tries {
		s.tries[i].append(w)
	}
	w.uint(uint64(len(s.reports)))
	for i := range s.reports {
		r := &s.reports[i]
		r.proxyNote.append(w)
		w.text(r.domain)
		w.bits(r.failed)
	}
}

func readVerdict(r *stateReader) verdict {
	return verdict{
		result: tlsrpt.ResultType(r.text()), reason: r.text(),
		policy: tlsrpt.PolicyType(r.text()), certain: r.flag(),
	}
}

func readNote(r *stateReader) proxyNote {
	return proxyNote{logHost: r.text(), relay: r.text(), at: r.time(), broken: r.flag(), verdict: readVerdict(r)}
}

func readTry(r *stateReader) smtpTry {
	t := smtpTry{kind: tryKind(r.byte())}
	r.bits(&t.reported, &t.trusted)
	t.at = r.time()
	t.relay, t.host, t.domain = r.text(), r.text(), r.text()
	t.policy, t.policyDomain = tlsrpt.PolicyType(r.text()), r.text()
	t.result, t.reason, t.owner = tlsrpt.ResultType(r.text()), r.text(), r.text()
	t.ip = r.addr()
	t.verdict = readVerdict(r)
	return t
}

func readProcess(r *stateReader, open *openTable) {
	key := r.text()
	if open.byKey[key] != nil {
		r.refuse()
		return
	}
	s := open.get([]byte(key))
	s.queueID.set([]byte(r.text()))
	s.first, s.since = uint32(r.uint()), r.time()
	for range r.count(maxTries) {
		s.relays = append(s.relays, r.text())
	}
	s.cert = pendingVerdict{relay: r.text(), at: r.time(), verdict: readVerdict(r)}
	for range r.count(maxTries) {
		s.tries = append(s.tries, readTry(r))
	}
	for range r.count(maxTries) {
		report := tlsReport{proxyNote: readNote(r), domain: r.text(), failed: r.flag()}
		s.reports = append(s.reports, report)
	}
	s.tries, s.reports = slices.Clip(s.tries), slices.Clip(s.reports)
}

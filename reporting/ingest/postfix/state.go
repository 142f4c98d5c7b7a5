package postfix

import (
	"slices"

	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

// stateVersion names the layout below, which has no other description.
const stateVersion = 3

// AppendState is that of [maillog.Reader].
func (p *Log) AppendState(dst []byte) []byte {
	w := maillog.NewStateWriter(dst, stateVersion)
	w.Uint(uint64(len(p.open.byKey)))
	for s := p.open.ends.newer; s != &p.open.ends; s = s.newer {
		s.append(&w)
	}
	w.Uint(uint64(len(p.proxy.notes)))
	for i := range p.proxy.notes {
		p.proxy.notes[i].append(&w)
	}
	p.own.Append(&w)
	return w.Sealed()
}

// RestoreState is that of [maillog.Reader].
func (p *Log) RestoreState(state []byte) error {
	r, err := maillog.NewStateReader(state, stateVersion)
	if err != nil {
		return err
	}
	var open openTable
	open.init()
	for range r.Count(maxProcesses) {
		readProcess(r, &open)
	}
	var notes []proxyNote
	for range r.Count(maxNotes) {
		notes = append(notes, readNote(r))
	}
	own := maillog.ReadOwnMails(r)
	if err := r.End(); err != nil {
		return err
	}
	p.open.take(&open)
	p.proxy.notes = notes
	p.own.Take(own)
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

func (v *verdict) append(w *maillog.StateWriter) {
	w.Text(string(v.result))
	w.Text(v.reason)
	w.Text(string(v.policy))
	w.Bits(v.certain)
}

func (n *proxyNote) append(w *maillog.StateWriter) {
	w.Text(n.logHost)
	w.Text(n.relay)
	w.Time(n.at)
	w.Bits(n.broken)
	n.verdict.append(w)
}

func (t *smtpTry) append(w *maillog.StateWriter) {
	w.Byte(byte(t.kind))
	w.Bits(t.reported, t.trusted)
	w.Time(t.at)
	for _, s := range []string{t.relay, t.host, t.domain, string(t.policy), t.policyDomain, string(t.result), t.reason, t.owner} {
		w.Text(s)
	}
	w.Addr(t.ip)
	t.verdict.append(w)
}

func (s *smtpProcess) append(w *maillog.StateWriter) {
	w.Text(s.key)
	w.Text(string(s.queueID.text[:s.queueID.n]))
	w.Text(s.domain)
	w.Uint(uint64(s.first))
	w.Time(s.since)
	w.Uint(uint64(len(s.relays)))
	for _, relay := range s.relays {
		w.Text(relay)
	}
	w.Text(s.cert.relay)
	w.Time(s.cert.at)
	s.cert.verdict.append(w)
	w.Uint(uint64(len(s.tries)))
	for i := range s.tries {
		s.tries[i].append(w)
	}
	w.Uint(uint64(len(s.reports)))
	for i := range s.reports {
		r := &s.reports[i]
		r.proxyNote.append(w)
		w.Text(r.domain)
		w.Bits(r.failed)
	}
}

func readVerdict(r *maillog.StateReader) verdict {
	return verdict{
		result: tlsrpt.ResultType(r.Text()), reason: r.Text(),
		policy: tlsrpt.PolicyType(r.Text()), certain: r.Flag(),
	}
}

func readNote(r *maillog.StateReader) proxyNote {
	return proxyNote{logHost: r.Text(), relay: r.Text(), at: r.Time(), broken: r.Flag(), verdict: readVerdict(r)}
}

func readTry(r *maillog.StateReader) smtpTry {
	t := smtpTry{kind: tryKind(r.Byte())}
	r.Bits(&t.reported, &t.trusted)
	t.at = r.Time()
	t.relay, t.host, t.domain = r.Text(), r.Text(), r.Text()
	t.policy, t.policyDomain = tlsrpt.PolicyType(r.Text()), r.Text()
	t.result, t.reason, t.owner = tlsrpt.ResultType(r.Text()), r.Text(), r.Text()
	t.ip = r.Addr()
	t.verdict = readVerdict(r)
	return t
}

func readProcess(r *maillog.StateReader, open *openTable) {
	key := r.Text()
	if open.byKey[key] != nil {
		r.Refuse()
		return
	}
	s := open.get([]byte(key))
	s.queueID.set([]byte(r.Text()))
	s.domain, s.first, s.since = r.Text(), uint32(r.Uint()), r.Time()
	for range r.Count(maxTries) {
		s.relays = append(s.relays, r.Text())
	}
	s.cert = pendingVerdict{relay: r.Text(), at: r.Time(), verdict: readVerdict(r)}
	for range r.Count(maxTries) {
		s.tries = append(s.tries, readTry(r))
	}
	for range r.Count(maxTries) {
		report := tlsReport{proxyNote: readNote(r), domain: r.Text(), failed: r.Flag()}
		s.reports = append(s.reports, report)
	}
	s.tries, s.reports = slices.Clip(s.tries), slices.Clip(s.reports)
}

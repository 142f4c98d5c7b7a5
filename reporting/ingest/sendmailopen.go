package ingest

import (
	"net/netip"
	"slices"
	"time"

	"postseal/reporting/tlsrpt"
)

func (p *sendmailProcess) last() *sendmailTry {
	if len(p.tries) == 0 {
		return nil
	}
	return &p.tries[len(p.tries)-1]
}

// try is the last session with a host, or a broken handshake with one that was not
// named yet.
func (p *sendmailProcess) try(host string) *sendmailTry {
	for i := len(p.tries) - 1; i >= 0; i-- {
		if p.tries[i].host.name == host {
			return &p.tries[i]
		}
	}
	if t := p.last(); t != nil && t.broken && t.host.name == "" {
		return t
	}
	return nil
}

// know keeps the address of a host, the latest that it had.
func (p *sendmailProcess) know(h sendmailHost) {
	p.hosts = slices.DeleteFunc(p.hosts, func(o sendmailHost) bool { return o.name == h.name })
	if len(p.hosts) >= sendmailMaxTries {
		p.hosts = slices.Delete(p.hosts, 0, 1)
	}
	p.hosts = append(p.hosts, h)
}

func (p *sendmailProcess) address(host string) netip.Addr {
	for i := range p.hosts {
		if p.hosts[i].name == host {
			return p.hosts[i].ip
		}
	}
	return netip.Addr{}
}

// weight is about how many bytes a process holds; addresses alone are not worth it.
func (p *sendmailProcess) weight() int {
	if len(p.tries) == 0 && p.current.name == "" && !p.local {
		return 0
	}
	n := 200 + len(p.current.name) + 200*len(p.tries)
	for i := range p.tries {
		t := &p.tries[i]
		n += len(t.host.name) + len(t.detail) + len(t.reason)
	}
	for i := range p.hosts {
		n += 50 + len(p.hosts[i].name)
	}
	return n
}

func (r *sendmailRecent) weight() int {
	n := 0
	for i := range r.hosts {
		n += 80 + len(r.hosts[i].host)
	}
	return n
}

// counted remembers a session.
func (s *sendmail) counted(key []byte, t *sendmailTry, at time.Time) {
	slot := s.recent.get(key, at)
	if len(slot.value.hosts) >= sendmailMaxTries {
		slot.value.hosts = slices.Delete(slot.value.hosts, 0, 1)
	}
	slot.value.hosts = append(slot.value.hosts, sendmailCounted{t.host.name, t.result, at})
	s.recent.settle(slot, func(*sendmailRecent) {})
}

// justCounted reports whether the process has counted a session with a host: of any
// result while its connection may still be open, of a certain one in a moment.
func (s *sendmail) justCounted(key []byte, host string, result tlsrpt.ResultType, at time.Time) bool {
	slot := s.recent.find(key)
	if slot == nil {
		return false
	}
	for _, c := range slot.value.hosts {
		since := at.Sub(c.at).Abs()
		if c.host == host && (result == "" && since < sendmailCached || result != "" && c.result == result && since < sendmailBurst) {
			return true
		}
	}
	return false
}

// sendmailStateVersion names the layout below, and no other reader's. The one before had
// no messages of our own.
const (
	sendmailStateVersion = 0x62
	sendmailStateBefore  = 0x61
)

func (s *sendmail) AppendState(dst []byte) []byte {
	w := newStateWriter(dst, sendmailStateVersion)
	w.uint(uint64(s.open.len()))
	for p := range s.open.all {
		w.text(p.key)
		w.time(p.at)
		p.value.append(&w)
	}
	w.uint(uint64(s.recent.len()))
	for r := range s.recent.all {
		w.text(r.key)
		w.time(r.at)
		w.uint(uint64(len(r.value.hosts)))
		for _, c := range r.value.hosts {
			w.text(c.host)
			w.text(string(c.result))
			w.time(c.at)
		}
	}
	s.own.append(&w)
	return w.sealed()
}

func (s *sendmail) RestoreState(state []byte) error {
	r, err := newStateReader(state, sendmailStateVersion, sendmailStateBefore)
	if err != nil {
		return err
	}
	var fresh sendmail
	fresh.init()
	for range r.count(sendmailMaxProcesses) {
		p := &slot[sendmailProcess]{key: r.text(), at: r.time(), value: readSendmailProcess(r)}
		if fresh.open.has(p.key) {
			r.refuse()
			break
		}
		fresh.open.put(p)
	}
	for range r.count(sendmailMaxProcesses) {
		c := &slot[sendmailRecent]{key: r.text(), at: r.time()}
		for range r.count(sendmailMaxTries) {
			c.value.hosts = append(c.value.hosts, sendmailCounted{host: r.text(), result: tlsrpt.ResultType(r.text()), at: r.time()})
		}
		if fresh.recent.has(c.key) {
			r.refuse()
			break
		}
		fresh.recent.put(c)
	}
	own := readOwnMails(r)
	if err := r.end(); err != nil {
		return err
	}
	s.init()
	s.open.take(&fresh.open)
	s.recent.take(&fresh.recent)
	s.own.take(own)
	return nil
}

func (h sendmailHost) append(w *stateWriter) {
	w.text(h.name)
	w.addr(h.ip)
}

func readSendmailHost(r *stateReader) sendmailHost { return sendmailHost{r.text(), r.addr()} }

func (p *sendmailProcess) append(w *stateWriter) {
	p.current.append(w)
	w.bits(p.local)
	w.uint(uint64(len(p.hosts)))
	for _, h := range p.hosts {
		h.append(w)
	}
	w.uint(uint64(len(p.tries)))
	for i := range p.tries {
		t := &p.tries[i]
		w.time(t.at)
		t.host.append(w)
		w.text(t.detail)
		w.bits(t.broken)
		w.text(string(t.result))
		w.text(t.reason)
		w.text(string(t.policy))
	}
}

func readSendmailProcess(r *stateReader) (p sendmailProcess) {
	p.current = readSendmailHost(r)
	r.bits(&p.local)
	for range r.count(sendmailMaxTries) {
		p.hosts = append(p.hosts, readSendmailHost(r))
	}
	for range r.count(sendmailMaxTries) {
		t := sendmailTry{at: r.time(), host: readSendmailHost(r), detail: r.text()}
		r.bits(&t.broken)
		t.result, t.reason, t.policy = tlsrpt.ResultType(r.text()), r.text(), tlsrpt.PolicyType(r.text())
		p.tries = append(p.tries, t)
	}
	return p
}

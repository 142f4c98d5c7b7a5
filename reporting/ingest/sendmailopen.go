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
	if len(p.hosts) >= maxTries {
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
	if len(slot.value.hosts) >= maxTries {
		slot.value.hosts = slices.Delete(slot.value.hosts, 0, 1)
	}
	slot.value.hosts = append(slot.value.hosts, sendmailCounted{t.host.name, at})
	s.recent.settle(slot, func(*sendmailRecent) {})
}

// justCounted reports whether the process has counted a session with a host whose
// connection may still be open.
func (s *sendmail) justCounted(key []byte, host string, at time.Time) bool {
	slot := s.recent.find(key)
	return slot != nil && slices.ContainsFunc(slot.value.hosts, func(c sendmailCounted) bool {
		return c.host == host && at.Sub(c.at).Abs() < sendmailCached
	})
}

// sendmailStateVersion names the layout below, and no other reader's.
const sendmailStateVersion = 0x63

func (s *sendmail) AppendState(dst []byte) []byte {
	start := len(dst)
	w := stateWriter{append(dst, sendmailStateVersion)}
	w.uint(uint64(len(s.open.byKey)))
	for p := range s.open.all {
		w.text(p.key)
		w.time(p.at)
		w.sendmailProcess(&p.value)
	}
	w.uint(uint64(len(s.recent.byKey)))
	for r := range s.recent.all {
		w.text(r.key)
		w.time(r.at)
		w.uint(uint64(len(r.value.hosts)))
		for _, c := range r.value.hosts {
			w.text(c.host)
			w.time(c.at)
		}
	}
	w.ownMails(&s.own)
	return w.sealed(start)
}

func (s *sendmail) RestoreState(state []byte) error {
	r, err := checkedState(state, sendmailStateVersion, 0)
	if err != nil {
		return err
	}
	var fresh sendmail
	fresh.init()
	for range r.count(maxProcesses) {
		p := &slot[sendmailProcess]{key: r.text(), at: r.time(), value: r.sendmailProcess()}
		if fresh.open.byKey[p.key] != nil {
			return errState
		}
		fresh.open.put(p)
	}
	for range r.count(maxProcesses) {
		c := &slot[sendmailRecent]{key: r.text(), at: r.time()}
		for range r.count(maxTries) {
			c.value.hosts = append(c.value.hosts, sendmailCounted{host: r.text(), at: r.time()})
		}
		if fresh.recent.byKey[c.key] != nil {
			return errState
		}
		fresh.recent.put(c)
	}
	own := r.ownMails()
	if r.bad || len(r.b) > 0 {
		return errState
	}
	s.init()
	s.open.take(&fresh.open)
	s.recent.take(&fresh.recent)
	s.own.open.take(own)
	return nil
}

func (w *stateWriter) sendmailHost(h sendmailHost) {
	w.text(h.name)
	w.addr(h.ip)
}

func (r *stateReader) sendmailHost() sendmailHost { return sendmailHost{r.text(), r.addr()} }

func (w *stateWriter) sendmailProcess(p *sendmailProcess) {
	w.sendmailHost(p.current)
	w.bits(p.local)
	w.uint(uint64(len(p.hosts)))
	for _, h := range p.hosts {
		w.sendmailHost(h)
	}
	w.uint(uint64(len(p.tries)))
	for i := range p.tries {
		t := &p.tries[i]
		w.time(t.at)
		w.sendmailHost(t.host)
		w.text(t.detail)
		w.bits(t.broken)
		w.text(string(t.result))
		w.text(t.reason)
		w.text(string(t.policy))
	}
}

func (r *stateReader) sendmailProcess() (p sendmailProcess) {
	p.current = r.sendmailHost()
	r.bits(&p.local)
	for range r.count(maxTries) {
		p.hosts = append(p.hosts, r.sendmailHost())
	}
	for range r.count(maxTries) {
		t := sendmailTry{at: r.time(), host: r.sendmailHost(), detail: r.text()}
		r.bits(&t.broken)
		t.result, t.reason, t.policy = tlsrpt.ResultType(r.text()), r.text(), tlsrpt.PolicyType(r.text())
		p.tries = append(p.tries, t)
	}
	return p
}

package sendmail

import (
	"net/netip"
	"slices"
	"time"

	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

func (p *process) last() *try {
	if len(p.tries) == 0 {
		return nil
	}
	return &p.tries[len(p.tries)-1]
}

// try is the last session with a host, or a broken handshake with one that was not
// named yet.
func (p *process) try(host string) *try {
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
func (p *process) know(h mxHost) {
	p.hosts = slices.DeleteFunc(p.hosts, func(o mxHost) bool { return o.name == h.name })
	if len(p.hosts) >= maxTries {
		p.hosts = slices.Delete(p.hosts, 0, 1)
	}
	p.hosts = append(p.hosts, h)
}

func (p *process) address(host string) netip.Addr {
	for i := range p.hosts {
		if p.hosts[i].name == host {
			return p.hosts[i].ip
		}
	}
	return netip.Addr{}
}

// weight is about how many bytes a process holds; addresses alone are not worth it.
func (p *process) weight() int {
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

func (r *recent) weight() int {
	n := 0
	for i := range r.hosts {
		n += 80 + len(r.hosts[i].host)
	}
	return n
}

// counted remembers a session.
func (s *Log) counted(key []byte, t *try, at time.Time) {
	slot := s.recent.Get(key, at)
	if len(slot.Value.hosts) >= maxTries {
		slot.Value.hosts = slices.Delete(slot.Value.hosts, 0, 1)
	}
	slot.Value.hosts = append(slot.Value.hosts, counted{t.host.name, at})
	s.recent.Settle(slot, func(*recent) {})
}

// justCounted reports whether the process has counted a session with a host whose
// connection may still be open.
func (s *Log) justCounted(key []byte, host string, at time.Time) bool {
	slot := s.recent.Find(key)
	return slot != nil && slices.ContainsFunc(slot.Value.hosts, func(c counted) bool {
		return c.host == host && at.Sub(c.at).Abs() < maxCached
	})
}

// stateVersion names the layout below, and no other reader's.
const stateVersion = 0x63

// AppendState is that of [maillog.Reader].
func (s *Log) AppendState(dst []byte) []byte {
	w := maillog.NewStateWriter(dst, stateVersion)
	w.Uint(uint64(s.open.Len()))
	for p := range s.open.All {
		w.Text(p.Key)
		w.Time(p.At)
		p.Value.append(&w)
	}
	w.Uint(uint64(s.recent.Len()))
	for r := range s.recent.All {
		w.Text(r.Key)
		w.Time(r.At)
		w.Uint(uint64(len(r.Value.hosts)))
		for _, c := range r.Value.hosts {
			w.Text(c.host)
			w.Time(c.at)
		}
	}
	s.own.Append(&w)
	return w.Sealed()
}

// RestoreState is that of [maillog.Reader].
func (s *Log) RestoreState(state []byte) error {
	r, err := maillog.NewStateReader(state, stateVersion)
	if err != nil {
		return err
	}
	var fresh Log
	fresh.init()
	for range r.Count(maxProcesses) {
		p := &maillog.Slot[process]{Key: r.Text(), At: r.Time(), Value: readProcess(r)}
		if fresh.open.Has(p.Key) {
			r.Refuse()
			break
		}
		fresh.open.Put(p)
	}
	for range r.Count(maxProcesses) {
		c := &maillog.Slot[recent]{Key: r.Text(), At: r.Time()}
		for range r.Count(maxTries) {
			c.Value.hosts = append(c.Value.hosts, counted{host: r.Text(), at: r.Time()})
		}
		if fresh.recent.Has(c.Key) {
			r.Refuse()
			break
		}
		fresh.recent.Put(c)
	}
	own := maillog.ReadOwnMails(r)
	if err := r.End(); err != nil {
		return err
	}
	s.init()
	s.open.Take(&fresh.open)
	s.recent.Take(&fresh.recent)
	s.own.Take(own)
	return nil
}

func (h mxHost) append(w *maillog.StateWriter) {
	w.Text(h.name)
	w.Addr(h.ip)
}

func readHost(r *maillog.StateReader) mxHost { return mxHost{r.Text(), r.Addr()} }

func (p *process) append(w *maillog.StateWriter) {
	p.current.append(w)
	w.Bits(p.local)
	w.Uint(uint64(len(p.hosts)))
	for _, h := range p.hosts {
		h.append(w)
	}
	w.Uint(uint64(len(p.tries)))
	for i := range p.tries {
		t := &p.tries[i]
		w.Time(t.at)
		t.host.append(w)
		w.Text(t.detail)
		w.Bits(t.broken)
		w.Text(string(t.result))
		w.Text(t.reason)
		w.Text(string(t.policy))
	}
}

func readProcess(r *maillog.StateReader) (p process) {
	p.current = readHost(r)
	r.Bits(&p.local)
	for range r.Count(maxTries) {
		p.hosts = append(p.hosts, readHost(r))
	}
	for range r.Count(maxTries) {
		t := try{at: r.Time(), host: readHost(r), detail: r.Text()}
		r.Bits(&t.broken)
		t.result, t.reason, t.policy = tlsrpt.ResultType(r.Text()), r.Text(), tlsrpt.PolicyType(r.Text())
		p.tries = append(p.tries, t)
	}
	return p
}

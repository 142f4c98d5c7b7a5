package exim

import (
	"net/netip"
	"slices"
	"time"

	"postseal/reporting/ingest/maillog"
	"postseal/reporting/tlsrpt"
)

const (
	// maxMessages that are under way at a time; queue_run_max is 5, and a large host
	// has some hundred deliveries.
	maxMessages = 16384

	// maxMessageBytes bounds what all of them hold.
	maxMessageBytes = 32 << 20

	// maxPerMessage bounds its hosts, domains and connections: hosts_max_try is 5, and
	// a message has rarely more than some recipients' domains.
	maxPerMessage = 64
)

// try is a session that waits for its domain, or is about to be emitted.
type try struct {
	at     time.Time
	host   mxHost
	local  netip.Addr
	result tlsrpt.ResultType
	reason string
	dane   bool
	sts    bool
}

// connection is one that has been counted; further recipients repeat it.
type connection struct {
	ip     netip.Addr
	port   int // our own; 0: not logged
	domain string
	failed bool
	at     time.Time
}

// note is what an OpenSSL build said of a certificate, which matters only if it was
// required.
type note struct {
	ip     netip.Addr
	detail string
	at     time.Time
}

// message is what has been logged of a message under way.
type message struct {
	tries   []try
	domains []string // that were tried since
	counted []connection
	notes   []note
}

func (m *message) add(t try) {
	if len(m.tries) < maxPerMessage {
		m.tries = append(m.tries, t)
	}
}

// note keeps the first word about a certificate: what follows is a consequence
// ("unable to verify the first certificate").
func (m *message) note(ip netip.Addr, detail string, at time.Time) {
	for i := range m.notes {
		if n := &m.notes[i]; n.ip == ip {
			if at.Sub(n.at) > minRetry {
				n.detail, n.at = detail, at
			}
			return
		}
	}
	if len(m.notes) < maxPerMessage {
		m.notes = append(m.notes, note{ip, detail, at})
	}
}

func (m *message) detail(ip netip.Addr, at time.Time) string {
	for i := range m.notes {
		if n := &m.notes[i]; n.ip == ip && at.Sub(n.at) <= maxWait {
			return n.detail
		}
	}
	return ""
}

// forgive forgets what was said of a certificate: it was not required.
func (m *message) forgive(ip netip.Addr) {
	m.notes = slices.DeleteFunc(m.notes, func(n note) bool { return n.ip == ip })
}

// candidate keeps a domain that a waiting failure may belong to.
func (m *message) candidate(domain string) {
	if len(m.tries) > 0 && len(m.domains) < maxPerMessage && !slices.Contains(m.domains, domain) {
		m.domains = append(m.domains, domain)
	}
}

// take removes the oldest failure at that host.
func (m *message) take(h *mxHost) (t try, ok bool) {
	for i := range m.tries {
		if m.tries[i].host.same(h) {
			t = m.tries[i]
			m.tries = slices.Delete(m.tries, i, i+1)
			if len(m.tries) == 0 {
				m.domains = nil
			}
			return t, true
		}
	}
	return t, false
}

// count reports whether a connection is a new one, and remembers it.
func (m *message) count(c connection) bool {
	for i := range m.counted {
		o := &m.counted[i]
		same := c.ip == o.ip && c.failed == o.failed
		if c.port != 0 && o.port != 0 {
			same = same && c.port == o.port
		} else {
			same = same && c.domain == o.domain && c.at.Sub(o.at).Abs() < minRetry
		}
		if same {
			return false
		}
	}
	if len(m.counted) >= maxPerMessage {
		m.counted = slices.Delete(m.counted, 0, 1)
	}
	m.counted = append(m.counted, c)
	return true
}

// weight is about how many bytes a message holds.
func (m *message) weight() int {
	if len(m.tries)+len(m.counted)+len(m.notes) == 0 {
		return 0
	}
	n := 200 + 180*len(m.tries) + 100*len(m.counted) + 80*len(m.notes)
	for i := range m.tries {
		n += len(m.tries[i].host.name) + len(m.tries[i].reason)
	}
	for i := range m.counted {
		n += len(m.counted[i].domain)
	}
	for _, d := range m.domains {
		n += 16 + len(d)
	}
	for i := range m.notes {
		n += len(m.notes[i].detail)
	}
	return n
}

// stateVersion names the layout below, and no other reader's.
const stateVersion = 0x42

// AppendState is that of [maillog.Reader].
func (x *Log) AppendState(dst []byte) []byte {
	w := maillog.NewStateWriter(dst, stateVersion)
	w.Uint(uint64(x.open.Len()))
	for m := range x.open.All {
		w.Text(m.Key)
		w.Time(m.At)
		m.Value.append(&w)
	}
	x.own.Append(&w)
	return w.Sealed()
}

// RestoreState is that of [maillog.Reader].
func (x *Log) RestoreState(state []byte) error {
	r, err := maillog.NewStateReader(state, stateVersion)
	if err != nil {
		return err
	}
	var fresh Log
	fresh.init()
	for range r.Count(maxMessages) {
		m := &maillog.Slot[message]{Key: r.Text(), At: r.Time(), Value: readMessage(r)}
		if fresh.open.Has(m.Key) {
			r.Refuse()
			break
		}
		fresh.open.Put(m)
	}
	own := maillog.ReadOwnMails(r)
	if err := r.End(); err != nil {
		return err
	}
	x.init()
	x.open.Take(&fresh.open)
	x.own.Take(own)
	return nil
}

func (m *message) append(w *maillog.StateWriter) {
	w.Uint(uint64(len(m.tries)))
	for i := range m.tries {
		t := &m.tries[i]
		w.Time(t.at)
		w.Text(t.host.name)
		w.Addr(t.host.ip)
		w.Addr(t.local)
		w.Text(string(t.result))
		w.Text(t.reason)
		w.Bits(t.dane, t.sts, t.host.reused)
	}
	w.Uint(uint64(len(m.domains)))
	for _, d := range m.domains {
		w.Text(d)
	}
	w.Uint(uint64(len(m.counted)))
	for i := range m.counted {
		c := &m.counted[i]
		w.Addr(c.ip)
		w.Uint(uint64(c.port))
		w.Text(c.domain)
		w.Bits(c.failed)
		w.Time(c.at)
	}
	w.Uint(uint64(len(m.notes)))
	for i := range m.notes {
		w.Addr(m.notes[i].ip)
		w.Text(m.notes[i].detail)
		w.Time(m.notes[i].at)
	}
}

func readMessage(r *maillog.StateReader) (m message) {
	for range r.Count(maxPerMessage) {
		t := try{at: r.Time()}
		t.host.name, t.host.ip, t.local = r.Text(), r.Addr(), r.Addr()
		t.result, t.reason = tlsrpt.ResultType(r.Text()), r.Text()
		r.Bits(&t.dane, &t.sts, &t.host.reused)
		m.tries = append(m.tries, t)
	}
	for range r.Count(maxPerMessage) {
		m.domains = append(m.domains, r.Text())
	}
	for range r.Count(maxPerMessage) {
		c := connection{ip: r.Addr(), port: int(r.Uint()), domain: r.Text()}
		r.Bits(&c.failed)
		c.at = r.Time()
		m.counted = append(m.counted, c)
	}
	for range r.Count(maxPerMessage) {
		m.notes = append(m.notes, note{ip: r.Addr(), detail: r.Text(), at: r.Time()})
	}
	return m
}

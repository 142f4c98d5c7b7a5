package postfix

import (
	"hash/crc32"
	"net/netip"
	"time"

	"postseal/reporting/ingest/foreign"
	"postseal/reporting/tlsrpt"
)

const (
	// maxProcesses: default_process_limit is 100, large sites have some thousand
	// clients, and a log may be that of several hosts.
	maxProcesses = 16384

	// maxOpenBytes bounds what all of them hold.
	maxOpenBytes = 32 << 20

	// maxTries bounds the hosts of one delivery: smtp_mx_address_limit is 5, and whoever
	// sets it to 0 has as many as DNS answers.
	maxTries = 64

	// maxPause is between the recipients of one delivery, which are logged together. The
	// next attempt is minimal_backoff_time, 300 s, away, if nobody forces it.
	maxPause = time.Minute

	// maxAge is daemon_timeout: by then master(8) has ended a process that hangs.
	maxAge = 5 * time.Hour
)

type tryKind byte

const (
	tryEstablished tryKind = iota // the handshake was completed
	tryBroken                     // it was not
	tryRefused                    // there is no STARTTLS
	tryForbidden                  // the host was not asked
)

// mxHost is the host of a session.
type mxHost struct {
	relay string // "H[IP]" as it was logged; "" if it was not contacted
	host  string
	ip    netip.Addr
}

// smtpTry is one session, or what stands for one, that waits for its domain.
type smtpTry struct {
	kind     tryKind
	trusted  bool // the chain of certificates was good
	reported bool // a TLSRPT line was joined
	at       time.Time
	mxHost
	domain       string // if it is known before the recipient
	policy       tlsrpt.PolicyType
	policyDomain string
	verdict      verdict // of the certificate, in case that it matters
	result       tlsrpt.ResultType
	reason       string
	owner        string // queue id of a line that followed
}

func refusedTry(h mxHost, reason string, at time.Time) *smtpTry {
	t := &smtpTry{kind: tryRefused, mxHost: h, at: at}
	t.fail(verdict{result: tlsrpt.StartTLSNotSupported, reason: reason})
	return t
}

func (t *smtpTry) failed() bool { return t.result != "" }

func (t *smtpTry) fail(v verdict) {
	t.result, t.reason = v.result, v.reason
	if v.policy != "" {
		t.policy = v.policy
	}
}

// library adds what OpenSSL said, if nothing was said yet.
func (t *smtpTry) library(text []byte) {
	if why := libraryReason(text); why != "" && t.reason == "tls-handshake-failure" {
		t.reason = (t.reason + ": " + why)[:min(len(t.reason)+2+len(why), foreign.MaxReason)]
	}
}

// pendingVerdict is a refused certificate whose session was not logged yet.
type pendingVerdict struct {
	relay   string
	at      time.Time
	verdict verdict
}

// smtpProcess is what one smtp(8) process has logged of the delivery in hand.
type smtpProcess struct {
	key          string
	newer, older *smtpProcess
	size         int

	tries   []smtpTry
	reports []tlsReport
	cert    pendingVerdict

	// Of the delivery that has been counted: lines of further recipients repeat
	// what the first one said.
	queueID shortID
	domain  string // of its recipients
	first   uint32 // checksum of the first one, with whom a new attempt begins
	since   time.Time
	relays  []string
}

// shortID is a queue id without the cost of a string for each.
type shortID struct {
	n    uint8
	text [maxQueueID]byte
}

func (m *shortID) set(id []byte)     { m.n = uint8(copy(m.text[:], id)) }
func (m *shortID) is(id []byte) bool { return string(m.text[:m.n]) == string(id) }

func (s *smtpProcess) last() *smtpTry {
	if len(s.tries) == 0 {
		return nil
	}
	return &s.tries[len(s.tries)-1]
}

// lastUp is the last session with that host that has not failed; with any host, if it is
// not named, but then nothing may have been said since.
func (s *smtpProcess) lastUp(relay []byte) *smtpTry {
	if relay == nil {
		if t := s.last(); t != nil && t.kind == tryEstablished && !t.failed() && t.owner == "" {
			return t
		}
		return nil
	}
	for i := len(s.tries) - 1; i >= 0; i-- {
		if t := &s.tries[i]; t.kind == tryEstablished && !t.failed() && string(relay) == t.relay {
			return t
		}
	}
	return nil
}

func (s *smtpProcess) unreported(relay string) *smtpTry {
	for i := range s.tries {
		if t := &s.tries[i]; t.relay == relay && !t.reported {
			return t
		}
	}
	return nil
}

// claim marks what has been tried so far as that of a message.
func (s *smtpProcess) claim(id []byte) {
	owner := ""
	for i := range s.tries {
		if t := &s.tries[i]; t.owner == "" {
			if owner == "" {
				owner = string(id)
			}
			t.owner = owner
		}
	}
}

// begin tells a further recipient of a delivery from the first of the next one, which may
// be of the same message, for another domain, and go to the same host.
func (s *smtpProcess) begin(id, recipient []byte, domain string, at time.Time) {
	sum := crc32.Checksum(recipient, castagnoli)
	further := s.queueID.is(id) && s.domain == domain && sum != s.first && at.Sub(s.since).Abs() < maxPause
	s.since = at
	if further {
		return
	}
	s.queueID.set(id)
	clear(s.relays)
	s.domain, s.first, s.relays = domain, sum, s.relays[:0]
}

// castagnoli has instructions of its own on most processors.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// dropStrangers removes what cannot belong to this delivery: lines got lost, or the
// process id is that of another process now. Before Postfix turns to another host
// it says why, with the queue id.
func (s *smtpProcess) dropStrangers(id, relay []byte, now time.Time) (dropped int) {
	kept := 0
	for i := range s.tries {
		t := &s.tries[i]
		if t.owner != "" && t.owner != string(id) || old(t.at, now) ||
			t.owner == "" && t.kind == tryEstablished && t.relay != string(relay) {
			continue
		}
		if kept != i {
			s.tries[kept] = *t
		}
		kept++
	}
	dropped = len(s.tries) - kept
	clear(s.tries[kept:])
	s.tries = s.tries[:kept]
	return dropped
}

// count remembers a host of the delivery as counted.
func (s *smtpProcess) count(relay string) {
	if relay != "" && len(s.relays) < maxTries {
		s.relays = append(s.relays, relay)
	}
}

// knows reports whether the delivery has a session with that host already.
func (s *smtpProcess) knows(relay []byte) bool {
	for i := range s.tries {
		if s.tries[i].relay == string(relay) {
			return true
		}
	}
	return s.counted(relay)
}

func (s *smtpProcess) counted(relay []byte) bool {
	for _, r := range s.relays {
		if r == string(relay) {
			return true
		}
	}
	return false
}

func (s *smtpProcess) clear() {
	clear(s.tries)
	s.tries, s.reports, s.cert = s.tries[:0], s.reports[:0], pendingVerdict{}
}

// weight is about how many bytes the process holds.
func (s *smtpProcess) weight() int {
	n := 400 + len(s.key) + 80*cap(s.relays) + len(s.cert.relay) + len(s.cert.verdict.reason)
	n += 320*cap(s.tries) + 160*cap(s.reports)
	for i := range s.tries {
		t := &s.tries[i]
		n += len(t.relay) + len(t.domain) + len(t.policyDomain) + len(t.verdict.reason) + len(t.reason) + len(t.owner)
	}
	for i := range s.reports {
		r := &s.reports[i]
		n += len(r.relay) + len(r.domain) + len(r.verdict.reason)
	}
	return n
}

// add puts a session to a delivery.
func (p *Log) add(process *smtpProcess, t *smtpTry) {
	if last := process.last(); last != nil && last.kind == tryEstablished && !last.failed() && last.owner == "" {
		// No word of why Postfix left that host: the end of its delivery got lost.
		process.tries = process.tries[:len(process.tries)-1]
		p.stats.Dropped++
	}
	if t.kind == tryForbidden {
		// Said once for each address of the host; there was no connection.
		for i := range process.tries {
			if o := &process.tries[i]; o.kind == tryForbidden && o.host == t.host && o.result == t.result {
				return
			}
		}
	}
	if len(process.tries) >= maxTries {
		p.stats.Dropped++
		return
	}
	process.tries = append(process.tries, *t)
	p.settle(process)
}

// settle accounts for a process that has changed, and keeps the bounds.
func (p *Log) settle(process *smtpProcess) {
	w := process.weight()
	p.open.bytes += w - process.size
	process.size = w
	p.open.touch(process)
	for p.open.bytes > maxOpenBytes || len(p.open.byKey) > maxProcesses {
		oldest := p.open.oldest()
		p.stats.Dropped += uint64(len(oldest.tries))
		p.open.remove(oldest)
	}
}

// expire forgets, oldest first, processes of which nothing more is to come: those that
// are not waiting only remember what further recipients would repeat.
// One that waits holds up no other.
func (p *Log) expire(now time.Time) {
	for s := p.open.oldest(); s != nil; {
		last, waiting := s.heard()
		if now.Sub(last) < maxPause {
			return
		}
		next := p.open.next(s)
		if !waiting || now.Sub(last) >= maxAge {
			p.stats.Dropped += uint64(len(s.tries))
			p.open.remove(s)
		}
		s = next
	}
}

// heard is when the process logged something last, and whether more must follow.
func (s *smtpProcess) heard() (last time.Time, waiting bool) {
	last = s.since
	if t := s.last(); t != nil {
		last, waiting = t.at, true
	}
	if n := len(s.reports); n > 0 {
		last, waiting = s.reports[n-1].at, true
	}
	if s.cert.relay != "" {
		last, waiting = s.cert.at, true
	}
	return last, waiting
}

// openTable holds the processes by key and by age.
type openTable struct {
	byKey map[string]*smtpProcess
	ends  smtpProcess // a ring: newer is the oldest, older the newest
	bytes int
}

func (o *openTable) init() {
	o.byKey = make(map[string]*smtpProcess)
	o.ends.newer, o.ends.older = &o.ends, &o.ends
	o.bytes = 0
}

func (o *openTable) find(key []byte) *smtpProcess { return o.byKey[string(key)] }

func (o *openTable) get(key []byte) *smtpProcess {
	if s := o.byKey[string(key)]; s != nil {
		return s
	}
	s := &smtpProcess{key: string(key)}
	o.byKey[s.key] = s
	o.link(s)
	return s
}

func (o *openTable) link(s *smtpProcess) {
	s.older, s.newer = o.ends.older, &o.ends
	s.older.newer, o.ends.older = s, s
}

func (o *openTable) unlink(s *smtpProcess) {
	s.older.newer, s.newer.older = s.newer, s.older
}

func (o *openTable) touch(s *smtpProcess) {
	if o.ends.older != s {
		o.unlink(s)
		o.link(s)
	}
}

func (o *openTable) oldest() *smtpProcess { return o.next(&o.ends) }

// next is the one that was touched after s; nil behind the newest.
func (o *openTable) next(s *smtpProcess) *smtpProcess {
	if s.newer == &o.ends {
		return nil
	}
	return s.newer
}

func (o *openTable) remove(s *smtpProcess) {
	o.unlink(s)
	delete(o.byKey, s.key)
	o.bytes -= s.size
}

func (o *openTable) waiting() (n int) {
	for _, s := range o.byKey {
		if len(s.tries)+len(s.reports) > 0 {
			n++
		}
	}
	return n
}

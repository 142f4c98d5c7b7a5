package reporting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postseal/reporting/tlsrpt"
)

const (
	defaultInterval = 200 * time.Millisecond // what a crash may cost of sessions that nobody waits for
	retryPause      = time.Second            // after a failed write, as a full disk stays full

	// maxPending keys in memory are some 50 MB, minutes of a stalled disk under
	// more different outcomes than any mail server has.
	maxPending = 200_000

	// maxPolicies of those keys together, in bytes; a policy of MTA-STS may have 64 KiB
	// (RFC 8461 §3.3), and whoever writes datagrams may claim any.
	maxPolicies = 64 << 20

	maxName   = 253 // of domains and hosts (RFC 1035 §2.3.4)
	maxReason = 200
)

// ErrEnded is returned by Commit after Run has ended.
var ErrEnded = errors.New("sessions are not recorded any more")

// Recorder counts sessions in memory and writes them behind. Set the fields, then
// call Run in a goroutine of its own; the other methods may be called from any
// number of goroutines.
type Recorder struct {
	Store Store

	// PolicyAt tells which policy applied to a session that does not say so, or only
	// of which type it was; ok is false where that is not known. nil: it never is.
	PolicyAt func(s *Session) (p Policy, ok bool)

	// Judge gives a session under a policy in mode testing its result, or says that
	// it is unverified: mail servers do not judge these. nil: they stay as they are.
	Judge func(s *Session, from Source)

	// Closed tells whether a day has been closed: its reports may be under way. It must
	// not wait, nor call the recorder. nil: no day is.
	Closed func(Day) bool

	// Now is the time that no session can be a day or more ahead of, whatever a log
	// says; those that are, are dropped. nil: any may.
	Now func() time.Time

	Interval time.Duration // of writing; 0: 200 ms
	Log      *slog.Logger  // nil: none

	once    sync.Once
	dirty   chan struct{} // something is pending
	hurry   chan struct{} // and somebody waits
	counted atomic.Uint64
	dropped atomic.Uint64

	mu      sync.Mutex
	pending *batch
	ended   bool
}

// batch is what the next transaction takes.
type batch struct {
	Batch
	size  int           // different keys
	bytes int           // of policies
	done  chan struct{} // closed when written
}

func newBatch() *batch {
	return &batch{Batch: Batch{Counts: map[Day]map[Key]uint64{}, Policies: map[PolicyID]Policy{}, Marks: map[string][]byte{}}, done: make(chan struct{})}
}

func (r *Recorder) init() {
	r.once.Do(func() {
		r.dirty, r.hurry = make(chan struct{}, 1), make(chan struct{}, 1)
		r.pending = newBatch()
		if r.Log == nil {
			r.Log = slog.New(slog.DiscardHandler)
		}
		if r.Interval <= 0 {
			r.Interval = defaultInterval
		}
	})
}

// Record counts a session. It never waits; within Interval the session is on disk.
// Where the disk has stalled for so long that memory would fill up, the session is
// dropped, and counted as that.
func (r *Recorder) Record(s Session, from Source) {
	r.init()
	day := DayOf(s.Time)
	if r.toCome(day) {
		r.dropped.Add(1)
		return
	}
	k, p := r.key(&s, from)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stand(&k, day)
	if r.ended || r.pending.full(day, k) {
		r.dropped.Add(1)
		return
	}
	r.pending.add(day, k, p)
	r.counted.Add(1)
	signal(r.dirty)
}

// toCome reports whether a day is further ahead than clocks and zones differ.
func (r *Recorder) toCome(d Day) bool { return r.Now != nil && d > DayOf(r.Now())+1 }

// Commit counts sessions and puts marks in place, all in one transaction, and waits
// until that is on disk. While the disk fails it waits on, until ctx ends: then
// the outcome is not known, and the caller must start again from the marks.
func (r *Recorder) Commit(ctx context.Context, sessions []Session, from Source, marks map[string][]byte) error {
	r.init()
	type counted struct {
		day Day
		key Key
		p   Policy
	}
	list := make([]counted, 0, len(sessions))
	for i := range sessions {
		day := DayOf(sessions[i].Time)
		if r.toCome(day) {
			r.dropped.Add(1)
			continue
		}
		k, p := r.key(&sessions[i], from)
		list = append(list, counted{day, k, p})
	}
	r.mu.Lock()
	if r.ended {
		r.mu.Unlock()
		return ErrEnded
	}
	b := r.pending
	for _, c := range list {
		r.stand(&c.key, c.day)
		b.add(c.day, c.key, c.p)
	}
	r.counted.Add(uint64(len(list)))
	maps.Copy(b.Marks, marks)
	signal(r.dirty)
	signal(r.hurry)
	r.mu.Unlock()
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Sync waits until all that was recorded before is on disk.
func (r *Recorder) Sync(ctx context.Context) error { return r.Commit(ctx, nil, "", nil) }

// Counted is how many sessions were counted since the start.
func (r *Recorder) Counted() uint64 { return r.counted.Load() }

// Dropped is how many sessions were not counted since the start.
func (r *Recorder) Dropped() uint64 { return r.dropped.Load() }

// signal wakes who waits for c, now or next.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (b *batch) add(day Day, k Key, p Policy) {
	counts := b.Counts[day]
	if counts == nil {
		counts = map[Key]uint64{}
		b.Counts[day] = counts
	}
	if counts[k]++; counts[k] == 1 {
		b.size++
	}
	if _, known := b.Policies[k.Policy]; !known && k.Policy != (PolicyID{}) {
		b.Policies[k.Policy] = p
		b.bytes += p.size()
	}
}

// full reports whether there is no room for a key that is new.
func (b *batch) full(day Day, k Key) bool {
	return (b.size >= maxPending || b.bytes >= maxPolicies) && b.Counts[day][k] == 0
}

// stand is asked under the lock, so that a day which is closed first and committed
// then gets nothing more.
func (r *Recorder) stand(k *Key, day Day) {
	if r.Closed != nil && r.Closed(day) {
		k.Standing = Late
	}
}

// key is what a session is counted under, and its canonical policy. What a stranger
// sent is bounded here once more.
func (r *Recorder) key(s *Session, from Source) (Key, Policy) {
	if r.PolicyAt != nil && (s.Policy.Type == "" || s.Policy.Type != tlsrpt.NoPolicy && len(s.Policy.Strings) == 0) {
		if p, ok := r.PolicyAt(s); ok && (s.Policy.Type == "" || s.Policy.Type == p.Type) {
			s.Policy = p
		}
	}
	if r.Judge != nil {
		r.Judge(s, from)
	}
	p := s.Policy.Canonical()
	k := Key{
		Domain: bounded(s.Domain, maxName), Policy: p.ID(), Source: from, Result: s.Result,
		Reason: bounded(s.Reason, maxReason), MXHost: bounded(s.MXHost, maxName), MXHelo: bounded(s.MXHelo, maxName),
		SendingIP: s.SendingIP.Unmap().WithZone(""), MXIP: s.MXIP.Unmap().WithZone(""),
	}
	if s.Unverified {
		k.Standing = Unverified
	}
	return k, p
}

// bounded is printable ASCII of at most most bytes.
func bounded(s string, most int) string {
	s = s[:min(len(s), most)]
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	return strings.Map(func(c rune) rune {
		if unprintable(c) {
			return '?'
		}
		return c
	}, s)
}

func unprintable(c rune) bool { return c < ' ' || c > '~' }

// Run writes until ctx ends and all that was recorded before is written. The error
// is that of the last write.
func (r *Recorder) Run(ctx context.Context) error {
	r.init()
	timer := time.NewTimer(r.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.end(nil)
		case <-r.dirty:
		}
		timer.Reset(r.Interval) // others may come along
		select {
		case <-ctx.Done():
			return r.end(nil)
		case <-r.hurry:
		case <-timer.C:
		}
		if stuck := r.flush(ctx, timer); stuck != nil {
			return r.end(stuck)
		}
	}
}

// flush writes what is pending, again and again while that fails. It returns what
// is not written when ctx ends.
func (r *Recorder) flush(ctx context.Context, timer *time.Timer) (stuck *batch) {
	r.mu.Lock()
	b := r.pending
	r.pending = newBatch()
	r.mu.Unlock()
	for {
		err := r.write(b)
		if err == nil {
			return nil
		}
		r.Log.Error("sessions cannot be written, will try again", "waiting", b.size, "error", err)
		timer.Reset(retryPause)
		select {
		case <-ctx.Done():
			return b
		case <-timer.C:
		}
	}
}

func (r *Recorder) write(b *batch) error {
	if b.size == 0 && len(b.Marks) == 0 {
		close(b.done)
		return nil
	}
	if err := r.Store.Write(b.Batch); err != nil {
		return err
	}
	close(b.done)
	return nil
}

// end turns away what comes later, and writes what came before, once.
func (r *Recorder) end(stuck *batch) error {
	r.mu.Lock()
	r.ended = true
	last := r.pending
	r.mu.Unlock()
	if stuck != nil {
		if err := r.write(stuck); err != nil { // what came later must not be written before
			return fmt.Errorf("write sessions: %w", err)
		}
	}
	if err := r.write(last); err != nil {
		return fmt.Errorf("write sessions: %w", err)
	}
	return nil
}

package daily

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"postseal/reporting"
	"postseal/reporting/store"
)

const (
	maxUnsaved = 256    // outcomes are written at once
	maxKept    = 10_000 // are kept while the disk takes none
	maxTried   = 30     // targets of a report, for one whose record changes all day
)

// State is where a report, or its way to one target, stands.
type State string

const (
	Waiting    State = "waiting"    // to be tried, or tried again
	Sent       State = "sent"       // a target took it
	Refused    State = "refused"    // a target will not take it
	Bounced    State = "bounced"    // the host MTA took it, and could not deliver it
	GivenUp    State = "given-up"   // a day of trying was in vain
	Suppressed State = "suppressed" // nothing is sent to a target for now
	NoRecord   State = "no-record"  // the domain asks for no reports
	Nothing    State = "nothing"    // no session of the day can be reported
	OwnMail    State = "own-mail"   // no sessions but those of our own report mails
	Dropped    State = "dropped"    // by a rule
)

// Progress is what became of one report.
type Progress struct {
	State   State            `json:"state,omitempty"` // "": not begun
	Begun   time.Time        `json:"begun,omitzero"`
	Next    time.Time        `json:"next,omitzero"`    // of Waiting
	Booked  bool             `json:"booked,omitempty"` // Next is its turn among those to the same place
	Tries   int              `json:"tries,omitempty"`
	Reason  string           `json:"reason,omitempty"` // of the state, or why the last try was in vain
	Targets []TargetProgress `json:"targets,omitempty"`
}

// TargetProgress is what became of a report at one target.
type TargetProgress struct {
	URI   string    `json:"uri"`
	State State     `json:"state"`
	Reply string    `json:"reply,omitempty"` // the last, or what went wrong
	At    time.Time `json:"at,omitzero"`     // of it
	Tries int       `json:"tries,omitempty"`
	Copy  bool      `json:"copy,omitempty"` // by a rule: says nothing about whether the report was delivered

	// Trying stands before an attempt and is gone after it. Where it is found, the daemon
	// ended in between, and the report may come twice.
	Trying bool `json:"trying,omitempty"`
}

// Done reports whether nothing more will happen.
func (p *Progress) Done() bool { return p.State != "" && p.State != Waiting }

// Delivered reports whether a target took the report (RFC 8460 §3). A copy is none, unless
// there is nothing else.
func (p *Progress) Delivered() bool {
	list := p.meant()
	return slices.ContainsFunc(list, func(t TargetProgress) bool { return t.State == Sent })
}

// meant are the targets that the report is for: without copies, where there are others.
func (p *Progress) meant() []TargetProgress {
	var list []TargetProgress
	for i := range p.Targets {
		if !p.Targets[i].Copy {
			list = append(list, p.Targets[i])
		}
	}
	if len(list) == 0 {
		return p.Targets
	}
	return list
}

// target is the progress at a target.
func (p *Progress) target(uri string) *TargetProgress {
	if i := p.index(uri); i >= 0 {
		return &p.Targets[i]
	}
	p.Targets = append(p.Targets, TargetProgress{URI: uri, State: Waiting})
	return &p.Targets[len(p.Targets)-1]
}

func (p *Progress) index(uri string) int {
	return slices.IndexFunc(p.Targets, func(t TargetProgress) bool { return t.URI == uri })
}

// settle gives a report the state that those of its targets make; of copies that they wait.
func (p *Progress) settle() {
	in := func(list []TargetProgress, s State) bool {
		return slices.ContainsFunc(list, func(t TargetProgress) bool { return t.State == s })
	}
	if in(p.Targets, Waiting) {
		p.State = Waiting
		return
	}
	list := p.meant()
	for _, s := range []State{Sent, GivenUp, Refused, Bounced, Suppressed} {
		if in(list, s) {
			p.State = s
			return
		}
	}
}

// settleRest gives up the targets that wait.
func (p *Progress) settleRest(reason string) {
	for i := range p.Targets {
		if t := &p.Targets[i]; t.State == Waiting {
			t.State, t.Reply = GivenUp, reason
		}
	}
	p.settle()
}

// drop ends a report that is to go nowhere any more. What a target took stays sent.
func (p *Progress) drop(reason string) {
	if p.settleRest(reason); p.State != Sent {
		p.State, p.Reason = Dropped, reason
	}
}

// decode takes what cannot be read for a report that was not begun: at worst it comes
// twice.
func decode(state []byte) (p Progress) {
	if json.Unmarshal(state, &p) != nil {
		return Progress{}
	}
	return p
}

// isDone is Done of most states, quickly.
func isDone(state []byte) bool {
	name, ok := bytes.CutPrefix(state, []byte(`{"state":"`))
	return ok && !bytes.HasPrefix(name, []byte(Waiting))
}

func (p *Progress) encode() []byte {
	b, err := json.Marshal(p)
	if err != nil { // of strings and numbers, there is none
		return nil
	}
	return b
}

// Progress is what became of a report.
func (r *Reporter) Progress(j job) (Progress, error) {
	state, err := r.Store.Progress(j.day, j.of)
	return decode(state), err
}

// outcome is what is still to be written.
type outcome struct {
	store.Progress
	due time.Time // zero: the report is done with
}

// record writes down what became of a report. Where the disk does not take it, that is
// kept in memory and tried again: the report must not leave once more.
func (r *Reporter) record(j job, p *Progress, mailed []string) {
	o := r.outcome(j, p, mailed)
	if err := r.Store.SetProgress(o.Progress); err != nil {
		r.unwritable(err)
		r.keep(j, o)
		return
	}
	r.writable()
	r.recorded(j, o)
}

// recordSoon does the same, a second later and with others together: nothing was sent,
// and whoever forgets it asks again.
func (r *Reporter) recordSoon(j job, p *Progress) {
	r.mu.Lock()
	full := len(r.unsaved) >= maxKept
	r.mu.Unlock()
	if full {
		return
	}
	if n := r.keep(j, r.outcome(j, p, nil)); n%maxUnsaved == 0 {
		r.save()
	}
}

func (r *Reporter) outcome(j job, p *Progress, mailed []string) outcome {
	o := outcome{Progress: r.written(j, p, mailed)}
	if !p.Done() {
		o.due = p.Next
	}
	return o
}

// keep returns how many are kept.
func (r *Reporter) keep(j job, o outcome) int {
	r.mu.Lock()
	r.unsaved[j] = o
	n := len(r.unsaved)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return n
}

// recorded sees to what is to be done after something was written.
func (r *Reporter) recorded(j job, o outcome) {
	if o.due.IsZero() {
		r.waiting.Add(-1)
		return
	}
	r.agenda.add(j, o.due)
}

func (r *Reporter) written(j job, p *Progress, mailed []string) store.Progress {
	return store.Progress{Day: j.day, Subject: j.of, State: p.encode(), Mailed: mailed, On: reporting.DayOf(r.now())}
}

// unwritable is said once until it is over.
func (r *Reporter) unwritable(err error) {
	if !r.diskFails.Swap(true) {
		r.Log.Error("no reports are sent while their progress cannot be written", "error", err)
	}
}

// writable says that it is over.
func (r *Reporter) writable() {
	if r.diskFails.Swap(false) {
		r.Log.Info("progress of reports is written again")
	}
}

// save writes what is still to be written.
func (r *Reporter) save() {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	list := make([]store.Progress, 0, len(r.unsaved))
	kept := maps.Clone(r.unsaved)
	r.mu.Unlock()
	for _, o := range kept {
		list = append(list, o.Progress)
	}
	if len(list) == 0 {
		return
	}
	if err := r.Store.SetProgress(list...); err != nil {
		r.unwritable(err)
		return
	}
	r.writable()
	r.mu.Lock()
	for j := range kept { // begin lets nobody make another one before
		delete(r.unsaved, j)
	}
	r.mu.Unlock()
	for j, o := range kept {
		r.recorded(j, o)
		r.settleBounces(j)
	}
}

// fraction is a number in [0, 1) that is always the same for a report and its n-th try.
func fraction(j job, n int) float64 {
	host := ""
	if j.of.Host {
		host = "mx"
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s %d", j.day, j.of.Name, host, n))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// backoff is the wait before a try, counted from 1 for the second: it doubles each time,
// give or take a quarter.
func (r *Reporter) backoff(j job, tries int) time.Duration {
	wait := r.Retry
	for range min(tries-1, 20) {
		wait = min(2*wait, maxRetry)
	}
	return time.Duration(float64(wait) * (0.75 + fraction(j, tries)/2))
}

// Package daily sends the reports of each day that is over (RFC 8460 §4.1): one to every
// domain that mail went to and that asks for reports in DNS.
//
// A day's reports are spread over hours, each at a moment that is a hash of its domain, so
// that neither this mail server nor anybody who takes reports for many gets all at once,
// and a restart changes nothing. Domains are independent of each other: each has its own
// progress on disk, is tried again for a day (§5.5), and a target that stalls, loops or
// refuses holds up no other. What strangers choose with their records, where to connect
// to and how often, is bounded.
//
// Before a report leaves, it is written down that it will; after that, what came of it.
// So nothing is lost when the daemon is killed, and only what was under way at that
// moment may come twice, with the same report id, by which receivers tell (§5.3).
package daily

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"postseal/reporting"
	"postseal/reporting/store"
	"postseal/reporting/tlsrpt"
)

const (
	// catchUp is how many days are reported late, after the daemon was down.
	catchUp = 3
	// lastDays is how many days are looked at: a report that was begun on the last one to
	// catch up has another day.
	lastDays = catchUp + 2
	// giveUp is how long a report is tried (RFC 8460 §5.5: SHOULD retry for 24 hours).
	giveUp = 24 * time.Hour
	// opening is when the first report of a day leaves, since days close no earlier.
	opening = 15 * time.Minute
	// defaultSpread is what RFC 8460 §4.1 has as an example.
	defaultSpread = 4 * time.Hour

	defaultRetry = 10 * time.Minute
	maxRetry     = 4 * time.Hour

	// workers are at a report each, most of the time waiting for DNS or a web server.
	workers = 128
	// patience is how long a web server or a DNS lookup is waited for, and pressed that
	// while most workers wait: then 1000 domains whose servers stall, and that are due at
	// once, hold up the others for three minutes.
	patience = time.Minute
	pressed  = 10 * time.Second
	// composers is how many reports are put together at once, which is work for processor
	// and memory.
	composers = 4
	// defaultMailRate is the most that the host MTA is asked to take in a second, after a long
	// pause too: a day of 200 000 reports spread over 4 hours is 14.
	defaultMailRate = 20

	longestPause = time.Minute // between two looks at what is due
	shortPause   = time.Second
	grace        = 5 * time.Second // for what is under way when ctx ends
)

// Mailer submits reports to the host MTA; send.Mail does.
type Mailer interface {
	Message(r *tlsrpt.Report, domain, to string, date time.Time) ([]byte, error)
	MessageID(r *tlsrpt.Report, to string) string // of that message
	Send(ctx context.Context, message []byte, to string) (reply string, err error)
}

// Poster posts reports; send.HTTPS does.
type Poster interface {
	Send(ctx context.Context, uri string, r *tlsrpt.Report) (reply string, err error)
}

// Reporter sends reports. Set the fields, then call Run; the other methods may be
// called from any number of goroutines.
type Reporter struct {
	Store  *store.Store
	Closed func(reporting.Day) bool // whether nothing more is counted for a day

	// Record looks up who wants reports about a domain. Errors of package tlsrpt say that
	// nobody does, all others that it could not be told.
	Record func(ctx context.Context, domain string) (tlsrpt.Record, error)
	Mail   Mailer
	HTTPS  Poster

	Organization  string // organization-name
	Contact       string // contact-info, addr-spec
	Host          string // tells the reports of one organisation's hosts apart; may be ""
	HideSendingIP bool   // leave sending-mta-ip out (RFC 8460 §8)
	Hosts         bool   // report to MX hosts too that have a record of their own
	Rules         []Rule

	// Nameless are the sources of sessions that cannot tell the sessions of our own
	// report mails from others.
	Nameless []reporting.Source

	MailRate float64 // most mails a second that the host MTA is asked to take; 0: 20

	Spread time.Duration    // of a day's reports; 0: 4 h
	Retry  time.Duration    // before the second try, twice as long before each further one; 0: 10 min
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: none

	once      sync.Once
	agenda    agenda
	pace      pace
	mails     *rate.Limiter
	working   chan struct{} // has as many as workers work
	composing chan struct{}
	wake      chan struct{} // something is to be written, or due sooner

	sent, failed, gaveUp atomic.Uint64
	waiting              atomic.Int64
	diskFails            atomic.Bool

	saving   sync.Mutex // held by save
	mu       sync.Mutex
	busy     map[job]bool
	unsaved  map[job]outcome
	bounced  map[job]map[string]bounce // by the URI of the target
	finished map[reporting.Day]bool
	latest   time.Time // that the clock has shown
	pruned   reporting.Day
}

// job is the report about a subject for a day.
type job struct {
	day reporting.Day
	of  store.Subject
}

// Stats count since the start.
type Stats struct {
	Sent    uint64 // reports that a target took, each target counted
	Failed  uint64 // attempts that failed
	GaveUp  uint64 // reports that no target took within a day
	Waiting int64  // reports of days that are over and that are not done with
}

// Stats may be called at any time.
func (r *Reporter) Stats() Stats {
	return Stats{Sent: r.sent.Load(), Failed: r.failed.Load(), GaveUp: r.gaveUp.Load(), Waiting: max(0, r.waiting.Load())}
}

func (r *Reporter) init() {
	r.once.Do(func() {
		if r.Log == nil {
			r.Log = slog.New(slog.DiscardHandler)
		}
		if r.Now == nil {
			r.Now = time.Now
		}
		if r.Spread <= 0 {
			r.Spread = defaultSpread
		}
		if r.Retry <= 0 {
			r.Retry = defaultRetry
		}
		if r.Organization == "" {
			r.Organization = domainOf(r.Contact)
		}
		if r.MailRate <= 0 {
			r.MailRate = defaultMailRate
		}
		r.mails = rate.NewLimiter(rate.Limit(r.MailRate), int(max(1, r.MailRate)))
		r.working, r.composing, r.wake = make(chan struct{}, workers), make(chan struct{}, composers), make(chan struct{}, 1)
		r.busy, r.unsaved, r.finished = map[job]bool{}, map[job]outcome{}, map[reporting.Day]bool{}
		r.bounced = map[job]map[string]bounce{}
	})
}

// Run sends reports until ctx ends. The error is that of the database.
func (r *Reporter) Run(ctx context.Context) error {
	r.init()
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { // what is under way may end
		select {
		case <-sending.Done():
		case <-time.After(grace):
			stop()
		}
	})()
	defer r.save()
	var attempts sync.WaitGroup
	defer attempts.Wait()
	for {
		next, err := r.round(ctx, sending, &attempts)
		if err != nil {
			return err
		}
		if !r.pause(ctx, next) {
			return nil
		}
	}
}

// pause waits until something is due; false: ctx has ended.
func (r *Reporter) pause(ctx context.Context, next time.Time) bool {
	least := time.NewTimer(shortPause)
	defer least.Stop()
	most := time.NewTimer(min(max(next.Sub(r.now()), shortPause), longestPause))
	defer most.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-most.C:
		return true
	case <-r.wake:
	}
	select {
	case <-ctx.Done():
		return false
	case <-least.C:
		return true
	}
}

// round begins all that is due, and returns when something will be next.
func (r *Reporter) round(ctx, sending context.Context, attempts *sync.WaitGroup) (next time.Time, err error) {
	r.save()
	days, err := r.days()
	if err != nil {
		return next, err
	}
	now := r.now()
	if !r.agenda.current(now, days) {
		if err := r.plan(ctx, now, days); err != nil {
			return next, err
		}
	}
	for saved := time.Now(); ; {
		j, ok := r.agenda.take(r.now())
		if !ok || ctx.Err() != nil {
			return r.agenda.next(), nil
		}
		if time.Since(saved) > shortPause {
			r.save()
			saved = time.Now()
		}
		select {
		case <-ctx.Done():
			return next, nil
		case r.working <- struct{}{}:
		}
		attempts.Go(func() {
			defer func() { <-r.working }()
			if r.begin(j) {
				defer r.end(j)
				r.attempt(sending, j, false)
			}
		})
	}
}

// plan makes the agenda anew.
func (r *Reporter) plan(ctx context.Context, now time.Time, days []reporting.Day) error {
	if err := r.prune(now); err != nil {
		return err
	}
	r.agenda.begin(now, days)
	waiting := int64(0)
	for _, day := range days {
		if r.Hosts {
			if err := r.Store.IndexHosts(day); err != nil {
				return err
			}
		}
		left, missed := int64(0), 0
		err := r.Store.EachSubject(day, func(of store.Subject, state []byte) bool {
			if !isDone(state) && (r.Hosts || !of.Host) {
				j, p := job{day, of}, decode(state)
				switch due, open := r.due(j, &p); {
				case open:
					left++
					r.agenda.add(j, due)
				case !p.Done():
					missed++
				}
			}
			return ctx.Err() == nil
		})
		if err != nil || ctx.Err() != nil {
			return err
		}
		if waiting += left; left == 0 {
			r.finish(day, missed)
		}
	}
	r.waiting.Store(waiting)
	return nil
}

// days are those that may have reports to send, the oldest first: these end sooner. The
// one before them is there to tell what was not sent.
func (r *Reporter) days() ([]reporting.Day, error) {
	all, err := r.Store.Days()
	if err != nil {
		return nil, err
	}
	now := r.now()
	today := reporting.DayOf(now)
	var days []reporting.Day
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.latest) { // what was too old to report is not any more
		clear(r.finished)
	}
	r.latest = now
	for _, d := range all {
		if d < today && d >= today-lastDays-1 && r.Closed(d) && !r.finished[d] {
			days = append(days, d)
		}
	}
	return days, nil
}

// due is when a report is to be tried, if ever.
func (r *Reporter) due(j job, p *Progress) (at time.Time, open bool) {
	now := r.now()
	today := reporting.DayOf(now)
	switch {
	case p.Done(), j.day < today-lastDays:
		return at, false
	case p.State == Waiting:
		// Where the clock was ahead, a wait that cannot be is over.
		if p.Next.Sub(now) > max(r.Retry, maxRetry)*5/4 {
			return now, true
		}
		return p.Next, true
	case j.day < today-catchUp:
		return at, false
	}
	return r.slot(j), true
}

// now is what the clock shows, whatever time has passed since.
func (r *Reporter) now() time.Time { return r.Now().Round(0) }

// slot is the moment of a report in the hours after its day.
func (r *Reporter) slot(j job) time.Time {
	return (j.day + 1).Start().Add(opening + time.Duration(float64(r.Spread)*fraction(j, 0)))
}

// begin reports whether nobody is at a report already; end must follow then.
func (r *Reporter) begin(j job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, unsaved := r.unsaved[j]; unsaved || r.busy[j] {
		return false
	}
	r.busy[j] = true
	return true
}

func (r *Reporter) end(j job) {
	r.mu.Lock()
	delete(r.busy, j)
	r.mu.Unlock()
	r.settleBounces(j)
}

// finish spares looking through a day again that has nothing left to do. Some of its
// reports may be due no more.
func (r *Reporter) finish(day reporting.Day, missed int) {
	if missed > 0 {
		r.Log.Warn("reports of a day are missed: it was too long ago when they could be sent", "day", day.String(), "domains", missed, "days_caught_up", catchUp)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finished[day] = true
}

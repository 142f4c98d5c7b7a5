package daily

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postseal/reporting"
	"postseal/reporting/store"
	"postseal/reporting/tlsrpt"
)

// Preview is what would be sent now, and where to.
type Preview struct {
	Composed
	Closed   bool // the day; else more may be counted
	Own      bool // its sessions may all be those of our own report mails: it is not sent
	Rule     Action
	Targets  []Target
	Standing map[string]Standing // of targets that something speaks against
	Record   tlsrpt.Record
	NoRecord error // why there is no record; nil also where a rule does without one
	Progress Progress
	Due      time.Time // zero: no more
}

// Preview looks at a report without sending or writing anything.
func (r *Reporter) Preview(ctx context.Context, day reporting.Day, of store.Subject) (Preview, error) {
	r.init()
	j := job{day, of}
	v := Preview{Closed: r.Closed(day), Rule: r.rule(of).Action, Standing: map[string]Standing{}}
	var err error
	if v.Progress, err = r.Progress(j); err != nil {
		return v, err
	}
	v.Due, _ = r.due(j, &v.Progress)
	if v.Composed, err = r.compose(j); err != nil {
		return v, err
	}
	if v.Own, err = r.onlyOwn(j, &v.Composed); err != nil {
		return v, err
	}
	if v.Rule == Accept {
		v.Record, v.NoRecord = r.Record(ctx, of.Name)
	}
	v.Targets = r.named(of, v.Record)
	for _, t := range v.Targets {
		if s, err := r.standing(t.URI); err == nil && !s.Last.IsZero() || s.Operator {
			v.Standing[t.URI] = s
		}
	}
	return v, nil
}

// Message is the mail that would bring a report to a target.
func (r *Reporter) Message(v *Preview, of store.Subject, t Target) ([]byte, error) {
	r.init()
	return r.Mail.Message(v.Report, of.Name, t.Address, r.Now())
}

// Send tries to send a report now, whenever it would be due. A report that is done with
// is sent once more only if again.
func (r *Reporter) Send(ctx context.Context, day reporting.Day, of store.Subject, again bool) (Progress, error) {
	r.init()
	j := job{day, of}
	if !r.Closed(day) {
		return Progress{}, fmt.Errorf("%s is not closed: more sessions may be counted, and receivers take a report once only", day)
	}
	if !r.begin(j) {
		return Progress{}, fmt.Errorf("the report about %s %w", of.Name, ErrBeingSent)
	}
	defer r.end(j)
	p, err := r.Progress(j)
	if err != nil {
		return p, err
	}
	if p.Done() {
		if !again {
			return p, &DoneError{p}
		}
		p = Progress{State: Waiting, Next: r.now()}
		if err := r.Store.SetProgress(r.written(j, &p, nil)); err != nil {
			return p, err
		}
		r.waiting.Add(1)
	}
	r.mu.Lock()
	delete(r.finished, day)
	r.mu.Unlock()
	r.attempt(ctx, j, true)
	r.save()
	return r.Progress(j)
}

// ErrBeingSent is returned for a report that is under way already.
var ErrBeingSent = errors.New("is being sent")

// DoneError is returned for a report that is done with.
type DoneError struct{ Progress Progress }

func (e *DoneError) Error() string {
	s := "the report is done with: " + string(e.Progress.State)
	if e.Progress.Reason != "" {
		s += " (" + e.Progress.Reason + ")"
	}
	return s
}

// Each calls f for every report of a day, with the time when it is due (zero: no more),
// until f returns false.
func (r *Reporter) Each(day reporting.Day, f func(of store.Subject, p Progress, due time.Time) bool) error {
	r.init()
	return r.Store.EachSubject(day, func(of store.Subject, state []byte) bool {
		if of.Host && !r.Hosts && state == nil {
			return true // found while they were to get reports
		}
		p := decode(state)
		due, _ := r.due(job{day, of}, &p)
		return f(of, p, due)
	})
}

package daily

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"postseal/reporting/send"
	"postseal/reporting/store"
	"postseal/reporting/tlsrpt"
)

// attempt tries to send a report, if it is due or must be sent now.
func (r *Reporter) attempt(ctx context.Context, j job, must bool) {
	p, err := r.Progress(j)
	if err != nil {
		r.Log.Error("progress of a report cannot be read", "about", j.of.Name, "day", j.day.String(), "error", err)
		return
	}
	now := r.now()
	if due, open := r.due(j, &p); p.Done() || !must && (!open || due.After(now)) {
		return
	}
	if p.Begun.After(now) { // the clock was ahead
		p.Begun = now
	}
	targets, err := r.targets(ctx, j, &p)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		r.later(j, &p, now, err.Error())
		return
	case p.Done():
		r.recordSoon(j, &p)
		return
	}
	c, err := r.composed(ctx, j, &p)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		r.later(j, &p, now, err.Error())
		return
	case p.Done():
		r.recordSoon(j, &p)
		return
	}
	open := r.open(&p, targets, now)
	if len(open) == 0 {
		p.settle()
		r.recordSoon(j, &p)
		return
	}
	at := places(open)
	if c.large() {
		at = append(at, largeReports)
	}
	wait, ok := r.pace.enter(at, p.Booked)
	if !ok {
		p.State, p.Booked, p.Next = Waiting, true, now.Add(wait)
		r.recordSoon(j, &p)
		return
	}
	since := time.Now().Add(wait)
	defer func() { r.pace.leave(at, since) }()
	if sleep(ctx, wait) {
		r.send(ctx, j, &p, c.Report, open)
	}
}

// sleep reports false where ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// limited is ctx for what a stranger's server may draw out.
func (r *Reporter) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := patience
	if len(r.working) > workers/2 {
		limit = pressed
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
}

// targets says where a report goes to. It settles p where it goes nowhere.
func (r *Reporter) targets(ctx context.Context, j job, p *Progress) ([]Target, error) {
	rule := r.rule(j.of)
	if rule.Action != Accept {
		list := r.named(j.of, tlsrpt.Record{})
		if len(list) == 0 {
			p.drop("by a rule of the configuration")
		}
		return list, nil
	}
	limited, cancel := r.limited(ctx)
	defer cancel()
	record, err := r.Record(limited, j.of.Name)
	switch {
	case err == nil, len(rule.Copy) > 0 && asksForNone(err):
		return r.named(j.of, record), nil
	case !asksForNone(err):
		return nil, fmt.Errorf("TLSRPT record of %s: %w", j.of.Name, err)
	case len(p.Targets) > 0: // it was asked for before
		p.settleRest(err.Error())
	default:
		p.State, p.Reason = NoRecord, err.Error()
	}
	return nil, nil
}

// named are the targets of a record and of the rule about it.
func (r *Reporter) named(of store.Subject, record tlsrpt.Record) []Target {
	rule := r.rule(of)
	var list []Target
	switch rule.Action {
	case Accept:
		for _, t := range record.Targets {
			list = append(list, Target{Target: t})
		}
	case Replace:
		list = append(list, rule.To...)
	}
	for _, t := range rule.Copy {
		if !slices.Contains(list, t) {
			t.Copy = true
			list = append(list, t)
		}
	}
	return list
}

// asksForNone tells a record that is no good from a lookup that failed.
func asksForNone(err error) bool {
	if _, unusable := errors.AsType[*tlsrpt.RecordError](err); unusable {
		return true
	}
	return errors.Is(err, tlsrpt.ErrNoRecord) || errors.Is(err, tlsrpt.ErrSeveralRecords)
}

// composed is the report; it settles p where there is none to send.
func (r *Reporter) composed(ctx context.Context, j job, p *Progress) (Composed, error) {
	select {
	case <-ctx.Done():
		return Composed{}, ctx.Err()
	case r.composing <- struct{}{}:
	}
	defer func() { <-r.composing }()
	c, err := r.compose(j)
	if err != nil {
		return c, err
	}
	if c.Report == nil {
		p.State, p.Reason = Nothing, c.why()
		return c, nil
	}
	own, err := r.onlyOwn(j, &c)
	if own {
		p.State, p.Reason = OwnMail, "no more sessions than we sent report mails there"
	}
	return c, err
}

// open are the targets that a report is still to go to. It leaves out those that are
// suppressed.
func (r *Reporter) open(p *Progress, targets []Target, now time.Time) (open []Target) {
	named := func(at TargetProgress) bool {
		return slices.ContainsFunc(targets, func(t Target) bool { return t.URI == at.URI })
	}
	p.Targets = slices.DeleteFunc(p.Targets, func(at TargetProgress) bool {
		return at.State == Waiting && at.Tries == 0 && !named(at)
	})
	for i := range p.Targets {
		if at := &p.Targets[i]; at.State == Waiting && !named(*at) {
			at.State, at.Reply = GivenUp, "the domain does not name it any more"
		}
	}
	for _, t := range targets {
		if len(p.Targets) >= maxTried && p.index(t.URI) < 0 {
			continue
		}
		at := p.target(t.URI)
		at.Copy = t.Copy
		if at.State != Waiting {
			continue
		}
		s, err := r.standing(t.URI)
		if err != nil || !s.Suppressed(now) { // one report too many is the lesser harm
			open = append(open, t)
			continue
		}
		at.State, at.Reply, at.At = Suppressed, "until "+s.Until.Format(time.DateOnly)+": "+s.Reason, now
	}
	return open
}

// send brings a report to targets, side by side. That it will is on disk before, so that
// no loop of crashes sends one again and again.
func (r *Reporter) send(ctx context.Context, j job, p *Progress, report *tlsrpt.Report, targets []Target) {
	now := r.now()
	if p.Begun.IsZero() {
		p.Begun = now
	}
	p.Tries++
	p.State, p.Booked, p.Reason = Waiting, false, ""
	p.Next = now.Add(r.backoff(j, p.Tries))
	if end := p.Begun.Add(giveUp); p.Next.After(end) && now.Before(end) {
		p.Next = end // one last time
	}
	for _, t := range targets {
		at := p.target(t.URI)
		if at.Trying {
			r.Log.Warn("a report may arrive twice: it was under way when the daemon ended", "about", j.of.Name, "day", j.day.String(), "target", t.URI)
		}
		at.Trying = true
		at.Tries++
	}
	begun := r.written(j, p, nil)
	begun.Messages = r.messages(j, report, targets)
	if err := r.Store.SetProgress(begun); err != nil {
		r.unwritable(err)
		return
	}
	r.writable()
	var (
		mu     sync.Mutex // of p
		wg     sync.WaitGroup
		mailed []string
	)
	for _, t := range targets {
		wg.Go(func() {
			reply, err := r.bring(ctx, j, report, t)
			mu.Lock()
			defer mu.Unlock()
			if ctx.Err() != nil && err != nil {
				return // the attempt says nothing about the target
			}
			if r.note(j, p, t, reply, err); err == nil && t.Mail() {
				mailed = append(mailed, domainOf(t.Address))
			}
		})
	}
	wg.Wait()
	r.conclude(j, p)
	r.record(j, p, mailed)
}

// bring sends a report to one target.
func (r *Reporter) bring(ctx context.Context, j job, report *tlsrpt.Report, t Target) (reply string, err error) {
	switch {
	case t.Folder != "":
		return file(t.Folder, report, j.of.Name)
	case !t.Mail():
		limited, cancel := r.limited(ctx)
		defer cancel()
		return r.HTTPS.Send(limited, t.URI, report)
	}
	message, err := r.Mail.Message(report, j.of.Name, t.Address, r.Now())
	if err != nil {
		return "", err
	}
	if err := r.mails.Wait(ctx); err != nil {
		return "", err
	}
	return r.Mail.Send(ctx, message, t.Address)
}

// note takes down what came of an attempt at a target.
func (r *Reporter) note(j job, p *Progress, t Target, reply string, err error) {
	at := p.target(t.URI)
	at.Trying, at.At, at.Reply = false, r.now(), reply
	log := r.Log.With("about", j.of.Name, "day", j.day.String(), "target", t.URI)
	if err == nil {
		at.State = Sent
		r.sent.Add(1)
		log.Info("report sent", "reply", reply)
		if t.Mail() { // the host MTA took it, its recipient is to come
			r.accepted(t.URI, at.At)
		} else {
			r.Good(t.URI)
		}
		return
	}
	r.failed.Add(1)
	at.Reply = err.Error()
	failure, _ := errors.AsType[*send.Failure](err)
	if failure != nil && failure.Final {
		at.State = Refused
		log.Warn("report refused", "reason", err.Error())
		if failure.Target {
			r.Bad(t.URI, err.Error(), at.At)
		}
		return
	}
	if at.At.Before(p.Begun.Add(giveUp)) {
		log.Info("report not sent, will try again", "reason", err.Error(), "next", p.Next.UTC().Format(time.RFC3339))
		return
	}
	at.State = GivenUp
	log.Warn("report not sent, and given up", "reason", err.Error(), "tries", at.Tries)
	if failure != nil && failure.Target {
		r.Bad(t.URI, err.Error(), at.At)
	}
}

// conclude settles a report of which no target is left to try.
func (r *Reporter) conclude(j job, p *Progress) {
	if p.settle(); p.State != Waiting {
		p.Next = time.Time{}
	}
	if p.State == GivenUp || p.State == Refused {
		r.gaveUp.Add(1)
	}
}

// later puts off a report that could not even be begun.
func (r *Reporter) later(j job, p *Progress, now time.Time, reason string) {
	if p.Begun.IsZero() {
		p.Begun = now
	}
	p.Reason = reason
	if !now.Before(p.Begun.Add(giveUp)) {
		p.State, p.Next = GivenUp, time.Time{}
		p.settleRest(reason)
		r.gaveUp.Add(1)
		r.Log.Warn("report given up", "about", j.of.Name, "day", j.day.String(), "reason", reason)
		r.record(j, p, nil)
		return
	}
	p.Tries++
	p.State, p.Next = Waiting, now.Add(r.backoff(j, p.Tries))
	if end := p.Begun.Add(giveUp); p.Next.After(end) {
		p.Next = end
	}
	r.Log.Info("report put off", "about", j.of.Name, "day", j.day.String(), "reason", reason, "next", p.Next.UTC().Format(time.RFC3339))
	r.record(j, p, nil)
}

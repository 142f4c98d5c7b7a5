package daemon

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"postseal/cmd/postseal/internal/control"
	"postseal/cmd/postseal/internal/status"
)

// report is the state without a word about who writes to whom.
func (d *daemon) report() status.Report {
	s := d.engine.Status()
	r := status.Report{
		Version: d.Version, PID: os.Getpid(), Started: d.started, Config: d.config.Origin(),
		Validation: status.Validation{On: s.Validation.On, Never: s.Validation.Never, Reason: s.Validation.Reason},
		Entries:    s.Entries, Lookups: s.Flights, Decisions: s.Decisions, FailingRefreshes: s.Failing,
		Listen: map[string][]string{},
	}
	for name := range d.doors {
		r.Listen[name] = d.doors.list(name)
	}
	now := time.Now()
	for _, rule := range d.rules.List() {
		if r.Overrides++; rule.Expired(now) {
			r.ExpiredOverrides++
		}
	}
	st := d.socketmap.Stats()
	r.Connections, r.Refused, r.ProtocolErrors, r.Answers = st.Open, st.Refused, st.ProtocolErrors, st.Requests
	if len(d.doors["milter"]) > 0 {
		m := d.milter.Stats()
		r.Milter = &status.Milter{Messages: m.Messages, Required: m.Required, Relaxed: m.Relaxed, Errors: m.Errors}
	}
	if d.delivery != nil {
		s := d.delivery.Stats()
		r.Delivery = &status.Delivery{Messages: s.Messages, InFlight: s.InFlight, Delivered: s.Delivered, Deferred: s.Deferred, Bounced: s.Bounced, Already: s.Already}
	}
	r.Recording = d.recording.report()
	return r
}

// report is the state of what is recorded, nil where nothing is.
func (r *recording) report() *status.Recording {
	if r == nil {
		return nil
	}
	s := &status.Recording{Sessions: r.recorder.Counted(), Dropped: r.recorder.Dropped(), LastDay: r.closing.Last().String(), Logs: []status.Log{}}
	if r.prober != nil {
		s.Probes = r.prober.Count()
	}
	if r.reporter != nil {
		st := r.reporter.Stats()
		s.Reports = &status.Reports{Sent: st.Sent, Failed: st.Failed, GaveUp: st.GaveUp, Waiting: st.Waiting}
	}
	for _, l := range r.logs {
		st := l.Stats()
		s.Logs = append(s.Logs, status.Log{Path: l.Path, Format: l.Format, CaughtUp: l.CaughtUp(), Lines: st.Lines, Sessions: st.Sessions,
			Own: st.Own, Unparsed: st.Unparsed, Oversize: st.Oversize, NoDomain: st.Dropped, Open: st.Open})
	}
	if r.datagrams != nil {
		st := r.datagrams.Stats()
		s.Datagrams = &status.Datagrams{Received: st.Received, Sessions: st.Sessions, Lost: st.Lost, Malformed: st.Malformed, Refused: st.Refused, Waiting: st.Waiting}
	}
	if r.events != nil {
		st := r.events.Stats()
		s.Events = &status.Events{Received: st.Events, Sessions: st.Sessions, Malformed: st.Malformed, Dropped: st.Dropped, Open: st.Open}
	}
	return s
}

// status adds what only the operator may see.
func (d *daemon) status() control.Status {
	return control.Status{Report: d.report(), FailingDomains: d.engine.Status().RefreshFailing}
}

// monotonic is CLOCK_MONOTONIC in microseconds, which sd_notify(3) asks for.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return t.Nano() / int64(time.Microsecond)
}

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
	return r
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

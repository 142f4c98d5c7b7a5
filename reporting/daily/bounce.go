package daily

import (
	"strings"
	"time"

	"postseal/reporting/store"
	"postseal/reporting/tlsrpt"
)

// messages are the mails that will bring a report to targets. They are written down
// before they leave, since a bounce can be in the host MTA's log at once.
func (r *Reporter) messages(j job, report *tlsrpt.Report, targets []Target) (list []store.Message) {
	for _, t := range targets {
		if t.Mail() {
			list = append(list, store.Message{ID: r.Mail.MessageID(report, t.Address), Day: j.day, Subject: j.of, URI: t.URI})
		}
	}
	return list
}

// Bounced tells that the host MTA gave up a mail: its Message-ID with angle brackets, the
// recipient if that is known, and why, in printable words. It does nothing for a mail
// that is none of our reports, and may be told twice.
func (r *Reporter) Bounced(messageID, recipient, reason string, at time.Time) {
	r.init()
	m, ok, err := r.Store.Message(messageID)
	if err != nil {
		r.Log.Error("a bounce of a report cannot be noted", "message_id", messageID, "error", err)
		return
	}
	// Whoever got a report can send others its Message-ID.
	if !ok || recipient != "" && !strings.EqualFold("mailto:"+recipient, m.URI) {
		return
	}
	r.Log.Warn("report bounced", "about", m.Subject.Name, "day", m.Day.String(), "target", m.URI, "reason", reason)
	r.Bad(m.URI, reason, at)
	j := job{m.Day, m.Subject}
	r.mu.Lock()
	if r.bounced[j] == nil {
		r.bounced[j] = map[string]bounce{}
	}
	r.bounced[j][m.URI] = bounce{reason, at}
	r.mu.Unlock()
	r.settleBounces(j)
}

// bounce is one that is still to be noted in the progress of its report.
type bounce struct {
	reason string
	at     time.Time
}

// settleBounces notes the bounces of a report, unless somebody is at it: another of its
// targets may be tried, or what came of that be unwritten. Who ends that calls again.
func (r *Reporter) settleBounces(j job) {
	r.mu.Lock()
	list := r.bounced[j]
	_, unsaved := r.unsaved[j]
	if len(list) == 0 || unsaved || r.busy[j] {
		r.mu.Unlock()
		return
	}
	delete(r.bounced, j)
	r.busy[j] = true
	r.mu.Unlock()
	defer r.end(j)
	p, err := r.Progress(j)
	if err != nil {
		r.Log.Error("progress of a report cannot be read", "about", j.of.Name, "day", j.day.String(), "error", err)
		return
	}
	changed := false
	for i := range p.Targets {
		t := &p.Targets[i]
		if b, ok := list[t.URI]; ok && t.State == Sent {
			t.State, t.Reply, t.At, changed = Bounced, b.reason, b.at, true
		}
	}
	if !changed {
		return
	}
	p.settle()
	if err := r.Store.SetProgress(r.written(j, &p, nil)); err != nil {
		r.unwritable(err)
		return
	}
	r.writable()
}

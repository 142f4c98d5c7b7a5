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
	if !r.begin(j) {
		return // another of its targets is being tried; that this one fails is known
	}
	defer r.end(j)
	p, err := r.Progress(j)
	if err != nil {
		return
	}
	if i := p.index(m.URI); i >= 0 && p.Targets[i].State == Sent {
		p.Targets[i].State, p.Targets[i].Reply, p.Targets[i].At = Bounced, reason, at
		p.settle()
		if err := r.Store.SetProgress(r.written(j, &p, nil)); err != nil {
			r.unwritable(err)
		}
	}
}

package postfix

import (
	"bytes"
	"time"

	"postseal/reporting/ingest/maillog"
)

// ownLine reads what Postfix says of a message that may be ours:
//
//	cleanup   QID: message-id=<…>
//	any agent QID: to=<u@D>, …, status=bounced (…)
//	qmgr      QID: from=<s@E>, status=expired, returned to sender
//	qmgr      QID: removed
//
// A message that a filter hands back, or that is queued again, has a new queue id, and
// the same Message-ID.
func (p *Log) ownLine(e *maillog.Entry, id, text []byte) {
	m := p.own.Find(e.Host, id)
	messageID, received := bytes.CutPrefix(text, []byte("message-id="))
	if m == nil && (!received || p.own.Is == nil) {
		return
	}
	at, ok := p.clock.At(e.Stamp)
	if !ok {
		p.stats.Unparsed++
		return
	}
	switch {
	case received:
		p.own.Received(e.Host, id, messageID, 0, at)
	case bytes.HasPrefix(text, []byte("to=<")):
		r, ok := readRecipient(text)
		if !ok {
			p.stats.Unparsed++
			return
		}
		p.tell(m, &r, at)
	case bytes.HasPrefix(text, []byte("from=<")) && bytes.HasSuffix(text, []byte("expired, returned to sender")):
		p.own.Tell(m, maillog.Bounced, nil, []byte("expired"), at) // 3.5 has force-expired as well
	case string(text) == "removed", string(text) == "requeued":
		p.own.Remove(m)
	}
}

func (p *Log) tell(m *maillog.Slot[maillog.OwnMail], r *recipientLine, at time.Time) {
	status := maillog.Status(r.status)
	switch status {
	case maillog.Sent, maillog.Deferred, maillog.Bounced:
	default:
		return // of a probe: verify(8)
	}
	address := r.original
	if address == nil {
		address = r.address
	}
	p.own.Tell(m, status, address, r.text, at)
}

// aboutOwn passes lines about messages of ours, from the bracket of the process id on.
// It does little for others.
func (p *Log) aboutOwn(b []byte) bool {
	if p.own.Is == nil && !p.own.Any() {
		return false
	}
	n := 1
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	text, ok := bytes.CutPrefix(b[n:], []byte("]: "))
	if ok && bytes.HasPrefix(text, []byte("[ID ")) {
		_, text, ok = bytes.Cut(text, []byte("] ")) // Solaris, as in classic
	}
	return ok && p.begins(text)
}

// aboutOwnJSON is the same for an object of journald.
func (p *Log) aboutOwnJSON(line []byte) bool {
	if p.own.Is == nil && !p.own.Any() {
		return false
	}
	_, text, ok := bytes.Cut(line, []byte(`"MESSAGE":`)) // in no value: its quotes have a backslash
	text, plain := bytes.CutPrefix(text, []byte{'"'})
	if !ok || !plain {
		return ok // bytes as numbers, which are rare
	}
	text, _, _ = bytes.Cut(text, []byte{'"'})
	return p.begins(text) || bytes.Contains(text, []byte(`: message-id=\`)) // "\u003c" for "<"
}

// begins reports whether a text is about a message of ours, or brings one.
func (p *Log) begins(text []byte) bool {
	i := bytes.IndexByte(text[:min(len(text), maxQueueID+1)], ':')
	if i < 0 {
		return false
	}
	if p.own.Has(text[:i]) {
		return true
	}
	messageID, ok := bytes.CutPrefix(text[i:], []byte(": message-id="))
	if n := len(messageID) - 1; n >= 0 && messageID[n] == '\r' {
		messageID = messageID[:n]
	}
	return ok && p.own.Ours(messageID)
}

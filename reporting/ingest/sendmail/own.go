package sendmail

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"postseal/reporting/ingest/maillog"
)

// aboutOwn passes further lines that are read because of messages of ours.
func (s *Log) aboutOwn(line []byte) bool {
	return s.own.Is != nil && bytes.Contains(line, []byte(", msgid=")) ||
		s.own.Any() && bytes.Contains(line, []byte(": Cannot send message "))
}

// ownLine reads, behind the queue id,
//
//	from=<s@E>, size=80, class=0, nrcpts=1, msgid=<…>, proto=ESMTP, …
//	QID2: sender notify: Cannot send message for 5 days
//
// of which the second has "DSN" or "return to sender" as well: nothing is tried any more.
// What sendmail(1) hands to the server comes in twice, and has two queue ids.
func (s *Log) ownLine(e *maillog.Entry, id, text []byte) {
	at, ok := s.clock.At(e.Stamp)
	if !ok || len(id) == 0 {
		return
	}
	if s.own.Asked(text, "from=") {
		messageID, recipients := readMessageID(text)
		s.own.Received(e.Host, id, messageID, recipients, at)
		return
	}
	m := s.own.Find(e.Host, id)
	notice, text := cutID(text)
	if _, why, _ := bytes.Cut(text, []byte(": ")); m != nil && notice != nil && bytes.HasPrefix(why, []byte("Cannot send message ")) {
		s.own.Tell(m, maillog.Bounced, nil, why, at)
		s.own.Remove(m)
	}
}

// readMessageID reads the line of a message that has come in. Its sender stands in
// front of the number of recipients.
func readMessageID(b []byte) (id []byte, recipients int) {
	_, b, _ = bytes.Cut(b, []byte(", nrcpts="))
	n, b, _ := bytes.Cut(b, []byte(", msgid="))
	id, _, _ = bytes.Cut(b, []byte(", "))
	count, _ := strconv.ParseUint(string(n[:min(len(n), 4)]), 10, 0)
	return id, int(count)
}

// tell reports whether a delivery is that of a message of ours, and says what became of it. The
// message has no end in the log but that of its last recipient.
func (s *Log) tell(e *maillog.Entry, id []byte, to *toLine, at time.Time) bool {
	m := s.own.Find(e.Host, id)
	if m == nil {
		return false
	}
	status, ok := to.status()
	if !ok {
		return true
	}
	text := to.stat
	if to.reply != "" {
		text += ": " + to.reply
	}
	for list := to.list; len(list) > 0; {
		var address []byte
		address, list = cutAddress(list)
		s.own.Tell(m, status, address, []byte(text), at)
		if status != maillog.Deferred {
			m.Value.Left--
		}
	}
	if status != maillog.Deferred && m.Value.Left <= 0 {
		s.own.Remove(m)
	}
	return true
}

// status reads "stat=", which any text may follow that is not of these, and "dsn=".
func (to *toLine) status() (status maillog.Status, ok bool) {
	switch {
	case strings.HasPrefix(to.stat, "Sent"):
		return maillog.Sent, true
	case strings.HasPrefix(to.stat, "Deferred"), strings.HasPrefix(to.dsn, "4."):
		return maillog.Deferred, true
	case strings.HasPrefix(to.dsn, "5."):
		return maillog.Bounced, true
	}
	return "", false // "queued"
}

// cutAddress takes the first of "<u@d>,<v@d>".
func cutAddress(list []byte) (address, rest []byte) {
	quoted, end := false, len(list)
	for i := 0; i < len(list) && end == len(list); i++ {
		switch c := list[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			end = i
		}
	}
	address = bytes.TrimSuffix(bytes.TrimPrefix(list[:end], []byte("<")), []byte(">"))
	return address, list[min(end+1, len(list)):]
}

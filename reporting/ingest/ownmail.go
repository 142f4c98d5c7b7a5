package ingest

import (
	"bytes"
	"time"
)

const (
	// maxOwn reports are under way at a time. They are sent over hours, and most leave at
	// once; what is open is in every checkpoint.
	maxOwn = 4096

	// maxOwnBytes bounds what all of them hold.
	maxOwnBytes = 2 << 20

	// maxOwnID is a Message-ID of ours with the longest domain, and some more.
	maxOwnID = 320

	// ownAge is how long nothing is heard of one whose end got lost: longer than mail
	// servers keep any (5 days: maximal_queue_lifetime, Timeout.queuereturn), even on hold.
	ownAge = 7 * 24 * time.Hour

	maxRecipient    = 320 // RFC 5321 §4.5.3.1: 64, "@" and 255
	maxDeliveryText = 400 // most of a reply, which has 512 a line
)

// Status is what became of a message for one recipient.
type Status string

// What a mail server may say, RFC 3464 §2.3.3 in Postfix's words.
const (
	Sent     Status = "sent"     // the next host has it
	Deferred Status = "deferred" // it will be tried again
	Bounced  Status = "bounced"  // given up, at once or after days
)

// Delivery is what a log tells of one of our own messages. A report may have several, and
// Sent need not be the last: a filter, or sendmail(1), hands it on under another queue id.
type Delivery struct {
	Time      time.Time
	MessageID string // with its angle brackets
	Status    Status

	// Recipient is who the message was sent to, before the mail server rewrote it, if the
	// line says so. It is "" where the mail server gave up all that were left.
	// Whoever has got a report can send other mail with its Message-ID, so it is to be compared.
	Recipient string

	// Text says why, in words of the mail server or of a remote host: printable ASCII, at
	// most 400 bytes, which may hold addresses and markup.
	Text string
}

// ownMail is a message of ours that the mail server has not done with.
type ownMail struct {
	host string // that logged it: queue ids of two hosts may be the same
	id   string // Message-ID
	left int    // recipients, where the end of a message is not logged
}

func (m *ownMail) weight() int { return 200 + len(m.host) + len(m.id) }

// ownMails holds them by queue id.
type ownMails struct {
	is   func(messageID []byte) bool // nil: none
	told func(Delivery)              // nil: nobody asks
	open table[ownMail]
}

// forget empties it.
func (o *ownMails) forget() { o.open.init(maxOwn, maxOwnBytes, (*ownMail).weight) }

// any reports whether one may be under way.
func (o *ownMails) any() bool { return o.open.len() > 0 }

// ours reports whether a Message-ID is that of a report of ours.
func (o *ownMails) ours(messageID []byte) bool {
	return o.is != nil && len(messageID) <= maxOwnID && o.is(messageID)
}

// asked reports whether a line with such a beginning is one to read.
func (o *ownMails) asked(text []byte, beginning string) bool {
	return (o.is != nil || o.any()) && bytes.HasPrefix(text, []byte(beginning))
}

// find returns the message under a queue id, if it is ours; host may be nil where ids are
// unique over hosts.
func (o *ownMails) find(host, queueID []byte) *slot[ownMail] {
	if !o.any() {
		return nil
	}
	if m := o.open.find(queueID); m != nil && m.value.host == string(host) {
		return m
	}
	return nil
}

// received takes a message that has come in under a queue id, which may have been that of
// one of ours before.
func (o *ownMails) received(host, queueID, messageID []byte, recipients int, at time.Time) {
	if len(messageID) == 0 || !o.ours(messageID) {
		o.done(host, queueID)
		return
	}
	id := string(messageID)
	if id[0] != '<' {
		id = "<" + id + ">"
	}
	m := o.open.get(queueID, at)
	m.value = ownMail{host: string(host), id: id, left: recipients}
	o.open.settle(m, func(*ownMail) {})
	for m := o.open.oldest(); m != nil && at.Sub(m.at) > ownAge; m = o.open.oldest() {
		o.remove(m)
	}
}

// done: the mail server has forgotten the message.
func (o *ownMails) done(host, queueID []byte) {
	if m := o.find(host, queueID); m != nil {
		o.remove(m)
	}
}

// remove is done for a message that was found.
func (o *ownMails) remove(m *slot[ownMail]) { o.open.remove(m) }

// has reports whether a message of ours is under way with that queue id at any host.
func (o *ownMails) has(queueID []byte) bool { return o.any() && o.open.find(queueID) != nil }

// tell says what became of a message.
func (o *ownMails) tell(m *slot[ownMail], status Status, recipient, text []byte, at time.Time) {
	m.at = at
	o.open.unlink(m)
	o.open.link(m)
	if o.told == nil {
		return
	}
	o.told(Delivery{
		Time: at.UTC(), MessageID: m.value.id, Status: status,
		Recipient: printable(string(recipient), maxRecipient),
		Text:      printable(string(text), maxDeliveryText),
	})
}

// append writes what is under way.
func (o *ownMails) append(w *stateWriter) {
	w.uint(uint64(o.open.len()))
	for m := range o.open.all {
		w.text(m.key)
		w.time(m.at)
		w.text(m.value.host)
		w.text(m.value.id)
		w.uint(uint64(m.value.left))
	}
}

// readOwnMails reads what append wrote, and nothing in states of an earlier version.
func readOwnMails(r *stateReader) *ownMails {
	o := new(ownMails)
	o.forget()
	if r.before {
		return o
	}
	for range r.count(maxOwn) {
		m := &slot[ownMail]{key: r.text(), at: r.time()}
		m.value = ownMail{host: r.text(), id: r.text(), left: int(min(r.uint(), MaxLine))}
		if o.open.has(m.key) {
			r.refuse()
			break
		}
		o.open.put(m)
	}
	return o
}

// take goes on with what another one has under way, which is empty then.
func (o *ownMails) take(other *ownMails) {
	o.forget()
	o.open.take(&other.open)
}

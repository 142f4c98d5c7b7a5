package maillog

import (
	"bytes"
	"time"

	"postseal/reporting/ingest/foreign"
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

// OwnMail is a message of ours that the mail server has not done with.
type OwnMail struct {
	host string // that logged it: queue ids of two hosts may be the same
	id   string // Message-ID
	Left int    // recipients, where the end of a message is not logged
}

func (m *OwnMail) weight() int { return 200 + len(m.host) + len(m.id) }

// OwnMails holds them by queue id. Forget makes it usable.
type OwnMails struct {
	Is   func(messageID []byte) bool // Options.Own
	Told func(Delivery)              // Options.Delivered
	open Table[OwnMail]
}

// Forget empties it.
func (o *OwnMails) Forget() { o.open.Init(maxOwn, maxOwnBytes, (*OwnMail).weight) }

// Any reports whether one may be under way.
func (o *OwnMails) Any() bool { return o.open.Len() > 0 }

// Ours reports whether a Message-ID is that of a report of ours.
func (o *OwnMails) Ours(messageID []byte) bool {
	return o.Is != nil && len(messageID) <= maxOwnID && o.Is(messageID)
}

// Asked reports whether a line with such a beginning is one to read.
func (o *OwnMails) Asked(text []byte, beginning string) bool {
	return (o.Is != nil || o.Any()) && bytes.HasPrefix(text, []byte(beginning))
}

// Find returns the message under a queue id, if it is ours; host may be nil where ids are
// unique over hosts.
func (o *OwnMails) Find(host, queueID []byte) *Slot[OwnMail] {
	if !o.Any() {
		return nil
	}
	if m := o.open.Find(queueID); m != nil && m.Value.host == string(host) {
		return m
	}
	return nil
}

// Received takes a message that has come in under a queue id, which may have been that of
// one of ours before.
func (o *OwnMails) Received(host, queueID, messageID []byte, recipients int, at time.Time) {
	if len(messageID) == 0 || !o.Ours(messageID) {
		o.Done(host, queueID)
		return
	}
	id := string(messageID)
	if id[0] != '<' {
		id = "<" + id + ">"
	}
	m := o.open.Get(queueID, at)
	m.Value = OwnMail{host: string(host), id: id, Left: recipients}
	o.open.Settle(m, func(*OwnMail) {})
	for m := o.open.Oldest(); m != nil && at.Sub(m.At) > ownAge; m = o.open.Oldest() {
		o.Remove(m)
	}
}

// Done: the mail server has forgotten the message.
func (o *OwnMails) Done(host, queueID []byte) {
	if m := o.Find(host, queueID); m != nil {
		o.Remove(m)
	}
}

// Remove is done for a message that was found.
func (o *OwnMails) Remove(m *Slot[OwnMail]) { o.open.Remove(m) }

// Has reports whether a message of ours is under way with that queue id at any host.
func (o *OwnMails) Has(queueID []byte) bool { return o.Any() && o.open.Find(queueID) != nil }

// Tell says what became of a message for one recipient; nil: for all that were left.
func (o *OwnMails) Tell(m *Slot[OwnMail], status Status, recipient, text []byte, at time.Time) {
	m.At = at
	o.open.unlink(m)
	o.open.link(m)
	if o.Told == nil {
		return
	}
	o.Told(Delivery{
		Time: at.UTC(), MessageID: m.Value.id, Status: status,
		Recipient: foreign.Printable(string(recipient), maxRecipient),
		Text:      foreign.Printable(string(text), maxDeliveryText),
	})
}

// Append writes what is under way.
func (o *OwnMails) Append(w *StateWriter) {
	w.Uint(uint64(o.open.Len()))
	for m := range o.open.All {
		w.Text(m.Key)
		w.Time(m.At)
		w.Text(m.Value.host)
		w.Text(m.Value.id)
		w.Uint(uint64(m.Value.Left))
	}
}

// ReadOwnMails reads what Append wrote.
func ReadOwnMails(r *StateReader) *OwnMails {
	o := new(OwnMails)
	o.Forget()
	for range r.Count(maxOwn) {
		m := &Slot[OwnMail]{Key: r.Text(), At: r.Time()}
		m.Value = OwnMail{host: r.Text(), id: r.Text(), Left: int(min(r.Uint(), MaxLine))}
		if o.open.Has(m.Key) {
			r.Refuse()
			break
		}
		o.open.Put(m)
	}
	return o
}

// Take goes on with what another one has under way, which is empty then.
func (o *OwnMails) Take(other *OwnMails) {
	o.Forget()
	o.open.Take(&other.open)
}

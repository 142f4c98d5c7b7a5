package delivery

import (
	"io"

	"postseal/policy/delivery/ledger"
	"postseal/policy/requiretls"
	"postseal/policy/smtpclient"
)

// message is one message as the mail server handed it over. It is not changed
// after the last dot.
type message struct {
	mode     requiretls.Mode // of the socket; Required also by the MAIL parameter
	envelope smtpclient.Envelope
	// modes of the recipients: those with a route suffix, which is cut off
	// already, have that of the suffix, the others that of the message.
	modes []requiretls.Mode

	// digest is that of what was received, octet by octet, for the ledger; content
	// is what goes out: without the header X-Postseal-Route, with our Received line.
	digest    ledger.Digest
	content   content
	received  string // the topmost Received field as received, unfolded; "" if there is none
	messageID string // as the header has it; "" if there is none
	queueID   string // of the mail server, by XFORWARD IDENT; "" if unknown
	id        string // of our own, in our Received line
}

// content is a text that can be read by several at the same time.
type content interface {
	Open() io.Reader
	Size() int64
}

package exim

import (
	"bytes"
	"time"

	"postseal/reporting/ingest/maillog"
)

// readMessageID reads "<= sender H=… P=… S=310 id=…", the Message-ID without its angle
// brackets; nil if there is none. A subject, behind it, is quoted.
func readMessageID(b []byte) []byte {
	b = b[len("<= "):]
	for len(b) > 0 {
		word, rest, ok := cutWord(b)
		if !ok {
			return nil
		}
		if id, found := bytes.CutPrefix(word, []byte("id=")); found {
			return id
		}
		b = bytes.TrimLeft(rest, " ")
	}
	return nil
}

// tell says what became of a message of ours. Exim logs a deferral at each queue run.
func (x *Log) tell(id []byte, r *recipient, at time.Time) {
	m := x.own.Find(nil, id)
	if m == nil {
		return
	}
	status := maillog.Sent
	switch r.kind {
	case 'd':
		status = maillog.Deferred
	case 'f':
		status = maillog.Bounced
	}
	x.own.Tell(m, status, r.address, r.said(), at)
}

// said is the text of a line, also behind words that a remote host chose: C="250 …", or
// the end of a line that names a certificate.
func (r *recipient) said() []byte {
	if r.text != nil {
		return r.text
	}
	for b := r.rest; len(b) > 0; {
		if text, ok := cutText(b); ok {
			return text
		}
		word, rest, ok := cutWord(bytes.TrimLeft(b, " "))
		if !ok {
			return nil
		}
		if reply, found := bytes.CutPrefix(word, []byte(`C="`)); found {
			return bytes.TrimSuffix(reply, []byte(`"`))
		}
		if bytes.HasSuffix(word, []byte(":")) {
			return rest
		}
		b = rest
	}
	return nil
}

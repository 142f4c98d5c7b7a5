package postfix

import "time"

// proxyNote is why a handshake failed in tlsproxy(8), which does not know the delivery.
type proxyNote struct {
	logHost string
	relay   string // "H[IP]"
	at      time.Time
	broken  bool // the handshake was not completed
	verdict verdict
}

// proxyNotes holds the last of them.
type proxyNotes struct {
	notes []proxyNote
}

const (
	// maxNotes is more than fail in the moment that smtp(8) needs to log on its side.
	maxNotes = 256
	maxNote  = time.Minute
)

func (n *proxyNotes) keep(note proxyNote) {
	if len(n.notes) >= maxNotes {
		n.notes = append(n.notes[:0], n.notes[1:]...)
	}
	n.notes = append(n.notes, note)
}

// take gives the latest note of a host and forgets it.
func (n *proxyNotes) take(logHost []byte, relay string, broken bool, now time.Time) (proxyNote, bool) {
	for i := len(n.notes) - 1; i >= 0; i-- {
		note := n.notes[i]
		if note.broken != broken || note.relay != relay || note.logHost != string(logHost) ||
			now.Sub(note.at).Abs() > maxNote {
			continue
		}
		n.notes = append(n.notes[:i], n.notes[i+1:]...)
		return note, true
	}
	return proxyNote{}, false
}

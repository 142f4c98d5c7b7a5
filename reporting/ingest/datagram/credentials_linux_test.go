package datagram_test

import (
	"os"
	"runtime"
	"testing"

	"postseal/reporting"
	"postseal/reporting/ingest/datagram"
)

func TestReceiverRefusesOtherUsers(t *testing.T) {
	own := uint32(os.Getuid())
	for _, tt := range []struct {
		name    string
		uids    []uint32
		emitted int
	}{
		{"anybody", nil, 3},
		{"only this user", []uint32{own + 1, own}, 3},
		{"only another user", []uint32{own + 1}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			receiver, sender := socket(t)
			emitted := 0
			r := &datagram.Receiver{UIDs: tt.uids, Emit: func(reporting.Session) { emitted++ }}
			stop := start(t, r, receiver)
			// The kernel does not know who sent what came before Run asked.
			send(t, sender, "")
			for st := r.Stats(); st.Refused+st.Malformed == 0; st = r.Stats() {
				runtime.Gosched()
			}
			before := r.Stats()
			for range 3 {
				send(t, sender, goodDatagram)
			}
			stop()
			st := r.Stats()
			if refused := int(st.Refused - before.Refused); emitted != tt.emitted || st.Received != 4 || refused != 3-tt.emitted {
				t.Errorf("emitted %d, want %d; refused %d; counted %+v", emitted, tt.emitted, refused, st)
			}
		})
	}
}

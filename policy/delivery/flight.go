package delivery

import (
	"context"
	"sync"
	"time"

	"postseal/policy/delivery/ledger"
	"postseal/policy/smtpclient"
)

// flight is an attempt to deliver one message to one recipient. The same message
// that comes again meanwhile, since the mail server has lost patience, joins it
// instead of being sent twice.
type flight struct {
	done  chan struct{}
	reply smtpclient.Reply // once done is closed
}

// flights are those in the air.
type flights struct {
	mu    sync.Mutex
	byKey map[ledger.Key]*flight
}

// start returns a flight for key, and whether it is new.
func (fs *flights) start(key ledger.Key) (f *flight, first bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.byKey[key]; f != nil {
		return f, false
	}
	if fs.byKey == nil {
		fs.byKey = map[ledger.Key]*flight{}
	}
	f = &flight{done: make(chan struct{})}
	fs.byKey[key] = f
	return f, true
}

// land ends a flight. What was delivered is in the ledger by then, so that a key is
// always in one of the two.
func (fs *flights) land(key ledger.Key, f *flight, r smtpclient.Reply) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.reply = r
	close(f.done)
	delete(fs.byKey, key)
}

// claim finds out which recipients are for us to deliver to: not those to whom this
// very message was delivered before, who get the reply of then, nor those to whom
// it is being delivered now.
func (d *delivery) claim() (open []int, joined map[int]*flight) {
	d.identify()
	joined = map[int]*flight{}
	for i := range d.m.envelope.To {
		if !d.keyed {
			open = append(open, i)
			continue
		}
		f, first := d.s.state.flights.start(d.keys[i])
		if !first {
			joined[i] = f
			continue
		}
		d.flights[i] = f
		e, known := d.s.Ledger.Lookup(d.keys[i])
		if !known {
			open = append(open, i)
			continue
		}
		d.land(i, already(e))
		d.s.state.counters.already.Add(1)
		d.log.Info("message was delivered before, the mail server has lost our reply", "delivered", e.At)
	}
	return open, joined
}

// land gives recipient i a reply that needs no record.
func (d *delivery) land(i int, r smtpclient.Reply) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replies[i] = r
	d.s.state.flights.land(d.keys[i], d.flights[i], r)
	d.flights[i] = nil
}

// identify computes the keys. Without a queue id or a Received line of the mail
// server a message cannot be told from one that was sent again on purpose, and is
// none of the ledger's.
func (d *delivery) identify() {
	if d.s.Ledger == nil || d.m.queueID == "" && d.m.received == "" {
		return
	}
	d.keyed = true
	for _, to := range d.m.envelope.To {
		d.keys = append(d.keys, d.m.digest.Key(d.m.queueID, d.m.envelope.From, to.Addr))
	}
}

// join waits for a flight of another delivery, or of this one where a recipient
// stands twice.
func (d *delivery) join(ctx context.Context, i int, f *flight) {
	select {
	case <-f.done:
	case <-ctx.Done():
	}
	r := unfinished(ctx, "the message is being delivered since an earlier attempt")
	select { // also if both are true
	case <-f.done:
		r = f.reply
	default:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replies[i] = r
}

// already words the reply to what was delivered before.
func already(e ledger.Entry) smtpclient.Reply {
	note := " (already delivered at " + e.At.UTC().Format(time.RFC3339) + ")"
	return answer(e.Code, e.Enhanced, e.Text[:min(len(e.Text), maxText-len(note))]+note)
}

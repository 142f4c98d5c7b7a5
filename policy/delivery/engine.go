package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"postseal/policy/delivery/ledger"
	"postseal/policy/smtpclient"
)

const (
	// defaultDeadline leaves a minute of the 10 for which Postfix waits after the
	// last dot (lmtp_data_done_timeout); RFC 5321 §4.5.3.2.6 wants no less of anyone.
	defaultDeadline = 9 * time.Minute

	// maxGroups next hops of one message are delivered to side by side.
	maxGroups = 16

	// recordPatience is how long a reply waits for the ledger, and again for the
	// sessions to be counted: a commit takes milliseconds, and after this a disk is stalled, which must not hold up mail.
	recordPatience = 10 * time.Second
)

// errDeadline is the cause when Deadline is over.
var errDeadline = errors.New("not finished in time")

// delivery is one message on its way.
type delivery struct {
	s     *Server
	m     *message
	log   *slog.Logger
	keyed bool // keys are set: the message can be told from one sent again on purpose
	keys  []ledger.Key
	told  atomic.Bool // Report was called for it, or perhaps by the delivery that it has joined

	mu      sync.Mutex
	flights []*flight          // ours, by recipient; nil where there is none, or another delivery's
	replies []smtpclient.Reply // by recipient; Code 0: none yet
}

// deliver returns one reply for each recipient of m, in order. It needs m no
// longer when it returns, though it may go on to read replies to what was sent.
func (s *Server) deliver(ctx context.Context, m *message) (replies []smtpclient.Reply) {
	s.state.counters.begin()
	defer func() { s.state.counters.end(replies) }()
	deadline := s.Deadline
	if deadline <= 0 {
		deadline = defaultDeadline
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, errDeadline)
	defer cancel()
	d := &delivery{s: s, m: m, log: s.logger().With("queue_id", m.queueID, "id", m.id),
		flights: make([]*flight, len(m.envelope.To)), replies: make([]smtpclient.Reply, len(m.envelope.To))}

	open, joined := d.claim()
	groups := d.split(open)
	slots := make(chan struct{}, maxGroups)
	for _, g := range groups {
		w := &walk{delivery: d, group: g, left: g.recipients, temporary: map[int]smtpclient.Reply{}}
		g.loose, g.done = make(chan struct{}), make(chan struct{})
		s.state.tasks.run(func() {
			defer close(g.done)
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done(): // who reads on after it keeps his slot; this one only says so
			}
			w.run(ctx)
		})
	}
	for _, g := range groups {
		select {
		case <-g.done:
		case <-g.loose:
		}
	}
	for i, f := range joined {
		d.join(ctx, i, f)
		d.told.Store(true)
	}
	d.reported()
	return d.answers(ctx)
}

// reported waits until the sessions of this message are counted, if there were any
// but those that wait for the next message: the mail server takes note of our reply,
// and a crash must not make us forget what was counted for it.
func (d *delivery) reported() {
	if d.s.Reported == nil || !d.told.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(d.s.state.lifetime(), recordPatience)
	defer cancel()
	if err := d.s.Reported(ctx); err != nil {
		d.log.Error("sessions of a delivery are not on disk; they may be missing in a report", "error", err)
	}
}

// split sorts recipients by next hop. Those without one get their reply.
func (d *delivery) split(open []int) []*group {
	var groups []*group
	byHop := map[nextHop]*group{}
	for _, i := range open {
		h, reply := d.s.route(d.m.envelope.To[i].Addr, d.m.modes[i], d.log)
		if reply.Code != 0 {
			d.settle(map[int]smtpclient.Reply{i: reply})
			continue
		}
		g := byHop[h]
		if g == nil {
			g = &group{nextHop: h}
			byHop[h] = g
			groups = append(groups, g)
		}
		g.recipients = append(g.recipients, i)
	}
	return groups
}

// settle gives recipients their replies. What a remote host has taken is recorded
// before anyone hears of it. A reply that is there already stays.
func (d *delivery) settle(replies map[int]smtpclient.Reply) {
	d.record(replies)
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, r := range replies {
		if d.replies[i].Code == 0 {
			d.replies[i] = r
		}
		if f := d.flights[i]; f != nil {
			d.s.state.flights.land(d.keys[i], f, r)
			d.flights[i] = nil
		}
	}
}

// record writes the successes into the ledger. Where that fails the reply is
// still the remote's: it has the message, and only a retry after a lost reply
// would bring it a second one.
func (d *delivery) record(replies map[int]smtpclient.Reply) {
	if !d.keyed {
		return
	}
	entries := map[ledger.Key]ledger.Entry{}
	for i, r := range replies {
		if r.Code/100 == 2 {
			entries[d.keys[i]] = ledger.Entry{At: d.s.now(), Code: r.Code, Enhanced: r.Enhanced, Text: r.Text}
		}
	}
	if len(entries) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(d.s.state.lifetime(), recordPatience)
	defer cancel()
	if err := d.s.Ledger.Record(ctx, entries); err != nil {
		d.log.Error("delivery is not recorded: if the mail server sends the message again, it is delivered twice", "recipients", len(entries), "error", err)
	}
}

// answers are the replies as they stand. Who has none by now will get none.
func (d *delivery) answers(ctx context.Context) []smtpclient.Reply {
	d.mu.Lock()
	defer d.mu.Unlock()
	replies := make([]smtpclient.Reply, len(d.replies))
	for i, r := range d.replies {
		if r.Code == 0 {
			r = unfinished(ctx, "the remote host has the message, but has not replied to it")
			d.replies[i] = r
		}
		replies[i] = r
	}
	return replies
}

// unfinished is the reply to who still has none when ctx has ended.
func unfinished(ctx context.Context, where string) smtpclient.Reply {
	why := errDeadline.Error()
	if !errors.Is(context.Cause(ctx), errDeadline) {
		why = "interrupted, since postseal is stopping"
	}
	if where != "" {
		why += ": " + where
	}
	return answer(451, "4.4.2", why)
}

func (s *Server) logger() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

func (s *Server) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

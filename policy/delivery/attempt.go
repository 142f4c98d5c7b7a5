package delivery

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"

	"postseal/policy/smtpclient"
)

// maxTransactions bounds those of one session for one message, however few
// recipients at a time the host takes.
const maxTransactions = 100

// attempt tries one address of one host. It reports whether the next may be tried.
func (w *walk) attempt(ctx context.Context, c *candidate, addr netip.AddrPort) (further bool) {
	key := sessionKey{client: c.client, decision: w.decision, name: c.name, addr: addr, demand: c.demand}
	if s := w.s.state.pool.take(key); s != nil {
		if further, stale := w.converse(ctx, key, s, true); !stale {
			return further
		}
	}
	s, err := c.client.Connect(ctx, smtpclient.Target{Name: c.name, Addr: addr, Demand: c.demand})
	if err != nil {
		w.refused(ctx, c, addr, err)
		return true
	}
	w.s.state.dead.forget(addr)
	w.s.report(w, c, addr, s.Info(), nil)
	further, _ = w.converse(ctx, key, s, false)
	return further
}

// refused takes note of a session that did not come about.
func (w *walk) refused(ctx context.Context, c *candidate, addr netip.AddrPort, err error) {
	f, ok := errors.AsType[*smtpclient.Failure](err)
	if !ok { // not to happen
		f = &smtpclient.Failure{Err: err, Reply: answer(451, "4.4.1", err.Error())}
	}
	if ctx.Err() != nil { // our own end is not the host's fault
		w.failed(nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: err, Reply: answer(451, "4.4.2", f.Error())})
		return
	}
	w.failed(c.demand.Host, f)
	if f.Stage == smtpclient.StageConnect {
		w.s.state.dead.add(addr, w.s.now())
		return
	}
	w.s.report(w, c, addr, f.Info, f)
}

// converse sends the message over a session, in as many transactions as it takes for
// hosts that limit the recipients of one (RFC 5321 §4.5.3.1.10). A session that had
// been idle and turns out to be gone is stale: nothing has happened.
func (w *walk) converse(ctx context.Context, key sessionKey, s *smtpclient.Session, idle bool) (further, stale bool) {
	batch := w.left
	for n := 0; ; n++ {
		res := w.send(ctx, s, batch)
		if idle && n == 0 && gone(res) {
			w.s.state.tasks.run(s.Close)
			return true, true
		}
		rest := w.take(ctx, s, batch, res)
		if len(rest) > 0 && res.Usable && n < maxTransactions && ctx.Err() == nil {
			batch = rest
			continue
		}
		if res.Usable && ctx.Err() == nil {
			w.s.state.pool.put(key, s)
		} else {
			w.s.state.tasks.run(s.Close)
		}
		return !res.Uncertain, false
	}
}

// gone reports whether a transaction failed before the host could have known of it.
func gone(res smtpclient.Result) bool {
	f := res.Failure
	return f != nil && !res.Usable && !res.Uncertain && (f.Stage == smtpclient.StageMail || f.Stage == smtpclient.StageReset)
}

// take sorts the replies of a transaction: what is final is settled, and those that
// the host found too many are returned.
func (w *walk) take(ctx context.Context, s *smtpclient.Session, batch []int, res smtpclient.Result) (rest []int) {
	host := s.Target().String()
	final := map[int]smtpclient.Reply{}
	for n, i := range batch {
		r := res.Replies[n]
		switch r.Code / 100 {
		case 2:
			w.taker = s
			final[i] = said(host, r)
		case 5: // RFC 5321 §4.2.1: a permanent reply is for no other host to overrule
			final[i] = said(host, r)
		case 4:
			w.temporary[i] = said(host, r)
		case 0:
			// Another host could make it two; or is not asked, since what is
			// too large for one usually is for its fellows.
			if f := res.Failure; res.Uncertain || f.Stage == smtpclient.StageMail && f.Reply.Code == 552 {
				final[i] = f.Reply
			}
		}
	}
	for _, n := range res.Rest {
		i := batch[n]
		delete(final, i)
		rest = append(rest, i)
	}
	if res.Failure != nil {
		w.failed(nil, res.Failure)
	}
	w.settle(final)
	var left []int
	for _, i := range w.left {
		if _, ok := final[i]; !ok {
			left = append(left, i)
		}
	}
	w.left = left
	if ctx.Err() != nil && len(final) > 0 {
		w.log.Warn("reply came after the deadline", "host", host, "recipients", len(final), "recorded", w.keyed)
	}
	return rest
}

// send runs one transaction. When ctx ends, a message that is not out yet is
// aborted; one that is, is let be: the mail server is told 4xx, and the reply is
// waited for, so that a retry can be told what became of it.
func (w *walk) send(ctx context.Context, s *smtpclient.Session, batch []int) smtpclient.Result {
	e := w.m.envelope
	e.To = nil
	for _, i := range batch {
		e.To = append(e.To, w.m.envelope.To[i])
	}
	t := newTransmission(w.m.content)
	sending, abort := context.WithCancelCause(w.s.state.lifetime())
	defer abort(nil)
	stop := context.AfterFunc(ctx, func() {
		if t.halt() {
			abort(context.Cause(ctx))
			return
		}
		close(w.loose)
	})
	defer stop()
	return s.Send(sending, &e, t, t.size)
}

// errHalted ends a message in its midst, so that its last dot is never sent.
var errHalted = errors.New("delivery was interrupted")

// transmission is a message that is being sent, until it is halted. Once all of it
// has been read it can not be: the last dot may be on its way.
type transmission struct {
	content content
	size    int64

	mu     sync.Mutex
	r      io.Reader
	n      int64 // octets read
	loose  bool  // content must not be touched any more, since all had been read
	halted bool
}

func newTransmission(c content) *transmission {
	return &transmission{content: c, size: c.Size(), r: c.Open()}
}

func (t *transmission) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.halted:
		return 0, errHalted
	case t.n >= t.size:
		return 0, io.EOF
	}
	n, err := t.r.Read(p[:min(int64(len(p)), t.size-t.n)])
	t.n += int64(n)
	return n, err
}

// Seek is for who wants to look at the message before it is sent, and goes nowhere
// but to the beginning. It may have been let go by then, and is not sent at all.
func (t *transmission) Seek(offset int64, whence int) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if offset != 0 || whence == io.SeekEnd {
		return 0, errors.ErrUnsupported
	}
	if whence == io.SeekCurrent {
		return t.n, nil
	}
	if t.loose {
		t.halted = true
	}
	if t.halted {
		return 0, errHalted
	}
	t.r, t.n = t.content.Open(), 0
	return 0, nil
}

// halt stops the message, unless all of it has been read.
func (t *transmission) halt() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n >= t.size {
		t.loose = true
		return false
	}
	t.halted = true
	return true
}

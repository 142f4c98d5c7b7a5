package delivery

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postseal/policy/smtpclient/mxtest"
)

// TestStorm: a mail server sends messages again until all recipients have them, to
// hosts that refuse, hang up and reply late. Nobody gets one twice, and nobody none.
func TestStorm(t *testing.T) {
	const (
		domains, messages, each = 4, 12, 3
		retry                   = 2 * time.Minute
	)
	seed := [2]uint64{rand.Uint64(), rand.Uint64()}
	t.Logf("seed %v", seed)
	frozen(t, func(t *testing.T, b *still) {
		chance := rand.New(rand.NewPCG(seed[0], seed[1]))
		b.Deadline = time.Minute
		b.Resolver = &once{Resolver: b}
		var hosts []*mxtest.Host
		for n := range domains {
			h := b.host(fmt.Sprintf("d%d.test", n), mxtest.Config{NoSTARTTLS: true}) // handshakes would take most of the time
			h.Reply("MAIL", some(chance, "250 2.1.0 ok", "250 2.1.0 ok", "451 4.3.0 not now", mxtest.Drop)...)
			h.Reply("RCPT", some(chance, "250 2.1.5 ok", "250 2.1.5 ok", "250 2.1.5 ok", "450 4.2.0 grey", "452 4.5.3 too many")...)
			h.Reply("DATA", some(chance, "354 go on", "354 go on", "354 go on", "451 4.3.0 no room")...)
			h.Reply(".", some(chance, "250 2.0.0 taken", "250 2.0.0 taken", "451 4.3.0 no room", mxtest.Stall+" 250 2.0.0 taken late", mxtest.Stall+" 451 4.3.0 late")...)
			hosts = append(hosts, h)
		}
		releasing, stop := context.WithCancel(context.Background())
		var releaser, senders sync.WaitGroup
		releaser.Go(func() {
			for releasing.Err() == nil {
				select {
				case <-releasing.Done():
				case <-time.After(90 * time.Second): // after the deadline
				}
				for _, h := range hosts {
					h.Release()
				}
			}
		})
		for n := range messages {
			senders.Go(func() { insist(t, b, n, domains, each, retry) })
		}
		senders.Wait()
		stop()
		releaser.Wait()
		synctest.Wait()

		got := map[string]int{}
		for _, h := range hosts {
			for _, m := range h.Mails() {
				for _, to := range m.To {
					if m.Taken {
						got[string(m.Data)+to]++
					}
				}
			}
		}
		for what, n := range got {
			if n != 1 {
				t.Errorf("%q was delivered %d times", what, n)
			}
		}
		if len(got) != messages*domains*each {
			t.Errorf("%d deliveries, want %d", len(got), messages*domains*each)
		}
	})
}

// insist sends message n until all its recipients have it.
func insist(t *testing.T, b *still, n, domains, each int, retry time.Duration) {
	var to []string
	for d := range domains {
		for u := range each {
			to = append(to, fmt.Sprintf("u%d@d%d.test", u, d))
		}
	}
	for try := 0; len(to) > 0; try++ {
		if try == 500 {
			t.Errorf("message %d: still to %q", n, to)
			return
		}
		m := b.message(to...)
		c := plainText(fmt.Sprintf("Received: %d\r\n\r\n", n))
		m.digest, m.content = digest(c), c
		var left []string
		for i, r := range b.deliver(context.Background(), m) {
			switch {
			case r.Code/100 == 4:
				left = append(left, to[i])
			case r.Code != 250:
				t.Errorf("message %d, %s: %v", n, to[i], r)
			}
		}
		if to = left; len(to) > 0 {
			time.Sleep(retry)
		}
	}
}

// some are many replies by chance, and at last the first.
func some(chance *rand.Rand, of ...string) (list []string) {
	for range 200 {
		list = append(list, of[chance.IntN(len(of))])
	}
	return append(list, of[0])
}

package delivery

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"postseal/policy/smtpclient"
	"postseal/policy/smtpclient/mxtest"
)

func TestStats(t *testing.T) {
	frozen(t, func(t *testing.T, b *still) {
		h := b.host("d.test", mxtest.Config{})
		h.Reply("RCPT busy@d.test", "450 4.2.1 busy")
		h.Reply("RCPT none@d.test", "550 5.1.1 none")
		h.Reply(".", mxtest.Stall)
		done := make(chan []smtpclient.Reply, 1)
		go func() {
			done <- b.deliver(context.Background(), b.message("u@d.test", "busy@d.test", "none@d.test"))
		}()
		synctest.Wait()
		if diff := cmp.Diff(Stats{Messages: 1, InFlight: 1}, b.Stats()); diff != "" {
			t.Errorf("under way (-want +got):\n%s", diff)
		}
		h.Release()
		<-done
		if diff := cmp.Diff(Stats{Messages: 1, Delivered: 1, Deferred: 1, Bounced: 1}, b.Stats()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		b.deliver(context.Background(), b.message("u@d.test"))
		if diff := cmp.Diff(Stats{Messages: 2, Delivered: 2, Deferred: 1, Bounced: 1, Already: 1}, b.Stats()); diff != "" {
			t.Errorf("again (-want +got):\n%s", diff)
		}
	})
}
